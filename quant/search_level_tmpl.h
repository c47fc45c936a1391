/* search_level_tmpl - IQ4_NL, IQ4_XS, TQ1_0, TQ2_0, Q1_0, Q2_0, MXFP4, NVFP4: each weight is rounded by itself, to few or uneven levels.
 * Comes after search_k_tmpl.h. Lane l works on row l, as in search_k_tmpl.h, whose tile, half floats and scale-code search are used here.
 *
 * The formats with a half-float scale need no scaling of the block: a half ends at 65504 and 2^-24, so that values beyond 2^40 may count as
 * 2^40, and what underflows in a square would be stored as 0. MXFP4 and NVFP4 scale by their own candidates.
 *
 * Without importance all columns count the same, IQ4 included: under a real model's importance that left 0.73 of the error that weights x^2
 * leave. */

#include <stddef.h>

/* ---- IQ4: sixteen uneven levels ---- */

/* What iq4_levels says, as floats; upper[i]: where level i ends. */
struct iq4_table { float value[16], upper[16]; };

static struct iq4_table iq4_table(void)
{
    struct iq4_table t;
    for (int i = 0; i < 16; i++) {
        t.value[i] = (float)iq4_levels[i];
        t.upper[i] = i < 15 ? 0.5f * (float)(iq4_levels[i] + iq4_levels[i + 1]) : 3e38f;
    }
    return t;
}

/* iq4_index - the level nearest to u. The levels follow a parabola on either side of 0: its inverse gives the index to within 0.3 at the
 * ends of the levels, so the level is the rounded one or the next, and one comparison says which. Low four bits only. */
LANE_FN vi iq4_index(const struct iq4_table *t, vf u)
{
    u = v_clamp(u, -127.0f, 120.0f);
    vf at = v_mul(u, v_sub(v_set(0.0904f), v_mul(v_abs(u), v_set(2.48e-4f))));
    vi i = v_bits(v_add(v_add(at, v_set(7.4f)), v_set(V_MAGIC)));
    return vi_sel(v_lt(v_table16(t->upper, i), u), vi_add(i, vi_set(1)), i);
}

LANE_FN struct sym_sums iq4_pass(const struct iq4_table *t, const vf *x, const float *w, int n, vf inv)
{
    struct sym_sums s = { v_set(0.0f), v_set(0.0f) };
    for (int i = 0; i < n; i++) {
        vf q = v_table16(t->value, iq4_index(t, v_mul(x[i], inv))), wq = v_mul(v_set(w[i]), q);
        s.qx = v_add(s.qx, v_mul(wq, x[i]));
        s.qq = v_add(s.qq, v_mul(wq, q));
    }
    return s;
}

LANE_FN void keep_sums(struct sym_sums *best, const struct sym_sums *s)
{
    vm better = sym_better(s, best);
    best->qx = v_sel(better, s->qx, best->qx), best->qq = v_sel(better, s->qq, best->qq);
}

/* What the largest magnitude is rounded from, in levels. Both ends of the range are tried; beyond +-127 that weight is cut. */
static const float iq4_trials[] = {
    -130, 116, -145, -106, 135, -121, 108, -159, 94, -99, 125, -136, -187, 158, -111, -125, -88, 102, 145, -175, 87, 112, 170, -150,
};
enum { IQ4_ROUNDS = 2 };

static vf fit_iq4(const struct iq4_table *t, const vf *x, const float *w, int n, struct sym_sums *sums)
{
    vf hi = x[0], lo = x[0];
    for (int i = 1; i < n; i++) hi = v_max(hi, x[i]), lo = v_min(lo, x[i]);
    vf unit = v_inverse(v_sel(v_lt(v_neg(lo), hi), hi, lo));
    struct sym_sums best = iq4_pass(t, x, w, n, v_mul(unit, v_set(iq4_trials[0])));
    for (int i = 1; i < ARRAY_LEN(iq4_trials); i++) {
        struct sym_sums s = iq4_pass(t, x, w, n, v_mul(unit, v_set(iq4_trials[i])));
        keep_sums(&best, &s);
    }
    for (int i = 0; i < IQ4_ROUNDS; i++) {
        struct sym_sums s = iq4_pass(t, x, w, n, v_mul(best.qq, v_inverse(best.qx)));
        keep_sums(&best, &s);
    }
    *sums = best;
    return v_mul(best.qx, v_inverse(best.qq));
}

LANE_FN struct sym_sums round_iq4(const void *grid, const vf *x, const float *w, int n, vf inv) { return iq4_pass(grid, x, w, n, inv); }

static void search_iq4(struct tile *t, const struct k_plan *p, struct tile *old)
{
    const struct iq4_table table = iq4_table();
    vf s[8];
    struct sym_sums sums[8];
    for (int g = 0; g < p->n_groups; g++) s[g] = fit_iq4(&table, t->x + g * 32, t->w + g * 32, 32, &sums[g]);
    t->sc[0] = v_set(1.0f);
    if (p->sc_hi) sym_super(t, p, round_iq4, &table, s, sums, old);
    else t->d = v_half(v_mul(s[0], t->up));
    for (int g = 0; g < p->n_groups; g++) {
        vf inv = v_inverse(v_mul(v_mul(t->d, t->sc[g]), t->down));
        for (int i = 8 * g; i < 8 * (g + 1); i++) {
            vi word = vi_set(0);
            for (int j = 3; j >= 0; j--) word = vi_or(vi_shl(word, 8), vi_and(iq4_index(&table, v_mul(t->x[4 * i + j], inv)), vi_set(15)));
            t->q[i] = word;
        }
    }
}

static const float ends_iq4[] = { -32, 31, -31, 30, -30, 29, -29, 28, -28, 27, -27, 26, -26, 25 };
static const struct k_plan plan_iq4_nl = { search_iq4, GGUF_IQ4_NL, 32, 1 };
static const struct k_plan plan_iq4_xs = { search_iq4, GGUF_IQ4_XS, 256, 8, .sc_lo = -32, .sc_hi = 31, .sc_bias = 32, .reach = 1, .polish = 1,
                                           ENDS(ends_iq4) };
ROWS(rows_iq4_nl, plan_iq4_nl, plan_iq4_nl)
ROWS(rows_iq4_xs, plan_iq4_xs, plan_iq4_xs)

/* ---- the others: rows in strips of columns ---- */

/* Finds the fields of one block of `lanes` rows and stores it. x: in lanes; w: of the columns; top: largest magnitudes; more: scratch */
typedef void (*level_block)(vf *x, const float *w, vf top, vf *more, int lanes, uint8_t *dst, size_t row_bytes);

enum { STRIP = 2048 }; /* a multiple of every block length */
struct strip { _Alignas(64) float w[STRIP]; vf x[BLOCK_MAX], more[BLOCK_MAX]; };

LANE_FN float max_abs(const float *x, int n)
{
    vf m = v_set(0);
    for (int i = 0; i < n; i += LANES) m = v_max(m, v_abs(v_load(x + i)));
    float f[LANES], r = 0;
    v_store(f, m);
    for (int i = 0; i < LANES; i++) r = f[i] > r ? f[i] : r;
    return r;
}

/* As load_importance: the largest of the block counts 1, nothing less than 2^-20. */
static void strip_importance(float *to, const float *w, int n)
{
    float top = w ? max_abs(w, n) : 0.0f;
    bool plain = !(top > 0.0f) || !isfinite(top);
    for (int i = 0; i < n; i += LANES)
        v_store(to + i, plain ? v_set(1.0f) : v_max(v_div(v_load(w + i), v_set(top)), v_set(0x1p-20f)));
}

static void search_level(int id, level_block fn, const float *x, const float *w, int64_t n_rows, int64_t n, uint8_t *dst, struct strip *s)
{
    const struct dtype *type = dtype_by_id(id);
    size_t row_bytes = dtype_row_bytes(type, n);
    int len = type->block_len;
    for (int64_t c = 0; c < n; c += STRIP) {
        int wide = (int)(n - c < STRIP ? n - c : STRIP);
        for (int b = 0; b < wide; b += len) strip_importance(s->w + b, w ? w + c + b : NULL, len);
        for (int64_t r = 0; r < n_rows; r += LANES) {
            int lanes = (int)(n_rows - r < LANES ? n_rows - r : LANES);
            for (int b = 0; b < wide; b += len) {
                v_transpose_load(s->x, x + r * n + c + b, n, len, lanes);
                vf top = v_abs(s->x[0]);
                for (int i = 1; i < len; i++) top = v_max(top, v_abs(s->x[i]));
                fn(s->x, s->w + b, top, s->more, lanes, dst + (size_t)r * row_bytes + (size_t)((c + b) / len) * (size_t)type->block_bytes, row_bytes);
            }
        }
    }
}

LANE_FN void put_words(uint8_t *dst, size_t row_bytes, vi word, int lanes)
{
    int32_t each[LANES];
    vi_store(each, word);
    for (int l = 0; l < lanes; l++) memcpy(dst + (size_t)l * row_bytes, &each[l], 4);
}

LANE_FN void put_halves(uint8_t *dst, size_t row_bytes, vf d, int lanes)
{
    int32_t each[LANES];
    vi_store(each, v_f16(d));
    for (int l = 0; l < lanes; l++) memcpy(dst + (size_t)l * row_bytes, &each[l], 2);
}

/* ---- codes -1, 0, 1 and -1, 0, 1, 2 ---- */

static void tame(vf *x, int n, vf top)
{
    if (!vm_any(v_lt(v_set(0x1p40f), top))) return;
    for (int i = 0; i < n; i++) x[i] = v_clamp(x[i], -0x1p40f, 0x1p40f);
}

/* Scales tried, in units of the weighted mean magnitude; the last one of each is for blocks of a few outliers. Then one rounding with the best. */
static const float trials_three[] = { 1.39f, 1.61f, 1.96f, 7.0f }, trials_four[] = { 1.24f, 1.69f, 0.98f, 2.63f, 1.45f, 6.6f };
enum { FEW_ROUNDS = 1 };

/* Sums of w x q and w q^2 for one magnitude of the scale: codes -1, 0, 1; then what the code 2 adds for a positive and a negative scale. */
struct few_sums { vf x1, q1, x_up, q_up, x_down, q_down; };

LANE_FN void few_add(struct few_sums *s, vf x, vf wx, vf w, vf d, bool two)
{
    vm m = v_lt(v_mul(d, v_set(0.5f)), v_abs(x));
    s->x1 = v_add_where(m, s->x1, v_abs(wx)), s->q1 = v_add_where(m, s->q1, w);
    if (!two) return;
    vf far = v_mul(d, v_set(1.5f));
    m = v_lt(far, x);
    s->x_up = v_add_where(m, s->x_up, wx), s->q_up = v_add_where(m, s->q_up, w);
    m = v_lt(x, v_neg(far));
    s->x_down = v_add_where(m, s->x_down, wx), s->q_down = v_add_where(m, s->q_down, w);
}

/* A negative qx stands for a negative scale. */
LANE_FN void keep_few(struct sym_sums *best, const struct few_sums *s, bool two)
{
    struct sym_sums c = { s->x1, s->q1 };
    if (!two) {
        keep_sums(best, &c);
        return;
    }
    c.qx = v_add(s->x1, s->x_up), c.qq = v_add(s->q1, v_mul(v_set(3.0f), s->q_up));
    keep_sums(best, &c);
    c.qx = v_sub(s->x_down, s->x1), c.qq = v_add(s->q1, v_mul(v_set(3.0f), s->q_down));
    keep_sums(best, &c);
}

/* fit_few - the scale as stored. wx: scratch */
LANE_FN vf fit_few(vf *x, const float *w, int n, vf top, bool two, vf *wx)
{
    vf zero = v_set(0.0f), sum = zero, total = zero;
    tame(x, n, top);
    for (int i = 0; i < n; i++) {
        wx[i] = v_mul(v_set(w[i]), x[i]);
        sum = v_add(sum, v_abs(wx[i])), total = v_add(total, v_set(w[i]));
    }
    vf mean = v_div(sum, total);
    struct sym_sums best = { zero, v_set(1.0f) };
    const float *trial = two ? trials_four : trials_three;
    int n_trials = two ? ARRAY_LEN(trials_four) : ARRAY_LEN(trials_three);
    for (int t = 0; t < n_trials; t += 2) { /* two at a time: the sums fit the registers */
        struct few_sums a = { zero, zero, zero, zero, zero, zero }, b = a;
        vf da = v_mul(mean, v_set(trial[t])), db = v_mul(mean, v_set(trial[t + 1]));
        for (int i = 0; i < n; i++) {
            few_add(&a, x[i], wx[i], v_set(w[i]), da, two);
            few_add(&b, x[i], wx[i], v_set(w[i]), db, two);
        }
        keep_few(&best, &a, two);
        keep_few(&best, &b, two);
    }
    for (int t = 0; t < FEW_ROUNDS; t++) {
        struct sym_sums a = { zero, zero };
        vf inv = v_mul(best.qq, v_inverse(best.qx));
        for (int i = 0; i < n; i++) {
            vf q = v_nearest(v_clamp(v_mul(x[i], inv), -1.0f, two ? 2.0f : 1.0f));
            a.qx = v_add(a.qx, v_mul(wx[i], q)), a.qq = v_add(a.qq, v_mul(v_mul(v_set(w[i]), q), q));
        }
        keep_sums(&best, &a);
    }
    return v_half(v_mul(best.qx, v_inverse(best.qq)));
}

/* The code + 1, in the low two bits. */
LANE_FN vi few_code(vf x, vf inv, float hi)
{
    return vi_and(v_bits(v_add(v_clamp(v_mul(x, inv), -1.0f, hi), v_set(V_MAGIC + 1.0f))), vi_set(3));
}

static void block_q2_0(vf *x, const float *w, vf top, vf *more, int lanes, uint8_t *dst, size_t row_bytes)
{
    vf d = fit_few(x, w, 64, top, true, more), inv = v_inverse(d);
    put_halves(dst, row_bytes, d, lanes);
    for (int i = 0; i < 4; i++) {
        vi word = few_code(x[16 * i], inv, 2.0f);
        for (int j = 1; j < 16; j++) word = vi_or(word, vi_shl(few_code(x[16 * i + j], inv, 2.0f), 2 * j));
        put_words(dst + offsetof(struct block_q2_0, qs) + 4 * i, row_bytes, word, lanes);
    }
}

/* Two bits could say 2 as well, and decoders accept it; but the format's name promises ternary weights, and kernels may rely on it. */
static void block_tq2_0(vf *x, const float *w, vf top, vf *more, int lanes, uint8_t *dst, size_t row_bytes)
{
    vf d = fit_few(x, w, 256, top, false, more), inv = v_inverse(d);
    for (int i = 0; i < 16; i++) {
        const vf *from = x + i / 8 * 128 + i % 8 * 4;
        vi word = vi_set(0);
        for (int j = 0; j < 16; j++) word = vi_or(word, vi_shl(few_code(from[j % 4 * 32 + j / 4], inv, 1.0f), 2 * j));
        put_words(dst + 4 * i, row_bytes, word, lanes);
    }
    put_halves(dst + offsetof(struct block_tq2_0, d), row_bytes, d, lanes);
}

/* Four bytes of trits: digit j of byte m is x[j * bytes + m]. ceil(256 v / 243) = v + floor((13 v + 242) / 243), v < 243. */
LANE_FN vi trit_word(const vf *x, int bytes, int digits, vf inv)
{
    vi word = vi_set(0);
    for (int m = 0; m < 4; m++) {
        vi v = few_code(x[m], inv, 1.0f);
        for (int j = 1; j < 5; j++) {
            v = vi_add(v, vi_shl(v, 1));
            if (j < digits) v = vi_add(v, few_code(x[j * bytes + m], inv, 1.0f));
        }
        vi more = vi_shr(vi_mul(vi_add(vi_mul(v, vi_set(13)), vi_set(242)), vi_set(270)), 16);
        word = vi_or(word, vi_shl(vi_add(v, more), 8 * m));
    }
    return word;
}

static void block_tq1_0(vf *x, const float *w, vf top, vf *more, int lanes, uint8_t *dst, size_t row_bytes)
{
    vf d = fit_few(x, w, 256, top, false, more), inv = v_inverse(d);
    for (int i = 0; i < 8; i++) put_words(dst + 4 * i, row_bytes, trit_word(x + 4 * i, 32, 5, inv), lanes);
    for (int i = 0; i < 4; i++) put_words(dst + 32 + 4 * i, row_bytes, trit_word(x + 160 + 4 * i, 16, 5, inv), lanes);
    put_words(dst + offsetof(struct block_tq1_0, qh), row_bytes, trit_word(x + 240, 4, 4, inv), lanes);
    put_halves(dst + offsetof(struct block_tq1_0, d), row_bytes, d, lanes);
}

/* Two levels: the best scale is the weighted mean magnitude, whatever the data. */
static void block_q1_0(vf *x, const float *w, vf top, vf *more, int lanes, uint8_t *dst, size_t row_bytes)
{
    vf sum = v_set(0.0f), total = v_set(0.0f);
    for (int i = 0; i < 128; i++) sum = v_add(sum, v_mul(v_set(w[i]), v_abs(x[i]))), total = v_add(total, v_set(w[i]));
    put_halves(dst, row_bytes, v_half(v_div(sum, total)), lanes);
    for (int i = 0; i < 4; i++) {
        vi word = vi_set(0);
        for (int j = 0; j < 32; j++) word = vi_or(word, vi_and(vi_shr(v_bits(x[32 * i + j]), 31 - j), vi_set((int32_t)(1u << j))));
        put_words(dst + offsetof(struct block_q1_0, qs) + 4 * i, row_bytes, vi_xor(word, vi_set(-1)), lanes);
    }
}

/* ---- e2m1: 0 0.5 1 1.5 2 3 4 6 ---- */

/* To one bit after the leading one, halves below 2: adding 2^22 times the power of two of a leaves that many. Above 6: 6. */
LANE_FN vf e2m1_nearest(vf a)
{
    a = v_min(a, v_set(6.0f));
    vi power = vi_max(vi_and(v_bits(a), vi_set(0x7f800000)), vi_set(0x3f800000));
    vf big = v_from_bits(vi_add(power, vi_set(22 << 23)));
    return v_sub(v_add(a, big), big);
}

/* Code of x; a = |x| in units of the scale. Zeros are positive. */
LANE_FN vi e2m1_code(vf a, vf x)
{
    vf r = e2m1_nearest(a);
    vi big = vi_sub(vi_shr(v_bits(r), 22), vi_set(252)), q = vi_sel(v_lt(r, v_set(1.0f)), v_trunc(v_add(r, r)), big);
    return vi_sel(vi_eq(q, vi_set(0)), q, vi_or(q, vi_shl(vi_shr(v_bits(x), 31), 3)));
}

/* The word of elements i.. (low nibbles) and i + apart.. (high) */
LANE_FN vi e2m1_word(const vf *x, int apart, vf inv)
{
    vi word = vi_set(0);
    for (int j = 0; j < 4; j++) {
        vi lo = e2m1_code(v_mul(v_abs(x[j]), inv), x[j]), hi = e2m1_code(v_mul(v_abs(x[j + apart]), inv), x[j + apart]);
        word = vi_or(word, vi_shl(vi_or(lo, vi_shl(hi, 4)), 8 * j));
    }
    return word;
}

/* sum of w (a - r)^2 in units of the scale */
LANE_FN vf e2m1_error(const vf *x, const float *w, int n, vf inv)
{
    vf sum = v_set(0.0f);
    for (int i = 0; i < n; i++) {
        vf a = v_mul(v_abs(x[i]), inv), e = v_sub(a, e2m1_nearest(a));
        sum = v_add(sum, v_mul(v_set(w[i]), v_mul(e, e)));
    }
    return sum;
}

/* Exponents around the one that puts the largest magnitude into 4 .. 8. Beyond 252 the largest code would be infinite. */
enum { MX_BELOW = 1, MX_ABOVE = 1 };
static void block_mxfp4(vf *x, const float *w, vf top, vf *more, int lanes, uint8_t *dst, size_t row_bytes)
{
    vi base = vi_sub(vi_shr(v_bits(top), 23), vi_set(2)), best = vi_set(0);
    vf least = v_set(3e38f);
    for (int c = MX_ABOVE; c >= -MX_BELOW; c--) {
        vi e = vi_max(vi_set(0), vi_min(vi_set(252), vi_add(base, vi_set(c))));
        vf err = v_mul(e2m1_error(x, w, 32, v_from_bits(vi_shl(vi_sub(vi_set(254), e), 23))), v_set(c < 0 ? 1.0f / (float)(1 << -2 * c) : (float)(1 << 2 * c)));
        vm better = v_lt(err, least);
        least = v_sel(better, err, least), best = vi_sel(better, e, best);
    }
    vf inv = v_from_bits(vi_shl(vi_sub(vi_set(254), best), 23));
    int32_t e[LANES];
    vi_store(e, best);
    for (int l = 0; l < lanes; l++) dst[(size_t)l * row_bytes] = (uint8_t)e[l];
    for (int i = 0; i < 4; i++) put_words(dst + 1 + 4 * i, row_bytes, e2m1_word(x + 4 * i, 16, inv), lanes);
}

/* ue4m3: codes are ordered as their values; below 8 they count 2^-9. */
LANE_FN vf ue4m3_value(vi c)
{
    return v_sel(vi_lt(c, vi_set(8)), v_mul(v_from_i(c), v_set(0x1p-9f)), v_from_bits(vi_shl(vi_add(c, vi_set(120 << 3)), 20)));
}

enum { NV_BELOW = 3, NV_ABOVE = 9 };
static void block_nvfp4(vf *x, const float *w, vf top, vf *more, int lanes, uint8_t *dst, size_t row_bytes)
{
    vi codes = vi_set(0);
    for (int g = 0; g < 4; g++, x += 16, w += 16) {
        vf most = v_abs(x[0]), least = v_set(3e38f);
        for (int i = 1; i < 16; i++) most = v_max(most, v_abs(x[i]));
        most = v_min(v_mul(most, v_set(1.0f / 6.0f)), v_set(448.0f));
        /* the code at or below most */
        vi base = vi_sel(v_lt(most, v_set(0x1p-6f)), v_trunc(v_mul(most, v_set(512.0f))), vi_sub(vi_shr(v_bits(most), 20), vi_set(120 << 3)));
        vi best = vi_max(vi_set(1), vi_min(vi_set(126), base));
        for (int c = NV_ABOVE; c >= -NV_BELOW; c--) {
            vi code = vi_max(vi_set(1), vi_min(vi_set(126), vi_add(base, vi_set(c))));
            vf s = ue4m3_value(code), err = v_mul(e2m1_error(x, w, 16, v_div(v_set(1.0f), s)), v_mul(s, s));
            vm better = v_lt(err, least);
            least = v_sel(better, err, least), best = vi_sel(better, code, best);
        }
        codes = vi_or(codes, vi_shl(best, 8 * g));
        vf inv = v_div(v_set(1.0f), ue4m3_value(best));
        for (int i = 0; i < 2; i++)
            put_words(dst + offsetof(struct block_nvfp4, qs) + 8 * g + 4 * i, row_bytes, e2m1_word(x + 4 * i, 8, inv), lanes);
    }
    put_words(dst, row_bytes, codes, lanes);
}

#define LEVEL(fn, id, block)                                                                                                                   \
    static void fn(const struct quant_kernels *k, const float *x, const float *w, int64_t n_rows, int64_t n, void *dst, void *scratch)         \
    {                                                                                                                                          \
        search_level(id, block, x, w, n_rows, n, dst, scratch);                                                                                \
    }
LEVEL(rows_tq1_0, GGUF_TQ1_0, block_tq1_0)
LEVEL(rows_tq2_0, GGUF_TQ2_0, block_tq2_0)
LEVEL(rows_q1_0, GGUF_Q1_0, block_q1_0)
LEVEL(rows_q2_0, GGUF_Q2_0, block_q2_0)
LEVEL(rows_mxfp4, GGUF_MXFP4, block_mxfp4)
LEVEL(rows_nvfp4, GGUF_NVFP4, block_nvfp4)

static void level_rows(struct quant_kernels *k)
{
    k->rows[GGUF_IQ4_NL] = rows_iq4_nl, k->rows[GGUF_IQ4_XS] = rows_iq4_xs;
    k->rows[GGUF_TQ1_0] = rows_tq1_0, k->rows[GGUF_TQ2_0] = rows_tq2_0, k->rows[GGUF_Q1_0] = rows_q1_0, k->rows[GGUF_Q2_0] = rows_q2_0;
    k->rows[GGUF_MXFP4] = rows_mxfp4, k->rows[GGUF_NVFP4] = rows_nvfp4;
}
