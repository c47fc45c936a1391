/* arch: aarch64  cflags: -march=armv8.2-a+dotprod */
/* isa_dotprod - the level of the ARMv8.2 dot products of bytes (sdot, udot). */
#include "ggml-like/kernels/levels.h"

void kernels_init_dotprod(struct kernels *k)
{
    kernels_init_dotprod_rowdot(k);
    kernels_init_dotprod_tile(k);
}
