"""Whether a text gives something away of another one."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from purify_hooks.private.finders import Finder, plain
from purify_hooks.private.finders.words import WORD

NUMBER = re.compile(r"\d+(?:[.,'’\s-]\d+)*")
GROUPS = re.compile(r"[.,'’\s-](?=\d{3}(?!\d))")
"""What stands between the thousands of a number."""
SENTENCE = re.compile(r"(?:^|[.!?:\n])[\W_]*$")
"""What stands before a word that begins a sentence."""
INSIDE = 4
"""The least length of a word that is looked for inside others."""


@dataclass(frozen=True)
class LeakTest:
    """Tells whether a text holds what a finder finds, or part of what is private.

    That is: `run` words in a row of a private text (all of them, where it has fewer), a number of it however
    its digits are grouped, or a capitalised word of it that does not begin a sentence there, alone or, from
    four letters on, inside another word. In scripts without spaces each letter is a word.
    """

    finder: Finder
    run: int

    def leaks(self, text: str, private: Iterable[str]) -> bool:
        """Whether a text gives away something; one without words does too: it is of no use."""
        said = words(text)
        if not said or self.finder.find(text):
            return True
        runs = {length: set(_runs(said, length)) for length in range(1, self.run + 1)}
        numbers = set(_numbers(text))
        for each in private:
            known = words(each)
            length = min(self.run, len(known))
            if length and not runs[length].isdisjoint(_runs(known, length)):
                return True
            if not numbers.isdisjoint(_numbers(each)):
                return True
            if any(_said(word, said) for word in _telling(each, short=len(known) < self.run)):
                return True
        return False


def words(text: str) -> list[str]:
    """A text's words, in one case, without what is not seen (NFKC)."""
    return WORD.findall(unicodedata.normalize("NFKC", plain(text)).casefold())


def _runs(found: Sequence[str], length: int) -> Iterator[tuple[str, ...]]:
    return (tuple(found[at : at + length]) for at in range(len(found) - length + 1))


def _said(word: str, said: Sequence[str]) -> bool:
    """Whether a word is said, or inside another one where it is long."""
    return word in said or (len(word) >= INSIDE and any(word in each for each in said))


def _numbers(text: str) -> Iterator[str]:
    """The numbers of a text, in digits alone: without what groups their thousands, and with all they have."""
    for found in NUMBER.findall(unicodedata.normalize("NFKC", plain(text))):
        yield re.sub(r"\D", "", found)
        yield from re.findall(r"\d+", GROUPS.sub("", found))


def _telling(text: str, short: bool) -> Iterator[str]:
    """The words of a text that tell by themselves: numbers and names; in a short text also its first word."""
    text = unicodedata.normalize("NFKC", plain(text))
    for found in WORD.finditer(text):
        word = found[0]
        begins = not short and SENTENCE.search(text, 0, found.start()) is not None
        if any(map(str.isdigit, word)) or (len(word) > 1 and any(map(str.isupper, word)) and not begins):
            yield word.casefold()
