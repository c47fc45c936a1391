/* gguf_use - what a program may do with an opened file: every look-up, every getter, every byte of every value, the ends of every
 * tensor and its first block as floats. Under the sanitizers this is the proof that open validated enough. Shared with fuzz/. */
#pragma once
#include "ggml-like/gguf.h"
#include <string.h>

static inline uint64_t gguf_use_kv(const struct gguf *g, const struct gguf_kv *kv)
{
    uint64_t sum = kv->n;
    char text[32];
    sum += strlen(gguf_kv_text(kv, text));
    const uint8_t *p = kv->data;
    for (uint64_t i = 0; i < kv->n; i++) {
        if (kv->elem == KV_STR) {
            struct str s = gguf_arr_str(&p);
            for (size_t k = 0; k < s.n; k++) sum += (uint8_t)s.p[k];
        } else if (kv->elem == KV_F32 || kv->elem == KV_F64) {
            sum += gguf_arr_f32(kv, i) > 0.0f;
        } else {
            sum += (uint64_t)gguf_arr_i64(kv, i);
        }
    }
    char key[256];
    if (kv->key.n >= sizeof key) return sum;
    memcpy(key, kv->key.p, kv->key.n);
    key[kv->key.n] = 0;
    struct err e = { 0 };
    int64_t i;
    float f;
    bool b;
    struct str s;
    const struct gguf_kv *arr;
    sum += gguf_find(g, key) == kv;
    sum += gguf_get_i64(g, key, -1000, 1000, &i, &e) + gguf_get_f32(g, key, &f, &e) + gguf_get_bool(g, key, &b, &e);
    sum += gguf_get_str(g, key, &s, &e) + gguf_get_arr(g, key, kv->elem, &arr, &e);
    return sum;
}

static inline uint64_t gguf_use(const struct gguf *g)
{
    uint64_t sum = 0;
    for (int64_t i = 0; i < g->n_kv; i++) sum += gguf_use_kv(g, &g->kv[i]);
    for (int64_t i = 0; i < g->n_tensors; i++) {
        const struct tensor *t = &g->tensor[i];
        const uint8_t *data = t->data;
        float w[BLOCK_MAX];
        char text[64];
        sum += gguf_tensor(g, t->name) == t;
        sum += data[0] + data[tensor_bytes(t) - 1] + strlen(tensor_shape_text(t, text));
        dtype_to_f32(t->type, data, w, t->type->block_len);
        sum += w[0] > 0.0f;
    }
    return sum;
}
