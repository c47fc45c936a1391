/* tensor - a view: type, shape, strides, bytes that somebody else owns. */
#pragma once
#include "ggml-like/dtype.h"

struct tensor {
    const struct dtype *type;
    int64_t ne[4];     /* ne[0] = row length; unused dimensions are 1 */
    size_t nb[4];      /* bytes from one index to the next; nb[1] = bytes of a row */
    void *data;        /* weights point into a read-only mapping: never written */
    const char *name;  /* NUL-terminated, owned by the file; "" for values */
};

/* tensor_shape - contiguous view; sets nb from type and ne. Sizes were checked by the caller (gguf_open does). */
void tensor_shape(struct tensor *t, const struct dtype *type, int64_t ne0, int64_t ne1, int64_t ne2, int64_t ne3);
int64_t tensor_elements(const struct tensor *t);
int64_t tensor_rows(const struct tensor *t);   /* elements / ne[0] */
size_t tensor_bytes(const struct tensor *t);   /* contiguous size */
/* tensor_shape_text - "[576, 49152]", trailing ones left out; returns buf. */
const char *tensor_shape_text(const struct tensor *t, char buf[64]);
