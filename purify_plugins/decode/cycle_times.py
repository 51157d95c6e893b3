"""The time of a draft-and-verify cycle by its draft's length: measured, or bounded by what was measured."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Sequence
from statistics import mean

LATEST = 9
"""How many of the latest times count."""


class CycleTimes:
    """The times (s) of cycles by draft length, and of their parts.

    A cycle is the SLM's steps and one pass of the LLM, which every cycle of that length takes, and what
    depends on the tokens accepted: a column is verified for each, and after a whole draft the SLM reads its
    last token. `unit` is as in DraftLength.
    """

    # With one tokenizer load alone makes a part slower, so the least of its latest times counts. A draft in
    # smaller symbols is read only as far as it is accepted, and many cycles need no pass of the LLM: their
    # mean counts.

    def __init__(self, unit: int = 1) -> None:
        self._typical: Callable[[Collection[float]], float] = mean if unit > 1 else min
        self._latest = LATEST * unit
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
        self._typically[length] = self._typical(latest)
        if columns > 1 and varying:
            bonus = self._slm if columns == length + 1 else 0.0
            self._columns.append(max(varying - bonus, 0.0) / (columns - 1))

    @property
    def _slm(self) -> float:
        return self._typical(self._steps) if self._steps else 0.0

    def expected(self, reached: Sequence[float]) -> list[float]:
        """The time of a cycle of each length, of which column n is verified with probability `reached[n]`.

        One never timed takes at least what the longest timed below it takes, and the SLM's steps beyond that.
        """
        found, measured, columns, slm = [], 0.0, 0.0, self._slm
        column = self._typical(self._columns) if self._columns else 0.0
        for length, probability in enumerate(reached):
            # Without a draft the SLM reads one token, and before a draft of one token too.
            measured = self._typically.get(length, measured + (slm if length > 1 else 0.0))
            columns += probability if length else 0.0
            bonus = probability * slm if length and self._columns else 0.0
            found.append(measured + columns * column + bonus)
        return found
