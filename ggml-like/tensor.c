/* tensor - shapes and sizes of views. Knows nothing about where the bytes come from. */
#include "ggml-like/tensor.h"
#include <stdio.h>

void tensor_shape(struct tensor *t, const struct dtype *type, int64_t ne0, int64_t ne1, int64_t ne2, int64_t ne3)
{
    t->type = type;
    t->ne[0] = ne0, t->ne[1] = ne1, t->ne[2] = ne2, t->ne[3] = ne3;
    t->nb[0] = (size_t)type->block_bytes;
    t->nb[1] = dtype_row_bytes(type, ne0);
    t->nb[2] = t->nb[1] * (size_t)ne1;
    t->nb[3] = t->nb[2] * (size_t)ne2;
}

int64_t tensor_elements(const struct tensor *t) { return t->ne[0] * tensor_rows(t); }
int64_t tensor_rows(const struct tensor *t) { return t->ne[1] * t->ne[2] * t->ne[3]; }
size_t tensor_bytes(const struct tensor *t) { return dtype_row_bytes(t->type, t->ne[0]) * (size_t)tensor_rows(t); }

const char *tensor_shape_text(const struct tensor *t, char buf[64])
{
    int n_dims = 4, n = 0;
    while (n_dims > 1 && t->ne[n_dims - 1] == 1) n_dims--;
    for (int i = 0; i < n_dims && n < 64; i++)
        n += snprintf(buf + n, 64 - (size_t)n, "%s%lld%s", i ? ", " : "[", (long long)t->ne[i], i == n_dims - 1 ? "]" : "");
    return buf;
}
