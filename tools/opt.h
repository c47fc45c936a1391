/* opt - from words and the environment to struct cli, by the option rows of one command. Rows in opt.c and in the command files.
 * Options stand before and after positionals; --name value, --name=value, -n value; `--` ends options; a value may begin with a dash.
 * Later words win over earlier ones, words over the environment, the environment over defaults. */
#pragma once
#include "tools/cli.h"

/* Rows that more than one group lists. */
#define OPT_AT(field) offsetof(struct cli, field)
#define ROW_QUIET { "quiet", "-q", OPT_FLAG, OPT_AT(quiet), .help = "errors only on stderr" }
#define ROW_VERBOSE { "verbose", "-v", OPT_FLAG, OPT_AT(verbose), .help = "more details on stderr" }
#define ROW_COLOR                                                                                                           \
    { "color", NULL, OPT_STR, OPT_AT(color), .value = "WHEN", .def = "auto", .choices = "auto|always|never", .help = "colour on terminals" }
#define ROW_JSON { "json", NULL, OPT_FLAG, OPT_AT(json), .help = "one JSON value on stdout instead of text" }
#define ROW_TEMPLATE                                                                                                        \
    { "template", "--chat-template", OPT_STR, OPT_AT(template_name), .value = "NAME|FILE",                                  \
      .help = "chat template: a built-in name (chatml, llama3, ...) or a file" }
#define ROW_PRE { "pre", NULL, OPT_STR, OPT_AT(pre), .value = "NAME", .help = "pre-tokenizer instead of the file's own" }
#define ROW_FILE                                                                                                            \
    { "file", "-f", OPT_LIST, OPT_AT(file), OPT_AT(n_file), 16, .value = "FILE", .help = "add a file to the text, repeatable (- is stdin)" }
#define ROW_KV_TYPE(text)                                                                                                   \
    { "kv-type", "--cache-type", OPT_STR, OPT_AT(kv_type), .value = "TYPE", .def = "f16", .choices = "f16|bf16|f32|q8_0|q4_0", .help = text }
#define ROW_LORA                                                                                                            \
    { "lora", "--lora-scaled", OPT_LIST, OPT_AT(lora), OPT_AT(n_lora), ADAPTERS_MAX, .value = "FILE[:SCALE]",               \
      .help = "add a LoRA adapter (GGUF) to the model, repeatable" }
#define ROW_LOOKUP                                                                                                          \
    { "lookup", "--draft-ngram", OPT_INT, OPT_AT(lookup), .value = "N", .hi = SINGLE_ROWS - 1, .implied = "8",              \
      .help = "guess up to N tokens (8) from the text so far and check them in one pass: the same answer, faster where it repeats" }
#define ROW_SESSION(text) { "session", "--prompt-cache", OPT_STR, OPT_AT(session_file), .value = "FILE", .help = text }
/* How training data are read: train, data. */
#define ROW_LOSS                                                                                                            \
    { "loss", "--mask", OPT_STR, OPT_AT(loss), .value = "WHAT", .def = "answers", .choices = "answers|last|all",            \
      .help = "learn from all turns of the assistant, from the last one, or from every token" }
#define ROW_TOO_LONG                                                                                                        \
    { "too-long", NULL, OPT_STR, OPT_AT(too_long), .value = "WHAT", .def = "drop", .choices = "drop|cut|error",             \
      .help = "samples beyond the context: left out, cut at the end, refused; texts are split" }
#define ROW_SKIP_BAD { "skip-bad", NULL, OPT_FLAG, OPT_AT(skip_bad), .help = "leave bad rows out, and go on" }
#define ROW_SPECIAL_ROWS { "special", NULL, OPT_FLAG, OPT_AT(special), .help = "rows of text: text of control tokens becomes those tokens" }
#define ROW_PREVIEW                                                                                                         \
    { "preview", NULL, OPT_INT, OPT_AT(preview), .value = "N", .hi = 1e6, .help = "only show N samples as the model sees them, with what is learnt marked" }
#define OPT_GROUP(id, group_title, ...)                                    \
    static const struct opt id##_rows[] = { __VA_ARGS__ };                 \
    const struct opt_group id = { group_title, id##_rows, ARRAY_LEN(id##_rows) }

enum opt_source { OPT_DEFAULT, OPT_ENV, OPT_WORD };
enum { OPT_MAX = 96 };

/* What parsing found besides values. */
struct opt_result {
    enum opt_source source[OPT_MAX]; /* by row index, in the order of opt_at */
    bool help, show_config;
};

/* opt_at - row i of a command counted over all its groups (hidden duplicates skipped), NULL past the end. group may be NULL. */
const struct opt *opt_at(const struct command *cmd, int i, const struct opt_group **group);

/* opt_named - the row of one group under any of its spellings, with or without dashes, _ for - too; NULL: none. word: n bytes.
 * *negated: it is the opposite of a flag. */
const struct opt *opt_named(const struct opt_group *g, const char *word, size_t n, bool *negated);

/* opt_parse - fills *c. Words stay where they are; the positionals among them are moved to the front of argv. ERR_USAGE names option, value and
 * range, or the nearest option. The number of positionals is checked unless help or show_config was asked for. */
status opt_parse(const struct command *cmd, int argc, char **argv, struct cli *c, struct opt_result *r, struct err *e) MUST_USE;

/* opt_store - sets one value from text; what stands in messages for the option ("--temp", "CUANTO_TEMP"). */
status opt_store(struct cli *c, const struct opt *o, const char *text, const char *what, struct err *e) MUST_USE;
/* opt_text - the current value as text; list items joined by commas. */
void opt_text(const struct cli *c, const struct opt *o, char *buf, size_t cap);
/* opt_env_name - "CUANTO_TOP_K" */
void opt_env_name(const struct opt *o, char buf[64]);

/* nearest - of n candidates the one closest to word, NULL when none is close enough to suggest. */
const char *nearest(const char *word, const char *const *candidates, int n);
/* command_find - NULL, with the nearest name in e, when there is none of this name. */
const struct command *command_find(const char *name, struct err *e);
/* help_command - usage, options by group, examples, on stdout. */
void help_command(const struct command *cmd);
extern const char cuanto_version[];
/* show_config - every value of the command with its source. */
void show_config(const struct command *cmd, const struct cli *c, const struct opt_result *r);
