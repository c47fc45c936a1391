/* solve_level_tmpl - feedback and descent where every element has a code of its own. */

/* The level nearest to v, in units of the scale. */
LANE_FN vf level_near(const struct solver *s, bool even, vf v)
{
    const struct grid *g = &s->grid;
    if (even) {
        vf lo = v_set((float)g->level[0]), step = v_set((float)g->step);
        vf t = v_mul(v_sub(v, lo), v_set(1.0f / (float)g->step));
        return v_add(v_mul(v_nearest(v_clamp(t, 0.0f, (float)(g->n_levels - 1))), step), lo);
    }
    vi at = vi_set(0);
    for (int bit = 8; bit; bit >>= 1) at = vi_sel(v_lt(v_table16(s->between, vi_add(at, vi_set(bit - 1))), v), vi_add(at, vi_set(bit)), at);
    return v_table16(s->table, at);
}

/* Columns k0 .. k0 + 15. */
LANE_FN void feedback_levels(struct solve_tile *t, int64_t k0, bool even)
{
    const float *m = metric_panel(t->m, k0 / CHUNK);
    int64_t r = k0 / t->group;
    vf acc[CHUNK], s = t->scale[r], inv = t->inverse[r], min = t->min[r];
    pull_16(acc, m, t->e, k0);
    for (int c = 0; c < CHUNK; c++) {
        int64_t k = k0 + c;
        vf code = level_near(t->s, even, v_mul(v_sub(v_add(t->x[k], acc[c]), min), inv)), y = v_add(v_mul(s, code), min), e = v_sub(t->x[k], y);
        t->code[k] = code, t->y[k] = y, t->e[k] = e;
        for (int i = c + 1; i < CHUNK; i++) acc[i] = v_add(acc[i], v_mul(v_set(m[k * CHUNK + i]), e));
    }
}

/* One group under one choice of scale and min. */
struct attempt {
    vf scale, inverse, min, d, dmin;
    vi sc, mi;
    vf gain;                         /* what the loss falls by */
    vf y[RUN_MAX], g[RUN_MAX], code[RUN_MAX];
    vi q[RUN_MAX / 4];
};

enum { PASSES = 2 }; /* over the group: the first brings codes onto new scales, the second corrects what they did not know of each other */

LANE_FN void attempt_levels(struct solve_tile *t, int64_t p0, int n, struct attempt *a, bool even)
{
    for (int i = 0; i < n; i++) a->y[i] = t->y[p0 + i], a->g[i] = t->g[p0 + i];
    for (int pass = 0; pass < PASSES; pass++)
        for (int i = 0; i < n; i++) {
            vf free = v_add(a->y[i], v_mul(a->g[i], v_set(t->m->inv[p0 + i])));
            vf code = level_near(t->s, even, v_mul(v_sub(free, a->min), a->inverse)), y = v_add(v_mul(a->scale, code), a->min), delta = v_sub(y, a->y[i]);
            a->code[i] = code, a->y[i] = y;
            if (!vm_any(vm_not(v_eq(delta, v_set(0.0f))))) continue;
            for (int j = 0; j < n; j++) a->g[j] = v_fnma(v_set(*element_of(&t->h, p0 + i, p0 + j)), delta, a->g[j]);
        }
    a->gain = v_set(0.0f);
    for (int i = 0; i < n; i++) a->gain = v_add(a->gain, v_mul(v_sub(a->y[i], t->y[p0 + i]), v_add(a->g[i], t->g[p0 + i])));
}

#include "quant/solve_book_tmpl.h"

static void feedback(struct solve_tile *t, int64_t k0)
{
    if (t->s->grid.vec_len == 8) feedback_book(t, k0, 8);
    else if (t->s->grid.vec_len == 4) feedback_book(t, k0, 4);
    else if (t->s->grid.even) feedback_levels(t, k0, true);
    else feedback_levels(t, k0, false);
}

static void attempt(struct solve_tile *t, int64_t p0, int n, struct attempt *a)
{
    if (t->s->grid.vec_len == 8) attempt_book(t, p0, n, a, 8);
    else if (t->s->grid.vec_len == 4) attempt_book(t, p0, n, a, 4);
    else if (t->s->grid.even) attempt_levels(t, p0, n, a, true);
    else attempt_levels(t, p0, n, a, false);
}

#include "quant/solve_scale_tmpl.h"
