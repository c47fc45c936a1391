/* fold - which columns of which weights can be scaled without changing what a model computes: where a vector x meets matrices, what makes x can be
 * divided by s, column by column, and the matrices' columns multiplied by s. A format whose scales are shared by several columns then holds them better
 * (AWQ, Lin et al. 2023, section 3.2). No table of architectures: the groups are read off the plan that the model's own equations record.
 *
 *   norm (its weight, its bias) / s  ->  q, k, v * s        gate, up, router * s
 *   rows of v / s  ->  attention  ->  o * s                 s is shared by the queries' heads of one KV head
 *   rows of up / s  ->  act(gate) * up  ->  down * s        ReLU: the same without gate; squared ReLU: rows / sqrt(s)
 *
 * Refused, with the reason: what anything but matrices reads too, norms without weights or shared by heads, keys that serve as values, caches that other
 * layers read, products that are not linear in one factor, weights that somebody else uses as well (a head that is the embedding). */
#pragma once
#include "src/model.h"

/* One weight and what becomes of it: element i of the direction (column, row through all matrices of a stack, or element of a vector, which is its column)
 * is multiplied by s[of[i]] to the power; of[i] < 0: stays. */
struct fold_part {
    const struct tensor *w;   /* of the model's file */
    bool rows;                /* of[tensor_rows(w)], else of[ne[0]] */
    float power;              /* 1: reads x; -1, -0.5: makes x */
    const int32_t *of;
};
struct fold_group {
    int il;                   /* layer; the number of layers: the head */
    int64_t n;                /* factors */
    const char *name;         /* of the first weight that reads x */
    struct fold_part *part;   /* [n_parts] first the n_readers that read x */
    int n_parts, n_readers;
    const char *refused;      /* NULL: can be folded. Otherwise parts are not to be used */
};
struct fold;
/* fold_open - all groups, in order of execution. For a model that stays open. */
status fold_open(struct fold **out, const struct model *m, struct err *e) MUST_USE;
void fold_close(struct fold *f); /* accepts NULL */
int fold_n(const struct fold *f);
const struct fold_group *fold_group(const struct fold *f, int i);

/* What several groups together make of one weight. */
struct fold_scale {
    const struct tensor *w;
    float *row, *column;      /* factors, NULL: 1 */
};
/* fold_scales - for s[fold_n] factors of each group (NULL: left alone) > 0: the weights to be multiplied, ordered by name. Memory lives until fold_close. */
status fold_scales(struct fold *f, const float *const *s, struct fold_scale **out, int *n, struct err *e) MUST_USE;
