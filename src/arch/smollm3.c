/* smollm3 - SmolLM3: the Llama block, every fourth layer without positions. Sources: SmolLM3 (Bakouch et al. 2025); RoPE to NoRoPE and back (Yang et
 * al. 2025). */
#include "src/arch/rows.h"
#include "src/import.h"
#include "src/model_int.h"

enum { STEP = 4 };

static const char *const hf[] = { "SmolLM3ForCausalLM", NULL };
static const struct hparam_row hparams[] = { HPARAMS_END };

static const struct weight_row weights[] = {
    ROWS_EMBEDDING,
    ROW_ROPE_FREQS,
    ROWS_NORMS,
    ROWS_ATTENTION(WEIGHT_ROPE_PAIRS),
    ROWS_ATTENTION_BIAS(WEIGHT_ROPE_PAIRS, WEIGHT_OPTIONAL),
    ROW_BIAS_O(WEIGHT_OPTIONAL),
    ROWS_GATED_FFN,
    ROWS_END,
};

static bool has_rope(int64_t il) { return (il + 1) % STEP != 0; }

static status setup(struct model *m, struct err *e)
{
    for (int64_t il = 0; il < m->hp.n_layer; il++) m->layer[il].hp.no_rope = !has_rope(il);
    return OK;
}

/* Files have no key for which layers have positions. */
static status keys(struct import *im, struct err *e)
{
    const struct json *list = import_config(im, "no_rope_layers");
    int64_t il = 0;
    for (const struct json *j = list && list->kind == JSON_ARR ? list->child : NULL; j; j = j->next, il++)
        if ((j->kind == JSON_INT || j->kind == JSON_BOOL) && (j->i != 0) != has_rope(il))
            return err_set(e, ERR_FORMAT, "config.json: no_rope_layers[%lld] is %lld, this build supports positions in all but every %dth layer",
                           (long long)il, (long long)j->i, STEP);
    double step = import_number(im, "no_rope_layer_interval", STEP);
    if (!list && step != STEP) return err_set(e, ERR_FORMAT, "config.json: no_rope_layer_interval is %g, this build supports %d", step, STEP);
    if (import_number(im, "use_sliding_window", 0) != 0) return err_set(e, ERR_FORMAT, "config.json: use_sliding_window is true, not supported for smollm3");
    return OK;
}
static const struct arch_import import = { .keys = keys };

const struct arch arch_smollm3 = {
    .name = "smollm3", .hf = hf, .hparams = hparams, .weights = weights, .setup = setup, .import = &import
};
