"""A model for EleutherAI's lm-evaluation-harness (the package lm_eval, with NumPy), in a fixed amount of memory:

    import lethe.lm_eval, lm_eval

    model = lethe.lm_eval.Lethe("model.lethe", 64 * lethe.MiB, policy="snapkv")
    lm_eval.simple_evaluate(model=model, tasks=["lambada_openai"])

Every request is a conversation of its own. A text that the cache cannot hold is not cut off: the policy decides what is
forgotten, so a score is that of the model under this cap and policy.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, List, Tuple, Union

from .model import Model

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .options import SessionOptions

try:
    from lm_eval.api.model import LM
except ImportError:  # the methods below work without
    LM = object


class Lethe(LM):
    """prefix: what stands before a text without a context, for models without a BOS token, such as "<|endoftext|>"."""

    def __init__(self, model: Union[str, os.PathLike[str]], ram_bytes: int, *, prefix: str = "", max_gen_toks: int = 256,
                 **options: Unpack[SessionOptions]) -> None:
        super().__init__()
        self.session = Model(model).session(ram_bytes, **options)
        self.prefix = self.session.tokenize(prefix, special=True, bos=True)
        self.max_gen_toks = max_gen_toks

    def loglikelihood(self, requests, disable_tqdm: bool = False) -> List[Tuple[float, bool]]:
        """request.args = (context, continuation): the log-likelihood of the continuation, and whether it is the greedy one."""
        return [self._continuation(*request.args) for request in requests]

    def loglikelihood_rolling(self, requests, disable_tqdm: bool = False) -> List[float]:
        """request.args = (text,): the log-likelihood of all of it."""
        return [self._whole(*request.args) for request in requests]

    def generate_until(self, requests, disable_tqdm: bool = False) -> List[str]:
        """request.args = (context, options): the reply up to one of options["until"]."""
        return [self._reply(*request.args) for request in requests]

    def _encode(self, text: str) -> List[int]:
        return self.session.tokenize(text, special=True, bos=True)

    def _continuation(self, context: str, continuation: str) -> Tuple[float, bool]:
        # As the harness does it: a space at the end of the context belongs to the next word's token.
        stripped = context.rstrip()
        continuation, context = context[len(stripped):] + continuation, stripped
        if context:
            before = self._encode(context)
            after = self._encode(context + continuation)[len(before):]
        else:
            before, after = self._prefix(), self.session.tokenize(continuation, special=True)
        if not after:
            return 0.0, True
        total, greedy = 0.0, True

        def judge(index, logits):
            nonlocal total, greedy
            wanted = logits[after[index]].astype("f8")
            highest = logits.max()
            total += wanted - highest - _log_sum(logits - highest)
            greedy = greedy and logits.argmax() == after[index]

        self.session.reset()
        if len(before) > 1:
            self.session.feed(before[:-1])
        self.session.feed_logits(before[-1:] + after[:-1], judge)
        return float(total), bool(greedy)

    def _whole(self, text: str) -> float:
        prefix = self._prefix()
        self.session.reset()
        return sum(self.session.score(prefix + self.session.tokenize(text, special=True), first=len(prefix)))

    def _prefix(self) -> List[int]:
        if not self.prefix:
            raise ValueError('the model has no BOS token to begin with: give a prefix, such as prefix="<|endoftext|>"')
        return self.prefix

    def _reply(self, context: str, options: dict) -> str:
        until = options.get("until") or []
        sampled = options.get("do_sample", options.get("temperature", 0) > 0)
        self.session.set_sampling(
            temperature=options.get("temperature", 1.0) if sampled else 0.0, top_p=options.get("top_p", 1.0),
            top_k=options.get("top_k", 0))
        self.session.reset()
        self.session.feed(self._encode(context) or self._prefix())
        return "".join(self.session.generate(max_tokens=options.get("max_gen_toks", self.max_gen_toks),
                                             stop=[until] if isinstance(until, str) else until))


def _log_sum(values) -> float:
    import numpy

    return numpy.log(numpy.exp(values, dtype="f8").sum())
