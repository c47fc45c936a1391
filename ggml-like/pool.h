/* pool - a fixed set of threads that run one function together; the caller is thread 0.
 * Waiting: spin briefly, then sched_yield, then sleep on a futex (condition variable off Linux), so that an idle pool costs nothing and a
 * stolen core does not stall the rest for long. One pool serves one caller at a time. */
#pragma once
#include "ggml-like/base.h"

struct pool;
typedef void (*pool_fn)(void *ctx, int ith, int nth);

/* pool_open - starts n_threads - 1 threads (1..512). Allocates only here. */
status pool_open(struct pool **out, int n_threads, struct err *e) MUST_USE;
void pool_close(struct pool *p); /* accepts NULL */
int pool_threads(const struct pool *p);

/* pool_run - fn(ctx, ith, pool_threads) on every thread; returns when all are back. Not re-entrant. */
void pool_run(struct pool *p, pool_fn fn, void *ctx);

/* pool_run_elastic - the same with as many threads as pay, 1..pool_threads, fn's nth: for jobs of milliseconds that come again and again and whose result
 * does not depend on nth. A thread whose core another process holds is late for every barrier by a time slice, 3 to 4 ms; where threads waited that way for
 * more than 1/nth of the time the jobs took, one fewer is faster. From time to time one more is tried again. */
void pool_run_elastic(struct pool *p, pool_fn fn, void *ctx);

/* pool_barrier - inside pool_run only: nobody passes before all have arrived. Full memory fence. */
void pool_barrier(struct pool *p);

/* pool_range - the contiguous share of [0, n) of thread ith, cut at multiples of `grain`; *end <= n. */
void pool_range(int64_t n, int64_t grain, int ith, int nth, int64_t *begin, int64_t *end);
