#!/usr/bin/env python3
"""Writes the exact F32 twin of a GGUF file: the same keys, every tensor dequantized by the gguf package.

    pip install gguf
    dequantize.py IN.gguf OUT.gguf
"""
import sys

import gguf


def twin(r, dst, file_type, changes=None):
    """A writer with the keys of reader r, some with other values."""
    w = gguf.GGUFWriter(dst, r.fields["general.architecture"].contents())
    for key, f in r.fields.items():
        if key.startswith("GGUF.") or key in ("general.architecture", "general.file_type"):
            continue
        kind = f.types[0]
        w.add_key_value(key, (changes or {}).get(key, f.contents()), kind, f.types[-1] if kind == gguf.GGUFValueType.ARRAY else None)
    w.add_file_type(file_type)
    return w


def finish(w):
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def main(src, dst):
    r = gguf.GGUFReader(src)
    w = twin(r, dst, 0)
    for t in r.tensors:
        x = gguf.quants.dequantize(t.data, t.tensor_type).astype("float32").reshape([int(n) for n in reversed(t.shape)])
        w.add_tensor(t.name, x)
    finish(w)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
