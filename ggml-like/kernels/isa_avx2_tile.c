/* arch: x86_64  cflags: -mavx2 -mfma -mf16c */
/* isa_avx2_tile - the tiles of AVX2: avx2_tile_tmpl.h with madd and add, and the tiles of float weights. */
#include "ggml-like/kernels/avx2_blocks.h"
#define DOT_ADD(sum, x, y) _mm256_add_epi32(sum, _mm256_madd_epi16(x, y))
#include "ggml-like/kernels/avx2_tile_tmpl.h"

/* ---- float weights ---- */

/* acc[r][t] += v[r] * x[t] */
INLINE void add_outer(__m256 acc[2][NT], const float *v, const float *x, int nt)
{
    __m256 v0 = _mm256_loadu_ps(v), v1 = _mm256_loadu_ps(v + 8);
#pragma GCC unroll 4
    for (int t = 0; t < nt; t++) {
        __m256 b = _mm256_broadcast_ss(x + t);
        acc[0][t] = _mm256_fmadd_ps(v0, b, acc[0][t]);
        acc[1][t] = _mm256_fmadd_ps(v1, b, acc[1][t]);
    }
}

/* Writes or adds the float sums to y. */
INLINE void tile_store(__m256 acc[2][NT], int nt, float *y, int64_t y_stride, bool add)
{
#pragma GCC unroll 4
    for (int t = 0; t < nt; t++)
#pragma GCC unroll 2
        for (int r = 0; r < 2; r++) {
            float *to = y + t * y_stride + 8 * r;
            _mm256_storeu_ps(to, add ? _mm256_add_ps(_mm256_loadu_ps(to), acc[r][t]) : acc[r][t]);
        }
}

INLINE void tile_f32_body(const float *w, const float *x, int64_t nk, float *y, int64_t y_stride, bool add, int nt)
{
    __m256 acc[2][NT];
    for (int t = 0; t < nt; t++) acc[0][t] = acc[1][t] = _mm256_setzero_ps();
    for (int64_t i = 0; i < nk; i++) add_outer(acc, w + i * PANEL_ROWS, x + i * NT, nt);
    tile_store(acc, nt, y, y_stride, add);
}

static void tile_f32(const struct kernels *k, const struct panel *p, const struct act_panel *x, int64_t at, int64_t k0, int n_tokens,
                     float *y, int64_t y_stride, bool add)
{
    assert(k->tile_tokens == NT && n_tokens >= 1 && n_tokens <= NT);
    const float *from = act_floats_at(x, NT, at, k0);
    if (n_tokens == 1) tile_f32_body(p->f32, from, p->nk, y, y_stride, add, 1);
    else if (n_tokens == 2) tile_f32_body(p->f32, from, p->nk, y, y_stride, add, 2);
    else if (n_tokens == 3) tile_f32_body(p->f32, from, p->nk, y, y_stride, add, 3);
    else tile_f32_body(p->f32, from, p->nk, y, y_stride, add, 4);
}

void kernels_init_avx2_tile(struct kernels *k)
{
    k->tile_tokens = NT;
    k->tile = tile;
    k->tile_f32 = tile_f32;
}
