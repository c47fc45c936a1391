/* ops_grad_attn - the gradient of attention over sequences that are whole in the pass. */
#include "ggml-like/ops_int.h"
#include <math.h>

val op_attn_grad(struct plan *p, const struct attn_spec *s, val q, val k, val v, val sinks, val y, val dy)
{
    int64_t n = (int64_t)s->n_head * s->head_dim + (int64_t)s->n_head_kv * (s->head_dim + s->head_dim_v);
    val d = plan_temp(p, n, p->n_rows);
    struct op *op = plan_op(p, OP_ATTN_GRAD, d, q, k, v);
    op->src[3] = y, op->src[4] = dy, op->src[5] = sinks;
    p->val[y].last = p->val[dy].last = p->n_op - 1;
    op->arg.attn.il = s->il;
    op->arg.attn.n_head = s->n_head;
    op->arg.attn.n_head_kv = s->n_head_kv;
    op->arg.attn.head_dim = s->head_dim;
    op->arg.attn.head_dim_v = s->head_dim_v;
    op->arg.attn.window = s->window;
    op->arg.attn.scale = s->scale;
    op->arg.attn.cap = s->cap;
    op->arg.attn.alibi = s->alibi;
    return d;
}

/* One query: weights of the keys lo .. i of its segment, then their gradients. Offsets of rows are those of the pass. */
static void query(const struct op_run *r, const struct op *op, int64_t first, int64_t i, int32_t h)
{
    const float *q = op_data(r, op->src[0]), *k = op_data(r, op->src[1]), *v = op_data(r, op->src[2]), *dy = op_data(r, op->src[4]);
    const float *sinks = op->src[5] == VAL_NONE ? NULL : op_data(r, op->src[5]);
    int64_t hd = op->arg.attn.head_dim, vd = op->arg.attn.head_dim_v, nh = op->arg.attn.n_head, nk = op->arg.attn.n_head_kv, g = h / (nh / nk);
    int64_t lo = op->arg.attn.window > 0 ? max_i64(first, i - op->arg.attn.window + 1) : first, width = nh * hd + nk * (hd + vd), n = i + 1 - lo;
    float *p = r->scratch, *bend = p + n, *d = op_data(r, op->dst), cap = op->arg.attn.cap, scale = op->arg.attn.scale, top = -INFINITY;
    for (int64_t j = 0; j < n; j++) {
        float z = scale * r->k->dot(q + (i * nh + h) * hd, k + ((lo + j) * nk + g) * hd, hd), t = cap > 0 ? tanhf(z / cap) : 0;
        p[j] = cap > 0 ? cap * t : z;
        bend[j] = 1 - t * t;
        if (op->arg.attn.alibi > 0) p[j] -= op_alibi_slope(op->arg.attn.alibi, (int32_t)nh, h) * (float)(n - 1 - j);
        if (p[j] > top) top = p[j];
    }
    if (sinks && sinks[h] > top) top = sinks[h];
    double sum = sinks ? exp((double)sinks[h] - (double)top) : 0, inner = 0;
    for (int64_t j = 0; j < n; j++) sum += (double)(p[j] = expf(p[j] - top));
    const float *dyi = dy + (i * nh + h) * vd;
    for (int64_t j = 0; j < n; j++) {
        p[j] = (float)((double)p[j] / sum);
        inner += (double)(p[j] * r->k->dot(dyi, v + ((lo + j) * nk + g) * vd, vd));
    }
    float *dq = d + i * width + h * hd;
    for (int64_t j = 0; j < n; j++) {
        float *dk = d + (lo + j) * width + nh * hd + g * hd, *dv = d + (lo + j) * width + (nh + nk) * hd + g * vd;
        float ds = scale * bend[j] * p[j] * (r->k->dot(dyi, v + ((lo + j) * nk + g) * vd, vd) - (float)inner);
        r->k->axpy(dq, k + ((lo + j) * nk + g) * hd, ds, hd);
        r->k->axpy(dk, q + (i * nh + h) * hd, ds, hd);
        r->k->axpy(dv, dyi, p[j], vd);
    }
}

/* A head of keys with all its queries, one segment after the other, belongs to one thread. */
void op_run_attn_grad(const struct op_run *r, const struct op *op)
{
    int64_t hd = op->arg.attn.head_dim, vd = op->arg.attn.head_dim_v, nh = op->arg.attn.n_head, nk = op->arg.attn.n_head_kv, group = nh / nk;
    int64_t width = nh * hd + nk * (hd + vd), begin, end;
    float *d = op_data(r, op->dst);
    pool_range(nk, 1, r->ith, r->nth, &begin, &end);
    for (int64_t g = begin; g < end; g++)
        for (int s = 0; s < r->x->batch->n_seg; s++) {
            const struct batch_segment *seg = &r->x->batch->seg[s];
            for (int64_t i = seg->row; i < seg->row + seg->n; i++) {
                memset(d + i * width + g * group * hd, 0, (size_t)(group * hd) * sizeof *d);
                memset(d + i * width + (nh + g) * hd, 0, (size_t)hd * sizeof *d);
                memset(d + i * width + (nh + nk) * hd + g * vd, 0, (size_t)vd * sizeof *d);
                for (int64_t h = g * group; h < (g + 1) * group; h++) query(r, op, seg->row, i, (int32_t)h);
            }
        }
}
