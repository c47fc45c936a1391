"""Writes importance.bin and importance.dat: the two forms of llama-imatrix, with the gguf package and with struct.
   python3 importance.py      needs: pip install gguf numpy
Layout and arithmetic: llama.cpp tools/imatrix/imatrix.cpp (save_imatrix, save_imatrix_legacy); entries sorted by name.
One dense matrix; a stack of two, the second of which no token met."""
import os, struct
import numpy as np
from gguf import GGUFWriter

here = os.path.dirname(os.path.abspath(__file__))
CHUNKS, CHUNK = 3, 512
dense = np.array([0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4], np.float32)
experts = np.array([[2, 4, 6, 8], [0, 0, 0, 0]], np.float32)
entries = {  # name: sums [n_mat][n_cols], counts [n_mat]
    "blk.0.attn_q.weight": (dense.reshape(1, 8) * 1536, np.array([[1536]], np.float32)),
    "blk.0.ffn_up_exps.weight": (experts * 700, np.array([[700], [0]], np.float32)),
}

w = GGUFWriter(os.path.join(here, "importance.bin"), "imatrix")
w.kv_data[0].clear()  # no general.architecture
w.add_string("general.type", "imatrix")
w.add_array("imatrix.datasets", ["calibration.txt"])
w.add_uint32("imatrix.chunk_count", CHUNKS)
w.add_uint32("imatrix.chunk_size", CHUNK)
for name, (sums, counts) in entries.items():
    one = len(counts) == 1  # ggml writes no trailing dimensions of 1
    w.add_tensor(name + ".in_sum2", sums[0] if one else sums)
    w.add_tensor(name + ".counts", counts[0] if one else counts)
w.write_header_to_file(), w.write_kv_data_to_file(), w.write_tensors_to_file(), w.close()

with open(os.path.join(here, "importance.dat"), "wb") as f:
    f.write(struct.pack("<i", len(entries)))
    for name, (sums, counts) in entries.items():
        n = -(-int(counts.max()) // CHUNK)
        mean = np.where(counts > 0, sums / np.maximum(counts, 1), np.float32(1)).astype(np.float32) * np.float32(n)
        f.write(struct.pack("<i", len(name)) + name.encode() + struct.pack("<ii", n, mean.size) + mean.tobytes())
    f.write(struct.pack("<ii", CHUNKS, len("calibration.txt")) + b"calibration.txt")
