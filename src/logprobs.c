/* logprobs - the best tokens of a row of raw logits and their ln softmax. */
#include <assert.h>
#include <math.h>
#include "ggml-like/kernels/kernels.h"
#include "src/sampler_int.h"

enum { CHUNK = SAMPLER_CHUNK };

static bool better(float xa, int32_t a, float xb, int32_t b) { return xa > xb || (xa == xb && a < b); }

/* Puts (x, id) at the root of a heap of n whose root is the worst entry, and lets it sink. */
static void heap_sink(float *logit, int32_t *ids, int64_t n, float x, int32_t id)
{
    int64_t i = 0;
    for (;;) {
        int64_t child = 2 * i + 1;
        if (child >= n) break;
        if (child + 1 < n && better(logit[child], ids[child], logit[child + 1], ids[child + 1])) child++;
        if (!better(x, id, logit[child], ids[child])) break;
        logit[i] = logit[child];
        ids[i] = ids[child];
        i = child;
    }
    logit[i] = x;
    ids[i] = id;
}

/* The caller's arrays are the heap, so that no buffer is needed. NaN counts as -inf. */
static void top_ids_of(const struct kernels *k, const float *logits, int64_t n_vocab, int64_t n, int32_t *ids, float *best)
{
    if (n == 0) return;
    for (int64_t i = 0; i < n; i++) best[i] = -INFINITY, ids[i] = INT32_MAX;
    for (int64_t c = 0; c < n_vocab; c += CHUNK) {
        int64_t end = min_i64(c + CHUNK, n_vocab);
        if (ids[0] != INT32_MAX && !(k->max(logits + c, end - c, NULL) > best[0])) continue; /* an equal logit with a higher id loses */
        for (int64_t i = c; i < end; i++) {
            float x = isnan(logits[i]) ? -INFINITY : logits[i];
            if (better(x, (int32_t)i, best[0], ids[0])) heap_sink(best, ids, n, x, (int32_t)i);
        }
    }
    for (int64_t m = n - 1; m > 0; m--) { /* heap to falling order */
        float x = best[m];
        int32_t id = ids[m];
        best[m] = best[0];
        ids[m] = ids[0];
        heap_sink(best, ids, m, x, id);
    }
}

/* NaN and -inf have no probability; +inf has all of it. */
static float logprob_of(float x, double log_sum)
{
    if (!(x > -INFINITY)) return -INFINITY;
    return x == INFINITY ? 0 : (float)((double)x - log_sum);
}

void logprobs_top(const struct kernels *k, const float *logits, int64_t n_vocab, int32_t id, float *logprob, int64_t n, int32_t *top_ids,
                  float *top_logprobs)
{
    assert(n >= 0 && n <= 1000 && id >= 0 && id < n_vocab);
    float max = k->max(logits, n_vocab, NULL);
    double log_sum;
    if (isfinite(max)) {
        double sum = k->exp_sum(NULL, logits, max, n_vocab);
        if (!isfinite(sum)) sum = k->weights(NULL, logits, n_vocab, max, 1); /* NaN among them: this one leaves them out */
        log_sum = (double)max + log(sum);
    } else {
        log_sum = max; /* +inf: below, the infinite ones get 0 and the others -inf; -inf: all get -inf */
    }
    int64_t m = min_i64(n, n_vocab);
    top_ids_of(k, logits, n_vocab, m, top_ids, top_logprobs);
    for (int64_t i = 0; i < m; i++) top_logprobs[i] = logprob_of(top_logprobs[i], log_sum);
    for (int64_t i = m; i < n; i++) top_ids[i] = -1, top_logprobs[i] = -INFINITY;
    if (logprob) *logprob = logprob_of(logits[id], log_sum);
}
