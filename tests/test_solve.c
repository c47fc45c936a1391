/* Grids say what unpack says; H and its factor are right, and the same bits however the work is split; the solver's losses are tr(E H E^T), no stage is
 * worse than the one before, small problems come out near the best of all codes, and any input gives legal blocks. */
#include "ggml-like/cpu.h"
#include "ggml-like/pool.h"
#include "quant/solve.h"
#include "tests/test.h"

enum { N = 512, ROWS = 19, TOKENS = 700 };

static const int formats[] = {
    GGUF_Q4_0, GGUF_Q4_1, GGUF_Q5_0, GGUF_Q5_1, GGUF_Q8_0, GGUF_Q2_K, GGUF_Q3_K, GGUF_Q4_K, GGUF_Q5_K, GGUF_Q6_K, GGUF_IQ4_NL, GGUF_IQ4_XS, GGUF_TQ1_0,
    GGUF_TQ2_0, GGUF_Q1_0, GGUF_Q2_0, GGUF_MXFP4, GGUF_NVFP4, GGUF_IQ2_XXS, GGUF_IQ2_XS, GGUF_IQ2_S, GGUF_IQ3_XXS, GGUF_IQ3_S, GGUF_IQ1_S, GGUF_IQ1_M,
};

static uint64_t seed;
static struct quant_kernels level[3];
static int n_levels;

static void levels_init(void)
{
    struct cpu_info c;
    cpu_detect(&c);
    quant_kernels_init(&level[0], 0);
    n_levels = 1;
    const uint64_t upto[2] = { c.features & ~(uint64_t)CPU_AVX512, c.features };
    for (int i = 0; i < 2; i++) {
        quant_kernels_init(&level[n_levels], upto[i]);
        if (strcmp(level[n_levels].name, level[n_levels - 1].name) != 0) n_levels++;
    }
}

static void *aligned(size_t bytes)
{
    void *p = NULL;
    if (posix_memalign(&p, 64, bytes)) abort();
    memset(p, 0, bytes);
    return p;
}

/* ---- grids ---- */

static struct grid grid;

static void random_parts(struct parts *p, const struct grid *g)
{
    *p = (struct parts){ 0 };
    int n_sign = g->sign == GRID_NONE ? 0 : g->sign == GRID_SHIFT ? g->type->block_len / g->shift_len : g->type->block_len / 8;
    if (g->code_in_d) p->d = (uint16_t)(test_rand(&seed) % (uint64_t)g->n_scale);
    else if (!g->no_half) p->d = f32_to_f16(test_randn(&seed));
    if (g->n_min) p->dmin = f32_to_f16(test_randn(&seed));
    for (int i = 0; i < g->type->block_len / g->type->group_len; i++) {
        if (g->n_scale > 1 && !g->code_in_d) p->sc[i] = (uint8_t)(test_rand(&seed) % (uint64_t)g->n_scale);
        if (g->n_min > 1) p->m[i] = (uint8_t)(test_rand(&seed) % (uint64_t)g->n_min);
    }
    for (int i = 0; i < g->type->block_len / g->vec_len; i++) p->q[i] = (uint16_t)(test_rand(&seed) % (uint64_t)g->n);
    for (int i = 0; i < n_sign; i++) {
        p->sign[i] = (uint8_t)test_rand(&seed);
        if (g->sign == GRID_SHIFT) p->sign[i] &= 1;
        if (g->sign == GRID_EVEN && __builtin_parity(p->sign[i])) p->sign[i] ^= 1;
    }
}

static float grid_value(const struct grid *g, const struct parts *p, int i)
{
    int v = i / g->vec_len, at = p->q[v] * g->vec_len + i % g->vec_len, group = i / g->type->group_len;
    float code = g->entry[at];
    if (g->sign == GRID_SHIFT && p->sign[i / g->shift_len]) code = g->entry_down[at];
    if ((g->sign == GRID_FREE || g->sign == GRID_EVEN) && p->sign[i / 8] >> i % 8 & 1) code = -code;
    float product = grid_scale(g, p->d, p->sc[group]) * code;
    return product + grid_min(g, p->dmin, p->m[group]);
}

TEST(grids_say_what_unpack_says)
{
    struct parts p, back;
    uint8_t block[512];
    float y[BLOCK_MAX];
    seed = 1;
    for (int f = 0; f < ARRAY_LEN(formats); f++) {
        const struct dtype *t = dtype_by_id(formats[f]);
        struct err e = { 0 };
        CHECK(grid_make(&grid, t, &e) == OK);
        int wrong = 0;
        for (int trial = 0; trial < 300; trial++) {
            random_parts(&p, &grid);
            t->join(&p, block);
            t->split(block, &back);
            wrong += memcmp(p.q, back.q, sizeof p.q) || memcmp(p.sign, back.sign, sizeof p.sign) || memcmp(p.sc, back.sc, sizeof p.sc) ||
                     memcmp(p.m, back.m, sizeof p.m) || p.d != back.d || p.dmin != back.dmin;
            dtype_to_f32(t, block, y, t->block_len);
            for (int i = 0; i < t->block_len; i++) wrong += !(y[i] == grid_value(&grid, &p, i));
        }
        CHECK_MSG(!wrong, "%s: %d differences", t->name, wrong);
    }
}

TEST(grids_have_the_known_sizes)
{
    static const struct { int id, vec, n, n_scale, n_min; enum grid_sign sign; } known[] = {
        { GGUF_Q4_0, 1, 16, 1, 0, GRID_NONE }, { GGUF_Q4_1, 1, 16, 1, 1, GRID_NONE }, { GGUF_Q8_0, 1, 256, 1, 0, GRID_NONE },
        { GGUF_Q2_K, 1, 4, 16, 16, GRID_NONE }, { GGUF_Q3_K, 1, 8, 64, 0, GRID_NONE }, { GGUF_Q4_K, 1, 16, 64, 64, GRID_NONE },
        { GGUF_Q6_K, 1, 64, 256, 0, GRID_NONE }, { GGUF_IQ4_XS, 1, 16, 64, 0, GRID_NONE }, { GGUF_TQ1_0, 1, 3, 1, 0, GRID_NONE },
        { GGUF_MXFP4, 1, 16, 255, 0, GRID_NONE }, { GGUF_NVFP4, 1, 16, 256, 0, GRID_NONE }, { GGUF_IQ2_XXS, 8, 256, 16, 0, GRID_EVEN },
        { GGUF_IQ2_XS, 8, 512, 16, 0, GRID_EVEN }, { GGUF_IQ2_S, 8, 1024, 16, 0, GRID_FREE }, { GGUF_IQ3_XXS, 4, 256, 16, 0, GRID_EVEN },
        { GGUF_IQ3_S, 4, 512, 16, 0, GRID_FREE }, { GGUF_IQ1_S, 8, 2048, 8, 0, GRID_SHIFT }, { GGUF_IQ1_M, 8, 2048, 8, 0, GRID_SHIFT },
    };
    struct err e = { 0 };
    for (int i = 0; i < ARRAY_LEN(known); i++) {
        CHECK(grid_make(&grid, dtype_by_id(known[i].id), &e) == OK);
        CHECK_MSG(grid.vec_len == known[i].vec && grid.n == known[i].n && grid.n_scale == known[i].n_scale && grid.n_min == known[i].n_min &&
                      grid.sign == known[i].sign,
                  "%s: vectors of %d, %d entries, %d scales, %d mins, sign %d", grid.type->name, grid.vec_len, grid.n, grid.n_scale, grid.n_min, grid.sign);
    }
    static const int none[] = { GGUF_F32, GGUF_BF16, GGUF_Q8_1, GGUF_Q8_K };
    for (int i = 0; i < ARRAY_LEN(none); i++) {
        struct err refused = { 0 };
        CHECK(grid_make(&grid, dtype_by_id(none[i]), &refused) == ERR_USAGE);
        CHECK_HAS(refused.text, dtype_by_id(none[i])->gguf_name);
    }
}

/* ---- H ---- */

/* Tokens with a spectrum that falls, columns of different size; kinds of trouble in some. */
static void fill_tokens(float *x, int64_t n, int64_t tokens)
{
    enum { FACTORS = 24 };
    float *mix = aligned(sizeof *mix * FACTORS * (size_t)n);
    for (int64_t i = 0; i < FACTORS * n; i++) mix[i] = test_randn(&seed) / (float)(1 + i / n);
    for (int64_t t = 0; t < tokens; t++) {
        float z[FACTORS];
        for (int f = 0; f < FACTORS; f++) z[f] = test_randn(&seed);
        for (int64_t i = 0; i < n; i++) {
            float sum = 0.2f * test_randn(&seed);
            for (int f = 0; f < FACTORS; f++) sum += z[f] * mix[f * n + i];
            x[t * n + i] = sum * (i % 61 == 7 ? 10.0f : 1.0f + (float)(i % 5) * 0.3f);
        }
    }
    free(mix);
}

static float *tokens_new(int64_t n, int64_t tokens)
{
    float *x = aligned(sizeof *x * (size_t)(n * tokens));
    fill_tokens(x, n, tokens);
    return x;
}

struct add_job { struct hessian *h; const struct quant_kernels *k; const float *x, *weight; int64_t n, rows, piece; struct pool *p; };

static void add_thread(void *ctx, int ith, int nth)
{
    const struct add_job *j = ctx;
    for (int64_t at = 0; at < j->rows; at += j->piece)
        hessian_add(j->h, j->k, j->x + at * j->n, j->n, j->weight ? j->weight + at : NULL, min_i64(j->piece, j->rows - at), j->p, ith, nth);
    hessian_finish(j->h, j->k, j->p, ith, nth);
}

static void hessian_of(struct hessian *h, const struct quant_kernels *k, const float *x, const float *weight, int64_t n, int64_t rows, int64_t piece,
                       int threads)
{
    struct err e = { 0 };
    struct add_job j = { h, k, x, weight, n, rows, piece, NULL };
    if (hessian_open(h, n, &e) != OK) abort();
    if (threads > 1 && pool_open(&j.p, threads, &e) != OK) abort();
    if (j.p) pool_run(j.p, add_thread, &j);
    else add_thread(&j, 0, 1);
    pool_close(j.p);
}

TEST(h_has_the_same_bits_for_threads_levels_and_splits)
{
    enum { SMALL = 176 };
    static const int64_t pieces[] = { TOKENS, 1, 37, 256 };
    seed = 2;
    levels_init();
    float *x = tokens_new(SMALL, TOKENS);
    struct hessian first, h;
    hessian_of(&first, &level[0], x, NULL, SMALL, TOKENS, TOKENS, 1);
    for (int l = 0; l < n_levels; l++)
        for (int threads = 1; threads <= 3; threads++)
            for (int i = 0; i < ARRAY_LEN(pieces); i++) {
                hessian_of(&h, &level[l], x, NULL, SMALL, TOKENS, pieces[i], threads);
                CHECK_MSG(!memcmp(h.h, first.h, SMALL * SMALL * sizeof *h.h) && h.count == TOKENS, "%s, %d threads, pieces of %lld", level[l].name, threads,
                          (long long)pieces[i]);
                hessian_close(&h);
            }
    hessian_close(&first);
    free(x);
}

TEST(h_is_the_sum_of_x_xt)
{
    enum { SMALL = 48 };
    seed = 3;
    levels_init();
    float *x = tokens_new(SMALL, TOKENS), weight[TOKENS], diagonal[SMALL];
    for (int t = 0; t < TOKENS; t++) weight[t] = (float)(t % 3);
    struct hessian h;
    hessian_of(&h, &level[n_levels - 1], x, weight, SMALL, TOKENS, 100, 1);
    hessian_diagonal(&h, diagonal);
    for (int i = 0; i < SMALL; i++)
        for (int j = 0; j < SMALL; j++) {
            double sum = 0, size = 0;
            for (int t = 0; t < TOKENS; t++) {
                double term = (double)weight[t] * (double)x[t * SMALL + i] * (double)x[t * SMALL + j];
                sum += term, size += fabs(term);
            }
            CHECK_NEAR(h.h[i * SMALL + j], sum, 3e-6 * size);
            if (i == j) CHECK_NEAR(diagonal[i], sum / TOKENS, 1e-5 * sum / TOKENS);
        }
    hessian_close(&h);
    free(x);
    struct err e = { 0 };
    CHECK(hessian_open(&h, 40, &e) == ERR_USAGE);
    CHECK_HAS(e.text, "40");
}

static float factor_at(const struct metric *m, int64_t k, int64_t j) { return metric_panel(m, k / METRIC_PANEL)[j * METRIC_PANEL + k % METRIC_PANEL]; }

TEST(the_factor_gives_h_back)
{
    enum { SMALL = 288 };
    seed = 4;
    levels_init();
    float *x = tokens_new(SMALL, TOKENS);
    for (int t = 0; t < TOKENS; t++) x[t * SMALL + 40] = x[t * SMALL + 41] = 0.0f; /* dead */
    struct hessian h;
    hessian_of(&h, &level[0], x, NULL, SMALL, TOKENS, TOKENS, 1);
    for (int threads = 1; threads <= 3; threads += 2) {
        struct err e = { 0 };
        struct metric m, again;
        struct pool *p = NULL;
        CHECK(pool_open(&p, threads, &e) == OK);
        CHECK(metric_open(&m, h.h, SMALL, &(struct metric_options){ 0.01f, 0.1f }, &level[n_levels - 1], p, &e) == OK);
        CHECK(metric_open(&again, h.h, SMALL, &(struct metric_options){ 0.01f, 0.1f }, &level[0], NULL, &e) == OK);
        size_t panels = SMALL / METRIC_PANEL, floats = panels * (panels + 1) / 2 * METRIC_PANEL * METRIC_PANEL;
        CHECK(!memcmp(m.m, again.m, floats * sizeof *m.m) && !memcmp(m.h, again.h, SMALL * SMALL * sizeof *m.h));
        double most = 0;
        for (int i = 0; i < SMALL; i++)
            for (int j = 0; j <= i; j++) { /* H'[i][j] = sum over k of M[i][k] D[k] M[j][k] */
                double sum = 0;
                for (int k = i; k < SMALL; k++)
                    sum += (k == i ? 1.0 : (double)factor_at(&m, k, i)) * (double)m.d[k] * (k == j ? 1.0 : (double)factor_at(&m, k, j));
                most = fmax(most, fabs(sum - (double)*metric_at(&m, i, j)) / sqrt((double)*metric_at(&m, i, i) * (double)*metric_at(&m, j, j)));
                double want = (double)m.unit * (double)h.h[i * SMALL + j] * (i == j ? 1 : 0.9) + (i == j ? 0.01 : 0);
                if (i == j && h.h[i * SMALL + i] == 0) want = 1.01;
                CHECK_NEAR(*metric_at(&m, i, j), want, 1e-6 * sqrt((double)*metric_at(&m, i, i) * (double)*metric_at(&m, j, j)));
            }
        CHECK_MSG(most < 1e-5, "factor is off by %g", most);
        metric_close(&m), metric_close(&again), pool_close(p);
    }
    hessian_close(&h);
    free(x);
}

TEST(damping_rises_until_the_factor_exists)
{
    enum { SMALL = 64 };
    struct err e = { 0 };
    struct metric m;
    float *h = aligned(sizeof *h * SMALL * SMALL);
    levels_init();
    for (int i = 0; i < SMALL * SMALL; i++) h[i] = i % (SMALL + 1) == 0 ? 1.0f : 0.99f;
    h[1] = h[SMALL] = 1.3f; /* no sum of squares has this */
    CHECK(metric_open(&m, h, SMALL, &(struct metric_options){ 0.003f, 0 }, &level[0], NULL, &e) == OK);
    CHECK(m.damping > 0.29f && m.damping < 3.1f);
    metric_close(&m);
    h[1] = h[SMALL] = 1e9f;
    CHECK(metric_open(&m, h, SMALL, &(struct metric_options){ 0.003f, 0 }, &level[0], NULL, &e) == ERR_RUNTIME);
    CHECK_HAS(e.text, "damping");
    struct err e2 = { 0 };
    h[5 * (SMALL + 1)] = INFINITY;
    CHECK(metric_open(&m, h, SMALL, &(struct metric_options){ 0.003f, 0 }, &level[0], NULL, &e2) == ERR_RUNTIME);
    CHECK_HAS(e2.text, "5");
    free(h);
}

struct cross_job { struct cross *c; const struct quant_kernels *k; const float *f, *x, *weight; int64_t n, rows, piece; struct pool *p; };

static void cross_thread(void *ctx, int ith, int nth)
{
    const struct cross_job *j = ctx;
    for (int64_t at = 0; at < j->rows; at += j->piece) {
        const float *f = j->f + at * j->n, *x = j->x + at * j->n;
        cross_add(j->c, j->k, f, j->n, x, j->n, x, j->n, j->weight + at, min_i64(j->piece, j->rows - at), j->p, ith, nth);
    }
    cross_finish(j->c, j->k, j->p, ith, nth);
}

static void cross_of(struct cross *c, const struct quant_kernels *k, const float *f, const float *x, const float *weight, int64_t n, int64_t rows,
                     int64_t piece, int threads)
{
    struct err e = { 0 };
    struct cross_job j = { c, k, f, x, weight, n, rows, piece, NULL };
    if (cross_open(c, n, n, &e) != OK) abort();
    if (threads > 1 && pool_open(&j.p, threads, &e) != OK) abort();
    if (j.p) pool_run(j.p, cross_thread, &j);
    else cross_thread(&j, 0, 1);
    pool_close(j.p);
}

/* (w' - w) H' = 0.5 unit (w C + D), the equation, here with D = C, that metric_aim solves; steps that would lead too far are shorter; C is the sum
 * it says; the same bits for levels, threads and splits. */
TEST(aims_solve_their_equation)
{
    enum { SMALL = 160, WIDE = 70 /* rows: a batch and some */ };
    seed = 12;
    levels_init();
    float *x = tokens_new(SMALL, TOKENS), *f = tokens_new(SMALL, TOKENS), *w = aligned(sizeof *w * WIDE * SMALL), *first = aligned(sizeof *w * WIDE * SMALL);
    float *aim = aligned(sizeof *w * WIDE * SMALL), *weight = aligned(sizeof *weight * TOKENS);
    void *scratch = aligned(METRIC_AIM(SMALL));
    for (int i = 0; i < WIDE * SMALL; i++) w[i] = test_randn(&seed);
    for (int64_t i = 0; i < SMALL * TOKENS; i++) f[i] = x[i] + 0.1f * f[i];
    for (int i = 0; i < TOKENS; i++) weight[i] = fabsf(test_randn(&seed));
    struct hessian h;
    struct metric m;
    struct cross c, again;
    struct err e = { 0 };
    hessian_of(&h, &level[0], x, weight, SMALL, TOKENS, TOKENS, 1);
    CHECK(metric_open(&m, h.h, SMALL, &(struct metric_options){ 0.01f, 0.2f }, &level[0], NULL, &e) == OK);
    cross_of(&c, &level[0], f, x, weight, SMALL, TOKENS, TOKENS, 1);
    double worst = 0;
    for (int i = 0; i < SMALL; i += 7)
        for (int j = 0; j < SMALL; j += 3) {
            double sum = 0, size = 0;
            for (int t = 0; t < TOKENS; t++) {
                double term = (double)weight[t] * ((double)f[t * SMALL + i] - (double)x[t * SMALL + i]) * (double)x[t * SMALL + j];
                sum += term, size += fabs(term);
            }
            worst = fmax(worst, fabs(sum - (double)c.c[(j / METRIC_PANEL * SMALL + i) * METRIC_PANEL + j % METRIC_PANEL]) / size);
        }
    CHECK_MSG(worst < 3e-6, "cross is off by %g", worst);
    memcpy(first, w, sizeof *w * WIDE * SMALL);
    metric_aim(&m, &c, &c, 0.5f, &level[0], first, 0, 1, WIDE, scratch);
    worst = 0;
    for (int r = 0; r < WIDE; r += 23)
        for (int j = 0; j < SMALL; j++) {
            double left = 0, right = 0.5 * (double)m.unit * (double)c.c[(j / METRIC_PANEL * SMALL + r) * METRIC_PANEL + j % METRIC_PANEL], size = 0;
            for (int i = 0; i < SMALL; i++) {
                left += ((double)first[r * SMALL + i] - (double)w[r * SMALL + i]) * (double)*metric_at(&m, i, j);
                right += 0.5 * (double)w[r * SMALL + i] * (double)m.unit * (double)c.c[(j / METRIC_PANEL * SMALL + i) * METRIC_PANEL + j % METRIC_PANEL];
                size += fabs(((double)first[r * SMALL + i] - (double)w[r * SMALL + i]) * (double)*metric_at(&m, i, j));
            }
            worst = fmax(worst, fabs(left - right) / size);
        }
    CHECK_MSG(worst < 1e-4, "aims are off by %g", worst);
    memcpy(aim, w, sizeof *w * WIDE * SMALL);
    metric_aim(&m, &c, &c, 500.0f, &level[0], aim, 0, 1, WIDE, scratch);
    worst = 0;
    for (int r = 0; r < WIDE; r++) { /* the same way, only so far */
        double step = 0, own = 0;
        for (int j = 0; j < SMALL; j++) {
            step += pow((double)first[r * SMALL + j] - (double)w[r * SMALL + j], 2);
            own += pow((double)w[r * SMALL + j], 2);
        }
        double reach = (double)METRIC_AIM_REACH * sqrt(own), part = reach / sqrt(step);
        CHECK_MSG(part > 1 && part < 1000, "row %d: %g times its step in reach", r, part);
        for (int j = 0; j < SMALL; j++) {
            double want = part * ((double)first[r * SMALL + j] - (double)w[r * SMALL + j]), is = (double)aim[r * SMALL + j] - (double)w[r * SMALL + j];
            if (fabs(is - want) > worst * reach) worst = fabs(is - want) / reach;
        }
    }
    CHECK_MSG(worst < 1e-4, "steps that are held are off by %g of their reach", worst);
    for (int l = 0; l < n_levels; l++)
        for (int threads = 1; threads <= 3; threads++) {
            cross_of(&again, &level[l], f, x, weight, SMALL, TOKENS, threads * 100 - 63, threads);
            CHECK(!memcmp(again.c, c.c, sizeof *c.c * SMALL * SMALL));
            memcpy(aim, w, sizeof *w * WIDE * SMALL);
            metric_aim(&m, &again, &again, 0.5f, &level[l], aim, 0, 1, 5, scratch);
            metric_aim(&m, &again, &again, 0.5f, &level[l], aim + 5 * SMALL, 5, 1, WIDE - 5, scratch);
            CHECK_MSG(!memcmp(aim, first, sizeof *w * WIDE * SMALL), "%s", level[l].name);
            cross_close(&again);
        }
    CHECK(cross_open(&again, 40, SMALL, &e) == ERR_USAGE);
    cross_close(&c), metric_close(&m), hessian_close(&h);
    free(x), free(f), free(w), free(first), free(aim), free(weight), free(scratch);
}

/* ---- the solver ---- */

static struct solver solver;

struct problem {
    int64_t n, rows;
    struct hessian h;
    struct metric m;
    float *x, *importance, *y;
    uint8_t *q, *q2;
    void *scratch;
    double (*loss)[SOLVE_STAGES];
};

static void problem_metric(struct problem *p, float damping)
{
    struct err e = { 0 };
    hessian_diagonal(&p->h, p->importance);
    if (metric_open(&p->m, p->h.h, p->n, &(struct metric_options){ damping, 0 }, &level[n_levels - 1], NULL, &e) != OK) abort();
}

static void problem_new(struct problem *p, int64_t n, int64_t rows, int64_t tokens)
{
    *p = (struct problem){ .n = n, .rows = rows };
    levels_init();
    float *x = tokens_new(n, tokens);
    hessian_of(&p->h, &level[n_levels - 1], x, NULL, n, tokens, tokens, 1);
    free(x);
    p->x = aligned(sizeof(float) * (size_t)(n * rows)), p->y = aligned(sizeof(float) * (size_t)(n * rows)), p->importance = aligned(sizeof(float) * (size_t)n);
    p->q = aligned((size_t)(n * rows) * 2), p->q2 = aligned((size_t)(n * rows) * 2);
    p->loss = aligned(sizeof *p->loss * (size_t)rows);
    p->scratch = aligned(3 * QUANT_SCRATCH);
    for (int64_t i = 0; i < n * rows; i++) p->x[i] = test_randn(&seed) * (float)(1 + i / n) * 0.02f;
    problem_metric(p, 0.01f);
}

static void problem_free(struct problem *p)
{
    hessian_close(&p->h), metric_close(&p->m);
    free(p->x), free(p->y), free(p->importance), free(p->q), free(p->q2), free(p->loss), free(p->scratch);
}

static void start(struct problem *p, int id)
{
    struct err e = { 0 };
    const struct dtype *t = dtype_by_id(id);
    CHECK(solver_init(&solver, t, &p->m, p->importance, &e) == OK);
    CHECK(solve_scratch(&solver) <= 3 * QUANT_SCRATCH);
}

static void decode(struct problem *p, const uint8_t *q)
{
    for (int64_t r = 0; r < p->rows; r++)
        dtype_to_f32(solver.grid.type, q + (size_t)r * dtype_row_bytes(solver.grid.type, p->n), p->y + r * p->n, p->n);
}

static double error_at(const struct problem *p, int64_t row, int64_t column)
{
    return (double)p->x[row * p->n + column] - (double)p->y[row * p->n + column];
}

/* e h e^T of a row, in double. */
static double exact_loss(const struct problem *p, const struct metric *m, int64_t row)
{
    double sum = 0;
    for (int64_t i = 0; i < p->n; i++) {
        double g = 0;
        for (int64_t j = 0; j < p->n; j++) g += (double)*metric_at(m, i, j) * error_at(p, row, j);
        sum += g * error_at(p, row, i);
    }
    return sum;
}

TEST(losses_are_e_h_et_and_no_stage_is_worse)
{
    struct problem p;
    seed = 5;
    problem_new(&p, N, ROWS, TOKENS);
    for (int f = 0; f < ARRAY_LEN(formats); f++) {
        start(&p, formats[f]);
        solve_rows(&solver, &level[n_levels - 1], p.x, ROWS, p.q, p.loss, p.scratch);
        decode(&p, p.q);
        double sum[SOLVE_STAGES] = { 0 };
        for (int r = 0; r < ROWS; r++) {
            double *l = p.loss[r], exact = r % 6 == 0 ? exact_loss(&p, solver.metric, r) : l[SOLVE_SCALES];
            CHECK_MSG(fabs(l[SOLVE_SCALES] - exact) <= 1e-4 * exact, "%s: row %d: %g, exactly %g", solver.grid.type->name, r, l[SOLVE_SCALES], exact);
            for (int s = 1; s < SOLVE_STAGES; s++)
                CHECK_MSG(l[s] <= l[s - 1] * (1 + 1e-5), "%s: row %d: stage %d has %g after %g", solver.grid.type->name, r, s, l[s], l[s - 1]);
            for (int s = 0; s < SOLVE_STAGES; s++) sum[s] += l[s];
        }
        if (solver.grid.sign == GRID_SHIFT) continue;
        CHECK_MSG(sum[SOLVE_SCALES] < 0.6 * sum[SOLVE_SEARCH], "%s: %g of the search's loss", solver.grid.type->name, sum[SOLVE_SCALES] / sum[SOLVE_SEARCH]);
        CHECK_MSG(sum[SOLVE_FEEDBACK] < 0.8 * sum[SOLVE_SEARCH], "%s: feedback %g", solver.grid.type->name, sum[SOLVE_FEEDBACK] / sum[SOLVE_SEARCH]);
    }
    problem_free(&p);
}

TEST(error_on_other_tokens_is_e_h_et)
{
    struct problem p;
    seed = 6;
    problem_new(&p, 256, 5, 300);
    start(&p, GGUF_Q3_K);
    solve_rows(&solver, &level[0], p.x, p.rows, p.q, NULL, p.scratch);
    decode(&p, p.q);
    double sum = 0;
    for (int r = 0; r < 5; r++)
        for (int i = 0; i < 256; i++)
            for (int j = 0; j < 256; j++) sum += (double)p.h.h[i * 256 + j] * error_at(&p, r, i) * error_at(&p, r, j);
    for (int l = 0; l < n_levels; l++) CHECK_NEAR(solve_error(&solver, &level[l], p.h.h, p.x, p.q, 5, p.scratch), sum, 1e-4 * sum);
    problem_free(&p);
}

TEST(solver_gives_the_same_bytes_for_levels_and_splits)
{
    struct problem p;
    seed = 7;
    problem_new(&p, N, ROWS, TOKENS);
    for (int f = 0; f < ARRAY_LEN(formats); f++) {
        start(&p, formats[f]);
        size_t row = dtype_row_bytes(solver.grid.type, N);
        solve_rows(&solver, &level[n_levels - 1], p.x, ROWS, p.q, NULL, p.scratch);
        for (int l = 0; l < n_levels; l++)
            for (int split = l || n_levels == 1 ? 3 : ROWS; split <= ROWS; split += ROWS - 3) { /* base takes ten times as long: once is enough */
                memset(p.scratch, 0xa5, 3 * QUANT_SCRATCH);
                for (int r = 0; r < ROWS; r += split)
                    solve_rows(&solver, &level[l], p.x + r * N, min_i64(split, ROWS - r), p.q2 + (size_t)r * row, NULL, p.scratch);
                CHECK_MSG(!memcmp(p.q, p.q2, row * ROWS), "%s: %s, %d rows a call", solver.grid.type->name, level[l].name, split);
            }
    }
    problem_free(&p);
}

/* With H diagonal nothing pulls: every element has the level nearest to it. */
TEST(feedback_under_a_diagonal_metric_is_nearest)
{
    struct problem p;
    seed = 8;
    problem_new(&p, 256, 4, 300);
    for (int i = 0; i < 256; i++)
        for (int j = 0; j < 256; j++)
            if (i != j) p.h.h[i * 256 + j] = 0.0f;
    metric_close(&p.m);
    problem_metric(&p, 0.0f);
    for (int f = 0; f < ARRAY_LEN(formats); f++) {
        start(&p, formats[f]);
        const struct grid *g = &solver.grid;
        if (g->vec_len > 1) continue;
        solver.stage = SOLVE_FEEDBACK;
        solve_rows(&solver, &level[0], p.x, p.rows, p.q, NULL, p.scratch);
        decode(&p, p.q);
        int worse = 0;
        for (int b = 0; b < p.rows * p.n / g->type->block_len; b++) {
            struct codes c;
            g->type->unpack(p.q + (size_t)b * (size_t)g->type->block_bytes, &c);
            for (int i = 0; i < g->type->block_len; i++) {
                double least = 1e300, x = (double)p.x[b * g->type->block_len + i], is = fabs(x - (double)p.y[b * g->type->block_len + i]);
                for (int q = 0; q < g->n; q++)
                    least = fmin(least, fabs(x - ((double)c.scale[i / g->type->group_len] * g->entry[q] + (double)c.min[i / g->type->group_len])));
                worse += is > least * (1 + 1e-4) + 1e-7;
            }
        }
        CHECK_MSG(!worse, "%s: %d of %d elements are not at the nearest level", g->type->name, worse, (int)(p.rows * p.n));
    }
    problem_free(&p);
}

/* Only LIVE columns are coupled, all others have one best code each: all codes of the live ones tried, at the scales of the search. */
static double best_of_live(const struct problem *p, const struct metric *m, const int *column, int live, int64_t row)
{
    const struct grid *g = &solver.grid;
    struct codes c;
    double H[8][8], x[8], value[8][4], least = 1e300;
    int n = g->n;
    for (int i = 0; i < live; i++) {
        int block = column[i] / g->type->block_len, at = column[i] % g->type->block_len;
        g->type->unpack(p->q + (size_t)row * dtype_row_bytes(g->type, p->n) + (size_t)block * (size_t)g->type->block_bytes, &c);
        x[i] = (double)p->x[row * p->n + column[i]];
        for (int q = 0; q < n; q++) value[i][q] = (double)(c.scale[at / g->type->group_len] * (float)g->entry[q] + c.min[at / g->type->group_len]);
        for (int j = 0; j < live; j++) {
            double ridge = i == j ? (double)m->damping : 0;
            H[i][j] = (double)m->unit * (double)p->h.h[column[i] * p->n + column[j]] + ridge;
        }
    }
    for (int code = 0, all = 1 << 2 * live; code < all; code++) {
        double sum = 0, e[8];
        for (int i = 0; i < live; i++) e[i] = x[i] - value[i][code >> 2 * i & 3];
        for (int i = 0; i < live; i++)
            for (int j = 0; j < live; j++) sum += e[i] * e[j] * H[i][j];
        least = fmin(least, sum);
    }
    return least;
}

static void couple_only(struct problem *p, const int *column, int live, float damping)
{
    for (int i = 0; i < p->n; i++)
        for (int j = 0; j < p->n; j++) {
            bool both = i == j;
            for (int a = 0; a < live; a++)
                for (int b = 0; b < live; b++) both = both || (column[a] == i && column[b] == j);
            if (!both) p->h.h[i * p->n + j] = 0.0f;
        }
    metric_close(&p->m);
    problem_metric(p, damping);
}

/* e H' e^T over the live columns alone */
static double live_loss(struct problem *p, const struct metric *m, const int *column, int live, int64_t row)
{
    double sum = 0;
    for (int i = 0; i < live; i++)
        for (int j = 0; j < live; j++) {
            double h = (double)m->unit * (double)p->h.h[column[i] * p->n + column[j]] + (i == j ? (double)m->damping : 0);
            sum += h * error_at(p, row, column[i]) * error_at(p, row, column[j]);
        }
    return sum;
}

TEST(small_problems_end_near_the_best_of_all_codes)
{
    static const int column[7] = { 3, 5, 17, 40, 41, 130, 255 };
    static const int four[] = { GGUF_Q2_K, GGUF_TQ2_0, GGUF_Q2_0 };
    struct problem p;
    seed = 9;
    problem_new(&p, 256, 64, 300);
    couple_only(&p, column, 7, 0.001f);
    for (int f = 0; f < ARRAY_LEN(four); f++) {
        double search = 0, polish = 0, best = 0, ratio = 0;
        start(&p, four[f]);
        for (int stage = SOLVE_SEARCH; stage <= SOLVE_CODES; stage += SOLVE_CODES) {
            solver.stage = (enum solve_stage)stage;
            solve_rows(&solver, &level[n_levels - 1], p.x, p.rows, p.q, NULL, p.scratch);
            decode(&p, p.q);
            for (int r = 0; r < p.rows; r++) *(stage == SOLVE_SEARCH ? &search : &polish) += live_loss(&p, solver.metric, column, 7, r);
        }
        for (int r = 0; r < p.rows; r++) {
            double least = best_of_live(&p, solver.metric, column, 7, r), is = live_loss(&p, solver.metric, column, 7, r);
            best += least, ratio = fmax(ratio, is / least);
            CHECK_MSG(is >= least * (1 - 1e-4), "%s: row %d: %g under the best %g: the brute force is wrong", solver.grid.type->name, r, is, least);
        }
        CHECK_MSG(polish <= search, "%s: %g after %g", solver.grid.type->name, polish, search);
        CHECK_MSG(polish <= 1.5 * best, "%s: %.3f of the best (search %.3f, worst row %.3f)", solver.grid.type->name, polish / best, search / best, ratio);
    }
    problem_free(&p);
}

/* One unit of a codebook format: all entries with all signs. */
TEST(units_end_near_the_best_of_all_entries_and_signs)
{
    static const int column[8] = { 64, 65, 66, 67, 68, 69, 70, 71 };
    static const int books[] = { GGUF_IQ2_XXS, GGUF_IQ2_XS, GGUF_IQ2_S };
    struct problem p;
    seed = 10;
    problem_new(&p, 256, 24, 300);
    couple_only(&p, column, 8, 0.001f);
    for (int f = 0; f < ARRAY_LEN(books); f++) {
        double is = 0, best = 0;
        start(&p, books[f]);
        const struct grid *g = &solver.grid;
        const struct metric *m = solver.metric;
        solver.stage = SOLVE_CODES;
        solve_rows(&solver, &level[n_levels - 1], p.x, p.rows, p.q, NULL, p.scratch);
        decode(&p, p.q);
        for (int r = 0; r < p.rows; r++) {
            struct codes c;
            double least = 1e300, scale, H[8][8];
            g->type->unpack(p.q + (size_t)r * dtype_row_bytes(g->type, p.n), &c);
            scale = (double)c.scale[64 / g->type->group_len];
            for (int i = 0; i < 8; i++)
                for (int j = 0; j < 8; j++) H[i][j] = (double)m->unit * (double)p.h.h[column[i] * p.n + column[j]] + (i == j ? (double)m->damping : 0);
            for (int q = 0; q < g->n; q++)
                for (int sign = 0; sign < 256; sign++) {
                    double e[8], sum = 0;
                    if (g->sign == GRID_EVEN && __builtin_parity((unsigned)sign)) continue;
                    for (int i = 0; i < 8; i++) e[i] = (double)p.x[r * p.n + 64 + i] - scale * (sign >> i & 1 ? -1 : 1) * g->entry[q * 8 + i];
                    for (int i = 0; i < 8; i++)
                        for (int j = 0; j < 8; j++) sum += H[i][j] * e[i] * e[j];
                    least = fmin(least, sum);
                }
            double loss = live_loss(&p, m, column, 8, r);
            CHECK(loss >= least * (1 - 1e-4));
            is += loss, best += least;
        }
        CHECK_MSG(is <= 1.2 * best, "%s: %.3f of the best", g->type->name, is / best);
    }
    problem_free(&p);
}

static void check_legal(struct problem *p, const char *what)
{
    const struct dtype *t = solver.grid.type;
    size_t row = dtype_row_bytes(t, p->n);
    for (int r = 0; r < p->rows; r++)
        for (int b = 0; b < p->n / t->block_len; b++) {
            uint8_t *block = p->q + (size_t)r * row + (size_t)b * (size_t)t->block_bytes, again[512];
            struct parts parts;
            struct codes c;
            t->split(block, &parts);
            t->join(&parts, again);
            CHECK_MSG(!memcmp(block, again, (size_t)t->block_bytes), "%s: %s: not canonical", t->name, what);
            t->unpack(block, &c);
            for (int i = 0; i < t->block_len; i++)
                CHECK_MSG(isfinite(c.scale[i / t->group_len] * (float)c.code[i] + c.min[i / t->group_len]), "%s: %s: not finite", t->name, what);
        }
}

TEST(degenerate_input_gives_legal_blocks)
{
    struct problem p;
    seed = 11;
    problem_new(&p, 256, 7, 60); /* fewer tokens than columns */
    for (int i = 0; i < 256; i++) {
        p.x[0 * 256 + i] = 0.0f, p.x[1 * 256 + i] *= 1e37f, p.x[2 * 256 + i] *= 1e-37f, p.x[3 * 256 + i] = i == 100 ? 1.0f : 0.0f;
        p.x[4 * 256 + i] *= i % 50 ? 1e-30f : 1e30f, p.x[5 * 256 + i] = 1e-45f, p.x[6 * 256 + i] = 0.5f;
    }
    static const float damping[2] = { 0.01f, 1e-7f };
    for (int kind = 0; kind < 3; kind++) { /* few tokens; dead columns too, and hardly any damping; no token at all */
        for (int i = 0; i < 256 * 256; i++)
            if (kind == 2 || (kind == 1 && (i % 256 % 7 == 0 || i / 256 % 7 == 0 || i / 256 / 32 == 3 || i % 256 / 32 == 3))) p.h.h[i] = 0.0f;
        metric_close(&p.m);
        problem_metric(&p, damping[kind == 1]);
        for (int f = 0; f < ARRAY_LEN(formats); f++) {
            start(&p, formats[f]);
            solve_rows(&solver, &level[n_levels - 1], p.x, p.rows, p.q, p.loss, p.scratch);
            check_legal(&p, kind == 0 ? "few tokens" : kind == 1 ? "dead columns" : "no tokens");
            for (int r = 0; r < 7; r++) CHECK_MSG(!isnan(p.loss[r][SOLVE_SCALES]), "%s: row %d", solver.grid.type->name, r);
        }
    }
    problem_free(&p);
}

TEST(wrong_shapes_are_refused)
{
    struct problem p;
    seed = 12;
    problem_new(&p, 288, 1, 40);
    struct err e = { 0 };
    CHECK(solver_init(&solver, dtype_by_id(GGUF_Q4_K), &p.m, p.importance, &e) == ERR_USAGE);
    CHECK_HAS(e.text, "288");
    struct err e3 = { 0 };
    CHECK(solver_init(&solver, dtype_by_id(GGUF_F16), &p.m, p.importance, &e3) == ERR_USAGE);
    start(&p, GGUF_Q4_0);
    solve_rows(&solver, &level[0], p.x, 1, p.q, p.loss, p.scratch);
    CHECK(p.loss[0][SOLVE_SCALES] <= p.loss[0][SOLVE_SEARCH]);
    problem_free(&p);
}

SUITE(solve, T(grids_say_what_unpack_says), T(grids_have_the_known_sizes), T(h_has_the_same_bits_for_threads_levels_and_splits), T(h_is_the_sum_of_x_xt),
      T(the_factor_gives_h_back), T(aims_solve_their_equation), T(damping_rises_until_the_factor_exists), T(losses_are_e_h_et_and_no_stage_is_worse),
      T(error_on_other_tokens_is_e_h_et),
      T(solver_gives_the_same_bytes_for_levels_and_splits), T(feedback_under_a_diagonal_metric_is_nearest), T(small_problems_end_near_the_best_of_all_codes),
      T(units_end_near_the_best_of_all_entries_and_signs), T(degenerate_input_gives_legal_blocks), T(wrong_shapes_are_refused));
