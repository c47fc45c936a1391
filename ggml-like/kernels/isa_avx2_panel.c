/* arch: x86_64  cflags: -mavx2 -mfma -mf16c */
/* isa_avx2_panel - panel_build for the AVX2 levels, into the blocks of avx2_tiles.h. Formats are known to isa_avx2_unpack.c only. */
#include "ggml-like/kernels/avx2_tiles.h"

enum { CHUNK = 256 };

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

/* 16 columns of 8 rows: x[i] = columns 4i..4i+3 of each row, centred */
INLINE void transpose_codes(const struct codes *c, int at, __m256i bias, __m256i x[4])
{
#define TWO(r) _mm256_inserti128_si256(_mm256_castsi128_si256(load128(c[r].code + at)), load128(c[(r) + 4].code + at), 1)
    __m256i a = TWO(0), b = TWO(1), d = TWO(2), e = TWO(3);
#undef TWO
    __m256i f = _mm256_unpacklo_epi32(a, b), g = _mm256_unpackhi_epi32(a, b);
    __m256i h = _mm256_unpacklo_epi32(d, e), i = _mm256_unpackhi_epi32(d, e);
    x[0] = _mm256_sub_epi8(_mm256_unpacklo_epi64(f, h), bias), x[1] = _mm256_sub_epi8(_mm256_unpackhi_epi64(f, h), bias);
    x[2] = _mm256_sub_epi8(_mm256_unpacklo_epi64(g, i), bias), x[3] = _mm256_sub_epi8(_mm256_unpackhi_epi64(g, i), bias);
}

/* The scales of n columns of 8 rows, and the mins that belong to centred codes. `to` = where the first row's go in the first block. */
INLINE void panel_scales8(uint8_t *to, struct panel_layout l, bool has_min, const struct dtype *t, const struct codes *c, int groups)
{
    size_t stride = sizeof *c / sizeof(float);
    int halve = t->group_len == 16; /* two groups in a block */
    __m256 bias = _mm256_set1_ps((float)t->code_bias), scale[8], low[8];
    for (int g = 0; g < groups; g += 8) {
        int n = groups - g < 8 ? groups - g : 8;
        transpose8(c->scale + g, stride, scale);
        if (has_min) transpose8(c->min + g, stride, low);
        for (int i = 0; i < n; i++) {
            float *at = (float *)(void *)(to + (size_t)((g + i) >> halve) * l.bytes + (size_t)((g + i) & halve) * 64);
            _mm256_storeu_ps(at, scale[i]);
            if (!has_min) continue;
            __m256 m = _mm256_mul_ps(scale[i], bias);
            _mm256_storeu_ps(at + (l.min - l.scale) / sizeof(float), t->has_min ? _mm256_add_ps(low[i], m) : m);
        }
    }
}

/* 16 columns of 8 rows as bytes; sum[i] = int16 sums of their codes over 8 columns, the lanes of a chain apart */
INLINE void panel_codes8(uint8_t *to, const struct codes *c, int at, __m256i bias, __m256i sum[2])
{
    __m256i x[4], one = _mm256_set1_epi8(1);
    transpose_codes(c, at, bias, x);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) _mm256_storeu_si256((__m256i *)(void *)(to + i * 4 * PANEL_ROWS), x[i]);
    sum[0] = _mm256_add_epi16(_mm256_maddubs_epi16(one, x[0]), _mm256_maddubs_epi16(one, x[1]));
    sum[1] = _mm256_add_epi16(_mm256_maddubs_epi16(one, x[2]), _mm256_maddubs_epi16(one, x[3]));
}

/* The sums of the chains of a block from those of 8 columns each */
INLINE void panel_sums8(uint8_t *to, int chains, const __m256i sum[4])
{
    __m256i half[2] = { _mm256_add_epi16(sum[0], sum[1]), _mm256_add_epi16(sum[2], sum[3]) };
    if (chains == 1) _mm256_storeu_si256((__m256i *)(void *)to, _mm256_add_epi16(half[0], half[1]));
    else if (chains == 2)
        for (int i = 0; i < 2; i++) _mm256_storeu_si256((__m256i *)(void *)(to + i * 64), half[i]);
    else
        for (int i = 0; i < 4; i++) _mm256_storeu_si256((__m256i *)(void *)(to + i * 64), sum[i]);
}

/* 16 columns of 8 rows as int16: of each four the even ones, then the odd ones */
INLINE void panel_codes15(uint8_t *to, const struct codes *c, int at, __m256i bias)
{
    __m256i x[4];
    transpose_codes(c, at, bias, x);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        _mm256_storeu_si256((__m256i *)(void *)(to + 2 * i * 64), _mm256_srai_epi16(_mm256_slli_epi16(x[i], 8), 8));
        _mm256_storeu_si256((__m256i *)(void *)(to + (2 * i + 1) * 64), _mm256_srai_epi16(x[i], 8));
    }
}

/* Columns k .. k + n of 8 rows whose codes stand in c[0..7]; row = 0 or 8, the first of them in the panel */
static void panel_rows8(struct panel *p, struct panel_layout l, const struct dtype *t, const struct codes *c, int row, int64_t k, int n)
{
    __m256i bias = _mm256_set1_epi8((char)t->code_bias), sum[4];
    uint8_t *to = (uint8_t *)p->code + (size_t)(k / BLOCK) * l.bytes + row * 4;
    panel_scales8(to + l.scale, l, p->has_min, t, c, n / t->group_len);
    for (int at = 0; at < n; at += BLOCK, to += l.bytes) {
        for (int h = 0; h < 2; h++) {
            if (p->form == ACT_8) panel_codes8(to + h * BLOCK_CODES / 2, c, at + 16 * h, bias, sum + 2 * h);
            else panel_codes15(to + h * BLOCK_CODES, c, at + 16 * h, bias);
        }
        if (p->form == ACT_8) panel_sums8(to + BLOCK_CODES, l.chains, sum);
    }
}

static void panel_codes(const struct kernels *k, struct panel *p, const struct dtype *t, const uint8_t *w, size_t row_bytes, int n_rows)
{
    struct codes c[PANEL_ROWS];
    struct panel_layout l = panel_layout(p->form, p->group, p->code_max, p->has_min);
    size_t chunk_bytes = (size_t)(CHUNK / t->block_len * t->block_bytes);
    for (int r = n_rows; r < PANEL_ROWS; r++) { /* zero scales; the code that centres to 0 */
        memset(&c[r], 0, sizeof c[r]);
        memset(c[r].code, t->code_bias, sizeof c[r].code);
    }
    for (int64_t at = 0; at < p->nk; at += CHUNK, w += chunk_bytes) {
        int n = (int)min_i64(CHUNK, p->nk - at), blocks = (n + t->block_len - 1) / t->block_len;
        for (int r = 0; r < n_rows; r++) {
            const uint8_t *from = w + (size_t)r * row_bytes;
            _mm_prefetch((const char *)from + 2 * chunk_bytes, _MM_HINT_T0);
            _mm_prefetch((const char *)from + 2 * chunk_bytes + 64, _MM_HINT_T0);
            chunk_any(k, t, from, blocks, &c[r]);
        }
        panel_rows8(p, l, t, c, 0, at, n);
        panel_rows8(p, l, t, c + 8, 8, at, n);
    }
}

static void panel_floats(const struct kernels *k, struct panel *p, const struct dtype *t, const uint8_t *w, size_t row_bytes, int n_rows)
{
    enum { COLS = 64 };
    _Alignas(32) float rows[PANEL_ROWS][COLS];
    memset(rows, 0, sizeof rows);
    for (int64_t at = 0; at < p->nk; at += COLS) {
        int64_t n = min_i64(COLS, p->nk - at);
        for (int r = 0; r < n_rows; r++) k->to_f32(t, w + (size_t)r * row_bytes + (size_t)at * (size_t)t->block_bytes, rows[r], n);
        for (int i = 0; i < n; i += 8)
            for (int h = 0; h < 2; h++) {
                __m256 x[8];
                transpose8(&rows[8 * h][i], COLS, x);
                for (int j = 0; j < 8 && i + j < n; j++) _mm256_storeu_ps(p->f32 + (at + i + j) * PANEL_ROWS + 8 * h, x[j]);
            }
    }
}

static void panel_build(const struct kernels *k, struct panel *p, const struct dtype *t, enum act_form form, const void *w, size_t row_bytes,
                        int n_rows, int64_t k0, int64_t nk)
{
    const uint8_t *first = (const uint8_t *)w + dtype_row_bytes(t, k0);
    panel_shape(p, t, form, nk);
    if (p->group == 0) panel_floats(k, p, t, first, row_bytes, n_rows);
    else panel_codes(k, p, t, first, row_bytes, n_rows);
}

void kernels_init_avx2_panel(struct kernels *k) { k->panel_build = panel_build; }
