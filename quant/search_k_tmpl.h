/* search_k_tmpl - searches for the formats with evenly spaced levels: Q4_0 Q4_1 Q5_0 Q5_1 and Q2_K .. Q6_K.
 * Lane l works on row l: a block of LANES rows is transposed, so sums over a group or a superblock stay inside a lane.
 * Blocks are scaled by a power of two to a largest magnitude in 1..2 first: no sum overflows, whatever the weights are. */
#pragma once
#include "ggml-like/formats/formats.h"
#include "quant/quantizer.h"
#include <math.h>

/* ---- lanes: what the searches share ---- */

/* v_half - the nearest half float; beyond the largest: the largest. Below 2^-14 halves are multiples of 2^-24, which is the last place of 0.5. */
LANE_FN vf v_half(vf x)
{
    vf a = v_abs(x), tiny = v_sub(v_add(a, v_set(0.5f)), v_set(0.5f));
    vi bits = v_bits(a), odd = vi_and(vi_shr(bits, 13), vi_set(1));
    bits = vi_and(vi_add(vi_add(bits, vi_set(0xfff)), odd), vi_set(~0x1fff));
    vf r = v_min(v_sel(v_lt(a, v_set(0x1p-14f)), tiny, v_from_bits(bits)), v_set(65504.0f));
    return v_from_bits(vi_or(v_bits(r), vi_and(v_bits(x), vi_set(INT32_MIN))));
}

/* 1 / x, and 0 where that is not a number to multiply with */
LANE_FN vf v_inverse(vf x) { return v_sel(v_lt(v_abs(x), v_set(0x1p-120f)), v_set(0.0f), v_div(v_set(1.0f), x)); }

LANE_FN vf v_code(vf t, vf lo, vf hi) { return v_nearest(v_min(hi, v_max(lo, t))); }

/* Codes of four weights in the bytes of a word. magic: V_MAGIC plus what the codes begin at, as stored. */
LANE_FN vi codes_word(const vf *x, vf b, vf inv, vf lo, vf hi, vf magic)
{
    vi word = vi_set(0);
    for (int j = 3; j >= 0; j--) {
        vi q = v_bits(v_add(v_min(hi, v_max(lo, v_mul(v_add(x[j], b), inv))), magic));
        word = vi_or(vi_shl(word, 8), vi_and(q, vi_set(255)));
    }
    return word;
}

/* One block of LANES rows, scaled: true value = x * up. */
struct tile {
    vf x[BLOCK_MAX];
    vi q[BLOCK_MAX / 4]; /* codes, four in a word */
    vf up, down;
    vf d, dmin;          /* halves, true scale */
    vf sc[16], m[16];
    float w[BLOCK_MAX];  /* importance of the block's columns */
};

/* Importance below 2^-20 of the block's largest counts as 2^-20: a group of zeros is fitted with equal weights. */
static void load_importance(float *column, const float *w, int n)
{
    float top = 0.0f;
    for (int i = 0; w && i < n; i++) top = w[i] > top ? w[i] : top;
    bool plain = !(top > 0.0f) || !isfinite(top);
    for (int i = 0; i < n; i++) {
        float v = plain ? 1.0f : w[i] / top;
        column[i] = v > 0x1p-20f ? v : 0x1p-20f;
    }
}

LANE_FN void load_tile(struct tile *t, const float *x, int64_t stride, int n, int lanes)
{
    if (lanes == LANES) v_transpose_load(t->x, x, stride, n, LANES);
    else v_transpose_load(t->x, x, stride, n, lanes);
    vf top = v_set(0.0f);
    for (int i = 0; i < n; i++) top = v_max(top, v_abs(t->x[i]));
    vi e = vi_max(vi_set(1), vi_min(vi_set(253), vi_shr(v_bits(top), 23)));
    t->up = v_from_bits(vi_shl(e, 23));
    t->down = v_from_bits(vi_shl(vi_sub(vi_set(254), e), 23));
    for (int i = 0; i < n; i++) t->x[i] = v_mul(t->x[i], t->down);
}

/* ---- x = s * q, q in -half .. half - 1 ---- */

struct sym_sums { vf qx, qq; }; /* of w */

LANE_FN struct sym_sums sym_pass(const vf *x, const float *w, int n, vf inv, vf lo, vf hi)
{
    struct sym_sums s = { v_set(0.0f), v_set(0.0f) };
    for (int i = 0; i < n; i++) {
        vf q = v_code(v_mul(x[i], inv), lo, hi), wq = v_mul(v_set(w[i]), q);
        s.qx = v_add(s.qx, v_mul(wq, x[i]));
        s.qq = v_add(s.qq, v_mul(wq, q));
    }
    return s;
}

/* Trials: the value of largest magnitude gets the code -half * trial[i]; negative ones put it at the short end. Then `rounds` of rounding with
 * the fitted scale. */
struct sym_plan { int half, n_trials, rounds; const float *trial; };

/* s explains more of the group than best, by more than the noise of these sums: of equals the first trial stays */
LANE_FN vm sym_better(const struct sym_sums *s, const struct sym_sums *best)
{
    return v_lt(v_mul(v_mul(v_mul(best->qx, best->qx), s->qq), v_set(1.0f + 0x1p-22f)), v_mul(v_mul(s->qx, s->qx), best->qq));
}

/* fit_sym - the scale of a group; *sums: of the codes it belongs to. 0 for a group of zeros. */
static vf fit_sym(const vf *x, const float *w, int n, const struct sym_plan *p, struct sym_sums *sums)
{
    vf hi = x[0], lo = x[0];
    for (int i = 1; i < n; i++) hi = v_max(hi, x[i]), lo = v_min(lo, x[i]);
    vf largest = v_sel(v_lt(v_neg(lo), hi), hi, lo), unit = v_mul(v_set(-(float)p->half), v_inverse(largest));
    vf q_lo = v_set(-(float)p->half), q_hi = v_set((float)(p->half - 1));
    struct sym_sums best = sym_pass(x, w, n, v_mul(unit, v_set(p->trial[0])), q_lo, q_hi);
    for (int i = 1; i < p->n_trials; i++) {
        struct sym_sums s = sym_pass(x, w, n, v_mul(unit, v_set(p->trial[i])), q_lo, q_hi);
        vm better = sym_better(&s, &best);
        best.qx = v_sel(better, s.qx, best.qx), best.qq = v_sel(better, s.qq, best.qq);
    }
    for (int i = 0; i < p->rounds; i++) {
        struct sym_sums s = sym_pass(x, w, n, v_mul(best.qq, v_inverse(best.qx)), q_lo, q_hi);
        vm better = sym_better(&s, &best);
        best.qx = v_sel(better, s.qx, best.qx), best.qq = v_sel(better, s.qq, best.qq);
    }
    *sums = best;
    return v_mul(best.qx, v_inverse(best.qq));
}

/* ---- x = s * q + b, q in 0 .. top ---- */

struct min_sums { vf q, qq, qx; };
struct min_fixed { vf w, x, xx, inv_w; }; /* sums that do not depend on codes */
struct min_fit { vf s, b, err, slack /* 1: all codes may be one higher */; struct min_sums sums; };

LANE_FN struct min_fixed min_fixed(const vf *x, const float *w, int n)
{
    struct min_fixed f = { v_set(0.0f), v_set(0.0f), v_set(0.0f), v_set(0.0f) };
    for (int i = 0; i < n; i++) {
        vf wx = v_mul(v_set(w[i]), x[i]);
        f.w = v_add(f.w, v_set(w[i])), f.x = v_add(f.x, wx), f.xx = v_add(f.xx, v_mul(wx, x[i]));
    }
    f.inv_w = v_inverse(f.w);
    return f;
}

LANE_FN struct min_sums min_pass(const vf *x, const float *w, int n, vf b, vf inv, vf top)
{
    struct min_sums s = { v_set(0.0f), v_set(0.0f), v_set(0.0f) };
    vf zero = v_set(0.0f);
    for (int i = 0; i < n; i++) {
        vf q = v_code(v_mul(v_sub(x[i], b), inv), zero, top), wq = v_mul(v_set(w[i]), q);
        s.q = v_add(s.q, wq);
        s.qq = v_add(s.qq, v_mul(wq, q));
        s.qx = v_add(s.qx, v_mul(wq, x[i]));
    }
    return s;
}

LANE_FN vf min_error(const struct min_fixed *f, const struct min_sums *s, vf scale, vf b)
{
    vf cross = v_sub(v_mul(scale, v_sub(v_mul(scale, s->qq), v_add(s->qx, s->qx))), v_mul(v_add(b, b), v_sub(f->x, v_mul(scale, s->q))));
    return v_add(v_add(f->xx, cross), v_mul(v_mul(b, b), f->w));
}

/* Least squares for the codes behind s; b at most b_max. A gain below the noise of these sums (`noise`) is none. */
LANE_FN void min_solve(const struct min_fixed *f, const struct min_sums *s, vf b_max, vf noise, struct min_fit *best)
{
    vf mean_q = v_mul(s->q, f->inv_w), qq = v_sub(s->qq, v_mul(s->q, mean_q)), qx = v_sub(s->qx, v_mul(mean_q, f->x));
    vf scale = v_mul(qx, v_inverse(qq));
    vf b = v_mul(v_sub(f->x, v_mul(scale, s->q)), f->inv_w);
    vm over = v_lt(b_max, b);
    b = v_min(b, b_max);
    scale = v_sel(over, v_mul(v_sub(s->qx, v_mul(b, s->q)), v_inverse(s->qq)), scale);
    vf err = min_error(f, s, scale, b);
    vm better = vm_and(v_lt(v_add(err, noise), best->err), v_le(v_set(0.0f), scale));
    best->err = v_sel(better, err, best->err);
    best->s = v_sel(better, scale, best->s), best->b = v_sel(better, b, best->b);
    best->sums.q = v_sel(better, s->q, best->sums.q);
    best->sums.qq = v_sel(better, s->qq, best->sums.qq), best->sums.qx = v_sel(better, s->qx, best->sums.qx);
}

/* Trials: the range is cut by (low, high) parts of one step at its ends; then rounds of rounding with the fitted line. */
struct min_plan { int top, n_trials, rounds; const float (*trial)[2]; };

/* fit_min - the line of a group; zero: its lower end is at most 0. y: scratch for the shifted group */
static struct min_fit fit_min(const vf *x, const float *w, int n, const struct min_plan *p, bool zero, struct min_fixed *fixed, vf *y)
{
    vf hi = x[0], lo = x[0];
    for (int i = 1; i < n; i++) hi = v_max(hi, x[i]), lo = v_min(lo, x[i]);
    if (zero) hi = v_max(hi, v_set(0.0f)), lo = v_min(lo, v_set(0.0f));
    vf range = v_sub(hi, lo), top = v_set((float)p->top), b_max = zero ? v_neg(lo) : v_set(3e38f);
    for (int i = 0; i < n; i++) y[i] = v_sub(x[i], lo);
    *fixed = min_fixed(y, w, n);
    vf noise = v_mul(fixed->xx, v_set(2e-7f));
    struct min_fit best = { v_set(0.0f), v_set(0.0f), v_set(3e38f), v_set(0.0f), { v_set(0.0f), v_set(0.0f), v_set(0.0f) } };
    for (int i = 0; i < p->n_trials; i++) {
        float steps = (float)p->top + p->trial[i][0] + p->trial[i][1]; /* range in units of this trial's step */
        vf inv = v_mul(v_set(steps), v_inverse(range)), b = v_mul(range, v_set(p->trial[i][0] / steps));
        struct min_sums s = min_pass(y, w, n, b, inv, top);
        min_solve(fixed, &s, b_max, noise, &best);
    }
    for (int i = 0; i < p->rounds; i++) {
        struct min_sums s = min_pass(y, w, n, best.b, v_inverse(best.s), top);
        min_solve(fixed, &s, b_max, noise, &best);
    }
    /* Codes that are all k higher describe the same line: begin at code 0 if b may be that high, so that what is left is room at the top. */
    vf inv = v_inverse(best.s), k = v_max(v_set(0.0f), v_nearest(v_mul(v_neg(best.b), inv))), b = v_add(best.b, v_mul(k, best.s));
    k = v_sel(v_lt(b_max, b), v_set(0.0f), k);
    best.b = v_add(best.b, v_mul(k, best.s));
    best.sums.qq = v_add(best.sums.qq, v_mul(k, v_sub(v_mul(k, fixed->w), v_add(best.sums.q, best.sums.q))));
    best.sums.q = v_sub(best.sums.q, v_mul(k, fixed->w)), best.sums.qx = v_sub(best.sums.qx, v_mul(k, fixed->x));
    vf last = v_nearest(v_mul(v_sub(range, best.b), inv));
    best.slack = v_sel(v_lt(last, top), v_set(1.0f), v_set(0.0f));
    /* back to x: x = y + lo */
    best.b = v_add(best.b, lo);
    best.sums.qx = v_add(best.sums.qx, v_mul(lo, best.sums.q));
    vf wx = v_add(fixed->x, v_mul(lo, fixed->w));
    fixed->xx = v_add(fixed->xx, v_mul(lo, v_add(fixed->x, wx)));
    fixed->x = wx;
    return best;
}

/* ---- superblocks: half-float scales over integer scale codes ---- */

/* v_super - the d (as stored) whose multiples c * d, c in lo .. hi, come closest to s[g] under curvature a[g]; the largest |s| tries several codes. */
static vf v_super(const struct tile *t, const vf *s, const vf *a, int n, float lo, float hi, const float *ends, int n_ends)
{
    vf largest = s[0], best = v_set(0.0f), least = v_set(3e38f);
    for (int g = 1; g < n; g++) largest = v_sel(v_lt(v_abs(largest), v_abs(s[g])), s[g], largest);
    for (int k = 0; k < n_ends; k++) {
        vf d = v_half(v_mul(v_mul(largest, v_set(1.0f / ends[k])), t->up)), dn = v_mul(d, t->down), inv = v_inverse(dn), cost = v_set(0.0f);
        for (int g = 0; g < n; g++) {
            vf e = v_sub(v_mul(v_code(v_mul(s[g], inv), v_set(lo), v_set(hi)), dn), s[g]);
            cost = v_add(cost, v_mul(a[g], v_mul(e, e)));
        }
        vm better = v_lt(cost, least);
        best = v_sel(better, d, best), least = v_sel(better, cost, least);
    }
    return best;
}

/* min_super - the same for minima: a group whose codes have room may take its minimum one step higher, m + step. m becomes what was taken. */
static vf min_super(const struct tile *t, vf *m, const vf *step, const vf *slack, const vf *a, int n, float hi, const float *ends, int n_ends)
{
    vf largest[2] = { v_set(0.0f), v_set(0.0f) }, best = v_set(0.0f), least = v_set(3e38f), zero = v_set(0.0f), up[16];
    for (int g = 0; g < n; g++) {
        up[g] = v_add(m[g], v_mul(step[g], slack[g]));
        largest[0] = v_max(largest[0], m[g]), largest[1] = v_max(largest[1], up[g]);
    }
    for (int k = 0; k < 2 * n_ends; k++) {
        vf d = v_half(v_mul(v_mul(largest[k & 1], v_set(1.0f / ends[k / 2])), t->up)), dn = v_mul(d, t->down), inv = v_inverse(dn), cost = zero;
        for (int g = 0; g < n; g++) {
            vf e = v_sub(v_mul(v_code(v_mul(m[g], inv), zero, v_set(hi)), dn), m[g]);
            vf e2 = v_sub(v_mul(v_code(v_mul(up[g], inv), zero, v_set(hi)), dn), up[g]);
            cost = v_add(cost, v_mul(a[g], v_min(v_mul(e, e), v_mul(e2, e2))));
        }
        vm better = v_lt(cost, least);
        best = v_sel(better, d, best), least = v_sel(better, cost, least);
    }
    vf dn = v_mul(best, t->down), inv = v_inverse(dn);
    for (int g = 0; g < n; g++) {
        vf e = v_sub(v_mul(v_code(v_mul(m[g], inv), zero, v_set(hi)), dn), m[g]);
        vf e2 = v_sub(v_mul(v_code(v_mul(up[g], inv), zero, v_set(hi)), dn), up[g]);
        m[g] = v_sel(v_lt(v_mul(e2, e2), v_mul(e, e)), up[g], m[g]);
    }
    return best;
}

/* What a format asks of the search. find: scales, minima and codes of a tile; old is scratch of the same size. */
struct k_plan {
    void (*find)(struct tile *t, const struct k_plan *p, struct tile *old);
    int id, n, n_groups;           /* weights of a block, groups in it */
    bool min, free_min;            /* free_min: the minimum is a half of its own, any sign */
    int sc_lo, sc_hi, m_hi;        /* range of the scale codes; 0: no codes, the scale is a half */
    int sc_bias;                   /* scale codes are stored with this added */
    int reach, polish;             /* neighbours tried on either side of a scale code, rounds of (codes, least squares for d) */
    struct sym_plan sym;
    struct min_plan line;
    const float *ends; int n_ends; /* codes that the largest scale may get */
};

/* The half floats of a block that has a scale of its own, no codes for it: rounding, then least squares on what is left. The sums are of residuals, so that
 * they still tell apart scales that differ in the last place of a half. */
static void polish_half(struct tile *t, const struct k_plan *p)
{
    bool line = p->free_min;
    vf zero = v_set(0.0f), lo = v_set(line ? 0.0f : -(float)p->sym.half), hi = v_set(line ? (float)p->line.top : (float)(p->sym.half - 1));
    vf d = t->d, dmin = t->dmin, least = v_set(3e38f);
    for (int r = 0; r <= p->polish; r++) {
        vf s = v_mul(d, t->down), b = v_mul(dmin, t->down), inv = v_inverse(s);
        vf err = zero, e1 = zero, eq = zero, w = zero, q1 = zero, q2 = zero;
        for (int i = 0; i < p->n; i++) {
            vf y = line ? v_add(t->x[i], b) : t->x[i], q = v_code(v_mul(y, inv), lo, hi), e = v_sub(y, v_mul(s, q));
            vf we = v_mul(v_set(t->w[i]), e), wq = v_mul(v_set(t->w[i]), q);
            err = v_add(err, v_mul(we, e)), eq = v_add(eq, v_mul(we, q)), q2 = v_add(q2, v_mul(wq, q));
            if (line) e1 = v_add(e1, we), q1 = v_add(q1, wq), w = v_add(w, v_set(t->w[i]));
        }
        vm better = v_lt(err, least);
        least = v_min(least, err);
        t->d = v_sel(better, d, t->d), t->dmin = v_sel(better, dmin, t->dmin);
        if (r == p->polish) break;
        if (!line) {
            d = v_half(v_mul(v_add(s, v_mul(eq, v_inverse(q2))), t->up));
            continue;
        }
        vf inv_w = v_inverse(w), mean = v_mul(q1, inv_w), spread = v_sub(q2, v_mul(q1, mean));
        d = v_half(v_mul(v_add(s, v_mul(v_sub(eq, v_mul(mean, e1)), v_inverse(spread))), t->up));
        vf moved = v_mul(v_sub(v_mul(d, t->down), s), mean);
        dmin = v_half(v_mul(v_sub(b, v_sub(v_mul(e1, inv_w), moved)), t->up));
    }
}

/* How a grid rounds a group: sums of its codes at 1 / scale = inv. `grid` is the grid's own. */
typedef struct sym_sums (*round_fn)(const void *grid, const vf *x, const float *w, int n, vf inv);

LANE_FN struct sym_sums round_even(const void *grid, const vf *x, const float *w, int n, vf inv)
{
    const struct sym_plan *p = grid;
    return sym_pass(x, w, n, inv, v_set(-(float)p->half), v_set((float)(p->half - 1)));
}

/* Re-rounds at scale codes around the present ones. */
LANE_FN void sym_codes(struct tile *t, const struct k_plan *p, round_fn round, const void *grid, vf *err, struct sym_sums *sums, int reach)
{
    int n = p->n / p->n_groups;
    vf d = v_mul(t->d, t->down);
    for (int g = 0; g < p->n_groups; g++) {
        vf at = t->sc[g];
        err[g] = v_set(3e38f);
        for (int c = -reach; c <= reach; c++) {
            vf code = v_min(v_set((float)p->sc_hi), v_max(v_set((float)p->sc_lo), v_add(at, v_set((float)c)))), s = v_mul(d, code);
            struct sym_sums u = round(grid, t->x + g * n, t->w + g * n, n, v_inverse(s));
            vf e = v_mul(s, v_sub(v_mul(s, u.qq), v_add(u.qx, u.qx)));
            vm better = v_lt(e, err[g]);
            err[g] = v_sel(better, e, err[g]), t->sc[g] = v_sel(better, code, t->sc[g]);
            sums[g].qx = v_sel(better, u.qx, sums[g].qx), sums[g].qq = v_sel(better, u.qq, sums[g].qq);
        }
    }
}

LANE_FN vf v_total(const vf *e, int n)
{
    vf sum = e[0];
    for (int i = 1; i < n; i++) sum = v_add(sum, e[i]);
    return sum;
}

static void keep_better(struct tile *t, const struct tile *old, vm worse, int n)
{
    t->d = v_sel(worse, old->d, t->d), t->dmin = v_sel(worse, old->dmin, t->dmin);
    for (int g = 0; g < n; g++) t->sc[g] = v_sel(worse, old->sc[g], t->sc[g]), t->m[g] = v_sel(worse, old->m[g], t->m[g]);
}

/* Super-scale and scale codes of a block without minima, from its groups' scales s: then neighbours of the codes, then least squares for d. */
LANE_FN void sym_super(struct tile *t, const struct k_plan *p, round_fn round, const void *grid, const vf *s, struct sym_sums *sums, struct tile *old)
{
    vf a[16], err[16], before = v_set(3e38f);
    for (int g = 0; g < p->n_groups; g++) a[g] = sums[g].qq;
    t->d = v_super(t, s, a, p->n_groups, (float)p->sc_lo, (float)p->sc_hi, p->ends, p->n_ends);
    vf inv = v_inverse(v_mul(t->d, t->down));
    for (int g = 0; g < p->n_groups; g++) t->sc[g] = v_code(v_mul(s[g], inv), v_set((float)p->sc_lo), v_set((float)p->sc_hi));
    for (int r = 0; r <= p->polish; r++) {
        sym_codes(t, p, round, grid, err, sums, r ? 0 : p->reach);
        vf now = v_total(err, p->n_groups), num = v_set(0.0f), den = v_set(0.0f);
        keep_better(t, old, v_lt(before, now), p->n_groups);
        before = v_min(before, now);
        if (r == p->polish) break;
        old->d = t->d, old->dmin = t->dmin;
        for (int g = 0; g < p->n_groups; g++) {
            old->sc[g] = t->sc[g], old->m[g] = t->m[g];
            num = v_add(num, v_mul(t->sc[g], sums[g].qx));
            den = v_add(den, v_mul(v_mul(t->sc[g], t->sc[g]), sums[g].qq));
        }
        t->d = v_sel(v_lt(v_set(0.0f), den), v_half(v_mul(v_mul(num, v_inverse(den)), t->up)), t->d);
    }
}

/* Scales and codes of a block without minima. */
static void search_sym(struct tile *t, const struct k_plan *p, struct tile *old)
{
    int n = p->n / p->n_groups;
    vf s[16], lo = v_set(-(float)p->sym.half), hi = v_set((float)(p->sym.half - 1));
    struct sym_sums sums[16];
    for (int g = 0; g < p->n_groups; g++) s[g] = fit_sym(t->x + g * n, t->w + g * n, n, &p->sym, &sums[g]);
    if (!p->sc_hi) {
        t->d = v_half(v_mul(s[0], t->up));
        t->sc[0] = v_set(1.0f);
        polish_half(t, p);
    } else {
        sym_super(t, p, round_even, &p->sym, s, sums, old);
    }
    for (int g = 0; g < p->n_groups; g++) {
        vf inv = v_inverse(v_mul(v_mul(t->d, t->sc[g]), t->down));
        for (int i = g * n; i < (g + 1) * n; i += 4)
            t->q[i / 4] = codes_word(t->x + i, v_set(0.0f), inv, lo, hi, v_set(V_MAGIC + (float)p->sym.half));
    }
}

/* Re-rounds at scale codes around the present ones; each takes the minimum code that least squares asks for, and the present one. */
static void min_codes(struct tile *t, const struct k_plan *p, const struct min_fixed *f, vf *err, struct min_sums *sums, int reach)
{
    int n = p->n / p->n_groups;
    vf d = v_mul(t->d, t->down), dmin = v_mul(t->dmin, t->down), inv_dmin = v_inverse(dmin), top = v_set((float)p->line.top);
    for (int g = 0; g < p->n_groups; g++) {
        vf at = t->sc[g], m_at = t->m[g];
        err[g] = v_set(3e38f);
        for (int c = -reach; c <= reach; c++) {
            vf code = v_min(v_set((float)p->sc_hi), v_max(v_set(0.0f), v_add(at, v_set((float)c)))), s = v_mul(d, code);
            struct min_sums u = min_pass(t->x + g * n, t->w + g * n, n, v_neg(v_mul(dmin, m_at)), v_inverse(s), top);
            vf m = v_mul(v_sub(v_mul(s, u.q), f[g].x), f[g].inv_w);
            m = v_code(v_mul(m, inv_dmin), v_set(0.0f), v_set((float)p->m_hi));
            if (!reach) m = m_at;
            vf e = min_error(&f[g], &u, s, v_neg(v_mul(dmin, m)));
            vm better = v_lt(e, err[g]);
            err[g] = v_sel(better, e, err[g]), t->sc[g] = v_sel(better, code, t->sc[g]), t->m[g] = v_sel(better, m, t->m[g]);
            sums[g].q = v_sel(better, u.q, sums[g].q);
            sums[g].qq = v_sel(better, u.qq, sums[g].qq), sums[g].qx = v_sel(better, u.qx, sums[g].qx);
        }
    }
}

/* Least squares for d and dmin together, codes fixed. */
static void min_refit(struct tile *t, const struct k_plan *p, const struct min_fixed *f, const struct min_sums *s)
{
    vf zero = v_set(0.0f), a = zero, b = zero, c = zero, u = zero, v = zero;
    for (int g = 0; g < p->n_groups; g++) {
        vf k = t->sc[g], m = t->m[g];
        a = v_add(a, v_mul(v_mul(k, k), s[g].qq)), b = v_add(b, v_mul(v_mul(k, m), s[g].q)), c = v_add(c, v_mul(v_mul(m, m), f[g].w));
        u = v_add(u, v_mul(k, s[g].qx)), v = v_add(v, v_mul(m, f[g].x));
    }
    /* d a - dmin b = u;  d b - dmin c = v */
    vf det = v_sub(v_mul(a, c), v_mul(b, b));
    vm both = v_lt(v_mul(v_set(1e-5f), v_mul(a, c)), det);
    vf inv = v_inverse(det), d = v_mul(v_sub(v_mul(u, c), v_mul(v, b)), inv), dmin = v_mul(v_sub(v_mul(u, b), v_mul(v, a)), inv);
    vm good = vm_and(both, vm_and(v_le(zero, d), v_le(zero, dmin)));
    t->d = v_sel(good, v_half(v_mul(d, t->up)), t->d), t->dmin = v_sel(good, v_half(v_mul(dmin, t->up)), t->dmin);
}

static void search_min(struct tile *t, const struct k_plan *p, struct tile *old)
{
    int n = p->n / p->n_groups;
    vf s[16], m[16], a[16], err[16], step[16], slack[16], top = v_set((float)p->line.top);
    struct min_sums sums[16];
    struct min_fixed f[16];
    for (int g = 0; g < p->n_groups; g++) {
        struct min_fit fit = fit_min(t->x + g * n, t->w + g * n, n, &p->line, !p->free_min, &f[g], old->x);
        s[g] = fit.s, m[g] = v_neg(fit.b), slack[g] = fit.slack;
        a[g] = v_max(v_set(0.0f), v_sub(fit.sums.qq, v_mul(v_mul(fit.sums.q, fit.sums.q), f[g].inv_w)));
        sums[g] = fit.sums;
    }
    if (p->free_min) {
        t->d = v_half(v_mul(s[0], t->up)), t->dmin = v_half(v_mul(m[0], t->up));
        t->sc[0] = t->m[0] = v_set(1.0f);
        polish_half(t, p);
    } else {
        t->d = v_super(t, s, a, p->n_groups, 0.0f, (float)p->sc_hi, p->ends, p->n_ends);
        vf d = v_mul(t->d, t->down), inv = v_inverse(d);
        for (int g = 0; g < p->n_groups; g++) {
            t->sc[g] = v_code(v_mul(s[g], inv), v_set(0.0f), v_set((float)p->sc_hi));
            step[g] = v_mul(t->sc[g], d);
            vf moved = v_sub(step[g], s[g]);
            m[g] = v_max(v_set(0.0f), v_add(m[g], v_mul(moved, v_mul(sums[g].q, f[g].inv_w))));
            a[g] = f[g].w;
        }
        t->dmin = min_super(t, m, step, slack, a, p->n_groups, (float)p->m_hi, p->ends, p->n_ends);
        inv = v_inverse(v_mul(t->dmin, t->down));
        for (int g = 0; g < p->n_groups; g++) t->m[g] = v_code(v_mul(m[g], inv), v_set(0.0f), v_set((float)p->m_hi));
        vf before = v_set(3e38f);
        for (int r = 0; r <= p->polish; r++) {
            min_codes(t, p, f, err, sums, r == p->polish ? 0 : p->reach);
            vf now = v_total(err, p->n_groups);
            keep_better(t, old, v_lt(before, now), p->n_groups);
            before = v_min(before, now);
            if (r == p->polish) break;
            old->d = t->d, old->dmin = t->dmin;
            for (int g = 0; g < p->n_groups; g++) old->sc[g] = t->sc[g], old->m[g] = t->m[g];
            min_refit(t, p, f, sums);
        }
    }
    for (int g = 0; g < p->n_groups; g++) {
        vf inv = v_inverse(v_mul(v_mul(t->d, t->sc[g]), t->down)), b = v_mul(v_mul(t->dmin, t->m[g]), t->down);
        for (int i = g * n; i < (g + 1) * n; i += 4) t->q[i / 4] = codes_word(t->x + i, b, inv, v_set(0.0f), top, v_set(V_MAGIC));
    }
}

/* ---- bytes ---- */

/* Lanes to rows: codes leave four to a word, then join lays them out. */
static void store_tile(const struct tile *t, const struct k_plan *p, const struct dtype *type, int lanes, uint8_t *dst, size_t row_bytes)
{
    float d[LANES], dmin[LANES], sc[16][LANES], m[16][LANES];
    v_store(d, t->d);
    v_store(dmin, p->free_min ? v_neg(t->dmin) : t->dmin);
    for (int g = 0; g < p->n_groups; g++) v_store(sc[g], t->sc[g]), v_store(m[g], t->m[g]);
    const uint32_t *words = (const uint32_t *)(const void *)t->q;
    for (int l = 0; l < lanes; l++) {
        struct parts parts;
        parts.d = f32_to_f16(d[l]);
        parts.dmin = p->min ? f32_to_f16(dmin[l]) : 0;
        for (int g = 0; p->sc_hi && g < p->n_groups; g++) {
            parts.sc[g] = (uint8_t)((int)sc[g][l] + p->sc_bias);
            parts.m[g] = p->min ? (uint8_t)m[g][l] : 0;
        }
        for (int i = 0; i < p->n / 4; i++) {
            uint64_t word = words[i * LANES + l]; /* bytes to halves */
            word = (word | word << 16) & 0x0000ffff0000ffff, word = (word | word << 8) & 0x00ff00ff00ff00ff;
            memcpy(parts.q + 4 * i, &word, sizeof word);
        }
        type->join(&parts, dst + (size_t)l * row_bytes);
    }
}

static void search_rows(const struct k_plan *p, const float *x, const float *w, int64_t n_rows, int64_t n, void *dst, void *scratch)
{
    const struct dtype *type = dtype_by_id(p->id);
    struct tile *t = scratch, *old = t + 1;
    _Static_assert(2 * sizeof *t <= QUANT_SCRATCH, "two tiles fit the scratch");
    size_t row_bytes = dtype_row_bytes(type, n);
    old->d = old->dmin = t->dmin = v_set(0.0f);
    for (int g = 0; g < 16; g++) old->sc[g] = old->m[g] = t->m[g] = v_set(0.0f);
    for (int64_t b = 0; b < n / p->n; b++) {
        load_importance(t->w, w ? w + b * p->n : NULL, p->n);
        for (int64_t r = 0; r < n_rows; r += LANES) {
            int lanes = (int)(n_rows - r < LANES ? n_rows - r : LANES);
            load_tile(t, x + r * n + b * p->n, n, p->n, lanes);
            p->find(t, p, old);
            store_tile(t, p, type, lanes, (uint8_t *)dst + (size_t)r * row_bytes + (size_t)b * (size_t)type->block_bytes, row_bytes);
        }
    }
}

/* ---- plans: figures of trials were chosen on the tensors of three models, see README ---- */

static const float trials_low[] = { 1.0f, -1.0f, 0.9f, -0.9f, 1.06f, -1.06f, 1.14f, -1.14f, 1.25f, -1.3f, 1.5f, 2.0f };
static const float trials_q5[] = { 1.0f, -1.0f, 0.94f, -0.94f, 0.9f, 1.06f, -1.06f, 1.12f, -1.12f, 1.22f, 1.4f, 1.7f };
static const float trials_q6[] = { 1.0f, 0.96875f, 0.9375f, -0.96875f, -0.9375f, 1.03f };
static const float trials_1[] = { 1.0f }, trials_2[] = { 1.0f, -1.12f };
static const float (trials_line[])[2] = {
    { 0, 0 }, { 0, -1 }, { -.3f, -.3f }, { -.6f, -.6f }, { 0, -.5f }, { -.5f, 0 }, { .2f, .2f }, { .4f, -.3f }, { -.3f, .4f }, { .6f, 0 }, { 0, .6f },
    { -.8f, -.2f }, { -.2f, -.8f },
};
static const float (trials_range[])[2] = { { 0, 0 } };
static const float ends_q3[] = { -32, 31, -31, 30, -30, -29 }, ends_q6[] = { -128, 127, -126, -124 };
static const float ends_4[] = { 15, 14.5f, 14, 13.5f, 13, 12, 11 }, ends_6[] = { 63, 62.5f, 62, 61, 60, 58 };
#define TRIALS(t) .n_trials = ARRAY_LEN(t), .trial = t
#define ENDS(e) .ends = e, .n_ends = ARRAY_LEN(e)
#define SYM(h, t, r) .sym = { .half = h, TRIALS(t), .rounds = r }
#define LINE(h, t, r) .line = { .top = h, TRIALS(t), .rounds = r }

static const struct k_plan plan_q4_0 = { search_sym, GGUF_Q4_0, 32, 1, .polish = 2, SYM(8, trials_low, 1) };
static const struct k_plan plan_q5_0 = { search_sym, GGUF_Q5_0, 32, 1, .polish = 2, SYM(16, trials_q5, 1) };
static const struct k_plan plan_q4_1 = { search_min, GGUF_Q4_1, 32, 1, .min = true, .free_min = true, .polish = 2, LINE(15, trials_line, 3) };
static const struct k_plan plan_q5_1 = { search_min, GGUF_Q5_1, 32, 1, .min = true, .free_min = true, .polish = 2, LINE(31, trials_line, 3) };
static const struct k_plan plan_q2_k = { search_min, GGUF_Q2_K, 256, 16, .min = true, .sc_hi = 15, .m_hi = 15, .reach = 1, .polish = 2,
                                         LINE(3, trials_line, 3), ENDS(ends_4) };
static const struct k_plan plan_q4_k = { search_min, GGUF_Q4_K, 256, 8, .min = true, .sc_hi = 63, .m_hi = 63, .reach = 1, .polish = 1,
                                         LINE(15, trials_line, 3), ENDS(ends_6) };
static const struct k_plan plan_q5_k = { search_min, GGUF_Q5_K, 256, 8, .min = true, .sc_hi = 63, .m_hi = 63, .reach = 1, .polish = 1,
                                         LINE(31, trials_line, 3), ENDS(ends_6) };
static const struct k_plan plan_q3_k = { search_sym, GGUF_Q3_K, 256, 16, .sc_lo = -32, .sc_hi = 31, .sc_bias = 32, .reach = 1, .polish = 1,
                                             SYM(4, trials_low, 1), ENDS(ends_q3) };
static const struct k_plan plan_q3_k_plain = { search_sym, GGUF_Q3_K, 256, 16, .sc_lo = -32, .sc_hi = 31, .sc_bias = 32, .reach = 0, .polish = 1,
                                             SYM(4, trials_2, 0),
                                               ENDS(ends_q3) };
/* Without importance the reference rounds to nearest, a few cycles for a weight: so little search that it costs no more. */
static const struct k_plan plan_q4_0_plain = { search_sym, GGUF_Q4_0, 32, 1, SYM(8, trials_1, 0) };
static const struct k_plan plan_q5_0_plain = { search_sym, GGUF_Q5_0, 32, 1, SYM(16, trials_1, 0) };
static const struct k_plan plan_q4_1_plain = { search_min, GGUF_Q4_1, 32, 1, .min = true, .free_min = true, .polish = 1, LINE(15, trials_range, 0) };
static const struct k_plan plan_q5_1_plain = { search_min, GGUF_Q5_1, 32, 1, .min = true, .free_min = true, .polish = 1, LINE(31, trials_range, 0) };
static const struct k_plan plan_q6_k = { search_sym, GGUF_Q6_K, 256, 16, .sc_lo = -128, .sc_hi = 127, .reach = 1, .polish = 1,
                                             SYM(32, trials_q6, 1), ENDS(ends_q6) };

#define ROWS(fn, plan, plain)                                                                                                                  \
    static void fn(const struct quant_kernels *k, const float *x, const float *w, int64_t n_rows, int64_t n, void *dst, void *scratch)         \
    {                                                                                                                                          \
        search_rows(w ? &plan : &plain, x, w, n_rows, n, dst, scratch);                                                                        \
    }
ROWS(rows_q4_0, plan_q4_0, plan_q4_0_plain)
ROWS(rows_q4_1, plan_q4_1, plan_q4_1_plain)
ROWS(rows_q5_0, plan_q5_0, plan_q5_0_plain)
ROWS(rows_q5_1, plan_q5_1, plan_q5_1_plain)
ROWS(rows_q2_k, plan_q2_k, plan_q2_k)
ROWS(rows_q3_k, plan_q3_k, plan_q3_k_plain)
ROWS(rows_q4_k, plan_q4_k, plan_q4_k)
ROWS(rows_q5_k, plan_q5_k, plan_q5_k)
ROWS(rows_q6_k, plan_q6_k, plan_q6_k)

static void k_rows(struct quant_kernels *k)
{
    k->rows[GGUF_Q4_0] = rows_q4_0, k->rows[GGUF_Q4_1] = rows_q4_1, k->rows[GGUF_Q5_0] = rows_q5_0, k->rows[GGUF_Q5_1] = rows_q5_1;
    k->rows[GGUF_Q2_K] = rows_q2_k, k->rows[GGUF_Q3_K] = rows_q3_k, k->rows[GGUF_Q4_K] = rows_q4_k, k->rows[GGUF_Q5_K] = rows_q5_k;
    k->rows[GGUF_Q6_K] = rows_q6_k;
}
