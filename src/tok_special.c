/* tok_special - tokens that stand outside the algorithm: which they are, which of them end generation, and where they occur in a text.
 * Files name a few of them by key; the others are known by their texts, which are facts of the model families, collected in llama.cpp
 * (src/llama-vocab.cpp), whose order of precedence is followed here so that the ids agree. */
#include "src/tokenizer_int.h"
#include <stdio.h>

/* ---- roles ---- */

static const struct {
    const char *key;
    enum tok_role role;
} role_keys[] = {
    { "cls_token_id", ROLE_BOS }, /* before bos_token_id, which overrules it */
    { "bos_token_id", ROLE_BOS },
    { "eos_token_id", ROLE_EOS },
    { "unknown_token_id", ROLE_UNKNOWN },
    { "seperator_token_id", ROLE_SEP }, /* spelt so in the format */
    { "eot_token_id", ROLE_EOT },
    { "eom_token_id", ROLE_EOM },
    { "fim_pre_token_id", ROLE_FIM_PREFIX },
    { "fim_suf_token_id", ROLE_FIM_SUFFIX },
    { "fim_mid_token_id", ROLE_FIM_MIDDLE },
    { "fim_pad_token_id", ROLE_FIM_PAD },
    { "fim_rep_token_id", ROLE_FIM_REPO },
    { "fim_sep_token_id", ROLE_FIM_FILE },
    { "prefix_token_id", ROLE_FIM_PREFIX }, /* older names */
    { "suffix_token_id", ROLE_FIM_SUFFIX },
    { "middle_token_id", ROLE_FIM_MIDDLE },
};

/* What a token is by its text. NONE: no role. end: generation stops at it. */
enum { NONE = -1 };
static const struct {
    const char *text;
    int role;
    bool end;
} known[] = {
    { "<|eot_id|>", ROLE_EOT, true },
    { "<|im_end|>", ROLE_EOT, true },
    { "<|end|>", ROLE_EOT, true },
    { "<end_of_turn>", ROLE_EOT, true },
    { "<|endoftext|>", ROLE_EOT, true },
    { "<|end_of_text|>", ROLE_EOT, true },
    { "<EOT>", ROLE_EOT, true },
    { "_<EOT>", ROLE_EOT, true },
    { "[EOT]", ROLE_EOT, true },
    { "<｜end▁of▁sentence｜>", ROLE_EOT, true },
    { "<end_of_utterance>", ROLE_EOT, true },
    { "<|eom_id|>", ROLE_EOM, true },
    { "<|return|>", NONE, true },
    { "<|call|>", NONE, true },
    { "<|calls|>", NONE, true },
    { "<|flush|>", NONE, true },
    { "</s>", NONE, true },
    { "[EOS]", NONE, true },
    { "<eos>", NONE, true },
    { "<turn|>", NONE, true },
    { "<|tool_response>", NONE, true },
    { "[e~[", NONE, true },

    { "<|fim_prefix|>", ROLE_FIM_PREFIX, false },
    { "<fim-prefix>", ROLE_FIM_PREFIX, false },
    { "<fim_prefix>", ROLE_FIM_PREFIX, false },
    { "<｜fim▁begin｜>", ROLE_FIM_PREFIX, false },
    { "<PRE>", ROLE_FIM_PREFIX, false },
    { "▁<PRE>", ROLE_FIM_PREFIX, false },
    { "<|code_prefix|>", ROLE_FIM_PREFIX, false },
    { "<|prefix|>", ROLE_FIM_PREFIX, false },
    { "<|fim_suffix|>", ROLE_FIM_SUFFIX, false },
    { "<fim-suffix>", ROLE_FIM_SUFFIX, false },
    { "<fim_suffix>", ROLE_FIM_SUFFIX, false },
    { "<｜fim▁hole｜>", ROLE_FIM_SUFFIX, false },
    { "<SUF>", ROLE_FIM_SUFFIX, false },
    { "▁<SUF>", ROLE_FIM_SUFFIX, false },
    { "<|code_suffix|>", ROLE_FIM_SUFFIX, false },
    { "<|suffix|>", ROLE_FIM_SUFFIX, false },
    { "<|fim_middle|>", ROLE_FIM_MIDDLE, false },
    { "<fim-middle>", ROLE_FIM_MIDDLE, false },
    { "<fim_middle>", ROLE_FIM_MIDDLE, false },
    { "<｜fim▁end｜>", ROLE_FIM_MIDDLE, false },
    { "<MID>", ROLE_FIM_MIDDLE, false },
    { "▁<MID>", ROLE_FIM_MIDDLE, false },
    { "<|code_middle|>", ROLE_FIM_MIDDLE, false },
    { "<|middle|>", ROLE_FIM_MIDDLE, false },
    { "<|fim_pad|>", ROLE_FIM_PAD, false },
    { "<fim-pad>", ROLE_FIM_PAD, false },
    { "<fim_pad>", ROLE_FIM_PAD, false },
    { "<PAD>", ROLE_FIM_PAD, false },
    { "[PAD]", ROLE_FIM_PAD, false },
    { "<|fim_repo|>", ROLE_FIM_REPO, false },
    { "<|repo_name|>", ROLE_FIM_REPO, false },
    { "<fim-repo>", ROLE_FIM_REPO, false },
    { "<REPO>", ROLE_FIM_REPO, false },
    { "<reponame>", ROLE_FIM_REPO, false },
    { "<|file_sep|>", ROLE_FIM_FILE, false },
};

static int32_t find(const struct tokenizer *t, const char *text) { return tok_vocab_find(&t->vocab, text, strlen(text)); }

static status read_roles(struct tokenizer *t, const struct gguf *g, struct err *e)
{
    for (int i = 0; i < N_ROLES; i++) t->role[i] = -1;
    const struct tok_model *m = t->model;
    if (m->bos < t->vocab.n) t->role[ROLE_BOS] = m->bos;
    if (m->eos < t->vocab.n) t->role[ROLE_EOS] = m->eos;
    if (m->unknown < t->vocab.n) t->role[ROLE_UNKNOWN] = m->unknown;
    if (m->sep < t->vocab.n) t->role[ROLE_SEP] = m->sep;
    struct err ge = { 0 };
    for (int i = 0; i < ARRAY_LEN(role_keys); i++) {
        char key[64];
        int64_t id;
        snprintf(key, sizeof key, "tokenizer.ggml.%s", role_keys[i].key);
        if (gguf_get_i64(g, key, 0, t->vocab.n - 1, &id, &ge)) t->role[role_keys[i].role] = (int32_t)id;
    }
    return ge.code ? err_set(e, ge.code, "%s", ge.text) : OK;
}

/* Two families list texts as end tokens of which one is only a separator when the others are there too. */
static void correct_ends(struct tokenizer *t)
{
    uint16_t *attr = t->vocab.attr;
    int32_t end = find(t, "<|end|>"), s = find(t, "</s>");
    bool call = find(t, "<|call|>") >= 0 || find(t, "<|calls|>") >= 0;
    bool closes = find(t, "<|return|>") >= 0 || find(t, "<|flush|>") >= 0;
    if (end >= 0 && call && closes) attr[end] = ATTR_USER;
    int32_t plamo = find(t, "<|plamo:eos|>");
    if (s >= 0 && (find(t, "<|tool_response>") >= 0 || (plamo >= 0 && (attr[plamo] & ATTR_END)))) attr[s] = ATTR_NORMAL;
}

/* Many files give control tokens the type of ordinary ones, so texts decide, as in llama.cpp. Where the converter had a tokenizer.json, which
 * lists what is cut out of a text, its types are meant: "</s>" is an ordinary token of Qwen3, three others in a text. */
static status types_are_meant(const struct gguf *g, bool *meant, struct err *e)
{
    struct err ge = { 0 };
    *meant = false;
    (void)gguf_get_bool(g, "tokenizer.cuanto.exact_types", meant, &ge);
    return ge.code ? err_set(e, ge.code, "%s", ge.text) : OK;
}

static void mark_known(struct tokenizer *t, bool exact)
{
    uint16_t *attr = t->vocab.attr;
    for (int i = 0; i < ARRAY_LEN(known); i++) {
        int32_t id = find(t, known[i].text);
        if (id < 0 || (exact && (attr[id] & ATTR_NORMAL))) continue;
        if (known[i].role != NONE && t->role[known[i].role] < 0) {
            t->role[known[i].role] = id;
            attr[id] |= ATTR_CONTROL;
        }
        if (known[i].end) attr[id] |= ATTR_CONTROL | ATTR_END;
    }
    /* Parts of the gpt-oss answer format that a reader must see. */
    static const char *const shown[] = { "<|channel|>", "<|message|>", "<|start|>", "<|constrain|>" };
    for (int i = 0; i < ARRAY_LEN(shown); i++) {
        int32_t id = find(t, shown[i]);
        if (id >= 0) attr[id] = ATTR_USER | (attr[id] & ATTR_END);
    }
    static const enum tok_role ends[] = { ROLE_EOS, ROLE_EOT, ROLE_EOM, ROLE_FIM_PAD, ROLE_FIM_REPO, ROLE_FIM_FILE };
    for (int i = 0; i < ARRAY_LEN(ends); i++)
        if (t->role[ends[i]] >= 0) attr[t->role[ends[i]]] |= ATTR_END;
    correct_ends(t);
}

/* ---- stripping: no key says so, only names do ---- */

static bool contains(struct str s, const char *lower)
{
    size_t n = strlen(lower);
    for (size_t i = 0; i + n <= s.n; i++) {
        size_t k = 0;
        while (k < n && (s.p[i + k] >= 'A' && s.p[i + k] <= 'Z' ? s.p[i + k] + 32 : s.p[i + k]) == lower[k]) k++;
        if (k == n) return true;
    }
    return false;
}

static void set_strip(struct tokenizer *t, const char *text, unsigned set, unsigned clear)
{
    int32_t id = find(t, text);
    if (id >= 0) t->vocab.attr[id] = (uint16_t)((t->vocab.attr[id] & ~clear) | set);
}

static void mark_stripping(struct tokenizer *t, const struct gguf *g)
{
    struct err ignored = { 0 };
    struct str name = { "", 0 }, arch = { "", 0 };
    gguf_get_str(g, "general.name", &name, &ignored);
    gguf_get_str(g, "general.architecture", &arch, &ignored);
    bool jina = t->pre && !strncmp(t->pre->name, "jina-v2-", 8);
    if (jina || contains(arch, "nomic-bert-moe") || contains(arch, "jina-bert-v3")) {
        set_strip(t, "<mask>", ATTR_LSTRIP, 0);
    } else if (contains(name, "phi-3") || contains(name, "phi3")) {
        for (int32_t id = 0; id < t->vocab.n; id++)
            if (t->vocab.attr[id] & ATTR_SPECIAL) t->vocab.attr[id] |= ATTR_RSTRIP;
        set_strip(t, "</s>", ATTR_RSTRIP, 0);
        set_strip(t, "<unk>", 0, ATTR_RSTRIP);
        set_strip(t, "<s>", 0, ATTR_RSTRIP);
        set_strip(t, "<|endoftext|>", 0, ATTR_RSTRIP);
    } else if (contains(name, "modern-bert")) {
        set_strip(t, "[MASK]", ATTR_LSTRIP, 0);
    }
}

/* ---- the sets of texts to look for ---- */

/* In byte order, equal texts by id. */
static bool before(const struct tok_vocab *v, int32_t a, int32_t b)
{
    struct str s = tok_text(v, a), u = tok_text(v, b);
    int c = memcmp(s.p, u.p, s.n < u.n ? s.n : u.n);
    if (c) return c < 0;
    return s.n != u.n ? s.n < u.n : a < b;
}

static void sift(const struct tok_vocab *v, int32_t *id, int32_t n, int32_t i)
{
    int32_t x = id[i];
    for (int32_t c; (c = 2 * i + 1) < n; i = c) {
        if (c + 1 < n && before(v, id[c], id[c + 1])) c++;
        if (!before(v, x, id[c])) break;
        id[i] = id[c];
    }
    id[i] = x;
}

static void sort_texts(const struct tok_vocab *v, int32_t *id, int32_t n)
{
    for (int32_t i = n / 2; i-- > 0;) sift(v, id, n, i);
    for (int32_t m = n - 1; m > 0; m--) {
        int32_t x = id[0];
        id[0] = id[m];
        id[m] = x;
        sift(v, id, m, 0);
    }
}

static void set_bit(uint8_t *map, size_t i) { map[i / 8] |= (uint8_t)(1u << (i % 8)); }
static bool get_bit(const uint8_t *map, size_t i) { return map[i / 8] >> (i % 8) & 1; }

static bool begins(struct str s, struct str with) { return with.n < s.n && !memcmp(s.p, with.p, with.n); }

/* The distinct lengths of the entries, longest first; the set is small, lengths are few. */
static void collect_lengths(const struct tok_vocab *v, struct tok_special_set *set)
{
    for (int32_t i = 0; i < set->n; i++) {
        uint32_t len = (uint32_t)tok_text(v, set->id[i]).n;
        int32_t at = set->n_len;
        while (at > 0 && set->len[at - 1] < len) at--;
        if (at > 0 && set->len[at - 1] == len) continue;
        memmove(set->len + at + 1, set->len + at, (size_t)(set->n_len - at) * sizeof *set->len);
        set->len[at] = len;
        set->n_len++;
    }
}

static status build_set(struct tokenizer *t, struct tok_special_set *set, bool control, struct err *e)
{
    const struct tok_vocab *v = &t->vocab;
    size_t n = 0;
    for (int32_t id = 0; id < v->n; id++) n += (v->attr[id] & ATTR_SPECIAL) != 0;
    set->id = arena_alloc(&t->mem, n * sizeof *set->id);
    set->shorter = arena_alloc(&t->mem, n * sizeof *set->shorter);
    set->len = arena_alloc(&t->mem, n * sizeof *set->len);
    if (!set->id || !set->shorter || !set->len) return err_oom(e, "special tokens", 3 * n * sizeof *set->id);
    for (int32_t id = 0; id < v->n; id++) {
        if (!(v->attr[id] & ATTR_SPECIAL) || (!control && (v->attr[id] & (ATTR_CONTROL | ATTR_UNKNOWN)))) continue;
        struct str s = tok_text(v, id);
        if (tok_vocab_find(v, s.p, s.n) == id) set->id[set->n++] = id; /* not empty, and the first of its text */
    }
    sort_texts(v, set->id, set->n);
    collect_lengths(v, set);
    for (int32_t i = 0; i < set->n; i++) {
        struct str s = tok_text(v, set->id[i]);
        int32_t k = i - 1;
        while (k >= 0 && !begins(s, tok_text(v, set->id[k]))) k = set->shorter[k];
        set->shorter[i] = k;
        set->first[(uint8_t)s.p[0] + 1] = i + 1;
        uint8_t *second = set->second[(uint8_t)s.p[0]];
        if (s.n > 1) set_bit(second, (uint8_t)s.p[1]);
        else memset(second, 0xff, sizeof set->second[0]);
    }
    for (int b = 1; b <= 256; b++)
        if (set->first[b] == 0) set->first[b] = set->first[b - 1];
    return OK;
}

status tok_special_open(struct tokenizer *t, const struct gguf *g, struct err *e)
{
    bool exact;
    TRY(read_roles(t, g, e));
    TRY(types_are_meant(g, &exact, e));
    mark_known(t, exact);
    mark_stripping(t, g);
    TRY(build_set(t, &t->special[0], false, e));
    return build_set(t, &t->special[1], true, e);
}

/* ---- finding them in a text ---- */

/* First entry of lo .. hi - 1, all equal up to byte `depth`, whose byte `depth` is >= c. */
static int32_t narrow(const struct tok_vocab *v, const struct tok_special_set *set, int32_t lo, int32_t hi, size_t depth, int c)
{
    while (lo < hi) {
        int32_t mid = lo + (hi - lo) / 2;
        if ((uint8_t)tok_text(v, set->id[mid]).p[depth] < c) lo = mid + 1;
        else hi = mid;
    }
    return lo;
}

/* The longest entry at the start of the text, -1 if there is none. */
static int32_t longest_match(const struct tok_vocab *v, const struct tok_special_set *set, const char *text, size_t n)
{
    int b = (uint8_t)text[0];
    int32_t lo = set->first[b], hi = set->first[b + 1], best = -1;
    for (size_t depth = 1; lo < hi; depth++) {
        if (tok_text(v, set->id[lo]).n == depth) best = lo++;
        if (depth == n || lo == hi) break;
        int c = (uint8_t)text[depth];
        if (depth == 1 && !get_bit(set->second[b], (size_t)c)) break;
        lo = narrow(v, set, lo, hi, depth, c);
        hi = narrow(v, set, lo, hi, depth, c + 1);
    }
    return best;
}

static status add_hit(struct tok_hit **hits, int64_t *n, int64_t *cap, struct tok_hit hit, struct err *e)
{
    if (*n == *cap) {
        int64_t more = *cap ? 2 * *cap : 64;
        struct tok_hit *p = mem_realloc(*hits, (size_t)more * sizeof *p);
        if (!p) return err_oom(e, "special tokens", (size_t)more * sizeof *p);
        *hits = p;
        *cap = more;
    }
    (*hits)[(*n)++] = hit;
    return OK;
}

static bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

/* Marks the bytes of the hit and the spaces that it swallows. */
static void take(struct tok_hit *hit, unsigned attr, uint8_t *map, const char *text, size_t n)
{
    if (attr & ATTR_LSTRIP)
        while (hit->begin > 0 && is_space(text[hit->begin - 1]) && !get_bit(map, hit->begin - 1)) hit->begin--;
    if (attr & ATTR_RSTRIP)
        while (hit->end < n && is_space(text[hit->end]) && !get_bit(map, hit->end)) hit->end++;
    for (size_t i = hit->begin; i < hit->end; i++) set_bit(map, i);
}

/* What is taken is never shorter than the hit, so its two ends tell if it is free. A hit whose end is taken shrinks to the next shorter
 * entry that begins it. */
static void settle_hit(const struct tokenizer *t, const struct tok_special_set *set, struct tok_hit *h, uint8_t *map, const char *text,
                       size_t n)
{
    if (get_bit(map, h->begin)) {
        h->entry = -1;
    } else if (get_bit(map, h->end - 1)) {
        h->entry = set->shorter[h->entry];
        if (h->entry >= 0) h->end = h->begin + (uint32_t)tok_text(&t->vocab, set->id[h->entry]).n;
    } else {
        take(h, t->vocab.attr[set->id[h->entry]], map, text, n);
    }
}

/* Gives the text to the longest tokens first, among equally long ones to the smallest id. order: n_hits items of scratch. */
static void settle(const struct tokenizer *t, const struct tok_special_set *set, struct tok_hit *hits, int64_t n_hits, uint64_t *order,
                   uint8_t *map, const char *text, size_t n)
{
    for (int32_t k = 0; k < set->n_len; k++) {
        size_t n_order = 0;
        for (int64_t i = 0; i < n_hits; i++)
            if (hits[i].entry >= 0 && hits[i].end - hits[i].begin == set->len[k])
                order[n_order++] = (uint64_t)set->id[hits[i].entry] << 32 | (uint64_t)i;
        for (size_t i = n_order / 2; i-- > 0;) tok_sift_down(order, n_order, i);
        while (n_order > 0) {
            settle_hit(t, set, &hits[order[0] & UINT32_MAX], map, text, n);
            order[0] = order[--n_order];
            if (n_order > 0) tok_sift_down(order, n_order, 0);
        }
    }
}

/* The first place from i on where an entry may begin, n if there is none. */
static size_t next_start(const struct tok_special_set *set, const char *text, size_t i, size_t n)
{
    if (set->n == 0) return n;
    for (; i < n; i++) {
        int b = (uint8_t)text[i];
        if (set->first[b] == set->first[b + 1]) continue;
        if (i + 1 == n || get_bit(set->second[b], (uint8_t)text[i + 1])) break;
    }
    return i;
}

status tok_special_find(const struct tokenizer *t, const char *text, size_t n, bool control, struct tok_hit **hits, int64_t *n_hits,
                        struct err *e)
{
    const struct tok_special_set *set = &t->special[control];
    int64_t cap = 0;
    status st = OK;
    *hits = NULL;
    *n_hits = 0;
    for (size_t i = 0; st == OK && (i = next_start(set, text, i, n)) < n; i++) {
        int32_t entry = longest_match(&t->vocab, set, text + i, n - i);
        if (entry < 0) continue;
        uint32_t end = (uint32_t)(i + tok_text(&t->vocab, set->id[entry]).n);
        st = add_hit(hits, n_hits, &cap, (struct tok_hit){ (uint32_t)i, end, entry }, e);
    }
    if (st == OK && *n_hits > 0) {
        uint8_t *map = mem_calloc(n / 8 + 1, 1);
        uint64_t *order = mem_alloc((size_t)*n_hits * sizeof *order);
        if (map && order) settle(t, set, *hits, *n_hits, order, map, text, n);
        else st = err_oom(e, "special tokens", n / 8 + 1 + (size_t)*n_hits * sizeof *order);
        mem_free(order);
        mem_free(map);
    }
    if (st != OK) mem_free(*hits), *hits = NULL, *n_hits = 0;
    return st;
}
