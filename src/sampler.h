/* sampler - from logits to the next token. Order (llama.cpp's default chain):
 *   logit bias -> repetition, frequency, presence penalties -> DRY -> top-n-sigma -> top-k -> typical -> top-p -> min-p -> XTC -> temperature -> draw.
 * Mirostat replaces everything between bias and draw by its own cut at the given temperature.
 * Temperature 0 takes the best of what is left, lowest id on a tie. A token whose logit is -inf or NaN is no candidate at any step.
 * With a grammar (matcher) the drawn token is tested; only if it does not fit, all tokens that do not are forbidden and the chain runs again (llama.cpp's
 * way: most tokens cost one test).
 * Deterministic: the same seed and logits give the same tokens on every machine (own RNG, Philox 4x32-10, Salmon et al. 2011). One sampler per
 * sequence; not thread-safe. Allocates only in open. */
#pragma once
#include "ggml-like/base.h"

struct kernels;
struct sampler;
struct dry_breakers;
struct matcher;

struct logit_bias { int32_t id; float bias; };

struct sampler_options {            /* sampler_defaults() fills the documented defaults */
    float temperature;              /* 0.8 */
    int64_t top_k;                  /* 40; <= 0 = all */
    float top_p;                    /* 0.95; >= 1 off */
    float min_p;                    /* 0.05; 0 off */
    float repeat_penalty;           /* 1.0 off; logit > 0 ? / : *  over the last repeat_last tokens */
    float presence_penalty, frequency_penalty; /* 0 off */
    int64_t repeat_last;            /* 64; 0 = off, -1 = whole history that was accepted */
    float top_n_sigma;              /* -1; <= 0 off; keeps logits >= max - n * standard deviation of the finite ones (Tang et al. 2024) */
    float typical_p;                /* 1 off; the tokens whose surprise is nearest to the entropy, until they sum to more than p (Meister et al. 2022) */
    float xtc_probability;          /* 0 off; how often XTC acts */
    float xtc_threshold;            /* 0.1; > 0.5 off; of the tokens with at least this probability all but the least likely go */
    float dynatemp_range;           /* 0 off; temperature between t - range and t + range, as (entropy / largest entropy)^exponent */
    float dynatemp_exponent;        /* 1 */
    float dry_multiplier;           /* 0 off; - multiplier * base^(length - allowed) for what would prolong a repetition */
    float dry_base;                 /* 1.75; >= 1 */
    int64_t dry_allowed_length;     /* 2 */
    int64_t dry_last;               /* 64 tokens are searched; 0 = off */
    const struct dry_breakers *breakers; /* NULL = none; the caller's, outlives the sampler (dry.h) */
    int64_t mirostat;               /* 0 off, 1, 2 (Basu et al. 2021) */
    float mirostat_tau, mirostat_eta; /* 5 bits of surprise, learning rate 0.1 */
    struct matcher *matcher;        /* NULL = none; the caller's (grammar.h), moved by sampler_accept and sampler_reset, used by this sampler only */
    uint64_t seed;
    const struct logit_bias *bias;  /* [n_bias], copied */
    int64_t n_bias;
};
void sampler_defaults(struct sampler_options *o);

/* sampler_open - ERR_USAGE naming the option, its value and the range (NaN, negative temperature, top_p outside 0..1, bias id >= n_vocab). */
status sampler_open(struct sampler **out, const struct sampler_options *o, int64_t n_vocab, const struct kernels *k, struct err *e) MUST_USE;
void sampler_close(struct sampler *s);

/* sampler_sample - picks from logits [n_vocab] (may be overwritten). NaN counts as -inf; +inf wins; ERR_RUNTIME "no finite logit" otherwise, and with a
 * grammar: when no token that fits has a finite logit, or it cannot be followed further. */
status sampler_sample(struct sampler *s, float *logits, int32_t *id, struct err *e) MUST_USE;
/* sampler_accept - tells which token was generated, for penalties and grammar. sampler_remember - a token of the prompt: for penalties only. */
void sampler_accept(struct sampler *s, int32_t id);
void sampler_remember(struct sampler *s, int32_t id);
void sampler_reset(struct sampler *s); /* forgets history, restarts the random sequence */
/* sampler_distribution - what the next sampler_sample would draw from: ids and probabilities (they sum to 1) in falling order, at most n_vocab of each;
 * sets *n. With a grammar: of the tokens that fit. Same errors and the same use of logits; the random sequence does not move. Sorts everything that is
 * left: for tests and tools. */
status sampler_distribution(struct sampler *s, float *logits, int32_t *ids, float *probs, int64_t *n, struct err *e) MUST_USE;

/* logprobs_top - ln softmax of the given id and of the n best tokens (ties: lowest id first), from raw logits [n_vocab].
 * Writes ids and logprobs in falling order. No allocation; n <= 1000. */
void logprobs_top(const struct kernels *k, const float *logits, int64_t n_vocab, int32_t id, float *logprob, int64_t n, int32_t *top_ids, float *top_logprobs);

/* stop - holds back text that could be the start of a stop string, and incomplete UTF-8, while pieces stream in. */
struct stop_filter {
    const char *const *stops; /* [n_stops] NUL-terminated, non-empty, caller's; n_stops <= 16, each <= 4096 bytes */
    int n_stops;
    char *buf;                /* internal, stop_open allocates */
    size_t n, cap;
    bool hit;
};
status stop_open(struct stop_filter *f, const char *const *stops, int n_stops, struct err *e) MUST_USE;
void stop_close(struct stop_filter *f);
/* stop_push - adds a piece; out, n_out = text that is now safe to print (view, valid until the next call). Returns true once a stop string was found:
 * the text before it has been released, the rest is dropped. */
bool stop_push(struct stop_filter *f, const char *piece, size_t n, const char **out, size_t *n_out);
/* stop_flush - at the end: releases what was held back; incomplete UTF-8 becomes U+FFFD. */
void stop_flush(struct stop_filter *f, const char **out, size_t *n_out);
