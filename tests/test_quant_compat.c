/* The method "compat": the bytes of golden/compat.txt, which the ggml library made (golden/compat.py has the same rows in Python); files; refusals. */
#include "quant/compat.h"
#include "quant/quant.h"
#include "tests/test.h"
#include "tests/tiny.h"
#include <unistd.h>

enum { N = 768, SEED = 5, FORMATS_MIN = 27 };

/* ---- rows ---- */

static float plain(float a, float b, int i) { return a * 0x1p-5f; }
static float tails(float a, float b, int i) { return a * b * b; }
static float positive(float a, float b, int i) { return fabsf(a) + 0.5f; }
static float ties(float a, float b, int i) { return truncf(a * 8.0f) * 0.125f; }
static float holes(float a, float b, int i) { return i / 32 % 3 == 1 ? 0.0f : a; }
static float tall(float a, float b, int i) { return i % 64 == 9 ? a * 64.0f : b * 0x1p-10f; }
static float small(float a, float b, int i) { return a * 0x1p-40f; }
static float denormal(float a, float b, int i) { return a * 0x1p-130f; }
static float constant(float a, float b, int i) { return 0.375f; }
static float alternating(float a, float b, int i) { return i % 2 ? 0.5f : -0.5f; }
static float one(float a, float b, int i) { return (float)(i == 300); }
static float zero(float a, float b, int i) { return 0.0f; }

static const struct {
    const char *name;
    float (*of)(float a, float b, int i);
} kinds[] = {
    { "plain", plain }, { "tails", tails },       { "positive", positive }, { "ties", ties },               { "holes", holes }, { "tall", tall },
    { "small", small }, { "denormal", denormal }, { "constant", constant }, { "alternating", alternating }, { "one", one },     { "zero", zero },
};

struct rows { float x[N], w[N], some[N]; };

static bool fill(struct rows *r, const char *kind)
{
    uint64_t seed = SEED;
    int k = 0;
    while (k < ARRAY_LEN(kinds) && strcmp(kinds[k].name, kind)) k++;
    if (k == ARRAY_LEN(kinds)) return false;
    for (int i = 0; i < N; i++) {
        float a = test_randf(&seed), b = test_randf(&seed), c = test_randf(&seed);
        r->x[i] = kinds[k].of(a, b, i);
        r->w[i] = 0x1p-6f + c * c;
        r->some[i] = i % 5 == 0 || i / 32 % 4 == 2 ? 0.0f : r->w[i];
    }
    return true;
}

static uint64_t fnv(uint64_t h, const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++) h = (h ^ p[i]) * 1099511628211u;
    return h;
}

static const void *prepare_all(struct arena *mem)
{
    bool made[DTYPE_IDS];
    const void *prepared = NULL;
    struct err e = { 0 };
    for (int i = 0; i < DTYPE_IDS; i++) made[i] = true;
    CHECK_MSG(quantizer_compat.prepare(made, mem, &prepared, &e) == OK, "%s", e.text);
    return prepared;
}

static bool needs_importance(const struct dtype *t)
{
    return t->gguf_id == GGUF_IQ2_XXS || t->gguf_id == GGUF_IQ2_XS || t->gguf_id == GGUF_IQ1_S;
}

static void check_line(const char *line, const void *prepared)
{
    static struct rows r;
    static uint8_t out[4 * N];
    char type[16], kind[16];
    unsigned long long expected;
    if (sscanf(line, "%15s %15s %llx", type, kind, &expected) != 3 || !fill(&r, kind)) {
        test_fail(__FILE__, __LINE__, "bad golden line: %.60s", line);
        return;
    }
    struct quant_spec s = { .type = dtype_by_name(type), .prepared = prepared };
    CHECK_MSG(s.type, "%s", type);
    if (!s.type) return;
    uint64_t h = 14695981039346656037u;
    const float *const weights[] = { NULL, r.w, r.some };
    for (int i = needs_importance(s.type); i < ARRAY_LEN(weights); i++) {
        quantizer_compat.rows(&s, NULL, 0, 0, r.x, weights[i], 1, N, out, NULL);
        h = fnv(h, out, dtype_row_bytes(s.type, N));
    }
    CHECK_MSG(h == expected, "%s: hash %016llx, expected %016llx", kind, (unsigned long long)h, expected);
}

/* One claim a format. */
TEST(compat_equals_the_reference)
{
    char *text, before[16] = "";
    size_t n;
    int lines = 0, formats = 0;
    struct err e = { 0 };
    struct arena mem;
    arena_init(&mem, 0);
    if (file_text("tests/golden/compat.txt", 1 << 20, &text, &n, &e) != OK) {
        test_fail(__FILE__, __LINE__, "%s", e.text);
        return;
    }
    const void *prepared = prepare_all(&mem);
    for (char *line = text, *end; (end = strchr(line, '\n')); line = end + 1, lines++) {
        char type[16] = "";
        *end = 0;
        sscanf(line, "%15s", type);
        if (strcmp(type, before)) test_begin("compat_equals_the_reference %s", type), formats++;
        memcpy(before, type, sizeof type);
        check_line(line, prepared);
    }
    CHECK_MSG(lines >= FORMATS_MIN * ARRAY_LEN(kinds) && formats >= FORMATS_MIN, "%d lines, %d formats", lines, formats);
    mem_free(text);
    arena_free(&mem);
}

/* Whatever the searches make, and rows one by one as all at once. */
TEST(compat_makes_every_format)
{
    enum { ROWS = 3 };
    static uint8_t together[ROWS * 4 * N], apart[ROWS * 4 * N];
    static float x[ROWS * N];
    static struct rows r;
    struct quant_kernels k;
    struct arena mem;
    uint64_t seed = 77;
    arena_init(&mem, 0);
    const void *prepared = prepare_all(&mem);
    quant_kernels_init(&k, 0);
    fill(&r, "tails");
    for (int i = 0; i < ROWS * N; i++) x[i] = test_randn(&seed);
    for (int i = 0; i < dtype_count; i++) {
        const struct dtype *t = dtypes[i];
        if (!k.rows[t->gguf_id]) continue;
        test_begin("compat_makes_every_format %s", t->name);
        CHECK(compat_format_of(t->gguf_id) || t->pack || t->from_f32);
        struct quant_spec s = { .type = t, .prepared = prepared };
        size_t row = dtype_row_bytes(t, N);
        quantizer_compat.rows(&s, NULL, 0, 0, x, r.w, ROWS, N, together, NULL);
        for (int j = 0; j < ROWS; j++) quantizer_compat.rows(&s, NULL, 0, 0, x + j * N, r.w, 1, N, apart + (size_t)j * row, NULL);
        CHECK(!memcmp(together, apart, ROWS * row));
    }
    arena_free(&mem);
}

/* ---- files ---- */

static status quantize(const char *in, const char *out, const char *type, int n_threads, struct err *e)
{
    struct quant_plan *p;
    struct quant_options o = { .type = type, .n_threads = n_threads, .spec = { .method = &quantizer_compat } };
    *e = (struct err){ 0 };
    unlink(out);
    status st = quant_plan_open(&p, in, &o, e);
    if (st == OK) st = quant_file(p, out, &(struct quant_run){ .verify = true, .overwrite = true }, e);
    quant_plan_close(p);
    return st;
}

/* Every quantized tensor of the file is what the method makes of its rows. */
static void check_tensors(const char *in, const char *out)
{
    struct gguf a, b;
    struct err e = { 0 };
    struct arena mem;
    arena_init(&mem, 0);
    const void *prepared = prepare_all(&mem);
    CHECK_MSG(gguf_open(&a, in, true, &e) == OK, "%s", e.text);
    CHECK_MSG(gguf_open(&b, out, true, &e) == OK, "%s", e.text);
    int found = 0;
    for (int64_t i = 0; i < a.n_tensors; i++) {
        const struct tensor *x = &a.tensor[i], *y = gguf_tensor(&b, x->name);
        CHECK_MSG(y, "%s", x->name);
        if (!y || y->type == x->type) continue;
        uint8_t *made = arena_alloc(&mem, tensor_bytes(y));
        struct quant_spec s = { .type = y->type, .prepared = prepared };
        quantizer_compat.rows(&s, NULL, 0, 0, x->data, NULL, tensor_rows(x), x->ne[0], made, NULL);
        CHECK_MSG(!memcmp(made, y->data, tensor_bytes(y)), "%s", x->name);
        found++;
    }
    CHECK(found > 10);
    struct str method = { "", 0 };
    CHECK(gguf_get_str(&b, "quantize.method", &method, &e) && method.n == 6 && !memcmp(method.p, "compat", 6));
    gguf_close(&a);
    gguf_close(&b);
    arena_free(&mem);
}

TEST(compat_files_hold_what_the_rows_become)
{
    static const char *const types[] = { "Q4_K_M", "IQ3_S", "Q5_0" };
    char in[300], out[300];
    struct tiny_options o = { .type = "f32", .n_embd = 256, .n_head = 4, .n_head_kv = 4, .head_dim = 64, .n_ff = 256 };
    struct err e = { 0 };
    snprintf(in, sizeof in, "%s", test_tmp("compat_in.gguf"));
    snprintf(out, sizeof out, "%s", test_tmp("compat_out.gguf"));
    CHECK_MSG(tiny_model(in, &o, &e) == OK, "%s", e.text);
    for (int i = 0; i < ARRAY_LEN(types); i++) {
        CHECK_MSG(quantize(in, out, types[i], 1 + i, &e) == OK, "%s", e.text);
        check_tensors(in, out);
    }
}

/* Weights so large that the reference's scale is infinite: it refuses its own file, and so do we, before it stands there. */
TEST(compat_refuses_scales_that_are_infinite)
{
    static const struct { const char *type; float x; bool fits; } rows[] = {
        { "Q8_0", 1e30f, false }, { "Q4_1", -1e9f, false }, { "Q4_K_M", 2e9f, false }, { "IQ4_XS", 3e12f, false }, { "Q8_0", 8e6f, true },
        { "Q4_0", 5e5f, true },   { "Q4_0", 6e5f, false },
    };
    char in[300], out[300];
    snprintf(in, sizeof in, "%s", test_tmp("compat_in.gguf"));
    snprintf(out, sizeof out, "%s", test_tmp("compat_out.gguf"));
    for (int i = 0; i < ARRAY_LEN(rows); i++) {
        struct gguf_writer *w;
        struct err e = { 0 };
        float x[4 * 256] = { [2 * 256 + 5] = rows[i].x, [7] = 1.0f };
        struct tensor t = { .name = "blk.0.ffn_up.weight", .data = x };
        tensor_shape(&t, dtype_by_id(GGUF_F32), 256, 4, 1, 1);
        CHECK_MSG(gguf_writer_open(&w, in, &e) == OK, "%s", e.text);
        gguf_put_str(w, "general.architecture", "llama", 5);
        gguf_put_tensor(w, &t);
        CHECK_MSG(gguf_writer_finish(w, &e) == OK, "%s", e.text);
        CHECK_MSG(quantize(in, out, rows[i].type, 1, &e) == (rows[i].fits ? OK : ERR_FORMAT), "%s %g: %s", rows[i].type, (double)rows[i].x, e.text);
        if (rows[i].fits) continue;
        CHECK_HAS(e.text, "blk.0.ffn_up.weight: row 2, columns from 0: the scale");
        CHECK(access(out, F_OK) != 0);
    }
}

SUITE(quant_compat, T(compat_refuses_scales_that_are_infinite),
      T(compat_equals_the_reference), T(compat_makes_every_format), T(compat_files_hold_what_the_rows_become));
