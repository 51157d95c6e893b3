"""What a detector of private data is, and several of them as one."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from purify_hooks.private.finders.plain import Plain


class Span(NamedTuple):
    """Characters `start` to `end` of a text (the end not included), and the kind of private data they are."""

    start: int
    end: int
    kind: str


class Finder(Protocol):
    """Finds private data in a text."""

    def find(self, text: str) -> Sequence[Span]:
        """The spans, in order; none overlap.

        Words nearby count ("BSN: 111222333"), so a value is found more surely in its whole text than alone.
        """
        ...


class Hit(NamedTuple):
    """A span of a plain text that may be private data; of two that overlap the more certain one is kept."""

    start: int
    end: int
    kind: str
    certainty: int


SHAPE, CONTEXT, CHECKED, NAMED, GIVEN = range(5)
"""How certain a hit is.

Its shape fits; a word nearby names it; its checksum or beginning fits; both; it is the operator's own.
"""


class Detector(Protocol):
    """Finds some kinds of private data in a plain text, in time linear in its length."""

    def hits(self, text: str) -> Iterable[Hit]: ...


@dataclass(frozen=True)
class JoinedFinder:
    """Several detectors as one finder, of the kinds that are wanted; `None` wants all."""

    detectors: tuple[Detector, ...]
    kinds: frozenset[str] | None = None

    def find(self, text: str) -> Sequence[Span]:
        plain = Plain.of(text)
        hits = [
            hit
            for detector in self.detectors
            for hit in detector.hits(plain.text)
            if self.kinds is None or hit.kind in self.kinds
        ]
        return [Span(*plain.place(hit.start, hit.end), hit.kind) for hit in apart(hits)]


def apart(hits: Iterable[Hit]) -> list[Hit]:
    """Hits that do not overlap, in order.

    A hit inside another gives way to it; of two that overlap in part the more certain one stays, then the
    longer one. What lost only to a hit that is gone itself stays too.
    """
    outer, inner = _nested(sorted(hits, key=lambda hit: (hit.start, -hit.end, -hit.certainty)))
    kept: list[Hit] = []
    for hit in (*_best(outer), *_best(inner)):
        at = bisect_left(kept, hit.start, key=lambda each: each.end - 1)
        if at == len(kept) or kept[at].start >= hit.end:
            kept.insert(at, hit)
    return kept


def _nested(hits: Sequence[Hit]) -> tuple[list[Hit], list[Hit]]:
    """The hits that no other contains, and the rest."""
    outer: list[Hit] = []
    inner: list[Hit] = []
    end = -1
    for hit in hits:
        (outer if hit.end > end else inner).append(hit)
        end = max(end, hit.end)
    return outer, inner


def _best(hits: Sequence[Hit]) -> list[Hit]:
    return sorted(hits, key=lambda hit: (-hit.certainty, hit.start - hit.end))
