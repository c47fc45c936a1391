/* avx2_act_tmpl - activations in tiles of NT tokens, in the blocks of avx2_tiles.h, for AVX2 and AVX-VNNI. */
#pragma once
#include "ggml-like/kernels/avx2_tiles.h"
#include <assert.h>
#include <math.h>

INLINE __m128 fold_max(__m256 v) { return _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1)); }

static const float unit_max_8 = 32000.0f, unit_max_15 = 32767.0f;

/* Largest finite magnitude of n floats (n % 32 == 0). */
INLINE float magnitude(const float *x, int64_t n)
{
    __m256 m[4], bits = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff)), inf = _mm256_set1_ps(__builtin_inff());
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) m[i] = _mm256_setzero_ps();
    for (int64_t at = 0; at < n; at += 32)
#pragma GCC unroll 4
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
struct span { const float *x[SLOTS]; float inv[SLOTS], max[SLOTS]; };

static struct span span_of(const float *const *x, int n, int64_t at, int64_t cols, float unit_max, float *unit)
{
    struct span s;
    for (int t = 0; t < SLOTS; t++) {
        s.x[t] = x[t < n ? t : 0] + at;
        s.max[t] = t < n ? fmaxf(magnitude(s.x[t], cols), ACT_RANGE_MIN) : 0.0f;
        s.inv[t] = t < n ? unit_max / s.max[t] : 0.0f;
        if (t < NT) unit[t] = s.max[t] / unit_max;
    }
    return s;
}

INLINE __m256 fold2(__m256 a, __m256 b, bool max) /* 128-bit lanes of a folded in the lower, of b in the upper one */
{
    __m256 c = _mm256_permute2f128_ps(a, b, 0x20), d = _mm256_permute2f128_ps(a, b, 0x31);
    return max ? _mm256_max_ps(c, d) : _mm256_min_ps(c, d);
}

INLINE __m256 fold_pairs(__m256 a, __m256 b, bool max) /* of both 128-bit lanes: two results of a, two of b */
{
    __m256 c = _mm256_shuffle_ps(a, b, 0x88), d = _mm256_shuffle_ps(a, b, 0xdd);
    return max ? _mm256_max_ps(c, d) : _mm256_min_ps(c, d);
}

INLINE void put_halves(void *low, void *high, __m256i v)
{
    _mm_storeu_si128(low, _mm256_castsi256_si128(v));
    _mm_storeu_si128(high, _mm256_extracti128_si256(v, 1));
}

/* sum[h][t] and sum32[t] = inv[t] * the sum of low[t] (h = 0), high[t] */
INLINE void put_sums(float *sum0, float *sum1, float *sum32, const __m256 low[4], const __m256 high[4], const float inv[4])
{
    __m256 f[4];
#pragma GCC unroll 4
    for (int t = 0; t < 4; t++) f[t] = _mm256_add_ps(_mm256_permute2f128_ps(low[t], high[t], 0x20), _mm256_permute2f128_ps(low[t], high[t], 0x31));
    __m256 s = _mm256_hadd_ps(_mm256_hadd_ps(f[0], f[1]), _mm256_hadd_ps(f[2], f[3]));
    s = _mm256_mul_ps(s, _mm256_broadcast_ps((const __m128 *)(const void *)inv));
    put_halves(sum0, sum1, _mm256_castps_si256(s));
    _mm_storeu_ps(sum32, _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1)));
}

/* dwords of four tokens: to[0] = dword 0 of each token in the lower half, dword 4 in the upper one; to[1] = 1 and 5 .. */
INLINE void transpose_tokens(const __m256i v[4], __m256i to[4])
{
    __m256i a = _mm256_unpacklo_epi32(v[0], v[1]), b = _mm256_unpackhi_epi32(v[0], v[1]);
    __m256i c = _mm256_unpacklo_epi32(v[2], v[3]), d = _mm256_unpackhi_epi32(v[2], v[3]);
    to[0] = _mm256_unpacklo_epi64(a, c), to[1] = _mm256_unpackhi_epi64(a, c);
    to[2] = _mm256_unpacklo_epi64(b, d), to[3] = _mm256_unpackhi_epi64(b, d);
}

/* The ranges of a token's D: its columns of lane 0 and 1, or the first and the last 16 (VNNI). Registers hold eight of them, of four tokens: token by
 * token, or first those of the first 16 columns. */
struct extremes { __m256 low[2], high[2]; }; /* of one token, by column modulo 8; [1] for VNNI */

INLINE struct extremes extremes_of(const __m256 v[4], float max)
{
    struct extremes e;
#pragma GCC unroll 2
    for (int h = 0; h < 1 + VNNI; h++) { /* a NaN leaves the first operand */
        e.low[h] = _mm256_min_ps(v[2 * h + 1], _mm256_min_ps(v[2 * h], _mm256_set1_ps(max)));
        e.high[h] = _mm256_max_ps(v[2 * h + 1], _mm256_max_ps(v[2 * h], _mm256_set1_ps(-max)));
#pragma GCC unroll 4
        for (int i = 2; i < 4 && !VNNI; i++) e.low[h] = _mm256_min_ps(v[i], e.low[h]), e.high[h] = _mm256_max_ps(v[i], e.high[h]);
    }
    return e;
}

INLINE __m256 fold_extremes(const struct extremes e[4], bool max)
{
#define OF(t, h) (max ? e[t].high[h] : e[t].low[h])
    if (!VNNI) return fold_pairs(fold2(OF(0, 0), OF(2, 0), max), fold2(OF(1, 0), OF(3, 0), max), max);
    __m256 a = fold_pairs(fold2(OF(0, 0), OF(0, VNNI), max), fold2(OF(1, 0), OF(1, VNNI), max), max);
    __m256 b = fold_pairs(fold2(OF(2, 0), OF(2, VNNI), max), fold2(OF(3, 0), OF(3, VNNI), max), max);
    return fold_pairs(a, b, max);
#undef OF
}

/* of v[0 .. 3] of four tokens, one float for each D */
INLINE __m256 spread(__m128 v)
{
    __m256 both = _mm256_castps128_ps256(v);
    return _mm256_permutevar8x32_ps(both, VNNI ? _mm256_setr_epi32(0, 1, 2, 3, 0, 1, 2, 3) : _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3));
}

/* A float of each D as what multiplies columns 0 .. 7 and 8 .. 15 (half 0), or the others, of token t */
INLINE __m256 of_columns(const float each[8], int t, int half)
{
    if (VNNI) return _mm256_broadcast_ss(each + 4 * half + t);
    return _mm256_permute_ps(_mm256_castpd_ps(_mm256_broadcast_sd((const double *)(const void *)(each + 2 * t))), 0x50); /* 0 0 1 1 0 0 1 1 */
}

INLINE void put_factors(struct act8 *to, int first, __m256i d, __m256i o)
{
    __m256i mid = _mm256_add_epi32(o, _mm256_slli_epi32(d, 7));
#ifdef VNNI_TILES
    mid = _mm256_sub_epi32(_mm256_setzero_si256(), mid);
    put_halves(to->dm[0][first], to->dm[1][first], _mm256_blend_epi16(d, _mm256_slli_epi32(mid, 16), 0xaa));
    __m128i last = _mm_slli_epi32(_mm256_extracti128_si256(mid, 1), 16);
    _mm_storeu_si128((__m128i *)(void *)to->minus_mid[first], _mm_blend_epi16(_mm256_castsi256_si128(mid), last, 0xaa));
#else
    put_halves(to->d[first], to->o[first], _mm256_permute4x64_epi64(_mm256_packs_epi32(d, o), 0xd8));
    _mm_storeu_si128((__m128i *)(void *)to->mid[first], _mm256_castsi256_si128(_mm256_permute4x64_epi64(_mm256_packs_epi32(mid, mid), 0xd8)));
#endif
}

/* D, o and mid of four tokens from the extremes in units; a = round(x * scale + start) */
INLINE void put_ranges(struct act8 *to, int first, __m256 low, __m256 high, __m256 inv, float scale[8], float start[8])
{
    __m256 floor = _mm256_floor_ps(low), range = _mm256_sub_ps(high, low);
    __m256i d = _mm256_cvttps_epi32(_mm256_mul_ps(_mm256_add_ps(range, _mm256_set1_ps(1.5f)), _mm256_set1_ps(1.0f / 254.0f)));
    d = _mm256_add_epi32(d, _mm256_set1_epi32(1)); /* 254 d > range + 1: the floor of low is at 1, high at most at 255 */
    __m256i o = _mm256_sub_epi32(_mm256_cvtps_epi32(floor), d);
    put_factors(to, first, d, o);
    __m256 r = _mm256_div_ps(_mm256_set1_ps(1.0f), _mm256_cvtepi32_ps(d));
    _mm256_store_ps(scale, _mm256_mul_ps(inv, r));
    _mm256_store_ps(start, _mm256_mul_ps(negated(_mm256_cvtepi32_ps(o)), r));
}

/* 32 codes of token t, dwords in the order 0 2 4 6 1 3 5 7. What is not finite becomes 1 here. */
INLINE __m256i codes8(const float *x, const float scale[8], const float start[8], int t)
{
    __m256i q[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        q[i] = _mm256_cvtps_epi32(_mm256_fmadd_ps(_mm256_loadu_ps(x + 8 * i), of_columns(scale, t, i / 2), of_columns(start, t, i / 2)));
    __m256i v = _mm256_packus_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
    return _mm256_max_epu8(v, _mm256_set1_epi8(1));
}

/* a = round(x * scale + start) for a block of four tokens: one of each for each D */
struct line { _Alignas(32) float scale[8], start[8]; };

/* Tokens first .. first + 3 of a block: all but the codes */
INLINE void put_factors8(struct act8 *to, const struct span *s, int first, int64_t at, __m256 inv, __m256 max, struct line *line)
{
    struct extremes e[4];
    __m256 sum[2][4];
    const float *const *x = s->x + first;
#pragma GCC unroll 4
    for (int t = 0; t < 4; t++) {
        __m256 v[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) v[i] = _mm256_loadu_ps(x[t] + at + 8 * i);
        e[t] = extremes_of(v, s->max[first + t]);
        sum[0][t] = _mm256_add_ps(v[0], v[1]), sum[1][t] = _mm256_add_ps(v[2], v[3]);
    }
    put_sums(to->sum[0] + first, to->sum[1] + first, to->sum32 + first, sum[0], sum[1], s->inv + first);
    __m256 lo = _mm256_mul_ps(_mm256_max_ps(fold_extremes(e, false), negated(max)), inv);
    __m256 hi = _mm256_mul_ps(_mm256_min_ps(fold_extremes(e, true), max), inv);
    put_ranges(to, first, lo, hi, inv, line->scale, line->start);
}

INLINE void put_codes8(struct act8 *to, const struct span *s, int first, int64_t at, const struct line *line)
{
    __m256i c[4], v[4];
#pragma GCC unroll 4
    for (int t = 0; t < 4; t++) c[t] = codes8(s->x[first + t] + at, line->scale, line->start, t);
    transpose_tokens(c, v);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) put_halves(to->a[2 * i][first], to->a[2 * i + 1][first], v[i]);
}

INLINE void put_block15(struct act15 *to, const struct span *s, int first, int64_t at)
{
    __m256 sum[2][4];
    __m256i y[2][4], q[4], v[4], order = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15));
#pragma GCC unroll 4
    for (int t = 0; t < 4; t++) {
        __m256 x[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            x[i] = _mm256_loadu_ps(s->x[first + t] + at + 8 * i);
            q[i] = _mm256_cvtps_epi32(_mm256_mul_ps(x[i], _mm256_set1_ps(s->inv[first + t])));
        }
        sum[0][t] = _mm256_add_ps(x[0], x[1]), sum[1][t] = _mm256_add_ps(x[2], x[3]);
#pragma GCC unroll 4
        for (int h = 0; h < 2; h++) y[h][t] = _mm256_shuffle_epi8(_mm256_packs_epi32(q[2 * h], q[2 * h + 1]), order);
    }
    put_sums(to->sum[0] + first, to->sum[1] + first, to->sum32 + first, sum[0], sum[1], s->inv + first);
#pragma GCC unroll 4
    for (int h = 0; h < 2; h++) { /* fours of columns: 0 2 in the lower half, 1 3 in the upper one */
        transpose_tokens(y[h], v);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            int pair = 8 * h + i / 2 * 4 + i % 2;
            put_halves(to->y[pair][first], to->y[pair + 2][first], v[i]);
        }
    }
}

/* Factors first, then codes: from the extremes of a block to its codes it is a long way, and no two blocks fit in what a core looks ahead. */
static void put_span8(struct act8 *to, const struct span *s, int first, int64_t cols, __m256 inv, __m256 max)
{
    struct line line[SPAN / BLOCK];
    for (int64_t c = 0; c < cols; c += BLOCK) put_factors8(to + c / BLOCK, s, first, c, inv, max, line + c / BLOCK);
    for (int64_t c = 0; c < cols; c += BLOCK) put_codes8(to + c / BLOCK, s, first, c, line + c / BLOCK);
}

/* Four tokens at a time, the last ones first: what they write beyond token NT - 1 is the next array's and written again. */
static void quant_tile(const struct kernels *k, struct act_panel *p, int64_t tile, const float *const *x, int n)
{
    assert(k->tile_tokens == NT && p->k % BLOCK == 0 && n >= 1 && n <= NT);
    uint8_t *to = p->data + (size_t)tile * p->tile_bytes;
    float *unit = (float *)(void *)(to + act_units_at(p->form, p->k));
    for (int64_t at = 0; at < p->k; at += SPAN, unit += NT) {
        int64_t cols = min_i64(SPAN, p->k - at);
        struct span s = span_of(x, n, at, cols, p->form == ACT_8 ? unit_max_8 : unit_max_15, unit);
        for (int first = SLOTS - 4; first >= 0; first -= 4) {
            __m256 inv = spread(_mm_loadu_ps(s.inv + first)), max = spread(_mm_loadu_ps(s.max + first));
            if (p->form == ACT_8) put_span8((struct act8 *)(void *)to, &s, first, cols, inv, max);
            else
                for (int64_t c = 0; c < cols; c += BLOCK) put_block15((struct act15 *)(void *)to + c / BLOCK, &s, first, c);
        }
        to += (size_t)(cols / BLOCK) * act_block_bytes(p->form);
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
            int a = b->a[i / 4][t][i % 4];
#ifdef VNNI_TILES
            int value = b->dm[i / 16][t][0] * (a - 128) - b->dm[i / 16][t][1];
#else
            int value = b->d[t][lane] * a + b->o[t][lane];
#endif
            v[c - k0] = (double)unit[c / SPAN * NT + t] * value;
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
#pragma GCC unroll 2
        for (int first = 0; first < NT; first += 4) {
            __m128 v[4];
#pragma GCC unroll 4
            for (int t = 0; t < 4; t++) v[t] = first + t < n ? _mm_loadu_ps(x[first + t] + at) : _mm_setzero_ps();
            _MM_TRANSPOSE4_PS(v[0], v[1], v[2], v[3]);
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) {
                if (NT - first >= 4) _mm_storeu_ps(to + i * NT + first, v[i]);
                else _mm_storel_pi((__m64 *)(void *)(to + i * NT + first), v[i]);
            }
        }
    }
    for (; at < p->k; at++)
        for (int t = 0; t < NT; t++) *to++ = t < n ? x[t][at] : 0.0f;
}

/* The slots of tiles */
INLINE void init_tiles(struct kernels *k)
{
    k->act_tile_bytes = act_tile_bytes;
    k->quant_tile = quant_tile;
    k->act_read = act_read;
    k->pack_tile_f32 = pack_tile_f32;
}
