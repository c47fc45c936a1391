/* attn_tmpl - attention over the primitives of vec_tmpl.h, which must be included first.
 *
 * A logit is always LANES partial sums, lane l over the dims d = l, l + LANES, ... in ascending order, reduced as v_sum does. Few rows
 * (decode) compute it straight from the cache rows; many rows (prefill) from a transposed f32 tile, one partial sum after the other.
 * The additions are the same, so the bits are the same: a row never notices how many others were stacked with it.
 * Likewise p * v is one chain over a row's own keys of the block from 0, whichever way v is read, then acc = acc * decay + chain. */
#include "ggml-like/kernels/attn.h"

enum {
    TILE_ROWS = 6,      /* 6 rows x 2 vectors of accumulators, 2 loads, 1 broadcast: 15 of 16 registers */
    PAIR = 2 * LANES,   /* width of a tile: keys of a logit tile, dims of a value tile */
    DIRECT_K_ROWS = 12, /* up to here logits come straight from the cache rows: no slower than the tile, and they prefetch */
    DIRECT_V_ROWS = TILE_ROWS,
};
_Static_assert((int)PAIR <= (int)ATTN_PAD && ATTN_KEYS % PAIR == 0, "tiles fill the padded rows");

/* What is read straight from the cache */
enum row_kind { ROW_F32, ROW_F16, ROW_Q8_0, ROW_KINDS };

/* Keys of one block: row j at p + j * stride; reading starts at element `at` of a row */
struct key_rows {
    const uint8_t *p;
    size_t stride;
    enum row_kind kind;
    int at;
};

/* elements d .. d + LANES - 1 of the row at p; the bits of the slot to_f32 */
ALWAYS_INLINE vf load_row(const uint8_t *p, enum row_kind kind, int d)
{
    if (kind == ROW_F16) return v_load_f16(p + 2 * d);
    if (kind == ROW_F32) return v_load((const float *)(const void *)p + d);
    p += d / 32 * (int)sizeof(struct block_q8_0);
    return v_mul(v_set_f16(p), v_load_i8(p + 2 + d % 32));
}

/* Rows as they lie in memory: what is read next is fetched while the block computes */
struct raw_rows {
    const uint8_t *p;
    size_t stride;
};

static struct raw_rows raw_at(const void *data, size_t row_bytes, int64_t row)
{
    return (struct raw_rows){ (const uint8_t *)data + (size_t)row * row_bytes, row_bytes };
}

/* Rows lo..hi, with what lies between them */
static void prefetch_rows(struct raw_rows r, int lo, int hi)
{
    for (const uint8_t *p = r.p + (size_t)lo * r.stride, *end = r.p + (size_t)hi * r.stride; p < end; p += 64) __builtin_prefetch(p);
}

static int clamp_key(int j, const struct attn_block *b) { return j < b->first ? b->first : j < b->last ? j : b->last - 1; }

/* The needed rows of the block as they stand in the cache, or converted when the format or the length has no direct load */
static struct key_rows rows_at(const struct kernels *k, const struct dtype *t, const void *data, size_t row_bytes, int dim,
                               const struct attn_block *b, float *buf)
{
    const uint8_t *p = (const uint8_t *)data + (size_t)b->base * row_bytes;
    enum row_kind kind = t->gguf_id == GGUF_F32 ? ROW_F32 : t->gguf_id == GGUF_F16 ? ROW_F16 : t->gguf_id == GGUF_Q8_0 ? ROW_Q8_0 : ROW_KINDS;
    if (kind != ROW_KINDS && dim % LANES == 0) return (struct key_rows){ p, row_bytes, kind, 0 };
    int len = (dim + LANES - 1) / LANES * LANES;
    for (int j = b->first; j < b->last; j++) {
        float *row = buf + (ptrdiff_t)j * len;
        k->to_f32(t, p + (size_t)j * row_bytes, row, dim);
        for (int d = dim; d < len; d++) row[d] = 0.0f;
    }
    return (struct key_rows){ (const uint8_t *)buf, (size_t)len * sizeof(float), ROW_F32, 0 };
}

/* n rows in tiles of nearly equal height: 7 = 4 + 3, since a tile of 6 + 1 takes as long as two of 6 */
static int tile_height(int n)
{
    int tiles = (n + TILE_ROWS - 1) / TILE_ROWS;
    return (n + tiles - 1) / tiles;
}

/* ---- logits ---- */

typedef void qk_direct_fn(const float *const *q, const struct attn_block *b, struct key_rows k, int len, float *const *s, struct raw_rows next);

/* n rows x all keys of the block, one vector of results at a time; s[i] points to the logits of row i */
ALWAYS_INLINE void qk_direct(int n, enum row_kind kind, const float *const *q, const struct attn_block *b, struct key_rows k, int len, float *const *s,
                             struct raw_rows next)
{
    const int keys = n == 3 ? LANES / 4 : LANES / n;
    for (int j = b->first / keys * keys; j < b->last; j += keys) {
        const uint8_t *key[LANES];
        bool inside = j >= b->first && j + keys <= b->last;
        UNROLL
        for (int c = 0; c < keys; c++) key[c] = k.p + (size_t)(inside ? j + c : clamp_key(j + c, b)) * k.stride;
        prefetch_rows(next, j, j + keys);
        vf acc[LANES];
        UNROLL
        for (int i = 0; i < LANES; i++) acc[i] = v_zero();
        for (int d = 0; d < len; d += LANES) {
            vf x[4];
            UNROLL
            for (int i = 0; i < n; i++) x[i] = v_load(q[i] + d);
            UNROLL
            for (int c = 0; c < keys; c++) {
                vf y = load_row(key[c], kind, d);
                UNROLL
                for (int i = 0; i < n; i++) acc[i * keys + c] = v_fma(x[i], y, acc[i * keys + c]);
            }
        }
        float sum[LANES];
        v_store(sum, v_sums(acc));
        UNROLL
        for (int i = 0; i < n; i++) memcpy(s[i] + j, sum + i * keys, (size_t)keys * sizeof(float));
    }
}

#define QK_DIRECT(name, n, kind)                                                                                                           \
    static void name(const float *const *q, const struct attn_block *b, struct key_rows k, int len, float *const *s, struct raw_rows next) \
    {                                                                                                                                      \
        qk_direct(n, kind, q, b, k, len, s, next);                                                                                         \
    }
QK_DIRECT(qk_f32_1, 1, ROW_F32)
QK_DIRECT(qk_f32_2, 2, ROW_F32)
QK_DIRECT(qk_f32_3, 3, ROW_F32)
QK_DIRECT(qk_f32_4, 4, ROW_F32)
QK_DIRECT(qk_f16_1, 1, ROW_F16)
QK_DIRECT(qk_f16_2, 2, ROW_F16)
QK_DIRECT(qk_f16_3, 3, ROW_F16)
QK_DIRECT(qk_f16_4, 4, ROW_F16)
QK_DIRECT(qk_q8_0_1, 1, ROW_Q8_0)
QK_DIRECT(qk_q8_0_2, 2, ROW_Q8_0)
QK_DIRECT(qk_q8_0_3, 3, ROW_Q8_0)
QK_DIRECT(qk_q8_0_4, 4, ROW_Q8_0)
static qk_direct_fn *const qk_direct_of[ROW_KINDS][5] = {
    { NULL, qk_f32_1, qk_f32_2, qk_f32_3, qk_f32_4 },
    { NULL, qk_f16_1, qk_f16_2, qk_f16_3, qk_f16_4 },
    { NULL, qk_q8_0_1, qk_q8_0_2, qk_q8_0_3, qk_q8_0_4 },
};

static void logits_direct(const struct attn_scratch *x, const struct attn_block *b, struct key_rows k, int len, struct raw_rows next)
{
    for (int i = 0; i < b->n; i += 4) {
        int n = b->n - i < 4 ? b->n - i : 4;
        const float *q[4];
        float *s[4];
        for (int r = 0; r < n; r++) {
            q[r] = x->q + (ptrdiff_t)b->row[i + r] * x->q_len;
            s[r] = x->s + b->row[i + r] * ATTN_KEYS;
        }
        qk_direct_of[k.kind][n](q, b, k, len, s, next);
        next.stride = 0; /* the first pass has fetched it all */
    }
}

/* tile [key / PAIR][d][PAIR]; keys outside the block's union repeat a neighbour */
static void transpose_keys(float *tile, const struct attn_block *b, struct key_rows k, int len)
{
    for (int j = b->first / LANES * LANES; j < b->last; j += LANES) {
        float *to = tile + (ptrdiff_t)(j / PAIR * PAIR) * len + j % PAIR;
        const uint8_t *key[LANES];
        for (int c = 0; c < LANES; c++) key[c] = k.p + (size_t)clamp_key(j + c, b) * k.stride;
        for (int d = 0; d < len; d += LANES) {
            vf t[LANES];
            UNROLL
            for (int c = 0; c < LANES; c++) t[c] = load_row(key[c], k.kind, d);
            v_transpose(t);
            UNROLL
            for (int c = 0; c < LANES; c++) v_store(to + (ptrdiff_t)(d + c) * PAIR, t[c]);
        }
    }
}

typedef void qk_tile_fn(const float *const *q, const float *tile, int len, float *const *s);

/* n rows x PAIR keys. Partial sums come in bit-reversed order of their lane, so that a binary counter of saved sums gives v_sum's tree. */
ALWAYS_INLINE void qk_tile(int n, const float *const *q, const float *tile, int len, float *const *s)
{
    vf saved[6][2 * TILE_ROWS], acc[2 * TILE_ROWS];
    for (int i = 0; i < LANES; i++) {
        int lane = 0;
        for (int bit = 1; bit < LANES; bit *= 2) lane = 2 * lane + !!(i & bit);
        UNROLL
        for (int c = 0; c < 2 * n; c++) acc[c] = v_zero();
        for (int d = lane; d < len; d += LANES) {
            vf k0 = v_load(tile + (ptrdiff_t)d * PAIR), k1 = v_load(tile + (ptrdiff_t)d * PAIR + LANES);
            UNROLL
            for (int r = 0; r < n; r++) {
                vf y = v_set(q[r][d]);
                acc[2 * r] = v_fma(y, k0, acc[2 * r]);
                acc[2 * r + 1] = v_fma(y, k1, acc[2 * r + 1]);
            }
        }
        int level = 0;
        for (; i >> level & 1; level++) {
            UNROLL
            for (int c = 0; c < 2 * n; c++) acc[c] = v_add(saved[level][c], acc[c]);
        }
        UNROLL
        for (int c = 0; c < 2 * n; c++) saved[level][c] = acc[c];
    }
    UNROLL
    for (int r = 0; r < n; r++) v_store(s[r], acc[2 * r]), v_store(s[r] + LANES, acc[2 * r + 1]);
}

#define QK_TILE(n)                                                                                                                         \
    static void qk_tile_##n(const float *const *q, const float *tile, int len, float *const *s) { qk_tile(n, q, tile, len, s); }
QK_TILE(1)
QK_TILE(2)
QK_TILE(3)
QK_TILE(4)
QK_TILE(5)
QK_TILE(6)
static qk_tile_fn *const qk_tile_of[TILE_ROWS + 1] = { NULL, qk_tile_1, qk_tile_2, qk_tile_3, qk_tile_4, qk_tile_5, qk_tile_6 };

static void logits_tiled(const struct attn_scratch *x, const struct attn_block *b, int len, struct raw_rows next)
{
    for (int i = 0, height = tile_height(b->n); i < b->n; i += height) {
        prefetch_rows(next, i * ATTN_KEYS / b->n, (i + height < b->n ? i + height : b->n) * ATTN_KEYS / b->n);
        int n = b->n - i < height ? b->n - i : height, lo = ATTN_KEYS, hi = 0;
        const float *q[TILE_ROWS];
        float *s[TILE_ROWS];
        for (int r = 0; r < n; r++) {
            q[r] = x->q + (ptrdiff_t)b->row[i + r] * x->q_len;
            if (b->lo[i + r] < lo) lo = b->lo[i + r];
            if (b->hi[i + r] > hi) hi = b->hi[i + r];
        }
        for (int j = lo / PAIR * PAIR; j < hi; j += PAIR) {
            for (int r = 0; r < n; r++) s[r] = x->s + b->row[i + r] * ATTN_KEYS + j;
            qk_tile_of[n](q, x->tile + (ptrdiff_t)j * len, len, s);
        }
    }
}

/* ---- softmax ---- */

/* Turns the logits of a block row into probabilities and brings the state of its row to the new maximum `top`. Always the whole row of
 * ATTN_KEYS: eight independent exponentials hide each other's latency, and the order of the sum is one for all ranges. */
static void softmax_row(const struct attn_scratch *x, int row, float top)
{
    float *s = x->s + row * ATTN_KEYS, old = x->max[row], shift = top > -INFINITY ? top : 0.0f; /* all logits -inf: all p = 0 */
    vf sum[2] = { v_zero(), v_zero() };
    UNROLL
    for (int j = 0; j < ATTN_KEYS; j += LANES) {
        vf p = exp_below(v_sub(v_load(s + j), v_set(shift)));
        v_store(s + j, p);
        sum[j / LANES % 2] = v_add(sum[j / LANES % 2], p);
    }
    float decay[LANES] = { 1.0f };
    if (top > old) v_store(decay, exp_below(v_set(old - shift)));
    x->max[row] = top;
    x->decay[row] = decay[0];
    x->sum[row] = x->sum[row] * (double)decay[0] + (double)v_sum(v_add(sum[0], sum[1]));
}

/* Maxima first, for all rows: a row's exponentials then start without waiting for its maximum (softmax 0.60 -> 0.45 ns an element). */
static void softmax_rows(const struct attn_args *a, const struct attn_scratch *x, const struct attn_block *b)
{
    float top[ATTN_ROWS];
    for (int i = 0; i < b->n; i++) {
        int row = b->row[i], lo = b->lo[i], hi = b->hi[i];
        float *s = x->s + row * ATTN_KEYS;
        if (a->cap > 0.0f) softcap(s + lo, s + lo, a->cap, hi - lo);
        if (a->slope)
            for (int j = lo; j < hi; j++) s[j] += a->slope[row] * (float)(b->base + j - a->hi[row] + 1);
        for (int j = 0; j < lo; j++) s[j] = -INFINITY;
        for (int j = hi; j < ATTN_KEYS; j++) s[j] = -INFINITY;
        vf m[2] = { v_set(x->max[row]), v_set(-INFINITY) };
        UNROLL
        for (int j = 0; j < ATTN_KEYS; j += LANES) m[j / LANES % 2] = v_max(v_load(s + j), m[j / LANES % 2]);
        top[i] = v_top(v_max(m[0], m[1]));
    }
    for (int i = 0; i < b->n; i++) softmax_row(x, b->row[i], top[i]);
}

/* ---- values ---- */

/* n rows of one block that are handled together: probabilities, destinations; keys that all of them see are lo..hi */
struct value_tile {
    int n, lo, hi, at; /* at: index in the block's list */
    bool ragged;       /* some row sees more than lo..hi */
    const float *p[TILE_ROWS];
    float *acc[TILE_ROWS], decay[TILE_ROWS];
};

typedef void pv_fn(const struct value_tile *t, int lo, int hi, struct key_rows v, int d, float *sum);

/* The chains of n rows x nv vectors over keys lo..hi, ascending; the first of the dims is number d of acc.
 * sum [n][nv * LANES]: chains continue from it and go back to it. NULL: from 0, and acc = acc * decay + chain. */
ALWAYS_INLINE void pv(int n, int nv, enum row_kind kind, const struct value_tile *t, int lo, int hi, struct key_rows v, int d, float *sum)
{
    vf c[2 * TILE_ROWS];
    UNROLL
    for (int i = 0; i < n * nv; i++) c[i] = sum ? v_load(sum + i * LANES) : v_zero();
    const uint8_t *row = v.p + (size_t)lo * v.stride;
    for (int j = lo; j < hi; j++, row += v.stride) {
        vf y[8];
        UNROLL
        for (int i = 0; i < nv; i++) y[i] = load_row(row, kind, v.at + i * LANES);
        UNROLL
        for (int r = 0; r < n; r++) {
            vf w = v_set(t->p[r][j]);
            UNROLL
            for (int i = 0; i < nv; i++) c[r * nv + i] = v_fma(w, y[i], c[r * nv + i]);
        }
    }
    UNROLL
    for (int i = 0; i < n * nv; i++) {
        float *to = sum ? sum + i * LANES : t->acc[i / nv] + d + i % nv * LANES;
        v_store(to, sum ? c[i] : v_fma(v_load(to), v_set(t->decay[i / nv]), c[i]));
    }
}

#define PV(name, n, nv, kind)                                                                                                              \
    static void name(const struct value_tile *t, int lo, int hi, struct key_rows v, int d, float *sum)                                     \
    {                                                                                                                                      \
        pv(n, nv, kind, t, lo, hi, v, d, sum);                                                                                             \
    }
PV(pv_f32_1x2, 1, 2, ROW_F32)
PV(pv_f32_2x2, 2, 2, ROW_F32)
PV(pv_f32_3x2, 3, 2, ROW_F32)
PV(pv_f32_4x2, 4, 2, ROW_F32)
PV(pv_f32_5x2, 5, 2, ROW_F32)
PV(pv_f32_6x2, 6, 2, ROW_F32)
PV(pv_f32_1x4, 1, 4, ROW_F32)
PV(pv_f32_2x4, 2, 4, ROW_F32)
PV(pv_f32_3x4, 3, 4, ROW_F32)
PV(pv_f32_1x8, 1, 8, ROW_F32)
PV(pv_f16_1x2, 1, 2, ROW_F16)
PV(pv_f16_2x2, 2, 2, ROW_F16)
PV(pv_f16_3x2, 3, 2, ROW_F16)
PV(pv_f16_4x2, 4, 2, ROW_F16)
PV(pv_f16_5x2, 5, 2, ROW_F16)
PV(pv_f16_6x2, 6, 2, ROW_F16)
PV(pv_f16_1x4, 1, 4, ROW_F16)
PV(pv_f16_2x4, 2, 4, ROW_F16)
PV(pv_f16_3x4, 3, 4, ROW_F16)
PV(pv_f16_1x8, 1, 8, ROW_F16)
PV(pv_q8_0_1x2, 1, 2, ROW_Q8_0)
PV(pv_q8_0_2x2, 2, 2, ROW_Q8_0)
PV(pv_q8_0_3x2, 3, 2, ROW_Q8_0)
PV(pv_q8_0_4x2, 4, 2, ROW_Q8_0)
PV(pv_q8_0_5x2, 5, 2, ROW_Q8_0)
PV(pv_q8_0_6x2, 6, 2, ROW_Q8_0)
PV(pv_q8_0_1x4, 1, 4, ROW_Q8_0)
PV(pv_q8_0_2x4, 2, 4, ROW_Q8_0)
PV(pv_q8_0_3x4, 3, 4, ROW_Q8_0)
PV(pv_q8_0_1x8, 1, 8, ROW_Q8_0)
/* by the number of rows, then 2, 4 or 8 vectors: few rows need more vectors at once to hide the latency of the chain */
static pv_fn *const pv_of[ROW_KINDS][TILE_ROWS + 1][3] = {
    { { NULL }, { pv_f32_1x2, pv_f32_1x4, pv_f32_1x8 }, { pv_f32_2x2, pv_f32_2x4 }, { pv_f32_3x2, pv_f32_3x4 },
      { pv_f32_4x2 }, { pv_f32_5x2 }, { pv_f32_6x2 } },
    { { NULL }, { pv_f16_1x2, pv_f16_1x4, pv_f16_1x8 }, { pv_f16_2x2, pv_f16_2x4 }, { pv_f16_3x2, pv_f16_3x4 },
      { pv_f16_4x2 }, { pv_f16_5x2 }, { pv_f16_6x2 } },
    { { NULL }, { pv_q8_0_1x2, pv_q8_0_1x4, pv_q8_0_1x8 }, { pv_q8_0_2x2, pv_q8_0_2x4 }, { pv_q8_0_3x2, pv_q8_0_3x4 },
      { pv_q8_0_4x2 }, { pv_q8_0_5x2 }, { pv_q8_0_6x2 } },
};

static int value_tiles(struct value_tile *tile, const struct attn_scratch *x, const struct attn_block *b)
{
    int n_tiles = 0;
    for (int i = 0, height = tile_height(b->n); i < b->n; i += height) {
        struct value_tile *t = &tile[n_tiles++];
        *t = (struct value_tile){ .n = b->n - i < height ? b->n - i : height, .hi = ATTN_KEYS, .at = i };
        int lo = ATTN_KEYS, hi = 0;
        for (int r = 0; r < t->n; r++) {
            int row = b->row[i + r];
            t->p[r] = x->s + row * ATTN_KEYS;
            t->acc[r] = x->acc + (ptrdiff_t)row * x->v_len;
            t->decay[r] = x->decay[row];
            if (b->lo[i + r] > t->lo) t->lo = b->lo[i + r];
            if (b->hi[i + r] < t->hi) t->hi = b->hi[i + r];
            if (b->lo[i + r] < lo) lo = b->lo[i + r];
            if (b->hi[i + r] > hi) hi = b->hi[i + r];
        }
        if (t->lo > t->hi) t->lo = t->hi;
        t->ragged = lo < t->lo || hi > t->hi;
    }
    return n_tiles;
}

/* Keys that all rows see go through the tile, the ragged ends row by row. Two vectors of dims. */
static void values_ragged(const struct value_tile *t, const struct attn_block *b, struct key_rows v, int d)
{
    _Alignas(64) float sum[TILE_ROWS * PAIR] = { 0 };
    struct value_tile one = { .n = 1 };
    const int *lo = b->lo + t->at, *hi = b->hi + t->at;
    for (int r = 0; r < t->n; r++) {
        one.p[0] = t->p[r];
        if (lo[r] < t->lo) pv_of[v.kind][1][0](&one, lo[r], t->lo, v, d, sum + r * PAIR);
    }
    pv_of[v.kind][t->n][0](t, t->lo, t->hi, v, d, sum);
    for (int r = 0; r < t->n; r++) {
        one.p[0] = t->p[r];
        if (hi[r] > t->hi) pv_of[v.kind][1][0](&one, lo[r] > t->hi ? lo[r] : t->hi, hi[r], v, d, sum + r * PAIR);
        for (int c = 0; c < PAIR; c += LANES)
            v_store(t->acc[r] + d + c, v_fma(v_load(t->acc[r] + d + c), v_set(t->decay[r]), v_load(sum + r * PAIR + c)));
    }
}

static void values_direct(const struct attn_scratch *x, const struct attn_block *b, struct key_rows v, int dim, struct raw_rows next)
{
    struct value_tile t;
    value_tiles(&t, x, b);
    for (int d = 0, wide, nv; d < dim; d += nv * LANES, v.at = d) {
        for (wide = t.ragged ? 0 : 2; wide && (!pv_of[v.kind][t.n][wide] || d + (2 << wide) * LANES > dim);) wide--;
        nv = 2 << wide;
        prefetch_rows(next, d * ATTN_KEYS / dim, (d + nv * LANES) * ATTN_KEYS / dim);
        if (t.ragged) values_ragged(&t, b, v, d);
        else pv_of[v.kind][t.n][wide](&t, t.lo, t.hi, v, d, NULL);
    }
}

/* One column of PAIR dims as f32 [key][PAIR]: 4 KiB that stay in L1 while all tiles pass, without the set conflicts of the rows' stride */
static void copy_column(float *to, const struct attn_block *b, struct key_rows v, int d, bool half)
{
    for (int j = b->first; j < b->last; j++) {
        const uint8_t *row = v.p + (size_t)j * v.stride;
        v_store(to + j * PAIR, load_row(row, v.kind, d));
        v_store(to + j * PAIR + LANES, half ? v_zero() : load_row(row, v.kind, d + LANES));
    }
}

static void values_tiled(const struct attn_scratch *x, const struct attn_block *b, struct key_rows v, int dim, struct raw_rows next)
{
    struct value_tile tile[(ATTN_ROWS + TILE_ROWS - 1) / TILE_ROWS];
    int n_tiles = value_tiles(tile, x, b);
    struct key_rows column = { (const uint8_t *)x->tile, PAIR * sizeof(float), ROW_F32, 0 };
    for (int d = 0; d < dim; d += PAIR) {
        copy_column(x->tile, b, v, d, d + LANES >= dim);
        prefetch_rows(next, d * ATTN_KEYS / dim, (d + PAIR < dim ? d + PAIR : dim) * ATTN_KEYS / dim);
        for (struct value_tile *t = tile; t < tile + n_tiles; t++) {
            if (t->ragged) values_ragged(t, b, column, d);
            else pv_of[ROW_F32][t->n][0](t, t->lo, t->hi, column, d, NULL);
        }
    }
}

static void scale_query(const struct attn_args *a, const struct attn_scratch *x, int r)
{
    float *q = x->q + (ptrdiff_t)r * x->q_len;
    scale(q, a->q + r * a->q_stride, a->scale, a->head_dim);
    for (int d = a->head_dim; d < x->q_len; d++) q[d] = 0.0f;
}

static void logits(const struct kernels *k, const struct attn_args *a, const struct attn_scratch *x, const struct attn_block *b)
{
    int dim = a->head_dim, len = (dim + LANES - 1) / LANES * LANES;
    struct key_rows keys = rows_at(k, a->k_type, a->k, a->k_row_bytes, dim, b, x->rows);
    struct raw_rows next = raw_at(a->v, a->v_row_bytes, b->base);
    if (b->n <= DIRECT_K_ROWS) {
        logits_direct(x, b, keys, len, next);
    } else {
        transpose_keys(x->tile, b, keys, len);
        logits_tiled(x, b, len, next);
    }
}

static void values_floats(const struct kernels *k, const struct attn_args *a, const struct attn_scratch *x, const struct attn_block *b)
{
    int dim = a->head_dim_v;
    struct raw_rows next = raw_at(a->k, a->k_row_bytes, b->base + ATTN_KEYS);
    struct key_rows values = rows_at(k, a->v_type, a->v, a->v_row_bytes, dim, b, x->rows);
    if (b->n <= DIRECT_V_ROWS && dim % PAIR == 0) values_direct(x, b, values, dim, next);
    else values_tiled(x, b, values, dim, next);
}

/* ---- parts ---- */

static void merge(const struct attn_scratch *x, int r, struct attn_part p, const float *acc)
{
    float *all = x->acc_all + (ptrdiff_t)r * x->v_len, old = x->max_all[r], top = p.max > old ? p.max : old, shift = top > -INFINITY ? top : 0.0f;
    float by[LANES] = { old - shift, p.max - shift };
    v_store(by, exp_below(v_load(by)));
    for (int d = 0; d < x->v_len; d += LANES) v_store(all + d, v_fma(v_load(all + d), v_set(by[0]), v_mul(v_load(acc + d), v_set(by[1]))));
    x->sum_all[r] = x->sum_all[r] * (double)by[0] + p.sum * (double)by[1];
    x->max_all[r] = top;
}

static void merge_own(const struct attn_scratch *x, int r)
{
    merge(x, r, (struct attn_part){ x->max[r], x->sum[r] }, x->acc + (ptrdiff_t)r * x->v_len);
    attn_clear(x, r);
}

static void finish_row(const struct attn_args *a, const struct attn_scratch *x, int r)
{
    float inv = x->sum_all[r] != 0.0 ? (float)(1.0 / x->sum_all[r]) : 0.0f;
    scale(a->out + r * a->out_stride, x->acc_all + (ptrdiff_t)r * x->v_len, inv, a->head_dim_v);
}

static void attn_merge(const struct attn_args *a, void *scratch)
{
    struct attn_scratch x;
    attn_place(&x, scratch, a->head_dim, a->head_dim_v);
    for (int r = 0; r < a->n_q; r++) {
        attn_clear_all(&x, a, r);
        for (int64_t i = 0, n = attn_parts(a, r); i < n; i++) {
            const struct attn_part *p = attn_part_at(a, r, i);
            merge(&x, r, *p, (const float *)(const void *)p + PART_ACC);
        }
        finish_row(a, &x, r);
    }
}

static void attn_over(const struct kernels *k, const struct attn_args *a, void *scratch, const struct attn_side *side)
{
    struct attn_scratch x;
    attn_place(&x, scratch, a->head_dim, a->head_dim_v);
    int64_t base, end;
    attn_begin(&x, a, &base, &end);
    for (int r = 0; r < a->n_q; r++) side->query(a, &x, r);
    for (; base < end; base += ATTN_KEYS) {
        struct attn_block b;
        for (int r = 0; base % ATTN_PART == 0 && r < a->n_q; r++)
            if (attn_part_ends(a, r, base)) merge_own(&x, r);
        if (!attn_block_at(&b, a, base)) continue;
        side->logits(k, a, &x, &b);
        softmax_rows(a, &x, &b);
        side->values(k, a, &x, &b);
    }
    for (int r = 0; r < a->n_q; r++) {
        if (a->part) attn_keep(&x, a, r);
        else merge_own(&x, r), finish_row(a, &x, r);
    }
}
