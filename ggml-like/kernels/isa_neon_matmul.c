/* arch: aarch64  cflags: -march=armv8-a */
/* isa_neon_matmul - the several-token slots of all aarch64 levels but the int8 tile: panels, activations of a tile, the float tile. */
#include "ggml-like/kernels/levels.h"
#include "ggml-like/kernels/neon.h"
#include <assert.h>
#include <string.h>

enum { CHUNK = 256 };

/* ---- panels ---- */

/* Up to CHUNK weights. Formats without a function for chunks, and what is left of one: block by block through the slot. */
static void unpack_weights(const struct kernels *k, const struct dtype *t, const uint8_t *w, int n, struct codes *out)
{
    const struct neon_unpack *u = &neon_unpack[t->gguf_id];
    int groups = t->block_len / t->group_len;
    for (int at = 0; at < n; at += u->weights, w += u->weights / t->block_len * t->block_bytes) {
        if (u->fn && n - at >= u->weights) {
            u->fn(w, at, out);
            continue;
        }
        for (; at < n; at += t->block_len, w += t->block_bytes) {
            struct codes one;
            k->unpack[t->gguf_id](w, &one);
            memcpy(out->code + at, one.code, (size_t)t->block_len);
            memcpy(out->scale + at / t->group_len, one.scale, (size_t)groups * sizeof(float));
            memcpy(out->min + at / t->group_len, one.min, (size_t)groups * sizeof(float));
        }
        return;
    }
}

/* The scales of 4 rows, and the mins that belong to centred codes. `to` and `min` point to the first group and row in the panel; min is NULL
 * without mins. */
INLINE void panel_scales4(float *to, float *min, const struct dtype *t, const struct codes *c, int groups, float32x4_t scale[16])
{
    for (int g = 0; g < groups; g += 4) {
        float32x4_t low[4];
        for (int r = 0; r < 4; r++) scale[g + r] = vld1q_f32(c[r].scale + g), low[r] = vld1q_f32(c[r].min + g);
        transpose4(scale + g);
        if (min) transpose4(low);
        for (int i = 0; i < 4 && g + i < groups; i++) {
            vst1q_f32(to + (g + i) * PANEL_ROWS, scale[g + i]);
            if (!min) continue;
            float32x4_t m = vmulq_n_f32(scale[g + i], (float)t->code_bias);
            vst1q_f32(min + (g + i) * PANEL_ROWS, t->has_min ? vaddq_f32(low[i], m) : m);
        }
    }
}

/* 16 columns of 4 rows into the panel; returns the sums of the codes, per row */
INLINE int32x4_t panel_codes4(int8_t *to, const struct codes *c, int at, int8x16_t bias)
{
    uint8x16_t x[4];
    int16x8_t pairs[4];
    UNROLL
    for (int r = 0; r < 4; r++) {
        int8x16_t v = vsubq_s8(vld1q_s8(c[r].code + at), bias);
        x[r] = vreinterpretq_u8_s8(v);
        pairs[r] = vpaddlq_s8(v);
    }
    transpose4_bytes(x);
    UNROLL
    for (int i = 0; i < 4; i++) vst1q_u8((uint8_t *)to + i * 4 * PANEL_ROWS, x[i]);
    int16x8_t rows = vpaddq_s16(vpaddq_s16(pairs[0], pairs[1]), vpaddq_s16(pairs[2], pairs[3]));
    return vpaddlq_s16(rows);
}

/* Columns k .. k + n of 4 rows whose codes stand in c[0..3]; row = the first of them in the panel */
static void panel_rows4(struct panel *p, const struct dtype *t, const struct codes *c, int row, int64_t k, int n)
{
    float32x4_t scale[16];
    int64_t first = k / t->group_len * PANEL_ROWS + row;
    panel_scales4(p->scale + first, p->has_min ? p->min + first : NULL, t, c, n / t->group_len, scale);
    int8_t *code = p->code + k * PANEL_ROWS + row * 4;
    float *csum = p->csum + k / 16 * PANEL_ROWS + row;
    int32_t *sums = code_sums(p) + k / 16 * PANEL_ROWS + row;
    int halve = t->group_len == 32; /* two groups of 16 share a scale */
    for (int g = 0; g < n / 16; g++, csum += PANEL_ROWS, sums += PANEL_ROWS, code += 16 * PANEL_ROWS) {
        int32x4_t sum = panel_codes4(code, c, g * 16, vdupq_n_s8((int8_t)t->code_bias));
        vst1q_f32(csum, vmulq_f32(vcvtq_f32_s32(sum), scale[g >> halve]));
        vst1q_s32(sums, vshlq_n_s32(sum, 7));
    }
}

static void panel_codes(const struct kernels *k, struct panel *p, const struct dtype *t, const uint8_t *w, size_t row_bytes, int n_rows)
{
    struct codes c[PANEL_ROWS];
    for (int r = n_rows; r < PANEL_ROWS; r++) { /* zero scales; the code that centres to 0 */
        memset(&c[r], 0, sizeof c[r]);
        memset(c[r].code, t->code_bias, sizeof c[r].code);
    }
    struct stream next = panel_stream(p, false);
    for (int64_t at = 0; at < p->nk; at += CHUNK, w += CHUNK / t->block_len * t->block_bytes) {
        int n = (int)min_i64(CHUNK, p->nk - at), whole = (n + t->block_len - 1) / t->block_len * t->block_len;
        stream_ask(&next, CHUNK);
        for (int r = 0; r < n_rows; r++) unpack_weights(k, t, w + (size_t)r * row_bytes, whole, &c[r]);
        for (int r = 0; r < PANEL_ROWS; r += 4) panel_rows4(p, t, c + r, r, at, n);
    }
}

static void panel_floats(const struct kernels *k, struct panel *p, const struct dtype *t, const uint8_t *w, size_t row_bytes, int n_rows)
{
    enum { COLS = 64 };
    float rows[PANEL_ROWS][COLS];
    memset(rows, 0, sizeof rows);
    struct stream next = panel_stream(p, false);
    for (int64_t at = 0; at < p->nk; at += COLS) {
        int64_t n = min_i64(COLS, p->nk - at);
        stream_ask(&next, COLS);
        for (int r = 0; r < n_rows; r++) k->to_f32(t, w + (size_t)r * row_bytes + (size_t)at * (size_t)t->block_bytes, rows[r], n);
        for (int i = 0; i < n; i += 4)
            for (int r = 0; r < PANEL_ROWS; r += 4) {
                float32x4_t x[4];
                for (int j = 0; j < 4; j++) x[j] = vld1q_f32(rows[r + j] + i);
                transpose4(x);
                for (int j = 0; j < 4 && i + j < n; j++) vst1q_f32(p->f32 + (at + i + j) * PANEL_ROWS + r, x[j]);
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

/* ---- activations ---- */

/* NaN counts in neither minimum nor maximum */
INLINE float32x4_t min4(const float32x4_t v[4]) { return vminnmq_f32(vminnmq_f32(v[0], v[1]), vminnmq_f32(v[2], v[3])); }
INLINE float32x4_t max4(const float32x4_t v[4]) { return vmaxnmq_f32(vmaxnmq_f32(v[0], v[1]), vmaxnmq_f32(v[2], v[3])); }
INLINE float32x4_t add4(const float32x4_t v[4]) { return vaddq_f32(vaddq_f32(v[0], v[1]), vaddq_f32(v[2], v[3])); }

/* 16 codes; NaN becomes 1 */
INLINE uint8x16_t tile_codes(const float *x, float32x4_t low, float32x4_t inv)
{
    uint16x4_t q[4];
    UNROLL
    for (int i = 0; i < 4; i++) {
        float32x4_t v = vmaxnmq_f32(vmulq_f32(vsubq_f32(vld1q_f32(x + 4 * i), low), inv), vdupq_n_f32(0.0f));
        q[i] = vmovn_u32(vcvtnq_u32_f32(vminnmq_f32(v, vdupq_n_f32(254.0f))));
    }
    uint8x8_t a = vmovn_u16(vcombine_u16(q[0], q[1])), b = vmovn_u16(vcombine_u16(q[2], q[3]));
    return vaddq_u8(vcombine_u8(a, b), all_u8(1));
}

static void quant_planes(const struct kernels *k, const struct act_tile *into, int64_t cols, const float *const *x, int n)
{
    assert(k->tile_tokens == NT && cols % 16 == 0 && n >= 1 && n <= NT);
    struct act_tile to = *into;
    for (int64_t at = 0; at < cols; at += 16, to.a += 16 * NT, to.d += NT, to.o += NT, to.sum += NT) {
        float32x4_t lows[NT], highs[NT], sums[NT];
        UNROLL
        for (int t = 0; t < NT; t++) {
            lows[t] = highs[t] = sums[t] = vdupq_n_f32(0.0f);
            if (t >= n) continue;
            float32x4_t v[4];
            UNROLL
            for (int i = 0; i < 4; i++) v[i] = vld1q_f32(x[t] + at + 4 * i);
            lows[t] = min4(v), highs[t] = max4(v), sums[t] = add4(v);
        }
        transpose4(lows), transpose4(highs), transpose4(sums);
        float32x4_t far = vdupq_n_f32(ACT_FAR), low = vmaxnmq_f32(vminnmq_f32(min4(lows), far), vnegq_f32(far));
        float32x4_t range = vsubq_f32(vminnmq_f32(vmaxnmq_f32(max4(highs), vnegq_f32(far)), far), low);
        uint32x4_t wide = vcgeq_f32(range, vdupq_n_f32(ACT_RANGE_MIN));
        float32x4_t d = vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(vdivq_f32(range, vdupq_n_f32(254.0f))), wide));
        float32x4_t inv = vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(vdivq_f32(vdupq_n_f32(254.0f), range)), wide));
        vst1q_f32(to.d, d);
        vst1q_f32(to.o, vsubq_f32(low, d));
        vst1q_f32(to.sum, add4(sums));
        uint8x16_t c[NT];
        float32x4_t ones = vdupq_n_f32(1.0f);
        UNROLL
        for (int t = 0; t < NT; t++) c[t] = t < n ? tile_codes(x[t] + at, mul_lane(ones, low, t), mul_lane(ones, inv, t)) : all_u8(0);
        transpose4_bytes(c);
        UNROLL
        for (int i = 0; i < 4; i++) vst1q_u8(to.a + 16 * i, c[i]);
    }
}

static void pack_tile_f32(const struct kernels *k, struct act_panel *p, int64_t tile, const float *const *x, int n)
{
    assert(k->tile_tokens == NT && n >= 1 && n <= NT);
    float *to = act_floats_at(p, NT, tile, 0);
    int64_t at = 0;
    for (; at + 4 <= p->k; at += 4, to += 4 * NT) {
        float32x4_t v[NT];
        for (int t = 0; t < NT; t++) v[t] = t < n ? vld1q_f32(x[t] + at) : vdupq_n_f32(0.0f);
        transpose4(v);
        for (int i = 0; i < 4; i++) vst1q_f32(to + i * NT, v[i]);
    }
    for (; at < p->k; at++)
        for (int t = 0; t < NT; t++) *to++ = t < n ? x[t][at] : 0.0f;
}

/* ---- the float tile ---- */

INLINE void tile_f32_body(const float *w, const float *x, int64_t nk, float *y, int64_t y_stride, bool add, int nt)
{
    float32x4_t acc[NT][4];
    UNROLL
    for (int i = 0; i < 4 * nt; i++) acc[i / 4][i % 4] = vdupq_n_f32(0.0f);
    for (int64_t k = 0; k < nk; k++, w += PANEL_ROWS, x += NT) {
        float32x4_t v[4] = { vld1q_f32(w), vld1q_f32(w + 4), vld1q_f32(w + 8), vld1q_f32(w + 12) }, token = vld1q_f32(x);
        UNROLL
        for (int i = 0; i < 4 * nt; i++) acc[i / 4][i % 4] = fma_lane(acc[i / 4][i % 4], v[i % 4], token, i / 4);
    }
    UNROLL
    for (int i = 0; i < 4 * nt; i++) {
        float *to = y + i / 4 * y_stride + i % 4 * 4;
        vst1q_f32(to, add ? vaddq_f32(vld1q_f32(to), acc[i / 4][i % 4]) : acc[i / 4][i % 4]);
    }
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

void kernels_init_neon_matmul(struct kernels *k)
{
    k->tile_tokens = NT;
    k->panel_build = panel_build;
    k->quant_planes = quant_planes;
    k->pack_tile_f32 = pack_tile_f32;
    k->tile_f32 = tile_f32;
}
