/* data_rows - the rows of files of training data with what became of each: read, checked, filtered, compared with each other. For `cuanto data`. */
#pragma once
#include <regex.h>
#include "tools/buffer.h"
#include "tools/rows.h"
#include "tools/train_set.h"

enum data_fate { DATA_KEPT, DATA_BAD, DATA_SHORT, DATA_LONG, DATA_UNMATCHED, DATA_MATCHED, DATA_EXACT, DATA_NEAR, DATA_FATES };
enum { DATA_ROLES = 5 };
enum data_dedupe { DEDUPE_NONE, DEDUPE_EXACT, DEDUPE_NEAR };
extern const char *const data_fate_names[DATA_FATES]; /* "bad", "too short", ... */

struct data_row {
    const char *p; size_t n;        /* its JSON, in the file's text */
    int64_t line;
    int file;
    enum data_fate fate;
    int64_t like; float share;      /* an earlier row that is the same (share 1) or nearly so; -1: none. Set for rows that stay in, too */
    int64_t n_chars, n_tokens, n_trained; /* n_tokens 0: not counted */
    uint64_t hash[2];               /* of roles and texts */
};
struct data_file { struct rows rows; struct train_file facts; int64_t first; }; /* first: of its rows */
struct data_options {
    const regex_t *match, *drop; int n_match, n_drop; /* kept: texts that every match finds and no drop finds */
    int64_t min_chars, max_chars, min_tokens, max_tokens; /* max 0: none */
    enum data_dedupe dedupe;
    double near;                    /* share of common shingles from which rows are nearly the same; 0: not looked at */
    bool skip_bad;
    struct bar *bar;                /* NULL, or one begun with the number of rows: moved along */
};
struct data_set {
    struct data_file *file; int n_files;
    struct data_row *row; int64_t n_rows, cap;
    int64_t count[DATA_FATES];
    int64_t n_exact, n_near;        /* rows that are like an earlier one, left out or not */
    int64_t n_turns[DATA_ROLES];    /* system, user, assistant, tool, and roles that no template of ours knows */
    struct train_fault fault[TRAIN_FAULTS]; int64_t n_bad;
};
/* data_read - every row of every file: format, faults, lengths. ERR_FILE, ERR_FORMAT (a list that is none), ERR_MEMORY, ERR_INTERRUPTED. */
status data_read(struct data_set *d, const char *const *path, int n_files, struct err *e) MUST_USE;
/* data_count_tokens - n_tokens and n_trained of all rows, from the same files read as a training set; rows that the template refuses become bad. */
status data_count_tokens(struct data_set *d, const struct train_set *s, struct err *e) MUST_USE;
/* data_filter - lengths and patterns, then duplicates among what is left. */
status data_filter(struct data_set *d, const struct data_options *o, struct err *e) MUST_USE;
/* data_split - of the rows that are kept about share (below 1) or share many rows; which: by hash of the content and seed, so that it does not depend on
 * order; rows that are like each other stay together. held[i] for row i. */
status data_split(const struct data_set *d, double share, int64_t seed, bool *held, int64_t *n_held, struct err *e) MUST_USE;
void data_close(struct data_set *d); /* accepts a zeroed one */
