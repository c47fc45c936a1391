/* dtype - the list of number formats, one row each. A format is one row here and one file in formats/ that knows its bytes;
 * nothing else does. Knows base only. */
#pragma once
#include "ggml-like/base.h"

/* The plain meaning of one block of a quantized format: w[i] = scale[i / group_len] * code[i] + min[i / group_len],
 * evaluated in f32 in exactly that order (product rounded, then sum rounded) gives the reference dequantization bit for bit. */
enum { BLOCK_MAX = 256 };
struct codes {
    _Alignas(64) int8_t code[BLOCK_MAX];
    _Alignas(64) float scale[BLOCK_MAX / 16];
    _Alignas(64) float min[BLOCK_MAX / 16];     /* 0 when !has_min; already carries its sign */
};

/* The stored fields of one block as integers: what a quantizer chooses, and a format lays out in bytes (join) and takes apart (split).
 * Which fields a format has, and their ranges, stands beside its layout; fields it does not have are ignored by join and 0 after split.
 *   d, dmin   half-float bits of the (super-)scales as stored; MXFP4: d = the exponent byte; Q8_K: see d32
 *   sc, m     scale and min codes of the groups, unsigned as stored (Q3_K 0..63, Q6_K the int8 as a byte, IQ1_M 3 bits; NVFP4 the ue4m3 byte)
 *   q         codes of the elements, unsigned as stored (Q4_0 0..15, Q8_0 the int8 as a byte, TQ 0..2); formats with a codebook: q[v] =
 *             index of vector v (8 or 4 elements), other elements of q unused
 *   sign      formats with a codebook: bit i of sign[v] set = element 8v + i is negative (7-bit forms store only even numbers of set bits);
 *             IQ1_S, IQ1_M: bit 0 of sign[g] set = the shift of group g (32 or 8 elements) is -1/8, else +1/8 */
struct parts {
    uint16_t d, dmin;
    float d32;
    uint8_t sc[16], m[16];
    uint16_t q[BLOCK_MAX];
    uint8_t sign[BLOCK_MAX / 8];
};

struct dtype {
    const char *name;       /* "q4_k", lower case */
    const char *gguf_name;  /* "Q4_K", as the field writes it */
    int gguf_id;            /* ggml type number; also the index into per-type kernel slots, < DTYPE_IDS */
    int block_len;          /* weights in a block; 1 for plain floats */
    int block_bytes;
    int group_len;          /* weights that share scale[] and min[]: 16 or 32; 0 for floats */
    bool has_min;
    int code_bias;          /* code - code_bias is centred; what int8 kernels multiply */
    int code_max;           /* max |code - code_bias| over all blocks; bounds the int16 chains of the tiles */
    void (*unpack)(const void *block, struct codes *out);           /* quantized formats: the truth about the bytes */
    void (*to_f32)(const void *src, float *dst, int64_t n);         /* float formats: n elements */
    void (*from_f32)(const float *src, void *dst, int64_t n);       /* some float formats: pack for n elements */
    void (*pack)(const float *x, void *block);                      /* round to nearest, one block; NULL if not offered */
    void (*join)(const struct parts *p, void *block);               /* quantized formats: fields to bytes. Fields within their ranges */
    void (*split)(const void *block, struct parts *p);              /* bytes to fields: join(split(b)) == b for bytes in their canonical form */
};

enum { DTYPE_IDS = 48 };
/* Type numbers of the GGUF format (ggml.h). */
enum gguf_type_id {
    GGUF_F32 = 0, GGUF_F16 = 1, GGUF_Q4_0 = 2, GGUF_Q4_1 = 3, GGUF_Q5_0 = 6, GGUF_Q5_1 = 7, GGUF_Q8_0 = 8,
    GGUF_Q8_1 = 9, GGUF_Q2_K = 10, GGUF_Q3_K = 11, GGUF_Q4_K = 12, GGUF_Q5_K = 13, GGUF_Q6_K = 14, GGUF_Q8_K = 15,
    GGUF_IQ2_XXS = 16, GGUF_IQ2_XS = 17, GGUF_IQ3_XXS = 18, GGUF_IQ1_S = 19, GGUF_IQ4_NL = 20, GGUF_IQ3_S = 21, GGUF_IQ2_S = 22,
    GGUF_IQ4_XS = 23, GGUF_I8 = 24, GGUF_I16 = 25, GGUF_I32 = 26, GGUF_I64 = 27, GGUF_F64 = 28, GGUF_IQ1_M = 29, GGUF_BF16 = 30,
    GGUF_TQ1_0 = 34, GGUF_TQ2_0 = 35, GGUF_MXFP4 = 39, GGUF_NVFP4 = 40, GGUF_Q1_0 = 41, GGUF_Q2_0 = 42,
};

extern const struct dtype *const dtypes[]; /* all rows */
extern const int dtype_count;

/* dtype_by_id/by_name - NULL if this build has no such row. Names compare without case. */
const struct dtype *dtype_by_id(int64_t gguf_id);
const struct dtype *dtype_by_name(const char *name);
/* dtype_id_text - a phrase for errors about an id without a row: "removed type Q4_2",
 * "IQ4_KS (made by ik_llama.cpp)", "unknown to this build"; the GGUF name for ids with a row. */
const char *dtype_id_text(int64_t gguf_id);

/* row_bytes - bytes of n elements; n must be a multiple of block_len (caller checked). */
size_t dtype_row_bytes(const struct dtype *t, int64_t n);
/* dtype_to_f32 - dequantizes n elements (multiple of block_len) with the scalar truth. Any thread. */
void dtype_to_f32(const struct dtype *t, const void *src, float *dst, int64_t n);
/* dtype_from_f32 - packs n elements; t->pack must exist (float formats included). */
void dtype_from_f32(const struct dtype *t, const float *src, void *dst, int64_t n);

/* Scalar conversions, round to nearest even, NaN stays NaN. */
float f16_to_f32(uint16_t h);
uint16_t f32_to_f16(float f);
float bf16_to_f32(uint16_t h);
uint16_t f32_to_bf16(float f);
