/* generate - prompt tokens into a session, then tokens out of it until something ends it. Knows neither templates nor how text is shown.
 * generator_run allocates nothing per token; all buffers are made by generator_open. */
#pragma once
#include "tools/sampling.h"

enum finish { FINISH_STOP, FINISH_LENGTH, FINISH_CONTEXT, FINISH_INTERRUPT, FINISH_CLOSED /* the sink said no */ };
const char *finish_name(enum finish f);

struct generator {
    struct runtime *rt;
    const struct cli *cli;
    struct sampling with;
    uint64_t seed;               /* the one in use, also when it came from the clock; answer number k draws with seed + k */
    int64_t n_vocab, n_answers;
    int32_t *end; int n_end;     /* ids that end a generation */
    float *rows; int64_t n_rows; /* --lookup: logits of the rows of a pass, [n_rows] */
    double row_s, more_s, right; /* --lookup: seconds of a pass of one row, of each further row; share of guesses that were right lately */
    float *raw;                  /* logits before penalties, when probabilities are asked for */
    int32_t *top_id; float *top_logprob;
    char *piece; size_t piece_cap;
    /* Where text and tokens go. text: safe to print (whole characters, no stop text); false ends the run. token: each one, before its text. */
    bool (*text)(void *ctx, const char *p, size_t n);
    void (*token)(void *ctx, const struct generator *g, int32_t id, float logprob);
    void *ctx;
    /* results of the last prefill and run */
    int64_t n_prompt, n_reused, n_generated;
    double prompt_ms, predicted_ms;
    enum finish finish;
    bool stop_hit;               /* a --stop text ended it */
    int64_t n_passes, n_drafted, n_accepted; /* --lookup: passes of the answer; tokens guessed; guesses that were right */
};
/* generator_open - options from c; the session of rt. ERR_USAGE for bad sampling options. */
status generator_open(struct generator *g, struct runtime *rt, const struct cli *c, struct err *e) MUST_USE;
void generator_close(struct generator *g); /* accepts a zeroed one */
/* generator_sampling - opens a new sampler with changed options; the old one stays when they are refused. */
status generator_sampling(struct generator *g, const struct cli *c, struct err *e) MUST_USE;

/* generator_prefill - makes the session hold exactly ids: keeps the common front, feeds the rest behind a progress bar. ERR_USAGE when they do not
 * fit (numbers in the text), ERR_INTERRUPTED; the session stays usable in any case. */
status generator_prefill(struct generator *g, const int32_t *ids, int64_t n, struct err *e) MUST_USE;
/* generator_run - after a prefill. Every token is appended to ids[*n], which must have room for generator_room more. */
status generator_run(struct generator *g, int32_t *ids, int64_t *n, struct err *e) MUST_USE;
/* generator_room - the most tokens a run can give now. */
int64_t generator_room(const struct generator *g);

/* generator_lookup_line - what guessing brought, for -v; false when it is off. */
bool generator_lookup_line(const struct generator *g, char *buf, size_t cap);

/* generator_advice - what to do when a prompt of n_prompt tokens did not fit. */
void generator_advice(const struct generator *g, char *buf, size_t cap);
/* tokens per second, 0 when no time passed */
double per_second(int64_t n, double ms);
