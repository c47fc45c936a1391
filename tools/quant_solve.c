/* quant_solve - see quant_solve.h. True-sequential: within a layer each group is solved before the input of the next is computed. A tensor's solution
 * counts only if it is better than the search's on windows that the solver did not see. */
#include "tools/quant_solve.h"
#include <assert.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include "ggml-like/pool.h"
#include "tools/opt.h"
#include "tools/solve_experts.h"
#include "tools/twin.h"

_Static_assert((int)SOLVED_STAGES == (int)SOLVE_STAGES, "quant.h remembers all stages");
enum { MATMULS_MAX = 64, CHUNK_ROWS = SOLVE_ROWS, SAMPLE_ROWS = QUANT_SOLVE_SAMPLE };

/* ---- Hessians of one input ---- */

struct input {
    const struct calibration *k;
    struct twin *twin;                 /* NULL: weights are solved for as they are */
    struct hessian train, held;
    struct cross cross, sum;           /* of the windows of train, with a twin: of inputs; of the sum that the product is added to (n 0: not known) */
    const struct quant_kernels *qk;
    struct pool *pool;
};

/* Runs of rows that belong to one window. Its first token counts like the others, though it is unlike them: without it nothing holds the errors that its
 * large activations meet, and models lose the attention sink (SmolLM2 as Q4_0: KL 0.48 instead of 0.12). */
static void add_rows(void *ctx, const struct shown *s, int ith, int nth)
{
    struct input *in = ctx;
    for (int64_t i = 0; i < s->n;) {
        int64_t row = shown_row(s, i), window = row / in->k->n_ctx, n = min_i64(s->n - i, in->k->n_ctx - row % in->k->n_ctx);
        struct hessian *h = calibration_held_out(in->k, window) ? &in->held : &in->train;
        hessian_add(h, in->qk, shown_x(s, i), s->stride, NULL, n, in->pool, ith, nth);
        i += n;
    }
}

/* Where the product of the matrix with its weights as they were is part of the sums, what is missing in its inputs is missing in them, too. */
static void add_pairs(void *ctx, const struct twin_rows *r, int ith, int nth)
{
    struct input *in = ctx;
    int64_t cols = in->train.n, n_ctx = in->k->n_ctx, embd = in->sum.m;
    for (int64_t i = 0; i < r->n; i += n_ctx) {
        const float *f = r->f + i * cols, *x = r->x + i * cols, *w = r->weight ? r->weight + i : NULL;
        bool held = calibration_held_out(in->k, (r->first + i) / n_ctx);
        hessian_add(held ? &in->held : &in->train, in->qk, x, cols, w, n_ctx, in->pool, ith, nth);
        if (held) continue;
        if (in->cross.n) cross_add(&in->cross, in->qk, f, cols, x, cols, x, cols, w, n_ctx, in->pool, ith, nth);
        if (embd) cross_add(&in->sum, in->qk, r->sum_f + i * embd, embd, r->sum + i * embd, embd, x, cols, w, n_ctx, in->pool, ith, nth);
    }
}

static void finish_both(void *ctx, int ith, int nth)
{
    struct input *in = ctx;
    hessian_finish(&in->train, in->qk, in->pool, ith, nth);
    hessian_finish(&in->held, in->qk, in->pool, ith, nth);
    if (in->cross.n) cross_finish(&in->cross, in->qk, in->pool, ith, nth);
    if (in->sum.n) cross_finish(&in->sum, in->qk, in->pool, ith, nth);
}

static void input_close(struct input *in)
{
    hessian_close(&in->train);
    hessian_close(&in->held);
    cross_close(&in->cross);
    cross_close(&in->sum);
}

static status input_open(struct input *in, const struct quant_solve *q, const struct quant_kernels *qk, const char *name, int64_t n, enum layers_sum sum,
                         struct err *e)
{
    *in = (struct input){ .k = q->k, .twin = q->twin, .qk = qk, .pool = layers_pool(q->k->layers) };
    status st = hessian_open(&in->train, n, e);
    if (st == OK) st = hessian_open(&in->held, n, e);
    if (in->twin && in->twin->n_embd % METRIC_PANEL) sum = LAYERS_SUM_NONE;
    if (st == OK && in->twin && sum != LAYERS_SUM_OUT) st = cross_open(&in->cross, n, n, e);
    if (st == OK && in->twin && sum != LAYERS_SUM_NONE) st = cross_open(&in->sum, in->twin->n_embd, n, e);
    if (st == OK) st = in->twin ? twin_show(in->twin, name, n, sum, add_pairs, in, e) : calibration_show(q->k, &name, 1, add_rows, in, e);
    if (st == OK) pool_run(in->pool, finish_both, in);
    else input_close(in);
    return st;
}

/* ---- one matrix ---- */

struct matrix {
    const struct quant_plan *plan;
    int64_t index;                     /* of item */
    const struct quant_item *item;
    const struct tensor *src;
    const struct quant_kernels *qk;
    struct solver solver;
    const float *held;                 /* Hessian of held-out windows */
    const struct cross *cross, *sum;   /* both NULL: solved for the weights as they are */
    uint8_t *bytes, *sample[2];        /* result; of some rows: searched, solved */
    float *x;                          /* [n_threads][CHUNK_ROWS][cols] */
    uint8_t *scratch;                  /* [n_threads] */
    size_t scratch_bytes;
    double (*error)[2];                /* [chunks of the sample] on held-out windows */
    double (*loss)[SOLVE_STAGES];      /* the same on what is solved for, after each stage */
    float strength;
    struct solved solved;
    int64_t n_rows;                    /* of this pass: SAMPLE_ROWS at most, or all */
    _Atomic int64_t next;
    _Atomic int unsound;               /* enum unsound: what some thread has met */
    bool sampling;
};
enum unsound { SOUND, SOUND_NOT, SOUND_NO_AIM };

static void solve_chunk(struct matrix *m, int64_t row, int64_t n, float *x, uint8_t *scratch)
{
    int64_t cols = m->item->cols, step = m->sampling ? m->item->rows / m->n_rows : 1; /* the sample is spread over the matrix */
    size_t from = dtype_row_bytes(m->src->type, cols), to = dtype_row_bytes(m->item->to, cols);
    for (int64_t i = 0; i < n; i++) {
        dtype_to_f32(m->src->type, (const uint8_t *)m->src->data + (size_t)((row + i) * step) * from, x + i * cols, cols);
        quant_plan_scale(m->plan, m->index, x + i * cols, (row + i) * step, 1);
    }
    int bad = solve_sound(x, n * cols) ? SOUND : SOUND_NOT;
    if (!bad && (m->cross || m->sum)) {
        metric_aim(m->solver.metric, m->cross, m->sum, m->strength, m->qk, x, row * step, step, n, scratch);
        bad = solve_sound(x, n * cols) ? SOUND : SOUND_NO_AIM;
    }
    if (bad) {
        atomic_store(&m->unsound, bad);
        return;
    }
    if (!m->sampling) {
        solve_rows(&m->solver, m->qk, x, n, m->bytes + (size_t)row * to, NULL, scratch);
        return;
    }
    struct solver s = m->solver;
    double loss[CHUNK_ROWS][SOLVE_STAGES];
    for (int i = 0; i < 2; i++) {
        s.stage = i ? m->solver.stage : SOLVE_SEARCH;
        solve_rows(&s, m->qk, x, n, m->sample[i] + (size_t)row * to, i ? loss : NULL, scratch);
        m->error[row / CHUNK_ROWS][i] = solve_error(&s, m->qk, m->held, x, m->sample[i] + (size_t)row * to, n, scratch);
    }
    for (int64_t i = 0; i < n; i++)
        for (int k = 0; k < SOLVE_STAGES; k++) m->loss[row / CHUNK_ROWS][k] += loss[i][k];
}

static void solve_thread(void *ctx, int ith, int nth)
{
    struct matrix *m = ctx;
    float *x = m->x + (int64_t)ith * CHUNK_ROWS * m->item->cols;
    for (int64_t row; (row = atomic_fetch_add(&m->next, CHUNK_ROWS)) < m->n_rows;)
        solve_chunk(m, row, min_i64(CHUNK_ROWS, m->n_rows - row), x, m->scratch + (size_t)ith * m->scratch_bytes);
    (void)nth;
}

static status pass(struct matrix *m, struct pool *p, bool sampling, struct err *e)
{
    m->sampling = sampling;
    m->n_rows = sampling ? min_i64(SAMPLE_ROWS, m->item->rows) : m->item->rows;
    atomic_store(&m->next, 0);
    pool_run(p, solve_thread, m);
    int bad = atomic_load(&m->unsound);
    if (bad == SOUND_NOT) return err_set(e, ERR_FORMAT, "%s: holds NaN or infinity: the weights are damaged", m->src->name);
    if (bad == SOUND) return OK;
    return err_set(e, ERR_RUNTIME, "%s: what would make up for the layers before it is not finite: --plain-targets solves without", m->src->name);
}

static void tell(struct quant_solve *q, const struct quant_item *it, const double error[2])
{
    if (!q->c->verbose || q->c->quiet) return;
    bar_end(&q->bar);
    fprintf(stderr, "%-32s %-8s held-out error %.3f of the search's%s\n", it->src->name, it->to->gguf_name, error[0] > 0 ? error[1] / error[0] : 1.0,
            error[1] < error[0] ? "" : ": searched");
}

static status solve_matrix(struct quant_solve *q, struct matrix *m, struct pool *p, struct err *e)
{
    double error[2] = { 0, 0 };
    int64_t cols = m->item->cols, threads = pool_threads(p), n = min_i64(SAMPLE_ROWS, m->item->rows);
    size_t row = dtype_row_bytes(m->item->to, cols);
    struct arena a;
    arena_init(&a, 0);
    m->scratch_bytes = solve_scratch(&m->solver);
    if (m->scratch_bytes < METRIC_AIM(cols)) m->scratch_bytes = METRIC_AIM(cols);
    m->x = arena_zalloc(&a, (size_t)(threads * CHUNK_ROWS * cols), sizeof *m->x);
    m->scratch = arena_zalloc(&a, (size_t)threads, m->scratch_bytes);
    m->sample[0] = arena_zalloc(&a, (size_t)n, row);
    m->sample[1] = arena_zalloc(&a, (size_t)n, row);
    m->error = arena_zalloc(&a, SAMPLE_ROWS / CHUNK_ROWS, sizeof *m->error);
    m->loss = arena_zalloc(&a, SAMPLE_ROWS / CHUNK_ROWS, sizeof *m->loss);
    status st = m->x && m->scratch && m->sample[0] && m->sample[1] && m->error && m->loss ? OK : err_oom(e, "solver", m->scratch_bytes * (size_t)threads);
    if (st == OK) st = pass(m, p, true, e);
    for (int64_t i = 0; st == OK && i < (n + CHUNK_ROWS - 1) / CHUNK_ROWS; i++) {
        for (int s = 0; s < 2; s++) error[s] += m->error[i][s];
        for (int s = 0; s < SOLVE_STAGES; s++) m->solved.stage[s] += m->loss[i][s];
    }
    bool better = error[1] < error[0];
    if (!better) m->solver.stage = SOLVE_SEARCH, m->cross = m->sum = NULL;
    if (st == OK) st = pass(m, p, false, e);
    m->solved.held_out[0] = error[0], m->solved.held_out[1] = better ? error[1] : error[0];
    if (st == OK) tell(q, m->item, error);
    arena_free(&a);
    return st;
}

/* ---- a group of matrices with one input ---- */

struct group {
    const struct tensor *w[MATMULS_MAX];
    int64_t item[MATMULS_MAX];         /* of the plan */
    uint8_t *bytes[MATMULS_MAX];
    bool have[MATMULS_MAX];            /* made by an earlier run */
    int n;
    enum layers_sum sum;
};

/* Formats of eight bits and more have nothing to gain that a Hessian could show. */
bool quant_solve_takes(const struct quant_item *it)
{
    struct grid g;
    if (it->kept || !strcmp(it->src->name, "token_embd.weight")) return false;
    return it->n_mat == 1 && it->n_outliers == 0 && it->cols % METRIC_PANEL == 0 && it->to->group_len > 0 && it->to->gguf_id != GGUF_Q8_0 &&
           grid_make(&g, it->to, NULL) == OK;
}

static int64_t item_of(struct quant_plan *p, const char *name)
{
    for (int64_t i = 0; i < quant_plan_n(p); i++)
        if (!strcmp(quant_plan_item(p, i)->src->name, name)) return i;
    return -1;
}

static void group_add(struct quant_solve *q, struct group *g, struct group *stack, const struct layers_matmul *mm)
{
    int64_t i = item_of(q->plan, mm->w->name);
    if (i >= 0 && solve_experts_takes(quant_plan_item(q->plan, i))) g = stack;
    else if (i < 0 || !quant_solve_takes(quant_plan_item(q->plan, i))) return;
    g->sum = g->n ? LAYERS_SUM_NONE : mm->sum;
    g->w[g->n] = mm->w, g->item[g->n++] = i;
}

/* Words about the Hessian of an input say nothing of whose it is. */
static status err_of_input(const struct err *why, const char *name, struct err *e) { return err_set(e, why->code, "input of %s: %s", name, why->text); }

static status group_solve(struct quant_solve *q, struct group *g, const struct input *in, struct quant_output *out, struct err *e)
{
    const struct metric_options mo = { METRIC_DAMPING, metric_shrink(in->train.n, in->train.count) };
    struct metric metric;
    struct err why = { 0 };
    struct pool *p = layers_pool(q->k->layers);
    float *importance = mem_alloc((size_t)in->train.n * sizeof *importance);
    if (!importance) return err_oom(e, "importance", (size_t)in->train.n * sizeof *importance);
    hessian_diagonal(&in->train, importance);
    status st = metric_open(&metric, in->train.h, in->train.n, &mo, in->qk, p, &why);
    if (st != OK) {
        mem_free(importance);
        return err_of_input(&why, g->w[0]->name, e);
    }
    for (int i = 0; st == OK && i < g->n; i++) {
        const struct quant_item *it = quant_plan_item(q->plan, g->item[i]);
        struct matrix m = { .plan = q->plan, .index = g->item[i], .item = it, .src = gguf_tensor(model_gguf(q->k->model), it->src->name),
                            .qk = in->qk, .held = in->held.h, .bytes = g->bytes[i], .strength = q->correct,
                            .cross = in->cross.n ? &in->cross : NULL, .sum = in->sum.n ? &in->sum : NULL };
        if (g->have[i]) continue;
        st = solver_init(&m.solver, it->to, &metric, importance, e);
        m.solver.stage = SOLVE_STAGES - 1, m.solver.sweeps = SOLVE_SWEEPS;
        if (st == OK) st = solve_matrix(q, &m, p, e);
        if (st == OK) st = quant_output_put(out, g->item[i], m.bytes, &m.solved, e);
        if (st == OK) bar_update(&q->bar, ++q->n_done, it->src->name);
        if (st == OK && cli_interrupted) st = err_set(e, ERR_INTERRUPTED, "interrupted");
    }
    metric_close(&metric);
    mem_free(importance);
    return st;
}

/* What is searched although the model multiplies by it, or looks it up: what comes behind should meet it as it will be. */
static bool is_searched(const struct quant_item *it)
{
    return !it->kept && it->n_outliers == 0 && !quant_solve_takes(it) && !solve_experts_takes(it);
}

static status searched_run(struct quant_solve *q, const char *name, struct quant_output *out, uint8_t **bytes, struct err *e)
{
    int64_t i = item_of(q->plan, name);
    bool have;
    *bytes = NULL;
    if (i < 0 || !is_searched(quant_plan_item(q->plan, i))) return OK;
    const struct quant_item *it = quant_plan_item(q->plan, i);
    if (!(*bytes = mem_alloc(it->bytes_to))) return err_oom(e, "a searched tensor", it->bytes_to);
    TRY(quant_output_get(out, i, *bytes, &have, e));
    if (!have) {
        TRY(quant_output_make(out, i, *bytes, layers_pool(q->k->layers), e));
        TRY(quant_output_put(out, i, *bytes, NULL, e));
    }
    if (layers_replace(q->k->layers, name, it->to, *bytes, it->bytes_to, NULL) == OK) return OK;
    mem_free(*bytes); /* nothing multiplies by this format: it stays as it was here */
    *bytes = NULL;
    return OK;
}

static void put_back(struct quant_solve *q, const char *name, uint8_t *bytes)
{
    status back = bytes ? layers_replace(q->k->layers, name, NULL, NULL, 0, NULL) : OK;
    assert(back == OK);
    mem_free(bytes);
}

/* Stacks of experts that read one input. */
static status stack_solve(struct quant_solve *q, struct group *g, const struct quant_kernels *qk, struct quant_output *out, struct err *e)
{
    struct solve_experts x;
    TRY(solve_experts_open(&x, q->k, qk, g->w[0]->name, g->w[0]->ne[0], g->w[0]->ne[2], e));
    status st = OK;
    for (int i = 0; st == OK && i < g->n; i++) {
        const char *name = quant_plan_item(q->plan, g->item[i])->src->name;
        if (g->have[i]) continue;
        st = solve_experts_run(&x, q->plan, g->item[i], gguf_tensor(model_gguf(q->k->model), name), g->bytes[i], e);
        if (st == OK) st = quant_output_put(out, g->item[i], g->bytes[i], NULL, e);
        if (st == OK) bar_update(&q->bar, ++q->n_done, name);
    }
    solve_experts_close(&x);
    return st;
}

static status group_run(struct quant_solve *q, struct group *g, bool stack, const struct quant_kernels *qk, struct quant_output *out, struct err *e)
{
    bool all = true;
    for (int i = 0; i < g->n; i++) {
        size_t n = quant_plan_item(q->plan, g->item[i])->bytes_to;
        if (!(g->bytes[i] = mem_alloc(n))) return err_oom(e, "a solved tensor", n);
        TRY(quant_output_get(out, g->item[i], g->bytes[i], &g->have[i], e));
        all &= g->have[i];
        q->n_done += g->have[i], q->bar.before += g->have[i];
    }
    if (!all && stack) TRY(stack_solve(q, g, qk, out, e));
    if (!all && !stack) {
        struct input in;
        TRY(input_open(&in, q, qk, g->w[0]->name, g->w[0]->ne[0], g->sum, e));
        status st = group_solve(q, g, &in, out, e);
        input_close(&in);
        if (st != OK) return st;
    }
    for (int i = 0; i < g->n; i++) {
        const struct quant_item *it = quant_plan_item(q->plan, g->item[i]);
        TRY(layers_replace(q->k->layers, it->src->name, it->to, g->bytes[i], it->bytes_to, e));
    }
    return OK;
}

/* The groups of part il, in the order in which they are computed; afterwards, and when it fails, the part has its own weights again. */
static status part_run(struct quant_solve *q, const struct quant_kernels *qk, bool step, struct quant_output *out, struct err *e)
{
    struct layers_matmul mm[MATMULS_MAX];
    struct group g[MATMULS_MAX], stack[MATMULS_MAX];
    uint8_t *searched[MATMULS_MAX] = { NULL };
    int n, n_groups = 0;
    TRY(layers_matmuls(q->k->layers, q->k->il, mm, MATMULS_MAX, &n, e));
    memset(g, 0, sizeof g), memset(stack, 0, sizeof stack);
    n = (int)min_i64(n, MATMULS_MAX);
    for (int i = 0; i < n; i++) {
        int at = mm[i].group;
        if (at >= MATMULS_MAX) continue;
        group_add(q, &g[at], &stack[at], &mm[i]);
        if (at + 1 > n_groups) n_groups = at + 1;
    }
    for (int i = 0; i + 1 < n_groups; i++)
        if (g[i].sum == LAYERS_SUM_OUT) g[i].sum = LAYERS_SUM_NONE; /* the layer ends with the last one only */
    int il = q->k->il;
    status st = q->fold ? quant_fold_enter(q->fold, q->k->layers, il, e) : OK;
    if (st == OK && q->fold && q->twin) st = quant_fold_enter(q->fold, q->twin->layers, il, e); /* inputs of both are scaled alike */
    for (int i = 0; st == OK && i < n && step; i++) st = searched_run(q, mm[i].w->name, out, &searched[i], e);
    for (int i = 0; st == OK && i < n_groups; i++) {
        if (g[i].n > 0) st = group_run(q, &g[i], false, qk, out, e);
        if (st == OK && stack[i].n > 0) st = group_run(q, &stack[i], true, qk, out, e);
    }
    if (st == OK && step && q->twin) st = twin_step(q->twin, e);
    if (st == OK && step) st = calibration_step(q->k, e);
    for (int i = 0; i < n_groups; i++)
        for (int j = 0; j < g[i].n; j++) put_back(q, quant_plan_item(q->plan, g[i].item[j])->src->name, g[i].bytes[j]);
    for (int i = 0; i < n_groups; i++)
        for (int j = 0; j < stack[i].n; j++) put_back(q, quant_plan_item(q->plan, stack[i].item[j])->src->name, stack[i].bytes[j]);
    for (int i = 0; i < n; i++) put_back(q, mm[i].w->name, searched[i]);
    if (q->fold) quant_fold_leave(q->fold, q->k->layers, il);
    if (q->fold && q->twin) quant_fold_leave(q->fold, q->twin->layers, il);
    return st;
}

static int64_t count_tensors(const struct quant_solve *q)
{
    int64_t n = 0;
    for (int64_t i = 0; i < quant_plan_n(q->plan); i++) n += quant_solve_takes(quant_plan_item(q->plan, i)) || solve_experts_takes(quant_plan_item(q->plan, i));
    return n;
}

status quant_solve_run(void *ctx, struct quant_output *out, struct err *e)
{
    struct quant_solve *q = ctx;
    struct quant_kernels qk;
    struct cpu_info cpu;
    struct model_info info;
    struct twin twin = { 0 };
    double start = now_seconds();
    cpu_detect(&cpu);
    uint64_t features = cpu.features;
    if (q->c->isa) TRY(isa_features(q->c->isa, &cpu, &features, e));
    quant_kernels_init(&qk, features);
    model_info(q->k->model, &info);
    int64_t total = count_tensors(q);
    bar_begin(&q->bar, q->c, "solve", "tensors", total);
    bar_update(&q->bar, 0, NULL);
    uint8_t *embd;
    status st = searched_run(q, "token_embd.weight", out, &embd, e);
    if (st == OK) st = calibration_start(q->k, e);
    put_back(q, "token_embd.weight", embd);
    if (st == OK && q->correct > 0.0f) {
        q->twin = &twin;
        st = twin_open(&twin, q->k, q->c, e);
        if (st == OK) st = twin_start(&twin, e);
    }
    while (st == OK && q->n_done < total && q->k->il < info.n_layer) st = part_run(q, &qk, true, out, e);
    if (st == OK && q->n_done < total && gguf_tensor(model_gguf(q->k->model), "output.weight")) st = part_run(q, &qk, false, out, e);
    bar_end(&q->bar);
    twin_close(&twin);
    q->twin = NULL;
    q->seconds = now_seconds() - start;
    return st;
}
