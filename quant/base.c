/* base - the searches in the compiler's own vectors: every machine has this level, and the others must give its bytes. */
#include "quant/lanes_base.h"
#include "quant/search_tmpl.h"

void quant_init_base(struct quant_kernels *k)
{
    k->name = "base";
    fill_rows(k);
}
