/* convert_use - a Hugging Face directory from one text, and all that may be done with it: planned, written, opened, run. For the fuzz target and the
 * tables of hostile configurations. The text has the form of golden/arch/NAME.txt, other lines are left aside:
 *   config {...}                    to the end of the line: the bytes of config.json
 *   tensor NAME DIM DIM             F32 (half: F16, bytes: U8); {0-5} in a name stands for all names with numbers of this range; data are zeros */
#pragma once
#include "ggml-like/checkpoint.h"
#include "src/convert.h"
#include "src/cuanto.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { USE_TENSORS = 4096, USE_OUT_BYTES = 1 << 22 };

struct use_header {
    char *p;
    size_t n, cap;
    uint64_t data; /* bytes of all tensors */
    int n_tensors;
};

static void use_put_file(const char *dir, const char *name, const void *p, size_t n, uint64_t size)
{
    char path[1200];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(p, 1, n, f) != n || fflush(f)) abort();
    if (size > n && ftruncate(fileno(f), (off_t)size)) abort();
    fclose(f);
}

/* Bytes as single tokens: 256. */
static inline void use_put_tokenizer(const char *dir)
{
    char text[8192];
    size_t at = (size_t)snprintf(text, sizeof text, "{\"added_tokens\":[],\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"use_regex\":true},"
                                 "\"model\":{\"type\":\"BPE\",\"merges\":[],\"vocab\":{");
    for (int b = 0, n = 0; b < 256; b++) {
        bool plain = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
        at += (size_t)snprintf(text + at, sizeof text - at, "%s\"\\u%04x\":%d", b ? "," : "", (unsigned)(plain ? b : 256 + n), b);
        n += !plain;
    }
    at += (size_t)snprintf(text + at, sizeof text - at, "}}}");
    use_put_file(dir, "tokenizer.json", text, at, 0);
}

static void use_add(struct use_header *h, const char *type, uint64_t item, const char *name, const char *dims)
{
    uint64_t bytes = item;
    if (h->n_tensors++ >= USE_TENSORS) return;
    if (h->cap - h->n < 1024) h->p = realloc(h->p, h->cap = 2 * h->cap + 65536);
    char *p = h->p + h->n;
    int at = snprintf(p, 1024, "%s\"%.300s\":{\"dtype\":\"%s\",\"shape\":[", h->n ? "," : "", name, type);
    for (int i = 0, len = 0; i < CKPT_MAX_DIMS; i++, dims += len) {
        unsigned long long d;
        if (sscanf(dims, " %18llu%n", &d, &len) != 1) break;
        if (__builtin_mul_overflow(bytes, d, &bytes)) bytes = 0; /* the reader says so */
        at += snprintf(p + at, 1024 - (size_t)at, "%s%llu", i ? "," : "", d);
    }
    if (bytes > 1u << 30) bytes = 0;
    at += snprintf(p + at, 1024 - (size_t)at, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)h->data, (unsigned long long)(h->data + bytes));
    h->data += bytes;
    h->n += (size_t)at;
}

static void use_expand(struct use_header *h, const char *type, uint64_t item, const char *name, const char *dims, int depth)
{
    const char *open = strchr(name, '{');
    int lo, hi, len = 0;
    if (!open || depth > 2 || sscanf(open, "{%4d-%4d}%n", &lo, &hi, &len) != 2 || !len) {
        use_add(h, type, item, name, dims);
        return;
    }
    for (int i = lo; i <= hi && h->n_tensors < USE_TENSORS; i++) {
        char one[400];
        snprintf(one, sizeof one, "%.*s%d%.300s", (int)(open - name), name, i, open + len);
        use_expand(h, type, item, one, dims, depth + 1);
    }
}

/* use_make - writes config.json and model.safetensors; the tokenizer is written once. False: no config line. */
static inline bool use_make(const char *dir, const char *text, size_t n)
{
    static const struct { const char *word, *type; uint64_t item; } kinds[] = { { "tensor", "F32", 4 }, { "half", "F16", 2 }, { "bytes", "U8", 1 } };
    struct use_header h = { 0 };
    bool found = false;
    for (const char *line = text, *next; line < text + n; line = next) {
        const char *end = memchr(line, '\n', (size_t)(text + n - line));
        next = end ? end + 1 : text + n;
        size_t len = (size_t)((end ? end : next) - line);
        if (len > 7 && !memcmp(line, "config ", 7)) {
            use_put_file(dir, "config.json", line + 7, len - 7, 0);
            found = true;
            continue;
        }
        char copy[512], word[8], name[301];
        int at = 0;
        snprintf(copy, sizeof copy, "%.*s", (int)(len < 500 ? len : 500), line);
        if (sscanf(copy, "%7s %300s%n", word, name, &at) != 2 || !at) continue;
        for (char *c = name; *c; c++)
            if (*c == '"' || *c == '\\' || (uint8_t)*c < 0x20 || (uint8_t)*c >= 0x7f) *c = '_';
        for (int k = 0; k < ARRAY_LEN(kinds); k++)
            if (!strcmp(word, kinds[k].word)) use_expand(&h, kinds[k].type, kinds[k].item, name, copy + at, 0);
    }
    uint64_t len = h.n + 2;
    char *all = malloc(len + 8);
    memcpy(all, &len, 8);
    all[8] = '{';
    if (h.n) memcpy(all + 9, h.p, h.n);
    all[len + 7] = '}';
    use_put_file(dir, "model.safetensors", all, len + 8, len + 8 + h.data);
    free(all);
    free(h.p);
    return found;
}

/* What a file should not say. */
static const char *const use_values[] = {
    "0", "-1", "1", "3", "1e300", "-1e300", "4611686018427387904", "9223372036854775808", "2147483648", "0.5", "1e-300", "NaN", "null", "true", "\"x\"", "\"\"",
    "[]", "[0]", "[1,2,3,4,5,6,7,8]", "[[[]]]", "{}", "{\"factor\":-1,\"type\":\"yarn\"}", "{\"rope_type\":\"longrope\",\"factor\":1e300}", "1024", "1048576",
};

/* use_value_end - behind the JSON value at p, at most end. */
static inline const char *use_value_end(const char *p, const char *end)
{
    int depth = 0;
    bool text = false;
    for (; p < end && *p != '\n'; p++) {
        if (text) {
            if (*p == '\\' && p + 1 < end) p++;
            else if (*p == '"') text = false;
        } else if (*p == '"') {
            text = true;
        } else if (*p == '{' || *p == '[') {
            depth++;
        } else if (*p == '}' || *p == ']') {
            if (depth-- == 0) return p;
        } else if (*p == ',' && depth == 0) {
            return p;
        }
    }
    return p < end ? p : end;
}

static inline void use_nothing(void *ctx, int seg, int64_t row, const float *logits) {}

/* use_run - two tokens through a model, if it is small enough for that to be quick. */
static inline status use_run(const struct model *m, struct err *e)
{
    struct engine *en = NULL;
    struct session *s = NULL;
    const int32_t ids[2] = { 0, 1 };
    status st = engine_open(&en, m, &(struct engine_options){ .n_threads = 1, .n_batch = 2 }, e);
    if (st == OK) st = session_open(&s, en, &(struct session_options){ .n_ctx = 8 }, e);
    struct segment seg = { s, ids, 2, 0 };
    if (st == OK) st = engine_forward(en, &seg, 1, use_nothing, NULL, e);
    session_close(s);
    engine_close(en);
    return st;
}

/* use_convert - the directory planned, and what comes out small also written, opened and run. Every failure has a text. */
static inline status use_convert(const char *dir, struct err *e)
{
    struct convert *c = NULL;
    struct model *m = NULL;
    char out[1200];
    snprintf(out, sizeof out, "%s/out.gguf", dir);
    status st = convert_open(&c, dir, &(struct convert_options){ .n_threads = 1 }, e);
    struct convert_info info = { 0 };
    if (st == OK) convert_info(c, &info);
    bool write = st == OK && info.out_bytes <= USE_OUT_BYTES;
    if (write) st = convert_write(c, out, e);
    convert_close(c);
    if (write && st == OK) st = model_open(&m, out, &(struct model_options){ .n_ctx = 8 }, e);
    if (m) st = use_run(m, e);
    model_close(m);
    if ((st == OK) != (e->text[0] == 0)) abort();
    return st;
}
