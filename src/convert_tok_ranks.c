/* convert_tok_ranks - vocabularies of the tiktoken kind: bytes and a rank for each token, no merges. A text becomes tokens by joining, again and again,
 * the two neighbours whose joined bytes have the lowest rank; so the merge that makes a token is found by taking its own bytes apart that way with
 * all lower ranks. Files: *.tiktoken (base64, space, rank per line) and Mistral's tekken.json. */
#include "src/convert_tok_int.h"
#include <stdio.h>

enum { RANK_BYTES_MAX = 512 }; /* of a token: taking it apart is quadratic */

/* ---- bytes ---- */

static int base64_digit(uint8_t c)
{
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* Decodes into out, which has room for 3 bytes per 4 characters; false: no base64. */
static bool decode64(struct str text, char *out, size_t *n)
{
    size_t len = text.n;
    *n = 0;
    if (len % 4) return false;
    for (int i = 0; i < 2 && len && text.p[len - 1] == '='; i++) len--;
    uint32_t bits = 0;
    for (size_t i = 0; i < len; i++) {
        int d = base64_digit((uint8_t)text.p[i]);
        if (d < 0) return false;
        bits = bits << 6 | (uint32_t)d;
        if (i % 4) out[(*n)++] = (char)(bits >> (6 - 2 * (i % 4)));
    }
    return len % 4 != 1;
}

status conv_base64(struct conv *c, const char *file, const char *what, struct str text, struct str *out, struct err *e)
{
    char *bytes = arena_alloc(&c->mem, text.n / 4 * 3 + 1);
    if (!bytes) return err_oom(e, file, text.n);
    if (!decode64(text, bytes, &out->n)) return err_set(e, ERR_FORMAT, "%s: %s is not base64", file, what);
    out->p = bytes;
    return OK;
}

/* GPT-2's alphabet: bytes that are printable stand for themselves, the others for U+0100 and on. */
static int byte_char(uint8_t b, char out[2])
{
    bool plain = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
    unsigned c = b;
    if (!plain) c = b <= 0x20 ? 256u + b : b < 0xa1 ? 256u + 33 + (b - 0x7fu) : 256u + 67;
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    out[0] = (char)(0xc0 | c >> 6);
    out[1] = (char)(0x80 | (c & 63));
    return 2;
}

static size_t write_bytes(struct str bytes, char *out)
{
    size_t n = 0;
    for (size_t i = 0; i < bytes.n; i++) n += (size_t)byte_char((uint8_t)bytes.p[i], out + n);
    return n;
}

struct str conv_byte_text(struct conv *c, struct str bytes)
{
    char *out = arena_alloc(&c->mem, 2 * bytes.n + 1);
    return (struct str){ out, out ? write_bytes(bytes, out) : 0 };
}

/* ---- merges from ranks ----
 * While this runs, texts of the tokens are their raw bytes and ids are shifted by `first`, the id of rank 0. */

static int64_t rank_of(const struct conv *c, int64_t first, struct str bytes)
{
    int32_t id = conv_find(c, bytes);
    return id < first ? -1 : id - first;
}

/* Takes the bytes of a token apart with ranks below its own; true if two parts are left, *cut = bytes of the left one. */
static bool last_merge(const struct conv *c, int64_t first, int64_t rank, struct str bytes, size_t *cut)
{
    uint16_t begin[RANK_BYTES_MAX + 1];
    int32_t pair[RANK_BYTES_MAX]; /* rank of part i with the next, -1: none */
    int n = (int)bytes.n;
    for (int i = 0; i <= n; i++) begin[i] = (uint16_t)i;
    for (int i = 0; i + 1 < n; i++) pair[i] = (int32_t)rank_of(c, first, (struct str){ bytes.p + i, 2 });
    while (n > 2) {
        int best = -1;
        for (int i = 0; i + 1 < n; i++)
            if (pair[i] >= 0 && pair[i] < rank && (best < 0 || pair[i] < pair[best])) best = i;
        if (best < 0) return false;
        memmove(begin + best + 1, begin + best + 2, (size_t)(n - best - 1) * sizeof *begin);
        memmove(pair + best, pair + best + 1, (size_t)(n - best - 1) * sizeof *pair);
        n--;
        for (int i = best ? best - 1 : 0; i <= best && i + 1 < n; i++)
            pair[i] = (int32_t)rank_of(c, first, (struct str){ bytes.p + begin[i], (size_t)(begin[i + 2] - begin[i]) });
    }
    *cut = begin[1];
    return n == 2;
}

static status merges_from_ranks(struct conv *c, const char *file, int64_t first, struct err *e)
{
    size_t bytes = 0;
    int64_t lost = 0;
    for (int64_t id = first; id < c->n; id++) bytes += 2 * c->token[id].text.n + 1;
    c->merge = arena_zalloc(&c->mem, (size_t)c->n + 1, sizeof *c->merge);
    char *out = arena_alloc(&c->mem, bytes + 1);
    if (!c->merge || !out) return err_oom(e, file, bytes);
    for (int64_t id = first; id < c->n; id++) {
        struct str all = c->token[id].text;
        size_t cut;
        if (c->token[id].type != CONV_NORMAL || all.n < 2) continue;
        if (!last_merge(c, first, id - first, all, &cut)) {
            lost++;
            continue;
        }
        char *start = out;
        out += write_bytes((struct str){ all.p, cut }, out);
        *out++ = ' ';
        out += write_bytes((struct str){ all.p + cut, all.n - cut }, out);
        c->merge[c->n_merges++] = (struct str){ start, (size_t)(out - start) };
    }
    if (lost) conv_warn(c, "%s: %lld tokens cannot be reached by merging lower ranks", file, (long long)lost);
    for (int64_t id = first; id < c->n; id++) {
        struct conv_token *t = &c->token[id];
        if (t->type != CONV_NORMAL) continue;
        t->text = conv_byte_text(c, t->text);
        if (!t->text.p) return err_oom(e, file, t->text.n);
    }
    return OK;
}

static status put_rank(struct conv *c, const char *file, int64_t first, int64_t rank, struct str base64, struct err *e)
{
    struct str bytes;
    if (base64.n > RANK_BYTES_MAX / 3 * 4)
        return err_set(e, ERR_FORMAT, "%s: the token of rank %lld has more than %d bytes", file, (long long)rank, RANK_BYTES_MAX);
    if (rank < 0 || rank >= CONV_IDS_MAX)
        return err_set(e, ERR_FORMAT, "%s: rank %lld, allowed are 0 to %d", file, (long long)rank, CONV_IDS_MAX - 1);
    TRY(conv_base64(c, file, "a token", base64, &bytes, e));
    if (bytes.n == 0) return err_set(e, ERR_FORMAT, "%s: the token of rank %lld is empty", file, (long long)rank);
    return conv_put(c, file, first + rank, bytes, 0.0f, CONV_NORMAL, e);
}

static status check_bytes(const struct conv *c, const char *file, struct err *e)
{
    for (int b = 0; b < 256; b++) {
        char byte = (char)b;
        if (conv_find(c, (struct str){ &byte, 1 }) < 0) return err_set(e, ERR_FORMAT, "%s: no token for the byte 0x%02x", file, (unsigned)b);
    }
    return OK;
}

/* ---- files ---- */

/* A tiktoken file has no expression: it is known by its name. The directory's tokenizer.model is Llama 3's. */
static const struct { const char *file, *pre; } known_files[] = {
    { "cl100k_base.tiktoken", "dbrx" },  { "o200k_base.tiktoken", "gpt-4o" },    { "qwen.tiktoken", "qwen2" },
    { "tokenizer.model", "llama-bpe" },  { "r50k_base.tiktoken", "gpt-2" },      { "p50k_base.tiktoken", "gpt-2" },
};

static status name_pre(struct conv *c, const char *file, struct err *e)
{
    c->pre = c->o->pre;
    for (int i = 0; i < ARRAY_LEN(known_files) && !c->pre; i++)
        if (!strcmp(known_files[i].file, file)) c->pre = known_files[i].pre;
    return c->pre ? OK : err_set(e, ERR_FORMAT, "%s: a tiktoken file does not say how text is cut into words: --pre NAME chooses", file);
}

status conv_read_tiktoken(struct conv *c, const char *file, struct str text, struct err *e)
{
    TRY(name_pre(c, file, e));
    int64_t number = 0;
    while (text.n) {
        const char *nl = memchr(text.p, '\n', text.n);
        struct str line = { text.p, nl ? (size_t)(nl - text.p) : text.n };
        size_t all = line.n + (nl != NULL);
        text.p += all;
        text.n -= all;
        number++;
        if (line.n && line.p[line.n - 1] == '\r') line.n--;
        if (line.n == 0) continue;
        const char *space = memchr(line.p, ' ', line.n);
        int64_t rank = 0;
        size_t digits = space ? (size_t)(line.p + line.n - space - 1) : 0;
        for (size_t i = 0; i < digits; i++) {
            int d = space[1 + i] - '0';
            rank = d < 0 || d > 9 || rank > CONV_IDS_MAX ? -1 : 10 * rank + d;
            if (rank < 0) break;
        }
        if (digits == 0 || rank < 0) return err_set(e, ERR_FORMAT, "%s: line %lld is not a token in base64 and its rank", file, (long long)number);
        TRY(put_rank(c, file, 0, rank, (struct str){ line.p, (size_t)(space - line.p) }, e));
    }
    TRY(conv_index(c, e));
    TRY(check_bytes(c, file, e));
    TRY(merges_from_ranks(c, file, 0, e));
    c->model = "gpt2";
    if (!get_kind(c->config, "added_tokens_decoder", JSON_OBJ)) conv_warn(c, "%s: no special tokens are known", file);
    return conv_added_tokens(c, e);
}

/* The control tokens of tekken files that do not list them (mistral_common, tekken.py). */
static const char *const tekken_control[] = {
    "<unk>",        "<s>",            "</s>",       "[INST]",   "[/INST]",  "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]",     "<pad>",    "[IMG_BREAK]", "[IMG_END]",      "[PREFIX]",           "[MIDDLE]",
    "[SUFFIX]",     "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]",
};

static status put_tekken_control(struct conv *c, int64_t n, struct err *e)
{
    static const char file[] = "tekken.json";
    const struct json *list = get_kind(c->tekken, "special_tokens", JSON_ARR);
    for (const struct json *i = list ? list->child : NULL; i; i = i->next) {
        const struct json *text = get_kind(i, "token_str", JSON_STR);
        int64_t id = get_int(i, "rank", -1);
        if (!text || id < 0 || id >= n)
            return err_set(e, ERR_FORMAT, "%s: a special token has the rank %lld, there are %lld", file, (long long)id, (long long)n);
        TRY(conv_put(c, file, id, json_str(text), 0.0f, get_int(i, "is_control", 1) ? CONV_CONTROL : CONV_USER, e));
    }
    for (int64_t id = 0; id < n; id++) {
        char text[32];
        if (id < c->cap && c->token[id].type != CONV_HOLE) continue;
        bool named = !list && id < ARRAY_LEN(tekken_control);
        int len = snprintf(text, sizeof text, "<SPECIAL_%lld>", (long long)id);
        const char *copy = named ? tekken_control[id] : arena_strdup(&c->mem, text, (size_t)len);
        if (!copy) return err_oom(e, file, (size_t)len);
        TRY(conv_put(c, file, id, str_of(copy), 0.0f, CONV_CONTROL, e));
    }
    return OK;
}

status conv_read_tekken(struct conv *c, struct err *e)
{
    static const char file[] = "tekken.json";
    const struct json *config, *vocab, *pattern;
    TRY(conv_want(file, c->tekken, "config", JSON_OBJ, &config, e));
    TRY(conv_want(file, c->tekken, "vocab", JSON_ARR, &vocab, e));
    TRY(conv_want(file, config, "pattern", JSON_STR, &pattern, e));
    int64_t n = get_int(config, "default_vocab_size", -1), first = get_int(config, "default_num_special_tokens", -1);
    if (first < 0 || n < first || n > CONV_IDS_MAX)
        return err_set(e, ERR_FORMAT, "%s: %lld tokens of which %lld are special", file, (long long)n, (long long)first);
    TRY(put_tekken_control(c, first, e));
    for (const struct json *i = vocab->child; i; i = i->next) {
        const struct json *text = get_kind(i, "token_bytes", JSON_STR);
        int64_t rank = get_int(i, "rank", -1);
        if (!text) return err_set(e, ERR_FORMAT, "%s: the token of rank %lld has no token_bytes", file, (long long)rank);
        if (rank < n - first) TRY(put_rank(c, file, first, rank, json_str(text), e)); /* files hold more than is used */
    }
    TRY(conv_index(c, e));
    TRY(check_bytes(c, file, e));
    TRY(merges_from_ranks(c, file, first, e));
    TRY(conv_find_pre_regex(c, file, json_str(pattern), e));
    c->model = "gpt2";
    static const struct { const char *text; enum conv_role role; } roles[] = {
        { "<unk>", CONV_UNK }, { "<s>", CONV_BOS }, { "</s>", CONV_EOS }, { "<pad>", CONV_PAD },
    };
    TRY(conv_added_tokens(c, e));
    for (int i = 0; i < ARRAY_LEN(roles); i++) c->role[roles[i].role] = conv_find(c, str_of(roles[i].text));
    c->add_bos = 1;
    c->add_eos = 0;
    return OK;
}
