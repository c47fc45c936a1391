/* history - lines typed before, newest last, kept in a file (one escaped entry per line, mode 0600). Losing the file is never an error. */
#pragma once
#include "ggml-like/base.h"

enum { HISTORY_MAX = 1000, HISTORY_ENTRY = 64 << 10 };
struct history {
    char **item; /* [n], NUL-terminated */
    int n;
    char *path; /* NULL: not kept */
};
/* history_open - path NULL: memory only. Reads what is there; ERR_MEMORY only. */
status history_open(struct history *h, const char *path, struct err *e) MUST_USE;
void history_close(struct history *h);
/* history_add - appends to memory and file; repeats of the last entry, empty and very long ones are left out. */
void history_add(struct history *h, const char *text, size_t n);
/* history_path - $XDG_STATE_HOME/cuanto/history or ~/.local/state/cuanto/history; false when neither variable is set. Creates the folders. */
bool history_path(char *buf, size_t cap);
