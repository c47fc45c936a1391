/* iq_tables - the constants of the codebook formats as data: grids (iq_grids.h) and levels. Source: ggml-common.h (MIT). */
#include "ggml-like/formats/formats.h"
#include "ggml-like/formats/iq_grids.h"

#define ENTRY(v) v,
const uint16_t iq2_xxs_grid[256] = { IQ2_XXS_GRID(ENTRY) };
const uint16_t iq2_xs_grid[512] = { IQ2_XS_GRID(ENTRY) };
const uint16_t iq2_s_grid[1024] = { IQ2_S_GRID(ENTRY) };
const uint16_t iq3_xxs_grid[256] = { IQ3_XXS_GRID(ENTRY) };
const uint16_t iq3_s_grid[512] = { IQ3_S_GRID(ENTRY) };
const uint16_t iq1_grid[2048] = { IQ1_GRID(ENTRY) };

/* The same vectors, element by element and ready to be multiplied. */
#define LEVEL2(v, i) ((v) >> 2 * (i) & 3)
#define IQ2_LEVEL(v, i) (LEVEL2(v, i) == 0 ? 8 : LEVEL2(v, i) == 1 ? 25 : 43)
#define IQ2_VECTOR(v) \
    { IQ2_LEVEL(v, 0), IQ2_LEVEL(v, 1), IQ2_LEVEL(v, 2), IQ2_LEVEL(v, 3), IQ2_LEVEL(v, 4), IQ2_LEVEL(v, 5), IQ2_LEVEL(v, 6), IQ2_LEVEL(v, 7) },
const int16_t iq2_xxs_vectors[256][8] = { IQ2_XXS_GRID(IQ2_VECTOR) };
const int16_t iq2_xs_vectors[512][8] = { IQ2_XS_GRID(IQ2_VECTOR) };
const int16_t iq2_s_vectors[1024][8] = { IQ2_S_GRID(IQ2_VECTOR) };

#define LEVEL3(v, i) ((v) >> 3 * (i) & 7)
#define IQ3_XXS_LEVEL(v, i) (LEVEL3(v, i) == 7 ? 62 : 4 + 8 * LEVEL3(v, i))
#define IQ3_XXS_VECTOR(v) { IQ3_XXS_LEVEL(v, 0), IQ3_XXS_LEVEL(v, 1), IQ3_XXS_LEVEL(v, 2), IQ3_XXS_LEVEL(v, 3) },
#define IQ3_S_LEVEL(v, i) (1 + 2 * LEVEL3(v, i))
#define IQ3_S_VECTOR(v) { IQ3_S_LEVEL(v, 0), IQ3_S_LEVEL(v, 1), IQ3_S_LEVEL(v, 2), IQ3_S_LEVEL(v, 3) },
const int16_t iq3_xxs_vectors[256][4] = { IQ3_XXS_GRID(IQ3_XXS_VECTOR) };
const int16_t iq3_s_vectors[512][4] = { IQ3_S_GRID(IQ3_S_VECTOR) };

/* Entries cut in two bytes: four level numbers of 2 bits, or two of 3 bits. */
#define LOW_BYTE(v) (v) & 255,
#define HIGH_BYTE(v) (v) >> 8,
const _Alignas(64) uint8_t iq2_xxs_bytes[2][256] = { { IQ2_XXS_GRID(LOW_BYTE) }, { IQ2_XXS_GRID(HIGH_BYTE) } };
const _Alignas(64) uint8_t iq2_xs_bytes[2][512] = { { IQ2_XS_GRID(LOW_BYTE) }, { IQ2_XS_GRID(HIGH_BYTE) } };
const _Alignas(64) uint8_t iq2_s_bytes[2][1024] = { { IQ2_S_GRID(LOW_BYTE) }, { IQ2_S_GRID(HIGH_BYTE) } };
#define LOW_PAIR(v) (v) & 63,
#define HIGH_PAIR(v) (v) >> 6,
const _Alignas(64) uint8_t iq3_xxs_pairs[2][256] = { { IQ3_XXS_GRID(LOW_PAIR) }, { IQ3_XXS_GRID(HIGH_PAIR) } };
const _Alignas(64) uint8_t iq3_s_pairs[2][512] = { { IQ3_S_GRID(LOW_PAIR) }, { IQ3_S_GRID(HIGH_PAIR) } };

#define IQ1_LEVEL(v, i) (8 * (LEVEL2(v, i) - 1))
#define IQ1_VECTOR(v) \
    { IQ1_LEVEL(v, 0), IQ1_LEVEL(v, 1), IQ1_LEVEL(v, 2), IQ1_LEVEL(v, 3), IQ1_LEVEL(v, 4), IQ1_LEVEL(v, 5), IQ1_LEVEL(v, 6), IQ1_LEVEL(v, 7) },
const int8_t iq1_vectors[2048][8] = { IQ1_GRID(IQ1_VECTOR) };

const int8_t iq1_levels[4] = { -1, 0, 1, 0 };
const int8_t iq2_levels[4] = { 8, 25, 43, 0 };
const int8_t iq3_xxs_levels[8] = { 4, 12, 20, 28, 36, 44, 52, 62 };
const int8_t iq3_s_levels[8] = { 1, 3, 5, 7, 9, 11, 13, 15 };
const int8_t iq4_levels[16] = { -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113 };
const int8_t e2m1_levels[16] = { 0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12 };
