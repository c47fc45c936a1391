/* input - the text a command works on: arguments, files, standard input. */
#pragma once
#include "tools/buffer.h"
#include "tools/cli.h"

/* input_prompt - standard input (when it is no terminal), then files, then arguments joined by spaces; parts joined by newlines. `-` as file or
 * argument says where standard input goes. One final newline of each part is dropped. ERR_USAGE when nothing is left. */
status input_prompt(const struct cli *c, struct buffer *b, struct err *e) MUST_USE;
/* input_exact - arguments joined by spaces, else files one after the other, else standard input: byte for byte. */
status input_exact(const struct cli *c, struct buffer *b, struct err *e) MUST_USE;
