/* state - the memory of one session. See state.h. */
#include "src/state.h"
#include "ggml-like/file.h"

/* Formats that keep the cache usable: anything below 4 bits, or with per-model tables, ruins it. */
status kv_types_choose(struct kv_types *out, const struct dtype *both, const struct dtype *k, const struct dtype *v, struct err *e)
{
    static const int offered[] = { GGUF_F16, GGUF_BF16, GGUF_F32, GGUF_Q8_0, GGUF_Q4_0 };
    if (!both) both = dtype_by_id(GGUF_F16);
    *out = (struct kv_types){ k ? k : both, v ? v : both };
    const struct dtype *const used[] = { out->k, out->v };
    for (int i = 0; i < ARRAY_LEN(used); i++) {
        bool known = false;
        for (int j = 0; j < ARRAY_LEN(offered); j++) known = known || used[i]->gguf_id == offered[j];
        if (!known) return err_set(e, ERR_USAGE, "KV type %s is not supported: F16, BF16, F32, Q8_0, Q4_0", used[i]->gguf_name);
    }
    return OK;
}

static bool place(size_t rows, size_t row_bytes, size_t *at, size_t *out)
{
    size_t n, end;
    if (!mul_size(rows, row_bytes, &n) || !add_size(*at, n, &end) || !pad_size(end, 64, &end)) return false;
    *out = *at;
    *at = end;
    return true;
}

static status check_types(const struct layer_params *l, const struct kv_types *types, struct err *e)
{
    const struct { const char *what; const struct dtype *type; int64_t dim; } rows[] = { { "K", types->k, l->head_dim }, { "V", types->v, l->head_dim_v } };
    for (int i = 0; i < ARRAY_LEN(rows); i++)
        if (rows[i].dim % rows[i].type->block_len)
            return err_set(e, ERR_USAGE, "KV type %s for %s needs head sizes in multiples of %d, this model has %lld", rows[i].type->gguf_name,
                           rows[i].what, rows[i].type->block_len, (long long)rows[i].dim);
    if (l->v_in_k && types->k != types->v)
        return err_set(e, ERR_USAGE, "KV types %s and %s: this model keeps V in K's rows, which needs one type", types->k->gguf_name, types->v->gguf_name);
    return OK;
}

static bool place_kv(const struct layer_params *l, int64_t n_ctx, const struct kv_types *types, uint8_t *base, struct kv_cache *c, size_t *at)
{
    *c = (struct kv_cache){
        .k_type = types->k,
        .v_type = types->v,
        .n_ctx = n_ctx,
        .n_head = (int32_t)l->n_head_kv,
        .k_dim = (int32_t)l->head_dim,
        .v_dim = (int32_t)l->head_dim_v,
        .v_in_k = l->v_in_k,
        .k_row = dtype_row_bytes(types->k, l->head_dim),
        .v_row = dtype_row_bytes(types->v, l->v_in_k ? l->head_dim : l->head_dim_v),
    };
    size_t rows, k_at, v_at;
    if (!mul_size((size_t)l->n_head_kv, (size_t)n_ctx, &rows) || !place(rows, c->k_row, at, &k_at)) return false;
    v_at = k_at;
    if (!l->v_in_k && !place(rows, c->v_row, at, &v_at)) return false;
    c->k = base ? base + k_at : NULL;
    c->v = base ? base + v_at : NULL;
    return true;
}

static bool place_recurrent(const struct recurrent_state *size, uint8_t *base, struct recurrent_state *s, size_t *at)
{
    size_t conv, memory;
    *s = *size;
    if (!place((size_t)(s->n_conv > 0 ? s->n_conv - 1 : 0), (size_t)s->channels * sizeof(float), at, &conv) ||
        !place((size_t)s->n_memory, sizeof(float), at, &memory))
        return false;
    s->conv = base ? (float *)(void *)(base + conv) : NULL;
    s->memory = base ? (float *)(void *)(base + memory) : NULL;
    return true;
}

status state_place(const struct model *m, int64_t il, int64_t n_ctx, const struct kv_types *types, uint8_t *base, struct layer_state *s, size_t *at,
                   struct err *e)
{
    const struct layer_params *l = &m->layer[il].hp;
    bool keeps = l->kind & LAYER_ATTENTION && l->il_kv == il, ok = true;
    *s = (struct layer_state){ 0 };
    if (keeps) TRY(check_types(l, types, e));
    if (keeps) ok = place_kv(l, n_ctx, types, base, &s->kv, at);
    if (ok && l->kind & LAYER_RECURRENT) ok = place_recurrent(&l->rec, base, &s->rec, at);
    return ok ? OK : err_set(e, ERR_MEMORY, "KV cache for %lld positions overflows the address space", (long long)n_ctx);
}

status state_layout(const struct model *m, int64_t n_ctx, const struct kv_types *types, uint8_t *base, struct layer_state *layer, size_t *bytes,
                    struct err *e)
{
    struct layer_state s;
    *bytes = 0;
    for (int64_t il = 0; il < m->hp.n_layer; il++) TRY(state_place(m, il, n_ctx, types, base, layer ? &layer[il] : &s, bytes, e));
    return OK;
}

status state_open(struct state *s, const struct model *m, int64_t n_ctx, const struct kv_types *types, struct err *e)
{
    *s = (struct state){ .types = *types, .n_layer = m->hp.n_layer };
    TRY(state_layout(m, n_ctx, types, NULL, NULL, &s->bytes, e));
    s->layer = mem_calloc((size_t)m->hp.n_layer, sizeof *s->layer);
    s->base = mem_map(s->bytes);
    if (!s->layer || !s->base) {
        size_t bytes = s->bytes;
        state_close(s);
        return err_oom(e, "KV cache", bytes);
    }
    return state_layout(m, n_ctx, types, s->base, s->layer, &s->bytes, e);
}

void state_close(struct state *s)
{
    if (s->base) mem_unmap(s->base, s->bytes);
    mem_free(s->layer);
    *s = (struct state){ 0 };
}
