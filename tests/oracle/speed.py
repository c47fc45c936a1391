#!/usr/bin/env python3
"""Speed side by side with llama.cpp and ik_llama.cpp: same file, same machine, one run, tests of all engines by turns, median of the rounds' ratios with
their range.

    CMAKE_ARGS=-DGGML_NATIVE=ON pip install llama-cpp-python;  pip install ik-llama-cpp-python;  make oracle
    speed.py MODEL.gguf... [--tests pp512,tg128,pp512@4096,tg64@4096,batch8] [-t 2] [--rounds 5] [--isa avx2] [--peers llama,ik,ik-repack] [--null]

pp and tg as llama-bench defines them: one prompt of N tokens, N single tokens, no sampling; @D after D tokens in the context; batch8: eight sequences
decoded together, tokens of all (ik_llama.cpp without flash attention, which fails there). Each engine runs in a process of its own that keeps the model; each test is run once before it counts. F16 KV cache,
flash attention, batches of 512. --null adds a second cuanto as a peer: the spread below which a ratio says nothing.
"""
import argparse
import ctypes
import importlib
import json
import os
import re
import statistics
import subprocess
import sys
import time

HERE = os.path.abspath(__file__)
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(HERE)))
SERVER = os.path.join(ROOT, "build", "release", "speed")
STEPS = 32


class Served:
    """A peer behind the protocol of speed.c."""

    def __init__(self, name, path, threads, n_ctx, sequences):
        self.ik = name.startswith("ik")
        self.api = api = importlib.import_module("ik_llama_cpp._ctypes_api" if self.ik else "llama_cpp.llama_cpp")
        kind = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
        self.log = kind(lambda level, text, data: None)
        api._lib.llama_log_set.argtypes, api._lib.llama_log_set.restype = [kind, ctypes.c_void_p], None
        api._lib.llama_log_set(self.log, None)
        api.llama_backend_init()
        mp = api.llama_model_default_params()
        mp.n_gpu_layers = 0
        if self.ik:
            mp.repack_tensors = name == "ik-repack"
        self.model = api.llama_model_load_from_file(os.fsencode(path), mp)
        n_vocab = api.llama_vocab_n_tokens(api.llama_model_get_vocab(self.model))
        cp = api.llama_context_default_params()
        cp.n_ctx, cp.n_batch, cp.n_ubatch, cp.n_seq_max = n_ctx, 2048, 512, sequences
        cp.n_threads = cp.n_threads_batch = threads
        if self.ik:
            cp.flash_attn = True
        else:
            cp.flash_attn_type = 1
            cp.kv_unified = True
        self.ctx = self.plain = api.llama_init_from_model(self.model, cp)
        if self.ik and sequences > 1:  # its flash attention stops at an assertion (S > 0) when a thread's keys are all of other sequences
            cp.flash_attn = False
            self.plain = api.llama_init_from_model(self.model, cp)
        self.batch = api.llama_batch_init(2048, 0, 1)
        self.ids = [(i * 7919 + 1000) % min(30000, n_vocab) for i in range(n_ctx + 64)]
        self.pos = 0
        if self.ik:
            api._lib.llama_kv_cache_seq_rm.argtypes = [ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32, ctypes.c_int32]

    def truncate(self, n):
        if n == 0:
            self.api.llama_kv_cache_clear(self.ctx) if self.ik else self.api.llama_memory_clear(self.api.llama_get_memory(self.ctx), True)
        elif self.ik:
            self.api._lib.llama_kv_cache_seq_rm(self.ctx, 0, n, -1)
        else:
            self.api.llama_memory_seq_rm(self.api.llama_get_memory(self.ctx), 0, n, -1)
        self.pos = n

    def decode(self, rows):
        b = self.batch
        b.n_tokens = len(rows)
        for i, (token, pos, seq, want) in enumerate(rows):
            b.token[i], b.pos[i], b.n_seq_id[i], b.seq_id[i][0], b.logits[i] = token, pos, 1, seq, want
        assert self.api.llama_decode(self.ctx, b) == 0

    def feed(self, n, each):
        for at in range(0, n, each):
            m = min(each, n - at)
            self.decode([(self.ids[self.pos + i], self.pos + i, 0, each == 1 or at + i == n - 1) for i in range(m)])
            self.pos += m

    def run(self, kind, a, b):
        if kind == "batch":
            self.truncate(0)
            self.ctx, kept = self.plain, self.ctx
            self.truncate(0)
            start = time.perf_counter()
            for i in range(b):
                self.decode([(self.ids[s + i], i, s, 1) for s in range(a)])
            seconds = time.perf_counter() - start
            self.truncate(0)
            self.ctx = kept
            return seconds
        self.truncate(min(b, self.pos))
        self.feed(b - self.pos, 2048)
        start = time.perf_counter()
        self.feed(a, 1 if kind == "tg" else 2048)
        return time.perf_counter() - start


def serve(name, path, threads, n_ctx, sequences):
    peer = Served(name, path, threads, n_ctx, sequences)
    print("ready", flush=True)
    for line in sys.stdin:
        kind, a, b = line.split()
        print("%.9f" % peer.run(kind, int(a), int(b)), flush=True)


class Engine:
    def __init__(self, name, path, a, n_ctx, sequences):
        args = [path, str(a.t), str(n_ctx), str(sequences)]
        command = [SERVER] + args + ([a.isa] if a.isa else []) if name.startswith("cuanto") else [sys.executable, HERE, "--serve", name] + args
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.name, self.kernels = name, self.process.stdout.readline().strip()
        if not self.kernels:
            raise SystemExit(f"{name} does not start: {' '.join(command)}")

    def seconds(self, test):
        self.process.stdin.write("%s %d %d\n" % test)
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def parse_test(text):
    m = re.fullmatch(r"(pp|tg)(\d+)(?:@(\d+))?", text)
    if m:
        return (m[1], int(m[2]), int(m[3] or 0)), int(m[2])
    m = re.fullmatch(r"batch(\d+)", text)
    if not m:
        raise SystemExit(f"test {text}: expected ppN, tgN, ppN@D, tgN@D, batchN")
    return ("batch", int(m[1]), STEPS), int(m[1]) * STEPS


def ratio_text(ours, theirs):
    r = [y / x for x, y in zip(ours, theirs)]
    return "%.2f [%.2f..%.2f]" % (statistics.median(r), min(r), max(r))


def run_model(a, path, tests, names, results):
    """All tests of one model; a test of the list may not disturb the depth of the next, so equal depths stand together."""
    n_ctx = max([t[0][1] + t[0][2] for t in tests if t[0][0] != "batch"] + [512]) + 64
    sequences = max([t[0][1] for t in tests if t[0][0] == "batch"] + [1])
    engines = [Engine(n, path, a, n_ctx, sequences) for n in names]
    for test, tokens in tests:
        for e in engines:
            e.seconds(test)
        taken = {n: [] for n in names}
        for i in range(a.rounds):
            order = engines if i % 2 == 0 else engines[::-1]
            for e in order:
                taken[e.name].append(e.seconds(test))
        label = "%s%d" % (test[0], test[1]) + ("@%d" % test[2] if test[0] != "batch" and test[2] else "")
        model = os.path.basename(path).replace(".gguf", "")
        best = min(names[1:], key=lambda n: statistics.median(taken[n]))
        speeds = {n: tokens / statistics.median(taken[n]) for n in names}
        cells = ["%.1f" % speeds[n] for n in names] + [ratio_text(taken[names[0]], taken[n]) for n in names[1:]]
        print("| %s | %s | %s | %s |" % (model, label, " | ".join(cells), best), flush=True)
        results.append({"model": model, "test": label, "threads": a.t, "tokens": tokens, "seconds": taken})
    for e in engines:
        e.close()


def main():
    if len(sys.argv) > 1 and sys.argv[1] == "--serve":
        return serve(sys.argv[2], sys.argv[3], *map(int, sys.argv[4:7]))
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("models", nargs="+")
    ap.add_argument("-t", type=int, default=2)
    ap.add_argument("--tests", default="pp512,tg128")
    ap.add_argument("--rounds", type=int, default=5)
    ap.add_argument("--isa", help="limit of cuanto's kernels")
    ap.add_argument("--peers", default="llama,ik,ik-repack")
    ap.add_argument("--null", action="store_true")
    ap.add_argument("--json", help="write all times there, too")
    a = ap.parse_args()
    names = ["cuanto"] + (["cuanto-again"] if a.null else []) + [n for n in a.peers.split(",") if n]
    tests, results = [parse_test(t) for t in a.tests.split(",")], []
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "unknown CPU")
    print("%s, %d threads, cuanto %s\n" % (cpu, a.t, a.isa or "strongest level"))
    print("| model | test | %s | %s | best peer |" % (" | ".join(n + " t/s" for n in names), " | ".join("over " + n for n in names[1:])))
    print("|---|---|%s---|" % ("--:|" * (2 * len(names) - 1)))
    for path in a.models:
        run_model(a, path, tests, names, results)
    if a.json:
        with open(a.json, "w") as f:
            json.dump({"cpu": cpu, "isa": a.isa, "runs": results}, f, indent=1)


if __name__ == "__main__":
    main()
