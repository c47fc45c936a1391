/* arch: x86_64  cflags: -mavx2 -mfma -mf16c */
/* isa_avx2 - the level of AVX2, FMA and F16C. Other levels lay their slots over it. */
#include "ggml-like/kernels/levels.h"

void kernels_init_avx2(struct kernels *k)
{
    kernels_init_avx2_act(k);
    kernels_init_avx2_panel(k);
    kernels_init_avx2_tile(k);
    kernels_init_avx2_unpack(k);
    kernels_init_avx2_rowdot(k);
    kernels_init_avx2_rowdot_iq(k);
    kernels_init_avx2_vec(k);
}
