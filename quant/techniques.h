/* techniques - the two roundings of the textbooks, shared by absmax.c, zero_point.c and whoever explains them.
 *     absmax       scale = max |x| / q_hi                              y = scale * q,            q = round(x / scale)
 *     zero-point   scale = (hi - lo) / q_hi,  zero = round(-lo / scale)  y = scale * (q - zero),  q = round(x / scale) + zero
 * Scales are first rounded to what the target format holds, then used for rounding: y in f32 is what the format's unpack gives back, bit
 * for bit. Ties go to even. The zero-point range always includes 0, so that zero weights stay zero. */
#pragma once
#include "quant/quantizer.h"

struct affine {
    float scale;    /* 0: every weight is 0 */
    int zero;       /* 0 for absmax */
    int q_lo, q_hi; /* absmax -7..7, -127..127; zero-point 0..15, 0..255 */
};
struct affine absmax_fit(float lo, float hi, int bits);
struct affine zero_point_fit(float lo, float hi, int bits);
int affine_code(const struct affine *a, float x);  /* q of one weight; x finite */
float affine_value(const struct affine *a, int q); /* y */

void technique_range(const float *x, int64_t n, float *lo, float *hi); /* n > 0 */
/* technique_spans - n_rows x n weights in spans that share one fit: write gets each span's weights and its place (elements from the start).
 */
typedef void (*technique_write)(const struct affine *a, const float *x, int64_t n, void *dst);
void technique_spans(const struct quant_spec *s, struct affine (*fit)(float lo, float hi, int bits), technique_write write, float lo,
                     float hi, const float *x, int64_t n_rows, int64_t n, const struct dtype *t, void *dst);
/* technique_check - bits and group of a spec: ERR_USAGE names the value. */
status technique_check(const struct quant_spec *s, const char *name, struct err *e) MUST_USE;

extern const struct quantizer quantizer_absmax, quantizer_zero_point;
