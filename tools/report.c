/* report - see report.h. */
#include "tools/report.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

enum report_format report_format(const struct cli *c, enum report_format fallback)
{
    static const char *const names[] = {
        [REPORT_TEXT] = "text", [REPORT_MD] = "md", [REPORT_CSV] = "csv", [REPORT_JSON] = "json", [REPORT_JSONL] = "jsonl",
    };
    if (c->json) return REPORT_JSON;
    for (int i = 0; c->format && i < ARRAY_LEN(names); i++)
        if (!strcmp(c->format, names[i])) return (enum report_format)i;
    return fallback;
}

const char *field_text(const struct field *f, char buf[64])
{
    if (f->kind == FIELD_STR) return f->str ? f->str : "";
    if (f->kind == FIELD_INT) snprintf(buf, 64, "%lld", (long long)f->i);
    else if (isfinite(f->f)) snprintf(buf, 64, "%.6f", f->f);
    else buf[0] = 0;
    return buf;
}

void report_json(struct json_out *o, const struct field *f, int n)
{
    for (int i = 0; i < n; i++) {
        if (f[i].kind == FIELD_STR) json_put_cstr(o, f[i].name, f[i].str);
        else if (f[i].kind == FIELD_INT) json_put_i64(o, f[i].name, f[i].i);
        else json_put_f64(o, f[i].name, f[i].f);
    }
}

bool report_csv_head(const struct field *f, int n)
{
    bool ok = true;
    for (int i = 0; i < n; i++) ok = out_printf("%s%s", i ? "," : "", f[i].name) && ok;
    return out_write("\n", 1) && ok;
}

bool report_csv_row(const struct field *f, int n)
{
    bool ok = true;
    for (int i = 0; i < n; i++) {
        char buf[64];
        ok = out_printf("%s\"", i ? "," : "") && ok;
        for (const char *p = field_text(&f[i], buf); *p; p++) ok = out_write(*p == '"' ? "\"\"" : p, *p == '"' ? 2 : 1) && ok;
        ok = out_write("\"", 1) && ok;
    }
    return out_write("\n", 1) && ok;
}

bool report_md(const struct field *f, int n)
{
    bool ok = true;
    char buf[64];
    for (int i = 0; i < n; i++) ok = out_printf("| %s ", f[i].name) && ok;
    ok = out_printf("|\n") && ok;
    for (int i = 0; i < n; i++) ok = out_printf("| %s ", f[i].kind == FIELD_STR ? "---" : "--:") && ok;
    ok = out_printf("|\n") && ok;
    for (int i = 0; i < n; i++) ok = out_printf("| %s ", field_text(&f[i], buf)) && ok;
    return out_printf("|\n") && ok;
}

bool report_out(struct json_out *o)
{
    bool ok = json_out_ok(o) && out_write(o->buf, o->n) && out_write("\n", 1);
    json_out_free(o);
    return ok;
}

double mean_of(const double *x, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++) sum += x[i];
    return n ? sum / n : 0;
}

double stddev_of(const double *x, int n)
{
    double mean = mean_of(x, n), sum = 0;
    for (int i = 0; i < n; i++) sum += (x[i] - mean) * (x[i] - mean);
    return n > 1 ? sqrt(sum / (n - 1)) : 0;
}
