/* opt - the shared option rows and the one parser that all commands use. Knows nothing of what the values are for.
 * A value is stored through the row's offset; the row alone decides type, range, spelling and help. */
#include "tools/opt.h"
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

OPT_GROUP(opts_common, "Common", ROW_JSON, ROW_QUIET, ROW_VERBOSE, ROW_COLOR);

OPT_GROUP(opts_model, "Model",
    { "ctx", "-c --ctx-size", OPT_INT, OPT_AT(ctx), .value = "N", .hi = 16777216,
      .help = "context in tokens; 0: the training length, at most 4096" },
    ROW_LORA,
    ROW_KV_TYPE("number format of the KV cache"),
    { "cache-type-k", "-ctk", OPT_STR, OPT_AT(k_type), .value = "TYPE", .choices = "f16|bf16|f32|q8_0|q4_0", .help = "of its keys only; default: --kv-type" },
    { "cache-type-v", "-ctv", OPT_STR, OPT_AT(v_type), .value = "TYPE", .choices = "f16|bf16|f32|q8_0|q4_0", .help = "of its values only; default: --kv-type" },
    { "no-mmap", NULL, OPT_FLAG, OPT_AT(no_mmap), .help = "read the file into memory instead of mapping it" },
    { "check", "--check-tensors", OPT_FLAG, OPT_AT(check), .help = "scan all weights for NaN and infinities first" },
    { "rope-scaling", NULL, OPT_STR, OPT_AT(rope_scaling), .value = "KIND", .choices = "none|linear|yarn|longrope|ntk",
      .help = "stretch positions to reach beyond the training length; default: as the file says" },
    { "rope-scale", NULL, OPT_FLOAT, OPT_AT(rope_scale), .value = "X", .hi = 1e6, .help = "by this factor, with --rope-scaling" },
    { "rope-freq-base", NULL, OPT_FLOAT, OPT_AT(rope_base), .value = "X", .hi = 1e12, .help = "base frequency of the positions; 0: the file's" },
    { "yarn-orig-ctx", NULL, OPT_INT, OPT_AT(yarn_orig_ctx), .value = "N", .hi = 16777216, .help = "context before stretching; 0: the training length" },
    ROW_PRE);

OPT_GROUP(opts_cpu, "CPU",
    { "threads", "-t", OPT_INT, OPT_AT(threads), .value = "N", .hi = 512, .help = "threads; 0: one per physical core within the cgroup limit" },
    { "batch", "-b --batch-size", OPT_INT, OPT_AT(batch), .value = "N", .hi = 65536, .help = "prompt tokens in one pass; 0: automatic" },
    { "precise", NULL, OPT_FLAG, OPT_AT(precise),
      .help = "prompts beyond 64 tokens with 15-bit activations, too: 1.3 to 1.5 times the time, a hundredth of the error" },
    { "isa", NULL, OPT_STR, OPT_AT(isa), .value = "LEVEL", .help = "strongest instruction set to use; default: all" });

OPT_GROUP(opts_sampling, "Sampling",
    { "temp", "--temperature", OPT_FLOAT, OPT_AT(sampling.temperature), .value = "T", .hi = 1000, .help = "randomness; 0: always the likeliest token" },
    { "top-k", NULL, OPT_INT, OPT_AT(sampling.top_k), .value = "K", .lo = -1, .hi = 1e9, .help = "only the K likeliest tokens; 0: all" },
    { "top-p", NULL, OPT_FLOAT, OPT_AT(sampling.top_p), .value = "P", .hi = 1, .help = "only the likeliest tokens that sum to P; 1: all" },
    { "min-p", NULL, OPT_FLOAT, OPT_AT(sampling.min_p), .value = "P", .hi = 1, .help = "drop tokens less likely than P times the best; 0: none" },
    { "top-nsigma", "--top-n-sigma", OPT_FLOAT, OPT_AT(sampling.top_n_sigma), .value = "N", .lo = -1, .hi = 1e6,
      .help = "only logits within N standard deviations of the best; 0 or less: off" },
    { "typical", "--typical-p", OPT_FLOAT, OPT_AT(sampling.typical_p), .value = "P", .hi = 1,
      .help = "only the tokens whose surprise is nearest to the average, up to P; 1: off" },
    { "xtc-probability", NULL, OPT_FLOAT, OPT_AT(sampling.xtc_probability), .value = "P", .hi = 1,
      .help = "how often the likeliest tokens are left out; 0: never" },
    { "xtc-threshold", NULL, OPT_FLOAT, OPT_AT(sampling.xtc_threshold), .value = "P", .hi = 1,
      .help = "of the tokens at least this likely only the last stays; above 0.5: off" },
    { "dynatemp-range", NULL, OPT_FLOAT, OPT_AT(sampling.dynatemp_range), .value = "R", .hi = 1000,
      .help = "temperature between T - R and T + R, the higher the less sure; 0: off" },
    { "dynatemp-exp", NULL, OPT_FLOAT, OPT_AT(sampling.dynatemp_exponent), .value = "X", .hi = 1000, .help = "exponent of the dynamic temperature" },
    { "repeat-penalty", NULL, OPT_FLOAT, OPT_AT(sampling.repeat_penalty), .value = "X", .lo = 1e-3, .hi = 1000,
      .help = "divide logits of recent tokens; 1: off" },
    { "repeat-last-n", NULL, OPT_INT, OPT_AT(sampling.repeat_last), .value = "N", .lo = -1, .hi = 1 << 24,
      .help = "tokens that penalties look at; 0: none, -1: all" },
    { "presence-penalty", NULL, OPT_FLOAT, OPT_AT(sampling.presence_penalty), .value = "X", .lo = -100, .hi = 100,
      .help = "subtracted once per token seen" },
    { "frequency-penalty", NULL, OPT_FLOAT, OPT_AT(sampling.frequency_penalty), .value = "X", .lo = -100, .hi = 100,
      .help = "subtracted per occurrence" },
    { "dry-multiplier", NULL, OPT_FLOAT, OPT_AT(sampling.dry_multiplier), .value = "X", .hi = 1e6,
      .help = "strength of the penalty on prolonging a repetition (DRY); 0: off" },
    { "dry-base", NULL, OPT_FLOAT, OPT_AT(sampling.dry_base), .value = "X", .lo = 1, .hi = 1e6, .help = "DRY: growth of the penalty per token" },
    { "dry-allowed-length", NULL, OPT_INT, OPT_AT(sampling.dry_allowed_length), .value = "N", .lo = 1, .hi = 1 << 24,
      .help = "DRY: repetitions up to this length are free" },
    { "dry-penalty-last-n", NULL, OPT_INT, OPT_AT(sampling.dry_last), .value = "N", .lo = -1, .hi = 1 << 24,
      .help = "DRY: tokens searched; 0: none, -1: the context" },
    { "dry-sequence-breaker", NULL, OPT_LIST, OPT_AT(dry_breaker), OPT_AT(n_dry_breaker), 16, .value = "TEXT",
      .help = "DRY: text that ends a repetition (default: newline, colon, double quote, asterisk; none: no text), repeatable" },
    { "mirostat", NULL, OPT_INT, OPT_AT(sampling.mirostat), .value = "N", .hi = 2,
      .help = "1 or 2: steer the surprise in place of all cuts and penalties; 0: off" },
    { "mirostat-ent", NULL, OPT_FLOAT, OPT_AT(sampling.mirostat_tau), .value = "BITS", .hi = 1000, .help = "mirostat: wanted surprise (tau)" },
    { "mirostat-lr", NULL, OPT_FLOAT, OPT_AT(sampling.mirostat_eta), .value = "X", .hi = 1000, .help = "mirostat: learning rate (eta)" },
    { "logit-bias", NULL, OPT_LIST, OPT_AT(logit_bias), OPT_AT(n_logit_bias), 64, .value = "ID=BIAS",
      .help = "add to a token's logit (-inf forbids it), repeatable" },
    { "grammar", NULL, OPT_STR, OPT_AT(grammar), .value = "GBNF", .help = "answer only what fits this grammar" },
    { "grammar-file", NULL, OPT_STR, OPT_AT(grammar_file), .value = "FILE", .help = "the same, from a file" },
    { "json-schema", "-j", OPT_STR, OPT_AT(json_schema), .value = "SCHEMA", .help = "answer with JSON that this JSON schema allows" },
    { "json-schema-file", NULL, OPT_STR, OPT_AT(json_schema_file), .value = "FILE", .help = "the same, from a file" },
    { "json-mode", NULL, OPT_FLAG, OPT_AT(json_mode), .help = "answer with any one JSON value" },
    { "seed", NULL, OPT_INT, OPT_AT(seed), .value = "N", .def = "-1", .lo = -1, .hi = 0x1p63, .help = "random seed; -1: from the clock" },
    { "n-predict", "-n", OPT_INT, OPT_AT(n_predict), .value = "N", .def = "-1", .lo = -1, .hi = 1e12,
      .help = "tokens to generate; -1: until the end or a full context" },
    { "stop", NULL, OPT_LIST, OPT_AT(stop), OPT_AT(n_stop), 16, .value = "TEXT", .help = "stop before this text, repeatable" },
    { "ignore-eos", NULL, OPT_FLAG, OPT_AT(ignore_eos), .help = "never choose an end token" });

OPT_GROUP(opts_prompt, "Prompt",
    { "system", "-s", OPT_STR, OPT_AT(system), .value = "TEXT", .help = "system message" },
    ROW_TEMPLATE);

/* Rows of every command, handled by the parser itself. */
static const struct opt builtin_rows[] = {
    { "help", "-h", OPT_FLAG, 0, .help = "show this help" },
    { "show-config", NULL, OPT_FLAG, 0, .help = "print every option with its value and where it came from, and do nothing else" },
};

/* ---- rows ---- */

static bool hidden(const struct command *cmd, const struct opt_group *const *at, const struct opt *o)
{
    for (const struct opt_group *const *g = cmd->groups; g < at; g++)
        for (int i = 0; i < (*g)->n; i++)
            if (!strcmp((*g)->rows[i].name, o->name)) return true;
    return false;
}

const struct opt *opt_at(const struct command *cmd, int i, const struct opt_group **group)
{
    for (const struct opt_group *const *g = cmd->groups; g && *g; g++)
        for (int j = 0; j < (*g)->n; j++) {
            if (hidden(cmd, g, &(*g)->rows[j])) continue;
            if (i-- > 0) continue;
            if (group) *group = *g;
            return &(*g)->rows[j];
        }
    return NULL;
}

static bool same(const char *a, size_t na, const char *b) { return strlen(b) == na && !memcmp(a, b, na); }

/* Is `word` (n bytes, with its dashes) a spelling of the row? *negated tells that it is the opposite of a flag. */
static bool spells(const struct opt *o, const char *word, size_t n, bool *negated)
{
    *negated = false;
    for (const char *a = o->alias; a && *a;) {
        size_t len = strcspn(a, " ");
        if (len == n && !memcmp(a, word, n)) return true;
        a += len + strspn(a + len, " ");
    }
    if (n < 3 || word[0] != '-' || word[1] != '-') return false;
    word += 2, n -= 2;
    if (same(word, n, o->name)) return true;
    if (o->kind != OPT_FLAG) return false;
    *negated = true;
    if (!strncmp(o->name, "no-", 3)) return same(word, n, o->name + 3);
    return n > 3 && !memcmp(word, "no-", 3) && same(word + 3, n - 3, o->name);
}

const struct opt *opt_named(const struct opt_group *g, const char *word, size_t n, bool *negated)
{
    char typed[64];
    while (n > 0 && *word == '-') word++, n--;
    if (n == 0 || n > 60) return NULL;
    int len = snprintf(typed, sizeof typed, "--%.*s", (int)n, word);
    for (int i = 0; i < len; i++) typed[i] = typed[i] == '_' ? '-' : typed[i];
    for (int i = 0; i < g->n; i++)
        for (int dashes = 2; dashes > 0; dashes--) /* --top-k; -n */
            if (spells(&g->rows[i], typed + 2 - dashes, (size_t)(len - 2 + dashes), negated)) return &g->rows[i];
    return NULL;
}

static const struct opt *find(const struct command *cmd, const char *word, size_t n, int *index, bool *negated)
{
    const struct opt *o;
    for (int i = 0; i < ARRAY_LEN(builtin_rows); i++)
        if (spells(&builtin_rows[i], word, n, negated) && !*negated) return *index = -1, &builtin_rows[i];
    for (int i = 0; (o = opt_at(cmd, i, NULL)); i++)
        if (spells(o, word, n, negated)) return *index = i, o;
    return NULL;
}

void opt_env_name(const struct opt *o, char buf[64])
{
    int n = snprintf(buf, 64, "CUANTO_%s", o->name);
    for (int i = 0; i < n && i < 63; i++) buf[i] = buf[i] == '-' ? '_' : (char)toupper((unsigned char)buf[i]);
}

/* ---- values ---- */

static bool parse_bool(const char *s, bool *out)
{
    static const char *const words[] = { "0", "off", "false", "disabled", "no", "1", "on", "true", "enabled", "yes" };
    for (int i = 0; i < ARRAY_LEN(words); i++)
        if (!strcmp(s, words[i])) return *out = i >= 5, true;
    return false;
}

static status bad_range(const struct opt *o, const char *what, const char *text, struct err *e)
{
    if (o->hi >= 1e12) return err_set(e, ERR_USAGE, "%s: %s is out of range, at least %g is allowed", what, text, o->lo);
    return err_set(e, ERR_USAGE, "%s: %s is out of range %.10g..%.10g", what, text, o->lo, o->hi);
}

static bool in_range(const struct opt *o, double v) { return (o->lo == 0 && o->hi == 0) || (v >= o->lo && v <= o->hi); }

static status store_int(int64_t *out, const struct opt *o, const char *text, const char *what, struct err *e)
{
    char *end;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    if (end == text || *end || isspace((unsigned char)*text)) return err_set(e, ERR_USAGE, "%s: '%s' is not a whole number", what, text);
    if (errno == ERANGE || !in_range(o, (double)v)) return bad_range(o, what, text, e);
    *out = v;
    return OK;
}

static status store_float(float *out, const struct opt *o, const char *text, const char *what, struct err *e)
{
    char *end;
    double v = strtod(text, &end);
    if (end == text || *end || isspace((unsigned char)*text)) return err_set(e, ERR_USAGE, "%s: '%s' is not a number", what, text);
    if (isnan(v) || !in_range(o, v)) return bad_range(o, what, text, e);
    *out = (float)v;
    return OK;
}

static const char *choice_hint(const struct opt *o, const char *text)
{
    static const struct { const char *name, *text, *hint; } rows[] = {
        { "rope-scaling", "dynamic", "; ntk is dynamic with a factor that stays the same" },
    };
    for (int i = 0; i < ARRAY_LEN(rows); i++)
        if (!strcmp(rows[i].name, o->name) && !strcmp(rows[i].text, text)) return rows[i].hint;
    return "";
}

static status store_str(const char **out, const struct opt *o, const char *text, const char *what, struct err *e)
{
    for (const char *p = o->choices; p && *p;) {
        size_t len = strcspn(p, "|");
        if (same(p, len, text)) break;
        p += len + (p[len] == '|');
        if (!*p) return err_set(e, ERR_USAGE, "%s: '%s' is not one of %s%s", what, text, o->choices, choice_hint(o, text));
    }
    *out = text;
    return OK;
}

status opt_store(struct cli *c, const struct opt *o, const char *text, const char *what, struct err *e)
{
    char *at = (char *)c + o->offset;
    switch (o->kind) {
    case OPT_FLAG:
        if (parse_bool(text, (bool *)at)) return OK;
        return err_set(e, ERR_USAGE, "%s: '%s' is not one of 1, on, true, enabled, 0, off, false, disabled", what, text);
    case OPT_INT: return store_int((int64_t *)at, o, text, what, e);
    case OPT_FLOAT: return store_float((float *)at, o, text, what, e);
    case OPT_STR: return store_str((const char **)at, o, text, what, e);
    case OPT_LIST: break;
    }
    int *n = (int *)((char *)c + o->count_offset);
    if (*n >= o->max) return err_set(e, ERR_USAGE, "%s: given more than %d times", what, o->max);
    if (!*text) return err_set(e, ERR_USAGE, "%s: the value is empty", what);
    ((const char **)at)[(*n)++] = text;
    return OK;
}

void opt_text(const struct cli *c, const struct opt *o, char *buf, size_t cap)
{
    const char *at = (const char *)c + o->offset;
    *buf = 0;
    if (o->kind == OPT_FLAG) snprintf(buf, cap, "%s", *(const bool *)at ? "on" : "off");
    else if (o->kind == OPT_INT) snprintf(buf, cap, "%lld", (long long)*(const int64_t *)at);
    else if (o->kind == OPT_FLOAT) snprintf(buf, cap, "%.7g", (double)*(const float *)at);
    else if (o->kind == OPT_STR) snprintf(buf, cap, "%s", *(const char *const *)at ? *(const char *const *)at : "");
    else
        for (int i = 0; i < *(const int *)((const char *)c + o->count_offset); i++) {
            size_t n = strlen(buf);
            snprintf(buf + n, cap - n, "%s%s", i ? "," : "", ((const char *const *)at)[i]);
        }
}

/* ---- parsing ---- */

static status set_defaults(const struct command *cmd, struct cli *c, struct err *e)
{
    const struct opt *o;
    *c = (struct cli){ 0 };
    sampler_defaults(&c->sampling);
    c->color = "auto";
    for (int i = 0; (o = opt_at(cmd, i, NULL)); i++)
        if (o->def) TRY(opt_store(c, o, o->def, o->name, e));
    return OK;
}

static status read_environment(const struct command *cmd, struct cli *c, struct opt_result *r, struct err *e)
{
    const struct opt *o;
    for (int i = 0; (o = opt_at(cmd, i, NULL)) && i < OPT_MAX; i++) {
        char name[64];
        opt_env_name(o, name);
        const char *text = getenv(name);
        if (!text || !*text) continue;
        TRY(opt_store(c, o, text, name, e));
        r->source[i] = OPT_ENV;
    }
    return OK;
}

/* Spellings that other programs taught, and what this one calls them. Only asked where a command does not know the word itself. */
static const struct { const char *word, *here; } foreign[] = {
    { "-m", "the model is the first argument: cuanto COMMAND MODEL" },
    { "--model", "the model is the first argument: cuanto COMMAND MODEL" },
    { "-p", "the prompt is an argument of its own: cuanto run MODEL 'TEXT', or -f FILE" },
    { "--prompt", "the prompt is an argument of its own: cuanto run MODEL 'TEXT', or -f FILE" },
    { "-ngl", "everything runs on the CPU, leave it out" },
    { "--n-gpu-layers", "everything runs on the CPU, leave it out" },
    { "--gpu-layers", "everything runs on the CPU, leave it out" },
    { "--max-tokens", "here it is -n N" },
    { "--max-new-tokens", "here it is -n N" },
    { "--rope-freq-scale", "here it is --rope-scaling linear --rope-scale N, with N = 1 / that value" },
    { "-o", "the output is an argument of its own; see the usage" },
};

static status unknown(const struct command *cmd, const char *word, size_t n, struct err *e)
{
    for (int i = 0; i < ARRAY_LEN(foreign); i++)
        if (same(word, n, foreign[i].word)) return err_set(e, ERR_USAGE, "%s has no option %s: %s", cmd->name, foreign[i].word, foreign[i].here);
    char typed[64];
    char spelled[OPT_MAX * 2][64];
    const char *list[OPT_MAX * 2];
    int count = 0;
    const struct opt *o;
    snprintf(typed, sizeof typed, "%.*s", (int)(n < 60 ? n : 60), word);
    for (int i = -ARRAY_LEN(builtin_rows); i < 0 || opt_at(cmd, i, NULL); i++) {
        o = i < 0 ? &builtin_rows[-1 - i] : opt_at(cmd, i, NULL);
        if (count < OPT_MAX * 2) snprintf(spelled[count], 64, "--%s", o->name), list[count] = spelled[count], count++;
        for (const char *a = o->alias; a && *a && count < OPT_MAX * 2; a += strspn(a, " ")) {
            size_t len = strcspn(a, " ");
            if (len > 2) snprintf(spelled[count], 64, "%.*s", (int)len, a), list[count] = spelled[count], count++;
            a += len;
        }
    }
    const char *best = nearest(typed, list, count);
    if (best) return err_set(e, ERR_USAGE, "%s has no option %s; did you mean %s?", cmd->name, typed, best);
    return err_set(e, ERR_USAGE, "%s has no option %s", cmd->name, typed);
}

/* -n5: a short option of one letter with a number stuck to it. */
static bool stuck_number(const char *w)
{
    if (w[0] != '-' || !isalpha((unsigned char)w[1])) return false;
    return isdigit((unsigned char)w[2]) || (w[2] == '-' && isdigit((unsigned char)w[3]));
}

static bool is_option(const char *w)
{
    return w[0] == '-' && w[1] && !(isdigit((unsigned char)w[1]) || (w[1] == '.' && isdigit((unsigned char)w[2])));
}

static bool is_number(const char *s)
{
    char *end;
    if (!isdigit((unsigned char)*s) && *s != '.') return false;
    strtod(s, &end);
    return !*end;
}

/* Values that would silently become part of the prompt: a number behind an option that may stand alone ("--lookup 8"), and llama.cpp's second
 * word of --lora-scaled. word: the option and what follows it, `left` words. */
static status loose_number(const struct opt *o, char **word, int left, const char *what, struct err *e)
{
    if (o->implied && left > 1 && is_number(o->implied) && is_number(word[1]))
        return err_set(e, ERR_USAGE, "%s %s: the value of this option is stuck to it: %s=%s", what, word[1], what, word[1]);
    if (!strcmp(what, "--lora-scaled") && left > 2 && is_number(word[2]))
        return err_set(e, ERR_USAGE, "--lora-scaled %s %s: the scale stands behind a colon: --lora %s:%s", word[1], word[2], word[1], word[2]);
    return OK;
}

/* F16 for f16: the choice as the row spells it. */
static void fold_choice(const struct opt *o, char *text)
{
    size_t n = strlen(text);
    for (const char *p = o->choices; p && *p;) {
        size_t len = strcspn(p, "|");
        if (len == n && !strncasecmp(p, text, n)) memcpy(text, p, n);
        p += len + (p[len] == '|');
    }
}

/* One option word at argv[i]; returns with *used = words consumed. */
static status take(const struct command *cmd, struct cli *c, struct opt_result *r, char **argv, int left, int *used, struct err *e)
{
    char *word = argv[0], *value = NULL;
    size_t n = strcspn(word, "=");
    int index;
    bool negated;
    *used = 1;
    const struct opt *o = find(cmd, word, n, &index, &negated);
    if (o && word[n]) value = word + n + 1;
    if (!o && stuck_number(word)) {
        o = find(cmd, word, 2, &index, &negated);
        if (o && o->kind == OPT_FLAG) o = NULL;
        value = word + 2, n = 2;
    }
    if (!o) return unknown(cmd, word, n, e);
    char what[64];
    snprintf(what, sizeof what, "%.*s", (int)(n < 60 ? n : 60), word);
    if (o == &builtin_rows[0]) return r->help = true, OK;
    if (o == &builtin_rows[1]) return r->show_config = true, OK;
    if (o->kind == OPT_FLAG && !value) value = (char *)"on";
    if (!value) TRY(loose_number(o, argv, left, what, e));
    const char *text = value ? value : o->implied;
    if (value) fold_choice(o, value);
    if (!text) {
        int other;
        bool neg;
        if (left < 2) return err_set(e, ERR_USAGE, "%s needs a value %s", what, o->value ? o->value : "");
        text = argv[1];
        if (!strncmp(text, "--", 2) && find(cmd, text, strcspn(text, "="), &other, &neg))
            return err_set(e, ERR_USAGE, "%s needs a value %s, but %s follows (%s=%s passes it as text)", what, o->value ? o->value : "", text,
                           what, text);
        fold_choice(o, argv[1]);
        *used = 2;
    }
    if (o->kind == OPT_LIST && r->source[index] != OPT_WORD) *(int *)((char *)c + o->count_offset) = 0;
    TRY(opt_store(c, o, text, what, e));
    if (negated) *(bool *)((char *)c + o->offset) ^= true;
    r->source[index] = OPT_WORD;
    return OK;
}

status opt_parse(const struct command *cmd, int argc, char **argv, struct cli *c, struct opt_result *r, struct err *e)
{
    *r = (struct opt_result){ 0 };
    TRY(set_defaults(cmd, c, e));
    TRY(read_environment(cmd, c, r, e));
    int n = 0;
    bool options = true;
    for (int i = 0; i < argc; i++) {
        int used = 1;
        if (options && !strcmp(argv[i], "--")) options = false;
        else if (options && is_option(argv[i])) TRY(take(cmd, c, r, argv + i, argc - i, &used, e));
        else argv[n++] = argv[i];
        i += used - 1;
    }
    c->model = n ? argv[0] : NULL;
    c->args = (const char *const *)argv + (n > 0);
    c->n_args = n > 0 ? n - 1 : 0;
    if (r->help || r->show_config) return OK;
    int usage = (int)strcspn(cmd->usage, "\n"); /* errors are one line */
    if (n < cmd->min_args)
        return err_set(e, ERR_USAGE, "%s needs %s; usage: %.*s", cmd->name, n ? "more arguments" : "an argument", usage, cmd->usage);
    if (cmd->max_args >= 0 && n > cmd->max_args)
        return err_set(e, ERR_USAGE, "%s takes no argument '%s'; usage: %.*s", cmd->name, argv[cmd->max_args], usage, cmd->usage);
    return OK;
}

/* ---- suggestions ---- */

/* Edit distance with transpositions (Damerau-Levenshtein, restricted); words longer than 31 bytes are cut. */
static int distance(const char *a, const char *b)
{
    int d[32][32], n = (int)strnlen(a, 31), m = (int)strnlen(b, 31);
    for (int i = 0; i <= n; i++) d[i][0] = i;
    for (int j = 0; j <= m; j++) d[0][j] = j;
    for (int i = 1; i <= n; i++)
        for (int j = 1; j <= m; j++) {
            int v = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
            if (d[i - 1][j] + 1 < v) v = d[i - 1][j] + 1;
            if (d[i][j - 1] + 1 < v) v = d[i][j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && d[i - 2][j - 2] + 1 < v) v = d[i - 2][j - 2] + 1;
            d[i][j] = v;
        }
    return d[n][m];
}

const char *nearest(const char *word, const char *const *candidates, int n)
{
    const char *best = NULL;
    int letters = (int)strlen(word + strspn(word, "-/")), limit = letters < 4 ? 1 : letters < 9 ? 2 : 3, least = limit + 1;
    for (int i = 0; i < n; i++) {
        int d = distance(word, candidates[i]);
        if (d < least) least = d, best = candidates[i];
    }
    return best;
}
