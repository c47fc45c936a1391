#!/usr/bin/env python3
"""Speed side by side with llama.cpp: same file, same machine, one run, interleaved pairs (A B B A ...), median of the pairs' ratios with their range.

    CMAKE_ARGS=-DGGML_NATIVE=ON pip install llama-cpp-python
    speed.py MODEL.gguf... [-t 2] [--pairs 5] [--prompt 512] [--gen 128] [--null]

Tests as llama-bench defines them: pp = one prompt of random tokens in an empty context, tg = single tokens, no sampling; each process warms up once.
--null compares cuanto with itself: the spread below which a ratio says nothing.
"""
import argparse
import ctypes
import json
import os
import statistics
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CUANTO = os.path.join(ROOT, "build", "release", "cuanto")


def peer_main(path, threads, n_prompt, n_gen):
    import llama_cpp.llama_cpp as api
    log = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *a: None)
    api.llama_log_set(log, None)
    api.llama_backend_init()
    mp = api.llama_model_default_params()
    mp.n_gpu_layers = 0
    model = api.llama_model_load_from_file(os.fsencode(path), mp)
    n_vocab = api.llama_vocab_n_tokens(api.llama_model_get_vocab(model))
    cp = api.llama_context_default_params()
    cp.n_ctx, cp.n_batch, cp.n_ubatch = max(n_prompt, n_gen) + 64, 2048, 512
    cp.n_threads = cp.n_threads_batch = threads
    cp.flash_attn_type = 1
    ctx = api.llama_init_from_model(model, cp)
    batch = api.llama_batch_init(2048, 0, 1)
    ids, x = [], 1
    for _ in range(max(n_prompt, n_gen, 1)):
        x = (x * 6364136223846793005 + 1442695040888963407) % 2**64
        ids.append((x >> 33) % n_vocab)

    def decode(tokens, at):
        batch.n_tokens = len(tokens)
        for i, t in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = t, at + i, 1, 0, 0
        batch.logits[len(tokens) - 1] = 1
        assert api.llama_decode(ctx, batch) == 0

    def run(tokens, step):
        api.llama_memory_clear(api.llama_get_memory(ctx), True)
        t0 = time.perf_counter()
        for i in range(0, len(tokens), step):
            decode(tokens[i:i + step], i)
        return len(tokens) / (time.perf_counter() - t0)

    out = {}
    if n_prompt:
        run(ids[:n_prompt], n_prompt)
        out["pp%d" % n_prompt] = run(ids[:n_prompt], n_prompt)
    if n_gen:
        run(ids[:1], 1)
        out["tg%d" % n_gen] = run(ids[:n_gen], 1)
    print(json.dumps(out))


def peer(a, path):
    out = subprocess.run([sys.executable, os.path.abspath(__file__), path, "--peer", "-t", str(a.t), "--prompt", str(a.prompt), "--gen", str(a.gen)],
                         capture_output=True, check=True)
    return json.loads(out.stdout.splitlines()[-1])


def cuanto(a, path):
    out = subprocess.run([CUANTO, "bench", path, "-p", str(a.prompt), "-n", str(a.gen), "-r", "1", "-t", str(a.t), "--no-limits", "--json", "-q"],
                         capture_output=True, check=True)
    rows = json.loads(out.stdout)
    return {("pp%d" % r["n_prompt"] if r["n_prompt"] else "tg%d" % r["n_gen"]): r["avg_ts"] for r in rows}


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("models", nargs="+")
    ap.add_argument("-t", type=int, default=2)
    ap.add_argument("--pairs", type=int, default=5)
    ap.add_argument("--prompt", type=int, default=512)
    ap.add_argument("--gen", type=int, default=128)
    ap.add_argument("--null", action="store_true")
    ap.add_argument("--peer", action="store_true", help=argparse.SUPPRESS)
    a = ap.parse_args()
    if a.peer:
        return peer_main(a.models[0], a.t, a.prompt, a.gen)
    other = cuanto if a.null else peer
    print("| model | test | cuanto t/s | %s t/s | ratio, median [range] of %d pairs |\n|---|---|--:|--:|--:|" % ("cuanto" if a.null else "llama.cpp", a.pairs))
    for path in a.models:
        ours, theirs = [], []
        for i in range(a.pairs):
            for who in ("ab" if i % 2 == 0 else "ba"):
                (ours if who == "a" else theirs).append((cuanto if who == "a" else other)(a, path))
        for test in ours[0]:
            x, y = [r[test] for r in ours], [r[test] for r in theirs]
            ratios = [p / q for p, q in zip(x, y)]
            print("| %s | %s | %.1f | %.1f | %.2f [%.2f..%.2f] |" % (os.path.basename(path).replace(".gguf", ""), test, statistics.median(x), statistics.median(y),
                                                                 statistics.median(ratios), min(ratios), max(ratios)), flush=True)


if __name__ == "__main__":
    main()
