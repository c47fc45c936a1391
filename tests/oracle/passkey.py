#!/usr/bin/env python3
"""Does a stretched context still work? A number is hidden in filler text of N tokens at several depths; the model is asked for it.

  tests/oracle/passkey.py MODEL.gguf N [KIND[:SCALE]...] [--depths 5] [--reset LENGTH]

Runs cuanto with each --rope-scaling KIND (none, linear, yarn, ntk, longrope), SCALE given or N over the training length; prints how many of the
numbers came back, and the share of right digits. Needs nothing but build/release/cuanto. --reset treats LENGTH as the training length."""
import argparse, random, re, subprocess, sys
from pathlib import Path

CUANTO = Path(__file__).resolve().parent.parent.parent / "build/release/cuanto"
FILL = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again. "


def prompt(tokens, depth, key):
    n = int(tokens / 24)  # FILL has 22 to 24 tokens in the vocabularies used here
    head = FILL * int(n * depth)
    tail = FILL * (n - int(n * depth))
    return (f"There is a pass key hidden in the text below. Remember it.\n{head}The pass key is {key}. Remember it. {key} is the pass key.\n"
            f"{tail}\nWhat is the pass key? The pass key is")


def main():
    args = argparse.ArgumentParser()
    args.add_argument("model")
    args.add_argument("tokens", type=int)
    args.add_argument("kinds", nargs="*", default=["none", "linear", "yarn", "ntk"])
    args.add_argument("--depths", type=int, default=5)
    args.add_argument("--trained", type=int, default=0)
    args = args.parse_args()
    for kind in args.kinds:
        name, _, scale = kind.partition(":")
        rng, right, digits, took = random.Random(7), 0, 0, []
        for d in range(args.depths):
            key = str(rng.randrange(10000, 100000))
            command = [CUANTO, "run", args.model, "--raw", "-f", "-", "-n", "8", "--temp", "0", "-q", "-c", str(args.tokens + 256), "--rope-scaling", name]
            if scale:
                command += ["--rope-scale", scale]
            if args.trained:
                command += ["--yarn-orig-ctx", str(args.trained)]
            out = subprocess.run(command, input=prompt(args.tokens - 60, (d + 0.5) / args.depths, key), capture_output=True, text=True)
            if out.returncode:
                sys.exit(out.stderr)
            got = "".join(re.findall(r"\d", out.stdout))[:5]
            right += got == key
            digits += sum(a == b for a, b in zip(got, key))
            took.append(got or out.stdout.strip()[:20])
        print(f"{kind:12} {args.tokens} tokens: {right} of {args.depths} keys, {digits / 5 / args.depths:.0%} of the digits   {' '.join(took)}", flush=True)


if __name__ == "__main__":
    main()
