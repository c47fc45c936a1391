/* test_session - sessions on disk and copies of them: the same bits as if they had never been away, and files that are refused. */
#include "ggml-like/file.h"
#include "src/cuanto.h"
#include "tests/test.h"
#include "tests/tiny.h"

enum { N = 24, MORE = 5 };

struct rig {
    struct model *m;
    struct engine *en;
};

static struct rig open_rig(const struct tiny_options *o, const char *file)
{
    struct err e = { 0 };
    struct rig r = { 0 };
    const char *path = test_tmp(file);
    if (tiny_model(path, o, &e) != OK || model_open(&r.m, path, &(struct model_options){ 0 }, &e) != OK ||
        engine_open(&r.en, r.m, &(struct engine_options){ .n_threads = 2, .n_batch = 32 }, &e) != OK)
        test_fail(__FILE__, __LINE__, "%s", e.text);
    return r;
}

static void close_rig(struct rig *r)
{
    engine_close(r->en);
    model_close(r->m);
}

static struct session *open_session(struct engine *en, int64_t n_ctx, const char *k, const char *v)
{
    struct err e = { 0 };
    struct session *s = NULL;
    struct session_options o = { .n_ctx = n_ctx, .k_type = dtype_by_name(k), .v_type = dtype_by_name(v) };
    if (session_open(&s, en, &o, &e) != OK) test_fail(__FILE__, __LINE__, "%s", e.text);
    return s;
}

static void pick(int32_t *t, int64_t n)
{
    uint64_t seed = 11;
    for (int64_t i = 0; i < n; i++) t[i] = (int32_t)(test_rand(&seed) % TINY_TOKENS);
}

/* Feeds MORE tokens one by one; out [MORE][vocabulary]. */
static void go_on(struct session *s, struct engine *en, const int32_t *t, float *out)
{
    struct err e = { 0 };
    for (int i = 0; i < MORE; i++) {
        CHECK_MSG(session_feed(s, t + i, 1, NULL, NULL, &e) == OK, "%s", e.text);
        memcpy(out + i * TINY_TOKENS, engine_logits(en), TINY_TOKENS * sizeof(float));
    }
}

TEST(session_goes_on_from_a_file_or_a_copy_with_the_same_bits)
{
    static const struct {
        const char *arch, *k, *v;
        int64_t n_ctx;
    } rows[] = { { "llama", "f16", "f16", 40 }, { "qwen2", "q8_0", "f32", 200 }, { "gemma3", "q4_0", "bf16", N + MORE }, { "llama", "f16", "q4_0", 64 } };
    for (int i = 0; i < ARRAY_LEN(rows); i++) {
        static float want[MORE * TINY_TOKENS], got[MORE * TINY_TOKENS];
        struct tiny_options o = { .arch = rows[i].arch, .type = "q8_0", .head_dim = 32, .window = strcmp(rows[i].arch, "gemma3") ? 0 : 8 };
        struct rig r = open_rig(&o, "session.gguf");
        struct session *a = open_session(r.en, 64, rows[i].k, rows[i].v), *b = open_session(r.en, rows[i].n_ctx, rows[i].k, rows[i].v);
        struct session *c = open_session(r.en, rows[i].n_ctx, rows[i].k, rows[i].v);
        const char *path = test_tmp("session.bin");
        struct err e = { 0 };
        int32_t t[N + MORE];
        char *note = NULL;
        size_t n_note = 0;
        pick(t, N + MORE);
        CHECK_MSG(session_feed(a, t, N, NULL, NULL, &e) == OK, "%s", e.text);
        CHECK_MSG(session_save(a, path, "a\0b", 3, &e) == OK, "%s", e.text);
        CHECK_MSG(session_copy(c, a, 0, &e) == OK, "%s", e.text);
        go_on(a, r.en, t + N, want);
        CHECK(session_feed(b, t + 3, 7, NULL, NULL, &e) == OK); /* something else before */
        CHECK_MSG(session_load(b, path, &note, &n_note, &e) == OK, "%s", e.text);
        CHECK(n_note == 3 && !memcmp(note, "a\0b", 4));
        mem_free(note);
        struct session *const twins[] = { b, c };
        for (int j = 0; j < 2; j++) {
            CHECK(session_pos(twins[j]) == N && !memcmp(session_tokens(twins[j]), t, N * sizeof *t));
            go_on(twins[j], r.en, t + N, got);
            CHECK_MSG(!memcmp(want, got, sizeof want), "%s %s/%s: %s differs", rows[i].arch, rows[i].k, rows[i].v, j ? "the copy" : "the file");
        }
        CHECK(session_truncate(a, N + 2, NULL) == OK && session_truncate(c, N - 1, NULL) == OK && session_copy(c, a, N - 1, &e) == OK);
        CHECK(session_pos(c) == N + 2 && session_copy(c, a, N + 3, NULL) == ERR_USAGE);
        CHECK(session_feed(c, t + N + 2, 1, NULL, NULL, &e) == OK);
        CHECK(!memcmp(want + 2 * TINY_TOKENS, engine_logits(r.en), TINY_TOKENS * sizeof(float)));
        CHECK(session_truncate(a, 0, NULL) == OK && session_save(a, path, NULL, 0, &e) == OK);
        CHECK_MSG(session_load(b, path, NULL, NULL, &e) == OK && session_pos(b) == 0, "%s", e.text);
        session_close(a), session_close(b), session_close(c);
        close_rig(&r);
    }
}

/* A small file, so that every byte of it can be tried. */
static char *small_file(struct rig *r, struct session **s, const char *path, size_t *n)
{
    struct err e = { 0 };
    char *bytes = NULL;
    int32_t t[3];
    pick(t, 3);
    *r = open_rig(&(struct tiny_options){ .n_layer = 1, .n_head_kv = 1, .head_dim = 8 }, "session_small.gguf");
    *s = open_session(r->en, 16, "f16", "f16");
    CHECK(session_feed(*s, t, 3, NULL, NULL, &e) == OK && session_save(*s, path, "note", 4, &e) == OK);
    CHECK(file_text(path, 1 << 16, &bytes, n, &e) == OK);
    return bytes;
}

static status load_bytes(struct session *s, const char *path, const char *p, size_t n, struct err *e)
{
    FILE *f = fopen(path, "wb");
    *e = (struct err){ 0 };
    if (!f || fwrite(p, 1, n, f) != n || fclose(f) != 0) return ERR_RUNTIME;
    return session_load(s, path, NULL, NULL, e);
}

TEST(session_load_refuses_a_file_cut_anywhere_or_with_any_byte_changed)
{
    struct rig r;
    struct session *s;
    const char *path = test_tmp("session_small.bin");
    size_t n = 0;
    char *bytes = small_file(&r, &s, path, &n);
    struct err e;
    CHECK(n > 80 + 12 + 4 + 8 && n < 400);
    for (size_t cut = 0; cut < n; cut++) {
        CHECK_MSG(load_bytes(s, path, bytes, cut, &e) == ERR_FORMAT, "cut at %zu: %s", cut, e.text);
        CHECK(strstr(e.text, path));
    }
    for (size_t i = 0; i < n; i++) {
        bytes[i] ^= 4;
        status st = load_bytes(s, path, bytes, n, &e);
        CHECK_MSG(st == ERR_FORMAT || st == ERR_USAGE, "byte %zu changed: status %d %s", i, st, e.text);
        bytes[i] ^= 4;
    }
    CHECK_MSG(load_bytes(s, path, bytes, n, &e) == OK && session_pos(s) == 3, "%s", e.text);
    mem_free(bytes);
    session_close(s);
    close_rig(&r);
}

TEST(session_load_names_what_does_not_fit)
{
    struct rig r, other;
    struct session *s;
    const char *path = test_tmp("session_fit.bin");
    size_t n = 0;
    char *bytes = small_file(&r, &s, path, &n);
    struct err e = { 0 };
    struct session *q8 = open_session(r.en, 16, "f16", "f32"), *narrow = open_session(r.en, 2, "f16", "f16");
    CHECK(session_load(q8, path, NULL, NULL, &e) == ERR_FORMAT);
    CHECK_HAS(e.text, "KV types F16 and F16 in the session, F16 and F32 now");
    e = (struct err){ 0 };
    CHECK(session_load(narrow, path, NULL, NULL, &e) == ERR_USAGE);
    CHECK_HAS(e.text, "the session has 3 tokens, the context has room for 2");
    e = (struct err){ 0 };
    CHECK(session_copy(q8, s, 0, &e) == ERR_USAGE && session_copy(narrow, s, 0, NULL) == ERR_USAGE);
    CHECK_HAS(e.text, "F32");
    e = (struct err){ 0 };
    CHECK(session_load(s, test_tmp("no_such.bin"), NULL, NULL, &e) == ERR_FILE);
    /* the same shapes, other weights */
    other = open_rig(&(struct tiny_options){ .n_layer = 1, .n_head_kv = 1, .head_dim = 8, .seed = 5 }, "session_other.gguf");
    struct session *o = open_session(other.en, 16, "f16", "f16");
    e = (struct err){ 0 };
    CHECK(session_load(o, path, NULL, NULL, &e) == ERR_FORMAT);
    CHECK_HAS(e.text, "another model");
    mem_free(bytes);
    session_close(s), session_close(q8), session_close(narrow), session_close(o);
    close_rig(&r), close_rig(&other);
}

/* LongRoPE has two sets of factors, and the context picks one: keys that were turned by the other are of no use. */
TEST(session_of_another_context_of_longrope_is_refused)
{
    static const int64_t n_ctx[] = { 64, 256 }; /* the original one is 128 */
    const char *path = test_tmp("longrope.gguf"), *file = test_tmp("longrope.bin");
    struct err e = { 0 };
    CHECK_MSG(tiny_model(path, &(struct tiny_options){ .arch = "phi3", .optional = true }, &e) == OK, "%s", e.text);
    for (int i = 0; i < ARRAY_LEN(n_ctx); i++) {
        struct rig r = { 0 };
        CHECK_MSG(model_open(&r.m, path, &(struct model_options){ .n_ctx = n_ctx[i] }, &e) == OK, "%s", e.text);
        CHECK_MSG(engine_open(&r.en, r.m, &(struct engine_options){ .n_threads = 1, .n_batch = 32 }, &e) == OK, "%s", e.text);
        struct session *s = open_session(r.en, n_ctx[i], "f16", "f16");
        int32_t t[N];
        pick(t, N);
        if (i == 0) CHECK(session_feed(s, t, N, NULL, NULL, &e) == OK && session_save(s, file, NULL, 0, &e) == OK);
        CHECK(session_load(s, file, NULL, NULL, &e) == (i == 0 ? OK : ERR_FORMAT));
        if (i == 1) CHECK_HAS(e.text, "other positions: the options --rope-* differ, or the context, by which longrope");
        session_close(s);
        close_rig(&r);
    }
}

SUITE(session, T(session_goes_on_from_a_file_or_a_copy_with_the_same_bits), T(session_load_refuses_a_file_cut_anywhere_or_with_any_byte_changed),
      T(session_load_names_what_does_not_fit),
      T(session_of_another_context_of_longrope_is_refused));
