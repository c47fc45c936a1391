/* convert_config - config.json: which architecture it is, its numbers as GGUF keys, its position scheme. Knows no tensors. */
#include "src/convert_int.h"
#include <assert.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { CONFIG_MAX = 8 << 20 };

void import_warn(const struct import *im, const char *fmt, ...)
{
    if (!im->o->warn) return;
    char text[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    im->o->warn(im->o->ctx, text);
}

/* ---- looking things up ---- */

static const struct json *walk(const struct json *from, const char *path, size_t n)
{
    char part[96];
    while (from && n) {
        const char *dot = memchr(path, '.', n);
        size_t len = dot ? (size_t)(dot - path) : n;
        if (len >= sizeof part) return NULL;
        memcpy(part, path, len);
        part[len] = '\0';
        from = json_get(from, part);
        path += dot ? len + 1 : len;
        n -= dot ? len + 1 : len;
    }
    return from && from->kind != JSON_NULL ? from : NULL;
}

const struct json *import_config(const struct import *im, const char *name)
{
    for (const char *p = name; *p;) {
        size_t n = strcspn(p, "|");
        const struct json *v = im->text ? walk(im->text, p, n) : NULL;
        if (!v) v = walk(im->config, p, n);
        if (v) return v;
        p += n + (p[n] == '|');
    }
    return NULL;
}

static bool is_number(const struct json *v) { return v && (v->kind == JSON_INT || v->kind == JSON_FLOAT || v->kind == JSON_BOOL); }
static double number_of(const struct json *v) { return v->kind == JSON_BOOL ? (double)v->i : v->f; }

double import_number(const struct import *im, const char *name, double def)
{
    const struct json *v = import_config(im, name);
    return is_number(v) ? number_of(v) : def;
}

static bool is_text(const struct json *v, const char *text)
{
    return v && v->kind == JSON_STR && (size_t)v->n == strlen(text) && !memcmp(v->str, text, (size_t)v->n);
}

bool import_is(const struct import *im, const char *name, const char *text) { return is_text(import_config(im, name), text); }

/* ---- keys ---- */

static struct out_key *put(struct import *im, const char *key, enum gguf_kind kind)
{
    char full[160];
    if (*key == '/') snprintf(full, sizeof full, "%s", key + 1);
    else snprintf(full, sizeof full, "%s.%s", im->arch->name, key);
    for (int64_t i = 0; i < im->n_key; i++)
        if (!strcmp(im->key[i].key, full)) {
            im->key[i] = (struct out_key){ .key = im->key[i].key, .kind = kind };
            return &im->key[i];
        }
    if (im->n_key == im->cap_key) {
        int64_t cap = im->cap_key ? 2 * im->cap_key : 64;
        struct out_key *grown = mem_realloc(im->key, (size_t)cap * sizeof *grown);
        if (!grown) return err_oom(&im->first, "keys", (size_t)cap * sizeof *grown), &im->lost;
        im->key = grown, im->cap_key = cap;
    }
    char *copy = arena_strdup(&im->arena, full, strlen(full));
    if (!copy) return err_oom(&im->first, "keys", sizeof full), &im->lost;
    im->key[im->n_key] = (struct out_key){ .key = copy, .kind = kind };
    return &im->key[im->n_key++];
}

void import_put_int(struct import *im, const char *key, int64_t v) { put(im, key, v < 0 ? KV_I32 : KV_U32)->i = v; }
void import_put_float(struct import *im, const char *key, double v) { put(im, key, KV_F32)->f = v; }
void import_put_bool(struct import *im, const char *key, bool v) { put(im, key, KV_BOOL)->i = v; }
void import_drop(struct import *im, const char *key) { put(im, key, KV_BOOL)->dropped = true; }

void import_put_str(struct import *im, const char *key, const char *v)
{
    char *copy = arena_strdup(&im->arena, v, strlen(v));
    if (copy) put(im, key, KV_STR)->s = copy;
    else err_oom(&im->first, key, strlen(v));
}

static void put_items(struct import *im, const char *key, enum gguf_kind elem, const void *v, int64_t n)
{
    int32_t *copy = arena_alloc(&im->arena, (size_t)n * sizeof *copy);
    if (!copy) {
        err_oom(&im->first, key, (size_t)n * sizeof *copy);
        return;
    }
    memcpy(copy, v, (size_t)n * sizeof *copy);
    struct out_key *k = put(im, key, KV_ARR);
    k->elem = elem;
    k->items = copy;
    k->n = n;
}

void import_put_ints(struct import *im, const char *key, const int32_t *v, int64_t n) { put_items(im, key, KV_I32, v, n); }
void import_put_floats(struct import *im, const char *key, const float *v, int64_t n) { put_items(im, key, KV_F32, v, n); }

void convert_put_keys(const struct import *im, struct gguf_writer *w)
{
    for (int64_t i = 0; i < im->n_key; i++) {
        const struct out_key *k = &im->key[i];
        if (k->dropped) continue;
        if (k->kind == KV_STR) gguf_put_str(w, k->key, k->s, strlen(k->s));
        else if (k->kind == KV_F32) gguf_put_f32(w, k->key, (float)k->f);
        else if (k->kind == KV_ARR) gguf_put_arr(w, k->key, k->elem, k->items, (uint64_t)k->n);
        else gguf_put_i64(w, k->key, k->kind, k->i);
    }
}

/* ---- which architecture ---- */

static const struct arch *arch_of(const char *hf)
{
    for (int i = 0; arches[i]; i++)
        for (const char *const *name = arches[i]->hf; name && *name; name++)
            if (!strcmp(*name, hf)) return arches[i];
    return NULL;
}

static status unknown_arch(const char *path, const char *hf, struct err *e)
{
    char list[80] = "";
    for (int i = 0; arches[i] && strlen(list) < 40; i++)
        if (arches[i]->hf) snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", *list ? ", " : "", arches[i]->name);
    return err_set(e, ERR_FORMAT, "%.80s: \"%.60s\" is no architecture that can be converted; known: %s, ... (cuanto doctor lists all)", path, hf, list);
}

/* transformers 5: a rope_scaling that says anything takes the place of rope_parameters, whole. What would then be at a default that differs by
 * class is refused instead. */
static status settle_rope(struct import *im, struct err *e)
{
    const struct json *scaling = import_config(im, "rope_scaling"), *p, *theta;
    if (!scaling || scaling->kind != JSON_OBJ || !scaling->child) return OK;
    while ((p = import_config(im, "rope_parameters")) && p->kind == JSON_OBJ) {
        if (!(theta = json_get(p, "rope_theta")) && p->child && p->child->kind == JSON_OBJ) theta = json_get(p->child, "rope_theta");
        if (theta && !json_get(scaling, "rope_theta") && !import_config(im, "rope_theta"))
            return err_set(e, ERR_FORMAT, "%s/config.json: rope_scaling takes the place of rope_parameters, but only this has rope_theta (%g): "
                           "give one of the two", im->dir, theta->f);
        import_warn(im, "config.json has rope_parameters and rope_scaling: rope_scaling counts, as in transformers");
        ((struct json *)(uintptr_t)p)->kind = JSON_NULL;
    }
    return OK;
}

status convert_read_config(struct import *im, const char **hf, struct err *e)
{
    char path[4200];
    char *text;
    size_t n;
    if (snprintf(path, sizeof path, "%s/config.json", im->dir) >= (int)sizeof path) return err_set(e, ERR_FILE, "%.60s...: the path is too long", im->dir);
    TRY(file_text(path, CONFIG_MAX, &text, &n, e));
    status st = json_parse_python(&im->config, text, n, &im->arena, path, e);
    mem_free(text);
    TRY(st);
    if (im->config->kind != JSON_OBJ) return err_set(e, ERR_FORMAT, "%s: the top level is no object", path);
    im->text = (struct json *)(uintptr_t)walk(im->config, "text_config", strlen("text_config"));
    if (im->text && im->text->kind != JSON_OBJ) im->text = NULL;
    const struct json *list = walk(im->config, "architectures", strlen("architectures")), *inner = NULL;
    if (im->text) inner = walk(im->text, "architectures", strlen("architectures"));
    if (!list) list = inner;
    if (!list || list->kind != JSON_ARR || !list->child || list->child->kind != JSON_STR)
        return err_set(e, ERR_FORMAT, "%s: \"architectures\" is missing: expected a list such as [\"LlamaForCausalLM\"]", path);
    *hf = list->child->str;
    im->arch = arch_of(*hf);
    if (!im->arch && inner && inner->kind == JSON_ARR && inner->child && inner->child->kind == JSON_STR) im->arch = arch_of(*hf = inner->child->str);
    return im->arch ? settle_rope(im, e) : unknown_arch(path, *hf, e);
}

/* ---- numbers ---- */

static status wrong_kind(const struct import *im, const struct hparam_row *r, const char *expected, struct err *e)
{
    return err_set(e, ERR_FORMAT, "%s/config.json: %s is no %s", im->dir, r->hf, expected);
}

static status put_list(struct import *im, const struct hparam_row *r, const struct json *v, struct err *e)
{
    int32_t item[1024];
    int64_t n = 0;
    for (const struct json *j = v->child; j; j = j->next) {
        if (n == ARRAY_LEN(item) || j->kind != JSON_INT || j->i < INT32_MIN || j->i > INT32_MAX) return wrong_kind(im, r, "list of up to 1024 integers", e);
        item[n++] = (int32_t)j->i;
    }
    import_put_ints(im, r->key, item, n);
    return OK;
}

static status put_row(struct import *im, const struct hparam_row *r, struct err *e)
{
    const struct json *v = r->hf ? import_config(im, r->hf) : NULL;
    if (!v) return OK;
    if (r->kind == HP_LAYER_INT && v->kind == JSON_ARR) return put_list(im, r, v, e);
    if (!is_number(v)) return wrong_kind(im, r, "number", e);
    double x = number_of(v);
    if (r->kind != HP_BOOL && !(x >= r->lo && x <= r->hi))
        return err_set(e, ERR_FORMAT, "%s/config.json: %s is %g, expected %g to %g", im->dir, r->hf, x, r->lo, r->hi);
    if (r->kind == HP_FLOAT) import_put_float(im, r->key, x);
    else if (r->kind == HP_BOOL) import_put_bool(im, r->key, x != 0);
    else if (x == floor(x)) import_put_int(im, r->key, (int64_t)x);
    else return wrong_kind(im, r, "integer", e);
    return OK;
}

/* ---- positions ---- */

/* "rope_parameters" (transformers 5) or "rope_scaling" beside "rope_theta". Where layers differ, the first has one object for each kind of layer. */
static const struct json *rope_of(const struct import *im, const char *layers)
{
    const struct json *p = import_config(im, "rope_parameters");
    const struct json *inner = p ? json_get(p, layers) : NULL;
    if (inner && inner->kind == JSON_OBJ) return inner;
    if (!p) p = import_config(im, "rope_scaling");
    return p && p->kind == JSON_OBJ ? p : NULL;
}

static double rope_number(const struct json *rope, const char *name, double def)
{
    const struct json *v = json_get(rope, name);
    return is_number(v) ? number_of(v) : def;
}

static const char *rope_type(const struct json *rope)
{
    const struct json *v = rope ? json_get(rope, "rope_type") : NULL;
    if (rope && (!v || v->kind != JSON_STR)) v = json_get(rope, "type");
    return v && v->kind == JSON_STR ? v->str : "default";
}

static double head_size(const struct import *im)
{
    double heads = import_number(im, "num_attention_heads|n_head|n_heads", 0), width = import_number(im, "hidden_size|n_embd|d_model", 0);
    return import_number(im, "head_dim", heads > 0 ? floor(width / heads) : 0);
}

static double rotary_part(const struct import *im, const struct json *rope)
{
    return import_number(im, "partial_rotary_factor|rotary_pct|rope_pct", rope ? rope_number(rope, "partial_rotary_factor", 1) : 1);
}

static double original_context(const struct import *im, const struct json *rope)
{
    double here = rope_number(rope, "original_max_position_embeddings", 0);
    return here > 0 ? here : import_number(im, "original_max_position_embeddings|max_position_embeddings", 0);
}

static void put_yarn(struct import *im, const struct json *rope)
{
    double f = rope_number(rope, "factor", 1), plain = 1 + 0.1 * log(f), attn = rope_number(rope, "attention_factor", 0);
    double all = rope_number(rope, "mscale_all_dim", 0), one = rope_number(rope, "mscale", 0);
    if (attn <= 0 && one > 0 && all > 0) attn = (1 + 0.1 * one * log(f)) / (1 + 0.1 * all * log(f));
    import_put_str(im, "rope.scaling.type", "yarn");
    import_put_float(im, "rope.scaling.factor", f);
    import_put_int(im, "rope.scaling.original_context_length", import_whole(original_context(im, rope)));
    if (attn > 0 && fabs(attn - plain) > 1e-9) import_put_float(im, "rope.scaling.attn_factor", attn / plain);
    double fast = rope_number(rope, "beta_fast", 32), slow = rope_number(rope, "beta_slow", 1);
    if (fast != 32) import_put_float(im, "rope.scaling.yarn_beta_fast", fast);
    if (slow != 1) import_put_float(im, "rope.scaling.yarn_beta_slow", slow);
    if (rope_number(rope, "truncate", 1) == 0) import_put_bool(im, "rope.scaling.yarn_exact", true);
}

static void put_longrope(struct import *im, const struct json *rope)
{
    double l0 = original_context(im, rope), f = rope_number(rope, "factor", import_number(im, "max_position_embeddings", l0) / (l0 > 0 ? l0 : 1));
    double attn = rope_number(rope, "attention_factor", f <= 1 || l0 <= 1 ? 1 : sqrt(1 + log(f) / log(l0)));
    import_put_str(im, "rope.scaling.type", "longrope"); /* no factor: llama.cpp would scale all angles by it once more */
    import_put_int(im, "rope.scaling.original_context_length", import_whole(l0));
    import_put_float(im, "rope.scaling.attn_factor", attn);
}

static status put_scaling(struct import *im, const struct json *rope, struct err *e)
{
    const char *type = rope_type(rope);
    double f = rope ? rope_number(rope, "factor", 1) : 1;
    if (!strcmp(type, "default") || !strcmp(type, "none") || !strcmp(type, "mrope") || !strcmp(type, "llama3") || !strcmp(type, "proportional")) return OK;
    if (!(f > 0 && f < 1e6)) return err_set(e, ERR_FORMAT, "%s/config.json: rope factor is %g, expected more than 0", im->dir, f);
    if (!strcmp(type, "linear")) {
        import_put_str(im, "rope.scaling.type", "linear");
        import_put_float(im, "rope.scaling.factor", f);
    } else if (!strcmp(type, "yarn")) {
        put_yarn(im, rope);
    } else if (!strcmp(type, "longrope") || !strcmp(type, "su")) {
        put_longrope(im, rope);
    } else if (!strcmp(type, "dynamic")) {
        double alpha = rope_number(rope, "alpha", 0), d = head_size(im), base = rope_number(rope, "rope_theta", import_number(im, "rope_theta", 10000));
        if (alpha > 1 && d > 2) import_put_float(im, "rope.freq_base", base * pow(alpha, d / (d - 2)));
        else
            import_warn(im, "rope scaling \"dynamic\" (factor %g) begins beyond %g tokens and has no GGUF key: use --rope-scaling ntk --rope-scale %g there",
                        f, import_number(im, "max_position_embeddings", 0), f);
    } else {
        return err_set(e, ERR_FORMAT, "%s/config.json: rope type \"%.40s\" is none of default, linear, dynamic, yarn, longrope, llama3", im->dir, type);
    }
    return OK;
}

static status put_rope(struct import *im, struct err *e)
{
    const struct json *full = rope_of(im, "full_attention"), *local = rope_of(im, "sliding_attention");
    double base = full ? rope_number(full, "rope_theta", 0) : 0;
    if (base <= 0) base = import_number(im, "rope_theta|rotary_emb_base", 0);
    if (base <= 0 && !full && rotary_part(im, full) == 1) return OK; /* other positions, none, or all at their defaults */
    if (base > 0) import_put_float(im, "rope.freq_base", base);
    if (local && local != full) import_put_float(im, "rope.freq_base_swa", rope_number(local, "rope_theta", 10000));
    double n_rot = head_size(im) * rotary_part(im, full);
    if (n_rot >= 2) import_put_int(im, "rope.dimension_count", import_whole(n_rot));
    return put_scaling(im, full, e);
}

static status check_factors(const struct import *im, const float *x, int64_t n, struct err *e)
{
    for (int64_t i = 0; i < n; i++)
        if (!(x[i] > 0 && isfinite(x[i])))
            return err_set(e, ERR_FORMAT, "%s/config.json: rope factor %lld is %g, expected a number above 0", im->dir, (long long)i, (double)x[i]);
    return OK;
}

status convert_rope_factors(struct import *im, enum weight_id id, int64_t n, float **out, struct err *e)
{
    const struct json *rope = rope_of(im, "full_attention");
    const char *type = rope_type(rope);
    bool longrope = !strcmp(type, "longrope") || !strcmp(type, "su");
    *out = NULL;
    if (id == W_ROPE_FREQS ? strcmp(type, "llama3") != 0 : !longrope) return OK;
    if (!(*out = arena_alloc(&im->arena, (size_t)n * sizeof **out))) return err_oom(e, "rope factors", (size_t)n * sizeof **out);
    if (longrope) {
        const char *name = id == W_ROPE_LONG ? "long_factor" : "short_factor";
        const struct json *list = json_get(rope, name);
        if (!list || list->kind != JSON_ARR || list->n != n)
            return err_set(e, ERR_FORMAT, "%s/config.json: %s has %lld numbers, expected %lld", im->dir, name, list ? (long long)list->n : 0, (long long)n);
        int64_t i = 0;
        for (const struct json *j = list->child; j; j = j->next) (*out)[i++] = is_number(j) ? (float)number_of(j) : 0.0f;
        return check_factors(im, *out, n, e);
    }
    /* Llama 3.1: fast dimensions stay, slow ones are divided by the factor, between them a ramp */
    double f = rope_number(rope, "factor", 8), low = rope_number(rope, "low_freq_factor", 1), high = rope_number(rope, "high_freq_factor", 4);
    double l0 = rope_number(rope, "original_max_position_embeddings", 8192), base = rope_number(rope, "rope_theta", import_number(im, "rope_theta", 10000));
    for (int64_t i = 0; i < n; i++) {
        double wave = 2 * 3.14159265358979323846 * pow(base, (double)i / (double)n);
        double smooth = (l0 / wave - low) / (high - low);
        (*out)[i] = wave < l0 / high ? 1.0f : wave > l0 / low ? (float)f : (float)(1 / ((1 - smooth) / f + smooth));
    }
    return check_factors(im, *out, n, e);
}

/* The architecture says which function the feed-forward block has, files have no key for another. Gemma's first configurations say "gelu" where the
 * tanh form is meant; of gpt-oss "silu" is the part of the name that the key had room for. */
static status check_activation(const struct import *im, struct err *e)
{
    static const struct { const char *name; enum act act, also; } rows[] = {
        { "silu", ACT_SILU, ACT_CLAMPED_SWISH },           { "swish", ACT_SILU, ACT_SILU },
        { "gelu", ACT_GELU_ERF, ACT_GELU_TANH },           { "gelu_new", ACT_GELU_TANH, ACT_GELU_TANH },
        { "gelu_fast", ACT_GELU_TANH, ACT_GELU_TANH },     { "gelu_pytorch_tanh", ACT_GELU_TANH, ACT_GELU_TANH },
        { "relu2", ACT_RELU_SQUARED, ACT_RELU_SQUARED },   { "xielu", ACT_XIELU, ACT_XIELU },
    };
    const struct json *v = import_config(im, "hidden_activation|hidden_act");
    if (!v || v->kind != JSON_STR) return OK;
    const char *expected = "another";
    for (int i = ARRAY_LEN(rows); i-- > 0;) {
        bool fits = rows[i].act == im->arch->act || rows[i].also == im->arch->act;
        if (fits && is_text(v, rows[i].name)) return OK;
        if (fits) expected = rows[i].name;
    }
    return err_set(e, ERR_FORMAT, "%s/config.json: %s is \"%.40s\", %s has %s", im->dir, v->key, v->str, im->arch->name, expected);
}

/* A row whose key a file must have, by its names in config.json. */
static status check_there(const struct import *im, const struct hparam_row *r, struct err *e)
{
    char full[160], names[120];
    size_t at = 0;
    if (!isnan(r->def) || !r->hf) return OK;
    snprintf(full, sizeof full, "%s.%s", im->arch->name, r->key);
    for (int64_t i = 0; i < im->n_key; i++)
        if (!strcmp(im->key[i].key, full) && !im->key[i].dropped) return OK;
    for (const char *p = r->hf; *p && at + 60 < sizeof names; p += strcspn(p, "|"), p += *p == '|')
        at += (size_t)snprintf(names + at, sizeof names - at, "%s%.*s", at ? " or " : "", (int)min_i64((int64_t)strcspn(p, "|"), 50), p);
    return err_set(e, ERR_FORMAT, "%s/config.json: %s is missing", im->dir, names);
}

status convert_config_keys(struct import *im, struct err *e)
{
    for (const struct hparam_row *r = common_hparams; r->key; r++)
        if (!arch_replaces(im->arch, r)) TRY(put_row(im, r, e));
    for (const struct hparam_row *r = im->arch->hparams; r->key; r++) TRY(put_row(im, r, e));
    TRY(put_rope(im, e));
    if (im->arch->import && im->arch->import->keys) TRY(im->arch->import->keys(im, e));
    TRY(check_activation(im, e));
    TRY(import_failed(im, e));
    for (const struct hparam_row *r = common_hparams; r->key; r++)
        if (!arch_replaces(im->arch, r)) TRY(check_there(im, r, e));
    for (const struct hparam_row *r = im->arch->hparams; r->key; r++) TRY(check_there(im, r, e));
    return OK;
}

/* ---- Mamba-2 ---- */

float minus_exp(float x) { return -expf(x); }

status mamba2_keys(struct import *im, struct err *e)
{
    const struct json *limit = import_config(im, "time_step_limit"), *hi = limit && limit->child ? limit->child->next : NULL;
    bool number = hi && (hi->kind == JSON_INT || hi->kind == JSON_FLOAT);
    if (limit && limit->child && (limit->child->f > 0 || (number && hi->f < 1e6)))
        return err_set(e, ERR_FORMAT, "config.json: time_step_limit is [%g, %g], these equations have no limit", limit->child->f, number ? hi->f : INFINITY);
    return OK;
}
