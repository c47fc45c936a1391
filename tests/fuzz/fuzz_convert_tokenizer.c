/* fuzz_convert_tokenizer - any bytes, as a SentencePiece model or (if they begin with a brace) as a tokenizer.json, are either refused with a text or
 * become keys that the GGUF reader accepts. */
#include "src/convert_tokenizer.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gguf_writer *w;
    struct gguf_header h;
    struct err e = { 0 };
    const struct convert_tokenizer_options o = { .n_vocab = 0 };
    if (gguf_header_open(&w, "out", &e) != OK) return 0;
    status st = size && data[0] == '{' ? convert_tokenizer_json(w, data, size, &o, &e) : convert_tokenizer_spm(w, data, size, &o, &e);
    if ((st == OK) != (e.text[0] == 0)) abort();
    if (st != OK) {
        gguf_writer_abort(w);
        return 0;
    }
    if (gguf_header_finish(w, &h, &e) != OK) abort();
    gguf_header_free(&h);
    return 0;
}
