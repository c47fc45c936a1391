/* solve_experts - see solve_experts.h */
#include "tools/solve_experts.h"
#include <stdatomic.h>
#include "ggml-like/pool.h"
#include "src/cuanto.h"

bool solve_experts_takes(const struct quant_item *it)
{
    struct grid g;
    if (it->kept || it->n_mat < 2 || it->n_outliers > 0 || it->cols % METRIC_PANEL || it->to->group_len == 0 || it->to->gguf_id == GGUF_Q8_0) return false;
    double bytes = (double)it->cols * ((double)it->cols + HESSIAN_ROWS) * (double)it->n_mat * sizeof(float);
    return bytes <= (double)SOLVE_EXPERTS_MB * (1 << 20) && grid_make(&g, it->to, NULL) == OK;
}

static void add_rows(void *ctx, const struct shown *s, int ith, int nth)
{
    struct solve_experts *x = ctx;
    for (int64_t i = 0; i < s->n && s->mat < x->n_mat; i++)
        if (!calibration_held_out(x->k, shown_row(s, i) / x->k->n_ctx))
            hessian_add(&x->h[s->mat], x->qk, shown_x(s, i), s->stride, NULL, 1, x->pool, ith, nth);
}

static void finish_all(void *ctx, int ith, int nth)
{
    struct solve_experts *x = ctx;
    int64_t begin, end;
    for (int64_t i = 0; i < x->n_mat; i++) hessian_finish(&x->h[i], x->qk, x->pool, ith, nth);
    pool_range(x->n, 1, ith, nth, &begin, &end);
    for (int64_t i = 0; i < x->n_mat; i++)
        for (int64_t j = begin * x->n; j < end * x->n; j++) x->layer[j] += x->h[i].h[j];
}

status solve_experts_open(struct solve_experts *x, struct calibration *k, const struct quant_kernels *qk, const char *name, int64_t n, int64_t n_mat,
                          struct err *e)
{
    size_t all = (size_t)(n * n);
    *x = (struct solve_experts){ .k = k, .qk = qk, .pool = layers_pool(k->layers), .n = n, .n_mat = n_mat };
    x->h = mem_calloc((size_t)n_mat, sizeof *x->h);
    x->layer = mem_calloc(all, sizeof *x->layer);
    status st = x->h && x->layer ? OK : err_oom(e, "Hessian of all experts", all * sizeof *x->layer);
    for (int64_t i = 0; st == OK && i < n_mat; i++) st = hessian_open(&x->h[i], n, e);
    if (st == OK) st = calibration_show(k, &name, 1, add_rows, x, e);
    if (st == OK) pool_run(x->pool, finish_all, x);
    for (int64_t i = 0; st == OK && i < n_mat; i++) x->count += x->h[i].count;
    if (st != OK) solve_experts_close(x);
    return st;
}

void solve_experts_close(struct solve_experts *x)
{
    for (int64_t i = 0; x->h && i < x->n_mat; i++) hessian_close(&x->h[i]);
    mem_free(x->h);
    mem_free(x->layer);
    *x = (struct solve_experts){ 0 };
}

/* Tokens that the mean of an expert's own Hessian, with weight 1 - r, and the layer's, r = n / (n + tokens), is worth; mix: [n][n] per token. */
static double mix_of(const struct solve_experts *x, int64_t expert, float *mix)
{
    const struct hessian *h = &x->h[expert];
    double own = (double)h->count, all = (double)max_i64(1, x->count), r = (double)x->n / ((double)x->n + own);
    float a = own > 0 ? (float)((1 - r) / own) : 0.0f, b = (float)(r / all);
    for (int64_t i = 0; i < x->n * x->n; i++) mix[i] = a * h->h[i] + b * x->layer[i];
    return 1 / ((own > 0 ? (1 - r) * (1 - r) / own : 0) + r * r / all);
}

struct expert {
    struct solver solver;
    const struct solve_experts *x;
    const struct quant_plan *plan;
    int64_t item, first, n_rows; /* of the expert in the stack */
    const struct tensor *src;
    uint8_t *bytes, *scratch;    /* of the stack; [threads] */
    size_t scratch_bytes;
    float *w;                    /* [threads][SOLVE_ROWS][n] */
    _Atomic int64_t next;
    _Atomic bool unsound;
};

static void solve_thread(void *ctx, int ith, int nth)
{
    struct expert *p = ctx;
    int64_t n = p->x->n;
    float *w = p->w + (int64_t)ith * SOLVE_ROWS * n;
    size_t from = dtype_row_bytes(p->src->type, n), to = dtype_row_bytes(p->solver.grid.type, n);
    (void)nth;
    for (int64_t row; (row = atomic_fetch_add(&p->next, SOLVE_ROWS)) < p->n_rows;) {
        int64_t rows = min_i64(SOLVE_ROWS, p->n_rows - row), at = p->first + row;
        dtype_to_f32(p->src->type, (const uint8_t *)p->src->data + (size_t)at * from, w, rows * n);
        quant_plan_scale(p->plan, p->item, w, at, rows);
        if (!solve_sound(w, rows * n)) {
            atomic_store(&p->unsound, true);
            return;
        }
        solve_rows(&p->solver, p->x->qk, w, rows, p->bytes + (size_t)at * to, NULL, p->scratch + (size_t)ith * p->scratch_bytes);
    }
}

static status run_one(struct expert *p, const struct dtype *to, const float *mix, double tokens, float *importance, struct err *e)
{
    const struct metric_options mo = { METRIC_DAMPING, metric_shrink(p->x->n, (int64_t)tokens) };
    struct metric m;
    struct err why = { 0 };
    for (int64_t i = 0; i < p->x->n; i++) importance[i] = mix[i * (p->x->n + 1)];
    if (metric_open(&m, mix, p->x->n, &mo, p->x->qk, p->x->pool, &why) != OK)
        return err_set(e, why.code, "input of %s: %s", p->src->name, why.text);
    status st = solver_init(&p->solver, to, &m, importance, e);
    atomic_store(&p->next, 0);
    if (st == OK) pool_run(p->x->pool, solve_thread, p);
    metric_close(&m);
    if (st == OK && atomic_load(&p->unsound)) st = err_set(e, ERR_FORMAT, "%s: holds NaN or infinity: the weights are damaged", p->src->name);
    return st;
}

status solve_experts_run(struct solve_experts *x, struct quant_plan *plan, int64_t item, const struct tensor *src, uint8_t *bytes, struct err *e)
{
    const struct quant_item *it = quant_plan_item(plan, item);
    struct expert *p = mem_calloc(1, sizeof *p);
    struct arena a;
    size_t threads = (size_t)pool_threads(x->pool), n = (size_t)x->n;
    if (!p) return err_oom(e, "solver of experts", sizeof *p);
    arena_init(&a, 0);
    *p = (struct expert){ .x = x, .plan = plan, .item = item, .n_rows = it->rows, .src = src, .bytes = bytes };
    const struct metric shape = { .n = x->n };
    p->solver.metric = &shape;
    p->scratch_bytes = solve_scratch(&p->solver);
    p->scratch = arena_zalloc(&a, threads, p->scratch_bytes);
    p->w = arena_zalloc(&a, threads, SOLVE_ROWS * n * sizeof *p->w);
    float *mix = arena_zalloc(&a, n, n * sizeof *mix), *importance = arena_zalloc(&a, n, sizeof *importance);
    status st = p->scratch && p->w && mix && importance ? OK : err_oom(e, "solver of experts", threads * p->scratch_bytes);
    for (int64_t i = 0; st == OK && i < x->n_mat; i++) {
        if (cli_interrupted) st = err_set(e, ERR_INTERRUPTED, "interrupted");
        p->first = i * it->rows;
        double tokens = mix_of(x, i, mix);
        if (st == OK) st = run_one(p, it->to, mix, tokens, importance, e);
    }
    arena_free(&a);
    mem_free(p);
    return st;
}
