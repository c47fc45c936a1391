/* solve - the part of the solver that is the same on every level: tables, checks, memory. */
#include "quant/solve.h"
#include <math.h>
#include <string.h>

static void make_book(struct solve_book *b, const struct grid *g)
{
    int half = g->vec_len / 2, hi_of[GRID_ENTRIES_MAX];
    *b = (struct solve_book){ .half = half };
    for (int q = 0; q < g->n; q++) {
        const int8_t *entry = g->entry + q * g->vec_len;
        int lo = 0, hi = 0;
        for (int i = 0; i < g->vec_len; i++) b->level[q * g->vec_len + i] = (float)entry[i];
        for (bool same = false; lo < b->n_lo && !same; lo += !same)
            for (int i = 0; i < half && (same = b->lo[lo][i] == (float)entry[i]); i++) {}
        for (bool same = false; hi < b->n_hi && !same; hi += !same)
            for (int i = 0; i < half && (same = b->hi[hi][i] == (float)entry[half + i]); i++) {}
        if (lo == b->n_lo) b->n_lo++;
        if (hi == b->n_hi) b->n_hi++;
        for (int i = 0; i < half; i++) b->lo[lo][i] = (float)entry[i], b->hi[hi][i] = (float)entry[half + i];
        hi_of[q] = hi;
        b->lo_of[q] = (uint8_t)lo;
    }
    uint8_t lo_of[GRID_ENTRIES_MAX];
    memcpy(lo_of, b->lo_of, sizeof lo_of);
    int at = 0;
    for (int h = 0; h < b->n_hi; h++) {
        b->start[h] = (int16_t)at;
        for (int q = 0; q < g->n; q++)
            if (hi_of[q] == h) b->q[at] = (int16_t)q, b->lo_of[at] = lo_of[q], at++;
    }
    b->start[b->n_hi] = (int16_t)at;
}

static void make_levels(struct solver *s)
{
    const struct grid *g = &s->grid;
    for (int i = 0; i < g->n_levels; i++) s->q_of[g->level[i] + 128] = g->level_q[i];
    for (int i = 0; i < 16 && !g->even; i++) {
        int at = i < g->n_levels ? i : g->n_levels - 1;
        s->table[i] = (float)g->level[at];
        s->between[i] = i + 1 < g->n_levels ? 0.5f * (float)(g->level[i] + g->level[i + 1]) : INFINITY;
    }
}

status solver_init(struct solver *s, const struct dtype *t, const struct metric *m, const float *importance, struct err *e)
{
    memset(s, 0, sizeof *s);
    TRY(grid_make(&s->grid, t, e));
    if (m->n % t->block_len) return err_set(e, ERR_USAGE, "%s: rows of %lld do not end with a block of %d", t->gguf_name, (long long)m->n, t->block_len);
    s->metric = m, s->importance = importance ? importance : m->d, s->stage = SOLVE_SCALES, s->sweeps = SOLVE_SWEEPS;
    if (s->grid.vec_len == 1) make_levels(s);
    else make_book(&s->book, &s->grid);
    return OK;
}

size_t solve_scratch(const struct solver *s)
{
    size_t n = (size_t)s->metric->n, vectors = n * 5 + n / 4 + n / 16 * 7, rows = vectors * SOLVE_ROWS * sizeof(float) + SOLVE_FIXED;
    return rows > QUANT_SCRATCH ? rows : QUANT_SCRATCH;
}

void solve_rows(const struct solver *s, const struct quant_kernels *k, const float *x, int64_t n_rows, void *dst, double (*loss)[SOLVE_STAGES], void *scratch)
{
    k->solve(s, k, x, n_rows, dst, loss ? loss[0] : NULL, scratch);
}

double solve_error(const struct solver *s, const struct quant_kernels *k, const float *h, const float *x, const void *rows, int64_t n_rows, void *scratch)
{
    return k->solve_error(s, h, x, rows, n_rows, scratch);
}
