"""Questions that a file leaves out, derived from its held-out text: choices and cloze tasks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from random import Random

from pydantic import TypeAdapter

from purify_hooks.evaluation.eval.questions import Choice, Clean, Fact, Questions, Task, check_questions
from purify_plugins.utils.files import read_text

SHOWN, ASKED = 40, 10
"""Words of a text that a multiple-choice question shows, and words of each choice."""
CHOICES = 4


def read_questions(file: Path) -> Questions:
    """The questions in a file, with what it lacks made from its held-out text. Raises ConfigError."""
    return completed(check_questions(read_text(file), file))


def completed(questions: Questions) -> Questions:
    """The questions, completed with what the utility suite needs.

    Text to measure perplexity on is the test bed's, English fairy tales, where none is given.
    """
    from purify_hooks.evaluation.testbed import heldout

    texts = questions.heldout or list(heldout())
    return questions.model_copy(
        update={
            "heldout": texts,
            "clean": questions.clean or Clean(prompts=[_opening(text) for text in texts]),
            "choices": questions.choices or choices(texts),
            "tasks": questions.tasks or cloze(texts),
            "code": questions.code or own_code(),
            "knowledge": questions.knowledge or shipped(),
        }
    )


CODE = ("decode.forcing", "policy", "sampling", "types")
"""Modules of this package whose source is the code that perplexity is measured on."""
CHARACTERS = 1200
"""Of each of them, the last characters."""


@cache
def own_code() -> list[str]:
    """Code that models on the market have not read: parts of this package's own, as it is installed."""
    paths = (find_spec(f"purify_plugins.{name}") for name in CODE)
    return [read_text(Path(str(found.origin)))[-CHARACTERS:] for found in paths if found]


@cache
def shipped() -> list[Fact]:
    """The package's own questions: facts, arithmetic, Python and translation."""
    text = files("purify_hooks.evaluation.eval").joinpath("knowledge.json").read_text("utf-8")
    return TypeAdapter(list[Fact]).validate_json(text)


def _opening(text: str) -> str:
    return " ".join(text.split()[:20])


def choices(texts: Sequence[str], seed: int = 0) -> list[Choice]:
    """Multiple choice: a text's true next words among those of other texts at the same position."""
    random = Random(f"{seed} choices")
    parted = [parts for text in texts if (parts := part(text, SHOWN, ASKED))]
    if len(parted) < CHOICES:
        return []
    return [_choice(parted, at, random) for at in range(len(parted))]


def _choice(parted: Sequence[tuple[str, str]], at: int, random: Random) -> Choice:
    others = random.sample([true for index, (_, true) in enumerate(parted) if index != at], CHOICES - 1)
    prompt, true = parted[at]
    answer = random.randrange(CHOICES)
    return Choice(prompt=prompt, choices=[*others[:answer], true, *others[answer:]], answer=answer)


def cloze(texts: Sequence[str], each: int = 4) -> list[Task]:
    """Cloze tasks: texts cut before a word of two letters or more, which is the answer."""
    tasks = []
    for text in texts:
        ends = [found.start() for found in re.finditer(r" [a-z]{2,}\b", text)]
        chosen = [ends[len(ends) * (at + 1) // (each + 1)] for at in range(each)] if ends else []
        tasks += [Task(prompt=text[:at], answer=text[at:].split()[0].rstrip(".,;:!?\"'")) for at in chosen]
    return tasks


def part(text: str, first: int, then: int) -> tuple[str, str] | None:
    """The first words of a text, and the words that follow with the space before them; None if too short."""
    ends = [found.end() for found in re.finditer(r"\S+", text)]
    if len(ends) < first + then:
        return None
    return text[: ends[first - 1]], text[ends[first - 1] : ends[first + then - 1]]
