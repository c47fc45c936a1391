/* arch: x86_64  cflags: -mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mavx512vbmi -mavx512bf16 -mamx-tile -mamx-bf16 */
/* isa_amx_panel - panels of BF16: weights with their scale and min. */
#include "ggml-like/kernels/amx_chunks.h"
#include "ggml-like/kernels/avx512_panel.h"

/* group: columns of a scale. two: of ACT_15 */
struct to { uint16_t *bf16; int64_t part; float *scale, *min; int group; bool has_min, two; };

INLINE void put_scale(struct to to, int g, F v) { put_ps(to.scale, g, v); }
INLINE F get_scale(struct to to, int g) { return _mm512_load_ps(to.scale + g * PANEL_ROWS); }
INLINE void put_min(struct to to, int g, F v) { put_ps(to.min, g, v); }

INLINE void put16(struct to to, int column, const V x[4], F scale)
{
    F min = to.has_min ? _mm512_load_ps(to.min + column / to.group * PANEL_ROWS) : f_set(0);
UNROLL
    for (int i = 0; i < 8; i++) { /* a pair of columns */
        V c = x[i / 2];
        F w[2] = { sbyte_to_ps(c, i % 2 * 2), i % 2 ? f_int(_mm512_srai_epi32(c, 24)) : sbyte_to_ps(c, 1) };
UNROLL
        for (int j = 0; j < 2; j++) w[j] = to.has_min ? f_fmadd(w[j], scale, min) : f_mul(w[j], scale);
        V pair = paired(rounded(w[1], w[0]));
        uint16_t *at = to.bf16 + (column + 2 * i) * PANEL_ROWS;
        _mm512_storeu_si512(at, pair);
        if (!to.two) continue;
        F rest[2] = { f_sub(w[0], f_bits(v_sll32(pair, 16))), f_sub(w[1], f_bits(v_and(pair, v_set32(-65536)))) };
        _mm512_storeu_si512(at + to.part, paired(rounded(rest[1], rest[0])));
    }
}

INLINE struct to place_to(const struct panel *p, int64_t k, int group, bool has_min, bool two)
{
    return (struct to){ p->bf16 + k * PANEL_ROWS, panel_part(p->nk), p->spare, p->spare + 16 * PANEL_ROWS, group, has_min, two };
}

INLINE struct to to_columns(const struct panel *p, int64_t k) { return place_to(p, k, p->group, p->has_min, p->form == ACT_15); }

INLINE struct to panel_at(const struct panel *p, struct shape s, enum act_form form, int64_t k, int row)
{
    return place_to(p, k, s.group, s.has_min, form == ACT_15);
}

#define FORMS(X, ...) X(ACT_8, __VA_ARGS__) X(ACT_15, __VA_ARGS__)
#include "ggml-like/kernels/panel_tmpl.h"
#include "ggml-like/kernels/avx512_unpacked_tmpl.h"

void kernels_init_amx_panel(struct kernels *k) { k->panel_build = panel_build; }
