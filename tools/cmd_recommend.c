/* recommend - which format to quantize a model to: for every mix its size, the memory it takes to run, the quality it is expected to keep and the speed it
 * should have on this CPU, and one of them marked. Sizes are exact (quant_plan_open), memory is as `inspect` counts it, speed comes from a short
 * measurement, quality from what was measured on other models (recommend_data.h). Writes nothing. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "ggml-like/kernels/kernels.h"
#include "quant/quant.h"
#include "tools/limits.h"
#include "tools/opt.h"
#include "tools/quant_plan.h"
#include "tools/recommend_data.h"
#include "tools/report.h"

enum { PATH_CAP = 4096, ROWS_MAX = 64, CONTEXTS_MAX = 4, SLOW = 4 };
#define GOOD_KLD 0.035 /* measured: near it nine of ten tokens keep their likeliest continuation, with 135 M weights as with 1.5 B */
/* Waits of all threads for each other in one layer of a decoded token: norms, rounding of inputs, products, rope, attention. */
enum { BARRIERS_PER_LAYER = 16 };

struct row {
    const char *type;
    bool is_file, needs_importance, fits;
    uint64_t tensors, file;      /* bytes */
    double bpw;
    int n_fallback;
    uint64_t ram[CONTEXTS_MAX];  /* 0: not known, or longer than the model goes */
    double kld;                  /* expected; NaN: not known */
    double speed;                /* tokens per second; NaN: not measured */
};

struct job {
    const struct cli *c;
    char path[PATH_CAP];
    struct gguf g;
    struct cpu_info cpu;
    struct runtime r;
    struct model_info info;
    bool runs, quantized, tied;
    struct err why;              /* when it does not run */
    uint64_t n_params, ram;      /* ram: the limit, 0 = not known */
    double experts;              /* share of a stack of experts that one token reads */
    char file_type[32];          /* of most of its bytes */
    int64_t ctx[CONTEXTS_MAX], n_ctx_train, n_layer;
    int n_ctx, at;               /* at: index of the context that must fit */
    uint64_t state[CONTEXTS_MAX]; /* memory besides weights, 0 = not known */
    struct limits limits;
    double rate[DTYPE_IDS];      /* GB/s in decoding; 0: not measured yet */
    struct row row[ROWS_MAX];
    int n, best;                 /* best: -1 = none */
    char reason[320];
};

/* ---- words ---- */

/* "8G", "512M", "1.5GiB": powers of 1024. */
static status parse_ram(const char *text, uint64_t *out, struct err *e)
{
    static const char units[] = "KMGT";
    char *end;
    double v = strtod(text, &end);
    bool number = end > text;
    const char *unit = *end ? strchr(units, *end & ~0x20) : NULL;
    for (int64_t i = 0; number && unit && i <= unit - units; i++) v *= 1024;
    const char *rest = end + (unit != NULL);
    if (unit && (*rest == 'i' || *rest == 'I')) rest++;
    if (unit && (*rest == 'B' || *rest == 'b')) rest++;
    if (!number || *rest || !(v >= 1 << 20) || v > 0x1p50)
        return err_set(e, ERR_USAGE, "--ram: '%.30s' is no size such as 8G or 1500M, at least 1M", text);
    *out = (uint64_t)v;
    return OK;
}

static void add_context(struct job *j, int64_t n)
{
    int i = 0;
    while (i < j->n_ctx && j->ctx[i] < n) i++;
    if (i < j->n_ctx && j->ctx[i] == n) return;
    for (int k = j->n_ctx++; k > i; k--) j->ctx[k] = j->ctx[k - 1];
    j->ctx[i] = n;
}

/* 4k, 8k and 32k, and what was asked for: that one must fit. Unasked it is the context that run and chat take, at most 4096. */
static status choose_contexts(struct job *j, struct err *e)
{
    int64_t asked = j->c->ctx > 0 ? j->c->ctx : min_i64(4096, j->n_ctx_train);
    if (asked > j->n_ctx_train)
        return err_set(e, ERR_USAGE, "--ctx %lld: the model was trained for %lld", (long long)asked, (long long)j->n_ctx_train);
    add_context(j, 4096), add_context(j, 8192), add_context(j, 32768), add_context(j, asked);
    while (j->ctx[j->at] != asked) j->at++;
    return OK;
}

/* ---- the model ---- */

static int64_t key_i64(const struct gguf *g, const char *name, int64_t absent)
{
    char key[128];
    struct str arch = { "", 0 };
    struct err ignored = { 0 };
    int64_t v = absent;
    gguf_get_str(g, "general.architecture", &arch, &ignored);
    snprintf(key, sizeof key, "%.*s.%s", (int)(arch.n < 60 ? arch.n : 60), arch.p, name);
    gguf_get_i64(g, key, 0, INT32_MAX, &v, &ignored);
    return v;
}

static void read_facts(struct job *j)
{
    uint64_t by_type[DTYPE_IDS] = { 0 }, quantized = 0, all = 0;
    int most = 0;
    for (int64_t i = 0; i < j->g.n_tensors; i++) {
        const struct tensor *t = &j->g.tensor[i];
        j->n_params += (uint64_t)tensor_elements(t);
        by_type[t->type->gguf_id] += tensor_bytes(t);
        all += (uint64_t)tensor_elements(t);
        if (t->type->group_len > 0) quantized += (uint64_t)tensor_elements(t);
    }
    for (int i = 1; i < DTYPE_IDS; i++)
        if (by_type[i] > by_type[most]) most = i;
    j->quantized = quantized > all / 2;
    j->tied = gguf_tensor(&j->g, "output.weight") == NULL;
    const struct dtype *t = dtype_by_id(most);
    snprintf(j->file_type, sizeof j->file_type, "%s", format_name(&j->g, t ? t->gguf_name : "?"));
    int64_t n = key_i64(&j->g, "expert_count", 0), used = key_i64(&j->g, "expert_used_count", 0);
    j->experts = n > 0 && used > 0 && used < n ? (double)used / (double)n : 1;
    j->n_layer = key_i64(&j->g, "block_count", 0);
    j->n_ctx_train = key_i64(&j->g, "context_length", 0);
    if (j->n_ctx_train <= 0) j->n_ctx_train = 32768;
}

/* Opens model and engine for a moment: the only honest way to know whether it runs and what that takes. A model that does not run here is still worth
 * an answer: its memory then comes from the header. */
static void try_running(struct job *j)
{
    struct cli c = *j->c;
    const struct dtype *kv = dtype_by_name(c.kv_type ? c.kv_type : "f16");
    struct run_memory m;
    c.quiet = true;
    c.ctx = 0;
    j->runs = runtime_open(&j->r, &c, 0, &j->why) == OK;
    if (j->runs) model_info(j->r.model, &j->info);
    run_memory(&m, &j->g, NULL, 0);
    for (int i = 0; i < j->n_ctx; i++) {
        if (j->ctx[i] > j->n_ctx_train) continue;
        if (j->runs) j->state[i] = limits_memory(j->r.engine, j->ctx[i], kv);
        else if (m.n > 0) j->state[i] = m.bytes[0] / (uint64_t)m.n_ctx[0] * (uint64_t)j->ctx[i];
    }
}

/* ---- rows ---- */

static status rate_of(struct job *j, const struct dtype *t, double *rate, struct err *e)
{
    if (j->rate[t->gguf_id] == 0) TRY(limits_decode(&j->rate[t->gguf_id], j->r.engine, t, true, e));
    *rate = j->rate[t->gguf_id];
    return OK;
}

/* Adds one tensor's share to the time of a token: matrices are read whole, of the embeddings one row unless they are the head too. */
static status add_time(struct job *j, const struct tensor *t, const struct dtype *type, size_t bytes, double *seconds, struct err *e)
{
    double rate;
    if (t->ne[1] == 1 || (!j->tied && !strncmp(t->name, "token_embd.", 11))) return OK;
    TRY(rate_of(j, type, &rate, e));
    if (rate > 0) *seconds += (double)bytes * (t->ne[2] > 1 ? j->experts : 1) / (rate * 1e9);
    return OK;
}

static bool measures(const struct job *j) { return j->runs && !j->c->no_limits; }

/* Where not even the fastest sample saw all threads run at once, other work holds a core: generation leaves the late thread out and waits for nobody
 * (pool_run_elastic), and the rates above are those of what is left. */
static double barrier_seconds(const struct job *j)
{
    double ns = j->limits.barrier_ns;
    return ns > LIMITS_SHARED_NS ? 0 : (double)j->n_layer * BARRIERS_PER_LAYER * ns * 1e-9;
}

/* Where the cache is not known, the weights alone: a lower bound. */
static uint64_t needs(const struct job *j, const struct row *r) { return r->ram[j->at] ? r->ram[j->at] : r->tensors; }

/* plan NULL: the file as it is. */
static status add_row(struct job *j, struct row *r, struct quant_plan *plan, struct err *e)
{
    double cost = 0, weights = 0, seconds = barrier_seconds(j);
    for (int64_t i = 0; i < j->g.n_tensors; i++) {
        const struct quant_item *it = plan ? quant_plan_item(plan, i) : NULL;
        const struct tensor *t = it ? it->src : &j->g.tensor[i];
        const struct dtype *type = it ? it->to : t->type;
        size_t bytes = it ? it->bytes_to : tensor_bytes(t);
        if (!strncmp(t->name, "blk.", 4)) {
            cost += recommend_cost(type) * (double)tensor_elements(t);
            weights += (double)tensor_elements(t);
        }
        r->tensors += bytes;
        r->n_fallback += it && it->fallback;
        if (measures(j)) TRY(add_time(j, t, type, bytes, &seconds, e));
    }
    r->bpw = 8 * (double)r->tensors / (double)j->n_params;
    r->kld = r->is_file && j->quantized ? NAN : weights > 0 ? cost / weights * recommend_sensitivity(weights) : NAN;
    r->speed = measures(j) && seconds > 0 ? 1 / seconds : NAN;
    for (int i = 0; i < j->n_ctx; i++)
        if (j->state[i]) r->ram[i] = r->tensors + j->state[i];
    r->fits = j->ram == 0 || needs(j, r) <= j->ram;
    j->row[j->n++] = *r;
    return OK;
}

static status add_file(struct job *j, struct err *e)
{
    struct row r = { .type = j->file_type, .is_file = true, .file = gguf_bytes(&j->g) };
    return add_row(j, &r, NULL, e);
}

/* False: this build does not make the mix, or the file is in it. */
static status add_mix(struct job *j, const struct importance *im, const char *type, struct err *e)
{
    const struct quant_options o = { .type = type, .importance = im, .allow_requantize = true, .sizes_only = true };
    const struct recipe *recipe = recipe_by_name(type);
    struct quant_plan *plan = NULL;
    struct quant_totals totals;
    struct err refused = { 0 };
    if (!recipe || !strcmp(type, j->file_type)) return OK;
    status st = quant_plan_open(&plan, j->path, &o, &refused);
    if (st == ERR_USAGE) return OK;
    if (st != OK) return err_set(e, st, "%s", refused.text);
    quant_plan_totals(plan, NULL, NULL, &totals);
    struct row r = { .type = recipe->name, .needs_importance = recipe->needs_importance, .file = totals.bytes_to };
    st = add_row(j, &r, plan, e);
    quant_plan_close(plan);
    return st;
}

static int by_size(const void *a, const void *b)
{
    const struct row *x = a, *y = b;
    if (x->is_file != y->is_file) return x->is_file ? -1 : 1;
    return x->file != y->file ? (x->file < y->file ? 1 : -1) : strcmp(x->type, y->type);
}

static status make_rows(struct job *j, struct err *e)
{
    struct importance im; /* empty: mixes are sized as they are chosen with importance */
    importance_init(&im);
    status st = add_file(j, e);
    for (int i = 0; i < recommend_type_count && st == OK && j->n < ROWS_MAX; i++) st = add_mix(j, &im, recommend_types[i], e);
    importance_close(&im);
    qsort(j->row, (size_t)j->n, sizeof *j->row, by_size);
    return st;
}

/* ---- one of them ---- */

/* A format that this CPU reads several times slower than others is no choice, whatever its size: it has no fast kernel here. */
static bool is_slow(const struct job *j, const struct row *r)
{
    double fastest = 0;
    for (int i = 0; i < j->n; i++)
        if (j->row[i].fits && j->row[i].speed > fastest) fastest = j->row[i].speed;
    return r->speed < fastest / SLOW;
}

/* A file that is quantized already only loses by another pass. Else the smallest that is good enough; else the best that fits. */
static void choose(struct job *j)
{
    char need[32], have[32];
    int good = -1, closest = -1, smallest = 0;
    for (int i = 0; i < j->n; i++) {
        const struct row *r = &j->row[i];
        if (r->file < j->row[smallest].file) smallest = i;
        if (!r->fits || isnan(r->kld) || is_slow(j, r)) continue;
        if (closest < 0 || r->kld <= j->row[closest].kld) closest = i;
        if (r->kld <= GOOD_KLD && (good < 0 || r->file < j->row[good].file)) good = i;
    }
    bool keep = j->quantized && j->row[0].fits;
    j->best = keep ? 0 : good >= 0 ? good : closest;
    const struct row *r = &j->row[j->best >= 0 ? j->best : smallest];
    size_text(needs(j, r), need), size_text(j->ram, have);
    char room[160] = "", with[64] = " without its cache";
    if (r->ram[j->at]) snprintf(with, sizeof with, " at a context of %lld", (long long)j->ctx[j->at]);
    if (j->ram) snprintf(room, sizeof room, "; takes %s of %s%s", need, have, with);
    if (j->best < 0) snprintf(j->reason, sizeof j->reason, "nothing fits into %s: the smallest, %s, takes %s%s", have, r->type, need, with);
    else if (keep) snprintf(j->reason, sizeof j->reason, "the file as it is: quantized already, and another pass only loses%s", room);
    else if (good >= 0) snprintf(j->reason, sizeof j->reason, "the smallest whose expected KL divergence is at most %g%s", GOOD_KLD, room);
    else snprintf(j->reason, sizeof j->reason, "the closest to the original of those that fit%s", room);
}

/* ---- results ---- */

/* Two digits that count: 0.00052, 0.031, 1.4. */
static const char *kld_text(double v, char buf[32])
{
    int decimals = 1;
    for (double x = v; x > 0 && x < 1 && decimals < 7; x *= 10) decimals++;
    if (isnan(v)) snprintf(buf, 32, "?");
    else snprintf(buf, 32, "%.*f", v > 0 ? decimals : 0, v);
    return buf;
}

static void print_row(const struct job *j, int i)
{
    const struct row *r = &j->row[i];
    char text[32], kld[32], speed[32] = "-";
    if (isfinite(r->speed) && r->fits) snprintf(speed, sizeof speed, r->speed < 99.5 ? "%.1f" : "%.0f", r->speed);
    out_printf("%c %-8s %6.2f  %9s", i == j->best ? '>' : ' ', r->type, r->bpw, size_text(r->file, text));
    for (int k = 0; k < j->n_ctx; k++) out_printf("  %9s", r->ram[k] ? size_text(r->ram[k], text) : "-");
    out_printf("  %8s  %7s%s%s%s\n", kld_text(r->kld, kld), speed, r->is_file ? "  this file" : "", r->needs_importance ? "  needs importance" : "",
               r->fits ? "" : "  does not fit");
}

static void print_notes(const struct job *j)
{
    int n_fallback = 0;
    for (int i = 0; i < j->n; i++) n_fallback = j->row[i].n_fallback > n_fallback ? j->row[i].n_fallback : n_fallback;
    if (j->runs) out_printf("\nRAM    weights, KV cache (%s) and scratch, for contexts of that many tokens\n", j->c->kv_type ? j->c->kv_type : "f16");
    else if (j->state[j->at]) out_printf("\nRAM    weights and a KV cache of half floats, for contexts of that many tokens\n");
    else out_printf("\nRAM    not known: the file does not say how large its attention is\n");
    out_printf("KL     mean KL divergence from the original, expected with importance (without: up to three times as much): measured on models of 0.1 to\n"
               "       1.5 billion weights, nine of ten of these mixes within a factor of %.1f; larger models tend to lose less. Check yours: cuanto compare\n",
               recommend_factor);
    if (measures(j))
        out_printf("tok/s  one token at a time, empty context, measured now: %d threads, %s, %.1f GB/s from memory\n", j->limits.n_threads,
                   engine_kernels(j->r.engine)->name, j->limits.read_gbps_n);
    if (measures(j) && j->limits.barrier_mean_ns > LIMITS_SHARED_NS)
        out_printf("note   other work used the same cores meanwhile: idle, they are faster\n");
    if (!j->runs) out_printf("tok/s  not known, this build does not run the model: %s\n", j->why.text);
    if (n_fallback)
        out_printf("note   rows of up to %d tensors do not fit the blocks of 256 of K and I formats: larger formats take their place\n", n_fallback);
    if (j->quantized)
        out_printf("note   the file is quantized already: quality is that of quantizing the original; from this file its own loss comes on top\n");
}

/* A path as a shell takes it. */
static const char *quoted(const char *path, char *buf, size_t cap)
{
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-./+:,@%=";
    size_t n = 0;
    if (!path[strspn(path, plain)] && path[0] != '-') return path;
    buf[n++] = '\'';
    for (; *path && n + 6 < cap; path++) n += (size_t)snprintf(buf + n, cap - n, *path == '\'' ? "'\\''" : "%c", *path);
    snprintf(buf + n, cap - n, "'");
    return buf;
}

/* What to type for the marked row. */
static void print_next(const struct job *j)
{
    char buf[2 * PATH_CAP];
    if (j->best < 0) return;
    const struct row *r = &j->row[j->best];
    const char *path = quoted(j->path, buf, sizeof buf);
    if (r->is_file) {
        out_printf("  next: cuanto chat %s\n", path);
        return;
    }
    if (r->needs_importance) out_printf("  next: cuanto importance %s -f TEXT -o importance.gguf\n", path);
    out_printf("%s cuanto quantize %s %s%s\n", r->needs_importance ? "  then:" : "  next:", path, r->type,
               r->needs_importance ? " --imatrix importance.gguf" : "");
}

static void print_text(const struct job *j)
{
    char size[32];
    double p = (double)j->n_params;
    out_printf("%s: %.*f %s weights, %s, %s\n", j->path, p < 1e9 ? 0 : 2, p < 1e9 ? p * 1e-6 : p * 1e-9, p < 1e9 ? "million" : "billion", j->file_type,
               size_text(gguf_bytes(&j->g), size));
    out_printf("\n  %-8s %6s  %9s", "type", "bits", "file");
    for (int k = 0; k < j->n_ctx; k++) {
        char head[32];
        snprintf(head, sizeof head, j->ctx[k] % 1024 ? "RAM %lld" : "RAM %lldk", (long long)(j->ctx[k] % 1024 ? j->ctx[k] : j->ctx[k] / 1024));
        out_printf("  %9s", head);
    }
    out_printf("  %8s  %7s\n", "KL", "tok/s");
    for (int i = 0; i < j->n; i++) print_row(j, i);
    if (j->best >= 0) out_printf("\n> %s: %s\n", j->row[j->best].type, j->reason);
    print_next(j);
    print_notes(j);
}

static void put_count(struct json_out *o, const char *key, uint64_t v)
{
    if (v) json_put_i64(o, key, (int64_t)v);
    else json_put_null(o, key);
}

static void row_json(const struct job *j, struct json_out *o, int i)
{
    const struct row *r = &j->row[i];
    json_begin(o, NULL, '{');
    json_put_cstr(o, "type", r->type);
    json_put_bool(o, "this_file", r->is_file);
    json_put_i64(o, "file_bytes", (int64_t)r->file);
    json_put_i64(o, "tensor_bytes", (int64_t)r->tensors);
    json_put_f64(o, "bits_per_weight", r->bpw);
    json_begin(o, "ram_bytes", '[');
    for (int k = 0; k < j->n_ctx; k++) put_count(o, NULL, r->ram[k]);
    json_end(o, ']');
    json_put_bool(o, "fits", r->fits);
    json_put_f64(o, "kld", r->kld);
    json_put_f64(o, "tokens_per_s", r->speed);
    json_put_bool(o, "needs_importance", r->needs_importance);
    json_put_i64(o, "fallbacks", r->n_fallback);
    json_put_bool(o, "recommended", i == j->best);
    json_end(o, '}');
}

static bool print_json(const struct job *j)
{
    struct json_out o;
    json_out_init(&o, true);
    json_begin(&o, NULL, '{');
    json_put_cstr(&o, "model", j->path);
    json_put_i64(&o, "n_params", (int64_t)j->n_params);
    json_put_cstr(&o, "type", j->file_type);
    json_put_bool(&o, "quantized", j->quantized);
    json_put_bool(&o, "runs", j->runs);
    json_put_cstr(&o, "why_not", j->runs ? NULL : j->why.text);
    put_count(&o, "ram_limit_bytes", j->ram);
    json_begin(&o, "contexts", '[');
    for (int k = 0; k < j->n_ctx; k++) json_put_i64(&o, NULL, j->ctx[k]);
    json_end(&o, ']');
    json_put_i64(&o, "context", j->ctx[j->at]);
    json_put_f64(&o, "read_gbps", measures(j) ? j->limits.read_gbps_n : NAN);
    json_begin(&o, "kld_measured_on", '[');
    for (int i = 0; i < recommend_model_count; i++) json_put_cstr(&o, NULL, recommend_models[i]);
    json_end(&o, ']');
    json_put_f64(&o, "kld_factor", recommend_factor);
    json_begin(&o, "rows", '[');
    for (int i = 0; i < j->n; i++) row_json(j, &o, i);
    json_end(&o, ']');
    json_put_cstr(&o, "recommended", j->best >= 0 ? j->row[j->best].type : NULL);
    json_put_cstr(&o, "reason", j->reason);
    json_end(&o, '}');
    return report_out(&o);
}

static status work(struct job *j, struct err *e)
{
    const struct cli *c = j->c;
    if (c->ram) TRY(parse_ram(c->ram, &j->ram, e));
    TRY(model_find(c->model, j->path, sizeof j->path, e));
    TRY(gguf_open(&j->g, j->path, !c->no_mmap, e));
    read_facts(j);
    if (j->n_params == 0) return err_set(e, ERR_FORMAT, "%s: no tensors", j->path);
    TRY(choose_contexts(j, e));
    cpu_detect(&j->cpu);
    if (!c->ram) j->ram = j->cpu.ram_available;
    try_running(j);
    if (measures(j)) TRY(limits_measure(&j->limits, j->r.engine, e));
    TRY(make_rows(j, e));
    choose(j);
    if (!c->json) print_text(j);
    else if (!print_json(j) && out_status() == 0) return err_oom(e, "report", 0);
    out_flush();
    return j->best >= 0 ? OK : err_set(e, ERR_MEMORY, "%s; a shorter context (--ctx), --kv-type q8_0 or a smaller model takes less", j->reason);
}

static int run(struct cli *c)
{
    struct err e = { 0 };
    struct job *j = mem_calloc(1, sizeof *j);
    if (!j) return cli_fail(&(struct err){ .code = ERR_MEMORY, .text = "out of memory" }, NULL);
    j->c = c;
    cli_signals_at_once(true); /* nothing outlives it */
    status st = work(j, &e);
    if (j->runs) runtime_close(&j->r);
    gguf_close(&j->g);
    mem_free(j);
    return st == OK ? out_status() : cli_fail(&e, NULL);
}

OPT_GROUP(recommend_group, "Recommend",
    { "ram", NULL, OPT_STR, OPT_AT(ram), .value = "SIZE", .help = "memory that it must fit into: 8G, 1500M; the memory available now, if not said" },
    { "ctx", "-c --ctx-size", OPT_INT, OPT_AT(ctx), .value = "N", .lo = 0, .hi = 16777216,
      .help = "context that must fit beside the weights; 4096 if not said" },
    ROW_KV_TYPE("number format of the KV cache"),
    { "no-speed", NULL, OPT_FLAG, OPT_AT(no_limits), .help = "do not measure the speed of this CPU, which takes about two seconds" },
    { "no-mmap", NULL, OPT_FLAG, OPT_AT(no_mmap), .help = "read the file into memory instead of mapping it" });

static const struct opt_group *const groups[] = { &recommend_group, &opts_cpu, &opts_common, NULL };

const struct command command_recommend = {
    .name = "recommend",
    .brief = "which format to quantize to: size, memory, quality, speed",
    .usage = "cuanto recommend MODEL [options]",
    .examples = "cuanto recommend model-F16.gguf\n"
                "cuanto recommend model-F16.gguf --ram 8G --ctx 16384\n"
                "cuanto recommend model-F16.gguf --ram 4G --json",
    .groups = groups,
    .min_args = 1,
    .max_args = 1,
    .run = run,
};
