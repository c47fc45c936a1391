/* search_book_tmpl - IQ1, IQ2, IQ3: vectors of 8 or 4 weights that share an index into a codebook, a scale code per group, a half-float per block.
 * Lane l works on block l of a tile of LANES blocks.
 *
 * Search of one vector at a known scale, exact over the whole codebook: the cost of an entry is the sum of a cost for its lower half and one for
 * its upper half. Both halves have few values (3^4 = 81, or 8^2 = 64), so two tables hold all sums; entries with the same upper half form a run,
 * and inside a run only the lower table matters: one load and one minimum per entry for LANES vectors. Which entry it was costs nothing there:
 * the low 8 bits of a lower half's cost are its level numbers, which a minimum carries along (the cost keeps 16 bits of mantissa).
 *
 * Signs: the search sees |x| and positive levels. Formats with 7 sign bits store only even numbers of minus signs: in vectors with an odd number
 * one element takes the wrong sign. Before a search it is guessed, as the element where the lowest level with the wrong sign costs least more
 * than the free choice; once the entry is known the best element is exact. The shifts of IQ1 are guessed likewise, as if levels were free.
 *
 * Scales: a first guess as if every element were free to take any level, which is cheap; then the codebook is searched at a few scales around it,
 * each followed by least squares for the scale (its entries fixed), and the best fit counts. A block's d is the half whose odd multiples come
 * closest to the groups' scales under their curvatures. At the codes that follow the entries are chosen, and least squares over the block gives
 * the final d. The numbers of trials per format are where twice as many gain 1 to 2 % of the error.
 *
 * Without importance a weight counts x^2 + mean(x^2) of the block. GGML takes x^2 (IQ2_S: and a quarter of the mean); this choice has less error than
 * GGML's result both with equal weights (0.63 to 0.89 of it) and with x^2 (0.57 to 0.60). */
#include <stddef.h>

#define FLOOR_W 0x1p-30f /* added to weights relative to the block's largest: where w is zero, elements still round to the nearest */

struct kind {
    int id;
    int vec, group;        /* weights per index; per scale code */
    int n_levels;          /* 3 or 8 */
    int n_entries;
    int max_code;          /* scale codes 0..max: scale = d * unit * (2 code + 1) */
    bool parity;           /* 7-bit signs */
    int shift;             /* IQ1: levels -1, 0, 1 of signed x, moved by +-1/8, which so many vectors share; else 0 */
    int n_trials, n_codes; /* scales searched before d is known; scale codes searched after: 1 or 2 */
    float unit;
    float line[2][2];      /* level of number f: the larger of line[0][0] + line[0][1] f and line[1][0] + line[1][1] f */
    const uint16_t *grid;
};

enum { BOOK_MAX = 2048, HALF_MAX = 81, RUN_PAD = 4, VECTORS_MAX = 64, GROUPS_MAX = 16 };
#define DIGITS 0xff          /* bits of a cost that hold level numbers */
#define COST_FLOOR 0x1p-70f  /* keeps costs away from denormals, where level numbers alone would be */
#define SHIFT 0.125f

struct book {
    int n_classes;
    struct { int quads, n; } class[HALF_MAX];   /* runs in order of length: n runs of `quads` * 4 entries */
    int32_t run_digits[HALF_MAX];               /* level numbers of the run's upper half */
    int32_t digits[HALF_MAX];                   /* of lower half h */
    uint16_t hi[HALF_MAX];                      /* upper half of a run, as bytes into a table */
    uint16_t lo[BOOK_MAX + RUN_PAD * HALF_MAX]; /* lower halves of the entries, likewise, run after run, the last one repeated to a full quad */
    uint16_t index[1 << 16];                    /* of the entry with these level numbers */
};

struct tables { vf lo[HALF_MAX], hi[HALF_MAX]; };

/* Entries of a group and what they fit: sums of w x y and w y^2, y at scale 1. e: error at the scale of the search */
struct group_found { vf e, xy, yy; vi q[8]; vf shift[8]; };

struct book_work {
    struct tables t[2];
    vf x[BLOCK_MAX], w[BLOCK_MAX], a[BLOCK_MAX]; /* a: what is compared with levels: |x| with a flipped sign here and there; for IQ1 x */
    vf s[GROUPS_MAX], yy[GROUPS_MAX], code[GROUPS_MAX];
    vf up, down, d;                              /* true value = x * up; d at the tile's scale */
    struct group_found found[GROUPS_MAX];
    struct book book;
    float raw[LANES * BLOCK_MAX];
    int32_t q[VECTORS_MAX][LANES], sign[BLOCK_MAX / 8][LANES], sc[GROUPS_MAX][LANES];
    struct parts parts;
};
_Static_assert(sizeof(struct book_work) <= QUANT_SCRATCH, "fits the scratch of a thread");

/* ---- the codebook ---- */

static inline int half_index(const struct kind *k, int digits)
{
    int bits = k->n_levels == 3 ? 2 : 3, v = 0;
    for (int i = k->vec / 2 - 1; i >= 0; i--) v = v * k->n_levels + (digits >> (bits * i) & ((1 << bits) - 1));
    return v;
}

static void book_init(struct book *b, const struct kind *k)
{
    int half_bits = k->n_levels == 3 ? 8 : 6, mask = (1 << half_bits) - 1, n_runs = 0, at = 0;
    int count[HALF_MAX] = { 0 }, filled[HALF_MAX] = { 0 }, place[HALF_MAX], run_of[HALF_MAX];
    for (int e = 0; e < k->n_entries; e++) count[half_index(k, k->grid[e] >> half_bits)]++;
    b->n_classes = 0;
    for (int quads = 1; quads <= (HALF_MAX + 3) / 4; quads++) {
        int n = 0;
        for (int h = 0; h < HALF_MAX; h++) {
            if ((count[h] + 3) / 4 != quads) continue;
            b->hi[n_runs] = (uint16_t)((size_t)h * sizeof(vf));
            place[h] = at;
            run_of[h] = n_runs++;
            at += 4 * quads;
            n++;
        }
        if (!n) continue;
        b->class[b->n_classes].quads = quads;
        b->class[b->n_classes++].n = n;
    }
    memset(b->digits, 0, sizeof b->digits);
    for (int e = 0; e < k->n_entries; e++) {
        int lo = k->grid[e] & mask, h = half_index(k, k->grid[e] >> half_bits), l = half_index(k, lo);
        int pad = filled[h] == count[h] - 1 ? (count[h] + 3) / 4 * 4 - filled[h] : 1;
        for (int i = 0; i < pad; i++) b->lo[place[h] + filled[h] + i] = (uint16_t)((size_t)l * sizeof(vf));
        filled[h]++;
        b->digits[l] = lo;
        b->run_digits[run_of[h]] = k->grid[e] & ~mask;
        b->index[k->grid[e]] = (uint16_t)e;
    }
}

/* ---- tables of half costs ---- */

LANE_FN vf with_digits(vf cost, int32_t digits) { return v_from_bits(vi_or(vi_and(v_bits(cost), vi_set(~DIGITS)), vi_set(digits))); }

LANE_FN vf cost_of(vf a, vf w, vf y)
{
    vf r = v_sub(a, y);
    return v_mul(v_mul(r, r), w);
}

/* Costs of all 81 halves of four elements against three levels y. digits: NULL, or what each cost carries. */
LANE_FN void fill_81(vf *t, const vf *a, const vf *w, vf y0, vf y1, vf y2, const int32_t *digits)
{
    vf pair[2][9];
    for (int i = 0; i < 2; i++) {
        vf c0 = v_add(cost_of(a[2 * i], w[2 * i], y0), v_set(COST_FLOOR)), c1 = v_add(cost_of(a[2 * i], w[2 * i], y1), v_set(COST_FLOOR));
        vf c2 = v_add(cost_of(a[2 * i], w[2 * i], y2), v_set(COST_FLOOR));
        for (int j = 0; j < 3; j++) {
            vf c = cost_of(a[2 * i + 1], w[2 * i + 1], j == 0 ? y0 : j == 1 ? y1 : y2);
            pair[i][3 * j] = v_add(c0, c);
            pair[i][3 * j + 1] = v_add(c1, c);
            pair[i][3 * j + 2] = v_add(c2, c);
        }
    }
    for (int j = 0; j < 9; j++)
        for (int i = 0; i < 9; i++) {
            vf c = v_add(pair[0][i], pair[1][j]);
            t[9 * j + i] = digits ? with_digits(c, digits[9 * j + i]) : c;
        }
}

LANE_FN void fill_64(vf *t, const vf *a, const vf *w, const vf *y, const int32_t *digits)
{
    vf c[8];
    for (int i = 0; i < 8; i++) c[i] = v_add(cost_of(a[0], w[0], y[i]), v_set(COST_FLOOR));
    for (int j = 0; j < 8; j++) {
        vf c1 = cost_of(a[1], w[1], y[j]);
        for (int i = 0; i < 8; i++) t[8 * j + i] = digits ? with_digits(v_add(c[i], c1), digits[8 * j + i]) : v_add(c[i], c1);
    }
}

LANE_FN vf level_of(const struct kind *k, vf number)
{
    return v_max(v_add(v_mul(number, v_set(k->line[0][1])), v_set(k->line[0][0])), v_add(v_mul(number, v_set(k->line[1][1])), v_set(k->line[1][0])));
}

/* The tables of the vector from element e on, at scale s; all levels moved by shift. */
static void book_tables(const struct kind *k, const struct book *b, struct tables *t, const vf *a, const vf *w, vf s, vf shift)
{
    vf y[8];
    for (int i = 0; i < k->n_levels; i++) y[i] = v_mul(s, v_add(level_of(k, v_set((float)i)), shift));
    if (k->n_levels == 3) {
        fill_81(t->lo, a, w, y[0], y[1], y[2], b->digits);
        fill_81(t->hi, a + 4, w + 4, y[0], y[1], y[2], NULL);
    } else {
        fill_64(t->lo, a, w, y, b->digits);
        fill_64(t->hi, a + 2, w + 2, y, NULL);
    }
}

/* ---- the search ---- */

struct least { vf e; vi q; }; /* cost, level numbers */
LANE_FN vf half_cost(const vf *t, uint16_t at) { return *(const vf *)(const void *)((const char *)t + at); }

/* The best entries for two tables. */
static void book_least(const struct book *b, const struct tables *t, struct least out[2])
{
    vf e0 = v_set(3.0e38f), e1 = e0, lo0 = e0, lo1 = e0;
    vi hi0 = vi_set(0), hi1 = hi0;
    const uint16_t *lo = b->lo;
    int run = 0;
    for (int c = 0; c < b->n_classes; c++) {
        int quads = b->class[c].quads;
        for (int end = run + b->class[c].n; run < end; run++) {
            vf m0 = v_set(3.0e38f), m1 = m0;
            for (int q = 0; q < quads; q++, lo += 4) {
                vf p0 = v_min(half_cost(t[0].lo, lo[0]), half_cost(t[0].lo, lo[1])), r0 = v_min(half_cost(t[0].lo, lo[2]), half_cost(t[0].lo, lo[3]));
                vf p1 = v_min(half_cost(t[1].lo, lo[0]), half_cost(t[1].lo, lo[1])), r1 = v_min(half_cost(t[1].lo, lo[2]), half_cost(t[1].lo, lo[3]));
                m0 = v_min(m0, v_min(p0, r0));
                m1 = v_min(m1, v_min(p1, r1));
            }
            vf f0 = v_add(half_cost(t[0].hi, b->hi[run]), m0), f1 = v_add(half_cost(t[1].hi, b->hi[run]), m1);
            vm better0 = v_lt(f0, e0), better1 = v_lt(f1, e1);
            vi digits = vi_set(b->run_digits[run]);
            e0 = v_min(f0, e0), lo0 = v_sel(better0, m0, lo0), hi0 = vi_sel(better0, digits, hi0);
            e1 = v_min(f1, e1), lo1 = v_sel(better1, m1, lo1), hi1 = vi_sel(better1, digits, hi1);
        }
    }
    out[0] = (struct least){ e0, vi_or(hi0, vi_and(v_bits(lo0), vi_set(DIGITS))) };
    out[1] = (struct least){ e1, vi_or(hi1, vi_and(v_bits(lo1), vi_set(DIGITS))) };
}

/* Sums of w a y and w y^2 of one vector with level numbers q, added to f. */
LANE_FN void book_sums(const struct kind *k, const vf *a, const vf *w, vi q, vf shift, struct group_found *f)
{
    int bits = k->n_levels == 3 ? 2 : 3;
    vi mask = vi_set((1 << bits) - 1);
    vf xy = f->xy, yy = f->yy;
    for (int i = 0; i < k->vec; i++, q = vi_shr(q, bits)) {
        vf y = v_add(level_of(k, v_from_i(vi_and(q, mask))), shift), wy = v_mul(w[i], y);
        xy = v_add(xy, v_mul(wy, a[i]));
        yy = v_add(yy, v_mul(wy, y));
    }
    f->xy = xy, f->yy = yy;
}

/* IQ1: the shifts of the group from element e0 on that would be better at scale s if every element were free to take any level. */
static void guess_shifts(const struct kind *k, struct book_work *b, int e0, vf s, struct group_found *f)
{
    vf inv = v_div(v_set(1.0f), s), diff = v_set(0.0f);
    for (int v = 0, e = e0; v < k->group / 8; v++) {
        for (int i = 0; i < 8; i++, e++) {
            vf t = v_mul(b->a[e], inv), plus = v_sub(t, v_set(SHIFT)), minus = v_add(t, v_set(SHIFT));
            plus = v_sub(plus, v_nearest(v_clamp(plus, -1.0f, 1.0f)));
            minus = v_sub(minus, v_nearest(v_clamp(minus, -1.0f, 1.0f)));
            diff = v_add(diff, v_mul(b->w[e], v_sub(v_mul(plus, plus), v_mul(minus, minus))));
        }
        if ((v + 1) % k->shift) continue;
        for (int i = v + 1 - k->shift; i <= v; i++) f->shift[i] = v_sel(v_lt(v_set(0.0f), diff), v_set(-SHIFT), v_set(SHIFT));
        diff = v_set(0.0f);
    }
}

/* All vectors of the group from element e0 on, at scale s. */
static void group_search(const struct kind *k, struct book_work *b, int e0, vf s, struct group_found *f)
{
    struct least r[2];
    f->e = f->xy = f->yy = v_set(0.0f);
    if (k->shift) guess_shifts(k, b, e0, s, f);
    else for (int v = 0; v < 8; v++) f->shift[v] = v_set(0.0f);
    for (int e = 0, v = 0; e < k->group; e += 2 * k->vec, v += 2) {
        book_tables(k, &b->book, &b->t[0], b->a + e0 + e, b->w + e0 + e, s, f->shift[v]);
        book_tables(k, &b->book, &b->t[1], b->a + e0 + e + k->vec, b->w + e0 + e + k->vec, s, f->shift[v + 1]);
        book_least(&b->book, b->t, r);
        f->e = v_add(f->e, v_add(r[0].e, r[1].e));
        f->q[v] = r[0].q, f->q[v + 1] = r[1].q;
    }
    for (int e = 0, v = 0; e < k->group; e += k->vec, v++) book_sums(k, b->a + e0 + e, b->w + e0 + e, f->q[v], f->shift[v], f);
}

LANE_FN void found_sel(const struct kind *k, vm better, const struct group_found *from, struct group_found *to)
{
    to->e = v_sel(better, from->e, to->e), to->xy = v_sel(better, from->xy, to->xy), to->yy = v_sel(better, from->yy, to->yy);
    for (int v = 0; v < k->group / k->vec; v++) to->q[v] = vi_sel(better, from->q[v], to->q[v]);
    for (int v = 0; v < k->group / k->vec; v++) to->shift[v] = v_sel(better, from->shift[v], to->shift[v]);
}

/* ---- signs ---- */

/* In the eight elements from e on, where the number of minus signs is odd, the sign of the element with the least `cost` is turned. */
LANE_FN void flip_least(struct book_work *b, int e, const vf cost[8])
{
    vi odd = v_bits(b->x[e]);
    vf least = cost[0], at = v_set(0.0f);
    for (int i = 1; i < 8; i++) {
        vm less = v_lt(cost[i], least);
        least = v_sel(less, cost[i], least), at = v_sel(less, v_set((float)i), at);
        odd = vi_xor(odd, v_bits(b->x[e + i]));
    }
    at = v_sel(vi_lt(odd, vi_set(0)), at, v_set(-1.0f));
    for (int i = 0; i < 8; i++) {
        vf a = v_abs(b->x[e + i]);
        b->a[e + i] = v_sel(v_eq(at, v_set((float)i)), v_neg(a), a);
    }
}

/* The group from element e0 on: signs for a search at scale s. */
static void guess_signs(const struct kind *k, struct book_work *b, int e0, vf s)
{
    vf lo = v_mul(s, level_of(k, v_set(0.0f))), hi = v_mul(s, level_of(k, v_set((float)(k->n_levels - 1)))), zero = v_set(0.0f), cost[8];
    for (int e = e0; e < e0 + k->group; e += 8) {
        for (int i = 0; i < 8; i++) {
            vf a = v_abs(b->x[e + i]), under = v_max(v_sub(lo, a), zero), over = v_max(v_sub(a, hi), zero), wrong = v_add(a, lo);
            cost[i] = v_mul(b->w[e + i], v_sub(v_mul(wrong, wrong), v_add(v_mul(under, under), v_mul(over, over))));
        }
        flip_least(b, e, cost);
    }
}

/* ... and for the entries that were found; their sums again. */
static void settle_signs(const struct kind *k, struct book_work *b, int e0, struct group_found *f)
{
    vf cost[8];
    int bits = k->n_levels == 3 ? 2 : 3;
    vi mask = vi_set((1 << bits) - 1);
    for (int e = 0; e < k->group; e += 8) {
        for (int i = 0; i < 8; i++) {
            vf y = level_of(k, v_from_i(vi_and(vi_shr(f->q[(e + i) / k->vec], (e + i) % k->vec * bits), mask)));
            cost[i] = v_mul(v_mul(b->w[e0 + e + i], v_abs(b->x[e0 + e + i])), y);
        }
        flip_least(b, e0 + e, cost);
    }
    f->xy = f->yy = v_set(0.0f);
    for (int e = 0, v = 0; e < k->group; e += k->vec, v++) book_sums(k, b->a + e0 + e, b->w + e0 + e, f->q[v], v_set(0.0f), f);
}

/* ---- scales ---- */

/* Trials of the codebook, relative to the guess; guesses relative to one from the root mean square, which is `usual` of the highest level. */
static const float trials[] = { 1.0f, 1.12f, 0.88f, 1.25f };
static const float guesses[] = { 0.5f, 0.65f, 0.8f, 0.95f, 1.1f, 1.3f, 1.55f, 1.9f };
#define SCALE_MIN 0x1p-20f /* of the block's largest element: below it scales are no use, and squares of theirs would be denormals */

LANE_FN vf inverse(vf x) { return v_sel(v_lt(v_abs(x), v_set(0x1p-100f)), v_set(0.0f), v_div(v_set(1.0f), x)); }

/* The scale that would be best if every element were free to take any level (IQ1: 0 or 1, unshifted), and the curvature of its error. */
static void group_guess(const struct kind *k, const struct book_work *b, int e0, vf *s, vf *curvature)
{
    float top = k->shift ? 1.0f : k->line[1][0] + k->line[1][1] * (float)(k->n_levels - 1), low = k->shift ? 0.0f : k->line[0][0];
    float usual = k->n_levels == 8 ? 0.4f : k->shift ? 0.75f : 0.5f, steps = k->shift ? 1.0f : (float)(k->n_levels - 1), step = (top - low) / steps;
    vf sum = v_set(0.0f), waa = v_set(0.0f), largest = v_set(0.0f), best = v_set(-1.0f);
    for (int e = e0; e < e0 + k->group; e++) {
        vf a = v_abs(b->x[e]);
        sum = v_add(sum, b->w[e]);
        waa = v_add(waa, v_mul(b->w[e], v_mul(a, a)));
        largest = v_max(a, largest);
    }
    vf inv = v_div(v_set(1.0f), v_max(v_sqrt(v_div(waa, sum)), v_set(SCALE_MIN))), inv_largest = v_div(v_set(top / step), v_max(largest, v_set(SCALE_MIN)));
    int n = (int)(sizeof guesses / sizeof *guesses);
    *s = v_set(SCALE_MIN), *curvature = v_set(0.0f);
    for (int i = 0; i <= n; i++) {
        vf scale = i < n ? v_mul(inv, v_set(usual * top / (step * guesses[i]))) : inv_largest, xy = v_set(0.0f), yy = v_set(0.0f);
        for (int e = e0; e < e0 + k->group; e++) {
            vf a = v_abs(b->x[e]), number = v_nearest(v_max(v_min(v_add(v_mul(a, scale), v_set(-low / step)), v_set(steps)), v_set(0.0f)));
            vf y = v_add(v_mul(number, v_set(step)), v_set(low)), wy = v_mul(b->w[e], y);
            xy = v_add(xy, v_mul(wy, a));
            yy = v_add(yy, v_mul(wy, y));
        }
        vf fit = v_mul(xy, inverse(yy)), gain = v_mul(fit, xy);
        vm better = v_lt(best, gain);
        best = v_sel(better, gain, best), *s = v_sel(better, fit, *s), *curvature = v_sel(better, yy, *curvature);
    }
    *s = v_max(*s, v_set(SCALE_MIN));
}

/* The scale of group g, from element e0 on, that fits best, and the curvature of its error. */
static void group_scale(const struct kind *k, struct book_work *b, int g, int e0)
{
    struct group_found f;
    vf guess, best = v_set(-1.0f);
    group_guess(k, b, e0, &guess, &b->yy[g]);
    b->s[g] = guess;
    if (k->parity) guess_signs(k, b, e0, guess);
    for (int i = 0; i < k->n_trials; i++) {
        group_search(k, b, e0, v_mul(guess, v_set(trials[i])), &f);
        vf fit = v_mul(v_max(f.xy, v_set(0.0f)), inverse(f.yy)), gain = v_mul(fit, f.xy);
        vm better = v_lt(best, gain);
        best = v_sel(better, gain, best), b->s[g] = v_sel(better, fit, b->s[g]), b->yy[g] = v_sel(better, f.yy, b->yy[g]);
    }
}

/* The scale code whose odd number is nearest to t. */
LANE_FN vf code_near(const struct kind *k, vf t) { return v_nearest(v_clamp(v_mul(v_sub(t, v_set(1.0f)), v_set(0.5f)), 0.0f, (float)k->max_code)); }
LANE_FN vf odd_of(vf code) { return v_add(v_add(code, code), v_set(1.0f)); }
LANE_FN vf half_near(const struct book_work *b, vf d) { return v_mul(v_half(v_mul(d, b->up)), b->down); }

/* The odd number that the largest scale gets, of 31: d is then fixed. */
static const float ends[] = { 31, 30, 29, 28, 27, 26, 25, 23, 21, 32, 33 };

static void block_scale(const struct kind *k, struct book_work *b, int n_groups)
{
    vf largest = b->s[0], least = v_set(3.0e38f);
    for (int g = 1; g < n_groups; g++) largest = v_max(largest, b->s[g]);
    b->d = v_set(0.0f);
    for (unsigned i = 0; i < sizeof ends / sizeof *ends; i++) {
        float odd = ends[i] / 31.0f * (float)(2 * k->max_code + 1);
        vf d = half_near(b, v_mul(largest, v_set(1.0f / (odd * k->unit)))), step = v_mul(d, v_set(k->unit)), inv = inverse(step), cost = v_set(0.0f);
        for (int g = 0; g < n_groups; g++) {
            vf r = v_sub(b->s[g], v_mul(step, odd_of(code_near(k, v_mul(b->s[g], inv)))));
            cost = v_add(cost, v_mul(b->yy[g], v_mul(r, r)));
        }
        b->d = v_sel(v_lt(cost, least), d, b->d);
        least = v_min(cost, least);
    }
}

/* Entries of a group at the code next to its scale, or at the better of the two around it. */
static void group_settle(const struct kind *k, struct book_work *b, int g, int e0)
{
    struct group_found other, *f = &b->found[g];
    vf step = v_mul(b->d, v_set(k->unit)), t = v_mul(b->s[g], inverse(step)), near = code_near(k, t);
    if (k->parity) guess_signs(k, b, e0, b->s[g]);
    group_search(k, b, e0, v_mul(step, odd_of(near)), f);
    b->code[g] = near;
    if (k->n_codes == 2) {
        vf next = v_clamp(v_add(near, v_sel(v_lt(odd_of(near), t), v_set(1.0f), v_set(-1.0f))), 0.0f, (float)k->max_code);
        group_search(k, b, e0, v_mul(step, odd_of(next)), &other);
        vm better = v_lt(other.e, f->e);
        found_sel(k, better, &other, f);
        b->code[g] = v_sel(better, next, near);
    }
    if (k->parity) settle_signs(k, b, e0, f);
}

/* d by least squares for all that was chosen, if as a half it is better. */
static void block_refit(const struct kind *k, struct book_work *b, int n_groups)
{
    vf xy = v_set(0.0f), yy = v_set(0.0f);
    for (int g = 0; g < n_groups; g++) {
        vf c = v_mul(odd_of(b->code[g]), v_set(k->unit));
        xy = v_add(xy, v_mul(c, b->found[g].xy));
        yy = v_add(yy, v_mul(v_mul(c, c), b->found[g].yy));
    }
    vf d = half_near(b, v_max(v_mul(xy, inverse(yy)), v_set(0.0f)));
    vf was = v_mul(b->d, v_sub(v_mul(b->d, yy), v_add(xy, xy))), is = v_mul(d, v_sub(v_mul(d, yy), v_add(xy, xy)));
    b->d = v_sel(v_lt(is, was), d, b->d);
}

/* ---- blocks ---- */

/* Blocks `first` .. first + n - 1 of the matrix into the tile, at a scale of their own: the largest element comes into [1, 2). */
static void tile_load(const struct kind *k, struct book_work *b, const float *x, const float *w, int64_t first, int n, int64_t row_blocks)
{
    vf top = v_set(0.0f), top_w = v_set(0.0f), mean2 = v_set(0.0f);
    v_transpose_load(b->x, x + first * BLOCK_MAX, BLOCK_MAX, BLOCK_MAX, n);
    for (int i = 0; i < n && w; i++) memcpy(b->raw + i * BLOCK_MAX, w + (first + i) % row_blocks * BLOCK_MAX, BLOCK_MAX * sizeof *w);
    if (w) v_transpose_load(b->w, b->raw, BLOCK_MAX, BLOCK_MAX, n);
    for (int i = 0; i < BLOCK_MAX; i++) top = v_max(v_abs(b->x[i]), top);
    for (int i = 0; i < BLOCK_MAX && w; i++) top_w = v_max(b->w[i], top_w);
    vi e = vi_max(vi_set(1), vi_min(vi_set(253), vi_shr(v_bits(top), 23))), ew = vi_max(vi_set(1), vi_min(vi_set(253), vi_shr(v_bits(top_w), 23)));
    b->up = v_from_bits(vi_shl(e, 23)), b->down = v_from_bits(vi_shl(vi_sub(vi_set(254), e), 23));
    for (int i = 0; i < BLOCK_MAX; i++) {
        b->x[i] = v_mul(b->x[i], b->down);
        b->a[i] = k->shift ? b->x[i] : v_abs(b->x[i]);
        mean2 = v_add(mean2, v_mul(b->x[i], b->x[i]));
    }
    vf down_w = v_from_bits(vi_shl(vi_sub(vi_set(254), ew), 23));
    mean2 = v_mul(mean2, v_set(1.0f / BLOCK_MAX));
    vm use = vm_and(v_lt(v_set(0.0f), top_w), v_lt(top_w, v_set(3.4e38f)));
    for (int i = 0; i < BLOCK_MAX; i++) {
        vf own = v_set(1.0f);
        if (w) own = v_sel(use, v_max(v_mul(b->w[i], down_w), v_set(0.0f)), own);
        else own = v_add(v_mul(b->x[i], b->x[i]), mean2);
        b->w[i] = v_add(own, v_set(FLOOR_W));
    }
}

static void tile_store(const struct kind *k, struct book_work *b, int n, uint8_t *dst)
{
    const struct dtype *t = dtype_by_id(k->id);
    int per_group = k->group / k->vec, n_groups = BLOCK_MAX / k->group;
    float d[LANES];
    v_store(d, v_mul(b->d, b->up));
    for (int g = 0; g < n_groups; g++) {
        vi_store(b->sc[g], v_trunc(b->code[g]));
        for (int v = 0; v < per_group; v++) vi_store(b->q[g * per_group + v], b->found[g].q[v]);
        for (int v = 0; k->shift && v < per_group; v++)
            if (v % k->shift == 0) vi_store(b->sign[(g * per_group + v) / k->shift], vi_shr(v_bits(b->found[g].shift[v]), 31));
    }
    for (int v = 0; !k->shift && v < BLOCK_MAX / 8; v++) {
        vi sign = vi_set(0);
        for (int i = 0; i < 8; i++) sign = vi_or(sign, vi_shl(vi_shr(vi_xor(v_bits(b->x[8 * v + i]), v_bits(b->a[8 * v + i])), 31), i));
        vi_store(b->sign[v], sign);
    }
    for (int l = 0; l < n; l++) {
        struct parts *p = &b->parts;
        p->d = f32_to_f16(d[l]);
        for (int v = 0; v < BLOCK_MAX / k->vec; v++) p->q[v] = b->book.index[b->q[v][l]];
        for (int v = 0; v < BLOCK_MAX / 8; v++) p->sign[v] = (uint8_t)b->sign[v][l];
        for (int g = 0; g < n_groups; g++) p->sc[g] = (uint8_t)b->sc[g][l];
        t->join(p, dst + (size_t)l * (size_t)t->block_bytes);
    }
}

static void book_search(const struct kind *k, const float *x, const float *w, int64_t n_rows, int64_t n, void *dst, void *scratch)
{
    struct book_work *b = scratch;
    int64_t blocks = n_rows * (n / BLOCK_MAX);
    int n_groups = BLOCK_MAX / k->group;
    book_init(&b->book, k);
    for (int64_t at = 0; at < blocks; at += LANES) {
        int lanes = (int)(blocks - at < LANES ? blocks - at : LANES);
        tile_load(k, b, x, w, at, lanes, n / BLOCK_MAX);
        for (int g = 0; g < n_groups; g++) group_scale(k, b, g, g * k->group);
        block_scale(k, b, n_groups);
        for (int g = 0; g < n_groups; g++) group_settle(k, b, g, g * k->group);
        block_refit(k, b, n_groups);
        tile_store(k, b, lanes, (uint8_t *)dst + (size_t)at * (size_t)dtype_by_id(k->id)->block_bytes);
    }
}

#define KIND(upper, per_index, per_scale, levels, entries, codes, ...)                                                                          \
    { .id = GGUF_##upper, .vec = per_index, .group = per_scale, .n_levels = levels, .n_entries = entries, .max_code = codes, __VA_ARGS__ }
#define IQ1 .unit = 1, .line = { { -1, 1 }, { -1, 1 } }, .grid = iq1_grid
#define IQ2 .unit = 1.0f / 8, .line = { { 8, 17 }, { 7, 18 } } /* 8 25 43 */
#define IQ3_XXS .unit = 1.0f / 4, .line = { { 4, 8 }, { -78, 20 } } /* 4 12 .. 52 62 */
#define IQ3_S .unit = 1, .line = { { 1, 2 }, { 1, 2 } }
#define EFFORT(trials, codes) .n_trials = trials, .n_codes = codes
static const struct kind kind_iq1_s = KIND(IQ1_S, 8, 32, 3, 2048, 7, EFFORT(1, 1), .shift = 4, IQ1);
static const struct kind kind_iq1_m = KIND(IQ1_M, 8, 16, 3, 2048, 7, EFFORT(1, 1), .shift = 1, IQ1);
static const struct kind kind_iq2_xxs = KIND(IQ2_XXS, 8, 32, 3, 256, 15, EFFORT(3, 2), .parity = true, IQ2, .grid = iq2_xxs_grid);
static const struct kind kind_iq2_xs = KIND(IQ2_XS, 8, 16, 3, 512, 15, EFFORT(3, 2), .parity = true, IQ2, .grid = iq2_xs_grid);
static const struct kind kind_iq2_s = KIND(IQ2_S, 8, 16, 3, 1024, 15, EFFORT(3, 1), IQ2, .grid = iq2_s_grid);
static const struct kind kind_iq3_xxs = KIND(IQ3_XXS, 4, 32, 8, 256, 15, EFFORT(4, 2), .parity = true, IQ3_XXS, .grid = iq3_xxs_grid);
static const struct kind kind_iq3_s = KIND(IQ3_S, 4, 32, 8, 512, 15, EFFORT(4, 1), IQ3_S, .grid = iq3_s_grid);

#define BOOK_ROWS(name)                                                                                                                        \
    static void rows_##name(const struct quant_kernels *k, const float *x, const float *w, int64_t n_rows, int64_t n, void *dst, void *scratch) \
    {                                                                                                                                          \
        book_search(&kind_##name, x, w, n_rows, n, dst, scratch);                                                                              \
    }
BOOK_ROWS(iq1_s)
BOOK_ROWS(iq1_m)
BOOK_ROWS(iq2_xxs)
BOOK_ROWS(iq2_xs)
BOOK_ROWS(iq2_s)
BOOK_ROWS(iq3_xxs)
BOOK_ROWS(iq3_s)

static void book_rows(struct quant_kernels *k)
{
    k->rows[GGUF_IQ1_S] = rows_iq1_s, k->rows[GGUF_IQ1_M] = rows_iq1_m, k->rows[GGUF_IQ2_XXS] = rows_iq2_xxs, k->rows[GGUF_IQ2_XS] = rows_iq2_xs;
    k->rows[GGUF_IQ2_S] = rows_iq2_s, k->rows[GGUF_IQ3_XXS] = rows_iq3_xxs, k->rows[GGUF_IQ3_S] = rows_iq3_s;
}
