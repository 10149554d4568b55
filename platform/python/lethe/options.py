"""What a session, its sampling and a reply can be told. Names, units and defaults are those of the structs in lethe.h."""

from __future__ import annotations

from typing import Literal, Sequence, TypedDict

MiB = 1 << 20


class SessionOptions(TypedDict, total=False):
    """lethe_session_params; the cap, ram_bytes, stands by itself."""

    host_bytes: int  # of the program's own, to be counted inside the cap; default 0
    policy: str  # what the cache forgets: "namm" (default if the model has its parameters), "h2o" (default), ...
    sinks: int  # first tokens that are never forgotten; default 4
    kv_type: Literal["f16", "int8", "int8k4v", "int4"]
    positions: Literal["auto", "absolute", "rolling", "clamped"]
    max_tokens: int  # capacity of the cache; default 0: what the cap allows
    prefill_chunk: int  # tokens per prefill step; default 0: what suits the cap
    threads: int  # default 0: the fast cores
    logit_rows: int  # rows of logits that are computed at once; default 1
    turn_bytes: int  # longest text of one turn; default 16 KiB
    recent_percent: int  # of what stays in an eviction, the newest tokens; default -1: as the policy has it
    policy_seed: int
    budget: Literal["auto", "list", "pyramid", "layer", "global"]
    pool: Literal["auto", "none", "mean", "max"]
    pool_width: int
    value_norm: bool
    hand_over: Literal["none", "compensation", "merge"]
    namm: bytes  # of policy "namm": the contents of a NAMM file; default: the one in the model file


class SamplingOptions(TypedDict, total=False):
    """lethe_sampling. Until it is set a session is greedy: it takes the likeliest token."""

    temperature: float  # 0: greedy; default 0.8
    top_k: int  # 0: off; default 40
    top_p: float  # 1: off; default 0.95
    min_p: float  # 0: off; default 0
    repetition_penalty: float  # 1: off; default 1
    penalty_window: int  # default 64
    seed: int  # default 0: same seed, same text


class ReplyOptions(TypedDict, total=False):
    """lethe_generate_params."""

    max_tokens: int  # default 0: until the model ends the reply
    stop: Sequence[str]  # texts that end the reply and are not part of it; at most 8, each at most 64 bytes
    ignore_eos: bool  # go on after the model's end token


class Message(TypedDict):
    role: str  # "system", "user", "assistant", ... as the model's chat template knows them
    content: str
