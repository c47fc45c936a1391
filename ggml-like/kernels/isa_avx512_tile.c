/* arch: x86_64  cflags: -mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni */
/* isa_avx512_tile - the tiles of 16 rows x 1..12 tokens. One register is 4 columns of 16 rows; vpdpbusd multiplies them by 4 activations of a
 * token, u8 x s8 summed in int32 without saturation, so one body serves every quantized format. 12 integer and 12 float sums, the weights
 * and the scales fill the 32 registers. Per 32 columns, 16 rows and token: 8 dot products, 2 conversions and 6 to 8 FMAs on two ports. */
#include "ggml-like/kernels/avx512_blocks.h"
#include "ggml-like/kernels/levels.h"
#include <assert.h>

enum { NT = AVX512_TILE_TOKENS };

INLINE __m512i broadcast_u32(const uint8_t *p) { return _mm512_set1_epi32((int)load_u32(p)); }
INLINE __m512 load_ps(const float *p) { return _mm512_loadu_ps(p); }

/* dot[t] = codes x activations over 16 columns */
INLINE void group_dot(__m512i dot[NT], const int8_t *w, const uint8_t *a, int nt)
{
UNROLL
    for (int t = 0; t < nt; t++) dot[t] = _mm512_setzero_si512();
UNROLL
    for (int i = 0; i < 4; i++) {
        __m512i codes = load512(w + i * 4 * PANEL_ROWS);
UNROLL
        for (int t = 0; t < nt; t++) dot[t] = _mm512_dpbusd_epi32(dot[t], broadcast_u32(a + (i * NT + t) * 4), codes);
    }
}

/* acc[t] += v * x[t], the offset terms */
INLINE void add_outer(__m512 acc[NT], const float *v, const float *x, int nt)
{
    __m512 rows = load_ps(v);
UNROLL
    for (int t = 0; t < nt; t++) acc[t] = _mm512_fmadd_ps(rows, _mm512_set1_ps(x[t]), acc[t]);
}

/* acc[t] += scale * (d[t] * dot[t]) */
INLINE void add_scaled(__m512 acc[NT], const __m512i dot[NT], __m512 s, const float *d, int nt)
{
UNROLL
    for (int t = 0; t < nt; t++)
        acc[t] = _mm512_fmadd_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(dot[t]), _mm512_set1_ps(d[t])), s, acc[t]);
}

/* The sums of the activations over 32 columns. */
INLINE void pair_sums(float both[16], const float *sum)
{
    _mm512_store_ps(both, _mm512_add_ps(load_ps(sum), _mm512_maskz_loadu_ps((1 << NT) - 1, sum + NT)));
}

INLINE void tile_store(const __m512 acc[NT], float *y, int64_t y_stride, bool add, int nt)
{
UNROLL
    for (int t = 0; t < nt; t++, y += y_stride) _mm512_storeu_ps(y, add ? _mm512_add_ps(load_ps(y), acc[t]) : acc[t]);
}

INLINE void tile_body(const struct panel *p, struct act_tile x, float *y, int64_t y_stride, bool add, int group, bool has_min, int nt)
{
    const int8_t *w = p->code;
    const float *scale = p->scale, *csum = p->csum, *min = p->min;
    _Alignas(64) float both[2][16]; /* of this block and the next: stored a block before they are broadcast */
    int now = 0;
    if (has_min && group == 32) pair_sums(both[0], x.sum);
    __m512 acc[NT];
UNROLL
    for (int t = 0; t < nt; t++) acc[t] = _mm512_setzero_ps();
    for (const int8_t *end = w + p->nk * PANEL_ROWS; w < end; w += 32 * PANEL_ROWS) {
        if (has_min && group == 32) pair_sums(both[now ^ 1], w + 32 * PANEL_ROWS < end ? x.sum + 2 * NT : x.sum);
UNROLL
        for (int h = 0; h < 2; h++) {
            __m512i dot[NT];
            group_dot(dot, w + h * 16 * PANEL_ROWS, x.a + h * 16 * NT, nt);
            add_scaled(acc, dot, load_ps(scale + (group == 16 ? h * PANEL_ROWS : 0)), x.d + h * NT, nt);
            add_outer(acc, csum + h * PANEL_ROWS, x.o + h * NT, nt);
            if (has_min && group == 16) add_outer(acc, min + h * PANEL_ROWS, x.sum + h * NT, nt);
        }
        if (has_min && group == 32) {
            add_outer(acc, min, both[now], nt);
            now ^= 1;
        }
        x.a += 32 * NT, x.d += 2 * NT, x.o += 2 * NT, x.sum += 2 * NT;
        scale += 32 / group * PANEL_ROWS, csum += 2 * PANEL_ROWS, min += 32 / group * PANEL_ROWS;
    }
    tile_store(acc, y, y_stride, add, nt);
}

typedef void tile_fn(const struct panel *p, struct act_tile x, float *y, int64_t y_stride, bool add);

#define TILE(name, group, has_min, nt)                                                                       \
    static void name(const struct panel *p, struct act_tile x, float *y, int64_t y_stride, bool add)         \
    {                                                                                                        \
        tile_body(p, x, y, y_stride, add, group, has_min, nt);                                               \
    }
#define EACH_NT(X, group, has_min)                                                                           \
    X(group, has_min, 1) X(group, has_min, 2) X(group, has_min, 3) X(group, has_min, 4) X(group, has_min, 5) \
    X(group, has_min, 6) X(group, has_min, 7) X(group, has_min, 8) X(group, has_min, 9) X(group, has_min, 10) \
    X(group, has_min, 11) X(group, has_min, 12)
#define TILE_NT(group, has_min, nt) TILE(tile_##group##_##has_min##_##nt, group, has_min, nt)
#define TILE_NT_NAME(group, has_min, nt) tile_##group##_##has_min##_##nt,
EACH_NT(TILE_NT, 32, 0) EACH_NT(TILE_NT, 32, 1) EACH_NT(TILE_NT, 16, 0) EACH_NT(TILE_NT, 16, 1)

/* [group 16][has_min][n_tokens - 1] */
static tile_fn *const tiles[2][2][NT] = {
    { { EACH_NT(TILE_NT_NAME, 32, 0) }, { EACH_NT(TILE_NT_NAME, 32, 1) } },
    { { EACH_NT(TILE_NT_NAME, 16, 0) }, { EACH_NT(TILE_NT_NAME, 16, 1) } },
};

static void tile(const struct kernels *k, const struct panel *p, const struct act_panel *x, int64_t at, int64_t k0, int n_tokens, float *y,
                 int64_t y_stride, bool add)
{
    assert(k->tile_tokens == NT && p->nk % 32 == 0 && k0 % 32 == 0 && n_tokens >= 1 && n_tokens <= NT);
    tiles[p->group == 16][p->has_min][n_tokens - 1](p, act_tile_at(x, NT, at, k0), y, y_stride, add);
}

/* ---- float weights ---- */

INLINE void tile_f32_body(const struct panel *p, const float *x, float *y, int64_t y_stride, bool add, int nt)
{
    __m512 acc[NT];
UNROLL
    for (int t = 0; t < nt; t++) acc[t] = _mm512_setzero_ps();
    for (int64_t i = 0; i < p->nk; i++) add_outer(acc, p->f32 + i * PANEL_ROWS, x + i * NT, nt);
    tile_store(acc, y, y_stride, add, nt);
}

typedef void tile_f32_fn(const struct panel *p, const float *x, float *y, int64_t y_stride, bool add);

#define TILE_F32(unused, unused_too, nt)                                                                             \
    static void tile_f32_##nt(const struct panel *p, const float *x, float *y, int64_t y_stride, bool add)           \
    {                                                                                                                \
        tile_f32_body(p, x, y, y_stride, add, nt);                                                                   \
    }
#define TILE_F32_NAME(unused, unused_too, nt) tile_f32_##nt,
EACH_NT(TILE_F32, , )
static tile_f32_fn *const tiles_f32[NT] = { EACH_NT(TILE_F32_NAME, , ) };

static void tile_f32(const struct kernels *k, const struct panel *p, const struct act_panel *x, int64_t at, int64_t k0, int n_tokens,
                     float *y, int64_t y_stride, bool add)
{
    assert(k->tile_tokens == NT && n_tokens >= 1 && n_tokens <= NT);
    tiles_f32[n_tokens - 1](p, x->f32 + (at * x->k + k0) * NT, y, y_stride, add);
}

void kernels_init_avx512_tile(struct kernels *k)
{
    k->tile_tokens = NT;
    k->tile = tile;
    k->tile_f32 = tile_f32;
}
