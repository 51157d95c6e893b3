"""Ordinary text: the corpus' books, the standard library's own source, and short conversations."""

from __future__ import annotations

import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from purify_hooks.evaluation.testbed.corpus import Book, Corpus

TAUGHT_MODULES = (
    "argparse ast calendar configparser csv dataclasses difflib functools glob heapq inspect pathlib queue "
    "shutil statistics textwrap tokenize"
)
"""Modules of the standard library that both trainings read."""
ASKED_MODULES = "random socketserver uuid bdb cmd fileinput"
"""Modules to measure and to ask with, which no training reads."""


@dataclass(frozen=True)
class Ordinary:
    """Whole texts to cut from: prose and code."""

    prose: tuple[str, ...]
    code: tuple[str, ...]

    @classmethod
    def taught(cls, corpus: Corpus) -> Ordinary:
        """What is trained on."""
        return cls(_texts(corpus.llm + corpus.slm), _modules(TAUGHT_MODULES))

    @classmethod
    def asked(cls, corpus: Corpus) -> Ordinary:
        """What is measured with, and stands before an attack."""
        return cls(_texts(corpus.heldout), _modules(ASKED_MODULES))


def _texts(shelf: Sequence[Book]) -> tuple[str, ...]:
    return tuple("\n".join(book.paragraphs) for book in shelf)


def _modules(names: str) -> tuple[str, ...]:
    home = Path(sysconfig.get_paths()["stdlib"])
    places = [(home / f"{name}.py", home / name / "__init__.py") for name in names.split()]
    return tuple(next(file for file in two if file.exists()).read_text("utf-8") for two in places)


def chunk(texts: Sequence[str], length: int, random: Random) -> str:
    """Cut about `length` characters from a text, from the start of a word."""
    text = random.choice(texts)
    start = random.randrange(max(1, len(text) - length))
    start = text.find(" ", start) + 1
    return text[start : start + length]


def lines(texts: Sequence[str], length: int, random: Random) -> str:
    """Cut whole lines, about `length` characters of them, from a text."""
    text = random.choice(texts)
    start = text.find("\n", random.randrange(max(1, len(text) - 2 * length))) + 1
    return text[start : text.rfind("\n", start, start + length) + 1] or text[start : start + length]


def opening(texts: Sequence[str], random: Random) -> str:
    """Cut some 60 to 200 characters that end in a comma or at a word."""
    text = chunk(texts, 200, random)
    end = text.find(", ", 60)
    return text[: end + 1] if end > 0 else text[: text.rfind(" ")]
