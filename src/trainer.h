/* trainer - gradients of a model's loss: for low-rank adapters on a base of any format that stays as it is (LoRA, Hu et al. 2021; QLoRA, Dettmers et al.
 * 2023), or for all weights of a small model of floats. Whole sequences go through the layers one by one, several in one pass without seeing each
 * other; what the way back needs is kept for as many layers as `memory` has room for, from the last on, and computed again for the others (Chen et
 * al. 2016): to the same bits. What is multiplied forward is what the engine multiplies for the same rows, so an adapter is trained against the
 * arithmetic that it is used with; only attention's keys and values stay floats. The base's weights are multiplied exactly as their format says on the
 * way back, too.
 * The same bits for any number of threads. One caller at a time. Knows no files of samples, no schedule, no optimizer. */
#pragma once
#include "src/model.h"

struct trainer;
struct adapter;

struct trainer_options {
    int n_threads;     /* 0 = cpu_info.n_threads_default */
    const char *isa;   /* as engine_options */
    bool precise;      /* activations in 15 bits forward, F32 backward: for comparisons */
    int64_t n_batch;   /* rows of one pass, 2 .. 65536, which also bounds a sequence; 0 = 512 */
    size_t memory;     /* bytes of activations that are kept between the passes, beyond the input of each layer */
    bool full;         /* all weights, which must be floats, instead of adapters; rank .. dropout are not read */
    bool from_scratch; /* with full: the weights begin as random numbers */
    bool (*pick)(void *ctx, const char *name); /* which matrices get an adapter, by GGUF names; NULL: all of the layers but routers, stacks of experts */
    void *pick_ctx;
    int64_t rank;      /* 1 .. 4096; 0 = 16 */
    float alpha;       /* the product counts alpha / rank times; 0 = 2 * rank */
    bool rslora;       /* alpha / sqrt(rank); Kalajdzievski 2023 */
    float dropout;     /* 0 <= p < 1: of the inputs of adapters */
    uint64_t seed;     /* of the first weights and of dropout */
};

/* trainer_open - for a model that stays open. ERR_USAGE names what cannot be trained: an op without a way back, layers that share state, a quantized matrix
 * with `full`, no matrix picked. */
status trainer_open(struct trainer **out, const struct model *m, const struct trainer_options *o, struct err *e) MUST_USE;
void trainer_close(struct trainer *t); /* accepts NULL */

/* A trained tensor: elements offset .. offset + ne0 * ne1 - 1 of trainer_weights. Of an adapter, a [rank][ne0 of the base] stands right before b. */
struct train_param {
    const char *base;  /* GGUF name of the base's tensor; owned by the model */
    enum { TRAIN_A, TRAIN_B, TRAIN_WHOLE } part;
    int64_t ne0, ne1;  /* columns, rows */
    int64_t offset;
    bool vector;       /* norm or bias: no weight decay */
};
struct train_param_list { const struct train_param *param; int64_t n; };
struct train_param_list trainer_params(const struct trainer *t);
int64_t trainer_n(const struct trainer *t);      /* trained numbers in all */
float *trainer_weights(struct trainer *t);       /* [n], may be changed between calls */
float *trainer_gradients(struct trainer *t);     /* [n], sums since the caller cleared them */
struct pool *trainer_pool(struct trainer *t);
const struct kernels *trainer_kernels(const struct trainer *t);
const struct adapter *trainer_adapter(const struct trainer *t); /* of the weights as they are, for engines of the same model while t is open; NULL with full */
float trainer_alpha(const struct trainer *t);    /* as adapter.lora.alpha states it: the product counts alpha / rank times */
int64_t trainer_rank(const struct trainer *t);
size_t trainer_bytes(const struct trainer *t);   /* memory held, with what passes of n_batch rows will take; without the model */
/* trainer_op_time - name of the i-th kind of op and the time spent in it so far, as thread 0 sees it; false past the last. */
bool trainer_op_time(const struct trainer *t, int i, const char **name, int64_t *ns);
int64_t trainer_kept(const struct trainer *t);   /* layers whose activations are kept in passes of n_batch rows; the others are computed again */

/* A sequence. weight[i] says how much predicting token[i] from those before it counts, 0: not at all; weight[0] is not read. */
struct train_seq {
    const int32_t *token;
    const float *weight;
    int64_t n;
};
/* trainer_forward - nll[i] = sum_t weight[t] * -ln p(token[t] | those before) of sequence i. All n sequences together have at most n_batch tokens.
 * Keeps what trainer_backward needs. ERR_USAGE names a token out of range, too many rows.
 * trainer_backward - adds the gradient of sum_i factor[i] * nll[i] of the last trainer_forward to trainer_gradients.
 * trainer_score - the same without keeping anything, as an engine computes it; base: as if there were no adapter. trainer_refer - as trainer_forward would
 * if there were none: its attention rounds otherwise than that of engines.
 * step numbers the draws of dropout: the same step, the same draws. Without dropout and for trainer_score it does not matter. */
status trainer_forward(struct trainer *t, const struct train_seq *seq, int n, uint64_t step, double *nll, struct err *e) MUST_USE;
status trainer_backward(struct trainer *t, const double *factor, struct err *e) MUST_USE;
status trainer_refer(struct trainer *t, const struct train_seq *seq, int n, double *nll, struct err *e) MUST_USE;
status trainer_score(struct trainer *t, const struct train_seq *seq, int n, bool base, double *nll, struct err *e) MUST_USE;
