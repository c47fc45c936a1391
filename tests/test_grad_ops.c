/* test_grad_ops - the gradients of matmuls, attention and scores by themselves: every ISA level, every format, against sums in double precision; bits for any
 * number of threads. What a pass makes of them is in test_grad.c. */
#include "ggml-like/cpu.h"
#include "ggml-like/kernels/kernels.h"
#include "ggml-like/ops.h"
#include "tests/test.h"

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
    for (int width = b->k.tile_tokens;; width = PANEL_ROWS) {
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

static void check_mul_sub(struct bench *b)
{
    enum { N = 70 };
    float x[N], y[N], got[N + 1];
    fill(x, N, 1), fill(y, N, 2);
    for (int n = 0; n <= N; n++) {
        got[n] = 7;
        b->k.mul_sub(got, x, y, 0.3f, n);
        for (int i = 0; i < n; i++) CHECK(got[i] == x[i] * (y[i] - 0.3f));
        CHECK(got[n] == 7);
    }
}
TEST(products_of_differences) { each_level(check_mul_sub); }

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

SUITE(grad_ops, T(weights_become_the_floats_of_their_format), T(columns_become_pairs), T(products_of_differences), T(matmul_t_reads_every_format),
      T(matmul_t_of_ragged_shapes), T(outer_adds_the_sum_over_rows));
