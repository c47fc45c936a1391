/* trial - what formats would do to a tensor, without writing anything: the error of a sample of its rows for the allocator, and all of its rows as bytes
 * for measuring in the running model. Both are made by the search. Knows ggml-like/ and the parts of quant/ that see rows. */
#pragma once
#include "ggml-like/pool.h"
#include "quant/importance.h"
#include "quant/quantizer.h"

/* Weights of a sample: enough that errors are within 1 to 2 % of those of all rows. */
enum { TRIAL_WEIGHTS = 1 << 15 };

struct trial_tools {
    const struct quant_kernels *qk;
    struct pool *pool;
    const struct importance *importance; /* or NULL */
};
/* trial_errors - rows spread over all matrices of each tensor, in each of the formats id[0 .. n_ids) whose blocks fit its rows:
 * error[i * n_ids + k] = sum w (x - y)^2 / sum w x^2, rounded to f32; NaN where a format does not fit. 0 for a tensor of zeros.
 * ERR_FORMAT for values that are not finite. progress (or NULL): calling thread, tensors done; false stops with ERR_INTERRUPTED. */
status trial_errors(const struct trial_tools *t, const struct tensor *const *tensor, int64_t n, const int *id, int n_ids, float *error,
                    bool (*progress)(void *ctx, int64_t done), void *ctx, struct err *e) MUST_USE;
/* trial_bytes - all rows of one tensor in a format that fits: dst [rows][dtype_row_bytes]. */
status trial_bytes(const struct trial_tools *t, const struct tensor *tensor, const struct dtype *to, void *dst, struct err *e) MUST_USE;
bool trial_fits(const struct quant_kernels *k, int id, int64_t cols);
