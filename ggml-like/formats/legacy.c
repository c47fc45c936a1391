/* legacy - the formats with 32 weights, one scale and at most one minimum per block.
 *   bytes   0..1  2..3  ...                    (d, m: IEEE half; n = 16 bytes qs: low nibble = weight i, high nibble = weight i + 16)
 *   q4_0    d     qs[16]                       w = d * (q - 8)              code = q - 8
 *   q4_1    d     m     qs[16]                 w = d * q + m                code = q
 *   q5_0    d     qh[4] qs[16]                 w = d * (q - 16)             q = nibble + 16 * bit i of qh (u32), code = q - 16
 *   q5_1    d     m     qh[4]  qs[16]          w = d * q + m                code = q
 *   q8_0    d     qs[32] int8                  w = d * q                    code = q
 *   q8_1    d     s     qs[32] int8            w = d * q                    code = q; s = d * sum(q), ignored here
 * struct parts: d; dmin = m (q8_1: s); q unsigned, q8: the byte.
 * pack is round to nearest with the scale from the largest magnitude (q4_0, q5_0: the largest value gets the code -8 / -16, so that
 * the asymmetric range is used whole) or from min and max. It equals the reference quantizer of ggml (quantize_row_*_ref) bit for bit
 * on finite input; the codes of NaN and of blocks with infinities are defined but meaningless. */
#include "ggml-like/formats/formats.h"
#include <math.h>
#include <string.h>

static void set_scale(struct codes *out, uint16_t d) { out->scale[0] = f16_to_f32(d), out->min[0] = 0.0f; }

static void set_scale_min(struct codes *out, uint16_t d, uint16_t m) { out->scale[0] = f16_to_f32(d), out->min[0] = f16_to_f32(m); }

/* 32 codes of `nibble + 16 * bit + base` */
static void split_nibbles(struct codes *out, const uint8_t qs[16], uint32_t qh, int base)
{
    for (int i = 0; i < 16; i++) {
        out->code[i] = (int8_t)(((qs[i] & 15) | (qh >> i & 1) << 4) + base);
        out->code[i + 16] = (int8_t)(((qs[i] >> 4) | (qh >> (i + 16) & 1) << 4) + base);
    }
}

static uint32_t join_nibbles(uint8_t qs[16], const int q[32])
{
    uint32_t qh = 0;
    for (int i = 0; i < 16; i++) qs[i] = (uint8_t)((q[i] & 15) | (q[i + 16] & 15) << 4);
    for (int i = 0; i < 32; i++) qh |= (uint32_t)(q[i] >> 4) << i;
    return qh;
}

/* truncates v to 0..hi. Out of reach means that 1 / d overflowed: d is stored as 0 and the codes do not matter, the reference writes 0. */
static int clamp_code(float v, int hi)
{
    if (!(v > 0.0f && v < 256.0f)) return 0;
    return v >= (float)hi ? hi : (int)v;
}

/* codes 0..2*half-1 around half; returns d */
static uint16_t fit_symmetric(const float *x, int half, int q[32])
{
    float largest = 0.0f, magnitude = 0.0f;
    for (int i = 0; i < 32; i++)
        if (fabsf(x[i]) > magnitude) magnitude = fabsf(x[i]), largest = x[i];
    float d = largest / (float)-half, inv = d != 0.0f ? 1.0f / d : 0.0f;
    for (int i = 0; i < 32; i++) {
        float v = x[i] * inv;
        q[i] = clamp_code(v + ((float)half + 0.5f), 2 * half - 1);
    }
    return f32_to_f16(d);
}

/* codes 0..top from min to max; returns d and sets *m */
static uint16_t fit_range(const float *x, int top, int q[32], uint16_t *m)
{
    float lo = x[0], hi = x[0];
    for (int i = 1; i < 32; i++) {
        if (x[i] < lo) lo = x[i];
        if (x[i] > hi) hi = x[i];
    }
    float d = (hi - lo) / (float)top, inv = d != 0.0f ? 1.0f / d : 0.0f;
    for (int i = 0; i < 32; i++) {
        float v = (x[i] - lo) * inv;
        q[i] = clamp_code(v + 0.5f, top);
    }
    *m = f32_to_f16(lo);
    return f32_to_f16(d);
}

static void unpack_q4_0(const void *block, struct codes *out)
{
    const struct block_q4_0 *b = block;
    split_nibbles(out, b->qs, 0, -8);
    set_scale(out, b->d);
}

static void pack_q4_0(const float *x, void *block)
{
    struct block_q4_0 *b = block;
    int q[32];
    b->d = fit_symmetric(x, 8, q);
    join_nibbles(b->qs, q);
}

static void unpack_q4_1(const void *block, struct codes *out)
{
    const struct block_q4_1 *b = block;
    split_nibbles(out, b->qs, 0, 0);
    set_scale_min(out, b->d, b->m);
}

static void pack_q4_1(const float *x, void *block)
{
    struct block_q4_1 *b = block;
    int q[32];
    uint16_t m;
    b->d = fit_range(x, 15, q, &m);
    b->m = m;
    join_nibbles(b->qs, q);
}

static void unpack_q5_0(const void *block, struct codes *out)
{
    const struct block_q5_0 *b = block;
    split_nibbles(out, b->qs, b->qh, -16);
    set_scale(out, b->d);
}

static void pack_q5_0(const float *x, void *block)
{
    struct block_q5_0 *b = block;
    int q[32];
    b->d = fit_symmetric(x, 16, q);
    b->qh = join_nibbles(b->qs, q);
}

static void unpack_q5_1(const void *block, struct codes *out)
{
    const struct block_q5_1 *b = block;
    split_nibbles(out, b->qs, b->qh, 0);
    set_scale_min(out, b->d, b->m);
}

static void pack_q5_1(const float *x, void *block)
{
    struct block_q5_1 *b = block;
    int q[32];
    uint16_t m;
    b->d = fit_range(x, 31, q, &m);
    b->m = m;
    b->qh = join_nibbles(b->qs, q);
}

static void unpack_q8_0(const void *block, struct codes *out)
{
    const struct block_q8_0 *b = block;
    memcpy(out->code, b->qs, sizeof b->qs);
    set_scale(out, b->d);
}

static void pack_q8_0(const float *x, void *block)
{
    struct block_q8_0 *b = block;
    float magnitude = 0.0f;
    for (int i = 0; i < 32; i++)
        if (fabsf(x[i]) > magnitude) magnitude = fabsf(x[i]);
    float d = magnitude / 127.0f, inv = d != 0.0f ? 1.0f / d : 0.0f;
    for (int i = 0; i < 32; i++) {
        float v = roundf(x[i] * inv);
        b->qs[i] = (int8_t)(fabsf(v) <= 127.0f ? (int)v : 0); /* beyond: see clamp_code */
    }
    b->d = f32_to_f16(d);
}

/* ---- join and split ---- */

static void join_qs(const struct parts *p, uint8_t qs[16])
{
    for (int i = 0; i < 16; i++) qs[i] = (uint8_t)((p->q[i] & 15) | (p->q[i + 16] & 15) << 4);
}

/* Bit 4 of each q. Four at a time: the product brings bits 0, 16, 32, 48 together at 48..51, and no other two meet. One by one this was a fifth of the
 * time of quantizing to Q5_1. */
static uint32_t join_qh(const struct parts *p)
{
    uint32_t qh = 0;
    for (int i = 0; i < 32; i += 4) {
        uint64_t four;
        memcpy(&four, p->q + i, sizeof four);
        four = (four >> 4 & 0x0001000100010001u) * 0x0001000200040008u;
        qh |= (uint32_t)(four >> 48 & 15) << i;
    }
    return qh;
}

static void split_qs(struct parts *p, const uint8_t qs[16], uint32_t qh)
{
    for (int i = 0; i < 16; i++) {
        p->q[i] = (uint16_t)((qs[i] & 15) | (qh >> i & 1) << 4);
        p->q[i + 16] = (uint16_t)((qs[i] >> 4) | (qh >> (i + 16) & 1) << 4);
    }
}

static void join_q4_0(const struct parts *p, void *block)
{
    struct block_q4_0 *b = block;
    b->d = p->d;
    join_qs(p, b->qs);
}

static void split_q4_0(const void *block, struct parts *p)
{
    const struct block_q4_0 *b = block;
    *p = (struct parts){ .d = b->d };
    split_qs(p, b->qs, 0);
}

static void join_q4_1(const struct parts *p, void *block)
{
    struct block_q4_1 *b = block;
    b->d = p->d, b->m = p->dmin;
    join_qs(p, b->qs);
}

static void split_q4_1(const void *block, struct parts *p)
{
    const struct block_q4_1 *b = block;
    *p = (struct parts){ .d = b->d, .dmin = b->m };
    split_qs(p, b->qs, 0);
}

static void join_q5_0(const struct parts *p, void *block)
{
    struct block_q5_0 *b = block;
    b->d = p->d, b->qh = join_qh(p);
    join_qs(p, b->qs);
}

static void split_q5_0(const void *block, struct parts *p)
{
    const struct block_q5_0 *b = block;
    *p = (struct parts){ .d = b->d };
    split_qs(p, b->qs, b->qh);
}

static void join_q5_1(const struct parts *p, void *block)
{
    struct block_q5_1 *b = block;
    b->d = p->d, b->m = p->dmin, b->qh = join_qh(p);
    join_qs(p, b->qs);
}

static void split_q5_1(const void *block, struct parts *p)
{
    const struct block_q5_1 *b = block;
    *p = (struct parts){ .d = b->d, .dmin = b->m };
    split_qs(p, b->qs, b->qh);
}

static void join_q8_0(const struct parts *p, void *block)
{
    struct block_q8_0 *b = block;
    b->d = p->d;
    for (int i = 0; i < 32; i++) b->qs[i] = (int8_t)p->q[i];
}

static void split_q8_0(const void *block, struct parts *p)
{
    const struct block_q8_0 *b = block;
    *p = (struct parts){ .d = b->d };
    for (int i = 0; i < 32; i++) p->q[i] = (uint8_t)b->qs[i];
}

static void join_q8_1(const struct parts *p, void *block)
{
    struct block_q8_1 *b = block;
    b->d = p->d, b->s = p->dmin;
    for (int i = 0; i < 32; i++) b->qs[i] = (int8_t)p->q[i];
}

static void split_q8_1(const void *block, struct parts *p)
{
    const struct block_q8_1 *b = block;
    *p = (struct parts){ .d = b->d, .dmin = b->s };
    for (int i = 0; i < 32; i++) p->q[i] = (uint8_t)b->qs[i];
}

static void unpack_q8_1(const void *block, struct codes *out)
{
    const struct block_q8_1 *b = block;
    memcpy(out->code, b->qs, sizeof b->qs);
    set_scale(out, b->d);
}

const struct dtype dtype_q4_0 = {
    .name = "q4_0", .gguf_name = "Q4_0", .gguf_id = GGUF_Q4_0, .block_len = 32, .block_bytes = sizeof(struct block_q4_0),
    .group_len = 32, .code_max = 8, .unpack = unpack_q4_0, .pack = pack_q4_0, .join = join_q4_0, .split = split_q4_0,
};
const struct dtype dtype_q4_1 = {
    .name = "q4_1", .gguf_name = "Q4_1", .gguf_id = GGUF_Q4_1, .block_len = 32, .block_bytes = sizeof(struct block_q4_1),
    .group_len = 32, .has_min = true, .code_bias = 8, .code_max = 8,
    .unpack = unpack_q4_1, .pack = pack_q4_1, .join = join_q4_1, .split = split_q4_1,
};
const struct dtype dtype_q5_0 = {
    .name = "q5_0", .gguf_name = "Q5_0", .gguf_id = GGUF_Q5_0, .block_len = 32, .block_bytes = sizeof(struct block_q5_0),
    .group_len = 32, .code_max = 16, .unpack = unpack_q5_0, .pack = pack_q5_0, .join = join_q5_0, .split = split_q5_0,
};
const struct dtype dtype_q5_1 = {
    .name = "q5_1", .gguf_name = "Q5_1", .gguf_id = GGUF_Q5_1, .block_len = 32, .block_bytes = sizeof(struct block_q5_1),
    .group_len = 32, .has_min = true, .code_bias = 16, .code_max = 16,
    .unpack = unpack_q5_1, .pack = pack_q5_1, .join = join_q5_1, .split = split_q5_1,
};
const struct dtype dtype_q8_0 = {
    .name = "q8_0", .gguf_name = "Q8_0", .gguf_id = GGUF_Q8_0, .block_len = 32, .block_bytes = sizeof(struct block_q8_0),
    .group_len = 32, .code_max = 128, .unpack = unpack_q8_0, .pack = pack_q8_0, .join = join_q8_0, .split = split_q8_0,
};
const struct dtype dtype_q8_1 = {
    .name = "q8_1", .gguf_name = "Q8_1", .gguf_id = GGUF_Q8_1, .block_len = 32, .block_bytes = sizeof(struct block_q8_1),
    .group_len = 32, .code_max = 128, .unpack = unpack_q8_1, .join = join_q8_1, .split = split_q8_1,
};
