/* compat_book - IQ2 and IQ3: vectors of magnitudes from a codebook, signs apart. See compat.h.
 * The reference fits as if all codebooks had the levels 1, 3, 5 ..; what the file decodes to differs (IQ2: 8, 25, 43), and a factor on d makes up
 * for that on average. Vectors that are not in the codebook go to the nearest of a list of neighbours, by the roots of the weights. */
#include <float.h>
#include <math.h>
#include "ggml-like/formats/formats.h"
#include "quant/compat.h"

struct codebook {
    int len;                       /* weights that share a scale code */
    bool parity;                   /* the number of minus signs is even */
    float twice;                   /* of the mean square in the weights of an important block */
    float quarter;                 /* weights without importance: this much of that + x^2 */
    float none;                    /* a largest magnitude below counts as zero */
    int trials; float step;        /* top level + step k, k = -trials..trials */
    bool first_fit;                /* trials start from the scale of an even grid, not from the largest magnitude */
    enum { REFINE_ALL, REFINE_ALL_IF_OFF, REFINE_OFF } refine; /* the best trial's vectors once more at its scale: all, or those off the grid */
    bool starts_off;               /* without a trial that improves, vectors count as off the grid */
    float fudge;                   /* of d */
    bool keeps;                    /* codes and signs stay in blocks whose scales are all zero */
    bool slips;                    /* a group of zeros takes no room: signs and the low bytes of the codes behind it move up, the high bits do not */
};

static int digit(int point, int bits, int i) { return point >> bits * i & ((1 << bits) - 1); }
int compat_level(const struct compat_book *b, int entry, int i) { return digit(b->grid->entry[entry], b->grid->bits, i); }
static float value_of(const struct compat_book *b, int entry, int i) { return (float)(2 * compat_level(b, entry, i) + 1); }

/* ---- which entries are near a point ---- */

enum { ENTRIES_MAX = 2048, VEC_MAX = 8, DISTANCES = 4 * 7 * 7 + 1 }; /* of level numbers, squared: 4 digits that differ by 7, 8 by 2 */

/* Digits of all entries, and of one point; the last of vectors of 4 are 0. */
struct digits { uint8_t of[ENTRIES_MAX][VEC_MAX], point[VEC_MAX]; };

static bool point_digits(const struct compat_grid *g, int point, uint8_t to[VEC_MAX])
{
    bool reachable = true;
    for (int i = 0; i < g->vec_len; i++) {
        to[i] = (uint8_t)digit(point, g->bits, i);
        reachable &= to[i] < g->levels;
    }
    return reachable;
}

/* The entries within the first `shells` distances that occur, nearest first. */
static int nearest_entries(const struct compat_grid *g, const struct digits *d, uint16_t *to)
{
    uint8_t distance[ENTRIES_MAX];
    int count[DISTANCES] = { 0 }, n = 0, shells = g->shells;
    for (int e = 0; e < g->n; e++) {
        int sum = 0;
        for (int i = 0; i < VEC_MAX; i++) sum += (d->of[e][i] - d->point[i]) * (d->of[e][i] - d->point[i]);
        distance[e] = (uint8_t)sum;
        count[sum]++;
    }
    for (int k = 0; k < DISTANCES && shells > 0; k++) {
        if (count[k] == 0) continue;
        shells--;
        for (int e = 0; e < g->n; e++)
            if (distance[e] == k) to[n++] = (uint16_t)e;
    }
    return n;
}

status compat_book_make(struct compat_book *b, const struct compat_grid *g, struct arena *mem, struct err *e)
{
    struct digits d = { { { 0 } }, { 0 } };
    uint16_t list[ENTRIES_MAX];
    int points = 1 << g->vec_len * g->bits, room = 0, used = 0;
    *b = (struct compat_book){ .grid = g };
    if (!(b->at = arena_zalloc(mem, (size_t)points, sizeof *b->at))) return err_oom(e, "codebook", (size_t)points * sizeof *b->at);
    for (int v = 0; v < g->n; v++) {
        b->at[g->entry[v]] = 1;
        (void)point_digits(g, g->entry[v], d.of[v]);
    }
    for (int pass = 0; pass < 2; pass++) { /* count, then write */
        for (int point = 0; point < points; point++) {
            if (b->at[point] > 0 || !point_digits(g, point, d.point)) continue;
            int n = nearest_entries(g, &d, list);
            if (pass == 0) room += 1 + n;
            else {
                b->at[point] = -1 - used;
                b->near[used++] = (uint16_t)n;
                memcpy(b->near + used, list, (size_t)n * sizeof *list);
                used += n;
            }
        }
        if (pass == 0 && !(b->near = arena_zalloc(mem, (size_t)room, sizeof *b->near))) return err_oom(e, "codebook", (size_t)room * sizeof *b->near);
    }
    for (int v = 0; v < g->n; v++) b->at[g->entry[v]] = v;
    return OK;
}

/* ---- one group ---- */

struct group {
    float x[32], w[32], root[32];  /* magnitudes (one is negative where parity made it so), weights, their roots */
    uint8_t sign[4];
    uint16_t entry[8];
    float scale;
};

/* Magnitudes and signs; for parity the weight that costs least gets the other sign. */
static void take_signs(const float *x, bool parity, struct group *g, int len)
{
    for (int v = 0; v < len / 8; v++) {
        const float *from = x + 8 * v, *w = g->w + 8 * v;
        float *to = g->x + 8 * v;
        int sign = 0, least = 0;
        for (int i = 0; i < 8; i++) {
            bool minus = !(from[i] >= 0.0f);
            to[i] = minus ? -from[i] : from[i];
            sign |= minus << i;
        }
        if (parity && __builtin_parity((unsigned)sign)) {
            float cost = w[0] * from[0] * from[0];
            for (int i = 1; i < 8; i++) {
                float c = w[i] * from[i] * from[i];
                if (c < cost) cost = c, least = i;
            }
            to[least] = -to[least];
            sign ^= 1 << least;
        }
        g->sign[v] = (uint8_t)sign;
    }
}

static int nearest_entry(const struct compat_book *b, const uint16_t *near, const float *x, const float *root, float scale)
{
    float least = FLT_MAX;
    int found = near[1];
    for (int k = 1; k <= near[0]; k++) {
        float sum = 0.0f;
        for (int i = 0; i < b->grid->vec_len; i++) {
            float d = scale * value_of(b, near[k], i) - x[i];
            sum += root[i] * d * d;
        }
        if (sum < least) least = sum, found = near[k];
    }
    return found;
}

/* The entry of one vector at a scale and its inverse. *on: the rounded vector is in the codebook. */
static int entry_at(const struct compat_book *b, const struct group *g, int v, float inverse, float scale, bool *on)
{
    const float *x = g->x + v * b->grid->vec_len;
    int point = 0, top = b->grid->levels - 1;
    for (int i = 0; i < b->grid->vec_len; i++) point |= compat_clamp(compat_nearest(0.5f * (inverse * x[i] - 1.0f)), 0, top) << b->grid->bits * i;
    *on = b->at[point] >= 0;
    if (*on) return b->at[point];
    return nearest_entry(b, b->near - b->at[point] - 1, x, g->root + v * b->grid->vec_len, scale);
}

static void entry_sums(const struct compat_book *b, const struct group *g, const uint16_t *entry, int n, float *xq, float *qq)
{
    *xq = *qq = 0.0f;
    for (int v = 0; v < n; v++)
        for (int i = 0; i < b->grid->vec_len; i++) {
            int at = v * b->grid->vec_len + i;
            float q = value_of(b, entry[v], i);
            *xq += g->w[at] * g->x[at] * q;
            *qq += g->w[at] * q * q;
        }
}

/* Scale and entries of a group with something in it; false: zero after all. */
static bool fit_group(const struct codebook *how, const struct compat_book *b, struct group *g, float max)
{
    int n = how->len / b->grid->vec_len, top = 2 * b->grid->levels - 1, n_off = 0;
    bool on[8], tried_on[8], ignored;
    uint16_t tried[8];
    float best = 0.0f, base = max, xq, qq;
    g->scale = max / (float)top;
    if (how->first_fit) {
        uint8_t q[32];
        g->scale = compat_positive(how->len, b->grid->levels + 1, g->x, g->w, q);
        base = g->scale * (float)b->grid->levels;
        if (!(base > 0.0f)) return false;
    }
    for (int v = 0; v < n; v++) g->entry[v] = (uint16_t)b->at[0], on[v] = !how->starts_off; /* lowest levels: in every codebook */
    for (int k = -how->trials; k <= how->trials; k++) {
        float inverse = ((float)top + (float)k * how->step) / base;
        for (int v = 0; v < n; v++) tried[v] = (uint16_t)entry_at(b, g, v, inverse, 1.0f / inverse, &tried_on[v]);
        entry_sums(b, g, tried, n, &xq, &qq);
        if (!(qq > 0.0f && xq * xq > best * qq)) continue;
        g->scale = xq / qq, best = g->scale * xq;
        memcpy(g->entry, tried, sizeof tried);
        memcpy(on, tried_on, sizeof on);
    }
    for (int v = 0; v < n; v++) n_off += !on[v];
    if (!(g->scale > 0.0f) || (how->refine != REFINE_ALL && n_off == 0)) return true;
    float inverse = 1.0f / g->scale;
    for (int v = 0; v < n; v++)
        if (how->refine != REFINE_OFF || !on[v]) g->entry[v] = (uint16_t)entry_at(b, g, v, inverse, g->scale, &ignored);
    entry_sums(b, g, g->entry, n, &xq, &qq);
    if (qq > 0.0f) g->scale = xq / qq;
    return true;
}

static bool take_group(const struct codebook *how, const struct compat_book *b, const float *x, const float *w, float mean2, struct group *g)
{
    *g = (struct group){ .scale = 0.0f };
    if (w) compat_weights(x, w, mean2, how->len, g->w);
    else
        for (int i = 0; i < how->len; i++) g->w[i] = how->quarter * mean2 + x[i] * x[i];
    for (int i = 0; i < how->len; i++) g->root[i] = sqrtf(g->w[i]);
    take_signs(x, how->parity, g, how->len);
    float max = g->x[0];
    for (int i = 1; i < how->len; i++) max = compat_max(max, g->x[i]);
    if (max < how->none || !fit_group(how, b, g, max)) return false;
    if (g->scale < 0.0f) { /* scale codes have no sign */
        g->scale = -g->scale;
        for (int v = 0; v < how->len / 8; v++) g->sign[v] ^= 255;
    }
    return true;
}

static void codebook_block(const struct compat_format *f, const struct compat_in *in, const struct compat_book *b, struct parts *p)
{
    const struct codebook *how = f->how;
    int n = 256 / how->len, vectors = how->len / b->grid->vec_len, filled = 0;
    float mean2 = how->twice * compat_sum2(in->x, 256) / 256.0f, scale[16] = { 0 }, max = 0.0f;
    for (int i = 0; i < n; i++) {
        struct group g;
        int at = i * how->len;
        if (!take_group(how, b, in->x + at, in->w ? in->w + at : NULL, mean2, &g)) continue;
        int place = how->slips ? filled++ : i;
        memcpy(p->sign + place * how->len / 8, g.sign, (size_t)(how->len / 8));
        for (int v = 0; v < vectors; v++) {
            p->q[place * vectors + v] |= g.entry[v] & 255;
            p->q[i * vectors + v] |= g.entry[v] & 0xff00;
        }
        max = compat_max(max, scale[i] = g.scale);
    }
    if (!(max > 0.0f)) {
        if (!how->keeps) *p = (struct parts){ 0 };
        return;
    }
    float d = max / 31.0f, inverse = 1.0f / d;
    p->d = f32_to_f16(d * how->fudge);
    for (int i = 0; i < n; i++) p->sc[i] = (uint8_t)compat_clamp(compat_nearest(0.5f * (inverse * scale[i] - 1.0f)), 0, 15);
}

static const struct codebook iq2_xxs = {
    .len = 32, .parity = true, .twice = 1.0f, .none = 1e-15f,
    .trials = 6, .step = 0.1f, .first_fit = true, .refine = REFINE_ALL, .fudge = 1.0f,
};
static const struct codebook iq2_xs = {
    .len = 16, .parity = true, .twice = 1.0f, .none = 1e-15f,
    .trials = 9, .step = 0.1f, .refine = REFINE_OFF, .fudge = 1.0f,
};
static const struct codebook iq2_s = {
    .len = 16, .twice = 2.0f, .quarter = 0.25f, .none = 1e-8f,
    .trials = 9, .step = 0.1f, .refine = REFINE_OFF, .fudge = 0.9875f, .keeps = true,
};
static const struct codebook iq3_xxs = {
    .len = 32, .parity = true, .twice = 2.0f, .none = 1e-8f,
    .trials = 15, .step = 0.2f, .refine = REFINE_OFF, .fudge = 1.0125f,
};
static const struct codebook iq3_s = {
    .len = 32, .twice = 2.0f, .none = FLT_TRUE_MIN,
    .trials = 9, .step = 0.2f, .refine = REFINE_ALL_IF_OFF, .starts_off = true, .fudge = 1.033f, .keeps = true,
    .slips = true,
};

static const struct compat_grid iq2_xxs_book = { iq2_xxs_grid, 256, 8, 2, 3, 2 }, iq2_xs_book = { iq2_xs_grid, 512, 8, 2, 3, 2 };
static const struct compat_grid iq2_s_book = { iq2_s_grid, 1024, 8, 2, 3, 1 };
static const struct compat_grid iq3_xxs_book = { iq3_xxs_grid, 256, 4, 3, 8, 2 }, iq3_s_book = { iq3_s_grid, 512, 4, 3, 8, 3 };

const struct compat_format compat_codebook[] = {
    { GGUF_IQ2_XXS, codebook_block, false, &iq2_xxs, &iq2_xxs_book }, { GGUF_IQ2_XS, codebook_block, false, &iq2_xs, &iq2_xs_book },
    { GGUF_IQ2_S, codebook_block, false, &iq2_s, &iq2_s_book },       { GGUF_IQ3_XXS, codebook_block, false, &iq3_xxs, &iq3_xxs_book },
    { GGUF_IQ3_S, codebook_block, false, &iq3_s, &iq3_s_book },       { -1, NULL },
};
