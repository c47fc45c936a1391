/* grid - what a format can hold, found out by joining blocks and unpacking them. A field's range is what join and split carry unchanged. */
#include "quant/grid.h"
#include <math.h>
#include <string.h>

enum { HALF_ONE = 0x3c00 };

struct probe {
    const struct dtype *t;
    uint8_t block[512];
    struct parts in, out;
    struct codes c;
};

static void ask(struct probe *p)
{
    p->t->join(&p->in, p->block);
    p->t->split(p->block, &p->out);
    p->t->unpack(p->block, &p->c);
}

static void fresh(struct probe *p)
{
    p->in = (struct parts){ .d = HALF_ONE, .dmin = HALF_ONE };
    ask(p);
}

static bool same_parts(const struct parts *a, const struct parts *b)
{
    return a->d == b->d && a->dmin == b->dmin && !memcmp(a->sc, b->sc, sizeof a->sc) && !memcmp(a->m, b->m, sizeof a->m) &&
           !memcmp(a->q, b->q, sizeof a->q) && !memcmp(a->sign, b->sign, sizeof a->sign);
}

/* Codes 0 .. n - 1 of group 0 that are stored as they are; at most `most`. The rest of the block must not move. */
static int stored_codes(struct probe *p, uint8_t *field, int most)
{
    int n = 0;
    for (fresh(p); n < most; n++) {
        struct parts plain = p->in;
        *field = (uint8_t)n;
        ask(p);
        plain = p->in;
        plain.dmin = p->out.dmin, plain.d = p->out.d;
        if (!same_parts(&plain, &p->out)) break;
    }
    *field = 0;
    return n;
}

static void find_scales(struct grid *g, struct probe *p)
{
    fresh(p);
    bool keeps_half = p->out.d == HALF_ONE;
    p->in.d = 1;
    ask(p);
    g->code_in_d = !keeps_half && p->out.d == 1; /* a byte of it is kept: an exponent */
    g->no_half = !keeps_half;
    if (g->code_in_d) g->n_scale = 255; /* 255 is not a number in MXFP4's definition */
    else g->n_scale = stored_codes(p, &p->in.sc[0], 256);
    fresh(p);
    for (int i = 0; i < g->n_scale; i++) {
        if (g->code_in_d) p->in.d = (uint16_t)i;
        else p->in.sc[0] = (uint8_t)i;
        ask(p);
        g->unit[i] = p->c.scale[0];
    }
}

static void find_mins(struct grid *g, struct probe *p)
{
    if (!p->t->has_min) return;
    g->n_min = stored_codes(p, &p->in.m[0], 64);
    fresh(p);
    for (int i = 0; i < g->n_min; i++) p->in.m[0] = (uint8_t)i, ask(p), g->min_unit[i] = p->c.min[0];
}

/* Which elements the index in q[0] moves, which of them bit 0 of sign[0] moves, and how. */
static void find_shape(struct grid *g, struct probe *p)
{
    struct codes at0, at1;
    fresh(p);
    at0 = p->c;
    int last = 0, moved = 0;
    for (int q = 1; q < GRID_ENTRIES_MAX; q++) { /* entries differ in every element sooner or later */
        p->in.q[0] = (uint16_t)q;
        ask(p);
        if (p->out.q[0] != q) break;
        for (int i = 0; i < p->t->block_len; i++)
            if (p->c.code[i] != at0.code[i] && i > last) last = i;
    }
    g->vec_len = last + 1;
    fresh(p);
    p->in.sign[0] = 1;
    ask(p);
    at1 = p->c;
    for (int i = 0; i < p->t->block_len; i++)
        if (at1.code[i] != at0.code[i]) moved = i + 1;
    if (moved == 0) g->sign = GRID_NONE;
    else if (at1.code[0] != -at0.code[0]) g->sign = GRID_SHIFT, g->shift_len = moved;
    else g->sign = moved > 1 ? GRID_EVEN : GRID_FREE; /* an odd number turns the eighth too */
}

static void find_entries(struct grid *g, struct probe *p)
{
    fresh(p);
    for (g->n = 0; g->n < GRID_ENTRIES_MAX; g->n++) {
        for (int v = 0; v < p->t->block_len / g->vec_len; v++) p->in.q[v] = (uint16_t)g->n;
        memset(p->in.sign, 0, sizeof p->in.sign);
        ask(p);
        if (memcmp(p->in.q, p->out.q, sizeof p->in.q) != 0) break;
        memcpy(g->entry + g->n * g->vec_len, p->c.code, (size_t)g->vec_len);
        if (g->sign != GRID_SHIFT) continue;
        memset(p->in.sign, 1, sizeof p->in.sign);
        ask(p);
        memcpy(g->entry_down + g->n * g->vec_len, p->c.code, (size_t)g->vec_len);
    }
}

/* The entries of a scalar format in rising order; of equal ones (both zeros of e2m1) the first. */
static void sort_levels(struct grid *g)
{
    for (int q = 0; q < g->n; q++) {
        int at = 0;
        while (at < g->n_levels && g->level[at] < g->entry[q]) at++;
        if (at < g->n_levels && g->level[at] == g->entry[q]) continue;
        memmove(g->level + at + 1, g->level + at, (size_t)(g->n_levels - at));
        memmove(g->level_q + at + 1, g->level_q + at, (size_t)(g->n_levels - at));
        g->level[at] = g->entry[q], g->level_q[at] = (uint8_t)q, g->n_levels++;
    }
    g->step = g->n_levels > 1 ? g->level[1] - g->level[0] : 0;
    g->even = g->step > 0;
    for (int i = 0; i < g->n_levels; i++) g->even = g->even && g->level[i] == g->level[0] + i * g->step;
}

status grid_make(struct grid *g, const struct dtype *t, struct err *e)
{
    struct probe p = { .t = t };
    memset(g, 0, sizeof *g);
    g->type = t;
    if (!t->join || !t->unpack || !t->group_len || t->gguf_id == GGUF_Q8_1 || t->gguf_id == GGUF_Q8_K)
        return err_set(e, ERR_USAGE, "%s holds no weights that can be searched", t->gguf_name);
    find_shape(g, &p);
    find_scales(g, &p);
    find_mins(g, &p);
    find_entries(g, &p);
    if (g->vec_len == 1) sort_levels(g);
    return OK;
}
