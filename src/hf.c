/* hf - see hf.h. */
#include "src/hf.h"
#include <stdio.h>
#include <string.h>

bool hf_expand(const char *p, size_t n, int il, int64_t expert, char *out, size_t cap)
{
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        int len = 1;
        if (p[i] == '%' && i + 1 < n && (p[i + 1] == 'd' || p[i + 1] == 'e')) {
            len = snprintf(out + at, cap - at, "%lld", p[i + 1] == 'd' ? (long long)il : (long long)expert);
            i++;
        } else {
            out[at] = p[i];
        }
        at += (size_t)len;
        if (at + 24 > cap) return false;
    }
    out[at] = '\0';
    return true;
}

bool hf_spelling(const char *name, int i, char *out, size_t cap)
{
    static const char *const strip[] = { "model.", "transformer." };
    static const char *const before[] = { "", "language_model.", "model.language_model.", "transformer.", "model." };
    enum { STRIPPED = 4 }; /* of `before` that go with a stripped name */
    if (i < ARRAY_LEN(before)) return snprintf(out, cap, "%s%s", before[i], name) < (int)cap;
    i -= ARRAY_LEN(before);
    for (int s = 0; s < ARRAY_LEN(strip); s++) {
        size_t n = strlen(strip[s]);
        if (strncmp(name, strip[s], n) != 0) continue;
        if (i < STRIPPED) return snprintf(out, cap, "%s%s", before[i], name + n) < (int)cap;
        i -= STRIPPED;
    }
    return false;
}

const struct weight_import *hf_own(const struct arch *a, enum weight_id id)
{
    for (const struct weight_import *w = a->import ? a->import->weights : NULL; w && w->id != W_COUNT; w++)
        if (w->id == id) return w;
    return NULL;
}

int64_t hf_unpaired(const struct layer_params *l, int64_t i)
{
    int64_t head = i / l->head_dim, j = i % l->head_dim, n = l->rope.n_rot;
    return head * l->head_dim + (j < n ? j % 2 * (n / 2) + j / 2 : j);
}

int64_t hf_row(const struct model *m, const struct weight_row *r, const struct weight_import *own, int il, int64_t i)
{
    if (own && own->row) return own->row(m, il, i);
    return r->flags & WEIGHT_ROPE_PAIRS ? hf_unpaired(&m->layer[il].hp, i) : i;
}

int64_t hf_source_rows(const struct model *m, const struct weight_row *r, int il)
{
    int64_t n = 0;
    for (const struct weight_row *o = m->arch->weights; o->gguf; o++) {
        if (!o->hf || strcmp(o->hf, r->hf) || (o->id >= W_LAYER_COUNT) != (il < 0)) continue;
        const struct tensor *w = model_weight(m, il, o->id);
        const struct weight_import *own = hf_own(m->arch, o->id);
        if (own && own->load && !own->row) return -1;
        if (w) n += w->ne[1];
    }
    return n;
}
