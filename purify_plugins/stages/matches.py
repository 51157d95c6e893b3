"""Checks of what is written: lists of words, and regular expressions."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from purify_plugins.errors import ConfigError
from purify_plugins.stages.checks import Blocked, Check
from purify_plugins.stages.windows import GridCheck, Span
from purify_plugins.utils.sequences import leading

SPACES = 4
"""The most characters of white space that a space in a listed word stands for."""
FORMS: Sequence[Literal["NFC", "NFD", "NFKC"]] = ("NFC", "NFD", "NFKC")
"""Unicode's ways of writing one character that a word is looked for in."""


class WordPattern:
    """Words, or phrases of several, found whole and in any case.

    "whole": no letter, digit or underscore touches a word that begins, or ends, with one. `longest` is the
    longest text that can be found, in characters.
    """

    def __init__(self, words: Iterable[str]) -> None:
        given = {" ".join(each.split()) for each in words}
        self.words = tuple(sorted(given - {""}))
        if not self.words:
            raise ConfigError("a word list needs a word; it has none")
        forms = {unicodedata.normalize(form, word) for word in self.words for form in FORMS}
        inside = [each for each in forms if re.match(r"\w", each)]
        outside = [each for each in forms if not re.match(r"\w", each)]
        ways = ([rf"(?<!\w){_trie(inside)}"] if inside else []) + ([_trie(outside)] if outside else [])
        self.pattern = re.compile("|".join(ways), re.IGNORECASE)
        self.longest = max(len(each) + (SPACES - 1) * each.count(" ") for each in forms)


def _trie(words: Sequence[str]) -> str:
    """A regular expression for any of these words, in which those that begin alike share their beginning."""
    tree: dict[str, Any] = {}
    for word in words:
        at = tree
        for letter in word:
            at = at.setdefault(letter, {})
        at[""] = {}  # a word ends here
    return _ways(tree, "")


def _ways(tree: dict[str, Any], before: str) -> str:
    end = r"(?!\w)" if re.match(r"\w", before) else ""
    ways = [(_letter(each) + _ways(inner, each)) if each else end for each, inner in sorted(tree.items())]
    return ways[0] if len(ways) == 1 else f"(?:{'|'.join(reversed(ways))})"


def _letter(letter: str) -> str:
    return rf"\s{{1,{SPACES}}}" if letter == " " else re.escape(letter)


class WordCheck(Check):
    """Blocks the first listed word of an answer; holds back as many characters as the longest has."""

    def __init__(
        self, words: WordPattern, *, key: str = "default", redo: int = 0, name: str = "words"
    ) -> None:
        self.words, self.key, self.redo, self.name = words, key, redo, name
        self.window: float = words.longest
        self._text, self._harmless = "", 0  # what was judged last, and how much of it is clear

    def clear(self, text: str, last: bool) -> int:
        at = self._harmless
        if not text.startswith(self._text):
            at = max(0, min(at, leading(text, self._text) - self.words.longest))
        found = self.words.pattern.search(text, at)
        # Whether a word begins at a place is known once as many characters follow as the longest word has,
        # and one more: up to there the first word of a text is the first one of every longer text.
        known = len(text) if last else max(at, len(text) - self.words.longest)
        if found and found.start() < known:
            raise Blocked(found.start(), self.key)
        if not last:
            self._text, self._harmless = text, known
        return known


class PatternCheck(GridCheck):
    """Blocks the window of an answer in which a regular expression is found.

    A match is found where it has at most `size` less `stride` characters; it may look at the text before its
    window, and is not counted where the window's end cuts it off. See `GridCheck`.
    """

    edges = True

    def __init__(
        self,
        pattern: re.Pattern[str],
        size: float = 400,
        stride: float = 200,
        *,
        key: str = "default",
        redo: int = 0,
        name: str = "regex",
    ) -> None:
        super().__init__(size, stride, key=key, redo=redo, name=name)
        if pattern.match(""):
            raise ConfigError(f"the regular expression {pattern.pattern!r} is found in every text")
        self.pattern = pattern

    def bad(self, text: str, spans: Sequence[Span], last: bool) -> int | None:
        return next((at for at, span in enumerate(spans) if self._found(text, *span, last)), None)

    def _found(self, text: str, start: int, end: int, last: bool) -> bool:
        found = self.pattern.search(text, start, end)
        while found and found.end() == end and not last:
            found = self.pattern.search(text, found.start() + 1, end)
        return found is not None
