/* input - see input.h. Standard input is read here and not by file_text because a signal must end the wait. */
#include "tools/input.h"
#include <errno.h>
#include <string.h>
#include <unistd.h>

enum { INPUT_MAX = 256 << 20 };

static status append(struct buffer *b, const char *s, size_t n, struct err *e)
{
    if (b->n + n > INPUT_MAX) return err_set(e, ERR_USAGE, "the input is longer than %d MiB", INPUT_MAX >> 20);
    return buffer_append(b, s, n) ? OK : err_oom(e, "input", b->n + n);
}

static status add_stdin(struct buffer *b, bool *done, struct err *e)
{
    char part[16384];
    if (*done) return err_set(e, ERR_USAGE, "standard input is named twice");
    *done = true;
    for (;;) {
        ssize_t n = read(STDIN_FILENO, part, sizeof part);
        if (n == 0) return OK;
        if (n < 0 && cli_interrupted) return err_set(e, ERR_INTERRUPTED, "interrupted");
        if (n < 0 && errno != EINTR) return err_set(e, ERR_FILE, "standard input: %s", strerror(errno));
        if (n > 0) TRY(append(b, part, (size_t)n, e));
    }
}

static status add_file(struct buffer *b, const char *path, bool *stdin_done, struct err *e)
{
    char *text;
    size_t n;
    if (!strcmp(path, "-")) return add_stdin(b, stdin_done, e);
    TRY(file_text(path, INPUT_MAX, &text, &n, e));
    status st = append(b, text, n, e);
    mem_free(text);
    return st;
}

static status add_word(struct buffer *b, const char *word, bool *stdin_done, struct err *e)
{
    return !strcmp(word, "-") ? add_stdin(b, stdin_done, e) : append(b, word, strlen(word), e);
}

static void drop_newline(struct buffer *b, size_t from)
{
    if (b->n > from && b->p[b->n - 1] == '\n') buffer_remove(b, b->n - 1, 1);
}

static bool names_stdin(const struct cli *c)
{
    for (int i = 0; i < c->n_args; i++)
        if (!strcmp(c->args[i], "-")) return true;
    for (int i = 0; i < c->n_file; i++)
        if (!strcmp(c->file[i], "-")) return true;
    return false;
}

status input_prompt(const struct cli *c, struct buffer *b, struct err *e)
{
    bool done = false, after_word = false;
    TRY(append(b, "", 0, e));
    if (!names_stdin(c) && !term_is_tty(STDIN_FILENO)) TRY(add_stdin(b, &done, e));
    drop_newline(b, 0);
    for (int i = 0; i < c->n_file + c->n_args; i++) {
        const char *item = i < c->n_file ? c->file[i] : c->args[i - c->n_file];
        bool word = i >= c->n_file && strcmp(item, "-") != 0;
        if (b->n) TRY(append(b, word && after_word ? " " : "\n", 1, e));
        size_t from = b->n;
        if (i < c->n_file) TRY(add_file(b, item, &done, e));
        else TRY(add_word(b, item, &done, e));
        if (!word) drop_newline(b, from);
        after_word = word;
    }
    return b->n ? OK : err_set(e, ERR_USAGE, "the prompt is empty");
}

status input_exact(const struct cli *c, struct buffer *b, struct err *e)
{
    bool done = false;
    TRY(append(b, "", 0, e));
    for (int i = 0; i < c->n_args; i++) {
        if (i) TRY(append(b, " ", 1, e));
        TRY(add_word(b, c->args[i], &done, e));
    }
    for (int i = 0; i < c->n_file; i++) TRY(add_file(b, c->file[i], &done, e));
    if (c->n_args || c->n_file) return OK;
    if (term_is_tty(STDIN_FILENO)) return err_set(e, ERR_USAGE, "no text: give it as an argument, with -f FILE, or on standard input");
    return add_stdin(b, &done, e);
}
