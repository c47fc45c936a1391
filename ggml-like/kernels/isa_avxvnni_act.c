/* arch: x86_64  cflags: -mavx2 -mfma -mf16c */
/* isa_avxvnni_act - activations for AVX-VNNI: tiles of 6 tokens. */
#define VNNI_TILES
#include "ggml-like/kernels/avx2_act_tmpl.h"

void kernels_init_avxvnni_act(struct kernels *k)
{
    k->code_max_8 = CODE_MAX_8;
    init_tiles(k);
}
