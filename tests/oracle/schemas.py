#!/usr/bin/env python3
"""Are texts that fit the grammar of a JSON schema valid? Random schemas, judged by Python's json and jsonschema.

  pip install jsonschema;  make build/release/schemas;  tests/oracle/schemas.py SCHEMAS [MODEL.gguf GENERATIONS]

First SCHEMAS random schemas with 5 texts each, drawn byte by byte from the grammar; then, with a model, GENERATIONS answers of `cuanto run` (only answers that
ended by themselves count; a text cut at the token limit is no claim). Ends with status 1 if any text is invalid."""
import datetime, json, random, re, subprocess, sys
import jsonschema

WORDS = ["a", "ab", "name", "x y", "é", 'q"', "Z-9", "n"]
PATTERNS = ["^[a-z]{2,4}$", "b+", "^\\d{3}-\\w+$", "^(a|bc)*x?$", "^[^0-9\"]{1,3}$", "^\\S\\s.$", "^a|b$", "^\\W[^\\w]$", "^.{2}é?$"]
checker = jsonschema.FormatChecker(formats=[])


@checker.checks("date-time", raises=ValueError)
def _(v):
    return not isinstance(v, str) or bool(datetime.datetime.fromisoformat(v))


@checker.checks("date", raises=ValueError)
def _(v):
    return not isinstance(v, str) or bool(datetime.date.fromisoformat(v))


@checker.checks("time", raises=ValueError)
def _(v):
    return not isinstance(v, str) or bool(datetime.time.fromisoformat(v))


@checker.checks("uuid")
def _(v):
    return not isinstance(v, str) or bool(re.fullmatch(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", v))


def value(r, depth):
    return r.choice([None, True, 0, -7, 2.5, "s", 'q"\\', "é", [], [1, "a"], {"k": 1}])


def schema(r, depth=0, defs=()):
    kinds = ["string", "integer", "number", "boolean", "null", "enum", "const"] + ["object", "array", "anyOf", "allOf", "oneOf", "types"] * (depth < 3)
    k = r.choice(kinds) if depth else r.choice(["object", "object", "array", "anyOf", "oneOf", "allOf"])
    if defs and depth and r.random() < .1:
        return {"$ref": "#/$defs/" + r.choice(defs)}
    if k == "string":
        s = {"type": "string"}
        pick = r.randrange(4)
        if pick == 0:
            s["pattern"] = r.choice(PATTERNS)
        elif pick == 1:
            s["format"] = r.choice(["date", "time", "date-time", "uuid"])
        elif pick == 2:
            s["minLength"] = r.randrange(4)
            s["maxLength"] = s["minLength"] + r.randrange(5)
        else:
            s["maxLength"] = 12
        return s
    if k in ("integer", "number"):
        s, lo = {"type": k}, r.randint(-300, 300)
        if r.random() < .6:
            s[r.choice(["minimum", "exclusiveMinimum"])] = lo
        if r.random() < .6:
            s[r.choice(["maximum", "exclusiveMaximum"])] = lo + r.choice([2, 3, 10, 500, 123456])
        return s
    if k in ("boolean", "null"):
        return {"type": k}
    if k == "enum":
        return {"enum": [value(r, 0) for _ in range(r.randint(1, 4))]}
    if k == "const":
        return {"const": value(r, 0)}
    if k == "types":
        return {"type": r.sample(["string", "integer", "null", "boolean", "array"], 2), "maxLength": 4, "maximum": 9, "maxItems": 2}
    if k == "object":
        names = r.sample(WORDS, r.randint(0, 4))
        s = {"type": "object", "properties": {n: schema(r, depth + 1, defs) for n in names}, "required": [n for n in names if r.random() < .5]}
        if r.random() < .2:
            s["required"].append("extra")
        if r.random() < .5:
            s["additionalProperties"] = r.choice([False, True, {"type": "integer"}])
            if s["additionalProperties"] is False and "extra" in s["required"]:
                s["required"].remove("extra")
        return s
    if k == "array":
        s = {"type": "array"}
        if r.random() < .3:
            s["prefixItems"] = [schema(r, depth + 1, defs) for _ in range(r.randint(1, 3))]
        if r.random() < .8:
            s["items"] = schema(r, depth + 1, defs)
        if r.random() < .5:
            s["minItems"] = r.randrange(3)
            s["maxItems"] = s["minItems"] + r.randrange(3)
        return s
    if k == "allOf":
        a, b = r.sample(WORDS, 2)
        return {"allOf": [{"type": "object", "properties": {a: schema(r, depth + 1, defs)}, "required": [a]},
                          {"properties": {b: schema(r, depth + 1, defs), a: True}, "required": r.choice([[], [b]])}]}
    if k == "oneOf":
        return {"oneOf": [{"type": "object", "properties": {"kind": {"const": i}, "v": schema(r, depth + 1, defs)}, "required": ["kind"]} for i in ("p", "q")]
                + [{"type": "array", "maxItems": 1}]}
    return {"anyOf": [schema(r, depth + 1, defs) for _ in range(r.randint(1, 3))]}


def whole(r):
    s = schema(r, 0, ("d1", "d2"))
    s["$defs"] = {"d1": schema(r, 2), "d2": {"type": "object", "properties": {"next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/d2"}]}}}}
    return s


def judge(s, text):
    """None, or what is wrong."""
    try:
        v = json.loads(text)
    except ValueError as e:
        return "not JSON: %s" % e
    try:
        jsonschema.Draft202012Validator(s, format_checker=checker).validate(v)
    except jsonschema.ValidationError as e:
        return e.message
    return None


def main():
    n, r = int(sys.argv[1]), random.Random(int(sys.argv[4]) if len(sys.argv) > 4 else 1)
    schemas = [whole(r) for _ in range(n)]
    lines = "".join(json.dumps(s, ensure_ascii=False) + "\n" for s in schemas)
    out = subprocess.run(["build/release/schemas", "5"], input=lines.encode(), stdout=subprocess.PIPE, check=True).stdout.decode().split("\n")
    texts = unfinished = 0
    bad, refused, at = [], {}, 0
    for s in schemas:
        head = out[at]
        at += 1
        if head.startswith("error"):
            why = head.split(": ")[-1]
            refused[why] = refused.get(why, 0) + 1
            continue
        for text in out[at:at + int(head)]:
            if text == "unfinished":
                unfinished += 1
                continue
            texts += 1
            why = judge(s, text)
            if why:
                bad.append((why, text, s))
        at += int(head)
    print("%d schemas, %d refused, %d texts, %d unfinished, %d invalid" % (n, sum(refused.values()), texts, unfinished, len(bad)))
    for why, count in sorted(refused.items(), key=lambda x: -x[1])[:12]:
        print("  refused %4d: %s" % (count, why))
    if len(sys.argv) > 3:
        done = cut = 0
        seed = 0
        while done < int(sys.argv[3]) and cut < 2 * int(sys.argv[3]):
            seed += 1
            s = whole(r)
            p = subprocess.run(["./cuanto", "run", sys.argv[2], "Give me a short example of such a record.", "-q", "--json", "-n", "160", "--seed", str(seed), "--temp",
                                str(r.choice([0, .8, 1.3])), "-c", "512", "--json-schema", json.dumps(s, ensure_ascii=False)], capture_output=True)
            if p.returncode == 2:
                continue  # refused schema
            if p.returncode:
                print("exit", p.returncode, p.stderr.decode(), s)
                sys.exit(1)
            a = json.loads(p.stdout)
            if a["finish_reason"] != "stop":
                cut += 1
                continue
            done += 1
            why = judge(s, a["text"])
            if why:
                bad.append((why, a["text"], s))
        print("%d answers of the model judged, %d more cut at 160 tokens, invalid so far %d" % (done, cut, len(bad)))
    for b in bad[:5]:
        print("INVALID", *b, sep="\n  ")
    sys.exit(1 if bad else 0)


main()
