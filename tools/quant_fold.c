/* quant_fold - see quant_fold.h. The factors of a group are s_j = h_j^(a/2), h the mean square of input j, over their geometric mean. Every a of a short
 * list is tried on some rows of each matrix: scaled, searched with importance h_j / s_j^2, compared. a = 0 is among them, so no group gets worse by this
 * measure. */
#include "tools/quant_fold.h"
#include <assert.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include "ggml-like/kernels/kernels.h"
#include "ggml-like/pool.h"

enum { TRIES = 11, STEP = 10 /* a = i / STEP */, SAMPLE_ROWS = 128 /* of each matrix or stack */, TASK_ROWS = 16 };
#define WORTH 0.97 /* of the error without factors: the best of eleven tries on some rows is a little better by chance, too */
#define LEAST_H 1e-6 /* of the mean: inputs that hardly ever come */

/* Rows of one matrix that reads the group's input. */
struct sample {
    const struct quant_item *item;
    const int32_t *of;             /* factor of each column */
    float *x, *h;                  /* [n][cols]; [n] rows of importance: those of its matrix */
    int64_t n;
    double weight;                 /* rows of the matrix for each of these */
    int first_task;
};

struct search {
    const struct quantizer *method;
    const struct quant_kernels *qk;
    struct kernels k;
    struct pool *pool;
    struct sample *sample;         /* [n] */
    int n, n_tasks;                /* tasks of one try */
    const float *s[TRIES];
    double *error;                 /* [TRIES][n_tasks] */
    float *room;                   /* [threads][room_floats] */
    size_t room_floats;
    uint8_t *scratch;              /* [threads][QUANT_SCRATCH] */
    _Atomic int next;
};

static int64_t find_item(struct quant_plan *p, const struct tensor *w)
{
    for (int64_t i = 0; i < quant_plan_n(p); i++)
        if (!strcmp(quant_plan_item(p, i)->src->name, w->name)) return i;
    return -1;
}

/* Every weight of the group can be scaled in this plan, and somebody gains by it. Blocks of 256 have scales for each 16 or 32 columns that search and solver
 * choose well: there it is for those who ask (1.5B, four layers: KL as without, give or take 10 %). */
static bool usable(const struct cli *c, struct quant_plan *p, const struct fold_group *g)
{
    bool gains = false, asked = c->fold || quant_plan_options(p)->spec.method == &quantizer_awq;
    for (int i = 0; i < g->n_parts; i++) {
        int64_t at = find_item(p, g->part[i].w);
        const struct quant_item *it = at < 0 ? NULL : quant_plan_item(p, at);
        if (g->refused || !it || (it->kept && it->to->gguf_id != GGUF_F32)) return false;
        if (!it->kept && i < g->n_readers && it->to->block_len > QUANT_FOLD_COARSE && !asked) return false;
        gains |= i < g->n_readers && !it->kept && it->has_importance;
    }
    return gains;
}

/* Mean square of what meets each factor, from all matrices that know it. */
static bool mean_squares(const struct importance *im, const struct fold_group *g, double *h)
{
    double tokens = 0, sum = 0;
    memset(h, 0, (size_t)g->n * sizeof *h);
    for (int i = 0; i < g->n_readers; i++) {
        const struct importance_entry *en = importance_find(im, g->part[i].w->name);
        int64_t cols = g->part[i].w->ne[0];
        if (!en || en->n_cols % cols) continue;
        for (int64_t m = 0; m < en->n_mat; m++) tokens += (double)en->count[m];
        for (int64_t c = 0; c < en->n_mat * en->n_cols; c++) h[g->part[i].of[c % cols]] += en->sum2[c];
    }
    for (int64_t j = 0; j < g->n; j++) sum += h[j];
    if (!(tokens > 0) || !(sum > 0)) return false;
    for (int64_t j = 0; j < g->n; j++) h[j] = fmax(h[j], LEAST_H * sum / (double)g->n);
    return true;
}

/* h^(a/2) over its geometric mean */
static void factors(const double *h, int64_t n, double a, float *s)
{
    double mean = 0;
    for (int64_t j = 0; j < n; j++) mean += log(h[j]);
    for (int64_t j = 0; j < n; j++) s[j] = (float)exp(a / 2 * (log(h[j]) - mean / (double)n));
}

/* ---- the tries of one group ---- */

static void try_rows(struct search *x, int try, const struct sample *a, int64_t row, int ith, double *error)
{
    int64_t cols = a->item->cols, n = min_i64(TASK_ROWS, a->n - row);
    float *y = x->room + (size_t)ith * x->room_floats, *w = y + cols, *back = w + cols;
    uint8_t *bytes = (uint8_t *)(back + cols), *scratch = x->scratch + (size_t)ith * QUANT_SCRATCH;
    const struct quant_spec spec = { .method = x->method, .type = a->item->to };
    *error = 0;
    for (int64_t r = row; r < row + n; r++) {
        double sum = 0;
        for (int64_t c = 0; c < cols; c++) {
            float s = x->s[try][a->of[c]];
            y[c] = a->x[r * cols + c] * s;
            w[c] = a->h[r * cols + c] / (s * s);
        }
        x->method->rows(&spec, x->qk, 0, 0, y, w, 1, cols, bytes, scratch);
        x->k.to_f32(a->item->to, bytes, back, cols);
        for (int64_t c = 0; c < cols; c++) sum += (double)w[c] * ((double)y[c] - back[c]) * ((double)y[c] - back[c]);
        *error += a->weight * sum;
    }
}

static void try_thread(void *ctx, int ith, int nth)
{
    struct search *x = ctx;
    for (int at; (at = atomic_fetch_add(&x->next, 1)) < TRIES * x->n_tasks;) {
        int task = at % x->n_tasks, i = x->n - 1;
        while (x->sample[i].first_task > task) i--;
        try_rows(x, at / x->n_tasks, &x->sample[i], (int64_t)(task - x->sample[i].first_task) * TASK_ROWS, ith, &x->error[at]);
    }
    (void)nth;
}

static status take_sample(struct search *x, struct quant_plan *p, const struct importance *im, const struct fold_part *part, struct arena *a, struct err *e)
{
    const struct quant_item *it = quant_plan_item(p, find_item(p, part->w));
    struct sample *s = &x->sample[x->n];
    int64_t all = it->rows * it->n_mat, cols = it->cols;
    if (it->kept || !it->has_importance) return OK;
    *s = (struct sample){ .item = it, .of = part->of, .n = min_i64(SAMPLE_ROWS, all), .first_task = x->n_tasks };
    s->weight = (double)all / (double)s->n;
    s->x = arena_zalloc(a, (size_t)(s->n * cols), 2 * sizeof *s->x);
    if (!s->x) return err_oom(e, "rows to try factors on", (size_t)(s->n * cols) * 2 * sizeof *s->x);
    s->h = s->x + s->n * cols;
    for (int64_t i = 0; i < s->n; i++) {
        int64_t row = i * all / s->n;
        dtype_to_f32(part->w->type, (const uint8_t *)part->w->data + (size_t)row * dtype_row_bytes(part->w->type, cols), s->x + i * cols, cols);
        for (int64_t c = 0; c < cols; c++)
            if (!isfinite(s->x[i * cols + c]))
                return err_set(e, ERR_FORMAT, "%s: row %lld, column %lld is %g: the weights are damaged", it->src->name, (long long)row, (long long)c,
                               (double)s->x[i * cols + c]);
        if (!importance_slice(importance_find(im, it->src->name), cols, it->n_mat, row / it->rows, s->h + i * cols))
            return err_set(e, ERR_USAGE, "%s: the importance does not fit", it->src->name); /* the plan has seen that it does */
    }
    x->n_tasks += (int)((s->n + TASK_ROWS - 1) / TASK_ROWS);
    x->n++;
    return OK;
}

static status make_room(struct search *x, struct arena *a, struct err *e)
{
    size_t threads = (size_t)pool_threads(x->pool);
    x->room_floats = 0;
    for (int i = 0; i < x->n; i++) {
        const struct quant_item *it = x->sample[i].item;
        size_t floats = 4 * (size_t)it->cols; /* a row, its importance, what comes back, its bytes */
        if (floats > x->room_floats) x->room_floats = (floats + 15) & ~(size_t)15;
    }
    x->error = arena_zalloc(a, TRIES * (size_t)x->n_tasks, sizeof *x->error);
    x->room = arena_zalloc(a, threads, x->room_floats * sizeof *x->room);
    x->scratch = arena_alloc(a, threads * QUANT_SCRATCH);
    return x->error && x->room && x->scratch ? OK : err_oom(e, "factors", threads * (QUANT_SCRATCH + x->room_floats * sizeof *x->room));
}

/* The factors that lose least, NULL where none is better than 1. *gain: of the error, what is left. */
static status search_group(struct search *x, struct quant_plan *p, const struct importance *im, const struct fold_group *g, struct arena *a, float **best,
                           double *gain, struct err *e)
{
    double *h = arena_zalloc(a, (size_t)g->n, sizeof *h), least = 0, first = 0;
    float *s = arena_zalloc(a, (size_t)g->n, TRIES * sizeof *s);
    x->sample = arena_zalloc(a, (size_t)g->n_readers, sizeof *x->sample);
    *best = NULL, *gain = 1;
    if (!h || !s || !x->sample) return err_oom(e, "factors", (size_t)g->n * TRIES * sizeof *s);
    if (!mean_squares(im, g, h)) return OK;
    for (int t = 0; t < TRIES; t++) {
        factors(h, g->n, (double)t / STEP, s + t * g->n);
        x->s[t] = s + t * g->n;
    }
    x->n = x->n_tasks = 0;
    for (int i = 0; i < g->n_readers; i++) TRY(take_sample(x, p, im, &g->part[i], a, e));
    TRY(make_room(x, a, e));
    atomic_store(&x->next, 0);
    pool_run(x->pool, try_thread, x);
    for (int t = 0; t < TRIES; t++) {
        double sum = 0;
        for (int i = 0; i < x->n_tasks; i++) sum += x->error[t * x->n_tasks + i];
        if (t == 0) first = least = sum;
        if (sum < least) least = sum, *best = s + t * g->n;
    }
    *gain = first > 0 ? least / first : 1;
    if (*gain > WORTH) *best = NULL, *gain = 1;
    return OK;
}

/* ---- all groups ---- */

/* The importance of columns that are larger by `column` is less by its square. */
static void scale_importance(struct importance *im, const struct fold_scale *s)
{
    const struct importance_entry *en = importance_find(im, s->w->name);
    for (int64_t c = 0; en && s->column && en->n_cols % s->w->ne[0] == 0 && c < en->n_mat * en->n_cols; c++) {
        double f = s->column[c % s->w->ne[0]];
        en->sum2[c] /= f * f;
    }
}

/* All groups of a weight are in one part: that of the matrices that read. */
static int part_of(const struct fold *f, const float *const *s, const struct tensor *w)
{
    for (int i = 0; i < fold_n(f); i++)
        for (int k = 0; s[i] && k < fold_group(f, i)->n_parts; k++)
            if (fold_group(f, i)->part[k].w == w) return fold_group(f, i)->il;
    return 0;
}

static status keep_scales(struct quant_fold *q, struct quant_plan *p, const float *const *s, struct importance *im, struct err *e)
{
    struct fold_scale *scale;
    TRY(fold_scales(q->fold, s, &scale, &q->n, e));
    q->scale = mem_calloc((size_t)q->n + 1, sizeof *q->scale);
    q->il = mem_calloc((size_t)q->n + 1, sizeof *q->il);
    q->w = mem_calloc((size_t)q->n + 1, sizeof *q->w);
    q->copy = mem_calloc((size_t)q->n + 1, sizeof *q->copy);
    if (!q->scale || !q->il || !q->w || !q->copy) return err_oom(e, "factors", (size_t)q->n * sizeof *q->scale);
    for (int i = 0; i < q->n; i++) {
        q->scale[i] = (struct quant_scale){ quant_plan_item(p, find_item(p, scale[i].w))->src->name, scale[i].row, scale[i].column };
        q->w[i] = scale[i].w;
        q->il[i] = part_of(q->fold, s, scale[i].w);
        scale_importance(im, &scale[i]);
    }
    im->hash = importance_hash(im);
    return OK;
}

static status search_all(struct quant_fold *q, struct search *x, const struct cli *c, struct quant_plan *p, struct importance *im, struct arena *kept,
                         struct err *e)
{
    int n = fold_n(q->fold);
    float **s = arena_zalloc(kept, (size_t)n + 1, sizeof *s);
    double sum = 0;
    struct bar bar;
    if (!s) return err_oom(e, "factors", (size_t)n * sizeof *s);
    status st = OK;
    bar_begin(&bar, c, "scale", "groups", n);
    for (int i = 0; st == OK && i < n; i++) {
        const struct fold_group *g = fold_group(q->fold, i);
        struct arena a;
        float *best;
        double gain;
        if (cli_interrupted) st = err_set(e, ERR_INTERRUPTED, "interrupted");
        if (st != OK || !usable(c, p, g)) continue;
        bar_update(&bar, i, g->name);
        arena_init(&a, 0);
        st = search_group(x, p, im, g, &a, &best, &gain, e);
        if (st == OK && best && !(s[i] = arena_alloc(kept, (size_t)g->n * sizeof **s))) st = err_oom(e, "factors", (size_t)g->n * sizeof **s);
        if (st == OK && best) memcpy(s[i], best, (size_t)g->n * sizeof **s);
        if (c->verbose && !c->quiet && st == OK) {
            bar_end(&bar);
            fprintf(stderr, "%-32s error %.3f of that without factors\n", g->name, gain);
        }
        q->n_groups++;
        q->n_folded += st == OK && best;
        sum += log(gain);
        arena_free(&a);
    }
    bar_end(&bar);
    q->gain = q->n_groups > 0 ? exp(sum / q->n_groups) : 1;
    return st == OK ? keep_scales(q, p, (const float *const *)s, im, e) : st;
}

status quant_fold_open(struct quant_fold *q, const struct cli *c, const struct model *m, struct quant_plan *plan, struct importance *im, struct err *e)
{
    struct search x = { .method = quantizer_by_name("search") };
    struct quant_kernels qk;
    struct cpu_info cpu;
    struct arena kept;
    double start = now_seconds();
    *q = (struct quant_fold){ .gain = 1 };
    cpu_detect(&cpu);
    uint64_t features = cpu.features;
    if (c->isa) TRY(isa_features(c->isa, &cpu, &features, e));
    quant_kernels_init(&qk, features);
    kernels_init(&x.k, features);
    x.qk = &qk;
    arena_init(&kept, 0);
    status st = fold_open(&q->fold, m, e);
    if (st == OK) st = pool_open(&x.pool, c->threads > 0 ? (int)c->threads : cpu.n_threads_default, e);
    if (st == OK) st = search_all(q, &x, c, plan, im, &kept, e);
    pool_close(x.pool);
    arena_free(&kept);
    q->seconds = now_seconds() - start;
    if (st != OK) quant_fold_close(q);
    return st;
}

/* ---- a running model ---- */

static status scaled_copy(struct quant_fold *q, int i, struct err *e)
{
    const struct tensor *w = q->w[i];
    const struct quant_scale *s = &q->scale[i];
    int64_t cols = w->ne[0], rows = tensor_rows(w);
    size_t row = dtype_row_bytes(w->type, cols);
    if (q->copy[i]) return OK;
    if (!(q->copy[i] = mem_alloc((size_t)(rows * cols) * sizeof(float)))) return err_oom(e, w->name, (size_t)(rows * cols) * sizeof(float));
    for (int64_t r = 0; r < rows; r++) {
        float *x = q->copy[i] + r * cols, f = s->row ? s->row[r] : 1;
        dtype_to_f32(w->type, (const uint8_t *)w->data + (size_t)r * row, x, cols);
        for (int64_t c = 0; c < cols; c++) x[c] *= s->column ? f * s->column[c] : f;
    }
    return OK;
}

static void drop_copies(struct quant_fold *q, int but)
{
    for (int i = 0; i < q->n; i++) {
        if (q->il[i] == but) continue;
        mem_free(q->copy[i]);
        q->copy[i] = NULL;
    }
}

status quant_fold_enter(struct quant_fold *q, struct layers *l, int il, struct err *e)
{
    drop_copies(q, il);
    for (int i = 0; i < q->n; i++) {
        if (q->il[i] != il) continue;
        TRY(scaled_copy(q, i, e));
        TRY(layers_replace(l, q->w[i]->name, dtype_by_id(GGUF_F32), q->copy[i], (size_t)tensor_elements(q->w[i]) * sizeof(float), e));
    }
    return OK;
}

void quant_fold_leave(struct quant_fold *q, struct layers *l, int il)
{
    for (int i = 0; i < q->n; i++) {
        if (q->il[i] != il) continue;
        status st = layers_replace(l, q->w[i]->name, NULL, NULL, 0, NULL);
        assert(st == OK);
    }
}

void quant_fold_close(struct quant_fold *q)
{
    if (q->copy) drop_copies(q, -1);
    fold_close(q->fold);
    mem_free(q->scale);
    mem_free(q->il);
    mem_free(q->w);
    mem_free(q->copy);
    *q = (struct quant_fold){ 0 };
}
