#!/usr/bin/env python3
"""`cuanto convert FILE.gguf -o DIR` against Hugging Face transformers.

  tests/oracle/export.py [--only NAME...] [--work DIR] [MODEL.gguf ...]

Needs: make all oracle; pip install torch transformers safetensors. Without files: the tiny checkpoints of archs_*.py are converted to F32 GGUF and
back; every tensor must be the same (those stored less one: to the last place), transformers must load the directory without a complaint and give the
logits of the original. With files: the directory's tokenizer against the file's, transformers' logits against the file's, and the perplexity
of the directory converted to GGUF once more against the file's."""
import argparse, json, os, re, subprocess, sys
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import archs

CUANTO = archs.BUILD / "cuanto"
TEXTS = ["Hello world, 2026", "def f(x):\n    return x**2  # \u00fcn\u00efcode \u6f22\u5b57 \U0001f642", "  two spaces\n\n\nthree lines\t\ttabs 12345 it's I'LL"]


def run(*args):
    p = subprocess.run([str(a) for a in args], capture_output=True, text=True)
    return p.returncode, p.stdout, p.stderr.strip().splitlines()[-1:] or [""]


def load(dir, cls="AutoModelForCausalLM"):
    import transformers
    model, info = getattr(transformers, cls).from_pretrained(dir, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    bad = {k: v for k, v in info.items() if v and k in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")}
    return model, bad


def logits(dir, ids, cls="AutoModelForCausalLM"):
    model, bad = load(dir, cls)
    if hasattr(model, "set_experts_implementation"):
        model.set_experts_implementation("eager")
    with torch.no_grad():
        return model.eval()(torch.tensor([[int(i) for i in ids]]), use_cache=False).logits[0].float().numpy(), bad


def tiny(row, work):
    from safetensors.torch import load_file
    dir, gguf, back = work / row["name"], work / f"{row['name']}.gguf", work / f"{row['name']}-hf"
    dir.mkdir(parents=True, exist_ok=True)
    archs.build(row, dir)
    archs.convert_cuanto(dir, gguf)
    rc, _, err = run(CUANTO, "convert", gguf, "-o", back, "--overwrite", "-q")
    if rc:
        return f"refused: {err[0]}", rc == 4
    a, b = load_file(dir / "model.safetensors"), load_file(back / "model.safetensors")
    if json.loads((back / "config.json").read_text())["tie_word_embeddings"]:
        a.pop("lm_head.weight", None)
    names = {k for k in a if "rotary_emb" not in k}
    missing, extra = sorted(names - b.keys()), sorted(b.keys() - names)
    worst = max((float((a[k].float() - b[k].float()).abs().max()) for k in names & b.keys()), default=0)
    ids = archs.prompt(min(max(row.get("lengths", [archs.PROMPT])), 200))
    x, bad = logits(back, ids)
    y, _ = logits(dir, ids, row["cls"])
    e = archs.error(x, y)
    ok = e <= 1e-5 and not bad and worst <= 1e-6 and not (missing and extra)
    return f"{len(names)} tensors, largest difference {worst:.1e}, logits {e:.1e}{f', {bad}' if bad else ''}{f' missing {missing[:3]} extra {extra[:3]}' if missing or extra else ''}", ok


def perplexity(path):
    _, out, _ = run(CUANTO, "perplexity", path, "-f", archs.ROOT / "tests/golden/prose.txt", "-q")
    return float(re.search(r"PPL = ([0-9.]+)", out).group(1))


def real(path, work):
    from transformers import AutoTokenizer
    dir, again = work / f"{path.stem}-hf", work / f"{path.stem}-again.gguf"
    assert run(CUANTO, "convert", path, "-o", dir, "--overwrite", "-q")[0] == 0
    assert run(CUANTO, "convert", dir, "-o", again, "--overwrite", "-q")[0] == 0
    tok, prose = AutoTokenizer.from_pretrained(dir), (archs.ROOT / "tests/golden/prose.txt").read_text()
    differ = 0
    for text in TEXTS + [prose[:6000]]:
        ours = json.loads(run(CUANTO, "tokenize", path, text)[1])
        third = json.loads(run(CUANTO, "tokenize", again, text)[1])
        theirs = tok(text)["input_ids"]
        differ += ours != theirs or ours != third or tok.decode(theirs, skip_special_tokens=True) != text
    ids = np.array(tok(prose)["input_ids"][:256], np.int32)
    ref, bad = logits(dir, ids)
    e = archs.error(archs.ours(again, work, ids, 256, 256), ref)
    a, b = perplexity(path), perplexity(again)
    return f"{differ} of {len(TEXTS) + 1} texts differ, logits {e:.1e}, perplexity {a:.4f} -> {b:.4f}", differ == 0 and not bad and e <= 1e-2 and abs(a - b) < 2e-3 * a


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--only", nargs="+")
    ap.add_argument("--work", type=Path, default=Path("/tmp/export"))
    ap.add_argument("files", nargs="*", type=Path)
    args = ap.parse_args()
    os.environ |= {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    import transformers
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    args.work.mkdir(parents=True, exist_ok=True)
    bad = []
    jobs = [(p.stem, real, p) for p in args.files] or [(r["name"], tiny, r) for r in archs.all_rows() if not args.only or r["name"] in args.only]
    for name, check, what in jobs:
        try:
            text, ok = check(what, args.work)
        except Exception as e:
            text, ok = f"{type(e).__name__}: {e}", False
        print(f"{'ok  ' if ok else 'BAD '} {name}: {text}", flush=True)
        if not ok:
            bad.append(name)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
