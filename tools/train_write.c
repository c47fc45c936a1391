/* train_write - see train_write.h. */
#include "tools/train_write.h"
#include "ggml-like/kernels/kernels.h"
#include <math.h>
#include <string.h>

status train_write_adapter(const char *path, const struct model *m, struct trainer *t, const struct train_facts *f, struct err *e)
{
    struct train_param_list list = trainer_params(t);
    const float *w = trainer_weights(t);
    struct adapter_tensor *pair = mem_calloc((size_t)list.n / 2 + 1, sizeof *pair);
    if (!pair) return err_oom(e, path, (size_t)list.n * sizeof *pair);
    for (int64_t i = 0; i < list.n; i += 2) {
        const struct train_param *a = &list.param[i], *b = a + 1;
        pair[i / 2] = (struct adapter_tensor){ .base = a->base, .in = a->ne0, .out = b->ne1, .rank = a->ne1, .a = w + a->offset, .b = w + b->offset };
    }
    struct adapter_note note[] = {
        { "training.base.sha256", NOTE_TEXT, f->model_sha, 0, 0 },
        { "training.data.sha256", NOTE_TEXT, f->data_sha, 0, 0 },
        { "training.settings", NOTE_TEXT, f->job, 0, 0 },
        { "training.step", NOTE_INT, NULL, f->step, 0 },
        { "training.seed", NOTE_INT, NULL, (int64_t)f->seed, 0 },
        { "training.validation_loss", NOTE_FLOAT, NULL, 0, f->valid },
    };
    struct adapter_file file = { .m = m, .tensor = pair, .n = list.n / 2, .alpha = trainer_alpha(t), .note = note };
    file.n_notes = ARRAY_LEN(note) - !isfinite(f->valid);
    status st = adapter_write_gguf(path, &file, e);
    mem_free(pair);
    return st;
}

/* Tensor w in its own type from the trained numbers, if it is among them. *made: to be freed by the caller. */
static status converted(const struct trainer *t, const struct train_param_list *list, const float *from, struct tensor *w, void **made, struct err *e)
{
    int64_t i = 0;
    *made = NULL;
    while (i < list->n && strcmp(list->param[i].base, w->name)) i++;
    if (i == list->n) return OK;
    size_t n = tensor_bytes(w);
    if (!(*made = mem_alloc(n))) return err_oom(e, w->name, n);
    for (int64_t r = 0; r < tensor_rows(w); r++)
        trainer_kernels(t)->from_f32(w->type, from + list->param[i].offset + r * w->ne[0], (uint8_t *)*made + (size_t)r * w->nb[1], w->ne[0]);
    w->data = *made;
    return OK;
}

/* A base that was trained before has these. */
static bool is_own(struct str key)
{
    static const char *const own[] = { "training.base.sha256", "training.data.sha256", "training.settings", "training.step" };
    for (int i = 0; i < ARRAY_LEN(own); i++)
        if (key.n == strlen(own[i]) && !memcmp(key.p, own[i], key.n)) return true;
    return false;
}

status train_write_model(const char *path, const struct model *m, struct trainer *t, const struct train_facts *f, struct err *e)
{
    const struct gguf *g = model_gguf(m);
    struct train_param_list list = trainer_params(t);
    struct gguf_writer *out = NULL;
    void **made = mem_calloc((size_t)g->n_tensors + 1, sizeof *made);
    if (!made) return err_oom(e, path, (size_t)g->n_tensors * sizeof *made);
    status st = gguf_writer_open(&out, path, e);
    for (int64_t i = 0; st == OK && i < g->n_kv; i++)
        if (!is_own(g->kv[i].key)) gguf_put_kv(out, &g->kv[i]);
    if (st == OK) {
        gguf_put_str(out, "training.base.sha256", f->model_sha, strlen(f->model_sha));
        gguf_put_str(out, "training.data.sha256", f->data_sha, strlen(f->data_sha));
        gguf_put_str(out, "training.settings", f->job, strlen(f->job));
        gguf_put_i64(out, "training.step", KV_U64, f->step);
    }
    for (int64_t i = 0; st == OK && i < g->n_tensors; i++) {
        struct tensor w = g->tensor[i];
        st = converted(t, &list, trainer_weights(t), &w, &made[i], e);
        if (st == OK) gguf_put_tensor(out, &w);
    }
    if (st == OK) st = gguf_writer_finish(out, e);
    else gguf_writer_abort(out);
    for (int64_t i = 0; i < g->n_tensors; i++) mem_free(made[i]);
    mem_free(made);
    return st;
}
