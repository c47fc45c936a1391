/* sampling - what the sampling options of the command line become: a sampler, what it reads, and the filter of stop texts. */
#pragma once
#include "tools/cli.h"

struct sampling {
    struct sampler *sampler;
    struct stop_filter filter;
    struct dry_breakers *breakers; /* NULL unless DRY is on */
    const char *breaker[16]; int n_breaker; /* the texts they come from */
    struct grammar *grammar;       /* these three: NULL unless the answer is constrained */
    struct token_trie *trie;
    struct matcher *matcher;       /* the state of the answer, moved by the sampler */
    const char *source[4]; bool json_mode; /* what the grammar comes from */
};
/* sampling_open - from the options of c, for the model and session of rt. Parts that cost time are taken over from old when they come from the same texts
 * (which must stay where they are); old is left as it was on failure, and for sampling_close in any case. */
status sampling_open(struct sampling *s, struct sampling *old, const struct cli *c, const struct runtime *rt, uint64_t seed, struct err *e) MUST_USE;
void sampling_close(struct sampling *s); /* accepts a zeroed one */
