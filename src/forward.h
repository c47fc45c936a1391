/* forward - a model's equations in parts, recorded into plans: what engine (whole passes over sessions) and layers (one layer at a time) share. For src/
 * only. Each part reserves the room that it needs in the plan. */
#pragma once
#include "src/engine.h"
#include "src/lora_int.h"
#include "src/model_int.h"

/* forward_embed - rows of the batch's tokens, and what an architecture derives from them for all layers (b->side). */
status forward_embed(struct build *b, val *x, struct err *e) MUST_USE;
status forward_layer(const struct build *b, int il, val *x, struct err *e) MUST_USE;
status forward_norm(const struct build *b, val *x, struct err *e) MUST_USE;
/* forward_logits - of the result of forward_norm. forward_score - as op_score; *whole: are its logits nothing but a product (engine_can_score)? */
status forward_logits(const struct build *b, val *x, struct err *e) MUST_USE;
status forward_score(const struct build *b, val *x, bool *whole, struct err *e) MUST_USE;

/* forward_machine - kernels of this machine up to level isa (NULL: all), those for passes of few rows (may be NULL), and a pool of n_threads (0: as many as
 * there are cores). */
status forward_machine(struct kernels *k, struct kernels *few, struct pool **pool, int n_threads, const char *isa, struct err *e) MUST_USE;
/* forward_thread_bytes - plan_thread_bytes for the heads of this model. */
size_t forward_thread_bytes(const struct model *m);
size_t forward_grad_bytes(const struct model *m); /* plan_grad_bytes */

enum { BATCH_DEFAULT = 512, HEAD_BYTES = 32 << 20 };
/* forward_pass_rows - as engine_pass_rows. */
int64_t forward_pass_rows(int64_t n_batch, int64_t left);
/* forward_head_rows - rows of logits that are computed at once: not more than HEAD_BYTES. */
int64_t forward_head_rows(const struct model *m, int64_t n_batch);
/* forward_emit - fn for n rows of logits on all threads; row i is row[i] of segment seg[i]. */
struct emit {
    logits_fn fn;
    void *ctx;
    const float *logits;
    const int32_t *seg, *row;
    int64_t n, n_vocab;
};
void forward_emit(struct pool *pool, const struct emit *x);
