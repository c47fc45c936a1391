#!/usr/bin/env python3
"""Beam search against transformers' generate(num_beams) on tiny random models: the same ids, the same scores.
  beams.py CUANTO [--work DIR]      needs torch, transformers, gguf. Not part of `make test`."""
import argparse, json, os, subprocess, sys
import numpy as np, torch
from transformers import LlamaConfig, LlamaForCausalLM

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.argv, args = [sys.argv[0]], sys.argv[1:]
from lora import write_base

p = argparse.ArgumentParser()
p.add_argument("cuanto"), p.add_argument("--work", default="/tmp/beam_work")
a = p.parse_args(args)
os.makedirs(a.work, exist_ok=True)
bad = total = ends = 0
for seed in range(4):
    torch.manual_seed(seed)
    c = LlamaConfig(vocab_size=256, hidden_size=64, intermediate_size=112, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256,
                    tie_word_embeddings=False, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    m = LlamaForCausalLM(c).float().eval()
    for t in m.parameters(): t.data = 1 + 0.2 * torch.randn_like(t) if t.dim() == 1 else torch.randn_like(t) / t.shape[-1] ** 0.5 * 1.3
    m.lm_head.weight.data[2] += 0.06 * m.lm_head.weight.data.mean(0) + 0.1 * torch.randn(64) / 8  # ends come at different places
    path = os.path.join(a.work, "m.gguf")
    write_base(m, c, path, end=2)
    for case, (beams, lp, early, n) in enumerate([(1, 1.0, False, 12), (2, 1.0, False, 30), (3, 0.0, "never", 40), (4, 2.0, True, 60), (5, -1.0, False, 40), (8, 1.0, "never", 24)]):
        ids = [int(x) for x in torch.randint(3, 250, (9,))]
        with torch.no_grad():
            out = m.generate(torch.tensor([ids]), num_beams=beams, num_return_sequences=beams, length_penalty=lp, early_stopping=early, max_new_tokens=n, do_sample=False,
                             return_dict_in_generate=True, output_scores=True) if beams > 1 else None
        text = "".join(f"<{i}>" for i in ids)
        stop = {False: "auto", True: "first", "never": "never"}[early]
        got = json.loads(subprocess.run([a.cuanto, "run", path, "--raw", "--special", "--no-bos", text, "-n", str(n), "--beams", str(beams), "--n-best", str(beams),
                                         "--length-penalty", str(lp), "--early-stopping", stop, "--json", "-q", "--kv-type", "f32", "-c", "128"], check=True, capture_output=True).stdout)
        if beams == 1: continue
        for i, ans in enumerate(got["answers"]):
            want = out.sequences[i].tolist()[len(ids):]
            if 2 in want: want = want[:want.index(2) + 1]
            score = float(out.sequences_scores[i])
            total += 1; ends += 2 in want
            if want[:len(ans["ids"])] != ans["ids"] or abs(score - ans["score"]) > 1e-4 * max(1, abs(score)):
                bad += 1
                print(f"seed {seed} case {case} beam {i}: {score:.6f} {want}\n  ours {ans['score']:.6f} {ans['ids']}")
        if len(got["answers"]) != beams: bad += 1; print("answers", len(got["answers"]))
print(f"{total - bad} of {total} answers equal, {ends} of them end before the limit")
sys.exit(bad != 0)
