/* session_file - a session on disk: the tokens and the used part of its state, so that a prompt need not be read again.
 *
 *   0  char  magic[8]          "cuantoKV"
 *   8  u32   version           2
 *  12  u32   n_layer
 *  16  u64   model, adapters   fingerprints
 *  32  u32   k_type, v_type    GGUF ids
 *  40  u64   n_tokens, n_note
 *  56  u64   rope              a fingerprint of the positions, which options can change
 *  64  char  arch[16]          for people
 *  80  i32   token[n_tokens]
 *      for each layer that keeps keys: for each KV head n_tokens rows of K, then for each head the rows of V (not when V lies in K's rows);
 *      for each recurrent layer: the inputs of its convolution, its memory
 *      char  note[n_note]      the caller's
 *      u64   hash64 of all bytes before
 * Sizes come from the model, never from the file: a forged file can give wrong numbers, but nothing out of place. */
#include "src/session_int.h"
#include "ggml-like/file.h"

enum { SESSION_VERSION = 2, NOTE_MAX = 64 << 20 };

struct header {
    char magic[8];
    uint32_t version, n_layer;
    uint64_t model, adapters;
    uint32_t k_type, v_type;
    uint64_t n_tokens, n_note, rope;
    char arch[16];
};
_Static_assert(sizeof(struct header) == 80, "the file's layout");

/* ---- which model is it? ---- */

static void add_rope(struct hash64 *x, const struct rope_spec *r)
{
    const float f[] = { r->base, r->freq_scale, r->mscale, r->yarn_ext, r->yarn_low, r->yarn_high };
    hash64_add(x, &r->n_rot, sizeof r->n_rot);
    hash64_add(x, f, sizeof f);
    if (r->factor) hash64_add(x, r->factor, (size_t)(r->n_rot / 2) * sizeof *r->factor); /* LongRoPE has two sets, chosen by the context */
}

uint64_t model_fingerprint(const struct model *m)
{
    struct hash64 x = { 0 };
    uint64_t bytes = gguf_bytes(&m->g);
    hash64_add(&x, m->arch->name, strlen(m->arch->name));
    hash64_add(&x, &bytes, sizeof bytes);
    for (int64_t i = 0; i < m->g.n_tensors; i++) {
        const struct tensor *t = &m->g.tensor[i];
        size_t n = tensor_bytes(t);
        hash64_add(&x, t->name, strlen(t->name));
        hash64_add(&x, &t->type->gguf_id, sizeof t->type->gguf_id);
        hash64_add(&x, t->ne, sizeof t->ne);
        hash64_add(&x, t->data, n < 64 ? n : 64); /* two fine-tunes of one model have the same shapes */
    }
    return hash64_end(&x);
}

uint64_t rope_fingerprint(const struct model *m)
{
    struct hash64 x = { 0 };
    for (int64_t il = 0; il < m->hp.n_layer; il++) add_rope(&x, &m->layer[il].hp.rope);
    return hash64_end(&x);
}

/* ---- the walk over what is stored, one for sizes, saving and loading ---- */

/* Called with each run of bytes in file order. */
typedef status (*run_fn)(void *ctx, void *p, size_t n, struct err *e);

static status walk_kv(const struct kv_cache *c, int64_t n, run_fn fn, void *ctx, struct err *e)
{
    for (int part = 0; part < (c->v_in_k ? 1 : 2); part++)
        for (int32_t h = 0; h < c->n_head; h++) {
            size_t row = part ? c->v_row : c->k_row;
            TRY(fn(ctx, (part ? c->v : c->k) + (size_t)(h * c->n_ctx) * row, (size_t)n * row, e));
        }
    return OK;
}

static status walk_state(const struct session *s, int64_t n, run_fn fn, void *ctx, struct err *e)
{
    TRY(fn(ctx, s->token, (size_t)n * sizeof *s->token, e));
    for (int64_t il = 0; il < s->state.n_layer; il++) {
        const struct layer_state *l = &s->state.layer[il];
        TRY(walk_kv(&l->kv, n, fn, ctx, e));
        if (l->rec.n_conv > 1 && l->rec.conv) TRY(fn(ctx, l->rec.conv, (size_t)((l->rec.n_conv - 1) * l->rec.channels) * sizeof(float), e));
        if (l->rec.n_memory) TRY(fn(ctx, l->rec.memory, (size_t)l->rec.n_memory * sizeof(float), e));
    }
    return OK;
}

static status count_run(void *ctx, void *p, size_t n, struct err *e)
{
    return add_size(*(size_t *)ctx, n, ctx) ? OK : err_set(e, ERR_FORMAT, "session: its size overflows");
}

struct save {
    struct file_out f;
    struct hash64 hash;
};

static status save_run(void *ctx, void *p, size_t n, struct err *e)
{
    struct save *x = ctx;
    hash64_add(&x->hash, p, n);
    return file_write(&x->f, p, n, e);
}

struct load {
    struct file_reader f;
    struct hash64 hash;
    size_t at;
};

static status load_run(void *ctx, void *p, size_t n, struct err *e)
{
    struct load *x = ctx;
    TRY(file_reader_read(&x->f, p, n, x->at, e));
    hash64_add(&x->hash, p, n);
    x->at += n;
    return OK;
}

/* ---- saving ---- */

static struct header make_header(const struct session *s, size_t n_note)
{
    const struct model *m = engine_model(s->en);
    struct header h = {
        .magic = { 'c', 'u', 'a', 'n', 't', 'o', 'K', 'V' },
        .version = SESSION_VERSION,
        .n_layer = (uint32_t)m->hp.n_layer,
        .model = model_fingerprint(m),
        .adapters = engine_adapters(s->en),
        .k_type = (uint32_t)s->state.types.k->gguf_id,
        .v_type = (uint32_t)s->state.types.v->gguf_id,
        .n_tokens = (uint64_t)s->pos,
        .n_note = n_note,
        .rope = rope_fingerprint(m),
    };
    memcpy(h.arch, m->arch->name, strnlen(m->arch->name, sizeof h.arch));
    return h;
}

status session_save(const struct session *s, const char *path, const void *note, size_t n_note, struct err *e)
{
    struct save x = { 0 };
    if (n_note > NOTE_MAX) return err_set(e, ERR_USAGE, "session: a note of %zu bytes, at most %d", n_note, NOTE_MAX);
    struct header h = make_header(s, n_note);
    TRY(file_create(&x.f, path, e));
    status st = save_run(&x, &h, sizeof h, e);
    if (st == OK) st = walk_state(s, s->pos, save_run, &x, e);
    if (st == OK) st = save_run(&x, (void *)(uintptr_t)note, n_note, e);
    uint64_t sum = hash64_end(&x.hash);
    if (st == OK) st = file_write(&x.f, &sum, sizeof sum, e);
    if (st == OK) return file_commit(&x.f, e);
    file_abort(&x.f);
    return st;
}

/* ---- loading ---- */

static const char *type_text(uint32_t id)
{
    const struct dtype *t = dtype_by_id(id);
    return t ? t->gguf_name : "unknown";
}

static status check_header(const struct session *s, const struct header *h, const char *path, struct err *e)
{
    struct header want = make_header(s, 0);
    if (memcmp(h->magic, want.magic, sizeof h->magic) != 0) return err_set(e, ERR_FORMAT, "%s: not a session of cuanto", path);
    if (h->version != SESSION_VERSION)
        return err_set(e, ERR_FORMAT, "%s: version %u of the session format, expected %d", path, h->version, SESSION_VERSION);
    if (h->model != want.model || memcmp(h->arch, want.arch, sizeof h->arch) != 0 || h->n_layer != want.n_layer)
        return err_set(e, ERR_FORMAT, "%s: a session of another model: %.*s, %u layers, fingerprint %016llx; this is %s, %u layers, %016llx", path,
                       (int)strnlen(h->arch, sizeof h->arch), h->arch, h->n_layer, (unsigned long long)h->model, engine_model(s->en)->arch->name,
                       want.n_layer, (unsigned long long)want.model);
    if (h->rope != want.rope)
        return err_set(e, ERR_FORMAT, "%s: a session with other positions: the options --rope-* differ%s", path,
                       engine_model(s->en)->rope == ROPE_LONG ? ", or the context, by which longrope picks its factors" : "");
    if (h->adapters != want.adapters)
        return err_set(e, ERR_FORMAT, "%s: a session %s adapters%s, now %s", path, h->adapters ? "with" : "without",
                       h->adapters && want.adapters ? " that are others or have other scales" : "", engine_adapter_names(s->en, (char[160]){ 0 }, 160));
    if (h->k_type != want.k_type || h->v_type != want.v_type)
        return err_set(e, ERR_FORMAT, "%s: KV types %s and %s in the session, %s and %s now", path, type_text(h->k_type), type_text(h->v_type),
                       type_text(want.k_type), type_text(want.v_type));
    if (h->n_tokens > (uint64_t)s->n_ctx)
        return err_set(e, ERR_USAGE, "%s: the session has %llu tokens, the context has room for %lld", path,
                       (unsigned long long)h->n_tokens, (long long)s->n_ctx);
    if (h->n_note > NOTE_MAX)
        return err_set(e, ERR_FORMAT, "%s: a note of %llu bytes, at most %d", path, (unsigned long long)h->n_note, NOTE_MAX);
    return OK;
}

static status check_size(const struct session *s, const struct header *h, const struct file_reader *f, struct err *e)
{
    size_t want = sizeof *h;
    TRY(walk_state(s, (int64_t)h->n_tokens, count_run, &want, e));
    if (!add_size(want, (size_t)h->n_note + sizeof(uint64_t), &want)) return err_set(e, ERR_FORMAT, "%s: its size overflows", f->path);
    if (f->size == want) return OK;
    return err_set(e, ERR_FORMAT, "%s: %llu bytes, expected %zu for %llu tokens", f->path, (unsigned long long)f->size, want, (unsigned long long)h->n_tokens);
}

static status read_body(struct session *s, const struct header *h, struct load *x, char *note, struct err *e)
{
    uint64_t sum;
    int64_t n_vocab = engine_model(s->en)->hp.n_vocab;
    TRY(walk_state(s, (int64_t)h->n_tokens, load_run, x, e));
    TRY(load_run(x, note, (size_t)h->n_note, e));
    TRY(file_reader_read(&x->f, &sum, sizeof sum, x->at, e));
    if (sum != hash64_end(&x->hash))
        return err_set(e, ERR_FORMAT, "%s: damaged: checksum %016llx, expected %016llx", x->f.path, (unsigned long long)hash64_end(&x->hash),
                       (unsigned long long)sum);
    for (uint64_t i = 0; i < h->n_tokens; i++)
        if (s->token[i] < 0 || s->token[i] >= n_vocab)
            return err_set(e, ERR_FORMAT, "%s: token %llu is %d, expected 0 to %lld", x->f.path, (unsigned long long)i, s->token[i], (long long)n_vocab - 1);
    return OK;
}

status session_load(struct session *s, const char *path, char **note, size_t *n_note, struct err *e)
{
    struct load x = { .f = { .fd = -1 } };
    struct header h;
    char *text = NULL;
    TRY(file_reader_open(&x.f, path, e));
    status st = OK;
    if (x.f.size < sizeof h)
        st = err_set(e, ERR_FORMAT, "%s: %llu bytes, a session has %zu at least", path, (unsigned long long)x.f.size, sizeof h);
    if (st == OK) st = load_run(&x, &h, sizeof h, e);
    if (st == OK) st = check_header(s, &h, path, e);
    if (st == OK) st = check_size(s, &h, &x.f, e);
    if (st == OK && !(text = mem_alloc((size_t)h.n_note + 1))) st = err_oom(e, path, (size_t)h.n_note);
    if (st == OK) {
        s->pos = 0; /* its rows are overwritten from here on */
        st = read_body(s, &h, &x, text, e);
    }
    file_reader_close(&x.f);
    if (st != OK) {
        mem_free(text);
        return st;
    }
    s->pos = (int64_t)h.n_tokens;
    text[h.n_note] = 0;
    if (n_note) *n_note = (size_t)h.n_note;
    if (note) *note = text;
    else mem_free(text);
    return OK;
}

/* ---- a second timeline ---- */

static void copy_rows(uint8_t *to, int64_t to_ctx, const uint8_t *from, int64_t from_ctx, const struct kv_cache *c, size_t row, int64_t begin, int64_t end)
{
    for (int32_t h = 0; h < c->n_head; h++)
        memcpy(to + (size_t)(h * to_ctx + begin) * row, from + (size_t)(h * from_ctx + begin) * row, (size_t)(end - begin) * row);
}

status session_copy(struct session *to, const struct session *from, int64_t same, struct err *e)
{
    const struct kv_types *a = &to->state.types, *b = &from->state.types;
    if (to->en != from->en) return err_set(e, ERR_USAGE, "session_copy: the sessions belong to two engines");
    if (a->k != b->k || a->v != b->v)
        return err_set(e, ERR_USAGE, "session_copy: KV types %s and %s, expected %s and %s", a->k->gguf_name, a->v->gguf_name,
                       b->k->gguf_name, b->v->gguf_name);
    if (to->n_ctx < from->pos)
        return err_set(e, ERR_USAGE, "session_copy: %lld tokens, the context has room for %lld", (long long)from->pos, (long long)to->n_ctx);
    if (same < 0 || same > to->pos || same > from->pos)
        return err_set(e, ERR_USAGE, "session_copy: %lld tokens are said to be the same, the sessions have %lld and %lld", (long long)same,
                       (long long)to->pos, (long long)from->pos);
    if (to == from) return OK;
    memcpy(to->token + same, from->token + same, (size_t)(from->pos - same) * sizeof *to->token);
    for (int64_t il = 0; il < to->state.n_layer; il++) {
        const struct layer_state *x = &from->state.layer[il];
        struct layer_state *y = &to->state.layer[il];
        copy_rows(y->kv.k, y->kv.n_ctx, x->kv.k, x->kv.n_ctx, &x->kv, x->kv.k_row, same, from->pos);
        if (!x->kv.v_in_k) copy_rows(y->kv.v, y->kv.n_ctx, x->kv.v, x->kv.n_ctx, &x->kv, x->kv.v_row, same, from->pos);
        if (x->rec.n_conv > 1 && x->rec.conv) memcpy(y->rec.conv, x->rec.conv, (size_t)((x->rec.n_conv - 1) * x->rec.channels) * sizeof(float));
        if (x->rec.n_memory) memcpy(y->rec.memory, x->rec.memory, (size_t)x->rec.n_memory * sizeof(float));
    }
    to->pos = from->pos;
    return OK;
}
