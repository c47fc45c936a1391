/* test_kernels_matmul - every matmul slot of every ISA level that this CPU has, against plain C (integers, bit for bit) and against float64
 * sums over dtype->unpack (floats, within the bound of the contract). A slot is checked when its pointer differs from the level below. */
#include "ggml-like/cpu.h"
#include "ggml-like/formats/formats.h"
#include "ggml-like/kernels/kernels.h"
#include "tests/test.h"
#include <float.h>

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
    struct buf b = { .all = aligned_alloc(64, (bytes + 63) / 64 * 64 + 2 * GUARD), .bytes = bytes };
    if (!b.all) abort();
    memset(b.all, FILL, (bytes + 63) / 64 * 64 + 2 * GUARD);
    b.data = b.all + GUARD;
    return b;
}

/* nothing outside the buffer was written */
static void buf_end(struct buf *b)
{
    bool clean = true;
    size_t tail = (b->bytes + 63) / 64 * 64 - b->bytes + GUARD;
    for (size_t i = 0; i < GUARD; i++) clean &= b->all[i] == FILL;
    for (size_t i = 0; i < tail; i++) clean &= b->data[b->bytes + i] == FILL;
    free(b->all);
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

enum { GAUSS, TINY, CONSTANT, EXTREMES, OUTLIER, ZERO, SHAPES };

static void fill_x(float *x, int64_t n, int shape, uint64_t *seed)
{
    for (int64_t i = 0; i < n; i++) {
        float g = test_randn(seed);
        x[i] = shape == GAUSS ? g : shape == TINY ? g * 1e-39f : shape == CONSTANT ? 3.7f : shape == ZERO ? 0.0f : g;
        if (shape == EXTREMES) x[i] = i % 3 ? 1.0f : -1.0f;
        if (shape == OUTLIER && i % 71 == 5) x[i] *= 1e4f;
    }
}

/* ---- unpack ---- */

static bool same_codes(const struct dtype *t, const struct codes *a, const struct codes *b)
{
    size_t groups = (size_t)(t->block_len / t->group_len) * sizeof(float);
    return !memcmp(a->code, b->code, (size_t)t->block_len) && !memcmp(a->scale, b->scale, groups) && !memcmp(a->min, b->min, groups);
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
                CHECK(same_codes(t, &got, &want));
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
    struct buf mem = buf_new(act_row_bytes(k));
    struct act_row row;
    float *x = malloc((size_t)k * sizeof *x);
    if (!x) abort();
    fill_x(x, k, shape, seed);
    act_row_place(&row, mem.data, k);
    if (t->unpack) l->ref.quant_row(&row, x, k);
    row.f32 = x;
    struct weights w = weights_new(t, 1, k, p, seed);
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
    float got = l->k.rowdot[t->gguf_id](w.w, &row, k);
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

/* ---- activations of a tile ---- */

struct acts { struct buf mem, xmem; struct act_panel p; const float *x[4 * TILE_TOKENS_MAX]; };

/* n tokens of k floats, quantized (or packed) by `by` */
static struct acts acts_new(const struct kernels *k, const struct kernels *by, int64_t cols, int n, bool f32, int shape, uint64_t *seed)
{
    struct acts a = { .mem = buf_new(act_panel_bytes(k, cols, n, f32)), .xmem = buf_new((size_t)cols * (size_t)n * sizeof(float)) };
    act_panel_place(k, &a.p, a.mem.data, cols, n, f32);
    float *x = (float *)(void *)a.xmem.data;
    fill_x(x, cols * n, shape, seed);
    for (int t = 0; t < n; t++) a.x[t] = x + t * cols;
    int nt = k->tile_tokens;
    for (int t = 0; t < n; t += nt) (f32 ? by->pack_tile_f32 : by->quant_tile)(k, &a.p, t / nt, a.x + t, (int)min_i64(nt, n - t));
    return a;
}

static void acts_end(struct acts *a) { buf_end(&a->mem), buf_end(&a->xmem); }

struct cell { uint8_t *a; float d, o; }; /* a: four columns */

static struct cell cell_at(const struct act_panel *p, int nt, int t, int64_t col)
{
    int64_t tile = t / nt, lane = t % nt, at = (tile * (p->k / 16) + col / 16) * nt + lane;
    return (struct cell){ p->a + (tile * p->k + col / 4 * 4) * nt + 4 * lane, p->d[at], p->o[at] };
}

static float sum16(const struct act_panel *p, int nt, int t, int64_t col)
{
    return p->sum[((t / nt) * (p->k / 16) + col / 16) * nt + t % nt];
}

static void check_acts(const struct acts *got, const struct acts *want, int nt, int n)
{
    const struct act_panel *p = &got->p;
    for (int t = 0; t < (n + nt - 1) / nt * nt; t++)
        for (int64_t c = 0; c < p->k; c += 4) {
            struct cell g = cell_at(p, nt, t, c), w = cell_at(&want->p, nt, t, c);
            CHECK(!memcmp(g.a, w.a, 4) && !memcmp(&g.d, &w.d, 4) && !memcmp(&g.o, &w.o, 4));
            if (t >= n) {
                CHECK(g.a[0] == 0 && g.d == 0 && g.o == 0 && sum16(p, nt, t, c) == 0);
                continue;
            }
            double sum = 0, size = 0;
            for (int64_t i = c / 16 * 16; i < c / 16 * 16 + 16; i++) sum += got->x[t][i], size += fabsf(got->x[t][i]);
            CHECK_NEAR(sum16(p, nt, t, c), sum, 1e-6 * size);
            for (int i = 0; i < 4; i++) {
                float x = got->x[t][c + i];
                CHECK(g.a[i] >= 1);
                CHECK_NEAR(g.d * g.a[i] + g.o, x, 0.501f * g.d + 1e-6f * fabsf(g.o) + 1e-32f);
            }
        }
}

TEST(quant_tile_equals_plain_c)
{
    struct level l;
    uint64_t seed = 4;
    EACH_LEVEL(l) {
        if (!NEW(l, quant_tile)) continue;
        test_begin("quant_tile_equals_plain_c %s", l.name);
        int nt = l.k.tile_tokens;
        for (int n = 1; n <= 2 * nt + 1; n++)
            for (int shape = 0; shape < SHAPES; shape++) {
                int64_t cols = 32 * (1 + n % 3);
                uint64_t again = seed;
                struct acts a = acts_new(&l.k, &l.k, cols, n, false, shape, &seed);
                struct acts b = acts_new(&l.k, &l.ref, cols, n, false, shape, &again);
                check_acts(&a, &b, nt, n);
                acts_end(&a), acts_end(&b);
            }
    }
}

TEST(quantizers_survive_nan_and_inf)
{
    struct level l;
    EACH_LEVEL(l) {
        test_begin("quantizers_survive_nan_and_inf %s", l.name);
        float bad[3] = { NAN, INFINITY, -INFINITY }, x[64];
        for (int i = 0; i < 64; i++) x[i] = i < 32 ? bad[i % 3] : (float)i;
        const float *rows[TILE_TOKENS_MAX];
        for (int t = 0; t < TILE_TOKENS_MAX; t++) rows[t] = x;
        struct buf tile = buf_new(act_panel_bytes(&l.k, 64, l.k.tile_tokens, false)), row = buf_new(act_row_bytes(64));
        struct act_panel p;
        struct act_row r;
        act_panel_place(&l.k, &p, tile.data, 64, l.k.tile_tokens, false), act_row_place(&r, row.data, 64);
        l.k.quant_tile(&l.k, &p, 0, rows, l.k.tile_tokens);
        l.k.quant_row(&r, x, 64);
        CHECK_NEAR(r.d[1] * (float)r.y[63], 63.0f, 1e-3f); /* the neighbouring block is untouched */
        struct cell c = cell_at(&p, l.k.tile_tokens, 0, 60);
        CHECK_NEAR(c.d * c.a[3] + c.o, 63.0f, 1e-4f);
        buf_end(&tile), buf_end(&row);
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
        for (int n = 1; n <= 2 * nt + 1; n++) {
            int64_t cols = 1 + 5 * n;
            struct acts a = acts_new(&l.k, &l.k, cols, n, true, GAUSS, &seed);
            for (int t = 0; t < (n + nt - 1) / nt * nt; t++)
                for (int64_t i = 0; i < cols; i++) CHECK(a.p.f32[(t / nt * cols + i) * nt + t % nt] == (t < n ? a.x[t][i] : 0.0f));
            acts_end(&a);
        }
    }
}

/* ---- panels ---- */

static bool near_all(const float *a, const float *b, int64_t n, double tol)
{
    for (int64_t i = 0; i < n; i++)
        if (!(fabs((double)a[i] - b[i]) <= tol * fabs((double)b[i]) + 1e-36)) return false;
    return true;
}

static void check_panel(const struct level *l, const struct dtype *t, int rows, int64_t k0, int64_t nk, enum pattern p, uint64_t *seed)
{
    int64_t cols = (k0 + nk + t->block_len - 1) / t->block_len * t->block_len;
    struct weights w = weights_new(t, rows, cols, p, seed);
    struct buf a = buf_new(panel_bytes(nk)), b = buf_new(panel_bytes(nk));
    struct panel got, want;
    panel_place(&got, a.data, nk), panel_place(&want, b.data, nk);
    l->k.panel_build(&l->k, &got, t, w.w, w.row_bytes, rows, k0, nk);
    l->ref.panel_build(&l->ref, &want, t, w.w, w.row_bytes, rows, k0, nk);
    CHECK(got.nk == nk && got.group == t->group_len && got.code_max == t->code_max && got.has_min == want.has_min);
    if (t->group_len == 0) {
        CHECK(!memcmp(got.f32, want.f32, (size_t)nk * PANEL_ROWS * sizeof(float)));
        for (int64_t i = 0; i < nk; i++)
            for (int r = rows; r < PANEL_ROWS; r++) CHECK(got.f32[i * PANEL_ROWS + r] == 0);
    } else {
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
        k.panel_build(&k, &p, t, w.w, w.row_bytes, 3, 256, 256);
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

/* exact sum over the panel's columns of one row and token, in the terms of kernels.h */
static double tile_exact(const struct dtype *t, const uint8_t *w, const struct act_panel *x, int nt, int token, const struct tile_case *c,
                         double *terms)
{
    double y = 0;
    *terms = 0;
    struct codes b = { .scale = { 0 } };
    for (int64_t i = 0; i < c->nk; i += 16) {
        int64_t col = c->k0 + i;
        t->unpack(w + col / t->block_len * t->block_bytes, &b);
        int first = (int)(col % t->block_len), g = first / t->group_len, dot = 0, sum = 0;
        struct cell a = cell_at(x, nt, token, col);
        for (int j = 0; j < 16; j++) {
            int code = b.code[first + j] - t->code_bias;
            dot += code * cell_at(x, nt, token, col + j).a[j % 4];
            sum += code;
        }
        double xsum = sum16(x, nt, token, col), s = b.scale[g], m = (t->has_min ? b.min[g] : 0.0) + s * t->code_bias;
        y += s * a.d * dot + s * sum * a.o + m * xsum;
        *terms += fabs(s * a.d * dot) + fabs(s * sum * a.o) + (fabs(m) + fabs(s * t->code_bias)) * fabs(xsum);
        if (t->code_max > 32) *terms += 128 * fabs(s * sum * a.d); /* 8-bit codes may be multiplied by a - 128 */
    }
    return y;
}

static double tile_exact_f32(const struct dtype *t, const uint8_t *w, const float *x, const struct tile_case *c, double *terms)
{
    double y = 0;
    *terms = 0;
    for (int64_t i = c->k0; i < c->k0 + c->nk; i++) {
        float v;
        t->to_f32(w + i * t->block_bytes, &v, 1);
        y += (double)v * x[i], *terms += fabs((double)v * x[i]);
    }
    return y;
}

static void check_tile(const struct level *l, const struct dtype *t, const struct tile_case *c, enum pattern p, int shape, uint64_t *seed)
{
    const struct kernels *k = &l->k;
    bool f32 = t->group_len == 0;
    int nt = k->tile_tokens, at = 1; /* the second tile */
    struct acts x = acts_new(k, &l->ref, c->cols, nt + c->n, f32, shape, seed);
    struct weights w = weights_new(t, PANEL_ROWS, (c->cols + t->block_len - 1) / t->block_len * t->block_len, p, seed);
    int64_t stride = PANEL_ROWS + 3;
    struct buf mem = buf_new(panel_bytes(c->nk)), out = buf_new((size_t)((c->n - 1) * stride + PANEL_ROWS) * sizeof(float));
    struct panel panel;
    panel_place(&panel, mem.data, c->nk);
    l->ref.panel_build(&l->ref, &panel, t, w.w, w.row_bytes, PANEL_ROWS, c->k0, c->nk);
    float *y = (float *)(void *)out.data;
    for (int i = 0; c->add && i < c->n; i++)
        for (int r = 0; r < PANEL_ROWS; r++) y[i * stride + r] = 0.25f;
    (f32 ? k->tile_f32 : k->tile)(k, &panel, &x.p, at, c->k0, c->n, y, stride, c->add);
    for (int i = 0; i < c->n; i++) {
        for (int r = 0; r < PANEL_ROWS; r++) {
            double terms, exact = f32 ? tile_exact_f32(t, w.w + (size_t)r * w.row_bytes, x.x[nt + i], c, &terms)
                                      : tile_exact(t, w.w + (size_t)r * w.row_bytes, &x.p, nt, nt + i, c, &terms);
            if (c->add) exact += 0.25, terms += 0.25;
            double got = y[i * stride + r], tol = 2e-6 * terms + 1e-36;
            CHECK_MSG(fabs(got - exact) <= tol, "nk %d n %d pattern %d shape %d: %.9g is not %.9g +- %g", (int)c->nk, c->n, p, shape, got,
                      exact, tol);
        }
        uint32_t gap = UINT32_MAX;
        for (int j = PANEL_ROWS; i + 1 < c->n && j < stride; j++) CHECK(!memcmp(&y[i * stride + j], &gap, sizeof gap));
    }
    acts_end(&x), buf_end(&mem), buf_end(&out), buf_end(&w.mem);
}

static void check_tiles(const struct level *l, const struct dtype *t, uint64_t *seed)
{
    static const struct { int64_t nk, k0, cols; } shapes[] = {
        { 32, 0, 32 }, { 96, 32, 160 }, { 96, 256, 512 }, { 320, 256, 640 }, { MAX_K, 0, MAX_K },
    };
    for (int n = 1; n <= l->k.tile_tokens; n++)
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
            if (dtypes[i]->unpack ? !NEW(l, tile) : !NEW(l, tile_f32)) continue;
            test_begin("tile_is_exact_up_to_float_rounding %s %s", l.name, dtypes[i]->name);
            check_tiles(&l, dtypes[i], &seed);
        }
}

/* The largest integers that a chain can meet: every code at its bound, every activation at 255 (or all at 1). */
TEST(tile_chains_do_not_overflow)
{
    struct level l;
    EACH_LEVEL(l) {
        test_begin("tile_chains_do_not_overflow %s", l.name);
        int nt = l.k.tile_tokens;
        static const struct { int group, code; } cases[] = {
            { 32, 8 }, { 32, 16 }, { 32, 32 }, { 32, 128 }, { 16, 4 }, { 16, 16 }, { 16, 32 }, { 16, 128 },
        };
        for (int i = 0; i < 4 * ARRAY_LEN(cases); i++) {
            int group = cases[i / 4].group, max = cases[i / 4].code, code = i % 2 ? max == 128 ? 127 : max : -max, a = i % 4 / 2 ? 1 : 255;
            struct buf mem = buf_new(panel_bytes(32)), act = buf_new(act_panel_bytes(&l.k, 32, nt, false));
            struct panel p;
            struct act_panel x;
            panel_place(&p, mem.data, 32), act_panel_place(&l.k, &x, act.data, 32, nt, false);
            p.group = group, p.code_max = max, p.has_min = false;
            memset(p.code, code, 32 * PANEL_ROWS);
            for (int j = 0; j < 2 * PANEL_ROWS; j++) p.scale[j] = 1, p.csum[j] = 16.0f * (float)code;
            memset(x.a, a, (size_t)(32 * nt));
            for (int t = 0; t < 2 * nt; t++) x.d[t] = 1, x.o[t] = 0, x.sum[t] = 0;
            float y[TILE_TOKENS_MAX * PANEL_ROWS];
            l.k.tile(&l.k, &p, &x, 0, 0, nt, y, PANEL_ROWS, false);
            for (int j = 0; j < nt * PANEL_ROWS; j++) CHECK_NEAR(y[j], 32.0 * code * a, 0.5);
            buf_end(&mem), buf_end(&act);
        }
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
            bool f32 = !t->unpack;
            int nt = l.k.tile_tokens;
            struct acts x = acts_new(&l.k, &l.k, 256, nt, f32, GAUSS, &seed);
            struct weights w = weights_new(t, PANEL_ROWS, 256, RANDOM, &seed);
            struct buf mem = buf_new(panel_bytes(256));
            struct panel p;
            panel_place(&p, mem.data, 256);
            l.k.panel_build(&l.k, &p, t, w.w, w.row_bytes, PANEL_ROWS, 0, 256);
            float all[TILE_TOKENS_MAX * PANEL_ROWS], some[TILE_TOKENS_MAX * PANEL_ROWS];
            (f32 ? l.k.tile_f32 : l.k.tile)(&l.k, &p, &x.p, 0, 0, nt, all, PANEL_ROWS, false);
            for (int n = 1; n < nt; n++) {
                (f32 ? l.k.tile_f32 : l.k.tile)(&l.k, &p, &x.p, 0, 0, n, some, PANEL_ROWS, false);
                CHECK(!memcmp(all, some, (size_t)(n * PANEL_ROWS) * sizeof(float)));
            }
            acts_end(&x), buf_end(&mem), buf_end(&w.mem);
        }
}

/* ---- why asymmetric ---- */

TEST(asymmetric_activations_have_half_the_error)
{
    struct kernels k;
    kernels_init(&k, UINT64_MAX);
    uint64_t seed = 10;
    int nt = k.tile_tokens;
    struct acts x = acts_new(&k, &k, 16384, 1, false, GAUSS, &seed);
    double asymmetric = 0, symmetric = 0;
    for (int64_t c = 0; c < x.p.k; c++) {
        struct cell a = cell_at(&x.p, nt, 0, c);
        float v = x.x[0][c], top = 0;
        for (int64_t i = c / 32 * 32; i < c / 32 * 32 + 32; i++) top = fmaxf(top, fabsf(x.x[0][i]));
        double e = v - (double)(a.d * a.a[c % 4] + a.o), s = v - (double)(rintf(v * 127.0f / top) * top / 127.0f);
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
        CHECK(act_panel_bytes(&k, n, n, true) % 64 == 0 && act_panel_bytes(&k, (n + 31) / 32 * 32, n, false) % 64 == 0);
    }
    CHECK(act_panel_bytes(&k, (int64_t)1 << 31, 1 << 20, true) / sizeof(float) >= (size_t)1 << 51); /* no wrap at the stated bounds */
}

SUITE(kernels_matmul, T(unpack_equals_the_format), T(quant_row_equals_plain_c), T(rowdot_is_exact_up_to_float_rounding),
      T(quant_tile_equals_plain_c), T(quantizers_survive_nan_and_inf), T(pack_tile_f32_interleaves_tokens), T(panel_build_equals_plain_c),
      T(panel_holds_the_format), T(tile_is_exact_up_to_float_rounding), T(tile_chains_do_not_overflow),
      T(tile_tokens_do_not_see_each_other), T(asymmetric_activations_have_half_the_error),
      T(sizes_are_multiples_of_a_cache_line));
