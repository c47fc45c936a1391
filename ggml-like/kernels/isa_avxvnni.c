/* arch: x86_64  cflags: -mavx2 -mfma -mf16c -mavxvnni */
/* isa_avxvnni - the level of AVX-VNNI: the 256-bit form of VNNI on CPUs without AVX-512 (Alder Lake and later), on top of AVX2. */
#include "ggml-like/kernels/levels.h"

void kernels_init_avxvnni(struct kernels *k)
{
    kernels_init_avxvnni_act(k);
    kernels_init_avxvnni_panel(k);
    kernels_init_avxvnni_tile(k);
    kernels_init_avxvnni_rowdot(k);
}
