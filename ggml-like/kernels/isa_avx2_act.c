/* arch: x86_64  cflags: -mavx2 -mfma -mf16c */
/* isa_avx2_act - activations for AVX2: one row for rowdot, tiles of 4 tokens. */
#include "ggml-like/kernels/avx2_act_tmpl.h"

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

/* 256 columns in the order of an act_eight, whatever is past the last one */
INLINE void blocks_side_by_side(int8_t to[8][8][4], const int8_t *from)
{
    __m256i v[8], a[8];
    for (int i = 0; i < 8; i++) v[i] = _mm256_loadu_si256((const __m256i *)(const void *)(from + 32 * i));
    for (int i = 0; i < 8; i += 4) {
        __m256i b = _mm256_unpacklo_epi32(v[i], v[i + 1]), c = _mm256_unpackhi_epi32(v[i], v[i + 1]);
        __m256i d = _mm256_unpacklo_epi32(v[i + 2], v[i + 3]), e = _mm256_unpackhi_epi32(v[i + 2], v[i + 3]);
        a[i] = _mm256_unpacklo_epi64(b, d), a[i + 1] = _mm256_unpackhi_epi64(b, d);
        a[i + 2] = _mm256_unpacklo_epi64(c, e), a[i + 3] = _mm256_unpackhi_epi64(c, e);
    }
    for (int r = 0; r < 4; r++) {
        _mm256_storeu_si256((__m256i *)(void *)to[r], _mm256_permute2x128_si256(a[r], a[r + 4], 0x20));
        _mm256_storeu_si256((__m256i *)(void *)to[r + 4], _mm256_permute2x128_si256(a[r], a[r + 4], 0x31));
    }
}

static void quant_row(struct act_row *row, const float *x, int64_t k)
{
    assert(k % 32 == 0);
    row->k = k;
    for (int64_t at = 0; at < k; at += ACT_ROW_SPAN) {
        int64_t end = min_i64(k, at + ACT_ROW_SPAN);
        float max = magnitude(x + at, end - at);
        bool flat = max < ACT_RANGE_MIN;
        __m256 inv = _mm256_set1_ps(flat ? 0.0f : ACT_ROW_MAX / max);
        for (int64_t c = at; c < end; c += 32) {
            __m256i q[4], y[2];
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) q[i] = round_clamped(_mm256_mul_ps(_mm256_loadu_ps(x + c + 8 * i), inv), -ACT_ROW_MAX, ACT_ROW_MAX);
            pack_i16(q, y);
            row->d[c / 32] = flat ? 0.0f : max / ACT_ROW_MAX;
            store_row_block(row, c / 32, y);
        }
        struct act_eight *to = &row->eight[at / ACT_ROW_SPAN];
        blocks_side_by_side(to->hi, row->hi + at), blocks_side_by_side(to->lo, row->lo + at);
    }
}

void kernels_init_avx2_act(struct kernels *k)
{
    k->code_max_8 = CODE_MAX_8;
    k->quant_row = quant_row;
    init_tiles(k);
}
