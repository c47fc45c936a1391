/* immintrin - stands before the compiler's own header when tests/simde.sh builds the AVX-512, AVX-VNNI and AMX levels for a CPU without: the 512-bit
 * intrinsics become those of SIMDe, and those that SIMDe 0.8.2 lacks or gets wrong (masked loads and stores touch all lanes) are loops. */
#pragma once
#include_next <immintrin.h>
#ifdef __clang__
#define __mmask64 simde__mmask64
#endif
#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>
#include <stdint.h>
#include <string.h>

/* AVX-VNNI is the 256-bit form of AVX-512 VNNI under other names. */
#define _mm256_dpbusd_avx_epi32 simde_mm256_dpbusd_epi32
#define _mm256_dpwssd_avx_epi32 simde_mm256_dpwssd_epi32

/* lane i of the result, of type To, is lane i of v, of type From */
#define SHIM_CONVERT(name, result, To, source, From, lanes)    \
    static inline result shim_##name(source v)                 \
    {                                                          \
        From in[lanes];                                        \
        To out[lanes];                                         \
        result r;                                              \
        memcpy(in, &v, sizeof in);                             \
        for (int i = 0; i < (lanes); i++) out[i] = (To)in[i];  \
        memcpy(&r, out, sizeof out);                           \
        return r;                                              \
    }
SHIM_CONVERT(cvtepi32_epi16, __m256i, int16_t, __m512i, int32_t, 16)
SHIM_CONVERT(cvtepi8_epi32, __m512i, int32_t, __m128i, int8_t, 16)
SHIM_CONVERT(cvtepu8_epi32, __m512i, int32_t, __m128i, uint8_t, 16)
SHIM_CONVERT(cvtepu8_epi16, __m512i, int16_t, __m256i, uint8_t, 32)
#undef SHIM_CONVERT

static inline __m512 shim_movehdup_ps(__m512 v)
{
    float x[16];
    memcpy(x, &v, sizeof x);
    for (int i = 0; i < 16; i += 2) x[i] = x[i + 1];
    memcpy(&v, x, sizeof x);
    return v;
}

static inline int shim_reduce_add_epi32(__m512i v)
{
    int32_t x[16], sum = 0;
    memcpy(x, &v, sizeof x);
    for (int i = 0; i < 16; i++) sum += x[i];
    return sum;
}

static inline __m512i shim_maskz_loadu_epi16(uint32_t mask, const void *p)
{
    int16_t lane[32] = { 0 };
    __m512i v;
    for (int i = 0; i < 32; i++)
        if (mask >> i & 1) memcpy(&lane[i], (const int16_t *)p + i, sizeof lane[i]);
    memcpy(&v, lane, sizeof v);
    return v;
}

static inline __m512 shim_maskz_loadu_ps(unsigned mask, const float *p)
{
    float x[16];
    __m512 v;
    for (int i = 0; i < 16; i++) x[i] = mask >> i & 1 ? p[i] : 0.0f;
    memcpy(&v, x, sizeof x);
    return v;
}

static inline void shim_mask_storeu_ps(float *p, unsigned mask, __m512 v)
{
    float x[16];
    memcpy(x, &v, sizeof x);
    for (int i = 0; i < 16; i++)
        if (mask >> i & 1) p[i] = x[i];
}

static inline __m512i shim_mask_sub_epi16(__m512i v, uint32_t mask, __m512i a, __m512i b)
{
    int16_t r[32], x[32], y[32];
    memcpy(r, &v, sizeof r), memcpy(x, &a, sizeof x), memcpy(y, &b, sizeof y);
    for (int i = 0; i < 32; i++)
        if (mask >> i & 1) r[i] = (int16_t)(x[i] - y[i]);
    memcpy(&v, r, sizeof r);
    return v;
}

static inline __m512i shim_mulhi_epu16(__m512i a, __m512i b)
{
    uint16_t x[32], y[32];
    memcpy(x, &a, sizeof x), memcpy(y, &b, sizeof y);
    for (int i = 0; i < 32; i++) x[i] = (uint16_t)((uint32_t)x[i] * y[i] >> 16);
    memcpy(&a, x, sizeof x);
    return a;
}

static inline __m256i shim_cvtps_ph(__m512 v)
{
    __m256 half[2];
    memcpy(half, &v, sizeof half);
    return _mm256_set_m128i(_mm256_cvtps_ph(half[1], _MM_FROUND_TO_NEAREST_INT), _mm256_cvtps_ph(half[0], _MM_FROUND_TO_NEAREST_INT));
}

static inline __m512d shim_cvtps_pd(__m256 v)
{
    float in[8];
    double out[8];
    __m512d r;
    memcpy(in, &v, sizeof in);
    for (int i = 0; i < 8; i++) out[i] = (double)in[i];
    memcpy(&r, out, sizeof out);
    return r;
}

/* As the CPU does it: products of odd columns first, each sum rounded, no denormals. */
static inline float shim_no_denormal(float x) { return x < 0x1p-126f && x > -0x1p-126f ? 0.0f : x; }

static inline float shim_of_bf16(uint16_t h)
{
    uint32_t bits = (uint32_t)h << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return shim_no_denormal(x);
}

static inline __m512 shim_dpbf16_ps(__m512 sum, __m512i a, __m512i b)
{
    uint16_t x[32], y[32];
    float s[16];
    memcpy(x, &a, sizeof x), memcpy(y, &b, sizeof y), memcpy(s, &sum, sizeof s);
    for (int i = 0; i < 16; i++)
        for (int j = 1; j >= 0; j--) s[i] = shim_no_denormal(s[i] + shim_of_bf16(x[2 * i + j]) * shim_of_bf16(y[2 * i + j]));
    memcpy(&sum, s, sizeof sum);
    return sum;
}

static inline __m512i shim_cvtne2ps_pbh(__m512 high, __m512 low)
{
    uint16_t h[32];
    uint32_t x[32];
    __m512i r;
    memcpy(x, &low, sizeof low), memcpy(x + 16, &high, sizeof high);
    for (int i = 0; i < 32; i++) {
        uint32_t rest = x[i] & 0x7fffffff, up = x[i] + 0x7fff + (x[i] >> 16 & 1);
        h[i] = (uint16_t)((rest > 0x7f800000 ? x[i] | 0x400000 : rest < 0x800000 ? x[i] & 0x80000000 : up) >> 16);
    }
    memcpy(&r, h, sizeof r);
    return r;
}

/* SIMDe keeps three bits of the fraction */
static inline __m512 shim_round_to_zero(__m512 v)
{
    __m256 half[2];
    memcpy(half, &v, sizeof half);
    for (int i = 0; i < 2; i++) half[i] = _mm256_round_ps(half[i], _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC);
    memcpy(&v, half, sizeof v);
    return v;
}

static inline void shim_i32scatter_epi32(void *p, __m512i at, __m512i v, int scale)
{
    int32_t lane[16], from[16];
    memcpy(lane, &at, sizeof lane), memcpy(from, &v, sizeof from);
    for (int i = 0; i < 16; i++) memcpy((char *)p + (int64_t)lane[i] * scale, &from[i], sizeof from[i]);
}

/* ---- AMX: registers of a thread, 16 rows of 64 bytes whatever the shapes ---- */

static _Thread_local unsigned char shim_tmm[8][16][64], shim_shapes[64];

static inline void shim_tile_loadd(int t, const void *p, int64_t stride)
{
    for (int i = 0; i < 16; i++) memcpy(shim_tmm[t][i], (const char *)p + i * stride, 64);
}

static inline void shim_tile_stored(int t, void *p, int64_t stride)
{
    for (int i = 0; i < 16; i++) memcpy((char *)p + i * stride, shim_tmm[t][i], 64);
}

/* As the CPU does it: even and odd columns of this product have sums of their own from 0 on, which are added to what is there. */
static inline void shim_tile_dpbf16ps(int sum, int a, int b)
{
    float s[16][16];
    uint16_t x[16][32], y[16][32];
    memcpy(s, shim_tmm[sum], sizeof s), memcpy(x, shim_tmm[a], sizeof x), memcpy(y, shim_tmm[b], sizeof y);
    for (int m = 0; m < 16; m++) {
        float part[32] = { 0 };
        for (int k = 0; k < 16; k++)
            for (int n = 0; n < 32; n++) part[n] = shim_no_denormal(__builtin_fmaf(shim_of_bf16(x[m][2 * k + n % 2]), shim_of_bf16(y[k][n]), part[n]));
        for (int n = 0; n < 16; n++) s[m][n] = shim_no_denormal(s[m][n] + (part[2 * n] + part[2 * n + 1]));
    }
    memcpy(shim_tmm[sum], s, sizeof s);
}

#undef _tile_loadd
#define _tile_loadd shim_tile_loadd
#undef _tile_stored
#define _tile_stored shim_tile_stored
#undef _tile_zero
#define _tile_zero(t) memset(shim_tmm[t], 0, sizeof shim_tmm[t])
#undef _tile_dpbf16ps
#define _tile_dpbf16ps shim_tile_dpbf16ps
#define _tile_loadconfig(p) memcpy(shim_shapes, p, sizeof shim_shapes)
#define _tile_storeconfig(p) memcpy(p, shim_shapes, sizeof shim_shapes)

#undef _mm512_i32scatter_epi32
#define _mm512_i32scatter_epi32 shim_i32scatter_epi32
#define __m512bh __m512i
#undef _mm512_dpbf16_ps
#define _mm512_dpbf16_ps shim_dpbf16_ps
#undef _mm512_cvtne2ps_pbh
#define _mm512_cvtne2ps_pbh shim_cvtne2ps_pbh
#undef _mm512_roundscale_ps
#define _mm512_roundscale_ps(v, how) ((how) == (_MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC) ? shim_round_to_zero(v) : _mm512_setzero_ps())
#undef _mm512_cvtps_ph
#undef _mm512_cvtps_pd
#define _mm512_cvtps_pd shim_cvtps_pd
#define _mm512_cvtps_ph(v, rounding) shim_cvtps_ph(v)
#define _mm512_cvtepi32_epi16 shim_cvtepi32_epi16
#define _mm512_cvtepi8_epi32 shim_cvtepi8_epi32
#define _mm512_cvtepu8_epi32 shim_cvtepu8_epi32
#define _mm512_cvtepu8_epi16 shim_cvtepu8_epi16
#define _mm512_movehdup_ps shim_movehdup_ps
#define _mm512_reduce_add_epi32 shim_reduce_add_epi32
#undef _mm512_maskz_loadu_epi16
#define _mm512_maskz_loadu_epi16 shim_maskz_loadu_epi16
#undef _mm512_maskz_loadu_ps
#define _mm512_maskz_loadu_ps shim_maskz_loadu_ps
#undef _mm512_mask_storeu_ps
#define _mm512_mask_storeu_ps shim_mask_storeu_ps
#undef _mm512_mask_sub_epi16
#define _mm512_mask_sub_epi16 shim_mask_sub_epi16
#undef _mm512_mulhi_epu16
#define _mm512_mulhi_epu16 shim_mulhi_epu16
