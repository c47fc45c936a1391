/* hessian - sums of x x^T, and the factor of such a matrix. Everything of order n^3 goes through product() on tiles of 16 x 16. */
#include "quant/hessian.h"
#include <math.h>
#include <string.h>

enum { P = METRIC_PANEL, ROW_PANELS = 4, BLOCK = 128 }; /* panels that stay in the second-level cache; depth of one step of the factor */

status hessian_open(struct hessian *h, int64_t n, struct err *e)
{
    size_t all, waiting;
    *h = (struct hessian){ .n = n };
    if (n < P || n % P) return err_set(e, ERR_USAGE, "a Hessian of %lld columns: not a multiple of %d", (long long)n, P);
    if (!mul_size((size_t)n, (size_t)n, &all) || !mul_size((size_t)n, HESSIAN_ROWS, &waiting)) return err_oom(e, "Hessian", SIZE_MAX);
    h->h = arena_zalloc(&h->mem, all, sizeof *h->h);
    h->rows = arena_zalloc(&h->mem, waiting, sizeof *h->rows);
    if (h->h && h->rows) return OK;
    hessian_close(h);
    return err_oom(e, "Hessian", all * sizeof *h->h);
}

void hessian_close(struct hessian *h)
{
    arena_free(&h->mem);
    *h = (struct hessian){ 0 };
}

/* The lower triangle of tiles, row panels in turns: thread ith takes every nth group of ROW_PANELS. */
static void multiply(struct hessian *h, const struct quant_kernels *k, int64_t depth, int ith, int nth)
{
    int64_t panels = h->n / P;
    for (int64_t i0 = (int64_t)ith * ROW_PANELS; i0 < panels; i0 += (int64_t)nth * ROW_PANELS) {
        int64_t end = min_i64(i0 + ROW_PANELS, panels);
        for (int64_t j = 0; j < end; j++)
            for (int64_t i = max_i64(i0, j); i < end; i++)
                k->product(h->h + i * P * h->n + j * P, h->n, h->rows + i * HESSIAN_ROWS * P, h->rows + j * HESSIAN_ROWS * P, depth, false);
    }
}

static void wait_for_all(struct pool *p)
{
    if (p) pool_barrier(p);
}

static void copy_rows(struct hessian *h, const float *x, int64_t stride, const float *weight, int64_t n, int ith, int nth)
{
    int64_t begin, end;
    pool_range(h->n / P, 1, ith, nth, &begin, &end);
    for (int64_t r = 0; r < n; r++) {
        float w = weight ? sqrtf(weight[r]) : 1.0f;
        for (int64_t i = begin; i < end; i++) {
            float *to = h->rows + (i * HESSIAN_ROWS + h->n_waiting + r) * P;
            for (int c = 0; c < P; c++) to[c] = w * x[r * stride + i * P + c];
        }
    }
}

void hessian_add(struct hessian *h, const struct quant_kernels *k, const float *x, int64_t stride, const float *weight, int64_t n_rows, struct pool *p,
                 int ith, int nth)
{
    for (int64_t at = 0, n; at < n_rows; at += n) {
        n = min_i64(n_rows - at, HESSIAN_ROWS - h->n_waiting);
        copy_rows(h, x + at * stride, stride, weight ? weight + at : NULL, n, ith, nth);
        wait_for_all(p);
        bool full = h->n_waiting + n == HESSIAN_ROWS;
        if (full) multiply(h, k, HESSIAN_ROWS, ith, nth);
        wait_for_all(p);
        if (ith == 0) h->n_waiting = full ? 0 : h->n_waiting + n, h->count += n;
        wait_for_all(p);
    }
}

void hessian_finish(struct hessian *h, const struct quant_kernels *k, struct pool *p, int ith, int nth)
{
    multiply(h, k, h->n_waiting, ith, nth);
    wait_for_all(p);
    if (ith == 0) h->n_waiting = 0;
    for (int64_t i0 = (int64_t)ith * P; i0 < h->n; i0 += (int64_t)nth * P)
        for (int64_t j0 = 0; j0 <= i0; j0 += P)
            for (int64_t i = i0; i < i0 + P; i++)
                for (int64_t j = j0; j < min_i64(j0 + P, i); j++) h->h[j * h->n + i] = h->h[i * h->n + j];
    wait_for_all(p);
}

void hessian_diagonal(const struct hessian *h, float *out)
{
    for (int64_t i = 0; i < h->n; i++) out[i] = h->count ? (float)((double)h->h[i * (h->n + 1)] / (double)h->count) : 0.0f;
}

/* ---- metric ---- */

struct build {
    struct metric *m;
    const struct quant_kernels *k;
    struct pool *p;
    const float *from;      /* H as given */
    float shrink;
    float *panel;           /* [n / 16][BLOCK][16] of the step at hand */
    float *tri, *scale;     /* [BLOCK][BLOCK], [BLOCK] its diagonal block and reciprocal diagonal */
    bool failed;
};

static void fill_thread(void *ctx, int ith, int nth)
{
    struct build *b = ctx;
    struct metric *m = b->m;
    int64_t begin, end, n = m->n;
    pool_range(n, 1, ith, nth, &begin, &end);
    for (int64_t i = begin; i < end; i++) {
        float own = b->from[i * (n + 1)], keep = own > 0.0f ? (1.0f - b->shrink) * m->unit : 0.0f;
        for (int64_t j = 0; j < n; j++) m->h[i * n + j] = b->from[j * (n + 1)] > 0.0f ? keep * b->from[i * n + j] : 0.0f;
        m->h[i * (n + 1)] = (own > 0.0f ? own * m->unit : 1.0f) + m->damping;
        m->inv[i] = 1.0f / m->h[i * (n + 1)];
    }
}

/* The lower triangle of H' into the panels of the factor. */
static void start_thread(void *ctx, int ith, int nth)
{
    struct build *b = ctx;
    struct metric *m = b->m;
    for (int64_t i = ith; i < m->n / P; i += nth) {
        float *to = metric_panel(m, i);
        for (int64_t j = 0; j < P * (i + 1); j++) memcpy(to + j * P, m->h + j * m->n + i * P, P * sizeof *to); /* symmetric */
    }
}

static float *element(const struct metric *m, int64_t k, int64_t j) { return metric_panel(m, k / P) + j * P + k % P; }

/* Diagonal block k0 .. end of what is left: T with T^T T = it, from its last row up. */
static void factor_block(struct build *b, int64_t k0, int64_t depth)
{
    float *t = b->tri;
    for (int64_t k = 0; k < depth; k++)
        for (int64_t j = 0; j <= k; j++) t[k * depth + j] = *element(b->m, k0 + k, k0 + j);
    for (int64_t k = depth - 1; k >= 0; k--) {
        float pivot = t[k * depth + k];
        if (!(pivot > 0.0f) || !isfinite(pivot)) b->failed = true;
        t[k * depth + k] = sqrtf(pivot), b->scale[k] = 1.0f / t[k * depth + k];
        for (int64_t j = 0; j < k; j++) t[k * depth + j] *= b->scale[k];
        for (int64_t i = 0; i < k; i++)
            for (int64_t j = 0; j <= i; j++) t[i * depth + j] -= t[k * depth + i] * t[k * depth + j];
    }
    for (int64_t k = 0; k < depth; k++)
        for (int64_t j = 0; j <= k; j++) *element(b->m, k0 + k, k0 + j) = t[k * depth + j];
}

/* Rows k0 .. of the factor in the columns of panel j, left of the diagonal block. */
static void factor_panel(struct build *b, int64_t k0, int64_t depth, int64_t j)
{
    float *p = b->panel + j * BLOCK * P;
    for (int64_t k = 0; k < depth; k++)
        for (int c = 0; c < P; c++) p[k * P + c] = *element(b->m, k0 + k, j * P + c);
    b->k->eliminate(p, b->tri, b->scale, depth);
    for (int64_t k = 0; k < depth; k++)
        for (int c = 0; c < P; c++) *element(b->m, k0 + k, j * P + c) = p[k * P + c];
}

static void factor_thread(void *ctx, int ith, int nth)
{
    struct build *b = ctx;
    struct metric *m = b->m;
    for (int64_t end = m->n; end > 0;) {
        int64_t k0 = end > BLOCK ? end - BLOCK : 0, depth = end - k0;
        if (ith == 0) factor_block(b, k0, depth);
        wait_for_all(b->p);
        if (b->failed) return;
        for (int64_t j = ith; j < k0 / P; j += nth) factor_panel(b, k0, depth, j);
        wait_for_all(b->p);
        for (int64_t i0 = (int64_t)ith * ROW_PANELS; i0 < k0 / P; i0 += (int64_t)nth * ROW_PANELS)
            for (int64_t j = 0; j < min_i64(i0 + ROW_PANELS, k0 / P); j++)
                for (int64_t i = max_i64(i0, j); i < min_i64(i0 + ROW_PANELS, k0 / P); i++)
                    b->k->product(metric_panel(m, i) + j * P * P, P, b->panel + j * BLOCK * P, b->panel + i * BLOCK * P, depth, true);
        wait_for_all(b->p);
        end = k0;
    }
    for (int64_t i = ith; i < m->n / P; i += nth) { /* T to M and D */
        float *p = metric_panel(m, i), inv[P];
        for (int c = 0; c < P; c++) {
            float t = p[(i * P + c) * P + c];
            m->d[i * P + c] = t * t, inv[c] = 1.0f / t;
        }
        for (int64_t j = 0; j < P * (i + 1); j++)
            for (int c = 0; c < P; c++) p[j * P + c] = j < i * P + c ? p[j * P + c] * inv[c] : 0.0f;
    }
}

static void run(struct build *b, pool_fn fn)
{
    if (b->p) pool_run(b->p, fn, b);
    else fn(b, 0, 1);
}

static status build_all(struct build *b, const struct metric_options *o, struct err *e)
{
    double sum = 0;
    int64_t n = b->m->n, live = 0;
    for (int64_t i = 0; i < n; i++) {
        float d = b->from[i * (n + 1)];
        if (!isfinite(d)) return err_set(e, ERR_RUNTIME, "Hessian: element %lld of the diagonal is %g", (long long)i, (double)d);
        if (d > 0.0f) sum += (double)d, live++;
    }
    double mean = live ? sum / (double)live : 1;
    b->m->unit = (float)(1 / (mean > 1e-30 ? mean : 1e-30));
    for (int i = 0; i < METRIC_TRIES; i++) {
        b->failed = false;
        run(b, fill_thread);
        run(b, start_thread);
        run(b, factor_thread);
        if (!b->failed) return OK;
        b->m->damping = b->m->damping > 1e-6f ? b->m->damping * 10.0f : 1e-5f;
    }
    return err_set(e, ERR_RUNTIME, "Hessian of %lld columns is not a sum of squares: no factor with damping %g", (long long)n, (double)b->m->damping / 10);
}

status metric_open(struct metric *m, const float *h, int64_t n, const struct metric_options *o, const struct quant_kernels *k, struct pool *p, struct err *e)
{
    size_t all, half;
    struct build b = { .m = m, .k = k, .p = p, .from = h, .shrink = o->shrink };
    struct arena mem = { 0 };
    *m = (struct metric){ .n = n, .damping = o->damping };
    if (n < P || n % P) return err_set(e, ERR_USAGE, "a metric of %lld columns: not a multiple of %d", (long long)n, P);
    if (!mul_size((size_t)n, (size_t)n, &all) || !mul_size((size_t)n / P * ((size_t)n / P + 1) / 2, P * P, &half)) return err_oom(e, "metric", SIZE_MAX);
    m->h = arena_zalloc(&m->mem, all, sizeof *m->h);
    m->m = arena_zalloc(&m->mem, half, sizeof *m->m);
    m->d = arena_zalloc(&m->mem, (size_t)n, sizeof *m->d);
    m->inv = arena_zalloc(&m->mem, (size_t)n, sizeof *m->inv);
    b.panel = arena_zalloc(&mem, (size_t)n * BLOCK, sizeof *b.panel);
    b.tri = arena_zalloc(&mem, BLOCK * (BLOCK + 1), sizeof *b.tri);
    b.scale = b.tri + BLOCK * BLOCK;
    status st = m->h && m->m && m->d && m->inv && b.panel && b.tri ? build_all(&b, o, e) : err_oom(e, "metric", (all + half) * sizeof(float));
    arena_free(&mem);
    if (st != OK) metric_close(m);
    return st;
}

void metric_close(struct metric *m)
{
    arena_free(&m->mem);
    *m = (struct metric){ 0 };
}
