#!/usr/bin/env python3
"""Adapters against llama.cpp and against PEFT.
  lora.py llama CUANTO MODEL.gguf [--work DIR]     a random adapter in GGUF on a real model: top logits of `cuanto run --json` and of llama-cpp-python
  lora.py peft  LLAMA_SRC LOGITS [--work DIR]      a tiny random transformers model with a PEFT adapter, both converted by llama.cpp's scripts: all logits
CUANTO: the binary. LOGITS: build/release/logits (tests/oracle/logits.c). Needs numpy, gguf, llama_cpp (llama) or torch, transformers, peft (peft).
Not part of `make test`."""
import argparse, json, os, subprocess, sys
import numpy as np


def random_adapter(model, path, rank=8, alpha=16.0, seed=0):
    import gguf
    r, rng = gguf.GGUFReader(model), np.random.default_rng(seed)
    arch = bytes(r.fields["general.architecture"].parts[-1]).decode()
    w = gguf.GGUFWriter(path, arch)
    w.add_type("adapter")
    w.add_string("adapter.type", "lora")
    w.add_float32("adapter.lora.alpha", alpha)
    n = 0
    for t in r.tensors:
        if t.name.startswith("blk.") and t.name.endswith(".weight") and len([x for x in t.shape if x > 1]) == 2:
            k, rows = int(t.shape[0]), int(t.shape[1])
            w.add_tensor(t.name + ".lora_a", (rng.standard_normal((rank, k)) / np.sqrt(k)).astype(np.float32))
            w.add_tensor(t.name + ".lora_b", (rng.standard_normal((rows, rank)) * 0.05).astype(np.float32))
            n += 1
    w.write_header_to_file(), w.write_kv_data_to_file(), w.write_tensors_to_file(), w.close()
    return n


def llama_mode(a):
    from llama_cpp import Llama
    adapter = os.path.join(a.work, "adapter.gguf")
    print(random_adapter(a.model, adapter), "matrices")
    prompt = "The history of the city begins with a small village on the river, where"
    worst = []
    for lora in (None, adapter):
        args = [a.cuanto, "run", a.model, "--raw", prompt, "-n", "16", "--temp", "0", "--ignore-eos", "-q", "--json", "--top-logprobs", "20", "--kv-type", "f32", "-c", "256"]
        mine = json.loads(subprocess.run(args + (["--lora", lora] if lora else []), check=True, capture_output=True).stdout)
        other = Llama(a.model, n_ctx=256, logits_all=True, verbose=False, lora_path=lora, type_k=0, type_v=0, n_threads=2)
        ids, diff, same = other.tokenize(prompt.encode(), add_bos=True), 0.0, 0
        other.eval(ids)
        for step in mine["logprobs"]:
            row = np.asarray(other.scores[other.n_tokens - 1], dtype=np.float64)
            row -= row.max() + np.log(np.exp(row - row.max()).sum())
            diff = max([diff] + [abs(row[t["id"]] - t["logprob"]) for t in step["top"][:5]])
            same += int(row.argmax()) == step["id"]
            other.eval([step["id"]])
        worst.append(diff)
        print(f"{'adapter' if lora else 'base':8} {mine['text'][:60]!r} same top token {same}/{len(mine['logprobs'])}, log probabilities of the top 5 differ by {diff:.4f}")
    return worst


def peft_mode(a):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    from peft import LoraConfig, get_peft_model
    torch.manual_seed(1)
    base, tuned = os.path.join(a.work, "base"), os.path.join(a.work, "adapter")
    c = LlamaConfig(vocab_size=256, hidden_size=64, intermediate_size=112, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                    max_position_embeddings=256, tie_word_embeddings=False, bos_token_id=1, eos_token_id=2)
    m = LlamaForCausalLM(c).float().eval()
    for p in m.parameters():
        if p.dim() == 1: p.data = 1 + 0.2 * torch.randn_like(p)
        else: p.data = torch.randn_like(p) / p.shape[-1] ** 0.5
    m.save_pretrained(base, safe_serialization=True)
    peft = get_peft_model(m, LoraConfig(r=6, lora_alpha=12, target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"],
                                        task_type="CAUSAL_LM")).eval()
    for name, p in peft.named_parameters():
        if "lora_" in name: p.data = torch.randn_like(p) * (0.3 if "lora_B" in name else p.shape[-1] ** -0.5)
    peft.save_pretrained(tuned, safe_serialization=True)
    gguf_base, gguf_lora = os.path.join(a.work, "base.gguf"), os.path.join(a.work, "lora.gguf")
    write_base(m, c, gguf_base)
    subprocess.run([sys.executable, os.path.join(a.llama_src, "convert_lora_to_gguf.py"), "--base", base, "--outfile", gguf_lora, "--outtype", "f32", tuned], check=True,
                   capture_output=True)
    ids = [int(x) for x in torch.randint(3, 256, (90,))]
    with torch.no_grad():
        want = peft(torch.tensor([ids])).logits[0].double().numpy()
    got = run_logits(a.logits, gguf_base, gguf_lora, ids, a.work)
    print("PEFT: rel. error", np.abs(got - want).max() / np.abs(want).max())


def write_base(m, c, path, end=None):
    """The base as GGUF by gguf-py: rows of Q and K in the pair order of the format."""
    import gguf
    w = gguf.GGUFWriter(path, "llama")
    for key, v in dict(block_count=c.num_hidden_layers, context_length=256, embedding_length=c.hidden_size, feed_forward_length=c.intermediate_size).items():
        w.add_uint32("llama." + key, v)
    w.add_uint32("llama.attention.head_count", c.num_attention_heads)
    w.add_uint32("llama.attention.head_count_kv", c.num_key_value_heads)
    w.add_float32("llama.attention.layer_norm_rms_epsilon", c.rms_norm_eps)
    w.add_uint32("llama.rope.dimension_count", c.hidden_size // c.num_attention_heads)
    w.add_float32("llama.rope.freq_base", 10000.0)
    w.add_string("tokenizer.ggml.model", "gpt2")
    w.add_string("tokenizer.ggml.pre", "default")
    special = end is not None  # every token by its name <i>: control tokens need no rules
    w.add_array("tokenizer.ggml.tokens", ["t", "1", "t1"] + [f"<{i}>" for i in range(3, c.vocab_size)])
    w.add_array("tokenizer.ggml.token_type", [1] * 3 + [4 if special else 1] * (c.vocab_size - 3))
    if special: w.add_uint32("tokenizer.ggml.eos_token_id", end)
    w.add_array("tokenizer.ggml.merges", ["t 1"])
    names = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate",
             "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
    tops = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight", "lm_head.weight": "output.weight"}
    for name, t in m.state_dict().items():
        if "lora_" in name: continue
        name, x = name.replace(".base_layer", ""), t.float().numpy()
        if name in tops: out = tops[name]
        else:
            _, _, layer, rest = name.split(".", 3)
            out = f"blk.{layer}.{names[rest.removesuffix('.weight')]}.weight"
            heads = {"attn_q": c.num_attention_heads, "attn_k": c.num_key_value_heads}.get(names[rest.removesuffix(".weight")])
            if heads: x = x.reshape(heads, 2, x.shape[0] // heads // 2, x.shape[1]).swapaxes(1, 2).reshape(x.shape)
        w.add_tensor(out, np.ascontiguousarray(x))
    w.write_header_to_file(), w.write_kv_data_to_file(), w.write_tensors_to_file(), w.close()


def run_logits(tool, model, lora, ids, work):
    path, out = os.path.join(work, "ids.bin"), os.path.join(work, "out.bin")
    np.asarray(ids, dtype=np.int32).tofile(path)
    subprocess.run([tool, model, path, out, "256", "kv=f32", "lora=" + lora], check=True)
    return np.fromfile(out, dtype=np.float32).reshape(len(ids), -1).astype(np.float64)


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("mode", choices=["llama", "peft"])
    p.add_argument("first"), p.add_argument("second"), p.add_argument("--work", default="/tmp/lora_work")
    a = p.parse_args()
    os.makedirs(a.work, exist_ok=True)
    if a.mode == "llama": a.cuanto, a.model = a.first, a.second; llama_mode(a)
    else: a.llama_src, a.logits = a.first, a.second; peft_mode(a)
