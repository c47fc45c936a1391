/* deepseek - DeepSeekMoE 16B, and Ling (bailingmoe): the Llama block with a softmax mixture of small experts beside shared ones, dense
 * first layers. Sources: Dai et al. 2024; Ling team 2025. */
#include "src/arch/rows.h"
#include "src/import.h"
#include "src/model_int.h"

static const char *const hf[] = { "DeepseekForCausalLM", NULL };
static const struct hparam_row hparams[] = { HPS_EXPERTS, HPARAMS_END };

static const struct weight_row weights[] = {
    ROWS_EMBEDDING,
    ROWS_NORMS,
    ROWS_ATTENTION(WEIGHT_ROPE_PAIRS),
    ROWS_GATED_FFN,
    ROWS_EXPERTS(HF_LAYER "mlp.gate.weight", HF_LAYER "mlp.experts.%e."),
    ROWS_SHARED_IF_ANY(HF_LAYER "mlp.shared_experts."),
    ROWS_END,
};

static status setup(struct model *m, struct err *e)
{
    m->hp.expert_func = ROUTE_SOFTMAX;
    share_experts(m);
    return OK;
}

static status keys(struct import *im, struct err *e)
{
    if (import_number(im, "norm_topk_prob", 0) != 0) return err_set(e, ERR_FORMAT, "norm_topk_prob is true: not supported for DeepSeekMoE");
    if (import_number(im, "attention_bias", 0) != 0) return err_set(e, ERR_FORMAT, "attention_bias is true: not supported for DeepSeekMoE");
    if (import_number(im, "moe_layer_freq", 1) != 1)
        return err_set(e, ERR_FORMAT, "moe_layer_freq is %g: not supported", import_number(im, "moe_layer_freq", 1));
    return OK;
}

static const struct arch_import import = { .keys = keys };

const struct arch arch_deepseek = {
    .name = "deepseek", .hf = hf, .hparams = hparams, .weights = weights, .setup = setup, .import = &import
};

/* ---- Ling ---- */

static const char *const ling_hf[] = { "BailingMoeForCausalLM", NULL };

static const struct hparam_row ling_hparams[] = {
    { "expert_shared_count", "num_shared_experts", HP_INT, HP(n_expert_shared), 0, EXPERT_LIMIT, 0 },
    { "expert_count", "num_experts", HP_INT, HP(n_expert), 1, EXPERT_LIMIT, NAN },
    { "expert_feed_forward_length", "moe_intermediate_size", HP_INT, HP(n_ff_expert), 1, 1 << 22, NAN },
    { "leading_dense_block_count", NULL, HP_INT, HP(n_dense_lead), 0, 1024, 0 }, /* llama.cpp reads it and has experts in every layer */
    { "expert_weights_scale", NULL, HP_FLOAT, HP(expert_scale), 0, 1e6, 0 },
    { "expert_weights_norm", "norm_topk_prob", HP_BOOL, HP(expert_norm), 0, 1, 0 },
    HPARAMS_END,
};

#define QKV HF_LAYER "attention.query_key_value.weight"

static const struct weight_row ling_weights[] = {
    { W_EMBD, "token_embd.weight", "model.word_embeddings.weight", DIM_EMBD, DIM_VOCAB, 0 },
    { W_OUTPUT, "output.weight", "lm_head.weight", DIM_EMBD, DIM_VOCAB, WEIGHT_OPTIONAL },
    ROWS_NORMS,
    { W_ATTN_Q, "blk.%d.attn_q.weight", QKV, DIM_EMBD, DIM_Q, 0 },
    { W_ATTN_K, "blk.%d.attn_k.weight", QKV, DIM_EMBD, DIM_K, 0 },
    { W_ATTN_V, "blk.%d.attn_v.weight", QKV, DIM_EMBD, DIM_V, 0 },
    { W_ATTN_O, "blk.%d.attn_output.weight", HF_LAYER "attention.dense.weight", DIM_O, DIM_EMBD, 0 },
    ROWS_EXPERTS(HF_LAYER "mlp.gate.weight", HF_LAYER "mlp.experts.%e."),
    ROWS_SHARED_IF_ANY(HF_LAYER "mlp.shared_experts."),
    ROWS_END,
};

static status ling_setup(struct model *m, struct err *e)
{
    if (m->hp.n_dense_lead != 0)
        return err_set(e, ERR_FORMAT, "bailingmoe.leading_dense_block_count is %lld, expected 0", (long long)m->hp.n_dense_lead);
    m->hp.expert_func = ROUTE_SOFTMAX;
    share_experts(m);
    return OK;
}

static status ling_keys(struct import *im, struct err *e)
{
    static const char *const off[] = { "norm_head", "use_bias", "use_qkv_bias", "first_k_dense_replace" };
    for (int i = 0; i < ARRAY_LEN(off); i++)
        if (import_number(im, off[i], 0) != 0)
            return err_set(e, ERR_FORMAT, "%s is %g: not supported for Ling", off[i], import_number(im, off[i], 0));
    return OK;
}

/* Q, then K, then V; neighbours of a rope pair are half a head apart. */
static int64_t packed(const struct layer_params *l, int64_t before, int64_t i, bool pairs)
{
    int64_t d = l->head_dim, at = i % d;
    return (before + i / d) * d + (pairs ? at % 2 * (d / 2) + at / 2 : at);
}

static int64_t q_row(const struct model *m, int il, int64_t i) { return packed(&m->layer[il].hp, 0, i, true); }
static int64_t k_row(const struct model *m, int il, int64_t i) { return packed(&m->layer[il].hp, m->layer[il].hp.n_head, i, true); }

static int64_t v_row(const struct model *m, int il, int64_t i)
{
    const struct layer_params *l = &m->layer[il].hp;
    return packed(l, l->n_head + l->n_head_kv, i, false);
}

static const struct weight_import ling_parts[] = {
    { .id = W_ATTN_Q, .row = q_row },
    { .id = W_ATTN_K, .row = k_row },
    { .id = W_ATTN_V, .row = v_row },
    { .id = W_COUNT },
};
static const struct arch_import ling_import = { .keys = ling_keys, .weights = ling_parts };

const struct arch arch_bailingmoe = {
    .name = "bailingmoe",
    .hf = ling_hf,
    .hparams = ling_hparams,
    .weights = ling_weights,
    .setup = ling_setup,
    .import = &ling_import,
};
