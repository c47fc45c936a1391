/* model - opens a GGUF file as a runnable model: reads the architecture's keys, binds and checks its weights, opens the tokenizer.
 * Driven by the rows of arch.h; knows no architecture by name. */
#include "src/model.h"
#include "src/model_int.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- hyper-parameters ---- */

static status missing_key(const char *key, struct err *e) { return err_set(e, ERR_FORMAT, "key %s is missing", key); }

static status out_of_range(const char *key, double v, const struct hparam_row *r, struct err *e)
{
    return err_set(e, ERR_FORMAT, "%s is %g, expected %g to %g", key, v, r->lo, r->hi);
}

static status read_int(struct model *m, const char *key, const struct hparam_row *r, struct err *e)
{
    int64_t *out = (int64_t *)((char *)&m->hp + r->offset), v;
    struct err own = { 0 };
    if (gguf_get_i64(&m->g, key, INT64_MIN, INT64_MAX, &v, &own)) {
        if ((double)v < r->lo || (double)v > r->hi) return out_of_range(key, (double)v, r, e);
        *out = v;
        return OK;
    }
    if (own.code != OK) return err_set(e, own.code, "%s", own.text);
    if (isnan(r->def)) return missing_key(key, e);
    if (r->def != HP_ABSENT) *out = (int64_t)r->def;
    return OK;
}

static status read_float(struct model *m, const char *key, const struct hparam_row *r, struct err *e)
{
    float *out = (float *)((char *)&m->hp + r->offset), v;
    struct err own = { 0 };
    if (gguf_get_f32(&m->g, key, &v, &own)) {
        if (!(v >= r->lo && v <= r->hi)) return out_of_range(key, v, r, e);
        *out = v;
        return OK;
    }
    if (own.code != OK) return err_set(e, own.code, "%s", own.text);
    if (isnan(r->def)) return missing_key(key, e);
    if (r->def != HP_ABSENT) *out = (float)r->def;
    return OK;
}

static status read_bool(struct model *m, const char *key, const struct hparam_row *r, struct err *e)
{
    bool v;
    struct err own = { 0 };
    if (gguf_get_bool(&m->g, key, &v, &own)) *(int64_t *)((char *)&m->hp + r->offset) = v;
    else if (own.code != OK) return err_set(e, own.code, "%s", own.text);
    else if (isnan(r->def)) return missing_key(key, e);
    else if (r->def != HP_ABSENT) *(int64_t *)((char *)&m->hp + r->offset) = (int64_t)r->def;
    return OK;
}

static status read_layer_int(struct model *m, const char *key, const struct hparam_row *r, struct err *e)
{
    const struct gguf_kv *kv = gguf_find(&m->g, key);
    if (!kv) {
        if (isnan(r->def)) return missing_key(key, e);
        for (int64_t il = 0; il < m->hp.n_layer && r->def != HP_ABSENT; il++) *(int64_t *)((char *)&m->layer[il].hp + r->offset) = (int64_t)r->def;
        return OK;
    }
    bool array = kv->kind == KV_ARR;
    if (array && (kv->elem == KV_STR || kv->elem == KV_F32 || kv->elem == KV_F64 || (kv->elem == KV_BOOL && r->hi > 1)))
        return err_set(e, ERR_FORMAT, "%s holds %s items, expected integers", key, gguf_kind_name(kv->elem));
    if (array && (int64_t)kv->n < m->hp.n_layer)
        return err_set(e, ERR_FORMAT, "%s has %llu items, expected one for each of %lld layers", key, (unsigned long long)kv->n,
                       (long long)m->hp.n_layer);
    int64_t scalar = 0;
    struct err own = { 0 };
    if (!array && !gguf_get_i64(&m->g, key, INT64_MIN, INT64_MAX, &scalar, &own)) return err_set(e, own.code, "%s", own.text);
    if (array && (int64_t)kv->n > (int64_t)1 << 16) return err_set(e, ERR_FORMAT, "%s has %llu items", key, (unsigned long long)kv->n);
    for (int64_t il = 0; il < m->hp.n_layer; il++) {
        int64_t v = array ? gguf_arr_i64(kv, (uint64_t)il) : scalar;
        if ((double)v < r->lo || (double)v > r->hi) return out_of_range(key, (double)v, r, e);
        *(int64_t *)((char *)&m->layer[il].hp + r->offset) = v;
    }
    return OK;
}

static status read_rows(struct model *m, const struct hparam_row *rows, bool per_layer, struct err *e)
{
    static status (*const read[])(struct model *, const char *, const struct hparam_row *, struct err *) = {
        [HP_INT] = read_int,
        [HP_FLOAT] = read_float,
        [HP_BOOL] = read_bool,
        [HP_LAYER_INT] = read_layer_int,
    };
    for (const struct hparam_row *r = rows; r->key; r++) {
        if ((r->kind == HP_LAYER_INT) != per_layer || (rows == common_hparams && arch_replaces(m->arch, r))) continue;
        char key[128];
        snprintf(key, sizeof key, "%s.%s", m->arch->name, r->key);
        TRY(read[r->kind](m, key, r, e));
    }
    return OK;
}

/* ---- positions ---- */

static const char *const rope_names[ROPE_KINDS] = { "none", "linear", "yarn", "longrope", "ntk" };

static status rope_kind_of(struct str name, const char *what, enum rope_kind *kind, struct err *e)
{
    for (int i = 0; i < ROPE_KINDS; i++)
        if (strlen(rope_names[i]) == name.n && !memcmp(rope_names[i], name.p, name.n)) {
            *kind = (enum rope_kind)i;
            return OK;
        }
    return err_set(e, ERR_FORMAT, "%s is \"%.*s\": this build knows none, linear, yarn, longrope, ntk", what,
                   (int)min_i64((int64_t)name.n, 40), name.p);
}

/* What the file says, then what the caller overrides. */
static status rope_kind(struct model *m, const struct model_options *o, enum rope_kind *kind, struct err *e)
{
    char key[128];
    struct str type;
    struct err own = { 0 };
    struct hparams *hp = &m->hp;
    *kind = ROPE_NONE;
    snprintf(key, sizeof key, "%s.rope.scaling.type", m->arch->name);
    if (gguf_get_str(&m->g, key, &type, &own)) TRY(rope_kind_of(type, key, kind, e));
    else if (own.code != OK) return err_set(e, own.code, "%s", own.text);
    else if (gguf_tensor(&m->g, "rope_factors_long.weight")) *kind = ROPE_LONG; /* Phi-3 files have the factors and no type */
    if (o->rope_scaling) {
        struct str name = { o->rope_scaling, strlen(o->rope_scaling) };
        TRY(rope_kind_of(name, "rope scaling", kind, e));
    }
    if (o->rope_scaling && *kind == ROPE_LONG && !gguf_tensor(&m->g, "rope_factors_long.weight"))
        return err_set(e, ERR_USAGE, "rope scaling longrope needs factors, and this file has no rope_factors_long.weight; yarn, ntk and linear need none");
    if (o->rope_base > 0) hp->rope_base = o->rope_base;
    if (o->rope_factor > 0) hp->rope_factor = o->rope_factor;
    if (o->rope_ctx_orig > 0) hp->rope_ctx_orig = o->rope_ctx_orig;
    if (o->rope_scaling && hp->rope_ctx_orig < 1) hp->rope_ctx_orig = hp->n_ctx_train;
    if ((*kind == ROPE_YARN || *kind == ROPE_LONG) && hp->rope_ctx_orig < 1)
        return err_set(e, ERR_FORMAT, "%s is %s but rope.scaling.original_context_length is missing", key, rope_names[*kind]);
    if (*kind == ROPE_YARN && hp->yarn_ext != 1 && hp->yarn_ext != -1) /* -1: llama.cpp's word for "as YaRN does" */
        return err_set(e, ERR_FORMAT, "%s.rope.scaling.yarn_ext_factor is %g: only 1 and -1 are supported", m->arch->name, (double)hp->yarn_ext);
    return OK;
}

/* YaRN: dimensions that turn more than beta_fast times over the original context keep their angle, fewer than beta_slow are scaled. */
static void yarn(const struct hparams *hp, struct rope_spec *s)
{
    float d = (float)s->n_rot, l0 = (float)hp->rope_ctx_orig, two_ln_base = 2 * logf(hp->rope_base);
    float low = d * logf(l0 / (hp->yarn_beta_fast * 6.2831853f)) / two_ln_base, high = d * logf(l0 / (hp->yarn_beta_slow * 6.2831853f)) / two_ln_base;
    s->yarn_ext = 1;
    s->yarn_low = fmaxf(0, hp->yarn_exact ? low : floorf(low));
    s->yarn_high = fminf(d - 1, hp->yarn_exact ? high : ceilf(high));
    s->mscale = hp->rope_attn_factor * (1 + 0.1f * logf(hp->rope_factor));
}

/* The rope variant of all layers; an architecture's setup may give single layers another. */
static void rope_spec(const struct hparams *hp, enum rope_kind kind, int64_t n_rot, struct rope_spec *s)
{
    *s = (struct rope_spec){ .n_rot = (int32_t)n_rot, .base = hp->rope_base, .freq_scale = 1, .mscale = 1 };
    switch (kind) {
    case ROPE_LINEAR:
        s->freq_scale = 1.0f / hp->rope_factor;
        break;
    case ROPE_YARN:
        s->freq_scale = 1.0f / hp->rope_factor;
        yarn(hp, s);
        break;
    case ROPE_LONG:
        s->mscale = hp->rope_attn_factor;
        break;
    case ROPE_NTK: /* the slowest pair is stretched by the factor, the fastest stays (bloc97 2023) */
        if (n_rot > 2) s->base = hp->rope_base * powf(hp->rope_factor, (float)n_rot / (float)(n_rot - 2));
        break;
    default:
        break;
    }
}

static status layer_defaults(struct model *m, int64_t il, enum rope_kind kind, struct err *e)
{
    const struct hparams *hp = &m->hp;
    struct layer_params *l = &m->layer[il].hp;
    l->kind = LAYER_ATTENTION | (hp->n_expert > 0 && il >= hp->n_dense_lead ? LAYER_MOE : LAYER_DENSE);
    l->il_kv = il;
    if (l->n_head_kv < 0) l->n_head_kv = l->n_head;
    if (!l->head_dim) {
        int64_t n_head = max_i64(1, l->n_head); /* 0: no attention anywhere, nobody reads it */
        if (hp->n_embd % n_head)
            return err_set(e, ERR_FORMAT, "layer %lld: embedding_length %lld is no multiple of head_count %lld", (long long)il,
                           (long long)hp->n_embd, (long long)l->n_head);
        l->head_dim = hp->n_embd / n_head;
    }
    if (!l->head_dim_v) l->head_dim_v = l->head_dim;
    rope_spec(hp, kind, hp->n_rot ? hp->n_rot : l->head_dim, &l->rope);
    return OK;
}

static bool has_experts(const struct arch *arch)
{
    for (const struct weight_row *r = arch->weights; r->gguf; r++)
        if (r->id == W_ROUTER) return true;
    return false;
}

/* What the ops take for granted, after the architecture had its say. */
static status check_layer(const struct model *m, int64_t il, struct err *e)
{
    const struct hparams *hp = &m->hp;
    const struct layer_params *l = &m->layer[il].hp;
    long long i = il;
    if (l->kind & LAYER_DENSE && l->n_ff < 1) {
        char key[96];
        snprintf(key, sizeof key, "%s.feed_forward_length", m->arch->name);
        return missing_key(key, e);
    }
    if (l->kind & LAYER_MOE && !has_experts(m->arch))
        return err_set(e, ERR_FORMAT, "%s.expert_count is %lld, but the architecture has no experts", m->arch->name, (long long)hp->n_expert);
    if (l->kind & LAYER_MOE && (hp->n_expert_used < 1 || hp->n_expert_used > hp->n_expert || hp->n_ff_expert < 1))
        return err_set(e, ERR_FORMAT, "layer %lld: %lld of %lld experts of width %lld are used, expected at least 1 of 1", i,
                       (long long)hp->n_expert_used, (long long)hp->n_expert, (long long)hp->n_ff_expert);
    if (l->kind & LAYER_MOE && hp->n_expert_group > 1 && hp->n_expert % hp->n_expert_group)
        return err_set(e, ERR_FORMAT, "%lld experts are no multiple of %lld groups", (long long)hp->n_expert, (long long)hp->n_expert_group);
    if (l->kind & LAYER_MOE && hp->n_expert_group > 1 &&
        (hp->n_expert_group_used > hp->n_expert_group || hp->n_expert / hp->n_expert_group * hp->n_expert_group_used < hp->n_expert_used))
        return err_set(e, ERR_FORMAT, "%lld of %lld groups of %lld experts cannot give %lld experts", (long long)hp->n_expert_group_used,
                       (long long)hp->n_expert_group, (long long)(hp->n_expert / hp->n_expert_group), (long long)hp->n_expert_used);
    if (!(l->kind & LAYER_ATTENTION)) return OK;
    if (l->n_head_kv < 1 || l->n_head % l->n_head_kv)
        return err_set(e, ERR_FORMAT, "layer %lld: head_count %lld is no multiple of head_count_kv %lld", i, (long long)l->n_head,
                       (long long)l->n_head_kv);
    if (l->head_dim % 8 || l->head_dim_v % 8 || l->head_dim > HEAD_DIM_LIMIT || l->head_dim_v > HEAD_DIM_LIMIT)
        return err_set(e, ERR_FORMAT, "layer %lld: head sizes %lld and %lld, expected multiples of 8 up to %d", i, (long long)l->head_dim,
                       (long long)l->head_dim_v, HEAD_DIM_LIMIT);
    if (l->rope.n_rot % 2 || l->rope.n_rot > l->head_dim)
        return err_set(e, ERR_FORMAT, "rope.dimension_count is %d, expected an even number up to the head size %lld", l->rope.n_rot,
                       (long long)l->head_dim);
    return OK;
}

static const struct arch *find_arch(struct str name)
{
    for (int i = 0; arches[i]; i++)
        if (strlen(arches[i]->name) == name.n && !memcmp(arches[i]->name, name.p, name.n)) return arches[i];
    return NULL;
}

status model_read_hparams(struct model *m, const struct model_options *o, struct err *e)
{
    struct str name = { 0 };
    struct err own = { 0 };
    if (!gguf_get_str(&m->g, "general.architecture", &name, &own))
        return own.code != OK ? err_set(e, own.code, "%s", own.text) : missing_key("general.architecture", e);
    m->arch = find_arch(name);
    if (!m->arch) {
        char list[600] = "";
        for (int i = 0; arches[i]; i++) snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", i ? ", " : "", arches[i]->name);
        return err_set(e, ERR_FORMAT, "architecture \"%.*s\" is not supported by this build, which knows %s",
                       (int)min_i64((int64_t)name.n, 40), name.p, list);
    }
    TRY(read_rows(m, common_hparams, false, e));
    TRY(read_rows(m, m->arch->hparams, false, e));
    m->layer = arena_zalloc(&m->arena, (size_t)m->hp.n_layer, sizeof *m->layer);
    if (!m->layer) return err_oom(e, "layers", (size_t)m->hp.n_layer * sizeof *m->layer);
    for (int64_t il = 0; il < m->hp.n_layer; il++) m->layer[il].hp.n_head_kv = -1;
    TRY(read_rows(m, common_hparams, true, e));
    TRY(read_rows(m, m->arch->hparams, true, e));
    enum rope_kind kind;
    TRY(rope_kind(m, o, &kind, e));
    m->rope = kind;
    int64_t n_ctx = o->n_ctx > 0 ? o->n_ctx : o->n_ctx < 0 ? min_i64(m->hp.n_ctx_train, -o->n_ctx) : m->hp.n_ctx_train;
    m->long_context = kind == ROPE_LONG && n_ctx > m->hp.rope_ctx_orig;
    for (int64_t il = 0; il < m->hp.n_layer; il++) TRY(layer_defaults(m, il, kind, e));
    if (m->arch->setup) TRY(m->arch->setup(m, e));
    for (int64_t il = 0; il < m->hp.n_layer; il++) TRY(check_layer(m, il, e));
    return OK;
}

/* ---- weights ---- */

int64_t model_dim(const struct model *m, int il, enum dim d)
{
    const struct layer_params *l = &m->layer[il < 0 ? 0 : il].hp;
    const struct hparams *hp = &m->hp;
    if (d >= DIM_OWN) return m->arch->dim(m, il, d);
    const int64_t v[] = {
        [DIM_1] = 1,
        [DIM_EMBD] = hp->n_embd,
        [DIM_Q] = l->n_head * l->head_dim,
        [DIM_K] = l->n_head_kv * l->head_dim,
        [DIM_V] = l->n_head_kv * l->head_dim_v,
        [DIM_O] = l->n_head * l->head_dim_v,
        [DIM_QKV] = (l->n_head + l->n_head_kv) * l->head_dim + l->n_head_kv * l->head_dim_v,
        [DIM_FF] = l->n_ff,
        [DIM_FF_TWICE] = 2 * l->n_ff,
        [DIM_HEAD] = l->head_dim,
        [DIM_N_HEAD] = l->n_head,
        [DIM_VOCAB] = hp->n_vocab,
        [DIM_ROT_HALF] = l->rope.n_rot / 2,
        [DIM_CTX] = hp->n_ctx_train,
        [DIM_EXPERT] = hp->n_expert,
        [DIM_FF_EXPERT] = hp->n_ff_expert,
        [DIM_FF_EXPERT_TWICE] = 2 * hp->n_ff_expert,
        [DIM_FF_SHARED] = hp->n_ff_shared,
        [DIM_N_HEAD_KV] = l->n_head_kv,
        [DIM_SSM_ALL] = 2 * hp->ssm_inner + 2 * hp->ssm_group * hp->ssm_state + hp->ssm_rank,
        [DIM_SSM_MIXED] = hp->ssm_inner + 2 * hp->ssm_group * hp->ssm_state,
        [DIM_SSM_INNER] = hp->ssm_inner,
        [DIM_SSM_HEADS] = hp->ssm_rank,
        [DIM_SSM_WINDOW] = hp->ssm_conv,
        [DIM_SSM_PART] = hp->ssm_inner / max_i64(1, hp->ssm_group),
        [DIM_SSM_GROUPS] = hp->ssm_group,
    };
    return v[d];
}

bool model_has_row(const struct model *m, int il, const struct weight_row *r) { return il < 0 || (m->layer[il].hp.kind & r->kind) == r->kind; }

static status check_finite(const struct tensor *t, struct err *e)
{
    const float *x = t->data;
    for (int64_t i = 0; i < tensor_elements(t); i++)
        if (!isfinite(x[i])) return err_set(e, ERR_FORMAT, "%s: element %lld is %f", t->name, (long long)i, x[i]);
    return OK;
}

/* Norms, biases and rope factors are read as f32 by the ops; anything else in them is refused rather than converted. */
static status check_vector(const struct tensor *t, struct err *e)
{
    if (t->type->gguf_id != GGUF_F32) return err_set(e, ERR_FORMAT, "%s: type is %s, expected F32", t->name, t->type->gguf_name);
    return check_finite(t, e);
}

static status check_index(const struct tensor *t, int64_t n_cols, struct err *e)
{
    const int32_t *index = t->data;
    for (int64_t i = 0, after = -1; i < t->ne[0]; after = index[i++])
        if (index[i] <= after || index[i] >= n_cols)
            return err_set(e, ERR_FORMAT, "%s: element %lld is %d, expected more than %lld and less than %lld", t->name, (long long)i, index[i],
                           (long long)after, (long long)n_cols);
    return OK;
}

/* The columns that stand beside the matrix `name` ("<base>.weight"), if the file has them. Rows of an embedding table are read one by one,
 * not multiplied: there they would be lost. */
static status bind_outliers(struct model *m, const struct weight_row *r, int il, const char *name, const struct tensor *w, int64_t *n_bound,
                            struct err *e)
{
    char side[112], have[64];
    int base = (int)(strlen(name) - strlen(".weight"));
    struct outlier_columns *o = r->id < W_LAYER_COUNT ? &m->layer[il].outlier[r->id] : &m->outlier[r->id - W_LAYER_COUNT];
    snprintf(side, sizeof side, "%.*s.outlier.weight", base, name);
    const struct tensor *part = gguf_tensor(&m->g, side);
    snprintf(side, sizeof side, "%.*s.outlier.index", base, name);
    const struct tensor *index = gguf_tensor(&m->g, side);
    if (!part && !index) return OK;
    if (!part || !index) return err_set(e, ERR_FORMAT, "%s: %.*s.outlier.%s is missing", name, base, name, part ? "index" : "weight");
    if (r->ne1 == DIM_VOCAB && r->id != W_OUTPUT) return err_set(e, ERR_FORMAT, "%s: an embedding table with outlier columns is not supported", name);
    if (index->type->gguf_id != GGUF_I32 || index->ne[0] < 1 || index->ne[0] > w->ne[0] || tensor_rows(index) != 1)
        return err_set(e, ERR_FORMAT, "%s: is %s %s, expected I32 with 1 to %lld elements", index->name, index->type->gguf_name,
                       tensor_shape_text(index, have), (long long)w->ne[0]);
    if (part->type->gguf_id != GGUF_F16 && part->type->gguf_id != GGUF_F32)
        return err_set(e, ERR_FORMAT, "%s: type is %s, expected F16 or F32", part->name, part->type->gguf_name);
    if (part->ne[0] != index->ne[0] || part->ne[1] != w->ne[1] || part->ne[2] != 1 || part->ne[3] != 1)
        return err_set(e, ERR_FORMAT, "%s: shape is %s, expected [%lld, %lld]", part->name, tensor_shape_text(part, have), (long long)index->ne[0],
                       (long long)w->ne[1]);
    TRY(check_index(index, w->ne[0], e));
    *o = (struct outlier_columns){ *part, *index };
    *n_bound += 2;
    return OK;
}

static const char *shape_text(int64_t ne0, int64_t ne1, int64_t ne2, char buf[96])
{
    if (ne2 > 1) snprintf(buf, 96, "[%lld, %lld, %lld]", (long long)ne0, (long long)ne1, (long long)ne2);
    else snprintf(buf, 96, "[%lld, %lld]", (long long)ne0, (long long)ne1);
    return buf;
}

static status bind_weight(struct model *m, const struct weight_row *r, int il, int64_t *n_bound, struct err *e)
{
    char name[96], have[64], want[96];
    snprintf(name, sizeof name, r->gguf, il);
    struct tensor *dst = r->id < W_LAYER_COUNT ? &m->layer[il].w[r->id] : &m->w[r->id - W_LAYER_COUNT];
    const struct tensor *t = gguf_tensor(&m->g, name);
    if (!t) return r->flags & WEIGHT_OPTIONAL ? OK : err_set(e, ERR_FORMAT, "tensor %s is missing", name);
    int64_t ne0 = model_dim(m, il, r->ne0), ne1 = model_dim(m, il, r->ne1), ne2 = model_dim(m, il, r->ne2);
    bool vocab = r->ne1 == DIM_VOCAB;
    if (vocab && t->ne[0] == ne0 && t->ne[1] < ne1)
        return err_set(e, ERR_FORMAT, "%s has %lld rows but the tokenizer has %lld tokens", name, (long long)t->ne[1], (long long)ne1);
    if (t->ne[0] != ne0 || (vocab ? t->ne[1] < ne1 : t->ne[1] != ne1) || t->ne[2] != ne2 || t->ne[3] != 1)
        return err_set(e, ERR_FORMAT, "%s: shape is %s, expected %s", name, tensor_shape_text(t, have), shape_text(ne0, ne1, ne2, want));
    bool vector = r->ne1 == DIM_1 || r->flags & WEIGHT_VECTOR;
    if (vector) TRY(check_vector(t, e));
    *dst = *t;
    ++*n_bound;
    return vector || ne2 > 1 ? OK : bind_outliers(m, r, il, name, t, n_bound, e);
}

static bool same_place(const struct tensor *a, const struct tensor *b) { return a->type && a->data == b->data; }

static bool used(const struct model *m, const struct tensor *t)
{
    for (int i = 0; i < W_COUNT - W_LAYER_COUNT; i++)
        if (same_place(&m->w[i], t) || same_place(&m->outlier[i].weight, t) || same_place(&m->outlier[i].index, t)) return true;
    for (int64_t il = 0; il < m->hp.n_layer; il++)
        for (int i = 0; i < W_LAYER_COUNT; i++) {
            const struct layer *l = &m->layer[il];
            if (same_place(&l->w[i], t) || same_place(&l->outlier[i].weight, t) || same_place(&l->outlier[i].index, t)) return true;
        }
    return false;
}

static void note_unused(struct model *m, int64_t n_bound)
{
    if (n_bound == m->g.n_tensors) return;
    for (int64_t i = 0; i < m->g.n_tensors; i++)
        if (!used(m, &m->g.tensor[i])) {
            snprintf(m->note, sizeof m->note, "%lld tensors are not used by architecture %s, first %s",
                     (long long)(m->g.n_tensors - n_bound), m->arch->name, m->g.tensor[i].name);
            return;
        }
}

/* One vector serves all layers, so all that take it must rotate as many dimensions as it has factors for. Angles are divided by them. */
static status use_rope_factors(struct model *m, enum weight_id id, struct err *e)
{
    const struct tensor *t = model_weight(m, -1, id);
    if (!t) return OK;
    const float *factor = t->data;
    for (int64_t i = 0; i < t->ne[0]; i++)
        if (!(factor[i] > 0))
            return err_set(e, ERR_FORMAT, "%s: element %lld is %g, expected more than 0", t->name, (long long)i, factor[i]);
    for (int64_t il = 0; il < m->hp.n_layer; il++) {
        struct rope_spec *s = &m->layer[il].hp.rope;
        if (m->layer[il].hp.no_rope_factors) continue;
        if (s->n_rot / 2 != t->ne[0])
            return err_set(e, ERR_FORMAT, "%s has %lld factors but layer %lld rotates %d pairs", t->name, (long long)t->ne[0],
                           (long long)il, s->n_rot / 2);
        s->factor = factor;
    }
    return OK;
}

static status bind_weights(struct model *m, struct err *e)
{
    int64_t n_bound = 0;
    for (const struct weight_row *r = m->arch->weights; r->gguf; r++) {
        bool per_layer = r->id < W_LAYER_COUNT;
        for (int il = 0; il < (per_layer ? m->hp.n_layer : 1); il++)
            if (model_has_row(m, per_layer ? il : -1, r)) TRY(bind_weight(m, r, per_layer ? il : -1, &n_bound, e));
    }
    for (const struct weight_row *r = common_weights; r->gguf; r++)
        if (!arch_row(m->arch, r->id)) TRY(bind_weight(m, r, -1, &n_bound, e));
    if (!model_weight(m, -1, W_OUTPUT)) m->w[W_OUTPUT - W_LAYER_COUNT] = *model_weight(m, -1, W_EMBD); /* tied head */
    note_unused(m, n_bound);
    if (m->arch->check) TRY(m->arch->check(m, e));
    TRY(use_rope_factors(m, m->long_context ? W_ROPE_LONG : W_ROPE_SHORT, e));
    return use_rope_factors(m, W_ROPE_FREQS, e);
}

static status check_vocab_key(const struct model *m, struct err *e)
{
    char key[128];
    snprintf(key, sizeof key, "%s.vocab_size", m->arch->name);
    int64_t v;
    struct err own = { 0 };
    if (!gguf_get_i64(&m->g, key, INT64_MIN, INT64_MAX, &v, &own)) return own.code != OK ? err_set(e, own.code, "%s", own.text) : OK;
    if (v < m->hp.n_vocab)
        return err_set(e, ERR_FORMAT, "%s is %lld but the tokenizer has %lld tokens", key, (long long)v, (long long)m->hp.n_vocab);
    return OK;
}

/* ---- public ---- */

static status prefix_path(const char *path, const struct err *own, struct err *e)
{
    return strstr(own->text, path) ? err_set(e, own->code, "%s", own->text) : err_set(e, own->code, "%s: %s", path, own->text);
}

/* general.type is newer than GGUF and mostly absent; what says that it is an adapter has an architecture, but none of its keys. */
static status check_kind(const struct model *m, struct err *e)
{
    struct str type = { 0 };
    if (!gguf_get_str(&m->g, "general.type", &type, NULL) || type.n != 7 || memcmp(type.p, "adapter", 7) != 0) return OK;
    return err_set(e, ERR_FORMAT, "an adapter, not a model: open its base model with --lora and this file");
}

/* data NULL: the file at path */
static status open_from(struct model **out, const char *path, const uint8_t *data, size_t n, const struct model_options *o, struct err *e)
{
    *out = NULL;
    struct model *m = mem_calloc(1, sizeof *m);
    if (!m) return err_oom(e, "model", sizeof *m);
    arena_init(&m->arena, 0);
    struct err own = { 0 };
    status st = data ? gguf_parse(&m->g, data, n, path, &own) : gguf_open(&m->g, path, !o->no_mmap, &own);
    if (st == OK) st = check_kind(m, &own);
    if (st == OK) st = model_read_hparams(m, o, &own);
    if (st == OK) st = tokenizer_open(&m->tok, &m->g, o->pre, &own);
    if (st == OK) m->hp.n_vocab = tokenizer_size(m->tok);
    if (st == OK) st = check_vocab_key(m, &own);
    if (st == OK) st = bind_weights(m, &own);
    if (st == OK && o->check) st = model_check(m, &own);
    if (st != OK) {
        model_close(m);
        return prefix_path(path, &own, e);
    }
    *out = m;
    return OK;
}

status model_open(struct model **out, const char *path, const struct model_options *o, struct err *e) { return open_from(out, path, NULL, 0, o, e); }

status model_parse(struct model **out, const uint8_t *data, size_t n, const char *name, const struct model_options *o, struct err *e)
{
    return open_from(out, name, data, n, o, e);
}

void model_close(struct model *m)
{
    if (!m) return;
    tokenizer_close(m->tok);
    arena_free(&m->arena);
    gguf_close(&m->g);
    mem_free(m);
}

status model_check(const struct model *m, struct err *e)
{
    int64_t longest = 1;
    for (int64_t i = 0; i < m->g.n_tensors; i++) longest = max_i64(longest, m->g.tensor[i].ne[0]);
    float *row = mem_calloc((size_t)longest, sizeof *row);
    if (!row) return err_oom(e, "row", (size_t)longest * sizeof *row);
    status st = OK;
    for (int64_t i = 0; i < m->g.n_tensors && st == OK; i++) {
        const struct tensor *t = &m->g.tensor[i];
        for (int64_t r = 0; r < tensor_rows(t) && st == OK; r++) {
            dtype_to_f32(t->type, (const uint8_t *)t->data + (size_t)r * t->nb[1], row, t->ne[0]);
            for (int64_t k = 0; k < t->ne[0] && st == OK; k++)
                if (!isfinite(row[k]))
                    st = err_set(e, ERR_FORMAT, "%s: row %lld column %lld is %f", t->name, (long long)r, (long long)k, row[k]);
        }
    }
    mem_free(row);
    return st;
}

static void dominant_type(const struct gguf *g, char *out, size_t cap)
{
    uint64_t bytes[DTYPE_IDS] = { 0 };
    int best = -1;
    for (int64_t i = 0; i < g->n_tensors; i++) {
        int id = g->tensor[i].type->gguf_id;
        bytes[id] += tensor_bytes(&g->tensor[i]);
        if (best < 0 || bytes[id] > bytes[best]) best = id;
    }
    snprintf(out, cap, "%s", best < 0 ? "" : dtype_by_id(best)->gguf_name);
}

void model_info(const struct model *m, struct model_info *o)
{
    const struct layer_params *l = &m->layer[0].hp;
    *o = (struct model_info){
        .arch = m->arch->name,
        .n_layer = m->hp.n_layer,
        .n_embd = m->hp.n_embd,
        .n_head = l->n_head,
        .n_head_kv = l->n_head_kv,
        .n_ff = l->n_ff,
        .n_vocab = m->hp.n_vocab,
        .n_ctx_train = m->hp.n_ctx_train,
        .file_bytes = gguf_bytes(&m->g),
        .note = m->note,
        .rope = rope_names[m->rope],
        .rope_factor = m->rope == ROPE_LINEAR || m->rope == ROPE_YARN || m->rope == ROPE_NTK ? m->hp.rope_factor : 1,
    };
    struct str name;
    if (gguf_get_str(&m->g, "general.name", &name, NULL))
        snprintf(o->name, sizeof o->name, "%.*s", (int)min_i64((int64_t)name.n, 95), name.p);
    dominant_type(&m->g, o->type, sizeof o->type);
    for (int64_t i = 0; i < m->g.n_tensors; i++) {
        o->n_params += (uint64_t)tensor_elements(&m->g.tensor[i]);
        o->tensor_bytes += tensor_bytes(&m->g.tensor[i]);
    }
    for (int64_t il = 0; il < m->hp.n_layer; il++)
        for (int i = 0; i < W_LAYER_COUNT; i++) {
            const struct tensor *t = &m->layer[il].w[i];
            if (!t->type) continue;
            bool experts = i >= W_GATE_EXPS && i <= W_DOWN_EXPS; /* a stack, of which a token uses some */
            uint64_t of = experts ? (uint64_t)max_i64(1, t->ne[2]) : 1, use = experts ? (uint64_t)max_i64(1, m->hp.n_expert_used) : 1;
            o->token_bytes += tensor_bytes(t) / of * use;
            if (t->ne[1] > 1) o->type_macs[t->type->gguf_id] += (uint64_t)tensor_elements(t) / of * use;
            const struct outlier_columns *extra = model_outliers(m, (int)il, (enum weight_id)i);
            if (!extra) continue;
            o->token_bytes += tensor_bytes(&extra->weight) + tensor_bytes(&extra->index);
            o->type_macs[extra->weight.type->gguf_id] += (uint64_t)tensor_elements(&extra->weight);
        }
    const struct tensor *head = model_weight(m, -1, W_OUTPUT), *embd = model_weight(m, -1, W_EMBD);
    o->token_bytes += tensor_bytes(head) + embd->nb[1];
    o->head_type = head->type;
    o->token_macs = o->head_macs = (uint64_t)tensor_elements(head);
    for (int i = 0; i < DTYPE_IDS; i++) o->token_macs += o->type_macs[i];
    o->bpw = o->n_params ? 8.0 * (double)o->tensor_bytes / (double)o->n_params : 0;
}

const char *model_arch_name(int i)
{
    for (int j = 0; arches[j]; j++)
        if (j == i) return arches[j]->name;
    return NULL;
}

const struct gguf *model_gguf(const struct model *m) { return &m->g; }
const struct tokenizer *model_tokenizer(const struct model *m) { return m->tok; }

struct str model_template(const struct model *m)
{
    struct str s = { "", 0 };
    if (!gguf_get_str(&m->g, "tokenizer.chat_template", &s, NULL)) s = (struct str){ "", 0 };
    return s;
}
