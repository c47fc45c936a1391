/* test_model_hostile - files whose keys hold absurd values: a small model of every architecture, each number that it reads replaced by each of a list of
 * values. Every one is refused with a text, or opens and runs. */
#include "src/model_int.h"
#include "tests/convert_use.h"
#include "tests/test.h"
#include "tests/tiny.h"

struct odd {
    const char *name;
    enum gguf_kind kind;
    int64_t i;
    double f;
    int n; /* items of an array; 0: no array */
};
static const struct odd values[] = {
    { "0", KV_U32, 0 },
    { "-1", KV_I32, -1 },
    { "1", KV_U32, 1 },
    { "2", KV_U32, 2 },
    { "3", KV_U32, 3 },
    { "1000", KV_U32, 1000 },
    { "2^20", KV_U32, 1 << 20 },
    { "2^31", KV_U32, (int64_t)1 << 31 },
    { "2^62", KV_I64, (int64_t)1 << 62 },
    { "2^63", KV_U64, INT64_MIN },
    { "0.0", KV_F32, 0, 0 },
    { "-1.0", KV_F32, 0, -1 },
    { "1e-30", KV_F32, 0, 1e-30 },
    { "1e30", KV_F32, 0, 1e30 },
    { "NaN", KV_F32, 0, NAN },
    { "inf", KV_F64, 0, INFINITY },
    { "false", KV_BOOL, 0 },
    { "true", KV_BOOL, 1 },
    { "a string", KV_STR },
    { "no items", KV_I32, 0, 0, -1 },
    { "[1]", KV_I32, 1, 0, 1 },
    { "[0, 0, ...]", KV_I32, 0, 0, 8 },
    { "[-1, -1, ...]", KV_I64, -1, 0, 8 },
    { "[2^62, ...]", KV_U64, (int64_t)1 << 62, 0, 8 },
    { "[NaN, ...]", KV_F32, 0, NAN, 8 },
    { "[3, 3, ...]", KV_U8, 3, 0, 8 },
};

/* A file in memory, its keys apart from what follows them. */
struct pieces {
    uint8_t *p;
    size_t n, keys, infos, data; /* where keys, descriptions of tensors and data begin */
    uint8_t *out;
};

static size_t put_value(uint8_t *p, const char *key, const struct odd *v)
{
    size_t at = 0, len = strlen(key), item = gguf_kind_bytes(v->kind);
    uint32_t kind = v->n ? KV_ARR : v->kind, elem = v->kind;
    uint64_t n = v->n > 0 ? (uint64_t)v->n : 0;
    memcpy(p, &len, 8), memcpy(p + 8, key, len), at = 8 + len;
    memcpy(p + at, &kind, 4), at += 4;
    if (v->n) memcpy(p + at, &elem, 4), memcpy(p + at + 4, &n, 8), at += 12;
    if (v->kind == KV_STR) {
        memset(p + at, 0, 8);
        p[at] = 1, p[at + 8] = 'x';
        return at + 9;
    }
    float f = (float)v->f;
    for (uint64_t i = 0; i < (v->n ? n : 1); i++, at += item)
        memcpy(p + at, v->kind == KV_F32 ? (const void *)&f : v->kind == KV_F64 ? (const void *)&v->f : &v->i, item);
    return at;
}

/* The file with one key replaced, or added in front. Returns its size. */
static size_t with_value(const struct pieces *f, const struct gguf *g, const char *key, const struct odd *v)
{
    const struct gguf_kv *kv = gguf_find(g, key);
    size_t at = f->keys, n_kv = (size_t)g->n_kv + !kv, skip = f->keys;
    memcpy(f->out, f->p, f->keys);
    memcpy(f->out + 16, &n_kv, 8);
    at += put_value(f->out + at, key, v);
    if (kv) { /* what stands before it, then what stands behind it: all of these are scalars */
        size_t begin = (size_t)((const uint8_t *)kv->key.p - f->p) - 8, end = (size_t)(kv->data - f->p) + gguf_kind_bytes(kv->kind);
        memcpy(f->out + at, f->p + skip, begin - skip);
        at += begin - skip, skip = end;
    }
    memcpy(f->out + at, f->p + skip, f->data - skip);
    at += f->data - skip;
    size_t end = at - (f->data - f->infos), align = g->alignment, pad = (align - end % align) % align;
    memset(f->out + end, 0, pad);
    memcpy(f->out + end + pad, f->p + f->data, f->n - f->data);
    return end + pad + f->n - f->data;
}

/* The descriptions end where padding begins: found by walking them. */
static size_t end_of_infos(const struct gguf *g, const uint8_t *p, size_t at)
{
    for (int64_t i = 0; i < g->n_tensors; i++) {
        uint64_t len;
        uint32_t dims;
        memcpy(&len, p + at, 8);
        at += 8 + len;
        memcpy(&dims, p + at, 4);
        at += 4 + 8 * (size_t)dims + 4 + 8;
    }
    return at;
}

static size_t end_of_keys(const struct gguf *g)
{
    const uint8_t *end = g->file.data + 24;
    for (int64_t i = 0; i < g->n_kv; i++) {
        const struct gguf_kv *kv = &g->kv[i];
        const uint8_t *p = kv->data;
        if (kv->elem == KV_STR) for (uint64_t k = 0; k < kv->n; k++) (void)gguf_arr_str(&p);
        else p += kv->n * gguf_kind_bytes(kv->elem);
        if (p > end) end = p;
    }
    return (size_t)(end - g->file.data);
}

struct walk {
    int opened, refused;
};

static void try_value(struct walk *w, const struct pieces *f, const struct gguf *g, const char *key, const struct odd *v)
{
    struct model *m = NULL;
    struct err e = { 0 };
    size_t n = with_value(f, g, key, v);
    uint8_t *exact = malloc(n); /* one byte too far is caught */
    memcpy(exact, f->out, n);
    status st = model_parse(&m, exact, n, "tiny", &(struct model_options){ .n_ctx = 8 }, &e);
    CHECK_MSG((st == OK) == (e.text[0] == 0), "%s = %s: %d \"%s\"", key, v->name, st, e.text);
    CHECK_MSG(!strstr(e.text, "duplicate"), "%s = %s: %s", key, v->name, e.text);
    if (st == OK) st = use_run(m, &e);
    CHECK_MSG((st == OK) == (e.text[0] == 0), "%s = %s, run: %d \"%s\"", key, v->name, st, e.text);
    *(st == OK ? &w->opened : &w->refused) += 1;
    model_close(m);
    free(exact);
}

static void walk_rows(struct walk *w, const struct pieces *f, const struct gguf *g, const struct arch *arch, const struct hparam_row *rows)
{
    for (const struct hparam_row *r = rows; r->key; r++) {
        char key[128];
        if (*r->key == '/') snprintf(key, sizeof key, "%s", r->key + 1);
        else snprintf(key, sizeof key, "%s.%s", arch->name, r->key);
        for (int i = 0; i < ARRAY_LEN(values); i++) try_value(w, f, g, key, &values[i]);
    }
}

static void walk_arch(struct walk *w, const struct arch *arch)
{
    struct err e = { 0 };
    struct gguf g;
    const char *path = test_tmp("hostile.gguf");
    status st = tiny_model(path, &(struct tiny_options){ .arch = arch->name, .n_embd = 32, .n_head = 4, .n_head_kv = 2, .head_dim = 8, .n_ff = 32,
                                                         .n_ctx = 64, .optional = true }, &e);
    if (st == OK) st = gguf_open(&g, path, false, &e);
    CHECK_MSG(st == OK, "%s", e.text);
    if (st != OK) return;
    struct pieces f = { .p = (uint8_t *)(uintptr_t)g.file.data, .n = g.file.size, .keys = 24, .data = g.data_offset };
    f.infos = end_of_infos(&g, f.p, end_of_keys(&g));
    f.out = malloc(f.n + 4096);
    struct model *m = NULL;
    st = model_open(&m, path, &(struct model_options){ .n_ctx = 8 }, &e);
    if (st == OK) st = use_run(m, &e);
    CHECK_MSG(st == OK, "as it is: %s", e.text);
    model_close(m);
    walk_rows(w, &f, &g, arch, common_hparams);
    walk_rows(w, &f, &g, arch, arch->hparams);
    free(f.out);
    gguf_close(&g);
}

TEST(model_survives_absurd_keys)
{
    struct walk w = { 0 };
    for (int i = 0; arches[i]; i++) {
        test_begin("model_%s_survives_absurd_keys", arches[i]->name);
        walk_arch(&w, arches[i]);
    }
    CHECK_MSG(w.opened > 100 && w.refused > 1000, "%d opened, %d refused", w.opened, w.refused);
    if (getenv("HOSTILE")) printf("%d opened, %d refused\n", w.opened, w.refused);
}

/* Keys of a mixture in files of architectures that have none: nothing may look for its weights. */
TEST(model_refuses_experts_where_the_architecture_has_none)
{
    int n_refused = 0;
    for (int i = 0; arches[i]; i++) {
        struct err e = { 0 };
        struct model *m = NULL;
        const char *path = test_tmp("experts.gguf");
        status st = tiny_model(path, &(struct tiny_options){ .arch = arches[i]->name, .n_expert = 4, .optional = true }, &e);
        if (st != OK) continue; /* a size that tiny_model does not know */
        st = model_open(&m, path, &(struct model_options){ .n_ctx = 8 }, &e);
        if (st == OK) st = use_run(m, &e);
        CHECK_MSG((st == OK) == (e.text[0] == 0), "%s: %d \"%s\"", arches[i]->name, st, e.text);
        if (strstr(e.text, "has no experts")) n_refused++;
        model_close(m);
    }
    CHECK(n_refused > 0);
}

SUITE(model_hostile, T(model_survives_absurd_keys), T(model_refuses_experts_where_the_architecture_has_none));
