/* bench - what the parts of `cuanto bench` share: tests, their results, and who does what.
 *   cmd_bench.c      options, which tests, in which order        bench_run.c      one test: feeding tokens, time, work
 *   bench_report.c   rows in four formats, limits, ops           bench_compare.c  old results beside new ones, conditions
 *   bench_kernels.c  the hot loops by themselves */
#pragma once
#include "tools/limits.h"
#include "tools/report.h"

enum { BENCH_LIST = 64, BENCH_REPS = 1000, BENCH_OPS = 64, BENCH_SEQ = 256, BENCH_GATES = 16 };

/* n_seq sequences side by side: each gets n_prompt tokens, then n_gen one by one, behind n_depth tokens. */
struct bench_case { int64_t n_prompt, n_gen, n_depth, n_seq; };

/* What an old result says about a new one; text NULL: there is no old one. */
struct verdict {
    double old_ts, ratio, p;  /* medians; new by old; chance of a difference as large by luck */
    const char *text;         /* "faster", "slower" (p < 0.01), "faster?", "slower?" (p < 0.05), "same" */
};

struct result {
    struct bench_case t;
    int threads, n;           /* samples */
    double *seconds;          /* [n] */
    struct load load;
    struct share share;       /* of the limits known when the row is written; later tests may raise them */
    double speedup;           /* by the run of the same test on one thread; NaN: there is none */
    struct verdict old;
    int64_t op_ns[BENCH_OPS]; /* time by kind of op, over all samples; zeros unless asked for */
    int n_ops;
};

struct range_list { int64_t v[BENCH_LIST]; int n; };
struct old_results; /* bench_compare.c */
struct bench_gate { const char *text; size_t name_len; bool less, equal; double limit; };

struct bench {
    const struct cli *c;
    enum report_format format;
    struct range_list threads, prompt, gen, depth, parallel;
    struct bench_case pair[BENCH_LIST];
    int n_pairs;
    struct runtime r;
    struct session *more[BENCH_SEQ]; /* sequences 1 .. n_seq - 1 of a batch */
    struct model_info info;
    struct limits limits;
    int32_t *tokens;                 /* [n_seq_max][n_ctx] random ids */
    int64_t n_ctx, n_seq_max;
    bool times_ops;
    struct old_results *old;         /* --compare; NULL: nothing to compare with */
    struct bench_gate gate[BENCH_GATES];
    /* results */
    struct result *result;
    int n_results, cap_results;
    bool head_written;
    struct json_out json;
};

/* ---- bench_run.c ---- */
/* bench_tokens - fills b->tokens with n_seq_max rows of n_ctx ids, the same in every run; does nothing when they are there. */
status bench_tokens(struct bench *b, struct err *e) MUST_USE;
/* bench_test - warm-up, then all measured runs; the result, its seconds from mem_alloc, is the last one of b->result. */
status bench_test(struct bench *b, const struct bench_case *t, struct err *e) MUST_USE;
int64_t case_tokens(const struct bench_case *t);              /* that one run counts: all sequences */
bool case_same(const struct bench_case *a, const struct bench_case *b);
const char *case_name(const struct bench_case *t, char buf[96]); /* "pp512", "pp512+tg128", "tg128 x 8 @ d4096" */
void result_speed(const struct result *r, double *speed);  /* [r->n] tokens per second */

/* ---- bench_report.c ---- */
void bench_row(struct bench *b, const struct result *r);
void bench_limits(const struct bench *b, int first);       /* to stderr, with the results from `first` on */
void bench_ops(const struct bench *b, const struct result *r, bool to_stdout);
const char *bench_model_text(const struct model_info *info, const struct gguf *g, char buf[64]); /* "llama 135M Q4_1" */

/* ---- bench_compare.c ---- */
/* old_open - reads results of `bench --json`, `--format jsonl` or llama-bench. ERR_FILE, ERR_FORMAT. */
status old_open(struct old_results **out, const char *path, struct err *e) MUST_USE;
void old_close(struct old_results *o); /* accepts NULL */
/* old_verdict - fills r->old from the row of the same test: file name of the model, tokens, depth, sequences, threads, KV types, ISA level (what the
 * old file does not say fits everything). */
void old_verdict(struct bench *b, struct result *r);
/* compare_p - two-sided p-value of Mann and Whitney's rank sum test: exact, ties included, for up to RANK_EXACT samples together, else the normal
 * approximation. 1 when a side is empty. Source: Mann & Whitney 1947; Streitberg & Roehmel 1986 (exact distribution with ties). */
double compare_p(const double *a, int n_a, const double *b, int n_b);
void compare_table(const struct bench *b);
/* bench_gate_parse - "pp512<0.95", "all < 0.9": a test's name as the table writes it, spaces do not count. ERR_USAGE. */
status bench_gate_parse(struct bench_gate *g, const char *text, struct err *e) MUST_USE;
/* bench_gates - tells each condition; ERR_GATE when one holds, or names no test that was compared. */
status bench_gates(const struct bench *b);
/* compare_files - `bench NEW.json --compare OLD.json`: nothing is run. */
status compare_files(struct bench *b, struct err *e) MUST_USE;

/* ---- bench_kernels.c ---- */
/* bench_kernels - the table of hot loops for the formats named in c->kernels ("" = those of the model, "all"). ERR_USAGE for an unknown one. */
status bench_kernels(struct bench *b, struct err *e) MUST_USE;
