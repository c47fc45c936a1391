/* kquants - superblocks of 256 weights whose group scales (and minima) are themselves small integers times a half float.
 * Source of the layouts: ggml-common.h. g = group, h = half (128 weights), all within one block.
 *
 *   q2_k   84 bytes, 16 groups of 16    scales[16] qs[64] d dmin
 *          scales[g]: low nibble = scale, high = min.  Weight 128h + 32k + l: bits 2k..2k+1 of qs[32h + l].
 *          w = (d * scale) * q - dmin * min
 *   q3_k  110 bytes, 16 groups of 16    hmask[32] qs[64] scales[12] d
 *          low bits as q2_k; bit i / 32 of hmask[i % 32] set = do not subtract 4.  w = (d * (scale - 32)) * (q - 4)
 *          scale g, 6 bits: low four = nibble g / 8 of scales[g % 8], high two = bits 2(g / 4).. of scales[8 + g % 4]
 *   q4_k  144 bytes, 8 groups of 32     d dmin scales[12] qs[128]
 *          weights 64c .. 64c+31 = low nibbles of qs[32c ..], 64c+32 .. = high nibbles.  w = (d * scale) * q - dmin * min
 *          scales, 6 bits each:  byte g (0..3)    hh ssssss   scale g, top two bits of scale g + 4
 *                                byte g + 4       hh mmmmmm   min g,   top two bits of min g + 4
 *                                byte g + 8       mmmm ssss   low four bits of scale g + 4 and min g + 4
 *   q5_k  176 bytes, 8 groups of 32     d dmin scales[12] qh[32] qs[128]      q4_k plus 16 * bit g of qh[i % 32]
 *   q6_k  210 bytes, 16 groups of 16    ql[128] qh[64] scales[16] int8, d
 *          weight 128h + 32k + l: nibble k / 2 of ql[64h + 32(k % 2) + l], plus 16 * bits 2k.. of qh[32h + l].  w = (d * scale) * (q - 32)
 *   q8_k  292 bytes                     d f32, qs[256] int8, bsums[16] int16 (sums of 16 codes; ignored here).  w = d * q
 *
 * struct parts: sc and m per group as stored (q3_k 0..63, q6_k the int8 as a byte), q unsigned; q8_k: d32, q the int8 as a byte,
 * join makes the sums.
 * pack rounds to nearest with absmax or min/max scales. It does not search for better scales: that is the work of quant/. */
#include "ggml-like/formats/formats.h"
#include <math.h>
#include <string.h>

/* ---- the twelve bytes of q4_k and q5_k ---- */

static void unpack_scale_min(const uint8_t s[12], int g, int *scale, int *min)
{
    if (g < 4) {
        *scale = s[g] & 63;
        *min = s[g + 4] & 63;
    } else {
        *scale = (s[g + 4] & 15) | s[g - 4] >> 6 << 4;
        *min = s[g + 4] >> 4 | s[g] >> 6 << 4;
    }
}

static void pack_scale_min(uint8_t s[12], const int scale[8], const int min[8])
{
    for (int g = 0; g < 4; g++) {
        s[g] = (uint8_t)(scale[g] | scale[g + 4] >> 4 << 6);
        s[g + 4] = (uint8_t)(min[g] | min[g + 4] >> 4 << 6);
        s[g + 8] = (uint8_t)((scale[g + 4] & 15) | (min[g + 4] & 15) << 4);
    }
}

static void scale_mins(struct codes *out, const uint8_t s[12], float d, float dmin)
{
    for (int g = 0; g < 8; g++) {
        int scale, min;
        unpack_scale_min(s, g, &scale, &min);
        out->scale[g] = d * (float)scale;
        out->min[g] = -(dmin * (float)min);
    }
}

/* ---- fitting, shared by the packs ---- */

static int nearest(float v, int lo, int hi)
{
    v = rintf(v);
    return v >= (float)hi ? hi : v > (float)lo ? (int)v : lo; /* NaN: lo */
}

static float inverse(float v) { return v != 0.0f && isfinite(1.0f / v) ? 1.0f / v : 0.0f; }

struct fit {
    uint16_t d, dmin;
    int scale[16], min[16], q[256];
};

/* w = (d * scale) * q - dmin * min with q in 0..q_top, scale and min in 0..s_top. Zero is always inside the range. */
static void fit_range(struct fit *f, const float *x, int group_len, int q_top, int s_top)
{
    int n_groups = 256 / group_len;
    float step[16], low[16], step_max = 0.0f, low_max = 0.0f;
    for (int g = 0; g < n_groups; g++) {
        float lo = 0.0f, hi = 0.0f;
        for (int i = g * group_len; i < (g + 1) * group_len; i++) lo = fminf(lo, x[i]), hi = fmaxf(hi, x[i]);
        step[g] = (hi - lo) / (float)q_top;
        low[g] = -lo;
        step_max = fmaxf(step_max, step[g]), low_max = fmaxf(low_max, low[g]);
    }
    f->d = f32_to_f16(step_max / (float)s_top), f->dmin = f32_to_f16(low_max / (float)s_top);
    float d = f16_to_f32(f->d), dmin = f16_to_f32(f->dmin), inv_d = inverse(d), inv_dmin = inverse(dmin);
    for (int g = 0; g < n_groups; g++) {
        f->scale[g] = nearest(step[g] * inv_d, 0, s_top), f->min[g] = nearest(low[g] * inv_dmin, 0, s_top);
        float inv = inverse(d * (float)f->scale[g]), offset = dmin * (float)f->min[g];
        for (int i = g * group_len; i < (g + 1) * group_len; i++) f->q[i] = nearest((x[i] + offset) * inv, 0, q_top);
    }
}

/* w = (d * scale) * q with q in -q_half..q_half-1 and scale in -s_half..s_half-1. The largest weight of a group gets -q_half. */
static void fit_symmetric(struct fit *f, const float *x, int q_half, int s_half)
{
    float step[16], step_max = 0.0f;
    for (int g = 0; g < 16; g++) {
        float largest = 0.0f;
        for (int i = g * 16; i < (g + 1) * 16; i++)
            if (fabsf(x[i]) > fabsf(largest)) largest = x[i];
        step[g] = largest / (float)-q_half;
        if (fabsf(step[g]) > fabsf(step_max)) step_max = step[g];
    }
    f->d = f32_to_f16(step_max / (float)-s_half);
    float d = f16_to_f32(f->d), inv_d = inverse(d);
    for (int g = 0; g < 16; g++) {
        f->scale[g] = nearest(step[g] * inv_d, -s_half, s_half - 1);
        float inv = inverse(d * (float)f->scale[g]);
        for (int i = g * 16; i < (g + 1) * 16; i++) f->q[i] = nearest(x[i] * inv, -q_half, q_half - 1);
    }
}

/* ---- q2_k ---- */

static void unpack_q2_k(const void *block, struct codes *out)
{
    const struct block_q2_k *b = block;
    float d = f16_to_f32(b->d), dmin = f16_to_f32(b->dmin);
    for (int g = 0; g < 16; g++) {
        out->scale[g] = d * (float)(b->scales[g] & 15);
        out->min[g] = -(dmin * (float)(b->scales[g] >> 4));
    }
    for (int i = 0; i < 256; i++) out->code[i] = b->qs[i / 128 * 32 + i % 32] >> i / 32 % 4 * 2 & 3;
}

static void pack_q2_k(const float *x, void *block)
{
    struct block_q2_k *b = block;
    struct fit f;
    fit_range(&f, x, 16, 3, 15);
    memset(b, 0, sizeof *b);
    b->d = f.d, b->dmin = f.dmin;
    for (int g = 0; g < 16; g++) b->scales[g] = (uint8_t)(f.scale[g] | f.min[g] << 4);
    for (int i = 0; i < 256; i++) b->qs[i / 128 * 32 + i % 32] |= (uint8_t)(f.q[i] << i / 32 % 4 * 2);
}

/* ---- q3_k ---- */

static void unpack_q3_k(const void *block, struct codes *out)
{
    const struct block_q3_k *b = block;
    float d = f16_to_f32(b->d);
    for (int g = 0; g < 16; g++) {
        int scale = (b->scales[g % 8] >> g / 8 * 4 & 15) | (b->scales[8 + g % 4] >> g / 4 * 2 & 3) << 4;
        out->scale[g] = d * (float)(scale - 32);
        out->min[g] = 0.0f;
    }
    for (int i = 0; i < 256; i++) {
        int low = b->qs[i / 128 * 32 + i % 32] >> i / 32 % 4 * 2 & 3, high = b->hmask[i % 32] >> i / 32 & 1;
        out->code[i] = (int8_t)(low + 4 * high - 4);
    }
}

static void pack_q3_k(const float *x, void *block)
{
    struct block_q3_k *b = block;
    struct fit f;
    fit_symmetric(&f, x, 4, 32);
    memset(b, 0, sizeof *b);
    b->d = f.d;
    for (int g = 0; g < 16; g++) {
        int scale = f.scale[g] + 32;
        b->scales[g % 8] |= (uint8_t)((scale & 15) << g / 8 * 4);
        b->scales[8 + g % 4] |= (uint8_t)(scale >> 4 << g / 4 * 2);
    }
    for (int i = 0; i < 256; i++) {
        int q = f.q[i] + 4;
        b->qs[i / 128 * 32 + i % 32] |= (uint8_t)((q & 3) << i / 32 % 4 * 2);
        b->hmask[i % 32] |= (uint8_t)(q >> 2 << i / 32);
    }
}

/* ---- q4_k ---- */

static void unpack_q4_k(const void *block, struct codes *out)
{
    const struct block_q4_k *b = block;
    scale_mins(out, b->scales, f16_to_f32(b->d), f16_to_f32(b->dmin));
    for (int i = 0; i < 256; i++) out->code[i] = b->qs[i / 64 * 32 + i % 32] >> i / 32 % 2 * 4 & 15;
}

static void pack_q4_k(const float *x, void *block)
{
    struct block_q4_k *b = block;
    struct fit f;
    fit_range(&f, x, 32, 15, 63);
    memset(b, 0, sizeof *b);
    b->d = f.d, b->dmin = f.dmin;
    pack_scale_min(b->scales, f.scale, f.min);
    for (int i = 0; i < 256; i++) b->qs[i / 64 * 32 + i % 32] |= (uint8_t)(f.q[i] << i / 32 % 2 * 4);
}

/* ---- q5_k ---- */

static void unpack_q5_k(const void *block, struct codes *out)
{
    const struct block_q5_k *b = block;
    scale_mins(out, b->scales, f16_to_f32(b->d), f16_to_f32(b->dmin));
    for (int i = 0; i < 256; i++) {
        int low = b->qs[i / 64 * 32 + i % 32] >> i / 32 % 2 * 4 & 15, high = b->qh[i % 32] >> i / 32 & 1;
        out->code[i] = (int8_t)(low | high << 4);
    }
}

static void pack_q5_k(const float *x, void *block)
{
    struct block_q5_k *b = block;
    struct fit f;
    fit_range(&f, x, 32, 31, 63);
    memset(b, 0, sizeof *b);
    b->d = f.d, b->dmin = f.dmin;
    pack_scale_min(b->scales, f.scale, f.min);
    for (int i = 0; i < 256; i++) {
        b->qs[i / 64 * 32 + i % 32] |= (uint8_t)((f.q[i] & 15) << i / 32 % 2 * 4);
        b->qh[i % 32] |= (uint8_t)(f.q[i] >> 4 << i / 32);
    }
}

/* ---- q6_k ---- */

static void unpack_q6_k(const void *block, struct codes *out)
{
    const struct block_q6_k *b = block;
    float d = f16_to_f32(b->d);
    for (int g = 0; g < 16; g++) out->scale[g] = d * (float)b->scales[g], out->min[g] = 0.0f;
    for (int i = 0; i < 256; i++) {
        int h = i / 128, k = i / 32 % 4, l = i % 32;
        int low = b->ql[64 * h + 32 * (k % 2) + l] >> k / 2 * 4 & 15, high = b->qh[32 * h + l] >> 2 * k & 3;
        out->code[i] = (int8_t)((low | high << 4) - 32);
    }
}

static void pack_q6_k(const float *x, void *block)
{
    struct block_q6_k *b = block;
    struct fit f;
    fit_symmetric(&f, x, 32, 128);
    memset(b, 0, sizeof *b);
    b->d = f.d;
    for (int g = 0; g < 16; g++) b->scales[g] = (int8_t)f.scale[g];
    for (int i = 0; i < 256; i++) {
        int h = i / 128, k = i / 32 % 4, l = i % 32, q = f.q[i] + 32;
        b->ql[64 * h + 32 * (k % 2) + l] |= (uint8_t)((q & 15) << k / 2 * 4);
        b->qh[32 * h + l] |= (uint8_t)(q >> 4 << 2 * k);
    }
}

/* ---- q8_k ---- */

static void unpack_q8_k(const void *block, struct codes *out)
{
    const struct block_q8_k *b = block;
    memcpy(out->code, b->qs, sizeof b->qs);
    for (int g = 0; g < 8; g++) out->scale[g] = b->d, out->min[g] = 0.0f;
}

static void pack_q8_k(const float *x, void *block)
{
    struct block_q8_k *b = block;
    float largest = 0.0f;
    for (int i = 0; i < 256; i++)
        if (fabsf(x[i]) > fabsf(largest)) largest = x[i];
    float inv = largest != 0.0f ? -127.0f / largest : 0.0f;
    if (!isfinite(inv)) inv = 0.0f;
    b->d = inverse(inv);
    for (int g = 0; g < 16; g++) {
        int sum = 0;
        for (int i = g * 16; i < (g + 1) * 16; i++) sum += b->qs[i] = (int8_t)nearest(x[i] * inv, -127, 127);
        b->bsums[g] = (int16_t)sum;
    }
}

/* ---- join and split ---- */

/* codes of two bits, four to a byte, 32 apart: q2_k, q3_k */
static void join_pairs(const uint16_t *q, uint8_t qs[64])
{
    for (int h = 0; h < 2; h++, q += 128)
        for (int l = 0; l < 32; l++)
            qs[32 * h + l] = (uint8_t)((q[l] & 3) | (q[l + 32] & 3) << 2 | (q[l + 64] & 3) << 4 | (q[l + 96] & 3) << 6);
}

/* low nibble 32 before the high one: q4_k, q5_k */
static void join_halves(const uint16_t *q, uint8_t qs[128])
{
    for (int c = 0; c < 4; c++, q += 64)
        for (int l = 0; l < 32; l++) qs[32 * c + l] = (uint8_t)((q[l] & 15) | (q[l + 32] & 15) << 4);
}

/* bit `at` of weight 32j + l is bit j of to[l] */
static void join_bits(const uint16_t *q, uint8_t to[32], int at)
{
    uint16_t sum[32] = { 0 }; /* 16 bits wide as q: the loops become vectors */
    for (int j = 0; j < 8; j++)
        for (int l = 0; l < 32; l++) sum[l] |= (uint16_t)((q[32 * j + l] >> at & 1) << j);
    for (int l = 0; l < 32; l++) to[l] = (uint8_t)sum[l];
}

static void join_scale_min(uint8_t s[12], const uint8_t sc[8], const uint8_t m[8])
{
    for (int g = 0; g < 4; g++) {
        s[g] = (uint8_t)(sc[g] | sc[g + 4] >> 4 << 6);
        s[g + 4] = (uint8_t)(m[g] | m[g + 4] >> 4 << 6);
        s[g + 8] = (uint8_t)((sc[g + 4] & 15) | (m[g + 4] & 15) << 4);
    }
}

static void split_scale_min(struct parts *p, const uint8_t s[12])
{
    for (int g = 0; g < 8; g++) {
        int scale, min;
        unpack_scale_min(s, g, &scale, &min);
        p->sc[g] = (uint8_t)scale, p->m[g] = (uint8_t)min;
    }
}

static void join_q2_k(const struct parts *p, void *block)
{
    struct block_q2_k *b = block;
    b->d = p->d, b->dmin = p->dmin;
    for (int g = 0; g < 16; g++) b->scales[g] = (uint8_t)(p->sc[g] | p->m[g] << 4);
    join_pairs(p->q, b->qs);
}

static void split_q2_k(const void *block, struct parts *p)
{
    const struct block_q2_k *b = block;
    *p = (struct parts){ .d = b->d, .dmin = b->dmin };
    for (int g = 0; g < 16; g++) p->sc[g] = b->scales[g] & 15, p->m[g] = b->scales[g] >> 4;
    for (int i = 0; i < 256; i++) p->q[i] = b->qs[i / 128 * 32 + i % 32] >> i / 32 % 4 * 2 & 3;
}

static void join_q3_k(const struct parts *p, void *block)
{
    struct block_q3_k *b = block;
    b->d = p->d;
    for (int g = 0; g < 8; g++) b->scales[g] = (uint8_t)((p->sc[g] & 15) | (p->sc[g + 8] & 15) << 4);
    for (int g = 0; g < 4; g++)
        b->scales[8 + g] = (uint8_t)(p->sc[g] >> 4 | p->sc[g + 4] >> 4 << 2 | p->sc[g + 8] >> 4 << 4 | p->sc[g + 12] >> 4 << 6);
    join_pairs(p->q, b->qs);
    join_bits(p->q, b->hmask, 2);
}

static void split_q3_k(const void *block, struct parts *p)
{
    const struct block_q3_k *b = block;
    *p = (struct parts){ .d = b->d };
    for (int g = 0; g < 16; g++) p->sc[g] = (uint8_t)((b->scales[g % 8] >> g / 8 * 4 & 15) | (b->scales[8 + g % 4] >> g / 4 * 2 & 3) << 4);
    for (int i = 0; i < 256; i++)
        p->q[i] = (uint16_t)((b->qs[i / 128 * 32 + i % 32] >> i / 32 % 4 * 2 & 3) | (b->hmask[i % 32] >> i / 32 & 1) << 2);
}

static void join_q4_k(const struct parts *p, void *block)
{
    struct block_q4_k *b = block;
    b->d = p->d, b->dmin = p->dmin;
    join_scale_min(b->scales, p->sc, p->m);
    join_halves(p->q, b->qs);
}

static void split_q4_k(const void *block, struct parts *p)
{
    const struct block_q4_k *b = block;
    *p = (struct parts){ .d = b->d, .dmin = b->dmin };
    split_scale_min(p, b->scales);
    for (int i = 0; i < 256; i++) p->q[i] = b->qs[i / 64 * 32 + i % 32] >> i / 32 % 2 * 4 & 15;
}

static void join_q5_k(const struct parts *p, void *block)
{
    struct block_q5_k *b = block;
    b->d = p->d, b->dmin = p->dmin;
    join_scale_min(b->scales, p->sc, p->m);
    join_halves(p->q, b->qs);
    join_bits(p->q, b->qh, 4);
}

static void split_q5_k(const void *block, struct parts *p)
{
    const struct block_q5_k *b = block;
    *p = (struct parts){ .d = b->d, .dmin = b->dmin };
    split_scale_min(p, b->scales);
    for (int i = 0; i < 256; i++)
        p->q[i] = (uint16_t)((b->qs[i / 64 * 32 + i % 32] >> i / 32 % 2 * 4 & 15) | (b->qh[i % 32] >> i / 32 & 1) << 4);
}

static void join_q6_k(const struct parts *p, void *block)
{
    struct block_q6_k *b = block;
    b->d = p->d;
    memcpy(b->scales, p->sc, sizeof b->scales);
    for (int h = 0; h < 2; h++)
        for (int l = 0; l < 32; l++) {
            const uint16_t *q = p->q + 128 * h + l;
            b->ql[64 * h + l] = (uint8_t)((q[0] & 15) | (q[64] & 15) << 4);
            b->ql[64 * h + 32 + l] = (uint8_t)((q[32] & 15) | (q[96] & 15) << 4);
            b->qh[32 * h + l] = (uint8_t)(q[0] >> 4 | q[32] >> 4 << 2 | q[64] >> 4 << 4 | q[96] >> 4 << 6);
        }
}

static void split_q6_k(const void *block, struct parts *p)
{
    const struct block_q6_k *b = block;
    *p = (struct parts){ .d = b->d };
    memcpy(p->sc, b->scales, sizeof b->scales);
    for (int i = 0; i < 256; i++) {
        int h = i / 128, k = i / 32 % 4, l = i % 32;
        p->q[i] = (uint16_t)((b->ql[64 * h + 32 * (k % 2) + l] >> k / 2 * 4 & 15) | (b->qh[32 * h + l] >> 2 * k & 3) << 4);
    }
}

static void join_q8_k(const struct parts *p, void *block)
{
    struct block_q8_k *b = block;
    b->d = p->d32;
    for (int g = 0; g < 16; g++) {
        int sum = 0;
        for (int i = g * 16; i < (g + 1) * 16; i++) sum += b->qs[i] = (int8_t)p->q[i];
        b->bsums[g] = (int16_t)sum;
    }
}

static void split_q8_k(const void *block, struct parts *p)
{
    const struct block_q8_k *b = block;
    *p = (struct parts){ .d32 = b->d };
    for (int i = 0; i < 256; i++) p->q[i] = (uint8_t)b->qs[i];
}

const struct dtype dtype_q2_k = {
    .name = "q2_k", .gguf_name = "Q2_K", .gguf_id = GGUF_Q2_K, .block_len = 256, .block_bytes = sizeof(struct block_q2_k),
    .group_len = 16, .has_min = true, .code_bias = 1, .code_max = 2,
    .unpack = unpack_q2_k, .pack = pack_q2_k, .join = join_q2_k, .split = split_q2_k,
};
const struct dtype dtype_q3_k = {
    .name = "q3_k", .gguf_name = "Q3_K", .gguf_id = GGUF_Q3_K, .block_len = 256, .block_bytes = sizeof(struct block_q3_k),
    .group_len = 16, .code_max = 4, .unpack = unpack_q3_k, .pack = pack_q3_k, .join = join_q3_k, .split = split_q3_k,
};
const struct dtype dtype_q4_k = {
    .name = "q4_k", .gguf_name = "Q4_K", .gguf_id = GGUF_Q4_K, .block_len = 256, .block_bytes = sizeof(struct block_q4_k),
    .group_len = 32, .has_min = true, .code_bias = 8, .code_max = 8,
    .unpack = unpack_q4_k, .pack = pack_q4_k, .join = join_q4_k, .split = split_q4_k,
};
const struct dtype dtype_q5_k = {
    .name = "q5_k", .gguf_name = "Q5_K", .gguf_id = GGUF_Q5_K, .block_len = 256, .block_bytes = sizeof(struct block_q5_k),
    .group_len = 32, .has_min = true, .code_bias = 16, .code_max = 16,
    .unpack = unpack_q5_k, .pack = pack_q5_k, .join = join_q5_k, .split = split_q5_k,
};
const struct dtype dtype_q6_k = {
    .name = "q6_k", .gguf_name = "Q6_K", .gguf_id = GGUF_Q6_K, .block_len = 256, .block_bytes = sizeof(struct block_q6_k),
    .group_len = 16, .code_max = 32, .unpack = unpack_q6_k, .pack = pack_q6_k, .join = join_q6_k, .split = split_q6_k,
};
const struct dtype dtype_q8_k = {
    .name = "q8_k", .gguf_name = "Q8_K", .gguf_id = GGUF_Q8_K, .block_len = 256, .block_bytes = sizeof(struct block_q8_k),
    .group_len = 32, .code_max = 128, .unpack = unpack_q8_k, .pack = pack_q8_k, .join = join_q8_k, .split = split_q8_k,
};
