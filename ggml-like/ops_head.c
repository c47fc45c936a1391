/* ops_head - a matrix of its own for each head: what latent attention multiplies queries by, and what comes out. Like ops_matmul, but a row
 * of activations is cut into heads, and each head's tiles meet that head's matrix. */
#include "ggml-like/ops_grad.h"

static int64_t tiles_of(const struct plan *p, int64_t rows) { return (rows + p->k->tile_tokens - 1) / p->k->tile_tokens; }

val op_head_matmul(struct plan *p, val w, val x)
{
    const struct tensor *t = op_shape(p, w);
    int64_t k = t->ne[0], n = t->ne[1], n_head = t->ne[2], rows = op_shape(p, x)->ne[1], nt = p->k->tile_tokens;
    enum act_form form = op_act_form(p, t->type);
    bool by_rows = op_by_rows(p, rows);
    assert(op_shape(p, x)->ne[0] == n_head * k);
    val q = x;
    if (!by_rows || !act_is_float(form)) {
        size_t bytes = (size_t)(n_head * plan_room(p, rows)) * act_row_bytes(k);
        if (!by_rows) bytes = act_panel_bytes(p->k, k, n_head * tiles_of(p, plan_room(p, rows)) * nt, form);
        q = plan_temp_bytes(p, bytes);
        struct op *op = plan_op(p, OP_HEAD_QUANT, q, x, VAL_NONE, VAL_NONE);
        op->arg.head.n_head = (int32_t)n_head;
        op->arg.head.form = form;
    }
    val y = plan_temp(p, n_head * n, rows);
    plan_op(p, OP_HEAD_MATMUL, y, w, q, p->observe ? x : VAL_NONE);
    return y;
}

void op_run_head_quant(const struct op_run *r, const struct op *op)
{
    const struct tensor *t = op_shape(r->x->plan, op->src[0]);
    int64_t n_head = op->arg.head.n_head, k = t->ne[0] / n_head, n = t->ne[1], nt = r->k->tile_tokens, tiles = tiles_of(r->x->plan, n);
    const float *x = op_data(r, op->src[0]), *rows[TILE_TOKENS_MAX];
    if (op_by_rows(r->x->plan, n) && !act_is_float((enum act_form)op->arg.head.form)) {
        for (int64_t h = r->ith; h < n * n_head; h += r->nth) {
            struct act_row a;
            act_row_place(&a, (uint8_t *)op_data(r, op->dst) + (size_t)h * act_row_bytes(k), k);
            r->k->quant_row(&a, x + h * k, k);
        }
        return;
    }
    struct act_panel q = op_acts(r, op->dst, k, n_head * tiles * nt, op->arg.head.form);
    for (int64_t i, end; op_take(r, n_head * tiles, 1, &i, &end);) {
        int64_t h = i / tiles, first = i % tiles * nt;
        int m = (int)min_i64(nt, n - first);
        for (int j = 0; j < m; j++) rows[j] = x + ((first + j) * n_head + h) * k;
        op_fill_tile(r, &q, i, rows, m);
    }
}

/* Rows one by one: each head's matrix times its own vectors. */
static void head_single(const struct op_run *r, const struct op *op, const struct tensor *w, float *y)
{
    bool f32 = op_is_float(w->type);
    int64_t n = w->ne[1], k = w->ne[0], rows = op_shape(r->x->plan, op->dst)->ne[1];
    uint8_t *a = op_data(r, op->src[1]);
    for (int64_t h, end; op_take(r, rows * w->ne[2], 1, &h, &end);) {
        struct act_row x = { .k = k };
        if (f32) x.f32 = (const float *)(void *)a + h * k;
        else act_row_place(&x, a + (size_t)h * act_row_bytes(k), k);
        kernels_dots(r->k, w->type, y + h * n, (const uint8_t *)w->data + (size_t)(h % w->ne[2]) * w->nb[2], w->nb[1], n, &x, k);
    }
}

void op_run_head_matmul(const struct op_run *r, const struct op *op)
{
    const struct tensor *w = op_shape(r->x->plan, op->src[0]);
    int64_t rows = op_shape(r->x->plan, op->dst)->ne[1], n = w->ne[1], n_head = w->ne[2], tiles = tiles_of(r->x->plan, rows);
    float *y = op_data(r, op->dst);
    if (rows == 0) return;
    if (op_by_rows(r->x->plan, rows)) {
        head_single(r, op, w, y);
        return;
    }
    struct act_panel x = op_acts(r, op->src[1], w->ne[0], n_head * tiles * r->k->tile_tokens, op_act_form(r->x->plan, w->type));
    int64_t unit = op_panel_rows(r->k, x.form, rows), blocks = (n + unit - 1) / unit;
    for (int64_t i, end; op_take(r, n_head * blocks, 1, &i, &end);) {
        int64_t h = i / blocks, row = i % blocks * unit;
        const uint8_t *data = (const uint8_t *)w->data + (size_t)h * w->nb[2];
        op_panel_matmul(r, w, data, n, op_rows_soon(w, data, n, row + unit, unit), &x, h * tiles, rows, row, unit, y + h * n, n_head * n, false);
    }
}

/* ---- gradients ---- */

val op_head_transposed(struct plan *p, val w, val dy)
{
    const struct tensor *t = op_shape(p, w);
    int64_t k = t->ne[0], n = t->ne[1], n_head = t->ne[2], rows = op_shape(p, dy)->ne[1];
    enum act_form form = op_grad_form(p);
    assert(op_shape(p, dy)->ne[0] == n_head * n);
    val q = plan_temp_bytes(p, act_panel_bytes(p->k, n, n_head * tiles_of(p, plan_room(p, rows)) * p->k->tile_tokens, form));
    struct op *op = plan_op(p, OP_HEAD_QUANT, q, dy, VAL_NONE, VAL_NONE);
    op->arg.head.n_head = (int32_t)n_head;
    op->arg.head.form = form;
    val y = plan_temp(p, n_head * k, rows);
    plan_op(p, OP_HEAD_MATMUL_T, y, w, q, VAL_NONE);
    return y;
}

void op_head_outer(struct plan *p, val dy, val x, val to)
{
    const struct tensor *t = op_shape(p, to);
    assert(op_shape(p, dy)->ne[0] == t->ne[1] * t->ne[2] && op_shape(p, x)->ne[0] == t->ne[0] * t->ne[2]);
    plan_op(p, OP_HEAD_OUTER, VAL_NONE, dy, x, to);
}

void op_run_head_matmul_t(const struct op_run *r, const struct op *op)
{
    const struct tensor *w = op_shape(r->x->plan, op->src[0]);
    int64_t rows = op_shape(r->x->plan, op->dst)->ne[1], n = w->ne[1], k = w->ne[0], n_head = w->ne[2], tiles = tiles_of(r->x->plan, rows);
    if (rows == 0) return;
    struct act_panel x = op_acts(r, op->src[1], n, n_head * tiles * r->k->tile_tokens, op_grad_form(r->x->plan));
    struct t_cut c = op_t_cut(r, w, 1);
    float *y = op_data(r, op->dst);
    for (int64_t i, end; op_take(r, n_head * c.blocks, 1, &i, &end);) {
        int64_t h = i / c.blocks, col = i % c.blocks * c.width;
        op_transposed(r, w, (const uint8_t *)w->data + (size_t)h * w->nb[2], n, &x, h * tiles, rows, col, min_i64(c.width, k - col), y + h * k, n_head * k,
                      false);
    }
}

void op_run_head_outer(const struct op_run *r, const struct op *op)
{
    const struct tensor *t = op_shape(r->x->plan, op->src[2]);
    int64_t n = t->ne[1], k = t->ne[0], n_head = t->ne[2], items = op_outer_items(r, n, k), rows = op_shape(r->x->plan, op->src[0])->ne[1];
    const float *dy = op_data(r, op->src[0]), *x = op_data(r, op->src[1]);
    float *to = op_data(r, op->src[2]);
    for (int64_t i, end; op_take(r, n_head * items, 1, &i, &end);) {
        int64_t h = i / items;
        struct op_outer_args o = { dy + h * n, x + h * k, n, k, rows, n_head * n, n_head * k, to + h * n * k };
        op_outer_item(r, &o, i % items);
    }
}
