/* arch: aarch64  cflags: -march=armv8-a */
/* isa_neon - the level of every aarch64: ASIMD with FMA (ARMv8.0). Other levels lay their slots over it. */
#include "ggml-like/kernels/levels.h"

void kernels_init_neon(struct kernels *k)
{
    kernels_init_neon_unpack(k);
    kernels_init_neon_matmul(k);
    kernels_init_neon_rowdot(k);
    kernels_init_neon_tile(k);
    kernels_init_neon_vec(k);
}
