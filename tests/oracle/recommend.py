#!/usr/bin/env python3
"""The figures that `cuanto recommend` ships (tools/recommend_data.c): the KL divergence of every mix from its model, and what each format costs.

    dither.py FILE.gguf ORIGINAL.gguf                     a stand-in for the original, see there; a real F16 file needs none
    recommend.py ORIGINAL.gguf --calibration TEXT --text TEXT --work FOLDER [--chunks 16] [--quantize LLAMA-QUANTIZE] [--types Q4_K_M,...]
    recommend.py --fit ORIGINAL.gguf ... --work FOLDER    costs of formats and sensitivity of models from the rows of all of them; needs numpy

Quantizes with importance of the calibration text, by cuanto; types that this build of cuanto does not make by llama-quantize, if given. Files are compared in
groups and deleted. Rows go to FOLDER/<model>.csv and are not measured again. Needs room for ten quantized files.

The fit: KL(model, mix) = sensitivity(model) * sum of share(format) * cost(format) over the weights, shares from the plan of `cuanto quantize --dry-run`.
Least squares of ln KL. Sensitivity is 1 for the last model; the rule that is shipped makes it a power of the number of weights.
"""
import argparse
import csv
import io
import json
import math
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CUANTO = os.environ.get("CUANTO_BINARY", os.path.join(ROOT, "build", "release", "cuanto"))
TYPES = """Q8_0 Q6_K Q5_K_M Q5_K_S Q5_1 Q5_0 Q4_K_M Q4_K_S Q4_1 Q4_0 IQ4_NL IQ4_XS Q3_K_L Q3_K_M Q3_K_S IQ3_M IQ3_S IQ3_XS IQ3_XXS
Q2_K Q2_K_S IQ2_M IQ2_S IQ2_XS IQ2_XXS IQ1_M IQ1_S F16 BF16""".split()
COLUMNS = ["type", "maker", "bpw", "kld", "kld_error_chunks", "kld99", "top1", "ppl", "ln_ratio"]
GROUP = 9


def run(*words):
    return subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)


def quantize(a, imatrix, kind, out):
    """Who made the file, or None."""
    words = [CUANTO, "quantize", a.model, out, kind, "--imatrix", imatrix, "-q", "--overwrite"]
    if run(*words).returncode == 0:
        return "cuanto"
    if a.quantize and run(a.quantize, "--imatrix", imatrix, a.model, out, kind).returncode == 0:
        return "llama-quantize"
    return None


def compare(a, files):
    p = run(CUANTO, "compare", a.model, *files, "-f", a.text, "--chunks", str(a.chunks), "-t", str(a.threads), "--format", "csv", "-q")
    if p.returncode:
        sys.exit(p.stderr.decode())
    return [r for r in csv.DictReader(io.StringIO(p.stdout.decode())) if r["role"] == "candidate"]


def shares(model, kind):
    """Format of each weight of a mix, as shares of the layers' weights; and their number. Head and embeddings stay out: mixes leave them fine, and in small
    models they are so large a part that their share says nothing of the layers."""
    p = run(CUANTO, "quantize", model, "/dev/null", kind, "--dry-run", "--json", "--allow-requantize")
    plan = json.loads(p.stdout.decode())
    out, n = {}, 0
    for t in plan["tensors"]:
        if not t["name"].startswith("blk."):
            continue
        size = math.prod(t["shape"])
        out[t["to"]] = out.get(t["to"], 0) + size
        n += size
    return {k: v / n for k, v in out.items()}, n


def fit(models, work):
    import numpy as np
    rows, params = [], []
    for m, path in enumerate(models):
        name = os.path.splitext(os.path.basename(path))[0]
        for r in csv.DictReader(open(os.path.join(work, name + ".csv"))):
            share, n = shares(path, r["type"])
            rows.append((m, name, r["type"], share, math.log(max(float(r["kld"]), 1e-7)), float(r["kld"])))
        params.append(n)
    floats = ("F32", "F16", "BF16")
    rows = [r for r in rows if any(f not in floats for f in r[3])]
    formats = sorted({f for r in rows for f in r[3]} - set(floats))
    x = np.concatenate([np.full(len(formats), math.log(0.05)), np.zeros(len(models))])  # ln cost, ln sensitivity

    def model(x):
        y, jac = np.zeros(len(rows)), np.zeros((len(rows), len(x)))
        for i, (m, _, _, share, _, _) in enumerate(rows):
            part = np.array([share.get(f, 0) * math.exp(x[k]) for k, f in enumerate(formats)])
            y[i] = math.log(part.sum()) + x[len(formats) + m]
            jac[i, :len(formats)] = part / part.sum()
            jac[i, len(formats) + m] = 1
        return y, jac

    target = np.array([r[4] for r in rows])
    for _ in range(300):  # damped Gauss-Newton; a weak pull keeps formats that no row tells apart where they are
        y, jac = model(x)
        keep = len(formats) + len(models) - 1
        step = np.linalg.solve(jac.T @ jac + 1e-3 * np.eye(len(x)), jac.T @ (target - y))
        x += 0.5 * step
        x[:len(formats)] += x[keep]
        x[len(formats):] -= x[keep]
    y, _ = model(x)
    sens = np.exp(x[len(formats):])
    for path, n, s in zip(models, params, sens):
        print("%-28s %12d weights  sensitivity %.3f" % (os.path.basename(path), n, s))
    slope = np.polyfit(np.log(params), np.log(sens), 1) if len(models) > 1 else [0, 0]
    print("slope %.3f" % slope[0])
    for k, f in enumerate(formats):
        print("    { GGUF_%s, %.2g }," % (f, math.exp(x[k])))
    rule = y - np.array([x[len(formats) + r[0]] - (slope[0] * math.log(params[r[0]]) + slope[1]) for r in rows])
    for what, v in (("of each model", y), ("of the rule", rule)):
        err = np.exp(np.abs(v - target))
        print("factor between measurement and fit %s: median %.2f, 90 %% %.2f, most %.2f" % (what, np.median(err), np.quantile(err, 0.9), err.max()))
    for r, a, b in zip(rows, y, rule):
        print("%-10s %-8s measured %8.5f  fit %8.5f  rule %8.5f" % (r[1], r[2], r[5], math.exp(a), math.exp(b)))


def main():
    if sys.argv[1:2] == ["--fit"]:
        at = sys.argv.index("--work")
        return fit(sys.argv[2:at], sys.argv[at + 1])
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("model")
    ap.add_argument("--calibration", required=True)
    ap.add_argument("--text", required=True)
    ap.add_argument("--work", required=True)
    ap.add_argument("--chunks", type=int, default=16)
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--quantize")
    ap.add_argument("--types", default=",".join(TYPES))
    a = ap.parse_args()
    name = os.path.splitext(os.path.basename(a.model))[0]
    table, imatrix = os.path.join(a.work, name + ".csv"), os.path.join(a.work, name + ".imatrix.gguf")
    if not os.path.exists(imatrix):
        p = run(CUANTO, "importance", a.model, "-f", a.calibration, "-o", imatrix, "--chunks", "24", "--no-ppl", "-q")
        if p.returncode:
            sys.exit(p.stderr.decode())
    rows = list(csv.DictReader(open(table))) if os.path.exists(table) else []
    left = [t for t in a.types.split(",") if t not in {r["type"] for r in rows}]
    while left:
        group = []
        while left and len(group) < GROUP:
            kind = left.pop(0)
            out = os.path.join(a.work, "%s-%s.gguf" % (name, kind))
            maker = quantize(a, imatrix, kind, out)
            print(name, kind, maker or "is not made", flush=True)
            if maker:
                group.append((kind, maker, out))
        if not group:
            break
        for (kind, maker, out), r in zip(group, compare(a, [g[2] for g in group])):
            rows.append({**{c: r.get(c) for c in COLUMNS}, "type": kind, "maker": maker})
            os.remove(out)
        with open(table, "w", newline="") as f:
            w = csv.DictWriter(f, COLUMNS)
            w.writeheader()
            w.writerows(rows)
    for r in rows:
        figures = tuple(float(r[c]) for c in ("bpw", "kld", "kld_error_chunks", "top1"))
        print("%-8s %-15s" % (r["type"], r["maker"]), "bpw %6.3f  kl %8.5f +- %.5f  top-1 %6.2f" % figures)


if __name__ == "__main__":
    main()
