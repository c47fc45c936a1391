/* avx2_panel_tmpl - panel_build for AVX2 and AVX-VNNI, into the blocks of avx2_tiles.h: panel_tmpl.h with 8 rows in a register. Formats that it does
 * not know, the last 1..15 rows of a matrix and the rest of a superblock go through isa_avx2_unpack.c. */
#pragma once
#include "ggml-like/kernels/avx2_tiles.h"

enum { CHUNK = 256, LANES = 8 };
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif
typedef __m256i V;
typedef __m256 F;

INLINE V v_set8(int c) { return _mm256_set1_epi8((char)c); }
INLINE V v_set32(int c) { return _mm256_set1_epi32(c); }
INLINE V v_and(V a, V b) { return _mm256_and_si256(a, b); }
INLINE V v_or(V a, V b) { return _mm256_or_si256(a, b); }
INLINE V v_or_and(V a, V b, V mask) { return v_or(a, v_and(b, mask)); }
INLINE V v_sub8(V a, V b) { return _mm256_sub_epi8(a, b); }
INLINE V v_sub32(V a, V b) { return _mm256_sub_epi32(a, b); }
INLINE V v_srl16(V v, int n) { return _mm256_srli_epi16(v, n); }
INLINE V v_sll16(V v, int n) { return _mm256_slli_epi16(v, n); }
INLINE V v_srl32(V v, int n) { return _mm256_srli_epi32(v, n); }
INLINE V v_sll32(V v, int n) { return _mm256_slli_epi32(v, n); }
INLINE V v_if_equal(V a, V b, V then, V other) { return _mm256_blendv_epi8(other, then, _mm256_cmpeq_epi32(a, b)); }
INLINE V v_if_greater(V a, V b, V then, V other) { return _mm256_blendv_epi8(other, then, _mm256_cmpgt_epi32(a, b)); }
INLINE V v_table(const int8_t levels[16]) { return load_twice(levels); }
INLINE V v_lookup(V table, V v) { return _mm256_shuffle_epi8(table, v); }
INLINE V v_low32(V a, V b) { return _mm256_unpacklo_epi32(a, b); }
INLINE V v_high32(V a, V b) { return _mm256_unpackhi_epi32(a, b); }
INLINE V v_low64(V a, V b) { return _mm256_unpacklo_epi64(a, b); }
INLINE V v_high64(V a, V b) { return _mm256_unpackhi_epi64(a, b); }
INLINE F f_set(float c) { return _mm256_set1_ps(c); }
INLINE F f_bits(V v) { return _mm256_castsi256_ps(v); }
INLINE F f_int(V v) { return _mm256_cvtepi32_ps(v); }
INLINE F f_halves(const uint16_t *p) { return _mm256_cvtph_ps(load128(p)); }
INLINE F f_mul(F a, F b) { return _mm256_mul_ps(a, b); }
INLINE F f_sub(F a, F b) { return _mm256_sub_ps(a, b); }
INLINE F f_fmadd(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
INLINE F f_fmsub(F a, F b, F c) { return _mm256_fmsub_ps(a, b, c); }

INLINE F halves_high(V v)
{
    v = v_srl32(v, 16);
    return _mm256_cvtph_ps(_mm_packus_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1)));
}
INLINE F halves_low(V v) { return halves_high(v_sll32(v, 16)); }
INLINE F byte_to_ps(V v, int i) { return f_int(v_and(v_srl32(v, 8 * i), v_set32(0xff))); }
INLINE F sbyte_to_ps(V v, int i) { return f_int(_mm256_srai_epi32(v_sll32(v, 24 - 8 * i), 24)); }

/* 16 bytes of every row: q[i] = those of row i, then of row i + 4. The inserts take their bytes from memory and need no shuffle port. */
INLINE void gather16(struct rows r, size_t at, V q[4])
{
UNROLL
    for (size_t i = 0; i < 4; i++) {
        const uint8_t *w = r.w + i * r.stride + at;
        q[i] = _mm256_inserti128_si256(_mm256_castsi128_si256(load128(w)), load128(w + 4 * r.stride), 1);
    }
}

INLINE V clear_bits(V v, int n)
{
    V byte = _mm256_shuffle_epi8(v, _mm256_add_epi8(_mm256_setr_epi32(0, 0x04040404, 0x08080808, 0x0c0c0c0c, 0, 0x04040404, 0x08080808, 0x0c0c0c0c),
                                                    v_set8(n / 8)));
    V bit = v_set32(n % 8 ? (int)0x80402010u : 0x08040201);
    return v_and(_mm256_cmpeq_epi8(v_and(byte, bit), _mm256_setzero_si256()), v_set8(-16));
}

/* Blocks of 32 columns from `at` on, which points at the first of the 8 rows. */
struct to { uint8_t *at; struct panel_layout l; int group; enum act_form form; };

INLINE struct to panel_at(const struct panel *p, struct shape s, enum act_form form, int64_t k, int row)
{
    struct panel_layout l = panel_layout(form, s.group, s.code_max, s.has_min);
    return (struct to){ (uint8_t *)p->code + (size_t)(k / BLOCK) * l.bytes + row * 4, l, s.group, form };
}

INLINE float *group_at(struct to to, size_t where, int g)
{
    int in = BLOCK / to.group; /* groups in a block */
    return (float *)(void *)(to.at + (size_t)(g / in) * to.l.bytes + where + (size_t)(g % in) * 64);
}

INLINE void put_scale(struct to to, int g, F v) { _mm256_storeu_ps(group_at(to, to.l.scale, g), v); }
INLINE void put_min(struct to to, int g, F v) { _mm256_storeu_ps(group_at(to, to.l.min, g), v); }
INLINE F get_scale(struct to to, int g) { return _mm256_loadu_ps(group_at(to, to.l.scale, g)); }

INLINE void store_rows(uint8_t *p, V v) { _mm256_storeu_si256((V *)(void *)p, v); }

/* Bytes, and the int16 sums of the chains that begin or go on in these columns, the two lanes of a product apart; VNNI: minus the sum of all. */
INLINE void put16_bytes(struct to to, uint8_t *at, int half, const V x[4])
{
    V one = v_set8(1), sum[2];
    uint8_t *sums = at + BLOCK_CODES;
UNROLL
    for (int i = 0; i < 4; i++) store_rows(at + half * (BLOCK_CODES / 2) + i * 64, x[i]);
    sum[0] = _mm256_add_epi16(_mm256_maddubs_epi16(one, x[0]), _mm256_maddubs_epi16(one, x[1]));
    sum[1] = _mm256_add_epi16(_mm256_maddubs_epi16(one, x[2]), _mm256_maddubs_epi16(one, x[3]));
    if (VNNI) {
        V all = _mm256_madd_epi16(_mm256_add_epi16(sum[0], sum[1]), _mm256_set1_epi16(-1));
        store_rows(sums, half ? _mm256_blend_epi16(load256(sums), v_sll32(all, 16), 0xaa) : all);
        return;
    }
    if (to.l.chains == 4) {
        store_rows(sums + half * 128, sum[0]);
        store_rows(sums + half * 128 + 64, sum[1]);
        return;
    }
    V both = _mm256_add_epi16(sum[0], sum[1]);
    if (to.l.chains == 2) store_rows(sums + half * 64, both);
    else store_rows(sums, half ? _mm256_add_epi16(load256(sums), both) : both);
}

/* int16: of each four columns the even ones, then the odd ones */
INLINE void put16_words(uint8_t *at, int half, const V x[4])
{
    at += half * BLOCK_CODES;
UNROLL
    for (int i = 0; i < 4; i++) {
        store_rows(at + 2 * i * 64, _mm256_srai_epi16(v_sll16(x[i], 8), 8));
        store_rows(at + (2 * i + 1) * 64, _mm256_srai_epi16(x[i], 8));
    }
}

INLINE void put16(struct to to, int column, const V x[4], F scale)
{
    (void)scale; /* sums of codes stay integers: no load of it is left after inlining */
    uint8_t *at = to.at + (size_t)(column / BLOCK) * to.l.bytes;
    int half = column % BLOCK / 16;
    if (to.form == ACT_8) put16_bytes(to, at, half, x);
    else put16_words(at, half, x);
}

#define FORMS(X, ...) X(ACT_8, __VA_ARGS__) X(ACT_15, __VA_ARGS__)
#include "ggml-like/kernels/panel_tmpl.h"

/* ---- any format, any number of rows ---- */

/* Formats without a function for chunks: block by block through the slot. */
static void chunk_any(const struct kernels *k, const struct dtype *t, const uint8_t *w, int n, struct codes *out)
{
    if (avx2_unpack[t->gguf_id]) {
        avx2_unpack[t->gguf_id](w, n, out);
        return;
    }
    int groups = t->block_len / t->group_len;
    for (int i = 0; i < n; i++) {
        struct codes one;
        k->unpack[t->gguf_id](w + (size_t)i * (size_t)t->block_bytes, &one);
        memcpy(out->code + i * t->block_len, one.code, (size_t)t->block_len);
        memcpy(out->scale + i * groups, one.scale, (size_t)groups * sizeof(float));
        memcpy(out->min + i * groups, one.min, (size_t)groups * sizeof(float));
    }
}

/* x[i] = the floats at p + i of 8 rows `stride` floats apart */
INLINE void transpose8(const float *p, size_t stride, __m256 x[8])
{
#define TWO(r) _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p + (r) * stride)), _mm_loadu_ps(p + ((r) + 4) * stride), 1)
    for (int h = 0; h < 2; h++, p += 4) {
        __m256 a = TWO(0), b = TWO(1), c = TWO(2), d = TWO(3);
        __m256 e = _mm256_unpacklo_ps(a, b), f = _mm256_unpackhi_ps(a, b), g = _mm256_unpacklo_ps(c, d), i = _mm256_unpackhi_ps(c, d);
        x[4 * h] = _mm256_shuffle_ps(e, g, 0x44), x[4 * h + 1] = _mm256_shuffle_ps(e, g, 0xee);
        x[4 * h + 2] = _mm256_shuffle_ps(f, i, 0x44), x[4 * h + 3] = _mm256_shuffle_ps(f, i, 0xee);
    }
#undef TWO
}

/* The scales of some groups of 8 rows, and the mins that belong to centred codes. */
INLINE void panel_scales8(struct to to, bool has_min, const struct dtype *t, const struct codes *c, int groups)
{
    size_t stride = sizeof *c / sizeof(float);
    __m256 bias = _mm256_set1_ps((float)t->code_bias), scale[8], low[8];
    for (int g = 0; g < groups; g += 8) {
        int n = groups - g < 8 ? groups - g : 8;
        transpose8(c->scale + g, stride, scale);
        if (has_min) transpose8(c->min + g, stride, low);
        for (int i = 0; i < n; i++) {
            put_scale(to, g + i, scale[i]);
            if (has_min) put_min(to, g + i, t->has_min ? f_fmadd(scale[i], bias, low[i]) : f_mul(scale[i], bias));
        }
    }
}

/* Columns k .. k + n of 8 rows whose codes stand in c[0..7]; row = 0 or 8, the first of them in the panel */
static void panel_rows8(struct panel *p, const struct dtype *t, const struct codes *c, int row, int64_t k, int n)
{
    V x[4], bias = v_set8(t->code_bias);
    struct rows r = { (const uint8_t *)c, sizeof *c };
    struct to to = panel_at(p, (struct shape){ p->group, p->code_max, p->has_min }, p->form, k, row);
    panel_scales8(to, p->has_min, t, c, n / t->group_len);
    for (int at = 0; at < n; at += 16) {
        columns16(r, offsetof(struct codes, code) + (size_t)at, x);
UNROLL
        for (int i = 0; i < 4; i++) x[i] = v_sub8(x[i], bias);
        put16(to, at, x, get_scale(to, at / p->group));
    }
}

/* From column `from` on, any format, any number of rows. */
static void panel_unpacked(const struct kernels *k, struct panel *p, const struct dtype *t, struct rows r, int n_rows, int64_t from)
{
    struct codes c[PANEL_ROWS];
    struct stream next = panel_stream(p, false);
    for (int i = n_rows; i < PANEL_ROWS; i++) { /* zero scales; the code that centres to 0 */
        memset(&c[i], 0, sizeof c[i]);
        memset(c[i].code, t->code_bias, sizeof c[i].code);
    }
    for (int64_t at = from; at < p->nk; at += CHUNK) {
        int n = (int)min_i64(CHUNK, p->nk - at), blocks = (n + t->block_len - 1) / t->block_len;
        stream_ask(&next, CHUNK);
        for (int i = 0; i < n_rows; i++) chunk_any(k, t, r.w + (size_t)i * r.stride + dtype_row_bytes(t, at), blocks, &c[i]);
        panel_rows8(p, t, c, 0, at, n);
        panel_rows8(p, t, c + 8, 8, at, n);
    }
}

static void panel_floats(const struct kernels *k, struct panel *p, const struct dtype *t, struct rows r, int n_rows)
{
    enum { COLS = 64 };
    _Alignas(32) float rows[PANEL_ROWS][COLS];
    memset(rows, 0, sizeof rows);
    struct stream next = panel_stream(p, false);
    for (int64_t at = 0; at < p->nk; at += COLS) {
        int64_t n = min_i64(COLS, p->nk - at);
        stream_ask(&next, COLS);
        for (int i = 0; i < n_rows; i++) k->to_f32(t, r.w + (size_t)i * r.stride + (size_t)at * (size_t)t->block_bytes, rows[i], n);
        for (int i = 0; i < n; i += 8)
            for (int h = 0; h < 2; h++) {
                __m256 x[8];
                transpose8(&rows[8 * h][i], COLS, x);
                for (int j = 0; j < 8 && i + j < n; j++) _mm256_storeu_ps(p->f32 + (at + i + j) * PANEL_ROWS + 8 * h, x[j]);
            }
    }
}
