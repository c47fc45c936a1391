/* cmd_chat - a conversation. stdout gets the answers; prompts, notes and numbers go to stderr or to the line editor.
 * The session always holds a front part of prompt.ids; each turn feeds only what is new (generator_prefill). With standard input from a pipe the
 * same lines work, without editing; the first refusal then ends the command with its exit code. */
#include "tools/buffer.h"
#include "tools/generate.h"
#include "tools/history.h"
#include "tools/keep.h"
#include "tools/lineedit.h"
#include "tools/opt.h"
#include "tools/prompt.h"
#include "tools/term.h"
#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CHAT_FILE_MAX = 64 << 20 };

struct talk {
    struct cli *cli;
    struct runtime rt;
    struct prompt prompt;
    struct generator gen;
    struct lineedit *line;
    struct arena words;          /* texts given to /set */
    struct buffer answer;
    bool interactive, color, no_memory;
    int64_t n_turns, n_prompt, n_reused, n_answer; /* totals for /stats */
    double prompt_ms, answer_ms;
};

static void note(const struct talk *t, const char *text)
{
    fprintf(stderr, "%s%s%s\n", term_style(t->color, STYLE_DIM), text, term_style(t->color, STYLE_RESET));
}

/* ---- one turn ---- */

static bool on_text(void *ctx, const char *p, size_t n)
{
    struct talk *t = ctx;
    t->no_memory = !buffer_append(&t->answer, p, n);
    return !t->no_memory && out_text(p, n);
}

static void finish_line(const struct talk *t)
{
    const struct generator *g = &t->gen;
    long long used = (long long)session_pos(t->rt.session), total = (long long)session_n_ctx(t->rt.session);
    char line[200];
    if (g->finish == FINISH_CONTEXT)
        fprintf(stderr, "context is full: %lld of %lld tokens; the answer was cut. /undo takes back the last exchange, /save FILE keeps the conversation, "
                "a larger context: -c %lld\n", used, total, 2 * total);
    if (t->cli->quiet) return;
    snprintf(line, sizeof line, "%s%lld tokens, %.1f tok/s | context %lld/%lld", g->finish == FINISH_INTERRUPT ? "stopped | " : "", (long long)g->n_generated,
             per_second(g->n_generated, g->predicted_ms), used, total);
    note(t, line);
    if (t->cli->verbose && generator_lookup_line(g, line, sizeof line)) note(t, line);
}

static void count(struct talk *t)
{
    const struct generator *g = &t->gen;
    t->n_turns++;
    t->n_prompt += g->n_prompt - g->n_reused;
    t->n_reused += g->n_reused;
    t->n_answer += g->n_generated;
    t->prompt_ms += g->prompt_ms;
    t->answer_ms += g->predicted_ms;
}

/* The conversation ends with a user message: generates and appends the answer. */
static status answer(struct talk *t, struct err *e)
{
    struct prompt *p = &t->prompt;
    struct generator *g = &t->gen;
    TRY(prompt_encode(p, true, e));
    TRY(generator_prefill(g, p->ids, p->n_ids, e));
    int64_t room = generator_room(g);
    size_t expected = (size_t)min_i64(room, 1 << 16) * 8;
    t->answer.n = 0;
    if (!buffer_reserve(&t->answer, expected)) return err_oom(e, "answer", expected);
    TRY(prompt_reserve(p, room, e));
    status st = generator_run(g, p->ids, &p->n_ids, e);
    if (t->answer.n == 0 || t->answer.p[t->answer.n - 1] != '\n') out_write("\n", 1);
    out_flush();
    if (st == OK && t->no_memory) st = err_oom(e, "answer", t->answer.n);
    if (st == OK) st = prompt_answer(p, t->answer.p, t->answer.n, !g->stop_hit, e);
    if (st == OK) st = chat_add(p->chat, "assistant", t->answer.p, t->answer.n, e);
    if (st != OK) return st;
    count(t);
    finish_line(t);
    return OK;
}

/* What to do about a refusal. */
static const char *advice(const struct talk *t, const struct err *e, char buf[220])
{
    if (!strstr(e->text, "the context holds")) return NULL;
    generator_advice(&t->gen, buf, 160);
    strcat(buf, "; /undo takes back the last exchange");
    return buf;
}

enum next { GO_ON, END, FAILED };

/* Generates; on failure the conversation goes back to n messages. *code: the exit code if this ends the command. */
static enum next turn(struct talk *t, int64_t n, int *code)
{
    struct err e = { 0 };
    char buf[220];
    status st = answer(t, &e);
    int signal = cli_interrupted;
    if (signal == 2 && t->interactive) cli_interrupted = 0; /* Ctrl-C: only this answer */
    if (st != OK) chat_truncate(t->prompt.chat, n);
    if (out_status()) return *code = out_status(), END;
    if (signal && signal != 2) return *code = 128 + signal, END;
    if (signal && !t->interactive) return *code = 128 + signal, END;
    if (st == OK) return GO_ON;
    if (e.code == ERR_INTERRUPTED) return note(t, "stopped before the answer began; the message was not kept (arrow up brings it back)"), GO_ON;
    *code = cli_fail(&e, advice(t, &e, buf));
    return t->interactive ? GO_ON : FAILED;
}

static enum next say(struct talk *t, const char *text, size_t n, int *code)
{
    struct err e = { 0 };
    int64_t before = chat_count(t->prompt.chat);
    if (chat_add(t->prompt.chat, "user", text, n, &e) != OK) return *code = cli_fail(&e, NULL), FAILED;
    return turn(t, before, code);
}

/* ---- commands ---- */

struct slash {
    const char *name, *args, *help;
    const char *alias; /* further names, space-separated, or NULL */
    enum next (*run)(struct talk *t, const char *arg, int *code);
};
static const struct slash slashes[];

static enum next complain(struct talk *t, const struct err *e, int *code)
{
    *code = cli_fail(e, NULL);
    return t->interactive ? GO_ON : FAILED;
}

static bool role_is(const struct talk *t, int64_t i, const char *role) { return i >= 0 && !strcmp(chat_at(t->prompt.chat, i).role, role); }

static enum next do_help(struct talk *t, const char *arg, int *code)
{
    for (const struct slash *s = slashes; s->name; s++) fprintf(stderr, "  %s %-*s %s\n", s->name, 18 - (int)strlen(s->name), s->args, s->help);
    fprintf(stderr, "  Several lines: start and end with \"\"\", end a line with \\, or press Alt-Enter or Ctrl-J.\n"
                    "  Ctrl-C stops an answer and keeps its text; Ctrl-D ends. A message may begin with a blank to start with /.\n");
    return GO_ON;
}

/* Puts the system message (NULL: none) at the front. */
static status set_system(struct talk *t, const char *text, struct err *e)
{
    struct chat *c = t->prompt.chat;
    int64_t n = chat_count(c), from = n > 0 && role_is(t, 0, "system");
    struct chat_message *old = mem_calloc((size_t)n + 1, sizeof *old);
    struct arena a;
    status st = old ? OK : err_oom(e, "conversation", (size_t)n * sizeof *old);
    arena_init(&a, 0);
    for (int64_t i = from; i < n && st == OK; i++) {
        struct chat_message m = chat_at(c, i);
        old[i] = (struct chat_message){ arena_strdup(&a, m.role, strlen(m.role)), arena_strdup(&a, m.text, m.n), m.n };
        if (!old[i].role || !old[i].text) st = err_oom(e, "conversation", m.n);
    }
    if (st == OK) {
        chat_truncate(c, 0);
        if (text) st = chat_add(c, "system", text, strlen(text), e);
        for (int64_t i = from; i < n && st == OK; i++) st = chat_add(c, old[i].role, old[i].text, old[i].n, e);
    }
    arena_free(&a);
    mem_free(old);
    return st;
}

static enum next do_system(struct talk *t, const char *arg, int *code)
{
    struct err e = { 0 };
    if (!*arg) {
        bool any = chat_count(t->prompt.chat) > 0 && role_is(t, 0, "system");
        return fprintf(stderr, "%s\n", any ? chat_at(t->prompt.chat, 0).text : "no system message"), GO_ON;
    }
    if (set_system(t, strcmp(arg, "-") ? arg : NULL, &e) != OK) return complain(t, &e, code);
    return note(t, strcmp(arg, "-") ? "system message set; it is read with the next message" : "system message removed"), GO_ON;
}

static enum next show_settings(const struct talk *t)
{
    char value[256];
    for (int i = 0; i < opts_sampling.n; i++) {
        opt_text(t->cli, &opts_sampling.rows[i], value, sizeof value);
        fprintf(stderr, "  %-18s %-10s %s\n", opts_sampling.rows[i].name, value, opts_sampling.rows[i].help);
    }
    return GO_ON;
}

static status set_option(struct talk *t, const struct opt *o, const char *value, struct err *e)
{
    struct cli old = *t->cli;
    char *kept = arena_strdup(&t->words, value, strlen(value));
    status st = kept ? OK : err_oom(e, "/set", strlen(value));
    if (st == OK && o->kind == OPT_LIST && !*value) *(int *)((char *)t->cli + o->count_offset) = 0;
    else if (st == OK) st = opt_store(t->cli, o, o->kind == OPT_FLAG && !*kept ? "on" : kept, o->name, e);
    if (st == OK && o->offset == OPT_AT(seed)) t->gen.n_answers = 0;
    if (st == OK) st = generator_sampling(&t->gen, t->cli, e);
    if (st != OK) *t->cli = old;
    return st;
}

static enum next do_set(struct talk *t, const char *arg, int *code)
{
    struct err e = { 0 };
    size_t n = strcspn(arg, " =");
    if (!n) return show_settings(t);
    bool negated;
    const struct opt *o = opt_named(&opts_sampling, arg, n, &negated);
    if (!o) {
        if (n == 6 && !memcmp(arg, "system", n)) err_set(&e, ERR_USAGE, "/set has no option 'system'; /system TEXT sets the system message");
        else err_set(&e, ERR_USAGE, "/set has no option '%.*s'; /set alone lists them", (int)(n < 40 ? n : 40), arg);
        return complain(t, &e, code);
    }
    arg += n;
    arg += strspn(arg, " =");
    char value[256];
    if (!*arg && o->kind != OPT_LIST && o->kind != OPT_FLAG) {
        opt_text(t->cli, o, value, sizeof value);
        return fprintf(stderr, "%s = %s (%s)\n", o->name, value, o->help), GO_ON;
    }
    if (negated && *arg) err_set(&e, ERR_USAGE, "/set %s: takes no value with no- before it", o->name);
    if (e.code || set_option(t, o, negated ? "off" : arg, &e) != OK) return complain(t, &e, code);
    opt_text(t->cli, o, value, sizeof value);
    return fprintf(stderr, "%s = %s\n", o->name, value), GO_ON;
}

/* Messages of the last exchange: the answer and the question before it. */
static enum next do_undo(struct talk *t, const char *arg, int *code)
{
    int64_t n = chat_count(t->prompt.chat);
    if (role_is(t, n - 1, "assistant")) n--;
    if (role_is(t, n - 1, "user")) n--;
    bool any = n < chat_count(t->prompt.chat);
    chat_truncate(t->prompt.chat, n);
    return note(t, any ? "last exchange taken back" : "nothing to take back"), GO_ON;
}

/* Back to the system message: the session keeps what of it the next prompt shares. */
static enum next do_clear(struct talk *t, const char *arg, int *code)
{
    chat_truncate(t->prompt.chat, role_is(t, 0, "system"));
    return note(t, "the conversation starts over"), GO_ON;
}

static enum next do_regen(struct talk *t, const char *arg, int *code)
{
    struct err e = { 0 };
    int64_t n = chat_count(t->prompt.chat);
    if (role_is(t, n - 1, "assistant")) n--;
    if (!role_is(t, n - 1, "user")) return err_set(&e, ERR_USAGE, "/regen: there is no message to answer"), complain(t, &e, code);
    chat_truncate(t->prompt.chat, n);
    return turn(t, n, code);
}

static status save(const struct talk *t, const char *path, struct err *e)
{
    struct file_out f;
    char *text;
    size_t n;
    TRY(chat_to_json(t->prompt.chat, &text, &n, e));
    status st = file_create(&f, path, e);
    if (st == OK) {
        st = file_write(&f, text, n, e);
        if (st == OK) st = file_commit(&f, e);
        else file_abort(&f);
    }
    mem_free(text);
    return st;
}

static enum next do_save(struct talk *t, const char *arg, int *code)
{
    struct err e = { 0 };
    if (!*arg && t->cli->session_file) {
        if (keep_save(&t->rt, t->cli, &t->prompt, &e) != OK) return complain(t, &e, code);
        return fprintf(stderr, "session saved to %s\n", t->cli->session_file), GO_ON;
    }
    if (!*arg) err_set(&e, ERR_USAGE, "/save needs a file name");
    if (e.code || save(t, arg, &e) != OK) return complain(t, &e, code);
    return fprintf(stderr, "%lld messages saved to %s\n", (long long)chat_count(t->prompt.chat), arg), GO_ON;
}

static status load(struct talk *t, const char *path, struct err *e)
{
    struct arena a;
    struct json *j;
    char *text;
    size_t n;
    TRY(file_text(path, CHAT_FILE_MAX, &text, &n, e));
    arena_init(&a, 0);
    status st = json_parse(&j, text, n, &a, path, e);
    if (st == OK) st = chat_from_json(t->prompt.chat, j, e);
    arena_free(&a);
    mem_free(text);
    return st;
}

static enum next do_load(struct talk *t, const char *arg, int *code)
{
    struct err e = { 0 };
    if (!*arg) err_set(&e, ERR_USAGE, "/load needs a file name");
    if (e.code || load(t, arg, &e) != OK) return complain(t, &e, code);
    return fprintf(stderr, "%lld messages loaded from %s\n", (long long)chat_count(t->prompt.chat), arg), GO_ON;
}

static enum next do_context(struct talk *t, const char *arg, int *code)
{
    long long total = (long long)session_n_ctx(t->rt.session);
    int64_t used;
    struct err e = { 0 };
    char kv[32];
    /* Counted, not read off the session: after /undo, /load or /system that still holds the conversation before. */
    if (prompt_count(&t->prompt, &used, &e) != OK) return complain(t, &e, code);
    fprintf(stderr, "context %lld/%lld tokens (%.0f %%), %lld messages, KV cache %s\n", (long long)used, total, 100.0 * (double)used / (double)total,
            (long long)chat_count(t->prompt.chat), size_text(session_bytes(t->rt.session), kv));
    return GO_ON;
}

static enum next do_stats(struct talk *t, const char *arg, int *code)
{
    fprintf(stderr, "%lld %s | read %lld tokens at %.1f tok/s, %lld more came from the cache | wrote %lld tokens at %.1f tok/s | seed %llu\n",
            (long long)t->n_turns, t->n_turns == 1 ? "answer" : "answers",
            (long long)t->n_prompt, per_second(t->n_prompt, t->prompt_ms), (long long)t->n_reused, (long long)t->n_answer,
            per_second(t->n_answer, t->answer_ms), (unsigned long long)t->gen.seed);
    return GO_ON;
}

static enum next do_bye(struct talk *t, const char *arg, int *code) { return END; }

static const struct slash slashes[] = {
    { "/help", "", "this list", "/?", do_help },
    { "/system", "[TEXT|-]", "show, set or remove the system message", NULL, do_system },
    { "/set", "[NAME VALUE]", "show or change sampling options", NULL, do_set },
    { "/undo", "", "take back the last message and its answer", NULL, do_undo },
    { "/clear", "", "start over; the system message stays (also /reset, /new)", "/reset /new", do_clear },
    { "/regen", "", "answer the last message again", NULL, do_regen },
    { "/save", "[FILE]", "write the conversation as JSON; without a name: --session", NULL, do_save },
    { "/load", "FILE", "replace the conversation by a saved one", NULL, do_load },
    { "/context", "", "tokens used and total", NULL, do_context },
    { "/stats", "", "speed and counts so far", NULL, do_stats },
    { "/bye", "", "end (also /exit, Ctrl-D)", "/exit /quit", do_bye },
    { NULL },
};
static const char *const slash_words[] = { "/help", "/system", "/set", "/undo", "/clear", "/regen", "/save", "/load", "/context", "/stats", "/bye", "/exit",
                                          NULL };

static bool slash_is(const struct slash *s, const char *word, size_t n)
{
    if (strlen(s->name) == n && !memcmp(s->name, word, n)) return true;
    for (const char *a = s->alias; a && *a; a += strspn(a, " ")) {
        size_t len = strcspn(a, " ");
        if (len == n && !memcmp(a, word, n)) return true;
        a += len;
    }
    return false;
}

static enum next command(struct talk *t, const char *text, int *code)
{
    size_t n = strcspn(text, " \t\n");
    const char *arg = text + n;
    struct err e = { 0 };
    char typed[32];
    arg += strspn(arg, " \t\n");
    for (const struct slash *s = slashes; s->name; s++)
        if (slash_is(s, text, n)) return s->run(t, arg, code);
    snprintf(typed, sizeof typed, "%.*s", (int)(n < 31 ? n : 31), text);
    const char *best = nearest(typed, slash_words, ARRAY_LEN(slash_words) - 1);
    err_set(&e, ERR_USAGE, "no command %s%s%s; /help lists them (a blank before / sends the line as text)", typed, best ? ", did you mean " : "",
            best ? best : "");
    return complain(t, &e, code);
}

/* ---- the loop ---- */

static int converse(struct talk *t)
{
    int code = 0;
    for (int cancelled = 0;;) {
        const char *text;
        size_t n;
        enum next next = GO_ON;
        switch (lineedit_read(t->line, ">>> ", &text, &n)) {
        case LINE_OK: break;
        case LINE_EOF: return 0;
        case LINE_SIGNAL: return 128 + cli_interrupted;
        case LINE_ERROR: return cli_fail(&(struct err){ ERR_RUNTIME, "reading the message failed" }, NULL);
        case LINE_CANCEL:
            if (n == 0 && cancelled++) return 130;
            if (n == 0) note(t, "Ctrl-D or /bye ends, a second Ctrl-C too");
            continue;
        }
        cancelled = 0;
        if (strspn(text, " \t\r\n") == n) continue;
        next = text[0] == '/' ? command(t, text, &code) : say(t, text, n, &code);
        if (next != GO_ON) return code;
        code = 0;
    }
}

static void list_folder(const char *dir, size_t n, int *found, char *example, size_t cap)
{
    char path[4096], size[32];
    struct stat st;
    snprintf(path, sizeof path, "%.*s", (int)n, dir);
    DIR *d = opendir(path);
    for (struct dirent *f; d && (f = readdir(d));) {
        size_t len = strlen(f->d_name);
        if (len < 6 || strcasecmp(f->d_name + len - 5, ".gguf")) continue;
        if (snprintf(path, sizeof path, "%.*s/%s", (int)n, dir, f->d_name) >= (int)sizeof path || stat(path, &st) != 0) continue;
        if ((*found)++ == 0) snprintf(example, cap, "%s", path), fprintf(stderr, "Models here:\n");
        fprintf(stderr, "  %s  %s\n", path, size_text((uint64_t)st.st_size, size));
    }
    if (d) closedir(d);
}

/* chat without a model: what there is, and what to type. */
static int offer_models(void)
{
    const char *dirs = getenv("CUANTO_MODELS");
    char example[4096];
    int found = 0;
    fprintf(stderr, "cuanto: chat needs a model\n");
    list_folder("models", 6, &found, example, sizeof example);
    for (const char *p = dirs; p && *p;) {
        size_t n = strcspn(p, ":");
        list_folder(p, n, &found, example, sizeof example);
        p += n + (p[n] == ':');
    }
    if (found) fprintf(stderr, "Type: cuanto chat %s\n", example);
    else fprintf(stderr, "There is none in ./models%s.\nGet a small one with models/get_model, or give the path of a .gguf file: cuanto chat FILE\n",
                 dirs ? " or $CUANTO_MODELS" : "");
    return ERR_USAGE;
}

static status open_line(struct talk *t, struct err *e)
{
    char path[4096];
    bool keep = !t->cli->no_history && term_is_tty(STDIN_FILENO) && history_path(path, sizeof path);
    struct line_options o = { .in = STDIN_FILENO, .out = term_is_tty(STDOUT_FILENO) ? STDOUT_FILENO : STDERR_FILENO, .color = t->color,
                              .history = keep ? path : NULL, .words = slash_words };
    TRY(lineedit_open(&t->line, &o, e));
    t->interactive = lineedit_interactive(t->line);
    return OK;
}

static const char *start_hint(const struct err *e)
{
    if (e->code == ERR_MEMORY) return "Try a smaller context (-c 2048) or --kv-type q8_0.";
    if (strstr(e->text, "no chat template"))
        return "It may not be a chat model. Plain continuation: cuanto run MODEL --raw TEXT. Or name a template: --template chatml.";
    if (e->code == ERR_FORMAT && strstr(e->text, "tokenizer.chat_template"))
        return "Use a built-in template instead: --template chatml (or llama3, gemma, ...).";
    return NULL;
}

static int run(struct cli *c)
{
    struct talk t = { .cli = c, .color = term_color(c, STDERR_FILENO) };
    struct err e = { 0 };
    if (!c->model) return offer_models();
    arena_init(&t.words, 0);
    status st = runtime_open(&t.rt, c, RUNTIME_DEFAULT_CTX, &e);
    if (st == OK) st = prompt_open(&t.prompt, model_tokenizer(t.rt.model), model_template(t.rt.model), c->template_name, c->model, &e);
    if (st == OK) st = keep_load(&t.rt, c, &t.prompt, &e);
    if (st == OK && c->load) st = load(&t, c->load, &e);
    if (st == OK && c->system) st = set_system(&t, c->system, &e);
    if (st == OK) st = generator_open(&t.gen, &t.rt, c, &e);
    if (st == OK) st = open_line(&t, &e);
    t.gen.text = on_text, t.gen.ctx = &t;
    if (st == OK && t.interactive && !c->quiet) note(&t, "Type a message. /help lists commands, Ctrl-D ends.");
    int code = st == OK ? converse(&t) : cli_fail(&e, start_hint(&e));
    if (st == OK && keep_save(&t.rt, c, &t.prompt, &e) != OK) code = cli_fail(&e, NULL);
    lineedit_close(t.line);
    generator_close(&t.gen);
    prompt_close(&t.prompt);
    runtime_close(&t.rt);
    buffer_free(&t.answer);
    arena_free(&t.words);
    return code;
}

OPT_GROUP(chat_rows, "Chat",
    { "load", NULL, OPT_STR, OPT_AT(load), .value = "FILE", .help = "begin with a saved conversation" },
    ROW_SESSION("keep the conversation in this file; when it is there, go on from it"),
    ROW_LOOKUP,
    { "no-history", NULL, OPT_FLAG, OPT_AT(no_history), .help = "neither read nor write the file of typed lines" },
    ROW_QUIET, ROW_VERBOSE, ROW_COLOR);

static const struct opt_group *const groups[] = { &chat_rows, &opts_prompt, &opts_sampling, &opts_model, &opts_cpu, NULL };
const struct command command_chat = {
    .name = "chat", .brief = "talk with a model",
    .usage = "cuanto chat [MODEL] [options]",
    .examples = "cuanto chat models/m.gguf\n"
                "cuanto chat models/m.gguf -s 'Answer in one sentence.' -c 8192\n"
                "printf 'Hello\\n/bye\\n' | cuanto chat models/m.gguf -q",
    .groups = groups, .min_args = 0, .max_args = 1, .run = run,
};
