/* trial - see trial.h. Rows go through the search in fixed groups, each on one thread: results do not depend on how many there are. */
#include "quant/trial.h"
#include <math.h>
#include <stdatomic.h>
#include <string.h>

enum { GROUP_ROWS = 16, TENSORS_AT_ONCE = 16 };

/* One thread's memory. */
struct room { float *x, *w, *y; uint8_t *out; void *scratch, *block; size_t bytes; };

struct trial {
    const struct trial_tools *t;
    struct room *room;                 /* [threads] */
    int64_t cols_max;
    _Atomic int64_t next;
    _Atomic bool unsound;
    /* errors */
    const struct tensor *const *tensor;
    int64_t n;
    const int *id;
    int n_ids;
    float *error;
    /* bytes */
    const struct dtype *to;
    uint8_t *dst;
};

bool trial_fits(const struct quant_kernels *k, int id, int64_t cols)
{
    const struct dtype *t = dtype_by_id(id);
    return t && k->rows[id] && cols % t->block_len == 0;
}

static status rooms_open(struct trial *t, struct err *e)
{
    int n = pool_threads(t->t->pool);
    size_t row = (size_t)t->cols_max * sizeof(float), group = GROUP_ROWS * row;
    t->room = mem_calloc((size_t)n, sizeof *t->room);
    if (!t->room) return err_oom(e, "trial", (size_t)n * sizeof *t->room);
    for (int i = 0; i < n; i++) {
        struct room *r = &t->room[i];
        row = (row + 63) & ~(size_t)63;
        r->bytes = QUANT_SCRATCH + 2 * group + 2 * row + 256; /* no format takes more than a float */
        if (!(r->block = mem_map(r->bytes))) return err_oom(e, "trial", r->bytes);
        uint8_t *at = r->block;
        r->scratch = at, at += QUANT_SCRATCH;
        r->w = (float *)(void *)at, at += row;
        r->y = (float *)(void *)at, at += row;
        r->x = (float *)(void *)at, at += (group + 63) & ~(size_t)63;
        r->out = at;
    }
    return OK;
}

static void rooms_close(struct trial *t)
{
    for (int i = 0; t->room && i < pool_threads(t->t->pool); i++)
        if (t->room[i].block) mem_unmap(t->room[i].block, t->room[i].bytes);
    mem_free(t->room);
}

/* Rows first, first + step, ... of one matrix as values; false: not all finite. */
static bool load(const struct tensor *s, int64_t mat, int64_t first, int64_t step, int64_t n, float *x)
{
    int64_t cols = s->ne[0];
    size_t bytes = dtype_row_bytes(s->type, cols);
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        dtype_to_f32(s->type, (const uint8_t *)s->data + (size_t)(mat * s->ne[1] + first + i * step) * bytes, x + i * cols, cols);
    for (int64_t i = 0; i < n * cols; i++) sum += (double)x[i] * (double)x[i];
    return isfinite(sum);
}

static const float *weights(const struct trial_tools *t, const struct tensor *s, int64_t mat, float *w)
{
    const struct importance_entry *en = t->importance ? importance_find(t->importance, s->name) : NULL;
    return en && importance_slice(en, s->ne[0], s->ne[2] * s->ne[3], mat, w) ? w : NULL;
}

/* Squared error and square of a group of rows, weighted. */
static void add_errors(const struct dtype *to, const struct room *r, const float *w, int64_t n, int64_t cols, double sum[2])
{
    size_t bytes = dtype_row_bytes(to, cols);
    for (int64_t i = 0; i < n; i++) {
        const float *x = r->x + i * cols;
        dtype_to_f32(to, r->out + (size_t)i * bytes, r->y, cols);
        for (int64_t j = 0; j < cols; j++) {
            double d = (double)x[j] - (double)r->y[j], v = w ? (double)w[j] : 1;
            sum[0] += v * d * d;
            sum[1] += v * (double)x[j] * (double)x[j];
        }
    }
}

static void try_one(struct trial *t, const struct tensor *s, int id, const struct room *r, float *out)
{
    int64_t cols = s->ne[0], rows = s->ne[1], mats = s->ne[2] * s->ne[3];
    int64_t want = max_i64(1, TRIAL_WEIGHTS / cols), groups = max_i64(1, want / GROUP_ROWS);
    double sum[2] = { 0, 0 };
    if (groups < mats) groups = min_i64(mats, 4 * groups); /* a stack: few rows of many of its matrices */
    for (int64_t g = 0; g < groups; g++) {
        int64_t mat = g * mats / groups, n = min_i64(GROUP_ROWS, rows), step = rows / n;
        const float *w = weights(t->t, s, mat, r->w);
        if (!load(s, mat, g * step / groups, step, n, r->x)) {
            atomic_store(&t->unsound, true);
            return;
        }
        t->t->qk->rows[id](t->t->qk, r->x, w, n, cols, r->out, r->scratch);
        add_errors(dtype_by_id(id), r, w, n, cols, sum);
    }
    *out = sum[1] > 0 ? (float)(sum[0] / sum[1]) : 0;
}

static void error_thread(void *ctx, int ith, int nth)
{
    struct trial *t = ctx;
    for (int64_t i; (i = atomic_fetch_add(&t->next, 1)) < t->n * t->n_ids;) {
        const struct tensor *s = t->tensor[i / t->n_ids];
        int id = t->id[i % t->n_ids];
        t->error[i] = NAN;
        if (trial_fits(t->t->qk, id, s->ne[0])) try_one(t, s, id, &t->room[ith], &t->error[i]);
    }
}

status trial_errors(const struct trial_tools *tools, const struct tensor *const *tensor, int64_t n, const int *id, int n_ids, float *error,
                    bool (*progress)(void *ctx, int64_t done), void *ctx, struct err *e)
{
    struct trial t = { .t = tools, .id = id, .n_ids = n_ids, .cols_max = 1 };
    for (int64_t i = 0; i < n; i++) t.cols_max = max_i64(t.cols_max, tensor[i]->ne[0]);
    status st = rooms_open(&t, e);
    for (int64_t i = 0; st == OK && i < n; i += TENSORS_AT_ONCE) {
        t.tensor = tensor + i, t.n = min_i64(TENSORS_AT_ONCE, n - i), t.error = error + i * n_ids;
        atomic_store(&t.next, 0);
        pool_run(tools->pool, error_thread, &t);
        if (atomic_load(&t.unsound)) st = err_set(e, ERR_FORMAT, "%s or a tensor near it holds NaN or infinity: the weights are damaged", tensor[i]->name);
        else if (progress && !progress(ctx, i + t.n)) st = err_set(e, ERR_INTERRUPTED, "interrupted");
    }
    rooms_close(&t);
    return st;
}

static void byte_thread(void *ctx, int ith, int nth)
{
    struct trial *t = ctx;
    const struct tensor *s = t->tensor[0];
    const struct room *r = &t->room[ith];
    int64_t cols = s->ne[0], rows = s->ne[1], mats = s->ne[2] * s->ne[3], per_mat = (rows + GROUP_ROWS - 1) / GROUP_ROWS;
    size_t bytes = dtype_row_bytes(t->to, cols);
    for (int64_t i; (i = atomic_fetch_add(&t->next, 1)) < mats * per_mat;) {
        int64_t mat = i / per_mat, row = i % per_mat * GROUP_ROWS, n = min_i64(GROUP_ROWS, rows - row);
        if (!load(s, mat, row, 1, n, r->x)) atomic_store(&t->unsound, true);
        else t->t->qk->rows[t->to->gguf_id](t->t->qk, r->x, weights(t->t, s, mat, r->w), n, cols, t->dst + (size_t)(mat * rows + row) * bytes, r->scratch);
    }
}

status trial_bytes(const struct trial_tools *tools, const struct tensor *tensor, const struct dtype *to, void *dst, struct err *e)
{
    struct trial t = { .t = tools, .tensor = &tensor, .to = to, .dst = dst, .cols_max = tensor->ne[0] };
    status st = rooms_open(&t, e);
    if (st == OK) pool_run(tools->pool, byte_thread, &t);
    if (st == OK && atomic_load(&t.unsound)) st = err_set(e, ERR_FORMAT, "%s holds NaN or infinity: the weights are damaged", tensor->name);
    rooms_close(&t);
    return st;
}
