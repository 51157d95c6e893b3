"""The operator's own: words and names from a list, and regular expressions."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Self

from purify_hooks.private.finders.finder import GIVEN, Hit
from purify_hooks.private.finders.plain import plain
from purify_plugins.errors import ConfigError

SYLLABIC = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
"""Scripts that leave no space between words: each of their characters counts as one."""
WORD = re.compile(rf"[{SYLLABIC}]|[^\W_{SYLLABIC}]+")
GAP = 3
"""The most characters between two words of one entry; none of them a letter or digit."""


class WordList:
    """Texts of a list as whole words, in any case, spacing and hyphenation; possessives too."""

    def __init__(self, words: Iterable[str]) -> None:
        self.entries: dict[str, list[tuple[str, ...]]] = defaultdict(list)
        for word in words:
            first, *rest = _words(plain(word)) or [""]
            if not first:
                raise ConfigError("finder: an entry of `words` has no letter or digit")
            self.entries[first].append(tuple(rest))
        for entries in self.entries.values():
            entries.sort(key=len, reverse=True)

    def hits(self, text: str) -> Iterator[Hit]:
        if not self.entries:
            return
        for match in WORD.finditer(text):
            for rest in self.entries.get(match[0].casefold(), ()):
                if end := _end(text, match.end(), rest):
                    yield Hit(match.start(), end, "word", GIVEN)
                    break


def _end(text: str, at: int, rest: Sequence[str]) -> int:
    """Where an entry ends whose words after `at` are `rest`; 0: they do not stand there."""
    for word in rest:
        found = WORD.search(text, at, at + GAP + len(word) + 2)
        if not found or found.start() - at > GAP:
            return 0
        whole = WORD.match(text, found.start())
        if not whole or whole[0].casefold() != word:
            return 0
        at = whole.end()
    return at


def _words(text: str) -> list[str]:
    return [word.casefold() for word in WORD.findall(text)]


class Patterns:
    """The operator's regular expressions; a hit's kind is the expression's name.

    They are searched for by Python's `re`: one that backtracks without bound keeps requests waiting.
    """

    def __init__(self, patterns: Mapping[str, re.Pattern[str]]) -> None:
        self.patterns = dict(patterns)

    @classmethod
    def compiled(cls, patterns: Mapping[str, str]) -> Self:
        """Raises ConfigError for what is no expression, or matches the empty text."""
        return cls({name: _compiled(name, pattern) for name, pattern in patterns.items()})

    def hits(self, text: str) -> Iterator[Hit]:
        for kind, pattern in self.patterns.items():
            for match in pattern.finditer(text):
                if match[0]:
                    yield Hit(*match.span(), kind, GIVEN)


def _compiled(name: str, pattern: str) -> re.Pattern[str]:
    try:
        found = re.compile(pattern)
    except (re.error, TypeError) as error:
        raise ConfigError(f"finder: pattern {name!r} is no regular expression: {error}") from error
    if found.fullmatch(""):
        raise ConfigError(
            f"finder: pattern {name!r} matches the empty text; make it match one character or more"
        )
    return found


def entries(lines: Sequence[str]) -> list[str]:
    """The entries of a word list's lines; blank lines and those that begin with # are none."""
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
