/* recipe - the named mixes of llama.cpp as tables: which kinds of tensors a mix lifts above its base format, and when. The choice is the same
 * tensor by tensor as llama-quantize's, so that files compare one to one. Source: llama.cpp src/llama-quant.cpp. */
#include "quant/recipe.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* ftype: the number in general.file_type (enum llama_ftype in llama.h). */
const struct recipe recipes[] = {
    { "Q2_K", "2.6 bits and more for the tensors that need it", GGUF_Q2_K, 10, false },
    { "Q2_K_S", "Q2_K nearly everywhere", GGUF_Q2_K, 21, true },
    { "Q3_K_S", "Q3_K everywhere", GGUF_Q3_K, 11, false },
    { "Q3_K_M", "Q3_K, attention and down projections higher", GGUF_Q3_K, 12, false },
    { "Q3_K_L", "Q3_K, attention and down projections Q5_K", GGUF_Q3_K, 13, false },
    { "Q4_K_S", "Q4_K, the first layers higher", GGUF_Q4_K, 14, false },
    { "Q4_K_M", "Q4_K, half of values and down projections Q6_K; the usual choice", GGUF_Q4_K, 15, false },
    { "Q5_K_S", "Q5_K everywhere", GGUF_Q5_K, 16, false },
    { "Q5_K_M", "Q5_K, half of values and down projections Q6_K", GGUF_Q5_K, 17, false },
    { "Q6_K", "6.6 bits, nearly lossless", GGUF_Q6_K, 18, false },
    { "Q8_0", "8.5 bits, lossless for most purposes", GGUF_Q8_0, 7, false },
    { "Q4_0", "4.5 bits, simple and fast", GGUF_Q4_0, 2, false },
    { "Q4_1", "5 bits with an offset per 32 weights", GGUF_Q4_1, 3, false },
    { "Q5_0", "5.5 bits", GGUF_Q5_0, 8, false },
    { "Q5_1", "6 bits with an offset per 32 weights", GGUF_Q5_1, 9, false },
    { "IQ1_S", "1.6 bits, for very large models only", GGUF_IQ1_S, 24, true },
    { "IQ1_M", "1.8 bits, for very large models only", GGUF_IQ1_M, 31, true },
    { "IQ2_XXS", "2.1 bits", GGUF_IQ2_XXS, 19, true },
    { "IQ2_XS", "2.3 bits", GGUF_IQ2_XS, 20, true },
    { "IQ2_S", "2.5 bits", GGUF_IQ2_XS, 28, true },
    { "IQ2_M", "2.7 bits", GGUF_IQ2_S, 29, true },
    { "IQ3_XXS", "3.1 bits", GGUF_IQ3_XXS, 23, true },
    { "IQ3_XS", "3.3 bits", GGUF_IQ3_S, 22, true },
    { "IQ3_S", "3.4 bits", GGUF_IQ3_S, 26, false },
    { "IQ3_M", "3.7 bits", GGUF_IQ3_S, 27, false },
    { "IQ4_NL", "4.5 bits, uneven levels", GGUF_IQ4_NL, 25, false },
    { "IQ4_XS", "4.25 bits, uneven levels; the smallest that is nearly as good as Q4_K", GGUF_IQ4_XS, 30, false },
    { "TQ1_0", "1.7 bits, for models trained with ternary weights", GGUF_TQ1_0, 36, false },
    { "TQ2_0", "2.1 bits, for models trained with ternary weights", GGUF_TQ2_0, 37, false },
    { "MXFP4_MOE", "experts in MXFP4, the rest Q8_0", GGUF_MXFP4, 38, false },
    { "NVFP4", "4.5 bits, 4-bit floats with a scale per 16", GGUF_NVFP4, 39, false },
    { "Q1_0", "1.1 bits, signs only", GGUF_Q1_0, 40, false },
    { "Q2_0", "2.25 bits, four levels", GGUF_Q2_0, 41, false },
    { "F16", "half precision", GGUF_F16, 1, false },
    { "BF16", "bfloat16", GGUF_BF16, 32, false },
    { "F32", "single precision", GGUF_F32, 0, false },
};
const int recipe_count = ARRAY_LEN(recipes);

static const char *const aliases[][2] = { { "Q3_K", "Q3_K_M" }, { "Q4_K", "Q4_K_M" }, { "Q5_K", "Q5_K_M" } };

const struct recipe *recipe_by_name(const char *name)
{
    for (int i = 0; i < ARRAY_LEN(aliases); i++)
        if (!strcasecmp(name, aliases[i][0])) name = aliases[i][1];
    for (int i = 0; i < recipe_count; i++)
        if (!strcasecmp(name, recipes[i].name)) return &recipes[i];
    return NULL;
}

/* ---- kinds of tensors ---- */

enum part { PART_OTHER, PART_EMBD, PART_HEAD, PART_V, PART_K, PART_Q, PART_O, PART_DOWN, PART_GATE, PART_UP };

bool recipe_is_head(const char *name) { return !strcmp(name, "output.weight"); }
bool recipe_is_embd(const char *name) { return !strcmp(name, "token_embd.weight") || !strcmp(name, "per_layer_token_embd.weight"); }

static enum part part_of(const char *name)
{
    static const struct { const char *word; enum part part; } words[] = {
        { "attn_qkv.weight", PART_V }, { "attn_kv_b.weight", PART_V }, { "attn_v.weight", PART_V }, { "attn_k.weight", PART_K },
        { "attn_q.weight", PART_Q }, { "attn_output.weight", PART_O }, { "ffn_up", PART_UP }, { "ffn_gate", PART_GATE }, { "ffn_down", PART_DOWN },
    };
    if (recipe_is_head(name)) return PART_HEAD;
    if (recipe_is_embd(name)) return PART_EMBD;
    for (int i = 0; i < ARRAY_LEN(words); i++)
        if (strstr(name, words[i].word)) return words[i].part;
    return PART_OTHER;
}

/* Small or sensitive: kept as they are. */
static const char *const kept_words[] = {
    "_norm.weight", "ffn_gate_inp.weight", "ffn_gate_tid2eid.weight", "altup", "laurel", "per_layer_model_proj", "ssm_conv1d",
    "shortconv.conv.weight", "indexer.k_proj.weight", "indexer.q_proj.weight", "time_mix_first.weight", "time_mix_w0.weight",
    "time_mix_w1.weight", "time_mix_w2.weight", "time_mix_v0.weight", "time_mix_v1.weight", "time_mix_v2.weight", "time_mix_a0.weight",
    "time_mix_a1.weight", "time_mix_a2.weight", "time_mix_g1.weight", "time_mix_g2.weight", "time_mix_decay_w1.weight",
    "time_mix_decay_w2.weight", "time_mix_lerp_fused.weight", "attn_rel_b.weight", ".position_embd", "sam.pos_embd", "sam.neck.", "sam.net_",
    ".rel_pos", ".patch_embd", ".patch_merger", "a.rvq.codebook", "mm.a.code_embd", ".outlier.weight",
};
static const char *const kept_names[] = { "position_embd.weight", "token_types.weight" };

bool recipe_quantizes(const struct recipe_model *m, const struct tensor *t, const char **why)
{
    static const char end[] = "weight";
    size_t n = strlen(t->name);
    *why = "kept: 1-D";
    if (t->ne[1] * t->ne[2] * t->ne[3] == 1) return false;
    *why = "kept: integers"; /* indices, not weights: rounding would make others of them */
    if (t->type->gguf_id >= GGUF_I8 && t->type->gguf_id <= GGUF_I64) return false;
    *why = "kept: not a weight";
    if (n < sizeof end - 1 || strcmp(t->name + n - (sizeof end - 1), end)) return false;
    *why = "kept: small or sensitive";
    for (int i = 0; i < ARRAY_LEN(kept_words); i++)
        if (strstr(t->name, kept_words[i])) return false;
    for (int i = 0; i < ARRAY_LEN(kept_names); i++)
        if (!strcmp(t->name, kept_names[i])) return false;
    *why = "";
    return true;
}

/* ---- the mixes ---- */

enum when {
    GQA4 = 1 << 0,          /* 4 query heads or more share one of keys and values */
    EXPERTS_4 = 1 << 1,     /* at least 4 */
    EXPERTS_8 = 1 << 2,     /* exactly 8, the shape of Mixtral */
    NOT_EXPERTS_8 = 1 << 3,
    FALCON = 1 << 4, NOT_FALCON = 1 << 5,
    IMPORTANCE = 1 << 6, NO_IMPORTANCE = 1 << 7,
    FIRST_2 = 1 << 8, FIRST_4 = 1 << 9,        /* attention values, counted */
    MORE_V = 1 << 10,                          /* by count of attention values: first and last eighth, every third between */
    COUNT_8TH = 1 << 11,                       /* first eighth, by count of down projections */
    FIRST_8TH = 1 << 12, FIRST_16TH = 1 << 13, /* by layer (models without experts: by count) */
    MORE = 1 << 14, MIDDLE = 1 << 15,          /* as MORE_V, by layer; all but the first and last eighth */
};

#define LOW "IQ2_XXS IQ2_XS IQ1_S IQ1_M"
#define LOW_S "IQ2_S IQ2_M"
/* The first row that fits decides; none: the base format. mixes NULL: any. */
static const struct mix_row { const char *mixes; enum part part; int when; int type; } mix_rows[] = {
    { LOW, PART_EMBD, 0, GGUF_Q2_K },
    { LOW_S " IQ3_XXS", PART_EMBD, 0, GGUF_IQ3_S },
    { "TQ1_0 TQ2_0 Q2_0", PART_EMBD, 0, GGUF_Q4_K },

    { LOW " " LOW_S, PART_V, GQA4, GGUF_Q4_K },
    { LOW " " LOW_S, PART_V, EXPERTS_4, GGUF_Q4_K },
    { LOW, PART_V, 0, GGUF_Q2_K },
    { LOW_S, PART_V, 0, GGUF_IQ3_S },
    { NULL, PART_V, EXPERTS_8, GGUF_Q8_0 },
    { "Q2_K Q2_K_S IQ3_XXS IQ3_XS IQ3_S", PART_V, GQA4, GGUF_Q4_K },
    { "Q2_K", PART_V, 0, GGUF_Q3_K },
    { "IQ3_XXS", PART_V, NO_IMPORTANCE, GGUF_IQ3_S },
    { "IQ3_M", PART_V, 0, GGUF_Q4_K },
    { "Q3_K_M", PART_V, FIRST_2, GGUF_Q5_K },
    { "Q3_K_M", PART_V, 0, GGUF_Q4_K },
    { "Q3_K_L", PART_V, 0, GGUF_Q5_K },
    { "IQ4_NL IQ4_XS", PART_V, GQA4, GGUF_Q5_K },
    { "Q4_K_M Q5_K_M", PART_V, MORE_V, GGUF_Q6_K },
    { "Q4_K_S", PART_V, FIRST_4, GGUF_Q5_K },

    { LOW " " LOW_S, PART_K, EXPERTS_8, GGUF_Q4_K },
    { NULL, PART_K, EXPERTS_8, GGUF_Q8_0 },
    { "IQ3_XS", PART_K, 0, GGUF_IQ3_XXS },
    { "IQ3_XXS", PART_K, 0, GGUF_IQ2_S },
    { "IQ3_XS", PART_Q, 0, GGUF_IQ3_XXS },
    { "IQ3_XXS", PART_Q, 0, GGUF_IQ2_S },

    { LOW " " LOW_S, PART_O, EXPERTS_8, GGUF_Q5_K },
    { "IQ1_S IQ1_M", PART_O, 0, GGUF_IQ2_XXS },
    { LOW_S, PART_O, 0, GGUF_IQ3_S },
    { "Q2_K IQ3_XS IQ3_XXS Q3_K_S Q3_K_M IQ4_NL Q4_K_S Q4_K_M IQ3_S IQ3_M IQ4_XS", PART_O, EXPERTS_8 | NOT_FALCON, GGUF_Q5_K },
    { "Q2_K", PART_O, NOT_EXPERTS_8 | NOT_FALCON, GGUF_Q3_K },
    { "IQ3_XXS", PART_O, NOT_EXPERTS_8 | NOT_FALCON, GGUF_IQ3_S },
    { "Q3_K_M IQ3_M", PART_O, NOT_EXPERTS_8 | NOT_FALCON, GGUF_Q4_K },
    { "Q3_K_L", PART_O, NOT_EXPERTS_8 | NOT_FALCON, GGUF_Q5_K },
    { "Q3_K_L", PART_O, FALCON, GGUF_Q4_K },

    { LOW, PART_DOWN, COUNT_8TH, GGUF_Q2_K },
    { LOW_S, PART_DOWN, COUNT_8TH, GGUF_IQ3_S },
    { "Q2_K", PART_DOWN, 0, GGUF_Q3_K },
    { "Q2_K_S", PART_DOWN, FIRST_8TH, GGUF_Q4_K },
    { "IQ3_XXS", PART_DOWN, NO_IMPORTANCE | FIRST_8TH, GGUF_Q4_K },
    { "IQ3_XXS", PART_DOWN, NO_IMPORTANCE, GGUF_Q3_K },
    { "Q3_K_M", PART_DOWN, FIRST_16TH, GGUF_Q5_K },
    { "Q3_K_M", PART_DOWN, NOT_FALCON, GGUF_Q4_K },
    { "Q3_K_M", PART_DOWN, MORE, GGUF_Q4_K },
    { "IQ3_M", PART_DOWN, FIRST_8TH, GGUF_Q4_K },
    { "IQ3_M", PART_DOWN, EXPERTS_8 | MORE, GGUF_Q4_K },
    { "Q3_K_L", PART_DOWN, FALCON, GGUF_Q4_K },
    { "Q3_K_L", PART_DOWN, 0, GGUF_Q5_K },
    { "Q4_K_M", PART_DOWN, FALCON | FIRST_16TH, GGUF_Q6_K },
    { "Q4_K_M", PART_DOWN, FALCON | MORE, GGUF_Q5_K },
    { "Q4_K_M", PART_DOWN, NOT_FALCON | MORE, GGUF_Q6_K },
    { "IQ4_NL IQ4_XS", PART_DOWN, NO_IMPORTANCE | FIRST_8TH, GGUF_Q5_K },
    { "Q5_K_M", PART_DOWN, MORE, GGUF_Q6_K },
    { "Q4_K_S", PART_DOWN, NOT_FALCON | FIRST_8TH, GGUF_Q5_K },
    { "Q4_0", PART_DOWN, IMPORTANCE | FIRST_8TH, GGUF_Q4_1 },
    { "Q5_0", PART_DOWN, IMPORTANCE | FIRST_8TH, GGUF_Q5_1 },

    { "IQ3_XS", PART_GATE, MIDDLE, GGUF_IQ3_XXS },
    { "IQ3_XS", PART_UP, MIDDLE, GGUF_IQ3_XXS },
};
static const char q5_heads[] = LOW " " LOW_S " IQ3_XXS"; /* heads of these are Q5_K, of the others Q6_K */

static bool listed(const char *words, const char *name)
{
    size_t n = strlen(name);
    for (const char *p = words; (p = strstr(p, name)); p += n)
        if ((p == words || p[-1] == ' ') && (p[n] == ' ' || p[n] == 0)) return true;
    return false;
}

static bool more_bits(int64_t i, int64_t n) { return i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2; }

static int64_t layer_of(const char *name)
{
    int layer = -1;
    return sscanf(name, "blk.%d.", &layer) == 1 ? layer : -1;
}

/* All conditions that hold for this tensor. */
static int conditions(const struct recipe_model *m, const struct recipe_count *n, int64_t counted, const char *name)
{
    /* experts come in any order and number: there the layer is read from the name */
    int64_t i = m->n_expert > 1 ? layer_of(name) : counted, layers = m->n_layer;
    bool falcon = !strcmp(m->arch, "falcon");
    const struct { int bit; bool holds; } all[] = {
        { GQA4, m->n_head_kv > 0 && m->n_head / m->n_head_kv >= 4 },
        { EXPERTS_4, m->n_expert >= 4 }, { EXPERTS_8, m->n_expert == 8 }, { NOT_EXPERTS_8, m->n_expert != 8 },
        { FALCON, falcon }, { NOT_FALCON, !falcon },
        { IMPORTANCE, m->has_importance }, { NO_IMPORTANCE, !m->has_importance },
        { FIRST_2, n->attn_v < 2 }, { FIRST_4, n->attn_v < 4 }, { MORE_V, more_bits(n->attn_v, m->n_attn_v) },
        { COUNT_8TH, n->down < layers / 8 },
        { FIRST_8TH, i < layers / 8 }, { FIRST_16TH, i < layers / 16 }, { MORE, more_bits(i, layers) },
        { MIDDLE, i >= layers / 8 && i < 7 * layers / 8 },
    };
    int bits = 0;
    for (int k = 0; k < ARRAY_LEN(all); k++) bits |= all[k].holds ? all[k].bit : 0;
    return bits;
}

static int head_type(const struct recipe *r, const struct recipe_model *m, int64_t cols)
{
    if (r->base == GGUF_MXFP4 || !strcmp(m->arch, "falcon") || cols % dtype_by_id(r->base)->block_len) return GGUF_Q8_0;
    if (listed(q5_heads, r->name)) return GGUF_Q5_K;
    return r->base == GGUF_Q8_0 ? GGUF_Q8_0 : GGUF_Q6_K;
}

/* Llama 2 70B and its relatives: 8 heads share one value matrix, so more bits there cost next to nothing. */
static bool is_70b(const struct recipe_model *m)
{
    static const struct { const char *arch; int64_t n_layer; } rows[] = {
        { "llama", 80 }, { "deci", 80 }, { "qwen2", 80 }, { "olmo", 80 }, { "jais2", 68 },
    };
    for (int i = 0; i < ARRAY_LEN(rows); i++)
        if (!strcmp(m->arch, rows[i].arch) && m->n_layer == rows[i].n_layer) return strcmp(m->arch, "llama") || m->n_head != m->n_head_kv;
    return false;
}

int recipe_type(const struct recipe *r, const struct recipe_model *m, struct recipe_count *n, const struct tensor *t)
{
    enum part part = part_of(t->name);
    if (part == PART_HEAD || (m->tied && part == PART_EMBD)) return head_type(r, m, t->ne[0]);
    if (r->base == GGUF_MXFP4) return t->ne[2] > 1 ? GGUF_MXFP4 : GGUF_Q8_0;
    int type = r->base;
    bool low = listed(LOW " " LOW_S, r->name), from_row = false;
    int64_t *counter = part == PART_V ? &n->attn_v : part == PART_DOWN ? &n->down : part == PART_GATE ? &n->gate : part == PART_UP ? &n->up : NULL;
    int holds = conditions(m, n, counter ? *counter : 0, t->name);
    for (int i = 0; i < ARRAY_LEN(mix_rows) && !from_row; i++) {
        const struct mix_row *row = &mix_rows[i];
        if (row->part != part || (row->when & ~holds) || (row->mixes && !listed(row->mixes, r->name))) continue;
        type = row->type;
        from_row = true;
    }
    if (part == PART_V && !low && m->n_expert != 8 && is_70b(m) && (type == GGUF_Q3_K || type == GGUF_Q4_K)) type = GGUF_Q5_K;
    if (counter) ++*counter;
    return type;
}

int recipe_fallback(int id, int64_t cols)
{
    static const struct { int from, to; } rows[] = {
        { GGUF_IQ1_S, GGUF_IQ4_NL }, { GGUF_IQ1_M, GGUF_IQ4_NL }, { GGUF_IQ2_XXS, GGUF_IQ4_NL }, { GGUF_IQ2_XS, GGUF_IQ4_NL },
        { GGUF_IQ2_S, GGUF_IQ4_NL }, { GGUF_IQ3_XXS, GGUF_IQ4_NL }, { GGUF_IQ3_S, GGUF_IQ4_NL }, { GGUF_IQ4_XS, GGUF_IQ4_NL },
        { GGUF_NVFP4, GGUF_IQ4_NL }, { GGUF_Q1_0, GGUF_Q4_0 }, { GGUF_Q2_0, GGUF_Q4_0 }, { GGUF_Q2_K, GGUF_Q4_0 }, { GGUF_Q3_K, GGUF_Q4_0 },
        { GGUF_TQ1_0, GGUF_Q4_0 }, { GGUF_TQ2_0, GGUF_Q4_0 }, { GGUF_Q4_K, GGUF_Q5_0 }, { GGUF_Q5_K, GGUF_Q5_1 }, { GGUF_Q6_K, GGUF_Q8_0 },
    };
    if (cols % dtype_by_id(id)->block_len == 0) return id;
    for (int i = 0; i < ARRAY_LEN(rows); i++)
        if (rows[i].from == id && dtype_by_id(rows[i].to) && cols % dtype_by_id(rows[i].to)->block_len == 0) return rows[i].to;
    return GGUF_F16;
}

bool recipe_needs_importance(const struct recipe *r, const char *tensor, int id)
{
    static const int must[] = { GGUF_IQ3_XXS, GGUF_IQ2_XXS, GGUF_IQ2_XS, GGUF_IQ2_S, GGUF_IQ1_M, GGUF_IQ1_S };
    if (recipe_is_head(tensor) || recipe_is_embd(tensor)) return false;
    for (int i = 0; i < ARRAY_LEN(must); i++)
        if (must[i] == id) return true;
    return id == GGUF_Q2_K && r && r->base == GGUF_Q2_K && r->needs_importance;
}

/* ---- the model's figures ---- */

/* A number per model or per layer: the first layer speaks for all, as in llama.cpp. */
static int64_t first_of(const struct gguf *g, const char *arch, const char *name, int64_t def)
{
    char key[128];
    const struct gguf_kv *kv;
    snprintf(key, sizeof key, "%s.%s", arch, name);
    kv = gguf_find(g, key);
    if (!kv || kv->n == 0 || kv->elem == KV_STR || kv->elem == KV_F32 || kv->elem == KV_F64) return def;
    return gguf_arr_i64(kv, 0);
}

void recipe_model_init(struct recipe_model *m, const struct gguf *g, bool has_importance)
{
    struct err ignored = { 0 };
    struct str arch = { "", 0 };
    *m = (struct recipe_model){ .tied = true, .has_importance = has_importance };
    gguf_get_str(g, "general.architecture", &arch, &ignored);
    snprintf(m->arch, sizeof m->arch, "%.*s", (int)(arch.n < sizeof m->arch ? arch.n : sizeof m->arch - 1), arch.p);
    m->n_layer = first_of(g, m->arch, "block_count", 0);
    m->n_head = first_of(g, m->arch, "attention.head_count", 0);
    m->n_head_kv = first_of(g, m->arch, "attention.head_count_kv", m->n_head);
    m->n_expert = first_of(g, m->arch, "expert_count", 0);
    for (int64_t i = 0; i < g->n_tensors; i++) {
        enum part part = part_of(g->tensor[i].name);
        m->n_attn_v += part == PART_V;
        if (part == PART_HEAD) m->tied = false;
    }
}

static int compare_place(const void *a, const void *b)
{
    const struct recipe_place *x = a, *y = b;
    if (x->layer != y->layer) return x->layer < y->layer ? -1 : 1;
    return strcmp(x->name, y->name);
}

void recipe_order(const struct gguf *g, struct recipe_place *out)
{
    for (int64_t i = 0; i < g->n_tensors; i++) out[i] = (struct recipe_place){ layer_of(g->tensor[i].name), i, g->tensor[i].name };
    qsort(out, (size_t)g->n_tensors, sizeof *out, compare_place);
}

const struct recipe *recipe_of_file(const struct gguf *g)
{
    const struct recipe *r = NULL;
    struct err ignored = { 0 };
    int64_t ftype = -1, own = 0, all = 0;
    if (!gguf_get_i64(g, "general.file_type", 0, INT32_MAX, &ftype, &ignored)) return NULL;
    for (int i = 0; i < recipe_count; i++)
        if (recipes[i].ftype == ftype) r = &recipes[i];
    for (int64_t i = 0; r && i < g->n_tensors; i++) {
        const struct tensor *t = &g->tensor[i];
        if (t->ne[1] * t->ne[2] * t->ne[3] == 1 || recipe_is_embd(t->name) || recipe_is_head(t->name)) continue;
        all += tensor_elements(t);
        if (t->type->gguf_id == recipe_fallback(r->base, t->ne[0])) own += tensor_elements(t);
    }
    return r && all > 0 && own >= all / 4 ? r : NULL;
}
