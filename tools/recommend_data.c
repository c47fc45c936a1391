/* recommend_data - see recommend_data.h. Numbers of tests/oracle/recommend.py --fit over the four models, stand-ins for their originals by
 * tests/oracle/dither.py, quantized with importance, on prose, code and Spanish in windows of 512 tokens. One sensitivity for each model (3.2, 3.2, 0.8,
 * 1.0) and one cost for each format explain all 34 measured mixes within a factor of 1.2; a power of the size in place of the sensitivities makes it 1.5
 * for nine of ten, 1.9 for all (of the mixes that it was fitted to). K formats were measured on all four models, legacy formats there as parts of
 * mixes and by themselves on the first, I formats on the first, in the quarter of its layers whose rows
 * are long enough; IQ4_NL, IQ4_XS, IQ3_S and IQ2_S in files of llama-quantize. */
#include "tools/recommend_data.h"
#include <math.h>

const char *const recommend_types[] = {
    "F16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q5_1", "Q5_0", "Q4_K_M", "Q4_K_S", "Q4_1", "Q4_0", "IQ4_NL", "IQ4_XS", "Q3_K_L", "Q3_K_M", "Q3_K_S",
    "IQ3_M", "IQ3_S", "IQ3_XS", "IQ3_XXS", "Q2_K", "Q2_K_S", "IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S",
};
const int recommend_type_count = ARRAY_LEN(recommend_types);

const char *const recommend_models[] = { "SmolLM2 135M", "Gemma 3 270M", "Qwen2.5 Coder 0.5B", "Qwen2.5 Coder 1.5B" };
const int recommend_model_count = ARRAY_LEN(recommend_models);
const double recommend_weights_min = 100e6, recommend_weights_max = 1310e6;
const double recommend_factor = 1.5;

static const struct { int id; double cost; } costs[] = {
    { GGUF_Q8_0, 0.00073 }, { GGUF_Q6_K, 0.0043 }, { GGUF_Q5_K, 0.0068 },  { GGUF_Q5_1, 0.01 },   { GGUF_Q5_0, 0.019 }, { GGUF_Q4_1, 0.037 },
    { GGUF_Q4_K, 0.045 },   { GGUF_IQ4_XS, 0.058 }, { GGUF_IQ4_NL, 0.063 }, { GGUF_Q4_0, 0.067 },  { GGUF_IQ3_S, 0.13 }, { GGUF_IQ3_XXS, 0.24 },
    { GGUF_Q3_K, 0.25 },    { GGUF_IQ2_S, 0.51 },   { GGUF_Q2_K, 0.64 },    { GGUF_IQ2_XS, 0.7 },  { GGUF_IQ2_XXS, 0.94 }, { GGUF_IQ1_M, 1.8 },
    { GGUF_IQ1_S, 2.2 },
};

double recommend_cost(const struct dtype *t)
{
    if (t->group_len == 0) return 0;
    for (int i = 0; i < ARRAY_LEN(costs); i++)
        if (costs[i].id == t->gguf_id) return costs[i].cost;
    return NAN;
}

double recommend_sensitivity(double n)
{
    static const double slope = -0.51, at_most = 0.76;
    n = n < recommend_weights_min ? recommend_weights_min : n > recommend_weights_max ? recommend_weights_max : n;
    return at_most * pow(n / recommend_weights_max, slope);
}
