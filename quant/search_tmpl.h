/* search_tmpl - all searches in the lanes of one level. Included once per level, after a lanes_*.h. The later files use tools of search_k_tmpl.h. */
#include "quant/search_k_tmpl.h"
#include "quant/search_book_tmpl.h"
#include "quant/search_level_tmpl.h"
#include "quant/search_direct_tmpl.h"
#include "quant/linear_tmpl.h"
#include "quant/solve_tmpl.h"

static void fill_rows(struct quant_kernels *k)
{
    k_rows(k);
    book_rows(k);
    level_rows(k);
    direct_rows(k);
    linear_rows(k);
    solve_slots(k);
}
