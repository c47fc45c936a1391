/* train_set - see train_set.h. One row at a time: parse, render, encode, mask; a bad row leaves no trace but its fault. */
#include "tools/train_set.h"
#include <stdio.h>
#include <string.h>
#include "tools/cli.h"
#include "tools/rows.h"
#include "tools/term.h"
#include "tools/train_mask.h"

static const int64_t template_date = 1721952000; /* 26 July 2024, for templates that tell the date: the ids must not change with the day */

struct reader {
    struct train_set *s;
    const struct train_options *o;
    const struct tokenizer *tok;
    struct prompt prompt;
    struct train_mask mask;
    bool has_template;
    size_t bytes;               /* of the files that were read */
    struct train_file *file;
    int64_t format_line;        /* of the row that told the format */
    int32_t *ids; int64_t n_ids, cap_ids; /* of a text */
};

/* ---- the set grows ---- */

static status more_tokens(struct train_set *s, int64_t n, struct err *e)
{
    if (s->n_tokens + n <= s->cap_tokens) return OK;
    int64_t cap = max_i64(s->cap_tokens * 3 / 2, s->n_tokens + n + 4096);
    int32_t *token = mem_realloc(s->token, (size_t)cap * sizeof *token);
    if (token) s->token = token;
    float *weight = token ? mem_realloc(s->weight, (size_t)cap * sizeof *weight) : NULL;
    if (!weight) return err_oom(e, "tokens", (size_t)cap * (sizeof *token + sizeof *weight));
    s->weight = weight, s->cap_tokens = cap;
    return OK;
}

static status more_samples(struct train_set *s, struct err *e)
{
    if (s->n_samples < s->cap_samples) return OK;
    int64_t cap = max_i64(2 * s->cap_samples, 256);
    struct train_sample *x = mem_realloc(s->sample, (size_t)cap * sizeof *x);
    if (!x) return err_oom(e, "samples", (size_t)cap * sizeof *x);
    s->sample = x, s->cap_samples = cap;
    return OK;
}

static status more_pairs(struct train_set *s, struct err *e)
{
    if (s->n_pairs < s->cap_pairs) return OK;
    int64_t cap = max_i64(2 * s->cap_pairs, 256);
    struct train_pair *x = mem_realloc(s->pair, (size_t)cap * sizeof *x);
    if (!x) return err_oom(e, "pairs", (size_t)cap * sizeof *x);
    s->pair = x, s->cap_pairs = cap;
    return OK;
}

/* The n ids behind n_tokens, whose weights are there too, become a sample. *left_out: it was too long, or nothing to learn was left of it. */
static status add_sample(struct reader *r, struct train_sample x, bool *left_out, struct err *e)
{
    struct train_set *s = r->s;
    int64_t n_ctx = r->o->n_ctx;
    x.first = s->n_tokens, x.n_full = x.n, x.file = r->file->path, x.row = r->file->n_rows;
    const float *w = s->weight + x.first;
    s->n_longest = max_i64(s->n_longest, x.n);
    *left_out = false;
    for (int64_t i = 0; i < x.n; i++) x.n_trained += w[i] > 0;
    if (x.n_trained == 0) return err_set(e, ERR_FORMAT, "no token to learn from");
    if (n_ctx > 0 && x.n > n_ctx) {
        if (r->o->too_long == TRAIN_REFUSE)
            return err_set(e, ERR_FORMAT, "%lld tokens, longer than the context of %lld", (long long)x.n, (long long)n_ctx);
        x.n = n_ctx, x.n_trained = 0;
        for (int64_t i = 0; i < x.n; i++) x.n_trained += w[i] > 0;
        *left_out = r->o->too_long == TRAIN_DROP || x.n_trained == 0;
        if (*left_out) return OK;
    }
    TRY(more_samples(s, e));
    s->sample[s->n_samples++] = x;
    s->n_tokens += x.n;
    return OK;
}

/* ---- conversations ---- */

static void count_turns(const struct reader *r, const struct train_row *row, int64_t first, struct train_sample *x, const float *w, int64_t n)
{
    const struct train_mask *m = &r->mask;
    for (int64_t i = 0; i < m->n_turn; i++)
        if (m->turn[i].message >= first && (!row->on || row->on[m->turn[i].message])) x->n_turns++, x->n_ended += m->turn[i].ends;
    bool cut = r->o->n_ctx > 0 && n > r->o->n_ctx;
    if (!cut || r->o->too_long != TRAIN_CUT) return;
    x->n_turns = x->n_ended = 0; /* of those that are left: runs of learnt tokens, ended when the last one is an end token */
    for (int64_t i = 1; i < r->o->n_ctx; i++) {
        if (w[i] == 0 || (i + 1 < r->o->n_ctx && w[i + 1] > 0)) continue;
        x->n_turns++;
        x->n_ended += tokenizer_is_end(r->tok, r->s->token[r->s->n_tokens + i]);
    }
}

static status put_ids(struct reader *r, const int32_t *ids, int64_t n, struct err *e)
{
    TRY(more_tokens(r->s, n, e));
    if (n > 0) memcpy(r->s->token + r->s->n_tokens, ids, (size_t)n * sizeof *ids);
    return OK;
}

/* BOS too where it is no beginning: in many vocabularies it opens every turn, or ends texts. */
static void all_learnt(float *w, int64_t n)
{
    for (int64_t i = 0; i < n; i++) w[i] = i > 0;
}

static status add_chat(struct reader *r, const struct train_row *row, int64_t line, bool *left_out, struct err *e)
{
    struct prompt *p = &r->prompt;
    struct train_mask *m = &r->mask;
    struct train_sample x = { .line = line };
    p->exact = false; /* nothing is kept from the sample before */
    p->extra = row->extra;
    TRY(prompt_encode(p, false, e));
    TRY(train_mask_turns(m, e));
    int64_t first = row->first;
    if (r->o->loss == TRAIN_LAST && m->n_turn > 0) first = max_i64(first, m->turn[m->n_turn - 1].message);
    TRY(put_ids(r, p->ids, p->n_ids, e));
    float *w = r->s->weight + r->s->n_tokens;
    x.n = p->n_ids, x.bos = x.n > 0 && p->ids[0] == tokenizer_bos(r->tok);
    if (r->o->loss == TRAIN_ALL) all_learnt(w, x.n);
    else TRY(train_mask_tokens(m, first, row->on, w, e));
    count_turns(r, row, r->o->loss == TRAIN_ALL ? 0 : first, &x, w, x.n);
    return add_sample(r, x, left_out, e);
}

/* Without a template: the answer directly behind the prompt, EOS behind it. */
static status add_joined(struct reader *r, const struct train_row *row, int64_t line, bool *left_out, struct err *e)
{
    struct prompt *p = &r->prompt;
    struct chat_message ask = chat_at(p->chat, 0), said = chat_at(p->chat, 1);
    struct train_sample x = { .line = line, .n_turns = 1 };
    int32_t eos = tokenizer_eos(r->tok);
    char *text = mem_alloc(ask.n + said.n + 1);
    if (!text) return err_oom(e, "text", ask.n + said.n);
    memcpy(text, ask.text, ask.n);
    memcpy(text + ask.n, said.text, said.n + 1);
    mem_free(p->text);
    p->text = text, p->n_text = ask.n + said.n, p->text_cap = p->n_text + 1;
    p->n_ids = 0, p->exact = false;
    TRY(encode_text(r->tok, text, p->n_text, 0, &p->ids, &p->n_ids, &p->cap, e));
    TRY(prompt_add_bos(p, e));
    TRY(train_mask_text(&r->mask, ask.n, e));
    TRY(more_tokens(r->s, p->n_ids + 1, e));
    TRY(put_ids(r, p->ids, p->n_ids, e));
    int32_t *ids = r->s->token + r->s->n_tokens;
    float *w = r->s->weight + r->s->n_tokens;
    x.n = p->n_ids, x.bos = x.n > 0 && ids[0] == tokenizer_bos(r->tok);
    if (r->o->loss == TRAIN_ALL) all_learnt(w, x.n);
    else TRY(train_mask_tokens(&r->mask, 0, NULL, w, e));
    if (eos >= 0) ids[x.n] = eos, w[x.n] = 1, x.n++, x.n_ended = r->o->n_ctx <= 0 || x.n <= r->o->n_ctx;
    return add_sample(r, x, left_out, e);
}

/* ---- texts ---- */

static bool holds_control(const struct reader *r, const char *text, size_t n)
{
    const struct prompt *p = &r->prompt;
    for (size_t i = 0; i < n; i++) {
        int b = (unsigned char)text[i];
        for (int c = p->first[b]; c < p->first[b + 1]; c++)
            if (p->control[c].text.n <= n - i && !memcmp(text + i, p->control[c].text.p, p->control[c].text.n)) return true;
    }
    return false;
}

/* A document: BOS, its tokens, EOS; every one of them learnt. Longer ones become several samples. Each begins with BOS, or, where the model has none, with the
 * last token of the sample before, so that no token is left unlearnt. */
static status add_text(struct reader *r, const char *text, size_t n, int64_t line, struct err *e)
{
    struct train_set *s = r->s;
    int32_t bos = tokenizer_adds_bos(r->tok) ? tokenizer_bos(r->tok) : -1, eos = tokenizer_eos(r->tok);
    int64_t n_ctx = r->o->n_ctx > 0 ? max_i64(r->o->n_ctx, 2) : INT64_MAX, n_parts = 0;
    r->n_ids = 0;
    if (n > (size_t)1 << 30) return err_set(e, ERR_FORMAT, "a text of %zu bytes, allowed are 2^30: split it", n);
    if (!r->o->special) s->n_imitations += holds_control(r, text, n);
    TRY(encode_text(r->tok, text, n, r->o->special ? ENCODE_SPECIAL : 0, &r->ids, &r->n_ids, &r->cap_ids, e));
    const int32_t *ids = r->ids;
    int64_t n_ids = r->n_ids;
    if (bos >= 0 && n_ids > 0 && ids[0] == bos) ids++, n_ids--;
    bool end = eos >= 0 && (n_ids == 0 || !tokenizer_is_end(r->tok, ids[n_ids - 1]));
    for (int64_t at = 0; at < n_ids + end; n_parts++) {
        int64_t lead = bos >= 0 || at > 0, take = min_i64(n_ids + end - at, n_ctx - lead), last = at + take;
        struct train_sample x = { .line = line, .n = lead + take, .bos = bos >= 0, .n_turns = last == n_ids + end };
        bool left_out;
        TRY(more_tokens(s, x.n, e));
        int32_t *to = s->token + s->n_tokens;
        float *w = s->weight + s->n_tokens;
        if (lead) to[0] = bos >= 0 ? bos : ids[at - 1];
        int64_t copy = min_i64(take, n_ids - at);
        if (copy > 0) memcpy(to + lead, ids + at, (size_t)copy * sizeof *to);
        if (copy < take) to[lead + copy] = eos;
        for (int64_t i = 0; i < x.n; i++) w[i] = i > 0;
        x.n_ended = x.n_turns && tokenizer_is_end(r->tok, to[x.n - 1]);
        TRY(add_sample(r, x, &left_out, e));
        at = last;
    }
    s->n_split += n_parts > 1;
    return OK;
}

/* ---- rows ---- */

void train_file_note(struct train_file *f, const struct json *row)
{
    char name[64];
    struct train_unknown u = train_format_unknown(f->format, row);
    while (f->n_unknown < TRAIN_UNKNOWN && train_unknown_next(&u, name)) {
        int i = 0;
        while (i < f->n_unknown && strcmp(f->unknown[i], name)) i++;
        if (i == f->n_unknown) memcpy(f->unknown[f->n_unknown++], name, sizeof name);
    }
}

static status read_answer(struct reader *r, const struct json *json, int answer, int64_t line, struct arena *a, bool *left_out, struct err *e)
{
    struct train_row row;
    *left_out = false;
    TRY(train_row_read(r->file->format, json, answer, r->prompt.chat, a, &row, e));
    if (r->file->format == TRAIN_TEXT) return add_text(r, row.text.p, row.text.n, line, e);
    if (r->has_template) return add_chat(r, &row, line, left_out, e);
    if (row.strings) return add_joined(r, &row, line, left_out, e);
    return err_set(e, ERR_USAGE, "%.80s has no chat template, and these are conversations", r->o->model ? r->o->model : "the model");
}

static status read_pair(struct reader *r, const struct json *json, int64_t line, struct arena *a, struct err *e)
{
    struct train_set *s = r->s;
    bool first_out, second_out = false;
    TRY(read_answer(r, json, 0, line, a, &first_out, e));
    if (!first_out) TRY(read_answer(r, json, 1, line, a, &second_out, e));
    s->n_dropped += first_out || second_out;
    if (first_out || second_out) { /* both or none */
        if (!first_out) s->n_tokens = s->sample[--s->n_samples].first;
        return OK;
    }
    struct train_sample *one = &s->sample[s->n_samples - 2], *two = one + 1;
    if (one->n == two->n && !memcmp(s->token + one->first, s->token + two->first, (size_t)one->n * sizeof *s->token)) {
        if (one->n == one->n_full && two->n == two->n_full) /* they differ by white space that the template takes away */
            return err_set(e, ERR_FORMAT, "chosen and rejected are the same tokens: there is nothing to prefer");
        s->n_dropped++, s->n_tokens = one->first, s->n_samples -= 2; /* what differs was cut off */
        return OK;
    }
    TRY(more_pairs(s, e));
    s->pair[s->n_pairs++] = (struct train_pair){ s->n_samples - 2, s->n_samples - 1 };
    return OK;
}

static status read_row(struct reader *r, struct row *line, struct arena *a, struct err *e)
{
    struct train_file *f = r->file;
    struct json *json;
    TRY(rows_parse(line, a, &json, e));
    int format = train_format_of(json);
    if (format < 0) return err_set(e, ERR_FORMAT, "expected %s", train_format_expected);
    if (!r->format_line) f->format = (enum train_format)format, r->format_line = line->line;
    if (format != (int)f->format)
        return err_set(e, ERR_FORMAT, "a row of format %s in a file of format %s (told by line %lld)", train_format_names[format],
                       train_format_names[f->format], (long long)r->format_line);
    train_file_note(f, json);
    if (f->format == TRAIN_PREFERENCE) return read_pair(r, json, line->line, a, e);
    bool left_out;
    TRY(read_answer(r, json, 0, line->line, a, &left_out, e));
    r->s->n_dropped += left_out;
    return OK;
}

/* A fault of the data is noted, anything else ends the reading. */
static status note_fault(struct reader *r, int64_t line, const struct err *why, struct err *e)
{
    struct train_set *s = r->s;
    bool data = why->code == ERR_FORMAT || why->code == ERR_RUNTIME || (why->code == ERR_USAGE && r->has_template);
    if (!data) return err_set(e, why->code, "%.100s:%lld: %s", r->file->path, (long long)line, why->text);
    if (s->n_bad < TRAIN_FAULTS) {
        struct train_fault *f = &s->fault[s->n_bad];
        *f = (struct train_fault){ .file = r->file->path, .line = line };
        snprintf(f->text, sizeof f->text, "%s%.170s", why->code == ERR_USAGE ? "the template refuses it: " : "", why->text);
    }
    s->n_bad++, r->file->n_bad++;
    return OK;
}

static status read_rows(struct reader *r, struct rows *rows, struct err *e)
{
    struct train_set *s = r->s;
    struct arena a;
    struct row row;
    bool more = true;
    status st = OK;
    arena_init(&a, 0);
    while (st == OK && (st = rows_next(rows, &row, &more, e)) == OK && more) {
        struct err why = { 0 };
        struct arena_mark mark = arena_mark(&a);
        int64_t samples = s->n_samples, tokens = s->n_tokens, pairs = s->n_pairs;
        if (cli_interrupted) st = err_set(e, ERR_INTERRUPTED, "interrupted");
        else if (read_row(r, &row, &a, &why) != OK) {
            s->n_samples = samples, s->n_tokens = tokens, s->n_pairs = pairs;
            st = note_fault(r, row.line, &why, e);
        }
        if (r->o->bar && r->file->n_rows % 64 == 0) bar_update(r->o->bar, (int64_t)((r->bytes + rows->at) >> 10), NULL);
        r->file->n_rows++;
        arena_release(&a, mark);
    }
    arena_free(&a);
    return st;
}

static status check_utf8(const char *text, size_t n, int64_t *line, struct err *e)
{
    *line = 1;
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        int len = utf8_next(text + i, n - i, &cp);
        if (cp == 0xfffd && len == 1) return err_set(e, ERR_FORMAT, "invalid UTF-8");
        *line += text[i] == '\n';
        i += (size_t)len;
    }
    return OK;
}

static status read_plain(struct reader *r, struct rows *rows, struct err *e)
{
    struct err why = { 0 };
    size_t n = rows->n;
    int64_t line = 1;
    r->file->format = TRAIN_PLAIN;
    if (n > 0 && rows->text[n - 1] == '\n') n--;
    status st = check_utf8(rows->text, n, &line, &why);
    if (st == OK && n == 0) st = err_set(&why, ERR_FORMAT, "the file is empty");
    int64_t samples = r->s->n_samples, tokens = r->s->n_tokens;
    if (st == OK && (st = add_text(r, rows->text, n, 1, &why)) != OK) r->s->n_samples = samples, r->s->n_tokens = tokens, line = 1;
    if (st != OK) st = note_fault(r, line, &why, e);
    r->file->n_rows = 1;
    return st;
}

static status read_file(struct reader *r, const char *path, struct err *e)
{
    struct rows rows;
    int64_t before = r->s->n_samples;
    TRY(rows_open(&rows, path, e));
    r->format_line = 0;
    status st = rows.kind == ROWS_TEXT ? read_plain(r, &rows, e) : read_rows(r, &rows, e);
    if (st == OK && r->file->n_rows == 0) st = err_set(e, ERR_FORMAT, "%.100s: no rows", path);
    r->file->n_samples = r->s->n_samples - before;
    r->bytes += rows.n;
    rows_close(&rows);
    return st;
}

/* ---- whole ---- */

int64_t train_files_kib(const char *const *path, int n_files)
{
    uint64_t bytes = 0;
    struct file_facts facts;
    for (int i = 0; i < n_files; i++) bytes += file_stat(path[i], &facts) ? facts.size : 0;
    return (int64_t)(bytes >> 10);
}

struct train_options train_choices(const struct cli *c)
{
    static const struct { const char *name; enum train_loss loss; } losses[] = { { "answers", TRAIN_ANSWERS }, { "last", TRAIN_LAST }, { "all", TRAIN_ALL } };
    static const struct { const char *name; enum train_long too_long; } longs[] = { { "drop", TRAIN_DROP }, { "cut", TRAIN_CUT }, { "error", TRAIN_REFUSE } };
    struct train_options o = { .n_ctx = c->ctx, .skip_bad = c->skip_bad, .special = c->special, .template_name = c->template_name, .model = c->model };
    for (int i = 0; i < 3; i++) {
        if (c->loss && !strcmp(c->loss, losses[i].name)) o.loss = losses[i].loss;
        if (c->too_long && !strcmp(c->too_long, longs[i].name)) o.too_long = longs[i].too_long;
    }
    return o;
}

static status open_reader(struct reader *r, struct str file_template, struct err *e)
{
    const char *name = r->o->template_name;
    r->has_template = name || file_template.n > 0;
    TRY(prompt_open(&r->prompt, r->tok, file_template, r->has_template ? name : "chatml", r->o->model ? r->o->model : "model", e));
    r->prompt.now = template_date;
    return train_mask_open(&r->mask, &r->prompt, e);
}

static status judge(struct train_set *s, const struct train_options *o, struct err *e)
{
    if (s->n_bad > 0 && !o->skip_bad) {
        const struct train_fault *f = &s->fault[0];
        char more[48] = "";
        if (s->n_bad > 1) snprintf(more, sizeof more, ", and %lld more bad row%s", (long long)s->n_bad - 1, s->n_bad > 2 ? "s" : "");
        return err_set(e, ERR_FORMAT, "%.60s:%lld: %.140s%s", f->file, (long long)f->line, f->text, more);
    }
    if (s->n_pairs > 0 && 2 * s->n_pairs != s->n_samples) return err_set(e, ERR_FORMAT, "preference rows and other rows cannot be mixed");
    if (s->n_samples == 0)
        return err_set(e, ERR_FORMAT, "nothing to learn from: of %lld samples none is left, %lld are longer than %lld tokens, %lld rows are bad",
                       (long long)(s->n_dropped + s->n_bad), (long long)s->n_dropped, (long long)o->n_ctx, (long long)s->n_bad);
    return OK;
}

static void sum_up(struct train_set *s)
{
    for (int64_t i = 0; i < s->n_samples; i++) {
        const struct train_sample *x = &s->sample[i];
        s->n_trained += x->n_trained, s->n_turns += x->n_turns, s->n_ended += x->n_ended;
        s->n_cut += x->n < x->n_full;
    }
}

status train_set_read(struct train_set *s, const char *const *path, int n_files, const struct tokenizer *t, struct str file_template,
                      const struct train_options *o, struct err *e)
{
    struct reader r = { .s = s, .o = o, .tok = t };
    *s = (struct train_set){ 0 };
    s->file = mem_calloc((size_t)max_i64(n_files, 1), sizeof *s->file);
    status st = s->file ? open_reader(&r, file_template, e) : err_oom(e, "files", 0);
    for (int i = 0; st == OK && i < n_files; i++) {
        r.file = &s->file[s->n_files++];
        r.file->path = path[i];
        st = read_file(&r, path[i], e);
    }
    if (st == OK) sum_up(s);
    if (st == OK) st = judge(s, o, e);
    train_mask_close(&r.mask);
    prompt_close(&r.prompt);
    mem_free(r.ids);
    return st;
}

void train_set_close(struct train_set *s)
{
    mem_free(s->token), mem_free(s->weight), mem_free(s->sample), mem_free(s->pair), mem_free(s->file);
    *s = (struct train_set){ 0 };
}
