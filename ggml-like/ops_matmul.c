/* ops_matmul - embedding look-up, quantization of activations, and matmul on weights in their file layout.
 * One row of activations goes through rowdot, several through panels and tiles; kernels.h explains both. */
#include "ggml-like/kernels/kernels.h"
#include "ggml-like/ops.h"
#include <assert.h>

static const struct tensor *shape(const struct plan *p, val v) { return &p->val[v].t; }
static bool is_float(const struct dtype *t) { return t->group_len == 0; }

val op_embed(struct plan *p, val table, int64_t n_embd)
{
    assert(shape(p, table)->ne[0] == n_embd);
    val y = plan_temp(p, n_embd, p->n_rows);
    plan_op(p, OP_EMBED, y, table, VAL_NONE, VAL_NONE);
    return y;
}

/* The quantized form of x: recorded once, shared by all matmuls that read x (Q, K, V; gate, up). Float weights read the floats: as they are
 * for one row, packed into tiles for several. */
static val quantized(struct plan *p, val x, bool f32)
{
    const struct tensor *t = shape(p, x);
    bool row = t->ne[1] == 1;
    if (row && f32) return x;
    if (!f32 && p->val[x].quant != VAL_NONE) return p->val[x].quant;
    val q = plan_temp_bytes(p, row ? act_row_bytes(t->ne[0]) : act_panel_bytes(p->k, t->ne[0], t->ne[1], f32));
    plan_op(p, OP_QUANT, q, x, VAL_NONE, VAL_NONE)->arg.scale.s = f32;
    if (!f32) p->val[x].quant = q;
    return q;
}

val op_matmul_rows(struct plan *p, val w, val x, int64_t n)
{
    assert(shape(p, w)->ne[0] == shape(p, x)->ne[0] && n <= shape(p, w)->ne[1]);
    val q = quantized(p, x, is_float(shape(p, w)->type));
    val y = plan_temp(p, n, shape(p, x)->ne[1]);
    plan_op(p, OP_MATMUL, y, w, q, p->observe ? x : VAL_NONE);
    return y;
}

val op_matmul(struct plan *p, val w, val x) { return op_matmul_rows(p, w, x, shape(p, w)->ne[1]); }

void op_run_embed(const struct op_run *r, const struct op *op)
{
    const struct tensor *w = shape(r->x->plan, op->src[0]), *t = shape(r->x->plan, op->dst);
    float *y = op_data(r, op->dst);
    int64_t begin, end;
    pool_range(t->ne[1], 1, r->ith, r->nth, &begin, &end);
    for (int64_t i = begin; i < end; i++)
        r->k->to_f32(w->type, (const uint8_t *)w->data + (size_t)r->x->batch->token[i] * w->nb[1], y + i * t->ne[0], t->ne[0]);
}

static void quant_one_row(const struct op_run *r, const struct op *op, int64_t k)
{
    struct act_row row, part;
    act_row_place(&row, op_data(r, op->dst), k);
    int64_t begin, end;
    pool_range(k, 256, r->ith, r->nth, &begin, &end); /* blocks of 32 are independent */
    if (begin == end) return;
    part = (struct act_row){ .k = end - begin, .y = row.y + begin, .d = row.d + begin / 32, .sum = row.sum + begin / 16 };
    r->k->quant_row(&part, (const float *)op_data(r, op->src[0]) + begin, end - begin);
}

void op_run_quant(const struct op_run *r, const struct op *op)
{
    const struct tensor *t = shape(r->x->plan, op->src[0]);
    int64_t k = t->ne[0], n = t->ne[1];
    if (n == 1) {
        quant_one_row(r, op, k);
        return;
    }
    bool f32 = op->arg.scale.s != 0;
    struct act_panel q;
    act_panel_place(r->k, &q, op_data(r, op->dst), k, n, f32);
    const float *x = op_data(r, op->src[0]), *rows[TILE_TOKENS_MAX];
    int nt = r->k->tile_tokens;
    for (int64_t begin, end; op_take(r, (n + nt - 1) / nt, 4, &begin, &end);)
        for (int64_t i = begin; i < end; i++) {
            int m = (int)min_i64(nt, n - i * nt);
            for (int j = 0; j < m; j++) rows[j] = x + (i * nt + j) * k;
            (f32 ? r->k->pack_tile_f32 : r->k->quant_tile)(r->k, &q, i, rows, m);
        }
}

/* Decoding: chunks of about 64 KiB of weights keep the hardware prefetcher in one stream and still let a fast thread take more. */
static void matmul_row(const struct op_run *r, const struct op *op, const struct tensor *w, int64_t n_w, float *y)
{
    struct act_row x = { .k = w->ne[0] };
    if (is_float(w->type)) x.f32 = op_data(r, op->src[1]);
    else act_row_place(&x, op_data(r, op->src[1]), w->ne[0]);
    float (*dot)(const void *, const struct act_row *, int64_t) = r->k->rowdot[w->type->gguf_id];
    int64_t chunk = max_i64(16, min_i64((int64_t)(65536 / w->nb[1]), n_w / (4 * r->nth)) & ~(int64_t)15);
    for (int64_t begin, end; op_take(r, n_w, chunk, &begin, &end);)
        for (int64_t i = begin; i < end; i++) y[i] = dot((const uint8_t *)w->data + (size_t)i * w->nb[1], &x, w->ne[0]);
}

/* One panel of 16 weight rows against all tokens, PANEL_K columns at a time. The last panel of a matrix whose row count is no multiple of
 * 16 goes through a small buffer. */
static void matmul_panel(const struct op_run *r, const struct tensor *w, int64_t n_w, const struct act_panel *x, int64_t row, float *y)
{
    const struct kernels *k = r->k;
    bool f32 = is_float(w->type);
    struct panel p;
    panel_place(&p, r->scratch, PANEL_K);
    float *edge = (float *)((uint8_t *)r->scratch + panel_bytes(PANEL_K));
    int rows = (int)min_i64(PANEL_ROWS, n_w - row), nt = k->tile_tokens;
    for (int64_t k0 = 0; k0 < w->ne[0]; k0 += PANEL_K) {
        int64_t nk = min_i64(PANEL_K, w->ne[0] - k0);
        k->panel_build(k, &p, w->type, (const uint8_t *)w->data + (size_t)row * w->nb[1], w->nb[1], rows, k0, nk);
        for (int64_t t = 0; t < x->n_tokens; t += nt) {
            int m = (int)min_i64(nt, x->n_tokens - t);
            float *out = y + t * n_w + row;
            if (rows == PANEL_ROWS) {
                (f32 ? k->tile_f32 : k->tile)(k, &p, x, t / nt, k0, m, out, n_w, k0 > 0);
                continue;
            }
            (f32 ? k->tile_f32 : k->tile)(k, &p, x, t / nt, k0, m, edge, PANEL_ROWS, false);
            for (int j = 0; j < m; j++)
                for (int i = 0; i < rows; i++) out[j * n_w + i] = edge[j * PANEL_ROWS + i] + (k0 > 0 ? out[j * n_w + i] : 0.0f);
        }
    }
}

void op_run_matmul(const struct op_run *r, const struct op *op)
{
    const struct tensor *w = shape(r->x->plan, op->src[0]), *t = shape(r->x->plan, op->dst);
    float *y = op_data(r, op->dst);
    if (t->ne[1] == 0) return;
    if (t->ne[1] == 1) {
        matmul_row(r, op, w, t->ne[0], y);
        return;
    }
    struct act_panel x;
    act_panel_place(r->k, &x, op_data(r, op->src[1]), w->ne[0], t->ne[1], is_float(w->type));
    for (int64_t begin, end; op_take(r, t->ne[0], PANEL_ROWS, &begin, &end);) matmul_panel(r, w, t->ne[0], &x, begin, y);
}
