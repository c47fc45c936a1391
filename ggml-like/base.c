/* base - the implementation of the contracts in base.h. The three static atomics behind the allocation hooks are the only mutable
 * globals of the library; they steer tests and never change a result. */
#include "ggml-like/base.h"
#include <assert.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Names from files end up in error texts, so control bytes (newlines, terminal escapes) must not survive. */
static void make_printable(char *s)
{
    for (; *s; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7f) *s = '?';
}

/* Replaces the tail of a full buffer by "...", without leaving half of a UTF-8 character before it. */
static void mark_cut(char *text, size_t cap)
{
    size_t at = cap - 1 - 3;
    while (at > 0 && ((unsigned char)text[at] & 0xc0) == 0x80) at--;
    memcpy(text + at, "...", 4);
}

status err_set(struct err *e, status code, const char *fmt, ...)
{
    assert(code != OK);
    if (!e || e->code != OK) return code;
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(e->text, sizeof e->text, fmt, ap);
    va_end(ap);
    if (n < 0) e->text[0] = 0;
    if (n >= (int)sizeof e->text) mark_cut(e->text, sizeof e->text);
    make_printable(e->text);
    e->code = code;
    return code;
}

status err_oom(struct err *e, const char *what, size_t bytes)
{
    return err_set(e, ERR_MEMORY, "%s: out of memory (%zu bytes)", what, bytes);
}

/* Folded 64 x 64 multiplication per 8 bytes, in the manner of wyhash. */
static uint64_t fold(uint64_t a, uint64_t b)
{
    unsigned __int128 r = (unsigned __int128)a * b;
    return (uint64_t)r ^ (uint64_t)(r >> 64);
}

uint64_t hash64(uint64_t seed, const void *p, size_t n)
{
    const uint8_t *at = p;
    uint64_t h = fold(seed ^ 0xa0761d6478bd642fu, 0x9e3779b97f4a7c15u ^ n);
    for (; n > 8; n -= 8, at += 8) {
        uint64_t part;
        memcpy(&part, at, 8);
        h = fold(h ^ part, seed ^ 0xd1b54a32d192ed03u);
    }
    uint64_t part = 0;
    if (n) memcpy(&part, at, n);
    return fold(h ^ part, seed ^ 0xd1b54a32d192ed03u);
}

bool mul_size(size_t a, size_t b, size_t *out)
{
    size_t r;
    if (__builtin_mul_overflow(a, b, &r)) return false;
    *out = r;
    return true;
}

bool add_size(size_t a, size_t b, size_t *out)
{
    size_t r;
    if (__builtin_add_overflow(a, b, &r)) return false;
    *out = r;
    return true;
}

bool pad_size(size_t a, size_t align, size_t *out)
{
    assert(align != 0 && (align & (align - 1)) == 0);
    size_t r;
    if (!add_size(a, align - 1, &r)) return false;
    *out = r & ~(align - 1);
    return true;
}

static _Atomic int64_t fail_in; /* allocations until the failing one, 0 = never */
static _Atomic bool fail_sticky;
static _Atomic int64_t n_admitted;

bool mem_admit(void)
{
    int64_t left = atomic_load_explicit(&fail_in, memory_order_relaxed);
    while (left > 0) {
        bool now = left == 1;
        int64_t next = now && atomic_load_explicit(&fail_sticky, memory_order_relaxed) ? 1 : left - 1;
        if (!atomic_compare_exchange_weak_explicit(&fail_in, &left, next, memory_order_relaxed, memory_order_relaxed)) continue;
        if (now) return false;
        break;
    }
    atomic_fetch_add_explicit(&n_admitted, 1, memory_order_relaxed);
    return true;
}

/* Objects beyond PTRDIFF_MAX break pointer differences, and sanitizers abort on them instead of returning NULL. */
static bool may_allocate(size_t bytes) { return bytes <= PTRDIFF_MAX && mem_admit(); }

void *mem_alloc(size_t bytes) { return may_allocate(bytes) ? malloc(bytes ? bytes : 1) : NULL; }

void *mem_calloc(size_t n, size_t bytes)
{
    size_t total;
    if (!mul_size(n, bytes, &total)) return NULL;
    return may_allocate(total) ? calloc(1, total ? total : 1) : NULL;
}

void *mem_realloc(void *p, size_t bytes) { return may_allocate(bytes) ? realloc(p, bytes ? bytes : 1) : NULL; }

void mem_free(void *p) { free(p); }

void mem_fail_at(int64_t n, bool sticky)
{
    atomic_store_explicit(&fail_sticky, sticky, memory_order_relaxed);
    atomic_store_explicit(&fail_in, n, memory_order_relaxed);
}

int64_t mem_count(void) { return atomic_load_explicit(&n_admitted, memory_order_relaxed); }

double now_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

const char *path_base(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}
