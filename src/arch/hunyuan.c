/* hunyuan - Hunyuan dense (0.5B to 7B) and A13B: the Llama block with RMS norms on every Q and K head behind the rotation; A13B with a
 * mixture of experts beside a dense block. Source: Tencent 2025. */
#include "src/arch/rows.h"
#include "src/import.h"
#include "src/model_int.h"

static const char *const hf[] = { "HunYuanDenseV1ForCausalLM", NULL };
static const struct hparam_row hparams[] = { HPARAMS_END };

#define HEAD_NORMS                                                                                                                         \
    { W_Q_NORM, "blk.%d.attn_q_norm.weight", HF_LAYER "self_attn.query_layernorm.weight", DIM_HEAD, DIM_1, 0 },                            \
    {                                                                                                                                      \
        W_K_NORM, "blk.%d.attn_k_norm.weight", HF_LAYER "self_attn.key_layernorm.weight", DIM_HEAD, DIM_1, 0                               \
    }

static const struct weight_row weights[] = {
    ROWS_EMBEDDING, ROWS_NORMS,     ROWS_ATTENTION(0), ROWS_ATTENTION_BIAS(0, WEIGHT_OPTIONAL), ROW_BIAS_O(WEIGHT_OPTIONAL),
    HEAD_NORMS,     ROWS_GATED_FFN, ROWS_END,
};

static val layer(const struct build *b, int il, val x)
{
    val h = norm(b, il, x, W_ATTN_NORM);
    val q = head_norm(b, il, rope(b, il, project(b, il, W_ATTN_Q, W_BIAS_Q, h)), W_Q_NORM);
    val k = head_norm(b, il, rope(b, il, project(b, il, W_ATTN_K, W_BIAS_K, h)), W_K_NORM);
    val a = last_rows(b, il, attention(b, il, q, k, project(b, il, W_ATTN_V, W_BIAS_V, h)));
    x = residual(b, last_rows(b, il, x), project(b, il, W_ATTN_O, W_BIAS_O, a));
    return residual(b, x, feed_forward(b, il, norm(b, il, x, W_FFN_NORM)));
}

/* Dynamic scaling with a fixed alpha is a larger base (NTK-aware scaling); the context is what the report says. */
static status keys(struct import *im, struct err *e)
{
    double alpha = import_number(im, "rope_parameters.alpha|rope_scaling.alpha", 0),
           theta = import_number(im, "rope_parameters.rope_theta|rope_theta", 1e4);
    double n_head = import_number(im, "num_attention_heads", 1),
           d = import_number(im, "head_dim", n_head > 0 ? import_number(im, "hidden_size", 0) / n_head : 0);
    if (alpha <= 0 || d <= 2) return OK;
    import_put_float(im, "rope.freq_base", theta * pow(alpha, d / (d - 2)));
    import_put_str(im, "rope.scaling.type", "none");
    import_put_float(im, "rope.scaling.factor", 1);
    import_put_int(im, "rope.scaling.original_context_length", 256 * 1024);
    import_put_int(im, "context_length", 256 * 1024);
    return OK;
}

static const struct arch_import import = { .keys = keys };

const struct arch arch_hunyuan_dense = {
    .name = "hunyuan-dense",
    .hf = hf,
    .hparams = hparams,
    .weights = weights,
    .rope_neox = true,
    .layer = layer,
    .import = &import,
};

/* ---- with experts ---- */

static const char *const moe_hf[] = { "HunYuanMoEV1ForCausalLM", NULL };

static const struct hparam_row moe_hparams[] = {
    { "expert_count", "num_experts", HP_INT, HP(n_expert), 1, EXPERT_LIMIT, NAN },
    { "expert_feed_forward_length", NULL, HP_INT, HP(n_ff_expert), 1, 1 << 22, HP_ABSENT },
    { "expert_shared_feed_forward_length", NULL, HP_INT, HP(n_ff_shared), 0, 1 << 22, 0 },
    HPARAMS_END,
};

static const struct weight_row moe_weights[] = {
    ROWS_EMBEDDING,
    ROWS_NORMS,
    ROWS_ATTENTION(0),
    ROWS_ATTENTION_BIAS(0, WEIGHT_OPTIONAL),
    ROW_BIAS_O(WEIGHT_OPTIONAL),
    HEAD_NORMS,
    ROWS_EXPERTS(HF_LAYER "mlp.gate.wg.weight", HF_LAYER "mlp.experts.%e."),
    ROWS_SHARED_EXPERTS(HF_LAYER "mlp.shared_mlp.", 0),
    ROWS_END,
};

static status moe_setup(struct model *m, struct err *e)
{
    struct hparams *hp = &m->hp;
    if (hp->n_ff_expert == 0) hp->n_ff_expert = m->layer[0].hp.n_ff;
    if (hp->n_ff_shared == 0) hp->n_ff_shared = m->layer[0].hp.n_ff;
    hp->expert_norm = 1;
    return OK;
}

/* A number, or one for each layer: then all must be the same. */
static status same_number(struct import *im, const char *name, int64_t *out, struct err *e)
{
    const struct json *j = import_config(im, name);
    *out = import_int(im, name, 0);
    if (!j || j->kind != JSON_ARR) return OK;
    for (const struct json *i = j->child; i; i = i->next) {
        if ((i->kind != JSON_INT && i->kind != JSON_FLOAT) || i->f != j->child->f)
            return err_set(e, ERR_FORMAT, "%s differs from layer to layer: not supported", name);
        if (i->kind == JSON_INT) *out = i->i;
    }
    return OK;
}

static status moe_keys(struct import *im, struct err *e)
{
    int64_t width = 0, used = 0;
    TRY(keys(im, e));
    TRY(same_number(im, "moe_intermediate_size", &width, e));
    TRY(same_number(im, "moe_topk", &used, e));
    int64_t dense = import_int(im, "intermediate_size", 0);
    import_put_int(im, "expert_shared_feed_forward_length", dense);
    import_put_int(im, "expert_feed_forward_length", width ? width : dense);
    import_put_int(im, "expert_used_count", used ? used : 1);
    return OK;
}

static const struct arch_import moe_import = { .keys = moe_keys };

const struct arch arch_hunyuan_moe = {
    .name = "hunyuan-moe",
    .hf = moe_hf,
    .hparams = moe_hparams,
    .weights = moe_weights,
    .rope_neox = true,
    .setup = moe_setup,
    .layer = layer,
    .import = &moe_import,
};
