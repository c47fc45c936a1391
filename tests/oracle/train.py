#!/usr/bin/env python3
"""`cuanto train` against PyTorch + PEFT: the losses of ten steps on tiny random models, and speed on a real one.

    pip install torch transformers peft gguf numpy
    tests/oracle/train.py losses [--work DIR]
    tests/oracle/train.py speed MODEL.gguf HFDIR [--tokens 512] [--threads 2] [--dtype bfloat16|float32] [--pairs 3]     (HFDIR: cuanto convert MODEL -o HFDIR)

losses: checkpoints of transformers (Qwen2, Llama, Gemma 3), converted by cuanto, as F32 and as Q4_0 and Q4_K, whose values the checkpoint then gets. One step of cuanto with
a rate of almost zero gives the adapter's first numbers; both sides then make ten steps of AdamW on the same eight texts, all of them in each step.
speed: tokens a second, forward and backward and AdamW, both by turns on the same adapter shape (rank 16 on all linear layers), batch of one sequence."""
import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import archs

CUANTO = archs.BUILD / "cuanto"
RATE, FULL_RATE, STEPS, RANK, ALPHA = 5e-3, 1e-3, 10, 4, 8
MODULES = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
           "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
TEXTS = ["The cat sat on the mat and looked at the bird.", "Rain fell for three days; then the river rose.", "def add(a, b):\n    return a + b\n",
         "Una casa blanca junto al mar, con dos ventanas azules.", "Numbers: 1, 2, 3, 5, 8, 13, 21.", "She said nothing, and the clock went on ticking.",
         "A short one.", "The engineers measured twice and cut once, as always in that shop."]


def cuanto(*words):
    p = subprocess.run([str(CUANTO), *map(str, words)], capture_output=True, text=True)
    if p.returncode:
        raise SystemExit(f"cuanto {' '.join(map(str, words))}: {p.stderr}")
    return p.stdout


def checkpoints():
    import transformers as tf
    dims = dict(hidden_size=256, intermediate_size=512, num_hidden_layers=2, num_attention_heads=8, num_key_value_heads=4, head_dim=32, max_position_embeddings=256,
                vocab_size=archs.VOCAB, tie_word_embeddings=False)
    return {"qwen2": tf.Qwen2Config(**dims), "llama": tf.LlamaConfig(**dims), "gemma3": tf.Gemma3TextConfig(**dims | {"tie_word_embeddings": True})}


def tensors(path):
    import gguf
    r = gguf.GGUFReader(str(path))
    return {t.name: gguf.quants.dequantize(t.data, t.tensor_type).reshape([int(n) for n in reversed(t.shape)]) for t in r.tensors}


def unpermute(w, heads):
    """Rows of llama's q and k in the order of the checkpoint."""
    return w.reshape(heads, w.shape[0] // heads // 2, 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def take_base(model, arch, path):
    """The model's matrices become what the file's bytes stand for."""
    import torch
    cfg = model.config
    for name, w in tensors(path).items():
        part = name.split(".")
        if part[0] != "blk" or part[2] not in MODULES or part[3] != "weight":
            continue
        if arch == "llama" and part[2] in ("attn_q", "attn_k"):
            w = unpermute(w, cfg.num_attention_heads if part[2] == "attn_q" else cfg.num_key_value_heads)
        module = model.get_submodule(f"model.layers.{part[1]}.{MODULES[part[2]]}")
        module.weight.data = torch.tensor(np.ascontiguousarray(w), dtype=torch.float32)


def take_adapter(model, path):
    import torch
    for name, w in tensors(path).items():
        part = name.split(".")
        side = "lora_A" if name.endswith("lora_a") else "lora_B"
        module = model.get_submodule(f"base_model.model.model.layers.{part[1]}.{MODULES[part[2]]}")
        getattr(module, side)["default"].weight.data = torch.tensor(np.ascontiguousarray(w), dtype=torch.float32)


def torch_losses(model, ids, rate):
    import torch
    params = [p for p in model.parameters() if p.requires_grad]
    opt = torch.optim.AdamW(params, lr=rate, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    out = []
    for _ in range(STEPS):
        opt.zero_grad()
        total, count = 0.0, 0
        for x in ids:
            x = torch.tensor([x])
            logits = model(input_ids=x).logits[0, :-1]
            total = total + torch.nn.functional.cross_entropy(logits.float(), x[0, 1:], reduction="sum")
            count += x.shape[1] - 1
        loss = total / count
        loss.backward()
        opt.step()
        out.append(loss.item())
    return out


def losses(work):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM
    torch.manual_seed(1)
    worst = 0.0
    work.mkdir(parents=True, exist_ok=True)
    (work / "texts.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in TEXTS))
    for arch, config in checkpoints().items():
        folder = work / arch
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        archs.write_tokenizer(folder)
        cuanto("convert", folder, "-o", work / f"{arch}.gguf", "--dtype", "f32", "--overwrite", "-q")
        for kind in ("F32", "Q4_0", "Q4_K", "full"):
            base = work / f"{arch}-{kind}.gguf"
            if kind in ("F32", "full"):
                base = work / f"{arch}.gguf"
            else:
                cuanto("quantize", work / f"{arch}.gguf", base, kind, "--pure", "--overwrite", "-q", "--embd-type", "keep", "--output-type", "keep")
            shared = [base, work / "texts.jsonl", "--loss", "all", "--valid-split", 0, "--batch", len(TEXTS), "--schedule", "constant", "--warmup", 0, "--clip", 0,
                      "--rank", RANK, "--alpha", ALPHA, "--precise", "--overwrite", "-q"]
            rate = FULL_RATE if kind == "full" else RATE
            if kind == "full":
                shared += ["--full"]
            cuanto("train", *shared, "--steps", 1, "--lr", 1e-30, "-o", work / "first.gguf")
            cuanto("train", *shared, "--steps", STEPS, "--lr", rate, "-o", work / "last.gguf", "--log", work / "log.jsonl")
            ours = [json.loads(line)["loss"] for line in open(work / "log.jsonl")]
            rows = [json.loads(line) for line in open(work / "log.jsonl")]
            ids = [json.loads(cuanto("tokenize", base, t)) for t in TEXTS]
            if rows[0]["tokens"] == sum(len(x) for x in ids):
                ids = [x + [archs.EOS] for x in ids]
            assert rows[0]["tokens"] == sum(len(x) - 1 for x in ids), (rows[0]["tokens"], [len(x) for x in ids])
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
            take_base(model, arch, base)
            if kind != "full":
                model = get_peft_model(model, LoraConfig(r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules=[m.split(".")[1] for m in MODULES.values()]))
                take_adapter(model, work / "first.gguf")
            theirs = torch_losses(model, ids, rate)
            off = max(abs(a - b) for a, b in zip(ours, theirs))
            worst = max(worst, off)
            print(f"{arch} {kind}: {theirs[0]:.5f} -> {theirs[-1]:.5f}, ours {ours[0]:.5f} -> {ours[-1]:.5f}; largest difference of {STEPS} losses {off:.2g}", flush=True)
    print(f"largest difference {worst:.2g}, expected at most 1e-3")
    return worst <= 1e-3


# ---- speed ----

def our_step(model, work, tokens, threads, extra):
    """Seconds of one step, the best of some: one sequence, forward and backward and AdamW."""
    log = work / "speed.jsonl"
    cuanto("train", model, work / "long.txt", "--loss", "all", "--valid-split", 0, "--batch", 1, "--ctx", tokens, "--rows", tokens, "--steps", 4, "-t", threads,
           "--memory", 4096, "-o", work / "speed.gguf", "--log", log, "--overwrite", "-q", *extra)
    return min(json.loads(line)["seconds"] for line in open(log))


def torch_stepper(folder, tokens, threads, dtype, full):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM
    torch.set_num_threads(threads)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    if not full:
        model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules=[m.split(".")[1] for m in MODULES.values()]))
    opt = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    ids = torch.randint(0, 1000, (1, tokens))

    def step():
        began = time.time()
        model(input_ids=ids, labels=ids).loss.backward()
        opt.step()
        opt.zero_grad()
        return time.time() - began
    step()
    return step


def speed(o):
    o.work.mkdir(parents=True, exist_ok=True)
    text = " ".join(TEXTS) * 400
    (o.work / "long.txt").write_text(text)
    step = torch_stepper(o.folder, o.tokens, o.threads, o.dtype, o.full)
    ratios = []
    for i in range(o.pairs):
        ours, theirs = our_step(o.model, o.work, o.tokens, o.threads, ["--full"] if o.full else []), min(step(), step())
        ratios.append(theirs / ours)
        print(f"{o.tokens} tokens: cuanto {ours:.3f} s ({o.tokens / ours:.0f} tok/s), PyTorch {o.dtype} {theirs:.3f} s ({o.tokens / theirs:.0f} tok/s): {theirs / ours:.2f}x",
              flush=True)
    print(f"median {sorted(ratios)[len(ratios) // 2]:.2f}x [{min(ratios):.2f}..{max(ratios):.2f}]")


def main():
    p = argparse.ArgumentParser()
    sub = p.add_subparsers(dest="what", required=True)
    a = sub.add_parser("losses")
    a.add_argument("--work", type=Path, default=archs.BUILD / "tmp" / "train")
    b = sub.add_parser("speed")
    b.add_argument("model")
    b.add_argument("folder")
    b.add_argument("--tokens", type=int, default=512)
    b.add_argument("--threads", type=int, default=os.cpu_count())
    b.add_argument("--dtype", default="bfloat16")
    b.add_argument("--pairs", type=int, default=3)
    b.add_argument("--full", action="store_true")
    b.add_argument("--work", type=Path, default=archs.BUILD / "tmp" / "train")
    o = p.parse_args()
    if o.what == "speed":
        speed(o)
    if o.what == "losses" and not losses(o.work):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
