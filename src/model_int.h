/* model_int - the inside of struct model, for src/ only. */
#pragma once
#include "src/arch.h"
#include "src/model.h"

/* Columns of a matrix kept apart from it, whose places in it are zero: <base>.outlier.weight [n, rows], <base>.outlier.index I32 [n], rising. */
struct outlier_columns {
    struct tensor weight, index; /* type NULL = none */
};

struct layer {
    struct layer_params hp;
    struct tensor w[W_LAYER_COUNT]; /* type NULL = the file has none */
    struct outlier_columns outlier[W_LAYER_COUNT];
};

enum rope_kind { ROPE_NONE, ROPE_LINEAR, ROPE_YARN, ROPE_LONG, ROPE_NTK, ROPE_KINDS };

struct model {
    struct gguf g;
    struct arena arena;
    const struct arch *arch;
    struct hparams hp;
    struct layer *layer; /* [n_layer] */
    struct tensor w[W_COUNT - W_LAYER_COUNT];
    struct outlier_columns outlier[W_COUNT - W_LAYER_COUNT];
    struct tokenizer *tok;
    char note[160];
    enum rope_kind rope;
    bool long_context; /* longrope: the configured context exceeds the original one */
};

/* model_read_hparams - from the keys in m->g alone: architecture, numbers, layers; no weights, no tokenizer (the converter's use). */
status model_read_hparams(struct model *m, const struct model_options *o, struct err *e) MUST_USE;
/* model_parse - model_open over bytes that the caller keeps alive (tests); name stands for the path in errors. */
status model_parse(struct model **out, const uint8_t *data, size_t n, const char *name, const struct model_options *o, struct err *e) MUST_USE;
/* model_dim - a symbolic size in layer il (-1: of the model). model_has_row - does layer il have this weight at all? */
int64_t model_dim(const struct model *m, int il, enum dim d);
bool model_has_row(const struct model *m, int il, const struct weight_row *r);

static inline const struct tensor *model_weight(const struct model *m, int il, enum weight_id id)
{
    const struct tensor *t = id < W_LAYER_COUNT ? &m->layer[il].w[id] : &m->w[id - W_LAYER_COUNT];
    return t->type ? t : NULL;
}

static inline const struct outlier_columns *model_outliers(const struct model *m, int il, enum weight_id id)
{
    const struct outlier_columns *o = id < W_LAYER_COUNT ? &m->layer[il].outlier[id] : &m->outlier[id - W_LAYER_COUNT];
    return o->weight.type ? o : NULL;
}
