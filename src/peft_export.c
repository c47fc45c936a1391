/* peft_export - from a GGUF adapter to a PEFT folder: rows of B back in the order of the checkpoint, weights that share a source in one pair. See peft.h. */
#include "ggml-like/checkpoint.h"
#include "src/export_int.h"
#include "src/hf.h"
#include "src/lora_int.h"
#include "src/peft.h"
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { PARTS_MAX = 8, NAME_CAP = 320, LEAVES_MAX = 64 };

/* What one weight of the base gives to a module. */
struct part {
    const struct lora_pair *p;
    const struct weight_row *row;
    int il;
    int64_t expert, rows; /* of this matrix */
};

struct module {
    const char *name;   /* "model.layers.0.self_attn.q_proj" */
    struct part part[PARTS_MAX];
    int n_parts;
    int64_t in, out, rank;
    double scale;
    bool embedding;
    float *a, *b;       /* [rank][in], [out][rank] */
    int64_t id_a, id_b; /* in the safetensors writer */
};

/* The last word of a module's name; of the model's modules with it, and of those with an adapter. */
struct leaf {
    char name[64];
    int64_t in_model, in_adapter;
};

struct export_peft {
    const struct model *m;
    const struct peft_options *o;
    const struct adapter *ad;
    struct arena arena;
    struct module *module; /* [n] */
    int64_t n, layer0;     /* layer0: the first module of the layer at hand */
    struct leaf leaf[LEAVES_MAX];
    int n_leaves;
    const struct dtype *type;
    int64_t rank;          /* r of the config: the one that most modules have */
    double alpha;          /* lora_alpha */
    bool turned;           /* some matrix is stored [in][out] */
    bool paths;            /* modules are named in full: more than LEAVES_MAX kinds */
};

/* ---- modules ---- */

/* Where an architecture is the language part of vision models, its modules lie one level deeper there. */
static bool module_name(const struct model *m, const struct weight_row *r, int il, int64_t expert, char *out, size_t cap)
{
    static const char weight[] = ".weight", whole[] = "model.", part[] = "model.language_model.";
    size_t n = strcspn(r->hf, "|"), w = strlen(weight);
    char name[NAME_CAP];
    bool deeper = m->arch->hf && m->arch->hf[0] && strstr(m->arch->hf[0], "ForConditionalGeneration") && !strncmp(r->hf, whole, strlen(whole));
    if (n <= w || memcmp(r->hf + n - w, weight, w) || !hf_expand(r->hf, n - w, il, expert, name, sizeof name)) return false;
    return snprintf(out, cap, "%s%s", deeper ? part : "", name + (deeper ? strlen(whole) : 0)) < (int)cap;
}

static status refuse(const struct export_peft *x, const struct weight_row *r, const struct tensor *w, struct err *e)
{
    const struct weight_import *own = hf_own(x->m->arch, r->id);
    if (own && (own->value || own->factor || (own->load && !own->row)))
        return err_set(e, ERR_FORMAT, "%s: architecture %s computes it from the checkpoint's weights: its adapter cannot be written for PEFT", w->name,
                       x->m->arch->name);
    if (!r->hf || (w->ne[2] > 1 && !strstr(r->hf, "%e")))
        return err_set(e, ERR_FORMAT, "%s: no module of the checkpoint is this weight: its adapter cannot be written for PEFT", w->name);
    return OK;
}

static status add_part(struct export_peft *x, const struct weight_row *r, int il, int64_t expert, const struct lora_pair *p, struct err *e)
{
    const struct tensor *w = model_weight(x->m, il, r->id);
    char name[NAME_CAP];
    bool flipped = r->id == W_EMBD;
    if (!module_name(x->m, r, il, expert, name, sizeof name)) return err_set(e, ERR_FORMAT, "%s: its name in a checkpoint is not known", w->name);
    struct module *m = NULL;
    for (int64_t i = x->layer0; i < x->n && !m; i++) m = strcmp(x->module[i].name, name) ? NULL : &x->module[i];
    if (!m) {
        m = &x->module[x->n++];
        *m = (struct module){ .name = arena_strdup(&x->arena, name, strlen(name)), .embedding = flipped };
        if (!m->name) return err_oom(e, w->name, strlen(name));
        m->in = flipped ? w->ne[1] : w->ne[0];
        m->out = flipped ? w->ne[0] : strstr(r->hf, "%e") ? w->ne[1] : hf_source_rows(x->m, r, il);
    }
    if (m->n_parts == PARTS_MAX || m->out < 0)
        return err_set(e, ERR_FORMAT, "%s: %.120s has other parts, its adapter cannot be written for PEFT", w->name, m->name);
    m->part[m->n_parts++] = (struct part){ p, r, il, expert, flipped ? w->ne[0] : w->ne[1] };
    x->turned |= (r->flags & WEIGHT_TRANSPOSED) != 0;
    return OK;
}

static status list_modules(struct export_peft *x, struct err *e)
{
    int64_t most = 0;
    bool one_by_one = false;
    for (int64_t i = 0; i < x->ad->n_pairs; i++) most += x->ad->pair[i].a.ne[2];
    x->module = arena_zalloc(&x->arena, (size_t)most, sizeof *x->module);
    if (!x->module) return err_oom(e, x->ad->name, (size_t)most * sizeof *x->module);
    for (int il = -1; il < x->m->hp.n_layer; il++) {
        x->layer0 = x->n;
        for (const struct weight_row *r = x->m->arch->weights; r->gguf; r++) {
            const struct tensor *w = (r->id >= W_LAYER_COUNT) == (il < 0) ? model_weight(x->m, il, r->id) : NULL;
            const struct lora_pair *p = w ? adapter_pair(x->ad, il, r->id) : NULL;
            if (!p) continue;
            TRY(refuse(x, r, w, e));
            if (w->ne[2] > 1 && !one_by_one && x->o->warn)
                x->o->warn(x->o->ctx, "experts are written one by one, as in transformers 4; with transformers 5 PEFT reads that for Mixtral and Qwen3-MoE");
            one_by_one |= w->ne[2] > 1;
            for (int64_t k = 0; k < w->ne[2]; k++) TRY(add_part(x, r, il, k, p, e));
        }
    }
    return OK;
}

/* ---- matrices ---- */

/* Matrix k of a tensor [ne2][ne1][ne0] as f32, in the arena. */
static float *floats_of(struct export_peft *x, const struct tensor *t, int64_t k)
{
    size_t bytes, n = (size_t)(t->ne[0] * t->ne[1]);
    float *out = mul_size(n, sizeof(float), &bytes) ? arena_alloc(&x->arena, bytes) : NULL;
    if (out) dtype_to_f32(t->type, (const uint8_t *)t->data + (size_t)(k * t->ne[1]) * t->nb[1], out, (int64_t)n);
    return out;
}

static float *turned(struct export_peft *x, const float *a, int64_t rows, int64_t cols)
{
    float *out = arena_zalloc(&x->arena, (size_t)(rows * cols), sizeof *out);
    for (int64_t r = 0; out && r < rows; r++)
        for (int64_t c = 0; c < cols; c++) out[c * rows + r] = a[r * cols + c];
    return out;
}

/* Do all parts have one A, one rank, one factor? Then it is the module's own. */
static bool shares_a(const struct module *m, float *const *a)
{
    for (int i = 1; i < m->n_parts; i++) {
        const struct lora_pair *p = m->part[0].p, *q = m->part[i].p;
        if (p->b.ne[0] != q->b.ne[0] || p->factor != q->factor || memcmp(a[0], a[i], (size_t)(p->b.ne[0] * m->in) * sizeof(float))) return false;
    }
    return true;
}

/* Rows of a part's B go where the checkpoint has them, its columns behind those of the parts before it. */
static status place(struct export_peft *x, struct module *m, const struct part *q, const float *b, int64_t column, bool *taken, struct err *e)
{
    const struct weight_import *own = hf_own(x->m->arch, q->row->id);
    int64_t rank = q->p->b.ne[0];
    double by = (double)q->p->factor / m->scale;
    for (int64_t i = 0; i < q->rows; i++) {
        int64_t to = m->embedding ? i : hf_row(x->m, q->row, own, q->il, i);
        if (to < 0 || to >= m->out || taken[to])
            return err_set(e, ERR_FORMAT, "%s: row %lld is row %lld of %.80s, which has %lld, each once: its adapter cannot be written for PEFT", q->p->b.name,
                           (long long)i, (long long)to, m->name, (long long)m->out);
        taken[to] = true;
        for (int64_t k = 0; k < rank; k++) m->b[to * m->rank + column + k] = by == 1 ? b[i * rank + k] : (float)(by * b[i * rank + k]);
    }
    return OK;
}

static status make_pair(struct export_peft *x, struct module *m, struct err *e)
{
    float *a[PARTS_MAX], *b[PARTS_MAX];
    for (int i = 0; i < m->n_parts; i++) {
        const struct part *q = &m->part[i];
        a[i] = floats_of(x, &q->p->a, q->expert), b[i] = floats_of(x, &q->p->b, q->expert);
        if (a[i] && m->embedding) a[i] = turned(x, a[i], m->in, q->p->b.ne[0]);
        if (!a[i] || !b[i]) return err_oom(e, m->name, tensor_bytes(&q->p->a));
    }
    bool shared = shares_a(m, a);
    m->scale = (double)m->part[0].p->factor;
    if (m->scale == 0) m->scale = 1;
    for (int i = 0; i < (shared ? 1 : m->n_parts); i++) m->rank += m->part[i].p->b.ne[0];
    m->a = arena_zalloc(&x->arena, (size_t)(m->rank * m->in), sizeof *m->a);
    m->b = arena_zalloc(&x->arena, (size_t)(m->rank * m->out), sizeof *m->b);
    bool *taken = arena_zalloc(&x->arena, (size_t)m->out, sizeof *taken);
    if (!m->a || !m->b || !taken) return err_oom(e, m->name, (size_t)(m->rank * m->in) * sizeof(float));
    for (int64_t i = 0, at = 0; i < m->n_parts; i++) {
        int64_t rank = m->part[i].p->b.ne[0];
        memcpy(m->a + at * m->in, a[i], (size_t)(rank * m->in) * sizeof(float));
        TRY(place(x, m, &m->part[i], b[i], at, taken, e));
        if (!shared) at += rank;
    }
    return OK;
}

/* The rank and the alpha that most modules have. */
static void settle(struct export_peft *x)
{
    int64_t best_rank = 0, best_alpha = 0;
    for (int64_t i = 0; i < x->n; i++) {
        int64_t same_rank = 0, same_alpha = 0;
        double alpha = x->module[i].scale * (double)x->module[i].rank;
        for (int64_t k = 0; k < x->n; k++) {
            same_rank += x->module[k].rank == x->module[i].rank;
            same_alpha += (float)(x->module[k].scale * (double)x->module[k].rank) == (float)alpha;
        }
        if (same_rank > best_rank) best_rank = same_rank, x->rank = x->module[i].rank;
        if (same_alpha > best_alpha) best_alpha = same_alpha, x->alpha = alpha;
        if (2 * best_rank > x->n && 2 * best_alpha > x->n) break;
    }
    if (fabs(x->alpha - nearbyint(x->alpha)) < 1e-6 * fabs(x->alpha)) x->alpha = nearbyint(x->alpha); /* factors are rounded floats */
}

/* ---- names for the config ---- */

static const char *leaf_of(const char *module)
{
    const char *dot = strrchr(module, '.');
    return dot ? dot + 1 : module;
}

static struct leaf *find_leaf(struct export_peft *x, const char *module)
{
    const char *name = leaf_of(module);
    for (int i = 0; i < x->n_leaves; i++)
        if (!strcmp(x->leaf[i].name, name)) return &x->leaf[i];
    if (x->n_leaves == LEAVES_MAX || strlen(name) >= sizeof x->leaf->name) return NULL;
    struct leaf *l = &x->leaf[x->n_leaves++];
    *l = (struct leaf){ 0 };
    snprintf(l->name, sizeof l->name, "%s", name);
    return l;
}

static bool is_first_of_source(const struct model *m, const struct weight_row *r, int il)
{
    for (const struct weight_row *o = m->arch->weights; o != r; o++)
        if (o->hf && !strcmp(o->hf, r->hf) && (o->id >= W_LAYER_COUNT) == (il < 0) && model_weight(m, il, o->id)) return false;
    return true;
}

static void count_leaves(struct export_peft *x)
{
    char name[NAME_CAP];
    for (int il = -1; il < x->m->hp.n_layer; il++)
        for (const struct weight_row *r = x->m->arch->weights; r->gguf; r++) {
            const struct tensor *w = (r->id >= W_LAYER_COUNT) == (il < 0) ? model_weight(x->m, il, r->id) : NULL;
            bool vector = r->ne1 == DIM_1 || r->flags & WEIGHT_VECTOR;
            if (!w || !r->hf || vector || !is_first_of_source(x->m, r, il) || !module_name(x->m, r, il, 0, name, sizeof name)) continue;
            struct leaf *l = find_leaf(x, name);
            if (l) l->in_model += w->ne[2];
            else x->paths = true;
        }
    for (int64_t i = 0; i < x->n; i++) {
        struct leaf *l = find_leaf(x, x->module[i].name);
        if (l) l->in_adapter++;
    }
}

static void put_targets(struct export_peft *x, struct json_out *o)
{
    json_begin(o, "target_modules", '[');
    for (int i = 0; i < x->n_leaves && !x->paths; i++)
        if (x->leaf[i].in_adapter && x->leaf[i].in_adapter == x->leaf[i].in_model) json_put_cstr(o, NULL, x->leaf[i].name);
    for (int64_t i = 0; i < x->n; i++) {
        const struct leaf *l = find_leaf(x, x->module[i].name);
        if (x->paths || !l || l->in_adapter != l->in_model) json_put_cstr(o, NULL, x->module[i].name);
    }
    json_end(o, ']');
}

static void put_number(struct json_out *o, const char *key, double v)
{
    if (v == nearbyint(v) && fabs(v) < 1e9) json_put_i64(o, key, (int64_t)v);
    else json_put_real(o, key, v);
}

static void put_patterns(const struct export_peft *x, struct json_out *o)
{
    json_begin(o, "rank_pattern", '{');
    for (int64_t i = 0; i < x->n; i++)
        if (x->module[i].rank != x->rank) json_put_i64(o, x->module[i].name, x->module[i].rank);
    json_end(o, '}');
    json_begin(o, "alpha_pattern", '{');
    for (int64_t i = 0; i < x->n; i++) {
        double alpha = x->module[i].scale * (double)x->module[i].rank;
        if (fabs(alpha - x->alpha) > 1e-6 * fabs(x->alpha)) put_number(o, x->module[i].name, alpha);
    }
    json_end(o, '}');
}

static void put_config(struct export_peft *x, struct json_out *o)
{
    json_begin(o, NULL, '{');
    json_put_cstr(o, "peft_type", "LORA");
    json_put_cstr(o, "task_type", "CAUSAL_LM");
    json_put_cstr(o, "base_model_name_or_path", x->o->base_name);
    json_put_i64(o, "r", x->rank);
    put_number(o, "lora_alpha", x->alpha);
    put_targets(x, o);
    put_patterns(x, o);
    json_put_real(o, "lora_dropout", 0);
    json_put_cstr(o, "bias", "none");
    json_put_bool(o, "fan_in_fan_out", x->turned);
    json_put_bool(o, "use_rslora", false);
    json_put_bool(o, "use_dora", false);
    json_put_bool(o, "init_lora_weights", true);
    json_put_bool(o, "inference_mode", true);
    json_put_null(o, "modules_to_save");
    json_put_null(o, "layers_to_transform");
    json_put_null(o, "layers_pattern");
    json_end(o, '}');
}

/* ---- writing ---- */

static const struct dtype *type_of(const struct export_peft *x)
{
    if (x->o->type) return x->o->type;
    const struct dtype *t = x->ad->pair[0].a.type;
    bool same = t->gguf_id == GGUF_F16 || t->gguf_id == GGUF_BF16;
    for (int64_t i = 0; same && i < x->ad->n_pairs; i++) same = x->ad->pair[i].a.type == t && x->ad->pair[i].b.type == t;
    return same ? t : dtype_by_id(GGUF_F32);
}

static status write_matrix(struct export_peft *x, struct safetensors_writer *w, int64_t id, const float *v, int64_t n, struct err *e)
{
    size_t bytes = (size_t)n * (size_t)x->type->block_bytes;
    if (x->type->gguf_id == GGUF_F32) return safetensors_write(w, id, 0, v, bytes, e);
    uint8_t *out = mem_alloc(bytes);
    if (!out) return err_oom(e, "adapter", bytes);
    dtype_from_f32(x->type, v, out, n);
    status st = safetensors_write(w, id, 0, out, bytes, e);
    mem_free(out);
    return st;
}

/* Keys of the GGUF file beyond the format's own, as text: base, seed, step and what else its writer noted. */
static void put_notes(const struct export_peft *x, struct safetensors_writer *w)
{
    safetensors_put_meta(w, "format", "pt");
    for (int64_t i = 0; i < x->ad->g.n_kv; i++) {
        const struct gguf_kv *kv = &x->ad->g.kv[i];
        char key[128], text[512];
        struct str s;
        int64_t v;
        float f;
        if (snprintf(key, sizeof key, "%.*s", (int)min_i64((int64_t)kv->key.n, 127), kv->key.p) <= 0 || !strncmp(key, "general.", 8) ||
            !strncmp(key, "adapter.lora.", 13) || !strcmp(key, "adapter.type"))
            continue;
        if (kv->kind == KV_STR && gguf_get_str(&x->ad->g, key, &s, NULL)) snprintf(text, sizeof text, "%.*s", (int)min_i64((int64_t)s.n, 500), s.p);
        else if (kv->kind == KV_F32 && gguf_get_f32(&x->ad->g, key, &f, NULL)) snprintf(text, sizeof text, "%.9g", (double)f);
        else if (kv->kind != KV_ARR && gguf_get_i64(&x->ad->g, key, INT64_MIN, INT64_MAX, &v, NULL)) snprintf(text, sizeof text, "%lld", (long long)v);
        else continue;
        safetensors_put_meta(w, key, text);
    }
}

static status write_weights(struct export_peft *x, struct safetensors_writer *w, struct err *e)
{
    static const struct { int from; enum ckpt_type to; } types[] = { { GGUF_F32, CKPT_F32 }, { GGUF_F16, CKPT_F16 }, { GGUF_BF16, CKPT_BF16 } };
    enum ckpt_type type = CKPT_F32;
    for (int i = 0; i < ARRAY_LEN(types); i++)
        if (x->type->gguf_id == types[i].from) type = types[i].to;
    put_notes(x, w);
    for (int64_t i = 0; i < x->n; i++) {
        struct module *m = &x->module[i];
        char name[NAME_CAP + 64];
        const char *const side[] = { m->embedding ? "lora_embedding_A" : "lora_A.weight", m->embedding ? "lora_embedding_B" : "lora_B.weight" };
        snprintf(name, sizeof name, "base_model.model.%s.%s", m->name, side[0]);
        m->id_a = safetensors_add(w, name, type, 2, (const int64_t[]){ m->rank, m->in });
        snprintf(name, sizeof name, "base_model.model.%s.%s", m->name, side[1]);
        m->id_b = safetensors_add(w, name, type, 2, (const int64_t[]){ m->out, m->rank });
    }
    TRY(safetensors_begin(w, e));
    for (int64_t i = 0; i < x->n; i++) {
        const struct module *m = &x->module[i];
        TRY(write_matrix(x, w, m->id_a, m->a, m->rank * m->in, e));
        TRY(write_matrix(x, w, m->id_b, m->b, m->rank * m->out, e));
    }
    return OK;
}

static status write_folder(struct export_peft *x, const char *dir, struct err *e)
{
    char path[4200];
    struct safetensors_writer *w;
    struct json_out o;
    if (snprintf(path, sizeof path, "%s/adapter_model.safetensors", dir) >= (int)sizeof path)
        return err_set(e, ERR_FILE, "%.60s...: the path is too long", dir);
    if (mkdir(dir, 0777) != 0 && errno != EEXIST) return err_set(e, ERR_FILE, "%s: cannot make the directory", dir);
    TRY(safetensors_writer_open(&w, path, e));
    status st = write_weights(x, w, e);
    if (st == OK) st = safetensors_writer_finish(w, e);
    else safetensors_writer_abort(w);
    TRY(st);
    json_out_init(&o, true);
    put_config(x, &o);
    st = export_text(dir, "adapter_config.json", &o, e);
    json_out_free(&o);
    return st;
}

static status export_all(struct export_peft *x, const char *dir, struct peft_info *info, struct err *e)
{
    TRY(list_modules(x, e));
    for (int64_t i = 0; i < x->n; i++) TRY(make_pair(x, &x->module[i], e));
    settle(x);
    count_leaves(x);
    x->type = type_of(x);
    *info = (struct peft_info){ .n_modules = x->n, .n_tensors = x->ad->n_pairs, .rank_min = LORA_RANK_MAX, .alpha = x->alpha, .type = x->type };
    for (int64_t i = 0; i < x->n; i++) {
        info->rank_min = min_i64(info->rank_min, x->module[i].rank);
        info->rank_max = max_i64(info->rank_max, x->module[i].rank);
    }
    return x->o->check_only ? OK : write_folder(x, dir, e);
}

status peft_export(const char *path, const struct model *m, const char *dir, const struct peft_options *o, struct peft_info *info, struct err *e)
{
    struct adapter *ad;
    TRY(adapter_open(&ad, path, m, e));
    struct export_peft *x = mem_calloc(1, sizeof *x);
    if (!x) {
        adapter_close(ad);
        return err_oom(e, path, sizeof *x);
    }
    x->m = m, x->o = o, x->ad = ad;
    arena_init(&x->arena, 0);
    status st = export_all(x, dir, info, e);
    arena_free(&x->arena);
    mem_free(x);
    adapter_close(ad);
    return st;
}
