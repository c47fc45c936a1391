/* cmd_completion - completion scripts for bash, zsh and fish, written from the command and option rows. */
#include "tools/opt.h"
#include <stdio.h>
#include <string.h>

/* Calls word(ctx, spelling) for --name and every alias of an option. */
static void each_spelling(const struct opt *o, void (*word)(const char *w, size_t n))
{
    char name[64];
    word(name, (size_t)snprintf(name, sizeof name, "--%s", o->name));
    for (const char *a = o->alias; a && *a;) {
        size_t n = strcspn(a, " ");
        word(a, n);
        a += n + strspn(a + n, " ");
    }
}

static void print_word(const char *w, size_t n) { out_printf(" %.*s", (int)n, w); }

static bool takes_file(const struct opt *o) { return o->value && strstr(o->value, "FILE"); }
static bool value_follows(const struct opt *o) { return o->kind != OPT_FLAG && !o->implied; }

static void print_choices(const struct opt *o)
{
    for (const char *p = o->choices; *p;) {
        size_t n = strcspn(p, "|");
        out_printf("%s%.*s", p == o->choices ? "" : " ", (int)n, p);
        p += n + (p[n] == '|');
    }
}

/* Text inside single quotes. */
static void print_quoted(const char *s)
{
    for (; *s; s++) {
        if (*s == '\'') out_printf("'\\''");
        else out_write(s, 1);
    }
}

static void command_names(void)
{
    for (int i = 0; commands[i]; i++) out_printf("%s%s", i ? " " : "", commands[i]->name);
}

/* ---- bash ---- */

static void bash_value_cases(const struct command *cmd)
{
    const struct opt *o;
    for (int i = 0; (o = opt_at(cmd, i, NULL)); i++) {
        if (!value_follows(o)) continue;
        out_printf("        %s:--%s", cmd->name, o->name);
        for (const char *a = o->alias; a && *a;) {
            size_t n = strcspn(a, " ");
            out_printf("|%s:%.*s", cmd->name, (int)n, a);
            a += n + strspn(a + n, " ");
        }
        out_printf(") ");
        if (o->choices) out_printf("COMPREPLY=($(compgen -W '"), print_choices(o), out_printf("' -- \"$cur\")); return ;;\n");
        else if (takes_file(o)) out_printf("compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -f -- \"$cur\")); return ;;\n");
        else out_printf("return ;;\n");
    }
}

static void bash_script(void)
{
    const struct opt *o;
    out_printf("# bash completion for cuanto; use: source <(cuanto completion bash)\n"
               "_cuanto() {\n"
               "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} cmd=${COMP_WORDS[1]}\n"
               "    COMPREPLY=()\n"
               "    if [ \"$COMP_CWORD\" -eq 1 ]; then COMPREPLY=($(compgen -W '");
    command_names();
    out_printf(" --help --version' -- \"$cur\")); return; fi\n    case $cmd:$prev in\n");
    for (int i = 0; commands[i]; i++) bash_value_cases(commands[i]);
    out_printf("    esac\n    case $cmd in\n");
    for (int i = 0; commands[i]; i++) {
        out_printf("        %s) local words='--help --show-config", commands[i]->name);
        for (int k = 0; (o = opt_at(commands[i], k, NULL)); k++) each_spelling(o, print_word);
        out_printf("' ;;\n");
    }
    out_printf("        *) return ;;\n    esac\n"
               "    case $cmd:$cur in\n"
               "        *:-*) COMPREPLY=($(compgen -W \"$words\" -- \"$cur\")) ;;\n"
               "        help:*) COMPREPLY=($(compgen -W 'all ");
    command_names();
    out_printf("' -- \"$cur\")) ;;\n"
               "        completion:*) COMPREPLY=($(compgen -W 'bash zsh fish' -- \"$cur\")) ;;\n"
               "        *) compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -f -- \"$cur\")) ;;\n"
               "    esac\n}\ncomplete -F _cuanto cuanto\n");
}

/* ---- zsh ---- */

/* Help text inside [...] of an _arguments spec in single quotes. */
static void zsh_text(const char *s)
{
    for (; *s; s++) {
        if (strchr("[]:\\", *s)) out_write("\\", 1);
        if (*s == '\'') out_printf("'\\''");
        else out_write(s, 1);
    }
}

static const struct opt *zsh_current;

static void zsh_spec(const char *w, size_t n)
{
    const struct opt *o = zsh_current;
    out_printf(" \\\n        '%s%.*s[", o->kind == OPT_LIST ? "*" : "", (int)n, w);
    zsh_text(o->help);
    out_printf("]");
    if (value_follows(o)) {
        out_printf(":%s:", o->name);
        if (o->choices) out_printf("("), print_choices(o), out_printf(")");
        else if (takes_file(o)) out_printf("_files");
        else out_printf(" ");
    }
    out_printf("'");
}

static void zsh_script(void)
{
    out_printf("#compdef cuanto\n# zsh completion for cuanto; use: source <(cuanto completion zsh)\n_cuanto() {\n    local -a commands\n    commands=(\n");
    for (int i = 0; commands[i]; i++) out_printf("        '%s:", commands[i]->name), zsh_text(commands[i]->brief), out_printf("'\n");
    out_printf("    )\n    if (( CURRENT == 2 )); then _describe command commands; return; fi\n"
               "    local cmd=${words[2]}\n    shift words; (( CURRENT-- ))\n    case $cmd in\n");
    for (int i = 0; commands[i]; i++) {
        const struct opt *o;
        out_printf("    %s) _arguments '--help[show help]' '--show-config[print values and their sources]'", commands[i]->name);
        for (int k = 0; (o = opt_at(commands[i], k, NULL)); k++) zsh_current = o, each_spelling(o, zsh_spec);
        if (commands[i] == &command_help) out_printf(" '1:command:("), command_names(), out_printf(" all)'");
        else if (commands[i] == &command_completion) out_printf(" '1:shell:(bash zsh fish)'");
        else if (commands[i]->max_args != 0) out_printf(" '*:file:_files'");
        out_printf(" ;;\n");
    }
    out_printf("    esac\n}\ncompdef _cuanto cuanto\n");
}

/* ---- fish ---- */

static void fish_word(const char *w, size_t n)
{
    if (n == 2) out_printf(" -s %c", w[1]);
    else if (w[1] == '-') out_printf(" -l %.*s", (int)n - 2, w + 2);
    else out_printf(" -o %.*s", (int)n - 1, w + 1);
}

static void fish_script(void)
{
    out_printf("# fish completion for cuanto; use: cuanto completion fish | source\ncomplete -c cuanto -e\n");
    for (int i = 0; commands[i]; i++) {
        const struct command *cmd = commands[i];
        const struct opt *o;
        out_printf("complete -c cuanto -n __fish_use_subcommand -f -a %s -d '", cmd->name), print_quoted(cmd->brief), out_printf("'\n");
        for (int k = 0; (o = opt_at(cmd, k, NULL)); k++) {
            out_printf("complete -c cuanto -n '__fish_seen_subcommand_from %s'", cmd->name);
            each_spelling(o, fish_word);
            if (value_follows(o)) out_printf(" -r");
            if (value_follows(o) && !takes_file(o)) out_printf(" -f");
            if (o->choices) out_printf(" -a '"), print_choices(o), out_printf("'");
            out_printf(" -d '"), print_quoted(o->help), out_printf("'\n");
        }
    }
    out_printf("complete -c cuanto -n '__fish_seen_subcommand_from completion' -f -a 'bash zsh fish'\n");
    out_printf("complete -c cuanto -n '__fish_seen_subcommand_from help' -f -a 'all "), command_names(), out_printf("'\n");
}

/* ---- the command ---- */

static const struct { const char *name; void (*print)(void); } shells[] = { { "bash", bash_script }, { "zsh", zsh_script }, { "fish", fish_script } };

static int run(struct cli *c)
{
    struct err e = { 0 };
    for (int i = 0; i < ARRAY_LEN(shells); i++)
        if (!strcmp(c->model, shells[i].name)) return shells[i].print(), 0;
    err_set(&e, ERR_USAGE, "completion: '%.40s' is not one of bash, zsh, fish", c->model);
    return cli_fail(&e, NULL);
}

static const struct opt_group *const groups[] = { NULL };
const struct command command_completion = {
    .name = "completion", .brief = "print a completion script for bash, zsh or fish", .usage = "cuanto completion bash|zsh|fish",
    .examples = "source <(cuanto completion bash)\ncuanto completion fish > ~/.config/fish/completions/cuanto.fish",
    .groups = groups, .min_args = 1, .max_args = 1, .run = run,
};
