/* arch: x86_64  cflags: -mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mavx512vbmi -mavx512bf16 -mamx-tile -mamx-bf16 */
/* isa_amx - the level of AMX TILE and BF16 (Sapphire Rapids and later). Each product of two tile registers is 16 rows x 16 tokens x 32 columns, 8192
 * multiplications in 16 cycles: ten times those of vpdpbusd, and sums of all columns stay in the register. So weights are unpacked to BF16 with their scale,
 * which no sum of 32 columns has to meet, and activations are rounded to BF16, whose error is a third of that of bytes with an offset (in variance, on
 * Gaussian data). Bytes would be multiplied twice as fast again, but each scale would cost more than that: 3 float operations for 16 products. */
#include "ggml-like/kernels/levels.h"

void kernels_init_amx(struct kernels *k)
{
    kernels_init_amx_act(k);
    kernels_init_amx_attn(k);
    kernels_init_amx_panel(k);
    kernels_init_amx_tile(k);
}
