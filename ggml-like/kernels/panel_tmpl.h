/* panel_tmpl - panels straight from the bytes of the common formats. A register holds four bytes of LANES rows, the row = the lane of 32 bits: 16
 * bytes of each row are transposed while they are still packed, and codes, scales and sums are computed for all rows at once. The file that
 * includes this has defined LANES, FORMS(X, ...) = X(form, ...) for each enum act_form it builds for, the types
 *   V, F            registers of bytes and of floats
 *   struct to       where the next columns of these rows go
 * and, besides the v_ and f_ functions that are one instruction or a few,
 *   gather16(r, at, q)      16 bytes of every row: q[i] = those of rows i, i + 4 .., a 128-bit lane each
 *   halves_low, halves_high, byte_to_ps, sbyte_to_ps(v, i)     floats from the lanes
 *   clear_bits(v, n)        -16 in byte i where bit n + i is clear, else 0; n a multiple of 4
 *   panel_at(p, shape, form, k, row)     put_scale, put_min(to, g, f), get_scale(to, g): group g from there on
 *   put16(to, column, x, scale)     16 columns of one group in their order; of 32 columns the first half first */
#include "ggml-like/kernels/levels.h"

#define PANEL_BUILD(form, name, columns, bytes, ...)                                              \
    static void name##_##form(struct panel *p, struct rows r, int64_t nk)                         \
    {                                                                                             \
        struct stream next = panel_stream(p, false);                                              \
        for (int64_t at = 0; at < nk; at += (columns), r.w += (bytes)) {                          \
            stream_ask(&next, columns);                                                           \
            for (int row = 0; row < PANEL_ROWS; row += LANES) {                                   \
                struct rows part = { r.w + (size_t)row * r.stride, r.stride };                    \
                block_##name(panel_at(p, (struct shape){ __VA_ARGS__ }, form, at, row), part);    \
            }                                                                                     \
        }                                                                                         \
    }

/* x[j] = bytes at + 4j .. at + 4j + 3 of every row */
INLINE void columns16(struct rows r, size_t at, V x[4])
{
    V q[4];
    gather16(r, at, q);
    V a = v_low32(q[0], q[1]), b = v_high32(q[0], q[1]), c = v_low32(q[2], q[3]), d = v_high32(q[2], q[3]);
    x[0] = v_low64(a, c), x[1] = v_high64(a, c), x[2] = v_low64(b, d), x[3] = v_high64(b, d);
}

/* The first 8 bytes of every row, of 16. */
INLINE void heads16(struct rows r, V head[2])
{
    V q[4];
    gather16(r, 0, q);
    V a = v_low32(q[0], q[1]), b = v_low32(q[2], q[3]);
    head[0] = v_low64(a, b), head[1] = v_high64(a, b);
}

/* bits n .. of every byte; low | the bits of mask, taken from bit n .. of every byte of v and moved to bit `to` .. */
INLINE V two_bits_of(V v, int n) { return v_and(v_srl16(v, n), v_set8(3)); }
INLINE V nibble_of(V v, int n) { return v_and(v_srl16(v, n), v_set8(15)); }
INLINE V or_moved(V low, V v, int n, int to, int mask) { return v_or_and(low, n < to ? v_sll16(v, to - n) : v_srl16(v, n - to), v_set8(mask)); }

/* ---- blocks of 32 ---- */

/* What is the same for all blocks of a format; constants after inlining. */
struct panel_legacy {
    size_t qs;        /* where the codes start */
    int bias;         /* panel code = stored code - bias */
    bool has_min, nibbles, high_bits; /* high bits: in the four bytes before the codes; bias 16 */
    bool exponent;        /* the scale is a power of two in one byte */
    const int8_t *levels; /* what nibbles stand for, or NULL */
};

/* 2^(e - 128) of the lowest bytes */
INLINE F exponents_of(V head)
{
    V e = v_and(head, v_set32(255)), one = v_set32(1);
    V normal = v_sll32(v_sub32(e, one), 23), denormal = v_if_equal(e, one, v_set32(0x00400000), v_set32(0x00200000));
    return f_bits(v_if_greater(e, one, normal, denormal));
}

INLINE void block_legacy(struct to to, struct rows r, const struct panel_legacy f)
{
    V x[4], head[2], bias = v_set8(f.bias), levels = f.levels ? v_table(f.levels) : bias;
    heads16(r, head);
    F d = f.exponent ? exponents_of(head[0]) : halves_low(head[0]);
    put_scale(to, 0, d);
    if (f.has_min) put_min(to, 0, f_fmadd(d, f_set((float)f.bias), halves_high(head[0])));
UNROLL
    for (int h = 0; h < 2; h++) {
        V c[4];
        if (h == 0 || !f.nibbles) columns16(r, f.qs + 16 * (size_t)h, x);
UNROLL
        for (int j = 0; j < 4; j++) {
            c[j] = f.nibbles ? nibble_of(x[j], 4 * h) : x[j];
            int bit = 8 * ((int)f.qs - 4) + 16 * h + 4 * j; /* of the head */
            if (f.levels) c[j] = v_lookup(levels, c[j]);
            else if (f.high_bits) c[j] = v_or(c[j], clear_bits(head[bit / 32], bit % 32));
            else if (f.bias) c[j] = v_sub8(c[j], bias);
        }
        put16(to, 16 * h, c, d);
    }
}

#define PANEL_LEGACY(name, bytes, code_max, ...)                                                                       \
    INLINE void block_##name(struct to to, struct rows r) { block_legacy(to, r, (struct panel_legacy){ __VA_ARGS__ }); } \
    FORMS(PANEL_BUILD, name, 32, bytes, 32, code_max, (struct panel_legacy){ __VA_ARGS__ }.has_min)
PANEL_LEGACY(q4_0, 18, 8, .qs = 2, .bias = 8, .nibbles = true)
PANEL_LEGACY(q4_1, 20, 8, .qs = 4, .bias = 8, .nibbles = true, .has_min = true)
PANEL_LEGACY(q5_0, 22, 16, .qs = 6, .bias = 16, .nibbles = true, .high_bits = true)
PANEL_LEGACY(q5_1, 24, 16, .qs = 8, .bias = 16, .nibbles = true, .high_bits = true, .has_min = true)
PANEL_LEGACY(q8_0, 34, 128, .qs = 2)
PANEL_LEGACY(iq4_nl, 18, 127, .qs = 2, .nibbles = true, .levels = iq4_levels)
PANEL_LEGACY(mxfp4, 17, 12, .qs = 1, .nibbles = true, .levels = e2m1_levels, .exponent = true)

/* Blocks of 64 in groups of 16: four scales of 8 bits; 8 bytes hold a group, low nibbles first. */
INLINE void block_nvfp4(struct to to, struct rows r)
{
    V x[4], head[2], levels = v_table(e2m1_levels), nan = v_set32(0x7f);
    heads16(r, head);
UNROLL
    for (int g = 0; g < 4; g++) {
        V c[4], e = v_and(v_srl32(head[0], 8 * g), v_set32(0xff));
        V half = v_if_equal(e, nan, v_set32(0), v_sll32(v_and(e, nan), 7));
        F d = f_mul(halves_low(half), f_set(128.0f)); /* as half floats they are 2^8 too small, and codes are doubled */
        put_scale(to, g, d);
        if (g % 2 == 0) columns16(r, offsetof(struct block_nvfp4, qs) + 8 * (size_t)g, x);
UNROLL
        for (int j = 0; j < 4; j++) c[j] = v_lookup(levels, nibble_of(x[g % 2 * 2 + j % 2], j / 2 * 4));
        put16(to, 16 * g, c, d);
    }
}

/* ---- superblocks ---- */

/* scales and mins of q4_k and q5_k from their first 16 bytes, the products of dtype->unpack bit for bit */
INLINE void put_scales_q4_k(struct to to, struct rows r, int bias)
{
    V x[4], six = v_set32(0x3f3f3f3f), four = v_set32(0x0f0f0f0f), two = v_set32(0x30303030), scale[2], min[2];
    columns16(r, 0, x);
    F d = halves_low(x[0]), dmin = halves_high(x[0]), centre = f_set((float)bias);
    scale[0] = v_and(x[1], six);
    min[0] = v_and(x[2], six);
    scale[1] = v_or(v_and(x[3], four), v_and(v_srl32(x[1], 2), two));
    min[1] = v_or(v_and(v_srl32(x[3], 4), four), v_and(v_srl32(x[2], 2), two));
UNROLL
    for (int g = 0; g < 8; g++) {
        F s = f_mul(d, byte_to_ps(scale[g / 4], g % 4)), m = f_mul(dmin, byte_to_ps(min[g / 4], g % 4));
        put_scale(to, g, s);
        put_min(to, g, f_fmsub(s, centre, m));
    }
}

/* 64 columns: low nibbles of 32 bytes, then high nibbles; high bits g and g + 1 of qh when there is one */
INLINE void put_nibbles64(struct to to, struct rows r, size_t qs, int c, const V *qh, int bias)
{
    V centre = v_set8(bias);
UNROLL
    for (int h = 0; h < 2; h++) {
        V x[4];
        columns16(r, qs + 32 * (size_t)c + 16 * (size_t)h, x);
UNROLL
        for (int n = 0; n < 2; n++) {
            V code[4];
UNROLL
            for (int j = 0; j < 4; j++) {
                V v = nibble_of(x[j], 4 * n);
                if (qh) v = or_moved(v, qh[4 * h + j], 2 * c + n, 4, 16);
                code[j] = v_sub8(v, centre);
            }
            put16(to, 64 * c + 32 * n + 16 * h, code, get_scale(to, 2 * c + n));
        }
    }
}

INLINE void block_q4_k(struct to to, struct rows r)
{
    put_scales_q4_k(to, r, 8);
UNROLL
    for (int c = 0; c < 4; c++) put_nibbles64(to, r, offsetof(struct block_q4_k, qs), c, NULL, 8);
}

INLINE void block_q5_k(struct to to, struct rows r)
{
    V qh[8];
    put_scales_q4_k(to, r, 16);
    columns16(r, offsetof(struct block_q5_k, qh), qh);
    columns16(r, offsetof(struct block_q5_k, qh) + 16, qh + 4);
UNROLL
    for (int c = 0; c < 4; c++) put_nibbles64(to, r, offsetof(struct block_q5_k, qs), c, qh, 16);
}

/* d of a block at `at` */
INLINE F column_d(struct rows r, size_t at)
{
    _Alignas(32) uint16_t d[LANES];
    for (int i = 0; i < LANES; i++) memcpy(&d[i], r.w + (size_t)i * r.stride + at, 2);
    return f_halves(d);
}

INLINE void block_q6_k(struct to to, struct rows r)
{
    V s[4], bias = v_set8(32);
    F d = column_d(r, offsetof(struct block_q6_k, d));
    columns16(r, offsetof(struct block_q6_k, scales), s);
UNROLL
    for (int g = 0; g < 16; g++) put_scale(to, g, f_mul(d, sbyte_to_ps(s[g / 4], g % 4)));
UNROLL
    for (int i = 0; i < 4; i++) { /* half i / 2 of the block, 16 columns of each of its groups of 32 */
        int h = i / 2, at = i % 2 * 16;
        V low[2][4], high[4];
        columns16(r, (size_t)(64 * h + at), low[0]);
        columns16(r, (size_t)(64 * h + 32 + at), low[1]);
        columns16(r, offsetof(struct block_q6_k, qh) + (size_t)(32 * h + at), high);
UNROLL
        for (int n = 0; n < 4; n++) {
            V c[4];
UNROLL
            for (int j = 0; j < 4; j++) c[j] = v_sub8(or_moved(nibble_of(low[n % 2][j], n / 2 * 4), high[j], 2 * n, 4, 0x30), bias);
            put16(to, 128 * h + 32 * n + at, c, get_scale(to, 8 * h + 2 * n + at / 16));
        }
    }
}

/* The 2-bit codes of q2_k and q3_k; bit g of hmask is the third bit of group of 32 number g. */
INLINE void put_two_bits(struct to to, struct rows r, size_t qs, const V *hmask, int bias)
{
    V centre = v_set8(bias);
UNROLL
    for (int i = 0; i < 4; i++) {
        int h = i / 2, at = i % 2 * 16;
        V x[4];
        columns16(r, qs + (size_t)(32 * h + at), x);
UNROLL
        for (int n = 0; n < 4; n++) {
            V c[4];
UNROLL
            for (int j = 0; j < 4; j++) {
                V v = two_bits_of(x[j], 2 * n);
                if (hmask) v = or_moved(v, hmask[at / 4 + j], 4 * h + n, 2, 4);
                c[j] = v_sub8(v, centre);
            }
            put16(to, 128 * h + 32 * n + at, c, get_scale(to, 8 * h + 2 * n + at / 16));
        }
    }
}

INLINE void block_q2_k(struct to to, struct rows r)
{
    V x[4], low = v_set8(15);
    F d = column_d(r, offsetof(struct block_q2_k, d)), dmin = column_d(r, offsetof(struct block_q2_k, dmin));
    columns16(r, 0, x);
UNROLL
    for (int g = 0; g < 16; g++) {
        F s = f_mul(d, byte_to_ps(v_and(x[g / 4], low), g % 4));
        F m = f_mul(dmin, byte_to_ps(v_and(v_srl16(x[g / 4], 4), low), g % 4));
        put_scale(to, g, s);
        put_min(to, g, f_sub(s, m)); /* code_bias 1 */
    }
    put_two_bits(to, r, offsetof(struct block_q2_k, qs), NULL, 1);
}

INLINE void block_q3_k(struct to to, struct rows r)
{
    enum { TAIL = sizeof(struct block_q3_k) - 16 }; /* two bytes of qs, 12 of scales, d */
    V x[4], s[3], hmask[8], low = v_set32(0x0f0f0f0f), high = v_set32(0x30303030);
    columns16(r, TAIL, x);
    F d = halves_high(x[3]), centre = f_set(32.0f);
UNROLL
    for (int i = 0; i < 3; i++) s[i] = v_or(v_srl32(x[i], 16), v_sll32(x[i + 1], 16));
UNROLL
    for (int q = 0; q < 4; q++) { /* four groups */
        V v = v_and(v_srl32(s[q % 2], q / 2 * 4), low);
        v = v_or(v, v_and(q < 2 ? v_sll32(s[2], 4 - 2 * q) : v_srl32(s[2], 2 * q - 4), high));
UNROLL
        for (int g = 0; g < 4; g++) put_scale(to, 4 * q + g, f_mul(d, f_sub(byte_to_ps(v, g), centre)));
    }
    columns16(r, 0, hmask);
    columns16(r, 16, hmask + 4);
    put_two_bits(to, r, offsetof(struct block_q3_k, qs), hmask, 4);
}

INLINE void block_iq4_xs(struct to to, struct rows r)
{
    V head[4], levels = v_table(iq4_levels), low = v_set32(15), high = v_set32(0x30);
    columns16(r, 0, head);
    F d = halves_low(head[0]);
UNROLL
    for (int g = 0; g < 8; g++) {
        V x[4], s = v_or(v_and(v_srl32(head[1], 4 * g), low), v_and(v_srl32(head[0], 12 + 2 * g), high));
        F scale = f_mul(d, f_int(v_sub32(s, v_set32(32))));
        put_scale(to, g, scale);
        columns16(r, offsetof(struct block_iq4_xs, qs) + 16 * (size_t)g, x);
UNROLL
        for (int h = 0; h < 2; h++) {
            V c[4];
UNROLL
            for (int j = 0; j < 4; j++) c[j] = v_lookup(levels, nibble_of(x[j], 4 * h));
            put16(to, 32 * g + 16 * h, c, scale);
        }
    }
}

#define BLOCKS(name, columns, group, code_max, has_min) FORMS(PANEL_BUILD, name, columns, sizeof(struct block_##name), group, code_max, has_min)
BLOCKS(nvfp4, 64, 16, 12, false) BLOCKS(q2_k, 256, 16, 2, true) BLOCKS(q3_k, 256, 16, 4, false) BLOCKS(q4_k, 256, 32, 8, true)
BLOCKS(q5_k, 256, 32, 16, true) BLOCKS(q6_k, 256, 16, 32, false) BLOCKS(iq4_xs, 256, 32, 127, false)

/* 16 rows, nk columns from r.w on, a multiple of the block length */
typedef void panel_fn(struct panel *p, struct rows r, int64_t nk);
#define PANEL_FORMATS(X)                                                                                                                 \
    X(GGUF_Q4_0, q4_0) X(GGUF_Q4_1, q4_1) X(GGUF_Q5_0, q5_0) X(GGUF_Q5_1, q5_1) X(GGUF_Q8_0, q8_0) X(GGUF_IQ4_NL, iq4_nl) X(GGUF_MXFP4, mxfp4) \
    X(GGUF_NVFP4, nvfp4) X(GGUF_Q2_K, q2_k) X(GGUF_Q3_K, q3_k) X(GGUF_Q4_K, q4_k) X(GGUF_Q5_K, q5_k) X(GGUF_Q6_K, q6_k) X(GGUF_IQ4_XS, iq4_xs)
#define PANEL_ROW(form, id, name) [form][id] = name##_##form,
#define PANEL_ROWS_OF(id, name) FORMS(PANEL_ROW, id, name)
static panel_fn *const panels[][DTYPE_IDS] = { PANEL_FORMATS(PANEL_ROWS_OF) };

/* Defined by the file that includes this, behind it: columns `from` .. of any format and any number of rows; floats. */
static void panel_unpacked(const struct kernels *k, struct panel *p, const struct dtype *t, struct rows r, int n_rows, int64_t from);
static void panel_floats(const struct kernels *k, struct panel *p, const struct dtype *t, struct rows r, int n_rows);

/* A level with one layout for all forms has the panels of the first. */
static void panel_build(const struct kernels *k, struct panel *p, const struct dtype *t, enum act_form form, const void *w, size_t row_bytes, int n_rows,
                        int64_t k0, int64_t nk)
{
    struct rows r = { (const uint8_t *)w + dtype_row_bytes(t, k0), row_bytes };
    panel_shape(p, t, form, nk);
    if (p->group == 0) {
        panel_floats(k, p, t, r, n_rows);
        return;
    }
    panel_fn *build = panels[(int)form < ARRAY_LEN(panels) ? form : 0][t->gguf_id];
    int64_t direct = n_rows == PANEL_ROWS && build ? nk / t->block_len * t->block_len : 0;
    if (direct) build(p, r, direct);
    if (direct < nk) panel_unpacked(k, p, t, r, n_rows, direct);
}
