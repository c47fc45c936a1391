/* arch: x86_64  cflags: -mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni */
/* isa_avx512_act - activations for AVX-512: one row for rowdot, tiles of 12 tokens for the matmul tiles. Every float operation before a
 * rounding is the one of ref_matmul.c, so the integers are equal. */
#include "ggml-like/kernels/avx512_blocks.h"
#include "ggml-like/kernels/levels.h"
#include <assert.h>

enum { NT = AVX512_TILE_TOKENS, GROUPS = NT / 4 /* of four tokens, a 128-bit lane each */ };

INLINE __m512 load_ps(const float *p) { return _mm512_loadu_ps(p); }

/* ---- one row ---- */

/* hi, lo: 32 columns of block b */
INLINE void put_quad(struct act_row *row, int64_t b, __m256i hi, __m256i lo)
{
    struct act_quad *q = &row->quad[b / 4];
    for (int h = 0; h < 2; h++) {
        _mm_storeu_si128((__m128i *)q->hi[h][b % 4], h ? _mm256_extracti128_si256(hi, 1) : _mm256_castsi256_si128(hi));
        _mm_storeu_si128((__m128i *)q->lo[h][b % 4], h ? _mm256_extracti128_si256(lo, 1) : _mm256_castsi256_si128(lo));
    }
}

/* Largest finite magnitude of n floats (n % 32 == 0). */
INLINE float row_magnitude(const float *x, int64_t n)
{
    __m512 m[2] = { _mm512_setzero_ps(), _mm512_setzero_ps() }, infinite = _mm512_set1_ps(__builtin_inff());
    for (int64_t i = 0; i < n; i += 32)
        for (int j = 0; j < 2; j++) {
            __m512 v = _mm512_abs_ps(load_ps(x + i + 16 * j));
            m[j] = _mm512_mask_max_ps(m[j], _mm512_cmp_ps_mask(v, infinite, _CMP_LT_OQ), m[j], v);
        }
    return _mm512_reduce_max_ps(_mm512_max_ps(m[0], m[1]));
}

static void quant_row(struct act_row *row, const float *x, int64_t k)
{
    assert(k % 32 == 0);
    row->k = k;
    float magnitude = 0.0f;
    for (int64_t b = 0; b < k / 32; b++, x += 32) {
        if (b * 32 % ACT_ROW_SPAN == 0) magnitude = row_magnitude(x, min_i64(ACT_ROW_SPAN, k - b * 32));
        __m512 v0 = load_ps(x), v1 = load_ps(x + 16);
        bool flat = magnitude < ACT_RANGE_MIN;
        __m512 inv = _mm512_set1_ps(flat ? 0.0f : ACT_ROW_MAX / magnitude), top = _mm512_set1_ps(ACT_ROW_MAX), bottom = _mm512_set1_ps(-ACT_ROW_MAX);
        float d = row->d[b] = flat ? 0.0f : magnitude / ACT_ROW_MAX;
        __m512i q0 = _mm512_cvtps_epi32(_mm512_min_ps(_mm512_max_ps(_mm512_mul_ps(v0, inv), bottom), top)); /* NaN: bottom */
        __m512i q1 = _mm512_cvtps_epi32(_mm512_min_ps(_mm512_max_ps(_mm512_mul_ps(v1, inv), bottom), top));
        __m512i y = _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi32_epi16(q0)), _mm512_cvtepi32_epi16(q1), 1);
        _mm512_storeu_si512(row->y + 32 * b, y);
        __m256i lo = _mm512_cvtepi16_epi8(y), hi = _mm512_cvtepi16_epi8(_mm512_srai_epi16(_mm512_add_epi16(y, _mm512_set1_epi16(128)), 8));
        _mm256_storeu_si256((__m256i *)(row->lo + 32 * b), lo);
        _mm256_storeu_si256((__m256i *)(row->hi + 32 * b), hi);
        int32_t s0 = _mm512_reduce_add_epi32(q0), s1 = _mm512_reduce_add_epi32(q1);
        row->sum[2 * b] = s0, row->sum[2 * b + 1] = s1;
        row->sum16[2 * b] = d * (float)s0, row->sum16[2 * b + 1] = d * (float)s1;
        row->sum32[b] = d * (float)(s0 + s1);
        put_quad(row, b, hi, lo);
    }
}

/* ---- tiles ---- */

/* Four registers of four tokens become one, lane i of each 128 bits = token i, folded from 16 values to 4. */
INLINE __m512 fold_tokens(const __m512 v[4], __m512 (*op)(__m512, __m512))
{
    __m512d a = _mm512_castps_pd(op(_mm512_unpacklo_ps(v[0], v[1]), _mm512_unpackhi_ps(v[0], v[1])));
    __m512d b = _mm512_castps_pd(op(_mm512_unpacklo_ps(v[2], v[3]), _mm512_unpackhi_ps(v[2], v[3])));
    return op(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
}

/* The 128-bit lanes of each register folded: lane t of the result = token t; lanes 12.. repeat the last four. */
INLINE __m512 fold_lanes(const __m512 v[GROUPS], __m512 (*op)(__m512, __m512))
{
    __m512 a = op(_mm512_shuffle_f32x4(v[0], v[1], 0x88), _mm512_shuffle_f32x4(v[0], v[1], 0xdd));
    __m512 b = op(_mm512_shuffle_f32x4(v[2], v[2], 0x88), _mm512_shuffle_f32x4(v[2], v[2], 0xdd));
    return op(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
}

INLINE __m512 op_min(__m512 a, __m512 b) { return _mm512_min_ps(a, b); }
INLINE __m512 op_max(__m512 a, __m512 b) { return _mm512_max_ps(a, b); }
INLINE __m512 op_add(__m512 a, __m512 b) { return _mm512_add_ps(a, b); }

struct group_stats { __m512 low, high, sum; }; /* lane = token */

INLINE struct group_stats tile_stats(const __m512 v[NT])
{
    __m512 low[GROUPS], high[GROUPS], sum[GROUPS];
    __m512 top = _mm512_set1_ps(ACT_FAR), bottom = _mm512_set1_ps(-ACT_FAR);
UNROLL
    for (int g = 0; g < GROUPS; g++) {
        __m512 lo[4], hi[4];
UNROLL
        for (int t = 0; t < 4; t++) lo[t] = _mm512_min_ps(v[4 * g + t], top), hi[t] = _mm512_max_ps(v[4 * g + t], bottom); /* drops NaNs */
        low[g] = fold_tokens(lo, op_min), high[g] = fold_tokens(hi, op_max), sum[g] = fold_tokens(v + 4 * g, op_add);
    }
    return (struct group_stats){ .low = op_max(fold_lanes(low, op_min), bottom), .high = op_min(fold_lanes(high, op_max), top),
                                 .sum = fold_lanes(sum, op_add) };
}

/* 16 columns to 0..254. No clamp: the product cannot round past 254 but where v is beyond ACT_FAR, and saturates then; NaN and infinity become
 * INT32_MIN, which the packs saturate to 0. */
INLINE __m512i tile_codes(__m512 v, float low, float inv)
{
    return _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_sub_ps(v, _mm512_set1_ps(low)), _mm512_set1_ps(inv)));
}

/* v: four tokens at four column groups, one column group a lane */
INLINE void store_lanes(uint8_t *a, __m512i v)
{
    _mm_storeu_si128((__m128i *)a, _mm512_castsi512_si128(v));
    _mm_storeu_si128((__m128i *)(a + 4 * NT), _mm512_extracti32x4_epi32(v, 1));
    _mm_storeu_si128((__m128i *)(a + 8 * NT), _mm512_extracti32x4_epi32(v, 2));
    _mm_storeu_si128((__m128i *)(a + 12 * NT), _mm512_extracti32x4_epi32(v, 3));
}

INLINE void quant_body(struct act_tile to, int64_t cols, const float *const *x, int n)
{
    const __mmask16 tokens = (1 << NT) - 1;
    for (int64_t at = 0; at < cols; at += 16, to.a += 16 * NT, to.d += NT, to.o += NT, to.sum += NT) {
        __m512 v[NT];
UNROLL
        for (int t = 0; t < NT; t++) v[t] = t < n ? load_ps(x[t] + at) : _mm512_setzero_ps();
        struct group_stats s = tile_stats(v);
        __m512 range = _mm512_sub_ps(s.high, s.low), span = _mm512_set1_ps(254.0f);
        __mmask16 wide = _mm512_cmp_ps_mask(range, _mm512_set1_ps(ACT_RANGE_MIN), _CMP_GE_OQ);
        __m512 d = _mm512_maskz_div_ps(wide, range, span);
        _Alignas(64) float low[16], inv[16];
        _mm512_store_ps(low, s.low);
        _mm512_store_ps(inv, _mm512_maskz_div_ps(wide, span, range));
        _mm512_mask_storeu_ps(to.d, tokens, d);
        _mm512_mask_storeu_ps(to.o, tokens, _mm512_sub_ps(s.low, d));
        _mm512_mask_storeu_ps(to.sum, tokens, s.sum);
UNROLL
        for (int g = 0; g < GROUPS; g++) {
            int live = n - 4 * g < 0 ? 0 : n - 4 * g < 4 ? n - 4 * g : 4;
            __m512i one = _mm512_maskz_set1_epi32((__mmask16)(((1 << live) - 1) * 0x1111), 0x01010101), q[4];
UNROLL
            for (int t = 0; t < 4; t++) q[t] = tile_codes(v[4 * g + t], low[4 * g + t], inv[4 * g + t]);
            q[0] = _mm512_packus_epi16(_mm512_packs_epi32(q[0], q[1]), _mm512_packs_epi32(q[2], q[3]));
            store_lanes(to.a + 16 * g, _mm512_adds_epu8(q[0], one));
        }
    }
}

static void quant_planes(const struct kernels *k, const struct act_tile *to, int64_t cols, const float *const *x, int n)
{
    assert(k->tile_tokens == NT && cols % 16 == 0 && n >= 1 && n <= NT);
    if (n == NT) quant_body(*to, cols, x, NT);
    else quant_body(*to, cols, x, n);
}

/* ---- words ---- */

/* The units of 256 columns and their reciprocals. Elements that are not finite do not count. */
INLINE void wide_units(float unit[NT], float inv[NT], const float *const *x, int n, int64_t at, int64_t cols)
{
    for (int t = 0; t < NT; t++) {
        __m512 m = _mm512_set1_ps(ACT_RANGE_MIN), infinite = _mm512_set1_ps(__builtin_inff()); /* below it the reciprocal would not be finite */
        for (int64_t c = 0; t < n && c < cols; c += 16) {
            __m512 v = _mm512_abs_ps(load_ps(x[t] + at + c));
            m = _mm512_mask_max_ps(m, _mm512_cmp_ps_mask(v, infinite, _CMP_LT_OQ), m, v);
        }
        float top = _mm512_reduce_max_ps(m);
        unit[t] = top / WIDE_MAX;
        inv[t] = WIDE_MAX / top;
    }
}

/* Four columns in each 128-bit lane: words 0 2 1 3 of tokens a, then of b */
INLINE __m512i words_of_two(__m512i a, __m512i b)
{
    __m512i order = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15));
    return _mm512_shuffle_epi8(_mm512_packs_epi32(a, b), order);
}

/* Dwords 0 and 2 (odd: 1 and 3) of each lane of a, then of b */
INLINE __m512i dwords_of(__m512i a, __m512i b, bool odd)
{
    __m512 x = _mm512_castsi512_ps(a), y = _mm512_castsi512_ps(b);
    return _mm512_castps_si512(odd ? _mm512_shuffle_ps(x, y, 0xdd) : _mm512_shuffle_ps(x, y, 0x88));
}

INLINE void store_words(int16_t *y, __m512i v)
{
    _mm_storeu_si128((__m128i *)y, _mm512_castsi512_si128(v));
    _mm_storeu_si128((__m128i *)(y + 4 * NT), _mm512_extracti32x4_epi32(v, 1));
    _mm_storeu_si128((__m128i *)(y + 8 * NT), _mm512_extracti32x4_epi32(v, 2));
    _mm_storeu_si128((__m128i *)(y + 12 * NT), _mm512_extracti32x4_epi32(v, 3));
}

/* 16 columns; the sums go to `sum`, and are returned */
INLINE __m512 put_words(int16_t *y, float *sum, const float *const *x, int n, int64_t at, const float inv[16])
{
    __m512 sums[GROUPS];
UNROLL
    for (int g = 0; g < GROUPS; g++, y += 8) {
        __m512 v[4];
        __m512i q[4];
UNROLL
        for (int t = 0; t < 4; t++) {
            v[t] = 4 * g + t < n ? load_ps(x[4 * g + t] + at) : _mm512_setzero_ps();
            q[t] = _mm512_cvtps_epi32(_mm512_mul_ps(v[t], _mm512_set1_ps(inv[4 * g + t])));
        }
        sums[g] = fold_tokens(v, op_add);
        __m512i a = words_of_two(q[0], q[1]), b = words_of_two(q[2], q[3]);
        store_words(y, dwords_of(a, b, false));
        store_words(y + 2 * NT, dwords_of(a, b, true));
    }
    __m512 s = _mm512_mul_ps(fold_lanes(sums, op_add), load_ps(inv));
    _mm512_mask_storeu_ps(sum, (1 << NT) - 1, s);
    return s;
}

static void quant_wide(const struct kernels *k, const struct act_wide *to, int64_t cols, const float *const *x, int n)
{
    assert(k->tile_tokens == NT && cols % 32 == 0 && n >= 1 && n <= NT);
    struct act_wide w = *to;
    _Alignas(64) float inv[16] = { 0 };
    for (int64_t at = 0; at < cols; at += 32, w.y += 32 * NT, w.sum += 2 * NT, w.sum32 += NT) {
        if (at % WIDE_SPAN == 0) {
            wide_units(w.unit, inv, x, n, at, min_i64(WIDE_SPAN, cols - at));
            w.unit += NT;
        }
        __m512 s0 = put_words(w.y, w.sum, x, n, at, inv), s1 = put_words(w.y + 16 * NT, w.sum + NT, x, n, at + 16, inv);
        _mm512_mask_storeu_ps(w.sum32, (1 << NT) - 1, _mm512_add_ps(s0, s1));
    }
}

void kernels_init_avx512_act(struct kernels *k)
{
    k->quant_row = quant_row;
    k->quant_planes = quant_planes;
    k->quant_wide = quant_wide;
}
