#!/usr/bin/env python3
"""Decodes random blocks of every format with cuanto's scalar truth and with the ggml library of llama-cpp-python: bit for bit.
Also join(split(b)) == b, except for the formats with several spellings of a block (q8_K: sums, tq1_0: gaps of base 3).

    pip install numpy llama-cpp-python
    formats.py [BLOCKS]        from the root of the repository, cc in the path; default 100000 blocks a format
"""
import ctypes
import glob
import os
import subprocess
import sys
import tempfile

import llama_cpp
import numpy as np

GLUE = r"""
#include "ggml-like/dtype.h"
#include <string.h>
int shape(int id, int *len, int *bytes)
{
    const struct dtype *t = dtype_by_id(id);
    if (t) *len = t->block_len, *bytes = t->block_bytes;
    return t != NULL;
}
void decode(int id, const void *src, float *dst, int64_t n) { dtype_to_f32(dtype_by_id(id), src, dst, n); }
int64_t respelled(int id, const uint8_t *src, int64_t n)
{
    const struct dtype *t = dtype_by_id(id);
    int64_t bad = 0;
    for (int64_t i = 0; t->join && i < n; i++, src += t->block_bytes) {
        struct parts p;
        uint8_t b[512];
        t->split(src, &p), t->join(&p, b);
        bad += memcmp(b, src, (size_t)t->block_bytes) != 0;
    }
    return bad;
}
"""
DECODE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)


class TypeTraits(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("block_len", ctypes.c_int64), ("interleave", ctypes.c_int64), ("block_bytes", ctypes.c_size_t),
                ("quantized", ctypes.c_bool), ("to_float", ctypes.c_void_p)]


def build(folder):
    with open(folder + "/glue.c", "w") as f:
        f.write(GLUE)
    out = folder + "/formats.so"
    subprocess.run(["cc", "-std=c11", "-D_GNU_SOURCE", "-I.", "-O2", "-fno-math-errno", "-ffp-contract=off", "-fPIC", "-shared", "-o", out, folder + "/glue.c",
                    "ggml-like/dtype.c", *glob.glob("ggml-like/formats/*.c"), "-lm"], check=True)
    lib = ctypes.CDLL(out)
    lib.decode.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]
    lib.respelled.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int64]
    lib.respelled.restype = ctypes.c_int64
    return lib


def main(n):
    with tempfile.TemporaryDirectory() as folder:
        own = build(folder)
    ggml = ctypes.CDLL(glob.glob(os.path.join(os.path.dirname(llama_cpp.__file__), "lib", "libggml-base.so"))[0])
    ggml.ggml_get_type_traits.restype = ctypes.POINTER(TypeTraits)
    rng, failed = np.random.default_rng(7), 0
    for id in range(43):
        length, size = ctypes.c_int(), ctypes.c_int()
        if not own.shape(id, ctypes.byref(length), ctypes.byref(size)):
            continue
        traits = ggml.ggml_get_type_traits(id).contents
        name = traits.name.decode()
        assert (traits.block_len, traits.block_bytes) == (length.value, size.value), name
        a = rng.integers(0, 256, n * size.value, dtype=np.uint8)
        a[: size.value], a[size.value : 2 * size.value] = 0, 255
        other = own.respelled(id, a.ctypes.data, n)
        bad = other if name not in ("q8_K", "tq1_0") else 0
        if traits.to_float:
            x, y = np.empty(n * length.value, np.float32), np.empty(n * length.value, np.float32)
            DECODE(traits.to_float)(a.ctypes.data, x.ctypes.data, x.size)
            own.decode(id, a.ctypes.data, y.ctypes.data, y.size)
            bad += np.count_nonzero((x.view(np.uint32) != y.view(np.uint32)) & ~(np.isnan(x) & np.isnan(y)))
        failed += bad != 0
        print("%-8s %s, %d of %d blocks respelled%s" % (name, "no decoder there" if not traits.to_float else "decoded", other, n, "  DIFFERS" if bad else ""))
    return int(failed != 0)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 100000))
