"""Rows for archs.py: dense models with attention in every layer, and their mixtures. Keys: name, cls (transformers class), what (is exercised), config
(keyword arguments of its config class); optional: lengths (prompts), n_ctx, golden (prompts of the goldens), fill, make_config(kw), patch_config(config
dict), after_save(dir), mxfp4 (endings of names of what is stored so)."""
import numpy as np

BASE = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
            tie_word_embeddings=False)
TIED = BASE | dict(tie_word_embeddings=True)
MOE = BASE | dict(num_hidden_layers=2)


def row(name, cls, what, base=BASE, **kw):
    extra = {k: kw.pop(k) for k in ("lengths", "n_ctx", "golden", "fill", "make_config", "patch_config", "after_save", "mxfp4") if k in kw}
    return dict(name=name, cls=cls, what=what, config=base | kw, **extra)
GRANITE = dict(embedding_multiplier=9.0, residual_multiplier=0.3, attention_multiplier=0.11, logits_scaling=6.0)
MROPE = dict(rope_type="default", rope_theta=1e4, mrope_section=[4, 2, 2])


def vision(config):
    """The config of a whole vision model around a text config, with a smallest possible eye."""
    def make(kw):
        import transformers
        eye = dict(depth=1, hidden_size=32, embed_dim=32, intermediate_size=32, num_heads=2, out_hidden_size=64, deepstack_visual_indexes=[0],
                   num_position_embeddings=16)
        return getattr(transformers, config)(text_config=kw, vision_config=eye, vocab_size=kw["vocab_size"], image_token_id=318, video_token_id=317,
                                             vision_start_token_id=316, vision_end_token_id=315, tie_word_embeddings=kw["tie_word_embeddings"])
    return make


def gemma_vision(kw):
    import transformers
    eye = dict(hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14)
    return transformers.Gemma3Config(text_config=kw, vision_config=eye, mm_tokens_per_image=4, image_token_index=318, boi_token_index=317,
                                     eoi_token_index=316)


def mistral_vision(kw):
    import transformers
    eye = dict(model_type="pixtral", hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14)
    return transformers.Mistral3Config(text_config=kw | dict(model_type="mistral", sliding_window=None), vision_config=eye, image_token_index=318)


def turn_experts(dir):
    """Stacks of experts as published files have them, [in][out]; transformers 5 saves them the other way round and reads both."""
    from safetensors.numpy import load_file, save_file
    save_file({k: np.ascontiguousarray(v.swapaxes(1, 2)) if ".experts." in k else v for k, v in load_file(dir / "model.safetensors").items()},
              dir / "model.safetensors", metadata={"format": "pt"})


def v4(c):
    """config.json as transformers 4 wrote it, and most published checkpoints have it."""
    rope = c.pop("rope_parameters")
    if "full_attention" in rope:
        c["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        rope = rope["full_attention"]
    c["rope_theta"] = rope.pop("rope_theta")
    if "partial_rotary_factor" in rope:
        c["partial_rotary_factor"] = rope.pop("partial_rotary_factor")
    if "short_factor" in rope:
        c["original_max_position_embeddings"] = rope.pop("original_max_position_embeddings")
        rope = dict(type="longrope", short_factor=rope["short_factor"], long_factor=rope["long_factor"])
    c["rope_scaling"] = None if rope.get("rope_type") == "default" else rope
    c.pop("layer_types", None)
    c["torch_dtype"] = c.pop("dtype", "float32")


def bare_gemma3(config):
    """Only what the config.json of Gemma 3 4B says of its language part; the rest is the defaults of transformers."""
    for key in ("max_position_embeddings", "num_attention_heads", "num_key_value_heads", "head_dim", "rms_norm_eps", "query_pre_attn_scalar",
                "rope_parameters", "layer_types", "_sliding_window_pattern", "hidden_activation", "attention_bias", "use_bidirectional_attention"):
        config.pop(key, None)
    config["rope_scaling"] = dict(factor=8.0, rope_type="linear")


ROWS = [
    row("llama", "LlamaForCausalLM", "grouped queries, tied head", tie_word_embeddings=True),
    row("llama-bias", "LlamaForCausalLM", "biases everywhere, wide heads", attention_bias=True, mlp_bias=True, head_dim=24),
    row("llama-3.1", "LlamaForCausalLM", "rope factors of Llama 3.1", rope_theta=10000.0, rope_scaling=dict(
        rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64)),
    row("llama-linear", "LlamaForCausalLM", "linear rope scaling", rope_scaling=dict(rope_type="linear", factor=4.0)),
    row("llama-yarn", "LlamaForCausalLM", "YaRN", rope_scaling=dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=128)),
    row("mistral", "MistralForCausalLM", "no window, wide heads", sliding_window=None, head_dim=24),
    row("mixtral", "MixtralForCausalLM", "2 of 5 experts", MOE, num_local_experts=5, num_experts_per_tok=2, sliding_window=None),
    row("mistral-window", "MistralForCausalLM", "window of 40", sliding_window=40, tie_word_embeddings=True),
    row("qwen2", "Qwen2ForCausalLM", "biases of Q, K, V", use_sliding_window=False),
    row("qwen2-window", "Qwen2ForCausalLM", "windows of 40 from the second layer on", use_sliding_window=True, sliding_window=40, max_window_layers=1),
    row("qwen3-llama3", "Qwen3ForCausalLM", "rope factors of Llama 3.1, bias of O", head_dim=32, attention_bias=True,
        rope_parameters=dict(rope_type="llama3", rope_theta=1e4, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                             original_max_position_embeddings=64)),
    row("qwen3", "Qwen3ForCausalLM", "head norms, wide heads", head_dim=24, use_sliding_window=False),
    row("qwen2moe", "Qwen2MoeForCausalLM", "3 of 6 experts beside a gated shared one", MOE, moe_intermediate_size=40, num_experts=6,
        num_experts_per_tok=3, shared_expert_intermediate_size=56, norm_topk_prob=False, use_sliding_window=False),
    row("qwen3moe", "Qwen3MoeForCausalLM", "3 of 6 experts, normalised; wide heads", MOE, moe_intermediate_size=40, num_experts=6, num_experts_per_tok=3,
        norm_topk_prob=True, head_dim=24, use_sliding_window=False),
    row("ministral-3", "Ministral3ForCausalLM", "YaRN, queries scaled by position", head_dim=24, rope_parameters=dict(
        rope_type="yarn", rope_theta=1e4, factor=4.0, original_max_position_embeddings=32, max_position_embeddings=512, beta_fast=32.0, beta_slow=1.0,
        mscale=1.0, mscale_all_dim=1.0, llama_4_scaling_beta=0.1)),
    row("qwen2-vl", "Qwen2VLForConditionalGeneration", "language part", make_config=vision("Qwen2VLConfig"), rope_parameters=MROPE),
    row("qwen2.5-vl", "Qwen2_5_VLForConditionalGeneration", "language part", make_config=vision("Qwen2_5_VLConfig"), rope_parameters=MROPE),
    row("qwen3-vl", "Qwen3VLForConditionalGeneration", "language part", make_config=vision("Qwen3VLConfig"), head_dim=24,
        rope_parameters=MROPE | dict(mrope_section=[4, 4, 4])),
    row("qwen3-vl-moe", "Qwen3VLMoeForConditionalGeneration", "language part, 3 of 6 experts", MOE, after_save=turn_experts, make_config=vision("Qwen3VLMoeConfig"), head_dim=24,
        rope_parameters=MROPE | dict(mrope_section=[4, 4, 4]), moe_intermediate_size=40, num_experts=6, num_experts_per_tok=3, norm_topk_prob=True),
    row("gemma", "GemmaForCausalLM", "GeGLU, one KV head", TIED, num_key_value_heads=1, head_dim=24),
    row("gemma2", "Gemma2ForCausalLM", "both softcaps, windows of 40, query scale", TIED, head_dim=24, sliding_window=40, query_pre_attn_scalar=24,
        attn_logit_softcapping=2.0, final_logit_softcapping=3.0),
    row("gemma3", "Gemma3ForCausalLM", "5 of 6 layers with windows of 40 and their own base", TIED, num_hidden_layers=7, head_dim=24, sliding_window=40,
        query_pre_attn_scalar=24, rope_parameters=dict(full_attention=dict(rope_type="linear", factor=8.0, rope_theta=1e5),
                                                       sliding_attention=dict(rope_type="default", rope_theta=1e4))),
    row("gemma3-defaults", "Gemma3ForCausalLM", "what the published 4B to 27B leave out of config.json", TIED, num_hidden_layers=6, num_attention_heads=8,
        num_key_value_heads=4, head_dim=256, sliding_window=40, max_position_embeddings=131072, patch_config=bare_gemma3),
    row("phi-mini", "Phi3ForCausalLM", "fused Q, K, V and gate, up; window of 40", sliding_window=40),
    row("phi4-mini", "Phi3ForCausalLM", "LongRoPE on both sides of its context, rope on 3/4 of a head", TIED, sliding_window=None,
        partial_rotary_factor=0.75, original_max_position_embeddings=256, lengths=[300, 200], golden=[260, 72],
        rope_parameters=dict(rope_type="longrope", rope_theta=1e4, short_factor=[1.0, 1.1, 1.2, 1.3, 1.4, 1.5],
                             long_factor=[1.0, 1.5, 2.5, 4.0, 6.0, 8.0])),
    row("gpt-oss", "GptOssForCausalLM", "sinks, windows of 40, YaRN, 3 of 5 experts with clamped SwiGLU, biases", MOE, head_dim=24, num_hidden_layers=3,
        intermediate_size=40, num_local_experts=5, num_experts_per_tok=3, sliding_window=40, rope_parameters=dict(
            rope_type="yarn", rope_theta=15000.0, factor=8.0, beta_fast=32.0, beta_slow=1.0, truncate=False, original_max_position_embeddings=64)),
    row("gpt-oss-mxfp4", "GptOssForCausalLM", "experts as MXFP4", MOE, head_dim=24, intermediate_size=96, num_local_experts=5, num_experts_per_tok=3,
        sliding_window=40, mxfp4=("gate_up_proj", "down_proj"), rope_parameters=dict(
            rope_type="yarn", rope_theta=15000.0, factor=8.0, truncate=False, original_max_position_embeddings=64)),
    row("granite", "GraniteForCausalLM", "four scales", **GRANITE),
    row("granitemoe", "GraniteMoeForCausalLM", "four scales, 3 of 6 experts", MOE, num_local_experts=6, num_experts_per_tok=3, **GRANITE),
    row("granitemoe-shared", "GraniteMoeSharedForCausalLM", "four scales, 3 of 6 experts beside a shared one", MOE, num_local_experts=6,
        num_experts_per_tok=3, shared_intermediate_size=40, **GRANITE),
    row("olmo2", "Olmo2ForCausalLM", "norms behind blocks, Q and K normed whole"),
    row("olmo3", "Olmo3ForCausalLM", "windows of 40, YaRN in the other layers", num_hidden_layers=5, sliding_window=40, rope_parameters=dict(
        full_attention=dict(rope_type="yarn", rope_theta=1e4, factor=8.0, original_max_position_embeddings=64),
        sliding_attention=dict(rope_type="default", rope_theta=1e4))),
    row("olmoe", "OlmoeForCausalLM", "Q and K normed whole, 3 of 6 experts", MOE, num_key_value_heads=4, num_experts=6, num_experts_per_tok=3),
    row("smollm3", "SmolLM3ForCausalLM", "every 4th layer without positions", TIED, num_hidden_layers=5),
    row("command-r", "CohereForCausalLM", "parallel blocks, LayerNorm, logit scale", TIED, logit_scale=0.25),
    row("command-r-plus", "CohereForCausalLM", "LayerNorms of Q and K heads", TIED, logit_scale=0.25, use_qk_norm=True),
    row("cohere2", "Cohere2ForCausalLM", "windows of 40 with rope, other layers without", TIED, num_hidden_layers=5, logit_scale=0.25, sliding_window=40,
        patch_config=lambda c: c.update(rotary_pct=1.0)),
    row("seed-oss", "SeedOssForCausalLM", "biases, wide heads", head_dim=24),
    row("arcee", "ArceeForCausalLM", "squared ReLU without gate, YaRN", rope_parameters=dict(
        rope_type="yarn", rope_theta=1e4, factor=4.0, original_max_position_embeddings=64)),
    row("apertus", "ApertusForCausalLM", "xIELU, head norms, rope factors", fill={"act_fn.beta": (0.5, 0.1), "act_fn.eps": (-1e-6, 0.0)},
        rope_parameters=dict(rope_type="llama3", rope_theta=1e4, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                             original_max_position_embeddings=64)),
    row("exaone4", "Exaone4ForCausalLM", "positions everywhere", sliding_window=None, layer_types=["full_attention"] * 3),
    row("exaone4-hybrid", "Exaone4ForCausalLM", "windows of 40 with rope, other layers without", num_hidden_layers=5, sliding_window=40,
        sliding_window_pattern=4),
    row("ernie4.5", "Ernie4_5ForCausalLM", "adjacent rope pairs, wide heads", TIED, head_dim=24),
    row("gemma3-vision", "Gemma3ForConditionalGeneration", "language part of a vision model", TIED, num_hidden_layers=7, head_dim=24, sliding_window=40,
        query_pre_attn_scalar=24, make_config=gemma_vision),
    row("mistral-small-3.1", "Mistral3ForConditionalGeneration", "language part of a vision model", head_dim=24, make_config=mistral_vision),
]


def as_v4(name, **kw):
    r = next(r for r in ROWS if r["name"] == name)
    return r | dict(name=name + "-v4", what=r["what"] + "; config.json of transformers 4", patch_config=lambda c: (v4(c), c.update(kw))) | (
        {"golden": 72} if "golden" in r else {})


ROWS += [as_v4("llama-3.1"), as_v4("llama-yarn"), as_v4("gemma3", sliding_window_pattern=6), as_v4("phi4-mini"), as_v4("gpt-oss"),
         as_v4("cohere2", sliding_window_pattern=4, rotary_pct=1.0)]
