/* quant_sense - what an allocation is decided by: for each tensor the error that each format makes of it (a sample of its rows), and how much KL divergence
 * a unit of that error costs (measured group by group in the running model, or the figures of other models). Kept in a JSON file, so that other budgets
 * need no second measurement. */
#pragma once
#include "quant/quant.h"
#include "tools/calibrate.h"

enum { SENSE_TYPES = 22 };
extern const int sense_types[SENSE_TYPES]; /* GGUF ids of all formats whose errors are kept, from 8.5 bits down */

struct sense_row {
    const char *name;
    int64_t item;                /* of the plan */
    int layer;                   /* LAYERS_EMBED: not of a layer */
    int group;                   /* what was exchanged together; -1: not measured */
    int ref;                     /* index into sense_types of the format it was exchanged for */
    float error[SENSE_TYPES];    /* sum w (x - y)^2 / sum w x^2; NaN: does not fit its rows */
    double per_error;            /* KL for a unit of error */
};
struct sense {
    struct sense_row *row;       /* [n], the tensors whose format is free, in the order of the plan */
    int64_t n;
    float *kl;                   /* [n_groups] */
    int64_t n_groups, n_tokens;  /* 0: not measured; tokens of the windows it was measured on */
    uint64_t model, text, importance; /* hashes; text 0: none; importance: of a file in place of a text, or 0 */
    bool found;                  /* read from a file */
    double seconds;
    struct arena mem;
};
struct sense_options {
    const struct cli *c;
    const char *path;            /* of the JSON file, NULL: none */
    struct calibration *k;       /* its text is read by the model; NULL, or look: figures of other models */
    const struct importance *importance; /* or NULL */
    bool look;                   /* a plan only: nothing that takes long */
};
/* sense_open - for the tensors of the plan that are neither kept nor asked for. What the file at `path` says is taken over when it is of this model, text
 * and importance (ERR_USAGE naming what differs otherwise); what had to be measured is written to it. ERR_INTERRUPTED. */
status sense_open(struct sense *s, struct quant_plan *plan, const struct sense_options *o, struct err *e) MUST_USE;
void sense_close(struct sense *s); /* accepts a zeroed one */
/* sense_passes - how long a measurement takes, in passes of the whole calibration text through the layers. */
double sense_passes(const struct sense *s, const struct cli *c, const struct calibration *k);
/* sense_bytes - memory that it takes beside the calibration. */
size_t sense_bytes(const struct sense *s, const struct cli *c, const struct calibration *k);
uint64_t sense_hash(const struct sense *s); /* of all figures */
