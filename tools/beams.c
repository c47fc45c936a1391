/* beams - see beams.h. Sampling options do not apply: a search takes probabilities as the model gives them. */
#include "tools/beams.h"
#include "tools/buffer.h"
#include <stdio.h>
#include <string.h>

status beams_check(const struct cli *c, struct err *e)
{
    if (!c->beams) return c->n_best > 1 ? err_set(e, ERR_USAGE, "--n-best needs --beams") : OK;
    const struct { bool on; const char *name; } others[] = {
        { c->lookup > 0, "--lookup" },
        { c->n_stop > 0, "--stop" },
        { c->n_logit_bias > 0, "--logit-bias" },
        { c->top_logprobs > 0, "--top-logprobs" },
        { c->grammar || c->grammar_file || c->json_schema || c->json_schema_file || c->json_mode, "a grammar" },
    };
    for (int i = 0; i < ARRAY_LEN(others); i++)
        if (others[i].on) return err_set(e, ERR_USAGE, "--beams and %s exclude each other", others[i].name);
    if (c->n_best > c->beams) return err_set(e, ERR_USAGE, "--n-best %lld: %lld beams give at most as many answers", (long long)c->n_best, (long long)c->beams);
    return OK;
}

void beams_note(const struct cli *c)
{
    struct sampler_options d;
    const struct sampler_options *s = &c->sampling;
    char list[200] = "";
    sampler_defaults(&d);
    const struct { bool on; const char *name; } ignored[] = {
        { s->temperature != d.temperature && s->temperature > 0, "--temp" },
        { s->top_k != d.top_k, "--top-k" },
        { s->top_p != d.top_p, "--top-p" },
        { s->min_p != d.min_p, "--min-p" },
        { s->typical_p != d.typical_p, "--typical" },
        { s->top_n_sigma != d.top_n_sigma, "--top-nsigma" },
        { s->xtc_probability != d.xtc_probability, "--xtc-probability" },
        { s->repeat_penalty != d.repeat_penalty, "--repeat-penalty" },
        { s->presence_penalty != d.presence_penalty, "--presence-penalty" },
        { s->frequency_penalty != d.frequency_penalty, "--frequency-penalty" },
        { s->dry_multiplier != d.dry_multiplier, "--dry-multiplier" },
        { s->mirostat != d.mirostat, "--mirostat" },
    };
    for (int i = 0; c->beams && i < ARRAY_LEN(ignored); i++) {
        size_t n = strlen(list);
        if (ignored[i].on) snprintf(list + n, sizeof list - n, "%s%s", n ? ", " : "", ignored[i].name);
    }
    if (*list) fprintf(stderr, "note: a search draws nothing: not used with --beams: %s\n", list);
}

static bool ended(const struct generator *g, const struct beam_answer *a)
{
    for (int i = 0; i < g->n_end; i++)
        if (g->end[i] == a->token[a->n - 1]) return !g->cli->ignore_eos;
    return false;
}

/* Through the filter that answers pass, so that only whole characters come out. */
static status text_of(struct generator *g, const struct beam_answer *a, struct buffer *b, struct err *e)
{
    const char *out;
    size_t n_out;
    b->n = 0;
    g->with.filter.n = 0, g->with.filter.hit = false;
    for (int64_t i = 0; i < a->n - ended(g, a); i++) {
        size_t n = tokenizer_piece(model_tokenizer(g->rt->model), a->token[i], false, g->piece, g->piece_cap);
        stop_push(&g->with.filter, g->piece, n, &out, &n_out);
        if (!buffer_append(b, out, n_out)) return err_oom(e, "answer", b->n);
    }
    stop_flush(&g->with.filter, &out, &n_out);
    return buffer_append(b, out, n_out) ? OK : err_oom(e, "answer", b->n);
}

static bool go_on(void *ctx, int64_t n)
{
    bar_update(ctx, n, NULL);
    return !cli_interrupted;
}

status beams_run(struct generator *g, struct beam_result *r, struct err *e)
{
    static const struct { const char *name; enum beam_stop stop; } stops[] = {
        { "auto", BEAM_STOP_AUTO }, { "first", BEAM_STOP_FIRST }, { "never", BEAM_STOP_NEVER },
        { "false", BEAM_STOP_AUTO }, { "true", BEAM_STOP_FIRST }, /* as transformers says it */
    };
    struct session *s = g->rt->session;
    int64_t room = session_n_ctx(s) - session_pos(s);
    struct bar bar;
    struct beam_options o = { .n_beams = (int)g->cli->beams, .length_penalty = g->cli->length_penalty, .end = g->end, .progress = go_on, .ctx = &bar };
    o.n_end = g->cli->ignore_eos ? 0 : g->n_end;
    o.max_tokens = g->cli->n_predict > 0 ? min_i64(room, g->cli->n_predict) : room;
    for (int i = 0; i < ARRAY_LEN(stops); i++)
        if (!strcmp(stops[i].name, g->cli->beam_stop)) o.stop = stops[i].stop;
    if (g->cli->n_predict == 0) return g->finish = FINISH_LENGTH, OK;
    if (room < 1) return err_set(e, ERR_USAGE, "the context is full: beams need room for one token at least");
    bar_begin(&bar, g->cli, "beams", "tok", o.max_tokens);
    double start = now_seconds();
    status st = beam_search(s, engine_logits(g->rt->engine), &o, r, e);
    g->predicted_ms = (now_seconds() - start) * 1e3;
    bar_end(&bar);
    if (st != OK) return st;
    struct buffer b = { 0 };
    if (r->n > 0) st = text_of(g, &r->answer[0], &b, e);
    g->n_generated = r->n > 0 ? r->answer[0].n : 0;
    g->finish = r->n > 0 && ended(g, &r->answer[0]) ? FINISH_STOP : o.max_tokens == room ? FINISH_CONTEXT : FINISH_LENGTH;
    if (st == OK && b.n && (g->cli->n_best <= 1 || g->cli->json) && !g->text(g->ctx, b.p, b.n)) g->finish = FINISH_CLOSED;
    buffer_free(&b);
    return st;
}

status beams_json(struct generator *g, const struct beam_result *r, struct json_out *o, struct err *e)
{
    struct buffer b = { 0 };
    status st = OK;
    json_begin(o, "answers", '[');
    for (int i = 0; i < r->n && i < max_i64(1, g->cli->n_best) && st == OK; i++) {
        st = text_of(g, &r->answer[i], &b, e);
        json_begin(o, NULL, '{');
        json_put_str(o, "text", b.p, b.n);
        json_put_f64(o, "score", r->answer[i].score);
        json_put_cstr(o, "finish_reason", ended(g, &r->answer[i]) ? "stop" : "length");
        json_begin(o, "ids", '[');
        for (int64_t j = 0; j < r->answer[i].n; j++) json_put_i64(o, NULL, r->answer[i].token[j]);
        json_end(o, ']');
        json_end(o, '}');
    }
    json_end(o, ']');
    buffer_free(&b);
    return st;
}

status beams_print(struct generator *g, const struct beam_result *r, struct err *e)
{
    struct buffer b = { 0 };
    status st = OK;
    for (int i = 0; i < r->n && i < g->cli->n_best && st == OK; i++) {
        st = text_of(g, &r->answer[i], &b, e);
        out_printf("# %d, score %.4f\n", i + 1, r->answer[i].score);
        out_write(b.p, b.n);
        out_write("\n", 1);
    }
    buffer_free(&b);
    return st;
}
