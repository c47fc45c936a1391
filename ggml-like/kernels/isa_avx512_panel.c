/* arch: x86_64  cflags: -mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni */
/* isa_avx512_panel - panel_build for AVX-512: panel_tmpl.h with 16 rows in a register. Formats that it does not know, the last 1..15 rows of a
 * matrix and the rest of a superblock go through the unpack slots. */
#include "ggml-like/kernels/avx512_blocks.h"
#include "ggml-like/kernels/levels.h"

enum { CHUNK = 256, LANES = 16 };
typedef __m512i V;
typedef __m512 F;

INLINE V v_set8(int c) { return _mm512_set1_epi8((char)c); }
INLINE V v_set32(int c) { return _mm512_set1_epi32(c); }
INLINE V v_and(V a, V b) { return _mm512_and_si512(a, b); }
INLINE V v_or(V a, V b) { return _mm512_or_si512(a, b); }
INLINE V v_or_and(V a, V b, V mask) { return _mm512_ternarylogic_epi32(a, b, mask, 0xf8); } /* a | (b & mask) */
INLINE V v_sub8(V a, V b) { return _mm512_sub_epi8(a, b); }
INLINE V v_sub32(V a, V b) { return _mm512_sub_epi32(a, b); }
INLINE V v_srl16(V v, int n) { return _mm512_srli_epi16(v, (unsigned)n); }
INLINE V v_sll16(V v, int n) { return _mm512_slli_epi16(v, (unsigned)n); }
INLINE V v_srl32(V v, int n) { return _mm512_srli_epi32(v, (unsigned)n); }
INLINE V v_sll32(V v, int n) { return _mm512_slli_epi32(v, (unsigned)n); }
INLINE V v_if_equal(V a, V b, V then, V other) { return _mm512_mask_blend_epi32(_mm512_cmpeq_epi32_mask(a, b), other, then); }
INLINE V v_if_greater(V a, V b, V then, V other) { return _mm512_mask_blend_epi32(_mm512_cmpgt_epi32_mask(a, b), other, then); }
INLINE V v_table(const int8_t levels[16]) { return _mm512_broadcast_i32x4(load128(levels)); }
INLINE V v_lookup(V table, V v) { return _mm512_shuffle_epi8(table, v); }
INLINE V v_low32(V a, V b) { return _mm512_unpacklo_epi32(a, b); }
INLINE V v_high32(V a, V b) { return _mm512_unpackhi_epi32(a, b); }
INLINE V v_low64(V a, V b) { return _mm512_unpacklo_epi64(a, b); }
INLINE V v_high64(V a, V b) { return _mm512_unpackhi_epi64(a, b); }
INLINE F f_set(float c) { return _mm512_set1_ps(c); }
INLINE F f_bits(V v) { return _mm512_castsi512_ps(v); }
INLINE F f_int(V v) { return _mm512_cvtepi32_ps(v); }
INLINE F f_halves(const uint16_t *p) { return _mm512_cvtph_ps(load256(p)); }
INLINE F f_mul(F a, F b) { return _mm512_mul_ps(a, b); }
INLINE F f_sub(F a, F b) { return _mm512_sub_ps(a, b); }
INLINE F f_fmadd(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
INLINE F f_fmsub(F a, F b, F c) { return _mm512_fmsub_ps(a, b, c); }

INLINE F halves_low(V v) { return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(v)); }
INLINE F halves_high(V v) { return halves_low(_mm512_srli_epi32(v, 16)); }
INLINE F byte_to_ps(V v, int i) { return f_int(v_and(v_srl32(v, 8 * i), v_set32(0xff))); }
INLINE F sbyte_to_ps(V v, int i) { return f_int(_mm512_srai_epi32(v_sll32(v, 24 - 8 * i), 24)); }

/* 16 bytes of every row: lane l of q[i] = those of row 4l + i. The inserts take their bytes from memory and need no shuffle port. */
INLINE void gather16(struct rows r, size_t at, V q[4])
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

/* -16 in byte i of lane `bits` where bit i of `bits` is clear */
#define CLEAR(b) (((b) & 1 ? 0 : 0xf0u) | ((b) & 2 ? 0 : 0xf000u) | ((b) & 4 ? 0 : 0xf00000u) | ((b) & 8 ? 0 : 0xf0000000u))
static const uint32_t clear_of[16] = { CLEAR(0), CLEAR(1), CLEAR(2), CLEAR(3), CLEAR(4), CLEAR(5), CLEAR(6), CLEAR(7), CLEAR(8), CLEAR(9),
                                       CLEAR(10), CLEAR(11), CLEAR(12), CLEAR(13), CLEAR(14), CLEAR(15) };
INLINE V clear_bits(V v, int n) { return _mm512_permutexvar_epi32(v_srl32(v, n), load512(clear_of)); }

struct to { int8_t *code; float *scale, *csum, *min; };

INLINE struct to to_columns(const struct panel *p, int64_t k)
{
    int64_t group = k / p->group * PANEL_ROWS;
    return (struct to){ p->code + k * PANEL_ROWS, p->scale + group, p->csum + k / 16 * PANEL_ROWS, p->has_min ? p->min + group : NULL };
}

INLINE void put_ps(float *p, int group, F v) { _mm512_storeu_ps(p + group * PANEL_ROWS, v); }
INLINE void put_scale(struct to to, int g, F v) { put_ps(to.scale, g, v); }
INLINE F get_scale(struct to to, int g) { return _mm512_loadu_ps(to.scale + g * PANEL_ROWS); }
INLINE void put_min(struct to to, int g, F v) { put_ps(to.min, g, v); }

INLINE void put16(struct to to, int column, const V x[4], F scale)
{
    V sum = _mm512_setzero_si512();
UNROLL
    for (int j = 0; j < 4; j++) {
        _mm512_storeu_si512(to.code + (column + 4 * j) * PANEL_ROWS, x[j]);
        sum = _mm512_dpbusd_epi32(sum, _mm512_set1_epi8(1), x[j]);
    }
    put_ps(to.csum, column / 16, f_mul(f_int(sum), scale));
}

/* One layout for all shapes and forms, all rows at once. */
INLINE struct to panel_at(const struct panel *p, struct shape s, enum act_form form, int64_t k, int row) { return to_columns(p, k); }

#define FORMS(X, ...) X(ACT_8, __VA_ARGS__)
#include "ggml-like/kernels/panel_tmpl.h"

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
    V x[4], bias = v_set8(t->code_bias);
    F centre = f_set((float)t->code_bias);
    for (int g = 0; g < n / t->group_len; g += 4) {
        V s[4], m[4] = { 0 };
        columns16(r, offsetof(struct codes, scale) + (size_t)g * 4, s);
        if (t->has_min) columns16(r, offsetof(struct codes, min) + (size_t)g * 4, m);
UNROLL
        for (int i = 0; i < 4; i++) {
            if (g + i >= n / t->group_len) break;
            F scale = f_bits(s[i]);
            put_scale(to, g + i, scale);
            if (to.min) put_min(to, g + i, _mm512_add_ps(f_mul(scale, centre), f_bits(m[i])));
        }
    }
    for (int i = 0; i < n / 16; i++) {
        columns16(r, (size_t)i * 16, x);
UNROLL
        for (int j = 0; j < 4; j++) x[j] = v_sub8(x[j], bias);
        put16(to, 16 * i, x, get_scale(to, i >> (t->group_len == 32)));
    }
}

static void panel_unpacked(const struct kernels *k, struct panel *p, const struct dtype *t, struct rows r, int n_rows, int64_t from)
{
    struct codes c[PANEL_ROWS];
    for (int i = n_rows; i < PANEL_ROWS; i++) { /* zero scales; the code that centres to 0 */
        memset(&c[i], 0, sizeof c[i]);
        memset(c[i].code, t->code_bias, sizeof c[i].code);
    }
    struct stream next = panel_stream(p, false);
    for (int64_t at = from; at < p->nk; at += CHUNK) {
        stream_ask(&next, CHUNK);
        int n = (int)min_i64(CHUNK, p->nk - at), whole = (n + t->block_len - 1) / t->block_len * t->block_len;
        for (int i = 0; i < n_rows; i++) unpack_blocks(k, t, r.w + (size_t)i * r.stride + dtype_row_bytes(t, at), whole, &c[i]);
        put_unpacked(to_columns(p, at), t, c, n);
    }
}

/* ---- float weights ---- */

static void panel_floats(const struct kernels *k, struct panel *p, const struct dtype *t, struct rows r, int n_rows)
{
    enum { COLS = 64 };
    _Alignas(64) float rows[PANEL_ROWS][COLS];
    memset(rows, 0, sizeof rows);
    struct stream next = panel_stream(p, false);
    for (int64_t at = 0; at < p->nk; at += COLS) {
        int64_t n = min_i64(COLS, p->nk - at);
        stream_ask(&next, COLS);
        for (int i = 0; i < n_rows; i++) k->to_f32(t, r.w + (size_t)i * r.stride + (size_t)at * (size_t)t->block_bytes, rows[i], n);
        for (int i = 0; i < n; i += 4) {
            V x[4];
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
    int64_t direct = n_rows == PANEL_ROWS && panels[ACT_8][t->gguf_id] ? nk / t->block_len * t->block_len : 0;
    if (direct) panels[ACT_8][t->gguf_id](p, r, direct);
    if (direct < nk) panel_unpacked(k, p, t, r, n_rows, direct);
}

void kernels_init_avx512_panel(struct kernels *k) { k->panel_build = panel_build; }
