/* arch: x86_64  cflags: -mavx2 -mfma -mf16c -mavx512f -mavx512dq */
/* isa_avx512 - the searches and the solver in AVX-512, sixteen lanes: the bytes are those of the base level. */
#include "quant/lanes_avx512.h"
#include "quant/search_tmpl.h"

void quant_init_avx512(struct quant_kernels *k)
{
    k->name = "avx512";
    fill_rows(k);
}
