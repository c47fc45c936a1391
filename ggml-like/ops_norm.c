/* ops_norm - norms, additions, the usual gates, row and column gathers. */
#include "ggml-like/ops_int.h"
#include <math.h>

val op_rows(struct plan *p, val x)
{
    if (p->n_out == p->n_rows) return x;
    val y = plan_temp(p, op_shape(p, x)->ne[0], p->n_out);
    plan_op(p, OP_ROWS, y, x, VAL_NONE, VAL_NONE);
    return y;
}

val op_cols(struct plan *p, val x, val index)
{
    val y = plan_temp(p, op_shape(p, index)->ne[0], op_shape(p, x)->ne[1]);
    plan_op(p, OP_COLS, y, x, index, VAL_NONE);
    return y;
}

val op_head_norm(struct plan *p, val x, val w, float eps, int64_t head_dim)
{
    assert(op_shape(p, x)->ne[0] % head_dim == 0 && (w == VAL_NONE || op_shape(p, w)->ne[0] == head_dim));
    val y = op_like(p, x);
    struct op *op = plan_op(p, OP_RMS_NORM, y, x, w, VAL_NONE);
    op->arg.norm.eps = eps;
    op->arg.norm.dim = head_dim;
    return y;
}

val op_rms_norm(struct plan *p, val x, val w, float eps) { return op_head_norm(p, x, w, eps, op_shape(p, x)->ne[0]); }

val op_layer_norm(struct plan *p, val x, val w, val b, float eps, int64_t dim)
{
    assert(op_shape(p, x)->ne[0] % dim == 0);
    val y = op_like(p, x);
    struct op *op = plan_op(p, OP_LAYER_NORM, y, x, w, b);
    op->arg.norm.eps = eps;
    op->arg.norm.dim = dim;
    return y;
}

val op_l2_norm(struct plan *p, val x, float eps, int64_t dim)
{
    assert(op_shape(p, x)->ne[0] % dim == 0);
    val y = op_like(p, x);
    struct op *op = plan_op(p, OP_L2_NORM, y, x, VAL_NONE, VAL_NONE);
    op->arg.norm.eps = eps;
    op->arg.norm.dim = dim;
    return y;
}

static val pair(struct plan *p, enum op_kind kind, val a, val b)
{
    assert(op_shape(p, a)->ne[0] == op_shape(p, b)->ne[0] && op_shape(p, a)->ne[1] == op_shape(p, b)->ne[1]);
    val y = op_like(p, a);
    plan_op(p, kind, y, a, b, VAL_NONE);
    return y;
}

val op_add(struct plan *p, val a, val b) { return pair(p, OP_ADD, a, b); }
val op_silu_mul(struct plan *p, val gate, val up) { return pair(p, OP_SILU_MUL, gate, up); }
val op_gelu_mul(struct plan *p, val gate, val up) { return pair(p, OP_GELU_MUL, gate, up); }

val op_bias(struct plan *p, val x, val b)
{
    if (b == VAL_NONE) return x;
    assert(op_shape(p, b)->ne[0] == op_shape(p, x)->ne[0]);
    val y = op_like(p, x);
    plan_op(p, OP_BIAS, y, x, b, VAL_NONE);
    return y;
}

static val with_factor(struct plan *p, enum op_kind kind, val x, float s)
{
    val y = op_like(p, x);
    plan_op(p, kind, y, x, VAL_NONE, VAL_NONE)->arg.scale.s = s;
    return y;
}

val op_scale(struct plan *p, val x, float s) { return with_factor(p, OP_SCALE, x, s); }
val op_softcap(struct plan *p, val x, float cap) { return with_factor(p, OP_SOFTCAP, x, cap); }

void op_run_rows(const struct op_run *r, const struct op *op)
{
    const struct tensor *t = op_shape(r->x->plan, op->dst);
    const float *x = op_data(r, op->src[0]);
    float *y = op_data(r, op->dst);
    int64_t begin, end;
    pool_range(t->ne[1], 1, r->ith, r->nth, &begin, &end);
    for (int64_t i = begin; i < end; i++) memcpy(y + i * t->ne[0], x + r->x->batch->out[i] * t->ne[0], t->nb[1]);
}

void op_run_cols(const struct op_run *r, const struct op *op)
{
    const struct tensor *t = op_shape(r->x->plan, op->dst), *from = op_shape(r->x->plan, op->src[0]);
    const float *x = op_data(r, op->src[0]);
    const int32_t *index = op_data(r, op->src[1]);
    float *y = op_data(r, op->dst);
    int64_t begin, end;
    pool_range(t->ne[1], 1, r->ith, r->nth, &begin, &end);
    for (int64_t i = begin; i < end; i++)
        for (int64_t j = 0; j < t->ne[0]; j++) y[i * t->ne[0] + j] = x[i * from->ne[0] + index[j]];
}

void op_run_rms_norm(const struct op_run *r, const struct op *op)
{
    const struct tensor *t = op_shape(r->x->plan, op->dst);
    const float *x = op_data(r, op->src[0]), *w = op->src[1] == VAL_NONE ? NULL : op_data(r, op->src[1]);
    float *y = op_data(r, op->dst);
    int64_t dim = op->arg.norm.dim, begin, end;
    pool_range(t->ne[0] / dim * t->ne[1], 1, r->ith, r->nth, &begin, &end);
    for (int64_t i = begin; i < end; i++) r->k->rms_norm(y + i * dim, x + i * dim, w, dim, op->arg.norm.eps);
}

/* A vector of one run's length serves all runs; a longer one has a part for each. */
const float *op_part_of(const struct op_run *r, val v, int64_t run, int64_t dim)
{
    if (v == VAL_NONE) return NULL;
    int64_t n = op_shape(r->x->plan, v)->ne[0];
    return (const float *)op_data(r, v) + (n > dim ? run % (n / dim) * dim : 0);
}

void op_run_layer_norm(const struct op_run *r, const struct op *op)
{
    const struct tensor *t = op_shape(r->x->plan, op->dst);
    const float *src = op_data(r, op->src[0]);
    float *dst = op_data(r, op->dst);
    int64_t dim = op->arg.norm.dim, begin, end;
    pool_range(t->ne[0] / dim * t->ne[1], 1, r->ith, r->nth, &begin, &end);
    for (int64_t i = begin; i < end; i++) {
        const float *x = src + i * dim, *w = op_part_of(r, op->src[1], i, dim), *b = op_part_of(r, op->src[2], i, dim);
        float *y = dst + i * dim;
        double sum = 0, square = 0;
        for (int64_t c = 0; c < dim; c++) sum += (double)x[c];
        double mean = sum / (double)dim;
        for (int64_t c = 0; c < dim; c++) square += ((double)x[c] - mean) * ((double)x[c] - mean);
        float inv = (float)(1 / sqrt(square / (double)dim + (double)op->arg.norm.eps)), m = (float)mean;
        for (int64_t c = 0; c < dim; c++) y[c] = (x[c] - m) * inv * (w ? w[c] : 1.0f) + (b ? b[c] : 0.0f);
    }
}

void op_run_l2_norm(const struct op_run *r, const struct op *op)
{
    const struct tensor *t = op_shape(r->x->plan, op->dst);
    const float *src = op_data(r, op->src[0]);
    float *dst = op_data(r, op->dst);
    int64_t dim = op->arg.norm.dim, begin, end;
    pool_range(t->ne[0] / dim * t->ne[1], 1, r->ith, r->nth, &begin, &end);
    for (int64_t i = begin; i < end; i++) {
        const float *x = src + i * dim;
        float ss = r->k->dot(x, x, dim);
        r->k->scale(dst + i * dim, x, 1 / sqrtf(ss + op->arg.norm.eps), dim);
    }
}

void op_run_add(const struct op_run *r, const struct op *op)
{
    int64_t i, n;
    if (op_flat(r, op, &i, &n))
        r->k->add((float *)op_data(r, op->dst) + i, (float *)op_data(r, op->src[0]) + i, (float *)op_data(r, op->src[1]) + i, n);
}

void op_run_silu_mul(const struct op_run *r, const struct op *op)
{
    int64_t i, n;
    if (op_flat(r, op, &i, &n))
        r->k->silu_mul((float *)op_data(r, op->dst) + i, (float *)op_data(r, op->src[0]) + i, (float *)op_data(r, op->src[1]) + i, n);
}

void op_run_gelu_mul(const struct op_run *r, const struct op *op)
{
    int64_t i, n;
    if (op_flat(r, op, &i, &n))
        r->k->gelu_mul((float *)op_data(r, op->dst) + i, (float *)op_data(r, op->src[0]) + i, (float *)op_data(r, op->src[1]) + i, n);
}

void op_run_scale(const struct op_run *r, const struct op *op)
{
    int64_t i, n;
    if (op_flat(r, op, &i, &n)) r->k->scale((float *)op_data(r, op->dst) + i, (float *)op_data(r, op->src[0]) + i, op->arg.scale.s, n);
}

void op_run_softcap(const struct op_run *r, const struct op *op)
{
    int64_t i, n;
    if (op_flat(r, op, &i, &n)) r->k->softcap((float *)op_data(r, op->dst) + i, (float *)op_data(r, op->src[0]) + i, op->arg.scale.s, n);
}

void op_run_bias(const struct op_run *r, const struct op *op)
{
    const struct tensor *t = op_shape(r->x->plan, op->dst);
    const float *x = op_data(r, op->src[0]), *b = op_data(r, op->src[1]);
    float *y = op_data(r, op->dst);
    int64_t begin, end;
    pool_range(t->ne[1], 1, r->ith, r->nth, &begin, &end);
    for (int64_t i = begin; i < end; i++) r->k->add(y + i * t->ne[0], x + i * t->ne[0], b, t->ne[0]);
}
