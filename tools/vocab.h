/* vocab - the tokenizer and chat template of a file, without its weights: works on vocabulary-only files too. */
#pragma once
#include "tools/cli.h"

struct vocab {
    struct gguf file;
    struct tokenizer *tok;
    struct str chat_template; /* n = 0: none */
};
status vocab_open(struct vocab *v, const struct cli *c, struct err *e) MUST_USE;
void vocab_close(struct vocab *v);
/* put_piece - "text": the token's bytes, and "bytes": [...] when they are no UTF-8 by themselves. buf is scratch of cap bytes. */
void put_piece(struct json_out *o, const struct tokenizer *t, int32_t id, char *buf, size_t cap);
