/* data - looks at files of training data and cleans them: formats, lengths, duplicates, filters, a split. The files stay as they are; what is kept goes to
 * another file as JSON lines, byte for byte the rows that were read. Everything here depends on the files and options only. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "ggml-like/file.h"
#include "tools/data_rows.h"
#include "tools/opt.h"
#include "tools/train_preview.h"
#include "tools/vocab.h"

enum { FILES_MAX = 256, SHOWN = 5 };

struct job {
    struct cli *c;
    const char *path[FILES_MAX];
    int n_files;
    struct data_set d;
    struct data_options o;
    regex_t match[16], drop[16];
    char held_path[4096];
    bool *held;
    int64_t n_held;
};

/* ---- options ---- */

static status compile(const char *option, const char *const *text, int n, regex_t *out, int *done, struct err *e)
{
    for (int i = 0; i < n; i++) {
        char why[100];
        int bad = regcomp(&out[i], text[i], REG_EXTENDED | REG_NOSUB | REG_NEWLINE);
        if (!bad) ++*done;
        else regerror(bad, &out[i], why, sizeof why);
        if (bad) return err_set(e, ERR_USAGE, "%s '%.80s': %s", option, text[i], why);
    }
    return OK;
}

static status get_options(struct job *j, struct err *e)
{
    struct cli *c = j->c;
    j->o = (struct data_options){ .match = j->match, .drop = j->drop, .min_chars = c->min_chars, .max_chars = c->max_chars, .min_tokens = c->min_tokens,
                                  .max_tokens = c->max_tokens, .near = c->near, .skip_bad = c->skip_bad };
    j->o.dedupe = !strcmp(c->dedupe, "none") ? DEDUPE_NONE : !strcmp(c->dedupe, "near") ? DEDUPE_NEAR : DEDUPE_EXACT;
    if (c->near > 0 && c->near < 0.5f) return err_set(e, ERR_USAGE, "--near: %g is out of range 0.5..1 (0: do not look)", (double)c->near);
    if (j->o.dedupe == DEDUPE_NEAR && c->near == 0) return err_set(e, ERR_USAGE, "--dedupe near needs --near");
    if ((c->min_tokens > 0 || c->max_tokens > 0) && !c->base) return err_set(e, ERR_USAGE, "--min-tokens and --max-tokens need --model: tokens are a model's");
    if (c->preview > 0 && !c->base) return err_set(e, ERR_USAGE, "--preview needs --model: its tokenizer and chat template");
    if (c->preview > 0 && c->output) return err_set(e, ERR_USAGE, "--preview only shows samples; not with -o");
    if (c->split > 0 && !c->output) return err_set(e, ERR_USAGE, "--split needs -o FILE");
    if (c->n_args + 1 > FILES_MAX) return err_set(e, ERR_USAGE, "more than %d files", FILES_MAX);
    j->path[j->n_files++] = c->model;
    for (int i = 0; i < c->n_args; i++) j->path[j->n_files++] = c->args[i];
    for (int i = 0; i < j->n_files; i++)
        if (!strcmp(j->path[i], "-")) return err_set(e, ERR_USAGE, "data reads files, not standard input");
    TRY(compile("--match", c->match, c->n_match, j->match, &j->o.n_match, e));
    return compile("--drop", c->drop, c->n_drop, j->drop, &j->o.n_drop, e);
}

static status check_output(const struct job *j, const char *what, const char *path, struct err *e)
{
    struct file_facts f;
    TRY(output_apart(what, path, (const char *const[]){ j->c->base, j->c->template_name }, 2, e));
    TRY(output_check(what, path, j->path, j->n_files, e));
    if (j->c->overwrite || !file_stat(path, &f) || !f.regular) return OK;
    return err_set(e, ERR_USAGE, "%s: exists; --overwrite replaces it", path);
}

/* "data.jsonl" -> "data.valid.jsonl" */
static status name_outputs(struct job *j, struct err *e)
{
    const char *out = j->c->output, *name = out ? path_base(out) : NULL, *dot = name ? strrchr(name, '.') : NULL;
    if (!out) return OK;
    if (!strcmp(out, "-")) return err_set(e, ERR_USAGE, "-o: expected a file");
    int stem = (int)((dot && dot > name ? dot : out + strlen(out)) - out);
    if (snprintf(j->held_path, sizeof j->held_path, "%.*s.valid%s", stem, out, out + stem) >= (int)sizeof j->held_path)
        return err_set(e, ERR_USAGE, "-o: the name is too long");
    TRY(check_output(j, "-o", out, e));
    return j->c->split > 0 ? check_output(j, "--split", j->held_path, e) : OK;
}

/* ---- with a model ---- */

static status preview(const struct cli *c, const struct vocab *v, const struct train_set *s, const struct train_options *o, struct err *e)
{
    struct buffer b = { 0 };
    struct json_out j;
    json_out_init(&j, false);
    bool ok = train_set_summary(s, o, &b);
    if (ok && !c->quiet) fputs(b.p, stderr);
    b.n = 0;
    if (c->json) train_preview_json(s, c->preview, &j);
    ok = ok && (c->json ? json_out_ok(&j) : train_preview(s, v->tok, c->preview, term_color(c, 1), &b));
    if (ok && c->json) out_write(j.buf, j.n), out_write("\n", 1);
    else if (ok) out_write(b.p, b.n);
    json_out_free(&j);
    buffer_free(&b);
    return ok ? OK : err_oom(e, "preview", b.n);
}

static status with_model(struct job *j, bool shows, struct err *e)
{
    struct cli c = *j->c;
    struct vocab v = { 0 };
    struct train_set s = { 0 };
    struct buffer b = { 0 };
    c.model = c.base;
    TRY(vocab_open(&v, &c, e));
    struct train_options o = train_choices(&c);
    if (!shows) o.n_ctx = 0, o.skip_bad = true;
    struct err why = { 0 };
    struct bar bar;
    bar_begin(&bar, &c, "read", "KiB", train_files_kib(j->path, j->n_files));
    o.bar = &bar;
    status st = train_set_read(&s, j->path, j->n_files, v.tok, v.chat_template, &o, &why);
    bar_end(&bar);
    bool none = st == ERR_FORMAT && s.n_samples == 0 && o.skip_bad && s.n_files == j->n_files; /* all rows are bad: told as such */
    if (st != OK && !none) err_set(e, st, "%s", why.text);
    if (st == OK && shows) st = preview(&c, &v, &s, &o, e);
    else if (shows && s.n_bad > 1 && train_faults_print(&s, &b)) fputs(b.p, stderr);
    if (!shows && (st == OK || none)) st = data_count_tokens(&j->d, &s, e);
    buffer_free(&b);
    train_set_close(&s);
    vocab_close(&v);
    return st;
}

/* ---- the report ---- */

struct spread { int64_t least, median, high, most, total, n; };

static int ascending(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* Over all rows that are not bad. */
static status spread_of(const struct data_set *d, size_t offset, struct spread *out, struct err *e)
{
    int64_t *v = mem_alloc(((size_t)d->n_rows + 1) * sizeof *v), n = 0;
    if (!v) return err_oom(e, "rows", (size_t)d->n_rows * sizeof *v);
    *out = (struct spread){ 0 };
    for (int64_t i = 0; i < d->n_rows; i++) {
        if (d->row[i].fate == DATA_BAD) continue;
        memcpy(&v[n], (const char *)&d->row[i] + offset, sizeof *v);
        out->total += v[n++];
    }
    qsort(v, (size_t)n, sizeof *v, ascending);
    if (n > 0) *out = (struct spread){ v[0], v[n / 2], v[(n - 1) * 95 / 100], v[n - 1], out->total, n };
    mem_free(v);
    return OK;
}

static const struct { const char *name; size_t offset; bool needs_model; } measures[] = {
    { "characters", offsetof(struct data_row, n_chars), false },
    { "tokens", offsetof(struct data_row, n_tokens), true },
    { "learnt", offsetof(struct data_row, n_trained), true },
};

static const char *plural(int64_t n) { return n == 1 ? "" : "s"; }

static status print_text(const struct job *j, struct err *e)
{
    const struct data_set *d = &j->d;
    for (int i = 0; i < d->n_files; i++) {
        const struct train_file *f = &d->file[i].facts;
        if (f->format == TRAIN_PLAIN) out_printf("%s: plain text\n", f->path);
        else out_printf("%s: %lld row%s of format %s\n", f->path, (long long)f->n_rows, plural(f->n_rows), train_format_names[f->format]);
    }
    static const char *const roles[DATA_ROLES] = { "system", "user", "assistant", "tool", "of other roles" };
    for (int i = 0; i < DATA_ROLES && d->n_turns[2] > 0; i++)
        if (i < 3 || d->n_turns[i] > 0) out_printf("%s%lld %s", i ? ", " : "turns: ", (long long)d->n_turns[i], roles[i]);
    if (d->n_turns[2] > 0) out_printf("\n");
    out_printf("%-12s %9s %9s %9s %9s %12s\n", "", "least", "median", "95 %", "most", "total");
    for (int i = 0; i < ARRAY_LEN(measures); i++) {
        struct spread x;
        if (measures[i].needs_model && !j->c->base) continue;
        TRY(spread_of(d, measures[i].offset, &x, e));
        out_printf("%-12s %9lld %9lld %9lld %9lld %12lld\n", measures[i].name, (long long)x.least, (long long)x.median, (long long)x.high, (long long)x.most,
                   (long long)x.total);
    }
    out_printf("duplicates: %lld exact, ", (long long)d->n_exact);
    if (j->o.near > 0) out_printf("%lld near (%g or more of their shingles in common)\n", (long long)d->n_near, j->o.near);
    else out_printf("near ones not looked for\n");
    out_printf("kept: %lld of %lld row%s", (long long)d->count[DATA_KEPT], (long long)d->n_rows, plural(d->n_rows));
    for (int i = 1, n = 0; i < DATA_FATES; i++)
        if (d->count[i] > 0) out_printf("%s%s %lld", n++ ? ", " : "; left out: ", data_fate_names[i], (long long)d->count[i]);
    out_printf("\n");
    if (j->c->output && j->held)
        out_printf("%s: %lld, %s: %lld\n", j->c->output, (long long)(d->count[DATA_KEPT] - j->n_held), j->held_path, (long long)j->n_held);
    else if (j->c->output) out_printf("%s: %lld\n", j->c->output, (long long)d->count[DATA_KEPT]);
    return OK;
}

static void json_files(struct json_out *o, const struct data_set *d)
{
    json_begin(o, "files", '[');
    for (int i = 0; i < d->n_files; i++) {
        const struct train_file *f = &d->file[i].facts;
        json_begin(o, NULL, '{');
        json_put_cstr(o, "path", f->path);
        json_put_cstr(o, "format", train_format_names[f->format]);
        json_put_i64(o, "rows", f->n_rows);
        json_put_i64(o, "bad", f->n_bad);
        json_begin(o, "unused", '[');
        for (int k = 0; k < f->n_unknown; k++) json_put_cstr(o, NULL, f->unknown[k]);
        json_end(o, ']');
        json_end(o, '}');
    }
    json_end(o, ']');
}

static status print_json(const struct job *j, struct err *e)
{
    static const char *const fates[DATA_FATES] = { "kept", "bad", "short", "long", "unmatched", "matched", "exact", "near" };
    const struct data_set *d = &j->d;
    struct json_out o;
    status st = OK;
    json_out_init(&o, false);
    json_begin(&o, NULL, '{');
    json_files(&o, d);
    json_put_i64(&o, "rows", d->n_rows);
    for (int i = 0; st == OK && i < ARRAY_LEN(measures); i++) {
        struct spread x;
        if (measures[i].needs_model && !j->c->base) continue;
        st = spread_of(d, measures[i].offset, &x, e);
        json_begin(&o, measures[i].name, '{');
        json_put_i64(&o, "least", x.least), json_put_i64(&o, "median", x.median), json_put_i64(&o, "p95", x.high);
        json_put_i64(&o, "most", x.most), json_put_i64(&o, "total", x.total);
        json_end(&o, '}');
    }
    json_put_i64(&o, "exact_duplicates", d->n_exact);
    json_put_i64(&o, "near_duplicates", d->n_near);
    json_begin(&o, "left_out", '{');
    for (int i = 1; i < DATA_FATES; i++) json_put_i64(&o, fates[i], d->count[i]);
    json_end(&o, '}');
    json_put_i64(&o, "kept", d->count[DATA_KEPT]);
    if (j->held) json_put_i64(&o, "held_out", j->n_held);
    json_end(&o, '}');
    if (st == OK && !json_out_ok(&o)) st = err_oom(e, "JSON output", o.n);
    if (st == OK) out_write(o.buf, o.n), out_write("\n", 1);
    json_out_free(&o);
    return st;
}

static void tell_row(const struct data_set *d, const struct data_row *x)
{
    static const char *const words[DATA_FATES] = { [DATA_KEPT] = "kept", [DATA_EXACT] = "left out", [DATA_NEAR] = "left out" };
    const char *path = d->file[x->file].facts.path;
    fprintf(stderr, "  %s:%lld: %s", path, (long long)x->line, words[x->fate] ? words[x->fate] : data_fate_names[x->fate]);
    if (x->like >= 0 && memcmp(x->hash, d->row[x->like].hash, sizeof x->hash) != 0) fprintf(stderr, ", %.2f like ", (double)x->share);
    else if (x->like >= 0) fprintf(stderr, ", the same as ");
    if (x->like >= 0) fprintf(stderr, "%s:%lld", d->file[d->row[x->like].file].facts.path, (long long)d->row[x->like].line);
    fputc('\n', stderr);
}

/* Notes on stderr: bad rows, members that nothing reads, and which rows are duplicates or left out (-v: all of them). */
static void tell(const struct job *j)
{
    const struct data_set *d = &j->d;
    int64_t shown = 0, more = 0;
    if (j->c->quiet) return;
    out_flush();
    for (int64_t i = 0; i < d->n_rows; i++) {
        const struct data_row *x = &d->row[i];
        if (x->fate == DATA_BAD || (x->fate == DATA_KEPT && x->like < 0)) continue;
        if (j->c->verbose || (x->like >= 0 && shown < SHOWN)) tell_row(d, x), shown++;
        else more += x->like >= 0;
    }
    if (more > 0) fprintf(stderr, "  and %lld more duplicates (-v shows all rows that are left out)\n", (long long)more);
    for (int i = 0; i < d->n_files; i++) {
        const struct train_file *f = &d->file[i].facts;
        if (f->n_unknown == 0) continue;
        fprintf(stderr, "note: %s has members that are not used in training: ", f->path);
        for (int k = 0; k < f->n_unknown; k++) fprintf(stderr, "%s%s", k ? ", " : "", f->unknown[k]);
        fputs(f->n_unknown == TRAIN_UNKNOWN ? ", ...\n" : "\n", stderr);
    }
    for (int64_t i = 0; i < min_i64(d->n_bad, TRAIN_FAULTS); i++)
        fprintf(stderr, "  %s:%lld: %s\n", d->fault[i].file, (long long)d->fault[i].line, d->fault[i].text);
    if (d->n_bad > TRAIN_FAULTS) fprintf(stderr, "  and %lld more\n", (long long)(d->n_bad - TRAIN_FAULTS));
}

/* ---- output ---- */

/* A row as one line: between the members of a list JSON may have line ends, in strings it has none. */
static status write_row(struct file_out *f, const struct data_row *x, struct buffer *line, struct err *e)
{
    line->n = 0;
    size_t n = x->n;
    while (n > 0 && strchr(" \t\r\n", x->p[n - 1])) n--;
    if (!buffer_append(line, x->p, n) || !buffer_append(line, "\n", 1)) return err_oom(e, "row", n);
    for (size_t i = 0; i < n; i++)
        if (line->p[i] == '\n' || line->p[i] == '\r') line->p[i] = ' ';
    return file_write(f, line->p, line->n, e);
}

static status write_rows(struct job *j, struct err *e)
{
    struct file_out out[2] = { { .fd = -1 }, { .fd = -1 } };
    struct buffer line = { 0 };
    const struct data_set *d = &j->d;
    status st = file_create(&out[0], j->c->output, e);
    if (st == OK && j->held) st = file_create(&out[1], j->held_path, e);
    for (int64_t i = 0; st == OK && i < d->n_rows; i++)
        if (d->row[i].fate == DATA_KEPT) st = write_row(&out[j->held && j->held[i]], &d->row[i], &line, e);
    if (st == OK && j->held) st = file_commit(&out[1], e);
    if (st == OK) st = file_commit(&out[0], e);
    for (int i = 0; i < 2; i++) file_abort(&out[i]);
    buffer_free(&line);
    return st;
}

static status clean(struct job *j, struct err *e)
{
    struct data_set *d = &j->d;
    TRY(data_read(d, j->path, j->n_files, e));
    if (j->c->base) TRY(with_model(j, false, e));
    struct bar bar;
    bar_begin(&bar, j->c, "compare", "rows", d->n_rows);
    j->o.bar = &bar;
    status st = data_filter(d, &j->o, e);
    bar_end(&bar);
    if (st != OK) return st;
    for (int i = 0; j->c->output && i < d->n_files; i++)
        if (d->file[i].facts.format == TRAIN_PLAIN && d->file[i].facts.n_rows > 0)
            return err_set(e, ERR_USAGE, "%.100s: plain text has no rows to write", d->file[i].facts.path);
    bool refused = d->n_bad > 0 && !j->c->skip_bad, writes = j->c->output && !refused;
    if (writes && d->count[DATA_KEPT] == 0) return err_set(e, ERR_RUNTIME, "-o %.100s: no row is left to write", j->c->output);
    if (writes && j->c->split > 0) {
        j->held = mem_alloc((size_t)d->n_rows + 1);
        if (!j->held) return err_oom(e, "rows", (size_t)d->n_rows);
        TRY(data_split(d, (double)j->c->split, j->c->data_seed, j->held, &j->n_held, e));
    }
    if (writes) TRY(write_rows(j, e));
    if (!refused || !j->c->output) TRY((j->c->json ? print_json : print_text)(j, e));
    tell(j);
    if (!refused) return OK;
    return err_set(e, ERR_FORMAT, "%lld bad row%s%s", (long long)d->n_bad, plural(d->n_bad), j->c->output ? ", nothing was written" : "");
}

static int run(struct cli *c)
{
    struct job j = { .c = c };
    struct err e = { 0 };
    status st = get_options(&j, &e);
    if (st == OK) st = name_outputs(&j, &e);
    if (st == OK) st = c->preview > 0 ? with_model(&j, true, &e) : clean(&j, &e);
    for (int i = 0; i < j.o.n_match; i++) regfree(&j.match[i]);
    for (int i = 0; i < j.o.n_drop; i++) regfree(&j.drop[i]);
    data_close(&j.d);
    mem_free(j.held);
    if (st == OK) return 0;
    bool bad = strstr(e.text, "bad row") != NULL, none = strstr(e.text, "no chat template") != NULL;
    return cli_fail(&e, bad ? "Correct them, or leave them out: --skip-bad" : none ? "Name one: --template chatml (or llama3, gemma, ..., or a file)." : NULL);
}

OPT_GROUP(data_rows_group, "Data",
    { "output", "-o", OPT_STR, OPT_AT(output), .value = "FILE", .help = "write the rows that are kept here, as JSON lines" },
    { "split", NULL, OPT_FLOAT, OPT_AT(split), .value = "X", .hi = 1e9,
      .help = "with -o: hold out this share (0.05) or number of rows, in FILE.valid.jsonl" },
    { "overwrite", "--force", OPT_FLAG, OPT_AT(overwrite), .help = "replace existing outputs" },
    { "seed", NULL, OPT_INT, OPT_AT(data_seed), .value = "N", .hi = 0x1p62, .help = "another split" },
    { "dedupe", NULL, OPT_STR, OPT_AT(dedupe), .value = "KIND", .def = "exact", .choices = "none|exact|near", .help = "leave out repeated rows" },
    { "near", NULL, OPT_FLOAT, OPT_AT(near), .value = "X", .def = "0.8", .hi = 1,
      .help = "rows are nearly the same when they share this part of their three-word shingles; 0: do not look" },
    { "min-chars", NULL, OPT_INT, OPT_AT(min_chars), .value = "N", .hi = 1e12, .help = "leave out rows that say less" },
    { "max-chars", NULL, OPT_INT, OPT_AT(max_chars), .value = "N", .hi = 1e12, .help = "leave out rows that say more" },
    { "match", NULL, OPT_LIST, OPT_AT(match), OPT_AT(n_match), 16, .value = "REGEX",
        .help = "keep only rows with a text that this POSIX pattern finds, repeatable" },
    { "drop", NULL, OPT_LIST, OPT_AT(drop), OPT_AT(n_drop), 16, .value = "REGEX", .help = "leave out rows with such a text, repeatable" },
    ROW_SKIP_BAD);
OPT_GROUP(data_model_group, "With a model",
    { "model", "-m", OPT_STR, OPT_AT(base), .value = "MODEL", .help = "count tokens as this model does" },
    { "min-tokens", NULL, OPT_INT, OPT_AT(min_tokens), .value = "N", .hi = 1e12, .help = "leave out shorter rows" },
    { "max-tokens", NULL, OPT_INT, OPT_AT(max_tokens), .value = "N", .hi = 1e12, .help = "leave out longer rows" },
    ROW_PREVIEW,
    { "ctx", "-c --ctx-size", OPT_INT, OPT_AT(ctx), .value = "N", .hi = 16777216, .help = "tokens of a sample in the preview; 0: any number" },
    ROW_TOO_LONG, ROW_LOSS, ROW_SPECIAL_ROWS, ROW_TEMPLATE, ROW_PRE);

static const struct opt_group *const groups[] = { &opts_common, &data_rows_group, &data_model_group, NULL };
const struct command command_data = {
    .name = "data", .brief = "check and clean training data",
    .usage = "cuanto data FILE... [options]",
    .examples = "cuanto data chats.jsonl\n"
                "cuanto data chats.jsonl --model models/m.gguf --preview 3\n"
                "cuanto data a.jsonl b.json -o clean.jsonl --dedupe near --split 0.05",
    .groups = groups, .min_args = 1, .max_args = -1, .run = run,
};
