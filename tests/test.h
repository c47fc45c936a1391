/* test - claims, counted. Each tests/test_<module>.c lists its claims in one table; test_main.c runs them all in one process.
 *   TEST(gguf_rejects_tensor_past_end) { ... CHECK(st == ERR_FORMAT); }
 * A claim fails when a CHECK in it fails; the rest of it still runs. The runner prints one line per failed check and ends with
 * "N passed, N failed". `build/<config>/test NAME...` runs claims whose name contains NAME. */
#pragma once
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "ggml-like/base.h"

struct test { const char *name; void (*run)(void); };
struct test_suite { const char *name; const struct test *tests; int n; };

#define TEST(name) static void name(void)
/* Ends a test file: SUITE(gguf, T(a), T(b)); defines suite_gguf, which test_main.c lists. */
#define T(fn) { #fn, fn }
#define SUITE(id, ...)                                              \
    static const struct test tests_##id[] = { __VA_ARGS__ };        \
    const struct test_suite suite_##id = { #id, tests_##id, (int)(sizeof(tests_##id) / sizeof(tests_##id[0])) }

void test_fail(const char *file, int line, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* test_name - a claim of its own inside a walk over a table: counts like a TEST. "name" is copied. */
void test_begin(const char *fmt, ...) PRINTF_LIKE(1, 2);

#define CHECK(cond) do { if (!(cond)) test_fail(__FILE__, __LINE__, "%s", #cond); } while (0)
#define CHECK_MSG(cond, ...) do { if (!(cond)) test_fail(__FILE__, __LINE__, __VA_ARGS__); } while (0)
#define CHECK_STR(a, b)                                                                        \
    do {                                                                                       \
        const char *a_ = (a), *b_ = (b);                                                       \
        if (strcmp(a_, b_)) test_fail(__FILE__, __LINE__, "\"%s\" is not \"%s\"", a_, b_);     \
    } while (0)
/* CHECK_HAS - error texts: a contains b */
#define CHECK_HAS(a, b)                                                                        \
    do {                                                                                       \
        const char *a_ = (a), *b_ = (b);                                                       \
        if (!strstr(a_, b_)) test_fail(__FILE__, __LINE__, "\"%s\" lacks \"%s\"", a_, b_);     \
    } while (0)
#define CHECK_NEAR(a, b, tol)                                                                  \
    do {                                                                                       \
        double a_ = (a), b_ = (b), tol_ = (tol);                                               \
        if (!(fabs(a_ - b_) <= tol_)) test_fail(__FILE__, __LINE__, "%.9g is not %.9g +- %g", a_, b_, tol_); \
    } while (0)

/* Deterministic random numbers for tests (splitmix64). */
uint64_t test_rand(uint64_t *state);
float test_randf(uint64_t *state);  /* uniform in [-1, 1) */
float test_randn(uint64_t *state);  /* standard normal */
/* test_tmp - a fresh path in the build's scratch folder; static buffer ring of 8. */
const char *test_tmp(const char *name);
