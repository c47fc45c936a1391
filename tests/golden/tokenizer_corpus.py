#!/usr/bin/env python3
"""Writes the seeds of tests/fuzz/fuzz_tokenizer.c: small vocabularies of every kind with a text, {u32 n, GGUF of n bytes, text}.

The vocabularies of the newer kinds serve tests/golden/tokenizer_ids.py as well.

Run from the repository root: python3 tests/golden/tokenizer_corpus.py
"""
import os
import struct

STR, ARR, U32, I32, F32, BOOL, U8 = 8, 9, 4, 5, 6, 7, 0
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
    if isinstance(v, bytes):
        return ARR, struct.pack("<IQ", U8, len(v)) + v
    kind = value(v[0])[0] if v else STR
    return ARR, struct.pack("<IQ", kind, len(v)) + b"".join(value(x)[1] for x in v)


def full(key):
    return key if key.startswith("general.") else "tokenizer.ggml." + key


def write(name, keys, body):
    kv = b"".join(text(full(k)) + struct.pack("<I", U32 if type(v) is int else value(v)[0]) + value(v)[1] for k, v in keys.items())
    file = b"GGUF" + struct.pack("<IQQ", 3, 0, len(keys)) + kv
    os.makedirs("tests/fuzz/corpus/tokenizer", exist_ok=True)
    with open(f"tests/fuzz/corpus/tokenizer/{name}", "wb") as f:
        f.write(struct.pack("<I", len(file)) + file + body.encode())


def bpe(name, pre, body, **more):
    letters = list("abcdeĠ.'1") + ["ab", "Ġab", "abab", "cd", "<|im_end|>", "<x", "<x>", "  ", ""]
    types = [NORMAL] * 13 + [CONTROL, USER, CONTROL, USER, UNUSED]
    keys = {"general.architecture": "llama", "model": "gpt2", "tokens": letters, "token_type": types, "merges": ["a b", "Ġ ab", "ab ab", "c d", "d e"], "eos_token_id": 13, "bos_token_id": 1}
    write(name, {**({"pre": pre} if pre else {}), **keys, **more}, body)


def spm(name, body, **more):
    tokens = ["<unk>", "<s>", "</s>"] + ["<0x%02X>" % b for b in (0x0A, 0x41, 0xE2)] + ["▁", "a", "b", "▁a", "ab", "▁ab", "a▁", "▁▁", "\n\n", "<u>"]
    types = [UNKNOWN, CONTROL, CONTROL] + [BYTE] * 3 + [NORMAL] * 8 + [USER, USER]
    keys = {"model": "llama", "tokens": tokens, "token_type": types, "scores": [-float(i % 7) for i in range(len(tokens))], "unknown_token_id": 0}
    write(name, {**keys, **more}, body)


def charsmap(rules):
    """A double array with a row of 256 units per node: children of the node at i stand at i ^ d ^ byte, its value at i ^ d."""
    nodes = [{}]
    values = [None]
    for key in rules:
        at = 0
        for b in key.encode():
            if b not in nodes[at]:
                nodes.append({})
                values.append(None)
                nodes[at][b] = len(nodes) - 1
            at = nodes[at][b]
        values[at] = rules[key]
    texts, units = b"", [0] * (256 * (len(nodes) + 1))
    row = {n: 256 * (n + 1) for n in range(len(nodes))}
    place = {0: 0}
    for n, children in enumerate(nodes):
        for b, child in children.items():
            place[child] = row[n] ^ b
    for n in range(len(nodes)):
        at = place[n]
        units[at] |= (at ^ row[n]) << 10
        if values[n] is not None:
            units[at] |= 1 << 8
            units[row[n]] = 1 << 31 | len(texts)
            texts += values[n].encode() + b"\0"
    for n, children in enumerate(nodes):
        for b, child in children.items():
            units[place[child]] |= b
    return struct.pack("<I", 4 * len(units)) + struct.pack(f"<{len(units)}I", *units) + texts


def model(name, kind, tokens, types, body, **more):
    write(name, {"general.architecture": "llama", "model": kind, "tokens": tokens, "token_type": types, **more}, body)


def bert(name, body, **more):
    tokens = ["[UNK]", "[CLS]", "[SEP]", "[MASK]"] + ["▁" + t for t in "a b ab abc é e l'été ! . [ ] ' - 字 中 ά α ㄱ ᄀ 12 un".split()] + "a b c bc é e ab 2 字 aff able ▁".split()
    model(name, "bert", tokens, [UNKNOWN, CONTROL, CONTROL, CONTROL] + [NORMAL] * (len(tokens) - 4), body, bos_token_id=1, seperator_token_id=2, unknown_token_id=0, **more)


def t5(name, body, **more):
    tokens = ["<pad>", "</s>", "<unk>", "<u>", "▁"] + list("abcdeAé字.1") + ["▁a", "ab", "▁ab", "abc", "bc", "▁▁", "c▁", "字字", "fi", "▁fi", "a" * 8, "x", "<x>"]
    types = [CONTROL, CONTROL, UNKNOWN, USER] + [NORMAL] * (len(tokens) - 6) + [UNUSED, USER]
    scores = [0.0, 0.0, 0.0, -1.0] + [-1.0 - (i * 37 % 23) / 4 for i in range(len(tokens) - 4)]
    model(name, "t5", tokens, types, body, scores=scores, **more)


def rwkv(name, body):
    tokens = ["<s>"] + [repr(bytes([b]))[2:-1] for b in range(256) if b != 1] + ["ab", "abc", "abcde", "\\n\\n", "\\x00a", "\\xe5\\xad", "\\\\t", "  ", " a", "字"]
    model(name, "rwkv", tokens, [CONTROL] + [NORMAL] * (len(tokens) - 1), body, unknown_token_id=0)


def plamo(name, body):
    tokens = ["<|plamo:unk|>", "<|plamo:bos|>", "<|plamo:eos|>", "<|plamo:pad|>"] + ["<0x%02X>" % b for b in range(256)] + ["</s>"] + list("abc é字") + ["ab", "bc", "abc", "字a", " a", "aaaa", "é字"]
    types = [UNKNOWN, CONTROL, CONTROL, CONTROL] + [BYTE] * 256 + [NORMAL] * (len(tokens) - 260)
    model(name, "plamo2", tokens, types, body, scores=[0.0] * 260 + [-1.0 - (i * 29 % 17) / 4 for i in range(len(tokens) - 260)])


def gemma(name, kind, body, **more):
    tokens = ["<pad>", "<eos>", "<bos>", "<u>"] + ["<0x%02X>" % b for b in (0x0A, 0x41, 0xC3, 0xA9, 0x20)] + list("▁abcé字\n") + ["\n\n", "\n\n\n", "ab", "▁a", "▁ab", "▁▁", "b▁", "字字", "abc"]
    types = [CONTROL] * 3 + [USER] + [BYTE] * 5 + [NORMAL] * (len(tokens) - 9)
    merges = ["a b", "▁ ab", "▁ a", "▁ ▁", "b ▁", "字 字", "ab c"]
    model(name, kind, tokens, types, body, merges=merges, bos_token_id=2, eos_token_id=1, **more)


TEXT = "abab ab'd 12 <|im_end|> <x><x  cde. é😀\n\n\r\n  \t ab"
bpe("bpe_default", None, TEXT)
bpe("bpe_llama", "llama-bpe", TEXT, add_bos_token=True, add_eos_token=True)
bpe("bpe_qwen", "qwen2", "ab" * 80)
bpe("bpe_tekken", "tekken", "aB Ab/ab\n" + TEXT)
bpe("bpe_phi", "gpt-2", "<x>   ab<x>\n", **{"general.name": "phi-3"})
spm("spm", "ab a<u>b\n\n" + TEXT)
spm("spm_plain", "<s>ab</s>  a▁b", add_space_prefix=False, add_eos_token=True)
for pre in "deepseek-llm deepseek-v3 superbpe tiny_aya chameleon kimi-k2".split():
    bpe("bpe_" + pre.replace("-", "_"), pre, TEXT)
bert("bert", "[CLS] Été l'été AFFABLE 字ab[MASK]\t\x00é" + TEXT)
bert("bert_cased", "Unaffable É. " + TEXT, **{"normalizer.lowercase": False})
t5("t5", "ab  ﬁ Ａab c<u> 字<ex" + TEXT, precompiled_charsmap=charsmap({"ﬁ": "fi", "Ａ": "a", "e\u0301": "é", "\u3000": " ", "\t": " ", "①": "1", "ﬂ": "", "ab": "ab"}),
   add_space_prefix=True, remove_extra_whitespaces=True)
t5("t5_plain", "ab  字x<x>aaaaaaaaa" + TEXT, add_eos_token=False)
rwkv("rwkv", "abcdeabcd\n\n字\\t" + TEXT)
plamo("plamo2", "\ufeffabc 字aé😀" + TEXT)
gemma("gemma4", "gemma4", "ab  ab\n\n\n a<u>b \n" + TEXT)
gemma("sarvam", "gpt2", "ab  ab\n\n\n a<u>b \n" + TEXT, pre="sarvam-moe")
gemma("whitespace", "whitespace", "AB abc\n字字 " + TEXT, pre="whitespace", **{"normalizer.lowercase": True})
