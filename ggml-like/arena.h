/* arena - bump allocator over a list of chunks. Memory is released all at once (arena_free) or back to a mark.
 * Pointers never move. Not thread-safe: one owner. Under ASan a red zone stands behind every allocation. */
#pragma once
#include "ggml-like/base.h"

struct arena_chunk;
struct arena {
    struct arena_chunk *head; /* newest chunk */
    size_t total;             /* bytes handed out so far, padding included */
    size_t limit;             /* arena_alloc fails beyond this total; 0 = no limit */
};
struct arena_mark {
    struct arena_chunk *chunk;
    size_t used, total;
};

/* arena_init - empty arena; allocates nothing. limit as above. */
void arena_init(struct arena *a, size_t limit);
void arena_free(struct arena *a); /* accepts a zeroed arena */

/* arena_alloc - bytes aligned to 64, not cleared. NULL when memory is out or the limit is passed. */
void *arena_alloc(struct arena *a, size_t bytes) MUST_USE;
/* arena_zalloc - n * bytes, checked, cleared. */
void *arena_zalloc(struct arena *a, size_t n, size_t bytes) MUST_USE;
/* arena_strdup - copies n bytes and a NUL. */
char *arena_strdup(struct arena *a, const char *s, size_t n) MUST_USE;
/* arena_reserve - makes sure the next `bytes` (in one or more allocations of 64-byte multiples) need no further malloc. */
status arena_reserve(struct arena *a, size_t bytes, struct err *e) MUST_USE;

struct arena_mark arena_mark(const struct arena *a);
void arena_release(struct arena *a, struct arena_mark m); /* frees chunks newer than the mark */
