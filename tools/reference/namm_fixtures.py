#!/usr/bin/env python3
"""Writes what the authors' code computes as small files for tests/cache/namm_golden_test.cc and tests/engine/namm_test.cc.

    namm_fixtures.py GOLDEN tests/data/namm

Needs numpy. GOLDEN is a folder with golden_1_policy_small.npz and golden_3_generate.npz, written by running the code of "An
Evolved Universal Transformer Memory" (github SakanaAI/evo-memory at 3a0a6bd, torch 2.14.1, transformers 4.41.2) on random
parameters, with every number that is kept checked against an independent NumPy model.

policy.bin, little endian: u32 layers, kv_heads, updates; f32 theta [4172], mean [17], variance [17]; then for every update and
layer: u32 queries, tokens, width; for every KV head: u32 wanted; f32 attention, of query i the first (tokens - queries + i + 1)
ranks; f32 features [tokens][25], scores [tokens]; u32 kept ranks [width]. `wanted` is how many pass the threshold, `width`
how many the authors' code keeps.

llama/ is the model of golden_3 as a Hugging Face folder, with a vocabulary of 272 of which the last are zeros, and generate.bin
what it generates: u32 interval, chunk, prompt tokens, all tokens; f32 theta, mean, variance; i32 tokens; then for every update:
u32 position, and for every layer u32 width, scored tokens; for every KV head f32 scores, i32 kept positions [width].
"""

import json
import pathlib
import struct
import sys

import numpy as np

VOCAB = 272


def u32(*values):
    return struct.pack(f"<{len(values)}I", *(int(value) for value in values))


def f32(array):
    return np.ascontiguousarray(array, dtype="<f4").tobytes()


def parameters(golden):
    return f32(golden["theta"]) + f32(golden["norm_mean"]) + f32(golden["norm_var"])


def pooled_attention(attention, kv_heads):
    """Mean over the query heads that share a KV head: [query heads, q, n] -> [kv_heads, q, n]."""
    heads, q, n = attention.shape
    return attention.astype(np.float64).reshape(kv_heads, heads // kv_heads, q, n).mean(axis=1)


def write_policy(golden, path):
    layers, kv_heads, intervals = int(golden["n_layers"]), int(golden["n_kv_heads"]), golden["intervals"]
    out = [u32(layers, kv_heads, len(intervals)), parameters(golden)]
    for update in range(len(intervals)):
        for layer in range(layers):
            key = f"_{update}_{layer}"
            attention = pooled_attention(golden["attn" + key], kv_heads)
            kept = golden["keep" + key]
            _, q, n = attention.shape
            out.append(u32(q, n, kept.shape[1]))
            for head in range(kv_heads):
                out.append(u32(golden["wanted" + key][head]))
                out += [f32(attention[head, i, :n - q + i + 1]) for i in range(q)]
                out += [f32(golden["features" + key][head]), f32(golden["scores" + key][head]), u32(*kept[head])]
    path.write_bytes(b"".join(out))


def write_generate(golden, path):
    layers, kv_heads = int(golden["n_layers"]), int(golden["n_kv_heads"])
    interval, tokens = int(golden["interval"]), golden["tokens"]
    out = [u32(interval, golden["chunk"], len(golden["prompt"]), len(tokens)), parameters(golden),
           np.asarray(tokens, "<i4").tobytes()]
    for position in range(interval, len(tokens), interval):
        out.append(u32(position))
        for layer in range(layers):
            key = f"_{position}_{layer}"
            scores, kept = golden["scores" + key], golden["positions" + key]
            out.append(u32(kept.shape[1], scores.shape[1]))
            for head in range(kv_heads):
                out += [f32(scores[head]), np.asarray(kept[head], "<i4").tobytes()]
    path.write_bytes(b"".join(out))


def write_llama(golden, folder):
    weights = {name[2:]: golden[name] for name in golden.files if name.startswith("w:")}
    embed = weights["model.embed_tokens.weight"].shape[1]
    for name in ("model.embed_tokens.weight", "lm_head.weight"):  # as many as the tokenizer of tests/data/hf has
        weights[name] = np.pad(weights[name], ((0, VOCAB - len(weights[name])), (0, 0)))
    heads = int(golden["n_heads"])
    config = dict(architectures=["LlamaForCausalLM"], model_type="llama", vocab_size=VOCAB, hidden_size=embed,
                  intermediate_size=weights["model.layers.0.mlp.up_proj.weight"].shape[0],
                  num_hidden_layers=int(golden["n_layers"]), num_attention_heads=heads,
                  num_key_value_heads=int(golden["n_kv_heads"]),
                  head_dim=weights["model.layers.0.self_attn.q_proj.weight"].shape[0] // heads, hidden_act="silu",
                  rms_norm_eps=float(golden["rms_eps"]), rope_theta=float(golden["rope_base_effective"]),
                  max_position_embeddings=2048, tie_word_embeddings=False, torch_dtype="float32")
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    header, at = {}, 0
    for name, weight in weights.items():
        header[name] = dict(dtype="F32", shape=list(weight.shape), data_offsets=[at, at + 4 * weight.size])
        at += 4 * weight.size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text +
                                               b"".join(f32(weight) for weight in weights.values()))


def main():
    source, target = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    target.mkdir(exist_ok=True)
    write_policy(np.load(source / "golden_1_policy_small.npz"), target / "policy.bin")
    golden = np.load(source / "golden_3_generate.npz")
    write_generate(golden, target / "generate.bin")
    write_llama(golden, target / "llama")


if __name__ == "__main__":
    main()
