/* train_mask - see train_mask.h. */
#include "tools/train_mask.h"
#include <ctype.h>
#include <string.h>

status train_mask_open(struct train_mask *m, struct prompt *p, struct err *e)
{
    *m = (struct train_mask){ .p = p, .piece_cap = tokenizer_piece_max(p->tok) + 8 };
    int64_t size = tokenizer_size(p->tok), n = 0;
    for (int32_t id = 0; id < size; id++) n += tokenizer_is_end(p->tok, id) && tokenizer_text(p->tok, id).n > 0;
    m->end = mem_calloc((size_t)n + 1, sizeof *m->end);
    m->piece = mem_alloc(m->piece_cap);
    if (!m->end || !m->piece) return train_mask_close(m), err_oom(e, "end tokens", m->piece_cap);
    for (int32_t id = 0; id < size; id++)
        if (tokenizer_is_end(p->tok, id) && tokenizer_text(p->tok, id).n > 0) m->end[m->n_end++] = tokenizer_text(p->tok, id);
    return OK;
}

void train_mask_close(struct train_mask *m)
{
    mem_free(m->end), mem_free(m->turn), mem_free(m->piece);
    *m = (struct train_mask){ 0 };
}

static status add_turn(struct train_mask *m, struct turn turn, struct err *e)
{
    if (m->n_turn == m->cap) {
        int64_t cap = m->cap ? 2 * m->cap : 16;
        struct turn *t = mem_realloc(m->turn, (size_t)cap * sizeof *t);
        if (!t) return err_oom(e, "turns", (size_t)cap * sizeof *t);
        m->turn = t, m->cap = cap;
    }
    m->turn[m->n_turn++] = turn;
    return OK;
}

/* ---- end tokens in a text ---- */

/* The end token's text that stands at p, its length; 0: none. */
static size_t end_at(const struct train_mask *m, const char *p, size_t n)
{
    size_t best = 0;
    for (int i = 0; i < m->n_end; i++)
        if (m->end[i].n <= n && m->end[i].n > best && !memcmp(p, m->end[i].p, m->end[i].n)) best = m->end[i].n;
    return best;
}

/* Behind the first (last: the last) end token that begins in text[from..to); 0: none. */
static size_t find_end(const struct train_mask *m, const char *text, size_t n, size_t from, size_t to, bool last)
{
    size_t found = 0;
    for (size_t i = from; i < to; i++) {
        size_t len = end_at(m, text + i, n - i);
        if (len == 0) continue;
        found = i + len;
        if (!last) break;
        i += len - 1;
    }
    return found;
}

static bool blank(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!isspace((unsigned char)p[i])) return false;
    return true;
}

/* ---- turns by generation blocks ---- */

static bool is_answer(struct chat_message m) { return !strcmp(m.role, "assistant"); }

static int64_t count_answers(const struct chat *c)
{
    int64_t n = 0;
    for (int64_t i = 0; i < chat_count(c); i++) n += is_answer(chat_at(c, i));
    return n;
}

static int64_t next_answer(const struct chat *c, int64_t i)
{
    while (i < chat_count(c) && !is_answer(chat_at(c, i))) i++;
    return i;
}

/* marked: the rendering with bytes around blocks. They are taken out on the way; the rest must be the text. */
static status read_blocks(struct train_mask *m, const struct chat *c, const char *marked, size_t marked_n, const char *text, size_t n, bool *done,
                    struct err *e)
{
    size_t at = 0, from = 0;
    int depth = 0;
    int64_t message = -1;
    bool good = true;
    for (size_t i = 0; i < marked_n && good; i++) {
        char b = marked[i];
        if (b == TEMPLATE_OPEN && depth++ == 0) from = at;
        if (b == TEMPLATE_CLOSE && --depth == 0) {
            size_t end = find_end(m, text, at, from, at, true); /* ends there: the last thing in the block */
            message = next_answer(c, message + 1);
            TRY(add_turn(m, (struct turn){ from, at, message, end > 0 && blank(text + end, at - end) }, e));
        }
        if (depth < 0) good = false;
        if (b == TEMPLATE_OPEN || b == TEMPLATE_CLOSE) continue;
        good = good && at < n && text[at] == b;
        at++;
    }
    *done = good && depth == 0 && at == n && m->n_turn > 0 && m->n_turn == count_answers(c);
    return OK;
}

static status turns_by_blocks(struct train_mask *m, const struct chat *c, const char *text, size_t n, bool *done, struct err *e)
{
    struct err why = { 0 };
    char *marked = NULL;
    size_t marked_n;
    *done = false;
    status st = chat_render_part(c, chat_count(c), CHAT_BLOCKS, m->p->extra, m->p->now, &marked, &marked_n, &why);
    if (st == ERR_MEMORY) return err_set(e, st, "%s", why.text);
    if (st == OK && memchr(marked, TEMPLATE_OPEN, marked_n)) st = read_blocks(m, c, marked, marked_n, text, n, done, e);
    else st = OK;
    mem_free(marked);
    if (!*done) m->n_turn = 0;
    return st;
}

/* ---- turns by prefixes ---- */

/* The length of the rendering of the first k messages when text begins with it, else -1. *common: how far both are the same. */
static status prefix_length(const struct train_mask *m, const struct chat *c, int64_t k, unsigned flags, const char *text, size_t n, int64_t *len,
                            size_t *common, struct err *e)
{
    struct err why = { 0 };
    char *part = NULL;
    size_t part_n = 0, same = 0;
    status st = chat_render_part(c, k, flags, m->p->extra, m->p->now, &part, &part_n, &why);
    while (st == OK && same < part_n && same < n && part[same] == text[same]) same++;
    *len = st == OK && same == part_n ? (int64_t)part_n : -1;
    *common = same;
    mem_free(part);
    return st == ERR_MEMORY ? err_set(e, st, "%s", why.text) : OK; /* a refusal only means that there is no such prefix */
}

static bool find_text(const char *p, size_t len, const char *text, size_t n, size_t at, size_t *from, size_t *to)
{
    while (len > 0 && isspace((unsigned char)*p)) p++, len--;
    while (len > 0 && isspace((unsigned char)p[len - 1])) len--;
    const char *hit = len > 0 && at <= n ? memmem(text + at, n - at, p, len) : NULL;
    if (!hit) return false;
    *from = (size_t)(hit - text), *to = *from + len;
    return true;
}

/* The message's text without white space at its ends, looked for from `at` on; or what follows its thoughts, which many templates leave out. */
static bool find_message(struct chat_message msg, const char *text, size_t n, size_t at, size_t *from, size_t *to)
{
    static const char thought[] = "</think>";
    if (find_text(msg.text, msg.n, text, n, at, from, to)) return true;
    const char *p = msg.text, *end = msg.text + msg.n, *behind = NULL;
    while ((p = memmem(p, (size_t)(end - p), thought, sizeof thought - 1))) behind = p += sizeof thought - 1;
    return behind && find_text(behind, (size_t)(end - behind), text, n, at, from, to);
}

/* Where the next message with a text stands, from `at` on; n: there is none. */
static size_t next_message(const struct chat *c, int64_t k, const char *text, size_t n, size_t at)
{
    size_t from, to;
    while (++k < chat_count(c))
        if (find_message(chat_at(c, k), text, n, at, &from, &to)) return from;
    return n;
}

/* Behind the end of the turn whose text ends at `to`, or `to` itself; *ends: there is an end token. closed: the length of the rendering that ends with it. */
static size_t turn_end(const struct train_mask *m, const struct chat *c, int64_t k, const char *text, size_t n, size_t from, size_t to,
                    int64_t closed, bool *ends)
{
    size_t end, stop = closed >= (int64_t)to ? (size_t)closed : next_message(c, k, text, n, to);
    if (closed < (int64_t)to) {
        end = find_end(m, text, n, to, stop, false);
        *ends = end > 0;
        return end ? end : to;
    }
    end = find_end(m, text, n, from, stop, true);
    if (end == 0 && end_at(m, text + stop, n - stop) > 0) end = stop + end_at(m, text + stop, n - stop); /* the next turn's opening ends this one */
    while (stop > to && isspace((unsigned char)text[stop - 1])) stop--;
    *ends = end > 0;
    return end ? end : stop;
}

static status find_turn(struct train_mask *m, const struct chat *c, int64_t k, const char *text, size_t n, size_t at, struct turn *turn, struct err *e)
{
    int64_t open, closed = (int64_t)n;
    size_t from, to, same, ignored;
    TRY(prefix_length(m, c, k, CHAT_OPEN, text, n, &open, &same, e));
    if (k + 1 < chat_count(c)) TRY(prefix_length(m, c, k + 1, 0, text, n, &closed, &ignored, e));
    if (open < (int64_t)at) open = -1;
    if (same < at) same = at;
    bool found = find_message(chat_at(c, k), text, n, same, &from, &to);
    if (!found && open < 0) found = find_message(chat_at(c, k), text, n, at, &from, &to);
    if (open < 0 && !found)
        return err_set(e, ERR_FORMAT, "messages[%lld]: this turn is not in the text that the template makes of the conversation", (long long)k);
    if (open >= 0) from = (size_t)open;
    if (!found) to = from;
    *turn = (struct turn){ .from = from, .message = k };
    turn->to = turn_end(m, c, k, text, n, from, to, closed, &turn->ends);
    return OK;
}

static status turns_by_prefixes(struct train_mask *m, const struct chat *c, const char *text, size_t n, struct err *e)
{
    size_t at = 0;
    for (int64_t k = next_answer(c, 0); k < chat_count(c); k = next_answer(c, k + 1)) {
        struct turn turn;
        TRY(find_turn(m, c, k, text, n, at, &turn, e));
        TRY(add_turn(m, turn, e));
        at = turn.to;
    }
    return OK;
}

static status find_turns(struct train_mask *m, const struct chat *c, const char *text, size_t n, struct err *e)
{
    bool done;
    m->n_turn = 0;
    TRY(turns_by_blocks(m, c, text, n, &done, e));
    return done ? OK : turns_by_prefixes(m, c, text, n, e);
}

/* ---- turns of a shape, and where they stand in this text ---- */

static status shape_turns(struct train_mask *m, struct shape *s, struct err *e)
{
    TRY(prompt_mark(m->p, e));
    TRY(find_turns(m, m->p->marked, s->text, s->n, e));
    size_t bytes = (size_t)m->n_turn * sizeof *s->turn;
    struct turn *copy = mem_alloc(bytes);
    if (!copy) return err_oom(e, "turns", bytes);
    if (bytes) memcpy(copy, m->turn, bytes);
    mem_free(s->turn);
    s->turn = copy, s->n_turn = m->n_turn, s->has_turns = true;
    return OK;
}

/* Offsets of the marked text to offsets of the text: what stands between is longer or shorter by the messages before. */
struct shift { const struct prompt *p; int i; int64_t by; };

static size_t shifted(struct shift *s, size_t at)
{
    for (; s->i < s->p->n_span; s->i++) {
        const struct span *x = &s->p->span[s->i];
        if (x->mark + x->mark_n > at) break;
        s->by += (int64_t)(x->to - x->from) - (int64_t)x->mark_n;
    }
    return (size_t)((int64_t)at + s->by);
}

status train_mask_turns(struct train_mask *m, struct err *e)
{
    struct prompt *p = m->p;
    struct shape *s = p->current;
    if (!p->spans_known) return find_turns(m, p->chat, p->text, p->n_text, e);
    if (!s->has_turns) TRY(shape_turns(m, s, e));
    m->n_turn = 0;
    struct shift shift = { .p = p };
    for (int64_t i = 0; i < s->n_turn; i++) {
        struct turn t = s->turn[i];
        t.from = shifted(&shift, t.from);
        t.to = shifted(&shift, t.to);
        TRY(add_turn(m, t, e));
    }
    return OK;
}

status train_mask_text(struct train_mask *m, size_t from, struct err *e)
{
    m->n_turn = 0;
    return add_turn(m, (struct turn){ from, m->p->n_text, 0, false }, e);
}

/* ---- tokens ---- */

static bool is_on(const struct turn *t, int64_t first, const bool *on) { return t->message >= first && (!on || on[t->message]); }

/* Walks tokens and text side by side. False when a token does not spell what stands there. Tokens that stand for nothing in the text (BOS, the space that
 * some tokenizers put before a text) belong to where they stand. */
static bool lay_tokens(const struct train_mask *m, int64_t first, const bool *on, float *weight)
{
    const struct prompt *p = m->p;
    size_t at = 0;
    int64_t t = 0;
    for (int64_t i = 0; i < p->n_ids; i++) {
        size_t n = tokenizer_piece(p->tok, p->ids[i], true, m->piece, m->piece_cap), rest = p->n_text - at;
        if (n > m->piece_cap) return false;
        bool same = n <= rest && !memcmp(m->piece, p->text + at, n);
        bool spaced = !same && n > 0 && m->piece[0] == ' ' && n - 1 <= rest && !memcmp(m->piece + 1, p->text + at, n - 1);
        bool bos = !same && i == 0 && p->ids[0] == tokenizer_bos(p->tok);
        if (!same && !spaced && !bos) return false;
        size_t to = at + (bos ? 0 : n - spaced);
        while (t < m->n_turn && m->turn[t].to <= at) t++;
        bool inside = t < m->n_turn && (to > at ? to > m->turn[t].from : at >= m->turn[t].from);
        weight[i] = i > 0 && inside && is_on(&m->turn[t], first, on);
        at = to;
    }
    return at == p->n_text;
}

/* How many ids text[..n) and the whole text have in common at the front. */
static status common_ids(const struct train_mask *m, size_t n, int64_t skip, bool *whole, int64_t *common, struct err *e)
{
    const struct prompt *p = m->p;
    int32_t *ids = NULL;
    int64_t n_ids = 0, cap = 0, i = 0;
    status st = encode_text(p->tok, p->text, n, ENCODE_SPECIAL, &ids, &n_ids, &cap, e);
    while (st == OK && i < n_ids && skip + i < p->n_ids && ids[i] == p->ids[skip + i]) i++;
    *whole = i == n_ids;
    *common = skip + i;
    mem_free(ids);
    return st;
}

/* For tokenizers that change the text: the ids of the text up to a turn and those of the whole text part where the turn begins. */
static status compare_prefixes(const struct train_mask *m, int64_t first, const bool *on, float *weight, struct err *e)
{
    const struct prompt *p = m->p;
    int64_t from, to, skip = 0;
    bool whole;
    for (; skip < 2; skip++) { /* BOS may have been put in front */
        TRY(common_ids(m, p->n_text, skip, &whole, &to, e));
        if (whole && to == p->n_ids) break;
    }
    if (skip == 2) return err_set(e, ERR_FORMAT, "which tokens are the assistant's cannot be told: they do not spell the text");
    memset(weight, 0, (size_t)p->n_ids * sizeof *weight);
    for (int64_t t = 0; t < m->n_turn; t++) {
        if (!is_on(&m->turn[t], first, on)) continue;
        TRY(common_ids(m, m->turn[t].from, skip, &whole, &from, e));
        TRY(common_ids(m, m->turn[t].to, skip, &whole, &to, e));
        if (!whole) to++; /* a token across the end holds text of the turn */
        for (int64_t i = max_i64(from, 1); i < min_i64(to, p->n_ids); i++) weight[i] = 1;
    }
    return OK;
}

status train_mask_tokens(struct train_mask *m, int64_t first, const bool *on, float *weight, struct err *e)
{
    return lay_tokens(m, first, on, weight) ? OK : compare_prefixes(m, first, on, weight, e);
}
