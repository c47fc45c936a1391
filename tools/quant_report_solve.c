/* quant_report_solve - the part of the report that a solver fills: errors of each tensor after each stage, over those of the search, on what was solved for,
 * and on windows that the solver did not see. */
#include "tools/quant_report.h"
#include <stdio.h>

enum { LAST = SOLVED_STAGES - 1 };

bool report_is_solved(const struct quant_item *it) { return it->solved.held_out[0] > 0; }
/* 1: with feedback of errors. SOLVED_STAGES - 1: after the descent, by codes alone or with scales. */
double report_stage(const struct quant_item *it, int i) { return it->solved.stage[0] > 0 ? it->solved.stage[i] / it->solved.stage[0] : 1; }
double report_held_out(const struct quant_item *it) { return report_is_solved(it) ? it->solved.held_out[1] / it->solved.held_out[0] : 1; }

static int64_t count(const struct report *r)
{
    int64_t n = 0;
    for (int64_t i = 0; i < r->n_rows; i++) n += report_is_solved(r->row[i].it);
    return n;
}

static double mean_stage(const struct report *r, int stage)
{
    double sum = 0;
    for (int64_t i = 0; i < r->n_rows; i++)
        if (report_is_solved(r->row[i].it)) sum += report_stage(r->row[i].it, stage);
    return sum / (double)count(r);
}

bool report_solved_md(const struct report *r, struct buffer *b)
{
    if (count(r) == 0) return true;
    bool ok = buffer_put(b, "\n## Solved\n\nError after each stage over the search's, on the calibration text (a sample of rows); last column: on "
                            "windows that the solver did not see.\n\n| tensor | type | feedback | descent | held out |\n|---|---|--:|--:|--:|\n");
    ok = buffer_put(b, "| mean of %lld tensors | | %.3f | %.3f | %.3f |\n", (long long)count(r), mean_stage(r, 1), mean_stage(r, LAST),
                    quant_held_out(r->plan)) && ok;
    for (int64_t i = 0; i < r->n_rows; i++) {
        const struct quant_item *it = r->row[i].it;
        if (!report_is_solved(it)) continue;
        ok = buffer_put(b, "| ") && buffer_md(b, it->src->name, SIZE_MAX) && ok;
        ok = buffer_put(b, " | %s | %.3f | %.3f | %.3f |\n", it->to->gguf_name, report_stage(it, 1), report_stage(it, LAST), report_held_out(it)) && ok;
    }
    return ok;
}

bool report_solved_html(const struct report *r, struct buffer *b)
{
    if (count(r) == 0) return true;
    bool ok = buffer_put(b, "<h2>Solved</h2><p class=dim>Error after each stage over the search's, on the calibration text (a sample of rows). "
                            "Held out: on windows that the solver did not see; 1: it was not better there, and the search's result was "
                            "taken.</p><div class=scroll><table>"
                            "<tr><th>tensor<th class=l>type<th>feedback<th>descent<th>held out</tr>\n");
    ok = buffer_put(b, "<tr><td>mean of %lld<td class=l><td>%.3f<td>%.3f<td>%.3f</tr>\n", (long long)count(r), mean_stage(r, 1),
                    mean_stage(r, LAST), quant_held_out(r->plan)) && ok;
    for (int64_t i = 0; i < r->n_rows; i++) {
        const struct quant_item *it = r->row[i].it;
        if (!report_is_solved(it)) continue;
        ok = buffer_put(b, "<tr><td>") && buffer_html(b, it->src->name) &&
             buffer_put(b, "<td class=l>%s<td>%.3f<td>%.3f<td>%.3f</tr>\n", it->to->gguf_name, report_stage(it, 1), report_stage(it, LAST),
                        report_held_out(it)) && ok;
    }
    return buffer_put(b, "</table></div>\n") && ok;
}

void report_solved_json(const struct quant_item *it, struct json_out *o)
{
    if (!report_is_solved(it)) return;
    json_begin(o, "solved", '{');
    json_put_f64(o, "feedback", report_stage(it, 1));
    json_put_f64(o, "descent", report_stage(it, LAST));
    json_put_f64(o, "held_out", report_held_out(it));
    json_end(o, '}');
}
