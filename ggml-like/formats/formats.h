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
struct PACKED block_q8_1 { uint16_t d, s; int8_t qs[32]; };
struct PACKED block_iq2_xxs { uint16_t d; struct PACKED { uint8_t qs[4]; uint32_t signs; } group[8]; };
struct PACKED block_iq2_xs { uint16_t d, qs[32]; uint8_t scales[8]; };
struct PACKED block_iq2_s { uint16_t d; uint8_t qs[32], signs[32], qh[8], scales[8]; };
struct PACKED block_iq3_xxs { uint16_t d; uint8_t qs[64]; uint32_t signs[8]; };
struct PACKED block_iq3_s { uint16_t d; uint8_t qs[64], qh[8], signs[32], scales[4]; };
struct PACKED block_iq1_s { uint16_t d; uint8_t qs[32]; uint16_t qh[8]; };
struct PACKED block_iq1_m { uint8_t qs[32], qh[16]; uint16_t scales[4]; };
struct PACKED block_iq4_nl { uint16_t d; uint8_t qs[16]; };
struct PACKED block_iq4_xs { uint16_t d, scales_h; uint8_t scales_l[4], qs[128]; };
struct PACKED block_tq1_0 { uint8_t qs[48], qh[4]; uint16_t d; };
struct PACKED block_tq2_0 { uint8_t qs[64]; uint16_t d; };
struct PACKED block_q1_0 { uint16_t d; uint8_t qs[16]; };
struct PACKED block_q2_0 { uint16_t d; uint8_t qs[16]; };
struct PACKED block_mxfp4 { uint8_t e, qs[16]; };
struct PACKED block_nvfp4 { uint8_t d[4], qs[32]; };

_Static_assert(sizeof(struct block_q4_0) == 18 && sizeof(struct block_q4_1) == 20, "fixed by the GGUF file format");
_Static_assert(sizeof(struct block_q5_0) == 22 && sizeof(struct block_q5_1) == 24, "fixed by the GGUF file format");
_Static_assert(sizeof(struct block_q8_0) == 34 && sizeof(struct block_q8_k) == 292, "fixed by the GGUF file format");
_Static_assert(sizeof(struct block_q2_k) == 84 && sizeof(struct block_q3_k) == 110, "fixed by the GGUF file format");
_Static_assert(sizeof(struct block_q4_k) == 144 && sizeof(struct block_q5_k) == 176, "fixed by the GGUF file format");
_Static_assert(sizeof(struct block_q6_k) == 210, "fixed by the GGUF file format");
_Static_assert(sizeof(struct block_q8_1) == 36, "fixed by the GGUF file format");
_Static_assert(sizeof(struct block_iq2_xxs) == 66 && sizeof(struct block_iq2_xs) == 74, "fixed by the GGUF file format");
_Static_assert(sizeof(struct block_iq2_s) == 82 && sizeof(struct block_iq3_xxs) == 98, "fixed by the GGUF file format");
_Static_assert(sizeof(struct block_iq3_s) == 110 && sizeof(struct block_iq1_s) == 50, "fixed by the GGUF file format");
_Static_assert(sizeof(struct block_iq1_m) == 56 && sizeof(struct block_iq4_nl) == 18, "fixed by the GGUF file format");
_Static_assert(sizeof(struct block_iq4_xs) == 136 && sizeof(struct block_tq1_0) == 54, "fixed by the GGUF file format");
_Static_assert(sizeof(struct block_tq2_0) == 66 && sizeof(struct block_q1_0) == 18, "fixed by the GGUF file format");
_Static_assert(sizeof(struct block_q2_0) == 18 && sizeof(struct block_mxfp4) == 17, "fixed by the GGUF file format");
_Static_assert(sizeof(struct block_nvfp4) == 36, "fixed by the GGUF file format");

/* Codebooks (iq_tables.c). An entry is one vector: 8 level numbers of 2 bits (IQ1, IQ2) or 4 of 3 bits (IQ3), the first lowest. */
extern const uint16_t iq2_xxs_grid[256], iq2_xs_grid[512], iq2_s_grid[1024], iq1_grid[2048], iq3_xxs_grid[256], iq3_s_grid[512];
extern const int8_t iq1_levels[4], iq2_levels[4], iq3_xxs_levels[8], iq3_s_levels[8]; /* level number -> magnitude (IQ1: value) */
extern const int8_t iq4_levels[16], e2m1_levels[16];                                  /* q -> value; e2m1 doubled */

/* The same codebooks as vectors of elements without their signs, for kernels: 47 KiB, of which a row touches one. int16 because it is
 * multiplied by int16; iq1, 8 times the level, in bytes because 32 KiB would fill a first-level cache. */
extern const int16_t iq2_xxs_vectors[256][8], iq2_xs_vectors[512][8], iq2_s_vectors[1024][8], iq3_xxs_vectors[256][4], iq3_s_vectors[512][4];
extern const int8_t iq1_vectors[2048][8];
/* ... and as level numbers: the first half of all vectors, then the second; four of 2 bits or two of 3 bits in a byte */
extern const uint8_t iq2_xxs_bytes[2][256], iq2_xs_bytes[2][512], iq2_s_bytes[2][1024], iq3_xxs_pairs[2][256], iq3_s_pairs[2][512];

/* entry_code_8/4 - element i of a vector, without its sign */
static inline int8_t entry_code_8(const int8_t levels[4], uint16_t entry, int i) { return levels[entry >> 2 * i & 3]; }
static inline int8_t entry_code_4(const int8_t levels[8], uint16_t entry, int i) { return levels[entry >> 3 * i & 7]; }
/* signs_of_7 - eight sign bits from the seven that are stored: the number of set bits is even */
static inline uint8_t signs_of_7(uint32_t stored)
{
    uint32_t s = stored & 127;
    return (uint8_t)(s | (uint32_t)__builtin_parity(s) << 7);
}

extern const struct dtype dtype_f32, dtype_f16, dtype_bf16, dtype_f64, dtype_i8, dtype_i16, dtype_i32, dtype_i64;
extern const struct dtype dtype_q4_0, dtype_q4_1, dtype_q5_0, dtype_q5_1, dtype_q8_0, dtype_q8_1;
extern const struct dtype dtype_q2_k, dtype_q3_k, dtype_q4_k, dtype_q5_k, dtype_q6_k, dtype_q8_k;
extern const struct dtype dtype_iq1_s, dtype_iq1_m, dtype_iq2_xxs, dtype_iq2_xs, dtype_iq2_s, dtype_iq3_xxs, dtype_iq3_s;
extern const struct dtype dtype_iq4_nl, dtype_iq4_xs;
extern const struct dtype dtype_tq1_0, dtype_tq2_0, dtype_q1_0, dtype_q2_0, dtype_mxfp4, dtype_nvfp4;
