/* avx512_floats_tmpl - tiles of float weights, for the levels of AVX-512. The file that includes this has defined NT, the tokens of its tiles, a multiple
 * of 4. */
#include "ggml-like/kernels/avx512_tiles.h"

static void pack_tile_f32(const struct kernels *k, struct act_panel *p, int64_t tile, const float *const *x, int n)
{
    assert(k->tile_tokens == NT && n >= 1 && n <= NT);
    float *to = act_floats_at(p, NT, tile, 0);
    int64_t at = 0;
    for (; at + 4 <= p->k; at += 4, to += 4 * NT)
        for (int g = 0; g < NT / 4; g++) {
            __m128 v[4];
            for (int t = 0; t < 4; t++) v[t] = 4 * g + t < n ? _mm_loadu_ps(x[4 * g + t] + at) : _mm_setzero_ps();
            _MM_TRANSPOSE4_PS(v[0], v[1], v[2], v[3]);
            for (int i = 0; i < 4; i++) _mm_storeu_ps(to + i * NT + 4 * g, v[i]);
        }
    for (; at < p->k; at++)
        for (int t = 0; t < NT; t++) *to++ = t < n ? x[t][at] : 0.0f;
}

INLINE void tile_f32_body(const struct panel *p, const float *x, float *y, int64_t y_stride, bool add, int nt)
{
    __m512 acc[SIDE];
UNROLL
    for (int t = 0; t < nt; t++) acc[t] = _mm512_setzero_ps();
    for (int64_t i = 0; i < p->nk; i++, x += NT) {
        __m512 rows = load_ps(p->f32 + i * PANEL_ROWS);
UNROLL
        for (int t = 0; t < nt; t++) acc[t] = _mm512_fmadd_ps(rows, _mm512_set1_ps(x[t]), acc[t]);
    }
    tile_store(acc, y, y_stride, add, nt);
}

typedef void tile_f32_fn(const struct panel *p, const float *x, float *y, int64_t y_stride, bool add);

#define TILE_F32(name, nt)                                                                                          \
    static void name##_##nt(const struct panel *p, const float *x, float *y, int64_t y_stride, bool add)          \
    {                                                                                                               \
        tile_f32_body(p, x, y, y_stride, add, nt);                                                                  \
    }
#define TILE_F32_NAME(name, nt) name##_##nt,
EACH_NT(TILE_F32, tile_f32)
static tile_f32_fn *const tiles_f32[SIDE] = { EACH_NT(TILE_F32_NAME, tile_f32) };

static void tile_f32(const struct kernels *k, const struct panel *p, const struct act_panel *x, int64_t at, int64_t k0, int n_tokens,
                     float *y, int64_t y_stride, bool add)
{
    assert(k->tile_tokens == NT && n_tokens >= 1 && n_tokens <= NT);
    for (int t = 0; t < n_tokens; t += SIDE) {
        int n = n_tokens - t < SIDE ? n_tokens - t : SIDE;
        tiles_f32[n - 1](p, act_floats_at(x, NT, at, k0) + t, y + t * y_stride, y_stride, add);
    }
}

/* Of 32 rows: a tile of 16 is as slow as its loads, a value of a token with each product; here there are two with each. */
INLINE void pair_f32_body(const float *p, const float *q, int64_t nk, const float *x, float *y, int64_t y_stride, bool add, int nt)
{
    __m512 acc[2][PAIR_SIDE];
UNROLL
    for (int t = 0; t < nt; t++) acc[0][t] = acc[1][t] = _mm512_setzero_ps();
    for (int64_t i = 0; i < nk; i++, x += NT, p += PANEL_ROWS, q += PANEL_ROWS) {
        __m512 a = load_ps(p), b = load_ps(q);
UNROLL
        for (int t = 0; t < nt; t++) {
            __m512 v = _mm512_set1_ps(x[t]);
            ONCE(v);
            acc[0][t] = _mm512_fmadd_ps(a, v, acc[0][t]);
            acc[1][t] = _mm512_fmadd_ps(b, v, acc[1][t]);
        }
    }
    tile_store(acc[0], y, y_stride, add, nt);
    tile_store(acc[1], y + PANEL_ROWS, y_stride, add, nt);
}

typedef void pair_f32_fn(const float *p, const float *q, int64_t nk, const float *x, float *y, int64_t y_stride, bool add);

#define PAIR_F32(name, nt)                                                                                          \
    static void name##_##nt(const float *p, const float *q, int64_t nk, const float *x, float *y, int64_t y_stride, bool add) \
    {                                                                                                               \
        pair_f32_body(p, q, nk, x, y, y_stride, add, nt);                                                           \
    }
EACH_PAIR_NT(PAIR_F32, pair_f32)
static pair_f32_fn *const pairs_f32[PAIR_SIDE] = { EACH_PAIR_NT(TILE_F32_NAME, pair_f32) };

static void pair_f32(const struct kernels *k, const struct panel *p, const struct panel *q, const struct act_panel *x, int64_t at, int64_t k0,
                     int n_tokens, float *y, int64_t y_stride, bool add)
{
    assert(k->tile_tokens == NT && n_tokens >= 1 && n_tokens <= NT && p->nk == q->nk);
    for (int t = 0; t < n_tokens; t += PAIR_SIDE) {
        int n = n_tokens - t < PAIR_SIDE ? n_tokens - t : PAIR_SIDE;
        pairs_f32[n - 1](p->f32, q->f32, p->nk, act_floats_at(x, NT, at, k0) + t, y + t * y_stride, y_stride, add);
    }
}
