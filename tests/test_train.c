/* test_train - gradients of whole models against differences of their losses, for adapters on bases of many formats and for all weights; the same bits whatever
 * is kept, packed together or shared among threads; AdamW against its formula in double; rates; plain errors. */
#include "ggml-like/file.h"
#include "ggml-like/pool.h"
#include "src/cuanto.h"
#include "tests/test.h"
#include "tests/tiny.h"
#include "tools/train_state.h"

enum { SEQS = 3, ROWS = 96, N_LAYER = 3 };
static const int64_t lens[SEQS] = { 17, 40, 23 };

struct data {
    int32_t token[SEQS][64];
    float weight[SEQS][64];
    struct train_seq seq[SEQS];
};

static void make_data(struct data *d)
{
    uint64_t seed = 5;
    for (int i = 0; i < SEQS; i++) {
        for (int64_t j = 0; j < lens[i]; j++) {
            d->token[i][j] = (int32_t)(test_rand(&seed) % TINY_TOKENS);
            d->weight[i][j] = test_rand(&seed) % 3 ? 1.0f : i == 2 ? 0.5f : 0.0f;
        }
        d->seq[i] = (struct train_seq){ d->token[i], d->weight[i], lens[i] };
    }
}

static struct model *open_tiny(const char *arch, const char *type)
{
    struct err e = { 0 };
    struct model *m = NULL;
    struct tiny_options o = { .arch = arch, .type = type, .n_layer = N_LAYER, .head_dim = 32, .n_embd = 256, .n_head = 8, .n_head_kv = 4, .n_ff = 256 };
    const char *path = test_tmp("train.gguf");
    if (tiny_model(path, &o, &e) != OK || model_open(&m, path, &(struct model_options){ 0 }, &e) != OK) test_fail(__FILE__, __LINE__, "%s", e.text);
    return m;
}

static struct trainer *open_trainer(const struct model *m, struct trainer_options o, const char *what)
{
    struct err e = { 0 };
    struct trainer *t = NULL;
    if (!o.n_batch) o.n_batch = ROWS;
    if (!o.rank) o.rank = 4;
    o.seed = 3;
    if (trainer_open(&t, m, &o, &e) != OK) test_fail(__FILE__, __LINE__, "%s: %s", what, e.text);
    return t;
}

/* Adapters whose second matrix is not zero, as after some steps. */
static void stir(struct trainer *t, float size)
{
    struct train_param_list list = trainer_params(t);
    uint64_t seed = 9;
    for (int64_t i = 0; i < list.n; i++)
        for (int64_t j = 0; list.param[i].part == TRAIN_B && j < list.param[i].ne0 * list.param[i].ne1; j++)
            trainer_weights(t)[list.param[i].offset + j] = size * test_randn(&seed);
}

static const double factors[SEQS] = { 0.5, 1, -0.25 };

static double loss(struct trainer *t, const struct data *d, bool back)
{
    struct err e = { 0 };
    double nll[SEQS] = { 0 }, sum = 0;
    status st = back ? trainer_forward(t, d->seq, SEQS, 1, nll, &e) : trainer_score(t, d->seq, SEQS, false, nll, &e);
    if (st == OK && back) st = trainer_backward(t, factors, &e);
    CHECK_MSG(st == OK, "%s", e.text);
    for (int i = 0; i < SEQS; i++) sum += factors[i] * nll[i];
    return sum;
}

/* The derivative along a random direction: what the gradient says, and differences of the loss (fourth order), which changes by about `change` a step. */
static void check_part(struct trainer *t, const struct data *d, int64_t first, int64_t end, double change, double bound, const char *what)
{
    int64_t n = trainer_n(t);
    float *w = trainer_weights(t), *old = malloc((size_t)n * sizeof *old), *dir = malloc((size_t)n * sizeof *dir);
    static const double at[] = { -2, -1, 1, 2 }, factor[] = { 1.0 / 12, -8.0 / 12, 8.0 / 12, -1.0 / 12 };
    double said = 0, differs = 0;
    uint64_t seed = 21;
    memset(trainer_gradients(t), 0, (size_t)n * sizeof *old);
    loss(t, d, true);
    memcpy(old, w, (size_t)n * sizeof *old);
    for (int64_t i = 0; i < n; i++) {
        float g = trainer_gradients(t)[i];
        dir[i] = i < first || i >= end ? 0 : test_randn(&seed) * 0.3f + (g > 0 ? 1.0f : g < 0 ? -1.0f : 0.0f); /* mostly uphill: a sum that does not cancel */
        said += (double)dir[i] * (double)g;
    }
    double size = change / said;
    for (int k = 0; k < 4; k++) {
        for (int64_t i = 0; i < n; i++) w[i] = (float)((double)old[i] + at[k] * size * (double)dir[i]);
        differs += factor[k] * loss(t, d, false) / size;
    }
    memcpy(w, old, (size_t)n * sizeof *old);
    double off = fabs(said - differs) / fabs(said);
    CHECK_MSG(off <= bound, "%s: the gradient says %.6g, the loss changes by %.6g (%.2g)", what, said, differs, off);
    free(old);
    free(dir);
}

static void check_direction(struct trainer *t, const struct data *d, double change, double bound, const char *what)
{
    check_part(t, d, 0, trainer_n(t), change, bound, what);
}

TEST(train_gradients_are_the_slope_of_the_loss)
{
    static const struct { const char *arch, *type; } cases[] = {
        { "llama", "F32" }, { "qwen2", "F32" }, { "gemma3", "F32" }, { "qwen3", "F16" }, { "phi3", "F32" }, { "gemma2", "F32" }, { "granite", "F32" },
        { "falcon-h1", "F32" }, { "lfm2", "F32" }, { "qwen35", "F32" }, { "deepseek2", "F32" },
    };
    struct data d;
    make_data(&d);
    for (int i = 0; i < ARRAY_LEN(cases); i++) {
        struct model *m = open_tiny(cases[i].arch, cases[i].type);
        struct trainer *t = open_trainer(m, (struct trainer_options){ .precise = true, .n_threads = 2 }, cases[i].arch);
        stir(t, 0.1f);
        check_direction(t, &d, 1, 1e-3, cases[i].arch);
        trainer_close(t);
        model_close(m);
    }
}

TEST(train_gradients_pass_through_formats)
{
    static const char *const types[] = { "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K" };
    struct data d;
    make_data(&d);
    for (int i = 0; i < ARRAY_LEN(types); i++) {
        struct model *m = open_tiny("llama", types[i]);
        struct trainer *t = open_trainer(m, (struct trainer_options){ .precise = true, .n_threads = 2 }, types[i]);
        stir(t, 0.1f);
        check_direction(t, &d, 4, 1e-3, types[i]); /* larger steps: activations are rounded, which is 0.1 % of a change of 1 */
        trainer_close(t);
        model_close(m);
    }
}

TEST(train_all_weights_have_gradients)
{
    static const char *const archs[] = { "llama", "qwen2", "gemma3" };
    struct data d;
    make_data(&d);
    for (int i = 0; i < ARRAY_LEN(archs); i++) {
        struct model *m = open_tiny(archs[i], "F32");
        struct trainer *t = open_trainer(m, (struct trainer_options){ .precise = true, .n_threads = 2, .full = true }, archs[i]);
        struct train_param_list list = trainer_params(t);
        for (int64_t k = 0; k < list.n; k++) {
            int64_t first = list.param[k].offset;
            check_part(t, &d, first, first + list.param[k].ne0 * list.param[k].ne1, 1, 2e-3, list.param[k].base);
        }
        trainer_close(t);
        model_close(m);
    }
}

/* Gradients of one pass with these options, [n] from malloc. */
static float *gradients(const struct model *m, const struct data *d, struct trainer_options o, int64_t *n, double *sum)
{
    struct trainer *t = open_trainer(m, o, "llama");
    stir(t, 0.1f);
    *sum = loss(t, d, true);
    *n = trainer_n(t);
    float *g = malloc((size_t)*n * sizeof *g);
    memcpy(g, trainer_gradients(t), (size_t)*n * sizeof *g);
    trainer_close(t);
    return g;
}

TEST(train_bits_do_not_depend_on_memory_and_threads)
{
    struct data d;
    make_data(&d);
    for (int precise = 0; precise < 2; precise++) {
        struct model *m = open_tiny("llama", "Q4_0");
        int64_t n;
        double sum, other;
        struct trainer_options o = { .precise = precise, .n_threads = 1, .memory = 1 << 30, .dropout = 0.25f };
        float *want = gradients(m, &d, o, &n, &sum);
        for (int threads = 1; threads <= 3; threads++)
            for (size_t memory = 0; memory <= 400000; memory += 100000) {
                o.n_threads = threads, o.memory = memory;
                float *g = gradients(m, &d, o, &n, &other);
                bool same = sum == other && !memcmp(g, want, (size_t)n * sizeof *g);
                CHECK_MSG(same, "%d threads, %zu bytes: loss %.9g, expected %.9g", threads, memory, other, sum);
                free(g);
            }
        free(want);
        model_close(m);
    }
}

/* Shorter passes keep the activations of more layers, in the same room. */
TEST(train_memory_does_not_grow_with_the_variety_of_lengths)
{
    enum { MEMORY = 1000000 };
    struct data d;
    struct err e = { 0 };
    make_data(&d);
    struct model *m = open_tiny("llama", "Q4_0");
    struct trainer *t = open_trainer(m, (struct trainer_options){ .n_threads = 1, .memory = MEMORY }, "llama");
    size_t before = trainer_bytes(t);
    int64_t most = trainer_kept(t);
    for (int64_t n = 40; n >= 4; n -= 4) {
        struct train_seq seq[2] = { { d.token[1], d.weight[1], n }, { d.token[1], d.weight[1], n } };
        double nll[2];
        CHECK(trainer_forward(t, seq, 2, 1, nll, &e) == OK && trainer_backward(t, factors, &e) == OK);
        most = max_i64(most, trainer_kept(t));
        CHECK_MSG(trainer_bytes(t) <= before + MEMORY / 2, "%lld rows, %lld layers kept: %zu bytes, at first %zu", (long long)(2 * n),
                  (long long)trainer_kept(t), trainer_bytes(t), before);
    }
    CHECK(most == N_LAYER);
    trainer_close(t);
    model_close(m);
}

TEST(train_packed_samples_do_not_see_each_other)
{
    struct data d;
    struct err e = { 0 };
    make_data(&d);
    struct model *m = open_tiny("llama", "F32");
    struct trainer *t = open_trainer(m, (struct trainer_options){ .precise = true, .n_threads = 2, .memory = 1 << 30 }, "llama");
    stir(t, 0.1f);
    double together[SEQS], alone;
    int64_t n = trainer_n(t);
    loss(t, &d, true);
    float *g = malloc((size_t)n * sizeof *g);
    memcpy(g, trainer_gradients(t), (size_t)n * sizeof *g);
    memset(trainer_gradients(t), 0, (size_t)n * sizeof *g);
    CHECK(trainer_score(t, d.seq, SEQS, false, together, &e) == OK);
    double top = 0, off = 0;
    for (int i = 0; i < SEQS; i++) {
        CHECK(trainer_forward(t, &d.seq[i], 1, 1, &alone, &e) == OK && trainer_backward(t, &factors[i], &e) == OK);
        CHECK_MSG(fabs(alone - together[i]) <= 1e-6 * fabs(alone), "sequence %d: %.9g alone, %.9g together", i, alone, together[i]);
    }
    for (int64_t i = 0; i < n; i++) {
        top = fmax(top, fabs((double)g[i]));
        off = fmax(off, fabs((double)g[i] - (double)trainer_gradients(t)[i]));
    }
    CHECK_MSG(off <= 1e-5 * top, "gradients are off by %.2g of the largest", off / top);
    free(g);
    trainer_close(t);
    model_close(m);
}

TEST(train_begins_as_the_base_and_uses_what_engines_use)
{
    struct data d;
    struct err e = { 0 };
    make_data(&d);
    struct model *m = open_tiny("llama", "Q4_0");
    struct trainer *t = open_trainer(m, (struct trainer_options){ .n_threads = 2 }, "llama");
    double base[SEQS], now[SEQS], nll[64];
    CHECK(trainer_score(t, d.seq, SEQS, true, base, &e) == OK && trainer_score(t, d.seq, SEQS, false, now, &e) == OK);
    for (int i = 0; i < SEQS; i++) CHECK(base[i] == now[i]);
    stir(t, 0.1f);
    CHECK(trainer_score(t, d.seq, SEQS, true, base, &e) == OK && trainer_score(t, d.seq, SEQS, false, now, &e) == OK);
    for (int i = 0; i < SEQS; i++) CHECK(base[i] != now[i]);
    struct engine *en = NULL;
    struct session *s = NULL;
    struct adapter_use use = { trainer_adapter(t), 1 };
    CHECK(engine_open(&en, m, &(struct engine_options){ .n_threads = 2, .lora = &use, .n_lora = 1 }, &e) == OK);
    CHECK(session_open(&s, en, &(struct session_options){ .n_ctx = 64, .kv_type = dtype_by_id(GGUF_F32) }, &e) == OK);
    struct segment seg = { s, d.token[1], lens[1] - 1, 0 };
    CHECK(engine_score(en, &seg, 1, d.token[1] + 1, nll, &e) == OK);
    double sum = 0;
    for (int64_t i = 0; i + 1 < lens[1]; i++) sum += (double)d.weight[1][i + 1] * nll[i];
    CHECK_MSG(fabs(sum - now[1]) <= 1e-6 * sum, "%.9g by an engine, %.9g by the trainer", sum, now[1]);
    session_close(s);
    engine_close(en);
    trainer_close(t);
    model_close(m);
}

static void share_caches(struct gguf_writer *w, void *ctx) { gguf_put_i64(w, "gemma4.attention.shared_kv_layers", KV_U32, 2); }

TEST(train_rejects_what_it_cannot_train)
{
    struct err e = { 0 };
    struct trainer *t = NULL;
    struct model *m = open_tiny("llama", "Q4_0");
    CHECK(trainer_open(&t, m, &(struct trainer_options){ .full = true, .n_batch = 32 }, &e) == ERR_USAGE && strstr(e.text, "Q4_0"));
    e = (struct err){ 0 };
    CHECK(trainer_open(&t, m, &(struct trainer_options){ .dropout = 1, .n_batch = 32 }, &e) == ERR_USAGE && strstr(e.text, "dropout is 1"));
    t = open_trainer(m, (struct trainer_options){ .n_batch = 16 }, "llama");
    int32_t token[32] = { 1, 2, TINY_TOKENS };
    float weight[32] = { 0, 1, 1 };
    double nll;
    struct train_seq seq = { token, weight, 17 };
    e = (struct err){ 0 };
    CHECK(trainer_score(t, &seq, 1, false, &nll, &e) == ERR_USAGE && strstr(e.text, "17 tokens, expected 1 to 16"));
    seq.n = 3;
    e = (struct err){ 0 };
    CHECK(trainer_score(t, &seq, 1, false, &nll, &e) == ERR_USAGE && strstr(e.text, "token id"));
    e = (struct err){ 0 };
    CHECK(trainer_backward(t, &nll, &e) == ERR_USAGE);
    trainer_close(t);
    model_close(m);
    struct tiny_options o = { .arch = "gemma4", .n_layer = 4, .head_dim = 32, .optional = true, .more = share_caches };
    const char *path = test_tmp("train.gguf");
    e = (struct err){ 0 };
    CHECK(tiny_model(path, &o, &e) == OK && model_open(&m, path, &(struct model_options){ 0 }, &e) == OK);
    CHECK(trainer_open(&t, m, &(struct trainer_options){ .n_batch = 32 }, &e) == ERR_USAGE && e.text[0]);
    model_close(m);
}

/* Each allocation fails once; a pass that failed can be made again, to the same bits. */
TEST(train_survives_every_failing_allocation)
{
    struct data d;
    make_data(&d);
    struct model *m = open_tiny("gemma3", "F32");
    for (int full = 0; full < 2; full++) {
        struct trainer_options o = { .n_threads = 2, .memory = 200000, .rank = 2, .n_batch = ROWS, .dropout = 0.5f, .seed = 3, .full = full };
        double want[SEQS], nll[SEQS];
        uint64_t hash = 0;
        bool done = false;
        for (int64_t n = 0; !done && n < 5000; n += n < 60 ? 1 : 3) { /* 0: none fails */
            struct err e = { 0 };
            struct trainer *t = NULL;
            mem_fail_at(n, false);
            status st = trainer_open(&t, m, &o, &e), open = st;
            if (st == OK) st = trainer_score(t, d.seq, 1, !full, nll, &e);
            if (st == OK) st = trainer_forward(t, d.seq, SEQS, 1, nll, &e);
            if (st == OK) st = trainer_backward(t, factors, &e);
            mem_fail_at(0, false);
            CHECK_MSG(st == OK || (st == ERR_MEMORY && *e.text), "allocation %lld: status %d %s", (long long)n, (int)st, e.text);
            done = st != ERR_MEMORY && n > 0;
            e = (struct err){ 0 };
            if (open == OK && st != OK) st = trainer_forward(t, d.seq, SEQS, 1, nll, &e) == OK ? trainer_backward(t, factors, &e) : ERR_MEMORY;
            if (open == OK) {
                uint64_t now = hash64(0, trainer_gradients(t), (size_t)trainer_n(t) * sizeof(float));
                if (n == 0) hash = now, memcpy(want, nll, sizeof want);
                CHECK_MSG(st == OK && now == hash && !memcmp(nll, want, sizeof want), "allocation %lld: %s", (long long)n, e.text);
            }
            trainer_close(t);
        }
        CHECK(done);
    }
    model_close(m);
}

/* ---- optimizer ---- */

TEST(train_adamw_follows_its_formula)
{
    enum { N = 10000, STEPS = 5 };
    struct pool *pool = NULL;
    struct err e = { 0 };
    struct adamw o = { .lr = 0.01f, .beta1 = 0.9f, .beta2 = 0.99f, .eps = 1e-8f, .decay = 0.1f };
    static float w[N], g[N], m[N], v[N], first[N];
    static double w2[N], m2[N], v2[N];
    uint64_t seed = 1;
    for (int threads = 1; threads <= 3; threads += 2) {
        CHECK(pool_open(&pool, threads, &e) == OK);
        for (int i = 0; i < N; i++) w2[i] = (double)(w[i] = (float)(i % 13) / 13), m[i] = v[i] = 0, m2[i] = v2[i] = 0;
        for (int step = 1; step <= STEPS; step++) {
            for (int i = 0; i < N; i++) g[i] = test_randn(&seed);
            adamw_step(pool, &o, step, 0.5f, w, g, m, v, N);
            for (int i = 0; i < N; i++) {
                double x = 0.5 * (double)g[i];
                w2[i] *= 1 - 0.01 * 0.1;
                m2[i] = 0.9 * m2[i] + 0.1 * x;
                v2[i] = 0.99 * v2[i] + 0.01 * x * x;
                w2[i] -= 0.01 * m2[i] / (1 - pow(0.9, step)) / (sqrt(v2[i] / (1 - pow(0.99, step))) + 1e-8);
            }
        }
        for (int i = 0; i < N; i++) CHECK_MSG(fabs(w2[i] - (double)w[i]) < 1e-5, "element %d: %.9g, expected %.9g", i, (double)w[i], w2[i]);
        double sum = 0, norm = grad_norm(pool, g, N);
        for (int i = 0; i < N; i++) sum += (double)g[i] * (double)g[i];
        CHECK(fabs(norm - sqrt(sum)) < 1e-9 * norm);
        if (threads == 1) memcpy(first, w, sizeof w);
        seed = 1;
        pool_close(pool);
    }
    CHECK(!memcmp(first, w, sizeof w));
}

TEST(train_rates_rise_and_fall)
{
    struct schedule s = { SCHEDULE_COSINE, 110, 10, 1.0f, 0.1f };
    CHECK(schedule_rate(&s, 1) == 0.1f && schedule_rate(&s, 10) == 1.0f && schedule_rate(&s, 11) == 1.0f);
    CHECK(fabsf(schedule_rate(&s, 61) - 0.55f) < 1e-6f && schedule_rate(&s, 110) < 0.101f);
    s.kind = SCHEDULE_LINEAR;
    CHECK(fabsf(schedule_rate(&s, 61) - 0.55f) < 1e-6f);
    s.kind = SCHEDULE_CONSTANT;
    CHECK(schedule_rate(&s, 110) == 1.0f);
}

/* ---- states ---- */

enum { NUMBERS = 5 };

static void put_file(const char *path, const char *bytes, size_t n)
{
    FILE *f = fopen(path, "wb");
    CHECK(f && fwrite(bytes, 1, n, f) == n && fclose(f) == 0);
}

static status load(const char *path, struct err *e)
{
    float w[3][NUMBERS];
    struct train_state s = { .job = "a: 1\nb: 2", .n = NUMBERS, .w = w[0], .m = w[1], .v = w[2] };
    *e = (struct err){ 0 };
    status st = train_state_load(&s, path, e);
    train_state_close(&s);
    return st;
}

TEST(train_states_are_whole_or_refused)
{
    struct err e = { 0 };
    float w[3][NUMBERS] = { { 1, 2, 3 } };
    const char *path = test_tmp("train.state");
    struct train_state s = { .job = "a: 1\nb: 2", .n = NUMBERS, .w = w[0], .m = w[1], .v = w[2] };
    for (s.step = 0; s.step < 3; s.step++) CHECK(train_state_add(&s, &(struct train_point){ .step = s.step + 1 }, &e) == OK);
    CHECK(train_state_save(&s, path, &e) == OK && load(path, &e) == OK);
    char *bytes;
    size_t n;
    CHECK(file_text(path, 1 << 20, &bytes, &n, &e) == OK);
    for (size_t i = 0; i <= n; i++) { /* each byte changed; then one more */
        bytes[i] ^= 0x20;
        put_file(path, bytes, n + (i == n));
        CHECK_MSG(load(path, &e) == ERR_FORMAT && e.text[0], "byte %zu of %zu: %s", i, n, e.text); /* never "of another run" */
        bytes[i] ^= 0x20;
        put_file(path, bytes, i < n ? i : n);
        CHECK_MSG((load(path, &e) == OK) == (i == n), "%zu of %zu bytes", i, n);
    }
    mem_free(bytes);
    /* with a checksum that fits */
    const int64_t steps[] = { -1, 2, 4, INT64_MAX };
    for (int i = 0; i < ARRAY_LEN(steps); i++) {
        s.step = steps[i];
        CHECK(train_state_save(&s, path, &e) == OK && load(path, &e) == ERR_FORMAT && strstr(e.text, "rows of history"));
    }
    s.step = 3, s.row[1].step = 7;
    CHECK(train_state_save(&s, path, &e) == OK && load(path, &e) == ERR_FORMAT && strstr(e.text, "row 2 of the history is of step 7"));
    s.row[1].step = 2, s.job = "a: 1\nb: 3";
    CHECK(train_state_save(&s, path, &e) == OK && load(path, &e) == ERR_USAGE && strstr(e.text, "\"b: 3\", here it is \"b: 2\""));
    train_state_close(&s);
}

SUITE(train, T(train_gradients_are_the_slope_of_the_loss), T(train_gradients_pass_through_formats), T(train_all_weights_have_gradients),
      T(train_bits_do_not_depend_on_memory_and_threads), T(train_memory_does_not_grow_with_the_variety_of_lengths),
      T(train_packed_samples_do_not_see_each_other), T(train_begins_as_the_base_and_uses_what_engines_use),
      T(train_rejects_what_it_cannot_train), T(train_survives_every_failing_allocation), T(train_adamw_follows_its_formula), T(train_rates_rise_and_fall),
      T(train_states_are_whole_or_refused));
