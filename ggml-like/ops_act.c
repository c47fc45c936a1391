/* ops_act - activations, products, and the cutting and joining of columns. */
#include "ggml-like/ops_int.h"
#include <math.h>

/* ---- recording ---- */

static val plain(struct plan *p, enum op_kind kind, val x, val y)
{
    val z = op_like(p, x);
    plan_op(p, kind, z, x, y, VAL_NONE);
    return z;
}

val op_mul(struct plan *p, val a, val b)
{
    assert(tensor_elements(op_shape(p, a)) == tensor_elements(op_shape(p, b)));
    return plain(p, OP_MUL, a, b);
}

val op_mul_vector(struct plan *p, val x, val w)
{
    assert(op_shape(p, w)->ne[0] == op_shape(p, x)->ne[0]);
    return plain(p, OP_MUL_VECTOR, x, w);
}

val op_clamp(struct plan *p, val x, float lo, float hi)
{
    val y = op_like(p, x);
    struct op *op = plan_op(p, OP_CLAMP, y, x, VAL_NONE, VAL_NONE);
    op->arg.clamp.lo = lo;
    op->arg.clamp.hi = hi;
    return y;
}

val op_act_mul(struct plan *p, enum act act, val gate, val up, float limit)
{
    assert(up == VAL_NONE || tensor_elements(op_shape(p, gate)) == tensor_elements(op_shape(p, up)));
    if (up != VAL_NONE && act == ACT_SILU) return op_silu_mul(p, gate, up);
    if (up != VAL_NONE && act == ACT_GELU_TANH) return op_gelu_mul(p, gate, up);
    val y = op_like(p, gate);
    struct op *op = plan_op(p, OP_ACT, y, gate, up, VAL_NONE);
    op->arg.act.act = act;
    op->arg.act.limit = limit;
    return y;
}

val op_act(struct plan *p, enum act act, val x) { return op_act_mul(p, act, x, VAL_NONE, 0); }

val op_xielu(struct plan *p, val x, float alpha_p, float alpha_n, float beta, float eps)
{
    val y = op_act_mul(p, ACT_XIELU, x, VAL_NONE, 0);
    float *v = p->op[p->n_op - 1].arg.act.param;
    v[0] = alpha_p, v[1] = alpha_n, v[2] = beta, v[3] = eps;
    return y;
}

val op_gate(struct plan *p, val x, val g)
{
    assert(op_shape(p, x)->ne[0] % op_shape(p, g)->ne[0] == 0 && op_shape(p, x)->ne[1] == op_shape(p, g)->ne[1]);
    return plain(p, OP_GATE, x, g);
}

val op_scale_runs(struct plan *p, val x, val w)
{
    assert(op_shape(p, x)->ne[0] % op_shape(p, w)->ne[0] == 0);
    return plain(p, OP_SCALE_RUNS, x, w);
}

val op_slice(struct plan *p, val x, int64_t width, int64_t first, int64_t n)
{
    assert(op_shape(p, x)->ne[0] % width == 0 && first >= 0 && n > 0 && first + n <= width);
    if (n == width) return x;
    val y = op_rows_like(p, x, op_shape(p, x)->ne[0] / width * n);
    struct op *op = plan_op(p, OP_SLICE, y, x, VAL_NONE, VAL_NONE);
    op->arg.slice.width = width;
    op->arg.slice.first = first;
    op->arg.slice.n = n;
    return y;
}

val op_join(struct plan *p, val a, int64_t len_a, val b, int64_t len_b)
{
    int64_t runs = op_shape(p, a)->ne[0] / len_a, runs_b = op_shape(p, b)->ne[0] / len_b;
    assert((runs_b == runs || runs_b == 1) && op_shape(p, a)->ne[1] == op_shape(p, b)->ne[1]);
    val y = op_rows_like(p, a, runs * (len_a + len_b));
    struct op *op = plan_op(p, OP_JOIN, y, a, b, VAL_NONE);
    op->arg.join.a = len_a;
    op->arg.join.b = len_b;
    return y;
}

val op_add_position(struct plan *p, val x, val table)
{
    assert(op_shape(p, table)->ne[0] == op_shape(p, x)->ne[0]);
    return plain(p, OP_ADD_POSITION, x, table);
}

val op_row_factor(struct plan *p, val x, float scale, float floor_len)
{
    val y = op_like(p, x);
    struct op *op = plan_op(p, OP_ROW_FACTOR, y, x, VAL_NONE, VAL_NONE);
    op->arg.factor.scale = scale;
    op->arg.factor.floor = floor_len;
    return y;
}

/* ---- running ---- */

void op_run_mul(const struct op_run *r, const struct op *op)
{
    int64_t i, n;
    if (op_flat(r, op, &i, &n))
        r->k->mul((float *)op_data(r, op->dst) + i, (float *)op_data(r, op->src[0]) + i, (float *)op_data(r, op->src[1]) + i, n);
}

void op_run_mul_vector(const struct op_run *r, const struct op *op)
{
    int64_t n = op_shape(r->x->plan, op->dst)->ne[0], begin, end;
    const float *x = op_data(r, op->src[0]), *w = op_data(r, op->src[1]);
    float *y = op_data(r, op->dst);
    op_row_range(r, op, &begin, &end);
    for (int64_t i = begin; i < end; i++) r->k->mul(y + i * n, x + i * n, w, n);
}

void op_run_clamp(const struct op_run *r, const struct op *op)
{
    int64_t i, n;
    if (!op_flat(r, op, &i, &n)) return;
    const float *x = (float *)op_data(r, op->src[0]) + i;
    float *y = (float *)op_data(r, op->dst) + i;
    for (int64_t c = 0; c < n; c++) y[c] = fminf(op->arg.clamp.hi, fmaxf(op->arg.clamp.lo, x[c]));
}

static float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }
static float act_silu(float x) { return x * sigmoid(x); }
static float act_gelu_tanh(float x) { return 0.5f * x * (1.0f + tanhf(0.7978845608f * x * (1.0f + 0.044715f * x * x))); }
static float act_gelu_erf(float x) { return 0.5f * x * (1.0f + erff(x * 0.70710678118f)); }
static float act_relu(float x) { return x > 0 ? x : 0; }
static float act_relu_squared(float x) { return x > 0 ? x * x : 0; }
static float act_softplus(float x) { return x > 20.0f ? x : log1pf(expf(x)); }

static float (*const acts[ACT_KINDS])(float) = {
    [ACT_SILU] = act_silu,         [ACT_GELU_TANH] = act_gelu_tanh,       [ACT_GELU_ERF] = act_gelu_erf, [ACT_RELU] = act_relu,
    [ACT_TANH] = tanhf,            [ACT_RELU_SQUARED] = act_relu_squared, [ACT_SIGMOID] = sigmoid,       [ACT_SOFTPLUS] = act_softplus,
};

static void clamped_swish(float *y, const float *g, const float *u, float limit, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        float x = fminf(g[i], limit), up = u ? fminf(limit, fmaxf(-limit, u[i])) + 1.0f : 1.0f;
        y[i] = x * sigmoid(1.702f * x) * up;
    }
}

static void silu(const struct kernels *k, float *y, const float *x, int64_t n)
{
    float ones[256];
    for (int i = 0; i < ARRAY_LEN(ones); i++) ones[i] = 1;
    for (int64_t i = 0; i < n; i += ARRAY_LEN(ones)) k->silu_mul(y + i, x + i, ones, min_i64(ARRAY_LEN(ones), n - i));
}

static void xielu(float *y, const float *x, const float v[4], int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        float bent = x[i] > 0 ? v[0] * x[i] * x[i] : (expm1f(fminf(x[i], v[3])) - x[i]) * v[1];
        y[i] = bent + v[2] * x[i];
    }
}

void op_run_act(const struct op_run *r, const struct op *op)
{
    int64_t at, n;
    if (!op_flat(r, op, &at, &n)) return;
    const float *g = (float *)op_data(r, op->src[0]) + at, *u = op->src[1] == VAL_NONE ? NULL : (float *)op_data(r, op->src[1]) + at;
    float *y = (float *)op_data(r, op->dst) + at;
    if (op->arg.act.act == ACT_CLAMPED_SWISH) {
        clamped_swish(y, g, u, op->arg.act.limit, n);
        return;
    }
    if (op->arg.act.act == ACT_SILU && !u) {
        silu(r->k, y, g, n);
        return;
    }
    if (op->arg.act.act == ACT_XIELU) {
        xielu(y, g, op->arg.act.param, n);
        return;
    }
    float (*act)(float) = acts[op->arg.act.act];
    for (int64_t i = 0; i < n; i++) y[i] = act(g[i]) * (u ? u[i] : 1.0f);
}

void op_run_gate(const struct op_run *r, const struct op *op)
{
    const struct tensor *t = op_shape(r->x->plan, op->dst);
    int64_t runs = op_shape(r->x->plan, op->src[1])->ne[0], len = t->ne[0] / runs, begin, end;
    const float *x = op_data(r, op->src[0]), *g = op_data(r, op->src[1]);
    float *y = op_data(r, op->dst);
    pool_range(t->ne[1] * runs, 1, r->ith, r->nth, &begin, &end);
    for (int64_t i = begin; i < end; i++) r->k->scale(y + i * len, x + i * len, sigmoid(g[i]), len);
}

void op_run_scale_runs(const struct op_run *r, const struct op *op)
{
    const struct tensor *t = op_shape(r->x->plan, op->dst);
    int64_t runs = op_shape(r->x->plan, op->src[1])->ne[0], len = t->ne[0] / runs, begin, end;
    const float *x = op_data(r, op->src[0]), *w = op_data(r, op->src[1]);
    float *y = op_data(r, op->dst);
    pool_range(t->ne[1] * runs, 1, r->ith, r->nth, &begin, &end);
    for (int64_t i = begin; i < end; i++) r->k->scale(y + i * len, x + i * len, w[i % runs], len);
}

void op_run_slice(const struct op_run *r, const struct op *op)
{
    const struct tensor *t = op_shape(r->x->plan, op->dst);
    int64_t width = op->arg.slice.width, n = op->arg.slice.n, begin, end;
    const float *x = (float *)op_data(r, op->src[0]) + op->arg.slice.first;
    float *y = op_data(r, op->dst);
    pool_range(t->ne[1] * (t->ne[0] / n), 1, r->ith, r->nth, &begin, &end);
    for (int64_t i = begin; i < end; i++) memcpy(y + i * n, x + i * width, (size_t)n * sizeof *y);
}

void op_run_join(const struct op_run *r, const struct op *op)
{
    const struct tensor *t = op_shape(r->x->plan, op->dst);
    int64_t na = op->arg.join.a, nb = op->arg.join.b, n = na + nb, runs = t->ne[0] / n, begin, end;
    int64_t share = op_shape(r->x->plan, op->src[1])->ne[0] == nb ? runs : 1; /* runs of a for each run of b */
    const float *a = op_data(r, op->src[0]), *b = op_data(r, op->src[1]);
    float *y = op_data(r, op->dst);
    pool_range(t->ne[1] * runs, 1, r->ith, r->nth, &begin, &end);
    for (int64_t i = begin; i < end; i++) {
        memcpy(y + i * n, a + i * na, (size_t)na * sizeof *y);
        memcpy(y + i * n + na, b + i / share * nb, (size_t)nb * sizeof *y);
    }
}

void op_run_add_position(const struct op_run *r, const struct op *op)
{
    const struct tensor *w = op_shape(r->x->plan, op->src[1]);
    int64_t n = w->ne[0], begin, end;
    const float *x = op_data(r, op->src[0]);
    float *y = op_data(r, op->dst), row[256];
    op_row_range(r, op, &begin, &end);
    for (int64_t i = begin; i < end; i++) {
        int64_t pos = min_i64(r->x->batch->pos[i], w->ne[1] - 1), step = op_is_float(w->type) ? ARRAY_LEN(row) : w->type->block_len;
        const uint8_t *from = (const uint8_t *)w->data + (size_t)pos * w->nb[1];
        for (int64_t c = 0; c < n; c += step) {
            int64_t m = min_i64(step, n - c);
            r->k->to_f32(w->type, from + dtype_row_bytes(w->type, c), row, m);
            r->k->add(y + i * n + c, x + i * n + c, row, m);
        }
    }
}

void op_run_row_factor(const struct op_run *r, const struct op *op)
{
    int64_t n = op_shape(r->x->plan, op->dst)->ne[0], begin, end;
    const float *x = op_data(r, op->src[0]);
    float *y = op_data(r, op->dst);
    op_row_range(r, op, &begin, &end);
    for (int64_t i = begin; i < end; i++) {
        float s = 1 + op->arg.factor.scale * logf(floorf((float)r->x->batch->pos[i] / op->arg.factor.floor) + 1);
        r->k->scale(y + i * n, x + i * n, s, n);
    }
}
