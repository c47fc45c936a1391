/* solve_tmpl - rows of a matrix against a metric (solve.h), in lanes: lane l works on row l of a tile. A run is a group of
 * the format. A tile's rows are scaled by powers of two to a largest magnitude in 1..2, scales and minima with them.
 *
 * Gradient g = H e. A change of y by delta at positions P changes e H e by  -sum over P of delta (g + g'), g' the gradient after it; and
 * g by -H delta. The second costs n per position: inside a group it is done at once, for the rest of the row after the group. */
#pragma once
#include "quant/solve.h"
#include <math.h>

enum { RUN_MAX = 32, CHUNK = METRIC_PANEL, DEPTH = 64, SPAN = 256 };
enum { AT_ONCE = LANES == 16 ? 16 : 8 }; /* accumulators */
enum { TILES = SOLVE_ROWS / LANES };     /* that read H together: alone, a tile of 16 rows waits for memory when H does not fit the cache */

/* A symmetric matrix, in panels of 16 columns or not: element (i, 16 k + c) is at[k * panel + i * row + c]. */
struct square { const float *at; int64_t row, panel; };
LANE_FN const float *element_of(const struct square *h, int64_t i, int64_t j) { return h->at + j / CHUNK * h->panel + i * h->row + j % CHUNK; }

struct solve_tile {
    const struct solver *s;
    const struct metric *m;
    struct square h;           /* what gradients are of */
    int64_t n;
    int group, runs, lanes, per_block; /* runs in a block of the format */
    vf *x, *y, *e, *g, *code;  /* [n]; code: the level as it stands in struct codes */
    vi *q;                     /* [n / vec_len], codebooks */
    vf *scale, *inverse, *min; /* [runs] as the tile is scaled; inverse of scale, 0 where that is no number */
    vi *sc, *mi;               /* [runs] stored codes */
    vf *d, *dmin;              /* [runs / per_block] true half floats */
    vf up, down;               /* true = tile * up */
    vf first, loss;            /* of the search, now */
    vf delta[SPAN], was[SPAN], block[4][BLOCK_MAX];
    int32_t moved[SPAN];       /* positions of delta[0 .. n_moved - 1] */
    int n_moved;
    bool done;                 /* the last sweep moved nothing */
};
struct solve_batch { struct solve_tile tile[TILES]; int n; };

/* Else gcc 12 keeps an index for each of the columns, most of them not in registers: 2.2 times the instructions. */
#define ONE_ADDRESS(p) __asm__("" : "+r"(p))

/* g[0 .. 15] -= sum over i < n, in order, of a[i] H[at[i]][k .. k + 15] */
LANE_FN void push_16(vf *g, const struct square *h, int64_t k, const vf *a, const int32_t *at, int n)
{
    const float *panel = element_of(h, 0, k);
    for (int c0 = 0; c0 < CHUNK; c0 += AT_ONCE) {
        vf acc[AT_ONCE];
        for (int c = 0; c < AT_ONCE; c++) acc[c] = g[c0 + c];
        for (int i = 0; i < n; i++) {
            const float *row = panel + at[i] * h->row + c0;
            ONE_ADDRESS(row);
            /* The next 16 columns lie far away: no hardware sees this coming. An integer, for past the last ones there is no such pointer. */
            __builtin_prefetch((const void *)((uintptr_t)row + (uintptr_t)h->panel * sizeof *row), 0, 2);
            vf x = a[i];
#pragma GCC unroll 16
            for (int c = 0; c < AT_ONCE; c++) acc[c] = v_fnma(v_set(row[c]), x, acc[c]);
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
            ONE_ADDRESS(row);
            vf x = e[j];
#pragma GCC unroll 16
            for (int c = 0; c < AT_ONCE; c++) acc[c] = v_fma(v_set(row[c]), x, acc[c]);
        }
        for (int c = 0; c < AT_ONCE; c++) out[c0 + c] = acc[c];
    }
}

LANE_FN void push_tile(struct solve_tile *t, int64_t k) { push_16(t->g + k, &t->h, k, t->delta, t->moved, t->n_moved); }

/* What moved, from the gradients of all positions but those from p0 to end. */
static void push_all(struct solve_batch *b, int64_t p0, int64_t end)
{
    int64_t n = b->tile[0].n;
    for (int64_t k = 0; k < n; k += CHUNK)
        for (int i = 0; i < b->n && (k < p0 || k >= end); i++)
            if (b->tile[i].n_moved) push_tile(&b->tile[i], k);
}

/* Gradients and losses from y. */
static void solve_gradient(struct solve_batch *b)
{
    int64_t n = b->tile[0].n;
    for (int i = 0; i < b->n; i++)
        for (int64_t p = 0; p < n; p++) b->tile[i].e[p] = v_sub(b->tile[i].x[p], b->tile[i].y[p]), b->tile[i].g[p] = v_set(0.0f);
    for (int64_t p0 = 0; p0 < n; p0 += DEPTH) {
        for (int i = 0; i < b->n; i++) {
            struct solve_tile *t = &b->tile[i];
            t->n_moved = (int)min_i64(DEPTH, n - p0);
            for (int j = 0; j < t->n_moved; j++) t->delta[j] = v_neg(t->e[p0 + j]), t->moved[j] = (int32_t)(p0 + j);
        }
        push_all(b, 0, 0);
    }
    for (int i = 0; i < b->n; i++) {
        struct solve_tile *t = &b->tile[i];
        t->loss = v_set(0.0f);
        for (int64_t p0 = 0; p0 < n; p0 += CHUNK) {
            vf part = v_set(0.0f);
            for (int64_t p = p0; p < p0 + CHUNK; p++) part = v_add(part, v_mul(t->e[p], t->g[p]));
            t->loss = v_add(t->loss, part);
        }
    }
}

LANE_FN vf scale_of(const struct solve_tile *t, vf d, vi sc) { return v_mul(v_mul(d, v_gather(t->s->grid.unit, sc)), t->down); }
LANE_FN vf min_of(const struct solve_tile *t, vf dmin, vi m) { return v_mul(v_mul(dmin, v_gather(t->s->grid.min_unit, m)), t->down); }
LANE_FN vf scale_inverse(vf s) { return v_sel(v_lt(v_abs(s), v_set(0x1p-100f)), v_set(0.0f), v_div(v_set(1.0f), s)); }

#include "quant/solve_level_tmpl.h"

/* ---- rows into the tile and back ---- */

static void *place_tile(struct solve_tile *t, const struct solver *s, uint8_t *at)
{
    int64_t n = s->metric->n, runs = n / s->grid.type->group_len;
    t->s = s, t->m = s->metric, t->h = (struct square){ s->metric->h, CHUNK, n * CHUNK }, t->n = n, t->group = s->grid.type->group_len, t->runs = (int)runs;
    t->done = false;
    t->per_block = s->grid.type->block_len / t->group;
#define PLACE(field, count) t->field = (void *)at, at += (size_t)(count) * sizeof *t->field
    PLACE(x, n), PLACE(y, n), PLACE(e, n), PLACE(g, n), PLACE(code, n), PLACE(q, n / 4);
    PLACE(scale, runs), PLACE(inverse, runs), PLACE(min, runs), PLACE(sc, runs), PLACE(mi, runs);
    PLACE(d, runs), PLACE(dmin, runs);
#undef PLACE
    return at;
}

static void load_rows(struct solve_tile *t, const float *x, int lanes)
{
    vf top = v_set(0.0f);
    t->lanes = lanes;
    v_transpose_load(t->x, x, t->n, (int)t->n, lanes);
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
        int r = b * t->per_block + j;
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
        int r = b * t->per_block + j, per_run = t->group / g->vec_len;
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

static void note_loss(const struct solve_tile *t, double *to, enum solve_stage from)
{
    float up[LANES], v[LANES];
    v_store(up, t->up), v_store(v, v_min(t->loss, t->first));
    for (int l = 0; to && l < t->lanes; l++)
        for (int i = (int)from; i < SOLVE_STAGES; i++) to[l * SOLVE_STAGES + i] = (double)v[l] * (double)up[l] * (double)up[l];
}

/* The rows that got better than the search's, to where the others are already. */
static void keep_rows(const struct solve_tile *t, uint8_t *rows)
{
    float was[LANES], is[LANES];
    v_store(was, t->first), v_store(is, t->loss);
    for (int l = 0; l < t->lanes; l++)
        if (is[l] < was[l]) store_row(t, rows + (size_t)l * dtype_row_bytes(t->s->grid.type, t->n), l);
}

static void batch_open(struct solve_batch *b, const struct solver *s, const float *x, int64_t n_rows)
{
    void *at = b + 1;
    b->n = (int)((n_rows + LANES - 1) / LANES);
    for (int i = 0; i < b->n; i++) {
        at = place_tile(&b->tile[i], s, at);
        load_rows(&b->tile[i], x + (int64_t)i * LANES * s->metric->n, (int)min_i64(LANES, n_rows - (int64_t)i * LANES));
    }
}

/* A batch whose rows hold what the search found. */
static void solve_batch_rows(struct solve_batch *b, enum solve_stage last, uint8_t *rows, double *loss)
{
    const struct solver *s = b->tile[0].s;
    size_t step = LANES * dtype_row_bytes(s->grid.type, b->tile[0].n);
    bool again = false;
    for (int i = 0; i < b->n; i++) load_codes(&b->tile[i], rows + (size_t)i * step);
    solve_gradient(b);
#define EACH_NOTE(stage) \
    for (int i = 0; i < b->n; i++) note_loss(&b->tile[i], loss ? loss + i * LANES * SOLVE_STAGES : NULL, stage)
    for (int i = 0; i < b->n; i++) b->tile[i].first = b->tile[i].loss;
    EACH_NOTE(SOLVE_SEARCH);
    if (last == SOLVE_SEARCH) return;
    for (int64_t k0 = 0; k0 < b->tile[0].n; k0 += CHUNK)
        for (int i = 0; i < b->n; i++) feedback(&b->tile[i], k0);
    solve_gradient(b);
    for (int i = 0; i < b->n; i++) {
        vm worse = vm_not(v_lt(b->tile[i].loss, b->tile[i].first));
        take_back(&b->tile[i], worse, rows + (size_t)i * step);
        again = again || vm_any(worse);
    }
    if (again) solve_gradient(b);
    EACH_NOTE(SOLVE_FEEDBACK);
    for (int i = 0; i < s->sweeps && last > SOLVE_FEEDBACK; i++)
        if (!sweep(b, last == SOLVE_SCALES)) break;
    if (last > SOLVE_FEEDBACK) solve_gradient(b);
    EACH_NOTE(last);
#undef EACH_NOTE
    for (int i = 0; i < b->n; i++) keep_rows(&b->tile[i], rows + (size_t)i * step);
}

static void solve_all(const struct solver *s, const struct quant_kernels *k, const float *x, int64_t n_rows, void *dst, double *loss, void *scratch)
{
    struct solve_batch *b = scratch;
    int64_t n = s->metric->n;
    size_t row = dtype_row_bytes(s->grid.type, n);
    k->rows[s->grid.type->gguf_id](k, x, s->importance, n_rows, n, dst, scratch);
    for (int64_t r = 0; r < n_rows; r += SOLVE_ROWS) {
        batch_open(b, s, x + r * n, min_i64(SOLVE_ROWS, n_rows - r));
        solve_batch_rows(b, s->grid.sign == GRID_SHIFT ? SOLVE_SEARCH : s->stage, (uint8_t *)dst + (size_t)r * row, loss ? loss + r * SOLVE_STAGES : NULL);
    }
}

static double solve_error_all(const struct solver *s, const float *h, const float *x, const void *rows, int64_t n_rows, void *scratch)
{
    struct solve_batch *b = scratch;
    double sum = 0, loss[LANES * SOLVE_STAGES];
    size_t row = dtype_row_bytes(s->grid.type, s->metric->n);
    for (int64_t r = 0; r < n_rows; r += SOLVE_ROWS) {
        batch_open(b, s, x + r * s->metric->n, min_i64(SOLVE_ROWS, n_rows - r));
        for (int i = 0; i < b->n; i++) {
            b->tile[i].h = (struct square){ h, s->metric->n, CHUNK };
            load_codes(&b->tile[i], (const uint8_t *)rows + (size_t)(r + i * LANES) * row);
        }
        solve_gradient(b);
        for (int i = 0; i < b->n; i++) {
            b->tile[i].first = b->tile[i].loss;
            note_loss(&b->tile[i], loss, SOLVE_SEARCH);
            for (int l = 0; l < b->tile[i].lanes; l++) sum += loss[l * SOLVE_STAGES];
        }
    }
    return sum;
}

_Static_assert(sizeof(struct solve_batch) <= SOLVE_FIXED, "fits what solve_scratch adds");
static void solve_slots(struct quant_kernels *k) { k->solve = solve_all, k->solve_error = solve_error_all; }
