/* sampler - from logits to the next token. Order (the same as llama.cpp's default chain, for the parts offered):
 *   logit bias -> repetition, frequency, presence penalties -> top-k -> top-p -> min-p -> temperature -> draw.
 * temperature <= 0 is greedy: after bias and penalties the highest logit wins, lowest id on a tie.
 * Deterministic: the same seed and logits give the same tokens on every machine (own RNG, Philox 4x32-10, Salmon et al. 2011). One sampler per
 * sequence; not thread-safe. Allocates only in open. */
#pragma once
#include "ggml-like/base.h"

struct kernels;
struct sampler;

struct logit_bias { int32_t id; float bias; };

struct sampler_options {            /* sampler_defaults() fills the documented defaults */
    float temperature;              /* 0.8 */
    int64_t top_k;                  /* 40; <= 0 = all */
    float top_p;                    /* 0.95; >= 1 off */
    float min_p;                    /* 0.05; 0 off */
    float repeat_penalty;           /* 1.0 off; logit > 0 ? / : *  over the last repeat_last tokens */
    float presence_penalty, frequency_penalty; /* 0 off */
    int64_t repeat_last;            /* 64; 0 = off, -1 = whole history that was accepted */
    uint64_t seed;
    const struct logit_bias *bias;  /* [n_bias], copied */
    int64_t n_bias;
};
void sampler_defaults(struct sampler_options *o);

/* sampler_open - ERR_USAGE naming the option, its value and the range (NaN, negative temperature, top_p outside 0..1, bias id >= n_vocab). */
status sampler_open(struct sampler **out, const struct sampler_options *o, int64_t n_vocab, const struct kernels *k, struct err *e) MUST_USE;
void sampler_close(struct sampler *s);

/* sampler_sample - picks from logits [n_vocab] (may be overwritten). NaN counts as -inf; +inf wins; ERR_RUNTIME "no finite logit" otherwise.
 * logits_in_place: penalties change them. */
status sampler_sample(struct sampler *s, float *logits, int32_t *id, struct err *e) MUST_USE;
/* sampler_accept - tells which token was appended (prompt tokens too), for penalties. */
void sampler_accept(struct sampler *s, int32_t id);
void sampler_reset(struct sampler *s); /* forgets history, restarts the random sequence */

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
