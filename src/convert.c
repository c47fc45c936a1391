/* convert - plans a conversion: keys from config.json, the tokenizer, the model that these keys describe, then its tensors. See convert.h. */
#include "src/convert.h"
#include "ggml-like/cpu.h"
#include "src/convert_int.h"
#include "src/convert_tokenizer.h"
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the checkpoint ---- */

static status folder_of(struct import *im, const char *path, struct err *e)
{
    bool file = false;
    size_t n = strlen(path);
    static const char *const ends[] = { ".safetensors", ".bin", ".pth", ".pt", ".json" };
    for (int i = 0; i < ARRAY_LEN(ends); i++) file |= n > strlen(ends[i]) && !strcmp(path + n - strlen(ends[i]), ends[i]);
    const char *base = path_base(path);
    size_t len = file ? (size_t)(base - path) : n;
    while (len > 1 && path[len - 1] == '/') len--;
    im->dir = len ? arena_strdup(&im->arena, path, len) : ".";
    return im->dir ? OK : err_oom(e, path, len);
}

static status open_checkpoint(struct convert *c, const char *path, struct err *e)
{
    struct import *im = &c->im;
    TRY(checkpoint_open(&im->ckpt, path, e));
    im->used = arena_zalloc(&im->arena, (size_t)im->ckpt.n_tensors + 1, sizeof *im->used);
    im->bound = arena_zalloc(&im->arena, (size_t)im->ckpt.n_tensors + 1, sizeof *im->bound);
    return im->used && im->bound ? OK : err_oom(e, "tensors", (size_t)im->ckpt.n_tensors);
}

/* F16, BF16 or F32, whichever most bytes are; of a packed checkpoint what it computes in. */
static const struct dtype *usual_type(const struct import *im)
{
    const struct checkpoint *k = &im->ckpt;
    if (im->scheme) return dtype_by_id(import_is(im, "torch_dtype|dtype", "bfloat16") ? GGUF_BF16 : GGUF_F16);
    static const struct { enum ckpt_type from; int to; } types[] = { { CKPT_F16, GGUF_F16 }, { CKPT_BF16, GGUF_BF16 }, { CKPT_F32, GGUF_F32 } };
    size_t bytes[ARRAY_LEN(types)] = { 0 };
    int best = 0;
    for (int64_t i = 0; i < k->n_tensors; i++)
        for (int t = 0; t < ARRAY_LEN(types); t++)
            if (k->tensor[i].type == types[t].from) bytes[t] += k->tensor[i].bytes;
    for (int t = 1; t < ARRAY_LEN(types); t++)
        if (bytes[t] > bytes[best]) best = t;
    return dtype_by_id(types[best].to);
}

/* The type of most bytes of matrices, for the file's name and its key. */
static const struct dtype *main_type(const struct convert *c)
{
    size_t bytes[DTYPE_IDS] = { 0 };
    const struct dtype *best = c->type;
    for (int64_t i = 0; i < c->n_tensors; i++)
        if (c->tensor[i].exact) bytes[c->tensor[i].t.type->gguf_id] += tensor_bytes(&c->tensor[i].t);
    for (int i = 0; i < dtype_count; i++)
        if (dtypes[i]->gguf_id < DTYPE_IDS && bytes[dtypes[i]->gguf_id] > bytes[best->gguf_id]) best = dtypes[i];
    if (!bytes[best->gguf_id]) { /* asked for: true unless most rows are too short for its blocks */
        size_t as_asked = 0, halves = 0;
        for (int64_t i = 0; i < c->n_tensors; i++) {
            const struct tensor *t = &c->tensor[i].t;
            as_asked += t->type == c->type ? tensor_bytes(t) : 0;
            halves += t->type->gguf_id == GGUF_F16 ? tensor_bytes(t) : 0;
        }
        if (halves > as_asked) best = dtype_by_id(GGUF_F16);
    }
    return best;
}

/* "30 Q4_K, 181 F16 (rows are no multiple of 256), 61 F32" */
static void count_types(const struct convert *c, char *text, size_t cap)
{
    int64_t n[DTYPE_IDS] = { 0 };
    size_t at = 0;
    *text = '\0';
    for (int64_t i = 0; i < c->n_tensors; i++) n[c->tensor[i].t.type->gguf_id]++;
    for (int pass = 0; pass < 3; pass++) /* what was asked for, then halves, then the rest */
        for (int i = 0; i < dtype_count; i++) {
            const struct dtype *t = dtypes[i];
            if (t->gguf_id >= DTYPE_IDS || !n[t->gguf_id] || pass != (t == c->type ? 0 : t->gguf_id == GGUF_F16 ? 1 : 2) || at + 64 > cap) continue;
            at += (size_t)snprintf(text + at, cap - at, "%s%lld %s", at ? ", " : "", (long long)n[t->gguf_id], t->gguf_name);
            if (t->gguf_id == GGUF_F16 && t != c->type && c->type->block_len > 1)
                at += (size_t)snprintf(text + at, cap - at, " (rows are no multiple of %d)", (int)c->type->block_len);
        }
}

/* ---- keys ---- */

/* general.file_type, as llama.cpp numbers the mixes. */
static int64_t file_type(const struct dtype *t)
{
    static const struct { int type, id; } ids[] = {
        { GGUF_F32, 0 }, { GGUF_F16, 1 }, { GGUF_Q4_0, 2 }, { GGUF_Q4_1, 3 }, { GGUF_Q8_0, 7 }, { GGUF_Q5_0, 8 }, { GGUF_Q5_1, 9 }, { GGUF_BF16, 32 },
        { GGUF_MXFP4, 38 },
    };
    for (int i = 0; i < ARRAY_LEN(ids); i++)
        if (ids[i].type == t->gguf_id) return ids[i].id;
    return -1;
}

static void put_general(const struct convert *c, struct gguf_writer *w)
{
    const struct import *im = &c->im;
    char real[PATH_MAX];
    const char *base = path_base(im->dir), *name = im->o->name;
    bool dots = !*base || !strcmp(base, ".") || !strcmp(base, "..");
    if (!name) name = dots && realpath(im->dir, real) ? path_base(real) : base;
    gguf_put_str(w, "general.architecture", im->arch->name, strlen(im->arch->name));
    gguf_put_str(w, "general.type", "model", 5);
    gguf_put_str(w, "general.name", name, strlen(name));
    if (c->most && file_type(c->most) >= 0) gguf_put_i64(w, "general.file_type", KV_U32, file_type(c->most));
    gguf_put_i64(w, "general.quantization_version", KV_U32, 2);
}

/* Rows of the embedding: what the vocabulary is padded to. */
static int64_t embedding_rows(struct import *im)
{
    struct source s;
    if (im->o->vocab_only) return import_int(im, "vocab_size", 0);
    for (const struct weight_row *r = im->arch->weights; r->gguf; r++)
        if (r->id == W_EMBD && source_find(im, r->hf, -1, 0, &s)) return source_rows(&s);
    return 0;
}

/* transformers refuses any difference; rows beyond the vocabulary are harmless. */
static status check_rows(struct import *im, struct err *e)
{
    int64_t n = import_int(im, "vocab_size", 0), rows = im->o->vocab_only ? n : embedding_rows(im);
    if (n > rows && rows > 0)
        return err_set(e, ERR_FORMAT, "%s/config.json: vocab_size is %lld, the embedding has %lld rows", im->dir, (long long)n, (long long)rows);
    if (n > 0 && n < rows) import_warn(im, "vocab_size is %lld, the embedding has %lld rows: all are kept", (long long)n, (long long)rows);
    return OK;
}

static void warn_tokenizer(void *ctx, const char *text) { import_warn(ctx, "%s", text); }

/* All keys, without and with the tensors that follow them. */
static status put_keys(struct convert *c, bool warn, struct gguf_writer *w, struct err *e)
{
    put_general(c, w);
    convert_put_keys(&c->im, w);
    struct convert_tokenizer_options o = { .n_vocab = embedding_rows(&c->im), .pre = c->im.o->pre, .warn = warn ? warn_tokenizer : NULL, .warn_ctx = &c->im };
    return convert_tokenizer(w, c->im.dir, &o, e);
}

static status write_header(struct convert *c, bool tensors, struct gguf_header *h, struct err *e)
{
    struct gguf_writer *w;
    TRY(gguf_header_open(&w, c->im.dir, e));
    status st = put_keys(c, !tensors, w, e); /* the second time would repeat every word */
    if (st != OK) {
        gguf_writer_abort(w);
        return st;
    }
    for (int64_t i = 0; tensors && i < c->n_tensors; i++) gguf_put_tensor(w, &c->tensor[i].t);
    return gguf_header_finish(w, h, e);
}

/* The model that the keys describe gives every size a number: the same code that opens files. */
static status read_model(struct convert *c, struct err *e)
{
    struct model *m = &c->model;
    arena_init(&m->arena, 0);
    TRY(write_header(c, false, &c->keys, e));
    TRY(gguf_check_header(&m->g, c->keys.data, c->keys.n, c->keys.size, c->im.dir, e));
    TRY(model_read_hparams(m, &(struct model_options){ 0 }, e));
    const struct gguf_kv *tokens = gguf_find(&m->g, "tokenizer.ggml.tokens");
    m->hp.n_vocab = tokens ? (int64_t)tokens->n : embedding_rows(&c->im);
    struct str pre;
    if (gguf_get_str(&m->g, "tokenizer.ggml.pre", &pre, NULL)) snprintf(c->pre, sizeof c->pre, "%.*s", (int)min_i64((int64_t)pre.n, 39), pre.p);
    return OK;
}

/* ---- public ---- */

static status plan(struct convert *c, const char *path, struct err *e)
{
    struct import *im = &c->im;
    TRY(folder_of(im, path, e));
    TRY(convert_read_config(im, &c->hf, e));
    if (!im->o->vocab_only) TRY(open_checkpoint(c, path, e));
    TRY(packed_setup(im, e));
    c->type = im->o->type ? im->o->type : usual_type(im);
    TRY(convert_config_keys(im, e));
    TRY(check_rows(im, e));
    TRY(read_model(c, e));
    im->m = &c->model;
    c->most = c->type;
    if (!im->o->vocab_only) TRY(convert_plan_tensors(c, e));
    c->most = main_type(c);
    TRY(write_header(c, true, &c->header, e));
    for (int64_t i = 0; i < c->n_tensors; i++) c->tensor[i].offset = c->header.offset[i];
    return OK;
}

status convert_open(struct convert **out, const char *path, const struct convert_options *o, struct err *e)
{
    *out = NULL;
    if (o->type && !o->type->pack) return err_set(e, ERR_USAGE, "%s cannot be made by rounding: convert to F16 or BF16, then quantize", o->type->gguf_name);
    struct convert *c = mem_calloc(1, sizeof *c);
    if (!c) return err_oom(e, "conversion", sizeof *c);
    c->im.o = o;
    arena_init(&c->im.arena, 0);
    pthread_mutex_init(&c->im.lock, NULL);
    status st = plan(c, path, e);
    if (st != OK) {
        convert_close(c);
        return st;
    }
    *out = c;
    return OK;
}

void convert_close(struct convert *c)
{
    if (!c) return;
    pthread_mutex_destroy(&c->im.lock);
    checkpoint_close(&c->im.ckpt);
    gguf_close(&c->model.g);
    arena_free(&c->model.arena);
    arena_free(&c->im.arena);
    gguf_header_free(&c->keys);
    gguf_header_free(&c->header);
    mem_free(c->im.key);
    mem_free(c->tensor);
    mem_free(c);
}

void convert_info(const struct convert *c, struct convert_info *info)
{
    *info = (struct convert_info){
        .arch = c->im.arch->name,
        .hf = c->hf,
        .type = c->most->gguf_name,
        .n_tensors = c->n_tensors,
        .n_sources = c->im.ckpt.n_tensors,
        .n_vocab = c->model.hp.n_vocab,
        .out_bytes = c->header.size,
        .pre = c->pre,
    };
    count_types(c, info->types, sizeof info->types);
}
