/* test_export - small GGUF files as Hugging Face directories and back: the same weights, keys, vocabulary and token ids. transformers on both sides:
 * tests/oracle/export.py. */
#include "src/convert.h"
#include "src/cuanto.h"
#include "tests/test.h"
#include "tests/tiny.h"
#include <sys/stat.h>
#include <unistd.h>

static const char *tmp_path(const char *name, int slot)
{
    static char path[4][512];
    snprintf(path[slot], sizeof path[slot], "%s", test_tmp(name));
    return path[slot];
}

static status export_file(const char *gguf, const char *dir, const char *type, struct err *e)
{
    struct export *x;
    const struct export_options o = { .type = type ? dtype_by_name(type) : NULL, .n_threads = 2 };
    TRY(export_open(&x, gguf, &o, e));
    status st = export_write(x, dir, e);
    export_close(x);
    return st;
}

static status import_dir(const char *dir, const char *gguf, const char *type, struct err *e)
{
    struct convert *c;
    const struct convert_options o = { .type = type ? dtype_by_name(type) : NULL, .n_threads = 2 };
    TRY(convert_open(&c, dir, &o, e));
    status st = convert_write(c, gguf, e);
    convert_close(c);
    return st;
}

static void same_tensors(const struct gguf *a, const struct gguf *b, float bound)
{
    CHECK_MSG(a->n_tensors == b->n_tensors, "%lld tensors, then %lld", (long long)a->n_tensors, (long long)b->n_tensors);
    for (int64_t i = 0; i < a->n_tensors; i++) {
        const struct tensor *x = &a->tensor[i], *y = gguf_tensor(b, x->name);
        if (!y || tensor_elements(x) != tensor_elements(y)) {
            test_fail(__FILE__, __LINE__, "%s is %s", x->name, y ? "of another shape" : "missing");
            continue;
        }
        int64_t n = tensor_elements(x);
        float *p = malloc((size_t)n * 2 * sizeof *p), *q = p + n;
        dtype_to_f32(x->type, x->data, p, n);
        dtype_to_f32(y->type, y->data, q, n);
        for (int64_t k = 0; k < n; k++)
            if (!(fabsf(p[k] - q[k]) <= bound)) {
                test_fail(__FILE__, __LINE__, "%s: element %lld was %.9g, is %.9g", x->name, (long long)k, p[k], q[k]);
                break;
            }
        free(p);
    }
}

/* Every number and text under "<arch>.": in b as in a, or not written because it is what a reader takes anyway. */
static void same_keys(const struct gguf *a, const struct gguf *b, const char *arch)
{
    for (int64_t i = 0; i < a->n_kv; i++) {
        char key[128];
        float x, y;
        int64_t m, n;
        snprintf(key, sizeof key, "%.*s", (int)a->kv[i].key.n, a->kv[i].key.p);
        if (strncmp(key, arch, strlen(arch)) != 0 || !gguf_find(b, key)) continue;
        if (gguf_get_i64(a, key, INT64_MIN, INT64_MAX, &m, NULL)) CHECK_MSG(gguf_get_i64(b, key, INT64_MIN, INT64_MAX, &n, NULL) && m == n, "%s", key);
        else if (gguf_get_f32(a, key, &x, NULL)) CHECK_MSG(gguf_get_f32(b, key, &y, NULL) && x == y, "%s", key);
    }
}

static void same_ids(const struct model *a, const struct model *b)
{
    static const char *const texts[] = { "the other one, there on the inner rain",
                                         "  two\n\nlines\t12345 it's I'LL", "\xc3\xbc \xe6\xbc\xa2\xe5\xad\x97 \xf0\x9f\x99\x82" };
    for (int i = 0; i < ARRAY_LEN(texts); i++) {
        int32_t x[200], y[200];
        int64_t m = 0, n = 0;
        struct err e = { 0 };
        CHECK(tokenizer_encode(model_tokenizer(a), texts[i], strlen(texts[i]), ENCODE_BOS, x, 200, &m, &e) == OK);
        CHECK(tokenizer_encode(model_tokenizer(b), texts[i], strlen(texts[i]), ENCODE_BOS, y, 200, &n, &e) == OK);
        CHECK_MSG(m == n && m <= 200 && !memcmp(x, y, (size_t)m * sizeof *x), "%s: %lld and %lld tokens", texts[i], (long long)m, (long long)n);
    }
    struct str s = model_template(a), t = model_template(b);
    CHECK(s.n == t.n && (s.n == 0 || !memcmp(s.p, t.p, s.n)));
}

/* A number that a row and the architecture's own function write: once in config.json. */
static void put_expert_norm(struct gguf_writer *w, void *ctx) { gguf_put_i64(w, "qwen3moe.expert_weights_norm", KV_BOOL, 1); }

TEST(export_and_import_give_the_same_file)
{
    const struct {
        const char *name;
        struct tiny_options o;
        const char *type; /* of both ways */
        float bound;
    } rows[] = {
        { "llama", { .seed = 1 }, NULL, 0 },
        { "llama_f16", { .type = "f16" }, NULL, 0 },
        { "llama_bf16_tied", { .type = "bf16", .tied = true }, NULL, 0 },
        { "llama_of_sentencepiece", { .spm = true, .extra_rows = 20 }, NULL, 0 },
        { "llama_quantized", { .type = "q4_1" }, "f32", 0 },
        { "llama_as_halves", { .type = "q8_0" }, NULL, 2e-4f },
        { "mixtral", { .n_expert = 4 }, NULL, 0 },
        { "mistral", { .window = 32 }, NULL, 0 },
        { "qwen2", { .arch = "qwen2", .n_layer = 3 }, NULL, 0 },
        { "qwen3", { .arch = "qwen3", .head_dim = 24 }, NULL, 0 },
        { "qwen3moe", { .arch = "qwen3moe", .n_expert = 4 }, NULL, 0 },
        { "qwen3moe_with_norm", { .arch = "qwen3moe", .n_expert = 4, .more = put_expert_norm }, NULL, 0 },
        { "gemma3", { .arch = "gemma3", .n_layer = 7, .window = 16 }, NULL, 3e-7f },
    };
    for (int i = 0; i < ARRAY_LEN(rows); i++) {
        test_begin("export_and_import_give_the_same_file_%s", rows[i].name);
        const char *first = tmp_path("export_a.gguf", 0), *dir = tmp_path("export_hf", 1), *second = tmp_path("export_b.gguf", 2);
        struct err e = { 0 };
        struct model *a = NULL, *b = NULL;
        CHECK_MSG(tiny_model(first, &rows[i].o, &e) == OK, "%s", e.text);
        CHECK_MSG(export_file(first, dir, rows[i].type, &e) == OK, "%s", e.text);
        CHECK_MSG(import_dir(dir, second, rows[i].type, &e) == OK, "%s", e.text);
        CHECK_MSG(model_open(&a, first, &(struct model_options){ 0 }, &e) == OK, "%s", e.text);
        CHECK_MSG(model_open(&b, second, &(struct model_options){ 0 }, &e) == OK, "%s", e.text);
        if (a && b) {
            same_tensors(model_gguf(a), model_gguf(b), rows[i].bound);
            same_keys(model_gguf(a), model_gguf(b), rows[i].o.arch ? rows[i].o.arch : "llama");
            same_ids(a, b);
        }
        model_close(a);
        model_close(b);
    }
}

static void odd_rope_factors(struct gguf_writer *w, void *ctx)
{
    static float factors[8] = { 1, 3, 2, 9, 4, 7, 5, 6 };
    static struct tensor t;
    t.name = "rope_freqs.weight";
    t.data = factors;
    tensor_shape(&t, dtype_by_name("f32"), 8, 1, 1, 1);
    gguf_put_tensor(w, &t);
}

TEST(export_refuses_by_name)
{
    const struct { const char *name; struct tiny_options o; const char *type, *text; status code; } rows[] = {
        { "cut_weights", { .arch = "gpt-oss", .n_expert = 4 }, NULL, "architecture gpt-oss cannot be written as a checkpoint: its weights are cut",
          ERR_FORMAT },
        { "unknown_config", { .arch = "olmoe", .n_expert = 4 }, NULL, "architecture olmoe cannot be written as a checkpoint yet", ERR_FORMAT },
        { "quantized_output", { .seed = 1 }, "q8_0", "a checkpoint in Q8_0 cannot be written", ERR_USAGE },
        { "rope_factors", { .more = odd_rope_factors }, NULL, "rope_freqs.weight: not the factors of Llama 3.1", ERR_FORMAT },
    };
    for (int i = 0; i < ARRAY_LEN(rows); i++) {
        test_begin("export_refuses_%s", rows[i].name);
        const char *file = tmp_path("export_bad.gguf", 0), *dir = tmp_path("export_bad", 1);
        struct err e = { 0 };
        rmdir(dir);
        CHECK_MSG(tiny_model(file, &rows[i].o, &e) == OK, "%s", e.text);
        CHECK(export_file(file, dir, rows[i].type, &e) == rows[i].code);
        CHECK_HAS(e.text, rows[i].text);
        CHECK(access(dir, F_OK) != 0);
    }
}

TEST(export_survives_the_failure_of_every_allocation)
{
    const char *file = tmp_path("export_oom.gguf", 0), *dir = tmp_path("export_oom", 1);
    struct err e = { 0 };
    CHECK_MSG(tiny_model(file, &(struct tiny_options){ .type = "q4_0", .spm = true }, &e) == OK, "%s", e.text);
    int64_t n = 1;
    for (; n < 3000; n += 1 + n / 12) {
        e = (struct err){ 0 };
        mem_fail_at(n, false);
        status st = export_file(file, dir, NULL, &e);
        mem_fail_at(0, false);
        if (st == OK) break;
        CHECK_MSG(e.code == ERR_MEMORY, "allocation %lld: %d %s", (long long)n, (int)e.code, e.text);
    }
    CHECK_MSG(n < 3000, "never succeeded");
}

SUITE(export, T(export_and_import_give_the_same_file), T(export_refuses_by_name), T(export_survives_the_failure_of_every_allocation));
