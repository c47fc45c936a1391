/* quant_report - what a quantization did, as a file to read, to load into a table, or to look at: which tensors hurt and what to change.
 * Reads the plan's items after quant_file; knows no model. */
#pragma once
#include "ggml-like/json.h"
#include "quant/quant.h"
#include "tools/buffer.h"

/* quant_report_write - by the end of path: .html .json .csv .md; ERR_USAGE for others. Appears complete or not at all. in, out: names of the model files;
 * NULL: left out. */
status quant_report_write(const char *path, struct quant_plan *p, const struct quant_totals *t, const char *in, const char *out, struct err *e) MUST_USE;
/* quant_report_check - the same refusals, and those of a folder where nothing can be written, before the work begins. */
status quant_report_check(const char *path, struct err *e) MUST_USE;

/* ---- between quant_report.c and quant_report_html.c ---- */

/* One quantized tensor. Errors are relative: 0.05 is 5 %. */
struct report_row {
    const struct quant_item *it;
    int64_t layer;             /* -1: of no layer */
    char role[48];             /* "ffn_down" of blk.3.ffn_down.weight; the whole name where there is no layer */
    double relative, weighted; /* weighted: with importance, equal to relative without */
};
/* Tensors of one type, or of one role and type, together. */
struct report_group {
    char name[48];
    const struct dtype *to; /* NULL: several */
    int64_t n, elements;
    size_t bytes_from, bytes_to;
    bool kept;
    bool told;              /* the advice speaks of all its tensors */
    struct quant_stats stats;
    double weighted; /* root of the mean square over its tensors, weighted by size: sums with importance do not add up across tensors */
};
enum { REPORT_FACTS = 5 };
struct report_fact { const char *key; char text[512]; }; /* text "": there is none */
struct report {
    struct report_fact fact[REPORT_FACTS]; /* what the figures are of */
    struct quant_plan *plan;
    const struct quant_totals *totals;
    struct report_row *row; /* [n_rows] worst first; the quantized tensors only */
    int64_t n_rows, n_layers;
    struct report_group *type, *role; /* largest first; [n_types], [n_roles] */
    int64_t n_types, n_roles;
    struct quant_stats all;
    double median, overall; /* weighted errors: of the middle tensor; of all */
    bool sampled;           /* errors are of a sample of rows */
    bool weighted;          /* there is importance; without it weighted errors are the plain ones */
    struct buffer advice;   /* sentences, one a line */
};
double stats_snr(const struct quant_stats *s); /* dB; infinity without error */
bool report_html(const struct report *r, struct buffer *out) MUST_USE;
/* What a solver did; nothing where none did. Errors over those of the search. */
bool report_is_solved(const struct quant_item *it);
double report_stage(const struct quant_item *it, int i);
double report_held_out(const struct quant_item *it);
bool report_solved_md(const struct report *r, struct buffer *b) MUST_USE;
bool report_solved_html(const struct report *r, struct buffer *b) MUST_USE;
void report_solved_json(const struct quant_item *it, struct json_out *o);
