#!/usr/bin/env python3
"""Prints the two tables of tools/width.c from the Unicode data of this Python: zero-width and double-width code points."""
import unicodedata as u


def ranges(pred):
    """Ranges of code points that satisfy pred; unassigned ones (short gaps) do not end a range."""
    out, start, last, gap = [], None, None, False
    for c in range(0x110000):
        cat = u.category(chr(c))
        if cat != "Cn" and pred(c, cat):
            if start is None or (gap and c - last > 64):
                if start is not None:
                    out.append((start, last))
                start = c
            last, gap = c, False
        elif cat == "Cn":
            gap = True
        elif start is not None:
            out.append((start, last))
            start = None
    return out


def zero(c, cat):
    return (cat in ("Mn", "Me", "Cf") and c != 0xAD) or 0x1160 <= c <= 0x11FF


def wide(c, cat):
    return not zero(c, cat) and u.east_asian_width(chr(c)) in "WF"


def table(name, rows):
    text, line = f"static const uint32_t {name}[][2] = {{\n", "   "
    for a, b in rows:
        item = f" {{ 0x{a:x}, 0x{b:x} }},"
        if len(line) + len(item) > 138:
            text, line = text + line + "\n", "   "
        line += item
    return text + line + "\n};\n"


print("/* Unicode", u.unidata_version, "*/")
print(table("zero_width", ranges(zero)))
print(table("wide", ranges(wide)), end="")
