#!/usr/bin/env python3
"""Does a converted vocabulary give the ids of the tokenizer it was made from?

    pip install tokenizers sentencepiece tiktoken transformers
    make oracle
    convert_tokenizer.py FOLDER [NAME...] [--random 1500] [--show 5]

FOLDER holds one folder per vocabulary, as a checkpoint has it. Each is converted, then cuanto's ids are compared with those of Hugging Face's
tokenizers (tokenizer.json), SentencePiece (tokenizer.model) or tiktoken (*.tiktoken, tekken.json), special tokens parsed where the library
does. Texts: the list of tokens.py, special tokens in several surroundings, files of this machine and random strings over a hard alphabet.
Prints per vocabulary the number of texts and of differences: all, and without texts that the model's normalizer changes or rejects, which GGUF
cannot express. Also compares the first and last token that are added (add_bos_token, add_eos_token). Exit code 1 if anything differs.
"""
import argparse
import glob
import json
import os
import random
import struct
import subprocess
import sys
import types

HERE = os.path.dirname(os.path.abspath(__file__))
if "llama_cpp" not in sys.modules:  # tokens.py has the texts; its engine is not wanted here
    try:
        import llama_cpp.llama_cpp  # noqa: F401
    except ImportError:
        fake = types.ModuleType("llama_cpp.llama_cpp")
        sys.modules["llama_cpp"] = types.ModuleType("llama_cpp")
        sys.modules["llama_cpp"].llama_cpp = sys.modules["llama_cpp.llama_cpp"] = fake
sys.path.insert(0, HERE)
import tokens as texts  # noqa: E402

SPECIAL, BOS = 1, 2
CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
CL100K = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN = CL100K.replace("{1,3}", "")
CASED = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+" + CONTRACTIONS + "?"
O200K = CASED + "|" + CASED.replace("]*[", "]+[").replace("\\p{M}]+(", "\\p{M}]*(") + r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PATTERNS = {"cl100k_base.tiktoken": (CL100K, None), "o200k_base.tiktoken": (O200K, None), "qwen.tiktoken": (QWEN, None),
            "tokenizer.model": (CL100K, None), "qwen3_6.tiktoken": (QWEN.replace(r"?\p{L}+", r"?[\p{L}\p{M}]+").replace(r"^\s\p{L}\p{N}", r"^\s\p{L}\p{M}\p{N}"), "qwen35")}


def corpus():
    files = sorted(glob.glob("/usr/share/common-licenses/*"))[:8] + sorted(glob.glob("/usr/lib/python3*/*.py"))[:25]
    files += sorted(glob.glob("/usr/share/i18n/locales/*"))[:60] + sorted(glob.glob("/usr/share/perl/5*/unicore/*.txt"))[:3]
    out = []
    for name in files:
        with open(name, encoding="utf-8", errors="ignore") as f:
            out += texts.chunks(f.read(12000), 1500)
    return out


# few characters, so that all orders occur: both cases, neither, title case, marks, contractions
CASES = "AAaaBÉéǅʰאक\u0301\u093fำ''sſSTtdLlRreEvVmM1 \n/!"


def random_texts(n, seed):
    rng = random.Random(seed)
    out = []
    for _ in range(n):
        size = rng.randint(1, 40)
        kind = rng.random()
        if kind < 0.4:
            out.append("".join(rng.choice(texts.HARD) for _ in range(size)))
        elif kind < 0.6:
            out.append("".join(rng.choice(CASES) for _ in range(size)))
        else:
            planes = [(0x20, 0x7e), (0xa0, 0x24f), (0x370, 0x5ff), (0x600, 0x6ff), (0x900, 0xdff), (0xe00, 0xeff), (0x1000, 0x109f), (0x1780, 0x17ff), (0x300, 0x4ff), (0x1e00, 0x1fff), (0x3040, 0x30ff), (0x4e00, 0x9fff),
                      (0xac00, 0xd7a3), (0x1f300, 0x1f64f), (0x20, 0x10ffff)]
            lo, hi = rng.choice(planes)
            s = "".join(chr(c) for c in (rng.randint(lo, hi) for _ in range(size)) if not 0xd800 <= c <= 0xdfff)
            out.append(s if rng.random() < 0.5 else " ".join(s[i:i + 4] for i in range(0, len(s), 4)))
    return out


class Ours:
    def __init__(self, build, gguf):
        self.cmd = [os.path.join(build, "tokens"), gguf]

    def encode(self, items, flags):
        frames = [s if isinstance(s, bytes) else s.encode("utf-8", "surrogatepass") for s in items]
        data = b"".join(struct.pack("<II", flags, len(s)) + s for s in frames)
        run = subprocess.run(self.cmd, input=data, capture_output=True)
        if run.returncode:
            raise RuntimeError(run.stderr.decode())
        out, at = [], 0
        for _ in frames:
            n, = struct.unpack_from("<I", run.stdout, at)
            ids = list(struct.unpack_from("<%di" % n, run.stdout, at + 4))
            at += 4 + 4 * n
            m, = struct.unpack_from("<I", run.stdout, at)
            at += 4 + m
            out.append(ids)
        return out


def reference(folder):
    """(name, encode, with_special, normalized, special texts, encode_added or None, pre or None)"""
    path = os.path.join(folder, "tokenizer.json")
    model = os.path.join(folder, "tokenizer.model")
    ranks = glob.glob(os.path.join(folder, "*.tiktoken"))
    tekken = os.path.join(folder, "tekken.json")
    if os.path.exists(model) and open(model, "rb").read(1) == b"\n":
        import sentencepiece
        sp = sentencepiece.SentencePieceProcessor(model_file=model)
        norm = sp.Normalize
        return "sentencepiece", sp.encode, 0, norm, [], None, None
    if os.path.exists(path):
        import tokenizers
        t = tokenizers.Tokenizer.from_file(path)
        t.no_truncation()
        t.no_padding()
        norm = (lambda s: t.normalizer.normalize_str(s)) if t.normalizer else None
        specials = [a.content for a in t.get_added_tokens_decoder().values()]
        added = lambda s: t.encode(s).ids
        return "tokenizers", lambda s: t.encode(s, add_special_tokens=False).ids, SPECIAL, norm, specials, added, None
    import base64
    import tiktoken
    if os.path.exists(tekken):
        j = json.load(open(tekken))
        n = j["config"]["default_num_special_tokens"]
        table = {base64.b64decode(v["token_bytes"]): v["rank"] for v in j["vocab"] if v["rank"] < j["config"]["default_vocab_size"] - n}
        enc = tiktoken.Encoding("x", pat_str=j["config"]["pattern"], mergeable_ranks=table, special_tokens={})
        return "tiktoken", lambda s: [n + i for i in enc.encode_ordinary(s)], 0, None, [], None, None
    file = ranks[0] if ranks else model
    pattern, pre = PATTERNS[os.path.basename(file)]
    table = {base64.b64decode(a): int(b) for a, b in (line.split() for line in open(file, "rb") if line.strip())}
    enc = tiktoken.Encoding("x", pat_str=pattern, mergeable_ranks=table, special_tokens={})
    return "tiktoken", enc.encode_ordinary, 0, None, [], None, pre


def changed(norm, s):
    """Whether a normalizer does more to the text than marking spaces."""
    if norm is None:
        return False
    n = norm(s)
    return n.replace("\u2581", " ") not in (s, " " + s)


def check(folder, args):
    name = os.path.basename(folder)
    os.makedirs(args.tmp, exist_ok=True)
    gguf = os.path.join(args.tmp, name + ".gguf")
    kind, encode, flags, norm, specials, added, pre = reference(folder)
    run = subprocess.run([os.path.join(args.build, "convert_tokenizer"), folder, gguf] + (["0", pre] if pre else []), capture_output=True, text=True)
    if run.returncode:
        print("%-28s FAILED %s" % (name, run.stderr.strip()))
        return 1
    rng = random.Random(7)
    items = texts.texts() + corpus() + random_texts(args.random, 3)
    chosen = [s for s in specials if s.strip()]
    items += texts.around_special(rng.sample(chosen, min(40, len(chosen))))
    items = [s for s in items if "\x00" not in s or kind != "sentencepiece"]
    want = [encode(s) for s in items]
    try:
        got = Ours(args.build, gguf).encode(items, flags)
    except RuntimeError as e:
        print("%-28s CANNOT OPEN %s" % (name, e))
        return 1
    bad = [i for i in range(len(items)) if want[i] != got[i]]
    plain = [i for i in bad if not changed(norm, items[i])]
    ends = ""
    if added:
        w, g = added("abc def"), Ours(args.build, gguf).encode(["abc def"], flags | BOS)[0]
        ends = ", added tokens " + ("agree" if w == g else "DIFFER %s %s" % (w, g))
    print("%-28s %-13s %5d texts, %d differ, %d of them not normalized%s" % (name, kind, len(items), len(bad), len(plain), ends), flush=True)
    for line in run.stdout.splitlines():
        if args.verbose:
            print("    " + line)
    for i in (bad if args.all else plain)[:args.show]:
        print("    %r\n      want %s\n      got  %s" % (items[i][:80], want[i][:24], got[i][:24]))
    return len(plain)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("folder")
    p.add_argument("names", nargs="*")
    p.add_argument("--build", default="build/release")
    p.add_argument("--tmp", default="/tmp/convert_tokenizer")
    p.add_argument("--random", type=int, default=1500)
    p.add_argument("--show", type=int, default=0)
    p.add_argument("--all", action="store_true", help="show texts that the normalizer changes too")
    p.add_argument("-v", "--verbose", action="store_true")
    args = p.parse_args()
    names = args.names or sorted(d for d in os.listdir(args.folder) if os.path.isdir(os.path.join(args.folder, d)))
    bad = sum(check(os.path.join(args.folder, n), args) for n in names)
    return bad != 0


if __name__ == "__main__":
    sys.exit(main())
