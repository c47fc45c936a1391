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

/* Rows x - minus (NULL: x), each times the root of its weight (NULL: 1), into panels of HESSIAN_ROWS, from row `at` on. */
static void copy_rows(float *panels, int64_t n, int64_t at, const float *x, int64_t stride, const float *minus, int64_t minus_stride, const float *weight,
                      int64_t n_rows, int ith, int nth)
{
    int64_t begin, end;
    pool_range(n / P, 1, ith, nth, &begin, &end);
    for (int64_t r = 0; r < n_rows; r++) {
        float w = weight ? sqrtf(weight[r]) : 1.0f;
        for (int64_t i = begin; i < end; i++) {
            float *to = panels + (i * HESSIAN_ROWS + at + r) * P;
            for (int c = 0; c < P; c++) to[c] = w * x[r * stride + i * P + c];
            for (int c = 0; c < P && minus; c++) to[c] -= w * minus[r * minus_stride + i * P + c];
        }
    }
}

void hessian_add(struct hessian *h, const struct quant_kernels *k, const float *x, int64_t stride, const float *weight, int64_t n_rows, struct pool *p,
                 int ith, int nth)
{
    for (int64_t at = 0, n; at < n_rows; at += n) {
        n = min_i64(n_rows - at, HESSIAN_ROWS - h->n_waiting);
        copy_rows(h->rows, h->n, h->n_waiting, x + at * stride, stride, NULL, 0, weight ? weight + at : NULL, n, ith, nth);
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

/* ---- cross ---- */

status cross_open(struct cross *c, int64_t m, int64_t n, struct err *e)
{
    size_t all;
    *c = (struct cross){ .m = m, .n = n };
    if (m < P || m % P || n < P || n % P)
        return err_set(e, ERR_USAGE, "a cross product of %lld by %lld: no multiples of %d", (long long)m, (long long)n, P);
    if (!mul_size((size_t)m, (size_t)n, &all)) return err_oom(e, "cross product", SIZE_MAX);
    c->c = arena_zalloc(&c->mem, all, sizeof *c->c);
    c->left = arena_zalloc(&c->mem, (size_t)m, HESSIAN_ROWS * sizeof *c->left);
    c->right = arena_zalloc(&c->mem, (size_t)n, HESSIAN_ROWS * sizeof *c->right);
    if (c->c && c->left && c->right) return OK;
    cross_close(c);
    return err_oom(e, "cross product", all * sizeof *c->c);
}

void cross_close(struct cross *c)
{
    arena_free(&c->mem);
    *c = (struct cross){ 0 };
}

/* Panels of columns in turns, each from all rows of C. */
static void cross_multiply(struct cross *c, const struct quant_kernels *k, int64_t depth, int ith, int nth)
{
    int64_t panels = c->n / P;
    for (int64_t j0 = (int64_t)ith * ROW_PANELS; j0 < panels; j0 += (int64_t)nth * ROW_PANELS)
        for (int64_t i = 0; i < c->m / P; i++)
            for (int64_t j = j0; j < min_i64(j0 + ROW_PANELS, panels); j++)
                k->product(c->c + (j * c->m + i * P) * P, P, c->left + i * HESSIAN_ROWS * P, c->right + j * HESSIAN_ROWS * P, depth, false);
}

void cross_add(struct cross *c, const struct quant_kernels *k, const float *f, int64_t f_stride, const float *g, int64_t g_stride, const float *x,
               int64_t x_stride, const float *weight, int64_t n_rows, struct pool *p, int ith, int nth)
{
    for (int64_t at = 0, n; at < n_rows; at += n) {
        n = min_i64(n_rows - at, HESSIAN_ROWS - c->n_waiting);
        copy_rows(c->left, c->m, c->n_waiting, f + at * f_stride, f_stride, g + at * g_stride, g_stride, weight ? weight + at : NULL, n, ith, nth);
        copy_rows(c->right, c->n, c->n_waiting, x + at * x_stride, x_stride, NULL, 0, weight ? weight + at : NULL, n, ith, nth);
        wait_for_all(p);
        bool full = c->n_waiting + n == HESSIAN_ROWS;
        if (full) cross_multiply(c, k, HESSIAN_ROWS, ith, nth);
        wait_for_all(p);
        if (ith == 0) c->n_waiting = full ? 0 : c->n_waiting + n;
        wait_for_all(p);
    }
}

void cross_finish(struct cross *c, const struct quant_kernels *k, struct pool *p, int ith, int nth)
{
    cross_multiply(c, k, c->n_waiting, ith, nth);
    wait_for_all(p);
    if (ith == 0) c->n_waiting = 0;
    wait_for_all(p);
}

/* ---- metric ---- */

struct build {
    struct metric *m;
    const struct quant_kernels *k;
    struct pool *p;
    const float *from;      /* H as given */
    float shrink;
    float *live;            /* [n] 1; 0: no token drove the column */
    float *panel;           /* [n / 16][BLOCK][16] of the step at hand */
    float *tri, *scale;     /* [BLOCK][BLOCK], [BLOCK] its diagonal block and reciprocal diagonal */
    bool failed;
};

static void fill_thread(void *ctx, int ith, int nth)
{
    struct build *b = ctx;
    struct metric *m = b->m;
    int64_t begin, end, n = m->n;
    pool_range(n, P, ith, nth, &begin, &end);
    for (int64_t i = begin; i < end; i++) { /* row i as a column: H is symmetric */
        float own = b->from[i * (n + 1)], keep = b->live[i] * (1.0f - b->shrink) * m->unit, *to = metric_at(m, 0, i);
        for (int64_t j = 0; j < n; j++) to[j * P] = keep * b->live[j] * b->from[i * n + j];
        to[i * P] = (own > 0.0f ? own * m->unit : 1.0f) + m->damping;
        m->inv[i] = 1.0f / to[i * P];
    }
}

/* The lower triangle of H' into the panels of the factor. */
static void start_thread(void *ctx, int ith, int nth)
{
    struct build *b = ctx;
    struct metric *m = b->m;
    for (int64_t i = ith; i < m->n / P; i += nth) memcpy(metric_panel(m, i), metric_at(m, 0, i * P), (size_t)(P * (i + 1) * P) * sizeof *m->m);
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
        if (d > 0.0f) sum += (double)d, live++, b->live[i] = 1.0f;
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
    b.live = arena_zalloc(&mem, (size_t)n, sizeof *b.live);
    b.panel = arena_zalloc(&mem, (size_t)n * BLOCK, sizeof *b.panel);
    b.tri = arena_zalloc(&mem, BLOCK * (BLOCK + 1), sizeof *b.tri);
    b.scale = b.tri + BLOCK * BLOCK;
    status st = m->h && m->m && m->d && m->inv && b.live && b.panel && b.tri ? build_all(&b, o, e) : err_oom(e, "metric", (all + half) * sizeof(float));
    arena_free(&mem);
    if (st != OK) metric_close(m);
    return st;
}

void metric_close(struct metric *m)
{
    arena_free(&m->mem);
    *m = (struct metric){ 0 };
}

/* ---- aims ---- */

/* Sixteen rows as columns: t [n][16]; lanes without a row are zero. back: the other way. */
static void turn_rows(float *x, int64_t n, int64_t n_rows, float *t, bool back)
{
    for (int64_t r = 0; r < P && back; r++)
        for (int64_t i = 0; i < n && r < n_rows; i++) x[r * n + i] += t[i * P + r];
    for (int64_t r = 0; r < P && !back; r++)
        for (int64_t i = 0; i < n; i++) t[i * P + r] = r < n_rows ? x[r * n + i] : 0.0f;
}

/* v with v M^T = d, blocks of columns from the last: d_j -= v_k M[j][k] over k > j. t holds tiles of 16 rows, [tile][n][16]. */
static void aim_down(const struct metric *m, const struct quant_kernels *k, float *t, int tiles, float *across)
{
    for (int64_t j0 = m->n - P; j0 >= 0; j0 -= P) {
        int64_t later = m->n - j0 - P;
        for (int64_t l = 0; l < later; l += P) {
            const float *from = metric_panel(m, (j0 + P + l) / P) + j0 * P;
            for (int64_t i = 0; i < P; i++)
                for (int64_t j = 0; j < P; j++) across[(l + i) * P + j] = from[j * P + i];
        }
        const float *own = metric_panel(m, j0 / P) + j0 * P;
        for (int tile = 0; tile < tiles; tile++) {
            float *d = t + ((int64_t)tile * m->n + j0) * P;
            k->product(d, P, across, d + P * P, later, true);
            for (int64_t i = P - 1; i > 0; i--)
                for (int64_t j = 0; j < i; j++)
                    for (int64_t r = 0; r < P; r++) d[j * P + r] -= own[j * P + i] * d[i * P + r];
        }
    }
}

/* z with z M D = v, from the first: z_k = v_k / d_k - sum over j < k of z_j M[j][k] */
static void aim_up(const struct metric *m, const struct quant_kernels *k, float *t, int tiles)
{
    for (int64_t k0 = 0; k0 < m->n; k0 += P) {
        const float *panel = metric_panel(m, k0 / P);
        for (int tile = 0; tile < tiles; tile++) {
            float *all = t + (int64_t)tile * m->n * P, *z = all + k0 * P;
            for (int64_t i = 0; i < P; i++)
                for (int64_t r = 0; r < P; r++) z[i * P + r] /= m->d[k0 + i];
            k->product(z, P, panel, all, k0, true);
            for (int64_t j = 0; j < P; j++)
                for (int64_t i = j + 1; i < P; i++)
                    for (int64_t r = 0; r < P; r++) z[i * P + r] -= panel[(k0 + j) * P + i] * z[j * P + r];
        }
    }
}

/* t [n][16] += D's rows row, row + step, .. */
static void add_cross(const struct cross *d, int64_t row, int64_t step, int64_t n_rows, float *t)
{
    for (int64_t j = 0; j < d->n; j++)
        for (int64_t r = 0; r < min_i64(n_rows, P); r++) t[j * P + r] += d->c[(j / P * d->m + row + r * step) * P + j % P];
}

/* Steps t [n][16] of rows w no longer than METRIC_AIM_REACH of the rows themselves. */
static void hold_steps(const float *w, float *t, int64_t n)
{
    float far[P] = { 0 }, own[P] = { 0 };
    for (int64_t i = 0; i < n; i++)
        for (int r = 0; r < P; r++) far[r] += t[i * P + r] * t[i * P + r], own[r] += w[i * P + r] * w[i * P + r];
    for (int r = 0; r < P; r++) {
        float reach = METRIC_AIM_REACH * METRIC_AIM_REACH * own[r];
        far[r] = far[r] > reach ? sqrtf(reach / far[r]) : 1.0f;
    }
    for (int64_t i = 0; i < n; i++)
        for (int r = 0; r < P; r++) t[i * P + r] *= far[r];
}

void metric_aim(const struct metric *m, const struct cross *c, const struct cross *d, float strength, const struct quant_kernels *k, float *x, int64_t row,
                int64_t step, int64_t n_rows, void *scratch)
{
    int64_t n = m->n;
    float *w = scratch, *t = w + n * METRIC_AIM_ROWS, *across = t + n * METRIC_AIM_ROWS;
    for (int64_t r0 = 0; r0 < n_rows; r0 += METRIC_AIM_ROWS) {
        int64_t rows = min_i64(METRIC_AIM_ROWS, n_rows - r0);
        int tiles = (int)((rows + P - 1) / P);
        for (int i = 0; i < tiles; i++) turn_rows(x + (r0 + i * P) * n, n, rows - i * P, w + i * n * P, false);
        memset(t, 0, (size_t)(tiles * n * P) * sizeof *t);
        for (int64_t j0 = 0; j0 < n && c; j0 += P)
            for (int i = 0; i < tiles; i++) k->product(t + (i * n + j0) * P, P, c->c + j0 * n, w + i * n * P, n, false);
        for (int i = 0; i < tiles && d; i++) add_cross(d, row + (r0 + i * P) * step, step, rows - i * P, t + i * n * P);
        for (int64_t i = 0; i < tiles * n * P; i++) t[i] *= m->unit * strength;
        aim_down(m, k, t, tiles, across);
        aim_up(m, k, t, tiles);
        for (int i = 0; i < tiles; i++) hold_steps(w + i * n * P, t + i * n * P, n);
        for (int i = 0; i < tiles; i++) turn_rows(x + (r0 + i * P) * n, n, rows - i * P, t + i * n * P, true);
    }
}
