/* inspect - what a GGUF file holds, for every architecture: reads keys and tensor views, and asks the model code only whether it would
 * run and how much memory that takes. Text from the file is shown without control characters: names and templates are not to be trusted. */
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "src/cuanto.h"
#include "tools/opt.h"
#include "tools/report.h"

enum { PATH_CAP = 4096, SHOWN_ITEMS = 8, MEMORY_ROWS = 5 };

struct type_row { const struct dtype *type; int64_t n_tensors; uint64_t n_params, bytes; };
struct memory_row { int64_t n_ctx; uint64_t kv, total; };
struct damage { int64_t n_tensors, n_blocks; };

struct inspection {
    const struct cli *c;
    char path[PATH_CAP];
    struct gguf g;
    struct str kind, arch, name, tokenizer, pre, template;
    int64_t n_ctx, n_layer, n_embd, n_ff, n_head, n_head_kv, head_dim, n_vocab, n_expert, n_used, n_ff_expert; /* -1: the file does not say */
    uint64_t n_params, bytes;
    struct type_row types[DTYPE_IDS];
    int n_types;
    bool runs;
    struct err why;                /* when it does not run */
    size_t scratch;
    struct memory_row memory[MEMORY_ROWS];
    int n_memory;
};

/* ---- text from the file ---- */

/* At most cap - 1 bytes of s up to the first newline, control characters (C0, DEL, C1) as '?', "..." when cut. Returns buf. */
static const char *clean(struct str s, char *buf, size_t cap)
{
    size_t n = 0, i = 0;
    for (; i < s.n && n + 5 < cap; i++) {
        uint8_t b = (uint8_t)s.p[i];
        if (b == '\n' || b == '\r') break;
        bool c1 = b == 0xC2 && i + 1 < s.n && (uint8_t)s.p[i + 1] < 0xA0;
        buf[n++] = b < 0x20 || b == 0x7F || c1 ? '?' : (char)b;
        i += c1;
    }
    snprintf(buf + n, cap - n, "%s", i < s.n ? "..." : "");
    return buf;
}

static struct str str_of(const char *s) { return (struct str){ s, strlen(s) }; }

static struct str get_str(const struct gguf *g, const char *key)
{
    struct str s = { "", 0 };
    struct err ignored = { 0 };
    gguf_get_str(g, key, &s, &ignored);
    return s;
}

static bool is_number(enum gguf_kind k) { return k != KV_STR && k != KV_ARR && k != KV_F32 && k != KV_F64; }

/* "<architecture>.<suffix>"; the first item where layers differ; -1 when absent. */
static int64_t get_i64(const struct inspection *in, const char *suffix)
{
    char key[160];
    if (in->arch.n > 64) return -1;
    snprintf(key, sizeof key, "%.*s.%s", (int)in->arch.n, in->arch.p, suffix);
    const struct gguf_kv *kv = gguf_find(&in->g, key);
    return kv && kv->n > 0 && is_number(kv->elem) ? gguf_arr_i64(kv, 0) : -1;
}

/* ---- gathering ---- */

static void count_types(struct inspection *in)
{
    for (int64_t i = 0; i < in->g.n_tensors; i++) {
        const struct tensor *t = &in->g.tensor[i];
        int j = 0;
        while (j < in->n_types && in->types[j].type != t->type) j++;
        if (j == DTYPE_IDS) continue;
        if (j == in->n_types) in->types[in->n_types++].type = t->type;
        in->types[j].n_tensors++;
        in->types[j].n_params += (uint64_t)tensor_elements(t);
        in->types[j].bytes += tensor_bytes(t);
        in->n_params += (uint64_t)tensor_elements(t);
        in->bytes += tensor_bytes(t);
    }
    for (int i = 1; i < in->n_types; i++) /* largest first */
        for (int j = i; j > 0 && in->types[j].bytes > in->types[j - 1].bytes; j--) {
            struct type_row r = in->types[j];
            in->types[j] = in->types[j - 1];
            in->types[j - 1] = r;
        }
}

static void read_facts(struct inspection *in)
{
    const struct gguf *g = &in->g;
    in->kind = get_str(g, "general.type");
    in->arch = get_str(g, "general.architecture");
    in->name = get_str(g, "general.name");
    in->tokenizer = get_str(g, "tokenizer.ggml.model");
    in->pre = get_str(g, "tokenizer.ggml.pre");
    in->template = get_str(g, "tokenizer.chat_template");
    in->n_ctx = get_i64(in, "context_length");
    in->n_layer = get_i64(in, "block_count");
    in->n_embd = get_i64(in, "embedding_length");
    in->n_ff = get_i64(in, "feed_forward_length");
    in->n_expert = get_i64(in, "expert_count");
    in->n_used = get_i64(in, "expert_used_count");
    in->n_ff_expert = get_i64(in, "expert_feed_forward_length");
    in->n_head = get_i64(in, "attention.head_count");
    in->n_head_kv = get_i64(in, "attention.head_count_kv");
    in->head_dim = get_i64(in, "attention.key_length");
    if (in->n_head_kv < 0) in->n_head_kv = in->n_head;
    if (in->head_dim < 0 && in->n_head > 0 && in->n_embd > 0) in->head_dim = in->n_embd / in->n_head;
    const struct gguf_kv *tokens = gguf_find(g, "tokenizer.ggml.tokens");
    in->n_vocab = tokens && tokens->kind == KV_ARR ? (int64_t)tokens->n : get_i64(in, "vocab_size");
    count_types(in);
}

/* Opens the model and an engine for a moment: the only honest way to know whether it runs and what scratch it takes. */
static void try_running(struct inspection *in)
{
    static const int64_t contexts[] = { 2048, 4096, 8192, 32768 };
    struct model *m = NULL;
    struct engine *en = NULL;
    struct model_options mo = { .no_mmap = in->c->no_mmap, .pre = in->c->pre };
    struct engine_options eo = { .n_threads = (int)in->c->threads, .n_batch = in->c->batch };
    bool before = cli_signals_at_once(true);
    status st = model_open(&m, in->path, &mo, &in->why);
    cli_signals_at_once(before);
    if (st == OK) st = engine_open(&en, m, &eo, &in->why);
    if (st == OK) {
        struct model_info info;
        const struct dtype *kv = dtype_by_name(in->c->kv_type ? in->c->kv_type : "f16");
        model_info(m, &info);
        in->runs = true;
        in->scratch = engine_bytes(en);
        for (int i = 0; i <= ARRAY_LEN(contexts); i++) {
            int64_t n = i < ARRAY_LEN(contexts) ? contexts[i] : info.n_ctx_train;
            if (i < ARRAY_LEN(contexts) ? n >= info.n_ctx_train : n <= 0) continue; /* the last row is the model's own length */
            size_t bytes = model_state_bytes(m, n, kv);
            if (bytes == SIZE_MAX) continue;
            in->memory[in->n_memory++] = (struct memory_row){ n, bytes, in->bytes + bytes + in->scratch };
        }
    }
    engine_close(en);
    model_close(m);
}

/* ---- --check ---- */

/* The first value of a block that is not finite, or 0. */
static float bad_value(const struct dtype *t, const void *block)
{
    if (!t->unpack) {
        float v;
        dtype_to_f32(t, block, &v, 1);
        return isfinite(v) ? 0 : v;
    }
    struct codes c;
    t->unpack(block, &c);
    for (int i = 0; i < t->block_len / t->group_len; i++) {
        if (!isfinite(c.scale[i])) return c.scale[i];
        if (t->has_min && !isfinite(c.min[i])) return c.min[i];
        if (isfinite(c.scale[i] * 128.0f)) continue; /* a finite scale of float type may still overflow with its codes: MXFP4 */
        for (int k = i * t->group_len; k < (i + 1) * t->group_len; k++)
            if (!isfinite(c.scale[i] * (float)c.code[k])) return c.scale[i] * (float)c.code[k];
    }
    return 0;
}

static void check_tensor(const struct tensor *t, struct damage *d, struct json_out *o)
{
    int64_t n = tensor_elements(t) / t->type->block_len, first = -1, bad = 0, per_row = t->ne[0] / t->type->block_len;
    float value = 0;
    assert(per_row > 0); /* gguf_open refuses empty rows and rows of broken blocks */
    for (int64_t i = 0; i < n; i++) {
        float v = bad_value(t->type, (const uint8_t *)t->data + (size_t)i * (size_t)t->type->block_bytes);
        if (v == 0) continue;
        if (bad++ == 0) first = i, value = v;
    }
    if (bad == 0) return;
    d->n_tensors++;
    d->n_blocks += bad;
    if (o) {
        json_begin(o, NULL, '{');
        json_put_cstr(o, "tensor", t->name);
        json_put_i64(o, "first_block", first);
        json_put_i64(o, "row", first / per_row);
        json_put_cstr(o, "value", isnan(value) ? "nan" : value > 0 ? "inf" : "-inf");
        json_put_i64(o, "bad_blocks", bad);
        json_put_i64(o, "blocks", n);
        json_end(o, '}');
        return;
    }
    char name[128];
    out_printf("%s: %s %lld (row %lld, %s %lld of it) holds %g; %lld of %lld are damaged\n", clean(str_of(t->name), name, sizeof name),
               t->type->unpack ? "block" : "element", (long long)first, (long long)(first / per_row), t->type->unpack ? "block" : "element",
               (long long)(first % per_row), (double)value, (long long)bad, (long long)n);
}

static status check_weights(const struct inspection *in, struct damage *d, struct json_out *o, struct err *e)
{
    struct bar bar;
    int64_t done = 0;
    if (o) json_begin(o, "damaged", '[');
    bar_begin(&bar, in->c, "check", "B", (int64_t)in->bytes);
    for (int64_t i = 0; i < in->g.n_tensors && !cli_interrupted; i++) {
        check_tensor(&in->g.tensor[i], d, o);
        done += (int64_t)tensor_bytes(&in->g.tensor[i]);
        bar_update(&bar, done, NULL);
    }
    bar_end(&bar);
    if (o) json_end(o, ']');
    if (cli_interrupted) return err_set(e, ERR_INTERRUPTED, "interrupted");
    if (d->n_blocks == 0) return OK;
    return err_set(e, ERR_VERIFY, "%lld of %lld tensors hold NaN or infinity (%lld blocks)", (long long)d->n_tensors,
                   (long long)in->g.n_tensors, (long long)d->n_blocks);
}

/* ---- keys and tensors ---- */

static void item_text(const struct gguf_kv *kv, uint64_t i, const uint8_t **cursor, char *buf, size_t cap)
{
    char text[96];
    if (kv->elem == KV_STR) snprintf(buf, cap, "\"%s\"", clean(gguf_arr_str(cursor), text, sizeof text));
    else if (kv->elem == KV_F32 || kv->elem == KV_F64) snprintf(buf, cap, "%.7g", (double)gguf_arr_f32(kv, i));
    else if (kv->elem == KV_BOOL) snprintf(buf, cap, "%s", gguf_arr_i64(kv, i) ? "true" : "false");
    else snprintf(buf, cap, "%lld", (long long)gguf_arr_i64(kv, i));
}

static void print_keys(const struct gguf *g)
{
    out_printf("\nkeys\n");
    for (int64_t i = 0; i < g->n_kv; i++) {
        const struct gguf_kv *kv = &g->kv[i];
        const uint8_t *cursor = kv->data;
        char key[128], kind[32], text[128];
        uint64_t n = kv->n < SHOWN_ITEMS ? kv->n : SHOWN_ITEMS;
        out_printf("  %-44s %-16s ", clean(kv->key, key, sizeof key), gguf_kv_text(kv, kind));
        if (kv->kind == KV_ARR) out_printf("[%llu] ", (unsigned long long)kv->n);
        for (uint64_t j = 0; j < n; j++) {
            item_text(kv, j, &cursor, text, sizeof text);
            out_printf("%s%s", j ? ", " : "", text);
        }
        out_printf("%s\n", kv->n > n ? ", ..." : "");
    }
}

/* In its own part of a split model. */
static uint64_t file_offset(const struct gguf *g, const struct tensor *t)
{
    return (uint64_t)((const uint8_t *)t->data - gguf_file_of(g, t)->data);
}

static void print_tensors(const struct gguf *g)
{
    out_printf("\ntensors\n  %-40s %-22s %-6s %14s %14s\n", "name", "shape", "type", "bytes", "offset");
    for (int64_t i = 0; i < g->n_tensors; i++) {
        const struct tensor *t = &g->tensor[i];
        char name[128], shape[64];
        out_printf("  %-40s %-22s %-6s %14zu %14llu\n", clean(str_of(t->name), name, sizeof name), tensor_shape_text(t, shape),
                   t->type->gguf_name, tensor_bytes(t), (unsigned long long)file_offset(g, t));
    }
}

static void item_json(struct json_out *o, const char *key, const struct gguf_kv *kv, uint64_t i, const uint8_t **cursor)
{
    if (kv->elem == KV_STR) {
        struct str s = gguf_arr_str(cursor);
        json_put_str(o, key, s.p, s.n);
    } else if (kv->elem == KV_F32 || kv->elem == KV_F64) {
        json_put_f64(o, key, (double)gguf_arr_f32(kv, i));
    } else if (kv->elem == KV_BOOL) {
        json_put_bool(o, key, gguf_arr_i64(kv, i) != 0);
    } else {
        json_put_i64(o, key, gguf_arr_i64(kv, i));
    }
}

/* Keys become a list, not members: nothing in the file may collide with or break a name. */
static void keys_json(struct json_out *o, const struct gguf *g)
{
    json_begin(o, "keys", '[');
    for (int64_t i = 0; i < g->n_kv; i++) {
        const struct gguf_kv *kv = &g->kv[i];
        const uint8_t *cursor = kv->data;
        char kind[32];
        json_begin(o, NULL, '{');
        json_put_str(o, "key", kv->key.p, kv->key.n);
        json_put_cstr(o, "type", gguf_kv_text(kv, kind));
        if (kv->kind == KV_ARR) {
            json_put_i64(o, "n", (int64_t)kv->n);
            json_begin(o, "first", '[');
            for (uint64_t j = 0; j < kv->n && j < SHOWN_ITEMS; j++) item_json(o, NULL, kv, j, &cursor);
            json_end(o, ']');
        } else {
            item_json(o, "value", kv, 0, &cursor);
        }
        json_end(o, '}');
    }
    json_end(o, ']');
}

static void tensors_json(struct json_out *o, const struct gguf *g)
{
    json_begin(o, "tensors", '[');
    for (int64_t i = 0; i < g->n_tensors; i++) {
        const struct tensor *t = &g->tensor[i];
        int n_dims = 4;
        json_begin(o, NULL, '{');
        json_put_cstr(o, "name", t->name);
        json_begin(o, "shape", '[');
        while (n_dims > 1 && t->ne[n_dims - 1] == 1) n_dims--;
        for (int d = 0; d < n_dims; d++) json_put_i64(o, NULL, t->ne[d]);
        json_end(o, ']');
        json_put_cstr(o, "type", t->type->gguf_name);
        json_put_i64(o, "bytes", (int64_t)tensor_bytes(t));
        json_put_i64(o, "offset", (int64_t)file_offset(g, t));
        json_end(o, '}');
    }
    json_end(o, ']');
}

/* ---- the overview ---- */

static void print_count(const char *label, int64_t v, const char *unit)
{
    if (v >= 0) out_printf("%s%lld%s", label, (long long)v, unit);
}

static void print_memory(const struct inspection *in)
{
    char kv[32], total[32], scratch[32];
    if (!in->runs) return;
    out_printf("\ncontext        KV cache    weights + KV + %s scratch\n", size_text(in->scratch, scratch));
    for (int i = 0; i < in->n_memory; i++)
        out_printf("%7lld  %14s  %s\n", (long long)in->memory[i].n_ctx, size_text(in->memory[i].kv, kv),
                   size_text(in->memory[i].total, total));
}

/* Bytes of the data part that no tensor covers, padding aside: legal, but they cost disk and download. 0 for split models. */
static size_t unused_bytes(const struct gguf *g)
{
    size_t room = g->file.size - g->data_offset, used = 0;
    for (int64_t i = 0; i < g->n_tensors; i++) used += (tensor_bytes(&g->tensor[i]) + g->alignment - 1) & ~(g->alignment - 1);
    return g->n_more == 0 && room > used ? room - used : 0;
}

/* What a file is that is no model; NULL: a model, or it does not say. */
static const char *kind_of(const struct inspection *in)
{
    static const struct { const char *type, *text; } rows[] = {
        { "imatrix", "importance of columns: cuanto quantize --imatrix FILE" },
        { "adapter", "LoRA adapter: cuanto run MODEL --lora FILE" },
    };
    for (int i = 0; i < ARRAY_LEN(rows); i++)
        if (in->kind.n == strlen(rows[i].type) && !memcmp(in->kind.p, rows[i].type, in->kind.n)) return rows[i].text;
    return NULL;
}

/* A key's text, made fit for a terminal; "" without it. */
static const char *key_text(const struct gguf *g, const char *key, char *buf, size_t cap)
{
    struct str s = { "", 0 };
    struct err ignored = { 0 };
    gguf_get_str(g, key, &s, &ignored);
    return clean(s, buf, cap);
}

/* How the file was made, as far as it tells: the keys of rotate and quantize. */
static void print_recipe(const struct gguf *g)
{
    char recipe[64], method[64], program[64], text[128], file[128], solver[128], calibration[128];
    const struct gguf_kv *chunks = gguf_find(g, "quantize.imatrix.chunks_count");
    struct err ignored = { 0 };
    float error = 0;
    int64_t seed = 0;
    if (*key_text(g, "rotate.kind", text, sizeof text)) {
        gguf_get_i64(g, "rotate.seed", 0, INT64_MAX, &seed, &ignored);
        out_printf("rotated        %s, seed %lld\n", text, (long long)seed);
    }
    key_text(g, "quantize.recipe", recipe, sizeof recipe);
    key_text(g, "quantize.method", method, sizeof method);
    key_text(g, "quantize.imatrix.dataset", text, sizeof text);
    key_text(g, "quantize.imatrix.file", file, sizeof file);
    key_text(g, "quantize.calibration", calibration, sizeof calibration);
    if (*recipe)
        out_printf("quantized      %s%s%s by %s\n", recipe, *method ? ", method " : "", method, key_text(g, "quantize.program", program, sizeof program));
    if (*file) {
        out_printf("importance     of %s", *text ? text : file);
        if (*calibration) out_printf(", %s", calibration);
        else if (chunks && chunks->kind == KV_U32) out_printf(", %lld chunks", (long long)gguf_arr_i64(chunks, 0));
        out_printf(*text && strcmp(text, file) ? ", from %s\n" : "\n", file);
    }
    if (!*key_text(g, "quantize.solver", solver, sizeof solver)) return;
    out_printf("solved         for %s", solver);
    gguf_get_f32(g, "quantize.held_out_error", &error, &ignored);
    out_printf(error > 0 ? "; error on the held-out text %.3f of the search's\n" : "\n", (double)error);
}

static void print_text(const struct inspection *in)
{
    char text[128], size[32];
    double p = (double)in->n_params;
    out_printf("file           %s, %s, GGUF v%u\n", in->path, size_text(gguf_bytes(&in->g), size), in->g.version);
    if (in->g.n_more) out_printf("parts          %d files\n", in->g.n_more + 1);
    size_t unused = unused_bytes(&in->g);
    if (unused) out_printf("unused         %s that no tensor covers\n", size_text(unused, size));
    const char *kind = kind_of(in);
    if (kind) out_printf("kind           %s\n", kind);
    out_printf("architecture   %s\n", in->arch.n ? clean(in->arch, text, sizeof text) : "(not given)");
    if (in->name.n) out_printf("name           %s\n", clean(in->name, text, sizeof text));
    out_printf("parameters     %.2f %s\n", p < 1e9 ? p * 1e-6 : p * 1e-9, p < 1e9 ? "M" : "B");
    out_printf("weights        %s in %lld tensors, %.2f bits per weight\n", size_text(in->bytes, size), (long long)in->g.n_tensors,
               p > 0 ? 8 * (double)in->bytes / p : 0.0);
    print_recipe(&in->g);
    if (in->n_ctx >= 0) out_printf("context        %lld\n", (long long)in->n_ctx);
    if (in->n_layer >= 0) {
        out_printf("layers         %lld", (long long)in->n_layer);
        print_count(", width ", in->n_embd, "");
        print_count(", feed-forward ", in->n_ff, "\n");
        if (in->n_ff < 0) out_printf("\n");
    }
    if (in->n_expert > 0) {
        out_printf("experts        %lld", (long long)in->n_expert);
        print_count(", ", in->n_used, " used at a time");
        print_count(", feed-forward ", in->n_ff_expert >= 0 ? in->n_ff_expert : in->n_ff, ""); /* Mixtral has one key for both */
        out_printf("\n");
    }
    if (in->n_head >= 0) {
        out_printf("heads          %lld", (long long)in->n_head);
        print_count(" (", in->n_head_kv, " KV)");
        print_count(" of ", in->head_dim, "\n");
        if (in->head_dim < 0) out_printf("\n");
    }
    if (in->tokenizer.n) {
        out_printf("tokenizer      %s", clean(in->tokenizer, text, sizeof text));
        if (in->pre.n) out_printf(", %s", clean(in->pre, text, sizeof text));
        print_count(", ", in->n_vocab, " tokens");
        out_printf("\n");
    }
    if (in->template.n) out_printf("chat template  %zu bytes: %s\n", in->template.n, clean(in->template, text, 80));
    else out_printf("chat template  none\n");
    if (in->runs) out_printf("runs           yes\n");
    else out_printf("runs           no: %s\n", kind ? "it is no model" : in->why.text);
    out_printf("\ntype    tensors         bytes  share\n");
    for (int i = 0; i < in->n_types; i++)
        out_printf("%-6s  %7lld  %12s  %4.1f %%\n", in->types[i].type->gguf_name, (long long)in->types[i].n_tensors,
                   size_text(in->types[i].bytes, size), in->bytes ? 100.0 * (double)in->types[i].bytes / (double)in->bytes : 0.0);
    print_memory(in);
    if (in->c->all || in->c->verbose) {
        print_keys(&in->g);
        print_tensors(&in->g);
    }
}

static void put_count(struct json_out *o, const char *key, int64_t v)
{
    if (v >= 0) json_put_i64(o, key, v);
    else json_put_null(o, key);
}

static void put_text(struct json_out *o, const char *key, struct str s)
{
    if (s.n > 0) json_put_str(o, key, s.p, s.n);
    else json_put_null(o, key);
}

static void facts_json(struct json_out *o, const struct inspection *in)
{
    char line[160];
    json_put_cstr(o, "file", in->path);
    json_put_i64(o, "file_bytes", (int64_t)gguf_bytes(&in->g));
    json_put_i64(o, "gguf_version", in->g.version);
    put_text(o, "kind", in->kind);
    put_text(o, "architecture", in->arch);
    put_text(o, "name", in->name);
    json_put_i64(o, "n_params", (int64_t)in->n_params);
    json_put_i64(o, "n_tensors", in->g.n_tensors);
    json_put_i64(o, "tensor_bytes", (int64_t)in->bytes);
    json_put_f64(o, "bits_per_weight", in->n_params ? 8 * (double)in->bytes / (double)in->n_params : 0);
    put_count(o, "context_length", in->n_ctx);
    put_count(o, "n_layer", in->n_layer);
    put_count(o, "n_embd", in->n_embd);
    put_count(o, "n_ff", in->n_ff);
    put_count(o, "n_expert", in->n_expert);
    put_count(o, "n_expert_used", in->n_used);
    put_count(o, "n_ff_expert", in->n_ff_expert);
    put_count(o, "n_head", in->n_head);
    put_count(o, "n_head_kv", in->n_head_kv);
    put_count(o, "head_dim", in->head_dim);
    put_count(o, "n_vocab", in->n_vocab);
    put_text(o, "tokenizer", in->tokenizer);
    put_text(o, "pre_tokenizer", in->pre);
    json_put_i64(o, "template_bytes", (int64_t)in->template.n);
    put_text(o, "template_first_line", in->template.n ? str_of(clean(in->template, line, sizeof line)) : in->template);
    json_put_bool(o, "runs", in->runs);
    json_put_cstr(o, "why_not", in->runs ? NULL : in->why.text);
}

static void tables_json(struct json_out *o, const struct inspection *in)
{
    json_begin(o, "types", '[');
    for (int i = 0; i < in->n_types; i++) {
        json_begin(o, NULL, '{');
        json_put_cstr(o, "type", in->types[i].type->gguf_name);
        json_put_i64(o, "count", in->types[i].n_tensors);
        json_put_i64(o, "n_params", (int64_t)in->types[i].n_params);
        json_put_i64(o, "bytes", (int64_t)in->types[i].bytes);
        json_put_f64(o, "percent", in->bytes ? 100.0 * (double)in->types[i].bytes / (double)in->bytes : 0);
        json_end(o, '}');
    }
    json_end(o, ']');
    json_begin(o, "memory", '[');
    for (int i = 0; i < in->n_memory; i++) {
        json_begin(o, NULL, '{');
        json_put_i64(o, "n_ctx", in->memory[i].n_ctx);
        json_put_i64(o, "kv_bytes", (int64_t)in->memory[i].kv);
        json_put_i64(o, "scratch_bytes", (int64_t)in->scratch);
        json_put_i64(o, "total_bytes", (int64_t)in->memory[i].total);
        json_end(o, '}');
    }
    json_end(o, ']');
    if (!in->c->all && !in->c->verbose) return;
    keys_json(o, &in->g);
    tensors_json(o, &in->g);
}

static status show(const struct inspection *in, struct err *e)
{
    struct damage d = { 0 };
    status st = OK;
    if (!in->c->json) {
        print_text(in);
        if (!in->c->check) return OK;
        out_printf("\n");
        out_flush();
        st = check_weights(in, &d, NULL, e);
        if (st == OK) out_printf("all weights are finite\n");
        return st;
    }
    struct json_out o;
    json_out_init(&o, true);
    json_begin(&o, NULL, '{');
    facts_json(&o, in);
    tables_json(&o, in);
    if (in->c->check) st = check_weights(in, &d, &o, e);
    json_end(&o, '}');
    if (!report_out(&o) && st == OK && out_status() == 0) st = err_oom(e, "report", 0);
    return st;
}

static int run(struct cli *c)
{
    struct inspection *in = mem_calloc(1, sizeof *in);
    struct err e = { 0 };
    if (!in) {
        err_oom(&e, "inspect", sizeof *in);
        return cli_fail(&e, NULL);
    }
    in->c = c;
    status st = model_find(c->model, in->path, sizeof in->path, &e);
    cli_signals_at_once(true);
    if (st == OK) st = gguf_open(&in->g, in->path, !c->no_mmap, &e);
    if (st == OK) {
        cli_signals_at_once(false);
        read_facts(in);
        try_running(in);
        st = show(in, &e);
        gguf_close(&in->g);
    }
    mem_free(in);
    return st == OK ? out_status() : cli_fail(&e, NULL);
}

OPT_GROUP(inspect_group, "Inspect",
    { "all", "-a", OPT_FLAG, OPT_AT(all), .help = "also list every key and every tensor" },
    { "check", "--check-tensors", OPT_FLAG, OPT_AT(check), 
      .help = "scan all weights for NaN and infinities; exit code 7 when there are any" },
    ROW_KV_TYPE("for the memory table"),
    { "no-mmap", NULL, OPT_FLAG, OPT_AT(no_mmap), .help = "read the file into memory instead of mapping it" },
    ROW_PRE);

static const struct opt_group *const groups[] = { &inspect_group, &opts_common, NULL };

const struct command command_inspect = {
    .name = "inspect",
    .brief = "what a model file holds and needs",
    .usage = "cuanto inspect MODEL [options]",
    .examples = "cuanto inspect model.gguf\n"
                "cuanto inspect model.gguf --all\n"
                "cuanto inspect model.gguf --check --json",
    .groups = groups,
    .min_args = 1,
    .max_args = 1,
    .run = run,
};
