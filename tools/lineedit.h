/* lineedit - one message from a terminal or a pipe: editing, history, many lines. Knows nothing of chats; terminal modes are term.c's business.
 * Keys: arrows, Home, End, Delete; Ctrl-A E B F P N D H K U W Y T L R Z; Alt-B F D Backspace; Alt-Enter and Ctrl-J start a new line, so do a
 * backslash at the end and an open """. Pasted text never submits. */
#pragma once
#include "ggml-like/base.h"

struct lineedit;
struct line_options {
    int in, out;               /* descriptors; editing happens when both are terminals and TERM can move the cursor, else lines are read plainly */
    bool color;
    const char *history;       /* file, NULL = none */
    const char *const *words;  /* completed by Tab at the start of a line, NULL-terminated, caller's */
};
status lineedit_open(struct lineedit **out, const struct line_options *o, struct err *e) MUST_USE;
void lineedit_close(struct lineedit *l); /* accepts NULL */
bool lineedit_interactive(const struct lineedit *l);

enum line_result {
    LINE_OK,
    LINE_EOF,    /* end of input, or Ctrl-D on an empty line */
    LINE_CANCEL, /* Ctrl-C; *n = bytes that were dropped, 0 on an empty line */
    LINE_SIGNAL, /* cli_interrupted is set */
    LINE_ERROR,  /* out of memory, or the terminal failed */
};
/* lineedit_read - shows prompt (interactive only) and reads one message, without the final newline and the """ around it. *text is
 * NUL-terminated, valid until the next call. Between calls the terminal does not echo (term_busy); lineedit_close restores it. */
enum line_result lineedit_read(struct lineedit *l, const char *prompt, const char **text, size_t *n);
