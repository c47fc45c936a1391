/* techniques - see techniques.h: what absmax and zero-point rounding have in common. */
#include "quant/techniques.h"

/* Adding 1.5 * 2^23 rounds to the nearest integer, ties to even; |t| <= 2^22 is the caller's. */
static float nearest(float t) { return t + 12582912.0f - 12582912.0f; }

int affine_code(const struct affine *a, float x)
{
    if (a->scale == 0.0f) return a->zero;
    float t = x / a->scale, lo = (float)(a->q_lo - a->zero), hi = (float)(a->q_hi - a->zero);
    t = t > lo ? t : lo;
    t = t < hi ? t : hi;
    return (int)nearest(t) + a->zero;
}

float affine_value(const struct affine *a, int q) { return a->scale * (float)(q - a->zero); }

void technique_range(const float *x, int64_t n, float *lo, float *hi)
{
    float a = x[0], b = x[0];
    for (int64_t i = 1; i < n; i++) {
        a = x[i] < a ? x[i] : a;
        b = x[i] > b ? x[i] : b;
    }
    *lo = a, *hi = b;
}

void technique_spans(const struct quant_spec *s, struct affine (*fit)(float lo, float hi, int bits), technique_write write, float lo,
                     float hi, const float *x, int64_t n_rows, int64_t n, const struct dtype *t, void *dst)
{
    int64_t span = s->granularity == PER_GROUP ? s->group : n;
    size_t row_bytes = dtype_row_bytes(t, n);
    struct affine a = fit(lo, hi, s->bits);
    for (int64_t r = 0; r < n_rows; r++)
        for (int64_t i = 0; i < n; i += span) {
            const float *from = x + r * n + i;
            int64_t m = min_i64(span, n - i);
            if (s->granularity != PER_TENSOR) {
                technique_range(from, m, &lo, &hi);
                a = fit(lo, hi, s->bits);
            }
            write(&a, from, m, (uint8_t *)dst + (size_t)r * row_bytes + dtype_row_bytes(t, i));
        }
}

status technique_check(const struct quant_spec *s, const char *name, struct err *e)
{
    if (s->bits != 4 && s->bits != 8) return err_set(e, ERR_USAGE, "%s: bits is %d, expected 4 or 8", name, s->bits);
    if (s->granularity == PER_GROUP && (s->group < 32 || s->group % 32))
        return err_set(e, ERR_USAGE, "%s: a group of %lld weights, expected a multiple of 32", name, (long long)s->group);
    return OK;
}
