/* json - a small strict reader (RFC 8259) into an arena, and a writer that escapes correctly.
 * Reader limits: depth 64, strict UTF-8, duplicate keys refused, no trailing bytes. Iterative: no recursion on input. */
#pragma once
#include "ggml-like/arena.h"

enum json_kind { JSON_NULL, JSON_BOOL, JSON_INT, JSON_FLOAT, JSON_STR, JSON_ARR, JSON_OBJ };
struct json {
    enum json_kind kind;
    struct json *next;      /* sibling in an array or object */
    struct json *child;     /* first item of an array or object */
    int64_t n;              /* items, or bytes of a string */
    const char *key;        /* NUL-terminated (may hold inner NULs: key_n), objects' members only */
    int64_t key_n;
    const char *str;        /* NUL-terminated UTF-8 */
    int64_t i;              /* JSON_INT (numbers without . or e that fit) and JSON_BOOL */
    double f;               /* JSON_INT and JSON_FLOAT */
};
/* json_parse - ERR_FORMAT with line:column and what was expected; ERR_MEMORY. Values live in the arena. */
status json_parse(struct json **out, const char *text, size_t n, struct arena *a, const char *name, struct err *e) MUST_USE;
/* json_parse_python - also takes NaN, Infinity and -Infinity, which Python's json module writes, as JSON_FLOAT. */
status json_parse_python(struct json **out, const char *text, size_t n, struct arena *a, const char *name, struct err *e) MUST_USE;
const struct json *json_get(const struct json *obj, const char *key); /* NULL if absent or not an object */

/* Writer: appends to a growing buffer. Commas and indentation are its business. Failure (memory) is sticky: see json_out_ok. */
struct json_out { char *buf; size_t n, cap; int depth; bool pretty, failed, need_comma; };
void json_out_init(struct json_out *o, bool pretty);
void json_out_free(struct json_out *o);
bool json_out_ok(const struct json_out *o);
void json_begin(struct json_out *o, const char *key, char bracket); /* '{' or '['; key NULL inside arrays and at top level */
void json_end(struct json_out *o, char bracket);                    /* '}' or ']' */
void json_put_str(struct json_out *o, const char *key, const char *s, size_t n); /* invalid UTF-8 becomes U+FFFD */
void json_put_cstr(struct json_out *o, const char *key, const char *s);          /* NULL pointer writes null */
void json_put_i64(struct json_out *o, const char *key, int64_t v);
void json_put_f64(struct json_out *o, const char *key, double v);                /* shortest that reads back to float precision; NaN, inf -> null */
void json_put_real(struct json_out *o, const char *key, double v);               /* the same, never without a point or an exponent */
void json_put_bool(struct json_out *o, const char *key, bool v);
void json_put_null(struct json_out *o, const char *key);
