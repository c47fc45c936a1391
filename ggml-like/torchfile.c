/* torchfile - the zip that torch.save writes: entries "<prefix>/data.pkl" (torchpickle.c), "<prefix>/data/<key>" (one storage each),
 * "<prefix>/byteorder". Entries are stored, never inflated: a compressed one is refused. Layout, everything little-endian:
 *   local header 30+ bytes, name, extra, data  (per entry)  |  central directory  |  [zip64 end, its locator]  |  end record, 22 bytes
 * The central directory is the truth; every local header must agree with it, entries may not overlap. Checksums are not looked at: torch
 * itself offers to leave them out. Source: PKWARE APPNOTE 6.3; caffe2/serialize/inline_container.cc of PyTorch. */
#include "ggml-like/checkpoint_int.h"
#include <stdlib.h>
#include <string.h>

enum {
    LOCAL = 30, CENTRAL = 46, END = 22, END64 = 56, LOCATOR = 20, /* bytes of the records without their names */
    COMMENT_MAX = 65535,
    DIRECTORY_MAX = 256 << 20,
    ENTRIES_MAX = 1 << 20,
    PICKLE_MAX = 64 << 20,
};
enum { SIG_LOCAL = 0x04034b50, SIG_CENTRAL = 0x02014b50, SIG_END = 0x06054b50, SIG_END64 = 0x06064b50, SIG_LOCATOR = 0x07064b50 };

static uint64_t load(const uint8_t *p, int n)
{
    uint64_t v = 0;
    while (n > 0) v = v << 8 | p[--n];
    return v;
}
static uint32_t u16(const uint8_t *p) { return (uint32_t)load(p, 2); }
static uint32_t u32(const uint8_t *p) { return (uint32_t)load(p, 4); }

struct directory {
    uint64_t at, bytes, n, end; /* end: where it must end */
};

/* ---- the end of the file ---- */

/* With zip64 the end record holds all ones where the value is in the other record; a value that stands in both must be the same. */
static bool same_or_ones(uint64_t small, uint64_t ones, uint64_t value) { return small == ones || small == value; }

static status read_end64(const struct ckpt_shard *s, const uint8_t *end, const uint8_t *locator, size_t end_at, struct directory *d,
                         struct err *e)
{
    uint8_t r[END64];
    uint64_t at = load(locator + 8, 8);
    if (end_at < LOCATOR + END64 || at != end_at - LOCATOR - END64)
        return err_set(e, ERR_FORMAT, "%s: the zip64 end is said to be at byte %llu, expected %zu", s->path, (unsigned long long)at,
                       end_at < LOCATOR + END64 ? 0 : end_at - LOCATOR - END64);
    TRY(ckpt_shard_read(s, r, sizeof r, (size_t)at, e));
    if (u32(r) != SIG_END64 || load(r + 4, 8) != END64 - 12)
        return err_set(e, ERR_FORMAT, "%s: no zip64 end at byte %llu", s->path, (unsigned long long)at);
    if (u32(locator + 4) != 0 || u32(locator + 16) > 1 || u32(r + 16) != 0 || u32(r + 20) != 0 || load(r + 24, 8) != load(r + 32, 8))
        return err_set(e, ERR_FORMAT, "%s: is a zip of several volumes", s->path);
    *d = (struct directory){ .n = load(r + 32, 8), .bytes = load(r + 40, 8), .at = load(r + 48, 8), .end = at };
    if (!same_or_ones(u16(end + 10), 0xffff, d->n) || !same_or_ones(u32(end + 12), 0xffffffff, d->bytes) ||
        !same_or_ones(u32(end + 16), 0xffffffff, d->at))
        return err_set(e, ERR_FORMAT, "%s: the two end records of the zip contradict each other", s->path);
    return OK;
}

static status find_end(const struct ckpt_shard *s, struct directory *d, struct err *e)
{
    size_t n = s->size < END + COMMENT_MAX + LOCATOR ? s->size : END + COMMENT_MAX + LOCATOR, base = s->size - n;
    uint8_t *tail = mem_alloc(n);
    if (!tail) return err_oom(e, s->path, n);
    status st = ckpt_shard_read(s, tail, n, base, e);
    size_t at = n < END ? 0 : n - END + 1;
    bool found = false;
    while (st == OK && !found && at > 0) found = u32(tail + --at) == SIG_END && u16(tail + at + 20) == n - at - END;
    const uint8_t *r = tail + at;
    if (st == OK && !found) st = err_set(e, ERR_FORMAT, "%s: has no end record of a zip: the file is cut", s->path);
    if (st == OK && (u16(r + 4) != 0 || u16(r + 6) != 0 || u16(r + 8) != u16(r + 10)))
        st = err_set(e, ERR_FORMAT, "%s: is a zip of several volumes", s->path);
    if (st == OK) {
        *d = (struct directory){ .n = u16(r + 10), .bytes = u32(r + 12), .at = u32(r + 16), .end = base + at };
        if (at >= LOCATOR && u32(r - LOCATOR) == SIG_LOCATOR) st = read_end64(s, r, r - LOCATOR, base + at, d, e);
    }
    mem_free(tail);
    if (st != OK) return st;
    if (d->at > d->end || d->bytes != d->end - d->at)
        return err_set(e, ERR_FORMAT, "%s: the directory of the zip is said to have %llu bytes at %llu, its end is at %llu", s->path,
                       (unsigned long long)d->bytes, (unsigned long long)d->at, (unsigned long long)d->end);
    if (d->bytes > DIRECTORY_MAX || d->n > ENTRIES_MAX || d->n * CENTRAL > d->bytes)
        return err_set(e, ERR_FORMAT, "%s: %llu entries in a directory of %llu bytes (at most %d, %d)", s->path, (unsigned long long)d->n,
                       (unsigned long long)d->bytes, ENTRIES_MAX, DIRECTORY_MAX);
    return OK;
}

/* ---- entries ---- */

/* The zip64 extra field replaces those of size, packed size and offset that are all ones, in this order. */
static bool extra64(const uint8_t *x, size_t n, uint64_t *size, uint64_t *packed, uint64_t *at)
{
    uint64_t *const value[] = { size, packed, at };
    for (; n >= 4; n -= 4 + u16(x + 2), x += 4 + u16(x + 2)) {
        size_t have = u16(x + 2), used = 0;
        if (have > n - 4) return false;
        if (u16(x) != 1) continue;
        for (int i = 0; i < 3; i++) {
            if (!value[i] || *value[i] != 0xffffffff) continue;
            if (have - used < 8) return false;
            *value[i] = load(x + 4 + used, 8);
            used += 8;
        }
        return true;
    }
    return (*size != 0xffffffff) & (*packed != 0xffffffff) & (!at || *at != 0xffffffff);
}

/* One record of the directory of which `left` bytes remain; *used its length. */
static status read_central(const struct ckpt_shard *s, const struct directory *d, const uint8_t *p, size_t left, struct zip_entry *z,
                           size_t *used, struct err *e)
{
    if (left < CENTRAL || u32(p) != SIG_CENTRAL) return err_set(e, ERR_FORMAT, "%s: the directory of the zip is damaged", s->path);
    size_t name_n = u16(p + 28), extra_n = u16(p + 30);
    *used = CENTRAL + name_n + extra_n + u16(p + 32);
    if (*used > left) return err_set(e, ERR_FORMAT, "%s: the directory of the zip is cut", s->path);
    const char *name = (const char *)p + CENTRAL;
    uint64_t size = u32(p + 24), packed = u32(p + 20), at = u32(p + 42);
    int shown = name_n > 100 ? 100 : (int)name_n;
    if (u16(p + 8) & 1) return err_set(e, ERR_FORMAT, "%s: entry %.*s is encrypted", s->path, shown, name);
    if (u16(p + 10) != 0)
        return err_set(e, ERR_FORMAT,
                       "%s: entry %.*s is compressed (method %u): TorchScript, or not made by torch.save; save its state_dict() with torch",
                       s->path, shown, name, u16(p + 10));
    if (!extra64(p + CENTRAL + name_n, extra_n, &size, &packed, &at))
        return err_set(e, ERR_FORMAT, "%s: entry %.*s: zip64 field missing or damaged", s->path, shown, name);
    if (size != packed)
        return err_set(e, ERR_FORMAT, "%s: entry %.*s: %llu bytes stored as %llu", s->path, shown, name, (unsigned long long)size,
                       (unsigned long long)packed);
    if (at > d->at || size > d->at - at)
        return err_set(e, ERR_FORMAT, "%s: entry %.*s: %llu bytes at %llu, the directory begins at %llu", s->path, shown, name,
                       (unsigned long long)size, (unsigned long long)at, (unsigned long long)d->at);
    *z = (struct zip_entry){ .name = name, .name_n = name_n, .local = (size_t)at, .size = (size_t)size };
    return OK;
}

/* The local header must name the same entry; it says where the data begins. Sizes are 0 there when they follow the data (flag 8). */
static status read_local(const struct ckpt_shard *s, const struct directory *d, struct zip_entry *z, uint8_t *buf, struct err *e)
{
    int shown = z->name_n > 100 ? 100 : (int)z->name_n;
    if (d->at - z->local < LOCAL)
        return err_set(e, ERR_FORMAT, "%s: entry %.*s: no local header at byte %zu", s->path, shown, z->name, z->local);
    TRY(ckpt_shard_read(s, buf, LOCAL, z->local, e));
    size_t name_n = u16(buf + 26), extra_n = u16(buf + 28), head = LOCAL + name_n + extra_n;
    if (u32(buf) != SIG_LOCAL || u16(buf + 8) != 0 || (u16(buf + 6) & 1) || name_n != z->name_n || head > d->at - z->local)
        return err_set(e, ERR_FORMAT, "%s: entry %.*s: the local header at byte %zu is another's", s->path, shown, z->name, z->local);
    uint64_t size = u32(buf + 22), packed = u32(buf + 18);
    bool later = u16(buf + 6) & 8;
    TRY(ckpt_shard_read(s, buf, name_n + extra_n, z->local + LOCAL, e));
    if (memcmp(buf, z->name, name_n))
        return err_set(e, ERR_FORMAT, "%s: entry %.*s: the local header at byte %zu is another's", s->path, shown, z->name, z->local);
    if (!later && (!extra64(buf + name_n, extra_n, &size, &packed, NULL) || size != z->size || packed != z->size))
        return err_set(e, ERR_FORMAT, "%s: entry %.*s: %zu bytes in the directory, %llu in the local header", s->path, shown, z->name,
                       z->size, (unsigned long long)size);
    z->data = z->local + head;
    if (z->size > d->at - z->data)
        return err_set(e, ERR_FORMAT, "%s: entry %.*s: %zu bytes at %zu, the directory begins at %llu", s->path, shown, z->name, z->size,
                       z->data, (unsigned long long)d->at);
    return OK;
}

static int by_local(const void *a, const void *b)
{
    const struct zip_entry *x = a, *y = b;
    return (x->local > y->local) - (x->local < y->local);
}

static int compare_names(const char *a, size_t a_n, const char *b, size_t b_n)
{
    int order = memcmp(a, b, a_n < b_n ? a_n : b_n);
    return order ? order : (a_n > b_n) - (a_n < b_n);
}

static int by_entry(const void *a, const void *b)
{
    const struct zip_entry *x = a, *y = b;
    return compare_names(x->name, x->name_n, y->name, y->name_n);
}

static status check_entries(const struct ckpt_shard *s, struct zip *z, struct err *e)
{
    if (z->n > 1) qsort(z->entry, (size_t)z->n, sizeof *z->entry, by_local);
    for (int64_t i = 1; i < z->n; i++) {
        const struct zip_entry *a = &z->entry[i - 1], *b = &z->entry[i];
        if (a->data + a->size > b->local)
            return err_set(e, ERR_FORMAT, "%s: entries %.*s and %.*s overlap at byte %zu", s->path, a->name_n > 60 ? 60 : (int)a->name_n,
                           a->name, b->name_n > 60 ? 60 : (int)b->name_n, b->name, b->local);
    }
    if (z->n > 1) qsort(z->entry, (size_t)z->n, sizeof *z->entry, by_entry);
    for (int64_t i = 1; i < z->n; i++) {
        if (by_entry(&z->entry[i - 1], &z->entry[i]) == 0)
            return err_set(e, ERR_FORMAT, "%s: two entries are called %.*s", s->path,
                           z->entry[i].name_n > 100 ? 100 : (int)z->entry[i].name_n, z->entry[i].name);
    }
    return OK;
}

static status read_entries(const struct ckpt_shard *s, const struct directory *d, struct zip *z, struct err *e)
{
    z->directory = mem_alloc((size_t)d->bytes);
    z->entry = mem_calloc((size_t)d->n, sizeof *z->entry);
    uint8_t *buf = mem_alloc(2 * 65535);
    status st = OK;
    if (!z->directory || !z->entry || !buf) st = err_oom(e, s->path, (size_t)d->bytes);
    if (st == OK) st = ckpt_shard_read(s, z->directory, (size_t)d->bytes, (size_t)d->at, e);
    size_t at = 0, used = 0;
    for (; st == OK && z->n < (int64_t)d->n; z->n++, at += used) {
        st = read_central(s, d, z->directory + at, (size_t)d->bytes - at, &z->entry[z->n], &used, e);
        if (st == OK) st = read_local(s, d, &z->entry[z->n], buf, e);
    }
    if (st == OK && at != d->bytes)
        st = err_set(e, ERR_FORMAT, "%s: the directory of the zip has more than its %llu entries", s->path, (unsigned long long)d->n);
    mem_free(buf);
    return st == OK ? check_entries(s, z, e) : st;
}

const struct zip_entry *zip_find(const struct zip *z, const char *name, size_t name_n)
{
    int64_t lo = 0, hi = z->n;
    while (lo < hi) {
        int64_t mid = lo + (hi - lo) / 2;
        const struct zip_entry *x = &z->entry[mid];
        int order = compare_names(x->name, x->name_n < z->prefix_n ? x->name_n : z->prefix_n, z->prefix, z->prefix_n);
        if (order == 0) order = compare_names(x->name + z->prefix_n, x->name_n - z->prefix_n, name, name_n);
        if (order == 0) return x;
        if (order < 0) lo = mid + 1;
        else hi = mid;
    }
    return NULL;
}

/* ---- torch's entries ---- */

static status find_prefix(const struct ckpt_shard *s, struct zip *z, struct err *e)
{
    static const char pickle[] = "data.pkl", code[] = "constants.pkl";
    const size_t n = strlen(pickle);
    for (int64_t i = 0; i < z->n; i++) {
        const struct zip_entry *x = &z->entry[i];
        const char *slash = memchr(x->name, '/', x->name_n);
        if (!slash || (size_t)(x->name + x->name_n - slash) != n + 1 || memcmp(slash + 1, pickle, n)) continue;
        if (z->prefix) return err_set(e, ERR_FORMAT, "%s: has two data.pkl", s->path);
        z->prefix = x->name;
        z->prefix_n = (size_t)(slash + 1 - x->name);
    }
    if (!z->prefix) return err_set(e, ERR_FORMAT, "%s: is a zip without data.pkl: not made by torch.save", s->path);
    if (zip_find(z, code, strlen(code)))
        return err_set(e, ERR_FORMAT, "%s: is a TorchScript program, not a dict of tensors: save its state_dict() with torch.save",
                       s->path);
    return OK;
}

static status check_byteorder(const struct ckpt_shard *s, const struct zip *z, struct err *e)
{
    static const char name[] = "byteorder", little[] = "little";
    char text[16] = "";
    const struct zip_entry *x = zip_find(z, name, strlen(name)); /* absent before PyTorch 2.1 */
    if (!x) return OK;
    size_t n = x->size < sizeof text - 1 ? x->size : sizeof text - 1;
    TRY(ckpt_shard_read(s, text, n, x->data, e));
    if (x->size == strlen(little) && !strcmp(text, little)) return OK;
    return err_set(e, ERR_FORMAT, "%s: byteorder is %s, expected little", s->path, text);
}

static status read_pickle(const struct ckpt_shard *s, const struct zip *z, int shard, struct ckpt_list *list, struct err *e)
{
    static const char name[] = "data.pkl";
    const struct zip_entry *x = zip_find(z, name, strlen(name));
    if (x->size > PICKLE_MAX)
        return err_set(e, ERR_FORMAT, "%s: data.pkl has %zu bytes, at most %d are read", s->path, x->size, PICKLE_MAX);
    uint8_t *data = mem_alloc(x->size);
    if (!data) return err_oom(e, s->path, x->size);
    status st = ckpt_shard_read(s, data, x->size, x->data, e);
    if (st == OK) st = pickle_tensors(s, z, data, x->size, shard, list, e);
    mem_free(data);
    return st;
}

status torch_parse(const struct ckpt_shard *s, int shard, struct ckpt_list *list, struct err *e)
{
    struct directory d = { 0 };
    struct zip z = { 0 };
    TRY(find_end(s, &d, e));
    status st = read_entries(s, &d, &z, e);
    if (st == OK) st = find_prefix(s, &z, e);
    if (st == OK) st = check_byteorder(s, &z, e);
    if (st == OK) st = read_pickle(s, &z, shard, list, e);
    mem_free(z.entry);
    mem_free(z.directory);
    return st;
}
