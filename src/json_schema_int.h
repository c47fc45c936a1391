/* json_schema_int - what the converter's files share. json_schema.c: gathering keywords, objects, lists, alternatives. json_schema_text.c: text that grows,
 * escapes, ranges of integers and numbers. json_schema_regex.c: patterns. */
#pragma once
#include "ggml-like/arena.h"
#include "src/json_schema.h"

/* Grammar text that grows; failure (memory, 4 MiB) is sticky. */
struct gbnf { char *p; size_t n, cap; bool failed; };
void gbnf_put(struct gbnf *t, const char *fmt, ...) PRINTF_LIKE(2, 3);
void gbnf_put_n(struct gbnf *t, const char *p, size_t n);
/* gbnf_put_json - the JSON spelling of a string, inside a GBNF literal ("\"a\\nb\"" without its outer quotes; `quotes`: with the JSON ones). */
void gbnf_put_json(struct gbnf *t, const char *s, size_t n, bool quotes);
/* gbnf_put_code - one code point of a JSON string inside a GBNF literal. */
void gbnf_put_code(struct gbnf *t, uint32_t c);

/* gbnf_put_integers - an expression for the integers lo..hi. */
void gbnf_put_integers(struct gbnf *t, int64_t lo, int64_t hi);
/* Bounds of numbers; infinite where there is none. */
struct bounds { double lo, hi; bool lo_open, hi_open; };
/* bounds_integers - the whole numbers inside, at most 18 digits; false when there are none. */
bool bounds_integers(const struct bounds *b, int64_t *lo, int64_t *hi);
/* gbnf_put_numbers - an expression for numbers inside; false when this way of writing them finds none. */
bool gbnf_put_numbers(struct gbnf *t, const struct bounds *b);

/* gbnf_put_pattern - an expression for the contents of JSON strings (without quotes) that match the regular expression. ERR_USAGE: what is not supported,
 * with the position in the pattern. `where` stands in front of messages. */
status gbnf_put_pattern(struct gbnf *t, const char *pattern, size_t n, const char *where, struct err *e) MUST_USE;
