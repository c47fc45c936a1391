/* convert_tokenizer: small directories written here, converted, and read back through the GGUF reader and the tokenizer. */
#include "src/convert_tokenizer.h"
#include "src/tokenizer.h"
#include "tests/test.h"
#include <sys/stat.h>
#include <unistd.h>

/* ---- directories ---- */

static const char *const file_names[] = {
    "tokenizer.json", "tokenizer.model", "spiece.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "config.json", "generation_config.json", "vocab.json", "merges.txt", "vocab.txt", "tekken.json", "x.tiktoken", "qwen.tiktoken",
    "chat_template.jinja", "chat_template.json", "additional_chat_templates/b.jinja", "additional_chat_templates/a.jinja",
};

static const char *fresh_dir(void)
{
    static char dir[256];
    snprintf(dir, sizeof dir, "%s", test_tmp("convert_tokenizer"));
    mkdir(dir, 0777);
    for (int i = 0; i < ARRAY_LEN(file_names); i++) {
        char path[400];
        snprintf(path, sizeof path, "%s/%s", dir, file_names[i]);
        unlink(path);
    }
    return dir;
}

static void write_bytes(const char *dir, const char *name, const void *p, size_t n)
{
    char path[400];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(p, 1, n, f) != n || fclose(f)) abort();
}
static void write_text(const char *dir, const char *name, const char *text) { write_bytes(dir, name, text, strlen(text)); }

/* ---- results ---- */

struct result {
    struct gguf_header h;
    struct gguf g;
    status st;
    struct err e;
    char warned[2000];
};

static void note(void *ctx, const char *text)
{
    struct result *r = ctx;
    size_t n = strlen(r->warned);
    snprintf(r->warned + n, sizeof r->warned - n, "%s\n", text);
}

static void convert_with(struct result *r, const char *dir, int64_t n_vocab, const char *pre)
{
    struct gguf_writer *w;
    memset(r, 0, sizeof *r);
    const struct convert_tokenizer_options o = { .n_vocab = n_vocab, .pre = pre, .warn = note, .warn_ctx = r };
    r->st = gguf_header_open(&w, "out", &r->e);
    if (r->st != OK) return;
    r->st = convert_tokenizer(w, dir, &o, &r->e);
    if (r->st == OK) r->st = gguf_header_finish(w, &r->h, &r->e);
    else gguf_writer_abort(w);
    if (r->st == OK) r->st = gguf_parse(&r->g, r->h.data, r->h.n, "out", &r->e);
    CHECK((r->st == OK) == (r->e.code == OK) && (r->st == OK) == (r->e.text[0] == 0));
}
static void convert(struct result *r, const char *dir)
{
    convert_with(r, dir, 0, NULL);
    CHECK_MSG(r->st == OK, "%s", r->e.text);
}
static void done(struct result *r)
{
    gguf_close(&r->g);
    gguf_header_free(&r->h);
}

static void check_str(struct result *r, const char *key, const char *want)
{
    struct str s = { "", 0 };
    char got[400];
    gguf_get_str(&r->g, key, &s, NULL);
    snprintf(got, sizeof got, "%.*s", (int)s.n, s.p);
    CHECK_STR(got, want);
}
enum { ABSENT = -99 };
static int64_t number(struct result *r, const char *name)
{
    char key[80];
    int64_t v = ABSENT;
    bool b;
    snprintf(key, sizeof key, "tokenizer.ggml.%s", name);
    const struct gguf_kv *kv = gguf_find(&r->g, key);
    if (kv && kv->kind == KV_BOOL) return gguf_get_bool(&r->g, key, &b, NULL) ? b : ABSENT;
    gguf_get_i64(&r->g, key, -10, 1 << 30, &v, NULL);
    return v;
}
#define CHECK_NUMBER(r, name, want) CHECK_MSG(number(r, name) == (want), "%s is %lld", name, (long long)number(r, name))

/* Items of an array, joined by '|'. */
static void check_list(struct result *r, const char *key, const char *want)
{
    char got[4000] = "";
    const struct gguf_kv *kv = gguf_find(&r->g, key);
    CHECK_MSG(kv && kv->kind == KV_ARR, "%s is missing", key);
    const uint8_t *at = kv ? kv->data : NULL;
    size_t n = 0;
    for (uint64_t i = 0; kv && i < kv->n && n < sizeof got - 100; i++) {
        if (i) got[n++] = '|';
        if (kv->elem == KV_STR) {
            struct str s = gguf_arr_str(&at);
            n += (size_t)snprintf(got + n, sizeof got - n, "%.*s", (int)s.n, s.p);
        } else {
            n += (size_t)snprintf(got + n, sizeof got - n, "%g", kv->elem == KV_F32 ? (double)gguf_arr_f32(kv, i) : (double)gguf_arr_i64(kv, i));
        }
    }
    got[n] = 0;
    CHECK_STR(got, want);
}

static void check_ids(struct result *r, const char *text, unsigned flags, const char *want)
{
    struct tokenizer *t;
    struct err e = { 0 };
    int32_t ids[64];
    int64_t n = 0;
    char got[400] = "";
    status st = tokenizer_open(&t, &r->g, NULL, &e);
    CHECK_MSG(st == OK, "%s", e.text);
    if (st == OK && tokenizer_encode(t, text, strlen(text), flags, ids, 64, &n, &e) != OK) n = 0;
    for (int64_t i = 0; i < n && i < 64; i++) snprintf(got + strlen(got), sizeof got - strlen(got), "%s%d", i ? " " : "", ids[i]);
    CHECK_STR(got, want);
    tokenizer_close(t);
}

static void check_error(const char *dir, const char *has)
{
    struct result r;
    convert_with(&r, dir, 0, NULL);
    CHECK(r.st != OK);
    CHECK_HAS(r.e.text, has);
    done(&r);
}

/* ---- texts of files ---- */

#define LLAMA3 "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}{1,3}| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|" \
               "\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"
#define SPLIT(regex) "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" regex "\"},\"behavior\":\"Isolated\",\"invert\":false}"
#define BYTES(use) "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":" use "}"
#define SEQUENCE(steps) "{\"type\":\"Sequence\",\"pretokenizers\":[" steps "]}"
#define LLAMA3_PRE SEQUENCE(SPLIT(LLAMA3) "," BYTES("false"))
#define TEMPLATE(single) "{\"type\":\"TemplateProcessing\",\"single\":[" single "],\"pair\":[]}"
#define SPECIAL_PIECE(text) "{\"SpecialToken\":{\"id\":\"" text "\",\"type_id\":0}}"
#define PIECE_A "{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}"

/* The vocabulary a b c ab abc <s> </s> <x> as tokenizer.json */
#define VOCAB "\"vocab\":{\"a\":0,\"b\":1,\"c\":2,\"ab\":3,\"abc\":4}"
#define BPE(extra, merges) "\"model\":{\"type\":\"BPE\"," extra VOCAB ",\"merges\":" merges "}"
#define ADDED "\"added_tokens\":[{\"id\":5,\"content\":\"<s>\",\"special\":true},{\"id\":6,\"content\":\"</s>\",\"special\":true}," \
              "{\"id\":8,\"content\":\"<x>\",\"special\":false}]"
#define STRINGS "[\"a b\",\"ab c\"]"
#define PAIRS "[[\"a\",\"b\"],[\"ab\",\"c\"]]"

static void write_bpe(const char *dir, const char *extra, const char *merges, const char *pre)
{
    char text[8192];
    snprintf(text, sizeof text, "{" ADDED ",\"pre_tokenizer\":%s,\"model\":{\"type\":\"BPE\",%s" VOCAB ",\"merges\":%s}}", pre, extra, merges);
    write_text(dir, "tokenizer.json", text);
}

/* ---- protobuf ---- */

struct proto { uint8_t p[4096]; size_t n; };

static void put_varint(struct proto *b, uint64_t v)
{
    for (; v >= 0x80; v >>= 7) b->p[b->n++] = (uint8_t)(v | 0x80);
    b->p[b->n++] = (uint8_t)v;
}
static void put_number(struct proto *b, int field, uint64_t v) { put_varint(b, (uint64_t)field << 3), put_varint(b, v); }
static void put_bytes(struct proto *b, int field, const void *p, size_t n)
{
    put_varint(b, (uint64_t)field << 3 | 2), put_varint(b, n);
    memcpy(b->p + b->n, p, n), b->n += n;
}
static void put_piece(struct proto *b, const char *text, float score, int type)
{
    struct proto in = { .n = 0 };
    put_bytes(&in, 1, text, strlen(text));
    put_varint(&in, 2 << 3 | 5);
    memcpy(in.p + in.n, &score, 4), in.n += 4;
    if (type != 1) put_number(&in, 3, (uint64_t)type);
    put_bytes(b, 1, in.p, in.n);
}

/* <unk> <s> </s> <0x41> _ a b _a ab, then what the trainer and the normalizer say */
static void spm_model(struct proto *b, int type, const char *charsmap, bool prefix)
{
    struct proto in = { .n = 0 };
    b->n = 0;
    put_piece(b, "<unk>", 0, 2), put_piece(b, "<s>", 0, 3), put_piece(b, "</s>", 0, 3), put_piece(b, "<0x41>", 0, 6);
    put_piece(b, "▁", -3, 1), put_piece(b, "a", -4, 1), put_piece(b, "b", -5, 1), put_piece(b, "▁a", -1, 1), put_piece(b, "ab", -2, 1);
    put_number(&in, 3, (uint64_t)type);
    put_number(&in, 40, 0), put_number(&in, 41, 1), put_number(&in, 42, 2), put_number(&in, 43, UINT64_MAX); /* -1 */
    put_bytes(b, 2, in.p, in.n);
    in.n = 0;
    put_bytes(&in, 1, "identity", 8);
    put_bytes(&in, 2, charsmap, strlen(charsmap));
    put_number(&in, 3, prefix), put_number(&in, 4, type == 1), put_number(&in, 5, 1);
    put_bytes(b, 3, in.p, in.n);
}

/* ---- claims ---- */

TEST(convert_tokenizer_reads_byte_level_bpe)
{
    struct result r;
    for (int pairs = 0; pairs < 2; pairs++) {
        const char *dir = fresh_dir();
        write_bpe(dir, "\"ignore_merges\":true,", pairs ? PAIRS : STRINGS, LLAMA3_PRE);
        write_text(dir, "tokenizer_config.json", "{\"bos_token\":\"<s>\",\"eos_token\":{\"content\":\"</s>\"},\"chat_template\":\"T\"}");
        convert(&r, dir);
        check_str(&r, "tokenizer.ggml.model", "gpt2");
        check_str(&r, "tokenizer.ggml.pre", "llama-bpe");
        check_list(&r, "tokenizer.ggml.tokens", "a|b|c|ab|abc|<s>|</s>|[PAD7]|<x>");
        check_list(&r, "tokenizer.ggml.token_type", "1|1|1|1|1|3|3|5|4");
        check_list(&r, "tokenizer.ggml.merges", "a b|ab c");
        check_str(&r, "tokenizer.chat_template", "T");
        CHECK(!gguf_find(&r.g, "tokenizer.ggml.scores"));
        CHECK_NUMBER(&r, "bos_token_id", 5);
        CHECK_NUMBER(&r, "eos_token_id", 6);
        CHECK_NUMBER(&r, "add_bos_token", 0);
        CHECK_NUMBER(&r, "add_eos_token", 0);
        CHECK_NUMBER(&r, "padding_token_id", ABSENT);
        CHECK_STR(r.warned, "");
        check_ids(&r, "abcab<x>c</s>", ENCODE_SPECIAL, "4 3 8 2 6");
        done(&r);
    }
}

/* Qwen3's "</s>" is a token of the vocabulary that nothing cuts out of a text. In files that do not say so its text makes it a control token. */
TEST(convert_tokenizer_keeps_ordinary_what_tokenizer_json_does_not_add)
{
    struct result r;
    for (int listed = 0; listed < 2; listed++) {
        const char *dir = fresh_dir();
        char text[700];
        snprintf(text, sizeof text, "{\"pre_tokenizer\":" BYTES("true") ",\"model\":{\"type\":\"BPE\",\"vocab\":{\"<\":0,\"/\":1,\"s\":2,\">\":3,\"</s>\":4,"
                 "\"<|im_end|>\":5},\"merges\":[]}%s}", listed ? ",\"added_tokens\":[{\"id\":5,\"content\":\"<|im_end|>\",\"special\":true}]" : "");
        write_text(dir, "tokenizer.json", text);
        convert(&r, dir);
        check_ids(&r, "</s><|im_end|>", ENCODE_SPECIAL, listed ? "0 1 2 3 5" : "4 5");
        struct tokenizer *t;
        if (tokenizer_open(&t, &r.g, NULL, &r.e) == OK) {
            CHECK(tokenizer_is_end(t, 4) == !listed && tokenizer_is_end(t, 5));
            tokenizer_close(t);
        }
        done(&r);
    }
}

TEST(convert_tokenizer_writes_spaces_inside_merges_as_the_byte_alphabet_does)
{
    struct result r;
    const char *dir = fresh_dir();
    write_text(dir, "tokenizer.json", "{\"pre_tokenizer\":" BYTES("true") ",\"model\":{\"type\":\"BPE\",\"vocab\":{\" \":0,\"a\":1,\" a\":2},"
                                      "\"merges\":[[\" \",\"a\"]]}}");
    convert(&r, dir);
    check_list(&r, "tokenizer.ggml.merges", "\xc4\xa0 a");
    check_str(&r, "tokenizer.ggml.pre", "gpt-2");
    done(&r);
}

TEST(convert_tokenizer_reads_vocab_json_and_merges_txt)
{
    struct result r;
    const char *dir = fresh_dir();
    write_text(dir, "vocab.json", "{\"a\":0,\"b\":1,\"c\":2,\"ab\":3,\"abc\":4}");
    write_text(dir, "merges.txt", "#version: 0.2\na b\r\n\nab c\n");
    write_text(dir, "added_tokens.json", "{\"<|x|>\":5,\"y\":6}");
    convert(&r, dir);
    check_str(&r, "tokenizer.ggml.pre", "gpt-2");
    check_list(&r, "tokenizer.ggml.merges", "a b|ab c");
    check_list(&r, "tokenizer.ggml.tokens", "a|b|c|ab|abc|<|x|>|y");
    check_list(&r, "tokenizer.ggml.token_type", "1|1|1|1|1|3|4"); /* <|x|> looks special */
    check_ids(&r, "abcab", 0, "4 3");
    done(&r);
    write_text(dir, "merges.txt", "a b\nab  c\n");
    check_error(dir, "merges.txt: line 2 is not two tokens");
    dir = fresh_dir();
    write_text(dir, "vocab.json", "{\"a\":0}");
    check_error(dir, "merges.txt is missing");
}

TEST(convert_tokenizer_reads_sentencepiece_models)
{
    struct result r;
    struct proto b;
    const char *dir = fresh_dir();
    spm_model(&b, 2, "", true);
    write_bytes(dir, "tokenizer.model", b.p, b.n);
    convert(&r, dir);
    check_str(&r, "tokenizer.ggml.model", "llama");
    check_str(&r, "tokenizer.ggml.pre", "default");
    check_list(&r, "tokenizer.ggml.tokens", "<unk>|<s>|</s>|<0x41>|▁|a|b|▁a|ab");
    check_list(&r, "tokenizer.ggml.scores", "0|0|0|0|-3|-4|-5|-1|-2");
    check_list(&r, "tokenizer.ggml.token_type", "2|3|3|6|1|1|1|1|1");
    CHECK_NUMBER(&r, "bos_token_id", 1);
    CHECK_NUMBER(&r, "eos_token_id", 2);
    CHECK_NUMBER(&r, "unknown_token_id", 0);
    CHECK_NUMBER(&r, "padding_token_id", ABSENT);
    CHECK_NUMBER(&r, "add_bos_token", 1);
    CHECK_NUMBER(&r, "add_eos_token", 0);
    CHECK_NUMBER(&r, "add_space_prefix", 1);
    check_ids(&r, "ab aA", ENCODE_BOS, "1 7 6 7 3");
    done(&r);
    spm_model(&b, 2, "", false);
    write_bytes(dir, "tokenizer.model", b.p, b.n);
    write_text(dir, "tokenizer_config.json", "{\"add_bos_token\":false,\"add_eos_token\":true,"
                                             "\"added_tokens_decoder\":{\"1\":{\"content\":\"<s>\",\"special\":true},"
                                             "\"9\":{\"content\":\"▁▁\",\"special\":false},\"8\":{\"content\":\"<unused8>\"}}}");
    convert(&r, dir);
    check_list(&r, "tokenizer.ggml.tokens", "<unk>|<s>|</s>|<0x41>|▁|a|b|▁a|<unused8>|  ");
    check_list(&r, "tokenizer.ggml.token_type", "2|3|3|6|1|1|1|1|3|4");
    check_list(&r, "tokenizer.ggml.scores", "0|-1000|0|0|-3|-4|-5|-1|-1000|-1000");
    CHECK_NUMBER(&r, "add_bos_token", 0);
    CHECK_NUMBER(&r, "add_eos_token", 1);
    CHECK_NUMBER(&r, "add_space_prefix", 0);
    done(&r);
    write_text(dir, "tokenizer_config.json", "{\"add_prefix_space\":true,\"added_tokens_decoder\":{\"8\":{\"content\":\"<unused8>\"}}}");
    convert(&r, dir);
    CHECK_NUMBER(&r, "add_space_prefix", 1);
    CHECK_HAS(r.warned, "token 8 was \"ab\" and becomes \"<unused8>\"");
    done(&r);
}

TEST(convert_tokenizer_reads_unigram_models)
{
    struct result r;
    struct proto b;
    const char *dir = fresh_dir();
    spm_model(&b, 1, "\1\2\3\4\5", true);
    write_bytes(dir, "spiece.model", b.p, b.n);
    convert(&r, dir);
    check_str(&r, "tokenizer.ggml.model", "t5");
    check_list(&r, "tokenizer.ggml.precompiled_charsmap", "1|2|3|4|5");
    CHECK_NUMBER(&r, "remove_extra_whitespaces", 1);
    CHECK_NUMBER(&r, "add_space_prefix", 1);
    CHECK_NUMBER(&r, "add_bos_token", 0);
    CHECK_NUMBER(&r, "add_eos_token", 1);
    done(&r);
    dir = fresh_dir();
    write_text(dir, "tokenizer.json",
               "{\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"AQIDBAU=\"},"
               "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\" {2,}\"},\"content\":\" \"}]},"
               "\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"▁\",\"add_prefix_space\":true},"
               "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[" SPECIAL_PIECE("<s>") "," PIECE_A "," SPECIAL_PIECE("</s>") "],"
               "\"pair\":[" SPECIAL_PIECE("<s>") "," PIECE_A "," SPECIAL_PIECE("</s>") "," SPECIAL_PIECE("</s>")
               ",{\"Sequence\":{\"id\":\"B\"}}," SPECIAL_PIECE("</s>") "]},"
               "\"added_tokens\":[{\"id\":0,\"content\":\"<s>\",\"special\":true},{\"id\":2,\"content\":\"</s>\",\"special\":true},"
               "{\"id\":3,\"content\":\"<unk>\",\"special\":true}],"
               "\"model\":{\"type\":\"Unigram\",\"unk_id\":3,\"vocab\":[[\"<s>\",0],[\"<pad>\",0],[\"</s>\",0.0],[\"<unk>\",0],[\"▁a\",-1.5],[\"b\",-2]]}}");
    convert(&r, dir);
    check_str(&r, "tokenizer.ggml.model", "t5");
    check_list(&r, "tokenizer.ggml.precompiled_charsmap", "1|2|3|4|5");
    check_list(&r, "tokenizer.ggml.tokens", "<s>|<pad>|</s>|<unk>|▁a|b");
    check_list(&r, "tokenizer.ggml.token_type", "3|1|3|2|1|1");
    CHECK_NUMBER(&r, "bos_token_id", 0);
    CHECK_NUMBER(&r, "eos_token_id", 2);
    CHECK_NUMBER(&r, "seperator_token_id", 2);
    CHECK_NUMBER(&r, "unknown_token_id", 3);
    CHECK_NUMBER(&r, "add_bos_token", 1);
    CHECK_NUMBER(&r, "add_eos_token", 1);
    CHECK_NUMBER(&r, "add_sep_token", 1);
    CHECK_NUMBER(&r, "remove_extra_whitespaces", 1);
    done(&r);
}

TEST(convert_tokenizer_prefers_tokenizer_json_where_sentencepiece_numbers_otherwise)
{
    struct result r;
    struct proto b;
    const char *dir = fresh_dir();
    spm_model(&b, 1, "", true);
    write_bytes(dir, "spiece.model", b.p, b.n);
#define UNIGRAM(first) "{\"pre_tokenizer\":{\"type\":\"Metaspace\"},\"added_tokens\":[{\"id\":1,\"content\":\"<z>\",\"special\":true}]," \
                       "\"model\":{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[\"" first "\",0],[\"<z>\",0],[\"</s>\",0]]}}"
    write_text(dir, "tokenizer.json", UNIGRAM("<unk>")); /* another text of an added token is no difference */
    convert(&r, dir);
    check_list(&r, "tokenizer.ggml.tokens", "<unk>|<z>|</s>|<0x41>|▁|a|b|▁a|ab");
    CHECK_HAS(r.warned, "token 1 was \"<s>\" and becomes \"<z>\"");
    done(&r);
    write_text(dir, "tokenizer.json", UNIGRAM("<mask>"));
    convert(&r, dir);
    check_list(&r, "tokenizer.ggml.tokens", "<mask>|<z>|</s>");
    check_list(&r, "tokenizer.ggml.token_type", "2|3|1");
    CHECK_HAS(r.warned, "spiece.model and tokenizer.json differ at token 0: tokenizer.json counts");
    done(&r);
}

/* A BPE file made from a SentencePiece model: all splits of a token are merges, in the order of the tokens. */
#define FALLBACK(merges) \
    "{\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[" PREPEND "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"▁\"}]}," \
    "\"model\":{\"type\":\"BPE\",\"byte_fallback\":true,\"unk_token\":\"<unk>\",\"vocab\":{\"<unk>\":0,\"<0x41>\":1,\"▁\":2,\"a\":3,\"b\":4,\"ab\":5," \
    "\"▁a\":6,\"▁ab\":7},\"merges\":" merges "}}"

TEST(convert_tokenizer_scores_bpe_with_byte_fallback_by_rank)
{
#define PREPEND "{\"type\":\"Prepend\",\"prepend\":\"▁\"},"
    struct result r;
    const char *dir = fresh_dir();
    write_text(dir, "tokenizer.json", FALLBACK("[\"a b\",\"▁ a\",\"▁ ab\",\"▁a b\"]"));
    convert(&r, dir);
    check_str(&r, "tokenizer.ggml.model", "llama");
    check_list(&r, "tokenizer.ggml.token_type", "2|6|1|1|1|1|1|1");
    check_list(&r, "tokenizer.ggml.scores", "-1e+06|-1e+06|-1e+06|-1e+06|-1e+06|-1|-2|-3");
    CHECK_NUMBER(&r, "add_space_prefix", 1);
    check_ids(&r, "ab A", 0, "7 2 1");
    done(&r);
#undef PREPEND
#define PREPEND
    /* Without "▁a b" the two ways of merging differ. */
    write_text(dir, "tokenizer.json", FALLBACK("[\"▁ a\",\"a b\",\"▁ ab\"]"));
    convert(&r, dir);
    check_str(&r, "tokenizer.ggml.model", "gemma4");
    check_list(&r, "tokenizer.ggml.merges", "▁ a|a b|▁ ab");
    CHECK_NUMBER(&r, "add_space_prefix", 0);
    done(&r);
#undef PREPEND
}

TEST(convert_tokenizer_reads_wordpiece)
{
    struct result r;
    for (int json = 0; json < 2; json++) {
        const char *dir = fresh_dir();
        if (json)
            write_text(dir, "tokenizer.json",
                       "{\"normalizer\":{\"type\":\"BertNormalizer\",\"lowercase\":true,\"strip_accents\":null},"
                       "\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"},"
                       "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[" SPECIAL_PIECE("[CLS]") "," PIECE_A "," SPECIAL_PIECE("[SEP]") "]},"
                       "\"model\":{\"type\":\"WordPiece\",\"unk_token\":\"[UNK]\",\"continuing_subword_prefix\":\"##\",\"vocab\":{\"[PAD]\":0,\"[UNK]\":1,"
                       "\"[CLS]\":2,\"[SEP]\":3,\"a\":4,\"##b\":5,\"##\":6}}}");
        else write_text(dir, "vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\na\n##b\n##");
        convert(&r, dir);
        check_str(&r, "tokenizer.ggml.model", "bert");
        check_list(&r, "tokenizer.ggml.tokens", "[PAD]|[UNK]|[CLS]|[SEP]|▁a|b|▁##");
        check_list(&r, "tokenizer.ggml.token_type", "3|3|3|3|1|1|1");
        CHECK_NUMBER(&r, "bos_token_id", 2);
        CHECK_NUMBER(&r, "eos_token_id", 3);
        CHECK_NUMBER(&r, "seperator_token_id", 3);
        CHECK_NUMBER(&r, "cls_token_id", 2);
        CHECK_NUMBER(&r, "unknown_token_id", 1);
        CHECK_NUMBER(&r, "add_bos_token", 1);
        CHECK_NUMBER(&r, "add_eos_token", 1);
        CHECK_NUMBER(&r, "normalizer.lowercase", 1);
        CHECK_NUMBER(&r, "normalizer.strip_accents", ABSENT);
        done(&r);
    }
}

static void put_base64(FILE *f, const uint8_t *p, size_t n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < n; i += 3) {
        uint32_t v = (uint32_t)p[i] << 16 | (uint32_t)(i + 1 < n ? p[i + 1] : 0) << 8 | (i + 2 < n ? p[i + 2] : 0);
        fprintf(f, "%c%c%c%c", digits[v >> 18], digits[v >> 12 & 63], i + 1 < n ? digits[v >> 6 & 63] : '=', i + 2 < n ? digits[v & 63] : '=');
    }
}

/* All bytes, then these texts. */
static void write_ranks(const char *dir, const char *name, const char *const *texts, bool tekken)
{
    char path[400];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    if (!f) abort();
    int n = 256;
    while (texts[n - 256]) n++;
    if (tekken)
        fprintf(f, "{\"config\":{\"pattern\":\"%s\",\"default_vocab_size\":%d,\"default_num_special_tokens\":5},\"vocab\":[", LLAMA3, n + 4);
    for (int i = 0; i < n; i++) {
        uint8_t b = (uint8_t)i;
        if (tekken) fprintf(f, "%s{\"rank\":%d,\"token_str\":null,\"token_bytes\":\"", i ? "," : "", i);
        put_base64(f, i < 256 ? &b : (const uint8_t *)texts[i - 256], i < 256 ? 1 : strlen(texts[i - 256]));
        if (tekken) fprintf(f, "\"}");
        else fprintf(f, " %d\n", i);
    }
    if (tekken) fprintf(f, "]}");
    fclose(f);
}

TEST(convert_tokenizer_finds_the_merges_of_ranked_bytes)
{
    struct result r;
    const char *dir = fresh_dir();
    static const char *const texts[] = { "ab", "cd", " a", "abcd", "bc", "abc", "qrst", NULL };
    write_ranks(dir, "qwen.tiktoken", texts, false);
    convert(&r, dir);
    check_str(&r, "tokenizer.ggml.model", "gpt2");
    check_str(&r, "tokenizer.ggml.pre", "qwen2");
    check_list(&r, "tokenizer.ggml.merges", "a b|c d|Ġ a|ab cd|b c|ab c");
    CHECK_HAS(r.warned, "1 tokens cannot be reached");
    check_ids(&r, "abcd abc bc", 0, "259 32 261 32 260");
    done(&r);
    dir = fresh_dir();
    write_ranks(dir, "tekken.json", texts, true); /* of the last text there is no room for its id */
    convert(&r, dir);
    check_str(&r, "tokenizer.ggml.pre", "llama-bpe");
    check_list(&r, "tokenizer.ggml.merges", "a b|c d|Ġ a|ab cd|b c|ab c");
    CHECK_NUMBER(&r, "bos_token_id", 1);
    CHECK_NUMBER(&r, "add_bos_token", 1);
    check_ids(&r, "abcd</s>", ENCODE_BOS | ENCODE_SPECIAL, "1 264 2");
    done(&r);
    dir = fresh_dir();
    write_ranks(dir, "x.tiktoken", texts, false);
    check_error(dir, "--pre NAME");
    write_text(dir, "x.tiktoken", "YQ==");
    convert_with(&r, dir, 0, "qwen2");
    CHECK_HAS(r.e.text, "line 1 is not a token in base64 and its rank");
    write_text(dir, "x.tiktoken", "YQ= 0\n");
    convert_with(&r, dir, 0, "qwen2");
    CHECK_HAS(r.e.text, "not base64");
    write_text(dir, "x.tiktoken", "YQ== 0\n");
    convert_with(&r, dir, 0, "qwen2");
    CHECK_HAS(r.e.text, "no token for the byte 0x00");
}

#define CASED_C(c) "[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?[\\\\p{Lu}\\\\p{Lt}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]*[\\\\p{Ll}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]+" c \
                   "|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?[\\\\p{Lu}\\\\p{Lt}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]+[\\\\p{Ll}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]*" c
#define END_C "| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n/]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"
#define DEEPSEEK3 "[!\\\"#$%&'()*+,\\\\-./:;<=>?@\\\\[\\\\\\\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\\\p{L}\\\\p{P}\\\\p{S}]?[\\\\p{L}\\\\p{M}]+|" \
                  " ?[\\\\p{P}\\\\p{S}]+[\\r\\n]*|\\\\s*[\\r\\n]+|\\\\s+(?!\\\\S)|\\\\s+"

TEST(convert_tokenizer_names_pre_tokenizers_by_their_rules)
{
    static const struct { const char *pre, *extra, *want; } rows[] = {
        { BYTES("true"), "", "gpt-2" },
        { "{\"type\":\"ByteLevel\"}", "", "gpt-2" },
        { SEQUENCE(SPLIT("'s|'t|'re|'ve|'m|'ll|'d| ?\\\\p{L}+| ?\\\\p{N}+| ?[^\\\\s\\\\p{L}\\\\p{N}]+|\\\\s+(?!\\\\S)|\\\\s+") ","
                   BYTES("false")), "", "gpt-2" },
        { SEQUENCE("{\"type\":\"Digits\",\"individual_digits\":true}," BYTES("true")), "", "smollm" },
        { LLAMA3_PRE, "\"ignore_merges\":true,", "llama-bpe" },
        { LLAMA3_PRE, "", "dbrx" },
        { SEQUENCE(SEQUENCE(SPLIT(LLAMA3)) "," SEQUENCE(BYTES("false"))), "", "dbrx" },
        /* tiktoken's spelling of the same, and real newlines */
        { SEQUENCE("{\"type\":\"Split\",\"pattern\":{\"Regex\":\"'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\\\p{L}\\\\p{N}]?+\\\\p{L}+|\\\\p{N}{1,3}| ?[^\\\\s\\\\p{L}"
                   "\\\\p{N}]++[\\r\\n]*|\\\\s*[\\r\\n]|\\\\s+(?!\\\\S)|\\\\s+\"},\"behavior\":\"Removed\",\"invert\":true}," BYTES("false")), "", "dbrx" },
        { SEQUENCE(SPLIT("(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|"
                         "\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+") "," BYTES("false")), "", "qwen2" },
        { SEQUENCE(SPLIT(CASED_C("(?i:'s|'t|'re|'ve|'m|'ll|'d)?") "|\\\\p{N}{1,3}" END_C) "," BYTES("false")), "", "gpt-4o" },
        { SEQUENCE(SPLIT(CASED_C("") "|\\\\p{N}" END_C) "," BYTES("false")), "", "tekken" },
        { SEQUENCE(SPLIT("\\\\p{N}{1,3}") "," SPLIT("[一-龥\\u3040-ゟ゠-ヿ]+") "," SPLIT(DEEPSEEK3) "," BYTES("false")), "", "deepseek-v3" },
        { SEQUENCE("{\"type\":\"Punctuation\",\"behavior\":\"Contiguous\"}," BYTES("true") ",{\"type\":\"Digits\",\"individual_digits\":false},"
                   SPLIT("[0-9][0-9][0-9]")), "", "falcon" },
        { SEQUENCE(SPLIT("[\\r\\n]") "," SPLIT("\\\\s?\\\\p{L}+") "," SPLIT("\\\\s?\\\\p{P}+") "," SPLIT("[一-龥ࠀ-一가-퟿]+")
                   ",{\"type\":\"Digits\",\"individual_digits\":true}," BYTES("false")), "", "deepseek-coder" },
    };
    struct result r;
    const char *dir = fresh_dir();
    for (int i = 0; i < ARRAY_LEN(rows); i++) {
        write_bpe(dir, rows[i].extra, STRINGS, rows[i].pre);
        convert_with(&r, dir, 0, NULL);
        CHECK_MSG(r.st == OK, "%d: %s", i, r.e.text);
        check_str(&r, "tokenizer.ggml.pre", rows[i].want);
        done(&r);
    }
    write_bpe(dir, "", STRINGS, SEQUENCE(SPLIT("[xyz]+") ",{\"type\":\"UnicodeScripts\"}," BYTES("true")));
    check_error(dir, "unknown pre-tokenizer (--pre NAME chooses one): [xyz]+ then UnicodeScripts then 's|'t");
    convert_with(&r, dir, 0, "qwen2");
    check_str(&r, "tokenizer.ggml.pre", "qwen2");
    done(&r);
    write_bpe(dir, "", STRINGS, SEQUENCE("{\"type\":\"Split\",\"pattern\":{\"String\":\"q\"},\"behavior\":\"MergedWithNext\"}," BYTES("false")));
    check_error(dir, "Split MergedWithNext q");
}

TEST(convert_tokenizer_finds_roles_in_all_files)
{
    struct result r;
    const char *dir = fresh_dir();
    write_bpe(dir, "", STRINGS, BYTES("true"));
    write_text(dir, "special_tokens_map.json", "{\"bos_token\":{\"content\":\"<s>\",\"lstrip\":false},\"pad_token\":\"nowhere\",\"unk_token\":null}");
    write_text(dir, "config.json", "{\"time_step_limit\":[0.0,Infinity],\"bos_token_id\":0,\"eos_token_id\":[6,8,3],"
                                   "\"text_config\":{\"pad_token_id\":2},\"unk_token_id\":99,\"sep_token_id\":-1}");
    write_text(dir, "generation_config.json", "{\"eos_token_id\":[1,8,6,0]}");
    convert(&r, dir);
    CHECK_NUMBER(&r, "bos_token_id", 5);
    CHECK_NUMBER(&r, "eos_token_id", 6);
    CHECK_NUMBER(&r, "padding_token_id", 2);
    CHECK_NUMBER(&r, "unknown_token_id", ABSENT);
    CHECK_NUMBER(&r, "seperator_token_id", ABSENT);
    CHECK_NUMBER(&r, "eot_token_id", 1);
    CHECK_NUMBER(&r, "eom_token_id", 8);
    CHECK_HAS(r.warned, "pad_token is \"nowhere\", which is no token");
    CHECK_HAS(r.warned, "token 0 \"a\" ends generation too");
    done(&r);
}

static void check_post(const char *post, const char *config, int bos, int eos, int bos_id, int eos_id)
{
    struct result r;
    char text[4096];
    const char *dir = fresh_dir();
    snprintf(text, sizeof text, "{" ADDED ",\"post_processor\":%s,\"pre_tokenizer\":" BYTES("true") "," BPE("", STRINGS) "}", post);
    write_text(dir, "tokenizer.json", text);
    write_text(dir, "tokenizer_config.json", config);
    convert(&r, dir);
    CHECK_NUMBER(&r, "add_bos_token", bos);
    CHECK_NUMBER(&r, "add_eos_token", eos);
    CHECK_NUMBER(&r, "bos_token_id", bos_id);
    CHECK_NUMBER(&r, "eos_token_id", eos_id);
    done(&r);
}

TEST(convert_tokenizer_finds_what_is_put_around_a_text)
{
    static const char both[] = "{\"bos_token\":\"<s>\",\"eos_token\":\"</s>\"}";
    check_post("null", both, 0, 0, 5, 6);
    check_post(BYTES("true"), both, 0, 0, 5, 6);
    check_post(TEMPLATE(SPECIAL_PIECE("<s>") "," PIECE_A), both, 1, 0, 5, 6);
    check_post(TEMPLATE(SPECIAL_PIECE("<s>") "," PIECE_A), "{}", 1, 0, 5, ABSENT);
    check_post(TEMPLATE(PIECE_A "," SPECIAL_PIECE("</s>")), both, 0, 1, 5, 6);
    check_post(TEMPLATE(SPECIAL_PIECE("<s>") "," PIECE_A "," SPECIAL_PIECE("<x>")), both, 1, 1, 5, 8); /* </s> becomes the end of a turn */
    check_post(TEMPLATE(SPECIAL_PIECE("<x>") "," PIECE_A), both, 0, 0, 5, 6);
    check_post("{\"type\":\"Sequence\",\"processors\":[" BYTES("true") "," TEMPLATE(SPECIAL_PIECE("<s>") "," PIECE_A) "]}", both, 1, 0, 5, 6);
    check_post("{\"type\":\"RobertaProcessing\",\"sep\":[\"</s>\",6],\"cls\":[\"<s>\",5]}", both, 1, 1, 5, 6);
    /* the configuration counts when nothing else says, and for the classes whose loaders follow it */
    check_post("null", "{\"bos_token\":\"<s>\",\"add_bos_token\":true}", 1, 0, 5, ABSENT);
    check_post("null", "{\"add_bos_token\":true}", 0, 0, ABSENT, ABSENT);
    check_post(BYTES("true"), "{\"bos_token\":\"<s>\",\"add_bos_token\":true}", 0, 0, 5, ABSENT);
    check_post(BYTES("true"), "{\"bos_token\":\"<s>\",\"add_bos_token\":true,\"tokenizer_class\":\"CohereTokenizerFast\"}", 1, 0, 5, ABSENT);
    check_post(BYTES("true"), "{\"bos_token\":\"<s>\",\"add_bos_token\":true,\"tokenizer_class\":\"LlamaTokenizerFast\"}", 0, 0, 5, ABSENT);
    check_post(TEMPLATE(SPECIAL_PIECE("<s>") "," PIECE_A), "{\"bos_token\":\"<s>\",\"add_bos_token\":false}", 1, 0, 5, ABSENT);
}

TEST(convert_tokenizer_takes_all_kinds_of_chat_templates)
{
    struct result r;
    const char *dir = fresh_dir();
    write_bpe(dir, "", STRINGS, BYTES("true"));
    write_text(dir, "tokenizer_config.json", "{\"chat_template\":[{\"name\":\"default\",\"template\":\"D\"},{\"name\":\"tool use\",\"template\":\"U\"},"
                                             "{\"name\":\"rag\",\"template\":\"R\"}]}");
    convert(&r, dir);
    check_str(&r, "tokenizer.chat_template", "D");
    check_str(&r, "tokenizer.chat_template.tool_use", "U");
    check_str(&r, "tokenizer.chat_template.rag", "R");
    check_list(&r, "tokenizer.chat_templates", "tool_use|rag");
    done(&r);
    char more[400];
    snprintf(more, sizeof more, "%s/additional_chat_templates", dir);
    mkdir(more, 0777);
    write_text(dir, "additional_chat_templates/b.jinja", "B");
    write_text(dir, "additional_chat_templates/a.jinja", "A");
    write_text(dir, "chat_template.jinja", "J\n");
    convert(&r, dir);
    check_str(&r, "tokenizer.chat_template", "J\n");
    check_list(&r, "tokenizer.chat_templates", "a|b");
    check_str(&r, "tokenizer.chat_template.b", "B");
    done(&r);
    dir = fresh_dir();
    write_bpe(dir, "", STRINGS, BYTES("true"));
    write_text(dir, "chat_template.json", "{\"chat_template\":\"C\"}");
    convert(&r, dir);
    check_str(&r, "tokenizer.chat_template", "C");
    done(&r);
    write_text(dir, "chat_template.json", "{\"chat_template\":5}");
    check_error(dir, "chat_template.json: chat_template is an integer, expected a string or an array");
}

TEST(convert_tokenizer_fits_the_vocabulary_to_the_embedding)
{
    struct result r;
    const char *dir = fresh_dir();
    write_bpe(dir, "", STRINGS, BYTES("true"));
    convert_with(&r, dir, 11, NULL);
    check_list(&r, "tokenizer.ggml.tokens", "a|b|c|ab|abc|<s>|</s>|[PAD7]|<x>|[PAD9]|[PAD10]");
    done(&r);
    write_text(dir, "tokenizer_config.json", "{\"eos_token\":\"</s>\",\"pad_token\":\"<x>\"}");
    convert_with(&r, dir, 7, NULL);
    check_list(&r, "tokenizer.ggml.tokens", "a|b|c|ab|abc|<s>|</s>");
    CHECK_HAS(r.warned, "added token 8 \"<x>\" and others from there on are left out: the embedding has 7 rows");
    CHECK_NUMBER(&r, "eos_token_id", 6);
    CHECK_NUMBER(&r, "padding_token_id", ABSENT);
    done(&r);
    convert_with(&r, dir, 4, NULL);
    CHECK(r.st == ERR_FORMAT);
    CHECK_HAS(r.e.text, "tokenizer of another model: 9 tokens, the embedding has 4 rows (token 4 is \"abc\")");
    convert_with(&r, dir, (int64_t)1 << 40, NULL);
    CHECK(r.st == ERR_FORMAT);
}

TEST(convert_tokenizer_refuses_what_it_cannot_express)
{
#define M(x) "{\"pre_tokenizer\":" BYTES("true") ",\"model\":{\"type\":\"BPE\"," x "}}"
    static const struct { const char *name, *text, *has; } rows[] = {
        { "tokenizer.json", "[]", "tokenizer.json: an array, expected an object" },
        { "tokenizer.json", "{\"model\":", "tokenizer.json:1:10" },
        { "tokenizer.json", "{}", "model is missing, expected an object" },
        { "tokenizer.json", "{\"model\":{\"type\":\"Foo\"}}", "model.type is \"Foo\", supported are BPE, Unigram, WordPiece" },
        { "tokenizer.json", "{\"model\":{\"type\":7}}", "type is an integer, expected a string" },
        { "tokenizer.json", "{\"model\":{}}", "type is missing" },
        { "tokenizer.json", M("\"merges\":[]"), "vocab is missing, expected an object" },
        { "tokenizer.json", M("\"vocab\":[],\"merges\":[]"), "vocab is an array, expected an object" },
        { "tokenizer.json", M("\"vocab\":{\"a\":0},\"merges\":{}"), "merges is an object, expected an array" },
        { "tokenizer.json", M("\"vocab\":{\"a\":\"0\"},\"merges\":[]"), "the id of \"a\" is a string, expected an integer" },
        { "tokenizer.json", M("\"vocab\":{\"a\":-1},\"merges\":[]"), "token \"a\" has the id -1, allowed are 0 to" },
        { "tokenizer.json", M("\"vocab\":{\"a\":70000},\"merges\":[]"), "the id of \"a\" is 70000 in a vocabulary of 1" },
        { "tokenizer.json", M("\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]"), "id 0 is both \"a\" and \"b\"" },
        { "tokenizer.json", M("\"vocab\":{\"a\":0},\"merges\":[\"a\"]"), "merges[0] is not two tokens" },
        { "tokenizer.json", M("\"vocab\":{\"a\":0},\"merges\":[\"a a a\"]"), "merges[0] is not two tokens" },
        { "tokenizer.json", M("\"vocab\":{\"a\":0},\"merges\":[[\"a\"]]"), "merges[0] is not two tokens" },
        { "tokenizer.json", M("\"vocab\":{\"a\":0},\"merges\":[\"a b\"]"), "merges[0]: \"b\" is not in the vocabulary" },
        { "tokenizer.json", M("\"vocab\":{\"a\":0,\"b\":1},\"merges\":[\"a b\"]"), "merges[0]: \"a\" joined with b is not in the vocabulary" },
        { "tokenizer.json", M("\"vocab\":{\"a\":0},\"merges\":[],\"end_of_word_suffix\":\"</w>\""), "end_of_word_suffix is \"</w>\"" },
        { "tokenizer.json", M("\"vocab\":{},\"merges\":[]"), "the vocabulary is empty" },
        { "tokenizer.json", "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]}}", "without ByteLevel and without byte_fallback" },
        { "tokenizer.json", "{\"model\":{\"type\":\"BPE\",\"byte_fallback\":true,\"vocab\":{\"a\":0},\"merges\":[]}}", "does not replace spaces" },
        { "tokenizer.json", "{\"pre_tokenizer\":{\"type\":\"Digits\"},\"model\":{\"type\":\"BPE\",\"byte_fallback\":true,\"vocab\":{\"a\":0},\"merges\":[]}}",
          "the pre-tokenizer Digits in a BPE model with byte_fallback" },
        { "tokenizer.json", "{\"normalizer\":\"NFC\",\"model\":{\"type\":\"BPE\",\"vocab\":{},\"merges\":[]}}", "a step of normalizers is a string" },
        { "tokenizer.json", "{\"added_tokens\":{},\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",0]]}}", "added_tokens is an object" },
        { "tokenizer.json", "{\"added_tokens\":[{\"id\":1}],\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",0]]}}", "no content and id" },
        { "tokenizer.json", "{\"added_tokens\":[{\"id\":99999,\"content\":\"x\"}],\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",0]]}}",
          "added token \"x\" has the id 99999, the vocabulary has 1 tokens" },
        { "tokenizer.json", "{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\"]]}}", "model.vocab[0] is not a text and a score" },
        { "tokenizer.json", "{\"model\":{\"type\":\"Unigram\",\"unk_id\":4,\"vocab\":[[\"a\",0]]}}", "unk_id is 4 in a vocabulary of 1" },
        { "tokenizer.json", "{\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"A*==\"},"
                            "\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",0]]}}",
          "precompiled_charsmap is not base64" },
        { "tokenizer.json", "{\"model\":{\"type\":\"WordPiece\",\"vocab\":{\"a\":0}}}", "another pre-tokenizer than BertPreTokenizer" },
        { "tokenizer_config.json", "3", "tokenizer_config.json: an integer, expected an object" },
        { "added_tokens.json", "{\"a\":[]}", "none of tokenizer.model" },
        { "tokenizer.model", "hello", "line 1 is not a token in base64" },
        { "vocab.txt", "", "the vocabulary is empty" },
        { "tekken.json", "{\"config\":{},\"vocab\":[]}", "pattern is missing" },
        { "tekken.json", "{\"config\":{\"pattern\":\"\"},\"vocab\":[]}", "-1 tokens of which -1 are special" },
    };
    for (int i = 0; i < ARRAY_LEN(rows); i++) {
        const char *dir = fresh_dir();
        write_text(dir, rows[i].name, rows[i].text);
        check_error(dir, rows[i].has);
    }
    check_error(fresh_dir(), "no tokenizer");
#undef M
}

TEST(convert_tokenizer_survives_damaged_sentencepiece_models)
{
    struct proto b;
    spm_model(&b, 1, "\1\2\3\4\5", true);
    const struct convert_tokenizer_options o = { 0 };
    uint64_t seed = 5;
    int refused = 0;
    for (size_t cut = 0; cut < 3 * b.n; cut++) { /* every truncation, then a changed byte */
        size_t n = cut < b.n ? cut : b.n;
        uint8_t *exact = malloc(n + 1);
        struct gguf_writer *w;
        struct err e = { 0 };
        if (!exact || gguf_header_open(&w, "out", &e) != OK) abort();
        memcpy(exact, b.p, n);
        if (cut >= b.n) exact[test_rand(&seed) % n] ^= (uint8_t)(1 + test_rand(&seed) % 255);
        uint8_t *tight = malloc(n ? n : 1);
        if (!tight) abort();
        memcpy(tight, exact, n);
        status st = convert_tokenizer_spm(w, tight, n, &o, &e);
        CHECK((st == OK) == (e.text[0] == 0));
        refused += st != OK;
        gguf_writer_abort(w);
        free(tight), free(exact);
    }
    CHECK(refused > (int)b.n / 2);
}

TEST(convert_tokenizer_names_what_is_wrong_in_a_sentencepiece_model)
{
    static const struct { const char *bytes; size_t n; const char *has; } rows[] = {
        { "\x0a\x7f" "abc", 5, "byte 0: field 1 has 127 bytes, 3 are left" },
        { "\x0a\x02\x10\x05", 4, "byte 4: a piece's score has wire type 0, expected 5" },
        { "\x0a\x02\x18\x09", 4, "piece 0 has the type 9, allowed are 1 to 6" },
        { "\x0a\x05\x15\x00\x00\xc0\x7f", 7, "piece 0 has a score that is no number" },
        { "\x12\x02\x18\x02", 4, "no pieces" },
        { "\x0a\x00\x12\x02\x18\x04", 6, "model_type is 4, supported are 1 (unigram) and 2 (BPE)" },
        { "\x0a\x00\x12\x03\xc8\x02\x09", 7, "special id 9, there are 1 pieces" },
        { "\x0a\x00\x1a\x02\x28\x00", 6, "escape_whitespaces off is not supported" },
        { "\x0a\x00\x0b", 3, "unknown wire type" },
        { "\x0a\x00\x80", 3, "byte 2: a number is cut off" },
    };
    const char *dir = fresh_dir();
    for (int i = 0; i < ARRAY_LEN(rows); i++) {
        write_bytes(dir, "tokenizer.model", rows[i].bytes, rows[i].n);
        check_error(dir, rows[i].has);
    }
}

static void fail_every_allocation(const char *dir)
{
    struct result r;
    int n = 0;
    do {
        mem_fail_at(++n, false);
        convert_with(&r, dir, 12, "qwen2");
        mem_fail_at(0, false);
        CHECK_MSG(r.st == OK || r.st == ERR_MEMORY, "%s", r.e.text);
        done(&r);
    } while (r.st != OK && n < 500);
    CHECK(n > 10 && n < 500);
}

TEST(convert_tokenizer_reports_every_failed_allocation)
{
    struct proto b;
    const char *dir = fresh_dir();
    write_bpe(dir, "", PAIRS, LLAMA3_PRE);
    write_text(dir, "tokenizer_config.json", "{\"bos_token\":\"<s>\",\"chat_template\":[{\"name\":\"x\",\"template\":\"T\"}]}");
    fail_every_allocation(dir);
    spm_model(&b, 1, "\1\2\3\4\5", true);
    write_bytes(dir, "tokenizer.model", b.p, b.n); /* differs from tokenizer.json, so that both are read */
    fail_every_allocation(dir);
    dir = fresh_dir();
#define PREPEND "{\"type\":\"Prepend\",\"prepend\":\"▁\"},"
    write_text(dir, "tokenizer.json", FALLBACK("[\"a b\",\"▁ a\",\"▁ ab\",\"▁a b\"]"));
#undef PREPEND
    write_text(dir, "chat_template.jinja", "T");
    fail_every_allocation(dir);
    dir = fresh_dir();
    write_text(dir, "vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\na\n##b\n##");
    fail_every_allocation(dir);
}

SUITE(convert_tokenizer, T(convert_tokenizer_reads_byte_level_bpe), T(convert_tokenizer_keeps_ordinary_what_tokenizer_json_does_not_add),
      T(convert_tokenizer_writes_spaces_inside_merges_as_the_byte_alphabet_does),
      T(convert_tokenizer_reads_vocab_json_and_merges_txt), T(convert_tokenizer_reads_sentencepiece_models), T(convert_tokenizer_reads_unigram_models),
      T(convert_tokenizer_prefers_tokenizer_json_where_sentencepiece_numbers_otherwise),
      T(convert_tokenizer_scores_bpe_with_byte_fallback_by_rank), T(convert_tokenizer_reads_wordpiece),
      T(convert_tokenizer_finds_the_merges_of_ranked_bytes), T(convert_tokenizer_names_pre_tokenizers_by_their_rules),
      T(convert_tokenizer_finds_roles_in_all_files), T(convert_tokenizer_finds_what_is_put_around_a_text),
      T(convert_tokenizer_takes_all_kinds_of_chat_templates), T(convert_tokenizer_fits_the_vocabulary_to_the_embedding),
      T(convert_tokenizer_refuses_what_it_cannot_express), T(convert_tokenizer_survives_damaged_sentencepiece_models),
      T(convert_tokenizer_names_what_is_wrong_in_a_sentencepiece_model), T(convert_tokenizer_reports_every_failed_allocation));
