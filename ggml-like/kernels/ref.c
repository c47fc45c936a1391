/* ref - the weakest level: plain C for every slot. It is the fallback of every CPU and the oracle of every test. */
#include "ggml-like/kernels/levels.h"

void kernels_init_ref(struct kernels *k)
{
    kernels_init_ref_matmul(k);
    kernels_init_ref_vec(k);
}
