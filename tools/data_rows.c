/* data_rows - see data_rows.h. A row's text for patterns, lengths and comparisons is what its turns say, one below the other. */
#include "tools/data_rows.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tools/cli.h"
#include "tools/similar.h"
#include "tools/term.h"

const char *const data_fate_names[DATA_FATES] = {
    [DATA_KEPT] = "kept", [DATA_BAD] = "bad", [DATA_SHORT] = "too short", [DATA_LONG] = "too long", [DATA_UNMATCHED] = "not matched",
    [DATA_MATCHED] = "dropped by pattern", [DATA_EXACT] = "exact duplicates", [DATA_NEAR] = "near duplicates",
};

/* What one row says, and who says it. */
struct content {
    struct chat *chat; /* holds messages, renders nothing */
    struct arena arena;
    struct buffer text, roles;
};

static status open_content(struct content *c, struct err *e)
{
    *c = (struct content){ 0 };
    arena_init(&c->arena, 0);
    return chat_open(&c->chat, "", 0, "data", "", "", e);
}

static void close_content(struct content *c)
{
    chat_close(c->chat);
    arena_free(&c->arena);
    buffer_free(&c->text), buffer_free(&c->roles);
}

static status add_said(struct content *c, const char *role, const char *text, size_t n, struct err *e)
{
    bool ok = buffer_put(&c->roles, "%s:%zu\n", role, n) && (c->text.n == 0 || buffer_append(&c->text, "\n", 1)) && buffer_append(&c->text, text, n);
    return ok ? OK : err_oom(e, "text", c->text.n + n);
}

/* Into c->text and c->roles; faults are those of training. */
static status read_content(struct content *c, enum train_format f, const struct json *json, int64_t n_turns[DATA_ROLES], struct err *e)
{
    static const char *const roles[] = { "system", "user", "assistant", "tool" };
    c->text.n = c->roles.n = 0;
    for (int answer = 0; answer < 1 + (f == TRAIN_PREFERENCE); answer++) {
        struct train_row row;
        TRY(train_row_read(f, json, answer, c->chat, &c->arena, &row, e));
        if (f == TRAIN_TEXT) TRY(add_said(c, "text", row.text.p, row.text.n, e));
        for (int64_t i = answer ? row.first : 0; f != TRAIN_TEXT && i < chat_count(c->chat); i++) {
            struct chat_message m = chat_at(c->chat, i);
            TRY(add_said(c, m.role, m.text, m.n, e));
            int r = 0;
            while (r < ARRAY_LEN(roles) && strcmp(m.role, roles[r])) r++;
            n_turns[r]++;
        }
    }
    return OK;
}

/* The content of a row that was read before. */
static status again(struct content *c, const struct data_set *d, const struct data_row *x, struct err *e)
{
    const struct data_file *f = &d->file[x->file];
    if (f->facts.format == TRAIN_PLAIN) {
        c->text.n = c->roles.n = 0;
        return add_said(c, "text", x->p, x->n, e);
    }
    struct row line = { x->p, x->n, x->line };
    struct json *json;
    int64_t ignored[DATA_ROLES] = { 0 };
    struct arena_mark mark = arena_mark(&c->arena);
    status st = rows_parse(&line, &c->arena, &json, e);
    if (st == OK) st = read_content(c, f->facts.format, json, ignored, e);
    arena_release(&c->arena, mark);
    return st;
}

static int64_t characters(const char *p, size_t n)
{
    int64_t count = 0;
    for (size_t i = 0; i < n; i++) count += ((unsigned char)p[i] & 0xc0) != 0x80;
    return count;
}

/* ---- reading ---- */

static status new_row(struct data_set *d, struct data_row **out, struct err *e)
{
    if (d->n_rows == d->cap) {
        int64_t cap = max_i64(2 * d->cap, 1024);
        struct data_row *row = mem_realloc(d->row, (size_t)cap * sizeof *row);
        if (!row) return err_oom(e, "rows", (size_t)cap * sizeof *row);
        d->row = row, d->cap = cap;
    }
    *out = &d->row[d->n_rows++];
    **out = (struct data_row){ .like = -1 };
    return OK;
}

static void note_bad(struct data_set *d, struct data_row *x, int64_t line, const char *why)
{
    x->fate = DATA_BAD;
    d->file[x->file].facts.n_bad++;
    if (d->n_bad++ >= TRAIN_FAULTS) return;
    struct train_fault *f = &d->fault[d->n_bad - 1];
    *f = (struct train_fault){ .file = d->file[x->file].facts.path, .line = line };
    snprintf(f->text, sizeof f->text, "%.190s", why);
}

static status measure(struct content *c, struct data_row *x, struct err *e)
{
    x->n_chars = characters(c->text.p, c->text.n);
    for (int i = 0; i < 2; i++) x->hash[i] = hash64(hash64((uint64_t)i, c->roles.p, c->roles.n), c->text.p, c->text.n);
    return OK;
}

static status read_row(struct data_set *d, struct content *c, struct data_file *f, struct row *line, int64_t *format_line, struct err *e)
{
    struct json *json;
    TRY(rows_parse(line, &c->arena, &json, e));
    int format = train_format_of(json);
    if (format < 0) return err_set(e, ERR_FORMAT, "expected %s", train_format_expected);
    if (!*format_line) f->facts.format = (enum train_format)format, *format_line = line->line;
    if (format != (int)f->facts.format)
        return err_set(e, ERR_FORMAT, "a row of format %s in a file of format %s (told by line %lld)", train_format_names[format],
                       train_format_names[f->facts.format], (long long)*format_line);
    train_file_note(&f->facts, json);
    int64_t turns[DATA_ROLES] = { 0 };
    TRY(read_content(c, f->facts.format, json, turns, e));
    for (int i = 0; i < DATA_ROLES; i++) d->n_turns[i] += turns[i];
    return OK;
}

static status read_rows(struct data_set *d, struct content *c, int file, struct err *e)
{
    struct data_file *f = &d->file[file];
    int64_t format_line = 0;
    for (;;) {
        struct row line;
        struct data_row *x;
        struct err why = { 0 };
        bool more;
        TRY(rows_next(&f->rows, &line, &more, e));
        if (!more) break;
        if (cli_interrupted) return err_set(e, ERR_INTERRUPTED, "interrupted");
        TRY(new_row(d, &x, e));
        x->p = line.p, x->n = line.n, x->line = line.line, x->file = file;
        f->facts.n_rows++;
        struct arena_mark mark = arena_mark(&c->arena);
        status st = read_row(d, c, f, &line, &format_line, &why);
        if (st == OK) st = measure(c, x, &why);
        arena_release(&c->arena, mark);
        if (st != OK && st != ERR_FORMAT) return err_set(e, st, "%s", why.text);
        if (st != OK) note_bad(d, x, line.line, why.text);
    }
    return f->facts.n_rows > 0 ? OK : err_set(e, ERR_FORMAT, "%.100s: no rows", f->facts.path);
}

static status read_plain(struct data_set *d, struct content *c, int file, struct err *e)
{
    struct data_file *f = &d->file[file];
    struct data_row *x;
    TRY(new_row(d, &x, e));
    *x = (struct data_row){ .p = f->rows.text, .n = f->rows.n, .line = 1, .file = file, .like = -1 };
    f->facts.format = TRAIN_PLAIN, f->facts.n_rows = 1;
    c->text.n = c->roles.n = 0;
    TRY(add_said(c, "text", x->p, x->n, e));
    return measure(c, x, e);
}

status data_read(struct data_set *d, const char *const *path, int n_files, struct err *e)
{
    struct content c;
    *d = (struct data_set){ 0 };
    d->file = mem_calloc((size_t)max_i64(n_files, 1), sizeof *d->file);
    if (!d->file) return err_oom(e, "files", 0);
    status st = open_content(&c, e);
    for (int i = 0; st == OK && i < n_files; i++) {
        struct data_file *f = &d->file[d->n_files++];
        f->facts.path = path[i], f->first = d->n_rows;
        st = rows_open(&f->rows, path[i], e);
        if (st == OK) st = f->rows.kind == ROWS_TEXT ? read_plain(d, &c, i, e) : read_rows(d, &c, i, e);
    }
    close_content(&c);
    if (st != OK) data_close(d);
    return st;
}

status data_count_tokens(struct data_set *d, const struct train_set *s, struct err *e)
{
    for (int64_t i = 0, f = -1; i < s->n_samples; i++) {
        const struct train_sample *x = &s->sample[i];
        while (f < 0 || (f + 1 < d->n_files && d->file[f].facts.path != x->file)) f++;
        int64_t row = d->file[f].first + x->row;
        if (row >= d->n_rows || d->row[row].file != f) return err_set(e, ERR_FORMAT, "%.100s: changed while it was read", x->file);
        d->row[row].n_tokens += x->n, d->row[row].n_trained += x->n_trained;
    }
    for (int64_t i = 0; i < d->n_rows; i++) {
        struct data_row *x = &d->row[i];
        if (x->fate == DATA_BAD || x->n_tokens > 0) continue;
        const char *why = "the template refuses it, or leaves nothing to learn"; /* beyond the faults that are listed */
        for (int64_t k = 0; k < min_i64(s->n_bad, TRAIN_FAULTS); k++)
            if (s->fault[k].line == x->line && s->fault[k].file == d->file[x->file].facts.path) why = s->fault[k].text;
        note_bad(d, x, x->line, why);
    }
    return OK;
}

/* ---- filters ---- */

static enum data_fate by_length(const struct data_row *x, const struct data_options *o)
{
    if (x->n_chars < o->min_chars || x->n_tokens < o->min_tokens) return DATA_SHORT;
    bool large = (o->max_chars > 0 && x->n_chars > o->max_chars) || (o->max_tokens > 0 && x->n_tokens > o->max_tokens);
    return large ? DATA_LONG : DATA_KEPT;
}

static enum data_fate by_pattern(struct buffer *text, const struct data_options *o)
{
    for (size_t i = 0; i < text->n; i++)
        if (!text->p[i]) text->p[i] = ' '; /* for regexec it would be the end */
    for (int i = 0; i < o->n_match; i++)
        if (regexec(&o->match[i], text->p, 0, NULL, 0) != 0) return DATA_UNMATCHED;
    for (int i = 0; i < o->n_drop; i++)
        if (regexec(&o->drop[i], text->p, 0, NULL, 0) == 0) return DATA_MATCHED;
    return DATA_KEPT;
}

/* Rows by content: slots hold indices of rows, -1 is empty. */
struct table { int64_t *slot; size_t n; };

static int64_t same_before(struct table *t, const struct data_set *d, int64_t i)
{
    const uint64_t *h = d->row[i].hash;
    for (size_t at = h[0] & (t->n - 1);; at = (at + 1) & (t->n - 1)) {
        int64_t j = t->slot[at];
        if (j < 0) return t->slot[at] = i, -1;
        if (d->row[j].hash[0] == h[0] && d->row[j].hash[1] == h[1]) return j;
    }
}

static status find_alike(struct data_set *d, int64_t i, const struct data_options *o, struct table *t, struct similar *near, struct content *c, struct err *e)
{
    struct data_row *x = &d->row[i];
    x->like = same_before(t, d, i), x->share = 1;
    d->n_exact += x->like >= 0;
    if (x->like >= 0) {
        if (o->dedupe != DEDUPE_NONE) x->fate = DATA_EXACT;
        return OK;
    }
    if (!near) return OK;
    double share;
    TRY(similar_add(near, c->text.p, c->text.n, i, &x->like, &share, e));
    x->share = (float)share;
    d->n_near += x->like >= 0;
    if (x->like >= 0 && o->dedupe == DEDUPE_NEAR) x->fate = DATA_NEAR;
    return OK;
}

static status filter_row(struct data_set *d, int64_t i, const struct data_options *o, struct table *t, struct similar *near, struct content *c, struct err *e)
{
    struct data_row *x = &d->row[i];
    if (x->fate != DATA_KEPT) return OK;
    if (cli_interrupted) return err_set(e, ERR_INTERRUPTED, "interrupted");
    x->fate = by_length(x, o);
    if (x->fate != DATA_KEPT) return OK;
    bool wanted = near || o->n_match > 0 || o->n_drop > 0;
    if (wanted) TRY(again(c, d, x, e));
    if (wanted) x->fate = by_pattern(&c->text, o);
    return x->fate == DATA_KEPT ? find_alike(d, i, o, t, near, c, e) : OK;
}

status data_filter(struct data_set *d, const struct data_options *o, struct err *e)
{
    struct table t = { .n = 1024 };
    struct similar *near = NULL;
    struct content c;
    while (t.n < 2 * (size_t)d->n_rows) t.n *= 2;
    status st = open_content(&c, e);
    t.slot = mem_alloc(t.n * sizeof *t.slot);
    if (st == OK && !t.slot) st = err_oom(e, "rows", t.n * sizeof *t.slot);
    if (st == OK) memset(t.slot, 0xff, t.n * sizeof *t.slot);
    if (st == OK && o->near > 0) st = similar_open(&near, o->near, e);
    for (int64_t i = 0; i < d->n_rows && st == OK; i++) {
        st = filter_row(d, i, o, &t, near, &c, e);
        if (o->bar && i % 64 == 0) bar_update(o->bar, i, NULL);
    }
    for (int64_t i = 0; i < d->n_rows; i++) d->count[d->row[i].fate]++;
    similar_close(near);
    mem_free(t.slot);
    close_content(&c);
    return st;
}

/* ---- split ---- */

struct ticket { uint64_t hash; int64_t root, row; }; /* root: the first row of those that are alike */

static int by_hash(const void *a, const void *b)
{
    const struct ticket *x = a, *y = b;
    if (x->hash != y->hash) return x->hash < y->hash ? -1 : 1;
    if (x->root != y->root) return x->root < y->root ? -1 : 1;
    return (x->row > y->row) - (x->row < y->row);
}

status data_split(const struct data_set *d, double share, int64_t seed, bool *held, int64_t *n_held, struct err *e)
{
    int64_t n = 0;
    struct ticket *t = mem_alloc(((size_t)d->n_rows + 1) * sizeof *t);
    if (!t) return err_oom(e, "rows", (size_t)d->n_rows * sizeof *t);
    for (int64_t i = 0; i < d->n_rows; i++) {
        int64_t root = i;
        held[i] = false;
        if (d->row[i].fate != DATA_KEPT) continue;
        while (d->row[root].like >= 0) root = d->row[root].like;
        t[n++] = (struct ticket){ hash64((uint64_t)seed, d->row[root].hash, sizeof d->row[root].hash), root, i };
    }
    qsort(t, (size_t)n, sizeof *t, by_hash);
    int64_t want = share < 1 ? (int64_t)llround(share * (double)n) : (int64_t)share;
    *n_held = 0;
    for (int64_t i = 0; i < n && (*n_held < want || (i > 0 && t[i].root == t[i - 1].root && held[t[i - 1].row])); i++, ++*n_held) held[t[i].row] = true;
    mem_free(t);
    return *n_held < n || n == 0 ? OK : err_set(e, ERR_USAGE, "--split %g: %lld of %lld rows would be held out, none is left to train on", share,
                                                 (long long)*n_held, (long long)n);
}

void data_close(struct data_set *d)
{
    for (int i = 0; i < d->n_files; i++) rows_close(&d->file[i].rows);
    mem_free(d->file), mem_free(d->row);
    *d = (struct data_set){ 0 };
}
