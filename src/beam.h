/* beam - beam search: the continuations with the highest probability, kept n at a time. The rules are those of transformers' generate(num_beams), so
 * that tokens and scores agree: candidates are the best (1 + n_end) * n_beams of all beams; those that end among the first n_beams are finished with
 * score = sum of log probabilities / length ^ length_penalty, the n_beams best that do not end go on. Logits are taken as the model gives them. */
#pragma once
#include "src/engine.h"

enum { BEAMS_MAX = 16 };
/* When the search is over, beside max_tokens: AUTO, once n_beams are finished and the best running beam, at its present length, is no better than the
 * worst of them; FIRST, once n_beams are finished; NEVER, as AUTO, but judged by the most favourable length it could reach. */
enum beam_stop { BEAM_STOP_AUTO, BEAM_STOP_FIRST, BEAM_STOP_NEVER };

struct beam_options {
    int n_beams;                              /* 1 to BEAMS_MAX */
    int64_t max_tokens;                       /* of an answer, at least 1 */
    float length_penalty;
    enum beam_stop stop;
    const int32_t *end; int n_end;            /* tokens that end an answer; they count as one of its tokens */
    bool (*progress)(void *ctx, int64_t n);   /* after each pass, n tokens per beam; false stops (ERR_INTERRUPTED). May be NULL */
    void *ctx;
};
struct beam_answer {
    int32_t *token; /* [n], an end token included */
    int64_t n;
    double score;
};
struct beam_result {
    struct beam_answer answer[BEAMS_MAX]; /* [n] best first */
    int n;
    int64_t n_passes;
};
/* beam_search - from the end of session s, whose last row's logits are `logits` [n_vocab] (engine_logits); s itself stays as it is. Opens n_beams sessions
 * of its own, which share s's rows by copying them once. ERR_USAGE for options out of range or a context (training length aside) that cannot
 * hold max_tokens more, ERR_MEMORY. */
status beam_search(struct session *s, const float *logits, const struct beam_options *o, struct beam_result *r, struct err *e) MUST_USE;
void beam_free(struct beam_result *r); /* accepts a zeroed one */
