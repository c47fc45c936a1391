/* export_config - config.json and generation_config.json from the keys of a GGUF file: the numbers of the hparam rows under their Hugging Face names,
 * the position scheme, and per architecture what the rows do not say. */
#include "src/export_int.h"
#include "src/import.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- architectures ---- */

static status put_biases(const struct model *m, struct json_out *o, struct err *e)
{
    bool q = model_weight(m, 0, W_BIAS_Q) != NULL, out = model_weight(m, 0, W_BIAS_O) != NULL;
    if (q != out) return err_set(e, ERR_FORMAT, "biases of attn_q and attn_output: one of them alone cannot be said in config.json");
    json_put_bool(o, "attention_bias", q);
    json_put_bool(o, "mlp_bias", model_weight(m, 0, W_BIAS_GATE) || model_weight(m, 0, W_BIAS_UP));
    return OK;
}

static void put_windows(const struct model *m, struct json_out *o)
{
    json_put_i64(o, "sliding_window", m->hp.window);
    json_begin(o, "layer_types", '[');
    for (int64_t il = 0; il < m->hp.n_layer; il++) json_put_cstr(o, NULL, m->layer[il].hp.window ? "sliding_attention" : "full_attention");
    json_end(o, ']');
}

static status qwen(const struct model *m, struct json_out *o, struct err *e)
{
    json_put_bool(o, "use_sliding_window", m->hp.window > 0);
    if (m->hp.window > 0) put_windows(m, o);
    return OK;
}

static status experts(const struct model *m, struct json_out *o, struct err *e)
{
    json_put_bool(o, "norm_topk_prob", m->hp.expert_norm != 0);
    json_put_i64(o, "decoder_sparse_step", 1);
    return OK;
}

static void put_gelu(struct json_out *o)
{
    json_put_cstr(o, "hidden_act", "gelu_pytorch_tanh");
    json_put_cstr(o, "hidden_activation", "gelu_pytorch_tanh");
}

static status gemma(const struct model *m, struct json_out *o, struct err *e)
{
    put_gelu(o);
    return OK;
}

static status gemma_windows(const struct model *m, struct json_out *o, struct err *e)
{
    double scale = m->hp.attn_scale;
    put_gelu(o);
    json_put_i64(o, "query_pre_attn_scalar", scale > 0 ? import_whole(1 / (scale * scale) + 0.5) : m->layer[0].hp.head_dim);
    put_windows(m, o);
    return OK;
}

static status one_window(const struct model *m, struct json_out *o, struct err *e)
{
    for (int64_t il = 1; il < m->hp.n_layer; il++)
        if (m->layer[il].hp.window != m->layer[0].hp.window) return err_set(e, ERR_FORMAT, "layers with windows beside others cannot be said in config.json");
    if (m->layer[0].hp.window) json_put_i64(o, "sliding_window", m->layer[0].hp.window);
    else json_put_null(o, "sliding_window");
    return OK;
}

static status no_window(const struct model *m, struct json_out *o, struct err *e)
{
    for (int64_t il = 0; il < m->hp.n_layer; il++)
        if (m->layer[il].hp.window) return err_set(e, ERR_FORMAT, "architecture %s with windows cannot be written as a checkpoint yet", m->arch->name);
    return OK;
}

/* Of several rows for an architecture the first that fits counts. */
static const struct export_arch archs[] = {
    { "llama", "mixtral", "MixtralForCausalLM", one_window, EXPORT_EXPERTS },
    { "llama", "mistral", "MistralForCausalLM", one_window, EXPORT_WINDOWS },
    { "llama", "llama", "LlamaForCausalLM", put_biases },
    { "qwen2", "qwen2", "Qwen2ForCausalLM", qwen },
    { "qwen3", "qwen3", "Qwen3ForCausalLM", qwen },
    { "qwen3moe", "qwen3_moe", "Qwen3MoeForCausalLM", experts },
    { "gemma", "gemma", "GemmaForCausalLM", gemma },
    { "gemma2", "gemma2", "Gemma2ForCausalLM", gemma_windows },
    { "gemma3", "gemma3_text", "Gemma3ForCausalLM", gemma_windows },
    { "olmo2", "olmo2", "Olmo2ForCausalLM", no_window },
    { "phi3", "phi3", "Phi3ForCausalLM", one_window },
    { "granite", "granite", "GraniteForCausalLM", NULL },
    { "seed_oss", "seed_oss", "SeedOssForCausalLM", NULL },
    { "ernie4_5", "ernie4_5", "Ernie4_5ForCausalLM", NULL },
    { "arcee", "arcee", "ArceeForCausalLM", NULL },
};

const struct export_arch *export_arch_of(const struct model *m)
{
    const struct arch_import *own = m->arch->import;
    if (own && own->weights && own->weights[0].id != W_COUNT) return NULL;
    bool any = false;
    for (int64_t il = 0; il < m->hp.n_layer; il++) any |= m->layer[il].hp.window > 0;
    for (int i = 0; i < ARRAY_LEN(archs); i++) {
        bool fits = archs[i].when == EXPORT_EXPERTS ? m->hp.n_expert > 0 : archs[i].when != EXPORT_WINDOWS || any;
        if (fits && !strcmp(archs[i].name, m->arch->name)) return &archs[i];
    }
    return NULL;
}

/* ---- numbers ---- */

/* Is `name` a member of the one open object? */
static bool has_member(const struct json_out *o, const char *name, size_t n)
{
    int depth = 0;
    for (const char *p = o->buf, *end = o->buf + o->n; p && p < end; p++) {
        depth += (*p == '{' || *p == '[') - (*p == '}' || *p == ']');
        if (*p != '"') continue;
        const char *text = ++p;
        while (p < end && *p != '"') p += *p == '\\' ? 2 : 1;
        if (depth == 1 && p + 1 < end && p[1] == ':' && (size_t)(p - text) == n && !memcmp(text, name, n)) return true;
    }
    return false;
}

/* NULL when there is a member of this name already, or memory is out: then o has failed. */
static const char *new_name(struct arena *a, struct json_out *o, const char *name, size_t n)
{
    if (has_member(o, name, n)) return NULL;
    const char *copy = arena_strdup(a, name, n);
    if (!copy) o->failed = true;
    return copy;
}

static const struct gguf_kv *find_key(const struct model *m, const char *key)
{
    char full[160];
    snprintf(full, sizeof full, "%s.%s", m->arch->name, key);
    return gguf_find(&m->g, full);
}

static bool get_number(const struct model *m, const char *key, double *v)
{
    char full[160];
    float f;
    int64_t i;
    snprintf(full, sizeof full, "%s.%s", m->arch->name, key);
    if (gguf_get_i64(&m->g, full, INT64_MIN, INT64_MAX, &i, NULL)) *v = (double)i;
    else if (gguf_get_f32(&m->g, full, &f, NULL)) *v = f;
    else return false;
    return true;
}

static void put_list(const struct gguf_kv *kv, const char *name, bool flags, struct json_out *o)
{
    bool same = true;
    for (uint64_t i = 1; i < kv->n; i++) same = same && gguf_arr_i64(kv, i) == gguf_arr_i64(kv, 0);
    if (same && kv->n) {
        json_put_i64(o, name, gguf_arr_i64(kv, 0));
        return;
    }
    json_begin(o, name, '[');
    for (uint64_t i = 0; i < kv->n; i++) json_put_i64(o, NULL, gguf_arr_i64(kv, i));
    json_end(o, ']');
}

static void put_row(const struct export *x, const struct hparam_row *r, struct json_out *o)
{
    const struct gguf_kv *kv = r->hf ? find_key(x->m, r->key) : NULL;
    size_t n = r->hf ? strcspn(r->hf, "|") : 0;
    double v;
    bool b;
    char full[160];
    const char *name = kv && !memchr(r->hf, '.', n) ? new_name(x->mem, o, r->hf, n) : NULL;
    if (!name) return;
    snprintf(full, sizeof full, "%s.%s", x->m->arch->name, r->key);
    if (kv->kind == KV_ARR && kv->elem != KV_STR && kv->elem != KV_F32 && kv->elem != KV_F64) put_list(kv, name, r->hi == 1, o);
    else if (r->kind == HP_BOOL && gguf_get_bool(&x->m->g, full, &b, NULL)) json_put_bool(o, name, b);
    else if (!get_number(x->m, r->key, &v)) return;
    else if (r->kind == HP_FLOAT) json_put_real(o, name, v);
    else json_put_i64(o, name, import_whole(v));
}

static void put_numbers(const struct export *x, struct json_out *o)
{
    const struct model *m = x->m;
    const struct layer_params *l = &m->layer[0].hp;
    for (const struct hparam_row *r = m->arch->hparams; r->key; r++)
        if (strcmp(r->key, "attention.sliding_window")) put_row(x, r, o);
    for (const struct hparam_row *r = common_hparams; r->key; r++)
        if (!arch_replaces(m->arch, r)) put_row(x, r, o);
    if (new_name(x->mem, o, "head_dim", 8)) json_put_i64(o, "head_dim", l->head_dim);
    if (new_name(x->mem, o, "num_key_value_heads", 19)) json_put_i64(o, "num_key_value_heads", l->n_head_kv);
    if (new_name(x->mem, o, "rope_theta", 10)) json_put_real(o, "rope_theta", m->hp.rope_base);
    if (l->rope.n_rot != l->head_dim) json_put_real(o, "partial_rotary_factor", (double)l->rope.n_rot / (double)l->head_dim);
    json_put_i64(o, "vocab_size", model_weight(m, -1, W_EMBD)->ne[1]);
}

/* ---- positions ---- */

static void put_factors(const struct model *m, const char *tensor, const char *name, struct json_out *o)
{
    const struct tensor *t = gguf_tensor(&m->g, tensor);
    if (!t || t->type->gguf_id != GGUF_F32) return;
    json_begin(o, name, '[');
    for (int64_t i = 0; i < t->ne[0]; i++) json_put_real(o, NULL, ((const float *)t->data)[i]);
    json_end(o, ']');
}

struct llama3 { double factor, low, high, l0; };

static double llama3_factor(const struct llama3 *p, double wave)
{
    double smooth = (p->l0 / wave - p->low) / (p->high - p->low);
    return wave < p->l0 / p->high ? 1 : wave > p->l0 / p->low ? p->factor : 1 / ((1 - smooth) / p->factor + smooth);
}

static double wave_of(const struct model *m, int64_t i, int64_t n) { return 2 * 3.14159265358979323846 * pow(m->hp.rope_base, (double)i / (double)n); }

static bool gives(const struct model *m, const struct llama3 *p, const float *f, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        double want = llama3_factor(p, wave_of(m, i, n));
        if (!(fabs(f[i] - want) <= 1e-4 * want)) return false;
    }
    return true;
}

/* Which numbers give these factors? The whole factor is that of the slowest pair; Llama 3.1 and 3.2 have a low and a high factor of 1 and 4; the original
 * context follows from any pair between: f = 1 / ((1 - s) / factor + s), s = (l0 / wave - 1) / 3. */
static bool find_llama3(const struct model *m, const float *f, int64_t n, struct llama3 *p)
{
    *p = (struct llama3){ f[n - 1], 1, 4, 8192 };
    if (gives(m, p, f, n)) return true;
    for (int64_t i = 0; i < n; i++) {
        double s = (1 / (double)f[i] - 1 / p->factor) / (1 - 1 / p->factor);
        if (!(s > 0 && s < 1)) continue;
        p->l0 = floor(wave_of(m, i, n) * (p->low + s * (p->high - p->low)) + 0.5);
        if (p->l0 >= 1 && p->l0 < 1e9 && gives(m, p, f, n)) return true;
    }
    return false;
}

static status put_llama3(const struct model *m, const struct tensor *t, struct json_out *o, struct err *e)
{
    const float *f = t->data;
    struct llama3 p;
    bool plain = true;
    for (int64_t i = 0; i < t->ne[0]; i++) plain = plain && f[i] == 1.0f;
    if (plain) return OK;
    if (!find_llama3(m, f, t->ne[0], &p)) return err_set(e, ERR_FORMAT, "%s: not the factors of Llama 3.1, which config.json could name", t->name);
    json_begin(o, "rope_scaling", '{');
    json_put_cstr(o, "rope_type", "llama3");
    json_put_real(o, "factor", p.factor);
    json_put_real(o, "low_freq_factor", p.low);
    json_put_real(o, "high_freq_factor", p.high);
    json_put_i64(o, "original_max_position_embeddings", (int64_t)p.l0);
    json_end(o, '}');
    return OK;
}

static void put_member(const struct model *m, const char *key, const char *name, double times, bool integer, struct json_out *o)
{
    double v;
    if (!get_number(m, key, &v)) return;
    if (integer) json_put_i64(o, name, import_whole(v));
    else json_put_real(o, name, v * times);
}

static status put_scaling(const struct model *m, struct json_out *o, struct err *e)
{
    const struct tensor *freqs = gguf_tensor(&m->g, "rope_freqs.weight");
    const struct gguf_kv *kv = find_key(m, "rope.scaling.type");
    struct str type = { "", 0 };
    double factor = 1;
    if (freqs && freqs->type->gguf_id == GGUF_F32) return put_llama3(m, freqs, o, e);
    if (kv && kv->kind == KV_STR) type = gguf_arr_str(&(const uint8_t *){ kv->data });
    (void)get_number(m, "rope.scaling.factor", &factor);
    bool longrope = gguf_tensor(&m->g, "rope_factors_long.weight") != NULL, yarn = type.n == 4 && !memcmp(type.p, "yarn", 4);
    bool linear = type.n == 6 && !memcmp(type.p, "linear", 6);
    if (!longrope && !yarn && !linear) return OK;
    json_begin(o, "rope_scaling", '{');
    json_put_cstr(o, "rope_type", longrope ? "longrope" : yarn ? "yarn" : "linear");
    if (!longrope || factor != 1) json_put_real(o, "factor", factor);
    put_member(m, "rope.scaling.original_context_length", "original_max_position_embeddings", 1, true, o);
    put_member(m, "rope.scaling.attn_factor", "attention_factor", yarn ? 1 + 0.1 * log(factor) : 1, false, o);
    put_member(m, "rope.scaling.yarn_beta_fast", "beta_fast", 1, false, o);
    put_member(m, "rope.scaling.yarn_beta_slow", "beta_slow", 1, false, o);
    put_factors(m, "rope_factors_long.weight", "long_factor", o);
    put_factors(m, "rope_factors_short.weight", "short_factor", o);
    json_end(o, '}');
    if (longrope) put_member(m, "rope.scaling.original_context_length", "original_max_position_embeddings", 1, true, o);
    return OK;
}

/* ---- files ---- */

static int64_t role(const struct export *x, const char *name)
{
    char key[64];
    int64_t id = -1;
    snprintf(key, sizeof key, "tokenizer.ggml.%s_token_id", name);
    return gguf_get_i64(&x->m->g, key, 0, INT32_MAX, &id, NULL) ? id : -1;
}

static void put_role(const struct export *x, const char *name, const char *member, struct json_out *o)
{
    int64_t id = role(x, name);
    if (id >= 0) json_put_i64(o, member, id);
}

static void put_roles(const struct export *x, struct json_out *o)
{
    put_role(x, "bos", "bos_token_id", o);
    put_role(x, "eos", "eos_token_id", o);
    put_role(x, "padding", "pad_token_id", o);
}

/* No member twice: what is written can be read. */
static status check_readable(const struct export *x, const struct json_out *o, struct err *e)
{
    struct json *j;
    return json_out_ok(o) ? json_parse(&j, o->buf, o->n, x->mem, "config.json", e) : OK; /* memory: reported by the caller */
}

status export_config(const struct export *x, struct json_out *o, struct err *e)
{
    static const struct { int type; const char *name; } types[] = { { GGUF_F32, "float32" }, { GGUF_F16, "float16" }, { GGUF_BF16, "bfloat16" } };
    const struct tensor *q = model_weight(x->m, -1, W_EMBD); /* what most weights are written as */
    const struct dtype *type = x->o.type ? x->o.type : x->type;
    for (int i = 0; i < ARRAY_LEN(types); i++)
        if (!x->o.type && q->type->gguf_id == types[i].type) type = q->type;
    json_begin(o, NULL, '{');
    json_begin(o, "architectures", '[');
    json_put_cstr(o, NULL, x->arch->hf);
    json_end(o, ']');
    json_put_cstr(o, "model_type", x->arch->model_type);
    for (int i = 0; i < ARRAY_LEN(types); i++)
        if (type->gguf_id == types[i].type) json_put_cstr(o, "torch_dtype", types[i].name);
    if (x->arch->config) TRY(x->arch->config(x->m, o, e)); /* what it says counts before the rows */
    put_numbers(x, o);
    TRY(put_scaling(x->m, o, e));
    json_put_bool(o, "tie_word_embeddings", x->tied);
    put_roles(x, o);
    json_put_bool(o, "use_cache", true);
    json_end(o, '}');
    return check_readable(x, o, e);
}

status export_generation(const struct export *x, struct json_out *o, struct err *e)
{
    int64_t eos = role(x, "eos"), eot = role(x, "eot");
    json_begin(o, NULL, '{');
    put_role(x, "bos", "bos_token_id", o);
    if (eot >= 0 && eot != eos && eos >= 0) {
        json_begin(o, "eos_token_id", '[');
        json_put_i64(o, NULL, eos);
        json_put_i64(o, NULL, eot);
        json_end(o, ']');
    } else if (eos >= 0) {
        json_put_i64(o, "eos_token_id", eos);
    }
    put_role(x, "padding", "pad_token_id", o);
    json_end(o, '}');
    return OK;
}
