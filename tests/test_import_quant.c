/* test_import_quant - one matrix of a tiny Llama in each quantized form: every weight against the formula, written out here element by element from the
 * bytes of the parts; types that keep the codes; what is refused; and thousands of parts of wrong shapes and values. The same against transformers and
 * the packages themselves: tests/oracle/import_quant.py. */
#include "ggml-like/checkpoint.h"
#include "ggml-like/gguf.h"
#include "src/convert.h"
#include "tests/test.h"
#include <math.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { EMBD = 64, FF = 96, VOCAB = 260, PARTS = 6, PART_BYTES = FF * EMBD * 4 };

/* ---- parts ---- */

struct part {
    const char *name; /* behind model.layers.0.mlp.up_proj */
    enum ckpt_type type;
    int n_dims;
    int64_t shape[4];
    enum fill { RANDOM, SCALE, BYTES, ORDER, BLOCKS, TEXT } fill;
    uint32_t value;   /* BYTES: all of them */
    const char *text;
};
struct data { uint8_t raw[PARTS][PART_BYTES]; };

struct scheme {
    const char *name, *config, *type; /* type: with auto */
    struct part part[PARTS];
    float (*weight)(const struct data *d, int o, int i);
    float bound;                      /* of the difference with auto; 0: the same (after rounding to half where the type is F16) */
};

static uint32_t word(const struct data *d, int part, int i)
{
    uint32_t v;
    memcpy(&v, d->raw[part] + 4 * i, 4);
    return v;
}
static float number(const struct data *d, int part, int i)
{
    float v;
    memcpy(&v, d->raw[part] + 4 * i, 4);
    return v;
}
static float half(const struct data *d, int part, int i)
{
    uint16_t v;
    memcpy(&v, d->raw[part] + 2 * i, 2);
    return f16_to_f32(v);
}
static float brain(const struct data *d, int part, int i)
{
    uint16_t v;
    memcpy(&v, d->raw[part] + 2 * i, 2);
    return bf16_to_f32(v);
}
/* code number i of a stream whose words stand `step` apart, bit by bit */
static int stream(const struct data *d, int part, int first, int step, int i, int bits)
{
    int v = 0;
    for (int b = 0; b < bits; b++) {
        int at = i * bits + b;
        v |= (int)(word(d, part, first + at / 32 * step) >> (at % 32) & 1) << b;
    }
    return v;
}

static float gptq4(const struct data *d, int o, int i)
{
    int g = i / 32, z = stream(d, 1, g * FF * 4 / 32, 1, o, 4) + 1;
    return (float)(stream(d, 0, o, FF, i, 4) - z) * half(d, 2, g * FF + o);
}
static float gptq3(const struct data *d, int o, int i)
{
    int g = (int)word(d, 3, i), z = stream(d, 1, g * FF * 3 / 32, 1, o, 3);
    return (float)(stream(d, 0, o, FF, i, 3) - z) * half(d, 2, g * FF + o);
}
static float gptq8(const struct data *d, int o, int i)
{
    return (float)(stream(d, 0, o, FF, i, 8) - stream(d, 1, 0, 1, o, 8) - 1) * brain(d, 2, o);
}
static float awq(const struct data *d, int o, int i)
{
    static const int place[8] = { 0, 4, 1, 5, 2, 6, 3, 7 };
    int q = word(d, 0, i * FF / 8 + o / 8) >> 4 * place[o % 8] & 15, z = word(d, 1, i / 32 * FF / 8 + o / 8) >> 4 * place[o % 8] & 15;
    return (float)(q - z) * half(d, 2, i / 32 * FF + o);
}
static float packed4(const struct data *d, int o, int i)
{
    int z = stream(d, 2, i / 32, 2, o, 4);
    return (float)(stream(d, 0, o * EMBD * 4 / 32, 1, i, 4) - z) * brain(d, 1, o * 2 + i / 32);
}
static float int8(const struct data *d, int o, int i) { return (float)(int8_t)d->raw[0][o * EMBD + i] * half(d, 1, o); }
static float bnb8(const struct data *d, int o, int i)
{
    float x = (float)(int8_t)d->raw[0][o * EMBD + i] * number(d, 1, o);
    return x * 7.874015718698502e-3f;
}
static float fp8(const struct data *d, int o, int i)
{
    int b = d->raw[0][o * EMBD + i], e = b >> 3 & 15, m = b & 7;
    float x = e ? ldexpf(8 + (float)m, e - 10) : ldexpf((float)m, -9);
    return (b & 128 ? -x : x) * number(d, 1, o / 40 * 2 + i / 48);
}
static float nf4(const struct data *d, int o, int i)
{
    int n = o * EMBD + i, b = d->raw[0][n / 2], k = n / 64;
    float scale = number(d, 4, d->raw[1][k]) * number(d, 3, k / 16);
    scale += 0.25f;
    return number(d, 2, n % 2 ? b & 15 : b >> 4) * scale;
}
static float mx4(const struct data *d, int o, int i)
{
    static const float value[8] = { 0, 0.5f, 1, 1.5f, 2, 3, 4, 6 };
    int n = o * EMBD + i, c = d->raw[0][n / 2] >> (n % 2 * 4) & 15;
    float x = ldexpf(value[c & 7], d->raw[1][n / 32] - 127);
    return c & 8 ? -x : x;
}

#define Q4(...) { ".qweight", CKPT_I32, 2, { EMBD * 4 / 32, FF } }, { ".qzeros", CKPT_I32, 2, { 2, FF * 4 / 32 }, __VA_ARGS__ }, \
                { ".scales", CKPT_F16, 2, { 2, FF }, SCALE }
#define NF4_STATE "{\"quant_type\": \"nf4\", \"blocksize\": 64, \"dtype\": \"float16\", \"shape\": [96, 64], \"nested_blocksize\": 16, " \
                  "\"nested_dtype\": \"float32\", \"nested_offset\": 0.25}"
static const struct scheme schemes[] = {
    { "gptq4", "\"quant_method\": \"gptq\", \"bits\": 4", "Q4_0", { Q4(BYTES, 0x77) }, gptq4 },
    { "gptq4_zeros", "\"quant_method\": \"gptq\", \"bits\": 4, \"checkpoint_format\": \"gptq\"", "Q4_1", { Q4(RANDOM) }, gptq4, 16 * 0.02f / 2048 },
    { "gptq3_in_order_of_activations", "\"quant_method\": \"gptq\", \"bits\": 3, \"checkpoint_format\": \"gptq_v2\"", "F16",
      { { ".qweight", CKPT_I32, 2, { EMBD * 3 / 32, FF } }, { ".qzeros", CKPT_I32, 2, { 2, FF * 3 / 32 } }, { ".scales", CKPT_F16, 2, { 2, FF }, SCALE },
        { ".g_idx", CKPT_I32, 1, { EMBD }, ORDER } }, gptq3 },
    { "gptq3_in_order_of_blocks", "\"quant_method\": \"gptq\", \"bits\": 3, \"checkpoint_format\": \"gptq_v2\"", "Q4_0",
      { { ".qweight", CKPT_I32, 2, { EMBD * 3 / 32, FF } }, { ".qzeros", CKPT_I32, 2, { 2, FF * 3 / 32 } }, { ".scales", CKPT_F16, 2, { 2, FF }, SCALE },
        { ".g_idx", CKPT_I32, 1, { EMBD }, BLOCKS } }, gptq3 },
    { "gptq8", "\"quant_method\": \"gptq\", \"bits\": 8, \"group_size\": -1", "Q8_0",
      { { ".qweight", CKPT_I32, 2, { EMBD * 8 / 32, FF } }, { ".qzeros", CKPT_I32, 2, { 1, FF * 8 / 32 }, BYTES, 127 },
        { ".scales", CKPT_BF16, 2, { 1, FF }, SCALE } }, gptq8 },
    { "awq", "\"quant_method\": \"awq\", \"bits\": 4, \"version\": \"gemm\"", "Q4_1",
      { { ".qweight", CKPT_I32, 2, { EMBD, FF / 8 } }, { ".qzeros", CKPT_I32, 2, { 2, FF / 8 } }, { ".scales", CKPT_F16, 2, { 2, FF }, SCALE } }, awq,
      16 * 0.02f / 2048 },
    { "compressed_tensors_packed", "\"quant_method\": \"compressed-tensors\", \"format\": \"pack-quantized\"", "Q4_1",
      { { ".weight_packed", CKPT_I32, 2, { FF, EMBD * 4 / 32 } }, { ".weight_scale", CKPT_BF16, 2, { FF, 2 }, SCALE },
        { ".weight_zero_point", CKPT_I32, 2, { FF * 4 / 32, 2 } }, { ".weight_shape", CKPT_I64, 1, { 2 }, TEXT, 0, "\x60\0\0\0\0\0\0\0\x40\0\0\0\0\0\0" } },
      packed4, 16 * 0.02f / 2048 },
    { "compressed_tensors_int8", "\"quant_method\": \"compressed-tensors\", \"format\": \"int-quantized\"", "Q8_0",
      { { ".weight", CKPT_I8, 2, { FF, EMBD } }, { ".weight_scale", CKPT_F16, 2, { FF, 1 }, SCALE } }, int8 },
    { "compressed_tensors_mxfp4", "\"quant_method\": \"compressed-tensors\", \"format\": \"mxfp4-pack-quantized\"", "MXFP4",
      { { ".weight_packed", CKPT_U8, 2, { FF, EMBD / 2 } }, { ".weight_scale", CKPT_U8, 2, { FF, 2 }, BYTES, 120 } }, mx4 },
    { "bitsandbytes_int8", "\"quant_method\": \"bitsandbytes\", \"load_in_8bit\": true", "F16",
      { { ".weight", CKPT_I8, 2, { FF, EMBD } }, { ".SCB", CKPT_F32, 1, { FF }, SCALE } }, bnb8 },
    { "bitsandbytes_nf4", "\"load_in_4bit\": true", "F16",
      { { ".weight", CKPT_U8, 2, { FF * EMBD / 2, 1 } }, { ".weight.absmax", CKPT_U8, 1, { FF } }, { ".weight.quant_map", CKPT_F32, 1, { 16 }, SCALE },
        { ".weight.nested_absmax", CKPT_F32, 1, { 6 }, SCALE }, { ".weight.nested_quant_map", CKPT_F32, 1, { 256 }, SCALE },
        { ".weight.quant_state.bitsandbytes__nf4", CKPT_U8, 1, { sizeof NF4_STATE - 1 }, TEXT, 0, NF4_STATE } }, nf4 },
    { "fp8_blocks", "\"quant_method\": \"fp8\", \"weight_block_size\": [40, 48]", "F16",
      { { ".weight", CKPT_F8_E4M3, 2, { FF, EMBD } }, { ".weight_scale_inv", CKPT_F32, 2, { 3, 2 }, SCALE } }, fp8 },
};

static int64_t elements(const struct part *p)
{
    int64_t n = 1;
    for (int i = 0; i < p->n_dims; i++) n *= p->shape[i];
    return n;
}

static void fill_part(const struct part *p, uint8_t *raw, uint64_t *s)
{
    int64_t n = elements(p);
    size_t bytes = (size_t)n * ckpt_type_bytes(p->type);
    if (bytes > PART_BYTES) abort();
    for (size_t i = 0; i < bytes; i++) raw[i] = p->fill == BYTES ? (uint8_t)p->value : (uint8_t)test_rand(s);
    if (p->type == CKPT_F8_E4M3)
        for (size_t i = 0; i < bytes; i++) raw[i] &= 0xbf; /* no NaN */
    if (p->fill == TEXT) memcpy(raw, p->text, bytes);
    for (int64_t i = 0; i < n && p->fill >= SCALE; i++) {
        float x = 0.01f + 0.009f * test_randf(s);
        uint16_t h = p->type == CKPT_F16 ? f32_to_f16(x) : f32_to_bf16(x);
        int32_t g = p->fill == BLOCKS ? i < 32 : (int32_t)(test_rand(s) & 1);
        if (p->fill == SCALE && p->type == CKPT_F32) memcpy(raw + 4 * i, &x, 4);
        else if (p->fill == SCALE) memcpy(raw + 2 * i, &h, 2);
        else if (p->fill == ORDER || p->fill == BLOCKS) memcpy(raw + 4 * i, &g, 4);
    }
}

/* ---- a directory ---- */

static const struct { const char *name; int64_t rows, cols; } plain[] = {
    { "model.embed_tokens", VOCAB, EMBD },          { "model.norm", 0, EMBD },
    { "model.layers.0.input_layernorm", 0, EMBD },  { "model.layers.0.self_attn.q_proj", 64, EMBD },
    { "model.layers.0.self_attn.k_proj", 32, EMBD }, { "model.layers.0.self_attn.v_proj", 32, EMBD },
    { "model.layers.0.self_attn.o_proj", EMBD, 64 }, { "model.layers.0.post_attention_layernorm", 0, EMBD },
    { "model.layers.0.mlp.gate_proj", FF, EMBD },   { "model.layers.0.mlp.down_proj", EMBD, FF },
};

static void put_file(const char *dir, const char *name, const char *text)
{
    char path[1100];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(text, 1, strlen(text), f) != strlen(text) || fclose(f)) abort();
}

static void put_config(const char *dir, const char *quantization)
{
    char text[2048];
    snprintf(text, sizeof text, "{\"architectures\": [\"LlamaForCausalLM\"], \"hidden_size\": 64, \"intermediate_size\": 96, \"num_hidden_layers\": 1,"
             "\"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"max_position_embeddings\": 128, \"rms_norm_eps\": 1e-5, \"vocab_size\": 260,"
             "\"tie_word_embeddings\": true, \"torch_dtype\": \"float16\", \"quantization_config\": {%s}}", quantization);
    put_file(dir, "config.json", text);
}

static void put_tokenizer(const char *dir)
{
    static char text[16384];
    size_t at = (size_t)snprintf(text, sizeof text, "{\"added_tokens\":[],\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,"
                                 "\"use_regex\":true},\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"merges\":[],\"vocab\":{");
    for (int b = 0, n = 0; b < 256; b++) {
        bool keep = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
        at += (size_t)snprintf(text + at, sizeof text - at, "%s\"\\u%04x\":%d", b ? "," : "", keep ? b : 256 + n, b);
        n += !keep;
    }
    snprintf(text + at, sizeof text - at, "}}}");
    put_file(dir, "tokenizer.json", text);
}

/* test_tmp has one buffer. */
static const char *out_path(const char *name)
{
    static char path[512];
    snprintf(path, sizeof path, "%s", test_tmp(name));
    return path;
}

static void write_one(struct safetensors_writer *w, int64_t id, const void *p, size_t n)
{
    struct err e = { 0 };
    if (safetensors_write(w, id, 0, p, n, &e) != OK) test_fail(__FILE__, __LINE__, "%s", e.text);
}

static const char *make_dir(const char *config, const struct part *part, const struct data *d)
{
    static char dir[512], path[600], name[160];
    static float zeros[VOCAB * EMBD];
    struct safetensors_writer *w;
    struct err e = { 0 };
    int64_t id[ARRAY_LEN(plain) + PARTS];
    int n = 0;
    snprintf(dir, sizeof dir, "%s", test_tmp("hf_quant"));
    if (mkdir(dir, 0777) == 0) put_tokenizer(dir);
    put_config(dir, config);
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    if (safetensors_writer_open(&w, path, &e) != OK) test_fail(__FILE__, __LINE__, "%s", e.text);
    for (int i = 0; i < ARRAY_LEN(plain); i++) {
        snprintf(name, sizeof name, "%s.weight", plain[i].name);
        int64_t shape[2] = { plain[i].rows ? plain[i].rows : plain[i].cols, plain[i].cols };
        id[n++] = safetensors_add(w, name, CKPT_F32, plain[i].rows ? 2 : 1, shape);
    }
    for (int i = 0; i < PARTS && part[i].name; i++) {
        snprintf(name, sizeof name, "model.layers.0.mlp.up_proj%s", part[i].name);
        id[n++] = safetensors_add(w, name, part[i].type, part[i].n_dims, part[i].shape);
    }
    if (safetensors_begin(w, &e) != OK) test_fail(__FILE__, __LINE__, "%s", e.text);
    n = 0;
    for (int i = 0; i < ARRAY_LEN(plain); i++) write_one(w, id[n++], zeros, (size_t)(max_i64(plain[i].rows, 1) * plain[i].cols) * 4);
    for (int i = 0; i < PARTS && part[i].name; i++) write_one(w, id[n++], d->raw[i], (size_t)elements(&part[i]) * ckpt_type_bytes(part[i].type));
    if (safetensors_writer_finish(w, &e) != OK) test_fail(__FILE__, __LINE__, "%s", e.text);
    return dir;
}

static status convert_dir(const char *dir, const char *out, const struct dtype *type, struct err *e)
{
    struct convert *c;
    const struct convert_options o = { .type = type, .n_threads = 1 };
    TRY(convert_open(&c, dir, &o, e));
    status st = convert_write(c, out, e);
    convert_close(c);
    return st;
}

/* ---- claims ---- */

static void check_matrix(const struct scheme *s, const struct data *d, const char *out, bool automatic)
{
    struct gguf g;
    struct err e = { 0 };
    static float got[FF * EMBD];
    if (gguf_open(&g, out, true, &e) != OK) {
        test_fail(__FILE__, __LINE__, "%s", e.text);
        return;
    }
    const struct tensor *t = gguf_tensor(&g, "blk.0.ffn_up.weight");
    CHECK_STR(t->type->gguf_name, automatic ? s->type : "F32");
    dtype_to_f32(t->type, t->data, got, FF * EMBD);
    int bad = 0;
    for (int o = 0; o < FF; o++)
        for (int i = 0; i < EMBD; i++) {
            float want = s->weight(d, o, i), x = got[o * EMBD + i];
            if (t->type->gguf_id == GGUF_F16) want = f16_to_f32(f32_to_f16(want));
            if (!(automatic && s->bound > 0 ? fabsf(x - want) <= s->bound : x == want) && bad++ < 3)
                test_fail(__FILE__, __LINE__, "%s as %s: row %d column %d is %.9g, expected %.9g", s->name, t->type->gguf_name, o, i, x, want);
        }
    gguf_close(&g);
}

static struct data the_data;

static const struct data *fill_all(const struct part *part)
{
    uint64_t seed = 5;
    for (int i = 0; i < PARTS && part[i].name; i++) fill_part(&part[i], the_data.raw[i], &seed);
    return &the_data;
}

TEST(import_quant_gives_the_numbers_of_the_formula)
{
    const char *out = out_path("quant.gguf");
    for (int i = 0; i < ARRAY_LEN(schemes); i++) {
        const struct scheme *s = &schemes[i];
        test_begin("import_quant_gives_the_numbers_of_the_formula_%s", s->name);
        const struct data *d = fill_all(s->part);
        const char *dir = make_dir(s->config, s->part, d);
        for (int automatic = 0; automatic < 2; automatic++) {
            struct err e = { 0 };
            CHECK_MSG(convert_dir(dir, out, automatic ? NULL : dtype_by_name("f32"), &e) == OK, "%s", e.text);
            check_matrix(s, d, out, automatic);
        }
    }
}

TEST(import_quant_refuses_with_names_and_values)
{
    const struct {
        const char *name, *config; /* NULL: the scheme's */
        int scheme, part;          /* which part is another: with part.name NULL it is missing */
        struct part other;
        const char *text;
    } rows[] = {
        { "unknown_method", "\"quant_method\": \"hqq\"", 0, -1, { 0 }, "quant_method \"hqq\" is none of gptq, awq, compressed-tensors" },
        { "no_method", "\"bits\": 4", 0, -1, { 0 }, "quant_method \"(none)\" is none of" },
        { "five_bits", "\"quant_method\": \"gptq\", \"bits\": 5", 0, -1, { 0 }, "GPTQ with 5 bits is not supported" },
        { "awq_of_3_bits", "\"quant_method\": \"awq\", \"bits\": 3", 5, -1, { 0 }, "AWQ with 3 bits is not supported" },
        { "awq_gemv", "\"quant_method\": \"awq\", \"bits\": 4, \"version\": \"gemv\"", 5, -1, { 0 }, "AWQ version \"gemv\" is not supported" },
        { "marlin", "\"quant_method\": \"gptq\", \"bits\": 4, \"checkpoint_format\": \"marlin\"", 0, -1, { 0 }, "checkpoint_format \"marlin\" is none of" },
        { "sparse", "\"quant_method\": \"compressed-tensors\", \"format\": \"marlin-24\"", 6, -1, { 0 }, "format \"marlin-24\" of compressed-tensors" },
        { "no_scales", NULL, 0, 2, { 0 }, "up_proj.scales is missing" },
        { "no_zeros", NULL, 0, 1, { 0 }, "up_proj.qzeros is missing" },
        { "short_zeros", NULL, 0, 1, { ".qzeros", CKPT_I32, 2, { 2, 11 } }, "up_proj.qzeros: shape is [2, 11], expected [2, 12]" },
        { "wide_scales", NULL, 0, 2, { ".scales", CKPT_F16, 2, { 2, 97 }, SCALE }, "up_proj.scales: shape is [2, 97], expected [2, 96]" },
        { "scales_of_bytes", NULL, 0, 2, { ".scales", CKPT_U8, 2, { 2, 96 } }, "up_proj.scales: type is U8, expected F16" },
        { "short_matrix", NULL, 0, 0, { ".qweight", CKPT_I32, 2, { 4, FF } }, "up_proj.weight: shape is [96, 32], expected [96, 64]" },
        { "float_codes", NULL, 0, 0, { ".qweight", CKPT_F32, 2, { 8, FF } }, "up_proj.qweight: type is F32, expected I32" },
        { "group_out_of_range", NULL, 2, 3, { ".g_idx", CKPT_I32, 1, { EMBD }, BYTES, 1 }, "column 0 is in group 16843009, there are 2" },
        { "short_order", NULL, 2, 3, { ".g_idx", CKPT_I32, 1, { 63 }, ORDER }, "up_proj.g_idx: shape is [63], expected [64]" },
        { "no_shape", NULL, 6, 3, { 0 }, "up_proj.weight_shape is missing" },
        { "packed_width", NULL, 6, 0, { ".weight_packed", CKPT_I32, 2, { FF, 9 } }, "up_proj.weight_packed: shape is [96, 9]" },
        { "scale_rows", NULL, 7, 1, { ".weight_scale", CKPT_F16, 2, { 95, 1 }, SCALE }, "up_proj.weight_scale: shape is [95, 1], expected [96, 1]" },
        { "mx_scales", NULL, 8, 1, { ".weight_scale", CKPT_U8, 2, { FF, 3 } }, "up_proj.weight_scale: shape is [96, 3], expected [96, 2]" },
        { "no_scb", NULL, 9, 1, { 0 }, "up_proj.SCB is missing" },
        { "no_state", NULL, 10, 5, { 0 }, "up_proj.weight.quant_state.bitsandbytes__fp4 is missing" },
        { "broken_state", NULL, 10, 5, { ".weight.quant_state.bitsandbytes__nf4", CKPT_U8, 1, { 9 }, TEXT, 0, "{\"shape\":" }, "quant_state" },
        { "absmax", NULL, 10, 1, { ".weight.absmax", CKPT_U8, 1, { 95 } }, "up_proj.weight.absmax: shape is [95], expected [96]" },
        { "no_inverse", NULL, 11, 1, { 0 }, "up_proj.weight_scale is missing" },
        { "blocks", NULL, 11, 1, { ".weight_scale_inv", CKPT_F32, 2, { 3, 3 }, SCALE }, "up_proj.weight_scale_inv: shape is [3, 3], expected [3, 2]" },
    };
    for (int i = 0; i < ARRAY_LEN(rows); i++) {
        test_begin("import_quant_refuses_%s", rows[i].name);
        const struct scheme *s = &schemes[rows[i].scheme];
        struct part part[PARTS + 1] = { 0 };
        memcpy(part, s->part, sizeof s->part);
        if (rows[i].part >= 0 && rows[i].other.name) part[rows[i].part] = rows[i].other;
        else if (rows[i].part >= 0) memmove(part + rows[i].part, part + rows[i].part + 1, (size_t)(PARTS - rows[i].part) * sizeof *part);
        struct err e = { 0 };
        const char *out = out_path("refused_quant.gguf");
        const char *dir = make_dir(rows[i].config ? rows[i].config : s->config, part, fill_all(part));
        CHECK(convert_dir(dir, out, NULL, &e) == ERR_FORMAT);
        CHECK_HAS(e.text, rows[i].text);
        CHECK(access(out, F_OK) != 0);
    }
}

/* Parts whose shapes and types are drawn, numbers of the configuration too: converted or refused with a reason, never beyond a buffer (asan). */
TEST(import_quant_survives_any_parts)
{
    static const char *const numbers[] = { "0", "1", "2", "3", "4", "8", "-1", "1e9", "[]", "\"4\"" };
    uint64_t seed = 17;
    const char *out = out_path("any_quant.gguf");
    for (int k = 0; k < 70; k++) {
        const struct scheme *s = &schemes[(uint64_t)test_rand(&seed) % ARRAY_LEN(schemes)];
        struct part part[PARTS];
        char config[400];
        memcpy(part, s->part, sizeof part);
        for (int changes = (int)((uint64_t)test_rand(&seed) % 3); changes >= 0; changes--) {
            struct part *p = &part[(uint64_t)test_rand(&seed) % PARTS];
            if (!p->name) continue;
            uint64_t r = (uint64_t)test_rand(&seed);
            int64_t *dim = &p->shape[r / 8 % 2];
            if (r % 8 < 4 && p->fill != TEXT) *dim = r % 8 == 0 ? 0 : r % 8 == 1 ? 1 : r % 8 == 2 ? *dim + 1 : *dim / 2;
            else if (r % 8 == 4) p->fill = RANDOM;
            else if (r % 8 == 5 && p->fill != TEXT) p->type = (enum ckpt_type)(r / 64 % CKPT_N_TYPES), p->fill = RANDOM;
            else if (r % 8 == 6) p->fill = BYTES, p->value = (uint32_t)(r >> 20);
            else if (p->fill != TEXT) p->n_dims = 1 + (int)(r / 64 % 3), p->shape[2] = 1;
            if (elements(p) * (int64_t)ckpt_type_bytes(p->type) > PART_BYTES) *p = s->part[0];
            for (int i = 0; i < PARTS; i++) /* names stay single */
                if (&part[i] != p && part[i].name && !strcmp(part[i].name, p->name)) p->name = ".weight_other";
        }
        const char *n = numbers[(uint64_t)test_rand(&seed) % ARRAY_LEN(numbers)];
        snprintf(config, sizeof config, "%s, \"nested_blocksize\": %s%s%s", s->config, n, k % 4 ? "" : ", \"group_size\": ", k % 4 ? "" : n);
        if (strstr(s->config, "group_size")) snprintf(config, sizeof config, "%s", s->config);
        struct err e = { 0 };
        status st = convert_dir(make_dir(config, part, fill_all(part)), out, k % 2 ? dtype_by_name("f32") : NULL, &e);
        CHECK_MSG(st == OK || (st == ERR_FORMAT && e.text[0]), "%s: status %d %s", s->name, (int)st, e.text);
    }
}

/* Every allocation may fail. */
TEST(import_quant_survives_the_failure_of_every_allocation)
{
    const char *out = out_path("quant_oom.gguf");
    for (int i = 0; i < ARRAY_LEN(schemes); i += 5) {
        const char *dir = make_dir(schemes[i].config, schemes[i].part, fill_all(schemes[i].part));
        int64_t n = 1;
        for (; n < 3000; n += 1 + n / 12) {
            struct err e = { 0 };
            mem_fail_at(n, false);
            status st = convert_dir(dir, out, NULL, &e);
            mem_fail_at(0, false);
            if (st == OK) break;
            CHECK_MSG(e.code == ERR_MEMORY, "%s, allocation %lld: %d %s", schemes[i].name, (long long)n, (int)e.code, e.text);
        }
        CHECK_MSG(n < 3000, "never succeeded");
    }
}

SUITE(import_quant, T(import_quant_gives_the_numbers_of_the_formula), T(import_quant_refuses_with_names_and_values), T(import_quant_survives_any_parts),
      T(import_quant_survives_the_failure_of_every_allocation));
