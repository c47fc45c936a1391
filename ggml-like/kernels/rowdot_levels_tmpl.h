/* rowdot_levels_tmpl - row-dots of the formats with 16 levels for each weight: the walk, for any vector width. The level's file has defined before:
 *   level_table                       what looks levels up
 *   level_table table_of(const int8_t levels[16], int bias)      bias: -bias is the lowest level
 *   struct level_scales               scales of 8 groups of 32
 *   struct level_scales scales_of(struct sums *, __m256 scale, const float dx[8], const float sum32[8])
 *   level_pair                        the nibbles of two groups
 *   level_pair pair_of(const uint8_t *a, const uint8_t *b)       b may be NULL: only the first group counts
 *   void four_pairs(level_pair p[4], const uint8_t *qs)          of 8 groups without gaps
 *   void add_levels(struct sums *, int i, level_pair, level_table, const struct act_row *, int64_t at, const struct level_scales *)
 *                                     groups 2i and 2i + 1, with the activations from column `at` on
 *   float level_total(const struct sums *, int bias)
 * and names the formats after (LEVELS). */

static float rowdot_iq4_xs(const void *w, const struct act_row *x, int64_t k)
{
    enum { BIAS = 127 };
    struct sums sums = sums_zero();
    const struct block_iq4_xs *b = w;
    level_table table = table_of(iq4_levels, BIAS);
    for (int64_t at = 0; at < k; at += CHUNK, b++) {
        prefetch((const uint8_t *)b, sizeof *b);
        level_pair pairs[4];
        four_pairs(pairs, b->qs);
        struct level_scales s = scales_of(&sums, scales_iq4_xs(b), x->d + at / 32, x->sum32 + at / 32);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) add_levels(&sums, i, pairs[i], table, x, at + 64 * i, &s);
    }
    return level_total(&sums, BIAS);
}

/* What is the same for all blocks of 32 of a format; constants after inlining. */
struct level_format {
    const int8_t *levels;
    int bias;
    size_t bytes, qs; /* of a block; where its codes start */
    __m256 (*scales8)(const uint8_t *);
    float (*scale)(const uint8_t *);
};

INLINE float rowdot_levels(const uint8_t *w, const struct act_row *x, int64_t k, const struct level_format f)
{
    struct sums sums = sums_zero();
    level_table table = table_of(f.levels, f.bias);
    int64_t at = 0;
    for (; at + CHUNK <= k; at += CHUNK, w += 8 * f.bytes) {
        prefetch(w, 8 * f.bytes);
        struct level_scales s = scales_of(&sums, f.scales8(w), x->d + at / 32, x->sum32 + at / 32);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            const uint8_t *a = w + 2 * (size_t)i * f.bytes + f.qs;
            add_levels(&sums, i, pair_of(a, a + f.bytes), table, x, at + 64 * i, &s);
        }
    }
    if (at < k) {
        _Alignas(32) float scale[8] = { 0 }, dx[8] = { 0 }, sum32[8] = { 0 };
        int n = (int)(k - at) / 32;
        for (int i = 0; i < n; i++) scale[i] = f.scale(w + (size_t)i * f.bytes), dx[i] = x->d[at / 32 + i], sum32[i] = x->sum32[at / 32 + i];
        struct level_scales s = scales_of(&sums, _mm256_load_ps(scale), dx, sum32);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            const uint8_t *a = w + 2 * (size_t)i * f.bytes + f.qs;
            if (2 * i < n) add_levels(&sums, i, pair_of(a, 2 * i + 1 < n ? a + f.bytes : NULL), table, x, at + 64 * i, &s);
        }
    }
    return level_total(&sums, f.bias);
}

INLINE __m256 scales8_iq4_nl(const uint8_t *w) { return scales8(w, sizeof(struct block_iq4_nl)); }
INLINE float scale_iq4_nl(const uint8_t *w) { return half_to_float(((const struct block_iq4_nl *)w)->d); }

#define LEVELS(name, ...)                                                                                                                \
    static float rowdot_##name(const void *w, const struct act_row *x, int64_t k)                                                        \
    {                                                                                                                                    \
        return rowdot_levels(w, x, k, (struct level_format){ .bytes = sizeof(struct block_##name), .qs = offsetof(struct block_##name, qs), \
                                                             .scales8 = scales8_##name, .scale = scale_##name, __VA_ARGS__ });           \
    }
