/* recipe - which tensor gets which format in a named mix. Internal to quant/. Knows names and shapes of tensors and a handful of figures of the
 * model, no weights. */
#pragma once
#include "quant/quant.h"

/* What the mixes ask about a model. */
struct recipe_model {
    char arch[64];
    int64_t n_layer, n_head, n_head_kv, n_expert;
    int64_t n_attn_v;    /* tensors of the attention-value kind */
    bool tied;           /* no output.weight: the embeddings are the head too */
    bool has_importance;
};
/* Tensors seen so far, by kind: the mixes count. */
struct recipe_count { int64_t attn_v, down, gate, up; };
struct recipe_place { int64_t layer, index; const char *name; };

void recipe_model_init(struct recipe_model *m, const struct gguf *g, bool has_importance);
/* recipe_order - the order in which the mixes count tensors: by layer, then by name. out [g->n_tensors]. */
void recipe_order(const struct gguf *g, struct recipe_place *out);
/* recipe_quantizes - false for tensors that stay as they are, *why then says so in a few words. */
bool recipe_quantizes(const struct recipe_model *m, const struct tensor *t, const char **why);
/* recipe_type - GGUF id that the mix gives a tensor; call in recipe_order, for every tensor that the mix decides. */
int recipe_type(const struct recipe *r, const struct recipe_model *m, struct recipe_count *n, const struct tensor *t);
/* recipe_fallback - the format that takes the place of `id` for rows of `cols`; id itself when it fits. */
int recipe_fallback(int id, int64_t cols);
bool recipe_is_head(const char *tensor);
bool recipe_is_embd(const char *tensor);
