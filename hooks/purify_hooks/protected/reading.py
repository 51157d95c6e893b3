"""Files as they are read for an index, block by block: their prints, and the words that these end with."""

from __future__ import annotations

import codecs
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from purify_hooks.protected.code import token_prints
from purify_hooks.protected.folding import FOLDED
from purify_hooks.protected.lexing import FILE, CodeToken, Lexer
from purify_hooks.protected.prints import codes_of, prints_of, values_of
from purify_plugins.errors import ConfigError
from purify_plugins.utils.spelling import spaced

if TYPE_CHECKING:
    from numpy.typing import NDArray

LETTERS = 12
"""Letters of a print, some three English words: see docs/copycheck.md for how it was chosen."""
TOKENS = 20
"""Tokens of a print of code, some two lines."""
LONGEST = 64
"""The most letters of a word; what is longer counts as several."""
PrintedWords = tuple["NDArray[Any]", "NDArray[Any]", "NDArray[Any]"]
"""Prints (n,) uint64, the word (n,) of the block that each ends with, and the words' lengths in letters."""


class WorkReading(Protocol):
    """One file, block by block."""

    def feed(self, content: bytes, what: str) -> PrintedWords:
        """What the next block of its bytes completes; an empty block ends the file. Raises ConfigError."""


@dataclass(frozen=True)
class WorkReader:
    """How files are read: `begin` begins one, `length` letters or tokens make a print."""

    begin: Callable[[int], WorkReading]
    length: int

    def __call__(self) -> WorkReading:
        return self.begin(self.length)


def reader(kind: str) -> WorkReader:
    """How files of a kind are read."""
    if kind == "code":
        return WorkReader(CodeReading, TOKENS)
    return WorkReader(TextReading, LETTERS)


class TextReading:
    """A file of text: a print ends with the last letter of each word that has enough letters before it."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.decoder = codecs.getincrementaldecoder("utf-8")()
        self.rest = ""  # folded, behind the last word that is complete
        self.before = ""  # the letters before it
        self.begun = False

    def feed(self, content: bytes, what: str) -> PrintedWords:
        text = self._decoded(content, what)
        if not self.begun:
            self.begun, text = True, text.removeprefix("\ufeff")
        folded = self.rest + text.translate(FOLDED)
        end = folded.rfind(" ") + 1 if content else len(folded)
        if content and len(folded) - end > LONGEST * 64:  # no word is as long
            end = len(folded) - (len(folded) - end) % LONGEST
        folded, self.rest = folded[:end], folded[end:]
        return self._prints(folded)

    def _decoded(self, content: bytes, what: str) -> str:
        return decoded_text(self.decoder, content, what)

    def _prints(self, folded: str) -> PrintedWords:
        import numpy

        lengths = word_lengths(folded)
        letters = folded.replace(" ", "")
        known = self.before + letters
        prints = prints_of(values_of(codes_of(known)), self.length)
        # A word has the print that ends with its last letter, where there are enough letters before it.
        places = numpy.cumsum(lengths) + len(self.before) - self.length
        whole = numpy.flatnonzero(places >= 0)
        self.before = known[-(self.length - 1) :] if known else ""
        return prints[places[whole]], whole, lengths


class CodeReading:
    """A source file: a print ends with each token that has enough tokens before it."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.decoder = codecs.getincrementaldecoder("utf-8")()
        self.text, self.lexer, self.before = "", Lexer(FILE), list[CodeToken]()

    def feed(self, content: bytes, what: str) -> PrintedWords:
        """What a block completes; a token's length is its characters and those behind it."""
        import numpy

        self.text += decoded_text(self.decoder, content, what).replace("\r\n", "\n")
        found = [*self.lexer.feed(self.text, last=not content)]
        tokens = [*self.before, *found]
        prints = token_prints([each.symbol for each in tokens], [each.name for each in tokens], self.length)
        whole = numpy.arange(len(found) - len(prints), len(found))
        ends = [*(each.start for each in found), len(self.text)]
        lengths = numpy.diff(numpy.array(ends, dtype=numpy.int64))
        self.before = tokens[1 - self.length :]
        return prints, whole, lengths


def decoded_text(decoder: codecs.IncrementalDecoder, content: bytes, what: str) -> str:
    """The next block of a file as text; an empty one ends it. Raises ConfigError."""
    if b"\0" in content:
        raise ConfigError(
            f"{what} is no text (it holds a zero byte); leave it out with --glob, such as --glob '*.txt'"
        )
    try:
        return decoder.decode(content, final=not content)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{what} is not UTF-8 text ({error.reason}); save it as UTF-8") from error


def word_lengths(folded: str) -> NDArray[Any]:
    """How many letters each word of a folded text has (n,)."""
    import numpy

    codes = codes_of(folded)
    letter = codes != 32
    ends = letter & numpy.append(~letter[1:], True)  # the last letter of each word
    if not folded.isascii():
        distinct = [code for code in numpy.unique(codes[letter]).tolist() if not spaced(chr(code))]
        alone = numpy.isin(codes, numpy.array(distinct, dtype=codes.dtype))
        ends |= alone
        ends[:-1] |= alone[1:] & letter[:-1]
    found: NDArray[Any] = numpy.diff(numpy.cumsum(letter)[ends], prepend=0)
    if len(found) and found.max() > LONGEST:
        found = numpy.array([part for each in found.tolist() for part in _cut(each)])
    return found


def _cut(length: int) -> list[int]:
    return [LONGEST] * (length // LONGEST) + ([length % LONGEST] if length % LONGEST else [])
