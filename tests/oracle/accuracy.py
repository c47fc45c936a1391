#!/usr/bin/env python3
"""How far engines are from exact arithmetic on the same weights.

    pip install llama-cpp-python numpy gguf;  make oracle
    accuracy.py MODEL.gguf TEXT [--f32 TWIN.gguf] [--logits build/release/logits] [--tokens 2048] [--window 512]

The reference is llama.cpp on the F32 twin of the file (dequantize.py) with F32 KV cache and no flash attention. Prints mean KL(reference || engine),
top-1 agreement and perplexity for llama.cpp (its defaults) and for cuanto, in passes of a window (as run computes a prompt, and with
--precise) and (--decode) token by token.
Without --f32 cuanto is compared with llama.cpp on the file itself.
"""
import argparse
import ctypes
import json
import os
import subprocess
import tempfile

import llama_cpp.llama_cpp as api
import numpy as np

LOG = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *a: None)


class Llama:
    def __init__(self, path, n_ctx, exact, threads=2):
        api.llama_log_set(LOG, None)
        api.llama_backend_init()
        mp = api.llama_model_default_params()
        mp.n_gpu_layers = 0
        self.model = api.llama_model_load_from_file(os.fsencode(path), mp)
        self.vocab = api.llama_model_get_vocab(self.model)
        self.n_vocab = api.llama_vocab_n_tokens(self.vocab)
        cp = api.llama_context_default_params()
        cp.n_ctx, cp.n_batch, cp.n_ubatch = n_ctx, n_ctx, n_ctx
        cp.n_threads = cp.n_threads_batch = threads
        if exact:
            cp.type_k = cp.type_v = 0
            cp.flash_attn_type = 0
        self.ctx = api.llama_init_from_model(self.model, cp)
        self.batch = api.llama_batch_init(n_ctx, 0, 1)

    def tokenize(self, text):
        raw = text.encode()
        out = (ctypes.c_int32 * (len(raw) + 16))()
        n = api.llama_tokenize(self.vocab, raw, len(raw), out, len(raw) + 16, True, False)
        return list(out[:n])

    def window(self, ids):
        api.llama_memory_clear(api.llama_get_memory(self.ctx), True)
        b = self.batch
        b.n_tokens = len(ids)
        for i, t in enumerate(ids):
            b.token[i], b.pos[i], b.n_seq_id[i], b.seq_id[i][0], b.logits[i] = t, i, 1, 0, 1
        assert api.llama_decode(self.ctx, b) == 0
        return np.stack([np.ctypeslib.as_array(api.llama_get_logits_ith(self.ctx, i), (self.n_vocab,)).copy() for i in range(len(ids))])

    def decode(self, ids):
        api.llama_memory_clear(api.llama_get_memory(self.ctx), True)
        rows, b = [], self.batch
        for i, t in enumerate(ids):
            b.n_tokens = 1
            b.token[0], b.pos[0], b.n_seq_id[0], b.seq_id[0][0], b.logits[0] = t, i, 1, 0, 1
            assert api.llama_decode(self.ctx, b) == 0
            rows.append(np.ctypeslib.as_array(api.llama_get_logits_ith(self.ctx, 0), (self.n_vocab,)).copy())
        return np.stack(rows)

    def close(self):
        api.llama_free(self.ctx)
        api.llama_model_free(self.model)


def log_softmax(x):
    x = x.astype(np.float64)
    x -= x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


class Score:
    """KL, agreement and perplexity against reference rows; position 0 of a window has no context and is left out."""

    def __init__(self):
        self.kl, self.top, self.nll, self.ref_nll = [], [], [], []

    def add(self, ref, got, ids):
        p, q = log_softmax(ref), log_softmax(got)
        self.kl += list((np.exp(p) * (p - q)).sum(-1)[1:])
        self.top += list((p.argmax(-1) == q.argmax(-1))[1:])
        self.nll += [-q[i, ids[i + 1]] for i in range(len(ids) - 1)]
        self.ref_nll += [-p[i, ids[i + 1]] for i in range(len(ids) - 1)]

    def result(self):
        ppl, ref = np.exp(np.mean(self.nll)), np.exp(np.mean(self.ref_nll))
        return {"mean_kl": float(np.mean(self.kl)), "kl_stderr": float(np.std(self.kl) / len(self.kl) ** 0.5), "top1": float(np.mean(self.top)),
                "ppl": float(ppl), "ref_ppl": float(ref), "ppl_diff_percent": float((ppl / ref - 1) * 100), "n": len(self.kl)}


def cuanto(binary, model, ids, window, n_vocab, mode):
    with tempfile.TemporaryDirectory() as d:
        np.array(ids, np.int32).tofile(d + "/t")
        subprocess.run([binary, model, d + "/t", d + "/l", str(window)] + mode, check=True)
        return np.fromfile(d + "/l", np.float32).reshape(len(ids), n_vocab)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("model")
    ap.add_argument("text")
    ap.add_argument("--f32")
    ap.add_argument("--logits", default="build/release/logits")
    ap.add_argument("--tokens", type=int, default=2048)
    ap.add_argument("--window", type=int, default=512)
    ap.add_argument("--decode", action="store_true")
    a = ap.parse_args()
    peer = Llama(a.model, a.window, False)
    ids = peer.tokenize(open(a.text, encoding="utf-8").read())[: a.tokens]
    assert len(ids) == a.tokens, "text is too short"
    exact = Llama(a.f32, a.window, True) if a.f32 else peer
    scores = {"llama.cpp": Score(), "cuanto": Score(), "cuanto --precise": Score()}
    if a.decode:
        scores.update({"llama.cpp decode": Score(), "cuanto decode": Score()})
    for at in range(0, a.tokens, a.window):
        w = ids[at: at + a.window]
        ref = exact.window(w)
        if a.f32:
            scores["llama.cpp"].add(ref, peer.window(w), w)
        scores["cuanto"].add(ref, cuanto(a.logits, a.model, w, a.window, peer.n_vocab, []), w)
        scores["cuanto --precise"].add(ref, cuanto(a.logits, a.model, w, a.window, peer.n_vocab, ["precise"]), w)
        if a.decode:
            if a.f32:
                scores["llama.cpp decode"].add(ref, peer.decode(w), w)
            scores["cuanto decode"].add(ref, cuanto(a.logits, a.model, w, a.window, peer.n_vocab, ["decode"]), w)
    print(json.dumps({"model": os.path.basename(a.model), **{k: s.result() for k, s in scores.items() if s.kl}}, indent=1))


if __name__ == "__main__":
    main()
