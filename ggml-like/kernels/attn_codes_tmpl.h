/* attn_codes_tmpl - attention over q8_0 and q4_0 rows in integers, over the primitives of vec_tmpl.h and words:
 *   vi  2 * LANES int16, or LANES int32      vi_dot(s, a, b)  s[l] + a[2l] * b[0] + a[2l + 1] * b[1]      vi_to_f32
 *   v_codes(p)  2 * LANES int8 as words      vi_pairs(t, p, q)  2 * LANES int8 of each as pairs of words, in any order; vi_in_order(s) undoes it in sums
 *   v_store_words(p, x)  LANES floats to int16, rounded to even      centre_nibbles(to, p)  16 bytes of q4_0 as 32 codes
 * Includes attn_tmpl.h.
 *
 * Queries get 16 bits and one scale a row; so do, per block of keys and 32 dims, probabilities times the scales of the values. A product of a pair of
 * words and the sum of two is one instruction where floats take two FMAs, and there is one scale per 32 codes, not one multiplication per code.
 * The sums are exact: what is stacked with a row cannot matter, and its own scales come from its own keys only.
 * A q4_0 row is copied into blocks of q8_0 first, which hold the same numbers. */
#include "ggml-like/kernels/attn_tmpl.h"
#include <float.h>

enum { CODES = 32, WORD_MAX = 32767 };
#define WORDS_MIN 0x1p-100f /* what is smaller counts as 0: its scale's reciprocal might not be finite */

static bool has_codes(const struct dtype *t) { return t->gguf_id == GGUF_Q8_0 || t->gguf_id == GGUF_Q4_0; }

/* Blocks of q8_0: row j at p + j * stride */
struct code_rows {
    const uint8_t *p;
    size_t stride;
};

static void widen_row(uint8_t *to, const uint8_t *p, int dim)
{
    for (int d = 0; d < dim; d += CODES, p += sizeof(struct block_q4_0), to += sizeof(struct block_q8_0)) {
        memcpy(to, p, 2);
        centre_nibbles(to + 2, p + 2);
    }
}

static struct code_rows code_rows_at(const struct dtype *t, const void *data, size_t row_bytes, int dim, const struct attn_block *b, float *buf)
{
    const uint8_t *p = (const uint8_t *)data + (size_t)b->base * row_bytes;
    if (t->gguf_id == GGUF_Q8_0) return (struct code_rows){ p, row_bytes };
    size_t stride = (size_t)(dim / CODES) * sizeof(struct block_q8_0);
    for (int j = b->first; j < b->last; j++) widen_row((uint8_t *)buf + (size_t)j * stride, p + (size_t)j * row_bytes, dim);
    return (struct code_rows){ (const uint8_t *)buf, stride };
}

/* From the begin of a row to code d */
static size_t code_offset(int d) { return (size_t)d / CODES * sizeof(struct block_q8_0) + 2 + (size_t)d % CODES; }

/* scale [dim / CODES][ATTN_KEYS] of the union's rows; 0 elsewhere. All halves first: what was stored in pieces is slow to load at once. */
static void scales_at(float *scale, const struct attn_block *b, struct code_rows r, int dim)
{
    uint16_t half[HEAD_DIM_MAX / CODES * ATTN_KEYS];
    int n = dim / CODES * ATTN_KEYS;
    if (b->first > 0 || b->last < ATTN_KEYS) memset(half, 0, (size_t)n * sizeof *half);
    for (int i = 0; i < n; i += ATTN_KEYS) {
        const uint8_t *p = r.p + (size_t)b->first * r.stride + (size_t)(i / ATTN_KEYS) * sizeof(struct block_q8_0);
        for (int j = b->first; j < b->last; j++, p += r.stride) memcpy(&half[i + j], p, sizeof *half);
    }
    for (int i = 0; i < n; i += LANES) v_store(scale + i, v_load_f16(half + i));
}

/* A factor that takes numbers up to `top` to words, and back. What is not finite makes the way back a NaN. */
struct words_scale {
    float to, back;
};

static struct words_scale words_scale(float top, float bad)
{
    bool some = top >= WORDS_MIN && top <= FLT_MAX;
    return (struct words_scale){ some ? (float)WORD_MAX / top : 0.0f, (some ? top / (float)WORD_MAX : top > FLT_MAX ? NAN : 0.0f) + bad };
}

/* ---- logits ---- */

/* A row of x->q: its words, then the scale of its logits. */
static int16_t *query_words(const struct attn_scratch *x, int r) { return (int16_t *)(void *)(x->q + (ptrdiff_t)r * x->q_len); }
static float *query_scale(const struct attn_scratch *x, int r) { return x->q + (ptrdiff_t)r * x->q_len + x->q_len / 2; }

static void quant_query(const struct attn_args *a, const struct attn_scratch *x, int r)
{
    const float *q = a->q + r * a->q_stride;
    vf top = v_zero(), bad = v_zero();
    for (int d = 0; d < a->head_dim; d += LANES) {
        vf y = v_load(q + d);
        top = v_max(v_abs(y), top), bad = v_fma(y, v_zero(), bad);
    }
    struct words_scale s = words_scale(v_top(top), v_sum(bad));
    for (int d = 0; d < a->head_dim; d += LANES) v_store_words(query_words(x, r) + d, v_mul(v_load(q + d), v_set(s.to)));
    *query_scale(x, r) = s.back * a->scale;
}

/* PAIR keys from `from` on as tile [d / 2][PAIR]: pairs of words */
static void transpose_codes(int16_t *tile, const struct attn_block *b, struct code_rows k, int from, int len)
{
    for (int j = from; j < from + PAIR; j += LANES) {
        float *to = (float *)(void *)tile + (j - from);
        const uint8_t *key[LANES];
        for (int c = 0; c < LANES; c++) key[c] = k.p + (size_t)clamp_key(j + c, b) * k.stride;
        for (int d = 0; d < len; d += 2 * LANES) {
            size_t at = code_offset(d);
            vf t[LANES];
            UNROLL
            for (int c = 0; c < LANES; c++) t[c] = v_codes(key[c] + at);
            v_transpose(t);
            UNROLL
            for (int c = 0; c < LANES; c++) v_store(to + (ptrdiff_t)(d / 2 + c) * PAIR, t[c]);
        }
    }
}

typedef void words_fn(const int16_t *const *w, const int16_t *tile, int pairs, vi *sum);

ALWAYS_INLINE void words_step(int n, vi *acc, const int16_t *const *w, const int16_t *tile, int i)
{
    vi t0 = vi_load(tile + (ptrdiff_t)i * 2 * PAIR), t1 = vi_load(tile + (ptrdiff_t)i * 2 * PAIR + PAIR);
    UNROLL
    for (int r = 0; r < n; r++) acc[2 * r] = vi_dot(acc[2 * r], t0, w[r] + 2 * i), acc[2 * r + 1] = vi_dot(acc[2 * r + 1], t1, w[r] + 2 * i);
}

/* sum [n][2] of n rows of words times `pairs` rows of a tile. Few rows take every other pair into sums of their own, to hide the latency. */
ALWAYS_INLINE void words_dot(int n, const int16_t *const *w, const int16_t *tile, int pairs, vi *sum)
{
    const int twice = n <= TILE_ROWS / 2 ? 2 : 1;
    vi acc[2][2 * TILE_ROWS];
    int i = 0;
    UNROLL
    for (int c = 0; c < 2 * n; c++) acc[0][c] = acc[1][c] = vi_zero();
    for (; i + twice <= pairs; i += twice) {
        words_step(n, acc[0], w, tile, i);
        if (twice > 1) words_step(n, acc[1], w, tile, i + 1);
    }
    if (i < pairs) words_step(n, acc[0], w, tile, i);
    UNROLL
    for (int c = 0; c < 2 * n; c++) sum[c] = twice > 1 ? vi_add(acc[0][c], acc[1][c]) : acc[0][c];
}

#define WORDS_DOT(n)                                                                                                                       \
    static void words_dot_##n(const int16_t *const *w, const int16_t *tile, int pairs, vi *sum) { words_dot(n, w, tile, pairs, sum); }
WORDS_DOT(1)
WORDS_DOT(2)
WORDS_DOT(3)
WORDS_DOT(4)
WORDS_DOT(5)
WORDS_DOT(6)
static words_fn *const words_dot_of[TILE_ROWS + 1] = { NULL, words_dot_1, words_dot_2, words_dot_3, words_dot_4, words_dot_5, words_dot_6 };

/* PAIR keys from j on, of n rows */
static void logits_of(int n, const int16_t *const *q, const float *back, const int16_t *tile, const float *scale, int len, float *const *s)
{
    vf sum[2 * TILE_ROWS];
    for (int i = 0; i < 2 * n; i++) sum[i] = v_zero();
    for (int d = 0; d < len; d += CODES) {
        const int16_t *w[TILE_ROWS];
        vi dot[2 * TILE_ROWS];
        for (int r = 0; r < n; r++) w[r] = q[r] + d;
        words_dot_of[n](w, tile + (ptrdiff_t)d * PAIR, CODES / 2, dot);
        const float *at = scale + d / CODES * ATTN_KEYS;
        for (int i = 0; i < 2 * n; i++) sum[i] = v_fma(vi_to_f32(dot[i]), v_load(at + i % 2 * LANES), sum[i]);
    }
    for (int i = 0; i < 2 * n; i++) v_store(s[i / 2] + i % 2 * LANES, v_mul(sum[i], v_set(back[i / 2])));
}

/* One tile of keys at a time, which stays in L1 while all rows pass */
static void logits_codes(const struct kernels *kernels, const struct attn_args *a, const struct attn_scratch *x, const struct attn_block *b)
{
    (void)kernels;
    int len = a->head_dim, height = tile_height(b->n);
    int16_t *tile = (int16_t *)(void *)x->tile;
    float *scale = x->tile + ATTN_KEYS / 2 * len;
    struct code_rows k = code_rows_at(a->k_type, a->k, a->k_row_bytes, len, b, x->rows);
    struct raw_rows next = raw_at(a->v, a->v_row_bytes, b->base);
    scales_at(scale, b, k, len);
    for (int j = b->first / PAIR * PAIR; j < b->last; j += PAIR) {
        prefetch_rows(next, j, j + PAIR);
        transpose_codes(tile, b, k, j, len);
        for (int i = 0; i < b->n; i += height) {
            int n = b->n - i < height ? b->n - i : height;
            const int16_t *q[TILE_ROWS];
            float back[TILE_ROWS], *s[TILE_ROWS];
            for (int r = 0; r < n; r++) {
                int row = b->row[i + r];
                q[r] = query_words(x, row), back[r] = *query_scale(x, row), s[r] = x->s + row * ATTN_KEYS + j;
            }
            logits_of(n, q, back, tile, scale + j, len, s);
        }
    }
}

/* ---- values ---- */

/* Of the rows of a block: probabilities times scales of 32 dims as words, and the way back */
struct value_words {
    _Alignas(64) int16_t p[ATTN_ROWS][ATTN_KEYS];
    float top[ATTN_ROWS], back[ATTN_ROWS]; /* top: the largest probability */
};

static void value_tops(struct value_words *w, const struct attn_scratch *x, const struct attn_block *b)
{
    for (int i = 0; i < b->n; i++) {
        const float *p = x->s + b->row[i] * ATTN_KEYS;
        vf top = v_load(p);
        UNROLL
        for (int j = LANES; j < ATTN_KEYS; j += LANES) top = v_max(v_load(p + j), top);
        w->top[i] = v_top(top);
    }
}

struct range_top {
    float top, bad;
};

static struct range_top scale_top(const float *scale)
{
    vf top = v_zero(), bad = v_zero();
    for (int j = 0; j < ATTN_KEYS; j += LANES) top = v_max(v_abs(v_load(scale + j)), top), bad = v_fma(v_load(scale + j), v_zero(), bad);
    return (struct range_top){ v_top(top), v_sum(bad) };
}

/* A row that does not see the whole block has its own largest scale, and meets no other: not even with probability 0. */
static void quant_values(struct value_words *w, const struct attn_scratch *x, const struct attn_block *b, const float *scale)
{
    struct range_top whole = scale_top(scale);
    for (int i = 0; i < b->n; i++) {
        float own[ATTN_KEYS], *p = x->s + b->row[i] * ATTN_KEYS;
        const float *by = scale;
        struct range_top t = whole;
        if (b->lo[i] > 0 || b->hi[i] < ATTN_KEYS) {
            for (int j = 0; j < ATTN_KEYS; j++) own[j] = j >= b->lo[i] && j < b->hi[i] ? scale[j] : 0.0f;
            t = scale_top(own), by = own;
        }
        struct words_scale s = words_scale(t.top * w->top[i], t.bad);
        UNROLL
        for (int j = 0; j < ATTN_KEYS; j += LANES) v_store_words(w->p[i] + j, v_mul(v_mul(v_load(p + j), v_load(by + j)), v_set(s.to)));
        w->back[i] = s.back;
    }
}

/* dims d .. d + PAIR - 1 as tile [key / 2][PAIR] */
static void pair_codes(int16_t *tile, const struct attn_block *b, struct code_rows v, int d)
{
    const uint8_t *p = v.p + code_offset(d);
    for (int j = b->first / 2 * 2; j < b->last; j += 2) {
        bool inside = j >= b->first && j + 1 < b->last;
        const uint8_t *even = p + (size_t)(inside ? j : clamp_key(j, b)) * v.stride;
        const uint8_t *odd = inside ? even + v.stride : p + (size_t)clamp_key(j + 1, b) * v.stride;
        vi t[2];
        vi_pairs(t, even, odd);
        vi_store(tile + j * PAIR, t[0]), vi_store(tile + j * PAIR + PAIR, t[1]);
    }
}

static void add_values(const struct value_words *w, const struct attn_scratch *x, const struct attn_block *b, const int16_t *tile, int d)
{
    int first = b->first / 2 * 2, pairs = (b->last - first + 1) / 2;
    for (int i = 0, height = tile_height(b->n); i < b->n; i += height) {
        int n = b->n - i < height ? b->n - i : height;
        const int16_t *p[TILE_ROWS];
        vi dot[2 * TILE_ROWS];
        for (int r = 0; r < n; r++) p[r] = w->p[i + r] + first;
        words_dot_of[n](p, tile + first * PAIR, pairs, dot);
        for (int r = 0; r < n; r++) {
            float *to = x->acc + (ptrdiff_t)b->row[i + r] * x->v_len + d;
            vf decay = v_set(x->decay[b->row[i + r]]), back = v_set(w->back[i + r]);
            vi_in_order(dot + 2 * r);
            for (int c = 0; c < 2; c++)
                v_store(to + c * LANES, v_fma(v_load(to + c * LANES), decay, v_mul(vi_to_f32(dot[2 * r + c]), back)));
        }
    }
}

static void values_codes(const struct kernels *kernels, const struct attn_args *a, const struct attn_scratch *x, const struct attn_block *b)
{
    (void)kernels;
    struct value_words w;
    int dim = a->head_dim_v;
    int16_t *tile = (int16_t *)(void *)x->tile;
    float *scale = x->tile + ATTN_KEYS / 2 * PAIR;
    struct code_rows v = code_rows_at(a->v_type, a->v, a->v_row_bytes, dim, b, x->rows);
    struct raw_rows next = raw_at(a->k, a->k_row_bytes, b->base + ATTN_KEYS);
    value_tops(&w, x, b);
    scales_at(scale, b, v, dim);
    for (int d = 0; d < dim; d += CODES) {
        prefetch_rows(next, d * ATTN_KEYS / dim, (d + CODES) * ATTN_KEYS / dim);
        quant_values(&w, x, b, scale + d / CODES * ATTN_KEYS);
        for (int c = 0; c < CODES; c += PAIR) {
            pair_codes(tile, b, v, d + c);
            add_values(&w, x, b, tile, d + c);
        }
    }
}

static void attn_any(const struct kernels *k, const struct attn_args *a, void *scratch)
{
    bool keys = has_codes(a->k_type), values = has_codes(a->v_type);
    struct attn_side s = { keys ? quant_query : scale_query, keys ? logits_codes : logits, values ? values_codes : values_floats };
    bool floats = attn_is_float(a->k_type) && attn_is_float(a->v_type);
    attn_over(k, a, scratch, a->many && k->attn_many && floats ? k->attn_many : &s);
}
