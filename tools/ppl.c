/* ppl - see ppl.h. */
#include "tools/ppl.h"
#include <math.h>
#include <string.h>
#include "ggml-like/kernels/kernels.h"

status ppl_chunks(int64_t n_tokens, int64_t n_ctx, int64_t max_chunks, int64_t *n_chunks, struct err *e)
{
    if (n_ctx < PPL_CTX_MIN)
        return err_set(e, ERR_USAGE, "a context of %lld tokens is too short to score, at least %d", (long long)n_ctx, PPL_CTX_MIN);
    if (n_tokens < 2 * n_ctx)
        return err_set(e, ERR_USAGE, "the text has %lld tokens, at least %lld (two contexts of %lld) are needed", (long long)n_tokens,
                       (long long)(2 * n_ctx), (long long)n_ctx);
    int64_t n = n_tokens / n_ctx;
    *n_chunks = max_chunks > 0 ? min_i64(n, max_chunks) : n;
    return OK;
}

double ppl_nll(const struct kernels *k, const float *logits, int64_t n_vocab, int32_t target)
{
    float max = k->max(logits, n_vocab, NULL);
    return (double)max + log(k->exp_sum(NULL, logits, max, n_vocab)) - (double)logits[target];
}

void ppl_add(struct ppl_sum *s, double nll)
{
    s->n++;
    s->nll += nll;
    s->nll2 += nll * nll;
}

double ppl_value(const struct ppl_sum *s) { return exp(s->nll / (double)s->n); }

double ppl_error(const struct ppl_sum *s)
{
    if (s->n < 2) return 0;
    double mean = s->nll / (double)s->n, var = s->nll2 / (double)s->n - mean * mean;
    return var > 0 ? ppl_value(s) * sqrt(var / (double)(s->n - 1)) : 0;
}

size_t kld_row_words(int64_t n_vocab) { return (size_t)(2 * ((n_vocab + 1) / 2) + 4); }

void kld_row(const struct kernels *k, const float *logits, int64_t n_vocab, uint16_t *out)
{
    float max = k->max(logits, n_vocab, NULL), min = max;
    for (int64_t i = 0; i < n_vocab; i++) min = logits[i] < min ? logits[i] : min;
    min = min > max - 16 ? min : max - 16;
    float log_sum = (float)log(k->exp_sum(NULL, logits, max, n_vocab));
    float head[2] = { (max - min) / 65535.0f, min - max - log_sum };
    memcpy(out, head, sizeof head);
    out += 4;
    memset(out + n_vocab, 0, (kld_row_words(n_vocab) - 4 - (size_t)n_vocab) * sizeof *out);
    float inv = head[0] > 0 ? 1 / head[0] : 0;
    for (int64_t i = 0; i < n_vocab; i++) {
        float code = logits[i] > min ? inv * (logits[i] - min) : 0;
        out[i] = (uint16_t)(code < 65535 ? (code + 12582912.0f) - 12582912.0f : 65535); /* half to even, as there; rintf costs a call */
    }
}
