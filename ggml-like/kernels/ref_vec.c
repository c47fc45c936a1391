/* ref_vec - the vector slots in plain C: the fallback of every machine and the oracle of the SIMD levels.
 * Written to be read; libm is allowed here and nowhere else in kernels/. */
#include "ggml-like/kernels/attn.h"
#include "ggml-like/kernels/levels.h"
#include "ggml-like/kernels/weights_tmpl.h"
#include <math.h>

static float dot(const float *x, const float *y, int64_t n)
{
    float sum[8] = { 0 }; /* eight chains: an eighth of the rounding error of one */
    for (int64_t i = 0; i < n; i++) sum[i % 8] += x[i] * y[i];
    return ((sum[0] + sum[4]) + (sum[2] + sum[6])) + ((sum[1] + sum[5]) + (sum[3] + sum[7]));
}

static void rms_norm(float *y, const float *x, const float *w, int64_t n, float eps)
{
    double sum = 0.0; /* double: squares of finite floats cannot overflow */
    for (int64_t i = 0; i < n; i++) sum += (double)x[i] * (double)x[i];
    float s = n > 0 ? (float)(1.0 / sqrt(sum / (double)n + (double)eps)) : 0.0f;
    for (int64_t i = 0; i < n; i++) y[i] = w ? x[i] * s * w[i] : x[i] * s;
}

static void add(float *y, const float *a, const float *b, int64_t n)
{
    for (int64_t i = 0; i < n; i++) y[i] = a[i] + b[i];
}

static void mul(float *y, const float *a, const float *b, int64_t n)
{
    for (int64_t i = 0; i < n; i++) y[i] = a[i] * b[i];
}

static void scale(float *y, const float *x, float s, int64_t n)
{
    for (int64_t i = 0; i < n; i++) y[i] = s * x[i];
}

static void axpy(float *y, const float *x, float s, int64_t n)
{
    for (int64_t i = 0; i < n; i++) y[i] += s * x[i];
}

static void from_codes(const struct dtype *t, const struct codes *c, int n, float *y)
{
    for (int i = 0; i < n; i++) {
        float w = c->scale[i / t->group_len] * (float)c->code[i];
        y[i] = t->has_min ? w + c->min[i / t->group_len] : w;
    }
}

static void silu_mul(float *y, const float *g, const float *u, int64_t n)
{
    for (int64_t i = 0; i < n; i++) y[i] = g[i] / (1.0f + expf(-g[i])) * u[i];
}

/* 0.5 g (1 + tanh(z)) = g / (1 + exp(-2z)) with z = sqrt(2/pi) (g + 0.044715 g^3): no cancellation for negative g */
static void gelu_mul(float *y, const float *g, const float *u, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        double v = (double)g[i], z = 0.7978845608028654 * (v + 0.044715 * v * v * v);
        y[i] = (float)(v / (1.0 + exp(-2.0 * z))) * u[i];
    }
}

static void silu_grad(float *y, const float *g, const float *u, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        double v = (double)g[i], s = 1 / (1 + exp(-v));
        y[i] = (float)(s * (1 + v * (1 - s))) * u[i];
    }
}

static void gelu_grad(float *y, const float *g, const float *u, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        double v = fmin(20, fmax(-20, (double)g[i])), a = 1.5957691216057308, s = 1 / (1 + exp(-a * (v + 0.044715 * v * v * v)));
        y[i] = (float)(s * (1 + v * (1 - s) * a * (1 + 3 * 0.044715 * v * v))) * u[i];
    }
}

static void softcap(float *y, const float *x, float cap, int64_t n)
{
    for (int64_t i = 0; i < n; i++) y[i] = cap * tanhf(x[i] / cap);
}

static float max(const float *x, int64_t n, int64_t *at)
{
    float best = -INFINITY;
    int64_t where = -1;
    for (int64_t i = 0; i < n; i++)
        if (x[i] > best || (where < 0 && x[i] == best)) best = x[i], where = i;
    if (at) *at = where;
    return best;
}

static double exp_sum(float *y, const float *x, float m, int64_t n)
{
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++) {
        float e = expf(x[i] - m);
        if (y) y[i] = e;
        sum += (double)e;
    }
    return sum;
}

static void softmax_columns(const struct softmax_args *a)
{
    for (int c = 0; c < PANEL_ROWS; c++) {
        float top = a->max[c], sum = 0;
        for (int64_t i = 0; i < a->n; i++)
            if (a->s[i * a->stride + c] > top) top = a->s[i * a->stride + c];
        float less = expf(a->max[c] - top);
        for (int64_t i = 0; i < a->n; i++) sum += a->p[i * PANEL_ROWS + c] = expf(a->s[i * a->stride + c] - top);
        for (int64_t i = 0; i < a->n_acc; i++) a->acc[i * a->acc_stride + c] *= less;
        a->sum[c] = a->sum[c] * less + sum;
        a->max[c] = top;
    }
}

static void softmax_grad(const struct softmax_grad_args *a)
{
    for (int64_t i = 0; i < a->n; i++)
        for (int c = 0; c < PANEL_ROWS; c++) {
            float *p = a->s + i * a->stride + c, *d = a->d + i * a->stride + c;
            *p = expf(*p - a->lse[c]);
            *d = *p * (*d - a->mean[c]);
        }
}

static void rope(float *x, const float *cs, int n_rot, bool neox)
{
    int half = n_rot / 2, step = neox ? 1 : 2, other = neox ? half : 1;
    for (int i = 0; i < half; i++) {
        float *a = x + i * step, *b = a + other, c = cs[2 * i], s = cs[2 * i + 1], a0 = *a, b0 = *b;
        *a = a0 * c - b0 * s;
        *b = a0 * s + b0 * c;
    }
}

static void recur(const struct recur_args *a)
{
    for (int64_t c = 0; c < a->cols; c++) {
        float seen = 0, sum = 0;
        for (int64_t i = 0; i < a->rows && !a->plain; i++) seen += a->s[i * a->stride + c] * a->k[i];
        float u = a->beta * (a->v[c] - a->decay * seen);
        for (int64_t i = 0; i < a->rows; i++) {
            float *s = a->s + i * a->stride + c;
            *s = a->decay * *s + a->k[i] * u;
            sum += *s * a->q[i];
        }
        a->y[c] = a->scale * sum;
    }
}

void kernels_init_ref_vec(struct kernels *k)
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
    k->to_f32 = dtype_to_f32;
    k->from_f32 = dtype_from_f32;
    k->from_codes = from_codes;
    k->softmax_columns = softmax_columns;
    k->softmax_grad = softmax_grad;
    k->attn = attn_ref;
    k->attn_merge = attn_merge_ref;
}
