#!/usr/bin/env python3
"""The method "compat" against the ggml library that llama-quantize calls: every format, with and without importance, byte for byte.

    pip install numpy llama-cpp-python gguf
    compat.py [--rows N] [--types Q4_K,IQ2_XS] [MODEL.gguf ...]     from the root of the repository, cc in the path
    compat.py --file SOURCE.gguf IMATRIX [MIX ...]                  whole files, of all mixes: same types, same bytes of every tensor

Rows: real weights of the models (decoded), or without models normal, heavy-tailed, and what is meant to go wrong: zeros, one weight, constants,
denormals, huge and tiny values, signs that alternate, ties, importance that is zero here and there or everywhere. The library runs in a process of
its own: on some of these it aborts, which is counted and is no difference. Scales that are NaN differ in their sign bit only: llama-quantize refuses the file, so does cuanto.
GGML: another libggml-base.so (release builds are plain x86-64; so is GGML_NATIVE's libggml-base).
--file: IMATRIX may be - (none); CUANTO (build/release/cuanto), LLAMA = folder of llama-quantize; files go to TMPDIR.
"""
import argparse
import ctypes
import glob
import mmap
import os
import resource
import subprocess
import sys
import tempfile

os.environ["OMP_NUM_THREADS"] = "1"  # the library forks below
os.environ["GGML_NO_BACKTRACE"] = "1"
import numpy as np

GLUE = r"""
#include "ggml-like/arena.h"
#include "quant/quantizer.h"
int shape(int id, int *len, int *bytes)
{
    const struct dtype *t = dtype_by_id(id);
    if (t) *len = t->block_len, *bytes = t->block_bytes;
    return t != NULL;
}
int make(int id, const float *x, const float *w, int64_t rows, int64_t n, void *dst)
{
    static const void *prepared;
    static struct arena mem;
    static bool all[DTYPE_IDS];
    struct err e;
    for (int i = 0; i < DTYPE_IDS; i++) all[i] = true;
    if (!prepared && quantizer_compat.prepare(all, &mem, &prepared, &e) != OK) return 0;
    struct quant_spec s = { .type = dtype_by_id(id), .prepared = prepared };
    quantizer_compat.rows(&s, NULL, 0, 0, x, w, rows, n, dst, NULL);
    return 1;
}
"""
TYPES = {"F16": 1, "BF16": 30, "Q4_0": 2, "Q4_1": 3, "Q5_0": 6, "Q5_1": 7, "Q8_0": 8, "Q2_K": 10, "Q3_K": 11, "Q4_K": 12, "Q5_K": 13, "Q6_K": 14,
         "IQ4_NL": 20, "IQ4_XS": 23, "IQ3_XXS": 18, "IQ3_S": 21, "IQ2_XXS": 16, "IQ2_XS": 17, "IQ2_S": 22, "IQ1_S": 19, "IQ1_M": 29, "TQ1_0": 34,
         "TQ2_0": 35, "MXFP4": 39, "NVFP4": 40, "Q1_0": 41, "Q2_0": 42}
# llama-quantize has no NVFP4, the gguf package no Q2_0
MIXES = ("F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K_S Q2_K Q3_K_S Q3_K_M Q3_K_L Q4_K_S Q4_K_M Q5_K_S Q5_K_M Q6_K IQ1_S IQ1_M IQ2_XXS IQ2_XS IQ2_S IQ2_M "
         "IQ3_XXS IQ3_XS IQ3_S IQ3_M IQ4_NL IQ4_XS TQ1_0 TQ2_0 MXFP4_MOE Q1_0").split()
NEED_W = {"IQ2_XXS", "IQ2_XS", "IQ1_S"}  # the library takes these with importance only


def build(folder):
    with open(folder + "/glue.c", "w") as f:
        f.write(GLUE)
    out = folder + "/compat.so"
    subprocess.run([os.environ.get("CC", "cc"), "-std=c11", "-D_GNU_SOURCE", "-I.", *os.environ.get("CFLAGS", "-O2").split(), "-fno-math-errno", "-ffp-contract=off",
                    "-fPIC", "-shared", "-o", out, folder + "/glue.c", "ggml-like/dtype.c", "ggml-like/base.c", "ggml-like/arena.c",
                    *glob.glob("ggml-like/formats/*.c"), *glob.glob("quant/compat*.c"), "-lm"], check=True)
    lib = ctypes.CDLL(out)
    lib.make.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p]
    return lib


def library():
    path = os.environ.get("GGML")
    if not path:
        import llama_cpp
        path = glob.glob(os.path.join(os.path.dirname(llama_cpp.__file__), "lib", "libggml-base.so"))[0]
    lib = ctypes.CDLL(path)
    lib.ggml_quantize_chunk.restype = ctypes.c_size_t
    lib.ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p]
    return lib


def theirs(lib, id, x, w, size):
    """The library's bytes, or None when it aborts."""
    room = mmap.mmap(-1, size)
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        ctypes.CDLL(None).prctl(4, 0)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(1, 2)
        at = ctypes.addressof(ctypes.c_char.from_buffer(room))
        lib.ggml_quantize_chunk(id, x.ctypes.data, at, 0, x.shape[0], x.shape[1], w.ctypes.data if w is not None else None)
        os._exit(0)
    return bytes(room) if os.waitpid(child, 0)[1] == 0 else None


def odd_rows(n, rng):
    """name, one row each"""
    i = np.arange(n)
    normal = rng.standard_normal(n)
    yield "zero", np.zeros(n)
    yield "minus zero", -np.zeros(n)
    yield "one", i == 37
    yield "minus one", -1.0 * (i == 200)
    yield "last", 3.0 * (i == n - 1)
    yield "one a group", i % 16 == 5
    yield "constant", np.full(n, 0.37)
    yield "minus constant", np.full(n, -0.37)
    yield "alternating", np.where(i % 2, 0.5, -0.5)
    yield "two values", np.where(rng.random(n) < 0.5, 1.0, -2.0)
    yield "positive", abs(normal)
    yield "negative", -abs(normal)
    yield "far from zero", 10 + 0.01 * normal
    yield "far below zero", -10 + 0.01 * normal
    yield "rising", i / n
    yield "falling with ties", -(i // 7) / n
    yield "ties", np.round(normal * 2) / 8
    yield "integers", np.round(normal * 40)
    yield "halves", np.round(normal * 3) + 0.5
    yield "one huge", np.where(i % 64 == 9, 1e4, normal * 1e-3)
    for e in (30, 18, 15, 9, 7, 4, -4, -7, -8, -12, -15, -16, -20, -30, -37, -39, -42, -44):
        yield f"1e{e}", normal * 10.0**e
        yield f"1e{e} sparse", normal * (rng.random(n) < 0.1) * 10.0**e
    yield "3e38", np.clip(normal, -3, 3) * 1e38
    yield "denormal steps", (i % 33) * 1e-45
    yield "below powers of two", np.float32(2.0) ** (i // 32 % 64 - 32) * (1 - (i % 64) * 2.0**-24)
    yield "mixed magnitudes", normal * 10.0 ** rng.integers(-12, 4, n)
    yield "some groups zero", normal * (i // 32 % 3 != 1)
    yield "some blocks zero", normal * (i // 256 % 2 != 1)


def weights(n, rng):
    """name, importance of the columns"""
    i = np.arange(n)
    plain = np.exp(rng.standard_normal(n) * 1.5)
    yield "", plain
    yield "w ones", np.ones(n)
    yield "w zero", np.zeros(n)
    yield "w zero in places", plain * (i % 5 != 0)
    yield "w zero in groups", plain * (i // 32 % 3 != 0)
    yield "w one column", 1.0 * (i == 77)
    yield "w huge", plain * 1e30
    yield "w tiny", plain * 1e-40
    yield "w outliers", np.where(i % 100 == 3, 1e6, plain)


def real_rows(path, n, count, rng):
    """Rows of the large matrices, decoded; joined where they are shorter than n."""
    import gguf
    for t in gguf.GGUFReader(path).tensors:
        if len(t.shape) < 2 or t.n_elements < 8 * n:
            continue
        if rng.random() > 0.2:
            continue
        block, size = gguf.GGML_QUANT_SIZES[t.tensor_type]
        data = np.asarray(t.data).reshape(-1).view(np.uint8)
        want = n * count // block * size
        at = int(rng.integers(0, max(1, (len(data) - want) // size))) * size
        x = gguf.quants.dequantize(data[at : at + want], t.tensor_type).astype(np.float32).reshape(-1)
        yield t.name, x[: len(x) // n * n].reshape(-1, n)



def files(source, imatrix, mixes):
    """Failures: mixes whose files differ, or that only one of the programs makes."""
    import gguf
    cuanto, llama = os.environ.get("CUANTO", "build/release/cuanto"), os.path.join(os.environ.get("LLAMA", ""), "llama-quantize")
    failed = 0
    importance = [] if imatrix == "-" else ["--imatrix", imatrix]
    with tempfile.TemporaryDirectory() as folder:
        a, b = os.path.join(folder, "cuanto.gguf"), os.path.join(folder, "llama.gguf")
        for mix in mixes:
            ours = subprocess.run([cuanto, "quantize", source, a, mix, "--compat", "--overwrite", "-q", *importance], capture_output=True)
            other = subprocess.run([llama, *importance, source, b, mix], capture_output=True)
            if ours.returncode or other.returncode:
                failed += ours.returncode == 0 or other.returncode == 0
                print(f"{mix:9} cuanto {ours.returncode} {ours.stderr.decode()[-160:].strip()}; llama-quantize {other.returncode}", flush=True)
                continue
            x, y = ({t.name: t for t in gguf.GGUFReader(f).tensors} for f in (a, b))
            bad = [n for n in x.keys() | y.keys() if n not in x or n not in y or x[n].tensor_type != y[n].tensor_type or x[n].data.tobytes() != y[n].data.tobytes()]
            kinds = sorted({t.tensor_type.name for t in x.values()})
            failed += bool(bad)
            print(f"{mix:9} {len(x)} tensors, {len(bad)} differ {bad[:3] if bad else ''} ({' '.join(kinds)})", flush=True)
    print(f"{len(mixes) - failed} passed, {failed} failed")
    return failed


def main():
    if sys.argv[1:2] == ["--file"]:
        sys.exit(files(sys.argv[2], sys.argv[3], sys.argv[4:] or MIXES) > 0)
    p = argparse.ArgumentParser()
    p.add_argument("--rows", type=int, default=64)
    p.add_argument("--types", default=",".join(TYPES))
    p.add_argument("--verbose", action="store_true")
    p.add_argument("models", nargs="*")
    o = p.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        own = build(folder)
    lib = library()
    n, bad_types = 2048, 0
    rng = np.random.default_rng(3)
    real = [(f"{os.path.basename(m)} {tensor}", x) for m in o.models for tensor, x in real_rows(m, n, o.rows, rng)]
    for name in o.types.split(","):
        id = TYPES[name]
        length, block = ctypes.c_int(), ctypes.c_int()
        own.shape(id, ctypes.byref(length), ctypes.byref(block))
        rng = np.random.default_rng(11)
        blocks = bad = aborts = 0
        first = ""
        lib.ggml_quantize_init(id)

        def compare(what, x, w):
            nonlocal blocks, bad, aborts, first
            x = np.ascontiguousarray(x, np.float32)
            w = None if w is None else np.ascontiguousarray(w, np.float32)
            if w is None and name in NEED_W:
                return
            size = x.size // length.value * block.value
            a = np.zeros(size, np.uint8)
            assert own.make(id, x.ctypes.data, w.ctypes.data if w is not None else None, x.shape[0], x.shape[1], a.ctypes.data)
            b = theirs(lib, id, x, w, size)
            if b is None:
                aborts += 1
                if o.verbose:
                    print(f"{name} {what}: the library aborts")
                return
            differ = (a.reshape(-1, block.value) != np.frombuffer(b, np.uint8).reshape(-1, block.value)).any(axis=1)
            blocks += len(differ)
            bad += int(differ.sum())
            if differ.any():
                k = int(differ.argmax())
                if not first:
                    first = what
                if o.verbose:
                    print(f"{name} {what}: {int(differ.sum())} of {len(differ)} blocks, first {k}\n  {a.reshape(-1, block.value)[k].tobytes().hex()}\n  "
                          f"{np.frombuffer(b, np.uint8).reshape(-1, block.value)[k].tobytes().hex()}")

        with np.errstate(all="ignore"):
            for what, w in [("no w", None), *weights(n, rng)] if not o.models else []:
                compare("normal " + what, rng.standard_normal((o.rows, n)) * 0.02, w)
                compare("student " + what, rng.standard_t(3, (o.rows, n)) * 0.02, w)
                for odd, x in odd_rows(n, rng):
                    compare(odd + " " + what, np.reshape(x, (1, n)), w)
            for what, x in real:
                compare(what, x, None)
                compare(what + " with importance", x, np.exp(rng.standard_normal(n)))
        bad_types += bad > 0
        print(f"{name:8} {blocks:8} blocks, {bad} differ{', first: ' + first if bad else ''}, {aborts} inputs on which the library aborts", flush=True)
    print(f"{len(o.types.split(',')) - bad_types} passed, {bad_types} failed")
    sys.exit(bad_types > 0)


main()
