/* ppl - the arithmetic of perplexity, equal to llama-perplexity's: windows, sums, and one row of its logits file. Pure: no files, no model.
 * A text of n_tokens is cut into chunks of n_ctx, the remainder dropped. In each chunk the tokens at positions n_ctx/2 + 1 .. n_ctx - 1 are
 * scored, each from the logits one position before: the first half of a chunk is context only. */
#pragma once
#include "ggml-like/base.h"

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
