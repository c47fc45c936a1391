/* neon_rowdot_tmpl - the row-dots of all formats and quant_row for aarch64, compiled once per level over the dot product that its file
 * defines before including this:
 *   DOT_BIAS(kind)                             what dot16 wants added to the codes: its result is then too large by so many sums of y
 *   int32x4_t dot16(int8x16_t c, const int16_t *y, enum code_kind kind)                  16 weights; the sum of the lanes counts
 *   int32x4_t dot32(struct codes32 c, const int16_t *y, enum code_kind kind)             32 weights
 * Four groups at a time: their int32 dots come together in one register, take in what was added to the codes (exact, in integers), and
 * become floats that meet the scales of the four. A row is walked alone; the sums are in an order that depends on k only. */
#include "ggml-like/kernels/levels.h"
#include "ggml-like/kernels/neon_formats.h"

struct sums {
    float32x4_t dot[2]; /* two chains: the latency of one would bound the loop */
    float32x4_t min;
};

INLINE int8x16_t biased(int8x16_t c, int bias) { return bias ? vaddq_s8(c, vdupq_n_s8((int8_t)bias)) : c; }

/* the dots of groups 4q .. 4q + 3 of the chunk */
INLINE int32x4_t four_dots(const uint8_t *w, const int16_t *y, int q, const struct neon_format *f)
{
    int32x4_t dot[4];
    int bias = DOT_BIAS(f->kind);
    UNROLL
    for (int i = 0; i < 4; i++) {
        int at = (4 * q + i) * f->group;
        struct codes32 c = f->codes(w, at / 32);
        if (f->group == 32) dot[i] = dot32((struct codes32){ biased(c.low, bias), biased(c.high, bias) }, y + at, f->kind);
        else dot[i] = dot16(biased(i % 2 ? c.high : c.low, bias), y + at, f->kind);
    }
    return vpaddq_s32(vpaddq_s32(dot[0], dot[1]), vpaddq_s32(dot[2], dot[3]));
}

INLINE void add_chunk(struct sums *s, const uint8_t *w, const int16_t *y, const float *d, const int32_t *sum, const struct neon_format *f)
{
    float32x4_t scale[4], min[4];
    f->scales(w, scale, min);
    int bias = f->bias - DOT_BIAS(f->kind);
    UNROLL
    for (int q = 0; q < f->chunk / f->group / 4; q++) {
        int32x4_t dot = four_dots(w, y, q, f), sums = vdupq_n_s32(0);
        if (bias || f->has_min)
            sums = f->group == 32 ? vpaddq_s32(vld1q_s32(sum + 8 * q), vld1q_s32(sum + 8 * q + 4)) : vld1q_s32(sum + 4 * q);
        if (bias) dot = vmlaq_n_s32(dot, sums, bias);
        float32x4_t dx;
        if (f->group == 32) {
            dx = vld1q_f32(d + 4 * q);
        } else {
            float32x2_t two = vld1_f32(d + 2 * q);
            dx = vcombine_f32(vdup_lane_f32(two, 0), vdup_lane_f32(two, 1));
        }
        s->dot[q % 2] = vfmaq_f32(s->dot[q % 2], vcvtq_f32_s32(dot), vmulq_f32(scale[q], dx));
        if (f->has_min) s->min = vfmaq_f32(s->min, vcvtq_f32_s32(sums), vmulq_f32(min[q], dx));
    }
}

/* the last k < chunk weights, padded with weights and activations that are 0 */
INLINE void add_rest(struct sums *s, const uint8_t *w, const int16_t *y, const float *d, const int32_t *sum, int64_t k, const struct neon_format *f)
{
    uint8_t last[256] = { 0 };
    int16_t last_y[128] = { 0 };
    float last_d[4] = { 0 };
    int32_t last_sum[8] = { 0 };
    memcpy(last, w, (size_t)(k / f->block_len * f->block_bytes));
    memcpy(last_y, y, (size_t)k * sizeof *y);
    memcpy(last_d, d, (size_t)(k / 32) * sizeof *d);
    memcpy(last_sum, sum, (size_t)(k / 16) * sizeof *sum);
    add_chunk(s, last, last_y, last_d, last_sum, f);
}

INLINE float rowdot(const uint8_t *w, const struct act_row *x, int64_t k, const struct neon_format f)
{
    struct sums s = { { vdupq_n_f32(0.0f), vdupq_n_f32(0.0f) }, vdupq_n_f32(0.0f) };
    const int16_t *y = x->y;
    const int32_t *sum = x->sum;
    const float *d = x->d;
    for (; k >= f.chunk; k -= f.chunk, w += f.chunk / f.block_len * f.block_bytes, y += f.chunk, d += f.chunk / 32, sum += f.chunk / 16)
        add_chunk(&s, w, y, d, sum, &f);
    if (f.block_len < f.chunk && k > 0) add_rest(&s, w, y, d, sum, k, &f);
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
