/* window - which layers see a sliding window only: read from the file for setups, from config.json for conversions; and what Qwen's config.json says
 * beyond rows. */
#include "src/import.h"
#include "src/model_int.h"
#include <stdio.h>
#include <string.h>

static bool windowed(int64_t period, int64_t il) { return period == 0 || il % period < period - 1; }

static status pattern_of(const struct model *m, int64_t *period, const struct gguf_kv **list, struct err *e)
{
    char key[128];
    struct err own = { 0 };
    snprintf(key, sizeof key, "%s.attention.sliding_window_pattern", m->arch->name);
    const struct gguf_kv *kv = gguf_find(&m->g, key);
    *list = kv && kv->kind == KV_ARR ? kv : NULL;
    if (!kv) return OK;
    if (!*list) return gguf_get_i64(&m->g, key, 0, 1024, period, &own) ? OK : err_set(e, own.code, "%s", own.text);
    if (kv->elem == KV_STR || kv->elem == KV_F32 || kv->elem == KV_F64)
        return err_set(e, ERR_FORMAT, "%s holds %s items, expected integers or bools", key, gguf_kind_name(kv->elem));
    if ((int64_t)kv->n < m->hp.n_layer || kv->n > 1 << 16)
        return err_set(e, ERR_FORMAT, "%s has %llu items, expected one for each of %lld layers", key, (unsigned long long)kv->n,
                       (long long)m->hp.n_layer);
    return OK;
}

status window_layers(struct model *m, int64_t period, struct err *e)
{
    const struct gguf_kv *list;
    TRY(pattern_of(m, &period, &list, e));
    for (int64_t il = 0; il < m->hp.n_layer && m->hp.window > 0; il++)
        if (list ? gguf_arr_i64(list, (uint64_t)il) != 0 : windowed(period, il)) m->layer[il].hp.window = m->hp.window;
    return OK;
}

static bool is_windowed(const struct json *type) { return type->kind == JSON_STR && !strcmp(type->str, "sliding_attention"); }

/* Before transformers 5: a number n, all but every n-th layer; or its letters, "LLLG". */
static status import_period(struct import *im, int64_t period, struct err *e)
{
    const struct json *v = import_config(im, "sliding_window_pattern|_sliding_window_pattern");
    int64_t n = v && v->kind == JSON_INT ? v->i : period;
    if (v && v->kind == JSON_STR) {
        n = (int64_t)strspn(v->str, "L") + 1;
        if (strcmp(v->str + n - 1, "G") != 0) return err_set(e, ERR_FORMAT, "config.json: sliding_window_pattern is %.40s, expected L...LG", v->str);
    }
    if (n < 0 || n > 1024) return err_set(e, ERR_FORMAT, "config.json: sliding_window_pattern is %lld, expected 0 to 1024", (long long)n);
    if (n != period) import_put_int(im, "attention.sliding_window_pattern", n);
    return OK;
}

status import_windows(struct import *im, int64_t period, struct err *e)
{
    int32_t item[1024];
    int64_t n = 0;
    bool usual = true;
    const struct json *types = import_config(im, "layer_types");
    if (import_number(im, "sliding_window", 0) <= 0) return OK;
    if (!types) return import_period(im, period, e);
    if (types->kind != JSON_ARR) return err_set(e, ERR_FORMAT, "config.json: layer_types is no list");
    for (const struct json *j = types->child; j; j = j->next) {
        if (n == ARRAY_LEN(item) || (!is_windowed(j) && !(j->kind == JSON_STR && !strcmp(j->str, "full_attention"))))
            return err_set(e, ERR_FORMAT, "config.json: layer_types[%lld] is %.40s, expected sliding_attention or full_attention, up to 1024 layers",
                           (long long)n, j->kind == JSON_STR ? j->str : "no string");
        item[n] = is_windowed(j);
        usual &= item[n] == windowed(period, n);
        n++;
    }
    if (!usual) import_put_ints(im, "attention.sliding_window_pattern", item, n);
    return OK;
}

status import_all_sparse(struct import *im, struct err *e)
{
    double step = import_number(im, "decoder_sparse_step", 1);
    const struct json *dense = import_config(im, "mlp_only_layers");
    if (step != 1) return err_set(e, ERR_FORMAT, "config.json: decoder_sparse_step is %g, this build supports 1", step);
    if (dense && dense->n > 0) return err_set(e, ERR_FORMAT, "config.json: mlp_only_layers has %lld items, this build supports none", (long long)dense->n);
    if (import_number(im, "use_sliding_window", 0) != 0) return err_set(e, ERR_FORMAT, "config.json: use_sliding_window is true, not supported here");
    return OK;
}

status import_qwen_windows(struct import *im, struct err *e)
{
    if (import_number(im, "use_sliding_window", 0) == 0) return OK;
    import_put_int(im, "attention.sliding_window", import_int(im, "sliding_window", 0));
    if (!import_config(im, "layer_types")) return err_set(e, ERR_FORMAT, "config.json: use_sliding_window is true but layer_types is missing");
    return import_windows(im, 0, e);
}

status import_rope_sections(struct import *im, struct err *e)
{
    int32_t section[4] = { 0 };
    int64_t n = 0;
    const struct json *list = import_config(im, "rope_parameters.mrope_section|rope_scaling.mrope_section");
    if (!list || list->kind != JSON_ARR || list->n > ARRAY_LEN(section))
        return err_set(e, ERR_FORMAT, "config.json: mrope_section is %s, expected a list of up to 4 numbers", list ? "something else" : "missing");
    for (const struct json *j = list->child; j; j = j->next, n++) {
        if (j->kind != JSON_INT || j->i < 0 || j->i > HEAD_DIM_LIMIT)
            return err_set(e, ERR_FORMAT, "config.json: mrope_section[%lld] is no size", (long long)n);
        section[n] = (int32_t)j->i;
    }
    import_put_ints(im, "rope.dimension_sections", section, ARRAY_LEN(section));
    const struct json *deep = import_config(im, "vision_config.deepstack_visual_indexes");
    if (deep && deep->kind == JSON_ARR) import_put_int(im, "n_deepstack_layers", deep->n);
    return OK;
}
