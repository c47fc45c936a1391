/* state - KV caches of one session. See state.h. */
#include "src/state.h"
#include "ggml-like/file.h"

static bool place(size_t rows, size_t row_bytes, size_t *at, size_t *out)
{
    size_t n, end;
    if (!mul_size(rows, row_bytes, &n) || !add_size(*at, n, &end) || !pad_size(end, 64, &end)) return false;
    *out = *at;
    *at = end;
    return true;
}

status state_layout(const struct model *m, int64_t n_ctx, const struct dtype *type, uint8_t *base, struct kv_cache *kv, size_t *bytes,
                    struct err *e)
{
    size_t at = 0;
    for (int64_t il = 0; il < m->hp.n_layer; il++) {
        const struct layer_params *l = &m->layer[il].hp;
        if (l->head_dim % type->block_len || l->head_dim_v % type->block_len)
            return err_set(e, ERR_USAGE, "KV type %s needs head sizes in multiples of %d, this model has %lld and %lld", type->gguf_name,
                           type->block_len, (long long)l->head_dim, (long long)l->head_dim_v);
        struct kv_cache c = {
            .type = type,
            .n_ctx = n_ctx,
            .n_head = (int32_t)l->n_head_kv,
            .k_dim = (int32_t)l->head_dim,
            .v_dim = (int32_t)l->head_dim_v,
            .k_row = dtype_row_bytes(type, l->head_dim),
            .v_row = dtype_row_bytes(type, l->head_dim_v),
        };
        size_t rows, k_at, v_at;
        if (!mul_size((size_t)l->n_head_kv, (size_t)n_ctx, &rows) || !place(rows, c.k_row, &at, &k_at) || !place(rows, c.v_row, &at, &v_at))
            return err_set(e, ERR_MEMORY, "KV cache for %lld positions overflows the address space", (long long)n_ctx);
        if (!kv) continue;
        c.k = base + k_at;
        c.v = base + v_at;
        kv[il] = c;
    }
    *bytes = at;
    return OK;
}

status state_open(struct state *s, const struct model *m, int64_t n_ctx, const struct dtype *type, struct err *e)
{
    *s = (struct state){ .n_layer = m->hp.n_layer };
    TRY(state_layout(m, n_ctx, type, NULL, NULL, &s->bytes, e));
    s->kv = mem_calloc((size_t)m->hp.n_layer, sizeof *s->kv);
    s->base = mem_map(s->bytes);
    if (!s->kv || !s->base) {
        size_t bytes = s->bytes;
        state_close(s);
        return err_oom(e, "KV cache", bytes);
    }
    return state_layout(m, n_ctx, type, s->base, s->kv, &s->bytes, e);
}

void state_close(struct state *s)
{
    if (s->base) mem_unmap(s->base, s->bytes);
    mem_free(s->kv);
    *s = (struct state){ 0 };
}
