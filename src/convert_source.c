/* convert_source - from weight rows to the tensors of a checkpoint: names, shapes, stacks of experts, and what is left over. */
#include "src/convert_int.h"
#include "src/hf.h"
#include <stdio.h>
#include <string.h>

/* ---- names ---- */

/* The first alternative with its numbers, for errors. */
static const char *plain_name(const char *pattern, int il, int64_t expert, char *out, size_t cap)
{
    size_t n = strcspn(pattern, "|");
    if (!hf_expand(pattern, n, il, expert, out, cap)) snprintf(out, cap, "%.*s", (int)n, pattern);
    return out;
}

static const struct ckpt_tensor *find_named(const struct checkpoint *c, const char *name)
{
    char other[320];
    for (int i = 0; hf_spelling(name, i, other, sizeof other); i++) {
        const struct ckpt_tensor *t = checkpoint_find(c, other);
        if (t) return t;
    }
    return NULL;
}

/* A tensor under one of its names, or the one that holds its packed codes. */
static const struct ckpt_tensor *find_any(const struct import *im, const char *name, bool *packed)
{
    char other[300];
    for (int i = 0; packed_name(im, i, name, other, sizeof other); i++) {
        const struct ckpt_tensor *t = find_named(&im->ckpt, other);
        if (t) return *packed = true, t;
    }
    const struct ckpt_tensor *t = find_named(&im->ckpt, name);
    *packed = t && packed_is(im, t);
    return t;
}

/* The first alternative of the pattern that is there. */
static const struct ckpt_tensor *find_pattern(const struct import *im, const char *pattern, int il, int64_t expert, bool *packed)
{
    for (const char *p = pattern; *p;) {
        size_t n = strcspn(p, "|");
        char name[256];
        const struct ckpt_tensor *t = hf_expand(p, n, il, expert, name, sizeof name) ? find_any(im, name, packed) : NULL;
        if (t) return t;
        p += n + (p[n] == '|');
    }
    return NULL;
}

/* Loading functions of several threads come here too. */
static bool bind(struct import *im, struct source *s)
{
    int64_t i = s->t - im->ckpt.tensor;
    pthread_mutex_lock(&im->lock);
    im->used[i] = true;
    bool ok = im->bound[i] || packed_bind(im, s->t, &im->bound[i], &im->first) == OK;
    s->packed = im->bound[i];
    pthread_mutex_unlock(&im->lock);
    if (ok) s->t = &s->packed->as;
    return ok;
}

bool source_find(struct import *im, const char *pattern, int il, int64_t expert, struct source *s)
{
    bool packed;
    *s = (struct source){ 0 };
    s->t = find_pattern(im, pattern, il, expert, &packed);
    if (!s->t) return false;
    if (packed) return bind(im, s); /* why not is told by import_failed */
    pthread_mutex_lock(&im->lock);
    im->used[s->t - im->ckpt.tensor] = true;
    pthread_mutex_unlock(&im->lock);
    return true;
}

status import_failed(const struct import *im, struct err *e) { return im->first.code == OK ? OK : err_set(e, im->first.code, "%s", im->first.text); }

bool import_has(const struct import *im, const char *hf, int il)
{
    bool packed;
    return find_pattern(im, hf, il, 0, &packed) != NULL;
}

bool source_is_packed(const struct import *im, const char *pattern, int il)
{
    bool packed = false;
    return pattern && find_pattern(im, pattern, il, 0, &packed) && packed;
}

/* ---- reading ---- */

int64_t source_rows(const struct source *s) { return ckpt_rows(s->t); }
int64_t source_cols(const struct source *s) { return ckpt_row_len(s->t); }
bool source_is_float(const struct source *s) { return ckpt_type_is_float(s->t->type); }

void source_turn(struct source *s, int64_t *rows, int64_t *cols)
{
    s->turned = *s->t;
    int a = s->t->n_dims - 2, b = s->t->n_dims - 1;
    s->turned.shape[a] = s->t->shape[b], s->turned.shape[b] = s->t->shape[a];
    s->turned.stride[a] = s->t->stride[b], s->turned.stride[b] = s->t->stride[a];
    s->turned.contiguous = false;
    *rows = ckpt_rows(&s->turned);
    *cols = ckpt_row_len(&s->turned);
}

status source_read(const struct import *im, const struct source *s, int64_t row0, int64_t n, float *out, struct err *e)
{
    if (s->packed) return packed_read(im, s->packed, NULL, row0, n, out, e);
    return checkpoint_read_f32(&im->ckpt, s->turned.name ? &s->turned : s->t, row0, n, out, e);
}

status source_read_as(const struct import *im, const struct source *s, const struct dtype *type, int64_t row0, int64_t n, void *out, struct err *e)
{
    if (!type) return source_read(im, s, row0, n, out, e);
    return s->packed ? packed_read(im, s->packed, type, row0, n, out, e) : checkpoint_read_rows(&im->ckpt, s->t, row0, n, out, e);
}

static const char *shape_text(const struct ckpt_tensor *t, char buf[96])
{
    size_t at = 0;
    buf[0] = '\0';
    for (int i = 0; i < t->n_dims && at < 80; i++)
        at += (size_t)snprintf(buf + at, 96 - at, "%s%lld", i ? ", " : "[", (long long)t->shape[i]);
    snprintf(buf + at, 96 - at, at ? "]" : "[]");
    return buf;
}

/* Integers arrive as f32 too. */
static status load_rows(const struct import *im, const struct source *s, int64_t row0, int64_t n, float *out, struct err *e)
{
    if (source_is_float(s)) return source_read(im, s, row0, n, out, e);
    int32_t *x = (int32_t *)(void *)out;
    TRY(checkpoint_read_i32(&im->ckpt, s->t, row0, n, x, e));
    for (int64_t i = 0; i < n * source_cols(s); i++) {
        float f = (float)x[i];
        memcpy(&x[i], &f, sizeof f);
    }
    return OK;
}

status import_load_item(struct import *im, const char *hf, int il, int64_t item, int64_t *shape, int n_dims, float **out, struct err *e)
{
    struct source s;
    char have[96];
    *out = NULL;
    if (!source_find(im, hf, il, 0, &s)) {
        TRY(import_failed(im, e));
        char name[256];
        return err_set(e, ERR_FORMAT, "tensor %s is missing", plain_name(hf, il, 0, name, sizeof name));
    }
    bool fits = s.t->n_dims == n_dims;
    for (int i = 0; fits && i < n_dims; i++) fits = shape[i] < 0 || shape[i] == s.t->shape[i];
    if (!fits) {
        char want[96] = "";
        for (int i = 0; i < n_dims; i++) snprintf(want + strlen(want), sizeof want - strlen(want), "%s%lld", i ? ", " : "", (long long)shape[i]);
        return err_set(e, ERR_FORMAT, "%s: shape is %s, expected [%s] (-1 = any)", s.t->name, shape_text(s.t, have), want);
    }
    for (int i = 0; i < n_dims; i++) shape[i] = s.t->shape[i];
    int64_t rows = source_rows(&s), row0 = 0;
    if (item >= 0 && n_dims > 1 && shape[0] > 0) rows /= shape[0], row0 = item * rows;
    size_t bytes;
    if (!mul_size((size_t)(rows * source_cols(&s)), sizeof(float), &bytes) || !(*out = mem_alloc(bytes))) return err_oom(e, s.t->name, SIZE_MAX);
    status st = load_rows(im, &s, row0, rows, *out, e);
    if (st != OK) {
        mem_free(*out);
        *out = NULL;
    }
    return st;
}

status import_load(struct import *im, const char *hf, int il, int64_t *shape, int n_dims, float **out, struct err *e)
{
    return import_load_item(im, hf, il, -1, shape, n_dims, out, e);
}

/* ---- the plan ---- */

/* Tensors that no runtime needs. */
static const char *const never_needed[] = {
    "rotary_emb.inv_freq", ".attn.masked_bias", ".attn.bias", ".attention.bias", ".attention.masked_bias", "position_ids", NULL
};
/* What packed checkpoints have for quantized activations and caches: weights are run with exact ones. */
static const char *const activation_scales[] = {
    ".input_scale", ".input_zero_point", ".input_global_scale", ".output_scale", ".k_scale", ".v_scale", ".q_scale", ".activation_scale", NULL
};
/* Parts of multimodal checkpoints and extra heads: not run, left out with a word. */
static const char *const other_parts[] = {
    "vision_tower.", "vision_model.", "visual.", "multi_modal_projector.", "audio_tower.", "embed_vision.", "embed_audio.", "mtp.", NULL
};

static bool holds_any(const char *name, const char *const *list)
{
    for (; list && *list; list++)
        if (strstr(name, *list)) return true;
    return false;
}

static status add_tensor(struct convert *c, const struct weight_row *r, int il, struct out_tensor **out, struct err *e)
{
    char name[128];
    if (c->n_tensors == c->cap_tensors) {
        int64_t cap = c->cap_tensors ? 2 * c->cap_tensors : 256;
        struct out_tensor *grown = mem_realloc(c->tensor, (size_t)cap * sizeof *grown);
        if (!grown) return err_oom(e, "tensors", (size_t)cap * sizeof *grown);
        c->tensor = grown, c->cap_tensors = cap;
    }
    struct out_tensor *t = &c->tensor[c->n_tensors];
    *t = (struct out_tensor){ .row = r, .il = il };
    snprintf(name, sizeof name, r->gguf, il);
    t->t.name = arena_strdup(&c->im.arena, name, strlen(name));
    if (!t->t.name) return err_oom(e, name, sizeof name);
    t->own = hf_own(c->im.arch, r->id);
    *out = t;
    return OK;
}

/* Vectors and what the runtime reads as f32 stay F32; routers too, as llama.cpp keeps them; rows that no block fits are F16. */
static const struct dtype *type_of(const struct convert *c, const struct weight_row *r, int64_t ne0)
{
    bool f32 = r->ne1 == DIM_1 || r->flags & WEIGHT_VECTOR || r->id == W_ROUTER || r->id == W_SHARED_ROUTER;
    if (f32) return dtype_by_id(GGUF_F32);
    return ne0 % c->type->block_len ? dtype_by_id(GGUF_F16) : c->type;
}

static void note_missing(struct convert *c, const struct out_tensor *t)
{
    size_t at = strlen(c->missing);
    char name[256];
    struct source s;
    int64_t x = 0;
    if (!t->row->hf) snprintf(name, sizeof name, "%s", t->t.name);
    while (t->row->hf && x + 1 < t->t.ne[2] && strstr(t->row->hf, "%e") && source_find(&c->im, t->row->hf, t->il, x, &s)) x++;
    if (t->row->hf) plain_name(t->row->hf, t->il, x, name, sizeof name);
    if (c->n_missing == 0 || at + strlen(name) + 8 < 140) snprintf(c->missing + at, sizeof c->missing - at, "%s%s", at ? ", " : "", name);
    else if (!strstr(c->missing, ", ...")) snprintf(c->missing + at, sizeof c->missing - at, ", ...");
    c->n_missing++;
}

/* A stack: one tensor for each expert, or one with all of them. */
static bool find_sources(struct convert *c, struct out_tensor *t, int64_t n_parts, struct err *e)
{
    struct import *im = &c->im;
    struct source s;
    bool each = strstr(t->row->hf, "%e") != NULL;
    const struct ckpt_tensor *first = NULL;
    t->n_source = each ? n_parts : 1;
    for (int64_t x = 0; x < t->n_source; x++) { /* all are there: then memory is taken for them */
        if (!source_find(im, t->row->hf, t->il, x, &s)) return false;
        if (x > 0 && s.t == first) t->n_source = 1; /* found by the alternative for all experts at once */
        if (x == 0) first = s.t;
    }
    t->source = arena_zalloc(&im->arena, (size_t)t->n_source, sizeof *t->source);
    if (!t->source) return err_oom(e, t->t.name, (size_t)t->n_source * sizeof *t->source), false;
    for (int64_t x = 0; x < t->n_source; x++) (void)source_find(im, t->row->hf, t->il, x, &t->source[x]);
    return true;
}

/* Types that quantized checkpoints pack their codes in. */
static bool is_code(enum ckpt_type t) { return t == CKPT_U8 || t == CKPT_I8 || t == CKPT_I32; }

/* What a source must look like: [rows][cols], turned if the row says so; a matrix with a row map of its own may have any number of rows. What is read
 * whole (see convert_write.c) has exactly the elements of the output. */
static status check_source(const struct out_tensor *t, struct source *s, struct err *e)
{
    char have[96];
    if (!source_is_float(s))
        return err_set(e, ERR_FORMAT, is_code(s->t->type) ? "%s: type is %s: this kind of quantized checkpoint is not supported"
                                                          : "%s: type is %s, expected floating point", s->t->name, ckpt_type_name(s->t->type));
    int64_t rows = source_rows(s), cols = source_cols(s), want_rows = t->t.ne[1] * (t->n_source == 1 ? t->t.ne[2] : 1), want_cols = t->t.ne[0];
    bool turned = t->row->flags & WEIGHT_TRANSPOSED && !s->packed; /* packed ones are [out][in] in any case */
    if (turned && s->t->n_dims >= 2) source_turn(s, &rows, &cols);
    bool mapped = t->own && t->own->row, vector = t->row->ne1 == DIM_1;
    if (vector && rows * cols == want_cols) return OK; /* whatever its dimensions of 1 */
    if (t->row->flags & WEIGHT_VECTOR && !mapped && rows * cols == want_rows * want_cols) return OK; /* convolutions have a dimension of 1 in between */
    bool vocab = t->row->ne1 == DIM_VOCAB && rows >= want_rows;
    if (cols == want_cols && (rows == want_rows || (mapped && !vector) || vocab)) return OK;
    return err_set(e, ERR_FORMAT, "%s: shape is %s, expected [%lld, %lld]", s->t->name, shape_text(s->t, have),
                   (long long)(turned ? want_cols : want_rows), (long long)(turned ? want_rows : want_cols));
}

/* Packed sources may have a type that holds their numbers as they are: every row of the output is then a row of theirs. */
static void keep_codes(struct convert *c, struct out_tensor *t)
{
    static const int types[] = { GGUF_MXFP4, GGUF_Q4_0, GGUF_Q4_1, GGUF_Q8_0 };
    const struct dtype *want = c->im.o->type;
    unsigned fits = ~0u;
    bool rounds = false;
    const char *why = NULL;
    for (int64_t i = 0; i < t->n_source; i++) {
        const struct packed *p = t->source[i].packed;
        fits &= p ? p->fits : 0;
        rounds |= p && p->rounds;
        if (p && !why) why = p->why;
    }
    bool changed = t->row->flags & WEIGHT_PLUS_ONE || (t->own && (t->own->value || t->own->factor));
    bool f32 = t->t.type->gguf_id == GGUF_F32 && c->type->gguf_id != GGUF_F32;
    if (!t->source[0].packed || f32) return;
    c->n_packed++;
    for (int i = 0; i < ARRAY_LEN(types) && !changed; i++) {
        const struct dtype *type = dtype_by_id(types[i]);
        if (!(fits & packed_fits_bit(type)) || (want && want != type)) continue;
        tensor_shape(&t->t, type, t->t.ne[0], t->t.ne[1], t->t.ne[2], 1);
        t->exact = true;
        c->n_rounded += rounds && type->gguf_id == GGUF_Q4_1;
        return;
    }
    if (want) return;
    if (c->n_unpacked++ == 0) c->why = changed ? "the architecture changes values" : why ? why : "parts need different types";
}

static void warn_packed(const struct convert *c)
{
    if (!c->im.scheme) return;
    const char *name = packed_scheme_name(c->im.scheme);
    if (c->n_unpacked)
        import_warn(&c->im, "%s: %lld of %lld quantized tensors become %s: %s", name, (long long)c->n_unpacked, (long long)c->n_packed,
                    c->type->gguf_name, c->why);
    if (c->n_rounded)
        import_warn(&c->im, "%s: %lld tensors have zero points: Q4_1 keeps codes and scales, its minima are rounded to halves (at most 1 in 2048); "
                    "--dtype q8_0 or f32 is exact", name, (long long)c->n_rounded);
}

static bool is_rope_factors(enum weight_id id) { return id == W_ROPE_FREQS || id == W_ROPE_LONG || id == W_ROPE_SHORT; }

/* What an architecture loads by itself has its place too. */
static void mark_used(struct import *im, const struct weight_row *r, int il)
{
    struct source s;
    bool each = r->hf && strstr(r->hf, "%e");
    for (int64_t x = 0; x <= im->ckpt.n_tensors && r->hf && source_find(im, r->hf, il, x, &s) && each; x++) continue;
}

static status plan_row(struct convert *c, const struct weight_row *r, int il, struct err *e)
{
    struct out_tensor *t = NULL;
    const struct model *m = &c->model;
    TRY(add_tensor(c, r, il, &t, e));
    int64_t ne0 = model_dim(m, il, r->ne0), ne1 = model_dim(m, il, r->ne1), ne2 = model_dim(m, il, r->ne2);
    tensor_shape(&t->t, type_of(c, r, ne0), ne0, ne1, ne2, 1);
    bool by_rows = t->own && t->own->row && source_is_packed(&c->im, r->hf, il);
    if (t->own && t->own->load && !by_rows) {
        if (r->flags & WEIGHT_OPTIONAL && r->hf && !import_has(&c->im, r->hf, il)) return OK;
        mark_used(&c->im, r, il);
        TRY(import_failed(&c->im, e));
        c->n_tensors++;
        return OK;
    }
    if (is_rope_factors(r->id) && !(r->hf && import_has(&c->im, r->hf, il))) {
        TRY(convert_rope_factors(&c->im, r->id, ne0, &t->made, e));
        c->n_tensors += t->made != NULL;
        return OK;
    }
    bool tied = r->id == W_OUTPUT && import_number(&c->im, "tie_word_embeddings", 0) != 0;
    struct err own = { 0 };
    bool found = r->hf && find_sources(c, t, ne2, &own);
    if (own.code != OK) return err_set(e, own.code, "%s", own.text);
    TRY(import_failed(&c->im, e));
    if (!found || tied) { /* a head that repeats the embedding is stored once */
        if (!found && !(r->flags & WEIGHT_OPTIONAL)) note_missing(c, t);
        return OK;
    }
    for (int64_t i = 0; i < t->n_source; i++) TRY(check_source(t, &t->source[i], e));
    keep_codes(c, t);
    c->n_tensors++;
    return OK;
}

/* "model.layers.N." with N behind the layers that run: one of num_nextn_predict_layers that predict further tokens. */
static bool is_further_layer(const struct convert *c, const char *name)
{
    const char *p = strstr(name, "layers.");
    int64_t more = import_int(&c->im, "num_nextn_predict_layers", 0), n = c->model.hp.n_layer, il = 0;
    if (!p || more < 1) return false;
    p += strlen("layers.");
    int digits = 0;
    for (; p[digits] >= '0' && p[digits] <= '9' && digits < 8; digits++) il = il * 10 + (p[digits] - '0');
    return digits > 0 && p[digits] == '.' && il >= n && il < n + more;
}

static status check_unused(struct convert *c, struct err *e)
{
    struct import *im = &c->im;
    const struct arch_import *own = im->arch->import;
    int64_t n = 0, parts = 0;
    const char *first = NULL;
    for (int64_t i = 0; i < im->ckpt.n_tensors; i++) {
        const char *name = im->ckpt.tensor[i].name;
        if (im->used[i] || holds_any(name, never_needed) || holds_any(name, own ? own->ignore : NULL)) continue;
        if (im->scheme && holds_any(name, activation_scales)) continue;
        if (holds_any(name, other_parts) || is_further_layer(c, name)) {
            parts++;
            continue;
        }
        if (!first) first = name;
        if (n++ < 20) import_warn(im, "unused: %s", name);
    }
    if (parts) import_warn(im, "%lld tensors of other parts (vision, audio, further heads) are left out", (long long)parts);
    if (n == 0 || im->o->allow_unused) return OK;
    return err_set(e, ERR_FORMAT, "%lld tensors of the checkpoint have no place in architecture %s, first %.100s (--allow-unused leaves them out)",
                   (long long)n, im->arch->name, first);
}

status convert_plan_tensors(struct convert *c, struct err *e)
{
    const struct weight_row *rows = c->im.arch->weights;
    for (const struct weight_row *r = rows; r->gguf; r++)
        if (r->id >= W_LAYER_COUNT) TRY(plan_row(c, r, -1, e));
    for (const struct weight_row *r = common_weights; r->gguf; r++)
        if (!arch_row(c->im.arch, r->id)) TRY(plan_row(c, r, -1, e));
    for (int il = 0; il < c->model.hp.n_layer; il++)
        for (const struct weight_row *r = rows; r->gguf; r++)
            if (r->id < W_LAYER_COUNT && model_has_row(&c->model, il, r)) TRY(plan_row(c, r, il, e));
    if (c->n_missing)
        return err_set(e, ERR_FORMAT, "%.60s: %lld tensors are missing: %s", c->im.dir, (long long)c->n_missing, c->missing);
    warn_packed(c);
    return check_unused(c, e);
}
