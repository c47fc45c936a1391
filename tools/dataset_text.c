/* dataset_text - the text of models/calibration.jsonl inside the binary, put there by the assembler: an installed cuanto needs no file beside it. */
#include "tools/dataset.h"

/* Global and hidden: local ones are reached through the table of addresses on aarch64, where both got the slot of their section. */
__asm__(".section .rodata\n"
        ".balign 16\n"
        ".globl cuanto_dataset_begin, cuanto_dataset_end\n"
        ".hidden cuanto_dataset_begin, cuanto_dataset_end\n"
        "cuanto_dataset_begin: .incbin \"models/calibration.jsonl\"\n"
        "cuanto_dataset_end: .byte 0\n"
        ".previous\n");
extern __attribute__((visibility("hidden"))) const char cuanto_dataset_begin[], cuanto_dataset_end[];

struct str dataset_text_default(void) { return (struct str){ cuanto_dataset_begin, (size_t)(cuanto_dataset_end - cuanto_dataset_begin) }; }
