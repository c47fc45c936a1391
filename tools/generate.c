/* generate - see generate.h. Context policy: a prompt may fill the context to the last position (one token can still be drawn from it); when the
 * context is full the run ends with FINISH_CONTEXT. Nothing is ever shifted or dropped. */
#include "tools/generate.h"
#include "ggml-like/kernels/kernels.h"
#include "tools/vocab.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

const char *finish_name(enum finish f)
{
    static const char *const names[] = { "stop", "length", "context", "interrupt", "closed" };
    return names[f];
}

double per_second(int64_t n, double ms) { return ms > 0 ? (double)n * 1e3 / ms : 0; }

/* ---- options ---- */

/* 32 bits: short to print, exact in every JSON reader. */
static uint64_t fresh_seed(void)
{
    uint32_t seed;
    if (getrandom(&seed, sizeof seed, GRND_NONBLOCK) == (ssize_t)sizeof seed) return seed;
    return (uint32_t)time(NULL);
}

status generator_sampling(struct generator *g, const struct cli *c, struct err *e)
{
    struct sampling fresh;
    if (c->seed >= 0) g->seed = (uint64_t)c->seed;
    TRY(sampling_open(&fresh, &g->with, c, g->rt, g->seed + (uint64_t)g->n_answers, e));
    sampling_close(&g->with);
    g->with = fresh;
    return OK;
}

static status make_buffers(struct generator *g, struct err *e)
{
    const struct tokenizer *t = model_tokenizer(g->rt->model);
    int64_t n_tokens = tokenizer_size(t), n_top = g->cli->top_logprobs;
    int n_end = 0;
    for (int32_t id = 0; id < n_tokens; id++) n_end += tokenizer_is_end(t, id);
    g->piece_cap = tokenizer_piece_max(t);
    g->end = mem_calloc((size_t)n_end + 1, sizeof *g->end);
    g->piece = mem_alloc(g->piece_cap + 1);
    if (!g->end || !g->piece) return err_oom(e, "generator", g->piece_cap);
    for (int32_t id = 0; id < n_tokens; id++)
        if (tokenizer_is_end(t, id) && id < g->n_vocab) g->end[g->n_end++] = id;
    g->n_rows = g->cli->lookup > 0 ? min_i64(g->cli->lookup + 1, engine_n_batch(g->rt->engine)) : 0;
    if (g->n_rows && model_is_recurrent(g->rt->model)) {
        g->n_rows = 0;
        if (!g->cli->quiet) fprintf(stderr, "note: --lookup is off: the recurrent layers of this model cannot take a wrong guess back\n");
    }
    if (g->n_rows && !(g->rows = mem_alloc((size_t)(g->n_rows * g->n_vocab) * sizeof *g->rows)))
        return err_oom(e, "--lookup", (size_t)(g->n_rows * g->n_vocab) * sizeof *g->rows);
    if (n_top == 0) return OK;
    g->raw = mem_calloc((size_t)g->n_vocab, sizeof *g->raw);
    g->top_id = mem_calloc((size_t)n_top, sizeof *g->top_id);
    g->top_logprob = mem_calloc((size_t)n_top, sizeof *g->top_logprob);
    if (!g->raw || !g->top_id || !g->top_logprob) return err_oom(e, "log probabilities", (size_t)g->n_vocab * sizeof *g->raw);
    return OK;
}

status generator_open(struct generator *g, struct runtime *rt, const struct cli *c, struct err *e)
{
    struct model_info info;
    model_info(rt->model, &info);
    *g = (struct generator){ .rt = rt, .cli = c, .seed = c->seed < 0 ? fresh_seed() : 0, .n_vocab = info.n_vocab };
    status st = make_buffers(g, e);
    if (st == OK) st = generator_sampling(g, c, e);
    if (st != OK) generator_close(g);
    return st;
}

void generator_close(struct generator *g)
{
    sampling_close(&g->with);
    mem_free(g->end), mem_free(g->rows), mem_free(g->piece), mem_free(g->raw), mem_free(g->top_id), mem_free(g->top_logprob);
    *g = (struct generator){ 0 };
}

/* ---- prompt ---- */

static bool fed(void *ctx, int64_t done, int64_t n)
{
    bar_update(ctx, done, NULL);
    return !cli_interrupted;
}

status generator_prefill(struct generator *g, const int32_t *ids, int64_t n, struct err *e)
{
    struct session *s = g->rt->session;
    int64_t n_ctx = session_n_ctx(s), pos = session_pos(s), keep = 0;
    const int32_t *old = session_tokens(s);
    g->n_prompt = n, g->n_reused = 0, g->n_generated = 0, g->prompt_ms = g->predicted_ms = 0, g->stop_hit = false;
    if (n == 0) return err_set(e, ERR_USAGE, "the prompt has no tokens");
    if (n > n_ctx) return err_set(e, ERR_USAGE, "the prompt has %lld tokens, the context holds %lld", (long long)n, (long long)n_ctx);
    while (keep < pos && keep < n - 1 && old[keep] == ids[keep]) keep++; /* the last token is always fed: it gives the logits */
    if (keep < pos && session_truncate(s, keep, NULL) != OK) {
        keep = 0; /* a state that cannot go back starts over */
        TRY(session_truncate(s, 0, e));
    }
    g->n_reused = keep;
    struct bar bar;
    bar_begin(&bar, g->cli, "prefill", "tok", n - keep);
    if (n - keep > 64) bar_update(&bar, 0, NULL);
    double start = now_seconds();
    status st = session_feed(s, ids + keep, n - keep, fed, &bar, e);
    g->prompt_ms = (now_seconds() - start) * 1e3;
    bar_end(&bar);
    if (st == OK && cli_interrupted) st = err_set(e, ERR_INTERRUPTED, "interrupted");
    if (st != OK) return st;
    if (g->n_answers > 0) TRY(generator_sampling(g, g->cli, e)); /* fresh history, another random sequence: /regen must differ */
    g->n_answers++;
    for (int64_t i = 0; i < n; i++) sampler_remember(g->with.sampler, ids[i]);
    return OK;
}

void generator_advice(const struct generator *g, char *buf, size_t cap)
{
    struct model_info info;
    int64_t want = (g->n_prompt + 512 + 1023) / 1024 * 1024;
    model_info(g->rt->model, &info);
    if (info.n_ctx_train > 0 && want > info.n_ctx_train && !g->cli->rope_scaling)
        snprintf(buf, cap, "Shorten it, or stretch the %lld positions this model was trained on: -c %lld --rope-scaling yarn --rope-scale %lld",
                 (long long)info.n_ctx_train, (long long)want, (long long)((want - 1) / info.n_ctx_train + 1));
    else
        snprintf(buf, cap, "Shorten it, or give a larger context: -c %lld", (long long)want);
}

/* ---- answer ---- */

int64_t generator_room(const struct generator *g)
{
    int64_t room = session_n_ctx(g->rt->session) - session_pos(g->rt->session) + 1;
    return g->cli->n_predict >= 0 ? min_i64(room, g->cli->n_predict) : room;
}

static status choose(struct generator *g, float *logits, int32_t *id, struct err *e)
{
    if (g->raw) memcpy(g->raw, logits, (size_t)g->n_vocab * sizeof *logits);
    if (g->cli->ignore_eos)
        for (int i = 0; i < g->n_end; i++) logits[g->end[i]] = -INFINITY;
    return sampler_sample(g->with.sampler, logits, id, e);
}

static bool ends(const struct generator *g, int32_t id)
{
    for (int i = 0; i < g->n_end; i++)
        if (g->end[i] == id) return true;
    return false;
}

/* Hands on one token and the text it completes. False: the run is over (g->finish says why). */
static bool emit(struct generator *g, int32_t id)
{
    const char *out;
    size_t n_out, n = tokenizer_piece(model_tokenizer(g->rt->model), id, false, g->piece, g->piece_cap);
    float logprob = 0;
    if (g->raw)
        logprobs_top(engine_kernels(g->rt->engine), g->raw, g->n_vocab, id, &logprob, g->cli->top_logprobs, g->top_id, g->top_logprob);
    if (g->token) g->token(g->ctx, g, id, logprob);
    g->stop_hit = stop_push(&g->with.filter, g->piece, n, &out, &n_out);
    if (n_out && !g->text(g->ctx, out, n_out)) g->finish = FINISH_CLOSED;
    else if (g->stop_hit) g->finish = FINISH_STOP;
    else return true;
    return false;
}

/* One token from a row of logits. *over: the run ends with it (g->finish says why). */
static status step(struct generator *g, float *logits, int32_t *ids, int64_t *n, bool *over, struct err *e)
{
    int32_t id;
    *over = true;
    if (g->cli->n_predict >= 0 && g->n_generated >= g->cli->n_predict) return g->finish = FINISH_LENGTH, OK;
    if (cli_interrupted) return g->finish = FINISH_INTERRUPT, OK;
    TRY(choose(g, logits, &id, e));
    if (ends(g, id)) return g->finish = FINISH_STOP, OK;
    sampler_accept(g->with.sampler, id);
    ids[(*n)++] = id;
    g->n_generated++;
    if (!emit(g, id)) return OK;
    if (g->with.matcher && matcher_must_end(g->with.matcher)) return g->finish = FINISH_STOP, OK; /* the grammar is complete */
    *over = false;
    return OK;
}

static void keep_row(void *ctx, int seg, int64_t row, const float *logits)
{
    const struct generator *g = ctx;
    memcpy(g->rows + row * g->n_vocab, logits, (size_t)g->n_vocab * sizeof *logits);
}

/* Guesses behind ids[0..n), whose last one is not in the session yet. A guess beyond the context or the wanted length could not be used. */
static int64_t guess(const struct generator *g, const int32_t *ids, int64_t n, int32_t *draft)
{
    int64_t room = session_n_ctx(g->rt->session) - session_pos(g->rt->session) - 1, most = min_i64(g->n_rows - 1, room);
    if (g->cli->n_predict >= 0) most = min_i64(most, g->cli->n_predict - g->n_generated - 1);
    return most > 0 ? lookup_draft(ids, n, draft, most) : 0;
}

static void learn(double *average, double v, double weight) { *average = *average > 0 ? *average + (v - *average) * weight : v; }

/* How many of n guesses to check: the most tokens in the least time, by what passes cost and how guesses fared so far. Where weights come from slow
 * memory further rows are nearly free, where arithmetic is the limit they cost as much as the first. The answer does not depend on it. */
static int64_t worth(const struct generator *g, int64_t n)
{
    double expect = 1, chance = 1, best = 1 / fmax(g->row_s, 1e-9);
    int64_t most = 0;
    for (int64_t k = 1; k <= n; k++) {
        expect += chance *= g->right;
        double rate = expect / fmax(g->row_s + (double)k * g->more_s, 1e-9);
        if (rate > best) best = rate, most = k;
    }
    return most;
}

/* Feeds the last token and the guesses behind it in one pass, then takes tokens for as long as they are the guessed ones. Rows have the bits of single
 * passes, so the answer is that without guessing, whatever the sampler does; and the session ends with the tokens that were taken. */
static status guided(struct generator *g, int32_t *ids, int64_t *n, const int32_t *draft, int64_t n_draft, bool *over, struct err *e)
{
    struct session *s = g->rt->session;
    int32_t fed[SINGLE_ROWS] = { ids[*n - 1] };
    int64_t pos = session_pos(s), i = 0;
    memcpy(fed + 1, draft, (size_t)n_draft * sizeof *fed);
    struct segment rows = { .session = s, .tokens = fed, .n = n_draft + 1, .want_from = 0 };
    double start = now_seconds();
    TRY(engine_forward_single(g->rt->engine, &rows, 1, keep_row, g, e));
    learn(&g->more_s, fmax(1e-9, now_seconds() - start - g->row_s) / (double)n_draft, 0.25);
    g->n_drafted += n_draft;
    status st = OK;
    for (;; i++) {
        st = step(g, g->rows + i * g->n_vocab, ids, n, over, e);
        if (st != OK || *over || i == n_draft) break;
        bool hit = ids[*n - 1] == draft[i];
        g->right += (hit - g->right) / 8;
        if (!hit) break;
        g->n_accepted++;
    }
    TRY(session_truncate(s, pos + 1 + i, e));
    return st;
}

static status generate(struct generator *g, int32_t *ids, int64_t *n, struct err *e)
{
    struct session *s = g->rt->session;
    bool over;
    TRY(step(g, engine_logits(g->rt->engine), ids, n, &over, e));
    while (!over) {
        int32_t draft[SINGLE_ROWS];
        if (g->cli->n_predict >= 0 && g->n_generated >= g->cli->n_predict) return g->finish = FINISH_LENGTH, OK; /* nobody needs more logits */
        if (session_pos(s) >= session_n_ctx(s)) return g->finish = FINISH_CONTEXT, OK;
        int64_t found = g->n_rows ? guess(g, ids, *n, draft) : 0, n_draft = worth(g, found);
        g->n_passes++;
        if (n_draft) {
            TRY(guided(g, ids, n, draft, n_draft, &over, e));
            continue;
        }
        double start = now_seconds();
        struct segment one = { .session = s, .tokens = &ids[*n - 1], .n = 1, .want_from = 0 };
        TRY(engine_forward(g->rt->engine, &one, 1, NULL, NULL, e));
        learn(&g->row_s, now_seconds() - start, 0.25);
        TRY(step(g, engine_logits(g->rt->engine), ids, n, &over, e));
        if (found && !over) g->right += ((ids[*n - 1] == draft[0]) - g->right) / 8; /* not checked in a pass, but known now */
    }
    return OK;
}

bool generator_lookup_line(const struct generator *g, char *buf, size_t cap)
{
    if (!g->n_rows) return false;
    snprintf(buf, cap, "lookup: %lld of %lld guessed tokens were right | %lld passes for %lld tokens", (long long)g->n_accepted,
             (long long)g->n_drafted, (long long)g->n_passes, (long long)g->n_generated);
    return true;
}

status generator_run(struct generator *g, int32_t *ids, int64_t *n, struct err *e)
{
    const char *out;
    size_t n_out;
    double start = now_seconds();
    g->n_generated = 0, g->stop_hit = false;
    g->n_passes = g->n_drafted = g->n_accepted = 0;
    g->row_s = g->more_s = 0, g->right = 0.75;
    g->with.filter.n = 0, g->with.filter.hit = false;
    status st = generate(g, ids, n, e);
    g->predicted_ms = (now_seconds() - start) * 1e3;
    if (g->stop_hit) return st;
    stop_flush(&g->with.filter, &out, &n_out);
    if (n_out && st == OK && !g->text(g->ctx, out, n_out)) g->finish = FINISH_CLOSED;
    return st;
}
