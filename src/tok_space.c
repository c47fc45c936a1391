/* tok_space - the models that write a space as U+2581: rewriting, and cutting a text where no token can reach across.
 * Those models put the whole text through their algorithm at once. It may be cut before every space that no token and no merge has in
 * its middle (tokenizer.glued): no step crosses such a place, and steps on either side do not see each other, so the ids are the same. */
#include "src/tokenizer_int.h"

void tok_mark_glued(struct tokenizer *t, struct str s)
{
    for (size_t i = 1; i + TOK_SPACE_LEN <= s.n; i++)
        if (s.p[i] == TOK_SPACE[0] && !memcmp(s.p + i, TOK_SPACE, TOK_SPACE_LEN)) t->glued[(uint8_t)s.p[i - 1]] = true;
}

/* Two spaces in a row meet as U+2581 U+2581. */
size_t tok_cut_len(const struct tokenizer *t, const char *text, size_t n)
{
    for (size_t i = 1; i < n; i++)
        if (text[i] == ' ' && !t->glued[(uint8_t)(text[i - 1] == ' ' ? TOK_SPACE[TOK_SPACE_LEN - 1] : text[i - 1])]) return i;
    return n;
}

status tok_write_spaces(struct tok_encoder *enc, const char *word, size_t n, bool lead, size_t *len, struct err *e)
{
    size_t n_spaces = lead;
    *len = 0;
    for (size_t i = 0; i < n; i++) n_spaces += word[i] == ' ';
    TRY(tok_reserve_buf(enc, n + n_spaces * TOK_SPACE_LEN, e));
    if (lead) tok_put(enc->buf, enc->buf_cap, len, TOK_SPACE, TOK_SPACE_LEN);
    for (size_t i = 0; i < n; i++) {
        if (word[i] == ' ') tok_put(enc->buf, enc->buf_cap, len, TOK_SPACE, TOK_SPACE_LEN);
        else enc->buf[(*len)++] = word[i];
    }
    return OK;
}

size_t tok_read_spaces(const struct tokenizer *t, struct str s, char *buf, size_t cap)
{
    size_t at = 0;
    for (size_t i = 0; i < s.n;) {
        bool space = i + TOK_SPACE_LEN <= s.n && !memcmp(s.p + i, TOK_SPACE, TOK_SPACE_LEN);
        tok_put(buf, cap, &at, space ? " " : s.p + i, 1);
        i += space ? TOK_SPACE_LEN : 1;
    }
    return at;
}
