/* sampler_rows - sorting, and the best of a row of logits. Knows no options but sizes. Results depend on the numbers only: of the two kernels used one
 * is exact (max) and the other gives the same bits at all levels (weights), and ties are broken by id. */
#include "src/sampler_int.h"
#include <float.h>
#include <math.h>
#include <string.h>
#include "ggml-like/kernels/kernels.h"

enum {
    CHUNK = SAMPLER_CHUNK,
    DIGIT = SAMPLER_DIGIT,
    INSERTION_MAX = 192,     /* below it insertion sort beats clearing the histograms */
};

static int64_t chunks_of(int64_t n_vocab) { return (n_vocab + CHUNK - 1) / CHUNK; }

/* ---- candidates ---- */

uint64_t key_of(float x, int32_t id)
{
    uint32_t b;
    x += 0.0f; /* -0 ties with +0 */
    memcpy(&b, &x, sizeof b);
    b ^= b >> 31 ? UINT32_MAX : 0x80000000u;
    return (uint64_t)b << 32 | (uint32_t)~id;
}

float key_logit(uint64_t key)
{
    uint32_t b = (uint32_t)(key >> 32);
    b ^= b >> 31 ? 0x80000000u : UINT32_MAX;
    float x;
    memcpy(&x, &b, sizeof x);
    return x;
}

int32_t key_id(uint64_t key) { return (int32_t)~(uint32_t)key; }

static void sort_insertion(uint64_t *key, int64_t n)
{
    for (int64_t i = 1; i < n; i++) {
        uint64_t x = key[i];
        int64_t j = i;
        for (; j > 0 && key[j - 1] < x; j--) key[j] = key[j - 1];
        key[j] = x;
    }
}

/* A stable radix sort of the high words is enough. */
void sort_keys(struct sampler *s, int64_t n)
{
    if (n <= INSERTION_MAX) {
        sort_insertion(s->key, n);
        return;
    }
    memset(s->digits, 0, 3 * sizeof *s->digits);
    for (int64_t i = 0; i < n; i++)
        for (int d = 0; d < 3; d++) s->digits[d][s->key[i] >> (32 + 11 * d) & (DIGIT - 1)]++;
    for (int d = 0; d < 3; d++) {
        uint32_t *first = s->digits[d], at = 0;
        for (int b = DIGIT - 1; b >= 0; b--) {
            uint32_t here = first[b];
            first[b] = at;
            at += here;
        }
        for (int64_t i = 0; i < n; i++) s->spare[first[s->key[i] >> (32 + 11 * d) & (DIGIT - 1)]++] = s->key[i];
        uint64_t *t = s->key;
        s->key = s->spare;
        s->spare = t;
    }
}

void find_peaks(struct sampler *s, const float *x)
{
    for (int64_t c = 0; c < chunks_of(s->n_vocab); c++)
        s->peak[c] = s->k->max(x + c * CHUNK, min_i64(CHUNK, s->n_vocab - c * CHUNK), NULL);
}

/* The n-th largest peak bounds the n-th largest logit from below (each of n chunks has a logit at least that large), so only about n chunks are
 * looked at again. */
int64_t select_best(struct sampler *s, const float *x, int64_t n, float floor)
{
    int64_t n_chunks = chunks_of(s->n_vocab), m = 0;
    floor = floor > -FLT_MAX ? floor : -FLT_MAX; /* leaves -inf out; comparisons leave NaN out */
    if (n < n_chunks) {
        for (int64_t c = 0; c < n_chunks; c++) s->key[c] = key_of(s->peak[c], (int32_t)c);
        sort_keys(s, n_chunks);
        float bound = key_logit(s->key[n - 1]);
        floor = bound > floor ? bound : floor;
    }
    for (int64_t c = 0; c < n_chunks; c++) {
        if (!(s->peak[c] >= floor)) continue;
        int64_t end = min_i64((c + 1) * CHUNK, s->n_vocab);
        for (int64_t i = c * CHUNK; i < end; i++)
            if (x[i] >= floor) s->key[m++] = key_of(x[i], (int32_t)i);
    }
    sort_keys(s, m);
    return min_i64(m, n);
}

double weigh(struct sampler *s, const uint64_t *keys, int64_t n, float max, float t)
{
    for (int64_t i = 0; i < n; i++) s->weight[i] = key_logit(keys[i]);
    return s->k->weights(s->weight, s->weight, n, max, t);
}

void row_list(struct sampler *s, struct row *r, int64_t n)
{
    if (!r->peaked) find_peaks(s, r->x);
    r->n = select_best(s, r->x, min_i64(n, s->n_vocab), r->floor);
    uint64_t *t = s->list;
    s->list = s->key;
    s->key = t;
    r->peaked = r->listed = true;
}

void row_settle(struct sampler *s, struct row *r)
{
    if (r->floor == -INFINITY) return;
    for (int64_t i = 0; i < s->n_vocab; i++)
        if (!(r->x[i] >= r->floor)) r->x[i] = -INFINITY;
    r->floor = -INFINITY;
    r->peaked = false;
}

void row_changed(struct sampler *s, struct row *r)
{
    find_peaks(s, r->x);
    r->peaked = true;
    r->max = s->k->max(s->peak, chunks_of(s->n_vocab), NULL);
}
