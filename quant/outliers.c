/* outliers - see outliers.h. */
#include "quant/outliers.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

void outliers_top(const float *x, int64_t n_rows, int64_t n, float *top)
{
    for (int64_t r = 0; r < n_rows; r++, x += n)
        for (int64_t j = 0; j < n; j++) top[j] = fabsf(x[j]) > top[j] ? fabsf(x[j]) : top[j];
}

static int rising(const void *a, const void *b)
{
    const float *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

/* Raises score to v / (v of the middle column); a middle of zero says nothing. */
static void rate(float *score, const float *v, int64_t n, bool squared, float *sorted)
{
    for (int64_t j = 0; j < n; j++) sorted[j] = squared ? sqrtf(v[j]) : v[j];
    qsort(sorted, (size_t)n, sizeof *sorted, rising);
    float middle = sorted[n / 2];
    for (int64_t j = 0; middle > 0 && j < n; j++) {
        float s = (squared ? sqrtf(v[j]) : v[j]) / middle;
        if (s > score[j]) score[j] = s;
    }
}

int64_t outliers_find(const float *importance, const float *top, int64_t n, float threshold, int32_t *index, float *scratch)
{
    float *score = scratch, *sorted = scratch + n;
    int64_t limit = n / OUTLIER_SHARE, count = 0;
    if (n == 0) return 0;
    memset(score, 0, (size_t)n * sizeof *score);
    if (importance) rate(score, importance, n, true, sorted);
    if (top) rate(score, top, n, false, sorted);
    memcpy(sorted, score, (size_t)n * sizeof *score);
    qsort(sorted, (size_t)n, sizeof *sorted, rising);
    float cut = sorted[n - 1 - limit] > threshold ? sorted[n - 1 - limit] : threshold; /* at most `limit` scores lie above it */
    for (int64_t j = 0; j < n; j++)
        if (score[j] > cut) index[count++] = (int32_t)j;
    return count;
}

void outliers_take(float *x, int64_t n_rows, int64_t n, const int32_t *index, int64_t n_index, float *part)
{
    for (int64_t r = 0; r < n_rows; r++, x += n)
        for (int64_t j = 0; j < n_index; j++) {
            *part++ = x[index[j]];
            x[index[j]] = 0.0f;
        }
}
