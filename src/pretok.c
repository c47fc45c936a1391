/* pretok - see pretok.h: the table of names and the cursor. The expressions are those of llama.cpp (src/llama-vocab.cpp), whose \p classes
 * are those of unicode.h, but for words of upper and lower case (o200k, tekken): llama.cpp's leave out marks or do not tell the cases apart, and the
 * ids of Indic, Thai or pointed Hebrew text are not those that the models were trained with. There the models' own expressions are followed. */
#include "src/pretok_int.h"
#include <string.h>

/* One line per distinct list of expressions, in the order in which they are applied. */
static const pretok_stage stages_default[] = {
    pretok_default_punctuation, pretok_gpt2_words, pretok_all_numbers, pretok_three_digits, NULL,
};
static const pretok_stage stages_falcon[] = { pretok_falcon_punctuation, pretok_gpt2_words, pretok_three_digits, NULL };
static const pretok_stage stages_gpt2[] = { pretok_gpt2_words, NULL };
static const pretok_stage stages_starcoder[] = { pretok_one_number, pretok_gpt2_words, NULL };
static const pretok_stage stages_llama3[] = { pretok_llama3_words, NULL };
static const pretok_stage stages_jais2[] = { pretok_jais2_words, NULL };
static const pretok_stage stages_qwen2[] = { pretok_qwen2_words, NULL };
static const pretok_stage stages_qwen35[] = { pretok_qwen35_words, NULL };
static const pretok_stage stages_ufakzeka[] = { pretok_ufakzeka_words, NULL };
static const pretok_stage stages_seed_coder[] = { pretok_seed_coder_words, NULL };
static const pretok_stage stages_minicpm5[] = { pretok_three_numbers, pretok_minicpm5_words, NULL };
static const pretok_stage stages_exaone_moe[] = { pretok_exaone_moe_words, NULL };
static const pretok_stage stages_laguna[] = { pretok_lines, pretok_qwen2_words, NULL };
static const pretok_stage stages_gpt4o[] = { pretok_gpt4o_words, NULL };
static const pretok_stage stages_tekken[] = { pretok_tekken_words, NULL };
static const pretok_stage stages_tiny_aya[] = { pretok_grouped_numbers, pretok_gpt4o_words, NULL };
static const pretok_stage stages_youtu[] = { pretok_youtu_cjk, pretok_youtu_words, NULL };
static const pretok_stage stages_kimi[] = { pretok_kimi_words, NULL };
static const pretok_stage stages_deepseek_llm[] = {
    pretok_one_newline, pretok_cased_letters, pretok_wide_punctuation, pretok_last_spaces, pretok_old_cjk, pretok_all_numbers, NULL,
};
static const pretok_stage stages_deepseek_coder[] = {
    pretok_one_newline, pretok_spaced_letters, pretok_spaced_punctuation, pretok_old_cjk, pretok_one_number, NULL,
};
static const pretok_stage stages_deepseek3[] = { pretok_three_numbers, pretok_han_kana, pretok_deepseek3_words, NULL };
static const pretok_stage stages_spark[] = { pretok_three_numbers, pretok_han_kana, pretok_spark_words, pretok_one_number, NULL };
static const pretok_stage stages_afmoe[] = { pretok_grouped_numbers, pretok_afmoe_scripts, pretok_deepseek3_words, NULL };
static const pretok_stage stages_bloom[] = { pretok_bloom_words, NULL };
static const pretok_stage stages_viking[] = { pretok_bloom_words, pretok_one_number, NULL };
static const pretok_stage stages_superbpe[] = { pretok_all_numbers, pretok_grouped_digits, NULL };
static const pretok_stage stages_chameleon[] = {
    pretok_sentinels, pretok_images, pretok_tabs, pretok_one_number, pretok_one_punctuation, pretok_gpt2_words, NULL,
};
static const pretok_stage stages_gemma4[] = { pretok_lines, NULL };
static const pretok_stage stages_whitespace[] = { pretok_no_spaces, NULL };

enum {
    WHOLE = PRETOK_WHOLE_WORDS,
    WHOLE_BOS = PRETOK_WHOLE_WORDS | PRETOK_ADDS_BOS,
    SIGN_CHARS = PRETOK_CHARS | PRETOK_SPACE_SIGN,
    GEMMA4 = SIGN_CHARS | PRETOK_WHOLE_NEWLINES | PRETOK_ALWAYS_BOS,
};

/* Names with the same stages stand together: an error message names the first of each group. */
static const struct pretok rows[] = {
    { "default", stages_default, 0 },
    { "falcon", stages_falcon, 0 },

    { "gpt-2", stages_gpt2, 0 },
    { "phi-2", stages_gpt2, 0 },
    { "mpt", stages_gpt2, 0 },
    { "olmo", stages_gpt2, 0 },
    { "jais", stages_gpt2, 0 },
    { "exaone4", stages_gpt2, 0 },
    { "trillion", stages_gpt2, 0 },
    { "granite-docling", stages_gpt2, 0 },
    { "gigachat", stages_gpt2, 0 },
    { "a.x-4.0", stages_gpt2, 0 },
    { "mellum", stages_gpt2, 0 },
    { "modern-bert", stages_gpt2, 0 },
    { "roberta-bpe", stages_gpt2, 0 },
    { "jina-es", stages_gpt2, 0 },
    { "jina-de", stages_gpt2, 0 },
    { "jina-v1-en", stages_gpt2, 0 },
    { "jina-v2-es", stages_gpt2, 0 },
    { "jina-v2-de", stages_gpt2, 0 },
    { "jina-v2-code", stages_gpt2, 0 },

    { "smollm", stages_starcoder, 0 },
    { "starcoder", stages_starcoder, 0 },
    { "refact", stages_starcoder, 0 },
    { "command-r", stages_starcoder, 0 },
    { "codeshell", stages_starcoder, 0 },
    { "exaone", stages_starcoder, 0 },
    { "minerva-7b", stages_starcoder, 0 },
    { "mellum2", stages_starcoder, 0 },

    { "llama-bpe", stages_llama3, WHOLE_BOS },
    { "llama3", stages_llama3, WHOLE_BOS },
    { "llama-v3", stages_llama3, WHOLE_BOS },
    { "falcon3", stages_llama3, WHOLE_BOS },
    { "falcon-h1", stages_llama3, WHOLE_BOS },
    { "pixtral", stages_llama3, WHOLE_BOS },
    { "lfm2", stages_llama3, WHOLE_BOS },
    { "midm-2.0", stages_llama3, WHOLE_BOS },
    { "jina-v5-nano", stages_llama3, WHOLE_BOS },
    { "dbrx", stages_llama3, 0 },
    { "smaug-bpe", stages_llama3, 0 },
    { "chatglm-bpe", stages_llama3, 0 },
    { "glm4", stages_llama3, WHOLE },
    { "glm5", stages_llama3, WHOLE },
    { "jais-2", stages_jais2, 0 },

    { "qwen2", stages_qwen2, 0 },
    { "deepseek-r1-qwen", stages_qwen2, 0 },
    { "stablelm2", stages_qwen2, 0 },
    { "hunyuan", stages_qwen2, 0 },
    { "megrez", stages_qwen2, 0 },
    { "kormo", stages_qwen2, 0 },
    { "f2llmv2", stages_qwen2, 0 },
    { "grok-2", stages_qwen2, 0 },
    { "solar-open", stages_qwen2, 0 },
    { "bailingmoe", stages_qwen2, 0 },
    { "bailingmoe2", stages_qwen2, 0 },
    { "llada-moe", stages_qwen2, 0 },
    { "qwen35", stages_qwen35, 0 },
    { "ufakzeka", stages_ufakzeka, 0 },
    { "seed-coder", stages_seed_coder, 0 },
    { "minicpm5", stages_minicpm5, WHOLE },
    { "exaone-moe", stages_exaone_moe, 0 },
    { "laguna", stages_laguna, 0 },

    { "gpt-4o", stages_gpt4o, 0 },
    { "llama4", stages_gpt4o, 0 },
    { "kanana2", stages_gpt4o, 0 },
    { "talkie", stages_gpt4o, 0 },
    { "minimax-m2", stages_gpt4o, 0 },
    { "tekken", stages_tekken, WHOLE_BOS },
    { "granite-embed-multi-97m", stages_gpt4o, WHOLE },
    { "tiny_aya", stages_tiny_aya, 0 },
    { "cohere2moe", stages_tiny_aya, 0 },
    { "youtu", stages_youtu, WHOLE },
    { "kimi-k2", stages_kimi, PRETOK_NO_MERGES },

    { "deepseek-llm", stages_deepseek_llm, 0 },
    { "deepseek-coder", stages_deepseek_coder, 0 },
    { "deepseek-v3", stages_deepseek3, 0 },
    { "hunyuan-dense", stages_deepseek3, 0 },
    { "hy_v4", stages_deepseek3, 0 },
    { "joyai-llm", stages_deepseek3, 0 },
    { "spark2_5", stages_spark, 0 },
    { "afmoe", stages_afmoe, 0 },

    { "bloom", stages_bloom, 0 },
    { "poro-chat", stages_bloom, 0 },
    { "gpt3-finnish", stages_bloom, 0 },
    { "viking", stages_viking, 0 },
    { "superbpe", stages_superbpe, 0 },
    { "chameleon", stages_chameleon, PRETOK_ADDS_BOS },
    { "gemma4", stages_gemma4, GEMMA4 },
    { "granite-embed-multi-311m", stages_gemma4, GEMMA4 },
    { "sarvam-moe", stages_gemma4, SIGN_CHARS },
    { "whitespace", stages_whitespace, PRETOK_CHARS },
};

const struct pretok *pretok_at(int i) { return i >= 0 && (size_t)i < sizeof rows / sizeof rows[0] ? &rows[i] : NULL; }

const struct pretok *pretok_find(const char *name, size_t n)
{
    for (int i = 0; pretok_at(i); i++)
        if (strlen(rows[i].name) == n && !memcmp(rows[i].name, name, n)) return &rows[i];
    return NULL;
}

void pretok_start(struct pretok_cursor *c, const struct pretok *row, const char *text, size_t n)
{
    *c = (struct pretok_cursor){ .stages = row->stages, .p = text };
    for (int i = 0; i < PRETOK_STAGES; i++) c->end[i] = c->note[i] = text;
    c->end[0] = text + n;
}

size_t pretok_next(struct pretok_cursor *c)
{
    if (c->p == c->end[0]) return 0;
    const char *p = c->p;
    int i = 0;
    for (; c->stages[i + 1]; i++)
        if (p == c->end[i + 1]) c->end[i + 1] = p + c->stages[i](p, c->end[i], &c->note[i]);
    size_t n = c->stages[i](p, c->end[i], &c->note[i]);
    c->p = p + n;
    return n;
}
