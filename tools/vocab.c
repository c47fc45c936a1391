/* vocab - see vocab.h. */
#include "tools/vocab.h"
#include "tools/term.h"

status vocab_open(struct vocab *v, const struct cli *c, struct err *e)
{
    char path[4096];
    struct err bad = { 0 };
    *v = (struct vocab){ 0 };
    TRY(model_find(c->model, path, sizeof path, e));
    TRY(gguf_open(&v->file, path, !c->no_mmap, e));
    status st = tokenizer_open(&v->tok, &v->file, c->pre, e);
    if (st == OK && !gguf_get_str(&v->file, "tokenizer.chat_template", &v->chat_template, &bad) && bad.code) st = err_set(e, bad.code, "%s", bad.text);
    if (st != OK) vocab_close(v);
    return st;
}

void vocab_close(struct vocab *v)
{
    tokenizer_close(v->tok);
    gguf_close(&v->file);
    *v = (struct vocab){ 0 };
}

static bool valid_utf8(const char *p, size_t n)
{
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        int len = utf8_next(p + i, n - i, &cp);
        if (cp == 0xfffd && len == 1) return false;
        i += (size_t)len;
    }
    return true;
}

void put_piece(struct json_out *o, const struct tokenizer *t, int32_t id, char *buf, size_t cap)
{
    size_t n = tokenizer_piece(t, id, true, buf, cap);
    if (n > cap) n = cap;
    json_put_str(o, "text", buf, n);
    if (valid_utf8(buf, n)) return;
    json_begin(o, "bytes", '[');
    for (size_t i = 0; i < n; i++) json_put_i64(o, NULL, (unsigned char)buf[i]);
    json_end(o, ']');
}
