/* windows - see windows.h. */
#include "tools/windows.h"
#include <string.h>
#include "tools/ppl.h"

enum { TEXT_MAX = 1 << 30 };

status windows_text(const struct cli *c, char **text, size_t *n, struct err *e)
{
    if (c->n_file != 1) return err_set(e, ERR_USAGE, "no text to score: -f FILE");
    TRY(file_text(c->file[0], TEXT_MAX, text, n, e));
    if (*n > 0 && (*text)[*n - 1] == '\n') (*n)--; /* llama.cpp's tools drop one newline at the end */
    return OK;
}

status windows_encode(const struct tokenizer *t, const char *text, size_t n, int32_t **ids, int64_t *n_ids, struct err *e)
{
    int64_t cap = (int64_t)n + 8; /* a token stands for at least one byte, BOS and EOS besides, SPM adds a space */
    int32_t *out = mem_alloc((size_t)cap * sizeof *out);
    *ids = NULL;
    if (!out) return err_oom(e, "tokens", (size_t)cap * sizeof *out);
    status st = tokenizer_encode(t, text, n, ENCODE_BOS, out, cap, n_ids, e);
    if (st == OK && *n_ids > cap) st = err_set(e, ERR_RUNTIME, "%zu bytes became %lld tokens", n, (long long)*n_ids);
    if (st != OK) mem_free(out);
    else *ids = out;
    return st;
}

status windows_open(struct windows *w, const struct tokenizer *t, const char *text, size_t n, int64_t n_ctx, int64_t max_chunks, struct err *e)
{
    *w = (struct windows){ .n_ctx = n_ctx, .bos = tokenizer_adds_bos(t) ? tokenizer_bos(t) : -1 };
    TRY(windows_encode(t, text, n, &w->tokens, &w->n_tokens, e));
    status st = ppl_chunks(w->n_tokens, n_ctx, max_chunks, &w->n_chunks, e);
    if (st != OK) windows_close(w);
    w->first = ppl_first(n_ctx);
    w->n_scored = ppl_scored(n_ctx);
    return st;
}

void windows_close(struct windows *w)
{
    mem_free(w->tokens);
    w->tokens = NULL;
}

int reader_seqs(const struct engine *en, const struct windows *w)
{
    return (int)min_i64(max_i64(1, engine_n_batch(en) / (w->n_ctx - 1)), min_i64(WINDOWS_SEQS, w->n_chunks));
}

status reader_open(struct reader *r, struct runtime *rt, const struct cli *c, const struct windows *w, int n_seq, struct err *e)
{
    const struct session_options o = session_choices(c, w->n_ctx);
    *r = (struct reader){ .en = rt->engine, .w = w, .session[0] = rt->session, .n_seq = n_seq };
    r->chunk_tokens = mem_calloc((size_t)n_seq * (size_t)w->n_ctx, sizeof *r->chunk_tokens);
    r->target = mem_calloc((size_t)n_seq * (size_t)w->n_ctx, sizeof *r->target);
    status st = r->chunk_tokens && r->target ? OK : err_oom(e, "chunks", (size_t)n_seq * (size_t)w->n_ctx * sizeof *r->chunk_tokens);
    for (int i = 1; i < n_seq && st == OK; i++) st = session_open(&r->session[i], rt->engine, &o, e);
    if (st != OK) reader_close(r);
    return st;
}

void reader_close(struct reader *r)
{
    for (int i = 1; i < r->n_seq; i++) session_close(r->session[i]);
    mem_free(r->chunk_tokens);
    mem_free(r->target);
    *r = (struct reader){ 0 };
}

static void on_logits(void *ctx, int seg, int64_t row, const float *logits)
{
    const struct reader *r = ctx;
    int64_t pos = r->at + row, i = pos - r->w->first;
    if (i >= 0 && i < r->w->n_scored) r->fn(r->ctx, r->span.chunk + seg, i, r->chunk_tokens[seg * r->w->n_ctx + pos + 1], logits);
}

static status begin_chunks(struct reader *r, const struct span *s, struct err *e)
{
    for (int i = 0; i < s->n; i++) {
        int32_t *t = r->chunk_tokens + i * r->w->n_ctx;
        memcpy(t, r->w->tokens + (s->chunk + i) * r->w->n_ctx, (size_t)r->w->n_ctx * sizeof *t);
        if (r->w->bos >= 0) t[0] = r->w->bos;
        TRY(session_truncate(r->session[i], 0, e));
    }
    return OK;
}

/* The segments of the pass that begins at position r->at; returns its rows. */
static int64_t next_pass(const struct reader *r, struct segment *seg)
{
    const struct span *s = &r->span;
    int64_t first = r->w->first, rows = s->n > 1 ? s->to : engine_pass_rows(r->en, s->to - r->at);
    for (int i = 0; i < s->n; i++)
        seg[i] = (struct segment){ r->session[i], r->chunk_tokens + i * r->w->n_ctx + r->at, rows, min_i64(rows, max_i64(0, first - r->at)) };
    return rows;
}

status reader_run(struct reader *r, const struct span *s, score_fn fn, void *ctx, struct err *e)
{
    struct segment seg[WINDOWS_SEQS];
    r->span = *s;
    r->fn = fn;
    r->ctx = ctx;
    if (s->from == 0) TRY(begin_chunks(r, s, e));
    for (r->at = s->from; r->at < s->to;) {
        int64_t rows = next_pass(r, seg);
        TRY(engine_forward(r->en, seg, s->n, on_logits, r, e));
        r->at += rows;
        if (cli_interrupted) return err_set(e, ERR_INTERRUPTED, "interrupted");
    }
    return OK;
}

status reader_score(struct reader *r, const struct span *s, double *nll, struct err *e)
{
    struct segment seg[WINDOWS_SEQS];
    r->span = *s;
    TRY(begin_chunks(r, s, e));
    for (r->at = 0; r->at < s->to;) {
        int64_t rows = next_pass(r, seg), n = 0;
        for (int i = 0; i < s->n; i++)
            for (int64_t k = seg[i].want_from; k < rows; k++) r->target[n++] = seg[i].tokens[k + 1];
        TRY(engine_score(r->en, seg, s->n, r->target, nll, e));
        nll += n;
        r->at += rows;
        if (cli_interrupted) return err_set(e, ERR_INTERRUPTED, "interrupted");
    }
    return OK;
}
