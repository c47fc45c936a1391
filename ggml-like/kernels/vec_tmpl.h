/* vec_tmpl - bodies of the vector slots, compiled once per ISA over the primitives that its file defines before including this:
 *   vf: LANES floats (4, 8, 16 or 32)     vd2: LANES doubles     v_zero v_set v_set_f16(p)
 *   v_load v_store (float *)     v_load_n(p, n) v_store_n(p, n, x): the first n < LANES, 0 elsewhere
 *   v_load_f16 v_store_f16 v_load_bf16 v_store_bf16 v_load_i8 v_store_i8: void *, any alignment; round to nearest even, i8 gets integers
 *   v_load2(p, &even, &odd) v_store2(p, even, odd): 2 * LANES floats      v_transpose(x): LANES x LANES
 *   v_add v_sub v_mul v_div v_abs v_round (half away from zero)      v_fma(a, b, c) = a * b + c    v_fnma(a, b, c) = c - a * b
 *   v_min(a, b) v_max(a, b): b if either is NaN          v_keep_ge(x, y, lo): 0 where y < lo, else x (also where y is NaN)
 *   v_pow2(t): float whose bits are those of t << 23     v_top(x): largest lane
 *   v_sum(x): lanes halved by x[i] + x[i + half] until one is left      v_sums(x): lane i = v_sum(x[i])
 *   vd2_zero vd2_add(s, x) = s + x    vd2_add_sq(s, x) = s + x * x    vd2_join(s, t) = s + t    vd2_sum(s)
 * Must not know any instruction set. No libm. */
#include "ggml-like/formats/formats.h"
#include "ggml-like/kernels/weights_tmpl.h"
#include <math.h>
#include <string.h>

#define ALWAYS_INLINE static inline __attribute__((always_inline))
/* before a loop of constant length over an array of vectors: only unrolled does the array live in registers */
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif

/* exp(x) = 2^n exp(r), n = round(x / ln 2), |r| <= ln(2) / 2; degree 6, minimax in relative error: 4e-9, with rounding 8e-8.
 * Adding EXP_SHIFT rounds to an integer and leaves n - 1 + 127 in the low mantissa bits: n - 1, and a polynomial of twice the size, so that
 * n = 128 stays representable. Exactly 0 below -86.98 (e^x < 1.7e-38: no denormals on the way), +inf from 88.7229 on. */
#define EXP_MIN (-86.98f)
#define EXP_MAX 88.73f
#define EXP_SHIFT 12583038.0f /* 1.5 * 2^23 + 126 */
#define LOG2_E 1.44269504f
#define LN2_HIGH 0x1.62e430p-1f
#define LN2_LOW -1.90465421e-9f
static const float exp_poly[5] = { 0.4999999404f, 0.1666652113f, 0.04166838899f, 0.008368716575f, 0.001381459879f };

/* (exp(r) - 1 - r) / r^2, times `by` */
ALWAYS_INLINE vf exp_rest(vf r, float by)
{
    vf p = v_set(by * exp_poly[4]);
    UNROLL
    for (int i = 3; i >= 0; i--) p = v_fma(p, r, v_set(by * exp_poly[i]));
    return p;
}

/* x < EXP_MAX, -inf and NaN included */
ALWAYS_INLINE vf exp_below(vf x)
{
    vf t = v_fma(x, v_set(LOG2_E), v_set(EXP_SHIFT)), n = v_sub(t, v_set(EXP_SHIFT));
    vf r = v_fnma(n, v_set(LN2_LOW), v_fnma(n, v_set(LN2_HIGH), x));
    vf p = v_fma(v_fma(exp_rest(r, 2.0f), r, v_set(2.0f)), r, v_set(2.0f));
    return v_keep_ge(v_mul(p, v_pow2(t)), x, v_set(EXP_MIN));
}

ALWAYS_INLINE vf exp_lanes(vf x) { return exp_below(v_min(v_set(EXP_MAX), x)); }

/* tanh(z) = m / (m + 2), m = exp(2z) - 1 = 2^n (exp(r) - 1) + (2^n - 1): exact to 2e-7 of the result down to z = 0.
 * From |2z| = 20 on it rounds to 1. */
ALWAYS_INLINE vf tanh_lanes(vf z)
{
    vf x = v_min(v_set(20.0f), v_max(v_set(-20.0f), v_add(z, z)));
    vf shift = v_set(12583039.0f), t = v_fma(x, v_set(LOG2_E), shift), n = v_sub(t, shift);
    vf r = v_fnma(n, v_set(LN2_LOW), v_fnma(n, v_set(LN2_HIGH), x));
    vf q = v_fma(exp_rest(r, 1.0f), v_mul(r, r), r), s = v_pow2(t);
    vf m = v_fma(q, s, v_sub(s, v_set(1.0f)));
    return v_div(m, v_add(m, v_set(2.0f)));
}

/* y = op(a, b, c) element by element; op is a constant, so every slot below is its own loop */
typedef vf map_fn(vf a, vf b, vf c);
ALWAYS_INLINE void map(float *y, const float *a, const float *b, float c, int64_t n, map_fn *op)
{
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) v_store(y + i, op(v_load(a + i), v_load(b + i), v_set(c)));
    int rest = (int)(n - i);
    if (rest > 0) v_store_n(y + i, rest, op(v_load_n(a + i, rest), v_load_n(b + i, rest), v_set(c)));
}

ALWAYS_INLINE vf op_add(vf a, vf b, vf c) { return v_add(a, b); }
ALWAYS_INLINE vf op_mul(vf a, vf b, vf c) { return v_mul(a, b); }
ALWAYS_INLINE vf op_scale(vf a, vf b, vf c) { return v_mul(a, c); }
ALWAYS_INLINE vf op_axpy(vf a, vf b, vf c) { return v_fma(a, c, b); }
ALWAYS_INLINE vf op_norm(vf a, vf b, vf c) { return v_mul(v_mul(a, c), b); }
ALWAYS_INLINE vf op_softcap(vf a, vf b, vf c) { return v_mul(c, tanh_lanes(v_div(a, c))); }
ALWAYS_INLINE vf op_silu(vf g, vf u, vf c) { return v_mul(v_div(g, v_add(v_set(1.0f), exp_lanes(v_sub(v_zero(), g)))), u); }
/* g / (1 + exp(-2z)), 2z = 2 sqrt(2/pi) (g + 0.044715 g^3) */
ALWAYS_INLINE vf op_gelu(vf g, vf u, vf c)
{
    vf minus_2z = v_mul(g, v_fma(v_mul(g, g), v_set(-0.07135481627f), v_set(-1.595769122f)));
    return v_mul(v_div(g, v_add(v_set(1.0f), exp_lanes(minus_2z))), u);
}

/* s (1 + g (1 - s)) and s (1 + g (1 - s) (2z)'), s = 1 / (1 + exp(-g)) or 1 / (1 + exp(-2z)); beyond 20 s is 0 or 1 */
ALWAYS_INLINE vf op_bent(vf s, vf g, vf u) { return v_mul(v_mul(s, v_fma(g, v_sub(v_set(1.0f), s), v_set(1.0f))), u); }
ALWAYS_INLINE vf op_silu_grad(vf g, vf u, vf c) { return op_bent(v_div(v_set(1.0f), v_add(v_set(1.0f), exp_lanes(v_sub(v_zero(), g)))), g, u); }
ALWAYS_INLINE vf op_gelu_grad(vf g, vf u, vf c)
{
    g = v_min(v_set(20.0f), v_max(v_set(-20.0f), g));
    vf gg = v_mul(g, g), minus_2z = v_mul(g, v_fma(gg, v_set(-0.07135481627f), v_set(-1.595769122f)));
    vf s = v_div(v_set(1.0f), v_add(v_set(1.0f), exp_lanes(minus_2z)));
    return op_bent(s, v_mul(g, v_fma(gg, v_set(0.2140644488f), v_set(1.595769122f))), u);
}

static void add(float *y, const float *a, const float *b, int64_t n) { map(y, a, b, 0.0f, n, op_add); }
static void mul(float *y, const float *a, const float *b, int64_t n) { map(y, a, b, 0.0f, n, op_mul); }
static void scale(float *y, const float *x, float s, int64_t n) { map(y, x, x, s, n, op_scale); }
static void axpy(float *y, const float *x, float s, int64_t n) { map(y, x, y, s, n, op_axpy); }
static void silu_mul(float *y, const float *g, const float *u, int64_t n) { map(y, g, u, 0.0f, n, op_silu); }
static void gelu_mul(float *y, const float *g, const float *u, int64_t n) { map(y, g, u, 0.0f, n, op_gelu); }
static void silu_grad(float *y, const float *g, const float *u, int64_t n) { map(y, g, u, 0.0f, n, op_silu_grad); }
static void gelu_grad(float *y, const float *g, const float *u, int64_t n) { map(y, g, u, 0.0f, n, op_gelu_grad); }
static void softcap(float *y, const float *x, float cap, int64_t n) { map(y, x, x, cap, n, op_softcap); }

static float dot(const float *x, const float *y, int64_t n)
{
    vf s[4] = { v_zero(), v_zero(), v_zero(), v_zero() };
    int64_t i = 0;
    for (; i + 4 * LANES <= n; i += 4 * LANES) {
        UNROLL
        for (int j = 0; j < 4; j++) s[j] = v_fma(v_load(x + i + j * LANES), v_load(y + i + j * LANES), s[j]);
    }
    for (; i + LANES <= n; i += LANES) s[0] = v_fma(v_load(x + i), v_load(y + i), s[0]);
    if (i < n) s[1] = v_fma(v_load_n(x + i, (int)(n - i)), v_load_n(y + i, (int)(n - i)), s[1]);
    return v_sum(v_add(v_add(s[0], s[1]), v_add(s[2], s[3])));
}

/* Squares are summed in double: 0.25 cycles an element, and no finite input overflows. */
static void rms_norm(float *y, const float *x, const float *w, int64_t n, float eps)
{
    if (n <= 0) return;
    vd2 s = vd2_zero(), t = vd2_zero();
    int64_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) s = vd2_add_sq(s, v_load(x + i)), t = vd2_add_sq(t, v_load(x + i + LANES));
    if (i + LANES <= n) s = vd2_add_sq(s, v_load(x + i)), i += LANES;
    if (i < n) t = vd2_add_sq(t, v_load_n(x + i, (int)(n - i)));
    float inv = (float)(1.0 / sqrt(vd2_sum(vd2_join(s, t)) / (double)n + (double)eps));
    if (w) map(y, x, w, inv, n, op_norm);
    else map(y, x, x, inv, n, op_scale);
}

static float block_top(const float *x, int64_t n)
{
    vf m[4];
    for (int j = 0; j < 4; j++) m[j] = v_set(-INFINITY);
    int64_t i = 0;
    for (; i + 4 * LANES <= n; i += 4 * LANES) {
        UNROLL
        for (int j = 0; j < 4; j++) m[j] = v_max(v_load(x + i + j * LANES), m[j]);
    }
    float top = v_top(v_max(v_max(m[0], m[1]), v_max(m[2], m[3])));
    for (; i < n; i++) top = x[i] > top ? x[i] : top;
    return top;
}

/* The block that first holds the maximum is remembered, so only that one is read again for the index. */
static float max(const float *x, int64_t n, int64_t *at)
{
    enum { BLOCK = 512 };
    float best = -INFINITY;
    int64_t where = 0;
    for (int64_t i = 0; i < n; i += BLOCK) {
        float top = block_top(x + i, min_i64(BLOCK, n - i));
        if (top > best) best = top, where = i;
    }
    if (!at) return best;
    while (where < n && !(x[where] == best)) where++;
    *at = where < n ? where : -1;
    return best;
}

ALWAYS_INLINE vf exp_store(float *y, const float *x, vf m)
{
    vf e = exp_lanes(v_sub(v_load(x), m));
    if (y) v_store(y, e);
    return e;
}

/* Four terms are added in f32 before they meet the double sum: error below that of a term, a third less time than term by term. */
static double exp_sum(float *y, const float *x, float m, int64_t n)
{
    vd2 sum = vd2_zero();
    vf shift = v_set(m);
    int64_t i = 0;
    for (; i + 4 * LANES <= n; i += 4 * LANES) {
        vf four[4];
        UNROLL
        for (int j = 0; j < 4; j++) four[j] = exp_store(y ? y + i + j * LANES : NULL, x + i + j * LANES, shift);
        sum = vd2_add(sum, v_add(v_add(four[0], four[1]), v_add(four[2], four[3])));
    }
    for (; i + LANES <= n; i += LANES) sum = vd2_add(sum, exp_store(y ? y + i : NULL, x + i, shift));
    if (i < n) {
        int rest = (int)(n - i);
        float e[LANES] = { 0 };
        v_store_n(e, rest, exp_lanes(v_sub(v_load_n(x + i, rest), shift)));
        if (y) memcpy(y + i, e, (size_t)rest * sizeof *e);
        sum = vd2_add(sum, v_load(e));
    }
    return vd2_sum(sum);
}

/* Four rows at once: each sum and each maximum waits for the one before it. */
static void softmax_columns(const struct softmax_args *a)
{
    enum { ROWS = 4 };
    for (int c = 0; c < PANEL_ROWS; c += LANES) {
        const float *s = a->s + c;
        vf max = v_load(a->max + c), top[ROWS], sum[ROWS];
        int64_t i = 0;
        UNROLL
        for (int j = 0; j < ROWS; j++) top[j] = max, sum[j] = v_zero();
        for (; i + ROWS <= a->n; i += ROWS) {
            UNROLL
            for (int j = 0; j < ROWS; j++) top[j] = v_max(v_load(s + (i + j) * a->stride), top[j]);
        }
        for (; i < a->n; i++) top[0] = v_max(v_load(s + i * a->stride), top[0]);
        top[0] = v_max(v_max(top[0], top[1]), v_max(top[2], top[3]));
        vf less = exp_below(v_sub(max, top[0]));
        for (i = 0; i + ROWS <= a->n; i += ROWS) {
            UNROLL
            for (int j = 0; j < ROWS; j++) {
                vf e = exp_below(v_sub(v_load(s + (i + j) * a->stride), top[0]));
                v_store(a->p + (i + j) * PANEL_ROWS + c, e);
                sum[j] = v_add(sum[j], e);
            }
        }
        for (; i < a->n; i++) {
            vf e = exp_below(v_sub(v_load(s + i * a->stride), top[0]));
            v_store(a->p + i * PANEL_ROWS + c, e);
            sum[0] = v_add(sum[0], e);
        }
        for (i = 0; i < a->n_acc; i++) v_store(a->acc + i * a->acc_stride + c, v_mul(v_load(a->acc + i * a->acc_stride + c), less));
        v_store(a->sum + c, v_fma(v_load(a->sum + c), less, v_add(v_add(sum[0], sum[1]), v_add(sum[2], sum[3]))));
        v_store(a->max + c, top[0]);
    }
}

static void softmax_grad(const struct softmax_grad_args *a)
{
    for (int c = 0; c < PANEL_ROWS; c += LANES) {
        vf lse = v_load(a->lse + c), mean = v_load(a->mean + c);
        for (int64_t i = 0; i < a->n; i++) {
            float *s = a->s + i * a->stride + c, *d = a->d + i * a->stride + c;
            vf p = exp_lanes(v_sub(v_load(s), lse));
            v_store(s, p);
            v_store(d, v_mul(p, v_sub(v_load(d), mean)));
        }
    }
}

static void rope(float *x, const float *cs, int n_rot, bool neox)
{
    int half = n_rot / 2, i = 0, step = neox ? 1 : 2, other = neox ? half : 1;
    for (; i + LANES <= half; i += LANES) {
        vf a, b, c, s;
        v_load2(cs + 2 * i, &c, &s);
        if (neox) a = v_load(x + i), b = v_load(x + i + half);
        else v_load2(x + 2 * i, &a, &b);
        vf p = v_fnma(b, s, v_mul(a, c)), q = v_fma(a, s, v_mul(b, c));
        if (neox) v_store(x + i, p), v_store(x + i + half, q);
        else v_store2(x + 2 * i, p, q);
    }
    for (; i < half; i++) {
        float *a = x + i * step, *b = a + other, c = cs[2 * i], s = cs[2 * i + 1], a0 = *a, b0 = *b;
        *a = a0 * c - b0 * s;
        *b = a0 * s + b0 * c;
    }
}

/* ---- conversions: bit-equal to the formats folder ---- */

typedef void to_f32_fn(const uint8_t *src, float *dst, int64_t n);
typedef void from_f32_fn(const float *src, uint8_t *dst, int64_t n);

static void f32_to_f32(const uint8_t *src, float *dst, int64_t n) { memmove(dst, src, (size_t)n * sizeof *dst); }
static void f32_from_f32(const float *src, uint8_t *dst, int64_t n) { memmove(dst, src, (size_t)n * sizeof *src); }

static void halves_to_f32(const uint8_t *src, float *dst, int64_t n)
{
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) v_store(dst + i, v_load_f16(src + 2 * i));
    if (i < n) dtype_to_f32(&dtype_f16, src + 2 * i, dst + i, n - i);
}

static void halves_from_f32(const float *src, uint8_t *dst, int64_t n)
{
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) v_store_f16(dst + 2 * i, v_load(src + i));
    if (i < n) dtype_from_f32(&dtype_f16, src + i, dst + 2 * i, n - i);
}

static void brains_to_f32(const uint8_t *src, float *dst, int64_t n)
{
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) v_store(dst + i, v_load_bf16(src + 2 * i));
    if (i < n) dtype_to_f32(&dtype_bf16, src + 2 * i, dst + i, n - i);
}

static void brains_from_f32(const float *src, uint8_t *dst, int64_t n)
{
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) v_store_bf16(dst + 2 * i, v_load(src + i));
    if (i < n) dtype_from_f32(&dtype_bf16, src + i, dst + 2 * i, n - i);
}

static void q8_0_to_f32(const uint8_t *src, float *dst, int64_t n)
{
    for (int64_t at = 0; at < n; at += 32, src += sizeof(struct block_q8_0)) {
        vf d = v_set_f16(src);
        for (int i = 0; i < 32; i += LANES) v_store(dst + at + i, v_mul(d, v_load_i8(src + 2 + i)));
    }
}

static void q8_0_from_f32(const float *src, uint8_t *dst, int64_t n)
{
    for (int64_t at = 0; at < n; at += 32, dst += sizeof(struct block_q8_0)) {
        vf x[32 / LANES], top = v_zero();
        UNROLL
        for (int i = 0; i < 32 / LANES; i++) x[i] = v_load(src + at + i * LANES), top = v_max(v_abs(x[i]), top);
        float d = v_top(top) / 127.0f, inv = d != 0.0f ? 1.0f / d : 0.0f;
        uint16_t half = f32_to_f16(d);
        memcpy(dst, &half, sizeof half);
        UNROLL
        for (int i = 0; i < 32 / LANES; i++) { /* NaN becomes -128; what is beyond 127 becomes 0, as in the format's pack */
            vf q = v_max(v_round(v_mul(x[i], v_set(inv))), v_set(-128.0f));
            v_store_i8(dst + 2 + i * LANES, v_keep_ge(q, v_sub(v_set(127.0f), v_abs(q)), v_zero()));
        }
    }
}

/* Codes of 8 weights at once in a 64-bit word: n | 0x80 minus 8 borrows from no neighbour, and the flipped top bit makes it n - 8 */
static uint64_t centred_nibbles(uint64_t n) { return ((n | 0x8080808080808080u) - 0x0808080808080808u) ^ 0x8080808080808080u; }

static void q4_0_to_f32(const uint8_t *src, float *dst, int64_t n)
{
    for (int64_t at = 0; at < n; at += 32, src += sizeof(struct block_q4_0)) {
        uint64_t qs[2], code[4];
        vf d = v_set_f16(src);
        memcpy(qs, src + 2, sizeof qs);
        UNROLL
        for (int i = 0; i < 2; i++) {
            code[i] = centred_nibbles(qs[i] & 0x0f0f0f0f0f0f0f0fu);
            code[i + 2] = centred_nibbles(qs[i] >> 4 & 0x0f0f0f0f0f0f0f0fu);
        }
        UNROLL
        for (int i = 0; i < 32; i += LANES) v_store(dst + at + i, v_mul(d, v_load_i8((const uint8_t *)code + i)));
    }
}

/* 16 codes a round: the shorter of the two lengths of a group */
static void from_codes(const struct dtype *t, const struct codes *c, int n, float *y)
{
    int group = t->group_len;
    for (int at = 0; at < n; at += 16) {
        vf s = v_set(c->scale[at / group]), m = v_set(c->min[at / group]);
        UNROLL
        for (int i = 0; i < 16; i += LANES) {
            vf x = v_mul(s, v_load_i8(c->code + at + i));
            v_store(y + at + i, t->has_min ? v_add(x, m) : x);
        }
    }
}

static to_f32_fn *const to_f32_of[DTYPE_IDS] = {
    [GGUF_F32] = f32_to_f32,
    [GGUF_F16] = halves_to_f32,
    [GGUF_BF16] = brains_to_f32,
    [GGUF_Q8_0] = q8_0_to_f32,
    [GGUF_Q4_0] = q4_0_to_f32,
};
static from_f32_fn *const from_f32_of[DTYPE_IDS] = {
    [GGUF_F32] = f32_from_f32,
    [GGUF_F16] = halves_from_f32,
    [GGUF_BF16] = brains_from_f32,
    [GGUF_Q8_0] = q8_0_from_f32,
};

static void to_f32(const struct dtype *t, const void *src, float *dst, int64_t n)
{
    if (to_f32_of[t->gguf_id]) to_f32_of[t->gguf_id](src, dst, n);
    else dtype_to_f32(t, src, dst, n);
}

static void from_f32(const struct dtype *t, const float *src, void *dst, int64_t n)
{
    if (from_f32_of[t->gguf_id]) from_f32_of[t->gguf_id](src, dst, n);
    else dtype_from_f32(t, src, dst, n);
}

/* Columns c .. c + vecs * LANES of the state stay in registers over all rows but for the state itself, which is read, then read and written. */
enum { RECUR_VECS = 4 };
ALWAYS_INLINE void recur_columns(const struct recur_args *a, int64_t c, int vecs)
{
    vf u[RECUR_VECS], y[RECUR_VECS], decay = v_set(a->decay);
    UNROLL
    for (int j = 0; j < vecs; j++) u[j] = y[j] = v_zero();
    for (int64_t i = 0; i < a->rows && !a->plain; i++) {
        vf k = v_set(a->k[i]);
        UNROLL
        for (int j = 0; j < vecs; j++) u[j] = v_fma(v_load(a->s + i * a->stride + c + j * LANES), k, u[j]);
    }
    UNROLL
    for (int j = 0; j < vecs; j++) u[j] = v_mul(v_set(a->beta), v_fnma(u[j], decay, v_load(a->v + c + j * LANES)));
    for (int64_t i = 0; i < a->rows; i++) {
        vf k = v_set(a->k[i]), q = v_set(a->q[i]);
        UNROLL
        for (int j = 0; j < vecs; j++) {
            float *p = a->s + i * a->stride + c + j * LANES;
            vf s = v_fma(u[j], k, v_mul(v_load(p), decay));
            v_store(p, s);
            y[j] = v_fma(s, q, y[j]);
        }
    }
    UNROLL
    for (int j = 0; j < vecs; j++) v_store(a->y + c + j * LANES, v_mul(y[j], v_set(a->scale)));
}

static void recur_rest(const struct recur_args *a, int64_t c, int n)
{
    vf u = v_zero(), y = v_zero(), decay = v_set(a->decay);
    for (int64_t i = 0; i < a->rows && !a->plain; i++) u = v_fma(v_load_n(a->s + i * a->stride + c, n), v_set(a->k[i]), u);
    u = v_mul(v_set(a->beta), v_fnma(u, decay, v_load_n(a->v + c, n)));
    for (int64_t i = 0; i < a->rows; i++) {
        float *p = a->s + i * a->stride + c;
        vf s = v_fma(u, v_set(a->k[i]), v_mul(v_load_n(p, n), decay));
        v_store_n(p, n, s);
        y = v_fma(s, v_set(a->q[i]), y);
    }
    v_store_n(a->y + c, n, v_mul(y, v_set(a->scale)));
}

static void recur(const struct recur_args *a)
{
    int64_t c = 0;
    for (; c + RECUR_VECS * LANES <= a->cols; c += RECUR_VECS * LANES) recur_columns(a, c, RECUR_VECS);
    for (; c + LANES <= a->cols; c += LANES) recur_columns(a, c, 1);
    if (c < a->cols) recur_rest(a, c, (int)(a->cols - c));
}

static void set_vec_slots(struct kernels *k)
{
    k->dot = dot;
    k->rms_norm = rms_norm;
    k->add = add;
    k->mul = mul;
    k->scale = scale;
    k->axpy = axpy;
    k->silu_mul = silu_mul;
    k->gelu_mul = gelu_mul;
    k->silu_grad = silu_grad;
    k->gelu_grad = gelu_grad;
    k->softcap = softcap;
    k->max = max;
    k->exp_sum = exp_sum;
    k->weights = weights;
    k->rope = rope;
    k->recur = recur;
    k->to_f32 = to_f32;
    k->from_f32 = from_f32;
    k->from_codes = from_codes;
    k->softmax_columns = softmax_columns;
    k->softmax_grad = softmax_grad;
}
