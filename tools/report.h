/* report - results as named fields, written in the format the user chose. One list of fields serves JSON, CSV and Markdown. */
#pragma once
#include "tools/cli.h"

enum field_kind { FIELD_STR, FIELD_INT, FIELD_REAL };
struct field {
    const char *name; /* stable: scripts read it */
    enum field_kind kind;
    const char *str;
    int64_t i;
    double f;         /* NaN: empty in text, null in JSON */
};

enum report_format { REPORT_TEXT, REPORT_MD, REPORT_CSV, REPORT_JSON, REPORT_JSONL };
/* report_format - --json wins over --format; fallback when neither is given. */
enum report_format report_format(const struct cli *c, enum report_format fallback);

void report_json(struct json_out *o, const struct field *f, int n);  /* members of the object that is open */
bool report_csv_head(const struct field *f, int n);
bool report_csv_row(const struct field *f, int n);                   /* every value in quotes, quotes doubled */
bool report_md(const struct field *f, int n);                        /* head, rule and one row */
/* report_out - writes a finished JSON text and frees it; false when memory or stdout failed. */
bool report_out(struct json_out *o);

/* field_text - the value as text, reals with 6 decimals; returns buf or the string itself. */
const char *field_text(const struct field *f, char buf[64]);

/* Mean and sample standard deviation (n - 1; 0 for n < 2). */
double mean_of(const double *x, int n);
double stddev_of(const double *x, int n);
