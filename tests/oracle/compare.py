#!/usr/bin/env python3
"""Does `cuanto compare` agree with llama-perplexity --kl-divergence on the same files, and how much faster is it than its two passes?

    compare.py --llama BIN_FOLDER --text TEXT --work FOLDER REFERENCE.gguf CANDIDATE.gguf... [--chunks 8] [-t 2] [--twin] [--speed PAIRS]

Candidates: llama-quantize --imatrix IMATRIX REFERENCE.gguf CANDIDATE.gguf Q2_K (Q3_K_M, Q4_0, ...).
For each candidate three measurements of the same chunks:
  llama     llama-perplexity -m REFERENCE --kl-divergence-base X; llama-perplexity -m CANDIDATE --kl-divergence-base X --kl-divergence
  base      cuanto compare --base-logits X CANDIDATE: the reference's logits are llama.cpp's
  own       cuanto compare REFERENCE CANDIDATE
  twin      (--twin, needs pip install gguf) as llama, on the candidate's exact F32 twin: llama.cpp without the rounding that is told below
llama.cpp rounds activations to 8 bits in the candidate's matmuls and not in an F16 reference's; cuanto does in neither (--precise). That adds some
0.001 to 0.02 to its KL whatever the candidate: coarse candidates agree, fine ones cannot. --no-precise: cuanto as `run` computes prompts.
Speed: llama's two runs against one `cuanto compare`, by turns, pairs A B B A; precise and not.
"""
import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CUANTO = os.environ.get("CUANTO_BINARY", os.path.join(ROOT, "build", "release", "cuanto"))


def run(*words):
    t0 = time.monotonic()
    p = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    if p.returncode:
        sys.exit("%s\n%s" % (" ".join(words), p.stderr.decode()[-2000:]))
    return p.stdout.decode(errors="replace") + p.stderr.decode(errors="replace"), time.monotonic() - t0


def number(text, pattern):
    m = re.search(pattern, text)
    return float(m.group(1)) if m else float("nan")


def llama_base(a, base):
    return run(os.path.join(a.llama, "llama-perplexity"), "-m", a.reference, "-f", a.text, "-c", "512", "-t", str(a.threads), "--chunks", str(a.chunks),
               "--kl-divergence-base", base)[1]


def llama_kl(a, base, candidate):
    text, s = run(os.path.join(a.llama, "llama-perplexity"), "-m", candidate, "-t", str(a.threads), "-c", "512", "--chunks", str(a.chunks),
                  "--kl-divergence-base", base, "--kl-divergence")
    return {"kld": number(text, r"Mean\s+KLD:\s*([-0-9.]+)"), "kld50": number(text, r"Median\s+KLD:\s*([-0-9.]+)"),
            "kld99": number(text, r"99.0%\s+KLD:\s*([-0-9.]+)"),
            "ppl": number(text, r"Mean PPL\(Q\)\s*:\s*([-0-9.]+)"), "top1": number(text, r"Same top p:\s*([-0-9.]+)"),
            "rmsdp": number(text, r"RMS .p\s*:\s*([-0-9.]+)")}, s


def cuanto(a, words, *more):
    text, s = run(CUANTO, "compare", *words, "-t", str(a.threads), "--json", "-q", *more)
    return json.loads(text)["models"], s


def table(a, base):
    print("%-28s %-6s %10s %10s %10s %10s %8s %8s" % ("candidate", "by", "PPL", "mean KL", "median KL", "99 % KL", "top-1 %", "RMS dp"))
    for c in a.candidates:
        theirs, _ = llama_kl(a, base, c)
        figures = [("llama", theirs)]
        if a.twin:
            twin = os.path.join(a.work, "twin.gguf")
            run(sys.executable, os.path.join(ROOT, "tests", "oracle", "dequantize.py"), c, twin)
            figures.append(("twin", llama_kl(a, base, twin)[0]))
            os.remove(twin)
        figures += [("base", cuanto(a, ["--base-logits", base, c], *a.more)[0][0]),
                   ("own", cuanto(a, [a.reference, c, "-f", a.text, "--chunks", str(a.chunks)], *a.more)[0][0])]
        for who, f in figures:
            line = "%10.4f %10.5f %10.5f %10.5f %8.3f %8.3f" % tuple(f[k] for k in ("ppl", "kld", "kld50", "kld99", "top1", "rmsdp"))
            off = "  KL %+.2f %%, PPL %+.3f %%" % (100 * (f["kld"] / theirs["kld"] - 1), 100 * (f["ppl"] / theirs["ppl"] - 1))
            print("%-28s %-6s" % (os.path.basename(c)[:28], who), line, "" if who == "llama" else off, flush=True)


def speed(a, base):
    c = a.candidates[0]

    def llama():
        return llama_base(a, base) + llama_kl(a, base, c)[1]

    for more in ((), ("--no-precise",)):
        def ours():
            return cuanto(a, [a.reference, c, "-f", a.text, "--chunks", str(a.chunks)], *more)[1]
        ratios, t = [], []
        for i in range(a.speed):
            x, y = (llama(), ours()) if i % 2 == 0 else (ours(), llama())[::-1]
            ratios.append(x / y)
            t.append((x, y))
        print("%-14s llama %.1f s, cuanto %.1f s, ratio %.2f [%.2f..%.2f] of %d pairs" % (
            more[0] if more else "--precise", statistics.median(x for x, _ in t), statistics.median(y for _, y in t), statistics.median(ratios),
            min(ratios), max(ratios), len(ratios)), flush=True)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("reference")
    ap.add_argument("candidates", nargs="+")
    ap.add_argument("--llama", required=True)
    ap.add_argument("--text", required=True)
    ap.add_argument("--work", required=True)
    ap.add_argument("--chunks", type=int, default=8)
    ap.add_argument("-t", "--threads", type=int, default=2)
    ap.add_argument("--speed", type=int, default=0)
    ap.add_argument("--twin", action="store_true")
    ap.add_argument("--no-precise", dest="more", action="store_const", const=["--no-precise"], default=[])
    a = ap.parse_args()
    base = os.path.join(a.work, "base.kld")
    if a.speed:
        speed(a, base)
    else:
        llama_base(a, base)
        table(a, base)
    os.remove(base)


if __name__ == "__main__":
    main()
