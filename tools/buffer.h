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
bool buffer_html(struct buffer *b, const char *s);  /* as text of a page: escaped; what is no UTF-8 and control characters become U+FFFD */
bool buffer_csv(struct buffer *b, const char *s);   /* as a field: in quotes, quotes doubled. A leading = + - @ gets a ' in front: no formulas */
bool buffer_md(struct buffer *b, const char *s, size_t n); /* n bytes of s at most, without markup, pipes and control characters of Markdown */
status buffer_save(const struct buffer *b, const char *path, struct err *e) MUST_USE; /* atomically */
void buffer_free(struct buffer *b);
