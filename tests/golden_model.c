/* golden_model - see golden_model.h. */
#include "tests/golden_model.h"
#include "ggml-like/checkpoint.h"
#include "tests/test.h"
#include <sys/stat.h>

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

bool golden_read(struct golden *g, const char *path)
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

void golden_file(const char *dir, const char *name, const char *text, size_t n)
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
    golden_file(dir, "tokenizer.json", text, at);
    static const char names[] = "{\"bos_token\": \"<s>\", \"eos_token\": \"</s>\"}";
    golden_file(dir, "tokenizer_config.json", names, sizeof names - 1);
}

bool golden_tensors(const struct golden *g, const char *path)
{
    struct err e = { 0 };
    struct maker m = { .g = g };
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

bool golden_checkpoint(const struct golden *g, const char *dir)
{
    char path[1100];
    mkdir(dir, 0777);
    golden_file(dir, "config.json", g->config, strlen(g->config));
    put_tokenizer(dir);
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    return golden_tensors(g, path);
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
status golden_run(const struct model *m, const struct adapter_use *lora, const struct golden *g, int64_t rows, float *out, int64_t n_vocab,
                  struct err *e)
{
    struct engine *en = NULL;
    struct session *s = NULL;
    status st = engine_open(&en, m, &(struct engine_options){ .n_threads = 1, .n_batch = rows, .lora = lora, .n_lora = lora != NULL }, e);
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

void golden_compare(const struct golden *g, const float *x, int64_t n_vocab, const char *how)
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
    CHECK_MSG(worst <= golden_tolerance * g->scale, "%s: logits are off by %.2g of the largest", how, worst / g->scale);
    for (int64_t r = 0; r < g->n; r++) {
        const float *row = x + r * n_vocab;
        float best = row[0];
        for (int64_t id = 1; id < n_vocab; id++) best = fmaxf(best, row[id]);
        CHECK_MSG(row[g->top[r]] >= best - golden_tolerance * g->scale, "%s: row %d: token %d has %g, the best has %g", how, (int)r, g->top[r],
                  (double)row[g->top[r]], (double)best);
    }
}
