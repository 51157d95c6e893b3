"""`CopyCheck`: blocks an answer where many of a passage's words are those of a protected work."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from purify_hooks.protected.code import TokenStream
from purify_hooks.protected.prints import Roller
from purify_hooks.protected.streams import LetterStream
from purify_plugins.stages.checks import Blocked, Check

if TYPE_CHECKING:
    from purify_hooks.protected.index import FoundPrint, PrintIndex
    from purify_hooks.protected.streams import PrintStream, WrittenPrint

PLACES = 64
"""Places of a print that are counted."""
TOKENS_A_WORD = 2
"""Tokens of code for each word: 50 words are some ten lines."""
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
    words: Counter[int] = field(default_factory=Counter)
    stretches: Counter[int] = field(default_factory=Counter)

    def add(self, hit: CountedPrint) -> int:
        """Add a hit; returns the most words that stand near each other and are hit. Each word counts once."""
        self.hits.append(hit)
        for word in hit.words:
            self.words[word] += 1
            if self.words[word] == 1:
                self.stretches[word >> self.near] += 1
        return max(self._near(stretch) for stretch in {word >> self.near for word in hit.words})

    def _near(self, stretch: int) -> int:
        here = self.stretches[stretch]
        return here + max(self.stretches[stretch - 1], self.stretches[stretch + 1])

    def drop(self, before: int) -> None:
        """Forget hits that end before a letter."""
        while self.hits and self.hits[0].letter < before:
            for word in self.hits.popleft().words:
                self.words[word] -= 1
                if not self.words[word]:
                    del self.words[word]
                    self.stretches[word >> self.near] -= 1


class CopyCheck(Check):
    """Blocks an answer once, of `words` words in a row, a `share` has prints of one passage of a work.

    A passage is up to four times as long. Commonplace prints do not count. Works that are `quotable`,
    by their names in the index, are not blocked, and those that were quoted are named by `judged`. Without
    places (a Bloom filter) prints of all works count together.
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
        symbols = TOKENS_A_WORD if code else 1  # that are counted for each word
        self.near = (words * symbols).bit_length()  # words of one passage lie in one or two stretches as long
        self.least = max(1, math.ceil(share * words * symbols))
        self.size = words * symbols if code else math.ceil(words * index.header.letters)
        spread = words * symbols * (index.header.letters + (0 if code else 1))
        self.window: float = math.ceil(spread * SPACING)
        self._roller = Roller(index.header.length)
        self._begin()

    def fresh(self) -> Self:
        found = type(self).__new__(type(self))
        found.__dict__.update(self.__dict__)
        found._begin()
        return found

    def _begin(self) -> None:
        self._text, self._ended = "", False
        self._stream = self._streamed()
        near = self.near if self.index.placed else 64  # so that all are in one stretch
        self._found, self._free = _Window(near), _Window(near)
        self._blocked: int | None = None  # from where on
        self.prints, self.quoted = 0, set[str]()

    def _streamed(self) -> PrintStream:
        if self.index.header.kind == "code":
            return TokenStream(self.index.header.length)
        return LetterStream(self._roller)

    def clear(self, text: str, last: bool) -> int:
        if self._ended or not text.startswith(self._text):
            prints, quoted = self.prints, self.quoted
            self._begin()
            self.prints, self.quoted = prints, quoted
        if self._blocked is None:
            self._judge(text, last)
        if self._blocked is not None:
            raise Blocked(self._blocked, self.key)
        return len(text) if last else self._clear(len(text))

    def judged(self) -> Mapping[str, Any]:
        found: dict[str, Any] = {"index": self.index.digest, "prints": self.prints}
        return {**found, "quoted": sorted(self.quoted)} if self.quotable else found

    def _clear(self, length: int) -> int:
        """How much of the text no later block can begin in."""
        pending = self._stream.pending
        if self._found.hits:
            pending = min(pending, self._found.hits[0].start)
        return max(0, min(length, max(pending, length - int(self.window))))

    def _judge(self, text: str, last: bool) -> None:
        """Read the characters that are new, and note the first place where there are too many hits."""
        written = self._stream.feed(text, len(self._text), last)
        self._text, self._ended = text, last
        self.prints += len(written)
        for found in self.index.found([each.print for each in written]):
            if self._hit(found, written[found.at]):
                return
        self._drop(self._stream.number)

    def _drop(self, number: int) -> None:
        """Forget what is too long ago when so many letters have been written."""
        self._found.drop(number - self.size)
        self._free.drop(number - self.size)

    def _hit(self, found: FoundPrint, written: WrittenPrint) -> bool:
        """Count a print that is in the index; returns whether the text is blocked where it is known."""
        if self.index.common(found):
            return False
        words = self.index.places(found, PLACES) if self.index.placed else [written.number]
        free = [word for word in words if self.quotable and self.index.source(word) in self.quotable]
        bound = [word for word in words if word not in free]
        self._drop(written.number)
        if free and not bound:
            if self._free.add(CountedPrint(written.number, written.start, tuple(free))) >= self.least:
                self.quoted |= {self.index.source(word) for word in free}
            return False
        if self._found.add(CountedPrint(written.number, written.start, tuple(bound))) < self.least:
            return False
        self._blocked = max(self._found.hits[0].start, written.known + 1 - int(self.window))
        return True
