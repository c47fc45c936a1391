/* session_int - the inside of struct session, and a hash for telling files apart. For src/ only. */
#pragma once
#include "src/engine.h"
#include "src/state.h"
#include <string.h>

struct session {
    struct engine *en;
    struct state state;
    int64_t n_ctx, pos;
    int32_t *token; /* [n_ctx] */
};

/* engine_adapters - a fingerprint of the adapters in use, 0: none. */
uint64_t engine_adapters(const struct engine *en);
/* engine_adapter_names - their files with their scales, "none" without any; cut to what fits. Returns buf [cap]. */
const char *engine_adapter_names(const struct engine *en, char *buf, size_t cap);
/* model_fingerprint - of what decides a session's numbers: architecture, file size, tensors' names, types, shapes and first bytes. */
uint64_t model_fingerprint(const struct model *m);
/* rope_fingerprint - of its positions, which options can change. */
uint64_t rope_fingerprint(const struct model *m);

/* hash64 - over a stream of bytes, independent of how it is cut. Each 64-bit word enters by steps that can be undone, so that two streams of one
 * length that differ in a single word never agree. Against accidents, not against forgers. */
struct hash64 {
    uint64_t h, n;
    uint8_t tail[8];
};

static inline uint64_t hash64_step(uint64_t h, uint64_t w)
{
    h = (h ^ w) * 0x9e3779b97f4a7c15u;
    return h ^ h >> 29;
}

static inline void hash64_add(struct hash64 *x, const void *data, size_t n)
{
    const uint8_t *p = data;
    for (; n > 0 && x->n % 8 != 0; n--, p++) { /* the word that was begun */
        x->tail[x->n++ % 8] = *p;
        uint64_t w;
        memcpy(&w, x->tail, sizeof w);
        if (x->n % 8 == 0) x->h = hash64_step(x->h, w);
    }
    for (; n >= 8; n -= 8, p += 8, x->n += 8) {
        uint64_t w;
        memcpy(&w, p, sizeof w);
        x->h = hash64_step(x->h, w);
    }
    for (; n > 0; n--) x->tail[x->n++ % 8] = *p++;
}

static inline uint64_t hash64_end(const struct hash64 *x)
{
    uint64_t w = 0;
    memcpy(&w, x->tail, x->n % 8);
    return hash64_step(hash64_step(x->h, w), x->n);
}
