"""The gate of `forget`: how near a request is to a target, and the strength that this leaves it."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy

from purify_hooks.stages.targets import Embedder
from purify_plugins.utils.spelling import spelling

logger = logging.getLogger(__name__)
GRAM = 4
"""The characters of a gram."""
WORDS = 24
"""The most words that are compared at once; longer sentences are compared in halves that overlap."""
NEUTRAL = 0.5
"""How much of a request's likeness to neutral examples is taken from its likeness to targets."""
STEPS = 20
"""Strength is rounded down to multiples of 1 / STEPS: few batches are decoded apart for it."""
SENTENCE = re.compile(r"(?<=[.!?;\n])\s+|\n+")
_PRIMES = numpy.array([1_000_003, 16_777_619, 2_654_435_761, 1], dtype=numpy.uint64)


class Likeness(Protocol):
    """How like a target, and how like a neutral example, texts are."""

    def nearest(self, texts: Sequence[str]) -> tuple[Any, Any]:
        """For each text the cosine of the nearest target example and neutral one, each (texts,)."""


@dataclass(frozen=True)
class StrengthGate:
    """The strength that a request keeps: 1 up to the score `far`, `floor` from `near` on, linear between.

    The score is the likeness to the nearest target less half that to the nearest neutral example, of the
    sentence of the request where this is highest. No target changes what another one says of a request, and
    one more never gives a request more strength. What fails, or gives no number, gives 0.
    """

    likeness: Likeness
    far: float
    near: float
    floor: float = 0.0

    def strength(self, texts: Iterable[str]) -> float:
        """The strength for a request with these texts, from 1 down to `floor`; 0 where the gate fails."""
        try:
            parts = [part for text in texts for part in windows(text)]
            return self.left(self.score(parts)) if parts else 1.0
        except Exception as error:  # an operator's embedder may raise anything; its message may quote
            logger.warning("forget: the gate failed with %s; the SLM answers alone", type(error).__name__)
            return 0.0

    def score(self, parts: Sequence[str]) -> float:
        """The highest score of the parts. Raises ValueError where a likeness is no number from -1 to 1."""
        found = [numpy.asarray(each, dtype=float) for each in self.likeness.nearest(parts)]
        for each in found:
            if each.shape != (len(parts),) or not (numpy.abs(each) <= 1 + 1e-6).all():
                raise ValueError("likenesses must be numbers from -1 to 1, one a text")
        targets, neutral = found
        return float((targets - NEUTRAL * numpy.maximum(neutral, 0)).max())

    def left(self, score: float) -> float:
        """The strength that a score leaves; never more for a higher one, and 0 for no number."""
        if math.isnan(score):
            return 0.0
        share = min(1.0, max(0.0, (self.near - score) / (self.near - self.far)))
        step = math.floor(share * STEPS) / STEPS
        return min(1.0, step + self.floor * (1 - step))


def windows(text: str) -> list[str]:
    """A text's sentences; of a long one its windows of `WORDS` words, one every half of that."""
    found: list[str] = []
    for sentence in SENTENCE.split(text):
        words = sentence.split()
        last = max(len(words) - WORDS // 2, 1)
        found += [" ".join(words[at : at + WORDS]) for at in range(0, last, WORDS // 2)]
    return [each for each in found if each]


class GramLikeness:
    """Cosines of texts as hashed character 4-grams inside words, weighted by how rare they are.

    How rare a gram is, is counted in the neutral examples alone.
    """

    def __init__(self, targets: Sequence[str], neutral: Sequence[str]) -> None:
        at, grams = hashed(neutral)
        self.known, count = numpy.unique(grams, return_counts=True)
        self.weights = numpy.log((len(neutral) + 1) / (count + 0.5))
        self.unseen = math.log((len(neutral) + 1) / 0.5)
        self.targets, self.neutral = self._indexed(*hashed(targets)), self._indexed(at, grams)

    def nearest(self, texts: Sequence[str]) -> tuple[Any, Any]:
        at, grams = hashed(texts)
        weights = self._normed(at, grams)
        ends = numpy.searchsorted(at, numpy.arange(len(texts) + 1))
        rows = [(grams[a:b], weights[a:b]) for a, b in pairwise(ends)]
        found = [[index.nearest(*row) for row in rows] for index in (self.targets, self.neutral)]
        return numpy.array(found[0]), numpy.array(found[1])

    def _indexed(self, at: Any, grams: Any) -> GramIndex:
        return GramIndex(at, grams, self._normed(at, grams))

    def _normed(self, at: Any, grams: Any) -> Any:
        """The weight of each gram of each text, as parts of vectors of length 1."""
        if not len(grams):
            return numpy.zeros(0)
        place = numpy.searchsorted(self.known, grams).clip(max=max(len(self.known) - 1, 0))
        seen = self.known[place] == grams if len(self.known) else numpy.zeros(len(grams), dtype=bool)
        weights = numpy.where(seen, self.weights[place] if len(self.known) else 0.0, self.unseen)
        squares = numpy.bincount(at, weights**2)
        return weights / numpy.sqrt(squares[at])


class GramIndex:
    """Texts by their grams."""

    def __init__(self, at: Any, grams: Any, weights: Any) -> None:
        order = numpy.argsort(grams, kind="stable")
        self.texts, self.grams, self.weights = at[order], grams[order], weights[order]

    def nearest(self, grams: Any, weights: Any) -> float:
        """The cosine of the nearest text."""
        low = numpy.searchsorted(self.grams, grams, side="left")
        counts = numpy.searchsorted(self.grams, grams, side="right") - low
        if not counts.sum():
            return 0.0
        start = numpy.repeat(low - numpy.cumsum(counts) + counts, counts)
        place = start + numpy.arange(counts.sum())
        parts = self.weights[place] * numpy.repeat(weights, counts)
        return float(numpy.bincount(self.texts[place], parts).max())


class VectorLikeness:
    """Cosines by an operator's embedder."""

    def __init__(self, embedder: Embedder, targets: Sequence[str], neutral: Sequence[str]) -> None:
        self.embedder = embedder
        self.targets, self.neutral = self._units(targets), self._units(neutral)

    def nearest(self, texts: Sequence[str]) -> tuple[Any, Any]:
        asked = self._units(texts)
        return (asked @ self.targets.T).max(axis=1), (asked @ self.neutral.T).max(axis=1)

    def _units(self, texts: Sequence[str]) -> Any:
        """The texts' vectors with length 1, (texts, dimensions). Raises ValueError for what is none."""
        found = numpy.asarray(self.embedder.vectors(texts), dtype=float)
        if found.ndim != 2 or len(found) != len(texts):
            raise ValueError(f"the embedder gave an array of shape {found.shape} for {len(texts)} texts")
        lengths = numpy.linalg.norm(found, axis=1, keepdims=True)
        if not (numpy.isfinite(lengths).all() and (lengths > 0).all()):
            raise ValueError("the embedder gave vectors that are not finite, or 0")
        return found / lengths


def hashed(texts: Sequence[str]) -> tuple[Any, Any]:
    """The texts' different grams inside words, hashed: whose each is, in order, and the grams (n,) uint64."""
    joined = "".join(f" {spelling(text).strip()}  " for text in texts)
    codes = numpy.frombuffer(joined.encode("utf-32-le"), dtype=numpy.uint32).astype(numpy.uint64)
    spaces = codes == ord(" ")
    ends = numpy.cumsum([len(spelling(text).strip()) + 3 for text in texts], dtype=numpy.int64)
    count = max(len(codes) - GRAM + 1, 0)
    inside = ~(spaces[1 : count + 1] | spaces[2 : count + 2])
    grams = sum(codes[at : at + count] * _PRIMES[at] for at in range(GRAM)) % numpy.uint64(2**40)
    starts = numpy.flatnonzero(inside)
    whose = numpy.searchsorted(ends, starts, side="right").astype(numpy.uint64)
    pairs = numpy.unique(whose << numpy.uint64(40) | grams[starts]) if count else whose
    return (pairs >> numpy.uint64(40)).astype(numpy.int64), pairs & numpy.uint64(2**40 - 1)
