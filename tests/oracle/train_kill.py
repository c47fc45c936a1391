#!/usr/bin/env python3
"""`cuanto train` stopped at random moments, by SIGINT and SIGKILL in turn, and resumed: adapter and losses must be those of a run without a break.

    tests/oracle/train_kill.py CUANTO MODEL DATA STOPS [OPTIONS...]        OPTIONS: for train, beside those below

Prints a line and exits 1 when any differs. Each run is stopped until it finishes by itself; stops that come before anything or after everything are told apart."""
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time


def losses(path):
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in open(path)]


def main():
    cuanto, model, data, stops = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    with tempfile.TemporaryDirectory() as folder:
        def command(name, *more):
            return [cuanto, "train", model, data, "-o", f"{folder}/{name}.gguf", "--log", f"{folder}/{name}.jsonl", "--steps", "24", "--batch", "1", "--rows", "128",
                    "--dropout", "0.1", "--save-every", "3", "-q", *sys.argv[5:], *more]
        began = time.time()
        subprocess.run(command("whole"), check=True)
        whole = time.time() - began
        want, rows = open(f"{folder}/whole.gguf", "rb").read(), losses(f"{folder}/whole.jsonl")
        rng, done, resumed, wrong, run = random.Random(1), 0, 0, 0, 0
        while done < stops:
            run += 1
            name = f"run{run}"
            while True:
                p = subprocess.Popen(command(name, "--resume"))
                try:
                    p.wait(rng.uniform(0.05, 0.9) * whole if done < stops else None)
                    break
                except subprocess.TimeoutExpired:
                    at = os.path.exists(f"{folder}/{name}.gguf.state")
                    p.send_signal(signal.SIGINT if done % 2 else signal.SIGKILL)
                    p.wait()
                    done += 1
                    resumed += at
            same = p.returncode == 0 and open(f"{folder}/{name}.gguf", "rb").read() == want and losses(f"{folder}/{name}.jsonl") == rows
            wrong += not same
            for f in os.listdir(folder):
                if f.startswith(name):
                    os.unlink(f"{folder}/{f}")
        print(f"{done} stops in {run} runs of {whole:.1f} s: {resumed} resumed from work done, {wrong} runs wrong")
        sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
