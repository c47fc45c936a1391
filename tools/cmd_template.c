/* cmd_template - the prompt text that a conversation becomes, exactly, or with its token ids. Needs no weights. */
#include "tools/opt.h"
#include "tools/prompt.h"
#include "tools/vocab.h"
#include <string.h>

enum { MESSAGES_MAX = 64 << 20 };

static status read_messages(struct prompt *p, const char *path, struct err *e)
{
    struct arena a;
    struct json *j;
    char *text;
    size_t n;
    TRY(file_text(path, MESSAGES_MAX, &text, &n, e));
    arena_init(&a, 0);
    status st = json_parse(&j, text, n, &a, path, e);
    if (st == OK) st = chat_from_json(p->chat, j, e);
    arena_free(&a);
    mem_free(text);
    return st;
}

static status print_json(const struct prompt *p, struct err *e)
{
    struct json_out o;
    json_out_init(&o, false);
    json_begin(&o, NULL, '{');
    json_put_str(&o, "text", p->text, p->n_text);
    json_begin(&o, "tokens", '[');
    for (int64_t i = 0; i < p->n_ids; i++) json_put_i64(&o, NULL, p->ids[i]);
    json_end(&o, ']');
    json_end(&o, '}');
    status st = json_out_ok(&o) ? OK : err_oom(e, "JSON output", o.n);
    if (st == OK) out_write(o.buf, o.n), out_write("\n", 1);
    json_out_free(&o);
    return st;
}

static int run(struct cli *c)
{
    struct vocab v = { 0 };
    struct prompt p = { 0 };
    struct err e = { 0 };
    char *text = NULL;
    size_t n = 0;
    bool generation = !c->no_generation_prompt;
    status st = c->messages ? OK : err_set(&e, ERR_USAGE, "template needs --messages FILE.json, a list of {\"role\": ..., \"content\": ...}");
    if (st == OK) st = vocab_open(&v, c, &e);
    if (st == OK) st = prompt_open(&p, v.tok, v.chat_template, c->template_name, c->model, &e);
    if (st == OK) st = read_messages(&p, c->messages, &e);
    if (st == OK && c->json) {
        st = prompt_encode(&p, generation, &e);
        if (st == OK) st = print_json(&p, &e);
    } else if (st == OK) {
        st = chat_render(p.chat, generation, NULL, p.now, &text, &n, &e);
        if (st == OK) out_write(text, n);
    }
    mem_free(text);
    prompt_close(&p);
    vocab_close(&v);
    bool none = st != OK && strstr(e.text, "no chat template");
    return st == OK ? 0 : cli_fail(&e, none ? "Name one: --template chatml (or llama3, gemma, ..., or a file)." : NULL);
}

OPT_GROUP(template_rows, "Template",
    { "messages", "-m", OPT_STR, OPT_AT(messages), .value = "FILE", .help = "conversation as JSON (- is standard input)" },
    { "no-generation-prompt", NULL, OPT_FLAG, OPT_AT(no_generation_prompt), .help = "do not open an answer at the end" },
    ROW_TEMPLATE, ROW_PRE);

static const struct opt_group *const groups[] = { &opts_common, &template_rows, NULL };
const struct command command_template = {
    .name = "template", .brief = "show the prompt that messages become",
    .usage = "cuanto template MODEL --messages FILE.json [options]",
    .examples = "cuanto template models/m.gguf --messages chat.json\n"
                "cuanto template models/m.gguf --messages chat.json --template chatml --json",
    .groups = groups, .min_args = 1, .max_args = 1, .run = run,
};
