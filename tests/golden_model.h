/* golden_model - the text files of tests/golden/arch and tests/golden/peft: names and shapes of tensors whose values follow a rule (oracle/archs.py), a
 * prompt that follows one, and what the reference answers. */
#pragma once
#include "src/cuanto.h"

enum { N_IDS = 304, VOCAB = 320, BOS = 304, EOS = 305, MAX_TOP = 512, MAX_DIMS = 4, MAX_FILL = 8 };
static const double golden_tolerance = 1e-4; /* of the largest logit */

struct fill {
    char part[64];
    double c, w;
};

struct golden {
    char *text; /* lines cut apart */
    char *line[600];
    int n_lines, n_top, n_fill;
    const char *config;
    int64_t n;                 /* tokens of the prompt */
    int32_t top[MAX_TOP], ids[MAX_TOP];
    double scale;              /* the largest logit */
    struct fill fill[MAX_FILL];
};

bool golden_read(struct golden *g, const char *path); /* false: said why. g->text from mem_alloc */
bool golden_tensors(const struct golden *g, const char *path);  /* as one safetensors file */
bool golden_checkpoint(const struct golden *g, const char *dir); /* config.json, tokenizer, model.safetensors */
void golden_file(const char *dir, const char *name, const char *text, size_t n);
/* golden_run - logits [n][n_vocab] of the prompt, in passes of `rows` tokens. lora: NULL or one adapter */
status golden_run(const struct model *m, const struct adapter_use *lora, const struct golden *g, int64_t rows, float *out, int64_t n_vocab,
                  struct err *e) MUST_USE;
void golden_compare(const struct golden *g, const float *x, int64_t n_vocab, const char *how); /* checks */
