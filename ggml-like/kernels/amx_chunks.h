/* amx_chunks - the layout that the files of the AMX level share. A chunk is 32 columns, the depth of a product of two tile registers:
 *   weights  u16 [k/32][16 pairs][16 rows][2]     activations  u16 [k/32][32 tokens][32]
 * ACT_15 has two parts of that, behind each other: BF16, and BF16 of what its rounding left. Panels likewise. */
#pragma once
#include "ggml-like/kernels/avx512_blocks.h"
#include "ggml-like/kernels/levels.h"
#include <assert.h>

enum { NT = 32, CHUNK_COLUMNS = TILE_COLUMNS, CHUNK_ROWS = CHUNK_COLUMNS * PANEL_ROWS, CHUNK_TOKENS = CHUNK_COLUMNS * NT /* values */ };

/* BF16, nearest even, of 16 floats and of 16 more. Denormals become zeros. */
INLINE __m512i rounded(__m512 high, __m512 low) { return (__m512i)_mm512_cvtne2ps_pbh(high, low); }

/* Column k0, a multiple of 32, of a tile. */
static inline uint16_t *act_chunks_at(const struct act_panel *x, int64_t tile, int64_t k0)
{
    return (uint16_t *)(void *)(x->data + (size_t)tile * x->tile_bytes) + k0 * NT;
}

/* What a register of BF16 stands for: its first 16 values, the others. */
INLINE __m512 floats_of(__m256i v) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16)); }
INLINE __m512 low_floats(__m512i v) { return floats_of(_mm512_castsi512_si256(v)); }
INLINE __m512 high_floats(__m512i v) { return floats_of(_mm512_extracti64x4_epi64(v, 1)); }
/* 16 values and 16 more become pairs. */
INLINE __m512i paired(__m512i v)
{
    return _mm512_permutexvar_epi16(_mm512_setr_epi32(0x100000, 0x110001, 0x120002, 0x130003, 0x140004, 0x150005, 0x160006, 0x170007, 0x180008, 0x190009,
                                                      0x1a000a, 0x1b000b, 0x1c000c, 0x1d000d, 0x1e000e, 0x1f000f), v);
}

/* 16 x 16 dwords change sides. */
INLINE void turn(__m512i x[16])
{
    __m512i t[16], u[16];
UNROLL
    for (int i = 0; i < 16; i += 2) t[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]), t[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
UNROLL
    for (int i = 0; i < 16; i += 4)
        for (int j = 0; j < 2; j++) {
            u[i + 2 * j] = _mm512_unpacklo_epi64(t[i + j], t[i + 2 + j]);
            u[i + 2 * j + 1] = _mm512_unpackhi_epi64(t[i + j], t[i + 2 + j]);
        }
UNROLL
    for (int c = 0; c < 4; c++) { /* u[4 i + c]: column c of each 128 bits, rows 4 i .. 4 i + 3 */
        __m512i a = _mm512_shuffle_i32x4(u[c], u[c + 4], 0x88), b = _mm512_shuffle_i32x4(u[c + 8], u[c + 12], 0x88);
        __m512i d = _mm512_shuffle_i32x4(u[c], u[c + 4], 0xdd), e = _mm512_shuffle_i32x4(u[c + 8], u[c + 12], 0xdd);
        x[c] = _mm512_shuffle_i32x4(a, b, 0x88);
        x[c + 4] = _mm512_shuffle_i32x4(d, e, 0x88);
        x[c + 8] = _mm512_shuffle_i32x4(a, b, 0xdd);
        x[c + 12] = _mm512_shuffle_i32x4(d, e, 0xdd);
    }
}

/* From the first part of a tile of ACT_15 to the second; from that of a panel of nk columns. */
static inline int64_t act_part(const struct act_panel *x) { return (int64_t)(x->tile_bytes / 2 / sizeof(uint16_t)); }
static inline int64_t panel_part(int64_t nk) { return nk * PANEL_ROWS; }

enum { LINE = 64 }; /* bytes of a row of a register */

/* Registers of 16 rows of 64 bytes. */
struct shapes { uint8_t palette, start, reserved[14]; uint16_t bytes[16]; uint8_t rows[16]; };
static const _Alignas(64) struct shapes whole_registers = {
    .palette = 1, .bytes = { LINE, LINE, LINE, LINE, LINE, LINE, LINE, LINE }, .rows = { 16, 16, 16, 16, 16, 16, 16, 16 },
};

/* Before registers are filled from memory that was written just now: gcc's intrinsics of AMX do not say that they read it (12.2), nor how much is written. */
INLINE void memory_is_read(void) { __asm__ volatile("" ::: "memory"); }

/* A thread's registers keep their shapes from call to call: to see that they have them takes 14 ns, to give them 90, as long as 12 products. */
INLINE void shape_registers(void)
{
    _Alignas(64) uint8_t now[sizeof whole_registers];
    _tile_storeconfig(now);
    __asm__ volatile("" : "+m"(now));
    if (_mm512_cmpeq_epi64_mask(load512(now), load512(&whole_registers)) != 0xff) _tile_loadconfig(&whole_registers);
}

/* Registers 0 to 3 hold sums. */
INLINE void zero_sums(void)
{
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}
