/* term - what commands share with the line editor below cli.h: raw mode that is always undone, colours, character widths. */
#pragma once
#include "tools/cli.h"

/* term_raw - character input without echo and without signals from keys; false when fd is no terminal.
 * term_busy - after it, while the program works: still no echo, but Ctrl-C is SIGINT; what is typed waits for the next term_raw.
 * term_restore - the mode before the first of them. Also called at exit, by a second SIGINT and by fatal signals; safe in signal handlers. */
bool term_raw(int fd);
void term_busy(void);
void term_restore(void);
int term_height(void);
bool term_dumb(void); /* TERM is unset or dumb: no cursor motion */

/* Escape sequences, or "" when on is false. */
enum term_style { STYLE_RESET, STYLE_DIM, STYLE_BOLD, STYLE_PROMPT };
const char *term_style(bool on, enum term_style style);

/* out_text - text from a model to stdout, at once. On a terminal control characters are shown as ?, elsewhere the bytes are exact. */
bool out_text(const char *p, size_t n);

/* utf8_next - decodes one character of n > 0 bytes; returns its length (1 for an invalid byte, *cp = 0xFFFD then). */
int utf8_next(const char *p, size_t n, uint32_t *cp);
/* char_width - columns of a code point on a terminal: 0 combining and format characters, 2 wide ones, else 1. */
int char_width(uint32_t cp);
