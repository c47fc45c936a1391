/* ops_state - ops of recurrent layers. They read and replace what the layer keeps of the past, one segment after the other, each thread its own
 * columns or heads; before the first row of a timeline the past is zero, whatever the memory holds. */
#include "ggml-like/ops_int.h"
#include <math.h>

val op_conv(struct plan *p, int32_t il, val x, val w, val b)
{
    assert(op_shape(p, w)->ne[1] == op_shape(p, x)->ne[0] && op_shape(p, x)->ne[1] == p->n_rows);
    val y = op_like(p, x);
    plan_op(p, OP_CONV, y, x, w, b)->arg.state.il = il;
    return y;
}

val op_delta_rule(struct plan *p, const struct delta_spec *s, val q, val k, val v, val g, val beta)
{
    assert(op_shape(p, q)->ne[0] == (int64_t)s->n_k_head * s->k_dim && op_shape(p, v)->ne[0] == (int64_t)s->n_v_head * s->v_dim);
    assert(op_shape(p, g)->ne[0] == s->n_v_head && op_shape(p, beta)->ne[0] == s->n_v_head && s->n_v_head % s->n_k_head == 0);
    val both = op_join(p, g, 1, beta, 1), y = op_like(p, v); /* [n_v_head][2] */
    struct op *op = plan_op(p, OP_DELTA_RULE, y, q, k, v);
    op->src[3] = both;
    p->val[both].last = p->n_op - 1;
    op->arg.delta.il = s->il;
    op->arg.delta.n_k_head = s->n_k_head;
    op->arg.delta.n_v_head = s->n_v_head;
    op->arg.delta.k_dim = s->k_dim;
    op->arg.delta.v_dim = s->v_dim;
    op->arg.delta.tiled = s->tiled;
    op->arg.delta.plain = s->plain;
    return y;
}

/* COLUMNS columns at a time, their weights turned so that neighbours lie side by side: constant bounds become vectors. */
enum { COLUMNS = 64, TAPS = 16 };
struct taps {
    float w[TAPS][COLUMNS], b[COLUMNS];
    int64_t n, first, count; /* taps; columns first .. first + count */
};

static void taps_of(struct taps *t, const float *w, const float *b)
{
    for (int64_t c = 0; c < t->count; c++) {
        for (int64_t i = 0; i < t->n; i++) t->w[i][c] = w[(t->first + c) * t->n + i];
        t->b[c] = b ? b[t->first + c] : 0;
    }
}

/* Rows before the first of this pass come from `past` [n - 1][cols], the newest last. */
static void conv_row(const struct taps *w, const float *x, int64_t t, int64_t cols, const float *past, float *y)
{
    float sum[COLUMNS];
    memcpy(sum, w->b, sizeof sum);
    for (int64_t i = 0; i < w->n; i++) {
        int64_t at = t - (w->n - 1) + i;
        const float *row = (at < 0 ? past + (at + w->n - 1) * cols : x + at * cols) + w->first;
        if (w->count == COLUMNS)
            for (int c = 0; c < COLUMNS; c++) sum[c] += w->w[i][c] * row[c];
        else
            for (int64_t c = 0; c < w->count; c++) sum[c] += w->w[i][c] * row[c];
    }
    memcpy(y + w->first, sum, (size_t)w->count * sizeof *sum);
}

/* The last n - 1 inputs become the past: of this pass, or, when it has fewer rows, behind the newer ones of the old past. */
static void conv_keep(const float *x, int64_t rows, int64_t cols, int64_t n, float *past, int64_t begin, int64_t end)
{
    for (int64_t i = 0; i < n - 1; i++) {
        int64_t at = rows - (n - 1) + i;
        const float *row = at < 0 ? past + (at + n - 1) * cols : x + at * cols;
        memmove(past + i * cols + begin, row + begin, (size_t)(end - begin) * sizeof *past);
    }
}

void op_run_conv(const struct op_run *r, const struct op *op)
{
    const struct tensor *t = op_shape(r->x->plan, op->dst), *wt = op_shape(r->x->plan, op->src[1]);
    const float *x = op_data(r, op->src[0]), *w = op_data(r, op->src[1]), *b = op->src[2] == VAL_NONE ? NULL : op_data(r, op->src[2]);
    float *y = op_data(r, op->dst);
    int64_t cols = t->ne[0], end;
    struct taps taps = { .n = wt->ne[0] };
    assert(taps.n <= TAPS);
    while (op_take(r, cols, COLUMNS, &taps.first, &end)) {
        taps.count = end - taps.first;
        taps_of(&taps, w, b);
        for (int s = 0; s < r->x->batch->n_seg; s++) {
            const struct batch_segment *g = &r->x->batch->seg[s];
            float *past = g->state[op->arg.state.il].rec.conv;
            for (int64_t i = 0; g->pos == 0 && i < taps.n - 1; i++) memset(past + i * cols + taps.first, 0, (size_t)taps.count * sizeof *past);
            for (int64_t i = 0; i < g->n; i++) conv_row(&taps, x + g->row * cols, i, cols, past, y + (g->row + i) * cols);
            conv_keep(x + g->row * cols, g->n, cols, taps.n, past, taps.first, end);
        }
    }
}

val op_conv_grad(struct plan *p, val dy, val w)
{
    val dx = op_like(p, dy);
    plan_op(p, OP_CONV_GRAD, dx, dy, w, VAL_NONE);
    return dx;
}

void op_conv_outer(struct plan *p, val dy, val x, val to) { plan_op(p, OP_CONV_OUTER, VAL_NONE, dy, x, to); }

/* dx_t = sum_i w_i dy_(t + n - 1 - i), up to the end of the segment. */
void op_run_conv_grad(const struct op_run *r, const struct op *op)
{
    int64_t cols = op_shape(r->x->plan, op->dst)->ne[0], end;
    const float *dy = op_data(r, op->src[0]), *w = op_data(r, op->src[1]);
    float *dx = op_data(r, op->dst);
    struct taps taps = { .n = op_shape(r->x->plan, op->src[1])->ne[0] };
    assert(taps.n <= TAPS);
    while (op_take(r, cols, COLUMNS, &taps.first, &end)) {
        taps.count = end - taps.first;
        taps_of(&taps, w, NULL);
        for (int s = 0; s < r->x->batch->n_seg; s++) {
            int64_t row = r->x->batch->seg[s].row, last = row + r->x->batch->seg[s].n;
            for (int64_t t = row; t < last; t++) {
                float sum[COLUMNS] = { 0 };
                for (int64_t i = taps.n - 1; i >= 0 && t + taps.n - 1 - i < last; i--) {
                    const float *from = dy + (t + taps.n - 1 - i) * cols + taps.first;
                    for (int64_t c = 0; c < taps.count; c++) sum[c] += taps.w[i][c] * from[c];
                }
                memcpy(dx + t * cols + taps.first, sum, (size_t)taps.count * sizeof *sum);
            }
        }
    }
}

void op_run_conv_outer(const struct op_run *r, const struct op *op)
{
    int64_t cols = op_shape(r->x->plan, op->src[0])->ne[0], n = op_shape(r->x->plan, op->src[2])->ne[0];
    const float *dy = op_data(r, op->src[0]), *x = op_data(r, op->src[1]);
    float *to = op_data(r, op->src[2]);
    for (int64_t first, end; op_take(r, cols, COLUMNS, &first, &end);) {
        double sum[TAPS][COLUMNS] = { { 0 } };
        for (int s = 0; s < r->x->batch->n_seg; s++) {
            int64_t row = r->x->batch->seg[s].row, last = row + r->x->batch->seg[s].n;
            for (int64_t t = row; t < last; t++)
                for (int64_t i = max_i64(0, n - 1 - (t - row)); i < n; i++)
                    for (int64_t c = first; c < end; c++) sum[i][c - first] += (double)(dy[t * cols + c] * x[(t - n + 1 + i) * cols + c]);
        }
        for (int64_t c = first; c < end; c++)
            for (int64_t i = 0; i < n; i++) to[c * n + i] += (float)sum[i][c - first];
    }
}

/* The state lies in blocks of columns, [n_v_head][block][k_dim][width], so that a block stays in the first cache while all rows of a segment pass. */
enum { BLOCK = 64 };

void op_run_delta_rule(const struct op_run *r, const struct op *op)
{
    int64_t n_k = op->arg.delta.n_k_head, n_v = op->arg.delta.n_v_head, kd = op->arg.delta.k_dim, vd = op->arg.delta.v_dim;
    const float *q = op_data(r, op->src[0]), *k = op_data(r, op->src[1]), *v = op_data(r, op->src[2]), *gb = op_data(r, op->src[3]);
    float *y = op_data(r, op->dst);
    const struct batch *b = r->x->batch;
    int64_t n_block = (vd + BLOCK - 1) / BLOCK;
    for (int64_t i, end; op_take(r, b->n_seg * n_v * n_block, 1, &i, &end);) {
        const struct batch_segment *g = &b->seg[i / (n_v * n_block)];
        int64_t h = i / n_block % n_v, hk = op->arg.delta.tiled ? h % n_k : h / (n_v / n_k), c = i % n_block * BLOCK;
        struct recur_args a = { .rows = kd, .cols = min_i64(BLOCK, vd - c), .plain = op->arg.delta.plain };
        a.s = g->state[op->arg.delta.il].rec.memory + (h * vd + c) * kd;
        a.stride = a.cols;
        a.scale = a.plain ? 1 : 1 / sqrtf((float)kd);
        if (g->pos == 0) memset(a.s, 0, (size_t)(kd * a.cols) * sizeof *a.s);
        for (int64_t t = g->row; t < g->row + g->n; t++) {
            a.q = q + (t * n_k + hk) * kd;
            a.k = k + (t * n_k + hk) * kd;
            a.v = v + (t * n_v + h) * vd + c;
            a.y = y + (t * n_v + h) * vd + c;
            a.decay = expf(gb[(t * n_v + h) * 2]);
            a.beta = gb[(t * n_v + h) * 2 + 1];
            r->k->recur(&a);
        }
    }
}
