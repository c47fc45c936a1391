/* tiny - see tiny.h. */
#include "tests/tiny.h"
#include "src/model_int.h"
#include "tests/test.h"

static const char chatml[] = "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
                             "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

/* ---- vocabulary ---- */

/* GPT-2's byte alphabet: printable Latin-1 bytes stand for themselves, the others for U+0100 and up in order. */
static size_t byte_symbol(int b, char *out)
{
    int cp = b, n = 0;
    if (!((b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174)) {
        for (int i = 0; i < b; i++)
            if (!((i >= 33 && i <= 126) || (i >= 161 && i <= 172) || i >= 174)) n++;
        cp = 256 + n;
    }
    if (cp < 128) {
        out[0] = (char)cp;
        return 1;
    }
    out[0] = (char)(0xc0 | cp >> 6);
    out[1] = (char)(0x80 | (cp & 63));
    return 2;
}

struct vocab {
    char text[TINY_TOKENS][24];
    struct str str[TINY_TOKENS];
    int32_t type[TINY_TOKENS];
    float score[TINY_TOKENS];
    int n;
};

static void vocab_add(struct vocab *v, const char *s, size_t n, int type, float score)
{
    memcpy(v->text[v->n], s, n);
    v->str[v->n] = (struct str){ v->text[v->n], n };
    v->type[v->n] = type;
    v->score[v->n++] = score;
}

static const char *const specials[] = { "<|endoftext|>", "<|im_start|>", "<|im_end|>" };

static void put_bpe(struct gguf_writer *w, struct vocab *v)
{
    static const char *const merged[] = { "th", "the", "\304\240the", "in", "er", "\304\240a", "on", "re", "an" };
    static const char *const merges[] = { "t h", "th e", "\304\240 the", "i n", "e r", "\304\240 a", "o n", "r e", "a n" };
    struct str m[ARRAY_LEN(merges)];
    for (int i = 0; i < 3; i++) vocab_add(v, specials[i], strlen(specials[i]), 3, 0);
    for (int b = 0; b < 256; b++) {
        char s[4];
        vocab_add(v, s, byte_symbol(b, s), 1, 0);
    }
    for (int i = 0; i < ARRAY_LEN(merged); i++) {
        vocab_add(v, merged[i], strlen(merged[i]), 1, 0);
        m[i] = (struct str){ merges[i], strlen(merges[i]) };
    }
    gguf_put_str(w, "tokenizer.ggml.model", "gpt2", 4);
    gguf_put_str(w, "tokenizer.ggml.pre", "gpt-2", 5);
    gguf_put_arr_str(w, "tokenizer.ggml.merges", m, ARRAY_LEN(merges));
    gguf_put_i64(w, "tokenizer.ggml.bos_token_id", KV_U32, 0);
    gguf_put_i64(w, "tokenizer.ggml.eos_token_id", KV_U32, 2);
}

static void put_spm(struct gguf_writer *w, struct vocab *v)
{
    static const char *const words[] = { "\342\226\201", "\342\226\201the", "th", "e", "a", "t", "h", "in", "\342\226\201a" };
    for (int i = 0; i < 3; i++) vocab_add(v, specials[i], strlen(specials[i]), 3, 0);
    for (int b = 0; b < 256; b++) {
        char s[8];
        vocab_add(v, s, (size_t)snprintf(s, sizeof s, "<0x%02X>", b), 6, 0);
    }
    for (int i = 0; i < ARRAY_LEN(words); i++) vocab_add(v, words[i], strlen(words[i]), 1, (float)-i);
    gguf_put_str(w, "tokenizer.ggml.model", "llama", 5);
    gguf_put_arr(w, "tokenizer.ggml.scores", KV_F32, v->score, (uint64_t)v->n);
    gguf_put_i64(w, "tokenizer.ggml.bos_token_id", KV_U32, 0);
    gguf_put_i64(w, "tokenizer.ggml.eos_token_id", KV_U32, 2);
    gguf_put_i64(w, "tokenizer.ggml.unknown_token_id", KV_U32, 0);
}

/* ---- keys and weights ---- */

static bool dropped(const char *what, const char *name) { return what && !strcmp(what, name); }

/* Keys without their "<arch>." as they were written: the sizes of weights follow from them as they do when the file is read. */
struct keys {
    int n;
    struct {
        const char *key;
        double v;
    } item[48];
};

static void put_number(struct gguf_writer *w, const struct tiny_options *o, struct keys *k, const char *key, double v, bool real)
{
    char full[96];
    snprintf(full, sizeof full, "%s.%s", o->arch, key);
    k->item[k->n].key = key;
    k->item[k->n++].v = v;
    if (dropped(o->drop_key, full)) return;
    if (real) gguf_put_f32(w, full, (float)v);
    else gguf_put_i64(w, full, KV_U32, (int64_t)v);
}

static void put_int(struct gguf_writer *w, const struct tiny_options *o, struct keys *k, const char *key, int64_t v)
{
    put_number(w, o, k, key, (double)v, false);
}

/* Keys that only some architectures read. */
static const struct {
    const char *key;
    double v;
} own_keys[] = {
    { "ssm.conv_kernel", 4 },
    { "ssm.state_size", 16 },
    { "ssm.group_count", 2 },
    { "ssm.time_step_rank", 4 },
    { "ssm.inner_size", 64 },
    { "full_attention_interval", 2 },
    { "attention.key_length_swa", 24 },
    { "shortconv.l_cache", 3 },
    { "embedding_length_per_layer_input", 8 },
    { "expert_feed_forward_length", 64 },
    { "expert_shared_feed_forward_length", 40 },
    { "expert_shared_count", 2 },
    { "attention.layer_norm_epsilon", 1e-5 },
    { "attention.max_alibi_bias", 8 },
    { "use_parallel_residual", 1 },
    { "logit_scale", 0.5 },
};

static const struct hparam_row *own_row(const struct arch *arch, const char *key)
{
    for (const struct hparam_row *r = arch->hparams; r->key; r++)
        if (!strcmp(r->key, key)) return r;
    return NULL;
}

static void put_own_key(struct gguf_writer *w, const struct tiny_options *o, struct keys *k, const struct hparam_row *r, double v)
{
    char full[96];
    snprintf(full, sizeof full, "%s.%s", o->arch, r->key);
    if (r->kind != HP_BOOL) {
        put_number(w, o, k, r->key, v, r->kind == HP_FLOAT);
        return;
    }
    gguf_put_i64(w, full, KV_BOOL, v != 0);
    k->item[k->n].key = r->key;
    k->item[k->n++].v = v;
}

/* Latent attention: one KV head of kv_lora_rank and the rotated dimensions, both as wide as a head. */
static void put_latent(struct gguf_writer *w, const struct tiny_options *o, struct keys *k)
{
    put_int(w, o, k, "attention.kv_lora_rank", o->head_dim);
    put_int(w, o, k, "attention.q_lora_rank", o->head_dim);
    put_int(w, o, k, "attention.key_length_mla", 2 * o->head_dim);
    put_int(w, o, k, "attention.value_length_mla", o->head_dim);
}

static void put_xielu(struct gguf_writer *w, const struct tiny_options *o)
{
    static const char *const key[] = { "xielu.alpha_p", "xielu.alpha_n", "xielu.beta", "xielu.eps" };
    static const float v[] = { 0.2f, -0.8f, 0.5f, -1e-6f };
    float item[64];
    for (int i = 0; i < 4; i++) {
        for (int64_t il = 0; il < o->n_layer && il < 64; il++) item[il] = v[i];
        gguf_put_arr(w, key[i], KV_F32, item, (uint64_t)min_i64(o->n_layer, 64));
    }
}

static const char pattern_key[] = "attention.sliding_window_pattern";

static bool has_pattern(const struct arch *arch)
{
    const struct hparam_row *r = own_row(arch, pattern_key);
    return r && r->kind == HP_LAYER_INT;
}

/* Every second layer has a window, from the first on. */
static void put_pattern(struct gguf_writer *w, const struct tiny_options *o, const struct arch *arch)
{
    char key[96];
    uint8_t on[64];
    snprintf(key, sizeof key, "%s.%s", o->arch, pattern_key);
    for (int i = 0; i < ARRAY_LEN(on); i++) on[i] = i % 2 == 0;
    if (has_pattern(arch)) gguf_put_arr(w, key, KV_BOOL, on, (uint64_t)min_i64(o->n_layer, ARRAY_LEN(on)));
}

/* Architectures whose layers without K/V heads are convolutions: every second, from the first on. */
static bool by_heads(const struct arch *arch) { return own_row(arch, "shortconv.l_cache"); }

static void put_heads(struct gguf_writer *w, const struct tiny_options *o)
{
    char key[96];
    int32_t n[64];
    snprintf(key, sizeof key, "%s.attention.head_count_kv", o->arch);
    for (int i = 0; i < ARRAY_LEN(n); i++) n[i] = i % 2 ? (int32_t)o->n_head_kv : 0;
    gguf_put_arr(w, key, KV_I32, n, (uint64_t)min_i64(o->n_layer, ARRAY_LEN(n)));
}

static void put_keys(struct gguf_writer *w, const struct tiny_options *o, const struct arch *arch, struct keys *k)
{
    if (!dropped(o->drop_key, "general.architecture")) gguf_put_str(w, "general.architecture", o->arch, strlen(o->arch));
    gguf_put_str(w, "general.name", "tiny", 4);
    put_int(w, o, k, "block_count", o->n_layer);
    put_int(w, o, k, "context_length", o->n_ctx);
    put_int(w, o, k, "embedding_length", o->n_embd);
    put_int(w, o, k, "feed_forward_length", o->n_ff);
    put_int(w, o, k, "attention.head_count", o->n_head);
    bool latent = own_row(arch, "attention.kv_lora_rank");
    if (by_heads(arch)) put_heads(w, o);
    else put_int(w, o, k, "attention.head_count_kv", latent ? 1 : o->n_head_kv);
    put_int(w, o, k, "attention.key_length", latent ? 2 * o->head_dim : o->head_dim);
    put_int(w, o, k, "attention.value_length", o->head_dim);
    put_int(w, o, k, "rope.dimension_count", o->head_dim);
    const struct hparam_row *experts = own_row(arch, "expert_count");
    int64_t n_expert = o->n_expert ? o->n_expert : experts && isnan(experts->def) ? 4 : 0; /* some have none but mixtures */
    if (n_expert) put_int(w, o, k, "expert_count", n_expert);
    if (n_expert) put_int(w, o, k, "expert_used_count", 2);
    for (const struct weight_row *r = arch->weights; r->gguf && o->optional; r++)
        if (r->id == W_ROPE_LONG) put_int(w, o, k, "rope.scaling.original_context_length", o->n_ctx / 2);
    const struct hparam_row *window = own_row(arch, "attention.sliding_window");
    if (o->window || (window && isnan(window->def))) put_int(w, o, k, "attention.sliding_window", o->window ? o->window : 8);
    put_number(w, o, k, "attention.layer_norm_rms_epsilon", 1e-5, true);
    put_number(w, o, k, "rope.freq_base", 10000, true);
    if (latent) put_latent(w, o, k);
    if (!strcmp(arch->name, "apertus")) put_xielu(w, o);
    for (int i = 0; i < ARRAY_LEN(own_keys); i++)
        if (own_row(arch, own_keys[i].key)) put_own_key(w, o, k, own_row(arch, own_keys[i].key), own_keys[i].v);
    put_pattern(w, o, arch);
}

static void set_field(struct model *m, const struct hparam_row *r, double v)
{
    for (int64_t il = 0; r->kind == HP_LAYER_INT && il < m->hp.n_layer; il++) *(int64_t *)((char *)&m->layer[il].hp + r->offset) = (int64_t)v;
    if (r->kind == HP_FLOAT) *(float *)((char *)&m->hp + r->offset) = (float)v;
    else if (r->kind != HP_LAYER_INT) *(int64_t *)((char *)&m->hp + r->offset) = (int64_t)v;
}

static void set_fields(struct model *m, const struct hparam_row *rows, const struct keys *k)
{
    for (const struct hparam_row *r = rows; r->key; r++) {
        double v = isnan(r->def) ? r->lo : r->def;
        for (int i = 0; i < k->n; i++)
            if (!strcmp(k->item[i].key, r->key)) v = k->item[i].v;
        if (v != HP_ABSENT) set_field(m, r, v);
    }
}

/* The model as opening the file will see it, without weights. */
static status sized_model(struct model *m, const struct tiny_options *o, const struct arch *arch, const struct keys *k, struct layer *layer,
                          struct err *e)
{
    *m = (struct model){ .arch = arch, .layer = layer };
    m->hp.n_layer = o->n_layer;
    set_fields(m, common_hparams, k);
    set_fields(m, arch->hparams, k);
    m->hp.n_vocab = TINY_TOKENS + o->extra_rows;
    for (int64_t il = 0; il < o->n_layer; il++) {
        struct layer_params *l = &layer[il].hp;
        l->kind = LAYER_ATTENTION | (m->hp.n_expert > 0 && il >= m->hp.n_dense_lead ? LAYER_MOE : LAYER_DENSE);
        l->il_kv = il;
        if (by_heads(arch)) l->n_head_kv = il % 2 ? o->n_head_kv : 0;
        if (has_pattern(arch)) l->pattern = il % 2 == 0;
        l->rope = (struct rope_spec){ .n_rot = (int32_t)o->head_dim, .base = 10000, .freq_scale = 1, .mscale = 1 };
    }
    return arch->setup ? arch->setup(m, e) : OK;
}

/* Norms and rope factors lie around 1, biases are small, matrices keep the scale of their input. */
static void fill(float *x, int64_t n, int64_t ne0, bool vector, bool centred, uint64_t *rng)
{
    float s = vector ? 0.1f : 1.7320508f / sqrtf((float)ne0);
    for (int64_t i = 0; i < n; i++) x[i] = test_randf(rng) * s + (vector && !centred ? 1.0f : 0.0f);
}

static status put_weight(struct gguf_writer *w, const struct tiny_options *o, const struct model *m, const struct weight_row *r, int il,
                         struct arena *a, struct err *e)
{
    char name[96];
    snprintf(name, sizeof name, r->gguf, il);
    uint64_t rng = o->seed + 1; /* by name, so that a tensor keeps its weights when an architecture gets more rows */
    for (const char *c = name; *c; c++) rng = (rng ^ (uint8_t)*c) * 0x100000001b3u;
    bool vector = r->ne1 == DIM_1;
    int at = r->id < W_LAYER_COUNT ? il : -1;
    if (dropped(o->drop_tensor, name) || (r->id == W_OUTPUT ? o->tied : (r->flags & WEIGHT_OPTIONAL) && !o->optional)) return OK;
    if (!model_has_row(m, at, r)) return OK;
    struct tensor t = { 0 };
    int64_t ne0 = model_dim(m, at, r->ne0), ne1 = model_dim(m, at, r->ne1) + dropped(o->reshape, name), ne2 = model_dim(m, at, r->ne2);
    const struct dtype *type = dtype_by_name(vector || r->flags & WEIGHT_VECTOR ? "f32" : dropped(o->other, name) ? o->other_type : o->type);
    if (ne0 % type->block_len) return err_set(e, ERR_USAGE, "%s: rows of %lld do not fit %s", name, (long long)ne0, type->gguf_name);
    if (!type->pack) return err_set(e, ERR_USAGE, "%s: %s has no pack", name, type->gguf_name);
    tensor_shape(&t, type, ne0, ne1, ne2, 1);
    float *x = arena_alloc(a, (size_t)(ne0 * ne1 * ne2) * sizeof *x);
    void *data = arena_alloc(a, tensor_bytes(&t));
    char *copy = arena_strdup(a, name, strlen(name));
    if (!x || !data || !copy) return err_oom(e, name, tensor_bytes(&t));
    bool centred = strstr(name, ".bias") != NULL;
    fill(x, ne0 * ne1 * ne2, ne0, vector, centred, &rng);
    for (int64_t i = 0; r->id == W_SSM_A && i < ne0 * ne1; i++) x[i] = -fabsf(x[i]) - 0.1f; /* states decay */
    if (o->outlier != 0 && vector && strstr(name, "_norm.weight")) x[TINY_OUTLIER] *= o->outlier;
    for (int64_t i = TINY_OUTLIER; o->outlier != 0 && !vector && ne0 == o->n_embd && r->id != W_EMBD && i < ne0 * ne1 * ne2; i += ne0) x[i] /= o->outlier;
    if (dropped(o->poison, name)) x[vector ? 0 : ne0] = NAN;
    dtype_from_f32(type, x, data, ne0 * ne1 * ne2);
    t.data = data;
    t.name = copy;
    gguf_put_tensor(w, &t);
    return OK;
}

static const struct arch *arch_named(const char *name)
{
    for (int i = 0; arches[i]; i++)
        if (!strcmp(arches[i]->name, name)) return arches[i];
    return arches[0]; /* unknown names, for error tests, borrow the first architecture's weights */
}

static status put_weights(struct gguf_writer *w, const struct tiny_options *o, const struct model *m, struct arena *a, struct err *e)
{
    for (const struct weight_row *r = m->arch->weights; r->gguf; r++)
        for (int il = 0; il < (r->id < W_LAYER_COUNT ? o->n_layer : 1); il++) TRY(put_weight(w, o, m, r, il, a, e));
    return OK;
}

static int64_t or_default(int64_t v, int64_t def) { return v ? v : def; }

status tiny_model(const char *path, const struct tiny_options *options, struct err *e)
{
    struct tiny_options o = *options;
    if (!o.arch) o.arch = "llama";
    if (!o.type) o.type = "f32";
    o.n_layer = or_default(o.n_layer, 2);
    o.n_embd = or_default(o.n_embd, 64);
    o.n_head = or_default(o.n_head, 4);
    o.n_head_kv = or_default(o.n_head_kv, 2);
    o.head_dim = or_default(o.head_dim, 16);
    o.n_ff = or_default(o.n_ff, 96);
    o.n_ctx = or_default(o.n_ctx, 256);

    const struct arch *arch = arch_named(o.arch);
    const struct hparam_row *experts = own_row(arch, "expert_count");
    if (experts && experts->lo > 0) o.n_expert = or_default(o.n_expert, 4); /* there is no dense form */
    struct gguf_writer *w;
    TRY(gguf_writer_open(&w, path, e));
    static struct vocab v;
    v.n = 0;
    struct keys k = { 0 };
    put_keys(w, &o, arch, &k);
    (o.spm ? put_spm : put_bpe)(w, &v);
    gguf_put_arr_str(w, "tokenizer.ggml.tokens", v.str, (uint64_t)v.n);
    gguf_put_arr(w, "tokenizer.ggml.token_type", KV_I32, v.type, (uint64_t)v.n);
    if (!o.no_template) gguf_put_str(w, "tokenizer.chat_template", chatml, sizeof chatml - 1);
    if (o.more) o.more(w, o.ctx);
    struct arena a;
    arena_init(&a, 0);
    struct model m;
    struct layer *layer = arena_zalloc(&a, (size_t)o.n_layer, sizeof *layer);
    status st = layer ? sized_model(&m, &o, arch, &k, layer, e) : err_oom(e, "layers", (size_t)o.n_layer * sizeof *layer);
    if (st == OK) st = put_weights(w, &o, &m, &a, e);
    if (st == OK) st = gguf_writer_finish(w, e);
    else gguf_writer_abort(w);
    arena_free(&a);
    return st;
}
