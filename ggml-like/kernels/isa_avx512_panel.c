/* arch: x86_64  cflags: -mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni */
/* isa_avx512_panel - panel_build for AVX-512: panel_tmpl.h with 16 rows in a register. Formats that it does not know, the last 1..15 rows of a
 * matrix and the rest of a superblock go through the unpack slots (avx512_unpacked_tmpl.h). */
#include "ggml-like/kernels/avx512_panel.h"

struct to { int8_t *code; float *scale, *csum, *min; };

INLINE struct to to_columns(const struct panel *p, int64_t k)
{
    int64_t group = k / p->group * PANEL_ROWS;
    return (struct to){ p->code + k * PANEL_ROWS, p->scale + group, p->csum + k / 16 * PANEL_ROWS, p->has_min ? p->min + group : NULL };
}

INLINE void put_scale(struct to to, int g, F v) { put_ps(to.scale, g, v); }
INLINE F get_scale(struct to to, int g) { return _mm512_loadu_ps(to.scale + g * PANEL_ROWS); }
INLINE void put_min(struct to to, int g, F v) { put_ps(to.min, g, v); }

INLINE void put16(struct to to, int column, const V x[4], F scale)
{
    V sum = _mm512_setzero_si512();
UNROLL
    for (int j = 0; j < 4; j++) {
        _mm512_storeu_si512(to.code + (column + 4 * j) * PANEL_ROWS, x[j]);
        sum = _mm512_dpbusd_epi32(sum, _mm512_set1_epi8(1), x[j]);
    }
    put_ps(to.csum, column / 16, f_mul(f_int(sum), scale));
}

/* One layout for all shapes and forms, all rows at once. */
INLINE struct to panel_at(const struct panel *p, struct shape s, enum act_form form, int64_t k, int row) { return to_columns(p, k); }

#define FORMS(X, ...) X(ACT_8, __VA_ARGS__)
#include "ggml-like/kernels/panel_tmpl.h"
#include "ggml-like/kernels/avx512_unpacked_tmpl.h"

void kernels_init_avx512_panel(struct kernels *k) { k->panel_build = panel_build; }
