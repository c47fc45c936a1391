/* avx2_tiles - how the AVX2 levels lay out activations and panels: blocks of 32 columns, each with all that its columns need, in one stream.
 *
 * ACT_8. In units of U[t], one float per token and 256 columns, max|x| / 32000, every value is a small integer expression:
 *   x[t][k] = U (D (a - 128) + mid) = U (D a + o)       a in 1..255, D in 1..253, |o|, |mid| < 2^15, one D and o for 16 columns
 * so that D is the second operand of the madd which widens the int16 sums, and the offset one more madd with the sums of the codes: one
 * conversion and one FMA by the scale of the weights close 32 columns. D is rounded up; its 8 bits cost 1 % of the error variance. The 16 columns
 * of a D are those with k % 4 < 2 (lane 0) or >= 2 (lane 1) of 32: four columns of a row are one int32 lane of a product, two int16 sums.
 *
 * With VNNI, which sums the four products of a dword in int32, a D belongs to 16 columns in their order, and codes may have 8 bits:
 *   x[t][k] = U (D (a - 128) + mid)
 * Where 16 products fit in int16, the sum of the codes joins theirs in one register of pairs, and one madd multiplies by D and mid. */
#pragma once
#include "ggml-like/kernels/avx2_blocks.h"
#include "ggml-like/kernels/levels.h"

#ifdef VNNI_TILES
/* 6: to start two vpdpbusd a cycle, whose latency is 4, 8 sums are few (34 to 37 multiply-adds a cycle; 12: 40), and each load serves more */
enum { NT = 6, VNNI = true, CODE_MAX_8 = 128 };
#else
enum { NT = 4, VNNI = false, CODE_MAX_8 = 64 };
#endif
enum { SLOTS = (NT + 3) / 4 * 4 }; /* tokens are quantized four at a time */
enum { BLOCK = 32, SPAN = 256 /* columns of a unit */, BLOCK_CODES = BLOCK * PANEL_ROWS };

struct act8 {
    uint8_t a[BLOCK / 4][NT][4];
#ifdef VNNI_TILES
    int16_t dm[2][NT][2], minus_mid[NT][2]; /* D and -mid of the first and the last 16 columns; both -mid */
#else
    int16_t d[NT][2], o[NT][2], mid[NT][2];
#endif
    float sum[2][NT], sum32[SLOTS]; /* of x / U over 16 columns in their order, and over 32 */
};

/* x = U y, |y| <= 32767; pairs 2i, 2i + 1 hold columns 4i, 4i + 2 and 4i + 1, 4i + 3: so panels are made by shifts */
struct act15 {
    int16_t y[BLOCK / 2][NT][2];
    float sum[2][NT], sum32[SLOTS];
};

static inline size_t act_block_bytes(enum act_form form) { return form == ACT_8 ? sizeof(struct act8) : sizeof(struct act15); }

/* A tile: its blocks, then U [k/256][NT]. */
static inline size_t act_units_at(enum act_form form, int64_t cols) { return ((size_t)cols + BLOCK - 1) / BLOCK * act_block_bytes(form); }

/* A block of a panel for ACT_8:
 *   int8   code [8][16][4]
 *   int16  sums [chains][16][2]       of the codes of each int16 chain, the two lanes apart
 *                                     VNNI: [16][2], minus the sums over the first and the last 16 columns, in the same room
 *   float  scale [32/group][16], min [32/group][16] if has_min
 * and for ACT_15: int16 code [16][16][2], scale, min. */
struct panel_layout {
    int chains;
    size_t scale, min, bytes; /* offsets of scale and min; size */
};

/* Chains of int16 sums: for ACT_8 8 / chains products of 2 columns fit, of a - 128 (at most 127) times codes. */
static inline struct panel_layout panel_layout(enum act_form form, int group, int code_max, bool has_min)
{
    size_t floats = (size_t)(BLOCK / group) * PANEL_ROWS * sizeof(float);
    struct panel_layout l = { .chains = code_max > 32 ? 4 : code_max > 16 || group == 16 ? 2 : 1, .scale = 2 * BLOCK_CODES };
    if (form == ACT_8) l.scale = BLOCK_CODES + (size_t)l.chains * PANEL_ROWS * 2 * sizeof(int16_t);
    l.min = l.scale + floats;
    l.bytes = l.min + (has_min ? floats : 0);
    return l;
}
