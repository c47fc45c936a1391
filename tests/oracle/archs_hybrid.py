"""Rows for archs.py: models with recurrent layers, and Gemma 4. See archs_dense.py for the keys."""

BASE = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
            tie_word_embeddings=False)
NET = dict(head_dim=24, linear_num_key_heads=2, linear_num_value_heads=6, linear_key_head_dim=16, linear_value_head_dim=16)
EXPERTS = dict(num_experts=5, num_experts_per_tok=2, moe_intermediate_size=40, shared_expert_intermediate_size=56)
FILL = {"A_log": (0.5, 0.8), "dt_bias": (0.3, 0.5), "conv1d": (0.0, 0.8)}
LIN, FULL = "linear_attention", "full_attention"


def row(name, cls, what, base=BASE, **kw):
    extra = {k: kw.pop(k) for k in ("lengths", "n_ctx", "golden", "fill", "make_config", "patch_config", "after_save") if k in kw}
    return dict(name=name, cls=cls, what=what, config=base | kw, **extra)


def rope(**kw):
    return dict(rope_parameters=dict(rope_type="default", rope_theta=10000.0, partial_rotary_factor=0.5) | kw)


ROWS = [
    row("qwen3next", "Qwen3NextForCausalLM", "gated delta nets, a gated shared expert, half of each head turns", **NET, **EXPERTS, **rope(), fill=FILL),
    row("qwen3next-mixed", "Qwen3NextForCausalLM", "the order of layers from the file, a window of 3", **NET, **EXPERTS, **rope(), fill=FILL | {"conv1d": (0.0, 0.5)},
        layer_types=[LIN, FULL, FULL, LIN], linear_conv_kernel_dim=3, golden=0),
    row("qwen35", "Qwen3_5ForCausalLM", "dense; value heads dealt out", **NET, **rope(mrope_section=[2, 2, 2], mrope_interleaved=True), fill=FILL),
    row("qwen35-tied", "Qwen3_5ForCausalLM", "tied head, one key head", **NET | dict(linear_num_key_heads=1), fill=FILL, tie_word_embeddings=True,
        **rope(mrope_section=[2, 2, 2], mrope_interleaved=True)),
    row("qwen35moe", "Qwen3_5MoeForCausalLM", "experts", **NET, **EXPERTS, **rope(mrope_section=[2, 2, 2], mrope_interleaved=True), fill=FILL),
]
