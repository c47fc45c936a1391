/* cmd_help - help texts from the rows: overview, one command, all commands; and --show-config. */
#include "tools/opt.h"
#include <stdio.h>
#include <string.h>

static void print_examples(const char *text)
{
    if (!text || !*text) return;
    out_printf("\nExamples:\n");
    while (*text) {
        size_t n = strcspn(text, "\n");
        out_printf("  %.*s\n", (int)n, text);
        text += n + (text[n] == '\n');
    }
}

/* "-n, --n-predict N", "--explain[=REGEX]" */
static void spelling(const struct opt *o, char *buf, size_t cap)
{
    const char *a = o->alias;
    size_t n = a ? strcspn(a, " ") : 0;
    bool is_short = n == 2 && a[0] == '-';
    snprintf(buf, cap, "%s%.*s%s--%s%s%s%s", is_short ? "" : "    ", is_short ? 2 : 0, is_short ? a : "", is_short ? ", " : "", o->name,
             o->implied ? "[=" : o->value ? " " : "", o->value ? o->value : "", o->implied ? "]" : "");
}

static void print_option(const struct cli *defaults, const struct opt *o)
{
    char left[80], value[128];
    spelling(o, left, sizeof left);
    out_printf("  %-30s %s", left, o->help);
    opt_text(defaults, o, value, sizeof value);
    if (o->kind != OPT_FLAG && o->kind != OPT_LIST && *value && strcmp(value, "0") != 0) out_printf(" [%s]", value);
    if (o->choices) out_printf(" (%s)", o->choices);
    for (int i = 0; !strcmp(o->name, "isa") && i < isa_count; i++) /* its choices are those of this build */
        out_printf("%s%s%s", i ? "|" : " (", isa_table[i].name, i + 1 < isa_count ? "" : ")");
    out_printf("\n");
}

/* Defaults without environment: help must not depend on where it is read. */
static void defaults_of(const struct command *cmd, struct cli *c)
{
    const struct opt *o;
    *c = (struct cli){ 0 };
    sampler_defaults(&c->sampling);
    for (int i = 0; (o = opt_at(cmd, i, NULL)); i++)
        if (o->def && opt_store(c, o, o->def, o->name, NULL) != OK) out_printf("(bad default of --%s)\n", o->name);
}

void help_command(const struct command *cmd)
{
    const struct opt_group *group = NULL, *before = NULL;
    const struct opt *o;
    struct cli defaults;
    defaults_of(cmd, &defaults);
    out_printf("cuanto %s - %s\n\nUsage: %s\n", cmd->name, cmd->brief, cmd->usage);
    print_examples(cmd->examples);
    for (int i = 0; (o = opt_at(cmd, i, &group)); before = group, i++) {
        if (group != before) out_printf("\n%s:\n", group->title);
        print_option(&defaults, o);
    }
    if (cmd->more) cmd->more();
    out_printf("\nEvery option has a twin in the environment (--top-k: CUANTO_TOP_K); the command line wins. --show-config prints the values in force.\n");
}

static void help_overview(void)
{
    out_printf("cuanto - run, quantize, measure and inspect language models in GGUF files, on the CPU\n\n"
               "Usage: cuanto COMMAND [MODEL] [arguments] [options]\n\nCommands:\n");
    for (int i = 0; commands[i]; i++) out_printf("  %-12s %s\n", commands[i]->name, commands[i]->brief);
    out_printf("\nFirst steps:\n"
               "  cuanto chat models/m.gguf\n"
               "  echo 'Why is the sky blue?' | cuanto run models/m.gguf\n"
               "  cuanto doctor\n"
               "\nMODEL is a file, a folder with one .gguf, or a name in $CUANTO_MODELS or ./models.\n"
               "More: cuanto help COMMAND, cuanto help all.\n"
               "Exit codes: 0 ok, 1 failure, 2 usage, 3 file, 4 format, 5 memory, 6 quality gate, 7 verification,\n"
               "129, 130 and 143 signals, 141 closed output.\n");
}

static const char *const sources[] = { "default", "environment", "command line" };

void show_config(const struct command *cmd, const struct cli *c, const struct opt_result *r)
{
    const struct opt *o;
    char value[512], env[64];
    for (int i = 0; (o = opt_at(cmd, i, NULL)); i++) {
        enum opt_source s = r->source[i];
        opt_text(c, o, value, sizeof value);
        opt_env_name(o, env);
        out_printf("%-22s = %-16s # %s%s%s\n", o->name, value, sources[s], s == OPT_ENV ? " " : "", s == OPT_ENV ? env : "");
    }
}

static int run(struct cli *c)
{
    struct err e = { 0 };
    if (!c->model) return help_overview(), 0;
    if (!strcmp(c->model, "all")) {
        help_overview();
        for (int i = 0; commands[i]; i++) out_printf("\n--------\n\n"), help_command(commands[i]);
        return 0;
    }
    const struct command *cmd = command_find(c->model, &e);
    if (!cmd) return cli_fail(&e, "cuanto help lists the commands.");
    help_command(cmd);
    return 0;
}

static const struct opt_group *const groups[] = { NULL };
const struct command command_help = {
    .name = "help", .brief = "this list; help COMMAND, help all", .usage = "cuanto help [COMMAND|all]", .examples = "cuanto help run\ncuanto help all",
    .groups = groups, .min_args = 0, .max_args = 1, .run = run,
};
