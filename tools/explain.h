/* explain - shows what rounding does to a tensor, for people who learn how quantization works: range, histogram, scales with their
 * formulas, a few weights by hand, and the error of every technique side by side. */
#pragma once
#include "quant/quant.h"
#include "tools/cli.h"

/* explain_tensors - every tensor of g whose name matches (POSIX extended, anywhere in the name; "" = the matrices of the middle layer), on
 * stdout. plan: the format that each would get, or NULL. o: the method, importance, SIMD level. ERR_USAGE: a bad expression, or one that
 * matches nothing. */
status explain_tensors(const struct gguf *g, struct quant_plan *plan, const char *regex, const struct quant_options *o, struct err *e) MUST_USE;
