/* fuzz_template - any bytes are either refused as a template or rendered; a failure always has a text, a success always a result, and
 * rendering twice gives the same bytes. */
#include "src/template.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char vars_text[] =
    "{\"messages\": [{\"role\": \"system\", \"content\": \"Be brief.\"}, {\"role\": \"user\", \"content\": \"Gr\\u00fc\\u00dfe\\nb\"},"
    "{\"role\": \"assistant\", \"content\": null, \"tool_calls\": [{\"function\": {\"name\": \"f\", \"arguments\": {\"x\": [1, 2.5, "
    "true]}}}]}],"
    "\"add_generation_prompt\": true, \"bos_token\": \"<s>\", \"eos_token\": \"</s>\", \"tools\": [{\"name\": \"f\"}], \"n\": -3, \"x\": "
    "{}}";

static void render(const struct template *t, const struct json *vars)
{
    char *out, *again;
    size_t n, n_again;
    struct err e = { 0 };
    status st = template_render(t, vars, 1700000000, &out, &n, &e);
    if ((st == OK) != (out != NULL) || (st == OK) != (e.code == OK)) abort();
    if (st != OK) return;
    if (out[n] != 0 || template_render(t, vars, 1700000000, &again, &n_again, NULL) != OK) abort();
    if (n != n_again || memcmp(out, again, n)) abort();
    mem_free(out);
    mem_free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena a;
    struct json *vars;
    struct template *t;
    struct err e = { 0 };
    arena_init(&a, 0);
    if (json_parse(&vars, vars_text, sizeof vars_text - 1, &a, "vars", NULL) != OK) abort();
    status st = template_parse(&t, (const char *)data, size, "input", &e);
    if ((st == OK) != (t != NULL) || (st == OK) != (e.text[0] == 0)) abort();
    if (st == OK) render(t, vars);
    template_close(t);
    arena_free(&a);
    return 0;
}
