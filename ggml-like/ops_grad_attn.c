/* ops_grad_attn - attention of whole sequences, as training runs it, and its gradients. With P = softmax(S), S = scale q k^T (capped, with
 * ALiBi), y = P v and a given dy:
 *   dP = dy v^T   D = sum(dy y)   dS = P (dP - D)   dv = P^T dy   dq = scale dS k   dk = scale dS^T q
 * Forward, a block of QUERIES of a head meets its keys KEYS at a time; what is summed follows the largest S so far, and ln sum exp(S) of each row stays
 * for the way back. There a part of a head's keys meets, KEYS at a time, the queries that see them: P = exp(S - that). Memory does not grow with the square
 * of the length. S in f32 always: of BF16, gradients are off by 6e-3 of their size instead of 2e-3. P v in f32 too: of BF16, losses are 1e-3 off those
 * of engines. The gradients' other products in BF16 where matmuls of gradients are. Dao et al. 2022, algorithm 4; Dao 2023, section 3.
 * A head's keys have their gradients beside the result, from where those of a group are summed in order, and so have queries those of each part: no bit
 * depends on who did what. */
#include "ggml-like/ops_grad.h"
#include <math.h>

enum {
    QUERIES = 96, /* a multiple of every tile_tokens */
    KEYS = 256,
    PARTS = 4,    /* of a head's keys, at most */
    AHEAD = 8,    /* rows */
    STRIDE = KEYS + 16, /* floats: rows do not meet in one set of the cache */
};

static int64_t width_of(const struct attn_spec *s) { return s->n_head * s->head_dim + s->n_head_kv * (s->head_dim + s->head_dim_v); }
static int64_t chunks_of(int64_t n) { return (n + KEYS - 1) / KEYS; }
static int64_t parts_of(int64_t n) { return min_i64(PARTS, chunks_of(n)); }
static int64_t part_keys(int64_t n) { return (chunks_of(n) + parts_of(n) - 1) / parts_of(n) * KEYS; }

/* What stands behind the result: ln sum exp(S) [rows][n_head] */
static size_t sums_bytes(int32_t n_head, int64_t room) { return ((size_t)n_head * (size_t)room * sizeof(float) + 63) & ~(size_t)63; }

static void make_whole(struct plan *p, struct op *op, val k, val v)
{
    struct value *y = &p->val[op->dst];
    op->kind = OP_ATTN_WHOLE;
    op->src[2] = k, op->src[3] = v;
    y->bytes += sums_bytes(op->arg.attn.n_head, plan_room(p, y->t.ne[1]));
}

void op_attn_make_whole(struct plan *p)
{
    for (int32_t i = 0; i < p->n_op; i++) {
        int32_t at = i - 1;
        if (p->op[i].kind != OP_ATTN) continue;
        while (at >= 0 && !(p->op[at].kind == OP_KV_STORE && p->op[at].arg.store.il == p->op[i].arg.attn.il)) at--;
        if (at >= 0) make_whole(p, &p->op[i], p->op[at].src[0], p->op[at].src[1]);
    }
    plan_relink(p);
}

val op_attn_whole(struct plan *p, const struct attn_spec *s, val q, val k, val v, val sinks)
{
    val y = op_rows_like(p, q, (int64_t)s->n_head * s->head_dim_v);
    struct op *op = plan_op(p, OP_ATTN_WHOLE, y, q, sinks, k);
    op_attn_arg(op, s);
    if (v != VAL_NONE) p->val[v].last = p->n_op - 1;
    make_whole(p, op, k, v);
    return y;
}

val op_attn_grad(struct plan *p, const struct attn_spec *s, val q, val k, val v, val y, val dy)
{
    assert(op_shape(p, q)->ne[0] == (int64_t)s->n_head * s->head_dim && s->n_head % s->n_head_kv == 0);
    assert(op_shape(p, k)->ne[0] == (int64_t)s->n_head_kv * s->head_dim);
    assert(op_shape(p, dy)->ne[0] == (int64_t)s->n_head * s->head_dim_v && op_shape(p, y)->ne[0] == op_shape(p, dy)->ne[0]);
    val d = op_rows_like(p, q, width_of(s));
    int64_t room = plan_room(p, op_shape(p, q)->ne[1]), heads = s->n_head > s->n_head_kv ? s->n_head * (s->head_dim + s->head_dim_v) : 0;
    p->val[d].bytes += (size_t)(room * (heads + (parts_of(room) - 1) * s->n_head * s->head_dim)) * sizeof(float);
    struct op *op = plan_op(p, OP_ATTN_GRAD, d, q, VAL_NONE, k);
    val more[] = { v, y, dy };
    for (int i = 0; i < ARRAY_LEN(more); i++) {
        op->src[3 + i] = more[i];
        if (more[i] != VAL_NONE) p->val[more[i]].last = p->n_op - 1;
    }
    op_attn_arg(op, s);
    return d;
}

/* ---- one head of one segment ---- */

/* Rows of floats, and where results go. */
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
    struct sums out, dq, dk, dv;
    struct sums lse;       /* a float each row */
    /* in the thread's scratch: of a block of queries, and of KEYS keys */
    float *s, *dp, *row, *edge;       /* S, then P; dP, then dS; a row */
    float *sq, *sum;                  /* queries times scale; P v so far */
    uint8_t *q_acts, *dy_acts;        /* tiles of queries */
    uint8_t *q_cols, *dy_cols;        /* their columns as panels */
    uint8_t *key_rows, *v_rows, *cols; /* panels of keys; their columns */
    uint8_t *acts;
    float d[QUERIES];
};

static size_t columns_step(enum act_form form) { return (size_t)QUERIES * PANEL_ROWS * op_form_bytes(form) + 64; }
static size_t cols_step(enum act_form form) { return (size_t)KEYS * PANEL_ROWS * op_form_bytes(form) + 64; }
static size_t rows_step(enum act_form form, int64_t dim) { return ((size_t)dim + 31) / 32 * 32 * PANEL_ROWS * op_form_bytes(form) + 64; }
static size_t panels_of(int64_t n) { return ((size_t)n + PANEL_ROWS - 1) / PANEL_ROWS; }
static size_t keys_step(const struct head *h) { return (size_t)QUERIES * (size_t)h->nt * op_form_bytes(h->form) + 64; }

/* Carves the scratch, h NULL: only its size. */
static size_t place(struct head *h, uint8_t *base, int64_t hd, int64_t vd)
{
    size_t key_acts = (size_t)(KEYS + TILE_TOKENS_MAX) * (QUERIES * sizeof(float) + 64), q = QUERIES * (size_t)hd * sizeof(float);
    size_t dy = QUERIES * (size_t)vd * sizeof(float), block = QUERIES * STRIDE * sizeof(float);
    size_t bytes[] = { block, block, STRIDE * sizeof(float), PANEL_ROWS * TILE_TOKENS_MAX * sizeof(float), q, dy, q, dy,
                       panels_of(hd) * columns_step(ACT_F32), panels_of(vd) * columns_step(ACT_F32),
                       KEYS / PANEL_ROWS * rows_step(ACT_F32, hd), KEYS / PANEL_ROWS * rows_step(ACT_F32, vd),
                       panels_of(max_i64(hd, vd)) * cols_step(ACT_F32), key_acts };
    uint8_t *at[ARRAY_LEN(bytes)];
    size_t n = 0;
    for (int i = 0; i < ARRAY_LEN(bytes); i++) {
        at[i] = base + n;
        n += (bytes[i] + 63) & ~(size_t)63;
    }
    if (!h) return n;
    h->s = (float *)(void *)at[0], h->dp = (float *)(void *)at[1], h->row = (float *)(void *)at[2], h->edge = (float *)(void *)at[3];
    h->sq = (float *)(void *)at[4], h->sum = (float *)(void *)at[5];
    h->q_acts = at[6], h->dy_acts = at[7], h->q_cols = at[8], h->dy_cols = at[9], h->key_rows = at[10], h->v_rows = at[11], h->cols = at[12];
    h->acts = at[13];
    return n;
}

size_t op_attn_grad_bytes(int64_t head_dim_max)
{
    uint8_t base[1];
    return place(NULL, base, head_dim_max, head_dim_max);
}

/* Tiles of the block's queries from m rows of floats. */
static struct act_panel fill_queries(const struct head *h, enum act_form form, uint8_t *to, int64_t columns, struct rows x, int64_t m)
{
    struct act_panel a = { .k = columns, .n_tokens = QUERIES, .form = form, .data = to };
    a.tile_bytes = (size_t)h->nt * (size_t)(columns + columns % 2) * op_form_bytes(form);
    const float *rows[TILE_TOKENS_MAX];
    for (int64_t t = 0; t < m; t += h->nt) {
        int n = (int)min_i64(h->nt, m - t);
        for (int i = 0; i < n; i++) rows[i] = x.x + (t + i) * x.stride;
        kernels_fill(h->k, form)(h->k, &a, t / h->nt, rows, n);
    }
    return a;
}

static void fill_columns(const struct head *h, uint8_t *to, size_t step, int width, struct rows x, int64_t rows, int64_t n)
{
    for (int64_t i = 0; i < rows; i += 2)
        op_columns(h->k, h->form, to, step, width, i, x.x + i * x.stride, i + 1 < rows ? x.x + (i + 1) * x.stride : NULL, n);
}

/* Panels of n rows. */
static void fill_rows(const struct head *h, enum act_form form, uint8_t *to, int64_t dim, struct rows x, int64_t n)
{
    struct panel p;
    for (int64_t j = 0; j < n; j += PANEL_ROWS, to += rows_step(form, dim)) {
        p = (struct panel){ .code = (int8_t *)to, .f32 = (float *)(void *)to, .bf16 = (uint16_t *)(void *)to };
        kernels_panel(h->k, form)(h->k, &p, dtype_by_id(GGUF_F32), form, x.x + j * x.stride, (size_t)x.stride * sizeof(float),
                                  (int)min_i64(PANEL_ROWS, n - j), 0, dim);
    }
}

/* A head's rows lie a page apart or nearly, so that no prefetcher follows. */
static void ask(struct rows x, int64_t row, int64_t n)
{
    for (int64_t i = 0; i < n; i += 16) __builtin_prefetch(x.x + (row + AHEAD) * x.stride + i, 0, 3);
}

static struct rows rows_at(struct rows x, int64_t row) { return (struct rows){ x.x + row * x.stride, x.stride }; }

static struct act_panel open_queries(struct head *h, int64_t i0, int64_t m)
{
    for (int64_t i = 0; i < m; i++) {
        ask(h->q, i0 + i, h->hd);
        h->k->scale(h->sq + i * h->hd, h->q.x + (i0 + i) * h->q.stride, h->scale, h->hd);
    }
    return fill_queries(h, ACT_F32, h->q_acts, h->hd, (struct rows){ h->sq, h->hd }, m);
}

static struct act_panel open_grads(struct head *h, int64_t i0, int64_t m)
{
    for (int64_t i = 0; i < m; i++) {
        ask(h->dy, i0 + i, h->vd), ask(h->y, i0 + i, h->vd);
        h->d[i] = h->k->dot(h->dy.x + (i0 + i) * h->dy.stride, h->y.x + (i0 + i) * h->y.stride, h->vd);
    }
    fill_columns(h, h->q_cols, columns_step(h->form), PANEL_ROWS, (struct rows){ h->sq, h->hd }, m, h->hd);
    fill_columns(h, h->dy_cols, columns_step(h->form), PANEL_ROWS, rows_at(h->dy, i0), m, h->vd);
    return fill_queries(h, h->form, h->dy_acts, h->vd, rows_at(h->dy, i0), m);
}

/* to[i][j - j0] = queries times keys j0 .. j1 - 1, those that no query of a tile sees left out. The last panels whole: rows have room. */
static void multiply_keys(const struct head *h, const struct act_panel *a, uint8_t *panels, int64_t i0, int64_t m, int64_t j0, int64_t j1, float *to)
{
    size_t step = rows_step(a->form, a->k);
    for (int64_t j = j0; j < j1; j += PAIR_ROWS) {
        struct op_panels p = { panels + (size_t)((j - j0) / PANEL_ROWS) * step, step, a->form, a->k };
        int64_t wide = j1 - j <= PANEL_ROWS ? PANEL_ROWS : PAIR_ROWS;
        for (int64_t t = max_i64(0, (j - i0) / h->nt * h->nt); t < m; t += h->nt)
            op_tile(h->k, p, a, t / h->nt, 0, (int)min_i64(h->nt, m - t), wide, to + t * STRIDE + j - j0, STRIDE, false, h->edge);
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
static void logits(const struct head *h, const struct act_panel *q, int64_t i0, int64_t m, int64_t j0, int64_t j1)
{
    multiply_keys(h, q, h->key_rows, i0, m, j0, j1, h->s);
    for (int64_t i = 0, first, n; i < m && (h->cap > 0 || h->slope != 0); i++) {
        if (!seen(h, i0 + i, j0, j1, &first, &n)) continue;
        float *s = h->s + i * STRIDE + first - j0;
        if (h->cap > 0) h->k->softcap(s, s, h->cap, n);
        add_slope(h, s, first - i0 - i, n, 1);
    }
}

/* x[0 .. n) but for x[at .. end) becomes 0. */
static void clear_outside(float *x, int64_t at, int64_t end, int64_t n)
{
    memset(x, 0, (size_t)at * sizeof *x);
    memset(x + end, 0, (size_t)(n - end) * sizeof *x);
}

/* to[i] (+)= sum_j x[i][j - j0] row j, whose columns are in `cols`; what a query does not see is 0 in x */
static void add_to_queries(const struct head *h, const float *x, int64_t i0, int64_t m, int64_t j0, int64_t j1, int64_t dim,
                           struct sums to, bool add)
{
    int64_t n = j1 - j0;
    struct act_panel a = fill_queries(h, h->form, h->acts, n, (struct rows){ x, STRIDE }, m);
    for (int64_t c = 0; c < dim; c += PAIR_ROWS)
        for (int64_t t = max_i64(0, (j0 - i0) / h->nt * h->nt); t < m; t += h->nt) {
            int tokens = (int)min_i64(h->nt, m - t);
            struct op_panels p = { h->cols + (size_t)(c / PANEL_ROWS) * cols_step(h->form), cols_step(h->form), h->form, min_i64(n, i0 + t + tokens - j0) };
            if (p.nk > 0) op_tile(h->k, p, &a, t / h->nt, 0, tokens, min_i64(PAIR_ROWS, dim - c), to.x + t * to.stride + c, to.stride, add, h->edge);
        }
}

/* ---- forward ---- */

/* S to exp(S - max), after which the sums of a row are measured by its largest S. */
static void follow_max(struct head *h, int64_t i0, int64_t m, int64_t j0, int64_t j1, float *max, double *sum)
{
    for (int64_t i = 0, first, n; i < m; i++) {
        float *s = h->s + i * STRIDE;
        bool any = seen(h, i0 + i, j0, j1, &first, &n);
        int64_t at = any ? first - j0 : 0;
        clear_outside(s, at, any ? at + n : 0, j1 - j0);
        if (!any) continue;
        s += at;
        float top = h->k->max(s, n, NULL);
        if (top > max[i]) {
            float less = expf(max[i] - top);
            h->k->scale(h->sum + i * h->vd, h->sum + i * h->vd, less, h->vd);
            sum[i] *= (double)less;
            max[i] = top;
        }
        sum[i] += h->k->exp_sum(s, s, max[i], n);
    }
}

static void block_run(struct head *h, int64_t i0)
{
    int64_t m = min_i64(QUERIES, h->n - i0), hi = i0 + m;
    float max[QUERIES];
    double sum[QUERIES];
    struct act_panel q = open_queries(h, i0, m);
    memset(h->sum, 0, (size_t)(m * h->vd) * sizeof(float));
    for (int64_t i = 0; i < m; i++) max[i] = h->has_sink ? h->sink : -INFINITY, sum[i] = h->has_sink ? 1 : 0;
    for (int64_t j0 = h->window > 0 ? max_i64(0, i0 - h->window + 1) : 0; j0 < hi; j0 += KEYS) {
        int64_t j1 = min_i64(hi, j0 + KEYS);
        fill_rows(h, ACT_F32, h->key_rows, h->hd, rows_at(h->key, j0), j1 - j0);
        fill_columns(h, h->cols, cols_step(h->form), PANEL_ROWS, rows_at(h->v, j0), j1 - j0, h->vd);
        logits(h, &q, i0, m, j0, j1);
        follow_max(h, i0, m, j0, j1, max, sum);
        add_to_queries(h, h->s, i0, m, j0, j1, h->vd, (struct sums){ h->sum, h->vd }, true);
    }
    for (int64_t i = 0; i < m; i++) {
        h->k->scale(h->out.x + (i0 + i) * h->out.stride, h->sum + i * h->vd, (float)(1 / sum[i]), h->vd);
        h->lse.x[(i0 + i) * h->lse.stride] = (float)((double)max[i] + log(sum[i]));
    }
}

/* ---- back ---- */

/* S and dP to P and dS, of keys j0 .. j1 - 1; what a row does not see becomes 0. */
static void softmax_grads(struct head *h, int64_t i0, int64_t m, int64_t j0, int64_t j1)
{
    for (int64_t i = 0, first, n; i < m; i++) {
        float *p = h->s + i * STRIDE, *d = h->dp + i * STRIDE;
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
        h->k->exp_sum(p, p, h->lse.x[(i0 + i) * h->lse.stride], n);
        h->k->mul_sub(d, p, d, h->d[i], n);
        if (h->cap > 0) {
            h->k->mul(h->row, h->row, d, n);
            h->k->axpy(d, h->row, -1, n);
        }
    }
}

/* to[j] += sum_i x[i][j - j0] cols[i], x [m] rows of keys j0 .. j1 - 1, cols the columns of the block's queries or of their dy */
static void add_to_keys(const struct head *h, const float *x, int64_t i0, int64_t m, int64_t j0, int64_t j1, uint8_t *cols, int64_t dim,
                        struct sums to)
{
    size_t row = op_form_bytes(h->form);
    fill_columns(h, h->acts, keys_step(h), h->nt, (struct rows){ x, STRIDE }, m, j1 - j0);
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

static void clear_rows(struct sums x, int64_t first, int64_t end, int64_t n)
{
    for (int64_t i = first; i < end; i++) memset(x.x + i * x.stride, 0, (size_t)n * sizeof *x.x);
}

/* Keys from .. to - 1 and the queries that see them: `from` and those behind it. */
static void keys_run(struct head *h, int64_t from, int64_t to)
{
    clear_rows(h->dk, from, to, h->hd), clear_rows(h->dv, from, to, h->vd);
    if (h->window > 0) clear_rows(h->dq, from, h->n, h->hd); /* else the first KEYS reach all rows */
    for (int64_t j0 = from; j0 < to; j0 += KEYS) {
        int64_t j1 = min_i64(to, j0 + KEYS), end = h->window > 0 ? min_i64(h->n, j1 + h->window - 1) : h->n;
        fill_rows(h, ACT_F32, h->key_rows, h->hd, rows_at(h->key, j0), j1 - j0);
        fill_rows(h, h->form, h->v_rows, h->vd, rows_at(h->v, j0), j1 - j0);
        fill_columns(h, h->cols, cols_step(h->form), PANEL_ROWS, rows_at(h->key, j0), j1 - j0, h->hd);
        for (int64_t i0 = j0 / QUERIES * QUERIES; i0 < end; i0 += QUERIES) {
            int64_t m = min_i64(QUERIES, h->n - i0), last = min_i64(j1, i0 + m);
            struct act_panel q = open_queries(h, i0, m), dy = open_grads(h, i0, m);
            logits(h, &q, i0, m, j0, last);
            multiply_keys(h, &dy, h->v_rows, i0, m, j0, last, h->dp);
            softmax_grads(h, i0, m, j0, last);
            add_to_keys(h, h->s, i0, m, j0, last, h->dy_cols, h->vd, h->dv);
            add_to_keys(h, h->dp, i0, m, j0, last, h->q_cols, h->hd, h->dk);
            add_to_queries(h, h->dp, i0, m, j0, last, h->hd, (struct sums){ h->dq.x + i0 * h->dq.stride, h->dq.stride },
                           j0 > from || h->window > 0);
        }
    }
}

/* ---- all heads ---- */

static void head_open(const struct op_run *r, const struct op *op, const struct batch_segment *seg, int32_t head, val y, enum act_form form, struct head *h)
{
    int hd = op->arg.attn.head_dim, vd = op->arg.attn.head_dim_v;
    int64_t n_head = op->arg.attn.n_head, n_kv = op->arg.attn.n_head_kv, kv = head / (n_head / n_kv), row = seg->row;
    const float *q = op_data(r, op->src[0]), *sinks = op->src[1] == VAL_NONE ? NULL : op_data(r, op->src[1]), *k = op_data(r, op->src[2]);
    const struct value *result = &r->x->plan->val[y];
    uint8_t *sums = (uint8_t *)op_data(r, y) + result->bytes - sums_bytes((int32_t)n_head, plan_room(r->x->plan, result->t.ne[1]));
    assert(seg->pos == 0);
    *h = (struct head){
        .k = r->k, .form = form, .n = seg->n, .window = op->arg.attn.window, .hd = hd, .vd = vd, .nt = r->k->tile_tokens,
        .scale = op->arg.attn.scale, .cap = op->arg.attn.cap, .has_sink = sinks != NULL, .sink = sinks ? sinks[head] : 0,
        .slope = op->arg.attn.alibi > 0 ? op_alibi_slope(op->arg.attn.alibi, (int32_t)n_head, head) : 0,
        .q = { q + (row * n_head + head) * hd, n_head * hd },
        .key = { k + (row * n_kv + kv) * hd, n_kv * hd },
        .v = { k + (row * n_kv + kv) * hd, n_kv * hd }, /* unless they have rows of their own */
        .lse = { (float *)(void *)sums + row * n_head + head, n_head },
    };
    if (op->src[3] != VAL_NONE) h->v = (struct rows){ (const float *)op_data(r, op->src[3]) + (row * n_kv + kv) * vd, n_kv * vd };
    (void)place(h, r->scratch, hd, vd);
}

void op_run_attn_whole(const struct op_run *r, const struct op *op)
{
    const struct batch *b = r->x->batch;
    int64_t n_head = op->arg.attn.n_head, vd = op->arg.attn.head_dim_v, n = 0;
    assert(r->x->thread_bytes >= op_attn_grad_bytes(max_i64(op->arg.attn.head_dim, vd)));
    for (int s = 0; s < b->n_seg; s++) n += (b->seg[s].n + QUERIES - 1) / QUERIES * n_head;
    for (int64_t i, end; op_take(r, n, 1, &i, &end);) {
        const struct batch_segment *seg = b->seg;
        struct head h;
        for (int64_t items; i >= (items = (seg->n + QUERIES - 1) / QUERIES * n_head); i -= items) seg++;
        int64_t head = i % n_head;
        head_open(r, op, seg, (int32_t)head, op->dst, ACT_F32, &h);
        h.out = (struct sums){ (float *)op_data(r, op->dst) + (seg->row * n_head + head) * vd, n_head * vd };
        block_run(&h, i / n_head * QUERIES);
    }
}

/* Where the gradients go: into the result, or beside it where several heads share keys, and those of queries of all parts of the keys but the first. */
struct results { float *y, *heads, *parts; int64_t width, rows; };

static struct results results_of(const struct op_run *r, const struct op *op)
{
    const struct value *d = &r->x->plan->val[op->dst];
    int64_t n_head = op->arg.attn.n_head, dims = op->arg.attn.head_dim + op->arg.attn.head_dim_v, room = plan_room(r->x->plan, d->t.ne[1]);
    float *y = op_data(r, op->dst), *heads = y + d->t.ne[0] * room;
    return (struct results){ y, heads, heads + (n_head > op->arg.attn.n_head_kv ? room * n_head * dims : 0), d->t.ne[0], d->t.ne[1] };
}

/* [part][row][head][hd] */
static struct sums part_sums(const struct op *op, const struct results *d, int64_t part, int64_t row)
{
    int64_t n = (int64_t)op->arg.attn.n_head * op->arg.attn.head_dim;
    if (part == 0) return (struct sums){ d->y + row * d->width, d->width };
    return (struct sums){ d->parts + ((part - 1) * d->rows + row) * n, n };
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

static void part_run(const struct op_run *r, const struct op *op, const struct batch_segment *seg, int64_t head, int64_t part)
{
    int64_t hd = op->arg.attn.head_dim, vd = op->arg.attn.head_dim_v, n_head = op->arg.attn.n_head, each = part_keys(seg->n);
    struct results d = results_of(r, op);
    struct head h;
    head_open(r, op, seg, (int32_t)head, op->src[4], op_grad_form(r->x->plan), &h);
    h.y = (struct rows){ (const float *)op_data(r, op->src[4]) + (seg->row * n_head + head) * vd, n_head * vd };
    h.dy = (struct rows){ (const float *)op_data(r, op->src[5]) + (seg->row * n_head + head) * vd, n_head * vd };
    h.dq = part_sums(op, &d, part, seg->row);
    h.dq.x += head * hd;
    head_sums(op, &d, head, seg->row, &h.dk, &h.dv);
    keys_run(&h, min_i64(part * each, seg->n), min_i64((part + 1) * each, seg->n));
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

/* The parts of a row's queries, and the heads of its groups of keys. */
static void sum_row(const struct op_run *r, const struct op *op, const struct results *d, const struct batch_segment *seg, int64_t row)
{
    int64_t n = (int64_t)op->arg.attn.n_head * op->arg.attn.head_dim, each = part_keys(seg->n);
    float *dq = part_sums(op, d, 0, row).x;
    for (int64_t part = 1; part * each <= row - seg->row; part++) r->k->add(dq, dq, part_sums(op, d, part, row).x, n);
    r->k->scale(dq, dq, op->arg.attn.scale, n);
    if (op->arg.attn.n_head > op->arg.attn.n_head_kv) sum_group(r, op, d, row);
}

void op_run_attn_grad(const struct op_run *r, const struct op *op)
{
    const struct batch *b = r->x->batch;
    int64_t n_head = op->arg.attn.n_head, n = 0, begin, end;
    assert(r->x->thread_bytes >= op_attn_grad_bytes(max_i64(op->arg.attn.head_dim, op->arg.attn.head_dim_v)));
    for (int s = 0; s < b->n_seg; s++) n += parts_of(b->seg[s].n) * n_head;
    for (int64_t i; op_take(r, n, 1, &i, &end);) {
        const struct batch_segment *seg = b->seg;
        for (int64_t items; i >= (items = parts_of(seg->n) * n_head); i -= items) seg++;
        part_run(r, op, seg, i % n_head, i / n_head);
    }
    struct results d = results_of(r, op);
    pool_barrier(r->x->pool);
    pool_range(d.rows, 1, r->ith, r->nth, &begin, &end);
    for (int s = 0; s < b->n_seg; s++)
        for (int64_t row = max_i64(begin, b->seg[s].row); row < min_i64(end, b->seg[s].row + b->seg[s].n); row++)
            sum_row(r, op, &d, &b->seg[s], row);
}
