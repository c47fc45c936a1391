/* convert_tok_json - tokenizer.json of the Hugging Face tokenizers library, and the older vocab.json with merges.txt and vocab.txt.
 * A row per kind of model. Facts about the format: huggingface/tokenizers, src/{models,normalizers,pre_tokenizers}. */
#include "src/convert_tok_int.h"
#include <math.h>

static const char FILE_NAME[] = "tokenizer.json";

enum { STEPS_MAX = 16 }; /* of a normalizer or pre-tokenizer, sequences taken apart */

/* ---- steps of a normalizer or pre-tokenizer ---- */

struct steps {
    const struct json *step[STEPS_MAX];
    int n;
};

/* Appends a step, or the steps of a Sequence, whose list is called `list`. The JSON reader allows 64 levels; sequences in sequences need three
 * each, so the recursion ends. */
static status flatten(struct steps *s, const struct json *j, const char *list, struct err *e)
{
    if (!j || j->kind == JSON_NULL) return OK;
    if (j->kind != JSON_OBJ || !get_kind(j, "type", JSON_STR))
        return err_set(e, ERR_FORMAT, "%s: a step of %s is %s, expected an object with a type", FILE_NAME, list, json_kind_text(j));
    if (!type_is(j, "Sequence")) {
        if (s->n == STEPS_MAX) return err_set(e, ERR_FORMAT, "%s: %s have more than %d steps", FILE_NAME, list, STEPS_MAX);
        s->step[s->n++] = j;
        return OK;
    }
    const struct json *items;
    TRY(conv_want(FILE_NAME, j, list, JSON_ARR, &items, e));
    for (const struct json *i = items->child; i; i = i->next) TRY(flatten(s, i, list, e));
    return OK;
}

static status normalizer_steps(const struct conv *c, struct steps *s, struct err *e)
{
    s->n = 0;
    return flatten(s, json_get(c->tokenizer, "normalizer"), "normalizers", e);
}
static status pre_steps(const struct conv *c, struct steps *s, struct err *e)
{
    s->n = 0;
    return flatten(s, json_get(c->tokenizer, "pre_tokenizer"), "pretokenizers", e);
}

static const struct json *find_step(const struct steps *s, const char *type)
{
    for (int i = 0; i < s->n; i++)
        if (type_is(s->step[i], type)) return s->step[i];
    return NULL;
}

static struct str step_type(const struct json *step) { return json_str(json_get(step, "type")); }

/* pattern: {"String": ...} or {"Regex": ...} */
static bool pattern_is(const struct json *step, const char *kind, const char *text)
{
    const struct json *p = get_kind(json_get(step, "pattern"), kind, JSON_STR);
    return p && str_is(json_str(p), text);
}
static bool content_is(const struct json *step, const char *key, const char *text)
{
    const struct json *p = get_kind(step, key, JSON_STR);
    return p && str_is(json_str(p), text);
}

static const char SPACE_MARK[] = "\xe2\x96\x81"; /* U+2581 */

static bool is_space_mark(const struct json *step)
{
    return type_is(step, "Replace") && pattern_is(step, "String", " ") && content_is(step, "content", SPACE_MARK);
}

/* Metaspace: does it put a space in front? */
static bool metaspace_prepends(const struct json *step)
{
    const struct json *scheme = get_kind(step, "prepend_scheme", JSON_STR);
    if (scheme) return !str_is(json_str(scheme), "never");
    return get_int(step, "add_prefix_space", 1) != 0;
}

/* ---- vocabulary and merges ---- */

static status put_vocab(struct conv *c, const char *file, const struct json *vocab, struct err *e)
{
    for (const struct json *m = vocab->child; m; m = m->next) {
        if (m->kind != JSON_INT)
            return err_set(e, ERR_FORMAT, "%s: the id of \"%.60s\" is %s, expected an integer", file, m->key, json_kind_text(m));
        if (m->i > 4 * vocab->n + 65536) /* so that one entry cannot ask for a table of millions */
            return err_set(e, ERR_FORMAT, "%s: the id of \"%.60s\" is %lld in a vocabulary of %lld", file, m->key, (long long)m->i, (long long)vocab->n);
        TRY(conv_put(c, file, m->i, (struct str){ m->key, (size_t)m->key_n }, 0.0f, CONV_NORMAL, e));
    }
    return OK;
}

/* The two halves of a merge: "left right", or ["left", "right"]. */
static bool merge_halves(const struct json *m, struct str half[2])
{
    if (m->kind == JSON_ARR) {
        const struct json *a = m->child;
        if (m->n != 2 || a->kind != JSON_STR || a->next->kind != JSON_STR) return false;
        half[0] = json_str(a);
        half[1] = json_str(a->next);
        return true;
    }
    if (m->kind != JSON_STR) return false;
    const char *space = memchr(m->str, ' ', (size_t)m->n);
    if (!space) return false;
    half[0] = (struct str){ m->str, (size_t)(space - m->str) };
    half[1] = (struct str){ space + 1, (size_t)(m->str + m->n - space - 1) };
    return !memchr(half[1].p, ' ', half[1].n);
}

enum { JOINED_MAX = 2048 }; /* bytes of what a merge gives */

/* The token that two halves give; -1: one of the three is no token. */
static int32_t merged_id(const struct conv *c, const struct str half[2], int32_t ids[2])
{
    char joined[JOINED_MAX];
    ids[0] = conv_find(c, half[0]);
    ids[1] = conv_find(c, half[1]);
    if (ids[0] < 0 || ids[1] < 0 || half[0].n + half[1].n > sizeof joined) return -1;
    memcpy(joined, half[0].p, half[0].n);
    memcpy(joined + half[0].n, half[1].p, half[1].n);
    return conv_find(c, (struct str){ joined, half[0].n + half[1].n });
}

/* GGUF separates the halves by a space, so a space inside one is written as byte-level BPE writes it. */
static char *write_half(char *out, struct str half)
{
    for (size_t i = 0; i < half.n; i++) {
        if (half.p[i] == ' ') {
            memcpy(out, "\xc4\xa0", 2);
            out += 2;
        } else {
            *out++ = half.p[i];
        }
    }
    return out;
}

static size_t half_bytes(struct str half)
{
    size_t n = half.n;
    for (size_t i = 0; i < half.n; i++) n += half.p[i] == ' ';
    return n;
}

static status put_merges(struct conv *c, const char *file, const struct json *merges, struct err *e)
{
    size_t bytes = 0;
    struct str half[2];
    int64_t i = 0;
    for (const struct json *m = merges->child; m; m = m->next, i++) {
        int32_t ids[2];
        if (!merge_halves(m, half)) return err_set(e, ERR_FORMAT, "%s: merges[%lld] is not two tokens", file, (long long)i);
        if (merged_id(c, half, ids) < 0) {
            bool part = ids[0] < 0 || ids[1] < 0;
            struct str s = half[ids[0] >= 0 && ids[1] < 0];
            return err_set(e, ERR_FORMAT, "%s: merges[%lld]: \"%.*s\"%s%.*s is not in the vocabulary", file, (long long)i, show(s), s.p,
                           part ? "" : " joined with ", part ? 0 : show(half[1]), half[1].p);
        }
        bytes += half_bytes(half[0]) + half_bytes(half[1]) + 1;
    }
    c->merge = arena_zalloc(&c->mem, (size_t)merges->n + 1, sizeof *c->merge);
    char *out = arena_alloc(&c->mem, bytes + 1);
    if (!c->merge || !out) return err_oom(e, file, bytes);
    for (const struct json *m = merges->child; m; m = m->next) {
        char *start = out;
        if (!merge_halves(m, half)) continue; /* cannot be: looked at above */
        out = write_half(out, half[0]);
        *out++ = ' ';
        out = write_half(out, half[1]);
        c->merge[c->n_merges++] = (struct str){ start, (size_t)(out - start) };
    }
    return OK;
}

/* ---- BPE with bytes as tokens: "llama" if merging by score gives the same, else "gemma4", which merges by rank ---- */

/* Bytes of the UTF-8 character at p; 1 for what is none. */
static size_t char_len(const char *p, size_t left)
{
    uint8_t b = (uint8_t)*p;
    size_t n = b >= 0xf0 ? 4 : b >= 0xe0 ? 3 : b >= 0xc0 ? 2 : 1;
    return n <= left ? n : 1;
}

/* In how many ways the text of a token is the texts of two others. */
static int64_t count_splits(const struct conv *c, struct str text)
{
    int64_t n = 0;
    for (size_t at = char_len(text.p, text.n); at < text.n; at += char_len(text.p + at, text.n - at))
        n += conv_find(c, (struct str){ text.p, at }) >= 0 && conv_find(c, (struct str){ text.p + at, text.n - at }) >= 0;
    return n;
}

/* Scores that make merging by score take the same steps as merging by rank: minus the rank of the first merge that gives the token. That needs
 * every split of a token to be a merge, and the merges of one token to stand together; both hold for what was converted from SentencePiece. */
static status scores_from_ranks(struct conv *c, const struct json *merges, bool *same, struct err *e)
{
    size_t n = (size_t)c->n;
    int64_t *count = mem_calloc(n, sizeof *count), *first = mem_calloc(n, sizeof *first);
    status st = count && first ? OK : err_oom(e, "vocabulary", 2 * n * sizeof *count);
    *same = true;
    int64_t rank = 0;
    int32_t last = -1;
    for (const struct json *m = st == OK ? merges->child : NULL; m; m = m->next, rank++) {
        struct str half[2];
        int32_t ids[2], id = merge_halves(m, half) ? merged_id(c, half, ids) : -1;
        if (id < 0) continue;
        if (count[id]++ == 0) first[id] = rank;
        else if (id != last && c->token[id].type == CONV_NORMAL) *same = false;
        last = id;
    }
    for (size_t id = 0; st == OK && id < n; id++) {
        struct conv_token *t = &c->token[id];
        t->score = count[id] ? -(float)(first[id] + 1) : -1e6f;
        if (t->type == CONV_NORMAL && *same && (t->text.n > JOINED_MAX || count_splits(c, t->text) != count[id])) *same = false;
    }
    mem_free(count);
    mem_free(first);
    return st;
}

static bool is_byte_text(struct str s, int *value)
{
    static const char hex[] = "0123456789ABCDEF";
    if (s.n != 6 || memcmp(s.p, "<0x", 3) || s.p[5] != '>') return false;
    const char *hi = memchr(hex, s.p[3], 16), *lo = memchr(hex, s.p[4], 16);
    if (!hi || !lo) return false;
    *value = (int)(16 * (hi - hex) + (lo - hex));
    return true;
}

static void mark_bytes(struct conv *c)
{
    int value;
    for (int64_t id = 0; id < c->n; id++)
        if (c->token[id].type == CONV_NORMAL && is_byte_text(c->token[id].text, &value)) c->token[id].type = CONV_BYTE;
}

/* Added tokens are cut out of a text before merging, so their splits do not count. Their texts change later: merges refer to the old ones. */
static void mark_added(struct conv *c)
{
    const struct json *list = get_kind(c->tokenizer, "added_tokens", JSON_ARR);
    for (const struct json *i = list ? list->child : NULL; i; i = i->next) {
        int64_t id = get_int(i, "id", -1);
        if (id >= 0 && id < c->n && c->token[id].type == CONV_NORMAL) c->token[id].type = CONV_USER;
    }
}

/* The only texts that the run-time tokenizer makes: spaces marked, one put in front or not. */
static status check_spm_steps(struct conv *c, struct err *e)
{
    struct steps s;
    bool marks = false;
    c->add_space = 0;
    TRY(normalizer_steps(c, &s, e));
    for (int i = 0; i < s.n; i++) {
        struct str type = step_type(s.step[i]);
        if (type_is(s.step[i], "Prepend") && content_is(s.step[i], "prepend", SPACE_MARK)) c->add_space = 1;
        else if (is_space_mark(s.step[i])) marks = true;
        else conv_warn(c, "%s: the normalizer %.*s is not part of GGUF: some texts get other tokens than with Hugging Face", FILE_NAME, show(type), type.p);
    }
    TRY(pre_steps(c, &s, e));
    for (int i = 0; i < s.n; i++) {
        struct str type = step_type(s.step[i]);
        if (type_is(s.step[i], "Metaspace")) {
            marks = true;
            c->add_space = metaspace_prepends(s.step[i]);
        } else if (!(type_is(s.step[i], "Split") && pattern_is(s.step[i], "String", " "))) { /* no space is left to split at */
            return err_set(e, ERR_FORMAT, "%s: the pre-tokenizer %.*s in a BPE model with byte_fallback is not supported", FILE_NAME, show(type), type.p);
        }
    }
    if (!marks) return err_set(e, ERR_FORMAT, "%s: a BPE model with byte_fallback that does not replace spaces by U+2581 is not supported", FILE_NAME);
    return OK;
}

static status read_spm_bpe(struct conv *c, const struct json *model, const struct json *merges, struct err *e)
{
    bool same;
    mark_bytes(c);
    mark_added(c);
    TRY(check_spm_steps(c, e));
    const struct json *unk = get_kind(model, "unk_token", JSON_STR);
    int32_t id = unk ? conv_find(c, json_str(unk)) : -1;
    c->role[CONV_UNK] = id;
    if (id >= 0) c->token[id].type = CONV_UNKNOWN;
    TRY(scores_from_ranks(c, merges, &same, e));
    c->has_scores = true;
    c->pre = "default";
    c->model = "llama";
    if (!same && c->add_space) {
        conv_warn(c, "%s: the merges are not those of a SentencePiece model: some texts get other tokens than with Hugging Face", FILE_NAME);
    } else if (!same) {
        c->model = c->pre = "gemma4";
        TRY(put_merges(c, FILE_NAME, merges, e));
    }
    return conv_added_tokens(c, e);
}

/* ---- BPE ---- */

static status warn_normalizer(struct conv *c, struct err *e)
{
    struct steps s;
    TRY(normalizer_steps(c, &s, e));
    for (int i = 0; i < s.n; i++) {
        struct str type = step_type(s.step[i]);
        if (type_is(s.step[i], "ByteLevel")) continue;
        if (type_is(s.step[i], "Lowercase")) c->lowercase = 1;
        if (type_is(s.step[i], "StripAccents")) c->strip_accents = 1;
        conv_warn(c, "%s: the normalizer %.*s is not part of GGUF: texts that it changes get other tokens than with Hugging Face", FILE_NAME, show(type),
                  type.p);
    }
    return OK;
}

static status refuse_affixes(const struct json *model, struct err *e)
{
    static const char *const keys[] = { "continuing_subword_prefix", "end_of_word_suffix" };
    for (int i = 0; i < ARRAY_LEN(keys); i++) {
        const struct json *j = get_kind(model, keys[i], JSON_STR);
        if (j && j->n) return err_set(e, ERR_FORMAT, "%s: model.%s is \"%.40s\": not supported, GGUF has no key for it", FILE_NAME, keys[i], j->str);
    }
    return OK;
}

static status read_bpe(struct conv *c, const struct json *model, struct err *e)
{
    const struct json *vocab, *merges;
    struct steps pre, norm;
    TRY(conv_want(FILE_NAME, model, "vocab", JSON_OBJ, &vocab, e));
    TRY(conv_want(FILE_NAME, model, "merges", JSON_ARR, &merges, e));
    TRY(refuse_affixes(model, e));
    TRY(pre_steps(c, &pre, e));
    TRY(normalizer_steps(c, &norm, e));
    TRY(put_vocab(c, FILE_NAME, vocab, e));
    TRY(conv_index(c, e));
    const struct json *level = find_step(&pre, "ByteLevel");
    if (!level && !find_step(&norm, "ByteLevel")) {
        if (get_int(model, "byte_fallback", 0)) return read_spm_bpe(c, model, merges, e);
        return err_set(e, ERR_FORMAT, "%s: a BPE model without ByteLevel and without byte_fallback is not supported", FILE_NAME);
    }
    c->model = "gpt2";
    TRY(put_merges(c, FILE_NAME, merges, e));
    TRY(warn_normalizer(c, e));
    if (level && get_int(level, "add_prefix_space", 0)) {
        c->add_space = 1;
        conv_warn(c, "%s: add_prefix_space of ByteLevel is not applied by models of the kind \"gpt2\"", FILE_NAME);
    }
    TRY(conv_find_pre(c, FILE_NAME, json_get(c->tokenizer, "pre_tokenizer"), get_int(model, "ignore_merges", 0) != 0, e));
    return conv_added_tokens(c, e);
}

/* ---- Unigram ---- */

static status read_unigram_normalizer(struct conv *c, struct err *e)
{
    struct steps s;
    TRY(normalizer_steps(c, &s, e));
    for (int i = 0; i < s.n; i++) {
        const struct json *step = s.step[i], *map;
        struct str type = step_type(step);
        if (type_is(step, "Precompiled")) {
            TRY(conv_want(FILE_NAME, step, "precompiled_charsmap", JSON_STR, &map, e));
            TRY(conv_base64(c, FILE_NAME, "precompiled_charsmap", json_str(map), &c->charsmap, e));
            if (c->charsmap.n && c->charsmap.n < 4) return err_set(e, ERR_FORMAT, "%s: precompiled_charsmap has %zu bytes", FILE_NAME, c->charsmap.n);
        } else if (type_is(step, "Replace") && pattern_is(step, "Regex", " {2,}")) {
            c->remove_spaces = 1;
        } else if (is_space_mark(step)) {
            continue;
        } else if (type_is(step, "Prepend") && content_is(step, "prepend", SPACE_MARK)) {
            c->add_space = 1;
        } else if (type_is(step, "Strip")) {
            c->remove_spaces = 1;
        } else {
            if (type_is(step, "Lowercase")) c->lowercase = 1;
            if (type_is(step, "StripAccents")) c->strip_accents = 1;
            conv_warn(c, "%s: the normalizer %.*s is not part of GGUF: texts that it changes get other tokens than with Hugging Face", FILE_NAME,
                      show(type), type.p);
        }
    }
    return OK;
}

static status read_unigram_pre(struct conv *c, struct err *e)
{
    struct steps s;
    TRY(pre_steps(c, &s, e));
    for (int i = 0; i < s.n; i++) {
        struct str type = step_type(s.step[i]);
        if (type_is(s.step[i], "Metaspace")) c->add_space = metaspace_prepends(s.step[i]);
        else if (type_is(s.step[i], "WhitespaceSplit") || type_is(s.step[i], "Whitespace")) c->remove_spaces = 1;
        else return err_set(e, ERR_FORMAT, "%s: the pre-tokenizer %.*s in a Unigram model is not supported", FILE_NAME, show(type), type.p);
    }
    return OK;
}

static status read_unigram(struct conv *c, const struct json *model, struct err *e)
{
    const struct json *vocab;
    int64_t id = 0, unk = get_int(model, "unk_id", -1);
    TRY(conv_want(FILE_NAME, model, "vocab", JSON_ARR, &vocab, e));
    for (const struct json *m = vocab->child; m; m = m->next, id++) {
        const struct json *text = m->kind == JSON_ARR && m->n == 2 ? m->child : NULL;
        if (!text || text->kind != JSON_STR || (text->next->kind != JSON_INT && text->next->kind != JSON_FLOAT))
            return err_set(e, ERR_FORMAT, "%s: model.vocab[%lld] is not a text and a score", FILE_NAME, (long long)id);
        if (!(fabs(text->next->f) < 1e30))
            return err_set(e, ERR_FORMAT, "%s: model.vocab[%lld] has the score %g", FILE_NAME, (long long)id, text->next->f);
        TRY(conv_put(c, FILE_NAME, id, json_str(text), (float)text->next->f, id == unk ? CONV_UNKNOWN : CONV_NORMAL, e));
    }
    if (unk >= c->n) return err_set(e, ERR_FORMAT, "%s: unk_id is %lld in a vocabulary of %lld", FILE_NAME, (long long)unk, (long long)c->n);
    if (get_int(model, "byte_fallback", 0)) mark_bytes(c);
    c->model = "t5";
    c->pre = "default";
    c->has_scores = true;
    c->add_space = c->remove_spaces = 0;
    TRY(read_unigram_normalizer(c, e));
    TRY(read_unigram_pre(c, e));
    if (unk >= 0) c->role[CONV_UNK] = (int32_t)unk;
    return conv_added_tokens(c, e);
}

/* ---- WordPiece ---- */

/* GGUF writes the beginning of a word, not its continuation: "##ing" is "ing", "play" is U+2581 "play". */
static status mark_words(struct conv *c, struct str prefix, struct err *e)
{
    size_t bytes = 0;
    for (int64_t id = 0; id < c->n; id++) bytes += c->token[id].text.n + 3;
    char *out = arena_alloc(&c->mem, bytes + 1);
    if (!out) return err_oom(e, "vocabulary", bytes);
    for (int64_t id = 0; id < c->n; id++) {
        struct conv_token *t = &c->token[id];
        if (t->type != CONV_NORMAL) continue;
        if (prefix.n && t->text.n > prefix.n && !memcmp(t->text.p, prefix.p, prefix.n)) {
            t->text = (struct str){ t->text.p + prefix.n, t->text.n - prefix.n };
            continue;
        }
        memcpy(out, SPACE_MARK, 3);
        memcpy(out + 3, t->text.p, t->text.n);
        t->text.p = out;
        t->text.n += 3;
        out += t->text.n;
    }
    return OK;
}

static status finish_wordpiece(struct conv *c, struct str prefix, struct err *e)
{
    c->model = "bert";
    c->pre = c->o->pre ? c->o->pre : "jina-v2-en"; /* the name llama.cpp gives to BERT's rules */
    TRY(conv_added_tokens(c, e));
    /* The unknown token and its like are found by their plain text, so they are control tokens before the rewriting. */
    static const char *const names[] = { "[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]" };
    for (int i = 0; i < ARRAY_LEN(names); i++) {
        int32_t id = conv_find(c, str_of(names[i]));
        if (id >= 0) c->token[id].type = CONV_CONTROL;
    }
    TRY(mark_words(c, prefix, e));
    return conv_index(c, e);
}

static status read_wordpiece(struct conv *c, const struct json *model, struct err *e)
{
    const struct json *vocab, *prefix = get_kind(model, "continuing_subword_prefix", JSON_STR);
    struct steps s;
    TRY(conv_want(FILE_NAME, model, "vocab", JSON_OBJ, &vocab, e));
    TRY(put_vocab(c, FILE_NAME, vocab, e));
    TRY(normalizer_steps(c, &s, e));
    for (int i = 0; i < s.n; i++) {
        struct str type = step_type(s.step[i]);
        if (type_is(s.step[i], "BertNormalizer")) {
            c->lowercase = get_int(s.step[i], "lowercase", 1) != 0;
            if (get_kind(s.step[i], "strip_accents", JSON_BOOL)) c->strip_accents = get_int(s.step[i], "strip_accents", 0) != 0;
        } else if (type_is(s.step[i], "Lowercase")) {
            c->lowercase = 1;
        } else if (type_is(s.step[i], "StripAccents")) {
            c->strip_accents = 1;
        } else {
            conv_warn(c, "%s: the normalizer %.*s is not applied by models of the kind \"bert\"", FILE_NAME, show(type), type.p);
        }
    }
    TRY(pre_steps(c, &s, e));
    if (s.n != 1 || !type_is(s.step[0], "BertPreTokenizer"))
        return err_set(e, ERR_FORMAT, "%s: a WordPiece model with another pre-tokenizer than BertPreTokenizer is not supported", FILE_NAME);
    return finish_wordpiece(c, prefix ? json_str(prefix) : str_of("##"), e);
}

/* ---- entries ---- */

status conv_read_json(struct conv *c, struct err *e)
{
    static const struct {
        const char *type;
        status (*read)(struct conv *c, const struct json *model, struct err *e);
    } rows[] = { { "BPE", read_bpe }, { "Unigram", read_unigram }, { "WordPiece", read_wordpiece } };
    const struct json *model, *type = NULL;
    TRY(conv_want(FILE_NAME, c->tokenizer, "model", JSON_OBJ, &model, e));
    if (!json_get(model, "type")) { /* older files do not say */
        const struct json *vocab = json_get(model, "vocab");
        if (is_kind(vocab, JSON_ARR)) return read_unigram(c, model, e);
        if (is_kind(vocab, JSON_OBJ)) return json_get(model, "merges") ? read_bpe(c, model, e) : read_wordpiece(c, model, e);
    }
    TRY(conv_want(FILE_NAME, model, "type", JSON_STR, &type, e));
    for (int i = 0; i < ARRAY_LEN(rows); i++)
        if (str_is(json_str(type), rows[i].type)) return rows[i].read(c, model, e);
    return err_set(e, ERR_FORMAT, "%s: model.type is \"%.60s\", supported are BPE, Unigram, WordPiece", FILE_NAME, type->str);
}

static bool differs(const struct conv *c, const bool *added, int64_t id, struct str text)
{
    if (id < 0 || id >= c->n) return false;
    return !added[id] && c->token[id].type != CONV_HOLE && !str_same(c->token[id].text, text);
}

status conv_json_differs(const struct conv *c, int64_t *id, struct err *e)
{
    *id = -1;
    const struct json *vocab = json_get(get_kind(c->tokenizer, "model", JSON_OBJ), "vocab"), *list = get_kind(c->tokenizer, "added_tokens", JSON_ARR);
    if (!vocab || (vocab->kind != JSON_OBJ && vocab->kind != JSON_ARR)) return OK;
    bool *added = mem_calloc((size_t)c->n + 1, sizeof *added);
    if (!added) return err_oom(e, FILE_NAME, (size_t)c->n);
    for (const struct json *i = list ? list->child : NULL; i; i = i->next) {
        int64_t at = get_int(i, "id", -1);
        if (at >= 0 && at < c->n) added[at] = true;
    }
    int64_t n = 0;
    for (const struct json *m = vocab->child; m && *id < 0; m = m->next, n++) {
        bool pair = vocab->kind == JSON_ARR && m->kind == JSON_ARR && is_kind(m->child, JSON_STR);
        if (pair && differs(c, added, n, json_str(m->child))) *id = n;
        if (vocab->kind == JSON_OBJ && m->kind == JSON_INT && differs(c, added, m->i, (struct str){ m->key, (size_t)m->key_n })) *id = m->i;
    }
    mem_free(added);
    return OK;
}

/* The next line, without its end; false after the last. */
static bool next_line(struct str *rest, struct str *line)
{
    if (rest->n == 0) return false;
    const char *nl = memchr(rest->p, '\n', rest->n);
    size_t n = nl ? (size_t)(nl - rest->p) : rest->n, all = nl ? n + 1 : n;
    if (n && rest->p[n - 1] == '\r') *line = (struct str){ rest->p, n - 1 };
    else *line = (struct str){ rest->p, n };
    rest->p += all;
    rest->n -= all;
    return true;
}

/* merges.txt as the array that tokenizer.json would have: the values of one list. */
static status merges_from_text(struct conv *c, struct str text, struct json **out, struct err *e)
{
    struct json *list = arena_zalloc(&c->mem, 1, sizeof *list), *last = NULL;
    size_t lines = 1;
    for (size_t i = 0; i < text.n; i++) lines += text.p[i] == '\n';
    struct json *items = arena_zalloc(&c->mem, lines, sizeof *items);
    if (!list || !items) return err_oom(e, "merges.txt", lines * sizeof *items);
    list->kind = JSON_ARR;
    struct str line;
    for (int64_t number = 1; next_line(&text, &line); number++) {
        if (line.n == 0 || (number == 1 && line.n > 8 && !memcmp(line.p, "#version", 8))) continue;
        struct json *item = items++;
        *item = (struct json){ .kind = JSON_STR, .str = line.p, .n = (int64_t)line.n };
        struct str half[2];
        if (!merge_halves(item, half)) return err_set(e, ERR_FORMAT, "merges.txt: line %lld is not two tokens", (long long)number);
        if (last) last->next = item;
        else list->child = item;
        last = item;
        list->n++;
    }
    *out = list;
    return OK;
}

status conv_read_vocab_json(struct conv *c, const struct json *vocab, struct str merges, struct err *e)
{
    struct json *list = NULL;
    TRY(put_vocab(c, "vocab.json", vocab, e));
    TRY(conv_index(c, e));
    TRY(merges_from_text(c, merges, &list, e));
    TRY(put_merges(c, "merges.txt", list, e));
    c->model = "gpt2";
    /* Such files come with the slow tokenizers of GPT-2 and those that took over its expression; Qwen2's has another one. */
    const struct json *class = get_kind(c->config, "tokenizer_class", JSON_STR);
    bool qwen = class && class->n >= 5 && !memcmp(class->str, "Qwen2", 5);
    c->pre = c->o->pre ? c->o->pre : qwen ? "qwen2" : "gpt-2";
    return conv_added_tokens(c, e);
}

status conv_read_vocab_txt(struct conv *c, struct str text, struct err *e)
{
    struct str line;
    for (int64_t id = 0; next_line(&text, &line); id++) TRY(conv_put(c, "vocab.txt", id, line, 0.0f, CONV_NORMAL, e));
    c->lowercase = get_int(c->config, "do_lower_case", 1) != 0;
    if (get_kind(c->config, "strip_accents", JSON_BOOL)) c->strip_accents = get_int(c->config, "strip_accents", 0) != 0;
    return finish_wordpiece(c, str_of("##"), e);
}
