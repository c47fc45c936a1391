/* chat - messages to prompt text through a model's template, and a table of well-known templates by name.
 * Owns the conversation (roles and texts), knows nothing of tokens and sessions. Not thread-safe. */
#pragma once
#include "src/template.h"

struct chat;
struct chat_message { const char *role, *text; size_t n; }; /* NUL-terminated, owned by the chat */

/* Built-in templates: chatml, llama2, llama3, mistral, gemma, phi3, zephyr, vicuna, alpaca, ... One row each (chat.c). */
struct chat_builtin { const char *name, *source; };
extern const struct chat_builtin chat_builtins[];
extern const int chat_builtin_count;

/* chat_open - source: template text (n bytes); name for messages ("tokenizer.chat_template"). bos/eos: token texts given to the template ("" ok). */
status chat_open(struct chat **out, const char *source, size_t n, const char *name, const char *bos, const char *eos, struct err *e) MUST_USE;
void chat_close(struct chat *c);

status chat_add(struct chat *c, const char *role, const char *text, size_t n, struct err *e) MUST_USE; /* appends a copy */
int64_t chat_count(const struct chat *c);
struct chat_message chat_at(const struct chat *c, int64_t i);
void chat_truncate(struct chat *c, int64_t n);  /* keeps the first n messages */

/* chat_render - the whole prompt; *out from mem_alloc. add_generation: end with the opening of an assistant turn. extra: further
 * template variables (JSON object) or NULL. now as in template_render. */
status chat_render(const struct chat *c, bool add_generation, const struct json *extra, int64_t now, char **out, size_t *n, struct err *e) MUST_USE;
/* chat_render_part - of the first n_messages. flags: CHAT_OPEN = add_generation, CHAT_BLOCKS as in template_render_blocks. */
enum { CHAT_OPEN = 1, CHAT_BLOCKS = 2 };
status chat_render_part(const struct chat *c, int64_t n_messages, unsigned flags, const struct json *extra, int64_t now, char **out, size_t *n,
                        struct err *e) MUST_USE;

/* chat_to_json / chat_from_json - [{"role": "...", "content": "..."}]; from_json replaces the conversation, also accepts {"messages": [...]}. On
 * failure the chat is unchanged. Messages with content parts ([{"type":"text","text":...}]) are joined. */
status chat_to_json(const struct chat *c, char **out, size_t *n, struct err *e) MUST_USE;
status chat_from_json(struct chat *c, const struct json *j, struct err *e) MUST_USE;
