"""`DenyList`: texts that never appear in an answer. No token that would complete one is ever drawn.

What counts is the text: however it is cut into tokens, and in whatever case and spacing it is written. A
beginning of a text may be written, also at the end of an answer.
"""

from __future__ import annotations

import codecs
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy
import torch

from purify_plugins.canonical_json import counted
from purify_plugins.errors import ConfigError
from purify_plugins.utils.sequences import leading
from purify_plugins.utils.spelling import UNREAD, beginning_words, spelling

if TYPE_CHECKING:
    from torch import Tensor

    from purify_plugins.types import Vocabulary

REMEMBERED = 256
"""Masks kept of a list: a row's mask is asked for by both models, and by each position of a draft."""
FEW = 200
"""Texts of a list that are searched for one after another, in all tokens at once."""


@dataclass(frozen=True)
class DenyList:
    """Texts that never appear in an answer, in whatever tokens: a constraint.

    `any_case`: upper and lower case are one. `any_spacing`: where a text has white space, any amount and kind
    of it matches. Words run together, accents left out and look-alike letters are other texts, unless
    `any_spelling`: letters and digits alone are compared, without case and accents, and whatever stands
    between words matches; a text is then ruled out only where a word begins. Raises ConfigError for texts
    that cannot be denied.
    """

    texts: tuple[str, ...] = field(repr=False)
    any_case: bool = True
    any_spacing: bool = True
    any_spelling: bool = False

    def __post_init__(self) -> None:
        given = (self.texts,) if isinstance(self.texts, str) else tuple(self.texts)
        if not given:
            raise ConfigError("a deny list needs a text that must not appear; it has none")
        for text in given:
            if not isinstance(text, str) or not text.strip() or UNREAD in text:
                raise ConfigError(
                    f"a deny list's texts have at least one character each, unlike {text!r:.60}"
                )
            if self.any_spelling and not spelling(text).strip():
                raise ConfigError("in any spelling, a deny list's texts have a letter or a digit each")
        object.__setattr__(self, "texts", given)

    def follower(self, vocabulary: Vocabulary) -> DenyFollower:
        """A new answer's follower; the list is indexed once for each vocabulary."""
        return DenyFollower(indexed(self, vocabulary))

    def public(self) -> Mapping[str, Any]:
        """Its kind and options, how many texts it has and one digest of them."""
        how = {"any_case": self.any_case, "any_spacing": self.any_spacing}
        if self.any_spelling:
            how["any_spelling"] = True
        return {"kind": "deny_list", **how, **counted(self.texts)}

    def folded(self, text: str) -> str:
        """A text as it is compared."""
        if self.any_spelling:
            return spelling(text)
        text = text.casefold() if self.any_case else text
        return "".join(_single_spaces(text)) if self.any_spacing else text

    @property
    def sought(self) -> set[str]:
        """The texts as they are looked for in a folded answer, which stands after a space in any spelling."""
        if self.any_spelling:
            return beginning_words(self.texts)
        return {self.folded(text.strip()) for text in self.texts}


def _single_spaces(text: str) -> Iterator[str]:
    """The characters, with one space for every run of white space."""
    spaced = False
    for each in text:
        if not each.isspace():
            yield each
        elif not spaced:
            yield " "
        spaced = each.isspace()


class Match(NamedTuple):
    """The beginning of a denied text, with which an answer ends; the texts `low` to `high` begin so."""

    low: int
    high: int
    length: int


class DenyPosition(NamedTuple):
    """Where an answer is: the beginnings that it ends with, and bytes of a character that is not complete."""

    matches: tuple[Match, ...] = ()
    pending: bytes = b""


class DenyFollower:
    """One answer's position in a deny list."""

    def __init__(self, index: DenyIndex) -> None:
        self.index = index
        self.read: list[int] = []
        self.positions = [index.start]  # before each token read, and after the last

    def allowed(self, answer: Sequence[int]) -> Tensor:
        """The tokens (V,) bool that complete no denied text after `answer`."""
        answer = list(answer)
        if self.read[: len(answer)] != answer:
            longer = answer[: len(self.read)] == self.read
            kept = len(self.read) if longer else leading(self.read, answer)
            del self.read[kept:], self.positions[kept + 1 :]
            for token in answer[kept:]:
                self.positions.append(self.index.after(self.positions[-1], token))
            self.read += answer[kept:]
        return self.index.mask(self.positions[len(answer)])


class DenyIndex:
    """A deny list for one vocabulary: what may follow each beginning of a text.

    `texts` are the folded ones, sorted, without those that begin with another. The texts with a common
    beginning stand side by side, so a beginning is a range of them and nothing has to be built.
    """

    def __init__(self, denied: DenyList, vocabulary: Vocabulary) -> None:
        self.denied, self.vocabulary = denied, vocabulary
        self.texts = _minimal(sorted(denied.sought))
        self.first = self._first()
        self.start = DenyPosition(self._read((), " ")) if denied.any_spelling else DenyPosition()
        self.spelled = spelled(vocabulary, denied.any_case, denied.any_spacing, denied.any_spelling)
        self.free = numpy.ones(len(vocabulary), dtype=bool)  # after no beginning of a text
        few = len(self.texts) <= FEW
        self.free[self.spelled.holding(self.texts) if few else self._holding()] = False
        self._masks: dict[DenyPosition, Tensor] = {}
        self._completing: dict[Match, Any] = {}

    def after(self, position: DenyPosition, token: int) -> DenyPosition:
        """The position after one token more."""
        if not position.pending and token not in self.spelled.broken:
            return DenyPosition(self._read(position.matches, self.spelled.texts[token]))
        text, pending = decoded(position.pending + self.vocabulary.tokens[token])
        return DenyPosition(self._read(position.matches, self.denied.folded(text)), pending)

    def mask(self, position: DenyPosition) -> Tensor:
        """The tokens (V,) bool that complete no text at this position."""
        if (known := self._masks.get(position)) is not None:
            return known
        allowed = self.free.copy()
        if position.pending:  # a token that does not complete the character ends every beginning
            for token in self.spelled.continuing:
                text = decoded(position.pending + self.vocabulary.tokens[token])[0]
                allowed[token] = self._completes(position.matches, self.denied.folded(text)) is None
        else:
            for match in position.matches:
                allowed[self._completed_by(match)] = False
        if len(self._masks) >= REMEMBERED:
            self._masks.clear()
        return self._masks.setdefault(position, torch.from_numpy(allowed))

    # One character after another

    def _first(self) -> dict[str, Match]:
        """The texts that begin with each character."""
        found: dict[str, Match] = {}
        for at, text in enumerate(self.texts):
            low = found[text[0]].low if text[0] in found else at
            found[text[0]] = Match(low, at + 1, 1)
        return found

    def _read(self, matches: Sequence[Match], text: str) -> tuple[Match, ...]:
        """The beginnings after the folded characters of `text`; a text that is complete is none any more."""
        for each in text:
            if each == " " and self._spaced(matches):
                continue
            matches = [found for found in self._further(matches, each) if not self._whole(found)]
        return tuple(matches)

    def _completes(self, matches: Sequence[Match], text: str) -> Match | None:
        """The first text that is complete within the folded characters of `text`."""
        for each in text:
            if each == " " and self._spaced(matches):
                continue
            matches = self._further(matches, each)
            if whole := next(filter(self._whole, matches), None):
                return whole
        return None

    def _further(self, matches: Sequence[Match], each: str) -> list[Match]:
        """The beginnings with one character more, the new one of this character among them."""
        found = [further for match in matches if (further := self._narrowed(match, each))]
        return [*found, self.first[each]] if each in self.first else found

    def _narrowed(self, match: Match, each: str) -> Match | None:
        low, high, length = match
        if high - low == 1:
            return Match(low, high, length + 1) if self.texts[low][length] == each else None
        low = bisect_left(self.texts, each, low, high, key=lambda text: text[length])
        high = bisect_right(self.texts, each, low, high, key=lambda text: text[length])
        return Match(low, high, length + 1) if low < high else None

    def _whole(self, match: Match) -> bool:
        return len(self.texts[match.low]) == match.length

    def _spaced(self, matches: Sequence[Match]) -> bool:
        """Whether the beginnings end with a space, after which more of it does not count."""
        if not (matches and (self.denied.any_spacing or self.denied.any_spelling)):
            return False
        low, _, length = matches[0]
        return self.texts[low][length - 1] == " "

    # Whole tokens

    def _holding(self) -> list[int]:
        """The tokens in whose folded texts a denied text stands."""
        return [at for at, text in enumerate(self.spelled.texts) if self._has(text)]

    def _has(self, text: str) -> bool:
        """Whether a denied text stands in a token's folded text."""
        starts = (at for at, each in enumerate(text) if each in self.first)
        return any(self._begins(text[at:]) for at in starts)

    def _begins(self, text: str) -> bool:
        """Whether it begins with a denied text; none of these begins with another, so one is to be tried."""
        at = bisect_right(self.texts, text)
        return at > 0 and text.startswith(self.texts[at - 1])

    def _completed_by(self, match: Match) -> Any:
        """The ids of tokens that go on from a beginning to the end of a text, as an array."""
        if (known := self._completing.get(match)) is not None:
            return known
        table = self.spelled.table(after_space=self._spaced([match]))
        low, high, length = match
        rests = (text[length:] for text in self.texts[low:high] if len(text) - length <= table.longest)
        found = [ids for rest in rests if len(ids := table.beginning_with(rest))]
        if len(self._completing) >= 64 * REMEMBERED:
            self._completing.clear()
        ids = numpy.concatenate(found) if found else numpy.empty(0, dtype=numpy.int64)
        return self._completing.setdefault(match, ids)


def _minimal(texts: list[str]) -> list[str]:
    """Sorted texts without those that begin with another: they cannot be written either."""
    found: list[str] = []
    for text in texts:
        if not (found and text.startswith(found[-1])):
            found.append(text)
    return found


@lru_cache(maxsize=16)
def indexed(denied: DenyList, vocabulary: Vocabulary) -> DenyIndex:
    """A list's index, made once for each vocabulary."""
    return DenyIndex(denied, vocabulary)


class PrefixTable:
    """Tokens sorted by their folded texts."""

    def __init__(self, texts: Sequence[str]) -> None:
        order = sorted(range(len(texts)), key=texts.__getitem__)
        self.ids = numpy.array(order, dtype=numpy.int64)
        self.texts = [texts[at] for at in order]
        self.longest = max(map(len, texts))

    def beginning_with(self, text: str) -> Any:
        """The ids of the tokens whose texts begin with `text`, as an array."""
        low = bisect_left(self.texts, text)
        if low == len(self.texts) or not self.texts[low].startswith(text):
            return self.ids[:0]
        return self.ids[low : bisect_left(self.texts, text[:-1] + chr(ord(text[-1]) + 1), low)]


class SpelledTokens:
    """A vocabulary's tokens as the folded texts that they add to complete text.

    `broken` are the ids of tokens whose bytes are no whole characters, `continuing` of those that begin
    inside a character.
    """

    def __init__(self, vocabulary: Vocabulary, *how: bool) -> None:
        fold = DenyList(("x",), *how).folded
        found = [decoded(token) for token in vocabulary.tokens]
        self.texts = [fold(text) for text, _ in found]
        self.broken = {at for at, (text, rest) in enumerate(found) if rest or UNREAD in text}
        tokens = vocabulary.tokens
        self.continuing = [at for at in sorted(self.broken) if tokens[at] and 0x80 <= tokens[at][0] < 0xC0]
        self._tables: dict[bool, PrefixTable] = {}
        self._joined = UNREAD.join(self.texts)  # which stands in no denied text
        self._starts = [0, *accumulate(len(text) + 1 for text in self.texts)]

    def holding(self, texts: Iterable[str]) -> list[int]:
        """The ids of the tokens in which one of these texts stands."""
        found = set()
        for text in texts:
            at = self._joined.find(text)
            while at >= 0:
                token = bisect_right(self._starts, at) - 1
                found.add(token)
                at = self._joined.find(text, self._starts[token + 1])
        return sorted(found)

    def table(self, after_space: bool) -> PrefixTable:
        """The tokens by their texts, after white space by those without more of it."""
        if after_space not in self._tables:
            texts = [text.removeprefix(" ") for text in self.texts] if after_space else self.texts
            self._tables[after_space] = PrefixTable(texts)
        return self._tables[after_space]


@lru_cache(maxsize=8)
def spelled(vocabulary: Vocabulary, *how: bool) -> SpelledTokens:
    """A vocabulary's folded tokens, which all lists that fold alike share."""
    return SpelledTokens(vocabulary, *how)


def decoded(data: bytes) -> tuple[str, bytes]:
    """The text of these bytes, and those at the end that only begin a character."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    return decoder.decode(data), decoder.getstate()[0]
