/* quant_predict - see quant_predict.h. Costs by size, measured with the solver's own calls on one core of a 2-core Zen 5, n = 576 to 4864 columns: a product
 * X^T X and the states grow as they should (n^2, tokens), the factor with n^3, rows with n^1.95 (scalar formats) and n^1.45 (codebooks). So matrices
 * wider than PIECE are measured on their first PIECE columns. */
#include "tools/quant_predict.h"
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "ggml-like/pool.h"
#include "quant/solve.h"
#include "tools/quant_solve.h"
#include "tools/solve_experts.h"
#include "tools/twin.h"

enum { PIECE = 1536, LAYERS_TRIED = 2, KINDS = 32, MATMULS = 64 };
static const double trial_seconds = 0.1; /* short work is repeated for as long */

/* Matrices of one width, and the Hessian of one input of it. */
struct width {
    int64_t n, m;              /* columns; of the piece */
    float *h;                  /* [m][m] */
    double factor;             /* seconds for both Hessians' end and the factor */
};
struct kind {
    const struct quant_item *item;
    int width;
    double rows;               /* of all matrices of this kind, those of samples too */
};
struct predicting {
    struct calibration *k;
    struct quant_plan *plan;
    struct quant_kernels qk;
    struct pool *pool;
    struct width width[KINDS];
    struct kind kind[KINDS];
    int n_width, n_kind;
    bool corrects;             /* a twin runs beside */
    struct hessian hessian;    /* of the input at work */
    double forward, shown;     /* seconds of one window and layer: passing, and showing all inputs with their products */
    double factors;            /* seconds of one layer */
    int64_t n_solved;          /* layers that have something to solve */
    size_t widest;
};

/* ---- one window ---- */

static void add_all(void *ctx, const struct shown *s, int ith, int nth)
{
    struct predicting *p = ctx;
    if (s->k != p->hessian.n) return;
    for (int64_t i = 0; s->at && i < s->n; i++) hessian_add(&p->hessian, &p->qk, shown_x(s, i), s->stride, NULL, 1, p->pool, ith, nth);
    if (!s->at) hessian_add(&p->hessian, &p->qk, s->x, s->stride, NULL, s->n, p->pool, ith, nth);
}

static void end_hessian(void *ctx, int ith, int nth)
{
    struct predicting *p = ctx;
    hessian_finish(&p->hessian, &p->qk, p->pool, ith, nth);
}

static void add_nothing(void *ctx, const struct shown *s, int ith, int nth) { (void)ctx, (void)s, (void)ith, (void)nth; }

/* Seconds of one run. The first of a layer is left out: it meets pages of the file that nobody has touched; so is any short one. */
static status time_run(struct predicting *p, const struct layers_run *r, bool first, double *seconds, struct err *e)
{
    int n = 0;
    double start = now_seconds();
    TRY(layers_run(p->k->layers, r, e));
    *seconds = now_seconds() - start;
    if (!first && *seconds > 2 * trial_seconds) return OK;
    start = now_seconds();
    do {
        TRY(layers_run(p->k->layers, r, e));
        n++;
    } while (now_seconds() - start < trial_seconds);
    *seconds = (now_seconds() - start) / n;
    return OK;
}

/* ---- widths and kinds ---- */

static int width_of(struct predicting *p, int64_t n)
{
    for (int i = 0; i < p->n_width; i++)
        if (p->width[i].n == n) return i;
    return -1;
}

/* The factor of a piece of the Hessian that was just added up. */
static status new_width(struct predicting *p, struct err *e)
{
    int64_t n = p->hessian.n, m = n <= PIECE ? n : PIECE;
    struct width *w = &p->width[p->n_width];
    struct metric metric;
    const struct metric_options o = { METRIC_DAMPING, metric_shrink(m, p->k->n_rows) };
    double start = now_seconds();
    pool_run(p->pool, end_hessian, p);
    double ended = now_seconds();
    if (!(w->h = mem_alloc((size_t)(m * m) * sizeof *w->h))) return err_oom(e, "a piece of the Hessian", (size_t)(m * m) * sizeof *w->h);
    for (int64_t i = 0; i < m; i++) memcpy(w->h + i * m, p->hessian.h + i * n, (size_t)m * sizeof *w->h);
    w->n = n, w->m = m;
    p->n_width++;
    double begun = now_seconds();
    TRY(metric_open(&metric, w->h, m, &o, &p->qk, p->pool, e));
    w->factor = 2 * (ended - start) + (now_seconds() - begun) * pow((double)n / (double)m, 3);
    metric_close(&metric);
    return OK;
}

static bool taken(struct predicting *p, const char *name)
{
    for (int64_t i = 0; i < quant_plan_n(p->plan); i++)
        if (!strcmp(quant_plan_item(p->plan, i)->src->name, name)) return quant_solve_takes(quant_plan_item(p->plan, i));
    return false;
}

/* What a twin adds: it shows the input as well, and there are cross products, n^2 and n_embd n where H takes n^2 / 2. The one that ends the layer is the
 * twin's own step. */
static status try_twin(struct predicting *p, const struct layers_run *shown, enum layers_sum sum, int64_t n, double seconds, struct err *e)
{
    double alone, embd = (double)p->k->x_bytes / sizeof(float) / (double)p->k->n_rows;
    struct layers_run r = *shown;
    r.observe = add_nothing;
    TRY(time_run(p, &r, false, &alone, e));
    double product = fmax(0, seconds - alone);
    if (sum != LAYERS_SUM_OUT) p->shown += alone + 2 * product;
    if (sum != LAYERS_SUM_NONE) p->shown += 2 * product * embd / (double)n;
    return OK;
}

/* The input of one group. */
static status try_group(struct predicting *p, int il, const struct tensor *w, enum layers_sum sum, struct err *e)
{
    int64_t n = w->ne[0];
    double seconds = 0;
    status st = hessian_open(&p->hessian, n, e);
    const struct layers_run r = { .il = il, .n = 1, .x = p->k->x, .show = &w->name, .n_show = 1, .observe = add_all, .observe_ctx = p };
    if (st == OK) st = time_run(p, &r, false, &seconds, e);
    if (st == OK && p->corrects) st = try_twin(p, &r, sum, n, seconds, e);
    if (st == OK && width_of(p, n) < 0 && p->n_width < KINDS) st = new_width(p, e);
    hessian_close(&p->hessian);
    p->shown += seconds;
    if (width_of(p, n) >= 0) p->factors += p->width[width_of(p, n)].factor;
    return st;
}

static status try_layer(struct predicting *p, int il, bool solves, struct err *e)
{
    struct layers_matmul mm[MATMULS];
    double seconds;
    int n = 0, last = -1;
    const struct layers_run r = { .il = il, .n = 1, .x = p->k->x, .y = p->k->x };
    TRY(time_run(p, &r, true, &seconds, e));
    p->forward += seconds;
    if (!solves) return OK;
    TRY(layers_matmuls(p->k->layers, il, mm, MATMULS, &n, e));
    for (int i = 0; i < n && i < MATMULS; i++) {
        if (mm[i].group == last || !taken(p, mm[i].w->name)) continue;
        last = mm[i].group;
        TRY(try_group(p, il, mm[i].w, mm[i].sum, e));
    }
    return OK;
}

static bool of_layer(const char *name, int64_t il)
{
    long long at = -1;
    return sscanf(name, "blk.%lld.", &at) == 1 && at == il;
}

static bool layer_taken(const struct predicting *p, int64_t il)
{
    for (int64_t i = 0; i < quant_plan_n(p->plan); i++)
        if (of_layer(quant_plan_item(p->plan, i)->src->name, il) && quant_solve_takes(quant_plan_item(p->plan, i))) return true;
    return false;
}

/* Some layers, from the beginning and the middle of those that are solved. One that cannot be run alone (it reads an earlier one's cache) is left out. */
static status try_layers(struct predicting *p, bool solves, int64_t n_layer, struct err *e)
{
    int tried = 0;
    struct err why = { 0 };
    const struct layers_run embed = { .il = LAYERS_EMBED, .n = 1, .y = p->k->x };
    TRY(layers_run(p->k->layers, &embed, e));
    for (int64_t il = 0; il < n_layer; il++) p->n_solved += solves && layer_taken(p, il);
    int64_t at = 0, n = p->n_solved > 0 ? p->n_solved : n_layer;
    for (int64_t il = 0; il < n_layer; il++) {
        if (p->n_solved > 0 && !layer_taken(p, il)) continue;
        bool wanted = at * LAYERS_TRIED / n >= tried; /* the first of each share */
        at++;
        if (!wanted || tried == LAYERS_TRIED) continue;
        status st = try_layer(p, (int)il, solves, &why);
        if (st == ERR_MEMORY) return err_set(e, st, "%s", why.text);
        tried += st == OK;
    }
    if (tried == 0) return err_set(e, ERR_RUNTIME, "no layer can be run alone: %s", why.text);
    p->forward /= tried, p->shown /= tried, p->factors /= tried;
    return OK;
}

/* ---- rows ---- */

struct rows_trial {
    struct predicting *p;
    struct solver solver;
    const struct cross *cross; /* NULL: no twin */
    float *x;                  /* [SOLVE_ROWS][m] */
    uint8_t *dst, *scratch;    /* of each thread */
    size_t dst_bytes, scratch_bytes;
};

static void solve_thread(void *ctx, int ith, int nth)
{
    struct rows_trial *t = ctx;
    float *x = t->x + ith * SOLVE_ROWS * t->solver.metric->n;
    if (t->cross) metric_aim(t->solver.metric, t->cross, NULL, 0, &t->p->qk, x, 0, 1, SOLVE_ROWS, t->scratch + (size_t)ith * t->scratch_bytes);
    solve_rows(&t->solver, &t->p->qk, x, SOLVE_ROWS, t->dst + (size_t)ith * t->dst_bytes, NULL, t->scratch + (size_t)ith * t->scratch_bytes);
}

static void load_rows(struct predicting *p, const struct quant_item *it, int64_t m, float *x)
{
    const struct tensor *src = gguf_tensor(model_gguf(p->k->model), it->src->name);
    for (int64_t i = 0; i < SOLVE_ROWS; i++)
        dtype_to_f32(src->type, (const uint8_t *)src->data + (size_t)(i % it->rows) * dtype_row_bytes(src->type, it->cols), x + i * m, m);
}

/* Seconds for all rows of a kind: every thread at work on SOLVE_ROWS of them, as in the run. */
static status time_kind(struct predicting *p, const struct kind *kd, const struct metric *metric, const struct cross *cross, const float *importance,
                        double *seconds, struct err *e)
{
    struct rows_trial t = { .p = p, .cross = cross->n ? cross : NULL };
    struct arena a;
    int64_t m = metric->n, threads = pool_threads(p->pool);
    TRY(solver_init(&t.solver, kd->item->to, metric, importance, e));
    t.solver.stage = SOLVE_STAGES - 1, t.solver.sweeps = SOLVE_SWEEPS;
    arena_init(&a, 0);
    t.dst_bytes = SOLVE_ROWS * dtype_row_bytes(kd->item->to, m);
    t.scratch_bytes = solve_scratch(&t.solver);
    if (t.scratch_bytes < METRIC_AIM(m)) t.scratch_bytes = METRIC_AIM(m);
    float *x = arena_zalloc(&a, (size_t)threads, SOLVE_ROWS * (size_t)m * sizeof *x);
    t.dst = arena_zalloc(&a, (size_t)threads, t.dst_bytes);
    t.scratch = arena_zalloc(&a, (size_t)threads, t.scratch_bytes);
    t.x = x;
    status st = x && t.dst && t.scratch ? OK : err_oom(e, "solver", t.scratch_bytes * (size_t)threads);
    if (st == OK) {
        for (int64_t i = 0; i < threads; i++) load_rows(p, kd->item, m, x + i * SOLVE_ROWS * m);
        double start = now_seconds(), power = t.solver.grid.vec_len > 1 ? 1.45 : 1.95;
        pool_run(p->pool, solve_thread, &t);
        *seconds = (now_seconds() - start) * kd->rows / (double)(SOLVE_ROWS * threads) * pow((double)kd->item->cols / (double)m, power);
        size_t bytes = (size_t)threads * (t.scratch_bytes * (size_t)kd->item->cols / (size_t)m + SOLVE_ROWS * (size_t)kd->item->cols * sizeof *x);
        if (bytes > p->widest) p->widest = bytes;
    }
    arena_free(&a);
    return st;
}

/* A matrix is solved whole, and SAMPLE rows of it before that, to see whether it pays. */
static void find_kinds(struct predicting *p)
{
    for (int64_t i = 0; i < quant_plan_n(p->plan); i++) {
        struct quant_item *it = quant_plan_item(p->plan, i);
        int k = 0, w = width_of(p, it->cols);
        if (w < 0 || !quant_solve_takes(it)) continue;
        while (k < p->n_kind && (p->kind[k].item->to != it->to || p->kind[k].item->cols != it->cols)) k++;
        if (k == KINDS) k--;
        if (k == p->n_kind) p->kind[p->n_kind++] = (struct kind){ .item = it, .width = w };
        p->kind[k].rows += (double)(it->rows + min_i64(it->rows, QUANT_SOLVE_SAMPLE));
    }
}

static status time_rows(struct predicting *p, double *seconds, struct err *e)
{
    find_kinds(p);
    for (int w = 0; w < p->n_width; w++) {
        struct metric metric;
        struct cross cross = { 0 };
        const struct metric_options o = { METRIC_DAMPING, metric_shrink(p->width[w].m, p->k->n_rows) };
        float importance[PIECE];
        status st = metric_open(&metric, p->width[w].h, p->width[w].m, &o, &p->qk, p->pool, e);
        if (st == OK && p->corrects) st = cross_open(&cross, p->width[w].m, p->width[w].m, e);
        if (st != OK) {
            metric_close(&metric);
            return st;
        }
        for (int64_t i = 0; i < p->width[w].m; i++) importance[i] = p->width[w].h[i * p->width[w].m + i] / (float)p->k->n_ctx;
        for (int i = 0; st == OK && i < p->n_kind; i++) {
            double one = 0;
            if (p->kind[i].width != w) continue;
            st = time_kind(p, &p->kind[i], &metric, &cross, importance, &one, e);
            *seconds += one;
        }
        metric_close(&metric);
        cross_close(&cross);
        if (st != OK) return st;
    }
    return OK;
}

/* ---- memory ---- */

struct part_bytes {
    size_t made, scaled, stack;  /* tensors that wait to be stepped over; columns scaled, as F32; what the largest stack takes */
    int64_t widest;              /* columns of a matrix that is solved */
};

static void add_item(const struct predicting *p, const struct quant_item *it, struct part_bytes *b)
{
    const struct quant_options *o = quant_plan_options(p->plan);
    size_t n = (size_t)it->cols, square = n * n * sizeof(float);
    if (o->folded && !it->kept && it->to->block_len <= QUANT_FOLD_COARSE) b->scaled += (size_t)tensor_elements(it->src) * sizeof(float);
    if (!quant_solve_takes(it) && !solve_experts_takes(it)) return;
    b->made += it->bytes_to;
    if (quant_solve_takes(it)) b->widest = max_i64(b->widest, it->cols);
    size_t stack = solve_experts_takes(it) ? (size_t)it->n_mat * (square + HESSIAN_ROWS * n * sizeof(float)) + 7 * square / 2 : 0;
    if (stack > b->stack) b->stack = stack;
}

/* The largest layer's tensors, and the head. At one time: two Hessians and the metric of the widest input, or those of a stack. */
static size_t solver_bytes(struct predicting *p, int64_t n_layer)
{
    struct part_bytes most = { 0 };
    for (int64_t il = 0; il <= n_layer; il++) {
        struct part_bytes b = { 0 };
        for (int64_t i = 0; i < quant_plan_n(p->plan); i++) {
            const struct quant_item *it = quant_plan_item(p->plan, i);
            if (il < n_layer ? of_layer(it->src->name, il) : !strcmp(it->src->name, "output.weight")) add_item(p, it, &b);
        }
        if (b.made + b.scaled > most.made + most.scaled) most.made = b.made, most.scaled = b.scaled;
        if (b.stack > most.stack) most.stack = b.stack;
        most.widest = max_i64(most.widest, b.widest);
    }
    size_t n = (size_t)most.widest, matrix = (7 * n * n / 2 + 2 * HESSIAN_ROWS * n) * sizeof(float), window = (size_t)p->k->n_ctx * n * sizeof(float), twin = 0;
    if (p->corrects) { /* a cross product, or both of a narrower input; states, scratch, the inputs of both models */
        matrix += (n * n + 2 * HESSIAN_ROWS * n) * sizeof(float);
        twin = p->k->x_bytes + layers_bytes(p->k->layers) + 2 * (window > TWIN_BYTES ? window : TWIN_BYTES);
    }
    return most.made + most.scaled + p->widest + twin + (most.stack > matrix ? most.stack : matrix);
}

/* ---- all ---- */

static status kernels_of(struct quant_kernels *qk, const char *isa, struct err *e)
{
    struct cpu_info cpu;
    cpu_detect(&cpu);
    uint64_t features = cpu.features;
    if (isa) TRY(isa_features(isa, &cpu, &features, e));
    quant_kernels_init(qk, features);
    return OK;
}

status quant_predict(struct calibration *k, struct quant_plan *plan, bool solves, bool corrects, const char *isa, struct quant_cost *out, struct err *e)
{
    struct predicting *p = mem_calloc(1, sizeof *p);
    struct model_info info;
    double rows = 0;
    *out = (struct quant_cost){ .calibrate = -1, .solve = -1 };
    if (!p) return err_oom(e, "prediction", sizeof *p);
    model_info(k->model, &info);
    p->k = k, p->plan = plan, p->corrects = solves && corrects, p->pool = layers_pool(k->layers);
    status st = kernels_of(&p->qk, isa, e);
    if (st == OK) st = try_layers(p, solves, info.n_layer, e);
    if (st == OK && solves) st = time_rows(p, &rows, e);
    if (st == OK) {
        double layers = (double)info.n_layer, windows = (double)k->n_windows;
        out->calibrate = layers * (double)calibration_importance_windows(k, solves) * p->forward;
        if (solves) out->solve = layers * windows * p->forward * (p->corrects ? 2 : 1) + (double)p->n_solved * (windows * p->shown + p->factors) + rows;
        out->bytes = k->x_bytes + layers_bytes(k->layers) + (solves ? solver_bytes(p, info.n_layer) : 0);
        out->mapped = gguf_bytes(model_gguf(k->model));
    }
    for (int i = 0; i < p->n_width; i++) mem_free(p->width[i].h);
    mem_free(p);
    return st;
}
