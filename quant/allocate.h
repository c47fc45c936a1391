/* allocate - which format each tensor gets when the bytes of all of them, or the loss of all of them, are bounded. Pure arithmetic: no tensor, no file.
 *
 * Every item has choices (bytes, loss); losses of items add up. The choices that some price of a byte makes best are the lower convex hull of an item;
 * walking down that price from infinity takes the hulls' steps in the order of loss saved per byte (Everett 1963; Shoham & Gersho 1988). What is left when
 * the next step does not fit is filled with the steps that do, then single items and pairs of items move to any choice, on the hull or not, while that
 * helps. The result is within one step of the optimum (tests/test_allocate.c: beside all combinations).
 * Deterministic: ties go to the item that comes first. */
#pragma once
#include "ggml-like/base.h"

enum { ALLOC_CHOICES = 40 };
struct alloc_choice { size_t bytes; double loss; /* >= 0, finite */ };
struct alloc_item {
    const struct alloc_choice *choice; /* [n], 1 .. ALLOC_CHOICES, any order */
    int n;
    int pick;                          /* result */
};
/* allocate_bytes - the least loss that `budget` bytes allow. ERR_USAGE, naming both values, when the smallest choices are larger.
 * allocate_loss - the fewest bytes whose loss is at most `limit`. ERR_USAGE, naming both values, when no choice is good enough. */
status allocate_bytes(struct alloc_item *item, int64_t n, size_t budget, struct err *e) MUST_USE;
status allocate_loss(struct alloc_item *item, int64_t n, double limit, struct err *e) MUST_USE;
size_t allocated_bytes(const struct alloc_item *item, int64_t n);
double allocated_loss(const struct alloc_item *item, int64_t n);
