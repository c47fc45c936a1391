#!/usr/bin/env python3
"""Whole files of cuanto against llama-quantize's of the same types and size, by KL divergence on unseen text of several kinds.

    quality.py SOURCE.gguf TEXTS WORK TYPE... [--tokens 16384] [--chunks prose:12,code:12,spanish:10,chat:4] [--no-text] [-- OPTIONS]
    quality.py /tmp/s.gguf /tmp/texts /tmp/work Q4_K_M Q3_K_M Q2_K                      --method gptq, the anchor with importance
    quality.py /tmp/s.gguf /tmp/texts /tmp/work Q4_K_M --no-text -- --method search     neither side sees a text
    quality.py /tmp/s.gguf /tmp/texts /tmp/work 3.5 4.5                                 --bpw

SOURCE has continuous weights (dither.py; widen.py where its rows fit no block of 256). TEXTS is a folder of quantize_texts.py: calibration.txt, of whose
beginning, about --tokens long, both sides see all windows, and the texts to score on. The anchor is `quantize --compat --imatrix`, whose bytes are
llama-quantize's (compat.py). Both are scored by `compare --precise --base-logits` against the logits of SOURCE. The ratio is that of mean KL over all
scored tokens; +- is its standard error from those of chunks, as if both sides were independent; that two files with one error differ by some 10 % is not
in it. 99.9 %: the mean of the kinds'. WORK keeps the cut text, logits, importance and the anchors' figures: use a new one for another SOURCE, build,
--tokens or --chunks.
Program: CUANTO (build/release/cuanto).
"""
import argparse
import json
import os
import subprocess
import sys
import time

CUANTO = os.environ.get("CUANTO", "build/release/cuanto")
FIGURES = ("kld", "kld_error_chunks", "kld999", "top1")


def cuanto(*words):
    p = subprocess.run([CUANTO, *words, "-q"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    if p.returncode:
        sys.exit(" ".join(words) + "\n" + p.stderr.decode()[-2000:])
    return p.stdout.decode()


class Bench:
    def __init__(self, a):
        self.a = a
        self.importance = os.path.join(a.work, "importance.gguf")
        self.text = os.path.join(a.work, "calibration.txt")
        self.kinds = {k: int(n) for k, n in (x.split(":") for x in a.chunks.split(","))}
        self.notes = os.path.join(a.work, "anchors-no-text.json" if a.no_text else "anchors.json")
        self.anchors = {}
        if os.path.exists(self.notes):
            with open(self.notes, encoding="utf-8") as f:
                self.anchors = json.load(f)
        os.makedirs(a.work, exist_ok=True)
        if not os.path.exists(self.importance):
            self.cut(os.path.join(a.texts, "calibration.txt"))
            cuanto("importance", a.source, "-f", self.text, "-o", self.importance, "--no-ppl")
        for k, n in self.kinds.items():
            if not os.path.exists(self.logits(k)):
                cuanto("perplexity", a.source, "-f", os.path.join(a.texts, k + ".txt"), "--precise", "--chunks", str(n), "--save-logits", self.logits(k))

    def cut(self, path):
        """The beginning of a text, as long as --tokens at its mean length of a token."""
        with open(path, encoding="utf-8") as f:
            text = f.read()
        have = len(json.loads(cuanto("tokenize", self.a.source, "-f", path, "--json")))
        with open(self.text, "w", encoding="utf-8") as f:
            f.write(text[:len(text) * self.a.tokens // have])

    def logits(self, kind):
        return os.path.join(self.a.work, kind + ".kld")

    def made(self, kind, *words):
        """Size and figures by kind of text of a file that is removed again."""
        path, t0 = os.path.join(self.a.work, "x.gguf"), time.monotonic()
        cuanto("quantize", self.a.source, path, *([kind] if kind else []), "--overwrite", *words)
        out = {"seconds": time.monotonic() - t0, "size": os.path.getsize(path)}
        for k in self.kinds:
            m = json.loads(cuanto("compare", "--base-logits", self.logits(k), path, "--precise", "--json"))["models"][0]
            out[k] = {name: m[name] for name in FIGURES}
        os.remove(path)
        return out

    def anchor(self, kind):
        if kind not in self.anchors:
            self.anchors[kind] = self.made(kind, "--compat", *([] if self.a.no_text else ["--imatrix", self.importance]))
            with open(self.notes, "w", encoding="utf-8") as f:
                json.dump(self.anchors, f)
        return self.anchors[kind]

    def ours(self, kind):
        text = [] if self.a.no_text else ["--calibration", self.text, "--calibration-tokens", str(2 * self.a.tokens)]
        return self.made(kind, *(self.a.options or ["--method", "gptq"]), *text)

    def mean(self, r, figure):
        return sum(n * r[k][figure] for k, n in self.kinds.items()) / sum(self.kinds.values())

    def error(self, r):
        return sum((n * r[k]["kld_error_chunks"]) ** 2 for k, n in self.kinds.items()) ** 0.5 / sum(self.kinds.values())

    def row(self, kind):
        if kind[0].isdigit():
            r = self.made(None, "--bpw", kind, "--method", "gptq", "--calibration", self.text, "--calibration-tokens", str(2 * self.a.tokens))
            print("| %s bits | %d | | %s | %.3f, %.1f %% | %.0f s |" % (kind, r["size"], " ".join("%.4f" % r[k]["kld"] for k in self.kinds),
                                                                      self.mean(r, "kld"), self.mean(r, "top1"), r["seconds"]), flush=True)
            return
        theirs, ours = self.anchor(kind), self.ours(kind)
        was, now = self.mean(theirs, "kld"), self.mean(ours, "kld")
        error = now / was * ((self.error(theirs) / was) ** 2 + (self.error(ours) / now) ** 2) ** 0.5
        kl = [" ".join("%.4f" % r[k]["kld"] for k in self.kinds) for r in (theirs, ours)]
        print("| %s | %d %+d | %s | %s | %.2f +- %.2f | %.2f, %.2f | %.1f, %.1f | %.0f s |"
              % (kind, theirs["size"], ours["size"] - theirs["size"], kl[0], kl[1], now / was, error, self.mean(theirs, "kld999"), self.mean(ours, "kld999"),
                 self.mean(theirs, "top1"), self.mean(ours, "top1"), ours["seconds"]), flush=True)


def main():
    words = sys.argv[1:]
    options = words[words.index("--") + 1:] if "--" in words else []
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("source")
    p.add_argument("texts")
    p.add_argument("work")
    p.add_argument("types", nargs="+")
    p.add_argument("--tokens", type=int, default=16384)
    p.add_argument("--chunks", default="prose:12,code:12,spanish:10,chat:4")
    p.add_argument("--no-text", action="store_true")
    a = p.parse_args(words[:words.index("--")] if "--" in words else words)
    a.options = options
    if a.no_text and not options or a.no_text and any(t[0].isdigit() for t in a.types):
        sys.exit("--no-text: types, and -- with the options that make ours (gptq would read the text in the program)")
    if any(int(x.split(":")[1]) < 2 for x in a.chunks.split(",")):
        sys.exit("--chunks: two of a kind at least, or there is no error")
    bench = Bench(a)
    print("| type | bytes | llama-quantize: KL %s | cuanto | ratio | 99.9 %% below | same top-1 %% | time |" % " ".join(bench.kinds))
    print("|---|--:|--:|--:|--:|--:|--:|--:|", flush=True)
    for kind in a.types:
        bench.row(kind)


if __name__ == "__main__":
    main()
