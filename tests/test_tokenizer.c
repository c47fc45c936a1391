/* tokenizer, pretok, unicode: vocabularies are built in memory and parsed from an exact-size heap copy. The algorithms are compared with
 * slow ones written here from their definitions; the cutting of words with golden/tokenizer_splits.txt, made by Python's regex module. */
#include "src/pretok.h"
#include "src/tokenizer_int.h"
#include "src/unicode.h"
#include "tests/test.h"

/* ---- building files ---- */

struct bytes {
    uint8_t *p;
    size_t n, cap;
    int64_t n_kv;
};

static void put(struct bytes *b, const void *p, size_t n)
{
    if (b->n + n > b->cap) {
        b->cap = 2 * (b->n + n) + 1024;
        b->p = realloc(b->p, b->cap);
        if (!b->p) abort();
    }
    memcpy(b->p + b->n, p, n);
    b->n += n;
}
static void put_u32(struct bytes *b, uint32_t v) { put(b, &v, sizeof v); }
static void put_u64(struct bytes *b, uint64_t v) { put(b, &v, sizeof v); }
static void put_str(struct bytes *b, const char *s, size_t n) { put_u64(b, n), put(b, s, n); }
static void put_key(struct bytes *b, const char *key, uint32_t kind)
{
    char full[96];
    snprintf(full, sizeof full, "%s%s", strncmp(key, "general.", 8) ? "tokenizer.ggml." : "", key);
    put_str(b, full, strlen(full)), put_u32(b, kind), b->n_kv++;
}
static void put_text(struct bytes *b, const char *key, const char *s) { put_key(b, key, KV_STR), put_str(b, s, strlen(s)); }
static void put_id(struct bytes *b, const char *key, int32_t v) { put_key(b, key, KV_I32), put_u32(b, (uint32_t)v); }
static void put_bool(struct bytes *b, const char *key, bool v) { put_key(b, key, KV_BOOL), put(b, &v, 1); }
static void put_arr(struct bytes *b, const char *key, uint32_t elem, uint64_t n)
{
    put_key(b, key, KV_ARR), put_u32(b, elem), put_u64(b, n);
}

/* A vocabulary under construction; extra holds further key-value pairs. */
enum { MAX_TOKENS = 1024 };
struct spec {
    const char *model, *pre;
    char text[MAX_TOKENS][40];
    int type[MAX_TOKENS];
    float score[MAX_TOKENS];
    int n;
    char merge[MAX_TOKENS][80];
    int n_merges;
    struct bytes extra;
    int64_t n_types, n_scores; /* items written, -1: none; set by spec_init to follow n */
    uint32_t type_elem, score_elem;
};
enum { FOLLOW = -2 };

static int add(struct spec *s, const char *text, int type)
{
    if (s->n == MAX_TOKENS) abort();
    snprintf(s->text[s->n], sizeof s->text[0], "%s", text);
    s->type[s->n] = type;
    return s->n++;
}
static void add_merge(struct spec *s, const char *left, const char *right)
{
    snprintf(s->merge[s->n_merges++], sizeof s->merge[0], "%s %s", left, right);
}

static void spec_init(struct spec *s, const char *model, const char *pre)
{
    memset(s, 0, sizeof *s);
    s->model = model, s->pre = pre;
    s->n_types = s->n_scores = FOLLOW;
    s->type_elem = KV_I32, s->score_elem = KV_F32;
}

struct opened {
    struct gguf g;
    struct tokenizer *t;
    uint8_t *data;
};

static status open_spec(struct spec *s, struct opened *o, const char *pre, struct err *e)
{
    struct bytes b = { 0 }, kv = { 0 };
    if (s->model) put_text(&kv, "model", s->model);
    if (s->pre) put_text(&kv, "pre", s->pre);
    put_arr(&kv, "tokens", KV_STR, (uint64_t)s->n);
    for (int i = 0; i < s->n; i++) put_str(&kv, s->text[i], strlen(s->text[i]));
    int64_t n_types = s->n_types == FOLLOW ? s->n : s->n_types, n_scores = s->n_scores == FOLLOW ? s->n : s->n_scores;
    if (n_types >= 0) put_arr(&kv, "token_type", s->type_elem, (uint64_t)n_types);
    for (int64_t i = 0; i < n_types; i++) put_u32(&kv, (uint32_t)s->type[i]);
    if (n_scores >= 0) put_arr(&kv, "scores", s->score_elem, (uint64_t)n_scores);
    for (int64_t i = 0; i < n_scores; i++) put(&kv, &s->score[i], 4);
    if (s->n_merges >= 0) put_arr(&kv, "merges", KV_STR, (uint64_t)s->n_merges);
    for (int i = 0; i < s->n_merges; i++) put_str(&kv, s->merge[i], strlen(s->merge[i]));
    put(&b, "GGUF", 4), put_u32(&b, 3), put_u64(&b, 0), put_u64(&b, (uint64_t)(kv.n_kv + s->extra.n_kv));
    put(&b, kv.p, kv.n);
    if (s->extra.n) put(&b, s->extra.p, s->extra.n);
    free(kv.p), free(s->extra.p);
    s->extra = (struct bytes){ 0 };
    o->data = malloc(b.n);
    if (!o->data) abort();
    memcpy(o->data, b.p, b.n);
    status st = gguf_parse(&o->g, o->data, b.n, "vocabulary", e);
    free(b.p);
    CHECK_MSG(st == OK, "%s", e->text);
    st = tokenizer_open(&o->t, &o->g, pre, e);
    CHECK((st == OK) == (o->t != NULL) && (st == OK) == (e->code == OK));
    return st;
}
static void close_spec(struct opened *o)
{
    tokenizer_close(o->t);
    gguf_close(&o->g);
    free(o->data);
}
static void must_open(struct spec *s, struct opened *o)
{
    struct err e = { 0 };
    CHECK_MSG(open_spec(s, o, NULL, &e) == OK, "%s", e.text);
}

/* ---- small vocabularies ---- */

static void byte_text(int b, char out[5])
{
    bool plain = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
    int shifted = 0;
    for (int i = 0; i < b; i++) shifted += !((i >= 0x21 && i <= 0x7e) || (i >= 0xa1 && i <= 0xac) || i >= 0xae);
    out[unicode_encode((uint32_t)(plain ? b : 256 + shifted), out)] = 0;
}

/* 256 bytes as tokens 0..255 */
static void bytes_spec(struct spec *s, const char *pre)
{
    spec_init(s, "gpt2", pre);
    for (int b = 0; b < 256; b++) {
        char t[5];
        byte_text(b, t);
        add(s, t, TOKEN_NORMAL);
    }
}

/* unknown, <s>, </s>, 256 byte tokens, and the given texts with falling scores */
static void spm_spec(struct spec *s, const char *const *texts)
{
    spec_init(s, "llama", NULL);
    add(s, "<unk>", TOKEN_UNKNOWN), add(s, "<s>", TOKEN_CONTROL), add(s, "</s>", TOKEN_CONTROL);
    for (int b = 0; b < 256; b++) {
        char t[8];
        snprintf(t, sizeof t, "<0x%02X>", (unsigned)b);
        add(s, t, TOKEN_BYTE);
    }
    for (; *texts; texts++) s->score[add(s, *texts, TOKEN_NORMAL)] = (float)-s->n;
}

static int64_t encode(const struct opened *o, const char *text, size_t n, unsigned flags, int32_t *ids, int64_t cap)
{
    struct err e = { 0 };
    int64_t n_ids = -1;
    CHECK_MSG(tokenizer_encode(o->t, text, n, flags, ids, cap, &n_ids, &e) == OK, "%s", e.text);
    return n_ids;
}

/* The texts of the ids, joined by |. */
static const char *shown(const struct opened *o, const char *text, unsigned flags)
{
    static char out[1024];
    int32_t ids[256];
    int64_t n = encode(o, text, strlen(text), flags, ids, 256);
    size_t at = 0;
    out[0] = 0;
    for (int64_t i = 0; i < n && i < 256; i++) {
        struct str s = tokenizer_text(o->t, ids[i]);
        at += (size_t)snprintf(out + at, sizeof out - at, "%s%.*s", i ? "|" : "", (int)s.n, s.p);
    }
    return out;
}

static void check_round_trip(const struct opened *o, const char *text, size_t n)
{
    int32_t ids[4096];
    char back[8192];
    int64_t n_ids = encode(o, text, n, 0, ids, 4096);
    size_t n_back = tokenizer_decode(o->t, ids, n_ids, false, back, sizeof back);
    CHECK_MSG(n_back == n && !memcmp(back, text, n), "%zu bytes \"%.*s\" came back as %zu \"%.*s\"", n, (int)n, text, n_back, (int)n_back,
              back);
}

/* Random characters of an alphabet, given as a list of strings. */
static size_t random_text(uint64_t *rng, const char *const *letters, int n_letters, int n, char *out)
{
    size_t at = 0;
    for (int i = 0; i < n; i++) {
        const char *s = letters[test_rand(rng) % (uint64_t)n_letters];
        memcpy(out + at, s, strlen(s));
        at += strlen(s);
    }
    out[at] = 0;
    return at;
}

/* ---- unicode ---- */

TEST(unicode_every_code_point_survives_utf8)
{
    for (uint32_t c = 0; c <= UNICODE_MAX; c++) {
        char s[4];
        uint32_t back;
        int n = unicode_encode(c, s), m = unicode_decode(s, (size_t)n, &back);
        bool surrogate = c >= 0xd800 && c < 0xe000;
        if (surrogate ? m != 1 || back != UNICODE_INVALID : m != n || back != c) test_fail(__FILE__, __LINE__, "U+%04X", c);
        if (n > 1 && (unicode_decode(s, (size_t)n - 1, &back) != 1 || back != UNICODE_INVALID))
            test_fail(__FILE__, __LINE__, "U+%04X cut", c);
    }
}

TEST(unicode_decode_rejects_ill_formed)
{
    static const char *const bad[] = {
        "\x80",         "\xbf",         "\xc0\x80",         "\xc1\xbf",         "\xe0\x80\x80",     "\xe0\x9f\xbf",
        "\xed\xa0\x80", "\xed\xbf\xbf", "\xf0\x80\x80\x80", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80",
        "\xff",         "\xc3(",        "\xe2\x82(",        "\xf0\x9f\x98("
    };
    for (int i = 0; i < ARRAY_LEN(bad); i++) {
        uint32_t c = 0;
        CHECK_MSG(unicode_decode(bad[i], strlen(bad[i]), &c) == 1 && c == UNICODE_INVALID, "row %d", i);
    }
}

TEST(unicode_flags_follow_the_general_category)
{
    static const struct {
        uint32_t c;
        unsigned flags;
    } rows[] = {
        { 'a', UC_LETTER | UC_LOWER },   { 'A', UC_LETTER | UC_UPPER }, { 0x1c5, UC_LETTER | UC_UPPER },
        { 0x2b0, UC_LETTER },   { '7', UC_NUMBER },     { ' ', UC_SPACE },
        { '\n', UC_SPACE },     { 0x85, UC_SPACE },     { 0xa0, UC_SPACE },
        { 0x3000, UC_SPACE },   { 0x200b, UC_CONTROL }, { 0, UC_CONTROL },
        { '_', UC_PUNCT },      { '$', UC_SYMBOL },     { 0x301, UC_MARK },
        { 0x4e2d, UC_LETTER },  { 0x661, UC_NUMBER },   { 0x2167, UC_NUMBER },
        { 0x1f600, UC_SYMBOL }, { 0x378, 0 },           { 0xe000, UC_CONTROL },
        { 0xfffd, UC_SYMBOL },  { 0x2ebf0, UC_LETTER }, { 0x10ffff, 0 },
        { 0x110000, 0 },        { UINT32_MAX, 0 },
    };
    for (int i = 0; i < ARRAY_LEN(rows); i++)
        CHECK_MSG(unicode_flags(rows[i].c) == rows[i].flags, "U+%04X: %u", rows[i].c, unicode_flags(rows[i].c));
    CHECK_STR(unicode_version, "15.1.0");
}

TEST(unicode_lower_and_base_follow_the_character_database)
{
    static const struct {
        uint32_t c, lower, base;
    } rows[] = {
        { 'A', 'a', 'A' },
        { 'z', 'z', 'z' },
        { '[', '[', '[' },
        { 0xc5, 0xe5, 'A' },
        { 0xe9, 0xe9, 'e' },
        { 0x130, 'i', 'I' },
        { 0x1c5, 0x1c6, 0x1c5 },
        { 0x212a, 'k', 'K' },
        { 0x391, 0x3b1, 0x391 },
        { 0x1e9b, 0x1e9b, 0x17f },
        { 0x1fa7, 0x1fa7, 0x3c9 },
        { 0xac00, 0xac00, 0x1100 },
        { 0xd7a3, 0xd7a3, 0x1112 },
        { 0x2fa1d, 0x2fa1d, 0x2a600 },
        { 0x10400, 0x10428, 0x10400 },
        { 0x1e921, 0x1e943, 0x1e921 },
        { 0x10ffff, 0x10ffff, 0x10ffff },
        { UINT32_MAX, UINT32_MAX, UINT32_MAX },
    };
    for (int i = 0; i < ARRAY_LEN(rows); i++)
        CHECK_MSG(unicode_lower(rows[i].c) == rows[i].lower && unicode_base(rows[i].c) == rows[i].base, "U+%04X: %X %X", rows[i].c,
                  unicode_lower(rows[i].c), unicode_base(rows[i].c));
    for (uint32_t c = 0; c <= UNICODE_MAX; c++)
        if (unicode_lower(unicode_lower(c)) != unicode_lower(c) || unicode_base(unicode_base(c)) != unicode_base(c))
            test_fail(__FILE__, __LINE__, "U+%04X is not folded in one step", c);
}

/* ---- pretok ---- */

static size_t unhex(const char *hex, char *out)
{
    size_t n = 0;
    for (unsigned v; sscanf(hex, "%2x", &v) == 1; hex += 2) out[n++] = (char)v;
    return n;
}

static void check_split(const char *name, const char *lens, const char *text, size_t n)
{
    const struct pretok *row = pretok_find(name, strlen(name));
    CHECK_MSG(row, "%s is unknown", name);
    if (!row) return;
    struct pretok_cursor c;
    char found[1024] = "";
    size_t at = 0, len;
    pretok_start(&c, row, text, n);
    while ((len = pretok_next(&c)) > 0) at += (size_t)snprintf(found + at, sizeof found - at, " %zu", len);
    CHECK_MSG(!strcmp(found, lens), "%s of \"%.*s\" is%s, expected%s", name, (int)n, text, found, lens);
}

static bool is_listed(const char *list, const char *name)
{
    size_t n = strlen(name);
    for (const char *p = list; (p = strstr(p, name)); p += n)
        if ((p == list || p[-1] == ',') && (p[n] == ',' || p[n] == 0)) return true;
    return false;
}

/* The names of a line: those listed, or for "others" all that no line since the text had. Returns how many were checked. */
static int check_names(const char *all, char *seen, const char *list, const char *lens, const char *text, size_t n)
{
    int n_checked = 0;
    char name[64];
    bool others = !strcmp(list, "others");
    for (int at = 0, k; sscanf(all + at, " %31s%n", name, &k) == 1; at += k) {
        if (others ? is_listed(seen, name) : !is_listed(list, name)) continue;
        check_split(name, lens, text, n);
        n_checked++;
    }
    strcat(strcat(seen, ","), list);
    return n_checked;
}

TEST(pretok_cuts_like_the_regular_expressions)
{
    FILE *f = fopen("tests/golden/tokenizer_splits.txt", "r");
    CHECK(f);
    if (!f) return;
    static char line[2048], all[2048], seen[2048], text[1024];
    size_t n = 0;
    int n_checked = 0, n_texts = 0;
    while (fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = 0;
        char *rest = strchr(line, ' '), list[2048];
        if (!rest) break;
        memcpy(list, line, (size_t)(rest - line));
        list[rest - line] = 0;
        if (!strcmp(list, "names")) {
            memcpy(all, rest, strlen(rest) + 1);
        } else if (!strcmp(list, "text")) {
            n = unhex(rest + 1, text);
            seen[0] = 0;
            n_texts++;
        } else {
            n_checked += check_names(all, seen, list, rest, text, n);
        }
    }
    fclose(f);
    int n_names = 0;
    for (const char *p = all; (p = strchr(p, ' ')); p++) n_names++;
    CHECK(n_names >= 30 && n_texts > 250 && n_checked == n_names * n_texts);
}

TEST(pretok_every_list_of_stages_has_a_golden)
{
    FILE *f = fopen("tests/golden/tokenizer_splits.txt", "r");
    static char names[1024];
    CHECK(f && fgets(names, sizeof names, f));
    if (f) fclose(f);
    for (const struct pretok *row, *last = NULL; (row = pretok_at(last ? (int)(last - pretok_at(0)) + 1 : 0)); last = row) {
        bool found = false;
        char name[32];
        for (int at = 0, k; sscanf(names + at, " %31s%n", name, &k) == 1; at += k) {
            const struct pretok *golden = pretok_find(name, strlen(name));
            found |= golden && golden->stages == row->stages;
        }
        CHECK_MSG(found, "%s", row->name);
    }
}

TEST(pretok_pieces_join_to_any_bytes)
{
    uint64_t rng = 1;
    static const char *const letters[] = { " ", "\n", "\r",       "\t", "'", "s", "LL", "a",    "Z",        "1",   "٣",
                                           "é", "字", "\xcc\x81", "😀",  "!", "`", "/",  "\xff", "\xe2\x82", "\x80" };
    char text[512];
    for (int k = 0; k < 2000; k++) {
        size_t n = random_text(&rng, letters, ARRAY_LEN(letters), (int)(test_rand(&rng) % 100), text);
        for (size_t i = 0; k % 2 && i < n; i++)
            if (test_rand(&rng) % 4 == 0) text[i] = (char)test_rand(&rng);
        for (int i = 0; pretok_at(i); i++) {
            struct pretok_cursor c;
            size_t sum = 0, len;
            pretok_start(&c, pretok_at(i), text, n);
            while ((len = pretok_next(&c)) > 0 && sum <= n) sum += len;
            CHECK_MSG(sum == n, "%s: pieces of %zu bytes sum to %zu", pretok_at(i)->name, n, sum);
        }
    }
}

/* ---- merging against the definition ---- */

/* Joins the best pair until there is none, looking at all pairs each time. rank(a, b) < 0: never. Symbols are texts, parted in sym[]. */
struct naive {
    const struct spec *s;
    char sym[512][512];
    int n;
};

static void naive_merge(struct naive *v, double (*rank)(const struct spec *s, const char *a, const char *b))
{
    for (;;) {
        int best = -1;
        double least = 0;
        for (int i = 0; i + 1 < v->n; i++) {
            double r = rank(v->s, v->sym[i], v->sym[i + 1]);
            if (r >= 0 && (best < 0 || r < least)) best = i, least = r;
        }
        if (best < 0) return;
        size_t a = strlen(v->sym[best]);
        memmove(v->sym[best] + a, v->sym[best + 1], strlen(v->sym[best + 1]) + 1);
        memmove(v->sym[best + 1], v->sym[best + 2], sizeof v->sym[0] * (size_t)(v->n - best - 2));
        v->n--;
    }
}

static int spec_find(const struct spec *s, const char *text)
{
    for (int i = 0; i < s->n; i++)
        if (!strcmp(s->text[i], text)) return i;
    return -1;
}

static double bpe_rank(const struct spec *s, const char *a, const char *b)
{
    char line[1100];
    snprintf(line, sizeof line, "%s %s", a, b);
    for (int i = 0; i < s->n_merges; i++)
        if (!strcmp(s->merge[i], line)) return i;
    return -1;
}

static double spm_rank(const struct spec *s, const char *a, const char *b)
{
    char text[1100];
    snprintf(text, sizeof text, "%s%s", a, b);
    int id = spec_find(s, text);
    return id < 0 ? -1 : 1e6 - (double)s->score[id];
}

static struct spec spec; /* too large for the stack */
static struct naive naive;

TEST(bpe_joins_the_earliest_merge_then_the_leftmost)
{
    uint64_t rng = 7;
    for (int round = 0; round < 20; round++) {
        bytes_spec(&spec, "gpt-2");
        char pool[64][40];
        int n_pool = 4;
        for (int i = 0; i < 4; i++) snprintf(pool[i], sizeof pool[0], "%c", 'a' + i);
        while (n_pool < 40) {
            const char *a = pool[test_rand(&rng) % (uint64_t)n_pool], *b = pool[test_rand(&rng) % (uint64_t)n_pool];
            if (strlen(a) + strlen(b) > 12) continue;
            add_merge(&spec, a, b);
            char joined[32];
            snprintf(joined, sizeof joined, "%s%s", a, b);
            memcpy(pool[n_pool], joined, sizeof joined);
            if (spec_find(&spec, pool[n_pool]) < 0) add(&spec, pool[n_pool], TOKEN_NORMAL);
            n_pool++;
        }
        struct opened o;
        must_open(&spec, &o);
        static const char *const letters[] = { "a", "b", "c", "d" };
        for (int k = 0; k < 40; k++) {
            char text[512];
            int n = 1 + (int)(test_rand(&rng) % (k % 2 ? 20 : 200)); /* by scan and by heap */
            random_text(&rng, letters, 4, n, text);
            naive.s = &spec, naive.n = n;
            for (int i = 0; i < n; i++) snprintf(naive.sym[i], sizeof naive.sym[0], "%c", text[i]);
            naive_merge(&naive, bpe_rank);
            int32_t ids[512];
            int64_t n_ids = encode(&o, text, (size_t)n, 0, ids, 512);
            bool same = n_ids == naive.n;
            for (int i = 0; same && i < naive.n; i++) same = ids[i] == spec_find(&spec, naive.sym[i]);
            CHECK_MSG(same, "round %d: \"%s\"", round, text);
        }
        close_spec(&o);
    }
}

TEST(spm_joins_the_best_score_then_the_leftmost_across_spaces)
{
    uint64_t rng = 11;
    static const char *const none[] = { NULL };
    static const char *const parts[] = { "a", "b", "é", "▁", "字" }, *const letters[] = { "a", "b", "é", " ", "字", "x" };
    for (int round = 0; round < 20; round++) {
        spm_spec(&spec, none);
        for (int i = 0; i < 4 - round % 2; i++) spec.score[add(&spec, parts[i], TOKEN_NORMAL)] = -50;
        for (int i = 0; i < 40; i++) {
            char text[40] = "";
            for (int k = 2 + (int)(test_rand(&rng) % 3); k > 0; k--) {
                int part = (int)(test_rand(&rng) % 5);
                if (round % 4 < 2 && part == 3 && text[0]) part = 0; /* half of the vocabularies: no token reaches across a space */
                strcat(text, parts[part]);
            }
            if (spec_find(&spec, text) < 0) spec.score[add(&spec, text, TOKEN_NORMAL)] = -(float)(test_rand(&rng) % 10);
        }
        bool prefix = round % 3 != 0;
        put_bool(&spec.extra, "add_space_prefix", prefix);
        struct opened o;
        must_open(&spec, &o);
        for (int k = 0; k < 40; k++) {
            char text[1024];
            size_t n = random_text(&rng, letters, 6, 1 + (int)(test_rand(&rng) % (k % 2 ? 20 : 150)), text);
            naive.s = &spec, naive.n = 0;
            if (prefix) snprintf(naive.sym[naive.n++], sizeof naive.sym[0], "▁");
            for (size_t i = 0; i < n;) {
                uint32_t c;
                int len = unicode_decode(text + i, n - i, &c);
                snprintf(naive.sym[naive.n++], sizeof naive.sym[0], "%.*s", c == ' ' ? 3 : len, c == ' ' ? "▁" : text + i);
                i += (size_t)len;
            }
            naive_merge(&naive, spm_rank);
            int32_t ids[1024], want[1024];
            int n_want = 0;
            for (int i = 0; i < naive.n; i++) {
                int id = spec_find(&spec, naive.sym[i]);
                if (id >= 0) want[n_want++] = id;
                else
                    for (const char *p = naive.sym[i]; *p; p++) want[n_want++] = 3 + (uint8_t)*p;
            }
            int64_t n_ids = encode(&o, text, n, 0, ids, 1024);
            CHECK_MSG(n_ids == n_want && !memcmp(ids, want, sizeof *ids * (size_t)n_want), "round %d: \"%s\"", round, text);
            if (spec_find(&spec, "▁") >= 0) check_round_trip(&o, text, n); /* else a space becomes the bytes of U+2581 */
        }
        close_spec(&o);
    }
}

/* A long text is encoded with words and joins remembered, its pieces between control tokens without. */
TEST(spm_remembers_joins_of_long_texts_and_gives_the_same_ids)
{
    enum { PIECES = 700, LONG = PIECES * 128 };
    static char text[LONG];
    static int32_t ids[LONG], want[LONG];
    static const char *const texts[] = { "a", "b", "▁", "ab", "ba", "▁a", "aa", "b▁", "aab", "é", "éa", "abab", "▁▁", "字", "字é", NULL };
    static const char *const letters[] = { "a", "b", "é", " ", "字", "x" };
    uint64_t rng = 13;
    spm_spec(&spec, texts);
    struct opened o;
    must_open(&spec, &o);
    size_t at = 0;
    int64_t n = 0;
    for (int i = 0; i < PIECES; i++) {
        size_t len = random_text(&rng, letters, 6, 1 + (int)(test_rand(&rng) % 60), text + at);
        n += encode(&o, text + at, len, 0, want + n, LONG - n);
        at += len;
        memcpy(text + at, "<s>", 3);
        at += 3;
        want[n++] = 1;
    }
    CHECK(at > 2 * TOK_JOIN_MIN);
    int64_t got = encode(&o, text, at, ENCODE_SPECIAL, ids, LONG);
    CHECK_MSG(got == n && !memcmp(ids, want, (size_t)n * sizeof *ids), "%lld ids, pieces have %lld", (long long)got, (long long)n);
    close_spec(&o);
}

TEST(bpe_whole_word_wins_only_where_the_pre_tokenizer_says_so)
{
    static const struct {
        const char *pre, *ids;
    } rows[] = { { "llama-bpe", "Ġabc" }, { "qwen2", "Ġ|abc" } };
    for (int i = 0; i < ARRAY_LEN(rows); i++) {
        bytes_spec(&spec, rows[i].pre);
        add(&spec, "ab", TOKEN_NORMAL), add(&spec, "abc", TOKEN_NORMAL), add(&spec, "Ġabc", TOKEN_NORMAL);
        add_merge(&spec, "a", "b"), add_merge(&spec, "ab", "c");
        struct opened o;
        must_open(&spec, &o);
        CHECK_STR(shown(&o, " abc", 0), rows[i].ids);
        close_spec(&o);
    }
}

TEST(bpe_merge_whose_result_is_no_token_falls_apart_into_bytes)
{
    bytes_spec(&spec, "gpt-2");
    add_merge(&spec, "a", "b");
    add_merge(&spec, "Ġ", "a");
    struct opened o;
    must_open(&spec, &o);
    CHECK_STR(shown(&o, "xab a", 0), "x|a|b|Ġ|a");
    check_round_trip(&o, "xab a", 5);
    close_spec(&o);
}

TEST(bpe_one_word_of_a_megabyte_is_merged)
{
    bytes_spec(&spec, "gpt-2");
    add(&spec, "aa", TOKEN_NORMAL), add(&spec, "aaaa", TOKEN_NORMAL);
    add_merge(&spec, "a", "a"), add_merge(&spec, "aa", "aa");
    struct opened o;
    must_open(&spec, &o);
    size_t n = 1 << 20;
    char *text = malloc(n);
    if (!text) abort();
    memset(text, 'a', n);
    CHECK(encode(&o, text, n, 0, NULL, 0) == 1 << 18);
    free(text);
    close_spec(&o);
}

/* ---- special tokens ---- */

/* llama.cpp's definition: for each token, longest first, each piece of text is searched from the left and divided at what is found. */
struct piece {
    size_t begin, end;
    int id;
};
static int naive_partition(const struct spec *s, const int *order, int n_order, const char *text, bool control, bool strip,
                           struct piece *out)
{
    int n = 1;
    out[0] = (struct piece){ 0, strlen(text), -1 };
    for (int k = 0; k < n_order; k++) {
        int id = order[k];
        size_t len = strlen(s->text[id]);
        if (!control && s->type[id] != TOKEN_USER) continue;
        for (int i = 0; i < n; i++) {
            if (out[i].id >= 0) continue;
            size_t at = out[i].begin;
            while (at + len <= out[i].end && memcmp(text + at, s->text[id], len)) at++;
            if (at + len > out[i].end) continue;
            struct piece left = { out[i].begin, at, -1 }, hit = { at, at + len, id }, right = { at + len, out[i].end, -1 };
            while (strip && right.begin < right.end && (text[right.begin] == ' ' || text[right.begin] == '\n')) right.begin++;
            memmove(out + i + 3, out + i + 1, sizeof *out * (size_t)(n - i - 1));
            out[i] = left, out[i + 1] = hit, out[i + 2] = right;
            n += 2;
        }
    }
    return n;
}

TEST(special_tokens_divide_the_text_longest_first)
{
    uint64_t rng = 3;
    static const char *const texts[] = { "<ab", "ab>", "<ab>", "abab", "<", "  ", "   ", "ba\n", "b>a<b", "\n\n" }, *const letters[] = {
        "a", "b", "<", ">", " ", "\n"
    };
    for (int round = 0; round < 24; round++) {
        bool strip = round % 3 == 0;
        bytes_spec(&spec, "gpt-2");
        int order[10], n_order = 0;
        for (size_t len = 9; len > 0; len--)
            for (int i = 0; i < 10; i++)
                if (strlen(texts[i]) == len && (round < 4 || test_rand(&rng) % 3)) {
                    order[n_order] = add(&spec, texts[i], test_rand(&rng) % 2 ? TOKEN_USER : TOKEN_CONTROL);
                    n_order++;
                }
        /* "<" is the text of a byte as well: the first token of a text is the one that is found, so it never counts as special */
        int n_found = 0;
        for (int i = 0; i < n_order; i++)
            if (strcmp(spec.text[order[i]], "<")) order[n_found++] = order[i];
        if (strip) put_text(&spec.extra, "general.name", "Tiny PHI-3 model");
        struct opened o;
        must_open(&spec, &o);
        for (int k = 0; k < 200; k++) {
            char text[64];
            struct piece piece[200];
            size_t n = random_text(&rng, letters, 6, 1 + (int)(test_rand(&rng) % 24), text);
            int n_pieces = naive_partition(&spec, order, n_found, text, k % 2, strip, piece), n_want = 0;
            int32_t want[128], ids[128];
            for (int i = 0; i < n_pieces; i++) {
                if (piece[i].id >= 0) want[n_want++] = piece[i].id;
                else
                    for (size_t c = piece[i].begin; c < piece[i].end; c++) want[n_want++] = (uint8_t)text[c];
            }
            int64_t n_ids = encode(&o, text, n, k % 2 ? ENCODE_SPECIAL : 0, ids, 128);
            CHECK_MSG(n_ids == n_want && !memcmp(ids, want, sizeof *ids * (size_t)n_want), "round %d flags %d \"%s\"", round, k % 2, text);
        }
        close_spec(&o);
    }
}

TEST(special_text_of_the_user_gives_no_control_token)
{
    bytes_spec(&spec, "qwen2");
    static const char *const texts[] = { "<|im_start|>", "<|im_end|>", "<|endoftext|>" };
    for (int i = 0; i < 3; i++) add(&spec, texts[i], TOKEN_CONTROL);
    int user = add(&spec, "<tool>", TOKEN_USER);
    struct opened o;
    must_open(&spec, &o);
    for (int i = 0; i < 3; i++) {
        int32_t ids[64];
        int64_t n = encode(&o, texts[i], strlen(texts[i]), ENCODE_BOS, ids, 64);
        for (int64_t k = 0; k < n; k++) CHECK(tokenizer_attr(o.t, ids[k]) != TOKEN_CONTROL);
        CHECK(encode(&o, texts[i], strlen(texts[i]), ENCODE_SPECIAL, ids, 64) == 1 && ids[0] == 256 + i);
    }
    int32_t id;
    CHECK(encode(&o, "<tool>", 6, 0, &id, 1) == 1 && id == user);
    close_spec(&o);
}

TEST(spm_puts_a_space_at_the_start_and_after_special_tokens)
{
    static const char *const texts[] = { "▁", "a", "▁a", "▁▁", NULL };
    spm_spec(&spec, texts);
    add(&spec, "<user>", TOKEN_USER);
    struct opened o;
    must_open(&spec, &o);
    CHECK_STR(shown(&o, "a", 0), "▁a");
    CHECK_STR(shown(&o, "a a", ENCODE_BOS), "<s>|▁a|▁a");
    CHECK_STR(shown(&o, " a", 0), "▁|▁a");
    CHECK_STR(shown(&o, "<s>a</s>a", ENCODE_SPECIAL), "<s>|▁a|</s>|▁a");
    CHECK_STR(shown(&o, "a<user>a", 0), "▁a|<user>|▁a");
    CHECK_STR(shown(&o, "", ENCODE_BOS), "<s>");
    CHECK_STR(shown(&o, "\n", 0), "▁|<0x0A>");
    static const char *const round_trip[] = { "a", " a", "  a", "a<user>a", "a<user> a", "<user>", "<user>  ", "é\n\t", "a a  a" };
    for (int i = 0; i < ARRAY_LEN(round_trip); i++) check_round_trip(&o, round_trip[i], strlen(round_trip[i]));
    close_spec(&o);
}

TEST(bos_and_eos_stand_where_the_file_wants_them)
{
    static const struct {
        int bos, eos;
        const char *pre, *ids;
    } rows[] = {
        { 1, 1, "qwen2", "<B>|a|<E>" },   { 0, 1, "qwen2", "a|<E>" }, { -1, -1, "qwen2", "a" },
        { -1, -1, "llama-bpe", "<B>|a" }, { 0, 0, "llama3", "a" },
    };
    for (int i = 0; i < ARRAY_LEN(rows); i++) {
        bytes_spec(&spec, rows[i].pre);
        put_id(&spec.extra, "bos_token_id", add(&spec, "<B>", TOKEN_CONTROL));
        put_id(&spec.extra, "eos_token_id", add(&spec, "<E>", TOKEN_CONTROL));
        if (rows[i].bos >= 0) put_bool(&spec.extra, "add_bos_token", rows[i].bos);
        if (rows[i].eos >= 0) put_bool(&spec.extra, "add_eos_token", rows[i].eos);
        struct opened o;
        must_open(&spec, &o);
        CHECK_STR(shown(&o, "a", ENCODE_BOS), rows[i].ids);
        CHECK_STR(shown(&o, "a", 0), "a");
        CHECK(tokenizer_bos(o.t) == 256 && tokenizer_eos(o.t) == 257 && tokenizer_adds_bos(o.t) == (strstr(rows[i].ids, "<B>") != NULL));
        close_spec(&o);
    }
    bytes_spec(&spec, "llama-bpe"); /* the default asks for a token that the file does not have */
    struct opened o;
    must_open(&spec, &o);
    CHECK(tokenizer_bos(o.t) == -1 && tokenizer_eos(o.t) == -1 && !tokenizer_adds_bos(o.t));
    close_spec(&o);
}

TEST(end_tokens_are_known_by_key_and_by_text)
{
    static const struct {
        const char *text;
        int type;
        bool end;
    } rows[] = {
        { "<|im_end|>", TOKEN_CONTROL, true },    { "<|eot_id|>", TOKEN_CONTROL, true },
        { "<|eom_id|>", TOKEN_NORMAL, true },     { "<end_of_turn>", TOKEN_USER, true },
        { "<|endoftext|>", TOKEN_NORMAL, true },  { "<|end_of_text|>", TOKEN_CONTROL, true },
        { "<EOT>", TOKEN_CONTROL, true },         { "_<EOT>", TOKEN_CONTROL, true },
        { "<|end|>", TOKEN_CONTROL, true },       { "<｜end▁of▁sentence｜>", TOKEN_CONTROL, true },
        { "<|fim_pad|>", TOKEN_CONTROL, true },   { "<|file_sep|>", TOKEN_USER, true },
        { "<|im_start|>", TOKEN_CONTROL, false }, { "<|fim_prefix|>", TOKEN_CONTROL, false },
        { "<|eot|>", TOKEN_CONTROL, false },      { "stop", TOKEN_NORMAL, false },
    };
    bytes_spec(&spec, "qwen2");
    for (int i = 0; i < ARRAY_LEN(rows); i++) add(&spec, rows[i].text, rows[i].type);
    put_id(&spec.extra, "eos_token_id", 65), put_id(&spec.extra, "eot_token_id", 66), put_id(&spec.extra, "eom_token_id", 67);
    struct opened o;
    must_open(&spec, &o);
    for (int i = 0; i < ARRAY_LEN(rows); i++) {
        CHECK_MSG(tokenizer_is_end(o.t, 256 + i) == rows[i].end, "%s", rows[i].text);
        CHECK_MSG(!rows[i].end || !strcmp(rows[i].text, "<|file_sep|>") || tokenizer_attr(o.t, 256 + i) == TOKEN_CONTROL, "%s",
                  rows[i].text);
    }
    CHECK(tokenizer_is_end(o.t, 65) && tokenizer_is_end(o.t, 66) && tokenizer_is_end(o.t, 67) && !tokenizer_is_end(o.t, 68));
    CHECK(!tokenizer_is_end(o.t, -1) && !tokenizer_is_end(o.t, spec.n));
    close_spec(&o);

    bytes_spec(&spec, "qwen2"); /* gpt-oss: <|end|> parts messages, the answer ends with <|return|> or <|call|> */
    add(&spec, "<|end|>", TOKEN_CONTROL), add(&spec, "<|return|>", TOKEN_CONTROL), add(&spec, "<|call|>", TOKEN_CONTROL),
        add(&spec, "<|channel|>", TOKEN_CONTROL);
    must_open(&spec, &o);
    CHECK(!tokenizer_is_end(o.t, 256) && tokenizer_is_end(o.t, 257) && tokenizer_is_end(o.t, 258));
    CHECK(tokenizer_attr(o.t, 256) == TOKEN_USER && tokenizer_attr(o.t, 259) == TOKEN_USER);
    close_spec(&o);
}

/* ---- pieces, capacity, bytes ---- */

TEST(piece_hides_control_tokens_and_counts_what_does_not_fit)
{
    bytes_spec(&spec, NULL);
    int control = add(&spec, "<|x|>", TOKEN_CONTROL), user = add(&spec, "<Ġ>", TOKEN_USER), unused = add(&spec, "[PAD7]", TOKEN_UNUSED);
    int word = add(&spec, "Ġhi", TOKEN_NORMAL), odd = add(&spec, "中 x", TOKEN_NORMAL);
    struct opened o;
    must_open(&spec, &o);
    static const struct {
        int offset;
        const char *plain, *special;
    } rows[] = { { 0, "", "<|x|>" }, { 1, "<Ġ>", "<Ġ>" }, { 2, "", "" }, { 3, " hi", " hi" }, { 4, "中 x", "中 x" } };
    CHECK(user == control + 1 && unused == control + 2 && word == control + 3 && odd == control + 4);
    for (int i = 0; i < ARRAY_LEN(rows); i++)
        for (int special = 0; special < 2; special++) {
            const char *want = special ? rows[i].special : rows[i].plain;
            char buf[16] = "~~~~~~~~~~~~~~~";
            size_t n = tokenizer_piece(o.t, control + i, special, buf, sizeof buf);
            CHECK_MSG(n == strlen(want) && !memcmp(buf, want, n), "row %d: %.*s", i, (int)n, buf);
            CHECK(tokenizer_piece(o.t, control + i, special, NULL, 0) == n);
        }
    CHECK(tokenizer_piece(o.t, -1, true, NULL, 0) == 0 && tokenizer_piece(o.t, spec.n, true, NULL, 0) == 0);
    CHECK(tokenizer_text(o.t, spec.n).n == 0 && tokenizer_text(o.t, -1).n == 0 && tokenizer_size(o.t) == spec.n);
    CHECK_STR(tokenizer_model_name(o.t), "gpt2");
    CHECK_STR(tokenizer_pre_name(o.t), "default");
    close_spec(&o);
}

TEST(encode_and_decode_write_no_more_than_fits_and_say_what_is_needed)
{
    bytes_spec(&spec, "gpt-2");
    struct opened o;
    must_open(&spec, &o);
    int32_t all[8], ids[8];
    int64_t need = encode(&o, "hello", 5, 0, all, 8);
    CHECK(need == 5);
    for (int64_t cap = 0; cap <= need; cap++) {
        memset(ids, 0x55, sizeof ids);
        CHECK(encode(&o, "hello", 5, 0, ids, cap) == need);
        CHECK(!memcmp(ids, all, sizeof *ids * (size_t)cap) && ids[cap] == 0x55555555);
        char buf[8] = "#######";
        CHECK(tokenizer_decode(o.t, all, need, false, buf, (size_t)cap) == 5 && !memcmp(buf, "hello", (size_t)cap) && buf[cap] == '#');
    }
    struct err e = { 0 };
    int64_t n;
    CHECK(tokenizer_encode(o.t, "", ((size_t)1 << 30) + 1, 0, NULL, 0, &n, &e) == ERR_USAGE);
    CHECK_HAS(e.text, "1073741825");
    close_spec(&o);
}

TEST(encode_then_decode_gives_any_bytes_back)
{
    uint64_t rng = 5;
    static const char *const letters[] = { " ",  "\n",   "a",        "Hello", "é",    "字", "😀",   "\xcc\x81", "'s",
                                           "12", "\xff", "\xe2\x82", "\x80",  "\r\n", "\t", "<x>", "Ġ" };
    static const char *const texts[] = { "▁", "He", "ll", "Hell", "o", "Hello", "▁Hello", "▁▁", "<x>", NULL };
    for (int spm = 0; spm < 2; spm++) {
        if (spm) spm_spec(&spec, texts);
        else bytes_spec(&spec, "llama-bpe"), add(&spec, "ll", TOKEN_NORMAL), add_merge(&spec, "l", "l"), add(&spec, "<x>", TOKEN_USER);
        struct opened o;
        must_open(&spec, &o);
        char text[1024];
        for (int k = 0; k < 500; k++)
            check_round_trip(&o, text, random_text(&rng, letters, ARRAY_LEN(letters), 1 + (int)(test_rand(&rng) % 60), text));
        close_spec(&o);
    }
}

TEST(repeated_words_of_a_long_text_encode_as_in_a_short_one)
{
    static const char *const texts[] = { "▁", "ab", "▁ab", "abc", "▁d", NULL };
    uint64_t rng = 9;
    for (int spm = 0; spm < 2; spm++) {
        if (spm) spm_spec(&spec, texts), put_bool(&spec.extra, "add_space_prefix", false);
        else
            bytes_spec(&spec, "qwen2"), add(&spec, "ab", TOKEN_NORMAL), add(&spec, "Ġab", TOKEN_NORMAL), add_merge(&spec, "a", "b"),
                add_merge(&spec, "Ġ", "ab");
        struct opened o;
        must_open(&spec, &o);
        static char text[20000];
        static int32_t ids[20000], want[20000];
        int64_t n_want = 0;
        size_t n = 0;
        while (n < sizeof text - 32) {
            char word[32] = " ";
            for (int k = 1 + (int)(test_rand(&rng) % 12); k > 0; k--)
                strcat(word, test_rand(&rng) % 2 ? "ab" : test_rand(&rng) % 2 ? "c" : "d");
            n_want += encode(&o, word, strlen(word), 0, want + n_want, 20000 - n_want);
            memcpy(text + n, word, strlen(word));
            n += strlen(word);
        }
        CHECK(encode(&o, text, n, 0, ids, 20000) == n_want && !memcmp(ids, want, sizeof *ids * (size_t)n_want));
        CHECK(encode(&o, text, n, 0, NULL, 0) == n_want && encode(&o, text, n, 0, ids, n_want / 2) == n_want);
        close_spec(&o);
    }
}

/* ---- hostile files ---- */

enum damage {
    NO_MODEL,
    OTHER_MODEL,
    OTHER_PRE,
    NO_TOKENS,
    SHORT_TYPES,
    LONG_SCORES,
    NO_SCORES,
    TYPES_AS_FLOATS,
    SCORES_AS_INTS,
    TYPE_9,
    NAN_SCORE,
    BOS_PAST_END,
    EOS_NEGATIVE,
    EOT_PAST_END,
    BYTE_NEGATIVE,
    BYTE_NO_HEX,
    BYTE_LONG,
    NO_BYTES,
    NO_MERGES,
    MERGE_NO_SPACE,
    MERGE_LEFT,
    MERGE_RIGHT,
    MERGE_EMPTY,
    ADD_BOS_TEXT,
    ADD_BOS_NONE,
};
static const struct {
    enum damage what;
    bool spm;
    const char *text;
} damages[] = {
    { NO_MODEL, false, "tokenizer.ggml.model is missing" },
    { OTHER_MODEL, false, "tokenizer.ggml.model is \"wordpiece\", known are gpt2, gemma4, whitespace, llama, bert, t5, rwkv, plamo2" },
    { OTHER_PRE, false, "tokenizer.ggml.pre is \"gpt-5\", known are default, falcon, gpt-2, smollm, llama-bpe, jais-2, qwen2, qwen35" },
    { NO_TOKENS, false, "tokenizer.ggml.tokens has 0 items" },
    { SHORT_TYPES, false, "tokenizer.ggml.token_type has 255 items, tokenizer.ggml.tokens has 256" },
    { LONG_SCORES, true, "tokenizer.ggml.scores has 261 items, tokenizer.ggml.tokens has 260" },
    { NO_SCORES, true, "tokenizer.ggml.scores is missing" },
    { TYPES_AS_FLOATS, false, "tokenizer.ggml.token_type" },
    { SCORES_AS_INTS, true, "tokenizer.ggml.scores" },
    { TYPE_9, false, "tokenizer.ggml.token_type[7] is 9, allowed are 0 to 6" },
    { NAN_SCORE, true, "tokenizer.ggml.scores[3] is not a number" },
    { BOS_PAST_END, false, "tokenizer.ggml.bos_token_id is 256, allowed are 0 to 255" },
    { EOS_NEGATIVE, true, "tokenizer.ggml.eos_token_id is -1, allowed are 0 to 259" },
    { EOT_PAST_END, false, "tokenizer.ggml.eot_token_id is 2147483647, allowed are 0 to 255" },
    { BYTE_NEGATIVE, true, "tokenizer.ggml.tokens[3] is the byte token \"<0x-1>\"" },
    { BYTE_NO_HEX, true, "tokenizer.ggml.tokens[3] is the byte token \"<0xZZ>\"" },
    { BYTE_LONG, true, "tokenizer.ggml.tokens[3] is the byte token \"<0x000>\"" },
    { NO_BYTES, true, "tokenizer.ggml.tokens has neither <0x02> nor an unknown token" },
    { NO_MERGES, false, "tokenizer.ggml.merges is missing" },
    { MERGE_NO_SPACE, false, "tokenizer.ggml.merges[1] is \"ab\", expected two tokens with a space between" },
    { MERGE_LEFT, false, "tokenizer.ggml.merges[1] is \"zz b\", whose left half is no token" },
    { MERGE_RIGHT, false, "tokenizer.ggml.merges[1] is \"a \", whose right half is no token" },
    { MERGE_EMPTY, false, "tokenizer.ggml.merges[1] is \"\", expected two tokens" },
    { ADD_BOS_TEXT, false, "tokenizer.ggml.add_bos_token" },
    { ADD_BOS_NONE, false, "tokenizer.ggml.add_bos_token is true, but tokenizer.ggml.bos_token_id is missing" },
};

static void damage(struct spec *s, enum damage what)
{
    snprintf(s->merge[s->n_merges++], sizeof s->merge[0], "a b");
    char *merge = s->merge[s->n_merges++];
    strcpy(merge, "b c");
    switch (what) {
    case NO_MODEL:
        s->model = NULL;
        break;
    case OTHER_MODEL:
        s->model = "wordpiece";
        break;
    case OTHER_PRE:
        s->pre = "gpt-5";
        break;
    case NO_TOKENS:
        s->n = 0;
        break;
    case SHORT_TYPES:
        s->n_types = s->n - 1;
        break;
    case LONG_SCORES:
        s->n_scores = s->n + 1;
        break;
    case NO_SCORES:
        s->n_scores = -1;
        break;
    case TYPES_AS_FLOATS:
        s->type_elem = KV_F32;
        break;
    case SCORES_AS_INTS:
        s->score_elem = KV_I32;
        break;
    case TYPE_9:
        s->type[7] = 9;
        break;
    case NAN_SCORE:
        s->score[3] = NAN;
        break;
    case BOS_PAST_END:
        put_id(&s->extra, "bos_token_id", s->n);
        break;
    case EOS_NEGATIVE:
        put_id(&s->extra, "eos_token_id", -1);
        break;
    case EOT_PAST_END:
        put_id(&s->extra, "eot_token_id", INT32_MAX);
        break;
    case BYTE_NEGATIVE:
        strcpy(s->text[3], "<0x-1>");
        break;
    case BYTE_NO_HEX:
        strcpy(s->text[3], "<0xZZ>");
        break;
    case BYTE_LONG:
        strcpy(s->text[3], "<0x000>");
        break;
    case NO_BYTES:
        strcpy(s->text[5], "xx"), s->type[5] = TOKEN_NORMAL;
        break;
    case NO_MERGES:
        s->n_merges = -1;
        break;
    case MERGE_NO_SPACE:
        strcpy(merge, "ab");
        break;
    case MERGE_LEFT:
        strcpy(merge, "zz b");
        break;
    case MERGE_RIGHT:
        strcpy(merge, "a ");
        break;
    case MERGE_EMPTY:
        strcpy(merge, "");
        break;
    case ADD_BOS_TEXT:
        put_text(&s->extra, "add_bos_token", "yes");
        break;
    case ADD_BOS_NONE:
        put_bool(&s->extra, "add_bos_token", true);
        break;
    }
}

TEST(tokenizer_open_refuses_damaged_vocabularies_by_name)
{
    static const char *const texts[] = { "▁", NULL };
    for (int i = 0; i < ARRAY_LEN(damages); i++) {
        if (damages[i].spm) spm_spec(&spec, texts);
        else bytes_spec(&spec, "qwen2");
        damage(&spec, damages[i].what);
        struct opened o;
        struct err e = { 0 };
        CHECK_MSG(open_spec(&spec, &o, NULL, &e) == ERR_FORMAT, "row %d opens", i);
        CHECK_HAS(e.text, damages[i].text);
        close_spec(&o);
    }
}

/* The second word of each text undoes what the first made of the hash. Without a limit the table takes quadratic time: 16 s for 60,000. */
TEST(tokenizer_open_refuses_texts_made_to_collide)
{
    enum { N = 4 * TOK_PROBES };
    const uint64_t k = 0x9e3779b97f4a7c15u;
    struct bytes b = { 0 };
    put(&b, "GGUF", 4), put_u32(&b, 3), put_u64(&b, 0), put_u64(&b, 3);
    put_text(&b, "model", "gpt2");
    put_arr(&b, "merges", KV_STR, 0);
    put_arr(&b, "tokens", KV_STR, N);
    uint32_t first = 0;
    for (uint64_t i = 0; i < N; i++) {
        uint64_t h = (16 * k ^ i) * k, word[2] = { i, h ^ h >> 29 };
        put_str(&b, (const char *)word, sizeof word);
        uint32_t hash = tok_key_of((const char *)word, sizeof word).hash;
        if (i == 0) first = hash;
        CHECK(hash == first);
    }
    struct gguf g;
    struct tokenizer *t = NULL;
    struct err e = { 0 };
    CHECK(gguf_parse(&g, b.p, b.n, "vocabulary", &e) == OK);
    CHECK(tokenizer_open(&t, &g, NULL, &e) == ERR_FORMAT && t == NULL);
    CHECK_STR(e.text, "tokenizer.ggml.tokens[1024] is one of more than 1024 whose hashes collide");
    tokenizer_close(t);
    gguf_close(&g);
    free(b.p);
}

TEST(pre_tokenizer_can_be_overridden_where_there_is_one)
{
    static const char *const texts[] = { "▁", NULL };
    struct opened o;
    struct err e = { 0 };
    bytes_spec(&spec, "gpt-5");
    CHECK(open_spec(&spec, &o, "qwen2", &e) == OK);
    CHECK_STR(tokenizer_pre_name(o.t), "qwen2");
    close_spec(&o);
    bytes_spec(&spec, "gpt-2");
    CHECK(open_spec(&spec, &o, "gpt-5", &e) == ERR_USAGE);
    CHECK_HAS(e.text, "\"gpt-5\", known are default");
    close_spec(&o);
    spm_spec(&spec, texts);
    e = (struct err){ 0 };
    CHECK(open_spec(&spec, &o, "qwen2", &e) == ERR_USAGE);
    close_spec(&o);
}

TEST(odd_but_harmless_vocabularies_open)
{
    struct opened o;
    bytes_spec(&spec, "gpt-2");
    int again = add(&spec, "a", TOKEN_NORMAL), empty = add(&spec, "", TOKEN_CONTROL), undefined = add(&spec, "zero", 0);
    spec.n_scores = -1;
    must_open(&spec, &o);
    int32_t ids[8];
    CHECK(encode(&o, "aa", 2, ENCODE_SPECIAL, ids, 8) == 2 && ids[0] == 'a' - 0 && ids[0] != again); /* of two equal texts the first */
    CHECK(tokenizer_piece(o.t, empty, true, NULL, 0) == 0 && tokenizer_piece(o.t, undefined, true, NULL, 0) == 0);
    CHECK(tokenizer_attr(o.t, undefined) == TOKEN_UNUSED);
    close_spec(&o);
    bytes_spec(&spec, "gpt-2");
    spec.n_types = spec.n_scores = -1; /* no types: all are normal */
    must_open(&spec, &o);
    CHECK(tokenizer_attr(o.t, 0) == TOKEN_NORMAL);
    close_spec(&o);
}

TEST(tokenizer_reports_every_failed_allocation)
{
    static const char *const texts[] = { "▁", "a", "▁a", NULL };
    static char text[3000];
    for (size_t i = 0; i < sizeof text; i++) text[i] = i % 7 ? 'a' : i % 2 ? ' ' : '<';
    memset(text, 'b', 200); /* one long word: symbols and heap are allocated */
    for (int spm = 0; spm < 2; spm++) {
        if (spm) spm_spec(&spec, texts);
        else bytes_spec(&spec, "llama-bpe"), add_merge(&spec, "a", "a"), add_merge(&spec, "b", "b"), add(&spec, "bb", TOKEN_NORMAL);
        add(&spec, "<a", TOKEN_USER);
        struct opened o;
        must_open(&spec, &o);
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
        CHECK(opened);
        if (!opened) continue;
        int64_t want = encode(&o, text, sizeof text, 0, NULL, 0), n_failed = 0;
        for (int64_t n = 1; n < 200 && !encoded; n++) {
            struct err e = { 0 };
            int64_t n_ids = -1;
            mem_fail_at(n, false);
            encoded = tokenizer_encode(o.t, text, sizeof text, 0, NULL, 0, &n_ids, &e) == OK;
            mem_fail_at(0, false);
            n_failed += !encoded;
            CHECK(encoded ? n_ids == want : e.code == ERR_MEMORY && n_ids == 0);
        }
        CHECK(encoded && n_failed >= 4);
        close_spec(&o);
    }
}

SUITE(tokenizer, T(unicode_every_code_point_survives_utf8), T(unicode_decode_rejects_ill_formed),
      T(unicode_flags_follow_the_general_category), T(unicode_lower_and_base_follow_the_character_database),
      T(pretok_cuts_like_the_regular_expressions), T(pretok_every_list_of_stages_has_a_golden), T(pretok_pieces_join_to_any_bytes),
      T(bpe_joins_the_earliest_merge_then_the_leftmost), T(spm_joins_the_best_score_then_the_leftmost_across_spaces),
      T(spm_remembers_joins_of_long_texts_and_gives_the_same_ids),
      T(bpe_whole_word_wins_only_where_the_pre_tokenizer_says_so), T(bpe_merge_whose_result_is_no_token_falls_apart_into_bytes),
      T(bpe_one_word_of_a_megabyte_is_merged), T(special_tokens_divide_the_text_longest_first),
      T(special_text_of_the_user_gives_no_control_token), T(spm_puts_a_space_at_the_start_and_after_special_tokens),
      T(bos_and_eos_stand_where_the_file_wants_them), T(end_tokens_are_known_by_key_and_by_text),
      T(piece_hides_control_tokens_and_counts_what_does_not_fit), T(encode_and_decode_write_no_more_than_fits_and_say_what_is_needed),
      T(encode_then_decode_gives_any_bytes_back), T(repeated_words_of_a_long_text_encode_as_in_a_short_one),
      T(tokenizer_open_refuses_damaged_vocabularies_by_name), T(tokenizer_open_refuses_texts_made_to_collide),
      T(pre_tokenizer_can_be_overridden_where_there_is_one), T(odd_but_harmless_vocabularies_open),
      T(tokenizer_reports_every_failed_allocation));
