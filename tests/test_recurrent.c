/* test_recurrent - what recurrent layers add to the rules of a timeline: the ops against the formulas of the papers in double precision, passes of any
 * size, company in the batch, threads, and a state that cannot go back. */
#include "ggml-like/cpu.h"
#include "ggml-like/kernels/kernels.h"
#include "ggml-like/ops.h"
#include "src/cuanto.h"
#include "tests/test.h"
#include "tests/tiny.h"

/* ---- ops ---- */

enum { ROWS = 23, CONV = 4, CHANNELS = 40, HEADS_K = 2, HEADS_V = 6, K_DIM = 12, V_DIM = 20 };

static void fill(float *x, int64_t n, uint64_t seed)
{
    for (int64_t i = 0; i < n; i++) x[i] = test_randf(&seed);
}

static val input(struct plan *p, int64_t ne0, int64_t ne1, float *data)
{
    val v = plan_input(p, ne0, ne1);
    plan_bind(p, v, data);
    return v;
}

/* Runs the op that `record` writes over ROWS rows in pieces; the rest of the state's memory is NaN before the first. */
struct record {
    val (*fn)(struct plan *p, void *ctx, int64_t first, int64_t n);
    void *ctx;
    int64_t columns;
    struct layer_state state;
};

static void run_pieces(const struct record *r, const int64_t *piece, int n_piece, int threads, float *y)
{
    struct cpu_info cpu;
    struct kernels k;
    struct pool *pool = NULL;
    struct layer_state state = r->state;
    struct plan_share share[8];
    cpu_detect(&cpu);
    kernels_init(&k, cpu.features);
    CHECK(pool_open(&pool, threads, NULL) == OK);
    size_t scratch = plan_thread_bytes(64);
    uint8_t *thread_base = aligned_alloc(64, scratch * (size_t)threads);
    int64_t first = 0;
    for (int i = 0; i < n_piece; i++) {
        struct plan p;
        plan_init(&p, &k);
        plan_reset(&p, piece[i], piece[i], ROWS);
        CHECK(plan_reserve(&p, PLAN_CHUNK, NULL) == OK);
        val out = r->fn(&p, r->ctx, first, piece[i]);
        plan_keep(&p, out);
        CHECK(plan_finish(&p, NULL) == OK);
        uint8_t *base = aligned_alloc(64, (p.bytes + 63) & ~(size_t)63);
        struct batch_segment seg = { 0, piece[i], first, &state };
        struct batch b = { .n_rows = piece[i], .n_out = piece[i], .seg = &seg, .n_seg = 1 };
        struct plan_exec x = { .plan = &p, .pool = pool, .batch = &b, .base = base, .thread_base = thread_base, .thread_bytes = scratch, .share = share };
        plan_run(&x);
        memcpy(y + first * r->columns, base + p.val[out].offset, (size_t)(piece[i] * r->columns) * sizeof *y);
        first += piece[i];
        free(base);
        plan_free(&p);
    }
    CHECK(first == ROWS);
    free(thread_base);
    pool_close(pool);
}

static const int64_t pieces[][4] = { { ROWS }, { 1, 1, 2, ROWS - 4 }, { 2, 7, 13, 1 } };
static const int n_pieces[] = { 1, 4, 4 };

struct conv_data {
    float x[ROWS * CHANNELS], w[CHANNELS * CONV], b[CHANNELS];
};

static val record_conv(struct plan *p, void *ctx, int64_t first, int64_t n)
{
    struct conv_data *d = ctx;
    return op_conv(p, 0, input(p, CHANNELS, n, d->x + first * CHANNELS), input(p, CONV, CHANNELS, d->w), input(p, CHANNELS, 1, d->b));
}

TEST(conv_equals_its_formula_in_passes_of_any_size)
{
    static struct conv_data d;
    static float past[(CONV - 1) * CHANNELS], y[ROWS * CHANNELS];
    fill(d.x, ARRAY_LEN(d.x), 1), fill(d.w, ARRAY_LEN(d.w), 2), fill(d.b, ARRAY_LEN(d.b), 3);
    struct record r = { record_conv, &d, CHANNELS, { .rec = { .n_conv = CONV, .channels = CHANNELS, .conv = past } } };
    for (int i = 0; i < ARRAY_LEN(pieces); i++)
        for (int threads = 1; threads <= 3; threads += 2) {
            for (int j = 0; j < ARRAY_LEN(past); j++) past[j] = NAN; /* what a session that was used before leaves */
            run_pieces(&r, pieces[i], n_pieces[i], threads, y);
            for (int t = 0; t < ROWS; t++)
                for (int c = 0; c < CHANNELS; c++) {
                    double want = (double)d.b[c];
                    for (int j = 0; j < CONV; j++)
                        if (t - CONV + 1 + j >= 0) want += (double)d.w[c * CONV + j] * (double)d.x[(t - CONV + 1 + j) * CHANNELS + c];
                    CHECK_NEAR((double)y[t * CHANNELS + c], want, 1e-6);
                }
        }
}

struct delta_data {
    float q[ROWS * HEADS_K * K_DIM], k[ROWS * HEADS_K * K_DIM], v[ROWS * HEADS_V * V_DIM], g[ROWS * HEADS_V], beta[ROWS * HEADS_V];
    bool tiled;
};

static val record_delta(struct plan *p, void *ctx, int64_t at, int64_t n)
{
    struct delta_data *d = ctx;
    struct delta_spec s = { .n_k_head = HEADS_K, .n_v_head = HEADS_V, .k_dim = K_DIM, .v_dim = V_DIM, .tiled = d->tiled };
    return op_delta_rule(p, &s, input(p, HEADS_K * K_DIM, n, d->q + at * HEADS_K * K_DIM), input(p, HEADS_K * K_DIM, n, d->k + at * HEADS_K * K_DIM),
                         input(p, HEADS_V * V_DIM, n, d->v + at * HEADS_V * V_DIM), input(p, HEADS_V, n, d->g + at * HEADS_V),
                         input(p, HEADS_V, n, d->beta + at * HEADS_V));
}

/* The recurrence as the paper has it, one value head. */
static void delta_head(const struct delta_data *d, int h, double *y)
{
    static double s[K_DIM][V_DIM];
    int hk = d->tiled ? h % HEADS_K : h / (HEADS_V / HEADS_K);
    memset(s, 0, sizeof s);
    for (int t = 0; t < ROWS; t++) {
        const float *q = d->q + (t * HEADS_K + hk) * K_DIM, *k = d->k + (t * HEADS_K + hk) * K_DIM, *v = d->v + (t * HEADS_V + h) * V_DIM;
        double decay = exp((double)d->g[t * HEADS_V + h]), beta = (double)d->beta[t * HEADS_V + h];
        for (int j = 0; j < V_DIM; j++) {
            double seen = 0, sum = 0;
            for (int i = 0; i < K_DIM; i++) seen += decay * s[i][j] * (double)k[i];
            for (int i = 0; i < K_DIM; i++) s[i][j] = decay * s[i][j] + (double)k[i] * beta * ((double)v[j] - seen);
            for (int i = 0; i < K_DIM; i++) sum += s[i][j] * (double)q[i] / sqrt(K_DIM);
            y[(t * HEADS_V + h) * V_DIM + j] = sum;
        }
    }
}

TEST(delta_rule_equals_the_recurrence_in_passes_of_any_size)
{
    static struct delta_data d;
    static float memory[HEADS_V * K_DIM * V_DIM], y[ROWS * HEADS_V * V_DIM], first[ROWS * HEADS_V * V_DIM];
    static double want[ROWS * HEADS_V * V_DIM];
    fill(d.q, ARRAY_LEN(d.q), 1), fill(d.k, ARRAY_LEN(d.k), 2), fill(d.v, ARRAY_LEN(d.v), 3), fill(d.g, ARRAY_LEN(d.g), 4);
    fill(d.beta, ARRAY_LEN(d.beta), 5);
    for (int i = 0; i < ARRAY_LEN(d.g); i++) d.g[i] -= 1, d.beta[i] = 0.25f * (d.beta[i] + 1); /* decays; steps that converge */
    struct record r = { record_delta, &d, HEADS_V * V_DIM, { .rec = { .n_memory = ARRAY_LEN(memory), .memory = memory } } };
    for (int tiled = 0; tiled < 2; tiled++) {
        d.tiled = tiled;
        for (int h = 0; h < HEADS_V; h++) delta_head(&d, h, want);
        for (int i = 0; i < ARRAY_LEN(pieces); i++) {
            for (int j = 0; j < ARRAY_LEN(memory); j++) memory[j] = NAN;
            run_pieces(&r, pieces[i], n_pieces[i], 1 + i, y);
            if (i == 0) memcpy(first, y, sizeof y);
            CHECK_MSG(!memcmp(first, y, sizeof y), "pieces %d differ from one pass", i);
            for (int j = 0; j < ARRAY_LEN(y); j++) CHECK_NEAR((double)y[j], want[j], 2e-6);
        }
    }
}

/* ---- models ---- */

enum { N = 80 };
static const char *const archs[] = { "qwen3next", "qwen35", "qwen35moe", "lfm2", "lfm2moe", "mamba2", "falcon-h1" };

static struct model *open_tiny(const char *arch)
{
    struct err e = { 0 };
    struct model *m = NULL;
    const char *path = test_tmp(arch);
    struct tiny_options o = { .arch = arch, .n_layer = 4, .head_dim = 32, .optional = true };
    if (tiny_model(path, &o, &e) != OK || model_open(&m, path, &(struct model_options){ 0 }, &e) != OK) test_fail(__FILE__, __LINE__, "%s", e.text);
    CHECK(m && model_is_recurrent(m));
    return m;
}

struct rows {
    float *out;
    int64_t stride;
};
static void take_row(void *ctx, int seg, int64_t row, const float *logits)
{
    struct rows *r = ctx;
    memcpy(r->out + (seg * r->stride + row) * TINY_TOKENS, logits, TINY_TOKENS * sizeof *logits);
}

static void forward(struct engine *en, struct session *s, const int32_t *t, int64_t n, float *out)
{
    struct err e = { 0 };
    struct rows r = { out, n };
    struct segment g = { s, t, n, 0 };
    CHECK_MSG(engine_forward(en, &g, 1, take_row, &r, &e) == OK, "%s", e.text);
}

static void pick(int32_t *t, int64_t n, uint64_t seed)
{
    for (int64_t i = 0; i < n; i++) t[i] = (int32_t)(test_rand(&seed) % TINY_TOKENS);
}

static struct engine *engine(const struct model *m, int threads)
{
    struct engine *en = NULL;
    struct err e = { 0 };
    if (engine_open(&en, m, &(struct engine_options){ .n_threads = threads }, &e) != OK) test_fail(__FILE__, __LINE__, "%s", e.text);
    return en;
}

static struct session *session(struct engine *en)
{
    struct session *s = NULL;
    CHECK(session_open(&s, en, &(struct session_options){ .n_ctx = 128, .kv_type = dtype_by_name("f32") }, NULL) == OK);
    return s;
}

static float gap(const float *a, const float *b, int64_t n)
{
    float w = 0;
    for (int64_t i = 0; i < n; i++) w = fabsf(a[i] - b[i]) <= w ? w : fabsf(a[i] - b[i]);
    return w;
}

/* Single rows take other kernels than several, so equality is up to the order of sums; the same passes on other threads are bit-equal. */
TEST(recurrent_models_continue_in_passes_of_any_size)
{
    static const int64_t size[] = { 1, 2, 5, 30, 1, 1, 26, 14 };
    static float whole[N * TINY_TOKENS], part[N * TINY_TOKENS], first[N * TINY_TOKENS];
    for (int a = 0; a < ARRAY_LEN(archs); a++) {
        test_begin("recurrent_model_continues_in_passes_of_any_size_%s", archs[a]);
        struct model *m = open_tiny(archs[a]);
        int32_t t[N];
        pick(t, N, 7);
        for (int threads = 1; threads <= 3; threads++) {
            struct engine *en = engine(m, threads);
            struct session *s = session(en);
            forward(en, s, t, N, whole);
            CHECK(session_truncate(s, 0, NULL) == OK);
            int64_t at = 0;
            for (int i = 0; i < ARRAY_LEN(size); at += size[i++]) forward(en, s, t + at, size[i], part + at * TINY_TOKENS);
            CHECK(at == N);
            float d = gap(whole, part, N * TINY_TOKENS);
            CHECK_MSG(d < 2e-4f, "passes differ by %g", (double)d);
            if (threads == 1) memcpy(first, part, sizeof part);
            CHECK_MSG(!memcmp(first, part, sizeof part), "%d threads differ from one", threads);
            session_close(s);
            engine_close(en);
        }
        model_close(m);
    }
}

TEST(recurrent_sessions_do_not_see_each_other)
{
    static float alone[3][8 * TINY_TOKENS], together[3 * 8 * TINY_TOKENS], ignored[16 * TINY_TOKENS];
    for (int a = 0; a < ARRAY_LEN(archs); a++) {
        test_begin("recurrent_sessions_do_not_see_each_other_%s", archs[a]);
        struct model *m = open_tiny(archs[a]);
        struct engine *en = engine(m, 2);
        struct session *s[3];
        int32_t t[3][16];
        struct segment g[3];
        for (int i = 0; i < 3; i++) {
            s[i] = session(en);
            pick(t[i], 16, (uint64_t)i);
            int64_t depth = i * 2; /* 0, 2, 4 */
            for (int again = 0; again < 2; again++) {
                CHECK(session_truncate(s[i], 0, NULL) == OK);
                if (depth) forward(en, s[i], t[i], depth, ignored);
                if (!again) forward(en, s[i], t[i] + depth, 8, alone[i]);
            }
            g[i] = (struct segment){ s[i], t[i] + depth, 8, 0 };
        }
        struct rows r = { together, 8 };
        CHECK(engine_forward(en, g, 3, take_row, &r, NULL) == OK);
        for (int i = 0; i < 3; i++) CHECK_MSG(!memcmp(alone[i], together + i * 8 * TINY_TOKENS, sizeof alone[i]), "segment %d changed", i);
        for (int i = 0; i < 3; i++) session_close(s[i]);
        engine_close(en);
        model_close(m);
    }
}

TEST(recurrent_state_is_kept_or_begun_anew)
{
    static float fresh[16 * TINY_TOKENS], again[16 * TINY_TOKENS];
    struct model *m = open_tiny("qwen3next");
    struct engine *en = engine(m, 2);
    struct session *s = session(en);
    int32_t t[16];
    struct err e = { 0 };
    pick(t, 16, 5);
    forward(en, s, t, 16, fresh);
    CHECK(session_truncate(s, 15, &e) == ERR_USAGE && session_pos(s) == 16);
    CHECK_HAS(e.text, "truncate to 15 of 16: the recurrent layers of this model");
    CHECK(session_truncate(s, 16, NULL) == OK && session_truncate(s, 0, NULL) == OK && session_pos(s) == 0);
    forward(en, s, t, 16, again);
    CHECK(!memcmp(fresh, again, sizeof fresh));
    session_close(s);
    engine_close(en);
    model_close(m);
}

/* Two of four layers keep keys and values: their share grows with the context, the others' does not. */
TEST(recurrent_state_counts_in_the_memory_of_a_session)
{
    struct model *m = open_tiny("qwen35");
    const struct dtype *kv = dtype_by_name("f32");
    size_t one = model_state_bytes(m, 128, kv), two = model_state_bytes(m, 256, kv), caches = 2 * 2 * 128 * 2 * 32 * sizeof(float);
    size_t recurrent = 2 * (3 * (2 * 2 * 16 + 64) + 64 * 16) * sizeof(float);
    CHECK_MSG(two - one == caches && one == caches + recurrent, "%zu and %zu, caches %zu, recurrent %zu", one, two, caches, recurrent);
    model_close(m);
}

TEST(recurrent_sizes_that_do_not_fit_are_refused)
{
    static const struct {
        const char *name, *drop, *text;
    } rows[] = {
        { "no_conv", "qwen35.ssm.conv_kernel", "key qwen35.ssm.conv_kernel is missing" },
        { "no_inner", "qwen35.ssm.inner_size", "key qwen35.ssm.inner_size is missing" },
        { "wrong_pattern", "qwen35.full_attention_interval", "tensor blk.1.ssm_conv1d.weight is missing" }, /* 4 by default, the file is made for 2 */
    };
    for (int i = 0; i < ARRAY_LEN(rows); i++) {
        test_begin("recurrent_sizes_refused_%s", rows[i].name);
        struct err e = { 0 };
        struct model *m = NULL;
        const char *path = test_tmp("sizes.gguf");
        CHECK(tiny_model(path, &(struct tiny_options){ .arch = "qwen35", .n_layer = 4, .drop_key = rows[i].drop }, &e) == OK);
        CHECK(model_open(&m, path, &(struct model_options){ 0 }, &e) == ERR_FORMAT);
        CHECK_HAS(e.text, rows[i].text);
        model_close(m);
    }
}

TEST(nemotron_h_takes_its_epsilon_from_either_key)
{
    static const char *const drop[] = { "nemotron_h.attention.layer_norm_rms_epsilon", "nemotron_h.attention.layer_norm_epsilon" };
    for (int i = 0; i < ARRAY_LEN(drop); i++) {
        struct err e = { 0 };
        struct model *m = NULL;
        const char *path = test_tmp("epsilon.gguf");
        CHECK(tiny_model(path, &(struct tiny_options){ .arch = "nemotron_h", .drop_key = drop[i] }, &e) == OK);
        CHECK_MSG(model_open(&m, path, &(struct model_options){ 0 }, &e) == OK, "%s", e.text);
        model_close(m);
    }
}

SUITE(recurrent, T(nemotron_h_takes_its_epsilon_from_either_key),
      T(conv_equals_its_formula_in_passes_of_any_size), T(delta_rule_equals_the_recurrence_in_passes_of_any_size),
      T(recurrent_models_continue_in_passes_of_any_size), T(recurrent_sessions_do_not_see_each_other), T(recurrent_state_is_kept_or_begun_anew),
      T(recurrent_state_counts_in_the_memory_of_a_session), T(recurrent_sizes_that_do_not_fit_are_refused));
