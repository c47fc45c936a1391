"""Rows for archs.py: the older families, and those after DeepSeek. Keys as in archs_dense.py."""
from archs_dense import BASE, row

FLAT = {k: v for k, v in BASE.items() if k != "num_key_value_heads"}
MOE = BASE | dict(num_hidden_layers=3, moe_intermediate_size=40)
MLA = {k: v for k, v in MOE.items() if k != "num_key_value_heads"} | dict(
    num_key_value_heads=4, kv_lora_rank=40, q_lora_rank=48, qk_rope_head_dim=16, qk_nope_head_dim=24, v_head_dim=32, first_k_dense_replace=1,
    n_routed_experts=8, num_experts_per_tok=3, n_shared_experts=2)
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=128, mscale=0.7, mscale_all_dim=0.7, beta_fast=32, beta_slow=1, rope_theta=1e4)
BIAS = {"e_score_correction_bias": (0.0, 0.5)}  # large enough to change the choice


def bare_rope(config):
    """A share of the head that is turned beside a base that is the default."""
    config["partial_rotary_factor"] = config.pop("rope_parameters")["partial_rotary_factor"]


def n_ctx(c):
    c["n_ctx"] = c["n_positions"]  # llama.cpp's converter reads it


def old_class(c):
    c["architectures"] = ["MPTForCausalLM"]


def rotary_pct(c):
    c["rotary_pct"] = c["rope_parameters"]["partial_rotary_factor"]


def one_kv_head(c):
    del c["num_kv_heads"]


def sigmoid(c):
    c["scoring_func"] = "sigmoid"  # as published files have it


def lists(c):
    for name, v in (("moe_intermediate_size", 96), ("moe_topk", 3), ("num_shared_expert", 1)):
        c[name] = [v] * c["num_hidden_layers"]


# ---- families whose code is not in transformers: what the tensors of their checkpoints are called ----

def remote(name, hf, what, tensors, base, **kw):
    return dict(name=name, cls=None, hf=hf, what=what, tensors=tensors, config=base | kw)


def around(c, layer, embd="model.embed_tokens.weight", head="lm_head.weight"):
    n = c["hidden_size"]
    out = {embd: (c["vocab_size"], n), "model.norm.weight": (n,), head: (c["vocab_size"], n)}
    for il in range(c["num_hidden_layers"]):
        out |= {f"model.layers.{il}.{k}": v for k, v in layer(il).items()}
    return out


def gated(prefix, n, ff, names=("gate_proj", "up_proj", "down_proj")):
    return {f"{prefix}{k}.weight": (n, ff) if k == names[2] else (ff, n) for k in names}


def experts(c, n_expert, n_shared):
    n, ff = c["hidden_size"], c["moe_intermediate_size"]
    out = {"mlp.gate.weight": (n_expert, n)} | gated("mlp.shared_experts.", n, ff * n_shared)
    for e in range(n_expert):
        out |= gated(f"mlp.experts.{e}.", n, ff)
    return out


def norms(c):
    return {"input_layernorm.weight": (c["hidden_size"],), "post_attention_layernorm.weight": (c["hidden_size"],)}


def internlm2(c):
    n, h, kv = c["hidden_size"], c["num_attention_heads"], c["num_key_value_heads"]
    block = {"attention.wqkv.weight": ((h + 2 * kv) * n // h, n), "attention.wo.weight": (n, n), "attention_norm.weight": (n,), "ffn_norm.weight": (n,)}
    return around(c, lambda il: block | gated("feed_forward.", n, c["intermediate_size"], ("w1", "w3", "w2")), "model.tok_embeddings.weight", "output.weight")


def baichuan(c):
    n = c["hidden_size"]
    block = norms(c) | {"self_attn.W_pack.weight": (3 * n, n), "self_attn.o_proj.weight": (n, n)} | gated("mlp.", n, c["intermediate_size"])
    return around(c, lambda il: block)


def deepseek(c):
    n, kv = c["hidden_size"], c["num_key_value_heads"] * c["hidden_size"] // c["num_attention_heads"]
    block = norms(c) | {f"self_attn.{k}_proj.weight": (m, n) for k, m in (("q", n), ("k", kv), ("v", kv), ("o", n))}
    return around(c, lambda il: block | (experts(c, c["n_routed_experts"], c["n_shared_experts"]) if il >= c["first_k_dense_replace"]
                                         else gated("mlp.", n, c["intermediate_size"])))


def ling(c):
    n, h, kv, d = c["hidden_size"], c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"]
    block = norms(c) | {"attention.query_key_value.weight": ((h + 2 * kv) * d, n), "attention.dense.weight": (n, h * d)}
    return around(c, lambda il: block | experts(c, c["num_experts"], c["num_shared_experts"]), "model.word_embeddings.weight")


PLAIN = BASE | dict(rms_norm_eps=1e-6)

ROWS = [
    row("gpt2", "GPT2LMHeadModel", "learned positions", {}, n_embd=64, n_layer=3, n_head=4, n_positions=512, n_inner=None, patch_config=n_ctx),
    row("bloom", "BloomForCausalLM", "ALiBi, 4 heads", {}, hidden_size=64, n_layer=3, n_head=4),
    row("bloom-6", "BloomForCausalLM", "ALiBi, 6 heads", {}, hidden_size=96, n_layer=3, n_head=6),
    row("mpt", "MptForCausalLM", "ALiBi of 6 heads, clamped", {}, d_model=96, n_layers=3, n_heads=6, expansion_ratio=4, max_seq_len=512,
        attn_config=dict(clip_qkv=0.7, alibi=True, alibi_bias_max=8), patch_config=old_class),
    row("gptneox", "GPTNeoXForCausalLM", "side by side", FLAT, rotary_pct=0.5, use_parallel_residual=True, patch_config=rotary_pct),
    row("gptneox-serial", "GPTNeoXForCausalLM", "one behind the other", FLAT, rotary_pct=0.25, use_parallel_residual=False,
        patch_config=rotary_pct),
    row("falcon-7b", "FalconForCausalLM", "one KV head, one norm", {}, hidden_size=64, num_hidden_layers=3, num_attention_heads=4, multi_query=True,
        parallel_attn=True, bias=False, alibi=False, new_decoder_architecture=False, patch_config=one_kv_head),
    row("falcon-40b", "FalconForCausalLM", "two norms", {}, hidden_size=96, num_hidden_layers=3, num_attention_heads=6, num_kv_heads=2, bias=False,
        alibi=False, new_decoder_architecture=True),
    row("phi2", "PhiForCausalLM", "side by side, part of the head turned", FLAT | dict(intermediate_size=256), partial_rotary_factor=0.5),
    row("starcoder2", "Starcoder2ForCausalLM", "biases, plain block", sliding_window=None, use_bias=True),
    row("stablelm", "StableLmForCausalLM", "part of the head turned", partial_rotary_factor=0.5, use_qkv_bias=True),
    row("stablelm-bare", "StableLmForCausalLM", "a part of each head turned, the base left out of config.json", partial_rotary_factor=0.5, use_qkv_bias=True,
        patch_config=bare_rope),
    row("stablelm-12b", "StableLmForCausalLM", "norm of each head, side by side", partial_rotary_factor=0.5, qk_layernorm=True, use_parallel_residual=True),
    row("olmo", "OlmoForCausalLM", "norms without weights, clamped", clip_qkv=0.8),
    row("nemotron", "NemotronForCausalLM", "norms 1 + w, squared ReLU", partial_rotary_factor=0.5, fill={"norm": (0.0, 0.2)}),
    row("deepseek2-lite", "DeepseekV2ForCausalLM", "latent attention, plain Q", MLA | dict(q_lora_rank=None), topk_method="greedy", n_group=1,
        topk_group=1, routed_scaling_factor=1.5),
    row("deepseek2-v2", "DeepseekV2ForCausalLM", "groups by their best, YaRN", MLA, topk_method="group_limited_greedy", n_group=4, topk_group=2,
        routed_scaling_factor=2.0, rope_scaling=YARN),
    row("deepseek2-v3", "DeepseekV3ForCausalLM", "sigmoid, groups by two best, bias", MLA, n_group=4, topk_group=2, routed_scaling_factor=2.5,
        norm_topk_prob=True, rope_scaling=YARN, fill=BIAS, patch_config=sigmoid),
    row("glm4", "Glm4ForCausalLM", "norms on both sides, adjacent pairs", head_dim=24, partial_rotary_factor=0.5, attention_bias=True),
    row("glm4moe", "Glm4MoeForCausalLM", "sigmoid, bias, shared expert", MOE, head_dim=24, partial_rotary_factor=0.5, attention_bias=True, use_qk_norm=True,
        n_routed_experts=8, num_experts_per_tok=3, n_shared_experts=1, first_k_dense_replace=1, routed_scaling_factor=1.5, norm_topk_prob=True, n_group=1,
        topk_group=1, fill=BIAS),
    row("minimax-m2", "MiniMaxM2ForCausalLM", "norms over all heads, sigmoid, bias", head_dim=24, rotary_dim=16, num_local_experts=8, num_experts_per_tok=3,
        fill=BIAS, patch_config=sigmoid),
    row("ernie4_5-moe", "Ernie4_5_MoeForCausalLM", "softmax and bias, shared experts", MOE | dict(moe_intermediate_size=24), moe_num_experts=8, moe_k=3, moe_num_shared_experts=2,
        moe_layer_start_index=1, moe_layer_interval=1, use_bias=False, fill={"e_score_correction_bias": (0.0, 0.2)}),
    row("hunyuan-dense", "HunYuanDenseV1ForCausalLM", "norms behind the rotation", head_dim=24),
    row("hunyuan-alpha", "HunYuanDenseV1ForCausalLM", "rope base stretched by alpha", head_dim=24, rope_parameters=dict(rope_type="dynamic", rope_theta=1e4,
        factor=1.0, alpha=50.0)),
    row("hunyuan-moe", "HunYuanMoEV1ForCausalLM", "experts beside a dense block", head_dim=24, rope_parameters=dict(rope_type="default", rope_theta=1e4),
        num_experts=6, moe_topk=3, num_shared_expert=1, patch_config=lists),
    row("dots1", "Dots1ForCausalLM", "head norms, sigmoid, bias", MOE | dict(num_key_value_heads=4), n_routed_experts=8, num_experts_per_tok=3, n_shared_experts=2,
        first_k_dense_replace=1, routed_scaling_factor=2.5, norm_topk_prob=True, n_group=1, topk_group=1, fill=BIAS,
        patch_config=sigmoid),
    row("dbrx", "DbrxForCausalLM", "clamped, 3 of 6 experts", {}, d_model=64, n_heads=4, n_layers=3, max_seq_len=512,
        attn_config=dict(clip_qkv=0.7, kv_n_heads=2, rope_theta=10000.0), ffn_config=dict(ffn_hidden_size=48, moe_num_experts=6, moe_top_k=3)),
    row("phimoe", "PhimoeForCausalLM", "LayerNorm, experts one after the other", num_local_experts=6, num_experts_per_tok=2, attention_bias=True, lm_head_bias=True,
        sliding_window=None, rope_parameters=dict(rope_type="default", rope_theta=1e4), fill={"mlp.router": (0.0, 2.0), "gate.weight": (0.0, 2.0)}),
    row("phimoe-long", "PhimoeForCausalLM", "LongRoPE", num_local_experts=4, num_experts_per_tok=2, attention_bias=True, lm_head_bias=True, sliding_window=None, rope_parameters=dict(
        rope_type="longrope", rope_theta=1e4, short_factor=[1.0 + 0.05 * i for i in range(8)], long_factor=[1.0 + 0.5 * i for i in range(8)],
        short_mscale=1.1102230246251565, long_mscale=1.1102230246251565, original_max_position_embeddings=512, factor=4.0),
        max_position_embeddings=2048, fill={"mlp.router": (0.0, 2.0)}),
    row("starcoder", "GPTBigCodeForCausalLM", "one KV head, learned positions", {}, n_embd=64, n_layer=3, n_head=4, n_positions=512, n_inner=None, patch_config=n_ctx),
    row("glm", "GlmForCausalLM", "adjacent pairs, gate and up together", partial_rotary_factor=0.5, attention_bias=True, head_dim=16),
    remote("internlm2", "InternLM2ForCausalLM", "Q, K, V in groups", internlm2, PLAIN, num_attention_heads=8),
    remote("baichuan", "BaichuanForCausalLM", "Q, K, V in one matrix", baichuan, PLAIN, num_hidden_layers=32, num_key_value_heads=4),
    remote("baichuan-13b", "BaichuanForCausalLM", "ALiBi", baichuan, PLAIN, num_hidden_layers=40, num_key_value_heads=4),
    remote("deepseek", "DeepseekForCausalLM", "softmax, shared experts", deepseek, PLAIN, moe_intermediate_size=24, n_routed_experts=6, num_experts_per_tok=3,
           n_shared_experts=2, first_k_dense_replace=1, norm_topk_prob=False),
    remote("bailingmoe", "BailingMoeForCausalLM", "normalised softmax, shared expert", ling, PLAIN, head_dim=16, moe_intermediate_size=24, num_experts=6,
           num_experts_per_tok=3, num_shared_experts=1, first_k_dense_replace=0, norm_topk_prob=True),
]
