/* arch: aarch64  cflags: -march=armv8.2-a+dotprod+i8mm */
/* isa_i8mm - the level of the ARMv8.6 matrix products of bytes and the dot product of unsigned by signed bytes. */
#include "ggml-like/kernels/levels.h"

void kernels_init_i8mm(struct kernels *k)
{
    kernels_init_i8mm_tile(k);
}
