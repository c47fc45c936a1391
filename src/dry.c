/* dry - see dry.h. */
#include "src/dry.h"
#include <stdlib.h>
#include <string.h>
#include "src/tokenizer.h"

static status grow(void **p, int64_t n, int64_t *cap, size_t item, struct err *e)
{
    if (n <= *cap) return OK;
    int64_t want = n + n / 2 + 64;
    size_t bytes;
    if (!mul_size((size_t)want, item, &bytes)) return err_oom(e, "sequence breakers", SIZE_MAX);
    void *q = mem_realloc(*p, bytes);
    if (!q) return err_oom(e, "sequence breakers", bytes);
    *p = q;
    *cap = want;
    return OK;
}

static status add(struct dry_breakers *b, int32_t head, const int32_t *tail, int32_t n_tail, struct err *e)
{
    for (int64_t i = b->n; i-- > 0 && b->row[i].head == head;)
        if (b->row[i].n_tail == n_tail && (n_tail == 0 || !memcmp(b->tails + b->row[i].at, tail, (size_t)n_tail * sizeof *tail))) return OK;
    TRY(grow((void **)&b->row, b->n + 1, &b->cap, sizeof *b->row, e));
    TRY(grow((void **)&b->tails, b->n_tails + n_tail, &b->tails_cap, sizeof *b->tails, e));
    if (n_tail > 0) memcpy(b->tails + b->n_tails, tail, (size_t)n_tail * sizeof *tail);
    b->row[b->n++] = (struct dry_breaker){ head, n_tail, b->n_tails };
    b->n_tails += n_tail;
    return OK;
}

/* word ends with a beginning of text: the rest of the text, in tokens, is the tail. */
static status add_overlaps(struct dry_breakers *b, const struct tokenizer *t, int32_t id, const char *word, size_t n, const char *text, struct err *e)
{
    size_t len = strlen(text);
    for (size_t at = n >= len ? n - len + 1 : 0; at < n; at++) {
        size_t have = n - at;
        int32_t tail[4 * DRY_TEXT_MAX];
        int64_t n_tail;
        if (memcmp(word + at, text, have)) continue;
        TRY(tokenizer_encode(t, text + have, len - have, 0, tail, ARRAY_LEN(tail), &n_tail, e));
        TRY(add(b, id, tail, (int32_t)min_i64(n_tail, DRY_TAIL_MAX), e));
    }
    return OK;
}

static bool holds(const char *word, size_t n, const char *text)
{
    size_t len = strlen(text);
    return n >= len && memmem(word, n, text, len) != NULL;
}

static status resolve(struct dry_breakers *b, const struct tokenizer *t, const char *const *texts, int n, struct err *e)
{
    char *word = NULL;
    size_t cap = 0;
    status st = OK;
    for (int32_t id = 0; id < tokenizer_size(t) && st == OK; id++) {
        size_t len = tokenizer_decode(t, &id, 1, true, word, cap);
        if (len > cap) {
            char *p = mem_realloc(word, 2 * len);
            if (!p) st = err_oom(e, "sequence breakers", 2 * len);
            else word = p, cap = 2 * len, tokenizer_decode(t, &id, 1, true, word, cap);
        }
        for (int i = 0; i < n && st == OK && len > 0; i++)
            st = holds(word, len, texts[i]) ? add(b, id, NULL, 0, e) : add_overlaps(b, t, id, word, len, texts[i], e);
    }
    mem_free(word);
    return st;
}

status dry_breakers_open(struct dry_breakers **out, const struct tokenizer *t, const char *const *texts, int n, struct err *e)
{
    *out = NULL;
    if (n < 0 || n > DRY_BREAKERS_MAX) return err_set(e, ERR_USAGE, "%d sequence breakers, allowed are 0..%d", n, DRY_BREAKERS_MAX);
    for (int i = 0; i < n; i++) {
        size_t len = strlen(texts[i]);
        if (len == 0 || len > DRY_TEXT_MAX)
            return err_set(e, ERR_USAGE, "sequence breaker %d has %zu bytes, allowed are 1..%d", i + 1, len, DRY_TEXT_MAX);
    }
    struct dry_breakers *b = mem_calloc(1, sizeof *b);
    if (!b) return err_oom(e, "sequence breakers", sizeof *b);
    status st = n > 0 ? resolve(b, t, texts, n, e) : OK;
    if (st == OK) *out = b;
    else dry_breakers_close(b);
    return st;
}

void dry_breakers_close(struct dry_breakers *b)
{
    if (!b) return;
    mem_free(b->row), mem_free(b->tails);
    mem_free(b);
}

int64_t dry_breakers_of(const struct dry_breakers *b, int32_t head, int64_t *first)
{
    int64_t lo = 0, hi = b->n, n = 0;
    while (lo < hi) {
        int64_t mid = lo + (hi - lo) / 2;
        if (b->row[mid].head < head) lo = mid + 1;
        else hi = mid;
    }
    *first = lo;
    while (lo + n < b->n && b->row[lo + n].head == head) n++;
    return n;
}
