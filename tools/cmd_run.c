/* cmd_run - one prompt, one answer, for pipes: stdout gets the answer and nothing else. */
#include "tools/beams.h"
#include "tools/generate.h"
#include "tools/input.h"
#include "tools/keep.h"
#include "tools/opt.h"
#include "tools/prompt.h"
#include "tools/term.h"
#include "tools/vocab.h"
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* ---- output ---- */

struct run {
    struct cli *cli;
    struct runtime rt;
    struct prompt prompt;
    struct generator gen;
    struct buffer input, answer;
    struct json_out json;
    struct beam_result beams;
    char *piece; size_t piece_cap; /* for log probabilities */
    bool collect;                  /* the answer is printed at the end, not streamed */
    bool no_memory;
    char last;                     /* byte printed */
};

static bool on_text(void *ctx, const char *p, size_t n)
{
    struct run *r = ctx;
    r->last = p[n - 1];
    if (!r->collect) return out_text(p, n);
    r->no_memory = !buffer_append(&r->answer, p, n);
    return !r->no_memory;
}

static void put_token(struct run *r, int32_t id, float logprob)
{
    json_put_i64(&r->json, "id", id);
    put_piece(&r->json, r->prompt.tok, id, r->piece, r->piece_cap);
    json_put_f64(&r->json, "logprob", (double)logprob);
}

static void on_token(void *ctx, const struct generator *g, int32_t id, float logprob)
{
    struct run *r = ctx;
    json_begin(&r->json, NULL, '{');
    put_token(r, id, logprob);
    json_begin(&r->json, "top", '[');
    for (int64_t i = 0; i < min_i64(g->cli->top_logprobs, g->n_vocab); i++) {
        json_begin(&r->json, NULL, '{');
        put_token(r, g->top_id[i], g->top_logprob[i]);
        json_end(&r->json, '}');
    }
    json_end(&r->json, ']');
    json_end(&r->json, '}');
}

/* A fence line: up to three spaces, then at least three equal marks. Returns their number. */
static size_t fence(const char *line, size_t n, char *mark)
{
    size_t i = 0, k;
    while (i < n && i < 3 && line[i] == ' ') i++;
    if (i >= n || (line[i] != '`' && line[i] != '~')) return 0;
    for (k = i; k < n && line[k] == line[i]; k++) {}
    *mark = line[i];
    return k - i >= 3 ? k - i : 0;
}

/* The inside of the first fenced code block; false when there is none. An unclosed block goes to the end. */
static bool first_block(const char *p, size_t n, const char **out, size_t *n_out)
{
    const char *end = p + n, *body = NULL;
    size_t opened = 0;
    char mark = 0;
    while (p < end) {
        const char *nl = memchr(p, '\n', (size_t)(end - p)), *next = nl ? nl + 1 : end;
        char m = 0;
        size_t k = fence(p, (size_t)((nl ? nl : end) - p), &m);
        if (!body && k) body = next, opened = k, mark = m;
        else if (body && k >= opened && m == mark) return *out = body, *n_out = (size_t)(p - body), true;
        p = next;
    }
    if (body) *out = body, *n_out = (size_t)(end - body);
    return body != NULL;
}

static status print_json(struct run *r, const char *text, size_t n, struct err *e)
{
    struct json_out *o = &r->json;
    struct generator *g = &r->gen;
    if (r->cli->top_logprobs > 0) json_end(o, ']');
    json_put_str(o, "text", text, n);
    if (r->cli->beams) TRY(beams_json(g, &r->beams, o, e));
    json_put_i64(o, "tokens", g->n_generated);
    json_put_i64(o, "prompt_tokens", g->n_prompt);
    json_put_cstr(o, "finish_reason", finish_name(g->finish));
    json_put_i64(o, "seed", (int64_t)g->seed);
    json_begin(o, "timings", '{');
    json_put_f64(o, "load_ms", r->rt.load_ms);
    json_put_f64(o, "prompt_ms", g->prompt_ms);
    json_put_f64(o, "prompt_per_second", per_second(g->n_prompt - g->n_reused, g->prompt_ms));
    json_put_f64(o, "predicted_ms", g->predicted_ms);
    json_put_f64(o, "predicted_per_second", per_second(g->n_generated, g->predicted_ms));
    json_end(o, '}');
    json_end(o, '}');
    if (!json_out_ok(o)) return err_oom(e, "JSON output", o->n);
    out_write(o->buf, o->n);
    out_write("\n", 1);
    return OK;
}

/* What was collected, or the newline that a streamed answer lacks. */
static status print_rest(struct run *r, struct err *e)
{
    const char *text = r->answer.p ? r->answer.p : "";
    size_t n = r->answer.n;
    if (r->cli->extract && !first_block(text, n, &text, &n) && !r->cli->quiet)
        fprintf(stderr, "no fenced code block in the answer: all of it follows\n");
    if (r->cli->json) return print_json(r, text, n, e);
    if (r->cli->n_best > 1) return beams_print(&r->gen, &r->beams, e);
    if (r->collect) out_text(text, n);
    if (r->collect && n) r->last = text[n - 1];
    if (r->last != '\n') out_write("\n", 1);
    return OK;
}

static void report(const struct run *r)
{
    const struct generator *g = &r->gen;
    if (g->finish == FINISH_CONTEXT)
        fprintf(stderr, "context is full: %lld of %lld tokens used; the answer ends here (a larger context: -c %lld)\n",
                (long long)(session_pos(r->rt.session) + (r->cli->beams ? g->n_generated : 0)), /* a search leaves the session at the prompt */
                (long long)session_n_ctx(r->rt.session), (long long)(2 * session_n_ctx(r->rt.session)));
    if (r->cli->quiet) return;
    char kept[48] = "";
    if (g->n_reused) snprintf(kept, sizeof kept, " (%lld of the session)", (long long)g->n_reused);
    fprintf(stderr, "prompt %lld tokens%s, %.1f tok/s | answer %lld tokens, %.1f tok/s | %s | seed %llu\n", (long long)g->n_prompt, kept,
            per_second(g->n_prompt - g->n_reused, g->prompt_ms), (long long)g->n_generated, per_second(g->n_generated, g->predicted_ms), finish_name(g->finish),
            (unsigned long long)g->seed);
    char line[160];
    if (r->cli->verbose && generator_lookup_line(g, line, sizeof line)) fprintf(stderr, "%s\n", line);
}

/* ---- the command ---- */

static status encode(struct run *r, struct err *e)
{
    const struct cli *c = r->cli;
    struct prompt *p = &r->prompt;
    if (c->raw) {
        p->tok = model_tokenizer(r->rt.model);
        TRY(encode_text(p->tok, r->input.p, r->input.n, c->special ? ENCODE_SPECIAL : 0, &p->ids, &p->n_ids, &p->cap, e));
        return c->no_bos ? OK : prompt_add_bos(p, e);
    }
    TRY(prompt_open(p, model_tokenizer(r->rt.model), model_template(r->rt.model), c->template_name, c->model, e));
    if (c->system) TRY(chat_add(p->chat, "system", c->system, strlen(c->system), e));
    TRY(chat_add(p->chat, "user", r->input.p, r->input.n, e));
    return prompt_encode(p, true, e);
}

static status answer(struct run *r, struct err *e)
{
    struct prompt *p = &r->prompt;
    struct generator *g = &r->gen;
    TRY(generator_open(g, &r->rt, r->cli, e));
    g->text = on_text, g->ctx = r;
    g->token = r->cli->top_logprobs > 0 ? on_token : NULL;
    json_out_init(&r->json, false);
    if (r->cli->json) json_begin(&r->json, NULL, '{');
    if (g->token) json_begin(&r->json, "logprobs", '[');
    TRY(keep_load(&r->rt, r->cli, NULL, e));
    cli_signals_at_once(true); /* nothing is printed yet, and one pass of a large model takes seconds */
    status st = generator_prefill(g, p->ids, p->n_ids, e);
    cli_signals_at_once(false);
    if (st != OK) return st;
    int64_t room = generator_room(g);
    size_t expected = (size_t)min_i64(room, 1 << 16) * 8; /* of text; tokens have about four bytes */
    r->piece_cap = g->piece_cap;
    r->piece = mem_alloc(r->piece_cap + 1);
    if (!r->piece || (r->collect && !buffer_reserve(&r->answer, expected))) return err_oom(e, "answer", expected);
    TRY(prompt_reserve(p, room, e));
    if (r->cli->beams) TRY(beams_run(g, &r->beams, e));
    else TRY(generator_run(g, p->ids, &p->n_ids, e));
    if (r->no_memory) return err_oom(e, "answer", r->answer.n);
    return keep_save(&r->rt, r->cli, NULL, e);
}

static status check(const struct cli *c, struct err *e)
{
    if (c->raw && c->system) return err_set(e, ERR_USAGE, "--system needs a chat template, --raw uses none");
    if (c->raw && c->template_name) return err_set(e, ERR_USAGE, "--template and --raw exclude each other");
    if (c->special && !c->raw) return err_set(e, ERR_USAGE, "--special is for --raw: text of messages never becomes a control token");
    if (c->no_bos && !c->raw) return err_set(e, ERR_USAGE, "--no-bos is for --raw: a chat template says itself where BOS stands");
    if (c->top_logprobs > 0 && !c->json) return err_set(e, ERR_USAGE, "--top-logprobs needs --json");
    return beams_check(c, e);
}

static const char *hint_for(const struct run *r, const struct err *e, char buf[160])
{
    if (e->code == ERR_MEMORY) return "Try a smaller context (-c 2048) or --kv-type q8_0.";
    if (e->code != ERR_USAGE && e->code != ERR_FORMAT) return NULL;
    if (strstr(e->text, "no chat template")) return "Use `cuanto run --raw` for plain continuation, or name a template: --template chatml.";
    if (e->code == ERR_FORMAT && strstr(e->text, "tokenizer.chat_template"))
        return "Use a built-in template instead: --template chatml (or llama3, gemma, ...).";
    if (strstr(e->text, "the context holds")) return generator_advice(&r->gen, buf, 160), buf;
    return NULL;
}

static int run(struct cli *c)
{
    struct run r = { .cli = c, .collect = c->json || c->extract || c->no_stream };
    struct err e = { 0 };
    const char *hint = NULL;
    char buf[160];
    status st = check(c, &e);
    if (st == OK && c->n_args == 0 && c->n_file == 0 && term_is_tty(STDIN_FILENO)) {
        st = err_set(&e, ERR_USAGE, "no prompt: give it as an argument, with -f FILE, or on standard input");
        hint = "For a conversation: cuanto chat MODEL";
    }
    if (st == OK && !c->quiet) beams_note(c);
    if (st == OK) st = input_prompt(c, &r.input, &e);
    if (st == OK) st = runtime_open(&r.rt, c, RUNTIME_DEFAULT_CTX, &e);
    if (st == OK) st = encode(&r, &e);
    if (st == OK) st = answer(&r, &e);
    bool interrupted = st == OK && r.gen.finish == FINISH_INTERRUPT;
    if (st == OK && !(interrupted && c->json)) st = print_rest(&r, &e);
    out_flush();
    if (st == OK && r.gen.finish != FINISH_CLOSED) report(&r);
    int code = st != OK ? cli_fail(&e, hint ? hint : hint_for(&r, &e, buf)) : interrupted ? 128 + cli_interrupted : 0;
    json_out_free(&r.json);
    beam_free(&r.beams);
    generator_close(&r.gen);
    prompt_close(&r.prompt);
    runtime_close(&r.rt);
    buffer_free(&r.input), buffer_free(&r.answer);
    mem_free(r.piece);
    return code;
}

OPT_GROUP(run_rows, "Run",
    ROW_FILE,
    ROW_SESSION("keep what was read in this file, for the beginning that the next prompt shares; not a conversation"),
    ROW_LOOKUP,
    { "raw", NULL, OPT_FLAG, OPT_AT(raw), .help = "no chat template: continue the text as it is" },
    { "special", NULL, OPT_FLAG, OPT_AT(special), .help = "with --raw: text of control tokens becomes those tokens" },
    { "no-bos", NULL, OPT_FLAG, OPT_AT(no_bos), .help = "with --raw: do not begin with BOS" },
    { "extract", "-x", OPT_FLAG, OPT_AT(extract), .help = "print only the first fenced code block" },
    { "no-stream", NULL, OPT_FLAG, OPT_AT(no_stream), .help = "print the answer when it is complete" },
    { "beams", "--num-beams", OPT_INT, OPT_AT(beams), .value = "N", .hi = BEAMS_MAX,
      .help = "search for the likeliest answer, N (at most 16) at a time, instead of drawing one; 0: off" },
    { "n-best", NULL, OPT_INT, OPT_AT(n_best), .value = "N", .def = "1", .lo = 1, .hi = BEAMS_MAX, .help = "print the N best answers of a search" },
    { "length-penalty", NULL, OPT_FLOAT, OPT_AT(length_penalty), .value = "X", .def = "1", .lo = -100, .hi = 100,
      .help = "answers are ranked by log probability / length^X: above 0 favours long ones" },
    { "early-stopping", NULL, OPT_STR, OPT_AT(beam_stop), .value = "WHEN", .def = "auto", .choices = "auto|first|never|false|true",
      .help = "end a search when no better answer is likely, when N are finished, or only when none is possible; false: auto, true: first" },
    { "top-logprobs", NULL, OPT_INT, OPT_AT(top_logprobs), .value = "N", .hi = 1000, .help = "with --json: the N likeliest tokens at each place" });

static const struct opt_group *const groups[] = { &opts_common, &opts_prompt, &run_rows, &opts_sampling, &opts_model, &opts_cpu, NULL };
const struct command command_run = {
    .name = "run", .brief = "answer one prompt and exit (pipe-safe)",
    .usage = "cuanto run MODEL [PROMPT...] [options]",
    .examples = "cuanto run models/m.gguf 'Why is the sky blue?'\n"
                "git diff | cuanto run models/m.gguf -s 'Describe this change' -n 200\n"
                "cuanto run models/m.gguf --raw 'Once upon a time' -n 50 --temp 0",
    .groups = groups, .min_args = 1, .max_args = -1, .run = run,
};
