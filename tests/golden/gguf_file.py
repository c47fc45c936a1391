"""Writes gguf.bin with the gguf package (0.19): every value kind, arrays, alignment 64, tensors of four types.
Usage: python3 tests/golden/gguf_file.py tests/golden/gguf.bin
"""
import sys
import numpy as np
import gguf

w = gguf.GGUFWriter(sys.argv[1], "toy")
w.add_custom_alignment(64)
w.add_uint8("kind.u8", 200)
w.add_int8("kind.i8", -100)
w.add_uint16("kind.u16", 60000)
w.add_int16("kind.i16", -30000)
w.add_uint32("kind.u32", 4000000000)
w.add_int32("kind.i32", -2000000000)
w.add_float32("kind.f32", 0.15625)
w.add_bool("kind.bool", True)
w.add_string("kind.str", "gr\u00fc\u00dfe \U0001f30d")
w.add_uint64("kind.u64", 1 << 63)
w.add_int64("kind.i64", -(1 << 62))
w.add_float64("kind.f64", 0.1)
w.add_array("arr.i32", [3, -1, 4, -1, 5])
w.add_array("arr.f32", [0.5, -2.0, 1e-3])
w.add_array("arr.bool", [True, False, True])
w.add_array("arr.str", ["a", "", "\u0120the", "<|end|>"])
x = np.arange(64, dtype=np.float32).reshape(2, 32) / 8 - 4
w.add_tensor("norm.weight", x[0, :5].copy())
w.add_tensor("half.weight", x.astype(np.float16).reshape(2, 2, 16))
w.add_tensor("blk.0.q4.weight", gguf.quants.quantize(x, gguf.GGMLQuantizationType.Q4_0), raw_dtype=gguf.GGMLQuantizationType.Q4_0)
w.add_tensor("blk.0.q8.weight", gguf.quants.quantize(x, gguf.GGMLQuantizationType.Q8_0), raw_dtype=gguf.GGMLQuantizationType.Q8_0)
w.write_header_to_file()
w.write_kv_data_to_file()
w.write_tensors_to_file()
w.close()
