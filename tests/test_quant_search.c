/* test_quant_search - every format that can be made, as its row says: the same bytes on every SIMD level and for every split of the rows, finite
 * results for any finite weights, errors near what the bits allow, never above plain rounding, and the way back to the grid that values came from. */
#include "ggml-like/cpu.h"
#include "quant/quantizer.h"
#include "tests/test.h"

enum { ROWS = 19, COLS = 512, LEVELS = 3 };

struct room {
    float x[ROWS * COLS], y[ROWS * COLS], w[COLS];
    _Alignas(64) uint8_t q[LEVELS][ROWS * COLS * 4 + 64];
    _Alignas(64) uint8_t scratch[QUANT_SCRATCH];
};

static struct quant_kernels levels[LEVELS];
static int n_levels;

static struct room *set_up(void)
{
    struct cpu_info cpu;
    cpu_detect(&cpu);
    static const uint64_t steps[] = { 0, CPU_AVX2 | CPU_FMA | CPU_F16C, ~(uint64_t)0 };
    n_levels = 0;
    for (int i = 0; i < ARRAY_LEN(steps); i++) {
        quant_kernels_init(&levels[n_levels], cpu.features & steps[i]);
        if (n_levels == 0 || strcmp(levels[n_levels].name, levels[n_levels - 1].name)) n_levels++;
    }
    static struct room r;
    return &r;
}

static bool makes(const struct dtype *t) { return levels[0].rows[t->gguf_id] != NULL; }

/* Weights of trained models: a bell with heavy tails, rows of different sizes. */
static void bell(struct room *r, uint64_t seed)
{
    for (int i = 0; i < ROWS * COLS; i++) {
        float a = test_randn(&seed);
        r->x[i] = a * (1.0f + 0.05f * a * a) * 0.02f * (float)(1 + i / COLS % 4);
    }
    for (int i = 0; i < COLS; i++) r->w[i] = expf(1.5f * test_randn(&seed));
}

enum { KINDS = 12 };
static const float *hostile(struct room *r, int kind)
{
    uint64_t s = (uint64_t)kind + 77;
    bell(r, s);
    float *x = r->x, *w = r->w;
    const float huge[] = { 3.4e38f, -3.4e38f, 1e38f, 65504.0f, 0.0f };
    for (int i = 0; i < ROWS * COLS; i++) switch (kind) {
        case 0: x[i] = 0.0f; break;
        case 1: x[i] = i % 97 ? 0.0f : 1.0f; break;
        case 2: x[i] *= 1e-38f; break;
        case 3: x[i] = huge[test_rand(&s) % 5]; break;
        case 4: x[i] = i % 256 < 32 ? 1e-44f : x[i] * 1e30f; break;
        case 5: x[i] = 0.125f; break;
        case 6: x[i] = -fabsf(x[i]); break;
        case 7: x[i] = i % 2 ? 1.0f : -1.0f; break;
        case 8: x[i] *= 1e-6f; break;
        default: break;
        }
    for (int i = 0; i < COLS; i++) {
        if (kind == 1 || kind == 9) w[i] = i % 3 ? 0.0f : w[i];
        if (kind == 3 || kind == 10) w[i] = 0.0f;
        if (kind == 4) w[i] *= 1e37f;
        if (kind == 8) w[i] *= 1e-38f;
        if (kind == 11) w[i] = i % 32 == 5 ? 1e30f : 1e-30f;
    }
    return kind % 5 == 2 ? NULL : w;
}

/* One format's rows on level l. */
static const uint8_t *make(struct room *r, const struct dtype *t, int l, const float *w)
{
    memset(r->q[l], 0xa5, sizeof r->q[l]);
    levels[l].rows[t->gguf_id](&levels[l], r->x, w, ROWS, COLS, r->q[l], r->scratch);
    return r->q[l];
}

static double error_of(struct room *r, const struct dtype *t, const uint8_t *q, const float *w, double *size)
{
    double sum = 0, all = 0;
    dtype_to_f32(t, q, r->y, ROWS * COLS);
    for (int i = 0; i < ROWS * COLS; i++) {
        double e = (double)r->x[i] - r->y[i], u = w ? w[i % COLS] : 1;
        sum += u * e * e, all += u * r->x[i] * r->x[i];
    }
    if (size) *size = all;
    return sum;
}

TEST(searches_give_the_same_bytes_on_every_level)
{
    struct room *r = set_up();
    for (int i = 0; i < dtype_count; i++) {
        const struct dtype *t = dtypes[i];
        if (!makes(t)) continue;
        test_begin("searches_give_the_same_bytes_on_every_level %s", t->name);
        size_t bytes = ROWS * dtype_row_bytes(t, COLS), row = dtype_row_bytes(t, COLS);
        for (int kind = 0; kind < KINDS; kind++) {
            const float *w = hostile(r, kind);
            make(r, t, 0, w);
            for (int l = 1; l < n_levels; l++) {
                make(r, t, l, w);
                CHECK_MSG(!memcmp(r->q[0], r->q[l], bytes), "values of kind %d: %s is not %s", kind, levels[l].name, levels[0].name);
            }
            CHECK_MSG(r->q[0][bytes] == 0xa5, "writes past the end");
            const struct quant_kernels *k = &levels[n_levels - 1];
            uint8_t one[COLS * 4];
            for (int j = 0; j < ROWS; j += 6) {
                k->rows[t->gguf_id](k, r->x + j * COLS, w, 1, COLS, one, r->scratch);
                CHECK_MSG(!memcmp(one, r->q[0] + (size_t)j * row, row), "values of kind %d: row %d alone differs", kind, j);
            }
        }
    }
}

TEST(searches_are_finite_for_finite_weights)
{
    struct room *r = set_up();
    for (int i = 0; i < dtype_count; i++) {
        const struct dtype *t = dtypes[i];
        if (!makes(t) || t->group_len == 0) continue; /* half floats may overflow: the plan says what they hold */
        test_begin("searches_are_finite_for_finite_weights %s", t->name);
        for (int kind = 0; kind < KINDS; kind++) {
            const uint8_t *q = make(r, t, n_levels - 1, hostile(r, kind));
            dtype_to_f32(t, q, r->y, ROWS * COLS);
            int bad = 0;
            for (int j = 0; j < ROWS * COLS; j++) bad += !isfinite(r->y[j]);
            CHECK_MSG(bad == 0, "values of kind %d: %d are not finite", kind, bad);
        }
    }
}

/* Shannon: b bits leave at least 2^-b of a bell's rms. These formats lose 0.4 to 1.1 bits to scales and to cubes where spheres would be best;
 * 1.4 is where something is broken. The tails are heavier than a bell's, which costs up to 0.2. */
TEST(searches_lose_little_more_than_their_bits)
{
    struct room *r = set_up();
    for (int i = 0; i < dtype_count; i++) {
        const struct dtype *t = dtypes[i];
        if (!makes(t) || t->group_len == 0) continue;
        test_begin("searches_lose_little_more_than_their_bits %s", t->name);
        for (int plain = 0; plain < 2; plain++) {
            bell(r, 5);
            const float *w = plain ? NULL : r->w;
            double size, err = error_of(r, t, make(r, t, n_levels - 1, w), w, &size);
            double bits = -0.5 * log2(err / size), bpw = 8.0 * t->block_bytes / t->block_len;
            CHECK_MSG(bits > bpw - 1.4, "%g bits of %g%s", bits, bpw, plain ? ", without importance" : "");
        }
    }
}

TEST(searches_beat_plain_rounding)
{
    struct room *r = set_up();
    for (int i = 0; i < dtype_count; i++) {
        const struct dtype *t = dtypes[i];
        if (!makes(t) || t->group_len == 0 || !t->pack) continue;
        test_begin("searches_beat_plain_rounding %s", t->name);
        bell(r, 6);
        dtype_from_f32(t, r->x, r->q[1], ROWS * COLS);
        double plain = error_of(r, t, r->q[1], r->w, NULL), err = error_of(r, t, make(r, t, 0, r->w), r->w, NULL);
        CHECK_MSG(err <= plain * 1.00001, "%g of the error of rounding to nearest", err / plain);
    }
}

/* Values that a file of the format decodes to, rounded to half floats, come back as that file but for few blocks: people requantize such files. In
 * numbers: what the second time adds is at most a fortieth of what the first time cost. */
TEST(searches_find_the_grid_again)
{
    static const int ids[] = { GGUF_Q4_0, GGUF_Q4_1, GGUF_Q5_0, GGUF_Q5_1, GGUF_Q8_0, GGUF_Q2_K, GGUF_Q3_K, GGUF_Q4_K, GGUF_Q5_K, GGUF_Q6_K };
    struct room *r = set_up();
    for (int i = 0; i < ARRAY_LEN(ids); i++) {
        const struct dtype *t = dtype_by_id(ids[i]);
        test_begin("searches_find_the_grid_again %s", t->name);
        bell(r, 7);
        const uint8_t *q = make(r, t, n_levels - 1, r->w);
        double first = error_of(r, t, q, r->w, NULL);
        for (int j = 0; j < ROWS * COLS; j++) r->x[j] = f16_to_f32(f32_to_f16(r->y[j]));
        double second = error_of(r, t, make(r, t, n_levels - 1, r->w), r->w, NULL);
        CHECK_MSG(second * 40 <= first, "%g of the first error", second / first);
    }
}

SUITE(quant_search, T(searches_give_the_same_bytes_on_every_level), T(searches_are_finite_for_finite_weights), T(searches_lose_little_more_than_their_bits),
      T(searches_beat_plain_rounding), T(searches_find_the_grid_again));
