#!/usr/bin/env python3
"""recipes.txt - the format that llama-quantize gives every tensor of a few small llama-shaped files, for every mix, with and without importance.
  tests/golden/recipes.py LLAMA_QUANTIZE [CUANTO MODEL.gguf...] >recipes.txt
With CUANTO and models (F32 or F16), the choices of `cuanto quantize --dry-run --json` are compared on all of them, on stderr.
Needs pip install gguf numpy. A line: model, mix, "+" with importance or "-" without or "=" the same for both, kind of tensor, runs of formats by
layer. The models stand in MODELS below and in tests/test_quantize.c.
"""
import json, re, subprocess, sys, tempfile, os
import numpy as np, gguf

MIXES = """Q2_K Q2_K_S Q3_K_S Q3_K_M Q3_K_L Q4_K_S Q4_K_M Q5_K_S Q5_K_M Q6_K Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 IQ1_S IQ1_M IQ2_XXS IQ2_XS IQ2_S IQ2_M IQ3_XXS
IQ3_XS IQ3_S IQ3_M IQ4_NL IQ4_XS TQ1_0 TQ2_0 MXFP4_MOE Q1_0 Q2_0 F16 BF16""".split()
# name: layers, heads, KV heads, experts, own head, columns
MODELS = {"a": (32, 32, 32, 0, True, 256), "b": (26, 32, 8, 0, False, 256), "c": (32, 32, 8, 8, True, 256), "d": (80, 64, 8, 0, True, 256),
          "e": (20, 8, 4, 16, True, 256), "f": (32, 8, 8, 0, True, 128 + 32)}
KINDS = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]

def names(layers, experts, own_head):
    out = ["token_embd.weight"]
    for i in range(layers):
        for k in KINDS:
            moe = experts and k.startswith("ffn")
            if moe: out.append(f"blk.{i}.ffn_gate_inp.weight") if k == "ffn_gate" else None
            out.append(f"blk.{i}.{k}{'_exps' if moe else ''}.weight")
    return out + (["output.weight"] if own_head else [])

def write_model(path, spec):
    layers, heads, kv, experts, own_head, cols = spec
    w = gguf.GGUFWriter(path, "llama")
    w.add_block_count(layers); w.add_context_length(256); w.add_embedding_length(cols); w.add_feed_forward_length(cols)
    w.add_head_count(heads); w.add_head_count_kv(kv); w.add_layer_norm_rms_eps(1e-5); w.add_rope_dimension_count(8); w.add_vocab_size(4)
    w.add_key_length(8); w.add_value_length(8)
    if experts: w.add_expert_count(experts); w.add_expert_used_count(2)
    for n in names(layers, experts, own_head):
        shape = (2, 4, cols) if "_exps" in n else (4, cols)
        w.add_tensor(n, np.zeros(shape, np.float32))
    w.write_header_to_file(); w.write_kv_data_to_file(); w.write_tensors_to_file(); w.close()

def write_importance(path, model):
    w = gguf.GGUFWriter(path, "imatrix")
    w.add_type("imatrix"); w.add_array("imatrix.datasets", ["text"]); w.add_uint32("imatrix.chunk_count", 1); w.add_uint32("imatrix.chunk_size", 512)
    for t in gguf.GGUFReader(model).tensors:
        if len(t.shape) < 2 or not t.name.endswith(".weight") or "norm" in t.name or t.name == "token_embd.weight": continue
        mats = int(t.shape[2]) if len(t.shape) > 2 else 1
        w.add_tensor(t.name + ".in_sum2", np.ones((mats, int(t.shape[0])), np.float32))
        w.add_tensor(t.name + ".counts", np.ones((mats, 1), np.float32))
    w.write_header_to_file(); w.write_kv_data_to_file(); w.write_tensors_to_file(); w.close()

def theirs(tool, model, mix, imatrix):
    cmd = [tool, "--dry-run"] + (["--imatrix", imatrix] if imatrix else []) + [model, mix]
    out = subprocess.run(cmd, capture_output=True, text=True)
    text = out.stdout + out.stderr
    got = {}
    for m in re.finditer(r"\[ *\d+/ *\d+\] (\S+) +- \[[^]]*\], type = +(\S+), size = .*?MiB(?: -> .*?\((\w+)\))?\n", text):
        got[m[1]] = (m[3] or m[2]).upper()
    if not got or out.returncode:
        return None
    return got

def ours(tool, model, mix, imatrix):
    cmd = [tool, "quantize", model, mix, "--dry-run", "--json", "--allow-requantize"] + (["--imatrix", imatrix] if imatrix else [])
    out = subprocess.run(cmd, capture_output=True, text=True)
    if out.returncode: return out.stderr.strip()
    return {t["name"]: t["to"] for t in json.loads(out.stdout)["tensors"]}

def main():
    tool, cuanto, models = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None, sys.argv[3:]
    compared = wrong = 0
    with tempfile.TemporaryDirectory() as tmp:
        files = {m: os.path.join(tmp, m + ".gguf") for m in MODELS}
        for m, path in files.items(): write_model(path, MODELS[m])
        real = {os.path.basename(p): p for p in models}
        for name, path in {**files, **real}.items():
            im = os.path.join(tmp, "im.gguf")
            write_importance(im, path)
            for mix in MIXES:
                lines = {"-": [], "+": []}
                for sign, imatrix in (("-", None), ("+", im)):
                    want = theirs(tool, path, mix, imatrix)
                    if want is None:
                        print(f"{name} {mix} {sign}: llama-quantize refuses", file=sys.stderr)
                        continue
                    if cuanto:
                        compared += 1
                        got = ours(cuanto, path, mix, imatrix)
                        if got != want:
                            wrong += 1
                            diff = got if isinstance(got, str) else [(k, want[k], got.get(k)) for k in want if got.get(k) != want[k]][:4]
                            print(f"{name} {mix} {sign}: differs: {diff}", file=sys.stderr)
                    if name not in MODELS: continue
                    for kind in ["token_embd", "output"] + KINDS:
                        types = [t for n, t in sorted(want.items(), key=lambda x: int(x[0].split(".")[1]) if x[0].startswith("blk") else -1)
                                 if re.fullmatch(rf"(blk\.\d+\.)?{kind}(_exps)?\.weight", n)]
                        if not types: continue
                        runs = []
                        for t in types:
                            if runs and runs[-1][0] == t: runs[-1][1] += 1
                            else: runs.append([t, 1])
                        lines[sign].append(" ".join([kind] + [f"{t}*{n}" for t, n in runs]))
                for line in lines["-"]: print(name, mix, "=" if line in lines["+"] else "-", line)
                for line in lines["+"]:
                    if line not in lines["-"]: print(name, mix, "+", line)
    if cuanto: print(f"{compared} compared, {wrong} differ", file=sys.stderr)

main()
