"""Source code as it is compared: tokens without comments, line breaks and names.

Numbers are one token, quoted texts another. Of a name only counts how many tokens ago it stood last: code
whose names were all replaced has the same prints. Words that many languages reserve count as they are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from purify_hooks.protected.lexing import CodeToken, Dialect, Lexer
from purify_hooks.protected.prints import BASE, WORD, value
from purify_hooks.protected.streams import WrittenPrint

if TYPE_CHECKING:
    from numpy.typing import NDArray


class _Placed:
    """One of an answer's tokens: its number, its first character, and its present worth in a print.

    A name is worth its distance while the print holds the place where it stood last, which then has it as
    `following`.
    """

    __slots__ = ("following", "number", "start", "worth")

    def __init__(self, number: int, start: int) -> None:
        self.number, self.start, self.worth = number, start, 0
        self.following: _Placed | None = None


class TokenStream:
    """The prints of a text's tokens, each of `length` in a row."""

    def __init__(self, length: int, dialect: Dialect) -> None:
        self.length, self.lexer = length, Lexer(dialect)
        self._powers, self._distances = powers(length), distances(length)
        self.number = self._print = 0
        self._stood: dict[str, _Placed] = {}  # where each name stood last
        self._recent: deque[_Placed] = deque()  # the tokens of the print
        self._written: list[WrittenPrint] = []

    def feed(self, text: str, start: int, last: bool) -> list[int]:
        tokens = self.lexer.feed(text, last)
        if not tokens:
            return []
        prints: list[int] = []
        self._written = []
        for token in tokens:
            self._add(token)
            if len(self._recent) == self.length:
                prints.append(self._print)
                self._written.append(WrittenPrint(self._recent[0].start, token.known, self.number))
        return prints

    def written(self, at: int) -> WrittenPrint:
        return self._written[at]

    @property
    def pending(self) -> int:
        first = len(self._recent) - self.length + 1
        return self._recent[first].start if first >= 0 else 0

    def _add(self, token: CodeToken) -> None:
        """Roll the print on to a token."""
        if len(self._recent) == self.length:
            self._drop(self._recent.popleft())
        self.number += 1
        placed = _Placed(self.number, token.start)
        if token.name:
            stood = self._stood.get(token.name)
            if stood is None or self.number - stood.number >= self.length:
                placed.worth = self._distances[0]
            else:
                placed.worth = self._distances[self.number - stood.number]
                stood.following = placed
            self._stood[token.name] = placed
        else:
            placed.worth = symbol_value(token.symbol)
        self._recent.append(placed)
        self._print = (self._print * BASE + placed.worth) & WORD

    def _drop(self, gone: _Placed) -> None:
        """Take the first token out of the print; a name that stands again is then the first of its name."""
        change = -gone.worth * self._powers[-1]
        following = gone.following
        if following is not None:
            unseen = self._distances[0]
            change += (unseen - following.worth) * self._powers[self.number - following.number]
            following.worth = unseen
        self._print = (self._print + change) & WORD


@lru_cache(maxsize=4)
def powers(length: int) -> tuple[int, ...]:
    """What a token's worth is multiplied by in a print, by how many tokens are behind it."""
    return tuple(pow(BASE, at, 2**64) for at in range(length))


@lru_cache(maxsize=4096)
def symbol_value(symbol: str) -> int:
    """The value of a token that is no name."""
    return value(f"token {symbol}")


@lru_cache(maxsize=4)
def distances(length: int) -> tuple[int, ...]:
    """The value of a name by how many tokens ago it stood last; 0: not within the print."""
    return tuple(value(f"name {at}") for at in range(length + 1))


def token_prints(symbols: Sequence[str], names: Sequence[str], length: int) -> NDArray[Any]:
    """The prints (n - length + 1,) uint64 of n tokens; names are "" of what is none."""
    import numpy

    count = max(len(symbols) - length + 1, 0)
    known = numpy.array([symbol_value(each) for each in symbols], dtype=numpy.uint64)
    stood: dict[str, int] = {}
    gaps = numpy.zeros(len(names), dtype=numpy.int64)
    for at, name in enumerate(names, 1):
        if name:
            gaps[at - 1] = at - stood.get(name, 0)
            stood[name] = at
    values = numpy.array(distances(length), dtype=numpy.uint64)
    found = numpy.zeros(count, dtype=numpy.uint64)
    for at in range(length if count else 0):
        gap, other = gaps[at : at + count], known[at : at + count]
        found *= numpy.uint64(BASE)
        found += numpy.where(gap > 0, values[numpy.where(gap <= at, gap, 0)], other)
    return found
