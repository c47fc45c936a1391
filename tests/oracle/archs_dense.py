"""Rows for archs.py: dense models with attention in every layer, and their mixtures. Keys: name, cls (transformers class), what (is exercised), config
(keyword arguments of its config class); optional: lengths (prompts), n_ctx, golden (prompt of the golden), fill, make_config(kw), patch_config(config
dict), after_save(dir)."""

BASE = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
            tie_word_embeddings=False)
MOE = BASE | dict(num_hidden_layers=2)


def row(name, cls, what, base=BASE, **kw):
    extra = {k: kw.pop(k) for k in ("lengths", "n_ctx", "golden", "fill", "make_config", "patch_config", "after_save") if k in kw}
    return dict(name=name, cls=cls, what=what, config=base | kw, **extra)


ROWS = [
    row("llama", "LlamaForCausalLM", "grouped queries, tied head", tie_word_embeddings=True),
    row("llama-bias", "LlamaForCausalLM", "biases everywhere, wide heads", attention_bias=True, mlp_bias=True, head_dim=24),
    row("llama-3.1", "LlamaForCausalLM", "rope factors of Llama 3.1", rope_theta=10000.0, rope_scaling=dict(
        rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64)),
    row("llama-linear", "LlamaForCausalLM", "linear rope scaling", rope_scaling=dict(rope_type="linear", factor=4.0)),
    row("llama-yarn", "LlamaForCausalLM", "YaRN", rope_scaling=dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=128)),
    row("mistral", "MistralForCausalLM", "no window, wide heads", sliding_window=None, head_dim=24),
    row("mixtral", "MixtralForCausalLM", "2 of 5 experts", MOE, num_local_experts=5, num_experts_per_tok=2, sliding_window=None),
    row("qwen2", "Qwen2ForCausalLM", "biases of Q, K, V", use_sliding_window=False),
    row("qwen3", "Qwen3ForCausalLM", "head norms, wide heads", head_dim=24, use_sliding_window=False),
]
