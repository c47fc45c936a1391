/* convert_tokenizer - a vocabulary as a GGUF file without weights, for convert_tokenizer.py:  convert_tokenizer DIR OUT.gguf [N_VOCAB [PRE]] */
#include "src/convert_tokenizer.h"
#include <stdio.h>
#include <stdlib.h>

static void warn(void *ctx, const char *text)
{
    (void)ctx;
    printf("warning: %s\n", text);
}

int main(int argc, char **argv)
{
    struct gguf_writer *w;
    struct err e = { 0 };
    if (argc < 3) return fprintf(stderr, "convert_tokenizer DIR OUT.gguf [N_VOCAB [PRE]]\n"), 2;
    const struct convert_tokenizer_options o = { .n_vocab = argc > 3 ? atoll(argv[3]) : 0, .pre = argc > 4 ? argv[4] : NULL, .warn = warn };
    double start = now_seconds();
    if (gguf_writer_open(&w, argv[2], &e) != OK) return fprintf(stderr, "%s\n", e.text), 1;
    gguf_put_str(w, "general.architecture", "llama", 5);
    if (convert_tokenizer(w, argv[1], &o, &e) != OK) {
        gguf_writer_abort(w);
        return fprintf(stderr, "%s\n", e.text), 1;
    }
    if (gguf_writer_finish(w, &e) != OK) return fprintf(stderr, "%s\n", e.text), 1;
    printf("seconds: %.2f\n", now_seconds() - start);
    return 0;
}
