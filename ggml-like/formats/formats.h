/* formats - the rows of the formats folder and the byte layouts that the fast kernels share with them.
 * Each layout is drawn in the .c file of its family. Packed: blocks in a file have no alignment beyond 1.
 * Half floats are uint16_t bit patterns; all fields little-endian. Knows dtype only. */
#pragma once
#include "ggml-like/dtype.h"

#define PACKED __attribute__((packed))

struct PACKED block_q4_0 { uint16_t d; uint8_t qs[16]; };
struct PACKED block_q4_1 { uint16_t d, m; uint8_t qs[16]; };
struct PACKED block_q5_0 { uint16_t d; uint32_t qh; uint8_t qs[16]; };
struct PACKED block_q5_1 { uint16_t d, m; uint32_t qh; uint8_t qs[16]; };
struct PACKED block_q8_0 { uint16_t d; int8_t qs[32]; };
struct PACKED block_q2_k { uint8_t scales[16], qs[64]; uint16_t d, dmin; };
struct PACKED block_q3_k { uint8_t hmask[32], qs[64], scales[12]; uint16_t d; };
struct PACKED block_q4_k { uint16_t d, dmin; uint8_t scales[12], qs[128]; };
struct PACKED block_q5_k { uint16_t d, dmin; uint8_t scales[12], qh[32], qs[128]; };
struct PACKED block_q6_k { uint8_t ql[128], qh[64]; int8_t scales[16]; uint16_t d; };
struct PACKED block_q8_k { float d; int8_t qs[256]; int16_t bsums[16]; };

_Static_assert(sizeof(struct block_q4_0) == 18 && sizeof(struct block_q4_1) == 20, "fixed by the GGUF file format");
_Static_assert(sizeof(struct block_q5_0) == 22 && sizeof(struct block_q5_1) == 24, "fixed by the GGUF file format");
_Static_assert(sizeof(struct block_q8_0) == 34 && sizeof(struct block_q8_k) == 292, "fixed by the GGUF file format");
_Static_assert(sizeof(struct block_q2_k) == 84 && sizeof(struct block_q3_k) == 110, "fixed by the GGUF file format");
_Static_assert(sizeof(struct block_q4_k) == 144 && sizeof(struct block_q5_k) == 176, "fixed by the GGUF file format");
_Static_assert(sizeof(struct block_q6_k) == 210, "fixed by the GGUF file format");

extern const struct dtype dtype_f32, dtype_f16, dtype_bf16;
extern const struct dtype dtype_q4_0, dtype_q4_1, dtype_q5_0, dtype_q5_1, dtype_q8_0;
extern const struct dtype dtype_q2_k, dtype_q3_k, dtype_q4_k, dtype_q5_k, dtype_q6_k, dtype_q8_k;
