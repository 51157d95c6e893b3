"""An answer's text as prints, in the order in which they become certain while it is written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from purify_hooks.protected.folding import BOUNDARY, FOLDED
from purify_hooks.protected.prints import Roller


class WrittenPrint(NamedTuple):
    """Where a print of an answer stands: the characters that it begins at and is known at, and its number.

    `number` counts letters, or tokens of code, up to its last one.
    """

    start: int
    known: int
    number: int


class PrintStream(Protocol):
    """One answer's prints."""

    number: int
    """Letters, or tokens of code, so far."""

    def feed(self, text: str, start: int, last: bool) -> list[int]:
        """The prints that a text completes from the character `start` on, up to which it was fed."""

    def written(self, at: int) -> WrittenPrint:
        """Where a print of those last completed stands, by its place among them."""

    @property
    def pending(self) -> int:
        """The first character that a later print may begin at."""


class LetterStream:
    """The prints of a text's letters."""

    def __init__(self, roller: Roller) -> None:
        self.roller, self.number = roller, 0
        self._before = roller.length - 1  # letters that a print has before its last one
        self._print, self._last = 0, " " * roller.length
        self._places: list[int] = []  # the character of each letter that the last prints have

    def feed(self, text: str, start: int, last: bool) -> list[int]:
        letters, places = _letters(text, start)
        if not letters:
            return []
        del self._places[: -self._before]
        missing = self._before - len(self._places)
        self._places += places
        self.number += len(places)
        prints = self.roller.rolled(self._print, self._last, letters)
        self._print, self._last = prints[-1], (self._last + letters)[-self.roller.length :]
        return prints[missing:] if missing else prints

    def written(self, at: int) -> WrittenPrint:
        end = at + self._before
        return WrittenPrint(self._places[at], self._places[end], self.number + end + 1 - len(self._places))

    @property
    def pending(self) -> int:
        return self._places[-self._before] if len(self._places) >= self._before else 0


def _letters(text: str, start: int) -> tuple[str, Sequence[int]]:
    """The letters of a text from a character on, and the character that each is of."""
    new = text[start:]
    folded = new.translate(FOLDED)
    letters = folded.replace(BOUNDARY, "")
    if new.isascii() and len(folded) == len(new):  # so that each character is one letter, or ends a word
        if folded.endswith(letters):  # as most tokens are: a word behind a space
            return letters, range(len(text) - len(letters), len(text))
        return letters, [at for at, each in enumerate(folded, start) if each != BOUNDARY]
    return letters, [at for at, old in enumerate(new, start) for each in FOLDED[ord(old)] if each != BOUNDARY]
