#!/usr/bin/env python3
"""GPTQ and AWQ with groups of 128 as their papers and common tools do them, on a GGUF file of floats: what `cuanto quantize` is measured against.

    pip install torch transformers gguf numpy
    cuanto convert IN.gguf -o DIR
    gptq.py gptq|awq IN.gguf DIR OUT.gguf CALIBRATION.txt [--tokens 16384] [--layers N] [--symmetric] [--damp 0.01]

OUT.gguf is IN.gguf with the matrices of the first N layers (default: all) replaced by what the method's codes stand for, as F32: so every engine can score it.
Bits per weight of those matrices: 4 + 20/128 = 4.156 with zero points, 4.125 symmetric. Llama-like checkpoints (q, k, v, o, gate, up, down) without
reordered rows (Qwen2, Qwen3, Gemma).

gptq  Frantar et al. 2022: H = 2 X X^T of the inputs under the layers quantized so far, damping of --damp times the mean diagonal, columns by falling
      diagonal with the groups' scales fixed beforehand from the weights (act-order, static groups), error fed forward through the Cholesky factor of H^-1.
awq   Lin et al. 2023: one scale a channel, (mean |x|)^a for 20 values of a, for q k v, gate up and down; then a clip of each group by the error of its
      product; q and k are not clipped. The scales are folded back, so that the weights stand in the place of the old ones.
"""
import argparse

import gguf
import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

GROUP, TOP = 128, 15
STAGES = (("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), ("self_attn.o_proj",), ("mlp.gate_proj", "mlp.up_proj"), ("mlp.down_proj",))
NAMES = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
         "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}


def grid(w, symmetric, shrink=1.0):
    """Scale and zero point of each group: w [..., GROUP]."""
    if symmetric:
        return shrink * w.abs().amax(-1, keepdim=True).clamp(min=1e-8) / 7.5, torch.full(w.shape[:-1] + (1,), 8.0)
    low, high = shrink * w.amin(-1, keepdim=True).clamp(max=0), shrink * w.amax(-1, keepdim=True).clamp(min=0)
    scale = ((high - low) / TOP).clamp(min=1e-8).half().float()
    return scale, (-low / scale).round().clamp(0, TOP)


def snap(w, scale, zero):
    return ((w / scale + zero).round().clamp(0, TOP) - zero) * scale


def rounded(w, symmetric, shrink=1.0):
    g = w.reshape(w.shape[0], -1, GROUP)
    return snap(g, *grid(g, symmetric, shrink)).reshape(w.shape)


def gptq(w, h, damp, symmetric):
    n = w.shape[1]
    scale, zero = (x.expand(-1, -1, GROUP).reshape(w.shape) for x in grid(w.reshape(w.shape[0], -1, GROUP), symmetric))
    h = h.clone()
    dead = h.diagonal() == 0
    h.diagonal()[dead] = 1
    order = torch.argsort(h.diagonal(), descending=True)
    w, scale, zero, h = w[:, order].clone(), scale[:, order], zero[:, order], h[order][:, order]
    h.diagonal().add_(damp * h.diagonal().mean())
    u = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(h)), upper=True)
    out = torch.empty_like(w)
    for a in range(0, n, 128):
        b, err = min(a + 128, n), torch.empty(w.shape[0], min(128, n - a), dtype=w.dtype)
        for j in range(a, b):
            q = snap(w[:, j], scale[:, j], zero[:, j])
            e = (w[:, j] - q) / u[j, j]
            w[:, j + 1:b] -= e[:, None] * u[j, j + 1:b]
            out[:, j], err[:, j - a] = q, e
        w[:, b:] -= err @ u[a:b, b:]
    back = torch.empty_like(out)
    back[:, order] = out
    return back


def awq_scale(ws, x, symmetric):
    """The channel scales that lose least over the matrices ws, all of which read x [tokens, n]."""
    mean, best, best_loss = x.abs().mean(0), torch.ones(x.shape[1]), float("inf")
    for a in range(20):
        s = mean.pow(a / 20).clamp(min=1e-4)
        s = s / (s.max() * s.min()).sqrt()
        loss = sum(((x @ (rounded(w * s, symmetric) / s - w).T) ** 2).sum().item() for w in ws)
        if loss < best_loss:
            best, best_loss = s, loss
    return best


def awq_clip(w, x, symmetric):
    out, sample = rounded(w, symmetric), x[:: max(1, len(x) // 512)]
    for g in range(0, w.shape[1], GROUP):
        part, xs = w[:, g:g + GROUP], sample[:, g:g + GROUP]
        best = torch.full((w.shape[0],), float("inf"))
        for i in range(10):
            q = rounded(part, symmetric, 1 - i / 20)
            loss = (((q - part) @ xs.T) ** 2).sum(1)
            better = loss < best
            best = torch.where(better, loss, best)
            out[better, g:g + GROUP] = q[better]
    return out


def quantize_stage(a, mods, h, x):
    ws = [m.weight.data for _, m in mods]
    if a.method == "gptq":
        new = [gptq(w, h, a.damp, a.symmetric) for w in ws]
    else:
        s = torch.ones(ws[0].shape[1]) if mods[0][0] == "self_attn.o_proj" else awq_scale(ws, x, a.symmetric)
        new = [(rounded(w * s, a.symmetric) if name.endswith(("q_proj", "k_proj")) else awq_clip(w * s, x / s, a.symmetric)) / s
               for (name, _), w in zip(mods, ws)]
    for (_, m), w in zip(mods, new):
        m.weight.data = w


def run(a):
    ids = AutoTokenizer.from_pretrained(a.dir)(open(a.text, encoding="utf-8", errors="replace").read(), return_tensors="pt").input_ids[0]
    n = a.tokens // 1024
    at = [i * (len(ids) - 1024) // max(1, n - 1) for i in range(n)]
    ids = torch.stack([ids[i:i + 1024] for i in at])
    model = AutoModelForCausalLM.from_pretrained(a.dir, dtype=torch.float32, **({"num_hidden_layers": a.layers} if a.layers else {})).eval()
    hidden = [model.model.embed_tokens(i[None]) for i in ids]
    places = model.model.rotary_emb(hidden[0], torch.arange(1024)[None])
    done = {}
    for il, layer in enumerate(model.model.layers):
        for stage in STAGES:
            mods = [(name, layer.get_submodule(name)) for name in stage]
            n_in = mods[0][1].weight.shape[1]
            h, kept = torch.zeros(n_in, n_in), []

            def see(_, args):
                x = args[0].reshape(-1, n_in)
                h.addmm_(x.T, x, alpha=2)
                kept.append(x[:: 8].clone())

            hook = mods[0][1].register_forward_pre_hook(see)
            for x in hidden:
                layer(x, position_embeddings=places)
            hook.remove()
            quantize_stage(a, mods, h, torch.cat(kept))
            for name, m in mods:
                done["blk.%d.%s.weight" % (il, NAMES[name])] = m.weight.data.numpy()
        hidden = [o if torch.is_tensor(o) else o[0] for o in (layer(x, position_embeddings=places) for x in hidden)]
        print("layer %d" % il, flush=True)
    return done


def write(a, done):
    r = gguf.GGUFReader(a.input)
    w = gguf.GGUFWriter(a.output, r.fields["general.architecture"].contents())
    for f in r.fields.values():
        if not f.name.startswith("GGUF.") and f.name != "general.architecture":
            w.add_key_value(f.name, f.contents(), f.types[0], f.types[-1] if f.types[0] == gguf.GGUFValueType.ARRAY else None)
    for t in r.tensors:
        new = done.pop(t.name, None)
        w.add_tensor(t.name, t.data if new is None else np.ascontiguousarray(new, dtype=np.float32), raw_dtype=t.tensor_type if new is None else None)
    assert not done, done.keys()
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("method", choices=("gptq", "awq"))
    for name in ("input", "dir", "output", "text"):
        ap.add_argument(name)
    ap.add_argument("--tokens", type=int, default=16384)
    ap.add_argument("--layers", type=int)
    ap.add_argument("--symmetric", action="store_true")
    ap.add_argument("--damp", type=float, default=0.01)
    a = ap.parse_args()
    with torch.no_grad():
        write(a, run(a))


if __name__ == "__main__":
    main()
