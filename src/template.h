/* template - a Jinja subset that renders the chat templates shipped inside models. Data only: no host objects, files or imports.
 * Compiled once, rendered many times; limits make every render terminate. The list of constructs is in src/README.md.
 * Source: Jinja2 documentation; Hugging Face chat-template conventions (trim_blocks, lstrip_blocks on). */
#pragma once
#include "ggml-like/json.h"

struct template;

/* template_parse - ERR_FORMAT: "template line 12: unknown filter 'frobnicate'" (syntax errors and unknown filters, tests, functions and
 * statements are found here, not while rendering). name stands in messages. */
status template_parse(struct template **out, const char *src, size_t n, const char *name, struct err *e) MUST_USE;
void template_close(struct template *t); /* accepts NULL */

/* Limits of one render; exceeding one is ERR_RUNTIME naming limit and line. */
enum { TEMPLATE_STEPS = 1000000, TEMPLATE_OUTPUT = 8 << 20, TEMPLATE_HEAP = 32 << 20, TEMPLATE_DEPTH = 128, TEMPLATE_RANGE = 100000 };

/* template_render - variables come as one JSON object {"messages": [...], "add_generation_prompt": true, "bos_token": "..", ...}.
 * *out from mem_alloc, NUL-terminated, *n bytes; the caller frees it. raise_exception(msg) is ERR_USAGE with msg.
 * now = seconds since 1970, for strftime_now (UTC). Thread-safe on one parsed template. */
status template_render(const struct template *t, const struct json *vars, int64_t now, char **out, size_t *n, struct err *e) MUST_USE;
/* template_render_blocks - the same with a byte TEMPLATE_OPEN before and TEMPLATE_CLOSE behind what each {% generation %} block prints: the text
 * that its author calls the assistant's. A template whose filters look at that text may print something else then: compare without these bytes. */
enum { TEMPLATE_OPEN = 3, TEMPLATE_CLOSE = 4 };
status template_render_blocks(const struct template *t, const struct json *vars, int64_t now, char **out, size_t *n, struct err *e) MUST_USE;
