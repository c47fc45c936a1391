/* ops_grad - what backward passes need besides the ops of forward ones: derivatives of norms and bends, and gathers turned round. Sums over rows belong
 * to columns, which belong to threads: their order is that of the rows. */
#include "ggml-like/ops_moe.h"

/* ---- recording ---- */

val op_norm_grad(struct plan *p, enum norm_form form, val dy, val x, val w, float eps, int64_t dim)
{
    val dx = op_like(p, x);
    struct op *op = plan_op(p, OP_NORM_GRAD, dx, dy, x, w);
    op->arg.norm.eps = eps;
    op->arg.norm.dim = dim;
    op->arg.norm.form = form;
    return dx;
}

val op_act_grad(struct plan *p, int act, val dy, val x, val up, float limit, const float param[4])
{
    val dx = op_like(p, x);
    struct op *op = plan_op(p, OP_ACT_GRAD, dx, dy, x, up);
    op->arg.act.act = (enum act)act;
    op->arg.act.limit = limit;
    for (int i = 0; i < 4; i++) op->arg.act.param[i] = param ? param[i] : 0;
    return dx;
}

val op_gate_grad(struct plan *p, val dy, val x, val g)
{
    val dg = op_like(p, g);
    plan_op(p, OP_GATE_GRAD, dg, dy, x, g);
    return dg;
}

val op_rows_grad(struct plan *p, val dy)
{
    val dx = plan_temp(p, op_shape(p, dy)->ne[0], p->n_rows);
    plan_op(p, OP_ROWS_GRAD, dx, dy, VAL_NONE, VAL_NONE);
    return dx;
}

val op_cols_grad(struct plan *p, val dy, val index, int64_t n)
{
    val dx = op_rows_like(p, dy, n);
    plan_op(p, OP_COLS_GRAD, dx, dy, index, VAL_NONE);
    return dx;
}

val op_slice_grad(struct plan *p, val dy, int64_t width, int64_t first, int64_t n)
{
    val dx = op_rows_like(p, dy, op_shape(p, dy)->ne[0] / n * width);
    struct op *op = plan_op(p, OP_SLICE_GRAD, dx, dy, VAL_NONE, VAL_NONE);
    op->arg.slice.width = width;
    op->arg.slice.first = first;
    op->arg.slice.n = n;
    return dx;
}

val op_sum_runs(struct plan *p, val x, int64_t len)
{
    assert(op_shape(p, x)->ne[0] % len == 0);
    val y = op_rows_like(p, x, len);
    plan_op(p, OP_SUM_RUNS, y, x, VAL_NONE, VAL_NONE);
    return y;
}

void op_sum_rows(struct plan *p, val a, val b, val to, int64_t len)
{
    assert(tensor_elements(op_shape(p, a)) % (tensor_elements(op_shape(p, to)) * len) == 0);
    plan_op(p, OP_SUM_ROWS, VAL_NONE, a, b, to)->arg.sum.len = len;
}

void op_scatter(struct plan *p, val dy, val to, bool position)
{
    assert(op_shape(p, dy)->ne[0] == op_shape(p, to)->ne[0]);
    plan_op(p, OP_SCATTER, VAL_NONE, dy, to, VAL_NONE)->arg.scatter.position = position;
}

void op_moe_scatter(struct plan *p, val dy, val route, val to)
{
    assert(p->val[dy].sorted && op_shape(p, dy)->ne[0] == op_shape(p, to)->ne[0]);
    plan_op(p, OP_SCATTER, VAL_NONE, dy, route, to);
}

/* ---- norms ---- */

/* g = dy w, of which dx is a multiple plus a multiple of x: r g - x r^3 (g x) / n. `n` of l2: 1. */
static void rms_run(const struct kernels *k, float *dx, const float *dy, const float *x, const float *w, int64_t dim, float eps, float n)
{
    if (w) k->mul(dx, dy, w, dim);
    else if (dx != dy) memcpy(dx, dy, (size_t)dim * sizeof *dx);
    float r = 1 / sqrtf(k->dot(x, x, dim) / n + eps), c = -r * r * r * k->dot(dx, x, dim) / n;
    k->scale(dx, dx, r, dim);
    k->axpy(dx, x, c, dim);
}

/* dx = r (g - mean g - xhat mean(g xhat)), xhat = (x - m) r */
static void layer_run(float *dx, const float *dy, const float *x, const float *w, int64_t dim, float eps)
{
    double sum = 0, square = 0, g_sum = 0, g_x = 0;
    for (int64_t c = 0; c < dim; c++) sum += (double)x[c];
    double m = sum / (double)dim;
    for (int64_t c = 0; c < dim; c++) square += ((double)x[c] - m) * ((double)x[c] - m);
    double r = 1 / sqrt(square / (double)dim + (double)eps);
    for (int64_t c = 0; c < dim; c++) {
        double g = (double)(dy[c] * (w ? w[c] : 1.0f));
        g_sum += g;
        g_x += g * ((double)x[c] - m);
    }
    float inv = (float)r, mean = (float)m, a = (float)(g_sum / (double)dim), b = (float)(g_x * r * r / (double)dim);
    for (int64_t c = 0; c < dim; c++) dx[c] = inv * (dy[c] * (w ? w[c] : 1.0f) - a - (x[c] - mean) * b);
}

void op_run_norm_grad(const struct op_run *r, const struct op *op)
{
    const struct tensor *t = op_shape(r->x->plan, op->dst);
    const float *dy = op_data(r, op->src[0]), *x = op_data(r, op->src[1]);
    float *dx = op_data(r, op->dst), eps = op->arg.norm.eps;
    int64_t dim = op->arg.norm.dim, begin, end;
    pool_range(t->ne[0] / dim * t->ne[1], 1, r->ith, r->nth, &begin, &end);
    for (int64_t i = begin; i < end; i++) {
        const float *w = op_part_of(r, op->src[2], i, dim);
        if (op->arg.norm.form == NORM_LAYER) layer_run(dx + i * dim, dy + i * dim, x + i * dim, w, dim, eps);
        else rms_run(r->k, dx + i * dim, dy + i * dim, x + i * dim, w, dim, eps, op->arg.norm.form == NORM_RMS ? (float)dim : 1);
    }
}

/* ---- bends ---- */

/* Derivatives of SPAN values at a time; exponentials through the table of kernels, which has SiLU's and GELU's whole. */
enum { SPAN = 256 };
struct bend_arg {
    const struct kernels *k;
    float limit;
    const float *param;
};

/* s = sigmoid(a x), t = 1 - s, neither rounded to zero early */
static void logistic(const struct kernels *k, float *restrict s, float *restrict t, const float *restrict x, float a)
{
    float e[SPAN];
    for (int i = 0; i < SPAN; i++) e[i] = -fabsf(a * x[i]);
    k->exp_sum(e, e, 0, SPAN);
    for (int i = 0; i < SPAN; i++) {
        float high = 1 / (1 + e[i]), low = e[i] / (1 + e[i]);
        bool up = a * x[i] >= 0;
        s[i] = up ? high : low;
        t[i] = up ? low : high;
    }
}

static void d_sigmoid(const struct bend_arg *b, float *d, const float *x, const float *up)
{
    float s[SPAN], t[SPAN];
    logistic(b->k, s, t, x, 1);
    for (int i = 0; i < SPAN; i++) d[i] = s[i] * t[i];
}

static void d_softplus(const struct bend_arg *b, float *d, const float *x, const float *up)
{
    float t[SPAN];
    logistic(b->k, d, t, x, 1);
}

static void d_tanh(const struct bend_arg *b, float *d, const float *x, const float *up) /* tanh = 2 sigmoid(2x) - 1 */
{
    float s[SPAN], t[SPAN];
    logistic(b->k, s, t, x, 2);
    for (int i = 0; i < SPAN; i++) d[i] = 4 * s[i] * t[i];
}

static void d_softcap(const struct bend_arg *b, float *d, const float *x, const float *up)
{
    float s[SPAN], t[SPAN];
    logistic(b->k, s, t, x, 2 / b->limit);
    for (int i = 0; i < SPAN; i++) d[i] = 4 * s[i] * t[i];
}

static void d_gelu_erf(const struct bend_arg *b, float *d, const float *x, const float *up)
{
    for (int i = 0; i < SPAN; i++) d[i] = 0.5f * (1 + erff(x[i] * 0.70710678118f)) + x[i] * 0.39894228040f * expf(-0.5f * x[i] * x[i]);
}

static void d_relu(const struct bend_arg *b, float *d, const float *x, const float *up)
{
    for (int i = 0; i < SPAN; i++) d[i] = x[i] > 0 ? 1.0f : 0.0f;
}

static void d_relu_squared(const struct bend_arg *b, float *d, const float *x, const float *up)
{
    for (int i = 0; i < SPAN; i++) d[i] = x[i] > 0 ? 2 * x[i] : 0.0f;
}

static void d_xielu(const struct bend_arg *b, float *d, const float *x, const float *up)
{
    const float *v = b->param;
    for (int i = 0; i < SPAN; i++) {
        float bent = x[i] > 0 ? 2 * v[0] * x[i] : ((x[i] < v[3] ? expf(x[i]) : 0.0f) - 1) * v[1];
        d[i] = bent + v[2];
    }
}

static void d_clamp(const struct bend_arg *b, float *d, const float *x, const float *up)
{
    for (int i = 0; i < SPAN; i++) d[i] = x[i] > b->param[0] && x[i] < b->param[1] ? 1.0f : 0.0f;
}

static void d_clamped_swish(const struct bend_arg *b, float *d, const float *x, const float *up)
{
    const float a = 1.702f;
    float s[SPAN], t[SPAN];
    logistic(b->k, s, t, x, a);
    for (int i = 0; i < SPAN; i++) d[i] = x[i] < b->limit ? s[i] + a * x[i] * s[i] * t[i] : 0.0f;
}

static void d_clamped_up(const struct bend_arg *b, float *d, const float *x, const float *up)
{
    float s[SPAN], t[SPAN], y[SPAN];
    for (int i = 0; i < SPAN; i++) y[i] = fminf(x[i], b->limit);
    logistic(b->k, s, t, y, 1.702f);
    for (int i = 0; i < SPAN; i++) d[i] = fabsf(up[i]) < b->limit ? y[i] * s[i] : 0.0f;
}

static void (*const bends[BEND_KINDS])(const struct bend_arg *b, float *d, const float *x, const float *up) = {
    [ACT_GELU_ERF] = d_gelu_erf, [ACT_RELU] = d_relu,         [ACT_RELU_SQUARED] = d_relu_squared,   [ACT_SIGMOID] = d_sigmoid,
    [ACT_TANH] = d_tanh,         [ACT_SOFTPLUS] = d_softplus, [ACT_XIELU] = d_xielu,                 [ACT_CLAMPED_SWISH] = d_clamped_swish,
    [BEND_SOFTCAP] = d_softcap,  [BEND_CLAMP] = d_clamp,      [BEND_CLAMPED_UP] = d_clamped_up,
};

static void fast_grad(const struct kernels *k, int act, float *dx, const float *dy, const float *x, const float *up, int64_t n)
{
    float u[SPAN];
    for (int64_t i = 0; i < n; i += SPAN) {
        int64_t m = min_i64(SPAN, n - i);
        if (up) k->mul(u, dy + i, up + i, m);
        (act == ACT_SILU ? k->silu_grad : k->gelu_grad)(dx + i, x + i, up ? u : dy + i, m);
    }
}

void op_run_act_grad(const struct op_run *r, const struct op *op)
{
    int64_t at, n;
    if (!op_flat(r, op, &at, &n)) return;
    int act = (int)op->arg.act.act;
    struct bend_arg b = { r->k, op->arg.act.limit, op->arg.act.param };
    const float *dy = (float *)op_data(r, op->src[0]) + at, *x = (float *)op_data(r, op->src[1]) + at;
    const float *up = op->src[2] == VAL_NONE ? NULL : (float *)op_data(r, op->src[2]) + at;
    float *dx = (float *)op_data(r, op->dst) + at, d[SPAN], in[SPAN], in_up[SPAN];
    if (act == ACT_SILU || act == ACT_GELU_TANH) {
        fast_grad(r->k, act, dx, dy, x, up, n);
        return;
    }
    for (int64_t i = 0; i < n; i += SPAN) {
        int64_t m = min_i64(SPAN, n - i);
        for (int64_t c = 0; c < SPAN; c++) in[c] = c < m ? x[i + c] : 0, in_up[c] = up && c < m ? up[i + c] : 0;
        bends[act](&b, d, in, in_up);
        if (act == ACT_CLAMPED_SWISH)
            for (int c = 0; c < SPAN; c++) d[c] *= up ? fminf(b.limit, fmaxf(-b.limit, in_up[c])) + 1 : 1;
        else if (up && act != BEND_CLAMPED_UP)
            r->k->mul(d, d, in_up, m);
        r->k->mul(dx + i, dy + i, d, m);
    }
}

void op_run_gate_grad(const struct op_run *r, const struct op *op)
{
    const struct tensor *t = op_shape(r->x->plan, op->dst);
    int64_t n = tensor_elements(t), len = op_shape(r->x->plan, op->src[1])->ne[0] / t->ne[0], begin, end;
    const float *dy = op_data(r, op->src[0]), *x = op_data(r, op->src[1]), *g = op_data(r, op->src[2]);
    float *dg = op_data(r, op->dst);
    pool_range(n, 16, r->ith, r->nth, &begin, &end);
    for (int64_t i = begin; i < end; i++) {
        float e = expf(-fabsf(g[i]));
        dg[i] = e / ((1 + e) * (1 + e)) * r->k->dot(dy + i * len, x + i * len, len);
    }
}

/* ---- rows and columns ---- */

/* batch->out rises. */
void op_run_rows_grad(const struct op_run *r, const struct op *op)
{
    const struct tensor *t = op_shape(r->x->plan, op->dst);
    const float *dy = op_data(r, op->src[0]);
    float *dx = op_data(r, op->dst);
    int64_t begin, end, j = 0, n = op_shape(r->x->plan, op->src[0])->ne[1];
    op_row_range(r, op, &begin, &end);
    for (int64_t i = begin; i < end; i++) {
        while (j < n && r->x->batch->out[j] < i) j++;
        if (j < n && r->x->batch->out[j] == i) memcpy(dx + i * t->ne[0], dy + j * t->ne[0], t->nb[1]);
        else memset(dx + i * t->ne[0], 0, t->nb[1]);
    }
}

void op_run_cols_grad(const struct op_run *r, const struct op *op)
{
    const struct tensor *t = op_shape(r->x->plan, op->dst);
    int64_t n = op_shape(r->x->plan, op->src[0])->ne[0], begin, end;
    const float *dy = op_data(r, op->src[0]);
    const int32_t *index = op_data(r, op->src[1]);
    float *dx = op_data(r, op->dst);
    op_row_range(r, op, &begin, &end);
    for (int64_t i = begin; i < end; i++) {
        memset(dx + i * t->ne[0], 0, t->nb[1]);
        for (int64_t j = 0; j < n; j++) dx[i * t->ne[0] + index[j]] += dy[i * n + j];
    }
}

void op_run_slice_grad(const struct op_run *r, const struct op *op)
{
    const struct tensor *t = op_shape(r->x->plan, op->dst);
    int64_t width = op->arg.slice.width, first = op->arg.slice.first, n = op->arg.slice.n, begin, end;
    const float *dy = op_data(r, op->src[0]);
    float *dx = op_data(r, op->dst);
    pool_range(t->ne[1] * (t->ne[0] / width), 1, r->ith, r->nth, &begin, &end);
    for (int64_t i = begin; i < end; i++) {
        memset(dx + i * width, 0, (size_t)first * sizeof *dx);
        memcpy(dx + i * width + first, dy + i * n, (size_t)n * sizeof *dx);
        memset(dx + i * width + first + n, 0, (size_t)(width - first - n) * sizeof *dx);
    }
}

void op_run_sum_runs(const struct op_run *r, const struct op *op)
{
    int64_t n = op_shape(r->x->plan, op->dst)->ne[0], runs = op_shape(r->x->plan, op->src[0])->ne[0] / n, begin, end;
    const float *x = op_data(r, op->src[0]);
    float *y = op_data(r, op->dst);
    op_row_range(r, op, &begin, &end);
    for (int64_t i = begin; i < end; i++) {
        memcpy(y + i * n, x + i * runs * n, (size_t)n * sizeof *y);
        for (int64_t j = 1; j < runs; j++) r->k->add(y + i * n, y + i * n, x + (i * runs + j) * n, n);
    }
}

/* COLUMNS columns at a time, over all rows in double. */
enum { COLUMNS = 64 };
void op_run_sum_rows(const struct op_run *r, const struct op *op)
{
    int64_t all = tensor_elements(op_shape(r->x->plan, op->src[0])), n = tensor_elements(op_shape(r->x->plan, op->src[2])), len = op->arg.sum.len;
    const float *a = op_data(r, op->src[0]), *b = op->src[1] == VAL_NONE ? NULL : op_data(r, op->src[1]);
    float *to = op_data(r, op->src[2]);
    int64_t begin, end;
    pool_range(n * len, len > 1 ? len : COLUMNS, r->ith, r->nth, &begin, &end);
    for (int64_t c = begin, m; c < end; c += m) {
        double sum[COLUMNS] = { 0 };
        m = min_i64(COLUMNS, end - c);
        if (len > 1) m = min_i64(m, len - c % len); /* within one run */
        for (int64_t i = c; i < all; i += n * len)
            for (int64_t j = 0; j < m; j++) sum[j] += (double)(b ? a[i + j] * b[i + j] : a[i + j]);
        for (int64_t j = 0; j < m; j++) to[(c + j) / len] += (float)sum[j];
    }
}

void op_run_scatter(const struct op_run *r, const struct op *op)
{
    bool routed = op->src[2] != VAL_NONE;
    val place = op->src[routed ? 2 : 1];
    const struct tensor *t = op_shape(r->x->plan, place);
    const struct batch *batch = r->x->batch;
    const int32_t *index = routed ? op_route_of(r, op->src[1]).id : op->arg.scatter.position ? batch->pos : batch->token;
    int64_t rows = op_shape(r->x->plan, op->src[0])->ne[1], n = t->ne[0], begin, end;
    const float *dy = op_data(r, op->src[0]);
    float *to = op_data(r, place);
    pool_range(n, COLUMNS, r->ith, r->nth, &begin, &end);
    if (begin == end) return;
    for (int64_t i = 0; i < rows; i++) {
        int64_t row = min_i64(index[i], t->ne[1] - 1); /* positions past the end have the last one's */
        r->k->add(to + row * n + begin, to + row * n + begin, dy + i * n + begin, end - begin);
    }
}
