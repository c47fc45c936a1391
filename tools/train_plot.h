/* train_plot - the losses of a run as a picture: SVG, and a few lines of text for a terminal. */
#pragma once
#include "tools/buffer.h"
#include "tools/train_state.h"

/* plot_svg - training loss (thin: of each step; thick: its moving average) and validation loss over steps. False when memory is out. */
bool plot_svg(struct buffer *b, const struct train_point *row, int64_t n);
/* plot_text - `width` columns of block characters, 8 lines high, with the axis' numbers. */
bool plot_text(struct buffer *b, const struct train_point *row, int64_t n, int width);
