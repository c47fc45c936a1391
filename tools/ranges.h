/* ranges - lists of numbers as benchmark options write them. Pure: no I/O, no memory.
 *   list = item { "," item }      item = N | A "-" B | A "-" B "+" STEP | A "-" B "*" FACTOR
 * "512,1024"   "8-32*2" = 8 16 32   "0-4096+1024"   "1-4" = 1 2 3 4 */
#pragma once
#include "ggml-like/base.h"

/* range_parse - at most cap numbers to out, in the order written. ERR_USAGE names `what`, the text and the place: not a number, outside
 * lo..hi, falling ranges, steps that do not advance, more than cap numbers. */
status range_parse(const char *text, const char *what, int64_t lo, int64_t hi, int64_t *out, int cap, int *n, struct err *e) MUST_USE;

/* pair_parse - "512,128" or several joined by ";" : two numbers in lo..hi each. first and second have room for cap. */
status pair_parse(const char *text, const char *what, int64_t lo, int64_t hi, int64_t *first, int64_t *second, int cap, int *n,
                  struct err *e) MUST_USE;
