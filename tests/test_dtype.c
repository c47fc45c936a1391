/* dtype, formats/, tensor: the claims walk dtypes[], so a new format is tested by its row (and by golden lines, if it has any).
 * golden/formats.txt is explained in golden/formats.py. */
#include "ggml-like/file.h"
#include "ggml-like/tensor.h"
#include "tests/test.h"
#include <ctype.h>

enum { GOLDEN_BLOCKS = 64 };

static uint32_t bits_of(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static uint64_t fnv(uint64_t h, const void *p, size_t n)
{
    const uint8_t *b = p;
    for (size_t i = 0; i < n; i++) h = (h ^ b[i]) * 1099511628211u;
    return h;
}
static const uint64_t FNV_START = 14695981039346656037u;

static void random_bytes(uint64_t seed, uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i += 8) {
        uint64_t v = test_rand(&seed);
        memcpy(p + i, &v, n - i < 8 ? n - i : 8);
    }
}

/* ---- golden lines ---- */

/* "offset=hexbytes,offset=hexbytes" over every block */
static void apply_patches(const char *text, uint8_t *blocks, int count, int block_bytes)
{
    while (*text && *text != '-') {
        char *end;
        long at = strtol(text, &end, 10);
        for (text = end + 1; isxdigit((unsigned char)text[0]); text += 2, at++) {
            unsigned byte = 0;
            sscanf(text, "%2x", &byte);
            for (int b = 0; b < count; b++) blocks[b * block_bytes + at] = (uint8_t)byte;
        }
        if (*text == ',') text++;
    }
}

static void check_dequant_line(const char *line)
{
    char type[16], patches[300];
    unsigned long long seed, hash;
    int count, used;
    if (sscanf(line, "dequant %15s %llu %d %299s %llx%n", type, &seed, &count, patches, &hash, &used) != 5 || count > GOLDEN_BLOCKS) {
        test_fail(__FILE__, __LINE__, "bad golden line: %.60s", line);
        return;
    }
    const struct dtype *t = dtype_by_name(type);
    CHECK(t != NULL);
    if (!t) return;
    static uint8_t blocks[GOLDEN_BLOCKS * 512];
    static float w[GOLDEN_BLOCKS * BLOCK_MAX];
    random_bytes(seed, blocks, (size_t)count * (size_t)t->block_bytes);
    apply_patches(patches, blocks, count, t->block_bytes);
    int64_t n = (int64_t)count * t->block_len;
    dtype_to_f32(t, blocks, w, n);

    const char *rest = line + used;
    for (int i = 0; i < 8; i++) {
        unsigned want = 0;
        int len = 0;
        sscanf(rest, " %8x%n", &want, &len);
        rest += len;
        float v = w[i * t->block_len / 8];
        uint32_t got = isnan(v) ? 0x7fc00000 : bits_of(v);
        CHECK_MSG(got == want, "%s seed %llu patches %s: weight %d is %08x, expected %08x", type, seed, patches, i * t->block_len / 8,
                  got, want);
    }
    uint64_t h = FNV_START;
    for (int64_t i = 0; i < n; i++) {
        uint32_t u = isnan(w[i]) ? 0x7fc00000 : bits_of(w[i]);
        h = fnv(h, &u, sizeof u);
    }
    CHECK_MSG(h == hash, "%s seed %llu patches %s: hash of all weights is %016llx, expected %016llx", type, seed, patches,
              (unsigned long long)h, hash);
}

static void check_pack_line(const char *line)
{
    char type[16], first[20];
    unsigned long long seed, hash;
    int count, shift;
    if (sscanf(line, "pack %15s %llu %d %d %llx %16s", type, &seed, &count, &shift, &hash, first) != 6 || count > GOLDEN_BLOCKS) {
        test_fail(__FILE__, __LINE__, "bad golden line: %.60s", line);
        return;
    }
    const struct dtype *t = dtype_by_name(type);
    CHECK(t && t->pack);
    if (!t || !t->pack) return;
    static float x[GOLDEN_BLOCKS * 32];
    static uint8_t packed[GOLDEN_BLOCKS * 64];
    int64_t n = (int64_t)count * 32;
    uint64_t s = seed;
    for (int64_t i = 0; i < n; i++) x[i] = ldexpf(test_randf(&s), shift);
    dtype_from_f32(t, x, packed, n);
    char got[20];
    for (int i = 0; i < 8; i++) snprintf(got + 2 * i, 3, "%02x", packed[i]);
    CHECK_MSG(!strcmp(got, first), "%s seed %llu shift %d: first bytes are %s, expected %s", type, seed, shift, got, first);
    uint64_t h = fnv(FNV_START, packed, dtype_row_bytes(t, n));
    CHECK_MSG(h == hash, "%s seed %llu shift %d: hash of the packed bytes is %016llx, expected %016llx", type, seed, shift,
              (unsigned long long)h, hash);
}

/* One claim for each kind and type of line. */
TEST(formats_equal_the_reference_decoder_and_packer)
{
    char *text;
    size_t n;
    struct err e = { 0 };
    if (file_text("tests/golden/formats.txt", 1 << 20, &text, &n, &e) != OK) {
        test_fail(__FILE__, __LINE__, "%s", e.text);
        return;
    }
    int lines = 0;
    char before[32] = "";
    for (char *line = text, *end; (end = strchr(line, '\n')); line = end + 1, lines++) {
        *end = 0;
        char kind[8], type[16];
        sscanf(line, "%7s %15s", kind, type);
        char now[32];
        snprintf(now, sizeof now, "%s_%s", kind, type);
        if (strcmp(now, before)) test_begin("%s_equals_reference", now);
        memcpy(before, now, sizeof now);
        if (!strcmp(kind, "pack")) check_pack_line(line);
        else check_dequant_line(line);
    }
    CHECK(lines > 300);
    mem_free(text);
}

/* ---- rows ---- */

TEST(dtype_rows_are_consistent)
{
    for (int i = 0; i < dtype_count; i++) {
        const struct dtype *t = dtypes[i];
        CHECK_MSG(t->gguf_id >= 0 && t->gguf_id < DTYPE_IDS, "%s: id %d", t->name, t->gguf_id);
        CHECK_MSG(dtype_by_id(t->gguf_id) == t && dtype_by_name(t->name) == t && dtype_by_name(t->gguf_name) == t, "%s: look-up", t->name);
        CHECK_STR(dtype_id_text(t->gguf_id), t->gguf_name);
        CHECK_MSG(!strcasecmp(t->name, t->gguf_name), "%s is not %s in lower case", t->name, t->gguf_name);
        CHECK_MSG((t->unpack != NULL) != (t->to_f32 != NULL), "%s: exactly one of unpack and to_f32", t->name);
        if (!t->unpack) {
            CHECK_MSG(t->block_len == 1 && t->group_len == 0 && !t->has_min, "%s: float row", t->name);
            continue;
        }
        CHECK_MSG(t->block_len <= BLOCK_MAX && (t->group_len == 16 || t->group_len == 32) && t->block_len % t->group_len == 0,
                  "%s: block %d, group %d", t->name, t->block_len, t->group_len);
        CHECK_MSG(t->code_max >= 1 && t->code_max <= 128, "%s: code_max %d", t->name, t->code_max);
        CHECK_MSG(t->join && t->split, "%s: join and split", t->name);
    }
    CHECK(dtype_by_name("q9_9") == NULL && dtype_by_id(-1) == NULL && dtype_by_id(INT64_MAX) == NULL);
}

TEST(dtype_names_ids_without_a_row)
{
    CHECK_HAS(dtype_id_text(4), "removed type Q4_2");
    CHECK_HAS(dtype_id_text(33), "removed type Q4_0_8_8");
    CHECK_HAS(dtype_id_text(38), "removed");
    CHECK_HAS(dtype_id_text(144), "IQ4_KS (made by ik_llama.cpp)");
    CHECK_HAS(dtype_id_text(202), "ik_llama.cpp");
    CHECK_HAS(dtype_id_text(200), "unknown");
    CHECK_HAS(dtype_id_text(-1), "unknown");
    CHECK_HAS(dtype_id_text(INT64_MIN), "unknown");
    for (int id = 0; id <= 42; id++)
        CHECK_MSG(!strstr(dtype_id_text(id), "unknown"), "id %d of ggml.h has no name", id);
}

TEST(unpacked_codes_keep_their_declared_range)
{
    for (int i = 0; i < dtype_count; i++) {
        const struct dtype *t = dtypes[i];
        if (!t->unpack) continue;
        test_begin("unpacked_codes_keep_their_declared_range %s", t->name);
        int seen_max = 0;
        for (int round = 0; round < 300; round++) {
            uint8_t block[512];
            struct codes c;
            random_bytes((uint64_t)round * 77 + 5, block, (size_t)t->block_bytes);
            if (round < 2) memset(block, round ? 255 : 0, (size_t)t->block_bytes);
            memset(&c, 0x55, sizeof c);
            t->unpack(block, &c);
            for (int k = 0; k < t->block_len; k++)
                if (abs(c.code[k] - t->code_bias) > seen_max) seen_max = abs(c.code[k] - t->code_bias);
            for (int g = 0; g < t->block_len / t->group_len; g++)
                CHECK_MSG(t->has_min || bits_of(c.min[g]) == 0, "%s: min of group %d is %g", t->name, g, (double)c.min[g]);
        }
        CHECK_MSG(seen_max == t->code_max, "%s: largest |code - bias| is %d, declared %d", t->name, seen_max, t->code_max);
    }
}

/* the meaning that dtype.h promises: product rounded, then sum rounded */
TEST(to_f32_is_scale_times_code_plus_min)
{
    for (int i = 0; i < dtype_count; i++) {
        const struct dtype *t = dtypes[i];
        if (!t->unpack) continue;
        uint8_t block[512];
        struct codes c;
        float w[BLOCK_MAX];
        random_bytes(11, block, (size_t)t->block_bytes);
        t->unpack(block, &c);
        dtype_to_f32(t, block, w, t->block_len);
        for (int k = 0; k < t->block_len; k++) {
            volatile float product = c.scale[k / t->group_len] * (float)c.code[k];
            volatile float sum = t->has_min ? product + c.min[k / t->group_len] : product;
            CHECK_MSG(bits_of(sum) == bits_of(w[k]) || isnan(sum), "%s: weight %d", t->name, k);
        }
    }
}

TEST(blocks_are_read_and_written_at_any_address)
{
    for (int i = 0; i < dtype_count; i++) {
        const struct dtype *t = dtypes[i];
        static uint8_t a[4096 + 8], b[4096 + 8];
        static float x[2 * BLOCK_MAX], y[2 * BLOCK_MAX];
        int64_t n = 2 * (t->block_len > 1 ? t->block_len : 64);
        uint64_t s = 3;
        for (int64_t k = 0; k < n; k++) x[k] = test_randf(&s);
        size_t bytes = dtype_row_bytes(t, n);
        memset(a, 0xee, sizeof a);
        memset(b, 0xee, sizeof b);
        if (t->pack) {
            dtype_from_f32(t, x, a, n);
            dtype_from_f32(t, x, b + 3, n);
        } else {
            static uint8_t raw[4096];
            struct parts p;
            random_bytes(17, raw, bytes);
            for (int k = 0; k < 2; k++) {
                t->split(raw + k * t->block_bytes, &p);
                t->join(&p, a + k * t->block_bytes);
                t->join(&p, b + 3 + k * t->block_bytes);
            }
        }
        CHECK_MSG(!memcmp(a, b + 3, bytes), "%s: packing at an odd address", t->name);
        CHECK_MSG(a[bytes] == 0xee && b[2] == 0xee && b[3 + bytes] == 0xee, "%s: packing touches its neighbours", t->name);
        dtype_to_f32(t, a, x, n);
        dtype_to_f32(t, b + 3, y, n);
        for (int64_t k = 0; k < n; k++)
            CHECK_MSG(bits_of(x[k]) == bits_of(y[k]) || (isnan(x[k]) && isnan(y[k])), "%s: reading at an odd address", t->name);
    }
}

/* Formats with bytes that several spellings share: sums beside the codes, trits in the gaps of base 3. join writes one of them. */
static bool has_one_spelling(const struct dtype *t) { return t->gguf_id != GGUF_Q8_K && t->gguf_id != GGUF_TQ1_0; }

TEST(split_takes_apart_what_join_puts_together)
{
    for (int i = 0; i < dtype_count; i++) {
        const struct dtype *t = dtypes[i];
        if (!t->split) continue;
        test_begin("split_takes_apart_what_join_puts_together %s", t->name);
        for (int round = 0; round < 300; round++) {
            uint8_t raw[512], joined[512];
            struct parts p, q;
            struct codes a, b;
            random_bytes((uint64_t)round * 31 + 7, raw, (size_t)t->block_bytes);
            if (round < 2) memset(raw, round ? 255 : 0, (size_t)t->block_bytes);
            memset(&p, 0x55, sizeof p), memset(&q, 0x55, sizeof q);
            memset(joined, 0xee, sizeof joined);
            t->split(raw, &p);
            t->join(&p, joined);
            t->split(joined, &q);
            CHECK(!memcmp(&p, &q, sizeof p));
            CHECK(joined[t->block_bytes] == 0xee);
            if (has_one_spelling(t)) CHECK(!memcmp(raw, joined, (size_t)t->block_bytes));
            t->unpack(raw, &a), t->unpack(joined, &b);
            size_t groups = (size_t)(t->block_len / t->group_len) * sizeof(float);
            CHECK(!memcmp(a.code, b.code, (size_t)t->block_len) && !memcmp(a.scale, b.scale, groups) && !memcmp(a.min, b.min, groups));
        }
    }
}

TEST(integer_elements_round_to_even_and_saturate)
{
    static const struct { const char *name; float most; } rows[] = {
        { "i8", 127.0f }, { "i16", 32767.0f }, { "i32", 0x1p31f }, { "i64", 0x1p63f },
    };
    for (int i = 0; i < ARRAY_LEN(rows); i++) {
        const struct dtype *t = dtype_by_name(rows[i].name);
        float x[] = { 0.5f, 1.5f, -2.5f, 100.4f, INFINITY, -INFINITY, NAN, 1e30f }, y[8];
        float want[] = { 0, 2, -2, 100, rows[i].most, 0, 0, rows[i].most };
        uint8_t raw[64];
        want[5] = i < 2 ? -rows[i].most - 1.0f : -rows[i].most;
        dtype_from_f32(t, x, raw, 8);
        dtype_to_f32(t, raw, y, 8);
        for (int k = 0; k < 8; k++) CHECK_MSG(y[k] == want[k], "%s: %g comes back as %g", t->name, (double)x[k], (double)y[k]);
    }
}

TEST(pack_error_stays_below_the_step_of_the_format)
{
    for (int i = 0; i < dtype_count; i++) {
        const struct dtype *t = dtypes[i];
        if (!t->unpack || !t->pack) continue;
        int levels = t->has_min && t->code_bias == 0 ? t->code_max + 1 : 2 * t->code_max;
        for (int scale = -6; scale <= 6; scale += 3) {
            uint64_t s = 99;
            double err = 0, norm = 0;
            for (int round = 0; round < 50; round++) {
                float x[BLOCK_MAX], y[BLOCK_MAX];
                uint8_t block[512];
                for (int k = 0; k < t->block_len; k++) x[k] = ldexpf(test_randn(&s), scale);
                t->pack(x, block);
                dtype_to_f32(t, block, y, t->block_len);
                for (int k = 0; k < t->block_len; k++) err += pow((double)x[k] - (double)y[k], 2), norm += pow((double)x[k], 2);
            }
            double rel = sqrt(err / norm);
            CHECK_MSG(rel < 2.0 / levels, "%s at 2^%d: relative RMS error %g, expected below 2 / %d", t->name, scale, rel, levels);
            CHECK_MSG(rel > 0.3 / levels, "%s at 2^%d: relative RMS error %g is too good for %d levels", t->name, scale, rel, levels);
        }
    }
}

TEST(pack_gives_finite_weights_for_every_ordinary_input)
{
    static const float extremes[] = { 0.0f, -0.0f, 1e-45f, 1e-40f, -1e-38f, 1e-30f, -6e-8f, 6e-5f, 1.0f, -3.0f, 60000.0f, -60000.0f };
    for (int i = 0; i < dtype_count; i++) {
        const struct dtype *t = dtypes[i];
        if (!t->unpack || !t->pack) continue;
        for (int m = 0; m < ARRAY_LEN(extremes); m++)
            for (int pattern = 0; pattern < 3; pattern++) {
                float x[BLOCK_MAX], y[BLOCK_MAX], most = fabsf(extremes[m]);
                uint8_t block[512];
                for (int k = 0; k < t->block_len; k++) x[k] = extremes[m] * (pattern == 0 ? 1.0f : pattern == 1 ? (float)(k % 3 - 1) : 0.0f);
                if (pattern == 2) x[t->block_len - 3] = extremes[m];
                t->pack(x, block);
                dtype_to_f32(t, block, y, t->block_len);
                bool fine = true;
                for (int k = 0; k < t->block_len; k++) fine = fine && fabsf(y[k]) <= most * 1.1f + 1e-5f;
                CHECK_MSG(fine, "%s: %g in pattern %d comes back too large or not finite", t->name, (double)extremes[m], pattern);
            }
    }
}

/* garbage in: no undefined behaviour (the sanitizer build watches), nothing beyond the block */
TEST(pack_survives_infinities_and_nans)
{
    for (int i = 0; i < dtype_count; i++) {
        const struct dtype *t = dtypes[i];
        if (!t->pack) continue;
        for (int round = 0; round < 40; round++) {
            uint32_t bits[BLOCK_MAX];
            float x[BLOCK_MAX];
            uint8_t block[512];
            memset(block, 0xee, sizeof block);
            random_bytes((uint64_t)round + 1, (uint8_t *)bits, sizeof bits);
            for (int k = 0; k < BLOCK_MAX; k++) bits[k] |= round % 2 && k % 7 == 0 ? 0x7f800000 : 0;
            memcpy(x, bits, sizeof x);
            t->pack(x, block);
            CHECK_MSG(block[t->block_bytes] == 0xee, "%s", t->name);
        }
    }
}

/* ---- scalar conversions ---- */

TEST(f16_values_survive_the_round_trip)
{
    for (uint32_t h = 0; h < 65536; h++) {
        float f = f16_to_f32((uint16_t)h);
        bool nan = (h & 0x7fff) > 0x7c00;
        CHECK_MSG(isnan(f) == nan, "%04x", h);
        uint16_t back = f32_to_f16(f);
        if (nan) CHECK_MSG((back & 0x7fff) > 0x7c00 && (back & 0x8000) == (h & 0x8000), "NaN %04x comes back as %04x", h, back);
        else CHECK_MSG(back == h, "%04x comes back as %04x", h, back);
    }
    CHECK(f16_to_f32(0x3c00) == 1.0f && f16_to_f32(0xc000) == -2.0f && f16_to_f32(0x7bff) == 65504.0f && f16_to_f32(1) == 0x1p-24f);
    CHECK(f16_to_f32(0x7c00) == INFINITY && f16_to_f32(0xfc00) == -INFINITY && signbit(f16_to_f32(0x8000)));
}

TEST(f32_to_f16_rounds_to_nearest_even)
{
    for (uint32_t h = 0; h < 0x7c00; h++) { /* between each half and the next; the last next would be 65536, infinity */
        double lo = (double)f16_to_f32((uint16_t)h), hi = h == 0x7bff ? 65536.0 : (double)f16_to_f32((uint16_t)(h + 1));
        float mid = (float)((lo + hi) / 2); /* exact: one bit more than a half has */
        uint16_t even = (uint16_t)(h % 2 ? h + 1 : h);
        CHECK_MSG(f32_to_f16(mid) == even, "tie above %04x gives %04x", h, f32_to_f16(mid));
        CHECK_MSG(f32_to_f16(nextafterf(mid, 0.0f)) == h, "below the tie above %04x", h);
        CHECK_MSG(f32_to_f16(nextafterf(mid, INFINITY)) == h + 1, "above the tie above %04x", h);
        CHECK_MSG(f32_to_f16(-mid) == (even | 0x8000), "negative tie above %04x", h);
    }
    CHECK(f32_to_f16(INFINITY) == 0x7c00 && f32_to_f16(3e38f) == 0x7c00 && f32_to_f16(1e-45f) == 0 && f32_to_f16(-0.0f) == 0x8000);
}

TEST(bf16_rounds_to_nearest_even_and_keeps_nan)
{
    for (uint32_t h = 0; h < 65536; h++) {
        float f = bf16_to_f32((uint16_t)h);
        CHECK_MSG(bits_of(f) == h << 16, "%04x", h);
        uint16_t back = f32_to_bf16(f);
        CHECK_MSG(isnan(f) ? isnan(bf16_to_f32(back)) : back == h, "%04x comes back as %04x", h, back);
        if ((h & 0x7fff) >= 0x7f80) continue;
        uint32_t tie = h << 16 | 0x8000, below = tie - 1, above = tie + 1;
        float v[3];
        memcpy(&v[0], &below, 4), memcpy(&v[1], &tie, 4), memcpy(&v[2], &above, 4);
        CHECK_MSG(f32_to_bf16(v[0]) == h && f32_to_bf16(v[1]) == h + (h & 1) && f32_to_bf16(v[2]) == h + 1, "around %04x", h);
    }
    uint32_t small_payload = 0x7f800001; /* a NaN whose payload lies in the cut half must not become infinity */
    float nan;
    memcpy(&nan, &small_payload, 4);
    CHECK(isnan(bf16_to_f32(f32_to_bf16(nan))));
}

/* ---- tensor ---- */

TEST(tensor_shape_gives_sizes_and_strides)
{
    struct tensor t = { 0 };
    tensor_shape(&t, dtype_by_name("q4_k"), 512, 3, 2, 1);
    CHECK(t.nb[0] == 144 && t.nb[1] == 288 && t.nb[2] == 864 && t.nb[3] == 1728);
    CHECK(tensor_elements(&t) == 3072 && tensor_rows(&t) == 6 && tensor_bytes(&t) == 1728);
    tensor_shape(&t, dtype_by_name("f16"), 7, 1, 1, 1);
    CHECK(t.nb[0] == 2 && t.nb[1] == 14 && tensor_bytes(&t) == 14);
    int64_t large = (int64_t)1 << 32;
    tensor_shape(&t, dtype_by_name("f32"), large, 8, 1, 1);
    CHECK(tensor_elements(&t) == large * 8 && tensor_bytes(&t) == (size_t)large * 32);
}

TEST(tensor_shape_text_leaves_out_trailing_ones)
{
    struct tensor t = { 0 };
    char buf[64];
    const struct dtype *f32 = dtype_by_name("f32");
    tensor_shape(&t, f32, 576, 49152, 1, 1);
    CHECK_STR(tensor_shape_text(&t, buf), "[576, 49152]");
    tensor_shape(&t, f32, 5, 1, 1, 1);
    CHECK_STR(tensor_shape_text(&t, buf), "[5]");
    tensor_shape(&t, f32, 1, 1, 3, 1);
    CHECK_STR(tensor_shape_text(&t, buf), "[1, 1, 3]");
    t.ne[0] = t.ne[1] = t.ne[2] = t.ne[3] = INT64_MAX;
    CHECK(strlen(tensor_shape_text(&t, buf)) == 63);
}

SUITE(dtype, T(formats_equal_the_reference_decoder_and_packer), T(dtype_rows_are_consistent), T(dtype_names_ids_without_a_row),
      T(unpacked_codes_keep_their_declared_range), T(to_f32_is_scale_times_code_plus_min), T(blocks_are_read_and_written_at_any_address),
      T(split_takes_apart_what_join_puts_together), T(integer_elements_round_to_even_and_saturate),
      T(pack_error_stays_below_the_step_of_the_format), T(pack_gives_finite_weights_for_every_ordinary_input),
      T(pack_survives_infinities_and_nans), T(f16_values_survive_the_round_trip), T(f32_to_f16_rounds_to_nearest_even),
      T(bf16_rounds_to_nearest_even_and_keeps_nan), T(tensor_shape_gives_sizes_and_strides), T(tensor_shape_text_leaves_out_trailing_ones));
