/* test_latent - DeepSeek's latent attention: files that keep its two maps apart (absorbed: one short row is cached for all heads) and files
 * that keep them in one matrix (unfolded: keys and values of every head are cached) are the same model. */
#include "ggml-like/gguf.h"
#include "src/cuanto.h"
#include "src/model_int.h"
#include "tests/test.h"
#include "tests/tiny.h"

enum { TOKENS = 40, HEAD = 16, HEADS = 4 };

/* attn_kv_b: for each head, its rows of K (transposed: here K keeps [c][row]), then its rows of V. */
static void join_maps(const struct gguf *g, struct gguf_writer *w, const struct tensor *k, struct arena *a)
{
    char name[64];
    int il = atoi(k->name + strlen("blk."));
    snprintf(name, sizeof name, "blk.%d.attn_v_b.weight", il);
    const struct tensor *v = gguf_tensor(g, name);
    int64_t nope = k->ne[0], c = k->ne[1], n_head = k->ne[2], dv = v->ne[1];
    float *x = arena_alloc(a, (size_t)(n_head * (nope + dv) * c) * sizeof *x), *to = x;
    const float *from_k = k->data, *from_v = v->data;
    for (int64_t h = 0; h < n_head; h++) {
        for (int64_t i = 0; i < nope; i++)
            for (int64_t j = 0; j < c; j++) *to++ = from_k[(h * c + j) * nope + i];
        for (int64_t i = 0; i < dv * c; i++) *to++ = from_v[h * dv * c + i];
    }
    struct tensor t = { 0 };
    tensor_shape(&t, k->type, c, n_head * (nope + dv), 1, 1);
    snprintf(name, sizeof name, "blk.%d.attn_kv_b.weight", il);
    t.name = arena_strdup(a, name, strlen(name));
    t.data = x;
    gguf_put_tensor(w, &t);
}

static bool ends(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && !strcmp(s + n - m, end);
}

/* The absorbed file `from` as older converters wrote it. */
static void unfold_model(const char *from, const char *to)
{
    struct gguf g;
    struct gguf_writer *w;
    struct arena a;
    struct err e = { 0 };
    arena_init(&a, 0);
    CHECK_MSG(gguf_open(&g, from, true, &e) == OK && gguf_writer_open(&w, to, &e) == OK, "%s", e.text);
    if (e.code != OK) return;
    for (int64_t i = 0; i < g.n_kv; i++) {
        char key[96];
        snprintf(key, sizeof key, "%.*s", (int)g.kv[i].key.n, g.kv[i].key.p);
        if (ends(key, "_length_mla")) continue;
        if (ends(key, ".head_count_kv")) gguf_put_i64(w, key, KV_U32, HEADS);
        else if (ends(key, ".key_length")) gguf_put_i64(w, key, KV_U32, 2 * HEAD);
        else if (ends(key, ".value_length")) gguf_put_i64(w, key, KV_U32, HEAD);
        else gguf_put_kv(w, &g.kv[i]);
    }
    for (int64_t i = 0; i < g.n_tensors; i++) {
        const struct tensor *t = &g.tensor[i];
        if (ends(t->name, "attn_k_b.weight")) join_maps(&g, w, t, &a);
        else if (!ends(t->name, "attn_v_b.weight")) gguf_put_tensor(w, t);
    }
    CHECK_MSG(gguf_writer_finish(w, &e) == OK, "%s", e.text);
    gguf_close(&g);
    arena_free(&a);
}

struct sink {
    float *out;
    int64_t row0;
};

static void keep_row(void *ctx, int seg, int64_t row, const float *logits)
{
    const struct sink *s = ctx;
    memcpy(s->out + (s->row0 + row) * TINY_TOKENS, logits, TINY_TOKENS * sizeof *logits);
}

/* Logits of TOKENS tokens, `step` in a pass. Returns the bytes of the session. */
static size_t logits_of(const char *path, int64_t step, int threads, bool precise, const struct dtype *kv, float *out)
{
    struct model *m;
    struct engine *en;
    struct session *s;
    struct err e = { 0 };
    int32_t token[TOKENS];
    for (int i = 0; i < TOKENS; i++) token[i] = (i * 37 + 11) % TINY_TOKENS;
    if (model_open(&m, path, &(struct model_options){ 0 }, &e) != OK) {
        test_fail(__FILE__, __LINE__, "%s", e.text);
        return 0;
    }
    CHECK(engine_open(&en, m, &(struct engine_options){ .n_threads = threads, .precise = precise }, &e) == OK);
    CHECK(session_open(&s, en, &(struct session_options){ .n_ctx = 64, .kv_type = kv }, &e) == OK);
    for (int64_t at = 0; at < TOKENS; at += step) {
        struct sink sink = { out, at };
        CHECK(engine_forward(en, &(struct segment){ s, token + at, min_i64(step, TOKENS - at), 0 }, 1, keep_row, &sink, &e) == OK);
    }
    size_t bytes = session_bytes(s);
    session_close(s);
    engine_close(en);
    model_close(m);
    return bytes;
}

static double gap(const float *a, const float *b)
{
    double worst = 0, size = 0;
    for (int i = 0; i < TOKENS * TINY_TOKENS; i++) {
        double d = fabs((double)a[i] - (double)b[i]), x = fabs((double)a[i]);
        if (!(d <= worst)) worst = d; /* NaN counts; not fmax: gcc 12 for aarch64 crashes on that reduction */
        if (x > size) size = x;
    }
    return size > 0 ? worst / size : INFINITY;
}

static int by_size(const void *a, const void *b) { return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b); }

/* The deviation of b from a in deviations of a, three quarters of the tokens have less. Where two experts are as good, rounding chooses: for one of the 40
 * here with BF16, for more with 8 bits at the levels of aarch64, where the third largest is 0.0214. */
static double upper_rms(const float *a, const float *b)
{
    double each[TOKENS];
    for (int t = 0; t < TOKENS; t++, a += TINY_TOKENS, b += TINY_TOKENS) {
        double d = 0, size = 0;
        for (int i = 0; i < TINY_TOKENS; i++) {
            d += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
            size += (double)a[i] * (double)a[i];
        }
        each[t] = size > 0 && !isnan(d) ? sqrt(d / size) : INFINITY;
    }
    qsort(each, TOKENS, sizeof each[0], by_size);
    return each[TOKENS * 3 / 4];
}

TEST(latent_attention_unfolded_equals_absorbed)
{
    static float a[TOKENS * TINY_TOKENS], b[TOKENS * TINY_TOKENS];
    struct err e = { 0 };
    char absorbed[256], unfolded[256];
    snprintf(absorbed, sizeof absorbed, "%s", test_tmp("absorbed.gguf"));
    snprintf(unfolded, sizeof unfolded, "%s", test_tmp("unfolded.gguf"));
    CHECK_MSG(tiny_model(absorbed, &(struct tiny_options){ .arch = "deepseek2", .n_expert = 6, .head_dim = HEAD, .n_head = HEADS }, &e) ==
                  OK,
              "%s", e.text);
    unfold_model(absorbed, unfolded);
    size_t one = logits_of(absorbed, TOKENS, 2, true, dtype_by_name("f32"), a), all = logits_of(unfolded, TOKENS, 2, true, dtype_by_name("f32"), b);
    CHECK_NEAR(gap(a, b), 0, 1e-5);
    /* a row of 16 + 16 elements against 4 heads of 32 and of 16, in both layers */
    CHECK_MSG(all == 6 * one, "%zu bytes unfolded, %zu absorbed", all, one);
}

/* GLM-4.7-Lite's files have a bias of the choice and no expert_gating_func: a sigmoid. Files from before V3 have neither. */
TEST(latent_routers_with_a_bias_of_the_choice_have_a_sigmoid)
{
    for (int bias = 0; bias < 2; bias++) {
        struct err e = { 0 };
        struct model *m = NULL;
        const char *path = test_tmp("gating.gguf");
        const struct tiny_options o = { .arch = "deepseek2", .n_expert = 6, .head_dim = HEAD, .n_head = HEADS, .optional = bias,
                                        .drop_key = "deepseek2.expert_gating_func" };
        CHECK_MSG(tiny_model(path, &o, &e) == OK && model_open(&m, path, &(struct model_options){ 0 }, &e) == OK, "%s", e.text);
        if (m) CHECK_MSG(m->hp.expert_func == (bias ? ROUTE_SIGMOID : ROUTE_SOFTMAX), "%lld", (long long)m->hp.expert_func);
        model_close(m);
    }
}

TEST(latent_attention_does_not_depend_on_passes_and_threads)
{
    static float a[TOKENS * TINY_TOKENS], b[TOKENS * TINY_TOKENS];
    struct err e = { 0 };
    const char *types[] = { "f32", "q8_0" };
    for (int i = 0; i < 2; i++) {
        const char *path = test_tmp("latent.gguf");
        struct tiny_options o = { .arch = "deepseek2", .type = types[i], .n_expert = 6, .head_dim = 32, .n_head = HEADS };
        CHECK_MSG(tiny_model(path, &o, &e) == OK, "%s", e.text);
        for (int kv = 0; kv < 2; kv++) {
            const struct dtype *type = kv ? dtype_by_name("q8_0") : dtype_by_name("f32");
            test_begin("latent_attention_does_not_depend_on_passes_and_threads %s, cache %s", types[i], type->name);
            for (int precise = 0; precise < 2; precise++) {
                logits_of(path, TOKENS, 1, precise, type, a);
                logits_of(path, TOKENS, 3, precise, type, b);
                CHECK(!memcmp(a, b, sizeof a));
            }
            logits_of(path, 1, 2, true, type, b);
            CHECK_NEAR(gap(a, b), 0, kv ? 2e-2 : i ? 1e-3 : 1e-5);
            logits_of(path, 7, 2, true, type, b);
            CHECK_NEAR(gap(a, b), 0, kv ? 2e-2 : i ? 1e-3 : 1e-5);
            if (kv) continue;
            logits_of(path, 7, 2, false, type, b);
            if (i) CHECK_NEAR(upper_rms(a, b), 0, 0.02);
            else CHECK_NEAR(gap(a, b), 0, 1e-5);
        }
    }
}

SUITE(latent, T(latent_attention_unfolded_equals_absorbed), T(latent_routers_with_a_bias_of_the_choice_have_a_sigmoid),
      T(latent_attention_does_not_depend_on_passes_and_threads));
