/* checkpoint_files - which files a path means: one file, a directory, an index of shards. Knows names, not contents. */
#include "ggml-like/checkpoint_int.h"
#include "ggml-like/json.h"
#include <assert.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { SHARDS_MAX = 4096, INDEX_MAX = 64 << 20 };

/* What is looked for in a directory, in this order; `*` stands for any text. */
static const struct choice {
    const char *begin, *end; /* of the file's name */
    enum { EXACT, ANY } how;
    bool index;
} choices[] = {
    { "model.safetensors", "", EXACT, false },
    { "model.safetensors.index.json", "", EXACT, true },
    { "", ".safetensors.index.json", ANY, true },
    { "", ".safetensors", ANY, false },
    { "pytorch_model.bin", "", EXACT, false },
    { "pytorch_model.bin.index.json", "", EXACT, true },
    { "pytorch_model", ".bin", ANY, false },
    { "consolidated", ".pth", ANY, false },
    { "", ".pth", ANY, false },
    { "", ".pt", ANY, false },
};

static bool fits(const struct choice *w, const char *name)
{
    size_t n = strlen(name), begin = strlen(w->begin), end = strlen(w->end);
    if (w->how == EXACT) return !strcmp(name, w->begin);
    return n > begin + end && name[0] != '.' && !strncmp(name, w->begin, begin) && !strcmp(name + n - end, w->end);
}

static char *join(struct arena *a, const char *dir, size_t dir_n, const char *name)
{
    size_t n = strlen(name);
    char *p = arena_alloc(a, dir_n + n + 2);
    if (!p) return NULL;
    memcpy(p, dir, dir_n);
    if (dir_n && p[dir_n - 1] != '/') p[dir_n++] = '/';
    memcpy(p + dir_n, name, n + 1);
    return p;
}

/* f->path was made with room for cap. */
static status push(struct ckpt_files *f, int *cap, char *path, const char *where, struct err *e)
{
    if (!path) return err_oom(e, where, strlen(where));
    if (f->n == *cap) {
        if (f->n >= SHARDS_MAX) return err_set(e, ERR_FORMAT, "%s: more than %d files of weights", where, SHARDS_MAX);
        int more = *cap ? *cap * 2 : 32;
        char **grown = arena_alloc(&f->arena, (size_t)more * sizeof *grown);
        if (!grown) return err_oom(e, where, (size_t)more * sizeof *grown);
        if (f->n) memcpy(grown, f->path, (size_t)f->n * sizeof *grown);
        f->path = grown;
        *cap = more;
    }
    f->path[f->n++] = path;
    return OK;
}

static int by_text(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* Appends the names that fit w; the directory is read once per row of choices, which costs nothing beside a checkpoint. */
static status list_dir(struct ckpt_files *f, const char *dir, const struct choice *w, struct err *e)
{
    DIR *d = opendir(dir);
    if (!d) return err_set(e, ERR_FILE, "%s: cannot list the directory", dir);
    int cap = f->n = 0;
    status st = OK;
    for (struct dirent *x; st == OK && (x = readdir(d));)
        if (fits(w, x->d_name)) st = push(f, &cap, join(&f->arena, dir, strlen(dir), x->d_name), dir, e);
    closedir(d);
    if (st == OK && f->n > 1) qsort(f->path, (size_t)f->n, sizeof *f->path, by_text);
    return st;
}

/* Do two names differ in the five digits before `of` of the first at most? */
static bool same_series(const char *a, const char *of, const char *b)
{
    size_t n = (size_t)(of - 5 - a);
    return strlen(a) == strlen(b) && !strncmp(a, b, n) && !strcmp(of, b + n + 5);
}

/* Without an index, names like x-00002-of-00003.safetensors still say how many there are. */
static status check_series(const struct ckpt_files *f, struct err *e)
{
    for (int i = 0; i < f->n; i++) {
        const char *name = path_base(f->path[i]), *of = strstr(name, "-of-");
        int part, parts, used = 0;
        if (!of || of - name < 6 || sscanf(of - 6, "-%5d-of-%5d%n", &part, &parts, &used) != 2 || used != 15) continue;
        if (parts < 1 || parts > SHARDS_MAX || part < 1 || part > parts) continue;
        if (i > 0 && same_series(name, of, path_base(f->path[i - 1]))) continue; /* looked at already: the names are sorted */
        for (int p = 1; p <= parts; p++) {
            char want[16];
            bool found = false;
            snprintf(want, sizeof want, "%05d", p);
            for (int j = 0; j < f->n && !found; j++) {
                const char *other = path_base(f->path[j]);
                found = same_series(name, of, other) && !strncmp(other + (of - 5 - name), want, 5);
            }
            if (!found)
                return err_set(e, ERR_FILE, "%.*s%s%s: is missing; %s says that there are %d", (int)(of - 5 - f->path[i]), f->path[i], want,
                               of, name, parts);
        }
    }
    return OK;
}

/* The files of "weight_map", each once. Names are names in the index's own directory: a path is refused. */
static status shards_of_map(struct ckpt_files *f, size_t dir_n, struct err *e)
{
    int cap = 0;
    f->n = 0;
    const char *last = "";
    for (const struct json *m = f->weight_map->child; m; m = m->next) {
        if (m->kind != JSON_STR || m->n == 0 || strlen(m->str) != (size_t)m->n)
            return err_set(e, ERR_FORMAT, "%s: weight_map: %s is not mapped to a file", f->index, m->key);
        if (strchr(m->str, '/') || m->str[0] == '.')
            return err_set(e, ERR_FORMAT, "%s: weight_map: %s is mapped to %s, expected the name of a file beside the index", f->index,
                           m->key, m->str);
        if (!strcmp(last, m->str)) continue; /* mostly in runs */
        last = m->str;
        bool known = false;
        for (int i = 0; i < f->n && !known; i++) known = !strcmp(path_base(f->path[i]), m->str);
        if (!known) TRY(push(f, &cap, join(&f->arena, f->index, dir_n, m->str), f->index, e));
    }
    if (f->n == 0) return err_set(e, ERR_FORMAT, "%s: weight_map is empty", f->index);
    qsort(f->path, (size_t)f->n, sizeof *f->path, by_text);
    int missing = 0;
    const char *first = NULL;
    struct file_facts facts;
    for (int i = 0; i < f->n; i++)
        if (!file_stat(f->path[i], &facts) && missing++ == 0) first = f->path[i];
    if (missing == 0) return OK;
    return err_set(e, ERR_FILE, "%s: is missing (%d of %d files named by %s are there)", first, f->n - missing, f->n, path_base(f->index));
}

static status read_index(struct ckpt_files *f, const char *path, struct err *e)
{
    char *text;
    size_t n;
    struct json *top = NULL;
    f->index = arena_strdup(&f->arena, path, strlen(path));
    if (!f->index) return err_oom(e, path, strlen(path));
    TRY(file_text(path, INDEX_MAX, &text, &n, e));
    status st = json_parse(&top, text, n, &f->arena, path, e);
    mem_free(text);
    if (st != OK) return st;
    f->weight_map = (struct json *)(uintptr_t)json_get(top, "weight_map");
    if (!f->weight_map || f->weight_map->kind != JSON_OBJ) return err_set(e, ERR_FORMAT, "%s: has no weight_map", path);
    return shards_of_map(f, (size_t)(path_base(f->index) - f->index), e);
}

static status choose(struct ckpt_files *f, const char *dir, struct err *e)
{
    for (int i = 0; i < ARRAY_LEN(choices); i++) {
        TRY(list_dir(f, dir, &choices[i], e));
        if (f->n == 0) continue;
        if (!choices[i].index) return check_series(f, e);
        if (f->n == 1) return read_index(f, f->path[0], e);
        return err_set(e, ERR_FILE, "%s: has %d indexes, %s and %s: give one of them", dir, f->n, path_base(f->path[0]),
                       path_base(f->path[1]));
    }
    return err_set(e, ERR_FILE, "%s: holds no *.safetensors, pytorch_model*.bin or *.pth", dir);
}

status ckpt_files_of(struct ckpt_files *f, const char *path, struct err *e)
{
    *f = (struct ckpt_files){ 0 };
    arena_init(&f->arena, 0);
    struct stat info;
    size_t n = strlen(path);
    static const char index[] = ".index.json";
    if (stat(path, &info) == 0 && S_ISDIR(info.st_mode)) return choose(f, path, e);
    if (n > strlen(index) && !strcmp(path + n - strlen(index), index)) return read_index(f, path, e);
    int cap = 0;
    return push(f, &cap, arena_strdup(&f->arena, path, n), path, e);
}

status ckpt_files_check(const struct ckpt_files *f, const struct checkpoint *c, struct err *e)
{
    if (!f->weight_map) return OK;
    for (const struct json *m = f->weight_map->child; m; m = m->next) {
        const struct ckpt_tensor *t = checkpoint_find(c, m->key);
        if (!t) return err_set(e, ERR_FORMAT, "%s: says that %s is in %s, which lacks it", f->index, m->key, m->str);
        const char *where = path_base(checkpoint_path(c, t));
        if (strcmp(where, m->str)) return err_set(e, ERR_FORMAT, "%s: says that %s is in %s, it is in %s", f->index, m->key, m->str, where);
    }
    return OK;
}
