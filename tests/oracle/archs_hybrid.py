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


SWA = "sliding_attention"
G4 = dict(head_dim=16, global_head_dim=32, sliding_window=24, final_logit_softcapping=30.0, tie_word_embeddings=True, vocab_size_per_layer_input=320,
          fill={"layer_scalar": (0.9, 0.3), "router.scale": (1.0, 0.3), "per_expert_scale": (1.0, 0.4)}, rope_parameters={
              FULL: dict(rope_type="proportional", partial_rotary_factor=0.25, rope_theta=1000000.0), SWA: dict(rope_type="default", rope_theta=10000.0)})
MAMBA = BASE | dict(mamba_d_state=24, mamba_n_groups=2, mamba_d_conv=4, mamba_chunk_size=32, num_hidden_layers=3)
GRANITE = MAMBA | dict(layer_types=[LIN, FULL, LIN], mamba_n_heads=8, mamba_d_head=16, shared_intermediate_size=56, intermediate_size=40,
                       embedding_multiplier=3.0, logits_scaling=2.0, residual_multiplier=0.7, attention_multiplier=0.2)

ROWS = [
    row("qwen3next", "Qwen3NextForCausalLM", "gated delta nets, a gated shared expert, half of each head turns", **NET, **EXPERTS, **rope(), fill=FILL),
    row("qwen3next-mixed", "Qwen3NextForCausalLM", "the order of layers from the file, a window of 3", **NET, **EXPERTS, **rope(), fill=FILL | {"conv1d": (0.0, 0.5)},
        layer_types=[LIN, FULL, FULL, LIN], linear_conv_kernel_dim=3, golden=[]),
    row("qwen35", "Qwen3_5ForCausalLM", "dense; value heads dealt out", **NET, **rope(mrope_section=[2, 2, 2], mrope_interleaved=True), fill=FILL),
    row("qwen35-tied", "Qwen3_5ForCausalLM", "tied head, one key head", **NET | dict(linear_num_key_heads=1), fill=FILL, tie_word_embeddings=True,
        **rope(mrope_section=[2, 2, 2], mrope_interleaved=True)),
    row("qwen35moe", "Qwen3_5MoeForCausalLM", "experts", **NET, **EXPERTS, **rope(mrope_section=[2, 2, 2], mrope_interleaved=True), fill=FILL),
    row("gemma4", "Gemma4ForCausalLM", "windows, head sizes by layer, shared caches, per-layer embeddings, softcap", **G4, num_hidden_layers=7,
        hidden_size_per_layer_input=16, num_kv_shared_layers=3, use_double_wide_mlp=True, layer_types=[SWA, FULL, SWA, FULL, SWA, SWA, FULL]),
    row("gemma4-k-is-v", "Gemma4ForCausalLM", "V = K, K/V heads by layer", **G4, attention_k_eq_v=True, num_global_key_value_heads=1,
        hidden_size_per_layer_input=0, layer_types=[SWA, SWA, FULL, FULL]),
    row("gemma4-experts", "Gemma4ForCausalLM", "experts beside the dense block", **G4, enable_moe_block=True, num_experts=5, top_k_experts=2,
        moe_intermediate_size=40, hidden_size_per_layer_input=0, layer_types=[SWA, FULL, SWA, FULL]),
    row("lfm2", "Lfm2ForCausalLM", "short convolutions, attention, adjusted width", layer_types=["conv", FULL, "conv", FULL], block_multiple_of=16,
        tie_word_embeddings=True, rope_theta=1000000.0),
    row("lfm2-last", "Lfm2ForCausalLM", "a convolution last, a window of 4, width as given", layer_types=["conv", "conv", FULL, "conv"], golden=[],
        conv_L_cache=4, block_auto_adjust_ff_dim=False),
    row("lfm2moe", "Lfm2MoeForCausalLM", "a dense layer, then experts with a bias for the choice", layer_types=["conv", FULL, "conv", FULL],
        moe_intermediate_size=40, num_dense_layers=1, num_experts=5, num_experts_per_tok=2, fill={"expert_bias": (0.0, 0.3)}),
    row("lfm2moe-scaled", "Lfm2MoeForCausalLM", "experts times 1.5 (llama.cpp does not read the factor)", layer_types=["conv", FULL, "conv", FULL],
        moe_intermediate_size=40, num_dense_layers=0, num_experts=5, num_experts_per_tok=2, routed_scaling_factor=1.5, golden=[]),
    row("mamba2", "Mamba2ForCausalLM", "groups of heads", dict(hidden_size=64, num_hidden_layers=3, tie_word_embeddings=False), num_heads=8, head_dim=16,
        state_size=24, n_groups=2, conv_kernel=4, expand=2, chunk_size=32, fill=FILL | {"mixer.D": (1.0, 0.3)}),
    row("falcon-h1", "FalconH1ForCausalLM", "both mixers in every layer, muP factors", MAMBA, head_dim=24, mamba_d_ssm=96, mamba_n_heads=6, mamba_d_head=16,
        fill=FILL | {"mamba.D": (1.0, 0.3)}, ssm_multipliers=[0.5, 0.7, 0.9, 1.1, 1.3], mlp_multipliers=[0.8, 0.6], ssm_in_multiplier=1.2,
        ssm_out_multiplier=0.7, attention_in_multiplier=0.9, attention_out_multiplier=0.8, key_multiplier=0.6, embedding_multiplier=2.5,
        lm_head_multiplier=0.3, mamba_norm_before_gate=False),
    row("falcon-h1-norm", "FalconH1ForCausalLM", "grouped norm behind the gate", MAMBA, head_dim=16, mamba_d_ssm=96, mamba_n_heads=6, mamba_d_head=16,
        fill=FILL | {"mamba.D": (1.0, 0.3)}, mamba_rms_norm=True, mamba_norm_before_gate=False, golden=[]),
    row("nemotron_h", "NemotronHForCausalLM", "one block a layer: scan, attention without positions, squared ReLU", {k: v for k, v in BASE.items() if k !=
        "num_hidden_layers"}, layers_block_type=[LIN, "mlp", FULL, LIN, "mlp"], ssm_state_size=24, mamba_num_heads=6, mamba_head_dim=16, n_groups=2,
        head_dim=24, fill=FILL | {"mixer.D": (1.0, 0.3)}),
    row("granitehybrid", "GraniteMoeHybridForCausalLM", "scans and attention without positions, four scales, experts beside a shared block", GRANITE,
        num_local_experts=5, num_experts_per_tok=2, fill=FILL | {"mamba.D": (1.0, 0.3)}),
    row("granitehybrid-dense", "GraniteMoeHybridForCausalLM", "no experts, rope", GRANITE, num_local_experts=0, position_embedding_type="rope",
        fill=FILL | {"mamba.D": (1.0, 0.3)}, golden=[]),
]
