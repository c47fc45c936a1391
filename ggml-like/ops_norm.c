/* ops_norm - ops that work row by row or element by element: norms, additions, gates, row gathers. */
#include "ggml-like/kernels/kernels.h"
#include "ggml-like/ops.h"
#include <assert.h>
#include <string.h>

static const struct tensor *shape(const struct plan *p, val v) { return &p->val[v].t; }

static val like(struct plan *p, val x) { return plan_temp(p, shape(p, x)->ne[0], shape(p, x)->ne[1]); }

val op_rows(struct plan *p, val x)
{
    if (p->n_out == p->n_rows) return x;
    val y = plan_temp(p, shape(p, x)->ne[0], p->n_out);
    plan_op(p, OP_ROWS, y, x, VAL_NONE, VAL_NONE);
    return y;
}

val op_cols(struct plan *p, val x, val index)
{
    val y = plan_temp(p, shape(p, index)->ne[0], shape(p, x)->ne[1]);
    plan_op(p, OP_COLS, y, x, index, VAL_NONE);
    return y;
}

val op_head_norm(struct plan *p, val x, val w, float eps, int64_t head_dim)
{
    assert(shape(p, x)->ne[0] % head_dim == 0 && (w == VAL_NONE || shape(p, w)->ne[0] == head_dim));
    val y = like(p, x);
    struct op *op = plan_op(p, OP_RMS_NORM, y, x, w, VAL_NONE);
    op->arg.norm.eps = eps;
    op->arg.norm.dim = head_dim;
    return y;
}

val op_rms_norm(struct plan *p, val x, val w, float eps) { return op_head_norm(p, x, w, eps, shape(p, x)->ne[0]); }

static val pair(struct plan *p, enum op_kind kind, val a, val b)
{
    assert(shape(p, a)->ne[0] == shape(p, b)->ne[0] && shape(p, a)->ne[1] == shape(p, b)->ne[1]);
    val y = like(p, a);
    plan_op(p, kind, y, a, b, VAL_NONE);
    return y;
}

val op_add(struct plan *p, val a, val b) { return pair(p, OP_ADD, a, b); }
val op_silu_mul(struct plan *p, val gate, val up) { return pair(p, OP_SILU_MUL, gate, up); }
val op_gelu_mul(struct plan *p, val gate, val up) { return pair(p, OP_GELU_MUL, gate, up); }

val op_bias(struct plan *p, val x, val b)
{
    if (b == VAL_NONE) return x;
    assert(shape(p, b)->ne[0] == shape(p, x)->ne[0]);
    val y = like(p, x);
    plan_op(p, OP_BIAS, y, x, b, VAL_NONE);
    return y;
}

static val with_factor(struct plan *p, enum op_kind kind, val x, float s)
{
    val y = like(p, x);
    plan_op(p, kind, y, x, VAL_NONE, VAL_NONE)->arg.scale.s = s;
    return y;
}

val op_scale(struct plan *p, val x, float s) { return with_factor(p, OP_SCALE, x, s); }
val op_softcap(struct plan *p, val x, float cap) { return with_factor(p, OP_SOFTCAP, x, cap); }

void op_run_rows(const struct op_run *r, const struct op *op)
{
    const struct tensor *t = shape(r->x->plan, op->dst);
    const float *x = op_data(r, op->src[0]);
    float *y = op_data(r, op->dst);
    int64_t begin, end;
    pool_range(t->ne[1], 1, r->ith, r->nth, &begin, &end);
    for (int64_t i = begin; i < end; i++) memcpy(y + i * t->ne[0], x + r->x->batch->out[i] * t->ne[0], t->nb[1]);
}

void op_run_cols(const struct op_run *r, const struct op *op)
{
    const struct tensor *t = shape(r->x->plan, op->dst), *from = shape(r->x->plan, op->src[0]);
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
    const struct tensor *t = shape(r->x->plan, op->dst);
    const float *x = op_data(r, op->src[0]), *w = op->src[1] == VAL_NONE ? NULL : op_data(r, op->src[1]);
    float *y = op_data(r, op->dst);
    int64_t dim = op->arg.norm.dim, begin, end;
    pool_range(t->ne[0] / dim * t->ne[1], 1, r->ith, r->nth, &begin, &end);
    for (int64_t i = begin; i < end; i++) r->k->rms_norm(y + i * dim, x + i * dim, w, dim, op->arg.norm.eps);
}

/* Element-wise ops share the flat element range, so one long row (decoding) is split as well as many rows. 256 floats are 1 KiB: no two
 * threads write the same cache line. */
static bool flat(const struct op_run *r, const struct op *op, int64_t *begin, int64_t *n)
{
    int64_t end;
    pool_range(tensor_elements(shape(r->x->plan, op->dst)), 256, r->ith, r->nth, begin, &end);
    *n = end - *begin;
    return *n > 0;
}

void op_run_add(const struct op_run *r, const struct op *op)
{
    int64_t i, n;
    if (flat(r, op, &i, &n))
        r->k->add((float *)op_data(r, op->dst) + i, (float *)op_data(r, op->src[0]) + i, (float *)op_data(r, op->src[1]) + i, n);
}

void op_run_silu_mul(const struct op_run *r, const struct op *op)
{
    int64_t i, n;
    if (flat(r, op, &i, &n))
        r->k->silu_mul((float *)op_data(r, op->dst) + i, (float *)op_data(r, op->src[0]) + i, (float *)op_data(r, op->src[1]) + i, n);
}

void op_run_gelu_mul(const struct op_run *r, const struct op *op)
{
    int64_t i, n;
    if (flat(r, op, &i, &n))
        r->k->gelu_mul((float *)op_data(r, op->dst) + i, (float *)op_data(r, op->src[0]) + i, (float *)op_data(r, op->src[1]) + i, n);
}

void op_run_scale(const struct op_run *r, const struct op *op)
{
    int64_t i, n;
    if (flat(r, op, &i, &n)) r->k->scale((float *)op_data(r, op->dst) + i, (float *)op_data(r, op->src[0]) + i, op->arg.scale.s, n);
}

void op_run_softcap(const struct op_run *r, const struct op *op)
{
    int64_t i, n;
    if (flat(r, op, &i, &n)) r->k->softcap((float *)op_data(r, op->dst) + i, (float *)op_data(r, op->src[0]) + i, op->arg.scale.s, n);
}

void op_run_bias(const struct op_run *r, const struct op *op)
{
    const struct tensor *t = shape(r->x->plan, op->dst);
    const float *x = op_data(r, op->src[0]), *b = op_data(r, op->src[1]);
    float *y = op_data(r, op->dst);
    int64_t begin, end;
    pool_range(t->ne[1], 1, r->ith, r->nth, &begin, &end);
    for (int64_t i = begin; i < end; i++) r->k->add(y + i * t->ne[0], x + i * t->ne[0], b, t->ne[0]);
}
