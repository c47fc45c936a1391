/* kld - see kld.h. */
#include "tools/kld.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "ggml-like/kernels/kernels.h"

const double kld_points[KLD_POINTS] = { 0, 0.001, 0.01, 0.05, 0.1, 0.5, 0.9, 0.95, 0.99, 0.999, 1 };
const double dp_points[DP_POINTS] = { 0, 0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1 };

enum { BLOCK = 1024 };      /* two scratch blocks of 4 KiB stay in the first cache */
#define FLOOR (-16.0f)      /* ln p in a file counts above it */
#define NOTHING (-1000.0f)  /* stands for ln p where exp is to give 0 */

/* ---- one token ---- */

void kld_ref_logits(const struct kernels *k, struct kld_ref *r, int64_t n_vocab, int32_t target)
{
    r->max = k->max(r->logits, n_vocab, &r->top);
    r->log_z = (double)r->max + log(k->exp_sum(NULL, r->logits, r->max, n_vocab));
    r->mass = 1;
    r->nll = r->log_z - (double)r->logits[target];
}

bool kld_ref_codes(const struct kernels *k, struct kld_ref *r, const uint16_t *row, int64_t n_vocab, int32_t target)
{
    float head[2];
    memcpy(head, row, sizeof head);
    row += 4; /* the two floats */
    if (!(head[0] >= 0 && head[0] <= 1 && fabsf(head[1]) < 1e6f)) return false;
    r->nll = -(double)(head[0] * (float)row[target] + head[1]);
    for (int64_t i = 0; i < n_vocab; i++) {
        float lp = head[0] * (float)row[i] + head[1];
        r->logits[i] = lp > FLOOR ? lp : NOTHING;
    }
    r->max = k->max(r->logits, n_vocab, &r->top);
    r->log_z = 0;
    if (r->max == NOTHING) return false;
    r->mass = k->exp_sum(NULL, r->logits, r->max, n_vocab) * exp((double)r->max);
    /* a code is off by half a step of 16 / 65535 at most, what was left out had e^-16 at most */
    return r->mass < 1.001 && r->mass > 0.999 - (double)n_vocab * exp((double)FLOOR);
}

/* sum_i exp(p_i - max) (p_i - q_i). The terms exp are computed anew for each candidate: keeping them would double the memory of the reference and
 * reading them back takes as long as computing them. Differences before products: logits of 20 would cost the last digits of a small KL. */
static double weighted_difference(const struct kernels *k, const struct kld_ref *r, const float *q, int64_t n)
{
    float term[BLOCK], diff[BLOCK];
    double sum = 0;
    for (int64_t i = 0; i < n; i += BLOCK) {
        int64_t m = min_i64(BLOCK, n - i);
        k->exp_sum(term, r->logits + i, r->max, m);
        memcpy(diff, r->logits + i, (size_t)m * sizeof *diff);
        k->axpy(diff, q + i, -1, m);
        sum += (double)k->dot(term, diff, m);
    }
    return sum;
}

void kld_token(const struct kernels *k, const struct kld_ref *r, const float *logits, int64_t n_vocab, int32_t target, struct kld_token *out)
{
    int64_t top;
    float max = k->max(logits, n_vocab, &top);
    double log_z = (double)max + log(k->exp_sum(NULL, logits, max, n_vocab));
    out->nll = log_z - (double)logits[target];
    out->kld = weighted_difference(k, r, logits, n_vocab) * exp((double)r->max - r->log_z) + r->mass * (log_z - r->log_z);
    out->dp = (float)(exp(-out->nll) - exp(-r->nll));
    out->same_top = top == r->top;
}

/* ---- many ---- */

double percentile(const float *sorted, int64_t n, double fraction)
{
    double at = fraction * (double)(n - 1);
    int64_t i = (int64_t)at;
    if (i >= n - 1) return (double)sorted[n - 1];
    return (1 - (at - (double)i)) * (double)sorted[i] + (at - (double)i) * (double)sorted[i + 1];
}

/* Mean and its standard error from sums of x and x^2. */
static struct estimate mean_of_sums(double sum, double sum2, int64_t n)
{
    struct estimate r = { sum / (double)n, 0 };
    double var = sum2 / (double)n - r.value * r.value;
    if (var > 0 && n > 10) r.error = sqrt(var / (double)(n - 1));
    return r;
}

static int by_value(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void points(float *x, int64_t n, const double *fraction, int n_points, double *out)
{
    qsort(x, (size_t)n, sizeof *x, by_value);
    for (int i = 0; i < n_points; i++) out[i] = percentile(x, n, fraction[i]);
}

static double error_by_chunks(const struct kld_token *t, int64_t n, int64_t n_scored)
{
    double sum = 0, sum2 = 0;
    int64_t chunks = n / n_scored;
    for (int64_t c = 0; c < chunks; c++) {
        double mean = 0;
        for (int64_t i = 0; i < n_scored; i++) mean += t[c * n_scored + i].kld;
        mean /= (double)n_scored;
        sum += mean, sum2 += mean * mean;
    }
    double mean = chunks ? sum / (double)chunks : 0, var = chunks ? sum2 / (double)chunks - mean * mean : 0;
    return chunks < 2 ? NAN : var > 0 ? sqrt(var / (double)(chunks - 1)) : 0; /* one chunk says nothing about others */
}

/* The two perplexities and what follows from pairing their tokens. cov: of the two means. */
static void ppl_stats(struct kld_stats *s, struct estimate q, struct estimate p, double cov)
{
    double var = q.error * q.error + p.error * p.error - 2 * cov;
    s->ppl = (struct estimate){ exp(q.value), exp(q.value) * q.error };
    s->ppl_ref = (struct estimate){ exp(p.value), exp(p.value) * p.error };
    s->ln_ratio = (struct estimate){ q.value - p.value, var > 0 ? sqrt(var) : 0 };
    s->ratio = (struct estimate){ exp(s->ln_ratio.value), exp(s->ln_ratio.value) * s->ln_ratio.error };
    var = s->ppl.error * s->ppl.error + s->ppl_ref.error * s->ppl_ref.error - 2 * s->ppl.value * s->ppl_ref.value * cov;
    s->dppl = (struct estimate){ s->ppl.value - s->ppl_ref.value, var > 0 ? sqrt(var) : 0 };
    s->cor = q.error > 0 && p.error > 0 ? cov / (q.error * p.error) : 0;
}

static void sum_up(struct kld_stats *s, const struct kld_token *t, const double *nll_ref, int64_t n)
{
    double q = 0, q2 = 0, p = 0, p2 = 0, pq = 0, kl = 0, kl2 = 0, d = 0, d2 = 0, d4 = 0;
    int64_t same = 0;
    for (int64_t i = 0; i < n; i++) {
        double a = t[i].nll, b = nll_ref[i], c = t[i].kld, x = (double)t[i].dp;
        q += a, q2 += a * a, p += b, p2 += b * b, pq += a * b, kl += c, kl2 += c * c, d += x, d2 += x * x, d4 += x * x * x * x;
        same += t[i].same_top;
    }
    double m = (double)n, share = (double)same / m;
    ppl_stats(s, mean_of_sums(q, q2, n), mean_of_sums(p, p2, n), n > 10 ? (pq / m - q / m * (p / m)) / (m - 1) : 0);
    s->kld = mean_of_sums(kl, kl2, n);
    s->dp = mean_of_sums(d, d2, n);
    struct estimate mse = mean_of_sums(d2, d4, n);
    s->rms_dp.value = sqrt(mse.value);
    s->rms_dp.error = mse.value > 0 ? 0.5 / s->rms_dp.value * mse.error : 0;
    s->top1 = (struct estimate){ share, n > 1 ? sqrt(share * (1 - share) / (m - 1)) : 0 };
}

status kld_summary(const struct kld_token *t, const double *nll_ref, int64_t n, int64_t n_scored, struct kld_stats *s, struct err *e)
{
    *s = (struct kld_stats){ .n = n };
    float *x = mem_calloc((size_t)n, sizeof *x);
    if (!x) return err_oom(e, "percentiles", (size_t)n * sizeof *x);
    sum_up(s, t, nll_ref, n);
    s->kld_error_chunks = error_by_chunks(t, n, n_scored);
    for (int64_t i = 0; i < n; i++) x[i] = (float)t[i].kld;
    points(x, n, kld_points, KLD_POINTS, s->kld_at);
    for (int64_t i = 0; i < n; i++) x[i] = t[i].dp;
    points(x, n, dp_points, DP_POINTS, s->dp_at);
    mem_free(x);
    return OK;
}
