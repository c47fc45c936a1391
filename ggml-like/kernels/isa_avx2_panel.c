/* arch: x86_64  cflags: -mavx2 -mfma -mf16c */
/* isa_avx2_panel - panel_build for AVX2. */
#include "ggml-like/kernels/avx2_panel_tmpl.h"

void kernels_init_avx2_panel(struct kernels *k) { k->panel_build = panel_build; }
