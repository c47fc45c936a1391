#!/usr/bin/env python3
"""Writes tests/golden/tokenizer_splits.txt: how the regular expressions of pre-tokenizers cut the texts of tests/oracle/tokens.py.

Needs `pip install regex` (2026.11.19 was used; the texts hold no character newer than Unicode 15.1).
Run from the repository root: python3 tests/golden/tokenizer_splits.py > tests/golden/tokenizer_splits.txt

Format: a line "text HEX" and, for each pre-tokenizer, a line "NAME n n n ..." with the bytes of the pieces.
"""
import ast

import regex

C = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
S = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
W = r"[^\r\n\p{L}\p{N}]?\p{L}+"
G = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
S35 = r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
X, U, L = r"[^\r\n\p{L}\p{N}]?", r"(?:(?=\p{L})[^a-z])", r"(?:(?=\p{L})[^A-Z])"
SLASH = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
RULES = {
    "default": [r"[\p{P}\$\+<=>\^~\|]+", G, r"\p{N}+", "[0-9][0-9][0-9]"],
    "falcon": [r"[\p{P}\$\+<=>\^~\|`]+", G, "[0-9][0-9][0-9]"],
    "gpt-2": [G],
    "smollm": [r"\p{N}", G],
    "llama-bpe": [C + "|" + W + r"|\p{N}{1,3}" + S],
    "qwen2": [C + "|" + W + r"|\p{N}" + S],
    "qwen35": [C + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}" + S35],
    "ufakzeka": [W + r"|\p{N}" + S],
    "gpt-4o": [f"{X}{U}*{L}+{C}?|{X}{U}+{L}*{C}?|" + r"\p{N}{1,3}" + SLASH],
    "tekken": [f"{X}{U}*{L}+|{X}{U}+{L}*|" + r"\p{N}" + SLASH],
}


def split(pieces, pattern):
    pattern = regex.compile(pattern.replace(r"\s", r"\p{White_Space}").replace(r"\S", r"\P{White_Space}"))
    for piece in pieces:
        at = 0
        for m in pattern.finditer(piece):
            if m.start() > at:
                yield piece[at:m.start()]
            yield m.group()
            at = m.end()
        if at < len(piece):
            yield piece[at:]


def tricky():
    """TRICKY of tests/oracle/tokens.py, read without importing what that script needs."""
    with open("tests/oracle/tokens.py", encoding="utf-8") as f:
        body = ast.parse(f.read()).body
    node = next(n for n in body if isinstance(n, ast.Assign) and getattr(n.targets[0], "id", "") == "TRICKY")
    return eval(compile(ast.Expression(node.value), "TRICKY", "eval"))


for text in tricky():
    text = text[:120]
    if not text:
        continue
    print("text", text.encode().hex())
    for name, patterns in RULES.items():
        pieces = [text]
        for p in patterns:
            pieces = list(split(pieces, p))
        assert "".join(pieces) == text
        print(name, *[len(p.encode()) for p in pieces])
