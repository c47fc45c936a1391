/* quantize - a GGUF file in another format. Shows the plan first, then works with a bar; stops cleanly on a signal and goes on with --resume.
 * The library decides and writes (quant/quant.h); here are words, pictures and exit codes. */
#include <ctype.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include "quant/quant.h"
#include "tools/dataset.h"
#include "tools/explain.h"
#include "tools/opt.h"
#include "tools/quant_allocate.h"
#include "tools/quant_fold.h"
#include "tools/quant_plan.h"
#include "tools/quant_report.h"
#include "tools/quant_solve.h"
#include "tools/report.h"
#include "tools/sha256.h"
#include "tools/solve_experts.h"

struct job {
    struct cli *c;
    char in[PATH_MAX], out[PATH_MAX], program[32];
    const char *type;              /* NULL with a method that chooses it */
    struct quant_options o;
    struct importance im;
    struct calibration calibration;  /* of --calibration */
    struct quant_solve solve;
    struct quant_allocation allocation; /* of --bpw and the like */
    bool solves, calibrated;       /* --method gptq; the importance is there */
    bool folds;                    /* --method awq */
    struct model *model;           /* that the folds are of, unless it is the calibration's */
    struct quant_fold fold;
    char solver[96];
    struct plan_view v;
    struct bar bar;
    bool told_before, sampled;     /* sampled: errors are those of some rows of each chunk */
    double start, solved_at, seconds, error; /* solved_at: when the solver had ended, 0 without one */
    size_t bytes_made;             /* of the input, by this run: an earlier one may have done the rest */
    char (*sha)[65];               /* [n_files], NULL: not asked for */
};

static bool to_stderr(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    return true;
}

/* ---- words ---- */

/* "500M", "2G" (powers of 1000, as llama-gguf-split), or bytes. */
static status parse_size(const char *text, int64_t *out, struct err *e)
{
    static const struct { char unit; double factor; } units[] = { { 'K', 1e3 }, { 'M', 1e6 }, { 'G', 1e9 }, { 'T', 1e12 } };
    char *end;
    double v = strtod(text, &end);
    for (int i = 0; i < ARRAY_LEN(units); i++)
        if (end > text && (*end & ~0x20) == units[i].unit) {
            v *= units[i].factor;
            end++;
            break;
        }
    if (end == text || *end || !(v >= 1e4) || v > 9e18) return err_set(e, ERR_USAGE, "--split-size: '%.30s' is no size such as 2G or 500M", text);
    *out = (int64_t)v;
    return OK;
}

static status parse_granularity(const char *text, struct quant_spec *s, struct err *e)
{
    char *end;
    if (!strcmp(text, "tensor")) s->granularity = PER_TENSOR;
    else if (!strcmp(text, "row")) s->granularity = PER_ROW;
    else if (!strncmp(text, "group:", 6)) {
        s->granularity = PER_GROUP;
        s->group = strtoll(text + 6, &end, 10);
        if (end == text + 6 || *end || s->group < 32 || s->group % 32)
            return err_set(e, ERR_USAGE, "--granularity: '%.30s': the group is a multiple of 32", text);
    } else {
        return err_set(e, ERR_USAGE, "--granularity: '%.30s' is none of tensor, row, group:N", text);
    }
    return OK;
}

static bool chooses_type(const struct quant_spec *s) { return s->method && !s->method->takes_type; }

static status parse_method(const struct cli *c, struct quant_spec *s, struct err *e)
{
    *s = (struct quant_spec){ .bits = (int)c->bits, .group = 32 };
    const char *name = c->compat ? quantizer_compat.name : c->method;
    if (c->compat && c->method && strcmp(c->method, quantizers[0]->name) && strcmp(c->method, name))
        return err_set(e, ERR_USAGE, "--compat is --method %s, and --method %.30s is given too", name, c->method);
    if (name && !(s->method = quantizer_by_name(name))) return err_set(e, ERR_USAGE, "--method: '%.30s' is unknown", name);
    if (s->method == quantizers[0]) s->method = NULL;
    if (!chooses_type(s)) {
        if (!c->granularity && c->bits == 8) return OK;
        return err_set(e, ERR_USAGE, "%s: only with --method absmax or zero-point", c->granularity ? "--granularity" : "--bits");
    }
    return parse_granularity(c->granularity ? c->granularity : "group:32", s, e);
}

/* "6", or "off" */
static status parse_outliers(const char *text, struct quant_options *o, struct err *e)
{
    char *end;
    o->keep_outliers = strcmp(text, "off") != 0;
    if (!o->keep_outliers) return OK;
    o->outlier_threshold = strtof(text, &end);
    if (end != text && !*end && o->outlier_threshold > 1) return OK;
    return err_set(e, ERR_USAGE, "--keep-outliers: '%.30s' is no threshold above 1 (times the middle column)", text);
}

/* Characters of "-00001-of-00003" at the end of the first n; 0 when there are none. */
static size_t split_suffix(const char *s, size_t n)
{
    static const char form[] = "-00000-of-00000";
    size_t m = sizeof form - 1;
    if (n <= m || s[n - m - 1] == '/') return 0;
    for (size_t i = 0; i < m; i++)
        if (form[i] == '0' ? !isdigit((unsigned char)s[n - m + i]) : s[n - m + i] != form[i]) return 0;
    return m;
}

/* "dir/model-F16.gguf" and Q4_K_M: "dir/model-Q4_K_M.gguf"; so does "dir/model-F16-00001-of-00003.gguf" */
static status default_out(struct job *j, struct err *e)
{
    static const char *const ends[] = { ".gguf", "-f16", "-f32", "-bf16", ".f16", ".f32", ".bf16" };
    size_t n = strlen(j->in);
    char label[64];
    for (int i = 0; i < ARRAY_LEN(ends); i++) {
        size_t m = strlen(ends[i]);
        if (n > m && j->in[n - m - 1] != '/' && !strncasecmp(j->in + n - m, ends[i], m)) n -= m;
        if (i == 0) n -= split_suffix(j->in, n);
    }
    const struct recipe *r = j->type ? recipe_by_name(j->type) : NULL;
    if (j->type) snprintf(label, sizeof label, "%.60s", r ? r->name : j->type);
    else if (allocates(j->c)) snprintf(label, sizeof label, "%s", j->allocation.label);
    else snprintf(label, sizeof label, "%.40s-%d", j->c->method, (int)j->c->bits);
    if (snprintf(j->out, sizeof j->out, "%.*s-%s.gguf", (int)n, j->in, label) < (int)sizeof j->out) return OK;
    return err_set(e, ERR_USAGE, "%.60s...: the path is too long", j->in);
}

/* Words in another order than IN [OUT] TYPE, or too few: what is expected, with the words that are there. */
static status bad_words(const struct job *j, struct err *e)
{
    static const char form[] = "cuanto quantize IN [OUT] TYPE";
    const struct cli *c = j->c;
    const char *names[64], *best, *end = strrchr(j->type, '.');
    int count = 0;
    if (c->explain) return err_set(e, ERR_USAGE, "'%.40s' is no type; an expression goes behind =: --explain=%.40s", j->type, j->type);
    if (c->n_args > 1 && recipe_by_name(c->args[0]))
        return err_set(e, ERR_USAGE, "the type comes last: %s, here IN %.60s %.40s", form, j->type, c->args[0]);
    if (strchr(j->type, '/') || (end && !strcasecmp(end, ".gguf")))
        return err_set(e, ERR_USAGE, "'%.60s' is no type, and the last word must be one: %s, such as Q4_K_M", j->type, form);
    for (int i = 0; i < recipe_count && count < ARRAY_LEN(names); i++) names[count++] = recipes[i].name;
    best = nearest(j->type, names, count);
    return err_set(e, ERR_USAGE, best ? "unknown type '%.40s'; did you mean %s?" : "unknown type '%.40s'; cuanto help quantize lists them", j->type, best);
}

static status take_words(struct job *j, struct err *e)
{
    const struct cli *c = j->c;
    TRY(parse_method(c, &j->o.spec, e));
    if (allocates(c)) TRY(allocation_begin(&j->allocation, c, &j->o, e));
    int n = c->n_args;
    if (!chooses_type(&j->o.spec) && !allocates(c) && !(c->explain && n == 0)) {
        if (n == 0) return err_set(e, ERR_USAGE, "what type? cuanto quantize IN [OUT] TYPE, such as Q4_K_M; cuanto help quantize lists them");
        j->type = c->args[--n];
        if (!recipe_by_name(j->type)) return bad_words(j, e);
    }
    for (int i = 0; chooses_type(&j->o.spec) && i < n; i++)
        if (recipe_by_name(c->args[i]))
            return err_set(e, ERR_USAGE, "--method %s chooses the format itself and takes no TYPE: leave out %.40s", j->o.spec.method->name, c->args[i]);
    for (int i = 0; allocates(c) && i < n; i++)
        if (recipe_by_name(c->args[i]))
            return err_set(e, ERR_USAGE, "%s: each tensor gets its own type: leave out %.40s", j->allocation.recipe, c->args[i]);
    if (c->output && n > 0) return err_set(e, ERR_USAGE, "-o %.60s: the output is given twice, '%.60s' too", c->output, c->args[n - 1]);
    if (n > 1) return err_set(e, ERR_USAGE, "'%.60s': one word too many: cuanto quantize IN [OUT] TYPE", c->args[n - 1]);
    TRY(model_find(c->model, j->in, sizeof j->in, e));
    const char *out = n > 0 ? c->args[0] : c->output;
    if (!out || !*out) return default_out(j, e);
    if (snprintf(j->out, sizeof j->out, "%s", out) < (int)sizeof j->out) return OK;
    return err_set(e, ERR_USAGE, "%.60s...: the path is too long", out);
}

/* Which text the model reads: none, the one asked for, or for a solver that needs one and was given none, the one inside the binary. */
static status choose_calibration(struct job *j, struct err *e)
{
    struct cli *c = j->c;
    const struct quantizer *m = j->o.spec.method;
    bool solves = m == &quantizer_gptq && !c->explain, needs = solves || (m == &quantizer_awq && !c->imatrix && !c->explain);
    if (solves && c->imatrix) return err_set(e, ERR_USAGE, "--imatrix: --method gptq takes the importance from the text that it calibrates with: leave it out");
    if (c->calibration && c->imatrix) return err_set(e, ERR_USAGE, "--imatrix and --calibration: one of them, both say which columns matter");
    if (c->calibration && m && !m->takes_type) return err_set(e, ERR_USAGE, "--calibration: --method %s looks at no text", m->name);
    if (needs && !c->calibration) {
        c->calibration = dataset_default;
        if (!c->quiet)
            fprintf(stderr, "no --calibration FILE: the model reads cuanto's own text (prose, code, languages, conversations)\n");
    }
    if (c->calibration_tokens > 0 && !c->calibration && !c->explain)
        return err_set(e, ERR_USAGE, "--calibration-tokens: of which text? --calibration FILE, or --calibration %s", dataset_default);
    return OK;
}

static status choose_fold(struct job *j, struct err *e)
{
    const struct cli *c = j->c;
    const struct quantizer *m = j->o.spec.method;
    bool can = m == &quantizer_awq || m == &quantizer_gptq, on = c->fold && !strcmp(c->fold, "on");
    if (on && !can) return err_set(e, ERR_USAGE, "--fold on: with --method awq or gptq only");
    j->folds = j->o.folded = can && !c->explain && (on || !c->fold);
    if (!j->folds || !j->o.keep_outliers) return OK;
    return err_set(e, ERR_USAGE, "--keep-outliers: not where columns are scaled, as --method %s does: --fold off", m->name);
}

/* What would change nothing here. Rows that other commands have too may come from the environment. */
static status refuse_idle(const struct cli *c, const struct quant_spec *spec, struct err *e)
{
    static const char budget[] = "only with --bpw, --size, --fit or --max-kld";
    bool allocating = allocates(c);
    const struct { const char *name; bool idle; const char *goes_with; } rows[] = {
        { "measure", c->measure && !allocating, budget },
        { "measure-tokens", c->measure_tokens > 0 && !allocating, budget },
        { "measure-tokens", c->measure_tokens > 0 && !c->calibration && spec->method != &quantizer_gptq && spec->method != &quantizer_awq,
          "of which text? --calibration FILE, or --calibration default" },
        { "allow-types", c->allow_types && !allocating, budget },
        { "calibration", c->calibration && c->explain, "not with --explain, for which no model runs: --imatrix FILE" },
        { "plain-targets", c->plain_targets && spec->method != &quantizer_gptq, "only with --method gptq" },
    };
    for (int i = 0; i < ARRAY_LEN(rows); i++)
        if (rows[i].idle) return err_set(e, ERR_USAGE, "--%s: %s", rows[i].name, rows[i].goes_with);
    return OK;
}

static status take_options(struct job *j, struct err *e)
{
    const struct cli *c = j->c;
    struct quant_options *o = &j->o;
    snprintf(j->program, sizeof j->program, "cuanto %s", cuanto_version);
    o->type = j->type;
    o->program = j->program;
    o->rules = c->rule, o->n_rules = c->n_rule;
    o->output_type = c->output_type, o->embd_type = c->embd_type;
    o->pure = c->pure;
    o->allow_requantize = c->allow_requantize;
    o->n_threads = (int)c->threads;
    o->isa = c->isa;
    o->sizes_only = c->dry_run || c->explain;
    if (c->explain) o->allow_requantize = true;
    if (o->spec.method == &quantizer_compat && (c->explain || c->keep_outliers))
        return err_set(e, ERR_USAGE, "--%s: not with --method %s, which does what llama-quantize does", c->explain ? "explain" : "keep-outliers",
                       o->spec.method->name);
    if (c->keep_outliers) TRY(parse_outliers(c->keep_outliers, o, e));
    TRY(choose_fold(j, e));
    TRY(refuse_idle(c, &o->spec, e));
    const char *const others[] = { c->imatrix, c->calibration, c->measure, j->in, j->out };
    TRY(output_apart("output", j->out, others, 3, e)); /* the library sees to the input */
    TRY(output_apart("--report", c->report, others, ARRAY_LEN(others), e));
    if (c->report) TRY(quant_report_check(c->report, e));
    if (c->split_size) TRY(parse_size(c->split_size, &o->split_bytes, e));
    TRY(choose_calibration(j, e));
    if (!c->imatrix) return OK;
    TRY(importance_open(&j->im, c->imatrix, e));
    o->importance = &j->im;
    o->importance_name = c->imatrix;
    return OK;
}

/* The calibration text is read and cut into windows, for a plan that knows what there will be; the model reads nothing yet. */
static status open_calibration(struct job *j, struct err *e)
{
    const struct cli *c = j->c;
    if (!c->calibration || c->explain) return OK;
    TRY(calibration_open(&j->calibration, c, j->in, e));
    TRY(calibration_outline(&j->calibration, j->o.spec.method == &quantizer_gptq, &j->im, e));
    j->v.calibration = &j->calibration;
    j->o.importance = &j->im;
    j->o.importance_name = c->calibration;
    j->solves = j->o.spec.method == &quantizer_gptq;
    snprintf(j->solver, sizeof j->solver, "%lld tokens in %lld windows, %lld held out (%016llx)%s", (long long)j->calibration.n_rows,
             (long long)j->calibration.n_windows, (long long)calibration_n_held_out(&j->calibration), (unsigned long long)j->calibration.hash,
             j->solves && c->plain_targets ? ", plain targets" : "");
    *(j->solves ? &j->o.solver : &j->o.calibration) = j->solver;
    return OK;
}

/* Work that cannot change a tensor is not begun: it takes minutes to hours. */
static status check_gain(const struct job *j, struct err *e)
{
    const char *method = j->o.spec.method ? j->o.spec.method->name : NULL;
    int made = 0, solved = 0;
    for (int64_t i = 0; i < quant_plan_n(j->v.plan); i++) {
        const struct quant_item *it = quant_plan_item(j->v.plan, i);
        made += !it->kept;
        solved += quant_solve_takes(it) || solve_experts_takes(it);
    }
    if ((j->solves || j->folds) && made == 0)
        return err_set(e, ERR_USAGE, "%.200s: all tensors have their formats already, --method %s could change none: begin with the original (F16, BF16, F32)",
                       j->in, method);
    if (j->solves && solved == 0 && !allocates(j->c)) /* the choice has taken its time: searched then */
        return err_set(e, ERR_USAGE, "--method %s: no tensor gets a format that is solved for, those of less than 8 bits: leave the method out", method);
    return OK;
}

/* The model reads the windows: what its columns meet is their importance. Nothing is kept, a signal may end it at once. */
static status calibrate(struct job *j, struct err *e)
{
    if (!j->calibration.model || j->calibrated) return OK;
    bool before = cli_signals_at_once(true);
    status st = calibration_importance(&j->calibration, j->c, j->solves, &j->im, e);
    cli_signals_at_once(before);
    j->calibrated = true;
    return st;
}

/* Columns are scaled: the factors depend on importance and types. */
static status fold_weights(struct job *j, struct err *e)
{
    const struct model_options mo = { .n_ctx = 0 };
    struct model *m = j->calibration.model;
    if (!j->folds) return OK;
    if (!m) TRY(model_open(&j->model, j->in, &mo, e));
    TRY(quant_fold_open(&j->fold, j->c, m ? m : j->model, j->v.plan, &j->im, e));
    if (!j->c->quiet && j->fold.n_groups > 0)
        fprintf(stderr, "scaled    columns of %d groups of %d, error %.2f of that without (geometric mean)\n", j->fold.n_folded, j->fold.n_groups,
                j->fold.gain);
    return quant_plan_set_scales(j->v.plan, j->fold.scale, j->fold.n, e);
}

/* ---- while it runs ---- */

static void tell_item(struct job *j, const struct quant_progress *p)
{
    const struct quant_item *it = p->item;
    char shape[64], relative[32];
    bar_end(&j->bar);
    fprintf(stderr, "[%4lld/%lld] %-32s %-16s %s", (long long)p->i + 1, (long long)p->n, it->src->name, tensor_shape_text(it->src, shape),
            it->src->type->gguf_name);
    if (it->kept) fprintf(stderr, "  %s\n", it->why);
    else
        fprintf(stderr, " -> %-8s rmse %.3g  relative %s  cosine %.6f  max %.3g  outliers %lld\n", it->to->gguf_name, stats_rmse(&it->stats),
                error_text(stats_relative(&it->stats), false, relative), stats_cosine(&it->stats), (double)it->stats.max_err, (long long)it->stats.outliers);
}

static bool progress(void *ctx, const struct quant_progress *p)
{
    struct job *j = ctx;
    char extra[120], error[32];
    if (!j->told_before && j->solves) { /* the solver had its own bar, and its time tells nothing about what is left */
        j->solved_at = now_seconds();
        bar_begin(&j->bar, j->c, "quantize", "MiB", j->bar.total);
    } else if (!j->told_before && p->bytes_before > 0 && !j->c->quiet)
        fprintf(stderr, "continuing: %d %% was done\n", (int)((double)p->bytes_before * 100 / (double)p->bytes_total));
    j->told_before = true;
    if (p->finished && j->c->verbose && !j->c->quiet && !p->verifying) tell_item(j, p);
    if (p->verifying && strcmp(j->bar.label, "verify")) {
        bar_end(&j->bar);
        bar_begin(&j->bar, j->c, "verify", "MiB", (int64_t)(p->bytes_total >> 20));
    }
    if (p->rel_error > 0) snprintf(extra, sizeof extra, "error %s  %.60s", error_text(p->rel_error, j->sampled && !p->verifying, error), p->item->src->name);
    else snprintf(extra, sizeof extra, "%.60s", p->item->src->name); /* no tensor has ended yet */
    j->bar.before = (int64_t)(p->bytes_found >> 20);
    if (!p->verifying) j->bytes_made = p->bytes_done - p->bytes_found;
    bar_update(&j->bar, (int64_t)(p->bytes_done >> 20), extra);
    j->error = p->rel_error;
    return !cli_interrupted;
}

static struct quant_run how_to_run(struct job *j)
{
    const struct cli *c = j->c;
    return (struct quant_run){ .resume = c->resume, .overwrite = c->overwrite, .verify = c->verify, .full_stats = c->verbose || c->json || c->report,
                               .progress = progress, .ctx = j };
}

static status run_job(struct job *j, struct err *e)
{
    const struct cli *c = j->c;
    struct quant_run r = how_to_run(j);
    int64_t total = 0;
    if (j->solves) {
        if (c->resume && !c->quiet && quant_resumable(j->v.plan, j->out)) fprintf(stderr, "continuing: tensors that were solved are taken over\n");
        j->solve = (struct quant_solve){ .c = c, .k = &j->calibration, .plan = j->v.plan, .fold = j->folds ? &j->fold : NULL,
                                         .correct = c->plain_targets ? 0.0f : METRIC_AIM_STRENGTH };
        r.solve = quant_solve_run, r.solve_ctx = &j->solve;
    }
    j->sampled = !r.full_stats;
    for (int64_t i = 0; i < quant_plan_n(j->v.plan); i++) total += (int64_t)quant_plan_item(j->v.plan, i)->bytes_from;
    bar_begin(&j->bar, c, "quantize", "MiB", total >> 20);
    j->start = now_seconds();
    status st = quant_file(j->v.plan, j->out, &r, e);
    j->seconds = now_seconds() - j->start;
    j->sampled &= !r.verify; /* it looks at every row */
    bar_end(&j->bar);
    return st;
}

static status sum_files(struct job *j, struct err *e)
{
    char path[PATH_MAX];
    int n = j->v.totals.n_files;
    if (!j->c->sha256) return OK;
    if (!(j->sha = mem_calloc((size_t)n, sizeof *j->sha))) return err_oom(e, "--sha256", (size_t)n * sizeof *j->sha);
    for (int i = 0; i < n; i++) {
        if (!quant_out_name(j->v.plan, j->out, i, path, sizeof path)) return err_set(e, ERR_USAGE, "%.60s...: the path is too long", j->out);
        TRY(sha256_file(path, j->sha[i], e));
    }
    return OK;
}

/* ---- results ---- */

static bool print_json(const struct job *j, bool done)
{
    struct json_out o;
    json_out_init(&o, true);
    json_begin(&o, NULL, '{');
    plan_json(&j->v, &o);
    if (allocates(j->c)) json_put_f64(&o, "kld_predicted", j->allocation.predicted);
    if (allocates(j->c)) json_put_f64(&o, "kld_measured", j->allocation.measured);
    if (done) {
        json_put_f64(&o, "seconds", j->seconds);
        json_put_f64(&o, "weighted_relative_error", j->error);
        json_put_bool(&o, "sampled", j->sampled);
        if (j->sha && j->v.totals.n_files == 1) json_put_cstr(&o, "sha256", j->sha[0]);
        else if (j->sha) {
            json_begin(&o, "sha256", '[');
            for (int i = 0; i < j->v.totals.n_files; i++) json_put_cstr(&o, NULL, j->sha[i]);
            json_end(&o, ']');
        }
    }
    json_end(&o, '}');
    return report_out(&o);
}

/* Those of earlier runs too. */
static void tell_solved(const struct job *j)
{
    int n = 0, better = 0;
    for (int64_t i = 0; i < quant_plan_n(j->v.plan); i++) {
        const double *h = quant_plan_item(j->v.plan, i)->solved.held_out;
        n += h[0] > 0, better += h[1] < h[0];
    }
    if (n > 0)
        fprintf(stderr, "solved: better than the search for %d of %d tensors; error on text that was not solved for %.3f of the search's\n", better, n,
                quant_held_out(j->v.plan));
}

static void print_end(const struct job *j)
{
    char size[32], time[32], error[32], path[PATH_MAX];
    const struct quant_totals *t = &j->v.totals;
    for (int i = 0; j->sha && !j->c->json && i < t->n_files; i++)
        if (quant_out_name(j->v.plan, j->out, i, path, sizeof path)) out_printf("%s  %s\n", j->sha[i], path);
    if (j->c->quiet || !quant_out_name(j->v.plan, j->out, 0, path, sizeof path)) return;
    tell_solved(j);
    fprintf(stderr, "%s%s: %s, %.2f bits per weight, weighted relative error %s, %s", path, t->n_files > 1 ? " and more" : "",
            size_text(t->bytes_to, size), t->bpw_to, error_text(j->error, j->sampled, error), duration_text(j->seconds, time));
    if (j->solves) fprintf(stderr, ", %s of it to solve", duration_text(fmax(j->solved_at - j->start, 0), time));
    else fprintf(stderr, ", %.0f MiB/s", (double)j->bytes_made / (1 << 20) / fmax(j->seconds, 1e-9));
    fputs(j->c->verify ? ", verified\n" : "\n", stderr);
    if (allocates(j->c) && j->allocation.held && !j->allocation.tried)
        fprintf(stderr, "KL divergence from the original %.4g on %lld held-out tokens, %.4g predicted\n", j->allocation.measured,
                (long long)(j->allocation.n_windows * j->allocation.n_ctx), j->allocation.predicted);
}

/* What to type next. */
static const char *hint_for(const struct job *j, const struct err *e, char *buf, size_t cap)
{
    if (!j->v.plan || e->code == ERR_USAGE || !quant_resumable(j->v.plan, j->out)) return NULL;
    snprintf(buf, cap, "what was done is kept beside %.200s; the same command with --resume goes on from there", j->out);
    return buf;
}

static int end(struct job *j, status st, const struct err *e)
{
    char hint[320];
    const char *next = st == OK ? NULL : hint_for(j, e, hint, sizeof hint);
    if (st == ERR_INTERRUPTED) fprintf(stderr, "interrupted%s%s\n", next ? "; " : "", next ? next : "");
    int code = st == OK ? OK : cli_fail(e, next);
    quant_plan_close(j->v.plan);
    quant_fold_close(&j->fold);
    model_close(j->model);
    calibration_close(&j->calibration);
    allocation_close(&j->allocation);
    mem_free(j->sha);
    importance_close(&j->im);
    return st == OK ? out_status() : code;
}

static void fill_view(struct job *j)
{
    const struct cli *c = j->c;
    j->v.in = j->in, j->v.out = j->out;
    j->v.room = file_room(j->out);
    struct quant_run r = how_to_run(j);
    quant_plan_totals(j->v.plan, c->dry_run || !c->quiet ? &r : NULL, j->out, &j->v.totals);
    uint64_t weights = 0;
    for (int64_t i = 0; i < quant_plan_n(j->v.plan); i++) weights += quant_plan_item(j->v.plan, i)->bytes_to;
    struct err ignored = { 0 };
    if (j->calibration.model && (c->dry_run || !c->quiet)) { /* what it does not know, the plan says */
        struct bar bar;
        bar_begin(&bar, c, "measure", "part", 1);
        bar_update(&bar, 0, NULL);
        (void)!quant_predict(&j->calibration, j->v.plan, j->solves, !c->plain_targets, c->isa, &j->v.cost, &ignored);
        bar_end(&bar);
        size_t measured = j->calibration.x_bytes + 2 * layers_bytes(j->calibration.layers) + j->allocation.bytes; /* before the solver begins */
        if (allocates(c) && measured > j->v.cost.bytes) j->v.cost.bytes = measured;
    }
    if (c->dry_run || c->json || !c->quiet) run_memory(&j->v.run, quant_plan_gguf(j->v.plan), j->in, weights);
}

static void show_plan(const struct job *j, print_fn put)
{
    plan_print(&j->v, put);
    if (allocates(j->c)) allocation_print(&j->allocation, j->v.calibration ? j->v.cost.calibrate : 0, put);
}

/* Shows tensors and writes nothing. Without a type there is no plan: then the techniques alone are shown. */
static status explain(struct job *j, struct err *e)
{
    struct gguf g;
    if (j->v.plan) return explain_tensors(quant_plan_gguf(j->v.plan), j->v.plan, j->c->explain, &j->o, e);
    TRY(gguf_open(&g, j->in, true, e));
    status st = explain_tensors(&g, NULL, j->c->explain, &j->o, e);
    gguf_close(&g);
    return st;
}

static status reads(void *ctx, struct err *e) { return calibrate(ctx, e); }

/* A type for each tensor, in place of the mix. */
static status allocate(struct job *j, struct err *e)
{
    const struct quant_run r = how_to_run(j);
    const struct allocation_job a = { .c = j->c, .in = j->in, .out = j->out, .o = &j->o, .k = j->calibration.model ? &j->calibration : NULL, .run = &r,
                                      .look = j->c->dry_run, .calibrate = reads, .ctx = j };
    return allocation_make(&j->allocation, &a, e);
}

static status check_allocation(struct job *j, struct err *e)
{
    char path[PATH_MAX];
    if (!quant_out_name(j->v.plan, j->out, 0, path, sizeof path)) return err_set(e, ERR_USAGE, "%.60s...: the path is too long", j->out);
    return allocation_check(&j->allocation, j->c, j->in, path, e);
}

static int run(struct cli *c)
{
    struct job j = { .c = c };
    struct err e = { 0 };
    importance_init(&j.im);
    bool before = cli_signals_at_once(true); /* nothing is kept before the work begins */
    status st = take_words(&j, &e);
    if (st == OK) st = take_options(&j, &e);
    if (st == OK) st = open_calibration(&j, &e);
    if (st == OK && c->keep_outliers && !c->dry_run) st = calibrate(&j, &e); /* the plan looks at the columns */
    if (st == OK && allocates(c)) st = allocate(&j, &e);
    if (st == OK && (j.type || j.o.spec.method || j.o.chosen)) st = quant_plan_open(&j.v.plan, j.in, &j.o, &e);
    if (st == OK && j.v.plan) st = check_gain(&j, &e);
    if (st == OK && c->explain) return end(&j, explain(&j, &e), &e);
    if (st == OK) fill_view(&j);
    cli_signals_at_once(before);
    if (st != OK) return end(&j, st, &e);
    if (c->dry_run) {
        if (c->report) st = quant_plan_sample(j.v.plan, &e); /* of --calibration all columns count alike: nothing was read */
        if (st == OK && c->report) st = quant_report_write(c->report, j.v.plan, &j.v.totals, j.in, j.out, &e);
        if (st != OK) return end(&j, st, &e);
        if (c->json) print_json(&j, false);
        else show_plan(&j, out_printf);
        return end(&j, st, &e);
    }
    if (!c->quiet) show_plan(&j, to_stderr);
    struct quant_run r = how_to_run(&j);
    st = quant_out_check(j.v.plan, j.out, &r, &e);
    if (st == OK) st = calibrate(&j, &e);
    if (st == OK) st = fold_weights(&j, &e);
    if (st == OK && !j.solves) calibration_close(&j.calibration);
    if (st == OK) st = run_job(&j, &e);
    if (st == OK && allocates(c)) st = check_allocation(&j, &e);
    if (st == OK) st = sum_files(&j, &e);
    if (st == OK) print_end(&j);
    if (st == OK && c->report) st = quant_report_write(c->report, j.v.plan, &j.v.totals, j.in, j.out, &e);
    if (st == OK && c->json && !print_json(&j, true) && out_status() == 0) st = err_oom(&e, "report", 0);
    return end(&j, st, &e);
}

static void list_choices(void)
{
    out_printf("\nMethods:\n");
    for (int i = 0; quantizers[i]; i++) out_printf("  %-30s %s\n", quantizers[i]->name, quantizers[i]->brief);
    out_printf("\nTypes:\n");
    for (int i = 0; i < recipe_count; i++)
        out_printf("  %-30s %s%s\n", recipes[i].name, recipes[i].brief, recipes[i].needs_importance ? "; needs --calibration or --imatrix" : "");
}

OPT_GROUP(quantize_group, "Quantize",
    { "imatrix", "--importance", OPT_STR, OPT_AT(imatrix), .value = "FILE",
      .help = "importance of the columns, from cuanto importance or llama-imatrix" },
    { "bpw", NULL, OPT_FLOAT, OPT_AT(bpw), .value = "N", .hi = 32, .help = "in place of TYPE: a format for each tensor so that the mean is N bits per weight" },
    { "size", NULL, OPT_STR, OPT_AT(size), .value = "SIZE", .help = "the same for a file of at most SIZE: 3.5G, 800M, 3.5GiB" },
    { "fit", NULL, OPT_STR, OPT_AT(fit), .value = "SIZE", .help = "the same for a model that runs in SIZE of memory with --ctx: 8G" },
    { "max-kld", NULL, OPT_FLOAT, OPT_AT(max_kld), .value = "X", .hi = 100, .help = "the smallest file whose KL divergence from the original is about X" },
    { "measure", NULL, OPT_STR, OPT_AT(measure), .value = "FILE",
      .help = "keep what these four measure in FILE, or take it from there: other budgets need no second measurement" },
    { "measure-tokens", NULL, OPT_INT, OPT_AT(measure_tokens), .value = "N", .lo = 0, .hi = 1 << 20,
      .help = "of the calibration text that they measure on; 0: 512 to 2048 by the size of the model" },
    { "allow-types", NULL, OPT_STR, OPT_AT(allow_types), .value = "LIST", .help = "formats that they choose from: q4_k,q5_k,q6_k,q8_0; default: all" },
    { "ctx", "-c --ctx-size", OPT_INT, OPT_AT(ctx), .value = "N", .hi = 16777216, .help = "context for --fit; 0: the training length, at most 4096" },
    { "type", "--tensor-type", OPT_LIST, OPT_AT(rule), OPT_AT(n_rule), 64, .value = "REGEX=TYPE",
      .help = "format for the tensors whose names match, or keep; repeatable, the first match wins" },
    { "output-type", "--output-tensor-type", OPT_STR, OPT_AT(output_type), .value = "TYPE", .help = "format of the head, or keep" },
    { "embd-type", "--token-embedding-type", OPT_STR, OPT_AT(embd_type), .value = "TYPE", .help = "format of the token embeddings, or keep" },
    { "pure", NULL, OPT_FLAG, OPT_AT(pure), .help = "one format for all tensors instead of the mix" },
    { "allow-requantize", NULL, OPT_FLAG, OPT_AT(allow_requantize), .help = "take tensors that are quantized already; loses quality" },
    { "method", NULL, OPT_STR, OPT_AT(method), .value = "NAME", .def = "search", .choices = "search|awq|gptq|compat|absmax|zero-point",
      .help = "how codes and scales are found; awq scales columns first, gptq solves for a text; absmax and zero-point choose the format, no TYPE then" },
    { "fold", NULL, OPT_STR, OPT_AT(fold), .value = "WHEN", .choices = "on|off",
      .help = "scale columns up that large inputs meet, and what makes these inputs down; on for awq, and for gptq with blocks of 32 or 64" },
    { "compat", NULL, OPT_FLAG, OPT_AT(compat), .help = "--method compat: the same bytes as llama-quantize, to compare with; slower, less exact" },
    { "calibration", NULL, OPT_STR, OPT_AT(calibration), .value = "FILE",
      .help = "what the model reads first, in place of --imatrix: text, or JSON lines with messages, text, or prompt and completion; the word default: "
              "cuanto's own text" },
    { "calibration-tokens", NULL, OPT_INT, OPT_AT(calibration_tokens), .value = "N", .lo = 2048, .hi = 1e9,
      .help = "of it, windows of 512 spread evenly over the text (65536)" },
    ROW_TEMPLATE,
    { "plain-targets", NULL, OPT_FLAG, OPT_AT(plain_targets),
      .help = "gptq: solve for the weights as they are, not for what takes back errors of the layers before; faster, less exact" },
    { "granularity", NULL, OPT_STR, OPT_AT(granularity), .value = "WHAT", .help = "absmax, zero-point: one scale per tensor, row or group:N (32)" },
    { "bits", NULL, OPT_INT, OPT_AT(bits), .value = "N", .def = "8", .lo = 4, .hi = 8,
      .help = "absmax, zero-point: 8 or 4; zero-point with 8 becomes F32 values, a larger file" },
    { "explain", NULL, OPT_STR, OPT_AT(explain), .value = "REGEX", .implied = "",
      .help = "show what each technique does to the tensors whose names match (default: the middle layer); writes nothing" },
    { "report", NULL, OPT_STR, OPT_AT(report), .value = "FILE",
      .help = "which tensors hurt and what to change: .html, .json, .csv or .md; with --dry-run from a sample" },
    { "keep-outliers", NULL, OPT_STR, OPT_AT(keep_outliers), .value = "T", .implied = "6",
      .help = "LLM.int8(): columns T times as large as the middle one stay F16 beside the matrix; cuanto only" },
    { "output", "-o --outfile", OPT_STR, OPT_AT(output), .value = "OUT", .help = "the new file, in place of the word OUT" },
    { "dry-run", NULL, OPT_FLAG, OPT_AT(dry_run), .help = "print the plan on stdout, write nothing" },
    { "resume", NULL, OPT_FLAG, OPT_AT(resume), .help = "continue what an interrupted run left" },
    { "overwrite", "--force", OPT_FLAG, OPT_AT(overwrite), .help = "replace an existing output, or what an interrupted run left" },
    { "verify", NULL, OPT_FLAG, OPT_AT(verify), .help = "read the result back from the disk and check all of it" },
    { "split-size", "--split-max-size", OPT_STR, OPT_AT(split_size), .value = "SIZE", .help = "several files of at most this size: 2G, 500M" },
    { "sha256", NULL, OPT_FLAG, OPT_AT(sha256), .help = "print the SHA-256 of the result" });
OPT_GROUP(quantize_cpu, "CPU",
    { "threads", "-t", OPT_INT, OPT_AT(threads), .value = "N", .lo = 0, .hi = 500, .help = "threads; 0: one per physical core" },
    { "isa", NULL, OPT_STR, OPT_AT(isa), .value = "LEVEL", .help = "strongest instruction set to use; the result is the same" });

static const struct opt_group *const groups[] = { &quantize_group, &quantize_cpu, &opts_common, NULL };

const struct command command_quantize = {
    .name = "quantize",
    .brief = "make a model smaller: another number format for its weights",
    .usage = "cuanto quantize IN [OUT] TYPE [options]\n"
             "       cuanto quantize IN [OUT] --bpw N|--size SIZE|--fit SIZE|--max-kld X [options]",
    .examples = "cuanto quantize model-F16.gguf Q4_K_M --dry-run\n"
                "cuanto quantize model-F16.gguf Q4_K_M --calibration default\n"
                "cuanto quantize model-F16.gguf Q4_K_M --method gptq --calibration my_chats.jsonl\n"
                "cuanto quantize model-F16.gguf --bpw 4.5 --calibration default\n"
                "cuanto quantize model-F16.gguf small.gguf IQ3_XXS --imatrix model.imatrix.gguf\n"
                "cuanto quantize model-F16.gguf --method absmax --bits 8 --granularity row",
    .groups = groups,
    .more = list_choices,
    .min_args = 1,
    .max_args = 3,
    .run = run,
};
