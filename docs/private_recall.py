"""Measure the detectors of private data on generated prompts: `python docs/private_recall.py [COUNT]`.

Writes the table of docs/private.md: recall by kind over COUNT prompts (1,000) that
purify_hooks.private.samples generates, false positives per 1,000 characters of the corpus and of this
repository's code, and CPU time.
"""

from __future__ import annotations

import re
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from random import Random

from purify_hooks.private.finders import KINDS, Finder, finder
from purify_hooks.private.samples import PrivateText, samples

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "private.md"
TABLE = re.compile(r"(?<=<!-- recall -->\n).*?(?=<!-- end of recall -->)", re.DOTALL)
CLEAN = ("corpus/heldout", "corpus/slm", "corpus/llm", "corpus/protected")
CODE = ("purify_plugins", "hooks", "adapters")


def recall(found: Finder, kind: str, count: int) -> tuple[float, float]:
    """The share of values found whole as their kind, and of those found whole as any."""
    drawn: Sequence[PrivateText] = samples(kind, count)
    own = whole = 0
    for each in drawn:
        over = {name for start, end, name in found.find(each.text) if start <= each.start and end >= each.end}
        own, whole = own + (kind in over), whole + bool(over)
    return own / count, whole / count


def texts(folders: Sequence[str], ending: str) -> Iterator[str]:
    for folder in folders:
        for path in sorted((ROOT / folder).rglob(f"*{ending}")):
            yield path.read_text("utf-8")


def dense(size: int = 4000) -> Iterator[str]:
    """Prompts of all kinds one after another, as texts of so many characters: a value in every 80 or so."""
    drawn = [each.text for kind in KINDS for each in samples(kind, 100, seed=1)]
    Random(1).shuffle(drawn)
    text = "\n".join(drawn)
    yield from (text[at : at + size] for at in range(0, len(text), size))


def alarms(found: Finder, written: Iterator[str]) -> str:
    """False positives per 1,000 characters and which they are, characters, and CPU time per 1,000."""
    kinds: Counter[str] = Counter()
    characters, begun = 0, time.thread_time()
    for text in written:
        kinds.update(kind for _, _, kind in found.find(text))
        characters += len(text)
    spent = (time.thread_time() - begun) * 1e6 / characters
    named = ", ".join(f"{kind} {number}" for kind, number in kinds.most_common()) or "none"
    return f"{sum(kinds.values()) * 1000 / characters:.4f} ({named}) | {characters:,} | {spent:.1f} ms |"


def report(count: int) -> Iterator[str]:
    found = finder()
    yield "| kind | found as such | found | kind | found as such | found |"
    yield "| --- | --- | --- | --- | --- | --- |"
    cells = []
    for kind in KINDS:
        own, whole = recall(found, kind, count)
        cells.append(f"| `{kind}` | {own:.3f} | {whole:.3f} ")
    half = -(-len(cells) // 2)
    for at in range(half):
        yield cells[at] + (cells[half + at] if half + at < len(cells) else "| | | ") + "|"
    yield ""
    yield "| text without private data | found per 1,000 characters | characters | CPU time per 1,000 |"
    yield "| --- | --- | --- | --- |"
    yield f"| the books of `corpus/` | {alarms(found, texts(CLEAN, '.txt'))}"
    yield f"| this repository's code | {alarms(found, texts(CODE, '.py'))}"
    number, characters, spent = alarms(found, iter([*dense()])).split(" | ")
    yield f"| and prompts full of values | {number.split()[0]} | {characters} | {spent}"
    yield ""
    yield f"`python docs/private_recall.py {count}`, {date.today()}: {count:,} generated prompts a kind."


if __name__ == "__main__":
    table = "\n".join(report(int(sys.argv[1]) if sys.argv[1:] else 1000))
    PAGE.write_text(TABLE.sub(lambda _: table + "\n", PAGE.read_text("utf-8")), "utf-8")
    print(table)
