/* test_archs - every architecture from a Hugging Face checkpoint to logits, against transformers. golden/arch/NAME.txt holds config.json, names and
 * shapes of tensors, a prompt's length and what transformers answers; weights, prompt and tokenizer follow the rules in oracle/archs.py, which
 * writes these files. Here the checkpoint is made, converted to F32, opened and run in one batch and token by token with an F32 cache. Then with the columns
 * of all its foldable groups scaled at random: the same logits; golden/fold.txt says which groups an architecture has. */
#include "src/convert.h"
#include "tests/golden_model.h"
#include "tests/test.h"
#include <dirent.h>

static const char folder[] = "tests/golden/arch";

/* ---- folded (src/fold.h) ---- */

enum { FOLD_TENSORS = 600, FOLD_TEXT = 4096 };

/* "ffn_down" of "blk.3.ffn_down.weight" */
static const char *short_name(const char *name, char buf[64])
{
    int at = 0;
    if (sscanf(name, "blk.%*d.%n", &at) != 0) at = 0;
    snprintf(buf, 64, "%s", name + at);
    char *end = strstr(buf, ".weight");
    if (end) *end = 0;
    return buf;
}

/* "NAME: attn_q attn_k attn_v < attn_norm; attn_output: why not; ...", each kind of group once. */
static void list_groups(const struct fold *f, const char *name, char text[FOLD_TEXT])
{
    size_t at = (size_t)snprintf(text, FOLD_TEXT, "%s:", name);
    for (int i = 0; i < fold_n(f); i++) {
        const struct fold_group *g = fold_group(f, i);
        char one[1024] = "", part[64];
        size_t n = 0;
        for (int k = 0; k < g->n_parts && !g->refused && n < sizeof one; k++) {
            const char *power = g->part[k].power == -0.5f ? " (root)" : "";
            n += (size_t)snprintf(one + n, sizeof one - n, "%s %s%s", k == g->n_readers ? " <" : "", short_name(g->part[k].w->name, part), power);
        }
        if (g->refused) snprintf(one, sizeof one, " %s: %s", short_name(g->name, part), g->refused);
        if (!strstr(text, one)) at += (size_t)snprintf(text + at, FOLD_TEXT - at, "%s;", one);
        if (at >= FOLD_TEXT) test_fail(__FILE__, __LINE__, "%s: more groups than expected", name);
        if (at >= FOLD_TEXT) return;
    }
    snprintf(text + at, FOLD_TEXT - at, "\n");
}

/* A copy of the model with these weights scaled. */
static bool write_folded(const struct gguf *g, const struct fold_scale *scale, int n, const char *path, struct err *e)
{
    static float *copy[FOLD_TENSORS];
    struct gguf_writer *w;
    if (gguf_writer_open(&w, path, e) != OK) return false;
    for (int64_t i = 0; i < g->n_kv; i++) gguf_put_kv(w, &g->kv[i]);
    for (int64_t i = 0; i < g->n_tensors; i++) {
        struct tensor t = g->tensor[i];
        const struct fold_scale *s = NULL;
        for (int k = 0; k < n; k++)
            if (scale[k].w == &g->tensor[i]) s = &scale[k];
        if (s && n < FOLD_TENSORS) {
            float *x = copy[s - scale] = malloc(tensor_bytes(&t));
            memcpy(x, t.data, tensor_bytes(&t));
            for (int64_t c = 0; c < tensor_elements(&t); c++) x[c] *= (s->row ? s->row[c / t.ne[0]] : 1) * (s->column ? s->column[c % t.ne[0]] : 1);
            t.data = x;
        }
        gguf_put_tensor(w, &t);
    }
    status st = gguf_writer_finish(w, e);
    for (int k = 0; k < n && n < FOLD_TENSORS; k++) free(copy[k]);
    return st == OK && n < FOLD_TENSORS;
}

static bool all_f32(const struct fold_group *g)
{
    for (int k = 0; k < g->n_parts; k++)
        if (g->part[k].w->type->gguf_id != GGUF_F32) return false;
    return true;
}

/* Factors of 1/2 to 2 for every group that can be folded. */
static float **random_factors(const struct fold *f)
{
    float **s = calloc((size_t)fold_n(f) + 1, sizeof *s);
    uint64_t seed = 5;
    for (int i = 0; i < fold_n(f); i++) {
        const struct fold_group *g = fold_group(f, i);
        if (g->refused || !all_f32(g)) continue;
        s[i] = malloc((size_t)g->n * sizeof **s);
        for (int64_t k = 0; k < g->n; k++) s[i][k] = exp2f(2 * (float)(test_rand(&seed) % 1000) / 1000 - 1);
    }
    return s;
}

static double run_folded(const struct golden *g, const struct gguf *from, const struct fold_scale *scale, int n, const float *want, int64_t n_vocab)
{
    struct err e = { 0 };
    struct model *m = NULL;
    const char *path = test_tmp("folded.gguf");
    int64_t all = g->n * n_vocab;
    float *y = calloc((size_t)all, sizeof *y), top = 0, worst = 0;
    bool ran = write_folded(from, scale, n, path, &e) && model_open(&m, path, &(struct model_options){ .n_ctx = g->n }, &e) == OK &&
               golden_run(m, NULL, g, g->n, y, n_vocab, &e) == OK;
    CHECK_MSG(ran, "folded: %s", e.text);
    for (int64_t i = 0; i < all; i++) {
        if (fabsf(want[i]) > top) top = fabsf(want[i]);
        if (!(fabsf(want[i] - y[i]) <= worst)) worst = fabsf(want[i] - y[i]);
    }
    model_close(m);
    free(y);
    return worst / top;
}

static void fold_and_run(const struct golden *g, const struct model *m, const char *name, float *x, int64_t n_vocab, const char *groups)
{
    struct err e = { 0 };
    struct fold *f = NULL;
    struct fold_scale *scale;
    static char text[FOLD_TEXT];
    int n = 0;
    status st = golden_run(m, NULL, g, g->n, x, n_vocab, &e);
    if (st == OK) st = fold_open(&f, m, &e);
    CHECK_MSG(st == OK, "%s", e.text);
    if (st != OK) return;
    list_groups(f, name, text);
    CHECK_MSG(strstr(groups, text), "golden/fold.txt has not: %s", text);
    float **s = random_factors(f);
    st = fold_scales(f, (const float *const *)s, &scale, &n, &e);
    CHECK_MSG(st == OK, "%s", e.text);
    double off = st == OK ? run_folded(g, model_gguf(m), scale, n, x, n_vocab) : 0;
    CHECK_MSG(off <= golden_tolerance, "folded: logits are off by %.2g of the largest", off);
    if (st == OK && n > 0) { /* one weight alone */
        off = run_folded(g, model_gguf(m), scale, 1, x, n_vocab);
        CHECK_MSG(off > golden_tolerance, "scaling %s alone changes nothing", scale[0].w->name);
    }
    for (int i = 0; i < fold_n(f); i++) free(s[i]);
    free(s);
    fold_close(f);
}

/* ---- rotated (src/rotate.h) ---- */

/* "NAME: R1 exact; R2: layer 0, attn: why not" of a golden; the parts that are exact stay in o. */
static void try_parts(const struct model *m, const char *name, struct rotate_options *o, char *text, size_t cap)
{
    size_t at = (size_t)snprintf(text, cap, "%s:", name);
    for (int part = 1; part <= 2; part++) {
        struct err e = { 0 };
        struct rotate *r = NULL;
        struct rotate_options one = *o;
        one.no_r1 = part != 1, one.no_r2 = part != 2;
        status st = rotate_open(&r, m, "model.gguf", &one, &e);
        const char *why = strstr(e.text, "model: ");
        at += (size_t)snprintf(text + at, cap - at, " R%d%s%s;", part, st == OK ? " exact" : ": ", st == OK ? "" : why ? why + 7 : e.text);
        if (st != OK) *(part == 1 ? &o->no_r1 : &o->no_r2) = true;
        rotate_close(r);
    }
    snprintf(text + at, cap - at, "\n");
}

/* Tensors of the new file that are not, byte by byte, in the old one. */
static int64_t n_changed(const struct gguf *old, const struct gguf *new)
{
    int64_t n = 0;
    for (int64_t i = 0; i < new->n_tensors; i++) {
        const struct tensor *t = &new->tensor[i], *was = gguf_tensor(old, t->name);
        n += !was || was->type != t->type || memcmp(was->data, t->data, tensor_bytes(t)) != 0;
    }
    return n;
}

static void rotate_and_run(const struct golden *g, const struct model *m, const char *name, const float *want, int64_t n_vocab, const char *list)
{
    struct err e = { 0 };
    struct rotate *r = NULL;
    struct model *turned = NULL;
    struct rotate_options o = { .seed = 3, .untie = true, .allow_requantize = true, .type = dtype_by_name("f32"), .n_threads = 1 };
    char text[600];
    const char *path = test_tmp("rotated.gguf");
    int64_t all = g->n * n_vocab;
    try_parts(m, name, &o, text, sizeof text);
    CHECK_MSG(strstr(list, text), "golden/rotate.txt has not: %s", text);
    if (o.no_r1 && o.no_r2) return;
    float *y = calloc((size_t)all, sizeof *y), top = 0, worst = 0;
    status st = rotate_open(&r, m, "model.gguf", &o, &e);
    if (st == OK) st = rotate_write(r, path, &e);
    if (st == OK) st = model_open(&turned, path, &(struct model_options){ .n_ctx = g->n }, &e);
    if (st == OK) st = golden_run(turned, NULL, g, g->n, y, n_vocab, &e);
    CHECK_MSG(st == OK, "rotated: %s", e.text);
    for (int64_t i = 0; i < all; i++) {
        if (fabsf(want[i]) > top) top = fabsf(want[i]);
        if (!(fabsf(want[i] - y[i]) <= worst)) worst = fabsf(want[i] - y[i]);
    }
    CHECK_MSG(worst <= golden_tolerance * top, "rotated: logits are off by %.2g of the largest", (double)worst / (double)top);
    if (st == OK) CHECK(n_changed(model_gguf(m), model_gguf(turned)) == rotate_n(r));
    model_close(turned);
    rotate_close(r);
    free(y);
}

static void convert_and_run(const struct golden *g, const char *name, const char *groups, const char *rotations)
{
    struct err e = { 0 };
    struct convert *c = NULL;
    struct model *m = NULL;
    char dir[600], out[600];
    snprintf(dir, sizeof dir, "%s", test_tmp("arch_checkpoint"));
    snprintf(out, sizeof out, "%s", test_tmp("arch.gguf"));
    if (!golden_checkpoint(g, dir)) return;
    status st = convert_open(&c, dir, &(struct convert_options){ .type = dtype_by_name("f32"), .n_threads = 1 }, &e);
    if (st == OK) st = convert_write(c, out, &e);
    convert_close(c);
    if (st == OK) st = model_open(&m, out, &(struct model_options){ .n_ctx = g->n }, &e);
    CHECK_MSG(st == OK, "%s", e.text);
    if (st != OK) return;
    int64_t n_vocab = tokenizer_size(model_tokenizer(m));
    CHECK(n_vocab == VOCAB);
    float *x = calloc((size_t)(g->n * n_vocab), sizeof *x);
    for (int single = 0; n_vocab == VOCAB && single < 2; single++) {
        st = golden_run(m, NULL, g, single ? 1 : g->n, x, n_vocab, &e);
        CHECK_MSG(st == OK, "%s", e.text);
        if (st == OK) golden_compare(g, x, n_vocab, single ? "token by token" : "one batch");
    }
    if (n_vocab == VOCAB) fold_and_run(g, m, name, x, n_vocab, groups);
    if (n_vocab == VOCAB) rotate_and_run(g, m, name, x, n_vocab, rotations);
    free(x);
    model_close(m);
}

static int by_name(const void *a, const void *b) { return strcmp(a, b); }

TEST(archs_give_the_logits_of_transformers)
{
    static char name[200][80]; /* without .txt */
    int n = 0;
    struct err e = { 0 };
    char *groups = NULL, *rotations = NULL;
    size_t size;
    if (file_text("tests/golden/fold.txt", 1 << 20, &groups, &size, &e) != OK || file_text("tests/golden/rotate.txt", 1 << 20, &rotations, &size, &e) != OK) {
        test_fail(__FILE__, __LINE__, "%s", e.text);
        mem_free(groups);
        return;
    }
    DIR *d = opendir(folder);
    for (struct dirent *f = d ? readdir(d) : NULL; f && n < ARRAY_LEN(name); f = readdir(d))
        if (strstr(f->d_name, ".txt")) snprintf(name[n++], sizeof name[0], "%.*s", (int)min_i64((int64_t)strlen(f->d_name) - 4, 79), f->d_name);
    if (d) closedir(d);
    CHECK_MSG(n > 0, "%s: no goldens", folder);
    qsort(name, (size_t)n, sizeof name[0], by_name);
    for (int i = 0; i < n; i++) {
        char path[320];
        struct golden g;
        test_begin("archs_%s_gives_the_logits_of_transformers", name[i]);
        snprintf(path, sizeof path, "%s/%.79s.txt", folder, name[i]);
        if (golden_read(&g, path)) convert_and_run(&g, name[i], groups, rotations);
        mem_free(g.text);
    }
    mem_free(groups), mem_free(rotations);
}

SUITE(archs, T(archs_give_the_logits_of_transformers));
