/* cpu - what this machine offers: instruction sets, cores, memory; and the table of ISA levels.
 * The only file that asks the processor or the operating system about hardware. */
#pragma once
#include "ggml-like/base.h"

struct kernels;

enum cpu_feature {
    CPU_AVX2 = 1 << 0, CPU_FMA = 1 << 1, CPU_F16C = 1 << 2, CPU_AVX512 = 1 << 3 /* F BW DQ VL */, CPU_AVX512_VNNI = 1 << 4,
    CPU_AVX512_BF16 = 1 << 5, CPU_AVX512_VBMI = 1 << 6, CPU_AVX_VNNI = 1 << 7, CPU_AMX = 1 << 8 /* TILE BF16 */,
    CPU_NEON = 1 << 16, CPU_DOTPROD = 1 << 17, CPU_I8MM = 1 << 18,
};

struct cpu_info {
    uint64_t features;       /* enum cpu_feature bits that the CPU and the OS both support */
    char model[64];          /* "Intel(R) Xeon(R) Processor", "unknown" if the system does not say */
    int n_logical;           /* allowed by affinity */
    int n_physical;          /* distinct cores among them */
    double quota;            /* cgroup CPU limit in cores, 0 = none */
    int n_threads_default;   /* min(n_physical, ceil(quota)), at least 1 */
    char why[96];            /* one phrase for the status line: "2 physical cores" or "cgroup quota 1.5" */
    size_t ram_total, ram_available; /* bytes, cgroup limit included; 0 unknown */
    size_t page_size;
};
void cpu_detect(struct cpu_info *c);

/* cpu_detect_at - the same with /proc and /sys looked for below `root`, "" for the real ones. For tests. */
void cpu_detect_at(struct cpu_info *c, const char *root);

/* One row per ISA level, weakest first. A level is usable when (features & need) == need, whatever rows above it are not. */
struct isa {
    const char *name;                  /* "scalar", "avx2", ... */
    uint64_t need;                     /* everything: also what the levels need that it builds on */
    void (*init)(struct kernels *k);   /* overwrites the slots it improves; called in table order */
};
extern const struct isa isa_table[];
extern const int isa_count;

/* kernels_init - fills every slot: plain C, then each usable level of isa_table upward. mask limits the features
 * (UINT64_MAX = all). k->name = the strongest level used. Cannot fail. The first level of AMX asks the system for its registers, for all threads of the
 * process and for good: from then on no signal stack may be smaller than AT_MINSIGSTKSZ, and where one is, kernels stay at the level below. */
void kernels_init(struct kernels *k, uint64_t features);

/* isa_features - the features that level `name` ("scalar", "avx2", ...) needs: with them it is the strongest usable one, on the levels that need a part
 * of them, so that a level gives the same results on every CPU. ERR_USAGE names the known levels, or the missing CPU feature. */
status isa_features(const char *name, const struct cpu_info *c, uint64_t *features, struct err *e) MUST_USE;
