"""Write the figures of docs/grounded.md: `python docs/grounded.py [--pair DIRECTORY] [--rows FILE]`.

Asks the pair questions whose texts hold the answer, and the same with texts that do not, and measures how
well the scores of `grounded` tell the two kinds of sentences apart. `--rows` keeps what was answered.
"""

from __future__ import annotations

import json
import math
import random
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from purify_hooks.evaluation.eval.derived import shipped
from purify_hooks.evaluation.eval.page import fill_region
from purify_hooks.evaluation.eval.page import made as facts
from purify_hooks.evaluation.testbed.real.cache import made
from purify_hooks.stages.grounded import sentences
from purify_hooks.stages.grounding import Sources, surprise
from purify_plugins import Chat, Purifier, Sampling
from purify_plugins.types import Completion

PAGE = Path(__file__).parent / "grounded.md"
TEXTS = 4
"""How many facts a text has."""
TOKENS = 24
"""The most tokens of an answer."""
PART = 16
"""How many are asked together."""
ASKED = "Answer the question in one sentence.\n\n{text}\n\nQuestion: {question}"


def auroc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """The chance that a positive has the higher score, ties counting half."""
    pairs = [(one > other) + (one == other) / 2 for one in positive for other in negative]
    return sum(pairs) / len(pairs)


def cases(count: int) -> list[dict[str, Any]]:
    """Each question with a text that has its answer, and with one that has not."""
    rng = random.Random(0)
    known = [each for each in shipped() if each.kind == "facts"]
    found = []
    for fact in rng.sample(known, count):
        others = rng.sample([each for each in known if each.answers != fact.answers], 2 * TEXTS - 1)
        for right, chosen in ((True, [fact, *others[: TEXTS - 1]]), (False, others[TEXTS - 1 :])):
            rng.shuffle(chosen)
            text = " ".join(f"{each.statement} {each.answers[0]}." for each in chosen)
            rest = [answer for each in chosen if each is not fact for answer in each.answers]
            found.append({"fact": fact, "right": right, "text": text, "others": rest})
    return found


def answered(home: Path, count: int, rows: Path | None, minutes: float) -> list[dict[str, Any]]:
    """The first sentence of each answer, its label (None where it fits neither) and its scores.

    Goes on after the rows of a file, and adds to it; begins no further part after so many minutes.
    """
    found: list[dict[str, Any]] = json.loads(rows.read_text("utf-8")) if rows and rows.exists() else []
    asked, began = cases(count), time.monotonic()
    purifier: Purifier | None = None
    while len(found) < len(asked) and time.monotonic() - began < 60 * minutes:
        purifier = purifier or Purifier.load(home / "llm", home / "slm").replace(explain=True)
        part = asked[len(found) : len(found) + PART]
        answers = purifier.generate(
            [_prompt(case) for case in part], Sampling(max_tokens=TOKENS, temperature=0), errors="raise"
        )
        found += [row(case, answer) for case, answer in zip(part, answers, strict=True)]
        if rows is not None:
            rows.write_text(json.dumps(found, indent=1), "utf-8")
    return found


def _prompt(case: dict[str, Any]) -> Chat:
    said = ASKED.format(text=case["text"], question=case["fact"].question)
    return Chat(({"role": "user", "content": said},))


def row(case: dict[str, Any], answer: Completion) -> dict[str, Any]:
    """One answer's label and scores."""
    first = next(iter(sentences(answer.text, 600, last=True)), "")
    holds, borrowed = _has(first, case["fact"].answers), _has(first, case["others"])
    grounded, ungrounded = case["right"] and holds, not case["right"] and not borrowed
    sources = Sources((case["text"],))
    return {
        "label": True if grounded else False if ungrounded else None,
        "said": first,
        "containment": sources.containment(first),
        "surprise": surprise(answer, sources.known)[1],
    }


def _has(text: str, answers: Sequence[str]) -> bool:
    return any(re.search(rf"(?<!\w){re.escape(each)}(?!\w)", text, re.IGNORECASE) for each in answers)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The AUROC of each score, and what `least` would block."""
    lines = [
        "| score | grounded sentences | ungrounded | AUROC | grounded below 0.5 | ungrounded below 0.5 |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, sign in (("containment", 1), ("surprise", -1)):
        kept = [each for each in rows if each["label"] is not None and each[name] is not None]
        yes, no = ([sign * each[name] for each in kept if each["label"] is label] for label in (True, False))
        if not (yes and no):
            continue
        below = [f"{sum(score < 0.5 for score in each)}" if sign > 0 else "–" for each in (yes, no)]
        lines.append(f"| {name} | {len(yes)} | {len(no)} | {auroc(yes, no):.3f} | {' | '.join(below)} |")
    left = sum(each["label"] is None for each in rows)
    return "\n".join([*lines, "", f"{left} of {len(rows)} answers fit neither label and are left out."])


def main(
    pair: Annotated[Path | None, typer.Option(help="A directory with llm and slm.")] = None,
    rows: Annotated[Path | None, typer.Option(help="A file that keeps the answers.")] = None,
    questions: int = 40,
    minutes: Annotated[float, typer.Option(help="Begin nothing new after so many minutes.")] = math.inf,
) -> None:
    """Measure, and write the region of the page once all is measured."""
    found = answered(pair or made(print), questions, rows, minutes)
    print(len(found), "of", 2 * questions, "answers")
    if len(found) < 2 * questions:
        return
    said = f"`python docs/grounded.py`, {questions} questions, {'; '.join(facts().values())}."
    fill_region(PAGE, "grounded", f"{table(found)}\n\n{said}\n")


if __name__ == "__main__":
    typer.run(main)
