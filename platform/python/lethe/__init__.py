"""Lethe: language models in a fixed amount of memory.

    import lethe

    with lethe.Model("model.lethe") as model, model.session(64 * lethe.MiB) as session:
        for piece in session.chat("Why is the sky blue?"):
            print(piece, end="", flush=True)
"""

from ._abi import VERSION as __version__
from ._abi import Error
from .figures import Memory, ModelInfo, Stats
from .model import Model
from .options import Message, MiB, ReplyOptions, SamplingOptions, SessionOptions
from .reply import Reply
from .session import Session

__all__ = ["Error", "Memory", "Message", "MiB", "Model", "ModelInfo", "Reply", "ReplyOptions", "SamplingOptions", "Session",
           "SessionOptions", "Stats", "__version__"]
