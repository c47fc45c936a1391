/* arch: aarch64  cflags: -march=armv8-a */
/* isa_neon_unpack - the unpack slots for the base architecture, and the same for a chunk at once, of which panels are built. */
#include "ggml-like/kernels/levels.h"
#include "ggml-like/kernels/neon.h"
#include "ggml-like/kernels/neon_formats.h"

INLINE void unpack_chunk(const uint8_t *w, int weights, int at, struct codes *out, const struct neon_format f)
{
    int8x16_t bias = vdupq_n_s8((int8_t)f.bias);
    UNROLL
    for (int g = 0; g < weights / 32; g++) {
        struct codes32 c = f.codes(w, g);
        vst1q_s8(out->code + at + 32 * g, f.bias ? vaddq_s8(c.low, bias) : c.low);
        vst1q_s8(out->code + at + 32 * g + 16, f.bias ? vaddq_s8(c.high, bias) : c.high);
    }
    float32x4_t s[4], m[4];
    f.scales(w, s, m);
    UNROLL
    for (int i = 0; i < (weights / f.group + 3) / 4; i++) {
        vst1q_f32(out->scale + at / f.group + 4 * i, s[i]);
        vst1q_f32(out->min + at / f.group + 4 * i, f.has_min ? m[i] : vdupq_n_f32(0.0f));
    }
}

/* one block; a format that takes its scales from several gets the others as zeros */
INLINE void unpack_block(const void *block, struct codes *out, const struct neon_format f)
{
    uint8_t padded[512] = { 0 };
    _Static_assert(sizeof padded >= sizeof(struct block_q8_k), "the largest chunk");
    if (f.block_len < f.chunk) memcpy(padded, block, (size_t)f.block_bytes);
    unpack_chunk(f.block_len < f.chunk ? padded : block, f.block_len, 0, out, f);
}

#define UNPACK(id, name, ...)                                                                                                           \
    static void chunk_##name(const uint8_t *w, int at, struct codes *out)                                                               \
    {                                                                                                                                   \
        const struct neon_format f = NEON_FORMAT(name, __VA_ARGS__);                                                                    \
        unpack_chunk(w, f.chunk, at, out, f);                                                                                           \
    }                                                                                                                                   \
    static void unpack_##name(const void *block, struct codes *out) { unpack_block(block, out, NEON_FORMAT(name, __VA_ARGS__)); }
NEON_FORMATS(UNPACK)

#define CHUNK_ROW(id, name, chunk, ...) [id] = { chunk, chunk_##name },
const struct neon_unpack neon_unpack[DTYPE_IDS] = { NEON_FORMATS(CHUNK_ROW) };

void kernels_init_neon_unpack(struct kernels *k)
{
#define UNPACK_SLOT(id, name, ...) k->unpack[id] = unpack_##name;
    NEON_FORMATS(UNPACK_SLOT)
}
