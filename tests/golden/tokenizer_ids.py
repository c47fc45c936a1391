#!/usr/bin/env python3
"""Writes tests/golden/tokenizer_ids.txt: the ids that llama.cpp gives for texts in the small vocabularies of tests/fuzz/corpus/tokenizer.

    pip install llama-cpp-python       (0.3.36 was used)
    python3 tests/golden/tokenizer_corpus.py
    python3 tests/golden/tokenizer_ids.py > tests/golden/tokenizer_ids.txt       from the repository root

Format: a line "vocabulary NAME", then lines "HEX FLAGS id id ...": text, the ENCODE_ flags of src/tokenizer.h, ids.
"""
import random
import struct
import sys
import tempfile

sys.path.insert(0, "tests/oracle")
import tokens as oracle

NAMES = "bert bert_cased t5 t5_plain rwkv plamo2 gemma4 sarvam whitespace bpe_deepseek_llm bpe_deepseek_v3 bpe_superbpe bpe_tiny_aya bpe_chameleon".split()
LETTERS = list("aaabbbccdeA  .'1") + ["ab", "é", "e\u0301", "字", "\n", "\n\n", "ﬁ", "Ａ", "<u>", "<x", "<x>", "\u3000", "①", "😀", "▁", "\t", "!", "한", "ﬂ", "[MASK]"]


def vocabulary(name):
    with open("tests/fuzz/corpus/tokenizer/" + name, "rb") as f:
        n, = struct.unpack("<I", f.read(4))
        return f.read(n)


def main():
    rnd = random.Random(3)
    texts = ["", " ", "ab", " ab ", "  ab  c", "aaaaaaaaaa", "\n\n\n\n", "x y", "l'Été [a] un-affable", "İſK Ǆ", "\ufeffab", "abc<u>  abc", "\x00a\x01", "字字字", "</s>"]
    texts += ["".join(rnd.choice(LETTERS) for _ in range(rnd.randint(2, 14))) for _ in range(24)]
    for name in NAMES:
        print("vocabulary", name)
        with tempfile.NamedTemporaryFile(suffix=".gguf") as f:
            f.write(vocabulary(name))
            f.flush()
            o = oracle.Oracle(f.name)
            for text in texts:
                for flags in (0, 3):
                    print(text.encode().hex() or "-", flags, *o.ids(text, bool(flags & oracle.BOS), bool(flags & oracle.SPECIAL)))


if __name__ == "__main__":
    main()
