/* test_kernels_matmul - every matmul slot of every ISA level that this CPU has, against plain C (integers, bit for bit) and against float64
 * sums over dtype->unpack (floats, within the bound of the contract). A slot is checked when its pointer differs from the level below. */
#include "ggml-like/cpu.h"
#include "ggml-like/formats/formats.h"
#include "ggml-like/kernels/levels.h"
#include "tests/guard.h"
#include "tests/test.h"
#include <float.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

enum { MAX_K = PANEL_K, GUARD = 64, FILL = 0xff /* four of them are a NaN */ };

/* ---- levels ---- */

struct level { const char *name; struct kernels k, ref, below; };

/* The i-th usable level. ref has the same tile_tokens, so that both fill the same layouts. */
static bool level_at(int i, struct level *l)
{
    struct cpu_info cpu;
    cpu_detect(&cpu);
    uint64_t features, below = 0;
    if (isa_features(isa_table[i].name, &cpu, &features, NULL) != OK) return false;
    *l = (struct level){ .name = isa_table[i].name };
    kernels_init(&l->k, features);
    kernels_init(&l->ref, 0);
    if (i > 0 && isa_features(isa_table[i - 1].name, &cpu, &below, NULL) == OK) kernels_init(&l->below, below);
    l->ref.tile_tokens = l->k.tile_tokens;
    return true;
}

#define EACH_LEVEL(l) \
    for (int level_i = 0; level_i < isa_count; level_i++) \
        if (level_at(level_i, &l))
#define NEW(l, slot) ((l).k.slot != (l).below.slot)

/* ---- guarded memory ---- */

struct buf { uint8_t *all, *data; size_t bytes; };

static struct buf buf_new(size_t bytes)
{
    size_t all = (bytes + 63) / 64 * 64 + GUARD;
    struct buf b = { .all = guard_new(all, 64), .bytes = bytes };
    memset(b.all, FILL, all);
    b.data = b.all + GUARD;
    return b;
}

/* nothing outside the buffer was written */
static void buf_end(struct buf *b)
{
    bool clean = true;
    size_t tail = (b->bytes + 63) / 64 * 64 - b->bytes;
    for (size_t i = 0; i < GUARD; i++) clean &= b->all[i] == FILL;
    for (size_t i = 0; i < tail; i++) clean &= b->data[b->bytes + i] == FILL;
    guard_free(b->all);
    CHECK(clean);
}

/* ---- weights ---- */

enum pattern { RANDOM, ALL_ONES, ALL_ZEROS, DENORMAL, ZERO_SCALE, PATTERNS };

static float pattern_scale(enum pattern p, uint64_t *seed)
{
    if (p == ZERO_SCALE) return 0.0f;
    if (p == DENORMAL) return (float)(1 + test_rand(seed) % 1000) * 0x1p-24f; /* denormal as a half */
    return test_randf(seed);
}

static void fill_blocks(const struct dtype *t, uint8_t *w, int64_t n_blocks, enum pattern p, uint64_t *seed)
{
    for (int64_t b = 0; b < n_blocks; b++, w += t->block_bytes) {
        for (int i = 0; i < t->block_bytes; i++) w[i] = p == ALL_ONES ? 0xff : p == ALL_ZEROS ? 0 : (uint8_t)test_rand(seed);
        if (t->group_len == 0) {
            float x = p == DENORMAL && t->gguf_id != GGUF_F16 ? 0x1p-130f : pattern_scale(p, seed);
            dtype_from_f32(t, &x, w, 1);
        }
        if (!t->split) continue;
        struct parts parts; /* scales of the pattern in place of random ones, which may be NaN */
        t->split(w, &parts);
        parts.d32 = p == DENORMAL ? 0x1p-140f : pattern_scale(p, seed);
        parts.d = f32_to_f16(pattern_scale(p, seed)), parts.dmin = f32_to_f16(pattern_scale(p, seed));
        if (t->gguf_id == GGUF_MXFP4) parts.d = p == ZERO_SCALE ? 0 : p == DENORMAL ? parts.d % 2 : 110 + parts.d % 20;
        t->join(&parts, w);
    }
}

struct weights { struct buf mem; uint8_t *w; size_t row_bytes; };

/* rows of k columns at an odd address, an odd stride apart, NaN bytes between and behind them */
static struct weights weights_new(const struct dtype *t, int rows, int64_t k, enum pattern p, uint64_t *seed)
{
    struct weights w = { .row_bytes = dtype_row_bytes(t, k) };
    w.row_bytes += 1 + w.row_bytes % 2;
    w.mem = buf_new(w.row_bytes * (size_t)rows + 1);
    w.w = w.mem.data + 1;
    for (int r = 0; r < rows; r++) fill_blocks(t, w.w + (size_t)r * w.row_bytes, k / t->block_len, p, seed);
    return w;
}

/* ---- activations ---- */

enum { GAUSS, TINY, CONSTANT, EXTREMES, OUTLIER, SPIKE, ZERO, SHAPES };

static void fill_x(float *x, int64_t n, int shape, uint64_t *seed)
{
    for (int64_t i = 0; i < n; i++) {
        float g = test_randn(seed);
        x[i] = shape == GAUSS ? g : shape == TINY ? g * 1e-39f : shape == CONSTANT ? 3.7f : shape == ZERO ? 0.0f : g;
        if (shape == EXTREMES) x[i] = i % 3 ? 1.0f : -1.0f;
        if (shape == OUTLIER && i % 71 == 5) x[i] *= 1e4f;
        if (shape == SPIKE && i % 256 == 7) x[i] = 300;
    }
}

/* ---- unpack ---- */

/* Block `at` of a run, and one alone. */
static bool same_codes(const struct dtype *t, const struct codes *run, int at, const struct codes *one)
{
    int groups = t->block_len / t->group_len;
    size_t n = (size_t)groups * sizeof(float);
    return !memcmp(run->code + at * t->block_len, one->code, (size_t)t->block_len) && !memcmp(run->scale + at * groups, one->scale, n) &&
           !memcmp(run->min + at * groups, one->min, n);
}

TEST(unpack_equals_the_format)
{
    struct level l;
    uint64_t seed = 1;
    EACH_LEVEL(l)
        for (int i = 0; i < dtype_count; i++) {
            const struct dtype *t = dtypes[i];
            if (!t->unpack || !NEW(l, unpack[t->gguf_id])) continue;
            test_begin("unpack_equals_the_format %s %s", l.name, t->name);
            for (int n = 0; n < 60; n++) {
                struct weights w = weights_new(t, 1, t->block_len, (enum pattern)(n % PATTERNS), &seed);
                struct codes want, got;
                t->unpack(w.w, &want);
                memset(&got, FILL, sizeof got);
                l.k.unpack[t->gguf_id](w.w, &got);
                CHECK(same_codes(t, &got, 0, &want));
                buf_end(&w.mem);
            }
        }
}

/* Runs of every length, of different blocks; what lies behind them is not read. */
TEST(unpack_run_is_block_by_block)
{
    struct level l;
    uint64_t seed = 15;
    EACH_LEVEL(l)
        for (int i = 0; i < dtype_count; i++) {
            const struct dtype *t = dtypes[i];
            if (!t->unpack || !NEW(l, unpack_run[t->gguf_id])) continue;
            test_begin("unpack_run_is_block_by_block %s %s", l.name, t->name);
            for (int n = 1; n <= BLOCK_MAX / t->block_len; n++) {
                struct weights w = weights_new(t, 1, (int64_t)n * t->block_len, RANDOM, &seed);
                struct codes run, one;
                l.k.unpack_run[t->gguf_id](w.w, n, &run);
                for (int b = 0; b < n; b++) {
                    t->unpack(w.w + b * t->block_bytes, &one);
                    CHECK(same_codes(t, &run, b, &one));
                }
                buf_end(&w.mem);
            }
        }
}

/* ---- one token ---- */

TEST(quant_row_equals_plain_c)
{
    struct level l;
    uint64_t seed = 2;
    EACH_LEVEL(l) {
        test_begin("quant_row_equals_plain_c %s", l.name);
        for (int shape = 0; shape < SHAPES; shape++)
            for (int64_t k = 32; k <= 512; k += 96) {
                float x[513];
                fill_x(x + 1, k, shape, &seed);
                struct buf a = buf_new(act_row_bytes(k)), b = buf_new(act_row_bytes(k));
                struct act_row got, want;
                act_row_place(&got, a.data, k), act_row_place(&want, b.data, k);
                l.k.quant_row(&got, x + 1, k), l.ref.quant_row(&want, x + 1, k);
                CHECK(!memcmp(got.y, want.y, (size_t)k * 2) && !memcmp(got.d, want.d, (size_t)k / 8));
                CHECK(!memcmp(got.hi, want.hi, (size_t)k) && !memcmp(got.lo, want.lo, (size_t)k));
                CHECK(!memcmp(got.sum, want.sum, (size_t)k / 4) && !memcmp(got.sum16, want.sum16, (size_t)k / 4));
                CHECK(!memcmp(got.sum32, want.sum32, (size_t)k / 8));
                for (int64_t i = 0; i < k; i++) CHECK(got.y[i] == 256 * got.hi[i] + got.lo[i]);
                for (int64_t i = 0; i < k && (!strcmp(l.name, "avx2") || !strcmp(l.name, "avxvnni")); i++) {
                    int64_t r = i % 32 / 4, block = i % 256 / 32;
                    CHECK(got.eight[i / 256].hi[r][block][i % 4] == got.hi[i] && got.eight[i / 256].lo[r][block][i % 4] == got.lo[i]);
                }
                for (int64_t i = 0; i < k; i++) CHECK_NEAR(got.d[i / 32] * (float)got.y[i], x[1 + i], 0.51f * got.d[i / 32] + 1e-32f);
                buf_end(&a), buf_end(&b);
            }
    }
}

/* exact value and sum of |terms| of one quantized row; the terms are those of kernels.h */
static double rowdot_exact(const struct dtype *t, const uint8_t *w, const struct act_row *x, int64_t k, double *terms)
{
    double y = 0;
    *terms = 0;
    for (int64_t at = 0; at < k; at += t->block_len, w += t->block_bytes) {
        struct codes c;
        t->unpack(w, &c);
        for (int g = 0; g < t->block_len / t->group_len; g++) {
            int64_t first = at + g * t->group_len, dot = 0, sum = 0;
            for (int i = 0; i < t->group_len; i++) dot += c.code[g * t->group_len + i] * x->y[first + i], sum += x->y[first + i];
            double d = x->d[first / 32], s = c.scale[g], m = t->has_min ? c.min[g] : 0;
            y += d * (s * (double)dot + m * (double)sum);
            *terms += fabs(d) * (fabs(s) * (fabs((double)dot) + 32 * fabs((double)sum)) + fabs(m * (double)sum));
        }
    }
    return y;
}

static void check_rowdot(const struct level *l, const struct dtype *t, int64_t k, enum pattern p, int shape, uint64_t *seed)
{
    enum { ROWS = 3 };
    struct buf mem = buf_new(act_row_bytes(k));
    struct act_row row;
    float *x = malloc((size_t)k * sizeof *x);
    if (!x) abort();
    fill_x(x, k, shape, seed);
    act_row_place(&row, mem.data, k);
    if (t->unpack) l->k.quant_row(&row, x, k);
    row.f32 = x;
    struct weights w = weights_new(t, ROWS, k, p, seed);
    double exact = 0, terms = 0;
    if (t->unpack) {
        exact = rowdot_exact(t, w.w, &row, k, &terms);
    } else {
        for (int64_t i = 0; i < k; i++) {
            float v;
            t->to_f32(w.w + i * t->block_bytes, &v, 1);
            exact += (double)v * x[i], terms += fabs((double)v * x[i]);
        }
    }
    float got = l->k.rowdot[t->gguf_id](w.w, &row, k), all[ROWS];
    kernels_dots(&l->k, t, all, w.w, w.row_bytes, ROWS, &row, k);
    for (int i = 0; i < ROWS; i++) {
        float one = l->k.rowdot[t->gguf_id](w.w + (size_t)i * w.row_bytes, &row, k);
        CHECK(memcmp(&one, &all[i], sizeof one) == 0);
    }
    CHECK_MSG(fabs(got - exact) <= 2e-6 * terms + 1e-36, "k %d pattern %d shape %d: %.9g is not %.9g +- %g", (int)k, p, shape, (double)got,
              exact, 2e-6 * terms);
    buf_end(&w.mem), buf_end(&mem);
    free(x);
}

TEST(rowdot_is_exact_up_to_float_rounding)
{
    static const int64_t ks[] = { 32, 64, 224, 256, 288, 480, 512, 576, 640, 896, 2048, 4864 }, odd[] = { 1, 7, 8, 9, 31, 33, 100, 1027 };
    struct level l;
    uint64_t seed = 3;
    EACH_LEVEL(l)
        for (int i = 0; i < dtype_count; i++) {
            const struct dtype *t = dtypes[i];
            if (!NEW(l, rowdot[t->gguf_id])) continue;
            test_begin("rowdot_is_exact_up_to_float_rounding %s %s", l.name, t->name);
            for (int j = 0; j < ARRAY_LEN(ks); j++)
                for (int p = 0; p < PATTERNS; p++)
                    for (int shape = 0; shape < SHAPES; shape++)
                        if (ks[j] % t->block_len == 0) check_rowdot(&l, t, ks[j], (enum pattern)p, shape, &seed);
            for (int j = 0; j < ARRAY_LEN(odd); j++)
                if (!t->unpack) check_rowdot(&l, t, odd[j], RANDOM, GAUSS, &seed);
        }
}

/* One column in 256 that is 300 times the others sets the scale of all: what that costs products of the others, beside the floats. */
TEST(rowdot_error_beside_a_spike)
{
    enum { COLS = 2048, TIMES = 100 };
    struct level l;
    uint64_t seed = 13;
    EACH_LEVEL(l) {
        const struct dtype *t = dtype_by_id(GGUF_Q8_0);
        test_begin("rowdot_error_beside_a_spike %s", l.name);
        double error = 0, size = 0;
        float *x = malloc(2 * COLS * sizeof *x), *w = x + COLS;
        struct buf mem = buf_new(act_row_bytes(COLS)), bytes = buf_new(dtype_row_bytes(t, COLS));
        struct act_row row;
        if (!x) abort();
        act_row_place(&row, mem.data, COLS);
        for (int n = 0; n < TIMES; n++) {
            double exact = 0;
            fill_x(x, COLS, SPIKE, &seed), fill_x(w, COLS, GAUSS, &seed);
            for (int i = 7; i < COLS; i += 256) w[i] = 0;
            dtype_from_f32(t, w, bytes.data, COLS);
            dtype_to_f32(t, bytes.data, w, COLS);
            for (int i = 0; i < COLS; i++) exact += (double)w[i] * x[i];
            l.k.quant_row(&row, x, COLS);
            double e = l.k.rowdot[t->gguf_id](bytes.data, &row, COLS) - exact;
            error += e * e, size += exact * exact;
        }
        double rms = sqrt(error / size), step = 300.0 / ACT_ROW_MAX;
        CHECK_MSG(rms < 1.25 * step / sqrt(12), "rms error %.3g, a step / sqrt(12) is %.3g", rms, step / sqrt(12));
        buf_end(&mem), buf_end(&bytes);
        free(x);
    }
}

/* ---- activations of a tile ---- */

/* The number of tokens after n of a walk up to `most`: all where levels have a loop for each number, up to 12; around the halves of a tile of 32. */
static int next_tokens(const struct kernels *k, int n, int most)
{
    static const int more[] = { 5, 16, 17, 32, 33, 65 };
    if (!k->has_chunks && n < 12) return n + 1;
    for (int i = 0; i < ARRAY_LEN(more); i++)
        if (more[i] > n && more[i] <= most) return more[i];
    return most + 1;
}

struct acts { struct buf mem, xmem; struct act_panel p; const float *x[4 * TILE_TOKENS_MAX]; };

/* n tokens of k floats, of the given shape, or as x says */
static struct acts acts_new(const struct kernels *k, int64_t cols, int n, enum act_form form, int shape, uint64_t *seed)
{
    struct acts a = { .mem = buf_new(act_panel_bytes(k, cols, n, form)), .xmem = buf_new((size_t)cols * (size_t)n * sizeof(float)) };
    act_panel_place(k, &a.p, a.mem.data, cols, n, form);
    float *x = (float *)(void *)a.xmem.data;
    fill_x(x, cols * n, shape, seed);
    for (int t = 0; t < n; t++) a.x[t] = x + t * cols;
    return a;
}

static void acts_fill(struct acts *a, const struct kernels *k)
{
    for (int64_t t = 0, nt = k->tile_tokens; t < a->p.n_tokens; t += nt)
        kernels_fill(k, a->p.form)(k, &a->p, t / nt, a->x + t, (int)min_i64(nt, a->p.n_tokens - t));
}

static void acts_end(struct acts *a) { buf_end(&a->mem), buf_end(&a->xmem); }

/* What tile() multiplies. */
static void acts_row(const struct kernels *k, const struct acts *a, int t, double *v)
{
    k->act_read(k, &a->p, t / k->tile_tokens, t % k->tile_tokens, 0, a->p.k, v);
}

/* The part of a weight or an activation by which BF16, or two of them, may be off. */
static double part_lost(enum act_form form) { return form == ACT_8 ? 0x1p-8 : 0x1p-16; }

/* Half a step of the contract, for 16 columns that hold column c: of its 32, the level chooses which. */
static double half_step(const struct kernels *k, const float *x, int64_t cols, int64_t c, enum act_form form)
{
    if (k->has_chunks) return part_lost(form) * fabs((double)x[c]) + 0x1p-126;
    double lo = x[c], hi = x[c], top = 0;
    for (int64_t i = c / 32 * 32; i < c / 32 * 32 + 32; i++) lo = fmin(lo, x[i]), hi = fmax(hi, x[i]);
    for (int64_t i = c / 256 * 256; i < min_i64(cols, c / 256 * 256 + 256); i++)
        if (isfinite(x[i]) && fabsf(x[i]) > top) top = fabsf(x[i]);
    return 0.5 * (form == ACT_8 ? (hi - lo) / 254 + top * 0x1p-14 : top / 32500.0) + 1e-33;
}

static void check_acts(const struct kernels *k, const struct acts *a)
{
    int nt = k->tile_tokens, n = (int)a->p.n_tokens;
    double v[MAX_K];
    for (int t = 0; t < (n + nt - 1) / nt * nt; t++) {
        acts_row(k, a, t, v);
        for (int64_t c = 0; c < a->p.k; c++) {
            if (t >= n) CHECK(v[c] == 0);
            else CHECK_NEAR(v[c], a->x[t][c], half_step(k, a->x[t], a->p.k, c, a->p.form) * 1.001 + 1e-7f * fabsf(a->x[t][c]));
        }
    }
}

TEST(quant_tile_keeps_its_contract)
{
    struct level l;
    uint64_t seed = 4;
    EACH_LEVEL(l) {
        if (!NEW(l, quant_tile) && !NEW(l, quant_planes)) continue;
        test_begin("quant_tile_keeps_its_contract %s", l.name);
        for (int n = 1; n <= 2 * l.k.tile_tokens + 1; n = next_tokens(&l.k, n, 2 * l.k.tile_tokens + 1))
            for (int shape = 0; shape < 2 * SHAPES; shape++) {
                struct acts a = acts_new(&l.k, 32 * (1 + 5 * n % 19), n, shape % 2 ? ACT_15 : ACT_8, shape / 2, &seed);
                acts_fill(&a, &l.k);
                check_acts(&l.k, &a);
                acts_end(&a);
            }
    }
}

/* Levels with planes: the same integers, and sums of x. */
TEST(quant_planes_equals_plain_c)
{
    struct level l;
    uint64_t seed = 4;
    EACH_LEVEL(l) {
        if (!l.k.quant_planes || !NEW(l, quant_planes)) continue;
        test_begin("quant_planes_equals_plain_c %s", l.name);
        int nt = l.k.tile_tokens;
        for (int n = 1; n <= nt; n++)
            for (int shape = 0; shape < SHAPES; shape++) {
                int64_t cols = 32 * (1 + n % 3);
                uint64_t again = seed;
                struct acts a = acts_new(&l.k, cols, n, ACT_8, shape, &seed), b = acts_new(&l.ref, cols, n, ACT_8, shape, &again);
                acts_fill(&a, &l.k), acts_fill(&b, &l.ref);
                struct act_tile g = act_tile_at(&a.p, nt, 0, 0), w = act_tile_at(&b.p, nt, 0, 0);
                size_t floats = (size_t)(cols / 16 * nt) * sizeof(float);
                CHECK(!memcmp(g.a, w.a, (size_t)(cols * nt)) && !memcmp(g.d, w.d, floats) && !memcmp(g.o, w.o, floats));
                for (int64_t i = 0; i < cols / 16 * nt; i++) {
                    int t = (int)(i % nt);
                    double sum = 0, size = 0;
                    for (int64_t c = i / nt * 16; t < n && c < i / nt * 16 + 16; c++) sum += a.x[t][c], size += fabsf(a.x[t][c]);
                    CHECK_NEAR(g.sum[i], sum, 1e-6 * size);
                    for (int j = 0; t < n && j < 4; j++) CHECK(g.a[(i / nt * 4 + j) * 4 * nt + 4 * t + j] >= 1);
                }
                acts_end(&a), acts_end(&b);
            }
    }
}

/* bad[] in every n-th of the first 16 of 64 columns, from `at` on; column i of the others is i. */
static void check_bad(const struct level *l, const float bad[4], int n, int64_t at, enum act_form form)
{
    enum { COLS = 64 };
    float x[COLS];
    double v[COLS];
    for (int i = 0; i < COLS; i++) x[i] = i < 16 && i % n == at % n ? bad[i / n % 4] : (float)i;
    const float *rows[TILE_TOKENS_MAX];
    for (int t = 0; t < TILE_TOKENS_MAX; t++) rows[t] = x;
    int nt = l->k.tile_tokens;
    struct buf tile = buf_new(act_panel_bytes(&l->k, COLS, nt, form)), row = buf_new(act_row_bytes(COLS));
    struct act_panel p;
    struct act_row r;
    act_panel_place(&l->k, &p, tile.data, COLS, nt, form), act_row_place(&r, row.data, COLS);
    l->k.quant_tile(&l->k, &p, 0, rows, nt);
    l->k.quant_row(&r, x, COLS);
    for (int t = 0; t < nt; t++) {
        l->k.act_read(&l->k, &p, 0, t, 0, COLS, v);
        for (int i = 0; i < COLS; i++) {
            bool kept = l->k.has_chunks && !isfinite(v[i]), near = i < 32 || fabs(v[i] - x[i]) <= half_step(&l->k, x, COLS, i, form) * 1.001;
            CHECK_MSG(kept ? !isfinite(x[i]) || fabsf(x[i]) == FLT_MAX : isfinite(v[i]) && near, "form %d, %g every %d: token %d column %d is %g", form,
                      (double)bad[0], n, t, i, v[i]);
        }
    }
    for (int i = 0; i < COLS; i++) {
        CHECK(isfinite(r.d[i / 32]) && abs(r.y[i]) <= ACT_ROW_MAX);
        if (isfinite(x[i])) CHECK_NEAR((double)r.d[i / 32] * r.y[i], x[i], 0.51 * r.d[i / 32]);
    }
    buf_end(&tile), buf_end(&row);
}

TEST(quantizers_survive_nan_and_inf)
{
    static const float bad[][4] = {
        { NAN, NAN, NAN, NAN }, { INFINITY, INFINITY, INFINITY, INFINITY }, { -INFINITY, -INFINITY, -INFINITY, -INFINITY },
        { NAN, INFINITY, -INFINITY, INFINITY }, { 3e38f, -3e38f, 3e38f, -3e38f }, { 3e38f, 3e38f, 3e38f, 3e38f }, { -FLT_MAX, INFINITY, FLT_MAX, NAN },
    };
    struct level l;
    EACH_LEVEL(l) {
        test_begin("quantizers_survive_nan_and_inf %s", l.name);
        for (int i = 0; i < ARRAY_LEN(bad); i++)
            for (int n = 1; n <= 16; n *= 2) /* all of 16 columns, half of them .. one */
                for (int at = 0; at < n; at += 3)
                    for (enum act_form form = ACT_8; form <= ACT_15; form++) check_bad(&l, bad[i], n, at, form);
    }
}

TEST(pack_tile_f32_interleaves_tokens)
{
    struct level l;
    uint64_t seed = 5;
    EACH_LEVEL(l) {
        if (!NEW(l, pack_tile_f32)) continue;
        test_begin("pack_tile_f32_interleaves_tokens %s", l.name);
        int nt = l.k.tile_tokens;
        for (int n = 1; n <= 2 * nt + 1; n = next_tokens(&l.k, n, 2 * nt + 1)) {
            int64_t cols = 1 + 5 * n;
            struct acts a = acts_new(&l.k, cols, n, ACT_F32, GAUSS, &seed);
            acts_fill(&a, &l.k);
            for (int t = 0; t < (n + nt - 1) / nt * nt; t++)
                for (int64_t i = 0; i < cols; i++) CHECK(act_floats_at(&a.p, nt, t / nt, i)[t % nt] == (t < n ? a.x[t][i] : 0.0f));
            acts_end(&a);
        }
    }
}

/* BF16 of a value, or the zero that it may become */
static bool same_half(uint16_t got, uint16_t want) { return got == want || (!(want & 0x7f80) && !(got & 0x7fff)); }

/* Value i of token t in a tile of BF16: between pairs of other tokens, or in a row of 32. */
static uint16_t half_at(const struct kernels *k, const struct act_panel *p, int t, int64_t i)
{
    int64_t nt = k->tile_tokens;
    const uint16_t *x = (const uint16_t *)(const void *)(p->data + (size_t)(t / nt) * p->tile_bytes);
    return k->has_chunks ? x[(i / 32 * nt + t % nt) * 32 + i % 32] : x[(i / 2 * nt + t % nt) * 2 + i % 2];
}

TEST(pack_tile_bf16_holds_each_value)
{
    struct level l;
    uint64_t seed = 5;
    EACH_LEVEL(l) {
        if (!NEW(l, pack_tile_bf16)) continue;
        test_begin("pack_tile_bf16_holds_each_value %s", l.name);
        int nt = l.k.tile_tokens;
        for (int n = 1; n <= 2 * nt + 1; n++)
            for (int shape = 0; shape < SHAPES; shape++) {
                int64_t cols = 1 + 5 * n + 31 * shape;
                struct acts a = acts_new(&l.k, cols, n, ACT_BF16, shape, &seed);
                acts_fill(&a, &l.k);
                for (int t = 0; t < (n + nt - 1) / nt * nt; t++)
                    for (int64_t i = 0; i < (cols + 1) / 2 * 2; i++) {
                        uint16_t got = half_at(&l.k, &a.p, t, i), want = t < n && i < cols ? f32_to_bf16(a.x[t][i]) : 0;
                        CHECK_MSG(same_half(got, want), "token %d column %d: %04x is not %04x", t, (int)i, got, want);
                    }
                acts_end(&a);
            }
    }
}

/* What is not a number, or too large for BF16, shows in the products of its token. */
TEST(bf16_tiles_show_what_is_not_finite)
{
    enum { COLS = 64 };
    static const float bad[] = { NAN, INFINITY, -INFINITY, FLT_MAX };
    struct level l;
    uint64_t seed = 16;
    const struct dtype *t = dtype_by_id(GGUF_BF16);
    EACH_LEVEL(l) {
        test_begin("bf16_tiles_show_what_is_not_finite %s", l.name);
        struct weights w = weights_new(t, PANEL_ROWS, COLS, RANDOM, &seed);
        struct buf mem = buf_new(panel_bytes(COLS));
        struct panel p;
        panel_place(&p, mem.data, COLS);
        l.k.panel_bf16(&l.k, &p, t, ACT_BF16, w.w, w.row_bytes, PANEL_ROWS, 0, COLS);
        for (int i = 0; i < ARRAY_LEN(bad) * COLS; i++) {
            float y[TILE_TOKENS_MAX * PANEL_ROWS];
            struct acts x = acts_new(&l.k, COLS, 2, ACT_BF16, GAUSS, &seed);
            ((float *)(void *)x.xmem.data)[i % COLS] = bad[i / COLS];
            acts_fill(&x, &l.k);
            l.k.tile_bf16(&l.k, &p, &x.p, 0, 0, 2, y, PANEL_ROWS, false);
            for (int r = 0; r < PANEL_ROWS; r++) CHECK(!isfinite(y[r]) && isfinite(y[PANEL_ROWS + r]));
            acts_end(&x);
        }
        buf_end(&mem), buf_end(&w.mem);
    }
}

/* ---- panels ---- */

static bool near_all(const float *a, const float *b, int64_t n, double tol)
{
    for (int64_t i = 0; i < n; i++)
        if (!(fabs((double)a[i] - b[i]) <= tol * fabs((double)b[i]) + 1e-36)) return false;
    return true;
}

static void check_panel_bf16(const struct level *l, const struct dtype *t, int rows, int64_t k0, int64_t nk, enum pattern p, uint64_t *seed)
{
    struct weights w = weights_new(t, rows, k0 + nk, p, seed);
    struct buf a = buf_new(panel_bytes(nk)), b = buf_new(panel_bytes(nk));
    struct panel got, want;
    panel_place(&got, a.data, nk), panel_place(&want, b.data, nk);
    got.next = w.w, got.next_bytes = (size_t)(rows - 1) * 61;
    l->k.panel_bf16(&l->k, &got, t, ACT_BF16, w.w, w.row_bytes, rows, k0, nk);
    l->ref.panel_bf16(&l->ref, &want, t, ACT_BF16, w.w, w.row_bytes, rows, k0, nk);
    CHECK(got.nk == nk && got.form == ACT_BF16 && got.group == 0 && want.form == ACT_BF16);
    for (int64_t i = 0; i < (nk + 1) / 2 * 2; i++)
        for (int r = 0; r < PANEL_ROWS; r++) {
            int64_t at = (i / 2 * PANEL_ROWS + r) * 2 + i % 2;
            float x = 0;
            if (r < rows && i < nk) t->to_f32(w.w + (size_t)r * w.row_bytes + (size_t)((k0 + i) * t->block_bytes), &x, 1);
            CHECK(want.bf16[at] == f32_to_bf16(x) && same_half(got.bf16[at], want.bf16[at]));
        }
    buf_end(&a), buf_end(&b), buf_end(&w.mem);
}

static void check_panel(const struct level *l, const struct dtype *t, int rows, int64_t k0, int64_t nk, enum pattern p, uint64_t *seed)
{
    int64_t cols = (k0 + nk + t->block_len - 1) / t->block_len * t->block_len;
    struct weights w = weights_new(t, rows, cols, p, seed);
    struct buf a = buf_new(panel_bytes(nk)), b = buf_new(panel_bytes(nk));
    struct panel got, want;
    panel_place(&got, a.data, nk), panel_place(&want, b.data, nk);
    got.next = w.w, got.next_bytes = (size_t)(rows - 1) * 61; /* asked for, not read: any bytes, none */
    enum act_form form = t->group_len ? act_form_fast(&l->k, t) : ACT_F32;
    l->k.panel_build(&l->k, &got, t, form, w.w, w.row_bytes, rows, k0, nk);
    l->ref.panel_build(&l->ref, &want, t, form, w.w, w.row_bytes, rows, k0, nk);
    CHECK(got.nk == nk && got.form == want.form && got.group == t->group_len && got.code_max == t->code_max && got.has_min == want.has_min);
    if (t->group_len == 0) {
        CHECK(!memcmp(got.f32, want.f32, (size_t)nk * PANEL_ROWS * sizeof(float)));
        for (int64_t i = 0; i < nk; i++)
            for (int r = rows; r < PANEL_ROWS; r++) CHECK(got.f32[i * PANEL_ROWS + r] == 0);
    } else if (l->k.tile_planes && l->k.act_read == l->ref.act_read) {
        int64_t groups = nk / t->group_len * PANEL_ROWS;
        CHECK(!memcmp(got.code, want.code, (size_t)nk * PANEL_ROWS));
        CHECK(!memcmp(got.scale, want.scale, (size_t)groups * sizeof(float)));
        CHECK(!got.has_min || near_all(got.min, want.min, groups, 1e-6));
        for (int64_t i = 0; i < nk / 16 * PANEL_ROWS; i++) { /* relative to the terms: a sum of codes may cancel */
            double size = fabsf(want.scale[i / PANEL_ROWS * 16 / t->group_len * PANEL_ROWS + i % PANEL_ROWS]) * 16.0 * t->code_max;
            CHECK_NEAR(got.csum[i], want.csum[i], 2e-6 * size + 1e-36);
            if (i % PANEL_ROWS >= rows) CHECK(got.csum[i] == 0);
        }
    }
    buf_end(&a), buf_end(&b), buf_end(&w.mem);
}

TEST(panel_build_equals_plain_c)
{
    static const struct { int rows; int64_t k0, nk; } shapes[] = {
        { 16, 0, 32 }, { 1, 256, 64 }, { 5, 512, 256 }, { 8, 0, 288 }, { 9, 256, 480 }, { 16, 2048, 896 }, { 15, 0, PANEL_K },
    };
    struct level l;
    uint64_t seed = 6;
    EACH_LEVEL(l)
        for (int i = 0; i < dtype_count; i++) {
            bool pairs = dtypes[i]->group_len == 0 && NEW(l, panel_bf16);
            if (pairs) test_begin("panel_build_equals_plain_c %s %s bf16", l.name, dtypes[i]->name);
            for (int j = 0; pairs && j < ARRAY_LEN(shapes) * PATTERNS; j++) {
                int s = j / PATTERNS, odd = j % 3;
                check_panel_bf16(&l, dtypes[i], shapes[s].rows, shapes[s].k0, shapes[s].nk - odd, (enum pattern)(j % PATTERNS), &seed);
            }
            for (int64_t nk = 1; pairs && nk < 70; nk++) check_panel_bf16(&l, dtypes[i], 1 + (int)nk % PANEL_ROWS, 3, nk, RANDOM, &seed);
            if (!NEW(l, panel_build)) continue;
            test_begin("panel_build_equals_plain_c %s %s", l.name, dtypes[i]->name);
            for (int j = 0; j < ARRAY_LEN(shapes); j++)
                for (int p = 0; p < PATTERNS; p++)
                    check_panel(&l, dtypes[i], shapes[j].rows, shapes[j].k0, shapes[j].nk, (enum pattern)p, &seed);
            for (int64_t nk = 1; nk < 70 && dtypes[i]->group_len == 0; nk += 11) check_panel(&l, dtypes[i], 13, 3, nk, RANDOM, &seed);
        }
}

TEST(panel_holds_the_format)
{
    uint64_t seed = 7;
    struct kernels k;
    kernels_init(&k, 0);
    for (int i = 0; i < dtype_count; i++) {
        const struct dtype *t = dtypes[i];
        if (!t->unpack) continue;
        test_begin("panel_holds_the_format %s", t->name);
        struct weights w = weights_new(t, 3, 512, RANDOM, &seed);
        struct buf mem = buf_new(panel_bytes(256));
        struct panel p;
        panel_place(&p, mem.data, 256);
        k.panel_build(&k, &p, t, ACT_8, w.w, w.row_bytes, 3, 256, 256);
        for (int r = 0; r < 3; r++) {
            float x[512];
            dtype_to_f32(t, w.w + (size_t)r * w.row_bytes, x, 512);
            for (int64_t c = 0; c < 256; c++) {
                int code = p.code[(c / 4 * PANEL_ROWS + r) * 4 + c % 4];
                int64_t at = c / p.group * PANEL_ROWS + r;
                double m = p.has_min ? p.min[at] : 0;
                CHECK(abs(code) <= t->code_max);
                CHECK_NEAR(p.scale[at] * (double)code + m, x[256 + c], 1e-6 * (fabs(p.scale[at]) * 64 + fabs(m)));
            }
        }
        buf_end(&mem), buf_end(&w.mem);
    }
}

/* ---- tiles ---- */

struct tile_case { int64_t nk, k0, cols; int n; bool add; };

/* A weight row over the panel's columns, unpacked once for all tokens: w = scale * code + min of centred codes, per 16 columns */
struct tile_row {
    double code[MAX_K], scale[MAX_K / 16], min[MAX_K / 16], sum[MAX_K / 16];
};

static void tile_row(struct tile_row *row, const struct dtype *t, const uint8_t *w, const struct tile_case *c)
{
    struct codes b = { .scale = { 0 } };
    for (int64_t i = 0; i < c->nk; i += 16) {
        int64_t col = c->k0 + i;
        int first = (int)(col % t->block_len), g = first / t->group_len, sum = 0;
        if (i == 0 || first == 0) t->unpack(w + col / t->block_len * t->block_bytes, &b);
        for (int j = 0; j < 16; j++) {
            int code = b.code[first + j] - t->code_bias;
            row->code[i + j] = code, sum += code;
        }
        row->scale[i / 16] = b.scale[g], row->min[i / 16] = (t->has_min ? b.min[g] : 0.0) + (double)b.scale[g] * t->code_bias, row->sum[i / 16] = sum;
    }
}

/* A token over the panel's columns: v is what the tile multiplies, and of the floats x per 16 columns: the sum, a step of 8 bits, an offset */
struct tile_token {
    double v[MAX_K], sum[MAX_K / 16], step[MAX_K / 16], offset[MAX_K / 16];
};

static void tile_token(struct tile_token *y, const float *x, const struct tile_case *c)
{
    for (int64_t i = 0; i < c->nk; i += 16) {
        double lo = INFINITY, hi = -INFINITY, sum = 0;
        for (const float *v = x + c->k0 + i, *end = v + 16; v < end; v++) {
            sum += *v;
            if (*v < lo) lo = *v;
            if (*v > hi) hi = *v;
        }
        y->sum[i / 16] = sum, y->step[i / 16] = (hi - lo) / 254, y->offset[i / 16] = lo - y->step[i / 16];
    }
}

/* exact sum over the panel's columns of one row and token, in the terms of kernels.h */
static double tile_exact(const struct dtype *t, const struct tile_row *w, const struct tile_token *x, const struct tile_case *c, double *terms)
{
    double y = 0;
    *terms = 0;
    for (int64_t i = 0, g = 0; i < c->nk; i += 16, g++) {
        double dot = 0, s = w->scale[g], m = w->min[g], sum = w->sum[g], o = x->offset[g];
        for (int j = 0; j < 16; j++) dot += w->code[i + j] * x->v[i + j];
        y += s * dot + m * x->sum[g];
        *terms += fabs(s * (dot - o * sum)) + fabs(s * sum * o) + (fabs(m) + fabs(s * t->code_bias)) * fabs(x->sum[g]);
        if (t->code_max > 32) *terms += 128 * fabs(s * sum * x->step[g]); /* 8-bit codes may be multiplied by a - 128 */
    }
    return y;
}

/* Levels of chunks: of w itself and what they multiply it with. *lost: what rounding w may take, and what becomes zero */
static double tile_exact_chunks(const struct tile_row *w, const struct tile_token *x, const struct tile_case *c, enum act_form form, double *terms,
                                double *lost)
{
    double y = 0, part = form == ACT_8 ? 0x1p-8 : 0x1p-15;
    *terms = *lost = 0;
    for (int64_t i = 0; i < c->nk; i++) {
        double code = w->scale[i / 16] * w->code[i], min = w->min[i / 16], term = (code + min) * x->v[i];
        y += term, *terms += (fabs(code) + fabs(min)) * fabs(x->v[i]), *lost += part * fabs(term) + 0x1p-125 + (fabs(code + min) + fabs(x->v[i])) * 0x1p-126;
    }
    return y;
}

/* *lost: what becomes zero when factors and sums below 2^-126 do */
static double tile_exact_floats(const struct dtype *t, const uint8_t *w, const float *x, const struct tile_case *c, enum act_form form, double *terms,
                                double *lost)
{
    double y = 0;
    *terms = *lost = 0;
    for (int64_t i = c->k0; i < c->k0 + c->nk; i++) {
        float v, a = x[i];
        t->to_f32(w + i * t->block_bytes, &v, 1);
        if (form == ACT_BF16) v = bf16_to_f32(f32_to_bf16(v)), a = bf16_to_f32(f32_to_bf16(a));
        double term = (double)v * a;
        y += term, *terms += fabs(term);
        if (form == ACT_BF16) *lost += 2 * 0x1p-126 + (fabsf(v) < 0x1p-126f || fabsf(a) < 0x1p-126f ? fabs(term) : 0);
    }
    return y;
}

static void check_value(const struct tile_case *c, enum act_form form, const char *what, double got, double exact, double terms, double lost)
{
    if (c->add) exact += 0.25, terms += 0.25;
    double tol = 2e-6 * terms + lost + 1e-36;
    CHECK_MSG(fabs(got - exact) <= tol, "nk %d n %d form %d %s: %.9g is not %.9g +- %g", (int)c->nk, c->n, form, what, got, exact, tol);
}

/* The panel of w times the second tile of x, against exact sums. */
static void check_product(const struct kernels *k, const struct dtype *t, const struct weights *w, struct acts *x, const struct tile_case *c,
                          const char *what)
{
    bool floats = act_is_float(x->p.form);
    int nt = k->tile_tokens, at = 1;
    int64_t stride = PANEL_ROWS + 3;
    struct buf mem = buf_new(panel_bytes(c->nk)), out = buf_new((size_t)((c->n - 1) * stride + PANEL_ROWS) * sizeof(float));
    struct panel panel;
    acts_fill(x, k);
    panel_place(&panel, mem.data, c->nk);
    panel.next = w->w, panel.next_bytes = w->row_bytes * PANEL_ROWS;
    kernels_panel(k, x->p.form)(k, &panel, t, x->p.form, w->w, w->row_bytes, PANEL_ROWS, c->k0, c->nk);
    float *y = (float *)(void *)out.data;
    for (int i = 0; c->add && i < c->n; i++)
        for (int r = 0; r < PANEL_ROWS; r++) y[i * stride + r] = 0.25f;
    kernels_tile(k, x->p.form)(k, &panel, &x->p, at, c->k0, c->n, y, stride, c->add);
    struct tile_row *row = malloc(sizeof *row);
    struct tile_token *token = malloc(sizeof *token * (size_t)c->n);
    if (!row || !token) abort();
    for (int i = 0; i < c->n && !floats; i++) {
        tile_token(&token[i], x->x[nt + i], c);
        k->act_read(k, &x->p, at, i, c->k0, c->nk, token[i].v);
    }
    for (int r = 0; r < PANEL_ROWS; r++) {
        const uint8_t *bytes = w->w + (size_t)r * w->row_bytes;
        if (!floats) tile_row(row, t, bytes, c);
        for (int i = 0; i < c->n; i++) {
            double terms, lost = 0, exact = floats          ? tile_exact_floats(t, bytes, x->x[nt + i], c, x->p.form, &terms, &lost)
                                            : k->has_chunks ? tile_exact_chunks(row, &token[i], c, x->p.form, &terms, &lost)
                                                            : tile_exact(t, row, &token[i], c, &terms);
            check_value(c, x->p.form, what, y[i * stride + r], exact, terms, lost);
        }
    }
    for (int i = 0; i + 1 < c->n; i++) {
        uint32_t gap = UINT32_MAX;
        for (int j = PANEL_ROWS; j < stride; j++) CHECK(!memcmp(&y[i * stride + j], &gap, sizeof gap));
    }
    free(row), free(token);
    buf_end(&mem), buf_end(&out);
}

static void check_tile(const struct level *l, const struct dtype *t, const struct tile_case *c, enum pattern p, int shape, uint64_t *seed)
{
    for (enum act_form form = t->group_len ? act_form_fast(&l->k, t) : ACT_BF16; form <= act_form_precise(t); form++) {
        if (form == ACT_BF16 ? !NEW(*l, tile_bf16) && !NEW(*l, panel_bf16) : form == ACT_F32 && !NEW(*l, tile_f32)) continue;
        struct acts x = acts_new(&l->k, c->cols, l->k.tile_tokens + c->n, form, shape, seed);
        struct weights w = weights_new(t, PANEL_ROWS, (c->cols + t->block_len - 1) / t->block_len * t->block_len, p, seed);
        char what[64];
        snprintf(what, sizeof what, "pattern %d shape %d", p, shape);
        check_product(&l->k, t, &w, &x, c, what);
        acts_end(&x), buf_end(&w.mem);
    }
}

static void check_tiles(const struct level *l, const struct dtype *t, uint64_t *seed)
{
    static const struct { int64_t nk, k0, cols; } shapes[] = {
        { 32, 0, 32 }, { 96, 256, 384 }, { 96, 256, 512 }, { 320, 256, 640 }, { MAX_K, 0, MAX_K },
    };
    for (int n = 1; n <= l->k.tile_tokens; n = next_tokens(&l->k, n, l->k.tile_tokens))
        for (int i = 0; i < ARRAY_LEN(shapes); i++) {
            struct tile_case c = { shapes[i].nk, shapes[i].k0, shapes[i].cols, n, (n + i) % 2 };
            if (c.k0 % t->block_len || (c.nk == MAX_K && n != l->k.tile_tokens)) continue;
            for (int p = 0; p < PATTERNS; p++) check_tile(l, t, &c, (enum pattern)p, (i + n + p) % SHAPES, seed);
            check_tile(l, t, &c, ALL_ONES, EXTREMES, seed);
            check_tile(l, t, &c, ALL_ZEROS, EXTREMES, seed);
        }
}

TEST(tile_is_exact_up_to_float_rounding)
{
    struct level l;
    uint64_t seed = 8;
    EACH_LEVEL(l)
        for (int i = 0; i < dtype_count; i++) {
            if (dtypes[i]->unpack ? !NEW(l, tile) && !NEW(l, tile_planes) : !NEW(l, tile_f32) && !NEW(l, tile_bf16)) continue;
            test_begin("tile_is_exact_up_to_float_rounding %s %s", l.name, dtypes[i]->name);
            check_tiles(&l, dtypes[i], &seed);
        }
}

/* The largest integers that a chain can meet: codes at their bounds where the format has such a constant row, and activations that are at one
 * end of their range wherever the code is positive and at the other where it is negative, but for one in 16 that opens the range. */
static void check_chains(const struct level *l, const struct dtype *t, int kind, uint64_t *seed)
{
    enum { COLS = 512 };
    struct weights w = weights_new(t, PANEL_ROWS, COLS, kind < 2 ? ALL_ONES : kind < 4 ? ALL_ZEROS : RANDOM, seed);
    float constant[COLS], sign = kind % 2 ? -1.0f : 1.0f;
    for (int i = 0; i < COLS; i++) constant[i] = sign;
    for (int r = 0; t->pack && kind >= 6 && r < PANEL_ROWS; r++) dtype_from_f32(t, constant, w.w + (size_t)r * w.row_bytes, COLS);
    for (enum act_form form = act_form_fast(&l->k, t); form <= ACT_15; form++) {
        struct tile_case c = { COLS, 0, COLS, l->k.tile_tokens, false };
        struct acts x = acts_new(&l->k, COLS, 2 * l->k.tile_tokens, form, ZERO, seed);
        struct codes b = { .scale = { 0 } };
        for (int i = 0; i < 2 * l->k.tile_tokens; i++)
            for (int64_t col = 0; col < COLS; col++) {
                if (col % t->block_len == 0) t->unpack(w.w + (size_t)(i % PANEL_ROWS) * w.row_bytes + col / t->block_len * t->block_bytes, &b);
                float v = b.code[col % t->block_len] >= t->code_bias ? sign : -sign;
                ((float *)(void *)x.xmem.data)[i * COLS + col] = col % 32 == 0 || col % 32 == 18 ? -v : v;
            }
        check_product(&l->k, t, &w, &x, &c, "extremes");
        acts_end(&x);
    }
    buf_end(&w.mem);
}

TEST(tile_chains_do_not_overflow)
{
    struct level l;
    uint64_t seed = 12;
    EACH_LEVEL(l)
        for (int i = 0; i < dtype_count; i++) {
            if (!dtypes[i]->unpack) continue;
            test_begin("tile_chains_do_not_overflow %s %s", l.name, dtypes[i]->name);
            for (int kind = 0; kind < 8; kind++) check_chains(&l, dtypes[i], kind, &seed);
        }
}

TEST(tile_tokens_do_not_see_each_other)
{
    struct level l;
    uint64_t seed = 9;
    EACH_LEVEL(l)
        for (int i = 0; i < dtype_count; i++) {
            const struct dtype *t = dtypes[i];
            test_begin("tile_tokens_do_not_see_each_other %s %s", l.name, t->name);
            int nt = l.k.tile_tokens;
            struct acts x = acts_new(&l.k, 256, nt, act_form_fast(&l.k, t), GAUSS, &seed);
            acts_fill(&x, &l.k);
            struct weights w = weights_new(t, PANEL_ROWS, 256, RANDOM, &seed);
            struct buf mem = buf_new(panel_bytes(256));
            struct panel p;
            panel_place(&p, mem.data, 256);
            kernels_panel(&l.k, x.p.form)(&l.k, &p, t, x.p.form, w.w, w.row_bytes, PANEL_ROWS, 0, 256);
            float all[TILE_TOKENS_MAX * PANEL_ROWS], some[TILE_TOKENS_MAX * PANEL_ROWS];
            kernels_tile(&l.k, x.p.form)(&l.k, &p, &x.p, 0, 0, nt, all, PANEL_ROWS, false);
            for (int n = 1; n < nt; n++) {
                kernels_tile(&l.k, x.p.form)(&l.k, &p, &x.p, 0, 0, n, some, PANEL_ROWS, false);
                CHECK(!memcmp(all, some, (size_t)(n * PANEL_ROWS) * sizeof(float)));
            }
            acts_end(&x), buf_end(&mem), buf_end(&w.mem);
        }
}

static void check_pair(const struct level *l, enum act_form form, int64_t nk, int n, bool add, uint64_t *seed)
{
    enum { BOTH = 2 * PANEL_ROWS, STRIDE = BOTH + 3 };
    int nt = l->k.tile_tokens;
    bool wide = form == ACT_F32 || form == ACT_15; /* two parts of BF16 are as wide as a float */
    size_t step = ((size_t)nk + 1) * PANEL_ROWS * (wide ? sizeof(float) : sizeof(uint16_t)) / 64 * 64 + 64;
    struct acts x = acts_new(&l->k, 256 + nk, 2 * nt, form, GAUSS, seed);
    struct buf mem = buf_new(2 * step);
    struct panel p[2];
    acts_fill(&x, &l->k);
    for (int i = 0; i < 2; i++) {
        uint8_t *data = mem.data + (size_t)i * step;
        p[i] = (struct panel){ .nk = nk, .form = form, .f32 = (float *)(void *)data, .bf16 = (uint16_t *)(void *)data };
        for (int64_t j = 0; j < (nk + nk % 2) * PANEL_ROWS * (form == ACT_15 ? 2 : 1); j++) {
            float v = j / PANEL_ROWS < nk || form != ACT_F32 ? test_randn(seed) : 0;
            if (form == ACT_F32) p[i].f32[min_i64(j, nk * PANEL_ROWS - 1)] = v;
            else p[i].bf16[j] = f32_to_bf16(v);
        }
    }
    float one[TILE_TOKENS_MAX * STRIDE], both[TILE_TOKENS_MAX * STRIDE];
    for (int i = 0; i < TILE_TOKENS_MAX * STRIDE; i++) one[i] = both[i] = test_randn(seed);
    kernels_pair(&l->k, &p[0], &p[1], &x.p, 1, 256, n, both, STRIDE, add);
    for (int i = 0; i < 2; i++) kernels_tile(&l->k, form)(&l->k, &p[i], &x.p, 1, 256, n, one + i * PANEL_ROWS, STRIDE, add);
    CHECK_MSG(!memcmp(one, both, sizeof one), "form %d, %d columns, %d tokens", form, (int)nk, n);
    acts_end(&x), buf_end(&mem);
}

TEST(a_pair_of_panels_is_two_tiles)
{
    struct level l;
    uint64_t seed = 16;
    EACH_LEVEL(l)
        for (enum act_form form = 0; form < ACT_FORMS; form++) {
            if (form == ACT_F32 ? !NEW(l, pair_f32) : form == ACT_BF16 ? !NEW(l, pair_bf16) : !NEW(l, pair)) continue;
            test_begin("a_pair_of_panels_is_two_tiles %s form %d", l.name, form);
            for (int n = 1; n <= l.k.tile_tokens; n = next_tokens(&l.k, n, l.k.tile_tokens))
                for (int64_t nk = 1; nk < 80; nk += 1 + nk / 4) check_pair(&l, form, act_is_float(form) ? nk : nk * 32, n, (n + nk) % 3 == 0, &seed);
        }
}

/* The largest scales of the contract: 2^96 is exponent 224 of mxfp4 (block byte 0), and a float of q8_k. */
TEST(large_scales_stay_exact)
{
    enum { COLS = 512 };
    static const struct { int id; float d; } formats[] = { { GGUF_MXFP4, 0 }, { GGUF_Q8_K, 0x1.fffffep95f } };
    struct level l;
    uint64_t seed = 14;
    EACH_LEVEL(l)
        for (int i = 0; i < ARRAY_LEN(formats); i++) {
            const struct dtype *t = dtype_by_id(formats[i].id);
            test_begin("large_scales_stay_exact %s %s", l.name, t->name);
            struct weights w = weights_new(t, PANEL_ROWS, COLS, RANDOM, &seed);
            for (int r = 0; r < PANEL_ROWS; r++)
                for (int b = 0; b < COLS / t->block_len; b++) {
                    uint8_t *block = w.w + (size_t)r * w.row_bytes + (size_t)(b * t->block_bytes);
                    if (t->gguf_id == GGUF_MXFP4) block[0] = (uint8_t)(b % 5 ? 224 - (unsigned)b % 2 : test_rand(&seed) % 224);
                    else memcpy(block, &formats[i].d, sizeof formats[i].d);
                }
            struct tile_case c = { COLS, 0, COLS, l.k.tile_tokens, false };
            for (enum act_form form = act_form_fast(&l.k, t); form <= ACT_15; form++) {
                struct acts x = acts_new(&l.k, COLS, 2 * l.k.tile_tokens, form, GAUSS, &seed);
                check_product(&l.k, t, &w, &x, &c, "large scales");
                acts_end(&x);
            }
            struct buf mem = buf_new(act_row_bytes(COLS));
            struct act_row row;
            float x[COLS];
            fill_x(x, COLS, GAUSS, &seed);
            act_row_place(&row, mem.data, COLS);
            l.k.quant_row(&row, x, COLS);
            for (int r = 0; r < PANEL_ROWS; r++) {
                double terms, exact = rowdot_exact(t, w.w + (size_t)r * w.row_bytes, &row, COLS, &terms);
                float got = l.k.rowdot[t->gguf_id](w.w + (size_t)r * w.row_bytes, &row, COLS);
                CHECK_MSG(fabs(got - exact) <= 2e-6 * terms, "row %d: %.9g is not %.9g +- %g", r, (double)got, exact, 2e-6 * terms);
            }
            buf_end(&mem), buf_end(&w.mem);
        }
}

/* ---- nothing but the rows is read: a page that nobody may touch before and behind them ---- */

struct fence { uint8_t *all, *data; size_t bytes, page; };

static struct fence fence_new(size_t bytes)
{
    struct fence f = { .page = (size_t)sysconf(_SC_PAGESIZE) };
    f.bytes = (bytes + f.page - 1) / f.page * f.page;
    f.all = mmap(NULL, f.bytes + 2 * f.page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (f.all == MAP_FAILED) abort();
    f.data = f.all + f.page;
    if (mprotect(f.all, f.page, PROT_NONE) || mprotect(f.data + f.bytes, f.page, PROT_NONE)) abort();
    return f;
}

static void fence_end(struct fence *f) { munmap(f->all, f->bytes + 2 * f->page); }

/* n bytes at one of the two ends */
static void *fence_at(const struct fence *f, size_t n, bool last) { return last ? f->data + f->bytes - n : f->data; }

static sigjmp_buf outside;
static void on_fault(int sig)
{
    (void)sig;
    siglongjmp(outside, 1);
}

/* Rows of k columns of weights that end at a fence. */
struct fenced { const uint8_t *w; size_t row_bytes; int rows; int64_t k; const float *x; float *y; void *panel, *acts; };

static void read_dots(const struct level *l, const struct dtype *t, const struct fenced *f)
{
    struct act_row row;
    float y[32];
    act_row_place(&row, f->acts, f->k);
    if (t->unpack) l->k.quant_row(&row, f->x, f->k);
    row.f32 = f->x;
    for (int r = 0; r < f->rows; r++) y[r] = l->k.rowdot[t->gguf_id](f->w + (size_t)r * f->row_bytes, &row, f->k);
    kernels_dots(&l->k, t, y, f->w, f->row_bytes, f->rows, &row, f->k);
}

static void read_panels(const struct level *l, const struct dtype *t, const struct fenced *f)
{
    struct panel p;
    for (enum act_form form = act_form_fast(&l->k, t); f->rows <= PANEL_ROWS && form <= act_form_precise(t); form++)
        for (int64_t k0 = 0; k0 < f->k; k0 += PANEL_K) {
            panel_place(&p, f->panel, PANEL_K);
            p.next = f->w, p.next_bytes = f->row_bytes * (size_t)f->rows;
            kernels_panel(&l->k, form)(&l->k, &p, t, form, f->w, f->row_bytes, f->rows, k0, min_i64(PANEL_K, f->k - k0));
        }
}

static void read_blocks(const struct level *l, const struct dtype *t, const struct fenced *f)
{
    struct codes c;
    size_t bytes = f->row_bytes * (size_t)f->rows;
    l->k.to_f32(t, f->w + bytes - f->row_bytes, f->y, f->k);
    if (!t->unpack) return;
    l->k.unpack[t->gguf_id](f->w, &c);
    l->k.unpack[t->gguf_id](f->w + bytes - (size_t)t->block_bytes, &c);
}

static const struct { const char *what; void (*read)(const struct level *l, const struct dtype *t, const struct fenced *f); } readers[] = {
    { "row-dots", read_dots }, { "panels", read_panels }, { "blocks", read_blocks },
};

static bool faults(int reader, const struct level *l, const struct dtype *t, const struct fenced *f)
{
    if (sigsetjmp(outside, 1)) return true;
    readers[reader].read(l, t, f);
    return false;
}

static void check_fenced(const struct level *l, const struct dtype *t, const struct fence *fw, const struct fence *fx, struct fenced f)
{
    size_t bytes = f.row_bytes * (size_t)f.rows;
    for (int last = 0; last < 2; last++) {
        f.w = fence_at(fw, bytes, last), f.x = fence_at(fx, (size_t)f.k * sizeof(float), last);
        for (int i = 0; i < ARRAY_LEN(readers); i++)
            CHECK_MSG(!faults(i, l, t, &f), "%s: k %d, %d rows: reads %s them", readers[i].what, (int)f.k, f.rows, last ? "behind" : "before");
    }
}

TEST(nothing_outside_the_rows_is_read)
{
    enum { MOST_K = 4352, MOST_ROWS = 19 };
    static const int64_t ks[] = { 32, 64, 96, 128, 160, 224, 256, 288, 320, 480, 512, 768, 1024, 2048, 2304, MOST_K };
    static const int rows[] = { 1, 2, 3, 4, 7, 8, 15, 16, 17, MOST_ROWS };
    struct level l;
    uint64_t seed = 15;
    struct sigaction old[2], now = { .sa_handler = on_fault };
    struct fence w = fence_new(MOST_ROWS * MOST_K * sizeof(double)), x = fence_new(MOST_K * sizeof(float));
    for (size_t i = 0; i < w.bytes; i++) w.data[i] = (uint8_t)test_rand(&seed);
    fill_x((float *)(void *)x.data, (int64_t)(x.bytes / sizeof(float)), GAUSS, &seed);
    struct buf y = buf_new(MOST_K * sizeof(float)), panel = buf_new(panel_bytes(PANEL_K)), acts = buf_new(act_row_bytes(MOST_K));
    sigaction(SIGSEGV, &now, &old[0]), sigaction(SIGBUS, &now, &old[1]);
    EACH_LEVEL(l)
        for (int i = 0; i < dtype_count; i++) {
            const struct dtype *t = dtypes[i];
            test_begin("nothing_outside_the_rows_is_read %s %s", l.name, t->name);
            if (!NEW(l, rowdot[t->gguf_id]) && !NEW(l, panel_build) && !NEW(l, panel_bf16)) continue;
            for (int j = 0; j < ARRAY_LEN(ks); j++)
                for (int r = j % 2; r < ARRAY_LEN(rows); r += ks[j] > 512 ? 2 : 1) {
                    int64_t k = t->unpack ? ks[j] : ks[j] - (int64_t)(test_rand(&seed) % 32);
                    if (k % t->block_len) continue;
                    check_fenced(&l, t, &w, &x, (struct fenced){ .row_bytes = dtype_row_bytes(t, k), .rows = rows[r], .k = k, .y = (float *)(void *)y.data,
                                                                 .panel = panel.data, .acts = acts.data });
                }
        }
    sigaction(SIGSEGV, &old[0], NULL), sigaction(SIGBUS, &old[1], NULL);
    buf_end(&y), buf_end(&panel), buf_end(&acts);
    fence_end(&w), fence_end(&x);
}

/* ---- why asymmetric ---- */

TEST(asymmetric_activations_have_half_the_error)
{
    struct kernels k;
    kernels_init(&k, UINT64_MAX);
    uint64_t seed = 10;
    static double got[16384];
    struct acts x = acts_new(&k, 16384, 1, ACT_8, GAUSS, &seed);
    acts_fill(&x, &k);
    acts_row(&k, &x, 0, got);
    double asymmetric = 0, symmetric = 0;
    for (int64_t c = 0; c < x.p.k; c++) {
        float v = x.x[0][c], top = 0;
        for (int64_t i = c / 32 * 32; i < c / 32 * 32 + 32; i++) top = fmaxf(top, fabsf(x.x[0][i]));
        double e = v - got[c], s = v - (double)(rintf(v * 127.0f / top) * top / 127.0f);
        asymmetric += e * e, symmetric += s * s;
    }
    CHECK_MSG(asymmetric < 0.56 * symmetric, "mean squared error %.3g asymmetric, %.3g symmetric", asymmetric / 16384, symmetric / 16384);
    acts_end(&x);
}

TEST(sizes_are_multiples_of_a_cache_line)
{
    struct kernels k;
    kernels_init(&k, UINT64_MAX);
    for (int64_t n = 1; n < 5000; n += 331) {
        CHECK(panel_bytes(n) % 64 == 0 && act_row_bytes(n) % 64 == 0);
        CHECK(act_panel_bytes(&k, n, n, ACT_F32) % 64 == 0);
        for (enum act_form f = 0; f < ACT_FORMS; f++) CHECK(act_panel_bytes(&k, (n + 31) / 32 * 32, n, f) % 64 == 0);
        CHECK(act_panel_bytes(&k, n, n, ACT_BF16) % 64 == 0);
    }
    CHECK(act_panel_bytes(&k, (int64_t)1 << 31, 1 << 20, ACT_F32) / sizeof(float) >= (size_t)1 << 51); /* no wrap at the stated bounds */
}

SUITE(kernels_matmul, T(unpack_equals_the_format), T(quant_row_equals_plain_c), T(rowdot_is_exact_up_to_float_rounding),
      T(rowdot_error_beside_a_spike),
      T(quant_tile_keeps_its_contract), T(quant_planes_equals_plain_c),
      T(unpack_run_is_block_by_block), T(a_pair_of_panels_is_two_tiles),
      T(quantizers_survive_nan_and_inf), T(pack_tile_f32_interleaves_tokens), T(pack_tile_bf16_holds_each_value),
      T(bf16_tiles_show_what_is_not_finite), T(panel_build_equals_plain_c),
      T(panel_holds_the_format), T(tile_is_exact_up_to_float_rounding), T(tile_chains_do_not_overflow),
      T(tile_tokens_do_not_see_each_other), T(large_scales_stay_exact), T(nothing_outside_the_rows_is_read), T(asymmetric_activations_have_half_the_error),
      T(sizes_are_multiples_of_a_cache_line));
