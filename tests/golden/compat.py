"""Writes compat.txt: what the ggml library of llama-cpp-python, which llama-quantize calls, makes of rows that the test rebuilds.

  TYPE KIND HASH     HASH: 64-bit FNV-1a over the bytes of three rows, without importance, with it, and with some of it zero

Rows are of 768 weights: a, b, c = three numbers of test_randf() per weight (splitmix64, seed 5), KINDS below; importance 2^-6 + c^2.
tests/oracle/compat.py compares far more, tests/test_quant_compat.c has the same kinds in C.
Usage: python3 tests/golden/compat.py > tests/golden/compat.txt        (needs numpy and llama-cpp-python, or GGML=libggml-base.so)
"""
import ctypes
import glob
import os

import numpy as np

TYPES = {"F16": 1, "BF16": 30, "Q4_0": 2, "Q4_1": 3, "Q5_0": 6, "Q5_1": 7, "Q8_0": 8, "Q2_K": 10, "Q3_K": 11, "Q4_K": 12, "Q5_K": 13, "Q6_K": 14,
         "IQ4_NL": 20, "IQ4_XS": 23, "IQ3_XXS": 18, "IQ3_S": 21, "IQ2_XXS": 16, "IQ2_XS": 17, "IQ2_S": 22, "IQ1_S": 19, "IQ1_M": 29, "TQ1_0": 34,
         "TQ2_0": 35, "MXFP4": 39, "NVFP4": 40, "Q1_0": 41, "Q2_0": 42}
NEED_W = {"IQ2_XXS", "IQ2_XS", "IQ1_S"}
N, SEED, F = 768, 5, np.float32
KINDS = {
    "plain": lambda a, b, i: a * F(2.0**-5),
    "tails": lambda a, b, i: a * b * b,
    "positive": lambda a, b, i: abs(a) + F(0.5),
    "ties": lambda a, b, i: np.trunc(a * F(8)) * F(0.125),
    "holes": lambda a, b, i: np.where(i // 32 % 3 == 1, F(0), a),
    "tall": lambda a, b, i: np.where(i % 64 == 9, a * F(64), b * F(2.0**-10)),
    "small": lambda a, b, i: a * F(2.0**-40),
    "denormal": lambda a, b, i: a * F(2.0**-130),
    "constant": lambda a, b, i: np.full(N, 0.375, F),
    "alternating": lambda a, b, i: np.where(i % 2, F(0.5), F(-0.5)),
    "one": lambda a, b, i: np.where(i == 300, F(1), F(0)),
    "zero": lambda a, b, i: np.zeros(N, F),
}


def randf(count):
    seed, out = SEED, []
    for _ in range(count):
        seed = (seed + 0x9E3779B97F4A7C15) % 2**64
        z = seed
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        out.append((z ^ (z >> 31)) >> 40)
    return np.array(out, F) * F(2.0**-23) - F(1)


def fnv(data):
    h = 14695981039346656037
    for b in data:
        h = (h ^ b) * 1099511628211 % 2**64
    return "%016x" % h


path = os.environ.get("GGML")
if not path:
    import llama_cpp
    path = glob.glob(os.path.join(os.path.dirname(llama_cpp.__file__), "lib", "libggml-base.so"))[0]
lib = ctypes.CDLL(path)
lib.ggml_quantize_chunk.restype = ctypes.c_size_t
lib.ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p]
a, b, c = (np.ascontiguousarray(v) for v in randf(3 * N).reshape(N, 3).T)
i = np.arange(N)
w = F(2.0**-6) + c * c
some = np.where((i % 5 == 0) | (i // 32 % 4 == 2), F(0), w)
for name, id in TYPES.items():
    for kind, row in KINDS.items():
        x, data = np.ascontiguousarray(row(a, b, i), F), b""
        for weights in (None, w, some):
            if weights is None and name in NEED_W:
                continue
            out = np.zeros(4 * N, np.uint8)
            n = lib.ggml_quantize_chunk(id, x.ctypes.data, out.ctypes.data, 0, 1, N, weights.ctypes.data if weights is not None else None)
            data += out[:n].tobytes()
        print(name, kind, fnv(data))
