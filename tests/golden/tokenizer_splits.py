#!/usr/bin/env python3
"""Writes tests/golden/tokenizer_splits.txt: how the regular expressions of pre-tokenizers cut the texts of tests/oracle/tokens.py.

Needs `pip install regex` (2026.11.19 was used; the texts hold no character newer than Unicode 15.1).
Run from the repository root: python3 tests/golden/tokenizer_splits.py > tests/golden/tokenizer_splits.txt

Format: a line "names NAME NAME ..."; then for each text a line "text HEX" and lines "NAME,NAME,... n n n ..." with the bytes of the pieces, one
for the pre-tokenizers that cut alike; the last says "others" and speaks for all that were not named.

Of GROUPED and HAN the expressions follow what llama.cpp does, which is not what the model's own one says.
"""
import ast

import regex

C = r"(?:'[sS\u017f]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
S = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
W = r"[^\r\n\p{L}\p{N}]?\p{L}+"
G = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
S35 = r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
X, U, L = r"[^\r\n\p{L}\p{N}]?", r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
SLASH = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
E = r"|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+"
J = "".join(r"|\s{%d}(?!\S)" % n for n in (512, 256, 128, 64, 32, 16, 8, 4)) + r"|\s{1,2}(?!\S)|\s"
WORD = f"{X}{U}*{L}+{C}?|{X}{U}+{L}*{C}?|"
GROUPED = r"(?<=\p{N})(?=(?:\p{N}{3})*(?!\p{N}))"
HAN = "\u4e00-\u9fff\u3400-\u4dbf\U00020000-\U0002a6df\U0002a700-\U0002ebef\uf900-\ufaff\U0002f800-\U0002fa1f"
KANA = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
OLD_CJK = "(?:(?!\\s)[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff])+"
MARKED = r"[!-/:-@\[-`{-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+"
YOUTU = ("[\uac00-\ud7a3\u3131-\u318e]+|[\uff01\u2026\u201c\u201d\u2018\u2019\u2014\uff1a\uff1b\uff0c\u3001-\u303f\ufe30-\ufe4f]+|[\u3105-\u312f]+|" + KANA)
AFMOE = ("[\u4e00-\u9fff\u3400-\u4dbf\u8c48-\ufaff\u3040-\u309f\u30a0-\u30ff\uff65-\uff9f\u2f00-\u2fdf\u0e40-\u0e7f\u0e80-\u0eff\u1780-\u17ff\u1000-\u109f"
         "\u1100-\u11ff]+")
BLOOM = " ?[^(\\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+"
CASED = ("A-Za-z\xb5\xc0-\xd6\xd8-\xf6\xf8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373\u0376\u0377\u037b-\u037d\u037f\u0386"
         "\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba"
         "\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d"
         "\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc"
         "\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184"
         "\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf"
         "\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-\U00010cb2"
         "\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943")
RULES = {
    "default": [r"[\p{P}\$\+<=>\^~\|]+", G, r"\p{N}+", "[0-9][0-9][0-9]"],
    "falcon": [r"[\p{P}\$\+<=>\^~\|`]+", G, "[0-9][0-9][0-9]"],
    "gpt-2": [G],
    "smollm": [r"\p{N}", G],
    "llama-bpe": [C + "|" + W + r"|\p{N}{1,3}" + S],
    "qwen2": [C + "|" + W + r"|\p{N}" + S],
    "qwen35": [C + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}" + S35],
    "ufakzeka": [W + r"|\p{N}" + S],
    "gpt-4o": [WORD + r"\p{N}{1,3}" + SLASH],
    "tekken": [f"{X}{U}*{L}+|{X}{U}+{L}*|" + r"\p{N}" + SLASH],
    "jais-2": [C + "|" + W + r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+" + J],
    "bailingmoe": [r"'(?:[sS\u017fdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|" + W + r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"],
    "seed-coder": [C + "|" + W + E],
    "minicpm5": [r"\p{N}{1,3}", C + "|" + W + r"|\p{N}+" + S],
    "exaone-moe": [C + "|" + X + r"(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"],
    "laguna": [r"[^\n]+|[\n]+", C + "|" + W + r"|\p{N}" + S],
    "tiny_aya": [GROUPED, WORD + r"\p{N}{1,3}" + SLASH],
    "youtu": [YOUTU, WORD + r"\p{N}" + SLASH],
    "kimi-k2": [f"[{HAN}]+|{X}(?:(?![{HAN}])\\p{{L}})+{C}?|" + r"\p{N}{1,3}" + S],
    "deepseek-llm": [r"[\r\n]", r"\s?[" + CASED + "]+", "\\s?(?:(?!\\s)[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002])+", r"\s+\Z", OLD_CJK, r"\p{N}+"],
    "deepseek-coder": [r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", OLD_CJK, r"\p{N}"],
    "deepseek-v3": [r"\p{N}{1,3}", KANA, MARKED + r"[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"],
    "spark2_5": [r"\p{N}{1,3}", KANA, MARKED + r"|[\r\n]|\s+(?!\S)|\s+", r"\p{N}"],
    "afmoe": [GROUPED, AFMOE, MARKED + r"[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"],
    "bloom": [BLOOM],
    "viking": [BLOOM, r"\p{N}"],
    "superbpe": [r"\p{N}+", r"(?=(?:[0-9]{3})+(?![0-9]))"],
    "chameleon": ["<sentinel:[0-9]+>", "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z", r"([\t\n]|    |  )", r"\p{N}", r"[\p{P}!-/:-@\[-`{-~]", G],
    "gemma4": [r"[^\n]+|[\n]+"],
    "whitespace": [r"\S+"],
}


def split(pieces, pattern):
    pattern = regex.compile(pattern.replace(r"\s", r"\p{White_Space}").replace(r"\S", r"\P{White_Space}"))
    for piece in pieces:
        at = 0
        for m in pattern.finditer(piece):
            if m.start() > at:
                yield piece[at:m.start()]
            if m.group():
                yield m.group()
            at = m.end()
        if at < len(piece):
            yield piece[at:]


def cut(name, text):
    """Bytes of the pieces."""
    pieces = [text]
    for p in RULES[name]:
        pieces = list(split(pieces, p))
    assert "".join(pieces) == text
    return [len(p.encode()) for p in pieces]


def tricky():
    """TRICKY of tests/oracle/tokens.py, read without importing what that script needs."""
    with open("tests/oracle/tokens.py", encoding="utf-8") as f:
        body = ast.parse(f.read()).body
    node = next(n for n in body if isinstance(n, ast.Assign) and getattr(n.targets[0], "id", "") == "TRICKY")
    return eval(compile(ast.Expression(node.value), "TRICKY", "eval"))


def main():
    print("names", *RULES)
    for text in tricky():
        text = text[:120]
        if not text:
            continue
        print("text", text.encode().hex())
        alike = {}
        for name in RULES:
            alike.setdefault(" ".join(map(str, cut(name, text))), []).append(name)
        most = max(alike.values(), key=len)
        for lens, names in sorted(alike.items(), key=lambda item: item[1] is most):
            print("others" if names is most else ",".join(names), lens)


if __name__ == "__main__":
    main()
