"""The time of a draft-and-verify cycle by its draft's length: measured, or bounded by what was measured."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Sequence
from itertools import accumulate
from statistics import mean

import numpy

LATEST = 9
"""How many of the latest times count."""


class CycleTimes:
    """The times (s) of cycles by draft length, and of their parts.

    A cycle is the SLM's steps and one pass of the LLM, which every cycle of that length takes, and what
    depends on the tokens accepted: a column is verified for each, and after a whole draft the SLM reads its
    last token. `unit` is as in DraftLength.
    """

    # With one tokenizer load alone makes a part slower, so the least of its latest times counts. A draft in
    # smaller symbols is read only as far as it is accepted, and some cycles need no pass of the LLM: their
    # mean counts. Answers of several threads are timed together: what is averaged is copied first, since a
    # deque that another thread appends to meanwhile raises RuntimeError.

    def __init__(self, unit: int = 1) -> None:
        self._typical: Callable[[Collection[float]], float] = mean if unit > 1 else min
        self._unit, self._latest = unit, LATEST * unit
        self._cycles: dict[int, deque[float]] = {}
        self._steps: deque[float] = deque(maxlen=self._latest)
        self._columns: deque[float] = deque(maxlen=self._latest)
        self._typically: dict[int, float] = {}  # of each length's cycles, without what varies
        self.counts: Counter[int] = Counter()
        """How many cycles of each length were timed."""

    def step(self, seconds: float) -> None:
        """Add the time of one step of the SLM."""
        self._steps.append(seconds)

    def add(self, length: int, seconds: float, columns: int, varying: float) -> None:
        """Add a cycle: its time, the columns verified, and the time of what followed the first of them."""
        self.counts[length] += 1
        latest = self._cycles.setdefault(length, deque(maxlen=self._latest))
        latest.append(seconds - varying)
        self._typically[length] = self._typical(tuple(latest))
        if columns > 1 and varying:
            bonus = self._slm if columns == length + 1 else 0.0
            self._columns.append(max(varying - bonus, 0.0) / (columns - 1))

    @property
    def _slm(self) -> float:
        return self._typical(tuple(self._steps)) if self._steps else 0.0

    def expected(self, reached: Sequence[float]) -> list[float]:
        """The time of a cycle of each length, of which column n is verified with probability `reached[n]`."""
        column = self._typical(tuple(self._columns)) if self._columns else 0.0
        bonus = self._slm if self._columns else 0.0
        columns = [0.0, *accumulate(reached[1:])]
        found = [
            time + many * column + last * bonus
            for time, many, last in zip(self._without_tokens(len(reached)), columns, reached, strict=True)
        ]
        return [found[0] - bonus, *found[1:]]  # without a draft every step of the SLM is counted already

    def _without_tokens(self, lengths: int) -> list[float]:
        """The time of a cycle of each length below `lengths`, without what its accepted tokens take.

        It is interpolated between lengths that were timed. Beyond them each token adds a step of the SLM, or
        half of what those before it add on average: a pass of the LLM over two tokens may take longer than
        over one, and over three hardly longer than over two.
        """
        timed = sorted(self._typically.items())
        if not timed:
            return [0.0] * lengths
        (first, low), (last, high) = timed[0], timed[-1]
        rise = max((high - low) / max(last - first, 1) / 2, self._slm * self._unit)
        at, times = zip(*timed, (last + lengths, high + rise * lengths), strict=True)
        return [float(time) for time in numpy.interp(numpy.arange(lengths), at, times)]
