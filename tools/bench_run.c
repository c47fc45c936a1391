/* bench_run - one test of `cuanto bench`: see bench.h. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include "ggml-like/pool.h"
#include "tools/bench.h"

int64_t case_tokens(const struct bench_case *t) { return t->n_seq * (t->n_prompt + t->n_gen); }

bool case_same(const struct bench_case *a, const struct bench_case *b)
{
    return a->n_prompt == b->n_prompt && a->n_gen == b->n_gen && a->n_depth == b->n_depth && a->n_seq == b->n_seq;
}

const char *case_name(const struct bench_case *t, char buf[96])
{
    int n = 0;
    buf[0] = 0;
    if (t->n_prompt) n += snprintf(buf + n, 96 - (size_t)n, "pp%lld", (long long)t->n_prompt);
    if (t->n_gen) n += snprintf(buf + n, 96 - (size_t)n, "%stg%lld", n ? "+" : "", (long long)t->n_gen);
    if (t->n_seq > 1) n += snprintf(buf + n, 96 - (size_t)n, " x %lld", (long long)t->n_seq);
    if (t->n_depth) snprintf(buf + n, 96 - (size_t)n, " @ d%lld", (long long)t->n_depth);
    return buf;
}

void result_speed(const struct result *r, double *speed)
{
    for (int i = 0; i < r->n; i++) speed[i] = (double)case_tokens(&r->t) / r->seconds[i];
}

/* ---- tokens ---- */

status bench_tokens(struct bench *b, struct err *e)
{
    const struct tokenizer *t = model_tokenizer(b->r.model);
    uint64_t x = 0x9e3779b97f4a7c15u;
    size_t n, bytes;
    if (b->tokens) return OK;
    if (!mul_size((size_t)b->n_ctx, (size_t)b->n_seq_max, &n) || !mul_size(n, sizeof *b->tokens, &bytes)) return err_oom(e, "tokens", SIZE_MAX);
    b->tokens = mem_alloc(bytes);
    if (!b->tokens) return err_oom(e, "tokens", bytes);
    for (size_t i = 0; i < n; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17; /* xorshift64: the same ids in every run */
        b->tokens[i] = (int32_t)(x % (uint64_t)b->info.n_vocab);
    }
    if (tokenizer_adds_bos(t) && tokenizer_bos(t) >= 0)
        for (int64_t s = 0; s < b->n_seq_max; s++) b->tokens[s * b->n_ctx] = tokenizer_bos(t);
    return OK;
}

/* ---- one run ---- */

static struct session *sequence(const struct bench *b, int64_t i) { return i == 0 ? b->r.session : b->more[i]; }

/* n more tokens for each of n_seq sequences, at_a_time of each in a row, as many rows in one pass as it takes. */
static status feed(struct bench *b, int64_t n_seq, int64_t n, int64_t at_a_time, struct err *e)
{
    int64_t n_batch = engine_n_batch(b->r.engine), begin = session_pos(b->r.session);
    for (int64_t done = 0, step; done < n; done += step) {
        struct segment seg[BENCH_SEQ];
        int64_t rows = 0;
        int n_seg = 0;
        step = min_i64(at_a_time, engine_pass_rows(b->r.engine, n - done));
        for (int64_t s = 0; s < n_seq; s++) {
            if (rows + step > n_batch) {
                TRY(engine_forward(b->r.engine, seg, n_seg, NULL, NULL, e));
                n_seg = 0, rows = 0;
            }
            int64_t want = done + step == n ? step - 1 : step;
            seg[n_seg++] = (struct segment){ sequence(b, s), b->tokens + s * b->n_ctx + begin + done, step, want };
            rows += step;
        }
        TRY(engine_forward(b->r.engine, seg, n_seg, NULL, NULL, e));
    }
    return OK;
}

static status run_once(struct bench *b, const struct bench_case *t, double *seconds, struct err *e)
{
    int64_t n_batch = engine_n_batch(b->r.engine);
    for (int64_t s = 0; s < t->n_seq; s++) TRY(session_truncate(sequence(b, s), 0, e));
    TRY(feed(b, t->n_seq, t->n_depth, n_batch, e));
    if (b->times_ops) engine_profile(b->r.engine, true);
    double start = now_seconds();
    TRY(feed(b, t->n_seq, t->n_prompt, n_batch, e));
    for (int64_t i = 0; i < t->n_gen; i++) TRY(feed(b, t->n_seq, 1, 1, e));
    *seconds = now_seconds() - start;
    return OK;
}

static void add_op_times(struct bench *b, struct result *r)
{
    const char *name;
    int64_t ns;
    for (r->n_ops = 0; r->n_ops < BENCH_OPS && engine_op_time(b->r.engine, r->n_ops, &name, &ns); r->n_ops++) r->op_ns[r->n_ops] += ns;
    engine_profile(b->r.engine, false);
}

static status warm_up(struct bench *b, const struct bench_case *t, struct err *e)
{
    double ignored;
    struct bench_case w = { t->n_prompt, min_i64(t->n_gen, 1), 0, t->n_seq };
    return b->c->no_warmup ? OK : run_once(b, &w, &ignored, e);
}

/* Sessions for the sequences of a batch, kept for the tests that follow. */
static status open_sequences(struct bench *b, int64_t n, struct err *e)
{
    struct session_options o = session_choices(b->c, b->n_ctx);
    for (int64_t s = 1; s < n; s++)
        if (!b->more[s]) TRY(session_open(&b->more[s], b->r.engine, &o, e));
    return OK;
}

/* ---- the work of a test ---- */

/* Positions read by attention, times sequences, over n tokens in passes of `step` from `begin` on. */
static double rows_read(int64_t begin, int64_t n, int64_t step)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i += step) sum += (double)(begin + min_i64(i + step, n));
    return sum;
}

/* Bytes that must be read and multiply-adds that must be done: each pass reads the weights once, and the KV rows so far. Of a prompt one row goes
 * through the head, by itself unless sequences share its pass. */
static struct load load_of(const struct bench *b, const struct result *r)
{
    const struct bench_case *t = &r->t;
    int64_t n_batch = engine_n_batch(b->r.engine), passes = (t->n_seq * t->n_prompt + n_batch - 1) / n_batch + t->n_gen * ((t->n_seq + n_batch - 1) / n_batch);
    double row = (double)session_bytes(b->r.session) / (double)session_n_ctx(b->r.session), best = r->seconds[0];
    double rows = rows_read(t->n_depth, t->n_prompt, n_batch) + rows_read(t->n_depth + t->n_prompt, t->n_gen, 1);
    double prompt = (double)(t->n_seq * t->n_prompt), gen = (double)(t->n_seq * t->n_gen);
    for (int i = 1; i < r->n; i++) best = r->seconds[i] < best ? r->seconds[i] : best;
    struct load w = { .bytes = (double)passes * (double)b->info.token_bytes + row * rows * (double)t->n_seq, .seconds = mean_of(r->seconds, r->n) };
    w.best_seconds = best;
    for (int i = 0; i < DTYPE_IDS; i++) {
        double macs = (double)b->info.type_macs[i];
        (t->n_seq * t->n_prompt == 1 ? w.dot_macs : w.tile_macs)[i] += prompt * macs;
        (t->n_seq == 1 ? w.dot_macs : w.tile_macs)[i] += gen * macs;
    }
    int head = b->info.head_type->gguf_id;
    if (t->n_prompt) (t->n_seq == 1 || 2 * t->n_prompt > n_batch ? w.dot_macs : w.tile_macs)[head] += (double)t->n_seq * (double)b->info.head_macs;
    (t->n_seq == 1 ? w.dot_macs : w.tile_macs)[head] += gen * (double)b->info.head_macs;
    return w;
}

static double speedup_of(const struct bench *b, const struct result *r)
{
    for (int i = 0; i < b->n_results; i++)
        if (b->result[i].threads == 1 && case_same(&b->result[i].t, &r->t))
            return mean_of(b->result[i].seconds, b->result[i].n) / mean_of(r->seconds, r->n);
    return r->threads == 1 ? 1 : NAN;
}

static status keep(struct bench *b, struct result *r, struct err *e)
{
    if (b->n_results == b->cap_results) {
        int cap = b->cap_results ? 2 * b->cap_results : 32;
        struct result *more = mem_realloc(b->result, (size_t)cap * sizeof *more);
        if (!more) return err_oom(e, "results", (size_t)cap * sizeof *more);
        b->result = more, b->cap_results = cap;
    }
    b->result[b->n_results++] = *r;
    return OK;
}

static status measure(struct bench *b, struct result *r, struct err *e)
{
    TRY(open_sequences(b, r->t.n_seq, e));
    TRY(warm_up(b, &r->t, e));
    for (int i = 0; i < r->n; i++) {
        if (b->c->delay > 0) nanosleep(&(struct timespec){ .tv_sec = (time_t)b->c->delay }, NULL);
        TRY(run_once(b, &r->t, &r->seconds[i], e));
        if (b->times_ops) add_op_times(b, r);
    }
    if (!b->c->no_limits) {
        r->load = load_of(b, r);
        limits_again(&b->limits, b->r.engine);
        limits_raise(&b->limits, &r->load);
        r->share = limits_share(&b->limits, &r->load);
    }
    r->speedup = speedup_of(b, r);
    if (b->old) old_verdict(b, r);
    return keep(b, r, e);
}

status bench_test(struct bench *b, const struct bench_case *t, struct err *e)
{
    struct result r = { .t = *t, .threads = pool_threads(engine_pool(b->r.engine)), .n = (int)b->c->reps, .share = { NAN, NULL, NAN, NAN } };
    r.seconds = mem_calloc((size_t)r.n, sizeof *r.seconds);
    if (!r.seconds) return err_oom(e, "samples", (size_t)r.n * sizeof *r.seconds);
    status st = measure(b, &r, e);
    if (st != OK) mem_free(r.seconds);
    return st;
}
