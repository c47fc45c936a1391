/* test_convert_hostile - checkpoints whose config.json holds absurd values: those of golden/arch/, each number replaced by others. Each is refused with a
 * text, or is converted, opened and run; quickly. The weights are zeros: nothing is said here about results. */
#include "tests/convert_use.h"
#include "tests/test.h"
#include <dirent.h>

/* ---- one configuration ---- */

struct base {
    char *text; /* lines "config", "tensor" and others */
    size_t n;
    char *config, *config_end;
};

static bool base_open(struct base *b, const char *name)
{
    char path[200];
    struct err e = { 0 };
    snprintf(path, sizeof path, "tests/golden/arch/%.100s.txt", name);
    status st = file_text(path, 1 << 16, &b->text, &b->n, &e);
    CHECK_MSG(st == OK, "%s", e.text);
    if (st != OK) return false;
    char *line = strstr(b->text, "\nconfig ");
    b->config = line ? line + 1 : NULL;
    b->config_end = line ? strchr(line + 1, '\n') : NULL;
    CHECK_MSG(b->config_end, "%s: no config", path);
    return b->config_end != NULL;
}

/* The text with the value at `at` replaced; at NULL: with a member key added. The caller frees. */
static char *with_value(const struct base *b, const char *at, const char *key, const char *value, size_t *n)
{
    const char *from = at ? at : b->config + strlen("config {"), *to = at ? use_value_end(at, b->config_end) : from;
    char *out = malloc(b->n + strlen(value) + strlen(key) + 8);
    size_t k = (size_t)(from - b->text);
    memcpy(out, b->text, k);
    k += at ? (size_t)sprintf(out + k, "%s", value) : (size_t)sprintf(out + k, "\"%s\":%s,", key, value);
    memcpy(out + k, to, (size_t)(b->text + b->n - to));
    *n = k + (size_t)(b->text + b->n - to);
    return out;
}

static const char *folder(void)
{
    static char dir[512];
    if (!dir[0]) {
        snprintf(dir, sizeof dir, "%s", test_tmp("hostile"));
        mkdir(dir, 0777);
        use_put_tokenizer(dir);
    }
    return dir;
}

static status convert_with(const struct base *b, const char *at, const char *key, const char *value, struct err *e)
{
    size_t n;
    char *text = with_value(b, at, key, value, &n);
    bool made = use_make(folder(), text, n);
    free(text);
    CHECK(made);
    return use_convert(folder(), e);
}

/* ---- a table of refusals ---- */

static const struct {
    const char *base, *key, *value, *error; /* a part of the text */
} absurd[] = {
    { "llama", "hidden_size", "0", "hidden_size|n_embd|d_model is 0, expected 1 to 1.04858e+06" },
    { "llama", "hidden_size", "-64", "hidden_size|n_embd|d_model is -64, expected 1 to 1.04858e+06" },
    { "llama", "hidden_size", "1e300", "hidden_size|n_embd|d_model is 1e+300, expected 1 to 1.04858e+06" },
    { "llama", "hidden_size", "64.5", "hidden_size|n_embd|d_model is no integer" },
    { "llama", "hidden_size", "\"64\"", "hidden_size|n_embd|d_model is no number" },
    { "llama", "hidden_size", "[64]", "hidden_size|n_embd|d_model is no number" },
    { "llama", "hidden_size", "{\"a\":64}", "hidden_size|n_embd|d_model is no number" },
    { "llama", "hidden_size", "4611686018427387904", "hidden_size|n_embd|d_model is 4.61169e+18, expected 1 to 1.04858" },
    { "llama", "hidden_size", "null", "config.json: hidden_size or n_embd or d_model is missing" },
    { "llama", "num_hidden_layers", "0", "num_hidden_layers|n_layer|num_layers|n_layers is 0, expected 1 t" },
    { "llama", "num_hidden_layers", "1025", "num_hidden_layers|n_layer|num_layers|n_layers is 1025, expected " },
    { "llama", "num_hidden_layers", "4", "9 tensors are missing: model.layers.3.input_layernorm.weight, mod" },
    { "llama", "num_attention_heads", "0", "num_attention_heads|n_head|n_heads is 0, expected 1 to 1024" },
    { "llama", "num_attention_heads", "7", "layer 0: head_count 7 is no multiple of head_count_kv 2" },
    { "llama", "num_attention_heads", "[4]", "llama.attention.head_count has 1 items, expected one for each of" },
    { "llama", "num_key_value_heads", "0", "layer 0: head_count 4 is no multiple of head_count_kv 0" },
    { "llama", "num_key_value_heads", "3", "layer 0: head_count 4 is no multiple of head_count_kv 3" },
    { "llama", "head_dim", "12", "layer 0: head sizes 12 and 12, expected multiples of 8 up to 102" },
    { "llama", "head_dim", "1e9", "head_dim is 1e+09, expected 8 to 1024" },
    { "llama", "rms_norm_eps", "NaN", "rms_norm_eps|norm_eps|norm_epsilon is nan, expected 1e-12 to 1" },
    { "llama", "rms_norm_eps", "0", "rms_norm_eps|norm_eps|norm_epsilon is 0, expected 1e-12 to 1" },
    { "llama", "intermediate_size", "0", "key llama.feed_forward_length is missing" },
    { "llama", "intermediate_size", "9223372036854775807", "intermediate_size|n_inner|ffn_dim is 9.22337e+18, expected 0 to " },
    { "llama", "max_position_embeddings", "0", "max_position_embeddings|n_positions|max_seq_len|seq_length is 0," },
    { "llama", "architectures", "[]", "\"architectures\" is missing: expected a list such as [\"LlamaForCa" },
    { "llama", "architectures", "\"LlamaForCausalLM\"", "\"architectures\" is missing: expected a list such as [\"LlamaForCa" },
    { "llama", "architectures", "[\"Frobnicate\"]", "\"Frobnicate\" is no architecture that can be converted; known: ll" },
    { "llama-yarn", "factor", "0", "rope factor is 0, expected more than 0" },
    { "llama-yarn", "factor", "1e300", "rope factor is 1e+300, expected more than 0" },
    { "llama-yarn", "original_max_position_embeddings", "1e300", "llama.rope.scaling.original_context_length is 2.14748e+09, expec" },
    { "llama-yarn", "rope_type", "\"frobnicate\"", "rope type \"frobnicate\" is none of default, linear, dynamic, yarn" },
    { "llama-3.1", "rope_theta", "-1", "rope factor 1 is " },
    { "mixtral", "num_local_experts", "0", "6 tensors are missing: model.layers.0.mlp.gate_proj.weight, model" },
    { "mixtral", "num_local_experts", "1e6", "num_local_experts is 1e+06, expected 0 to 1024" },
    { "mixtral", "num_experts_per_tok", "0", "layer 0: 0 of 5 experts of width 96 are used, expected at least " },
    { "mixtral", "num_experts_per_tok", "100", "layer 0: 100 of 5 experts of width 96 are used, expected at leas" },
    { "deepseek2-v3", "kv_lora_rank", "0", "kv_lora_rank is 0, expected 8 to 1024" },
    { "deepseek2-v3", "kv_lora_rank", "1e18", "kv_lora_rank is 1e+18, expected 8 to 1024" },
    { "deepseek2-v3", "qk_rope_head_dim", "0", "qk_rope_head_dim is 0, expected 2 to 1024" },
    { "deepseek2-v3", "qk_nope_head_dim", "-8", "heads of 8 and 32 with 16 rotated dimensions" },
    { "deepseek2-v3", "v_head_dim", "0", "heads of 40 and 0 with 16 rotated dimensions" },
    { "deepseek2-v3", "n_group", "5", "8 experts are no multiple of 5 groups" },
    { "deepseek2-v3", "topk_group", "0", "0 of 4 groups of 2 experts cannot give 3 experts" },
    { "deepseek2-v3", "first_k_dense_replace", "1e9", "first_k_dense_replace is 1e+09, expected 0 to 1024" },
    { "glm4moe", "n_shared_experts", "1024", "model.layers.1.mlp.shared_experts.gate_proj.weight: shape is [40" },
    { "glm4moe", "partial_rotary_factor", "1e300", "glm4moe.rope.dimension_count is 2.14748e+09, expected 2 to 1024" },
    { "gptneox", "partial_rotary_factor", "1e18", "rotary_pct is 1e+18, expected more than 0 to 1" },
    { "gptneox", "num_attention_heads", "0", "num_attention_heads|n_head|n_heads is 0, expected 1 to 1024" },
    { "mpt", "d_model", "1e300", "hidden_size|n_embd|d_model is 1e+300, expected 1 to 1.04858e+06" },
    { "mpt", "expansion_ratio", "1e300", "mpt.feed_forward_length: 206158430112 does not fit u32" },
    { "bloom", "n_head", "0", "num_attention_heads|n_head|n_heads is 0, expected 1 to 1024" },
    { "falcon-7b", "num_attention_heads", "0", "num_attention_heads|n_head|n_heads is 0, expected 1 to 1024" },
    { "gpt2", "n_positions", "0", "max_position_embeddings|n_positions|max_seq_len|seq_length is 0," },
    { "gpt2", "n_inner", "-5", "intermediate_size|n_inner|ffn_dim is -5, expected 0 to 4.1943e+0" },
    { "stablelm-12b", "num_attention_heads", "1024", "layer 0: embedding_length 64 is no multiple of head_count 1024" },
    { "gemma3", "sliding_window", "-1", "sliding_window is -1, expected 0 to 1.67772e+07" },
    { "gemma3", "layer_types", "7", "config.json: layer_types is no list" },
    { "gemma3", "layer_types", "[\"sliding_attention\",\"full_attention\"]", "gemma3.attention.sliding_window_pattern has 2 items, expected on" },
    { "gemma3", "layer_types", "[1,2]", "config.json: layer_types[0] is no string, expected sliding_atten" },
    { "gemma3", "query_pre_attn_scalar", "0", "config.json: query_pre_attn_scalar is 0, expected a number above" },
    { "gpt-oss", "sliding_window", "1e300", "sliding_window is 1e+300, expected 0 to 1.67772e+07" },
    { "phi4-mini", "long_factor", "[1,2]", "long_factor has 2 numbers, expected 6" },
    { "phi4-mini", "long_factor", "7", "long_factor has 0 numbers, expected 6" },
    { "hunyuan-moe", "moe_topk", "[2,3]", "moe_topk differs from layer to layer: not supported" },
    { "hunyuan-moe", "moe_intermediate_size", "1e300", "hunyuan-moe.expert_feed_forward_length is 2.14748e+09, expected " },
    { "granite", "attention_multiplier", "-1", "attention_multiplier is -1, expected 0 to 1e+09" },
    { "cohere2", "logit_scale", "\"x\"", "logit_scale is no number" },
    { "llama", "hidden_act", "\"gelu\"", "hidden_act is \"gelu\", llama has silu" },
    { "gemma2", "hidden_activation", "\"silu\"", "hidden_activation is \"silu\", gemma2 has gelu" },
    { "qwen3moe", "hidden_act", "\"quick_gelu\"", "hidden_act is \"quick_gelu\", qwen3moe has silu" },
    { "arcee", "hidden_act", "\"silu\"", "hidden_act is \"silu\", arcee has relu2" },
    { "gpt2", "scale_attn_weights", "false", "scale_attn_weights is false: not supported" },
};

/* A name that contains dots is a path in the file; here the first member of that name counts. */
static const char *find_value(const struct base *b, const char *key)
{
    char name[100];
    snprintf(name, sizeof name, "\"%s\":", key);
    const char *p = strstr(b->config, name);
    return p && p < b->config_end ? p + strlen(name) : NULL;
}

TEST(convert_refuses_absurd_configurations)
{
    for (int i = 0; i < ARRAY_LEN(absurd); i++) {
        struct base b = { 0 };
        struct err e = { 0 };
        if (!base_open(&b, absurd[i].base)) continue;
        status st = convert_with(&b, find_value(&b, absurd[i].key), absurd[i].key, absurd[i].value, &e);
        CHECK_MSG(st != OK && strstr(e.text, absurd[i].error), "%s: %s = %s: \"%s\"", absurd[i].base, absurd[i].key, absurd[i].value, e.text);
        mem_free(b.text);
    }
}

/* ---- shapes ---- */

/* The text of a golden with a part replaced, made and converted. */
static status convert_replaced(const char *name, const char *from, const char *to, struct err *e)
{
    struct base b = { 0 };
    if (!base_open(&b, name)) return ERR_RUNTIME;
    char *at = strstr(b.text, from), *text = malloc(b.n + strlen(to) + 1);
    CHECK_MSG(at, "%s: no \"%s\"", name, from);
    int n = at ? sprintf(text, "%.*s%s%s", (int)(at - b.text), b.text, to, at + strlen(from)) : 0;
    CHECK(use_make(folder(), text, (size_t)n));
    free(text);
    mem_free(b.text);
    return use_convert(folder(), e);
}

/* A bias whose elements are reordered is read whole: more rows than one do not fit. Windows of rows of a convolution are as wide as the output's. */
TEST(convert_refuses_vectors_that_are_matrices)
{
    static const struct { const char *base, *from, *to, *error; } rows[] = {
        { "gptneox", "query_key_value.bias 192", "query_key_value.bias 50 192", "shape is [50, 192], expected [1, 192]" },
        { "gptneox", "query_key_value.bias 192", "query_key_value.bias 191", "shape is [191], expected [1, 192]" },
        { "bloom", "query_key_value.bias 192", "query_key_value.bias 2 192", "shape is [2, 192], expected [1, 192]" },
        { "qwen35", "conv1d.weight 160 1 4", "conv1d.weight 80 1 8", "shape is [80, 1, 8], expected [160, 4]" },
    };
    for (int i = 0; i < ARRAY_LEN(rows); i++) {
        struct err e = { 0 };
        CHECK(convert_replaced(rows[i].base, rows[i].from, rows[i].to, &e) == ERR_FORMAT);
        CHECK_HAS(e.text, rows[i].error);
    }
}

/* Checkpoints of one architecture have their experts in tensors of their own, or all in one. */
TEST(convert_takes_experts_in_one_tensor)
{
    struct err e = { 0 };
    CHECK_MSG(convert_replaced("qwen35moe", "experts.{0-4}.down_proj.weight 64 40", "experts.down_proj 5 64 40", &e) == OK, "%s", e.text);
    CHECK(convert_replaced("qwen35moe", "experts.{0-4}.down_proj.weight 64 40", "experts.down_proj 4 64 40", &e) == ERR_FORMAT);
    CHECK_HAS(e.text, "shape is [4, 64, 40], expected [320, 40]");
}

/* ---- every value of every configuration ---- */

/* At every fourth place, with values that take turns: with HOSTILE in the environment every place gets every one of them, which takes minutes. */
TEST(convert_survives_any_value_at_any_place)
{
    const char *all = getenv("HOSTILE");
    int n_ok = 0, n_refused = 0, turn = 0;
    DIR *d = opendir("tests/golden/arch");
    for (struct dirent *f = d ? readdir(d) : NULL; f; f = readdir(d)) {
        struct base b = { 0 };
        char name[100];
        if (!strstr(f->d_name, ".txt")) continue;
        snprintf(name, sizeof name, "%.*s", (int)strlen(f->d_name) - 4, f->d_name);
        if (!base_open(&b, name)) continue;
        for (const char *p = b.config; (p = strstr(p, "\":")) && p < b.config_end;) {
            p += 2;
            turn += 7;
            if (!all && turn % 4) continue;
            for (int k = 0; k < (all ? ARRAY_LEN(use_values) : 1); k++) {
                struct err e = { 0 };
                const char *value = use_values[(turn + k) % ARRAY_LEN(use_values)];
                status st = convert_with(&b, p, "", value, &e);
                *(st == OK ? &n_ok : &n_refused) += 1;
                CHECK_MSG((st == OK) == (e.text[0] == 0), "%s: %.40s = %s: %d \"%s\"", name, p, value, st, e.text);
            }
        }
        mem_free(b.text);
    }
    if (d) closedir(d);
    CHECK_MSG(n_ok > 100 && n_refused > 100, "%d converted, %d refused", n_ok, n_refused);
    if (all) printf("%d converted, %d refused\n", n_ok, n_refused);
}

SUITE(convert_hostile, T(convert_refuses_absurd_configurations), T(convert_refuses_vectors_that_are_matrices),
      T(convert_takes_experts_in_one_tensor), T(convert_survives_any_value_at_any_place));
