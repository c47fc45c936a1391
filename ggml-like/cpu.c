/* cpu - asks the processor (cpuid, auxiliary vector) for instruction sets, and /proc and /sys for cores, limits and memory. Everything the
 * system does not say has a safe default: no features, every processor its own core, no limit. Cannot fail. */
#include "ggml-like/cpu.h"
#include "ggml-like/kernels/kernels.h"
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

enum {
    CPUS_MAX = 8192,   /* the largest NR_CPUS of Linux */
    THREADS_MAX = 512, /* what a pool takes */
    TEXT_MAX = 8192,   /* of a /proc or /sys file that is looked at: the wanted lines come early */
    PATH_CAP = 1024,
};

/* ---- instruction sets ---- */

#if defined(__x86_64__)
/* Which register files the OS saves on a context switch; without that an instruction set is unusable although the CPU has it. */
static uint32_t saved_state(void)
{
    uint32_t lo, hi;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return lo;
}

struct cpuid_bit {
    int leaf, subleaf, reg, bit;
    uint32_t state;
    uint64_t feature;
};
enum { EAX, EBX, ECX, EDX };
enum { STATE_AVX = 0x06 /* xmm, ymm */, STATE_AVX512 = 0xe6 /* and opmask, zmm */, STATE_AMX = 0x600e6 /* and tiles */ };
enum { CPUID_OSXSAVE = 1 << 27 };

/* A feature is present when every row that names it holds. Source: Intel SDM volume 2A, CPUID; volume 1, 13.3. */
static const struct cpuid_bit cpuid_bits[] = {
    { 1, 0, ECX, 28, STATE_AVX, CPU_AVX2 },          { 7, 0, EBX, 5, STATE_AVX, CPU_AVX2 },
    { 1, 0, ECX, 12, STATE_AVX, CPU_FMA },           { 1, 0, ECX, 29, STATE_AVX, CPU_F16C },
    { 7, 1, EAX, 4, STATE_AVX, CPU_AVX_VNNI },       { 7, 0, EBX, 16, STATE_AVX512, CPU_AVX512 },
    { 7, 0, EBX, 17, STATE_AVX512, CPU_AVX512 },     { 7, 0, EBX, 30, STATE_AVX512, CPU_AVX512 },
    { 7, 0, EBX, 31, STATE_AVX512, CPU_AVX512 },     { 7, 0, ECX, 11, STATE_AVX512, CPU_AVX512_VNNI },
    { 7, 1, EAX, 5, STATE_AVX512, CPU_AVX512_BF16 }, { 7, 0, ECX, 1, STATE_AVX512, CPU_AVX512_VBMI },
    { 7, 0, EDX, 22, STATE_AMX, CPU_AMX },           { 7, 0, EDX, 24, STATE_AMX, CPU_AMX },
};

/* The 8 KiB of tiles are saved for processes that ask, which cannot be taken back: signal stacks below 12 KiB are refused from then on. So whether they may
 * ask is one question, and asking, for all threads, another. Source: Linux, Documentation/arch/x86/xstate.rst. */
enum { ARCH_GET_XCOMP_SUPP = 0x1021, ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };

static bool saves_tiles(void)
{
#if defined(__linux__)
    uint64_t supported = 0;
    return syscall(SYS_arch_prctl, ARCH_GET_XCOMP_SUPP, &supported) == 0 && (supported >> XFEATURE_XTILEDATA & 1);
#else
    return false;
#endif
}

#if defined(CUANTO_EMULATE_AVX512) /* tests/simde.sh: these levels made of other instructions */
enum { EMULATED = CPU_AVX_VNNI | CPU_AVX512 | CPU_AVX512_VNNI | CPU_AVX512_VBMI | CPU_AVX512_BF16 | CPU_AMX };
#else
enum { EMULATED = 0 };
#endif

static uint64_t detect_features(void)
{
    uint32_t r[4];
    if (!__get_cpuid_count(1, 0, &r[EAX], &r[EBX], &r[ECX], &r[EDX]) || !(r[ECX] & CPUID_OSXSAVE)) return 0;
    uint32_t state = saved_state();
    uint64_t named = 0, missing = 0;
    for (int i = 0; i < ARRAY_LEN(cpuid_bits); i++) {
        const struct cpuid_bit *b = &cpuid_bits[i];
        bool has = (state & b->state) == b->state &&
                   __get_cpuid_count((unsigned)b->leaf, (unsigned)b->subleaf, &r[EAX], &r[EBX], &r[ECX], &r[EDX]) &&
                   (r[b->reg] >> b->bit & 1);
        named |= b->feature;
        if (!has) missing |= b->feature;
    }
    uint64_t has = named & ~missing;
    if ((has & CPU_AMX) && !saves_tiles()) has &= ~(uint64_t)CPU_AMX;
    return has | EMULATED;
}

/* What a level of these features needs of the system. Refused where a thread has a signal stack too small for tiles. */
static bool ask_system(uint64_t features)
{
    if (!(features & CPU_AMX & ~(uint64_t)EMULATED)) return true;
#if defined(__linux__)
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
#else
    return false;
#endif
}
#elif defined(__aarch64__) && defined(__linux__)
/* Source: Linux, Documentation/arch/arm64/elf_hwcaps.rst. */
static uint64_t detect_features(void)
{
    unsigned long cap = getauxval(AT_HWCAP), cap2 = getauxval(AT_HWCAP2);
    uint64_t f = 0;
    if (cap >> 1 & 1) f |= CPU_NEON;     /* HWCAP_ASIMD */
    if (cap >> 20 & 1) f |= CPU_DOTPROD; /* HWCAP_ASIMDDP */
    if (cap2 >> 13 & 1) f |= CPU_I8MM;   /* HWCAP2_I8MM */
    return f;
}
#elif defined(__aarch64__)
static uint64_t detect_features(void) { return CPU_NEON; } /* part of the base architecture */
#else
static uint64_t detect_features(void) { return 0; }
#endif
#if !defined(__x86_64__)
static bool ask_system(uint64_t features) { return true; }
#endif

static const struct {
    uint64_t bit;
    const char *name;
} feature_names[] = {
    { CPU_AVX2, "AVX2" },
    { CPU_FMA, "FMA" },
    { CPU_F16C, "F16C" },
    { CPU_AVX512, "AVX-512 F/BW/DQ/VL" },
    { CPU_AVX512_VNNI, "AVX-512 VNNI" },
    { CPU_AVX512_BF16, "AVX-512 BF16" },
    { CPU_AVX512_VBMI, "AVX-512 VBMI" },
    { CPU_AVX_VNNI, "AVX-VNNI" },
    { CPU_AMX, "AMX TILE/BF16" },
    { CPU_NEON, "NEON" },
    { CPU_DOTPROD, "DOTPROD" },
    { CPU_I8MM, "I8MM" },
};

/* Weakest first; a row names all it needs, and at least one feature that no row above it needs. A CPU may lack a row above its best one: Ice Lake has
 * AVX-512 VNNI and not AVX-VNNI, the 256-bit form of CPUs without AVX-512 (Alder Lake). */
const struct isa isa_table[] = {
    { "scalar", 0, kernels_init_ref },
#if defined(__x86_64__) && !defined(CUANTO_SCALAR)
    { "avx2", CPU_AVX2 | CPU_FMA | CPU_F16C, kernels_init_avx2 },
    { "avxvnni", CPU_AVX2 | CPU_FMA | CPU_F16C | CPU_AVX_VNNI, kernels_init_avxvnni },
    { "avx512", CPU_AVX2 | CPU_FMA | CPU_F16C | CPU_AVX512 | CPU_AVX512_VNNI, kernels_init_avx512 },
    { "avx512vbmi", CPU_AVX2 | CPU_FMA | CPU_F16C | CPU_AVX512 | CPU_AVX512_VNNI | CPU_AVX512_VBMI, kernels_init_avx512vbmi },
    { "avx512bf16", CPU_AVX2 | CPU_FMA | CPU_F16C | CPU_AVX512 | CPU_AVX512_VNNI | CPU_AVX512_VBMI | CPU_AVX512_BF16, kernels_init_avx512bf16 },
    { "amx", CPU_AVX2 | CPU_FMA | CPU_F16C | CPU_AVX512 | CPU_AVX512_VNNI | CPU_AVX512_VBMI | CPU_AVX512_BF16 | CPU_AMX, kernels_init_amx },
#elif defined(__aarch64__) && !defined(CUANTO_SCALAR)
    { "neon", CPU_NEON, kernels_init_neon },
    { "dotprod", CPU_NEON | CPU_DOTPROD, kernels_init_dotprod },
    { "i8mm", CPU_NEON | CPU_DOTPROD | CPU_I8MM, kernels_init_i8mm },
#endif
};
const int isa_count = ARRAY_LEN(isa_table);

void kernels_init(struct kernels *k, uint64_t features)
{
    uint64_t usable = features & detect_features();
    *k = (struct kernels){ 0 };
    for (int i = 0; i < isa_count; i++) {
        if ((usable & isa_table[i].need) != isa_table[i].need || !ask_system(isa_table[i].need)) continue;
        isa_table[i].init(k);
        k->name = isa_table[i].name;
    }
}

static const char *name_of_feature(uint64_t bits)
{
    for (int i = 0; i < ARRAY_LEN(feature_names); i++)
        if (bits & feature_names[i].bit) return feature_names[i].name;
    return "a feature";
}

static status unknown_isa(const char *name, struct err *e)
{
    char known[128] = "";
    size_t n = 0;
    for (int i = 0; i < isa_count && n < sizeof known; i++)
        n += (size_t)snprintf(known + n, sizeof known - n, "%s%s", i ? ", " : "", isa_table[i].name);
    return err_set(e, ERR_USAGE, "isa: \"%s\" is unknown, expected one of: %s", name, known);
}

status isa_features(const char *name, const struct cpu_info *c, uint64_t *features, struct err *e)
{
    for (int i = 0; i < isa_count; i++) {
        if (strcmp(name, isa_table[i].name)) continue;
        uint64_t need = isa_table[i].need, missing = need & ~c->features;
        if (missing) return err_set(e, ERR_USAGE, "isa: %s needs %s, which this CPU or OS lacks", name, name_of_feature(missing));
        *features = need;
        return OK;
    }
    return unknown_isa(name, e);
}

/* ---- small text files ---- */

/* The first TEXT_MAX - 1 bytes of a file, NUL-terminated. False if it cannot be read. */
static bool read_at(const char *root, char text[TEXT_MAX], const char *fmt, ...) PRINTF_LIKE(3, 4);
static bool read_at(const char *root, char text[TEXT_MAX], const char *fmt, ...)
{
    char path[PATH_CAP];
    int n = snprintf(path, sizeof path, "%s", root);
    if (n < 0 || n >= (int)sizeof path) return false;
    va_list ap;
    va_start(ap, fmt);
    int m = vsnprintf(path + n, sizeof path - (size_t)n, fmt, ap);
    va_end(ap);
    if (m < 0 || m >= (int)sizeof path - n) return false;
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) return false;
    size_t len = 0;
    while (len < TEXT_MAX - 1) {
        ssize_t got = read(fd, text + len, TEXT_MAX - 1 - len);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) break;
        len += (size_t)got;
    }
    close(fd);
    text[len] = 0;
    return len > 0;
}

/* The text after "<key>" and blanks or a colon, at the start of a line; NULL if absent. */
static const char *line_value(const char *text, const char *key)
{
    size_t n = strlen(key);
    for (const char *line = text; line; line = strchr(line, '\n')) {
        if (*line == '\n') line++;
        if (strncmp(line, key, n) || !strchr(" \t:", line[n]) || !line[n]) continue;
        return line + n + strspn(line + n, " \t:");
    }
    return NULL;
}

/* A decimal number at p; *out untouched if there is none ("max", "-1"). Saturates. */
static bool number(const char *p, uint64_t *out)
{
    if (!p || *p < '0' || *p > '9') return false;
    *out = strtoull(p, NULL, 10);
    return true;
}

static bool number_at(const char *root, const char *dir, const char *file, uint64_t *out)
{
    char text[TEXT_MAX];
    return read_at(root, text, "%s/%s", dir, file) && number(text, out);
}

/* ---- cores ---- */

/* CPUs that share a core name the same first sibling. That is the pair (package, core id) in one file, and unlike core_id it is also
 * unique where several clusters count their cores from 0. */
static int core_of(const char *root, int cpu)
{
    char text[TEXT_MAX];
    uint64_t first;
    bool known = read_at(root, text, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu) && number(text, &first);
    return known && first < CPUS_MAX ? (int)first : cpu;
}

static void detect_cores(struct cpu_info *c, const char *root)
{
#if defined(__linux__)
    cpu_set_t allowed[CPUS_MAX / CPU_SETSIZE], cores[CPUS_MAX / CPU_SETSIZE];
    memset(cores, 0, sizeof cores);
    if (sched_getaffinity(0, sizeof allowed, allowed) == 0) {
        c->n_logical = CPU_COUNT_S(sizeof allowed, allowed);
        for (int i = 0; i < CPUS_MAX; i++)
            if (CPU_ISSET_S((size_t)i, sizeof allowed, allowed)) CPU_SET_S((size_t)core_of(root, i), sizeof cores, cores);
        c->n_physical = CPU_COUNT_S(sizeof cores, cores);
    }
#else
    (void)root;
    c->n_logical = c->n_physical = (int)sysconf(_SC_NPROCESSORS_ONLN);
#endif
    if (c->n_logical < 1) c->n_logical = c->n_physical = 1;
}

static void detect_model(struct cpu_info *c, const char *root)
{
    char text[TEXT_MAX];
    const char *name = NULL;
    if (read_at(root, text, "/proc/cpuinfo")) {
        name = line_value(text, "model name");
        if (!name) name = line_value(text, "Model"); /* arm64: the board, if anything */
    }
    if (!name) name = "unknown";
    snprintf(c->model, sizeof c->model, "%.*s", (int)strcspn(name, "\n"), name);
}

/* ---- limits ---- */

struct limits {
    double cores;       /* 0 = none */
    uint64_t memory;    /* UINT64_MAX = none */
    uint64_t available; /* least room below any memory limit */
};

static void limit_cores(struct limits *l, uint64_t quota, uint64_t period)
{
    if (period == 0 || quota == 0) return;
    double cores = (double)quota / (double)period;
    if (l->cores == 0 || cores < l->cores) l->cores = cores;
}

/* File pages count as used although the kernel drops them on demand: the mapped model itself is mostly such pages. */
static void limit_memory(struct limits *l, uint64_t limit, uint64_t used, uint64_t file_pages)
{
    used -= file_pages < used ? file_pages : used;
    uint64_t room = limit > used ? limit - used : 0;
    if (limit < l->memory) l->memory = limit;
    if (room < l->available) l->available = room;
}

static uint64_t file_pages(const char *root, const char *dir, const char *active, const char *inactive)
{
    char text[TEXT_MAX];
    uint64_t a = 0, i = 0;
    if (!read_at(root, text, "%s/memory.stat", dir)) return 0;
    (void)number(line_value(text, active), &a);
    (void)number(line_value(text, inactive), &i);
    return a + i;
}

static void limits_v2(struct limits *l, const char *root, const char *dir)
{
    char text[TEXT_MAX];
    uint64_t quota, period, limit, used = 0;
    if (read_at(root, text, "%s/cpu.max", dir) && number(text, &quota)) {
        const char *blank = strchr(text, ' ');
        if (blank && number(blank + 1, &period)) limit_cores(l, quota, period);
    }
    if (number_at(root, dir, "memory.max", &limit)) {
        (void)number_at(root, dir, "memory.current", &used);
        limit_memory(l, limit, used, file_pages(root, dir, "active_file", "inactive_file"));
    }
}

static void limits_v1_cpu(struct limits *l, const char *root, const char *dir)
{
    uint64_t quota, period;
    if (number_at(root, dir, "cpu.cfs_quota_us", &quota) && number_at(root, dir, "cpu.cfs_period_us", &period))
        limit_cores(l, quota, period);
}

static void limits_v1_memory(struct limits *l, const char *root, const char *dir)
{
    uint64_t limit, used = 0;
    if (!number_at(root, dir, "memory.limit_in_bytes", &limit) || limit >= INT64_MAX - (1 << 20)) return; /* "none" is 2^63 - one page */
    (void)number_at(root, dir, "memory.usage_in_bytes", &used);
    limit_memory(l, limit, used, file_pages(root, dir, "total_active_file", "total_inactive_file"));
}

typedef void (*level_fn)(struct limits *l, const char *root, const char *dir);

/* Walks from the group of this process up to the root of the hierarchy: every level may limit. In a container the path may belong to the
 * host and not exist here; then the mounted root, which is the container's own group, still counts. */
static void walk_groups(struct limits *l, const char *root, const char *mount, const char *group, size_t n, level_fn level)
{
    char dir[PATH_CAP];
    size_t base = strlen(mount);
    if (base + n >= sizeof dir || n == 0 || group[0] != '/') n = 0;
    memcpy(dir, mount, base);
    memcpy(dir + base, group, n);
    size_t end = base + n;
    while (end > base && dir[end - 1] == '/') end--;
    for (;;) {
        dir[end] = 0;
        level(l, root, dir);
        if (end == base) return;
        do end--;
        while (dir[end] != '/'); /* dir[base] is one */
    }
}

static const struct {
    const char *controller, *mount;
    level_fn level;
} hierarchies[] = {
    { "", "/sys/fs/cgroup", limits_v2 }, /* version 2: id 0 and no list */
    { "cpu", "/sys/fs/cgroup/cpu", limits_v1_cpu },
    { "memory", "/sys/fs/cgroup/memory", limits_v1_memory },
};

/* One line of /proc/self/cgroup, "id:controller,controller:path". */
static void limits_of_line(struct limits *l, const char *root, const char *line, size_t n)
{
    const char *colon = memchr(line, ':', n);
    if (!colon) return;
    const char *name = colon + 1, *end = line + n;
    const char *group = memchr(name, ':', (size_t)(end - name));
    while (group && name <= group) {
        size_t len = strcspn(name, ",:");
        for (int i = 0; i < ARRAY_LEN(hierarchies); i++)
            if (strlen(hierarchies[i].controller) == len && !memcmp(hierarchies[i].controller, name, len))
                walk_groups(l, root, hierarchies[i].mount, group + 1, (size_t)(end - group - 1), hierarchies[i].level);
        name += len + 1;
    }
}

static void detect_limits(struct limits *l, const char *root)
{
    char text[TEXT_MAX];
    if (!read_at(root, text, "/proc/self/cgroup")) return;
    for (const char *line = text; *line;) {
        size_t n = strcspn(line, "\n");
        limits_of_line(l, root, line, n);
        line += n + (line[n] == '\n');
    }
}

static uint64_t meminfo_bytes(const char *text, const char *key)
{
    uint64_t kib = 0;
    return number(line_value(text, key), &kib) && kib < UINT64_MAX / 1024 ? kib * 1024 : 0;
}

static void detect_memory(struct cpu_info *c, const char *root, const struct limits *l)
{
    char text[TEXT_MAX];
    uint64_t total = 0, available = 0;
    if (read_at(root, text, "/proc/meminfo")) {
        total = meminfo_bytes(text, "MemTotal");
        available = meminfo_bytes(text, "MemAvailable");
    }
    if (l->memory < UINT64_MAX && (total == 0 || l->memory < total)) total = l->memory;
    if (l->available < UINT64_MAX && (available == 0 || l->available < available)) available = l->available;
    c->ram_total = (size_t)total;
    c->ram_available = (size_t)available;
}

static void choose_threads(struct cpu_info *c)
{
    int n = c->n_physical;
    if (c->quota > 0 && ceil(c->quota) < n) {
        n = (int)ceil(c->quota);
        snprintf(c->why, sizeof c->why, "cgroup quota %.3g", c->quota);
    } else {
        snprintf(c->why, sizeof c->why, "%d physical core%s", n, n == 1 ? "" : "s");
    }
    c->n_threads_default = n < 1 ? 1 : n > THREADS_MAX ? THREADS_MAX : n;
}

void cpu_detect_at(struct cpu_info *c, const char *root)
{
    *c = (struct cpu_info){ .features = detect_features() };
    struct limits l = { .memory = UINT64_MAX, .available = UINT64_MAX };
    detect_model(c, root);
    detect_cores(c, root);
    detect_limits(&l, root);
    detect_memory(c, root, &l);
    c->quota = l.cores;
    choose_threads(c);
    long page = sysconf(_SC_PAGESIZE);
    c->page_size = page > 0 ? (size_t)page : 4096;
}

void cpu_detect(struct cpu_info *c) { cpu_detect_at(c, ""); }
