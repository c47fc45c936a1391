/* lfm2, lfm2moe - Liquid LFM2: most layers mix over time by a short causal convolution between two gates, y = W_out (C * conv(B * x)) with B, C, x =
 * W_in h; the others are grouped-query attention with norms on every Q and K head. A layer without K/V heads is a convolution. SwiGLU; lfm2moe has
 * experts behind the first dense layers, chosen by sigmoid plus a bias that counts for the choice only. Source: LFM2 Technical Report (2025). */
#include "src/arch/rows.h"
#include "src/import.h"
#include "src/model_int.h"
#include <math.h>
#include <string.h>

#define DIM_PARTS (DIM_OWN + 0)
#define DIM_WINDOW (DIM_OWN + 1)

static const char *const hf[] = { "Lfm2ForCausalLM", "Lfm2VlForConditionalGeneration", NULL };
static const char *const hf_moe[] = { "Lfm2MoeForCausalLM", NULL };

static const struct hparam_row hparams[] = {
    { "shortconv.l_cache", "conv_L_cache", HP_INT, HP(ssm_conv), 1, SSM_CONV_LIMIT, NAN },
    { "attention.sliding_window", NULL, HP_INT, HP(window), 0, 1 << 24, 0 },
    { "expert_count", "num_experts", HP_INT, HP(n_expert), 0, 0, 0 },
    HPARAMS_END,
};
static const struct hparam_row hparams_moe[] = {
    { "shortconv.l_cache", "conv_L_cache", HP_INT, HP(ssm_conv), 1, SSM_CONV_LIMIT, NAN },
    { "attention.sliding_window", NULL, HP_INT, HP(window), 0, 1 << 24, 0 },
    { "expert_count", "num_experts", HP_INT, HP(n_expert), 1, EXPERT_LIMIT, NAN },
    { "expert_feed_forward_length", "moe_intermediate_size", HP_INT, HP(n_ff_expert), 1, 1 << 22, NAN },
    { "leading_dense_block_count", "num_dense_layers", HP_INT, HP(n_dense_lead), 0, 1024, 0 },
    { "expert_weights_scale", "routed_scaling_factor", HP_FLOAT, HP(expert_scale), 0, 1e6, 0 },
    { "expert_gating_func", NULL, HP_INT, HP(expert_func), ROUTE_SOFTMAX, ROUTE_SIGMOID, ROUTE_SIGMOID },
    HPARAMS_END,
};

#define FF HF_LAYER "feed_forward."
static const struct weight_row weights[] = {
    ROWS_EMBEDDING,
    { W_OUTPUT_NORM, "token_embd_norm.weight", "model.embedding_norm.weight", DIM_EMBD, DIM_1, 0 },
    { W_ATTN_NORM, "blk.%d.attn_norm.weight", HF_LAYER "operator_norm.weight", DIM_EMBD, DIM_1, 0 },
    { W_FFN_NORM, "blk.%d.ffn_norm.weight", HF_LAYER "ffn_norm.weight", DIM_EMBD, DIM_1, 0 },
    { W_ATTN_Q, "blk.%d.attn_q.weight", HF_LAYER "self_attn.q_proj.weight", DIM_EMBD, DIM_Q, 0, DIM_1, LAYER_ATTENTION },
    { W_ATTN_K, "blk.%d.attn_k.weight", HF_LAYER "self_attn.k_proj.weight", DIM_EMBD, DIM_K, 0, DIM_1, LAYER_ATTENTION },
    { W_ATTN_V, "blk.%d.attn_v.weight", HF_LAYER "self_attn.v_proj.weight", DIM_EMBD, DIM_V, 0, DIM_1, LAYER_ATTENTION },
    { W_ATTN_O, "blk.%d.attn_output.weight", HF_LAYER "self_attn.out_proj.weight", DIM_O, DIM_EMBD, 0, DIM_1, LAYER_ATTENTION },
    { W_Q_NORM, "blk.%d.attn_q_norm.weight", HF_LAYER "self_attn.q_layernorm.weight", DIM_HEAD, DIM_1, 0, DIM_1, LAYER_ATTENTION },
    { W_K_NORM, "blk.%d.attn_k_norm.weight", HF_LAYER "self_attn.k_layernorm.weight", DIM_HEAD, DIM_1, 0, DIM_1, LAYER_ATTENTION },
    { W_SSM_IN, "blk.%d.shortconv.in_proj.weight", HF_LAYER "conv.in_proj.weight", DIM_EMBD, DIM_PARTS, 0, DIM_1, LAYER_RECURRENT },
    { W_SSM_CONV, "blk.%d.shortconv.conv.weight", HF_LAYER "conv.conv.weight", DIM_WINDOW, DIM_EMBD, WEIGHT_VECTOR, DIM_1, LAYER_RECURRENT },
    { W_SSM_OUT, "blk.%d.shortconv.out_proj.weight", HF_LAYER "conv.out_proj.weight", DIM_EMBD, DIM_EMBD, 0, DIM_1, LAYER_RECURRENT },
    { W_FFN_GATE, "blk.%d.ffn_gate.weight", FF "w1.weight", DIM_EMBD, DIM_FF, 0, DIM_1, LAYER_DENSE },
    { W_FFN_UP, "blk.%d.ffn_up.weight", FF "w3.weight", DIM_EMBD, DIM_FF, 0, DIM_1, LAYER_DENSE },
    { W_FFN_DOWN, "blk.%d.ffn_down.weight", FF "w2.weight", DIM_FF, DIM_EMBD, 0, DIM_1, LAYER_DENSE },
    { W_ROUTER, "blk.%d.ffn_gate_inp.weight", FF "gate.weight", DIM_EMBD, DIM_EXPERT, 0, DIM_1, LAYER_MOE },
    { W_CHOICE_BIAS, "blk.%d.exp_probs_b.bias", FF "expert_bias", DIM_EXPERT, DIM_1, WEIGHT_OPTIONAL, DIM_1, LAYER_MOE },
    { W_GATE_EXPS, "blk.%d.ffn_gate_exps.weight", FF "experts.%e.w1.weight", DIM_EMBD, DIM_FF_EXPERT, 0, DIM_EXPERT, LAYER_MOE },
    { W_UP_EXPS, "blk.%d.ffn_up_exps.weight", FF "experts.%e.w3.weight", DIM_EMBD, DIM_FF_EXPERT, 0, DIM_EXPERT, LAYER_MOE },
    { W_DOWN_EXPS, "blk.%d.ffn_down_exps.weight", FF "experts.%e.w2.weight", DIM_FF_EXPERT, DIM_EMBD, 0, DIM_EXPERT, LAYER_MOE },
    ROWS_END,
};

static int64_t own_dim(const struct model *m, int il, enum dim d) { return d == DIM_WINDOW ? m->hp.ssm_conv : 3 * m->hp.n_embd; }

static status setup(struct model *m, struct err *e)
{
    struct hparams *hp = &m->hp;
    hp->expert_norm = 1;
    for (int64_t il = 0; il < hp->n_layer; il++) {
        struct layer_params *l = &m->layer[il].hp;
        l->window = hp->window;
        if (l->n_head_kv > 0) continue;
        l->kind = (l->kind & ~(unsigned)LAYER_ATTENTION) | LAYER_RECURRENT;
        l->rec = (struct recurrent_state){ .n_conv = hp->ssm_conv, .channels = hp->n_embd };
    }
    return OK;
}

static val short_conv(const struct build *b, int il, val h)
{
    struct plan *p = b->p;
    int64_t n = b->m->hp.n_embd;
    val all = op_matmul(p, weight(b, il, W_SSM_IN), h);
    val before = op_slice(p, all, 3 * n, 0, n), behind = op_slice(p, all, 3 * n, n, n), x = op_slice(p, all, 3 * n, 2 * n, n);
    val y = op_mul(p, behind, op_conv(p, il, op_mul(p, before, x), weight(b, il, W_SSM_CONV), VAL_NONE));
    return op_matmul(p, weight(b, il, W_SSM_OUT), last_rows(b, il, y));
}

static val layer(const struct build *b, int il, val x)
{
    val h = norm(b, il, x, W_ATTN_NORM);
    h = layer_of(b, il)->kind & LAYER_RECURRENT ? short_conv(b, il, h) : self_attention(b, il, h);
    x = op_add(b->p, last_rows(b, il, x), h);
    return op_add(b->p, x, feed_forward(b, il, norm(b, il, x, W_FFN_NORM)));
}

/* ---- Hugging Face checkpoints ---- */

/* LFM2's feed-forward width is a third less than the configuration says, rounded up. */
static int64_t adjusted_ff(const struct import *im)
{
    int64_t n = import_int(im, "block_ff_dim|intermediate_size", 0), of = import_int(im, "block_multiple_of", 256);
    if (import_number(im, "block_auto_adjust_ff_dim", 1) == 0 || of < 1) return n;
    n = import_whole(2 * (double)n / 3);
    if (!import_config(im, "block_ffn_dim_multiplier")) return n;
    n = import_whole(import_number(im, "block_ffn_dim_multiplier", 1) * (double)n);
    return (n + of - 1) / of * of;
}

static status layer_kinds(struct import *im, struct err *e)
{
    enum { LAYERS = 1024 };
    int32_t heads[LAYERS];
    int64_t n = 0, all = import_int(im, "num_hidden_layers", 0);
    const struct json *types = import_config(im, "layer_types");
    if (!types || types->n != all || all > LAYERS) return err_set(e, ERR_FORMAT, "config.json: layer_types is missing or not one for each layer");
    if (import_number(im, "conv_bias", 0) != 0) return err_set(e, ERR_FORMAT, "config.json: conv_bias is true, these layers have none");
    for (const struct json *t = types->child; t; t = t->next)
        heads[n++] = t->kind == JSON_STR && !strcmp(t->str, "conv") ? 0 : (int32_t)import_int(im, "num_key_value_heads", 0);
    import_put_ints(im, "attention.head_count_kv", heads, n);
    return OK;
}

static status keys(struct import *im, struct err *e)
{
    import_put_int(im, "feed_forward_length", adjusted_ff(im));
    return layer_kinds(im, e);
}

static status keys_moe(struct import *im, struct err *e)
{
    if (import_number(im, "norm_topk_prob", 1) == 0) return err_set(e, ERR_FORMAT, "config.json: norm_topk_prob is false, these equations normalise");
    import_put_int(im, "expert_gating_func", ROUTE_SIGMOID);
    return layer_kinds(im, e);
}

static const struct arch_import import_dense = { .keys = keys }, import_moe = { .keys = keys_moe };

const struct arch arch_lfm2 = { .name = "lfm2", .hf = hf, .hparams = hparams, .weights = weights, .rope_neox = true, .setup = setup, .dim = own_dim,
                                .layer = layer, .import = &import_dense };
const struct arch arch_lfm2moe = { .name = "lfm2moe", .hf = hf_moe, .hparams = hparams_moe, .weights = weights, .rope_neox = true, .setup = setup,
                                   .dim = own_dim, .layer = layer, .import = &import_moe };
