/* observe - what a plan shows of the inputs of its matmuls: for importance matrices, Hessians, ranges of activations. Results are unchanged by it. */
#pragma once
#include "ggml-like/tensor.h"

/* n rows of k columns (f32) that matrix `mat` of w (0, or one of a stack: of experts, of heads) is about to meet. */
struct shown {
    const struct tensor *w; /* name: as in the file */
    int64_t mat, n, k;
    const float *x;
    int64_t stride;         /* floats from a row of x to the next */
    const int32_t *at;      /* which rows of x they are; NULL: 0 .. n - 1 */
    const int32_t *row;     /* which rows of the pass they are, rising; NULL: 0 .. n - 1 */
    int64_t first;          /* number of the pass's row 0 among all rows of the caller */
    int32_t input;          /* weights of one pass with the same number meet the same values (of a stack: their expert's rows, their head's columns of them) */
};

/* Called on every thread of the pool with its number ith of nth (0 is the calling thread): they share the work, or all but one return at once. A
 * matrix is shown all its rows at once; of a stack, each matrix that meets a row, by rising number. */
typedef void (*observe_fn)(void *ctx, const struct shown *s, int ith, int nth);

static inline const float *shown_x(const struct shown *s, int64_t i) { return s->x + (s->at ? s->at[i] : i) * s->stride; }
static inline int64_t shown_row(const struct shown *s, int64_t i) { return s->first + (s->row ? s->row[i] : i); }
