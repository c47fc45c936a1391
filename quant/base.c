/* base - the searches in the compiler's own vectors: every machine has this level, and the others must give its bytes. */
#include "quant/lanes_base.h"
#define V_LEVEL(name) name##_base
#include "quant/search_k_tmpl.h"
#include "quant/search_iq_tmpl.h"
#include "quant/search_direct_tmpl.h"

void quant_init_base(struct quant_kernels *k)
{
    k->name = "base";
    k_rows(k);
    iq_rows(k);
    direct_rows(k);
}
