/* The searches of the codebook formats: the same bytes on every level and for every split, entries as good as trying all of them, sound fields
 * for any finite input, and an error that a worse search would not reach. */
#include "ggml-like/cpu.h"
#include "ggml-like/formats/formats.h"
#include "quant/quantizer.h"
#include "tests/test.h"
/* a copy of the base level, for what is not visible from outside */
#include "quant/lanes_base.h"
#include "quant/search_tmpl.h"

enum { ROWS = 9, COLS = 512, ALL = ROWS * COLS }; /* more blocks than lanes */

static const struct row {
    const struct kind *kind;
    double most; /* error over energy of Gaussian rows with equal importance */
} kinds[] = {
    { &kind_iq1_s, 0.211 }, { &kind_iq1_m, 0.187 }, { &kind_iq2_xxs, 0.110 }, { &kind_iq2_xs, 0.082 }, { &kind_iq2_s, 0.059 }, { &kind_iq3_xxs, 0.033 },
    { &kind_iq3_s, 0.0178 },
};

struct room {
    _Alignas(64) uint8_t scratch[QUANT_SCRATCH];
    float x[ALL], w[COLS], y[ALL];
    uint8_t q[ALL], q2[ALL];
    int rows; /* of these, most claims need two */
};

static struct room *room_new(void)
{
    void *p = NULL;
    if (posix_memalign(&p, 64, sizeof(struct room))) abort();
    struct room *r = p;
    memset(r, 0, sizeof *r);
    r->rows = 2;
    return r;
}

/* Rows of different size, columns of very different importance, some of none. */
static void fill(struct room *r, uint64_t seed)
{
    for (int i = 0; i < ALL; i++) r->x[i] = test_randn(&seed) * (float)(1 + i / COLS) * 0.02f;
    for (int i = 0; i < COLS; i++) r->w[i] = i % 37 == 5 ? 0.0f : expf(test_randn(&seed)) * (i % 61 == 7 ? 100.0f : 1.0f);
}

static void decode(struct room *r, const struct dtype *t)
{
    for (int i = 0; i < r->rows; i++) dtype_to_f32(t, r->q + (size_t)i * dtype_row_bytes(t, COLS), r->y + i * COLS, COLS);
}

/* The error over the energy, both weighted. */
static double error_of(const struct room *r, const float *w)
{
    double e = 0, all = 0;
    for (int i = 0; i < r->rows * COLS; i++) {
        double u = w ? (double)w[i % COLS] : 1, d = (double)r->x[i] - (double)r->y[i];
        e += u * d * d, all += u * (double)r->x[i] * (double)r->x[i];
    }
    return all > 0 ? e / all : 0;
}

static void run(const struct quant_kernels *k, int id, struct room *r, const float *w, uint8_t *q, int rows_per_call)
{
    size_t row = dtype_row_bytes(dtype_by_id(id), COLS);
    memset(r->scratch, 0xa5, sizeof r->scratch);
    for (int i = 0; i < r->rows; i += rows_per_call) {
        int n = i + rows_per_call < r->rows ? rows_per_call : r->rows - i;
        k->rows[id](k, r->x + i * COLS, w, n, COLS, q + (size_t)i * row, r->scratch);
    }
}

static void own_level(struct quant_kernels *k)
{
    *k = (struct quant_kernels){ .name = "test" };
    fill_rows(k);
}

/* ---- claims ---- */

TEST(levels_and_splits_give_the_same_bytes)
{
    struct room *r = room_new();
    struct cpu_info c;
    cpu_detect(&c);
    r->rows = ROWS;
    fill(r, 1);
    struct quant_kernels base;
    quant_kernels_init(&base, 0);
    for (int i = 0; i < ARRAY_LEN(kinds); i++) {
        int id = kinds[i].kind->id;
        size_t bytes = ROWS * dtype_row_bytes(dtype_by_id(id), COLS);
        for (int weights = 0; weights < 2; weights++) {
            const float *w = weights ? r->w : NULL;
            run(&base, id, r, w, r->q, ROWS);
            const uint64_t masks[] = { 0, CPU_AVX2 | CPU_FMA | CPU_F16C, UINT64_MAX };
            for (int m = 0; m < ARRAY_LEN(masks); m++) {
                struct quant_kernels k;
                quant_kernels_init(&k, c.features & masks[m]);
                for (int split = m ? 1 : 4; split <= 9; split += 4) { /* 1, 5, 9; the plain level 4, 8 */
                    run(&k, id, r, w, r->q2, split);
                    CHECK_MSG(!memcmp(r->q, r->q2, bytes), "%s: %s, %d rows a call", dtype_by_id(id)->name, k.name, split);
                }
            }
        }
    }
    free(r);
}

/* The least cost of the vectors that share eight signs over all entries and allowed signs, at the stored scale and shift: x, w of 8 elements. */
static double best_of_8(const struct kind *k, const float *x, const float *w, double scale, double shift)
{
    int bits = k->n_levels == 3 ? 2 : 3, odd = 0, n = 8 / k->vec;
    double least[2][2] = { { 1e300, 1e300 }, { 1e300, 1e300 } }; /* [vector][a sign is turned] */
    for (int i = 0; i < 8; i++) odd ^= x[i] < 0;
    for (int v = 0; v < n; v++)
        for (int e = 0; e < k->n_entries; e++) {
            double sum = 0, turn = 1e300;
            for (int i = 0; i < k->vec; i++) {
                double number = k->grid[e] >> bits * i & ((1 << bits) - 1), u = (double)w[v * k->vec + i], a = (double)x[v * k->vec + i];
                double y = fmax((double)k->line[0][0] + (double)k->line[0][1] * number, (double)k->line[1][0] + (double)k->line[1][1] * number);
                double target = k->shift ? a : fabs(a), d = target - scale * (y + shift), t = target + scale * y;
                sum += u * d * d;
                turn = fmin(turn, u * (t * t - d * d));
            }
            least[v][0] = fmin(least[v][0], sum);
            least[v][1] = fmin(least[v][1], sum + turn);
        }
    if (!k->parity || !odd) return least[0][0] + (n == 2 ? least[1][0] : 0);
    return n == 2 ? fmin(least[0][1] + least[1][0], least[0][0] + least[1][1]) : least[0][1];
}

/* Guessed signs and a last d by least squares cost little against all entries tried with all signs. */
TEST(entries_are_nearly_the_best_at_the_stored_scales)
{
    struct room *r = room_new();
    struct quant_kernels base;
    fill(r, 2);
    for (int i = 0; i < COLS; i++) r->w[i] += 0.01f;
    quant_kernels_init(&base, 0);
    for (int i = 0; i < ARRAY_LEN(kinds); i++) {
        const struct kind *k = kinds[i].kind;
        const struct dtype *t = dtype_by_id(k->id);
        run(&base, k->id, r, r->w, r->q, r->rows);
        decode(r, t);
        double is = 0, best = 0;
        for (int block = 0; block < 2; block++) {
            struct codes c;
            struct parts p;
            t->unpack(r->q + block * t->block_bytes, &c);
            t->split(r->q + block * t->block_bytes, &p);
            for (int e = 0; e < BLOCK_MAX; e++) {
                double d = (double)r->x[block * BLOCK_MAX + e] - (double)r->y[block * BLOCK_MAX + e];
                is += (double)r->w[block * BLOCK_MAX + e] * d * d;
            }
            for (int e = 0; e < BLOCK_MAX; e += 8) {
                double shift = !k->shift ? 0 : p.sign[e / 8 / k->shift] & 1 ? -0.125 : 0.125;
                double scale = (double)c.scale[e / t->group_len] * (k->shift ? 8 : 1);
                best += best_of_8(k, r->x + block * BLOCK_MAX + e, r->w + block * BLOCK_MAX + e, scale, shift);
            }
        }
        CHECK_MSG(is <= 1.02 * best, "%s: %g, best %g", t->name, is, best);
        CHECK_MSG(is >= 0.9999 * best, "%s: %g, best %g: the brute force is wrong", t->name, is, best);
    }
    free(r);
}

/* One vector at one scale: the cost that the search reports and that of the entry it names are the least of all. */
TEST(search_of_a_vector_is_exact)
{
    struct room *r = room_new();
    struct book_work *b = (void *)r->scratch;
    uint64_t seed = 3;
    for (int i = 0; i < ARRAY_LEN(kinds); i++) {
        const struct kind *k = kinds[i].kind;
        int bits = k->n_levels == 3 ? 2 : 3;
        book_init(&b->book, k);
        float s = k->n_levels == 8 ? 1.0f / k->line[1][1] / 4 : k->shift ? 0.5f : 1.0f / 32;
        for (int e = 0; e < 16; e++)
            for (int l = 0; l < LANES; l++) {
                b->a[e][l] = k->shift ? test_randn(&seed) * 0.5f : fabsf(test_randn(&seed));
                b->w[e][l] = expf(2 * test_randn(&seed));
            }
        struct least found[2];
        for (int v = 0; v < 2; v++) book_tables(k, &b->book, &b->t[v], b->a + v * k->vec, b->w + v * k->vec, v_set(s), v_set(k->shift ? SHIFT : 0));
        book_least(&b->book, b->t, found);
        for (int v = 0; v < 2; v++)
            for (int l = 0; l < LANES; l++) {
                double least = 1e300, named = -1;
                for (int e = 0; e < k->n_entries; e++) {
                    double sum = 0;
                    for (int j = 0; j < k->vec; j++) {
                        float number = (float)(k->grid[e] >> bits * j & ((1 << bits) - 1)), y = level_of(k, v_set(number))[0] + (k->shift ? SHIFT : 0);
                        double d = (double)(b->a[v * k->vec + j][l] - s * y);
                        sum += (double)b->w[v * k->vec + j][l] * d * d;
                    }
                    least = fmin(least, sum);
                    if (k->grid[e] == found[v].q[l]) named = sum;
                    CHECK(b->book.index[k->grid[e]] == e);
                }
                CHECK_NEAR(found[v].e[l], least, 1e-4 * least);
                CHECK_NEAR(named, least, 1e-4 * least);
            }
    }
    free(r);
}

TEST(gaussian_rows_lose_what_the_formats_must_lose)
{
    struct room *r = room_new();
    struct quant_kernels k;
    uint64_t seed = 4;
    own_level(&k);
    r->rows = 5;
    for (int i = 0; i < ALL; i++) r->x[i] = test_randn(&seed);
    for (int i = 0; i < COLS; i++) r->w[i] = 1;
    for (int i = 0; i < ARRAY_LEN(kinds); i++) {
        const struct dtype *t = dtype_by_id(kinds[i].kind->id);
        run(&k, t->gguf_id, r, r->w, r->q, r->rows);
        decode(r, t);
        double e = error_of(r, r->w);
        CHECK_MSG(e <= kinds[i].most, "%s: %g, at most %g", t->name, e, kinds[i].most);
        run(&k, t->gguf_id, r, NULL, r->q, r->rows);
        decode(r, t);
        double plain = error_of(r, NULL);
        CHECK_MSG(plain >= e && plain <= 1.3 * e, "%s without importance: %g, with equal importance %g", t->name, plain, e);
    }
    free(r);
}

/* Inputs and weights from the ends of what floats hold. Result: finite, and no worse than all zeros where a half-float scale can follow. */
static float extreme_x(int which, int i, uint64_t *seed)
{
    switch (which) {
    case 0: return 0.0f;
    case 1: return i % COLS == 300 ? -1.0f : 0.0f;
    case 2: return test_randn(seed) * 1e-41f;
    case 3: return test_randf(seed) * 3.4e38f;
    case 4: return i % 7 ? test_randn(seed) * 1e-30f : test_randn(seed);
    case 5: return i % 2 ? -0.0f : 3.4e38f;
    case 6: return -1.0f;
    default: return test_randn(seed);
    }
}
static float extreme_w(int which, int i, uint64_t *seed)
{
    switch (which) {
    case 0: return 0.0f;
    case 1: return i < 256 ? 0.0f : fabsf(test_randn(seed));
    case 2: return i % 3 ? 0.0f : fabsf(test_randn(seed));
    case 3: return i % 3 ? 3e38f : 1e-44f;
    case 4: return i == 9 ? 1e-45f : 0.0f;
    default: return 1.0f;
    }
}

TEST(any_finite_input_gives_sound_blocks)
{
    struct room *r = room_new();
    struct quant_kernels k;
    struct cpu_info c;
    uint64_t seed = 5;
    cpu_detect(&c);
    quant_kernels_init(&k, c.features);
    for (int which_x = 0; which_x < 8; which_x++)
        for (int which_w = 0; which_w < 6; which_w++) {
            for (int i = 0; i < ALL; i++) r->x[i] = extreme_x(which_x, i, &seed);
            for (int i = 0; i < COLS; i++) r->w[i] = extreme_w(which_w, i, &seed);
            for (int i = 0; i < ARRAY_LEN(kinds); i++) {
                const struct dtype *t = dtype_by_id(kinds[i].kind->id);
                int worst = 0;
                run(&k, t->gguf_id, r, r->w, r->q, r->rows);
                decode(r, t);
                for (int j = 0; j < r->rows * COLS; j++) worst += !isfinite(r->y[j]) || (which_x == 0 && r->y[j] != 0.0f);
                CHECK_MSG(!worst, "%s: input %d, importance %d: %d values", t->name, which_x, which_w, worst);
                if (which_w == 4) continue; /* one column alone: the floor under the others' weights rules */
                double e = error_of(r, which_w == 0 ? NULL : r->w);
                CHECK_MSG(e <= 1.001, "%s: input %d, importance %d: error %g of the energy", t->name, which_x, which_w, e);
            }
        }
    free(r);
}

/* What is stored is in its canonical form: fields survive a round trip, and seven signs leave the eighth even. */
TEST(fields_are_canonical)
{
    struct room *r = room_new();
    struct quant_kernels k;
    quant_kernels_init(&k, 0);
    fill(r, 6);
    for (int i = 0; i < ARRAY_LEN(kinds); i++) {
        const struct dtype *t = dtype_by_id(kinds[i].kind->id);
        run(&k, t->gguf_id, r, r->w, r->q, r->rows);
        decode(r, t);
        int wrong = 0, turned = 0;
        for (int b = 0; b < r->rows * COLS / BLOCK_MAX; b++) {
            struct parts p;
            uint8_t again[256];
            t->split(r->q + b * t->block_bytes, &p);
            t->join(&p, again);
            CHECK_MSG(!memcmp(again, r->q + b * t->block_bytes, (size_t)t->block_bytes), "%s: block %d", t->name, b);
            for (int v = 0; kinds[i].kind->parity && v < BLOCK_MAX / 8; v++) {
                int n = 0;
                for (int j = 8 * v; j < 8 * v + 8; j++) n += (r->x[b * BLOCK_MAX + j] < 0) != (r->y[b * BLOCK_MAX + j] < 0);
                wrong += n > 1, turned += n;
            }
        }
        CHECK_MSG(!wrong, "%s: %d vectors with more than one wrong sign", t->name, wrong);
        CHECK_MSG(!kinds[i].kind->parity || turned > 0, "%s: no sign was turned", t->name);
    }
    free(r);
}

SUITE(quant_iq, T(levels_and_splits_give_the_same_bytes), T(entries_are_nearly_the_best_at_the_stored_scales), T(search_of_a_vector_is_exact),
      T(gaussian_rows_lose_what_the_formats_must_lose), T(any_finite_input_gives_sound_blocks), T(fields_are_canonical));
