#!/usr/bin/env python3
"""Adapters of the PEFT library against cuanto and llama.cpp, on the tiny random models of archs.py.

  tests/oracle/adapters.py [--only NAME...] [--kind KIND...] [--work DIR] [--golden]
  tests/oracle/adapters.py --real MODEL.gguf     the same on a real model, which `cuanto convert` exports for PEFT

Needs: make all oracle; pip install torch transformers peft safetensors llama-cpp-python gguf. For every architecture and every way to write an adapter (KINDS):
an adapter with random matrices is saved by PEFT; PEFT's logits for a prompt are the reference. `cuanto convert` makes a GGUF adapter of it, which
must give the same logits in cuanto and in llama.cpp; `cuanto convert` makes a PEFT folder of that again, which PEFT must load to the same logits. Errors are of
the largest logit; "adds" is what the adapter changes. --golden writes tests/golden/peft/NAME.txt, from which tests/test_peft.c repeats the first step.

Element values follow the rule in archs.py by the names in adapter_model.safetensors, with (c, w) = (0, 0.2) for lora_B and lora_embedding_B."""
import argparse, json, logging, os, shutil, subprocess, sys
from pathlib import Path

import numpy as np

import archs

FILL = {"lora_B": (0.0, 0.2), "lora_embedding_B": (0.0, 0.2)}
PROMPT, GOLDEN_PROMPT = 90, 40

# Ways to write an adapter: keyword arguments of LoraConfig, or a function of the model that gives them.
def linear(m):
    return dict(r=4, lora_alpha=8, target_modules="all-linear")


def patterns(m):
    """Ranks and alphas by pattern, rsLoRA: what must be folded."""
    import torch
    from transformers.pytorch_utils import Conv1D
    leaves = sorted({n.rsplit(".", 1)[-1] for n, x in m.named_modules() if isinstance(x, (torch.nn.Linear, Conv1D)) and "lm_head" not in n})
    return dict(r=3, lora_alpha=5, target_modules=leaves, use_rslora=True, rank_pattern={leaves[0]: 6, rf".*\.1\..*{leaves[-1]}": 2},
                alpha_pattern={leaves[-1]: 2.5, rf"^.*\.0\..*\.{leaves[0]}": 1})


def ends(m):
    """Embedding and head."""
    import torch
    names = [n.rsplit(".", 1)[-1] for n, x in m.named_modules() if isinstance(x, torch.nn.Embedding)][:1]
    return dict(r=4, lora_alpha=8, target_modules=names + [n for n, x in m.named_modules() if x is m.get_output_embeddings()])


def experts(m):
    """Stacks of experts as parameters (transformers 5)."""
    names = sorted({n.split(".", 3)[3] for n, p in m.named_parameters() if ".experts." in n and p.dim() == 3 and n.count(".") > 3})
    if not names:
        raise LookupError("no stacks of experts")
    return dict(r=2, lora_alpha=4, target_modules=["q_proj", "o_proj"], target_parameters=names)


KINDS = {"linear": linear, "patterns": patterns, "ends": ends, "experts": experts}


def put_values(folder):
    """Values by the rule, into what PEFT saved. Copies of the base's weights stay."""
    from safetensors.numpy import load_file, save_file
    path = folder / "adapter_model.safetensors"
    t = load_file(path)
    out = {k: archs.random_tensor(k, v.shape, FILL) if ".lora_" in k else v for k, v in t.items()}
    save_file(out, path, metadata={"format": "pt"})
    return out


def load_base(row, dir):
    import torch, transformers
    m = getattr(transformers, row["cls"]).from_pretrained(dir, dtype=torch.float32, attn_implementation="eager").eval()
    if hasattr(m, "set_experts_implementation"):
        m.set_experts_implementation("eager")
    return m


def peft_logits(row, dir, adapter, ids):
    import torch
    from peft import PeftModel
    base = load_base(row, dir)
    m = base if adapter is None else PeftModel.from_pretrained(base, adapter).eval()
    with torch.no_grad():
        return m(input_ids=torch.tensor(ids[None].astype(np.int64)), use_cache=False).logits[0].float().numpy()


def ours(gguf, lora, work, ids):
    (work / "tokens").write_bytes(ids.astype("<i4").tobytes())
    subprocess.run([archs.BUILD / "logits", gguf, work / "tokens", work / "out", str(len(ids)), f"rows={len(ids)}", "kv=f32", f"lora={lora}"], check=True)
    return np.fromfile(work / "out", "<f4").reshape(len(ids), -1)


def llama(gguf, lora, ids, work):
    """In a process of its own: on adapters of a tied embedding llama.cpp ends by an assertion."""
    out = work / "llama.npy"
    out.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            np.save(out, llama_here(gguf, lora, ids))
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    return np.load(out)


def llama_here(gguf, lora, ids):
    import ctypes, llama_cpp as L
    archs.QUIET.append(L.llama_log_callback(lambda level, text, data: None))
    L.llama_log_set(archs.QUIET[-1], ctypes.c_void_p(0))
    m = L.Llama(str(gguf), n_ctx=len(ids), n_batch=512, n_ubatch=512, n_threads=1, logits_all=True, type_k=0, type_v=0, flash_attn=False, verbose=False,
                lora_path=lora and str(lora))
    m.eval([int(t) for t in ids])
    return np.array(m.scores[:len(ids)])


def make_adapter(row, dir, kind, folder):
    from peft import LoraConfig, get_peft_model
    base = load_base(row, dir)
    m = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **KINDS[kind](base)))
    shutil.rmtree(folder, ignore_errors=True)
    m.save_pretrained(folder)
    return put_values(folder)


def convert(*args):
    r = subprocess.run([archs.BUILD / "cuanto", "convert", *map(str, args), "--force", "-q"], capture_output=True, text=True)
    if r.returncode:
        raise ValueError(r.stderr.strip().split("\n")[-1])


def measure(row, kind, work, dir, gguf):
    folder, lora, back = work / f"{row['name']}-{kind}", work / f"{row['name']}-{kind}.gguf", work / f"{row['name']}-{kind}-back"
    ids = archs.prompt(PROMPT)
    make_adapter(row, dir, kind, folder)
    ref, plain = peft_logits(row, dir, folder, ids), peft_logits(row, dir, None, ids)
    convert(folder, "--base", gguf, "-o", lora)
    errors = [archs.error(ours(gguf, lora, work, ids), ref)]
    try:
        errors.append(archs.error(llama(gguf, lora, ids, work), ref))
    except Exception:
        errors.append(float("nan"))
    shutil.rmtree(back, ignore_errors=True)
    try:
        convert(lora, "--base", gguf, "-o", back)
        errors.append(archs.error(peft_logits(row, dir, back, ids), ref))
        note = ""
    except ValueError as e:
        errors.append(float("nan"))
        note = "   back: " + str(e)[:110]
    print(f"{row['name']:20} {kind:9} adds {archs.error(plain, ref):.3f}   cuanto {errors[0]:.1e}   llama.cpp {errors[1]:.1e}   back to PEFT {errors[2]:.1e}{note}", flush=True)
    return errors[0] <= 1e-4 and not errors[2] > 1e-4


def real(path, work):
    """PEFT runs the dequantized weights, cuanto and llama.cpp the file, and the same weights in F32: what they make of the base says what to expect."""
    row = {"name": Path(path).stem, "cls": "AutoModelForCausalLM"}
    dir, folder, lora = work / row["name"], work / (row["name"] + "-lora"), work / (row["name"] + "-lora.gguf")
    convert(path, "-o", dir, "--dtype", "f32")
    ids = archs.prompt(PROMPT)
    make_adapter(row, dir, "linear", folder)
    convert(folder, "--base", path, "-o", lora)
    plain, ref = peft_logits(row, dir, None, ids), peft_logits(row, dir, folder, ids)
    whole = work / (row["name"] + "-f32.gguf")
    convert(dir, "-o", whole)
    for file in (path, whole):
        none = archs.ours(file, work, ids, len(ids), len(ids))
        print(f"{Path(file).name}: adds {archs.error(plain, ref):.3f}   cuanto {archs.error(ours(file, lora, work, ids), ref):.1e}, base alone "
              f"{archs.error(none, plain):.1e}   llama.cpp {archs.error(llama(file, lora, ids, work), ref):.1e}, base alone "
              f"{archs.error(llama(file, None, ids, work), plain):.1e}")


def golden(row, kind, work, dir):
    """Shapes, config and what PEFT answers; the base is golden/arch/NAME.txt."""
    folder = work / f"{row['name']}-{kind}"
    tensors = make_adapter(row, dir, kind, folder)
    ids = archs.prompt(GOLDEN_PROMPT)
    ref = peft_logits(row, dir, folder, ids)
    keep = ("peft_type", "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "fan_in_fan_out", "bias", "init_lora_weights", "target_parameters")
    config = {k: v for k, v in json.loads((folder / "adapter_config.json").read_text()).items() if k in keep and v not in (None, {}, [])}
    lines = [f"# {row['cls']}, adapter \"{kind}\" on golden/arch/{row['name']}.txt. By tests/oracle/adapters.py --golden.",
             "config " + json.dumps(config, separators=(",", ":")), *archs.folded({k: v for k, v in tensors.items() if ".lora_" in k}),
             *(f"fill {k} {c!r} {w!r}" for k, (c, w) in FILL.items()),
             f"prompt {len(ids)} scale {np.abs(ref).max():.7g}", "top " + " ".join(map(str, ref.argmax(1)))]
    n = len(ids)
    for at in (0, n // 3, n - 1):
        lines.append(f"logits {at} " + " ".join(f"{i}:{ref[at, i]:.7g}" for i in ((at * 37 + j * 41) % ref.shape[1] for j in range(8))))
    path = archs.ROOT / "tests/golden/peft" / f"{row['name']}-{kind}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    print(f"{path.relative_to(archs.ROOT)}: {path.stat().st_size} bytes")


GOLDEN = [("llama", "linear"), ("llama", "ends"), ("gemma3", "ends"), ("qwen2", "patterns"), ("gemma3", "linear"), ("phi4-mini", "linear"), ("gpt2", "patterns"), ("falcon-40b", "linear"),
          ("mixtral", "experts"), ("gpt-oss", "experts")]


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--only", nargs="+", help="names, or beginnings of names that end with *")
    ap.add_argument("--kind", nargs="+", choices=list(KINDS), default=list(KINDS))
    ap.add_argument("--work", type=Path, default=Path("/tmp/adapters"))
    ap.add_argument("--golden", action="store_true")
    ap.add_argument("--real", metavar="MODEL.gguf")
    args = ap.parse_args()
    os.environ |= {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "GGML_NO_BACKTRACE": "1"}
    logging.getLogger().setLevel(logging.ERROR)
    import torch, transformers, warnings
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    args.work.mkdir(parents=True, exist_ok=True)
    if args.real:
        return real(args.real, args.work)
    bad = 0
    for row in archs.all_rows():
        name = row["name"]
        if row["cls"] is None or (args.only and not any(name == o or o.endswith("*") and name.startswith(o[:-1]) for o in args.only)):
            continue
        dir, gguf = args.work / name, args.work / f"{name}.gguf"
        if args.golden and not any(g[0] == name for g in GOLDEN):
            continue
        dir.mkdir(parents=True, exist_ok=True)
        try:
            archs.build(row, dir)
            archs.convert_cuanto(dir, gguf)
        except Exception as e:
            print(f"{name:20} {type(e).__name__}: {e}")
            continue
        for kind in args.kind:
            try:
                if args.golden:
                    if (name, kind) in GOLDEN:
                        golden(row, kind, args.work, dir)
                else:
                    bad += not measure(row, kind, args.work, dir, gguf)
            except LookupError:
                pass
            except Exception as e:
                print(f"{name:20} {kind:9} {type(e).__name__}: {str(e)[:200]}", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
