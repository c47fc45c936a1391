/* neon_rowdot_tmpl - the row-dots of all formats for aarch64, compiled once per level over the dot product that its file defines before
 * including this, as four int32 whose sum counts:
 *   int32x4_t dot16(int8x16_t c, const struct act_row *x, int at)           16 weights by the activations from column `at` on
 *   int32x4_t dot32(struct codes32 c, const struct act_row *x, int at)      32
 * Four groups at a time: their int32 dots come together in one register, take in the constant of the codes (exact, in integers), and become
 * floats that meet the scales of the four. A row is walked alone; the sums are in an order that depends on k only. */
#include "ggml-like/kernels/levels.h"
#include "ggml-like/kernels/neon_formats.h"

struct sums {
    float32x4_t dot[2]; /* two chains: the latency of one would bound the loop */
    float32x4_t min;
};

/* the dots of groups 4q .. 4q + 3 */
INLINE int32x4_t four_dots(const uint8_t *w, const struct act_row *x, int q, const struct neon_format *f)
{
    int32x4_t dot[4];
    UNROLL
    for (int i = 0; i < 4; i++) {
        int at = (4 * q + i) * f->group;
        struct codes32 c = f->codes(w, at / 32);
        dot[i] = f->group == 32 ? dot32(c, x, at) : dot16(i % 2 ? c.high : c.low, x, at);
    }
    return vpaddq_s32(vpaddq_s32(dot[0], dot[1]), vpaddq_s32(dot[2], dot[3]));
}

/* One chunk; x begins at it. */
INLINE void add_chunk(struct sums *s, const uint8_t *w, const struct act_row *x, const struct neon_format *f)
{
    float32x4_t scale[4], min[4];
    f->scales(w, scale, min);
    UNROLL
    for (int q = 0; q < f->chunk / f->group / 4; q++) {
        int32x4_t dot = four_dots(w, x, q, f);
        const int32_t *sum = x->sum + q * f->group / 4;
        if (f->bias) dot = vmlaq_n_s32(dot, f->group == 32 ? vpaddq_s32(vld1q_s32(sum), vld1q_s32(sum + 4)) : vld1q_s32(sum), f->bias);
        float32x4_t dx;
        if (f->group == 32) {
            dx = vld1q_f32(x->d + 4 * q);
        } else {
            float32x2_t two = vld1_f32(x->d + 2 * q);
            dx = vcombine_f32(vdup_lane_f32(two, 0), vdup_lane_f32(two, 1));
        }
        s->dot[q % 2] = vfmaq_f32(s->dot[q % 2], vcvtq_f32_s32(dot), vmulq_f32(scale[q], dx));
        if (f->has_min) s->min = vfmaq_f32(s->min, vld1q_f32((f->group == 32 ? x->sum32 : x->sum16) + 4 * q), min[q]);
    }
}

/* The last k weights, fewer than a chunk, padded with zeros. Past them the arrays of x may be read, but floats there may be anything. */
INLINE void add_rest(struct sums *s, const uint8_t *w, struct act_row x, int64_t k, const struct neon_format *f)
{
    uint8_t last[256] = { 0 };
    float d[4] = { 0 }, sum32[4] = { 0 };
    memcpy(last, w, (size_t)(k / f->block_len * f->block_bytes));
    memcpy(d, x.d, (size_t)(k / 32) * sizeof *d);
    memcpy(sum32, x.sum32, (size_t)(k / 32) * sizeof *sum32);
    x.d = d, x.sum32 = sum32;
    add_chunk(s, last, &x, f);
}

INLINE float rowdot(const uint8_t *w, const struct act_row *row, int64_t k, const struct neon_format f)
{
    struct sums s = { { vdupq_n_f32(0.0f), vdupq_n_f32(0.0f) }, vdupq_n_f32(0.0f) };
    struct act_row x = *row; /* all pointers advance: loads with constant offsets, which go in pairs */
    for (; k >= f.chunk; k -= f.chunk, w += f.chunk / f.block_len * f.block_bytes) {
        add_chunk(&s, w, &x, &f);
        x.y += f.chunk, x.hi += f.chunk, x.lo += f.chunk, x.sum += f.chunk / 16, x.sum16 += f.chunk / 16;
        x.d += f.chunk / 32, x.sum32 += f.chunk / 32;
    }
    if (f.block_len < f.chunk && k > 0) add_rest(&s, w, x, k, &f);
    return vaddvq_f32(vaddq_f32(vaddq_f32(s.dot[0], s.dot[1]), s.min));
}

#define ROWDOT(id, name, ...)                                                       \
    static float rowdot_##name(const void *w, const struct act_row *x, int64_t k)   \
    {                                                                               \
        return rowdot(w, x, k, NEON_FORMAT(name, __VA_ARGS__));                     \
    }
NEON_FORMATS(ROWDOT)

static void set_rowdot_slots(struct kernels *k)
{
#define ROWDOT_SLOT(id, name, ...) k->rowdot[id] = rowdot_##name;
    NEON_FORMATS(ROWDOT_SLOT)
}
