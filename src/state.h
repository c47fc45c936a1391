/* state - what one session keeps per layer: keys and values, or the state of a recurrent layer. Internal to src/. */
#pragma once
#include "ggml-like/ops.h"
#include "src/model_int.h"

struct kv_types {
    const struct dtype *k, *v;
};

/* kv_types_choose - k and v, or `both` where they are NULL, or F16. ERR_USAGE for a type that is not offered. */
status kv_types_choose(struct kv_types *out, const struct dtype *both, const struct dtype *k, const struct dtype *v, struct err *e) MUST_USE;

struct state {
    struct kv_types types;
    struct layer_state *layer; /* [n_layer] */
    int64_t n_layer;
    uint8_t *base; /* one block of lazily touched pages, never cleared */
    size_t bytes;
};

/* state_layout - places the caches of all layers in a block of *bytes; layer may be NULL to measure only: sizing and laying out are one
 * function. ERR_USAGE when a head's row is no multiple of a type's block, or V lies in K's rows and the types differ, ERR_MEMORY on overflow. */
status state_layout(const struct model *m, int64_t n_ctx, const struct kv_types *types, uint8_t *base, struct layer_state *layer, size_t *bytes,
                    struct err *e) MUST_USE;
/* state_place - the same for what layer il keeps alone, behind the first *at bytes of the block. */
status state_place(const struct model *m, int64_t il, int64_t n_ctx, const struct kv_types *types, uint8_t *base, struct layer_state *s, size_t *at,
                   struct err *e) MUST_USE;
status state_open(struct state *s, const struct model *m, int64_t n_ctx, const struct kv_types *types, struct err *e) MUST_USE;
void state_close(struct state *s);
