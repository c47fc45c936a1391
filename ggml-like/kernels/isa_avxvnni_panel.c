/* arch: x86_64  cflags: -mavx2 -mfma -mf16c */
/* isa_avxvnni_panel - panel_build for AVX-VNNI. */
#define VNNI_TILES
#include "ggml-like/kernels/avx2_panel_tmpl.h"

void kernels_init_avxvnni_panel(struct kernels *k) { k->panel_build = panel_build; }
