/* optim - AdamW on flat arrays, clipping, learning rates over time. The same bits for any number of threads. */
#pragma once
#include "ggml-like/base.h"
#include "ggml-like/pool.h"

/* Source: Loshchilov & Hutter 2019, in the order of operations of torch.optim.AdamW:
 *   w *= 1 - lr * decay;  m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;  w -= lr / (1 - b1^step) * m / (sqrt(v / (1 - b2^step)) + eps) */
struct adamw {
    float lr, beta1, beta2, eps, decay;
};
/* adamw_step - elements 0 .. n - 1 with gradient g * factor (clipping); step counts from 1. */
void adamw_step(struct pool *pool, const struct adamw *o, int64_t step, float factor, float *w, const float *g, float *m, float *v, int64_t n);

/* grad_norm - sqrt(sum g^2), in double. Not finite when an element is not. */
double grad_norm(struct pool *pool, const float *g, int64_t n);

enum schedule_kind { SCHEDULE_COSINE, SCHEDULE_LINEAR, SCHEDULE_CONSTANT, SCHEDULE_KINDS };
const char *schedule_name(enum schedule_kind k);
/* Rises from 0 over `warmup` steps, then falls to `floor` times the rate at step `steps`: as half a cosine, as a line, or not at all. */
struct schedule {
    enum schedule_kind kind;
    int64_t steps, warmup;
    float lr, floor;
};
float schedule_rate(const struct schedule *s, int64_t step); /* of step 1 .. steps */
