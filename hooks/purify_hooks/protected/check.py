"""`CopyCheck`: blocks an answer where many of a passage's words are those of a protected work."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from purify_hooks.protected.folding import BOUNDARY, FOLDED
from purify_hooks.protected.prints import Roller
from purify_plugins.stages.checks import Blocked, Check

if TYPE_CHECKING:
    from purify_hooks.protected.index import FoundPrint, PrintIndex

PLACES = 64
"""Places of a print that are counted."""
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
        self.near = words.bit_length()  # words of a work are one passage in one or two stretches as long
        self.least = max(1, math.ceil(share * words))
        self.letters = math.ceil(words * index.header.letters)
        self.window: float = math.ceil(words * (index.header.letters + 1) * SPACING)
        self.roller = Roller(index.header.length)
        self._begin()

    def fresh(self) -> Self:
        found = type(self).__new__(type(self))
        found.__dict__.update(self.__dict__)
        found._begin()
        return found

    def _begin(self) -> None:
        size = self.index.header.length
        self._text, self._print, self._last = "", 0, " " * size
        self._count = 0  # letters so far
        self._starts: list[int] = []  # where each of the last letters is
        near = self.near if self.index.placed else 64  # so that all are in one stretch
        self._found, self._free = _Window(near), _Window(near)
        self._blocked: int | None = None  # from where on
        self.prints, self.quoted = 0, set[str]()

    def clear(self, text: str, last: bool) -> int:
        if not text.startswith(self._text):
            prints, quoted = self.prints, self.quoted
            self._begin()
            self.prints, self.quoted = prints, quoted
        if self._blocked is None:
            self._judge(text)
        if self._blocked is not None:
            raise Blocked(self._blocked, self.key)
        return len(text) if last else self._clear(len(text))

    def judged(self) -> Mapping[str, Any]:
        found: dict[str, Any] = {"index": self.index.digest, "prints": self.prints}
        return {**found, "quoted": sorted(self.quoted)} if self.quotable else found

    def _clear(self, length: int) -> int:
        """How much of the text no later block can begin in."""
        pending = self._starts[1] if len(self._starts) == len(self._last) else 0
        if self._found.hits:
            pending = min(pending, self._found.hits[0].start)
        return max(0, min(length, max(pending, length - int(self.window))))

    def _judge(self, text: str) -> None:
        """Read the characters that are new, and note the first place where there are too many hits."""
        letters, places = _letters(text, len(self._text))
        self._text = text
        if not letters:
            return
        prints = self.roller.rolled(self._print, self._last, letters)
        self.prints += len(prints)
        size = len(self._last)
        self._print, self._last = prints[-1], (self._last + letters)[-size:]
        before, count = [*self._starts], self._count
        starts = [*before, *places]  # where the last letters are
        for found in self.index.found(prints):
            self._count = count + found.at + 1
            first = len(before) + found.at + 1 - size  # of the print's letters
            if first >= 0 and self._hit(found, starts[first], places[found.at]):
                return
        self._count = count + len(letters)
        self._starts = starts[-size:]
        self._found.drop(self._count - self.letters)
        self._free.drop(self._count - self.letters)

    def _hit(self, found: FoundPrint, start: int, at: int) -> bool:
        """Count a print that is in the index; returns whether the text is blocked with its last letter."""
        if self.index.common(found):
            return False
        words = self.index.places(found, PLACES) if self.index.placed else [self._count]
        free = [word for word in words if self.quotable and self.index.source(word) in self.quotable]
        bound = [word for word in words if word not in free]
        oldest = self._count - self.letters
        if free and not bound:
            self._free.drop(oldest)
            if self._free.add(CountedPrint(self._count, start, tuple(free))) >= self.least:
                self.quoted |= {self.index.source(word) for word in free}
        if not bound:
            return False
        self._found.drop(oldest)
        if self._found.add(CountedPrint(self._count, start, tuple(bound))) < self.least:
            return False
        first = self._found.hits[0].start
        self._blocked = max(first, at + 1 - int(self.window))
        return True


def _letters(text: str, start: int) -> tuple[str, list[int]]:
    """The letters of a text from a character on, and the character that each is of."""
    new = text[start:]
    folded = new.translate(FOLDED)
    if new.isascii() and len(folded) == len(new):  # so that each character is one letter, or ends a word
        places = [at for at, each in enumerate(folded, start) if each != BOUNDARY]
        return folded.replace(BOUNDARY, ""), places
    found = [(each, at) for at, old in enumerate(new, start) for each in FOLDED[ord(old)] if each != BOUNDARY]
    return "".join(each for each, _ in found), [at for _, at in found]
