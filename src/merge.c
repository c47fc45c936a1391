/* merge - see merge.h. The ranks of several adapters are put together: a tensor has one pair L [rows][rank], R [rank][columns], scales in L. */
#include "src/merge.h"
#include "src/lora_int.h"
#include "src/model_int.h"
#include <math.h>
#include <string.h>

struct term {
    int64_t rank, rows, cols, n_mat; /* rows of one matrix */
    float *l, *r;                    /* [n_mat][rows][rank], [n_mat][rank][cols] */
};

struct merge {
    const struct model *m;
    struct arena arena;
    bool *has;
    struct term *term; /* [tensors] */
    int64_t n;
};

static status check(const struct merge *g, const struct lora_pair *p, struct err *e)
{
    const struct tensor *embd = model_weight(g->m, -1, W_EMBD), *head = model_weight(g->m, -1, W_OUTPUT);
    bool tied = embd && (!head || head->data == embd->data);
    if (!tied || (p->id != W_EMBD && p->id != W_OUTPUT)) return OK;
    return err_set(e, ERR_FORMAT, "%s: embedding and head are one tensor of this model: merging would change both. Use the adapter beside it (--lora)",
                   p->a.name);
}

/* Room for the ranks of all adapters in use. */
static status make_term(struct merge *g, struct term *t, const struct tensor *w, int64_t rank, struct err *e)
{
    size_t l, r;
    *t = (struct term){ .rows = w->ne[1], .cols = w->ne[0], .n_mat = w->ne[2], .rank = rank };
    bool fits = mul_size((size_t)tensor_rows(w), (size_t)rank, &l) && mul_size((size_t)(w->ne[2] * rank), (size_t)w->ne[0], &r);
    t->l = fits ? arena_zalloc(&g->arena, l, sizeof *t->l) : NULL;
    t->r = fits ? arena_zalloc(&g->arena, r, sizeof *t->r) : NULL;
    return t->l && t->r ? OK : err_oom(e, w->name, SIZE_MAX);
}

/* One adapter's pair into columns `at`.. of L and rows `at`.. of R. Of the embedding L is A, which the file has turned, and R is B turned. */
static status fill(struct term *t, const struct lora_pair *p, float scale, int64_t at, struct err *e)
{
    const struct tensor *left = p->id == W_EMBD ? &p->a : &p->b, *right = p->id == W_EMBD ? &p->b : &p->a;
    int64_t rank = p->b.ne[0], longest = max_i64(max_i64(left->ne[0], right->ne[0]), 1);
    float *row = mem_alloc((size_t)longest * sizeof *row);
    if (!row) return err_oom(e, left->name, (size_t)longest * sizeof *row);
    for (int64_t i = 0; i < t->n_mat * t->rows; i++) {
        dtype_to_f32(left->type, (const uint8_t *)left->data + (size_t)i * left->nb[1], row, rank);
        for (int64_t k = 0; k < rank; k++) t->l[i * t->rank + at + k] = scale * row[k];
    }
    for (int64_t i = 0; i < right->ne[1] * t->n_mat; i++) {
        dtype_to_f32(right->type, (const uint8_t *)right->data + (size_t)i * right->nb[1], row, right->ne[0]);
        int64_t mat = i / right->ne[1], j = i % right->ne[1];
        float *to = t->r + (mat * t->rank + at) * t->cols;
        if (p->id == W_EMBD)
            for (int64_t k = 0; k < rank; k++) to[k * t->cols + j] = row[k];
        else memcpy(to + j * t->cols, row, (size_t)t->cols * sizeof *row);
    }
    mem_free(row);
    return OK;
}

/* No element of the sum may overflow: files with infinities in them help nobody. */
static status check_size(const struct term *t, const char *name, struct err *e)
{
    double most[2] = { 0 };
    const float *part[] = { t->l, t->r };
    int64_t n[] = { t->n_mat * t->rows * t->rank, t->n_mat * t->rank * t->cols };
    for (int k = 0; k < 2; k++)
        for (int64_t i = 0; i < n[k]; i++) {
            double x = fabs((double)part[k][i]);
            most[k] = fmax(most[k], x);
            if (!isfinite(x)) return err_set(e, ERR_FORMAT, "%s: the adapter times its scale is %g in some places", name, (double)part[k][i]);
        }
    double top = most[0] * most[1] * (double)t->rank;
    return top < 1e37 ? OK : err_set(e, ERR_FORMAT, "%s: the adapter times its scale reaches %.3g, expected less than 1e37", name, top);
}

static status add_weight(struct merge *g, const struct adapter_use *use, int n, const struct weight_row *r, int il, struct err *e)
{
    const struct tensor *w = model_weight(g->m, il, r->id);
    int64_t rank = 0, at = 0;
    for (int i = 0; i < n; i++) {
        const struct lora_pair *p = use[i].scale != 0 ? adapter_pair(use[i].adapter, il, r->id) : NULL;
        if (p) TRY(check(g, p, e));
        rank += p ? p->b.ne[0] : 0;
    }
    if (rank == 0) return OK;
    int64_t tensor = gguf_tensor(&g->m->g, w->name) - g->m->g.tensor;
    struct term *t = &g->term[tensor];
    TRY(make_term(g, t, w, rank, e));
    for (int i = 0; i < n; i++) {
        const struct lora_pair *p = use[i].scale != 0 ? adapter_pair(use[i].adapter, il, r->id) : NULL;
        if (!p) continue;
        TRY(fill(t, p, use[i].scale * p->factor, at, e));
        at += p->b.ne[0];
    }
    TRY(check_size(t, w->name, e));
    g->has[tensor] = true;
    g->n++;
    return OK;
}

static status add_all(struct merge *g, const struct adapter_use *use, int n, struct err *e)
{
    size_t tensors = (size_t)g->m->g.n_tensors;
    g->has = arena_zalloc(&g->arena, tensors, sizeof *g->has);
    g->term = arena_zalloc(&g->arena, tensors, sizeof *g->term);
    if (!g->has || !g->term) return err_oom(e, "merge", tensors * sizeof *g->term);
    for (int il = -1; il < g->m->hp.n_layer; il++)
        for (const struct weight_row *r = g->m->arch->weights; r->gguf; r++)
            if ((r->id >= W_LAYER_COUNT) == (il < 0) && model_weight(g->m, il, r->id)) TRY(add_weight(g, use, n, r, il, e));
    return g->n ? OK : err_set(e, ERR_USAGE, "nothing to merge: all scales are 0");
}

status merge_open(struct merge **out, const struct model *m, const struct adapter_use *use, int n, struct err *e)
{
    *out = NULL;
    struct merge *g = mem_calloc(1, sizeof *g);
    if (!g) return err_oom(e, "merge", sizeof *g);
    g->m = m;
    arena_init(&g->arena, 0);
    status st = add_all(g, use, n, e);
    if (st == OK) *out = g;
    else merge_close(g);
    return st;
}

void merge_close(struct merge *g)
{
    if (!g) return;
    arena_free(&g->arena);
    mem_free(g);
}

const bool *merge_has(const struct merge *g) { return g->has; }
int64_t merge_n(const struct merge *g) { return g->n; }

void merge_add(const struct merge *g, int64_t tensor, float *x, int64_t row, int64_t n)
{
    const struct term *t = &g->term[tensor];
    for (int64_t i = row; i < row + n && t->rank; i++, x += t->cols) {
        const float *l = t->l + i * t->rank, *r = t->r + i / t->rows * t->rank * t->cols;
        for (int64_t k = 0; k < t->rank; k++, r += t->cols)
            for (int64_t c = 0; c < t->cols; c++) x[c] += l[k] * r[c];
    }
}

/* |L R|^2 = sum of the products of (L^T L) and (R R^T), entry by entry: no need to make L R. */
static double square(const struct term *t, int64_t mat)
{
    const float *l = t->l + mat * t->rows * t->rank, *r = t->r + mat * t->rank * t->cols;
    double sum = 0;
    for (int64_t a = 0; a < t->rank; a++)
        for (int64_t b = 0; b <= a; b++) {
            double left = 0, right = 0;
            for (int64_t i = 0; i < t->rows; i++) left += (double)l[i * t->rank + a] * (double)l[i * t->rank + b];
            for (int64_t c = 0; c < t->cols; c++) right += (double)r[a * t->cols + c] * (double)r[b * t->cols + c];
            sum += (a == b ? 1 : 2) * left * right;
        }
    return sum;
}

double merge_norm(const struct merge *g, int64_t tensor)
{
    const struct term *t = &g->term[tensor];
    double sum = 0;
    for (int64_t i = 0; i < t->n_mat && t->rank; i++) sum += square(t, i);
    return sqrt(fmax(sum, 0));
}
