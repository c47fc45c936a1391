/* arch: x86_64  cflags: -mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni */
/* isa_avx512 - the level of AVX-512 F, BW, DQ, VL and VNNI. */
#include "ggml-like/kernels/levels.h"

void kernels_init_avx512(struct kernels *k)
{
    kernels_init_avx512_act(k);
    kernels_init_avx512_panel(k);
    kernels_init_avx512_tile(k);
    kernels_init_avx512_rowdot(k);
    kernels_init_avx512_rowdot_iq(k);
    kernels_init_avx512_vec(k);
}
