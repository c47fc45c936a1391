/* hf - names and row orders of Hugging Face checkpoints, as weight rows state them: what conversion, export and adapters share. Internal to src/. */
#pragma once
#include "src/import.h"
#include "src/model_int.h"

/* hf_expand - "model.layers.%d.mlp.experts.%e.w1.weight", n bytes, with numbers; false when it does not fit. */
bool hf_expand(const char *p, size_t n, int il, int64_t expert, char *out, size_t cap) MUST_USE;
/* hf_spelling - the same tensor goes by several names: whole models put "model." or "transformer." before what base models have bare, multimodal ones
 * add "language_model." before or behind it. Spelling i of name, the name itself first; false past the last one (out is then untouched) or too long. */
bool hf_spelling(const char *name, int i, char *out, size_t cap) MUST_USE;
/* hf_own - what the architecture says of a weight beyond its row; NULL: nothing. */
const struct weight_import *hf_own(const struct arch *a, enum weight_id id);
/* hf_row - which row of the source is row i of this matrix (of one expert, where sources are single experts). -1: none, the row is zero. */
int64_t hf_row(const struct model *m, const struct weight_row *r, const struct weight_import *own, int il, int64_t i);
/* hf_unpaired - where an element of a head stands in the Hugging Face order, halves of pairs half a rotation apart, when here they are neighbours. */
int64_t hf_unpaired(const struct layer_params *l, int64_t i);
/* hf_source_rows - rows that the source of this matrix has in all: those of every weight that comes from the same tensor. -1: some are computed in
 * another way. */
int64_t hf_source_rows(const struct model *m, const struct weight_row *r, int il);
