#!/usr/bin/env python3
"""Quantized Hugging Face checkpoints: every weight and the logits after `cuanto convert`, against the published formulas and the real packages.

  tests/oracle/import_quant.py [--only NAME...] [--work DIR]

Needs: make all oracle; pip install torch transformers safetensors gguf; optionally compressed-tensors and bitsandbytes, which then pack and unpack
in place of the formulas here. For each scheme a tiny Llama (or gpt-oss) is written whose matrices are packed from known codes. Checked: with
--dtype f32 every weight equals the f32 value of the formula bit for bit; with --dtype auto the tensors have the expected type and the same values
(Q4_1: codes and scales the same, minima rounded to half); logits of the f32 file against transformers on the dequantized model."""
import argparse, json, os, subprocess, sys
from pathlib import Path

import numpy as np
import torch
from gguf import GGUFReader, dequantize
from safetensors.torch import save_file

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import archs

BUILD = archs.BUILD
HID, HEADS, KV, LAYERS = 256, 4, 2, 2
R = np.random.default_rng(7)


def linears(ff):
    d = HID // HEADS
    yield from ((f"model.layers.{i}.{n}", o, c) for i in range(LAYERS) for n, o, c in (
        ("self_attn.q_proj", HID, HID), ("self_attn.k_proj", KV * d, HID), ("self_attn.v_proj", KV * d, HID), ("self_attn.o_proj", HID, HID),
        ("mlp.gate_proj", ff, HID), ("mlp.up_proj", ff, HID), ("mlp.down_proj", HID, ff)))


def half(x): return np.asarray(x, np.float16)
def t(x): return torch.from_numpy(np.ascontiguousarray(x))


def i32(x): return t(np.asarray(x, np.uint64).astype(np.uint32).view(np.int32))


def pack_stream(codes, bits):
    """codes [n][k] -> words [n * bits / 32][k]: code i of a column at bit i * bits of its stream, as AutoGPTQ's pack loops do."""
    n, k = codes.shape
    out = np.zeros((n * bits // 32, k), np.uint64)
    for i in range(n):
        w, s = divmod(i * bits, 32)
        out[w] |= (codes[i].astype(np.uint64) << np.uint64(s)) & np.uint64(0xFFFFFFFF)
        if s + bits > 32:
            out[w + 1] |= codes[i].astype(np.uint64) >> np.uint64(32 - s)
    return out


def group_values(o, c, group, bits, sym, scale=None):
    g = 1 if group == -1 else c // group
    codes = R.integers(0, 2**bits, (o, c))
    scales = scale(g, o) if scale else half(R.uniform(0.001, 0.01, (g, o)))
    zeros = np.full((g, o), 2**(bits - 1)) if sym else R.integers(1, 2**bits, (g, o))
    return g, codes, scales, zeros


def gptq(bits, group, sym, v2=False, order=None, bf16=False):
    def make(name, o, c):
        scale = (lambda g, o: torch.from_numpy(R.uniform(0.001, 0.01, (g, o))).bfloat16().float().numpy()) if bf16 else None
        g, q, s, z = group_values(o, c, group, bits, sym, scale)
        idx = np.arange(c) // (c // g)
        if order == "columns": idx = R.permutation(idx)
        if order == "blocks": idx = idx.reshape(-1, 32)[R.permutation(c // 32)].reshape(-1)
        w = (q - z[idx].T).astype(np.float32) * s.astype(np.float32)[idx].T
        qz = pack_stream((z if v2 else z - 1).T, bits).T
        return w, {"qweight": i32(pack_stream(q.T, bits)), "qzeros": i32(qz), "scales": t(s).bfloat16() if bf16 else t(half(s)),
                   "g_idx": t(idx.astype(np.int32))}
    q = {"quant_method": "gptq", "bits": bits, "group_size": group, "desc_act": order is not None, "sym": sym}
    return make, q | ({"checkpoint_format": "gptq_v2"} if v2 else {"checkpoint_format": "gptq"} if bits == 4 else {})


def awq(sym):
    def make(name, o, c):
        _, q, s, z = group_values(o, c, 128, 4, sym)
        def pack(x):  # AutoAWQ: order_map of WQLinear_GEMM.from_linear
            out = np.zeros((x.shape[0], x.shape[1] // 8), np.uint64)
            for i, col in enumerate([0, 2, 4, 6, 1, 3, 5, 7]):
                out |= x[:, col::8].astype(np.uint64) << np.uint64(4 * i)
            return out
        idx = np.arange(c) // 128
        w = (q - z[idx].T).astype(np.float32) * s.astype(np.float32)[idx].T
        return w, {"qweight": i32(pack(q.T)), "qzeros": i32(pack(z)), "scales": t(s)}
    return make, {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "version": "gemm"}


def ct_config(format, **weights):
    return {"quant_method": "compressed-tensors", "format": format, "quantization_status": "compressed",
            "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}}}


def ct_pack(bits, group, sym, order=False):
    def make(name, o, c):
        g, q, s, z = group_values(o, c, group, bits, sym)
        s = t(s.T.astype(np.float32)).bfloat16()
        idx = np.arange(c) // (c // g)
        if order: idx = R.permutation(idx)
        w = (q - z.T[:, idx]).astype(np.float32) * s.float().numpy()[:, idx]
        off = 2**(bits - 1)
        try:
            from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32, unpack_from_int32
            qs = t((q - off).astype(np.int8))
            packed, zp = pack_to_int32(qs, bits), pack_to_int32(t((z.T - off).astype(np.int8)), bits, packed_dim=0).contiguous()
            assert torch.equal(unpack_from_int32(packed, bits, torch.Size([o, c])), qs)
        except ImportError:
            packed, zp = i32(pack_stream(q.T, bits).T), i32(pack_stream(z.T, bits))
        parts = {"weight_packed": packed, "weight_scale": s, "weight_shape": torch.tensor([o, c])}
        if not sym: parts["weight_zero_point"] = zp
        if order: parts["weight_g_idx"] = t(idx.astype(np.int32))
        return w, parts
    return make, ct_config("pack-quantized", num_bits=bits, type="int", symmetric=sym, strategy="channel" if group == -1 else "group", group_size=group)


def ct_int8(per_tensor=False):
    def make(name, o, c):
        q = R.integers(-127, 128, (o, c)).astype(np.int8)
        s = t(R.uniform(0.001, 0.01, (1,) if per_tensor else (o, 1))).bfloat16()
        return q.astype(np.float32) * s.float().numpy(), {"weight": t(q), "weight_scale": s}
    return make, ct_config("int-quantized", num_bits=8, type="int", symmetric=True, strategy="tensor" if per_tensor else "channel")


def fp8(kind, config, inv=False, scale_type=torch.float32):
    def make(name, o, c):
        q = t(R.standard_normal((o, c)).astype(np.float32)).to(torch.float8_e4m3fn)
        shape = {"tensor": (), "row": (o, 1), "vector": (o,), "block": (-(-o // 128), -(-c // 128))}[kind]
        s = torch.from_numpy(np.asarray(R.uniform(0.01, 0.1, shape), np.float32)).to(scale_type)
        f = s.float()
        if kind == "vector": f = f[:, None]
        if kind == "block": f = f.repeat_interleave(128, 0)[:o].repeat_interleave(128, 1)[:, :c]
        return (q.float() * f).numpy(), {"weight": q, "weight_scale_inv" if inv else "weight_scale": s, "input_scale": torch.tensor(1.0)}
    return make, config


def mxfp4_values(q, e):
    lut = np.array([0, .5, 1, 1.5, 2, 3, 4, 6, -0., -.5, -1, -1.5, -2, -3, -4, -6], np.float32)
    return np.ldexp(lut[q].reshape(*e.shape, 32), e[..., None].astype(np.int32) - 127).reshape(q.shape).astype(np.float32)


def ct_mxfp4():
    def make(name, o, c):
        q, e = R.integers(0, 16, (o, c)), R.integers(117, 124, (o, c // 32))
        return mxfp4_values(q, e), {"weight_packed": t((q[:, 0::2] | q[:, 1::2] << 4).astype(np.uint8)), "weight_scale": t(e.astype(np.uint8))}
    return make, ct_config("mxfp4-pack-quantized", num_bits=4, type="float", group_size=32)


def bnb8():
    def make(name, o, c):
        q, s = R.integers(-127, 128, (o, c)).astype(np.int8), R.uniform(0.1, 0.5, o).astype(np.float32)
        w = q.astype(np.float32) * s[:, None] * np.float32(7.874015718698502e-3)
        try:
            from bitsandbytes.functional import int8_vectorwise_dequant
            assert np.array_equal(int8_vectorwise_dequant(t(q), t(s)).numpy(), w)
        except ImportError:
            pass
        return w, {"weight": t(q), "SCB": t(s), "weight_format": torch.tensor(0, dtype=torch.uint8)}
    return make, {"quant_method": "bitsandbytes", "load_in_8bit": True}


def bnb4(kind, nested):
    import bitsandbytes.functional as F
    def make(name, o, c):
        q, state = F.quantize_4bit(t(R.standard_normal((o, c)).astype(np.float32) * 0.05), quant_type=kind, compress_statistics=nested, blocksize=64)
        absmax = state.absmax
        if nested:
            absmax = F.dequantize_blockwise(state.absmax, state.state2) + state.offset
        code = np.stack([q.numpy().reshape(-1) >> 4, q.numpy().reshape(-1) & 15], 1).reshape(-1)
        w = state.code.numpy()[code] * np.repeat(absmax.float().numpy(), 64)[:o * c]
        assert np.allclose(w.reshape(o, c), F.dequantize_4bit(q, state).float().numpy(), rtol=1e-6, atol=1e-9)
        return w.reshape(o, c).astype(np.float32), {"weight": q} | {"weight." + k: v.contiguous() for k, v in state.as_dict(packed=True).items()}
    return make, {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": kind, "bnb_4bit_use_double_quant": nested}


FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
ROWS = {  # name: (maker, expected type with auto, feed-forward width)
    "gptq4-sym": (lambda: gptq(4, 128, True), "Q4_0", 384), "gptq4-v2-zeros": (lambda: gptq(4, 64, False, v2=True), "Q4_1", 384),
    "gptq2-zeros": (lambda: gptq(2, 32, False), "Q4_0", 384), "gptq3-zeros": (lambda: gptq(3, 128, False), "Q4_0", 384),
    "gptq8-channel": (lambda: gptq(8, -1, True), "Q8_0", 384), "gptq8-zeros": (lambda: gptq(8, 128, False), "F16", 384),
    "gptq4-act-order": (lambda: gptq(4, 128, True, order="columns"), "F16", 384),
    "gptq4-order-blocks": (lambda: gptq(4, 128, True, order="blocks"), "Q4_0", 384), "gptq4-bf16": (lambda: gptq(4, 128, True, bf16=True), "Q4_0", 384),
    "awq-zeros": (lambda: awq(False), "Q4_1", 384), "awq-sym": (lambda: awq(True), "Q4_0", 384),
    "ct4-group": (lambda: ct_pack(4, 128, True), "Q4_0", 384), "ct4-zeros": (lambda: ct_pack(4, 64, False), "Q4_1", 384),
    "ct8-channel": (lambda: ct_pack(8, -1, True), "Q8_0", 384), "ct3-group": (lambda: ct_pack(3, 64, True), "Q4_0", 384),
    "ct4-act-order": (lambda: ct_pack(4, 128, True, order=True), "F16", 384),
    "ct-int8": (ct_int8, "Q8_0", 384), "ct-int8-tensor": (lambda: ct_int8(True), "Q8_0", 384),
    "ct-fp8-row": (lambda: fp8("row", ct_config("float-quantized", num_bits=8, type="float")), "F16", 384),
    "ct-fp8-tensor": (lambda: fp8("tensor", ct_config("float-quantized", num_bits=8, type="float")), "F16", 384), "ct-mxfp4": (ct_mxfp4, "MXFP4", 384),
    "fp8-blocks": (lambda: fp8("block", FP8, inv=True), "F16", 320),
    "fp8-blocks-e8m0": (lambda: fp8("block", FP8, inv=True, scale_type=torch.float8_e8m0fnu), "F16", 320),
    "fbgemm": (lambda: fp8("vector", {"quant_method": "fbgemm_fp8"}), "F16", 384),
    "bnb-int8": (bnb8, "F16", 384), "bnb-nf4": (lambda: bnb4("nf4", False), "F16", 384), "bnb-nf4-nested": (lambda: bnb4("nf4", True), "F16", 384),
    "bnb-fp4": (lambda: bnb4("fp4", False), "F16", 384),
}


def convert(dir, out, dtype):
    p = subprocess.run([BUILD / "cuanto", "convert", str(dir), "-o", str(out), "--dtype", dtype, "--force"], capture_output=True, text=True)
    if p.returncode:
        raise SystemExit(f"{dir}: {p.stderr}")
    return p.stderr.strip()


def tensors(path):
    return {x.name: (x.tensor_type.name, dequantize(x.data, x.tensor_type).reshape([int(d) for d in x.shape[::-1]])) for x in GGUFReader(path).tensors}


def gguf_name(hf):
    names = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
             "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
    _, _, i, *rest = hf.split(".")
    return f"blk.{i}.{names['.'.join(rest)]}.weight"


def permute(w, name):
    """Rows of Q and K as llama.cpp orders them (LlamaModel.permute)."""
    h = {"q_proj": HEADS, "k_proj": KV}.get(name.split(".")[-1])
    return w if not h else w.reshape(h, 2, w.shape[0] // h // 2, w.shape[1]).swapaxes(1, 2).reshape(w.shape)


def compare(name, got, type_, want, auto):
    if auto and type_ == "Q4_1":  # minima are rounded: at most 2^-11 of scale * zero, zero <= 16, scale < 0.01
        bad = float(np.abs(got - want).max())
        assert bad <= 16 * 0.01 * 2**-11, (name, bad)
        return bad
    if auto and type_ in ("F16", "BF16"):
        want = want.astype(np.float16).astype(np.float32) if type_ == "F16" else torch.from_numpy(want).bfloat16().float().numpy()
    assert np.array_equal(got, want), (name, type_, np.abs(got - want).max())
    return 0.0


def logits(model, gguf, work):
    ids = archs.prompt(64)
    with torch.no_grad():
        ref = model.eval()(torch.tensor(ids[None].astype(np.int64)), use_cache=False).logits[0].float().numpy()
    return archs.error(archs.ours(gguf, work, ids, 64, 64), ref)


def llama(name, make, config, want_type, ff, work):
    import transformers
    dir = work / name
    dir.mkdir(parents=True, exist_ok=True)
    cfg = transformers.LlamaConfig(hidden_size=HID, intermediate_size=ff, num_hidden_layers=LAYERS, num_attention_heads=HEADS, num_key_value_heads=KV,
                                   max_position_embeddings=256, vocab_size=archs.VOCAB, tie_word_embeddings=False, bos_token_id=archs.BOS, eos_token_id=archs.EOS)
    model = transformers.LlamaForCausalLM(cfg)
    state = {k: t(archs.random_tensor(k, v.shape)).half().float() for k, v in model.state_dict().items()}
    files, truth = {k: v.half() for k, v in state.items() if "proj" not in k}, {}
    for hf, o, c in linears(ff):
        truth[hf], parts = make(hf, o, c)
        state[hf + ".weight"] = torch.from_numpy(truth[hf])
        files |= {f"{hf}.{k}": v for k, v in parts.items()}
    save_file(files, dir / "model.safetensors", metadata={"format": "pt"})
    c = cfg.to_dict() | {"architectures": ["LlamaForCausalLM"], "quantization_config": config, "torch_dtype": "float16"}
    c.pop("dtype", None)
    (dir / "config.json").write_text(json.dumps(c))
    archs.write_tokenizer(dir)
    model.load_state_dict(state)
    worst, warning = 0.0, ""
    for dtype in ("f32", "auto"):
        out = work / f"{name}-{dtype}.gguf"
        text = convert(dir, out, dtype)
        warning = text if dtype == "auto" else warning
        have = tensors(out)
        for hf, w in truth.items():
            type_, x = have[gguf_name(hf)]
            assert type_ == ("F32" if dtype == "f32" else want_type), (hf, type_)
            worst = max(worst, compare(hf, x, type_, permute(w, hf), dtype == "auto"))
    if want_type == "Q4_1":  # codes less zero points fit int8, so this is exact
        convert(dir, out, "q8_0")
        have = tensors(out)
        for hf, w in truth.items():
            assert have[gguf_name(hf)][0] == "Q8_0" and np.array_equal(have[gguf_name(hf)][1], permute(w, hf)), hf
    return want_type, worst, logits(model, work / f"{name}-f32.gguf", work), warning


def gpt_oss(name, work):
    import transformers, archs_dense
    row = next(r for r in archs_dense.ROWS if "GptOss" in r["cls"])
    row = row | {"config": row["config"] | {"hidden_size": 64, "intermediate_size": 96}}  # whole blocks
    dir = work / name
    dir.mkdir(parents=True, exist_ok=True)
    archs.build(row, dir)
    from safetensors.torch import load_file
    files = load_file(dir / "model.safetensors")
    state, truth = dict(files), {}
    for k in [k for k in files if k.endswith("_proj") and "experts" in k]:
        e, c, o = files[k].shape
        q, x = R.integers(0, 16, (e, o, c)), R.integers(122, 126, (e, o, c // 32))
        w = mxfp4_values(q, x)
        state[k] = t(w.swapaxes(1, 2))
        truth[k] = w
        files.pop(k)
        files[k + "_blocks"] = t((q[..., 0::2] | q[..., 1::2] << 4).astype(np.uint8).reshape(e, o, c // 32, 16))
        files[k + "_scales"] = t(x.astype(np.uint8))
    model = transformers.GptOssForCausalLM(transformers.AutoConfig.from_pretrained(dir, attn_implementation="eager"))
    model.load_state_dict(state)
    if hasattr(model, "set_experts_implementation"):
        model.set_experts_implementation("eager")
    save_file(files, dir / "model.safetensors", metadata={"format": "pt"})
    c = json.loads((dir / "config.json").read_text()) | {"quantization_config": {"quant_method": "mxfp4"}}
    (dir / "config.json").write_text(json.dumps(c))
    for dtype in ("f32", "auto"):
        out = work / f"{name}-{dtype}.gguf"
        warning = convert(dir, out, dtype)
        have = tensors(out)
        for k, w in truth.items():
            i = k.split(".")[2]
            parts = [("gate", w[:, 0::2]), ("up", w[:, 1::2])] if "gate_up" in k else [("down", w)]
            for part, x in parts:
                type_, got = have[f"blk.{i}.ffn_{part}_exps.weight"]
                assert type_ == ("F32" if dtype == "f32" else "MXFP4"), type_
                compare(k, got, type_, x, dtype == "auto")
    return "MXFP4", 0.0, logits(model, work / f"{name}-f32.gguf", work), warning


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--only", nargs="+")
    ap.add_argument("--work", type=Path, default=Path("/tmp/import_quant"))
    args = ap.parse_args()
    os.environ |= {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    torch.set_num_threads(1)
    torch.manual_seed(0)
    bad = []
    args.work.mkdir(parents=True, exist_ok=True)
    print("| checkpoint | becomes | largest difference | logits | warning |\n|---|---|--:|--:|---|")
    for name in [*ROWS, "gpt-oss"]:
        if args.only and name not in args.only:
            continue
        try:
            if name == "gpt-oss":
                type_, worst, err, text = gpt_oss(name, args.work)
            else:
                maker, want, ff = ROWS[name]
                make, config = maker()
                type_, worst, err, text = llama(name, make, config, want, ff, args.work)
            print(f"| {name} | {type_} | {worst:.1e} | {err:.1e} | {text.replace('convert: ', '')} |", flush=True)
            if not err <= 1e-4:
                bad.append(name)
        except (AssertionError, SystemExit, ImportError) as e:
            print(f"| {name} | FAILED: {type(e).__name__} {e} |", flush=True)
            bad.append(name)
    print("failed: " + " ".join(bad) if bad else "all agree", file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
