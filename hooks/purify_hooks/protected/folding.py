"""Text as it is compared: letters and digits, in one case, without accents, spaces and punctuation.

Characters are folded one by one, whatever stands beside them, so that a text can be folded as it is written.
"""

from __future__ import annotations

from typing import Final

from purify_plugins.utils.spelling import spaced, spelling

BOUNDARY: Final = " "
"""What folds to no letter, and ends a word."""


def _fold(character: str) -> str:
    plain = spelling(character)
    letters = "".join(each for each in plain if each.isalnum())
    return letters or (BOUNDARY if BOUNDARY in plain else "")


class _Folding(dict[int, str]):
    """What each character folds to, by its code point: letters, a boundary, or nothing."""

    def __missing__(self, code: int) -> str:
        return self.setdefault(code, _fold(chr(code)))


FOLDED: Final = _Folding()
"""Characters by their code points: their letters (NFKD, case folded, accents dropped), " ", or ""."""


def letters_of(text: str) -> str:
    """The letters of a text, without spaces."""
    return text.translate(FOLDED).replace(BOUNDARY, "")


def words_of(text: str) -> list[str]:
    """The words of a text, as letters; of writing without spaces each character."""
    return [part for word in text.translate(FOLDED).split() for part in _parts(word)]


def _parts(word: str) -> list[str]:
    if word.isascii():
        return [word]
    return "".join(each if spaced(each) else f" {each} " for each in word).split()
