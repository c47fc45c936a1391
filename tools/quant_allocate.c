/* quant_allocate - see quant_allocate.h. */
#include "tools/quant_allocate.h"
#include <assert.h>
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "quant/allocate.h"
#include "tools/limits.h"
#include "tools/quant_measure.h"
#include "tools/quant_plan.h"
#include "tools/quant_sense.h"
#include "tools/quant_solve.h"
#include "tools/solve_experts.h"

enum { ROUNDS = 4, CHECK_MIN = 512, CHECK_MAX = 2048 };
#define CHECK_MACS 2e12
#define PRECISE 1.2 /* time of exact activations and of short windows over that of the calibration's pass */
/* Error of a solved matrix over that of a searched one (README of quant/): it decides between formats that are solved and those that are not. */
#define SOLVED 0.55

/* ---- the budget ---- */

bool allocates(const struct cli *c) { return c->bpw > 0 || c->size || c->fit || c->max_kld > 0; }

/* "3.5G": powers of `base`; "3.5GiB": of 1024. */
static status parse_bytes(const char *what, const char *text, double base, double *out, struct err *e)
{
    static const char units[] = "KMGT";
    char *end;
    double v = strtod(text, &end), factor = 1;
    bool number = end > text;
    const char *unit = isalpha((unsigned char)*end) ? strchr(units, *end & ~0x20) : NULL, *rest = end + (unit != NULL);
    if (unit && (*rest == 'i' || *rest == 'I')) base = 1024, rest++;
    if (unit && (*rest == 'B' || *rest == 'b')) rest++;
    for (int64_t i = 0; number && unit && i <= unit - units; i++) factor *= base;
    v *= factor;
    if (!number || *rest || !(v >= 1e4) || v > 0x1p50) return err_set(e, ERR_USAGE, "%s: '%.30s' is no size such as 3.5G or 800M", what, text);
    *out = floor(v);
    return OK;
}

status allocation_begin(struct quant_allocation *a, const struct cli *c, const struct quant_options *o, struct err *e)
{
    double ignored;
    *a = (struct quant_allocation){ .measured = NAN };
    if ((c->bpw > 0) + (c->size != NULL) + (c->fit != NULL) + (c->max_kld > 0) > 1)
        return err_set(e, ERR_USAGE, "--bpw, --size, --fit, --max-kld: one of them");
    if (o->spec.method && !o->spec.method->takes_type)
        return err_set(e, ERR_USAGE, "--method %s chooses the format itself: no --bpw, --size, --fit or --max-kld", o->spec.method->name);
    if (c->pure || c->keep_outliers || c->explain)
        return err_set(e, ERR_USAGE, "--%s: not with --bpw, --size, --fit or --max-kld", c->pure ? "pure" : c->explain ? "explain" : "keep-outliers");
    if (c->size) TRY(parse_bytes("--size", c->size, 1000, &ignored, e));
    if (c->fit) TRY(parse_bytes("--fit", c->fit, 1024, &ignored, e));
    if (c->bpw > 0) snprintf(a->recipe, sizeof a->recipe, "%g bits per weight", (double)c->bpw), snprintf(a->label, sizeof a->label, "%gbpw", (double)c->bpw);
    if (c->size) snprintf(a->recipe, sizeof a->recipe, "size %.30s", c->size), snprintf(a->label, sizeof a->label, "%.30s", c->size);
    if (c->fit) snprintf(a->recipe, sizeof a->recipe, "fits %.30s", c->fit), snprintf(a->label, sizeof a->label, "fit%.28s", c->fit);
    if (c->max_kld > 0) snprintf(a->recipe, sizeof a->recipe, "KL %g", (double)c->max_kld), snprintf(a->label, sizeof a->label, "kld%g", (double)c->max_kld);
    return OK;
}

/* ---- the problem ---- */

struct work {
    struct quant_allocation *a;
    const struct cli *c;
    const char *in;
    struct quant_options *o;
    struct quant_plan *plan;     /* a look: every tensor in the format with the most bits */
    struct sense s;
    bool allowed[DTYPE_IDS], all;
    struct alloc_item *item;     /* [s.n] */
    struct alloc_choice *choice; /* [s.n][ALLOC_CHOICES] */
    int (*id)[ALLOC_CHOICES];
    bool padded;                 /* bytes as they lie in the file */
    size_t fixed;                /* bytes of the budget that no choice changes */
    struct arena mem;
};

static status parse_types(struct work *w, struct err *e)
{
    char name[32];
    w->all = !w->c->allow_types;
    for (const char *p = w->c->allow_types; p && *p;) {
        size_t n = strcspn(p, ", ");
        snprintf(name, sizeof name, "%.*s", (int)(n < sizeof name ? n : sizeof name - 1), p);
        const struct dtype *t = dtype_by_name(name);
        bool known = t && t->group_len == 0;
        for (int k = 0; t && k < SENSE_TYPES; k++) known |= sense_types[k] == t->gguf_id;
        if (n > 0 && !known) return err_set(e, ERR_USAGE, "--allow-types: '%.30s' is none of the formats to choose from (q4_k, iq3_s, q8_0, ...)", name);
        if (n > 0) w->allowed[t->gguf_id] = true;
        p += n + strspn(p + n, ", ");
    }
    return OK;
}

/* Formats that are there for rows that nothing else fits, and those that few programs read. */
static bool is_offered(const struct work *w, int id, int64_t cols)
{
    if (!w->all) return w->allowed[id];
    if (id == GGUF_NVFP4) return false;
    return cols % 256 != 0 || (id != GGUF_MXFP4 && id != GGUF_Q2_0);
}

static bool is_solved(const struct work *w, const struct quant_item *it, int id)
{
    struct quant_item as = *it;
    as.to = dtype_by_id(id), as.kept = false;
    return w->o->spec.method == &quantizer_gptq && (quant_solve_takes(&as) || solve_experts_takes(&as));
}

static status bytes_as(const struct work *w, const struct tensor *t, const struct dtype *to, size_t *bytes, struct err *e)
{
    if (!mul_size(dtype_row_bytes(to, t->ne[0]), (size_t)tensor_rows(t), bytes)) return err_oom(e, t->name, SIZE_MAX);
    if (w->padded && !pad_size(*bytes, quant_plan_gguf(w->plan)->alignment, bytes)) return err_oom(e, t->name, SIZE_MAX);
    return OK;
}

static status add_choice(struct work *w, int64_t i, const struct dtype *to, double loss, struct err *e)
{
    struct alloc_item *a = &w->item[i];
    struct alloc_choice *c = &w->choice[i * ALLOC_CHOICES + a->n];
    assert(a->n < ALLOC_CHOICES);
    TRY(bytes_as(w, quant_plan_item(w->plan, w->s.row[i].item)->src, to, &c->bytes, e));
    c->loss = loss;
    w->id[i][a->n++] = to->gguf_id;
    return OK;
}

static status make_choices(struct work *w, struct err *e)
{
    w->item = arena_zalloc(&w->mem, (size_t)w->s.n + 1, sizeof *w->item);
    w->choice = arena_zalloc(&w->mem, (size_t)w->s.n + 1, ALLOC_CHOICES * sizeof *w->choice);
    w->id = arena_zalloc(&w->mem, (size_t)w->s.n + 1, sizeof *w->id);
    if (!w->item || !w->choice || !w->id) return err_oom(e, "allocation", (size_t)w->s.n * ALLOC_CHOICES * sizeof *w->choice);
    for (int64_t i = 0; i < w->s.n; i++) {
        const struct sense_row *r = &w->s.row[i];
        const struct quant_item *it = quant_plan_item(w->plan, r->item);
        const struct dtype *from = it->src->type;
        w->item[i] = (struct alloc_item){ .choice = &w->choice[i * ALLOC_CHOICES] };
        for (int k = 0; k < SENSE_TYPES; k++) {
            int id = sense_types[k];
            if (isnan(r->error[k]) || !is_offered(w, id, it->cols) || (!it->has_importance && recipe_needs_importance(NULL, r->name, id))) continue;
            TRY(add_choice(w, i, dtype_by_id(id), r->per_error * (double)r->error[k] * (is_solved(w, it, id) ? SOLVED : 1), e));
        }
        if (from->group_len == 0 && (w->all || w->allowed[from->gguf_id])) TRY(add_choice(w, i, from, 0, e));
        if (w->item[i].n == 0)
            return err_set(e, ERR_USAGE, "--allow-types %.60s: none fits the rows of %lld weights of %s%s", w->c->allow_types, (long long)it->cols, r->name,
                           it->has_importance ? "" : " without importance (--calibration)");
    }
    return OK;
}

/* ---- plans ---- */

static status open_plan(struct work *w, struct quant_plan **plan, struct err *e)
{
    struct quant_options o = *w->o;
    o.type = NULL, o.chosen = w->a->chosen, o.recipe = w->a->recipe, o.measurement = w->a->measurement;
    o.sizes_only = true;
    return quant_plan_open(plan, w->in, &o, e);
}

static size_t plan_bytes(struct quant_plan *p, bool file)
{
    struct quant_totals t;
    size_t sum = 0;
    quant_plan_totals(p, NULL, NULL, &t);
    for (int64_t i = 0; i < quant_plan_n(p); i++) sum += quant_plan_item(p, i)->bytes_to;
    return file ? t.bytes_to : sum;
}

/* What no choice changes: all of the look's bytes but those of the free tensors. */
static status find_fixed(struct work *w, struct err *e)
{
    size_t free_bytes = 0, bytes;
    struct quant_plan *p;
    TRY(open_plan(w, &p, e)); /* anew: now the metadata has its words */
    size_t all = plan_bytes(p, w->padded);
    status st = OK;
    for (int64_t i = 0; st == OK && i < w->s.n; i++) {
        const struct quant_item *it = quant_plan_item(p, w->s.row[i].item);
        st = bytes_as(w, it->src, it->to, &bytes, e);
        free_bytes += bytes;
    }
    quant_plan_close(p);
    assert(st != OK || all >= free_bytes);
    w->fixed = all - free_bytes;
    return st;
}

/* ---- budgets to bytes ---- */

static status memory_besides(const struct work *w, uint64_t *bytes, struct err *e)
{
    struct model *m = NULL;
    struct engine *en = NULL;
    struct model_info info;
    const struct model_options mo = { .n_ctx = -(int64_t)RUNTIME_CTX };
    const struct engine_options eo = { .n_threads = (int)w->c->threads };
    status st = model_open(&m, w->in, &mo, e);
    if (st == OK) st = engine_open(&en, m, &eo, e);
    if (st == OK) {
        model_info(m, &info);
        int64_t n_ctx = w->c->ctx > 0 ? w->c->ctx : info.n_ctx_train > 0 ? min_i64(4096, info.n_ctx_train) : 4096;
        *bytes = limits_memory(en, n_ctx, dtype_by_name(w->c->kv_type ? w->c->kv_type : "f16"));
        if (*bytes == 0) st = err_set(e, ERR_USAGE, "--fit: no memory holds a context of %lld", (long long)n_ctx);
    }
    engine_close(en);
    model_close(m);
    return st;
}

static status budget_bytes(struct work *w, size_t *budget, struct err *e)
{
    struct quant_totals t;
    double bytes = 0;
    uint64_t besides = 0;
    quant_plan_totals(w->plan, NULL, NULL, &t);
    if (w->c->bpw > 0) bytes = floor((double)w->c->bpw * (double)t.n_params / 8);
    if (w->c->size) TRY(parse_bytes("--size", w->c->size, 1000, &bytes, e));
    if (w->c->fit) {
        TRY(parse_bytes("--fit", w->c->fit, 1024, &bytes, e));
        TRY(memory_besides(w, &besides, e));
        if ((double)besides >= bytes)
            return err_set(e, ERR_USAGE, "--fit %s: the context alone takes %.0f MiB: a shorter one with --ctx", w->c->fit, (double)besides / (1 << 20));
        bytes -= (double)besides;
    }
    *budget = (size_t)bytes;
    return OK;
}

static void choose(struct work *w)
{
    for (int64_t i = 0; i < w->s.n; i++) {
        const struct tensor *t = quant_plan_item(w->plan, w->s.row[i].item)->src;
        w->a->chosen[t - quant_plan_gguf(w->plan)->tensor] = w->id[i][w->item[i].pick];
    }
    w->a->predicted = allocated_loss(w->item, w->s.n);
}

static status too_small(const struct work *w, size_t budget, struct err *e)
{
    size_t least = allocated_bytes(w->item, w->s.n) + w->fixed;
    struct quant_totals t;
    quant_plan_totals(w->plan, NULL, NULL, &t);
    return err_set(e, ERR_USAGE, "%s: the weights take %.2f MiB at least (%.2f bits each)%s, that leaves %.2f", w->a->recipe, (double)least / (1 << 20),
                   8 * (double)least / (double)t.n_params, w->o->importance ? "" : ", less with --calibration", (double)budget / (1 << 20));
}

/* Within the budget by the bytes of the plan itself: only its words in the metadata may differ from what was reckoned with. */
static status within(struct work *w, struct err *e)
{
    size_t budget = 0, target;
    TRY(budget_bytes(w, &budget, e));
    target = budget;
    for (int round = 0; round < ROUNDS; round++) {
        struct err ignored = { 0 };
        struct quant_plan *p;
        status st = budget > w->fixed ? allocate_bytes(w->item, w->s.n, budget - w->fixed, &ignored) : ERR_USAGE;
        if (st == ERR_MEMORY) return err_oom(e, "allocation", (size_t)w->s.n * sizeof *w->item);
        if (st != OK) return too_small(w, target, e);
        choose(w);
        TRY(open_plan(w, &p, e));
        size_t got = plan_bytes(p, w->padded);
        quant_plan_close(p);
        if (got <= target) return OK;
        budget -= got - target;
    }
    return err_set(e, ERR_RUNTIME, "%s: no choice of formats comes to it", w->a->recipe);
}

/* ---- a bound on KL ---- */

static const struct dtype *type_of(void *ctx, const char *name)
{
    const struct work *w = ctx;
    for (int64_t i = 0; i < w->s.n; i++)
        if (!strcmp(w->s.row[i].name, name)) {
            const struct dtype *t = dtype_by_id(w->id[i][w->item[i].pick]);
            return t->group_len > 0 ? t : NULL;
        }
    return NULL;
}

struct tools { struct quant_kernels qk; struct pool *pool; struct trial_tools t; };

static status tools_open(struct tools *t, const struct work *w, struct err *e)
{
    struct cpu_info cpu;
    cpu_detect(&cpu);
    uint64_t features = cpu.features;
    if (w->c->isa) TRY(isa_features(w->c->isa, &cpu, &features, e));
    quant_kernels_init(&t->qk, features);
    TRY(pool_open(&t->pool, w->c->threads > 0 ? (int)w->c->threads : cpu.n_threads_default, e));
    t->t = (struct trial_tools){ &t->qk, t->pool, w->o->importance };
    return OK;
}

/* KL of the choice on the held-out text, as the search makes it. */
static status try_choice(struct work *w, const struct model *m, struct err *e)
{
    struct meter meter;
    struct tools t;
    TRY(tools_open(&t, w, e));
    status st = meter_open(&meter, m, w->c, w->a->held, w->a->n_windows, w->a->n_ctx, e);
    if (st == OK) {
        st = meter_types(&meter, &t.t, type_of, w, &w->a->measured, e);
        meter_close(&meter);
    }
    w->a->tried = st == OK;
    pool_close(t.pool);
    return st;
}

/* What the solver will leave of a loss that was measured with the choice as the search makes it. */
static double left_by_solver(const struct work *w)
{
    double solved = 0, searched = 0;
    for (int64_t i = 0; i < w->s.n; i++) {
        double loss = w->item[i].choice[w->item[i].pick].loss;
        solved += loss;
        searched += is_solved(w, quant_plan_item(w->plan, w->s.row[i].item), w->id[i][w->item[i].pick]) ? loss / SOLVED : loss;
    }
    return searched > 0 ? solved / searched : 1;
}

static status below(struct work *w, const struct model *m, struct err *e)
{
    double limit = (double)w->c->max_kld;
    for (int round = 0; round < 2; round++) {
        struct err why = { 0 };
        status st = allocate_loss(w->item, w->s.n, limit, &why);
        if (st == ERR_USAGE)
            return err_set(e, ERR_USAGE, "--max-kld %g: the formats to choose from lose %.3g at least", (double)w->c->max_kld,
                           allocated_loss(w->item, w->s.n));
        if (st != OK) return err_oom(e, "allocation", (size_t)w->s.n * sizeof *w->item);
        choose(w);
        if (!m || !w->a->held) return OK;
        TRY(try_choice(w, m, e));
        w->a->measured *= left_by_solver(w);
        if (round > 0 || !(w->a->measured > 0) || !(w->a->predicted > 0)) break;
        limit *= w->a->predicted / w->a->measured;
    }
    return OK;
}

/* ---- all of it ---- */

/* Windows of the check. */
static int64_t held_windows(const struct quant_allocation *a, const struct calibration *k)
{
    double macs = 0;
    const struct gguf *g = model_gguf(k->model);
    for (int64_t i = 0; i < g->n_tensors; i++) macs += (double)tensor_elements(&g->tensor[i]);
    int64_t tokens = max_i64(CHECK_MIN, (int64_t)fmin(CHECK_MAX, CHECK_MACS / macs));
    return meter_windows(k->model, min_i64(tokens / a->n_ctx, calibration_n_held_out(k) * (k->n_ctx / a->n_ctx)));
}

static status keep_held_out(struct quant_allocation *a, const struct calibration *k, struct err *e)
{
    int64_t want = held_windows(a, k), pieces = k->n_ctx / a->n_ctx, at = 0;
    a->held = mem_alloc((size_t)(want * a->n_ctx) * sizeof *a->held);
    if (!a->held) return err_oom(e, "held-out text", (size_t)(want * a->n_ctx) * sizeof *a->held);
    for (int64_t piece = 0; piece < pieces; piece++) /* the first piece of each window, then the second */
        for (int64_t i = 0; i < k->n_windows && at < want; i++) {
            if (!calibration_held_out(k, i)) continue;
            int32_t *to = a->held + at++ * a->n_ctx;
            memcpy(to, k->tokens + i * k->n_ctx + piece * a->n_ctx, (size_t)a->n_ctx * sizeof *to);
            if (piece > 0 && tokenizer_adds_bos(model_tokenizer(k->model))) to[0] = tokenizer_bos(model_tokenizer(k->model));
        }
    a->n_windows = at;
    return OK;
}

static void measure_slow(struct work *w)
{
    double slow = 0, all = 0;
    for (int64_t i = 0; i < w->s.n; i++) {
        int id = w->id[i][w->item[i].pick];
        double n = (double)tensor_elements(quant_plan_item(w->plan, w->s.row[i].item)->src);
        bool codebook = id == GGUF_IQ1_S || id == GGUF_IQ1_M || id == GGUF_IQ2_XXS || id == GGUF_IQ2_XS || id == GGUF_IQ2_S || id == GGUF_IQ3_XXS ||
                        id == GGUF_IQ3_S;
        all += n;
        if (codebook && strcmp(w->s.row[i].name, "token_embd.weight") != 0) slow += n;
    }
    w->a->codebooks = all > 0 ? slow / all : 0;
}

static status solve(struct work *w, const struct allocation_job *j, struct err *e)
{
    struct quant_allocation *a = w->a;
    struct calibration *k = j->k;
    bool look = j->look;
    TRY(open_plan(w, &w->plan, e));
    if (!look) TRY(quant_out_check(w->plan, j->out, j->run, e));
    if (a->temporary && !w->c->resume) unlink(a->path); /* of an earlier run that is not gone on with */
    if (!look) TRY(j->calibrate(j->ctx, e));
    const struct sense_options so = { w->c, *a->path ? a->path : NULL, k, w->o->importance, look };
    TRY(sense_open(&w->s, w->plan, &so, e));
    a->found = w->s.found, a->n_free = w->s.n, a->n_tokens = w->s.n_tokens;
    snprintf(a->measurement, sizeof a->measurement, "%016llx, %lld tokens of %016llx", (unsigned long long)sense_hash(&w->s), (long long)w->s.n_tokens,
             (unsigned long long)w->s.text);
    if (k && look && !a->found) a->passes = sense_passes(&w->s, w->c, k);
    if (k) {
        a->n_ctx = min_i64(MEASURE_CTX, k->n_ctx);
        size_t check = meter_bytes(k->model, held_windows(a, k), a->n_ctx);
        a->bytes = a->found ? check : sense_bytes(&w->s, w->c, k) > check ? sense_bytes(&w->s, w->c, k) : check;
    }
    if (k && !look) TRY(keep_held_out(a, k, e));
    w->padded = w->c->size != NULL;
    TRY(make_choices(w, e));
    TRY(find_fixed(w, e));
    TRY(w->c->max_kld > 0 ? below(w, k && !look ? k->model : NULL, e) : within(w, e));
    measure_slow(w);
    return OK;
}

static status place_measurement(struct quant_allocation *a, const struct cli *c, const char *out, struct err *e)
{
    a->temporary = !c->measure;
    int n = c->measure ? snprintf(a->path, sizeof a->path, "%s", c->measure) : snprintf(a->path, sizeof a->path, "%s.part.measure", out);
    if (n < 0 || n >= (int)sizeof a->path) return err_set(e, ERR_USAGE, "%.60s...: the path is too long", c->measure ? c->measure : out);
    return OK;
}

status allocation_make(struct quant_allocation *a, const struct allocation_job *j, struct err *e)
{
    struct gguf g;
    struct work w = { .a = a, .c = j->c, .in = j->in, .o = j->o };
    TRY(parse_types(&w, e));
    if (!j->look || j->c->measure) TRY(place_measurement(a, j->c, j->out, e));
    TRY(gguf_open(&g, j->in, true, e));
    a->chosen = mem_calloc((size_t)g.n_tensors + 1, sizeof *a->chosen);
    for (int64_t i = 0; a->chosen && i < g.n_tensors; i++) /* any other than its own: that would be kept, not free */
        a->chosen[i] = g.tensor[i].type->gguf_id == GGUF_Q8_0 ? GGUF_Q5_0 : GGUF_Q8_0;
    gguf_close(&g);
    if (!a->chosen) return err_oom(e, "allocation", 0);
    arena_init(&w.mem, 0);
    status st = solve(&w, j, e);
    if (st == OK) j->o->type = NULL, j->o->chosen = a->chosen, j->o->recipe = a->recipe, j->o->measurement = a->measurement;
    sense_close(&w.s);
    quant_plan_close(w.plan);
    arena_free(&w.mem);
    return st;
}

status allocation_check(struct quant_allocation *a, const struct cli *c, const char *in, const char *out, struct err *e)
{
    struct model *m = NULL, *made = NULL;
    struct meter meter;
    const struct model_options mo = { .n_ctx = -(int64_t)RUNTIME_CTX };
    if (a->temporary && *a->path) unlink(a->path);
    if (!a->held) return OK;
    status st = model_open(&m, in, &mo, e);
    if (st == OK) st = model_open(&made, out, &mo, e);
    if (st == OK) st = meter_open(&meter, m, c, a->held, a->n_windows, a->n_ctx, e);
    if (st == OK) {
        st = meter_model(&meter, made, c, &a->measured, e);
        meter_close(&meter);
    }
    a->tried = false;
    model_close(made);
    model_close(m);
    return st;
}

void allocation_print(const struct quant_allocation *a, double pass, bool (*put)(const char *fmt, ...))
{
    char time[32];
    put("allocated %s: formats of %lld tensors, KL divergence about %.3g", a->recipe, (long long)a->n_free, a->predicted);
    if (a->n_tokens > 0) put(" (measured tensor by tensor on %lld tokens%s)\n", (long long)a->n_tokens, a->found ? ", by an earlier run" : "");
    else put(" (by what other models lose, not measured on this one)\n");
    if (a->passes > 0 && pass > 0) put("measuring it takes about %s, and may choose otherwise\n", duration_text(PRECISE * a->passes * pass, time));
    if (a->tried) put("tried     KL divergence %.3g on %lld held-out tokens\n", a->measured, (long long)(a->n_windows * a->n_ctx));
    if (a->codebooks > 0.25)
        put("note      %.0f %% of the weights get IQ formats of 1 to 3 bits, which decode slower; --allow-types without them keeps the speed\n",
            100 * a->codebooks);
}

void allocation_close(struct quant_allocation *a)
{
    mem_free(a->chosen);
    mem_free(a->held);
    *a = (struct quant_allocation){ 0 };
}
