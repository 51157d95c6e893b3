"""Source code as it is compared: tokens without comments, line breaks and names.

One lexer for all languages, by what most of them share: comments, quoted texts, numbers, names and signs.
Numbers are one token, quoted texts another. Of a name only counts how many tokens ago it stood last: code
whose names were all replaced has the same prints. Words that many languages reserve count as they are.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from purify_hooks.protected.prints import BASE, WORD, value
from purify_hooks.protected.streams import WrittenPrint

if TYPE_CHECKING:
    from numpy.typing import NDArray

_RESERVED = """
False None True abstract and as assert async await bool boolean break byte case catch char class const
continue def default defer del delete do double elif else elsif end enum except export extends extern
false final finally float fn for foreach from func function global go goto if impl implements import in
include inline instanceof int interface is lambda let long loop match mod module mut namespace new nil
nonlocal not null of or override package pass private protected pub public raise range return self short
sizeof static string struct super switch template then this throw throws trait true try type typedef
typeof undefined union unless unsigned until use using val var virtual void volatile when where while
with yield
"""
RESERVED: Final = frozenset(_RESERVED.split())
"""Names that many languages reserve."""
LONGEST_TEXT: Final = 4000
"""Characters within which a comment of several lines, or a quoted text, is closed; else it is none."""
TOKEN: Final = re.compile(
    rf"""
    (?P<space>\s+)
  | (?P<comment>//[^\n]* | --\s[^\n]* | \#(?![\[{{!])[^\n]*)
  | (?P<closed>/\*.{{,{LONGEST_TEXT}}}?\*/ | <!--.{{,{LONGEST_TEXT}}}?--> )
  | (?P<doc>\"{{3}}.{{,{LONGEST_TEXT}}}?\"{{3}} | '{{3}}.{{,{LONGEST_TEXT}}}?'{{3}})
  | (?P<open>/\* | <!-- | \"{{3}} | '{{3}})
  | (?P<text>"(?:\\[^\n]|[^"\\\n]){{,{LONGEST_TEXT}}}" | '(?:\\[^\n]|[^'\\\n]){{,{LONGEST_TEXT}}}'
           | `(?:\\.|[^`\\]){{,{LONGEST_TEXT}}}`)
  | (?P<tick>`)
  | (?P<quote>["'])
  | (?P<number>\.?\d[\w.]*)
  | (?P<name>[^\W\d]\w*)
  | (?P<sign>.)
    """,
    re.VERBOSE | re.DOTALL,
)
AHEAD: Final = 3
"""Characters after a token that say what it is: `<` may begin `<!--`."""
OPEN: Final = frozenset({"open", "tick", "quote"})
"""Kinds of tokens that may yet become the beginning of a comment, or of a quoted text."""
NAME: Final = ""
"""What stands for a name among tokens; which one it is says how long ago it stood last."""
DROPPED: Final = frozenset(";")
CLOSING: Final = frozenset(")]}")
NOTHING: Final = frozenset[str]()
ENDS: Final = {"/": frozenset("/"), "<": frozenset(">"), **{each: frozenset(f"{each}\n") for each in "\"'`"}}
"""What closes a comment, or a quoted text, by the character that opens it."""


class CodeToken(NamedTuple):
    """A token: what it counts as (NAME: a name), the name, where it begins, and where it is known."""

    symbol: str
    name: str
    start: int
    known: int


class Lexer:
    """The tokens of a text, as far as no more text can change them."""

    def __init__(self) -> None:
        self.start = 0  # of what has not been read
        self._known = 0
        self._comma: CodeToken | None = None  # it counts unless a bracket is closed next
        self._read = self._until = 0
        self._closing = NOTHING  # but for these, nothing more is certain before `_until`

    def feed(self, text: str, last: bool) -> Iterator[CodeToken]:
        """The tokens that a text completes, of which the beginning was fed before."""
        if not last and len(text) <= self._until and not self._closed(text):
            return
        while self.start < len(text):
            found = TOKEN.match(text, self.start)
            assert found is not None  # a sign is any character
            known = _known(text, found, self.start)
            if known >= len(text):
                if not last:
                    self._read, self._until, self._closing = len(text), known, _closing(found)
                    return
                known = len(text) - 1
            self._known = max(self._known, known)
            token = CodeToken(*_symbol(found), self.start, self._known)
            self.start = found.end()
            yield from self._counted(token)
        if last and self._comma is not None:
            yield self._comma
            self._comma = None

    def _closed(self, text: str) -> bool:
        """Whether what is new in a text may close the comment or quoted text that it ended in."""
        new, self._read = text[self._read :], len(text)
        return not self._closing.isdisjoint(new)

    @property
    def pending(self) -> int:
        """Where the first token begins that was not yielded."""
        return self._comma.start if self._comma else self.start

    def _counted(self, token: CodeToken) -> Iterator[CodeToken]:
        """The token, if it counts, after a comma that does."""
        if token.symbol in DROPPED:
            return
        if self._comma is not None and token.symbol not in CLOSING:
            yield self._comma._replace(known=token.known)
        self._comma = token if token.symbol == "," else None
        if self._comma is None:
            yield token


def _known(text: str, found: re.Match[str], start: int) -> int:
    """The character with which it is certain what a token is."""
    known = found.end() + AHEAD - 1
    if found.lastgroup in ("open", "tick"):
        return max(known, start + LONGEST_TEXT + 2 * AHEAD)
    if found.lastgroup == "quote":
        line = text.find("\n", start, start + LONGEST_TEXT + 2)
        return max(known, line if line >= 0 else start + LONGEST_TEXT + 2)
    return known


def _closing(found: re.Match[str]) -> frozenset[str]:
    """Characters without one of which an open comment or quoted text is not closed."""
    return ENDS[found[0][0]] if found.lastgroup in OPEN else NOTHING


def _symbol(found: re.Match[str]) -> tuple[str, str]:
    """What a token counts as, and the name that it is; ";" stands for what does not count."""
    kind, text = found.lastgroup, found[0]
    if kind == "name":
        return (text, "") if text in RESERVED else (NAME, text)
    if kind in ("text", "number"):
        return ('"' if kind == "text" else "0"), ""
    return (text if kind in ("sign", "open", "tick", "quote") else ";"), ""


class _Placed:
    """One of an answer's tokens: its number, its first character, and its present worth in a print.

    A name is worth its distance while the print holds the place where it stood last, which then has it as
    `following`.
    """

    __slots__ = ("following", "number", "start", "worth")

    def __init__(self, number: int, start: int, worth: int) -> None:
        self.number, self.start, self.worth = number, start, worth
        self.following: _Placed | None = None


class TokenStream:
    """The prints of a text's tokens, each of `length` in a row."""

    def __init__(self, length: int) -> None:
        self.length, self.lexer = length, Lexer()
        self.number = self._print = 0
        self._stood: dict[str, _Placed] = {}  # where each name stood last
        self._recent: deque[_Placed] = deque()  # the tokens of the print
        self._written: list[WrittenPrint] = []

    def feed(self, text: str, start: int, last: bool) -> list[int]:
        prints: list[int] = []
        self._written = []
        for token in self.lexer.feed(text, last):
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
        placed = _Placed(self.number, token.start, symbol_value(token.symbol))
        if token.name:
            stood = self._stood.get(token.name)
            near = stood is not None and self.number - stood.number < self.length
            placed.worth = distances(self.length)[self.number - stood.number if stood and near else 0]
            if stood is not None:
                stood.following = placed
            self._stood[token.name] = placed
        self._recent.append(placed)
        self._print = (self._print * BASE + placed.worth) & WORD

    def _drop(self, gone: _Placed) -> None:
        """Take the first token out of the print; a name that stands again is then the first of its name."""
        change = -gone.worth * powers(self.length)[self.length - 1]
        following = gone.following
        if following is not None:
            unseen = distances(self.length)[0]
            change += (unseen - following.worth) * powers(self.length)[self.number - following.number]
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
