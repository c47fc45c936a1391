/* neon_formats - codes and scales of every quantized format in registers, for the unpackers and the row-dots of the aarch64 levels.
 * Layouts: the drawings in formats/. A format is worked through in chunks: a superblock, or as many blocks as make 128 weights. Of a chunk at w
 *   struct codes32 codes_<format>(w, g)     gives the codes of weights 32g .. 32g + 31, g a constant, and
 *   void scales_<format>(w, s, m)           all its scales, four to a register, and its mins if the format has any.
 * Weight = scale * (code + bias) + min. Nothing here reads outside the chunk. */
#pragma once
#include "ggml-like/base.h"
#include "ggml-like/formats/formats.h"
#include "ggml-like/kernels/neon.h"
#include <string.h>

struct codes32 { int8x16_t low, high; };

/* What the loops need to know about a format; all constants after inlining. */
struct neon_format {
    int chunk, block_len, block_bytes;
    int group, bias;
    bool has_min;
    struct codes32 (*codes)(const uint8_t *w, int g);
    void (*scales)(const uint8_t *w, float32x4_t *s, float32x4_t *m);
};

/* X(enum name, name, chunk, block, group, bias, has_min) */
#define NEON_FORMATS(X)                                                                                                                  \
    X(GGUF_Q4_0, q4_0, 128, 32, 32, -8, false) X(GGUF_Q4_1, q4_1, 128, 32, 32, 0, true) X(GGUF_Q5_0, q5_0, 128, 32, 32, -16, false)      \
    X(GGUF_Q5_1, q5_1, 128, 32, 32, 0, true) X(GGUF_Q8_0, q8_0, 128, 32, 32, 0, false) X(GGUF_Q2_K, q2_k, 256, 256, 16, 0, true)         \
    X(GGUF_Q3_K, q3_k, 256, 256, 16, -4, false) X(GGUF_Q4_K, q4_k, 256, 256, 32, 0, true) X(GGUF_Q5_K, q5_k, 256, 256, 32, 0, true)      \
    X(GGUF_Q6_K, q6_k, 256, 256, 16, -32, false) X(GGUF_Q8_K, q8_k, 256, 256, 32, 0, false) X(GGUF_IQ1_S, iq1_s, 256, 256, 32, 0, false) \
    X(GGUF_IQ1_M, iq1_m, 256, 256, 16, 0, false) X(GGUF_IQ2_XXS, iq2_xxs, 256, 256, 32, 0, false)                                        \
    X(GGUF_IQ2_XS, iq2_xs, 256, 256, 16, 0, false) X(GGUF_IQ2_S, iq2_s, 256, 256, 16, 0, false)                                          \
    X(GGUF_IQ3_XXS, iq3_xxs, 256, 256, 32, 0, false) X(GGUF_IQ3_S, iq3_s, 256, 256, 32, 0, false)                                        \
    X(GGUF_IQ4_NL, iq4_nl, 128, 32, 32, 0, false) X(GGUF_IQ4_XS, iq4_xs, 256, 256, 32, 0, false)                                         \
    X(GGUF_MXFP4, mxfp4, 128, 32, 32, -12, false) X(GGUF_NVFP4, nvfp4, 128, 64, 16, -12, false)                                          \
    X(GGUF_TQ1_0, tq1_0, 256, 256, 32, -1, false) X(GGUF_TQ2_0, tq2_0, 256, 256, 32, -1, false)                                          \
    X(GGUF_Q1_0, q1_0, 128, 128, 32, -1, false) X(GGUF_Q2_0, q2_0, 128, 64, 32, -1, false)
#define NEON_FORMAT(name, chunk_, block, group_, bias_, has_min_)                                                              \
    ((struct neon_format){ .chunk = chunk_, .block_len = block, .block_bytes = (int)sizeof(struct block_##name), .group = group_,      \
                           .bias = bias_, .has_min = has_min_, .codes = codes_##name, .scales = scales_##name })

/* ---- bytes ---- */

INLINE struct codes32 codes32(uint8x16_t low, uint8x16_t high)
{
    return (struct codes32){ vreinterpretq_s8_u8(low), vreinterpretq_s8_u8(high) };
}
INLINE uint8x16_t bytes16(uint64_t low, uint64_t high) { return vcombine_u8(vcreate_u8(low), vcreate_u8(high)); }

/* bits n..n+width-1 of every byte, n + width <= 8 */
INLINE uint8x16_t bits(uint8x16_t v, int n, int width)
{
    v = v >> all_u8((uint8_t)n); /* not vshrq_n_u8: clang wants a literal there */
    return n + width < 8 ? vandq_u8(v, all_u8((uint8_t)((1 << width) - 1))) : v;
}

/* v with the bits of `mask` taken from `from` after a shift to the left (right if negative) */
INLINE uint8x16_t insert_bits(uint8x16_t v, uint8x16_t from, int left, uint8_t mask)
{
    from = left > 0 ? from << all_u8((uint8_t)left) : from >> all_u8((uint8_t)-left);
    return vbslq_u8(all_u8(mask), from, v);
}

/* q4_0 and its kin: low nibbles, then high nibbles */
INLINE struct codes32 nibbles32(const uint8_t qs[16])
{
    uint8x16_t v = vld1q_u8(qs);
    return codes32(bits(v, 0, 4), bits(v, 4, 4));
}

/* bytes i of two registers = 0xff where bit i of the 32 that are in every dword of v is set */
INLINE struct codes32 bit_masks(uint32x4_t v)
{
    uint8x16_t bytes = vreinterpretq_u8_u32(v), bit = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201u));
    uint8x16_t first = bytes16(0, 0x0101010101010101u), last = bytes16(0x0202020202020202u, 0x0303030303030303u);
    return codes32(vtstq_u8(vqtbl1q_u8(bytes, first), bit), vtstq_u8(vqtbl1q_u8(bytes, last), bit));
}

/* 5-bit codes: nibbles plus 16 times the bits of qh */
INLINE struct codes32 codes_q5(const uint8_t qs[16], uint32_t qh)
{
    struct codes32 c = nibbles32(qs), m = bit_masks(vdupq_n_u32(qh));
    int8x16_t sixteen = vdupq_n_s8(16);
    return (struct codes32){ vorrq_s8(c.low, vandq_s8(m.low, sixteen)), vorrq_s8(c.high, vandq_s8(m.high, sixteen)) };
}

/* ---- scales ---- */

INLINE float half_at(const void *p)
{
    float16_t h;
    memcpy(&h, p, sizeof h);
    return (float)h;
}

/* d of the four blocks that begin with it */
INLINE float32x4_t heads4(const uint8_t *w, size_t stride)
{
    uint16x4_t h = vld1_dup_u16((const void *)w);
    h = vld1_lane_u16((const void *)(w + stride), h, 1);
    h = vld1_lane_u16((const void *)(w + 2 * stride), h, 2);
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_lane_u16((const void *)(w + 3 * stride), h, 3)));
}

/* d and m of the four blocks that begin with d, m */
INLINE void heads4_min(const uint8_t *w, size_t stride, float32x4_t *s, float32x4_t *m)
{
    uint32x4_t h = vld1q_dup_u32((const void *)w);
    h = vld1q_lane_u32((const void *)(w + stride), h, 1);
    h = vld1q_lane_u32((const void *)(w + 2 * stride), h, 2);
    h = vld1q_lane_u32((const void *)(w + 3 * stride), h, 3);
    *s = vcvt_f32_f16(vreinterpret_f16_u16(vmovn_u32(h)));
    *m = vcvt_f32_f16(vreinterpret_f16_u16(vshrn_n_u32(h, 16)));
}

/* eight bytes as floats */
INLINE void floats8(uint8x8_t v, float32x4_t f[2])
{
    uint16x8_t w = vmovl_u8(v);
    f[0] = vcvtq_f32_u32(vmovl_u16(vget_low_u16(w))), f[1] = vcvtq_f32_u32(vmovl_high_u16(w));
}

/* d times 4n signed bytes */
INLINE void scaled(int8x16_t v, int n, float d, float32x4_t *s)
{
    int16x8_t w[2] = { vmovl_s8(vget_low_s8(v)), vmovl_high_s8(v) };
    UNROLL
    for (int i = 0; i < n; i++)
        s[i] = vmulq_n_f32(vcvtq_f32_s32(i % 2 ? vmovl_high_s16(w[i / 2]) : vmovl_s16(vget_low_s16(w[i / 2]))), d);
}

/* d * (add + byte) * factor, rounded as the format says */
INLINE void scaled_sum(uint8x8_t v, float d, float add, float factor, float32x4_t s[2])
{
    floats8(v, s);
    UNROLL
    for (int i = 0; i < 2; i++) s[i] = vmulq_n_f32(vmulq_n_f32(vaddq_f32(s[i], vdupq_n_f32(add)), d), factor);
}

/* 2n nibbles of n bytes, lowest first */
INLINE uint8x16_t nibbles_in_order(uint8x8_t v)
{
    uint8x8_t low = vand_u8(v, vdup_n_u8(15)), high = vshr_n_u8(v, 4);
    return vcombine_u8(vzip1_u8(low, high), vzip2_u8(low, high));
}

/* ---- blocks of 32 ---- */

#define BLOCK(name) const struct block_##name *b = (const void *)w
#define EACH_OF_32(name, codes, scales)                                                       \
    INLINE struct codes32 codes_##name(const uint8_t *w, int g) { BLOCK(name); b += g; return codes; } \
    INLINE void scales_##name(const uint8_t *w, float32x4_t *s, float32x4_t *m) { scales; }
EACH_OF_32(q4_0, nibbles32(b->qs), s[0] = heads4(w, 18))
EACH_OF_32(q4_1, nibbles32(b->qs), heads4_min(w, 20, s, m))
EACH_OF_32(q5_0, codes_q5(b->qs, load_u32(&b->qh)), s[0] = heads4(w, 22))
EACH_OF_32(q5_1, codes_q5(b->qs, load_u32(&b->qh)), heads4_min(w, 24, s, m))
EACH_OF_32(q8_0, ((struct codes32){ vld1q_s8(b->qs), vld1q_s8(b->qs + 16) }), s[0] = heads4(w, 34))

/* ---- superblocks ---- */

INLINE struct codes32 codes_q2_k(const uint8_t *w, int g)
{
    BLOCK(q2_k);
    const uint8_t *qs = b->qs + g / 4 * 32;
    return codes32(bits(vld1q_u8(qs), g % 4 * 2, 2), bits(vld1q_u8(qs + 16), g % 4 * 2, 2));
}
INLINE void scales_q2_k(const uint8_t *w, float32x4_t *s, float32x4_t *m)
{
    BLOCK(q2_k);
    uint8x16_t v = vld1q_u8(b->scales);
    scaled(vreinterpretq_s8_u8(bits(v, 0, 4)), 4, half_at(&b->d), s);
    scaled(vreinterpretq_s8_u8(bits(v, 4, 4)), 4, -half_at(&b->dmin), m);
}

INLINE struct codes32 codes_q3_k(const uint8_t *w, int g)
{
    BLOCK(q3_k);
    struct codes32 c;
    const uint8_t *qs = b->qs + g / 4 * 32;
    c.low = vreinterpretq_s8_u8(insert_bits(bits(vld1q_u8(qs), g % 4 * 2, 2), vld1q_u8(b->hmask), 2 - g, 4));
    c.high = vreinterpretq_s8_u8(insert_bits(bits(vld1q_u8(qs + 16), g % 4 * 2, 2), vld1q_u8(b->hmask + 16), 2 - g, 4));
    return c;
}
INLINE void scales_q3_k(const uint8_t *w, float32x4_t *s, float32x4_t *m)
{
    BLOCK(q3_k);
    uint64_t low = load_u64(b->scales);
    uint32_t c = load_u32(b->scales + 8), high[4] = { c << 4, c << 2, c, c >> 2 };
    uint8x16_t v = insert_bits(bits(bytes16(low, low >> 4), 0, 4), vreinterpretq_u8_u32(vld1q_u32(high)), 0, 0x30);
    scaled(vsubq_s8(vreinterpretq_s8_u8(v), vdupq_n_s8(32)), 4, half_at(&b->d), s);
}

/* The twelve bytes of q4_k and q5_k */
INLINE void scales_mins(const uint8_t *sc, const uint8_t *d_dmin, float32x4_t *s, float32x4_t *m)
{
    uint32_t a = load_u32(sc), b = load_u32(sc + 4), c = load_u32(sc + 8);
    uint64_t scale = (a & 0x3f3f3f3f) | (uint64_t)((c & 0x0f0f0f0f) | (a >> 2 & 0x30303030)) << 32;
    uint64_t min = (b & 0x3f3f3f3f) | (uint64_t)((c >> 4 & 0x0f0f0f0f) | (b >> 2 & 0x30303030)) << 32;
    scaled(vreinterpretq_s8_u8(bytes16(scale, 0)), 2, half_at(d_dmin), s);
    scaled(vreinterpretq_s8_u8(bytes16(min, 0)), 2, -half_at(d_dmin + 2), m);
}

INLINE struct codes32 codes_q4_k(const uint8_t *w, int g)
{
    BLOCK(q4_k);
    const uint8_t *qs = b->qs + g / 2 * 32;
    return codes32(bits(vld1q_u8(qs), g % 2 * 4, 4), bits(vld1q_u8(qs + 16), g % 2 * 4, 4));
}
INLINE void scales_q4_k(const uint8_t *w, float32x4_t *s, float32x4_t *m) { scales_mins(w + 4, w, s, m); }

INLINE struct codes32 codes_q5_k(const uint8_t *w, int g)
{
    BLOCK(q5_k);
    const uint8_t *qs = b->qs + g / 2 * 32;
    uint8x16_t low = bits(vld1q_u8(qs), g % 2 * 4, 4), high = bits(vld1q_u8(qs + 16), g % 2 * 4, 4);
    return codes32(insert_bits(low, vld1q_u8(b->qh), 4 - g, 16), insert_bits(high, vld1q_u8(b->qh + 16), 4 - g, 16));
}
INLINE void scales_q5_k(const uint8_t *w, float32x4_t *s, float32x4_t *m) { scales_mins(w + 4, w, s, m); }

INLINE struct codes32 codes_q6_k(const uint8_t *w, int g)
{
    BLOCK(q6_k);
    const uint8_t *ql = b->ql + g / 4 * 64 + g % 2 * 32, *qh = b->qh + g / 4 * 32;
    int n = g % 4;
    uint8x16_t low = bits(vld1q_u8(ql), n / 2 * 4, 4), high = bits(vld1q_u8(ql + 16), n / 2 * 4, 4);
    return codes32(insert_bits(low, vld1q_u8(qh), 4 - 2 * n, 0x30), insert_bits(high, vld1q_u8(qh + 16), 4 - 2 * n, 0x30));
}
INLINE void scales_q6_k(const uint8_t *w, float32x4_t *s, float32x4_t *m)
{
    BLOCK(q6_k);
    scaled(vld1q_s8(b->scales), 4, half_at(&b->d), s);
}

INLINE struct codes32 codes_q8_k(const uint8_t *w, int g)
{
    BLOCK(q8_k);
    return (struct codes32){ vld1q_s8(b->qs + 32 * g), vld1q_s8(b->qs + 32 * g + 16) };
}
INLINE void scales_q8_k(const uint8_t *w, float32x4_t *s, float32x4_t *m)
{
    float d;
    memcpy(&d, w, sizeof d);
    s[0] = s[1] = vdupq_n_f32(d);
}

/* ---- codebooks ---- */

/* Vectors are found by byte offsets, four 16-bit ones in a word, the first lowest: made together in a vector register, they are taken apart by one
 * instruction each. */
INLINE uint64_t offsets4(uint16x4_t v) { return vget_lane_u64(vreinterpret_u64_u16(v), 0); }
INLINE uint16x4_t low4(uint16x8_t v) { return vget_low_u16(v); }
INLINE const void *vector_at(const void *table, uint64_t offsets, int i) { return (const uint8_t *)table + (uint16_t)(offsets >> 16 * i); }

/* q << up, plus the bits of h that lie in `mask` after a shift by `by` */
INLINE uint16x4_t with_high_bits(uint32_t q, int up, uint16_t h, int16x4_t by, uint16_t mask)
{
    uint16x4_t low = low4(vmovl_u8(vcreate_u8(q))) << vdup_n_u16((uint16_t)up);
    return vorr_u16(low, vand_u16(vshl_u16(vdup_n_u16(h), by), vdup_n_u16(mask)));
}

/* 32 magnitudes of four vectors of 8, and of eight of 4 */
INLINE int8x16_t narrowed(int16x8_t a, int16x8_t b) { return vuzp1q_s8(vreinterpretq_s8_s16(a), vreinterpretq_s8_s16(b)); }
INLINE struct codes32 four_vectors(const void *table, uint16x4_t offsets)
{
    uint64_t o = offsets4(offsets);
    return (struct codes32){ narrowed(vld1q_s16(vector_at(table, o, 0)), vld1q_s16(vector_at(table, o, 1))),
                             narrowed(vld1q_s16(vector_at(table, o, 2)), vld1q_s16(vector_at(table, o, 3))) };
}
INLINE int8x16_t half_of_eight(const void *table, uint16x4_t offsets)
{
    uint64_t o = offsets4(offsets);
    return narrowed(vcombine_s16(vld1_s16(vector_at(table, o, 0)), vld1_s16(vector_at(table, o, 1))),
                    vcombine_s16(vld1_s16(vector_at(table, o, 2)), vld1_s16(vector_at(table, o, 3))));
}
INLINE struct codes32 eight_vectors(const void *table, uint16x8_t offsets)
{
    return (struct codes32){ half_of_eight(table, low4(offsets)), half_of_eight(table, vget_high_u16(offsets)) };
}

/* negative where the mask is set */
INLINE struct codes32 with_signs(struct codes32 c, struct codes32 mask)
{
    return (struct codes32){ vsubq_s8(veorq_s8(c.low, mask.low), mask.low), vsubq_s8(veorq_s8(c.high, mask.high), mask.high) };
}

/* The eighth sign of each byte from the seven that are stored: the number of set bits is even. */
INLINE uint8x16_t signs_of_7_bits(uint8x16_t v) { return vorrq_u8(v, vshlq_n_u8(vcntq_u8(v), 7)); }

/* four 7-bit fields in the low 28 bits of each dword to four bytes, with their eighth signs */
INLINE uint32x4_t signs_of_28_bits(uint32x4_t v)
{
    v = vorrq_u32(vandq_u32(v, vdupq_n_u32(0x3fff)), vandq_u32(vshlq_n_u32(v, 2), vdupq_n_u32(0x3fff0000)));
    v = vorrq_u32(vandq_u32(v, vdupq_n_u32(0x007f007f)), vandq_u32(vshlq_n_u32(v, 1), vdupq_n_u32(0x7f007f00)));
    return vreinterpretq_u32_u8(signs_of_7_bits(vreinterpretq_u8_u32(v)));
}

INLINE uint32x4_t every(uint32x4_t v, int lane)
{
    return lane == 0 ? vdupq_laneq_u32(v, 0) : lane == 1 ? vdupq_laneq_u32(v, 1) : lane == 2 ? vdupq_laneq_u32(v, 2) : vdupq_laneq_u32(v, 3);
}

/* the high four bits of eight dwords, stored together in the low half */
INLINE uint8x8_t top_nibbles(uint32x4_t a, uint32x4_t b)
{
    return vmovn_u16(vcombine_u16(vmovn_u32(vshrq_n_u32(a, 28)), vmovn_u32(vshrq_n_u32(b, 28))));
}

INLINE struct codes32 codes_iq2_xxs(const uint8_t *w, int g)
{
    BLOCK(iq2_xxs);
    uint32x4_t signs = signs_of_28_bits(vld2q_u32((const void *)&b->group[g / 4 * 4]).val[1]);
    struct codes32 c = four_vectors(iq2_xxs_vectors, low4(vshll_n_u8(vcreate_u8(load_u32(b->group[g].qs)), 4)));
    return with_signs(c, bit_masks(every(signs, g % 4)));
}
INLINE void scales_iq2_xxs(const uint8_t *w, float32x4_t *s, float32x4_t *m)
{
    BLOCK(iq2_xxs);
    uint32x4_t low = vld2q_u32((const void *)b->group).val[1], high = vld2q_u32((const void *)(b->group + 4)).val[1];
    scaled_sum(top_nibbles(low, high), half_at(&b->d), 0.5f, 0.25f, s);
}

/* 16 scales of 4 bits */
INLINE void scales_of_nibbles(const uint8_t scales[8], float d, float32x4_t s[4])
{
    uint8x16_t v = nibbles_in_order(vld1_u8(scales));
    scaled_sum(vget_low_u8(v), d, 0.5f, 0.25f, s);
    scaled_sum(vget_high_u8(v), d, 0.5f, 0.25f, s + 2);
}

INLINE struct codes32 codes_iq2_xs(const uint8_t *w, int g)
{
    const uint8_t *qs = w + offsetof(struct block_iq2_xs, qs), *four = qs + g / 4 * 32;
    uint16x8_t low = vshrq_n_u16(vld1q_u16((const void *)four), 9), high = vshrq_n_u16(vld1q_u16((const void *)(four + 16)), 9);
    uint8x16_t signs = signs_of_7_bits(vuzp1q_u8(vreinterpretq_u8_u16(low), vreinterpretq_u8_u16(high)));
    struct codes32 c = four_vectors(iq2_xs_vectors, vand_u16(vshl_n_u16(vld1_u16((const void *)(qs + 8 * g)), 4), vdup_n_u16(511 << 4)));
    return with_signs(c, bit_masks(every(vreinterpretq_u32_u8(signs), g % 4)));
}
INLINE void scales_iq2_xs(const uint8_t *w, float32x4_t *s, float32x4_t *m)
{
    BLOCK(iq2_xs);
    scales_of_nibbles(b->scales, half_at(&b->d), s);
}

INLINE struct codes32 codes_iq2_s(const uint8_t *w, int g)
{
    BLOCK(iq2_s);
    int16x4_t by = { 12, 10, 8, 6 };
    struct codes32 c = four_vectors(iq2_s_vectors, with_high_bits(load_u32(b->qs + 4 * g), 4, b->qh[g], by, 3 << 12));
    return with_signs(c, bit_masks(vld1q_dup_u32((const void *)(b->signs + 4 * g))));
}
INLINE void scales_iq2_s(const uint8_t *w, float32x4_t *s, float32x4_t *m)
{
    BLOCK(iq2_s);
    scales_of_nibbles(b->scales, half_at(&b->d), s);
}

/* Indices that are bytes of the file are best read one by one. */
INLINE int8x16_t iq3_xxs_magnitudes(const uint8_t q[4])
{
    return narrowed(vcombine_s16(vld1_s16(iq3_xxs_vectors[q[0]]), vld1_s16(iq3_xxs_vectors[q[1]])),
                    vcombine_s16(vld1_s16(iq3_xxs_vectors[q[2]]), vld1_s16(iq3_xxs_vectors[q[3]])));
}
INLINE struct codes32 codes_iq3_xxs(const uint8_t *w, int g)
{
    BLOCK(iq3_xxs);
    uint32x4_t signs = signs_of_28_bits(vld1q_u32((const void *)(w + offsetof(struct block_iq3_xxs, signs) + g / 4 * 16)));
    struct codes32 c = { iq3_xxs_magnitudes(b->qs + 8 * g), iq3_xxs_magnitudes(b->qs + 8 * g + 4) };
    return with_signs(c, bit_masks(every(signs, g % 4)));
}
INLINE void scales_iq3_xxs(const uint8_t *w, float32x4_t *s, float32x4_t *m)
{
    BLOCK(iq3_xxs);
    const uint8_t *signs = (const uint8_t *)b->signs;
    scaled_sum(top_nibbles(vld1q_u32((const void *)signs), vld1q_u32((const void *)(signs + 16))), half_at(&b->d), 0.5f, 0.5f, s);
}

INLINE struct codes32 codes_iq3_s(const uint8_t *w, int g)
{
    BLOCK(iq3_s);
    int16x8_t by = { 11, 10, 9, 8, 7, 6, 5, 4 };
    uint16x8_t high = vandq_u16(vshlq_u16(vdupq_n_u16(b->qh[g]), by), vdupq_n_u16(1 << 11));
    struct codes32 c = eight_vectors(iq3_s_vectors, vorrq_u16(vshll_n_u8(vld1_u8(b->qs + 8 * g), 3), high));
    return with_signs(c, bit_masks(vld1q_dup_u32((const void *)(b->signs + 4 * g))));
}
INLINE void scales_iq3_s(const uint8_t *w, float32x4_t *s, float32x4_t *m)
{
    BLOCK(iq3_s);
    scaled_sum(vget_low_u8(nibbles_in_order(vcreate_u8(load_u32(b->scales)))), half_at(&b->d), 0.5f, 2.0f, s);
}

/* four vectors of 8 bytes, low[i] and high[i] added */
INLINE struct codes32 four_byte_vectors(const void *table, uint16x4_t offsets, int8x16_t low, int8x16_t high)
{
    uint64_t o = offsets4(offsets);
    int8x16_t a = vcombine_s8(vld1_s8(vector_at(table, o, 0)), vld1_s8(vector_at(table, o, 1)));
    int8x16_t b = vcombine_s8(vld1_s8(vector_at(table, o, 2)), vld1_s8(vector_at(table, o, 3)));
    return (struct codes32){ vaddq_s8(a, low), vaddq_s8(b, high) };
}

INLINE struct codes32 codes_iq1_s(const uint8_t *w, int g)
{
    BLOCK(iq1_s);
    int16x4_t by = { 11, 8, 5, 2 };
    int8x16_t shift = vdupq_n_s8((int8_t)(1 - (b->qh[g] >> 14 & 2)));
    return four_byte_vectors(iq1_vectors, with_high_bits(load_u32(b->qs + 4 * g), 3, b->qh[g], by, 7 << 11), shift, shift);
}
INLINE void scales_iq1_s(const uint8_t *w, float32x4_t *s, float32x4_t *m)
{
    BLOCK(iq1_s);
    uint16x8_t qh = vld1q_u16((const void *)(w + offsetof(struct block_iq1_s, qh)));
    scaled_sum(vand_u8(vshrn_n_u16(vshrq_n_u16(qh, 4), 8), vdup_n_u8(7)), half_at(&b->d), 0.5f, 0.25f, s);
}

/* a nibble of qh for each vector: three bits of its index, and its shift */
INLINE struct codes32 codes_iq1_m(const uint8_t *w, int g)
{
    BLOCK(iq1_m);
    int16x4_t by = { 11, 7, 3, -1 }, to_top = { 12, 8, 4, 0 };
    uint16_t h = (uint16_t)(b->qh[2 * g] | b->qh[2 * g + 1] << 8);
    int16x4_t minus = vreinterpret_s16_u16(vshl_u16(vdup_n_u16(h), to_top)) >> vdup_n_s16(15); /* -1 or 0 in each word */
    int8x16_t one = vreinterpretq_s8_s16(vcombine_s16(vorr_s16(minus, vdup_n_s16(1)), minus)); /* low bytes -1 or 1 */
    uint8x16_t first = bytes16(0, 0x0202020202020202u), last = bytes16(0x0404040404040404u, 0x0606060606060606u);
    return four_byte_vectors(iq1_vectors, with_high_bits(load_u32(b->qs + 4 * g), 3, h, by, 7 << 11), vqtbl1q_s8(one, first), vqtbl1q_s8(one, last));
}
INLINE void scales_iq1_m(const uint8_t *w, float32x4_t *s, float32x4_t *m)
{
    BLOCK(iq1_m);
    uint64_t v = load_u64(b->scales);
    uint16_t d = (uint16_t)((v >> 12 & 0x000f) | (v >> 24 & 0x00f0) | (v >> 36 & 0x0f00) | (v >> 48 & 0xf000));
    uint16x8_t four = vcombine_u16(vdup_n_u16((uint16_t)v), vdup_n_u16((uint16_t)(v >> 16)));
    uint16x8_t last = vcombine_u16(vdup_n_u16((uint16_t)(v >> 32)), vdup_n_u16((uint16_t)(v >> 48)));
    int16x8_t by = vreinterpretq_s16_u64(vdupq_n_u64(0xfff7fffafffd0000u)); /* 0 -3 -6 -9 */
    scaled_sum(vmovn_u16(vandq_u16(vshlq_u16(four, by), vdupq_n_u16(7))), half_at(&d), 0.5f, 0.25f, s);
    scaled_sum(vmovn_u16(vandq_u16(vshlq_u16(last, by), vdupq_n_u16(7))), half_at(&d), 0.5f, 0.25f, s + 2);
}

/* ---- 16 levels ---- */

INLINE struct codes32 levels32(int8x16_t table, struct codes32 c)
{
    return (struct codes32){ vqtbl1q_s8(table, vreinterpretq_u8_s8(c.low)), vqtbl1q_s8(table, vreinterpretq_u8_s8(c.high)) };
}
INLINE int8x16_t e2m1_plus_12(void) { return vaddq_s8(vld1q_s8(e2m1_levels), vdupq_n_s8(12)); }

/* 2^(e - 128) of the four blocks that begin with e */
INLINE float32x4_t exponents4(const uint8_t *w, size_t stride)
{
    uint32_t e[4] = { w[0], w[stride], w[2 * stride], w[3 * stride] };
    uint32x4_t v = vld1q_u32(e), normal = vshlq_n_u32(vsubq_u32(v, vdupq_n_u32(1)), 23);
    uint32x4_t denormal = vshlq_u32(vdupq_n_u32(0x00200000), vreinterpretq_s32_u32(v));
    return vreinterpretq_f32_u32(vbslq_u32(vcgtq_u32(v, vdupq_n_u32(1)), normal, denormal));
}

EACH_OF_32(iq4_nl, levels32(vld1q_s8(iq4_levels), nibbles32(b->qs)), s[0] = heads4(w, 18))
EACH_OF_32(mxfp4, levels32(e2m1_plus_12(), nibbles32(b->qs)), s[0] = exponents4(w, 17))

INLINE struct codes32 codes_iq4_xs(const uint8_t *w, int g)
{
    BLOCK(iq4_xs);
    return levels32(vld1q_s8(iq4_levels), nibbles32(b->qs + 16 * g));
}
INLINE void scales_iq4_xs(const uint8_t *w, float32x4_t *s, float32x4_t *m)
{
    BLOCK(iq4_xs);
    int16x8_t by = { 4, 2, 0, -2, -4, -6, -8, -10 };
    uint8x8_t high = vand_u8(vmovn_u16(vshlq_u16(vdupq_n_u16(b->scales_h), by)), vdup_n_u8(0x30));
    uint8x8_t low = vget_low_u8(nibbles_in_order(vcreate_u8(load_u32(b->scales_l))));
    scaled_sum(vorr_u8(low, high), half_at(&b->d), -32.0f, 1.0f, s);
}

INLINE struct codes32 codes_nvfp4(const uint8_t *w, int g)
{
    BLOCK(nvfp4);
    struct codes32 c = levels32(e2m1_plus_12(), nibbles32(b[g / 2].qs + g % 2 * 16));
    int64x2_t low = vreinterpretq_s64_s8(c.low), high = vreinterpretq_s64_s8(c.high);
    return (struct codes32){ vreinterpretq_s8_s64(vzip1q_s64(low, high)), vreinterpretq_s8_s64(vzip2q_s64(low, high)) };
}
/* as half floats the scales are 2^8 too small, and codes are twice the value */
INLINE void scales_nvfp4(const uint8_t *w, float32x4_t *s, float32x4_t *m)
{
    BLOCK(nvfp4);
    uint16x8_t v = vmovl_u8(vcreate_u8(load_u32(b[0].d) | (uint64_t)load_u32(b[1].d) << 32)), nan = vdupq_n_u16(0x7f);
    uint16x8_t half = vshlq_n_u16(vbicq_u16(vandq_u16(v, nan), vceqq_u16(v, nan)), 7);
    s[0] = vmulq_n_f32(vcvt_f32_f16(vreinterpret_f16_u16(vget_low_u16(half))), 128.0f);
    s[1] = vmulq_n_f32(vcvt_f32_f16(vreinterpret_f16_u16(vget_high_u16(half))), 128.0f);
}

/* ---- one scale a block: trits and bits ---- */

/* digit n of base-3 bytes: the integer part of three times the fraction of 3^n v / 256 */
INLINE uint8x16_t trits(uint8x16_t v, uint8x16_t power)
{
    v = vmulq_u8(v, power);
    return vsubq_u8(all_u8(0), vaddq_u8(vcgeq_u8(v, all_u8(86)), vcgeq_u8(v, all_u8(171))));
}

INLINE struct codes32 codes_tq1_0(const uint8_t *w, int g)
{
    static const uint8_t power[5] = { 1, 3, 9, 27, 81 };
    BLOCK(tq1_0);
    if (g < 5) return codes32(trits(vld1q_u8(b->qs), all_u8(power[g])), trits(vld1q_u8(b->qs + 16), all_u8(power[g])));
    uint8x16_t v = vld1q_u8(b->qs + 32), low = trits(v, all_u8(power[2 * g - 10]));
    if (g < 7) return codes32(low, trits(v, all_u8(power[2 * g - 9])));
    uint8x16_t four = vreinterpretq_u8_u32(vdupq_n_u32(load_u32(b->qh)));
    return codes32(low, trits(four, bytes16(0x0303030301010101u, 0x1b1b1b1b09090909u)));
}

INLINE struct codes32 codes_tq2_0(const uint8_t *w, int g)
{
    BLOCK(tq2_0);
    const uint8_t *qs = b->qs + g / 4 * 32;
    return codes32(bits(vld1q_u8(qs), g % 4 * 2, 2), bits(vld1q_u8(qs + 16), g % 4 * 2, 2));
}

/* 0 and 2 */
INLINE struct codes32 codes_q1_0(const uint8_t *w, int g)
{
    BLOCK(q1_0);
    struct codes32 m = bit_masks(vdupq_n_u32(load_u32(b->qs + 4 * g)));
    return (struct codes32){ vandq_s8(m.low, vdupq_n_s8(2)), vandq_s8(m.high, vdupq_n_s8(2)) };
}

INLINE struct codes32 codes_q2_0(const uint8_t *w, int g)
{
    BLOCK(q2_0);
    uint8x16_t v = vcombine_u8(vld1_u8(b[g / 2].qs + g % 2 * 8), vdup_n_u8(0));
    int8x16_t down = vreinterpretq_s8_u32(vdupq_n_u32(0xfafcfe00)); /* 0 -2 -4 -6 */
    uint8x16_t low = vqtbl1q_u8(v, bytes16(0x0101010100000000u, 0x0303030302020202u));
    uint8x16_t high = vqtbl1q_u8(v, bytes16(0x0505050504040404u, 0x0707070706060606u));
    return codes32(vandq_u8(vshlq_u8(low, down), all_u8(3)), vandq_u8(vshlq_u8(high, down), all_u8(3)));
}

INLINE void scales_tq1_0(const uint8_t *w, float32x4_t *s, float32x4_t *m)
{
    BLOCK(tq1_0);
    s[0] = s[1] = vdupq_n_f32(half_at(&b->d));
}
INLINE void scales_tq2_0(const uint8_t *w, float32x4_t *s, float32x4_t *m)
{
    BLOCK(tq2_0);
    s[0] = s[1] = vdupq_n_f32(half_at(&b->d));
}
INLINE void scales_q1_0(const uint8_t *w, float32x4_t *s, float32x4_t *m) { s[0] = vdupq_n_f32(half_at(w)); }
INLINE void scales_q2_0(const uint8_t *w, float32x4_t *s, float32x4_t *m)
{
    s[0] = vcombine_f32(vdup_n_f32(half_at(w)), vdup_n_f32(half_at(w + sizeof(struct block_q2_0))));
}
