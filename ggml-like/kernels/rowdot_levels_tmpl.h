/* rowdot_levels_tmpl - row-dots of the formats with 16 levels for each weight: the walk, for any vector width. The level's file has defined before:
 *   level_table          what looks levels up        level_table table_of(const int8_t levels[16])
 *   void add_levels(struct sums *, int g, const uint8_t *a, const uint8_t *b, level_table, const int16_t y[64], const float scale[2])
 *                        two groups, whose nibbles stand at a and at b; b may be NULL: only one
 *   float level_total(const struct sums *)            __m256 park8(float *s, __m256 scale, const float *dx), s [PARKED] floats */

static float rowdot_iq4_xs(const void *w, const struct act_row *x, int64_t k)
{
    struct sums sums = sums_zero();
    const struct block_iq4_xs *b = w, *end = b + k / CHUNK;
    const int16_t *y = x->y;
    level_table table = table_of(iq4_levels);
    for (int64_t i = 0; b < end; b++, i++, y += CHUNK) {
        _Alignas(64) float s[PARKED];
        prefetch((const uint8_t *)b, sizeof *b);
        park8(s, scales_iq4_xs(b), x->d + 8 * i);
#pragma GCC unroll 4
        for (int g = 0; g < 8; g += 2) add_levels(&sums, g, b->qs + 16 * g, b->qs + 16 * g + 16, table, y + 32 * g, s + g);
    }
    return level_total(&sums);
}

/* Blocks of 32: qs = where their codes start. */
INLINE float rowdot_levels(const uint8_t *w, const struct act_row *x, int64_t k, const int8_t levels[16], size_t bytes, size_t qs,
                           __m256 (*scales8_of)(const uint8_t *), float (*scale_of)(const uint8_t *))
{
    struct sums sums = sums_zero();
    const int16_t *y = x->y;
    const float *d = x->d;
    level_table table = table_of(levels);
    for (; k >= CHUNK; k -= CHUNK, w += 8 * bytes, y += CHUNK, d += 8) {
        _Alignas(64) float s[PARKED];
        prefetch(w, 8 * bytes);
        park8(s, scales8_of(w), d);
#pragma GCC unroll 4
        for (int g = 0; g < 8; g += 2) {
            const uint8_t *at = w + (size_t)g * bytes + qs;
            add_levels(&sums, g, at, at + bytes, table, y + 32 * g, s + g);
        }
    }
    for (; k > 0; k -= 32, w += bytes, y += 32, d++) {
        float scale = scale_of(w) * d[0];
        add_levels(&sums, (int)(k / 32), w + qs, NULL, table, y, &scale);
    }
    return level_total(&sums);
}

INLINE __m256 scales8_iq4_nl(const uint8_t *w) { return scales8(w, sizeof(struct block_iq4_nl)); }
INLINE float scale_iq4_nl(const uint8_t *w) { return half_to_float(((const struct block_iq4_nl *)w)->d); }

#define LEVELS(name, table)                                                                                                              \
    static float rowdot_##name(const void *w, const struct act_row *x, int64_t k)                                                        \
    {                                                                                                                                    \
        return rowdot_levels(w, x, k, table, sizeof(struct block_##name), offsetof(struct block_##name, qs), scales8_##name, scale_##name); \
    }
LEVELS(iq4_nl, iq4_levels)
LEVELS(mxfp4, e2m1_levels)
