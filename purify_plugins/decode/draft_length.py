"""How long a draft should be: what cycles cost is measured, what they yield is counted."""

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
"""Lengths tried, twice, before anything is known: two that draft, one that does not."""
SEEDED = 3
"""The length for answers drawn from a seed."""
REMEMBERED = 200
"""Drafted tokens whose fate still counts, at each place of a draft."""
PRIOR = 10
"""Tokens' worth of all places' share that each place's own begins with."""
TRYING = 0.02
"""The share of the time that is given to lengths beside the best one,"""
AT_FIRST = 8
"""and how many cycles' time more, when little is known."""


class DraftLength:
    """Chooses how many tokens the SLM drafts before the LLM reads them; 0 is lockstep.

    A length's worth is the tokens a cycle yields over the seconds it takes. The nth drafted token is
    reached if those before it were kept, and is kept as often as that place's tokens are. What a cycle
    costs is not a line: a pass of four tokens may be faster than one of three. So the neighbours of the
    best length are tried too, and again from time to time.

    With `fixed` the length never changes: answers drawn from a seed must not depend on how busy a
    machine is. Choosing a length never looks at a token, nor at a number that has not been used: an LLM
    whose passes take longer where it likes moves the lengths, and at every length the law is the same.

    Where tokens are smaller than the LLM's own, `unit` of them to one of its, lengths are whole units,
    one at least: such a draft is read only as far as it is kept. Many a cycle then needs no pass, so what
    one costs is their mean.
    """

    def __init__(self, fixed: int | None = None, unit: int = 1) -> None:
        self.fixed = None if fixed is None else fixed * unit
        self.unit, self._least = unit, unit if unit > 1 else 0
        self.first = tuple(max(unit * length, self._least) for length in FIRST)
        self._typical: Callable[[Collection[float]], float] = mean if unit > 1 else min
        self._fates = [(0.0, 0.0)] * LONGEST * unit  # (kept, tried) at each place of a draft
        self._seconds: dict[int, deque[float]] = {}
        self._times: Counter[int] = Counter()
        self._best: int | None = None  # nothing is known yet
        self._spent = self._trying = 0.0  # seconds: of all cycles, of those at lengths not thought best

    def length(self, room: int = sys.maxsize) -> int:
        """How many tokens to draft next; a fixed length also draws what there is no room for."""
        if self.fixed is not None:
            return self.fixed
        rarest = min(self.first, key=lambda length: self._times[length])
        return min(room, self._chosen() if self._times[rarest] >= 2 else rarest)

    def _chosen(self) -> int:
        """The length worth most, or a neighbour of it while there is time for trying."""
        self._best = self.best()
        if self._trying > TRYING * self._spent + AT_FIRST * self.seconds(self._best):
            return self._best
        around = [self._best + step for step in (-self.unit, self.unit)]
        around = [length for length in around if self._least <= length <= LONGEST * self.unit]
        return min(around, key=lambda length: self._times[length])

    def best(self) -> int:
        """The length whose cycles give the most tokens a second, as far as is known."""
        tokens = self.tokens()
        lengths = range(self._least, len(tokens), self.unit)
        return max(lengths, key=lambda length: tokens[length] / self.seconds(length))

    def tokens(self) -> list[float]:
        """What a cycle of each length yields: a token, and each drafted one as likely as it is kept."""
        kept, tried = (sum(column) for column in zip((7.0, 10.0), *self._fates, strict=True))
        shares = ((here + PRIOR * kept / tried) / (looked + PRIOR) for here, looked in self._fates)
        return list(accumulate(accumulate(shares, mul, initial=1.0)))

    def seconds(self, length: int) -> float:
        """What a cycle of this length takes: measured, or on the line through the nearest two measured.

        The least of the last few times: whatever else a machine does can only make a cycle slower.
        """
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

    def observe(self, place: int, tried: int, kept: int) -> None:
        """Count the tokens looked at, at this place of the draft, and those of them that were kept."""
        fade = (1 - 1 / REMEMBERED) ** tried
        before = self._fates[place]
        self._fates[place] = fade * before[0] + kept, fade * before[1] + tried


class DraftLengths:
    """What one pair of models has learned of its draft lengths: per mode and size of batch.

    `unit` is as in DraftLength; `seeded` is the fixed length for answers drawn from a seed.
    """

    def __init__(self, unit: int = 1, seeded: int = 0) -> None:
        self._unit, self._seeded = unit, seeded
        self._learned: dict[tuple[bool, int], DraftLength] = {}

    @classmethod
    def of_pair(cls, llm: LogitSource, slm: LogitSource) -> Self:
        """Of these two models, which meet in one vocabulary."""
        # Whether drafting surely pays is known without measuring, so that a seed means one answer.
        pays = bool(llm.parameters and slm.parameters and llm.parameters >= 8 * slm.parameters)
        return cls(max(round(slm.vocabulary.per_token), 1), SEEDED if pays else 0)

    def of(self, sampling: Sampling, rows: int) -> DraftLength:
        """The draft length for such answers, when so many rows are decoded together."""
        if sampling.seed is not None and not sampling.greedy:
            return DraftLength(self._seeded, self._unit)
        key = (sampling.greedy, rows.bit_length())
        return self._learned.setdefault(key, DraftLength(unit=self._unit))
