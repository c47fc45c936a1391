/* similar - see similar.h. 16 bands of 4 rows: two texts that share 0.8 of their shingles meet in a band with probability 0.9998, at 0.7 with 0.988, at 0.5
 * with 0.64. Source: Broder 1997 (resemblance, MinHash); Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets", 3.4 (bands). */
#include "tools/similar.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "tools/term.h"

enum { SHINGLE = 3, BANDS = 16, BAND_ROWS = 4, PERMUTATIONS = BANDS * BAND_ROWS, CANDIDATES = 4096 /* looked at for one text at most */ };

struct text { size_t first; uint32_t n; int64_t id; };       /* shingles: pool[first .. first + n), ascending, each once */
struct entry { uint64_t key; int32_t text, next; };          /* one for each band of each text */
struct similar {
    double threshold;
    uint32_t *pool; size_t n_pool, cap_pool;
    struct text *text; int32_t n_text, cap_text;
    int32_t *seen;                                           /* [cap_text]: the last text that was compared with this one */
    int32_t turn;
    struct entry *entry; int32_t n_entry, cap_entry;
    int32_t *head; size_t n_head;                            /* a power of two; -1: empty */
    uint32_t *now; size_t n_now, cap_now;                    /* shingles of the text at hand */
};

status similar_open(struct similar **out, double threshold, struct err *e)
{
    struct similar *s = *out = mem_calloc(1, sizeof *s);
    if (!s) return err_oom(e, "similar texts", sizeof *s);
    s->threshold = threshold;
    return OK;
}

void similar_close(struct similar *s)
{
    if (!s) return;
    mem_free(s->pool), mem_free(s->text), mem_free(s->seen), mem_free(s->entry), mem_free(s->head), mem_free(s->now);
    mem_free(s);
}

/* ---- words and shingles ---- */

static bool is_letter(uint32_t cp)
{
    if (cp < 0x80) return (cp >= '0' && cp <= '9') || (cp >= 'a' && cp <= 'z') || (cp >= 'A' && cp <= 'Z');
    return cp >= 0xc0 && cp != 0xfffd && !(cp >= 0x2000 && cp <= 0x206f) && !(cp >= 0x3000 && cp <= 0x303f) && !(cp >= 0xff00 && cp <= 0xff0f);
}

/* Scripts that are written without spaces: each character is a word. */
static bool is_word(uint32_t cp)
{
    static const struct { uint32_t first, last; } blocks[] = {
        { 0x0e00, 0x0eff }, { 0x2e80, 0x9fff }, { 0xac00, 0xd7af }, { 0xf900, 0xfaff }, { 0x20000, 0x3ffff },
    };
    for (int i = 0; i < ARRAY_LEN(blocks); i++)
        if (cp >= blocks[i].first && cp <= blocks[i].last) return true;
    return false;
}

static uint64_t stir(uint64_t h, uint64_t x)
{
    h = (h ^ x) * 0x9fb21c651e98df25u;
    return h ^ h >> 29;
}

static status add_shingle(struct similar *s, uint64_t h, struct err *e)
{
    if (s->n_now == s->cap_now) {
        size_t cap = s->cap_now ? 2 * s->cap_now : 1024;
        uint32_t *now = mem_realloc(s->now, cap * sizeof *now);
        if (!now) return err_oom(e, "similar texts", cap * sizeof *now);
        s->now = now, s->cap_now = cap;
    }
    s->now[s->n_now++] = (uint32_t)(h >> 32);
    return OK;
}

struct window { uint64_t word[SHINGLE]; int64_t n; };

static status end_word(struct similar *s, struct window *w, uint64_t h, struct err *e)
{
    for (int i = 0; i + 1 < SHINGLE; i++) w->word[i] = w->word[i + 1];
    w->word[SHINGLE - 1] = h;
    if (++w->n < SHINGLE) return OK;
    uint64_t all = SHINGLE;
    for (int i = 0; i < SHINGLE; i++) all = stir(all, w->word[i]);
    return add_shingle(s, all, e);
}

static int ascending(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static status find_shingles(struct similar *s, const char *text, size_t n, struct err *e)
{
    struct window w = { 0 };
    uint64_t h = 0;
    bool inside = false;
    s->n_now = 0;
    for (size_t i = 0; i < n;) {
        uint32_t cp = (unsigned char)text[i];
        i += cp < 0x80 ? 1 : (size_t)utf8_next(text + i, n - i, &cp);
        bool letter = is_letter(cp), alone = letter && is_word(cp);
        if (inside && (!letter || alone)) TRY(end_word(s, &w, h, e));
        if (letter) h = stir(inside && !alone ? h : 0x51, cp >= 'A' && cp <= 'Z' ? cp + 32 : cp);
        if (alone) TRY(end_word(s, &w, h, e));
        inside = letter && !alone;
    }
    if (inside) TRY(end_word(s, &w, h, e));
    if (w.n > 0 && w.n < SHINGLE) TRY(add_shingle(s, stir(stir(stir(1, w.word[0]), w.word[1]), w.word[2]), e)); /* short: all of it */
    if (s->n_now > 1) qsort(s->now, s->n_now, sizeof *s->now, ascending);
    size_t kept = 0;
    for (size_t i = 0; i < s->n_now; i++)
        if (i == 0 || s->now[i] != s->now[i - 1]) s->now[kept++] = s->now[i];
    s->n_now = kept;
    return OK;
}

/* ---- the kept texts ---- */

/* Jaccard, or 0 when it is below the threshold: the walk ends where more shingles are unmatched than both / (a + b - both) >= threshold allows. */
static double common_share(const struct similar *s, const struct text *t)
{
    const uint32_t *a = s->now, *b = s->pool + t->first;
    size_t i = 0, j = 0, both = 0;
    double all = (double)s->n_now + (double)t->n;
    double unmatched = all - 2 * s->threshold / (1 + s->threshold) * all + 1e-6, lone = fabs((double)s->n_now - (double)t->n);
    if (lone > unmatched) return 0;
    size_t steps = 0, allowed = (size_t)unmatched;
    while (i < s->n_now && j < t->n && steps - both <= allowed) {
        uint32_t x = a[i], y = b[j];
        both += x == y, steps++;
        i += x <= y, j += y <= x;
    }
    double share = (double)both / (all - (double)both);
    return share >= s->threshold ? share : 0;
}

static void band_keys(const struct similar *s, uint64_t key[BANDS])
{
    int32_t least[PERMUTATIONS];
    for (int i = 0; i < PERMUTATIONS; i++) least[i] = INT32_MAX;
    for (size_t k = 0; k < s->n_now; k++) {
        uint64_t h = stir(stir(3, s->now[k]), 5);
        uint32_t first = (uint32_t)h, step = (uint32_t)(h >> 32) | 1;
        for (int i = 0; i < PERMUTATIONS; i++) { /* first + i * step: additions are what every processor does four at a time */
            int32_t v = (int32_t)(first + (uint32_t)i * step);
            least[i] = v < least[i] ? v : least[i];
        }
    }
    for (int b = 0; b < BANDS; b++) {
        key[b] = stir(7, (uint64_t)b);
        for (int i = 0; i < BAND_ROWS; i++) key[b] = stir(key[b], (uint32_t)least[b * BAND_ROWS + i]);
    }
}

static status grow_heads(struct similar *s, struct err *e)
{
    size_t n = s->n_head ? 2 * s->n_head : 4096;
    int32_t *head = mem_alloc(n * sizeof *head);
    if (!head) return err_oom(e, "similar texts", n * sizeof *head);
    memset(head, 0xff, n * sizeof *head);
    for (int32_t i = 0; i < s->n_entry; i++) {
        int32_t *h = &head[s->entry[i].key & (n - 1)];
        s->entry[i].next = *h, *h = i;
    }
    mem_free(s->head);
    s->head = head, s->n_head = n;
    return OK;
}

static status make_room(struct similar *s, struct err *e)
{
    if (s->n_text == s->cap_text) {
        int32_t cap = s->cap_text ? 2 * s->cap_text : 1024;
        struct text *text = mem_realloc(s->text, (size_t)cap * sizeof *text);
        if (text) s->text = text;
        int32_t *seen = text ? mem_realloc(s->seen, (size_t)cap * sizeof *seen) : NULL;
        if (!seen) return err_oom(e, "similar texts", (size_t)cap * sizeof *text);
        s->seen = seen, s->cap_text = cap;
    }
    if (s->n_entry + BANDS > s->cap_entry) {
        int32_t cap = s->cap_entry ? 2 * s->cap_entry : 16384;
        struct entry *entry = mem_realloc(s->entry, (size_t)cap * sizeof *entry);
        if (!entry) return err_oom(e, "similar texts", (size_t)cap * sizeof *entry);
        s->entry = entry, s->cap_entry = cap;
    }
    if (s->n_pool + s->n_now > s->cap_pool) {
        size_t cap = s->cap_pool + s->cap_pool / 2 + s->n_now + 65536;
        uint32_t *pool = mem_realloc(s->pool, cap * sizeof *pool);
        if (!pool) return err_oom(e, "similar texts", cap * sizeof *pool);
        s->pool = pool, s->cap_pool = cap;
    }
    return (size_t)(s->n_entry + BANDS) * 2 > s->n_head ? grow_heads(s, e) : OK;
}

static status keep(struct similar *s, const uint64_t key[BANDS], int64_t id, struct err *e)
{
    if (s->n_text >= INT32_MAX / (2 * BANDS)) return err_set(e, ERR_RUNTIME, "similar texts: more than %d texts", (int)s->n_text);
    TRY(make_room(s, e));
    s->seen[s->n_text] = -1;
    s->text[s->n_text] = (struct text){ s->n_pool, (uint32_t)s->n_now, id };
    memcpy(s->pool + s->n_pool, s->now, s->n_now * sizeof *s->now);
    s->n_pool += s->n_now;
    for (int b = 0; b < BANDS; b++) {
        int32_t *h = &s->head[key[b] & (s->n_head - 1)];
        s->entry[s->n_entry] = (struct entry){ key[b], s->n_text, *h };
        *h = s->n_entry++;
    }
    s->n_text++;
    return OK;
}

status similar_add(struct similar *s, const char *text, size_t n, int64_t id, int64_t *like, double *share, struct err *e)
{
    uint64_t key[BANDS];
    int32_t best = -1, looked = 0;
    *like = -1, *share = 0;
    TRY(find_shingles(s, text, n, e));
    if (s->n_now == 0) return OK;
    if (s->n_now > UINT32_MAX / 2) return err_set(e, ERR_RUNTIME, "similar texts: %zu words in one text", s->n_now);
    band_keys(s, key);
    s->turn++;
    for (int b = 0; b < BANDS && s->n_head > 0; b++)
        for (int32_t i = s->head[key[b] & (s->n_head - 1)]; i >= 0 && looked < CANDIDATES; i = s->entry[i].next) {
            int32_t t = s->entry[i].text;
            if (s->entry[i].key != key[b] || s->seen[t] == s->turn || (best >= 0 && t > best)) continue;
            s->seen[t] = s->turn, looked++;
            double same = common_share(s, &s->text[t]);
            if (same > 0) best = t, *share = same;
        }
    if (best >= 0) *like = s->text[best].id;
    return best >= 0 ? OK : keep(s, key, id, e);
}
