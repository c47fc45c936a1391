/* arena: alignment, stable contents, limits, marks, and failure of every allocation. */
#include "ggml-like/arena.h"
#include "tests/test.h"

static bool aligned(const void *p) { return ((uintptr_t)p & 63) == 0; }

TEST(arena_blocks_are_aligned_and_do_not_overlap)
{
    struct arena a;
    arena_init(&a, 0);
    enum { N = 3000 };
    uint8_t *p[N];
    size_t len[N];
    uint64_t seed = 1;
    for (int i = 0; i < N; i++) {
        len[i] = test_rand(&seed) % (i % 100 == 0 ? 50000 : 200);
        p[i] = arena_alloc(&a, len[i]);
        CHECK(p[i] && aligned(p[i]));
        if (!p[i]) break;
        memset(p[i], i & 255, len[i]);
    }
    for (int i = 0; i < N; i++)
        for (size_t j = 0; j < len[i]; j++)
            if (p[i][j] != (i & 255)) {
                CHECK_MSG(false, "block %d was overwritten at %zu", i, j);
                break;
            }
    arena_free(&a);
    CHECK(a.head == NULL && a.total == 0);
    struct arena zero = { 0 };
    arena_free(&zero);
}

TEST(arena_clears_and_copies)
{
    struct arena a;
    arena_init(&a, 0);
    struct arena_mark m = arena_mark(&a);
    memset(arena_alloc(&a, 4096), 0xee, 4096);
    arena_release(&a, m);
    uint8_t *z = arena_zalloc(&a, 64, 64);
    CHECK(z != NULL);
    for (int i = 0; z && i < 4096; i++) CHECK(z[i] == 0);
    char *s = arena_strdup(&a, "a\0bc", 4);
    CHECK(s && memcmp(s, "a\0bc", 5) == 0);
    CHECK(arena_strdup(&a, NULL, 0) != NULL);
    CHECK(arena_zalloc(&a, SIZE_MAX / 2, 3) == NULL);
    CHECK(arena_alloc(&a, SIZE_MAX) == NULL);
    CHECK(arena_alloc(&a, SIZE_MAX - 127) == NULL);
    CHECK(arena_strdup(&a, "", SIZE_MAX) == NULL);
    arena_free(&a);
}

TEST(arena_limit_counts_padding_and_is_exact)
{
    struct arena a;
    arena_init(&a, 256);
    CHECK(arena_alloc(&a, 1) && a.total == 64);
    CHECK(arena_alloc(&a, 128) && a.total == 192);
    CHECK(arena_alloc(&a, 65) == NULL && a.total == 192);
    struct err e = { 0 };
    CHECK(arena_reserve(&a, 65, &e) == ERR_MEMORY);
    CHECK_HAS(e.text, "limit of 256");
    CHECK(arena_alloc(&a, 64) && a.total == 256);
    CHECK(arena_alloc(&a, 0) == NULL);
    arena_free(&a);
}

TEST(arena_release_returns_to_the_mark)
{
    struct arena a;
    arena_init(&a, 0);
    struct arena_mark empty = arena_mark(&a);
    char *keep = arena_strdup(&a, "keep", 4);
    struct arena_mark m = arena_mark(&a);
    void *first = arena_alloc(&a, 100);
    for (int i = 0; i < 50; i++) CHECK(arena_alloc(&a, 10000) != NULL); /* several chunks */
    CHECK(a.total > 500000);
    arena_release(&a, m);
    CHECK(a.total == m.total);
    CHECK_STR(keep, "keep");
    CHECK(arena_alloc(&a, 100) == first);
    arena_release(&a, m);
    arena_release(&a, m); /* twice is harmless */
    CHECK_STR(keep, "keep");
    arena_release(&a, empty);
    CHECK(a.head == NULL && a.total == 0);
    arena_free(&a);
}

TEST(arena_reserve_avoids_later_allocations)
{
    struct arena a;
    arena_init(&a, 0);
    struct err e = { 0 };
    CHECK(arena_alloc(&a, 1000) != NULL);
    CHECK(arena_reserve(&a, 1 << 20, &e) == OK);
    int64_t before = mem_count();
    for (int i = 0; i < 1 << 14; i++) CHECK(arena_alloc(&a, 64) != NULL);
    CHECK(mem_count() == before);
    CHECK(arena_reserve(&a, SIZE_MAX - 5, &e) == ERR_MEMORY);
    arena_free(&a);
}

TEST(arena_survives_allocation_failure)
{
    struct arena a;
    struct err e = { 0 };
    arena_init(&a, 0);
    mem_fail_at(1, false);
    CHECK(arena_alloc(&a, 10) == NULL && a.total == 0);
    mem_fail_at(1, false);
    CHECK(arena_reserve(&a, 100000, &e) == ERR_MEMORY);
    CHECK_HAS(e.text, "out of memory");
    mem_fail_at(0, false);
    char *s = arena_strdup(&a, "still usable", 12);
    CHECK(s != NULL);
    mem_fail_at(1, true);
    CHECK(arena_alloc(&a, 1 << 20) == NULL);
    mem_fail_at(0, false);
    CHECK(s && !strcmp(s, "still usable"));
    arena_free(&a);
}

SUITE(arena, T(arena_blocks_are_aligned_and_do_not_overlap), T(arena_clears_and_copies), T(arena_limit_counts_padding_and_is_exact),
      T(arena_release_returns_to_the_mark), T(arena_reserve_avoids_later_allocations), T(arena_survives_allocation_failure));
