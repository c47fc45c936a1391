/* rows - weight rows that many architectures have under the same names, for the tables in this folder. */
#pragma once
#include "src/arch.h"
#include <math.h>

#define HF_LAYER "model.layers.%d."

#define ROWS_EMBEDDING                                                                                                                     \
    { W_EMBD, "token_embd.weight", "model.embed_tokens.weight", DIM_EMBD, DIM_VOCAB, 0 },                                                  \
    { W_OUTPUT, "output.weight", "lm_head.weight", DIM_EMBD, DIM_VOCAB, WEIGHT_OPTIONAL }

#define ROW_ROPE_FREQS { W_ROPE_FREQS, "rope_freqs.weight", NULL, DIM_ROT_HALF, DIM_1, WEIGHT_OPTIONAL }

#define ROWS_ROPE_LONG                                                                                                                     \
    { W_ROPE_LONG, "rope_factors_long.weight", NULL, DIM_ROT_HALF, DIM_1, WEIGHT_OPTIONAL },                                               \
    { W_ROPE_SHORT, "rope_factors_short.weight", NULL, DIM_ROT_HALF, DIM_1, WEIGHT_OPTIONAL }

/* qk: flags of Q and K */
#define ROWS_ATTENTION(qk)                                                                                                                 \
    { W_ATTN_Q, "blk.%d.attn_q.weight", HF_LAYER "self_attn.q_proj.weight", DIM_EMBD, DIM_Q, qk },                                         \
    { W_ATTN_K, "blk.%d.attn_k.weight", HF_LAYER "self_attn.k_proj.weight", DIM_EMBD, DIM_K, qk },                                         \
    { W_ATTN_V, "blk.%d.attn_v.weight", HF_LAYER "self_attn.v_proj.weight", DIM_EMBD, DIM_V, 0 },                                          \
    { W_ATTN_O, "blk.%d.attn_output.weight", HF_LAYER "self_attn.o_proj.weight", DIM_O, DIM_EMBD, 0 }

#define ROWS_ATTENTION_BIAS(qk, f)                                                                                                         \
    { W_BIAS_Q, "blk.%d.attn_q.bias", HF_LAYER "self_attn.q_proj.bias", DIM_Q, DIM_1, (qk) | (f) },                                        \
    { W_BIAS_K, "blk.%d.attn_k.bias", HF_LAYER "self_attn.k_proj.bias", DIM_K, DIM_1, (qk) | (f) },                                        \
    { W_BIAS_V, "blk.%d.attn_v.bias", HF_LAYER "self_attn.v_proj.bias", DIM_V, DIM_1, f }

#define ROW_BIAS_O(f) { W_BIAS_O, "blk.%d.attn_output.bias", HF_LAYER "self_attn.o_proj.bias", DIM_EMBD, DIM_1, f }

#define ROWS_HEAD_NORMS(f)                                                                                                                 \
    { W_Q_NORM, "blk.%d.attn_q_norm.weight", HF_LAYER "self_attn.q_norm.weight", DIM_HEAD, DIM_1, f },                                     \
    { W_K_NORM, "blk.%d.attn_k_norm.weight", HF_LAYER "self_attn.k_norm.weight", DIM_HEAD, DIM_1, f }

#define ROWS_NORMS                                                                                                                         \
    { W_OUTPUT_NORM, "output_norm.weight", "model.norm.weight", DIM_EMBD, DIM_1, 0 },                                                      \
    { W_ATTN_NORM, "blk.%d.attn_norm.weight", HF_LAYER "input_layernorm.weight", DIM_EMBD, DIM_1, 0 },                                     \
    { W_FFN_NORM, "blk.%d.ffn_norm.weight", HF_LAYER "post_attention_layernorm.weight", DIM_EMBD, DIM_1, 0 }

#define ROWS_GATED_FFN                                                                                                                     \
    { W_FFN_GATE, "blk.%d.ffn_gate.weight", HF_LAYER "mlp.gate_proj.weight", DIM_EMBD, DIM_FF, 0, DIM_1, LAYER_DENSE },                    \
    { W_FFN_UP, "blk.%d.ffn_up.weight", HF_LAYER "mlp.up_proj.weight", DIM_EMBD, DIM_FF, 0, DIM_1, LAYER_DENSE },                          \
    { W_FFN_DOWN, "blk.%d.ffn_down.weight", HF_LAYER "mlp.down_proj.weight", DIM_FF, DIM_EMBD, 0, DIM_1, LAYER_DENSE }

#define ROWS_GATED_FFN_BIAS(f)                                                                                                             \
    { W_BIAS_GATE, "blk.%d.ffn_gate.bias", HF_LAYER "mlp.gate_proj.bias", DIM_FF, DIM_1, f, DIM_1, LAYER_DENSE },                          \
    { W_BIAS_UP, "blk.%d.ffn_up.bias", HF_LAYER "mlp.up_proj.bias", DIM_FF, DIM_1, f, DIM_1, LAYER_DENSE },                                \
    { W_BIAS_DOWN, "blk.%d.ffn_down.bias", HF_LAYER "mlp.down_proj.bias", DIM_EMBD, DIM_1, f, DIM_1, LAYER_DENSE }

/* router: its name in the Hugging Face checkpoint; experts: the part before "gate_proj.weight", with %e */
#define ROWS_EXPERTS(router, experts)                                                                                                      \
    { W_ROUTER, "blk.%d.ffn_gate_inp.weight", router, DIM_EMBD, DIM_EXPERT, 0, DIM_1, LAYER_MOE },                                         \
    { W_GATE_EXPS, "blk.%d.ffn_gate_exps.weight", experts "gate_proj.weight", DIM_EMBD, DIM_FF_EXPERT, 0, DIM_EXPERT, LAYER_MOE },         \
    { W_UP_EXPS, "blk.%d.ffn_up_exps.weight", experts "up_proj.weight", DIM_EMBD, DIM_FF_EXPERT, 0, DIM_EXPERT, LAYER_MOE },               \
    { W_DOWN_EXPS, "blk.%d.ffn_down_exps.weight", experts "down_proj.weight", DIM_FF_EXPERT, DIM_EMBD, 0, DIM_EXPERT, LAYER_MOE }

#define ROWS_SHARED_EXPERTS(shared, f)                                                                                                     \
    { W_GATE_SHARED, "blk.%d.ffn_gate_shexp.weight", shared "gate_proj.weight", DIM_EMBD, DIM_FF_SHARED, f, DIM_1, LAYER_MOE },            \
    { W_UP_SHARED, "blk.%d.ffn_up_shexp.weight", shared "up_proj.weight", DIM_EMBD, DIM_FF_SHARED, f, DIM_1, LAYER_MOE },                  \
    { W_DOWN_SHARED, "blk.%d.ffn_down_shexp.weight", shared "down_proj.weight", DIM_FF_SHARED, DIM_EMBD, f, DIM_1, LAYER_MOE }

/* The same behind LAYER_SHARED: only where the file says that there are some (share_experts). */
#define ROWS_SHARED_IF_ANY(shared)                                                                                                         \
    { W_GATE_SHARED, "blk.%d.ffn_gate_shexp.weight", shared "gate_proj.weight", DIM_EMBD, DIM_FF_SHARED, 0, DIM_1, LAYER_SHARED },         \
    { W_UP_SHARED, "blk.%d.ffn_up_shexp.weight", shared "up_proj.weight", DIM_EMBD, DIM_FF_SHARED, 0, DIM_1, LAYER_SHARED },               \
    { W_DOWN_SHARED, "blk.%d.ffn_down_shexp.weight", shared "down_proj.weight", DIM_FF_SHARED, DIM_EMBD, 0, DIM_1, LAYER_SHARED }

#define ROW_CHOICE_BIAS(hf, f) { W_CHOICE_BIAS, "blk.%d.exp_probs_b.bias", hf, DIM_EXPERT, DIM_1, f, DIM_1, LAYER_MOE }

/* A LayerNorm: weight and bias, names without ".weight"; f: flags of the bias */
#define ROWS_LAYER_NORM(id, gguf, hf, f)                                                                                                   \
    { id, gguf ".weight", hf ".weight", DIM_EMBD, DIM_1, 0 }, { id##_B, gguf ".bias", hf ".bias", DIM_EMBD, DIM_1, f }

#define ROWS_LAYER_NORM_OPTIONAL(id, gguf, hf)                                                                                             \
    { id, gguf ".weight", hf ".weight", DIM_EMBD, DIM_1, WEIGHT_OPTIONAL }, { id##_B, gguf ".bias", hf ".bias", DIM_EMBD, DIM_1, WEIGHT_OPTIONAL }

/* A feed-forward block without a gate: names of the two matrices without ".weight"; f: flags of the matrices; fb: of the biases */
#define ROWS_PLAIN_FFN(up, down, f, fb)                                                                                                    \
    { W_FFN_UP, "blk.%d.ffn_up.weight", up ".weight", DIM_EMBD, DIM_FF, f }, { W_BIAS_UP, "blk.%d.ffn_up.bias", up ".bias", DIM_FF, DIM_1, fb }, \
        { W_FFN_DOWN, "blk.%d.ffn_down.weight", down ".weight", DIM_FF, DIM_EMBD, f },                                                     \
        { W_BIAS_DOWN, "blk.%d.ffn_down.bias", down ".bias", DIM_EMBD, DIM_1, fb }

/* Q, K and V in one matrix, and O: names without ".weight"; f: flags of the matrices; fb: of the biases */
#define ROWS_FUSED_ATTENTION(qkv, o, f, fb)                                                                                                \
    { W_ATTN_QKV, "blk.%d.attn_qkv.weight", qkv ".weight", DIM_EMBD, DIM_QKV, f },                                                         \
        { W_BIAS_QKV, "blk.%d.attn_qkv.bias", qkv ".bias", DIM_QKV, DIM_1, fb },                                                           \
        { W_ATTN_O, "blk.%d.attn_output.weight", o ".weight", DIM_O, DIM_EMBD, f },                                                        \
        { W_BIAS_O, "blk.%d.attn_output.bias", o ".bias", DIM_EMBD, DIM_1, fb }

/* ---- hyper-parameters ---- */

#define HP_LAYER_NORM_EPS                                                                                                                  \
    { "attention.layer_norm_epsilon", "layer_norm_eps|layer_norm_epsilon|norm_epsilon|norm_eps", HP_FLOAT, HP(eps), 1e-12, 1, NAN }

/* What mixtures after DeepSeek's read beyond the common keys. */
#define HPS_EXPERTS                                                                                                                        \
    { "expert_count", "n_routed_experts|num_local_experts|num_experts", HP_INT, HP(n_expert), 0, EXPERT_LIMIT, 0 },                        \
        { "expert_feed_forward_length", "moe_intermediate_size", HP_INT, HP(n_ff_expert), 1, 1 << 22, HP_ABSENT },                         \
        { "expert_shared_count", "n_shared_experts", HP_INT, HP(n_expert_shared), 0, EXPERT_LIMIT, 0 },                                    \
        { "leading_dense_block_count", "first_k_dense_replace", HP_INT, HP(n_dense_lead), 0, 1024, 0 },                                    \
        { "expert_weights_scale", "routed_scaling_factor", HP_FLOAT, HP(expert_scale), 0, 1e6, 0 },                                        \
        { "expert_weights_norm", "norm_topk_prob", HP_BOOL, HP(expert_norm), 0, 1, 0 },                                                    \
        { "expert_gating_func", NULL, HP_INT, HP(expert_func), 0, ROUTE_SOFTMAX_CHOSEN, 0 },                                               \
        { "expert_group_count", "n_group", HP_INT, HP(n_expert_group), 0, EXPERT_LIMIT, 0 },                                               \
        { "expert_group_used_count", "topk_group", HP_INT, HP(n_expert_group_used), 0, EXPERT_LIMIT, 0 }

/* Keys of mixtures that several families share. */
#define HPARAMS_EXPERTS(count, width)                                                                                                      \
    { "expert_count", count, HP_INT, HP(n_expert), 1, EXPERT_LIMIT, NAN },                                                                 \
    { "expert_feed_forward_length", width, HP_INT, HP(n_ff_expert), 1, 1 << 22, HP_ABSENT }
#define HPARAM_WINDOW(def) { "attention.sliding_window", "sliding_window", HP_INT, HP(window), 0, 1 << 24, def }

/* p: what stands before "in_proj.weight" in the Hugging Face checkpoint; norm: flags of the norm behind the gate */
#define ROWS_MAMBA2(p, norm)                                                                                                               \
    { W_SSM_IN, "blk.%d.ssm_in.weight", p "in_proj.weight", DIM_EMBD, DIM_SSM_ALL, 0, DIM_1, LAYER_RECURRENT },                            \
    { W_SSM_CONV, "blk.%d.ssm_conv1d.weight", p "conv1d.weight", DIM_SSM_WINDOW, DIM_SSM_MIXED, WEIGHT_VECTOR, DIM_1, LAYER_RECURRENT },   \
    { W_SSM_CONV_B, "blk.%d.ssm_conv1d.bias", p "conv1d.bias", DIM_SSM_MIXED, DIM_1, WEIGHT_OPTIONAL, DIM_1, LAYER_RECURRENT },            \
    { W_SSM_DT, "blk.%d.ssm_dt.bias", p "dt_bias", DIM_SSM_HEADS, DIM_1, 0, DIM_1, LAYER_RECURRENT },                                      \
    { W_SSM_A, "blk.%d.ssm_a", p "A_log", DIM_1, DIM_SSM_HEADS, WEIGHT_VECTOR, DIM_1, LAYER_RECURRENT },                                   \
    { W_SSM_D, "blk.%d.ssm_d", p "D", DIM_1, DIM_SSM_HEADS, WEIGHT_VECTOR, DIM_1, LAYER_RECURRENT },                                       \
    { W_SSM_NORM, "blk.%d.ssm_norm.weight", p "norm.weight", DIM_SSM_PART, DIM_SSM_GROUPS, WEIGHT_VECTOR | (norm), DIM_1, LAYER_RECURRENT }, \
    { W_SSM_OUT, "blk.%d.ssm_out.weight", p "out_proj.weight", DIM_SSM_INNER, DIM_EMBD, 0, DIM_1, LAYER_RECURRENT }

#define HPARAMS_MAMBA2                                                                                                                     \
    { "ssm.conv_kernel", "conv_kernel|mamba_d_conv", HP_INT, HP(ssm_conv), 1, SSM_CONV_LIMIT, NAN },                                       \
    { "ssm.inner_size", NULL, HP_INT, HP(ssm_inner), 1, 1 << 20, NAN },                                                                    \
    { "ssm.state_size", "state_size|ssm_state_size|mamba_d_state", HP_INT, HP(ssm_state), 1, 1024, NAN },                                  \
    { "ssm.time_step_rank", "num_heads|mamba_num_heads|mamba_n_heads", HP_INT, HP(ssm_rank), 1, 1 << 14, NAN },                            \
    { "ssm.group_count", "n_groups|mamba_n_groups", HP_INT, HP(ssm_group), 1, 1024, NAN }

#define ROWS_END { W_COUNT, NULL, NULL, DIM_1, DIM_1, 0 }
#define HPARAMS_END { NULL, NULL, HP_INT, 0, 0, 0, 0 }
