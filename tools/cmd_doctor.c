/* cmd_doctor - what this machine offers and what cuanto makes of it. */
#include "ggml-like/kernels/kernels.h"
#include "src/cuanto.h"
#include "tools/opt.h"
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

struct feature { uint64_t bit; const char *name; };
static const struct feature features[] = {
    { CPU_AVX2, "avx2" }, { CPU_FMA, "fma" }, { CPU_F16C, "f16c" }, { CPU_AVX512, "avx512" }, { CPU_AVX512_VNNI, "avx512_vnni" },
    { CPU_AVX512_BF16, "avx512_bf16" }, { CPU_AVX512_VBMI, "avx512_vbmi" }, { CPU_AVX_VNNI, "avx_vnni" }, { CPU_NEON, "neon" },
    { CPU_DOTPROD, "dotprod" }, { CPU_I8MM, "i8mm" },
};

struct facts { struct cpu_info cpu; struct utsname os; const char *level, *best; };

static void gather(struct facts *f)
{
    struct kernels k;
    *f = (struct facts){ 0 };
    cpu_detect(&f->cpu);
    kernels_init(&k, f->cpu.features);
    f->level = k.name;
    f->best = isa_count > 0 ? isa_table[isa_count - 1].name : "scalar";
    if (uname(&f->os) != 0) strcpy(f->os.machine, "unknown");
}

static void feature_list(uint64_t bits, char *buf, size_t cap)
{
    *buf = 0;
    for (int i = 0; i < ARRAY_LEN(features); i++) {
        size_t n = strlen(buf);
        if (bits & features[i].bit) snprintf(buf + n, cap - n, "%s%s", n ? " " : "", features[i].name);
    }
    if (!*buf) snprintf(buf, cap, "none");
}

static void print_text(const struct facts *f)
{
    const struct cpu_info *c = &f->cpu;
    char list[200], total[32], available[32];
    feature_list(c->features, list, sizeof list);
    out_printf("cuanto     %s, %s\n", cuanto_version, f->os.machine);
    out_printf("system     %s %s\n", f->os.sysname, f->os.release);
    out_printf("cpu        %s\n", c->model);
    out_printf("features   %s\n", list);
    out_printf("simd       %s (levels in this build:", f->level);
    for (int i = 0; i < isa_count; i++) out_printf(" %s", isa_table[i].name);
    out_printf(")\n");
    out_printf("cores      %d physical, %d logical", c->n_physical, c->n_logical);
    if (c->quota > 0) out_printf(", cgroup limit %.2f", c->quota);
    out_printf("\nthreads    %d by default (%s)\n", c->n_threads_default, c->why);
    if (c->ram_total) out_printf("memory     %s, %s available\n", size_text(c->ram_total, total), size_text(c->ram_available, available));
    else out_printf("memory     unknown\n");
    out_printf("page size  %zu\n", c->page_size);
    out_printf("models    ");
    for (int i = 0; model_arch_name(i); i++) out_printf(" %s", model_arch_name(i));
    out_printf("\nformats   ");
    for (int i = 0; i < dtype_count; i++) out_printf(" %s", dtypes[i]->name);
    out_printf("\n");
    if (!strcmp(f->level, "scalar")) out_printf("note: no SIMD level fits this CPU; everything works, several times slower\n");
    if (c->quota > 0 && c->quota < c->n_physical) out_printf("note: the cgroup limit allows less than the cores there are\n");
}

static int print_json(const struct facts *f)
{
    const struct cpu_info *c = &f->cpu;
    struct json_out o;
    json_out_init(&o, true);
    json_begin(&o, NULL, '{');
    json_put_cstr(&o, "version", cuanto_version);
    json_put_cstr(&o, "machine", f->os.machine);
    json_put_cstr(&o, "cpu", c->model);
    json_begin(&o, "features", '[');
    for (int i = 0; i < ARRAY_LEN(features); i++)
        if (c->features & features[i].bit) json_put_cstr(&o, NULL, features[i].name);
    json_end(&o, ']');
    json_put_cstr(&o, "simd", f->level);
    json_begin(&o, "simd_levels", '[');
    for (int i = 0; i < isa_count; i++) json_put_cstr(&o, NULL, isa_table[i].name);
    json_end(&o, ']');
    json_put_i64(&o, "physical_cores", c->n_physical);
    json_put_i64(&o, "logical_cores", c->n_logical);
    if (c->quota > 0) json_put_f64(&o, "cgroup_cores", c->quota);
    else json_put_null(&o, "cgroup_cores");
    json_put_i64(&o, "threads", c->n_threads_default);
    json_put_cstr(&o, "threads_why", c->why);
    json_put_i64(&o, "ram_total_bytes", (int64_t)c->ram_total);
    json_put_i64(&o, "ram_available_bytes", (int64_t)c->ram_available);
    json_put_i64(&o, "page_size", (int64_t)c->page_size);
    json_begin(&o, "architectures", '[');
    for (int i = 0; model_arch_name(i); i++) json_put_cstr(&o, NULL, model_arch_name(i));
    json_end(&o, ']');
    json_begin(&o, "formats", '[');
    for (int i = 0; i < dtype_count; i++) json_put_cstr(&o, NULL, dtypes[i]->name);
    json_end(&o, ']');
    json_end(&o, '}');
    bool ok = json_out_ok(&o);
    if (ok) out_write(o.buf, o.n), out_write("\n", 1);
    json_out_free(&o);
    return ok ? 0 : cli_fail(&(struct err){ ERR_MEMORY, "out of memory" }, NULL);
}

static int run(struct cli *c)
{
    struct facts f;
    gather(&f);
    if (c->json) return print_json(&f);
    print_text(&f);
    return 0;
}

static const struct opt_group *const groups[] = { &opts_common, NULL };
const struct command command_doctor = {
    .name = "doctor", .brief = "what this machine offers: CPU, SIMD, cores, memory",
    .usage = "cuanto doctor [options]", .examples = "cuanto doctor\ncuanto doctor --json",
    .groups = groups, .min_args = 0, .max_args = 0, .run = run,
};
