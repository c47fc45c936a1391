/* lora - opening adapters. What they add is composed in the plan (weight in arch.c, op_matmul). See lora.h. */
#include "src/lora_int.h"
#include "src/session_int.h"
#include <math.h>
#include <stdio.h>

enum { SUFFIX = 7 /* ".lora_a" */ };

size_t adapter_slot(const struct model *m, int il, enum weight_id id)
{
    size_t layers = (size_t)m->hp.n_layer * W_LAYER_COUNT;
    return id < W_LAYER_COUNT ? (size_t)il * W_LAYER_COUNT + id : layers + (id - W_LAYER_COUNT);
}

const struct lora_pair *adapter_pair(const struct adapter *a, int il, enum weight_id id)
{
    int32_t i = a->of[adapter_slot(a->m, il, id)];
    return i < 0 ? NULL : &a->pair[i];
}

/* ---- keys ---- */

static status want_text(const struct gguf *g, const char *key, const char *want, const char *path, struct err *e)
{
    struct err why = { 0 };
    struct str s = { 0 };
    if (!gguf_get_str(g, key, &s, &why))
        return why.code ? err_set(e, ERR_FORMAT, "%s: %s", path, why.text) : err_set(e, ERR_FORMAT, "%s: key %s is missing, expected \"%s\"", path, key, want);
    if (s.n == strlen(want) && !memcmp(s.p, want, s.n)) return OK;
    return err_set(e, ERR_FORMAT, "%s: %s is \"%.*s\", expected \"%s\"", path, key, (int)(s.n < 40 ? s.n : 40), s.p, want);
}

static status read_keys(struct adapter *a, const char *path, struct err *e)
{
    struct err why = { 0 };
    TRY(want_text(&a->g, "general.type", "adapter", path, e));
    TRY(want_text(&a->g, "general.architecture", a->m->arch->name, path, e));
    TRY(want_text(&a->g, "adapter.type", "lora", path, e));
    gguf_get_f32(&a->g, "adapter.lora.alpha", &a->alpha, &why); /* absent: 0 */
    if (why.code) return err_set(e, ERR_FORMAT, "%s: %s", path, why.text);
    if (!isfinite(a->alpha)) return err_set(e, ERR_FORMAT, "%s: adapter.lora.alpha is %g, expected a finite number", path, (double)a->alpha);
    if (gguf_find(&a->g, "adapter.alora.invocation_tokens"))
        return err_set(e, ERR_FORMAT, "%s: adapter.alora.invocation_tokens: adapters that begin at certain tokens are not supported", path);
    return OK;
}

/* ---- tensors ---- */

static const char *side_of(const struct tensor *t)
{
    size_t n = strlen(t->name);
    const char *end = n > SUFFIX ? t->name + n - SUFFIX : "";
    return !strcmp(end, ".lora_a") || !strcmp(end, ".lora_b") ? end : NULL;
}

static status check_names(const struct adapter *a, const char *path, struct err *e)
{
    for (int64_t i = 0; i < a->g.n_tensors; i++) {
        const struct tensor *t = &a->g.tensor[i];
        const char *end = side_of(t);
        char twin[112];
        if (!end)
            return err_set(e, ERR_FORMAT, "%s: %s: an adapter has pairs .lora_a, .lora_b of matrices only; whole tensors are not supported", path,
                           t->name);
        snprintf(twin, sizeof twin, "%.*s.lora_%c", (int)(end - t->name), t->name, end[6] == 'a' ? 'b' : 'a');
        if (!gguf_tensor(&a->g, twin)) return err_set(e, ERR_FORMAT, "%s: %s has no partner %s", path, t->name, twin);
    }
    return OK;
}

static status check_type(const struct tensor *t, const char *path, struct err *e)
{
    bool is_float = t->type->gguf_id == GGUF_F32 || t->type->gguf_id == GGUF_F16 || t->type->gguf_id == GGUF_BF16;
    if (is_float || (t->type->group_len && t->ne[0] % 32 == 0)) return OK;
    return err_set(e, ERR_FORMAT, "%s: %s: type is %s, expected F32, F16, BF16 or a quantized one", path, t->name, t->type->gguf_name);
}

static status check_shape(const struct tensor *t, int64_t ne0, int64_t ne1, int64_t ne2, const char *path, struct err *e)
{
    char have[64];
    if (t->ne[0] == ne0 && t->ne[1] == ne1 && t->ne[2] == ne2 && t->ne[3] == 1) return check_type(t, path, e);
    return err_set(e, ERR_FORMAT, "%s: %s: shape is %s, expected [%lld, %lld, %lld]", path, t->name, tensor_shape_text(t, have), (long long)ne0,
                   (long long)ne1, (long long)ne2);
}

/* One weight of the model: its pair, if the file has one. */
static status bind(struct adapter *a, const struct weight_row *r, int il, const char *path, struct err *e)
{
    char name[112];
    int n = snprintf(name, sizeof name, r->gguf, il);
    snprintf(name + n, sizeof name - (size_t)n, ".lora_a");
    const struct tensor *ta = gguf_tensor(&a->g, name), *w = model_weight(a->m, il, r->id);
    if (!ta || !w) return OK; /* an absent base is reported by count */
    name[n + SUFFIX - 1] = 'b';
    const struct tensor *tb = gguf_tensor(&a->g, name);
    bool flipped = r->id == W_EMBD, vector = r->ne1 == DIM_1 || r->flags & WEIGHT_VECTOR;
    if (!tb || vector) return err_set(e, ERR_FORMAT, "%s: %s: adapters of vectors are not supported", path, ta->name);
    if (r->id == W_PER_LAYER_EMBD) return err_set(e, ERR_FORMAT, "%s: %s: adapters of this table are not supported", path, ta->name);
    int64_t rank = tb->ne[0];
    if (rank < 1 || rank > LORA_RANK_MAX)
        return err_set(e, ERR_FORMAT, "%s: %s: rank is %lld, expected 1 to %d", path, tb->name, (long long)rank, LORA_RANK_MAX);
    TRY(check_shape(ta, flipped ? rank : w->ne[0], flipped ? w->ne[1] : rank, w->ne[2], path, e));
    TRY(check_shape(tb, rank, flipped ? w->ne[0] : w->ne[1], w->ne[2], path, e));
    struct lora_pair *p = &a->pair[a->n_pairs];
    *p = (struct lora_pair){ .a = *ta, .b = *tb, .factor = a->alpha != 0 ? a->alpha / (float)rank : 1, .id = r->id, .il = il };
    a->of[adapter_slot(a->m, il, r->id)] = (int32_t)a->n_pairs++;
    return OK;
}

static status bind_all(struct adapter *a, const char *path, struct err *e)
{
    size_t slots = (size_t)a->m->hp.n_layer * W_LAYER_COUNT + W_COUNT - W_LAYER_COUNT;
    a->of = mem_alloc(slots * sizeof *a->of);
    a->pair = mem_calloc((size_t)a->g.n_tensors / 2 + 1, sizeof *a->pair);
    if (!a->of || !a->pair) return err_oom(e, path, slots * sizeof *a->of);
    memset(a->of, 0xff, slots * sizeof *a->of);
    for (const struct weight_row *r = a->m->arch->weights; r->gguf; r++)
        for (int il = 0; il < (r->id < W_LAYER_COUNT ? a->m->hp.n_layer : 1); il++)
            if (a->n_pairs < a->g.n_tensors / 2) TRY(bind(a, r, r->id < W_LAYER_COUNT ? il : -1, path, e));
    if (a->g.n_tensors == 0) return err_set(e, ERR_FORMAT, "%s: the adapter has no tensors", path);
    for (int64_t i = 0; i < a->g.n_tensors; i++) {
        bool bound = false;
        for (int64_t j = 0; j < a->n_pairs && !bound; j++) bound = a->pair[j].a.data == a->g.tensor[i].data || a->pair[j].b.data == a->g.tensor[i].data;
        if (!bound) return err_set(e, ERR_FORMAT, "%s: %s: the model has no such tensor", path, a->g.tensor[i].name);
    }
    return OK;
}

static uint64_t fingerprint(const struct adapter *a)
{
    struct hash64 x = { 0 };
    for (int64_t i = 0; i < a->g.n_tensors; i++) {
        const struct tensor *t = &a->g.tensor[i];
        size_t n = tensor_bytes(t);
        hash64_add(&x, t->name, strlen(t->name));
        hash64_add(&x, t->data, n < 4096 ? n : 4096);
    }
    hash64_add(&x, &a->alpha, sizeof a->alpha);
    return hash64_end(&x);
}

status adapter_open(struct adapter **out, const char *path, const struct model *m, struct err *e)
{
    *out = NULL;
    struct adapter *a = mem_calloc(1, sizeof *a);
    if (!a) return err_oom(e, path, sizeof *a);
    a->m = m;
    const char *slash = strrchr(path, '/');
    snprintf(a->name, sizeof a->name, "%s", slash ? slash + 1 : path);
    status st = gguf_open(&a->g, path, true, e);
    if (st != OK) {
        mem_free(a);
        return st;
    }
    st = read_keys(a, path, e);
    if (st == OK) st = check_names(a, path, e);
    if (st == OK) st = bind_all(a, path, e);
    if (st != OK) {
        adapter_close(a);
        return st;
    }
    a->fingerprint = fingerprint(a);
    *out = a;
    return OK;
}

void adapter_close(struct adapter *a)
{
    if (!a) return;
    gguf_close(&a->g);
    mem_free(a->of);
    mem_free(a->pair);
    mem_free(a);
}

void adapter_info(const struct adapter *a, struct adapter_info *info)
{
    *info = (struct adapter_info){ .n_matrices = a->n_pairs, .alpha = a->alpha, .bytes = gguf_bytes(&a->g), .rank_min = a->pair[0].b.ne[0] };
    for (int64_t i = 0; i < a->n_pairs; i++) {
        info->rank_min = min_i64(info->rank_min, a->pair[i].b.ne[0]);
        info->rank_max = max_i64(info->rank_max, a->pair[i].b.ne[0]);
    }
}
