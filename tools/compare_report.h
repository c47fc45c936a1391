/* compare_report - the figures of `cuanto compare` by name: text, Markdown, CSV, JSON, a page of HTML, and the conditions of --fail-if. One table of
 * metrics serves them all. Knows no model. */
#pragma once
#include "tools/buffer.h"
#include "tools/kld.h"

enum { COMPARE_BINS = 24 };

/* One model of a comparison. */
struct compared {
    const char *path, *type;     /* as given; its mix, else the type of most bytes */
    char name[48];               /* file name without folder and .gguf, cut */
    double bytes, bpw, speed;    /* of the file; bits per weight; tokens per second in this run, scoring included. NaN: not known */
    struct kld_stats s;          /* of the reference: only n, ppl, and 1 for top1 */
    double kld_bin[COMPARE_BINS]; /* mean KL by position in the scored half of a chunk */
};
struct comparison {
    const struct compared *ref;  /* its path is the logits file when the reference was not run */
    const struct compared *model;
    int n_models;
    int64_t n_ctx, n_chunks, n_tokens, n_vocab; /* n_tokens: scored */
    int n_bins;                  /* of kld_bin in use, <= COMPARE_BINS */
    const char *text;            /* file that was scored */
    const char *isa;
    int threads;
    bool precise, bos;
    double seconds;
};

/* One figure. */
struct metric {
    const char *name;            /* stable: JSON, CSV, --fail-if */
    size_t offset;               /* of a double in struct compared */
    double scale;                /* what is shown = stored * scale: 100 for percentages */
    bool both;                   /* the reference has it too */
    const char *brief;
};
extern const struct metric metrics[];
extern const int metric_count;
double metric_value(const struct metric *m, const struct compared *c);

/* A condition that must not hold: "kld>0.05", "top1 < 98", "size>=4G" (K, M, G: powers of 1024; % after percentages is read over). */
struct gate { const struct metric *metric; bool less, equal; double limit; const char *text; };
/* gate_parse - ERR_USAGE names the known figures, or what is wrong in the text. */
status gate_parse(struct gate *g, const char *text, struct err *e) MUST_USE;
/* gate_fails - whether the condition holds for this model; a figure that is no number fails too. */
bool gate_fails(const struct gate *g, const struct compared *c);

enum compare_format { COMPARE_TEXT, COMPARE_MD, COMPARE_CSV, COMPARE_JSON, COMPARE_HTML };
/* compare_format - by name ("md"), or by the end of a file name ("x.html"); COMPARE_TEXT for others. */
enum compare_format compare_format(const char *name, const char *path);
/* compare_report - appends the whole report to out; false when memory is out. */
bool compare_report(const struct comparison *c, enum compare_format format, struct buffer *out) MUST_USE;
bool compare_html(const struct comparison *c, struct buffer *out) MUST_USE; /* compare_html.c */
