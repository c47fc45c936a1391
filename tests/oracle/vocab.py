#!/usr/bin/env python3
"""Writes GGUF files that hold nothing but a vocabulary, with the keys that llama.cpp's converter writes, for tests/oracle/tokens.py.

    pip install gguf sentencepiece protobuf
    vocab.py FOLDER OUT.gguf [--pre NAME]     a folder with tokenizer.model (SentencePiece) or tokenizer.json
    vocab.py rwkv|plamo2 OUT.gguf [--seed 1]  made up: random tokens over a small alphabet
"""
import argparse
import json
import os
import random

import gguf

NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = range(1, 7)
BYTES = {f"<0x{b:02X}>" for b in range(256)}


def writer(path, model):
    w = gguf.GGUFWriter(path, "llama")
    w.add_name("vocabulary")
    w.add_tokenizer_model(model)
    return w


def finish(w, tokens, types, scores=None):
    w.add_token_list(tokens)
    w.add_token_types(types)
    if scores is not None:
        w.add_token_scores(scores)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.close()


def from_sentencepiece(path, out):
    from sentencepiece import sentencepiece_model_pb2 as pb
    m = pb.ModelProto()
    with open(path, "rb") as f:
        m.ParseFromString(f.read())
    unigram = m.trainer_spec.model_type == 1
    kinds = {1: NORMAL, 2: UNKNOWN, 3: CONTROL, 4: USER, 5: UNUSED, 6: BYTE}
    w = writer(out, "t5" if unigram else "llama")
    w.add_add_space_prefix(m.normalizer_spec.add_dummy_prefix)
    if unigram:
        w.add_remove_extra_whitespaces(m.normalizer_spec.remove_extra_whitespaces)
        if m.normalizer_spec.precompiled_charsmap:
            w.add_precompiled_charsmap(m.normalizer_spec.precompiled_charsmap)
    names = [p.piece for p in m.pieces]
    for text, add in (("<s>", w.add_bos_token_id), ("</s>", w.add_eos_token_id), ("<unk>", w.add_unk_token_id)):
        if text in names:
            add(names.index(text))
    finish(w, names, [kinds[p.type] for p in m.pieces], [p.score for p in m.pieces])


def added(data, tokens, types):
    for t in data["added_tokens"]:
        while len(tokens) <= t["id"]:
            tokens.append(f"[PAD{len(tokens)}]")
            types.append(UNUSED)
        tokens[t["id"]] = t["content"]
        types[t["id"]] = CONTROL if t["special"] else USER


def from_json(path, out, pre):
    with open(path, encoding="utf-8") as f:
        data = json.load(f)
    model = data["model"]
    kind = model["type"]
    if kind == "Unigram":
        tokens, scores = [t for t, _ in model["vocab"]], [s for _, s in model["vocab"]]
        types = [UNKNOWN if i == model["unk_id"] else NORMAL for i in range(len(tokens))]
        added(data, tokens, types)
        types[model["unk_id"]] = UNKNOWN
        scores += [0.0] * (len(tokens) - len(scores))
        w = writer(out, "t5")
        w.add_add_space_prefix(True)
        w.add_remove_extra_whitespaces(True)
        steps = data["normalizer"].get("normalizers", [data["normalizer"]])
        for step in steps:
            if step["type"] == "Precompiled":
                import base64
                w.add_precompiled_charsmap(base64.b64decode(step["precompiled_charsmap"]))
        w.add_bos_token_id(tokens.index("<s>"))
        w.add_eos_token_id(tokens.index("</s>"))
        w.add_unk_token_id(model["unk_id"])
        w.add_add_bos_token(True)
        w.add_add_eos_token(True)
        return finish(w, tokens, types, scores)
    tokens = [None] * len(model["vocab"])
    for t, i in model["vocab"].items():
        tokens += [None] * (i + 1 - len(tokens))
        tokens[i] = t
    tokens = [t if t is not None else f"[PAD{i}]" for i, t in enumerate(tokens)]
    types = [NORMAL] * len(tokens)
    added(data, tokens, types)
    if kind == "WordPiece":
        phantom = [t if k == CONTROL else t[2:] if t.startswith("##") else "\u2581" + t for t, k in zip(tokens, types)]
        w = writer(out, "bert")
        for text, add in (("[CLS]", w.add_bos_token_id), ("[SEP]", w.add_sep_token_id), ("[UNK]", w.add_unk_token_id)):
            add(tokens.index(text))
        return finish(w, phantom, types)
    byte_fallback = model.get("byte_fallback", False)
    if byte_fallback:
        types = [BYTE if t in BYTES else k for t, k in zip(tokens, types)]
    w = writer(out, "gemma4" if byte_fallback else "gpt2")
    if not byte_fallback:
        w.add_tokenizer_pre(pre)
    w.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in model["merges"]])
    for text in ("<bos>", "<s>", "<|begin_of_text|>", "<\uff5cbegin\u2581of\u2581sentence\uff5c>", "<|endoftext|>"):
        if text in tokens:
            w.add_bos_token_id(tokens.index(text))
            break
    for text in ("<eos>", "</s>", "<|end_of_text|>", "<\uff5cend\u2581of\u2581sentence\uff5c>", "<|endoftext|>"):
        if text in tokens:
            w.add_eos_token_id(tokens.index(text))
            break
    finish(w, tokens, types)


def made_up(kind, out, seed):
    rnd = random.Random(seed)
    letters = list("abcdeABC 0123\n\t.'é字あ😀") + ["th", "  ", "ing"]
    texts = {"".join(rnd.choice(letters) for _ in range(rnd.randint(1, 6))) for _ in range(3000)} | set("abcdeABC 01\n")
    texts = sorted(texts)
    w = writer(out, kind)
    if kind == "rwkv":
        raws = [bytes([b]) for b in range(256)] + [t.encode() for t in texts if len(t.encode()) > 1] + ["字".encode()[:2], b"\xff\xfe"]
        tokens = ["<s>"] + [repr(r)[2:-1] if r"\\" not in repr(r) else repr(r)[2:-1] for r in dict.fromkeys(raws)]
        return finish(w, tokens, [CONTROL] + [NORMAL] * (len(tokens) - 1))
    tokens = ["<|plamo:unk|>", "<|plamo:bos|>", "<|plamo:eos|>", "<|plamo:pad|>"] + sorted(BYTES) + texts
    types = [UNKNOWN, CONTROL, CONTROL, CONTROL] + [BYTE] * 256 + [NORMAL] * len(texts)
    scores = [0.0] * 260 + [-float(rnd.randint(1, 40)) / 4 for _ in texts]
    finish(w, tokens, types, scores)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("source")
    p.add_argument("out")
    p.add_argument("--pre", default="default")
    p.add_argument("--seed", type=int, default=1)
    args = p.parse_args()
    if args.source in ("rwkv", "plamo2"):
        made_up(args.source, args.out, args.seed)
    elif os.path.exists(os.path.join(args.source, "tokenizer.model")) and not os.path.exists(os.path.join(args.source, "tokenizer.json")):
        from_sentencepiece(os.path.join(args.source, "tokenizer.model"), args.out)
    else:
        from_json(os.path.join(args.source, "tokenizer.json"), args.out, args.pre)


if __name__ == "__main__":
    main()
