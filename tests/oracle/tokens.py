#!/usr/bin/env python3
"""Compares the tokenizer with llama.cpp: ids, pieces, end tokens, and whether decoding gives the text back.

    pip install llama-cpp-python
    cc -O2 -I. tests/oracle/tokens.c build/release/libcuanto.a -lm -lpthread -o build/release/tokens
    tokens.py MODEL.gguf... [--tokens build/release/tokens] [--random 2000] [--seed 1]
    tokens.py MODEL.gguf... --cuanto build/release/cuanto        the list below through `cuanto tokenize`, one process a text
    tokens.py MODEL.gguf --hf tokenizer.json                     with Hugging Face's tokenizers (pip install tokenizers) in place of llama.cpp
    tokens.py --splits                                           the scanners with the regular expressions (pip install regex), 10 MB of text

Texts: the list below, special tokens of the model in several surroundings, files found on this machine (licences, Python sources, message
catalogues in many languages), and random strings over a hard alphabet; each with and without BOS, with and without special tokens parsed.
Exit code 1 if anything differs. Known and explained: of the pre-tokenizers in CASED llama.cpp's expressions leave out the marks and take for upper case
all that is not a-z; cuanto follows the expressions that the models were trained with (o200k, tekken), so texts with marks, with letters of one case
beyond ASCII or with U+017F are counted apart there. U+017F is an s after an apostrophe in (?i:'s), not in llama.cpp's [sS].
Tokens that llama.cpp cannot decode, for which it gives a marker instead of their text, are counted. Texts that decoding does not give back are counted: U+2581 where it stands for the space, and bytes for which
a vocabulary has no token, are lost in llama.cpp too.
"""
import argparse
import ctypes
import gettext
import glob
import json
import os
import random
import struct
import subprocess
import sys
import unicodedata

LOG = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *a: None)
SPECIAL, BOS = 1, 2

TRICKY = [
    "", " ", "  ", "   ", "\n", "\n\n", "\n\n\n\n\n", "\t", "\t\t", "\r", "\r\n", "\r\n\r\n", " \n", "\n ", " \n ", "  \n  \n  ", "\t \t", "\v", "\f", "a",
    " a", "a ", " a ", "  a", "   a   b    c", "Hello", "Hello world", "Hello, world!", " Hello, world! ", "hello\nworld", "hello\r\nworld\r\n",
    "hello \n world", "hello\n\n\nworld", "Tab\tseparated\tvalues\n1\t2\t3\n", "trailing spaces   \nnext", "    indented\n        more\n",
    "a\u00a0b", "\u00a0", "\u00a0\u00a0x", "a\u2003b\u2009c", "\u3000全角\u3000", "\u2028line\u2029para", "\u0085next", "\u1680ogham", "x\u200by", "\ufeffbom",
    "I'm you're he's we've they'll I'd don't", "I'M YOU'RE HE'S WE'VE THEY'LL I'D DON'T", "I'm'll've", "'s", "'S", "' s", "'re", "'Re", "'rE", "'", "''",
    "'''", "it's'", "rock'n'roll", "l'été", "d'accord", "o’clock don’t it’s", "'\u017f", "'t\u0301", "'ll\u200d", "x's\n", "'sS'tT", "'l", "'r", "'v",
    "0", "1", "12", "123", "1234", "12345", "123456789", "3.14159", "1,234,567.89", "1e-10", "0x1F", "v1.2.3", "a1b2c3", "2024-01-31T23:59:59Z", "٣١٤",
    "१२३४", "１２３", "½ ¾ ²³ Ⅷ ⅷ ①②", "1 2 3", "1  2   3", "100%", "$100", "€100", "#1", "№5", "1st 2nd 3rd", "12abc34", "١2३4",
    "for (int i = 0; i < n; i++) { x[i] += y->z; }", "def f(x):\n    return x**2  # comment\n", "#include <stdio.h>\nint main(void)\n{\n\treturn 0;\n}\n",
    "SELECT * FROM t WHERE a='b' AND c<>\"d\";", "<div class=\"a\">text</div>", "<table><tr><td>x</td></tr></table>", "{\"key\": [1, 2.5, null, true]}",
    "a=b==c!=d<=e>=f&&g||h", "x//y /* z */ --i ++j <<= >>= ... :: -> =>", "http://example.com/path?q=1&r=%20#frag", "user@example.org", "C:\\path\\to\\file",
    "~/dir/../file.tar.gz", "`code` **bold** _it_ ~~no~~", "| a | b |\n|---|---|\n", "$\\frac{a}{b}$", "\\n \\t \\u0041", "camelCaseWord snake_case_word CONST_X",
    "HTTPServer XMLHttpRequest iPhone eBay McDonald", "ALLCAPS", "ÉCOLE École éCOLE", "ÀÉÎ", "ŠKODA Škoda", "ΑΒΓ αβγ Αβγ", "ПРИВЕТ Привет привет", "ǅ ǆ Ǆ",
    "...", "!!!", "?!", "-----", "=====", "*****", "_____", "#####", "()[]{}<>", "“quoted” ‘single’ «guillemets» „low“", "— – ‒ ― … •", "©®™°±×÷", "¿Qué? ¡Sí!",
    "日本語のテキスト", "これはテストです。", "カタカナ ﾊﾝｶｸ", "漢字かな交じり文", "你好，世界！", "中文English混合123", "繁體字與简体字", "한국어 텍스트", "안녕하세요 세계", "ㅋㅋㅋ", "𠀀𪚥", "々〆〇",
    "Привет, мир!", "Українська мова", "Ελληνικά κείμενο", "שלום עולם", "שָׁלוֹם", "مرحبا بالعالم", "السَّلامُ عَلَيْكُم", "فارسی می‌خواهم", "اردو", "हिन्दी में पाठ",
    "क्षत्रिय", "বাংলা লেখা", "தமிழ் எழுத்து", "తెలుగు", "ไทยภาษา", "ภาษาไทยไม่มีช่องว่าง", "ລາວ", "မြန်မာ", "ខ្មែរ", "ქართული", "Հայերեն", "አማርኛ", "Tiếng Việt có dấu", "İstanbul ıI", "ß ẞ straße",
    "e\u0301 e\u0301\u0302 \u0301", "a\u0308\u0304x", "\u0301\u0302\u0303", "n\u0303o", "Z͑ͫ̓a̴l̷g̸o̵", "ﬁ ﬂ ﬀ", "①②③", "🄰🅱", "𝓗𝓮𝓵𝓵𝓸 𝔾", "𝟏𝟐𝟑",
    "😀", "😀😃😄", "👍🏽", "👨‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪🇫🇷", "❤️", "☺", "🤷🏽‍♀️ ok", "a😀b", " 😀 ", "🧑‍💻:code", "⌨️1️⃣", "\U0001fae8", "\U000e0041", "\u200d\u200d",
    "\x00", "a\x00b", "\x01\x02\x03", "\x1b[31mred\x1b[0m", "\x7f", "\u0378", "\ue000", "\uffff", "\U0010ffff", "\U000f0000", "\U00040000", "\ufffd", "\u061c\u200e\u200f",
    "▁", "▁▁", "a▁b", " ▁ ", "▁ ▁", "Ġ", "ĠĠ Ġhello", "Ċ", "<0x0A>", "<0x41>", "<0xZZ>", "<unk>", "<s>", "</s>", "<|endoftext|>", "<|im_start|>user\nhi<|im_end|>\n",
    "<|im_start|><|im_end|>", "<|im_start|", "<<|im_start|>>", "<start_of_turn>user\nhi<end_of_turn>\n", "<bos><bos>", "<eos> <pad>", "<unused0><unused10><unused100>", "<unused1",
    "<tool_call>{}</tool_call>", "<|fim_prefix|>a<|fim_suffix|>b<|fim_middle|>", "<repo_name>x<file_sep>y", "[multimodal]", "[PAD151665]", "<mask>", "<|eot_id|>", "<h1>x</h1>",
    "IMGIMGABZ", "aIMGIMGABCDEZ IMGIMGAZ", "<sentinel:12><sentinel:>x<sentinel:1", "a12345b1234 123456", "١٢٣٤1234567", "$1234567.1234", "a  1234 12", "12  123  x1",
    "  \t\t  x", "a" + " " * 24 + "b", "!abc !!x\n\n#foo_bar", "\u0301A\u0301b\u0301", "A\u0301B\u0301C", "ab cd  ef g\u0301 h", "x/\n/y", "!/\n/!\n", "한국어 ㄱㄴ ㄅㄆ、。！… 漢字かな",
    "!中文a中", "abc中文def's", "Hello, WORLD's HelloWorld", "naïve Ünïcode Ελληνικά Русский", "\u3000ab\u3000！", "ΑΒΓ、x", "。。x", "a.b,c!d?e(f)g|h", "  ..  a", "\x00!\x01\x02a",
    "Ａｂｃ：；！", "กขค ໃ ក က", "x\n\n \ny \n", "豈更 \uff66ﾞ", "don't'S x'LLy", "\u0e31ก\u0e31", "UNWANTED,running", "Héllo Wörld Ångström", "\ud55c\u1112\u1161\u11ab", "[CLS] [MASK] a [SEP]",
    "①ﬁﷺ㌖ｱﾞ１／２", "e\u0301\u0301 ｶﾞ ㈱", "日本 語\u200b\u00ad x", "<extra_id_0> <extra_id_1", "un\u00adaffable", "𝕳𝖊𝖑𝖑𝖔", "ＡＢＣ　１２３", "\u212b \u2126 \u1e9b\u0323",
    "हिन्दी'S कि'तना", "e\u0301A\u0301Be\u0301'LL", "ÀÉabÇd ŠKODAauto", "ǅabǅ ʰAʰbʰ", "it'\u017f 'x'\u017fabc", "!\u0301\u0301A !\u0301a", "\u0301AB\u0301cD", "אAבbשָׁC", "ΑΒγΔ ПриВЕТ",
    "กำลังX ក្រុមy", "\u0301\n\u0301/\n", "l'ÉTÉ'D x'ſſ", "a" * 100, "ab" * 200, " " * 100, "\n" * 100, "\t" * 50, "=" * 200, "9" * 100, "好" * 100, "😀" * 40, "é" * 300, "x " * 200, " \n" * 60, "\n\n\n \n\n", "a\n" * 90, "aA" * 80,
]
HARD = list(" \t\n\r'\"aAbBsStTdDmMlLrReEvVzZ0123456789.,!?$+<=>^~|`_-/\\()") + list(
    "éÉßñçœ中文字あア한ا١٢٣۴ابגה०१२ऀि́\u0300\u200d\u00a0\u3000\u2028\u0085\ufe0f😀👩𝒳Ⅷ½²ªº·’“”…—€№™\u0378\ue000\x7f\u200b\u1680ǅʰ▁Ġ")


def texts():
    return list(TRICKY)


def around_special(vocab_texts):
    out = []
    for s in vocab_texts:
        out += [s, s + s, "a" + s + "b", " " + s + " ", s + "\n\n" + s, s[:-1], s[1:], "x" + s[:-1] + s]
    return out


def chunks(text, size):
    return [text[i:i + size] for i in range(0, len(text), size)]


def corpus(limit=60000, size=1500):
    """Chunks of files of this machine, in a fixed order."""
    files = sorted(glob.glob("/usr/share/common-licenses/*"))[:14] + sorted(glob.glob("/usr/share/gnupg/help.*.txt"))
    files += sorted(glob.glob("/usr/lib/python3*/*.py"))[:40] + ["/usr/share/doc/nodejs/README.md", "/usr/share/vim/vim90/doc/russian.txt"]
    out = []
    for name in files:
        try:
            with open(name, encoding="utf-8", newline="") as f:
                out += chunks(f.read(limit), size)
        except (OSError, UnicodeDecodeError):
            pass
    for lang in "ar bg bn cs de el es fa fi fr he hi hu hy id it ja ka km ko lt ml mr my nl pa pl pt_BR ru sr sv ta te th tr uk ur vi zh_CN zh_TW".split():
        for mo in sorted(glob.glob(f"/usr/share/locale/{lang}/LC_MESSAGES/*.mo"), key=os.path.getsize)[-1:]:
            with open(mo, "rb") as f:
                values = gettext.GNUTranslations(f)._catalog.values()
            out += chunks("\n".join(v for v in values if isinstance(v, str))[:limit // 2], size)
    return out


def randoms(n, seed):
    rnd = random.Random(seed)
    out = []
    for _ in range(n):
        letters = rnd.sample(HARD, rnd.randint(2, 12)) if rnd.random() < .6 else HARD
        out.append("".join(rnd.choice(letters) for _ in range(rnd.randint(1, rnd.choice([3, 8, 20, 60, 400])))))
    for _ in range(n // 4):
        planes = [(0, 0x300), (0, 0x3000), (0x3000, 0xd800), (0xe000, 0x10000), (0x10000, 0x20000), (0x20000, 0x110000)]
        out.append("".join(chr(rnd.randrange(*rnd.choice(planes))) for _ in range(16)))
    return out


CASED = ["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2", "tekken", "granite-embed-multi-97m", "tiny_aya", "cohere2moe", "youtu"]


def explained(pre, text):
    """May the ids differ because llama.cpp simplifies the expression?"""
    return "\u017f" in text or (pre in CASED and any(c > "\x7f" and unicodedata.category(c) in ("Lu", "Lt", "Ll", "Mn", "Mc", "Me") for c in text))


class Oracle:
    def __init__(self, path):
        global api
        import llama_cpp.llama_cpp as api
        api.llama_log_set(LOG, None)
        params = api.llama_model_default_params()
        params.vocab_only = True
        self.model = api.llama_model_load_from_file(os.fsencode(path), params)
        if not self.model:
            sys.exit(f"{path}: llama.cpp cannot open it")
        self.vocab = api.llama_model_get_vocab(self.model)
        self.n = api.llama_vocab_n_tokens(self.vocab)
        self.bos, self.eos = api.llama_vocab_bos(self.vocab), api.llama_vocab_eos(self.vocab)

    def ids(self, text, bos, special):
        raw = text.encode()
        out = (ctypes.c_int32 * (4 * len(raw) + 16))()
        n = api.llama_tokenize(self.vocab, raw, len(raw), out, len(out), bos, special)
        return out[:n]

    def piece(self, token, special):
        buf = ctypes.create_string_buffer(4096)
        n = api.llama_token_to_piece(self.vocab, token, buf, len(buf), 0, special)
        return buf.raw[:n]

    def pre(self):
        buf = ctypes.create_string_buffer(80)
        return buf.value.decode() if api.llama_model_meta_val_str(self.model, b"tokenizer.ggml.pre", buf, len(buf)) > 0 else ""

    def text(self, token):
        return api.llama_vocab_get_text(self.vocab, token).decode(errors="replace")

    def is_special(self, token):
        return bool(api.llama_vocab_get_attr(self.vocab, token) & (1 | 8 | 16))

    def is_end(self, token):
        return bool(api.llama_vocab_is_eog(self.vocab, token))


def run(program, model, frames):
    data = b"".join(struct.pack("<II", flags, len(raw)) + raw for flags, raw in frames)
    out = subprocess.run([program, model], input=data, stdout=subprocess.PIPE, check=True).stdout
    at, results = 0, []
    for _ in frames:
        n, = struct.unpack_from("<I", out, at)
        ids = list(struct.unpack_from(f"<{n}i", out, at + 4))
        at += 4 + 4 * n
        n, = struct.unpack_from("<I", out, at)
        results.append((ids, out[at + 4:at + 4 + n]))
        at += 4 + n
    return results


def compare_cli(model, program):
    o = Oracle(model)
    bad = n = 0
    for text in TRICKY:
        for flags in range(4):
            command = [program, "tokenize", model] + ["--special"] * bool(flags & SPECIAL) + ["--no-bos"] * (not flags & BOS)
            out = subprocess.run(command, input=text.encode(), stdout=subprocess.PIPE, check=True).stdout
            ids, want = json.loads(out), o.ids(text, bool(flags & BOS), bool(flags & SPECIAL))
            n += 1
            if ids != want:
                bad += 1
                print(f"  flags {flags} {text[:60]!r}: {ids[:24]} expected {want[:24]}")
    print(f"{model}: {n} runs of {program} tokenize, {bad} differ")
    return bad


def compare_hf(model, args):
    """Differences are counted apart where the model's own normalizer changes the text: llama.cpp has none of the Unicode forms (NFC, NFKC)."""
    from tokenizers import Tokenizer
    t = Tokenizer.from_file(args.hf)
    t.no_padding()
    t.no_truncation()
    cases = texts() + corpus() + randoms(args.random, args.seed)
    bad = changed = 0
    for text, (ids, _) in zip(cases, run(args.tokens, model, [(SPECIAL, text.encode()) for text in cases])):
        want = t.encode(text, add_special_tokens=False).ids
        if ids == want:
            continue
        if any(unicodedata.normalize(form, text) != text for form in ("NFC", "NFKC")) and t.normalizer:
            changed += 1
            continue
        bad += 1
        if bad <= 10:
            print(f"  {text[:60]!r}: {ids[:24]} expected {want[:24]}")
    print(f"{model}: {len(cases)} texts, {bad} differ from {args.hf}; {changed} more that its normalizer changes")
    return bad


def compare_splits(args, size=10_000_000):
    sys.path.insert(0, "tests/golden")
    import tokenizer_splits as golden
    cases = [t for t in texts() + corpus() if t]
    known = set(HARD)  # a code point that is not assigned here may be in the other's version of Unicode

    def fair(texts):
        return [t for t in texts if all(c in known or unicodedata.category(c) != "Cn" for c in t)]

    cases, more = fair(cases), randoms(2000, args.seed)
    while sum(len(t.encode()) for t in cases) < size // len(golden.RULES):
        cases += fair(more)
        more = randoms(2000, args.seed + len(cases))
    total = 0
    for name in golden.RULES:
        data = b"".join(struct.pack("<I", len(t.encode())) + t.encode() for t in cases)
        out = subprocess.run([args.tokens, "split", name], input=data, stdout=subprocess.PIPE, check=True).stdout
        at = bad = 0
        for text in cases:
            n, = struct.unpack_from("<I", out, at)
            lens = list(struct.unpack_from(f"<{n}i", out, at + 4))
            at += 4 + 4 * n
            if lens != golden.cut(name, text):
                bad += 1
                if bad <= 3:
                    print(f"  {name}: {text[:60]!r}: {lens[:24]} expected {golden.cut(name, text)[:24]}")
        print(f"{name}: {len(cases)} texts, {bad} differ")
        total += bad
    return total


def compare(model, args):
    o = Oracle(model)
    special = [o.text(i) for i in range(o.n) if o.is_special(i)]
    special = [s for s in special if "unused" not in s] + [s for s in special if "unused" in s][:20]
    cases = texts() + around_special(special) + corpus() + randoms(args.random, args.seed)
    frames = [(flags, t.encode()) for t in cases for flags in range(4)]
    bad = lost = simplified = 0
    pre = o.pre()
    for (flags, raw), (ids, back) in zip(frames, run(args.tokens, model, frames)):
        want = o.ids(raw.decode(), bool(flags & BOS), bool(flags & SPECIAL))
        if ids != want and explained(pre, raw.decode()):
            simplified += 1
        elif ids != want:
            bad += 1
            if bad <= 10:
                print(f"  flags {flags} {raw.decode()[:60]!r}: {ids[:24]} expected {want[:24]}")
        if flags == 0 and back != raw:
            lost += 1
            if lost <= 3:
                print(f"  not given back: {raw.decode()[:60]!r} as {back[:80]!r}")
    facts = subprocess.run([args.tokens, model, "facts"], stdout=subprocess.PIPE, check=True, text=True).stdout.splitlines()
    wrong = marked = 0
    for i in range(o.n):
        piece = o.piece(i, False)
        if b"[UNK_BYTE_0x" in piece:
            marked += 1
            continue
        want = f"{piece.hex()} {o.piece(i, True).hex()} {int(o.is_end(i))}"
        if facts[i] != want:
            wrong += 1
            if wrong <= 10:
                print(f"  token {i}: {facts[i]} expected {want}")
    ends = [o.text(i) for i in range(o.n) if o.is_end(i)]
    print(f"{model}: {len(frames)} encodings, {bad} differ, {simplified} more as explained; {lost} texts not given back; {o.n} tokens, {wrong} differ, {marked} marked; "
          f"bos eos {facts[o.n]} ({o.bos} {o.eos}); ends {' '.join(ends)}")
    return bad + wrong


def main():
    p = argparse.ArgumentParser()
    p.add_argument("model", nargs="*")
    p.add_argument("--hf", help="tokenizer.json")
    p.add_argument("--splits", action="store_true")
    p.add_argument("--tokens", default="build/release/tokens")
    p.add_argument("--cuanto")
    p.add_argument("--random", type=int, default=2000)
    p.add_argument("--seed", type=int, default=1)
    args = p.parse_args()
    if args.splits:
        sys.exit(compare_splits(args) > 0)
    one = compare_hf if args.hf else (lambda m, a: compare_cli(m, a.cuanto)) if args.cuanto else compare
    sys.exit(any([one(m, args) for m in args.model]))


if __name__ == "__main__":
    main()
