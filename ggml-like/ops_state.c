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
    return y;
}

/* One column: its last n - 1 inputs are kept, the newest last. */
static void conv_column(const float *x, int64_t rows, int64_t stride, const float *w, float bias, int64_t n, float *past, int64_t past_stride,
                        float *y)
{
    float window[16];
    for (int64_t i = 0; i < n - 1; i++) window[i] = past[i * past_stride];
    for (int64_t t = 0; t < rows; t++) {
        window[n - 1] = x[t * stride];
        float sum = 0;
        for (int64_t i = 0; i < n; i++) sum += w[i] * window[i];
        y[t * stride] = sum + bias;
        memmove(window, window + 1, (size_t)(n - 1) * sizeof *window);
    }
    for (int64_t i = 0; i < n - 1; i++) past[i * past_stride] = window[i];
}

void op_run_conv(const struct op_run *r, const struct op *op)
{
    const struct tensor *t = op_shape(r->x->plan, op->dst), *wt = op_shape(r->x->plan, op->src[1]);
    const float *x = op_data(r, op->src[0]), *w = op_data(r, op->src[1]), *b = op->src[2] == VAL_NONE ? NULL : op_data(r, op->src[2]);
    float *y = op_data(r, op->dst);
    int64_t n = wt->ne[0], cols = t->ne[0], begin, end;
    pool_range(cols, 16, r->ith, r->nth, &begin, &end);
    for (int s = 0; s < r->x->batch->n_seg; s++) {
        const struct batch_segment *g = &r->x->batch->seg[s];
        float *past = g->state[op->arg.state.il].rec.conv;
        for (int64_t c = begin; c < end; c++) {
            for (int64_t i = 0; g->pos == 0 && i < n - 1; i++) past[i * cols + c] = 0;
            conv_column(x + g->row * cols + c, g->n, cols, w + c * n, b ? b[c] : 0, n, past + c, cols, y + g->row * cols + c);
        }
    }
}

struct delta_step {
    const float *q, *k, *v;
    float *s, *y;
    float decay, beta, scale;
    int64_t k_dim, v_dim;
};

static void delta_step(const struct kernels *kn, const struct delta_step *d, float *seen)
{
    kn->scale(d->s, d->s, d->decay, d->k_dim * d->v_dim);
    memset(seen, 0, (size_t)d->v_dim * sizeof *seen);
    for (int64_t i = 0; i < d->k_dim; i++) kn->axpy(seen, d->s + i * d->v_dim, d->k[i], d->v_dim);
    for (int64_t j = 0; j < d->v_dim; j++) seen[j] = (d->v[j] - seen[j]) * d->beta;
    memset(d->y, 0, (size_t)d->v_dim * sizeof *d->y);
    for (int64_t i = 0; i < d->k_dim; i++) {
        kn->axpy(d->s + i * d->v_dim, seen, d->k[i], d->v_dim);
        kn->axpy(d->y, d->s + i * d->v_dim, d->q[i] * d->scale, d->v_dim);
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
        int64_t h = i % n_v, hk = h / (n_v / n_k);
        float *s = g->state[op->arg.delta.il].rec.memory + h * kd * vd;
        if (g->pos == 0) memset(s, 0, (size_t)(kd * vd) * sizeof *s);
        for (int64_t t = g->row; t < g->row + g->n; t++) {
            struct delta_step d = { .q = q + (t * n_k + hk) * kd, .k = k + (t * n_k + hk) * kd, .v = v + (t * n_v + h) * vd, .s = s,
                                    .y = y + (t * n_v + h) * vd, .decay = expf(gb[(t * n_v + h) * 2]), .beta = gb[(t * n_v + h) * 2 + 1],
                                    .scale = 1 / sqrtf((float)kd), .k_dim = kd, .v_dim = vd };
            delta_step(r->k, &d, seen);
        }
    }
}
