"""Draw the README's picture from a real run of the demonstration: `python docs/picture.py`, a minute.

Writes docs/demo.svg: the first attack of each kind, answered by the LLM alone and purified, and how many of
all attacks succeed. Light or dark as the reader's screen is. The secret that keys the draws is fixed, so that
the same code draws the same picture.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path

from purify_hooks.evaluation.demo.exhibit import Exhibit, Shown
from purify_hooks.evaluation.demo.preset import FEW, preset
from purify_hooks.evaluation.demo.report import (
    COLUMNS,
    NAMES,
    SIGNS,
    Headline,
    headline,
    headline_sentence,
    painted,
    verdict,
)
from purify_hooks.evaluation.demo.run import DemoFindings, demonstrate
from purify_hooks.evaluation.eval.page import today
from purify_hooks.evaluation.eval.worker_pool import worker_pool

OUT = Path(__file__).parent / "demo.svg"
SECRET = "no secret: it keys the draws of the picture in README.md"
WIDTH, EDGE, GAP = 760, 20, 16
CARD = (WIDTH - 2 * EDGE - GAP) // 2
LINE, ADVANCE = 22, 9.03
"""A line's height, and a letter's width in the monospaced face at 15 pixels."""
LETTERS = int((CARD - 28) / ADVANCE)
LINES = 5
STYLE = """
  svg { color-scheme: light dark; }
  text { fill: #1f1e1b; white-space: pre; font: 15px ui-monospace, Menlo, Consolas, monospace; }
  .title, .name, .verdict, .note { font-family: system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
  .title { font-size: 19px; font-weight: 650; } .note { font-size: 14px; } .name { font-weight: 650; }
  .paper { fill: #fbfaf6; } .card { fill: #fff; stroke: #dedad0; } .ours { stroke: #14695a; stroke-width: 2; }
  .soft, .note { fill: #5f5c54; } .bad, .leaked { fill: #a8321a; } .good { fill: #14695a; }
  .leaked { font-weight: 700; text-decoration: underline; }
  @media (prefers-color-scheme: dark) {
    .paper { fill: #141517; } .card { fill: #1b1d20; stroke: #34363a; } .ours { stroke: #59c3ab; }
    text { fill: #e9e6df; } .soft, .note { fill: #a5a197; }
    .bad, .leaked { fill: #f08c72; } .good { fill: #59c3ab; }
  }"""

Letter = tuple[str, bool]
"""A character, and whether it is part of what should never have come out."""


def letters(exhibit: Exhibit, shown: Shown, key: str) -> Iterator[Letter]:
    """An answer's characters, without the mark of its end."""
    for piece in painted(exhibit.vocabulary, shown.attack, shown.answers[key]):
        if not piece.ends:
            yield from ((letter, piece.leaked) for letter in piece.text)


def wrapped(text: Iterable[Letter]) -> list[list[Letter]]:
    """Lines of at most LETTERS characters, broken at spaces; at most LINES of them."""
    lines: list[list[Letter]] = [[]]
    word: list[Letter] = []
    for letter in [*text, ("\n", False)]:
        if letter[0] not in " \n":
            word.append(letter)
            continue
        if lines[-1] and len(lines[-1]) + 1 + len(word) > LETTERS:
            lines.append([])
        lines[-1] += ([(" ", word[0][1] and lines[-1][-1][1])] if lines[-1] and word else []) + word
        word = []
        if letter[0] == "\n" and lines[-1]:
            lines.append([])
    lines = [line for line in lines if line]
    return (
        lines
        if len(lines) <= LINES
        else [*lines[: LINES - 1], [*lines[LINES - 1][: LETTERS - 1], ("…", False)]]
    )


def spans(line: list[Letter]) -> str:
    """A line as SVG; what leaked is marked."""
    parts: list[tuple[str, bool]] = []
    for letter, leaked in line:
        if parts and parts[-1][1] == leaked:
            parts[-1] = (parts[-1][0] + letter, leaked)
        else:
            parts.append((letter, leaked))
    return "".join(
        f'<tspan class="leaked">{escape(text)}</tspan>' if leaked else escape(text) for text, leaked in parts
    )


def text(x: float, y: float, kind: str, words: str) -> str:
    """`words` are SVG already."""
    return f'<text x="{x}" y="{y}" class="{kind}">{words}</text>'


def card(exhibit: Exhibit, shown: Shown, key: str, x: float, y: float, height: float) -> Iterator[str]:
    """One answer in its frame."""
    level, words = verdict(shown.attack, shown.answers[key])
    ours = " ours" if key == "balanced" else ""
    yield f'<rect class="card{ours}" x="{x}" y="{y}" width="{CARD}" height="{height}" rx="6"/>'
    yield text(x + 14, y + 26, "name", COLUMNS[key])
    tone = "good" if level == "good" else "bad"
    yield text(x + CARD - 14, y + 26, f'verdict {tone}" text-anchor="end', f"{SIGNS[level]} {words}")
    for at, line in enumerate(wrapped(letters(exhibit, shown, key))):
        yield text(x + 14, y + 54 + LINE * at, "said", spans(line))


def row(exhibit: Exhibit, shown: Shown, y: float) -> tuple[list[str], float]:
    """One attack: its prompt and two answers; and where the next one begins."""
    prompt = " ".join(str(shown.attack.prompt).split())
    room = int((WIDTH - 2 * EDGE) / ADVANCE) - 18
    short = prompt if len(prompt) <= room else "… " + prompt[-room:].split(" ", 1)[1]
    most = max(len(wrapped(letters(exhibit, shown, key))) for key in ("llm", "balanced"))
    height = 54 + LINE * most - 4
    drawn = [
        text(EDGE, y + 16, "name", NAMES[shown.attack.kind]),
        text(EDGE + 125, y + 16, "soft", escape(f"{short}…")),
    ]
    for key, x in (("llm", EDGE), ("balanced", EDGE + CARD + GAP)):
        drawn += card(exhibit, shown, key, x, y + 30, height)
    return drawn, y + 30 + height + 26


def draw(exhibit: Exhibit, found: Headline, date: str) -> str:
    """The picture."""
    counts = f"Of {found.asked} attacks {found.llm} succeed"
    title = f"{counts} on the LLM alone, {found.purified} once it is purified."
    cost = f"{found.cost:.2f} times the LLM's perplexity and {found.time:.2f} times its time a token"
    note = f"A toy test bed: tiny models write poor English, look at what leaks. Sampled, {date}."
    drawn = [
        text(EDGE, 40, "title", title),
        text(EDGE, 64, "note", escape(f"It costs {cost}.")),
        text(EDGE, 86, "note", note),
    ]
    y = 112.0
    for each in exhibit.shown:
        more, y = row(exhibit, each, y)
        drawn += more
    body = "\n".join(drawn)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y:g}" width="{WIDTH}" height="{y:g}" '
        f'role="img" aria-label="{title}">\n<style>{STYLE}\n</style>\n'
        f'<rect class="paper" width="{WIDTH}" height="{y:g}" rx="10"/>\n{body}\n</svg>\n'
    )


def main() -> None:
    os.environ["PURIFY_SECRET"] = SECRET
    known = DemoFindings(preset(FEW))
    with worker_pool() as pool:
        for news in demonstrate(known, pool):
            print(news.text, flush=True)
    found = headline(known.results)
    assert found is not None  # everything has been measured
    print(headline_sentence(found))
    OUT.write_text(draw(known.exhibits["sampled"], found, today()), encoding="utf-8")


if __name__ == "__main__":
    main()
