/* optim - see optim.h. */
#include "src/optim.h"
#include <math.h>

enum { PIECE = 4096 }; /* elements that are summed together whatever the number of threads */

struct adam_job {
    float lr, decay, beta1, beta2, eps, unbias, factor;
    float *w, *m, *v;
    const float *g;
    int64_t n;
};

static void adam_range(void *ctx, int ith, int nth)
{
    const struct adam_job *j = ctx;
    int64_t begin, end;
    pool_range(j->n, PIECE, ith, nth, &begin, &end);
    for (int64_t i = begin; i < end; i++) {
        float g = j->g[i] * j->factor, w = j->w[i] * j->decay;
        float m = j->m[i] = j->beta1 * j->m[i] + (1 - j->beta1) * g, v = j->v[i] = j->beta2 * j->v[i] + (1 - j->beta2) * g * g;
        j->w[i] = w - j->lr * m / (sqrtf(v) * j->unbias + j->eps);
    }
}

void adamw_step(struct pool *pool, const struct adamw *o, int64_t step, float factor, float *w, const float *g, float *m, float *v, int64_t n)
{
    double unbias1 = 1 - pow((double)o->beta1, (double)step), unbias2 = 1 - pow((double)o->beta2, (double)step);
    struct adam_job j = { (float)((double)o->lr / unbias1), 1 - o->lr * o->decay, o->beta1, o->beta2, o->eps, (float)(1 / sqrt(unbias2)), factor,
                          w, m, v, g, n };
    pool_run(pool, adam_range, &j);
}

struct norm_job {
    const float *g;
    double *sum; /* [pieces], added up in order */
    int64_t n;
};

static void norm_range(void *ctx, int ith, int nth)
{
    const struct norm_job *j = ctx;
    int64_t begin, end;
    pool_range((j->n + PIECE - 1) / PIECE, 1, ith, nth, &begin, &end);
    for (int64_t p = begin; p < end; p++) {
        double lane[8] = { 0 };
        int64_t from = p * PIECE, n = min_i64(PIECE, j->n - from), i = 0;
        for (; i + 8 <= n; i += 8)
            for (int k = 0; k < 8; k++) lane[k] += (double)j->g[from + i + k] * (double)j->g[from + i + k];
        for (; i < n; i++) lane[0] += (double)j->g[from + i] * (double)j->g[from + i];
        j->sum[p] = lane[0] + lane[1] + lane[2] + lane[3] + lane[4] + lane[5] + lane[6] + lane[7];
    }
}

double grad_norm(struct pool *pool, const float *g, int64_t n)
{
    enum { GROUP = 512 };
    double all = 0, sum[GROUP];
    for (int64_t from = 0; from < n; from += GROUP * PIECE) {
        struct norm_job j = { g + from, sum, min_i64(GROUP * PIECE, n - from) };
        pool_run(pool, norm_range, &j);
        for (int64_t p = 0; p * PIECE < j.n; p++) all += sum[p];
    }
    return sqrt(all);
}

static const char *const schedules[SCHEDULE_KINDS] = { "cosine", "linear", "constant" };
const char *schedule_name(enum schedule_kind k) { return schedules[k]; }

float schedule_rate(const struct schedule *s, int64_t step)
{
    if (step <= s->warmup) return s->lr * (float)step / (float)s->warmup;
    double at = s->steps > s->warmup ? fmin(1, (double)(step - s->warmup - 1) / (double)(s->steps - s->warmup)) : 0, left = 1;
    if (s->kind == SCHEDULE_COSINE) left = 0.5 * (1 + cos(at * 3.14159265358979323846));
    if (s->kind == SCHEDULE_LINEAR) left = 1 - at;
    return (float)((double)s->lr * ((double)s->floor + (1 - (double)s->floor) * left));
}
