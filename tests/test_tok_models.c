/* tok_models: the tokenizer models beside BPE and SPM, and the bounds that all of them keep. The vocabularies are those of
 * fuzz/corpus/tokenizer; the ids in golden/tokenizer_ids.txt are llama.cpp's. What goldens cannot show is compared with slow definitions. */
#include "src/tokenizer_int.h"
#include "tests/test.h"

/* ---- vocabularies ---- */

struct opened {
    uint8_t *data;
    struct gguf g;
    struct tokenizer *t;
};

static bool open_file(struct opened *o, const char *name)
{
    char path[128];
    struct err e = { 0 };
    uint32_t n = 0;
    *o = (struct opened){ 0 };
    snprintf(path, sizeof path, "tests/fuzz/corpus/tokenizer/%s", name);
    FILE *f = fopen(path, "rb");
    bool ok = f && fread(&n, sizeof n, 1, f) == 1 && (o->data = malloc(n)) && fread(o->data, 1, n, f) == n;
    if (f) fclose(f);
    ok = ok && gguf_parse(&o->g, o->data, n, name, &e) == OK && tokenizer_open(&o->t, &o->g, NULL, &e) == OK;
    CHECK_MSG(ok, "%s: %s", name, e.text);
    return ok;
}

static void close_file(struct opened *o)
{
    tokenizer_close(o->t);
    gguf_close(&o->g);
    free(o->data);
}

/* Tokens of one type, then what `more` puts. */
struct made {
    const char *model;
    struct str token[8];
    int n, type;
    float score;
    void (*more)(struct gguf_writer *w);
};

static status open_made(struct opened *o, const struct made *m, struct err *e)
{
    struct gguf_writer *w;
    struct gguf_header h = { 0 };
    int32_t type[8];
    float score[8];
    *o = (struct opened){ 0 };
    for (int i = 0; i < m->n; i++) type[i] = m->type ? m->type : TOKEN_NORMAL, score[i] = m->score;
    TRY(gguf_header_open(&w, "made", e));
    gguf_put_str(w, "tokenizer.ggml.model", m->model, strlen(m->model));
    gguf_put_arr_str(w, "tokenizer.ggml.tokens", m->token, (uint64_t)m->n);
    gguf_put_arr(w, "tokenizer.ggml.token_type", KV_I32, type, (uint64_t)m->n);
    gguf_put_arr(w, "tokenizer.ggml.scores", KV_F32, score, (uint64_t)m->n);
    if (m->more) m->more(w);
    TRY(gguf_header_finish(w, &h, e));
    o->data = h.data;
    h.data = NULL;
    size_t n = h.n;
    gguf_header_free(&h);
    TRY(gguf_parse(&o->g, o->data, n, "made", e));
    return tokenizer_open(&o->t, &o->g, NULL, e);
}

static void close_made(struct opened *o)
{
    tokenizer_close(o->t);
    gguf_close(&o->g);
    mem_free(o->data);
}

static int64_t encode(const struct opened *o, const char *text, size_t n, unsigned flags, int32_t *ids, int64_t cap)
{
    struct err e = { 0 };
    int64_t n_ids = -1;
    CHECK_MSG(tokenizer_encode(o->t, text, n, flags, ids, cap, &n_ids, &e) == OK, "%s", e.text);
    return n_ids;
}

/* ---- goldens ---- */

static void check_ids(const struct opened *o, const char *name, const char *line)
{
    char text[512], found[4096] = "", hex[1024];
    unsigned flags, v;
    int skip = 0;
    int32_t ids[512];
    CHECK(sscanf(line, "%1023s %u%n", hex, &flags, &skip) == 2);
    size_t n = 0, at = 0;
    for (const char *p = hex; sscanf(p, "%2x", &v) == 1 && *p != '-'; p += 2) text[n++] = (char)v;
    int64_t n_ids = encode(o, text, n, flags, ids, ARRAY_LEN(ids));
    for (int64_t i = 0; i < n_ids && i < ARRAY_LEN(ids); i++) at += (size_t)snprintf(found + at, sizeof found - at, " %d", ids[i]);
    CHECK_MSG(!strcmp(found, line + skip), "%s: \"%.*s\" with flags %u is%s, expected%s", name, (int)n, text, flags, found, line + skip);
}

TEST(ids_of_every_model_equal_those_of_llama_cpp)
{
    FILE *f = fopen("tests/golden/tokenizer_ids.txt", "r");
    CHECK(f);
    if (!f) return;
    static char line[4096], name[64];
    struct opened o = { 0 };
    int n_files = 0, n_lines = 0;
    while (fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = 0;
        if (sscanf(line, "vocabulary %63s", name) == 1) {
            if (n_files) close_file(&o);
            if (!open_file(&o, name)) break;
            n_files++;
        } else {
            check_ids(&o, name, line);
            n_lines++;
        }
    }
    if (n_files) close_file(&o);
    fclose(f);
    CHECK(n_files == 14 && n_lines > 1000);
}

TEST(decoding_gives_back_what_was_encoded)
{
    static const struct {
        const char *name, *text, *back;
    } rows[] = {
        { "rwkv", "abc \x00\xff\\t字 a", NULL },
        { "plamo2", "abc 字a\xff\xfe😀\n", NULL },
        { "gemma4", "ab  a\n\n\nA b\n", NULL },
        { "sarvam", " ab a\n", NULL },
        { "t5", "  ab   ﬁ  c ", "ab fi c" },
        { "t5_plain", "  ab c", "  ab c" },
        { "bert", "AB  abc", "ab abc" },
        { "bert_cased", "ab ab.c", "ab ab . c" },
    };
    for (int i = 0; i < ARRAY_LEN(rows); i++) {
        struct opened o;
        int32_t ids[256];
        char back[512];
        const char *want = rows[i].back ? rows[i].back : rows[i].text;
        if (!open_file(&o, rows[i].name)) continue;
        int64_t n_ids = encode(&o, rows[i].text, strlen(rows[i].text), 0, ids, ARRAY_LEN(ids));
        size_t n = tokenizer_decode(o.t, ids, n_ids, false, back, sizeof back);
        CHECK_MSG(n == strlen(want) && !memcmp(back, want, n), "%s: \"%s\" came back as \"%.*s\"", rows[i].name, rows[i].text, (int)n, back);
        close_file(&o);
    }
}

TEST(invalid_utf8_leaves_its_neighbours_alone)
{
    static const char *const names[] = { "bert", "t5", "rwkv", "plamo2", "gemma4", "whitespace" };
    for (int i = 0; i < ARRAY_LEN(names); i++) {
        struct opened o;
        int32_t whole[64], ab[64];
        if (!open_file(&o, names[i])) continue;
        int64_t n_ab = encode(&o, "ab", 2, 0, ab, 64), n = encode(&o, "ab \xff\xe5 ab", 8, 0, whole, 64);
        CHECK_MSG(n > n_ab && !memcmp(whole, ab, (size_t)n_ab * sizeof *ab), "%s: %lld ids", names[i], (long long)n);
        close_file(&o);
    }
}

/* ---- tries ---- */

static size_t random_bytes(uint64_t *rng, int most, char *out)
{
    size_t n = 1 + test_rand(rng) % (uint64_t)most;
    for (size_t i = 0; i < n; i++) out[i] = "ab\xe5\x00\xff"[test_rand(rng) % 5];
    return n;
}

TEST(trie_finds_the_longest_text)
{
    uint64_t rng = 11;
    for (int round = 0; round < 50; round++) {
        static char text[200][8];
        struct tok_trie_item item[200];
        struct tok_trie trie = { 0 };
        struct arena mem;
        struct err e = { 0 };
        size_t len[200], n = 1 + test_rand(&rng) % 200;
        for (size_t i = 0; i < n; i++) {
            len[i] = random_bytes(&rng, 8, text[i]);
            item[i] = (struct tok_trie_item){ .text = { text[i], len[i] }, .id = (int32_t)i };
        }
        arena_init(&mem, 0);
        CHECK(tok_trie_build(&trie, item, n, &mem, &e) == OK);
        for (int k = 0; k < 300; k++) {
            char probe[12];
            size_t n_probe = random_bytes(&rng, 12, probe), best = 0, found;
            int32_t id = -1;
            for (size_t i = 0; i < n; i++)
                if (len[i] > best && len[i] <= n_probe && !memcmp(text[i], probe, len[i])) best = len[i], id = (int32_t)i;
            CHECK(tok_trie_longest(&trie, probe, n_probe, &found) == id && found == best);
        }
        arena_free(&mem);
    }
}

/* ---- unigram: against one lattice over the whole text ---- */

static double naive_unigram(const struct tokenizer *t, const char *p, size_t n, double *best)
{
    best[0] = 0;
    for (size_t i = 1; i <= n; i++) {
        best[i] = best[i - 1] + (double)t->unknown_score; /* texts of single bytes that are all tokens: never taken */
        for (size_t len = 1; len <= i && len <= t->vocab.len_max; len++) {
            int32_t id = tok_vocab_find(&t->vocab, p + i - len, len);
            if (id < 0 || (t->vocab.attr[id] & (ATTR_CONTROL | ATTR_UNKNOWN))) continue;
            double sum = best[i - len] + (double)t->score[id];
            if (sum > best[i]) best[i] = sum;
        }
    }
    return best[n];
}

TEST(unigram_finds_the_best_sum_of_a_long_text)
{
    struct opened o;
    if (!open_file(&o, "t5_plain")) return;
    enum { N = 20000 };
    static char text[N], escaped[3 * N];
    static double best[3 * N + 1];
    static int32_t ids[N];
    uint64_t rng = 4;
    size_t n_escaped = 0;
    for (int i = 0; i < N; i++) {
        text[i] = "abcab d"[test_rand(&rng) % 7];
        if (text[i] == ' ') memcpy(escaped + n_escaped, TOK_SPACE, TOK_SPACE_LEN), n_escaped += TOK_SPACE_LEN;
        else escaped[n_escaped++] = text[i];
    }
    int64_t n = encode(&o, text, N, 0, ids, N);
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)o.t->score[ids[i]];
    double want = naive_unigram(o.t, escaped, n_escaped, best);
    CHECK_MSG(fabs(sum - want) < 1e-6 * fabs(want), "%.9g, the best is %.9g", sum, want);
    close_file(&o);
}

/* ---- what is refused ---- */

static void put_map(struct gguf_writer *w, const void *p, uint64_t n) { gguf_put_arr(w, "tokenizer.ggml.precompiled_charsmap", KV_U8, p, n); }
static void map_empty_trie(struct gguf_writer *w) { put_map(w, "\0\0\0\0", 4); }
static void map_short(struct gguf_writer *w) { put_map(w, "\1\0", 2); }
static void map_trie_past_end(struct gguf_writer *w) { put_map(w, "\x08\0\0\0aaaabbb", 11); }
static void map_odd_trie(struct gguf_writer *w) { put_map(w, "\x03\0\0\0aaab", 8); }
static void map_open_end(struct gguf_writer *w) { put_map(w, "\x04\0\0\0aaaabc", 10); }
static void map_long_text(struct gguf_writer *w)
{
    char map[80] = { 4 };
    memset(map + 8, 'x', 65);
    put_map(w, map, 74);
}
static void map_of_floats(struct gguf_writer *w) { gguf_put_arr(w, "tokenizer.ggml.precompiled_charsmap", KV_F32, (float[]){ 1, 2 }, 2); }
static void sep_past_end(struct gguf_writer *w)
{
    gguf_put_i64(w, "tokenizer.ggml.bos_token_id", KV_U32, 0);
    gguf_put_i64(w, "tokenizer.ggml.unknown_token_id", KV_U32, 0);
    gguf_put_i64(w, "tokenizer.ggml.seperator_token_id", KV_U32, 9);
}
static void no_sep(struct gguf_writer *w)
{
    gguf_put_i64(w, "tokenizer.ggml.bos_token_id", KV_U32, 0);
    gguf_put_i64(w, "tokenizer.ggml.unknown_token_id", KV_U32, 0);
}
static void case_as_number(struct gguf_writer *w)
{
    no_sep(w);
    gguf_put_i64(w, "tokenizer.ggml.seperator_token_id", KV_U32, 1);
    gguf_put_i64(w, "tokenizer.ggml.normalizer.lowercase", KV_U32, 1);
}

#define ABC { { "a", 1 }, { "b", 1 }, { "c", 1 } }, 3
static char long_token[TOK_TRIE_LEN + 1];
static const struct {
    struct made m;
    const char *text;
} refused[] = {
    { { "bert", ABC }, "tokenizer.ggml.bos_token_id is missing" },
    { { "bert", ABC, .more = no_sep }, "tokenizer.ggml.seperator_token_id is missing" },
    { { "bert", ABC, .more = sep_past_end }, "tokenizer.ggml.seperator_token_id is 9, allowed are 0 to 2" },
    { { "bert", ABC, .more = case_as_number }, "tokenizer.ggml.normalizer.lowercase" },
    { { "t5", { { "a", 1 } }, 1 }, "tokenizer.ggml.unknown_token_id is missing" },
    { { "t5", ABC, .score = INFINITY }, "tokenizer.ggml.scores[0] is infinite" },
    { { "t5", ABC, .score = NAN }, "tokenizer.ggml.scores[0] is not a number" },
    { { "t5", { { "a", 1 }, { long_token, TOK_TRIE_LEN + 1 }, { "c", 1 } }, 3 }, "tokenizer.ggml.tokens[1] has 513 bytes" },
    { { "rwkv", { { "a", 1 }, { long_token, TOK_TRIE_LEN + 1 } }, 2 }, "tokenizer.ggml.tokens[1] has 513 bytes" },
    { { "t5", ABC, .more = map_short }, "precompiled_charsmap has 2 bytes" },
    { { "t5", ABC, .more = map_empty_trie }, "precompiled_charsmap has 4 bytes" },
    { { "t5", ABC, .more = map_trie_past_end }, "precompiled_charsmap has 11 bytes, of which the trie claims 8" },
    { { "t5", ABC, .more = map_odd_trie }, "of which the trie claims 3" },
    { { "t5", ABC, .more = map_open_end }, "the last replacement has no end" },
    { { "t5", ABC, .more = map_long_text }, "has more than 64 bytes" },
    { { "t5", ABC, .more = map_of_floats }, "precompiled_charsmap" },
    { { "plamo2", ABC }, "has no byte token <0x00>" },
    { { "gemma4", ABC }, "tokenizer.ggml.merges is missing" },
};

TEST(damaged_vocabularies_are_refused_by_name)
{
    memset(long_token, 'a', sizeof long_token);
    for (int i = 0; i < ARRAY_LEN(refused); i++) {
        struct opened o;
        struct err e = { 0 };
        status st = open_made(&o, &refused[i].m, &e);
        CHECK_MSG(st == ERR_FORMAT && !o.t, "row %d: status %d", i, st);
        CHECK_HAS(e.text, refused[i].text);
        close_made(&o);
    }
}

/* A root whose child, and a child whose value, lie outside: the search ends, the text stays. */
static void map_wild(struct gguf_writer *w)
{
    uint32_t map[300] = { 256 * 4, 256u << 10 };
    map[1 + 'b'] = 'b' | 1 << 8 | 0x1fffffu << 10;
    map[1] = (uint32_t)0 << 10;
    map[1 + 'a'] = 'a' | 1 << 8 | (uint32_t)('a' ^ 'c') << 10;
    map[1 + 'c'] = 1u << 31 | 0x7fffffff;
    put_map(w, map, 4 + 256 * 4 + 8);
}

TEST(charsmap_with_wild_indices_has_no_rules)
{
    static const struct made m = { "t5", { { "a", 1 }, { "b", 1 }, { "?", 1 } }, 3, .more = map_wild };
    struct opened o;
    struct err e = { 0 };
    int32_t ids[8];
    CHECK_MSG(open_made(&o, &m, &e) == OK, "%s", e.text);
    if (o.t) CHECK(encode(&o, "abba", 4, 0, ids, 8) == 4 && ids[0] == 0 && ids[1] == 1 && ids[2] == 1 && ids[3] == 0);
    close_made(&o);
}

/* The node for 'a' is its own child. */
static void map_loop(struct gguf_writer *w)
{
    uint32_t map[260] = { 256 * 4 };
    map[1] = 0;
    map[1 + 'a'] = 'a' | 'a' << 10;
    put_map(w, map, 4 + 256 * 4 + 4);
}

/* 'a' becomes 17 bytes, 'b' 16. */
static void map_wide(struct gguf_writer *w)
{
    uint32_t map[264] = { 256 * 4 };
    map[1 + 'a'] = 'a' | 1 << 8 | ('a' ^ 'c') << 10;
    map[1 + 'b'] = 'b' | 1 << 8 | ('b' ^ 'd') << 10;
    map[1 + 'c'] = 1u << 31;
    map[1 + 'd'] = 1u << 31 | 1;
    memcpy(map + 257, "ccccccccccccccccc", 18);
    put_map(w, map, 4 + 256 * 4 + 18);
}

TEST(charsmap_rules_that_blow_up_a_text_are_none)
{
    static const struct made m = { "t5", { { "a", 1 }, { "b", 1 }, { "?", 1 }, { "c", 1 } }, 4, .more = map_wide };
    struct opened o;
    struct err e = { 0 };
    int32_t ids[64];
    CHECK_MSG(open_made(&o, &m, &e) == OK, "%s", e.text);
    if (o.t) CHECK(encode(&o, "ab", 2, 0, ids, 64) == 17 && ids[0] == 0 && ids[1] == 3 && ids[16] == 3);
    close_made(&o);
}

/* ---- bounds ---- */

TEST(time_is_linear_in_hostile_texts)
{
    enum { N = 100000 };
    static char text[N];
    static const char *const units[] = { "0", " ", "\n", "<sentinel:0", "IMGIMGA", "\xcc\x81", "A", "a ", " \n", "..", "\xe0\xa4\x81'", "한!" };
    for (int u = 0; u < ARRAY_LEN(units); u++) {
        size_t len = strlen(units[u]);
        for (size_t i = 0; i < N; i++) text[i] = units[u][i % len];
        const struct pretok *row, *last = NULL;
        for (int i = 0; (row = pretok_at(i)); last = row, i++) {
            if (last && row->stages == last->stages) continue;
            struct pretok_cursor c;
            size_t sum = 0;
            pretok_start(&c, row, text, N);
            for (size_t n; (n = pretok_next(&c)) > 0;) sum += n;
            CHECK(sum == N);
        }
    }
    static const char *const names[] = { "bert", "t5", "t5_plain", "rwkv", "plamo2", "gemma4", "sarvam", "whitespace" };
    for (int i = 0; i < ARRAY_LEN(names); i++) {
        struct opened o;
        if (!open_file(&o, names[i])) continue;
        for (int u = 0; u < 4; u++) {
            for (size_t k = 0; k < N; k++) text[k] = u == 0 ? 'a' : u == 1 ? "a b"[k % 3] : u == 2 ? '\xff' : ' ';
            CHECK(encode(&o, text, N, 0, NULL, 0) >= 0);
        }
        close_file(&o);
    }
}

TEST(time_is_linear_in_hostile_vocabularies)
{
    static struct made m[] = {
        { "t5", { { "a", 1 }, { "?", 1 }, { "b", 1 } }, 3, .more = map_loop },
        { "t5", { { "a", 1 }, { long_token, TOK_TRIE_LEN }, { "?", 1 } }, 3 },
        { "rwkv", { { "a", 1 }, { long_token, TOK_TRIE_LEN } }, 2 },
    };
    enum { N = 100000 };
    static char text[N];
    memset(text, 'a', N);
    memset(long_token, 'a', sizeof long_token - 2);
    long_token[TOK_TRIE_LEN - 1] = 'z'; /* never matches, and is always tried to its end */
    for (int i = 0; i < ARRAY_LEN(m); i++) {
        struct opened o;
        struct err e = { 0 };
        CHECK_MSG(open_made(&o, &m[i], &e) == OK, "%s", e.text);
        if (o.t) CHECK(encode(&o, text, N, 0, NULL, 0) == N);
        close_made(&o);
    }
}

TEST(every_failed_allocation_is_reported)
{
    static const char *const names[] = { "bert", "t5", "rwkv", "plamo2", "gemma4", "whitespace", "bpe_kimi_k2" };
    static char text[3000];
    for (size_t i = 0; i < sizeof text; i++) text[i] = i < 400 ? 'a' : i % 7 ? 'b' : ' ';
    for (int k = 0; k < ARRAY_LEN(names); k++) {
        struct opened o;
        if (!open_file(&o, names[k])) continue;
        tokenizer_close(o.t);
        o.t = NULL;
        bool opened = false, encoded = false;
        for (int64_t n = 1; n < 200 && !opened; n++) {
            struct err e = { 0 };
            mem_fail_at(n, false);
            opened = tokenizer_open(&o.t, &o.g, NULL, &e) == OK;
            mem_fail_at(0, false);
            CHECK(opened || (e.code == ERR_MEMORY && !o.t));
        }
        int64_t want = opened ? encode(&o, text, sizeof text, 0, NULL, 0) : 0;
        for (int64_t n = 1; opened && n < 200 && !encoded; n++) {
            struct err e = { 0 };
            int64_t n_ids = -1;
            mem_fail_at(n, false);
            encoded = tokenizer_encode(o.t, text, sizeof text, 0, NULL, 0, &n_ids, &e) == OK;
            mem_fail_at(0, false);
            CHECK(encoded ? n_ids == want : e.code == ERR_MEMORY && n_ids == 0);
        }
        CHECK_MSG(encoded, "%s", names[k]);
        close_file(&o);
    }
}

SUITE(tok_models, T(ids_of_every_model_equal_those_of_llama_cpp), T(decoding_gives_back_what_was_encoded),
      T(invalid_utf8_leaves_its_neighbours_alone), T(trie_finds_the_longest_text), T(unigram_finds_the_best_sum_of_a_long_text),
      T(damaged_vocabularies_are_refused_by_name), T(charsmap_with_wild_indices_has_no_rules), T(charsmap_rules_that_blow_up_a_text_are_none),
      T(time_is_linear_in_hostile_texts),
      T(time_is_linear_in_hostile_vocabularies), T(every_failed_allocation_is_reported));
