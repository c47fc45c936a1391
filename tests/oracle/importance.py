#!/usr/bin/env python3
"""Does `cuanto importance` collect what llama-imatrix collects, can each read the other's files, and how much faster is it?

    pip install gguf numpy
    importance.py --llama BIN_FOLDER --text TEXT --work FOLDER MODEL.gguf [--chunks 4] [-t 2] [--speed PAIRS]

Same model, text and chunks. Per entry: counts must be equal; for sums the largest relative difference of a column and of the whole entry. llama.cpp rounds
activations of quantized weights to 8 bits before they are summed further down, so on a quantized MODEL its own noise is what differs; an F32 or F16 file shows
the statistics alone. Chunks: a multiple of 4, which llama-imatrix reads at once in equal parts; else it leaves the last rows of a chunk out (passes of
fewer than 16 rows do not count there). Columns with less than a thousandth of the mean are left out of the first figure: nothing weighs on them.
"""
import argparse
import os
import statistics
import subprocess
import sys
import time

import gguf
import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CUANTO = os.environ.get("CUANTO_BINARY", os.path.join(ROOT, "build", "release", "cuanto"))


def run(*words, fails=False):
    t0 = time.monotonic()
    p = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if p.returncode and not fails:
        sys.exit("%s\n%s" % (" ".join(words), p.stdout.decode(errors="replace")[-2000:]))
    return time.monotonic() - t0 if not fails else p.returncode


def llama(a, out, *more):
    return run(os.path.join(a.llama, "llama-imatrix"), "-m", a.model, "-f", a.text, "-c", "512", "-t", str(a.threads), "--chunks", str(a.chunks),
               "-o", out, *more)


def ours(a, out, *more):
    return run(CUANTO, "importance", a.model, "-f", a.text, "-c", "512", "-t", str(a.threads), "--chunks", str(a.chunks), "-o", out, "-q", *more)


def read(path):
    r = gguf.GGUFReader(path)
    t = {x.name: np.array(x.data, dtype=np.float64) for x in r.tensors}
    names = {n[:-len(".in_sum2")] for n in t if n.endswith(".in_sum2")}
    return {n: (t[n + ".in_sum2"].reshape(-1), t[n + ".counts"].reshape(-1)) for n in names}


def compare(x, y):
    only = sorted(set(x) ^ set(y))
    print("%d entries; only in one of them: %s" % (len(set(x) & set(y)), ", ".join(only) or "none"))
    counts, column, entry = 0, (0, ""), (0, "")
    for n in sorted(set(x) & set(y)):
        (s, c), (t, d) = x[n], y[n]
        counts += not np.array_equal(c, d)
        heavy = s > 1e-3 * s.mean()
        column = max(column, (float(np.max(np.abs(t[heavy] / s[heavy] - 1))), n))
        entry = max(entry, (abs(float(t.sum() / s.sum() - 1)), n))
    print("entries with other counts: %d; largest relative difference of a column %.2g (%s), of an entry's sum %.2g (%s)" % (counts, *column, *entry))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("model")
    ap.add_argument("--llama", required=True)
    ap.add_argument("--text", required=True)
    ap.add_argument("--work", required=True)
    ap.add_argument("--chunks", type=int, default=4, choices=range(4, 1000, 4), metavar="N")
    ap.add_argument("-t", "--threads", type=int, default=2)
    ap.add_argument("--speed", type=int, default=0)
    a = ap.parse_args()
    at = lambda name: os.path.join(a.work, name)
    theirs, mine = at("llama.imatrix.gguf"), at("cuanto.imatrix.gguf")
    if a.speed:
        for more in ((), ("--no-precise",)):
            t = []
            for i in range(a.speed):
                t.append((llama(a, theirs), ours(a, mine, *more)) if i % 2 == 0 else (ours(a, mine, *more), llama(a, theirs))[::-1])
            ratios = [x / y for x, y in t]
            print("%-14s llama %.1f s, cuanto %.1f s, ratio %.2f [%.2f..%.2f] of %d pairs" % (
                more[0] if more else "--precise", statistics.median(x for x, _ in t), statistics.median(y for _, y in t), statistics.median(ratios),
                min(ratios), max(ratios), len(ratios)))
        return
    llama(a, theirs)
    llama(a, at("llama.dat"), "--output-format", "dat")
    ours(a, mine)
    ours(a, at("cuanto.dat"), "--legacy")
    compare(read(theirs), read(mine))
    quantize = os.path.join(a.llama, "llama-quantize")
    for name in ("cuanto.imatrix.gguf", "cuanto.dat"):
        rc = run(quantize, "--allow-requantize", "--imatrix", at(name), a.model, at("q.gguf"), "Q2_K", fails=True)
        print("llama-quantize --imatrix %s: exit %d" % (name, rc))
    for name in ("llama.imatrix.gguf", "llama.dat"):
        rc = run(CUANTO, "quantize", a.model, at("q.gguf"), "Q2_K", "--imatrix", at(name), "--allow-requantize", "--overwrite", "-q", fails=True)
        rc2 = run(CUANTO, "importance", "--merge", at(name), "-o", at("merged.gguf"), "-q", fails=True)
        print("cuanto quantize --imatrix %s: exit %d; merged: exit %d" % (name, rc, rc2))
    os.remove(at("q.gguf"))


if __name__ == "__main__":
    main()
