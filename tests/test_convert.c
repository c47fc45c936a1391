/* test_convert - small Hugging Face directories made here, converted, opened and compared; and everything that is refused. The equations of every
 * architecture are checked against transformers in test_archs.c. */
#include "ggml-like/checkpoint.h"
#include "src/convert.h"
#include "src/cuanto.h"
#include "tests/test.h"
#include <sys/stat.h>
#include <unistd.h>

enum { EMBD = 64, FF = 96, VOCAB = 300, LAYERS = 2 };

static const char config[] =
    "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"hidden_size\": 64, \"intermediate_size\": 96, \"num_hidden_layers\": 2,"
    "\"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"max_position_embeddings\": 128, \"rms_norm_eps\": 1e-5, \"rope_theta\": 5000.0,"
    "\"vocab_size\": 300, \"tie_word_embeddings\": false}";

struct source_tensor {
    const char *name;
    int64_t rows, cols; /* rows 0: a vector */
};
static const struct source_tensor globals[] = { { "model.embed_tokens.weight", VOCAB, EMBD }, { "model.norm.weight", 0, EMBD }, { "lm_head.weight",
  VOCAB, EMBD } };
static const struct source_tensor in_layer[] = {
    { "input_layernorm.weight", 0, EMBD },    { "self_attn.q_proj.weight", 64, EMBD }, { "self_attn.k_proj.weight", 32, EMBD },
    { "self_attn.v_proj.weight", 32, EMBD },  { "self_attn.o_proj.weight", EMBD, 64 }, { "post_attention_layernorm.weight", 0, EMBD },
    { "mlp.gate_proj.weight", FF, EMBD },     { "mlp.up_proj.weight", FF, EMBD },      { "mlp.down_proj.weight", EMBD, FF },
};

/* What is different about one directory. */
struct damage {
    const char *config;                  /* instead of the one above */
    const char *drop, *extra, *reshape;  /* a tensor that is missing, that is too many, that has a row too many */
    enum ckpt_type type;                 /* of all tensors; 0: F32 */
};

static void put_file(const char *dir, const char *name, const char *text, size_t n)
{
    char path[1100];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(text, 1, n, f) != n || fclose(f)) abort();
}

/* Bytes as single tokens, one merge, one special token: 258. */
static void put_tokenizer(const char *dir)
{
    static char text[16384];
    size_t at = 0;
    at += (size_t)snprintf(text, sizeof text,
                           "{\"added_tokens\":[{\"id\":257,\"content\":\"<|end|>\",\"special\":true,\"single_word\":false,\"lstrip\":false,\"rstrip\":false,"
                           "\"normalized\":false}],\"normalizer\":null,\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,"
                           "\"trim_offsets\":true,\"use_regex\":true},\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"vocab\":{");
    for (int b = 0, n = 0; b < 256; b++) {
        bool plain = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
        at += (size_t)snprintf(text + at, sizeof text - at, "%s\"\\u%04x\":%d", b ? "," : "", plain ? b : 256 + n, b);
        n += !plain;
    }
    at += (size_t)snprintf(text + at, sizeof text - at, ",\"th\":256},\"merges\":[\"t h\"]}}");
    put_file(dir, "tokenizer.json", text, at);
    static const char tc[] = "{\"eos_token\": \"<|end|>\"}";
    put_file(dir, "tokenizer_config.json", tc, sizeof tc - 1);
}

static float weight_at(const char *name, int64_t i)
{
    uint64_t s = 11;
    for (const char *c = name; *c; c++) s = s * 131 + (uint8_t)*c;
    s += (uint64_t)i * 0x9e3779b97f4a7c15u;
    float x = test_randf(&s) * 0.2f;
    return strstr(name, "norm") ? 1 + x : x;
}

static void add_tensor(struct safetensors_writer *w, const struct damage *d, const char *name, int64_t rows, int64_t cols, int pass, int64_t *id)
{
    if (d->drop && !strcmp(d->drop, name)) return;
    if (d->reshape && !strcmp(d->reshape, name)) rows++;
    int64_t shape[2] = { rows ? rows : cols, cols }, n = max_i64(rows, 1) * cols;
    struct err e = { 0 };
    if (pass == 0) {
        safetensors_add(w, name, d->type ? d->type : CKPT_F32, rows ? 2 : 1, shape);
        return;
    }
    float *x = calloc((size_t)n, sizeof(int64_t)); /* the widest type */
    for (int64_t i = 0; i < n; i++) x[i] = weight_at(name, i);
    size_t bytes = (size_t)n * ckpt_type_bytes(d->type ? d->type : CKPT_F32);
    if (d->type == CKPT_F16 || d->type == CKPT_BF16) dtype_from_f32(dtype_by_name(d->type == CKPT_F16 ? "f16" : "bf16"), x, x, n);
    if (safetensors_write(w, (*id)++, 0, x, bytes, &e) != OK) test_fail(__FILE__, __LINE__, "%s", e.text);
    free(x);
}

static const char *make_dir(const char *name, const struct damage *d)
{
    static char dir[512], path[600], full[128];
    struct safetensors_writer *w;
    struct err e = { 0 };
    int64_t id = 0;
    snprintf(dir, sizeof dir, "%s", test_tmp(name));
    mkdir(dir, 0777);
    put_file(dir, "config.json", d->config ? d->config : config, strlen(d->config ? d->config : config));
    put_tokenizer(dir);
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    if (safetensors_writer_open(&w, path, &e) != OK) test_fail(__FILE__, __LINE__, "%s", e.text);
    for (int pass = 0; pass < 2; pass++) {
        if (pass == 1 && safetensors_begin(w, &e) != OK) test_fail(__FILE__, __LINE__, "%s", e.text);
        for (int i = 0; i < ARRAY_LEN(globals); i++) add_tensor(w, d, globals[i].name, globals[i].rows, globals[i].cols, pass, &id);
        for (int il = 0; il < LAYERS; il++)
            for (int i = 0; i < ARRAY_LEN(in_layer); i++) {
                snprintf(full, sizeof full, "model.layers.%d.%s", il, in_layer[i].name);
                add_tensor(w, d, full, in_layer[i].rows, in_layer[i].cols, pass, &id);
            }
        if (d->extra) add_tensor(w, d, d->extra, 3, 5, pass, &id);
    }
    if (safetensors_writer_finish(w, &e) != OK) test_fail(__FILE__, __LINE__, "%s", e.text);
    return dir;
}

static status convert_dir(const char *dir, const char *out, const struct convert_options *o, struct err *e)
{
    struct convert *c;
    TRY(convert_open(&c, dir, o, e));
    status st = convert_write(c, out, e);
    convert_close(c);
    return st;
}

static char *slurp(const char *path, size_t *n)
{
    struct err e = { 0 };
    char *text = NULL;
    if (file_text(path, 1 << 26, &text, n, &e) != OK) test_fail(__FILE__, __LINE__, "%s", e.text);
    return text;
}

TEST(convert_keeps_weights_and_pairs_rope_rows)
{
    struct err e = { 0 };
    struct model *m = NULL;
    const char *out = test_tmp("converted.gguf");
    const char *dir = make_dir("hf_plain", &(struct damage){ 0 });
    CHECK_MSG(convert_dir(dir, out, &(struct convert_options){ .n_threads = 2 }, &e) == OK, "%s", e.text);
    CHECK_MSG(model_open(&m, out, &(struct model_options){ .check = true }, &e) == OK, "%s", e.text);
    if (!m) return;
    struct model_info info;
    model_info(m, &info);
    CHECK_STR(info.arch, "llama");
    CHECK(info.n_vocab == VOCAB && info.n_layer == LAYERS && info.n_ctx_train == 128);
    const struct tensor *up = gguf_tensor(model_gguf(m), "blk.1.ffn_up.weight"), *q = gguf_tensor(model_gguf(m), "blk.1.attn_q.weight");
    for (int i = 0; i < FF * EMBD; i++) CHECK(((float *)up->data)[i] == weight_at("model.layers.1.mlp.up_proj.weight", i));
    for (int r = 0; r < 64; r++) { /* head of 16: row 2k was k, row 2k + 1 was k + 8 */
        int from = r / 16 * 16 + r % 16 / 2 + r % 2 * 8;
        for (int c = 0; c < EMBD; c++) CHECK(((float *)q->data)[r * EMBD + c] == weight_at("model.layers.1.self_attn.q_proj.weight", from * EMBD + c));
    }
    float base;
    CHECK(gguf_get_f32(model_gguf(m), "llama.rope.freq_base", &base, &e) && base == 5000.0f);
    model_close(m);
}

TEST(convert_gives_the_same_bytes_for_all_threads_and_containers)
{
    struct err e = { 0 };
    static const char *const types[] = { NULL, "f16", "bf16", "q8_0", "q4_0" };
    for (int t = 0; t < ARRAY_LEN(types); t++) {
        char *first = NULL;
        size_t n = 0;
        const char *dir = make_dir("hf_bytes", &(struct damage){ .type = t == 1 ? CKPT_F16 : 0 });
        for (int threads = 1; threads <= 3; threads++) {
            const char *out = test_tmp("bytes.gguf");
            CHECK_MSG(convert_dir(dir, out, &(struct convert_options){ .n_threads = threads, .type = types[t] ? dtype_by_name(types[t]) : NULL }, &e) == OK,
                      "%s", e.text);
            size_t k;
            char *bytes = slurp(out, &k);
            CHECK_MSG(!first || (k == n && !memcmp(bytes, first, n)), "%s: %d threads", types[t] ? types[t] : "auto", threads);
            if (first) mem_free(bytes);
            else first = bytes, n = k;
        }
        mem_free(first);
    }
}

/* Halves are copied as they stand; other formats are what the format's own rounding gives. */
TEST(convert_rounds_as_the_format_does)
{
    struct err e = { 0 };
    const char *out = test_tmp("rounded.gguf"), *dir = make_dir("hf_round", &(struct damage){ .type = CKPT_BF16 });
    struct gguf g;
    CHECK_MSG(convert_dir(dir, out, &(struct convert_options){ .type = dtype_by_name("q8_0") }, &e) == OK, "%s", e.text);
    CHECK_MSG(gguf_open(&g, out, true, &e) == OK, "%s", e.text);
    const struct tensor *up = gguf_tensor(&g, "blk.0.ffn_up.weight");
    float x[EMBD];
    uint8_t half[EMBD * 2], want[EMBD / 32 * 34];
    for (int r = 0; r < FF; r++) {
        for (int c = 0; c < EMBD; c++) x[c] = weight_at("model.layers.0.mlp.up_proj.weight", r * EMBD + c);
        dtype_from_f32(dtype_by_name("bf16"), x, half, EMBD);
        dtype_to_f32(dtype_by_name("bf16"), half, x, EMBD);
        dtype_from_f32(up->type, x, want, EMBD);
        CHECK(!memcmp((uint8_t *)up->data + (size_t)r * up->nb[1], want, sizeof want));
    }
    CHECK(gguf_tensor(&g, "blk.0.attn_norm.weight")->type->gguf_id == GGUF_F32);
    gguf_close(&g);
}

static const char *with(const char *from, const char *to)
{
    static char text[2048];
    const char *at = strstr(config, from);
    if (!at) abort();
    snprintf(text, sizeof text, "%.*s%s%s", (int)(at - config), config, to, at + strlen(from));
    return text;
}

TEST(convert_refuses_with_names_and_values)
{
    const struct {
        const char *name, *from, *to;
        struct damage d;
        const char *text;
    } rows[] = {
        { "unknown_architecture", "LlamaForCausalLM", "Mamba9ForCausalLM", { 0 },
          "\"Mamba9ForCausalLM\" is no architecture that can be converted; known: llama" },
        { "no_architecture", "\"architectures\": [\"LlamaForCausalLM\"],", "", { 0 }, "\"architectures\" is missing" },
        { "broken_json", "\"hidden_size\": 64", "\"hidden_size\": 64]", { 0 }, "config.json" },
        { "no_width", "\"hidden_size\": 64,", "", { 0 }, "config.json: hidden_size or n_embd or d_model is missing" },
        { "absurd_width", "\"hidden_size\": 64", "\"hidden_size\": 1e15", { 0 }, "hidden_size|n_embd|d_model is 1e+15, expected 1 to" },
        { "negative_layers", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": -2", { 0 }, "is -2, expected 1 to 1024" },
        { "text_for_number", "\"hidden_size\": 64", "\"hidden_size\": \"64\"", { 0 }, "is no number" },
        { "half_a_layer", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1.5", { 0 }, "is no integer" },
        { "more_layers_than_tensors", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3", { 0 },
          "9 tensors are missing: model.layers.2.input_layernorm.weight, " },
        { "fewer_layers_than_tensors", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1", { 0 }, "9 tensors of the checkpoint have no place" },
        { "rope_kind", "\"rope_theta\": 5000.0", "\"rope_theta\": 5000.0, \"rope_scaling\": {\"type\": \"spiral\", \"factor\": 2}", { 0 },
          "rope type \"spiral\" is none of" },
        { "rope_factor", "\"rope_theta\": 5000.0", "\"rope_theta\": 5000.0, \"rope_scaling\": {\"type\": \"linear\", \"factor\": -2}", { 0 },
          "rope factor is -2" },
        { "missing_tensor", NULL, NULL, { .drop = "model.layers.1.mlp.up_proj.weight" }, "1 tensors are missing: model.layers.1.mlp.up_proj.weight" },
        { "missing_embedding", NULL, NULL, { .drop = "model.embed_tokens.weight" }, "missing" },
        { "unused_tensor", NULL, NULL, { .extra = "model.layers.0.mlp.third_proj.weight" },
          "1 tensors of the checkpoint have no place in architecture llama, first model.layers.0.mlp.third_proj.weight (--allow-unused" },
        { "wrong_shape", NULL, NULL, { .reshape = "model.layers.0.mlp.up_proj.weight" },
          "model.layers.0.mlp.up_proj.weight: shape is [97, 64], expected [96, 64]" },
        { "integers", NULL, NULL, { .type = CKPT_I32 }, "type is I32: this kind of quantized checkpoint is not supported" },
        { "long_integers", NULL, NULL, { .type = CKPT_I64 }, "type is I64, expected floating point" },
        { "more_tokens_than_rows", "\"vocab_size\": 300", "\"vocab_size\": 301", { 0 }, "config.json: vocab_size is 301, the embedding has 300 rows" },
        { "base_only_in_parameters", "\"rope_theta\": 5000.0",
          "\"rope_parameters\": {\"rope_theta\": 5000.0}, \"rope_scaling\": {\"type\": \"linear\", \"factor\": 2}", { 0 },
          "rope_scaling takes the place of rope_parameters, but only this has rope_theta (5000)" },
    };
    for (int i = 0; i < ARRAY_LEN(rows); i++) {
        test_begin("convert_refuses_%s", rows[i].name);
        struct damage d = rows[i].d;
        if (rows[i].from) d.config = with(rows[i].from, rows[i].to);
        struct err e = { 0 };
        const char *out = test_tmp("refused_convert.gguf");
        unlink(out);
        CHECK(convert_dir(make_dir("hf_bad", &d), out, &(struct convert_options){ 0 }, &e) == ERR_FORMAT);
        CHECK_HAS(e.text, rows[i].text);
        CHECK(access(out, F_OK) != 0);
    }
}

TEST(convert_keeps_that_the_ramp_of_yarn_is_not_rounded)
{
    struct err e = { 0 };
    const char *out = test_tmp("ramp.gguf");
    for (int i = 0; i < 2; i++) {
        struct gguf g;
        bool exact = false;
        struct damage d = { .config = with("\"rope_theta\": 5000.0", i ? "\"rope_scaling\": {\"type\": \"yarn\", \"factor\": 2, \"truncate\": false}"
                                                                    : "\"rope_scaling\": {\"type\": \"yarn\", \"factor\": 2}") };
        CHECK_MSG(convert_dir(make_dir("hf_ramp", &d), out, &(struct convert_options){ 0 }, &e) == OK, "%s", e.text);
        CHECK_MSG(gguf_open(&g, out, true, &e) == OK, "%s", e.text);
        CHECK(gguf_get_bool(&g, "llama.rope.scaling.yarn_exact", &exact, &e) == (i == 1) && exact == (i == 1));
        gguf_close(&g);
    }
}

/* As transformers 5 reads both: rope_scaling, whole. Nothing in it: the other. */
TEST(convert_reads_rope_scaling_before_rope_parameters)
{
    static const struct { const char *scaling; float factor; bool linear; } rows[] = {
        { "{\"rope_type\": \"linear\", \"factor\": 4}", 4, true }, { "{}", 2, true }, { "null", 2, true }, { "{\"rope_type\": \"default\"}", 0, false },
    };
    struct err e = { 0 };
    const char *out = test_tmp("both_ropes.gguf");
    for (int i = 0; i < ARRAY_LEN(rows); i++) {
        char both[300];
        struct gguf g;
        struct str type;
        float factor = 0;
        snprintf(both, sizeof both, "\"rope_theta\": 5000.0, \"rope_parameters\": {\"rope_type\": \"linear\", \"factor\": 2, \"rope_theta\": 6000.0},"
                 "\"rope_scaling\": %s", rows[i].scaling);
        struct damage d = { .config = with("\"rope_theta\": 5000.0", both) };
        CHECK_MSG(convert_dir(make_dir("hf_ropes", &d), out, &(struct convert_options){ 0 }, &e) == OK, "%s", e.text);
        CHECK_MSG(gguf_open(&g, out, true, &e) == OK, "%s", e.text);
        CHECK(gguf_get_str(&g, "llama.rope.scaling.type", &type, NULL) == rows[i].linear);
        if (rows[i].linear) CHECK(gguf_get_f32(&g, "llama.rope.scaling.factor", &factor, &e) && factor == rows[i].factor);
        CHECK(gguf_get_f32(&g, "llama.rope.freq_base", &factor, &e) && factor == (i == 0 || i == 3 ? 5000.0f : 6000.0f));
        gguf_close(&g);
    }
}

/* Mistral's classes have windows, Llama's none whatever config.json says. */
TEST(convert_gives_windows_to_classes_that_have_them)
{
    struct err e = { 0 };
    const char *out = test_tmp("windows.gguf");
    for (int i = 0; i < 2; i++) {
        static char text[2048];
        struct gguf g;
        int64_t window = 0;
        const char *c = with("\"vocab_size\": 300", "\"vocab_size\": 300, \"sliding_window\": 64");
        snprintf(text, sizeof text, "{\"architectures\": [\"%s\"]%s", i ? "MistralForCausalLM" : "LlamaForCausalLM", strchr(c, ']') + 1);
        CHECK_MSG(convert_dir(make_dir("hf_window", &(struct damage){ .config = text }), out, &(struct convert_options){ 0 }, &e) == OK, "%s", e.text);
        CHECK_MSG(gguf_open(&g, out, true, &e) == OK, "%s", e.text);
        CHECK(gguf_get_i64(&g, "llama.attention.sliding_window", 0, 1000, &window, NULL) == (i == 1) && window == (i ? 64 : 0));
        gguf_close(&g);
    }
}

/* Rows of 64 and 96 are no blocks of 256: the report and the file say F16. Of Q8_0 all rows fit. */
TEST(convert_counts_the_types_that_are_written)
{
    static const struct { const char *asked, *type, *types; int64_t file_type; } rows[] = {
        { "q4_k", "F16", "16 F16 (rows are no multiple of 256), 5 F32", 1 }, { "q8_0", "Q8_0", "16 Q8_0, 5 F32", 7 },
    };
    const char *dir = make_dir("hf_types", &(struct damage){ 0 }), *out = test_tmp("types.gguf");
    for (int i = 0; i < ARRAY_LEN(rows); i++) {
        struct err e = { 0 };
        struct convert *c = NULL;
        struct convert_info info;
        struct gguf g;
        int64_t type = -1;
        const struct convert_options o = { .type = dtype_by_name(rows[i].asked) };
        CHECK_MSG(convert_open(&c, dir, &o, &e) == OK && convert_write(c, out, &e) == OK, "%s", e.text);
        if (!c) return;
        convert_info(c, &info);
        CHECK_MSG(!strcmp(info.types, rows[i].types) && !strcmp(info.type, rows[i].type), "%s, %s", info.type, info.types);
        convert_close(c);
        CHECK_MSG(gguf_open(&g, out, true, &e) == OK, "%s", e.text);
        CHECK(gguf_get_i64(&g, "general.file_type", 0, 100, &type, NULL) && type == rows[i].file_type);
        gguf_close(&g);
    }
}

TEST(convert_leaves_out_unused_tensors_when_told)
{
    struct err e = { 0 };
    const char *out = test_tmp("unused.gguf");
    const char *dir = make_dir("hf_unused", &(struct damage){ .extra = "model.layers.0.mlp.third_proj.weight" });
    CHECK_MSG(convert_dir(dir, out, &(struct convert_options){ .allow_unused = true }, &e) == OK, "%s", e.text);
}

/* Layers behind the last one, if the config says that they predict further tokens; otherwise they are too many. */
TEST(convert_leaves_out_layers_that_predict_further_tokens)
{
    static char more[2048];
    struct err e = { 0 };
    const char *out = test_tmp("nextn.gguf");
    snprintf(more, sizeof more, "%.*s, \"num_nextn_predict_layers\": 1}", (int)(strrchr(config, '}') - config), config);
    struct damage d = { .config = more, .extra = "model.layers.2.eh_proj.weight" };
    CHECK_MSG(convert_dir(make_dir("hf_nextn", &d), out, &(struct convert_options){ 0 }, &e) == OK, "%s", e.text);
    d.extra = "model.layers.3.eh_proj.weight";
    CHECK(convert_dir(make_dir("hf_nextn", &d), out, &(struct convert_options){ 0 }, &e) == ERR_FORMAT);
    CHECK_HAS(e.text, "model.layers.3.eh_proj.weight");
}

/* Every allocation may fail: an error, nothing lost, nothing left behind. */
TEST(convert_survives_the_failure_of_every_allocation)
{
    struct err e = { 0 };
    const char *dir = make_dir("hf_oom", &(struct damage){ 0 });
    char out[512];
    snprintf(out, sizeof out, "%s", test_tmp("convert_oom.gguf"));
    unlink(out);
    int64_t n = 1;
    for (; n < 3000; n += 1 + n / 16) {
        e = (struct err){ 0 };
        mem_fail_at(n, false);
        status st = convert_dir(dir, out, &(struct convert_options){ .n_threads = 1 }, &e);
        mem_fail_at(0, false);
        if (st == OK) break;
        CHECK_MSG(e.code == ERR_MEMORY, "allocation %lld: %d %s", (long long)n, (int)e.code, e.text);
        CHECK(access(out, F_OK) != 0);
    }
    CHECK_MSG(n < 3000, "never succeeded");
}

static bool stop_at_once(void *ctx, size_t done, size_t total) { return false; }

TEST(convert_stopped_leaves_nothing)
{
    struct err e = { 0 };
    const char *dir = make_dir("hf_stop", &(struct damage){ 0 });
    char out[512];
    snprintf(out, sizeof out, "%s", test_tmp("stopped.gguf"));
    unlink(out);
    CHECK(convert_dir(dir, out, &(struct convert_options){ .n_threads = 1, .progress = stop_at_once }, &e) == ERR_INTERRUPTED);
    CHECK(access(out, F_OK) != 0);
}

SUITE(convert, T(convert_keeps_weights_and_pairs_rope_rows), T(convert_gives_the_same_bytes_for_all_threads_and_containers),
      T(convert_rounds_as_the_format_does), T(convert_refuses_with_names_and_values), T(convert_keeps_that_the_ramp_of_yarn_is_not_rounded),
      T(convert_reads_rope_scaling_before_rope_parameters), T(convert_gives_windows_to_classes_that_have_them),
      T(convert_counts_the_types_that_are_written), T(convert_leaves_out_unused_tensors_when_told),
      T(convert_leaves_out_layers_that_predict_further_tokens), T(convert_survives_the_failure_of_every_allocation),
      T(convert_stopped_leaves_nothing));
