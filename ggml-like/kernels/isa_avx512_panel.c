/* arch: x86_64  cflags: -mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni */
/* isa_avx512_panel - panel_build for AVX-512. 16 bytes of each of 16 rows are transposed while they are still packed: four registers whose
 * lane r holds four bytes of row r. Codes, scales and sums are then computed for 16 rows at once and stored in the order of the panel.
 * Formats without a function here, the last 1..15 rows of a matrix and the rest of a superblock go through the unpack slots. */
#include "ggml-like/kernels/avx512_blocks.h"
#include "ggml-like/kernels/levels.h"

enum { CHUNK = 256 };

struct rows { const uint8_t *w; size_t stride; }; /* 16 rows, byte 0 of each at w + r * stride */

/* 16 bytes of every row: lane l of q[i] = those of row 4l + i. The inserts take their bytes from memory and need no shuffle port. */
INLINE void gather16(struct rows r, size_t at, __m512i q[4])
{
UNROLL
    for (size_t i = 0; i < 4; i++) {
        const uint8_t *w = r.w + i * r.stride + at;
        q[i] = _mm512_castsi128_si512(load128(w));
        q[i] = _mm512_inserti32x4(q[i], load128(w + 4 * r.stride), 1);
        q[i] = _mm512_inserti32x4(q[i], load128(w + 8 * r.stride), 2);
        q[i] = _mm512_inserti32x4(q[i], load128(w + 12 * r.stride), 3);
    }
}

/* x[j] = bytes at + 4j .. at + 4j + 3 of every row, row = lane */
INLINE void columns16(struct rows r, size_t at, __m512i x[4])
{
    __m512i q[4];
    gather16(r, at, q);
    __m512i a = _mm512_unpacklo_epi32(q[0], q[1]), b = _mm512_unpackhi_epi32(q[0], q[1]);
    __m512i c = _mm512_unpacklo_epi32(q[2], q[3]), d = _mm512_unpackhi_epi32(q[2], q[3]);
    x[0] = _mm512_unpacklo_epi64(a, c), x[1] = _mm512_unpackhi_epi64(a, c);
    x[2] = _mm512_unpacklo_epi64(b, d), x[3] = _mm512_unpackhi_epi64(b, d);
}

/* Where the next columns of the panel go. */
struct to { int8_t *code; float *scale, *csum, *min; };

INLINE struct to panel_at(const struct panel *p, int64_t k)
{
    int64_t group = k / p->group * PANEL_ROWS;
    return (struct to){ p->code + k * PANEL_ROWS, p->scale + group, p->csum + k / 16 * PANEL_ROWS, p->has_min ? p->min + group : NULL };
}

/* Stores four columns and returns the sums of the codes so far. */
INLINE __m512i put_codes(struct to to, int column, __m512i codes, __m512i sum)
{
    _mm512_storeu_si512(to.code + column * PANEL_ROWS, codes);
    return _mm512_dpbusd_epi32(sum, _mm512_set1_epi8(1), codes);
}

INLINE void put_ps(float *p, int group, __m512 v) { _mm512_storeu_ps(p + group * PANEL_ROWS, v); }
INLINE __m512 get_ps(const float *p, int group) { return _mm512_loadu_ps(p + group * PANEL_ROWS); }

/* csum of group of 16 number g, of codes with that sum and scale */
INLINE void put_csum(struct to to, int g, __m512i sum, __m512 scale) { put_ps(to.csum, g, _mm512_mul_ps(_mm512_cvtepi32_ps(sum), scale)); }

INLINE __m512 halves_low(__m512i v) { return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(v)); }
INLINE __m512 halves_high(__m512i v) { return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(v, 16))); }
INLINE __m512 byte_to_ps(__m512i v, int i) { return _mm512_cvtepi32_ps(_mm512_and_si512(_mm512_srli_epi32(v, 8 * i), _mm512_set1_epi32(0xff))); }
INLINE __m512 sbyte_to_ps(__m512i v, int i) { return _mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(v, 24 - 8 * i), 24)); }

/* bits n..n+1 or n..n+3 of every byte, minus bias */
INLINE __m512i two_bits512(__m512i v, int n) { return _mm512_and_si512(_mm512_srli_epi16(v, n), _mm512_set1_epi8(3)); }
INLINE __m512i nibble512(__m512i v, int n) { return _mm512_and_si512(_mm512_srli_epi16(v, n), _mm512_set1_epi8(15)); }

/* low | the bits of mask, taken from bit n.. of every byte of v and moved to bit `to`.. */
INLINE __m512i or_moved(__m512i low, __m512i v, int n, int to, int mask)
{
    __m512i moved = n < to ? _mm512_slli_epi16(v, to - n) : _mm512_srli_epi16(v, n - to);
    return _mm512_ternarylogic_epi32(low, moved, _mm512_set1_epi8((char)mask), 0xf8); /* low | (moved & mask) */
}

/* ---- blocks of 32 ---- */

/* The first 8 bytes of a block of every row: head[0] and head[1]. */
INLINE void heads16(struct rows r, __m512i head[2])
{
    __m512i q[4];
    gather16(r, 0, q);
    __m512i a = _mm512_unpacklo_epi32(q[0], q[1]), b = _mm512_unpacklo_epi32(q[2], q[3]);
    head[0] = _mm512_unpacklo_epi64(a, b), head[1] = _mm512_unpackhi_epi64(a, b);
}

/* What is the same for all blocks of a format; constants after inlining. */
struct legacy {
    size_t bytes, qs; /* of a block; where its codes start */
    int bias;         /* panel code = stored code - bias */
    bool has_min, nibbles, high_bits;
    bool exponent;        /* the scale is a power of two in one byte */
    const int8_t *levels; /* what nibbles stand for, or NULL */
};

/* 2^(e - 128) of the lowest bytes */
INLINE __m512 exponents16(__m512i head)
{
    __m512i e = _mm512_and_si512(head, _mm512_set1_epi32(255)), one = _mm512_set1_epi32(1);
    __m512i normal = _mm512_slli_epi32(_mm512_sub_epi32(e, one), 23), denormal = _mm512_sllv_epi32(_mm512_set1_epi32(0x00200000), e);
    return _mm512_castsi512_ps(_mm512_mask_blend_epi32(_mm512_cmpgt_epi32_mask(e, one), denormal, normal));
}

INLINE __m512i level_table(const int8_t levels[16]) { return _mm512_broadcast_i32x4(load128(levels)); }

/* 0 or 16 in every byte of a lane for the four bits at the bottom of the lane, minus bias */
INLINE __m512i high_bit_table(int bias)
{
    _Alignas(64) int8_t t[64];
    for (int i = 0; i < 64; i++) t[i] = (int8_t)((i / 4 >> i % 4 & 1) * 16 - bias);
    return load512(t);
}

/* The high bits of columns 4j .. of the half whose 16 bits stand at byte `at` of the head, as bytes from the table. */
INLINE __m512i high_bits(const __m512i head[2], int at, int j, __m512i table)
{
    return _mm512_permutexvar_epi32(_mm512_srli_epi32(head[at / 4], at % 4 * 8 + 4 * j), table);
}

INLINE void panel_legacy(struct panel *p, struct rows r, int64_t nk, const struct legacy f)
{
    __m512i table = high_bit_table(f.bias), bias = _mm512_set1_epi8((char)f.bias);
    __m512i levels = f.levels ? level_table(f.levels) : bias;
    struct stream next = panel_stream(p, false);
    for (int64_t b = 0; b < nk / 32; b++, r.w += f.bytes) {
        struct to to = panel_at(p, 32 * b);
        stream_ask(&next, 32);
        __m512i x[4], head[2];
        heads16(r, head);
        __m512 d = f.exponent ? exponents16(head[0]) : halves_low(head[0]);
        put_ps(to.scale, 0, d);
        if (f.has_min) put_ps(to.min, 0, _mm512_fmadd_ps(d, _mm512_set1_ps((float)f.bias), halves_high(head[0])));
UNROLL
        for (int h = 0; h < 2; h++) {
            __m512i sum = _mm512_setzero_si512();
            if (h == 0 || !f.nibbles) columns16(r, f.qs + 16 * (size_t)h, x);
UNROLL
            for (int j = 0; j < 4; j++) {
                __m512i v = f.nibbles ? nibble512(x[j], 4 * h) : x[j];
                if (f.levels) v = _mm512_shuffle_epi8(levels, v);
                else if (f.high_bits) v = _mm512_add_epi8(v, high_bits(head, (int)f.qs - 4 + 2 * h, j, table));
                else if (f.bias) v = _mm512_sub_epi8(v, bias);
                sum = put_codes(to, 16 * h + 4 * j, v, sum);
            }
            put_csum(to, h, sum, d);
        }
    }
}

#define LEGACY(name, ...)                                                    \
    static void panel_##name(struct panel *p, struct rows r, int64_t nk) \
    {                                                                        \
        panel_legacy(p, r, nk, (struct legacy){ __VA_ARGS__ });           \
    }
LEGACY(q4_0, .bytes = 18, .qs = 2, .bias = 8, .nibbles = true)
LEGACY(q4_1, .bytes = 20, .qs = 4, .bias = 8, .nibbles = true, .has_min = true)
LEGACY(q5_0, .bytes = 22, .qs = 6, .bias = 16, .nibbles = true, .high_bits = true)
LEGACY(q5_1, .bytes = 24, .qs = 8, .bias = 16, .nibbles = true, .high_bits = true, .has_min = true)
LEGACY(q8_0, .bytes = 34, .qs = 2)
LEGACY(iq4_nl, .bytes = 18, .qs = 2, .nibbles = true, .levels = iq4_levels)
LEGACY(mxfp4, .bytes = 17, .qs = 1, .nibbles = true, .levels = e2m1_levels, .exponent = true)

/* Blocks of 64 in groups of 16: four scales of 8 bits; 8 bytes hold a group, low nibbles first. */
static void panel_nvfp4(struct panel *p, struct rows r, int64_t nk)
{
    __m512i levels = level_table(e2m1_levels), nan = _mm512_set1_epi32(0x7f);
    struct stream next = panel_stream(p, false);
    for (int64_t b = 0; b < nk / 64; b++, r.w += sizeof(struct block_nvfp4)) {
        struct to to = panel_at(p, 64 * b);
        stream_ask(&next, 64);
        __m512i x[4], head[2];
        heads16(r, head);
UNROLL
        for (int g = 0; g < 4; g++) {
            __m512i e = _mm512_and_si512(_mm512_srli_epi32(head[0], 8 * g), _mm512_set1_epi32(0xff));
            __m512i half = _mm512_slli_epi32(_mm512_and_si512(e, nan), 7);
            half = _mm512_mask_blend_epi32(_mm512_cmpeq_epi32_mask(e, nan), half, _mm512_setzero_si512());
            __m512 d = _mm512_mul_ps(halves_low(half), _mm512_set1_ps(128.0f)); /* as half floats they are 2^8 too small, and codes are doubled */
            __m512i sum = _mm512_setzero_si512();
            put_ps(to.scale, g, d);
            if (g % 2 == 0) columns16(r, offsetof(struct block_nvfp4, qs) + 8 * (size_t)g, x);
UNROLL
            for (int j = 0; j < 4; j++) {
                __m512i v = nibble512(x[g % 2 * 2 + j % 2], j / 2 * 4);
                sum = put_codes(to, 16 * g + 4 * j, _mm512_shuffle_epi8(levels, v), sum);
            }
            put_csum(to, g, sum, d);
        }
    }
}

/* ---- superblocks ---- */

/* scales and mins of q4_k and q5_k from their first 16 bytes, the products of dtype->unpack bit for bit */
INLINE void put_scales_q4_k(struct to to, struct rows r, int bias)
{
    __m512i x[4], six = _mm512_set1_epi32(0x3f3f3f3f), four = _mm512_set1_epi32(0x0f0f0f0f), two = _mm512_set1_epi32(0x30303030);
    columns16(r, 0, x);
    __m512 d = halves_low(x[0]), dmin = halves_high(x[0]), centre = _mm512_set1_ps((float)bias);
    __m512i scale[2], min[2];
    scale[0] = _mm512_and_si512(x[1], six);
    min[0] = _mm512_and_si512(x[2], six);
    scale[1] = _mm512_or_si512(_mm512_and_si512(x[3], four), _mm512_and_si512(_mm512_srli_epi32(x[1], 2), two));
    min[1] = _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi32(x[3], 4), four), _mm512_and_si512(_mm512_srli_epi32(x[2], 2), two));
UNROLL
    for (int g = 0; g < 8; g++) {
        __m512 s = _mm512_mul_ps(d, byte_to_ps(scale[g / 4], g % 4)), m = _mm512_mul_ps(dmin, byte_to_ps(min[g / 4], g % 4));
        put_ps(to.scale, g, s);
        put_ps(to.min, g, _mm512_fmsub_ps(s, centre, m));
    }
}

/* 64 columns: low nibbles of 32 bytes, then high nibbles; high bits g and g + 1 of qh when there is one */
INLINE void put_nibbles64(struct to to, struct rows r, size_t qs, int c, const __m512i *qh, int bias)
{
    __m512i centre = _mm512_set1_epi8((char)bias);
UNROLL
    for (int h = 0; h < 2; h++) {
        __m512i x[4];
        columns16(r, qs + 32 * (size_t)c + 16 * (size_t)h, x);
UNROLL
        for (int n = 0; n < 2; n++) {
            __m512i sum = _mm512_setzero_si512();
UNROLL
            for (int j = 0; j < 4; j++) {
                __m512i v = nibble512(x[j], 4 * n);
                if (qh) v = or_moved(v, qh[4 * h + j], 2 * c + n, 4, 16);
                sum = put_codes(to, 64 * c + 32 * n + 16 * h + 4 * j, _mm512_sub_epi8(v, centre), sum);
            }
            put_csum(to, 4 * c + 2 * n + h, sum, get_ps(to.scale, 2 * c + n));
        }
    }
}

static void super_q4_k(struct to to, struct rows r)
{
    put_scales_q4_k(to, r, 8);
UNROLL
    for (int c = 0; c < 4; c++) put_nibbles64(to, r, offsetof(struct block_q4_k, qs), c, NULL, 8);
}

static void super_q5_k(struct to to, struct rows r)
{
    __m512i qh[8];
    put_scales_q4_k(to, r, 16);
    columns16(r, offsetof(struct block_q5_k, qh), qh);
    columns16(r, offsetof(struct block_q5_k, qh) + 16, qh + 4);
UNROLL
    for (int c = 0; c < 4; c++) put_nibbles64(to, r, offsetof(struct block_q5_k, qs), c, qh, 16);
}

/* d of a block at `at` */
INLINE __m512 column_d(struct rows r, size_t at)
{
    _Alignas(32) uint16_t d[PANEL_ROWS];
    for (int i = 0; i < PANEL_ROWS; i++) memcpy(&d[i], r.w + (size_t)i * r.stride + at, 2);
    return _mm512_cvtph_ps(load256(d));
}

static void super_q6_k(struct to to, struct rows r)
{
    __m512i s[4], bias = _mm512_set1_epi8(32);
    __m512 d = column_d(r, offsetof(struct block_q6_k, d));
    columns16(r, offsetof(struct block_q6_k, scales), s);
UNROLL
    for (int g = 0; g < 16; g++) put_ps(to.scale, g, _mm512_mul_ps(d, sbyte_to_ps(s[g / 4], g % 4)));
UNROLL
    for (int i = 0; i < 4; i++) { /* half i / 2 of the block, 16 columns of each of its groups of 32 */
        int h = i / 2, at = i % 2 * 16;
        __m512i low[2][4], high[4], sum[4];
        columns16(r, (size_t)(64 * h + at), low[0]);
        columns16(r, (size_t)(64 * h + 32 + at), low[1]);
        columns16(r, offsetof(struct block_q6_k, qh) + (size_t)(32 * h + at), high);
UNROLL
        for (int n = 0; n < 4; n++) {
            sum[n] = _mm512_setzero_si512();
UNROLL
            for (int j = 0; j < 4; j++) {
                __m512i v = or_moved(nibble512(low[n % 2][j], n / 2 * 4), high[j], 2 * n, 4, 0x30);
                sum[n] = put_codes(to, 128 * h + 32 * n + at + 4 * j, _mm512_sub_epi8(v, bias), sum[n]);
            }
            put_csum(to, 8 * h + 2 * n + at / 16, sum[n], get_ps(to.scale, 8 * h + 2 * n + at / 16));
        }
    }
}

/* The 2-bit codes of q2_k and q3_k; bit g of hmask is the third bit of group of 32 number g. */
INLINE void put_two_bits(struct to to, struct rows r, size_t qs, const __m512i *hmask, int bias)
{
    __m512i centre = _mm512_set1_epi8((char)bias);
UNROLL
    for (int i = 0; i < 4; i++) {
        int h = i / 2, at = i % 2 * 16;
        __m512i x[4];
        columns16(r, qs + (size_t)(32 * h + at), x);
UNROLL
        for (int n = 0; n < 4; n++) {
            __m512i sum = _mm512_setzero_si512();
UNROLL
            for (int j = 0; j < 4; j++) {
                __m512i v = two_bits512(x[j], 2 * n);
                if (hmask) v = or_moved(v, hmask[at / 4 + j], 4 * h + n, 2, 4);
                sum = put_codes(to, 128 * h + 32 * n + at + 4 * j, _mm512_sub_epi8(v, centre), sum);
            }
            put_csum(to, 8 * h + 2 * n + at / 16, sum, get_ps(to.scale, 8 * h + 2 * n + at / 16));
        }
    }
}

static void super_q2_k(struct to to, struct rows r)
{
    __m512i x[4], low = _mm512_set1_epi8(15);
    __m512 d = column_d(r, offsetof(struct block_q2_k, d)), dmin = column_d(r, offsetof(struct block_q2_k, dmin));
    columns16(r, 0, x);
UNROLL
    for (int g = 0; g < 16; g++) {
        __m512 s = _mm512_mul_ps(d, byte_to_ps(_mm512_and_si512(x[g / 4], low), g % 4));
        __m512 m = _mm512_mul_ps(dmin, byte_to_ps(_mm512_and_si512(_mm512_srli_epi16(x[g / 4], 4), low), g % 4));
        put_ps(to.scale, g, s);
        put_ps(to.min, g, _mm512_sub_ps(s, m)); /* code_bias 1 */
    }
    put_two_bits(to, r, offsetof(struct block_q2_k, qs), NULL, 1);
}

static void super_q3_k(struct to to, struct rows r)
{
    enum { TAIL = sizeof(struct block_q3_k) - 16 }; /* two bytes of qs, 12 of scales, d */
    __m512i x[4], s[3], hmask[8], low = _mm512_set1_epi32(0x0f0f0f0f), high = _mm512_set1_epi32(0x30303030);
    columns16(r, TAIL, x);
    __m512 d = halves_high(x[3]), centre = _mm512_set1_ps(32.0f);
UNROLL
    for (int i = 0; i < 3; i++) s[i] = _mm512_or_si512(_mm512_srli_epi32(x[i], 16), _mm512_slli_epi32(x[i + 1], 16));
UNROLL
    for (int q = 0; q < 4; q++) { /* four groups */
        __m512i v = _mm512_and_si512(_mm512_srli_epi32(s[q % 2], q / 2 * 4), low);
        v = _mm512_or_si512(v, _mm512_and_si512(q < 2 ? _mm512_slli_epi32(s[2], 4 - 2 * q) : _mm512_srli_epi32(s[2], 2 * q - 4), high));
UNROLL
        for (int g = 0; g < 4; g++) put_ps(to.scale, 4 * q + g, _mm512_mul_ps(d, _mm512_sub_ps(byte_to_ps(v, g), centre)));
    }
    columns16(r, 0, hmask);
    columns16(r, 16, hmask + 4);
    put_two_bits(to, r, offsetof(struct block_q3_k, qs), hmask, 4);
}

static void super_iq4_xs(struct to to, struct rows r)
{
    __m512i head[4], levels = level_table(iq4_levels), low = _mm512_set1_epi32(15), high = _mm512_set1_epi32(0x30);
    columns16(r, 0, head);
    __m512 d = halves_low(head[0]);
UNROLL
    for (int g = 0; g < 8; g++) {
        __m512i x[4], s = _mm512_and_si512(_mm512_srli_epi32(head[1], 4 * g), low);
        s = _mm512_or_si512(s, _mm512_and_si512(_mm512_srli_epi32(head[0], 12 + 2 * g), high));
        __m512 scale = _mm512_mul_ps(d, _mm512_cvtepi32_ps(_mm512_sub_epi32(s, _mm512_set1_epi32(32))));
        put_ps(to.scale, g, scale);
        columns16(r, offsetof(struct block_iq4_xs, qs) + 16 * (size_t)g, x);
UNROLL
        for (int h = 0; h < 2; h++) {
            __m512i sum = _mm512_setzero_si512();
UNROLL
            for (int j = 0; j < 4; j++) sum = put_codes(to, 32 * g + 16 * h + 4 * j, _mm512_shuffle_epi8(levels, nibble512(x[j], 4 * h)), sum);
            put_csum(to, 2 * g + h, sum, scale);
        }
    }
}

#define SUPER(name)                                                                                  \
    static void panel_##name(struct panel *p, struct rows r, int64_t nk)             \
    {                                                                                                \
        struct stream next = panel_stream(p, false);                                                 \
        for (int64_t at = 0; at < nk; at += CHUNK, r.w += sizeof(struct block_##name)) {             \
            stream_ask(&next, CHUNK);                                                                \
            super_##name(panel_at(p, at), r);                                                        \
        }                                                                                            \
    }
SUPER(q2_k) SUPER(q3_k) SUPER(q4_k) SUPER(q5_k) SUPER(q6_k) SUPER(iq4_xs)

/* 16 rows, nk columns from r.w on, a multiple of the block length */
typedef void panel_fn(struct panel *p, struct rows r, int64_t nk);
static panel_fn *const panels[DTYPE_IDS] = {
    [GGUF_Q4_0] = panel_q4_0, [GGUF_Q4_1] = panel_q4_1, [GGUF_Q5_0] = panel_q5_0, [GGUF_Q5_1] = panel_q5_1, [GGUF_Q8_0] = panel_q8_0,
    [GGUF_Q2_K] = panel_q2_k, [GGUF_Q3_K] = panel_q3_k, [GGUF_Q4_K] = panel_q4_k, [GGUF_Q5_K] = panel_q5_k, [GGUF_Q6_K] = panel_q6_k,
    [GGUF_IQ4_NL] = panel_iq4_nl, [GGUF_IQ4_XS] = panel_iq4_xs, [GGUF_MXFP4] = panel_mxfp4, [GGUF_NVFP4] = panel_nvfp4,
};

/* ---- any format, any number of rows, through the unpack slot ---- */

/* up to 256 weights of a row */
static void unpack_blocks(const struct kernels *k, const struct dtype *t, const uint8_t *w, int n, struct codes *out)
{
    int groups = t->block_len / t->group_len;
    if (n == t->block_len) {
        k->unpack[t->gguf_id](w, out);
        return;
    }
    for (int i = 0; i < n / t->block_len; i++, w += t->block_bytes) {
        struct codes one;
        k->unpack[t->gguf_id](w, &one);
        memcpy(out->code + i * t->block_len, one.code, (size_t)t->block_len);
        memcpy(out->scale + i * groups, one.scale, (size_t)groups * sizeof(float));
        memcpy(out->min + i * groups, one.min, (size_t)groups * sizeof(float));
    }
}

/* The first n columns of c[] to the panel. */
static void put_unpacked(struct to to, const struct dtype *t, const struct codes c[PANEL_ROWS], int n)
{
    struct rows r = { (const uint8_t *)c, sizeof c[0] };
    __m512i x[4], bias = _mm512_set1_epi8((char)t->code_bias);
    __m512 centre = _mm512_set1_ps((float)t->code_bias);
    for (int g = 0; g < n / t->group_len; g += 4) {
        __m512i s[4], m[4] = { 0 };
        columns16(r, offsetof(struct codes, scale) + (size_t)g * 4, s);
        if (t->has_min) columns16(r, offsetof(struct codes, min) + (size_t)g * 4, m);
UNROLL
        for (int i = 0; i < 4; i++) {
            if (g + i >= n / t->group_len) break;
            __m512 scale = _mm512_castsi512_ps(s[i]);
            put_ps(to.scale, g + i, scale);
            if (to.min) put_ps(to.min, g + i, _mm512_add_ps(_mm512_mul_ps(scale, centre), _mm512_castsi512_ps(m[i])));
        }
    }
    for (int i = 0; i < n / 16; i++) {
        __m512i sum = _mm512_setzero_si512();
        columns16(r, (size_t)i * 16, x);
UNROLL
        for (int j = 0; j < 4; j++) sum = put_codes(to, 16 * i + 4 * j, _mm512_sub_epi8(x[j], bias), sum);
        put_csum(to, i, sum, get_ps(to.scale, i >> (t->group_len == 32)));
    }
}

static void panel_unpacked(const struct kernels *k, struct panel *p, const struct dtype *t, struct rows r, int n_rows, int64_t from)
{
    struct codes c[PANEL_ROWS];
    for (int i = n_rows; i < PANEL_ROWS; i++) { /* zero scales; the code that centres to 0 */
        memset(&c[i], 0, sizeof c[i]);
        memset(c[i].code, t->code_bias, sizeof c[i].code);
    }
    for (int64_t at = from; at < p->nk; at += CHUNK) {
        int n = (int)min_i64(CHUNK, p->nk - at), whole = (n + t->block_len - 1) / t->block_len * t->block_len;
        for (int i = 0; i < n_rows; i++) unpack_blocks(k, t, r.w + (size_t)i * r.stride + dtype_row_bytes(t, at), whole, &c[i]);
        put_unpacked(panel_at(p, at), t, c, n);
    }
}

/* ---- float weights ---- */

static void panel_floats(const struct kernels *k, struct panel *p, const struct dtype *t, struct rows r, int n_rows)
{
    enum { COLS = 64 };
    _Alignas(64) float rows[PANEL_ROWS][COLS];
    memset(rows, 0, sizeof rows);
    for (int64_t at = 0; at < p->nk; at += COLS) {
        int64_t n = min_i64(COLS, p->nk - at);
        for (int i = 0; i < n_rows; i++) k->to_f32(t, r.w + (size_t)i * r.stride + (size_t)at * (size_t)t->block_bytes, rows[i], n);
        for (int i = 0; i < n; i += 4) {
            __m512i x[4];
            columns16((struct rows){ (const uint8_t *)rows, sizeof rows[0] }, (size_t)i * sizeof(float), x);
            for (int j = 0; j < 4 && i + j < n; j++) _mm512_storeu_si512(p->f32 + (at + i + j) * PANEL_ROWS, x[j]);
        }
    }
}

static void panel_build(const struct kernels *k, struct panel *p, const struct dtype *t, enum act_form form, const void *w, size_t row_bytes,
                        int n_rows, int64_t k0, int64_t nk)
{
    struct rows r = { (const uint8_t *)w + dtype_row_bytes(t, k0), row_bytes };
    panel_shape(p, t, form, nk);
    if (p->group == 0) {
        panel_floats(k, p, t, r, n_rows);
        return;
    }
    int64_t direct = n_rows == PANEL_ROWS && panels[t->gguf_id] ? nk / t->block_len * t->block_len : 0;
    if (direct) panels[t->gguf_id](p, r, direct);
    if (direct < nk) panel_unpacked(k, p, t, r, n_rows, direct);
}

void kernels_init_avx512_panel(struct kernels *k) { k->panel_build = panel_build; }
