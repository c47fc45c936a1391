#!/usr/bin/env python3
"""What `cuanto convert` costs, and what a kill leaves behind, on a checkpoint of random numbers in the shape of Llama.

  tests/oracle/convert.py [--work DIR] [--layers N] [--pairs N] [--kills N] [--threads N]

Needs: make; pip install numpy safetensors. Writes N layers (12: 1.1 GB as F16, 2.2 GB as F32) into DIR, in two shards. Prints: whether two runs and other
numbers of threads give the same bytes; peak memory beside the largest tensor; time beside `cp` of the same input and the flush of it to the disk (which
convert does too), by turns, median of N pairs; what is left after SIGKILL at random points, and that the next run is right."""
import argparse, hashlib, json, multiprocessing, os, random, signal, statistics, subprocess, sys, time
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import archs

CUANTO = archs.BUILD / "cuanto"
HID, FF, KV, VOCAB = 2048, 5632, 512, 32000


def make(dir, layers, dtype):
    if (dir / "config.json").exists():
        return
    dir.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(3)
    def rand(*shape): return (rng.random(shape, np.float32) - 0.5).astype(dtype)
    for part in range(2):
        t = {} if part else {"model.embed_tokens.weight": rand(VOCAB, HID), "model.norm.weight": rand(HID)}
        for i in range(part * layers // 2, (part + 1) * layers // 2 if part == 0 else layers):
            p = f"model.layers.{i}."
            t |= {p + "self_attn.q_proj.weight": rand(HID, HID), p + "self_attn.k_proj.weight": rand(KV, HID), p + "self_attn.v_proj.weight": rand(KV, HID),
                  p + "self_attn.o_proj.weight": rand(HID, HID), p + "mlp.gate_proj.weight": rand(FF, HID), p + "mlp.up_proj.weight": rand(FF, HID),
                  p + "mlp.down_proj.weight": rand(HID, FF), p + "input_layernorm.weight": rand(HID), p + "post_attention_layernorm.weight": rand(HID)}
        save_file(t, dir / f"model-{part + 1:05d}-of-00002.safetensors")
    archs.write_tokenizer(dir)
    (dir / "config.json").write_text(json.dumps({
        "architectures": ["LlamaForCausalLM"], "hidden_size": HID, "intermediate_size": FF, "num_hidden_layers": layers, "num_attention_heads": 32,
        "num_key_value_heads": 8, "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "vocab_size": VOCAB, "tie_word_embeddings": True}))


def run(args):
    """Seconds and peak resident bytes."""
    t = time.time()
    p = subprocess.Popen([str(a) for a in args])
    _, st, usage = os.wait4(p.pid, 0)
    if st:
        raise SystemExit(f"{args}: status {st}")
    return time.time() - t, usage.ru_maxrss * 1024


def convert(src, out, dtype, threads):
    return run([CUANTO, "convert", src, "-o", out, "--dtype", dtype, "-q", "--overwrite", *(["-t", threads] if threads else [])])


def digest(path):
    h = hashlib.sha256()
    with open(path, "rb") as f:
        while chunk := f.read(1 << 24):
            h.update(chunk)
    return h.hexdigest()


def copy(src, out):
    t = time.time()
    with open(out, "wb") as f:
        subprocess.run(["cat", *sorted(src.glob("*.safetensors"))], stdout=f, check=True)
        os.fsync(f.fileno())
    return time.time() - t


def speed(src, dtype, args, work):
    size = sum(p.stat().st_size for p in src.glob("*.safetensors"))
    ours, theirs, peak = [], [], 0
    for _ in range(args.pairs):
        theirs.append(copy(src, work / "copy"))
        (work / "copy").unlink()
        s, rss = convert(src, work / "out.gguf", dtype, args.threads)
        ours.append(s)
        peak = max(peak, rss)
    a, b = statistics.median(ours), statistics.median(theirs)
    largest = VOCAB * HID * (4 if src.name == "f32" else 2)
    print(f"{src.name} -> {dtype}: {a:.2f} s [{min(ours):.2f}..{max(ours):.2f}], cp and flush of the input {b:.2f} s [{min(theirs):.2f}..{max(theirs):.2f}], "
          f"{100 * b / a:.0f} % of its speed; {size / a / 2**20:.0f} MiB/s; peak {peak / 2**20:.0f} MiB, largest tensor {largest / 2**20:.0f} MiB", flush=True)
    return peak <= 1.5 * largest + (100 << 20)


def kills(src, args, work, want):
    out, wrong, complete = work / "killed.gguf", 0, 0
    whole, _ = convert(src, out, "f16", args.threads)
    out.unlink()
    for i in range(args.kills):
        p = subprocess.Popen([str(CUANTO), "convert", str(src), "-o", str(out), "--dtype", "f16", "-q", "--overwrite"])
        time.sleep(random.uniform(0, whole * 1.1))
        p.send_signal(signal.SIGKILL)
        p.wait()
        if out.exists():
            complete += 1
            wrong += digest(out) != want
            out.unlink()
    parts = list(work.glob("killed.gguf.part-*"))
    convert(src, out, "f16", args.threads)
    after = digest(out) == want
    print(f"{args.kills} kills: {complete} files complete, {wrong} wrong, {len(parts)} parts left behind, the next run {'right' if after else 'WRONG'}")
    for p in parts:
        p.unlink()
    out.unlink()
    return wrong == 0 and after


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--work", type=Path, default=Path("/tmp/convert"))
    ap.add_argument("--layers", type=int, default=12)
    ap.add_argument("--pairs", type=int, default=5)
    ap.add_argument("--kills", type=int, default=20)
    ap.add_argument("--threads", type=int, default=0)
    args = ap.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    for name, dtype in (("f16", np.float16), ("f32", np.float32)):
        p = multiprocessing.Process(target=make, args=(args.work / name, args.layers, dtype))  # a child's peak memory begins with its parent's
        p.start()
        p.join()
    out, sums = args.work / "out.gguf", []
    for threads in (0, 1, 3):
        convert(args.work / "f16", out, "f16", threads)
        sums.append(digest(out))
    ok = len(set(sums)) == 1
    print(f"same bytes with 2, 1 and 3 threads: {'yes' if ok else 'NO'}", flush=True)
    for src, dtype in (("f16", "f16"), ("f32", "f16")):
        ok &= speed(args.work / src, dtype, args, args.work)
    out.unlink()
    if args.kills:
        ok &= kills(args.work / "f16", args, args.work, sums[0])
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
