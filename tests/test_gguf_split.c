/* test_gguf_split - models that are split over files. Parts are made with the writer; what a writer would not make is patched into them. */
#include <unistd.h>
#include "ggml-like/gguf.h"
#include "tests/test.h"

enum { PARTS = 3, PER_PART = 2 };

/* What one part says; a part is right when these are the defaults. */
struct part { int64_t no, count, tensors; const char *arch, *twin; uint32_t version; };

static const char *part_name(int no, int count)
{
    char name[64];
    snprintf(name, sizeof name, "split-%05d-of-%05d.gguf", no + 1, count);
    return test_tmp(name);
}

static void patch_version(const char *path, uint32_t version)
{
    FILE *f = fopen(path, "r+b");
    CHECK(f && fseek(f, 4, SEEK_SET) == 0 && fwrite(&version, 4, 1, f) == 1);
    if (f) fclose(f);
}

/* Tensor i of part no holds the number 100 * no + i, 8 times. */
static void write_part(const char *path, int no, const struct part *p)
{
    struct gguf_writer *w;
    struct err e = { 0 };
    float data[PER_PART][8];
    char name[64];
    CHECK_MSG(gguf_writer_open(&w, path, &e) == OK, "%s", e.text);
    if (no == 0) gguf_put_str(w, "general.name", "split", 5);
    if (p->arch) gguf_put_str(w, "general.architecture", p->arch, strlen(p->arch));
    gguf_put_i64(w, "split.no", KV_U16, p->no);
    gguf_put_i64(w, "split.count", KV_U16, p->count);
    if (p->tensors >= 0) gguf_put_i64(w, "split.tensors.count", KV_I32, p->tensors);
    for (int i = 0; i < PER_PART; i++) {
        struct tensor t;
        tensor_shape(&t, dtype_by_id(GGUF_F32), 8, 1, 1, 1);
        snprintf(name, sizeof name, "%c.%d.weight", 'c' - no, i); /* order by name is not that of the parts */
        t.name = i == 0 && p->twin ? p->twin : name;
        for (int k = 0; k < 8; k++) data[i][k] = (float)(100 * no + i);
        t.data = data[i];
        gguf_put_tensor(w, &t);
    }
    CHECK_MSG(gguf_writer_finish(w, &e) == OK, "%s", e.text);
    if (p->version) patch_version(path, p->version);
}

static struct part right(int no) { return (struct part){ .no = no, .count = PARTS, .tensors = PARTS * PER_PART, .arch = no ? NULL : "llama" }; }

static void write_all(uint32_t version)
{
    for (int no = 0; no < PARTS; no++) {
        struct part p = right(no);
        p.version = version;
        write_part(part_name(no, PARTS), no, &p);
    }
}

/* One part is wrong: opening the first is refused with both texts. */
static void refuse(int no, struct part p, const char *text, const char *text2)
{
    struct gguf g;
    struct err e = { 0 };
    write_all(0);
    write_part(part_name(no, PARTS), no, &p);
    CHECK_MSG(gguf_open(&g, part_name(0, PARTS), true, &e) == ERR_FORMAT, "%s: opened", text);
    CHECK_HAS(e.text, text);
    CHECK_HAS(e.text, text2);
    CHECK(g.kv == NULL && g.n_more == 0 && g.file.data == NULL);
}

TEST(gguf_opens_all_parts_of_a_split_model)
{
    for (int round = 0; round < 4; round++) {
        struct gguf g;
        struct err e = { 0 };
        struct str name = { 0 };
        write_all(round & 1 ? 2 : 3);
        CHECK_MSG(gguf_open(&g, part_name(0, PARTS), round & 2, &e) == OK, "%s", e.text);
        CHECK(g.n_more == PARTS - 1 && g.n_tensors == PARTS * PER_PART && gguf_get_str(&g, "general.name", &name, NULL));
        size_t bytes = g.file.size;
        for (int i = 0; i < g.n_more; i++) bytes += g.more[i].size;
        CHECK(gguf_bytes(&g) == bytes);
        for (int no = 0; no < PARTS; no++)
            for (int i = 0; i < PER_PART; i++) {
                char want[64];
                snprintf(want, sizeof want, "%c.%d.weight", 'c' - no, i);
                const struct tensor *t = gguf_tensor(&g, want);
                CHECK(t && t == &g.tensor[no * PER_PART + i]);
                if (!t) continue;
                const struct file *f = gguf_file_of(&g, t), *at = no ? &g.more[no - 1] : &g.file;
                CHECK(((const float *)t->data)[7] == (float)(100 * no + i) && f == at);
            }
        gguf_close(&g);
    }
}

TEST(gguf_names_the_part_that_is_missing)
{
    struct gguf g;
    struct err e = { 0 };
    write_all(0);
    unlink(part_name(1, PARTS));
    CHECK(gguf_open(&g, part_name(0, PARTS), true, &e) == ERR_FILE);
    CHECK_HAS(e.text, "split-00002-of-00003.gguf");
    CHECK(g.n_more == 0 && g.file.data == NULL);
}

TEST(gguf_names_the_first_part_when_given_another)
{
    struct gguf g;
    struct err e = { 0 };
    write_all(0);
    CHECK(gguf_open(&g, part_name(2, PARTS), true, &e) == ERR_FORMAT);
    CHECK_HAS(e.text, "part 3 of 3");
    CHECK_HAS(e.text, "open the first part: split-00001-of-00003.gguf");
}

TEST(gguf_refuses_a_part_under_a_name_without_number)
{
    struct gguf g;
    struct err e = { 0 };
    struct part p = right(0);
    write_part(test_tmp("model.gguf"), 0, &p);
    CHECK(gguf_open(&g, test_tmp("model.gguf"), true, &e) == ERR_FORMAT);
    CHECK_HAS(e.text, "does not end in -00001-of-00003.gguf");
}

TEST(gguf_refuses_parts_that_do_not_belong_together)
{
    struct part p;
    p = right(1), p.no = 2, refuse(1, p, "00002-of-00003.gguf: split.no is 2, expected 1", "");
    p = right(2), p.count = 4, refuse(2, p, "split.count is 4", "that of the first part 3");
    p = right(1), p.count = 1, refuse(1, p, "split.count is 1", "that of the first part 3");
    p = right(1), p.tensors = 7, refuse(1, p, "split.tensors.count is 7", "that of the first part 6");
    p = right(1), p.arch = "qwen2", refuse(1, p, "general.architecture is 'qwen2'", "'llama'");
    p = right(1), p.version = 2, refuse(1, p, "GGUF version is 2", "that of the first part 3");
    p = right(2), p.twin = "c.0.weight", refuse(2, p, "'c.0.weight'", "stands in two parts");
    p = right(0), p.no = 3, refuse(0, p, "split.no is 3", "split.count is 3");
    p = right(0), p.count = 1000, refuse(0, p, "split.count is 1000", "allowed are 0 to 999");
}

TEST(gguf_counts_the_tensors_of_all_parts)
{
    struct gguf g;
    struct err e = { 0 };
    for (int no = 0; no < PARTS; no++) {
        struct part p = right(no);
        p.tensors = PARTS * PER_PART + 1;
        write_part(part_name(no, PARTS), no, &p);
    }
    CHECK(gguf_open(&g, part_name(0, PARTS), true, &e) == ERR_FORMAT);
    CHECK_HAS(e.text, "split.tensors.count is 7, but the 3 parts hold 6");
}

TEST(gguf_refuses_a_part_cut_anywhere)
{
    const char *path = part_name(1, PARTS);
    char cut[256];
    uint8_t bytes[4096];
    write_all(0);
    snprintf(cut, sizeof cut, "%s", path);
    FILE *f = fopen(cut, "rb");
    size_t n = f ? fread(bytes, 1, sizeof bytes, f) : 0;
    if (f) fclose(f);
    CHECK(n > 100 && n < sizeof bytes);
    for (size_t len = 0; len < n; len += len < n - 40 ? 7 : 1) {
        struct gguf g;
        struct err e = { 0 };
        f = fopen(cut, "wb");
        CHECK(f && fwrite(bytes, 1, len, f) == len);
        if (f) fclose(f);
        status st = gguf_open(&g, part_name(0, PARTS), true, &e);
        CHECK_MSG(st == ERR_FORMAT && strstr(e.text, "split-00002-of"), "%zu of %zu bytes: %d %s", len, n, st, e.text);
        if (st == OK) gguf_close(&g);
    }
}

TEST(gguf_split_survives_every_allocation_failure)
{
    write_all(0);
    for (int64_t n = 1;; n++) {
        struct gguf g;
        struct err e = { 0 };
        mem_fail_at(n, true);
        status st = gguf_open(&g, part_name(0, PARTS), false, &e);
        mem_fail_at(0, false);
        if (st == OK) {
            CHECK(n > 5 && g.n_tensors == PARTS * PER_PART);
            gguf_close(&g);
            return;
        }
        CHECK(st == ERR_MEMORY && e.text[0]);
        CHECK(n < 1000);
        if (n >= 1000) return;
    }
}

SUITE(gguf_split, T(gguf_opens_all_parts_of_a_split_model), T(gguf_names_the_part_that_is_missing),
      T(gguf_names_the_first_part_when_given_another), T(gguf_refuses_a_part_under_a_name_without_number),
      T(gguf_refuses_parts_that_do_not_belong_together), T(gguf_counts_the_tensors_of_all_parts), T(gguf_refuses_a_part_cut_anywhere),
      T(gguf_split_survives_every_allocation_failure));
