/* commands - one row per command, and the way from a name to its row. */
#include "tools/opt.h"
#include <string.h>

const struct command *const commands[] = {
    &command_run,      &command_chat,     &command_perplexity, &command_compare, &command_bench,   &command_inspect,    &command_convert,
    &command_quantize, &command_rotate,   &command_merge,      &command_train,   &command_data,    &command_recommend,  &command_importance,
    &command_tokenize, &command_template, &command_doctor,     &command_completion, &command_version, &command_help,    NULL,
};

/* Commands of other programs, and what does the same here. */
static const struct { const char *word, *here; } foreign[] = {
    { "list", "models are files; ls models, or cuanto inspect FILE" },
    { "ls", "models are files; ls models, or cuanto inspect FILE" },
    { "pull", "nothing is downloaded here: fetch a GGUF file, or convert a checkpoint with cuanto convert FOLDER" },
    { "show", "cuanto inspect MODEL tells what a file holds" },
    { "serve", "there is no server; cuanto chat MODEL, or cuanto run MODEL in a pipe" },
    { "generate", "cuanto run MODEL 'TEXT'" },
    { "finetune", "cuanto train MODEL DATA -o LORA.gguf" },
    { "fine-tune", "cuanto train MODEL DATA -o LORA.gguf" },
    { "export", "cuanto convert FILE.gguf -o FOLDER writes a Hugging Face folder, with --base MODEL that of a PEFT adapter" },
    { "imatrix", "cuanto importance MODEL -f TEXT -o imatrix.gguf" },
};

const struct command *command_find(const char *name, struct err *e)
{
    const char *names[64];
    int n = 0;
    for (int i = 0; commands[i]; i++) {
        if (!strcmp(commands[i]->name, name)) return commands[i];
        if (n < ARRAY_LEN(names)) names[n++] = commands[i]->name;
    }
    for (int i = 0; i < ARRAY_LEN(foreign); i++)
        if (!strcmp(foreign[i].word, name)) return err_set(e, ERR_USAGE, "no command '%s': %s", name, foreign[i].here), NULL;
    const char *best = nearest(name, names, n);
    if (best) err_set(e, ERR_USAGE, "no command '%.60s'; did you mean %s?", name, best);
    else err_set(e, ERR_USAGE, "no command '%.60s'", name);
    return NULL;
}
