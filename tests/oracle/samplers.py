#!/usr/bin/env python3
"""Compares the sampler with llama.cpp's, step by step: candidate sets and probabilities after every prefix of the chain.

  pip install llama-cpp-python numpy;  make build/release/samplers;  tests/oracle/samplers.py MODEL.gguf [ROWS]

Each row: random logits, random options, a random history; step k has the first k stages of the chain switched on. Sums of floats in another order may
move a boundary: sets that differ by one token, or by tokens of less than 1e-4 together, count as `near` and end the row.
`ours`: our set is the one of double arithmetic, theirs is not (sums of 50,000 floats; 1 - n^-e with e near 0). Ends with status 1 on any other difference."""
import ctypes, random, struct, subprocess, sys
import numpy as np
import llama_cpp as L

INF = float("inf")
STEPS = ["bias", "penalties", "dry", "top_n_sigma", "top_k", "typical", "top_p", "min_p", "xtc", "temperature"]
NEUTRAL = dict(temp=1, top_k=0, top_p=1, min_p=0, repeat=1, presence=0, frequency=0, last=64, sigma=-1, typical=1, xtc=0, xtc_t=0.1, range=0, exponent=1,
               dry=0, dry_base=1.75, dry_allowed=2, dry_last=64, breakers=1, mirostat=0, tau=5, eta=0.1)
OF_STEP = {"penalties": ["repeat", "presence", "frequency", "last"], "dry": ["dry", "dry_base", "dry_allowed", "dry_last", "breakers"],
           "top_n_sigma": ["sigma"], "top_k": ["top_k"], "typical": ["typical"], "top_p": ["top_p"], "min_p": ["min_p"], "xtc": ["xtc", "xtc_t"],
           "temperature": ["temp", "range", "exponent"]}


def random_options(r):
    o = dict(NEUTRAL)
    maybe = lambda p, v: v if r.random() < p else None
    draw = dict(repeat=maybe(.5, r.uniform(.8, 1.6)), presence=maybe(.5, r.uniform(-1, 1)), frequency=maybe(.5, r.uniform(-.5, .5)),
                last=r.choice([1, 8, 64, 200]), dry=maybe(.5, r.uniform(.1, 2)), dry_base=r.uniform(1, 2), dry_allowed=r.randint(1, 4),
                dry_last=r.choice([3, 16, 64, 300]), breakers=r.randint(0, 1), sigma=maybe(.3, r.uniform(.3, 4)), top_k=r.choice([0, 0, 1, 5, 40, 200, 10 ** 6]),
                typical=maybe(.4, r.uniform(.1, .99)), top_p=maybe(.5, r.uniform(.1, .999)), min_p=maybe(.5, r.uniform(.001, .5)),
                xtc=maybe(.4, 1), xtc_t=r.uniform(.001, .3), temp=r.choice([0, .3, .8, 1, 1.5]), range=maybe(.4, r.uniform(.1, 1)), exponent=r.uniform(.5, 2))
    o.update({k: v for k, v in draw.items() if v is not None})
    return o


class Theirs:
    def __init__(self, vocab):
        self.vocab = vocab
        texts = [b"\n", b":", b'"', b"*"]
        self.breakers = (ctypes.c_char_p * 4)(*texts)

    def sampler(self, step, o, n):
        if step == "penalties":
            return L.llama_sampler_init_penalties(n, o["last"], o["repeat"], o["frequency"], o["presence"])
        if step == "dry":
            return L.llama_sampler_init_dry(self.vocab, o["dry"], o["dry_base"], o["dry_allowed"], o["dry_last"],
                                            self.breakers if o["breakers"] else None, 4 if o["breakers"] else 0)
        return {"top_n_sigma": lambda: L.llama_sampler_init_top_n_sigma(o["sigma"]), "top_k": lambda: L.llama_sampler_init_top_k(o["top_k"]),
                "typical": lambda: L.llama_sampler_init_typical(o["typical"], 0), "top_p": lambda: L.llama_sampler_init_top_p(o["top_p"], 0),
                "min_p": lambda: L.llama_sampler_init_min_p(o["min_p"], 0), "xtc": lambda: L.llama_sampler_init_xtc(o["xtc"], o["xtc_t"], 0, 1),
                "temperature": lambda: L.llama_sampler_init_temp_ext(o["temp"], o["range"], o["exponent"]),
                "mirostat1": lambda: L.llama_sampler_init_mirostat(n, 1, o["tau"], o["eta"], 100),
                "mirostat2": lambda: L.llama_sampler_init_mirostat_v2(1, o["tau"], o["eta"]),
                "temp": lambda: L.llama_sampler_init_temp(o["temp"])}[step]()

    def array(self, logits):
        self.n = len(logits)
        self.buf = np.zeros(self.n, dtype=[("id", "i4"), ("logit", "f4"), ("p", "f4")])
        self.buf["id"], self.buf["logit"] = np.arange(self.n), logits
        self.arr = L.llama_token_data_array(data=self.buf.ctypes.data_as(ctypes.POINTER(L.llama_token_data)), size=self.n, selected=-1, sorted=False)

    def apply(self, step, o, history):
        s = self.sampler(step, o, self.n)
        for t in history:
            L.llama_sampler_accept(s, int(t))
        L.llama_sampler_apply(s, ctypes.byref(self.arr))
        L.llama_sampler_free(s)
        self.drop_impossible()

    def drop_impossible(self):
        """Tokens at -inf are no candidates for us; taking them away keeps later steps comparable."""
        at = (ctypes.cast(self.arr.data, ctypes.c_void_p).value - self.buf.ctypes.data) // self.buf.itemsize
        live = self.buf[at:at + self.arr.size]
        live = live[live["logit"] > -INF].copy()
        self.buf = live
        self.arr.data = self.buf.ctypes.data_as(ctypes.POINTER(L.llama_token_data))
        self.arr.size = len(live)

    def result(self):
        x = self.buf["logit"].astype("f8")
        p = np.exp(x - x.max())
        return dict(zip(self.buf["id"].tolist(), (p / p.sum()).tolist()))


def ours(proc, o, logits, history):
    v = [o[k] for k in NEUTRAL]
    proc.stdin.write(struct.pack("<2I22d", len(logits), len(history), *v) + logits.tobytes() + np.asarray(history, "i4").tobytes())
    proc.stdin.flush()
    n, = struct.unpack("<I", proc.stdout.read(4))
    ids, p = np.frombuffer(proc.stdout.read(4 * n), "i4"), np.frombuffer(proc.stdout.read(4 * n), "f4")
    return dict(zip(ids.tolist(), p.tolist()))


def judge(mine, theirs):
    """same, near or far; and the largest difference of probabilities."""
    odd = set(mine) ^ set(theirs)
    if odd:
        mass = sum(max(mine.get(i, 0), theirs.get(i, 0)) for i in odd)
        return ("near" if len(odd) == 1 or mass < 1e-4 else "far"), 0
    worst = max(abs(mine[i] - theirs[i]) / (theirs[i] + 1e-3) for i in mine)
    return ("same" if worst < 1e-4 else "far"), worst


def exactly(step, o, ids, x):
    """The candidate set by the definition, in double precision, from candidates (ids, logits) before the step. None: not written down here."""
    x = x.astype("f8")
    if step == "top_n_sigma":
        return set(ids[x >= x.max() - np.float32(o["sigma"]) * x.std()].tolist())
    p = np.exp(x - x.max())
    p /= p.sum()
    if step == "typical":
        surprise = -np.log(np.maximum(p, 1e-300))
        order = np.argsort(np.abs(surprise - (p * surprise).sum()), kind="stable")
        return set(ids[order[:int(np.searchsorted(np.cumsum(p[order]), np.float32(o["typical"]), "right")) + 1]].tolist())
    if step == "mirostat1":
        order = np.argsort(-x, kind="stable")
        p, i, n = p[order], np.arange(min(99, len(x) - 1)), len(x)
        t = np.log((i + 2) / (i + 1))
        zipf = (t * np.log(p[i] / p[i + 1])).sum() / (t * t).sum()
        k = ((zipf - 1) * 2 ** (2 * o["tau"]) / (1 - n ** (1 - zipf))) ** (1 / zipf)
        return set(ids[order[:max(1, int(min(k, n)))]].tolist())


def main():
    model, rows = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1000
    quiet = L.llama_log_callback(lambda *a: None)  # kept: C holds only the pointer
    L.llama_log_set(quiet, None)
    L.llama_backend_init()
    params = L.llama_model_default_params()
    params.vocab_only = True
    handle = L.llama_model_load_from_file(model.encode(), params)
    vocab = L.llama_model_get_vocab(handle)
    n_real = L.llama_vocab_n_tokens(vocab)
    proc = subprocess.Popen(["build/release/samplers", model], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    r, g, th = random.Random(1), np.random.default_rng(1), Theirs(vocab)
    count, worst, examples = {}, 0, []
    for row in range(rows):
        n = n_real if row % 20 == 0 else r.choice([50, 500, 3000])
        scale = r.choice([.5, 2, 4, 8])
        logits = (g.standard_normal(n) * scale).astype("f4")
        if n == n_real:
            text = [13, 25, 9, n - 1, 198, 42, 1, 30]  # among them newline and colon in several vocabularies
            few = [r.choice(text) for _ in range(5)]
        else:
            few = [r.randrange(n) for _ in range(4)]
        history = [r.choice(few) for _ in range(r.choice([0, 1, 5, 40, 150]))]
        full = random_options(r)
        th.array(logits)
        now = dict(NEUTRAL)
        for step in STEPS[1:]:
            for k in OF_STEP[step]:
                now[k] = full[k]
            ids, x = th.buf["id"].copy(), th.buf["logit"].copy()
            th.apply(step, full, history if step in ("penalties", "dry") else [])
            mine = ours(proc, now, logits, history)
            verdict, diff = judge(mine, th.result())
            if verdict == "far" and exactly(step, now, ids, x) == set(mine):
                verdict = "ours"
            worst = max(worst, diff)
            count[step, verdict] = count.get((step, verdict), 0) + 1
            if verdict == "far":
                examples.append((row, step, now))
            if verdict != "same":
                break  # what follows starts from another set
        for version in (1, 2):
            o = dict(NEUTRAL, mirostat=version, tau=r.uniform(.5, 6), temp=r.choice([.3, 1, 1.4]))
            th.array(logits)
            th.apply("temp", o, [])
            ids, x = th.buf["id"].copy(), th.buf["logit"].copy()
            th.apply("mirostat%d" % version, o, [])
            mine = ours(proc, o, logits, [])
            verdict, diff = judge(mine, th.result())
            if verdict == "far" and exactly("mirostat%d" % version, o, ids, x) == set(mine):
                verdict = "ours"
            worst = max(worst, diff)
            count["mirostat%d" % version, verdict] = count.get(("mirostat%d" % version, verdict), 0) + 1
            if verdict == "far":
                examples.append((row, version, o))
    for step in STEPS[1:] + ["mirostat1", "mirostat2"]:
        print("%-12s same %6d  near %4d  ours %4d  far %4d" % (step, *[count.get((step, v), 0) for v in ("same", "near", "ours", "far")]))
    print("largest difference of a probability, relative to p + 0.001: %.2g" % worst)
    for e in examples[:5]:
        print(e)
    sys.exit(1 if examples else 0)


main()
