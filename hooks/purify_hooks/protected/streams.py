"""An answer's text as prints, in the order in which they become certain while it is written."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from purify_hooks.protected.folding import BOUNDARY, FOLDED
from purify_hooks.protected.prints import Roller


class WrittenPrint(NamedTuple):
    """A print of an answer: its hash, the characters that it begins at and is known at, and its number.

    `number` counts letters, or tokens of code, up to its last one.
    """

    print: int
    start: int
    known: int
    number: int


class PrintStream(Protocol):
    """One answer's prints."""

    number: int
    """Letters, or tokens of code, so far."""

    def feed(self, text: str, start: int, last: bool) -> list[WrittenPrint]:
        """The prints that a text completes from the character `start` on, up to which it was fed."""

    @property
    def pending(self) -> int:
        """The first character that a later print may begin at."""


class LetterStream:
    """The prints of a text's letters."""

    def __init__(self, roller: Roller) -> None:
        self.roller = roller
        self.number = 0
        self._print, self._last = 0, " " * roller.length
        self._starts: list[int] = []  # where each of the last letters is

    def feed(self, text: str, start: int, last: bool) -> list[WrittenPrint]:
        letters, places = _letters(text, start)
        if not letters:
            return []
        prints = self.roller.rolled(self._print, self._last, letters)
        size = self.roller.length
        first = size - 1 - len(self._starts)  # of the new letters, that has enough before it
        starts = self._starts + places
        number = self.number + 1
        found = [
            WrittenPrint(prints[at], starts[at - first], places[at], number + at)
            for at in range(max(first, 0), len(prints))
        ]
        self.number += len(letters)
        self._print, self._last = prints[-1], (self._last + letters)[-size:]
        self._starts = starts[-(size - 1) :]
        return found

    @property
    def pending(self) -> int:
        return self._starts[0] if len(self._starts) == self.roller.length - 1 else 0


def _letters(text: str, start: int) -> tuple[str, list[int]]:
    """The letters of a text from a character on, and the character that each is of."""
    new = text[start:]
    folded = new.translate(FOLDED)
    if new.isascii() and len(folded) == len(new):  # so that each character is one letter, or ends a word
        places = [at for at, each in enumerate(folded, start) if each != BOUNDARY]
        return folded.replace(BOUNDARY, ""), places
    found = [(each, at) for at, old in enumerate(new, start) for each in FOLDED[ord(old)] if each != BOUNDARY]
    return "".join(each for each, _ in found), [at for _, at in found]
