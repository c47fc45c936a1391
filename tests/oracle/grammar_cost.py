#!/usr/bin/env python3
"""What a schema costs while generating:  tests/oracle/grammar_cost.py MODEL.gguf [PAIRS]

Interleaved runs of one thread and equally many tokens, free and with a schema; seconds of CPU a token, loading and prompt taken off by a run of one token.
CPU time, because other work on the machine disturbs it less than the clock."""
import json, os, resource, statistics, subprocess, sys

N = 160
SCHEMA = json.dumps({"type": "array", "minItems": 50, "items": {"type": "object", "properties": {
    "name": {"type": "string"}, "age": {"type": "integer", "minimum": 0, "maximum": 150}, "tags": {"type": "array", "items": {"type": "string"}}},
    "required": ["name", "age"]}})


def cpu(model, n, extra):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    p = subprocess.run(["build/release/cuanto", "run", model, "Invent some people as JSON records.", "-q", "--json", "-t", "1", "-n", str(n), "--seed", "3",
                        "--ignore-eos", "-c", "1024"] + extra, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, json.loads(p.stdout)["tokens"]


def per_token(model, extra):
    short, one = cpu(model, 1, extra)
    long, n = cpu(model, N, extra)
    return (long - short) / (n - one)


model, pairs = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 5
ratios = []
for i in range(pairs):
    free, bound = per_token(model, []), per_token(model, ["-j", SCHEMA])
    ratios.append(bound / free)
    print("%.2f ms free, %.2f ms with the schema: %+.1f %%" % (1e3 * free, 1e3 * bound, 100 * (bound / free - 1)), flush=True)
print("median %+.1f %%" % (100 * (statistics.median(ratios) - 1)))
