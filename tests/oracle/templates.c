/* templates - the Jinja engine as a filter, for comparisons with Jinja2:  templates NOW <frames
 * Frames: {u32 bytes, template} {u32 count} then count times {u32 bytes, JSON of all variables}. Output per context: {u32 status, u32 bytes, text or
 * error}; NOW: seconds since 1970. */
#include "src/template.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *take(uint32_t *n)
{
    if (fread(n, sizeof *n, 1, stdin) != 1) return NULL;
    char *p = malloc((size_t)*n + 1);
    if (!p || fread(p, 1, *n, stdin) != *n) exit(1);
    p[*n] = '\0';
    return p;
}

static void give(uint32_t st, const char *text, size_t n)
{
    uint32_t head[2] = { st, (uint32_t)n };
    fwrite(head, sizeof head, 1, stdout);
    fwrite(text, 1, n, stdout);
}

int main(int argc, char **argv)
{
    uint32_t n, m, count;
    if (argc < 2) return 2;
    for (char *src; (src = take(&n)); free(src)) {
        struct template *t = NULL;
        struct err bad = { 0 };
        status parsed = template_parse(&t, src, n, "template", &bad);
        if (fread(&count, sizeof count, 1, stdin) != 1) return 1;
        for (uint32_t i = 0; i < count; i++) {
            struct arena a;
            struct json *j;
            struct err e = bad;
            char *vars = take(&m), *out = NULL;
            size_t len = 0;
            arena_init(&a, 0);
            status st = parsed;
            if (st == OK) st = json_parse(&j, vars, m, &a, "variables", &e);
            if (st == OK) st = template_render(t, j, atoll(argv[1]), &out, &len, &e);
            if (st == OK) give(0, out, len);
            else give((uint32_t)st, e.text, strlen(e.text));
            mem_free(out);
            arena_free(&a);
            free(vars);
        }
        template_close(t);
    }
    return 0;
}
