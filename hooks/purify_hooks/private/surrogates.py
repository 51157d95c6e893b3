"""What stands for each private value of a request: derived from a key and the value, so no store is kept."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial

from purify_hooks.private.dice import Dice
from purify_hooks.private.forms import Form, folded
from purify_hooks.private.held import HeldText
from purify_hooks.private.pools import FAMILY, GIVEN, KEPT
from purify_hooks.private.shapes import LONGEST, MAKERS, alphanumeric, refigured, shaped
from purify_hooks.private.values import WORD, PrivateValue, bare
from purify_hooks.private.vault import escaped
from purify_plugins.errors import RefusedError

TRIES = 200
"""Surrogates tried for one value before the request is refused."""
FIGURES = 4
"""The least figures of a value whose letters stay where its kind wants them."""
SINGLE = 20
"""Of these, how many are single words of a pool; then two are joined."""


@dataclass(frozen=True, repr=False)
class AskedTexts:
    """What a surrogate must not stand in, or hold: the texts that are asked, and those that end an answer."""

    texts: Sequence[str]
    stops: Sequence[str] = ()

    @cached_property
    def _text(self) -> HeldText:
        return HeldText(folded("\n".join(self.texts)))

    @cached_property
    def _words(self) -> frozenset[str]:
        return frozenset(re.findall(r"[^\W_]+", self._text.text))

    @cached_property
    def _numbers(self) -> HeldText:
        return HeldText(alphanumeric(self._text.text))

    def free(self, candidate: str, value: PrivateValue) -> bool:
        """Whether none of the texts holds it, whatever stands between its figures."""
        low = folded(candidate)
        if any(stop in candidate and stop not in value.text for stop in self.stops):
            return False
        if value.way == "number":
            return not self._numbers.holds(alphanumeric(low))
        return not self._text.holds(low)

    def without(self, word: str) -> bool:
        """Whether none of the texts has a word."""
        low = folded(word)
        return self._words.isdisjoint(low.split("-")) and not any(folded(stop) in low for stop in self.stops)


@dataclass(frozen=True, repr=False)
class Surrogate:
    """A value and what stands for it; certificates have the `id`."""

    value: PrivateValue
    surrogate: str
    id: str
    words: tuple[tuple[str, str], ...] = ()

    def veiling(self) -> Iterator[Form]:
        """The forms of the true value, each with what is to stand there."""
        alone = self.value.named and len(self.value.words) == 1 and self.value.kind != "word"
        yield from _forms(self.value.text, self.surrogate, self.id, self.value.way, alone)
        for word, other in self.words:
            yield from _forms(word, other, self.id, "words", proper=True)

    def restoring(self) -> Iterator[Form]:
        """The forms in which a model may write the surrogate."""
        yield from _forms(self.surrogate, self.value.text, self.id, self.value.way)
        for word, other in self.words:
            yield Form(other, word, self.id, "words", proper=True)
        if len(self.words) > 1:
            (first, one), (last, other) = self.words[0], self.words[-1]
            yield Form(f"{one[0]}. {other}", f"{first[0]}. {last}", self.id, "words", proper=True)


def _forms(text: str, other: str, id: str, way: str, proper: bool = False) -> Iterator[Form]:
    """A form, without the marks that both begin with, and as JSON and Unicode may write it."""
    lead = re.match(r"[\W_]*", text)
    marks = lead[0] if lead and way != "number" and lead[0] != text and other.startswith(lead[0]) else ""
    text, other = text.removeprefix(marks), other.removeprefix(marks)
    yield Form(text, other, id, way, proper)
    if escaped(text) != text:
        yield Form(escaped(text), other, id, way, proper)
    if not text.isascii():
        for how in ("NFC", "NFD"):
            if (spelled := unicodedata.normalize(how, text)) != text:
                yield Form(spelled, other, id, way, proper)


@dataclass(repr=False)
class Surrogates:
    """Gives the values of one request their surrogates: those that follow from `key` and the value alone.

    The next one that follows is taken where a text of the request, or another value, has the first.
    `patterns` are the regular expressions of the operator's kinds.
    """

    key: bytes
    context: AskedTexts
    patterns: Mapping[str, str] = field(default_factory=dict)
    _taken: set[str] = field(default_factory=set)
    _words: dict[str, str] = field(default_factory=dict)
    _families: set[str] = field(default_factory=set)

    def pairs(self, values: Iterable[PrivateValue]) -> list[Surrogate]:
        """Every value with its surrogate. Raises RefusedError where there is none left."""
        values = list(values)
        for value in values:
            if value.named and len(value.words) > 1:
                self._families.add(folded(value.words[-1]))
        counts: dict[str, int] = {}
        found = []
        for value in values:
            counts[value.kind] = number = counts.get(value.kind, 0) + 1
            found.append(self._pair(value, f"{value.kind} {number}"))
        return found

    def _pair(self, value: PrivateValue, id: str) -> Surrogate:
        if not value.named:
            return Surrogate(value, self._free(value), id)
        surrogate = WORD.sub(lambda match: self._word(match[0], value), value.usual[:LONGEST])[:LONGEST]
        return Surrogate(value, surrogate, id, tuple((each, self._of(each)) for each in value.words))

    def _free(self, value: PrivateValue) -> str:
        for attempt in range(TRIES):
            found = self._like(value, attempt)
            low = folded(found)
            if low not in self._taken and self.context.free(found, value):
                self._taken.add(low)
                return found
        raise RefusedError(f"no surrogate is left for a private value of the kind {value.kind!r}")

    def _like(self, value: PrivateValue, attempt: int) -> str:
        """What is of the value's kind; of an operator's kind too, where other letters or figures are."""
        dice = partial(Dice, self.key, value.kind, value.normal, str(attempt))
        found = MAKERS.get(value.kind, shaped)(dice(), value.usual)
        if self.fits(value.kind, found) or sum(map(str.isdigit, value.text)) < FIGURES:
            return found
        figures = refigured(dice(), value.usual)
        return figures if self.fits(value.kind, figures) else found

    def fits(self, kind: str, text: str) -> bool:
        """Whether a surrogate is of its operator's kind."""
        return kind not in self.patterns or re.fullmatch(self.patterns[kind], text) is not None

    def _word(self, written: str, value: PrivateValue) -> str:
        """What stands for a word of a name, with the marks around it."""
        word = bare(written)
        if not word or (folded(word) in KEPT and word not in value.words):
            return written
        if len(word) == 1 and word not in value.words:
            return written.replace(word, Dice(self.key, "initial", folded(word)).pick("ABCDEGHJKLMNPRSTVW"))
        return written.replace(word, self._of(word))

    def _of(self, word: str) -> str:
        """What stands for a word, in its case."""
        low = unicodedata.normalize("NFC", folded(word))
        if low not in self._words:
            self._words[low] = self._name(low)
        found = self._words[low]
        if word.isupper() and len(word) > 1:
            return found.upper()
        return found.lower() if word.islower() else found

    def _name(self, word: str) -> str:
        family = word in self._families
        pool = FAMILY if family else GIVEN
        for attempt in range(TRIES):
            dice = Dice(self.key, "family" if family else "given", word, str(attempt))
            found = dice.pick(pool) if attempt < SINGLE else f"{dice.pick(pool)}-{dice.pick(pool)}"
            low = folded(found)
            if low not in self._taken and self.context.without(found):
                self._taken.add(low)
                return found
        raise RefusedError("no surrogate is left for a private name")
