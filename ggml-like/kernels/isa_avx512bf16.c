/* arch: x86_64  cflags: -mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mavx512vbmi -mavx512bf16 */
/* isa_avx512bf16 - AVX-512 VBMI and BF16: weights in BF16 times activations rounded to it. vdpbf16ps multiplies 2 columns of 16 rows by those of a
 * token, sums in f32: twice the products of the f32 tile at the same rate on Zen 5 (2 a cycle; 240 GMAC/s a core against 130), and weights are
 * copied, not widened. */
#include "ggml-like/kernels/avx512_tiles.h"

enum { NT = AVX512_TILE_TOKENS, PAIR = 2, COLS = 32 /* a round of panel_bf16 */ };

INLINE __m512i rounded(__m512 high, __m512 low) { return (__m512i)_mm512_cvtne2ps_pbh(high, low); }

/* Four vectors of four dwords in each 128-bit lane, the other way round. */
INLINE void transpose_dwords(const __m512i q[4], __m512i x[4])
{
    __m512i a = _mm512_unpacklo_epi32(q[0], q[1]), b = _mm512_unpackhi_epi32(q[0], q[1]);
    __m512i c = _mm512_unpacklo_epi32(q[2], q[3]), d = _mm512_unpackhi_epi32(q[2], q[3]);
    x[0] = _mm512_unpacklo_epi64(a, c), x[1] = _mm512_unpackhi_epi64(a, c);
    x[2] = _mm512_unpacklo_epi64(b, d), x[3] = _mm512_unpackhi_epi64(b, d);
}

/* ---- weights ---- */

/* n columns of each row, rounded, and zeros up to COLS */
static void panel_rows(const struct kernels *k, const struct dtype *t, struct rows r, int n_rows, int64_t n, uint16_t rows[PANEL_ROWS][COLS])
{
    _Alignas(64) float x[COLS] = { 0 };
    for (int i = 0; i < n_rows; i++) {
        const uint8_t *w = r.w + (size_t)i * r.stride;
        if (t->gguf_id == GGUF_BF16) {
            memset(rows[i], 0, sizeof rows[i]);
            memcpy(rows[i], w, (size_t)n * sizeof rows[i][0]);
        } else if (t->gguf_id == GGUF_F32 && n == COLS) {
            _mm512_storeu_si512(rows[i], rounded(_mm512_loadu_ps(w + 64), _mm512_loadu_ps(w)));
        } else {
            k->to_f32(t, w, x, n);
            _mm512_storeu_si512(rows[i], rounded(_mm512_load_ps(x + 16), _mm512_load_ps(x)));
        }
    }
}

/* 16 pairs of 16 rows. A whole cache line of a row at once: rows that lie a multiple of 4 KiB apart push each other out of the first cache. */
INLINE void put_rows(uint16_t *to, struct rows r)
{
    __m512i x[4][4]; /* [i][j]: pairs j, j + 4, j + 8, j + 12 of rows 4i .. 4i + 3 */
UNROLL
    for (size_t i = 0; i < 4; i++) {
        __m512i q[4];
UNROLL
        for (size_t j = 0; j < 4; j++) q[j] = load512(r.w + (4 * i + j) * r.stride);
        transpose_dwords(q, x[i]);
    }
UNROLL
    for (int j = 0; j < 4; j++, to += PAIR * PANEL_ROWS) {
        __m512i a = _mm512_shuffle_i32x4(x[0][j], x[1][j], 0x44), b = _mm512_shuffle_i32x4(x[0][j], x[1][j], 0xee);
        __m512i c = _mm512_shuffle_i32x4(x[2][j], x[3][j], 0x44), d = _mm512_shuffle_i32x4(x[2][j], x[3][j], 0xee);
        _mm512_storeu_si512(to, _mm512_shuffle_i32x4(a, c, 0x88));
        _mm512_storeu_si512(to + 4 * PAIR * PANEL_ROWS, _mm512_shuffle_i32x4(a, c, 0xdd));
        _mm512_storeu_si512(to + 8 * PAIR * PANEL_ROWS, _mm512_shuffle_i32x4(b, d, 0x88));
        _mm512_storeu_si512(to + 12 * PAIR * PANEL_ROWS, _mm512_shuffle_i32x4(b, d, 0xdd));
    }
}

static void panel_bf16(const struct kernels *k, struct panel *p, const struct dtype *t, enum act_form form, const void *w, size_t row_bytes,
                       int n_rows, int64_t k0, int64_t nk)
{
    _Alignas(64) uint16_t rows[PANEL_ROWS][COLS] = { { 0 } };
    bool direct = t->gguf_id == GGUF_BF16 && n_rows == PANEL_ROWS;
    panel_shape(p, t, form, nk);
    struct stream next = panel_stream(p, false);
    for (int64_t at = 0; at < nk; at += COLS) { /* the buffer has room for whole rounds */
        int64_t n = min_i64(COLS, nk - at);
        struct rows from = { (const uint8_t *)w + dtype_row_bytes(t, k0 + at), row_bytes };
        stream_ask(&next, COLS);
        if (!direct || n < COLS) {
            panel_rows(k, t, from, n_rows, n, rows);
            from = (struct rows){ (const uint8_t *)rows, sizeof rows[0] };
        }
        put_rows(p->bf16 + at * PANEL_ROWS, from);
    }
}

/* Rounded halves, one behind the other, to pairs */
INLINE __m512i pairs_of(__m512 high, __m512 low)
{
    __m512i order = _mm512_setr_epi32(0x100000, 0x110001, 0x120002, 0x130003, 0x140004, 0x150005, 0x160006, 0x170007, 0x180008, 0x190009, 0x1a000a,
                                      0x1b000b, 0x1c000c, 0x1d000d, 0x1e000e, 0x1f000f);
    return _mm512_permutexvar_epi16(order, rounded(high, low));
}

static void columns_bf16(uint16_t *to, int64_t step, int width, const float *a, const float *b, int64_t n)
{
    assert(width <= PANEL_ROWS);
    __mmask16 all = (__mmask16)((1u << width) - 1);
    for (; n > 0; n -= width, a += width, to += step) {
        __mmask16 in = n < width ? (__mmask16)((1u << n) - 1) : all;
        __m512 low = _mm512_maskz_loadu_ps(in, a), high = b ? _mm512_maskz_loadu_ps(in, b) : _mm512_setzero_ps();
        _mm512_mask_storeu_ps(to, all, _mm512_castsi512_ps(pairs_of(high, low)));
        if (b) b += width;
    }
}

/* Three registers hold four times 12 pairs, what is left is the beginning of that. */
static void scale_tile_bf16(const struct kernels *k, uint16_t *to, const uint16_t *x, const float *f, int64_t n)
{
    enum { VECTORS = 3, LANES = 16 };
    float of[VECTORS * LANES];
    assert(k->tile_tokens == NT);
    for (int i = 0; i < VECTORS * LANES; i++) of[i] = f[i % NT];
    for (int64_t left = (n + 1) / 2 * NT; left > 0; left -= VECTORS * LANES)
UNROLL
        for (int v = 0; v < VECTORS; v++, x += PAIR * LANES, to += PAIR * LANES) {
            int64_t here = left - v * LANES;
            __mmask16 in = here >= LANES ? 0xffff : here > 0 ? (__mmask16)((1u << here) - 1) : 0;
            __m512i pair = _mm512_castps_si512(_mm512_maskz_loadu_ps(in, x));
            __m512 low = _mm512_castsi512_ps(_mm512_slli_epi32(pair, 16)), high = _mm512_castsi512_ps(_mm512_and_si512(pair, _mm512_set1_epi32(-65536)));
            __m512 by = load_ps(of + v * LANES);
            _mm512_mask_storeu_ps(to, in, _mm512_castsi512_ps(pairs_of(_mm512_mul_ps(high, by), _mm512_mul_ps(low, by))));
        }
}

/* ---- activations ---- */

/* 16 pairs of each token; x[t] + at has `left` columns, up to 32 are read */
INLINE void put_pairs(uint16_t *to, const float *const *x, int n, int64_t at, int64_t left)
{
    uint32_t mask = left < 32 ? ((uint32_t)1 << left) - 1 : UINT32_MAX;
UNROLL
    for (int g = 0; g < NT; g += 4) {
        __m512i q[4], v[4];
UNROLL
        for (int t = 0; t < 4; t++) {
            if (g + t >= n) q[t] = _mm512_setzero_si512();
            else if (left >= 32) q[t] = rounded(load_ps(x[g + t] + at + 16), load_ps(x[g + t] + at));
            else
                q[t] = rounded(_mm512_maskz_loadu_ps((__mmask16)(mask >> 16), x[g + t] + at + 16), _mm512_maskz_loadu_ps((__mmask16)mask, x[g + t] + at));
        }
        transpose_dwords(q, v);
UNROLL
        for (int i = 0; i < 4; i++) {
            uint16_t *lane = to + PAIR * (i * NT + g);
            _mm_storeu_si128((__m128i *)lane, _mm512_castsi512_si128(v[i]));
            _mm_storeu_si128((__m128i *)(lane + 4 * PAIR * NT), _mm512_extracti32x4_epi32(v[i], 1));
            _mm_storeu_si128((__m128i *)(lane + 8 * PAIR * NT), _mm512_extracti32x4_epi32(v[i], 2));
            _mm_storeu_si128((__m128i *)(lane + 12 * PAIR * NT), _mm512_extracti32x4_epi32(v[i], 3));
        }
    }
}

static void pack_tile_bf16(const struct kernels *k, struct act_panel *p, int64_t tile, const float *const *x, int n)
{
    assert(k->tile_tokens == NT && n >= 1 && n <= NT);
    uint16_t *to = act_pairs_at(p, NT, tile, 0), rest[16 * PAIR * NT];
    int64_t at = 0;
    for (; at + 32 <= p->k; at += 32, to += 32 * NT) put_pairs(to, x, n, at, 32);
    if (at == p->k) return;
    put_pairs(rest, x, n, at, p->k - at);
    memcpy(to, rest, (size_t)(p->k - at + 1) / 2 * PAIR * NT * sizeof *to);
}

/* ---- tiles ---- */

/* acc[t] += rows times the pairs of token t */
INLINE void multiply(__m512 acc[NT], const uint16_t *w, const uint16_t *x, int nt)
{
    __m512bh rows = (__m512bh)load512(w);
UNROLL
    for (int t = 0; t < nt; t++) acc[t] = _mm512_dpbf16_ps(acc[t], rows, (__m512bh)_mm512_set1_epi32((int)load_u32((const uint8_t *)(x + PAIR * t))));
}

INLINE void multiply_two(__m512 acc[2][NT], const uint16_t *const w[2], const uint16_t *x, int nt)
{
    __m512bh a = (__m512bh)load512(w[0]), b = (__m512bh)load512(w[1]);
UNROLL
    for (int t = 0; t < nt; t++) {
        __m512i v = _mm512_set1_epi32((int)load_u32((const uint8_t *)(x + PAIR * t)));
        ONCE(v);
        acc[0][t] = _mm512_dpbf16_ps(acc[0][t], a, (__m512bh)v);
        acc[1][t] = _mm512_dpbf16_ps(acc[1][t], b, (__m512bh)v);
    }
}

/* Two sums a token: with one, 8 tokens waited for the last product half of the time. */
INLINE void tile_body(const struct panel *p, const uint16_t *x, float *y, int64_t y_stride, bool add, int nt)
{
    __m512 acc[2][NT];
UNROLL
    for (int t = 0; t < nt; t++) acc[0][t] = acc[1][t] = _mm512_setzero_ps();
    struct stream next = panel_stream(p, true);
    const uint16_t *w = p->bf16;
    int64_t pairs = (p->nk + 1) / 2;
    for (int64_t i = 0; i + 1 < pairs;) {
        stream_ask(&next, COLS);
        for (int64_t end = min_i64(i + COLS / 2, pairs); i + 1 < end; i += 2, w += 2 * PAIR * PANEL_ROWS, x += 2 * PAIR * NT) {
            multiply(acc[0], w, x, nt);
            multiply(acc[1], w + PAIR * PANEL_ROWS, x + PAIR * NT, nt);
        }
    }
    if (pairs % 2) multiply(acc[0], w, x, nt);
UNROLL
    for (int t = 0; t < nt; t++) acc[0][t] = _mm512_add_ps(acc[0][t], acc[1][t]);
    tile_store(acc[0], y, y_stride, add, nt);
}

typedef void tile_fn(const struct panel *p, const uint16_t *x, float *y, int64_t y_stride, bool add);

#define TILE(name, nt)                                                                                              \
    static void name##_##nt(const struct panel *p, const uint16_t *x, float *y, int64_t y_stride, bool add)         \
    {                                                                                                               \
        tile_body(p, x, y, y_stride, add, nt);                                                                      \
    }
#define TILE_NAME(name, nt) name##_##nt,
EACH_NT(TILE, tile)
static tile_fn *const tiles[NT] = { EACH_NT(TILE_NAME, tile) };

static void tile_bf16(const struct kernels *k, const struct panel *p, const struct act_panel *x, int64_t at, int64_t k0, int n_tokens,
                      float *y, int64_t y_stride, bool add)
{
    assert(k->tile_tokens == NT && k0 % 2 == 0 && n_tokens >= 1 && n_tokens <= NT);
    tiles[n_tokens - 1](p, act_pairs_at(x, NT, at, k0), y, y_stride, add);
}

/* Of 32 rows: a tile of 16 is as slow as its loads, a value of a token with each product; here there are two with each (238 against 258 GMAC/s).
 * Sums as in tile_body. */
INLINE void pair_body(const struct panel *p, const struct panel *q, const uint16_t *x, float *y, int64_t y_stride, bool add, bool ask, int nt)
{
    __m512 acc[2][2][NT]; /* [odd][panel] */
UNROLL
    for (int t = 0; t < nt; t++) acc[0][0][t] = acc[0][1][t] = acc[1][0][t] = acc[1][1][t] = _mm512_setzero_ps();
    struct stream next[2] = { { NULL, NULL, 0 } };
    if (ask) next[0] = panel_stream(p, true), next[1] = panel_stream(q, true);
    const uint16_t *rows[2] = { p->bf16, q->bf16 };
    int64_t pairs = (p->nk + 1) / 2;
    for (int64_t i = 0; i < pairs;) {
        stream_ask(&next[0], COLS);
        stream_ask(&next[1], COLS);
        int64_t end = min_i64(i + COLS / 2, pairs);
        for (; i + 1 < end; i += 2, rows[0] += 2 * PAIR * PANEL_ROWS, rows[1] += 2 * PAIR * PANEL_ROWS, x += 2 * PAIR * NT) {
            multiply_two(acc[0], rows, x, nt);
            const uint16_t *odd[2] = { rows[0] + PAIR * PANEL_ROWS, rows[1] + PAIR * PANEL_ROWS };
            multiply_two(acc[1], odd, x + PAIR * NT, nt);
        }
        if (i + 1 == pairs) multiply_two(acc[0], rows, x, nt), i++;
    }
UNROLL
    for (int j = 0; j < 2; j++) {
UNROLL
        for (int t = 0; t < nt; t++) acc[0][j][t] = _mm512_add_ps(acc[0][j][t], acc[1][j][t]);
        tile_store(acc[0][j], y + j * PANEL_ROWS, y_stride, add, nt);
    }
}

typedef void pair_fn(const struct panel *p, const struct panel *q, const uint16_t *x, float *y, int64_t y_stride, bool add, bool ask);

#define PAIRS(name, nt)                                                                                                                       \
    static void name##_##nt(const struct panel *p, const struct panel *q, const uint16_t *x, float *y, int64_t y_stride, bool add, bool ask)  \
    {                                                                                                                                         \
        pair_body(p, q, x, y, y_stride, add, ask, nt);                                                                                        \
    }
EACH_PAIR_NT(PAIRS, pair)
static pair_fn *const pairs[PAIR_SIDE] = { EACH_PAIR_NT(TILE_NAME, pair) };

static void pair_bf16(const struct kernels *k, const struct panel *p, const struct panel *q, const struct act_panel *x, int64_t at, int64_t k0,
                      int n_tokens, float *y, int64_t y_stride, bool add)
{
    assert(k->tile_tokens == NT && k0 % 2 == 0 && n_tokens >= 1 && n_tokens <= NT && p->nk == q->nk);
    for (int t = 0; t < n_tokens; t += PAIR_SIDE) {
        int n = n_tokens - t < PAIR_SIDE ? n_tokens - t : PAIR_SIDE;
        pairs[n - 1](p, q, act_pairs_at(x, NT, at, k0) + PAIR * t, y + t * y_stride, y_stride, add, t == 0);
    }
}

void kernels_init_avx512bf16(struct kernels *k)
{
    k->has_bf16 = true;
    k->panel_bf16 = panel_bf16;
    k->columns_bf16 = columns_bf16;
    k->scale_tile_bf16 = scale_tile_bf16;
    k->pack_tile_bf16 = pack_tile_bf16;
    k->tile_bf16 = tile_bf16;
    k->pair_bf16 = pair_bf16;
}
