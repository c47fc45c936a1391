/* quant_measure - KL divergence of a model whose weights are exchanged, from itself, on a few windows of text: what one tensor in a coarse format costs, or
 * all of them as an allocation has them. The model runs layer by layer (src/layers.h) in precise arithmetic; what stands before the exchanged layer is
 * computed once. Nothing is written. */
#pragma once
#include "quant/trial.h"
#include "src/cuanto.h"
#include "tools/cli.h"

enum { MEASURE_CTX = 256, MEASURE_FROM = 16 /* first token that is scored: before it there is little to go by */ };

struct meter {
    const struct model *model;
    struct layers *layers;
    int64_t n_windows, n_ctx, n_rows, n_vocab, n_embd, n_layer;
    float *x, *y;            /* [n_rows][n_embd] states of the model as it is; of the exchanged one */
    int il;                  /* part that x stands before */
    uint16_t *ref;           /* [n_windows * (n_ctx - MEASURE_FROM)][n_vocab] its logits less their maximum, half floats: they are the reference, rounded */
    int32_t *tokens;         /* [n_rows] */
    double *kl;              /* [n_windows * (n_ctx - MEASURE_FROM)] */
    size_t state_bytes, ref_bytes;
};
/* meter_open - the model stays the caller's. tokens [n_windows][n_ctx]. Runs it once. ERR_INTERRUPTED. */
status meter_open(struct meter *m, const struct model *model, const struct cli *c, const int32_t *tokens, int64_t n_windows, int64_t n_ctx, struct err *e)
    MUST_USE;
void meter_close(struct meter *m); /* accepts a zeroed one */
size_t meter_bytes(const struct model *model, int64_t n_windows, int64_t n_ctx); /* of states and logits */
/* meter_windows - how many windows of MEASURE_CTX tokens the logits of a reference may take memory for, n at most. */
int64_t meter_windows(const struct model *model, int64_t n);

/* meter_start - x becomes what layer 0 reads, il 0. meter_step - x passes part il.
 * meter_tail - mean KL when the weights as they are now are used from part il on (il = LAYERS_EMBED: from the tokens on). */
status meter_start(struct meter *m, struct err *e) MUST_USE;
status meter_step(struct meter *m, struct err *e) MUST_USE;
status meter_tail(struct meter *m, int il, double *kl, struct err *e) MUST_USE;

/* meter_model - mean KL of another file's model from this one, on the same windows. ERR_USAGE when its vocabulary has another size. */
status meter_model(struct meter *m, const struct model *other, const struct cli *c, double *kl, struct err *e) MUST_USE;
/* meter_types - mean KL when every tensor that `type_of` gives a format is in it, made by the search. One part's weights are in memory at a time. */
status meter_types(struct meter *m, const struct trial_tools *t, const struct dtype *(*type_of)(void *ctx, const char *name), void *ctx, double *kl,
                   struct err *e) MUST_USE;

/* part_weights - names of the weights that part il of a model reads: LAYERS_EMBED the token embeddings. At most cap; returns how many, -1 with e set. */
int part_weights(struct layers *l, const struct model *m, int il, const char **name, int cap, struct err *e);
/* exchanged - one weight in another format, in the layers of a meter, until exchange_back. */
struct exchanged { const char *name; uint8_t *bytes; };
status exchange(struct meter *m, const struct trial_tools *t, const char *name, const struct dtype *to, struct exchanged *x, struct err *e) MUST_USE;
void exchange_back(struct meter *m, struct exchanged *x); /* accepts a zeroed one */
