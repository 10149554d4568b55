"""What the library tells about a model, a session's memory and its work, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict

from . import _abi


def _fields(cls, raw) -> dict:
    return {name: getattr(raw, name) for name in cls.__dataclass_fields__}


@dataclass(frozen=True)
class ModelInfo:
    architecture: str
    layers: int
    embed_dim: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn_dim: int
    vocab: int
    context_length: int  # trained length, tokens
    file_bytes: int  # mapped read-only
    private_bytes: int  # of the model's own tables
    kv_bytes_per_token: int  # of an f16 cache
    has_chat_template: bool

    @classmethod
    def of(cls, raw: _abi.ModelInfo) -> ModelInfo:
        return cls(**{**_fields(cls, raw), "architecture": raw.architecture.decode(),
                      "has_chat_template": bool(raw.has_chat_template)})


@dataclass(frozen=True)
class Memory:
    """As planned (Model.plan) or as it is (Session.memory): equal to the byte."""

    cap_bytes: int
    total_bytes: int  # sum of tag_bytes
    peak_bytes: int  # highest total so far
    minimum_ram_bytes: int  # the smallest cap that would work with these options
    weights_mapped_bytes: int  # beside the cap: clean file pages
    tag_bytes: Dict[str, int]  # by what it is for: "kv_pool", "activations", ...
    cache_tokens: int  # capacity per KV head
    prefill_chunk: int
    threads: int
    policy: str  # what the cache forgets by

    @classmethod
    def of(cls, raw: _abi.Memory) -> Memory:
        tags = {_abi.library.lethe_memory_tag_name(tag).decode(): raw.tag_bytes[tag] for tag in range(_abi.MEMORY_TAGS)}
        return cls(**{**_fields(cls, raw), "tag_bytes": tags, "policy": raw.policy.decode()})


@dataclass(frozen=True)
class Stats:
    """Of tokens and nanoseconds: prefill by all that feeds and by score, decode by replies."""

    position: int  # tokens of the conversation so far, forgotten ones included
    cached_tokens: int  # longest list of any KV head
    prefill_tokens: int
    prefill_ns: int
    decode_tokens: int
    decode_ns: int
    evictions: int
    evicted_tokens: int  # the mean over layers and KV heads
    eviction_ns: int
    last_lists: int  # of the last eviction: lists that lost tokens, ...
    last_tokens: int  # ... how many together, ...
    last_fewest: int  # ... one at least ...
    last_most: int  # ... and one at most, ...
    last_ns: int  # ... and how long it took

    @classmethod
    def of(cls, raw: _abi.Stats) -> Stats:
        return cls(**_fields(cls, raw))
