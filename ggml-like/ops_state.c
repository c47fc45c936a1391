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

/* y_t of columns begin .. end; rows before the first of this pass come from `past` [n - 1][cols], the newest last. */
static void conv_row(const float *x, int64_t t, int64_t cols, const float *w, const float *b, int64_t n, const float *past, int64_t begin,
                     int64_t end, float *y)
{
    for (int64_t c = begin; c < end; c++) y[c] = b ? b[c] : 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t at = t - (n - 1) + i;
        const float *row = at < 0 ? past + (at + n - 1) * cols : x + at * cols;
        for (int64_t c = begin; c < end; c++) y[c] += w[c * n + i] * row[c];
    }
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
    int64_t n = wt->ne[0], cols = t->ne[0], begin, end;
    pool_range(cols, 16, r->ith, r->nth, &begin, &end);
    for (int s = 0; s < r->x->batch->n_seg && begin < end; s++) {
        const struct batch_segment *g = &r->x->batch->seg[s];
        float *past = g->state[op->arg.state.il].rec.conv;
        for (int64_t i = 0; g->pos == 0 && i < n - 1; i++) memset(past + i * cols + begin, 0, (size_t)(end - begin) * sizeof *past);
        for (int64_t i = 0; i < g->n; i++)
            conv_row(x + g->row * cols, i, cols, w, b, n, past, begin, end, y + (g->row + i) * cols);
        conv_keep(x + g->row * cols, g->n, cols, n, past, begin, end);
    }
}

struct delta_step {
    const float *q, *k, *v;
    float *s, *y;
    float decay, beta, scale;
    int64_t k_dim, v_dim;
};

/* Row i of the state belongs to key element i: decayed and read in one visit, written and read in another. */
static void delta_step(const struct kernels *kn, const struct delta_step *d, float *seen)
{
    memset(seen, 0, (size_t)d->v_dim * sizeof *seen);
    for (int64_t i = 0; i < d->k_dim; i++) {
        float *s = d->s + i * d->v_dim;
        kn->scale(s, s, d->decay, d->v_dim);
        kn->axpy(seen, s, d->k[i], d->v_dim);
    }
    for (int64_t j = 0; j < d->v_dim; j++) seen[j] = (d->v[j] - seen[j]) * d->beta;
    memset(d->y, 0, (size_t)d->v_dim * sizeof *d->y);
    for (int64_t i = 0; i < d->k_dim; i++) {
        kn->axpy(d->s + i * d->v_dim, seen, d->k[i], d->v_dim);
        kn->axpy(d->y, d->s + i * d->v_dim, d->q[i] * d->scale, d->v_dim);
    }
}

/* Nothing is taken off: one visit of each row. */
static void scan_step(const struct kernels *kn, const struct delta_step *d, float *add)
{
    kn->scale(add, d->v, d->beta, d->v_dim);
    memset(d->y, 0, (size_t)d->v_dim * sizeof *d->y);
    for (int64_t i = 0; i < d->k_dim; i++) {
        float *s = d->s + i * d->v_dim;
        kn->scale(s, s, d->decay, d->v_dim);
        kn->axpy(s, add, d->k[i], d->v_dim);
        kn->axpy(d->y, s, d->q[i] * d->scale, d->v_dim);
    }
}

void op_run_delta_rule(const struct op_run *r, const struct op *op)
{
    int64_t n_k = op->arg.delta.n_k_head, n_v = op->arg.delta.n_v_head, kd = op->arg.delta.k_dim, vd = op->arg.delta.v_dim;
    const float *q = op_data(r, op->src[0]), *k = op_data(r, op->src[1]), *v = op_data(r, op->src[2]), *gb = op_data(r, op->src[3]);
    float *y = op_data(r, op->dst), *seen = r->scratch;
    const struct batch *b = r->x->batch;
    for (int64_t i, end; op_take(r, b->n_seg * n_v, 1, &i, &end);) {
        const struct batch_segment *g = &b->seg[i / n_v];
        int64_t h = i % n_v, hk = op->arg.delta.tiled ? h % n_k : h / (n_v / n_k);
        float *s = g->state[op->arg.delta.il].rec.memory + h * kd * vd;
        if (g->pos == 0) memset(s, 0, (size_t)(kd * vd) * sizeof *s);
        for (int64_t t = g->row; t < g->row + g->n; t++) {
            struct delta_step d = { .q = q + (t * n_k + hk) * kd, .k = k + (t * n_k + hk) * kd, .v = v + (t * n_v + h) * vd, .s = s,
                                    .y = y + (t * n_v + h) * vd, .decay = expf(gb[(t * n_v + h) * 2]), .beta = gb[(t * n_v + h) * 2 + 1],
                                    .scale = op->arg.delta.plain ? 1 : 1 / sqrtf((float)kd), .k_dim = kd, .v_dim = vd };
            (op->arg.delta.plain ? scan_step : delta_step)(r->k, &d, seen);
        }
    }
}
