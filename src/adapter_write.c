/* adapter_write - checks pairs against the model, then hands them to the GGUF writer. See adapter_write.h. */
#include "src/adapter_write.h"
#include "src/lora_int.h"
#include "src/model_int.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

static const char embedding[] = "token_embd.weight";

/* ---- keys ---- */

static const char *const own_keys[] = { "general.type", "general.architecture", "adapter.type", "adapter.lora.alpha" };

static status put_note(struct gguf_writer *w, const struct adapter_note *n, struct err *e)
{
    for (int i = 0; i < ARRAY_LEN(own_keys); i++)
        if (!strcmp(n->key, own_keys[i])) return err_set(e, ERR_USAGE, "adapter: the key %s is not for notes", n->key);
    if (n->kind == NOTE_TEXT) gguf_put_str(w, n->key, n->text, strlen(n->text));
    else if (n->kind == NOTE_INT) gguf_put_i64(w, n->key, KV_I64, n->i);
    else gguf_put_f32(w, n->key, (float)n->f);
    return OK;
}

static status put_keys(struct gguf_writer *w, const struct adapter_file *f, struct err *e)
{
    gguf_put_str(w, "general.type", "adapter", 7);
    gguf_put_str(w, "general.architecture", f->m->arch->name, strlen(f->m->arch->name));
    gguf_put_str(w, "adapter.type", "lora", 4);
    gguf_put_f32(w, "adapter.lora.alpha", f->alpha);
    for (int i = 0; i < f->n_notes; i++) TRY(put_note(w, &f->note[i], e));
    return OK;
}

/* ---- matrices ---- */

/* What adapter_open would refuse in the finished file. */
static status check(const struct adapter_file *f, const struct adapter_tensor *t, struct err *e)
{
    const struct tensor *w = gguf_tensor(&f->m->g, t->base);
    if (!w && !strcmp(t->base, "output.weight")) w = model_weight(f->m, -1, W_OUTPUT); /* a tied head may have an adapter of its own */
    bool flipped = !strcmp(t->base, embedding);
    int64_t n = max_i64(t->n_mat, 1);
    if (!w) return err_set(e, ERR_FORMAT, "%s: the model has no such tensor", t->base);
    int64_t in = flipped ? w->ne[1] : w->ne[0], out = flipped ? w->ne[0] : w->ne[1];
    if (t->in != in || t->out != out || n != w->ne[2])
        return err_set(e, ERR_FORMAT, "%s: the adapter is for [%lld, %lld, %lld], the model's tensor is [%lld, %lld, %lld]", t->base, (long long)t->in,
                       (long long)t->out, (long long)n, (long long)in, (long long)out, (long long)w->ne[2]);
    if (t->rank < 1 || t->rank > LORA_RANK_MAX)
        return err_set(e, ERR_USAGE, "%s: rank is %lld, expected 1 to %d", t->base, (long long)t->rank, LORA_RANK_MAX);
    return OK;
}

/* x [n_mat][rows][cols] as tensor <base><side>; turned: [cols][rows]. */
static status put_matrix(struct gguf_writer *w, const struct adapter_file *f, const char *base, const char *side, const float *x, int64_t cols, int64_t rows,
                         int64_t n_mat, bool turned, struct arena *mem, struct err *e)
{
    const struct dtype *type = f->type ? f->type : dtype_by_id(GGUF_F32);
    struct tensor t = { 0 };
    char name[160];
    size_t bytes;
    if (snprintf(name, sizeof name, "%s%s", base, side) >= (int)sizeof name) return err_set(e, ERR_FORMAT, "%.60s...: the name is too long", base);
    int64_t n = cols * rows * n_mat;
    tensor_shape(&t, type, turned ? rows : cols, turned ? cols : rows, n_mat, 1);
    t.name = arena_strdup(mem, name, strlen(name));
    if (!t.name || !mul_size((size_t)n, sizeof(float), &bytes)) return err_oom(e, name, SIZE_MAX);
    if (turned) {
        float *flat = arena_alloc(mem, bytes);
        if (!flat) return err_oom(e, name, bytes);
        for (int64_t r = 0; r < rows; r++)
            for (int64_t c = 0; c < cols; c++) flat[c * rows + r] = x[r * cols + c];
        x = flat;
    }
    if (type->gguf_id == GGUF_F32) t.data = (void *)(uintptr_t)x;
    else if (!(t.data = arena_alloc(mem, tensor_bytes(&t)))) return err_oom(e, name, tensor_bytes(&t));
    else dtype_from_f32(type, x, t.data, n);
    gguf_put_tensor(w, &t);
    return OK;
}

static status put_all(struct gguf_writer *w, const struct adapter_file *f, struct arena *mem, struct err *e)
{
    TRY(put_keys(w, f, e));
    for (int64_t i = 0; i < f->n; i++) {
        const struct adapter_tensor *t = &f->tensor[i];
        bool flipped = !strcmp(t->base, embedding);
        int64_t n = max_i64(t->n_mat, 1);
        TRY(put_matrix(w, f, t->base, ".lora_a", t->a, t->in, t->rank, n, flipped, mem, e));
        TRY(put_matrix(w, f, t->base, ".lora_b", t->b, t->rank, t->out, n, false, mem, e));
    }
    return OK;
}

status adapter_write_gguf(const char *path, const struct adapter_file *f, struct err *e)
{
    struct gguf_writer *w;
    struct arena mem;
    int type = f->type ? f->type->gguf_id : GGUF_F32;
    if (f->n < 1) return err_set(e, ERR_USAGE, "%s: an adapter without tensors", path);
    if (!isfinite(f->alpha)) return err_set(e, ERR_USAGE, "%s: alpha is %g, expected a finite number", path, (double)f->alpha);
    if (type != GGUF_F32 && type != GGUF_F16 && type != GGUF_BF16)
        return err_set(e, ERR_USAGE, "%s: an adapter in %s: f32, f16 or bf16", path, f->type->gguf_name);
    for (int64_t i = 0; i < f->n; i++) TRY(check(f, &f->tensor[i], e));
    TRY(gguf_writer_open(&w, path, e));
    arena_init(&mem, 0);
    status st = put_all(w, f, &mem, e);
    if (st == OK) st = gguf_writer_finish(w, e);
    else gguf_writer_abort(w);
    arena_free(&mem);
    return st;
}
