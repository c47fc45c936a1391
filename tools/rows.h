/* rows - the JSON values of a file, one after the other with their lines: JSON lines, or the members of one JSON list. Knows nothing of what they hold. */
#pragma once
#include "ggml-like/json.h"

enum rows_kind { ROWS_TEXT, ROWS_LINES, ROWS_LIST }; /* ROWS_TEXT: not JSON at all */
struct rows {
    const char *path;
    const char *text; size_t n;  /* behind a byte order mark */
    char *owned;
    enum rows_kind kind;
    size_t at;                   /* where the next row is looked for */
    int64_t line, n_rows;
};
struct row { const char *p; size_t n; int64_t line; };

/* rows_open - path "-" is stdin. A file is taken for JSON lines when its name ends in .jsonl, .json or .ndjson or its first character that is no white space
 * begins {" , for a list when it begins [{" . ERR_FILE. path is kept. */
status rows_open(struct rows *r, const char *path, struct err *e) MUST_USE;
/* rows_of - the same over a text of the caller's, which must stay. name: shown, and looked at as a file's name is, but .json may be any text. */
void rows_of(struct rows *r, const char *name, const char *text, size_t n);
void rows_close(struct rows *r); /* accepts a zeroed one */
/* rows_next - *more = false: there is none. Blank lines are no rows. ERR_FORMAT (a list that is none) with file and line. */
status rows_next(struct rows *r, struct row *out, bool *more, struct err *e) MUST_USE;
/* rows_parse - ERR_FORMAT "column 12: ..." and row->line set to the line where it stands; ERR_MEMORY. Values live in the arena. */
status rows_parse(struct row *row, struct arena *a, struct json **out, struct err *e) MUST_USE;
