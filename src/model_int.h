/* model_int - the inside of struct model, for src/ only. */
#pragma once
#include "src/arch.h"
#include "src/model.h"

struct layer {
    struct layer_params hp;
    struct tensor w[W_LAYER_COUNT]; /* type NULL = the file has none */
};

struct model {
    struct gguf g;
    struct arena arena;
    const struct arch *arch;
    struct hparams hp;
    struct layer *layer; /* [n_layer] */
    struct tensor w[W_COUNT - W_LAYER_COUNT];
    struct tokenizer *tok;
    char note[160];
};

static inline const struct tensor *model_weight(const struct model *m, int il, enum weight_id id)
{
    const struct tensor *t = id < W_LAYER_COUNT ? &m->layer[il].w[id] : &m->w[id - W_LAYER_COUNT];
    return t->type ? t : NULL;
}
