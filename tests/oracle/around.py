#!/usr/bin/env python3
"""What stands around the kernels, side by side with llama.cpp and ik_llama.cpp: by turns, in one run, the best of --rounds of each.

    CMAKE_ARGS=-DGGML_NATIVE=ON pip install llama-cpp-python;  pip install ik-llama-cpp-python numpy
    cc -O2 -D_GNU_SOURCE -I. tests/oracle/sample_cost.c build/release/libcuanto.a -lm -lpthread -o build/release/sample_cost
    around.py ppl MODEL.gguf... [-t 2] [--tools DIR] [--chunks N]    DIR: llama.cpp's programs
    around.py tok MODEL-OR-VOCABULARY.gguf... | start MODEL... | memory MODEL... | sample

ppl     a text of 100 KB in windows of 512. cuanto, llama-perplexity: the whole command. ik (a binding only): the time inside llama_decode for the same
        windows, logits of the scored half; neither its load nor its sums count, which favours it.
tok     1 MB of mixed text: prose, code, tables, 40 languages. One call, best of several; nothing is opened or printed in that time.
start   a short prompt, one greedy token. cuanto, llama-completion --no-warmup: process start to the first byte of the answer. Bindings: load, context, tokenize, first decode,
        argmax; python's own start does not count. The file is in the page cache.
memory  a context of 4096 of which --fill tokens are used, one token more. mib: peak resident memory of the process, of bindings less what python held before
        the load. Pages of the mapped file count for all; private_mib is the part that is not of files.
sample  151,936 logits of a normal distribution: default chain and greedy, us a token.
"""
import argparse
import ctypes
import glob
import gettext
import importlib
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CUANTO = os.environ.get("CUANTO", os.path.join(ROOT, "build", "release", "cuanto"))
PEERS = {"llama.cpp": "llama_cpp", "ik": "ik_llama_cpp"}
N_CTX, N_SEQ = 512, 4


# ---- texts ----

def read(*names):
    return "".join(open(os.path.join(ROOT, n), encoding="utf-8", errors="replace").read() for pattern in names for n in sorted(glob.glob(pattern, root_dir=ROOT)))


def prose(n):
    """Documentation and prose of the repository, then catalogues of this machine: about 100 KB without a repetition."""
    text = read("tests/golden/prose.txt", "README.md", "*/README.md") + read("ggml-like/*.h", "src/*.h")
    return text.encode()[:n].decode(errors="ignore").encode()


def foreign():
    out = []
    for path in sorted(glob.glob("/usr/share/locale/*/LC_MESSAGES/*.mo")):
        try:
            with open(path, "rb") as f:
                out += [v for v in gettext.GNUTranslations(f)._catalog.values() if isinstance(v, str)]
        except Exception:
            pass
    return out or read("tests/golden/tokenizer_ids.txt").splitlines()


def mixed(n):
    """Half code and documents of the repository, a third messages in many languages, the rest numbers and tables: paragraphs shuffled, none twice."""
    rng = random.Random(1)
    own = read("src/*.c", "tools/*.c", "ggml-like/*.c", "*/README.md", "README.md", "tests/golden/*.txt").split("\n\n")
    other = foreign()
    rng.shuffle(own)
    rng.shuffle(other)
    parts, size = [], 0
    while size < n and own and len(other) > 6:
        kind = rng.random()
        if kind < 0.5:
            p = own.pop() + "\n\n"
        elif kind < 0.93:
            p = " ".join(other.pop() for _ in range(6)) + "\n"
        else:
            p = "".join("%d\t%.4f\t0x%x\t%s\n" % (rng.randrange(10**6), rng.random() * 100, rng.getrandbits(32), rng.choice("abcxyz") * rng.randrange(5)) for _ in range(6))
        parts.append(p)
        size += len(p.encode())
    return "".join(parts).encode()[:n].decode(errors="ignore").encode()


# ---- a peer in this process ----

class Peer:
    def __init__(self, module, path, threads, n_ctx, n_seq=1, vocab_only=False, n_batch=2048):
        self.ik = module == "ik_llama_cpp"
        self.api = api = importlib.import_module("ik_llama_cpp._ctypes_api" if self.ik else "llama_cpp.llama_cpp")
        kind = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
        self.log = kind(lambda *a: None)
        api._lib.llama_log_set.argtypes, api._lib.llama_log_set.restype = [kind, ctypes.c_void_p], None
        api._lib.llama_log_set(self.log, None)
        api.llama_backend_init()
        mp = api.llama_model_default_params()
        mp.n_gpu_layers = 0
        mp.vocab_only = vocab_only
        self.model = api.llama_model_load_from_file(os.fsencode(path), mp)
        self.vocab = api.llama_model_get_vocab(self.model)
        self.words = self.model if self.ik else self.vocab
        self.n_vocab = api.llama_vocab_n_tokens(self.vocab)
        if vocab_only:
            return
        cp = api.llama_context_default_params()
        cp.n_ctx, cp.n_batch, cp.n_ubatch, cp.n_seq_max = n_ctx, n_batch, 512, n_seq
        cp.n_threads = cp.n_threads_batch = threads
        if self.ik:
            cp.flash_attn = True
        else:
            cp.flash_attn_type = 1
        self.ctx = api.llama_init_from_model(self.model, cp)
        self.batch = api.llama_batch_init(n_batch, 0, 1)
        self.n_batch = n_batch

    def clear(self):
        if self.ik:
            self.api.llama_kv_cache_clear(self.ctx)
        else:
            self.api.llama_memory_clear(self.api.llama_get_memory(self.ctx), True)

    def decode(self, rows):
        """rows: (token, position, sequence, wants logits)"""
        b = self.batch
        b.n_tokens = len(rows)
        for i, (token, pos, seq, want) in enumerate(rows):
            b.token[i], b.pos[i], b.n_seq_id[i], b.seq_id[i][0], b.logits[i] = token, pos, 1, seq, want
        t0 = time.perf_counter()
        if self.api.llama_decode(self.ctx, b) != 0:
            raise SystemExit("decode failed")
        return time.perf_counter() - t0

    def tokenize(self, raw, add_special=False):
        out = (ctypes.c_int32 * (len(raw) + 16))()
        t0 = time.perf_counter()
        n = self.api.llama_tokenize(self.words, raw, len(raw), out, len(raw) + 16, add_special, False)
        return time.perf_counter() - t0, out[:n]


def child_ppl(a):
    import numpy
    p = Peer(a.module, a.models[0], a.t, N_CTX * N_SEQ, N_SEQ)
    ids = p.tokenize(open(a.text, "rb").read(), True)[1]
    n = len(ids) // N_CTX
    n = min(n, a.chunks) if a.chunks else n
    seconds = nll = count = 0
    bos = ids[0] if p.tokenize(b"a", True)[1][:1] != p.tokenize(b"a")[1][:1] else None
    for first in range(0, n, N_SEQ):
        some = range(first, min(first + N_SEQ, n))
        rows = [(bos if bos is not None and i == 0 else ids[c * N_CTX + i], i, c - first, int(i >= N_CTX // 2)) for c in some for i in range(N_CTX)]
        p.clear()
        seconds += p.decode(rows)
        for s, c in enumerate(some):
            for i in range(N_CTX // 2, N_CTX - 1, 16):  # a sample is enough to see that the peer computes what it should
                x = numpy.ctypeslib.as_array(p.api.llama_get_logits_ith(p.ctx, s * N_CTX + i), (p.n_vocab,)).astype(numpy.float64)
                nll += numpy.log(numpy.exp(x - x.max()).sum()) + x.max() - x[ids[c * N_CTX + i + 1]]
                count += 1
    return {"seconds": seconds, "ppl": float(numpy.exp(nll / count)), "note": "every 16th row"}


def child_tok(a):
    p = Peer(a.module, a.models[0], a.t, 0, vocab_only=True)
    raw = open(a.text, "rb").read()
    best, n = min((p.tokenize(raw) for _ in range(2)), key=lambda r: r[0])
    return {"mb_s": len(raw) / best / 1e6, "tokens": len(n)}


def child_start(a):
    t0 = time.perf_counter()
    p = Peer(a.module, a.models[0], a.t, 4096)
    ids = p.tokenize(b"The capital of France is", True)[1]
    p.decode([(t, i, 0, int(i == len(ids) - 1)) for i, t in enumerate(ids)])
    x = p.api.llama_get_logits_ith(p.ctx, len(ids) - 1)
    max(range(0, p.n_vocab, 97), key=lambda i: x[i])  # argmax in python would be unfair
    return {"seconds": time.perf_counter() - t0}


def private_kib(pid):
    return int(open("/proc/%s/status" % pid).read().split("RssAnon:")[1].split()[0])


def child_memory(a):
    importlib.import_module(a.module)
    before, private = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, private_kib("self")
    p = Peer(a.module, a.models[0], a.t, 4096)
    ids = p.tokenize(open(a.text, "rb").read(), True)[1][:a.fill]
    for at in range(0, len(ids), p.n_batch):
        part = ids[at:at + p.n_batch]
        p.decode([(t, at + i, 0, int(i == len(part) - 1)) for i, t in enumerate(part)])
    p.decode([(ids[0], len(ids), 0, 1)])
    return {"mib": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, "private_mib": (private_kib("self") - private) / 1024,
            "python_mib": before / 1024, "tokens": len(ids) + 1}


def child_sample(a):
    """llama.cpp's chain on its own array of candidates, as llama_sampler_sample builds it."""
    api = importlib.import_module("llama_cpp.llama_cpp")
    n, rng = 151936, random.Random(1)
    logits = [rng.gauss(0, 3) for _ in range(n)]
    item = (api.llama_token_data * n)()
    out = {}
    for name, rows in (("default", [api.llama_sampler_init_top_k(40), api.llama_sampler_init_top_p(0.95, 1), api.llama_sampler_init_min_p(0.05, 1),
                                    api.llama_sampler_init_temp(0.8), api.llama_sampler_init_dist(1)]), ("greedy", [api.llama_sampler_init_greedy()])):
        chain = api.llama_sampler_chain_init(api.llama_sampler_chain_default_params())
        for r in rows:
            api.llama_sampler_chain_add(chain, r)
        best = 1e9
        for _ in range(20):
            for i, x in enumerate(logits):
                item[i].id, item[i].logit, item[i].p = i, x, 0
            array = api.llama_token_data_array(ctypes.cast(item, ctypes.POINTER(api.llama_token_data)), n, -1, False)
            t0 = time.perf_counter()
            api.llama_sampler_apply(chain, ctypes.byref(array))
            best = min(best, time.perf_counter() - t0)
        out[name] = best * 1e6
    return out


CHILDREN = {"ppl": child_ppl, "tok": child_tok, "start": child_start, "memory": child_memory, "sample": child_sample}


def child(a, module, path, text):
    args = [sys.executable, os.path.abspath(__file__), a.what, path, "--module", module, "-t", str(a.t), "--text", text, "--chunks", str(a.chunks), "--fill", str(a.fill)]
    r = subprocess.run(args, capture_output=True)
    return json.loads(r.stdout.splitlines()[-1]) if r.returncode == 0 else {"error": (r.stderr.decode(errors="replace").strip().splitlines() or ["?"])[-1]}


def first_byte(args):
    """Until the answer begins: what the process does afterwards, unmapping the file, is no part of the start."""
    t0 = time.perf_counter()
    p = subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    p.stdout.read(1)
    seconds = time.perf_counter() - t0
    p.communicate()
    return seconds, p


def timed(args):
    t0 = time.perf_counter()
    r = subprocess.run(args, capture_output=True)
    return time.perf_counter() - t0, r


# ---- cuanto, and llama.cpp's programs ----

def cuanto_ppl(a, path, text, extra=()):
    seconds, r = timed([CUANTO, "perplexity", path, "-f", text, "-q", "--json", "-t", str(a.t)] + list(extra) + (["--chunks", str(a.chunks)] if a.chunks else []) + isa(a))
    return {"seconds": seconds, "ppl": json.loads(r.stdout)["ppl"]}


def isa(a):
    return ["--isa", a.isa] if a.isa else []


def tool_ppl(a, path, text):
    seconds, r = timed([os.path.join(a.tools, "llama-perplexity"), "-m", path, "-f", text, "-t", str(a.t)] + (["--chunks", str(a.chunks)] if a.chunks else []))
    out = (r.stdout + r.stderr).decode(errors="replace")
    return {"seconds": seconds, "ppl": float(out.split("PPL = ")[1].split()[0])}


def cuanto_tok(a, path, text):
    r = subprocess.run([CUANTO, "tokenize", path, "-f", text, "--bench", "--json", "--no-bos"], capture_output=True)
    if r.returncode:
        return {"error": r.stderr.decode().strip()}
    x = json.loads(r.stdout)
    return {"mb_s": x["encode_mb_s"], "tokens": x["tokens"], "open_ms": x["open_ms"]}


def cuanto_start(a, path, text):
    seconds, r = first_byte([CUANTO, "run", path, "--raw", "The capital of France is", "-n", "1", "-q", "--temp", "0", "-t", str(a.t)] + isa(a))
    return {"seconds": seconds, "ok": r.returncode == 0}


def tool_start(a, path, text):
    seconds, r = first_byte([os.path.join(a.tools, "llama-completion"), "-m", path, "-p", "The capital of France is", "-n", "1", "-c", "4096", "--no-warmup", "-no-cnv", "--no-display-prompt",
                        "--temp", "0", "-t", str(a.t)])
    return {"seconds": seconds, "ok": r.returncode == 0}


def cuanto_memory(a, path, text):
    """The prompt is cut so that it fits: --fill tokens' worth of text."""
    raw = open(text, "rb").read()
    low, high = 0, len(raw)
    while high - low > 16:
        n = (low + high) // 2
        r = subprocess.run([CUANTO, "tokenize", path, "-f", "-"], input=raw[:n], capture_output=True)
        tokens = len(json.loads(r.stdout))
        low, high = (n, high) if tokens <= a.fill else (low, n)
    n = low
    with tempfile.NamedTemporaryFile(suffix=".txt") as f:
        f.write(raw[:n])
        f.flush()
        p = subprocess.Popen([CUANTO, "run", path, "--raw", "-f", f.name, "-n", "2", "-c", "4096", "-q", "--temp", "0", "-t", str(a.t)] + isa(a), stdout=subprocess.DEVNULL)
        private, usage = 0, (0,)
        while usage[0] == 0:
            try:
                private = max(private, private_kib(p.pid))
            except (IndexError, OSError):  # it is ending
                pass
            time.sleep(0.002)
            usage = os.wait4(p.pid, os.WNOHANG)
    return {"mib": usage[2].ru_maxrss / 1024, "private_mib": private / 1024, "ok": usage[1] == 0, "tokens": tokens + 1}


def cuanto_sample(a, path, text):
    return json.loads(subprocess.run([os.path.join(ROOT, "build", "release", "sample_cost")], capture_output=True, check=True).stdout)


OURS = {"ppl": cuanto_ppl, "tok": cuanto_tok, "start": cuanto_start, "memory": cuanto_memory, "sample": cuanto_sample}
TOOLS = {"ppl": tool_ppl, "start": tool_start}
KEY = {"ppl": ("seconds", min), "tok": ("mb_s", max), "start": ("seconds", min), "memory": ("mib", min), "sample": ("default", min)}


def rows(a, path, text):
    """One function a contender; ik's binding has no sampler chain."""
    out = {"cuanto": lambda: OURS[a.what](a, path, text)}
    if a.what == "ppl" and a.precise:
        out["cuanto --precise"] = lambda: cuanto_ppl(a, path, text, ["--precise"])
    if a.what in TOOLS and a.tools:
        out["llama.cpp tool"] = lambda: TOOLS[a.what](a, path, text)
    for name, module in PEERS.items():
        if name == "llama.cpp" and a.what == "ppl" or name == "ik" and a.what == "sample":
            continue
        out[name] = lambda m=module: child(a, m, path, text)
    return out


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("what", choices=list(OURS))
    ap.add_argument("models", nargs="*", default=[])
    ap.add_argument("-t", type=int, default=2)
    ap.add_argument("--rounds", type=int, default=3)
    ap.add_argument("--chunks", type=int, default=0)
    ap.add_argument("--fill", type=int, default=512, help="memory: tokens in the context")
    ap.add_argument("--isa", help="of cuanto")
    ap.add_argument("--tools", help="folder of llama.cpp's programs")
    ap.add_argument("--precise", action="store_true", help="ppl: cuanto --precise, too")
    ap.add_argument("--only", help="contenders whose name holds this word")
    ap.add_argument("--text")
    ap.add_argument("--module", help=argparse.SUPPRESS)
    a = ap.parse_args()
    if a.module:
        print(json.dumps(CHILDREN[a.what](a)))
        return
    key, best = KEY[a.what]
    with tempfile.TemporaryDirectory() as tmp:
        text = a.text or os.path.join(tmp, "text.txt")
        if not a.text:
            open(text, "wb").write(mixed(10**6) if a.what == "tok" else prose(100000))
        for path in a.models or [""]:
            who = {n: f for n, f in rows(a, path, text).items() if not a.only or a.only in n}
            got = {n: [] for n in who}
            for _ in range(a.rounds):
                for n, f in who.items():
                    got[n].append(f())
            ours = None
            for n, runs in got.items():
                good = [r for r in runs if key in r]
                if not good:
                    print("%-28s %-18s %s" % (os.path.basename(path), n, runs[0]), flush=True)
                    continue
                top = best(good, key=lambda r: r[key])
                ours = ours or top[key]
                ratio = ours / top[key] if best is max else top[key] / ours
                print("%-28s %-18s %s  %.3f x  (median %.4g)" % (os.path.basename(path)[:28], n, {k: round(v, 4) if isinstance(v, float) else v for k, v in top.items()},
                                                     ratio, statistics.median(r[key] for r in good)), flush=True)


if __name__ == "__main__":
    main()
