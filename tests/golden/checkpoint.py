"""Writes the checkpoint_*.bin files: small checkpoints made by torch and safetensors (needs both; written with torch 2.15, safetensors 0.8).
    python3 tests/golden/checkpoint.py          in the root of the repository"""
from collections import OrderedDict
import safetensors.torch, torch

w = torch.arange(6, dtype=torch.float32).reshape(2, 3) - 2.5
every = OrderedDict((name, torch.arange(4).to(t)) for name, t in (
    ("f64", torch.float64), ("f32", torch.float32), ("f16", torch.float16), ("bf16", torch.bfloat16), ("e4m3", torch.float8_e4m3fn),
    ("e5m2", torch.float8_e5m2), ("i64", torch.int64), ("i32", torch.int32), ("i16", torch.int16), ("i8", torch.int8), ("u8", torch.uint8),
    ("u16", torch.uint16), ("u32", torch.uint32), ("u64", torch.uint64), ("bool", torch.bool)))
every["e8m0"] = torch.arange(126, 130, dtype=torch.uint8).view(torch.float8_e8m0fnu)  # 0.5 1 2 4
every["w"], every["scalar"], every["empty"] = w, torch.tensor(3.5), torch.zeros(2, 0)
safetensors.torch.save_file(every, "tests/golden/checkpoint_st.bin", metadata={"format": "pt"})

linear = torch.nn.Linear(3, 2)
with torch.no_grad():
    linear.weight.copy_(w), linear.bias.copy_(torch.tensor([7.0, -8.0]))
cube = torch.arange(24, dtype=torch.float16).reshape(2, 3, 4)
views = OrderedDict(t=w.t(), tied=w, column=w[:, 1], cube=cube.permute(2, 0, 1), param=torch.nn.Parameter(w), f8=torch.arange(4).to(torch.float8_e4m3fn),
                    u16=torch.arange(4).to(torch.uint16))
torch.save(linear.state_dict(), "tests/golden/checkpoint_linear.bin")
torch.save({"epoch": 3, "lr": 0.5, "big": 1 << 40, "huge": 1 << 200, "size": torch.Size([1, 2]), "dtype": torch.bfloat16, "none": None, "list": [1, True],
            "model": views, "optimizer": {"state": {0: {"exp_avg": w + 1}}}}, "tests/golden/checkpoint_nested.bin", pickle_protocol=4)
torch.save({"w": w}, "tests/golden/checkpoint_old.bin", _use_new_zipfile_serialization=False)
