/* arch: x86_64  cflags: -mavx2 -mfma -mf16c */
/* isa_avx2_act - activations for the AVX2 levels: one row for rowdot, tiles of 4 tokens in the blocks of avx2_tiles.h. */
#include "ggml-like/kernels/avx2_tiles.h"
#include <assert.h>
#include <math.h>

/* ---- one row ---- */

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

/* ---- tiles ---- */

static const float unit_max_8 = 32000.0f, unit_max_15 = 32767.0f;

/* Largest finite magnitude of n floats (n % 32 == 0). */
INLINE float magnitude(const float *x, int64_t n)
{
    __m256 m[4], bits = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff)), inf = _mm256_set1_ps(__builtin_inff());
    for (int i = 0; i < 4; i++) m[i] = _mm256_setzero_ps();
    for (int64_t at = 0; at < n; at += 32)
        for (int i = 0; i < 4; i++) {
            __m256 v = _mm256_and_ps(_mm256_loadu_ps(x + at + 8 * i), bits);
            m[i] = _mm256_max_ps(m[i], _mm256_and_ps(v, _mm256_cmp_ps(v, inf, _CMP_LT_OQ)));
        }
    __m128 h = fold_max(_mm256_max_ps(_mm256_max_ps(m[0], m[1]), _mm256_max_ps(m[2], m[3])));
    h = _mm_max_ps(h, _mm_movehl_ps(h, h));
    return _mm_cvtss_f32(_mm_max_ss(h, _mm_movehdup_ps(h)));
}

/* What the blocks of a span share: rows, 1 / U and max|x| of each token, but at least ACT_RANGE_MIN,
 * so that 1 / U is finite. Tokens that are not there are the first one times 0. */
struct span { const float *x[NT]; float inv[NT], max[NT]; };

static struct span span_of(const float *const *x, int n, int64_t at, int64_t cols, float unit_max, float *unit)
{
    struct span s;
    for (int t = 0; t < NT; t++) {
        s.x[t] = x[t < n ? t : 0] + at;
        s.max[t] = t < n ? fmaxf(magnitude(s.x[t], cols), ACT_RANGE_MIN) : 0.0f;
        s.inv[t] = t < n ? unit_max / s.max[t] : 0.0f;
        unit[t] = s.max[t] / unit_max;
    }
    return s;
}

INLINE __m256 fold2(__m256 a, __m256 b, bool max) /* 128-bit lanes of a folded in the lower, of b in the upper one */
{
    __m256 c = _mm256_permute2f128_ps(a, b, 0x20), d = _mm256_permute2f128_ps(a, b, 0x31);
    return max ? _mm256_max_ps(c, d) : _mm256_min_ps(c, d);
}

/* v[t] holds extremes of the lanes 0 0 1 1 0 0 1 1 of token t; result: token 0 lanes 0 and 1, token 1 .. token 3 */
INLINE __m256 fold_lanes(const __m256 v[NT], bool max)
{
    __m256 a = fold2(v[0], v[2], max), b = fold2(v[1], v[3], max);
    __m256 c = _mm256_shuffle_ps(a, b, 0x88), d = _mm256_shuffle_ps(a, b, 0xdd);
    return max ? _mm256_max_ps(c, d) : _mm256_min_ps(c, d);
}

/* sum[h][t] and sum32[t] = inv[t] * the sum of v[t][0 .. 1] (h = 0), v[t][2 .. 3] */
INLINE void put_sums(float sum[2][NT], float sum32[NT], const __m256 low[NT], const __m256 high[NT], const float inv[NT])
{
    __m256 f[NT];
#pragma GCC unroll 4
    for (int t = 0; t < NT; t++) f[t] = _mm256_add_ps(_mm256_permute2f128_ps(low[t], high[t], 0x20), _mm256_permute2f128_ps(low[t], high[t], 0x31));
    __m256 s = _mm256_hadd_ps(_mm256_hadd_ps(f[0], f[1]), _mm256_hadd_ps(f[2], f[3]));
    s = _mm256_mul_ps(s, _mm256_broadcast_ps((const __m128 *)(const void *)inv));
    _mm256_storeu_ps(sum[0], s);
    _mm_storeu_ps(sum32, _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1)));
}

/* The two lanes of a token as the eight floats of four columns and their neighbours: 0 0 1 1 0 0 1 1 */
INLINE __m256 spread_lanes(const float *pair)
{
    return _mm256_permute_ps(_mm256_castpd_ps(_mm256_broadcast_sd((const double *)(const void *)pair)), 0x50);
}

/* d, o and mid of all tokens from the extremes in units; a = round(x * scale + start), scale and start by token and lane */
INLINE void put_ranges(struct act8 *to, __m256 low, __m256 high, __m256 inv, float scale[2 * NT], float start[2 * NT])
{
    __m256 floor = _mm256_floor_ps(low), range = _mm256_sub_ps(high, low);
    __m256i d = _mm256_cvttps_epi32(_mm256_mul_ps(_mm256_add_ps(range, _mm256_set1_ps(1.5f)), _mm256_set1_ps(1.0f / 254.0f)));
    d = _mm256_add_epi32(d, _mm256_set1_epi32(1)); /* 254 d > range + 1: the floor of low is at 1, high at most at 255 */
    __m256i o = _mm256_sub_epi32(_mm256_cvtps_epi32(floor), d), mid = _mm256_add_epi32(o, _mm256_slli_epi32(d, 7));
    _mm256_storeu_si256((__m256i *)(void *)to->d, _mm256_permute4x64_epi64(_mm256_packs_epi32(d, o), 0xd8));
    _mm_storeu_si128((__m128i *)(void *)to->mid, _mm256_castsi256_si128(_mm256_permute4x64_epi64(_mm256_packs_epi32(mid, mid), 0xd8)));
    __m256 r = _mm256_div_ps(_mm256_set1_ps(1.0f), _mm256_cvtepi32_ps(d));
    _mm256_store_ps(scale, _mm256_mul_ps(inv, r));
    _mm256_store_ps(start, _mm256_mul_ps(negated(_mm256_cvtepi32_ps(o)), r));
}

/* 32 codes, dwords in the order 0 2 4 6 1 3 5 7. What is not finite becomes 1 here. */
INLINE __m256i codes8(const float *x, __m256 scale, __m256 start)
{
    __m256i q[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) q[i] = _mm256_cvtps_epi32(_mm256_fmadd_ps(_mm256_loadu_ps(x + 8 * i), scale, start));
    __m256i v = _mm256_packus_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
    return _mm256_max_epu8(v, _mm256_set1_epi8(1));
}

/* dwords of four tokens: to[0] = dword 0 of each token in the lower half, dword 4 in the upper one; to[1] = 1 and 5 .. */
INLINE void transpose_tokens(const __m256i v[NT], __m256i to[4])
{
    __m256i a = _mm256_unpacklo_epi32(v[0], v[1]), b = _mm256_unpackhi_epi32(v[0], v[1]);
    __m256i c = _mm256_unpacklo_epi32(v[2], v[3]), d = _mm256_unpackhi_epi32(v[2], v[3]);
    to[0] = _mm256_unpacklo_epi64(a, c), to[1] = _mm256_unpackhi_epi64(a, c);
    to[2] = _mm256_unpacklo_epi64(b, d), to[3] = _mm256_unpackhi_epi64(b, d);
}

INLINE void put_block8(struct act8 *to, const struct span *s, int64_t at, __m256 inv, __m256 max)
{
    __m256 low[NT], high[NT], sum[2][NT];
#pragma GCC unroll 4
    for (int t = 0; t < NT; t++) {
        __m256 v[4];
        low[t] = high[t] = _mm256_setzero_ps();
        for (int i = 0; i < 4; i++) v[i] = _mm256_loadu_ps(s->x[t] + at + 8 * i);
        low[t] = _mm256_min_ps(v[0], _mm256_set1_ps(s->max[t])), high[t] = _mm256_max_ps(v[0], _mm256_set1_ps(-s->max[t]));
        for (int i = 1; i < 4; i++) low[t] = _mm256_min_ps(v[i], low[t]), high[t] = _mm256_max_ps(v[i], high[t]); /* a NaN leaves them */
        sum[0][t] = _mm256_add_ps(v[0], v[1]), sum[1][t] = _mm256_add_ps(v[2], v[3]);
    }
    put_sums(to->sum, to->sum32, sum[0], sum[1], s->inv);
    __m256 lo = _mm256_mul_ps(_mm256_max_ps(fold_lanes(low, false), negated(max)), inv);
    __m256 hi = _mm256_mul_ps(_mm256_min_ps(fold_lanes(high, true), max), inv);
    _Alignas(32) float scale[2 * NT], start[2 * NT];
    put_ranges(to, lo, hi, inv, scale, start);
    __m256i c[NT], v[4];
#pragma GCC unroll 4
    for (int t = 0; t < NT; t++) c[t] = codes8(s->x[t] + at, spread_lanes(scale + 2 * t), spread_lanes(start + 2 * t));
    transpose_tokens(c, v);
    for (int i = 0; i < 4; i++) _mm256_storeu_si256((__m256i *)(void *)to->a[2 * i], v[i]);
}

INLINE void put_block15(struct act15 *to, const struct span *s, int64_t at)
{
    __m256 sum[2][NT];
    __m256i y[2][NT], q[4], v[4], order = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15));
#pragma GCC unroll 4
    for (int t = 0; t < NT; t++) {
        __m256 x[4];
        for (int i = 0; i < 4; i++) {
            x[i] = _mm256_loadu_ps(s->x[t] + at + 8 * i);
            q[i] = _mm256_cvtps_epi32(_mm256_mul_ps(x[i], _mm256_set1_ps(s->inv[t])));
        }
        sum[0][t] = _mm256_add_ps(x[0], x[1]), sum[1][t] = _mm256_add_ps(x[2], x[3]);
        for (int h = 0; h < 2; h++) y[h][t] = _mm256_shuffle_epi8(_mm256_packs_epi32(q[2 * h], q[2 * h + 1]), order);
    }
    put_sums(to->sum, to->sum32, sum[0], sum[1], s->inv);
    for (int h = 0; h < 2; h++) { /* fours of columns: 0 2 in the lower half, 1 3 in the upper one */
        transpose_tokens(y[h], v);
        for (int i = 0; i < 4; i++) {
            int pair = 8 * h + i / 2 * 4 + i % 2;
            _mm_storeu_si128((__m128i *)(void *)to->y[pair], _mm256_castsi256_si128(v[i]));
            _mm_storeu_si128((__m128i *)(void *)to->y[pair + 2], _mm256_extracti128_si256(v[i], 1));
        }
    }
}

static void quant_tile(const struct kernels *k, struct act_panel *p, int64_t tile, const float *const *x, int n)
{
    assert(k->tile_tokens == NT && p->k % BLOCK == 0 && n >= 1 && n <= NT);
    uint8_t *to = p->data + (size_t)tile * p->tile_bytes;
    float *unit = (float *)(void *)(to + act_units_at(p->form, p->k));
    for (int64_t at = 0; at < p->k; at += SPAN, unit += NT) {
        int64_t cols = min_i64(SPAN, p->k - at);
        struct span s = span_of(x, n, at, cols, p->form == ACT_8 ? unit_max_8 : unit_max_15, unit);
        __m256 inv = _mm256_setr_ps(s.inv[0], s.inv[0], s.inv[1], s.inv[1], s.inv[2], s.inv[2], s.inv[3], s.inv[3]);
        __m256 max = _mm256_setr_ps(s.max[0], s.max[0], s.max[1], s.max[1], s.max[2], s.max[2], s.max[3], s.max[3]);
        for (int64_t c = 0; c < cols; c += BLOCK, to += act_block_bytes(p->form)) {
            if (p->form == ACT_8) put_block8((struct act8 *)(void *)to, &s, c, inv, max);
            else put_block15((struct act15 *)(void *)to, &s, c);
        }
    }
}

static void act_read(const struct kernels *k, const struct act_panel *p, int64_t tile, int t, int64_t k0, int64_t n, double *v)
{
    (void)k;
    const uint8_t *from = p->data + (size_t)tile * p->tile_bytes;
    const float *unit = (const float *)(const void *)(from + act_units_at(p->form, p->k));
    for (int64_t c = k0; c < k0 + n; c++) {
        const void *block = from + (size_t)(c / BLOCK) * act_block_bytes(p->form);
        int64_t i = c % BLOCK, lane = i % 4 / 2;
        if (p->form == ACT_8) {
            const struct act8 *b = block;
            v[c - k0] = (double)unit[c / SPAN * NT + t] * (b->d[t][lane] * b->a[i / 4][t][i % 4] + b->o[t][lane]);
        } else {
            const struct act15 *b = block;
            v[c - k0] = (double)unit[c / SPAN * NT + t] * b->y[i / 4 * 2 + i % 2][t][lane];
        }
    }
}

static size_t act_tile_bytes(const struct kernels *k, enum act_form form, int64_t cols)
{
    (void)k;
    size_t units = ((size_t)cols + SPAN - 1) / SPAN * NT * sizeof(float);
    return (act_units_at(form, cols) + units + 63) / 64 * 64;
}

static void pack_tile_f32(const struct kernels *k, struct act_panel *p, int64_t tile, const float *const *x, int n)
{
    assert(k->tile_tokens == NT && n >= 1 && n <= NT);
    float *to = act_floats_at(p, NT, tile, 0);
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

void kernels_init_avx2_act(struct kernels *k)
{
    k->code_max_8 = CODE_MAX_8;
    k->quant_row = quant_row;
    k->act_tile_bytes = act_tile_bytes;
    k->quant_tile = quant_tile;
    k->act_read = act_read;
    k->pack_tile_f32 = pack_tile_f32;
}
