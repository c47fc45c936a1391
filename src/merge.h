/* merge - what adapters add to the weights of a model, row by row, for whoever writes the sum to a file. Read-only after open; any thread may call. */
#pragma once
#include "src/lora.h"

struct merge;

/* merge_open - model and adapters must stay open. ERR_FORMAT names an adapter of a weight that cannot be changed by itself: an embedding that is the head
 * too; ERR_USAGE when nothing would change. */
status merge_open(struct merge **out, const struct model *m, const struct adapter_use *use, int n, struct err *e) MUST_USE;
void merge_close(struct merge *g); /* accepts NULL */

const bool *merge_has(const struct merge *g); /* [tensors of model_gguf(m)] */
int64_t merge_n(const struct merge *g);       /* how many it has */
/* merge_add - adds to x, rows row .. row + n - 1 of all matrices of this tensor. The sum of a row does not depend on the call. */
void merge_add(const struct merge *g, int64_t tensor, float *x, int64_t row, int64_t n);
/* merge_norm - the root of the sum of squares of all that is added to a tensor. */
double merge_norm(const struct merge *g, int64_t tensor);
