/* ops_grad_score - the gradient of scores, a row of logits at a time. */
#include "ggml-like/ops_int.h"
#include <math.h>

val op_score_grad(struct plan *p, const struct op *score)
{
    val dx = plan_temp(p, op_shape(p, score->src[2])->ne[0], op_shape(p, score->src[2])->ne[1]);
    struct op *op = plan_op(p, OP_SCORE_GRAD, dx, score->src[0], score->src[2], VAL_NONE);
    op->arg.score = score->arg.score;
    return dx;
}

/* Piece c of row i of the matrix. */
static int64_t piece(const struct op_run *r, const struct tensor *w, int64_t i, int64_t c, float *to)
{
    int64_t n = min_i64(op_is_float(w->type) ? 256 : w->type->block_len, w->ne[0] - c);
    r->k->to_f32(w->type, (const uint8_t *)w->data + (size_t)i * w->nb[1] + dtype_row_bytes(w->type, c), to, n);
    return n;
}

static float logit(const struct op_run *r, const struct op *op, const struct tensor *w, int64_t i, const float *x, float *slope)
{
    float row[256], scale = op->arg.score.scale != 0 ? op->arg.score.scale : 1, cap = op->arg.score.cap;
    double y = 0;
    for (int64_t c = 0, n; c < w->ne[0]; c += n) {
        n = piece(r, w, i, c, row);
        y += (double)r->k->dot(row, x + c, n);
    }
    float t = cap > 0 ? tanhf((float)y * scale / cap) : 0;
    *slope = scale * (1 - t * t);
    return cap > 0 ? cap * t : (float)y * scale;
}

void op_run_score_grad(const struct op_run *r, const struct op *op)
{
    const struct tensor *w = op_shape(r->x->plan, op->src[0]), *t = op_shape(r->x->plan, op->dst);
    float *dx = op_data(r, op->dst), row[256], slope;
    const struct batch *b = r->x->batch;
    int64_t n = op->arg.score.n_vocab, begin, end;
    pool_range(t->ne[1], 1, r->ith, r->nth, &begin, &end);
    for (int64_t j = begin; j < end; j++) {
        const float *x = (const float *)op_data(r, op->src[1]) + j * t->ne[0];
        double sum = 0, top = -INFINITY;
        for (int64_t i = 0; i < n; i++) {
            double y = (double)logit(r, op, w, i, x, &slope);
            if (y > top) sum *= exp(top - y), top = y;
            sum += exp(y - top);
        }
        memset(dx + j * t->ne[0], 0, t->nb[1]);
        for (int64_t i = 0; i < n; i++) {
            double p = exp((double)logit(r, op, w, i, x, &slope) - top) / sum - (i == b->target[j]);
            for (int64_t c = 0, m; c < t->ne[0]; c += m) {
                m = piece(r, w, i, c, row);
                r->k->axpy(dx + j * t->ne[0] + c, row, (float)p * slope * b->weight[j], m);
            }
        }
    }
}
