"""`PrivateValue`: a private value of a request, and what its spellings share."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from purify_hooks.private.finders import GROUPS, KINDS, plain
from purify_hooks.private.forms import BETWEEN, folded
from purify_hooks.private.pools import KEPT
from purify_hooks.private.shapes import MARKS, alphanumeric
from purify_plugins.utils.spelling import UNREAD

EXACT = {"url_credentials", "secret", "bitcoin", "ethereum", *GROUPS["key"]}
"""Kinds of which upper and lower case are not one."""
WORD = re.compile(r"[^\s,;:&/()\"-]+")
LEAST = 7
"""The least characters of a value with a digit that answers are kept from holding."""
LONG = 12
"""The least characters of a word without one: shorter ones stand in other words."""


@dataclass(frozen=True, repr=False)
class PrivateValue:
    """A private value as it is written first; `named` if it is a name, whose words each have a surrogate."""

    kind: str
    text: str
    named: bool = False

    @classmethod
    def of(cls, written: str, kind: str, shaped: Container[str] = ()) -> Self:
        """A value as written, or as it is meant where it is escaped; those of kinds `shaped` are no names."""
        meant = plain(written)
        text = (written if unicodedata.normalize("NFKC", written) == meant else meant).strip()
        telling = any(each.isdigit() or each in "@_" for each in text)
        return cls(kind, text, not (telling or kind in KINDS or kind in shaped))

    @cached_property
    def usual(self) -> str:
        """The text in the usual characters (NFKC)."""
        return unicodedata.normalize("NFKC", self.text)

    @cached_property
    def way(self) -> str:
        """How its spellings are found; see `Form`."""
        if self.kind in EXACT:
            return "exact"
        digits = sum(map(str.isdigit, self.text))
        plain = all(each.isalnum() or each in BETWEEN or each == "+" for each in self.text)
        dated = self.kind in ("birth_date", "ipv4", "ipv6")
        return (
            "number" if plain and not dated and digits >= 5 and 2 * digits >= len(self.text) / 2 else "words"
        )

    @cached_property
    def normal(self) -> str:
        """What all spellings of the value have in common."""
        if self.way == "exact":
            return unicodedata.normalize("NFC", self.text)
        text = unicodedata.normalize("NFC", self.usual.casefold())
        return alphanumeric(text) if self.way == "number" else " ".join(text.split())

    @cached_property
    def words(self) -> tuple[str, ...]:
        """The words of a name that say whose it is."""
        found = [bare(each) for each in WORD.findall(self.usual)]
        telling = tuple(each for each in found if len(each) > 1 and folded(each) not in KEPT)
        return telling or (max(found, key=len, default=self.usual),)

    @cached_property
    def spellings(self) -> Sequence[str]:
        """The ways of writing it that no answer holds: as it is, and a number in other groups.

        None of a value that is short, is one word such as others hold, or has what is no character.
        """
        text = " ".join(self.text.split())
        telling = any(each.isdigit() or each == "@" for each in text) or " " in text
        least = LEAST if telling else LONG
        ways = dict.fromkeys((text, *self._groups(self.usual)))
        return [each for each in ways if len(each) >= least and UNREAD not in each]

    def _groups(self, text: str) -> Iterator[str]:
        """A number without separators, in groups of four, and in its own with other separators."""
        if self.way == "number":
            compact = alphanumeric(text)
            groups = [compact[at : at + 4] for at in range(0, len(compact), 4)]
            yield from (compact, " ".join(groups), "-".join(groups))
            yield from (MARKS.sub(mark, text).strip(mark) for mark in " -.")


def bare(word: str) -> str:
    """A word without the marks around it, and without the s of what is its own."""
    word = re.sub(r"^[\W_]+|[\W_]+$", "", word)
    return re.sub(r"['’][sS]$", "", word)
