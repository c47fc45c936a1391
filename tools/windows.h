/* windows - a text cut into chunks by the rules of ppl.h, and models that read the chunks: several at once where a pass has room.
 * perplexity reads with one model, compare with several in lock-step. Knows nothing of what is done with the logits. */
#pragma once
#include "tools/cli.h"

enum { WINDOWS_CTX = 512, WINDOWS_SEQS = 16 };

struct windows {
    int64_t n_ctx, n_chunks;
    int64_t first, n_scored; /* see ppl_first, ppl_scored: per chunk */
    int32_t *tokens;         /* [n_tokens] as tokenised; owned */
    int64_t n_tokens;
    int32_t bos;             /* put at the start of each chunk, -1 = the chunk keeps its own */
};
/* windows_text - the bytes of -f FILE without one newline at the end, as llama-perplexity drops it. The caller frees *text. */
status windows_text(const struct cli *c, char **text, size_t *n, struct err *e) MUST_USE;
/* windows_open - tokenises; at most max_chunks chunks (<= 0: all). ERR_USAGE when the text is too short. */
status windows_open(struct windows *w, const struct tokenizer *t, const char *text, size_t n, int64_t n_ctx, int64_t max_chunks, struct err *e) MUST_USE;
void windows_close(struct windows *w); /* accepts a zeroed struct */

/* windows_encode - the ids of a text, BOS as the file says. The caller frees *ids. */
status windows_encode(const struct tokenizer *t, const char *text, size_t n, int32_t **ids, int64_t *n_ids, struct err *e) MUST_USE;

/* Positions from .. to - 1 of the chunks chunk .. chunk + n - 1. The last token of a chunk is only a target: to <= n_ctx - 1. */
struct span { int64_t chunk, from, to; int n; };
/* One scored row: target i of its chunk and the logits before it, valid during the call. Pool threads, several rows at once. */
typedef void (*score_fn)(void *ctx, int64_t chunk, int64_t i, int32_t target, const float *logits);

/* One model reading chunks. */
struct reader {
    struct engine *en;
    const struct windows *w;
    struct session *session[WINDOWS_SEQS]; /* [0] is the caller's */
    int n_seq;                             /* chunks at once */
    int32_t *chunk_tokens;                 /* [n_seq][n_ctx] with BOS in place */
    int32_t *target;                       /* [n_seq][n_ctx] of one pass of reader_score */
    score_fn fn;
    void *ctx;
    struct span span;
    int64_t at; /* position of row 0 of the pass in its chunk */
};
/* reader_seqs - how many whole chunks one pass of this engine takes, at least 1 and at most WINDOWS_SEQS. */
int reader_seqs(const struct engine *en, const struct windows *w);
/* reader_open - r->session[0] belongs to the caller and has n_ctx positions; the others are opened with its KV type. */
status reader_open(struct reader *r, struct runtime *rt, const struct cli *c, const struct windows *w, int n_seq, struct err *e) MUST_USE;
void reader_close(struct reader *r); /* accepts a zeroed struct */
/* reader_run - feeds a span, in passes as large as the engine takes, and gives every scored row to fn. A chunk is read from 0 on, without gaps;
 * with several chunks a span holds them whole. ERR_INTERRUPTED between passes. */
status reader_run(struct reader *r, const struct span *s, score_fn fn, void *ctx, struct err *e) MUST_USE;
/* reader_score - whole chunks (from 0 to n_ctx - 1) through engine_score: nll [s->n][n_scored]. For engines that engine_can_score. */
status reader_score(struct reader *r, const struct span *s, double *nll, struct err *e) MUST_USE;
