/* buffer - see buffer.h. Doubles its memory, so that appending costs constant time per byte. */
#include "tools/buffer.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "ggml-like/file.h"
#include "tools/term.h"

bool buffer_reserve(struct buffer *b, size_t more)
{
    size_t need, cap = b->cap ? b->cap : 256;
    if (!add_size(b->n, more, &need) || need >= SIZE_MAX / 4) return false;
    while (cap <= need) cap *= 2;
    if (cap == b->cap) return true;
    char *p = mem_realloc(b->p, cap);
    if (!p) return false;
    b->p = p, b->cap = cap;
    p[b->n] = 0;
    return true;
}

bool buffer_insert(struct buffer *b, size_t at, const char *s, size_t n)
{
    if (!buffer_reserve(b, n)) return false;
    memmove(b->p + at + n, b->p + at, b->n - at);
    if (n) memcpy(b->p + at, s, n);
    b->n += n;
    b->p[b->n] = 0;
    return true;
}

bool buffer_append(struct buffer *b, const char *s, size_t n) { return buffer_insert(b, b->n, s, n); }

bool buffer_put(struct buffer *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0 || !buffer_reserve(b, (size_t)n)) return false;
    va_start(ap, fmt);
    vsnprintf(b->p + b->n, (size_t)n + 1, fmt, ap);
    va_end(ap);
    b->n += (size_t)n;
    return true;
}

bool buffer_set(struct buffer *b, const char *s, size_t n)
{
    if (!buffer_reserve(b, n)) return false;
    b->n = 0;
    return buffer_append(b, s, n);
}

void buffer_remove(struct buffer *b, size_t at, size_t n)
{
    memmove(b->p + at, b->p + at + n, b->n - at - n);
    b->n -= n;
    b->p[b->n] = 0;
}

bool buffer_html(struct buffer *b, const char *s)
{
    static const struct { char c; const char *as; } escapes[] = { { '&', "&amp;" }, { '<', "&lt;" }, { '>', "&gt;" }, { '"', "&quot;" }, { '\'', "&#39;" } };
    bool ok = true;
    size_t n = strlen(s);
    while (n > 0) {
        uint32_t cp;
        int len = utf8_next(s, n, &cp), i = 0;
        while (i < ARRAY_LEN(escapes) && escapes[i].c != *s) i++;
        if (i < ARRAY_LEN(escapes)) ok = buffer_put(b, "%s", escapes[i].as) && ok;
        else if (cp < 32 || cp == 127 || cp == 0xfffd) ok = buffer_put(b, "&#xfffd;") && ok;
        else ok = buffer_append(b, s, (size_t)len) && ok;
        s += len, n -= (size_t)len;
    }
    return ok;
}

bool buffer_md(struct buffer *b, const char *s, size_t n)
{
    bool ok = true;
    for (; *s && n > 0; s++, n--) {
        if (strchr("|\\`*_<>[]", *s)) ok = buffer_put(b, "\\") && ok;
        ok = buffer_put(b, "%c", (unsigned char)*s < 32 ? '?' : *s) && ok;
    }
    return ok;
}

bool buffer_csv(struct buffer *b, const char *s)
{
    bool ok = buffer_put(b, *s && strchr("=+-@", *s) ? "\"'" : "\"");
    for (; *s; s++) ok = (*s == '"' ? buffer_put(b, "\"\"") : buffer_append(b, s, 1)) && ok;
    return buffer_put(b, "\"") && ok;
}

status buffer_save(const struct buffer *b, const char *path, struct err *e)
{
    struct file_out f;
    TRY(file_create(&f, path, e));
    status st = file_write(&f, b->p, b->n, e);
    if (st == OK) st = file_commit(&f, e);
    file_abort(&f);
    return st;
}

void buffer_free(struct buffer *b)
{
    mem_free(b->p);
    *b = (struct buffer){ 0 };
}
