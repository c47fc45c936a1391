/* counts - runs each hot kernel of one ISA level on fixed data, between two marks for valgrind's callgrind, which counts the instructions:
 *   counts [LEVEL]      LEVEL: avx2 (what valgrind knows), scalar, ...          driven by tests/counts.sh
 * The work of a section is fixed too: figures change with the code of the kernel, and with the compiler, only. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <valgrind/callgrind.h>
#include "ggml-like/cpu.h"
#include "ggml-like/kernels/kernels.h"

enum { K = 2048, ROWS = 16, TOKENS = 24, HEAD = 128, KEYS = 192 };

static _Alignas(64) uint8_t blocks[ROWS * K * 8], row_buf[1 << 17], panel_buf[1 << 18], act_buf[ACT_FORMS][1 << 20], scratch[1 << 21], kv[2][KEYS * HEAD * 4];
static _Alignas(64) float x[TOKENS * K], y[TOKENS * K], q[ATTN_ROWS * HEAD];
static struct kernels k, plain;
static struct panel panel;
static struct act_panel act[ACT_FORMS];
static struct act_row row;
static uint64_t state = 0x9e3779b97f4a7c15u;
static volatile float sink;

static uint64_t next(void)
{
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return state;
}

/* One line of the table for each: what ran since begin(). */
static void begin(void) { CALLGRIND_ZERO_STATS; CALLGRIND_START_INSTRUMENTATION; }

static void end(const char *kernel, const char *of)
{
    char name[64];
    CALLGRIND_STOP_INSTRUMENTATION;
    snprintf(name, sizeof name, "%s%s%s", kernel, *of ? "." : "", of);
    CALLGRIND_DUMP_STATS_AT(name);
}

static void fill_blocks(const struct dtype *t)
{
    size_t bytes = dtype_row_bytes(t, K);
    for (int i = 0; i < ROWS; i++)
        if (t->pack || t->from_f32) dtype_from_f32(t, x + i * K, blocks + (size_t)i * bytes, K);
        else
            for (size_t j = 0; j < bytes; j++) blocks[(size_t)i * bytes + j] = (uint8_t)next();
}

static void matmul_kernels(const struct dtype *t)
{
    enum act_form form = act_form_fast(&k, t);
    size_t bytes = dtype_row_bytes(t, K);
    fill_blocks(t);
    begin();
    for (int i = 0; i < ROWS; i++) sink = k.rowdot[t->gguf_id](blocks + (size_t)i * bytes, &row, K);
    end("rowdot", t->name);
    begin();
    kernels_panel(&k, form)(&k, &panel, t, form, blocks, bytes, ROWS, 0, K);
    end("panel", t->name);
    begin();
    for (int i = 0; i < TOKENS; i += k.tile_tokens)
        kernels_tile(&k, form)(&k, &panel, &act[form], i / k.tile_tokens, 0, TOKENS - i < k.tile_tokens ? TOKENS - i : k.tile_tokens,
                               y + i * PANEL_ROWS, PANEL_ROWS, false);
    end("tile", t->name);
}

static void activations(void)
{
    static const char *const names[] = { [ACT_8] = "quant_tile", [ACT_15] = "quant_tile_15", [ACT_BF16] = "pack_tile_bf16", [ACT_F32] = "pack_tile_f32" };
    const float *rows[TILE_TOKENS_MAX];
    act_row_place(&row, row_buf, K);
    begin();
    k.quant_row(&row, x, K);
    end("quant_row", "");
    row.f32 = x;
    for (enum act_form f = 0; f < ACT_FORMS; f++) {
        if (f == ACT_BF16 && !k.has_bf16) continue;
        act_panel_place(&k, &act[f], act_buf[f], K, TOKENS, f);
        begin();
        for (int i = 0; i < TOKENS; i += k.tile_tokens) {
            int n = TOKENS - i < k.tile_tokens ? TOKENS - i : k.tile_tokens;
            for (int j = 0; j < n; j++) rows[j] = x + (i + j) * K;
            kernels_fill(&k, f)(&k, &act[f], i / k.tile_tokens, rows, n);
        }
        end(names[f], "");
    }
}

static void attention(int gguf_id, int n_q, bool prompt)
{
    const struct dtype *t = dtype_by_id(gguf_id);
    char name[32];
    int32_t lo[ATTN_ROWS], hi[ATTN_ROWS];
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < KEYS; j++) k.from_f32(t, x + ((i * KEYS + j) * HEAD) % (TOKENS * K - HEAD), kv[i] + (size_t)j * dtype_row_bytes(t, HEAD), HEAD);
    for (int i = 0; i < n_q; i++) lo[i] = 0, hi[i] = prompt ? KEYS - n_q + i + 1 : KEYS;
    struct attn_args a = { .head_dim = HEAD, .head_dim_v = HEAD, .n_q = n_q, .q = q, .out = y, .q_stride = HEAD, .out_stride = HEAD, .k_type = t, .v_type = t,
                           .k = kv[0], .v = kv[1], .k_row_bytes = dtype_row_bytes(t, HEAD), .v_row_bytes = dtype_row_bytes(t, HEAD), .lo = lo, .hi = hi,
                           .scale = 0.088f };
    snprintf(name, sizeof name, "%s.%d", t->name, n_q);
    begin();
    k.attn(&k, &a, scratch);
    end("attn", name);
}

static void vectors(void)
{
    const struct dtype *f16 = dtype_by_id(GGUF_F16), *q8 = dtype_by_id(GGUF_Q8_0);
    int64_t at;
#define COUNT(name, call) (begin(), (void)(call), end(name, ""))
    COUNT("dot", sink = k.dot(x, x + K, K));
    COUNT("rms_norm", (k.rms_norm(y, x, x + K, K, 1e-6f), 0));
    COUNT("add", (k.add(y, x, x + K, K), 0));
    COUNT("mul", (k.mul(y, x, x + K, K), 0));
    COUNT("scale", (k.scale(y, x, 0.5f, K), 0));
    COUNT("axpy", (k.axpy(y, x, 0.5f, K), 0));
    COUNT("silu_mul", (k.silu_mul(y, x, x + K, K), 0));
    COUNT("gelu_mul", (k.gelu_mul(y, x, x + K, K), 0));
    COUNT("softcap", (k.softcap(y, x, 30, K), 0));
    COUNT("max", sink = k.max(x, K, &at));
    COUNT("exp_sum", sink = (float)k.exp_sum(y, x, 2, K));
    COUNT("rope", (k.rope(y, x, HEAD, true), 0));
    COUNT("from_f32.f16", (k.from_f32(f16, x, y, K), 0));
    COUNT("from_f32.q8_0", (k.from_f32(q8, x, y, K), 0));
    COUNT("to_f32.q8_0", (k.to_f32(q8, blocks, y, K), 0));
    struct recur_args r = { .s = y, .y = y + 64 * 128, .k = x, .q = x + 128, .v = x + 256, .rows = 64, .cols = 128, .stride = 128, .decay = 0.9f, .beta = 0.5f,
                            .scale = 0.1f };
    COUNT("recur", (k.recur(&r), 0));
#undef COUNT
}

int main(int argc, char **argv)
{
    struct cpu_info cpu;
    struct err e = { 0 };
    uint64_t features;
    cpu_detect(&cpu);
    if (isa_features(argc > 1 ? argv[1] : "avx2", &cpu, &features, &e) != OK) return fprintf(stderr, "counts: %s\n", e.text), e.code;
    features &= ~(uint64_t)CPU_AVX_VNNI; /* the level itself, on every CPU */
    kernels_init(&k, features);
    kernels_init(&plain, 0);
    if (act_panel_bytes(&k, K, TOKENS, ACT_F32) > sizeof act_buf[0] || panel_bytes(K) > sizeof panel_buf || act_row_bytes(K) > sizeof row_buf ||
        attn_scratch_bytes(HEAD, HEAD) > sizeof scratch)
        return fprintf(stderr, "counts: a buffer is too small\n"), 1;
    for (int i = 0; i < TOKENS * K; i++) x[i] = (float)(int)(next() % 2001 - 1000) / 500;
    for (int i = 0; i < ATTN_ROWS * HEAD; i++) q[i] = x[i];
    panel_place(&panel, panel_buf, K);
    printf("%s\n", k.name);
    activations();
    for (int i = 0; i < dtype_count; i++) /* formats that the level has a row-dot for */
        if (k.rowdot[dtypes[i]->gguf_id] != plain.rowdot[dtypes[i]->gguf_id]) matmul_kernels(dtypes[i]);
    fill_blocks(dtype_by_id(GGUF_Q8_0));
    vectors();
    attention(GGUF_F16, 1, false);
    attention(GGUF_F16, 7, false);
    attention(GGUF_F16, 64, true);
    attention(GGUF_Q8_0, 7, false);
    attention(GGUF_Q8_0, 64, true);
    return 0;
}
