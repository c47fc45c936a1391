/* beams - `run --beams N`: the answers with the highest probability instead of a drawn one. */
#pragma once
#include "tools/generate.h"

/* beams_check - ERR_USAGE for options that beam search does not look at. */
status beams_check(const struct cli *c, struct err *e) MUST_USE;
/* beams_note - one line on stderr that names the sampling options given with --beams, which a search does not use; nothing without any. */
void beams_note(const struct cli *c);
/* beams_run - after a prefill: searches, and hands the text of the best answer to g->text; the results of g are set as generator_run sets them.
 * *r keeps all answers, for beams_print; beam_free. */
status beams_run(struct generator *g, struct beam_result *r, struct err *e) MUST_USE;
/* beams_json - "answers": the n best with text and score, into an open object. beams_print - the same as text, each behind a line with its score. */
status beams_json(struct generator *g, const struct beam_result *r, struct json_out *o, struct err *e) MUST_USE;
status beams_print(struct generator *g, const struct beam_result *r, struct err *e) MUST_USE;
