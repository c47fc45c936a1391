/* keep - a session in a file between commands (--session FILE): what was read stays read. */
#pragma once
#include "tools/prompt.h"
#include "tools/cli.h"

/* keep_load - brings rt's session back from c->session_file; nothing to do when there is no such file yet, or none was named. p (may be NULL): a
 * conversation that was kept there too replaces p's, with its ids. Any other file than a session of this model is refused: keep_save would replace it. */
status keep_load(struct runtime *rt, const struct cli *c, struct prompt *p, struct err *e) MUST_USE;
/* keep_save - writes it, and p's conversation (p may be NULL). */
status keep_save(const struct runtime *rt, const struct cli *c, const struct prompt *p, struct err *e) MUST_USE;
