/* iquants - blocks of 256 weights chosen in vectors from a codebook (IQ1, IQ2, IQ3), or one by one from 16 uneven levels (IQ4).
 * Source of the layouts: ggml-common.h. g = group of 32 weights, v = vector; half floats d; fields in the order of the file.
 *
 *   iq2_xxs   66 bytes   d, per g: qs[4] signs u32         vector 4g + j: grid[qs[j]], 7 sign bits 7j.. of signs; top 4 bits: scale of g
 *   iq2_xs    74 bytes   d qs[32] u16 scales[8]            qs[v]: 9 bits index, 7 bits signs; 4-bit scales of 16 weights, low nibble first
 *   iq2_s     82 bytes   d qs[32] signs[32] qh[8] scales[8]    index = qs[v] + 256 * bits 2(v % 4).. of qh[v / 4]; 8 signs; scales: iq2_xs
 *             w = (d * (scale + 0.5) / 4) * level, levels 8 25 43
 *   iq3_xxs   98 bytes   d qs[64] signs[8] u32             vectors of 4; signs and scale of g as iq2_xxs, 7 bits for two vectors
 *             w = (d * (scale + 0.5) / 2) * level, levels 4 12 20 28 36 44 52 62
 *   iq3_s    110 bytes   d qs[64] qh[8] signs[32] scales[4]    index = qs[v] + 256 * bit v % 8 of qh[v / 8]; scale of g: nibble g
 *             w = (d * (2 scale + 1)) * level, levels 1 3 .. 15
 *   iq1_s     50 bytes   d qs[32] qh[8] u16                index = qs[v] + 256 * bits 3(v % 4).. of qh[g]; bits 12..14 scale, bit 15 shift
 *   iq1_m     56 bytes   qs[32] qh[16] scales[4] u16       index = qs[v] + 256 * low 3 bits of nibble v of qh, its top bit the shift;
 *             3-bit scale of 16 weights: bits 3(i % 4).. of scales[i / 4]; top nibbles of scales[0..3]: d, its lowest nibble first
 *             w = (d * (2 scale + 1)) * (level +- 1/8), levels -1 0 1: code = 8 * level +- 1, the scale an eighth
 *   iq4_nl    18 bytes, 32 weights    d qs[16]             low nibble = weight i, high = i + 16.  w = d * iq4_levels[q]
 *   iq4_xs   136 bytes   d scales_h u16, scales_l[4], qs[128]  16 bytes per g as iq4_nl; scale: nibble g of scales_l + 16 *
 *             bits 2g.. of scales_h
 *             w = (d * (scale - 32)) * iq4_levels[q]
 *
 * struct parts: q[v] the index, sign[v] (IQ1: the shift), sc[] as stored; iq4: q the element, sc the six bits. */
#include "ggml-like/formats/formats.h"
#include <string.h>

/* ---- from parts to codes ---- */

static void codes_of_iq2(struct codes *out, const struct parts *p, const uint16_t *grid)
{
    for (int v = 0; v < 32; v++)
        for (int i = 0; i < 8; i++) {
            int8_t level = entry_code_8(iq2_levels, grid[p->q[v]], i);
            out->code[8 * v + i] = (int8_t)(p->sign[v] >> i & 1 ? -level : level);
        }
}

static void codes_of_iq3(struct codes *out, const struct parts *p, const uint16_t *grid, const int8_t levels[8])
{
    for (int v = 0; v < 64; v++)
        for (int i = 0; i < 4; i++) {
            int8_t level = entry_code_4(levels, grid[p->q[v]], i);
            out->code[4 * v + i] = (int8_t)(p->sign[v / 2] >> (v % 2 * 4 + i) & 1 ? -level : level);
        }
}

/* `vectors` vectors share a shift */
static void codes_of_iq1(struct codes *out, const struct parts *p, int vectors)
{
    for (int v = 0; v < 32; v++)
        for (int i = 0; i < 8; i++)
            out->code[8 * v + i] = (int8_t)(8 * entry_code_8(iq1_levels, iq1_grid[p->q[v]], i) + (p->sign[v / vectors] ? -1 : 1));
}

/* scale[g] = d * (sc + add) * factor */
static void scales_of(struct codes *out, const struct parts *p, int n, float add, float factor)
{
    float d = f16_to_f32(p->d);
    for (int g = 0; g < n; g++) out->scale[g] = d * (add + (float)p->sc[g]) * factor, out->min[g] = 0.0f;
}

/* four 7-bit sign fields and a 4-bit scale in one word: iq2_xxs, iq3_xxs */
static uint32_t join_signs(const uint8_t sign[4], uint8_t sc)
{
    uint32_t word = (uint32_t)sc << 28;
    for (int j = 0; j < 4; j++) word |= (uint32_t)(sign[j] & 127) << 7 * j;
    return word;
}

static uint8_t split_signs(uint32_t word, uint8_t sign[4])
{
    for (int j = 0; j < 4; j++) sign[j] = signs_of_7(word >> 7 * j);
    return (uint8_t)(word >> 28);
}

/* two 4-bit scales in a byte, the first low */
static void join_nibbles(uint8_t *to, const uint8_t *sc, int n)
{
    for (int i = 0; i < n / 2; i++) to[i] = (uint8_t)(sc[2 * i] | sc[2 * i + 1] << 4);
}

static void split_nibbles(const uint8_t *from, uint8_t *sc, int n)
{
    for (int i = 0; i < n; i++) sc[i] = from[i / 2] >> i % 2 * 4 & 15;
}

/* ---- iq2 ---- */

static void join_iq2_xxs(const struct parts *p, void *block)
{
    struct block_iq2_xxs *b = block;
    b->d = p->d;
    for (int g = 0; g < 8; g++) {
        for (int j = 0; j < 4; j++) b->group[g].qs[j] = (uint8_t)p->q[4 * g + j];
        b->group[g].signs = join_signs(p->sign + 4 * g, p->sc[g]);
    }
}

static void split_iq2_xxs(const void *block, struct parts *p)
{
    const struct block_iq2_xxs *b = block;
    *p = (struct parts){ .d = b->d };
    for (int g = 0; g < 8; g++) {
        for (int j = 0; j < 4; j++) p->q[4 * g + j] = b->group[g].qs[j];
        p->sc[g] = split_signs(b->group[g].signs, p->sign + 4 * g);
    }
}

static void unpack_iq2_xxs(const void *block, struct codes *out)
{
    struct parts p;
    split_iq2_xxs(block, &p);
    scales_of(out, &p, 8, 0.5f, 0.25f);
    codes_of_iq2(out, &p, iq2_xxs_grid);
}

static void join_iq2_xs(const struct parts *p, void *block)
{
    struct block_iq2_xs *b = block;
    b->d = p->d;
    for (int v = 0; v < 32; v++) b->qs[v] = (uint16_t)(p->q[v] | (p->sign[v] & 127) << 9);
    join_nibbles(b->scales, p->sc, 16);
}

static void split_iq2_xs(const void *block, struct parts *p)
{
    const struct block_iq2_xs *b = block;
    *p = (struct parts){ .d = b->d };
    for (int v = 0; v < 32; v++) p->q[v] = b->qs[v] & 511, p->sign[v] = signs_of_7(b->qs[v] >> 9);
    split_nibbles(b->scales, p->sc, 16);
}

static void unpack_iq2_xs(const void *block, struct codes *out)
{
    struct parts p;
    split_iq2_xs(block, &p);
    scales_of(out, &p, 16, 0.5f, 0.25f);
    codes_of_iq2(out, &p, iq2_xs_grid);
}

static void join_iq2_s(const struct parts *p, void *block)
{
    struct block_iq2_s *b = block;
    b->d = p->d;
    for (int v = 0; v < 32; v++) b->qs[v] = (uint8_t)p->q[v];
    for (int g = 0; g < 8; g++) {
        const uint16_t *q = p->q + 4 * g;
        b->qh[g] = (uint8_t)(q[0] >> 8 | q[1] >> 8 << 2 | q[2] >> 8 << 4 | q[3] >> 8 << 6);
    }
    memcpy(b->signs, p->sign, sizeof b->signs);
    join_nibbles(b->scales, p->sc, 16);
}

static void split_iq2_s(const void *block, struct parts *p)
{
    const struct block_iq2_s *b = block;
    *p = (struct parts){ .d = b->d };
    for (int v = 0; v < 32; v++) p->q[v] = (uint16_t)(b->qs[v] | (b->qh[v / 4] >> v % 4 * 2 & 3) << 8);
    memcpy(p->sign, b->signs, sizeof b->signs);
    split_nibbles(b->scales, p->sc, 16);
}

static void unpack_iq2_s(const void *block, struct codes *out)
{
    struct parts p;
    split_iq2_s(block, &p);
    scales_of(out, &p, 16, 0.5f, 0.25f);
    codes_of_iq2(out, &p, iq2_s_grid);
}

/* ---- iq3 ---- */

static void join_iq3_xxs(const struct parts *p, void *block)
{
    struct block_iq3_xxs *b = block;
    b->d = p->d;
    for (int v = 0; v < 64; v++) b->qs[v] = (uint8_t)p->q[v];
    for (int g = 0; g < 8; g++) b->signs[g] = join_signs(p->sign + 4 * g, p->sc[g]);
}

static void split_iq3_xxs(const void *block, struct parts *p)
{
    const struct block_iq3_xxs *b = block;
    *p = (struct parts){ .d = b->d };
    for (int v = 0; v < 64; v++) p->q[v] = b->qs[v];
    for (int g = 0; g < 8; g++) p->sc[g] = split_signs(b->signs[g], p->sign + 4 * g);
}

static void unpack_iq3_xxs(const void *block, struct codes *out)
{
    struct parts p;
    split_iq3_xxs(block, &p);
    scales_of(out, &p, 8, 0.5f, 0.5f);
    codes_of_iq3(out, &p, iq3_xxs_grid, iq3_xxs_levels);
}

static void join_iq3_s(const struct parts *p, void *block)
{
    struct block_iq3_s *b = block;
    b->d = p->d;
    for (int v = 0; v < 64; v++) b->qs[v] = (uint8_t)p->q[v];
    for (int g = 0; g < 8; g++) {
        int high = 0;
        for (int j = 0; j < 8; j++) high |= p->q[8 * g + j] >> 8 << j;
        b->qh[g] = (uint8_t)high;
    }
    memcpy(b->signs, p->sign, sizeof b->signs);
    join_nibbles(b->scales, p->sc, 8);
}

static void split_iq3_s(const void *block, struct parts *p)
{
    const struct block_iq3_s *b = block;
    *p = (struct parts){ .d = b->d };
    for (int v = 0; v < 64; v++) p->q[v] = (uint16_t)(b->qs[v] | (b->qh[v / 8] >> v % 8 & 1) << 8);
    memcpy(p->sign, b->signs, sizeof b->signs);
    split_nibbles(b->scales, p->sc, 8);
}

static void unpack_iq3_s(const void *block, struct codes *out)
{
    struct parts p;
    split_iq3_s(block, &p);
    scales_of(out, &p, 8, 0.5f, 2.0f);
    codes_of_iq3(out, &p, iq3_s_grid, iq3_s_levels);
}

/* ---- iq1 ---- */

static void join_iq1_s(const struct parts *p, void *block)
{
    struct block_iq1_s *b = block;
    b->d = p->d;
    for (int g = 0; g < 8; g++) {
        int high = p->sc[g] << 12 | (p->sign[g] & 1) << 15;
        for (int j = 0; j < 4; j++) {
            b->qs[4 * g + j] = (uint8_t)p->q[4 * g + j];
            high |= p->q[4 * g + j] >> 8 << 3 * j;
        }
        b->qh[g] = (uint16_t)high;
    }
}

static void split_iq1_s(const void *block, struct parts *p)
{
    const struct block_iq1_s *b = block;
    *p = (struct parts){ .d = b->d };
    for (int v = 0; v < 32; v++) p->q[v] = (uint16_t)(b->qs[v] | (b->qh[v / 4] >> v % 4 * 3 & 7) << 8);
    for (int g = 0; g < 8; g++) p->sc[g] = b->qh[g] >> 12 & 7, p->sign[g] = (uint8_t)(b->qh[g] >> 15);
}

static void unpack_iq1_s(const void *block, struct codes *out)
{
    struct parts p;
    split_iq1_s(block, &p);
    scales_of(out, &p, 8, 0.5f, 0.25f);
    codes_of_iq1(out, &p, 4);
}

static void join_iq1_m(const struct parts *p, void *block)
{
    struct block_iq1_m *b = block;
    for (int v = 0; v < 32; v++) b->qs[v] = (uint8_t)p->q[v];
    for (int i = 0; i < 16; i++) {
        int low = p->q[2 * i] >> 8 | (p->sign[2 * i] & 1) << 3, high = p->q[2 * i + 1] >> 8 | (p->sign[2 * i + 1] & 1) << 3;
        b->qh[i] = (uint8_t)(low | high << 4);
    }
    for (int i = 0; i < 4; i++) {
        const uint8_t *sc = p->sc + 4 * i;
        b->scales[i] = (uint16_t)(sc[0] | sc[1] << 3 | sc[2] << 6 | sc[3] << 9 | (p->d >> 4 * i & 15) << 12);
    }
}

static void split_iq1_m(const void *block, struct parts *p)
{
    const struct block_iq1_m *b = block;
    *p = (struct parts){ .d = 0 };
    for (int i = 0; i < 4; i++) p->d |= (uint16_t)(b->scales[i] >> 12 << 4 * i);
    for (int i = 0; i < 16; i++) p->sc[i] = b->scales[i / 4] >> i % 4 * 3 & 7;
    for (int v = 0; v < 32; v++) {
        int nibble = b->qh[v / 2] >> v % 2 * 4 & 15;
        p->q[v] = (uint16_t)(b->qs[v] | (nibble & 7) << 8);
        p->sign[v] = (uint8_t)(nibble >> 3);
    }
}

static void unpack_iq1_m(const void *block, struct codes *out)
{
    struct parts p;
    split_iq1_m(block, &p);
    scales_of(out, &p, 16, 0.5f, 0.25f);
    codes_of_iq1(out, &p, 1);
}

/* ---- iq4 ---- */

static void join_iq4_nl(const struct parts *p, void *block)
{
    struct block_iq4_nl *b = block;
    b->d = p->d;
    for (int i = 0; i < 16; i++) b->qs[i] = (uint8_t)(p->q[i] | p->q[i + 16] << 4);
}

static void split_iq4_nl(const void *block, struct parts *p)
{
    const struct block_iq4_nl *b = block;
    *p = (struct parts){ .d = b->d };
    for (int i = 0; i < 16; i++) p->q[i] = b->qs[i] & 15, p->q[i + 16] = b->qs[i] >> 4;
}

static void unpack_iq4_nl(const void *block, struct codes *out)
{
    const struct block_iq4_nl *b = block;
    for (int i = 0; i < 16; i++) out->code[i] = iq4_levels[b->qs[i] & 15], out->code[i + 16] = iq4_levels[b->qs[i] >> 4];
    out->scale[0] = f16_to_f32(b->d), out->min[0] = 0.0f;
}

static void join_iq4_xs(const struct parts *p, void *block)
{
    struct block_iq4_xs *b = block;
    int high = 0;
    b->d = p->d;
    for (int g = 0; g < 8; g++) {
        high |= p->sc[g] >> 4 << 2 * g;
        for (int i = 0; i < 16; i++) b->qs[16 * g + i] = (uint8_t)(p->q[32 * g + i] | p->q[32 * g + i + 16] << 4);
    }
    b->scales_h = (uint16_t)high;
    for (int i = 0; i < 4; i++) b->scales_l[i] = (uint8_t)((p->sc[2 * i] & 15) | (p->sc[2 * i + 1] & 15) << 4);
}

static void split_iq4_xs(const void *block, struct parts *p)
{
    const struct block_iq4_xs *b = block;
    *p = (struct parts){ .d = b->d };
    for (int g = 0; g < 8; g++) {
        p->sc[g] = (uint8_t)((b->scales_l[g / 2] >> g % 2 * 4 & 15) | (b->scales_h >> 2 * g & 3) << 4);
        for (int i = 0; i < 16; i++) p->q[32 * g + i] = b->qs[16 * g + i] & 15, p->q[32 * g + i + 16] = b->qs[16 * g + i] >> 4;
    }
}

static void unpack_iq4_xs(const void *block, struct codes *out)
{
    struct parts p;
    split_iq4_xs(block, &p);
    scales_of(out, &p, 8, -32.0f, 1.0f);
    for (int i = 0; i < 256; i++) out->code[i] = iq4_levels[p.q[i]];
}

#define ROW(id, upper, n, group, max)                                                                                                      \
    const struct dtype dtype_##id = {                                                                                                      \
        .name = #id, .gguf_name = #upper, .gguf_id = GGUF_##upper, .block_len = n, .block_bytes = sizeof(struct block_##id),               \
        .group_len = group, .code_max = max, .unpack = unpack_##id, .join = join_##id, .split = split_##id,                                \
    }
ROW(iq1_s, IQ1_S, 256, 32, 9);
ROW(iq1_m, IQ1_M, 256, 16, 9);
ROW(iq2_xxs, IQ2_XXS, 256, 32, 43);
ROW(iq2_xs, IQ2_XS, 256, 16, 43);
ROW(iq2_s, IQ2_S, 256, 16, 43);
ROW(iq3_xxs, IQ3_XXS, 256, 32, 62);
ROW(iq3_s, IQ3_S, 256, 32, 15);
ROW(iq4_nl, IQ4_NL, 32, 32, 127);
ROW(iq4_xs, IQ4_XS, 256, 32, 127);
