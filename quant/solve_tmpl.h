/* solve_tmpl - rows of a matrix against a metric (solve.h), in lanes: lane l works on row l of a tile. Positions are columns in the metric's order, runs
 * its groups. A tile's rows are scaled by powers of two to a largest magnitude in 1..2, scales and minima with them.
 *
 * Gradient g = H e. A change of y by delta at positions P changes e H e by  -sum over P of delta (g + g'), g' the gradient after it; and
 * g by -H delta. The second costs n per position: inside a group it is done at once, for the rest of the row after the group. */
#pragma once
#include "quant/solve.h"
#include <math.h>

enum { RUN_MAX = 32, CHUNK = METRIC_PANEL, DEPTH = 64, AT_ONCE = LANES == 16 ? 16 : 8 /* accumulators */ };

struct solve_tile {
    const struct solver *s;
    const struct metric *m;
    const float *h;            /* what gradients are of, [n][n] in the tile's order */
    int64_t n;
    int group, runs, lanes, per_block; /* runs in a block of the format */
    vf *x, *y, *e, *g, *code;  /* [n]; code: the level as it stands in struct codes */
    vi *q;                     /* [n / vec_len], codebooks */
    vf *scale, *inverse, *min; /* [runs] as the tile is scaled; inverse of scale, 0 where that is no number */
    vi *sc, *mi;               /* [runs] stored codes */
    vf *d, *dmin;              /* [runs / per_block] true half floats */
    int32_t *run_of;           /* [runs] of a group of the file */
    vf up, down;               /* true = tile * up */
    vf delta[RUN_MAX], block[4][BLOCK_MAX];
    int32_t moved[DEPTH], at[BLOCK_MAX];
};

/* g[0 .. 15] -= sum over i < n, in order, of a[i] h[at[i]][0 .. 15] */
LANE_FN void push_16(vf *g, const float *h, int64_t stride, const vf *a, const int32_t *at, int n)
{
    for (int c0 = 0; c0 < CHUNK; c0 += AT_ONCE) {
        vf acc[AT_ONCE];
        for (int c = 0; c < AT_ONCE; c++) acc[c] = g[c0 + c];
        for (int i = 0; i < n; i++) {
            const float *row = h + at[i] * stride + c0;
            vf x = a[i];
#pragma GCC unroll 16
            for (int c = 0; c < AT_ONCE; c++) acc[c] = v_sub(acc[c], v_mul(v_set(row[c]), x));
        }
        for (int c = 0; c < AT_ONCE; c++) g[c0 + c] = acc[c];
    }
}

/* acc[0 .. 15] = sum over j < n of e[j] m[j][0 .. 15] */
LANE_FN void pull_16(vf *out, const float *m, const vf *e, int64_t n)
{
    for (int c0 = 0; c0 < CHUNK; c0 += AT_ONCE) {
        vf acc[AT_ONCE];
        for (int c = 0; c < AT_ONCE; c++) acc[c] = v_set(0.0f);
        for (int64_t j = 0; j < n; j++) {
            const float *row = m + j * CHUNK + c0;
            vf x = e[j];
#pragma GCC unroll 16
            for (int c = 0; c < AT_ONCE; c++) acc[c] = v_add(acc[c], v_mul(v_set(row[c]), x));
        }
        for (int c = 0; c < AT_ONCE; c++) out[c0 + c] = acc[c];
    }
}

/* The gradient and the loss from e. */
static vf solve_gradient(struct solve_tile *t)
{
    vf loss = v_set(0.0f), a[DEPTH];
    for (int64_t i = 0; i < t->n; i++) t->e[i] = v_sub(t->x[i], t->y[i]), t->g[i] = v_set(0.0f);
    for (int64_t i0 = 0; i0 < t->n; i0 += DEPTH) {
        int depth = (int)min_i64(DEPTH, t->n - i0);
        for (int i = 0; i < depth; i++) a[i] = v_neg(t->e[i0 + i]), t->moved[i] = (int32_t)(i0 + i);
        for (int64_t k = 0; k < t->n; k += CHUNK) push_16(t->g + k, t->h + k, t->n, a, t->moved, depth);
    }
    for (int64_t i0 = 0; i0 < t->n; i0 += CHUNK) {
        vf part = v_set(0.0f);
        for (int64_t i = i0; i < i0 + CHUNK; i++) part = v_add(part, v_mul(t->e[i], t->g[i]));
        loss = v_add(loss, part);
    }
    return loss;
}

/* y changed by t->delta at the n positions from p0 on, g inside these is up to date already: the rest of the row. */
static void push_run(struct solve_tile *t, int64_t p0, int n)
{
    int moved = 0;
    vf a[RUN_MAX];
    for (int i = 0; i < n; i++)
        if (vm_any(vm_not(v_eq(t->delta[i], v_set(0.0f))))) a[moved] = t->delta[i], t->moved[moved++] = (int32_t)(p0 + i);
    if (!moved) return;
    for (int64_t k = 0; k < t->n; k += CHUNK)
        if (k < p0 || k >= p0 + n) push_16(t->g + k, t->h + k, t->n, a, t->moved, moved);
}

LANE_FN vf scale_of(const struct solve_tile *t, vf d, vi sc) { return v_mul(v_mul(d, v_gather(t->s->grid.unit, sc)), t->down); }
LANE_FN vf min_of(const struct solve_tile *t, vf dmin, vi m) { return v_mul(v_mul(dmin, v_gather(t->s->grid.min_unit, m)), t->down); }
LANE_FN vf scale_inverse(vf s) { return v_sel(v_lt(v_abs(s), v_set(0x1p-100f)), v_set(0.0f), v_div(v_set(1.0f), s)); }

#include "quant/solve_level_tmpl.h"

/* ---- rows into the tile and back ---- */

static void place_tile(struct solve_tile *t, const struct solver *s, void *scratch)
{
    uint8_t *at = scratch;
    int64_t n = s->metric->n, runs = n / s->grid.type->group_len;
    *t = (struct solve_tile){ .s = s, .m = s->metric, .h = s->metric->h, .n = n, .group = s->grid.type->group_len, .runs = (int)runs };
    t->per_block = s->grid.type->block_len / t->group;
#define PLACE(field, count) t->field = (void *)at, at += (size_t)(count) * sizeof *t->field
    PLACE(x, n), PLACE(y, n), PLACE(e, n), PLACE(g, n), PLACE(code, n), PLACE(q, n / 4);
    PLACE(scale, runs), PLACE(inverse, runs), PLACE(min, runs), PLACE(sc, runs), PLACE(mi, runs);
    PLACE(d, runs), PLACE(dmin, runs), PLACE(run_of, runs);
#undef PLACE
    for (int r = 0; r < t->runs; r++) t->run_of[s->metric->at[r]] = r;
}

static void load_rows(struct solve_tile *t, const float *x, int lanes)
{
    vf top = v_set(0.0f);
    t->lanes = lanes;
    for (int r = 0; r < t->runs; r++) v_transpose_load(t->x + r * t->group, x + t->m->at[r] * (int64_t)t->group, t->n, t->group, lanes);
    for (int64_t i = 0; i < t->n; i++) top = v_max(top, v_abs(t->x[i]));
    vi e = vi_max(vi_set(1), vi_min(vi_set(253), vi_shr(v_bits(top), 23)));
    t->up = v_from_bits(vi_shl(e, 23));
    t->down = v_from_bits(vi_shl(vi_sub(vi_set(254), e), 23));
    for (int64_t i = 0; i < t->n; i++) t->x[i] = v_mul(t->x[i], t->down);
}

#define LANE_AT(array, i, l) (((float *)(void *)(array))[(int64_t)(i) * LANES + (l)])
#define LANE_AT_I(array, i, l) (((int32_t *)(void *)(array))[(int64_t)(i) * LANES + (l)])

static void load_block(struct solve_tile *t, const uint8_t *block, int b, int l)
{
    const struct dtype *type = t->s->grid.type;
    const struct grid *g = &t->s->grid;
    struct codes c;
    struct parts p;
    type->unpack(block, &c);
    type->split(block, &p);
    LANE_AT(t->d, b, l) = g->no_half ? 1.0f : f16_to_f32(p.d), LANE_AT(t->dmin, b, l) = f16_to_f32(p.dmin);
    for (int j = 0; j < t->per_block; j++) {
        int r = t->run_of[b * t->per_block + j];
        LANE_AT(t->scale, r, l) = c.scale[j], LANE_AT(t->min, r, l) = c.min[j];
        LANE_AT_I(t->sc, r, l) = g->n_scale == 1 ? 0 : g->code_in_d ? p.d : p.sc[j], LANE_AT_I(t->mi, r, l) = g->n_min > 1 ? p.m[j] : 0;
        for (int i = 0; i < t->group; i++) LANE_AT(t->code, r * t->group + i, l) = (float)c.code[j * t->group + i];
        if (g->vec_len == 1) continue;
        int per_run = t->group / g->vec_len;
        for (int v = 0; v < per_run; v++) LANE_AT_I(t->q, r * per_run + v, l) = p.q[j * per_run + v];
    }
}

/* What rows of the file hold; lanes without a row hold the first one. */
static void load_codes(struct solve_tile *t, const uint8_t *rows)
{
    const struct dtype *type = t->s->grid.type;
    size_t row = dtype_row_bytes(type, t->n);
    for (int l = 0; l < LANES; l++) {
        const uint8_t *from = rows + (size_t)(l < t->lanes ? l : 0) * row;
        for (int b = 0; b < t->runs / t->per_block; b++) load_block(t, from + (size_t)b * (size_t)type->block_bytes, b, l);
    }
    for (int r = 0; r < t->runs; r++) {
        t->scale[r] = v_mul(t->scale[r], t->down), t->min[r] = v_mul(t->min[r], t->down), t->inverse[r] = scale_inverse(t->scale[r]);
        for (int i = r * t->group; i < (r + 1) * t->group; i++) t->y[i] = v_add(v_mul(t->scale[r], t->code[i]), t->min[r]);
    }
}

static void store_block(const struct solve_tile *t, uint8_t *block, int b, int l)
{
    const struct grid *g = &t->s->grid;
    struct parts p;
    g->type->split(block, &p);
    if (!g->no_half) p.d = f32_to_f16(LANE_AT(t->d, b, l));
    if (g->n_min) p.dmin = f32_to_f16(LANE_AT(t->dmin, b, l));
    for (int j = 0; j < t->per_block; j++) {
        int r = t->run_of[b * t->per_block + j], per_run = t->group / g->vec_len;
        if (g->code_in_d) p.d = (uint16_t)LANE_AT_I(t->sc, r, l);
        else if (g->n_scale > 1) p.sc[j] = (uint8_t)LANE_AT_I(t->sc, r, l);
        if (g->n_min > 1) p.m[j] = (uint8_t)LANE_AT_I(t->mi, r, l);
        if (g->vec_len > 1)
            for (int v = 0; v < per_run; v++) p.q[j * per_run + v] = (uint16_t)LANE_AT_I(t->q, r * per_run + v, l);
        for (int i = 0; i < t->group; i++) {
            float code = LANE_AT(t->code, r * t->group + i, l);
            int at = j * t->group + i, whole = code >= -128.0f && code <= 127.0f ? (int)code : 0;
            if (g->vec_len == 1) p.q[at] = t->s->q_of[whole + 128];
            else p.sign[at / 8] = (uint8_t)((p.sign[at / 8] & ~(1 << at % 8)) | (whole < 0) << at % 8);
        }
    }
    g->type->join(&p, block);
}

static void store_row(const struct solve_tile *t, uint8_t *row, int l)
{
    for (int b = 0; b < t->runs / t->per_block; b++) store_block(t, row + (size_t)b * (size_t)t->s->grid.type->block_bytes, b, l);
}

/* ---- the stages ---- */

/* Where `worse`, the rows of the file again. */
static void take_back(struct solve_tile *t, vm worse, const uint8_t *rows)
{
    if (!vm_any(worse)) return;
    const struct grid *g = &t->s->grid;
    int64_t vectors = g->vec_len > 1 ? t->n / g->vec_len : 0;
    for (int64_t i = 0; i < t->n; i++) t->e[i] = t->code[i];
    vi *q = (vi *)(void *)t->g;
    for (int64_t i = 0; i < vectors; i++) q[i] = t->q[i];
    load_codes(t, rows);
    for (int64_t i = 0; i < t->n; i++) t->code[i] = v_sel(worse, t->code[i], t->e[i]);
    for (int64_t i = 0; i < vectors; i++) t->q[i] = vi_sel(worse, t->q[i], q[i]);
    for (int64_t i = 0; i < t->n; i++) t->y[i] = v_add(v_mul(t->scale[i / t->group], t->code[i]), t->min[i / t->group]);
}

static void note_loss(const struct solve_tile *t, vf loss, double *to, enum solve_stage from)
{
    float up[LANES], v[LANES];
    v_store(up, t->up), v_store(v, loss);
    for (int l = 0; to && l < t->lanes; l++)
        for (int i = (int)from; i < SOLVE_STAGES; i++) to[l * SOLVE_STAGES + i] = (double)v[l] * (double)up[l] * (double)up[l];
}

static void solve_tile_rows(struct solve_tile *t, uint8_t *rows, double *loss)
{
    enum solve_stage last = t->s->stage;
    load_codes(t, rows);
    vf first = solve_gradient(t), now = first;
    note_loss(t, now, loss, SOLVE_SEARCH);
    if (last == SOLVE_SEARCH) return;
    feedback(t);
    now = solve_gradient(t);
    vm worse = vm_not(v_lt(now, first));
    take_back(t, worse, rows);
    if (vm_any(worse)) now = solve_gradient(t);
    note_loss(t, now, loss, SOLVE_FEEDBACK);
    for (int stage = SOLVE_POLISH; stage <= (int)last; stage++) {
        for (int i = 0; i < t->s->sweeps; i++) {
            bool moved = stage == SOLVE_SCALES && refit(t);
            if (!sweep(t, stage == SOLVE_SCALES) && !moved) break;
        }
        now = solve_gradient(t);
        note_loss(t, now, loss, (enum solve_stage)stage);
    }
    float was[LANES], is[LANES];
    v_store(was, first), v_store(is, now);
    for (int l = 0; l < t->lanes; l++)
        if (is[l] < was[l]) store_row(t, rows + (size_t)l * dtype_row_bytes(t->s->grid.type, t->n), l);
}

static void solve_all(const struct solver *s, const struct quant_kernels *k, const float *x, int64_t n_rows, void *dst, double *loss, void *scratch)
{
    struct solve_tile t;
    int64_t n = s->metric->n;
    size_t row = dtype_row_bytes(s->grid.type, n);
    k->rows[s->grid.type->gguf_id](k, x, s->importance, n_rows, n, dst, scratch);
    for (int64_t r = 0; r < n_rows; r += LANES) {
        place_tile(&t, s, scratch);
        load_rows(&t, x + r * n, (int)min_i64(LANES, n_rows - r));
        solve_tile_rows(&t, (uint8_t *)dst + (size_t)r * row, loss ? loss + r * SOLVE_STAGES : NULL);
    }
}

static double solve_error_all(const struct solver *s, const float *h, const float *x, const void *rows, int64_t n_rows, void *scratch)
{
    struct solve_tile t;
    double sum = 0, loss[LANES * SOLVE_STAGES];
    struct metric plain = *s->metric;
    struct solver own = *s;
    size_t row = dtype_row_bytes(s->grid.type, s->metric->n);
    own.metric = &plain;
    for (int64_t r = 0; r < n_rows; r += LANES) {
        place_tile(&t, &own, scratch);
        int32_t *order = t.run_of + t.runs;
        for (int i = 0; i < t.runs; i++) t.run_of[i] = order[i] = i;
        plain.at = order, t.h = h;
        load_rows(&t, x + r * plain.n, (int)min_i64(LANES, n_rows - r));
        load_codes(&t, (const uint8_t *)rows + (size_t)r * row);
        note_loss(&t, solve_gradient(&t), loss, SOLVE_SEARCH);
        for (int l = 0; l < t.lanes; l++) sum += loss[l * SOLVE_STAGES];
        plain.at = s->metric->at;
    }
    return sum;
}

static void solve_slots(struct quant_kernels *k) { k->solve = solve_all, k->solve_error = solve_error_all; }
