/* peft - from a PEFT folder to a GGUF adapter. See peft.h. Source: peft 0.21 (config.py, layer.py, save_and_load.py), read for the formats. */
#include "src/peft.h"
#include "ggml-like/checkpoint.h"
#include "src/adapter_write.h"
#include "src/hf.h"
#include "src/lora_int.h"
#include <math.h>
#include <regex.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CONFIG_MAX = 8 << 20, NAME_MAX_ = 320 };
static const char prefix[] = "base_model.model.";

/* A module with an adapter: "model.layers.0.self_attn.q_proj". */
struct module {
    const char *name;
    const struct ckpt_tensor *a, *b;
    bool embedding, used;
};

/* One weight of the base: what adapter_write takes, and the factor of B A. */
struct built {
    struct adapter_tensor t;
    float *b;
    double scale;
};

struct reading {
    const struct model *m;
    const struct peft_options *o;
    const char *path;
    struct arena arena;
    struct json *config;
    struct checkpoint ckpt;
    struct module *module; /* [n_modules] sorted by name */
    int64_t n_modules;
    struct built *built;   /* [n] */
    int64_t n;
    float alpha;
    bool folded;
};

static void say(const struct peft_options *o, const char *fmt, ...) PRINTF_LIKE(2, 3);
static void say(const struct peft_options *o, const char *fmt, ...)
{
    if (!o->warn) return;
    char text[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    o->warn(o->ctx, text);
}

/* ---- adapter_config.json ---- */

static bool is_set(const struct json *v)
{
    if (!v || v->kind == JSON_NULL) return false;
    if (v->kind == JSON_BOOL) return v->i != 0;
    return v->kind == JSON_ARR || v->kind == JSON_OBJ ? v->child != NULL : true;
}

static bool is_text(const struct json *v, const char *text) { return v && v->kind == JSON_STR && !strcmp(v->str, text); }

/* What changes the equation y = W x + s B A x, or W itself. */
static const struct { const char *key, *what; } refused[] = {
    { "use_dora", "DoRA (rows of W + B A are normalised)" },
    { "modules_to_save", "whole modules beside the adapter" },
    { "lora_bias", "biases of the adapter" },
    { "use_qalora", "QALoRA" },
    { "alora_invocation_tokens", "adapters that begin at certain tokens" },
    { "layer_replication", "repeated layers" },
    { "trainable_token_indices", "single rows of the embedding" },
    { "arrow_config", "routing between adapters" },
    { "use_bdlora", "block-diagonal matrices" },
    { "kasa_config", "KaSA" },
    { "monteclora_config", "MonteCLoRA" },
};

static status check_config(const struct reading *x, struct err *e)
{
    const struct json *c = x->config, *v = json_get(c, "peft_type");
    if (!is_text(v, "LORA")) return err_set(e, ERR_FORMAT, "%s: peft_type is %.40s, expected LORA", x->path, v && v->kind == JSON_STR ? v->str : "missing");
    for (int i = 0; i < ARRAY_LEN(refused); i++)
        if (is_set(json_get(c, refused[i].key)))
            return err_set(e, ERR_FORMAT, "%s: %s: %s cannot be expressed in a GGUF adapter", x->path, refused[i].key, refused[i].what);
    v = json_get(c, "bias");
    if (v && v->kind == JSON_STR && strcmp(v->str, "none"))
        return err_set(e, ERR_FORMAT, "%s: bias is \"%.20s\": trained biases cannot be expressed in a GGUF adapter", x->path, v->str);
    v = json_get(c, "init_lora_weights");
    bool plain = !v || v->kind != JSON_STR || is_text(v, "gaussian") || is_text(v, "eva") || is_text(v, "orthogonal");
    if (!plain)
        return err_set(e, ERR_FORMAT, "%s: init_lora_weights is \"%.30s\": such an adapter belongs to a base that was changed; let PEFT convert it to a "
                       "plain one when saving", x->path, v->str);
    v = json_get(c, "lora_alpha");
    if (!v || (v->kind != JSON_INT && v->kind != JSON_FLOAT) || !isfinite(v->f)) return err_set(e, ERR_FORMAT, "%s: lora_alpha is no number", x->path);
    return OK;
}

static status read_config(struct reading *x, struct err *e)
{
    char path[4200];
    char *text;
    size_t n;
    if (snprintf(path, sizeof path, "%s/adapter_config.json", x->path) >= (int)sizeof path)
        return err_set(e, ERR_FILE, "%.60s...: the path is too long", x->path);
    TRY(file_text(path, CONFIG_MAX, &text, &n, e));
    status st = json_parse_python(&x->config, text, n, &x->arena, path, e);
    mem_free(text);
    TRY(st);
    if (x->config->kind != JSON_OBJ) return err_set(e, ERR_FORMAT, "%s: the top level is no object", path);
    return check_config(x, e);
}

/* Behind the set [...] at p; its end where it is not closed. */
static const char *skip_set(const char *p)
{
    p += p[1] == '^' ? 2 : 1;
    p += *p == ']';
    return p + strcspn(p, "]");
}

/* Is the expression one that the C library compiles safely? The pattern is a stranger's: glibc unrolls x{m,n} and (...)+, of which a few in each other take all
 * memory and end in a crash, as back references do at once. A repetition of a character or set, and (...)* and (...)?, are what names need. */
static bool is_tame(const char *p)
{
    char before = '('; /* kind of what stands before: an atom 'a', a closed group ')', nothing to repeat '(' */
    for (; *p; p++) {
        bool unrolls = *p == '+' || *p == '{';
        if (unrolls || *p == '*' || *p == '?') {
            size_t n = *p == '{' ? strspn(p + 1, "0123456789,") : 0;
            if (before == '(' || (unrolls && before == ')') || n > 5 || (*p == '{' && p[n + 1] != '}')) return false;
            p += *p == '{' ? n + 1 : 0;
            before = '(';
            continue;
        }
        before = *p == ')' ? ')' : strchr("(|^", *p) ? '(' : 'a';
        if (*p == '[') p = skip_set(p);
        else if (*p == '\\') p++;
        if (!*p || (p[-1] == '\\' && *p >= '0' && *p <= '9')) return false;
    }
    return true;
}

/* Does PEFT's pattern mean this module? It compares by Python's re.match("(.*\.)?(KEY)$"). */
static status key_fits(const struct reading *x, const char *key, const char *module, bool *fits, struct err *e)
{
    char re[400];
    regex_t r;
    bool other = !is_tame(key) || strstr(key, "(?") || strstr(key, "\\d") || strstr(key, "\\Z") || strstr(key, "*?") || strstr(key, "+?");
    if (other || snprintf(re, sizeof re, "^(.*\\.)?(%s)$", key) >= (int)sizeof re || regcomp(&r, re, REG_EXTENDED | REG_NOSUB))
        return err_set(e, ERR_FORMAT, "%s: alpha_pattern: \"%.80s\" is no expression that this program reads", x->path, key);
    *fits = regexec(&r, module, 0, NULL, 0) == 0;
    regfree(&r);
    return OK;
}

/* The factor of B A for a module of this rank. */
static status scale_of(const struct reading *x, const char *module, int64_t rank, double *scale, struct err *e)
{
    const struct json *patterns = json_get(x->config, "alpha_pattern");
    double alpha = json_get(x->config, "lora_alpha")->f;
    for (const struct json *p = patterns && patterns->kind == JSON_OBJ ? patterns->child : NULL; p; p = p->next) {
        bool fits;
        TRY(key_fits(x, p->key, module, &fits, e));
        if (!fits) continue;
        if (p->kind != JSON_INT && p->kind != JSON_FLOAT) return err_set(e, ERR_FORMAT, "%s: alpha_pattern: \"%.80s\" has no number", x->path, p->key);
        alpha = p->f;
        break;
    }
    *scale = is_set(json_get(x->config, "use_rslora")) ? alpha / sqrt((double)rank) : alpha / (double)rank;
    return isfinite(*scale) ? OK : err_set(e, ERR_FORMAT, "%s: alpha of %.120s is %g, expected a finite number", x->path, module, alpha);
}

/* ---- modules ---- */

/* Which part of which module is this tensor? module: cap bytes. '?': none that an adapter has; '=': a copy of the base's own weight. */
static char part_of(const char *name, char *module, size_t cap)
{
    static const struct { const char *mark; char part; } marks[] = {
        { ".lora_A", 'a' }, { ".lora_B", 'b' }, { ".lora_embedding_A", 'A' }, { ".lora_embedding_B", 'B' },
    };
    static const char own[] = ".base_layer."; /* weight or bias */
    if (!strncmp(name, prefix, strlen(prefix))) name += strlen(prefix);
    if (strstr(name, own) && !strstr(name, ".lora_")) return '=';
    for (int i = 0; i < ARRAY_LEN(marks); i++) {
        const char *at = strstr(name, marks[i].mark), *end = at ? at + strlen(marks[i].mark) : NULL;
        if (!at || (*end && *end != '.') || snprintf(module, cap, "%.*s", (int)(at - name), name) >= (int)cap) continue;
        const char *weight = strrchr(end, '.'); /* ".weight", or with an adapter's name: ".default.weight" */
        if (marks[i].part < 'a') return marks[i].part;
        return weight && !strcmp(weight, ".weight") ? marks[i].part : '?';
    }
    return '?';
}

static int by_name(const void *a, const void *b) { return strcmp(((const struct module *)a)->name, ((const struct module *)b)->name); }

static struct module *find_module(const struct reading *x, const char *name)
{
    struct module key = { .name = name };
    return bsearch(&key, x->module, (size_t)x->n_modules, sizeof key, by_name);
}

static status bad_tensor(const struct reading *x, const struct ckpt_tensor *t, struct err *e)
{
    if (strstr(t->name, "lora_magnitude_vector")) return err_set(e, ERR_FORMAT, "%s: %.140s: DoRA cannot be expressed in a GGUF adapter", x->path, t->name);
    if (strstr(t->name, ".bias")) return err_set(e, ERR_FORMAT, "%s: %.140s: biases cannot be expressed in a GGUF adapter", x->path, t->name);
    return err_set(e, ERR_FORMAT, "%s: %.140s: not a part of a LoRA adapter (a whole module?): a GGUF adapter has no place for it", x->path, t->name);
}

static status list_modules(struct reading *x, struct err *e)
{
    const struct checkpoint *c = &x->ckpt;
    char name[NAME_MAX_];
    x->module = arena_zalloc(&x->arena, (size_t)c->n_tensors + 1, sizeof *x->module);
    if (!x->module) return err_oom(e, x->path, (size_t)c->n_tensors * sizeof *x->module);
    for (int side = 0; side < 2; side++) { /* all A, sorted; then their B */
        for (int64_t i = 0; i < c->n_tensors; i++) {
            const struct ckpt_tensor *t = &c->tensor[i];
            char part = part_of(t->name, name, sizeof name);
            if (part == '?') return bad_tensor(x, t, e);
            if (part == '=' && side == 0) say(x->o, "%s: a copy of the base's own weight, left out", t->name);
            bool embedding = part == 'A' || part == 'B', is_a = part == 'A' || part == 'a';
            if (part == '=' || is_a != (side == 0)) continue;
            if (!ckpt_type_is_float(t->type) || t->n_dims != 2)
                return err_set(e, ERR_FORMAT, "%s: %.140s: expected a matrix of floating point numbers", x->path, t->name);
            struct module *m = is_a ? &x->module[x->n_modules++] : find_module(x, name);
            if (!m || (!is_a && (m->b || m->embedding != embedding))) return err_set(e, ERR_FORMAT, "%s: %.140s has no partner lora_A", x->path, t->name);
            if (is_a) *m = (struct module){ .name = arena_strdup(&x->arena, name, strlen(name)), .a = t, .embedding = embedding };
            else m->b = t;
            if (!m->name) return err_oom(e, x->path, strlen(name));
        }
        if (side == 0 && x->n_modules) qsort(x->module, (size_t)x->n_modules, sizeof *x->module, by_name);
    }
    if (x->n_modules == 0) return err_set(e, ERR_FORMAT, "%s: there are no LoRA matrices in it", x->path);
    for (int64_t i = 1; i < x->n_modules; i++)
        if (!strcmp(x->module[i].name, x->module[i - 1].name))
            return err_set(e, ERR_FORMAT, "%s: %.140s: the module is there twice", x->path, x->module[i].a->name);
    for (int64_t i = 0; i < x->n_modules; i++) {
        const struct module *m = &x->module[i];
        if (!m->b) return err_set(e, ERR_FORMAT, "%s: %.140s has no partner lora_B", x->path, m->a->name);
        if (m->a->shape[0] != m->b->shape[1] || m->a->shape[0] < 1)
            return err_set(e, ERR_FORMAT, "%s: %.120s: A has %lld rows, B %lld columns", x->path, m->name, (long long)m->a->shape[0],
                           (long long)m->b->shape[1]);
    }
    return OK;
}

/* ---- which module belongs to a weight ---- */

static struct module *find_spelled(const struct reading *x, const char *name)
{
    char other[NAME_MAX_ + 32];
    for (int i = 0; hf_spelling(name, i, other, sizeof other); i++) {
        struct module *m = find_module(x, other);
        if (m) return m;
    }
    return NULL;
}

/* The module that one of the alternatives names. */
static struct module *module_of(const struct reading *x, const struct weight_row *r, int il, int64_t expert)
{
    static const char weight[] = ".weight";
    for (const char *p = r->hf; *p;) {
        size_t n = strcspn(p, "|"), w = strlen(weight);
        char name[NAME_MAX_];
        if (n > w && !memcmp(p + n - w, weight, w) && hf_expand(p, n - w, il, expert, name, sizeof name)) {
            struct module *m = find_spelled(x, name);
            if (m) return m;
        }
        p += n + (p[n] == '|');
    }
    return NULL;
}

/* ---- experts that PEFT has in one pair: parameters of transformers 5 ----
 * A [E * r][in], row e * r + k; B [out][r * E], column k * E + e. The first of the two parameters that was wrapped is "experts.base_layer", the other
 * "experts"; what they are is seen by their shapes. */

static bool is_down(enum weight_id id) { return id == W_DOWN_EXPS; }
static bool is_stack(enum weight_id id) { return id == W_GATE_EXPS || id == W_UP_EXPS || id == W_DOWN_EXPS; }

/* Rows of gate and up together, as the parameter has them. */
static int64_t stack_rows(const struct tensor *w, enum weight_id id) { return is_down(id) ? w->ne[1] : 2 * w->ne[1]; }

static bool is_stack_of(const struct module *m, const struct tensor *w, enum weight_id id)
{
    return m && !m->embedding && m->a->shape[1] == w->ne[0] && m->b->shape[0] == stack_rows(w, id) && m->a->shape[0] % w->ne[2] == 0;
}

/* "model.layers.0.mlp.experts" of "model.layers.%d.mlp.experts.%e.w1.weight", or of "model.layers.%d.mlp.experts.gate_up_proj". */
static struct module *stack_of(const struct reading *x, const struct weight_row *r, int il, const struct tensor *w)
{
    static const struct { const char *old, *now; } renamed[] = { { "", "" }, { "block_sparse_moe.", "mlp." } };
    const char *end = strstr(r->hf, "experts.");
    char name[NAME_MAX_], other[NAME_MAX_ + 32];
    if (!is_stack(r->id) || !end || !hf_expand(r->hf, (size_t)(end - r->hf) + strlen("experts"), il, 0, name, sizeof name)) return NULL;
    for (int i = 0; i < ARRAY_LEN(renamed); i++)
        for (int inner = 0; inner < 2; inner++) {
            const char *at = strstr(name, renamed[i].old);
            if (!at) continue;
            snprintf(other, sizeof other, "%.*s%s%s%s", (int)(at - name), name, renamed[i].now, at + strlen(renamed[i].old), inner ? ".base_layer" : "");
            struct module *m = find_spelled(x, other);
            if (is_stack_of(m, w, r->id)) return m;
        }
    return NULL;
}

/* ---- building ---- */

static status wrong_shape(const struct reading *x, const struct ckpt_tensor *t, int64_t rows, int64_t cols, const char *base, struct err *e)
{
    return err_set(e, ERR_FORMAT, "%s: %.110s: shape is [%lld, %lld], expected [%lld, %lld] for %s", path_base(x->path), t->name, (long long)t->shape[0],
                   (long long)t->shape[1], (long long)rows, (long long)cols, base);
}

static status read_matrix(const struct reading *x, const struct ckpt_tensor *t, float **out, struct err *e)
{
    size_t bytes;
    if (!mul_size((size_t)t->n_elements, sizeof(float), &bytes) || !(*out = mem_alloc(bytes))) return err_oom(e, t->name, SIZE_MAX);
    status st = checkpoint_read_f32(&x->ckpt, t, 0, ckpt_rows(t), *out, e);
    for (int64_t i = 0; st == OK && i < t->n_elements; i++)
        if (!isfinite((*out)[i])) st = err_set(e, ERR_FORMAT, "%s: %.120s: element %lld is %g", x->path, t->name, (long long)i, (double)(*out)[i]);
    if (st != OK) mem_free(*out);
    return st;
}

/* Room for a pair of this rank, zeros. */
static status make_room(struct reading *x, struct built *d, struct err *e)
{
    size_t a, b;
    int64_t n = d->t.n_mat;
    bool fits = mul_size((size_t)d->t.rank, (size_t)d->t.in, &a) && mul_size(a, (size_t)n, &a);
    fits = fits && mul_size((size_t)d->t.rank, (size_t)d->t.out, &b) && mul_size(b, (size_t)n, &b);
    d->t.a = fits ? arena_zalloc(&x->arena, a, sizeof(float)) : NULL;
    d->t.b = d->b = fits ? arena_zalloc(&x->arena, b, sizeof(float)) : NULL;
    return d->t.a && d->b ? OK : err_oom(e, d->t.base, SIZE_MAX);
}

/* One matrix of the weight (matrix `mat` of a stack) from a module: rows of A as they are, rows of B in the order of the file. */
static status fill(struct reading *x, struct built *d, const struct weight_row *r, int il, const struct module *m, int64_t mat, double by, struct err *e)
{
    const struct weight_import *own = hf_own(x->m->arch, r->id);
    int64_t rank = m->a->shape[0], out = m->b->shape[0];
    float *a, *b, *to_a = (float *)(uintptr_t)d->t.a + mat * d->t.rank * d->t.in, *to_b = d->b + mat * d->t.out * d->t.rank;
    TRY(read_matrix(x, m->a, &a, e));
    memcpy(to_a, a, (size_t)(rank * d->t.in) * sizeof *a);
    mem_free(a);
    TRY(read_matrix(x, m->b, &b, e));
    status st = OK;
    for (int64_t i = 0; st == OK && i < d->t.out; i++) {
        int64_t from = r->id == W_EMBD ? i : hf_row(x->m, r, own, il, i);
        if (from >= out) st = err_set(e, ERR_FORMAT, "%.120s: row %lld of %lld is needed", m->b->name, (long long)from, (long long)out);
        for (int64_t k = 0; st == OK && from >= 0 && k < rank; k++) {
            float v = b[from * rank + k];
            to_b[i * d->t.rank + k] = by != 1 ? (float)(by * v) : v;
        }
    }
    mem_free(b);
    x->folded |= by != 1;
    return st;
}

static status check_shape(const struct reading *x, const struct built *d, const struct weight_row *r, int il, const struct module *m, struct err *e)
{
    const struct weight_import *own = hf_own(x->m->arch, r->id);
    int64_t out = r->id == W_EMBD ? d->t.out : own && own->row ? hf_source_rows(x->m, r, il) : d->t.out;
    if ((own && (own->value || own->factor || (own->load && !own->row))) || out < 0)
        return err_set(e, ERR_FORMAT, "%s: %.120s: architecture %s computes %s from it; adapters of such weights are not supported", path_base(x->path),
                       m->name, x->m->arch->name, d->t.base);
    if (m->embedding != (r->id == W_EMBD))
        return err_set(e, ERR_FORMAT, "%s: %.120s: %s", path_base(x->path), m->name,
                       m->embedding ? "an embedding's adapter for a matrix" : "a matrix's adapter for the embedding");
    if (m->a->shape[1] != d->t.in) return wrong_shape(x, m->a, m->a->shape[0], d->t.in, d->t.base, e);
    if (m->b->shape[0] != out) return wrong_shape(x, m->b, out, m->b->shape[1], d->t.base, e);
    return OK;
}

/* Every expert a module of its own; those without one get zeros. */
static status from_modules(struct reading *x, struct built *d, const struct weight_row *r, int il, struct err *e)
{
    bool first = true;
    for (int pass = 0; pass < 2; pass++) {
        for (int64_t k = 0; k < d->t.n_mat; k++) {
            struct module *m = module_of(x, r, il, k);
            double scale = 0;
            if (!m) continue;
            TRY(scale_of(x, m->name, m->a->shape[0], &scale, e));
            if (pass) {
                TRY(fill(x, d, r, il, m, k, scale == d->scale ? 1 : scale / d->scale, e));
                continue;
            }
            TRY(check_shape(x, d, r, il, m, e));
            m->used = true;
            d->t.rank = max_i64(d->t.rank, m->a->shape[0]);
            if (first || d->scale == 0) d->scale = scale;
            first = false;
        }
        if (pass == 0) TRY(make_room(x, d, e));
        if (pass == 0 && d->scale == 0) d->scale = 1; /* alpha 0: adds nothing; B is multiplied by 0 */
    }
    return OK;
}

/* All experts from one pair. */
static status from_stack(struct reading *x, struct built *d, const struct weight_row *r, int il, struct module *m, struct err *e)
{
    const struct weight_import *own = hf_own(x->m->arch, r->id);
    int64_t n = d->t.n_mat, rank = d->t.rank = m->a->shape[0] / n, rows = m->b->shape[0], cols = m->b->shape[1];
    char key[NAME_MAX_ + 32];
    float *a, *b;
    size_t stem = strlen(m->name);
    static const char base_layer[] = ".base_layer";
    if (stem > strlen(base_layer) && !strcmp(m->name + stem - strlen(base_layer), base_layer)) stem -= strlen(base_layer);
    snprintf(key, sizeof key, "%.*s.%s", (int)stem, m->name, is_down(r->id) ? "down_proj" : "gate_up_proj");
    m->used = true;
    TRY(scale_of(x, key, rank, &d->scale, e));
    TRY(make_room(x, d, e));
    TRY(read_matrix(x, m->a, &a, e));
    memcpy((float *)(uintptr_t)d->t.a, a, (size_t)(n * rank * d->t.in) * sizeof *a);
    mem_free(a);
    TRY(read_matrix(x, m->b, &b, e));
    for (int64_t j = 0; j < n * d->t.out; j++) {
        int64_t expert = j / d->t.out, i = j % d->t.out;
        int64_t from = own && own->row ? own->row(x->m, il, j) - expert * rows : i + (r->id == W_UP_EXPS ? d->t.out : 0);
        for (int64_t k = 0; from >= 0 && from < rows && k < rank; k++) d->b[j * rank + k] = b[from * cols + k * n + expert];
    }
    mem_free(b);
    return OK;
}

/* Does the file have an adapter for this weight? */
static status build_one(struct reading *x, const struct weight_row *r, int il, struct err *e)
{
    const struct tensor *w = model_weight(x->m, il, r->id);
    bool each = r->hf && strstr(r->hf, "%e"), vector = r->ne1 == DIM_1 || r->flags & WEIGHT_VECTOR, any = false;
    if (!w || !r->hf || vector) return OK;
    struct module *stack = w->ne[2] > 1 ? stack_of(x, r, il, w) : NULL;
    for (int64_t k = 0; k < (each ? w->ne[2] : 1) && !any; k++) any = module_of(x, r, il, k) != NULL;
    if (!any && !stack) return OK;
    bool flipped = r->id == W_EMBD;
    struct built *d = &x->built[x->n++];
    char base[112];
    snprintf(base, sizeof base, r->gguf, il); /* of a tied head not the name of the tensor that it is */
    if (r->id == W_OUTPUT && w->data == model_weight(x->m, -1, W_EMBD)->data)
        say(x->o, "lm_head: the base's head is its embedding; llama.cpp refuses adapters for such a head");
    d->t = (struct adapter_tensor){ .base = arena_strdup(&x->arena, base, strlen(base)), .n_mat = w->ne[2] };
    d->t.in = flipped ? w->ne[1] : w->ne[0], d->t.out = flipped ? w->ne[0] : w->ne[1];
    if (!d->t.base) return err_oom(e, base, sizeof base);
    const struct weight_import *own = hf_own(x->m->arch, r->id);
    if (any && !each && w->ne[2] > 1 && !(own && own->load && !own->row))
        return err_set(e, ERR_FORMAT, "%s: %.60s: an adapter of all experts in one matrix is not supported", path_base(x->path), w->name);
    return any ? from_modules(x, d, r, il, e) : from_stack(x, d, r, il, stack, e);
}

static status check_left(const struct reading *x, struct err *e)
{
    for (int64_t i = 0; i < x->n_modules; i++) {
        const struct module *m = &x->module[i];
        if (m->embedding && is_set(json_get(x->config, "ensure_weight_tying")))
            return err_set(e, ERR_FORMAT, "%s: ensure_weight_tying: an adapter that embedding and head share cannot be expressed in a GGUF adapter",
                           path_base(x->path));
        if (m->used) continue;
        return err_set(e, ERR_FORMAT, "%s: %.140s: architecture %s has no weight for this module", path_base(x->path), m->name, x->m->arch->name);
    }
    return OK;
}

static status build_all(struct reading *x, struct err *e)
{
    const struct weight_row *rows = x->m->arch->weights;
    x->built = arena_zalloc(&x->arena, (size_t)x->m->g.n_tensors + 1, sizeof *x->built);
    if (!x->built) return err_oom(e, x->path, (size_t)x->m->g.n_tensors * sizeof *x->built);
    for (int il = -1; il < x->m->hp.n_layer; il++)
        for (const struct weight_row *r = rows; r->gguf; r++)
            if ((r->id >= W_LAYER_COUNT) == (il < 0) && x->n < x->m->g.n_tensors) TRY(build_one(x, r, il, e));
    return check_left(x, e);
}

/* The alpha that most weights have; of the others B is multiplied so that theirs comes out. */
static status settle_alpha(struct reading *x, struct err *e)
{
    int64_t best = 0;
    for (int64_t i = 0; i < x->n; i++) {
        int64_t n = 0;
        float alpha = (float)(x->built[i].scale * (double)x->built[i].t.rank);
        for (int64_t j = 0; j < x->n; j++) n += (float)(x->built[j].scale * (double)x->built[j].t.rank) == alpha;
        if (n > best && alpha != 0) best = n, x->alpha = alpha;
        if (2 * best > x->n) break;
    }
    if (x->alpha == 0) x->alpha = 1; /* all of them add nothing, or too little for a float: in the file 0 would mean a scale of 1 */
    for (int64_t i = 0; i < x->n; i++) {
        struct built *d = &x->built[i];
        double by = d->scale / (double)(x->alpha / (float)d->t.rank);
        if (fabs(by - 1) < 3e-7) by = 1; /* a float's rounding */
        x->folded |= by != 1;
        for (int64_t k = 0; k < d->t.n_mat * d->t.out * d->t.rank; k++) {
            if (by != 1) d->b[k] = (float)(by * d->b[k]);
            if (!isfinite(d->b[k]))
                return err_set(e, ERR_FORMAT, "%s: its alpha makes an element of the second matrix for %.100s %g", path_base(x->path), d->t.base,
                               (double)d->b[k]);
        }
    }
    return OK;
}

static const struct dtype *type_of(const struct reading *x)
{
    static const struct { enum ckpt_type from; int to; } same[] = { { CKPT_F16, GGUF_F16 }, { CKPT_BF16, GGUF_BF16 } };
    if (x->o->type) return x->o->type;
    for (int i = 0; i < ARRAY_LEN(same) && !x->folded; i++) {
        bool all = true;
        for (int64_t k = 0; k < x->n_modules && all; k++) all = x->module[k].a->type == same[i].from && x->module[k].b->type == same[i].from;
        if (all) return dtype_by_id(same[i].to);
    }
    return dtype_by_id(GGUF_F32);
}

static status write_out(struct reading *x, const char *out, struct peft_info *info, struct err *e)
{
    const struct json *base = json_get(x->config, "base_model_name_or_path");
    struct adapter_tensor *t = arena_zalloc(&x->arena, (size_t)x->n, sizeof *t);
    if (!t) return err_oom(e, x->path, (size_t)x->n * sizeof *t);
    *info = (struct peft_info){ .n_modules = x->n_modules, .n_tensors = x->n, .alpha = (double)x->alpha, .rank_min = LORA_RANK_MAX, .type = type_of(x) };
    for (int64_t i = 0; i < x->n; i++) {
        t[i] = x->built[i].t;
        info->rank_min = min_i64(info->rank_min, t[i].rank), info->rank_max = max_i64(info->rank_max, t[i].rank);
    }
    if (x->o->check_only) return OK;
    struct adapter_note note = { "adapter.base_model", NOTE_TEXT, .text = "" };
    if (base && base->kind == JSON_STR) note.text = *base->str == '/' || *base->str == '.' ? path_base(base->str) : base->str;
    struct adapter_file f = { .m = x->m, .tensor = t, .n = x->n, .alpha = x->alpha, .type = info->type, .note = &note, .n_notes = *note.text ? 1 : 0 };
    return adapter_write_gguf(out, &f, e);
}

static status import_all(struct reading *x, const char *out, struct peft_info *info, struct err *e)
{
    static const char *const names[] = { "adapter_model.safetensors", "adapter_model.bin" };
    char path[4200];
    struct file_facts f;
    TRY(read_config(x, e));
    for (int i = 0; i < ARRAY_LEN(names); i++) {
        if (snprintf(path, sizeof path, "%s/%s", x->path, names[i]) >= (int)sizeof path) return err_set(e, ERR_FILE, "%.60s...: the path is too long", x->path);
        if (file_stat(path, &f)) break;
        if (i) return err_set(e, ERR_FILE, "%s: neither %s nor %s is in it", x->path, names[0], names[1]);
    }
    TRY(checkpoint_open(&x->ckpt, path, e));
    TRY(list_modules(x, e));
    TRY(build_all(x, e));
    TRY(settle_alpha(x, e));
    return write_out(x, out, info, e);
}

status peft_import(const char *path, const struct model *m, const char *out, const struct peft_options *o, struct peft_info *info, struct err *e)
{
    struct reading x = { .m = m, .o = o, .path = path };
    arena_init(&x.arena, 0);
    status st = import_all(&x, out, info, e);
    checkpoint_close(&x.ckpt);
    arena_free(&x.arena);
    return st;
}

bool peft_is_folder(const char *path)
{
    char name[4200];
    struct file_facts f;
    return snprintf(name, sizeof name, "%s/adapter_config.json", path) < (int)sizeof name && file_stat(name, &f);
}
