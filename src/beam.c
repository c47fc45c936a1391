/* beam - see beam.h. Each beam is a session; a beam that is continued more than once is copied from where the prompt ends. */
#include "src/beam.h"
#include "ggml-like/cpu.h"
#include "ggml-like/kernels/kernels.h"
#include "src/session_int.h"
#include <math.h>
#include <stdlib.h>

struct candidate {
    double score; /* sum of log probabilities */
    int32_t token;
    int beam;
};

struct search {
    const struct beam_options *o;
    struct engine *en;
    struct session *session[BEAMS_MAX]; /* of the running beams */
    double score[BEAMS_MAX];
    int32_t last[BEAMS_MAX];            /* chosen, not yet in its session */
    int n_running;
    int64_t n_prompt, n_vocab, keep;    /* keep: candidates of a step */
    struct candidate *row, *all;        /* [n_beams][keep] best of each beam; [n_beams * keep] */
    struct beam_result *r;
    bool open;                          /* running beams may still be better than finished ones */
};

/* ---- candidates ---- */

/* The logarithm of the sum of all exp(logit); a NaN counts for nothing. */
static double log_sum(const struct kernels *k, const float *logits, int64_t n)
{
    float top = k->max(logits, n, NULL);
    double norm = (double)top + log(k->exp_sum(NULL, logits, top, n)), sum = 0;
    if (!isnan(norm)) return norm;
    top = -INFINITY;
    for (int64_t i = 0; i < n; i++) top = logits[i] > top ? logits[i] : top;
    for (int64_t i = 0; i < n; i++) sum += logits[i] > -INFINITY ? exp((double)logits[i] - (double)top) : 0; /* false for NaN */
    return (double)top + log(sum);
}

static double or_least(double v) { return isnan(v) ? -INFINITY : v; }

/* The best of one beam, by falling logit, the lowest id on a tie. */
static void rank_row(const struct search *x, int beam, const float *logits)
{
    struct candidate *best = x->row + beam * x->keep;
    double norm = log_sum(engine_kernels(x->en), logits, x->n_vocab);
    int64_t n = 0;
    for (int64_t i = 0; i < x->n_vocab; i++) {
        double v = or_least(logits[i]);
        if (!(n < x->keep || v > best[n - 1].score)) continue;
        int64_t at = n < x->keep ? n++ : n - 1;
        for (; at > 0 && v > best[at - 1].score; at--) best[at] = best[at - 1];
        best[at] = (struct candidate){ v, (int32_t)i, beam };
    }
    for (int64_t i = 0; i < n; i++) best[i].score = or_least(best[i].score + x->score[beam] - norm);
}

static void take_row(void *ctx, int seg, int64_t row, const float *logits) { rank_row(ctx, seg, logits); }

static int by_score(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    if (x->score != y->score) return x->score < y->score ? 1 : -1;
    if (x->beam != y->beam) return x->beam - y->beam;
    return (x->token > y->token) - (x->token < y->token);
}

static bool ends(const struct search *x, int32_t token)
{
    for (int i = 0; i < x->o->n_end; i++)
        if (x->o->end[i] == token) return true;
    return false;
}

/* ---- finished answers ---- */

static status finish(struct search *x, const struct candidate *c, int64_t length, struct err *e)
{
    struct beam_result *r = x->r;
    double score = c->score / pow((double)length, (double)x->o->length_penalty);
    int at = r->n;
    while (at > 0 && score > r->answer[at - 1].score) at--;
    if (at == x->o->n_beams) return OK;
    int32_t *token = mem_alloc((size_t)length * sizeof *token);
    if (!token) return err_oom(e, "beams", (size_t)length * sizeof *token);
    memcpy(token, session_tokens(x->session[c->beam]) + x->n_prompt, (size_t)(length - 1) * sizeof *token);
    token[length - 1] = c->token;
    if (r->n == x->o->n_beams) mem_free(r->answer[--r->n].token);
    memmove(&r->answer[at + 1], &r->answer[at], (size_t)(r->n - at) * sizeof r->answer[0]);
    r->answer[at] = (struct beam_answer){ token, length, score };
    r->n++;
    return OK;
}

/* Of the first n_beams candidates, those that end. */
static status finish_some(struct search *x, int64_t length, struct err *e)
{
    bool full = x->r->n == x->o->n_beams;
    if ((full && x->o->stop == BEAM_STOP_FIRST) || !x->open) return OK;
    for (int64_t i = 0; i < x->o->n_beams && i < x->keep; i++)
        if (length == x->o->max_tokens || ends(x, x->all[i].token)) TRY(finish(x, &x->all[i], length, e));
    return OK;
}

/* ---- running beams ---- */

/* The best candidates that do not end become the beams. The first child of a beam keeps its session, others take those of beams without children. */
static status go_on(struct search *x, struct err *e)
{
    struct candidate next[BEAMS_MAX];
    struct session *from[BEAMS_MAX], *idle[BEAMS_MAX], *to[BEAMS_MAX];
    bool taken[BEAMS_MAX] = { false };
    int n = 0, n_idle = 0;
    for (int64_t i = 0; i < x->keep && n < x->o->n_beams; i++)
        if (!ends(x, x->all[i].token)) next[n++] = x->all[i];
    for (int i = 0; i < n; i++) {
        from[i] = x->session[next[i].beam];
        to[i] = taken[next[i].beam] ? NULL : from[i];
        taken[next[i].beam] = true;
    }
    for (int i = 0; i < x->o->n_beams; i++)
        if (!taken[i]) idle[n_idle++] = x->session[i];
    for (int i = 0; i < n; i++) {
        if (!to[i]) {
            to[i] = idle[--n_idle];
            TRY(session_copy(to[i], from[i], x->n_prompt, e));
        }
        x->score[i] = next[i].score;
        x->last[i] = next[i].token;
    }
    for (int i = 0; i < n; i++) x->session[i] = to[i];
    for (int i = n; i < x->o->n_beams; i++) x->session[i] = idle[--n_idle];
    x->n_running = n;
    return OK;
}

static void judge(struct search *x, int64_t length)
{
    const struct beam_options *o = x->o;
    if (x->r->n < o->n_beams) return;
    int64_t at = o->stop == BEAM_STOP_NEVER && o->length_penalty > 0 ? o->max_tokens : length;
    double reachable = x->score[0] / pow((double)at, (double)o->length_penalty);
    if (!(reachable > x->r->answer[o->n_beams - 1].score)) x->open = false;
}

static status run(struct search *x, struct err *e)
{
    for (int64_t length = 1;; length++) { /* of the answers that this step completes */
        for (int b = 0; b < x->n_running; b++) memcpy(x->all + b * x->keep, x->row + b * x->keep, (size_t)x->keep * sizeof *x->all);
        qsort(x->all, (size_t)(x->n_running * x->keep), sizeof *x->all, by_score);
        TRY(finish_some(x, length, e));
        if (length == x->o->max_tokens) return OK;
        TRY(go_on(x, e));
        judge(x, length);
        if (x->n_running == 0 || !x->open || (x->r->n == x->o->n_beams && x->o->stop == BEAM_STOP_FIRST)) return OK;
        struct segment g[BEAMS_MAX];
        for (int b = 0; b < x->n_running; b++) g[b] = (struct segment){ .session = x->session[b], .tokens = &x->last[b], .n = 1 };
        TRY(engine_forward(x->en, g, x->n_running, take_row, x, e));
        x->r->n_passes++;
        if (x->o->progress && !x->o->progress(x->o->ctx, length)) return err_set(e, ERR_INTERRUPTED, "stopped after %lld tokens", (long long)length);
    }
}

/* Each session fits by itself, or session_open refuses it: all of them must. s: the first. */
static status check_memory(const struct search *x, const struct session *s, struct err *e)
{
    struct cpu_info cpu;
    size_t need;
    cpu_detect(&cpu);
    bool counted = mul_size(session_bytes(s), (size_t)x->o->n_beams, &need);
    if (counted && (!cpu.ram_available || need <= cpu.ram_available)) return OK;
    return err_set(e, ERR_MEMORY, "beams: %d sessions of %lld tokens need %.1f GiB, %.1f GiB are available: fewer beams, or shorter answers", x->o->n_beams,
                   (long long)s->n_ctx, (double)session_bytes(s) * x->o->n_beams / 0x1p30, (double)cpu.ram_available / 0x1p30);
}

static status open_beams(struct search *x, struct session *s, struct err *e)
{
    size_t n = (size_t)x->o->n_beams * (size_t)x->keep;
    struct session_options so = { .n_ctx = s->pos + x->o->max_tokens, .k_type = s->state.types.k, .v_type = s->state.types.v };
    x->row = mem_calloc(n, sizeof *x->row);
    x->all = mem_calloc(n, sizeof *x->all);
    if (!x->row || !x->all) return err_oom(e, "beams", 2 * n * sizeof *x->row);
    for (int i = 0; i < x->o->n_beams; i++) {
        TRY(session_open(&x->session[i], x->en, &so, e));
        if (i == 0) TRY(check_memory(x, x->session[0], e));
        TRY(session_copy(x->session[i], s, 0, e));
    }
    return OK;
}

static status check(const struct beam_options *o, int64_t n_vocab, int64_t n_batch, struct err *e)
{
    if (o->n_beams < 1 || o->n_beams > BEAMS_MAX) return err_set(e, ERR_USAGE, "beams: %d, expected 1 to %d", o->n_beams, BEAMS_MAX);
    if (o->max_tokens < 1 || o->max_tokens > 1 << 24) return err_set(e, ERR_USAGE, "beams: %lld tokens, expected 1 to %d", (long long)o->max_tokens, 1 << 24);
    if (o->n_end < 0 || (int64_t)o->n_beams * (o->n_end + 1) > n_vocab || o->n_beams > n_batch)
        return err_set(e, ERR_USAGE, "beams: %d beams and %d end tokens for %lld tokens and passes of %lld rows", o->n_beams, o->n_end, (long long)n_vocab,
                       (long long)n_batch);
    if (!isfinite(o->length_penalty)) return err_set(e, ERR_USAGE, "beams: the length penalty is %g", (double)o->length_penalty);
    return OK;
}

status beam_search(struct session *s, const float *logits, const struct beam_options *o, struct beam_result *r, struct err *e)
{
    struct search x = { .o = o, .en = s->en, .n_running = 1, .n_prompt = s->pos, .n_vocab = engine_model(s->en)->hp.n_vocab, .r = r, .open = true };
    *r = (struct beam_result){ 0 };
    TRY(check(o, x.n_vocab, engine_n_batch(s->en), e));
    x.keep = (int64_t)(o->n_end > 1 ? 1 + o->n_end : 2) * o->n_beams;
    if (x.keep > x.n_vocab) x.keep = x.n_vocab;
    status st = open_beams(&x, s, e);
    if (st == OK) {
        rank_row(&x, 0, logits);
        st = run(&x, e);
    }
    for (int i = 0; i < o->n_beams; i++) session_close(x.session[i]);
    mem_free(x.row);
    mem_free(x.all);
    if (st != OK) beam_free(r);
    return st;
}

void beam_free(struct beam_result *r)
{
    for (int i = 0; i < r->n; i++) mem_free(r->answer[i].token);
    *r = (struct beam_result){ 0 };
}
