/* compat_k - even levels: Q4_0 .. Q5_1 with importance (without it they are dtype.pack), Q2_K .. Q6_K. See compat.h. */
#include <math.h>
#include "quant/compat.h"

/* With importance all lines are searched alike. */
static const struct compat_trials weighted_trials = { -0.9f, 0.05f, 36, false };

static void codes_from(const uint8_t *q, int n, uint16_t *to)
{
    for (int i = 0; i < n; i++) to[i] = q[i];
}

/* ---- blocks of 32 ---- */

struct legacy { int top; bool has_min; };

static void legacy_block(const struct compat_format *f, const struct compat_in *in, const struct compat_book *book, struct parts *p)
{
    const struct legacy *how = f->how;
    float w[32], min = 0.0f;
    uint8_t q[32];
    compat_weights(in->x, in->w, in->mean2, 32, w);
    float d = how->has_min ? compat_affine(&weighted_trials, 32, how->top, in->x, w, q, &min) : compat_symmetric(32, (how->top + 1) / 2, in->x, w, q);
    p->d = f32_to_f16(d);
    p->dmin = f32_to_f16(-min); /* stored with its sign here, without it in the K formats */
    codes_from(q, 32, p->q);
}

/* ---- Q2_K, Q4_K, Q5_K: y = d sc q - dmin m ---- */

struct affine_k {
    int len, top, sc_top;          /* weights in a group, largest code, largest scale code */
    float twice;                   /* of the mean square in the weights of an important block */
    bool rms;                      /* weights without importance: |x| + root of the group's mean square, else |x| */
    struct compat_trials trials;   /* without importance */
    bool clamps, clamps_weighted;  /* scale codes above sc_top are cut off, else they run over into their neighbours in the block */
};

static void plain_weights(const struct affine_k *how, const float *x, float *w)
{
    float base = how->rms ? sqrtf(compat_sum2(x, how->len) / (float)how->len) : 0.0f;
    for (int i = 0; i < how->len; i++) w[i] = base + fabsf(x[i]);
}

struct groups { float scale[16], min[16], sum_w[16]; uint8_t sc[16], m[16]; };

/* Without importance the largest scale has the largest code. Returns d. */
static float plain_codes(const float *v, int n, int top, uint8_t *code)
{
    float max = 0.0f;
    for (int g = 0; g < n; g++)
        if (v[g] > max) max = v[g];
    float inverse = max > 0.0f ? (float)top / max : 0.0f;
    for (int g = 0; g < n; g++) code[g] = (uint8_t)compat_nearest(inverse * v[g]);
    return max / (float)top;
}

/* Codes beyond their bits, as they end up in a block: Q2_K has scale and min in one byte, the others the top bits of group g + 4 above the six of
 * group g. */
static void run_over(const struct affine_k *how, struct groups *g)
{
    for (int i = 0; i < 16 && how->sc_top == 15; i++) {
        uint8_t byte = (uint8_t)(g->sc[i] | g->m[i] << 4);
        g->sc[i] = byte & 15, g->m[i] = byte >> 4;
    }
    for (int i = 0; i < 4 && how->sc_top == 63; i++) {
        uint8_t *const pair[2] = { g->sc + i, g->m + i };
        for (int k = 0; k < 2; k++) {
            pair[k][4] = (uint8_t)((pair[k][4] & 15) | ((pair[k][4] >> 4 | pair[k][0] >> 6) & 3) << 4);
            pair[k][0] &= 63;
        }
    }
}

static void affine_k_block(const struct compat_format *f, const struct compat_in *in, const struct compat_book *book, struct parts *p)
{
    const struct affine_k *how = f->how;
    int n = 256 / how->len;
    float w[32], mean2 = how->twice * compat_sum2(in->x, 256) / 256.0f, d, dmin;
    uint8_t q[256];
    struct groups g = { { 0 } };
    for (int i = 0; i < n; i++) {
        const float *x = in->x + i * how->len;
        if (in->w) compat_weights(x, in->w + i * how->len, mean2, how->len, w);
        else plain_weights(how, x, w);
        for (int j = 0; j < how->len; j++) g.sum_w[i] += w[j];
        g.scale[i] = compat_affine(in->w ? &weighted_trials : &how->trials, how->len, how->top, x, w, q + i * how->len, &g.min[i]);
    }
    if (in->w) {
        d = compat_positive(n, how->sc_top, g.scale, g.sum_w, g.sc);
        dmin = compat_positive(n, how->sc_top, g.min, g.sum_w, g.m);
    } else {
        d = plain_codes(g.scale, n, how->sc_top, g.sc);
        dmin = plain_codes(g.min, n, how->sc_top, g.m);
    }
    for (int i = 0; i < n && (in->w ? how->clamps_weighted : how->clamps); i++) {
        if (g.sc[i] > how->sc_top) g.sc[i] = (uint8_t)how->sc_top;
        if (g.m[i] > how->sc_top) g.m[i] = (uint8_t)how->sc_top;
    }
    run_over(how, &g);
    p->d = f32_to_f16(d), p->dmin = f32_to_f16(dmin);
    memcpy(p->sc, g.sc, sizeof p->sc);
    memcpy(p->m, g.m, sizeof p->m);
    codes_from(q, 256, p->q);
    for (int i = 0; i < n; i++) { /* once more, by the scales as they are stored */
        float scale = f16_to_f32(p->d) * (float)p->sc[i], min = f16_to_f32(p->dmin) * (float)p->m[i];
        if (scale == 0.0f) continue;
        for (int j = i * how->len; j < (i + 1) * how->len; j++)
            p->q[j] = (uint16_t)compat_clamp(compat_nearest((in->x[j] + min) / scale), 0, how->top);
    }
}

/* ---- Q3_K, Q6_K: y = d sc (q - half) ---- */

static void requantize(const float *x, float scale, int half, uint16_t *q)
{
    if (scale == 0.0f) return;
    for (int i = 0; i < 16; i++) q[i] = (uint16_t)(compat_clamp(compat_nearest(x[i] / scale), -half, half - 1) + half);
}

static void q3_k_block(const struct compat_format *f, const struct compat_in *in, const struct compat_book *book, struct parts *p)
{
    float w[16], scale[16], sum_w[16] = { 0 }, mean2 = 2.0f * compat_sum2(in->x, 256) / 256.0f, largest = 0.0f;
    uint8_t q[256];
    for (int g = 0; g < 16; g++) {
        const float *x = in->x + 16 * g;
        if (in->w) {
            compat_weights(x, in->w + 16 * g, mean2, 16, w);
            for (int j = 0; j < 16; j++) sum_w[g] += w[j];
            scale[g] = compat_symmetric(16, 4, x, w, q + 16 * g);
        } else {
            scale[g] = compat_moved(16, 4, x, q + 16 * g);
            if (fabsf(scale[g]) > fabsf(largest)) largest = scale[g];
        }
    }
    if (in->w) p->d = f32_to_f16(compat_symmetric(16, 32, scale, sum_w, p->sc));
    else if (largest != 0.0f) {
        float inverse = -32.0f / largest;
        for (int g = 0; g < 16; g++) p->sc[g] = (uint8_t)(compat_clamp((int8_t)compat_nearest(inverse * scale[g]), -32, 31) + 32);
        p->d = f32_to_f16(1.0f / inverse);
    }
    codes_from(q, 256, p->q);
    for (int g = 0; g < 16; g++) requantize(in->x + 16 * g, f16_to_f32(p->d) * (float)((int)p->sc[g] - 32), 4, p->q + 16 * g);
}

static void q6_k_block(const struct compat_format *f, const struct compat_in *in, const struct compat_book *book, struct parts *p)
{
    float scale[16], largest = 0.0f;
    uint8_t q[256];
    for (int g = 0; g < 16; g++) { /* importance itself, without the root */
        scale[g] = compat_symmetric(16, 32, in->x + 16 * g, in->w ? in->w + 16 * g : NULL, q + 16 * g);
        if (fabsf(scale[g]) > fabsf(largest)) largest = scale[g];
    }
    if (fabsf(largest) < 1e-15f) return;
    float inverse = -128.0f / largest;
    p->d = f32_to_f16(1.0f / inverse);
    codes_from(q, 256, p->q);
    for (int g = 0; g < 16; g++) {
        int code = compat_nearest(inverse * scale[g]);
        int8_t sc = (int8_t)(code < 127 ? code : 127);
        p->sc[g] = (uint8_t)sc;
        requantize(in->x + 16 * g, f16_to_f32(p->d) * (float)sc, 32, p->q + 16 * g);
    }
}

static const struct legacy q4_0 = { 15, false }, q4_1 = { 15, true }, q5_0 = { 31, false }, q5_1 = { 31, true };
static const struct affine_k q2_k = { 16, 3, 15, 1.0f, false, { -0.5f, 0.1f, 15, true }, false, false };
static const struct affine_k q4_k = { 32, 15, 63, 2.0f, true, { -1.0f, 0.1f, 20, false }, true, false };
static const struct affine_k q5_k = { 32, 31, 63, 2.0f, true, { -0.5f, 0.1f, 15, false }, true, true };

const struct compat_format compat_even[] = {
    { GGUF_Q4_0, legacy_block, true, &q4_0 },   { GGUF_Q4_1, legacy_block, true, &q4_1 },    { GGUF_Q5_0, legacy_block, true, &q5_0 },
    { GGUF_Q5_1, legacy_block, true, &q5_1 },   { GGUF_Q2_K, affine_k_block, false, &q2_k }, { GGUF_Q4_K, affine_k_block, false, &q4_k },
    { GGUF_Q5_K, affine_k_block, false, &q5_k }, { GGUF_Q3_K, q3_k_block, false },           { GGUF_Q6_K, q6_k_block, false },
    { -1, NULL },
};
