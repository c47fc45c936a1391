/* merge - adapters into the weights of a model: every changed tensor is dequantized, the adapters are added, and it is quantized again, in its own format or in
 * those of --type. The rest is copied. What that costs is measured: base and adapters beside each other are the reference. */
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "ggml-like/kernels/kernels.h"
#include "quant/quant.h"
#include "tools/dataset.h"
#include "tools/kld.h"
#include "tools/opt.h"
#include "tools/ppl.h"
#include "tools/report.h"
#include "tools/windows.h"

enum { MERGE_CTX = 256, SHOWN = 10 };

/* What was done to one tensor; all are shares of the length of the sum. */
struct change { const struct quant_item *it; double delta, rounding; };

struct job {
    struct cli *c;
    struct cli side;               /* of runtime_open: base, adapters with their scales */
    char in[PATH_MAX], out[PATH_MAX], program[32], what[400];
    char (*lora)[PATH_MAX + 32];
    struct runtime r;
    struct merge *merge;
    struct quant_delta delta;
    struct quant_options o;
    struct importance im;
    int *chosen;
    struct quant_plan *plan;
    struct quant_totals totals;
    struct change *change;         /* [n_changes] by rounding / delta, the worst first */
    int64_t n_changes;
    double delta_all, rounding_all;
    struct bar bar;
    /* measuring */
    struct windows w;
    int64_t n_vocab;
    float *ref;                    /* [n_chunks * n_scored][n_vocab] logits of base and adapters */
    double *kl;                    /* [n_chunks * n_scored] */
    const struct kernels *k;
    double kl_merged, kl_adapter;  /* < 0: not measured */
};

/* ---- words ---- */

/* "dir/base.gguf": "dir/base-merged.gguf", or with a type "dir/base-merged-Q4_K_M.gguf" */
static status default_out(struct job *j, struct err *e)
{
    size_t n = strlen(j->in);
    const struct recipe *r = j->c->merge_type ? recipe_by_name(j->c->merge_type) : NULL;
    if (n > 5 && !strcmp(j->in + n - 5, ".gguf")) n -= 5;
    if (snprintf(j->out, sizeof j->out, "%.*s-merged%s%s.gguf", (int)n, j->in, r ? "-" : "", r ? r->name : "") < (int)sizeof j->out) return OK;
    return err_set(e, ERR_USAGE, "%.60s...: the path is too long", j->in);
}

/* Adapters as runtime_open takes them: "FILE:SCALE", --scale multiplied in. */
static status take_adapters(struct job *j, struct err *e)
{
    const struct cli *c = j->c;
    size_t at = 0;
    if (c->n_args > ADAPTERS_MAX) return err_set(e, ERR_USAGE, "%d adapters, at most %d", c->n_args, ADAPTERS_MAX);
    j->lora = mem_calloc((size_t)c->n_args, sizeof *j->lora);
    if (!j->lora) return err_oom(e, "merge", sizeof *j->lora);
    j->side.n_lora = c->n_args;
    for (int i = 0; i < c->n_args; i++) {
        char path[PATH_MAX];
        float scale;
        TRY(adapter_word(c->args[i], path, sizeof path, &scale, e));
        TRY(output_apart("-o", j->out, (const char *const[]){ path }, 1, e));
        scale *= c->merge_scale;
        if (!isfinite(scale)) return err_set(e, ERR_USAGE, "--scale: the scale of %.60s is not finite", path);
        if (snprintf(j->lora[i], sizeof *j->lora, "%s:%.9g", path, (double)scale) >= (int)sizeof *j->lora)
            return err_set(e, ERR_USAGE, "%.60s...: the path is too long", path);
        j->side.lora[i] = j->lora[i];
        at += (size_t)snprintf(j->what + at, sizeof j->what - at, "%s%.60s x %g", i ? ", " : "", path_base(path), (double)scale);
        if (at >= sizeof j->what) at = sizeof j->what - 1;
    }
    return OK;
}

static status take_words(struct job *j, struct err *e)
{
    struct cli *c = j->c;
    TRY(model_find(c->model, j->in, sizeof j->in, e));
    if (c->merge_type && !recipe_by_name(c->merge_type))
        return err_set(e, ERR_USAGE, "--type: '%.40s' is unknown: Q4_K_M, Q6_K, Q8_0, F16, ...", c->merge_type);
    if (!c->output) TRY(default_out(j, e));
    else if (snprintf(j->out, sizeof j->out, "%s", c->output) >= (int)sizeof j->out)
        return err_set(e, ERR_USAGE, "%.60s...: the path is too long", c->output);
    TRY(output_apart("-o", j->out, (const char *const[]){ j->in, c->imatrix }, 2, e));
    j->side = *c;
    j->side.model = j->in;
    j->side.ctx = MERGE_CTX;
    j->side.precise = true; /* differences of rounding are what is looked for */
    j->side.kv_type = "f32";
    return take_adapters(j, e);
}

/* ---- the plan ---- */

static void add(void *ctx, int64_t tensor, float *x, int64_t row, int64_t n) { merge_add(ctx, tensor, x, row, n); }

/* Adapters that the base has in it already stay in the list. */
static void note_earlier(struct job *j)
{
    struct str s;
    char now[sizeof j->what];
    if (!gguf_get_str(model_gguf(j->r.model), "merge.adapters", &s, NULL)) return;
    memcpy(now, j->what, sizeof now);
    snprintf(j->what, sizeof j->what, "%.*s, %.200s", (int)min_i64((int64_t)s.n, 180), s.p, now);
}

static status open_plan(struct job *j, struct err *e)
{
    const struct cli *c = j->c;
    struct adapter_use use[ADAPTERS_MAX];
    for (int i = 0; i < j->r.n_lora; i++) {
        char path[PATH_MAX];
        use[i].adapter = j->r.lora[i];
        TRY(adapter_word(j->lora[i], path, sizeof path, &use[i].scale, e));
    }
    TRY(merge_open(&j->merge, j->r.model, use, j->r.n_lora, e));
    note_earlier(j);
    snprintf(j->program, sizeof j->program, "cuanto %s", cuanto_version);
    j->delta = (struct quant_delta){ merge_has(j->merge), add, j->merge, j->what };
    j->o = (struct quant_options){ .type = c->merge_type, .delta = &j->delta, .allow_requantize = true, .n_threads = (int)c->threads, .isa = c->isa,
                                   .program = j->program };
    j->o.spec.bits = 8, j->o.spec.group = 32;
    if (!c->merge_type) {
        int64_t n = model_gguf(j->r.model)->n_tensors;
        if (!(j->chosen = mem_alloc((size_t)n * sizeof *j->chosen))) return err_oom(e, "plan", (size_t)n * sizeof *j->chosen);
        for (int64_t i = 0; i < n; i++) j->chosen[i] = -1;
        j->o.chosen = j->chosen, j->o.recipe = "formats as they were";
    }
    if (c->imatrix) {
        TRY(importance_open(&j->im, c->imatrix, e));
        j->o.importance = &j->im, j->o.importance_name = c->imatrix;
    }
    TRY(quant_plan_open(&j->plan, j->in, &j->o, e));
    quant_plan_totals(j->plan, NULL, j->out, &j->totals);
    return OK;
}

static void tell_plan(const struct job *j)
{
    char from[32], to[32];
    int requantized = 0;
    for (int64_t i = 0; i < quant_plan_n(j->plan); i++) {
        const struct quant_item *it = quant_plan_item(j->plan, i);
        requantized += !it->kept && it->src->type->group_len > 0 && it->to->group_len > 0 && !j->delta.has[i];
    }
    fprintf(stderr, "merge     %s into %lld of %lld tensors, %s -> %s (%s)\n", j->what, (long long)merge_n(j->merge), (long long)quant_plan_n(j->plan),
            size_text(j->totals.bytes_from, from), size_text(j->totals.bytes_to, to), j->c->merge_type ? j->c->merge_type : j->o.recipe);
    if (requantized)
        fprintf(stderr, "warning: tensors without an adapter (%d) are quantized a second time; without --type they stay as they are\n", requantized);
}

/* ---- measuring ---- */

/* Windows spread over cuanto's own text. */
static status open_windows(struct job *j, struct err *e)
{
    struct dataset d;
    struct model_info info;
    int64_t n = max_i64(1, j->c->measure_tokens / MERGE_CTX);
    model_info(j->r.model, &info);
    j->n_vocab = info.n_vocab;
    TRY(dataset_read(&d, dataset_default, model_tokenizer(j->r.model), model_template(j->r.model), NULL, e));
    n = min_i64(n, d.n_ids / MERGE_CTX);
    j->w = (struct windows){ .n_ctx = MERGE_CTX, .n_chunks = n, .first = ppl_first(MERGE_CTX), .n_scored = ppl_scored(MERGE_CTX), .bos = -1 };
    j->w.n_tokens = n * MERGE_CTX;
    size_t bytes, rows = (size_t)(n * j->w.n_scored);
    j->w.tokens = mem_alloc((size_t)max_i64(j->w.n_tokens, 1) * sizeof *j->w.tokens);
    j->kl = mem_calloc(rows + 1, sizeof *j->kl);
    j->ref = mul_size(rows * sizeof(float), (size_t)j->n_vocab, &bytes) ? mem_alloc(bytes) : NULL;
    status st = j->w.tokens && j->kl && j->ref ? OK : err_oom(e, "logits of the reference (--measure-tokens)", rows * sizeof(float) * (size_t)j->n_vocab);
    for (int64_t i = 0; st == OK && i < n; i++)
        memcpy(j->w.tokens + i * MERGE_CTX, d.ids + i * (d.n_ids / n), MERGE_CTX * sizeof *d.ids);
    dataset_close(&d);
    return st;
}

static void keep_row(void *ctx, int64_t chunk, int64_t i, int32_t target, const float *logits)
{
    struct job *j = ctx;
    (void)target;
    memcpy(j->ref + (chunk * j->w.n_scored + i) * j->n_vocab, logits, (size_t)j->n_vocab * sizeof *logits);
}

static void score_row(void *ctx, int64_t chunk, int64_t i, int32_t target, const float *logits)
{
    struct job *j = ctx;
    int64_t at = chunk * j->w.n_scored + i;
    struct kld_ref r = { .logits = j->ref + at * j->n_vocab };
    struct kld_token t;
    kld_ref_logits(j->k, &r, j->n_vocab, target);
    kld_token(j->k, &r, logits, j->n_vocab, target, &t);
    j->kl[at] = t.kld;
}

/* All windows through one model; mean of kl. */
static status read_with(struct job *j, struct runtime *r, score_fn fn, double *kl, struct err *e)
{
    struct reader rd;
    double sum = 0;
    int64_t rows = j->w.n_chunks * j->w.n_scored;
    j->k = engine_kernels(r->engine);
    TRY(reader_open(&rd, r, &j->side, &j->w, 1, e));
    status st = OK;
    for (int64_t i = 0; st == OK && i < j->w.n_chunks; i++) {
        bar_update(&j->bar, i, NULL);
        st = reader_run(&rd, &(struct span){ i, 0, MERGE_CTX - 1, 1 }, fn, j, e);
    }
    reader_close(&rd);
    for (int64_t i = 0; i < rows; i++) sum += j->kl[i];
    if (kl) *kl = sum < 0 ? 0 : sum / (double)max_i64(rows, 1); /* of equal models rounding can leave -1e-9 */
    return st;
}

/* A model without adapters against the reference. */
static status measure(struct job *j, const char *path, double *kl, struct err *e)
{
    struct runtime r;
    struct cli c = j->side;
    c.model = path, c.n_lora = 0, c.quiet = true;
    TRY(runtime_open(&r, &c, MERGE_CTX, e));
    bar_begin(&j->bar, j->c, "measure", "window", j->w.n_chunks);
    status st = read_with(j, &r, score_row, kl, e);
    bar_end(&j->bar);
    runtime_close(&r);
    return st;
}

static status measure_reference(struct job *j, struct err *e)
{
    if (j->c->measure_tokens == 0) return OK;
    TRY(open_windows(j, e));
    bar_begin(&j->bar, j->c, "measure", "window", j->w.n_chunks);
    status st = read_with(j, &j->r, keep_row, NULL, e);
    bar_end(&j->bar);
    return st == OK ? measure(j, j->in, &j->kl_adapter, e) : st;
}

/* ---- the result ---- */

static int worst_first(const void *a, const void *b)
{
    const struct change *x = a, *y = b;
    double p = x->rounding * y->delta, q = y->rounding * x->delta;
    return p > q ? -1 : p < q ? 1 : strcmp(x->it->src->name, y->it->src->name);
}

static status list_changes(struct job *j, struct err *e)
{
    double x2 = 0, d2 = 0, e2 = 0;
    j->change = mem_calloc((size_t)merge_n(j->merge) + 1, sizeof *j->change);
    if (!j->change) return err_oom(e, "report", (size_t)merge_n(j->merge) * sizeof *j->change);
    for (int64_t i = 0; i < quant_plan_n(j->plan); i++) {
        const struct quant_item *it = quant_plan_item(j->plan, i);
        if (!j->delta.has[i]) continue;
        double norm = merge_norm(j->merge, i), size = sqrt(it->stats.x2);
        j->change[j->n_changes++] = (struct change){ it, size > 0 ? norm / size : 0, stats_relative(&it->stats) };
        x2 += it->stats.x2, d2 += norm * norm, e2 += it->stats.e2;
    }
    j->delta_all = x2 > 0 ? sqrt(d2 / x2) : 0;
    j->rounding_all = x2 > 0 ? sqrt(e2 / x2) : 0;
    qsort(j->change, (size_t)j->n_changes, sizeof *j->change, worst_first);
    return OK;
}

static void print_json(const struct job *j)
{
    struct json_out o;
    json_out_init(&o, true);
    json_begin(&o, NULL, '{');
    json_put_cstr(&o, "output", j->c->dry_run ? NULL : j->out);
    json_put_cstr(&o, "adapters", j->what);
    json_put_cstr(&o, "type", j->c->merge_type);
    json_put_i64(&o, "bytes", (int64_t)j->totals.bytes_to);
    json_put_i64(&o, "tensors", quant_plan_n(j->plan));
    json_put_i64(&o, "changed", merge_n(j->merge));
    if (j->change) {
        json_put_f64(&o, "change", j->delta_all);
        json_put_f64(&o, "rounding", j->rounding_all);
        json_put_f64(&o, "kld_merged", j->kl_merged >= 0 ? j->kl_merged : (double)NAN);
        json_put_f64(&o, "kld_adapter", j->kl_adapter >= 0 ? j->kl_adapter : (double)NAN);
        json_put_i64(&o, "measured_tokens", j->w.n_chunks * j->w.n_scored);
    }
    json_begin(&o, "changes", '[');
    for (int64_t i = 0; i < j->n_changes; i++) {
        const struct change *x = &j->change[i];
        json_begin(&o, NULL, '{');
        json_put_cstr(&o, "name", x->it->src->name);
        json_put_cstr(&o, "type", x->it->to->gguf_name);
        json_put_f64(&o, "change", x->delta);
        json_put_f64(&o, "rounding", x->rounding);
        json_end(&o, '}');
    }
    json_end(&o, ']');
    json_end(&o, '}');
    report_out(&o);
}

static void print_row(const char *name, const char *type, double delta, double rounding)
{
    char ratio[32] = "-";
    if (delta > 0) snprintf(ratio, sizeof ratio, "%.2f", rounding / delta);
    out_printf("%-36.60s %-8s %9.3g %% %9.3g %% %10s\n", name, type, 100 * delta, 100 * rounding, ratio);
}

/* What to think of the figures: the loss is judged by what the adapter does to the model. */
static void print_hint(const struct job *j)
{
    double share = j->kl_adapter > 0 ? j->kl_merged / j->kl_adapter : 0;
    if (j->kl_merged < 0) return;
    out_printf("KL divergence from base + adapter beside it, %lld tokens of cuanto's own text: merged file %.4g, base without adapter %.4g\n",
               (long long)(j->w.n_chunks * j->w.n_scored), j->kl_merged, j->kl_adapter);
    if (share > 0.1)
        out_printf("rounding undoes %s of the adapter (%.0f %% of its KL divergence): --lora beside the base does not; merging into the F16 or BF16 model and "
                   "quantizing once, or a larger --type, loses less\n", share > 0.5 ? "most" : "a part", 100 * fmin(share, 9.99));
}

static void print_text(const struct job *j)
{
    int64_t n = j->c->verbose ? j->n_changes : min_i64(j->n_changes, SHOWN);
    out_printf("%-36s %-8s %11s %11s %10s\n", "tensor", "type", "change", "rounding", "ratio");
    for (int64_t i = 0; i < n; i++) print_row(j->change[i].it->src->name, j->change[i].it->to->gguf_name, j->change[i].delta, j->change[i].rounding);
    if (n < j->n_changes) out_printf("... %lld more, less rounded for their change (-v: all)\n", (long long)(j->n_changes - n));
    print_row("all that were changed", "", j->delta_all, j->rounding_all);
    print_hint(j);
}

/* ---- run ---- */

static bool progress(void *ctx, const struct quant_progress *p)
{
    struct job *j = ctx;
    bar_update(&j->bar, (int64_t)(p->bytes_done >> 20), p->item->src->name);
    return !cli_interrupted;
}

static status write_file(struct job *j, struct err *e)
{
    /* parts of an earlier run are of no use: what is done is done in minutes */
    struct quant_run r = { .full_stats = true, .verify = j->c->verify, .overwrite = true, .progress = progress, .ctx = j };
    int64_t total = 0;
    for (int64_t i = 0; i < quant_plan_n(j->plan); i++) total += (int64_t)quant_plan_item(j->plan, i)->bytes_from;
    bar_begin(&j->bar, j->c, "merge", "MiB", total >> 20);
    status st = quant_file(j->plan, j->out, &r, e);
    bar_end(&j->bar);
    return st;
}

static status check_out(const struct job *j, struct err *e)
{
    struct file_facts f;
    if (j->c->overwrite || !file_stat(j->out, &f)) return OK;
    return err_set(e, ERR_USAGE, "%s: exists; --overwrite replaces it", j->out);
}

static status merge_all(struct job *j, struct err *e)
{
    TRY(take_words(j, e));
    if (!j->c->dry_run) TRY(check_out(j, e));
    TRY(runtime_open(&j->r, &j->side, MERGE_CTX, e));
    TRY(open_plan(j, e));
    if (!j->c->quiet) tell_plan(j);
    if (j->c->dry_run) return OK;
    TRY(measure_reference(j, e));
    TRY(write_file(j, e));
    TRY(list_changes(j, e));
    return j->c->measure_tokens ? measure(j, j->out, &j->kl_merged, e) : OK;
}

static int run(struct cli *c)
{
    struct err e = { 0 };
    struct job *j = mem_calloc(1, sizeof *j);
    if (!j) return cli_fail(&e, NULL);
    j->c = c, j->kl_merged = j->kl_adapter = -1;
    cli_signals();
    importance_init(&j->im);
    status st = merge_all(j, &e);
    if (st == OK && c->json) print_json(j);
    else if (st == OK && !c->dry_run) print_text(j);
    if (st == OK && !c->json && !c->quiet && !c->dry_run) fprintf(stderr, "wrote %s\n", j->out);
    bool wants = strstr(e.text, "needs importance") != NULL; /* the plan's words name an option that quantize alone has */
    int code = st == OK ? out_status() : cli_fail(&e, wants ? "merge takes --imatrix only; cuanto importance BASE -f default -o FILE makes one." : NULL);
    quant_plan_close(j->plan);
    merge_close(j->merge);
    importance_close(&j->im);
    windows_close(&j->w);
    runtime_close(&j->r);
    mem_free(j->change), mem_free(j->ref), mem_free(j->kl), mem_free(j->chosen), mem_free(j->lora);
    mem_free(j);
    return code;
}

OPT_GROUP(merge_group, "Merge",
    { "output", "-o --outfile", OPT_STR, OPT_AT(output), .value = "OUT", .help = "the new file (default: BASE-merged.gguf beside the base)" },
    { "type", NULL, OPT_STR, OPT_AT(merge_type), .value = "TYPE",
      .help = "a mix or format for all tensors, as for quantize; without it each keeps its own, where 4 bits can round the change away" },
    { "scale", NULL, OPT_FLOAT, OPT_AT(merge_scale), .value = "S", .def = "1", .lo = -1e6, .hi = 1e6, .help = "multiplies all adapters" },
    { "imatrix", "--importance", OPT_STR, OPT_AT(imatrix), .value = "FILE", .help = "importance of the columns, from cuanto importance or llama-imatrix" },
    { "measure-tokens", NULL, OPT_INT, OPT_AT(measure_tokens), .value = "N", .def = "512", .lo = 0, .hi = 1 << 16,
      .help = "text that merged file and base with adapter are compared on; 0: none" },
    { "verify", NULL, OPT_FLAG, OPT_AT(verify), .help = "read the result back from the disk and check all of it" },
    { "dry-run", NULL, OPT_FLAG, OPT_AT(dry_run), .help = "check everything, write nothing" },
    { "overwrite", "--force", OPT_FLAG, OPT_AT(overwrite), .help = "replace an existing output" },
    { "threads", "-t", OPT_INT, OPT_AT(threads), .value = "N", .lo = 0, .hi = 500, .help = "threads; 0: one per physical core" },
    { "isa", NULL, OPT_STR, OPT_AT(isa), .value = "LEVEL", .help = "strongest instruction set to use" });

static const struct opt_group *const groups[] = { &merge_group, &opts_common, NULL };

const struct command command_merge = {
    .name = "merge",
    .brief = "put LoRA adapters into the weights of a model",
    .usage = "cuanto merge BASE LORA[:SCALE]... [-o OUT] [options]",
    .examples = "cuanto merge model-F16.gguf lora.gguf -o tuned.gguf --type Q4_K_M\n"
                "cuanto merge model-Q4_K_M.gguf lora.gguf:0.8 --type Q8_0\n"
                "cuanto merge model.gguf a.gguf b.gguf:-0.5 --dry-run",
    .groups = groups,
    .min_args = 2,
    .max_args = 1 + ADAPTERS_MAX,
    .run = run,
};
