"""A conversation."""

from __future__ import annotations

import array
import ctypes
import os
import weakref
from ctypes import byref
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Sequence, Tuple, Union

from . import _abi
from .figures import Memory, Stats
from .reply import Reply

if TYPE_CHECKING:
    import numpy
    from typing_extensions import Unpack

    from .model import Model
    from .options import Message, ReplyOptions, SamplingOptions, SessionOptions


def session_params(ram_bytes: int, options: SessionOptions) -> Tuple[_abi.SessionParams, Optional[ctypes.Array]]:
    """The C struct, and the NAMM file that it points to."""
    fields: Dict[str, Any] = dict(options, ram_bytes=ram_bytes)
    params = _abi.SessionParams()
    _abi.library.lethe_session_params_init_sized(byref(params), ctypes.sizeof(params))
    namm = None
    if contents := fields.pop("namm", None):
        namm = ctypes.create_string_buffer(contents, len(contents))  # aligned, and it does not move
        fields.update(namm=ctypes.addressof(namm), namm_bytes=len(contents))
    _abi.assign(params, fields)
    return params, namm


def _ids(ids: Sequence[int]):
    """int32 [n] for C; a NumPy array of integers is fine."""
    return (ctypes.c_int32 * len(ids)).from_buffer(array.array("i", ids)) if len(ids) else (ctypes.c_int32 * 1)()


def _row(pointer, vocab: int) -> numpy.ndarray:
    """float32 [vocab], in the library's memory."""
    import numpy.ctypeslib

    return numpy.ctypeslib.as_array(pointer, (vocab,))


class Session:
    """A conversation within a fixed amount of memory, from Model.session. One thread uses it at a time, and while a reply is
    being read its other calls are errors (but cancel() and figures). Contracts are those of the functions of lethe.h that
    bear the same names."""

    def __init__(self, model: Model, handle: ctypes.c_void_p, namm: Optional[ctypes.Array]) -> None:
        self.model = model
        self._handle = handle
        self._namm = namm  # lives as long as the session
        self._reply: Optional[weakref.ref[Reply]] = None

    @property
    def handle(self) -> ctypes.c_void_p:
        """The lethe_session*. ValueError when it is closed."""
        if not self._handle:
            raise ValueError("the session is closed")
        return self._handle

    # ---- Chat -----------------------------------------------------------------------------------------------------

    def chat(self, text: str, *, system: Optional[str] = None, **options: Unpack[ReplyOptions]) -> Reply:
        """Appends a turn of the user, after a system prompt in the first one, and returns the reply to iterate over."""
        messages: List[Message] = [] if system is None else [{"role": "system", "content": system}]
        self.feed_turn(messages + [{"role": "user", "content": text}])
        return self.generate(**options)

    def generate(self, *, max_tokens: int = 0, stop: Sequence[str] = (), ignore_eos: bool = False) -> Reply:
        """What follows the conversation so far, to iterate over."""
        reply = Reply(self, max_tokens, stop, ignore_eos)
        self._reply = weakref.ref(reply)
        return reply

    def set_sampling(self, **options: Unpack[SamplingOptions]) -> None:
        """Options that are not given go back to their defaults. Until this is called a session is greedy."""
        sampling = _abi.Sampling()
        _abi.library.lethe_sampling_init_sized(byref(sampling), ctypes.sizeof(sampling))
        _abi.assign(sampling, options)
        _abi.call("lethe_session_set_sampling", self.handle, byref(sampling))

    def cancel(self) -> None:
        """Makes what the session does, in another thread, raise Error "cancelled" soon; without work, the next work."""
        _abi.library.lethe_session_cancel(self.handle)

    # ---- Text and tokens ------------------------------------------------------------------------------------------

    def tokenize(self, text: str, *, special: bool = False, bos: bool = False) -> List[int]:
        """special: special tokens written in the text become those tokens. bos: begin with BOS if the model wants it."""
        data = text.encode()
        return self._tokens("lethe_session_tokenize", data, len(data), _flags(special, bos))

    def tokenize_turn(self, messages: Sequence[Message]) -> List[int]:
        """What feed_turn would append now."""
        return self._tokens("lethe_session_tokenize_turn", _messages(messages), len(messages))

    def detokenize(self, ids: Sequence[int]) -> str:
        return self.model.detokenize(ids)

    def _tokens(self, function: str, *arguments) -> List[int]:
        count = ctypes.c_size_t()
        ids = (ctypes.c_int32 * 256)()
        try:
            _abi.call(function, self.handle, *arguments, ids, len(ids), byref(count))
        except _abi.Error as error:
            if error.code != _abi.PROMPT_TOO_LONG or count.value <= len(ids):
                raise
            ids = (ctypes.c_int32 * count.value)()
            _abi.call(function, self.handle, *arguments, ids, len(ids), byref(count))
        return ids[: count.value]

    # ---- Feeding --------------------------------------------------------------------------------------------------

    def feed(self, ids: Sequence[int]) -> None:
        _abi.call("lethe_session_feed", self.handle, _ids(ids), len(ids))

    def feed_text(self, text: str, *, special: bool = False, bos: bool = False) -> int:
        """Returns the number of tokens, as do the following."""
        data, fed = text.encode(), ctypes.c_size_t()
        _abi.call("lethe_session_feed_text", self.handle, data, len(data), _flags(special, bos), byref(fed))
        return fed.value

    def feed_turn(self, messages: Sequence[Message]) -> int:
        """Appends messages through the model's chat template, and the head of the assistant's reply."""
        fed = ctypes.c_size_t()
        _abi.call("lethe_session_feed_turn", self.handle, _messages(messages), len(messages), byref(fed))
        return fed.value

    def feed_embeddings(self, rows: numpy.ndarray) -> None:
        """rows [n][embed_dim]: they stand in for the embeddings of tokens."""
        import numpy

        rows = numpy.ascontiguousarray(rows, dtype=numpy.float32)
        width = self.model.info.embed_dim
        if rows.ndim != 2 or rows.shape[1] != width:
            raise ValueError(f"rows have the shape {rows.shape}: [n, {width}]")
        _abi.call("lethe_session_feed_embeddings", self.handle, rows.ctypes.data_as(ctypes.POINTER(ctypes.c_float)),
                  len(rows))

    # ---- Probabilities --------------------------------------------------------------------------------------------

    def logits(self) -> numpy.ndarray:
        """float32 [vocab] of the last token fed; a copy."""
        row, vocab = ctypes.POINTER(ctypes.c_float)(), ctypes.c_size_t()
        _abi.call("lethe_session_logits", self.handle, byref(row), byref(vocab))
        return _row(row, vocab.value).copy()

    def feed_logits(self, ids: Sequence[int], on_logits: Callable[[int, numpy.ndarray], None], *, first: int = 0) -> None:
        """As feed, and shows the logits of every token from ids[first] on: on_logits(index, float32 [vocab]). The array is the
        library's: copy it to keep it. An exception in on_logits ends the call and comes out of it."""
        raised: List[BaseException] = []

        def show(_user, index, row, vocab):
            try:
                if not raised:
                    on_logits(index, _row(row, vocab))
            except BaseException as error:
                raised.append(error)
                self.cancel()

        try:
            _abi.call("lethe_session_feed_logits", self.handle, _ids(ids), len(ids), first, _abi.OnLogits(show), None)
        finally:
            if raised:
                raise raised[0]

    def score(self, ids: Sequence[int], *, first: int = 1) -> List[float]:
        """Appends tokens; the natural logarithm of the probability of each from ids[first] on. first = 0 needs a token before."""
        log_probs = (ctypes.c_float * max(len(ids) - first, 1))()
        _abi.call("lethe_session_score", self.handle, _ids(ids), len(ids), first, log_probs)
        return log_probs[: len(ids) - first]

    # ---- Memory ---------------------------------------------------------------------------------------------------

    def set_ram(self, ram_bytes: int) -> None:
        """Another cap from now on. Lowering it forgets and gives memory back at once."""
        _abi.call("lethe_session_set_ram", self.handle, ram_bytes)

    def pin(self, begin: int = 0, end: Optional[int] = None) -> None:
        """The tokens at positions [begin, end) are never forgotten; end = None: all that was fed so far."""
        _abi.call("lethe_session_pin", self.handle, begin, _abi.ALL_SO_FAR if end is None else end)

    def reset(self) -> None:
        """Forgets everything, and a failure."""
        _abi.call("lethe_session_reset", self.handle)

    @property
    def memory(self) -> Memory:
        raw = _abi.sized(_abi.Memory)
        _abi.call("lethe_session_memory", self.handle, byref(raw))
        return Memory.of(raw)

    @property
    def stats(self) -> Stats:
        raw = _abi.sized(_abi.Stats)
        _abi.call("lethe_session_get_stats", self.handle, byref(raw))
        return Stats.of(raw)

    # ---- Traces ---------------------------------------------------------------------------------------------------

    def start_trace(self, path: Union[str, os.PathLike], *, interval_ms: int = 100, tokens: bool = False) -> None:
        """Writes where the memory goes to a file, until stop_trace or close; `lethe profile report` makes it legible.
        With `tokens` their text, too, so that a report can show what was forgotten."""
        params = _abi.TraceParams(ctypes.sizeof(_abi.TraceParams), interval_ms, tokens)
        _abi.call("lethe_session_trace_start", self.handle, os.fsencode(path), byref(params))

    def stop_trace(self) -> None:
        """Raises what ended the trace before, if anything did."""
        _abi.call("lethe_session_trace_stop", self.handle)

    # ---- Copies ---------------------------------------------------------------------------------------------------

    def fork(self) -> Session:
        """A second session with the same conversation, under a cap of its own."""
        handle = ctypes.c_void_p()
        _abi.call("lethe_session_fork", self.handle, byref(handle))
        return self.model._adopt(handle, self._namm)

    def save(self, path: Union[str, os.PathLike[str]]) -> None:
        _abi.call("lethe_session_save", self.handle, os.fsencode(path))

    def restore(self, path: Union[str, os.PathLike[str]]) -> None:
        """Replaces the conversation by a saved one; on an error it stays what it was."""
        _abi.call("lethe_session_restore", self.handle, os.fsencode(path))

    def close(self) -> None:
        """Also ends a reply that is being read."""
        if self._handle:
            if self._reply is not None and (reply := self._reply()) is not None:
                reply.close()
            _abi.library.lethe_session_close(self._handle)
            self._handle = ctypes.c_void_p()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_exception) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()
        if self.model._forgotten:
            self.model.close()


def _flags(special: bool, bos: bool) -> int:
    return (_abi.TEXT_SPECIAL if special else 0) | (_abi.TEXT_BOS if bos else 0)


def _messages(messages: Sequence[Message]):
    return (_abi.Message * max(len(messages), 1))(
        *(_abi.Message(message["role"].encode(), message["content"].encode()) for message in messages))
