/* arena - chunks come from mem_alloc, double in size, and are chained newest first. Invariants: `used` of every chunk is a multiple of
 * ARENA_ALIGN; only the head chunk hands out memory; under ASan everything not handed out is poisoned. */
#include "ggml-like/arena.h"
#include <string.h>

enum {
    ARENA_ALIGN = 64,
    CHUNK_MIN = 16 << 10,
    CHUNK_MAX = 16 << 20, /* doubling stops here; a single larger request gets a chunk of its own size */
};

struct arena_chunk {
    struct arena_chunk *prev;
    size_t cap, used;
    uint8_t *data; /* aligned, inside the same allocation */
};

/* Defined by the sanitizer's run time only: a weak reference tells at run time whether it is there, without #if. */
void __asan_poison_memory_region(const volatile void *p, size_t n) __attribute__((weak));
void __asan_unpoison_memory_region(const volatile void *p, size_t n) __attribute__((weak));

static size_t red_zone(void) { return __asan_poison_memory_region ? ARENA_ALIGN : 0; }

static void poison(uint8_t *p, size_t n)
{
    if (__asan_poison_memory_region) __asan_poison_memory_region(p, n);
}

static void unpoison(uint8_t *p, size_t n)
{
    if (__asan_unpoison_memory_region) __asan_unpoison_memory_region(p, n);
}

void arena_init(struct arena *a, size_t limit) { *a = (struct arena){ .limit = limit }; }

static void pop_chunk(struct arena *a)
{
    struct arena_chunk *c = a->head;
    a->head = c->prev;
    unpoison(c->data, c->cap);
    mem_free(c);
}

void arena_free(struct arena *a)
{
    while (a->head) pop_chunk(a);
    a->total = 0;
}

/* A new head chunk of `cap` bytes. *asked = bytes requested from the allocator, for the message of a failure. */
static bool push_chunk(struct arena *a, size_t cap, size_t *asked)
{
    if (!add_size(cap, sizeof(struct arena_chunk) + ARENA_ALIGN, asked)) {
        *asked = SIZE_MAX;
        return false;
    }
    struct arena_chunk *c = mem_alloc(*asked);
    if (!c) return false;
    uintptr_t data = ((uintptr_t)(c + 1) + ARENA_ALIGN - 1) & ~(uintptr_t)(ARENA_ALIGN - 1);
    *c = (struct arena_chunk){ .prev = a->head, .cap = cap, .data = (uint8_t *)data };
    poison(c->data, cap);
    a->head = c;
    return true;
}

static bool within_limit(const struct arena *a, size_t more)
{
    size_t total;
    return add_size(a->total, more, &total) && (a->limit == 0 || total <= a->limit);
}

static size_t room(const struct arena *a) { return a->head ? a->head->cap - a->head->used : 0; }

static size_t next_cap(const struct arena *a, size_t need)
{
    size_t last = a->head ? a->head->cap : 0;
    size_t cap = last >= CHUNK_MAX / 2 ? CHUNK_MAX : last * 2;
    if (cap < CHUNK_MIN) cap = CHUNK_MIN;
    return need > cap ? need : cap;
}

void *arena_alloc(struct arena *a, size_t bytes)
{
    size_t padded, need, asked;
    if (!pad_size(bytes ? bytes : 1, ARENA_ALIGN, &padded) || !add_size(padded, red_zone(), &need)) return NULL;
    if (!within_limit(a, padded)) return NULL;
    if (room(a) < need && !push_chunk(a, next_cap(a, need), &asked)) return NULL;
    uint8_t *p = a->head->data + a->head->used;
    a->head->used += need;
    a->total += padded;
    unpoison(p, bytes);
    return p;
}

void *arena_zalloc(struct arena *a, size_t n, size_t bytes)
{
    size_t total;
    if (!mul_size(n, bytes, &total)) return NULL;
    void *p = arena_alloc(a, total);
    return p ? memset(p, 0, total) : NULL;
}

char *arena_strdup(struct arena *a, const char *s, size_t n)
{
    size_t total;
    if (!add_size(n, 1, &total)) return NULL;
    char *p = arena_alloc(a, total);
    if (!p) return NULL;
    if (n) memcpy(p, s, n);
    p[n] = 0;
    return p;
}

status arena_reserve(struct arena *a, size_t bytes, struct err *e)
{
    size_t padded, need, asked;
    if (!pad_size(bytes, ARENA_ALIGN, &padded) || !mul_size(padded, red_zone() ? 2 : 1, &need)) return err_oom(e, "arena", bytes);
    if (!within_limit(a, padded))
        return err_set(e, ERR_MEMORY, "arena: %zu bytes more than the %zu in use pass the limit of %zu", padded, a->total, a->limit);
    if (room(a) < need && !push_chunk(a, need, &asked)) return err_oom(e, "arena", asked);
    return OK;
}

struct arena_mark arena_mark(const struct arena *a)
{
    return (struct arena_mark){ .chunk = a->head, .used = a->head ? a->head->used : 0, .total = a->total };
}

void arena_release(struct arena *a, struct arena_mark m)
{
    while (a->head != m.chunk) pop_chunk(a);
    if (a->head) {
        a->head->used = m.used;
        poison(a->head->data + m.used, a->head->cap - m.used);
    }
    a->total = m.total;
}
