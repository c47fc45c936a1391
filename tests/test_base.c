/* base: error texts, checked arithmetic, allocation hooks. */
#include "ggml-like/pool.h"
#include "tests/test.h"
#include <stdatomic.h>

TEST(err_keeps_the_first_cause)
{
    struct err e = { 0 };
    CHECK(err_set(&e, ERR_FORMAT, "%s: version %d, expected %d", "a.gguf", 9, 3) == ERR_FORMAT);
    CHECK(err_set(&e, ERR_MEMORY, "later") == ERR_MEMORY);
    CHECK(e.code == ERR_FORMAT);
    CHECK_STR(e.text, "a.gguf: version 9, expected 3");
    CHECK(err_set(NULL, ERR_USAGE, "nobody listens") == ERR_USAGE);
}

TEST(hash64_depends_on_every_byte_the_length_and_the_seed)
{
    uint8_t p[40] = { 0 };
    for (size_t n = 0; n < sizeof p; n++) {
        uint64_t h = hash64(7, p, n);
        CHECK(h == hash64(7, p, n) && h != hash64(8, p, n) && (n == 0 || h != hash64(7, p, n - 1)));
        for (size_t i = 0; i < n; i++) {
            p[i] = 1;
            CHECK_MSG(h != hash64(7, p, n), "byte %zu of %zu", i, n);
            p[i] = 0;
        }
    }
}

TEST(err_cuts_long_texts_with_dots)
{
    char name[400];
    memset(name, 'x', sizeof name - 1);
    name[sizeof name - 1] = 0;
    for (int n = 0; n < (int)sizeof name; n++) {
        struct err e = { 0 };
        err_set(&e, ERR_FILE, "%.*s", n, name);
        int want = n < (int)sizeof e.text ? n : (int)sizeof e.text - 1;
        bool cut = n >= (int)sizeof e.text;
        CHECK_MSG((int)strlen(e.text) == want, "length %d for %d", (int)strlen(e.text), n);
        CHECK_MSG(cut == (strstr(e.text, "...") != NULL), "dots at %d", n);
    }
}

TEST(err_never_cuts_inside_a_character)
{
    for (int lead = 0; lead < 4; lead++) {
        char name[400] = "aaa";
        int n = lead;
        while (n + 4 < (int)sizeof name) {
            memcpy(name + n, "\xf0\x9f\x98\x80", 4);
            n += 4;
        }
        name[n] = 0;
        struct err e = { 0 };
        err_set(&e, ERR_FILE, "%s", name);
        size_t len = strlen(e.text);
        CHECK(len > sizeof e.text - 9);
        CHECK_STR(e.text + len - 3, "...");
        CHECK_MSG((len - 3 - (size_t)lead) % 4 == 0, "lead %d: %zu bytes kept", lead, len - 3);
    }
}

TEST(err_text_is_one_printable_line)
{
    struct err e = { 0 };
    err_set(&e, ERR_FORMAT, "key \"%s\"", "a\nb\x1b[31m\x7f");
    CHECK_STR(e.text, "key \"a?b?[31m?\"");
    struct err m = { 0 };
    CHECK(err_oom(&m, "KV cache", 4096) == ERR_MEMORY);
    CHECK_STR(m.text, "KV cache: out of memory (4096 bytes)");
}

TEST(size_arithmetic_detects_every_overflow)
{
    static const size_t v[] = {
        0,       1, 2, 3, 63, 64, 65, 0xffffffffu, 0x100000000u, SIZE_MAX / 2, SIZE_MAX / 2 + 1, SIZE_MAX - 64, SIZE_MAX - 63, SIZE_MAX - 1,
        SIZE_MAX
    };
    for (int i = 0; i < ARRAY_LEN(v); i++)
        for (int j = 0; j < ARRAY_LEN(v); j++) {
            size_t a = v[i], b = v[j], out = 77;
            bool fits = a <= SIZE_MAX - b;
            CHECK_MSG(add_size(a, b, &out) == fits && out == (fits ? a + b : 77), "%zu + %zu", a, b);
            out = 77;
            fits = a == 0 || b <= SIZE_MAX / a;
            CHECK_MSG(mul_size(a, b, &out) == fits && out == (fits ? a * b : 77), "%zu * %zu", a, b);
        }
}

TEST(pad_size_rounds_up_or_fails)
{
    size_t out = 77;
    CHECK(pad_size(0, 64, &out) && out == 0);
    CHECK(pad_size(1, 64, &out) && out == 64);
    CHECK(pad_size(64, 64, &out) && out == 64);
    CHECK(pad_size(65, 64, &out) && out == 128);
    CHECK(pad_size(5, 1, &out) && out == 5);
    CHECK(pad_size(SIZE_MAX - 63, 64, &out) && out == SIZE_MAX - 63);
    out = 77;
    CHECK(!pad_size(SIZE_MAX - 62, 64, &out) && out == 77);
    CHECK(!pad_size(SIZE_MAX, 2, &out) && out == 77);
    CHECK(pad_size(SIZE_MAX, 1, &out) && out == SIZE_MAX);
}

TEST(mem_functions_refuse_absurd_sizes)
{
    CHECK(mem_alloc(SIZE_MAX) == NULL);
    CHECK(mem_calloc(SIZE_MAX / 2, 3) == NULL);
    CHECK(mem_calloc(1, SIZE_MAX - 1) == NULL);
    char *p = mem_alloc(0);
    CHECK(p != NULL);
    CHECK(mem_realloc(p, SIZE_MAX) == NULL); /* p stays valid */
    p = mem_realloc(p, 3);
    CHECK(p != NULL);
    mem_free(p);
    unsigned char *z = mem_calloc(100, 3);
    for (int i = 0; z && i < 300; i++) CHECK(z[i] == 0);
    mem_free(z);
}

/* Which of six allocations fail, as bits. */
static int failures(int64_t n, bool sticky)
{
    int bits = 0;
    mem_fail_at(n, sticky);
    for (int i = 0; i < 6; i++) {
        void *p = i % 2 ? mem_alloc(8) : mem_calloc(2, 4);
        if (!p) bits |= 1 << i;
        mem_free(p);
    }
    mem_fail_at(0, false);
    return bits;
}

TEST(mem_fail_at_hits_the_nth_allocation)
{
    CHECK(failures(0, false) == 0);
    CHECK(failures(1, false) == 0x01);
    CHECK(failures(3, false) == 0x04);
    CHECK(failures(7, false) == 0);
    CHECK(failures(1, true) == 0x3f);
    CHECK(failures(4, true) == 0x38);
    int64_t before = mem_count();
    CHECK(failures(2, false) == 0x02);
    CHECK(mem_count() == before + 5);
}

struct race {
    _Atomic int failed;
};

static void allocate_much(void *ctx, int ith, int nth)
{
    struct race *r = ctx;
    for (int i = 0; i < 500; i++) {
        void *p = mem_alloc(16);
        if (!p) atomic_fetch_add(&r->failed, 1);
        mem_free(p);
    }
}

TEST(mem_fail_at_fails_once_among_threads)
{
    struct pool *p = NULL;
    CHECK(pool_open(&p, 3, NULL) == OK);
    if (!p) return;
    for (int64_t n = 1; n <= 1500; n += 499) {
        struct race r = { 0 };
        int64_t before = mem_count();
        mem_fail_at(n, false);
        pool_run(p, allocate_much, &r);
        mem_fail_at(0, false);
        CHECK_MSG(r.failed == 1, "n = %d: %d failures", (int)n, r.failed);
        CHECK(mem_count() == before + 1499);
    }
    pool_close(p);
}

SUITE(base, T(err_keeps_the_first_cause), T(hash64_depends_on_every_byte_the_length_and_the_seed),
      T(err_cuts_long_texts_with_dots), T(err_never_cuts_inside_a_character),
      T(err_text_is_one_printable_line), T(size_arithmetic_detects_every_overflow), T(pad_size_rounds_up_or_fails),
      T(mem_functions_refuse_absurd_sizes), T(mem_fail_at_hits_the_nth_allocation), T(mem_fail_at_fails_once_among_threads));
