/* grammar_class - sets of code points and their automata over UTF-8 bytes. A state stands for "k more bytes, the bits so far are v": its characters are the
 * range [v << 6k, (v + 1) << 6k). Ranges wholly inside or outside the set need no states of their own, so a class costs a few states per border. */
#include <stdlib.h>
#include <string.h>
#include "src/grammar_int.h"

enum { SURROGATE_LO = 0xD800, SURROGATE_HI = 0xDFFF, CODE_MAX = 0x10FFFF };

static int by_start(const void *a, const void *b)
{
    const struct range *x = a, *y = b;
    return x->lo < y->lo ? -1 : x->lo > y->lo;
}

static int64_t merge(struct range *r, int64_t n)
{
    int64_t m = 0;
    for (int64_t i = 0; i < n; i++) {
        if (m > 0 && r[i].lo <= r[m - 1].hi + 1) {
            if (r[i].hi > r[m - 1].hi) r[m - 1].hi = r[i].hi;
        } else {
            r[m++] = r[i];
        }
    }
    return m;
}

int64_t class_normalise(struct range *r, int64_t n, bool not)
{
    qsort(r, (size_t)n, sizeof *r, by_start);
    n = merge(r, n);
    if (!not) return n;
    uint32_t from = 0;
    int64_t m = 0;
    for (int64_t i = 0; i < n; i++) {
        struct range here = r[i];
        if (here.lo > from) r[m++] = (struct range){ from, here.lo - 1 };
        from = here.hi + 1;
    }
    if (from <= CODE_MAX) r[m++] = (struct range){ from, CODE_MAX };
    return m;
}

enum cover { NONE, SOME, ALL };

/* How much of [lo, hi] is in the set. */
static enum cover covered(const struct range *r, int64_t n, uint32_t lo, uint32_t hi)
{
    int64_t a = 0, b = n;
    while (a < b) { /* the first range that ends at lo or later */
        int64_t mid = a + (b - a) / 2;
        if (r[mid].hi < lo) a = mid + 1;
        else b = mid;
    }
    if (a == n || r[a].lo > hi) return NONE;
    return r[a].lo <= lo && r[a].hi >= hi ? ALL : SOME;
}

struct builder {
    struct grammar *g;
    const struct range *r;
    int64_t n;
    uint32_t any[3];   /* states that take one, two or three arbitrary continuation bytes, 0 = not made yet */
    struct err *e;
};

static status new_state(struct builder *b, uint32_t *out)
{
    struct grammar *g = b->g;
    if (g->n_state >= CLASS_STATES_MAX) return err_set(b->e, ERR_USAGE, "the character classes need more than %d states", CLASS_STATES_MAX);
    TRY(grammar_room(&g->state, g->n_state + 1, &g->state_cap, sizeof *g->state, b->e));
    memset(&g->state[g->n_state], 0, sizeof *g->state);
    *out = g->n_state++;
    return OK;
}

/* The state that takes k arbitrary continuation bytes. */
static status any_state(struct builder *b, int k, uint32_t *out)
{
    if (k == 0) return *out = CLASS_DONE, OK;
    for (int i = 0; i < k; i++) {
        if (b->any[i]) continue;
        TRY(new_state(b, &b->any[i]));
        for (int byte = 0x80; byte < 0xC0; byte++) b->g->state[b->any[i]].next[byte] = (uint16_t)(i == 0 ? CLASS_DONE : b->any[i - 1]);
    }
    *out = b->any[k - 1];
    return OK;
}

/* What follows a byte after which k more come and the bits so far are v. Depth <= 3. least: the first code point of this length. */
static status after_byte(struct builder *b, uint32_t v, int k, uint32_t least, uint32_t *out)
{
    uint32_t lo = v << 6 * k, hi = lo | ((1u << 6 * k) - 1);
    *out = CLASS_DEAD;
    if (hi < least || lo > CODE_MAX || (lo >= SURROGATE_LO && hi <= SURROGATE_HI)) return OK;
    bool whole = lo >= least && hi <= CODE_MAX && (hi < SURROGATE_LO || lo > SURROGATE_HI);
    enum cover c = covered(b->r, b->n, lo, hi);
    if (c == NONE) return OK;
    if (c == ALL && whole) return any_state(b, k, out);
    uint32_t state, next, live = 0;
    TRY(new_state(b, &state));
    for (uint32_t bits = 0; bits < 64; bits++) {
        TRY(after_byte(b, v << 6 | bits, k - 1, least, &next));
        b->g->state[state].next[0x80 | bits] = (uint16_t)next;
        live += next != CLASS_DEAD;
    }
    if (live > 0) *out = state;
    else b->g->n_state--; /* only code points of another length or surrogates: nothing was made below it either */
    return OK;
}

status class_compile(struct grammar *g, const struct range *r, int64_t n, uint32_t *first, struct err *e)
{
    static const struct { uint32_t lo, hi, mask, least; int k; } leads[] = {
        { 0x00, 0x7F, 0x7F, 0, 0 }, { 0xC2, 0xDF, 0x1F, 0x80, 1 }, { 0xE0, 0xEF, 0x0F, 0x800, 2 }, { 0xF0, 0xF4, 0x07, 0x10000, 3 },
    };
    struct builder b = { .g = g, .r = r, .n = n, .e = e };
    uint32_t next;
    TRY(new_state(&b, first));
    for (int i = 0; i < ARRAY_LEN(leads); i++)
        for (uint32_t byte = leads[i].lo; byte <= leads[i].hi; byte++) {
            TRY(after_byte(&b, byte & leads[i].mask, leads[i].k, leads[i].least, &next));
            g->state[*first].next[byte] = (uint16_t)next;
        }
    return OK;
}
