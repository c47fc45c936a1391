/* arch: x86_64  cflags: -mavx2 -mfma -mf16c */
/* isa_avx2_matmul - the several-token slots for AVX2: panel_build, quant_tile, and the tiles of 16 rows x 4 tokens. Panels and tiles see
 * codes and floats; formats are known to isa_avx2_unpack.c only. */
#include "ggml-like/kernels/avx2_blocks.h"
#include "ggml-like/kernels/levels.h"
#include <assert.h>

enum { NT = 4, CHUNK = 256 };

/* Formats without a function for chunks: block by block through the slot. */
static void chunk_any(const struct kernels *k, const struct dtype *t, const uint8_t *w, int n, struct codes *out)
{
    if (avx2_unpack[t->gguf_id]) {
        avx2_unpack[t->gguf_id](w, n, out);
        return;
    }
    int groups = t->block_len / t->group_len;
    for (int i = 0; i < n; i++) {
        struct codes one;
        k->unpack[t->gguf_id](w + (size_t)i * (size_t)t->block_bytes, &one);
        memcpy(out->code + i * t->block_len, one.code, (size_t)t->block_len);
        memcpy(out->scale + i * groups, one.scale, (size_t)groups * sizeof(float));
        memcpy(out->min + i * groups, one.min, (size_t)groups * sizeof(float));
    }
}

/* ---- panels ---- */

/* x[i] = the floats at p + i of 8 rows `stride` floats apart */
INLINE void transpose8(const float *p, size_t stride, __m256 x[8])
{
#define TWO(r) _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p + (r) * stride)), _mm_loadu_ps(p + ((r) + 4) * stride), 1)
    for (int h = 0; h < 2; h++, p += 4) {
        __m256 a = TWO(0), b = TWO(1), c = TWO(2), d = TWO(3);
        __m256 e = _mm256_unpacklo_ps(a, b), f = _mm256_unpackhi_ps(a, b), g = _mm256_unpacklo_ps(c, d), i = _mm256_unpackhi_ps(c, d);
        x[4 * h] = _mm256_shuffle_ps(e, g, 0x44), x[4 * h + 1] = _mm256_shuffle_ps(e, g, 0xee);
        x[4 * h + 2] = _mm256_shuffle_ps(f, i, 0x44), x[4 * h + 3] = _mm256_shuffle_ps(f, i, 0xee);
    }
#undef TWO
}

/* 16 columns of 8 rows: x[i] = columns 4i..4i+3 of each row, centred */
INLINE void transpose_codes(const struct codes *c, int at, __m256i bias, __m256i x[4])
{
#define TWO(r) _mm256_inserti128_si256(_mm256_castsi128_si256(load128(c[r].code + at)), load128(c[(r) + 4].code + at), 1)
    __m256i a = TWO(0), b = TWO(1), d = TWO(2), e = TWO(3);
#undef TWO
    __m256i f = _mm256_unpacklo_epi32(a, b), g = _mm256_unpackhi_epi32(a, b);
    __m256i h = _mm256_unpacklo_epi32(d, e), i = _mm256_unpackhi_epi32(d, e);
    x[0] = _mm256_sub_epi8(_mm256_unpacklo_epi64(f, h), bias), x[1] = _mm256_sub_epi8(_mm256_unpackhi_epi64(f, h), bias);
    x[2] = _mm256_sub_epi8(_mm256_unpacklo_epi64(g, i), bias), x[3] = _mm256_sub_epi8(_mm256_unpackhi_epi64(g, i), bias);
}

/* The scales of n columns of 8 rows, and the mins that belong to centred codes. `to` and `min` point to the first group and row in the
 * panel; min is NULL without mins. scale[] is kept for the sums of the codes. */
INLINE void panel_scales8(float *to, float *min, const struct dtype *t, const struct codes *c, int groups, __m256 scale[16])
{
    size_t stride = sizeof *c / sizeof(float);
    __m256 bias = _mm256_set1_ps((float)t->code_bias), low[8];
    for (int g = 0; g < groups; g += 8) {
        int n = groups - g < 8 ? groups - g : 8;
        transpose8(c->scale + g, stride, scale + g);
        for (int i = 0; i < n; i++) _mm256_storeu_ps(to + (g + i) * PANEL_ROWS, scale[g + i]);
        if (!min) continue;
        transpose8(c->min + g, stride, low);
        for (int i = 0; i < n; i++) {
            __m256 m = _mm256_mul_ps(scale[g + i], bias);
            _mm256_storeu_ps(min + (g + i) * PANEL_ROWS, t->has_min ? _mm256_add_ps(low[i], m) : m);
        }
    }
}

/* 16 columns of 8 rows into the panel; returns the sums of the codes, per row */
INLINE __m256 panel_codes8(int8_t *to, const struct codes *c, int at, __m256i bias)
{
    __m256i x[4], sum = _mm256_setzero_si256();
    transpose_codes(c, at, bias, x);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        _mm256_storeu_si256((__m256i *)(to + i * 4 * PANEL_ROWS), x[i]);
        sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(_mm256_set1_epi8(1), x[i]));
    }
    return _mm256_cvtepi32_ps(_mm256_madd_epi16(sum, _mm256_set1_epi16(1)));
}

/* Columns k .. k + n of 8 rows whose codes stand in c[0..7]; row = 0 or 8, the first of them in the panel */
static void panel_rows8(struct panel *p, const struct dtype *t, const struct codes *c, int row, int64_t k, int n)
{
    __m256 scale[16];
    __m256i bias = _mm256_set1_epi8((char)t->code_bias);
    int64_t first = k / t->group_len * PANEL_ROWS + row;
    panel_scales8(p->scale + first, p->has_min ? p->min + first : NULL, t, c, n / t->group_len, scale);
    int8_t *code = p->code + k * PANEL_ROWS + row * 4;
    float *csum = p->csum + k / 16 * PANEL_ROWS + row;
    int halve = t->group_len == 32; /* two groups of 16 share a scale */
    for (int g = 0; g < n / 16; g++, csum += PANEL_ROWS, code += 16 * PANEL_ROWS)
        _mm256_storeu_ps(csum, _mm256_mul_ps(panel_codes8(code, c, g * 16, bias), scale[g >> halve]));
}

static void panel_codes(const struct kernels *k, struct panel *p, const struct dtype *t, const uint8_t *w, size_t row_bytes, int n_rows)
{
    struct codes c[PANEL_ROWS];
    size_t chunk_bytes = (size_t)(CHUNK / t->block_len * t->block_bytes);
    for (int r = n_rows; r < PANEL_ROWS; r++) { /* zero scales; the code that centres to 0 */
        memset(&c[r], 0, sizeof c[r]);
        memset(c[r].code, t->code_bias, sizeof c[r].code);
    }
    for (int64_t at = 0; at < p->nk; at += CHUNK, w += chunk_bytes) {
        int n = (int)min_i64(CHUNK, p->nk - at), blocks = (n + t->block_len - 1) / t->block_len;
        for (int r = 0; r < n_rows; r++) {
            const uint8_t *from = w + (size_t)r * row_bytes;
            _mm_prefetch((const char *)from + 2 * chunk_bytes, _MM_HINT_T0);
            _mm_prefetch((const char *)from + 2 * chunk_bytes + 64, _MM_HINT_T0);
            chunk_any(k, t, from, blocks, &c[r]);
        }
        panel_rows8(p, t, c, 0, at, n);
        panel_rows8(p, t, c + 8, 8, at, n);
    }
}

static void panel_floats(const struct kernels *k, struct panel *p, const struct dtype *t, const uint8_t *w, size_t row_bytes, int n_rows)
{
    enum { COLS = 64 };
    _Alignas(32) float rows[PANEL_ROWS][COLS];
    memset(rows, 0, sizeof rows);
    for (int64_t at = 0; at < p->nk; at += COLS) {
        int64_t n = min_i64(COLS, p->nk - at);
        for (int r = 0; r < n_rows; r++) k->to_f32(t, w + (size_t)r * row_bytes + (size_t)at * (size_t)t->block_bytes, rows[r], n);
        for (int i = 0; i < n; i += 8)
            for (int h = 0; h < 2; h++) {
                __m256 x[8];
                transpose8(&rows[8 * h][i], COLS, x);
                for (int j = 0; j < 8 && i + j < n; j++) _mm256_storeu_ps(p->f32 + (at + i + j) * PANEL_ROWS + 8 * h, x[j]);
            }
    }
}

static void panel_build(const struct kernels *k, struct panel *p, const struct dtype *t, const void *w, size_t row_bytes, int n_rows,
                        int64_t k0, int64_t nk)
{
    const uint8_t *first = (const uint8_t *)w + dtype_row_bytes(t, k0);
    panel_shape(p, t, nk);
    if (p->group == 0) panel_floats(k, p, t, first, row_bytes, n_rows);
    else panel_codes(k, p, t, first, row_bytes, n_rows);
}

/* ---- activations ---- */

/* NaN becomes lo: max and min return their second operand then */
INLINE __m256i round_clamped(__m256 v, float lo, float hi)
{
    return _mm256_cvtps_epi32(_mm256_min_ps(_mm256_max_ps(v, _mm256_set1_ps(lo)), _mm256_set1_ps(hi)));
}

/* 32 ints within int16, in order: 0-15, 16-31 */
INLINE void pack_i16(const __m256i q[4], __m256i out[2])
{
    out[0] = _mm256_permute4x64_epi64(_mm256_packs_epi32(q[0], q[1]), 0xd8);
    out[1] = _mm256_permute4x64_epi64(_mm256_packs_epi32(q[2], q[3]), 0xd8);
}

INLINE __m128 fold_max(__m256 v) { return _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1)); }
INLINE __m128 fold_min(__m256 v) { return _mm_min_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1)); }
INLINE __m128 fold_add(__m256 v) { return _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1)); }

/* y, its two bytes and its sums for the 32 columns of block b, whose d is set */
INLINE void store_row_block(struct act_row *row, int64_t b, const __m256i y[2])
{
    __m256i low = _mm256_set1_epi16(255), half = _mm256_set1_epi16(128);
    __m256i lo = _mm256_packus_epi16(_mm256_and_si256(y[0], low), _mm256_and_si256(y[1], low));
    __m256i hi = _mm256_packs_epi16(_mm256_srai_epi16(_mm256_add_epi16(y[0], half), 8), _mm256_srai_epi16(_mm256_add_epi16(y[1], half), 8));
    _mm256_storeu_si256((__m256i *)(row->y + 32 * b), y[0]);
    _mm256_storeu_si256((__m256i *)(row->y + 32 * b + 16), y[1]);
    _mm256_storeu_si256((__m256i *)(row->lo + 32 * b), _mm256_permute4x64_epi64(lo, 0xd8));
    _mm256_storeu_si256((__m256i *)(row->hi + 32 * b), _mm256_permute4x64_epi64(hi, 0xd8));
    __m256i s = _mm256_hadd_epi32(_mm256_madd_epi16(y[0], _mm256_set1_epi16(1)), _mm256_madd_epi16(y[1], _mm256_set1_epi16(1)));
    __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1)); /* lanes 0+1, 2+3 */
    sum = _mm_hadd_epi32(sum, sum);
    __m128 d = _mm_set1_ps(row->d[b]);
    _mm_storel_epi64((__m128i *)(row->sum + 2 * b), sum);
    _mm_storel_pi((__m64 *)(row->sum16 + 2 * b), _mm_mul_ps(d, _mm_cvtepi32_ps(sum)));
    _mm_store_ss(row->sum32 + b, _mm_mul_ps(d, _mm_cvtepi32_ps(_mm_hadd_epi32(sum, sum))));
}

static void quant_row(struct act_row *row, const float *x, int64_t k)
{
    assert(k % 32 == 0);
    row->k = k;
    __m256 magnitude_bits = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
    for (int64_t b = 0; b < k / 32; b++, x += 32) {
        __m256 v[4], m = _mm256_setzero_ps();
        for (int i = 0; i < 4; i++) {
            v[i] = _mm256_loadu_ps(x + 8 * i);
            m = _mm256_max_ps(_mm256_and_ps(v[i], magnitude_bits), m); /* a NaN leaves m */
        }
        __m128 h = fold_max(m);
        h = _mm_max_ps(h, _mm_movehl_ps(h, h));
        float magnitude = _mm_cvtss_f32(_mm_max_ss(h, _mm_movehdup_ps(h)));
        bool flat = magnitude < ACT_RANGE_MIN;
        __m256 inv = _mm256_set1_ps(flat ? 0.0f : ACT_ROW_MAX / magnitude);
        row->d[b] = flat ? 0.0f : magnitude / ACT_ROW_MAX;
        __m256i q[4], y[2];
        for (int i = 0; i < 4; i++) q[i] = round_clamped(_mm256_mul_ps(v[i], inv), -ACT_ROW_MAX, ACT_ROW_MAX);
        pack_i16(q, y);
        store_row_block(row, b, y);
    }
}

/* lane t of the result = the four lanes of v[t] folded */
INLINE __m128 min_of_lanes(const __m128 v[NT])
{
    __m128 a = v[0], b = v[1], c = v[2], d = v[3];
    _MM_TRANSPOSE4_PS(a, b, c, d);
    return _mm_min_ps(_mm_min_ps(a, b), _mm_min_ps(c, d));
}

INLINE __m128 sum_of_lanes(const __m128 v[NT])
{
    __m128 a = v[0], b = v[1], c = v[2], d = v[3];
    _MM_TRANSPOSE4_PS(a, b, c, d);
    return _mm_add_ps(_mm_add_ps(a, b), _mm_add_ps(c, d));
}

struct group_stats { __m128 low, high, sum; }; /* lane = token */

/* 16 columns from column `at` on of n tokens; zeros for the rest */
INLINE struct group_stats tile_stats(const float *const *x, int n, int64_t at)
{
    __m128 low[NT], high[NT], sum[NT];
    for (int t = 0; t < NT; t++) {
        if (t >= n) {
            low[t] = high[t] = sum[t] = _mm_setzero_ps();
            continue;
        }
        __m256 v[2], lo = _mm256_set1_ps(__builtin_inff()), hi = _mm256_set1_ps(__builtin_inff()); /* hi: minimum of -v */
        for (int i = 0; i < 2; i++) {
            v[i] = _mm256_loadu_ps(x[t] + at + 8 * i);
            lo = _mm256_min_ps(v[i], lo); /* a NaN leaves lo */
            hi = _mm256_min_ps(negated(v[i]), hi);
        }
        low[t] = fold_min(lo), high[t] = fold_min(hi);
        sum[t] = fold_add(_mm256_add_ps(v[0], v[1]));
    }
    return (struct group_stats){ .low = min_of_lanes(low), .high = _mm_sub_ps(_mm_setzero_ps(), min_of_lanes(high)), .sum = sum_of_lanes(sum) };
}

/* The 16 codes of a token */
INLINE __m128i tile_codes(const float *x, float low, float inv)
{
    __m256i q[2];
    for (int i = 0; i < 2; i++) {
        __m256 v = _mm256_sub_ps(_mm256_loadu_ps(x + 8 * i), _mm256_set1_ps(low));
        q[i] = round_clamped(_mm256_mul_ps(v, _mm256_set1_ps(inv)), 0.0f, 254.0f);
    }
    __m256i v = _mm256_permute4x64_epi64(_mm256_packs_epi32(q[0], q[1]), 0xd8);
    return _mm_add_epi8(_mm_packus_epi16(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1)), _mm_set1_epi8(1));
}

static void quant_tile(const struct kernels *k, struct act_panel *p, int64_t tile, const float *const *x, int n)
{
    assert(k->tile_tokens == NT && p->k % 32 == 0 && n >= 1 && n <= NT);
    for (int64_t at = 0; at < p->k; at += 16) {
        struct act_tile to = act_tile_at(p, NT, tile, at);
        struct group_stats s = tile_stats(x, n, at);
        __m128 range = _mm_sub_ps(s.high, s.low), wide = _mm_cmpge_ps(range, _mm_set1_ps(ACT_RANGE_MIN));
        __m128 d = _mm_and_ps(_mm_div_ps(range, _mm_set1_ps(254.0f)), wide);
        _Alignas(16) float low[NT], inv[NT];
        _mm_store_ps(low, s.low);
        _mm_store_ps(inv, _mm_and_ps(_mm_div_ps(_mm_set1_ps(254.0f), range), wide));
        _mm_storeu_ps(to.d, d);
        _mm_storeu_ps(to.o, _mm_sub_ps(s.low, d));
        _mm_storeu_ps(to.sum, s.sum);
        __m128i c[NT];
        for (int t = 0; t < NT; t++) c[t] = t < n ? tile_codes(x[t] + at, low[t], inv[t]) : _mm_setzero_si128();
        __m128i e = _mm_unpacklo_epi32(c[0], c[1]), f = _mm_unpackhi_epi32(c[0], c[1]);
        __m128i g = _mm_unpacklo_epi32(c[2], c[3]), h = _mm_unpackhi_epi32(c[2], c[3]);
        __m128i *a = (__m128i *)to.a;
        _mm_storeu_si128(a, _mm_unpacklo_epi64(e, g));
        _mm_storeu_si128(a + 1, _mm_unpackhi_epi64(e, g));
        _mm_storeu_si128(a + 2, _mm_unpacklo_epi64(f, h));
        _mm_storeu_si128(a + 3, _mm_unpackhi_epi64(f, h));
    }
}

static void pack_tile_f32(const struct kernels *k, struct act_panel *p, int64_t tile, const float *const *x, int n)
{
    assert(k->tile_tokens == NT && n >= 1 && n <= NT);
    float *to = p->f32 + tile * p->k * NT;
    int64_t at = 0;
    for (; at + 4 <= p->k; at += 4, to += 4 * NT) {
        __m128 v[NT];
        for (int t = 0; t < NT; t++) v[t] = t < n ? _mm_loadu_ps(x[t] + at) : _mm_setzero_ps();
        _MM_TRANSPOSE4_PS(v[0], v[1], v[2], v[3]);
        for (int i = 0; i < 4; i++) _mm_storeu_ps(to + i * NT, v[i]);
    }
    for (; at < p->k; at++)
        for (int t = 0; t < NT; t++) *to++ = t < n ? x[t][at] : 0.0f;
}

/* ---- tiles: 2 registers of 8 rows x nt tokens ----
 * The bodies are inlined with constant chain, group and nt. int16 sums live in registers; float sums on the stack, one load and store per
 * 32 columns. KEEP after each add pins the order: without it gcc 12 hoists the products above the sums and spills them (0.6x the speed). */

#define KEEP(v) __asm__ volatile("" : "+x"(v))

INLINE __m256i broadcast_u32(const uint8_t *p) { return _mm256_set1_epi32((int)load_u32(p)); }

/* dot[r][t] += codes x activations over `steps` x 4 columns, chained in int16 */
INLINE void chain_dot(__m256i dot[2][NT], const int8_t *w, const uint8_t *a, int steps, int nt, bool first)
{
    __m256i s[2][NT];
#pragma GCC unroll 8
    for (int i = 0; i < steps; i++) {
        __m256i w0 = load256(w + i * 64), w1 = load256(w + i * 64 + 32);
#pragma GCC unroll 4
        for (int t = 0; t < nt; t++) {
            __m256i b = broadcast_u32(a + (i * NT + t) * 4), p0 = _mm256_maddubs_epi16(b, w0), p1 = _mm256_maddubs_epi16(b, w1);
            s[0][t] = i ? _mm256_add_epi16(s[0][t], p0) : p0;
            s[1][t] = i ? _mm256_add_epi16(s[1][t], p1) : p1;
            KEEP(s[0][t]);
            KEEP(s[1][t]);
        }
    }
    __m256i ones = _mm256_set1_epi16(1);
#pragma GCC unroll 4
    for (int t = 0; t < nt; t++)
#pragma GCC unroll 2
        for (int r = 0; r < 2; r++) {
            __m256i wide = _mm256_madd_epi16(s[r][t], ones);
            dot[r][t] = first ? wide : _mm256_add_epi32(dot[r][t], wide);
        }
}

/* The same for 8-bit codes and activations - 128, which are in -127..127: |c| is unsigned, the sign goes to the activation. No pair
 * overflows (128 * 127 * 2), but no two pairs may be added in int16. */
INLINE void wide_dot(__m256i dot[2][NT], const int8_t *w, const uint8_t *a, int steps, int nt, bool first)
{
    __m256i ones = _mm256_set1_epi16(1), sign = _mm256_set1_epi8(-128), s[2][NT];
#pragma GCC unroll 8
    for (int i = 0; i < steps; i++) {
        __m256i w0 = load256(w + i * 64), w1 = load256(w + i * 64 + 32), m0 = _mm256_abs_epi8(w0), m1 = _mm256_abs_epi8(w1);
#pragma GCC unroll 4
        for (int t = 0; t < nt; t++) {
            __m256i b = _mm256_xor_si256(broadcast_u32(a + (i * NT + t) * 4), sign);
            __m256i p0 = _mm256_madd_epi16(_mm256_maddubs_epi16(m0, _mm256_sign_epi8(b, w0)), ones);
            __m256i p1 = _mm256_madd_epi16(_mm256_maddubs_epi16(m1, _mm256_sign_epi8(b, w1)), ones);
            s[0][t] = i ? _mm256_add_epi32(s[0][t], p0) : p0;
            s[1][t] = i ? _mm256_add_epi32(s[1][t], p1) : p1;
            KEEP(s[0][t]);
            KEEP(s[1][t]);
        }
    }
#pragma GCC unroll 4
    for (int t = 0; t < nt; t++)
#pragma GCC unroll 2
        for (int r = 0; r < 2; r++) dot[r][t] = first ? s[r][t] : _mm256_add_epi32(dot[r][t], s[r][t]);
}

/* dot over 16 columns; chain = products that an int16 holds, 0 for 8-bit codes */
INLINE void group_dot(__m256i dot[2][NT], const int8_t *w, const uint8_t *a, int chain, int nt)
{
    int each = chain == 0 ? 4 : chain;
#pragma GCC unroll 4
    for (int i = 0; i < 4; i += each) {
        if (chain == 0) wide_dot(dot, w + i * 64, a + i * NT * 4, each, nt, i == 0);
        else chain_dot(dot, w + i * 64, a + i * NT * 4, each, nt, i == 0);
    }
}

/* acc[r][t] += v[r] * x[t], the offset terms */
INLINE void add_outer(__m256 acc[2][NT], const float *v, const float *x, int nt)
{
    __m256 v0 = _mm256_loadu_ps(v), v1 = _mm256_loadu_ps(v + 8);
#pragma GCC unroll 4
    for (int t = 0; t < nt; t++) {
        __m256 b = _mm256_broadcast_ss(x + t);
        acc[0][t] = _mm256_fmadd_ps(v0, b, acc[0][t]);
        acc[1][t] = _mm256_fmadd_ps(v1, b, acc[1][t]);
    }
}

INLINE void add_mins(__m256 acc[2][NT], const float *min, const float *sum, int group, int nt)
{
    if (group == 16) {
        add_outer(acc, min, sum, nt);
        add_outer(acc, min + PANEL_ROWS, sum + NT, nt);
    } else {
        _Alignas(16) float both[NT];
        _mm_store_ps(both, _mm_add_ps(_mm_loadu_ps(sum), _mm_loadu_ps(sum + NT)));
        add_outer(acc, min, both, nt);
    }
}

/* Writes or adds the float sums to y. */
INLINE void tile_store(__m256 acc[2][NT], int nt, float *y, int64_t y_stride, bool add)
{
#pragma GCC unroll 4
    for (int t = 0; t < nt; t++)
#pragma GCC unroll 2
        for (int r = 0; r < 2; r++) {
            float *to = y + t * y_stride + 8 * r;
            _mm256_storeu_ps(to, add ? _mm256_add_ps(_mm256_loadu_ps(to), acc[r][t]) : acc[r][t]);
        }
}

/* Half h of a block of 32 columns: part = D0 dot0 (+ D1 dot1), and acc += S part where a scale ends */
INLINE void half_scaled(__m256 acc[2][NT], __m256 part[2][NT], const __m256i dot[2][NT], const float *scale, const float *d, int h, int group,
                        int nt)
{
#pragma GCC unroll 4
    for (int t = 0; t < nt; t++) {
        __m256 b = _mm256_broadcast_ss(d + t);
#pragma GCC unroll 2
        for (int r = 0; r < 2; r++) {
            __m256 v = _mm256_cvtepi32_ps(dot[r][t]);
            part[r][t] = h && group == 32 ? _mm256_fmadd_ps(v, b, part[r][t]) : _mm256_mul_ps(v, b);
            if (h || group == 16) acc[r][t] = _mm256_fmadd_ps(part[r][t], _mm256_loadu_ps(scale + 8 * r), acc[r][t]);
        }
    }
}

INLINE void tile_body(const struct panel *p, struct act_tile x, float *y, int64_t y_stride, bool add, int chain, int group, int nt)
{
    const int8_t *w = p->code;
    const float *scale = p->scale, *csum = p->csum, *min = p->min;
    __m256 acc[2][NT];
    for (int t = 0; t < nt; t++) acc[0][t] = acc[1][t] = _mm256_setzero_ps();
    for (const int8_t *end = w + p->nk * PANEL_ROWS; w < end; w += 32 * PANEL_ROWS) {
        __m256 part[2][NT];
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
            __m256i dot[2][NT];
            group_dot(dot, w + h * 16 * PANEL_ROWS, x.a + h * 16 * NT, chain, nt);
            half_scaled(acc, part, dot, scale + (group == 16 ? h * PANEL_ROWS : 0), x.d + h * NT, h, group, nt);
            if (chain == 0) { /* the codes were taken 128 too low */
                _Alignas(16) float o[NT];
                _mm_store_ps(o, _mm_fmadd_ps(_mm_loadu_ps(x.d + h * NT), _mm_set1_ps(128.0f), _mm_loadu_ps(x.o + h * NT)));
                add_outer(acc, csum + h * PANEL_ROWS, o, nt);
            } else {
                add_outer(acc, csum + h * PANEL_ROWS, x.o + h * NT, nt);
            }
        }
        if (p->has_min) add_mins(acc, min, x.sum, group, nt);
        x.a += 32 * NT, x.d += 2 * NT, x.o += 2 * NT, x.sum += 2 * NT;
        scale += 32 / group * PANEL_ROWS, csum += 2 * PANEL_ROWS, min += 32 / group * PANEL_ROWS;
    }
    tile_store(acc, nt, y, y_stride, add);
}

typedef void tile_fn(const struct panel *p, struct act_tile x, float *y, int64_t y_stride, bool add);

#define TILE(chain, group, nt)                                                                                               \
    static void tile_##chain##_##group##_##nt(const struct panel *p, struct act_tile x, float *y, int64_t y_stride, bool add) \
    {                                                                                                                        \
        tile_body(p, x, y, y_stride, add, chain, group, nt);                                                                 \
    }
#define TILE_TOKENS(chain, group) TILE(chain, group, 1) TILE(chain, group, 2) TILE(chain, group, 3) TILE(chain, group, 4)
#define TILE_NAMES(chain, group) \
    { tile_##chain##_##group##_1, tile_##chain##_##group##_2, tile_##chain##_##group##_3, tile_##chain##_##group##_4 }
TILE_TOKENS(0, 32) TILE_TOKENS(2, 32) TILE_TOKENS(4, 32)
TILE_TOKENS(0, 16) TILE_TOKENS(2, 16) TILE_TOKENS(4, 16)

/* [group 16][chain 0 2 4][n_tokens - 1] */
static tile_fn *const tiles[2][3][NT] = {
    { TILE_NAMES(0, 32), TILE_NAMES(2, 32), TILE_NAMES(4, 32) },
    { TILE_NAMES(0, 16), TILE_NAMES(2, 16), TILE_NAMES(4, 16) },
};

/* chain * 2 * 255 * code_max <= 32767; a group of 16 columns has 4 products */
static int chain_index(int code_max) { return code_max <= 16 ? 2 : code_max <= 32 ? 1 : 0; }

static void tile(const struct kernels *k, const struct panel *p, const struct act_panel *x, int64_t at, int64_t k0, int n_tokens, float *y,
                 int64_t y_stride, bool add)
{
    assert(k->tile_tokens == NT && p->nk % 32 == 0 && k0 % 32 == 0 && n_tokens >= 1 && n_tokens <= NT);
    tiles[p->group == 16][chain_index(p->code_max)][n_tokens - 1](p, act_tile_at(x, NT, at, k0), y, y_stride, add);
}

INLINE void tile_f32_body(const float *w, const float *x, int64_t nk, float *y, int64_t y_stride, bool add, int nt)
{
    __m256 acc[2][NT];
    for (int t = 0; t < nt; t++) acc[0][t] = acc[1][t] = _mm256_setzero_ps();
    for (int64_t i = 0; i < nk; i++) add_outer(acc, w + i * PANEL_ROWS, x + i * NT, nt);
    tile_store(acc, nt, y, y_stride, add);
}

static void tile_f32(const struct kernels *k, const struct panel *p, const struct act_panel *x, int64_t at, int64_t k0, int n_tokens,
                     float *y, int64_t y_stride, bool add)
{
    assert(k->tile_tokens == NT && n_tokens >= 1 && n_tokens <= NT);
    const float *from = x->f32 + (at * x->k + k0) * NT;
    if (n_tokens == 1) tile_f32_body(p->f32, from, p->nk, y, y_stride, add, 1);
    else if (n_tokens == 2) tile_f32_body(p->f32, from, p->nk, y, y_stride, add, 2);
    else if (n_tokens == 3) tile_f32_body(p->f32, from, p->nk, y, y_stride, add, 3);
    else tile_f32_body(p->f32, from, p->nk, y, y_stride, add, 4);
}

void kernels_init_avx2_matmul(struct kernels *k)
{
    k->tile_tokens = NT;
    k->quant_row = quant_row;
    k->panel_build = panel_build;
    k->quant_tile = quant_tile;
    k->pack_tile_f32 = pack_tile_f32;
    k->tile = tile;
    k->tile_f32 = tile_f32;
}
