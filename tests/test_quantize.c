/* Quantization from file to file: plans, bytes, restarts, refusals. The searches themselves have their own suites. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "quant/quant.h"
#include "tests/test.h"
#include "tests/tiny.h"

/* ---- helpers ---- */

/* test_tmp, for names that outlive eight others. */
static const char *tmp(const char *name)
{
    static char paths[16][256];
    char full[256];
    int i = 0;
    snprintf(full, sizeof full, "%s", test_tmp(name));
    while (i < ARRAY_LEN(paths) - 1 && paths[i][0] && strcmp(paths[i], full)) i++;
    memcpy(paths[i], full, sizeof full);
    return paths[i];
}

static const char *source(const char *name, const char *type, const char *poison)
{
    const char *path = tmp(name);
    struct tiny_options o = { .type = type, .n_embd = 256, .n_head = 4, .n_head_kv = 4, .head_dim = 64, .n_ff = 256, .poison = poison };
    struct err e = { 0 };
    CHECK_MSG(tiny_model(path, &o, &e) == OK, "%s", e.text);
    return path;
}

static void remove_all(const char *out)
{
    static const char *const ends[] = { "", ".part", ".part.journal" };
    char path[300];
    for (int i = 0; i < ARRAY_LEN(ends); i++) {
        snprintf(path, sizeof path, "%s%s", out, ends[i]);
        unlink(path);
    }
}

static bool exists(const char *out, const char *end)
{
    char path[300];
    struct stat st;
    snprintf(path, sizeof path, "%s%s", out, end);
    return lstat(path, &st) == 0;
}

static bool stop_early(void *ctx, const struct quant_progress *p)
{
    int *left = ctx;
    return --*left > 0;
}

static status quantize_scaled(const char *in, const char *out, const struct quant_options *o, const struct quant_run *r, const struct quant_scale *s, int n,
                              struct err *e)
{
    struct quant_plan *p;
    *e = (struct err){ 0 };
    status st = quant_plan_open(&p, in, o, e);
    if (st == OK) st = quant_plan_set_scales(p, s, n, e);
    if (st == OK) st = quant_file(p, out, r, e);
    quant_plan_close(p);
    return st;
}

static status quantize(const char *in, const char *out, const struct quant_options *o, const struct quant_run *r, struct err *e)
{
    return quantize_scaled(in, out, o, r, NULL, 0, e);
}

static bool same_files(const char *a, const char *b)
{
    char *x, *y;
    size_t n, m;
    if (file_text(a, 1 << 30, &x, &n, NULL) != OK) return false;
    if (file_text(b, 1 << 30, &y, &m, NULL) != OK) {
        mem_free(x);
        return false;
    }
    bool same = n == m && !memcmp(x, y, n);
    mem_free(x);
    mem_free(y);
    return same;
}

struct meddle { const char *path; int64_t at; bool done; };

static bool flip_output(void *ctx, const struct quant_progress *p)
{
    struct meddle *m = ctx;
    char path[300];
    uint8_t byte = 0;
    if (m->done || !p->finished || p->i + 1 < p->n) return true;
    snprintf(path, sizeof path, "%s.part", m->path);
    int fd = open(path, O_RDWR);
    m->done = fd >= 0 && pread(fd, &byte, 1, m->at) == 1;
    byte ^= 4;
    m->done &= pwrite(fd, &byte, 1, m->at) == 1;
    close(fd);
    return true;
}

/* The undisturbed result that others are compared with. */
static const char *reference(const char *in, const char *type)
{
    const char *out = tmp("quant_ref.gguf");
    struct quant_options o = { .type = type, .n_threads = 1 };
    struct quant_run r = { .overwrite = true };
    struct err e;
    CHECK_MSG(quantize(in, out, &o, &r, &e) == OK, "%s", e.text);
    return out;
}

/* ---- the mixes ---- */

struct shape { char name; int64_t layers, heads, kv, experts; bool own_head; int64_t cols; };
static const struct shape shapes[] = { /* as in golden/recipes.py */
    { 'a', 32, 32, 32, 0, true, 256 }, { 'b', 26, 32, 8, 0, false, 256 }, { 'c', 32, 32, 8, 8, true, 256 },
    { 'd', 80, 64, 8, 0, true, 256 },  { 'e', 20, 8, 4, 16, true, 256 },  { 'f', 32, 8, 8, 0, true, 128 + 32 },
};
static const char *const kinds[] = { "attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down" };

static void put_named(struct gguf_writer *w, const char *name, int64_t cols, int64_t mats)
{
    static float zeros[256 * 4 * 2];
    struct tensor t = { .name = name, .data = zeros };
    tensor_shape(&t, dtype_by_name("f32"), cols, 4, mats, 1);
    gguf_put_tensor(w, &t);
}

static void write_shape(const char *path, const struct shape *s)
{
    struct gguf_writer *w;
    char name[64];
    CHECK(gguf_writer_open(&w, path, NULL) == OK);
    gguf_put_str(w, "general.architecture", "llama", 5);
    gguf_put_i64(w, "llama.block_count", KV_U32, s->layers);
    gguf_put_i64(w, "llama.attention.head_count", KV_U32, s->heads);
    gguf_put_i64(w, "llama.attention.head_count_kv", KV_U32, s->kv);
    if (s->experts) gguf_put_i64(w, "llama.expert_count", KV_U32, s->experts);
    if (s->own_head) put_named(w, "output.weight", s->cols, 1);
    for (int64_t il = s->layers - 1; il >= 0; il--) /* the order in the file must not matter */
        for (int k = 0; k < ARRAY_LEN(kinds); k++) {
            bool moe = s->experts && !strncmp(kinds[k], "ffn", 3);
            if (moe && k == 4) {
                snprintf(name, sizeof name, "blk.%d.ffn_gate_inp.weight", (int)il);
                put_named(w, name, s->cols, 1);
            }
            snprintf(name, sizeof name, "blk.%d.%s%s.weight", (int)il, kinds[k], moe ? "_exps" : "");
            put_named(w, name, s->cols, moe ? 2 : 1);
        }
    put_named(w, "token_embd.weight", s->cols, 1);
    CHECK(gguf_writer_finish(w, NULL) == OK);
}

/* "Q6_K*4 Q4_K*28": formats of one kind by layer. */
static void runs_of(struct quant_plan *p, const struct shape *s, const char *kind, char *out, size_t cap)
{
    const char *last = NULL;
    int count = 0;
    size_t n = 0;
    bool layered = strncmp(kind, "token", 5) && strcmp(kind, "output");
    for (int64_t il = 0; il < (layered ? s->layers : 1); il++) {
        char name[64], exps[64];
        snprintf(name, sizeof name, layered ? "blk.%d.%s.weight" : "%.0d%s.weight", layered ? (int)il : 0, kind);
        snprintf(exps, sizeof exps, "blk.%d.%s_exps.weight", (int)il, kind);
        const char *type = NULL;
        for (int64_t i = 0; i < quant_plan_n(p) && !type; i++) {
            const struct quant_item *it = quant_plan_item(p, i);
            if (!strcmp(it->src->name, name) || !strcmp(it->src->name, exps)) type = it->to->gguf_name;
        }
        if (!type) break;
        if (last && strcmp(type, last)) n += (size_t)snprintf(out + n, cap - n, " %s*%d", last, count), count = 0;
        last = type;
        count++;
    }
    if (last) snprintf(out + n, cap - n, " %s*%d", last, count);
    else out[0] = 0;
}

static int compare_lines(const char *golden, const struct shape *s, const char *mix, bool importance, struct quant_plan *p)
{
    int n = 0;
    char head[40];
    int head_n = snprintf(head, sizeof head, "\n%c %s ", s->name, mix);
    for (const char *at = golden; (at = strstr(at, head)); at++) {
        char line[400], kind[32], got[400];
        const char *sign = at + head_n;
        snprintf(line, sizeof line, "%.*s", (int)strcspn(sign + 2, "\n"), sign + 2);
        if (*sign == (importance ? '-' : '+')) continue;
        snprintf(kind, sizeof kind, "%.*s", (int)strcspn(line, " "), line);
        runs_of(p, s, kind, got, sizeof got);
        CHECK_MSG(!strcmp(line + strlen(kind), got), "model %c, %s%s, %s:%s, llama-quantize has%s", s->name, mix, importance ? " with importance" : "", kind,
                  got, line + strlen(kind));
        n++;
    }
    return n;
}

TEST(quantize_mixes_choose_as_llama_quantize)
{
    char *golden;
    size_t size;
    struct importance im;
    int lines = 0;
    importance_init(&im);
    CHECK(file_text("tests/golden/recipes.txt", 1 << 20, &golden, &size, NULL) == OK);
    if (!golden) return;
    golden[0] = '\n'; /* model a is the first: its line begins like all others */
    for (int m = 0; m < ARRAY_LEN(shapes); m++) {
        const char *path = tmp("quant_shape.gguf");
        write_shape(path, &shapes[m]);
        for (int i = 0; i < recipe_count * 2; i++) {
            struct quant_options o = { .type = recipes[i / 2].name, .sizes_only = true, .importance = i % 2 ? &im : NULL, .n_threads = 1 };
            struct quant_plan *p;
            struct err e = { 0 };
            CHECK_MSG(quant_plan_open(&p, path, &o, &e) == OK, "%s: %s", o.type, e.text);
            if (p) lines += compare_lines(golden, &shapes[m], o.type, i % 2, p);
            quant_plan_close(p);
        }
    }
    CHECK_MSG(lines > 3000, "only %d lines compared", lines);
    mem_free(golden);
    importance_close(&im);
}

/* ---- bytes ---- */

TEST(quantize_bytes_do_not_depend_on_threads)
{
    static const char *const types[] = { "Q4_K_M", "Q8_0", "Q4_0", "F16" };
    const char *in = source("quant_in.gguf", "f32", NULL);
    for (int t = 0; t < ARRAY_LEN(types); t++) {
        const char *ref = reference(in, types[t]), *out = tmp("quant_out.gguf");
        for (int n = 2; n <= 3; n++) {
            struct quant_options o = { .type = types[t], .n_threads = n };
            struct quant_run r = { .overwrite = true, .verify = n == 3, .full_stats = n == 3 };
            struct err e;
            CHECK_MSG(quantize(in, out, &o, &r, &e) == OK, "%s", e.text);
            CHECK_MSG(same_files(ref, out), "%s, %d threads", types[t], n);
        }
        CHECK(!exists(out, ".part") && !exists(out, ".part.journal"));
    }
}

TEST(quantize_bytes_do_not_depend_on_the_isa_level)
{
    const char *in = source("quant_in.gguf", "f32", NULL), *ref = reference(in, "Q4_K_M"), *out = tmp("quant_out.gguf");
    struct quant_options o = { .type = "Q4_K_M", .n_threads = 1, .isa = "scalar" };
    struct quant_run r = { .overwrite = true };
    struct err e;
    CHECK_MSG(quantize(in, out, &o, &r, &e) == OK, "%s", e.text);
    CHECK(same_files(ref, out));
}

TEST(quantize_keeps_keys_and_small_tensors)
{
    const char *in = source("quant_in.gguf", "f32", NULL), *out = reference(in, "Q6_K");
    struct gguf a, b;
    struct err e = { 0 };
    int64_t v = 0;
    CHECK(gguf_open(&a, in, true, &e) == OK && gguf_open(&b, out, true, &e) == OK);
    for (int64_t i = 0; i < a.n_kv; i++) {
        char key[128];
        snprintf(key, sizeof key, "%.*s", (int)a.kv[i].key.n, a.kv[i].key.p);
        const struct gguf_kv *kv = gguf_find(&b, key);
        CHECK_MSG(kv && kv->kind == a.kv[i].kind && kv->n == a.kv[i].n, "%s", key);
    }
    CHECK(a.n_tensors == b.n_tensors);
    for (int64_t i = 0; i < a.n_tensors; i++) {
        const struct tensor *x = &a.tensor[i], *y = &b.tensor[i];
        CHECK_STR(x->name, y->name);
        if (x->ne[1] == 1) CHECK_MSG(x->type == y->type && !memcmp(x->data, y->data, tensor_bytes(x)), "%s", x->name);
        else CHECK_MSG(!strcmp(y->type->name, "q6_k"), "%s", x->name);
    }
    CHECK(gguf_get_i64(&b, "general.file_type", 0, 100, &v, &e) && v == 18);
    CHECK(gguf_get_i64(&b, "general.quantization_version", 0, 100, &v, &e) && v == 2);
    gguf_close(&a);
    gguf_close(&b);
}

TEST(quantize_again_copies_what_is_in_the_format_already)
{
    const char *in = source("quant_in.gguf", "f32", NULL), *once = reference(in, "Q8_0"), *out = tmp("quant_out.gguf");
    struct quant_options o = { .type = "Q8_0", .n_threads = 2 };
    struct quant_run r = { .overwrite = true };
    struct err e;
    CHECK_MSG(quantize(once, out, &o, &r, &e) == OK, "%s", e.text);
    CHECK(same_files(once, out));
    o.type = "Q4_0";
    CHECK(quantize(once, out, &o, &r, &e) == ERR_USAGE);
    CHECK_HAS(e.text, "is Q8_0 already");
    o.allow_requantize = true;
    CHECK_MSG(quantize(once, out, &o, &r, &e) == OK, "%s", e.text);
}

/* The same bytes as from a file whose weights were multiplied beforehand: matrices, and vectors that are kept; by every number of threads. */
TEST(quantize_scales_before_it_rounds)
{
    enum { N = 256 };
    const char *in = source("quant_in.gguf", "f32", NULL), *times = tmp("quant_times.gguf"), *want = tmp("quant_ref.gguf"), *out = tmp("quant_out.gguf");
    static const char *const names[] = { "blk.0.attn_norm.weight", "blk.0.attn_v.weight" };
    struct quant_run r = { .overwrite = true, .verify = true };
    static float row[N], column[N];
    uint64_t seed = 3;
    struct err e = { 0 };
    struct gguf g;
    struct gguf_writer *w;
    float *copy[ARRAY_LEN(names)] = { NULL };
    for (int i = 0; i < N; i++) row[i] = 0.5f + (float)(test_rand(&seed) % 100) / 64, column[i] = 0.5f + (float)(test_rand(&seed) % 100) / 64;
    const struct quant_scale scale[] = { { names[0], NULL, column }, { names[1], row, column } };
    CHECK(gguf_open(&g, in, true, &e) == OK && gguf_writer_open(&w, times, &e) == OK);
    for (int64_t i = 0; i < g.n_kv; i++) gguf_put_kv(w, &g.kv[i]);
    for (int64_t i = 0; i < g.n_tensors; i++) {
        struct tensor t = g.tensor[i];
        for (int k = 0; k < ARRAY_LEN(names); k++) {
            if (strcmp(t.name, names[k])) continue;
            CHECK(t.ne[0] == N && t.ne[1] <= N);
            copy[k] = malloc(tensor_bytes(&t));
            for (int64_t j = 0; j < tensor_elements(&t); j++) copy[k][j] = ((float *)t.data)[j] * (k ? row[j / N] * column[j % N] : column[j % N]);
            t.data = copy[k];
        }
        gguf_put_tensor(w, &t);
    }
    CHECK_MSG(gguf_writer_finish(w, &e) == OK && copy[0] && copy[1], "%s", e.text);
    for (int n = 1; n < 4; n++) {
        struct quant_options o = { .type = "Q4_K_M", .n_threads = n };
        CHECK_MSG(quantize(times, want, &o, &r, &e) == OK, "%s", e.text);
        CHECK_MSG(quantize_scaled(in, out, &o, &r, scale, ARRAY_LEN(scale), &e) == OK, "%s", e.text);
        CHECK(same_files(out, want));
    }
    const struct quant_scale unknown = { "blk.7.x.weight", row, NULL };
    struct quant_options o = { .type = "Q8_0", .n_threads = 1 };
    CHECK(quantize_scaled(in, out, &o, &r, &unknown, 1, &e) == ERR_USAGE);
    CHECK_HAS(e.text, "blk.7.x.weight: to be scaled, but not in the file");
    row[1] = 1e30f, column[2] = 1e30f; /* of a vector only the column */
    const struct quant_scale large[] = { { names[1], row, column }, { names[0], NULL, row } };
    CHECK(quantize_scaled(in, out, &o, &r, large, 1, &e) == ERR_FORMAT);
    CHECK_HAS(e.text, "blk.0.attn_v.weight: row 1, column 2 is ");
    row[1] = INFINITY;
    CHECK(quantize_scaled(in, out, &o, &r, large + 1, 1, &e) == ERR_FORMAT);
    CHECK_HAS(e.text, "blk.0.attn_norm.weight: row 0, column 1 is inf when it is scaled");
    row[1] = column[2] = 1;
    const char *half = tmp("quant_half.gguf");
    o = (struct quant_options){ .type = "F16", .n_threads = 1 };
    CHECK(quantize(in, half, &o, &r, &e) == OK);
    CHECK(quantize_scaled(half, out, &o, &r, scale, ARRAY_LEN(scale), &e) == ERR_USAGE);
    CHECK_HAS(e.text, "blk.0.attn_v.weight: to be scaled, but kept as F16");
    free(copy[0]);
    free(copy[1]);
    gguf_close(&g);
}

TEST(quantize_splits_and_the_parts_hold_the_same_bytes)
{
    const char *in = source("quant_in.gguf", "f32", NULL), *whole = reference(in, "Q8_0"), *out = tmp("quant_split.gguf");
    struct quant_options o = { .type = "Q8_0", .n_threads = 2, .split_bytes = 200000 };
    struct quant_run r = { .overwrite = true, .verify = true };
    struct quant_plan *p;
    struct quant_totals t = { 0 };
    struct err e = { 0 };
    struct gguf w;
    int64_t at = 0;
    CHECK(quant_plan_open(&p, in, &o, &e) == OK);
    quant_plan_totals(p, NULL, NULL, &t);
    CHECK_MSG(t.n_files >= 3, "%d files", t.n_files);
    CHECK_MSG(quant_file(p, out, &r, &e) == OK, "%s", e.text);
    CHECK(gguf_open(&w, whole, true, &e) == OK);
    for (int i = 0; i < t.n_files; i++) {
        char path[300], *text;
        size_t n;
        struct gguf g;
        int64_t v = -1;
        CHECK(quant_out_name(p, out, i, path, sizeof path));
        CHECK(strstr(path, "quant_split-0000"));
        CHECK(file_text(path, 1 << 30, &text, &n, &e) == OK);
        CHECK_MSG(gguf_check_header(&g, (const uint8_t *)text, n, n, path, &e) == OK, "%s", e.text);
        CHECK(gguf_get_i64(&g, "split.no", 0, 100, &v, &e) && v == i);
        CHECK(gguf_get_i64(&g, "split.count", 0, 100, &v, &e) && v == t.n_files);
        CHECK(gguf_get_i64(&g, "split.tensors.count", 0, 100, &v, &e) && v == w.n_tensors);
        CHECK((gguf_find(&g, "general.architecture") != NULL) == (i == 0));
        for (int64_t k = 0; k < g.n_tensors; k++, at++) {
            CHECK_STR(g.tensor[k].name, w.tensor[at].name);
            CHECK(!memcmp(g.tensor[k].data, w.tensor[at].data, tensor_bytes(&w.tensor[at])));
        }
        gguf_close(&g);
        mem_free(text);
        unlink(path);
    }
    CHECK(at == w.n_tensors);
    gguf_close(&w);
    quant_plan_close(p);
}

/* The parts of a split model are one input. */
TEST(quantize_reads_split_files_as_one)
{
    const char *in = source("quant_in.gguf", "f32", NULL), *ref = reference(in, "Q4_K_M"), *parts = tmp("quant_parts.gguf"), *out = tmp("quant_out.gguf");
    struct quant_options f32 = { .type = "F32", .n_threads = 2, .split_bytes = 400000 }, o = { .type = "Q4_K_M", .n_threads = 2 };
    struct quant_run r = { .overwrite = true, .verify = true };
    struct quant_plan *p;
    struct quant_totals t;
    struct err e = { 0 };
    char path[3][300];
    CHECK_MSG(quant_plan_open(&p, in, &f32, &e) == OK && quant_file(p, parts, &r, &e) == OK, "%s", e.text);
    if (e.code != OK) return;
    quant_plan_totals(p, NULL, NULL, &t);
    CHECK_MSG(t.n_files > 3, "%d files", t.n_files);
    for (int i = 0; i < 3; i++) CHECK(quant_out_name(p, parts, i, path[i], sizeof path[i]));
    CHECK_MSG(quantize(path[0], out, &o, &r, &e) == OK, "%s", e.text);
    CHECK(same_files(ref, out));
    CHECK(quantize(path[0], path[2], &o, &r, &e) == ERR_USAGE);
    CHECK_HAS(e.text, "is the input itself");
    CHECK(quantize(path[1], out, &o, &r, &e) == ERR_FORMAT);
    CHECK_HAS(e.text, "open the first part");
    int left = 1; /* a part that changes between a run and its resume */
    struct quant_run stop = { .overwrite = true, .progress = stop_early, .ctx = &left }, resume = { .resume = true };
    remove_all(out);
    CHECK(quantize(path[0], out, &o, &stop, &e) == ERR_INTERRUPTED);
    CHECK(utimensat(AT_FDCWD, path[2], (struct timespec[2]){ { 5, 0 }, { 5, 0 } }, 0) == 0);
    CHECK(quantize(path[0], out, &o, &resume, &e) == ERR_USAGE);
    CHECK_HAS(e.text, "the part belongs to another job: begun with input '");
    remove_all(out);
    for (int i = 0; i < t.n_files; i++) {
        CHECK(quant_out_name(p, parts, i, path[0], sizeof path[0]));
        unlink(path[0]);
    }
    quant_plan_close(p);
}

/* ---- outlier columns ---- */

/* The weights of the tiny model are uniform: what lies this little above the middle column is still a sixteenth of them. */
static struct quant_options outlier_options(const char *type, int n_threads)
{
    return (struct quant_options){ .type = type, .n_threads = n_threads, .keep_outliers = true, .outlier_threshold = 1.0005f };
}

static const char *outlier_reference(const char *in, const char *type)
{
    const char *out = tmp("quant_ref.gguf");
    struct quant_options o = outlier_options(type, 1);
    struct quant_run r = { .overwrite = true, .verify = true };
    struct err e;
    CHECK_MSG(quantize(in, out, &o, &r, &e) == OK, "%s", e.text);
    return out;
}

TEST(quantize_keeps_outlier_columns_whatever_threads_and_interruptions)
{
    static const char *const types[] = { "Q8_0", "Q4_K_M" };
    const char *in = source("quant_in.gguf", "f32", NULL), *out = tmp("quant_out.gguf");
    for (int t = 0; t < ARRAY_LEN(types); t++) {
        const char *ref = outlier_reference(in, types[t]);
        struct gguf g;
        struct err e;
        CHECK(gguf_open(&g, ref, true, NULL) == OK && gguf_tensor(&g, "blk.1.ffn_up.outlier.weight") && gguf_tensor(&g, "output.outlier.index"));
        CHECK(!gguf_tensor(&g, "token_embd.outlier.weight") && !gguf_tensor(&g, "blk.0.attn_norm.outlier.weight"));
        gguf_close(&g);
        for (int looks = 1; looks < 12; looks += 3) {
            int left = looks;
            struct quant_options o = outlier_options(types[t], 1 + looks % 3);
            struct quant_run stop = { .progress = stop_early, .ctx = &left }, resume = { .resume = true };
            remove_all(out);
            status st = quantize(in, out, &o, &stop, &e);
            CHECK(st == ERR_INTERRUPTED || st == OK);
            if (st != OK) CHECK_MSG(quantize(in, out, &o, &resume, &e) == OK, "%s", e.text);
            CHECK(same_files(ref, out));
        }
    }
}

TEST(quantize_verify_finds_a_wrong_bit_in_the_outlier_columns)
{
    const char *in = source("quant_in.gguf", "f32", NULL), *ref = outlier_reference(in, "Q8_0"), *out = tmp("quant_out.gguf");
    struct gguf g;
    struct err e;
    struct quant_options o = outlier_options("Q8_0", 2);
    CHECK(gguf_open(&g, ref, true, NULL) == OK);
    const struct tensor *part = gguf_tensor(&g, "blk.0.ffn_gate.outlier.weight");
    struct meddle m = { out, part ? (const uint8_t *)part->data - g.file.data + 3 : 0, false };
    struct quant_run r = { .verify = true, .progress = flip_output, .ctx = &m };
    gguf_close(&g);
    remove_all(out);
    CHECK(quantize(in, out, &o, &r, &e) == ERR_VERIFY && m.done);
    CHECK_HAS(e.text, "blk.0.ffn_gate.weight");
    r = (struct quant_run){ .verify = true, .resume = true };
    CHECK_MSG(quantize(in, out, &o, &r, &e) == OK, "%s", e.text);
    CHECK(same_files(ref, out));
}

TEST(quantize_refuses_outlier_columns_that_cannot_be)
{
    const char *in = source("quant_in.gguf", "f32", NULL), *once = tmp("quant_once.gguf"), *nan = source("quant_nan.gguf", "f32", "blk.1.ffn_up.weight");
    struct quant_options o = outlier_options("Q8_0", 2);
    struct quant_run r = { .overwrite = true };
    struct quant_plan *p;
    struct err e = { 0 };
    CHECK_MSG(quantize(in, once, &o, &r, &e) == OK, "%s", e.text);
    o.allow_requantize = true, o.type = "Q4_0";
    CHECK(quant_plan_open(&p, once, &o, &e) == ERR_USAGE);
    CHECK_HAS(e.text, "the input has outlier columns already");
    o.keep_outliers = false; /* then they are kept as they are */
    CHECK_MSG(quantize(once, tmp("quant_out.gguf"), &o, &r, &e) == OK, "%s", e.text);
    o = outlier_options("F16", 1);
    CHECK(quant_plan_open(&p, in, &o, &e) == ERR_USAGE);
    CHECK_HAS(e.text, "no matrix is quantized that could do without some columns");
    o = outlier_options("Q8_0", 1);
    o.outlier_threshold = NAN, e = (struct err){ 0 };
    CHECK(quant_plan_open(&p, in, &o, &e) == ERR_USAGE);
    CHECK_HAS(e.text, "the threshold is ");
    o = outlier_options("Q8_0", 2), e = (struct err){ 0 };
    CHECK(quant_plan_open(&p, nan, &o, &e) == ERR_FORMAT && !p);
    CHECK_HAS(e.text, "blk.1.ffn_up.weight: row 1, column 0 is NaN");
    unlink(once);
}

/* ---- choices ---- */

static const struct quant_item *item_of(struct quant_plan *p, const char *name)
{
    for (int64_t i = 0; i < quant_plan_n(p); i++)
        if (!strcmp(quant_plan_item(p, i)->src->name, name)) return quant_plan_item(p, i);
    CHECK_MSG(false, "no tensor %s", name);
    return quant_plan_item(p, 0);
}

TEST(quantize_rules_win_over_the_mix)
{
    static const char *const rules[] = { "blk\\.0\\.attn_v=q8_0", "attn_v=f16", "ffn_up=keep" };
    const char *in = source("quant_in.gguf", "f32", NULL);
    struct quant_options o = { .type = "Q4_K_M", .rules = rules, .n_rules = 3, .output_type = "q8_0", .embd_type = "keep", .n_threads = 1 };
    struct quant_plan *p;
    struct err e = { 0 };
    CHECK_MSG(quant_plan_open(&p, in, &o, &e) == OK, "%s", e.text);
    if (!p) return;
    CHECK_STR(item_of(p, "blk.0.attn_v.weight")->to->name, "q8_0");
    CHECK_STR(item_of(p, "blk.0.attn_v.weight")->why, "rule 1: blk\\.0\\.attn_v=q8_0");
    CHECK_STR(item_of(p, "blk.1.attn_v.weight")->to->name, "f16");
    CHECK(item_of(p, "blk.1.ffn_up.weight")->kept && item_of(p, "token_embd.weight")->kept);
    CHECK_STR(item_of(p, "output.weight")->to->name, "q8_0");
    CHECK_STR(item_of(p, "blk.1.attn_q.weight")->to->name, "q4_k");
    quant_plan_close(p);
}

TEST(quantize_refuses_what_cannot_be_meant)
{
    static const struct { struct quant_options o; const char *rule, *text; } cases[] = {
        { { .type = "Q4_KM" }, NULL, "unknown type 'Q4_KM'" },
        { { .type = NULL }, NULL, "no type" },
        { { .type = "Q4_K_M", .output_type = "q4" }, NULL, "unknown format 'q4'" },
        { { .type = "Q4_K_M" }, "attn_w=q8_0", "matches no tensor" },
        { { .type = "Q4_K_M" }, "attn_norm=q8_0", "rule 'attn_norm=q8_0' matches only tensors that are never quantized, such as blk.0.attn_norm.weight" },
        { { .type = "Q4_K_M" }, "attn_v", "expected REGEX=TYPE" },
        { { .type = "Q4_K_M" }, "attn_v=q9", "unknown format 'q9'" },
        { { .type = "Q4_K_M" }, "attn_(v=q8_0", "rule 'attn_(v=q8_0'" },
        { { .type = "IQ2_XXS" }, NULL, "needs importance: --calibration default" },
        { { .type = "Q2_K_S" }, NULL, "Q2_K needs importance" },
    };
    const char *in = source("quant_in.gguf", "f32", NULL);
    for (int i = 0; i < ARRAY_LEN(cases); i++) {
        struct quant_options o = cases[i].o;
        struct quant_plan *p;
        struct err e = { 0 };
        o.rules = &cases[i].rule, o.n_rules = cases[i].rule != NULL;
        CHECK_MSG(quant_plan_open(&p, in, &o, &e) == ERR_USAGE, "%s", cases[i].text);
        CHECK_HAS(e.text, cases[i].text);
        CHECK(p == NULL);
    }
}

TEST(quantize_tells_which_rows_do_not_fit)
{
    const char *path = tmp("quant_odd.gguf");
    struct tiny_options t = { .n_embd = 96, .n_ff = 80 };
    struct quant_options o = { .type = "Q4_K_M", .n_threads = 1 };
    struct quant_plan *p;
    struct quant_totals n;
    struct err e = { 0 };
    CHECK(tiny_model(path, &t, &e) == OK);
    CHECK_MSG(quant_plan_open(&p, path, &o, &e) == OK, "%s", e.text);
    if (!p) return;
    CHECK_STR(item_of(p, "blk.0.attn_q.weight")->why, "Q5_0 instead of Q4_K: rows of 96 are no multiple of 256");
    CHECK_STR(item_of(p, "blk.0.ffn_down.weight")->to->name, "f16");
    quant_plan_totals(p, NULL, NULL, &n);
    CHECK_MSG(n.n_fallback == 2 * 7 + 1, "%d", n.n_fallback); /* token_embd of 96 columns: output is Q8_0 at once, as in llama.cpp */
    CHECK(n.seconds < 0);
    quant_plan_close(p);
}

/* ---- damage ---- */

TEST(quantize_refuses_damaged_weights_by_name_and_place)
{
    static const char *const bad[] = { "blk.1.ffn_up.weight", "blk.0.attn_norm.weight" };
    for (int i = 0; i < ARRAY_LEN(bad); i++) {
        const char *in = source("quant_nan.gguf", "f32", bad[i]), *out = tmp("quant_out.gguf");
        struct quant_options o = { .type = "Q4_K_M", .n_threads = 2 };
        struct quant_run r = { 0 };
        struct err e;
        remove_all(out);
        CHECK(quantize(in, out, &o, &r, &e) == ERR_FORMAT);
        CHECK_HAS(e.text, bad[i]);
        CHECK_HAS(e.text, i == 0 ? "row 1, column 0 is NaN" : "row 0, column 0 is NaN");
        CHECK(!exists(out, "") && !exists(out, ".part") && !exists(out, ".part.journal"));
    }
}

/* A file of n tensors "blk.<i>.w.weight" of one type and shape, filled by `bytes`. */
static const char *plain_file(const char *file, int64_t n, int type, int64_t cols, int64_t rows, const void *bytes)
{
    const char *path = tmp(file);
    struct gguf_writer *w;
    char name[64];
    struct err e = { 0 };
    CHECK(gguf_writer_open(&w, path, &e) == OK);
    gguf_put_str(w, "general.architecture", "llama", 5);
    for (int64_t i = 0; i < n; i++) {
        struct tensor t = { .name = name, .data = (void *)(uintptr_t)bytes };
        snprintf(name, sizeof name, "blk.%d.w.weight", (int)i);
        tensor_shape(&t, dtype_by_id(type), cols, rows, 1, 1);
        gguf_put_tensor(w, &t);
    }
    CHECK_MSG(gguf_writer_finish(w, &e) == OK, "%s", e.text);
    return path;
}

TEST(quantize_makes_no_infinity_of_a_weight_too_large_for_halves)
{
    static const struct { const char *type; float x; bool fits; } rows[] = {
        { "F16", 65519.99f, true }, { "F16", -65520, false }, { "BF16", 0x1.ffp127f, false },
        { "BF16", 0x1.fefffep127f, true }, { "Q8_0", 1e30f, true },
    };
    for (int i = 0; i < ARRAY_LEN(rows); i++) {
        float x[4 * 32] = { [32 + 5] = rows[i].x };
        const char *in = plain_file("quant_large.gguf", 1, GGUF_F32, 32, 4, x), *out = tmp("quant_out.gguf");
        struct quant_options o = { .type = rows[i].type, .n_threads = 1 };
        struct err e;
        remove_all(out);
        CHECK_MSG(quantize(in, out, &o, &(struct quant_run){ 0 }, &e) == (rows[i].fits ? OK : ERR_FORMAT), "%d: %s", i, e.text);
        if (rows[i].fits) continue;
        CHECK_HAS(e.text, "blk.0.w.weight: row 1, column 5 is ");
        CHECK_HAS(e.text, rows[i].type);
        CHECK(!exists(out, "") && !exists(out, ".part"));
    }
}

TEST(quantize_keeps_integers)
{
    static const int types[] = { GGUF_I8, GGUF_I16, GGUF_I32, GGUF_I64 };
    int64_t x[32 * 4] = { 1, 2, 3 };
    for (int i = 0; i < ARRAY_LEN(types); i++) {
        const char *in = plain_file("quant_integers.gguf", 1, types[i], 32, 4, x);
        struct quant_options o = { .type = "Q8_0", .n_threads = 1 };
        struct quant_plan *p;
        struct err e = { 0 };
        CHECK_MSG(quant_plan_open(&p, in, &o, &e) == OK, "%s", e.text);
        if (!p) continue;
        CHECK(quant_plan_item(p, 0)->kept);
        CHECK_STR(quant_plan_item(p, 0)->why, "kept: integers");
        quant_plan_close(p);
    }
}

TEST(quantize_splits_into_no_more_files_than_can_be_read)
{
    float x[32] = { 1 };
    for (int n = GGUF_PARTS_MAX; n <= GGUF_PARTS_MAX + 1; n++) {
        const char *in = plain_file("quant_many.gguf", n, GGUF_F32, 32, 1, x);
        struct quant_options o = { .type = "F32", .split_bytes = 1, .n_threads = 1 };
        struct quant_plan *p;
        struct err e = { 0 };
        CHECK(quant_plan_open(&p, in, &o, &e) == (n == GGUF_PARTS_MAX ? OK : ERR_USAGE));
        if (!p) CHECK_HAS(e.text, "files of 1 bytes would be more than 999");
        quant_plan_close(p);
    }
}

static bool cut_input(void *ctx, const struct quant_progress *p)
{
    struct meddle *m = ctx;
    if (!m->done) m->done = truncate(m->path, 100000) == 0;
    return true;
}

TEST(quantize_notices_an_input_that_changes)
{
    const char *in = source("quant_cut.gguf", "f32", NULL), *out = tmp("quant_out.gguf");
    struct meddle m = { .path = in };
    struct quant_options o = { .type = "Q4_K_M", .n_threads = 1 };
    struct quant_run r = { .progress = cut_input, .ctx = &m };
    struct err e;
    remove_all(out);
    status st = quantize(in, out, &o, &r, &e);
    CHECK(m.done && (st == ERR_FILE || st == ERR_FORMAT));
    CHECK(!exists(out, ""));
    remove_all(out);
}

TEST(quantize_verify_finds_one_wrong_bit_and_resume_mends_it)
{
    static const int64_t places[] = { 20, 200000 }; /* in the header; in the data */
    const char *in = source("quant_in.gguf", "f32", NULL), *ref = reference(in, "Q4_K_M"), *out = tmp("quant_out.gguf");
    for (int i = 0; i < ARRAY_LEN(places); i++) {
        struct meddle m = { out, places[i], false };
        struct quant_options o = { .type = "Q4_K_M", .n_threads = 2 };
        struct quant_run r = { .verify = true, .progress = flip_output, .ctx = &m };
        struct err e;
        remove_all(out);
        CHECK(quantize(in, out, &o, &r, &e) == ERR_VERIFY);
        CHECK(m.done && !exists(out, "") && exists(out, ".part"));
        r = (struct quant_run){ .verify = true, .resume = true };
        CHECK_MSG(quantize(in, out, &o, &r, &e) == OK, "%s", e.text);
        CHECK(same_files(ref, out));
    }
}

/* ---- names ---- */

TEST(quantize_never_writes_over_its_input)
{
    const char *in = source("quant_in.gguf", "f32", NULL), *alias = tmp("quant_alias.gguf");
    struct quant_options o = { .type = "Q8_0", .n_threads = 1 };
    struct quant_run r = { .overwrite = true };
    struct err e;
    for (int i = 0; i < 3; i++) {
        char target[300];
        unlink(alias);
        CHECK(realpath(in, target) != NULL);
        if (i == 1) CHECK(symlink(target, alias) == 0);
        if (i == 2) CHECK(link(in, alias) == 0);
        CHECK(quantize(in, i ? alias : in, &o, &r, &e) == ERR_USAGE);
        CHECK_HAS(e.text, "is the input itself");
    }
    unlink(alias);
    struct gguf g;
    CHECK(gguf_open(&g, in, true, NULL) == OK);
    gguf_close(&g);
}

TEST(quantize_leaves_files_of_others_alone)
{
    const char *in = source("quant_in.gguf", "f32", NULL), *ref = reference(in, "Q8_0"), *out = tmp("quant_out.gguf");
    struct quant_options o = { .type = "Q8_0", .n_threads = 2 };
    int left = 1;
    struct quant_run stop = { .progress = stop_early, .ctx = &left }, plain = { 0 }, resume = { .resume = true }, over = { .overwrite = true };
    struct err e;
    remove_all(out);
    CHECK(quantize(in, out, &o, &stop, &e) == ERR_INTERRUPTED);
    CHECK(exists(out, ".part") && exists(out, ".part.journal") && !exists(out, ""));
    CHECK(quantize(in, out, &o, &plain, &e) == ERR_USAGE);
    CHECK_HAS(e.text, "--resume continues it, --overwrite starts anew");
    o.type = "Q4_0";
    CHECK(quantize(in, out, &o, &resume, &e) == ERR_USAGE);
    CHECK_HAS(e.text, "belongs to another job: begun with options 'Q8_0', now it is 'Q4_0'; --overwrite starts anew");
    o.type = "Q8_0", o.program = "other 2.0";
    CHECK(quantize(in, out, &o, &resume, &e) == ERR_USAGE);
    CHECK_HAS(e.text, "begun with program 'unnamed', now it is 'other 2.0'");
    o.program = NULL;
    CHECK_MSG(quantize(in, out, &o, &resume, &e) == OK, "%s", e.text);
    CHECK(same_files(ref, out) && !exists(out, ".part") && !exists(out, ".part.journal"));
    CHECK(quantize(in, out, &o, &plain, &e) == ERR_USAGE);
    CHECK_HAS(e.text, "exists; --overwrite replaces it");
    CHECK(quantize(in, out, &o, &resume, &e) == ERR_USAGE);
    CHECK_MSG(quantize(in, out, &o, &over, &e) == OK, "%s", e.text);
    CHECK(same_files(ref, out));
}

TEST(quantize_writes_through_a_symbolic_link_and_keeps_it)
{
    const char *in = source("quant_in.gguf", "f32", NULL), *ref = reference(in, "Q8_0"), *link = tmp("quant_link.gguf"), *out = tmp("quant_out.gguf");
    struct quant_options o = { .type = "Q8_0", .n_threads = 2 };
    int left = 3;
    struct quant_run stop = { .progress = stop_early, .ctx = &left, .overwrite = true }, resume = { .resume = true, .overwrite = true };
    struct err e;
    struct stat st;
    remove_all(out);
    unlink(link);
    int fd = open(out, O_CREAT | O_WRONLY, 0600);
    CHECK(fd >= 0 && close(fd) == 0 && symlink("quant_out.gguf", link) == 0);
    CHECK(quantize(in, link, &o, &stop, &e) == ERR_INTERRUPTED);
    CHECK(exists(out, ".part") && exists(out, ".part.journal") && !exists(link, ".part") && !exists(link, ".part.journal"));
    CHECK_MSG(quantize(in, link, &o, &resume, &e) == OK, "%s", e.text);
    CHECK(lstat(link, &st) == 0 && S_ISLNK(st.st_mode) && same_files(ref, out));
    CHECK(!exists(out, ".part") && !exists(out, ".part.journal"));
    unlink(out);
    CHECK(quantize(in, link, &o, &(struct quant_run){ .overwrite = true }, &e) == ERR_USAGE); /* a link to nowhere */
    CHECK_HAS(e.text, "a symbolic link that leads nowhere");
    unlink(link);
}

static bool block_name(void *ctx, const struct quant_progress *p)
{
    struct meddle *m = ctx;
    if (!m->done) m->done = mkdir(m->path, 0700) == 0;
    return true;
}

/* Hours of work do not vanish because of the last step. */
TEST(quantize_keeps_its_part_when_the_name_is_taken_meanwhile)
{
    const char *in = source("quant_in.gguf", "f32", NULL), *ref = reference(in, "Q8_0"), *out = tmp("quant_out.gguf");
    struct quant_options o = { .type = "Q8_0", .n_threads = 2 };
    for (int over = 0; over < 2; over++) {
        struct meddle m = { .path = out };
        struct quant_run r = { .progress = block_name, .ctx = &m, .overwrite = over }, resume = { .resume = true, .overwrite = over };
        struct err e;
        remove_all(out);
        status st = quantize(in, out, &o, &r, &e);
        CHECK_MSG(st == (over ? ERR_RUNTIME : ERR_USAGE), "%d %s", (int)st, e.text);
        CHECK_HAS(e.text, over ? "cannot replace" : "exists and is no regular file");
        CHECK(m.done && exists(out, ".part") && exists(out, ".part.journal"));
        CHECK(rmdir(out) == 0);
        CHECK_MSG(quantize(in, out, &o, &resume, &e) == OK, "%s", e.text);
        CHECK(same_files(ref, out));
    }
}

/* ---- restarts ---- */

/* A child that quantizes and is killed: at the n-th look of its progress, or after some microseconds. */
static bool die(void *ctx, const struct quant_progress *p)
{
    int *left = ctx;
    if (--*left <= 0) kill(getpid(), SIGKILL);
    return true;
}

static bool killed(const char *in, const char *out, int looks, int microseconds, bool resume)
{
    struct quant_options o = { .type = "Q4_K_M", .n_threads = 2 };
    struct quant_run r = { .progress = die, .ctx = &looks, .resume = resume };
    struct err e;
    pid_t pid = fork();
    if (pid == 0) {
        status st = quantize(in, out, &o, &r, &e);
        _exit(st == OK ? 0 : 1);
    }
    int how = 0;
    if (microseconds) {
        usleep((useconds_t)microseconds);
        kill(pid, SIGKILL);
    }
    CHECK(pid > 0 && waitpid(pid, &how, 0) == pid);
    CHECK(WIFSIGNALED(how) || (WIFEXITED(how) && WEXITSTATUS(how) == 0));
    return WIFSIGNALED(how);
}

TEST(quantize_survives_kills_byte_for_byte)
{
    const char *in = source("quant_in.gguf", "f32", NULL), *ref = reference(in, "Q4_K_M"), *out = tmp("quant_out.gguf");
    struct quant_options o = { .type = "Q4_K_M", .n_threads = 2 };
    struct quant_run r = { .resume = true };
    uint64_t rng = 1;
    int kills = 0;
    for (int i = 0; i < 12; i++) {
        struct err e;
        bool by_time = i % 2;
        remove_all(out);
        for (int again = 0; again < 1 + i % 3 && !(exists(out, "") && !exists(out, ".part.journal")); again++)
            kills += killed(in, out, by_time ? 1 << 20 : 1 + (int)(test_rand(&rng) % 12), by_time ? 500 + (int)(test_rand(&rng) % 40000) : 0, again > 0);
        if (exists(out, "") && !exists(out, ".part.journal")) continue; /* it was done */
        CHECK(!exists(out, "") || same_files(ref, out));
        CHECK_MSG(quantize(in, out, &o, &r, &e) == OK, "%s", e.text);
        CHECK(same_files(ref, out));
        CHECK(!exists(out, ".part") && !exists(out, ".part.journal"));
    }
    CHECK_MSG(kills >= 6, "%d", kills);
}

/* ---- a solver in front ---- */

/* Puts two tensors, one with figures and one without, and says what it found of them. */
struct front { struct quant_plan *p; int64_t item[2]; uint8_t *bytes[2]; bool have[2], ends; };
static const struct solved figures = { { 4, 3, 2, 1 }, { 8, 2 } };

static status put_two(void *ctx, struct quant_output *out, struct err *e)
{
    struct front *f = ctx;
    for (int i = 0; i < 2; i++) {
        const struct quant_item *it = quant_plan_item(f->p, f->item[i]);
        TRY(quant_output_get(out, f->item[i], f->bytes[i], &f->have[i], e));
        if (f->have[i]) continue;
        memset(f->bytes[i], 1 + i, it->bytes_to);
        TRY(quant_output_put(out, f->item[i], f->bytes[i], i ? &figures : NULL, e));
    }
    return f->ends ? err_set(e, ERR_INTERRUPTED, "interrupted") : OK;
}

static status run_front(const char *in, const char *out, struct front *f, bool resume, struct err *e)
{
    static const char *const names[] = { "blk.0.attn_q.weight", "blk.1.attn_q.weight" };
    const struct quant_options o = { .type = "Q8_0", .n_threads = 2, .solver = "a test" };
    const struct quant_run r = { .resume = resume, .solve = put_two, .solve_ctx = f };
    TRY(quant_plan_open(&f->p, in, &o, e));
    for (int i = 0; i < 2; i++) {
        f->item[i] = item_of(f->p, names[i]) - quant_plan_item(f->p, 0);
        f->bytes[i] = mem_calloc(1, quant_plan_item(f->p, f->item[i])->bytes_to);
    }
    status st = quant_file(f->p, out, &r, e);
    quant_plan_close(f->p);
    for (int i = 0; i < 2; i++) mem_free(f->bytes[i]);
    return st;
}

static void put_key_as_value(struct gguf_writer *w, void *ctx)
{
    const char *key = ctx;
    gguf_put_str(w, "general.description", key, strlen(key));
    gguf_put_str(w, "general.tag", key, strlen(key)); /* the words are found here first */
}

TEST(quantize_takes_over_all_that_a_solver_put_and_tells_its_error)
{
    static char key[] = "quantize.held_out_error";
    const char *in = tmp("quant_front.gguf"), *out = tmp("quant_out.gguf");
    const struct tiny_options t = { .more = put_key_as_value, .ctx = key };
    struct err e = { 0 };
    struct gguf g;
    struct str was = { "", 0 };
    struct front f = { .ends = true };
    remove_all(out);
    CHECK(tiny_model(in, &t, &e) == OK);
    CHECK(run_front(in, out, &f, false, &e) == ERR_INTERRUPTED);
    CHECK(!f.have[0] && !f.have[1]);
    f.ends = false;
    CHECK_MSG(run_front(in, out, &f, true, &e) == OK, "%s", e.text);
    CHECK(f.have[0] && f.have[1]);
    CHECK_MSG(gguf_open(&g, out, true, &e) == OK, "%s", e.text);
    CHECK(((const uint8_t *)gguf_tensor(&g, "blk.0.attn_q.weight")->data)[0] == 1 && ((const uint8_t *)gguf_tensor(&g, "blk.1.attn_q.weight")->data)[0] == 2);
    CHECK(gguf_get_str(&g, "general.tag", &was, &e) && was.n == strlen(key) && !memcmp(was.p, key, was.n));
    const struct gguf_kv *kv = gguf_find(&g, key);
    float error = 0;
    if (kv) memcpy(&error, kv->data, sizeof error);
    CHECK_MSG(error == 0.25f, "%g", (double)error);
    gguf_close(&g);
    unlink(out);
}

TEST(quantize_reports_a_full_disk_and_goes_on_later)
{
    const char *in = source("quant_in.gguf", "f32", NULL), *ref = reference(in, "Q8_0"), *out = tmp("quant_out.gguf");
    struct quant_options o = { .type = "Q8_0", .n_threads = 2 };
    struct quant_run r = { 0 }, resume = { .resume = true };
    struct err e;
    static const rlim_t limits[] = { 2000, 60000, 300000 };
    for (int i = 0; i < ARRAY_LEN(limits); i++) {
        remove_all(out);
        pid_t pid = fork();
        if (pid == 0) {
            struct rlimit l = { limits[i], limits[i] };
            signal(SIGXFSZ, SIG_IGN);
            if (setrlimit(RLIMIT_FSIZE, &l) != 0) _exit(2);
            status st = quantize(in, out, &o, &r, &e);
            _exit(st == ERR_RUNTIME && strstr(e.text, "cannot write") ? 0 : 1);
        }
        int how = 0;
        CHECK(pid > 0 && waitpid(pid, &how, 0) == pid);
        CHECK_MSG(WIFEXITED(how) && WEXITSTATUS(how) == 0, "limit %d", (int)limits[i]);
        CHECK(!exists(out, ""));
        CHECK_MSG(quantize(in, out, &o, &resume, &e) == OK, "%s", e.text);
        CHECK(same_files(ref, out));
    }
}

/* All memory is there before the first chunk, so that nothing is left either. */
TEST(quantize_survives_every_failed_allocation)
{
    const char *in = source("quant_in.gguf", "f32", NULL), *out = tmp("quant_out.gguf");
    struct quant_options all[] = { { .type = "Q8_0", .n_threads = 2 }, outlier_options("Q8_0", 2), { .type = "Q8_0", .n_threads = 2, .split_bytes = 500000 } };
    for (int i = 0; i < ARRAY_LEN(all); i++) {
        struct quant_run r = { .overwrite = true };
        struct err e;
        int64_t n = 1;
        status st = ERR_MEMORY;
        remove_all(out);
        for (; st != OK && n < 3000; n++) {
            mem_fail_at(n, true);
            st = quantize(in, out, &all[i], &r, &e);
            mem_fail_at(0, false);
            CHECK_MSG(st == OK || (st == ERR_MEMORY && e.text[0]), "allocation %d: %d %s", (int)n, (int)st, e.text);
            CHECK_MSG(!exists(out, ".part") && !exists(out, ".part.journal"), "allocation %d leaves a part", (int)n);
        }
        CHECK_MSG(st == OK && n > 20, "%d", (int)n);
        remove_all(out);
    }
}

TEST(quantize_predicts_time_and_memory)
{
    const char *in = source("quant_in.gguf", "f32", NULL);
    struct quant_options o = { .type = "Q4_K_M", .n_threads = 1 };
    struct quant_run r = { .verify = true };
    struct quant_plan *p;
    struct quant_totals t;
    struct err e = { 0 };
    CHECK(quant_plan_open(&p, in, &o, &e) == OK);
    quant_plan_totals(p, &r, tmp("quant_out.gguf"), &t);
    CHECK(t.seconds > 0 && t.seconds < 60 && t.ram > 1 << 20 && t.ram < 64 << 20);
    CHECK(t.bpw_from == 32 && t.bpw_to > 4.5 && t.bpw_to < 7);
    quant_plan_close(p);
}

SUITE(quantize, T(quantize_mixes_choose_as_llama_quantize), T(quantize_bytes_do_not_depend_on_threads),
      T(quantize_bytes_do_not_depend_on_the_isa_level), T(quantize_keeps_keys_and_small_tensors),
      T(quantize_again_copies_what_is_in_the_format_already), T(quantize_splits_and_the_parts_hold_the_same_bytes), T(quantize_scales_before_it_rounds),
      T(quantize_reads_split_files_as_one), T(quantize_keeps_outlier_columns_whatever_threads_and_interruptions),
      T(quantize_verify_finds_a_wrong_bit_in_the_outlier_columns), T(quantize_refuses_outlier_columns_that_cannot_be),
      T(quantize_rules_win_over_the_mix), T(quantize_refuses_what_cannot_be_meant), T(quantize_tells_which_rows_do_not_fit),
      T(quantize_refuses_damaged_weights_by_name_and_place), T(quantize_notices_an_input_that_changes),
      T(quantize_makes_no_infinity_of_a_weight_too_large_for_halves), T(quantize_keeps_integers),
      T(quantize_splits_into_no_more_files_than_can_be_read),
      T(quantize_verify_finds_one_wrong_bit_and_resume_mends_it), T(quantize_never_writes_over_its_input),
      T(quantize_leaves_files_of_others_alone), T(quantize_writes_through_a_symbolic_link_and_keeps_it),
      T(quantize_keeps_its_part_when_the_name_is_taken_meanwhile), T(quantize_survives_kills_byte_for_byte),
      T(quantize_takes_over_all_that_a_solver_put_and_tells_its_error),
      T(quantize_reports_a_full_disk_and_goes_on_later), T(quantize_survives_every_failed_allocation),
      T(quantize_predicts_time_and_memory));
