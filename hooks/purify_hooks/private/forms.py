"""What a value is written as, and where one of many stands in a text."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from purify_hooks.private.shapes import alphanumeric, laid_out, layout

STARTS = re.compile(r"[+(]{0,2}(?<![^\W_\u2e80-\U0010ffff])[^\W_]")
"""Where a word or a number may begin: after no letter or digit, but those of scripts without spaces."""
GAP = 2
"""The most characters between two of a number."""
GAPS = 12
"""The most characters between those of a number in all."""
BETWEEN = frozenset(" -./()\u00a0\u2009\u202f\u2010\u2011\u2013")
BEGINS = 32
"""The most characters by which forms are looked up."""
SPACE = 3
"""The most characters of white space between two words of a name."""


def folded(text: str) -> str:
    """A text in one case (NFKC), each character in its place."""
    return text.lower() if text.isascii() else text.translate(FOLDED)


class Folded(dict[int, str]):
    """What each character is in one case (NFKC), kept once it was asked for."""

    def __missing__(self, code: int) -> str:
        found = unicodedata.normalize("NFKC", chr(code)).casefold()
        self[code] = found = found if len(found) == 1 else chr(code)
        return found


FOLDED = Folded()


@dataclass(frozen=True, repr=False)
class Form:
    """A text to be found, and the one to put in its place.

    `way` "exact" finds it as it is. "words": in any case and with any white space between its words; what is
    put there follows the case. "number": whatever stands between its letters and digits; what is put there
    has the same between them, where it has as many. `proper`: only where its words begin with a capital.
    """

    text: str
    other: str
    id: str
    way: str = "exact"
    proper: bool = False

    @cached_property
    def parts(self) -> tuple[str, ...]:
        """What is looked for one after another."""
        if self.way == "number":
            return tuple(folded(alphanumeric(self.text)))
        return tuple(folded(self.text).split()) if self.way == "words" else (self.text,)

    @property
    def begins(self) -> str:
        """What its letters and digits, or its first word, begin with."""
        return folded("".join(self.parts) if self.way == "number" else self.parts[0])[:BEGINS]

    @cached_property
    def longest(self) -> int:
        """The most characters of the text at which it is found."""
        if self.way == "number":
            return len(self.parts) + GAPS + 2
        if self.way == "words":
            return sum(map(len, self.parts)) + SPACE * (len(self.parts) - 1)
        return len(self.text)

    def begin(self, text: str, first: int, place: int) -> int:
        """Where it begins if its first letter or digit stands at `place`: a number's + and ( are its own."""
        marks = self.text[: len(self.text) - len(self.text.lstrip("+("))] if self.way == "number" else ""
        while place > first and text[place - 1] in marks:
            place -= 1
        return place

    def end(self, low: str, at: int) -> int | None:
        """Where it ends if it stands at `at` in a text, of which `low` is the folded one. None: it does not.

        An "exact" form stands in the text as it is.
        """
        if self.way == "number":
            return self._number(low, at)
        if self.way == "words":
            return self._words(low, at)
        return at + len(self.text) if low.startswith(self.text, at) else None

    def _number(self, low: str, at: int) -> int | None:
        while at < len(low) and low[at] in "+(":
            at += 1
        most = at + len(self.parts) + GAPS
        for number, part in enumerate(self.parts):
            gap = at
            while number and at < len(low) and low[at] in BETWEEN and at - gap < GAP:
                at += 1
            if not low.startswith(part, at):
                return None
            at += 1
        return at if at <= most else None

    def _words(self, low: str, at: int) -> int | None:
        for number, part in enumerate(self.parts):
            gap = at
            while number and at < len(low) and low[at].isspace() and at - gap < SPACE:
                at += 1
            if (number and at == gap) or not low.startswith(part, at):
                return None
            at += len(part)
        return at

    def replacing(self, written: str) -> str:
        """What stands in place of the form as it is written."""
        if self.way == "number":
            return self._laid_out(written)
        return styled(self.other, written, self.text) if self.way == "words" else self.other

    def _laid_out(self, written: str) -> str:
        if layout(folded(self.other)) != layout(folded(self.text)):
            return self.other
        found = laid_out(alphanumeric(self.other), written)
        return found.lower() if written.islower() and not self.other.islower() else found


def styled(other: str, written: str, text: str) -> str:
    """`other` in the case in which `text` is written."""
    if written == text:
        return other
    if written.isupper() and not text.isupper():
        return other.upper()
    if written.islower() and not text.islower():
        return other.lower()
    if written.istitle() and text.isupper() and " " in text:
        return other.title()
    return other[:1].upper() + other[1:] if written[:1].isupper() and text[:1].islower() else other


def capital(text: str) -> bool:
    """Whether each word begins with a capital, or with what has none."""
    return not any(each[:1].islower() for each in text.split())


def touching(text: str, at: int) -> bool:
    """Whether a letter or digit before `at` and one from there on belong together."""
    return 0 < at < len(text) and _spelling(text[at - 1]) and _spelling(text[at])


def _spelling(character: str) -> bool:
    return character.isalnum() and character < "\u2e80"


class FormMatch(NamedTuple):
    """A form that stands in a text."""

    start: int
    end: int
    form: Form


class Lookup:
    """Finds forms in texts: from left to right, the longest where several begin at one place."""

    def __init__(self, forms: Iterable[Form]) -> None:
        self.forms = tuple(dict.fromkeys(sorted(forms, key=lambda form: (-form.longest, form.text))))
        self.longest = max((form.longest for form in self.forms), default=0)
        # By the first character, and then by what a form begins with: of thousands few are tried at a place.
        self._first: dict[str, dict[tuple[int, bool], dict[str, list[int]]]] = {}
        for number, form in enumerate(self.forms):
            begins = form.begins
            kinds = self._first.setdefault(begins[:1], {})
            same = kinds.setdefault((len(begins), form.way == "number"), {})
            same.setdefault(begins, []).append(number)

    def _at(self, low: str, place: int) -> Iterable[Form]:
        """The forms that may stand in a folded text from a character on, in their order."""
        if (kinds := self._first.get(low[place : place + 1])) is None:
            return ()
        found: list[int] = []
        for (size, number), forms in kinds.items():
            window = low[place : place + size + GAPS]
            found += forms.get(alphanumeric(window)[:size] if number else window[:size], ())
        return [self.forms[number] for number in sorted(found)]

    def find(self, text: str, start: int = 0, end: int | None = None) -> Iterator[FormMatch]:
        """The forms that stand in `text` from `start` on, up to `end`; none overlap."""
        end = len(text) if end is None else end
        part, at = text[start:end], start
        low = folded(part)
        for begins in STARTS.finditer(text, start, end):
            first, place = begins.start(), begins.end() - 1
            if first < at:
                continue
            found: FormMatch | None = None
            for form in self._at(low, place - start):
                begin = form.begin(text, first, place)
                stop = form.end(part if form.way == "exact" else low, begin - start)
                if stop is None or touching(text, stop + start) or (found and stop + start <= found.end):
                    continue
                if not form.proper or capital(text[begin : stop + start]):
                    found = FormMatch(begin, stop + start, form)
            if found:
                at = found.end
                yield found
