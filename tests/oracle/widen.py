#!/usr/bin/env python3
"""The same model with a wider residual stream: zeros behind each state, so that rows of matrices are whole blocks of 256.

    pip install gguf numpy
    widen.py IN.gguf OUT.gguf      F16 or F32; llama, qwen2, gemma3

Why: rows of small models (SmolLM2 135M: 576, Gemma 3 270M: 640, Qwen2.5 0.5B: 896) fit no K or IQ format, which is what most files are made of; widened, such
a model can be solved in all of them in minutes. The result computes what IN does (KL 0.0000 by `cuanto compare`): weights that meet or make the new
elements are zeros; norms divide by the root of a mean over more elements, so their weights and epsilon shrink; heads that are missing to a
multiple of 256 come in whole groups: queries, keys and values of zeros. A quarter of SmolLM2's new columns is dead: files of both sides carry it alike.
"""
import math
import re
import sys

import gguf
import numpy as np

from dequantize import finish, twin

BLOCK = 256


def whole(n):
    return (n + BLOCK - 1) // BLOCK * BLOCK


class Shape:
    """Old and new sizes of a model."""

    def __init__(self, reader):
        def get(key, other=None):
            field = reader.fields.get("%s.%s" % (self.arch, key))
            return field.contents() if field else other

        self.arch = reader.fields["general.architecture"].contents()
        if self.arch not in ("llama", "qwen2", "gemma3"):
            sys.exit("no way known to widen " + self.arch)
        self.n = get("embedding_length")
        self.wide = whole(self.n)
        self.q, self.kv = get("attention.head_count"), get("attention.head_count_kv")
        self.head = get("attention.key_length", self.n // self.q)
        self.epsilon = get("attention.layer_norm_rms_epsilon")
        self.had_head = get("attention.key_length") is not None
        self.new_q, self.new_kv = self.q, self.kv
        while self.new_q * self.head % BLOCK:  # with values of their own: zero heads on old values would see their mean, which a solver can use
            self.new_q, self.new_kv = self.new_q + self.q // self.kv, self.new_kv + 1

    def keys(self):
        a = self.arch
        return {a + ".embedding_length": self.wide, a + ".attention.head_count": self.new_q, a + ".attention.head_count_kv": self.new_kv,
                a + ".attention.layer_norm_rms_epsilon": self.epsilon * self.n / self.wide}


def rows(x, n):
    return np.pad(x, ((0, n - x.shape[0]),) + ((0, 0),) * (x.ndim - 1))


def columns(x, n):
    return np.pad(x, ((0, 0), (0, n - x.shape[1]))) if x.ndim == 2 else x


def widened(s, name, x):
    shrink = math.sqrt(s.n / s.wide)
    embedded = shrink if s.arch == "gemma3" else 1.0  # its engine multiplies embeddings by the root of the width
    if re.search(r"norm\.weight$", name) and x.shape == (s.n,):
        return rows(x * np.float32(shrink / (embedded if name == "output_norm.weight" else 1)), s.wide)
    if name == "token_embd.weight":
        return columns((x.astype(np.float32) * np.float32(embedded)).astype(x.dtype), s.wide)
    if re.search(r"attn_q\.(weight|bias)$", name):
        return columns(rows(x, s.new_q * s.head), s.wide)
    if re.search(r"attn_[kv]\.(weight|bias)$", name):
        return columns(rows(x, s.new_kv * s.head), s.wide)
    if name.endswith("attn_output.weight"):
        return rows(columns(x, s.new_q * s.head), s.wide)
    if name.endswith("ffn_down.weight"):
        return rows(x, s.wide)
    if re.search(r"(ffn_gate|ffn_up|^output)\.weight$", name):
        return columns(x, s.wide)
    if re.search(r"attn_[qk]_norm\.weight$|^rope_freqs\.weight$", name):
        return x
    sys.exit("no way known to widen " + name)


def main(src, dst):
    r = gguf.GGUFReader(src)
    s = Shape(r)
    w = twin(r, dst, r.fields["general.file_type"].contents(), s.keys())
    if not s.had_head:
        w.add_key_length(s.head)
        w.add_value_length(s.head)
    for t in r.tensors:
        if t.tensor_type not in (gguf.GGMLQuantizationType.F16, gguf.GGMLQuantizationType.F32):
            sys.exit("%s is %s, not F16 or F32" % (t.name, t.tensor_type.name))
        x = np.array(t.data).reshape([int(n) for n in reversed(t.shape)])
        w.add_tensor(t.name, np.ascontiguousarray(widened(s, t.name, x)))
    finish(w)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
