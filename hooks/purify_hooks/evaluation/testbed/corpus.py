"""The books: what each model reads, cut into documents.

A corpus is a directory of plain text, one paragraph a line, in four folders: `llm/` and `slm/` to train
on, `heldout/` to measure with, `protected/` to take passages from.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from purify_plugins.errors import ConfigError

CORPUS = Path(__file__).parents[4] / "corpus"
"""Where the books lie in a checkout of the repository; the installed package has none."""
DOCUMENT = 450
"""Characters after which a document ends with its paragraph: about 200 tokens."""


@dataclass(frozen=True)
class Book:
    """A book: its title and paragraphs."""

    title: str
    paragraphs: tuple[str, ...]


Shelf = tuple[Book, ...]


@dataclass(frozen=True)
class Corpus:
    """The books for each purpose; no two shelves share a run of nine words within a paragraph."""

    llm: Shelf
    slm: Shelf
    heldout: Shelf
    protected: Shelf
    """The first book gives the passages, the last the controls that no model sees."""


def read(directory: Path) -> Corpus:
    """Read the four shelves in `directory`."""
    return Corpus(*(_shelf(directory, name) for name in ("llm", "slm", "heldout", "protected")))


def _shelf(directory: Path, name: str) -> Shelf:
    files = sorted((directory / name).glob("*.txt"))
    if not files:
        raise ConfigError(
            f"no books in {str(directory / name)!r}; the corpus is in the repository, not in the installed "
            f"package: clone it, or name a directory with llm/, slm/, heldout/ and protected/ by --corpus"
        )
    return tuple(map(_book, files))


def _book(file: Path) -> Book:
    return Book(file.stem.replace("-", " ").title(), tuple(file.read_text("utf-8").splitlines()))


def titles(books: Sequence[Book]) -> str:
    """Every title, for the record."""
    return "; ".join(book.title for book in books)


def documents(shelf: Sequence[Book]) -> Iterator[str]:
    """Cut books at paragraph ends into documents of about 200 tokens."""
    for book in shelf:
        held: list[str] = []
        for paragraph in book.paragraphs:
            held.append(paragraph)
            if sum(map(len, held)) >= DOCUMENT:
                yield "\n".join(held)
                held = []
        if held:
            yield "\n".join(held)


def openings(shelf: Sequence[Book]) -> Iterator[str]:
    """Whole sentences, 110 to 180 characters of them, from the start of each paragraph that has them."""
    for book in shelf:
        for paragraph in book.paragraphs:
            for end in re.finditer(r"[.!?:][\"']?(?=\s|$)", paragraph):
                if 110 <= end.end() <= 180:
                    yield paragraph[: end.end()]
                    break
