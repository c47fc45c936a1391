/* test_grad_ops - the gradients of matmuls, attention and scores by themselves: every ISA level, every format, against sums in double precision; bits for any
 * number of threads. What a pass makes of them is in test_grad.c. */
#include "ggml-like/cpu.h"
#include "ggml-like/kernels/kernels.h"
#include "ggml-like/ops.h"
#include "tests/test.h"
#include <float.h>

enum { THREADS = 3 };

/* ---- running a plan ---- */

struct bench { struct kernels k; struct plan p; bool precise; const char *level; };

static void bench_open(struct bench *b, int64_t rows)
{
    plan_init(&b->p, &b->k);
    plan_reset(&b->p, rows, rows, rows);
    b->p.precise = b->precise;
    CHECK(plan_reserve(&b->p, 4 * PLAN_CHUNK, NULL) == OK);
}

static val input(struct plan *p, int64_t ne0, int64_t ne1, const float *data)
{
    val v = plan_input(p, ne0, ne1);
    plan_bind(p, v, (float *)(uintptr_t)data);
    return v;
}

/* The bytes of `out` (VAL_NONE: nothing) go to y. */
static void bench_run(struct bench *b, struct batch *batch, int threads, val out, float *y)
{
    struct plan_share share[THREADS];
    struct pool *pool = NULL;
    size_t scratch = plan_grad_bytes(256);
    CHECK(pool_open(&pool, threads, NULL) == OK && plan_finish(&b->p, NULL) == OK);
    uint8_t *threads_base = aligned_alloc(64, scratch * (size_t)threads), *base = aligned_alloc(64, (b->p.bytes + 127) & ~(size_t)63);
    memset(base, 0xff, b->p.bytes);
    struct plan_exec x = { .plan = &b->p, .pool = pool, .batch = batch, .base = base, .thread_base = threads_base, .thread_bytes = scratch, .share = share };
    plan_run(&x);
    if (out != VAL_NONE) memcpy(y, base + b->p.val[out].offset, tensor_bytes(&b->p.val[out].t));
    free(base);
    free(threads_base);
    pool_close(pool);
}

/* Every usable level; both forms of floats where it has two. */
static void each_level(void (*run)(struct bench *b))
{
    struct cpu_info cpu;
    uint64_t features;
    cpu_detect(&cpu);
    for (int i = 0; i < isa_count; i++) {
        if (isa_features(isa_table[i].name, &cpu, &features, NULL) != OK) continue;
        struct bench b = { .level = isa_table[i].name };
        kernels_init(&b.k, features);
        for (int precise = !b.k.has_bf16; precise <= 1; precise++) {
            b.precise = precise;
            run(&b);
        }
    }
}

static bool is_bf16(const struct bench *b) { return b->k.has_bf16 && !b->precise; }
static float as_read(const struct bench *b, float x) { return is_bf16(b) ? bf16_to_f32(f32_to_bf16(x)) : x; }

static void fill(float *x, int64_t n, uint64_t seed)
{
    for (int64_t i = 0; i < n; i++) x[i] = test_randn(&seed);
}

static bool is_float(const struct dtype *t) { return t->group_len == 0 && (t->from_f32 || t->gguf_id == GGUF_F32); }

/* Blocks of random bytes with scales near 1. */
static void fill_weights(const struct dtype *t, uint8_t *w, int64_t blocks, uint64_t seed)
{
    for (int64_t b = 0; b < blocks; b++, w += t->block_bytes) {
        float x = test_randf(&seed);
        for (int i = 0; i < t->block_bytes; i++) w[i] = (uint8_t)test_rand(&seed);
        if (is_float(t)) dtype_from_f32(t, &x, w, 1);
        if (!t->split) continue;
        struct parts parts;
        t->split(w, &parts);
        parts.d32 = test_randf(&seed);
        parts.d = f32_to_f16(test_randf(&seed)), parts.dmin = f32_to_f16(test_randf(&seed));
        if (t->gguf_id == GGUF_MXFP4) parts.d = 110 + parts.d % 20;
        t->join(&parts, w);
    }
}

/* ---- unpacking ---- */

static void check_unpacked(struct bench *b)
{
    enum { N = 512 };
    static float want[N], got[N + 1];
    for (int i = 0; i < dtype_count; i++) {
        const struct dtype *t = dtypes[i];
        uint8_t *w = malloc(dtype_row_bytes(t, N) + 1);
        fill_weights(t, w + 1, N / t->block_len, 5 + (uint64_t)i);
        dtype_to_f32(t, w + 1, want, N);
        kernels_to_f32(&b->k, t, w + 1, got + 1, N);
        CHECK_MSG(!memcmp(want, got + 1, sizeof want), "%s %s: floats differ from dtype_to_f32", b->level, t->name);
        free(w);
    }
}
TEST(weights_become_the_floats_of_their_format) { each_level(check_unpacked); }

static void check_columns(struct bench *b)
{
    enum { N = 53, ROOM = 4096 };
    static float a[N], c[N];
    fill(a, N, 1), fill(c, N, 2);
    a[3] = NAN, c[4] = INFINITY, a[5] = -0.0f;
    for (int width = b->k.tile_tokens <= PANEL_ROWS ? b->k.tile_tokens : PANEL_ROWS;; width = PANEL_ROWS) {
        for (int n = 1; n <= N; n++)
            for (int two = 0; two < 2; two++) {
                static uint16_t got[ROOM], want[ROOM];
                struct kernels plain;
                kernels_init(&plain, 0);
                memset(got, 0x5a, sizeof got), memset(want, 0x5a, sizeof want);
                b->k.columns_bf16(got, 50, width, a, two ? c : NULL, n);
                plain.columns_bf16(want, 50, width, a, two ? c : NULL, n);
                CHECK_MSG(!memcmp(got, want, sizeof got), "%s: %d columns in %d differ", b->level, n, width);
            }
        if (width == PANEL_ROWS) break;
    }
}
TEST(columns_become_pairs) { each_level(check_columns); }

/* Where column i of token t stands in tiles of BF16 that are `step` apart: between pairs of other tokens, or in a row of 32. */
static int64_t half_at(const struct kernels *k, int64_t step, int64_t t, int64_t i)
{
    int64_t nt = k->tile_tokens, in = k->has_chunks ? (i / 32 * nt + t % nt) * 32 + i % 32 : (i / 2 * nt + t % nt) * 2 + i % 2;
    return t / nt * step + in;
}

static void check_tile_columns(struct bench *b)
{
    enum { ROWS = 2 * TILE_TOKENS_MAX + 1, COLUMNS = 70, STEP = 96 * TILE_TOKENS_MAX + 32, ROOM = (ROWS + 1) * STEP };
    static uint16_t got[ROOM], none[ROOM];
    static float x[COLUMNS][ROWS];
    memset(none, 0x5a, sizeof none);
    for (int i = 0; i < COLUMNS; i++) fill(x[i], ROWS, (uint64_t)i);
    x[3][4] = NAN, x[4][5] = INFINITY, x[5][6] = -0.0f;
    for (int n = 1; n <= ROWS; n++) {
        int columns = COLUMNS - n % 3, nt = b->k.tile_tokens;
        memset(got, 0x5a, sizeof got);
        for (int from = 0, end = 2 * (n % 18); from < columns; from = end, end = columns)
            if (end > from) b->k.tile_columns_bf16(&b->k, got, STEP, from, x[from], ROWS, end - from, n);
        for (int t = 0; t < (n + nt - 1) / nt * nt; t++)
            for (int i = 0; i < (columns + 1) / 2 * 2; i++) {
                uint16_t want = t < n && i < columns ? f32_to_bf16(x[i][t]) : 0, *at = &got[half_at(&b->k, STEP, t, i)];
                CHECK_MSG(*at == want, "%s: %d tokens: token %d column %d", b->level, n, t, i);
                *at = none[0];
            }
        CHECK_MSG(!memcmp(got, none, sizeof got), "%s: %d tokens: written outside of their columns", b->level, n);
    }
}
TEST(columns_become_tiles) { each_level(check_tile_columns); }

static void check_scaled_tile(struct bench *b)
{
    enum { N = 75, ROOM = 96 * TILE_TOKENS_MAX };
    static uint16_t x[ROOM], got[ROOM + 8];
    float f[TILE_TOKENS_MAX];
    uint64_t seed = 3;
    for (int i = 0; i < ROOM; i++) x[i] = f32_to_bf16(test_randn(&seed));
    fill(f, TILE_TOKENS_MAX, 4);
    for (int n = 0; n <= N; n++) {
        memset(got, 0x5a, sizeof got);
        b->k.scale_tile_bf16(&b->k, got, x, f, n);
        for (int t = 0; t < b->k.tile_tokens; t++)
            for (int i = 0; i < n; i++) {
                int64_t at = half_at(&b->k, 0, t, i);
                CHECK_MSG(got[at] == f32_to_bf16(bf16_to_f32(x[at]) * f[t]), "%s: %d columns: token %d column %d", b->level, n, t, i);
            }
        for (int64_t i = (n + 31) / 32 * 32 * b->k.tile_tokens; i < ROOM + 8; i++) CHECK(got[i] == 0x5a5a);
    }
}
TEST(tiles_times_factors) { each_level(check_scaled_tile); }

/* Columns of normal numbers around -2, of which the first call sees `before` rows. NaN and infinities where they have to show, and nowhere else. */
static void check_softmax(struct bench *b)
{
    enum { N = 41, STRIDE = PANEL_ROWS + 3, ACC = 5 };
    for (int before = 0; before <= N; before += 1 + before / 4) {
        static float s[N * STRIDE + 1], p[N * PANEL_ROWS + 1], acc[ACC * STRIDE];
        float max[PANEL_ROWS], sum[PANEL_ROWS];
        fill(s, N * STRIDE + 1, 5);
        for (int i = 0; i < N * STRIDE; i++) s[i] = i % 11 ? 4 * s[i] - 2 : -INFINITY;
        for (int c = 0; c < PANEL_ROWS; c++) max[c] = c % 2 ? -FLT_MAX : 0.5f, sum[c] = c % 2 ? 0 : 1;
        for (int i = 0; i < N; i++) s[i * STRIDE + 3] = -INFINITY;
        s[7 * STRIDE + 8] = NAN, s[9 * STRIDE + 9] = INFINITY, p[N * PANEL_ROWS] = 3;
        for (int i = 0; i < ACC * STRIDE; i++) acc[i] = (float)i;
        for (int call = 0; call < 2; call++) {
            int64_t from = call ? before : 0, n = call ? N - before : before;
            struct softmax_args a = { .s = s + from * STRIDE, .p = p + from * PANEL_ROWS, .max = max, .sum = sum, .acc = acc, .stride = STRIDE, .n = n,
                                      .acc_stride = STRIDE, .n_acc = ACC };
            b->k.softmax_columns(&a);
        }
        CHECK(p[N * PANEL_ROWS] == 3 && acc[PANEL_ROWS] == PANEL_ROWS && acc[PANEL_ROWS + 1] == PANEL_ROWS + 1);
        for (int c = 0; c < PANEL_ROWS; c++) {
            double first = c % 2 ? -(double)FLT_MAX : 0.5, top = first, top_then = first, all = 0;
            for (int i = 0; i < N; i++) {
                if (i == before) top_then = top;
                if ((double)s[i * STRIDE + c] > top) top = (double)s[i * STRIDE + c];
            }
            if (before == N) top_then = top;
            CHECK((double)max[c] == top);
            for (int i = 0; i < N; i++) {
                double x = (double)s[i * STRIDE + c], at = i < before ? top_then : top, want = exp((double)((float)x - (float)at));
                double got = (double)p[i * PANEL_ROWS + c];
                all += exp(x - top);
                if (isnan(want)) CHECK(isnan(got));
                else CHECK_MSG(fabs(got - want) <= 1e-6 * want + 1e-37, "%s: exp(%g - %g) is %g", b->level, x, at, got);
            }
            if (c % 2 == 0) all += exp(first - top);
            if (isnan(all)) CHECK(isnan((double)sum[c]));
            else CHECK_NEAR((double)sum[c], all, 2e-6 * all);
            for (int i = 0; i < ACC && c != 9; i++) CHECK_NEAR((double)acc[i * STRIDE + c], (i * STRIDE + c) * exp(first - top), 2e-6 * (i * STRIDE + c));
        }
    }
}
TEST(softmax_of_columns_follows_their_maxima) { each_level(check_softmax); }

static void check_softmax_grad(struct bench *b)
{
    enum { N = 13, STRIDE = PANEL_ROWS + 5 };
    for (int n = 0; n <= N; n++) {
        static float s[N * STRIDE], d[N * STRIDE], p[N * STRIDE], e[N * STRIDE];
        float lse[PANEL_ROWS], mean[PANEL_ROWS];
        fill(s, N * STRIDE, 6), fill(d, N * STRIDE, 7), fill(mean, PANEL_ROWS, 8);
        for (int c = 0; c < PANEL_ROWS; c++) lse[c] = 0.1f * (float)c;
        lse[5] = INFINITY, s[2 * STRIDE + 1] = -INFINITY, s[3 * STRIDE + 2] = NAN;
        memcpy(p, s, sizeof p), memcpy(e, d, sizeof e);
        b->k.softmax_grad(&(struct softmax_grad_args){ p, e, lse, mean, STRIDE, n });
        for (int i = 0; i < N * STRIDE; i++) {
            int c = i % STRIDE;
            if (i / STRIDE >= n || c >= PANEL_ROWS) {
                CHECK(!memcmp(p + i, s + i, sizeof *p) && !memcmp(e + i, d + i, sizeof *e));
                continue;
            }
            double want = exp((double)s[i] - (double)lse[c]), back = want * ((double)d[i] - (double)mean[c]);
            if (isnan(want)) CHECK(isnan(p[i]) && isnan(e[i]));
            else CHECK(fabs((double)p[i] - want) <= 1e-6 * want && fabs((double)e[i] - back) <= 1e-6 * want * (fabs((double)d[i]) + fabs((double)mean[c])));
        }
    }
}
TEST(softmax_grad_is_its_formula) { each_level(check_softmax_grad); }

/* ---- dx = dy W ---- */

static void check_matmul_t(struct bench *b, const struct dtype *t, int64_t n, int64_t k, int64_t rows)
{
    struct tensor w;
    tensor_shape(&w, t, k, n, 1, 1);
    w.data = malloc(tensor_bytes(&w));
    fill_weights(t, w.data, n * k / t->block_len, (uint64_t)(n + k));
    size_t bytes = (size_t)(rows * k) * sizeof(float);
    float *x = malloc((size_t)(rows * n) * sizeof *x), *y = malloc(bytes), *again = malloc(bytes), *row = malloc((size_t)k * sizeof *row);
    double *want = calloc((size_t)(rows * k), sizeof *want), *terms = calloc((size_t)(rows * k), sizeof *terms);
    fill(x, rows * n, 3);
    for (int64_t i = 0; i < n; i++) {
        dtype_to_f32(t, (uint8_t *)w.data + (size_t)i * w.nb[1], row, k);
        for (int64_t r = 0; r < rows; r++)
            for (int64_t c = 0; c < k; c++) {
                double v = (double)as_read(b, row[c]) * (double)as_read(b, x[r * n + i]);
                want[r * k + c] += v, terms[r * k + c] += fabs(v);
            }
    }
    for (int threads = 1; threads <= THREADS; threads++) {
        bench_open(b, rows);
        val out = op_matmul_t(&b->p, plan_weight(&b->p, &w), input(&b->p, n, rows, x));
        plan_keep(&b->p, out);
        bench_run(b, &(struct batch){ .n_rows = rows, .n_out = rows }, threads, out, threads > 1 ? again : y);
        CHECK_MSG(threads == 1 || !memcmp(y, again, bytes), "%s %s: %d threads change bits", b->level, t->name, threads);
        plan_free(&b->p);
    }
    double worst = 0;
    for (int64_t i = 0; i < rows * k; i++) {
        double d = fabs((double)y[i] - want[i]) / (terms[i] + 1e-30);
        if (!(d <= worst)) worst = d;
    }
    CHECK_MSG(worst <= 2e-6, "%s %s [%d][%d], %d rows: off by %g of the terms", b->level, t->name, (int)n, (int)k, (int)rows, worst);
    free(w.data), free(x), free(y), free(again), free(row), free(want), free(terms);
}

static void check_formats(struct bench *b)
{
    for (int i = 0; i < dtype_count; i++)
        if (dtypes[i]->group_len || is_float(dtypes[i])) check_matmul_t(b, dtypes[i], 37, 256, 13);
}
TEST(matmul_t_reads_every_format) { each_level(check_formats); }

static void check_shapes(struct bench *b)
{
    const struct dtype *f32 = dtype_by_id(GGUF_F32);
    static const int64_t shapes[][3] = { { 8, 40, 17 }, { 40, 8, 17 }, { 1, 1, 1 }, { 3, 5, 2 }, { 600, 336, 30 }, { 1100, 21, 3 }, { 17, 700, 130 } };
    for (int i = 0; i < ARRAY_LEN(shapes); i++) check_matmul_t(b, f32, shapes[i][0], shapes[i][1], shapes[i][2]);
    check_matmul_t(b, dtype_by_id(GGUF_Q8_0), 530, 352, 1);
    check_matmul_t(b, dtype_by_id(GGUF_Q4_K), 70, 768, 29);
}
TEST(matmul_t_of_ragged_shapes) { each_level(check_shapes); }

/* ---- dW += dy^T x ---- */

static void check_outer(struct bench *b, int64_t n, int64_t k, int64_t rows)
{
    size_t bytes = (size_t)(n * k) * sizeof(float);
    float *dy = malloc((size_t)(rows * n) * sizeof *dy), *x = malloc((size_t)(rows * k) * sizeof *x), *start = malloc(bytes), *y = malloc(bytes);
    float *again = malloc(bytes);
    fill(dy, rows * n, 1), fill(x, rows * k, 2), fill(start, n * k, 3);
    for (int threads = 1; threads <= THREADS; threads++) {
        float *to = threads > 1 ? again : y;
        memcpy(to, start, bytes);
        bench_open(b, rows);
        op_outer(&b->p, input(&b->p, n, rows, dy), input(&b->p, k, rows, x), input(&b->p, k, n, to));
        bench_run(b, &(struct batch){ .n_rows = rows, .n_out = rows }, threads, VAL_NONE, NULL);
        CHECK_MSG(threads == 1 || !memcmp(y, again, bytes), "%s: %d threads change bits", b->level, threads);
        plan_free(&b->p);
    }
    double worst = 0;
    for (int64_t i = 0; i < n; i++)
        for (int64_t c = 0; c < k; c++) {
            double want = (double)start[i * k + c], terms = fabs(want);
            for (int64_t r = 0; r < rows; r++) {
                double v = (double)as_read(b, dy[r * n + i]) * (double)as_read(b, x[r * k + c]);
                want += v, terms += fabs(v);
            }
            double d = fabs((double)y[i * k + c] - want) / terms;
            if (!(d <= worst)) worst = d;
        }
    CHECK_MSG(worst <= 2e-6, "%s [%d][%d], %d rows: off by %g of the terms", b->level, (int)n, (int)k, (int)rows, worst);
    free(dy), free(x), free(start), free(y), free(again);
}

static void check_outers(struct bench *b)
{
    static const int64_t shapes[][3] = { { 1, 1, 1 }, { 8, 70, 33 }, { 70, 8, 33 }, { 250, 100, 5 }, { 16, 32, 1030 }, { 490, 35, 2 }, { 33, 47, 513 } };
    for (int i = 0; i < ARRAY_LEN(shapes); i++) check_outer(b, shapes[i][0], shapes[i][1], shapes[i][2]);
}
TEST(outer_adds_the_sum_over_rows) { each_level(check_outers); }

/* ---- attention ---- */

enum { SEGS = 3 };
struct attn_case { struct attn_spec s; bool sinks; int64_t n[SEGS]; };
static const struct attn_case attn_cases[] = {
    { { .n_head = 4, .n_head_kv = 2, .head_dim = 16, .head_dim_v = 16, .scale = 0.25f }, false, { 37, 1, 5 } },
    { { .n_head = 2, .n_head_kv = 1, .head_dim = 64, .head_dim_v = 64, .scale = 0.125f }, true, { 130, 96 } },
    { { .n_head = 2, .n_head_kv = 2, .head_dim = 24, .head_dim_v = 8, .scale = 0.2f, .window = 10 }, false, { 230, 7 } },
    { { .n_head = 3, .n_head_kv = 3, .head_dim = 40, .head_dim_v = 56, .scale = 0.3f, .cap = 2, .alibi = 8 }, false, { 61, 98 } },
    { { .n_head = 1, .n_head_kv = 1, .head_dim = 8, .head_dim_v = 8, .scale = 0.5f, .window = 1100 }, true, { 1300 } },
};

/* Everything in double: y = attention(q, k, v), and for the loss sum dy y the gradients in the order of the op's result. */
struct attn_ref {
    const struct attn_case *c;
    int64_t rows, nq, nk, nv, no, width;
    double *q, *k, *v, *dy, *y, *d, *p;
    float sinks[8];
};

static double *random_doubles(int64_t n, uint64_t seed)
{
    double *x = malloc((size_t)n * sizeof *x);
    for (int64_t i = 0; i < n; i++) x[i] = (double)test_randn(&seed); /* floats exactly */
    return x;
}

static void attn_ref_open(struct attn_ref *a, const struct attn_case *c)
{
    const struct attn_spec *s = &c->s;
    *a = (struct attn_ref){ .c = c, .nq = s->n_head * s->head_dim, .nk = s->n_head_kv * s->head_dim, .nv = s->n_head_kv * s->head_dim_v };
    a->no = s->n_head * s->head_dim_v, a->width = a->nq + a->nk + a->nv;
    for (int i = 0; i < SEGS; i++) a->rows += c->n[i];
    a->q = random_doubles(a->rows * a->nq, 1), a->k = random_doubles(a->rows * a->nk, 2), a->v = random_doubles(a->rows * a->nv, 3);
    a->dy = random_doubles(a->rows * a->no, 4), a->y = calloc((size_t)(a->rows * a->no), sizeof *a->y);
    a->d = calloc((size_t)(a->rows * a->width), sizeof *a->d), a->p = calloc((size_t)a->rows + 1, sizeof *a->p);
    for (int i = 0; i < ARRAY_LEN(a->sinks); i++) a->sinks[i] = 0.5f * (float)i - 0.25f;
}

static void attn_ref_close(struct attn_ref *a) { free(a->q), free(a->k), free(a->v), free(a->dy), free(a->y), free(a->d), free(a->p); }

/* Weights of keys first .. i of row `row` (its position in the segment is i), and the derivatives of their logits by q k. */
static int64_t attn_ref_row(const struct attn_ref *a, int64_t row, int64_t i, int h, double *p, double *slope_of)
{
    const struct attn_spec *s = &a->c->s;
    int64_t first = s->window > 0 && i >= s->window ? i - s->window + 1 : 0, hd = s->head_dim, kv = h / (s->n_head / s->n_head_kv);
    double sum = 0, alibi = s->alibi > 0 ? pow(2, -(double)s->alibi * (h < 2 ? h + 1.0 : 0.5 * (2 * (h - 2) + 1)) / 2) : 0;
    if (s->n_head == 1 && s->alibi > 0) alibi = pow(2, -(double)s->alibi);
    for (int64_t j = first; j <= i; j++) {
        double z = 0;
        for (int64_t c = 0; c < hd; c++) z += a->q[row * a->nq + h * hd + c] * a->k[(row - i + j) * a->nk + kv * hd + c];
        z *= (double)s->scale;
        double t = s->cap > 0 ? tanh(z / (double)s->cap) : 0;
        slope_of[j] = (double)s->scale * (1 - t * t);
        if (s->cap > 0) z = (double)s->cap * t;
        p[j] = exp(z + alibi * (double)(j - i));
        sum += p[j];
    }
    if (a->c->sinks) sum += exp((double)a->sinks[h]);
    for (int64_t j = first; j <= i; j++) p[j] /= sum;
    return first;
}

static double attn_ref_run(struct attn_ref *a, bool back)
{
    const struct attn_spec *s = &a->c->s;
    int64_t hd = s->head_dim, vd = s->head_dim_v, row = 0;
    double loss = 0, *bend = malloc((size_t)a->rows * sizeof *bend);
    for (int seg = 0; seg < SEGS; seg++)
        for (int64_t i = 0; i < a->c->n[seg]; i++, row++)
            for (int h = 0; h < s->n_head; h++) {
                int64_t first = attn_ref_row(a, row, i, h, a->p, bend), kv = h / (s->n_head / s->n_head_kv);
                double *y = a->y + row * a->no + h * vd, *dy = a->dy + row * a->no + h * vd, sum = 0;
                memset(y, 0, (size_t)vd * sizeof *y);
                for (int64_t j = first; j <= i; j++)
                    for (int64_t c = 0; c < vd; c++) y[c] += a->p[j] * a->v[(row - i + j) * a->nv + kv * vd + c];
                for (int64_t c = 0; c < vd; c++) sum += dy[c] * y[c];
                loss += sum;
                for (int64_t j = first; back && j <= i; j++) {
                    const double *v = a->v + (row - i + j) * a->nv + kv * vd, *k = a->k + (row - i + j) * a->nk + kv * hd;
                    const double *q = a->q + row * a->nq + h * hd;
                    double dp = 0, *dq = a->d + row * a->width + h * hd, *dk = a->d + (row - i + j) * a->width + a->nq + kv * hd;
                    double *dv = a->d + (row - i + j) * a->width + a->nq + a->nk + kv * vd;
                    for (int64_t c = 0; c < vd; c++) dp += dy[c] * v[c], dv[c] += a->p[j] * dy[c];
                    double ds = a->p[j] * (dp - sum) * bend[j];
                    for (int64_t c = 0; c < hd; c++) dq[c] += ds * k[c], dk[c] += ds * q[c];
                }
            }
    free(bend);
    return loss;
}

/* The reference itself, by differences. */
TEST(attention_reference_has_the_slopes_of_its_loss)
{
    for (int i = 0; i < ARRAY_LEN(attn_cases) - 1; i++) {
        struct attn_ref a;
        uint64_t seed = 9;
        attn_ref_open(&a, &attn_cases[i]);
        attn_ref_run(&a, true);
        for (int t = 0; t < 9; t++) {
            double *x = t % 3 == 0 ? a.q : t % 3 == 1 ? a.k : a.v;
            int64_t n = t % 3 == 0 ? a.nq : t % 3 == 1 ? a.nk : a.nv, at = t % 3 == 0 ? 0 : t % 3 == 1 ? a.nq : a.nq + a.nk;
            int64_t row = (int64_t)(test_rand(&seed) % (uint64_t)a.rows), c = (int64_t)(test_rand(&seed) % (uint64_t)n);
            double keep = x[row * n + c], up, down;
            x[row * n + c] = keep + 1e-5, up = attn_ref_run(&a, false);
            x[row * n + c] = keep - 1e-5, down = attn_ref_run(&a, false);
            x[row * n + c] = keep;
            CHECK_NEAR(a.d[row * a.width + at + c], (up - down) / 2e-5, 1e-6);
        }
        attn_ref_close(&a);
    }
}

static float *floats_of(const double *x, int64_t n)
{
    float *y = malloc((size_t)n * sizeof *y);
    for (int64_t i = 0; i < n; i++) y[i] = (float)x[i];
    return y;
}

/* Of columns c0 .. c1: the error of all of them beside their size, and of each beside the largest. */
static void check_close(const struct bench *b, const char *what, const float *got, const double *want, int64_t rows, int64_t width, int64_t c0, int64_t c1,
                        double bound)
{
    double error = 0, size = 0, worst = 0, top = 0;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t c = c0; c < c1; c++) {
            double d = (double)got[i * width + c] - want[i * width + c];
            error += d * d, size += want[i * width + c] * want[i * width + c];
            if (!(fabs(d) <= worst)) worst = fabs(d);
            if (fabs(want[i * width + c]) > top) top = fabs(want[i * width + c]);
        }
    CHECK_MSG(sqrt(error / size) <= bound && worst <= 4 * bound * top, "%s%s: %s is off by %g of its size, at worst by %g of its largest", b->level,
              b->precise ? ", precise" : "", what, sqrt(error / size), worst / top);
}

static void check_attention(struct bench *b)
{
    for (int i = 0; i < ARRAY_LEN(attn_cases); i++) {
        struct attn_ref a;
        attn_ref_open(&a, &attn_cases[i]);
        attn_ref_run(&a, true);
        float *q = floats_of(a.q, a.rows * a.nq), *k = floats_of(a.k, a.rows * a.nk), *v = floats_of(a.v, a.rows * a.nv);
        float *dy = floats_of(a.dy, a.rows * a.no), *y = malloc((size_t)(a.rows * a.no) * sizeof *y);
        size_t bytes = (size_t)(a.rows * a.width) * sizeof(float);
        float *got = malloc(bytes), *again = malloc(bytes);
        struct batch_segment seg[SEGS];
        int n_seg = 0;
        for (int64_t row = 0; n_seg < SEGS && a.c->n[n_seg]; row += a.c->n[n_seg++]) seg[n_seg] = (struct batch_segment){ .row = row, .n = a.c->n[n_seg] };
        for (int threads = 1; threads <= THREADS; threads++) {
            bench_open(b, a.rows);
            struct plan *p = &b->p;
            val sinks = a.c->sinks ? input(p, a.c->s.n_head, 1, a.sinks) : VAL_NONE;
            val in[] = { input(p, a.nq, a.rows, q), input(p, a.nk, a.rows, k), input(p, a.nv, a.rows, v) };
            val result = op_attn_whole(p, &a.c->s, in[0], in[1], in[2], sinks);
            val out = op_attn_grad(p, &a.c->s, in[0], in[1], in[2], result, input(p, a.no, a.rows, dy));
            plan_keep(p, result), plan_keep(p, out);
            struct batch batch = { .n_rows = a.rows, .n_out = a.rows, .seg = seg, .n_seg = n_seg };
            bench_run(b, &batch, threads, out, threads > 1 ? again : got);
            CHECK_MSG(threads == 1 || !memcmp(got, again, bytes), "%s: %d threads change bits", b->level, threads);
            bench_run(b, &batch, threads, result, y);
            plan_free(p);
        }
        double bound = is_bf16(b) ? 5e-3 : 3e-6;
        check_close(b, "y", y, a.y, a.rows, a.no, 0, a.no, bound);
        check_close(b, "dq", got, a.d, a.rows, a.width, 0, a.nq, bound);
        check_close(b, "dk", got, a.d, a.rows, a.width, a.nq, a.nq + a.nk, bound);
        check_close(b, "dv", got, a.d, a.rows, a.width, a.nq + a.nk, a.width, bound);
        free(q), free(k), free(v), free(y), free(dy), free(got), free(again);
        attn_ref_close(&a);
    }
}
TEST(attention_gradients_are_those_of_the_formula) { each_level(check_attention); }

/* ---- scores ---- */

struct score_case { int64_t n_vocab, k, rows; float scale, cap; const char *type; };

static void score_reference(const struct score_case *c, const float *w, const float *x, const int32_t *target, const float *weight, double *dx)
{
    double *y = malloc((size_t)c->n_vocab * sizeof *y), *bend = malloc((size_t)c->n_vocab * sizeof *bend);
    for (int64_t t = 0; t < c->rows; t++) {
        double sum = 0, scale = c->scale != 0 ? (double)c->scale : 1;
        for (int64_t i = 0; i < c->n_vocab; i++) {
            double z = 0;
            for (int64_t j = 0; j < c->k; j++) z += (double)w[i * c->k + j] * (double)x[t * c->k + j];
            double u = c->cap > 0 ? tanh(scale * z / (double)c->cap) : 0;
            y[i] = exp(c->cap > 0 ? (double)c->cap * u : scale * z), bend[i] = scale * (1 - u * u);
            sum += y[i];
        }
        for (int64_t i = 0; i < c->n_vocab; i++) {
            double g = (double)weight[t] * bend[i] * (y[i] / sum - (i == target[t]));
            for (int64_t j = 0; j < c->k; j++) dx[t * c->k + j] += g * (double)w[i * c->k + j];
        }
    }
    free(y), free(bend);
}

/* What a score keeps for its gradient changes no bit. */
static void check_score(struct bench *b, const struct score_case *c)
{
    struct tensor w;
    const struct dtype *type = dtype_by_name(c->type);
    tensor_shape(&w, type, c->k, c->n_vocab + 3, 1, 1);
    w.data = malloc(tensor_bytes(&w));
    fill_weights(type, w.data, (c->n_vocab + 3) * c->k / type->block_len, 21);
    int64_t n = c->rows * c->k;
    float *x = malloc((size_t)n * sizeof *x), *got = malloc((size_t)n * sizeof *got), *again = malloc((size_t)n * sizeof *again);
    float *weight = malloc((size_t)c->rows * sizeof *weight), *floats = malloc((size_t)(c->n_vocab * c->k) * sizeof *floats);
    int32_t *target = malloc((size_t)c->rows * sizeof *target);
    double *want = calloc((size_t)n, sizeof *want);
    dtype_to_f32(type, w.data, floats, c->n_vocab * c->k);
    fill(x, n, 22), fill(weight, c->rows, 23);
    for (int64_t t = 0; t < c->rows; t++) target[t] = (int32_t)(t * 7919 % c->n_vocab);
    if (c->rows > 1) weight[c->rows / 2] = 0;
    score_reference(c, floats, x, target, weight, want);
    for (int i = 0; i < 2 * THREADS; i++) {
        int threads = i / 2 + 1;
        bench_open(b, c->rows);
        b->p.score_room = i % 2 ? (size_t)1 << 24 : 0;
        (void)op_score(&b->p, plan_weight(&b->p, &w), input(&b->p, c->k, c->rows, x), c->n_vocab, c->scale, c->cap);
        val dx = op_score_grad(&b->p, &b->p.op[b->p.n_op - 2], VAL_NONE);
        plan_keep(&b->p, dx);
        struct batch batch = { .n_rows = c->rows, .n_out = c->rows, .target = target, .weight = weight };
        bench_run(b, &batch, threads, dx, i > 0 ? again : got);
        CHECK_MSG(i == 0 || !memcmp(got, again, (size_t)n * sizeof *got), "%s: %d threads or what is kept change bits", b->level, threads);
        plan_free(&b->p);
    }
    check_close(b, c->type, got, want, c->rows, c->k, 0, c->k, is_bf16(b) ? 5e-3 : 1e-5);
    for (int64_t i = 0; i < c->k && c->rows > 1; i++) CHECK(got[c->rows / 2 * c->k + i] == 0);
    free(w.data), free(x), free(got), free(again), free(weight), free(floats), free(target), free(want);
}

static void check_scores(struct bench *b)
{
    static const struct score_case cases[] = {
        { 8709, 24, 14, 0, 0, "f32" }, { 300, 40, 7, 0.5f, 3, "f32" }, { 513, 40, 1, 0, 0, "f16" }, { 17, 256, 3, 0.1f, 0, "f32" },
    };
    for (int i = 0; i < ARRAY_LEN(cases); i++) check_score(b, &cases[i]);
    struct score_case codes = { 700, 256, 9, 3e-4f, 0, "q4_k" };
    if (is_bf16(b)) check_score(b, &codes); /* activations of 8 bits stay below the bound of BF16 */
}
TEST(score_gradients_are_those_of_the_formula) { each_level(check_scores); }

SUITE(grad_ops, T(weights_become_the_floats_of_their_format), T(columns_become_pairs), T(columns_become_tiles), T(softmax_of_columns_follows_their_maxima),
      T(softmax_grad_is_its_formula), T(tiles_times_factors), T(matmul_t_reads_every_format), T(matmul_t_of_ragged_shapes),
      T(outer_adds_the_sum_over_rows), T(attention_reference_has_the_slopes_of_its_loss), T(attention_gradients_are_those_of_the_formula),
      T(score_gradients_are_those_of_the_formula));
