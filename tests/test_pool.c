/* pool: every thread runs every job exactly once, barriers separate rounds, ranges tile [0, n). */
#include "ggml-like/plan.h"
#include "ggml-like/pool.h"
#include "tests/test.h"
#include <stdatomic.h>
#include <time.h>

enum { ROUNDS = 400, MAX_THREADS = 16 };
static const int thread_counts[] = { 1, 2, 3, 7 };

/* Plain (not atomic) counters: a barrier that lets anybody pass early is a wrong sum here and a report under the thread sanitizer. */
struct rounds {
    struct pool *pool;
    int64_t slot[MAX_THREADS][8]; /* one cache line a thread */
    int64_t wrong[MAX_THREADS][8];
    int n_rounds;
};

static void count_rounds(void *ctx, int ith, int nth)
{
    struct rounds *r = ctx;
    for (int i = 1; i <= r->n_rounds; i++) {
        r->slot[ith][0]++;
        pool_barrier(r->pool);
        for (int j = 0; j < nth; j++)
            if (r->slot[j][0] != i) r->wrong[ith][0]++;
        pool_barrier(r->pool);
    }
}

TEST(pool_barrier_separates_rounds)
{
    for (int c = 0; c < ARRAY_LEN(thread_counts); c++) {
        int n = thread_counts[c];
        struct rounds r = { .n_rounds = ROUNDS };
        struct err e = { 0 };
        CHECK(pool_open(&r.pool, n, &e) == OK);
        if (!r.pool) continue;
        CHECK(pool_threads(r.pool) == n);
        pool_run(r.pool, count_rounds, &r);
        for (int j = 0; j < n; j++) CHECK_MSG(r.slot[j][0] == ROUNDS && r.wrong[j][0] == 0, "%d threads: thread %d", n, j);
        pool_close(r.pool);
    }
}

struct jobs {
    int nth;
    int64_t runs[MAX_THREADS][8];
};

static void count_job(void *ctx, int ith, int nth)
{
    struct jobs *j = ctx;
    j->runs[ith][0] += nth == j->nth;
}

TEST(pool_runs_each_job_once_on_every_thread)
{
    for (int c = 0; c < ARRAY_LEN(thread_counts); c++) {
        struct jobs j = { .nth = thread_counts[c] };
        struct pool *p = NULL;
        CHECK(pool_open(&p, j.nth, NULL) == OK);
        if (!p) continue;
        for (int i = 1; i <= ROUNDS; i++) {
            pool_run(p, count_job, &j);
            for (int t = 0; t < j.nth; t++)
                CHECK_MSG(j.runs[t][0] == i, "job %d, thread %d of %d: %d runs", i, t, j.nth, (int)j.runs[t][0]);
        }
        pool_close(p);
    }
}

static void nap(int ms)
{
    struct timespec t = { .tv_nsec = ms * 1000000L };
    nanosleep(&t, NULL);
}

static void late_thread(void *ctx, int ith, int nth)
{
    struct rounds *r = ctx;
    if (ith == r->n_rounds % nth) nap(3);
    r->slot[ith][0]++;
    pool_barrier(r->pool);
    for (int j = 0; j < nth; j++)
        if (r->slot[j][0] != r->n_rounds) r->wrong[ith][0]++;
}

TEST(pool_wakes_threads_that_fell_asleep)
{
    struct rounds r = { 0 };
    CHECK(pool_open(&r.pool, 3, NULL) == OK);
    if (!r.pool) return;
    while (r.n_rounds < 12) {
        r.n_rounds++;
        nap(2); /* longer than workers spin: they sleep when the job arrives */
        pool_run(r.pool, late_thread, &r);
    }
    for (int j = 0; j < 3; j++) CHECK(r.slot[j][0] == 12 && r.wrong[j][0] == 0);
    pool_close(r.pool);
}

/* Thread nth - 1 of more than one is late, as one is whose core is taken. */
struct stolen {
    bool late;
    int nth, wrong;
    _Atomic int ran;
};

static void stolen_job(void *ctx, int ith, int nth)
{
    struct stolen *s = ctx;
    if (ith == 0) s->nth = nth;
    atomic_fetch_add(&s->ran, 1);
    nap(s->late && nth > 1 && ith == nth - 1 ? 5 : 1);
}

static bool comes_to(struct pool *p, struct stolen *s, int nth)
{
    for (int i = 0; i < 1000; i++) {
        s->ran = 0;
        pool_run_elastic(p, stolen_job, s);
        s->wrong += s->ran != s->nth;
        if (s->nth == nth) return true;
    }
    return false;
}

TEST(pool_leaves_out_threads_that_are_late)
{
    struct stolen s = { .late = true };
    struct pool *p = NULL;
    CHECK(pool_open(&p, 3, NULL) == OK);
    if (!p) return;
    CHECK(comes_to(p, &s, 3));
    CHECK(comes_to(p, &s, 1));
    s.late = false;
    CHECK(comes_to(p, &s, 2)); /* tried again, and kept as it pays */
    CHECK_MSG(s.wrong == 0, "%d jobs not run by their threads once", s.wrong);
    s.ran = 0;
    pool_run(p, stolen_job, &s);
    CHECK(s.ran == 3);
    pool_close(p);
}

static void first_naps(void *ctx, int ith, int nth)
{
    if (ith == 0) nap(30);
}

static void all_nap(void *ctx, int ith, int nth)
{
    if (ith == 0) *(int *)ctx = nth;
    nap(10);
}

/* Threads wait for the first one's work between the jobs: that is no late thread. */
TEST(pool_counts_waiting_in_elastic_jobs_alone)
{
    struct pool *p = NULL;
    int nth = 3, least = 3;
    CHECK(pool_open(&p, 3, NULL) == OK);
    for (int i = 0; p && i < 8; i++) {
        pool_run(p, first_naps, NULL);
        pool_run_elastic(p, all_nap, &nth);
        least = nth < least ? nth : least;
    }
    CHECK_MSG(least > 1, "only %d thread left", least);
    pool_close(p);
}

static void cover(int64_t n, int64_t grain, int nth)
{
    int64_t at = 0, smallest = INT64_MAX, largest = 0;
    for (int ith = 0; ith < nth; ith++) {
        int64_t b = -1, e = -1;
        pool_range(n, grain, ith, nth, &b, &e);
        CHECK_MSG(b == at && e >= b && e <= n, "n %lld grain %lld %d/%d: %lld..%lld after %lld", (long long)n, (long long)grain, ith, nth,
                  (long long)b, (long long)e, (long long)at);
        CHECK_MSG(b % grain == 0 || b == n, "n %lld grain %lld: cut at %lld", (long long)n, (long long)grain, (long long)b);
        int64_t blocks = (e - b) / grain + ((e - b) % grain != 0);
        smallest = min_i64(smallest, blocks);
        largest = max_i64(largest, blocks);
        at = e;
    }
    CHECK_MSG(at == n, "n %lld grain %lld nth %d: ends at %lld", (long long)n, (long long)grain, nth, (long long)at);
    CHECK(largest - smallest <= 1);
}

TEST(pool_range_covers_exactly_and_evenly)
{
    static const int64_t grains[] = { 1, 2, 16, 64, 1000, INT64_MAX };
    static const int64_t large[] = { 49152, 1000003, INT64_MAX - 1, INT64_MAX };
    static const int nths[] = { 1, 2, 3, 7, 16, 512 };
    for (int g = 0; g < ARRAY_LEN(grains); g++)
        for (int t = 0; t < ARRAY_LEN(nths); t++) {
            for (int64_t n = 0; n < 140; n++) cover(n, grains[g], nths[t]);
            for (int i = 0; i < ARRAY_LEN(large); i++) cover(large[i], grains[g], nths[t]);
        }
}

TEST(pool_refuses_thread_counts_out_of_range)
{
    static const int bad[] = { 0, -1, 513, INT32_MIN, INT32_MAX };
    for (int i = 0; i < ARRAY_LEN(bad); i++) {
        struct err e = { 0 };
        struct pool *p = NULL;
        CHECK(pool_open(&p, bad[i], &e) == ERR_USAGE);
        CHECK(p == NULL);
        CHECK_HAS(e.text, "1..512");
    }
    pool_close(NULL);
}

TEST(pool_open_survives_allocation_failure)
{
    struct pool *p = NULL;
    struct err e = { 0 };
    mem_fail_at(1, false);
    CHECK(pool_open(&p, 3, &e) == ERR_MEMORY);
    mem_fail_at(0, false);
    CHECK(p == NULL && e.code == ERR_MEMORY);
    int64_t before = mem_count();
    CHECK(pool_open(&p, 3, NULL) == OK);
    CHECK(mem_count() == before + 1); /* so the loop over n ended above */
    if (!p) return;
    before = mem_count();
    struct jobs j = { .nth = 3 };
    pool_run(p, count_job, &j);
    CHECK(mem_count() == before);
    pool_close(p);
}

/* Work shared by op_take: late threads, ops that nobody waits between, parts of no items. */
struct taken {
    struct plan_share *share;
    int n_ops;
    int64_t n, chunk;
    _Atomic int count[8][600]; /* [op][item] */
    _Atomic int too_long;
};

static void take_all(void *ctx, int ith, int nth)
{
    struct taken *t = ctx;
    struct plan_exec x = { .share = t->share };
    struct op_run r = { .x = &x, .ith = ith, .nth = nth };
    for (r.index = 0; r.index < t->n_ops; r.index++) {
        if ((r.index + ith) % 3 == 0) nanosleep(&(struct timespec){ .tv_nsec = 100000 }, NULL);
        for (int64_t begin, end; op_take(&r, t->n, t->chunk, &begin, &end);) {
            if (end - begin > t->chunk) t->too_long++; /* loops over single items do not look at the end */
            for (int64_t i = begin; i < end; i++) t->count[r.index][i]++;
        }
    }
}

TEST(op_take_gives_each_item_once)
{
    static const struct { int64_t n, chunk; } shapes[] = { { 0, 1 }, { 1, 4 }, { 5, 2 }, { 64, 16 }, { 600, 1 }, { 599, 7 } };
    for (int c = 0; c < ARRAY_LEN(thread_counts); c++)
        for (int s = 0; s < ARRAY_LEN(shapes); s++) {
            test_begin("op_take_gives_each_item_once %d threads, %lld by %lld", thread_counts[c], (long long)shapes[s].n, (long long)shapes[s].chunk);
            struct plan_share share[MAX_THREADS] = { { 0 } };
            static struct taken t;
            t = (struct taken){ .share = share, .n_ops = 8, .n = shapes[s].n, .chunk = shapes[s].chunk };
            struct pool *p;
            CHECK(pool_open(&p, thread_counts[c], NULL) == OK);
            pool_run(p, take_all, &t);
            pool_close(p);
            CHECK(t.too_long == 0);
            for (int i = 0; i < t.n_ops; i++)
                for (int64_t j = 0; j < t.n; j++) CHECK(t.count[i][j] == 1);
        }
}

SUITE(pool, T(pool_barrier_separates_rounds), T(pool_runs_each_job_once_on_every_thread), T(pool_wakes_threads_that_fell_asleep),
      T(pool_range_covers_exactly_and_evenly), T(pool_refuses_thread_counts_out_of_range), T(pool_open_survives_allocation_failure),
      T(pool_leaves_out_threads_that_are_late), T(pool_counts_waiting_in_elastic_jobs_alone),
      T(op_take_gives_each_item_once));
