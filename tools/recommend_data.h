/* recommend_data - what formats cost in quality, measured with `cuanto compare`, and the rule that turns it into an expectation for any mix of any
 * model. Data and arithmetic: no model is opened here.
 *   KL = sensitivity(weights in the layers) * mean over the weights of the layers of cost(format)
 * A mean over the tensors of the plan itself, so that mixes, rows that do not fit a format, and overrides count as what they are. Small errors add up like
 * this: KL is quadratic in them. Head and embeddings do not count: every mix leaves them finer than the layers. */
#pragma once
#include "ggml-like/dtype.h"

/* The mixes worth comparing, by name. */
extern const char *const recommend_types[];
extern const int recommend_type_count;
/* Models that were measured: text for people. */
extern const char *const recommend_models[];
extern const int recommend_model_count;
extern const double recommend_weights_min, recommend_weights_max; /* in the layers of the smallest and the largest of them */
/* Nine of ten measurements lie within this factor of the rule. */
extern const double recommend_factor;

/* recommend_cost - of one weight stored in this format, with importance; 0 for float formats, NaN when it was not measured. */
double recommend_cost(const struct dtype *t);
/* recommend_sensitivity - of a model with n weights in its layers. Beyond the measured sizes that of the nearest: what larger models gain was not measured. */
double recommend_sensitivity(double n);
