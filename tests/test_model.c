/* test_model - what opening a model accepts and refuses; every refusal names the object and both values. */
#include "src/cuanto.h"
#include "src/model_int.h"
#include "tests/test.h"
#include "tests/tiny.h"

static void arr_kv_heads(struct gguf_writer *w, void *ctx)
{
    static const int32_t heads[] = { 2, 1, 4 };
    gguf_put_arr(w, "llama.attention.head_count_kv", KV_I32, heads, *(int *)ctx);
}
static void put_i64(struct gguf_writer *w, void *ctx)
{
    const struct {
        const char *key;
        int64_t v;
    } *kv = ctx;
    gguf_put_i64(w, kv->key, KV_I64, kv->v);
}
static void put_f32(struct gguf_writer *w, void *ctx)
{
    const struct {
        const char *key;
        float v;
    } *kv = ctx;
    gguf_put_f32(w, kv->key, kv->v);
}
static void put_str(struct gguf_writer *w, void *ctx)
{
    const struct {
        const char *key, *v;
    } *kv = ctx;
    gguf_put_str(w, kv->key, kv->v, strlen(kv->v));
}
/* The last layer reads the values of layer 1, which are half as wide. */
static void put_shared_caches(struct gguf_writer *w, void *ctx)
{
    static const int32_t width[] = { 16, 8, 16, 16 };
    gguf_put_arr(w, "gemma4.attention.value_length", KV_I32, width, ARRAY_LEN(width));
    gguf_put_i64(w, "gemma4.attention.shared_kv_layers", KV_U32, 2);
}
#define KEY_I64(k, n)                                                                                                                      \
    .more = put_i64, .ctx = &(struct {                                                                                                     \
                         const char *key;                                                                                                  \
                         int64_t v;                                                                                                        \
                     })                                                                                                                    \
    {                                                                                                                                      \
        k, n                                                                                                                               \
    }
#define KEY_F32(k, x)                                                                                                                      \
    .more = put_f32, .ctx = &(struct {                                                                                                     \
                         const char *key;                                                                                                  \
                         float v;                                                                                                          \
                     })                                                                                                                    \
    {                                                                                                                                      \
        k, x                                                                                                                               \
    }
#define KEY_STR(k, s)                                                                                                                      \
    .more = put_str, .ctx = &(struct { const char *key, *v; }) { k, s }

static void put_yarn_ext(struct gguf_writer *w, void *ctx)
{
    gguf_put_str(w, "llama.rope.scaling.type", "yarn", 4);
    gguf_put_i64(w, "llama.rope.scaling.original_context_length", KV_U32, 64);
    gguf_put_f32(w, "llama.rope.scaling.yarn_ext_factor", *(const float *)ctx);
}

TEST(model_refuses_with_names_and_values)
{
    const struct {
        const char *name;
        struct tiny_options o;
        const char *text;
    } rows[] = {
        { "unknown_architecture",
          { .arch = "mamba9" },
          "architecture \"mamba9\" is not supported by this build, which knows llama, qwen2, qwen3, " },
        { "no_architecture", { .drop_key = "general.architecture" }, "key general.architecture is missing" },
        { "no_block_count", { .drop_key = "llama.block_count" }, "key llama.block_count is missing" },
        { "no_context", { .drop_key = "llama.context_length" }, "key llama.context_length is missing" },
        { "too_many_layers",
          { .drop_key = "llama.block_count", KEY_I64("llama.block_count", 4096) },
          "llama.block_count is 4096, expected 1 to 1024" },
        { "zero_heads",
          { .drop_key = "llama.attention.head_count", KEY_I64("llama.attention.head_count", 0) },
          "head_count is 0, expected 1 to 1024" },
        { "heads_no_multiple",
          { .drop_key = "llama.attention.head_count_kv", KEY_I64("llama.attention.head_count_kv", 3) },
          "head_count 4 is no multiple of head_count_kv 3" },
        { "odd_rope",
          { .drop_key = "llama.rope.dimension_count", KEY_I64("llama.rope.dimension_count", 7) },
          "rope.dimension_count is 7, expected an even number up to the head size 16" },
        { "wide_rope",
          { .drop_key = "llama.rope.dimension_count", KEY_I64("llama.rope.dimension_count", 32) },
          "rope.dimension_count is 32" },
        { "head_size", { .drop_key = "llama.attention.key_length", KEY_I64("llama.attention.key_length", 20) }, "head sizes 20 and 16" },
        { "head_size_type",
          { .drop_key = "llama.attention.key_length", KEY_STR("llama.attention.key_length", "16") },
          "llama.attention.key_length" },
        { "rope_scaling_nan", { KEY_F32("llama.rope.scaling.factor", NAN) }, "llama.rope.scaling.factor is nan" },
        { "rope_scaling_zero", { KEY_F32("llama.rope.scaling.factor", 0) }, "llama.rope.scaling.factor is 0, expected" },
        { "rope_scaling_kind", { KEY_STR("llama.rope.scaling.type", "spiral") }, "\"spiral\": this build knows none, linear, yarn, longrope, ntk" },
        { "yarn_ext", { .more = put_yarn_ext, .ctx = &(float){ 0.5f } }, "llama.rope.scaling.yarn_ext_factor is 0.5: only 1 and -1 are supported" },
        { "yarn_without_context", { KEY_STR("llama.rope.scaling.type", "yarn") }, "original_context_length is missing" },
        { "experts", { KEY_I64("llama.expert_count", 8) }, "layer 0: 0 of 8 experts of width 96 are used" },
        { "gate_of_another_width",
          { .arch = "qwen35", .drop_key = "qwen35.attention.value_length", KEY_I64("qwen35.attention.value_length", 24) },
          "layer 1: head sizes 16 and 24, expected two equal ones" },
        { "shared_cache_of_another_width",
          { .arch = "gemma4", .n_layer = 4, .drop_key = "gemma4.attention.value_length", .more = put_shared_caches },
          "layer 3 shares the keys of layer 1: 2 heads of 16 and 16, expected 2 of 16 and 8" },
        { "short_layer_array",
          { .drop_key = "llama.attention.head_count_kv", .more = arr_kv_heads, .ctx = &(int){ 1 } },
          "has 1 items, expected one for each of 2 layers" },
        { "missing_tensor", { .drop_tensor = "blk.1.attn_q.weight" }, "tensor blk.1.attn_q.weight is missing" },
        { "missing_embedding", { .drop_tensor = "token_embd.weight" }, "tensor token_embd.weight is missing" },
        { "missing_bias", { .arch = "qwen2", .drop_tensor = "blk.0.attn_k.bias" }, "tensor blk.0.attn_k.bias is missing" },
        { "wrong_shape", { .reshape = "blk.0.ffn_up.weight" }, "blk.0.ffn_up.weight: shape is [64, 97], expected [64, 96]" },
        { "wrong_norm", { .reshape = "blk.0.attn_norm.weight" }, "blk.0.attn_norm.weight: shape is [64, 2], expected [64, 1]" },
        { "few_rows", { .extra_rows = -5 }, "token_embd.weight has 263 rows but the tokenizer has 268 tokens" },
        { "vocab_key", { KEY_I64("llama.vocab_size", 100) }, "llama.vocab_size is 100 but the tokenizer has 268 tokens" },
        { "nan_norm", { .poison = "output_norm.weight" }, "output_norm.weight: element 0 is" },
    };
    for (int i = 0; i < ARRAY_LEN(rows); i++) {
        test_begin("model_refuses_%s", rows[i].name);
        const char *path = test_tmp("refused.gguf");
        struct err e = { 0 };
        struct model *m = NULL;
        CHECK_MSG(tiny_model(path, &rows[i].o, &e) == OK, "%s", e.text);
        CHECK(model_open(&m, path, &(struct model_options){ 0 }, &e) == ERR_FORMAT);
        CHECK(m == NULL);
        CHECK_HAS(e.text, rows[i].text);
        CHECK_HAS(e.text, path);
        model_close(m);
    }
}

TEST(model_reads_numbers_per_layer)
{
    struct tiny_options o = {
        .n_layer = 3, .n_head_kv = 2, .drop_key = "llama.attention.head_count_kv", .more = arr_kv_heads, .ctx = &(int){ 3 }
    };
    struct err e = { 0 };
    struct model *m = NULL;
    const char *path = test_tmp("differ.gguf");
    CHECK(tiny_model(path, &o, &e) == OK);
    CHECK(model_open(&m, path, &(struct model_options){ 0 }, &e) == ERR_FORMAT); /* weights were written for 2 heads everywhere */
    CHECK_HAS(e.text, "blk.1.attn_k.weight: shape is [64, 32], expected [64, 16]");
}

/* The file again with other head sizes: layer 1 has half as many heads, twice as wide, so that all shapes still fit. */
static status put_wide_heads(const char *path, const char *to, struct err *e)
{
    static const char *const keys[] = { "llama.attention.head_count", "llama.attention.head_count_kv", "llama.attention.key_length",
                                        "llama.attention.value_length", "llama.rope.dimension_count" };
    static const int32_t values[][2] = { { 4, 2 }, { 2, 1 }, { 16, 32 }, { 16, 32 } };
    struct gguf g;
    struct gguf_writer *w;
    TRY(gguf_open(&g, path, true, e));
    status st = gguf_writer_open(&w, to, e);
    for (int64_t i = 0; st == OK && i < g.n_kv; i++) {
        bool replaced = false;
        for (int k = 0; k < ARRAY_LEN(keys); k++)
            replaced |= strlen(keys[k]) == g.kv[i].key.n && !memcmp(keys[k], g.kv[i].key.p, g.kv[i].key.n);
        if (!replaced) gguf_put_kv(w, &g.kv[i]);
    }
    for (int k = 0; st == OK && k < ARRAY_LEN(values); k++) gguf_put_arr(w, keys[k], KV_I32, values[k], 2);
    for (int64_t i = 0; st == OK && i < g.n_tensors; i++) gguf_put_tensor(w, &g.tensor[i]);
    if (st == OK) st = gguf_writer_finish(w, e);
    gguf_close(&g);
    return st;
}

TEST(model_refuses_rope_factors_that_do_not_fit_every_layer)
{
    struct err e = { 0 };
    struct model *m = NULL;
    const char *path = test_tmp("rope_factors.gguf"), *wide = test_tmp("rope_factors_wide.gguf");
    CHECK(tiny_model(path, &(struct tiny_options){ .optional = true }, &e) == OK && put_wide_heads(path, wide, &e) == OK);
    CHECK(model_open(&m, path, &(struct model_options){ 0 }, &e) == OK);
    model_close(m);
    m = NULL;
    CHECK(model_open(&m, wide, &(struct model_options){ 0 }, &e) == ERR_FORMAT);
    CHECK_HAS(e.text, "rope_freqs.weight has 8 factors but layer 1 rotates 16 pairs");
    model_close(m);
}

TEST(model_refuses_longrope_without_factors_and_tells_its_stretch)
{
    struct err e = { 0 };
    struct model *m = NULL;
    struct model_info info;
    const char *path = test_tmp("rope_kinds.gguf");
    CHECK(tiny_model(path, &(struct tiny_options){ .seed = 1 }, &e) == OK);
    CHECK(model_open(&m, path, &(struct model_options){ .rope_scaling = "longrope" }, &e) == ERR_USAGE);
    CHECK_HAS(e.text, "longrope needs factors, and this file has no rope_factors_long.weight");
    e = (struct err){ 0 };
    CHECK_MSG(model_open(&m, path, &(struct model_options){ .rope_scaling = "yarn", .rope_factor = 2 }, &e) == OK, "%s", e.text);
    model_info(m, &info);
    CHECK(!strcmp(info.rope, "yarn") && info.rope_factor == 2);
    model_close(m);
}

TEST(model_check_names_the_poisoned_row)
{
    struct err e = { 0 };
    struct model *m = NULL;
    const char *path = test_tmp("poison.gguf");
    CHECK(tiny_model(path, &(struct tiny_options){ .poison = "blk.1.ffn_down.weight", .type = "f16" }, &e) == OK);
    CHECK(model_open(&m, path, &(struct model_options){ 0 }, &e) == OK);
    CHECK(model_check(m, &e) == ERR_FORMAT);
    CHECK_HAS(e.text, "blk.1.ffn_down.weight: row 1 column 0 is");
    model_close(m);
    m = NULL;
    e = (struct err){ 0 };
    CHECK(model_open(&m, path, &(struct model_options){ .check = true }, &e) == ERR_FORMAT);
    CHECK_HAS(e.text, "blk.1.ffn_down.weight");
    model_close(m);
}

TEST(model_info_counts)
{
    struct err e = { 0 };
    struct model *m = NULL;
    const char *path = test_tmp("info.gguf");
    CHECK(tiny_model(path, &(struct tiny_options){ .type = "q8_0" }, &e) == OK);
    CHECK(model_open(&m, path, &(struct model_options){ 0 }, &e) == OK);
    struct model_info i;
    model_info(m, &i);
    CHECK_STR(i.arch, "llama");
    CHECK_STR(i.name, "tiny");
    CHECK_STR(i.type, "Q8_0");
    uint64_t layer = 64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 96, head = 64 * TINY_TOKENS;
    CHECK(i.n_layer == 2 && i.n_embd == 64 && i.n_head == 4 && i.n_head_kv == 2 && i.n_ff == 96 && i.n_vocab == TINY_TOKENS &&
          i.n_ctx_train == 256);
    CHECK(i.n_params == 2 * (layer + 128) + 2 * head + 64);
    CHECK(i.token_macs == 2 * layer + head);
    CHECK(i.type_macs[GGUF_Q8_0] == 2 * layer && i.head_macs == head && i.head_type->gguf_id == GGUF_Q8_0);
    CHECK(i.token_bytes == 2 * (layer * 34 / 32 + 128 * 4) + head * 34 / 32 + 64 * 34 / 32);
    CHECK_STR(i.note, "");
    model_close(m);
    CHECK(tiny_model(path, &(struct tiny_options){ .arch = "qwen2", .n_layer = 2 }, &e) == OK);
}

SUITE(model, T(model_refuses_with_names_and_values), T(model_reads_numbers_per_layer),
      T(model_refuses_rope_factors_that_do_not_fit_every_layer), T(model_refuses_longrope_without_factors_and_tells_its_stretch),
      T(model_check_names_the_poisoned_row), T(model_info_counts));
