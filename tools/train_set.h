/* train_set - files of training data as tokens and weights, ready for a trainer: read, checked and masked before anything is trained.
 * The format of each file is told by its first row (train_format.h); the rows behind it must have the same. Conversations go through the model's chat
 * template; texts of messages never become control tokens. Order and content depend on the files and options only. */
#pragma once
#include "tools/train_format.h"

struct bar;
enum train_loss { TRAIN_ANSWERS, TRAIN_LAST, TRAIN_ALL };  /* learnt: all turns of the assistant, the last one, every token */
enum train_long { TRAIN_DROP, TRAIN_CUT, TRAIN_REFUSE };   /* samples longer than n_ctx: left out, cut at the end, an error. Texts are split instead */
struct train_options {
    int64_t n_ctx;               /* tokens of a sample at most; 0: any number */
    enum train_loss loss;
    enum train_long too_long;
    bool skip_bad;               /* leave bad rows out instead of failing; they are counted and listed */
    bool special;                /* rows of text: the text of control tokens becomes those tokens (they were rendered before) */
    const char *template_name;   /* as for prompt_open; NULL: the model's */
    const char *model;           /* its name, for messages */
    struct bar *bar;             /* NULL, or one begun with train_files_kib as total: moved along */
};
/* train_files_kib - the size of the files in KiB. */
int64_t train_files_kib(const char *const *path, int n_files);

struct train_sample {
    int64_t first, n;            /* tokens: train_set.token[first .. first + n) */
    int64_t n_trained;           /* of these, with weight 1 */
    int64_t n_full;              /* before it was cut; = n otherwise */
    int64_t line, row;           /* of its row: where it begins, and its number in the file, from 0 */
    const char *file;
    int64_t n_turns, n_ended;    /* turns learnt from; of these, with an end token that is learnt */
    bool bos;                    /* begins with BOS */
};
struct train_pair { int64_t chosen, rejected; }; /* indices of samples */
struct train_fault { const char *file; int64_t line; char text[200]; };
enum { TRAIN_FAULTS = 20, TRAIN_UNKNOWN = 12 };
struct train_file {
    const char *path;
    enum train_format format;
    int64_t n_rows, n_samples, n_bad;
    char unknown[TRAIN_UNKNOWN][64]; int n_unknown; /* members that nothing here reads; the list ends when it is full */
};
/* train_file_note - adds the members of a row that its format does not know to f->unknown. */
void train_file_note(struct train_file *f, const struct json *row);

struct train_set {
    int32_t *token; float *weight;      /* [n_tokens]; weight 1: the loss of predicting this token counts, 0: it does not. First token of a sample: 0 */
    struct train_sample *sample; int64_t n_samples;
    struct train_pair *pair; int64_t n_pairs; /* preference rows only; then every sample belongs to one pair */
    struct train_file *file; int n_files;
    int64_t n_tokens, n_trained;
    int64_t n_dropped, n_cut, n_split;  /* samples left out, cut; texts that became several samples */
    int64_t n_turns, n_ended;           /* sums over samples */
    int64_t n_longest;                  /* tokens of the longest sample, the ones left out included */
    int64_t n_imitations;               /* texts that hold the text of a control token, read as text */
    struct train_fault fault[TRAIN_FAULTS]; int64_t n_bad; /* bad rows; the first TRAIN_FAULTS are listed */
    int64_t cap_tokens, cap_samples, cap_pairs;
};

/* train_choices - the options that ROW_LOSS, ROW_TOO_LONG, ROW_SKIP_BAD, ROW_SPECIAL_ROWS, ROW_TEMPLATE and --ctx filled; model and n_ctx may be changed. */
struct cli;
struct train_options train_choices(const struct cli *c);
/* train_set_read - path[i] are kept, not copied. file_template: the model's, n = 0: none. All rows are looked at before it fails: ERR_FORMAT
 * "file:12: ..., and 3 more bad rows" (fault lists them: the set stays valid for that until it is closed). ERR_FORMAT also when nothing is left;
 * ERR_USAGE for a missing template. ERR_FILE, ERR_MEMORY. Preference rows cannot be mixed with others. Interrupted by cli_interrupted: ERR_INTERRUPTED. */
status train_set_read(struct train_set *s, const char *const *path, int n_files, const struct tokenizer *t, struct str file_template,
                      const struct train_options *o, struct err *e) MUST_USE;
void train_set_close(struct train_set *s); /* accepts a zeroed one */
