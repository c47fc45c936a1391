/* prompt - a conversation, its text under the model's chat template, and the token ids of that text.
 * Rule: control tokens come from the template only. Text of messages never becomes a control token, whatever it contains.
 *   How the messages are found in the rendered text: the same conversation is rendered a second time with each content replaced by a marker.
 *   What stands between the markers is template text; the real rendering must be exactly that text with the contents (or their trimmed forms)
 *   in place of the markers. If it is not (the template rewrites messages), a message that contains a control token's text is refused.
 * Ids equal one plain encoding of the whole text unless a message does contain such a text. */
#pragma once
#include "src/cuanto.h"

/* Where a message stands in the text, and where its marker stands in the shape's. */
struct span { size_t from, to, mark, mark_n; };
/* A conversation's rendering with markers in place of the messages. It depends on roles and on which messages are empty only, so that the thousands of
 * conversations of a training set share a few. turn: what train_mask.c finds out about it. */
struct turn { size_t from, to; int64_t message; bool ends; };
struct shape { char *key; size_t n_key; char *text; size_t n; struct turn *turn; int64_t n_turn; bool has_turns; };
enum { PROMPT_SHAPES = 64 };
struct control { int32_t id; struct str text; };

struct prompt {
    const struct tokenizer *tok;
    struct chat *chat;            /* the conversation; change it through chat.h */
    struct chat *marked;          /* same template, markers instead of contents: the shape that was rendered last */
    struct shape shape[PROMPT_SHAPES]; /* by hash of the key; key NULL: free. text NULL: the template refuses it */
    struct shape *current;        /* the shape of the last rendering, valid until the next one */
    const struct json *extra;     /* further variables of the template, as for chat_render (the caller's; NULL: none) */
    struct shape own;             /* the shape of a rendering with extra ones, which no other shares */
    int64_t now;                  /* fixed per prompt: a date in the template must not invalidate the KV cache */
    struct control *control;      /* control tokens, longest text first per first byte */
    int n_control;
    int first[257];               /* control tokens whose text begins with byte b: first[b] .. first[b + 1] */
    char *text; size_t n_text;    /* the last rendering, after encode plus what was generated */
    size_t text_cap;
    int32_t *ids; int64_t n_ids, cap; /* the ids of text */
    int64_t n_kept;               /* ids at the front that the last prompt_encode took over from before */
    bool exact;                   /* ids stand for text exactly: a longer text may keep them */
    struct span *span; int n_span, span_cap; /* message texts in text */
    bool spans_known;
};

/* prompt_open - template_name: a row of chat_builtins, else a file, NULL = file_template. ERR_USAGE "<model> has no chat template" when that is
 * empty; model is only for this text. */
status prompt_open(struct prompt *p, const struct tokenizer *t, struct str file_template, const char *template_name, const char *model,
                   struct err *e) MUST_USE;
void prompt_close(struct prompt *p); /* accepts a zeroed one */

/* prompt_render - the conversation as text, into *text (mem_alloc, NUL-terminated, the caller's). Fills span. */
status prompt_render(struct prompt *p, bool add_generation, char **text, size_t *n, struct err *e) MUST_USE;
/* prompt_encode - renders and encodes: text, ids. When the new text continues text (see prompt_append) at a control token, the ids of the old
 * part are kept, so that what was generated stays in the KV cache token for token. BOS is added once. */
status prompt_encode(struct prompt *p, bool add_generation, struct err *e) MUST_USE;
/* prompt_mark - marked becomes the conversation with markers as messages. */
status prompt_mark(struct prompt *p, struct err *e) MUST_USE;
/* prompt_count - how many ids the conversation would be now, without opening an answer; text and ids stay. */
status prompt_count(struct prompt *p, int64_t *n_ids, struct err *e) MUST_USE;
/* prompt_append - a generated token; room must have been made with prompt_reserve, then nothing is allocated. */
status prompt_reserve(struct prompt *p, int64_t n_ids, struct err *e) MUST_USE;
void prompt_append(struct prompt *p, int32_t id);
/* prompt_answer - the text that the appended tokens stand for; exact = false: they do not spell it exactly (a stop text was cut off). */
status prompt_answer(struct prompt *p, const char *text, size_t n, bool exact, struct err *e) MUST_USE;

/* encode_text - plain text to ids in *ids (mem_alloc, grown as needed, *cap entries). */
status encode_text(const struct tokenizer *t, const char *text, size_t n, unsigned flags, int32_t **ids, int64_t *n_ids, int64_t *cap, struct err *e) MUST_USE;
/* prompt_add_bos - puts BOS before ids if the file asks for it and it is not there yet. */
status prompt_add_bos(struct prompt *p, struct err *e) MUST_USE;
