#!/usr/bin/env python3
"""Chat templates of well-known models, rendered by cuanto and by Jinja2 as Hugging Face sets it up (but for methods that change lists, which
its sandbox refuses and Kimi K2 uses): byte for byte.

  tests/oracle/templates.py FILE.jinja | DIR | tokenizer_config.json ... [-v]

Needs: make all oracle; pip install jinja2. DIRs are searched for *.jinja and tokenizer_config.json with a chat_template. Every template
meets every conversation of ../golden/template_chats.py and those below (with and without tools, system message, thinking). Where Jinja2 fails
(raise_exception, a conversation that the template cannot take) cuanto must fail too. Ends with counts; status 1 if anything differs."""
import argparse, datetime, json, struct, subprocess, sys
from pathlib import Path

import jinja2
from jinja2.sandbox import SandboxedEnvironment

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "golden"))
from template_chats import CONVERSATIONS, SEARCH, WEATHER, conversation, m  # noqa: E402

NOW = 1786000000
PROGRAM = HERE.parent.parent / "build/release/templates"

MORE = {
    "thinking_on": conversation([m("system", "Think."), m("user", "Why?")], enable_thinking=True, reasoning_effort="high"),
    "thinking_off": conversation([m("user", "Why?")], enable_thinking=False, reasoning_effort="low"),
    "parts": conversation([m("user", [{"type": "text", "text": "Describe"}, {"type": "text", "text": " this."}])]),
    "developer": conversation([m("developer", "Rules."), m("user", "Go")]),
    "system_tools": conversation([m("system", "Use tools."), m("user", "Find cats"), m("assistant", "", tool_calls=[
        {"id": "abc123def", "type": "function", "function": {"name": "search", "arguments": {"q": "cats & dogs"}}}]),
        m("tool", "[1, 2]", tool_call_id="abc123def", name="search")], tools=[WEATHER, SEARCH]),
    "reasoning_history": conversation([m("user", "a"), m("assistant", "b", reasoning_content="because"), m("user", "c")], enable_thinking=True),
    "documents": conversation([m("user", "Summarise")], documents=[{"title": "T", "text": "Some text"}]),
    "dated": conversation([m("user", "Hi")], date_string="01 Jan 2026", builtin_tools=["web_search"]),
}


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def strftime_now(fmt):
    return datetime.datetime.fromtimestamp(NOW, datetime.timezone.utc).strftime(fmt)


def generation_tag():
    from jinja2.ext import Extension

    class Generation(Extension):
        tags = {"generation"}

        def parse(self, parser):
            line = next(parser.stream).lineno
            body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
            return jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

        def _body(self, caller):
            return caller()
    return Generation


def environment():
    env = SandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[generation_tag(), "jinja2.ext.loopcontrols"])
    env.filters["tojson"] = tojson
    env.filters["from_json"] = json.loads
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = strftime_now
    return env


def found(paths):
    for p in map(Path, paths):
        files = sorted([*p.rglob("*.jinja"), *p.rglob("tokenizer_config.json")]) if p.is_dir() else [p]
        for f in files:
            if f.suffix != ".json":
                yield f.stem, f.read_text(encoding="utf-8")
                continue
            t = json.loads(f.read_text(encoding="utf-8")).get("chat_template")
            for named in t if isinstance(t, list) else [{"name": "", "template": t}] if t else []:
                yield f"{f.parent.name}{named['name'] and '/'}{named['name']}", named["template"]


def ours(source, contexts):
    frame = lambda s: struct.pack("<I", len(s)) + s
    data = frame(source.encode()) + struct.pack("<I", len(contexts)) + b"".join(frame(json.dumps(c, ensure_ascii=False).encode()) for c in contexts)
    out = subprocess.run([PROGRAM, str(NOW)], input=data, stdout=subprocess.PIPE, check=True).stdout
    at = 0
    for _ in contexts:
        st, n = struct.unpack_from("<II", out, at)
        yield st, out[at + 8:at + 8 + n].decode("utf-8", "replace")
        at += 8 + n


def main():
    args = argparse.ArgumentParser()
    args.add_argument("paths", nargs="+")
    args.add_argument("-v", action="store_true")
    args = args.parse_args()
    env, conversations = environment(), {**CONVERSATIONS, **MORE}
    templates = renders = refused = bad = 0
    for name, source in found(args.paths):
        templates += 1
        differ = []
        compiled = env.from_string(source)
        for (title, vars), (st, got) in zip(conversations.items(), ours(source, list(conversations.values()))):
            try:
                want = compiled.render(**vars)
            except Exception as e:  # whatever stops Jinja2 must stop cuanto
                want, why = None, e
            renders += 1
            refused += want is None
            if (want is None) != (st != 0) or (want is not None and want != got):
                differ.append((title, want if want is not None else f"({type(why).__name__}: {why})", f"({got})" if st else got))
        bad += bool(differ)
        print(f"{name:56} {'ok' if not differ else f'{len(differ)} of {len(conversations)} differ'}")
        for title, want, got in differ if args.v else differ[:1]:
            print(f"  {title}\n    jinja2: {want[:300]!r}\n    cuanto: {got[:300]!r}")
    print(f"{templates} templates, {renders} renders ({refused} that Jinja2 refuses), {bad} templates differ")
    return bad > 0


if __name__ == "__main__":
    sys.exit(main())
