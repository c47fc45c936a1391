/* reference - a forward pass written a second time, in double precision and without any of the library's ops: the independent oracle for tiny
 * models. Slow and plain on purpose. */
#pragma once
#include "src/model_int.h"

/* logits of every position: out [n][n_vocab]. */
void reference_logits(const struct model *m, const int32_t *tokens, int64_t n, double *out);
