/* test_archs - every architecture from a Hugging Face checkpoint to logits, against transformers. golden/arch/NAME.txt holds config.json, names and
 * shapes of tensors, a prompt's length and what transformers answers; weights, prompt and tokenizer follow the rules in oracle/archs.py, which
 * writes these files. Here the checkpoint is made, converted to F32, opened and run in one batch and token by token with an F32 cache. Then with the columns
 * of all its foldable groups scaled at random: the same logits; golden/fold.txt says which groups an architecture has. */
#include "ggml-like/checkpoint.h"
#include "src/convert.h"
#include "src/cuanto.h"
#include "tests/test.h"
#include <dirent.h>
#include <sys/stat.h>

enum { N_IDS = 304, VOCAB = 320, BOS = 304, EOS = 305, MAX_TOP = 512, MAX_DIMS = 4, MAX_FILL = 8 };
static const double tolerance = 1e-4; /* of the largest logit */
static const char folder[] = "tests/golden/arch";

struct fill {
    char part[64];
    double c, w;
};

struct golden {
    char *text; /* lines cut apart */
    char *line[600];
    int n_lines, n_top, n_fill;
    const char *config;
    int64_t n;                 /* tokens of the prompt */
    int32_t top[MAX_TOP], ids[MAX_TOP];
    double scale;              /* the largest logit */
    struct fill fill[MAX_FILL];
};

/* ---- the rules of archs.py ---- */

static uint64_t fnv1a(const char *s)
{
    uint64_t h = 0xCBF29CE484222325u;
    for (; *s; s++) h = (h ^ (uint8_t)*s) * 0x100000001B3u;
    return h;
}

static uint64_t mix(uint64_t seed, int64_t i)
{
    uint64_t z = seed + ((uint64_t)i + 1) * 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

static void rule(const struct golden *g, const char *name, int n_dims, const int64_t *shape, double *c, double *w)
{
    *c = 0, *w = 0.1;
    for (int i = 0; i < g->n_fill; i++)
        if (strstr(name, g->fill[i].part)) {
            *c = g->fill[i].c, *w = g->fill[i].w;
            return;
        }
    if (n_dims > 1) *w = sqrt(3.0 / (double)shape[n_dims - 1]);
    else if (strstr(name, "norm") || strstr(name, "ln_")) *c = 1;
}

static void fill_tensor(const struct golden *g, const char *name, int n_dims, const int64_t *shape, float *x, int64_t n)
{
    double c, w;
    uint64_t seed = fnv1a(name);
    rule(g, name, n_dims, shape, &c, &w);
    for (int64_t i = 0; i < n; i++) x[i] = (float)(c + w * (2 * ((double)(mix(seed, i) >> 40) / 16777216.0) - 1));
}

/* ---- the golden ---- */

static bool read_golden(struct golden *g, const char *path)
{
    struct err e = { 0 };
    size_t n;
    *g = (struct golden){ 0 };
    if (file_text(path, 1 << 16, &g->text, &n, &e) != OK) {
        test_fail(__FILE__, __LINE__, "%s", e.text);
        return false;
    }
    for (char *p = strtok(g->text, "\n"); p && g->n_lines < ARRAY_LEN(g->line); p = strtok(NULL, "\n")) g->line[g->n_lines++] = p;
    for (int i = 0; i < g->n_lines; i++) {
        char *p = g->line[i];
        struct fill *f = &g->fill[g->n_fill];
        if (!strncmp(p, "config ", 7)) g->config = p + 7;
        else if (!strncmp(p, "prompt ", 7)) sscanf(p, "prompt %lld scale %lf", (long long *)&g->n, &g->scale);
        else if (!strncmp(p, "fill ", 5)) g->n_fill += g->n_fill < MAX_FILL && sscanf(p, "fill %63s %lf %lf", f->part, &f->c, &f->w) == 3;
        else if (!strncmp(p, "top ", 4))
            for (char *q = p + 4; *q && g->n_top < MAX_TOP;) g->top[g->n_top++] = (int32_t)strtol(q, &q, 10);
    }
    bool fits = g->config && g->n > 0 && g->n <= MAX_TOP && g->n == g->n_top && g->scale > 0;
    if (!fits) test_fail(__FILE__, __LINE__, "%s: config, prompt or top is missing or does not fit", path);
    for (int64_t i = 0; i < g->n; i++) g->ids[i] = (int32_t)(mix(fnv1a("tokens"), i) % N_IDS);
    return fits;
}

/* ---- the checkpoint ---- */

struct maker {
    const struct golden *g;
    struct safetensors_writer *w;
    bool write; /* the second time: bytes */
    int64_t id;
};

static void fill_bytes(const char *name, uint8_t *x, int64_t n)
{
    bool scales = strstr(name, "scales") != NULL;
    for (int64_t i = 0; i < n; i++) {
        uint64_t z = mix(fnv1a(name), i) >> 40;
        x[i] = (uint8_t)(scales ? 121 + z % 3 : z % 256);
    }
}

static void make_tensor(struct maker *m, const char *name, bool bytes, int n_dims, const int64_t *shape)
{
    struct err e = { 0 };
    int64_t n = 1;
    for (int i = 0; i < n_dims; i++) n *= shape[i];
    if (!m->write) {
        safetensors_add(m->w, name, bytes ? CKPT_U8 : CKPT_F32, n_dims, shape);
        return;
    }
    float *x = malloc((size_t)n * sizeof *x);
    if (bytes) fill_bytes(name, (uint8_t *)x, n);
    else fill_tensor(m->g, name, n_dims, shape, x, n);
    if (safetensors_write(m->w, m->id++, 0, x, (size_t)n * (bytes ? 1 : sizeof *x), &e) != OK) test_fail(__FILE__, __LINE__, "%s", e.text);
    free(x);
}

/* "model.layers.{0-2}.experts.{0-4}.w" stands for all names with numbers in these ranges. */
static void expand(struct maker *m, const char *name, bool bytes, int n_dims, const int64_t *shape)
{
    const char *open = strchr(name, '{');
    int lo, hi, len = 0;
    if (!open) {
        make_tensor(m, name, bytes, n_dims, shape);
        return;
    }
    if (sscanf(open, "{%d-%d}%n", &lo, &hi, &len) != 2 || !len) test_fail(__FILE__, __LINE__, "%s: no range", name);
    for (int i = lo; len && i <= hi; i++) {
        char one[256];
        snprintf(one, sizeof one, "%.*s%d%s", (int)(open - name), name, i, open + len);
        expand(m, one, bytes, n_dims, shape);
    }
}

static void make_tensors(struct maker *m)
{
    for (int i = 0; i < m->g->n_lines; i++) {
        char kind[8], name[200];
        long long d[MAX_DIMS];
        int64_t shape[MAX_DIMS];
        int got = sscanf(m->g->line[i], "%7s %199s %lld %lld %lld %lld", kind, name, &d[0], &d[1], &d[2], &d[3]);
        bool bytes = !strcmp(kind, "bytes");
        if ((strcmp(kind, "tensor") && !bytes) || got < 2) continue;
        for (int k = 0; k < got - 2; k++) shape[k] = d[k];
        expand(m, name, bytes, got - 2, shape);
    }
}

static void put_file(const char *dir, const char *name, const char *text, size_t n)
{
    char path[1100];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(text, 1, n, f) != n || fclose(f)) test_fail(__FILE__, __LINE__, "%s: cannot be written", path);
}

static void put_tokenizer(const char *dir)
{
    static char text[16384];
    size_t at = 0, cap = sizeof text;
    at += (size_t)snprintf(text, cap, "{\"added_tokens\":[");
    for (int i = 0; i < 2; i++)
        at += (size_t)snprintf(text + at, cap - at, "%s{\"id\":%d,\"content\":\"%s\",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,"
                               "\"normalized\":false,\"special\":true}", i ? "," : "", i ? EOS : BOS, i ? "</s>" : "<s>");
    at += (size_t)snprintf(text + at, cap - at, "],\"normalizer\":null,\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,"
                           "\"trim_offsets\":true,\"use_regex\":true},\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"vocab\":{");
    for (int b = 0, n = 0; b < 256; b++) {
        bool plain = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
        at += (size_t)snprintf(text + at, cap - at, "\"\\u%04x\":%d,", (unsigned)(plain ? b : 256 + n), b);
        n += !plain;
    }
    for (int i = 0; i < 48; i++) at += (size_t)snprintf(text + at, cap - at, "%s\"%c%c\":%d", i ? "," : "", 'a' + i / 7, 'a' + i % 7, 256 + i);
    at += (size_t)snprintf(text + at, cap - at, "},\"merges\":[");
    for (int i = 0; i < 48; i++) at += (size_t)snprintf(text + at, cap - at, "%s\"%c %c\"", i ? "," : "", 'a' + i / 7, 'a' + i % 7);
    at += (size_t)snprintf(text + at, cap - at, "]}}");
    put_file(dir, "tokenizer.json", text, at);
    static const char names[] = "{\"bos_token\": \"<s>\", \"eos_token\": \"</s>\"}";
    put_file(dir, "tokenizer_config.json", names, sizeof names - 1);
}

static bool make_checkpoint(const struct golden *g, const char *dir)
{
    char path[1100];
    struct err e = { 0 };
    struct maker m = { .g = g };
    mkdir(dir, 0777);
    put_file(dir, "config.json", g->config, strlen(g->config));
    put_tokenizer(dir);
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    status st = safetensors_writer_open(&m.w, path, &e);
    if (st == OK) {
        make_tensors(&m);
        st = safetensors_begin(m.w, &e);
        m.write = true;
        if (st == OK) make_tensors(&m);
        if (st == OK) st = safetensors_writer_finish(m.w, &e);
    }
    CHECK_MSG(st == OK, "%s", e.text);
    return st == OK;
}

/* ---- the run ---- */

struct sink {
    float *rows; /* [n][n_vocab] of the pass */
    int64_t n_vocab;
};

static void take(void *ctx, int seg, int64_t row, const float *logits)
{
    struct sink *s = ctx;
    memcpy(s->rows + row * s->n_vocab, logits, (size_t)s->n_vocab * sizeof *logits);
}

/* logits [n][n_vocab] in passes of `rows` tokens */
static status run(const struct model *m, const struct golden *g, int64_t rows, float *out, int64_t n_vocab, struct err *e)
{
    struct engine *en = NULL;
    struct session *s = NULL;
    status st = engine_open(&en, m, &(struct engine_options){ .n_threads = 1, .n_batch = rows }, e);
    if (st == OK) st = session_open(&s, en, &(struct session_options){ .n_ctx = g->n, .kv_type = dtype_by_name("f32") }, e);
    for (int64_t at = 0; st == OK && at < g->n; at += rows) {
        struct sink sink = { out + at * n_vocab, n_vocab };
        struct segment seg = { s, g->ids + at, min_i64(rows, g->n - at), 0 };
        st = engine_forward(en, &seg, 1, take, &sink, e);
    }
    session_close(s);
    engine_close(en);
    return st;
}

static void compare(const struct golden *g, const float *x, int64_t n_vocab, const char *how)
{
    double worst = 0;
    for (int i = 0; i < g->n_lines; i++) {
        int at, len, id;
        double want;
        if (sscanf(g->line[i], "logits %d%n", &at, &len) != 1) continue;
        for (const char *p = g->line[i] + len; sscanf(p, " %d:%lf%n", &id, &want, &len) == 2; p += len) {
            if (at < 0 || at >= g->n || id < 0 || id >= n_vocab) test_fail(__FILE__, __LINE__, "row %d, id %d: out of range", at, id);
            else worst = fmax(worst, fabs(x[at * n_vocab + id] - want));
        }
    }
    CHECK_MSG(worst <= tolerance * g->scale, "%s: logits are off by %.2g of the largest", how, worst / g->scale);
    for (int64_t r = 0; r < g->n; r++) {
        const float *row = x + r * n_vocab;
        float best = row[0];
        for (int64_t id = 1; id < n_vocab; id++) best = fmaxf(best, row[id]);
        CHECK_MSG(row[g->top[r]] >= best - tolerance * g->scale, "%s: row %d: token %d has %g, the best has %g", how, (int)r, g->top[r],
                  (double)row[g->top[r]], (double)best);
    }
}

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
               run(m, g, g->n, y, n_vocab, &e) == OK;
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
    status st = run(m, g, g->n, x, n_vocab, &e);
    if (st == OK) st = fold_open(&f, m, &e);
    CHECK_MSG(st == OK, "%s", e.text);
    if (st != OK) return;
    list_groups(f, name, text);
    CHECK_MSG(strstr(groups, text), "golden/fold.txt has not: %s", text);
    float **s = random_factors(f);
    st = fold_scales(f, (const float *const *)s, &scale, &n, &e);
    CHECK_MSG(st == OK, "%s", e.text);
    double off = st == OK ? run_folded(g, model_gguf(m), scale, n, x, n_vocab) : 0;
    CHECK_MSG(off <= tolerance, "folded: logits are off by %.2g of the largest", off);
    if (st == OK && n > 0) { /* one weight alone */
        off = run_folded(g, model_gguf(m), scale, 1, x, n_vocab);
        CHECK_MSG(off > tolerance, "scaling %s alone changes nothing", scale[0].w->name);
    }
    for (int i = 0; i < fold_n(f); i++) free(s[i]);
    free(s);
    fold_close(f);
}

static void convert_and_run(const struct golden *g, const char *name, const char *groups)
{
    struct err e = { 0 };
    struct convert *c = NULL;
    struct model *m = NULL;
    char dir[600], out[600];
    snprintf(dir, sizeof dir, "%s", test_tmp("arch_checkpoint"));
    snprintf(out, sizeof out, "%s", test_tmp("arch.gguf"));
    if (!make_checkpoint(g, dir)) return;
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
        st = run(m, g, single ? 1 : g->n, x, n_vocab, &e);
        CHECK_MSG(st == OK, "%s", e.text);
        if (st == OK) compare(g, x, n_vocab, single ? "token by token" : "one batch");
    }
    if (n_vocab == VOCAB) fold_and_run(g, m, name, x, n_vocab, groups);
    free(x);
    model_close(m);
}

static int by_name(const void *a, const void *b) { return strcmp(a, b); }

TEST(archs_give_the_logits_of_transformers)
{
    static char name[200][80]; /* without .txt */
    int n = 0;
    struct err e = { 0 };
    char *groups;
    size_t n_groups;
    if (file_text("tests/golden/fold.txt", 1 << 20, &groups, &n_groups, &e) != OK) {
        test_fail(__FILE__, __LINE__, "%s", e.text);
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
        if (read_golden(&g, path)) convert_and_run(&g, name[i], groups);
        mem_free(g.text);
    }
    mem_free(groups);
}

SUITE(archs, T(archs_give_the_logits_of_transformers));
