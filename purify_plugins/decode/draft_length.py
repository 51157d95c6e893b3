"""Adaptive draft length: the time of each cycle is measured, the accepted tokens are counted."""

from __future__ import annotations

import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from itertools import accumulate
from operator import mul
from statistics import mean
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from purify_plugins.protocols import LogitSource
    from purify_plugins.sampling import Sampling

LONGEST = 16
FIRST = (3, 0, 6)
"""Lengths that are each tried twice at first: two that draft, one that does not."""
SEEDED = 3
"""The length for answers drawn from a seed."""
REMEMBERED = 200
"""How many of the latest drafted tokens count, at each position of a draft."""
PRIOR = 10
"""The weight, in tokens, of the acceptance rate over all positions in each position's own rate."""
TRYING = 0.02
"""The share of the time that is spent on lengths other than the best one,"""
AT_FIRST = 8
"""and how many more cycles at the start."""


class DraftLength:
    """Chooses how many tokens the SLM drafts before the LLM reads them; 0 is lockstep.

    The best length has the most tokens a second: the expected tokens of a cycle over its measured time. The
    nth drafted token is reached if those before it were accepted, and accepted at its position's rate. Where
    tokens are smaller than the LLM's own, `unit` of them to one of its, lengths are multiples of `unit`. With
    `fixed` the length never changes: a seeded answer must not depend on the load of the machine.
    """

    # The time of a cycle is not linear in its length: a pass of four tokens may be faster than one of three.
    # So the neighbours of the best length are tried too, and again from time to time.
    # The choice reads no token and no random number: an LLM that delays its passes at will changes the
    # lengths, and at every length tokens have the same distribution.
    # A draft in smaller symbols is read only as far as it is accepted, and many cycles need no pass of the
    # LLM: a cycle's time is then the mean of the latest, and otherwise their least (load only slows it down).

    def __init__(self, fixed: int | None = None, unit: int = 1) -> None:
        self.fixed = None if fixed is None else fixed * unit
        self.unit, self._least = unit, unit if unit > 1 else 0
        self.first = tuple(max(unit * length, self._least) for length in FIRST)
        self._typical: Callable[[Collection[float]], float] = mean if unit > 1 else min
        self._fates = [(0.0, 0.0)] * LONGEST * unit  # (accepted, tried) at each position of a draft
        self._seconds: dict[int, deque[float]] = {}
        self._times: Counter[int] = Counter()
        self._best: int | None = None
        self._spent = self._trying = 0.0  # seconds: of all cycles, of those at other lengths than the best

    def length(self, remaining: int = sys.maxsize) -> int:
        """How many tokens to draft next, at most `remaining`; a fixed length is not limited."""
        if self.fixed is not None:
            return self.fixed
        rarest = min(self.first, key=lambda length: self._times[length])
        return min(remaining, self._chosen() if self._times[rarest] >= 2 else rarest)

    def _chosen(self) -> int:
        """The best length, or a neighbour of it while the time for trying others is not used up."""
        self._best = self.best()
        if self._trying > TRYING * self._spent + AT_FIRST * self.seconds(self._best):
            return self._best
        around = [self._best + step for step in (-self.unit, self.unit)]
        around = [length for length in around if self._least <= length <= LONGEST * self.unit]
        return min(around, key=lambda length: self._times[length])

    def best(self) -> int:
        """The length with the most expected tokens a second."""
        tokens = self.tokens()
        lengths = range(self._least, len(tokens), self.unit)
        return max(lengths, key=lambda length: tokens[length] / self.seconds(length))

    def tokens(self) -> list[float]:
        """The expected tokens of a cycle of each length: one, and each drafted one by its acceptance rate."""
        kept, tried = (sum(column) for column in zip((7.0, 10.0), *self._fates, strict=True))
        shares = ((here + PRIOR * kept / tried) / (looked + PRIOR) for here, looked in self._fates)
        return list(accumulate(accumulate(shares, mul, initial=1.0)))

    def seconds(self, length: int) -> float:
        """The time of a cycle of this length (s): measured, or interpolated from the nearest two."""
        if length in self._seconds:
            return self._typical(self._seconds[length])
        known = sorted(sorted(self._seconds, key=lambda other: abs(other - length))[:2])
        low, high = (self._typical(self._seconds[n]) for n in known)
        slope = max(high - low, 0.0) / (known[1] - known[0])
        return low + slope * (length - known[0])

    @contextmanager
    def timed(self, length: int) -> Iterator[int]:
        """Time a cycle of `length` drafted tokens."""
        start = time.perf_counter()
        yield length
        seconds = time.perf_counter() - start
        self._seconds.setdefault(length, deque(maxlen=9 * self.unit)).append(seconds)
        self._times[length] += 1
        self._spent += seconds
        self._trying += 0.0 if self._best in (None, length) else seconds

    def observe(self, position: int, tried: int, accepted: int) -> None:
        """Count the drafted tokens that were tried at this position, and those that were accepted."""
        fade = (1 - 1 / REMEMBERED) ** tried
        before = self._fates[position]
        self._fates[position] = fade * before[0] + accepted, fade * before[1] + tried


class DraftLengths:
    """The draft lengths learned for one pair of models, per mode and size of batch.

    `unit` is as in DraftLength; `seeded` is the fixed length for answers drawn from a seed.
    """

    def __init__(self, unit: int = 1, seeded: int = 0) -> None:
        self._unit, self._seeded = unit, seeded
        self._learned: dict[tuple[bool, int], DraftLength] = {}

    @classmethod
    def of_pair(cls, llm: LogitSource, slm: LogitSource) -> Self:
        """For these two models, in one vocabulary."""
        # Decided without measuring, so that a seed has one answer on every machine.
        pays = bool(llm.parameters and slm.parameters and llm.parameters >= 8 * slm.parameters)
        return cls(max(round(slm.vocabulary.per_token), 1), SEEDED if pays else 0)

    def of(self, sampling: Sampling, rows: int) -> DraftLength:
        """The draft length for answers with these settings, when so many rows are decoded together."""
        if sampling.seed is not None and not sampling.greedy:
            return DraftLength(self._seeded, self._unit)
        key = (sampling.greedy, rows.bit_length())
        return self._learned.setdefault(key, DraftLength(unit=self._unit))
