/* buffer - bytes that grow, always NUL-terminated. Functions return false when memory is out; the buffer is then unchanged. */
#pragma once
#include "ggml-like/base.h"

struct buffer { char *p; size_t n, cap; }; /* zero-initialise; p is NULL until the first call */

bool buffer_reserve(struct buffer *b, size_t more);                                /* room for more bytes and the NUL */
bool buffer_insert(struct buffer *b, size_t at, const char *s, size_t n);          /* at <= b->n */
bool buffer_append(struct buffer *b, const char *s, size_t n);
bool buffer_put(struct buffer *b, const char *fmt, ...) PRINTF_LIKE(2, 3);          /* printf at the end */
bool buffer_set(struct buffer *b, const char *s, size_t n);
void buffer_remove(struct buffer *b, size_t at, size_t n);
void buffer_free(struct buffer *b);
