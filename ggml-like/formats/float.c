/* float - rows of one number per element: F32, F16, BF16, F64, I8, I16, I32, I64, and the scalar conversions behind them.
 *   F32   4 bytes, IEEE single          F16  2 bytes, IEEE half: 1 sign, 5 exponent, 10 mantissa bits
 *   BF16  2 bytes, the upper half of an F32 F64  8 bytes, IEEE double
 *   I8 I16 I32 I64: two's complement
 * Everything works on the bits, so results do not depend on rounding mode or on flush-to-zero state. Sources may be unaligned. */
#include "ggml-like/formats/formats.h"
#include <math.h>
#include <string.h>

static uint32_t f32_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static float f32_from_bits(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

float f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exp = h >> 10 & 31, man = h & 0x3ff;
    if (exp == 31) return f32_from_bits(sign | 0x7f800000 | man << 13);
    if (exp != 0) return f32_from_bits(sign | (exp + 112) << 23 | man << 13);
    float f = (float)man * 0x1p-24f; /* a subnormal half is a normal float: exact, no denormal on the way */
    return sign ? -f : f;
}

uint16_t f32_to_f16(float f)
{
    uint32_t u = f32_bits(f), sign = u >> 16 & 0x8000, abs = u & 0x7fffffff;
    if (abs > 0x7f800000) return (uint16_t)(sign | 0x7e00 | (abs >> 13 & 0x3ff)); /* quiet NaN, as vcvtps2ph */
    if (abs >= 0x47800000) return (uint16_t)(sign | 0x7c00);                      /* from 65536 on: infinity */
    if (abs >= 0x38800000) /* normal half; a carry out of the mantissa moves into the exponent, up to infinity */
        return (uint16_t)(sign | (abs - (112u << 23) + 0xfff + (abs >> 13 & 1)) >> 13);
    if (abs <= 0x33000000) return (uint16_t)sign; /* up to 2^-25, the tie included: zero */
    uint32_t man = (abs & 0x7fffff) | 0x800000, shift = 126 - (abs >> 23), half = 1u << (shift - 1);
    uint32_t rest = man & (2 * half - 1), r = man >> shift;
    r += rest > half || (rest == half && (r & 1));
    return (uint16_t)(sign | r);
}

float bf16_to_f32(uint16_t h) { return f32_from_bits((uint32_t)h << 16); }

uint16_t f32_to_bf16(float f)
{
    uint32_t u = f32_bits(f);
    if ((u & 0x7fffffff) > 0x7f800000) return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

static void f32_rows_to_f32(const void *src, float *dst, int64_t n) { memcpy(dst, src, (size_t)n * sizeof *dst); }
static void pack_f32(const float *x, void *block) { memcpy(block, x, sizeof *x); }

static void f16_rows_to_f32(const void *src, float *dst, int64_t n)
{
    const uint8_t *p = src;
    for (int64_t i = 0; i < n; i++) {
        uint16_t h;
        memcpy(&h, p + 2 * i, sizeof h);
        dst[i] = f16_to_f32(h);
    }
}

static void f32_rows_to_f16(const float *src, void *dst, int64_t n)
{
    uint8_t *p = dst;
    for (int64_t i = 0; i < n; i++) {
        uint16_t h = f32_to_f16(src[i]);
        memcpy(p + 2 * i, &h, sizeof h);
    }
}

static void pack_f16(const float *x, void *block) { f32_rows_to_f16(x, block, 1); }

static void bf16_rows_to_f32(const void *src, float *dst, int64_t n)
{
    const uint8_t *p = src;
    for (int64_t i = 0; i < n; i++) {
        uint16_t h;
        memcpy(&h, p + 2 * i, sizeof h);
        dst[i] = bf16_to_f32(h);
    }
}

static void f32_rows_to_bf16(const float *src, void *dst, int64_t n)
{
    uint8_t *p = dst;
    for (int64_t i = 0; i < n; i++) {
        uint16_t h = f32_to_bf16(src[i]);
        memcpy(p + 2 * i, &h, sizeof h);
    }
}

static void pack_bf16(const float *x, void *block) { f32_rows_to_bf16(x, block, 1); }

static void f64_rows_to_f32(const void *src, float *dst, int64_t n)
{
    const uint8_t *p = src;
    for (int64_t i = 0; i < n; i++) {
        double v;
        memcpy(&v, p + 8 * i, sizeof v);
        dst[i] = (float)v;
    }
}

static void pack_f64(const float *x, void *block)
{
    double v = (double)*x;
    memcpy(block, &v, sizeof v);
}

/* Integers, little-endian. pack rounds to nearest, ties to even, and saturates; NaN becomes 0.
 * `above` = the first float beyond the range. */
#define INTEGER(type, least, most, above)                                             \
    static void type##_rows_to_f32(const void *src, float *dst, int64_t n)            \
    {                                                                                 \
        const uint8_t *p = src;                                                       \
        for (int64_t i = 0; i < n; i++) {                                             \
            type##_t v;                                                               \
            memcpy(&v, p + sizeof v * (size_t)i, sizeof v);                           \
            dst[i] = (float)v;                                                        \
        }                                                                             \
    }                                                                                 \
    static void pack_##type(const float *x, void *block)                              \
    {                                                                                 \
        float f = rintf(*x);                                                          \
        type##_t v = 0;                                                               \
        if (f == f) v = f >= (above) ? (most) : f < -(above) ? (least) : (type##_t)f;  \
        memcpy(block, &v, sizeof v);                                                  \
    }
INTEGER(int8, INT8_MIN, INT8_MAX, 0x1p7f)
INTEGER(int16, INT16_MIN, INT16_MAX, 0x1p15f)
INTEGER(int32, INT32_MIN, INT32_MAX, 0x1p31f)
INTEGER(int64, INT64_MIN, INT64_MAX, 0x1p63f)

const struct dtype dtype_f32 = {
    .name = "f32", .gguf_name = "F32", .gguf_id = GGUF_F32, .block_len = 1, .block_bytes = 4,
    .to_f32 = f32_rows_to_f32, .pack = pack_f32,
};
const struct dtype dtype_f16 = {
    .name = "f16", .gguf_name = "F16", .gguf_id = GGUF_F16, .block_len = 1, .block_bytes = 2,
    .to_f32 = f16_rows_to_f32, .from_f32 = f32_rows_to_f16, .pack = pack_f16,
};
const struct dtype dtype_bf16 = {
    .name = "bf16", .gguf_name = "BF16", .gguf_id = GGUF_BF16, .block_len = 1, .block_bytes = 2,
    .to_f32 = bf16_rows_to_f32, .from_f32 = f32_rows_to_bf16, .pack = pack_bf16,
};
const struct dtype dtype_f64 = {
    .name = "f64", .gguf_name = "F64", .gguf_id = GGUF_F64, .block_len = 1, .block_bytes = 8,
    .to_f32 = f64_rows_to_f32, .pack = pack_f64,
};
const struct dtype dtype_i8 = {
    .name = "i8", .gguf_name = "I8", .gguf_id = GGUF_I8, .block_len = 1, .block_bytes = 1,
    .to_f32 = int8_rows_to_f32, .pack = pack_int8,
};
const struct dtype dtype_i16 = {
    .name = "i16", .gguf_name = "I16", .gguf_id = GGUF_I16, .block_len = 1, .block_bytes = 2,
    .to_f32 = int16_rows_to_f32, .pack = pack_int16,
};
const struct dtype dtype_i32 = {
    .name = "i32", .gguf_name = "I32", .gguf_id = GGUF_I32, .block_len = 1, .block_bytes = 4,
    .to_f32 = int32_rows_to_f32, .pack = pack_int32,
};
const struct dtype dtype_i64 = {
    .name = "i64", .gguf_name = "I64", .gguf_id = GGUF_I64, .block_len = 1, .block_bytes = 8,
    .to_f32 = int64_rows_to_f32, .pack = pack_int64,
};
