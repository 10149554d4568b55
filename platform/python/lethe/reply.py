"""The reply of a model as an iterator, over a C function that calls back.

A thread per reply runs lethe_session_generate. It and the reader take turns: the callback waits until the reader wants the
next piece, so the conversation never holds more than the reader was given, and nothing is queued.
"""

from __future__ import annotations

import atexit
import ctypes
import threading
import weakref
from typing import TYPE_CHECKING, Iterator, Optional

from . import _abi

if TYPE_CHECKING:
    from .session import Session


class _Writer:
    """What the thread works with. It knows nothing of the Reply, so that forgetting the Reply ends the thread."""

    def __init__(self, session: Session, max_tokens, stop, ignore_eos) -> None:
        self.session = session  # which must not be collected before the thread has ended
        self.wanted = threading.Semaphore(0)  # the reader wants a piece, or the end
        self.given = threading.Semaphore(0)  # there is a piece, or the end
        self.piece: Optional[str] = None  # None: the end
        self.closing = False
        self.error: Optional[Exception] = None
        self.reason = ctypes.c_int32()
        self.tokens = ctypes.c_uint64()
        texts = [text.encode() for text in stop]
        self.params = _abi.GenerateParams()
        _abi.library.lethe_generate_params_init_sized(ctypes.byref(self.params), ctypes.sizeof(self.params))
        _abi.assign(self.params, {"max_tokens": max_tokens, "stop_count": len(texts), "ignore_eos": ignore_eos})
        self.params.stop = (ctypes.c_char_p * len(texts))(*texts)

    def on_piece(self, _user, text, size, _id) -> int:
        if size and not self.closing:
            self.piece = ctypes.string_at(text, size).decode()
            self.given.release()
            self.wanted.acquire()
        return int(self.closing)

    def run(self) -> None:
        self.params.on_piece = _abi.OnPiece(self.on_piece)
        try:
            _abi.call("lethe_session_generate", self.session.handle, ctypes.byref(self.params), ctypes.byref(self.reason),
                      ctypes.byref(self.tokens))
        except Exception as error:  # for the reader, who would wait forever
            self.error = error
        self.params.on_piece = _abi.OnPiece()  # no cycle, so that the session is freed with its last user
        self.piece = None
        self.given.release()


_replies: weakref.WeakSet[Reply] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """While threads still run: later nobody could wait for one."""
    for reply in list(_replies):
        reply.close()


class Reply(Iterator[str]):
    """A reply, piece by piece: whole characters, as soon as they are certain. One thread reads it.

    Nothing is computed before the first piece is asked for. Until the end of the reply the session is in use: end it early
    with close(), with a `with` block, or by forgetting it; what was read stays part of the conversation.
    """

    def __init__(self, session: Session, max_tokens: int, stop, ignore_eos: bool) -> None:
        self._writer = _Writer(session, max_tokens, stop, ignore_eos)
        self._thread: Optional[threading.Thread] = None
        self._ended = False
        _replies.add(self)

    @property
    def stop_reason(self) -> Optional[str]:
        """Why the reply ended: "end" (the model's choice), "text" (one of `stop`), "max_tokens" or "closed"; None before that
        and when it failed."""
        reason = self._writer.reason.value
        if not self._ended or self._thread is None or reason < 0:
            return None
        return "closed" if self._writer.closing else _abi.NAMES["stop"][reason]

    @property
    def tokens(self) -> int:
        """How many tokens the reply has, once it has ended."""
        return self._writer.tokens.value

    def __iter__(self) -> Reply:
        return self

    def __next__(self) -> str:
        if self._ended:
            raise StopIteration
        try:
            if self._thread is None:
                thread = threading.Thread(target=self._writer.run, name="lethe reply", daemon=True)
                thread.start()
                self._thread = thread
            else:
                self._writer.wanted.release()
            self._writer.given.acquire()
        except BaseException:  # KeyboardInterrupt
            self.close()
            raise
        if self._writer.piece is not None:
            return self._writer.piece
        self._join()
        if self._writer.error is not None:
            raise self._writer.error
        raise StopIteration

    def close(self) -> None:
        """Ends the reply here. Fine at any time; waits for the token that is being computed."""
        if not self._ended and self._thread is not None:
            self._writer.closing = True
            self._writer.wanted.release()
        self._join()

    def _join(self) -> None:
        self._ended = True
        if self._thread is not None:
            self._thread.join()

    def __enter__(self) -> Reply:
        return self

    def __exit__(self, *_exception) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_ended"):  # not where __init__ raised
            self.close()
