"""A lexer for all programming languages, by what most of them share: comments, texts, numbers, names, signs.

There are three ways to read. `CODE` drops comments, `FILE` too, of a whole file. `BARE` reads what stands in
comments, docstrings and long quoted texts as code, so that it is found there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, NamedTuple

_RESERVED = """
False None True abstract and as assert async await bool boolean break byte case catch char class const
continue def default defer del delete do double elif else elsif end enum except export extends extern
false final finally float fn for foreach from func function global go goto if impl implements import in
include inline instanceof int interface is lambda let long loop match mod module mut namespace new nil
nonlocal not null of or override package pass private protected pub public raise range return short
sizeof static string struct super switch template then throw throws trait true try type typedef
typeof undefined union unless unsigned until use using val var virtual void volatile when where while
with yield
"""
RESERVED: Final = frozenset(_RESERVED.split())
"""Names that many languages reserve."""
AHEAD: Final = 3
"""Characters after a token that say what it is: `<` may begin `<!--`."""
MARGIN: Final = r"""
    (?: [>|*+-](?=[^\S\n]) | [+-](?=[\w@\#])
      | [^\S\n]* (?: (?:>>>|\.\.\.)(?=\s) | \d{1,6}[.:|)]?(?=[^\S\n]) ) )
"""
"""What stands before the lines of code that is shown: their numbers, and the signs of a session, a difference
or a quotation."""
MARGIN_AHEAD: Final = 9
"""Characters after a line break that say whether there is one."""
SPACE: Final = rf"(?P<space> \s*\n (?:{MARGIN}|[^\S\n]*) | \A{MARGIN} | \s+ )"
PARTS: Final = r"""
  | (?P<number>\.?\d[\w.]*)
  | (?P<name>[^\W\d]\w*)
  | (?P<sign>.)
"""


@dataclass(frozen=True)
class Dialect:
    """How code is read: its tokens, and the most characters of a quoted text, a comment, and a docstring."""

    tokens: re.Pattern[str]
    longest: int
    doc: int


def _dialect(longest: int, doc: int) -> Dialect:
    """Comments and docstrings (of at most `doc` characters) are no tokens; quoted texts are one each."""
    return Dialect(
        re.compile(
            rf"""
    {SPACE}
  | (?P<fence>`{{3,}}[^\n`]*)
  | (?P<comment>//[^\n]* | --\s[^\n]* | \#(?![\[{{!])[^\n]*)
  | (?P<closed>/\*.{{,{longest}}}?\*/ | <!--.{{,{longest}}}?--> )
  | (?P<doc>\"{{3}}.{{,{doc}}}?\"{{3}} | '{{3}}.{{,{doc}}}?'{{3}})
  | (?P<open>/\* | <!-- | \"{{3}} | '{{3}})
  | (?P<text>"(?:\\[^\n]|[^"\\\n]){{,{longest}}}" | '(?:\\[^\n]|[^'\\\n]){{,{longest}}}'
           | `(?:\\.|[^`\\]){{,{longest}}}`)
  | (?P<tick>`)
  | (?P<quote>["'])
  {PARTS}""",
            re.VERBOSE | re.DOTALL,
        ),
        longest,
        doc,
    )


CODE: Final = _dialect(4000, 4000)
"""Source code as it is written, token by token."""
FILE: Final = _dialect(4000, 1_000_000)
"""A file of source code, of which the end of each docstring is known."""
BARE: Final = Dialect(
    re.compile(
        rf"""
    (?P<escaped>(?:\\[ntr])+)
  | {SPACE}
  | (?P<mark>//+ | --(?=\s) | \#+(?![\[{{!]) | /\*+ | \*{{1,2}}/ | <!-- | --> | \"{{3}} | '{{3}} | `+)
  | (?P<text>"(?:\\[^n\n]|[^"\\\n]){{,100}}" | '(?:\\[^n\n]|[^'\\\n]){{,100}}' | \\"(?:[^"\\\n]){{,100}}\\")
  | (?P<loose>["'] | \\["'])
  {PARTS}""",
        re.VERBOSE | re.DOTALL,
    ),
    100,
    0,
)
"""Code wherever it stands: what opens and closes comments, docstrings and JSON's texts is dropped."""
OPEN: Final = frozenset({"open", "tick", "quote", "loose"})
"""Kinds of tokens that may yet become the beginning of a comment, or of a quoted text."""
DOC: Final = ('"""', "'''")
NAME: Final = ""
"""What stands for a name among tokens; which one it is says how long ago it stood last."""
COUNTED: Final = frozenset({"name", "number", "text", "sign", "open", "tick", "quote"})
"""Kinds of tokens that count; of the signs all but ";"."""
CLOSING: Final = frozenset(")]}")
NOTHING: Final = frozenset[str]()
ENDS: Final = {
    "/": frozenset("/"),
    "<": frozenset(">"),
    "\\": frozenset("\"'\n"),
    **{each: frozenset(f"{each}\n") for each in "\"'`"},
}
"""What closes a comment, or a quoted text, by the character that opens it."""


class CodeToken(NamedTuple):
    """A token: what it counts as (NAME: a name), the name, where it begins, and where it is known."""

    symbol: str
    name: str
    start: int
    known: int


class Lexer:
    """The tokens of a text, as far as no more text can change them."""

    def __init__(self, dialect: Dialect = CODE) -> None:
        self.dialect = dialect
        self.start = 0  # of what has not been read
        self._known = 0
        self._comma: CodeToken | None = None  # it counts unless a bracket is closed next
        self._read = self._until = 0
        self._closing = NOTHING  # but for these, nothing more is certain before `_until`

    def feed(self, text: str, last: bool) -> list[CodeToken]:
        """The tokens that a text completes, of which the beginning was fed before."""
        size = len(text)
        if size <= self._until and not last and not (self._closing and self._closed(text)):
            return []
        tokens: list[CodeToken] = []
        match = self.dialect.tokens.match
        while self.start < size:
            found = match(text, self.start)
            assert found is not None  # a sign is any character
            kind, end = found.lastgroup, found.end()
            if kind in OPEN:
                known = _known(text, found, self.dialect)
            else:
                known = end + (MARGIN_AHEAD if kind == "space" or not self.start else AHEAD) - 1
            if known >= size:
                if not last:
                    self._read, self._until, self._closing = size, known, _closing(found)
                    return tokens
                known = size - 1
            if known > self._known:
                self._known = known
            if kind in COUNTED:
                self._count(tokens, CodeToken(*_symbol(found), self.start, self._known))
            self.start = end
        if last and self._comma is not None:
            tokens.append(self._comma)
            self._comma = None
        return tokens

    def _closed(self, text: str) -> bool:
        """Whether what is new in a text may close the comment or quoted text that it ended in."""
        new, self._read = text[self._read :], len(text)
        return not self._closing.isdisjoint(new)

    def _count(self, tokens: list[CodeToken], token: CodeToken) -> None:
        """Add a token, after a comma that counts."""
        if token.symbol == ";":
            return
        if self._comma is not None:
            if token.symbol not in CLOSING:
                tokens.append(self._comma._replace(known=token.known))
            self._comma = None
        if token.symbol == ",":
            self._comma = token
        else:
            tokens.append(token)


def _known(text: str, found: re.Match[str], dialect: Dialect) -> int:
    """The character with which it is certain that a comment, or a quoted text, is not closed."""
    start = found.start()
    latest = start + (dialect.doc if found[0] in DOC else dialect.longest) + 2 * AHEAD
    if found.lastgroup in ("quote", "loose"):
        line_end = text.find("\n", start, latest)
        latest = line_end if line_end >= 0 else latest
    return max(found.end() + MARGIN_AHEAD - 1, latest)


def _closing(found: re.Match[str]) -> frozenset[str]:
    """Characters without one of which an open comment or quoted text is not closed."""
    return ENDS[found[0][0]] if found.lastgroup in OPEN else NOTHING


def _symbol(found: re.Match[str]) -> tuple[str, str]:
    """What a token counts as, and the name that it is."""
    kind, text = found.lastgroup, found[0]
    if kind == "name":
        return (text, "") if text in RESERVED else (NAME, text)
    return ('"' if kind == "text" else "0" if kind == "number" else text), ""
