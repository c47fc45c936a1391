/* ternary - blocks with one half float and codes of one or two bits, or of one trit. Source of the layouts: ggml-common.h.
 *   tq1_0   54 bytes, 256 weights   qs[48] qh[4] d     w = d * (q - 1), q a trit: base-3 digits, the first weight highest
 *           a byte b holds v = 81 q0 + 27 q1 + 9 q2 + 3 q3 + q4 as b = ceil(256 v / 243), so that digit n is the integer part of
 *           3 * frac(3^n b / 256). Weight 32n + m: digit n of qs[m], m < 32. 160 + 16n + m: digit n of qs[32 + m].
 *           240 + 4n + m: digit n < 4 of qh[m].
 *           Bytes that are no such b also decode; join never makes them.
 *   tq2_0   66 bytes, 256 weights   qs[64] d           w = d * (q - 1); weight 128h + 32k + l: bits 2k.. of qs[32h + l]. q 0..3
 *   q1_0    18 bytes, 128 weights   d qs[16]           w = d * (2 q - 1); weight i: bit i % 8 of qs[i / 8]
 *   q2_0    18 bytes, 64 weights    d qs[16]           w = d * (q - 1); weight i: bits 2(i % 4).. of qs[i / 4]
 * One scale per block, repeated for every group of 32. */
#include "ggml-like/formats/formats.h"

static void one_scale(struct codes *out, uint16_t d, int n_groups)
{
    for (int g = 0; g < n_groups; g++) out->scale[g] = f16_to_f32(d), out->min[g] = 0.0f;
}

/* ---- tq1_0: n digits of `bytes` bytes; digit j of byte m is q[j * bytes + m] ---- */

static void join_trits(const uint16_t *q, uint8_t *to, int bytes, int n)
{
    for (int m = 0; m < bytes; m++) {
        int v = 0;
        for (int j = 0; j < 5; j++) v = 3 * v + (j < n ? q[j * bytes + m] : 0);
        to[m] = (uint8_t)((v * 256 + 242) / 243);
    }
}

static void split_trits(const uint8_t *from, uint16_t *q, int bytes, int n)
{
    static const uint8_t power[5] = { 1, 3, 9, 27, 81 };
    for (int j = 0; j < n; j++)
        for (int m = 0; m < bytes; m++) q[j * bytes + m] = (uint16_t)((uint8_t)(from[m] * power[j]) * 3 >> 8);
}

static void join_tq1_0(const struct parts *p, void *block)
{
    struct block_tq1_0 *b = block;
    b->d = p->d;
    join_trits(p->q, b->qs, 32, 5);
    join_trits(p->q + 160, b->qs + 32, 16, 5);
    join_trits(p->q + 240, b->qh, 4, 4);
}

static void split_tq1_0(const void *block, struct parts *p)
{
    const struct block_tq1_0 *b = block;
    *p = (struct parts){ .d = b->d };
    split_trits(b->qs, p->q, 32, 5);
    split_trits(b->qs + 32, p->q + 160, 16, 5);
    split_trits(b->qh, p->q + 240, 4, 4);
}

static void unpack_tq1_0(const void *block, struct codes *out)
{
    struct parts p;
    split_tq1_0(block, &p);
    one_scale(out, p.d, 8);
    for (int i = 0; i < 256; i++) out->code[i] = (int8_t)(p.q[i] - 1);
}

/* ---- tq2_0 ---- */

static void join_tq2_0(const struct parts *p, void *block)
{
    struct block_tq2_0 *b = block;
    b->d = p->d;
    for (int h = 0; h < 2; h++)
        for (int l = 0; l < 32; l++) {
            const uint16_t *q = p->q + 128 * h + l;
            b->qs[32 * h + l] = (uint8_t)(q[0] | q[32] << 2 | q[64] << 4 | q[96] << 6);
        }
}

static void split_tq2_0(const void *block, struct parts *p)
{
    const struct block_tq2_0 *b = block;
    *p = (struct parts){ .d = b->d };
    for (int i = 0; i < 256; i++) p->q[i] = b->qs[i / 128 * 32 + i % 32] >> i / 32 % 4 * 2 & 3;
}

static void unpack_tq2_0(const void *block, struct codes *out)
{
    const struct block_tq2_0 *b = block;
    one_scale(out, b->d, 8);
    for (int i = 0; i < 256; i++) out->code[i] = (int8_t)((b->qs[i / 128 * 32 + i % 32] >> i / 32 % 4 * 2 & 3) - 1);
}

/* ---- q1_0 ---- */

static void join_q1_0(const struct parts *p, void *block)
{
    struct block_q1_0 *b = block;
    b->d = p->d;
    for (int i = 0; i < 16; i++) {
        int byte = 0;
        for (int j = 0; j < 8; j++) byte |= p->q[8 * i + j] << j;
        b->qs[i] = (uint8_t)byte;
    }
}

static void split_q1_0(const void *block, struct parts *p)
{
    const struct block_q1_0 *b = block;
    *p = (struct parts){ .d = b->d };
    for (int i = 0; i < 128; i++) p->q[i] = b->qs[i / 8] >> i % 8 & 1;
}

static void unpack_q1_0(const void *block, struct codes *out)
{
    const struct block_q1_0 *b = block;
    one_scale(out, b->d, 4);
    for (int i = 0; i < 128; i++) out->code[i] = (int8_t)(2 * (b->qs[i / 8] >> i % 8 & 1) - 1);
}

/* ---- q2_0 ---- */

static void join_q2_0(const struct parts *p, void *block)
{
    struct block_q2_0 *b = block;
    b->d = p->d;
    for (int i = 0; i < 16; i++) {
        const uint16_t *q = p->q + 4 * i;
        b->qs[i] = (uint8_t)(q[0] | q[1] << 2 | q[2] << 4 | q[3] << 6);
    }
}

static void split_q2_0(const void *block, struct parts *p)
{
    const struct block_q2_0 *b = block;
    *p = (struct parts){ .d = b->d };
    for (int i = 0; i < 64; i++) p->q[i] = b->qs[i / 4] >> i % 4 * 2 & 3;
}

static void unpack_q2_0(const void *block, struct codes *out)
{
    const struct block_q2_0 *b = block;
    one_scale(out, b->d, 2);
    for (int i = 0; i < 64; i++) out->code[i] = (int8_t)((b->qs[i / 4] >> i % 4 * 2 & 3) - 1);
}

#define ROW(id, upper, n, max)                                                                                                             \
    const struct dtype dtype_##id = {                                                                                                      \
        .name = #id, .gguf_name = #upper, .gguf_id = GGUF_##upper, .block_len = n, .block_bytes = sizeof(struct block_##id),               \
        .group_len = 32, .code_max = max, .unpack = unpack_##id, .join = join_##id, .split = split_##id,                                   \
    }
ROW(tq1_0, TQ1_0, 256, 1);
ROW(tq2_0, TQ2_0, 256, 2);
ROW(q1_0, Q1_0, 128, 1);
ROW(q2_0, Q2_0, 64, 2);
