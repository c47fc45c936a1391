/* ops_grad_state - the gradient of the gated delta rule. Per head and block of WIDTH columns, with a = exp(g), S' = a S before a row and S behind it:
 *   e = v - S'^T k (plain: v);  S = S' + k (beta e)^T;  y = scale S^T q
 * backwards, D the gradient of S:
 *   D += scale q dy^T;  dq = scale S dy;  du = D^T k;  dk = D (beta e);  dbeta = du e;  dv = de = beta du;  D -= k de^T, dk -= S' de (not plain);
 *   dg = D S';  D = a D
 * States are kept every CHUNK rows, about the root of their number, and those between two of them are computed again. */
#include "ggml-like/ops_int.h"
#include <math.h>

enum { WIDTH = 64, SLOTS = 16 }; /* SLOTS: how many threads can work at once, each with states of its own */

static int64_t chunk_of(int64_t rows)
{
    int64_t c = 1;
    while (c * c < rows) c++;
    return c;
}

/* The floats of a slot: states at the beginnings of chunks, those of one chunk, and D. Of a part: dq, dk of a row, and its dg, dbeta. */
static int64_t slot_floats(int64_t rows, int64_t k_dim) { return ((rows + chunk_of(rows) - 1) / chunk_of(rows) + chunk_of(rows) + 2) * k_dim * WIDTH; }
static int64_t part_floats(int64_t k_dim) { return 2 * k_dim + 2; }
static int64_t n_blocks(int64_t v_dim) { return (v_dim + WIDTH - 1) / WIDTH; }

val op_delta_grad(struct plan *p, const struct op *rule, val dy)
{
    int64_t nk = (int64_t)rule->arg.delta.n_k_head * rule->arg.delta.k_dim, n_v = rule->arg.delta.n_v_head, vd = rule->arg.delta.v_dim;
    int64_t room = plan_room(p, p->n_rows), k_dim = rule->arg.delta.k_dim;
    val d = plan_temp(p, 2 * nk + n_v * (vd + 2), p->n_rows);
    p->val[d].bytes += (size_t)(SLOTS * slot_floats(room, k_dim) + n_v * n_blocks(vd) * room * part_floats(k_dim) + 16) * sizeof(float);
    p->val[d].bytes &= ~(size_t)63;
    struct op *op = plan_op(p, OP_DELTA_GRAD, d, rule->src[0], rule->src[1], rule->src[2]);
    op->src[3] = rule->src[3];
    op->src[4] = dy;
    p->val[op->src[3]].last = p->val[dy].last = p->n_op - 1;
    op->arg.delta = rule->arg.delta;
    return d;
}

/* One head's block of columns. */
struct block {
    int64_t kd, nk, n_v, vd, hk, h, first, cols, out; /* out: floats in a row of the result */
    const float *q, *k, *v, *gb, *dy;
    float *result, *part, *starts, *states, *d;
    float scale;
    bool plain;
};

static void step(const struct op_run *r, const struct block *b, float *s, int64_t t)
{
    float y[WIDTH];
    const float *gb = b->gb + (t * b->n_v + b->h) * 2;
    struct recur_args a = { .s = s, .y = y, .rows = b->kd, .cols = b->cols, .stride = WIDTH, .plain = b->plain, .scale = 1 };
    a.decay = expf(gb[0]);
    a.beta = gb[1];
    a.q = b->q + (t * b->nk + b->hk) * b->kd;
    a.k = b->k + (t * b->nk + b->hk) * b->kd;
    a.v = b->v + (t * b->n_v + b->h) * b->vd + b->first;
    r->k->recur(&a);
}

/* Row t: `was` the state before it, `now` the one behind it. */
static void back_row(const struct op_run *r, const struct block *b, const float *was, const float *now, int64_t t)
{
    const float *q = b->q + (t * b->nk + b->hk) * b->kd, *k = b->k + (t * b->nk + b->hk) * b->kd, *gb = b->gb + (t * b->n_v + b->h) * 2;
    const float *v = b->v + (t * b->n_v + b->h) * b->vd + b->first, *from = b->dy + (t * b->n_v + b->h) * b->vd + b->first;
    float *dq = b->part + t * part_floats(b->kd), *dk = dq + b->kd, *end = dk + b->kd, a = expf(gb[0]), beta = gb[1];
    float dy[WIDTH] = { 0 }, du[WIDTH] = { 0 }, e[WIDTH] = { 0 }, u[WIDTH], de[WIDTH];
    for (int64_t c = 0; c < b->cols; c++) dy[c] = b->scale * from[c], e[c] = v[c];
    for (int64_t i = 0; i < b->kd; i++) {
        float *d = b->d + i * WIDTH;
        for (int c = 0; c < WIDTH; c++) {
            d[c] += q[i] * dy[c];
            du[c] += k[i] * d[c];
        }
        dq[i] = r->k->dot(now + i * WIDTH, dy, WIDTH);
        for (int c = 0; c < WIDTH && !b->plain; c++) e[c] -= a * k[i] * was[i * WIDTH + c];
    }
    for (int c = 0; c < WIDTH; c++) u[c] = beta * e[c], de[c] = beta * du[c];
    float dg = 0;
    for (int64_t i = 0; i < b->kd; i++) {
        float *d = b->d + i * WIDTH;
        dk[i] = r->k->dot(d, u, WIDTH);
        if (!b->plain) {
            dk[i] -= a * r->k->dot(was + i * WIDTH, de, WIDTH);
            for (int c = 0; c < WIDTH; c++) d[c] -= k[i] * de[c];
        }
        dg += r->k->dot(d, was + i * WIDTH, WIDTH);
        for (int c = 0; c < WIDTH; c++) d[c] *= a;
    }
    end[0] = a * dg;
    end[1] = r->k->dot(du, e, WIDTH);
    float *dv = b->result + t * b->out + 2 * b->nk * b->kd + b->h * b->vd + b->first;
    memcpy(dv, de, (size_t)b->cols * sizeof *dv);
}

/* A segment: forwards to the beginnings of its chunks, then chunk by chunk backwards. */
static void back_segment(const struct op_run *r, const struct block *b, int64_t row, int64_t n)
{
    int64_t size = b->kd * WIDTH, chunk = chunk_of(n), chunks = (n + chunk - 1) / chunk;
    memset(b->starts, 0, (size_t)size * sizeof(float)); /* columns that a narrow block lacks stay zero */
    for (int64_t i = 1; i < chunks; i++) {
        memcpy(b->starts + i * size, b->starts + (i - 1) * size, (size_t)size * sizeof(float));
        for (int64_t t = (i - 1) * chunk; t < i * chunk; t++) step(r, b, b->starts + i * size, row + t);
    }
    memset(b->d, 0, (size_t)size * sizeof(float));
    for (int64_t i = chunks - 1; i >= 0; i--) {
        int64_t first = i * chunk, m = min_i64(chunk, n - first);
        memcpy(b->states, b->starts + i * size, (size_t)size * sizeof(float));
        for (int64_t j = 0; j < m; j++) {
            memcpy(b->states + (j + 1) * size, b->states + j * size, (size_t)size * sizeof(float));
            step(r, b, b->states + (j + 1) * size, row + first + j);
        }
        for (int64_t j = m - 1; j >= 0; j--) back_row(r, b, b->states + j * size, b->states + (j + 1) * size, row + first + j);
    }
}

/* dq and dk of a key's head from all heads and blocks that read it, in order; dg and dbeta from all blocks. */
static void sum_row(const struct op *op, const struct block *b, const float *parts, int64_t rows, int64_t t)
{
    int64_t blocks = n_blocks(b->vd), size = part_floats(b->kd);
    float *out = b->result + t * b->out, *dgb = out + 2 * b->nk * b->kd + b->n_v * b->vd;
    memset(out, 0, (size_t)(2 * b->nk * b->kd) * sizeof *out);
    for (int64_t h = 0; h < b->n_v; h++) {
        int64_t hk = op->arg.delta.tiled ? h % b->nk : h / (b->n_v / b->nk);
        float *dq = out + hk * b->kd, *dk = dq + b->nk * b->kd;
        dgb[2 * h] = dgb[2 * h + 1] = 0;
        for (int64_t i = 0; i < blocks; i++) {
            const float *x = parts + ((h * blocks + i) * rows + t) * size;
            for (int64_t j = 0; j < b->kd; j++) dq[j] += x[j], dk[j] += x[b->kd + j];
            for (int j = 0; j < 2; j++) dgb[2 * h + j] += x[2 * b->kd + j];
        }
    }
}

void op_run_delta_grad(const struct op_run *r, const struct op *op)
{
    const struct plan *p = r->x->plan;
    const struct batch *batch = r->x->batch;
    int64_t kd = op->arg.delta.k_dim, nk = op->arg.delta.n_k_head, n_v = op->arg.delta.n_v_head, vd = op->arg.delta.v_dim, blocks = n_blocks(vd);
    int64_t room = plan_room(p, p->n_rows), rows = batch->n_rows, size = kd * WIDTH, out = op_shape(p, op->dst)->ne[0], begin, end;
    float *result = op_data(r, op->dst), *slots = result + (out * room + 15) / 16 * 16, *parts = slots + SLOTS * slot_floats(room, kd);
    struct block b = { kd, nk, n_v, vd, 0, 0, 0, 0, out, op_data(r, op->src[0]), op_data(r, op->src[1]), op_data(r, op->src[2]), op_data(r, op->src[3]),
                       op_data(r, op->src[4]), result, NULL, NULL, NULL, NULL, op->arg.delta.plain ? 1 : 1 / sqrtf((float)kd), op->arg.delta.plain };
    for (int64_t s, next; op_take(r, SLOTS, 1, &s, &next);) {
        b.d = slots + s * slot_floats(room, kd);
        b.states = b.d + size;
        b.starts = b.states + (chunk_of(room) + 1) * size;
        for (int64_t i = s; i < n_v * blocks; i += SLOTS) {
            b.h = i / blocks, b.first = i % blocks * WIDTH, b.cols = min_i64(WIDTH, vd - b.first);
            b.hk = op->arg.delta.tiled ? b.h % nk : b.h / (n_v / nk);
            b.part = parts + i * rows * part_floats(kd);
            for (int g = 0; g < batch->n_seg; g++) back_segment(r, &b, batch->seg[g].row, batch->seg[g].n);
        }
    }
    pool_barrier(r->x->pool);
    pool_range(rows, 1, r->ith, r->nth, &begin, &end);
    for (int64_t t = begin; t < end; t++) sum_row(op, &b, parts, rows, t);
}
