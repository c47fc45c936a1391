/* arch: x86_64  cflags: -mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mavx512vbmi -mavx512bf16 -mamx-tile -mamx-bf16 */
/* isa_amx_act - activations for the tiles of AMX: rows of BF16, in chunks of 32 columns. */
#include "ggml-like/kernels/amx_chunks.h"

/* One chunk of a token, the first n columns of it; and its second part if two. */
INLINE void put_chunk(uint16_t *to, int64_t part, const float *x, int64_t n, bool two)
{
    __mmask16 low = n >= 16 ? 0xffff : (__mmask16)((1u << n) - 1), high = n >= 32 ? 0xffff : n <= 16 ? 0 : (__mmask16)((1u << (n - 16)) - 1);
    __m512 a = _mm512_maskz_loadu_ps(low, x), b = _mm512_maskz_loadu_ps(high, x + 16);
    __m512i v = rounded(b, a);
    _mm512_storeu_si512(to, v);
    if (two) _mm512_storeu_si512(to + part, rounded(_mm512_sub_ps(b, high_floats(v)), _mm512_sub_ps(a, low_floats(v))));
}

INLINE void fill_chunks(struct act_panel *p, int64_t tile, const float *const *x, int n, bool two)
{
    uint16_t *to = act_chunks_at(p, tile, 0);
    int64_t part = act_part(p);
    static const float nothing[CHUNK_COLUMNS];
    for (int t = 0; t < NT; t++, to += CHUNK_COLUMNS)
        for (int64_t at = 0; at < p->k; at += CHUNK_COLUMNS) put_chunk(to + at * NT, part, t < n ? x[t] + at : nothing, p->k - at, two);
}

static void quant_tile(const struct kernels *k, struct act_panel *p, int64_t tile, const float *const *x, int n)
{
    assert(k->tile_tokens == NT && p->k % 32 == 0 && n >= 1 && n <= NT);
    if (p->form == ACT_15) fill_chunks(p, tile, x, n, true);
    else fill_chunks(p, tile, x, n, false);
}

static void pack_tile_bf16(const struct kernels *k, struct act_panel *p, int64_t tile, const float *const *x, int n)
{
    assert(k->tile_tokens == NT && n >= 1 && n <= NT);
    fill_chunks(p, tile, x, n, false);
}

static size_t act_tile_bytes(const struct kernels *k, enum act_form form, int64_t cols)
{
    return (size_t)cols * NT * sizeof(uint16_t) * (form == ACT_15 ? 2 : 1);
}

static void act_read(const struct kernels *k, const struct act_panel *p, int64_t tile, int t, int64_t k0, int64_t n, double *v)
{
    const uint16_t *from = act_chunks_at(p, tile, k0) + t * CHUNK_COLUMNS;
    for (int64_t c = 0; c < n; c++) {
        const uint16_t *x = from + c / CHUNK_COLUMNS * CHUNK_TOKENS + c % CHUNK_COLUMNS;
        v[c] = bf16_to_f32(*x);
        if (p->form == ACT_15) v[c] += (double)bf16_to_f32(x[act_part(p)]);
    }
}

/* Values of two rows side by side, for 16 tokens of which `in` are there; b NULL: zeros. */
INLINE __m512i pairs_of(const float *a, const float *b, __mmask16 in)
{
    __m512 low = _mm512_maskz_loadu_ps(in, a), high = b ? _mm512_maskz_loadu_ps(in, b) : _mm512_setzero_ps();
    return paired(rounded(high, low));
}

/* 16 tokens at a time, their lines of 32 columns at once: scattered, a pair of rows after the other, they took three times as long. Rows that fill no line
 * are. */
static void tile_columns_bf16(const struct kernels *k, uint16_t *to, int64_t step, int64_t i, const float *x, int64_t stride, int64_t rows, int64_t n)
{
    const __m512i lines = _mm512_setr_epi32(0, 16, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208, 224, 240);
    assert(i % 2 == 0);
    for (int64_t left = rows, m; left > 0; left -= m, i += m, x += m * stride) {
        bool whole = i % CHUNK_COLUMNS == 0 && left >= CHUNK_COLUMNS;
        m = whole ? CHUNK_COLUMNS : 2;
        for (int64_t t = 0; t < (n + NT - 1) / NT * NT; t += 16) {
            __mmask16 in = n - t >= 16 ? 0xffff : n <= t ? 0 : (__mmask16)((1u << (n - t)) - 1);
            uint16_t *at = to + t / NT * step + i / CHUNK_COLUMNS * CHUNK_TOKENS + t % NT * CHUNK_COLUMNS;
            if (!whole) {
                _mm512_i32scatter_epi32(at + i % CHUNK_COLUMNS, lines, pairs_of(x + t, left > 1 ? x + stride + t : NULL, in), 4);
                continue;
            }
            __m512i v[16];
UNROLL
            for (int j = 0; j < 16; j++) v[j] = pairs_of(x + 2 * j * stride + t, x + (2 * j + 1) * stride + t, in);
            turn(v);
UNROLL
            for (int j = 0; j < 16; j++) _mm512_storeu_si512(at + j * CHUNK_COLUMNS, v[j]);
        }
    }
}

static void scale_tile_bf16(const struct kernels *k, uint16_t *to, const uint16_t *x, const float *f, int64_t n)
{
    for (int64_t at = 0; at < n; at += CHUNK_COLUMNS)
        for (int t = 0; t < NT; t++, x += CHUNK_COLUMNS, to += CHUNK_COLUMNS) {
            __m512i v = load512(x);
            __m512 by = _mm512_set1_ps(f[t]);
            _mm512_storeu_si512(to, rounded(_mm512_mul_ps(high_floats(v), by), _mm512_mul_ps(low_floats(v), by)));
        }
}

void kernels_init_amx_act(struct kernels *k)
{
    k->has_chunks = true;
    k->code_max_8 = 128;
    k->tile_tokens = NT;
    k->act_tile_bytes = act_tile_bytes;
    k->act_read = act_read;
    k->quant_tile = quant_tile;
    k->pack_tile_bf16 = pack_tile_bf16;
    k->tile_columns_bf16 = tile_columns_bf16;
    k->scale_tile_bf16 = scale_tile_bf16;
    k->quant_planes = NULL;
    k->quant_wide = NULL;
}
