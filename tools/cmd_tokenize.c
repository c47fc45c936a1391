/* cmd_tokenize - text to token ids, exactly as the model sees it. Needs no weights. */
#include "tools/input.h"
#include "tools/opt.h"
#include "tools/prompt.h"
#include "tools/vocab.h"
#include <math.h>

static void print_ids(const int32_t *ids, int64_t n)
{
    out_write("[", 1);
    for (int64_t i = 0; i < n; i++) out_printf("%s%d", i ? ", " : "", (int)ids[i]);
    out_write("]\n", 2);
}

static status print_objects(const struct tokenizer *t, const int32_t *ids, int64_t n, struct err *e)
{
    struct json_out o;
    size_t cap = tokenizer_piece_max(t);
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

/* ---- --bench ---- */

/* What one call takes, s: the best of as many as fit into half a second, and of three at least. */
enum direction { ENCODE, DECODE };
struct timed {
    const struct tokenizer *t;
    const char *text;
    size_t n;
    unsigned flags;
    int32_t *ids;
    int64_t n_ids;
    char *back;
    size_t n_back;
};

static status once(struct timed *w, enum direction way, struct err *e)
{
    int64_t n_ids;
    if (way == ENCODE) return tokenizer_encode(w->t, w->text, w->n, w->flags, w->ids, w->n_ids, &n_ids, e);
    tokenizer_decode(w->t, w->ids, w->n_ids, true, w->back, w->n_back);
    return OK;
}

static status best_of(struct timed *w, enum direction way, double *best, struct err *e)
{
    double begin = now_seconds();
    *best = INFINITY;
    for (int i = 0; i < 3 || now_seconds() - begin < 0.5; i++) {
        double start = now_seconds();
        TRY(once(w, way, e));
        *best = fmin(*best, now_seconds() - start);
    }
    return OK;
}

static status print_speed(const struct cli *c, const struct timed *w, double open_s, double encode_s, double decode_s, struct err *e)
{
    double encode = (double)w->n / fmax(encode_s, 1e-9) / 1e6, decode = (double)w->n / fmax(decode_s, 1e-9) / 1e6;
    if (!c->json) {
        out_printf("%zu bytes, %lld tokens | open %.1f ms | encode %.1f MB/s | decode %.1f MB/s\n", w->n, (long long)w->n_ids, open_s * 1e3, encode,
                   decode);
        return OK;
    }
    struct json_out o;
    json_out_init(&o, false);
    json_begin(&o, NULL, '{');
    json_put_i64(&o, "bytes", (int64_t)w->n);
    json_put_i64(&o, "tokens", w->n_ids);
    json_put_f64(&o, "open_ms", open_s * 1e3);
    json_put_f64(&o, "encode_mb_s", encode);
    json_put_f64(&o, "decode_mb_s", decode);
    json_end(&o, '}');
    status st = json_out_ok(&o) ? OK : err_oom(e, "JSON output", o.n);
    if (st == OK) out_write(o.buf, o.n), out_write("\n", 1);
    json_out_free(&o);
    return st;
}

static status bench(const struct cli *c, struct timed *w, struct err *e)
{
    double begin = now_seconds(), open_s, encode_s, decode_s;
    struct vocab again;
    if (w->n == 0) return err_set(e, ERR_USAGE, "--bench needs a text");
    TRY(vocab_open(&again, c, e));
    open_s = now_seconds() - begin;
    vocab_close(&again);
    w->n_back = tokenizer_decode(w->t, w->ids, w->n_ids, true, NULL, 0);
    w->back = mem_alloc(w->n_back + 1);
    if (!w->back) return err_oom(e, "text", w->n_back + 1);
    status st = best_of(w, ENCODE, &encode_s, e);
    if (st == OK) st = best_of(w, DECODE, &decode_s, e);
    if (st == OK) st = print_speed(c, w, open_s, encode_s, decode_s, e);
    mem_free(w->back);
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
    if (st == OK && c->bench) {
        struct timed work = { .t = v.tok, .text = text.p, .n = text.n, .flags = flags, .ids = ids, .n_ids = n };
        st = bench(c, &work, &e);
    } else if (st == OK && c->json) st = print_objects(v.tok, ids, n, &e);
    else if (st == OK) print_ids(ids, n);
    mem_free(ids);
    buffer_free(&text);
    vocab_close(&v);
    return st == OK ? 0 : cli_fail(&e, NULL);
}

OPT_GROUP(tokenize_rows, "Tokenize",
    ROW_FILE,
    { "special", NULL, OPT_FLAG, OPT_AT(special), .help = "text of control tokens becomes those tokens" },
    { "bench", NULL, OPT_FLAG, OPT_AT(bench), .help = "print the speed of encoding and decoding the text, in place of its ids" },
    { "no-bos", NULL, OPT_FLAG, OPT_AT(no_bos), .help = "do not add BOS (and EOS) even if the file asks for it" },
    ROW_PRE);

static const struct opt_group *const groups[] = { &opts_common, &tokenize_rows, NULL };
const struct command command_tokenize = {
    .name = "tokenize", .brief = "text to token ids",
    .usage = "cuanto tokenize MODEL [TEXT...] [options]",
    .examples = "cuanto tokenize models/m.gguf 'Hello world'\n"
                "cuanto tokenize models/m.gguf -f notes.txt --json\n"
                "cuanto tokenize models/m.gguf -f book.txt --bench",
    .groups = groups, .min_args = 1, .max_args = -1, .run = run,
};
