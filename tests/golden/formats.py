"""Writes formats.txt: what the gguf package (0.19, gguf.quants) makes of blocks and rows that the test rebuilds from seeds.

  dequant TYPE SEED BLOCKS PATCHES HASH V0 ... V7    blocks of splitmix64 bytes, PATCHES "offset=hexbytes,..." laid over each of them;
                                                     HASH over all values, Vi = value i * n / 8 of the first block (f32 bits, NaN as 7fc00000)
  pack TYPE SEED BLOCKS SHIFT HASH B0B1...           rows of test_randf() * 2^SHIFT; HASH over the packed bytes, then the first eight of them

HASH is 64-bit FNV-1a. Q8_K and Q8_1 have no decoder: their rule (d * q) stands below. Q1_0 and Q2_0 are decoded by the ggml library that
llama-cpp-python brings, through ctypes.
Usage: python3 tests/golden/formats.py > tests/golden/formats.txt
"""
import ctypes
import glob
import os

import llama_cpp
import numpy as np
import gguf
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType as T

class TypeTraits(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("block_len", ctypes.c_int64), ("interleave", ctypes.c_int64), ("block_bytes", ctypes.c_size_t),
                ("quantized", ctypes.c_bool), ("to_float", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64))]


class Extra:
    """A type number that the gguf package may not know."""

    def __init__(self, name, value, length, size):
        self.name, self.value, self.length, self.size = name, value, length, size


Q1_0, Q2_0 = Extra("Q1_0", 41, 128, 18), Extra("Q2_0", 42, 64, 18)
TYPES = [T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0, T.Q2_K, T.Q3_K, T.Q4_K, T.Q5_K, T.Q6_K, T.Q8_K, T.Q8_1,
         T.IQ1_S, T.IQ1_M, T.IQ2_XXS, T.IQ2_XS, T.IQ2_S, T.IQ3_XXS, T.IQ3_S, T.IQ4_NL, T.IQ4_XS, T.TQ1_0, T.TQ2_0, Q1_0, Q2_0, T.MXFP4, T.NVFP4]
# offsets of the half floats (Q8_K: one single)
SCALES = {T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0], T.Q2_K: [80, 82], T.Q3_K: [108], T.Q4_K: [0, 2],
          T.Q5_K: [0, 2], T.Q6_K: [208], T.Q8_K: [0], T.Q8_1: [0], T.IQ1_S: [0], T.IQ1_M: [], T.IQ2_XXS: [0], T.IQ2_XS: [0], T.IQ2_S: [0],
          T.IQ3_XXS: [0], T.IQ3_S: [0], T.IQ4_NL: [0], T.IQ4_XS: [0], T.TQ1_0: [52], T.TQ2_0: [64], Q1_0: [0], Q2_0: [0], T.MXFP4: [], T.NVFP4: []}
GROUP_SCALES = {T.Q2_K: (0, 16), T.Q3_K: (96, 12), T.Q4_K: (4, 12), T.Q5_K: (4, 12), T.Q6_K: (192, 16), T.IQ1_S: (34, 16), T.IQ1_M: (48, 8), T.IQ2_XXS: (2, 64),
                T.IQ2_XS: (66, 8), T.IQ2_S: (74, 8), T.IQ3_XXS: (66, 32), T.IQ3_S: (106, 4), T.IQ4_XS: (2, 6), T.TQ1_0: (0, 52), T.TQ2_0: (0, 64), Q1_0: (2, 16),
                Q2_0: (2, 16), T.MXFP4: (0, 1), T.NVFP4: (0, 4)}
HALVES = ["0000", "0080", "0100", "ff03", "0104", "ff7b", "ffff", "007c", "00fc", "007e"]  # 0 -0 denormals, smallest normal, max, NaN, inf, -inf, NaN
SINGLES = ["00000000", "00000080", "01000000", "ffff7f7f", "0000807f", "0000c07f"]


def splitmix(seed):
    while True:
        seed = (seed + 0x9E3779B97F4A7C15) % 2**64
        z = seed
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        yield z ^ (z >> 31)


def fnv(data):
    h = 14695981039346656037
    for b in data:
        h = (h ^ b) * 1099511628211 % 2**64
    return "%016x" % h


def blocks(seed, count, size, patches):
    words = splitmix(seed)
    raw = b"".join(next(words).to_bytes(8, "little") for _ in range((count * size + 7) // 8))[: count * size]
    a = np.frombuffer(raw, np.uint8).reshape(count, size).copy()
    for offset, text in patches:
        value = np.frombuffer(bytes.fromhex(text), np.uint8)
        a[:, offset : offset + len(value)] = value
    return a


def sizes(t):
    if t == T.Q8_1:  # 40 in the package: before ggml made d and s halves
        return 32, 36
    return (t.length, t.size) if isinstance(t, Extra) else GGML_QUANT_SIZES[t]


def by_ggml(a, t):
    lib = ctypes.CDLL(glob.glob(os.path.join(os.path.dirname(llama_cpp.__file__), "lib", "libggml-base.so"))[0])
    lib.ggml_get_type_traits.restype = ctypes.POINTER(TypeTraits)
    traits = lib.ggml_get_type_traits(t.value).contents
    assert (traits.name.decode().upper(), traits.block_len, traits.block_bytes) == (t.name, t.length, t.size)
    v = np.empty((len(a), t.length), np.float32)
    traits.to_float(np.ascontiguousarray(a).ctypes.data, v.ctypes.data, v.size)
    return v


def dequantize(a, t):
    with np.errstate(all="ignore"):
        if isinstance(t, Extra):
            return by_ggml(a, t)
        if t == T.Q8_1:
            return a[:, :2].copy().view(np.float16).astype(np.float32) * a[:, 4:36].view(np.int8).astype(np.float32)
        if t != T.Q8_K:
            return gguf.quants.dequantize(a, t).reshape(len(a), -1)
        d = a[:, :4].copy().view(np.float32)
        return d * a[:, 4:260].view(np.int8).astype(np.float32)


def dequant_line(t, seed, count, patches):
    length, size = sizes(t)
    v = np.ascontiguousarray(dequantize(blocks(seed, count, size, patches), t), np.float32)
    bits = np.where(np.isnan(v), np.uint32(0x7FC00000), v.view(np.uint32)).astype("<u4")
    text = ",".join("%d=%s" % p for p in patches) or "-"
    first = " ".join("%08x" % b for b in bits[0, :: length // 8])
    print("dequant", t.name, seed, count, text, fnv(bits.tobytes()), first)


def pack_line(t, seed, count, shift):
    length, _ = sizes(t)
    words = splitmix(seed)
    n = count * max(length, 32)
    x = np.array([(next(words) >> 40) for _ in range(n)], np.float32) * np.float32(2.0**-23) - np.float32(1)
    with np.errstate(all="ignore"):
        packed = gguf.quants.quantize(np.ldexp(x, shift).reshape(count, -1), t).view(np.uint8).ravel()
    print("pack", t.name, seed, count, shift, fnv(packed.tobytes()), packed[:8].tobytes().hex())


seed = 1
for t in TYPES:
    safe = SINGLES[3] if t == T.Q8_K else "9a2f"  # 0.1188
    scales = SCALES[t]
    dequant_line(t, seed, 64, [])
    dequant_line(t, seed + 1, 64, [(o, "0000803d" if t == T.Q8_K else safe) for o in scales])
    seed += 2
    for value in SINGLES if t == T.Q8_K else HALVES:
        for patches in [[(o, value)] for o in scales] + ([[(o, value) for o in scales]] if len(scales) > 1 else []):
            dequant_line(t, seed, 1, patches)
            seed += 1
    if t in GROUP_SCALES:
        offset, n = GROUP_SCALES[t]
        for byte in ["00", "ff", "80", "7f", "55", "aa"]:
            dequant_line(t, seed, 1, [(o, safe) for o in scales] + [(offset, byte * n)])
            seed += 1
for t in [T.F16, T.BF16, T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0]:
    for shift in [0, -3, 9, 14, -12, -20, -30, 18]:
        pack_line(t, seed, 64, shift)
        seed += 1
