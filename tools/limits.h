/* limits - what this machine can do at best, measured with the engine's own loops: how fast weights can be read where they lie, how fast
 * the inner tile multiplies when everything is in the first cache, what one barrier costs. No figure takes 100 ms. */
#pragma once
#include "src/cuanto.h"

enum {
    LIMITS_READS = 12,
    LIMITS_SHARED_NS = 20000, /* a barrier between running threads takes 0.2 to 3 us; two threads on one core: 50 us, the time they spin before they yield */
};
struct limits {
    double read_gbps_1, read_gbps_n; /* 10^9 bytes per second over the mapped weights: one thread, all threads */
    double read_gbps[LIMITS_READS];  /* and read_threads[i] threads, rising, [n_reads] */
    int read_threads[LIMITS_READS], n_reads;
    double tile_gmacs[DTYPE_IDS];    /* 10^9 multiply-adds per second of one thread through the tile, by type of weights; 0: not measured */
    double dot_gmacs[DTYPE_IDS];     /* one token times rows, in the second cache */
    double int8_gmacs_1;             /* tile_gmacs of the type that multiplies most in the layers, if not float; 0 otherwise */
    double bf16_gmacs_1;             /* the same of BF16, on levels that multiply pairs of it; 0: none, or no such weights */
    double f32_gflops_1;             /* 10^9 float operations (2 per multiply-add) of one thread: the f32 tile */
    double dot_gmacs_1;              /* dot_gmacs of the type that multiplies most in a token, head included */
    double barrier_ns;               /* the fastest of many short samples: two cores that nobody else uses */
    double barrier_mean_ns;          /* of all samples: much more where threads wait for a core */
    double clock_ghz;                /* of the calling thread's core while it works */
    double fresh_gbps;               /* limits_pages: first touch of anonymous memory by one thread */
    double fault_ns;                 /* limits_pages: first look at a page of a newly mapped file that is in memory; 0 not known */
    size_t read_bytes;               /* weights that one reading pass covers, at most 512 MiB */
    int n_threads;
};
status limits_measure(struct limits *l, struct engine *en, struct err *e) MUST_USE;

/* limits_clock - cycles per nanosecond of this core. 5 ms. */
double limits_clock(void);
/* limits_pages - fills in what new pages cost: of memory, and of a mapping of the model's file. page: bytes, 0 = 4096. */
status limits_pages(struct limits *l, const char *path, size_t page, struct err *e) MUST_USE;

/* limits_again - reads once more, after a test, and keeps the better figures: other work on the machine may have slowed the first look. */
void limits_again(struct limits *l, struct engine *en);

/* limits_decode - 10^9 bytes of weights of one format per second that one thread, or all, multiply with one token, each row in registers as decoding
 * does: memory and arithmetic together. The bytes are those of the mapped model whatever they mean, so that it works for formats that the model does
 * not have. About 60 ms. */
status limits_decode(double *gbps, struct engine *en, const struct dtype *t, bool all_threads, struct err *e) MUST_USE;

/* limits_memory - bytes that a session of n_ctx positions takes besides the weights: its KV cache and the engine's scratch. 0: no number holds it. */
uint64_t limits_memory(const struct engine *en, int64_t n_ctx, const struct dtype *kv_type);

/* Work of one benchmark run and its share of the limits. bytes: only those that must come from memory. Multiply-adds by type of weights: through
 * the tile, and those of passes of one row, which go row by row. */
struct load { double bytes, seconds, best_seconds, tile_macs[DTYPE_IDS], dot_macs[DTYPE_IDS]; };
struct share { double percent; const char *bound; double bandwidth, compute; }; /* percent of the bound, the nearer limit: "bandwidth" or "compute" */
/* limits_raise - a test whose fastest run read or multiplied faster than anything before raises the limit: what was reached is possible. */
void limits_raise(struct limits *l, const struct load *w);
struct share limits_share(const struct limits *l, const struct load *w);
