/* pool - persistent threads around words that only count up: `start` of each thread (a new job, or the end) and `phase` (a barrier opened).
 * A waiter remembers the old value and waits until the word differs: spins, then yields, then sleeps. A job = bump start of the threads that take
 * part, run the share of thread 0, pass one barrier; so a thread can never miss or repeat a job. */
#include "ggml-like/pool.h"
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#endif

enum {
    THREADS_MAX = 512,
    CACHE_LINE = 64,
    SPINS = 2000, /* pauses, 28 us measured, up to 100 on others: covers the gap between two steps of a decoding loop */
    YIELDS = 100, /* then some 25 us in which other processes may have the core; a sleep and wake-up costs 10 us and more */
};

/* Of pool_run_elastic. With a busy process on one of two cores SmolLM2 generated 24 to 39 tokens/s with two threads, this way 90 to
 * 195, one thread alone 163. */
enum {
    LATE_NS = 500000,          /* a shorter wait is an uneven share (a panel of 8960 columns, 512 tokens: 260 us), a time slice is 3 to 4 ms */
    WINDOW_NS = 20000000,      /* of jobs, between two looks at the waiting */
    RETRY_NS = 100000000,      /* before one thread more is tried, twice as long after each try that failed, */
    RETRY_NS_MAX = 1600000000, /* up to this: a window in eighty */
};

/* `seq` on its own line: waiters read it, and only the last arrival writes it. */
struct word {
    _Alignas(CACHE_LINE) _Atomic uint32_t seq;
    _Atomic uint32_t sleepers;
#if !defined(__linux__)
    pthread_mutex_t lock;
    pthread_cond_t changed;
#endif
};

struct worker {
    struct word start;
    struct pool *pool;
    pthread_t thread;
    int ith;
};

/* How many threads pay: what the jobs of the present window took and how much of it was waiting for late threads. */
struct elastic {
    int n;
    bool trying; /* n was raised for this window */
    int64_t run_ns, retry_at, retry_after;
};

struct pool {
    struct word phase;
    _Alignas(CACHE_LINE) _Atomic int arrived;
    _Atomic int64_t late_ns; /* waited long in barriers of elastic jobs, by all threads */
    _Alignas(CACHE_LINE) pool_fn fn; /* written before start moves, read after; n and counts_late too */
    void *ctx;
    int n; /* threads of this job */
    bool counts_late, stop; /* counts_late: an elastic job */
    struct elastic elastic;
    int n_threads, n_started;
    int spins; /* 0 when there are more threads than processors: spinning would then hold up the thread that is waited for */
    void *raw; /* the allocation that holds this struct at an aligned place */
    struct worker worker[];
};

#if defined(__x86_64__)
static void cpu_relax(void) { __builtin_ia32_pause(); }
#elif defined(__aarch64__)
static void cpu_relax(void) { __asm__ volatile("isb"); } /* `yield` is a no-op on most cores; isb takes about as long as a pause */
#else
static void cpu_relax(void) {}
#endif

#if defined(__linux__)
/* The kernel compares *seq with `old` under its own lock, so a change between our last look and the sleep is not lost. */
static void word_sleep(struct word *w, uint32_t old) { syscall(SYS_futex, &w->seq, FUTEX_WAIT_PRIVATE, old, NULL, NULL, 0); }
static void word_wake(struct word *w) { syscall(SYS_futex, &w->seq, FUTEX_WAKE_PRIVATE, THREADS_MAX, NULL, NULL, 0); }
static bool word_init(struct word *w) { return w != NULL; }
static void word_free(struct word *w) { (void)w; }

static int processors(void)
{
    cpu_set_t set[8]; /* 8192 processors; the kernel refuses a set smaller than its own */
    return sched_getaffinity(0, sizeof set, set) == 0 ? CPU_COUNT_S(sizeof set, set) : 1;
}
#else
static void word_sleep(struct word *w, uint32_t old)
{
    pthread_mutex_lock(&w->lock);
    while (atomic_load(&w->seq) == old) pthread_cond_wait(&w->changed, &w->lock);
    pthread_mutex_unlock(&w->lock);
}

static void word_wake(struct word *w)
{
    pthread_mutex_lock(&w->lock);
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
}

static bool word_init(struct word *w)
{
    if (pthread_mutex_init(&w->lock, NULL) != 0) return false;
    if (pthread_cond_init(&w->changed, NULL) == 0) return true;
    pthread_mutex_destroy(&w->lock);
    return false;
}

static void word_free(struct word *w)
{
    pthread_cond_destroy(&w->changed);
    pthread_mutex_destroy(&w->lock);
}

static int processors(void) { return (int)sysconf(_SC_NPROCESSORS_ONLN); }
#endif

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static bool word_moved(struct word *w, uint32_t old) { return atomic_load_explicit(&w->seq, memory_order_acquire) != old; }

static bool word_spin(struct word *w, uint32_t old, int spins)
{
    for (int i = 0; i < spins; i++) {
        if (word_moved(w, old)) return true;
        cpu_relax();
    }
    return word_moved(w, old);
}

static void word_sleep_on(struct word *w, uint32_t old)
{
    for (int i = 0; i < YIELDS; i++) {
        if (word_moved(w, old)) return;
        sched_yield();
    }
    /* Announce, then look again: with both sides sequentially consistent, either we see the new value or the waker sees the sleeper. */
    atomic_fetch_add(&w->sleepers, 1);
    while (atomic_load(&w->seq) == old) word_sleep(w, old);
    atomic_fetch_sub(&w->sleepers, 1);
}

static void word_advance(struct word *w)
{
    atomic_fetch_add(&w->seq, 1);
    if (atomic_load(&w->sleepers) != 0) word_wake(w);
}

void pool_barrier(struct pool *p)
{
    /* Read before arriving: until this thread has arrived the phase cannot move, nor can the next job begin, which may have another n. */
    const int last = p->n - 1;
    const bool counts = p->counts_late;
    if (last == 0) return;
    uint32_t phase = atomic_load_explicit(&p->phase.seq, memory_order_relaxed);
    if (atomic_fetch_add(&p->arrived, 1) == last) {
        atomic_store_explicit(&p->arrived, 0, memory_order_relaxed); /* published by the phase */
        word_advance(&p->phase);
    } else if (!word_spin(&p->phase, phase, p->spins)) {
        int64_t t0 = now_ns();
        word_sleep_on(&p->phase, phase);
        int64_t waited = counts ? now_ns() - t0 : 0;
        if (waited >= LATE_NS) atomic_fetch_add_explicit(&p->late_ns, waited, memory_order_relaxed); /* at a job's end: for the next window */
    }
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    struct pool *p = w->pool;
    for (uint32_t seen = 0;; seen++) {
        if (!word_spin(&w->start, seen, p->spins)) word_sleep_on(&w->start, seen);
        if (p->stop) return NULL;
        p->fn(p->ctx, w->ith, p->n);
        pool_barrier(p);
    }
}

static void run_on(struct pool *p, int n, bool elastic, pool_fn fn, void *ctx)
{
    p->fn = fn;
    p->ctx = ctx;
    p->n = n;
    p->counts_late = elastic;
    for (int i = 0; i < n - 1; i++) word_advance(&p->worker[i].start);
    fn(ctx, 0, n);
    pool_barrier(p);
}

void pool_run(struct pool *p, pool_fn fn, void *ctx) { run_on(p, p->n_threads, false, fn, ctx); }

/* n threads did in (run - late) what n - 1 do in n / (n - 1) of that: fewer are faster when late > run / n. */
static void adapt(struct elastic *s, int most, int64_t late_ns, int64_t now)
{
    if (s->n > 1 && late_ns > s->run_ns / s->n) {
        s->retry_after = s->trying ? min_i64(2 * s->retry_after, RETRY_NS_MAX) : RETRY_NS;
        s->retry_at = now + s->retry_after;
        s->n--;
        s->trying = false;
    } else {
        s->trying = s->n < most && now >= s->retry_at;
        s->n += s->trying;
    }
    s->run_ns = 0;
}

void pool_run_elastic(struct pool *p, pool_fn fn, void *ctx)
{
    struct elastic *s = &p->elastic;
    if (p->n_threads == 1) {
        pool_run(p, fn, ctx);
        return;
    }
    int64_t t0 = now_ns();
    if (s->run_ns == 0) atomic_store_explicit(&p->late_ns, 0, memory_order_relaxed);
    run_on(p, s->n, true, fn, ctx);
    int64_t t1 = now_ns();
    s->run_ns += t1 - t0;
    if (s->run_ns >= WINDOW_NS) adapt(s, p->n_threads, atomic_load_explicit(&p->late_ns, memory_order_relaxed) / max_i64(s->n - 1, 1), t1);
}

/* Signals sent to the process belong to the caller's threads; faults of a worker must still reach the handler on that worker. */
static void block_process_signals(sigset_t *before)
{
    static const int own[] = { SIGBUS, SIGSEGV, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGPROF };
    sigset_t mask;
    sigfillset(&mask);
    for (int i = 0; i < ARRAY_LEN(own); i++) sigdelset(&mask, own[i]);
    pthread_sigmask(SIG_BLOCK, &mask, before);
}

static status start_workers(struct pool *p, struct err *e)
{
    sigset_t before;
    block_process_signals(&before);
    int error = 0;
    while (p->n_started < p->n_threads - 1 && error == 0) {
        struct worker *w = &p->worker[p->n_started];
        w->pool = p;
        w->ith = p->n_started + 1;
        if (!word_init(&w->start)) error = ENOMEM;
        else if ((error = pthread_create(&w->thread, NULL, worker_main, w)) != 0) word_free(&w->start);
        else p->n_started++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error == 0) return OK;
    return err_set(e, ERR_RUNTIME, "threads: only %d of %d could be started: %s", p->n_started + 1, p->n_threads, strerror(error));
}

status pool_open(struct pool **out, int n_threads, struct err *e)
{
    *out = NULL;
    if (n_threads < 1 || n_threads > THREADS_MAX) return err_set(e, ERR_USAGE, "threads: %d is outside 1..%d", n_threads, THREADS_MAX);
    size_t bytes = sizeof(struct pool) + (size_t)(n_threads - 1) * sizeof(struct worker) + CACHE_LINE;
    void *raw = mem_calloc(1, bytes);
    if (!raw) return err_oom(e, "threads", bytes);
    struct pool *p = (struct pool *)(((uintptr_t)raw + CACHE_LINE - 1) & ~(uintptr_t)(CACHE_LINE - 1));
    p->raw = raw;
    p->n_threads = n_threads;
    p->elastic.n = n_threads;
    p->spins = n_threads <= processors() ? SPINS : 0;
    if (!word_init(&p->phase)) {
        mem_free(raw);
        return err_set(e, ERR_RUNTIME, "threads: no lock available");
    }
    status st = start_workers(p, e);
    if (st == OK) *out = p;
    else pool_close(p);
    return st;
}

void pool_close(struct pool *p)
{
    if (!p) return;
    p->stop = true;
    for (int i = 0; i < p->n_started; i++) word_advance(&p->worker[i].start);
    for (int i = 0; i < p->n_started; i++) {
        pthread_join(p->worker[i].thread, NULL);
        word_free(&p->worker[i].start);
    }
    word_free(&p->phase);
    mem_free(p->raw);
}

int pool_threads(const struct pool *p) { return p->n_threads; }

void pool_range(int64_t n, int64_t grain, int ith, int nth, int64_t *begin, int64_t *end)
{
    assert(n >= 0 && grain > 0 && nth > 0 && ith >= 0 && ith < nth);
    int64_t blocks = n / grain + (n % grain != 0);
    int64_t each = blocks / nth, extra = blocks % nth;
    int64_t first = each * ith + min_i64(ith, extra), last = first + each + (ith < extra);
    *begin = first >= blocks ? n : first * grain;
    *end = last >= blocks ? n : last * grain;
}
