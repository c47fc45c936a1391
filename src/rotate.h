/* rotate - a model turned into an equivalent one whose vectors are turned by orthogonal matrices: weights without large ones among many small, as some
 * quantizers want them (QuaRot, Ashkboos et al. 2024; SpinQuant, Liu et al. 2024). The file is an ordinary one: nothing is turned while it runs.
 *
 *   R1: the residual stream x becomes Q x      embeddings Q e    norm weights g -> 1    q, k, v, gate, up, router, head: Q (g w) of each row
 *                                              o, down: Q of each column, their biases too
 *   R2: each value head v becomes P v          v: P of each head's rows, its bias too    o: P of each head's columns
 *
 * Exact for RMS norms: |Q x| = |x|. Which weights read and write the stream is read off the model's own equations (recorded.h); what cannot be turned is
 * refused with the op, its weight and the reason: LayerNorm, norms behind blocks, anything that works on single columns.
 *
 * Q, P = (H x C) S: signs S from the seed, a Walsh-Hadamard matrix H over 2^k neighbours, C the Hartley matrix of order m, n = 2^k m. */
#pragma once
#include "src/model.h"

struct rotate;
struct rotate_options {
    uint64_t seed;            /* below 2^63 */
    bool no_r1, no_r2;
    bool untie;               /* a head that is the embedding becomes a tensor of its own, where R1 makes them two */
    bool allow_requantize;    /* weights that are quantized are written in `type`, too */
    const struct dtype *type; /* of the turned matrices that were not F32: F32, F16, BF16 */
    int n_threads;            /* 0: as many as there are cores */
    bool (*progress)(void *ctx, int64_t done, const char *tensor); /* done: bytes written. false: ERR_INTERRUPTED. May be NULL */
    void *ctx;
};
/* rotate_open - for a model that stays open; path: its file, for errors. ERR_FORMAT: not exact; ERR_USAGE: needs untie or allow_requantize, nothing to turn,
 * turned already. */
status rotate_open(struct rotate **out, const struct model *m, const char *path, const struct rotate_options *o, struct err *e) MUST_USE;
void rotate_close(struct rotate *r); /* accepts NULL */
int64_t rotate_n(const struct rotate *r);      /* tensors that change */
size_t rotate_bytes(const struct rotate *r);   /* of the new file */
const char *rotate_head(const struct rotate *r); /* the head that the file gets, NULL: none */
/* rotate_write - the whole file or none; a matrix at a time is in memory. ERR_FORMAT names values that are not finite or too large for the type. */
status rotate_write(struct rotate *r, const char *path, struct err *e) MUST_USE;
