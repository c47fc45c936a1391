"""Writes formats.txt: what the gguf package (0.19, gguf.quants) makes of blocks and rows that the test rebuilds from seeds.

  dequant TYPE SEED BLOCKS PATCHES HASH V0 ... V7    blocks of splitmix64 bytes, PATCHES "offset=hexbytes,..." laid over each of them;
                                                     HASH over all values, Vi = value i * n / 8 of the first block (f32 bits, NaN as 7fc00000)
  pack TYPE SEED BLOCKS SHIFT HASH B0B1...           rows of test_randf() * 2^SHIFT; HASH over the packed bytes, then the first eight of them

HASH is 64-bit FNV-1a. Q8_K has no decoder in the package: its rule (d * q) stands below.
Usage: python3 tests/golden/formats.py > tests/golden/formats.txt
"""
import numpy as np
import gguf
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType as T

TYPES = [T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0, T.Q2_K, T.Q3_K, T.Q4_K, T.Q5_K, T.Q6_K, T.Q8_K]
# offsets of the half floats (Q8_K: one single)
SCALES = {T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0], T.Q2_K: [80, 82], T.Q3_K: [108], T.Q4_K: [0, 2],
          T.Q5_K: [0, 2], T.Q6_K: [208], T.Q8_K: [0]}
GROUP_SCALES = {T.Q2_K: (0, 16), T.Q3_K: (96, 12), T.Q4_K: (4, 12), T.Q5_K: (4, 12), T.Q6_K: (192, 16)}
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


def dequantize(a, t):
    with np.errstate(all="ignore"):
        if t != T.Q8_K:
            return gguf.quants.dequantize(a, t).reshape(len(a), -1)
        d = a[:, :4].copy().view(np.float32)
        return d * a[:, 4:260].view(np.int8).astype(np.float32)


def dequant_line(t, seed, count, patches):
    length, size = GGML_QUANT_SIZES[t]
    v = np.ascontiguousarray(dequantize(blocks(seed, count, size, patches), t), np.float32)
    bits = np.where(np.isnan(v), np.uint32(0x7FC00000), v.view(np.uint32)).astype("<u4")
    text = ",".join("%d=%s" % p for p in patches) or "-"
    first = " ".join("%08x" % b for b in bits[0, :: length // 8])
    print("dequant", t.name, seed, count, text, fnv(bits.tobytes()), first)


def pack_line(t, seed, count, shift):
    length, _ = GGML_QUANT_SIZES[t]
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
