/* stop - what may be shown of a text that arrives in pieces: nothing that could become a stop string, no half characters.
 * The memory is one block: [cap] raw bytes not yet released, then [3 * cap] the released text, where an invalid byte takes three.
 * Stop strings are searched in the raw bytes, so that they are found across any division into pieces. */
#include "src/sampler.h"
#include <string.h>

enum {
    STOPS_MAX = 16,
    STOP_BYTES_MAX = 4096,
    PIECE_RESERVE = 1024, /* pieces up to this length never allocate */
};

static size_t capacity_for(size_t longest) { return longest + 4 + PIECE_RESERVE; }

status stop_open(struct stop_filter *f, const char *const *stops, int n_stops, struct err *e)
{
    *f = (struct stop_filter){ .stops = stops, .n_stops = n_stops };
    if (n_stops < 0 || n_stops > STOPS_MAX) return err_set(e, ERR_USAGE, "%d stop strings, allowed are 0..%d", n_stops, STOPS_MAX);
    size_t longest = 0;
    for (int i = 0; i < n_stops; i++) {
        size_t n = strlen(stops[i]);
        if (n == 0 || n > STOP_BYTES_MAX)
            return err_set(e, ERR_USAGE, "stop string %d has %zu bytes, allowed are 1..%d", i + 1, n, STOP_BYTES_MAX);
        longest = n > longest ? n : longest;
    }
    f->cap = capacity_for(longest);
    f->buf = mem_alloc(4 * f->cap);
    return f->buf ? OK : err_oom(e, "stop filter", 4 * f->cap);
}

void stop_close(struct stop_filter *f)
{
    mem_free(f->buf);
    *f = (struct stop_filter){ 0 };
}

/* Length of the UTF-8 sequence or ill-formed part at p[0..n), n > 0. *ok: well-formed. *cut: the bytes end before the sequence does.
 * An ill-formed part is the longest beginning of a sequence (Unicode, section 3.9, table 3-7), so that a reader sees one U+FFFD for it. */
static size_t utf8_part(const uint8_t *p, size_t n, bool *ok, bool *cut)
{
    size_t len = p[0] < 0x80 ? 1 : p[0] < 0xC2 ? 0 : p[0] < 0xE0 ? 2 : p[0] < 0xF0 ? 3 : p[0] < 0xF5 ? 4 : 0;
    *ok = *cut = false;
    if (len == 0) return 1;
    for (size_t i = 1; i < len; i++) {
        if (i == n) {
            *cut = true;
            return n;
        }
        uint8_t lo = 0x80, hi = 0xBF;
        if (i == 1) {
            if (p[0] == 0xE0) lo = 0xA0;       /* overlong */
            else if (p[0] == 0xED) hi = 0x9F;  /* surrogates */
            else if (p[0] == 0xF0) lo = 0x90;
            else if (p[0] == 0xF4) hi = 0x8F;  /* above U+10FFFF */
        }
        if (p[i] < lo || p[i] > hi) return i;
    }
    *ok = true;
    return len;
}

/* Where to cut p[0..n) so that no character is divided. */
static size_t whole_characters(const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n;) {
        bool ok, cut;
        size_t len = utf8_part(p + i, n - i, &ok, &cut);
        if (cut) return i;
        i += len;
    }
    return n;
}

/* Moves the first n raw bytes to the output region as valid UTF-8. */
static void release(struct stop_filter *f, size_t n, const char **out, size_t *n_out)
{
    char *to = f->buf + f->cap;
    size_t at = 0;
    for (size_t i = 0; i < n;) {
        bool ok, cut;
        size_t len = utf8_part((const uint8_t *)f->buf + i, n - i, &ok, &cut);
        memcpy(to + at, ok ? f->buf + i : "\xEF\xBF\xBD", ok ? len : 3);
        at += ok ? len : 3;
        i += len;
    }
    memmove(f->buf, f->buf + n, f->n - n);
    f->n -= n;
    *out = to;
    *n_out = at;
}

static bool reserve(struct stop_filter *f, size_t more)
{
    size_t need, bytes;
    if (!add_size(f->n, more, &need)) return false;
    if (need <= f->cap) return true;
    if (!mul_size(need, 4, &bytes)) return false;
    char *buf = mem_realloc(f->buf, bytes);
    if (!buf) return false;
    f->buf = buf;
    f->cap = need;
    return true;
}

static size_t find_stop(const struct stop_filter *f)
{
    size_t at = SIZE_MAX;
    for (int i = 0; i < f->n_stops; i++) {
        const char *hit = memmem(f->buf, f->n, f->stops[i], strlen(f->stops[i]));
        if (hit && (size_t)(hit - f->buf) < at) at = (size_t)(hit - f->buf);
    }
    return at;
}

/* Bytes at the end that are the beginning of a stop string. */
static size_t held_back(const struct stop_filter *f)
{
    size_t most = 0;
    for (int i = 0; i < f->n_stops; i++) {
        size_t len = strlen(f->stops[i]) - 1;
        for (size_t k = len < f->n ? len : f->n; k > most; k--)
            if (memcmp(f->buf + f->n - k, f->stops[i], k) == 0) most = k;
    }
    return most;
}

bool stop_push(struct stop_filter *f, const char *piece, size_t n, const char **out, size_t *n_out)
{
    *out = "";
    *n_out = 0;
    if (f->hit) return true;
    if (!reserve(f, n)) { /* without memory the text cannot be watched any more: end it here */
        f->hit = true;
        return true;
    }
    if (n > 0) memcpy(f->buf + f->n, piece, n);
    f->n += n;
    size_t at = find_stop(f);
    f->hit = at != SIZE_MAX;
    if (!f->hit) at = whole_characters((const uint8_t *)f->buf, f->n - held_back(f));
    release(f, at, out, n_out);
    if (f->hit) f->n = 0;
    return f->hit;
}

void stop_flush(struct stop_filter *f, const char **out, size_t *n_out)
{
    *out = "";
    *n_out = 0;
    if (!f->hit) release(f, f->n, out, n_out);
}
