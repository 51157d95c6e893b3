"""What a detector of private data is, and several of them as one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from purify_hooks.private.finders.context import ReadText
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
    """A span of a plain text that is private data, and how certain that is."""

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


class ContextDetector(Protocol):
    """The same for detectors that share what they read of a text."""

    def hits(self, read: ReadText) -> Iterable[Hit]: ...


@dataclass(frozen=True)
class JoinedFinder:
    """Detectors as one finder: of `own` the hits of the wanted `kinds`, of `named` all."""

    own: tuple[ContextDetector, ...]
    kinds: frozenset[str]
    named: tuple[Detector, ...] = ()

    def find(self, text: str) -> Sequence[Span]:
        plain = Plain.of(text)
        read = ReadText(plain.text)
        hits = [hit for each in self.own for hit in each.hits(read) if hit.kind in self.kinds]
        hits += [hit for each in self.named for hit in each.hits(plain.text)]
        return [Span(*plain.place(hit.start, hit.end), hit.kind) for hit in apart(hits)]


def apart(hits: Iterable[Hit]) -> list[Hit]:
    """Hits that do not overlap, in order.

    A hit inside another gives way to it. Those that overlap in part become one, so that nothing of either
    stays: of the kind of the more certain, then of the longer.
    """
    kept: list[Hit] = []
    for hit in sorted(hits, key=lambda each: (each.start, -each.end, -each.certainty)):
        last = kept[-1] if kept else None
        if last is None or hit.start >= last.end:
            kept.append(hit)
        elif hit.end > last.end:
            best = max(last, hit, key=lambda each: (each.certainty, each.end - each.start))
            kept[-1] = Hit(last.start, hit.end, best.kind, best.certainty)
    return kept
