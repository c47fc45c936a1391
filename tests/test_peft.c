/* test_peft - PEFT folders against the PEFT library's own logits (golden/peft, by oracle/adapters.py), there and back; what GGUF adapters cannot say is
 * refused by name. */
#include "src/peft.h"
#include "src/convert.h"
#include "tests/golden_model.h"
#include "tests/test.h"
#include "tests/tiny.h"
#include <dirent.h>
#include <sys/stat.h>

static const char folder[] = "tests/golden/peft";

/* "mixtral-experts" of "mixtral-experts.txt"; the base is the part before the last dash. */
static bool open_base(const char *name, int64_t n_ctx, struct model **m)
{
    char path[400], dir[600], out[600];
    struct golden g;
    struct err e = { 0 };
    struct convert *c = NULL;
    snprintf(path, sizeof path, "tests/golden/arch/%.*s.txt", (int)(strrchr(name, '-') - name), name);
    snprintf(dir, sizeof dir, "%s", test_tmp("peft_base"));
    snprintf(out, sizeof out, "%s", test_tmp("peft_base.gguf"));
    bool made = golden_read(&g, path) && golden_checkpoint(&g, dir);
    mem_free(g.text);
    if (!made) return false;
    status st = convert_open(&c, dir, &(struct convert_options){ .type = dtype_by_name("f32"), .n_threads = 1 }, &e);
    if (st == OK) st = convert_write(c, out, &e);
    convert_close(c);
    if (st == OK) st = model_open(m, out, &(struct model_options){ .n_ctx = n_ctx }, &e);
    CHECK_MSG(st == OK, "%s", e.text);
    return st == OK;
}

static bool make_folder(const struct golden *g, const char *dir)
{
    char path[700];
    mkdir(dir, 0777);
    golden_file(dir, "adapter_config.json", g->config, strlen(g->config));
    snprintf(path, sizeof path, "%s/adapter_model.safetensors", dir);
    return golden_tensors(g, path);
}

static void run_adapter(const struct model *m, const char *lora, const struct golden *g, float *x, const char *how)
{
    struct err e = { 0 };
    struct adapter *a = NULL;
    status st = adapter_open(&a, lora, m, &e);
    if (st == OK) st = golden_run(m, &(struct adapter_use){ a, 1 }, g, g->n, x, VOCAB, &e);
    CHECK_MSG(st == OK, "%s: %s", how, e.text);
    adapter_close(a);
}

static void there_and_back(const struct golden *g, const struct model *m)
{
    struct err e = { 0 };
    struct peft_info info, again;
    struct peft_options o = { 0 };
    char dir[600], lora[600], back[600], second[600];
    size_t n = (size_t)(g->n * VOCAB);
    float *x = calloc(n, sizeof *x), *y = calloc(n, sizeof *y), worst = 0;
    snprintf(dir, sizeof dir, "%s", test_tmp("peft_folder"));
    snprintf(lora, sizeof lora, "%s", test_tmp("peft_lora.gguf"));
    snprintf(back, sizeof back, "%s", test_tmp("peft_back"));
    snprintf(second, sizeof second, "%s", test_tmp("peft_second.gguf"));
    status st = make_folder(g, dir) ? peft_import(dir, m, lora, &o, &info, &e) : ERR_FILE;
    CHECK_MSG(st == OK, "import: %s", e.text);
    if (st == OK) {
        run_adapter(m, lora, g, x, "imported");
        golden_compare(g, x, VOCAB, "imported");
        st = peft_export(lora, m, back, &o, &again, &e);
        if (st == OK) st = peft_import(back, m, second, &o, &again, &e);
        if (strstr(g->config, "target_parameters")) {
            CHECK(st == OK || st == ERR_FORMAT); /* experts without names of their own are refused, by name */
            if (st != OK) CHECK_HAS(e.text, "no module of the checkpoint is this weight");
        } else CHECK_MSG(st == OK, "back: %s", e.text);
    }
    if (st == OK) {
        run_adapter(m, second, g, y, "again");
        for (size_t i = 0; i < n; i++) worst = fmaxf(worst, fabsf(x[i] - y[i]));
        CHECK_MSG((double)worst <= 1e-6 * g->scale, "back and again: logits are off by %.2g of the largest", (double)worst / g->scale);
    }
    free(x), free(y);
}

TEST(peft_gives_the_logits_of_peft)
{
    static char name[100][80];
    int n = 0;
    DIR *d = opendir(folder);
    for (struct dirent *f = d ? readdir(d) : NULL; f && n < ARRAY_LEN(name); f = readdir(d))
        if (strstr(f->d_name, ".txt")) snprintf(name[n++], sizeof name[0], "%.*s", (int)min_i64((int64_t)strlen(f->d_name) - 4, 79), f->d_name);
    if (d) closedir(d);
    CHECK_MSG(n > 5, "%s: no goldens", folder);
    for (int i = 0; i < n; i++) {
        char path[320];
        struct golden g;
        struct model *m = NULL;
        test_begin("peft_%s_gives_the_logits_of_peft", name[i]);
        snprintf(path, sizeof path, "%s/%.79s.txt", folder, name[i]);
        if (golden_read(&g, path) && open_base(name[i], g.n, &m)) there_and_back(&g, m);
        mem_free(g.text);
        model_close(m);
    }
}

/* ---- refusals ---- */

#define Q "tensor base_model.model.model.layers.0.self_attn.q_proj."
#define CONFIG(more) "{\"peft_type\":\"LORA\",\"r\":2,\"lora_alpha\":4" more "}"

static const struct {
    const char *text, *config;
    const char *line[4];
} bad[] = {
    { "peft_type is IA3, expected LORA", "{\"peft_type\":\"IA3\"}", { 0 } },
    { "peft_type is missing", "{}", { 0 } },
    { "lora_alpha is no number", "{\"peft_type\":\"LORA\"}", { 0 } },
    { "use_dora: DoRA", CONFIG(",\"use_dora\":true"), { 0 } },
    { "modules_to_save: whole modules", CONFIG(",\"modules_to_save\":[\"lm_head\"]"), { 0 } },
    { "bias is \"all\"", CONFIG(",\"bias\":\"all\""), { 0 } },
    { "init_lora_weights is \"pissa_niter_4\"", CONFIG(",\"init_lora_weights\":\"pissa_niter_4\""), { 0 } },
    { "alora_invocation_tokens", CONFIG(",\"alora_invocation_tokens\":[1,2]"), { 0 } },
    { "no expression that this program reads", CONFIG(",\"alpha_pattern\":{\"(?:x)\":2}"), { Q "lora_A.weight 2 64", Q "lora_B.weight 64 2" } },
    { "no expression that this program reads", CONFIG(",\"alpha_pattern\":{\"((.*)*\\\\2(.*)*\\\\3x)\":2}"),
      { Q "lora_A.weight 2 64", Q "lora_B.weight 64 2" } },
    { "no expression that this program reads", CONFIG(",\"alpha_pattern\":{\"(((a{1,255}){1,255}){1,255})\":2}"),
      { Q "lora_A.weight 2 64", Q "lora_B.weight 64 2" } },
    { "no expression that this program reads", CONFIG(",\"alpha_pattern\":{\"a+++++++++++++++++++++++++++++++++++\":2}"),
      { Q "lora_A.weight 2 64", Q "lora_B.weight 64 2" } },
    { "has no number", CONFIG(",\"alpha_pattern\":{\"q_proj\":\"a\"}"), { Q "lora_A.weight 2 64", Q "lora_B.weight 64 2" } },
    { "its alpha makes an element of the second matrix for blk.1.attn_q.weight", CONFIG(",\"alpha_pattern\":{\"1.self_attn.q_proj\":1e60}"),
      { Q "lora_A.weight 2 64", Q "lora_B.weight 64 2", "tensor base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight 1 64",
        "tensor base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight 64 1" } },
    { "has no partner lora_B", CONFIG(""), { Q "lora_A.weight 2 64" } },
    { "has no partner lora_A", CONFIG(""), { Q "lora_B.weight 64 2" } },
    { "A has 3 rows, B 2 columns", CONFIG(""), { Q "lora_A.weight 3 64", Q "lora_B.weight 64 2" } },
    { "shape is [2, 63], expected [2, 64] for blk.0.attn_q.weight", CONFIG(""), { Q "lora_A.weight 2 63", Q "lora_B.weight 64 2" } },
    { "shape is [65, 2], expected [64, 2] for blk.0.attn_q.weight", CONFIG(""), { Q "lora_A.weight 2 64", Q "lora_B.weight 65 2" } },
    { "DoRA cannot be expressed", CONFIG(""), { Q "lora_A.weight 2 64", Q "lora_B.weight 64 2", Q "lora_magnitude_vector 64" } },
    { "biases cannot be expressed", CONFIG(""), { Q "lora_A.weight 2 64", Q "lora_B.weight 64 2", Q "lora_B.bias 64" } },
    { "not a part of a LoRA adapter", CONFIG(""), { Q "lora_A.weight 2 64", Q "lora_B.weight 64 2", "tensor base_model.model.lm_head.weight 268 64" } },
    { "architecture llama has no weight for this module", CONFIG(""),
      { "tensor base_model.model.model.layers.9.self_attn.q_proj.lora_A.weight 2 64",
        "tensor base_model.model.model.layers.9.self_attn.q_proj.lora_B.weight 64 2" } },
    { "shape is [267, 2], expected [268, 2] for output.weight", CONFIG(""),
      { "tensor base_model.model.lm_head.lora_A.weight 2 64", "tensor base_model.model.lm_head.lora_B.weight 267 2" } },
    { "a matrix's adapter for the embedding", CONFIG(""),
      { "tensor base_model.model.model.embed_tokens.lora_A.weight 2 268", "tensor base_model.model.model.embed_tokens.lora_B.weight 64 2" } },
    { "ensure_weight_tying", CONFIG(",\"ensure_weight_tying\":true"),
      { "tensor base_model.model.model.embed_tokens.lora_embedding_A 2 268", "tensor base_model.model.model.embed_tokens.lora_embedding_B 64 2" } },
    { "the module is there twice", CONFIG(""),
      { Q "lora_A.weight 2 64", Q "lora_A.default.weight 2 64", Q "lora_B.weight 64 2" } },
    { "no LoRA matrices", CONFIG(""), { "tensor base_model.model.model.embed_tokens.base_layer.weight 268 64" } },
};

TEST(peft_refuses_what_an_adapter_cannot_say)
{
    struct err e = { 0 };
    struct model *m = NULL;
    char dir[600], out[600];
    CHECK(tiny_model(test_tmp("peft_tiny.gguf"), &(struct tiny_options){ .arch = "llama", .tied = true }, &e) == OK);
    snprintf(dir, sizeof dir, "%s", test_tmp("peft_bad"));
    snprintf(out, sizeof out, "%s", test_tmp("peft_bad.gguf"));
    CHECK_MSG(model_open(&m, test_tmp("peft_tiny.gguf"), &(struct model_options){ 0 }, &e) == OK, "%s", e.text);
    for (int i = 0; m && i < ARRAY_LEN(bad); i++) {
        struct golden g = { .config = bad[i].config };
        char line[4][160];
        struct peft_info info;
        for (int k = 0; k < 4 && bad[i].line[k]; k++) {
            snprintf(line[k], sizeof line[k], "%s", bad[i].line[k]);
            g.line[g.n_lines++] = line[k];
        }
        e = (struct err){ 0 };
        CHECK(make_folder(&g, dir) && peft_import(dir, m, out, &(struct peft_options){ 0 }, &info, &e) == ERR_FORMAT);
        CHECK_HAS(e.text, bad[i].text);
    }
    model_close(m);
}

/* Nothing to add in a float: B is zero, whatever the scale; 0 in the file would mean 1. */
TEST(peft_with_an_alpha_of_nothing_adds_nothing)
{
    static const char *const alphas[] = { "0", "1e-60", "4,\"alpha_pattern\":{\"layers\\\\.[0-9]{1,2}\\\\..*(q|k)_pro[j]+\":0}" };
    struct err e = { 0 };
    struct model *m = NULL;
    char dir[600], out[600], config[200], line[2][100] = { Q "lora_A.weight 2 64", Q "lora_B.weight 64 2" };
    CHECK(tiny_model(test_tmp("peft_tiny.gguf"), &(struct tiny_options){ .arch = "llama" }, &e) == OK);
    snprintf(dir, sizeof dir, "%s", test_tmp("peft_none"));
    snprintf(out, sizeof out, "%s", test_tmp("peft_none.gguf"));
    CHECK_MSG(model_open(&m, test_tmp("peft_tiny.gguf"), &(struct model_options){ 0 }, &e) == OK, "%s", e.text);
    for (int i = 0; m && i < ARRAY_LEN(alphas); i++) {
        struct golden g = { .config = config, .line = { line[0], line[1] }, .n_lines = 2 };
        struct peft_info info;
        struct gguf f;
        snprintf(config, sizeof config, "{\"peft_type\":\"LORA\",\"r\":2,\"lora_alpha\":%s}", alphas[i]);
        CHECK(make_folder(&g, dir));
        CHECK_MSG(peft_import(dir, m, out, &(struct peft_options){ 0 }, &info, &e) == OK && gguf_open(&f, out, true, &e) == OK, "%s", e.text);
        const struct tensor *b = e.code ? NULL : gguf_tensor(&f, "blk.0.attn_q.weight.lora_b");
        for (int64_t k = 0; b && k < 128; k++) {
            float x = ((const float *)b->data)[k];
            CHECK_MSG(fabsf(x) < 1e-30f, "alpha %s: element %lld is %g", alphas[i], (long long)k, (double)x);
        }
        CHECK(b && info.alpha != 0);
        if (b) gguf_close(&f);
    }
    model_close(m);
}

SUITE(peft, T(peft_gives_the_logits_of_peft), T(peft_refuses_what_an_adapter_cannot_say), T(peft_with_an_alpha_of_nothing_adds_nothing));
