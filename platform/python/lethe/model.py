"""A model file."""

from __future__ import annotations

import ctypes
import os
import weakref
from ctypes import byref
from typing import TYPE_CHECKING, Iterable, Union

from . import _abi
from .figures import Memory, ModelInfo
from .session import Session, session_params

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .options import SessionOptions


class Model:
    """A .lethe file, mapped read-only. Any number of threads may use it. Closing it closes its sessions."""

    def __init__(self, path: Union[str, os.PathLike[str]]) -> None:
        self._sessions: weakref.WeakSet[Session] = weakref.WeakSet()
        self._handle = ctypes.c_void_p()
        self._forgotten = False
        _abi.call("lethe_model_open", os.fsencode(path), byref(self._handle))

    @property
    def handle(self) -> ctypes.c_void_p:
        """The lethe_model*. ValueError when it is closed."""
        if not self._handle:
            raise ValueError("the model is closed")
        return self._handle

    @property
    def info(self) -> ModelInfo:
        raw = _abi.sized(_abi.ModelInfo)
        _abi.call("lethe_model_get_info", self.handle, byref(raw))
        return ModelInfo.of(raw)

    def verify(self) -> None:
        """Reads the whole file and compares its checksums."""
        _abi.call("lethe_model_verify", self.handle)

    def plan(self, ram_bytes: int, **options: Unpack[SessionOptions]) -> Memory:
        """What a session with these options would take. Error "ram_too_small" names the smallest cap that works."""
        params, _namm = session_params(ram_bytes, options)
        raw = _abi.sized(_abi.Memory)
        _abi.call("lethe_session_plan", self.handle, byref(params), byref(raw))
        return Memory.of(raw)

    def session(self, ram_bytes: int, **options: Unpack[SessionOptions]) -> Session:
        """A conversation within `ram_bytes`: all that it and the model ever make private."""
        params, namm = session_params(ram_bytes, options)
        handle = ctypes.c_void_p()
        _abi.call("lethe_session_create", self.handle, byref(params), byref(handle))
        return self._adopt(handle, namm)

    def _adopt(self, handle: ctypes.c_void_p, namm) -> Session:
        session = Session(self, handle, namm)
        self._sessions.add(session)
        return session

    def token_bytes(self, token: int) -> bytes:
        """The bytes of a token, maybe part of a character."""
        data, size = ctypes.c_void_p(), ctypes.c_size_t()
        _abi.call("lethe_model_token_bytes", self.handle, token, byref(data), byref(size))
        return ctypes.string_at(data, size.value) if size.value else b""

    def detokenize(self, ids: Iterable[int]) -> str:
        """The text of tokens, special ones included. Bytes that are no UTF-8 become U+FFFD."""
        return b"".join(map(self.token_bytes, ids)).decode(errors="replace")

    def close(self) -> None:
        if self._handle:
            for session in list(self._sessions):
                session.close()
            _abi.call("lethe_model_close", self._handle)
            self._handle = ctypes.c_void_p()

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_exception) -> None:
        self.close()

    def __del__(self) -> None:
        try:
            self.close()
        except _abi.Error:  # collected together with a session, which then closes it
            self._forgotten = True
