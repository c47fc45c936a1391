#!/usr/bin/env python3
"""Are the tokens that a training set learns those that Hugging Face's tools would learn?

    pip install transformers
    make && make oracle
    train_mask.py FOLDER [NAME...] [--samples 300]

FOLDER holds one folder per vocabulary, with tokenizer.json and a chat template in tokenizer_config.json. Random conversations (one to four turns, with and
without a system message, several scripts, white space at the ends; no texts of control tokens) are rendered and encoded by transformers. Learnt are: with a
template that has {% generation %} blocks, the tokens of return_assistant_tokens_mask; with the model's own, the tokens that hold a character between the
opening of an answer and its end token, found by searching the text. Compared are ids and weights, one for one.
Exit code 1 if anything differs.
"""
import argparse
import json
import os
import random
import subprocess
import sys

BLOCKS = ("{% for m in messages %}{{ '<|' + m.role + '|>' }}{% if m.role == 'assistant' %}{% generation %}{{ m.content + '<|end|>' }}{% endgeneration %}"
          "{% else %}{{ m.content }}{% endif %}{{ '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}")
ENDS = ["<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<\uff5cend\u2581of\u2581sentence\uff5c>"]
ALPHABET = ["the", "river", "a", "é", "ünder", "река", "河流", "🙂", "12", "3.5", "x = y;", "\n", "\n\n", "don't", "  ", "-", "¿", "{}", "\t", "Hello"]


def text(rng, number):
    words = [rng.choice(ALPHABET) for _ in range(rng.randint(1, 12))]
    return " ".join(words[:len(words) // 2] + ["q%dz" % number] + words[len(words) // 2:])


def conversation(rng, system):
    out, number = [], rng.randint(100, 900)
    if system and rng.random() < 0.4:
        out.append({"role": "system", "content": text(rng, number)})
    for k in range(rng.randint(1, 4)):
        for role in ("user", "assistant"):
            number += 1
            out.append({"role": role, "content": text(rng, number)})
    return out


def spans(tok, template, messages, whole):
    found, at = [], 0
    for k, m in enumerate(messages):
        if m["role"] != "assistant":
            continue
        opened = tok.apply_chat_template(messages[:k], chat_template=template, tokenize=False, add_generation_prompt=True)
        said = whole.index(m["content"].strip(), at)
        start = len(opened) if whole.startswith(opened) else said
        ends = [(whole.index(e, said), len(e)) for e in ENDS if e in whole[said:]]
        at = sum(min(ends))
        found.append((start, at))
    return found


def wanted(tok, template, messages, blocks):
    if blocks:
        d = tok.apply_chat_template(messages, chat_template=template, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
        return d["input_ids"], d["assistant_masks"]
    whole = tok.apply_chat_template(messages, chat_template=template, tokenize=False)
    d = tok(whole, add_special_tokens=False, return_offsets_mapping=True)
    turns = spans(tok, template, messages, whole)
    return d["input_ids"], [int(any(a < to and b > start for start, to in turns)) for a, b in d["offset_mapping"]]


def takes_system(tok, template):
    try:
        return bool(tok.apply_chat_template([{"role": "system", "content": "s"}, {"role": "user", "content": "u"}], chat_template=template, tokenize=False))
    except Exception:  # the template's own refusal
        return False


def check(folder, args, blocks):
    import transformers
    name = os.path.basename(folder)
    tok = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    template = BLOCKS if blocks else tok.chat_template
    base = os.path.join(args.tmp, name)
    subprocess.run([os.path.join(args.build, "convert_tokenizer"), folder, base + ".gguf"], check=True, capture_output=True)
    with open(base + ".jinja", "w") as f:
        f.write(template)
    rng = random.Random(5)
    rows = [conversation(rng, takes_system(tok, template)) for _ in range(args.samples)]
    with open(base + ".jsonl", "w") as f:
        f.writelines(json.dumps({"messages": r}, ensure_ascii=rng.random() < 0.5) + "\n" for r in rows)
    run = subprocess.run([os.path.join(args.build, "cuanto"), "data", base + ".jsonl", "-m", base + ".gguf", "--template", base + ".jinja",
                          "--preview", str(args.samples), "--json", "-q"], capture_output=True, text=True)
    if run.returncode:
        print("%-14s FAILED %s" % (name, run.stderr.strip()))
        return 1
    ids = masks = 0
    for sample, row in zip(json.loads(run.stdout)["samples"], rows):
        want, mask = wanted(tok, template, row, blocks)
        added = len(sample["tokens"]) - len(want)  # BOS that the template does not print
        if sample["tokens"][added:] != list(want):
            ids += 1
            continue
        mask[0] = 0 if added == 0 else mask[0]
        masks += sample["learnt"][added:] != list(mask)
        if sample["learnt"][added:] != list(mask) and args.show:
            args.show -= 1
            print(repr(tok.decode(want)), [(i, a, b) for i, (a, b) in enumerate(zip(sample["learnt"][added:], mask)) if a != b][:8])
    print("%-14s %-10s %d samples, %d with other ids, %d with other masks" % (name, "blocks" if blocks else "own", len(rows), ids, masks))
    return ids + masks > 0


def main():
    p = argparse.ArgumentParser()
    p.add_argument("folder")
    p.add_argument("names", nargs="*")
    p.add_argument("--samples", type=int, default=300)
    p.add_argument("--show", type=int, default=2)
    p.add_argument("--build", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../build/release"))
    p.add_argument("--tmp", default="/tmp/train_mask")
    args = p.parse_args()
    os.makedirs(args.tmp, exist_ok=True)
    bad = 0
    for name in args.names or sorted(os.listdir(args.folder)):
        path = os.path.join(args.folder, name, "tokenizer_config.json")
        if not os.path.exists(path) or "chat_template" not in json.load(open(path)):
            continue
        for blocks in (False, True):
            bad += check(os.path.join(args.folder, name), args, blocks)
    return bad > 0


if __name__ == "__main__":
    sys.exit(main())
