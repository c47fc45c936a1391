/* test_lora - adapters: base plus adapter gives what the merged matrices give; what does not fit is refused by name. */
#include "quant/quant.h"
#include "src/cuanto.h"
#include "src/model_int.h"
#include "tests/reference.h"
#include "tests/test.h"
#include "tests/tiny.h"

enum { N = 18, RANK = 5 };

static const char *const targets[] = { "attn_q", "attn_k", "attn_v", "attn_qkv", "attn_output", "ffn_gate", "ffn_up", "ffn_down", "ffn_gate_inp",
                                       "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps" };

struct maker {
    struct gguf_writer *w;
    const char *arch;
    float alpha;
    int64_t rank;
    const struct dtype *type;
    uint64_t rng;
    struct arena a;
};

static void open_maker(struct maker *k, const char *path, const char *arch)
{
    struct err e = { 0 };
    *k = (struct maker){ .arch = arch, .alpha = 8, .rank = RANK, .type = dtype_by_id(GGUF_F32), .rng = 3 };
    arena_init(&k->a, 0);
    if (gguf_writer_open(&k->w, path, &e) != OK) test_fail(__FILE__, __LINE__, "%s", e.text);
    gguf_put_str(k->w, "general.type", "adapter", 7);
    gguf_put_str(k->w, "general.architecture", arch, strlen(arch));
    gguf_put_str(k->w, "adapter.type", "lora", 4);
    gguf_put_f32(k->w, "adapter.lora.alpha", k->alpha);
}

static void put(struct maker *k, const char *base, const char *side, int64_t ne0, int64_t ne1, int64_t ne2)
{
    struct tensor t = { 0 };
    char name[128];
    int n = snprintf(name, sizeof name, "%s%s", base, side);
    tensor_shape(&t, k->type, ne0, ne1, ne2, 1);
    float *x = arena_alloc(&k->a, (size_t)(ne0 * ne1 * ne2) * sizeof *x);
    t.data = arena_alloc(&k->a, tensor_bytes(&t));
    for (int64_t i = 0; i < ne0 * ne1 * ne2; i++) x[i] = test_randf(&k->rng) / sqrtf((float)ne0);
    dtype_from_f32(k->type, x, t.data, ne0 * ne1 * ne2);
    t.name = arena_strdup(&k->a, name, (size_t)n);
    gguf_put_tensor(k->w, &t);
}

static void close_maker(struct maker *k)
{
    struct err e = { 0 };
    if (gguf_writer_finish(k->w, &e) != OK) test_fail(__FILE__, __LINE__, "%s", e.text);
    arena_free(&k->a);
}

/* An adapter for every matrix of the list that m has, and for the embedding and the head. */
static void make_adapter(const char *path, const struct model *m, const struct dtype *type, int64_t rank, uint64_t seed)
{
    struct maker k;
    open_maker(&k, path, m->arch->name);
    k.type = type, k.rank = rank, k.rng = seed;
    for (int64_t i = 0; i < m->g.n_tensors; i++) {
        const struct tensor *t = &m->g.tensor[i];
        for (int j = 0; j < ARRAY_LEN(targets); j++) {
            char want[64];
            snprintf(want, sizeof want, ".%s.weight", targets[j]);
            if (!strstr(t->name, want)) continue;
            put(&k, t->name, ".lora_a", t->ne[0], rank, t->ne[2]);
            put(&k, t->name, ".lora_b", rank, t->ne[1], t->ne[2]);
        }
        if (!strcmp(t->name, "output.weight")) put(&k, t->name, ".lora_a", t->ne[0], rank, 1), put(&k, t->name, ".lora_b", rank, t->ne[1], 1);
        if (!strcmp(t->name, "token_embd.weight") && gguf_tensor(&m->g, "output.weight"))
            put(&k, t->name, ".lora_a", rank, t->ne[1], 1), put(&k, t->name, ".lora_b", rank, t->ne[0], 1);
    }
    close_maker(&k);
}

static float *floats_of(const struct tensor *t)
{
    float *x = malloc((size_t)tensor_elements(t) * sizeof *x);
    dtype_to_f32(t->type, t->data, x, tensor_elements(t));
    return x;
}

/* w [rows][cols] += factor * B A; flipped: A is given as [cols of B A][rank] */
static void add_product(float *w, int64_t rows, int64_t cols, int64_t rank, const float *b, const float *a, bool flipped, double factor)
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++) {
            double sum = 0;
            for (int64_t j = 0; j < rank; j++) sum += (double)b[r * rank + j] * (flipped ? a[c * rank + j] : a[j * cols + c]);
            w[r * cols + c] += (float)(factor * sum);
        }
}

/* W += scale * alpha / rank * B A, in a model whose weights are in memory of its own. */
static void merge(struct model *m, const char *path, float scale)
{
    struct gguf g;
    struct err e = { 0 };
    float alpha = 0;
    if (gguf_open(&g, path, true, &e) != OK) test_fail(__FILE__, __LINE__, "%s", e.text);
    CHECK(gguf_get_f32(&g, "adapter.lora.alpha", &alpha, &e));
    for (int64_t i = 0; i < m->g.n_tensors; i++) {
        struct tensor *t = &m->g.tensor[i];
        char name[128];
        snprintf(name, sizeof name, "%s.lora_a", t->name);
        const struct tensor *a = gguf_tensor(&g, name);
        if (!a) continue;
        snprintf(name, sizeof name, "%s.lora_b", t->name);
        const struct tensor *b = gguf_tensor(&g, name);
        bool flipped = !strcmp(t->name, "token_embd.weight");
        int64_t rank = b->ne[0], in = t->ne[0], out = t->ne[1];
        float *fa = floats_of(a), *fb = floats_of(b), *w = t->data;
        double factor = (double)scale * alpha / (double)rank;
        for (int64_t x = 0; x < t->ne[2]; x++, w += in * out) /* of the embedding, each token's row is B times its row of A */
            add_product(w, out, in, rank, flipped ? fa : fb + x * rank * out, flipped ? fb : fa + x * rank * in, flipped, factor);
        free(fa), free(fb);
    }
    gguf_close(&g);
}

struct rig {
    struct model *m;
    struct engine *en;
    struct session *s;
};

static void open_model(struct rig *r, const char *path, bool own_memory)
{
    struct err e = { 0 };
    *r = (struct rig){ 0 };
    if (model_open(&r->m, path, &(struct model_options){ .no_mmap = own_memory }, &e) != OK) test_fail(__FILE__, __LINE__, "%s", e.text);
}

static void open_engine(struct rig *r, const struct adapter_use *use, int n)
{
    struct err e = { 0 };
    if (engine_open(&r->en, r->m, &(struct engine_options){ .n_threads = 2, .lora = use, .n_lora = n, .n_batch = 128 }, &e) != OK ||
        session_open(&r->s, r->en, &(struct session_options){ .n_ctx = 128, .kv_type = dtype_by_name("f32") }, &e) != OK)
        test_fail(__FILE__, __LINE__, "%s", e.text);
}

static void close_rig(struct rig *r)
{
    session_close(r->s);
    engine_close(r->en);
    model_close(r->m);
}

static void take_row(void *ctx, int seg, int64_t row, const float *logits)
{
    memcpy((float *)ctx + row * TINY_TOKENS, logits, TINY_TOKENS * sizeof *logits);
}

/* All rows in one pass; then single rows. */
static void logits_of(struct rig *r, const int32_t *t, bool single, float *out)
{
    struct err e = { 0 };
    CHECK(session_truncate(r->s, 0, NULL) == OK);
    for (int64_t i = 0; i < N; i += single ? 1 : N) {
        struct segment g = { r->s, t + i, single ? 1 : N, 0 };
        CHECK_MSG(engine_forward(r->en, &g, 1, take_row, out + i * TINY_TOKENS, &e) == OK, "%s", e.text);
    }
}

static double worst(const float *a, const double *b)
{
    double w = 0;
    for (int64_t i = 0; i < N * TINY_TOKENS; i++) w = fmax(w, isnan(a[i]) ? INFINITY : fabs(a[i] - b[i]));
    return w;
}

static const struct {
    const char *name;
    struct tiny_options o;
    const char *type;
    int64_t rank;
    bool engine_only; /* tests/reference.c lacks these equations: compared with the merged model in the same engine */
} rows[] = {
    { "llama", { .arch = "llama" }, "f32", RANK, false },
    { "llama_experts", { .arch = "llama", .n_expert = 5 }, "f32", 4, false },
    { "llama_f16_rank_1", { .arch = "llama", .tied = true, .optional = true }, "f16", 1, false },
    { "qwen2_rank_40", { .arch = "qwen2" }, "bf16", 40, false },
    { "gemma3", { .arch = "gemma3", .n_layer = 6, .window = 8, .head_dim = 32, .tied = true }, "f32", 16, false },
    { "phi3_fused", { .arch = "phi3" }, "f32", RANK, true },
};

TEST(lora_equals_merged_weights)
{
    static float got[N * TINY_TOKENS], base[N * TINY_TOKENS];
    static double want[N * TINY_TOKENS];
    for (int i = 0; i < ARRAY_LEN(rows); i++) {
        test_begin("lora_equals_merged_weights_%s", rows[i].name);
        const char *path = test_tmp("lora_base.gguf"), *one = test_tmp("lora_one.gguf"), *two = test_tmp("lora_two.gguf");
        struct err e = { 0 };
        struct rig r, merged;
        struct adapter *a = NULL, *b = NULL;
        int32_t t[N];
        uint64_t seed = 21;
        for (int j = 0; j < N; j++) t[j] = (int32_t)(test_rand(&seed) % TINY_TOKENS);
        CHECK_MSG(tiny_model(path, &rows[i].o, &e) == OK, "%s", e.text);
        open_model(&r, path, false), open_model(&merged, path, true);
        make_adapter(one, r.m, dtype_by_name(rows[i].type), rows[i].rank, 5), make_adapter(two, r.m, dtype_by_id(GGUF_F32), 3, 6);
        merge(merged.m, one, 0.5f), merge(merged.m, two, -0.25f);
        CHECK_MSG(adapter_open(&a, one, r.m, &e) == OK && adapter_open(&b, two, r.m, &e) == OK, "%s", e.text);
        const struct adapter_use use[] = { { a, 0.5f }, { b, -0.25f } };
        open_engine(&merged, NULL, 0);
        if (rows[i].engine_only) {
            logits_of(&merged, t, true, got);
            for (int j = 0; j < N * TINY_TOKENS; j++) want[j] = got[j];
        } else reference_logits(merged.m, t, N, want);
        open_engine(&r, NULL, 0);
        logits_of(&r, t, true, base);
        session_close(r.s), engine_close(r.en);
        open_engine(&r, use, 2);
        double d = worst(base, want);
        CHECK_MSG(d > 0.05, "the adapters change logits by %g only", d);
        for (int single = 0; single < 2; single++) {
            logits_of(&r, t, single, got);
            d = worst(got, want);
            CHECK_MSG(d < 1e-3, "%s: off by %g", single ? "single rows" : "one pass", d);
        }
        close_rig(&r), close_rig(&merged);
        adapter_close(a), adapter_close(b);
    }
}

/* ---- refusals ---- */

static void put_pair(struct maker *k, const char *base, int64_t in, int64_t rank_a, int64_t rank_b, int64_t out)
{
    put(k, base, ".lora_a", in, rank_a, 1);
    put(k, base, ".lora_b", rank_b, out, 1);
}

static const struct {
    const char *text;
    const char *name; /* of the base */
    int64_t in, rank_a, rank_b, out;
    bool lonely;
} bad[] = {
    { "blk.0.attn_q.weight.lora_a: shape is [63, 5], expected [64, 5, 1]", "blk.0.attn_q.weight", 63, 5, 5, 64, false },
    { "blk.0.attn_q.weight.lora_b: shape is [5, 65], expected [5, 64, 1]", "blk.0.attn_q.weight", 64, 5, 5, 65, false },
    { "blk.0.attn_q.weight.lora_a: shape is [64, 5], expected [64, 4, 1]", "blk.0.attn_q.weight", 64, 5, 4, 64, false },
    { "blk.9.attn_q.weight.lora_a: the model has no such tensor", "blk.9.attn_q.weight", 64, 5, 5, 64, false },
    { "blk.0.attn_norm.weight.lora_a: adapters of vectors are not supported", "blk.0.attn_norm.weight", 64, 5, 5, 64, false },
    { "blk.0.attn_q.weight.lora_a has no partner blk.0.attn_q.weight.lora_b", "blk.0.attn_q.weight", 64, 5, 0, 0, true },
    { "token_embd.weight.lora_a: shape is [64, 5], expected [5, 268, 1]", "token_embd.weight", 64, 5, 5, 268, false },
};

TEST(lora_refuses_what_does_not_fit_by_name)
{
    const char *path = test_tmp("lora_bad.gguf"), *base = test_tmp("lora_bad_base.gguf");
    struct rig r;
    struct err e = { 0 };
    struct adapter *a;
    struct maker k;
    CHECK(tiny_model(base, &(struct tiny_options){ .arch = "llama" }, &e) == OK);
    open_model(&r, base, false);
    for (int i = 0; i < ARRAY_LEN(bad); i++) {
        open_maker(&k, path, "llama");
        if (bad[i].lonely) put(&k, bad[i].name, ".lora_a", bad[i].in, bad[i].rank_a, 1);
        else put_pair(&k, bad[i].name, bad[i].in, bad[i].rank_a, bad[i].rank_b, bad[i].out);
        close_maker(&k);
        e = (struct err){ 0 };
        CHECK(adapter_open(&a, path, r.m, &e) == ERR_FORMAT && !a);
        CHECK_HAS(e.text, bad[i].text);
    }
    open_maker(&k, path, "qwen2");
    put_pair(&k, "blk.0.attn_q.weight", 64, 5, 5, 64);
    close_maker(&k);
    e = (struct err){ 0 };
    CHECK(adapter_open(&a, path, r.m, &e) == ERR_FORMAT);
    CHECK_HAS(e.text, "general.architecture is \"qwen2\", expected \"llama\"");
    e = (struct err){ 0 };
    CHECK(adapter_open(&a, base, r.m, &e) == ERR_FORMAT);
    CHECK_HAS(e.text, "key general.type is missing, expected \"adapter\"");
    open_maker(&k, path, "llama");
    close_maker(&k);
    e = (struct err){ 0 };
    CHECK(adapter_open(&a, path, r.m, &e) == ERR_FORMAT);
    CHECK_HAS(e.text, "no tensors");
    open_maker(&k, path, "llama");
    put(&k, "blk.0.attn_norm.weight", "", 64, 1, 1);
    close_maker(&k);
    e = (struct err){ 0 };
    CHECK(adapter_open(&a, path, r.m, &e) == ERR_FORMAT);
    CHECK_HAS(e.text, "blk.0.attn_norm.weight: an adapter has pairs");
    close_rig(&r);
}

/* A session knows the adapters it was read with. */
TEST(lora_is_part_of_a_session)
{
    const char *base = test_tmp("lora_session.gguf"), *path = test_tmp("lora_session_a.gguf"), *file = test_tmp("lora_session.bin");
    struct rig r;
    struct err e = { 0 };
    struct adapter *a = NULL;
    const int32_t t[] = { 1, 2, 3 };
    CHECK(tiny_model(base, &(struct tiny_options){ .arch = "llama" }, &e) == OK);
    open_model(&r, base, false);
    make_adapter(path, r.m, dtype_by_id(GGUF_F32), 2, 1);
    CHECK_MSG(adapter_open(&a, path, r.m, &e) == OK, "%s", e.text);
    struct model *none;
    CHECK(model_open(&none, path, &(struct model_options){ 0 }, &e) == ERR_FORMAT);
    CHECK_HAS(e.text, "an adapter, not a model");
    e = (struct err){ 0 };
    struct adapter_info info;
    adapter_info(a, &info);
    CHECK(info.n_matrices == 2 * 7 + 2 && info.rank_min == 2 && info.rank_max == 2 && info.alpha == 8);
    open_engine(&r, &(struct adapter_use){ a, 1 }, 1);
    CHECK(session_feed(r.s, t, 3, NULL, NULL, &e) == OK && session_save(r.s, file, NULL, 0, &e) == OK);
    CHECK(session_load(r.s, file, NULL, NULL, &e) == OK);
    session_close(r.s), engine_close(r.en);
    for (int i = 0; i < 2; i++) {
        open_engine(&r, &(struct adapter_use){ a, 0.5f }, i);
        e = (struct err){ 0 };
        CHECK(session_load(r.s, file, NULL, NULL, &e) == ERR_FORMAT);
        CHECK_HAS(e.text, i ? "a session with adapters that are others or have other scales, now lora_session" : "a session with adapters, now none");
        session_close(r.s), engine_close(r.en);
    }
    adapter_close(a);
    model_close(r.m);
}

/* ---- merging ---- */

static void add_delta(void *ctx, int64_t tensor, float *x, int64_t row, int64_t n) { merge_add(ctx, tensor, x, row, n); }

/* What quant/ writes with the sum, each tensor in its own format; *g stays open. */
static status write_merged(const struct model *m, const char *in, const char *out, const struct adapter_use *use, int n, int threads, const char *type,
                           struct merge **g, struct err *e)
{
    static int chosen[1000];
    struct quant_plan *p = NULL;
    for (int i = 0; i < ARRAY_LEN(chosen); i++) chosen[i] = -1;
    TRY(merge_open(g, m, use, n, e));
    struct quant_delta d = { merge_has(*g), add_delta, *g, "test" };
    struct quant_options o = { .type = type, .delta = &d, .chosen = type ? NULL : chosen, .recipe = "as it was", .allow_requantize = true,
                               .n_threads = threads };
    TRY(quant_plan_open(&p, in, &o, e));
    status st = quant_file(p, out, &(struct quant_run){ .overwrite = true, .full_stats = true, .verify = true }, e);
    for (int64_t i = 0; st == OK && i < quant_plan_n(p); i++) { /* its norm, from the sum that was written and the base */
        const struct quant_item *it = quant_plan_item(p, i);
        CHECK(it->kept || d.has[i] || type);
        if (!d.has[i] || it->src->type->gguf_id != GGUF_F32) continue;
        float *x = calloc((size_t)tensor_elements(it->src), sizeof *x);
        double sum = 0;
        merge_add(*g, i, x, 0, tensor_rows(it->src));
        for (int64_t k = 0; k < tensor_elements(it->src); k++) sum += (double)x[k] * (double)x[k];
        CHECK_NEAR(merge_norm(*g, i), sqrt(sum), 1e-5 * sqrt(sum));
        free(x);
    }
    quant_plan_close(p);
    return st;
}

TEST(merged_file_gives_what_base_and_adapters_give)
{
    static float got[N * TINY_TOKENS], merged[N * TINY_TOKENS];
    static double want[N * TINY_TOKENS];
    for (int i = 0; i < ARRAY_LEN(rows); i++) {
        test_begin("merged_file_gives_what_base_and_adapters_give_%s", rows[i].name);
        const char *path = test_tmp("merge_base.gguf"), *one = test_tmp("merge_one.gguf"), *two = test_tmp("merge_two.gguf"), *out = test_tmp("merge_out.gguf");
        struct err e = { 0 };
        struct rig r, n;
        struct adapter *a = NULL, *b = NULL;
        struct merge *g = NULL;
        int32_t t[N];
        uint64_t seed = 22;
        for (int j = 0; j < N; j++) t[j] = (int32_t)(test_rand(&seed) % TINY_TOKENS);
        CHECK_MSG(tiny_model(path, &rows[i].o, &e) == OK, "%s", e.text);
        open_model(&r, path, false);
        make_adapter(one, r.m, dtype_by_name(rows[i].type), rows[i].rank, 5), make_adapter(two, r.m, dtype_by_id(GGUF_F32), 3, 6);
        CHECK_MSG(adapter_open(&a, one, r.m, &e) == OK && adapter_open(&b, two, r.m, &e) == OK, "%s", e.text);
        const struct adapter_use use[] = { { a, 0.5f }, { b, -0.25f } };
        open_engine(&r, use, 2);
        logits_of(&r, t, false, got);
        CHECK_MSG(write_merged(r.m, path, out, use, 2, 1 + i % 3, rows[i].o.arch[0] == 'q' ? "F16" : NULL, &g, &e) == OK, "%s", e.text);
        open_model(&n, out, false);
        open_engine(&n, NULL, 0);
        logits_of(&n, t, false, merged);
        for (int j = 0; j < N * TINY_TOKENS; j++) want[j] = got[j];
        double d = worst(merged, want);
        CHECK_MSG(d < (rows[i].o.arch[0] == 'q' ? 2e-2 : 1e-3), "off by %g", d);
        merge_close(g);
        close_rig(&n), close_rig(&r);
        adapter_close(a), adapter_close(b);
    }
}

/* An embedding that is the head too cannot be changed for one of them; nothing to add is said. */
TEST(merge_refuses_by_name)
{
    const char *base = test_tmp("merge_tied.gguf"), *path = test_tmp("merge_tied_a.gguf");
    struct rig r;
    struct err e = { 0 };
    struct adapter *a = NULL;
    struct merge *g;
    static float one[TINY_TOKENS];
    CHECK(tiny_model(base, &(struct tiny_options){ .arch = "llama", .tied = true }, &e) == OK);
    open_model(&r, base, false);
    for (int i = 0; i < 2; i++) {
        struct adapter_tensor t = { .base = i ? "output.weight" : "token_embd.weight", .in = i ? 64 : TINY_TOKENS, .out = i ? TINY_TOKENS : 64, .rank = 1,
                                    .a = one, .b = one };
        e = (struct err){ 0 };
        CHECK_MSG(adapter_write_gguf(path, &(struct adapter_file){ .m = r.m, .tensor = &t, .n = 1, .alpha = 1 }, &e) == OK, "%s", e.text);
        CHECK_MSG(adapter_open(&a, path, r.m, &e) == OK, "%s", e.text);
        CHECK(merge_open(&g, r.m, &(struct adapter_use){ a, 1 }, 1, &e) == ERR_FORMAT && !g);
        CHECK_HAS(e.text, "embedding and head are one tensor of this model");
        e = (struct err){ 0 };
        CHECK(merge_open(&g, r.m, &(struct adapter_use){ a, 0 }, 1, &e) == ERR_USAGE);
        CHECK_HAS(e.text, "all scales are 0");
        adapter_close(a);
    }
    close_rig(&r);
}

/* ---- writing ---- */

enum { W_IN = 64, W_OUT = 64, W_RANK = 3, W_EXPERTS = 5 };

/* What adapter_write_gguf makes is what the same pairs are, written by hand: read back, and each number in its place. */
TEST(lora_writes_what_it_reads)
{
    const char *base = test_tmp("lora_w_base.gguf"), *path = test_tmp("lora_w.gguf");
    static float a[W_EXPERTS * W_RANK * 512], b[W_EXPERTS * 512 * W_RANK];
    struct rig r;
    struct err e = { 0 };
    struct adapter *ad = NULL;
    struct gguf g;
    struct str text;
    int64_t seed = 0;
    uint64_t rng = 4;
    for (int i = 0; i < ARRAY_LEN(a); i++) a[i] = test_randf(&rng), b[i] = test_randf(&rng);
    CHECK(tiny_model(base, &(struct tiny_options){ .arch = "llama", .n_expert = W_EXPERTS }, &e) == OK);
    open_model(&r, base, false);
    const struct tensor *down = gguf_tensor(&r.m->g, "blk.1.ffn_down_exps.weight");
    struct adapter_tensor t[] = {
        { .base = "blk.0.attn_q.weight", .in = W_IN, .out = W_OUT, .rank = W_RANK, .a = a, .b = b },
        { .base = "blk.1.ffn_down_exps.weight", .in = down->ne[0], .out = down->ne[1], .rank = 2, .n_mat = W_EXPERTS, .a = a, .b = b },
        { .base = "token_embd.weight", .in = TINY_TOKENS, .out = 64, .rank = 2, .a = a, .b = b },
    };
    struct adapter_note notes[] = { { "training.base", NOTE_TEXT, .text = "abc" }, { "training.seed", NOTE_INT, .i = 42 },
                                    { "training.lr", NOTE_FLOAT, .f = 0.5 } };
    struct adapter_file f = { .m = r.m, .tensor = t, .n = 3, .alpha = 6, .note = notes, .n_notes = 3 };
    CHECK_MSG(adapter_write_gguf(path, &f, &e) == OK && adapter_open(&ad, path, r.m, &e) == OK && gguf_open(&g, path, true, &e) == OK, "%s", e.text);
    struct adapter_info info;
    adapter_info(ad, &info);
    CHECK(info.n_matrices == 3 && info.alpha == 6 && info.rank_min == 2 && info.rank_max == 3);
    CHECK(gguf_get_str(&g, "training.base", &text, &e) && text.n == 3 && gguf_get_i64(&g, "training.seed", 0, 100, &seed, &e) && seed == 42);
    CHECK(!memcmp(gguf_tensor(&g, "blk.0.attn_q.weight.lora_b")->data, b, sizeof(float) * W_OUT * W_RANK));
    const float *flat = gguf_tensor(&g, "token_embd.weight.lora_a")->data;
    CHECK(flat[2 * 7 + 1] == a[TINY_TOKENS + 7] && flat[2 * 7] == a[7]);
    gguf_close(&g), adapter_close(ad);
    f.type = dtype_by_id(GGUF_F16);
    CHECK_MSG(adapter_write_gguf(path, &f, &e) == OK && gguf_open(&g, path, true, &e) == OK, "%s", e.text);
    float *half = floats_of(gguf_tensor(&g, "blk.0.attn_q.weight.lora_a"));
    for (int i = 0; i < W_IN * W_RANK; i++) CHECK(fabsf(half[i] - a[i]) <= fabsf(a[i]) / 2048 + 1e-7f);
    free(half), gguf_close(&g);
    const struct { struct adapter_file f; struct adapter_tensor t; struct adapter_note n; status want; const char *text; } wrong[] = {
        { { .alpha = 1, .n = 0 }, { 0 }, { 0 }, ERR_USAGE, "without tensors" },
        { { .alpha = NAN, .n = 1 }, { 0 }, { 0 }, ERR_USAGE, "alpha is nan" },
        { { .type = dtype_by_id(GGUF_Q8_0), .n = 1 }, { 0 }, { 0 }, ERR_USAGE, "an adapter in Q8_0" },
        { { .n = 1 }, { .base = "blk.7.attn_q.weight", .in = 64, .out = 64, .rank = 1 }, { 0 }, ERR_FORMAT, "the model has no such tensor" },
        { { .n = 1 }, { .base = "blk.0.attn_q.weight", .in = 32, .out = 64, .rank = 1 }, { 0 }, ERR_FORMAT,
          "for [32, 64, 1], the model's tensor is [64, 64, 1]" },
        { { .n = 1 }, { .base = "blk.0.attn_q.weight", .in = 64, .out = 64, .rank = 5000 }, { 0 }, ERR_USAGE, "rank is 5000" },
        { { .n = 1, .n_notes = 1 }, t[0], { "adapter.type", NOTE_TEXT, .text = "x" }, ERR_USAGE, "adapter.type is not for notes" },
    };
    for (int i = 0; i < ARRAY_LEN(wrong); i++) {
        struct adapter_file bad_file = wrong[i].f;
        bad_file.m = r.m, bad_file.tensor = &wrong[i].t, bad_file.note = &wrong[i].n;
        e = (struct err){ 0 };
        CHECK(adapter_write_gguf(test_tmp("lora_w_bad.gguf"), &bad_file, &e) == wrong[i].want);
        CHECK_HAS(e.text, wrong[i].text);
    }
    close_rig(&r);
}

SUITE(lora, T(lora_equals_merged_weights), T(lora_refuses_what_does_not_fit_by_name), T(lora_is_part_of_a_session), T(lora_writes_what_it_reads),
      T(merged_file_gives_what_base_and_adapters_give), T(merge_refuses_by_name));
