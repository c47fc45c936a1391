/* test_layers - a model layer by layer against whole passes of an engine, bit for bit: all architectures, windows of unequal lengths, threads; weights
 * replaced against files that have them; what observers are shown when only a part is computed. */
#include "src/cuanto.h"
#include "tests/test.h"
#include "tests/tiny.h"

/* Batches of 80 rows: three short ones go together, one of a single row goes alone, then two long ones in 2 and 3 passes, two that do not fit together, two
 * that do. */
enum { BATCH = 80, WINDOWS = 11, ROWS = 5 + 9 + 3 + 1 + 70 + 100 + 235 + 66 + 64 + 40 + 30, THREADS = 3, N_LAYER = 4 };
static const int64_t lens[WINDOWS] = { 5, 9, 3, 1, 70, 100, 235, 66, 64, 40, 30 };

static int32_t tokens[ROWS], targets[ROWS];

static void pick_tokens(void)
{
    uint64_t seed = 11;
    for (int i = 0; i < ROWS; i++) tokens[i] = (int32_t)(test_rand(&seed) % TINY_TOKENS);
    for (int i = 0; i < ROWS; i++) targets[i] = i % 7 == 2 ? -1 : (int32_t)(test_rand(&seed) % TINY_TOKENS);
}

static void share_caches(struct gguf_writer *w, void *ctx) { gguf_put_i64(w, "gemma4.attention.shared_kv_layers", KV_U32, 2); }

static struct tiny_options options(const char *arch, const char *type)
{
    return (struct tiny_options){ .arch = arch, .type = type, .n_layer = N_LAYER, .head_dim = 32, .optional = true,
                                  .more = strcmp(arch, "gemma4") ? NULL : share_caches };
}

static struct model *open_tiny(const struct tiny_options *o)
{
    struct err e = { 0 };
    struct model *m = NULL;
    const char *path = test_tmp("layers.gguf");
    if (tiny_model(path, o, &e) != OK || model_open(&m, path, &(struct model_options){ 0 }, &e) != OK) test_fail(__FILE__, __LINE__, "%s", e.text);
    return m;
}

static struct layers *open_layers(const struct model *m, const struct layers_options *o)
{
    struct err e = { 0 };
    struct layers *l = NULL;
    if (layers_open(&l, m, o, &e) != OK || layers_windows(l, tokens, lens, WINDOWS, &e) != OK) test_fail(__FILE__, __LINE__, "%s", e.text);
    return l;
}

static int64_t width(const struct model *m)
{
    struct model_info info;
    model_info(m, &info);
    return info.n_embd;
}

/* ---- whole passes ---- */

struct sink {
    float *rows; /* of the segment */
    int64_t at;
};

static void take(void *ctx, int seg, int64_t row, const float *logits)
{
    struct sink *s = ctx;
    memcpy(s->rows + (s->at + row) * TINY_TOKENS, logits, TINY_TOKENS * sizeof *logits);
}

/* Each window alone: logits [ROWS][TINY_TOKENS], and scores where the engine can (false: it cannot). */
static bool whole(const struct model *m, const struct engine_options *o, float *logits, double *nll)
{
    struct err e = { 0 };
    struct engine *en = NULL;
    struct session *s = NULL;
    status st = engine_open(&en, m, o, &e);
    if (st == OK) st = session_open(&s, en, &(struct session_options){ .n_ctx = 256 }, &e);
    bool can = st == OK && engine_can_score(en);
    for (int64_t w = 0, row = 0; w < WINDOWS && st == OK; row += lens[w++])
        for (int score = 0; score < (nll && can ? 2 : 1) && st == OK; score++) {
            st = session_truncate(s, 0, &e);
            for (int64_t at = 0, n; at < lens[w] && st == OK; at += n) {
                n = engine_pass_rows(en, lens[w] - at);
                struct sink sink = { logits + row * TINY_TOKENS, at };
                struct segment seg = { s, tokens + row + at, n, 0 };
                int32_t t[BATCH];
                for (int64_t i = 0; i < n; i++) t[i] = targets[row + at + i] < 0 ? 0 : targets[row + at + i];
                st = score ? engine_score(en, &seg, 1, t, nll + row + at, &e) : engine_forward(en, &seg, 1, take, &sink, &e);
            }
        }
    CHECK_MSG(st == OK, "%s", e.text);
    session_close(s);
    engine_close(en);
    return can;
}

/* ---- layer by layer ---- */

static void run_layer(struct layers *l, int il, int64_t first, int64_t n, const void *x, void *y)
{
    struct err e = { 0 };
    struct layers_run r = { .il = il, .first = first, .n = n, .x = x, .y = y };
    CHECK_MSG(layers_run(l, &r, &e) == OK, "layer %d: %s", il, e.text);
}

/* Windows in calls of `step` of them, layer after layer, in one array; then logits. */
static void by_layers(struct layers *l, const struct model *m, int64_t step, float *x, float *logits)
{
    struct err e = { 0 };
    int64_t n_embd = width(m);
    for (int il = LAYERS_EMBED; il < N_LAYER; il++)
        for (int64_t w = 0; w < WINDOWS; w += step) {
            float *at = x + layers_row(l, w) * n_embd;
            run_layer(l, il, w, min_i64(step, WINDOWS - w), at, at);
        }
    for (int64_t w = 0; w < WINDOWS; w++) {
        struct sink sink = { logits + layers_row(l, w) * TINY_TOKENS, 0 };
        CHECK_MSG(layers_logits(l, w, x + layers_row(l, w) * n_embd, 0, take, &sink, &e) == OK, "%s", e.text);
    }
}

static void check_scores(struct layers *l, const float *x, const double *want, bool exact)
{
    static double nll[ROWS];
    struct err e = { 0 };
    memset(nll, 0xff, sizeof nll);
    CHECK_MSG(layers_score(l, 0, WINDOWS, x, targets, nll, &e) == OK, "%s", e.text);
    for (int i = 0; i < ROWS; i++) {
        double w = targets[i] < 0 ? 0 : want[i];
        CHECK_MSG(exact ? nll[i] == w : fabs(nll[i] - w) < 1e-5, "row %d: nll is %.17g, expected %.17g", i, nll[i], w);
    }
}

static void nll_of(const float *logits, double *nll)
{
    for (int i = 0; i < ROWS; i++) {
        const float *y = logits + i * TINY_TOKENS;
        double sum = 0;
        for (int j = 0; j < TINY_TOKENS; j++) sum += exp((double)y[j] - (double)y[0]);
        nll[i] = targets[i] < 0 ? 0 : log(sum) + (double)y[0] - (double)y[targets[i]];
    }
}

static float want[ROWS * TINY_TOKENS], got[ROWS * TINY_TOKENS];

static void compare(const char *arch, const char *type, bool precise)
{
    static double nll[ROWS];
    struct tiny_options o = options(arch, type);
    struct model *m = open_tiny(&o);
    if (!m) return;
    bool exact = whole(m, &(struct engine_options){ .n_threads = 1, .n_batch = BATCH, .precise = precise }, want, nll);
    float *x = calloc((size_t)(ROWS * width(m)), sizeof *x);
    for (int threads = 1; threads <= THREADS; threads += THREADS - 1) {
        struct layers *l = open_layers(m, &(struct layers_options){ .n_threads = threads, .n_batch = BATCH, .precise = precise });
        by_layers(l, m, threads == 1 ? WINDOWS : threads, x, got);
        CHECK_MSG(!memcmp(want, got, sizeof want), "%d threads: logits differ", threads);
        if (!exact) nll_of(want, nll);
        check_scores(l, x, nll, exact);
        layers_close(l);
    }
    free(x);
    model_close(m);
}

TEST(layers_give_the_bits_of_whole_passes)
{
    pick_tokens();
    for (int i = 0; model_arch_name(i); i++) {
        test_begin("layers_give_the_bits_of_whole_passes_%s", model_arch_name(i));
        compare(model_arch_name(i), "f32", false);
    }
    static const char *const quantized[] = { "llama", "qwen2", "gemma3", "qwen3moe", "deepseek2", "falcon-h1" };
    for (int i = 0; i < 2 * ARRAY_LEN(quantized); i++) { /* activations of 8 or 15 bits */
        test_begin("layers_give_the_bits_of_whole_passes_%s_%s", quantized[i / 2], i % 2 ? "q8_0_precise" : "q8_0");
        compare(quantized[i / 2], "q8_0", i % 2);
    }
}

TEST(layers_states_in_bf16_are_rounded_at_the_borders_only)
{
    pick_tokens();
    struct tiny_options o = options("llama", "f32");
    struct model *m = open_tiny(&o);
    int64_t n = ROWS * width(m);
    float *x = calloc((size_t)n, 2 * sizeof *x), *y = x + n;
    uint16_t *half = calloc((size_t)n, 2 * sizeof *half), *half_y = half + n;
    uint64_t seed = 3;
    for (int64_t i = 0; i < n; i++) x[i] = bf16_to_f32(half[i] = f32_to_bf16(test_randf(&seed)));
    struct layers *l = open_layers(m, &(struct layers_options){ .n_threads = 2, .n_batch = BATCH });
    struct layers *lh = open_layers(m, &(struct layers_options){ .n_threads = 2, .n_batch = BATCH, .state = dtype_by_name("bf16") });
    run_layer(l, 1, 0, WINDOWS, x, y);
    run_layer(lh, 1, 0, WINDOWS, half, half_y);
    for (int64_t i = 0; i < n; i++) CHECK_MSG(half_y[i] == f32_to_bf16(y[i]), "element %d", (int)i);
    struct sink a = { want, 0 }, b = { got, 0 };
    CHECK(layers_logits(l, 6, x, 100, take, &a, NULL) == OK && layers_logits(lh, 6, half, 100, take, &b, NULL) == OK);
    CHECK(!memcmp(want + 100 * TINY_TOKENS, got + 100 * TINY_TOKENS, 135 * TINY_TOKENS * sizeof *want));
    layers_close(l);
    layers_close(lh);
    free(x);
    free(half);
    model_close(m);
}

/* ---- observers ---- */

enum { SEEN_MAX = ROWS * 2 }; /* each row meets two experts */
struct seen {
    const char *name; /* of the weight whose rows are kept */
    int64_t n, k, calls, others;
    int64_t mat[SEEN_MAX], row[SEEN_MAX];
    float x[SEEN_MAX * 160];
};

static void see(void *ctx, const struct shown *s, int ith, int nth)
{
    struct seen *t = ctx;
    if (ith != nth - 1) return; /* any thread sees all */
    t->calls++;
    if (strcmp(t->name, s->w->name) != 0) {
        t->others++;
        return;
    }
    CHECK(s->k <= 160 && t->n + s->n <= SEEN_MAX);
    for (int64_t i = 0; i < s->n && s->k <= 160 && t->n < SEEN_MAX; i++, t->n++) {
        t->mat[t->n] = s->mat;
        t->row[t->n] = shown_row(s, i);
        memcpy(t->x + t->n * s->k, shown_x(s, i), (size_t)s->k * sizeof(float));
    }
    t->k = s->k;
}

static bool same_seen(const struct seen *a, const struct seen *b)
{
    return a->n == b->n && a->k == b->k && !memcmp(a->mat, b->mat, (size_t)a->n * sizeof *a->mat) && !memcmp(a->row, b->row, (size_t)a->n * sizeof *a->row) &&
           !memcmp(a->x, b->x, (size_t)(a->n * a->k) * sizeof *a->x);
}

/* One engine pass shows rows 0 .. n - 1 of a window: those of window `w` in the set. */
static void seen_by_engine(const struct model *m, int64_t w, int64_t first, struct seen *t)
{
    struct err e = { 0 };
    struct engine *en = NULL;
    struct session *s = NULL;
    struct engine_options o = { .n_threads = 2, .n_batch = BATCH, .observe = see, .observe_ctx = t };
    status st = engine_open(&en, m, &o, &e);
    if (st == OK) st = session_open(&s, en, &(struct session_options){ .n_ctx = 256 }, &e);
    if (st == OK) st = engine_forward(en, &(struct segment){ s, tokens + first, lens[w], 0 }, 1, NULL, NULL, &e);
    CHECK_MSG(st == OK, "%s", e.text);
    for (int64_t i = 0; i < t->n; i++) t->row[i] += first;
    session_close(s);
    engine_close(en);
}

static void observe_layer(struct layers *l, int il, const char *show, const void *x, void *y, int64_t first, int64_t n, struct seen *t)
{
    struct err e = { 0 };
    struct layers_run r = { .il = il, .first = first, .n = n, .x = x, .y = y, .show = show ? &show : NULL, .n_show = 1, .observe = see, .observe_ctx = t };
    t->n = t->calls = t->others = 0;
    CHECK_MSG(layers_run(l, &r, &e) == OK, "%s: %s", show ? show : "all", e.text);
}

/* Each weight of each layer: alone, with all others and the layer's result, and in an engine. */
static void compare_shown(const char *arch)
{
    static struct seen alone, all, engine;
    enum { W = 4 };
    struct tiny_options o = options(arch, "f16"); /* some rows are no multiple of a block */
    struct model *m = open_tiny(&o);
    struct layers *l = open_layers(m, &(struct layers_options){ .n_threads = 2, .n_batch = BATCH });
    int64_t n = ROWS * width(m), first = layers_row(l, W);
    float *x = calloc((size_t)n, 2 * sizeof *x), *y = x + n;
    int met = 0;
    for (int il = LAYERS_EMBED; il <= N_LAYER; il++) {
        struct layers_matmul mm[32];
        int n_mm = 0;
        CHECK(layers_matmuls(l, il, mm, ARRAY_LEN(mm), &n_mm, NULL) == OK && n_mm <= ARRAY_LEN(mm));
        if (il < N_LAYER) run_layer(l, il, 0, WINDOWS, x, y);
        for (int i = 0; i < n_mm; i++, met++) {
            alone.name = all.name = engine.name = mm[i].w->name;
            observe_layer(l, il, mm[i].w->name, x + first * width(m), NULL, W, 1, &alone);
            CHECK(alone.calls > 0 && alone.others == 0);
            float *again = il < N_LAYER ? calloc((size_t)n, sizeof *again) : NULL;
            observe_layer(l, il, NULL, x + first * width(m), again, W, 1, &all);
            CHECK(!again || !memcmp(again, y + first * width(m), (size_t)(lens[W] * width(m)) * sizeof *y));
            free(again);
            engine.n = engine.calls = 0;
            seen_by_engine(m, W, first, &engine);
            CHECK_MSG(alone.n > 0 && same_seen(&alone, &all) && same_seen(&alone, &engine), "%s: %d, %d and %d rows", mm[i].w->name, (int)alone.n, (int)all.n,
                      (int)engine.n);
        }
        memcpy(x, y, (size_t)n * sizeof *x);
    }
    CHECK(met > 2 * N_LAYER);
    free(x);
    layers_close(l);
    model_close(m);
}

TEST(layers_show_the_inputs_that_an_engine_shows)
{
    static const char *const archs[] = { "llama", "gemma4", "qwen3moe", "qwen3next", "gptneox", "phi3", "deepseek2" };
    pick_tokens();
    for (int i = 0; i < ARRAY_LEN(archs); i++) {
        test_begin("layers_show_the_inputs_that_an_engine_shows_%s", archs[i]);
        compare_shown(archs[i]);
    }
}

/* All windows at once: rows of the set, each once, in order. */
TEST(layers_number_rows_through_the_set)
{
    static struct seen t;
    pick_tokens();
    struct tiny_options o = options("llama", "f32");
    struct model *m = open_tiny(&o);
    struct layers *l = open_layers(m, &(struct layers_options){ .n_threads = 2, .n_batch = BATCH });
    float *x = calloc((size_t)(ROWS * width(m)), sizeof *x);
    run_layer(l, LAYERS_EMBED, 0, WINDOWS, NULL, x);
    t.name = "blk.2.ffn_down.weight";
    observe_layer(l, 2, t.name, x + layers_row(l, 3) * width(m), NULL, 3, WINDOWS - 3, &t);
    CHECK(t.n == ROWS - layers_row(l, 3) && layers_n_windows(l) == WINDOWS && layers_row(l, WINDOWS) == ROWS);
    for (int64_t i = 0; i < t.n; i++) CHECK(t.row[i] == layers_row(l, 3) + i);
    CHECK(layers_position(l, layers_row(l, 5)) == 0 && layers_position(l, layers_row(l, 5) + 99) == 99);
    free(x);
    layers_close(l);
    model_close(m);
}

/* Against the router's input, which is that of all experts; what the last matrix is shown are the same pairs of row and expert. */
TEST(layers_show_experts_the_rows_that_chose_them)
{
    static struct seen router, up, down;
    pick_tokens();
    struct tiny_options o = options("qwen3moe", "f32");
    struct model *m = open_tiny(&o);
    struct layers *l = open_layers(m, &(struct layers_options){ .n_threads = 2, .n_batch = BATCH });
    float *x = calloc((size_t)(ROWS * width(m)), sizeof *x);
    run_layer(l, LAYERS_EMBED, 0, WINDOWS, NULL, x);
    router.name = "blk.0.ffn_gate_inp.weight", up.name = "blk.0.ffn_up_exps.weight", down.name = "blk.0.ffn_down_exps.weight";
    observe_layer(l, 0, router.name, x, NULL, 0, WINDOWS, &router);
    observe_layer(l, 0, up.name, x, NULL, 0, WINDOWS, &up);
    observe_layer(l, 0, down.name, x, NULL, 0, WINDOWS, &down);
    CHECK(router.n == ROWS && up.n == 2 * ROWS && down.n == 2 * ROWS);
    CHECK(!memcmp(up.mat, down.mat, sizeof up.mat) && !memcmp(up.row, down.row, sizeof up.row));
    int met[ROWS] = { 0 };
    for (int64_t i = 0; i < up.n; i++) {
        int64_t row = up.row[i];
        CHECK(row >= 0 && row < ROWS && ++met[row] <= 2);
        if (row >= 0 && row < ROWS) CHECK(!memcmp(up.x + i * up.k, router.x + row * up.k, (size_t)up.k * sizeof *up.x));
    }
    free(x);
    layers_close(l);
    model_close(m);
}

TEST(layers_matmuls_come_in_groups_by_input)
{
    static const struct { const char *arch; int il; const char *want; } rows[] = {
        { "llama", 1, "attn_q0 attn_k0 attn_v0 attn_output1 ffn_gate2 ffn_up2 ffn_down3 " },
        { "qwen3moe", 1, "attn_q0 attn_k0 attn_v0 attn_output1 ffn_gate_inp2 ffn_gate_exps2 ffn_up_exps2 ffn_down_exps3 " },
        { "gptneox", 0, "attn_qkv0 attn_output1 ffn_up2 ffn_down3 " },
        { "phi3", 2, "attn_qkv0 attn_output1 ffn_up2 ffn_down3 " },
        { "falcon", 0, "attn_qkv0 attn_output1 ffn_up2 ffn_down3 " },
    };
    pick_tokens();
    for (int i = 0; i < ARRAY_LEN(rows); i++) {
        struct tiny_options o = options(rows[i].arch, "f32");
        struct model *m = open_tiny(&o);
        struct layers *l = open_layers(m, &(struct layers_options){ .n_threads = 1, .n_batch = BATCH });
        struct layers_matmul mm[16];
        char text[400] = "";
        int n = 0, few = 0;
        CHECK(layers_matmuls(l, rows[i].il, mm, ARRAY_LEN(mm), &n, NULL) == OK && n <= ARRAY_LEN(mm));
        CHECK(layers_matmuls(l, rows[i].il, mm, 2, &few, NULL) == OK && few == n);
        for (int j = 0; j < n; j++) {
            const char *name = strchr(mm[j].w->name + 4, '.') + 1;
            snprintf(text + strlen(text), sizeof text - strlen(text), "%.*s%d ", (int)(strlen(name) - 7), name, mm[j].group);
        }
        CHECK_STR(text, rows[i].want);
        layers_close(l);
        model_close(m);
    }
}

/* Latent attention: matrices of single heads, in groups of their own. The rows of attn_v_b are what attention gave each head: with them and the matrix, what
 * attn_output is shown must follow. */
TEST(layers_show_heads_their_columns)
{
    static struct seen vb, o_in;
    pick_tokens();
    struct tiny_options o = options("deepseek2", "f32");
    struct model *m = open_tiny(&o);
    struct layers *l = open_layers(m, &(struct layers_options){ .n_threads = 2, .n_batch = BATCH });
    float *x = calloc((size_t)(ROWS * width(m)), sizeof *x);
    run_layer(l, LAYERS_EMBED, 0, WINDOWS, NULL, x);
    vb.name = "blk.0.attn_v_b.weight", o_in.name = "blk.0.attn_output.weight";
    enum { W = 4 };
    observe_layer(l, 0, vb.name, x, NULL, W, 1, &vb);
    observe_layer(l, 0, o_in.name, x, NULL, W, 1, &o_in);
    const struct tensor *w = layers_weight(l, vb.name);
    CHECK(w->ne[2] > 1 && vb.k == w->ne[0] && vb.n == lens[W] * w->ne[2] && o_in.n == lens[W] && o_in.k == w->ne[1] * w->ne[2]);
    for (int64_t i = 0; i < vb.n; i++) {
        int64_t head = i / lens[W], row = i % lens[W];
        CHECK(vb.mat[i] == head && vb.row[i] == layers_row(l, W) + row);
        for (int64_t c = 0; c < w->ne[1]; c++) {
            const float *by = (const float *)w->data + (head * w->ne[1] + c) * w->ne[0];
            double sum = 0;
            for (int64_t k = 0; k < w->ne[0]; k++) sum += (double)by[k] * (double)vb.x[i * vb.k + k];
            CHECK_NEAR((double)o_in.x[row * o_in.k + head * w->ne[1] + c], sum, 1e-5);
        }
    }
    free(x);
    layers_close(l);
    model_close(m);
}

/* ---- weights ---- */

/* Bytes of a weight of the model in another format. */
static void *requantized(const struct tensor *t, const struct dtype *type, size_t *bytes)
{
    struct tensor to;
    tensor_shape(&to, type, t->ne[0], t->ne[1], t->ne[2], t->ne[3]);
    *bytes = tensor_bytes(&to);
    float *x = malloc((size_t)tensor_elements(t) * sizeof *x);
    void *p = malloc(*bytes);
    dtype_to_f32(t->type, t->data, x, tensor_elements(t));
    dtype_from_f32(type, x, p, tensor_elements(t));
    free(x);
    return p;
}

static void replace_one(const char *arch, const char *name, const char *type)
{
    static float plain[ROWS * TINY_TOKENS];
    struct tiny_options o = options(arch, "f32");
    struct engine_options eo = { .n_threads = 2, .n_batch = BATCH };
    o.tied = !strcmp(name, "token_embd.weight");
    struct model *m = open_tiny(&o);
    o.other = name, o.other_type = type;
    struct model *other = open_tiny(&o);
    whole(m, &eo, plain, NULL);
    whole(other, &eo, want, NULL);
    CHECK(memcmp(plain, want, sizeof want) != 0);
    struct err e = { 0 };
    struct layers *l = open_layers(m, &(struct layers_options){ .n_threads = 2, .n_batch = BATCH });
    float *x = calloc((size_t)(ROWS * width(m)), sizeof *x);
    size_t bytes;
    void *p = requantized(layers_weight(l, name), dtype_by_name(type), &bytes);
    by_layers(l, m, WINDOWS, x, got);
    CHECK(!memcmp(plain, got, sizeof got));
    CHECK_MSG(layers_replace(l, name, dtype_by_name(type), p, bytes, &e) == OK, "%s", e.text);
    CHECK(layers_weight(l, name)->data == p && layers_weight(l, name)->type == dtype_by_name(type));
    by_layers(l, m, WINDOWS, x, got);
    CHECK(!memcmp(want, got, sizeof got));
    CHECK(layers_replace(l, name, NULL, NULL, 0, &e) == OK && layers_weight(l, name)->type == dtype_by_name("f32"));
    by_layers(l, m, WINDOWS, x, got);
    CHECK(!memcmp(plain, got, sizeof got));
    free(p);
    free(x);
    layers_close(l);
    model_close(m);
    model_close(other);
}

TEST(layers_replaced_weights_equal_those_of_a_file)
{
    static const struct { const char *arch, *name, *type; } rows[] = {
        { "llama", "blk.1.attn_v.weight", "q4_0" },     { "llama", "blk.3.ffn_down.weight", "q8_0" },  { "llama", "output.weight", "q8_0" },
        { "llama", "token_embd.weight", "q5_1" },       { "phi3", "blk.0.attn_qkv.weight", "q4_1" },   { "qwen3moe", "blk.1.ffn_up_exps.weight", "q4_0" },
        { "deepseek2", "blk.2.attn_k_b.weight", "q8_0" }, { "gemma4", "per_layer_model_proj.weight", "q4_0" },
        { "gemma4", "blk.1.attn_k.weight", "q8_0" },
    };
    pick_tokens();
    for (int i = 0; i < ARRAY_LEN(rows); i++) {
        test_begin("layers_replaced_weights_equal_those_of_a_file_%s_%s", rows[i].arch, rows[i].name);
        replace_one(rows[i].arch, rows[i].name, rows[i].type);
    }
}

/* ---- refusals, memory ---- */

static const struct {
    struct layers_run r;
    const char *text;
} refused[] = {
    { { .il = N_LAYER + 1 }, "layer 5, expected -1 to 4" },
    { { .il = -2 }, "layer -2" },
    { { .first = 3, .n = WINDOWS - 2 }, "windows 3 to 11, the set has 11" },
    { { .first = -1, .n = 1 }, "windows -1" },
    { { .n = 1 }, "neither a result nor an observer" },
    { { .n = 1, .y = want }, "no hidden states" },
    { { .il = N_LAYER, .n = 1, .x = want, .y = want }, "the head" },
    { { .n = 1, .x = want, .y = want, .show = (const char *const[]){ "blk.1.attn_q.weight" }, .n_show = 1, .observe = see },
      "blk.1.attn_q.weight: layer 0 of architecture gemma4 does not multiply" },
    { { .il = 2, .n = 1, .x = want, .y = want }, "architecture gemma4: layer 2 reads the keys and values of layer 0, which has not passed window 0" },
    { { .il = 3, .first = 1, .n = 2, .x = want, .y = want }, "layer 3 reads the keys and values of layer 1, which has not passed window 2" },
};

TEST(layers_refuse_with_both_values)
{
    static struct seen t;
    struct err e = { 0 };
    pick_tokens();
    struct tiny_options o = options("gemma4", "f32");
    struct model *m = open_tiny(&o);
    struct layers *l = open_layers(m, &(struct layers_options){ .n_threads = 1, .n_batch = BATCH });
    float *x = calloc((size_t)(ROWS * width(m)), sizeof *x);
    run_layer(l, 1, 0, 2, x, x);
    for (int i = 0; i < ARRAY_LEN(refused); i++, e = (struct err){ 0 }) {
        struct layers_run r = refused[i].r;
        r.observe_ctx = &t;
        CHECK(layers_run(l, &r, &e) == ERR_USAGE);
        CHECK_HAS(e.text, refused[i].text);
    }
    CHECK(layers_windows(l, (int32_t[]){ 1, TINY_TOKENS }, (int64_t[]){ 2 }, 1, &e) == ERR_USAGE);
    CHECK_HAS(e.text, "token id 268");
    e = (struct err){ 0 };
    CHECK(layers_windows(l, tokens, (int64_t[]){ 2, 0 }, 2, &e) == ERR_USAGE && layers_n_windows(l) == WINDOWS);
    CHECK_HAS(e.text, "window 1 has 0 tokens");
    e = (struct err){ 0 };
    CHECK(layers_replace(l, "blk.9.attn_q.weight", NULL, NULL, 0, &e) == ERR_USAGE && !layers_weight(l, "rope_freqs.weight"));
    CHECK_HAS(e.text, "blk.9.attn_q.weight");
    e = (struct err){ 0 };
    CHECK(layers_replace(l, "blk.0.attn_q.weight", dtype_by_name("q8_0"), x, 5, &e) == ERR_USAGE);
    CHECK_HAS(e.text, "5 bytes, expected 6528 in Q8_0");
    e = (struct err){ 0 };
    CHECK(layers_replace(l, "blk.0.attn_q.weight", dtype_by_name("q4_k"), x, 5, &e) == ERR_USAGE);
    CHECK_HAS(e.text, "type Q4_K for rows of 64");
    e = (struct err){ 0 };
    CHECK(layers_replace(l, "blk.0.attn_norm.weight", dtype_by_name("f16"), x, 128, &e) == ERR_USAGE);
    CHECK_HAS(e.text, "expected F32");
    e = (struct err){ 0 };
    double nll[5];
    CHECK(layers_score(l, 0, 1, x, (int32_t[]){ 0, 1, 2, 3, TINY_TOKENS }, nll, &e) == ERR_USAGE);
    CHECK_HAS(e.text, "target 4 is token 268");
    struct layers *none = l;
    e = (struct err){ 0 };
    CHECK(layers_open(&none, m, &(struct layers_options){ .state = dtype_by_name("f16") }, &e) == ERR_USAGE && !none);
    CHECK_HAS(e.text, "F16");
    free(x);
    layers_close(l);
    model_close(m);
}

/* Four times the windows cost 8 bytes a row, and no more. */
TEST(layers_memory_does_not_grow_with_the_set)
{
    enum { MANY = 64, LEN = 200 };
    static int32_t t[MANY * LEN];
    static int64_t len[MANY];
    struct tiny_options o = options("llama", "f32");
    struct model *m = open_tiny(&o);
    size_t held[2];
    for (int i = 0; i < MANY; i++) len[i] = LEN;
    for (int many = 0; many < 2; many++) {
        struct err e = { 0 };
        struct layers *l = NULL;
        int64_t n = many ? MANY : MANY / 4;
        float *x = calloc((size_t)(n * LEN * width(m)), sizeof *x);
        CHECK(layers_open(&l, m, &(struct layers_options){ .n_threads = 1, .n_batch = BATCH }, &e) == OK && layers_windows(l, t, len, n, &e) == OK);
        for (int il = LAYERS_EMBED; il < N_LAYER; il++) run_layer(l, il, 0, n, x, x);
        held[many] = layers_bytes(l);
        free(x);
        layers_close(l);
    }
    CHECK_MSG(held[1] - held[0] == 8 * (MANY - MANY / 4) * (LEN + 1), "%zu and %zu bytes", held[0], held[1]);
    CHECK_MSG(held[0] < 4 << 20, "%zu bytes", held[0]);
    model_close(m);
}

/* Every allocation fails once: a clean ERR_MEMORY, no leak (ASan build), and the next try works. */
TEST(layers_survive_every_allocation_failure)
{
    pick_tokens();
    struct tiny_options o = options("gemma4", "f32");
    struct model *m = open_tiny(&o);
    float *x = calloc((size_t)(ROWS * width(m)), sizeof *x);
    status st = ERR_MEMORY;
    int n = 0;
    for (; st != OK && n < 2000; n++) {
        struct layers *l = NULL;
        struct err e = { 0 };
        double nll[5];
        mem_fail_at(n + 1, false);
        st = layers_open(&l, m, &(struct layers_options){ .n_threads = 2, .n_batch = BATCH }, &e);
        if (st == OK) st = layers_windows(l, tokens, lens, 3, &e);
        for (int il = LAYERS_EMBED; il < N_LAYER && st == OK; il++) st = layers_run(l, &(struct layers_run){ .il = il, .n = 3, .x = x, .y = x }, &e);
        if (st == OK) st = layers_score(l, 0, 1, x, tokens, nll, &e);
        mem_fail_at(0, false);
        CHECK_MSG(st == OK || (st == ERR_MEMORY && e.text[0]), "allocation %d: status %d \"%s\"", n + 1, st, e.text);
        layers_close(l);
    }
    CHECK(st == OK && n > 10);
    free(x);
    model_close(m);
}

SUITE(layers, T(layers_give_the_bits_of_whole_passes), T(layers_states_in_bf16_are_rounded_at_the_borders_only),
      T(layers_show_the_inputs_that_an_engine_shows), T(layers_number_rows_through_the_set),
      T(layers_show_experts_the_rows_that_chose_them), T(layers_matmuls_come_in_groups_by_input), T(layers_show_heads_their_columns),
      T(layers_replaced_weights_equal_those_of_a_file), T(layers_refuse_with_both_values), T(layers_memory_does_not_grow_with_the_set),
      T(layers_survive_every_allocation_failure));
