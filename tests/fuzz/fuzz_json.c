/* fuzz_json - any bytes are either refused, or parse to values that survive being written and parsed again. */
#include "ggml-like/json.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void write_value(struct json_out *o, const struct json *j) /* recursion: the parser lets at most 64 levels through */
{
    switch (j->kind) {
    case JSON_NULL:
        json_put_null(o, NULL);
        return;
    case JSON_BOOL:
        json_put_bool(o, NULL, j->i != 0);
        return;
    case JSON_INT:
        if (j->i != 0) json_put_i64(o, NULL, j->i);
        else json_put_f64(o, NULL, j->f); /* keeps the sign of -0 */
        return;
    case JSON_FLOAT:
        json_put_f64(o, NULL, j->f);
        return;
    case JSON_STR:
        json_put_str(o, NULL, j->str, (size_t)j->n);
        return;
    default:
        break;
    }
    /* Members become [key, value] items: keys may hold NULs, which the writer's keys cannot. */
    json_begin(o, NULL, '[');
    for (const struct json *m = j->child; m; m = m->next) {
        if (j->kind == JSON_OBJ) json_put_str(o, NULL, m->key, (size_t)m->key_n);
        write_value(o, m);
    }
    json_end(o, ']');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena a;
    arena_init(&a, 0);
    struct json *j = NULL;
    struct err e = { 0 };
    status st = json_parse(&j, (const char *)data, size, &a, "input", &e);
    if ((st == OK) != (j != NULL) || (st == OK) != (e.text[0] == 0)) abort();
    if (st == OK) {
        struct json_out first, second;
        json_out_init(&first, false);
        json_out_init(&second, false);
        write_value(&first, j);
        if (json_parse(&j, first.buf, first.n, &a, "written", NULL) != OK) abort();
        write_value(&second, j);
        if (first.n != second.n || memcmp(first.buf, second.buf, first.n)) abort();
        json_out_free(&first);
        json_out_free(&second);
    }
    arena_free(&a);
    return 0;
}
