/* grammar - the matcher: a pushdown automaton that follows all ways at once and remembers what it has worked out.
 *   node   one open rule: the element to match next, how far it has come (a class: its state, a repetition: its count), and the node to go on with
 *          when its alternative ends. Equal nodes are one node, so that different ways share what they have in common. Node 0: the text may end.
 *   set    all nodes at which the text may go on. Equal sets are one set. next[byte] is filled in when it is first needed: from then on a step is a
 *          look-up, and repeated states (characters of a string) cost nothing.
 * Nodes, sets and their items live in fixed arrays. When one is full, everything that the path (the current set and those of the token being tried) does not
 * need is forgotten; if that does not help, the grammar is too deep or too ambiguous and an error says so. */
#include "src/grammar.h"
#include <stdlib.h>
#include <string.h>
#include "ggml-like/arena.h"
#include "src/grammar_int.h"

enum {
    NODES = 1 << 16, ITEMS = 1 << 18, SETS = 2048, TABLE = 1 << 16, SET_TABLE = 4096,
    SET_MAX = 1 << 14,       /* nodes in one set */
    WORK_MAX = 1 << 15,
    MASKS = 16,
    SET_DEAD = 1,            /* set 0 is not used: in next[] it means unknown */
    FULL = UINT32_MAX,       /* instead of a node or set: no room */
};

struct node { uint32_t elem, sub, parent, chain; };
struct set { uint32_t first, n, chain; uint64_t hash; bool ends, tokens; }; /* ends: holds node 0; tokens: holds token elements */
struct mask { uint32_t set; uint64_t *bits; };

struct matcher {
    const struct grammar *g;
    const struct token_trie *t;
    struct arena mem;
    struct node *node; uint32_t n_node, *node_table;
    struct set *set; uint32_t n_set, *set_table;
    uint32_t (*next)[256];
    uint32_t *item, n_item;
    uint32_t *seen, stamp;                /* [NODES] nodes met during a step */
    uint32_t *work, *made, n_made;        /* [WORK_MAX], [SET_MAX] */
    uint32_t *path, n_path;               /* [0] is the current set */
    struct mask mask[MASKS]; int mask_at;
    bool ended, failed, full;
};

/* ---- nodes ---- */

static uint32_t node_hash(uint32_t elem, uint32_t sub, uint32_t parent)
{
    uint64_t h = ((uint64_t)elem << 32 | sub) * 0x9E3779B97F4A7C15u ^ (uint64_t)parent * 0xC2B2AE3D27D4EB4Fu;
    return (uint32_t)(h >> 32 ^ h) & (TABLE - 1);
}

static uint32_t node_of(struct matcher *m, uint32_t elem, uint32_t sub, uint32_t parent)
{
    uint32_t *head = &m->node_table[node_hash(elem, sub, parent)];
    for (uint32_t i = *head; i; i = m->node[i].chain)
        if (m->node[i].elem == elem && m->node[i].sub == sub && m->node[i].parent == parent) return i;
    if (m->n_node == NODES) return m->full = true, FULL;
    m->node[m->n_node] = (struct node){ elem, sub, parent, *head };
    m->seen[m->n_node] = 0;
    return *head = m->n_node++;
}

/* Where an alternative goes on behind element `elem`: its own next element, or the parent's when that was the last. */
static uint32_t behind(struct matcher *m, uint32_t elem, uint32_t parent)
{
    return m->g->elem[elem + 1].kind == ELEM_END ? parent : node_of(m, elem + 1, 0, parent);
}

/* ---- closure ---- */

static void want(struct matcher *m, uint32_t node, uint32_t *n)
{
    if (node == FULL || m->full) return;
    if (m->seen[node] == m->stamp) return;
    m->seen[node] = m->stamp;
    if (*n == WORK_MAX) m->full = true;
    else m->work[(*n)++] = node;
}

static void want_alternatives(struct matcher *m, uint32_t rule, uint32_t then, uint32_t *n)
{
    const struct grammar *g = m->g;
    if (then == FULL) return;
    for (uint32_t a = g->rule[rule].alt; a; a = g->alt[a].next) {
        uint32_t elem = g->alt[a].elem;
        want(m, g->elem[elem].kind == ELEM_END ? then : node_of(m, elem, 0, then), n);
    }
}

static void keep(struct matcher *m, uint32_t node)
{
    if (m->n_made == SET_MAX) m->full = true;
    else m->made[m->n_made++] = node;
}

/* Adds all nodes at which something is matched that can be reached from `node` without matching anything. */
static void close_over(struct matcher *m, uint32_t node)
{
    uint32_t n = 0;
    want(m, node, &n);
    while (n > 0 && !m->full) {
        uint32_t at = m->work[--n];
        struct node x = m->node[at]; /* copied: node_of adds nodes */
        const struct elem *el = &m->g->elem[x.elem];
        if (at == 0 || (el->kind != ELEM_RULE && el->kind != ELEM_REPEAT)) {
            keep(m, at);
        } else if (el->kind == ELEM_RULE) {
            want_alternatives(m, el->a, behind(m, x.elem, x.parent), &n);
        } else {
            uint32_t count = x.sub;
            if (count >= el->min) want(m, behind(m, x.elem, x.parent), &n);
            if (el->max != REPEAT_NO_MAX && count >= el->max) continue;
            if (el->max != REPEAT_NO_MAX || count < el->min) count++; /* without an upper bound, counting ends at the lower one */
            /* behind the last time nothing is left of the repetition: otherwise chains of spent ones would make equal ways different */
            bool last = el->max != REPEAT_NO_MAX && count >= el->max;
            want_alternatives(m, el->a, last ? behind(m, x.elem, x.parent) : node_of(m, x.elem, count, x.parent), &n);
        }
    }
}

/* ---- sets ---- */

static void begin_set(struct matcher *m)
{
    m->n_made = 0;
    if (++m->stamp == 0) memset(m->seen, 0, NODES * sizeof *m->seen), m->stamp = 1;
}

static uint64_t set_hash(const uint32_t *item, uint32_t n)
{
    uint64_t h = n;
    for (uint32_t i = 0; i < n; i++) h = (h ^ item[i]) * 0x9E3779B97F4A7C15u, h ^= h >> 29;
    return h;
}

static int by_number(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static void sort_made(struct matcher *m)
{
    if (m->n_made > 64) {
        qsort(m->made, m->n_made, sizeof *m->made, by_number); /* SET_MAX items at most */
        return;
    }
    for (uint32_t i = 1; i < m->n_made; i++) {
        uint32_t x = m->made[i], j = i;
        for (; j > 0 && m->made[j - 1] > x; j--) m->made[j] = m->made[j - 1];
        m->made[j] = x;
    }
}

/* A new set of the items item[first .. first + n). */
static uint32_t add_set(struct matcher *m, uint32_t first, uint32_t n, uint64_t hash)
{
    uint32_t *head = &m->set_table[hash & (SET_TABLE - 1)];
    struct set *s = &m->set[m->n_set];
    *s = (struct set){ .first = first, .n = n, .chain = *head, .hash = hash, .ends = n > 0 && m->item[first] == 0 };
    for (uint32_t i = 0; i < n; i++) {
        uint8_t kind = m->item[first + i] ? m->g->elem[m->node[m->item[first + i]].elem].kind : ELEM_END;
        if (kind == ELEM_TOKEN || kind == ELEM_TOKEN_NOT) s->tokens = true;
    }
    memset(m->next[m->n_set], 0, sizeof *m->next);
    return *head = m->n_set++;
}

/* The set of made[0..n_made). */
static uint32_t end_set(struct matcher *m)
{
    if (m->full) return FULL;
    if (m->n_made == 0) return SET_DEAD;
    sort_made(m);
    uint64_t hash = set_hash(m->made, m->n_made);
    for (uint32_t i = m->set_table[hash & (SET_TABLE - 1)]; i; i = m->set[i].chain)
        if (m->set[i].hash == hash && m->set[i].n == m->n_made && !memcmp(m->item + m->set[i].first, m->made, m->n_made * sizeof *m->made)) return i;
    if (m->n_set == SETS || m->n_item + m->n_made > ITEMS) return m->full = true, FULL;
    uint32_t first = m->n_item;
    memcpy(m->item + first, m->made, m->n_made * sizeof *m->made);
    m->n_item += m->n_made;
    return add_set(m, first, m->n_made, hash);
}

static void forget_all(struct matcher *m)
{
    memset(m->node_table, 0, TABLE * sizeof *m->node_table);
    memset(m->set_table, 0, SET_TABLE * sizeof *m->set_table);
    for (int i = 0; i < MASKS; i++) m->mask[i].set = 0;
    m->n_node = 1, m->n_set = 2, m->n_item = 0;
    m->node[0] = (struct node){ 0 };
    m->set[SET_DEAD] = (struct set){ 0 };
    for (int b = 0; b < 256; b++) m->next[SET_DEAD][b] = SET_DEAD;
    m->full = false;
}

/* Keeps what the sets of the path need, in the same order (a parent is older than its children, and items stay sorted); seen[] maps old to new numbers. */
static void compact(struct matcher *m)
{
    uint32_t n_node = m->n_node, n_set = m->n_set, *map = m->seen;
    memset(map, 0, NODES * sizeof *map);
    for (uint32_t d = 0; d < m->n_path; d++) {
        const struct set *s = &m->set[m->path[d]];
        for (uint32_t i = 0; i < s->n; i++) map[m->item[s->first + i]] = 1;
    }
    for (uint32_t i = n_node; i-- > 1;)
        if (map[i]) map[m->node[i].parent] = 1;
    memset(m->work, 0, SETS * sizeof *m->work); /* work: is the set on the path, then its new number */
    for (uint32_t d = 0; d < m->n_path; d++) m->work[m->path[d]] = 1;
    forget_all(m);
    map[0] = 0;
    for (uint32_t i = 1; i < n_node; i++) {
        if (!map[i]) continue;
        struct node x = m->node[i];
        uint32_t *head = &m->node_table[node_hash(x.elem, x.sub, map[x.parent])];
        m->node[m->n_node] = (struct node){ x.elem, x.sub, map[x.parent], *head };
        map[i] = *head = m->n_node++;
    }
    for (uint32_t i = 2; i < n_set; i++) {
        if (!m->work[i]) continue;
        struct set s = m->set[i];
        uint32_t first = m->n_item;
        for (uint32_t j = 0; j < s.n; j++) m->item[m->n_item++] = map[m->item[s.first + j]];
        m->work[i] = add_set(m, first, s.n, set_hash(m->item + first, s.n));
    }
    m->work[SET_DEAD] = SET_DEAD;
    for (uint32_t d = 0; d < m->n_path; d++) m->path[d] = m->work[m->path[d]];
    memset(m->seen, 0, NODES * sizeof *m->seen);
    m->stamp = 0;
}

/* ---- steps ---- */

static uint32_t step_by(struct matcher *m, uint32_t from, uint8_t byte)
{
    begin_set(m);
    for (uint32_t i = 0; i < m->set[from].n && !m->full; i++) {
        uint32_t at = m->item[m->set[from].first + i];
        struct node x = m->node[at];
        const struct elem *el = &m->g->elem[x.elem];
        if (at == 0) continue;
        if (el->kind == ELEM_BYTE && el->a == byte) close_over(m, behind(m, x.elem, x.parent));
        if (el->kind != ELEM_CLASS) continue;
        uint32_t to = m->g->state[x.sub ? x.sub : el->a].next[byte];
        if (to == CLASS_DONE) close_over(m, behind(m, x.elem, x.parent));
        else if (to != CLASS_DEAD) close_over(m, node_of(m, x.elem, to, x.parent));
    }
    return end_set(m);
}

static status too_much(struct matcher *m, struct err *e)
{
    m->failed = true;
    return err_set(e, ERR_RUNTIME, "the grammar cannot be followed further: too many open rules (at most %d) or ways to go on (at most %d)", NODES, SET_MAX);
}

/* path[d + 1] = what follows path[d] by the byte. */
static status step(struct matcher *m, uint32_t d, uint8_t byte, struct err *e)
{
    uint32_t *known = &m->next[m->path[d]][byte];
    if (*known) return m->path[d + 1] = *known, OK;
    for (int attempt = 0; attempt < 2; attempt++) {
        uint32_t to = step_by(m, m->path[d], byte);
        if (to != FULL) {
            m->next[m->path[d]][byte] = m->path[d + 1] = to;
            return OK;
        }
        m->n_path = d + 1;
        compact(m);
    }
    return too_much(m, e);
}

static status start(struct matcher *m, struct err *e)
{
    uint32_t n = 0;
    forget_all(m);
    m->n_path = 1;
    m->ended = m->failed = false;
    begin_set(m);
    /* the root's alternatives with nothing behind them, closed over one by one */
    for (uint32_t a = m->g->rule[m->g->root].alt; a; a = m->g->alt[a].next, n++) {
        uint32_t elem = m->g->alt[a].elem;
        close_over(m, m->g->elem[elem].kind == ELEM_END ? 0 : node_of(m, elem, 0, 0));
    }
    uint32_t set = end_set(m);
    if (set == FULL) return too_much(m, e);
    m->path[0] = set;
    return OK;
}

/* ---- tokens ---- */

static bool token_fits(const struct matcher *m, uint32_t node, int32_t id)
{
    if (node == 0) return false;
    const struct elem *el = &m->g->elem[m->node[node].elem];
    return (el->kind == ELEM_TOKEN && el->a == (uint32_t)id) || (el->kind == ELEM_TOKEN_NOT && el->a != (uint32_t)id);
}

static bool any_token_fits(const struct matcher *m, int32_t id)
{
    const struct set *s = &m->set[m->path[0]];
    if (!s->tokens) return false;
    for (uint32_t i = 0; i < s->n; i++)
        if (token_fits(m, m->item[s->first + i], id)) return true;
    return false;
}

/* path[n] = the set behind the bytes; SET_DEAD as soon as one does not fit. */
static status walk(struct matcher *m, const char *p, size_t n, uint32_t *to, struct err *e)
{
    uint32_t d = 0;
    *to = SET_DEAD;
    for (size_t i = 0; i < n; i++) {
        if (d == TOKEN_BYTES_MAX) { /* long texts: the path only needs its ends */
            m->path[1] = m->path[d];
            d = 1;
        }
        TRY(step(m, d, (uint8_t)p[i], e));
        if (m->path[++d] == SET_DEAD) return OK;
    }
    *to = m->path[d];
    return OK;
}

static status walk_token(struct matcher *m, int32_t id, uint32_t *to, struct err *e)
{
    const struct token_trie *t = m->t;
    *to = SET_DEAD;
    if (t->at[id + 1] == t->at[id]) return OK;
    return walk(m, t->text + t->at[id], t->at[id + 1] - t->at[id], to, e);
}

static status ready(const struct matcher *m, struct err *e)
{
    return m->failed ? err_set(e, ERR_RUNTIME, "the text does not fit the grammar any more") : OK;
}

status matcher_allows(struct matcher *m, int32_t id, bool *yes, struct err *e)
{
    uint32_t to;
    *yes = false;
    TRY(ready(m, e));
    if (id < 0 || id >= m->t->n_vocab) return OK;
    if (m->t->is_end[id]) return *yes = matcher_can_end(m), OK;
    if (m->ended) return OK;
    if (any_token_fits(m, id)) return *yes = true, OK;
    TRY(walk_token(m, id, &to, e));
    *yes = to != SET_DEAD;
    return OK;
}

/* The set behind the token where token elements stand in the current set: union of the bytes' set and what follows those elements. */
static status accept_union(struct matcher *m, int32_t id, uint32_t bytes_to, struct err *e)
{
    for (int attempt = 0; attempt < 2; attempt++) {
        m->path[1] = bytes_to;
        m->n_path = 2;
        if (attempt) compact(m);
        begin_set(m);
        const struct set *from = &m->set[m->path[0]], *more = &m->set[m->path[1]];
        for (uint32_t i = 0; i < more->n; i++) close_over(m, m->item[more->first + i]);
        for (uint32_t i = 0; i < from->n; i++) {
            uint32_t at = m->item[from->first + i];
            if (token_fits(m, at, id)) close_over(m, behind(m, m->node[at].elem, m->node[at].parent));
        }
        uint32_t to = end_set(m);
        if (to != FULL) return m->path[0] = to, m->n_path = 1, OK;
        bytes_to = m->path[1];
    }
    return too_much(m, e);
}

status matcher_accept(struct matcher *m, int32_t id, struct err *e)
{
    bool yes;
    uint32_t to;
    TRY(matcher_allows(m, id, &yes, e));
    if (!yes) {
        m->failed = true;
        return err_set(e, ERR_RUNTIME, "token %d does not fit the grammar here", id);
    }
    if (m->t->is_end[id]) return m->ended = true, OK;
    TRY(walk_token(m, id, &to, e));
    if (m->set[m->path[0]].tokens) return accept_union(m, id, to, e);
    m->path[0] = to;
    m->n_path = 1;
    return OK;
}

status matcher_text(struct matcher *m, const char *text, size_t n, bool *yes, struct err *e)
{
    uint32_t to = m->path[0];
    *yes = false;
    TRY(ready(m, e));
    if (m->ended) return *yes = n == 0, OK;
    if (n > 0) TRY(walk(m, text, n, &to, e));
    *yes = to != SET_DEAD;
    if (*yes) m->path[0] = to, m->n_path = 1;
    return OK;
}

bool matcher_can_end(const struct matcher *m) { return m->ended || m->set[m->path[0]].ends; }
bool matcher_must_end(const struct matcher *m) { return m->ended || (m->set[m->path[0]].ends && m->set[m->path[0]].n == 1); }

/* ---- masks ---- */

static void mark_tokens(const struct matcher *m, uint64_t *bits)
{
    const struct set *s = &m->set[m->path[0]];
    for (uint32_t i = 0; i < s->n && s->tokens; i++) {
        uint32_t node = m->item[s->first + i];
        if (node == 0) continue;
        const struct elem *el = &m->g->elem[m->node[node].elem];
        if (el->kind == ELEM_TOKEN && el->a < (uint64_t)m->t->n_vocab) bits[el->a >> 6] |= (uint64_t)1 << (el->a & 63);
        if (el->kind != ELEM_TOKEN_NOT) continue;
        for (int64_t id = 0; id < m->t->n_vocab; id++)
            if ((uint32_t)id != el->a) bits[id >> 6] |= (uint64_t)1 << (id & 63);
    }
}

static status mark_bytes(struct matcher *m, uint64_t *bits, struct err *e)
{
    const struct token_trie *t = m->t;
    for (int64_t i = 0; i < t->n;) {
        uint32_t d = t->depth[i];
        m->n_path = d;
        TRY(step(m, d - 1, t->byte[i], e));
        if (m->path[d] == SET_DEAD) {
            i = t->skip[i];
            continue;
        }
        for (int32_t id = t->token[i]; id >= 0; id = t->same[id]) bits[id >> 6] |= (uint64_t)1 << (id & 63);
        i++;
    }
    m->n_path = 1;
    return OK;
}

status matcher_mask(struct matcher *m, const uint64_t **out, struct err *e)
{
    TRY(ready(m, e));
    int64_t words = (m->t->n_vocab + 63) / 64;
    if (!m->ended)
        for (int i = 0; i < MASKS; i++)
            if (m->mask[i].set == m->path[0]) return *out = m->mask[i].bits, OK;
    struct mask *k = &m->mask[m->mask_at];
    m->mask_at = (m->mask_at + 1) % MASKS;
    k->set = 0;
    memset(k->bits, 0, (size_t)words * sizeof *k->bits);
    if (!m->ended) {
        mark_tokens(m, k->bits);
        TRY(mark_bytes(m, k->bits, e));
        k->set = m->path[0]; /* after the walk: it may have renumbered the sets */
    }
    for (int64_t i = 0; i < words; i++) {
        k->bits[i] &= ~m->t->end_bits[i];
        if (matcher_can_end(m)) k->bits[i] |= m->t->end_bits[i];
    }
    *out = k->bits;
    return OK;
}

/* ---- memory ---- */

static bool allocate(struct matcher *m)
{
    struct arena *a = &m->mem;
    size_t words = (size_t)(m->t->n_vocab + 63) / 64 + 1;
    m->node = arena_zalloc(a, NODES, sizeof *m->node);
    m->node_table = arena_zalloc(a, TABLE, sizeof *m->node_table);
    m->set = arena_zalloc(a, SETS, sizeof *m->set);
    m->set_table = arena_zalloc(a, SET_TABLE, sizeof *m->set_table);
    m->next = arena_zalloc(a, SETS, sizeof *m->next);
    m->item = arena_zalloc(a, ITEMS, sizeof *m->item);
    m->seen = arena_zalloc(a, NODES, sizeof *m->seen);
    m->work = arena_zalloc(a, WORK_MAX, sizeof *m->work);
    m->made = arena_zalloc(a, SET_MAX, sizeof *m->made);
    m->path = arena_zalloc(a, TOKEN_BYTES_MAX + 2, sizeof *m->path);
    bool ok = m->node && m->node_table && m->set && m->set_table && m->next && m->item && m->seen && m->work && m->made && m->path;
    for (int i = 0; i < MASKS && ok; i++) ok = (m->mask[i].bits = arena_zalloc(a, words, sizeof *m->mask[i].bits)) != NULL;
    return ok;
}

status matcher_open(struct matcher **out, const struct grammar *g, const struct token_trie *t, struct err *e)
{
    *out = NULL;
    struct matcher *m = mem_calloc(1, sizeof *m);
    if (!m) return err_oom(e, "grammar state", sizeof *m);
    m->g = g, m->t = t;
    arena_init(&m->mem, 0);
    status st = allocate(m) ? OK : err_oom(e, "grammar state", m->mem.total);
    if (st == OK) st = start(m, e);
    if (st == OK) *out = m;
    else matcher_close(m);
    return st;
}

void matcher_close(struct matcher *m)
{
    if (!m) return;
    arena_free(&m->mem);
    mem_free(m);
}

int64_t matcher_vocab(const struct matcher *m) { return m->t->n_vocab; }

void matcher_reset(struct matcher *m)
{
    if (start(m, NULL) != OK) m->failed = true; /* it worked in matcher_open */
}

void matcher_copy(struct matcher *m, const struct matcher *from)
{
    forget_all(m);
    memcpy(m->node, from->node, from->n_node * sizeof *m->node);
    memcpy(m->set, from->set, from->n_set * sizeof *m->set);
    memcpy(m->item, from->item, from->n_item * sizeof *m->item);
    m->n_node = from->n_node, m->n_set = from->n_set, m->n_item = from->n_item;
    m->path[0] = from->path[0], m->n_path = 1;
    m->ended = from->ended, m->failed = from->failed;
    compact(m);
}
