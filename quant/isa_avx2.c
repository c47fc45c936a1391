/* arch: x86_64  cflags: -mavx2 -mfma -mf16c */
/* isa_avx2 - the searches and the solver in AVX2, eight lanes: the bytes are those of the base level. */
#include "quant/lanes_avx2.h"
#include "quant/search_tmpl.h"

void quant_init_avx2(struct quant_kernels *k)
{
    k->name = "avx2";
    fill_rows(k);
}
