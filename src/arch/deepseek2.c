/* deepseek2 - DeepSeek-V2, V2-Lite, V3, R1, Kimi-K2, GigaChat 3, Moonlight: multi-head latent attention and DeepSeek's mixture of experts.
 *
 * Keys and values of all heads come from one short row per token, c = norm(W_kva h), and one rotated key for all heads. Absorbed form
 * (files with attn_k_b and attn_v_b): scores are q^T (K_h c) = (K_h^T q)^T c, so the cache keeps c and the rotated key only, as one KV head
 * whose V is the first part of its K; V_h is applied behind attention. Older files have both maps in attn_kv_b: keys and values are
 * unfolded and cached. Sources: DeepSeek-V2 (2024), section 2.1 and appendix B; DeepSeek-V3 (2024), section 2.1. */
#include "src/arch/rows.h"
#include "src/import.h"
#include "src/model_int.h"
#include <stdio.h>
#include <string.h>

enum { Q_SHORT = LAYER_OWN, Q_PLAIN = LAYER_OWN << 1, ABSORBED = LAYER_OWN << 2, UNFOLDED = LAYER_OWN << 3 };
#define DIM_Q_LORA ((enum dim)(DIM_OWN + 0))
#define DIM_C ((enum dim)(DIM_OWN + 1))
#define DIM_C_ROT ((enum dim)(DIM_OWN + 2))
#define DIM_NOPE ((enum dim)(DIM_OWN + 3))
#define DIM_HEAD_V ((enum dim)(DIM_OWN + 4))
#define DIM_Q_ALL ((enum dim)(DIM_OWN + 5))
#define DIM_V_ALL ((enum dim)(DIM_OWN + 6))
#define DIM_UNFOLDED ((enum dim)(DIM_OWN + 7))

static const char *const hf[] = { "DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM", "KimiK2ForCausalLM", NULL };

static const struct hparam_row hparams[] = {
    HPS_EXPERTS,
    { "attention.q_lora_rank", "q_lora_rank", HP_INT, HP(q_lora), 0, 1 << 20, 0 },
    { "attention.kv_lora_rank", "kv_lora_rank", HP_INT, HP(kv_lora), 8, HEAD_DIM_LIMIT, NAN },
    { "attention.key_length", NULL, HP_LAYER_INT, LP(head_dim), 8, HEAD_DIM_LIMIT, NAN },
    { "attention.value_length", NULL, HP_LAYER_INT, LP(head_dim_v), 8, HEAD_DIM_LIMIT, NAN },
    { "attention.key_length_mla", NULL, HP_INT, HP(head_dim_mla), 0, HEAD_DIM_LIMIT, 0 },
    { "attention.value_length_mla", "v_head_dim", HP_INT, HP(head_dim_v_mla), 0, HEAD_DIM_LIMIT, 0 },
    { "rope.dimension_count", "qk_rope_head_dim", HP_INT, HP(n_rot), 2, HEAD_DIM_LIMIT, NAN },
    { "rope.scaling.yarn_log_multiplier", NULL, HP_FLOAT, HP(yarn_log_mul), 0, 1e3, 0 },
    { "attention.temperature_scale", NULL, HP_FLOAT, HP(temp_scale), 0, 1e3, 0 },
    { "attention.temperature_length", NULL, HP_INT, HP(temp_floor), 1, 1 << 24, 8192 },
    HPARAMS_END,
};

#define ATTN HF_LAYER "self_attn."
#define ROW(id, gguf, hf, ne0, ne1, ne2, kind)                                                                                             \
    {                                                                                                                                      \
        id, "blk.%d." gguf ".weight", hf, ne0, ne1, 0, ne2, kind                                                                           \
    }

static const struct weight_row weights[] = {
    ROWS_EMBEDDING,
    ROWS_NORMS,
    ROW(W_Q_A, "attn_q_a", ATTN "q_a_proj.weight", DIM_EMBD, DIM_Q_LORA, DIM_1, Q_SHORT),
    ROW(W_Q_A_NORM, "attn_q_a_norm", ATTN "q_a_layernorm.weight", DIM_Q_LORA, DIM_1, DIM_1, Q_SHORT),
    ROW(W_Q_B, "attn_q_b", ATTN "q_b_proj.weight", DIM_Q_LORA, DIM_Q_ALL, DIM_1, Q_SHORT),
    ROW(W_ATTN_Q, "attn_q", ATTN "q_proj.weight", DIM_EMBD, DIM_Q_ALL, DIM_1, Q_PLAIN),
    ROW(W_KV_A, "attn_kv_a_mqa", ATTN "kv_a_proj_with_mqa.weight", DIM_EMBD, DIM_C_ROT, DIM_1, 0),
    ROW(W_KV_A_NORM, "attn_kv_a_norm", ATTN "kv_a_layernorm.weight", DIM_C, DIM_1, DIM_1, 0),
    ROW(W_K_B, "attn_k_b", ATTN "kv_b_proj.weight", DIM_NOPE, DIM_C, DIM_N_HEAD, ABSORBED),
    ROW(W_V_B, "attn_v_b", ATTN "kv_b_proj.weight", DIM_C, DIM_HEAD_V, DIM_N_HEAD, ABSORBED),
    ROW(W_KV_B, "attn_kv_b", NULL, DIM_C, DIM_UNFOLDED, DIM_1, UNFOLDED),
    ROW(W_ATTN_O, "attn_output", ATTN "o_proj.weight", DIM_V_ALL, DIM_EMBD, DIM_1, 0),
    ROWS_GATED_FFN,
    ROWS_EXPERTS(HF_LAYER "mlp.gate.weight", HF_LAYER "mlp.experts.%e."),
    ROW_CHOICE_BIAS(HF_LAYER "mlp.gate.e_score_correction_bias", WEIGHT_OPTIONAL),
    ROWS_SHARED_IF_ANY(HF_LAYER "mlp.shared_experts."),
    ROWS_END,
};

/* Sizes of the heads as they are without absorption. */
static int64_t head_qk(const struct model *m) { return m->hp.head_dim_mla ? m->hp.head_dim_mla : m->layer[0].hp.head_dim; }
static int64_t head_v(const struct model *m) { return m->hp.head_dim_v_mla ? m->hp.head_dim_v_mla : m->layer[0].hp.head_dim_v; }

static int64_t dim(const struct model *m, int il, enum dim d)
{
    const struct hparams *hp = &m->hp;
    int64_t n_head = m->layer[il].hp.n_head, nope = head_qk(m) - hp->n_rot;
    const int64_t v[] = {
        [DIM_Q_LORA - DIM_OWN] = hp->q_lora,
        [DIM_C - DIM_OWN] = hp->kv_lora,
        [DIM_C_ROT - DIM_OWN] = hp->kv_lora + hp->n_rot,
        [DIM_NOPE - DIM_OWN] = nope,
        [DIM_HEAD_V - DIM_OWN] = head_v(m),
        [DIM_Q_ALL - DIM_OWN] = n_head * head_qk(m),
        [DIM_V_ALL - DIM_OWN] = n_head * head_v(m),
        [DIM_UNFOLDED - DIM_OWN] = n_head * (nope + head_v(m)),
    };
    return v[d - DIM_OWN];
}

static status check_heads(const struct model *m, const struct layer_params *l, struct err *e)
{
    const struct hparams *hp = &m->hp;
    bool absorbed = hp->head_dim_mla > 0;
    int64_t n_kv = absorbed ? 1 : l->n_head, k = absorbed ? hp->kv_lora + hp->n_rot : head_qk(m), v = absorbed ? hp->kv_lora : head_v(m);
    if (l->n_head_kv != n_kv || l->head_dim != k || l->head_dim_v != v)
        return err_set(e, ERR_FORMAT, "%lld KV heads of %lld and %lld, expected %lld of %lld and %lld", (long long)l->n_head_kv,
                       (long long)l->head_dim, (long long)l->head_dim_v, (long long)n_kv, (long long)k, (long long)v);
    if (absorbed != (hp->head_dim_v_mla > 0) || head_qk(m) <= hp->n_rot)
        return err_set(e, ERR_FORMAT, "heads of %lld and %lld with %lld rotated dimensions", (long long)head_qk(m),
                       (long long)hp->head_dim_v_mla, (long long)hp->n_rot);
    return OK;
}

/* What only routers with a sigmoid have; some files of GLM-4.7-Lite have it and no expert_gating_func. */
static bool has_choice_bias(const struct model *m)
{
    char name[64];
    for (int64_t il = 0; il < m->hp.n_layer; il++) {
        snprintf(name, sizeof name, "blk.%lld.exp_probs_b.bias", (long long)il);
        if (gguf_tensor(&m->g, name)) return true;
    }
    return false;
}

static status setup(struct model *m, struct err *e)
{
    struct hparams *hp = &m->hp;
    float scale = 1.0f / sqrtf((float)head_qk(m));
    /* YaRN scales the logits instead of the rotated parts only: yarn_log_multiplier is a tenth of the checkpoint's mscale_all_dim. */
    if (m->layer[0].hp.rope.yarn_ext > 0) {
        float s = 1 + hp->yarn_log_mul * logf(hp->rope_factor);
        scale *= s * s;
    }
    for (int64_t il = 0; il < hp->n_layer; il++) {
        struct layer_params *l = &m->layer[il].hp;
        TRY(check_heads(m, l, e));
        l->v_in_k = hp->head_dim_mla > 0;
        l->kind |= (hp->q_lora ? Q_SHORT : Q_PLAIN) | (hp->head_dim_mla > 0 ? ABSORBED : UNFOLDED);
        l->scale = scale;
        if (hp->yarn_log_mul > 0) l->rope.mscale = hp->rope_attn_factor;
    }
    if (hp->expert_func == 0) hp->expert_func = has_choice_bias(m) ? ROUTE_SIGMOID : ROUTE_SOFTMAX; /* files from before V3 */
    hp->expert_best_one = hp->expert_func == ROUTE_SOFTMAX;    /* V2 ranks groups by their best expert, V3 by the two best */
    share_experts(m);
    return OK;
}

static val turned(const struct build *b, int il, val x)
{
    const struct rope_spec *s = &layer_of(b, il)->rope;
    return op_rope(b->p, x, op_rope_table(b->p, s), s->n_rot, 0, false);
}

/* K and V of every head from c; all heads share the rotated part of K. */
static void unfold(const struct build *b, int il, val c, val k_rot, val *k, val *v)
{
    int64_t nope = head_qk(b->m) - b->m->hp.n_rot, dv = head_v(b->m);
    val kv = op_matmul(b->p, weight(b, il, W_KV_B), c);
    *k = op_join(b->p, op_slice(b->p, kv, nope + dv, 0, nope), nope, k_rot, b->m->hp.n_rot);
    *v = op_slice(b->p, kv, nope + dv, nope, dv);
}

static val latent_attention(const struct build *b, int il, val h)
{
    struct plan *p = b->p;
    const struct hparams *hp = &b->m->hp;
    int64_t qk = head_qk(b->m), rot = hp->n_rot, nope = qk - rot, r = hp->kv_lora;
    bool absorbed = layer_of(b, il)->v_in_k;
    val q = hp->q_lora ? op_matmul(p, weight(b, il, W_Q_B), norm(b, il, op_matmul(p, weight(b, il, W_Q_A), h), W_Q_A_NORM))
                       : op_matmul(p, weight(b, il, W_ATTN_Q), h);
    val kv = op_matmul(p, weight(b, il, W_KV_A), h), c = norm(b, il, op_slice(p, kv, r + rot, 0, r), W_KV_A_NORM);
    val q_rot = turned(b, il, op_slice(p, q, qk, nope, rot)), k_rot = turned(b, il, op_slice(p, kv, r + rot, r, rot));
    val q_nope = op_slice(p, q, qk, 0, nope), k, v = VAL_NONE;
    if (absorbed) {
        q = op_join(p, op_head_matmul(p, weight(b, il, W_K_B), q_nope), r, q_rot, rot);
        k = op_join(p, c, r, k_rot, rot);
    } else {
        q = op_join(p, q_nope, nope, q_rot, rot);
        unfold(b, il, c, k_rot, &k, &v);
    }
    if (hp->temp_scale != 0) q = op_row_factor(p, q, hp->temp_scale, (float)hp->temp_floor);
    val y = last_rows(b, il, attention(b, il, q, k, v));
    if (absorbed) y = op_head_matmul(p, weight(b, il, W_V_B), y);
    return op_matmul(p, weight(b, il, W_ATTN_O), y);
}

static val layer(const struct build *b, int il, val x)
{
    val a = latent_attention(b, il, norm(b, il, x, W_ATTN_NORM));
    x = residual(b, last_rows(b, il, x), a);
    return residual(b, x, feed_forward(b, il, norm(b, il, x, W_FFN_NORM)));
}

/* ---- Hugging Face checkpoints ---- */

static status keys(struct import *im, struct err *e)
{
    int64_t r = import_int(im, "kv_lora_rank", 0), rot = import_int(im, "qk_rope_head_dim", 0);
    double all = import_number(im, "rope_parameters.mscale_all_dim|rope_scaling.mscale_all_dim", 0);
    double one = import_number(im, "rope_parameters.mscale|rope_scaling.mscale", 0);
    if (all != 0 && one != all)
        return err_set(e, ERR_FORMAT, "rope mscale is %g and mscale_all_dim %g: only equal ones are supported", one, all);
    if (import_config(im, "rope_interleave") && import_number(im, "rope_interleave", 1) == 0)
        return err_set(e, ERR_FORMAT, "rope_interleave is false: not supported");
    if (import_number(im, "attention_bias", 0) != 0) return err_set(e, ERR_FORMAT, "attention_bias is true: not supported for DeepSeek");
    if (import_number(im, "moe_layer_freq", 1) != 1)
        return err_set(e, ERR_FORMAT, "moe_layer_freq is %g: not supported", import_number(im, "moe_layer_freq", 1));
    if (all != 0) {
        import_put_float(im, "rope.scaling.yarn_log_multiplier", 0.1 * all);
        import_drop(im, "rope.scaling.attn_factor"); /* the multiplier says it all */
    }
    import_put_int(im, "attention.head_count_kv", 1);
    import_put_int(im, "attention.key_length", r + rot);
    import_put_int(im, "attention.value_length", r);
    import_put_int(im, "attention.key_length_mla", import_int(im, "qk_nope_head_dim", 0) + rot);
    bool v3 =
        import_is(im, "scoring_func", "sigmoid") || import_is(im, "model_type", "deepseek_v3") || import_is(im, "model_type", "kimi_k2");
    import_put_int(im, "expert_gating_func", v3 ? ROUTE_SIGMOID : ROUTE_SOFTMAX);
    if (import_is(im, "topk_method", "greedy")) {
        import_drop(im, "expert_group_count");
        import_drop(im, "expert_group_used_count");
    }
    if (!v3) import_put_bool(im, "expert_weights_norm", false); /* transformers' V2 does not normalise */
    return OK;
}

/* kv_b_proj is [head][nope of K, then V][c]. */
static status load_k_b(struct import *im, const struct model *m, int il, float *out, struct err *e)
{
    int64_t n_head = m->layer[il].hp.n_head, nope = head_qk(m) - m->hp.n_rot, dv = head_v(m), r = m->hp.kv_lora;
    int64_t shape[] = { n_head * (nope + dv), r };
    float *x;
    TRY(import_load(im, ATTN "kv_b_proj.weight", il, shape, 2, &x, e));
    for (int64_t h = 0; h < n_head; h++)
        for (int64_t j = 0; j < r; j++)
            for (int64_t i = 0; i < nope; i++) out[(h * r + j) * nope + i] = x[(h * (nope + dv) + i) * r + j];
    mem_free(x);
    return OK;
}

static int64_t v_b_row(const struct model *m, int il, int64_t i)
{
    int64_t nope = head_qk(m) - m->hp.n_rot, dv = head_v(m);
    return i / dv * (nope + dv) + nope + i % dv;
}

static const struct weight_import parts[] = { { .id = W_K_B, .load = load_k_b }, { .id = W_V_B, .row = v_b_row }, { .id = W_COUNT } };
static const char *const ignore[] = { "rotary_emb.inv_freq", NULL };
static const struct arch_import import = { .keys = keys, .weights = parts, .ignore = ignore };

const struct arch arch_deepseek2 = {
    .name = "deepseek2",
    .hf = hf,
    .hparams = hparams,
    .weights = weights,
    .setup = setup,
    .dim = dim,
    .layer = layer,
    .import = &import,
};
