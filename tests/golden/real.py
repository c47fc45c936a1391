#!/usr/bin/env python3
"""Real models against goldens made with llama.cpp.

    real.py check [NAME...]          standard library only; models in models/, binary in build/release; prints "N passed, N failed"
    real.py make NAME MODEL.gguf F32_TWIN.gguf      (llama-cpp-python, numpy) rewrites one entry of real.json

Per model: ids of tricky strings with and without special tokens parsed (equal), perplexity of prose.txt on the F32 twin (within 0.3 %), the likeliest
next tokens after a raw prompt on the twin (same first; KL over the five and the rest below 0.01, where llama.cpp's own mean on prose is 0.001 to
0.017), a chat answer that must contain a word.
prose.txt: Genesis 1 to 5, World English Bible, public domain.
"""
import json
import math
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
FILE = os.path.join(HERE, "real.json")
RAW = "The three primary colours are red, yellow and"
CTX = 512
EXPECT = {"smollm2-135m-instruct-q4_1": "Paris", "qwen2.5-coder-0.5b-q4": "Paris", "gemma-3-270m-q4_k_m": None}


def load():
    return json.load(open(FILE, encoding="utf-8")) if os.path.exists(FILE) else {}


def make(name, path, twin):
    sys.path.insert(0, os.path.join(ROOT, "tests", "oracle"))
    import accuracy
    import numpy as np
    import tokens

    exact = accuracy.Llama(twin, CTX, True)
    api, vocab = accuracy.api, exact.vocab

    def ids_of(text, special, bos):
        raw = text.encode()
        import ctypes
        out = (ctypes.c_int32 * (len(raw) + 16))()
        n = api.llama_tokenize(vocab, raw, len(raw), out, len(raw) + 16, bos, special)
        return list(out[:n])

    texts = [t for t in tokens.TRICKY if t and "\0" not in t and len(t) < 90]
    ids = ids_of(open(os.path.join(HERE, "prose.txt"), encoding="utf-8").read(), False, True)
    add_bos, nll = api.llama_vocab_get_add_bos(vocab), []
    for at in range(0, len(ids) // CTX * CTX, CTX):
        w = ids[at:at + CTX]
        if add_bos:
            w[0] = api.llama_vocab_bos(vocab)
        p = accuracy.log_softmax(exact.window(w))
        nll += [-p[i, w[i + 1]] for i in range(CTX // 2, CTX - 1)]
    p = accuracy.log_softmax(exact.window(ids_of(RAW, False, True))[-1:])[0]
    top = np.argsort(-p)[:5]
    all_models = load()
    all_models[name] = {
        "tokens": [[t, ids_of(t, False, False), ids_of(t, True, True)] for t in texts],
        "ppl": math.exp(sum(nll) / len(nll)), "ppl_tokens": len(nll),
        "next": [[int(i), round(float(p[i]), 4)] for i in top],
    }
    rows = ",\n".join(json.dumps(k) + ": {\n \"tokens\": [\n  " + ",\n  ".join(json.dumps(t, ensure_ascii=True, separators=(",", ":")) for t in m["tokens"]) +
                      "],\n \"ppl\": %r, \"ppl_tokens\": %d, \"next\": %s}" % (m["ppl"], m["ppl_tokens"], json.dumps(m["next"])) for k, m in sorted(all_models.items()))
    open(FILE, "w", encoding="utf-8").write("{" + rows + "}\n")


def cuanto(*args, stdin=b""):
    r = subprocess.run([os.path.join(ROOT, "build", "release", "cuanto"), *args], input=stdin, capture_output=True)
    if r.returncode:
        raise RuntimeError("cuanto %s: status %d: %s" % (" ".join(args[:2]), r.returncode, r.stderr.decode(errors="replace")[-300:]))
    return r.stdout


def check_model(name, m, say):
    model = os.path.join(ROOT, "models", name + ".gguf")
    for text, plain, special in m["tokens"]:
        say(json.loads(cuanto("tokenize", model, "--no-bos", stdin=text.encode())) == plain, "ids of %r" % text)
        say(json.loads(cuanto("tokenize", model, "--special", stdin=text.encode())) == special, "ids of %r, special" % text)
    r = json.loads(cuanto("perplexity", model, "-f", os.path.join(HERE, "prose.txt"), "-c", str(CTX), "--json", "-q"))
    off = r["ppl"] / m["ppl"] - 1
    say(abs(off) <= 0.003 and r["n_tokens"] == m["ppl_tokens"], "perplexity %.4f over %d tokens, golden %.4f over %d" % (r["ppl"], r["n_tokens"], m["ppl"], m["ppl_tokens"]))
    r = json.loads(cuanto("run", model, "--raw", RAW, "--json", "--top-logprobs", "5", "-n", "1", "--temp", "0", "-q"))
    got = {t["id"]: t["logprob"] for t in r["logprobs"][0]["top"]}
    say(r["logprobs"][0]["id"] == m["next"][0][0], "next token is %s, golden %s" % (r["logprobs"][0]["id"], m["next"][0][0]))
    exact = [math.exp(logprob) for _, logprob in m["next"]]
    ours = [math.exp(got.get(i, -99)) for i, _ in m["next"]]
    kl = sum(p * math.log(p / q) for p, q in zip(exact + [1 - sum(exact)], ours + [1 - sum(ours)]))
    say(kl < 0.01, "KL over the five likeliest next tokens is %.5f" % kl)
    if EXPECT[name]:
        say(EXPECT[name] in cuanto("run", model, "What is the capital of France?", "--temp", "0", "-n", "40", "-q").decode(), "the capital of France")
    print("%s: perplexity %+.3f %% of the exact one" % (name, 100 * off))


def check(names):
    passed = failed = 0

    def say(ok, what):
        nonlocal passed, failed
        passed, failed = passed + ok, failed + (not ok)
        if not ok:
            print("FAIL", name, what)

    goldens = load()
    for name in names or sorted(goldens):
        try:
            check_model(name, goldens[name], say)
        except (RuntimeError, KeyError, ValueError) as e:
            say(False, str(e))
    print("%d passed, %d failed" % (passed, failed))
    return failed or not passed


if __name__ == "__main__":
    if len(sys.argv) == 5 and sys.argv[1] == "make":
        make(*sys.argv[2:])
    elif len(sys.argv) >= 2 and sys.argv[1] == "check":
        sys.exit(1 if check(sys.argv[2:]) else 0)
    else:
        sys.exit(__doc__)
