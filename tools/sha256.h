/* sha256 - FIPS 180-4, for telling files apart: what `sha256sum` prints. */
#pragma once
#include "ggml-like/base.h"

struct sha256 {
    uint32_t h[8];
    uint64_t bytes;
    uint8_t block[64];
};
void sha256_init(struct sha256 *s);
void sha256_add(struct sha256 *s, const void *p, size_t n);
void sha256_text(struct sha256 *s, char hex[65]); /* ends it */
/* sha256_file - of a whole file, read in pieces. ERR_FILE. */
status sha256_file(const char *path, char hex[65], struct err *e) MUST_USE;
