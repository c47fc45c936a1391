/* main - from the command line to one command. A command never ends the process itself: it returns an exit code. */
#include "tools/opt.h"
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* A closed descriptor 0, 1 or 2 would be given to the next file opened, and output would then go into a model. The stand-ins refuse what the
 * closed one would have refused: writing to standard output fails. */
static void fill_descriptors(void)
{
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == 2 ? O_WRONLY : O_RDONLY) != fd) _exit(ERR_RUNTIME);
}

static int dispatch(const struct command *cmd, int argc, char **argv)
{
    struct cli c;
    struct opt_result r;
    struct err e = { 0 };
    char hint[80];
    if (opt_parse(cmd, argc, argv, &c, &r, &e) != OK) {
        snprintf(hint, sizeof hint, "See cuanto help %s.", cmd->name);
        return cli_fail(&e, hint);
    }
    if (r.help) return help_command(cmd), 0;
    if (r.show_config) return show_config(cmd, &c, &r), 0;
    return cmd->run(&c);
}

static int start(int argc, char **argv)
{
    static const struct { const char *word; const struct command *cmd; } spellings[] = {
        { "--help", &command_help }, { "-h", &command_help }, { "--version", &command_version }, { "-V", &command_version },
    };
    struct err e = { 0 };
    if (argc < 2) {
        err_set(&e, ERR_USAGE, "no command");
        return cli_fail(&e, "cuanto help lists the commands; to begin: cuanto chat MODEL");
    }
    for (int i = 0; i < ARRAY_LEN(spellings); i++)
        if (!strcmp(argv[1], spellings[i].word)) return dispatch(spellings[i].cmd, argc - 2, argv + 2);
    const struct command *cmd = command_find(argv[1], &e);
    if (!cmd) return cli_fail(&e, "cuanto help lists the commands.");
    return dispatch(cmd, argc - 2, argv + 2);
}

int main(int argc, char **argv)
{
    fill_descriptors();
    cli_signals();
    int code = start(argc, argv);
    out_flush();
    return out_status() ? out_status() : code;
}
