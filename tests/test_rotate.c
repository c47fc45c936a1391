/* test_rotate - models turned by src/rotate.h beyond what test_archs does with every architecture: widths that are no power of two, formats, threads, seeds;
 * what is refused. */
#include "src/cuanto.h"
#include "tests/golden_model.h"
#include "tests/test.h"
#include "tests/tiny.h"

enum { PROMPT = 12 };

static const struct tiny_options odd = { .n_embd = 72, .n_head = 6, .n_head_kv = 2, .head_dim = 24, .n_ff = 80, .optional = true, .outlier = 30 };

static struct rotate_options plain(void) { return (struct rotate_options){ .seed = 1, .type = dtype_by_name("f32"), .n_threads = 1 }; }

static struct model *open_file(const char *path)
{
    struct err e = { 0 };
    struct model *m = NULL;
    if (model_open(&m, path, &(struct model_options){ 0 }, &e) != OK) test_fail(__FILE__, __LINE__, "%s", e.text);
    return m;
}

static struct model *make(const char *name, const struct tiny_options *o)
{
    struct err e = { 0 };
    const char *path = test_tmp(name);
    if (tiny_model(path, o, &e) != OK) test_fail(__FILE__, __LINE__, "%s", e.text);
    return open_file(path);
}

/* Rotates m into a file; the status, its text in e. */
static status turn(const struct model *m, const struct rotate_options *o, const char *path, struct err *e)
{
    struct rotate *r = NULL;
    status st = rotate_open(&r, m, "some/model.gguf", o, e);
    if (st == OK) st = rotate_write(r, path, e);
    rotate_close(r);
    return st;
}

static void logits(const struct model *m, float *y)
{
    static struct golden g;
    struct err e = { 0 };
    g.n = PROMPT;
    for (int i = 0; i < PROMPT; i++) g.ids[i] = (7 * i * i + 3 * i) % TINY_TOKENS;
    CHECK_MSG(golden_run(m, NULL, &g, PROMPT, y, TINY_TOKENS, &e) == OK, "%s", e.text);
}

/* The largest difference of two models' logits, of the largest logit. */
static double apart(const struct model *a, const struct model *b)
{
    static float x[PROMPT * TINY_TOKENS], y[PROMPT * TINY_TOKENS];
    float top = 0, worst = 0;
    logits(a, x), logits(b, y);
    for (int i = 0; i < ARRAY_LEN(x); i++) {
        if (fabsf(x[i]) > top) top = fabsf(x[i]);
        if (!(fabsf(x[i] - y[i]) <= worst)) worst = fabsf(x[i] - y[i]);
    }
    return (double)worst / (double)top;
}

static double apart_after(const struct model *m, const struct rotate_options *o, const char *name)
{
    struct err e = { 0 };
    const char *path = test_tmp(name);
    CHECK_MSG(turn(m, o, path, &e) == OK, "%s", e.text);
    struct model *t = e.code ? NULL : open_file(path);
    double off = t ? apart(m, t) : 1;
    model_close(t);
    return off;
}

TEST(rotate_keeps_logits_for_odd_widths_and_formats)
{
    struct model *m = make("odd.gguf", &odd);
    struct rotate_options o = plain();
    double off = apart_after(m, &o, "odd_f32.gguf");
    CHECK_MSG(off < 2e-5, "logits are off by %.2g", off);
    model_close(m);
    struct tiny_options half = odd;
    half.type = "f16", half.n_expert = 4, half.arch = "qwen2moe";
    m = make("odd16.gguf", &half);
    off = apart_after(m, &o, "odd16_f32.gguf");
    CHECK_MSG(off < 2e-5, "experts: logits are off by %.2g", off);
    o.type = dtype_by_name("f16");
    off = apart_after(m, &o, "odd16_f16.gguf");
    CHECK_MSG(off < 5e-3 && off > 0, "halves: logits are off by %.2g", off);
    model_close(m);
}

static bool same_files(const char *a, const char *b)
{
    char *x = NULL, *y = NULL;
    size_t n = 0, k = 0;
    struct err e = { 0 };
    bool same = file_text(a, 1 << 26, &x, &n, &e) == OK && file_text(b, 1 << 26, &y, &k, &e) == OK && n == k && !memcmp(x, y, n);
    mem_free(x), mem_free(y);
    return same;
}

TEST(rotate_depends_on_the_seed_not_on_threads)
{
    struct model *m = make("seed.gguf", &odd);
    struct err e = { 0 };
    struct rotate_options o = plain();
    char one[600], many[600];
    snprintf(one, sizeof one, "%s", test_tmp("seed_1.gguf"));
    snprintf(many, sizeof many, "%s", test_tmp("seed_3.gguf"));
    CHECK(turn(m, &o, one, &e) == OK);
    o.n_threads = 3;
    CHECK(turn(m, &o, many, &e) == OK);
    CHECK(same_files(one, many));
    o.seed = 2;
    CHECK(turn(m, &o, many, &e) == OK);
    CHECK(!same_files(one, many));
    model_close(m);
    m = open_file(one);
    CHECK(turn(m, &o, many, &e) == ERR_USAGE);
    CHECK_STR(e.text, "model.gguf: is rotated already");
    model_close(m);
}

static void refused(const struct model *m, struct rotate_options o, status want, const char *text)
{
    struct err e = { 0 };
    struct file_facts f;
    const char *path = test_tmp("rotate_refused.gguf");
    status st = turn(m, &o, path, &e);
    CHECK_MSG(st == want, "status %d, expected %d: %s", (int)st, (int)want, e.text);
    CHECK_HAS(e.text, text);
    CHECK(!file_stat(path, &f));
}

TEST(rotate_refuses_what_it_would_spoil)
{
    struct tiny_options t = { .tied = true };
    struct rotate_options o = plain(), values = plain();
    struct model *m = make("tied.gguf", &t);
    refused(m, o, ERR_USAGE, "model.gguf: token_embd.weight is the head, too");
    values.no_r1 = true;
    CHECK(apart_after(m, &values, "tied_r2.gguf") < 2e-5);
    o.untie = true;
    CHECK(apart_after(m, &o, "untied.gguf") < 2e-5);
    o.no_r1 = o.no_r2 = true;
    refused(m, o, ERR_USAGE, "model.gguf: nothing to rotate");
    o = plain(), o.type = dtype_by_name("q8_0");
    refused(m, o, ERR_USAGE, "F32, F16 or BF16, not Q8_0");
    model_close(m);
    t = (struct tiny_options){ .type = "q8_0" };
    m = make("quantized.gguf", &t);
    o = plain();
    refused(m, o, ERR_USAGE, "is Q8_0: rotated and quantized again, it is rounded twice; --allow-requantize writes F32");
    o.allow_requantize = true;
    CHECK(apart_after(m, &o, "requantized.gguf") < 0.02); /* activations of Q8_0 matrices have 8 bits themselves */
    model_close(m);
    t = (struct tiny_options){ .poison = "blk.1.ffn_down.weight" };
    m = make("nan.gguf", &t);
    refused(m, plain(), ERR_FORMAT, "model.gguf: blk.1.ffn_down.weight: row 1, column ");
    model_close(m);
}

TEST(rotate_names_values_that_are_too_large_for_the_type)
{
    struct tiny_options t = { .type = "f16" };
    struct model *m = make("large.gguf", &t);
    struct rotate_options o = plain();
    const struct gguf *g = model_gguf(m);
    const struct tensor *norm = gguf_tensor(g, "blk.0.attn_norm.weight");
    const long at = (long)((const uint8_t *)norm->data - g->file.data);
    const char *path = test_tmp("large2.gguf");
    const float large = 1e9f;
    FILE *f = fopen(path, "wb");
    CHECK(f && fwrite(g->file.data, g->file.size, 1, f) == 1 && fseek(f, at, SEEK_SET) == 0 && fwrite(&large, sizeof large, 1, f) == 1 && fclose(f) == 0);
    model_close(m);
    m = open_file(path);
    o.type = dtype_by_name("f16");
    refused(m, o, ERR_FORMAT, " when turned, expected less than 65520");
    o.type = dtype_by_name("f32");
    CHECK(apart_after(m, &o, "large_f32.gguf") < 1e-3);
    model_close(m);
}

TEST(rotate_survives_failing_allocations)
{
    struct model *m = make("alloc.gguf", &(struct tiny_options){ 0 });
    struct rotate_options o = plain();
    const char *path = test_tmp("alloc_turned.gguf");
    status st = ERR_MEMORY;
    int64_t n = 1;
    for (; st != OK && n < 2000; n++) {
        struct err e = { 0 };
        mem_fail_at(n, true);
        st = turn(m, &o, path, &e);
        mem_fail_at(0, false);
        CHECK_MSG(st == OK || e.code == ERR_MEMORY, "%s", e.text);
        if (st != OK && e.code != ERR_MEMORY) break;
    }
    CHECK(st == OK && n > 10);
    model_close(m);
}

SUITE(rotate, T(rotate_keeps_logits_for_odd_widths_and_formats),
      T(rotate_depends_on_the_seed_not_on_threads), T(rotate_refuses_what_it_would_spoil), T(rotate_names_values_that_are_too_large_for_the_type),
      T(rotate_survives_failing_allocations));
