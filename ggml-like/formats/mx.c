/* mx - four-bit floats (e2m1: 0 0.5 1 1.5 2 3 4 6 and their negatives) under a small float scale. Source of the layouts: ggml-common.h;
 * OCP Microscaling Formats 1.0.
 *   mxfp4   17 bytes, 32 weights   e qs[16]      scale 2^(e - 127); low nibble = weight i, high = weight i + 16
 *   nvfp4   36 bytes, 64 weights   d[4] qs[32]   ue4m3 scale of 16 weights: 4 bits exponent with bias 7, 3 bits mantissa; 0x7f stands
 *                                                for 0, the top bit is ignored. Weights 16s + i, 16s + 8 + i: nibbles of qs[8s + i]
 * Codes are twice the e2m1 value, so scales are halved. Both zeros of e2m1 have the code 0. e = 255, NaN in the specification, is 2^128 as
 * in the reference: its large codes overflow to infinity.
 * struct parts: mxfp4 d = e; nvfp4 sc[0..3] = d[]. */
#include "ggml-like/formats/formats.h"
#include <string.h>

/* 2^(e - 128) */
static float e8m0_half(uint8_t e)
{
    uint32_t bits = e < 2 ? 0x00200000u << e : (uint32_t)(e - 1) << 23; /* the first two are denormal */
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* half of the value */
static float ue4m3_half(uint8_t x)
{
    int exponent = x >> 3 & 15, mantissa = x & 7;
    if (x == 0x7f) return 0.0f;
    if (exponent == 0) return (float)mantissa * 0x1p-10f;
    return (float)((8 + mantissa) << exponent) * 0x1p-11f; /* (1 + m/8) * 2^(e - 7) / 2 */
}

static void join_mxfp4(const struct parts *p, void *block)
{
    struct block_mxfp4 *b = block;
    b->e = (uint8_t)p->d;
    for (int i = 0; i < 16; i++) b->qs[i] = (uint8_t)(p->q[i] | p->q[i + 16] << 4);
}

static void split_mxfp4(const void *block, struct parts *p)
{
    const struct block_mxfp4 *b = block;
    *p = (struct parts){ .d = b->e };
    for (int i = 0; i < 16; i++) p->q[i] = b->qs[i] & 15, p->q[i + 16] = b->qs[i] >> 4;
}

static void unpack_mxfp4(const void *block, struct codes *out)
{
    const struct block_mxfp4 *b = block;
    for (int i = 0; i < 16; i++) out->code[i] = e2m1_levels[b->qs[i] & 15], out->code[i + 16] = e2m1_levels[b->qs[i] >> 4];
    out->scale[0] = e8m0_half(b->e), out->min[0] = 0.0f;
}

static void join_nvfp4(const struct parts *p, void *block)
{
    struct block_nvfp4 *b = block;
    memcpy(b->d, p->sc, sizeof b->d);
    for (int i = 0; i < 32; i++) b->qs[i] = (uint8_t)(p->q[i / 8 * 16 + i % 8] | p->q[i / 8 * 16 + 8 + i % 8] << 4);
}

static void split_nvfp4(const void *block, struct parts *p)
{
    const struct block_nvfp4 *b = block;
    *p = (struct parts){ .d = 0 };
    memcpy(p->sc, b->d, sizeof b->d);
    for (int i = 0; i < 64; i++) p->q[i] = b->qs[i / 16 * 8 + i % 8] >> i / 8 % 2 * 4 & 15;
}

static void unpack_nvfp4(const void *block, struct codes *out)
{
    const struct block_nvfp4 *b = block;
    for (int i = 0; i < 64; i++) out->code[i] = e2m1_levels[b->qs[i / 16 * 8 + i % 8] >> i / 8 % 2 * 4 & 15];
    for (int g = 0; g < 4; g++) out->scale[g] = ue4m3_half(b->d[g]), out->min[g] = 0.0f;
}

const struct dtype dtype_mxfp4 = {
    .name = "mxfp4", .gguf_name = "MXFP4", .gguf_id = GGUF_MXFP4, .block_len = 32, .block_bytes = sizeof(struct block_mxfp4),
    .group_len = 32, .code_max = 12, .unpack = unpack_mxfp4, .join = join_mxfp4, .split = split_mxfp4,
};
const struct dtype dtype_nvfp4 = {
    .name = "nvfp4", .gguf_name = "NVFP4", .gguf_id = GGUF_NVFP4, .block_len = 64, .block_bytes = sizeof(struct block_nvfp4),
    .group_len = 16, .code_max = 12, .unpack = unpack_nvfp4, .join = join_nvfp4, .split = split_nvfp4,
};
