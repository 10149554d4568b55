#!/usr/bin/env python3
"""Writes a GGUF file of a 7B llama's shapes without a 7B model, to measure what its size costs.

    large_gguf.py TOKENIZER.gguf OUT.gguf [--layers 32]
    large_gguf.py TOKENIZER.gguf OUT.gguf --layers 4 --kv-heads 8 --ffn 14336 --random

The first form is a sparse F16 file, all weights zero, which takes no space on a disk with sparse files but is read like
13 GB: for the memory that packing takes (/usr/bin/time -v lethe pack OUT.gguf -o OUT.lethe --type q4). With --random the
matrices are Q4_0 blocks of random weights, of a size that keeps activations in range: for the speed of decoding (lethe
pack OUT.gguf -o OUT.lethe && lethe bench OUT.lethe). The text such a model writes means nothing.

Takes the tokenizer of a llama GGUF file. Needs the packages `gguf` and `numpy`.
"""

import argparse
import os

import gguf
import numpy as np

WIDTH, HEADS = 4096, 32
ALIGNMENT = 32
BLOCK = np.dtype([("scale", "<f2"), ("quants", "u1", 16)])  # Q4_0: 32 weights, scale * (quant - 8)


def copy_tokenizer(source, writer):
    """Returns the size of the vocabulary."""
    vocab = 0
    for field in gguf.GGUFReader(source).fields.values():
        if field.name.startswith("tokenizer."):
            kind = field.types[0]
            element = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), kind, element)
        if field.name == "tokenizer.ggml.tokens":
            vocab = len(field.contents())
    return vocab


def tensors(args, vocab):
    """Names and shapes [rows][columns]; vectors have one number."""
    yield "token_embd.weight", (vocab, WIDTH)
    yield "output.weight", (vocab, WIDTH)
    yield "output_norm.weight", (WIDTH,)
    kv_width = args.kv_heads * (WIDTH // HEADS)
    for layer in range(args.layers):
        for norm in ("attn_norm", "ffn_norm"):
            yield f"blk.{layer}.{norm}.weight", (WIDTH,)
        for name, rows in (("attn_q", WIDTH), ("attn_k", kv_width), ("attn_v", kv_width), ("attn_output", WIDTH)):
            yield f"blk.{layer}.{name}.weight", (rows, WIDTH)
        for name in ("ffn_gate", "ffn_up"):
            yield f"blk.{layer}.{name}.weight", (args.ffn, WIDTH)
        yield f"blk.{layer}.ffn_down.weight", (WIDTH, args.ffn)


def random_values(random, shape):
    """The bytes of a tensor: norms of one, matrices whose outputs are about as large as their inputs."""
    if len(shape) == 1:
        return np.ones(shape, np.float32).tobytes()
    blocks = np.empty(int(np.prod(shape)) // 32, BLOCK)
    deviation = 4.6  # of a quant
    blocks["scale"] = random.uniform(0.5, 1.5, blocks.size) / (deviation * shape[1] ** 0.5)
    blocks["quants"] = np.frombuffer(random.bytes(blocks.size * 16), np.uint8).reshape(-1, 16)
    return blocks.tobytes()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizer")
    parser.add_argument("out")
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--kv-heads", type=int, default=HEADS)
    parser.add_argument("--ffn", type=int, default=11008)
    parser.add_argument("--random", action="store_true", help="random Q4_0 weights instead of zeros in F16")
    args = parser.parse_args()

    writer = gguf.GGUFWriter(args.out, "llama")
    vocab = copy_tokenizer(args.tokenizer, writer)
    writer.add_block_count(args.layers)
    writer.add_context_length(4096)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(args.ffn)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(args.kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)

    size = 0
    for name, shape in tensors(args, vocab):
        if args.random and len(shape) == 2:
            bytes_ = int(np.prod(shape)) // 32 * BLOCK.itemsize
            writer.add_tensor_info(name, (shape[0], shape[1] // 32 * BLOCK.itemsize), np.dtype(np.uint8), bytes_,
                                   raw_dtype=gguf.GGMLQuantizationType.Q4_0)
        else:
            kind = np.dtype(np.float16 if len(shape) == 2 else np.float32)
            bytes_ = int(np.prod(shape)) * kind.itemsize
            writer.add_tensor_info(name, shape, kind, bytes_)
        size += (bytes_ + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    begin = (os.path.getsize(args.out) + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
    os.truncate(args.out, begin + size)
    if args.random:
        random = np.random.default_rng(1)
        with open(args.out, "r+b") as file:
            file.seek(begin)
            for _, shape in tensors(args, vocab):
                values = random_values(random, shape)
                file.write(values + bytes(-len(values) % ALIGNMENT))
    print(f"{args.out}: {size / 1e9:.1f} GB of weights")


main()
