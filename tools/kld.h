/* kld - how far one distribution over the vocabulary is from another, token by token, and the statistics of many tokens. The definitions are those of
 * llama-perplexity --kl-divergence; sums are in double. Pure: no files, no model.
 *   KL(P || Q) = sum_i p_i (ln p_i - ln q_i)   P: reference, Q: candidate, natural logarithm, whole vocabulary */
#pragma once
#include "ggml-like/base.h"

struct kernels;

/* One row of the reference. logits belongs to the caller. ln p[i] = logits[i] - log_z. */
struct kld_ref {
    float *logits;   /* [n_vocab] */
    float max;       /* of logits */
    int64_t top;     /* lowest index that holds max */
    double log_z;    /* logits as computed: ln sum exp; log probabilities of a file: 0 */
    double mass;     /* sum of the probabilities that count: 1; of a file slightly less, see kld_ref_codes */
    double nll;      /* -ln p[target] */
};
/* kld_ref_logits - fills r from r->logits. */
void kld_ref_logits(const struct kernels *k, struct kld_ref *r, int64_t n_vocab, int32_t target);
/* kld_ref_codes - fills r, r->logits included, from a row of a logits file (ppl.h). As in llama-perplexity tokens with ln p <= -16 do not count:
 * the codes cannot tell them apart. False for rows that are no distribution: numbers not finite, or a sum of probabilities that the
 * left-out tokens and the rounding cannot explain. */
bool kld_ref_codes(const struct kernels *k, struct kld_ref *r, const uint16_t *row, int64_t n_vocab, int32_t target) MUST_USE;

/* One scored token of a candidate. */
struct kld_token { double nll, kld; float dp; bool same_top; }; /* dp: change of the target's probability, q - p */
void kld_token(const struct kernels *k, const struct kld_ref *r, const float *logits, int64_t n_vocab, int32_t target, struct kld_token *out);

struct estimate { double value, error; }; /* error: one standard error, tokens taken as independent; 0 for 10 tokens or fewer */
enum { KLD_POINTS = 11, DP_POINTS = 13 };
extern const double kld_points[KLD_POINTS], dp_points[DP_POINTS]; /* fractions, ascending, from 0 (minimum) to 1 (maximum) */

struct kld_stats {
    int64_t n;
    struct estimate ppl, ppl_ref;
    struct estimate ln_ratio, ratio, dppl; /* ln(PPL(Q)/PPL(P)), PPL(Q)/PPL(P), PPL(Q) - PPL(P): tokens paired */
    double cor;                            /* correlation of the two log-likelihoods, -1 .. 1 */
    struct estimate kld;
    double kld_error_chunks;               /* standard error from the means of whole chunks: tokens of a chunk are not independent; 0 for one chunk */
    double kld_at[KLD_POINTS];
    struct estimate dp, rms_dp, top1;      /* shares of 1 */
    double dp_at[DP_POINTS];
};
/* kld_summary - statistics of n tokens in their order, chunks of n_scored. nll_ref [n]. ERR_MEMORY. */
status kld_summary(const struct kld_token *t, const double *nll_ref, int64_t n, int64_t n_scored, struct kld_stats *s, struct err *e) MUST_USE;
/* percentile - of n sorted values, linear between neighbours; fraction in 0 .. 1, n >= 1. */
double percentile(const float *sorted, int64_t n, double fraction);
