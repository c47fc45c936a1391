/* neon - what the files of the aarch64 levels share. */
#pragma once
#include "ggml-like/dtype.h"

/* Unpacks a chunk of whole blocks, `weights` in all (isa_neon_unpack.c). fn NULL: the format has none. */
struct neon_unpack {
    int weights;
    void (*fn)(const uint8_t *w, struct codes *out);
};
extern const struct neon_unpack neon_unpack[DTYPE_IDS];
