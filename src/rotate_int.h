/* rotate_int - what rotate.c decides and rotate_write.c carries out. */
#pragma once
#include "src/recorded.h"
#include "src/rotate.h"

enum { COLUMNS, ROWS, AXES };

/* One axis of a weight, all of it: runs of dim elements, run i turned by rotation i / share of the key, after a factor for each element. */
struct turn {
    int64_t dim;              /* 0: none */
    int64_t share;            /* INT64_MAX: one rotation */
    int64_t key;              /* 0: R1; 1 + il: R2 of the values in cache il */
    const struct use *gain;   /* COLUMNS: weights of the norm in front, NULL: 1 */
};
struct turns {
    struct turn axis[AXES];
    bool ones;                /* of a norm: they become 1 */
    bool covered;             /* another use of the same rows or more says the same */
};

struct rotate {
    struct recorded r;
    struct rotate_options o;
    const char *path;
    struct turns *turn;       /* [r.n_uses] */
    int32_t head;             /* the use of the embedding that becomes a tensor of its own, -1 */
    const char *head_name;
    bool *in;                 /* [n_val] is it turned as the residual stream is? */
    const struct use **gain;  /* [n_val] weights of the norm that made it and that no longer multiply it: its readers have them */
    val *todo;
    int n_todo;
    struct gguf_header h;
};
status rotate_plan(struct rotate *r, struct err *e) MUST_USE; /* rotate_write.c: the header of the new file, and what stands in the way of one */
