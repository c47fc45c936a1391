/* cli - what every command shares: option rows, the values they fill, opening a model, ending with the right exit code.
 * Commands are rows in commands.c, one file each; an option is one row that generates parsing, help, errors, completion and --show-config. */
#pragma once
#include "ggml-like/cpu.h"
#include "ggml-like/file.h"
#include "ggml-like/json.h"
#include "src/cuanto.h"

/* Values of all options of all commands; zero-initialised, then defaults from the rows, then the command line. */
struct cli {
    const char *model;               /* first positional: path, name in $CUANTO_MODELS / ./models, or a directory with one .gguf;
                                        commands without a model (help, completion) find their first argument here */
    const char *const *args;         /* further positionals, [n_args] */
    int n_args;
    /* model, CPU */
    int64_t ctx, threads, batch;     /* 0 = automatic */
    const char *isa, *kv_type, *k_type, *v_type, *pre; /* k_type, v_type NULL: kv_type */
    const char *rope_scaling;
    float rope_scale, rope_base;
    int64_t yarn_orig_ctx;
    bool no_mmap, check, precise, verbose, quiet, json;
    const char *color;               /* auto, always, never */
    /* sampling */
    struct sampler_options sampling;
    int64_t seed, n_predict;         /* seed -1 = from the clock, printed */
    const char *stop[16]; int n_stop;
    const char *logit_bias[64]; int n_logit_bias;   /* "ID=BIAS" or "ID+BIAS", "ID-BIAS" */
    const char *dry_breaker[16]; int n_dry_breaker; /* none given: the default ones; "none": no one */
    bool ignore_eos;
    const char *grammar, *grammar_file, *json_schema, *json_schema_file; /* at most one of these */
    bool json_mode;                                                      /* and this */
    /* prompt */
    const char *system, *template_name;
    const char *file[16]; int n_file;
    bool raw, extract, no_stream, special, no_bos, bench, no_generation_prompt;
    int64_t top_logprobs;
    const char *messages, *load;
    /* measuring */
    const char *format, *output;     /* md, csv, json, jsonl, text */
    int64_t chunks, reps, delay;
    const char *n_prompt, *n_gen, *depth, *threads_list;  /* lists and ranges, llama-bench style */
    bool no_warmup, all, no_limits;
    const char *pg, *save_logits;    /* bench: "512,128;..." pairs; perplexity: file */
    const char *n_parallel, *kernels, *compare; bool ops, threads_sweep; /* bench; kernels: formats, "" = the model's */
    bool no_history;                 /* chat */
    int64_t beams, n_best; float length_penalty; const char *beam_stop; /* beams 0: no search */
    int64_t lookup;                  /* tokens guessed at a time; 0: none */
    const char *lora[ADAPTERS_MAX]; int n_lora; /* "FILE[:SCALE]" */
    const char *session_file;        /* run, chat: kept between commands */
    /* quantizing */
    const char *imatrix, *method, *granularity, *explain, *report, *split_size, *output_type, *embd_type, *keep_outliers;
    const char *rule[64]; int n_rule;               /* "REGEX=TYPE" */
    const char *size, *fit, *measure, *allow_types; /* in place of a type, with bpw and max_kld */
    float bpw, max_kld;
    int64_t bits, calibration_tokens, measure_tokens;
    bool dry_run, resume, verify, pure, compat, plain_targets, allow_requantize, overwrite, sha256;
    /* converting */
    const char *dtype, *name, *base;  /* base: the model of an adapter; of training data */
    bool allow_unused, vocab_only;
    int64_t rotate_seed; bool no_r1, no_r2, untie; /* rotate */
    const char *merge_type; float merge_scale;      /* merge */
    /* importance, comparing */
    const char *fold, *calibration, *base_logits, *fail_if[16]; int n_fail_if;
    bool legacy, quick;
    const char *ram;
    const char *merge[16]; int n_merge;
    bool process_output, no_ppl;
    int64_t from_chunk;
    /* training data */
    const char *loss, *too_long, *dedupe, *match[16], *drop[16]; int n_match, n_drop;
    int64_t preview, min_chars, max_chars, min_tokens, max_tokens, data_seed;
    float near, split;
    bool skip_bad;
    /* training; 0 = automatic where a default is not named */
    struct {
        const char *valid, *schedule, *plot, *optimizer_file, *sample[8], *target[16];
        int n_sample, n_target;
        float epochs, valid_split, lr, lr_floor, decay, clip, beta1, beta2, adam_eps, dropout, alpha, dpo_beta, save_minutes;
        int64_t steps, batch, rows, memory, warmup, rank, save_every, keep, eval_every, sample_every, sample_tokens, seed;
        bool rslora, full, from_scratch, dpo;
        const char *log;
    } train;
    observe_fn observe; void *observe_ctx;  /* not options: runtime_open hands them to the engine */
};

/* One option. Its environment twin is CUANTO_<NAME> (upper case, - becomes _). Every flag has an opposite: --no-NAME, or --NAME without "no-". */
enum opt_kind { OPT_FLAG, OPT_INT, OPT_FLOAT, OPT_STR, OPT_LIST };
struct opt {
    const char *name;         /* "temp": used as --temp VALUE or --temp=VALUE */
    const char *alias;        /* further spelling: "-t", "--ctx-size" ..., space-separated, or NULL */
    enum opt_kind kind;
    size_t offset;            /* of the value in struct cli: bool, int64_t, float, const char *, const char *[] */
    size_t count_offset;      /* OPT_LIST: of the int that counts */
    int max;                  /* OPT_LIST: capacity */
    const char *value;        /* placeholder in help: "N", "FILE" */
    const char *def;          /* default as text, NULL = zero (sampling: what sampler_defaults sets) */
    double lo, hi;            /* numbers: allowed range, checked; both 0 = any */
    const char *choices;      /* OPT_STR: "a|b|c" or NULL */
    const char *help;         /* one line */
    const char *implied;      /* the value of a bare --name: then another one is only given as --name=VALUE. NULL: a value must follow */
};
struct opt_group { const char *title; const struct opt *rows; int n; };
/* Shared groups, opt.c. common: quiet verbose color json.  model: ctx kv-type no-mmap check pre.  cpu: threads batch isa.
 * sampling: temp top-k top-p min-p repeat-penalty ... seed n-predict stop ignore-eos.  prompt: system template. */
extern const struct opt_group opts_common, opts_model, opts_cpu, opts_sampling, opts_prompt;

struct command {
    const char *name, *brief;        /* brief: one line for `cuanto help` */
    const char *usage;               /* "cuanto run MODEL [PROMPT...] [options]" */
    const char *examples;            /* up to three runnable lines, separated by newlines */
    const struct opt_group *const *groups; /* NULL-terminated; a row in an earlier group hides one of the same name in a later group */
    void (*more)(void);              /* prints a last section of the help, or NULL */
    int min_args, max_args;          /* positionals, model included; -1 = any */
    int (*run)(struct cli *c);       /* returns the exit code */
};
extern const struct command *const commands[]; /* NULL-terminated, commands.c */
extern const struct command command_run, command_chat, command_perplexity, command_compare, command_bench, command_inspect, command_tokenize, command_template,
    command_doctor, command_convert, command_quantize, command_rotate, command_merge, command_train, command_data, command_recommend,
    command_importance, command_completion, command_version, command_help;

/* cli_fail - prints "cuanto: <text>" and, when hint is not NULL, a second line with what to do next; returns the exit code of e
 * (128 + signal for ERR_INTERRUPTED, which prints nothing). */
int cli_fail(const struct err *e, const char *hint);

/* Everything a generating or measuring command needs. */
struct runtime {
    struct cpu_info cpu;
    struct model *model;
    struct engine *engine;
    struct session *session;         /* NULL unless asked for */
    struct adapter *lora[ADAPTERS_MAX];
    int n_lora;
    double load_ms;
};
enum { RUNTIME_DEFAULT_CTX = -1 }; /* as n_ctx: runtime_default_ctx of the model */
enum { RUNTIME_CTX = 4096 };       /* which is this, or the training length where that is less */
/* runtime_open - resolves c->model, opens model and engine, and a session of n_ctx positions when n_ctx != 0 (c->ctx overrides). Prints the status line
 * on stderr unless quiet: model, type, size | context and KV size | threads and why | SIMD level. On failure everything is closed. */
status runtime_open(struct runtime *r, const struct cli *c, int64_t n_ctx, struct err *e) MUST_USE;
void runtime_close(struct runtime *r);
/* session_choices - the options of further sessions of n_ctx positions: the KV types. */
struct session_options session_choices(const struct cli *c, int64_t n_ctx);
/* format_name - what to call the format of a file: the mix that it says it is ("Q4_K_M"), else `dominant`, the type of most of its bytes. */
const char *format_name(const struct gguf *g, const char *dominant);
/* adapter_word - the path and the scale (1) of "FILE" or "FILE:SCALE". */
status adapter_word(const char *text, char *path, size_t cap, float *scale, struct err *e) MUST_USE;
/* default context: min(training length, 4096) */
int64_t runtime_default_ctx(const struct model *m);
/* model_find - the file that a model argument means: a path, a directory with exactly one .gguf, or a name (with or without .gguf) in
 * $CUANTO_MODELS (colon list) or ./models. ERR_FILE lists the places searched. */
status model_find(const char *name, char *path, size_t cap, struct err *e) MUST_USE;

/* output_apart - before the work: ERR_USAGE when one of the n others (inputs or other outputs; model names or paths, NULL ones left out) is the file that
 * `path` would replace, whether it is there yet or not. path NULL: nothing to check. what: the option, for messages. */
status output_apart(const char *what, const char *path, const char *const *other, int n, struct err *e) MUST_USE;
/* output_check - the same, and `path` can be written (ERR_FILE, ERR_RUNTIME). */
status output_check(const char *what, const char *path, const char *const *other, int n, struct err *e) MUST_USE;

/* ---- term.c: terminal, progress, signals ---- */
extern volatile int cli_interrupted;      /* set by SIGINT / SIGTERM: the signal number. Long loops look at it */
void cli_signals(void);                   /* SIGINT, SIGTERM set the flag (a second SIGINT exits 130 after restoring the terminal); SIGPIPE ignored */
/* cli_signals_at_once - on: the first signal ends the process too, for work that nothing outlives (loading, a prompt being read). Returns what it
 * was. Off at the start. */
bool cli_signals_at_once(bool on);
bool term_is_tty(int fd);
bool term_color(const struct cli *c, int fd); /* --color, NO_COLOR, TERM=dumb, tty */
int term_width(void);
/* out_write - all bytes to stdout, false when stdout is closed or full (ERR_RUNTIME, quiet for EPIPE: exit 141-style, see README) */
bool out_write(const char *p, size_t n);
bool out_printf(const char *fmt, ...) PRINTF_LIKE(1, 2);
bool out_flush(void);                     /* writes are buffered; main flushes at the end */
int out_status(void);                     /* exit code for a failed stdout: 0 ok, 141 EPIPE, 1 others (message printed once) */

/* bar - progress on stderr: "prefill  42% |####    | 860/2048 tok  412 tok/s  ETA 3s", at most 10 times a second on a terminal, one line per
 * 10 % or 30 s elsewhere, nothing when quiet. before: of what is done, the part that an earlier run did; rate and ETA leave it out.
 * bar_end erases it (terminal) or leaves the last line. */
struct bar { const char *label, *unit; int64_t total, before; double start, since, shown; int last; bool quiet, tty; };
void bar_begin(struct bar *b, const struct cli *c, const char *label, const char *unit, int64_t total);
void bar_update(struct bar *b, int64_t done, const char *extra); /* extra may be NULL; done = 0 shows at once on a terminal */
void bar_end(struct bar *b);

const char *size_text(uint64_t bytes, char buf[32]);  /* "88.2 MiB" */
