/* cmd_tokenize - text to token ids, exactly as the model sees it. Needs no weights. */
#include "tools/input.h"
#include "tools/opt.h"
#include "tools/prompt.h"
#include "tools/vocab.h"

static void print_ids(const int32_t *ids, int64_t n)
{
    out_write("[", 1);
    for (int64_t i = 0; i < n; i++) out_printf("%s%d", i ? ", " : "", (int)ids[i]);
    out_write("]\n", 2);
}

static status print_objects(const struct tokenizer *t, const int32_t *ids, int64_t n, struct err *e)
{
    struct json_out o;
    size_t cap = piece_max(t);
    char *piece = mem_alloc(cap);
    if (!piece) return err_oom(e, "pieces", cap);
    json_out_init(&o, false);
    json_begin(&o, NULL, '[');
    for (int64_t i = 0; i < n; i++) {
        json_begin(&o, NULL, '{');
        json_put_i64(&o, "id", ids[i]);
        put_piece(&o, t, ids[i], piece, cap);
        json_end(&o, '}');
    }
    json_end(&o, ']');
    status st = json_out_ok(&o) ? OK : err_oom(e, "JSON output", o.n);
    if (st == OK) out_write(o.buf, o.n), out_write("\n", 1);
    json_out_free(&o);
    mem_free(piece);
    return st;
}

static int run(struct cli *c)
{
    struct vocab v = { 0 };
    struct buffer text = { 0 };
    struct err e = { 0 };
    int32_t *ids = NULL;
    int64_t n = 0, cap = 0;
    unsigned flags = (c->special ? ENCODE_SPECIAL : 0) | (c->no_bos ? 0 : ENCODE_BOS);
    status st = vocab_open(&v, c, &e);
    if (st == OK) st = input_exact(c, &text, &e);
    if (st == OK) st = encode_text(v.tok, text.p, text.n, flags, &ids, &n, &cap, &e);
    if (st == OK && c->json) st = print_objects(v.tok, ids, n, &e);
    else if (st == OK) print_ids(ids, n);
    mem_free(ids);
    buffer_free(&text);
    vocab_close(&v);
    return st == OK ? 0 : cli_fail(&e, NULL);
}

OPT_GROUP(tokenize_rows, "Tokenize",
    ROW_FILE,
    { "special", NULL, OPT_FLAG, OPT_AT(special), .help = "text of control tokens becomes those tokens" },
    { "no-bos", NULL, OPT_FLAG, OPT_AT(no_bos), .help = "do not add BOS (and EOS) even if the file asks for it" },
    ROW_PRE);

static const struct opt_group *const groups[] = { &opts_common, &tokenize_rows, NULL };
const struct command command_tokenize = {
    .name = "tokenize", .brief = "text to token ids",
    .usage = "cuanto tokenize MODEL [TEXT...] [options]",
    .examples = "cuanto tokenize models/m.gguf 'Hello world'\n"
                "cuanto tokenize models/m.gguf -f notes.txt --json",
    .groups = groups, .min_args = 1, .max_args = -1, .run = run,
};
