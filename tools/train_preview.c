/* train_preview - see train_preview.h. */
#include "tools/train_preview.h"
#include <string.h>
#include "tools/term.h"

static const char *plural(int64_t n) { return n == 1 ? "" : "s"; }

/* ---- summary ---- */

static bool files(const struct train_set *s, struct buffer *b)
{
    bool ok = true;
    for (int i = 0; i < s->n_files; i++) {
        const struct train_file *f = &s->file[i];
        if (f->format == TRAIN_PLAIN) ok = buffer_put(b, "%s: plain text, %lld sample%s\n", f->path, (long long)f->n_samples, plural(f->n_samples)) && ok;
        else
            ok = buffer_put(b, "%s: %lld row%s of format %s, %lld sample%s\n", f->path, (long long)f->n_rows, plural(f->n_rows), train_format_names[f->format],
                            (long long)f->n_samples, plural(f->n_samples)) && ok;
    }
    return ok;
}

static bool unknown(const struct train_set *s, struct buffer *b)
{
    bool ok = true;
    for (int i = 0; i < s->n_files; i++) {
        const struct train_file *f = &s->file[i];
        if (f->n_unknown == 0) continue;
        ok = buffer_put(b, "note: %s has members that are not used: ", f->path) && ok;
        for (int j = 0; j < f->n_unknown; j++) ok = buffer_put(b, "%s%s", j ? ", " : "", f->unknown[j]) && ok;
        ok = buffer_put(b, f->n_unknown == TRAIN_UNKNOWN ? ", ...\n" : "\n") && ok;
    }
    return ok;
}

static bool left_out(const struct train_set *s, const struct train_options *o, struct buffer *b)
{
    bool ok = true;
    if (s->n_dropped > 0)
        ok = buffer_put(b, "note: %lld sample%s longer than %lld tokens left out (the longest has %lld)%s\n",
                        (long long)s->n_dropped, plural(s->n_dropped), (long long)o->n_ctx, (long long)s->n_longest,
                        o->too_long == TRAIN_CUT ? ": cut, nothing to learn would be left of them" : ": a larger --ctx, or --too-long cut") && ok;
    if (s->n_cut > 0)
        ok = buffer_put(b, "note: %lld sample%s cut to %lld tokens: the end of the answer is missing there\n", (long long)s->n_cut, plural(s->n_cut),
                        (long long)o->n_ctx) && ok;
    if (s->n_split > 0) ok = buffer_put(b, "%lld text%s split into samples of %lld tokens\n", (long long)s->n_split, plural(s->n_split),
                                            (long long)o->n_ctx) && ok;
    if (s->n_bad > 0) ok = buffer_put(b, "note: %lld bad row%s left out\n", (long long)s->n_bad, plural(s->n_bad)) && ok;
    return ok;
}

bool train_set_summary(const struct train_set *s, const struct train_options *o, struct buffer *b)
{
    double share = s->n_tokens > 0 ? 100.0 * (double)s->n_trained / (double)s->n_tokens : 0;
    bool ok = files(s, b);
    ok = buffer_put(b, "%lld sample%s, %lld tokens, %lld of them learnt (%.1f %%)\n", (long long)s->n_samples, plural(s->n_samples), (long long)s->n_tokens,
                    (long long)s->n_trained, share) && ok;
    if (s->n_pairs > 0) ok = buffer_put(b, "%lld pair%s of a chosen and a rejected answer\n", (long long)s->n_pairs, plural(s->n_pairs)) && ok;
    ok = left_out(s, o, b) && ok;
    if (s->n_ended < s->n_turns)
        ok = buffer_put(b, "note: %lld of %lld answers have no end token that is learnt: after them the model would not learn to stop\n",
                        (long long)(s->n_turns - s->n_ended), (long long)s->n_turns) && ok;
    if (s->n_imitations > 0)
        ok = buffer_put(b, "note: %lld text%s hold%s the text of a control token, read as plain text; --special reads it as the token\n",
                        (long long)s->n_imitations, plural(s->n_imitations), s->n_imitations == 1 ? "s" : "") && ok;
    return unknown(s, b) && ok;
}

bool train_faults_print(const struct train_set *s, struct buffer *b)
{
    bool ok = true;
    for (int64_t i = 0; i < min_i64(s->n_bad, TRAIN_FAULTS); i++)
        ok = buffer_put(b, "  %s:%lld: %s\n", s->fault[i].file, (long long)s->fault[i].line, s->fault[i].text) && ok;
    if (s->n_bad > TRAIN_FAULTS) ok = buffer_put(b, "  and %lld more\n", (long long)(s->n_bad - TRAIN_FAULTS)) && ok;
    return ok;
}

/* ---- samples ---- */

struct marks { const char *on, *off, *masked, *reset; };
static const struct marks in_colour = { "\033[32m", "\033[0m", "\033[2m", "\033[0m" }, in_brackets = { "[[", "]]", "", "" };

static bool put_shown(struct buffer *b, const char *p, size_t n)
{
    size_t at = b->n;
    if (!buffer_append(b, p, n)) return false;
    for (; at < b->n; at++) {
        unsigned char c = (unsigned char)b->p[at];
        bool c1 = c >= 0x80 && c < 0xa0 && at > 0 && (unsigned char)b->p[at - 1] == 0xc2; /* U+0080 .. U+009F, of one token or two */
        if (c1) b->p[at - 1] = '?';
        if (c1 || (c < 32 ? c != '\n' && c != '\t' : c == 127)) b->p[at] = '?';
    }
    return true;
}

static bool tokens(const struct train_set *s, const struct tokenizer *t, const struct train_sample *x, const struct marks *m, char *piece,
                    size_t cap, struct buffer *b)
{
    bool ok = true, on = false;
    ok = buffer_put(b, "%s", m->masked) && ok;
    for (int64_t i = x->first; i < x->first + x->n; i++) {
        bool learnt = s->weight[i] > 0;
        if (learnt != on) ok = buffer_put(b, "%s%s", learnt ? m->reset : m->off, learnt ? m->on : m->masked) && ok;
        on = learnt;
        size_t n = tokenizer_piece(t, s->token[i], true, piece, cap);
        ok = put_shown(b, piece, n < cap ? n : cap) && ok;
    }
    return buffer_put(b, "%s\n", on ? m->off : m->reset) && ok;
}

static bool heading(const struct train_set *s, const struct tokenizer *t, int64_t i, char *piece, size_t cap, struct buffer *b)
{
    const struct train_sample *x = &s->sample[i];
    bool ok = buffer_put(b, "--- sample %lld of %lld%s | %s:%lld | %lld tokens, %lld learnt", (long long)i + 1, (long long)s->n_samples,
                         s->n_pairs == 0 ? "" : i % 2 ? ", rejected" : ", chosen", x->file, (long long)x->line, (long long)x->n, (long long)x->n_trained);
    if (x->n < x->n_full) ok = buffer_put(b, " | cut, it has %lld", (long long)x->n_full) && ok;
    int64_t last = x->first + x->n - 1;
    while (last > x->first && !(s->weight[last] > 0 && tokenizer_is_end(t, s->token[last]))) last--;
    if (x->n_turns == 0 || x->n_ended < x->n_turns) {
        ok = buffer_put(b, " | ") && ok;
        if (x->n_turns > 1) ok = buffer_put(b, "%lld of %lld answers have ", (long long)(x->n_turns - x->n_ended), (long long)x->n_turns) && ok;
        return buffer_put(b, "no end token learnt ---\n") && ok;
    }
    size_t n = tokenizer_piece(t, s->token[last], true, piece, cap);
    ok = buffer_put(b, " | %s ", x->n_turns > 1 ? "all answers end with" : "ends with") && ok;
    ok = put_shown(b, piece, n < cap ? n : cap) && ok;
    return buffer_put(b, ", learnt ---\n") && ok;
}

/* Which sample is shown as number i of n. */
static int64_t shown(const struct train_set *s, int64_t i, int64_t n) { return (int64_t)((double)i * (double)s->n_samples / (double)n); }

void train_preview_json(const struct train_set *s, int64_t n, struct json_out *o)
{
    n = min_i64(n, s->n_samples);
    json_begin(o, NULL, '{');
    json_begin(o, "samples", '[');
    for (int64_t i = 0; i < n; i++) {
        const struct train_sample *x = &s->sample[shown(s, i, n)];
        json_begin(o, NULL, '{');
        json_put_cstr(o, "file", x->file);
        json_put_i64(o, "line", x->line);
        json_begin(o, "tokens", '[');
        for (int64_t k = 0; k < x->n; k++) json_put_i64(o, NULL, s->token[x->first + k]);
        json_end(o, ']');
        json_begin(o, "learnt", '[');
        for (int64_t k = 0; k < x->n; k++) json_put_i64(o, NULL, s->weight[x->first + k] > 0);
        json_end(o, ']');
        json_put_i64(o, "full", x->n_full);
        json_end(o, '}');
    }
    json_end(o, ']');
    json_end(o, '}');
}

bool train_preview(const struct train_set *s, const struct tokenizer *t, int64_t n, bool color, struct buffer *b)
{
    size_t cap = tokenizer_piece_max(t) + 8;
    char *piece = mem_alloc(cap);
    bool ok = piece != NULL;
    n = min_i64(n, s->n_samples);
    for (int64_t i = 0; ok && i < n; i++) {
        int64_t at = shown(s, i, n);
        ok = heading(s, t, at, piece, cap, b) && tokens(s, t, &s->sample[at], color ? &in_colour : &in_brackets, piece, cap, b);
    }
    mem_free(piece);
    return ok;
}
