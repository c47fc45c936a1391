/* cmd_version - the version, and with -v how this binary was built. */
#include "tools/opt.h"

const char cuanto_version[] = "0.1.0";

static int run(struct cli *c)
{
    out_printf("cuanto %s\n", cuanto_version);
    if (!c->verbose) return 0;
    out_printf("compiler %s\nSIMD levels", __VERSION__);
    for (int i = 0; i < isa_count; i++) out_printf(" %s", isa_table[i].name);
    out_printf("\n");
    return 0;
}

OPT_GROUP(version_rows, "Version", ROW_VERBOSE);
static const struct opt_group *const groups[] = { &version_rows, NULL };
const struct command command_version = {
    .name = "version", .brief = "print the version", .usage = "cuanto version [-v]", .examples = "cuanto version",
    .groups = groups, .min_args = 0, .max_args = 0, .run = run,
};
