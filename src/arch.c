/* arch - the list of architectures, the keys they share, and the small helpers their equations use. */
#include "src/arch.h"
#include "src/import.h"
#include "src/lora_int.h"
#include "src/model_int.h"
#include <assert.h>
#include <math.h>

#define ARCH(name) extern const struct arch arch_##name;
#include "src/arch/list.h"
#undef ARCH
#define ARCH(name) &arch_##name,
const struct arch *const arches[] = {
#include "src/arch/list.h"
    NULL
};

const struct hparam_row common_hparams[] = {
    { "block_count", "num_hidden_layers|n_layer|num_layers|n_layers", HP_INT, HP(n_layer), 1, 1024, NAN },
    { "context_length", "max_position_embeddings|n_positions|max_seq_len|seq_length", HP_INT, HP(n_ctx_train), 1, 1 << 24, NAN },
    { "embedding_length", "hidden_size|n_embd|d_model", HP_INT, HP(n_embd), 1, 1 << 20, NAN },
    { "attention.layer_norm_rms_epsilon", "rms_norm_eps|norm_eps|norm_epsilon", HP_FLOAT, HP(eps), 1e-12, 1, NAN },
    { "attention.head_count", "num_attention_heads|n_head|n_heads", HP_LAYER_INT, LP(n_head), 1, 1024, NAN },
    { "attention.head_count_kv", "num_key_value_heads|num_kv_heads", HP_LAYER_INT, LP(n_head_kv), 0, 1024, HP_ABSENT },
    { "feed_forward_length", "intermediate_size|n_inner|ffn_dim", HP_LAYER_INT, LP(n_ff), 0, 1 << 22, HP_ABSENT },
    { "attention.key_length", "head_dim", HP_LAYER_INT, LP(head_dim), 8, HEAD_DIM_LIMIT, HP_ABSENT },
    { "attention.value_length", "head_dim", HP_LAYER_INT, LP(head_dim_v), 8, HEAD_DIM_LIMIT, HP_ABSENT },
    { "rope.dimension_count", NULL, HP_INT, HP(n_rot), 2, HEAD_DIM_LIMIT, HP_ABSENT },
    { "rope.freq_base", "rope_theta|rotary_emb_base", HP_FLOAT, HP(rope_base), 1e-3, 1e12, 10000 },
    { "rope.scaling.factor", NULL, HP_FLOAT, HP(rope_factor), 1e-6, 1e6, 1 },
    { "rope.scaling.attn_factor", NULL, HP_FLOAT, HP(rope_attn_factor), 1e-6, 1e6, 1 },
    { "rope.scaling.original_context_length", NULL, HP_INT, HP(rope_ctx_orig), 1, 1 << 24, HP_ABSENT },
    { "rope.scaling.yarn_ext_factor", NULL, HP_FLOAT, HP(yarn_ext), -1e6, 1e6, 1 },
    { "rope.scaling.yarn_beta_fast", NULL, HP_FLOAT, HP(yarn_beta_fast), 1e-3, 1e6, 32 },
    { "rope.scaling.yarn_beta_slow", NULL, HP_FLOAT, HP(yarn_beta_slow), 1e-3, 1e6, 1 },
    { "rope.scaling.yarn_exact", NULL, HP_BOOL, HP(yarn_exact), 0, 1, 0 },
    { "attention.scale", NULL, HP_FLOAT, HP(attn_scale), 0, 1e9, HP_ABSENT },
    { "expert_count", NULL, HP_INT, HP(n_expert), 0, EXPERT_LIMIT, 0 },
    { "expert_used_count", "num_experts_per_tok", HP_INT, HP(n_expert_used), 0, EXPERT_LIMIT, 0 },
    { NULL, NULL, HP_INT, 0, 0, 0, 0 },
};

const struct weight_row common_weights[] = {
    { W_ROPE_FREQS, "rope_freqs.weight", NULL, DIM_ROT_HALF, DIM_1, WEIGHT_OPTIONAL },
    { W_ROPE_LONG, "rope_factors_long.weight", NULL, DIM_ROT_HALF, DIM_1, WEIGHT_OPTIONAL },
    { W_ROPE_SHORT, "rope_factors_short.weight", NULL, DIM_ROT_HALF, DIM_1, WEIGHT_OPTIONAL },
    { W_COUNT, NULL, NULL, DIM_1, DIM_1, 0 },
};

bool arch_replaces(const struct arch *a, const struct hparam_row *common)
{
    for (const struct hparam_row *own = a->hparams; own->key; own++)
        if (own->offset == common->offset && (own->kind == HP_LAYER_INT) == (common->kind == HP_LAYER_INT)) return true;
    return false;
}

const struct weight_row *arch_row(const struct arch *a, enum weight_id id)
{
    for (const struct weight_row *r = a->weights; r->gguf; r++)
        if (r->id == id) return r;
    return NULL;
}

const struct layer_params *layer_of(const struct build *b, int il) { return &b->m->layer[il].hp; }

static struct tensor rows_of(const struct tensor *t, int64_t first, int64_t n)
{
    struct tensor part = *t;
    part.data = (uint8_t *)t->data + (size_t)first * t->nb[1];
    part.ne[1] = n;
    return part;
}

/* A matrix of the file, or rows first .. first + n of it: a view, with what is added to its product: outlier columns, adapters. An observer is
 * shown the matrix once, with its first part. */
static val weight_part(const struct build *b, int il, enum weight_id id, int64_t first, int64_t n)
{
    const struct outlier_columns *o = model_outliers(b->m, il, id);
    struct tensor part = rows_of(model_weight(b->m, il, id), first, n);
    if (first > 0) part.name = NULL;
    val w = plan_weight(b->p, &part);
    if (o) {
        struct tensor columns = rows_of(&o->weight, first, n);
        plan_extra(b->p, w, &columns, &o->index);
    }
    for (int i = b->lora ? b->lora->n - 1 : -1; i >= 0; i--) { /* each comes before the ones so far */
        const struct lora_pair *l = adapter_pair(b->lora->use[i].adapter, il, id);
        if (!l) continue;
        struct tensor up = id == W_EMBD ? l->b : rows_of(&l->b, first, n);
        plan_low_rank(b->p, w, &up, &l->a, b->lora->use[i].scale * l->factor);
    }
    return w;
}

val weight(const struct build *b, int il, enum weight_id id)
{
    const struct tensor *t = model_weight(b->m, il, id);
    return t ? weight_part(b, il, id, 0, t->ne[1]) : VAL_NONE;
}

val norm(const struct build *b, int il, val x, enum weight_id id)
{
    val w = weight(b, il, id);
    if (w == VAL_NONE) return x;
    if (!b->m->arch->layer_norm) return op_rms_norm(b->p, x, w, b->m->hp.eps);
    return op_layer_norm(b->p, x, w, weight(b, il, id + 1), b->m->hp.eps, b->p->val[x].t.ne[0]);
}

val head_norm(const struct build *b, int il, val x, enum weight_id id)
{
    const struct tensor *t = model_weight(b->m, il, id);
    if (!t) return x;
    int64_t width = b->p->val[x].t.ne[0], dim = t->ne[1] > 1 || t->ne[0] == layer_of(b, il)->head_dim ? t->ne[0] : width;
    if (!b->m->arch->layer_norm) return op_head_norm(b->p, x, weight(b, il, id), b->m->hp.eps, dim);
    struct tensor flat = *t; /* LayerNorm may have a part for each head */
    tensor_shape(&flat, t->type, tensor_elements(t), 1, 1, 1);
    return op_layer_norm(b->p, x, plan_weight(b->p, &flat), weight(b, il, W_Q_NORM_B + (id == W_K_NORM)), b->m->hp.eps, dim);
}

/* Where a projection lies when the file has it fused with others: behind `before` rows of that many. */
struct fused {
    enum weight_id id, whole, bias, whole_bias;
};
static const struct fused fused_rows[] = {
    { W_ATTN_Q, W_ATTN_QKV, W_BIAS_Q, W_BIAS_QKV },
    { W_ATTN_K, W_ATTN_QKV, W_BIAS_K, W_BIAS_QKV },
    { W_ATTN_V, W_ATTN_QKV, W_BIAS_V, W_BIAS_QKV },
    { W_FFN_GATE, W_FFN_UP, W_BIAS_GATE, W_BIAS_UP },
    { W_FFN_UP, W_FFN_UP, W_BIAS_UP, W_BIAS_UP },
};

static void fused_range(const struct layer_params *l, enum weight_id id, int64_t *first, int64_t *n)
{
    int64_t q = l->n_head * l->head_dim, k = l->n_head_kv * l->head_dim, v = l->n_head_kv * l->head_dim_v;
    *first = id == W_ATTN_K ? q : id == W_ATTN_V ? q + k : id == W_FFN_UP ? l->n_ff : 0;
    *n = id == W_ATTN_Q ? q : id == W_ATTN_K ? k : id == W_ATTN_V ? v : l->n_ff;
}

val project(const struct build *b, int il, enum weight_id w, enum weight_id bias, val x)
{
    const struct tensor *own = model_weight(b->m, il, w);
    for (int i = 0; i < ARRAY_LEN(fused_rows); i++) {
        const struct fused *f = &fused_rows[i];
        const struct tensor *t = model_weight(b->m, il, f->whole), *tb = bias == W_COUNT ? NULL : model_weight(b->m, il, f->whole_bias);
        bool both = f->whole == W_FFN_UP && t && t->ne[1] == 2 * layer_of(b, il)->n_ff; /* gate above up */
        if (f->id != w || !t || (own && !(w == W_FFN_UP && both)) || (f->whole == W_FFN_UP && !both)) continue;
        int64_t first, n;
        fused_range(layer_of(b, il), w, &first, &n);
        val y = op_matmul(b->p, weight_part(b, il, f->whole, first, n), x);
        if (!tb) return y;
        struct tensor part = *tb;
        part.data = (float *)tb->data + first;
        part.ne[0] = n;
        return op_bias(b->p, y, plan_weight(b->p, &part));
    }
    assert(own);
    val y = op_matmul(b->p, weight(b, il, w), x);
    return bias == W_COUNT ? y : op_bias(b->p, y, weight(b, il, bias));
}

val rope(const struct build *b, int il, val x)
{
    const struct layer_params *l = layer_of(b, il);
    if (l->no_rope) return x;
    return op_rope(b->p, x, op_rope_table(b->p, &l->rope), (int32_t)l->head_dim, 0, b->m->arch->rope_neox);
}

val attention(const struct build *b, int il, val q, val k, val v)
{
    const struct layer_params *l = layer_of(b, il);
    float scale = l->scale > 0 ? l->scale : b->m->hp.attn_scale;
    struct attn_spec s = {
        .il = (int32_t)l->il_kv,
        .n_head = (int32_t)l->n_head,
        .n_head_kv = (int32_t)l->n_head_kv,
        .head_dim = (int32_t)l->head_dim,
        .head_dim_v = (int32_t)l->head_dim_v,
        .window = l->window,
        .scale = scale > 0 ? scale : 1.0f / sqrtf((float)l->head_dim),
        .cap = b->m->hp.attn_softcap,
        .alibi = b->m->hp.alibi,
    };
    bool shared = l->il_kv != il;
    return op_attention(b->p, &s, q, shared ? VAL_NONE : k, shared ? VAL_NONE : v, weight(b, il, W_SINKS));
}

val last_rows(const struct build *b, int il, val x)
{
    bool last = il + 1 == b->m->hp.n_layer;
    return last && !b->p->observe ? op_rows(b->p, x) : x; /* an observer sees all rows of every layer */
}

val residual(const struct build *b, val x, val y)
{
    float s = b->m->hp.residual_scale;
    return op_add(b->p, x, s != 0 ? op_scale(b->p, y, s) : y);
}

void share_experts(struct model *m)
{
    struct hparams *hp = &m->hp;
    hp->n_ff_shared = hp->n_ff_expert * hp->n_expert_shared;
    for (int64_t il = 0; il < hp->n_layer && hp->n_expert_shared > 0; il++)
        if (m->layer[il].hp.kind & LAYER_MOE) m->layer[il].hp.kind |= LAYER_SHARED;
}

status drop_nextn(struct model *m, struct err *e)
{
    if (m->hp.n_nextn >= m->hp.n_layer)
        return err_set(e, ERR_FORMAT, "%s.nextn_predict_layers is %lld of %lld layers", m->arch->name, (long long)m->hp.n_nextn,
                       (long long)m->hp.n_layer);
    m->hp.n_layer -= m->hp.n_nextn;
    return OK;
}

int64_t qkv_by_head(const struct model *m, int il, int64_t i)
{
    const struct layer_params *l = &m->layer[il].hp;
    int64_t part = i / (l->n_head * l->head_dim), at = i % (l->n_head * l->head_dim);
    return (at / l->head_dim * 3 + part) * l->head_dim + at % l->head_dim;
}

static status sigmoid_keys(struct import *im, struct err *e)
{
    import_put_int(im, "expert_gating_func", ROUTE_SIGMOID);
    return OK;
}

const struct arch_import import_sigmoid = { .keys = sigmoid_keys };
