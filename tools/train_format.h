/* train_format - the kinds of rows that training data come in, one row of a table each: recognised by their keys, read as a conversation or a text.
 *   messages   {"messages": [{"role": "user", "content": "..."}, ...]}       OpenAI's and Hugging Face's; "weight": 0 leaves a turn out of the loss
 *   sharegpt   {"conversations": [{"from": "human", "value": "..."}, ...]}
 *   prompt     {"prompt": "...", "completion": "..."}                         both strings, or both lists of messages
 *   alpaca     {"instruction": "...", "input": "...", "output": "..."}        input may be missing
 *   preference {"prompt": ..., "chosen": ..., "rejected": ...}                strings or lists of messages; lists may hold the prompt themselves
 *              a list "tools" beside messages goes to the template
 *   text       {"text": "..."}                                                a document, all of it learnt
 *   plain      a file that is no JSON                                         one document */
#pragma once
#include "src/cuanto.h"

enum train_format { TRAIN_MESSAGES, TRAIN_SHAREGPT, TRAIN_PROMPT, TRAIN_ALPACA, TRAIN_PREFERENCE, TRAIN_TEXT, TRAIN_PLAIN, TRAIN_FORMATS };
extern const char *const train_format_names[TRAIN_FORMATS];

/* A row's content. chat is filled for all but text and plain. */
struct train_row {
    struct str text;            /* TRAIN_TEXT; a view into the JSON */
    int64_t first;              /* turns before this message are not learnt (the prompt) */
    bool strings;               /* prompt and answer came as strings: without a template they are read as texts, one after the other */
    const struct json *extra;   /* {"tools": [...]} for the template, NULL: none */
    bool *on;                   /* [chat_count]: false: "weight": 0; NULL: all are learnt. In the arena */
};

/* train_format_of - the format of a row by its keys, -1: none. */
int train_format_of(const struct json *row);
/* train_format_expected - "an object with \"messages\", ..." for messages. */
extern const char train_format_expected[];
/* train_row_read - answer: 0, of preference rows 0 = chosen and 1 = rejected. ERR_FORMAT names the member: wrong types, roles, empty turns of the assistant,
 * no such turn. ERR_MEMORY. */
status train_row_read(enum train_format f, const struct json *row, int answer, struct chat *chat, struct arena *a, struct train_row *out,
                    struct err *e) MUST_USE;
/* train_format_unknown - the members of the row, and of its messages, that this format does not know, one after the other: train_unknown_next gives the name
 * of the next, "foo" or "messages[].foo"; NULL: no more. */
struct train_unknown {
    enum train_format format;
    const struct json *member, *item; /* to be looked at next; the message behind it */
    bool in_list;
};
struct train_unknown train_format_unknown(enum train_format f, const struct json *row);
const char *train_unknown_next(struct train_unknown *u, char name[64]);
