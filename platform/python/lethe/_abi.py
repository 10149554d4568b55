"""The C ABI (lethe.h) for ctypes: its structs, its functions, and `call`, which turns codes into exceptions.

The library is the file that the environment variable LETHE_LIBRARY names, else the one in this package (wheels have it), else
the system's. It must be of this package's version.
"""

import ctypes
import os
import pathlib
from ctypes import POINTER, byref, c_char, c_char_p, c_float, c_int32, c_size_t, c_uint32, c_uint64, c_void_p

VERSION = "0.1.0"


class RawError(ctypes.Structure):
    _fields_ = [("code", c_int32), ("message", c_char * 252)]


class ModelInfo(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t), ("architecture", c_char_p), ("layers", c_uint32), ("embed_dim", c_uint32),
        ("heads", c_uint32), ("kv_heads", c_uint32), ("head_dim", c_uint32), ("ffn_dim", c_uint32), ("vocab", c_uint32),
        ("context_length", c_uint32), ("file_bytes", c_uint64), ("private_bytes", c_uint64),
        ("kv_bytes_per_token", c_uint64), ("has_chat_template", c_int32)]


class SessionParams(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t), ("ram_bytes", c_uint64), ("host_bytes", c_uint64), ("policy", c_char_p),
        ("sinks", c_uint32), ("kv_type", c_int32), ("positions", c_int32), ("max_tokens", c_uint32),
        ("prefill_chunk", c_uint32), ("threads", c_uint32), ("logit_rows", c_uint32), ("turn_bytes", c_uint32),
        ("recent_percent", c_int32), ("policy_seed", c_uint64), ("budget", c_int32), ("pool", c_int32),
        ("pool_width", c_uint32), ("value_norm", c_int32), ("hand_over", c_int32), ("namm", c_void_p),
        ("namm_bytes", c_size_t), ("ignore_head_plan", c_int32)]


class Memory(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t), ("cap_bytes", c_uint64), ("total_bytes", c_uint64), ("peak_bytes", c_uint64),
        ("minimum_ram_bytes", c_uint64), ("weights_mapped_bytes", c_uint64), ("tag_bytes", c_uint64 * 32),
        ("cache_tokens", c_uint32), ("prefill_chunk", c_uint32), ("threads", c_uint32), ("policy", c_char_p)]


class Message(ctypes.Structure):
    _fields_ = [("role", c_char_p), ("content", c_char_p)]


class Sampling(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t), ("temperature", c_float), ("top_k", c_uint32), ("top_p", c_float), ("min_p", c_float),
        ("repetition_penalty", c_float), ("penalty_window", c_uint32), ("seed", c_uint64)]


OnPiece = ctypes.CFUNCTYPE(c_int32, c_void_p, c_void_p, c_size_t, c_int32)
OnLogits = ctypes.CFUNCTYPE(None, c_void_p, c_size_t, POINTER(c_float), c_size_t)


class GenerateParams(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t), ("max_tokens", c_uint64), ("stop", POINTER(c_char_p)), ("stop_count", c_size_t),
        ("ignore_eos", c_int32), ("on_piece", OnPiece), ("user", c_void_p)]


class Stats(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t), ("position", c_uint64), ("cached_tokens", c_uint32), ("prefill_tokens", c_uint64),
        ("prefill_ns", c_uint64), ("decode_tokens", c_uint64), ("decode_ns", c_uint64), ("evictions", c_uint64),
        ("evicted_tokens", c_uint64), ("eviction_ns", c_uint64), ("last_lists", c_uint64), ("last_tokens", c_uint64),
        ("last_fewest", c_uint64), ("last_most", c_uint64), ("last_ns", c_uint64)]


class TraceParams(ctypes.Structure):
    _fields_ = [("struct_size", c_size_t), ("interval_ms", c_uint32), ("tokens", c_int32)]


# Values of the ABI's enumerations that have names here: a name's place is its number.
NAMES = {
    "kv_type": ("f16", "int8", "int8k4v", "int4"),
    "positions": ("auto", "absolute", "rolling", "clamped"),
    "budget": ("auto", "list", "pyramid", "layer", "global"),
    "pool": ("auto", "none", "mean", "max"),
    "hand_over": ("none", "compensation", "merge"),
    "stop": ("end", "text", "max_tokens", "callback"),
}
MEMORY_TAGS = 11
TEXT_SPECIAL, TEXT_BOS = 1, 2
ALL_SO_FAR = 2**64 - 1
PROMPT_TOO_LONG = 3

_handle = c_void_p
_ids = POINTER(c_int32)
_count = POINTER(c_size_t)
_error = POINTER(RawError)
_messages = [POINTER(Message), c_size_t]
# Name -> result and arguments. A result of None is void.
FUNCTIONS = {
    "lethe_version": (c_char_p, []),
    "lethe_code_name": (c_char_p, [c_int32]),
    "lethe_model_open": (c_int32, [c_char_p, POINTER(_handle), _error]),
    "lethe_model_close": (c_int32, [_handle, _error]),
    "lethe_model_verify": (c_int32, [_handle, _error]),
    "lethe_model_get_info": (c_int32, [_handle, POINTER(ModelInfo), _error]),
    "lethe_session_params_init_sized": (None, [POINTER(SessionParams), c_size_t]),
    "lethe_memory_tag_name": (c_char_p, [c_int32]),
    "lethe_session_plan": (c_int32, [_handle, POINTER(SessionParams), POINTER(Memory), _error]),
    "lethe_session_create": (c_int32, [_handle, POINTER(SessionParams), POINTER(_handle), _error]),
    "lethe_session_close": (None, [_handle]),
    "lethe_session_memory": (c_int32, [_handle, POINTER(Memory), _error]),
    "lethe_session_reset": (c_int32, [_handle, _error]),
    "lethe_session_cancel": (None, [_handle]),
    "lethe_session_tokenize": (c_int32, [_handle, c_char_p, c_size_t, c_uint32, _ids, c_size_t, _count, _error]),
    "lethe_model_token_bytes": (c_int32, [_handle, c_int32, POINTER(c_void_p), _count, _error]),
    "lethe_session_set_ram": (c_int32, [_handle, c_uint64, _error]),
    "lethe_session_pin": (c_int32, [_handle, c_uint64, c_uint64, _error]),
    "lethe_session_feed": (c_int32, [_handle, _ids, c_size_t, _error]),
    "lethe_session_feed_embeddings": (c_int32, [_handle, POINTER(c_float), c_size_t, _error]),
    "lethe_session_feed_text": (c_int32, [_handle, c_char_p, c_size_t, c_uint32, _count, _error]),
    "lethe_session_feed_turn": (c_int32, [_handle, *_messages, _count, _error]),
    "lethe_session_tokenize_turn": (c_int32, [_handle, *_messages, _ids, c_size_t, _count, _error]),
    "lethe_session_logits": (c_int32, [_handle, POINTER(POINTER(c_float)), _count, _error]),
    "lethe_session_feed_logits": (c_int32, [_handle, _ids, c_size_t, c_size_t, OnLogits, c_void_p, _error]),
    "lethe_session_score": (c_int32, [_handle, _ids, c_size_t, c_size_t, POINTER(c_float), _error]),
    "lethe_sampling_init_sized": (None, [POINTER(Sampling), c_size_t]),
    "lethe_session_set_sampling": (c_int32, [_handle, POINTER(Sampling), _error]),
    "lethe_generate_params_init_sized": (None, [POINTER(GenerateParams), c_size_t]),
    "lethe_session_generate": (c_int32, [_handle, POINTER(GenerateParams), POINTER(c_int32), POINTER(c_uint64), _error]),
    "lethe_session_get_stats": (c_int32, [_handle, POINTER(Stats), _error]),
    "lethe_trace_params_init_sized": (None, [POINTER(TraceParams), c_size_t]),
    "lethe_session_trace_start": (c_int32, [_handle, c_char_p, POINTER(TraceParams), _error]),
    "lethe_session_trace_stop": (c_int32, [_handle, _error]),
    "lethe_session_fork": (c_int32, [_handle, POINTER(_handle), _error]),
    "lethe_session_save": (c_int32, [_handle, c_char_p, _error]),
    "lethe_session_restore": (c_int32, [_handle, c_char_p, _error]),
}


def _load():
    packed = pathlib.Path(__file__).with_name("liblethe.so")
    library = ctypes.CDLL(os.environ.get("LETHE_LIBRARY") or (str(packed) if packed.exists() else "liblethe.so.0"))
    for name, (result, arguments) in FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    if (found := library.lethe_version().decode()) != VERSION:
        raise ImportError(f"liblethe.so is version {found}, the Python package {VERSION}: install both of the same")
    return library


library = _load()


class Error(Exception):
    """A call of the library failed. str() is a sentence that says what to do, with numbers.

    code: number of LETHE_ERROR_* in lethe.h, which never changes
    name: the same in words, such as "ram_too_small"
    """

    def __init__(self, code: int, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code
        self.name: str = library.lethe_code_name(code).decode()

    def __reduce__(self):
        return Error, (self.code, str(self))


def call(name, *arguments):
    """Calls a function whose last parameter is a lethe_error*, which is added here. Raises Error."""
    error = RawError()
    if getattr(library, name)(*arguments, byref(error)) != 0:
        raise Error(error.code, error.message.decode(errors="replace"))


def sized(struct):
    """A struct that the library is to fill."""
    return struct(struct_size=ctypes.sizeof(struct))


def assign(struct, options):
    """Sets fields of a struct from a dict, where enumerations go by name. ctypes would cut off what is too large."""
    fields = dict(struct._fields_)
    for name, value in options.items():
        if name not in fields or name == "struct_size":
            raise TypeError(f"there is no option {name!r}: {', '.join(fields)}")
        if name in NAMES:
            if value not in NAMES[name]:
                raise ValueError(f"{name} is {value!r}: one of {', '.join(NAMES[name])}")
            value = NAMES[name].index(value)
        elif isinstance(value, str):
            value = value.encode()
        setattr(struct, name, value)
        if isinstance(value, int) and fields[name] is not c_float and getattr(struct, name) != value:
            raise ValueError(f"{name} is {value}: out of range")
