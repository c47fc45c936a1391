/* qwen3next, qwen35, qwen35moe - Qwen3-Next and Qwen3.5: three of four layers are gated delta nets, which keep one matrix per value head instead of
 * keys and values; the fourth is attention whose output passes a sigmoid gate per column, with norms on every Q and K head and rope on a part of
 * each head. Dense SwiGLU or experts with a gated shared one. Norm weights are stored with their +1 already added, those of the delta nets are plain.
 * The files differ in the order of value heads: qwen3next groups them by key head (h / (n_v / n_k)), the others deal them out (h % n_k).
 * Text only: rope's three sections see the same position. Sources: Gated Delta Networks, Yang et al. 2024; Qwen3-Next (2025), Qwen3.5 (2026). */
#include "src/arch/rows.h"
#include "src/import.h"
#include "src/model_int.h"
#include <math.h>
#include <string.h>

#define DIM_Q_GATED (DIM_OWN + 0)
#define DIM_MIXED (DIM_OWN + 1)
#define DIM_MIXED_Z (DIM_OWN + 2)
#define DIM_VALUE (DIM_OWN + 3)
#define DIM_V_HEAD (DIM_OWN + 4)
#define DIM_V_HEADS (DIM_OWN + 5)
#define DIM_V_HEADS_TWICE (DIM_OWN + 6)
#define DIM_WINDOW (DIM_OWN + 7)

static const char *const hf_next[] = { "Qwen3NextForCausalLM", NULL };
static const char *const hf_35[] = { "Qwen3_5ForCausalLM", "Qwen3_5ForConditionalGeneration", NULL };
static const char *const hf_35_moe[] = { "Qwen3_5MoeForCausalLM", "Qwen3_5MoeForConditionalGeneration", NULL };

#define HPARAMS_NET                                                                                                                        \
    { "ssm.conv_kernel", "linear_conv_kernel_dim", HP_INT, HP(ssm_conv), 1, SSM_CONV_LIMIT, NAN },                                             \
        { "ssm.state_size", "linear_key_head_dim", HP_INT, HP(ssm_state), 1, HEAD_DIM_LIMIT, NAN },                                        \
        { "ssm.group_count", "linear_num_key_heads", HP_INT, HP(ssm_group), 1, 1024, NAN },                                                \
        { "ssm.time_step_rank", "linear_num_value_heads", HP_INT, HP(ssm_rank), 1, 1024, NAN },                                            \
        { "ssm.inner_size", NULL, HP_INT, HP(ssm_inner), 1, 1 << 20, NAN },                                                                \
        { "full_attention_interval", "full_attention_interval", HP_INT, HP(full_attn_step), 1, 1024, 4 },                                  \
        { "attention.recurrent_layers", NULL, HP_LAYER_INT, LP(pattern), 0, 1, -1 },                                                       \
        { "nextn_predict_layers", NULL, HP_INT, HP(n_nextn), 0, 1024, 0 }
static const struct hparam_row hparams[] = { HPARAMS_NET, { "expert_count", "num_experts", HP_INT, HP(n_expert), 0, 0, 0 }, HPARAMS_END };
static const struct hparam_row hparams_moe[] = {
    HPARAMS_NET,
    { "expert_count", "num_experts", HP_INT, HP(n_expert), 1, EXPERT_LIMIT, NAN },
    { "expert_feed_forward_length", "moe_intermediate_size", HP_INT, HP(n_ff_expert), 1, 1 << 22, 0 },
    { "expert_shared_feed_forward_length", "shared_expert_intermediate_size", HP_INT, HP(n_ff_shared), 1, 1 << 22, 0 },
    HPARAMS_END,
};

#define NET HF_LAYER "linear_attn."
#define ROWS_BODY                                                                                                                          \
    ROWS_EMBEDDING, { W_OUTPUT_NORM, "output_norm.weight", "model.norm.weight", DIM_EMBD, DIM_1, WEIGHT_PLUS_ONE },                       \
        { W_ATTN_NORM, "blk.%d.attn_norm.weight", HF_LAYER "input_layernorm.weight", DIM_EMBD, DIM_1, WEIGHT_PLUS_ONE },                   \
        { W_FFN_NORM, "blk.%d.post_attention_norm.weight", HF_LAYER "post_attention_layernorm.weight", DIM_EMBD, DIM_1, WEIGHT_PLUS_ONE }, \
        { W_ATTN_Q, "blk.%d.attn_q.weight", HF_LAYER "self_attn.q_proj.weight", DIM_EMBD, DIM_Q_GATED, 0, DIM_1, LAYER_ATTENTION },        \
        { W_ATTN_K, "blk.%d.attn_k.weight", HF_LAYER "self_attn.k_proj.weight", DIM_EMBD, DIM_K, 0, DIM_1, LAYER_ATTENTION },              \
        { W_ATTN_V, "blk.%d.attn_v.weight", HF_LAYER "self_attn.v_proj.weight", DIM_EMBD, DIM_V, 0, DIM_1, LAYER_ATTENTION },              \
        { W_ATTN_O, "blk.%d.attn_output.weight", HF_LAYER "self_attn.o_proj.weight", DIM_O, DIM_EMBD, 0, DIM_1, LAYER_ATTENTION },         \
        { W_Q_NORM, "blk.%d.attn_q_norm.weight", HF_LAYER "self_attn.q_norm.weight", DIM_HEAD, DIM_1, WEIGHT_PLUS_ONE, DIM_1,              \
          LAYER_ATTENTION },                                                                                                               \
        { W_K_NORM, "blk.%d.attn_k_norm.weight", HF_LAYER "self_attn.k_norm.weight", DIM_HEAD, DIM_1, WEIGHT_PLUS_ONE, DIM_1,              \
          LAYER_ATTENTION },                                                                                                               \
        { W_SSM_CONV, "blk.%d.ssm_conv1d.weight", NET "conv1d.weight", DIM_WINDOW, DIM_MIXED, WEIGHT_VECTOR, DIM_1, LAYER_RECURRENT },     \
        { W_SSM_DT, "blk.%d.ssm_dt.bias", NET "dt_bias", DIM_V_HEADS, DIM_1, 0, DIM_1, LAYER_RECURRENT },                                  \
        { W_SSM_A, "blk.%d.ssm_a", NET "A_log", DIM_V_HEADS, DIM_1, 0, DIM_1, LAYER_RECURRENT },                                           \
        { W_SSM_NORM, "blk.%d.ssm_norm.weight", NET "norm.weight", DIM_V_HEAD, DIM_1, 0, DIM_1, LAYER_RECURRENT },                         \
        { W_SSM_OUT, "blk.%d.ssm_out.weight", NET "out_proj.weight", DIM_VALUE, DIM_EMBD, 0, DIM_1, LAYER_RECURRENT }

#define ROWS_SPLIT                                                                                                                         \
    { W_ATTN_QKV, "blk.%d.attn_qkv.weight", NET "in_proj_qkv.weight", DIM_EMBD, DIM_MIXED, 0, DIM_1, LAYER_RECURRENT },                    \
        { W_ATTN_GATE, "blk.%d.attn_gate.weight", NET "in_proj_z.weight", DIM_EMBD, DIM_VALUE, 0, DIM_1, LAYER_RECURRENT },                \
        { W_SSM_BETA, "blk.%d.ssm_beta.weight", NET "in_proj_b.weight", DIM_EMBD, DIM_V_HEADS, 0, DIM_1, LAYER_RECURRENT },                \
        { W_SSM_ALPHA, "blk.%d.ssm_alpha.weight", NET "in_proj_a.weight", DIM_EMBD, DIM_V_HEADS, 0, DIM_1, LAYER_RECURRENT }

#define EXPERTS HF_LAYER "mlp.experts."
#define ROWS_QWEN_EXPERTS                                                                                                                  \
    { W_ROUTER, "blk.%d.ffn_gate_inp.weight", HF_LAYER "mlp.gate.weight", DIM_EMBD, DIM_EXPERT, 0, DIM_1, LAYER_MOE },                     \
        { W_GATE_EXPS, "blk.%d.ffn_gate_exps.weight", EXPERTS "%e.gate_proj.weight", DIM_EMBD, DIM_FF_EXPERT, WEIGHT_OPTIONAL,             \
          DIM_EXPERT, LAYER_MOE },                                                                                                         \
        { W_UP_EXPS, "blk.%d.ffn_up_exps.weight", EXPERTS "%e.up_proj.weight", DIM_EMBD, DIM_FF_EXPERT, WEIGHT_OPTIONAL, DIM_EXPERT,       \
          LAYER_MOE },                                                                                                                     \
        { W_GATE_UP_EXPS, "blk.%d.ffn_gate_up_exps.weight", EXPERTS "gate_up_proj", DIM_EMBD, DIM_FF_EXPERT_TWICE, WEIGHT_OPTIONAL,        \
          DIM_EXPERT, LAYER_MOE },                                                                                                         \
        { W_DOWN_EXPS, "blk.%d.ffn_down_exps.weight", EXPERTS "%e.down_proj.weight|" EXPERTS "down_proj", DIM_FF_EXPERT, DIM_EMBD, 0,      \
          DIM_EXPERT, LAYER_MOE },                                                                                                         \
        { W_SHARED_ROUTER, "blk.%d.ffn_gate_inp_shexp.weight", HF_LAYER "mlp.shared_expert_gate.weight", DIM_EMBD, DIM_1, 0, DIM_1,        \
          LAYER_MOE },                                                                                                                     \
        ROWS_SHARED_EXPERTS(HF_LAYER "mlp.shared_expert.", 0)

static const struct weight_row weights_next[] = {
    ROWS_BODY,
    { W_SSM_IN, "blk.%d.ssm_in.weight", NULL, DIM_EMBD, DIM_MIXED_Z, WEIGHT_OPTIONAL, DIM_1, LAYER_RECURRENT }, /* files of 2025 */
    { W_ATTN_QKV, "blk.%d.attn_qkv.weight", NET "in_proj_qkvz.weight", DIM_EMBD, DIM_MIXED, WEIGHT_OPTIONAL, DIM_1, LAYER_RECURRENT },
    { W_ATTN_GATE, "blk.%d.attn_gate.weight", NET "in_proj_qkvz.weight", DIM_EMBD, DIM_VALUE, WEIGHT_OPTIONAL, DIM_1, LAYER_RECURRENT },
    { W_SSM_BETA_ALPHA, "blk.%d.ssm_ba.weight", NET "in_proj_ba.weight", DIM_EMBD, DIM_V_HEADS_TWICE, 0, DIM_1, LAYER_RECURRENT },
    ROWS_QWEN_EXPERTS,
    ROWS_END,
};
static const struct weight_row weights_35[] = { ROWS_BODY, ROWS_SPLIT, ROWS_GATED_FFN, ROWS_END };
static const struct weight_row weights_35_moe[] = { ROWS_BODY, ROWS_SPLIT, ROWS_QWEN_EXPERTS, ROWS_END };

static struct delta_spec spec(const struct model *m, int il)
{
    const struct hparams *hp = &m->hp;
    return (struct delta_spec){ .il = il, .n_k_head = (int32_t)hp->ssm_group, .n_v_head = (int32_t)hp->ssm_rank, .k_dim = (int32_t)hp->ssm_state,
                                .v_dim = (int32_t)(hp->ssm_inner / hp->ssm_rank), .tiled = strcmp(m->arch->name, "qwen3next") != 0 };
}

static int64_t own_dim(const struct model *m, int il, enum dim d)
{
    const struct layer_params *l = &m->layer[il].hp;
    const struct hparams *hp = &m->hp;
    const int64_t mixed = 2 * hp->ssm_group * hp->ssm_state + hp->ssm_inner;
    const int64_t v[] = {
        [DIM_Q_GATED - DIM_OWN] = 2 * l->n_head * l->head_dim,
        [DIM_MIXED - DIM_OWN] = mixed,
        [DIM_MIXED_Z - DIM_OWN] = mixed + hp->ssm_inner,
        [DIM_VALUE - DIM_OWN] = hp->ssm_inner,
        [DIM_V_HEAD - DIM_OWN] = hp->ssm_inner / hp->ssm_rank,
        [DIM_V_HEADS - DIM_OWN] = hp->ssm_rank,
        [DIM_V_HEADS_TWICE - DIM_OWN] = 2 * hp->ssm_rank,
        [DIM_WINDOW - DIM_OWN] = hp->ssm_conv,
    };
    return v[(int)d - DIM_OWN];
}

static status setup(struct model *m, struct err *e)
{
    struct hparams *hp = &m->hp;
    if (hp->ssm_inner % hp->ssm_rank || hp->ssm_rank % hp->ssm_group || hp->ssm_inner / hp->ssm_rank > HEAD_DIM_LIMIT)
        return err_set(e, ERR_FORMAT, "ssm.inner_size %lld, ssm.time_step_rank %lld, ssm.group_count %lld: expected multiples, heads of at most %d",
                       (long long)hp->ssm_inner, (long long)hp->ssm_rank, (long long)hp->ssm_group, HEAD_DIM_LIMIT);
    if (hp->n_nextn >= hp->n_layer)
        return err_set(e, ERR_FORMAT, "nextn_predict_layers is %lld of %lld layers", (long long)hp->n_nextn, (long long)hp->n_layer);
    hp->n_layer -= hp->n_nextn;
    if (!hp->n_ff_shared) hp->n_ff_shared = m->layer[0].hp.n_ff;
    if (hp->n_expert > 0 && !hp->n_ff_expert && hp->n_expert_used > 0) hp->n_ff_expert = m->layer[0].hp.n_ff / hp->n_expert_used;
    hp->expert_norm = 1;
    for (int64_t il = 0; il < hp->n_layer; il++) {
        struct layer_params *l = &m->layer[il].hp;
        if (l->pattern < 0) l->pattern = (il + 1) % hp->full_attn_step != 0;
        if (!l->pattern && l->head_dim != l->head_dim_v) /* the gate is as wide as the query */
            return err_set(e, ERR_FORMAT, "layer %lld: head sizes %lld and %lld, expected two equal ones", (long long)il, (long long)l->head_dim,
                           (long long)l->head_dim_v);
        if (!l->pattern) continue;
        l->kind = (l->kind & ~(unsigned)LAYER_ATTENTION) | LAYER_RECURRENT;
        l->rec = (struct recurrent_state){ .n_conv = hp->ssm_conv, .channels = own_dim(m, (int)il, DIM_MIXED),
                                           .n_memory = hp->ssm_inner * hp->ssm_state };
    }
    return OK;
}

static status check(const struct model *m, struct err *e)
{
    for (int il = 0; il < m->hp.n_layer; il++) {
        unsigned kind = m->layer[il].hp.kind;
        if (kind & LAYER_RECURRENT && !model_weight(m, il, W_SSM_IN) && !(model_weight(m, il, W_ATTN_QKV) && model_weight(m, il, W_ATTN_GATE)))
            return err_set(e, ERR_FORMAT, "tensor blk.%d.attn_qkv.weight or blk.%d.attn_gate.weight is missing", il, il);
        if (kind & LAYER_MOE && !model_weight(m, il, W_GATE_UP_EXPS) && !(model_weight(m, il, W_GATE_EXPS) && model_weight(m, il, W_UP_EXPS)))
            return err_set(e, ERR_FORMAT, "tensor blk.%d.ffn_gate_exps.weight or blk.%d.ffn_up_exps.weight is missing", il, il);
    }
    return OK;
}

static val gated_attention(const struct build *b, int il, val h)
{
    struct plan *p = b->p;
    int64_t dim = layer_of(b, il)->head_dim;
    val both = project(b, il, W_ATTN_Q, W_COUNT, h); /* query and gate of each head side by side */
    val q = op_slice(p, both, 2 * dim, 0, dim), gate = op_slice(p, both, 2 * dim, dim, dim);
    val k = rope(b, il, head_norm(b, il, project(b, il, W_ATTN_K, W_COUNT, h), W_K_NORM));
    val a = attention(b, il, rope(b, il, head_norm(b, il, q, W_Q_NORM)), k, project(b, il, W_ATTN_V, W_COUNT, h));
    a = op_mul(p, a, op_act(p, ACT_SIGMOID, gate));
    return project(b, il, W_ATTN_O, W_COUNT, last_rows(b, il, a));
}

/* Query, key, value and gate of one key head side by side become all queries, all keys, all values; and all gates. */
static val ungroup(const struct build *b, const struct delta_spec *s, val x, val *z)
{
    struct plan *p = b->p;
    int64_t k = s->k_dim, v = s->n_v_head / s->n_k_head * s->v_dim, group = 2 * k + 2 * v, n = s->n_k_head;
    val q = op_slice(p, x, group, 0, k), key = op_slice(p, x, group, k, k), value = op_slice(p, x, group, 2 * k, v);
    *z = op_slice(p, x, group, 2 * k + v, v);
    return op_join(p, op_join(p, q, n * k, key, n * k), 2 * n * k, value, n * v);
}

static val delta_net(const struct build *b, int il, val h)
{
    struct plan *p = b->p;
    struct delta_spec s = spec(b->m, il);
    int64_t k_all = s.n_k_head * s.k_dim, v_all = s.n_v_head * s.v_dim, width = 2 * k_all + v_all, each = s.n_v_head / s.n_k_head;
    val qkv = weight(b, il, W_ATTN_QKV), z, beta, alpha;
    if (qkv == VAL_NONE) {
        qkv = ungroup(b, &s, op_matmul(p, weight(b, il, W_SSM_IN), h), &z);
    } else {
        qkv = op_matmul(p, qkv, h);
        z = op_matmul(p, weight(b, il, W_ATTN_GATE), h);
    }
    val both = weight(b, il, W_SSM_BETA_ALPHA);
    if (both == VAL_NONE) {
        beta = op_matmul(p, weight(b, il, W_SSM_BETA), h);
        alpha = op_matmul(p, weight(b, il, W_SSM_ALPHA), h);
    } else {
        both = op_matmul(p, both, h);
        beta = op_slice(p, both, 2 * each, 0, each);
        alpha = op_slice(p, both, 2 * each, each, each);
    }
    val g = op_mul_vector(p, op_act(p, ACT_SOFTPLUS, op_bias(p, alpha, weight(b, il, W_SSM_DT))), weight(b, il, W_SSM_A));
    qkv = op_act(p, ACT_SILU, op_conv(p, il, qkv, weight(b, il, W_SSM_CONV), VAL_NONE));
    val q = op_l2_norm(p, op_slice(p, qkv, width, 0, k_all), 1e-6f, s.k_dim);
    val k = op_l2_norm(p, op_slice(p, qkv, width, k_all, k_all), 1e-6f, s.k_dim);
    val y = op_delta_rule(p, &s, q, k, op_slice(p, qkv, width, 2 * k_all, v_all), g, op_act(p, ACT_SIGMOID, beta));
    y = op_act_mul(p, ACT_SILU, z, op_head_norm(p, y, weight(b, il, W_SSM_NORM), b->m->hp.eps, s.v_dim), 0);
    return op_matmul(p, weight(b, il, W_SSM_OUT), last_rows(b, il, y));
}

static val layer(const struct build *b, int il, val x)
{
    val h = norm(b, il, x, W_ATTN_NORM);
    h = layer_of(b, il)->kind & LAYER_RECURRENT ? delta_net(b, il, h) : gated_attention(b, il, h);
    x = op_add(b->p, last_rows(b, il, x), h);
    return op_add(b->p, x, feed_forward(b, il, norm(b, il, x, W_FFN_NORM)));
}

/* ---- Hugging Face checkpoints ---- */

/* qwen3next: in_proj_qkvz holds query, key, values and gates of one key head side by side. */
static int64_t row_mixed(const struct model *m, int il, int64_t i)
{
    struct delta_spec s = spec(m, il);
    int64_t k = s.k_dim, k_all = s.n_k_head * k, v = s.n_v_head / s.n_k_head * s.v_dim, group = 2 * k + 2 * v, j = i - 2 * k_all;
    if (i < k_all) return i / k * group + i % k;
    if (i < 2 * k_all) return (i - k_all) / k * group + k + i % k;
    return j / v * group + 2 * k + j % v;
}

static int64_t row_gate(const struct model *m, int il, int64_t i)
{
    struct delta_spec s = spec(m, il);
    int64_t k = s.k_dim, v = s.n_v_head / s.n_k_head * s.v_dim;
    return i / v * (2 * k + 2 * v) + 2 * k + v + i % v;
}

/* qwen35: the checkpoint groups value heads by key head, the file deals them out. */
static int64_t head_from(const struct delta_spec *s, int64_t h) { return h % s->n_k_head * (s->n_v_head / s->n_k_head) + h / s->n_k_head; }

static int64_t row_v_head(const struct model *m, int il, int64_t i)
{
    struct delta_spec s = spec(m, il);
    return head_from(&s, i);
}

static int64_t row_value(const struct model *m, int il, int64_t i)
{
    struct delta_spec s = spec(m, il);
    return head_from(&s, i / s.v_dim) * s.v_dim + i % s.v_dim;
}

static int64_t row_mixed_35(const struct model *m, int il, int64_t i)
{
    struct delta_spec s = spec(m, il);
    int64_t first = 2 * (int64_t)s.n_k_head * s.k_dim;
    return i < first ? i : first + row_value(m, il, i - first);
}

static status load_heads(struct import *im, const struct model *m, int il, const char *name, float *out, struct err *e)
{
    struct delta_spec s = spec(m, il);
    int64_t shape[1] = { s.n_v_head };
    float *x;
    TRY(import_load(im, name, il, shape, 1, &x, e));
    for (int64_t h = 0; h < s.n_v_head; h++) out[h] = x[head_from(&s, h)];
    mem_free(x);
    return OK;
}

static status load_dt(struct import *im, const struct model *m, int il, float *out, struct err *e)
{
    return load_heads(im, m, il, NET "dt_bias", out, e);
}

static status load_a(struct import *im, const struct model *m, int il, float *out, struct err *e)
{
    return load_heads(im, m, il, NET "A_log", out, e);
}

static status load_out(struct import *im, const struct model *m, int il, float *out, struct err *e)
{
    int64_t n = m->hp.ssm_inner, shape[2] = { m->hp.n_embd, n };
    float *x;
    TRY(import_load(im, NET "out_proj.weight", il, shape, 2, &x, e));
    for (int64_t r = 0; r < m->hp.n_embd; r++)
        for (int64_t c = 0; c < n; c++) out[r * n + c] = x[r * n + row_value(m, il, c)];
    mem_free(x);
    return OK;
}

static const struct weight_import imports_next[] = {
    { .id = W_ATTN_QKV, .row = row_mixed },
    { .id = W_ATTN_GATE, .row = row_gate },
    { .id = W_SSM_A, .value = minus_exp },
    { .id = W_COUNT },
};
static const struct weight_import imports_35[] = {
    { .id = W_ATTN_QKV, .row = row_mixed_35 }, { .id = W_ATTN_GATE, .row = row_value },   { .id = W_SSM_BETA, .row = row_v_head },
    { .id = W_SSM_ALPHA, .row = row_v_head },  { .id = W_SSM_CONV, .row = row_mixed_35 }, { .id = W_SSM_DT, .load = load_dt },
    { .id = W_SSM_A, .load = load_a, .value = minus_exp }, { .id = W_SSM_OUT, .load = load_out }, { .id = W_COUNT },
};

static status keys(struct import *im, struct err *e)
{
    enum { LAYERS = 1024 };
    int32_t recurrent[LAYERS];
    const struct json *types = import_config(im, "layer_types");
    int64_t n = types ? types->n : 0;
    import_put_int(im, "ssm.inner_size", import_whole(import_number(im, "linear_value_head_dim", 0) * import_number(im, "linear_num_value_heads", 0)));
    if (import_number(im, "norm_topk_prob", 1) == 0) return err_set(e, ERR_FORMAT, "config.json: norm_topk_prob is false, these equations normalise");
    if (import_number(im, "attention_bias", 0) != 0) return err_set(e, ERR_FORMAT, "config.json: attention_bias is true, these layers have none");
    if (import_number(im, "decoder_sparse_step", 1) != 1) return err_set(e, ERR_FORMAT, "config.json: decoder_sparse_step is not 1");
    const struct json *dense = import_config(im, "mlp_only_layers");
    if (dense && dense->n > 0) return err_set(e, ERR_FORMAT, "config.json: mlp_only_layers is not empty");
    if (n > LAYERS) return err_set(e, ERR_FORMAT, "config.json: layer_types has %lld items, at most %d", (long long)n, LAYERS);
    n = 0;
    for (const struct json *t = types ? types->child : NULL; t; t = t->next) recurrent[n++] = t->kind == JSON_STR && !strcmp(t->str, "linear_attention");
    if (n > 0) import_put_ints(im, "attention.recurrent_layers", recurrent, n);
    return OK;
}

static status keys_35(struct import *im, struct err *e)
{
    int32_t sections[4] = { 11, 11, 10, 0 }; /* what a text never needs, llama.cpp wants to see */
    const struct json *own = import_config(im, "rope_parameters.mrope_section|rope_scaling.mrope_section");
    int i = 0;
    for (const struct json *n = own ? own->child : NULL; n && i < 3; n = n->next) sections[i++] = (int32_t)import_whole(n->f);
    import_put_ints(im, "rope.dimension_sections", sections, ARRAY_LEN(sections));
    return keys(im, e);
}

static const char *const ignore[] = { "mtp.", "model.visual.", NULL };
static const struct arch_import import_next = { .keys = keys, .weights = imports_next, .ignore = ignore };
static const struct arch_import import_35 = { .keys = keys_35, .weights = imports_35, .ignore = ignore };

const struct arch arch_qwen3next = { .name = "qwen3next", .hf = hf_next, .hparams = hparams_moe, .weights = weights_next, .rope_neox = true,
                                     .setup = setup, .check = check, .dim = own_dim, .layer = layer, .import = &import_next };
const struct arch arch_qwen35 = { .name = "qwen35", .hf = hf_35, .hparams = hparams, .weights = weights_35, .rope_neox = true,
                                  .setup = setup, .dim = own_dim, .layer = layer, .import = &import_35 };
const struct arch arch_qwen35moe = { .name = "qwen35moe", .hf = hf_35_moe, .hparams = hparams_moe, .weights = weights_35_moe, .rope_neox = true,
                                     .setup = setup, .check = check, .dim = own_dim, .layer = layer, .import = &import_35 };
