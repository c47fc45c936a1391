#!/usr/bin/env python3
"""Kills `cuanto quantize` at random moments and resumes it: the file must be the one of an undisturbed run, and nothing may ever stand under its
name before it is complete.
  tests/oracle/kill.py CUANTO IN.gguf TYPE [POINTS=50] [OPTIONS of quantize...]
"""
import hashlib, os, random, signal, subprocess, sys, tempfile, time

def digest(path):
    h = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(1 << 20): h.update(block)
    return h.hexdigest()

def main():
    tool, model, mix = sys.argv[1:4]
    points = int(sys.argv[4]) if len(sys.argv) > 4 else 50
    options = sys.argv[5:]
    rng = random.Random(1)
    bad = resumed = kept = 0
    with tempfile.TemporaryDirectory() as tmp:
        ref, out = os.path.join(tmp, "ref.gguf"), os.path.join(tmp, "out.gguf")
        start = time.time()
        subprocess.run([tool, "quantize", model, ref, mix, "-q"] + options, check=True)
        whole, want = time.time() - start, digest(ref)
        for i in range(points):
            command = [tool, "quantize", model, out, mix, "-q"] + options
            for again in range(rng.choice([1, 1, 1, 3])):
                p = subprocess.Popen(command + (["--resume"] if again else []))
                time.sleep(rng.random() * whole * 1.05)
                p.send_signal(signal.SIGKILL)
                p.wait()
                if os.path.exists(out): break
            if os.path.exists(out):
                if digest(out) != want: bad += 1; print(f"point {i}: a wrong file under the final name")
                kept += 1
            journal = out + ".part.journal"
            if not os.path.exists(out) or os.path.exists(journal):
                if os.path.exists(journal):
                    words = open(journal, "rb").read()[4096:]
                    resumed += any(words)
                r = subprocess.run(command + ["--resume"])
                if r.returncode or digest(out) != want: bad += 1; print(f"point {i}: resumed to another file, exit {r.returncode}")
            left = [f for f in os.listdir(tmp) if f not in ("ref.gguf", "out.gguf")]
            if left: bad += 1; print(f"point {i}: left behind: {left}")
            for f in os.listdir(tmp):
                if f != "ref.gguf": os.remove(os.path.join(tmp, f))
    print(f"{points} points, {whole:.1f} s undisturbed: {resumed} resumed from work done, {kept} had finished, {bad} wrong")
    sys.exit(bad != 0)

main()
