/* qwen2 - Qwen2 and Qwen2.5: the Llama block with biases on Q, K, V and rope pairs half a head apart. Source: Yang et al. 2024. */
#include "src/arch.h"
#include "src/model_int.h"

static const struct hparam_row hparams[] = { { NULL, NULL, HP_INT, 0, 0, 0, 0 } };

static const struct weight_row weights[] = {
    { W_EMBD, "token_embd.weight", "model.embed_tokens.weight", DIM_EMBD, DIM_VOCAB, 0 },
    { W_OUTPUT_NORM, "output_norm.weight", "model.norm.weight", DIM_EMBD, DIM_1, 0 },
    { W_OUTPUT, "output.weight", "lm_head.weight", DIM_EMBD, DIM_VOCAB, WEIGHT_OPTIONAL },
    { W_ATTN_NORM, "blk.%d.attn_norm.weight", "model.layers.%d.input_layernorm.weight", DIM_EMBD, DIM_1, 0 },
    { W_ATTN_Q, "blk.%d.attn_q.weight", "model.layers.%d.self_attn.q_proj.weight", DIM_EMBD, DIM_Q, 0 },
    { W_ATTN_K, "blk.%d.attn_k.weight", "model.layers.%d.self_attn.k_proj.weight", DIM_EMBD, DIM_K, 0 },
    { W_ATTN_V, "blk.%d.attn_v.weight", "model.layers.%d.self_attn.v_proj.weight", DIM_EMBD, DIM_V, 0 },
    { W_ATTN_O, "blk.%d.attn_output.weight", "model.layers.%d.self_attn.o_proj.weight", DIM_O, DIM_EMBD, 0 },
    { W_BIAS_Q, "blk.%d.attn_q.bias", "model.layers.%d.self_attn.q_proj.bias", DIM_Q, DIM_1, 0 },
    { W_BIAS_K, "blk.%d.attn_k.bias", "model.layers.%d.self_attn.k_proj.bias", DIM_K, DIM_1, 0 },
    { W_BIAS_V, "blk.%d.attn_v.bias", "model.layers.%d.self_attn.v_proj.bias", DIM_V, DIM_1, 0 },
    { W_FFN_NORM, "blk.%d.ffn_norm.weight", "model.layers.%d.post_attention_layernorm.weight", DIM_EMBD, DIM_1, 0 },
    { W_FFN_GATE, "blk.%d.ffn_gate.weight", "model.layers.%d.mlp.gate_proj.weight", DIM_EMBD, DIM_FF, 0 },
    { W_FFN_UP, "blk.%d.ffn_up.weight", "model.layers.%d.mlp.up_proj.weight", DIM_EMBD, DIM_FF, 0 },
    { W_FFN_DOWN, "blk.%d.ffn_down.weight", "model.layers.%d.mlp.down_proj.weight", DIM_FF, DIM_EMBD, 0 },
    { W_COUNT, NULL, NULL, DIM_1, DIM_1, 0 },
};

static val layer(const struct build *b, int il, val x)
{
    struct plan *p = b->p;
    val h = norm(b, x, weight(b, il, W_ATTN_NORM));
    val q = rope(b, il, op_bias(p, op_matmul(p, weight(b, il, W_ATTN_Q), h), weight(b, il, W_BIAS_Q)));
    val k = rope(b, il, op_bias(p, op_matmul(p, weight(b, il, W_ATTN_K), h), weight(b, il, W_BIAS_K)));
    val v = op_bias(p, op_matmul(p, weight(b, il, W_ATTN_V), h), weight(b, il, W_BIAS_V));
    val a = last_rows(b, il, attention(b, il, q, k, v));
    x = op_add(p, last_rows(b, il, x), op_matmul(p, weight(b, il, W_ATTN_O), a));

    h = norm(b, x, weight(b, il, W_FFN_NORM));
    val g = op_silu_mul(p, op_matmul(p, weight(b, il, W_FFN_GATE), h), op_matmul(p, weight(b, il, W_FFN_UP), h));
    return op_add(p, x, op_matmul(p, weight(b, il, W_FFN_DOWN), g));
}

const struct arch arch_qwen2 = { .name = "qwen2", .hparams = hparams, .weights = weights, .rope_neox = true, .layer = layer };
