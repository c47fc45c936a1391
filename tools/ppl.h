/* ppl - the arithmetic of perplexity, equal to llama-perplexity's: windows, sums, and its logits file. Knows no model.
 * A text of n_tokens is cut into chunks of n_ctx, the remainder dropped. In each chunk the tokens at positions n_ctx/2 + 1 .. n_ctx - 1 are
 * scored, each from the logits one position before: the first half of a chunk is context only. */
#pragma once
#include "ggml-like/file.h"

struct kernels;

enum { PPL_CTX_MIN = 4 };

/* ppl_chunks - how many chunks are scored; max_chunks <= 0 = all. ERR_USAGE with both numbers when the text has fewer than 2 * n_ctx. */
status ppl_chunks(int64_t n_tokens, int64_t n_ctx, int64_t max_chunks, int64_t *n_chunks, struct err *e) MUST_USE;
static inline int64_t ppl_first(int64_t n_ctx) { return n_ctx / 2; }                 /* row whose logits score the first target */
static inline int64_t ppl_scored(int64_t n_ctx) { return n_ctx - 1 - n_ctx / 2; }    /* targets in a chunk */

/* ppl_nll - -ln softmax(logits)[target]: maximum in f32, terms exp(x - max) in f32, their sum and the logarithm in f64. Not finite for
 * logits that are not. Any thread. */
double ppl_nll(const struct kernels *k, const float *logits, int64_t n_vocab, int32_t target);

struct ppl_sum { int64_t n; double nll, nll2; };
void ppl_add(struct ppl_sum *s, double nll);
double ppl_value(const struct ppl_sum *s);   /* exp(nll / n) */
double ppl_error(const struct ppl_sum *s);   /* value * sqrt((E[nll^2] - E[nll]^2) / (n - 1)); 0 for n < 2 */

/* The file that llama-perplexity --kl-divergence-base reads and writes, little-endian:
 *   "_logits_"  i32 n_ctx  i32 n_vocab  i32 n_chunks  i32 tokens[n_chunks * n_ctx] (as tokenised, before BOS is put in)
 *   then per scored row  f32 scale  f32 min_log_prob  u16 code[n_vocab, padded to an even number]
 * ln p[i] = scale * code[i] + min_log_prob; logits below max - 16 get code 0. */
size_t kld_row_words(int64_t n_vocab);       /* u16 words of one row, header included */
void kld_row(const struct kernels *k, const float *logits, int64_t n_vocab, uint16_t *out);
status kld_write_head(struct file_out *f, int64_t n_ctx, int64_t n_vocab, int64_t n_chunks, const int32_t *tokens, struct err *e) MUST_USE;

/* A logits file opened for reading: sizes and token ids are checked, rows are not. */
struct kld_file {
    struct file file;
    int64_t n_ctx, n_vocab, n_chunks;
    const int32_t *tokens;   /* [n_chunks][n_ctx], each in 0 .. n_vocab - 1 */
    const uint16_t *rows;    /* [n_chunks][n_scored][row_words] */
    size_t row_words;
};
/* kld_file_open - ERR_FILE; ERR_FORMAT names what is wrong: magic, a number out of range, a token id, the size found and the size its head needs. */
status kld_file_open(struct kld_file *f, const char *path, struct err *e) MUST_USE;
void kld_file_close(struct kld_file *f); /* accepts a zeroed struct */
