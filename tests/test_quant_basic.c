/* test_quant_basic - statistics against a plain double reference; absmax and zero-point against their formulas, and the exactness of what
 * is stored; outlier columns, and a model that has them; reports and explanations of hostile files. */
#include <fcntl.h>
#include <unistd.h>
#include "ggml-like/cpu.h"
#include "ggml-like/formats/formats.h"
#include "ggml-like/kernels/kernels.h"
#include "quant/outliers.h"
#include "quant/stats.h"
#include "quant/techniques.h"
#include "src/cuanto.h"
#include "src/model_int.h"
#include "tests/test.h"
#include "tests/tiny.h"
#include "tools/explain.h"
#include "tools/quant_report.h"

enum { ROWS = 5, COLS_MAX = 1024 };
struct room {
    float x[ROWS * COLS_MAX], y[ROWS * COLS_MAX], w[COLS_MAX], scratch[COLS_MAX];
    _Alignas(8) uint8_t q[ROWS * COLS_MAX * 8];
};

static struct room *room_new(void)
{
    struct room *r = mem_alloc(sizeof *r);
    if (!r) abort();
    return r;
}

/* ---- statistics ---- */

static int bin_of(double x, double rms)
{
    double t = rms > 0 ? floor((x / rms + 4) * (STATS_BINS / 8.0)) : STATS_BINS / 2;
    return t < 0 ? 0 : t > STATS_BINS - 1 ? STATS_BINS - 1 : (int)t;
}

static void plain_row(struct quant_stats *s, const float *x, const float *y, const float *w, int64_t n)
{
    double x2 = 0, e2 = 0;
    for (int64_t i = 0; i < n; i++) {
        double a = x[i], b = y[i], e = (double)(x[i] - y[i]), u = w ? w[i] : 1;
        if (s->n == 0 || x[i] < s->lo) s->lo = x[i];
        if (s->n == 0 || x[i] > s->hi) s->hi = x[i];
        s->n++;
        s->max_abs = fmaxf(s->max_abs, fabsf(x[i]));
        s->max_err = fmaxf(s->max_err, fabsf(x[i] - y[i]));
        x2 += a * a, e2 += e * e;
        s->y2 += b * b, s->xy += a * b, s->wx2 += u * a * a, s->we2 += u * e * e;
    }
    s->x2 += x2, s->e2 += e2;
    double rms = sqrt(x2 / (double)n), err = sqrt(e2 / (double)n);
    for (int64_t i = 0; i < n; i++) {
        s->outliers += fabs((double)x[i]) > 6 * rms;
        s->hist[bin_of(x[i], rms)]++;
        s->err_hist[bin_of((double)(x[i] - y[i]), err)]++;
    }
}

static bool near(double a, double b) { return fabs(a - b) <= 1e-6 * fabs(b); }

/* Elements in another bin: values at an edge may fall on either side. */
static int64_t moved(const int64_t *a, const int64_t *b)
{
    int64_t n = 0;
    for (int i = 0; i < STATS_BINS; i++) n += a[i] > b[i] ? a[i] - b[i] : b[i] - a[i];
    return n / 2;
}

static void check_stats(const struct quant_stats *s, const struct quant_stats *r)
{
    CHECK(s->n == r->n);
    CHECK_MSG(near(s->x2, r->x2) && near(s->y2, r->y2) && near(s->e2, r->e2), "squares %g %g %g, not %g %g %g", s->x2, s->y2, s->e2, r->x2,
              r->y2, r->e2);
    CHECK_MSG(fabs(s->xy - r->xy) <= 1e-6 * (r->x2 + r->y2), "xy %g, not %g", s->xy, r->xy);
    CHECK_MSG(near(s->wx2, r->wx2) && near(s->we2, r->we2), "weighted %g %g, not %g %g", s->wx2, s->we2, r->wx2, r->we2);
    CHECK(s->lo == r->lo && s->hi == r->hi && s->max_abs == r->max_abs && s->max_err == r->max_err);
    CHECK_MSG(s->outliers == r->outliers, "%lld outliers, not %lld", (long long)s->outliers, (long long)r->outliers);
    CHECK_MSG(moved(s->hist, r->hist) <= s->n / 500, "%lld weights in other bins", (long long)moved(s->hist, r->hist));
    CHECK_MSG(moved(s->err_hist, r->err_hist) <= s->n / 500 + 1, "%lld errors in other bins", (long long)moved(s->err_hist, r->err_hist));
}

static void fill(struct room *r, int64_t n, float scale, uint64_t *seed)
{
    for (int64_t i = 0; i < ROWS * n; i++) r->x[i] = scale * test_randn(seed) * (i % 97 == 5 ? 12.0f : 1.0f);
    for (int64_t i = 0; i < n; i++) r->w[i] = expf(2 * test_randn(seed));
    if (scale != 0) memset(r->x + n, 0, (size_t)n * sizeof *r->x); /* one row of zeros */
}

static void run_stats(struct room *r, const struct kernels *k, const struct dtype *t, const float *w, int64_t n)
{
    struct quant_stats s = { 0 }, plain = { 0 };
    dtype_to_f32(t, r->q, r->y, ROWS * n);
    for (int i = 0; i < ROWS; i++) plain_row(&plain, r->x + i * n, r->y + i * n, w, n);
    stats_rows(&s, k, t, r->x, r->q, w, ROWS, n, r->scratch);
    check_stats(&s, &plain);
    CHECK_NEAR(stats_rmse(&s), sqrt(plain.e2 / (double)plain.n), 1e-6 * sqrt(plain.e2 / (double)plain.n));
}

TEST(stats_equal_a_plain_sum_for_every_format)
{
    struct cpu_info cpu;
    struct kernels k;
    struct room *r = room_new();
    uint64_t seed = 1;
    cpu_detect(&cpu);
    kernels_init(&k, cpu.features);
    for (int i = 0; i < dtype_count; i++) {
        const struct dtype *t = dtypes[i];
        if (!t->pack) continue;
        for (int64_t n = t->block_len; n <= 1024; n = n * 2 + t->block_len) {
            fill(r, n, 0.05f, &seed);
            dtype_from_f32(t, r->x, r->q, ROWS * n);
            run_stats(r, &k, t, n % 64 ? NULL : r->w, n);
        }
    }
    mem_free(r);
}

/* Squares of these leave the range of f32. */
TEST(stats_hold_at_any_magnitude)
{
    struct kernels k;
    struct room *r = room_new();
    uint64_t seed = 2;
    kernels_init(&k, 0);
    for (int e = -140; e <= 120; e += 20) {
        fill(r, 256, ldexpf(1.0f, e), &seed);
        for (int i = 0; i < ROWS * 256; i++) ((float *)(void *)r->q)[i] = r->x[i] * (1 + 0.01f * test_randf(&seed));
        run_stats(r, &k, &dtype_f32, r->w, 256);
    }
    for (int i = 0; i < 256; i++) r->w[i] = 1e30f;
    run_stats(r, &k, &dtype_f32, r->w, 256);
    mem_free(r);
}

TEST(stats_are_the_same_bits_on_every_level)
{
    struct cpu_info cpu;
    struct room *r = room_new();
    uint64_t seed = 3;
    cpu_detect(&cpu);
    fill(r, 768, 0.02f, &seed);
    dtype_from_f32(&dtype_q4_k, r->x, r->q, ROWS * 768);
    struct quant_stats first = { 0 };
    for (int i = 0; i < isa_count; i++) {
        if ((cpu.features & isa_table[i].need) != isa_table[i].need) continue;
        struct kernels k;
        struct quant_stats s = { 0 };
        uint64_t features;
        CHECK(isa_features(isa_table[i].name, &cpu, &features, NULL) == OK);
        kernels_init(&k, features);
        stats_rows(&s, &k, &dtype_q4_k, r->x, r->q, r->w, ROWS, 768, r->scratch);
        if (i == 0) first = s;
        CHECK_MSG(!memcmp(&first, &s, sizeof s), "level %s", isa_table[i].name);
    }
    CHECK(first.n == ROWS * 768 && first.e2 > 0);
    mem_free(r);
}

TEST(stats_join_adds_up)
{
    struct kernels k;
    struct room *r = room_new();
    uint64_t seed = 4;
    kernels_init(&k, 0);
    fill(r, 64, 1.0f, &seed);
    dtype_from_f32(&dtype_q4_0, r->x, r->q, ROWS * 64);
    struct quant_stats all = { 0 }, joined = { 0 }, part;
    stats_rows(&all, &k, &dtype_q4_0, r->x, r->q, r->w, ROWS, 64, r->scratch);
    for (int i = 0; i < ROWS; i++) {
        memset(&part, 0, sizeof part);
        stats_rows(&part, &k, &dtype_q4_0, r->x + i * 64, r->q + (size_t)i * dtype_row_bytes(&dtype_q4_0, 64), r->w, 1, 64, r->scratch);
        stats_join(&joined, &part);
    }
    CHECK(!memcmp(all.hist, joined.hist, sizeof all.hist) && all.n == joined.n && all.lo == joined.lo && all.hi == joined.hi);
    CHECK_NEAR(joined.e2, all.e2, 1e-12 * all.e2);
    mem_free(r);
}

TEST(stats_of_nothing_and_of_zeros_are_numbers)
{
    struct quant_stats s = { 0 };
    struct kernels k;
    float x[32] = { 0 }, y[32];
    uint8_t q[34] = { 0 };
    kernels_init(&k, 0);
    CHECK(stats_rmse(&s) == 0 && stats_relative(&s) == 0 && stats_weighted(&s) == 0 && stats_cosine(&s) == 1);
    stats_rows(&s, &k, &dtype_q8_0, x, q, NULL, 1, 32, y);
    CHECK(s.n == 32 && s.hist[STATS_BINS / 2] == 32 && s.outliers == 0);
    CHECK(stats_rmse(&s) == 0 && stats_relative(&s) == 0 && stats_cosine(&s) == 1);
}

/* ---- techniques ---- */

struct technique {
    const struct quantizer *q;
    struct affine (*fit)(float, float, int);
    int bits;
    const struct dtype *target;
};
static const struct technique techniques[] = {
    { &quantizer_absmax, absmax_fit, 8, &dtype_q8_0 },
    { &quantizer_absmax, absmax_fit, 4, &dtype_q4_0 },
    { &quantizer_zero_point, zero_point_fit, 8, &dtype_f32 },
    { &quantizer_zero_point, zero_point_fit, 4, &dtype_q4_1 },
};
static const struct {
    enum granularity kind;
    int64_t group;
} grains[] = { { PER_TENSOR, 0 }, { PER_ROW, 0 }, { PER_GROUP, 32 }, { PER_GROUP, 64 }, { PER_GROUP, 96 } };

static void range_of(const float *x, int64_t n, float *lo, float *hi)
{
    *lo = *hi = x[0];
    for (int64_t i = 1; i < n; i++) *lo = fminf(*lo, x[i]), *hi = fmaxf(*hi, x[i]);
}

/* Every stored weight is scale * (q - zero) with q the code of the formula, in f32, bit for bit. */
static void check_technique(struct room *r, const struct technique *t, enum granularity kind, int64_t group, int64_t n)
{
    struct quant_spec s = { .method = t->q, .bits = t->bits, .granularity = kind, .group = group };
    CHECK(t->q->target(&s, NULL) == t->target);
    float lo, hi;
    range_of(r->x, ROWS * n, &lo, &hi);
    t->q->rows(&s, NULL, lo, hi, r->x, NULL, ROWS, n, r->q, NULL);
    dtype_to_f32(t->target, r->q, r->y, ROWS * n);
    int64_t span = kind == PER_GROUP ? group : n;
    for (int64_t row = 0; row < ROWS; row++)
        for (int64_t i = 0; i < n; i++) {
            int64_t at = i / span * span;
            if (kind != PER_TENSOR) range_of(r->x + row * n + at, min_i64(span, n - at), &lo, &hi);
            struct affine a = t->fit(lo, hi, t->bits);
            double x = r->x[row * n + i];
            double q = a.scale > 0 ? fmin(fmax(nearbyint((double)(r->x[row * n + i] / a.scale)) + a.zero, a.q_lo), a.q_hi) : a.zero;
            double y = (double)a.scale * (q - a.zero);
            float stored = r->y[row * n + i];
            CHECK_MSG((double)stored == y, "%s %d: %.9g is stored as %.9g, not %.9g (scale %g, zero %d)", t->q->name, t->bits, x,
                      (double)stored, y, (double)a.scale, a.zero);
            if (q > a.q_lo && q < a.q_hi)
                CHECK_MSG(fabs(x - y) <= 0.500001 * (double)a.scale, "%s %d: %g is off by more than half a step", t->q->name, t->bits, x);
        }
}

TEST(techniques_store_exactly_what_their_formulas_say)
{
    struct room *r = room_new();
    uint64_t seed = 5;
    for (int i = 0; i < ARRAY_LEN(techniques); i++)
        for (int g = 0; g < ARRAY_LEN(grains); g++)
            for (int e = -30; e <= 12; e += 6) {
                fill(r, 160, ldexpf(0.7f, e), &seed);
                for (int j = 0; j < 160; j++) r->x[2 * 160 + j] = fabsf(r->x[2 * 160 + j]) + ldexpf(1, e); /* one-sided rows */
                for (int j = 0; j < 160; j++) r->x[3 * 160 + j] = -fabsf(r->x[3 * 160 + j]);
                check_technique(r, &techniques[i], grains[g].kind, grains[g].group, 160);
            }
    mem_free(r);
}

TEST(techniques_are_finite_for_every_magnitude)
{
    struct room *r = room_new();
    uint64_t seed = 6;
    for (int i = 0; i < ARRAY_LEN(techniques); i++)
        for (int e = -149; e <= 124; e += 13) {
            struct quant_spec s = { .method = techniques[i].q, .bits = techniques[i].bits, .granularity = PER_ROW };
            for (int j = 0; j < 64; j++) r->x[j] = ldexpf(test_randf(&seed), e);
            techniques[i].q->rows(&s, NULL, 0, 0, r->x, NULL, 1, 64, r->q, NULL);
            dtype_to_f32(techniques[i].target, r->q, r->y, 64);
            for (int j = 0; j < 64; j++) CHECK_MSG(isfinite(r->y[j]), "%s %d at 2^%d", techniques[i].q->name, techniques[i].bits, e);
        }
    mem_free(r);
}

/* The steps of the textbook, but for the bits that the format cannot hold. */
TEST(scales_are_the_textbooks)
{
    struct affine a = absmax_fit(-0.5f, 1.27f, 8), b = absmax_fit(-1.4f, 1.0f, 4);
    CHECK_NEAR((double)a.scale, 0.01, 0.01 / 2048);
    CHECK_NEAR((double)b.scale, 0.2, 0.2 / 2048);
    CHECK(a.q_lo == -127 && a.q_hi == 127 && b.q_lo == -7 && b.q_hi == 7);
    struct affine c = zero_point_fit(-1.0f, 2.0f, 8), d = zero_point_fit(-1.0f, 2.0f, 4), f = zero_point_fit(0.5f, 2.0f, 4);
    CHECK_NEAR((double)c.scale, 3.0 / 255, 3.0 / 255 / 65536);
    CHECK(c.zero == 85 && d.zero == 5);
    CHECK_NEAR((double)d.scale, 0.2, 0.2 / 128);
    CHECK(f.zero == 0);
    uint64_t seed = 7;
    for (int i = 0; i < 2000; i++) {
        float lo = test_randf(&seed), hi = test_randf(&seed), s = (fmaxf(hi, 0) - fminf(lo, 0)) / 15;
        if (lo > hi || s < 1e-3f) continue;
        struct affine z = zero_point_fit(lo, hi, 4);
        CHECK_NEAR((double)z.scale, (double)s, (double)s / 120);
        uint16_t m = f32_to_f16(z.scale * (float)z.zero);
        CHECK((double)f16_to_f32(m) == (double)z.scale * z.zero);
    }
}

TEST(techniques_refuse_other_bits_and_groups)
{
    struct err e = { 0 };
    struct quant_spec s = { .method = &quantizer_absmax, .bits = 5 };
    CHECK(!quantizer_absmax.target(&s, &e) && e.code == ERR_USAGE);
    CHECK_HAS(e.text, "bits is 5, expected 4 or 8");
    s = (struct quant_spec){ .method = &quantizer_zero_point, .bits = 4, .granularity = PER_GROUP, .group = 40 };
    e = (struct err){ 0 };
    CHECK(!quantizer_zero_point.target(&s, &e) && e.code == ERR_USAGE);
    CHECK_HAS(e.text, "a group of 40 weights, expected a multiple of 32");
}

/* ---- outlier columns ---- */

TEST(outliers_are_the_columns_far_above_the_middle)
{
    enum { COLS = 64 };
    float importance[COLS], top[COLS] = { 0 }, x[2 * COLS], scratch[2 * COLS];
    int32_t index[COLS];
    for (int i = 0; i < COLS; i++) importance[i] = 1, x[i] = 0.5f, x[COLS + i] = -0.4f;
    importance[7] = 100, importance[9] = 30;
    x[COLS + 3] = -9;
    outliers_top(x, 2, COLS, top);
    CHECK(top[0] == 0.5f && top[3] == 9);
    CHECK(outliers_find(importance, NULL, COLS, 6, index, scratch) == 1 && index[0] == 7);
    CHECK(outliers_find(NULL, top, COLS, 6, index, scratch) == 1 && index[0] == 3);
    CHECK(outliers_find(importance, top, COLS, 5, index, scratch) == 3 && index[0] == 3 && index[1] == 7 && index[2] == 9);
    for (int i = 0; i < COLS / 4; i++) importance[2 * i] = 1000.0f * (float)(i + 1);
    CHECK(outliers_find(importance, NULL, COLS, 6, index, scratch) == COLS / OUTLIER_SHARE && index[0] == 24 && index[3] == 30);
    memset(importance, 0, sizeof importance);
    CHECK(outliers_find(importance, NULL, COLS, 6, index, scratch) == 0);
    CHECK(outliers_find(importance, NULL, 0, 6, index, scratch) == 0);
}

TEST(outliers_are_taken_out_of_rows)
{
    float x[2][4] = { { 1, 2, 3, 4 }, { 5, 6, 7, 1e6f } };
    float part[2][2];
    outliers_take(x[0], 2, 4, (const int32_t[]){ 1, 3 }, 2, part[0]);
    CHECK(x[0][0] == 1 && x[0][1] == 0 && x[0][3] == 0 && x[1][2] == 7 && x[1][1] == 0);
    CHECK(part[0][0] == 2 && part[0][1] == 4 && part[1][0] == 6 && part[1][1] == 1e6f);
}

/* Vectors, convolutions, stacks of experts and tables that are read row by row have no outlier columns. */
static bool multiplied(const struct tensor *t)
{
    static const char *const others[] = { "conv", "per_layer_token_embd", "position_embd", ".bias", "_norm." };
    for (int i = 0; i < ARRAY_LEN(others); i++)
        if (strstr(t->name, others[i])) return false;
    return t->ne[1] > 1 && t->ne[2] == 1 && strstr(t->name, ".weight");
}

/* A copy of a tiny model whose matrices have every `step`-th column from 1 on apart. damage: what is wrong with the first of them. */
enum damage { SOUND, NO_INDEX, NO_PART, OUT_OF_RANGE, NOT_RISING, WRONG_ROWS, FLOAT_INDEX, EMBEDDING };
static void split_model(const char *from, const char *to, int step, enum damage damage)
{
    struct gguf g;
    struct gguf_writer *w;
    struct arena a;
    struct err e = { 0 };
    bool first = true;
    arena_init(&a, 0);
    CHECK_MSG(gguf_open(&g, from, true, &e) == OK && gguf_writer_open(&w, to, &e) == OK, "%s", e.text);
    if (e.code != OK) return;
    for (int64_t i = 0; i < g.n_kv; i++) gguf_put_kv(w, &g.kv[i]);
    for (int64_t i = 0; i < g.n_tensors; i++) {
        struct tensor t = g.tensor[i], part = { 0 }, index = { 0 };
        bool table = !strcmp(t.name, "token_embd.weight");
        int64_t rows = t.ne[1], n = t.ne[0], m = (n - 2) / step + 1;
        if (!multiplied(&t) || (table && damage != EMBEDDING)) {
            gguf_put_tensor(w, &t);
            continue;
        }
        float *x = arena_alloc(&a, tensor_bytes(&t));
        memcpy(x, t.data, tensor_bytes(&t));
        t.data = x;
        int32_t *at = arena_alloc(&a, (size_t)m * sizeof *at);
        uint16_t *half = arena_alloc(&a, (size_t)((rows + 1) * m) * sizeof *half);
        for (int64_t j = 0; j < m; j++) at[j] = (int32_t)(1 + j * step);
        float *apart = arena_alloc(&a, (size_t)(rows * m) * sizeof *apart);
        outliers_take(x, rows, n, at, m, apart);
        for (int64_t j = 0; j < rows * m; j++) half[j] = f32_to_f16(apart[j]);
        if (first && damage == OUT_OF_RANGE) at[m - 1] = (int32_t)n;
        if (first && damage == NOT_RISING) at[1] = at[0];
        tensor_shape(&part, &dtype_f16, m, rows + (first && damage == WRONG_ROWS), 1, 1);
        tensor_shape(&index, dtype_by_id(first && damage == FLOAT_INDEX ? GGUF_F32 : GGUF_I32), m, 1, 1, 1);
        char name[96];
        int base = (int)(strlen(t.name) - strlen(".weight"));
        snprintf(name, sizeof name, "%.*s.outlier.weight", base, t.name);
        part.name = arena_strdup(&a, name, strlen(name)), part.data = half;
        snprintf(name, sizeof name, "%.*s.outlier.index", base, t.name);
        index.name = arena_strdup(&a, name, strlen(name)), index.data = at;
        gguf_put_tensor(w, &t);
        if (!(first && damage == NO_PART)) gguf_put_tensor(w, &part);
        if (!(first && damage == NO_INDEX)) gguf_put_tensor(w, &index);
        first = false;
    }
    CHECK_MSG(gguf_writer_finish(w, &e) == OK, "%s", e.text);
    gguf_close(&g);
    arena_free(&a);
}

enum { TOKENS = 24 };
static void keep_row(void *ctx, int seg, int64_t row, const float *logits)
{
    memcpy((float *)ctx + row * TINY_TOKENS, logits, TINY_TOKENS * sizeof *logits);
}

/* Logits of TOKENS tokens in one pass, then of one more alone. */
static void logits_of(const char *path, float *out)
{
    struct model *m;
    struct engine *en;
    struct session *s;
    struct err e = { 0 };
    int32_t token[TOKENS + 1];
    for (int i = 0; i <= TOKENS; i++) token[i] = (i * 37 + 11) % TINY_TOKENS;
    if (model_open(&m, path, &(struct model_options){ 0 }, &e) != OK) {
        test_fail(__FILE__, __LINE__, "%s", e.text);
        return;
    }
    CHECK(engine_open(&en, m, &(struct engine_options){ .n_threads = 2 }, &e) == OK);
    CHECK(session_open(&s, en, &(struct session_options){ .n_ctx = 64, .kv_type = &dtype_f32 }, &e) == OK);
    CHECK(engine_forward(en, &(struct segment){ s, token, TOKENS, 0 }, 1, keep_row, out, &e) == OK);
    CHECK(engine_forward(en, &(struct segment){ s, token + TOKENS, 1, 0 }, 1, keep_row, out + TOKENS * TINY_TOKENS, &e) == OK);
    CHECK_MSG(m->note[0] == 0, "%s", m->note);
    session_close(s);
    engine_close(en);
    model_close(m);
}

/* W x = (W with zeroed columns) x + (those columns) x: for every architecture, with few and many columns. */
TEST(a_model_with_outlier_columns_computes_the_same)
{
    size_t n = (TOKENS + 1) * TINY_TOKENS;
    float *a = mem_calloc(n, sizeof *a), *b = mem_calloc(n, sizeof *b);
    for (int i = 0; model_arch_name(i); i++)
        for (int step = 2; step <= 61; step += 59) {
            struct err e = { 0 };
            char whole[256], apart[256];
            snprintf(whole, sizeof whole, "%s", test_tmp("outlier_whole.gguf"));
            snprintf(apart, sizeof apart, "%s", test_tmp("outlier_apart.gguf"));
            CHECK_MSG(tiny_model(whole, &(struct tiny_options){ .arch = model_arch_name(i), .optional = true }, &e) == OK, "%s", e.text);
            split_model(whole, apart, step, SOUND);
            logits_of(whole, a);
            logits_of(apart, b);
            float gap = 0, size = 0;
            for (size_t j = 0; j < n; j++) gap = fmaxf(gap, fabsf(a[j] - b[j])), size = fmaxf(size, fabsf(a[j]));
            /* half floats round the moved columns: 2^-12 each */
            CHECK_MSG(gap < 4e-3f * size && size > 0, "%s, every %d-th column: logits up to %g differ by %g", model_arch_name(i), step,
                      (double)size, (double)gap);
        }
    mem_free(a);
    mem_free(b);
}

TEST(damaged_outlier_columns_are_refused_by_name)
{
    static const struct {
        enum damage damage;
        const char *text;
    } rows[] = {
        { NO_INDEX, "output.weight: output.outlier.index is missing" },
        { NO_PART, "output.weight: output.outlier.weight is missing" },
        { OUT_OF_RANGE, "output.outlier.index: element 12 is 64, expected more than 56 and less than 64" },
        { NOT_RISING, "output.outlier.index: element 1 is 1, expected more than 1 and less than 64" },
        { WRONG_ROWS, "output.outlier.weight: shape is [13, 269], expected [13, 268]" },
        { FLOAT_INDEX, "output.outlier.index: is F32 [13], expected I32 with 1 to 64 elements" },
        { EMBEDDING, "token_embd.weight: an embedding table with outlier columns is not supported" },
    };
    struct err e = { 0 };
    char whole[256], apart[256];
    snprintf(whole, sizeof whole, "%s", test_tmp("outlier_whole.gguf"));
    snprintf(apart, sizeof apart, "%s", test_tmp("outlier_apart.gguf"));
    CHECK_MSG(tiny_model(whole, &(struct tiny_options){ 0 }, &e) == OK, "%s", e.text);
    for (int i = 0; i < ARRAY_LEN(rows); i++) {
        struct model *m = NULL;
        struct err why = { 0 };
        split_model(whole, apart, 5, rows[i].damage);
        CHECK_MSG(model_open(&m, apart, &(struct model_options){ 0 }, &why) == ERR_FORMAT, "damage %d is accepted", rows[i].damage);
        CHECK_HAS(why.text, rows[i].text);
        model_close(m);
    }
}

/* A copy of a model whose matrices have some columns `times` as large: in one block of 32 and alone in others. */
static void raise_columns(const char *from, const char *to, float times)
{
    static const int64_t at[] = { 3, 70, 71, 200 };
    struct gguf g;
    struct gguf_writer *w;
    struct arena a;
    struct err e = { 0 };
    arena_init(&a, 0);
    CHECK_MSG(gguf_open(&g, from, true, &e) == OK && gguf_writer_open(&w, to, &e) == OK, "%s", e.text);
    if (e.code != OK) return;
    for (int64_t i = 0; i < g.n_kv; i++) gguf_put_kv(w, &g.kv[i]);
    for (int64_t i = 0; i < g.n_tensors; i++) {
        struct tensor t = g.tensor[i];
        float *x = arena_alloc(&a, tensor_bytes(&t));
        memcpy(x, t.data, tensor_bytes(&t));
        for (int64_t r = 0; t.ne[1] > 1 && strcmp(t.name, "token_embd.weight") && r < t.ne[1]; r++)
            for (int j = 0; j < ARRAY_LEN(at); j++) x[r * t.ne[0] + at[j]] *= times;
        t.data = x;
        gguf_put_tensor(w, &t);
    }
    CHECK_MSG(gguf_writer_finish(w, &e) == OK, "%s", e.text);
    gguf_close(&g);
    arena_free(&a);
}

/* Root of the mean squared difference of the logits of two files, relative to those of the first. */
static double logits_apart(const char *a, const char *b)
{
    size_t n = (TOKENS + 1) * TINY_TOKENS;
    float *x = mem_calloc(n, sizeof *x), *y = mem_calloc(n, sizeof *y);
    double sum = 0, gap = 0;
    logits_of(a, x);
    logits_of(b, y);
    for (size_t i = 0; i < n; i++) sum += (double)x[i] * (double)x[i], gap += (double)(x[i] - y[i]) * (double)(x[i] - y[i]);
    mem_free(x);
    mem_free(y);
    return sqrt(gap / sum);
}

static const struct quant_item *companion(struct quant_plan *p, const char *name)
{
    for (int64_t i = 0; i < quant_plan_n(p); i++)
        if (!strcmp(quant_plan_item(p, i)->src->name, name)) return quant_plan_item(p, i);
    return NULL;
}

/* Every format, whether it can hold the zeros in the matrix exactly (Q8_0) or not (Q4_K). */
TEST(quantizing_with_outlier_columns_apart_stays_near_the_original)
{
    static const struct { const char *type; struct quant_spec spec; double gain; } rows[] = {
        { "Q8_0", { 0 }, 2 }, { "Q4_0", { 0 }, 3 }, { "Q4_K", { 0 }, 2 },
        { NULL, { .method = &quantizer_absmax, .bits = 8, .granularity = PER_ROW }, 5 },
        { NULL, { .method = &quantizer_absmax, .bits = 8, .granularity = PER_TENSOR }, 5 },
    };
    struct err e = { 0 };
    char plain[256], in[256], with[256], without[256];
    snprintf(plain, sizeof plain, "%s", test_tmp("columns_plain.gguf"));
    snprintf(in, sizeof in, "%s", test_tmp("columns_in.gguf"));
    snprintf(with, sizeof with, "%s", test_tmp("columns_with.gguf"));
    snprintf(without, sizeof without, "%s", test_tmp("columns_without.gguf"));
    struct tiny_options tiny = { .n_embd = 256, .n_head = 4, .n_head_kv = 4, .head_dim = 64, .n_ff = 256 };
    CHECK_MSG(tiny_model(plain, &tiny, &e) == OK, "%s", e.text);
    raise_columns(plain, in, 40);
    for (int i = 0; i < ARRAY_LEN(rows); i++) {
        double gap[2], error[2] = { 0 };
        for (int keep = 0; keep < 2; keep++) {
            struct quant_options o = { .type = rows[i].type, .spec = rows[i].spec, .embd_type = "keep", .pure = true, .keep_outliers = keep == 1,
                                       .outlier_threshold = 6, .n_threads = 2 };
            struct quant_run r = { .overwrite = true, .full_stats = true, .verify = true };
            struct quant_plan *p;
            e = (struct err){ 0 };
            CHECK_MSG(quant_plan_open(&p, in, &o, &e) == OK && quant_file(p, keep ? with : without, &r, &e) == OK, "%s", e.text);
            if (e.code != OK) return;
            const struct quant_item *m = companion(p, "blk.1.ffn_up.weight"), *part = companion(p, "blk.1.ffn_up.outlier.weight");
            CHECK(m && m->n_outliers == (keep ? 4 : 0) && (part != NULL) == (keep == 1));
            error[keep] = m ? stats_relative(&m->stats) : 0;
            gap[keep] = logits_apart(in, keep ? with : without);
            quant_plan_close(p);
        }
        CHECK_MSG(gap[1] * rows[i].gain < gap[0], "row %d: logits are off by %g with columns apart, %g without", i, gap[1], gap[0]);
        CHECK_MSG(error[1] < error[0], "row %d: error %g with columns apart, %g without", i, error[1], error[0]);
    }
}

/* ---- reports ---- */

/* A file with a hostile name, quantized; the report of every form is read back as text. */
static const char hostile[] = "blk.0.<script>alert('x')</script>|\"&.weight";

static void hostile_model(const char *path, struct arena *a)
{
    static const char *const names[] = {
        "blk.0.attn_q.weight", "blk.1.attn_q.weight", "blk.0.ffn_down.weight", "blk.1.ffn_down.weight", hostile, "blk.1.attn_norm.weight"
    };
    struct gguf_writer *w;
    struct err e = { 0 };
    uint64_t seed = 9;
    CHECK(gguf_writer_open(&w, path, &e) == OK);
    gguf_put_str(w, "general.architecture", "llama", 5);
    gguf_put_str(w, "general.name", "<b>&\001\377name", 11);
    for (int i = 0; i < ARRAY_LEN(names); i++) {
        struct tensor t = { .name = names[i] };
        tensor_shape(&t, &dtype_f32, 64, strstr(names[i], "norm") ? 1 : 32, 1, 1);
        float *x = arena_alloc(a, tensor_bytes(&t));
        for (int64_t j = 0; j < tensor_elements(&t); j++) x[j] = test_randn(&seed) * (i == 2 && j % 64 == 9 ? 30.0f : 1.0f);
        t.data = x;
        gguf_put_tensor(w, &t);
    }
    CHECK_MSG(gguf_writer_finish(w, &e) == OK, "%s", e.text);
}

static char *report_text(struct quant_plan *p, const struct quant_totals *t, const char *name)
{
    struct err e = { 0 };
    char *text = NULL;
    size_t n;
    const char *path = test_tmp(name);
    CHECK_MSG(quant_report_write(path, p, t, "in|<b>.gguf", "out.gguf", &e) == OK && file_text(path, 1 << 22, &text, &n, &e) == OK, "%s", e.text);
    return text;
}

static void check_reports(struct quant_plan *p, const struct quant_totals *t)
{
    struct arena a;
    struct json *j;
    struct err e = { 0 };
    char *html = report_text(p, t, "report.html"), *json = report_text(p, t, "report.json"), *csv = report_text(p, t, "report.csv");
    char *md = report_text(p, t, "report.md");
    if (!html || !json || !csv || !md) return;
    CHECK(!strstr(html, "<script") && strstr(html, "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;|&quot;&amp;"));
    CHECK_HAS(html, "&lt;b&gt;&amp;&#xfffd;&#xfffd;name");
    CHECK_HAS(html, "input <code>in|&lt;b&gt;.gguf</code> output <code>out.gguf</code> format <code>Q4_0</code>");
    CHECK_HAS(html, "blk.0.ffn_down.weight (Q4_0):");
    CHECK_HAS(md, "- input: in\\|\\<b\\>.gguf\n- output: out.gguf\n- format: Q4\\_0\n");
    CHECK_HAS(json, "\"importance\": null");
    CHECK_HAS(html, "--type &#39;blk.0.ffn_down=");
    CHECK_HAS(csv, "\"blk.0.<script>alert('x')</script>|\"\"&.weight\"");
    CHECK_HAS(md, "alert('x')\\</script\\>\\|");
    CHECK_HAS(md, "- blk.0.ffn\\_down.weight (Q4\\_0):");
    arena_init(&a, 0);
    CHECK_MSG(json_parse(&j, json, strlen(json), &a, "report", &e) == OK, "%s", e.text);
    const struct json *list = e.code == OK ? json_get(j, "tensors") : NULL;
    CHECK(list && list->n == 5 && !strcmp(json_get(list->child, "name")->str, "blk.0.ffn_down.weight"));
    if (list) CHECK(json_get(list->child, "relative")->f > 0 && json_get(list->child, "histogram")->n == STATS_BINS);
    arena_free(&a);
    mem_free(html), mem_free(json), mem_free(csv), mem_free(md);
}

TEST(reports_name_the_worst_tensor_and_escape_names)
{
    struct arena a;
    struct quant_plan *p;
    struct quant_totals t;
    struct err e = { 0 };
    char in[256], out[256];
    snprintf(in, sizeof in, "%s", test_tmp("hostile.gguf"));
    snprintf(out, sizeof out, "%s", test_tmp("hostile_out.gguf"));
    arena_init(&a, 0);
    hostile_model(in, &a);
    arena_free(&a);
    CHECK_MSG(quant_plan_open(&p, in, &(struct quant_options){ .type = "Q4_0", .n_threads = 1 }, &e) == OK, "%s", e.text);
    if (e.code != OK) return;
    quant_plan_totals(p, NULL, NULL, &t);
    CHECK_MSG(quant_file(p, out, &(struct quant_run){ .overwrite = true, .full_stats = true }, &e) == OK, "%s", e.text);
    check_reports(p, &t);
    CHECK(quant_report_write(test_tmp("report.pdf"), p, &t, NULL, NULL, &e) == ERR_USAGE);
    CHECK_HAS(e.text, "must end in .html, .json, .csv or .md");
    quant_plan_close(p);
}

TEST(reports_survive_every_failing_allocation)
{
    struct arena a;
    struct quant_plan *p;
    struct quant_totals t;
    struct err e = { 0 };
    static const char *const ends[] = { "fail.html", "fail.md", "fail.csv", "fail.json" };
    char in[256];
    snprintf(in, sizeof in, "%s", test_tmp("hostile.gguf"));
    arena_init(&a, 0);
    hostile_model(in, &a);
    arena_free(&a);
    CHECK_MSG(quant_plan_open(&p, in, &(struct quant_options){ .type = "Q4_0", .n_threads = 1 }, &e) == OK, "%s", e.text);
    if (e.code != OK) return;
    quant_plan_totals(p, NULL, NULL, &t);
    CHECK(quant_file(p, test_tmp("hostile_out.gguf"), &(struct quant_run){ .overwrite = true }, &e) == OK);
    for (int i = 0; i < ARRAY_LEN(ends); i++) {
        status st = ERR_MEMORY;
        int n = 0;
        while (st != OK && n < 500) {
            struct err why = { 0 };
            const char *path = test_tmp(ends[i]);
            mem_fail_at(++n, false);
            st = quant_report_write(path, p, &t, "in", NULL, &why);
            mem_fail_at(0, false);
            CHECK_MSG(st == OK || st == ERR_MEMORY, "allocation %d: %s", n, why.text);
        }
        CHECK_MSG(st == OK && n > 3, "%s: %d allocations", ends[i], n);
    }
    quant_plan_close(p);
}

/* ---- explanations ---- */

/* What explain_tensors prints; NULL when it fails, with e set. */
static char *explained(const struct gguf *g, struct quant_plan *p, const char *regex, const struct quant_options *o, struct err *e)
{
    char *text = NULL;
    size_t n;
    char path[256];
    snprintf(path, sizeof path, "%s", test_tmp("explain.txt"));
    fflush(stdout);
    int keep = dup(1), fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0644);
    dup2(fd, 1);
    status st = explain_tensors(g, p, regex, o, e);
    out_flush();
    dup2(keep, 1);
    close(fd), close(keep);
    if (st == OK) CHECK(file_text(path, 1 << 20, &text, &n, e) == OK);
    return text;
}

TEST(explanations_show_formulas_errors_and_the_column_that_hurts)
{
    struct arena a;
    struct gguf g;
    struct err e = { 0 };
    const char *path = test_tmp("hostile.gguf");
    arena_init(&a, 0);
    hostile_model(path, &a);
    arena_free(&a);
    CHECK(gguf_open(&g, path, true, &e) == OK);
    struct quant_options q8 = { .type = "Q8_0", .n_threads = 1 };
    struct quant_plan *p;
    CHECK_MSG(quant_plan_open(&p, path, &q8, &e) == OK, "%s", e.text);
    char *text = explained(&g, p, "blk.0.ffn_down", &q8, &e);
    quant_plan_close(p);
    if (text) {
        CHECK_HAS(text, "blk.0.ffn_down.weight  [64, 32]  F32, 2048 weights");
        CHECK_HAS(text, "absmax, 8 bits, one scale for the tensor");
        CHECK_HAS(text, "zero  = round(-min / scale) = round(");
        CHECK_HAS(text, "  absmax 4, group:32");
        CHECK_HAS(text, "> search Q8_0");
        CHECK_HAS(text, "in the plan: Q8_0, without importance");
        CHECK_HAS(text, "largest weights: column 9, ");
        CHECK_HAS(text, "What would help: keep column 9 in F16 (--keep-outliers)");
    }
    mem_free(text);
    struct quant_options row = { .spec = { .method = &quantizer_absmax, .bits = 4, .granularity = PER_GROUP, .group = 32 } };
    text = explained(&g, NULL, "script|norm", &row, &e);
    if (text) {
        CHECK_HAS(text, "blk.0.<script>alert('x')</script>|\"&.weight");
        CHECK_HAS(text, "> absmax 4, group:32");
        CHECK_HAS(text, "blk.1.attn_norm.weight");
    }
    mem_free(text);
    text = explained(&g, NULL, "", &row, &e); /* the matrices of the middle layer */
    if (text) {
        CHECK_HAS(text, "blk.1.attn_q.weight");
        CHECK_HAS(text, "blk.1.ffn_down.weight");
        CHECK(!strstr(text, "blk.0.") && !strstr(text, "norm"));
        for (const char *at = text; *at; at += strcspn(at, "\n") + (at[strcspn(at, "\n")] != 0))
            CHECK_MSG(strcspn(at, "\n") <= 80, "more than 80 columns: %.90s", at);
    }
    mem_free(text);
    CHECK(!explained(&g, NULL, "no_such", &row, &e) && e.code == ERR_USAGE);
    CHECK_HAS(e.text, "--explain 'no_such' matches no tensor; the first is blk.0.attn_q.weight");
    e = (struct err){ 0 };
    CHECK(!explained(&g, NULL, "(", &row, &e) && e.code == ERR_USAGE);
    gguf_close(&g);
}

SUITE(quant_basic, T(stats_equal_a_plain_sum_for_every_format), T(stats_hold_at_any_magnitude), T(stats_are_the_same_bits_on_every_level),
      T(stats_join_adds_up), T(stats_of_nothing_and_of_zeros_are_numbers), T(techniques_store_exactly_what_their_formulas_say),
      T(techniques_are_finite_for_every_magnitude), T(scales_are_the_textbooks), T(techniques_refuse_other_bits_and_groups),
      T(outliers_are_the_columns_far_above_the_middle), T(outliers_are_taken_out_of_rows), T(a_model_with_outlier_columns_computes_the_same),
      T(damaged_outlier_columns_are_refused_by_name),
      T(quantizing_with_outlier_columns_apart_stays_near_the_original), T(reports_name_the_worst_tensor_and_escape_names),
      T(reports_survive_every_failing_allocation), T(explanations_show_formulas_errors_and_the_column_that_hurts));
