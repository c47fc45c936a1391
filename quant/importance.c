/* importance - see importance.h. Two file forms, both llama.cpp's (tools/imatrix), little-endian:
 *   GGUF   general.type "imatrix", imatrix.{datasets, chunk_count, chunk_size}; per entry NAME.in_sum2 f32 [cols, n_mat] and NAME.counts f32 [1, n_mat]
 *   .dat   i32 n_entries; each: i32 length, name, i32 n_chunks, i32 n_values, f32 mean * n_chunks [n_values]; then, or nothing in the oldest
 *          files: i32 n_chunks, i32 length, name of the text
 * Every number of a file is compared with the bytes left before it is used. Knows no model. */
#include "quant/importance.h"
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum {
    ENTRIES_MAX = 65536,
    NAME_MAX_BYTES = 255 - 8, /* NAME.in_sum2 is a tensor name */
    DATASETS_MAX = 4096,
};
#define COUNT_MAX 0x1p53

static const char suffix_sum[] = ".in_sum2", suffix_count[] = ".counts";
static const char key_datasets[] = "imatrix.datasets", key_chunks[] = "imatrix.chunk_count", key_chunk_size[] = "imatrix.chunk_size";

/* "<path>: <what>". Only the end of a long path is shown, so that the cause always fits. */
static status fail(struct err *e, const char *path, const char *fmt, ...) PRINTF_LIKE(3, 4);
static status fail(struct err *e, const char *path, const char *fmt, ...)
{
    char what[200];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    size_t n = strlen(path);
    return err_set(e, ERR_FORMAT, "%s%s: %s", n > 60 ? "..." : "", n > 60 ? path + n - 57 : path, what);
}

/* ---- entries ---- */

void importance_init(struct importance *im)
{
    *im = (struct importance){ 0 };
    arena_init(&im->mem, 0);
}

void importance_close(struct importance *im)
{
    arena_free(&im->mem);
    *im = (struct importance){ 0 };
}

/* Place of name[0..len) in the sorted order; true when it is there. */
static bool look_up(const struct importance *im, const char *name, size_t len, int64_t *place)
{
    int64_t lo = 0, hi = im->n;
    while (lo < hi) {
        int64_t mid = lo + (hi - lo) / 2;
        const char *have = im->entry[im->order[mid]].name;
        int c = strncmp(have, name, len);
        if (c == 0 && have[len] != 0) c = 1;
        if (c == 0) return *place = mid, true;
        if (c < 0) lo = mid + 1;
        else hi = mid;
    }
    *place = lo;
    return false;
}

static status grow(struct importance *im, struct err *e)
{
    if (im->n < im->cap) return OK;
    if (im->n == ENTRIES_MAX) return err_set(e, ERR_FORMAT, "more than %d importance entries", ENTRIES_MAX);
    int64_t cap = im->cap ? 2 * im->cap : 64; /* what is outgrown stays in the arena: less than the entries' sums */
    struct importance_entry *entry = arena_alloc(&im->mem, (size_t)cap * sizeof *entry);
    int32_t *order = arena_alloc(&im->mem, (size_t)cap * sizeof *order);
    if (!entry || !order) return err_oom(e, "importance", (size_t)cap * sizeof *entry);
    if (im->n) memcpy(entry, im->entry, (size_t)im->n * sizeof *entry);
    if (im->n) memcpy(order, im->order, (size_t)im->n * sizeof *order);
    im->entry = entry, im->order = order, im->cap = cap;
    return OK;
}

/* A new entry, sums and counts 0, at `place` of the sorted order. The caller knows that the name is new. */
static status make_entry(struct importance *im, int64_t place, const char *name, size_t len, int64_t n_cols, int64_t n_mat, struct err *e)
{
    size_t values;
    TRY(grow(im, e));
    struct importance_entry en = { .name = arena_strdup(&im->mem, name, len), .n_cols = n_cols, .n_mat = n_mat };
    if (!mul_size((size_t)n_cols, (size_t)n_mat, &values)) return err_oom(e, "importance", SIZE_MAX);
    en.sum2 = arena_zalloc(&im->mem, values, sizeof *en.sum2);
    en.count = arena_zalloc(&im->mem, (size_t)n_mat, sizeof *en.count);
    if (!en.name || !en.sum2 || !en.count) return err_oom(e, "importance", values * sizeof *en.sum2);
    memmove(im->order + place + 1, im->order + place, (size_t)(im->n - place) * sizeof *im->order);
    im->order[place] = (int32_t)im->n;
    im->entry[im->n++] = en;
    return OK;
}

const struct importance_entry *importance_find(const struct importance *im, const char *name)
{
    int64_t place;
    return look_up(im, name, strlen(name), &place) ? &im->entry[im->order[place]] : NULL;
}

/* In float, as llama-quantize divides: the weights are the same before a save and after it, and the same as there. */
static void divide(const double *sum2, int64_t count, int64_t n, float *out)
{
    float c = (float)count;
    for (int64_t j = 0; j < n; j++) out[j] = count > 0 ? (float)sum2[j] / c : 1;
}

void importance_weights(const struct importance_entry *en, int64_t mat, float *out)
{
    divide(en->sum2 + mat * en->n_cols, en->count[mat], en->n_cols, out);
}

bool importance_slice(const struct importance_entry *en, int64_t n_cols, int64_t n_mat, int64_t mat, float *out)
{
    size_t want, have = (size_t)en->n_cols * (size_t)en->n_mat; /* is in memory: cannot wrap */
    if (!mul_size((size_t)n_cols, (size_t)n_mat, &want) || want != have || (en->n_mat != n_mat && en->n_mat != 1)) return false;
    divide(en->sum2 + mat * n_cols, en->count[en->n_mat == 1 ? 0 : mat], n_cols, out);
    return true;
}

/* FNV-1a over 32-bit words with a final mix; entries are added up, so that their order does not matter. */
static uint64_t hash_word(uint64_t h, uint32_t w) { return (h ^ w) * 0x100000001b3u; }

static uint64_t hash_entry(const struct importance_entry *en)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (const char *p = en->name; *p; p++) h = hash_word(h, (uint8_t)*p);
    h = hash_word(hash_word(h, (uint32_t)en->n_cols), (uint32_t)en->n_mat);
    for (int64_t i = 0; i < en->n_cols * en->n_mat; i++) {
        float f = (float)en->sum2[i];
        uint32_t w;
        memcpy(&w, &f, sizeof w);
        h = hash_word(h, w);
    }
    for (int64_t i = 0; i < en->n_mat; i++) h = hash_word(hash_word(h, (uint32_t)en->count[i]), (uint32_t)((uint64_t)en->count[i] >> 32));
    h = (h ^ (h >> 32)) * 0x9e3779b97f4a7c15u;
    return h ^ (h >> 29);
}

uint64_t importance_hash(const struct importance *im)
{
    uint64_t h = (uint64_t)im->n;
    for (int64_t i = 0; i < im->n; i++) h += hash_entry(&im->entry[i]);
    return h;
}

/* ---- collecting ---- */

static int64_t count_most(const struct importance_entry *en)
{
    int64_t most = 0;
    for (int64_t m = 0; m < en->n_mat; m++) most = max_i64(most, en->count[m]);
    return most;
}

int64_t importance_tokens(const struct importance *im)
{
    int64_t most = 0;
    for (int64_t i = 0; i < im->n; i++) most = max_i64(most, count_most(&im->entry[i]));
    return most;
}

status importance_entry(struct importance *im, const char *name, int64_t n_mat, int64_t k, const struct importance_entry **en, struct err *e)
{
    int64_t place;
    size_t len = strlen(name);
    if (!look_up(im, name, len, &place)) TRY(make_entry(im, place, name, len, k, n_mat, e));
    *en = &im->entry[im->order[place]];
    if ((*en)->n_cols == k && (*en)->n_mat == n_mat) return OK;
    return err_set(e, ERR_FORMAT, "%s: the importance has %lld columns and %lld matrices, expected %lld and %lld", name,
                   (long long)(*en)->n_cols, (long long)(*en)->n_mat, (long long)k, (long long)n_mat);
}

void importance_columns(const struct importance_entry *en, int64_t mat, const float *x, int64_t n, int64_t begin, int64_t end)
{
    enum { COLS = 32 }; /* 0.35 ns per element; 8: up to 0.7 */
    double *sum2 = en->sum2 + mat * en->n_cols;
    int64_t j = begin;
    for (; j + COLS <= end; j += COLS) {
        double s[COLS];
        memcpy(s, sum2 + j, sizeof s);
        for (int64_t i = 0; i < n; i++) {
            const float *row = x + i * en->n_cols + j;
            for (int c = 0; c < COLS; c++) s[c] += (double)row[c] * (double)row[c];
        }
        memcpy(sum2 + j, s, sizeof s);
    }
    for (; j < end; j++)
        for (int64_t i = 0; i < n; i++) sum2[j] += (double)x[i * en->n_cols + j] * (double)x[i * en->n_cols + j];
}

status importance_add(struct importance *im, const char *name, int64_t mat, int64_t n_mat, const float *x, int64_t n, int64_t k,
                      struct err *e)
{
    const struct importance_entry *en;
    TRY(importance_entry(im, name, n_mat, k, &en, e));
    if (mat < 0 || mat >= n_mat)
        return err_set(e, ERR_USAGE, "%s: matrix %lld, expected 0 to %lld", name, (long long)mat, (long long)n_mat - 1);
    importance_columns(en, mat, x, n, 0, k);
    en->count[mat] += n;
    return OK;
}

status importance_check(const struct importance *im, struct err *e)
{
    for (int64_t i = 0; i < im->n; i++) {
        const struct importance_entry *en = &im->entry[i];
        for (int64_t j = 0; j < en->n_cols * en->n_mat; j++)
            if (!isfinite((float)en->sum2[j]))
                return err_set(e, ERR_RUNTIME, "%s: the sum of squares of column %lld is %g: the weights may be damaged (try --check)", en->name,
                               (long long)(j % en->n_cols), en->sum2[j]);
    }
    return OK;
}

status importance_dataset(struct importance *im, const char *name, struct err *e)
{
    if (im->n_datasets == DATASETS_MAX) return err_set(e, ERR_USAGE, "more than %d texts in one importance file", DATASETS_MAX);
    if (!im->dataset) im->dataset = arena_alloc(&im->mem, DATASETS_MAX * sizeof *im->dataset);
    char *copy = arena_strdup(&im->mem, name, strlen(name));
    if (!im->dataset || !copy) return err_oom(e, "importance", strlen(name));
    im->dataset[im->n_datasets++] = copy;
    return OK;
}

static status merge_entry(struct importance *im, const struct importance_entry *from, int64_t scale, struct err *e)
{
    int64_t place, n = from->n_cols * from->n_mat;
    size_t len = strlen(from->name);
    if (!look_up(im, from->name, len, &place)) TRY(make_entry(im, place, from->name, len, from->n_cols, from->n_mat, e));
    struct importance_entry *en = &im->entry[im->order[place]];
    if (en->n_cols * en->n_mat != n || (en->n_mat != from->n_mat && from->n_mat != 1))
        return err_set(e, ERR_FORMAT, "%s: %lld columns and %lld matrices, those before have %lld and %lld", from->name, (long long)from->n_cols,
                       (long long)from->n_mat, (long long)en->n_cols, (long long)en->n_mat);
    for (int64_t j = 0; j < n; j++) en->sum2[j] += from->sum2[j] * (double)scale;
    for (int64_t m = 0; m < en->n_mat; m++) {
        int64_t count = from->count[from->n_mat == 1 ? 0 : m];
        if ((double)count * (double)scale + (double)en->count[m] > COUNT_MAX)
            return err_set(e, ERR_FORMAT, "%s: count %lld of matrix %lld is too large", from->name, (long long)count, (long long)m);
        en->count[m] += count * scale;
    }
    return OK;
}

status importance_merge(struct importance *im, const struct importance *from, int64_t chunk_size, struct err *e)
{
    int64_t scale = from->legacy ? max_i64(1, chunk_size) : 1;
    for (int64_t i = 0; i < from->n; i++) TRY(merge_entry(im, &from->entry[i], scale, e));
    for (int i = 0; i < from->n_datasets; i++) TRY(importance_dataset(im, from->dataset[i], e));
    im->n_chunks += from->n_chunks;
    return OK;
}

/* ---- reading ---- */

static status check_values(const char *path, const char *name, const char *field, const float *v, int64_t n, struct err *e)
{
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(v[i]) || v[i] < 0)
            return fail(e, path, "%.60s: %s[%lld] is %g, expected 0 or more", name, field, (long long)i, (double)v[i]);
    return OK;
}

static status set_counts(const char *path, struct importance_entry *en, const float *count, struct err *e)
{
    for (int64_t m = 0; m < en->n_mat; m++) {
        if (!(count[m] >= 0 && (double)count[m] <= COUNT_MAX))
            return fail(e, path, "%.60s: counts[%lld] is %g, expected 0 to %g", en->name, (long long)m, (double)count[m], COUNT_MAX);
        en->count[m] = llroundf(count[m]); /* as llama-quantize */
    }
    return OK;
}

static bool has_suffix(const char *name, const char *suffix, size_t *stem)
{
    size_t n = strlen(name), m = strlen(suffix);
    if (n <= m || strcmp(name + n - m, suffix) != 0) return false;
    *stem = n - m;
    return true;
}

/* Tensor t is STEM.in_sum2: its partner and shapes are checked, the entry made. Both are contiguous floats, aligned to 8 bytes or more. */
static status read_pair(struct importance *im, const struct gguf *g, const struct tensor *t, size_t stem, const char *path, struct err *e)
{
    char name[256 + sizeof suffix_count], a[64], b[64];
    int64_t place;
    snprintf(name, sizeof name, "%.*s%s", (int)stem, t->name, suffix_count);
    const struct tensor *c = gguf_tensor(g, name);
    if (!c) return fail(e, path, "%.80s has no %s beside it", t->name, suffix_count);
    if (t->type->gguf_id != GGUF_F32 || c->type->gguf_id != GGUF_F32)
        return fail(e, path, "%.80s: types %s and %s of sums and counts, expected F32", t->name, t->type->gguf_name, c->type->gguf_name);
    int64_t n = tensor_elements(t), n_mat = tensor_elements(c);
    if (n % n_mat != 0)
        return fail(e, path, "%.60s: shape %s does not fit the counts %s", t->name, tensor_shape_text(t, a), tensor_shape_text(c, b));
    if (look_up(im, t->name, stem, &place)) return fail(e, path, "%.80s: the entry appears twice", t->name);
    TRY(make_entry(im, place, t->name, stem, n / n_mat, n_mat, e));
    struct importance_entry *en = &im->entry[im->n - 1];
    TRY(check_values(path, en->name, suffix_sum + 1, t->data, n, e));
    for (int64_t i = 0; i < n; i++) en->sum2[i] = ((const float *)t->data)[i];
    return set_counts(path, en, c->data, e);
}

static status read_keys(struct importance *im, const struct gguf *g, struct err *e)
{
    const struct gguf_kv *kv;
    struct err bad = { 0 };
    gguf_get_i64(g, key_chunks, 0, UINT32_MAX, &im->n_chunks, &bad);
    gguf_get_i64(g, key_chunk_size, 0, UINT32_MAX, &im->chunk_size, &bad);
    bool texts = gguf_get_arr(g, key_datasets, KV_STR, &kv, &bad);
    if (bad.code) return err_set(e, bad.code, "%s", bad.text);
    const uint8_t *at = texts ? kv->data : NULL;
    for (uint64_t i = 0; texts && i < kv->n; i++) {
        struct str s = gguf_arr_str(&at);
        char *copy = arena_strdup(&im->mem, s.p, s.n);
        if (!copy) return err_oom(e, "importance", s.n);
        TRY(importance_dataset(im, copy, e));
    }
    return OK;
}

/* At most 40 characters of a string of the file. */
static const char *printable(struct str s, char buf[41])
{
    size_t n = s.n < 40 ? s.n : 40;
    for (size_t i = 0; i < n; i++) buf[i] = s.p[i] < 0x20 || s.p[i] > 0x7e ? '?' : s.p[i];
    buf[n] = 0;
    return buf;
}

static status read_gguf(struct importance *im, const struct gguf *g, const char *path, struct err *e)
{
    struct str type = { 0 };
    struct err bad = { 0 };
    size_t stem;
    char name[256 + sizeof suffix_sum], have[41];
    bool typed = gguf_get_str(g, "general.type", &type, &bad);
    if (typed && (type.n != 7 || memcmp(type.p, "imatrix", 7) != 0))
        return fail(e, path, "general.type is '%s', expected 'imatrix'", printable(type, have));
    TRY(read_keys(im, g, e));
    for (int64_t i = 0; i < g->n_tensors; i++) {
        const struct tensor *t = &g->tensor[i];
        if (has_suffix(t->name, suffix_sum, &stem)) TRY(read_pair(im, g, t, stem, path, e));
        if (!has_suffix(t->name, suffix_count, &stem)) continue;
        snprintf(name, sizeof name, "%.*s%s", (int)stem, t->name, suffix_sum);
        if (!gguf_tensor(g, name)) return fail(e, path, "%.80s has no %s beside it", t->name, suffix_sum);
    }
    if (im->n == 0) return fail(e, path, "no importance entries (tensors named *%s): a model?", suffix_sum);
    return OK;
}

/* The .dat form. */
struct reader {
    const uint8_t *data;
    size_t size, at;
    const char *path;
    int64_t entry; /* for messages */
    struct err *e;
};

static status read_i32(struct reader *r, const char *what, int32_t *out)
{
    size_t left = r->size - r->at;
    if (left < 4)
        return fail(r->e, r->path, "entry %lld: the file ends inside %s: 4 bytes needed, %zu left", (long long)r->entry, what, left);
    memcpy(out, r->data + r->at, 4);
    r->at += 4;
    return OK;
}

/* n items of `bytes` each must be left. */
static status need(struct reader *r, const char *what, int32_t n, int32_t min, size_t bytes)
{
    size_t left = r->size - r->at;
    if (n >= min && (size_t)n <= left / bytes) return OK;
    return fail(r->e, r->path, "entry %lld: %s is %d, expected %d to %zu (%zu bytes left)", (long long)r->entry, what, n, min, left / bytes, left);
}

static status read_name(struct reader *r, const char **name, size_t *len)
{
    int32_t n = 0;
    TRY(read_i32(r, "the length of the name", &n));
    TRY(need(r, "the length of the name", n, 1, 1));
    *name = (const char *)r->data + r->at;
    *len = (size_t)n;
    if (n > NAME_MAX_BYTES)
        return fail(r->e, r->path, "entry %lld: length of the name is %d, at most %d", (long long)r->entry, n, NAME_MAX_BYTES);
    for (int32_t i = 0; i < n; i++)
        if ((uint8_t)(*name)[i] < 0x20 || (*name)[i] == 0x7f)
            return fail(r->e, r->path, "entry %lld: the name holds the control byte 0x%02x", (long long)r->entry, (uint8_t)(*name)[i]);
    r->at += (size_t)n;
    return OK;
}

static status read_entry(struct reader *r, struct importance *im)
{
    const char *name;
    size_t len;
    int32_t n_chunks = 0, n = 0;
    int64_t place;
    TRY(read_name(r, &name, &len));
    TRY(read_i32(r, "the number of chunks", &n_chunks));
    if (n_chunks < 0) return fail(r->e, r->path, "entry %lld: the number of chunks is %d, expected 0 or more", (long long)r->entry, n_chunks);
    TRY(read_i32(r, "the number of values", &n));
    TRY(need(r, "the number of values", n, 1, sizeof(float)));
    if (look_up(im, name, len, &place)) return fail(r->e, r->path, "entry %lld: %.*s appears twice", (long long)r->entry, (int)len, name);
    TRY(make_entry(im, place, name, len, n, 1, r->e));
    struct importance_entry *en = &im->entry[im->n - 1];
    en->count[0] = n_chunks ? n_chunks : 1; /* 0: the values are used as they are */
    for (int32_t i = 0; i < n; i++, r->at += sizeof(float)) {
        float v;
        memcpy(&v, r->data + r->at, sizeof v);
        TRY(check_values(r->path, en->name, "value", &v, 1, r->e));
        en->sum2[i] = v;
    }
    return OK;
}

static status read_legacy(struct importance *im, const uint8_t *data, size_t size, const char *path, struct err *e)
{
    struct reader r = { .data = data, .size = size, .path = path, .e = e };
    int32_t n = 0, n_chunks = 0, len = 0;
    if (size < 4) return fail(e, path, "%zu bytes are neither of the two importance forms", size);
    TRY(read_i32(&r, "the number of entries", &n));
    if (n < 1 || n > ENTRIES_MAX)
        return fail(e, path, "neither GGUF nor the older form: the number of entries is %d, expected 1 to %d", n, ENTRIES_MAX);
    im->legacy = true;
    for (r.entry = 0; r.entry < n; r.entry++) TRY(read_entry(&r, im));
    if (r.at == size) return OK; /* the oldest files end here */
    TRY(read_i32(&r, "the number of chunks", &n_chunks));
    if (n_chunks < 0) return fail(e, path, "the number of chunks is %d, expected 0 or more", n_chunks);
    im->n_chunks = n_chunks;
    TRY(read_i32(&r, "the length of the text's name", &len));
    TRY(need(&r, "the length of the text's name", len, 0, 1));
    if ((size_t)len < size - r.at) return fail(e, path, "%zu bytes after the end", size - r.at - (size_t)len);
    if (len == 0) return OK;
    char *copy = arena_strdup(&im->mem, (const char *)data + r.at, (size_t)len);
    return copy ? importance_dataset(im, copy, e) : err_oom(e, "importance", (size_t)len);
}

status importance_parse(struct importance *im, const uint8_t *data, size_t size, const char *name, struct err *e)
{
    importance_init(im);
    struct gguf g = { 0 };
    status st;
    if (size >= 4 && !memcmp(data, "GGUF", 4)) {
        st = gguf_parse(&g, data, size, name, e);
        if (st == OK) st = read_gguf(im, &g, name, e);
        gguf_close(&g);
    } else {
        st = read_legacy(im, data, size, name, e);
    }
    if (st == OK) im->hash = importance_hash(im);
    else importance_close(im);
    return st;
}

status importance_open(struct importance *im, const char *path, struct err *e)
{
    importance_init(im);
    struct file f;
    TRY(file_open(&f, path, true, e));
    status st = importance_parse(im, f.data, f.size, path, e);
    file_close(&f);
    return st;
}

/* ---- writing ---- */

/* Floats of one entry in a new block of `mem`. */
static float *floats(struct arena *mem, const struct importance_entry *en, bool counts)
{
    int64_t n = counts ? en->n_mat : en->n_cols * en->n_mat;
    float *out = arena_alloc(mem, (size_t)n * sizeof *out);
    for (int64_t i = 0; out && i < n; i++) out[i] = counts ? (float)en->count[i] : (float)en->sum2[i];
    return out;
}

static status put_entry(struct gguf_writer *w, struct arena *mem, const struct importance_entry *en, struct err *e)
{
    char name[256 + sizeof suffix_sum];
    struct tensor t;
    for (int part = 0; part < 2; part++) {
        snprintf(name, sizeof name, "%s%s", en->name, part ? suffix_count : suffix_sum);
        tensor_shape(&t, dtype_by_id(GGUF_F32), part ? 1 : en->n_cols, en->n_mat, 1, 1);
        t.name = name;
        t.data = floats(mem, en, part);
        if (!t.data) return err_oom(e, "writing importance", tensor_bytes(&t));
        gguf_put_tensor(w, &t);
    }
    return OK;
}

static status save_gguf(const struct importance *im, const char *path, struct err *e)
{
    struct gguf_writer *w;
    struct arena mem;
    TRY(gguf_writer_open(&w, path, e));
    arena_init(&mem, 0);
    struct str *text = arena_alloc(&mem, (size_t)im->n_datasets * sizeof *text);
    status st = text ? OK : err_oom(e, "writing importance", 0);
    for (int i = 0; st == OK && i < im->n_datasets; i++) text[i] = (struct str){ im->dataset[i], strlen(im->dataset[i]) };
    if (st == OK) {
        gguf_put_str(w, "general.type", "imatrix", 7);
        gguf_put_arr_str(w, key_datasets, text, (uint64_t)im->n_datasets);
        gguf_put_i64(w, key_chunks, KV_U32, min_i64(im->n_chunks, UINT32_MAX));
        gguf_put_i64(w, key_chunk_size, KV_U32, min_i64(im->chunk_size, UINT32_MAX));
    }
    for (int64_t i = 0; st == OK && i < im->n; i++) {
        const struct importance_entry *en = &im->entry[im->order[i]];
        if (count_most(en) > 0) st = put_entry(w, &mem, en, e);
    }
    if (st == OK) st = gguf_writer_finish(w, e);
    else gguf_writer_abort(w);
    arena_free(&mem);
    return st;
}

static status write_i32(struct file_out *f, int64_t v, const char *what, struct err *e)
{
    int32_t w = (int32_t)v;
    if (v != w) return err_set(e, ERR_RUNTIME, "%s: %lld does not fit the older importance form, at most %d", what, (long long)v, INT32_MAX);
    return file_write(f, &w, sizeof w, e);
}

/* mean * n_chunks, in float as llama-imatrix; 1 for an expert that no token met. */
static float legacy_value(const struct importance_entry *en, int64_t i, int64_t n_chunks)
{
    int64_t count = en->count[i / en->n_cols];
    if (count == n_chunks) return (float)en->sum2[i];
    return (count ? (float)en->sum2[i] / (float)count : 1.0f) * (float)n_chunks;
}

static status write_legacy_entry(struct file_out *f, const struct importance_entry *en, int64_t chunk_size, struct err *e)
{
    float v[1024];
    int64_t n = en->n_cols * en->n_mat, n_chunks = (count_most(en) + chunk_size - 1) / chunk_size;
    TRY(write_i32(f, (int64_t)strlen(en->name), en->name, e));
    TRY(file_write(f, en->name, strlen(en->name), e));
    TRY(write_i32(f, n_chunks, en->name, e));
    TRY(write_i32(f, n, en->name, e));
    for (int64_t i = 0, m; i < n; i += m) {
        m = min_i64(ARRAY_LEN(v), n - i);
        for (int64_t j = 0; j < m; j++) v[j] = legacy_value(en, i + j, n_chunks);
        TRY(file_write(f, v, (size_t)m * sizeof *v, e));
    }
    return OK;
}

static status write_legacy(const struct importance *im, struct file_out *f, struct err *e)
{
    int64_t n = 0, chunk_size = im->chunk_size ? im->chunk_size : 1;
    for (int64_t i = 0; i < im->n; i++) n += count_most(&im->entry[i]) > 0;
    TRY(write_i32(f, n, "entries", e));
    for (int64_t i = 0; i < im->n; i++) {
        const struct importance_entry *en = &im->entry[im->order[i]];
        if (count_most(en) > 0) TRY(write_legacy_entry(f, en, chunk_size, e));
    }
    const char *text = im->n_datasets ? im->dataset[im->n_datasets - 1] : ""; /* the form has room for one */
    TRY(write_i32(f, im->n_chunks, "chunks", e));
    TRY(write_i32(f, (int64_t)strlen(text), "text", e));
    return file_write(f, text, strlen(text), e);
}

status importance_save(const struct importance *im, const char *path, bool legacy, struct err *e)
{
    if (importance_tokens(im) == 0) return err_set(e, ERR_USAGE, "%s: nothing was collected, no importance to save", path);
    TRY(importance_check(im, e));
    if (!legacy) return save_gguf(im, path, e);
    struct file_out f;
    TRY(file_create(&f, path, e));
    status st = write_legacy(im, &f, e);
    if (st == OK) return file_commit(&f, e);
    file_abort(&f);
    return st;
}
