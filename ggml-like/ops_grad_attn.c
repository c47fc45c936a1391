/* ops_grad_attn - the gradients of attention. With P = softmax(S), S = scale q k^T (capped, with ALiBi), y = P v and a given dy:
 *   dP = dy v^T   D = sum(dy y)   dS = P (dP - D)   dv = P^T dy   dq = scale dS k   dk = scale dS^T q
 * A block of QUERIES of one head meets its keys in pieces of KEYS_S, of which exp(S - max) is kept (of several: computed twice, the first time for the sums
 * only), and in those by KEYS: memory does not grow with the square of the length. 1 / sum of a row is a factor of its dy instead of P. S in f32 always, so
 * that P is what the forward pass saw; the other four products in BF16 where matmuls of gradients are. Dao et al. 2022, algorithm 4.
 * A head's keys have their gradients beside the result, from where those of a group are summed in order: no bit depends on who did what. */
#include "ggml-like/ops_grad.h"
#include <math.h>

enum {
    QUERIES = 96, /* a multiple of every tile_tokens */
    KEYS = 256, KEYS_S = 1024,
    AHEAD = 8,    /* rows */
    PANELS = 4,   /* of keys' columns, packed together */
    PAD = 16,     /* floats behind rows, for whole panels and so that rows do not meet in one set of the cache */
    STRIDE = KEYS + PAD, STRIDE_S = KEYS_S + PAD,
};
_Static_assert(KEYS_S % KEYS == 0, "pieces are whole");

static int64_t width_of(const struct attn_spec *s) { return s->n_head * s->head_dim + s->n_head_kv * (s->head_dim + s->head_dim_v); }

val op_attn_grad(struct plan *p, const struct attn_spec *s, val q, val k, val v, val sinks, val y, val dy)
{
    assert(op_shape(p, q)->ne[0] == (int64_t)s->n_head * s->head_dim && s->n_head % s->n_head_kv == 0);
    assert(op_shape(p, k)->ne[0] == (int64_t)s->n_head_kv * s->head_dim && op_shape(p, v)->ne[0] == (int64_t)s->n_head_kv * s->head_dim_v);
    assert(op_shape(p, dy)->ne[0] == (int64_t)s->n_head * s->head_dim_v && op_shape(p, y)->ne[0] == op_shape(p, dy)->ne[0]);
    val d = op_rows_like(p, q, width_of(s));
    int64_t heads = s->n_head > s->n_head_kv ? s->n_head * (s->head_dim + s->head_dim_v) : 0;
    p->val[d].bytes += (size_t)(plan_room(p, op_shape(p, q)->ne[1]) * heads) * sizeof(float);
    struct op *op = plan_op(p, OP_ATTN_GRAD, d, q, k, v);
    val more[] = { sinks, y, dy };
    for (int i = 0; i < ARRAY_LEN(more); i++) {
        op->src[3 + i] = more[i];
        if (more[i] != VAL_NONE) p->val[more[i]].last = p->n_op - 1;
    }
    op_attn_arg(op, s);
    return d;
}

/* ---- one head of one segment ---- */

/* Rows of floats, and where the gradient of each goes. */
struct rows { const float *x; int64_t stride; };
struct sums { float *x; int64_t stride; };

struct head {
    const struct kernels *k;
    enum act_form form;
    int64_t n, window;     /* rows; 0: none */
    int hd, vd, nt;
    float scale, cap, slope, sink;
    bool has_sink;
    struct rows q, key, v, y, dy;
    struct sums dq, dk, dv;
    /* of the block of queries, in the thread's scratch */
    float *s, *dp, *row, *edge;       /* S, then exp(S - max); dP, then dS; a row */
    float *sq, *sdy, *sum;            /* queries times scale; dy / sum; dS k */
    uint8_t *q_acts, *dy_acts;        /* tiles of queries: f32, form */
    uint8_t *q_cols, *dy_cols;        /* their columns as panels */
    uint8_t *acts, *panel;
    float max[QUERIES], d[QUERIES];
};

static size_t columns_step(enum act_form form) { return (size_t)QUERIES * PANEL_ROWS * op_form_bytes(form) + 64; }
static size_t panels_of(int64_t n) { return ((size_t)n + PANEL_ROWS - 1) / PANEL_ROWS; }
static size_t keys_step(const struct head *h) { return (size_t)QUERIES * (size_t)h->nt * op_form_bytes(h->form) + 64; }

/* Carves the scratch, h NULL: only its size. */
static size_t place(struct head *h, uint8_t *base, int64_t hd, int64_t vd)
{
    size_t cols = PANELS * (KEYS * PANEL_ROWS * sizeof(float) + 64);
    size_t key_acts = (size_t)(KEYS + TILE_TOKENS_MAX) * (QUERIES * sizeof(float) + 64), wide = (size_t)max_i64(max_i64(hd, vd), KEYS);
    size_t q = QUERIES * (size_t)hd * sizeof(float), dy = QUERIES * (size_t)vd * sizeof(float);
    size_t bytes[] = { QUERIES * STRIDE_S * sizeof(float), QUERIES * STRIDE * sizeof(float), STRIDE * sizeof(float),
                       PANEL_ROWS * TILE_TOKENS_MAX * sizeof(float), q, dy, q, q, dy,
                       panels_of(hd) * columns_step(ACT_F32), panels_of(vd) * columns_step(ACT_F32), key_acts,
                       panel_bytes((int64_t)wide) > cols ? panel_bytes((int64_t)wide) : cols };
    uint8_t *at[ARRAY_LEN(bytes)];
    size_t n = 0;
    for (int i = 0; i < ARRAY_LEN(bytes); i++) {
        at[i] = base + n;
        n += (bytes[i] + 63) & ~(size_t)63;
    }
    if (!h) return n;
    h->s = (float *)(void *)at[0], h->dp = (float *)(void *)at[1], h->row = (float *)(void *)at[2], h->edge = (float *)(void *)at[3];
    h->sq = (float *)(void *)at[4], h->sdy = (float *)(void *)at[5], h->sum = (float *)(void *)at[6];
    h->q_acts = at[7], h->dy_acts = at[8], h->q_cols = at[9], h->dy_cols = at[10], h->acts = at[11], h->panel = at[12];
    return n;
}

size_t op_attn_grad_bytes(int64_t head_dim_max)
{
    uint8_t base[1];
    return place(NULL, base, head_dim_max, head_dim_max);
}

static struct act_panel acts_at(const struct head *h, uint8_t *data, enum act_form form, int64_t columns)
{
    struct act_panel a = { .k = columns, .n_tokens = QUERIES, .form = form, .data = data };
    a.tile_bytes = (size_t)h->nt * (size_t)(columns + columns % 2) * op_form_bytes(form);
    return a;
}

/* Tiles of the block's queries from m rows of floats. */
static void fill_queries(const struct head *h, struct act_panel *a, const float *x, int64_t stride, int64_t m)
{
    const float *rows[TILE_TOKENS_MAX];
    for (int64_t t = 0; t < m; t += h->nt) {
        int n = (int)min_i64(h->nt, m - t);
        for (int i = 0; i < n; i++) rows[i] = x + (t + i) * stride;
        kernels_fill(h->k, a->form)(h->k, a, t / h->nt, rows, n);
    }
}

static void fill_columns(const struct head *h, uint8_t *to, size_t step, int width, const float *x, int64_t stride, int64_t rows, int64_t n)
{
    for (int64_t i = 0; i < rows; i += 2) op_columns(h->k, h->form, to, step, width, i, x + i * stride, i + 1 < rows ? x + (i + 1) * stride : NULL, n);
}

/* A head's rows lie a page apart or nearly, so that no prefetcher follows. */
static void ask(const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i += 16) __builtin_prefetch(x + i, 0, 3);
}

static struct act_panel q_acts(const struct head *h) { return acts_at(h, h->q_acts, ACT_F32, h->hd); }
static struct act_panel dy_acts(const struct head *h) { return acts_at(h, h->dy_acts, h->form, h->vd); }

static void open_queries(struct head *h, int64_t i0, int64_t m)
{
    struct act_panel a = q_acts(h);
    for (int64_t i = 0; i < m; i++) {
        const float *q = h->q.x + (i0 + i) * h->q.stride;
        ask(q + AHEAD * h->q.stride, h->hd);
        h->k->scale(h->sq + i * h->hd, q, h->scale, h->hd);
    }
    memset(h->sum, 0, (size_t)(m * h->hd) * sizeof(float));
    fill_queries(h, &a, h->sq, h->hd, m);
    fill_columns(h, h->q_cols, columns_step(h->form), PANEL_ROWS, h->sq, h->hd, m, h->hd);
}

/* sum: of the rows of exp(S - max) */
static void open_grads(struct head *h, int64_t i0, int64_t m, const double *sum)
{
    struct act_panel a = dy_acts(h);
    for (int64_t i = 0; i < m; i++) {
        const float *dy = h->dy.x + (i0 + i) * h->dy.stride, *y = h->y.x + (i0 + i) * h->y.stride;
        ask(dy + AHEAD * h->dy.stride, h->vd), ask(y + AHEAD * h->y.stride, h->vd);
        h->k->scale(h->sdy + i * h->vd, dy, (float)(1 / sum[i]), h->vd);
        h->d[i] = h->k->dot(h->sdy + i * h->vd, y, h->vd);
    }
    fill_queries(h, &a, h->sdy, h->vd, m);
    fill_columns(h, h->dy_cols, columns_step(h->form), PANEL_ROWS, h->sdy, h->vd, m, h->vd);
}

/* to[i][j - j0] = queries times keys j0 .. j1 - 1, those that no query of a tile sees left out */
static void multiply_keys(const struct head *h, const struct act_panel *a, struct rows key, int64_t i0, int64_t m, int64_t j0, int64_t j1, float *to,
                          int64_t stride)
{
    const struct dtype *f32 = dtype_by_id(GGUF_F32);
    struct panel p;
    panel_place(&p, h->panel, max_i64(a->k, KEYS));
    for (int64_t j = j0; j < j1; j += PANEL_ROWS) {
        kernels_panel(h->k, a->form)(h->k, &p, f32, a->form, key.x + j * key.stride, (size_t)key.stride * sizeof(float),
                                     (int)min_i64(PANEL_ROWS, j1 - j), 0, a->k);
        for (int64_t t = max_i64(0, (j - i0) / h->nt * h->nt); t < m; t += h->nt)
            kernels_tile(h->k, a->form)(h->k, &p, a, t / h->nt, 0, (int)min_i64(h->nt, m - t), to + t * stride + j - j0, stride, false);
    }
}

/* What row i sees of keys j0 .. j1 - 1. */
static bool seen(const struct head *h, int64_t i, int64_t j0, int64_t j1, int64_t *first, int64_t *n)
{
    *first = max_i64(j0, h->window > 0 ? i - h->window + 1 : 0);
    *n = min_i64(j1, i + 1) - *first;
    return *n > 0;
}

static void add_slope(const struct head *h, float *s, int64_t distance, int64_t n, float sign)
{
    for (int64_t j = 0; j < n && h->slope != 0; j++) s[j] += sign * h->slope * (float)(distance + j);
}

/* S of keys j0 .. j1 - 1, as the softmax takes it. */
static void logits(const struct head *h, int64_t i0, int64_t m, int64_t j0, int64_t j1)
{
    struct act_panel q = q_acts(h);
    multiply_keys(h, &q, h->key, i0, m, j0, j1, h->s, STRIDE_S);
    for (int64_t i = 0, first, n; i < m && (h->cap > 0 || h->slope != 0); i++) {
        if (!seen(h, i0 + i, j0, j1, &first, &n)) continue;
        float *s = h->s + i * STRIDE_S + first - j0;
        if (h->cap > 0) h->k->softcap(s, s, h->cap, n);
        add_slope(h, s, first - i0 - i, n, 1);
    }
}

/* Is there but one piece of keys, of which exp(S - max) stays? The slope of a cap needs S once more. */
static bool in_one(const struct head *h, int64_t keys) { return keys <= KEYS_S && h->cap <= 0; }

/* The largest S of each row and the sum of exp(S - max), over pieces of keys. */
static void softmax_sums(struct head *h, int64_t i0, int64_t m, int64_t lo, int64_t hi, double *sum)
{
    for (int64_t i = 0; i < m; i++) h->max[i] = h->has_sink ? h->sink : -INFINITY, sum[i] = h->has_sink ? 1 : 0;
    for (int64_t j = lo; j < hi; j += KEYS_S) {
        int64_t j1 = min_i64(hi, j + KEYS_S), first, n;
        logits(h, i0, m, j, j1);
        for (int64_t i = 0; i < m; i++) {
            if (!seen(h, i0 + i, j, j1, &first, &n)) continue;
            float *s = h->s + i * STRIDE_S + first - j, top = h->k->max(s, n, NULL), both = top > h->max[i] ? top : h->max[i];
            if (h->max[i] < both) sum[i] *= exp((double)h->max[i] - (double)both);
            sum[i] += h->k->exp_sum(in_one(h, hi - lo) ? s : NULL, s, both, n);
            h->max[i] = both;
        }
    }
}

/* x[0 .. n) but for x[at .. end) becomes 0. */
static void clear_outside(float *x, int64_t at, int64_t end, int64_t n)
{
    memset(x, 0, (size_t)at * sizeof *x);
    memset(x + end, 0, (size_t)(n - end) * sizeof *x);
}

/* dP to dS, of keys j0 .. j1 - 1, s: exp(S - max) or, not `ready`, S; what a row does not see becomes 0. */
static void softmax_grads(struct head *h, int64_t i0, int64_t m, int64_t j0, int64_t j1, float *s, bool ready)
{
    for (int64_t i = 0, first, n; i < m; i++) {
        float *p = s + i * STRIDE_S, *d = h->dp + i * STRIDE;
        bool any = seen(h, i0 + i, j0, j1, &first, &n);
        int64_t at = any ? first - j0 : 0;
        clear_outside(p, at, any ? at + n : 0, j1 - j0), clear_outside(d, at, any ? at + n : 0, j1 - j0);
        if (!any) continue;
        p += at, d += at;
        if (h->cap > 0) { /* (S / cap)^2 */
            memcpy(h->row, p, (size_t)n * sizeof *p);
            add_slope(h, h->row, first - i0 - i, n, -1);
            h->k->scale(h->row, h->row, 1 / h->cap, n);
            h->k->mul(h->row, h->row, h->row, n);
        }
        if (!ready) h->k->exp_sum(p, p, h->max[i], n);
        h->k->mul_sub(d, p, d, h->d[i], n);
        if (h->cap > 0) {
            h->k->mul(h->row, h->row, d, n);
            h->k->axpy(d, h->row, -1, n);
        }
    }
}

/* to[j] += sum_i x[i][j - j0] cols[i], x [m] rows of keys j0 .. j1 - 1, cols the columns of the block's queries or of their dy */
static void add_to_keys(const struct head *h, const float *x, int64_t stride, int64_t i0, int64_t m, int64_t j0, int64_t j1, uint8_t *cols, int64_t dim,
                        struct sums to)
{
    size_t row = op_form_bytes(h->form);
    fill_columns(h, h->acts, keys_step(h), h->nt, x, stride, m, j1 - j0);
    for (int64_t c = 0; c < dim; c += PAIR_ROWS) {
        uint8_t *panel = cols + (size_t)(c / PANEL_ROWS) * columns_step(h->form);
        for (int64_t j = j0; j < j1; j += h->nt) {
            int64_t from = max_i64(0, j - i0) & ~(int64_t)1; /* earlier queries do not see these keys */
            struct op_panels p = { panel + (size_t)from * PANEL_ROWS * row, columns_step(h->form), h->form, m - from };
            struct act_panel a = { .k = m - from, .form = h->form, .tile_bytes = keys_step(h), .data = h->acts + (size_t)(from * h->nt) * row };
            op_tile(h->k, p, &a, (j - j0) / h->nt, 0, (int)min_i64(h->nt, j1 - j), min_i64(PAIR_ROWS, dim - c), to.x + j * to.stride + c, to.stride, true,
                    h->edge);
        }
    }
}

/* sum[i] += sum_j dS[i][j] key[j] */
static void add_to_queries(const struct head *h, int64_t i0, int64_t m, int64_t j0, int64_t j1)
{
    int64_t n = j1 - j0;
    struct act_panel a = acts_at(h, h->acts, h->form, n);
    fill_queries(h, &a, h->dp, STRIDE, m);
    size_t step = (size_t)(KEYS * PANEL_ROWS) * op_form_bytes(h->form) + 64;
    for (int64_t c0 = 0; c0 < h->hd; c0 += PANELS * PANEL_ROWS) {
        int64_t end = min_i64(c0 + PANELS * PANEL_ROWS, h->hd);
        fill_columns(h, h->panel, step, PANEL_ROWS, h->key.x + j0 * h->key.stride + c0, h->key.stride, n, end - c0);
        for (int64_t c = c0; c < end; c += PAIR_ROWS)
            for (int64_t t = 0; t < m; t += h->nt) {
                int tokens = (int)min_i64(h->nt, m - t);
                int64_t nk = min_i64(n, i0 + t + tokens - j0);
                if (nk <= 0) continue;
                struct op_panels p = { h->panel + (size_t)((c - c0) / PANEL_ROWS) * step, step, h->form, nk };
                op_tile(h->k, p, &a, t / h->nt, 0, tokens, min_i64(PAIR_ROWS, end - c), h->sum + t * h->hd + c, h->hd, true, h->edge);
            }
    }
}

static void head_run(struct head *h)
{
    for (int64_t j = 0; j < h->n; j++) {
        memset(h->dk.x + j * h->dk.stride, 0, (size_t)h->hd * sizeof(float));
        memset(h->dv.x + j * h->dv.stride, 0, (size_t)h->vd * sizeof(float));
    }
    for (int64_t i0 = 0; i0 < h->n; i0 += QUERIES) {
        int64_t m = min_i64(QUERIES, h->n - i0), lo = h->window > 0 ? max_i64(0, i0 - h->window + 1) : 0, hi = i0 + m;
        double sum[QUERIES];
        open_queries(h, i0, m);
        softmax_sums(h, i0, m, lo, hi, sum);
        open_grads(h, i0, m, sum);
        struct act_panel dy = dy_acts(h);
        bool ready = in_one(h, hi - lo);
        for (int64_t j = lo; j < hi; j += KEYS_S) {
            int64_t end = min_i64(hi, j + KEYS_S);
            if (!ready) logits(h, i0, m, j, end);
            for (int64_t j0 = j; j0 < end; j0 += KEYS) {
                int64_t j1 = min_i64(end, j0 + KEYS);
                multiply_keys(h, &dy, h->v, i0, m, j0, j1, h->dp, STRIDE);
                softmax_grads(h, i0, m, j0, j1, h->s + (j0 - j), ready);
                add_to_keys(h, h->s + (j0 - j), STRIDE_S, i0, m, j0, j1, h->dy_cols, h->vd, h->dv);
                add_to_keys(h, h->dp, STRIDE, i0, m, j0, j1, h->q_cols, h->hd, h->dk);
                add_to_queries(h, i0, m, j0, j1);
            }
        }
        for (int64_t i = 0; i < m; i++) {
            ask(h->dq.x + (i0 + i + AHEAD) * h->dq.stride, h->hd);
            h->k->scale(h->dq.x + (i0 + i) * h->dq.stride, h->sum + i * h->hd, h->scale, h->hd);
        }
    }
}

/* ---- all heads ---- */

/* Where the gradients of a head's keys and values go: into the result, or beside it where several heads share them. */
struct results { float *y, *heads; int64_t width, rows; };

static struct results results_of(const struct op_run *r, const struct op *op)
{
    const struct value *d = &r->x->plan->val[op->dst];
    float *y = op_data(r, op->dst);
    return (struct results){ y, y + d->t.ne[0] * plan_room(r->x->plan, d->t.ne[1]), d->t.ne[0], d->t.ne[1] };
}

/* dk [head][row][hd], then dv */
static void head_sums(const struct op *op, const struct results *d, int64_t head, int64_t row, struct sums *dk, struct sums *dv)
{
    int64_t hd = op->arg.attn.head_dim, vd = op->arg.attn.head_dim_v, n_head = op->arg.attn.n_head, n_kv = op->arg.attn.n_head_kv;
    if (n_head == n_kv) {
        *dk = (struct sums){ d->y + row * d->width + n_head * hd + head * hd, d->width };
        *dv = (struct sums){ d->y + row * d->width + 2 * n_head * hd + head * vd, d->width };
        return;
    }
    *dk = (struct sums){ d->heads + (head * d->rows + row) * hd, hd };
    *dv = (struct sums){ d->heads + n_head * d->rows * hd + (head * d->rows + row) * vd, vd };
}

static void head_open(const struct op_run *r, const struct op *op, const struct batch_segment *seg, int32_t head, struct head *h)
{
    int hd = op->arg.attn.head_dim, vd = op->arg.attn.head_dim_v;
    int64_t n_head = op->arg.attn.n_head, n_kv = op->arg.attn.n_head_kv, kv = head / (n_head / n_kv), row = seg->row;
    const float *x[ARRAY_LEN(op->src)] = { NULL };
    for (int i = 0; i < ARRAY_LEN(x); i++)
        if (op->src[i] != VAL_NONE) x[i] = op_data(r, op->src[i]);
    assert(seg->pos == 0);
    *h = (struct head){
        .k = r->k, .form = op_grad_form(r->x->plan), .n = seg->n, .window = op->arg.attn.window, .hd = hd, .vd = vd, .nt = r->k->tile_tokens,
        .scale = op->arg.attn.scale, .cap = op->arg.attn.cap, .has_sink = x[3] != NULL, .sink = x[3] ? x[3][head] : 0,
        .slope = op->arg.attn.alibi > 0 ? op_alibi_slope(op->arg.attn.alibi, (int32_t)n_head, head) : 0,
        .q = { x[0] + (row * n_head + head) * hd, n_head * hd },
        .key = { x[1] + (row * n_kv + kv) * hd, n_kv * hd },
        .v = { x[2] + (row * n_kv + kv) * vd, n_kv * vd },
        .y = { x[4] + (row * n_head + head) * vd, n_head * vd },
        .dy = { x[5] + (row * n_head + head) * vd, n_head * vd },
    };
    struct results d = results_of(r, op);
    h->dq = (struct sums){ d.y + row * d.width + head * hd, d.width };
    head_sums(op, &d, head, row, &h->dk, &h->dv);
    (void)place(h, r->scratch, hd, vd);
}

static void sum_group(const struct op_run *r, const struct op *op, const struct results *d, int64_t row)
{
    int64_t hd = op->arg.attn.head_dim, vd = op->arg.attn.head_dim_v, n_head = op->arg.attn.n_head, n_kv = op->arg.attn.n_head_kv;
    float *dk = d->y + row * d->width + n_head * hd, *dv = dk + n_kv * hd;
    for (int64_t h = 0; h < n_head; h++) {
        int64_t kv = h / (n_head / n_kv);
        struct sums k, v;
        head_sums(op, d, h, row, &k, &v);
        if (h % (n_head / n_kv) == 0) {
            memcpy(dk + kv * hd, k.x, (size_t)hd * sizeof *dk);
            memcpy(dv + kv * vd, v.x, (size_t)vd * sizeof *dv);
            continue;
        }
        r->k->add(dk + kv * hd, dk + kv * hd, k.x, hd);
        r->k->add(dv + kv * vd, dv + kv * vd, v.x, vd);
    }
}

void op_run_attn_grad(const struct op_run *r, const struct op *op)
{
    const struct batch *b = r->x->batch;
    int64_t n_head = op->arg.attn.n_head, begin, end;
    assert(r->x->thread_bytes >= op_attn_grad_bytes(max_i64(op->arg.attn.head_dim, op->arg.attn.head_dim_v)));
    for (int64_t i; op_take(r, b->n_seg * n_head, 1, &i, &end);) {
        struct head h;
        head_open(r, op, &b->seg[i / n_head], (int32_t)(i % n_head), &h);
        head_run(&h);
    }
    if (n_head == op->arg.attn.n_head_kv) return;
    struct results d = results_of(r, op);
    pool_barrier(r->x->pool);
    pool_range(d.rows, 1, r->ith, r->nth, &begin, &end);
    for (int64_t row = begin; row < end; row++) sum_group(r, op, &d, row);
}
