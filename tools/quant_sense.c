/* quant_sense - see quant_sense.h. The measure: a group of tensors is exchanged for a coarse format, everything else stays as it is, and the model reads a
 * few windows; what its distributions lose is ascribed to the errors of the group. */
#include "tools/quant_sense.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "ggml-like/pool.h"
#include "tools/buffer.h"
#include "tools/opt.h"
#include "tools/quant_measure.h"

const int sense_types[SENSE_TYPES] = {
    GGUF_Q8_0, GGUF_Q6_K, GGUF_Q5_1, GGUF_Q5_K, GGUF_Q5_0, GGUF_Q4_1, GGUF_Q4_K, GGUF_Q4_0, GGUF_IQ4_NL, GGUF_NVFP4, GGUF_IQ4_XS, GGUF_MXFP4,
    GGUF_IQ3_S, GGUF_Q3_K, GGUF_IQ3_XXS, GGUF_Q2_K, GGUF_IQ2_S, GGUF_IQ2_XS, GGUF_Q2_0, GGUF_IQ2_XXS, GGUF_IQ1_M, GGUF_IQ1_S,
};

static const char version[] = "cuanto measurement 1";
/* Relative squared error that a group is exchanged at: between those of 3 and 4 bits, where allocations are made; at it KL is well above the rounding of
 * the arithmetic, and still about proportional to the error. */
#define REF_ERROR 0.015
/* Multiply-adds that a measurement may take, and the tokens it has at least and at most: figures of the whole model, so that the text read does not depend
 * on the machine. */
#define MACS_MAX 12e12
enum { TOKENS_MIN = 512, TOKENS_MAX = 2048, GROUP_MAX = 4, PARTS_WEIGHTS = 64, PIECE = 4096 };

/* ---- which tensors ---- */

static int layer_of(const char *name)
{
    int layer;
    return sscanf(name, "blk.%d.", &layer) == 1 ? layer : LAYERS_EMBED;
}

/* "blk.3.attn_q.weight" -> "attn_q.weight" */
static const char *role_of(const char *name)
{
    const char *dot = layer_of(name) >= 0 ? strchr(name + 4, '.') : NULL;
    return dot ? dot + 1 : name;
}

static status collect(struct sense *s, struct quant_plan *p, struct err *e)
{
    s->row = arena_zalloc(&s->mem, (size_t)quant_plan_n(p) + 1, sizeof *s->row);
    s->kl = arena_zalloc(&s->mem, (size_t)quant_plan_n(p) + 1, sizeof *s->kl);
    if (!s->row || !s->kl) return err_oom(e, "measurement", (size_t)quant_plan_n(p) * sizeof *s->row);
    for (int64_t i = 0; i < quant_plan_n(p); i++) {
        const struct quant_item *it = quant_plan_item(p, i);
        if (it->kept || it->asked || it->fallback || it->added) continue;
        s->row[s->n++] = (struct sense_row){ .name = it->src->name, .item = i, .layer = layer_of(it->src->name), .group = -1, .ref = -1 };
    }
    return OK;
}

/* Shapes, formats and pieces of the data: other weights of the same shape are another model. */
static uint64_t hash_model(const struct gguf *g)
{
    uint64_t h = 1;
    for (int64_t i = 0; i < g->n_tensors; i++) {
        const struct tensor *t = &g->tensor[i];
        size_t n = tensor_bytes(t), piece = n < PIECE ? n : PIECE;
        h = hash64(h, t->name, strlen(t->name));
        h = hash64(h, t->ne, sizeof t->ne) + (uint64_t)t->type->gguf_id;
        h = hash64(h, t->data, piece);
        h = hash64(h, (const uint8_t *)t->data + (n - piece) / 2, piece);
    }
    return h;
}

uint64_t sense_hash(const struct sense *s)
{
    uint64_t h = hash64(s->model, &s->text, sizeof s->text);
    for (int64_t i = 0; i < s->n; i++) {
        h = hash64(h, s->row[i].error, sizeof s->row[i].error);
        h = hash64(h, &s->row[i].group, sizeof s->row[i].group) + (uint64_t)s->row[i].ref;
    }
    return hash64(h, s->kl, (size_t)s->n_groups * sizeof *s->kl);
}

/* ---- errors ---- */

static bool stop_or_tell(void *ctx, int64_t done)
{
    bar_update(ctx, done, NULL);
    return !cli_interrupted;
}

static status find_errors(struct sense *s, struct quant_plan *p, const struct trial_tools *t, const struct cli *c, struct err *e)
{
    struct bar bar;
    const struct tensor **src = mem_calloc((size_t)s->n + 1, sizeof *src);
    float *error = mem_calloc((size_t)s->n * SENSE_TYPES + 1, sizeof *error);
    status st = src && error ? OK : err_oom(e, "errors of a sample", (size_t)s->n * SENSE_TYPES * sizeof *error);
    for (int64_t i = 0; st == OK && i < s->n; i++) src[i] = quant_plan_item(p, s->row[i].item)->src;
    bar_begin(&bar, c, "formats", "tensors", s->n);
    if (st == OK) st = trial_errors(t, src, s->n, sense_types, SENSE_TYPES, error, stop_or_tell, &bar, e);
    bar_end(&bar);
    for (int64_t i = 0; st == OK && i < s->n; i++) memcpy(s->row[i].error, error + i * SENSE_TYPES, sizeof s->row[i].error);
    mem_free(src);
    mem_free(error);
    return st;
}

/* ---- groups ---- */

struct group { int64_t row[GROUP_MAX]; int n, il; };

/* Roles whose errors act alike: both factors of the scores, both of the gated product. */
static bool act_alike(const char *a, const char *b)
{
    static const char *const pairs[][2] = {
        { "attn_q.weight", "attn_k.weight" }, { "ffn_gate.weight", "ffn_up.weight" }, { "ffn_gate_exps.weight", "ffn_up_exps.weight" },
        { "ffn_gate_shexp.weight", "ffn_up_shexp.weight" },
    };
    for (int i = 0; i < ARRAY_LEN(pairs); i++)
        for (int k = 0; k < 2; k++)
            if (!strcmp(a, pairs[i][k]) && !strcmp(b, pairs[i][!k])) return true;
    return false;
}

static int64_t row_named(const struct sense *s, const char *name)
{
    for (int64_t i = 0; i < s->n; i++)
        if (!strcmp(s->row[i].name, name)) return i;
    return -1;
}

/* Groups in the order in which the model reads them. A weight that two parts read (a tied head) belongs to the first. */
static status find_groups(struct sense *s, struct meter *m, struct group *g, struct err *e)
{
    const char *name[PARTS_WEIGHTS];
    s->n_groups = 0;
    for (int il = LAYERS_EMBED; il <= m->n_layer; il++) {
        int64_t first = s->n_groups;
        int n = part_weights(m->layers, m->model, il, name, PARTS_WEIGHTS, e);
        if (n < 0) return e->code;
        for (int i = 0; i < n; i++) {
            int64_t r = row_named(s, name[i]), k = first;
            if (r < 0 || s->row[r].group >= 0) continue;
            while (k < s->n_groups && (g[k].n == GROUP_MAX || !act_alike(role_of(s->row[g[k].row[0]].name), role_of(name[i])))) k++;
            if (k == s->n_groups) g[s->n_groups++] = (struct group){ .il = il };
            g[k].row[g[k].n++] = r;
            s->row[r].group = (int)k;
        }
    }
    return OK;
}

static int reference_type(const float *error)
{
    int best = -1;
    for (int k = 0; k < SENSE_TYPES; k++) {
        if (isnan(error[k]) || !(error[k] > 0)) continue;
        if (best < 0 || fabsf(logf(error[k] / (float)REF_ERROR)) < fabsf(logf(error[best] / (float)REF_ERROR))) best = k;
    }
    return best;
}

/* ---- measuring ---- */

static status measure_group(struct sense *s, struct meter *m, const struct trial_tools *t, const struct group *g, float *out, struct err *e)
{
    struct exchanged x[GROUP_MAX] = { { 0 } };
    double kl = 0;
    status st = OK;
    for (int i = 0; st == OK && i < g->n; i++) {
        struct sense_row *r = &s->row[g->row[i]];
        if ((r->ref = reference_type(r->error)) >= 0) st = exchange(m, t, r->name, dtype_by_id(sense_types[r->ref]), &x[i], e);
    }
    if (st == OK) st = meter_tail(m, g->il, &kl, e);
    for (int i = 0; i < g->n; i++) exchange_back(m, &x[i]);
    *out = (float)fmax(kl, 0);
    return st;
}

static status measure_groups(struct sense *s, struct meter *m, const struct trial_tools *t, const struct group *g, const struct cli *c, struct err *e)
{
    struct bar bar;
    int64_t parts = 0, done = 0;
    for (int64_t i = 0; i < s->n_groups; i++) parts += m->n_layer + 2 - max_i64(0, g[i].il);
    bar_begin(&bar, c, "measure", "layers", parts);
    status st = meter_start(m, e);
    for (int64_t i = 0; st == OK && i < s->n_groups; i++) {
        while (st == OK && m->il < g[i].il) st = meter_step(m, e);
        bar_update(&bar, done, s->row[g[i].row[0]].name);
        if (st == OK) st = measure_group(s, m, t, &g[i], &s->kl[i], e);
        done += m->n_layer + 2 - max_i64(0, g[i].il);
    }
    bar_end(&bar);
    return st;
}

/* Windows of the beginning of calibration windows that are not held out, spread evenly: two windows at least are there, and one of them is not. */
static status cut_windows(const struct calibration *k, int64_t n, int32_t **tokens, int64_t *n_windows, int64_t *n_ctx, struct err *e)
{
    int64_t have = k->n_windows - calibration_n_held_out(k), at = 0;
    *n_ctx = min_i64(MEASURE_CTX, k->n_ctx);
    *n_windows = max_i64(1, min_i64(n, have));
    *tokens = mem_alloc((size_t)(*n_windows * *n_ctx) * sizeof **tokens);
    if (!*tokens) return err_oom(e, "windows", (size_t)(*n_windows * *n_ctx) * sizeof **tokens);
    for (int64_t i = 0, seen = 0; i < k->n_windows && at < *n_windows; i++) {
        if (calibration_held_out(k, i) && have > 0) continue;
        if (seen++ * *n_windows / max_i64(1, have) < at) continue;
        memcpy(*tokens + at++ * *n_ctx, k->tokens + i * k->n_ctx, (size_t)*n_ctx * sizeof **tokens);
    }
    *n_windows = at;
    return OK;
}

/* What one token costs, multiply-adds: in all layers, and in the head. */
static void macs_of(const struct model *m, double *layers, double *head)
{
    struct model_info info;
    const struct gguf *g = model_gguf(m);
    model_info(m, &info);
    *layers = 0, *head = (double)info.n_vocab * (double)info.n_embd;
    for (int64_t i = 0; i < g->n_tensors; i++)
        if (g->tensor[i].ne[1] > 1 && layer_of(g->tensor[i].name) >= 0) *layers += (double)tensor_elements(&g->tensor[i]);
}

/* Of n_rows tensors, five of seven are a group of their own; behind the middle one there is half the model. */
static double macs_a_token(const struct model *m, int64_t n_rows)
{
    double layers, head;
    macs_of(m, &layers, &head);
    return (double)n_rows * 5 / 7 * (layers / 2 + head);
}

/* Tokens from the work that they take. */
static int64_t windows_for(const struct cli *c, const struct model *m, int64_t n_rows)
{
    double macs = macs_a_token(m, n_rows);
    int64_t tokens = c->measure_tokens > 0 ? c->measure_tokens : max_i64(TOKENS_MIN, (int64_t)fmin(TOKENS_MAX, MACS_MAX / fmax(macs, 1)));
    return meter_windows(m, max_i64(1, tokens / MEASURE_CTX));
}

double sense_passes(const struct sense *s, const struct cli *c, const struct calibration *k)
{
    double layers, head, tokens = (double)(windows_for(c, k->model, s->n) * MEASURE_CTX);
    macs_of(k->model, &layers, &head);
    double macs = macs_a_token(k->model, s->n);
    return tokens * macs / ((double)k->n_rows * layers);
}

size_t sense_bytes(const struct sense *s, const struct cli *c, const struct calibration *k)
{
    size_t most = 0; /* of a tensor that is exchanged, in eight bits at most */
    for (int64_t i = 0; i < s->n; i++) {
        const struct tensor *t = gguf_tensor(model_gguf(k->model), s->row[i].name);
        if (t && (size_t)tensor_elements(t) > most) most = (size_t)tensor_elements(t);
    }
    return meter_bytes(k->model, windows_for(c, k->model, s->n), MEASURE_CTX) + most;
}

static status measure(struct sense *s, const struct sense_options *o, const struct trial_tools *t, struct err *e)
{
    struct meter m;
    int32_t *tokens = NULL;
    int64_t n_windows, n_ctx;
    struct group *g = mem_calloc((size_t)s->n + 1, sizeof *g);
    if (!g) return err_oom(e, "measurement", (size_t)s->n * sizeof *g);
    status st = cut_windows(o->k, windows_for(o->c, o->k->model, s->n), &tokens, &n_windows, &n_ctx, e);
    if (st == OK) st = meter_open(&m, o->k->model, o->c, tokens, n_windows, n_ctx, e);
    if (st == OK) {
        st = find_groups(s, &m, g, e);
        if (st == OK) st = measure_groups(s, &m, t, g, o->c, e);
        s->n_tokens = m.n_rows;
        meter_close(&m);
    }
    mem_free(tokens);
    mem_free(g);
    return st;
}

/* ---- from KL and errors to KL for an error ---- */

/* What a unit of error cost in other models: geometric means over the layers of SmolLM2-135M and Qwen2.5-Coder 0.5B, which are 1.5 to 2 times apart, the
 * smaller model above; a head of its own: Qwen2.5-Coder 1.5B; one that is the embedding too, all columns alike: SmolLM2. First and last layers cost three
 * times as much (2 to 18, and 2.5 to 9). What counts for a choice is how they differ from each other. */
static double usual(const struct sense_row *r, int n_layer, bool tied)
{
    static const struct { const char *role; double price; } prices[] = {
        { "output.weight", 3 }, { "token_embd.weight", 0.23 }, { "attn_v.", 0.074 }, { "attn_qkv.", 0.074 }, { "attn_output.", 0.052 }, { "attn_q.", 0.059 },
        { "attn_k.", 0.059 }, { "ffn_gate", 0.12 }, { "ffn_up", 0.12 }, { "ffn_down", 0.14 },
    };
    const char *role = role_of(r->name);
    double price = 0.1;
    for (int i = ARRAY_LEN(prices) - 1; i >= 0; i--)
        if (!strncmp(role, prices[i].role, strlen(prices[i].role))) price = prices[i].price;
    if (tied && !strcmp(role, "token_embd.weight")) price = 8;
    return r->layer == 0 || r->layer == n_layer - 1 ? 3 * price : price;
}

/* A group's KL belongs to the sum of its errors. */
static void ascribe(struct sense *s, bool tied)
{
    int n_layer = 1;
    for (int64_t i = 0; i < s->n; i++) n_layer = s->row[i].layer >= n_layer ? s->row[i].layer + 1 : n_layer;
    for (int64_t i = 0; i < s->n; i++) {
        struct sense_row *r = &s->row[i];
        double sum = 0;
        r->per_error = usual(r, n_layer, tied);
        if (r->group < 0) continue;
        for (int64_t j = 0; j < s->n; j++)
            if (s->row[j].group == r->group && s->row[j].ref >= 0) sum += (double)s->row[j].error[s->row[j].ref];
        if (sum > 0) r->per_error = fmax((double)s->kl[r->group], 1e-9) / sum;
    }
}

/* ---- the file ---- */

static void put_hash(struct json_out *o, const char *key, uint64_t h)
{
    char text[17];
    snprintf(text, sizeof text, "%016llx", (unsigned long long)h);
    if (h) json_put_cstr(o, key, text);
    else json_put_null(o, key);
}

static status save(const struct sense *s, const char *path, struct err *e)
{
    struct json_out o;
    json_out_init(&o, true);
    json_begin(&o, NULL, '{');
    json_put_cstr(&o, "format", version);
    put_hash(&o, "model", s->model), put_hash(&o, "text", s->text), put_hash(&o, "importance", s->importance);
    json_put_i64(&o, "tokens", s->n_tokens);
    json_begin(&o, "types", '[');
    for (int k = 0; k < SENSE_TYPES; k++) json_put_cstr(&o, NULL, dtype_by_id(sense_types[k])->gguf_name);
    json_end(&o, ']');
    json_begin(&o, "kl", '[');
    for (int64_t i = 0; i < s->n_groups; i++) json_put_f64(&o, NULL, (double)s->kl[i]);
    json_end(&o, ']');
    json_begin(&o, "tensors", '[');
    for (int64_t i = 0; i < s->n; i++) {
        const struct sense_row *r = &s->row[i];
        json_begin(&o, NULL, '{');
        json_put_cstr(&o, "name", r->name);
        json_put_i64(&o, "group", r->group);
        json_put_i64(&o, "reference", r->ref);
        json_begin(&o, "errors", '[');
        for (int k = 0; k < SENSE_TYPES; k++) json_put_f64(&o, NULL, (double)r->error[k]);
        json_end(&o, ']');
        json_end(&o, '}');
    }
    json_end(&o, ']');
    json_end(&o, '}');
    struct buffer b = { 0 };
    bool ok = json_out_ok(&o) && buffer_append(&b, o.buf, o.n) && buffer_append(&b, "\n", 1);
    json_out_free(&o);
    status st = ok ? buffer_save(&b, path, e) : err_oom(e, path, o.n);
    buffer_free(&b);
    return st;
}

static status bad_file(const char *path, const char *what, struct err *e)
{
    return err_set(e, ERR_FORMAT, "%s: %s: no measurement of this program, or a damaged one", path, what);
}

static bool is_text(const struct json *j, const char *s) { return j && j->kind == JSON_STR && (size_t)j->n == strlen(s) && !memcmp(j->str, s, (size_t)j->n); }

static status check_hash(const struct json *root, const char *key, uint64_t want, const char *path, struct err *e)
{
    char text[17];
    const struct json *j = json_get(root, key);
    snprintf(text, sizeof text, "%016llx", (unsigned long long)want);
    if (!j) return bad_file(path, key, e);
    if (want ? is_text(j, text) : j->kind == JSON_NULL) return OK;
    return err_set(e, ERR_USAGE, "%s: was measured with another %s: %.16s, now %s; name another file to measure again", path, key,
                   j->kind == JSON_STR ? j->str : "none", want ? text : "none");
}

static bool is_number(const struct json *j) { return j && (j->kind == JSON_INT || j->kind == JSON_FLOAT) && isfinite(j->f) && j->f >= 0 && j->f < 1e30; }

static status read_kl(struct sense *s, const struct json *root, const char *path, struct err *e)
{
    const struct json *list = json_get(root, "kl");
    if (!list || list->kind != JSON_ARR) return bad_file(path, "kl", e);
    for (const struct json *j = list->child; j; j = j->next) {
        if (s->n_groups == s->n || !is_number(j)) return bad_file(path, "kl", e);
        s->kl[s->n_groups++] = (float)j->f;
    }
    return OK;
}

/* Numbers, or nulls where a format does not fit the columns: others would be chosen. */
static bool read_figures(const struct json *list, int64_t cols, float out[SENSE_TYPES])
{
    int k = 0;
    if (!list || list->kind != JSON_ARR) return false;
    for (const struct json *x = list->child; x; x = x->next, k++) {
        if (k == SENSE_TYPES || (cols % dtype_by_id(sense_types[k])->block_len ? x->kind != JSON_NULL : !is_number(x))) return false;
        out[k] = x->kind == JSON_NULL ? NAN : (float)x->f;
    }
    return k == SENSE_TYPES;
}

static status read_row(struct sense *s, struct sense_row *r, int64_t cols, const struct json *j, const char *path, struct err *e)
{
    const struct json *group = json_get(j, "group"), *ref = json_get(j, "reference"), *errors = json_get(j, "errors");
    if (!is_text(json_get(j, "name"), r->name))
        return err_set(e, ERR_USAGE, "%s: holds other tensors than are to be allocated, beginning with %s", path, r->name);
    if (!group || group->kind != JSON_INT || group->i < -1 || group->i >= s->n_groups) return bad_file(path, r->name, e);
    if (!ref || ref->kind != JSON_INT || ref->i < -1 || ref->i >= SENSE_TYPES) return bad_file(path, r->name, e);
    r->group = (int)group->i, r->ref = (int)ref->i;
    if (!read_figures(errors, cols, r->error)) return bad_file(path, r->name, e);
    return r->ref >= 0 && isnan(r->error[r->ref]) ? bad_file(path, r->name, e) : OK;
}

static status read_root(struct sense *s, struct quant_plan *plan, const struct json *root, const char *path, struct err *e)
{
    const struct json *types = json_get(root, "types"), *tensors = json_get(root, "tensors"), *tokens = json_get(root, "tokens");
    int k = 0;
    if (!is_text(json_get(root, "format"), version)) return bad_file(path, "format", e);
    TRY(check_hash(root, "model", s->model, path, e));
    TRY(check_hash(root, "text", s->text, path, e));
    TRY(check_hash(root, "importance", s->importance, path, e));
    if (!types || types->kind != JSON_ARR || !tensors || tensors->kind != JSON_ARR) return bad_file(path, "types or tensors", e);
    for (const struct json *j = types->child; j; j = j->next, k++)
        if (k == SENSE_TYPES || !is_text(j, dtype_by_id(sense_types[k])->gguf_name)) return bad_file(path, "types", e);
    if (k != SENSE_TYPES || !tokens || tokens->kind != JSON_INT || tokens->i < 0) return bad_file(path, "types", e);
    s->n_tokens = tokens->i;
    TRY(read_kl(s, root, path, e));
    int64_t n = 0;
    for (const struct json *j = tensors->child; j; j = j->next, n++) {
        if (n == s->n) return err_set(e, ERR_USAGE, "%s: holds more tensors than are to be allocated", path);
        TRY(read_row(s, &s->row[n], quant_plan_item(plan, s->row[n].item)->cols, j, path, e));
    }
    return n == s->n ? OK : err_set(e, ERR_USAGE, "%s: holds %lld tensors, %lld are to be allocated", path, (long long)n, (long long)s->n);
}

/* Of another text the hash differs; how much of it was read is asked for apart. */
static status check_tokens(const struct sense *s, const struct sense_options *o, struct err *e)
{
    const struct calibration *k = o->k;
    if (!k || o->c->measure_tokens <= 0) return OK;
    int64_t want = min_i64(windows_for(o->c, k->model, s->n), k->n_windows - calibration_n_held_out(k)) * min_i64(MEASURE_CTX, k->n_ctx);
    if (want == s->n_tokens) return OK;
    return err_set(e, ERR_USAGE, "%s: was measured on %lld tokens, --measure-tokens makes it %lld; name another file to measure again", o->path,
                   (long long)s->n_tokens, (long long)want);
}

static status load(struct sense *s, struct quant_plan *plan, const struct sense_options *o, struct err *e)
{
    enum { FILE_MAX = 1 << 28 };
    const char *path = o->path;
    char *text;
    size_t n;
    struct json *root;
    struct arena a;
    struct file_facts facts;
    if (!path || !file_stat(path, &facts)) return OK;
    TRY(file_text(path, FILE_MAX, &text, &n, e));
    arena_init(&a, 0);
    status st = json_parse(&root, text, n, &a, path, e);
    if (st == OK) st = read_root(s, plan, root, path, e);
    if (st == OK) st = check_tokens(s, o, e);
    s->found = st == OK;
    arena_free(&a);
    mem_free(text);
    return st;
}

/* ---- all of it ---- */

static status make(struct sense *s, struct quant_plan *plan, const struct sense_options *o, struct err *e)
{
    struct quant_kernels qk;
    struct cpu_info cpu;
    struct pool *pool;
    cpu_detect(&cpu);
    uint64_t features = cpu.features;
    if (o->c->isa) TRY(isa_features(o->c->isa, &cpu, &features, e));
    quant_kernels_init(&qk, features);
    TRY(pool_open(&pool, o->c->threads > 0 ? (int)o->c->threads : cpu.n_threads_default, e));
    struct trial_tools t = { &qk, pool, o->importance };
    double start = now_seconds();
    status st = find_errors(s, plan, &t, o->c, e);
    if (st == OK && o->k && !o->look) st = measure(s, o, &t, e);
    s->seconds = now_seconds() - start;
    pool_close(pool);
    if (st == OK && o->path && !o->look) st = save(s, o->path, e);
    return st;
}

status sense_open(struct sense *s, struct quant_plan *plan, const struct sense_options *o, struct err *e)
{
    *s = (struct sense){ .model = hash_model(quant_plan_gguf(plan)), .text = o->k ? o->k->hash : 0 };
    if (o->importance && !o->k) s->importance = o->importance->hash;
    arena_init(&s->mem, 0);
    status st = collect(s, plan, e);
    if (st == OK) st = load(s, plan, o, e);
    if (st == OK && !s->found) st = make(s, plan, o, e);
    if (st == OK) ascribe(s, !gguf_tensor(quant_plan_gguf(plan), "output.weight"));
    else sense_close(s);
    return st;
}

void sense_close(struct sense *s)
{
    arena_free(&s->mem);
    *s = (struct sense){ 0 };
}
