/* cpu: the machine as described by a made-up /proc and /sys, the table of ISA levels, and sanity of the real machine. */
#include "ggml-like/cpu.h"
#include "ggml-like/kernels/kernels.h"
#include "tests/test.h"
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- a made-up root folder ---- */

static void root_path(char out[600], const char *root, const char *path) { snprintf(out, 600, "%s%s", root, path); }

/* Writes root/path and all folders above it. */
static void put(const char *root, const char *path, const char *text)
{
    char full[600];
    root_path(full, root, path);
    for (char *p = full + strlen(root) + 1; (p = strchr(p, '/')); *p++ = '/') {
        *p = 0;
        mkdir(full, 0777);
    }
    FILE *f = fopen(full, "w");
    CHECK(f && fputs(text, f) >= 0);
    if (f) fclose(f);
}

static const char *const files[] = {
    "/proc/cpuinfo", "/proc/meminfo", "/proc/self/cgroup",
    "/sys/fs/cgroup/cpu.max", "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/a/cpu.max", "/sys/fs/cgroup/a/memory.max", "/sys/fs/cgroup/a/memory.current", "/sys/fs/cgroup/a/memory.stat",
    "/sys/fs/cgroup/a/b/cpu.max", "/sys/fs/cgroup/a/b/memory.max",
    "/sys/fs/cgroup/cpu/box/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu/box/cpu.cfs_period_us",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes",
    "/sys/fs/cgroup/memory/box/memory.limit_in_bytes", "/sys/fs/cgroup/memory/box/memory.usage_in_bytes",
    "/sys/fs/cgroup/memory/box/memory.stat",
};

/* An empty made-up root: leftovers of the previous claim are removed. */
static const char *fresh_root(void)
{
    const char *root = test_tmp("root");
    mkdir(root, 0777);
    char full[600];
    for (int i = 0; i < ARRAY_LEN(files); i++) {
        root_path(full, root, files[i]);
        unlink(full);
    }
    for (int i = 0; i < 8192; i++) {
        char path[100];
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", i);
        root_path(full, root, path);
        if (unlink(full) != 0) break;
    }
    return root;
}

static void put_memory(const char *root)
{
    put(root, "/proc/meminfo", "MemTotal:  8000000 kB\nMemFree: 1 kB\nMemAvailable:   6000000 kB\n");
}

/* ---- claims ---- */

TEST(cpu_without_information_has_safe_defaults)
{
    struct cpu_info c;
    cpu_detect_at(&c, fresh_root());
    CHECK_STR(c.model, "unknown");
    CHECK(c.quota == 0 && c.ram_total == 0 && c.ram_available == 0);
    CHECK(c.n_logical >= 1 && c.n_physical == c.n_logical); /* no topology: every processor its own core */
    CHECK(c.n_threads_default == min_i64(c.n_physical, 512));
    CHECK_HAS(c.why, c.n_physical == 1 ? "1 physical core" : "physical cores");
    char path[1100];
    memset(path, 'p', sizeof path - 1);
    path[sizeof path - 1] = 0;
    cpu_detect_at(&c, path); /* longer than any path buffer */
    CHECK_STR(c.model, "unknown");
}

TEST(cpu_reads_model_and_memory)
{
    const char *root = fresh_root();
    put(root, "/proc/cpuinfo", "processor\t: 0\nmodel\t\t: 79\nmodel name\t: Some CPU @ 2.00GHz\nprocessor\t: 1\nmodel name\t: Other\n");
    put_memory(root);
    struct cpu_info c;
    cpu_detect_at(&c, root);
    CHECK_STR(c.model, "Some CPU @ 2.00GHz");
    CHECK(c.ram_total == 8000000ull * 1024 && c.ram_available == 6000000ull * 1024);
    put(root, "/proc/cpuinfo", "processor\t: 0\nBogoMIPS\t: 48\n\nModel\t\t: Raspberry Pi 5\n");
    cpu_detect_at(&c, root);
    CHECK_STR(c.model, "Raspberry Pi 5");
    put(root, "/proc/cpuinfo", "model name\t: 0123456789012345678901234567890123456789012345678901234567890123456789\n");
    cpu_detect_at(&c, root);
    CHECK(strlen(c.model) == sizeof c.model - 1);
}

TEST(cpu_counts_distinct_cores)
{
    const char *root = fresh_root();
    struct cpu_info c;
    cpu_detect_at(&c, root);
    int n = c.n_logical;
    cpu_set_t set[8];
    CHECK(sched_getaffinity(0, sizeof set, set) == 0);
    for (int i = 0, k = 0; i < 8192; i++) { /* the allowed processors are siblings two by two, in both ways the kernel writes a list */
        if (!CPU_ISSET_S((size_t)i, sizeof set, set)) continue;
        char path[100], list[40];
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", i);
        snprintf(list, sizeof list, k % 4 < 2 ? "%d,%d\n" : "%d-%d\n", k / 2, k / 2 + 100);
        put(root, path, list);
        k++;
    }
    cpu_detect_at(&c, root);
    CHECK_MSG(c.n_logical == n && c.n_physical == (n + 1) / 2, "%d logical, %d physical", c.n_logical, c.n_physical);
}

TEST(cpu_obeys_the_tightest_group_of_version_2)
{
    const char *root = fresh_root();
    struct cpu_info c;
    put_memory(root);
    put(root, "/proc/self/cgroup", "0::/a/b\n");
    put(root, "/sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
    put(root, "/sys/fs/cgroup/a/cpu.max", "50000 100000\n");
    put(root, "/sys/fs/cgroup/cpu.max", "300000 100000\n");
    put(root, "/sys/fs/cgroup/a/b/memory.max", "max\n");
    put(root, "/sys/fs/cgroup/a/memory.max", "1000000000\n");
    put(root, "/sys/fs/cgroup/a/memory.current", "700000000\n");
    put(root, "/sys/fs/cgroup/a/memory.stat", "anon 1\nfile 9\ninactive_file 250000000\nactive_file 50000000\n");
    put(root, "/sys/fs/cgroup/memory.max", "2000000000\n");
    cpu_detect_at(&c, root);
    CHECK(c.quota == 0.5 && c.n_threads_default == 1);
    CHECK(c.ram_total == 1000000000);
    CHECK(c.ram_available == 600000000); /* file pages can be dropped */
    if (c.n_physical > 1) CHECK_STR(c.why, "cgroup quota 0.5");

    put(root, "/proc/self/cgroup", "0::/belongs/to/the/host\n"); /* only the mounted root exists here */
    cpu_detect_at(&c, root);
    CHECK(c.quota == 3.0 && c.ram_total == 2000000000);
    put(root, "/proc/self/cgroup", "0::/\n");
    cpu_detect_at(&c, root);
    CHECK(c.quota == 3.0 && c.ram_total == 2000000000);
}

TEST(cpu_obeys_groups_of_version_1)
{
    const char *root = fresh_root();
    struct cpu_info c;
    put_memory(root);
    put(root, "/proc/self/cgroup", "9:name=systemd:/box\n4:memory:/box\n3:cpu,cpuacct:/box\n0::/\n");
    put(root, "/sys/fs/cgroup/cpu/box/cpu.cfs_quota_us", "150000\n");
    put(root, "/sys/fs/cgroup/cpu/box/cpu.cfs_period_us", "100000\n");
    put(root, "/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"); /* how version 1 says none */
    put(root, "/sys/fs/cgroup/memory/memory.usage_in_bytes", "5\n");
    put(root, "/sys/fs/cgroup/memory/box/memory.limit_in_bytes", "3000000000\n");
    put(root, "/sys/fs/cgroup/memory/box/memory.usage_in_bytes", "1000000000\n");
    put(root, "/sys/fs/cgroup/memory/box/memory.stat", "total_inactive_file 100000000\ntotal_active_file 100000000\n");
    cpu_detect_at(&c, root);
    CHECK(c.quota == 1.5 && c.ram_total == 3000000000u && c.ram_available == 2200000000u);
    CHECK(c.n_threads_default == min_i64(2, c.n_physical)); /* 1.5 rounds up */
    put(root, "/sys/fs/cgroup/cpu/box/cpu.cfs_quota_us", "-1\n");
    cpu_detect_at(&c, root);
    CHECK(c.quota == 0);
}

TEST(cpu_survives_garbage_in_proc)
{
    static const char *const garbage[] = {
        "", ":", "::", ":::", "0:", "0::", "0::a/b", "\n\n", "1:cpu", "1:cpu,:", "1:,memory,:/..//", "cpu:memory:cpu",
        "MemTotal:", "model name", "max", "9999999999999999999999999 0", "0::////",
    };
    const char *root = fresh_root();
    for (int i = 0; i < ARRAY_LEN(garbage); i++) {
        put(root, "/proc/self/cgroup", garbage[i]);
        put(root, "/proc/cpuinfo", garbage[i]);
        put(root, "/proc/meminfo", garbage[i]);
        put(root, "/sys/fs/cgroup/cpu.max", garbage[i]);
        put(root, "/sys/fs/cgroup/memory.max", garbage[i]);
        struct cpu_info c;
        cpu_detect_at(&c, root);
        CHECK_MSG(c.n_threads_default >= 1 && c.n_physical >= 1 && memchr(c.model, 0, sizeof c.model), "garbage %d", i);
        CHECK_MSG(c.quota == 0, "garbage %d: quota %g", i, c.quota);
    }
    fresh_root();
}

TEST(cpu_describes_this_machine)
{
    struct cpu_info c;
    cpu_detect(&c);
    CHECK(c.n_physical >= 1 && c.n_physical <= c.n_logical);
    CHECK(c.n_threads_default >= 1 && c.n_threads_default <= c.n_physical);
    CHECK(c.page_size >= 4096 && (c.page_size & (c.page_size - 1)) == 0);
    CHECK(c.ram_available <= c.ram_total);
    CHECK(c.model[0] != 0 && c.why[0] != 0);
    CHECK(access("/proc/meminfo", R_OK) != 0 || c.ram_total > 0);
}

static int set_signal_stack(void *at, size_t bytes)
{
    stack_t stack = { .ss_sp = at, .ss_size = bytes, .ss_flags = at ? 0 : SS_DISABLE };
    return sigaltstack(&stack, NULL);
}

struct waiting { pthread_mutex_t until; const struct kernels *k; float y[PANEL_ROWS]; };

/* Ones times ones. */
static void *multiply_later(void *arg)
{
    enum { COLS = 64 };
    struct waiting *w = arg;
    float ones[COLS];
    for (int i = 0; i < COLS; i++) ones[i] = 1;
    pthread_mutex_lock(&w->until);
    pthread_mutex_unlock(&w->until);
    const struct dtype *t = dtype_by_id(GGUF_Q8_0);
    uint8_t weights[COLS / 32 * 34], *buf = aligned_alloc(64, panel_bytes(COLS) + act_panel_bytes(w->k, COLS, 1, ACT_8));
    if (!buf) abort();
    struct panel p;
    struct act_panel x;
    panel_place(&p, buf, COLS);
    act_panel_place(w->k, &x, buf + panel_bytes(COLS), COLS, 1, ACT_8);
    dtype_from_f32(t, ones, weights, COLS);
    kernels_panel(w->k, ACT_8)(w->k, &p, t, ACT_8, weights, sizeof weights, 1, 0, COLS);
    kernels_fill(w->k, ACT_8)(w->k, &x, 0, (const float *const[]){ ones }, 1);
    kernels_tile(w->k, ACT_8)(w->k, &p, &x, 0, 0, 1, w->y, PANEL_ROWS, false);
    free(buf);
    return NULL;
}

/* First in the suite: what AMX asks the system for stays granted. */
TEST(a_small_signal_stack_and_tiles_exclude_each_other)
{
    static uint8_t small[8192];
    struct cpu_info c;
    struct kernels k, below;
    stack_t before;
    CHECK(sigaltstack(NULL, &before) == 0);
    bool may = set_signal_stack(small, sizeof small) == 0;
    CHECK(set_signal_stack(NULL, 0) == 0);
    cpu_detect(&c);
    bool has = false; /* the CPU and this build */
    for (int i = 0; i < isa_count; i++) has = has || (!strcmp(isa_table[i].name, "amx") && (isa_table[i].need & ~c.features) == 0);
    kernels_init(&below, c.features & ~(uint64_t)CPU_AMX);
    CHECK(!may || set_signal_stack(small, sizeof small) == 0); /* neither the question nor the other levels forbid it */
    kernels_init(&k, c.features);
    if (may && has) CHECK_STR(k.name, below.name);
    CHECK(set_signal_stack(NULL, 0) == 0);
    struct waiting w = { .until = PTHREAD_MUTEX_INITIALIZER, .k = &k };
    pthread_t thread;
    pthread_mutex_lock(&w.until);
    if (pthread_create(&thread, NULL, multiply_later, &w)) abort();
    kernels_init(&k, c.features);
    if (has) CHECK_STR(k.name, "amx");
    pthread_mutex_unlock(&w.until);
    pthread_join(thread, NULL);
    CHECK_NEAR((double)w.y[0], 64.0, 0.5); /* by a thread that was there before */
    CHECK(sigaltstack(&before, NULL) == 0);
}

TEST(isa_table_is_ordered)
{
    CHECK(isa_count >= 1 && !strcmp(isa_table[0].name, "scalar") && isa_table[0].need == 0);
    uint64_t below = 0;
    for (int i = 1; i < isa_count; i++) {
        CHECK_MSG((isa_table[i].need & ~below) != 0, "%s needs nothing new", isa_table[i].name);
        below |= isa_table[i].need;
    }
}

TEST(isa_features_select_exactly_one_level)
{
    struct cpu_info c;
    cpu_detect(&c);
    for (int i = 0; i < isa_count; i++) {
        uint64_t f = 77;
        struct err e = { 0 };
        bool usable = (c.features & isa_table[i].need) == isa_table[i].need;
        CHECK(isa_features(isa_table[i].name, &c, &f, &e) == (usable ? OK : ERR_USAGE));
        if (!usable) continue;
        struct kernels k;
        kernels_init(&k, f);
        CHECK_STR(k.name, isa_table[i].name);
    }
    struct cpu_info bare = { 0 };
    uint64_t f = 77;
    CHECK(isa_features("scalar", &bare, &f, NULL) == OK && f == 0);
    for (int i = 1; i < isa_count; i++) {
        struct err e = { 0 };
        f = 77;
        CHECK(isa_features(isa_table[i].name, &bare, &f, &e) == ERR_USAGE && f == 77);
        CHECK_HAS(e.text, isa_table[i].name);
        CHECK_HAS(e.text, "lacks");
    }
}

/* A level is the same whatever levels beside it the CPU has: Ice Lake has AVX-512 VNNI and not AVX-VNNI. */
TEST(a_level_does_not_depend_on_what_it_does_not_need)
{
    struct cpu_info c;
    cpu_detect(&c);
    for (int i = 0; i < isa_count; i++) {
        if ((c.features & isa_table[i].need) != isa_table[i].need) continue;
        uint64_t others = 0;
        for (int j = 0; j < i; j++) others |= isa_table[j].need & c.features; /* of all levels above, those that it builds on and those that it does not */
        struct kernels own, all;
        memset(&own, 0, sizeof own), memset(&all, 0, sizeof all);
        kernels_init(&own, isa_table[i].need);
        kernels_init(&all, isa_table[i].need | others);
        CHECK_MSG(!memcmp(&own, &all, sizeof own), "%s", isa_table[i].name);
    }
}

TEST(isa_unknown_name_lists_the_known_ones)
{
    struct cpu_info c;
    cpu_detect(&c);
    uint64_t f;
    struct err e = { 0 };
    CHECK(isa_features("sse9", &c, &f, &e) == ERR_USAGE);
    CHECK_HAS(e.text, "sse9");
    for (int i = 0; i < isa_count; i++) CHECK_HAS(e.text, isa_table[i].name);
}

TEST(kernels_init_never_exceeds_the_mask_or_the_machine)
{
    struct cpu_info c;
    cpu_detect(&c);
    const char *best = "scalar";
    for (int i = 0; i < isa_count; i++)
        if ((c.features & isa_table[i].need) == isa_table[i].need) best = isa_table[i].name;
    struct kernels k;
    kernels_init(&k, UINT64_MAX);
    CHECK_STR(k.name, best);
    kernels_init(&k, 0);
    CHECK_STR(k.name, "scalar");
    CHECK(k.dot && k.attn && k.tile && k.tile_tokens > 0);
    for (int i = 0; i < isa_count; i++) /* one feature short of a level is below it */
        for (int b = 0; b < 64; b++) {
            if (!(isa_table[i].need >> b & 1)) continue;
            kernels_init(&k, c.features & ~(UINT64_C(1) << b));
            CHECK(strcmp(k.name, isa_table[i].name) != 0);
        }
}

SUITE(cpu, T(a_small_signal_stack_and_tiles_exclude_each_other), T(cpu_without_information_has_safe_defaults),
      T(cpu_reads_model_and_memory), T(cpu_counts_distinct_cores),
      T(cpu_obeys_the_tightest_group_of_version_2), T(cpu_obeys_groups_of_version_1), T(cpu_survives_garbage_in_proc),
      T(cpu_describes_this_machine), T(isa_table_is_ordered), T(isa_features_select_exactly_one_level),
      T(a_level_does_not_depend_on_what_it_does_not_need), T(isa_unknown_name_lists_the_known_ones), T(kernels_init_never_exceeds_the_mask_or_the_machine));
