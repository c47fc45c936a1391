/* test_quant_level - formats in which each weight is rounded by itself: their searches against all scales that a block could have, against the
 * usual choice of the scale, and on rows longer than a strip. test_quant_search has what holds for every format. */
#include "ggml-like/cpu.h"
#include "ggml-like/formats/formats.h"
#include "quant/quantizer.h"
#include "tests/test.h"

enum { ROWS = 21, COLS = 2048 + 256, LEVELS = 3 };
struct room {
    float x[ROWS * COLS], y[ROWS * COLS], w[COLS];
    _Alignas(64) uint8_t q[LEVELS][ROWS * COLS * 2], scratch[QUANT_SCRATCH];
};

static struct quant_kernels levels[LEVELS];
static int n_levels;

static struct room *set_up(void)
{
    static struct room r;
    static const uint64_t steps[] = { 0, CPU_AVX2 | CPU_FMA | CPU_F16C, ~(uint64_t)0 };
    struct cpu_info cpu;
    cpu_detect(&cpu);
    n_levels = 0;
    for (int i = 0; i < ARRAY_LEN(steps); i++) {
        quant_kernels_init(&levels[n_levels], cpu.features & steps[i]);
        if (n_levels == 0 || strcmp(levels[n_levels].name, levels[n_levels - 1].name)) n_levels++;
    }
    uint64_t seed = 3;
    for (int i = 0; i < ROWS * COLS; i++) {
        float a = test_randn(&seed);
        r.x[i] = a * (1.0f + 0.05f * a * a) * 0.02f;
    }
    for (int i = 0; i < COLS; i++) r.w[i] = i % 11 ? expf(1.5f * test_randn(&seed)) : 0.0f;
    return &r;
}

/* What a format can say: levels times a scale of `group` weights; `halves`: the scale is a half float of either sign. */
struct grid {
    int id, group, n;
    float level[16];
    bool halves;
    double near, usual; /* bounds: error over that of the best scale, and over that of the usual choice */
    float usual_top;    /* the usual choice: the largest magnitude is this level */
};
#define E2M1 16, { 0, .5f, 1, 1.5f, 2, 3, 4, 6, 0, -.5f, -1, -1.5f, -2, -3, -4, -6 }
static const struct grid grids[] = {
    { GGUF_IQ4_NL, 32, 16, { -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113 }, true, 1.02, 0.8, 113 },
    { GGUF_TQ1_0, 256, 3, { -1, 0, 1 }, true, 1.01, 0.6, 1 },
    { GGUF_TQ2_0, 256, 3, { -1, 0, 1 }, true, 1.01, 0.6, 1 },
    { GGUF_Q1_0, 128, 2, { -1, 1 }, true, 1.0001, 1.0, 1 },
    { GGUF_Q2_0, 64, 4, { -1, 0, 1, 2 }, true, 1.03, 0.6, 1 },
    { GGUF_MXFP4, 32, E2M1, false, 1.0001, 1.0, 6 },
    { GGUF_NVFP4, 16, E2M1, false, 1.005, 0.95, 6 },
};

static double error_at(const struct grid *g, double scale, const float *x, const float *w)
{
    double sum = 0;
    for (int i = 0; i < g->group; i++) {
        double least = 1e300;
        for (int l = 0; l < g->n; l++) {
            double e = x[i] - scale * (double)g->level[l];
            if (e * e < least) least = e * e;
        }
        sum += (double)w[i] * least;
    }
    return sum;
}

static double largest(const float *x, int n)
{
    double top = 0;
    for (int i = 0; i < n; i++) top = fmax(top, fabs((double)x[i]));
    return top;
}

/* Over every scale that puts the largest magnitude between 0.4 and 30 times the top level; codes of scales are looked at through unpack. */
static double least_error(const struct grid *g, const float *x, const float *w)
{
    double top = largest(x, g->group), least = 1e300;
    if (g->halves) {
        uint16_t from = f32_to_f16((float)(top / g->usual_top / 30)), to = f32_to_f16((float)(top / g->usual_top * 2.5));
        int step = g->id == GGUF_IQ4_NL ? 1 : 4;
        for (int h = from; h <= to; h += step)
            for (int sign = -1; sign <= 1; sign += 2) least = fmin(least, error_at(g, sign * (double)f16_to_f32((uint16_t)h), x, w));
        return least;
    }
    for (int c = 1; c < (g->id == GGUF_MXFP4 ? 253 : 127); c++) {
        struct codes codes;
        struct parts parts = { .d = (uint16_t)c, .sc = { (uint8_t)c } };
        uint8_t block[64];
        const struct dtype *t = dtype_by_id(g->id);
        t->join(&parts, block);
        t->unpack(block, &codes);
        least = fmin(least, error_at(g, 2.0 * (double)codes.scale[0], x, w)); /* codes are doubled */
    }
    return least;
}

static double error_of(const float *x, const float *y, const float *w, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++) sum += (double)w[i] * ((double)x[i] - y[i]) * ((double)x[i] - y[i]);
    return sum;
}

TEST(level_searches_come_near_the_best_scale)
{
    struct room *r = set_up();
    float even[BLOCK_MAX];
    for (int i = 0; i < BLOCK_MAX; i++) even[i] = 1.0f;
    for (int i = 0; i < ARRAY_LEN(grids); i++) {
        const struct grid *g = &grids[i];
        const struct dtype *t = dtype_by_id(g->id);
        test_begin("level_searches_come_near_the_best_scale %s", t->name);
        for (int plain = 0; plain < 2; plain++) {
            double best = 0, made = 0, usual = 0;
            levels[n_levels - 1].rows[g->id](&levels[n_levels - 1], r->x, plain ? NULL : r->w, 2, COLS, r->q[0], r->scratch);
            dtype_to_f32(t, r->q[0], r->y, 2 * COLS);
            for (int b = 0; b < (g->halves ? 12 : 60); b++) {
                int at = b * g->group % COLS;
                const float *x = r->x + at, *w = plain ? even : r->w + at;
                double least = least_error(g, x, w), err = error_of(x, r->y + at, w, g->group);
                CHECK_MSG(err <= 1.25 * least + 1e-12, "block %d: %g of the least error", b, err / least);
                best += least, made += err;
                double scale = largest(x, g->group) / (double)g->usual_top;
                usual += error_at(g, g->id == GGUF_MXFP4 ? exp2(floor(log2(scale * 6)) - 2) : scale, x, w);
            }
            CHECK_MSG(made <= g->near * best, "%g of the least error%s", made / best, plain ? ", without importance" : "");
            CHECK_MSG(made <= g->usual * usual, "%g of the error of the usual scale%s", made / usual, plain ? ", without importance" : "");
        }
    }
}

static const int made_here[] = { GGUF_IQ4_NL, GGUF_IQ4_XS, GGUF_TQ1_0, GGUF_TQ2_0, GGUF_Q1_0, GGUF_Q2_0, GGUF_MXFP4, GGUF_NVFP4, GGUF_Q8_0,
                                 GGUF_F16, GGUF_BF16 };

TEST(level_searches_agree_beyond_a_strip)
{
    struct room *r = set_up();
    for (int i = 0; i < ARRAY_LEN(made_here); i++) {
        const struct dtype *t = dtype_by_id(made_here[i]);
        test_begin("level_searches_agree_beyond_a_strip %s", t->name);
        size_t row = dtype_row_bytes(t, COLS);
        for (int l = 0; l < n_levels; l++) levels[l].rows[t->gguf_id](&levels[l], r->x, r->w, ROWS, COLS, r->q[l], r->scratch);
        for (int l = 1; l < n_levels; l++) CHECK_MSG(!memcmp(r->q[0], r->q[l], ROWS * row), "%s is not %s", levels[l].name, levels[0].name);
        uint8_t *part = r->q[LEVELS - 1];
        const struct quant_kernels *k = &levels[n_levels - 1];
        for (int at = 0, n = 1; at < ROWS; at += n, n = n * 3 % 8) {
            n = ROWS - at < n ? ROWS - at : n;
            k->rows[t->gguf_id](k, r->x + (size_t)at * COLS, r->w, n, COLS, part + (size_t)at * row, r->scratch);
        }
        CHECK_MSG(!memcmp(r->q[0], part, ROWS * row), "depends on the split of the rows");
    }
}

/* What such a file holds comes back: every value, for formats whose scale cannot be doubted; to a fortieth of the first error for the rest. */
TEST(level_searches_find_the_grid_again)
{
    struct room *r = set_up();
    for (int i = 0; i < ARRAY_LEN(made_here) - 2; i++) {
        const struct dtype *t = dtype_by_id(made_here[i]);
        test_begin("level_searches_find_the_grid_again %s", t->name);
        const struct quant_kernels *k = &levels[n_levels - 1];
        set_up();
        k->rows[t->gguf_id](k, r->x, r->w, 4, COLS, r->q[0], r->scratch);
        dtype_to_f32(t, r->q[0], r->y, 4 * COLS);
        double first = 0, second = 0;
        for (int j = 0; j < 4; j++) first += error_of(r->x + j * COLS, r->y + j * COLS, r->w, COLS);
        memcpy(r->x, r->y, 4 * COLS * sizeof(float));
        k->rows[t->gguf_id](k, r->x, r->w, 4, COLS, r->q[0], r->scratch);
        dtype_to_f32(t, r->q[0], r->y, 4 * COLS);
        for (int j = 0; j < 4; j++) second += error_of(r->x + j * COLS, r->y + j * COLS, r->w, COLS);
        bool exact = t->gguf_id == GGUF_MXFP4 || t->gguf_id == GGUF_NVFP4 || t->gguf_id == GGUF_Q1_0;
        CHECK_MSG(second <= (exact ? 0 : first / 40), "%g of the first error", second / first);
    }
}

/* Models trained to -d, 0, d, whatever the importance. */
TEST(level_searches_keep_ternary_weights)
{
    static const int ids[] = { GGUF_TQ1_0, GGUF_TQ2_0, GGUF_Q2_0 };
    struct room *r = set_up();
    uint64_t seed = 9;
    for (int i = 0; i < ROWS * COLS; i++) r->x[i] = 0.0371f * (float)((int)(test_rand(&seed) % 3) - 1);
    for (int i = 0; i < ROWS * COLS; i++) r->x[i] = f16_to_f32(f32_to_f16(r->x[i]));
    for (int i = 0; i < ARRAY_LEN(ids); i++) {
        const struct dtype *t = dtype_by_id(ids[i]);
        levels[0].rows[ids[i]](&levels[0], r->x, r->w, ROWS, COLS, r->q[0], r->scratch);
        dtype_to_f32(t, r->q[0], r->y, ROWS * COLS);
        CHECK_MSG(!memcmp(r->x, r->y, sizeof r->x), "%s", t->name);
    }
}

/* Every half and its neighbours between two halves; NaN payloads; the edges of what a half holds. */
TEST(float_rows_are_the_scalar_conversions)
{
    struct room *r = set_up();
    uint64_t seed = 1;
    for (int round = 0; round < 4; round++) {
        for (int i = 0; i < ROWS * COLS; i++) {
            uint64_t v = test_rand(&seed);
            uint32_t bits = round == 0 ? (uint32_t)v : (uint32_t)(v & 1) << 31 | (0x32000000 + (uint32_t)(v >> 8) % 0x16000000);
            float mid = 0.5f * (f16_to_f32((uint16_t)(v % 0x7bff)) + f16_to_f32((uint16_t)(v % 0x7bff + 1)));
            if (round == 2) memcpy(&bits, &mid, sizeof bits);
            if (round == 3) bits = 0x7f800000 + (uint32_t)(v % 5) - 2 + ((uint32_t)v & 0x80000000);
            memcpy(&r->x[i], &bits, sizeof bits);
        }
        for (int l = 0; l < n_levels; l++)
            for (int bf = 0; bf < 2; bf++) {
                levels[l].rows[bf ? GGUF_BF16 : GGUF_F16](&levels[l], r->x, NULL, ROWS, COLS - 1, r->q[0], r->scratch);
                int bad = 0;
                for (int i = 0; i < ROWS * (COLS - 1); i++) {
                    uint16_t h, want = bf ? f32_to_bf16(r->x[i]) : f32_to_f16(r->x[i]);
                    memcpy(&h, r->q[0] + 2 * i, sizeof h);
                    bad += h != want;
                }
                CHECK_MSG(bad == 0, "%s, %s, round %d: %d differ", levels[l].name, bf ? "bf16" : "f16", round, bad);
            }
    }
}

SUITE(quant_level, T(level_searches_come_near_the_best_scale), T(level_searches_agree_beyond_a_strip), T(level_searches_find_the_grid_again),
      T(level_searches_keep_ternary_weights), T(float_rows_are_the_scalar_conversions));
