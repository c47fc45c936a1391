/* quantizer - the methods, one row each, and the choice of the SIMD level. */
#include "quant/quantizer.h"
#include "ggml-like/cpu.h"
#include "quant/techniques.h"
#include <string.h>

void quant_kernels_init(struct quant_kernels *k, uint64_t features)
{
    *k = (struct quant_kernels){ 0 };
    quant_init_base(k);
#if defined(__x86_64__) && !defined(CUANTO_SCALAR)
    const uint64_t avx2 = CPU_AVX2 | CPU_FMA | CPU_F16C, avx512 = avx2 | CPU_AVX512;
    if ((features & avx2) == avx2) quant_init_avx2(k);
    if ((features & avx512) == avx512) quant_init_avx512(k);
#endif
}

static const struct dtype *search_target(const struct quant_spec *s, struct err *e) { return s->type; }

static void search_rows_of(const struct quant_spec *s, const struct quant_kernels *k, float lo, float hi, const float *x, const float *w, int64_t n_rows,
                           int64_t n, void *dst, void *scratch)
{
    k->rows[s->type->gguf_id](k, x, w, n_rows, n, dst, scratch);
}

static const struct quantizer quantizer_search = {
    .name = "search",
    .brief = "the least error, weighted by importance, that the format can hold",
    .takes_type = true,
    .target = search_target,
    .rows = search_rows_of,
};

/* What it solves comes through quant_run.solve; here is what it does not. */
const struct quantizer quantizer_gptq = {
    .name = "gptq",
    .brief = "the nearest to the original: errors made up for by other weights, as --calibration or cuanto's own text drives them; minutes to hours",
    .takes_type = true,
    .target = search_target,
    .rows = search_rows_of,
};

/* Its columns are scaled through quant_plan_set_scales. */
const struct quantizer quantizer_awq = {
    .name = "awq",
    .brief = "search, after columns that matter were scaled up and what makes their inputs down; --imatrix, --calibration, or cuanto's own text",
    .takes_type = true,
    .target = search_target,
    .rows = search_rows_of,
};

const struct quantizer *const quantizers[] = { &quantizer_search,     &quantizer_awq,    &quantizer_gptq,
                                               &quantizer_compat,     &quantizer_absmax, &quantizer_zero_point, NULL };

const struct quantizer *quantizer_by_name(const char *name)
{
    for (int i = 0; quantizers[i]; i++)
        if (!strcmp(quantizers[i]->name, name)) return quantizers[i];
    return NULL;
}
