/* sampler_int - what the sampler's files share. sampler.c: options, memory, chain, draw. sampler_rows.c: sorting, picking the best
 * of a row. sampler_stages.c: what the chain does to a row. logprobs.c: the best tokens of a row, for reports. */
#pragma once
#include "ggml-like/arena.h"
#include "src/dry.h"
#include "src/sampler.h"

enum {
    SAMPLER_CHUNK = 128,    /* logits that share one entry of peak[] */
    SAMPLER_DIGIT = 1 << 11, /* radix: three digits cover the 32 bits of a logit */
    SAMPLER_STAGES = 16,
};

/* The candidates of one draw. Open: every x[i] >= floor that is more than -inf, in the order of ids. Listed: s->list[0..n), best first. A stage may
 * change x while the row is open; it then keeps max true and forgets the peaks. */
struct row {
    float *x;
    float max, floor;       /* max is the largest logit of a candidate, finite */
    bool peaked;            /* s->peak belongs to x */
    bool listed;
    int64_t n;
    float t;                /* temperature of the draw */
    double u_xtc;
};

struct stage {
    const char *name;
    bool (*on)(const struct sampler_options *o);
    void (*apply)(struct sampler *s, struct row *r);
};
/* Ended by a NULL name. adjust: change logits, before max is known. cut: from there on. */
extern const struct stage stages_adjust[], stages_cut[], stages_mirostat[];

struct sampler {
    struct sampler_options o;
    const struct kernels *k;
    struct arena mem;        /* holds everything below */
    int64_t n_vocab;
    float log_min_p, mu;
    uint64_t n_draws;
    void (*adjust[SAMPLER_STAGES])(struct sampler *, struct row *);
    void (*cut[SAMPLER_STAGES])(struct sampler *, struct row *);
    int n_adjust, n_cut;
    struct logit_bias *bias;
    float *raw;              /* [n_vocab] with a grammar: the logits before the chain */
    /* Candidates as sort keys: logit in the high word (order-preserving), ~id in the low one, so that a larger key is a better token. */
    uint64_t *list, *key, *spare; /* [n_vocab]; key and spare are scratch */
    float *weight;           /* [n_vocab] scratch */
    float *score;            /* [n_vocab] scratch of typical */
    float *peak;             /* [n_chunks] maximum of each chunk */
    double *mass;            /* [n_chunks] sum of exponentials of each chunk */
    uint32_t (*digits)[SAMPLER_DIGIT];
    /* History: ring holds the last repeat_last ids; seen lists the distinct ones, where[id] is the place of id in seen. */
    int32_t *ring, *count, *seen, *where;
    int64_t ring_n, ring_at, n_seen;
    /* DRY: ring of the last dry_last ids; the same in order; how much of the end stands before each place; longest repetition per next token. */
    int32_t *dry_ring, *dry_text, *dry_reach, *dry_touched, *dry_longest;
    int64_t dry_n, dry_at;
};

/* ---- sampler_rows.c ---- */
uint64_t key_of(float x, int32_t id);
float key_logit(uint64_t key);
int32_t key_id(uint64_t key);
void find_peaks(struct sampler *s, const float *x);
/* sort_keys - s->key[0..n) downward. Its keys come in falling order of their low words. */
void sort_keys(struct sampler *s, int64_t n);
/* select_best - keys of the best entries of x, at most n, none below floor, in s->key, sorted. s->peak belongs to x. Returns how many. */
int64_t select_best(struct sampler *s, const float *x, int64_t n, float floor);
/* weigh - s->weight[i] = exp((logit of keys[i] - max) / t), i < n; returns the sum. */
double weigh(struct sampler *s, const uint64_t *keys, int64_t n, float max, float t);
/* row_list - from open to listed: the best n candidates. */
void row_list(struct sampler *s, struct row *r, int64_t n);
/* row_settle - open rows: what is below the floor becomes -inf, and the floor -inf. */
void row_settle(struct sampler *s, struct row *r);
/* row_changed - open rows: max and peaks anew. */
void row_changed(struct sampler *s, struct row *r);
