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

const int8_t iq1_levels[4] = { -1, 0, 1, 0 };
const int8_t iq2_levels[4] = { 8, 25, 43, 0 };
const int8_t iq3_xxs_levels[8] = { 4, 12, 20, 28, 36, 44, 52, 62 };
const int8_t iq3_s_levels[8] = { 1, 3, 5, 7, 9, 11, 13, 15 };
const int8_t iq4_levels[16] = { -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113 };
const int8_t e2m1_levels[16] = { 0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12 };
