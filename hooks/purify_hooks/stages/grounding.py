"""How far a sentence is found in a text: its words, numbers and names, with spelling variants."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from purify_plugins.utils.files import read_text
from purify_plugins.utils.spelling import spelling

if TYPE_CHECKING:
    from purify_plugins.types import Completion

PASSAGE, STRIDE = 200, 100
"""A long text is compared in passages of so many words, one every so many."""
WORD = re.compile(r"\d+(?:[.,\u00a0\u202f]\d+)*|[^\W\d_]+(?:['’][^\W\d_]+)*|\w+")
ONES = (
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
)
TEENS = ("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty")
NUMBERS = {word: str(number) for number, word in enumerate((*ONES, *TEENS))}
STOP = frozenset(read_text(Path(__file__).parent / "stopwords.txt").split())
"""English words that say nothing by themselves."""
ENDINGS = ("ing", "ed", "es", "s", "ly", "e")


@dataclass(frozen=True)
class Word:
    """A word of a text: its stem, where it stands, and whether it is a number or a name."""

    stem: str
    start: int
    end: int
    key: bool


def words(text: str) -> Iterator[Word]:
    """The words of a text that say something; a capital inside a sentence, or in a word, makes a name."""
    opening = True
    for found in WORD.finditer(text):
        word, start = found[0], found.start()
        opening = opening or bool(re.search(r"[.!?:\n]", text[max(0, start - 2) : start]))
        folded = spelling(word).strip()
        number = word[0].isdigit() or folded in NUMBERS
        name = any(map(str.isupper, word[1:])) or (word[0].isupper() and not opening)
        opening = False
        if folded not in STOP and (len(folded) > 1 or number or word.isupper()):
            yield Word(stem(folded, word), start, found.end(), number or name)


def stem(folded: str, word: str) -> str:
    """A word without its ending, a number in digits: what spellings of one have in common."""
    if word[0].isdigit():
        return re.sub(r"[.,\u00a0\u202f](?=\d{3}(\D|$))", "", word)
    if folded in NUMBERS:
        return NUMBERS[folded]
    for ending in ENDINGS:
        if folded.endswith(ending) and len(folded) - len(ending) >= 3:
            folded = folded.removesuffix(ending)
            break
    return folded[:-1] + "y" if folded.endswith("i") else folded


@dataclass(frozen=True)
class Sources:
    """The texts that an answer must be grounded in."""

    texts: tuple[str, ...]

    @cached_property
    def passages(self) -> tuple[str, ...]:
        """The texts, long ones in parts that overlap."""
        found: list[str] = []
        for text in self.texts:
            parts = text.split()
            last = max(len(parts) - PASSAGE + STRIDE, 1)
            starts = range(0, last, STRIDE)
            found += [" ".join(parts[at : at + PASSAGE]) for at in starts] if len(parts) > PASSAGE else [text]
        return tuple(found)

    @cached_property
    def stems(self) -> tuple[frozenset[str], ...]:
        """The stems of each passage."""
        return tuple(frozenset(word.stem for word in words(passage)) for passage in self.passages)

    @cached_property
    def known(self) -> frozenset[str]:
        """The stems of all passages."""
        return frozenset[str]().union(*self.stems)

    def containment(self, sentence: str) -> float | None:
        """The share of a sentence's words that one passage has, times that of its numbers and names.

        From 0 to 1; None for a sentence without words that say something.
        """
        said = list(words(sentence))
        if not said:
            return None
        return max((_share(said, passage) for passage in self.stems), default=0.0)


def _share(said: Sequence[Word], passage: frozenset[str]) -> float:
    found = [word.stem in passage for word in said]
    keys = [has for word, has in zip(said, found, strict=True) if word.key]
    return sum(found) / len(found) * (sum(keys) / len(keys) if keys else 1.0)


def surprise(answer: Completion, known: frozenset[str]) -> tuple[int, float | None]:
    """How many words of an answer are not `known`, and the mean log LLM/SLM of a token in them, in nats.

    Above 0 the LLM expected them and the SLM did not: they are what it knows and no source says. None where
    there is none, or the LLM's figures are not known (under some policies, without `explain`).
    """
    absent = [(word.start, word.end) for word in words(answer.text) if word.stem not in known]
    at, tokens = 0, []
    for piece in answer.pieces:
        start, at = at, at + len(piece.text)
        if piece.token is not None and any(start < b and a < at for a, b in absent):
            tokens.append(piece.token)
    gaps = [token.llm - token.slm for token in tokens if token.llm is not None]
    whole = bool(gaps) and len(gaps) == len(tokens)
    return len(absent), sum(gaps) / len(gaps) if whole else None
