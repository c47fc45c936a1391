/* outliers - input columns that are kept in half floats beside an 8-bit matrix, as LLM.int8() does: a few columns meet inputs so large that
 * their rounding errors dominate the output. Sees rows and columns, no files. Source: Dettmers et al. 2022, section 3 (there: inputs with a
 * magnitude of at least 6; here: relative to the middle column, so that it does not depend on a model's scale). */
#pragma once
#include "ggml-like/base.h"

enum { OUTLIER_SHARE = 16 }; /* at most one column in 16 */
/* outliers_top - raises top [n] to the largest |x| of each column; start from zeros. Rows may come in any order and in parts: the same
 * result. */
void outliers_top(const float *x, int64_t n_rows, int64_t n, float *top);
/* outliers_find - columns whose input (root mean square, sqrt of importance [n]) or largest weight (top [n]) is more than threshold times
 * that of the middle column; either may be NULL. index [n / OUTLIER_SHARE + 1] rising; the largest when there are too many. scratch [2 *
 * n]. Returns how many. */
int64_t outliers_find(const float *importance, const float *top, int64_t n, float threshold, int32_t *index, float *scratch);
/* outliers_take - moves the columns out of x [n_rows][n], where zeros stay, into part [n_rows][n_index]. */
void outliers_take(float *x, int64_t n_rows, int64_t n, const int32_t *index, int64_t n_index, float *part);
