/* dtype - the list of formats, look-ups, and row conversions through a format's own unpack and pack.
 * Must not know any block layout: those live in formats/. */
#include "ggml-like/formats/formats.h"
#include <strings.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "file bytes are used in place: little-endian machines only");

const struct dtype *const dtypes[] = {
    &dtype_f32, &dtype_f16, &dtype_bf16, &dtype_f64, &dtype_i8, &dtype_i16, &dtype_i32, &dtype_i64,
    &dtype_q4_0, &dtype_q4_1, &dtype_q5_0, &dtype_q5_1, &dtype_q8_0, &dtype_q8_1,
    &dtype_q2_k, &dtype_q3_k, &dtype_q4_k, &dtype_q5_k, &dtype_q6_k, &dtype_q8_k,
    &dtype_iq1_s, &dtype_iq1_m, &dtype_iq2_xxs, &dtype_iq2_xs, &dtype_iq2_s, &dtype_iq3_xxs, &dtype_iq3_s, &dtype_iq4_nl, &dtype_iq4_xs,
    &dtype_tq1_0, &dtype_tq2_0, &dtype_q1_0, &dtype_q2_0, &dtype_mxfp4, &dtype_nvfp4,
};
const int dtype_count = ARRAY_LEN(dtypes);

const struct dtype *dtype_by_id(int64_t gguf_id)
{
    for (int i = 0; i < dtype_count; i++)
        if (dtypes[i]->gguf_id == gguf_id) return dtypes[i];
    return NULL;
}

const struct dtype *dtype_by_name(const char *name)
{
    for (int i = 0; i < dtype_count; i++)
        if (!strcasecmp(dtypes[i]->name, name)) return dtypes[i];
    return NULL;
}

/* Ids without a row. Sources: ggml.h for 0..47, ik_llama.cpp's ggml.h from 133 on. */
static const struct { int first, last; const char *text; } other_ids[] = {
    { 4, 4, "removed type Q4_2" }, { 5, 5, "removed type Q4_3" },
    { 31, 31, "removed type Q4_0_4_4" }, { 32, 32, "removed type Q4_0_4_8" }, { 33, 33, "removed type Q4_0_8_8" },
    { 36, 36, "removed type IQ4_NL_4_4" }, { 37, 37, "removed type IQ4_NL_4_8" }, { 38, 38, "removed type IQ4_NL_8_8" },
    { 133, 133, "Q6_0 (made by ik_llama.cpp)" }, { 134, 134, "IQ1_BN (made by ik_llama.cpp)" },
    { 135, 135, "IQ2_BN (made by ik_llama.cpp)" }, { 137, 137, "IQ2_K (made by ik_llama.cpp)" },
    { 138, 138, "IQ3_K (made by ik_llama.cpp)" }, { 139, 139, "IQ4_K (made by ik_llama.cpp)" },
    { 140, 140, "IQ5_K (made by ik_llama.cpp)" }, { 141, 141, "IQ6_K (made by ik_llama.cpp)" },
    { 144, 144, "IQ4_KS (made by ik_llama.cpp)" }, { 145, 145, "IQ2_KS (made by ik_llama.cpp)" },
    { 146, 146, "IQ4_KSS (made by ik_llama.cpp)" }, { 152, 152, "IQ5_KS (made by ik_llama.cpp)" },
    { 153, 153, "IQ2_KT (made by ik_llama.cpp)" }, { 154, 154, "IQ3_KT (made by ik_llama.cpp)" },
    { 155, 155, "IQ4_KT (made by ik_llama.cpp)" }, { 156, 156, "IQ3_KS (made by ik_llama.cpp)" },
    { 157, 157, "IQ2_KL (made by ik_llama.cpp)" }, { 158, 158, "IQ1_KT (made by ik_llama.cpp)" },
    { 202, 399, "row-interleaved type (made by ik_llama.cpp)" },
};

const char *dtype_id_text(int64_t gguf_id)
{
    const struct dtype *t = dtype_by_id(gguf_id);
    if (t) return t->gguf_name;
    for (int i = 0; i < ARRAY_LEN(other_ids); i++)
        if (gguf_id >= other_ids[i].first && gguf_id <= other_ids[i].last) return other_ids[i].text;
    return "unknown to this build";
}

size_t dtype_row_bytes(const struct dtype *t, int64_t n) { return (size_t)(n / t->block_len) * (size_t)t->block_bytes; }

void dtype_to_f32(const struct dtype *t, const void *src, float *dst, int64_t n)
{
    if (t->to_f32) {
        t->to_f32(src, dst, n);
        return;
    }
    const uint8_t *block = src;
    for (int64_t at = 0; at < n; at += t->block_len, block += t->block_bytes) {
        struct codes c;
        t->unpack(block, &c);
        for (int i = 0; i < t->block_len; i++) {
            int g = i / t->group_len;
            float w = c.scale[g] * (float)c.code[i];
            dst[at + i] = t->has_min ? w + c.min[g] : w; /* adding 0 would turn -0 into +0 */
        }
    }
}

void dtype_from_f32(const struct dtype *t, const float *src, void *dst, int64_t n)
{
    if (t->from_f32) {
        t->from_f32(src, dst, n);
        return;
    }
    uint8_t *block = dst;
    for (int64_t at = 0; at < n; at += t->block_len, block += t->block_bytes) t->pack(src + at, block);
}
