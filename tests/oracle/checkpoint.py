"""Does checkpoint.h read what torch and safetensors write? Random models and views, saved in every way; each tensor must come out bit for bit.
    make oracle && python3 tests/oracle/checkpoint.py build/release/checkpoint      needs torch, safetensors, transformers"""
import os, subprocess, sys, tempfile
from collections import OrderedDict
import safetensors.torch, torch
from safetensors import safe_open

tool = sys.argv[1]
torch.manual_seed(1)
passed = failed = 0


def bits(t):
    return t.detach().contiguous().flatten().view(torch.uint8) if t.numel() else torch.zeros(0, dtype=torch.uint8)


def check(what, path, want):
    global passed, failed
    out = os.path.join(top, "out", "copy.safetensors")
    os.makedirs(os.path.dirname(out), exist_ok=True)
    r = subprocess.run([tool, path, out], capture_output=True, text=True)
    bad = r.stdout.strip()
    if r.returncode == 0:
        with safe_open(out, "pt") as f:
            got = {k: f.get_tensor(k) for k in f.keys()}
        if set(got) != set(want):
            bad = f"names {sorted(set(got) ^ set(want))[:4]}"
        for k in set(got) & set(want):
            if got[k].dtype != want[k].dtype or got[k].shape != want[k].shape or not torch.equal(bits(got[k]), bits(want[k])):
                bad = f"{k} differs"
        again = os.path.join(os.path.dirname(out), "again.safetensors")
        safetensors.torch.save_file({k: v.contiguous() for k, v in got.items()}, again, metadata=safe_open(out, "pt").metadata())
        a, b = open(out, "rb").read(), open(again, "rb").read()
        if a != b and len(safe_open(out, "pt").metadata() or {}) < 2:  # the reference writes metadata in random order
            bad = bad or f"the copy is not the reference's file: {len(a)}, {len(b)} bytes"
    elif not bad:
        bad = f"status {r.returncode}"
    passed, failed = passed + (not bad), failed + bool(bad)
    print(f"{'FAIL' if bad else 'ok'} {what} ({len(want)} tensors) {bad}")


def refused(what, path, text):
    global passed, failed
    r = subprocess.run([tool, path, path + ".copy"], capture_output=True, text=True)
    good = r.returncode == 4 and text in r.stdout
    passed, failed = passed + good, failed + (not good)
    print(f"{'ok' if good else 'FAIL'} refuses {what}: {r.stdout.strip()}")


def model(kind="llama", dtype=torch.float32):
    from transformers import AutoConfig, AutoModelForCausalLM
    sizes = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, vocab_size=301,
                 tie_word_embeddings=kind == "qwen2", head_dim=16)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes)).to(dtype)


with tempfile.TemporaryDirectory() as top:
    here = lambda *p: os.path.join(top, *p)
    for kind in "llama", "qwen2":
        for dtype in torch.float32, torch.float16, torch.bfloat16:
            m = model(kind, dtype)
            name = f"{kind}-{str(dtype)[6:]}"
            m.save_pretrained(here(name, "one"))
            m.save_pretrained(here(name, "shards"), max_shard_size="60KB")
            os.makedirs(here(name, "bin")), os.makedirs(here(name, "bins"))
            torch.save(m.state_dict(), here(name, "bin", "pytorch_model.bin"))
            saved = {k: v for k, v in m.state_dict().items() if k != "lm_head.weight" or kind != "qwen2"}
            assert len([f for f in os.listdir(here(name, "shards")) if f.endswith(".safetensors")]) > 3
            check(name + " safetensors", here(name, "one"), saved)
            check(name + " shards", here(name, "shards"), saved)
            check(name + " the index", here(name, "shards", "model.safetensors.index.json"), saved)
            os.remove(here(name, "shards", "model.safetensors.index.json"))
            check(name + " shards without index", here(name, "shards"), saved)
            check(name + " torch.save", here(name, "bin"), dict(m.state_dict()))
            import json
            keys = sorted(m.state_dict())
            half = [keys[:7], keys[7:]]
            for i, part in enumerate(half):
                torch.save({k: m.state_dict()[k].clone() for k in part}, here(name, "bins", f"pytorch_model-0000{i + 1}-of-00002.bin"))
            weight_map = {k: f"pytorch_model-0000{i + 1}-of-00002.bin" for i, part in enumerate(half) for k in part}
            json.dump({"metadata": {}, "weight_map": weight_map}, open(here(name, "bins", "pytorch_model.bin.index.json"), "w"))
            check(name + " torch shards", here(name, "bins"), dict(m.state_dict()))

    x = torch.randn(300, 257)
    types = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2, torch.int64, torch.int32, torch.int16,
             torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.bool]
    every = {str(t)[6:]: (x * 50).abs().to(t) if t != torch.bool else x > 0 for t in types}
    every["float8_e8m0fnu"] = every["uint8"].clone().view(torch.float8_e8m0fnu)
    every["scalar"], every["empty"], every["ones"] = torch.tensor(3.5), torch.zeros(3, 0, 5), torch.ones(1, 1, 4, 1)
    deep = torch.randn(5, 7, 11, 13)
    views = {"t": x.t(), "slice": x[3:250:7, 5:100:3], "column": x[:, 4:5], "row": x[7], "strided": x.flatten()[5::9], "permuted": deep.permute(3, 0, 2, 1),
             "swapped": deep.transpose(1, 2), "inner": deep[1:4, 2:, :, 3:9], "half_t": x.half().t(), "flat": x.flatten(), "last": x[299, 256]}
    tied = {"a": x, "b": x, "c": x[10:20], "p": torch.nn.Parameter(x), "buffer": torch.nn.Parameter(x, requires_grad=False)}
    nested = {"epoch": 3, "lr": 1e-3, "args": {"name": "x", "sizes": [1, 2], "dtype": torch.bfloat16}, "model": OrderedDict(tied),
              "optimizer": {"state": {0: {"exp_avg": x}}, "param_groups": [{"lr": 0.1, "params": [0]}]}}
    for protocol in 2, 3, 4, 5:
        for what, d, want in ("every type", every, every), ("views", views, views), ("tied", tied, tied), ("nested", nested, tied), \
                ("flattened", {"x": {"y": {"z": x}}, "list": [x, (x.t(), 1)], 5: x}, {"x.y.z": x, "list.0": x, "list.1.0": x.t(), "5": x}):
            p = here(f"{what.replace(' ', '_')}_{protocol}.pth")
            torch.save(d, p, pickle_protocol=protocol)
            check(f"{what}, protocol {protocol}", p, want)
    safetensors.torch.save_file(every, here("every.safetensors"), metadata={"format": "pt"})
    check("every type, safetensors", here("every.safetensors"), every)

    torch.save({"w": x}, here("old.bin"), _use_new_zipfile_serialization=False)
    refused("the old format", here("old.bin"), "before 2020")
    torch.save(model(), here("whole.bin"))
    refused("a whole model", here("whole.bin"), "nothing is executed")
    torch.save({"e": x[:1].clone().expand(300, 257)}, here("expand.bin"))
    refused("an expanded tensor", here("expand.bin"), "expanded")
    torch.save(x, here("bare.bin"))
    refused("a bare tensor", here("bare.bin"), "one bare tensor")
    torch.save({"w": torch.randn(4, 4, dtype=torch.complex64)}, here("complex.bin"))
    refused("complex numbers", here("complex.bin"), "ComplexFloatStorage")
    torch.save({"w": torch.randn(4, 4).to_sparse()}, here("sparse.bin"))
    refused("sparse tensors", here("sparse.bin"), "_rebuild_sparse_tensor")
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), here("script.pt"))
    refused("TorchScript", here("script.pt"), "TorchScript")
print(f"{passed} passed, {failed} failed")
sys.exit(failed > 0)
