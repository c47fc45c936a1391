#!/usr/bin/env python3
"""Compares the tokens that a grammar allows with llama.cpp's, over random grammars and random walks on a real vocabulary.

  pip install llama-cpp-python numpy;  make build/release/grammars;  tests/oracle/grammars.py MODEL.gguf [GRAMMARS]

Known and wanted differences are left out of the comparison: control tokens (llama.cpp lets their text match literals), and tokens with bytes that are no
UTF-8 (llama.cpp decodes overlong and surrogate sequences as if they were characters). Negated classes hold ASCII only: of [^é] llama.cpp refuses the first
byte of every character that shares it with é; and inside a character it allows the end where the text could have ended before that character. Grammars are
small: llama.cpp's time grows quickly with ambiguity. Ends with status 1 on any other difference."""
import ctypes, random, struct, subprocess, sys
import numpy as np
import llama_cpp as L

FIXED = [
    'root ::= "yes" | "no"', 'root ::= [a-z]+ (" " [a-z]+)*', 'root ::= "é" [à-ü]{2,5} "."', "root ::= .*", 'root ::= [^\\n"]{1,20} "\\n"',
    'root ::= ("ab" | "a"){2,4} "c"?', 'root ::= "(" root ")" | [0-9]{1,3}', 'root ::= [\\u3040-\\u30ff\\u4e00-\\u9fff]+', 'root ::= "\\U0001F600"+ | "x"',
    'root ::= "{" ws (pair ("," ws pair)*)? "}"\npair ::= str ":" ws (str | num | root)\nstr ::= "\\"" [^"\\\\\\x00-\\x1f]* "\\""\nnum ::= "-"? [0-9]+\nws ::= [ \\n]{0,3}',
]


def random_grammar(r):
    names = ["root", "a"]

    def atom(depth):
        k = r.randrange(6 if depth < 1 else 4)
        if k == 0:
            return '"%s"' % "".join(r.choice(["a", "b", " the", "é", "\\n", "1", "ing", "日"]) for _ in range(r.randint(1, 4)))
        if k in (1, 2):
            return r.choice(["[a-c]", "[^a-y]", "[0-9]", "[à-ÿ]", "[\\u4e00-\\u9fff]", "[ -~]", "[a\\-\\]]"])
        if k == 3:
            return '"x"'
        return "(" + sequence(depth + 1) + (" | " + sequence(depth + 1) if r.random() < .5 else "") + ")"

    def sequence(depth):
        parts = [atom(depth) for _ in range(r.randint(1, 3))]
        return " ".join(a + r.choice(["", "", "?", "{2}", "{1,2}"] if a[0] == "(" else ["", "", "*", "+", "?", "{2}", "{1,3}", "{2,}"]) for a in parts)

    lines = []
    for i, n in enumerate(names):
        body = sequence(0)
        for later in names[i + 1:]:
            if r.random() < .5:
                body += " " + later + r.choice(["", "?"])
        if r.random() < .3:
            body += " | [ -~] " + r.choice(names) + "?"
        lines.append("%s ::= %s" % (n, body))
    return "\n".join(lines)


def main():
    model, n_grammars = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 60
    quiet = L.llama_log_callback(lambda *a: None)  # kept: C holds only the pointer
    L.llama_log_set(quiet, None)
    L.llama_backend_init()
    params = L.llama_model_default_params()
    params.vocab_only = True
    vocab = L.llama_model_get_vocab(L.llama_model_load_from_file(model.encode(), params))
    n = L.llama_vocab_n_tokens(vocab)
    buf = ctypes.create_string_buffer(4096)
    skip = np.zeros(n, bool)
    for i in range(n):
        k = L.llama_token_to_piece(vocab, i, buf, 4096, 0, True)
        piece = buf.raw[:max(k, 0)]
        control = L.llama_vocab_get_attr(vocab, i) & (L.LLAMA_TOKEN_ATTR_CONTROL | L.LLAMA_TOKEN_ATTR_UNKNOWN | L.LLAMA_TOKEN_ATTR_UNUSED)
        text = piece.lstrip(bytes(range(0x80, 0xC0)))  # may begin and end inside a character
        for cut in range(4):
            try:
                text[:len(text) - cut].decode()
                break
            except UnicodeDecodeError:
                continue
        else:
            control = True
        skip[i] = bool(control) and not L.llama_vocab_is_eog(vocab, i)
        odd = any(b in (0xC0, 0xC1, 0xE0, 0xED, 0xF0, 0xF4) or b >= 0xF5 for b in piece)  # where overlong and surrogate sequences begin
        skip[i] |= odd or 0 in piece
    ends = np.array([bool(L.llama_vocab_is_eog(vocab, i)) for i in range(n)])
    proc = subprocess.Popen(["build/release/grammars", model], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    r, states, differences, tokens = random.Random(2), 0, 0, 0
    arr = np.zeros(n, dtype=[("id", "i4"), ("logit", "f4"), ("p", "f4")])
    for at in range(n_grammars):
        text = FIXED[at] if at < len(FIXED) else random_grammar(r)
        s = L.llama_sampler_init_grammar(vocab, text.encode(), b"root")
        if not s:
            continue
        ids, tail = [], b""
        for step in range(8):
            arr["id"], arr["logit"] = np.arange(n), 0
            data = L.llama_token_data_array(data=arr.ctypes.data_as(ctypes.POINTER(L.llama_token_data)), size=n, selected=-1, sorted=False)
            L.llama_sampler_apply(s, ctypes.byref(data))
            theirs = arr["logit"] == 0
            b = text.encode()
            proc.stdin.write(struct.pack("<2I", len(b), len(ids)) + b + np.asarray(ids, "i4").tobytes())
            proc.stdin.flush()
            got, = struct.unpack("<I", proc.stdout.read(4))
            if got == 0:
                print("refused:", text, ids)
                differences += 1
                break
            mine = np.frombuffer(proc.stdout.read(got), "u1")[:n].astype(bool)
            begun = any(tail[-k] >= (0xC0, 0xE0, 0xF0)[k - 1] for k in (1, 2, 3) if len(tail) >= k)
            odd = np.nonzero((mine != theirs) & ~(skip | ends if begun else skip))[0]
            states += 1
            tokens += int((~skip).sum())
            if len(odd):
                differences += 1
                print("DIFFERENT after", ids, "in", text, [(int(i), bool(mine[i]), L.llama_token_to_piece(vocab, int(i), buf, 4096, 0, True), buf.value) for i in odd[:5]])
                break
            both = [int(i) for i in np.nonzero(mine & theirs & ~skip)[0] if not L.llama_vocab_is_eog(vocab, int(i))]
            if not both:
                break
            ids.append(r.choice(both))
            L.llama_sampler_accept(s, ids[-1])
            k = L.llama_token_to_piece(vocab, ids[-1], buf, 4096, 0, True)
            tail = (tail + buf.raw[:k])[-4:]
        L.llama_sampler_free(s)
        print("%d of %d grammars, %d states" % (at + 1, n_grammars, states), end="\r", file=sys.stderr, flush=True)
    print("%d states, %d tokens compared, %d differences" % (states, tokens, differences))
    sys.exit(1 if differences else 0)


main()
