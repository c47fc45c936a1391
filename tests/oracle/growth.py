#!/usr/bin/env python3
"""How the cost of a token grows with the context and with the model: `cuanto bench` at several depths, straight lines fitted by least squares.

    growth.py MODEL.gguf... [--depths 0,512,2048,4096,8192] [-t 2] [--isa avx2]

ms = first + slope * (depth / 1024), for a token of a prompt of 512 at that depth and for a generated one. Across models: ms over the bytes that a generated
token reads, ms over the multiply-adds of a prompt token. r2 says how much of a line it is.
"""
import argparse
import json
import os
import subprocess

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CUANTO = os.path.join(ROOT, "build", "release", "cuanto")


def fit(points):
    """(first, slope, r2) of y over x."""
    n = len(points)
    mx, my = sum(x for x, _ in points) / n, sum(y for _, y in points) / n
    sxx = sum((x - mx) ** 2 for x, _ in points)
    sxy = sum((x - mx) * (y - my) for x, y in points)
    slope = sxy / sxx if sxx else 0.0
    first = my - slope * mx
    total = sum((y - my) ** 2 for _, y in points)
    return first, slope, 1 - sum((y - first - slope * x) ** 2 for x, y in points) / total if total else 1.0


def bench(a, path, depth):
    command = [CUANTO, "bench", path, "-p", "512", "-n", "32", "-d", str(depth), "-r", str(a.reps), "-t", str(a.t), "--no-limits", "-q", "--json"]
    rows = json.loads(subprocess.run(command + (["--isa", a.isa] if a.isa else []), capture_output=True, check=True).stdout)
    rows = rows["results"] if isinstance(rows, dict) else rows
    return {"pp" if r["n_prompt"] else "tg": 1e3 / r["avg_ts"] for r in rows}, rows[0]


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("models", nargs="+")
    ap.add_argument("--depths", default="0,512,2048,4096,8192")
    ap.add_argument("-t", type=int, default=2)
    ap.add_argument("--reps", type=int, default=2)
    ap.add_argument("--isa")
    a = ap.parse_args()
    depths, empty = [int(d) for d in a.depths.split(",")], []
    print("ms a token | " + " | ".join("depth %d" % d for d in depths) + " | first + slope per 1024 tokens | r2\n" + "---|" + "--:|" * (len(depths) + 2))
    for path in a.models:
        name = os.path.basename(path).replace(".gguf", "")
        taken = [bench(a, path, d) for d in depths]
        empty.append((name, taken[0][0], taken[0][1]))
        for kind, label in (("pp", "prompt 512"), ("tg", "generation")):
            first, slope, r2 = fit([(d / 1024, t[kind]) for d, (t, _) in zip(depths, taken)])
            print("%s, %s | %s | %.3f + %.3f | %.3f" % (name, label, " | ".join("%.3f" % t[kind] for t, _ in taken), first, slope, r2), flush=True)
    if len(empty) > 2:
        for kind, label, key, unit in (("tg", "generated token", "model_size", 1e9), ("pp", "prompt token", "model_n_params", 1e9)):
            first, slope, r2 = fit([(row[key] / unit, t[kind]) for _, t, row in empty])
            print("ms of a %s = %.3f + %.3f * %s / 1e9, r2 %.3f" % (label, first, slope, key, r2))


if __name__ == "__main__":
    main()
