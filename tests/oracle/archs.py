#!/usr/bin/env python3
"""Every architecture against Hugging Face transformers and llama.cpp, on tiny random models.

  tests/oracle/archs.py [--only NAME...] [--converter cuanto|llama] [--llama-src DIR] [--work DIR] [--write | --golden]

Needs: make all oracle; pip install torch transformers safetensors llama-cpp-python gguf; for --converter llama a llama.cpp source tree
(--llama-src or $LLAMA_SRC). The models are rows in archs_*.py beside this file. For each: a random checkpoint is written and converted to
F32, transformers (float32, eager attention) gives logits for a prompt, cuanto runs the file with an F32 cache in one batch, in passes of 64
and token by token, llama.cpp runs the same file with an F32 cache. One line per row of the table in models/README.md; --write puts them there.
--golden writes tests/golden/arch/NAME.txt, from which tests/test_archs.c repeats conversion and run without Python.

WEIGHTS. Element i of tensor NAME (the name in the safetensors file, i counted in row-major order) is
  z = fnv1a64(NAME) + (i + 1) * 0x9E3779B97F4A7C15 mod 2^64; z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9; z = (z ^ z >> 27) * 0x94D049BB133111EB;
  u = ((z ^ z >> 31) >> 40) / 2^24;   x = c + w * (2 u - 1) in double, rounded to float
with (c, w) = (1, 0.1) for one dimension and "norm" or "ln_" in the name, (0, 0.1) for one dimension otherwise, (0, sqrt(3 / last dimension)) for
more. A row's "fill" {part of a name: (c, w)} goes before these rules. Bytes (MXFP4) are z >> 40 modulo 256, those with "scales" in the name 121 + (z >> 40)
modulo 3. A prompt is fnv1a64("tokens") and the same z, modulo N_IDS.
TOKENIZER. Byte-level BPE without merges of note: 256 bytes, 48 pairs of a-g, BOS, EOS; the matrices have more rows than that."""
import argparse, ctypes, json, logging, os, re, subprocess, sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BUILD = Path(os.environ.get("CUANTO_BUILD", ROOT / "build/release"))
N_IDS, VOCAB, BOS, EOS = 304, 320, 304, 305
PROMPT, GOLDEN_PROMPT = 300, 72
QUIET = []  # callbacks that llama.cpp holds
MARKS = ("<!-- archs.py -->\n", "<!-- /archs.py -->\n")
HEAD = ("| model | Hugging Face class | exercised | batch | 64 rows | one by one | top-1 HF | top-1 llama.cpp |\n"
        "|---|---|---|--:|--:|--:|--:|--:|\n")


# ---- deterministic weights ----

def fnv1a(name):
    h = 0xCBF29CE484222325
    for c in name.encode():
        h = (h ^ c) * 0x100000001B3 % 2**64
    return h


def mix(name, n):
    z = np.uint64(fnv1a(name)) + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def rule(name, shape, fill):
    for part, cw in (fill or {}).items():
        if part in name:
            return cw
    if len(shape) > 1:
        return 0.0, float(np.sqrt(3.0 / shape[-1]))
    return (1.0, 0.1) if "norm" in name or "ln_" in name else (0.0, 0.1)


def random_tensor(name, shape, fill=None):
    c, w = rule(name, shape, fill)
    n = int(np.prod(shape))
    u = (mix(name, n) >> np.uint64(40)).astype(np.float64) / 2**24
    return (c + w * (2 * u - 1)).astype(np.float32).reshape(shape)


def random_bytes(name, shape):
    z = mix(name, int(np.prod(shape))) >> np.uint64(40)
    return (121 + z % np.uint64(3) if "scales" in name else z % np.uint64(256)).astype(np.uint8).reshape(shape)


def mxfp4(name, shape):
    """Stack [experts][in][out] as MXFP4: the two byte tensors that a checkpoint has instead, and the weights they stand for."""
    e, k, n = shape
    blocks, scales = random_bytes(name + "_blocks", (e, n, k // 32, 16)), random_bytes(name + "_scales", (e, n, k // 32))
    value = np.array([0, .5, 1, 1.5, 2, 3, 4, 6, 0, -.5, -1, -1.5, -2, -3, -4, -6], np.float32)
    x = np.stack([value[blocks & 15], value[blocks >> 4]], -1).reshape(e, n, k // 32, 32) * np.exp2(scales.astype(np.float32) - 127)[..., None]
    return {name + "_blocks": blocks, name + "_scales": scales}, np.ascontiguousarray(x.reshape(e, n, k).swapaxes(1, 2))


def prompt(n):
    return (mix("tokens", n) % np.uint64(N_IDS)).astype(np.int32)


# ---- tokenizer ----

def byte_names():
    """The printable character that byte-level BPE writes for each byte (GPT-2)."""
    keep = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = (b for b in range(256) if b not in keep)
    names = {b: chr(b) for b in keep} | {b: chr(256 + i) for i, b in enumerate(rest)}
    return [names[b] for b in range(256)]


def vocabulary():
    merges = [("abcdefg"[i // 7], "abcdefg"[i % 7]) for i in range(48)]
    return byte_names() + [a + b for a, b in merges] + ["<s>", "</s>"], merges


def write_tokenizer(dir):
    tokens, merges = vocabulary()
    special = [{"id": i, "content": t, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
               for i, t in ((BOS, "<s>"), (EOS, "</s>"))]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": False,
             "byte_fallback": False, "ignore_merges": False, "vocab": {t: i for i, t in enumerate(tokens[:N_IDS])},
             "merges": [f"{a} {b}" for a, b in merges]}
    (dir / "tokenizer.json").write_text(json.dumps({"version": "1.0", "truncation": None, "padding": None, "added_tokens": special, "normalizer": None,
                                                    "pre_tokenizer": level, "post_processor": None, "decoder": level, "model": model}))
    (dir / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}))


# ---- the checkpoint and the reference ----

def build_remote(row, dir):
    """A family whose code is not in transformers: names and shapes of its tensors stand in the row."""
    from safetensors.numpy import save_file
    config = {"vocab_size": VOCAB, "bos_token_id": BOS, "eos_token_id": EOS, "architectures": [row["hf"]]} | row["config"]
    (dir / "config.json").write_text(json.dumps(config, indent=1))
    out = {k: random_tensor(k, v, row.get("fill")) for k, v in row["tensors"](config).items()}
    save_file(out, dir / "model.safetensors", metadata={"format": "pt"})
    write_tokenizer(dir)
    return out


def build(row, dir):
    """Writes the checkpoint; returns {tensor name: array} as saved."""
    if row["cls"] is None:
        return build_remote(row, dir)
    import torch, transformers
    from safetensors import safe_open
    from safetensors.numpy import save_file
    torch.manual_seed(0)
    cls = getattr(transformers, row["cls"])
    kw = {"vocab_size": VOCAB, "bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": EOS} | row["config"]
    config = row["make_config"](kw) if "make_config" in row else cls.config_class(**kw)
    cls(config).save_pretrained(dir)
    if "after_save" in row:
        row["after_save"](dir)
    if "patch_config" in row:
        c = json.loads((dir / "config.json").read_text())
        row["patch_config"](c)
        (dir / "config.json").write_text(json.dumps(c, indent=1))
    out, dense = {}, {}
    with safe_open(dir / "model.safetensors", "np") as f:
        for name in f.keys():
            t = f.get_slice(name)
            out[name] = f.get_tensor(name) if t.get_dtype()[0] != "F" else random_tensor(name, t.get_shape(), row.get("fill"))
    if "mxfp4" in row:  # transformers reads the dense twin: it unpacks MXFP4 to bf16 only
        dense = dict(out)
        for name in [n for n in out if n.endswith(row["mxfp4"])]:
            packed, dense[name] = mxfp4(name, out.pop(name).shape)
            out |= packed
        twin = dir / "dense"
        twin.mkdir(exist_ok=True)
        save_file(dense, twin / "model.safetensors", metadata={"format": "pt"})
        (twin / "config.json").write_text((dir / "config.json").read_text())
        c = json.loads((dir / "config.json").read_text())
        c["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"]}
        (dir / "config.json").write_text(json.dumps(c, indent=1))
    save_file(out, dir / "model.safetensors", metadata={"format": "pt"})
    write_tokenizer(dir)
    return out


def reference(row, dir, ids):
    if row["cls"] is None:  # only llama.cpp has the equations
        gguf = dir.with_suffix(".reference.gguf")
        convert_cuanto(dir, gguf)
        return llama_cpp(gguf, ids, len(ids))
    import torch, transformers
    dir = dir / "dense" if "mxfp4" in row else dir
    model, info = getattr(transformers, row["cls"]).from_pretrained(dir, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    bad = {k: v for k, v in info.items() if v and k in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")}
    if bad:
        raise SystemExit(f"{row['name']}: transformers did not load the checkpoint as written: {bad}")
    if hasattr(model, "set_experts_implementation"):
        model.set_experts_implementation("eager")
    with torch.no_grad():
        return model.eval()(torch.tensor(ids[None].astype(np.int64)), use_cache=False).logits[0].float().numpy()


# ---- conversion ----

def convert_llama(src, dir, out):
    """llama.cpp's converter in this process, with the tokenizer above in place of its detection."""
    sys.path[:0] = [str(src), str(Path(src) / "gguf-py")]
    import torch, gguf
    from conversion import ModelBase, ModelType, get_model_architecture, get_model_class
    logging.getLogger("hf-to-gguf").setLevel(logging.ERROR)

    def set_vocab(self):
        tokens, merges = vocabulary()
        types_ = [1] * N_IDS + [3, 3]
        size = N_IDS + 2 if hasattr(self, "norm_shift") else self.hparams.get("vocab_size", VOCAB)  # Gemma classes cut the embedding
        tokens = tokens + [f"[PAD{i}]" for i in range(len(tokens), size)]
        w = self.gguf_writer
        w.add_tokenizer_model("gpt2")
        w.add_tokenizer_pre("gpt-2")
        w.add_token_list(tokens)
        w.add_token_types(types_ + [5] * (size - len(types_)))
        w.add_token_merges([f"{a} {b}" for a, b in merges])
        w.add_bos_token_id(BOS)
        w.add_eos_token_id(EOS)

    with torch.inference_mode():
        hparams = ModelBase.load_hparams(dir, False)
        cls = get_model_class(get_model_architecture(hparams, ModelType.TEXT))
        cls.set_vocab = set_vocab
        cls.no_mtp = True  # or Qwen expects further layers that transformers does not save
        cls(dir, gguf.LlamaFileType.ALL_F32, out, eager=True).write()


def convert_cuanto(dir, out):
    subprocess.run([BUILD / "cuanto", "convert", str(dir), "-o", str(out), "--dtype", "f32", "--force"], check=True, stdout=subprocess.DEVNULL)


# ---- the engines ----

def ours(gguf, work, ids, rows, n_ctx):
    (work / "tokens").write_bytes(ids.astype("<i4").tobytes())
    subprocess.run([BUILD / "logits", gguf, work / "tokens", work / "out", str(n_ctx), f"rows={rows}", "kv=f32"], check=True)
    return np.fromfile(work / "out", "<f4").reshape(len(ids), -1)


def llama_cpp(gguf, ids, n_ctx):
    import llama_cpp as L
    QUIET.append(L.llama_log_callback(lambda level, text, data: None))
    L.llama_log_set(QUIET[-1], ctypes.c_void_p(0))
    m = L.Llama(str(gguf), n_ctx=n_ctx, n_batch=512, n_ubatch=512, n_threads=1, logits_all=True, type_k=0, type_v=0, flash_attn=False, verbose=False)
    m.eval([int(t) for t in ids])
    return np.array(m.scores[:len(ids)])


def error(x, ref):
    n = min(x.shape[1], ref.shape[1])
    return float(np.abs(x[:, :n] - ref[:, :n]).max() / np.abs(ref).max())


def agree(x, y):
    n = min(x.shape[1], y.shape[1])
    return f"{int((x[:, :n].argmax(1) == y[:, :n].argmax(1)).sum())}/{len(x)}"


def measure(row, args, work):
    dir = work / row["name"]
    dir.mkdir(parents=True, exist_ok=True)
    gguf = work / f"{row['name']}.gguf"
    build(row, dir)
    (convert_llama(args.llama_src, dir, gguf) if args.converter == "llama" else convert_cuanto(dir, gguf))
    worst, tops, llama = [0, 0, 0], [], []
    for n in row.get("lengths", [PROMPT]):
        ids = prompt(n)
        n_ctx = row.get("n_ctx", n)
        ref = reference(row, dir, ids)
        first = None
        for i, rows in enumerate((n, 64, 1)):
            x = ours(gguf, work, ids, rows, n_ctx)
            first = x if first is None else first
            worst[i] = max(worst[i], error(x, ref))
        tops.append(agree(first, ref) if row["cls"] else "-")
        try:
            y = llama_cpp(gguf, ids, n_ctx)
            llama.append(agree(first, y))
            if (e := error(y, ref)) > 1e-4:
                print(f"note: {row['name']}: llama.cpp differs from transformers by {e:.1e} ({n} tokens)", file=sys.stderr)
        except Exception as e:
            llama.append("-")
            print(f"note: {row['name']}: llama.cpp: {e}", file=sys.stderr)
    return (f"| {row['name']} | {row['cls'] or row['hf'] + ' (against llama.cpp)'} | {row['what']} | " + " | ".join(f"{e:.1e}" for e in worst) +
            f" | {' '.join(tops)} | {' '.join(llama)} |"), max(worst)


# ---- goldens ----

def folded(tensors):
    """Tensor lines; numbers in names that run over a whole range become {lo-hi}."""
    groups = {}
    for name, t in tensors.items():
        parts = re.split(r"(?<=\.)(\d+)(?=\.)", name)
        groups.setdefault((tuple(parts[::2]), t.shape, "bytes" if t.dtype == np.uint8 else "tensor"), set()).add(tuple(int(i) for i in parts[1::2]))
    for (text, shape, kind), index in groups.items():
        for block in blocks(sorted(index)):
            name = text[0] + "".join((f"{{{a}-{b}}}" if b > a else str(a)) + t for (a, b), t in zip(block, text[1:]))
            yield f"{kind} {name} {' '.join(map(str, shape))}"


def blocks(index):
    """Index tuples as products of ranges: one if they are, else one for each first index."""
    if not index or not index[0]:
        return [()]
    axes = [sorted({t[i] for t in index}) for i in range(len(index[0]))]
    if all(a[-1] - a[0] + 1 == len(a) for a in axes) and len(index) == np.prod([len(a) for a in axes]):
        return [[(a[0], a[-1]) for a in axes]]
    return [b for i in axes[0] for b in ([[(i, i)] + list(c) for c in blocks([t[1:] for t in index if t[0] == i])])]


def golden(row, work, n, name):
    dir = work / row["name"]
    dir.mkdir(parents=True, exist_ok=True)
    tensors = build(row, dir)
    ref = reference(row, dir, prompt(n))
    config = json.loads((dir / "config.json").read_text())
    config = {k: v for k, v in config.items() if v is not None and k not in ("transformers_version", "dtype", "use_cache", "return_dict", "output_attentions",
              "output_hidden_states", "chunk_size_feed_forward", "is_encoder_decoder", "problem_type", "id2label", "label2id", "initializer_range")}
    lines = [f"# {row['cls'] or row['hf'] + ', logits of llama.cpp'}: {row['what']}. By tests/oracle/archs.py --golden, which states the rule of the weights and of the prompt.",
             "config " + json.dumps(config, separators=(",", ":")), *folded(tensors),
             *(f"fill {k} {c!r} {w!r}" for k, (c, w) in row.get("fill", {}).items()),
             f"prompt {n} scale {np.abs(ref).max():.7g}", "top " + " ".join(map(str, ref.argmax(1)))]
    for at in sorted({0, 1, n // 3, n // 2, n - 2, n - 1}):
        lines.append(f"logits {at} " + " ".join(f"{i}:{ref[at, i]:.7g}" for i in ((at * 37 + j * 41) % ref.shape[1] for j in range(8))))
    text = "\n".join(lines) + "\n"
    if len(text) > 8192:
        raise SystemExit(f"{row['name']}: the golden has {len(text)} bytes, the limit is 8192")
    path = ROOT / "tests/golden/arch" / f"{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    print(f"{path.relative_to(ROOT)}: {len(text)} bytes")


def write_table(lines):
    """Rows measured now replace those of the same name; the others stay."""
    path = ROOT / "models/README.md"
    text = path.read_text()
    if MARKS[0] not in text:
        raise SystemExit(f"{path}: no line {MARKS[0].strip()}")
    before, rest = text.split(MARKS[0])
    old, after = rest.split(MARKS[1])
    have = {l.split("|")[1].strip(): l for l in old.splitlines()[3:] if l.startswith("|")}
    have |= {l.split("|")[1].strip(): l for l in lines}
    order = [r["name"] for r in all_rows()]
    rows = sorted(have.items(), key=lambda kv: order.index(kv[0]) if kv[0] in order else len(order))
    path.write_text(before + MARKS[0] + "\n" + HEAD + "".join(l + "\n" for _, l in rows) + "\n" + MARKS[1] + after)


def all_rows():
    sys.path.insert(0, str(HERE))
    rows = []
    for path in sorted(HERE.glob("archs_*.py")):
        rows += __import__(path.stem).ROWS
    return rows


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--only", nargs="+", help="names, or beginnings of names that end with *")
    ap.add_argument("--converter", choices=["cuanto", "llama"], default="cuanto")
    ap.add_argument("--llama-src", default=os.environ.get("LLAMA_SRC", "llama.cpp"))
    ap.add_argument("--work", type=Path, default=Path("/tmp/archs"))
    ap.add_argument("--write", action="store_true")
    ap.add_argument("--golden", action="store_true")
    ap.add_argument("--list", action="store_true")
    args = ap.parse_args()
    rows = [r for r in all_rows() if not args.only or any(r["name"] == o or o.endswith("*") and r["name"].startswith(o[:-1]) for o in args.only)]
    if args.list or not rows:
        print("\n".join(r["name"] for r in all_rows()))
        return 0 if rows else 2
    os.environ |= {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    logging.getLogger().setLevel(logging.ERROR)
    import torch, transformers
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    args.work.mkdir(parents=True, exist_ok=True)
    lines, bad = [], []
    if not args.golden:
        print(HEAD, end="")
    for row in rows:
        try:
            if args.golden:
                for i, n in enumerate(np.atleast_1d(row.get("golden", GOLDEN_PROMPT)).tolist()):
                    golden(row, args.work, n, row["name"] + (f"-{n}" if i else ""))
                continue
            line, worst = measure(row, args, args.work)
            lines.append(line)
            print(line, flush=True)
            if not worst <= 1e-4:
                bad.append(row["name"])
        except Exception as e:
            if len(rows) == 1:
                raise
            bad.append(row["name"])
            print(f"note: {row['name']}: {type(e).__name__}: {e}", file=sys.stderr)
    if args.write:
        write_table(lines)
    if bad:
        print("over 1e-4 or failed: " + " ".join(bad), file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
