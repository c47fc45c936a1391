/* neon_tile_tmpl - the tiles of 16 rows x 4 tokens for aarch64, compiled once per level over what its file defines before including this:
 *   A_BIAS                                                                           what its activations are taken too low: 128 or 0
 *   void group_dot(int32x4_t dot[2][NT], const int32x4_t first[2], const int8_t *w, const uint8_t *a, bool wide, int nt)
 *       first, plus the dots of 16 columns: 8 rows, four to a register, by nt tokens. wide: codes beyond 6 bits
 * 8 rows at a time: 8 int32, 8 scaled and 8 float sums, the codes and the activations fit in 32 registers, if gcc does not schedule before it
 * allocates: -fno-schedule-insns, else it hoists loads and a block of 32 columns has up to 40 (dotprod) or 150 (neon) stack accesses. */
#include "ggml-like/kernels/levels.h"
#include "ggml-like/kernels/neon.h"
#include <assert.h>

/* acc[r][t] += v[r] * x[t] */
INLINE void add_outer(float32x4_t acc[2][NT], const float *v, float32x4_t x, int nt)
{
    float32x4_t v0 = vld1q_f32(v), v1 = vld1q_f32(v + 4);
    UNROLL
    for (int t = 0; t < nt; t++) acc[0][t] = fma_lane(acc[0][t], v0, x, t), acc[1][t] = fma_lane(acc[1][t], v1, x, t);
}

/* Half h of a block of 32 columns: part = D0 dot0 (+ D1 dot1), and acc += S part where a scale ends */
INLINE void half_scaled(float32x4_t acc[2][NT], float32x4_t part[2][NT], int32x4_t dot[2][NT], const float *scale, float32x4_t d, int h,
                        int group, int nt)
{
    float32x4_t s[2] = { vld1q_f32(scale), vld1q_f32(scale + 4) };
    UNROLL
    for (int t = 0; t < nt; t++)
        UNROLL
        for (int r = 0; r < 2; r++) {
            float32x4_t v = vcvtq_f32_s32(dot[r][t]);
            part[r][t] = h && group == 32 ? fma_lane(part[r][t], v, d, t) : mul_lane(v, d, t);
            if (h || group == 16) acc[r][t] = vfmaq_f32(acc[r][t], part[r][t], s[r]);
        }
}

/* rows 8 * half .. of the panel */
INLINE void tile_rows(const struct panel *p, struct act_tile x, int half, float *y, int64_t y_stride, bool add, bool wide, int group, int nt)
{
    const int8_t *w = p->code + 8 * half * 4;
    const float *scale = p->scale + 8 * half, *csum = p->csum + 8 * half, *min = p->min + 8 * half;
    const int32_t *sums = code_sums(p) + 8 * half;
    struct stream next = panel_stream(p, true);
    float32x4_t acc[2][NT];
    UNROLL
    for (int t = 0; t < nt; t++) acc[0][t] = acc[1][t] = vdupq_n_f32(0.0f);
    for (const int8_t *end = w + p->nk * PANEL_ROWS; w < end; w += 32 * PANEL_ROWS) {
        float32x4_t part[2][NT];
        if (half == 0) stream_ask(&next, 32);
        UNROLL
        for (int h = 0; h < 2; h++) {
            int32x4_t dot[2][NT], first[2] = { vdupq_n_s32(0), vdupq_n_s32(0) };
            if (A_BIAS) first[0] = vld1q_s32(sums + h * PANEL_ROWS), first[1] = vld1q_s32(sums + h * PANEL_ROWS + 4);
            group_dot(dot, first, w + h * 16 * PANEL_ROWS, x.a + h * 16 * NT, wide, nt);
            half_scaled(acc, part, dot, scale + (group == 16 ? h * PANEL_ROWS : 0), vld1q_f32(x.d + h * NT), h, group, nt);
            add_outer(acc, csum + h * PANEL_ROWS, vld1q_f32(x.o + h * NT), nt);
        }
        if (p->has_min && group == 16) {
            add_outer(acc, min, vld1q_f32(x.sum), nt);
            add_outer(acc, min + PANEL_ROWS, vld1q_f32(x.sum + NT), nt);
        } else if (p->has_min) {
            add_outer(acc, min, vaddq_f32(vld1q_f32(x.sum), vld1q_f32(x.sum + NT)), nt);
        }
        x.a += 32 * NT, x.d += 2 * NT, x.o += 2 * NT, x.sum += 2 * NT;
        scale += 32 / group * PANEL_ROWS, csum += 2 * PANEL_ROWS, sums += 2 * PANEL_ROWS, min += 32 / group * PANEL_ROWS;
    }
    UNROLL
    for (int t = 0; t < nt; t++)
        UNROLL
        for (int r = 0; r < 2; r++) {
            float *to = y + t * y_stride + 8 * half + 4 * r;
            vst1q_f32(to, add ? vaddq_f32(vld1q_f32(to), acc[r][t]) : acc[r][t]);
        }
}

typedef void tile_fn(const struct panel *p, struct act_tile x, float *y, int64_t y_stride, bool add);

#define TILE(wide, group, nt)                                                                                                \
    static void tile_##wide##_##group##_##nt(const struct panel *p, struct act_tile x, float *y, int64_t y_stride, bool add) \
    {                                                                                                                        \
        for (int half = 0; half < 2; half++) tile_rows(p, x, half, y, y_stride, add, wide, group, nt);                       \
    }
#define TILE_TOKENS(wide, group) TILE(wide, group, 1) TILE(wide, group, 2) TILE(wide, group, 3) TILE(wide, group, 4)
#define TILE_NAMES(wide, group) \
    { tile_##wide##_##group##_1, tile_##wide##_##group##_2, tile_##wide##_##group##_3, tile_##wide##_##group##_4 }
TILE_TOKENS(0, 32) TILE_TOKENS(0, 16) TILE_TOKENS(1, 32) TILE_TOKENS(1, 16)

/* [wide][group 16][n_tokens - 1] */
static tile_fn *const tiles[2][2][NT] = { { TILE_NAMES(0, 32), TILE_NAMES(0, 16) }, { TILE_NAMES(1, 32), TILE_NAMES(1, 16) } };

static void tile_planes(const struct kernels *k, const struct panel *p, const struct act_tile *x, int n_tokens, float *y, int64_t y_stride, bool add)
{
    assert(k->tile_tokens == NT && p->nk % 32 == 0 && n_tokens >= 1 && n_tokens <= NT);
    tiles[p->code_max > 32][p->group == 16][n_tokens - 1](p, *x, y, y_stride, add);
}
