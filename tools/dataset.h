/* dataset - a text, or JSON lines of texts and conversations, as one stream of token ids: what a model is calibrated with.
 *   {"messages": [{"role": "user", "content": "..."}, ...]}     rendered through the model's chat template, its control tokens included
 *   {"prompt": "...", "completion": "..."}                      the same: a user's turn and the assistant's
 *   {"text": "..."}                                             as it is
 * Other keys are ignored. What is JSON lines, and what is one list of rows: rows.h. */
#pragma once
#include "src/cuanto.h"

extern const char dataset_default[]; /* "default": the name of the text inside the binary */

struct dataset {
    int32_t *ids;          /* owned */
    int64_t n_ids;
    int64_t n_rows;        /* JSON lines; 0: one text */
    int64_t n_chats;       /* of these, rendered through the template */
    int64_t n_plain;       /* conversations whose turns stand one after the other: the model has no template (or not one that takes them) */
};
/* dataset_read - path: a file, or dataset_default. file_template: the model's, n = 0: none; template_name: another, as for prompt_open, NULL: none.
 * The BOS that a model wants in front is there once. ERR_FORMAT "path:line: ..." for the first line that is not one of these; ERR_FILE. The text inside
 * the binary never fails but for memory. */
status dataset_read(struct dataset *d, const char *path, const struct tokenizer *t, struct str file_template, const char *template_name, struct err *e)
    MUST_USE;
void dataset_close(struct dataset *d); /* accepts a zeroed one */

/* dataset_text_default - the bytes of the text inside the binary: models/calibration.jsonl. */
struct str dataset_text_default(void);
