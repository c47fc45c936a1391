#!/usr/bin/env python3
"""Writes the seeds of tests/fuzz/fuzz_tokenizer.c: small vocabularies of both kinds with a text, {u32 n, GGUF of n bytes, text}.

Run from the repository root: python3 tests/golden/tokenizer_corpus.py
"""
import os
import struct

STR, ARR, I32, F32, BOOL = 8, 9, 5, 6, 7
NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = range(1, 7)


def text(s):
    raw = s.encode()
    return struct.pack("<Q", len(raw)) + raw


def value(v):
    if isinstance(v, bool):
        return BOOL, struct.pack("<B", v)
    if isinstance(v, int):
        return I32, struct.pack("<i", v)
    if isinstance(v, float):
        return F32, struct.pack("<f", v)
    if isinstance(v, str):
        return STR, text(v)
    kind = value(v[0])[0] if v else STR
    return ARR, struct.pack("<IQ", kind, len(v)) + b"".join(value(x)[1] for x in v)


def write(name, keys, body):
    kv = b"".join(text(k if "." in k else "tokenizer.ggml." + k) + struct.pack("<I", value(v)[0]) + value(v)[1] for k, v in keys.items())
    file = b"GGUF" + struct.pack("<IQQ", 3, 0, len(keys)) + kv
    os.makedirs("tests/fuzz/corpus/tokenizer", exist_ok=True)
    with open(f"tests/fuzz/corpus/tokenizer/{name}", "wb") as f:
        f.write(struct.pack("<I", len(file)) + file + body.encode())


def bpe(name, pre, body, **more):
    letters = list("abcdeĠ.'1") + ["ab", "Ġab", "abab", "cd", "<|im_end|>", "<x", "<x>", "  ", ""]
    types = [NORMAL] * 13 + [CONTROL, USER, CONTROL, USER, UNUSED]
    keys = {"model": "gpt2", "tokens": letters, "token_type": types, "merges": ["a b", "Ġ ab", "ab ab", "c d", "d e"], "eos_token_id": 13, "bos_token_id": 1}
    write(name, {**({"pre": pre} if pre else {}), **keys, **more}, body)


def spm(name, body, **more):
    tokens = ["<unk>", "<s>", "</s>"] + ["<0x%02X>" % b for b in (0x0A, 0x41, 0xE2)] + ["▁", "a", "b", "▁a", "ab", "▁ab", "a▁", "▁▁", "\n\n", "<u>"]
    types = [UNKNOWN, CONTROL, CONTROL] + [BYTE] * 3 + [NORMAL] * 8 + [USER, USER]
    keys = {"model": "llama", "tokens": tokens, "token_type": types, "scores": [-float(i % 7) for i in range(len(tokens))], "unknown_token_id": 0}
    write(name, {**keys, **more}, body)


TEXT = "abab ab'd 12 <|im_end|> <x><x  cde. é😀\n\n\r\n  \t ab"
bpe("bpe_default", None, TEXT)
bpe("bpe_llama", "llama-bpe", TEXT, add_bos_token=True, add_eos_token=True)
bpe("bpe_qwen", "qwen2", "ab" * 80)
bpe("bpe_tekken", "tekken", "aB Ab/ab\n" + TEXT)
bpe("bpe_phi", "gpt-2", "<x>   ab<x>\n", **{"general.name": "phi-3"})
spm("spm", "ab a<u>b\n\n" + TEXT)
spm("spm_plain", "<s>ab</s>  a▁b", add_space_prefix=False, add_eos_token=True)
