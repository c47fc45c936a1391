#!/usr/bin/env python3
"""Quality and speed of `cuanto quantize` against llama-quantize on the same source, the same importance, the same threads.

    quantize.py quality SOURCE IMATRIX [TYPE ...]   per type: error of our file / error of llama-quantize's (weighted by importance; total over all
                                                    tensors, geometric mean and worst of the tensors), share of tensors that got the same format
    quantize.py speed   SOURCE IMATRIX [TYPE ...]   whole programs, interleaved, median of pairs with the spread (wall time)
    quantize.py table   SOURCE IMATRIX TEXT [TYPE ...]  all at once: seconds of one run each, errors, mean KL and perplexity by llama-perplexity

IMATRIX may be - (none). Programs: CUANTO (build/release/cuanto), LLAMA = folder of llama.cpp's programs, QUANT_ERROR (build/release/quant_error,
made by `make build/release/quant_error`). THREADS, PAIRS, CHUNKS from the environment. Files go to TMPDIR and are removed.
"""
import math
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time

TYPES = ("Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K_S Q2_K Q3_K_S Q3_K_M Q3_K_L Q4_K_S Q4_K_M Q5_K_S Q5_K_M Q6_K IQ1_S IQ1_M IQ2_XXS IQ2_XS IQ2_S IQ2_M IQ3_XXS "
         "IQ3_XS IQ3_S IQ3_M IQ4_NL IQ4_XS TQ1_0 TQ2_0 MXFP4_MOE").split()
CUANTO = os.environ.get("CUANTO", "build/release/cuanto")
ERROR = os.environ.get("QUANT_ERROR", "build/release/quant_error")
LLAMA = os.environ.get("LLAMA", "")
THREADS = os.environ.get("THREADS", "2")
PAIRS = int(os.environ.get("PAIRS", "3"))
CHUNKS = os.environ.get("CHUNKS", "8")
tmp = tempfile.mkdtemp()
theirs, ours, base = (os.path.join(tmp, n) for n in ("theirs.gguf", "ours.gguf", "base.kld"))


def run(args):
    start = time.monotonic()
    p = subprocess.run(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
    seconds = time.monotonic() - start
    return p.returncode, p.stdout.decode(errors="replace") + p.stderr.decode(errors="replace"), seconds


def make_theirs(source, imatrix, kind):
    return run([os.path.join(LLAMA, "llama-quantize")] + ([] if imatrix == "-" else ["--imatrix", imatrix]) + [source, theirs, kind, THREADS])


def make_ours(source, imatrix, kind):
    return run([CUANTO, "quantize", source, ours, kind, "-t", THREADS, "-q", "--overwrite"] + ([] if imatrix == "-" else ["--imatrix", imatrix]))


def both(source, imatrix, kind):
    """Both files; the seconds of each, or None with a line about what failed."""
    seconds = []
    for name, make in (("llama-quantize", make_theirs), ("cuanto", make_ours)):
        rc, text, s = make(source, imatrix, kind)
        if rc:
            print(f"{kind:9} {name} failed ({rc}): {text.strip().splitlines()[-1] if text.strip() else ''}", flush=True)
            return None
        seconds.append(s)
    return seconds


def errors(source, imatrix):
    """tensors, and error of ours / theirs: of all tensors together, geometric mean, worst, which"""
    rc, text, _ = run([ERROR, source, imatrix, theirs, ours])
    if rc:
        sys.exit(text)
    pairs = [(float(r[3]), float(r[4]), r[0], r[1]) for r in map(str.split, text.splitlines()) if float(r[3]) > 0]
    a, b = sum(p[0] for p in pairs), sum(p[1] for p in pairs)
    worst = max(pairs, key=lambda p: p[1] / p[0])
    geo = math.exp(sum(math.log(max(p[1] / p[0], 1e-30)) for p in pairs) / len(pairs))
    return len(pairs), b / a, geo, worst[1] / worst[0], f"{worst[2]} {worst[3]}"


def quality(source, imatrix, kinds):
    print(f"{'type':9} {'tensors':>7} {'total':>7} {'geo':>7} {'worst':>7}  worst tensor")
    for kind in kinds:
        if both(source, imatrix, kind):
            n, total, geo, worst, name = errors(source, imatrix)
            print(f"{kind:9} {n:7} {total:7.4f} {geo:7.4f} {worst:7.4f}  {name}", flush=True)


def speed(source, imatrix, kinds):
    print(f"{'type':9} {'llama s':>8} {'cuanto s':>8} {'ratio':>6}  [spread]")
    for kind in kinds:
        pairs = []
        for _ in range(PAIRS):
            (rc, text, a), (rc2, text2, b) = make_theirs(source, imatrix, kind), make_ours(source, imatrix, kind)
            if rc or rc2:
                print(f"{kind:9} failed: {(text if rc else text2).strip().splitlines()[-1]}", flush=True)
                break
            pairs.append((a, b))
        else:
            ratios = sorted(a / b for a, b in pairs)
            a, b = (statistics.median(p[i] for p in pairs) for i in (0, 1))
            print(f"{kind:9} {a:8.2f} {b:8.2f} {statistics.median(ratios):6.1f}  [{ratios[0]:.1f}..{ratios[-1]:.1f}]", flush=True)


def kld_of(model):
    rc, out, _ = run([os.path.join(LLAMA, "llama-perplexity"), "-m", model, "--kl-divergence", "--kl-divergence-base", base, "-t", THREADS])
    kl = re.search(r"Mean\s+KLD:\s+([-\d.e]+)\s+.\s+([\d.e-]+)", out)
    ppl = re.search(r"Mean PPL\(Q\)\s+:\s+([\d.]+)", out)
    return (float(kl[1]), float(kl[2]), float(ppl[1])) if kl and ppl else (math.nan, math.nan, math.nan)


def table(source, imatrix, text, kinds):
    rc, out, _ = run([os.path.join(LLAMA, "llama-perplexity"), "-m", source, "-f", text, "--kl-divergence-base", base, "-t", THREADS, "-c", "512",
                      "--chunks", CHUNKS])
    print("base:", (re.search(r"Final estimate.*", out) or [out[-200:]])[0])
    print(f"{'type':9} {'llama s':>8} {'cuanto s':>8} {'error':>6} {'geo':>6} {'worst':>6} {'KL llama':>9} {'+-':>7} {'KL cuanto':>9} {'+-':>7} {'ratio':>6} "
          f"{'ppl llama':>9} {'cuanto':>9}")
    for kind in kinds:
        seconds = both(source, imatrix, kind)
        if not seconds:
            continue
        n, total, geo, worst, name = errors(source, imatrix)
        a, b = kld_of(theirs), kld_of(ours)
        print(f"{kind:9} {seconds[0]:8.2f} {seconds[1]:8.2f} {total:6.3f} {geo:6.3f} {worst:6.3f} {a[0]:9.5f} {a[1]:7.5f} {b[0]:9.5f} {b[1]:7.5f} "
              f"{b[0] / a[0]:6.3f} {a[2]:9.4f} {b[2]:9.4f}", flush=True)


try:
    what, source, imatrix = sys.argv[1:4]
    rest = sys.argv[4:]
    if what == "table":
        table(source, imatrix, rest[0], rest[1:] or TYPES)
    else:
        {"quality": quality, "speed": speed}[what](source, imatrix, rest or TYPES)
finally:
    for name in (theirs, ours, base):
        if os.path.exists(name):
            os.remove(name)
    os.rmdir(tmp)
