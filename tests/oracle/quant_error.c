/* quant_error - errors of quantized files against their source, for comparisons with other quantizers:  quant_error SOURCE IMATRIX|- A B
 * One line per tensor that has the same format in A and B: name, format, weights, sums of w (x - y)^2 for A and for B, in double; w = importance
 * of the column, 1 without. Tensors of the source's own format are left out. */
#include "quant/importance.h"
#include "ggml-like/gguf.h"
#include <stdio.h>
#include <string.h>

static int fail(const struct err *e)
{
    fprintf(stderr, "quant_error: %s\n", e->text);
    return e->code;
}

static double row_error(const struct tensor *t, int64_t row, const float *x, const float *w, float *y)
{
    int64_t n = t->ne[0];
    dtype_to_f32(t->type, (const uint8_t *)t->data + (size_t)row * dtype_row_bytes(t->type, n), y, n);
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += ((double)x[i] - y[i]) * ((double)x[i] - y[i]) * (w ? w[i] : 1);
    return sum;
}

int main(int argc, char **argv)
{
    struct err e = { 0 };
    struct gguf source, a, b;
    struct importance im;
    if (argc < 5) return 2;
    bool has = strcmp(argv[2], "-") != 0;
    if (gguf_open(&source, argv[1], true, &e) != OK || gguf_open(&a, argv[3], true, &e) != OK || gguf_open(&b, argv[4], true, &e) != OK ||
        (has && importance_open(&im, argv[2], &e) != OK))
        return fail(&e);
    for (int64_t i = 0; i < source.n_tensors; i++) {
        const struct tensor *t = &source.tensor[i], *ta = gguf_tensor(&a, t->name), *tb = gguf_tensor(&b, t->name);
        if (!ta || !tb || ta->type != tb->type || ta->type == t->type || ta->ne[0] != t->ne[0] || tb->ne[0] != t->ne[0]) continue;
        const struct importance_entry *entry = has ? importance_find(&im, t->name) : NULL;
        int64_t n = t->ne[0], rows = t->ne[1] * t->ne[2] * t->ne[3];
        float *x = mem_alloc((size_t)n * 3 * sizeof *x), *y = x + n, *w = y + n;
        if (!x) return 5;
        double sum[2] = { 0, 0 };
        for (int64_t r = 0; r < rows; r++) {
            if (entry && r % t->ne[1] == 0) importance_weights(entry, r / t->ne[1], w);
            dtype_to_f32(t->type, (const uint8_t *)t->data + (size_t)r * dtype_row_bytes(t->type, n), x, n);
            sum[0] += row_error(ta, r, x, entry ? w : NULL, y);
            sum[1] += row_error(tb, r, x, entry ? w : NULL, y);
        }
        printf("%s %s %lld %.9g %.9g\n", t->name, ta->type->gguf_name, (long long)(n * rows), sum[0], sum[1]);
        mem_free(x);
    }
    return 0;
}
