#!/usr/bin/env python3
"""Writes a sparse F16 GGUF file of a 7B llama's shape, all weights zero, to measure the memory that packing takes.

    large_gguf.py TOKENIZER.gguf OUT.gguf [--layers 32]

Takes the tokenizer of a llama GGUF file. Needs the package `gguf`. The file takes no space on a disk with sparse files,
but is read like 13 GB. Then: /usr/bin/time -v lethe pack OUT.gguf -o OUT.lethe --type q4
"""

import argparse
import os

import gguf
import numpy as np

WIDTH, FFN, HEADS = 4096, 11008, 32


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("tokenizer")
    parser.add_argument("out")
    parser.add_argument("--layers", type=int, default=32)
    args = parser.parse_args()

    writer = gguf.GGUFWriter(args.out, "llama")
    vocab = 0
    for field in gguf.GGUFReader(args.tokenizer).fields.values():
        if field.name.startswith("tokenizer."):
            kind = field.types[0]
            element = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), kind, element)
        if field.name == "tokenizer.ggml.tokens":
            vocab = len(field.contents())
    writer.add_block_count(args.layers)
    writer.add_context_length(4096)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)

    size = 0

    def add(name, kind, *shape):
        nonlocal size
        bytes_ = int(np.prod(shape)) * np.dtype(kind).itemsize
        writer.add_tensor_info(name, shape, np.dtype(kind), bytes_)
        size += (bytes_ + 31) // 32 * 32

    add("token_embd.weight", np.float16, vocab, WIDTH)
    add("output.weight", np.float16, vocab, WIDTH)
    add("output_norm.weight", np.float32, WIDTH)
    for layer in range(args.layers):
        for norm in ("attn_norm", "ffn_norm"):
            add(f"blk.{layer}.{norm}.weight", np.float32, WIDTH)
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add(f"blk.{layer}.{name}.weight", np.float16, WIDTH, WIDTH)
        for name in ("ffn_gate", "ffn_up"):
            add(f"blk.{layer}.{name}.weight", np.float16, FFN, WIDTH)
        add(f"blk.{layer}.ffn_down.weight", np.float16, WIDTH, FFN)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    begin = (os.path.getsize(args.out) + 31) // 32 * 32
    os.truncate(args.out, begin + size)
    print(f"{args.out}: {size / 1e9:.1f} GB of weights")


main()
