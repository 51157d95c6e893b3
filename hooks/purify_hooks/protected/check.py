"""`CopyCheck`: blocks an answer where many of a passage's words are those of a protected work."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from purify_hooks.protected.code import TokenStream
from purify_hooks.protected.lexing import BARE, CODE
from purify_hooks.protected.prints import Roller
from purify_hooks.protected.streams import LetterStream
from purify_plugins.stages.checks import Blocked, Check

if TYPE_CHECKING:
    from purify_hooks.protected.index import FoundPrint, PrintIndex
    from purify_hooks.protected.streams import PrintStream

PLACES = 64
"""Places of a print that are counted."""
TOKENS_A_WORD = 2
"""Tokens of code for each word: 50 words are some ten lines."""
CELL = 32
"""Characters of code that are read at a time, which takes less time than each by itself."""
SPACING = 1.25
"""Characters of a window for each that its words have on average, a space included."""


class CountedPrint(NamedTuple):
    """A print in the index: the answer's letter that ends it, where it starts, and its words in the works."""

    letter: int
    start: int
    words: tuple[int, ...]


@dataclass
class _Window:
    """The hits among an answer's last letters, and how many there are in each stretch of 2**near words."""

    near: int
    hits: deque[CountedPrint] = field(default_factory=deque)
    words: defaultdict[int, int] = field(default_factory=lambda: defaultdict(int))
    stretches: defaultdict[int, int] = field(default_factory=lambda: defaultdict(int))

    def add(self, hit: CountedPrint) -> int:
        """Add a hit; returns the most words that stand near each other and are hit. Each word counts once."""
        self.hits.append(hit)
        for word in hit.words:
            self.words[word] += 1
            if self.words[word] == 1:
                self.stretches[word >> self.near] += 1
        count = self.stretches.get
        return max(
            count(at, 0) + max(count(at - 1, 0), count(at + 1, 0))
            for at in {word >> self.near for word in hit.words}
        )

    def drop(self, before: int) -> None:
        """Forget hits that end before a letter, and what nothing is counted of."""
        while self.hits and self.hits[0].letter < before:
            for word in self.hits.popleft().words:
                self.words[word] -= 1
                if not self.words[word]:
                    del self.words[word]
                    self.stretches[word >> self.near] -= 1
                    if not self.stretches[word >> self.near]:
                        del self.stretches[word >> self.near]


@dataclass
class _Reading:
    """One way to read an answer: its prints, and those in the index, of works that may be quoted apart."""

    stream: PrintStream
    found: _Window
    free: _Window

    @property
    def pending(self) -> int:
        """The first character that a later block may begin at."""
        hits = self.found.hits
        return min(self.stream.pending, hits[0].start) if hits else self.stream.pending

    def drop(self, before: int) -> None:
        """Forget hits that end before a letter."""
        self.found.drop(before)
        self.free.drop(before)


class CopyCheck(Check):
    """Blocks an answer once, of `words` words in a row, a `share` has prints of one passage of a work.

    A passage is up to four times as long. Commonplace prints do not count. Works that are `quotable`,
    by their names in the index, are not blocked, and those that were quoted are named by `judged`.
    """

    name = "copycheck"

    def __init__(
        self,
        index: PrintIndex,
        share: float = 0.2,
        words: int = 50,
        *,
        redo: int = 1,
        quotable: frozenset[str] = frozenset(),
        key: str = "copied",
    ) -> None:
        self.index, self.redo, self.quotable, self.key = index, redo, quotable, key
        code = index.header.kind == "code"
        self.grid = CELL if code else 1  # a text is judged whenever it has so many characters more
        symbols = TOKENS_A_WORD if code else 1  # that are counted for each word
        self.near = (words * symbols).bit_length()  # words of one passage lie in one or two stretches as long
        self.least = max(1, math.ceil(share * words * symbols))
        self.size = words * symbols if code else math.ceil(words * index.header.letters)
        spread = words * symbols * (index.header.letters + (0 if code else 1))
        self.window: int = math.ceil(spread * SPACING)
        self._roller = Roller(index.header.length)
        self._begin()

    def fresh(self) -> Self:
        found = type(self).__new__(type(self))
        found.__dict__.update(self.__dict__)
        found._begin()
        return found

    def _begin(self) -> None:
        self._text, self._ended = "", False
        self._readings = [
            _Reading(stream, _Window(self.near), _Window(self.near)) for stream in self._streams()
        ]
        self._pending = 0  # no later block can begin before
        self._blocked: tuple[int, int] | None = None  # the character with which it is known, and the first
        self.prints, self.quoted = 0, set[str]()

    def _streams(self) -> list[PrintStream]:
        if self.index.header.kind == "code":
            return [TokenStream(self.index.header.length, each) for each in (CODE, BARE)]
        return [LetterStream(self._roller)]

    def clear(self, text: str, last: bool) -> int:
        if self._ended or not text.startswith(self._text):
            prints, quoted = self.prints, self.quoted
            self._begin()
            self.prints, self.quoted = prints, quoted
        end = len(text) if last else len(text) // self.grid * self.grid
        if self._blocked is None and (last or end > len(self._text)):
            self._judge(text[:end], last)
        if self._blocked is not None:
            raise Blocked(self._blocked[1], self.key)
        return len(text) if last else max(self._pending, len(text) - self.window)

    def judged(self) -> Mapping[str, Any]:
        found: dict[str, Any] = {"index": self.index.digest, "prints": self.prints}
        return {**found, "quoted": sorted(self.quoted)} if self.quotable else found

    def _judge(self, text: str, last: bool) -> None:
        """Read the characters that are new, and note the first place where there are too many hits."""
        start, self._text, self._ended = len(self._text), text, last
        for reading in self._readings:
            prints = reading.stream.feed(text, start, last)
            if prints:
                self.prints += len(prints)
                for found in self.index.found(prints):
                    if not self.index.common(found) and self._hit(reading, found):
                        break
                reading.drop(reading.stream.number - self.size)
        self._pending = min([each.pending for each in self._readings])

    def _hit(self, reading: _Reading, found: FoundPrint) -> bool:
        """Count a print that is in the index; returns whether the text is blocked there, and notes where."""
        words, written = self.index.places(found, PLACES), reading.stream.written(found.at)
        free = [word for word in words if self.index.source(word) in self.quotable] if self.quotable else []
        bound = [word for word in words if word not in free] if free else words
        reading.drop(written.number - self.size)
        if free and not bound:
            if reading.free.add(CountedPrint(written.number, written.start, tuple(free))) >= self.least:
                self.quoted |= {self.index.source(word) for word in free}
            return False
        if reading.found.add(CountedPrint(written.number, written.start, tuple(bound))) < self.least:
            return False
        judged = (written.known // self.grid + 1) * self.grid  # characters, when it is known
        start = max(reading.found.hits[0].start, judged - self.window)
        self._blocked = min(self._blocked or (written.known, start), (written.known, start))
        return True
