/* test_data - similar texts, filters and splits of `cuanto data`. */
#include "tests/test.h"
#include "tools/data_rows.h"
#include "tools/similar.h"

/* n words out of 500, with one of `every` replaced by another one */
static void words(struct buffer *b, uint64_t seed, int n, int every)
{
    b->n = 0;
    for (int i = 0; i < n; i++) {
        uint64_t word = test_rand(&seed) % 500;
        CHECK(buffer_put(b, "w%d%s", every && i % every == every / 2 ? 1000 + i : (int)word, i % 7 == 6 ? ". " : " "));
    }
}

TEST(similar_finds_texts_by_common_shingles)
{
    struct similar *s;
    struct err e = { 0 };
    struct buffer b = { 0 };
    int64_t like, found = 0, wrong = 0;
    double share;
    CHECK(similar_open(&s, 0.7, &e) == OK);
    for (int i = 0; i < 200; i++) {
        words(&b, (uint64_t)i, 80, 0);
        CHECK(similar_add(s, b.p, b.n, i, &like, &share, &e) == OK && like == -1);
    }
    for (int i = 0; i < 200; i++) {
        words(&b, (uint64_t)i, 80, 27); /* three words of 80 are others: 69 of 87 shingles in common, 0.79 */
        CHECK(similar_add(s, b.p, b.n, 1000 + i, &like, &share, &e) == OK);
        found += like == i;
        wrong += like >= 0 && like != i;
        if (like == i) CHECK_NEAR(share, 69.0 / 87, 1e-9);
    }
    CHECK_MSG(found >= 197 && wrong == 0, "%lld of 200 found, %lld wrong", (long long)found, (long long)wrong);
    words(&b, 3, 80, 12); /* too many are others */
    CHECK(similar_add(s, b.p, b.n, 2000, &like, &share, &e) == OK && like == -1);
    similar_close(s);
    buffer_free(&b);
}

TEST(similar_compares_words_without_case_and_punctuation)
{
    static const struct { const char *a, *b; bool same; } rows[] = {
        { "One, two - three!", "one two THREE", true }, { "one two three", "one two four", false }, { "hi", "Hi.", true }, { "hi", "ho", false },
        { "a b", "ab", false }, { "", "", false }, { "...", "...", false }, { "\xe4\xbd\xa0\xe5\xa5\xbd\xef\xbc\x8c", "\xe4\xbd\xa0\xe5\xa5\xbd", true },
        { "\xc3\xa9t\xc3\xa9", "\xc3\xa9t\xc3\xa9!", true }, { "x\xff y", "x y", true },
    };
    for (int i = 0; i < ARRAY_LEN(rows); i++) {
        struct similar *s;
        struct err e = { 0 };
        int64_t like;
        double share;
        CHECK(similar_open(&s, 0.8, &e) == OK);
        CHECK(similar_add(s, rows[i].a, strlen(rows[i].a), 7, &like, &share, &e) == OK && like == -1);
        CHECK(similar_add(s, rows[i].b, strlen(rows[i].b), 8, &like, &share, &e) == OK);
        CHECK_MSG((like == 7) == rows[i].same, "row %d", i);
        similar_close(s);
    }
}

static const char *write_rows(const char *name, int n, int step)
{
    const char *path = test_tmp(name);
    FILE *f = fopen(path, "w");
    for (int i = 0; i < n; i++) {
        int k = i * step % n;
        fprintf(f, "{\"text\": \"row %d of %d\"}\n", k / 2, k / 2); /* each twice */
    }
    fclose(f);
    return path;
}

/* The same rows in another order are split in the same way, and equal rows are never on both sides. */
TEST(data_split_depends_on_content_only)
{
    enum { N = 200 };
    bool side[2][N / 2] = { { false } };
    for (int order = 0; order < 2; order++) {
        const char *path = write_rows("split.jsonl", N, order ? 77 : 1);
        struct data_set d;
        struct data_options o = { .dedupe = DEDUPE_NONE };
        struct err e = { 0 };
        bool held[N], known[N / 2] = { false };
        int64_t n_held;
        CHECK_MSG(data_read(&d, &path, 1, &e) == OK && data_filter(&d, &o, &e) == OK && d.n_rows == N && d.n_exact == N / 2, "%s", e.text);
        CHECK(data_split(&d, 0.1, 5, held, &n_held, &e) == OK && n_held == N / 10);
        for (int i = 0; i < N && i < d.n_rows; i++) {
            int k = atoi(d.row[i].p + strlen("{\"text\": \"row "));
            CHECK(!known[k] || side[order][k] == held[i]);
            side[order][k] = held[i], known[k] = true;
        }
        data_close(&d);
    }
    CHECK(!memcmp(side[0], side[1], sizeof side[0]));
}

TEST(data_survives_every_failing_allocation)
{
    const char *path = write_rows("data_oom.jsonl", 12, 5);
    status st = ERR_MEMORY;
    for (int64_t n = 1; st != OK && n < 5000; n++) {
        struct data_set d;
        struct data_options o = { .dedupe = DEDUPE_EXACT, .near = 0.8 };
        struct err e = { 0 };
        bool held[12];
        int64_t n_held;
        mem_fail_at(n, false);
        st = data_read(&d, &path, 1, &e);
        if (st == OK) st = data_filter(&d, &o, &e);
        if (st == OK) st = data_split(&d, 2, 0, held, &n_held, &e);
        mem_fail_at(0, false);
        CHECK_MSG(st == OK || (st == ERR_MEMORY && *e.text), "allocation %lld: status %d %s", (long long)n, (int)st, e.text);
        if (st == OK) CHECK(d.count[DATA_KEPT] == 6 && n_held == 2);
        data_close(&d);
        if (st != OK && st != ERR_MEMORY) break;
    }
    CHECK(st == OK);
}

SUITE(data, T(similar_finds_texts_by_common_shingles), T(similar_compares_words_without_case_and_punctuation), T(data_split_depends_on_content_only),
      T(data_survives_every_failing_allocation));
