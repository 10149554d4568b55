#!/usr/bin/env python3
"""Writes blocks of every GGUF type that `lethe pack` reads, with the weights that gguf's reference says they are.

    gguf_blocks.py > tests/data/gguf_blocks.bin

Needs the packages `gguf` (the file in tests/data was written with 0.19.0) and `numpy`. For every type: the type's
number, rows and columns (u32 each), the blocks, and the weights as f32. Quants are random. Scales are random halves of
every finite value; every fourth block has a typical one, so that some weights are of ordinary size.
"""

import sys

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

ROWS, COLUMNS = 4, 256
# Bytes where a block has a half.
HALVES = {Type.Q4_0: [0], Type.Q4_1: [0, 2], Type.Q5_0: [0], Type.Q5_1: [0, 2], Type.Q8_0: [0], Type.Q4_K: [0, 2],
          Type.Q5_K: [0, 2], Type.Q6_K: [208]}


def main():
    random = np.random.default_rng(1)
    for kind in [Type.F32, Type.F16, Type.BF16, *HALVES]:
        elements, size = gguf.GGML_QUANT_SIZES[kind]
        if kind in HALVES:
            blocks = random.integers(0, 256, (ROWS * COLUMNS // elements, size), dtype=np.uint8)
            for at in HALVES[kind]:
                halves = random.integers(0, 0x7C00, len(blocks), dtype=np.uint16) | random.integers(0, 2, len(blocks), dtype=np.uint16) << 15
                halves[::4] = np.float16(0.0123).view(np.uint16) + random.integers(0, 99, len(halves[::4]), dtype=np.uint16)
                blocks[:, at:at + 2] = halves.view(np.uint8).reshape(-1, 2)
        else:
            floats = random.normal(0, 0.1, ROWS * COLUMNS).astype(np.float32)
            blocks = gguf.quants.quantize(floats, kind).view(np.uint8)
        data = blocks.reshape(ROWS, -1)
        weights = gguf.quants.dequantize(data.view(np.float32) if kind == Type.F32 else data, kind).astype(np.float32)
        assert weights.size == ROWS * COLUMNS and np.isfinite(weights).all()
        out = sys.stdout.buffer
        out.write(np.array([kind, ROWS, COLUMNS], dtype="<u4").tobytes())
        out.write(data.tobytes())
        out.write(weights.astype("<f4").tobytes())


main()
