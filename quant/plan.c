/* plan - decides what becomes of every tensor, and lays out the output: all that can be wrong with options and input is found here, before a
 * byte is written. Reads the input's header only. */
#include <assert.h>
#include <limits.h>
#include <regex.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include "quant/plan_int.h"

static const char keep_word[] = "keep";

/* ---- rules ---- */

struct rule { regex_t re; bool compiled; const struct dtype *to; /* NULL = keep */ bool used; const char *in_vain; /* a tensor that stays as it is */ };
struct decision { const struct dtype *to; /* NULL = keep */ const struct quantizer *method; };
struct deciding {
    struct quant_plan *p;
    struct rule *rule;
    const struct dtype *head, *embd;  /* NULL: keep, or not given */
    const struct dtype *target;       /* of a method that chooses it */
    const struct quantizer *typed;    /* makes what recipes, rules and fallbacks ask for */
    struct recipe_count count;
};

static status type_named(const struct quant_plan *p, const char *what, const char *name, const struct dtype **out, struct err *e)
{
    *out = NULL;
    if (!strcasecmp(name, keep_word)) return OK;
    const struct dtype *t = dtype_by_name(name);
    if (!t) return err_set(e, ERR_USAGE, "%s: unknown format '%.40s' (q4_k, q6_k, f16, ...; or keep)", what, name);
    if (!p->qk.rows[t->gguf_id]) return err_set(e, ERR_USAGE, "%s: %s files are read, not made", what, t->gguf_name);
    *out = t;
    return OK;
}

static status compile_rule(const struct quant_plan *p, const char *text, struct rule *r, struct err *e)
{
    const char *eq = strrchr(text, '=');
    char what[160], why[100];
    snprintf(what, sizeof what, "rule '%.120s'", text);
    if (!eq || eq == text || !eq[1]) return err_set(e, ERR_USAGE, "%s: expected REGEX=TYPE, such as attn_v=q6_k", what);
    TRY(type_named(p, what, eq + 1, &r->to, e));
    char *re = mem_alloc((size_t)(eq - text) + 1);
    if (!re) return err_oom(e, what, (size_t)(eq - text) + 1);
    memcpy(re, text, (size_t)(eq - text));
    re[eq - text] = 0;
    int bad = regcomp(&r->re, re, REG_EXTENDED | REG_NOSUB);
    if (bad) {
        regerror(bad, &r->re, why, sizeof why);
        err_set(e, ERR_USAGE, "%s: %s", what, why);
    }
    r->compiled = !bad;
    mem_free(re);
    return bad ? ERR_USAGE : OK;
}

/* First rule that matches, or -1. Every rule that matches a tensor it could change counts as used: another one before it may win. */
static int rule_for(struct deciding *d, const char *name, bool changeable)
{
    int found = -1;
    for (int i = 0; i < d->p->o.n_rules; i++) {
        struct rule *r = &d->rule[i];
        if (regexec(&r->re, name, 0, NULL, 0) != 0) continue;
        if (changeable || !r->to) r->used = true;
        else if (!r->in_vain) r->in_vain = name;
        if (found < 0) found = i;
    }
    return found;
}

/* ---- one tensor ---- */

static bool is_quantized(const struct dtype *t) { return t->group_len > 0; }

/* What the options want for this tensor, before its shape has a say. False: it stays as it is. */
static bool wanted(struct deciding *d, const struct tensor *t, struct quant_item *it, struct decision *out)
{
    const struct quant_plan *p = d->p;
    const char *kept_why;
    *out = (struct decision){ .method = d->typed };
    bool changeable = recipe_quantizes(&p->model, t, &kept_why);
    int rule = rule_for(d, t->name, changeable);
    if (!changeable) {
        snprintf(it->why, sizeof it->why, "%s", kept_why);
        return false;
    }
    if (rule >= 0) {
        out->to = d->rule[rule].to;
        it->asked = true;
        snprintf(it->why, sizeof it->why, "rule %d: %.70s", rule + 1, p->o.rules[rule]);
        return out->to != NULL;
    }
    if (p->o.embd_type && recipe_is_embd(t->name)) {
        out->to = d->embd;
        it->asked = true;
        snprintf(it->why, sizeof it->why, "embeddings: as asked");
        return out->to != NULL;
    }
    if (p->o.output_type && (recipe_is_head(t->name) || (p->model.tied && recipe_is_embd(t->name)))) {
        out->to = d->head;
        it->asked = true;
        snprintf(it->why, sizeof it->why, "head: as asked");
        return out->to != NULL;
    }
    if (d->target) {
        *out = (struct decision){ d->target, p->o.spec.method };
        snprintf(it->why, sizeof it->why, "%s", out->method->name);
        return true;
    }
    if (p->o.chosen && p->o.chosen[t - p->g.tensor] < 0) {
        snprintf(it->why, sizeof it->why, "kept");
        return false;
    }
    if (p->o.chosen) {
        out->to = dtype_by_id(p->o.chosen[t - p->g.tensor]);
        snprintf(it->why, sizeof it->why, "allocated");
        return true;
    }
    const struct dtype *base = dtype_by_id(p->recipe->base);
    bool mix = is_quantized(base) && !p->o.pure;
    int id = mix ? recipe_type(p->recipe, &p->model, &d->count, t) : p->recipe->base;
    out->to = dtype_by_id(id);
    snprintf(it->why, sizeof it->why, "%s", mix && id != p->recipe->base ? "mix" : "base");
    return true;
}

static void fit_rows(struct quant_item *it, struct decision *d, const struct quantizer *typed)
{
    int id = recipe_fallback(d->to->gguf_id, it->cols);
    if (id == d->to->gguf_id) return;
    const struct dtype *fits = dtype_by_id(id);
    snprintf(it->why, sizeof it->why, "%s instead of %s: rows of %lld are no multiple of %d", fits->gguf_name, d->to->gguf_name, (long long)it->cols,
             d->to->block_len);
    *d = (struct decision){ fits, typed };
    it->fallback = true;
}

static status find_importance(const struct quant_plan *p, struct quant_item *it, struct item_work *w, float *room, struct err *e)
{
    const struct importance_entry *en = p->o.importance ? importance_find(p->o.importance, it->src->name) : NULL;
    if (!en || it->kept || !is_quantized(it->to)) return OK;
    if (importance_slice(en, it->cols, it->n_mat, 0, room)) {
        w->importance = en;
        it->has_importance = true;
        return OK;
    }
    if (recipe_is_embd(it->src->name)) return OK; /* read by token, not multiplied: an entry of its name means something else */
    return err_set(e, ERR_USAGE, "%s: the importance is of %lld matrices with %lld columns, the tensor has %lld with %lld: another model's?",
                   it->src->name, (long long)en->n_mat, (long long)en->n_cols, (long long)it->n_mat, (long long)it->cols);
}

static status check_source(const struct quant_plan *p, const struct quant_item *it, struct err *e)
{
    if (it->kept || !is_quantized(it->src->type) || p->o.allow_requantize) return OK;
    return err_set(e, ERR_USAGE, "%s is %s already: quantizing it again as %s loses quality; use the original, or --allow-requantize", it->src->name,
                   it->src->type->gguf_name, it->to->gguf_name);
}

static status decide(struct deciding *d, int64_t i, float *room, struct err *e)
{
    struct quant_plan *p = d->p;
    struct quant_item *it = &p->item[i];
    struct item_work *w = &p->work[i];
    const struct tensor *t = it->src = &p->g.tensor[i];
    struct decision out;
    *it = (struct quant_item){ .src = t, .rows = t->ne[1], .cols = t->ne[0], .n_mat = t->ne[2] * t->ne[3] };
    bool change = wanted(d, t, it, &out), added = p->o.delta && p->o.delta->has[i];
    if (change) fit_rows(it, &out, d->typed);
    if (added && (!change || out.to == t->type)) {
        out = (struct decision){ t->type, d->typed };
        snprintf(it->why, sizeof it->why, "changed, format as it was");
    }
    it->kept = !added && (!change || out.to == t->type);
    it->to = it->kept ? t->type : out.to;
    w->method = it->kept ? NULL : out.method;
    w->sound = !is_quantized(t->type);
    it->bytes_from = tensor_bytes(t);
    size_t row = dtype_row_bytes(it->to, it->cols);
    if (!mul_size(row, (size_t)tensor_rows(t), &it->bytes_to)) return err_oom(e, t->name, SIZE_MAX);
    if (!it->kept && !p->qk.rows[it->to->gguf_id] && w->method == d->typed)
        return err_set(e, ERR_USAGE, "%s: %s is read, not made, by this program", t->name, it->to->gguf_name);
    TRY(find_importance(p, it, w, room, e));
    return check_source(p, it, e);
}

static status decide_all(struct deciding *d, struct err *e)
{
    struct quant_plan *p = d->p;
    struct recipe_place *order = mem_calloc((size_t)p->n, sizeof *order);
    int64_t cols = 1;
    for (int64_t i = 0; i < p->n; i++) cols = max_i64(cols, tensor_rows(&p->g.tensor[i]) > 1 ? p->g.tensor[i].ne[0] : 1);
    p->max_cols = cols;
    size_t bytes;
    float *room = mul_size((size_t)cols, sizeof *room, &bytes) ? mem_alloc(bytes) : NULL;
    status st = order && room ? OK : err_oom(e, "plan", (size_t)p->n * sizeof *order);
    if (st == OK) recipe_order(&p->g, order);
    for (int64_t i = 0; st == OK && i < p->n; i++) st = decide(d, order[i].index, room, e);
    for (int i = 0; st == OK && i < p->o.n_rules; i++) {
        const char *in_vain = d->rule[i].in_vain;
        if (d->rule[i].used) continue;
        if (in_vain) st = err_set(e, ERR_USAGE, "rule '%.120s' matches only tensors that are never quantized, such as %.60s", p->o.rules[i], in_vain);
        else st = err_set(e, ERR_USAGE, "rule '%.120s' matches no tensor", p->o.rules[i]);
    }
    mem_free(order);
    mem_free(room);
    return st;
}

static status prepare_rules(struct deciding *d, struct err *e)
{
    struct quant_plan *p = d->p;
    const struct quant_options *o = &p->o;
    bool chooses = o->spec.method && !o->spec.method->takes_type;
    d->typed = o->spec.method && !chooses ? o->spec.method : quantizers[0];
    if (chooses) {
        if (o->type) return err_set(e, ERR_USAGE, "--method %s chooses the format itself: leave out %.30s", o->spec.method->name, o->type);
        if (!(d->target = o->spec.method->target(&o->spec, e)))
            return err_set(e, ERR_USAGE, "--method %s: no format holds its result", o->spec.method->name);
    } else if (o->chosen) {
        if (o->type) return err_set(e, ERR_USAGE, "formats for a size or a loss, and the type %.30s: leave out one of them", o->type);
        for (int64_t i = 0; i < p->n; i++)
            if (o->chosen[i] >= 0 && (!dtype_by_id(o->chosen[i]) || !p->qk.rows[o->chosen[i]]))
                return err_set(e, ERR_USAGE, "%s: %s is not made by this build", p->g.tensor[i].name, dtype_id_text(o->chosen[i]));
    } else {
        if (!o->type) return err_set(e, ERR_USAGE, "no type: Q4_K_M, Q6_K, Q8_0, ...");
        if (!(p->recipe = recipe_by_name(o->type))) return err_set(e, ERR_USAGE, "unknown type '%.40s'", o->type);
        if (!dtype_by_id(p->recipe->base) || !p->qk.rows[p->recipe->base])
            return err_set(e, ERR_USAGE, "%s: %s is not made by this build", p->recipe->name, dtype_id_text(p->recipe->base));
    }
    if (o->output_type) TRY(type_named(p, "--output-type", o->output_type, &d->head, e));
    if (o->embd_type) TRY(type_named(p, "--embd-type", o->embd_type, &d->embd, e));
    d->rule = mem_calloc((size_t)o->n_rules, sizeof *d->rule);
    if (!d->rule) return err_oom(e, "rules", (size_t)o->n_rules * sizeof *d->rule);
    for (int i = 0; i < o->n_rules; i++) TRY(compile_rule(p, o->rules[i], &d->rule[i], e));
    return OK;
}

static status decide_types(struct quant_plan *p, struct err *e)
{
    struct deciding d = { .p = p };
    status st = prepare_rules(&d, e);
    if (st == OK) st = decide_all(&d, e);
    for (int i = 0; d.rule && i < p->o.n_rules; i++)
        if (d.rule[i].compiled) regfree(&d.rule[i].re);
    mem_free(d.rule);
    return st;
}

status quant_plan_check(const struct quant_plan *p, struct err *e)
{
    for (int64_t i = 0; i < p->n; i++) {
        const struct quant_item *it = &p->item[i];
        if (it->kept || it->has_importance || !recipe_needs_importance(p->recipe, it->src->name, it->to->gguf_id)) continue;
        if (p->o.importance)
            return err_set(e, ERR_USAGE, "%s: %s needs importance, and the file has none for this tensor", it->src->name, it->to->gguf_name);
        return err_set(e, ERR_USAGE, "%s: %s needs importance: --calibration default (or a text of yours), or --imatrix FILE of `cuanto importance`",
                       it->src->name, it->to->gguf_name);
    }
    return OK;
}

/* ---- chunks ---- */

void plan_lay_chunks(struct quant_plan *p)
{
    p->n_chunks = 0;
    p->room_floats = CHUNK_FLOATS;
    p->room_source = p->room_bytes = CHUNK_BYTES; /* copied tensors go in pieces of this size */
    for (int64_t i = 0; i < p->n; i++) {
        const struct quant_item *it = &p->item[i];
        struct item_work *w = &p->work[i];
        w->first = p->n_chunks;
        if (it->kept) {
            w->chunk_rows = CHUNK_BYTES;
            w->n = w->mat_chunks = max_i64(1, ((int64_t)it->bytes_to + CHUNK_BYTES - 1) / CHUNK_BYTES);
            if (it->added && !w->outlier) w->n = 0;
        } else {
            w->chunk_rows = min_i64(max_i64(1, CHUNK_FLOATS / it->cols), it->rows);
            w->mat_chunks = (it->rows + w->chunk_rows - 1) / w->chunk_rows;
            w->n = w->mat_chunks * it->n_mat;
            size_t floats = (size_t)(w->chunk_rows * it->cols), bytes = dtype_row_bytes(it->to, it->cols) * (size_t)w->chunk_rows;
            size_t source = it->src->type->gguf_id == GGUF_F32 ? 0 : dtype_row_bytes(it->src->type, it->cols) * (size_t)w->chunk_rows;
            size_t apart = (size_t)(w->chunk_rows * it->n_outliers);
            bytes += apart * sizeof(uint16_t);
            if (apart > p->room_apart) p->room_apart = apart;
            if (it->n_outliers > p->max_outliers) p->max_outliers = it->n_outliers;
            if (source > p->room_source) p->room_source = source;
            if (floats > p->room_floats) p->room_floats = floats;
            if (bytes > p->room_bytes) p->room_bytes = bytes;
        }
        p->n_chunks += w->n;
    }
}

/* ---- the output's header ---- */

static bool starts_with(struct str s, const char *head) { return s.n >= strlen(head) && !memcmp(s.p, head, strlen(head)); }

/* Keys that the output states anew. */
static bool is_replaced(struct str key, bool as_was)
{
    static const char *const heads[] = { "split.", "merge.", "general.file_type", "general.quantization_version", "quantize." };
    for (int i = 0; i < (as_was ? 2 : ARRAY_LEN(heads)); i++)
        if (starts_with(key, heads[i])) return true;
    return false;
}

static void put_text(struct gguf_writer *w, const char *key, const char *s) { gguf_put_str(w, key, s, strlen(s)); }

/* Names as llama-quantize writes them. Base names only: where somebody's files lie is nobody's business. */
static void put_importance(struct gguf_writer *w, const struct quant_plan *p)
{
    const struct importance *im = p->o.importance;
    if (!im) return;
    put_text(w, "quantize.imatrix.file", p->o.importance_name ? path_base(p->o.importance_name) : "");
    if (im->n_datasets > 0) put_text(w, "quantize.imatrix.dataset", path_base(im->dataset[0]));
    gguf_put_i64(w, "quantize.imatrix.entries_count", KV_U32, im->n);
    if (im->n_chunks > 0 && im->n_chunks <= UINT32_MAX) gguf_put_i64(w, "quantize.imatrix.chunks_count", KV_U32, im->n_chunks);
}

static const char key_held_out[] = "quantize.held_out_error";

static const char key_scaled[] = "quantize.scaled_tensors"; /* known when importance is: quant_plan_set_scales */

/* The four bytes of a key's value in a header; nothing where it has no such key. Read again: the words of the key may stand elsewhere in it, too. */
static status set_value(struct gguf_header *h, const char *key, const void *value, struct err *e)
{
    struct gguf g;
    TRY(gguf_check_header(&g, h->data, h->n, h->size, "output", e));
    const struct gguf_kv *kv = gguf_find(&g, key);
    if (kv) memcpy((uint8_t *)(uintptr_t)kv->data, value, 4);
    gguf_close(&g);
    return OK;
}

status plan_set_held_out(struct gguf_header *h, float error, struct err *e) { return set_value(h, key_held_out, &error, e); }

const char *plan_recipe(const struct quant_plan *p)
{
    return p->recipe ? p->recipe->name : p->o.chosen ? p->o.recipe : p->o.spec.method->name;
}

static void put_provenance(struct gguf_writer *w, const struct quant_plan *p)
{
    const struct quant_options *o = &p->o;
    char text[160];
    struct str rules[64];
    if (o->program) put_text(w, "quantize.program", o->program);
    put_text(w, "quantize.recipe", plan_recipe(p));
    if (o->chosen && o->measurement) put_text(w, "quantize.measurement", o->measurement);
    if (!p->recipe && !o->chosen) {
        static const char *const names[] = { [PER_TENSOR] = "tensor", [PER_ROW] = "row", [PER_GROUP] = "group" };
        snprintf(text, sizeof text, "%d bits, per %s", o->spec.bits, names[o->spec.granularity]);
        if (o->spec.granularity == PER_GROUP) snprintf(text, sizeof text, "%d bits, per group of %lld", o->spec.bits, (long long)o->spec.group);
        put_text(w, "quantize.method", text);
    } else if (o->spec.method && o->spec.method != quantizers[0]) put_text(w, "quantize.method", o->spec.method->name);
    if (o->calibration) put_text(w, "quantize.calibration", o->calibration);
    if (o->solver) {
        put_text(w, "quantize.solver", o->solver);
        gguf_put_f32(w, key_held_out, 0); /* known at the end: plan_set_held_out */
    }
    if (o->folded) gguf_put_i64(w, key_scaled, KV_U32, 0);
    if (o->pure) gguf_put_i64(w, "quantize.pure", KV_BOOL, 1);
    if (o->keep_outliers) gguf_put_f32(w, "quantize.outlier_threshold", o->outlier_threshold);
    if (o->output_type) put_text(w, "quantize.output_type", o->output_type);
    if (o->embd_type) put_text(w, "quantize.embd_type", o->embd_type);
    int n = o->n_rules < ARRAY_LEN(rules) ? o->n_rules : ARRAY_LEN(rules);
    for (int i = 0; i < n; i++) rules[i] = (struct str){ o->rules[i], strlen(o->rules[i]) };
    if (n > 0) gguf_put_arr_str(w, "quantize.rules", rules, (uint64_t)n);
}

static void put_keys(struct gguf_writer *w, const struct quant_plan *p, int file)
{
    bool as_was = p->o.delta && p->o.chosen; /* where formats are kept, so is what is said of them */
    for (int64_t i = 0; file == 0 && i < p->g.n_kv; i++)
        if (!is_replaced(p->g.kv[i].key, as_was)) gguf_put_kv(w, &p->g.kv[i]);
    if (file > 0) { /* the parts of a split file agree on where data begins */
        const struct gguf_kv *align = gguf_find(&p->g, "general.alignment");
        if (align) gguf_put_kv(w, align);
    } else if (!as_was) {
        gguf_put_i64(w, "general.file_type", KV_U32, p->ftype);
        gguf_put_i64(w, "general.quantization_version", KV_U32, 2);
        put_importance(w, p);
        put_provenance(w, p);
    }
    if (file == 0 && p->o.delta) put_text(w, "merge.adapters", p->o.delta->what);
    if (p->o.split_bytes <= 0) return;
    gguf_put_i64(w, "split.no", KV_U16, file);
    gguf_put_i64(w, "split.count", KV_U16, p->n_files);
    gguf_put_i64(w, "split.tensors.count", KV_I32, p->n);
}

/* Tensors in order, a new file where the next one would not fit any more: as llama-gguf-split does. */
static status assign_files(struct quant_plan *p, struct err *e)
{
    size_t used = 0;
    p->n_files = 1;
    for (int64_t i = 0; i < p->n; i++) {
        size_t bytes = p->item[i].bytes_to;
        if (!pad_size(bytes, p->g.alignment, &bytes)) return err_oom(e, p->item[i].src->name, SIZE_MAX);
        if (p->o.split_bytes > 0 && used > 0 && used + bytes > (size_t)p->o.split_bytes) {
            used = 0;
            if (++p->n_files > GGUF_PARTS_MAX) /* the reader takes no more */
                return err_set(e, ERR_USAGE, "--split-size: files of %lld bytes would be more than %d", (long long)p->o.split_bytes, GGUF_PARTS_MAX);
        }
        used += bytes;
        p->work[i].file = p->n_files - 1;
    }
    return OK;
}

static status lay_file(struct quant_plan *p, int file, struct err *e)
{
    struct gguf_writer *w;
    TRY(gguf_header_open(&w, "output", e));
    put_keys(w, p, file);
    for (int64_t i = 0; i < p->n; i++) {
        if (p->work[i].file != file) continue;
        const struct tensor *src = p->item[i].src;
        struct tensor t = { .name = src->name };
        tensor_shape(&t, p->item[i].to, src->ne[0], src->ne[1], src->ne[2], src->ne[3]);
        gguf_put_tensor(w, &t);
    }
    TRY(gguf_header_finish(w, &p->file[file], e));
    int64_t at = 0;
    for (int64_t i = 0; i < p->n; i++)
        if (p->work[i].file == file) p->work[i].offset = p->file[file].offset[at++];
    return OK;
}

/* The plain recipe of the format that most bytes have. */
static int dominant_type(const struct quant_plan *p)
{
    size_t bytes[DTYPE_IDS] = { 0 };
    int most = 0;
    for (int64_t i = 0; i < p->n; i++) bytes[p->item[i].to->gguf_id] += p->item[i].bytes_to;
    for (int r = 0; r < recipe_count; r++)
        if (bytes[recipes[r].base] > bytes[recipes[most].base]) most = r;
    return recipes[most].ftype;
}

/* The number for general.file_type: the mix's, or that of a plain recipe with the method's format. */
static int file_type(const struct quant_plan *p)
{
    if (p->recipe) return p->recipe->ftype;
    if (p->o.chosen) return dominant_type(p);
    for (int64_t i = 0; i < p->n; i++)
        for (int r = 0; r < recipe_count; r++)
            if (p->work[i].method == p->o.spec.method && recipes[r].base == p->item[i].to->gguf_id) return recipes[r].ftype;
    return 0;
}

static status lay_files(struct quant_plan *p, struct err *e)
{
    TRY(assign_files(p, e));
    p->ftype = file_type(p);
    p->file = mem_calloc((size_t)p->n_files, sizeof *p->file);
    if (!p->file) return err_oom(e, "plan", (size_t)p->n_files * sizeof *p->file);
    for (int i = 0; i < p->n_files; i++) TRY(lay_file(p, i, e));
    return OK;
}

/* ---- open, close, look ---- */

/* Path of part i of n: `in` is the first, and gguf_open has seen that its name ends as it must. */
static status part_path(const char *in, int i, int n, char path[PATH_MAX], struct err *e)
{
    char end[48];
    int len = (int)strlen(in), tail = n > 1 ? snprintf(end, sizeof end, "-%05d-of-%05d.gguf", i + 1, n) : 0;
    assert(len >= tail);
    if (snprintf(path, PATH_MAX, "%.*s%s", len - tail, in, n > 1 ? end : "") < PATH_MAX) return OK;
    return err_set(e, ERR_USAGE, "%.80s...: the path is too long", in);
}

/* The files that were just parsed, opened once more for reading in pieces. */
static status open_sources(struct quant_plan *p, const char *in, struct err *e)
{
    char path[PATH_MAX];
    int n = 1 + p->g.n_more;
    p->source = mem_calloc((size_t)n, sizeof *p->source);
    if (!p->source) return err_oom(e, "plan", (size_t)n * sizeof *p->source);
    for (int i = 0; i < n; i++) {
        struct file_reader *s = &p->source[i];
        const struct file *f = i ? &p->g.more[i - 1] : &p->g.file;
        TRY(part_path(in, i, n, path, e));
        TRY(file_reader_open(s, path, e));
        p->n_sources = i + 1;
        if (s->dev != f->dev || s->ino != f->ino || s->size != f->size || s->mtime_ns != f->mtime_ns)
            return err_set(e, ERR_FORMAT, "%s: changed while it was being read", path);
    }
    for (int64_t i = 0; i < p->n; i++) {
        const struct file *f = gguf_file_of(&p->g, p->item[i].src);
        p->work[i].source = f == &p->g.file ? 0 : (int)(f - p->g.more) + 1;
        p->work[i].source_offset = (size_t)((const uint8_t *)p->item[i].src->data - f->data);
    }
    return OK;
}

static status set_up_cpu(struct quant_plan *p, size_t *ram, struct err *e)
{
    struct cpu_info cpu;
    cpu_detect(&cpu);
    *ram = cpu.ram_available;
    uint64_t features = cpu.features;
    if (p->o.isa) TRY(isa_features(p->o.isa, &cpu, &features, e));
    kernels_init(&p->k, features);
    quant_kernels_init(&p->qk, features);
    enum { MOST = 500 }; /* a pool takes 512, and one of them keeps the books */
    p->n_threads = p->o.n_threads > 0 ? p->o.n_threads : (int)min_i64(cpu.n_threads_default, MOST);
    return OK;
}

static status prepare_method(struct quant_plan *p, struct err *e)
{
    bool made[DTYPE_IDS] = { false };
    const struct quantizer *m = p->o.spec.method;
    if (!m || !m->prepare) return OK;
    for (int64_t i = 0; i < p->n; i++)
        if (p->work[i].method == m) made[p->item[i].to->gguf_id] = true;
    return m->prepare(made, &p->mem, &p->o.spec.prepared, e);
}

static status open_plan(struct quant_plan *p, const char *in, struct err *e)
{
    size_t available;
    TRY(set_up_cpu(p, &available, e));
    TRY(gguf_open(&p->g, in, true, e));
    p->passing = available > 0 && gguf_bytes(&p->g) > available / 3;
    p->n = p->g.n_tensors;
    p->item = mem_calloc((size_t)p->n, sizeof *p->item);
    p->work = mem_calloc((size_t)p->n, sizeof *p->work);
    if (!p->item || !p->work) return err_oom(e, "plan", (size_t)p->n * sizeof *p->item);
    if (p->n == 0) return err_set(e, ERR_FORMAT, "%s: holds no tensors", in);
    recipe_model_init(&p->model, &p->g, p->o.importance != NULL);
    TRY(decide_types(p, e));
    if (!p->o.sizes_only) TRY(quant_plan_check(p, e));
    TRY(prepare_method(p, e));
    TRY(open_sources(p, in, e));
    plan_lay_chunks(p);
    if (p->o.keep_outliers) {
        TRY(plan_keep_columns(p, e));
        plan_lay_chunks(p);
    }
    return lay_files(p, e);
}

status quant_plan_open(struct quant_plan **out, const char *in, const struct quant_options *o, struct err *e)
{
    *out = NULL;
    struct quant_plan *p = mem_calloc(1, sizeof *p);
    if (!p) return err_oom(e, "plan", sizeof *p);
    p->o = *o;
    arena_init(&p->mem, 0);
    status st = open_plan(p, in, e);
    if (st == OK) *out = p;
    else quant_plan_close(p);
    return st;
}

void quant_plan_close(struct quant_plan *p)
{
    if (!p) return;
    for (int i = 0; p->file && i < p->n_files; i++) gguf_header_free(&p->file[i]);
    for (int i = 0; i < p->n_sources; i++) file_reader_close(&p->source[i]);
    mem_free(p->source);
    mem_free(p->file);
    mem_free(p->item);
    mem_free(p->work);
    arena_free(&p->mem);
    gguf_close(&p->g);
    mem_free(p);
}

status quant_plan_set_scales(struct quant_plan *p, const struct quant_scale *s, int n, struct err *e)
{
    uint32_t count = (uint32_t)n;
    if (p->o.folded) TRY(set_value(&p->file[0], key_scaled, &count, e));
    for (int k = 0; k < n; k++, s++) {
        int64_t i = 0;
        while (i < p->n && strcmp(p->item[i].src->name, s->name)) i++;
        if (i == p->n) return err_set(e, ERR_USAGE, "%.60s: to be scaled, but not in the file", s->name);
        if (p->item[i].kept && p->item[i].to->gguf_id != GGUF_F32)
            return err_set(e, ERR_USAGE, "%s: to be scaled, but kept as %s", s->name, p->item[i].to->gguf_name);
        p->work[i].scale = s;
    }
    return OK;
}

int64_t quant_plan_n(const struct quant_plan *p) { return p->n; }
struct quant_item *quant_plan_item(struct quant_plan *p, int64_t i) { return &p->item[i]; }
const struct gguf *quant_plan_gguf(const struct quant_plan *p) { return &p->g; }
const struct quant_options *quant_plan_options(const struct quant_plan *p) { return &p->o; }
size_t quant_plan_part_bytes(const struct quant_plan *p, int64_t i) { return p->file[p->work[i].file].size; }
