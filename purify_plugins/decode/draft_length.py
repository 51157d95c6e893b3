"""Adaptive draft length: the times of cycles are measured, the accepted tokens are counted."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from operator import mul
from threading import get_ident
from typing import TYPE_CHECKING, Self

from purify_plugins.decode.cycle_times import CycleTimes

if TYPE_CHECKING:
    from purify_plugins.protocols import LogitSource
    from purify_plugins.sampling import Sampling

CycleClock = Callable[[], float]

LONGEST = 16
FIRST = 2
"""Cycles without a draft before any other."""
SEEDED = 2
"""The length for answers drawn from a seed: on a CPU a pass of three tokens is the last cheap one."""
REMEMBERED = 50
"""How many of the latest cycles count in acceptance rates, a little more or less by their age."""
PRIOR = 5
"""The weight, in tokens, of the acceptance rate over all positions in each position's own rate."""
GUESS = (3.5, 5.0)
"""Tokens accepted, and tried, before any was."""
TRYING = 0.02
"""The share of the time that is spent on trying lengths again that are not the best,"""
AT_FIRST = 2
"""and how many more cycles at the start."""


@dataclass
class Cycle:
    """One cycle that is being timed: its draft's `length`, and what `CycleTimes.add` takes."""

    length: int
    columns: int = 1
    varying: float = 0.0


class DraftLength:
    """Chooses how many tokens the SLM drafts before the LLM reads them; 0 is lockstep.

    The best length has the most tokens a second: the expected tokens of a cycle over its expected time. The
    nth drafted token is reached if those before it were accepted, and accepted at its position's rate. The
    time of a length never tried is estimated from the others, so that it is tried where it is likely the
    best, and hardly where it is not. With `fixed` it never changes. `rows` are decoded together. Cycles are
    timed by `clock` (s); None: the wall's.

    Where both models are read in smaller symbols, `unit` of them to one of the LLM's tokens, lengths still
    count tokens (of the SLM: see `DraftSize`), and only a fixed one counts symbols, `unit` for each token.
    """

    # Acceptance is counted without drafts too: where none was drafted, `observe` gets the probability that
    # the SLM's own token would have been accepted. A pair that drafts do not pay for drafts nothing.
    # The time of a cycle is not linear in its length: a pass of four tokens may be faster than one of three.
    # So from time to time lockstep, half the best length and its neighbours are tried again.
    # The choice reads no token and no random number: an LLM that delays its passes at will changes the
    # lengths, and at every length tokens have the same distribution.

    def __init__(
        self, fixed: int | None = None, unit: int = 1, rows: int = 1, clock: CycleClock | None = None
    ) -> None:
        self.clock = time.perf_counter if clock is None else clock
        self.fixed = None if fixed is None else fixed * unit
        self.unit, self.rows = unit, rows
        self.times = CycleTimes(unit)
        self._fates = [(0.0, 0.0)] * (LONGEST + 1)  # (accepted, tried) at each position of a draft
        self._best: int | None = None
        self._cycles: dict[int, Cycle] = {}  # by the thread: several decode with one length
        self._spent = self._trying = 0.0  # seconds: of all cycles, of those that tried a length again

    def length(self, remaining: int = sys.maxsize) -> int:
        """How many tokens to draft next, at most `remaining`; a fixed length is not limited."""
        if self.fixed is not None:
            return self.fixed
        return min(remaining, 0 if self.times.counts[0] < FIRST else self._chosen())

    def _chosen(self) -> int:
        """The best length, or one to try again while the time for that is not used up."""
        tokens, seconds = self.tokens(), self.seconds()
        self._best = best = self._fastest(tokens, seconds)
        if self._trying > TRYING * self._spent + AT_FIRST * seconds[best]:
            return best
        around = [length for length in (best, 0, best - 1, best + 1, best // 2) if 0 <= length <= LONGEST]
        return min(around, key=lambda length: self.times.counts[length])

    def best(self) -> int:
        """The length with the most expected tokens a second."""
        return self._fastest(self.tokens(), self.seconds())

    def _fastest(self, tokens: Sequence[float], seconds: Sequence[float]) -> int:
        # A length far beyond what was timed is not tried at once: it may cost many times as much.
        longest = min(2 * max(self.times.counts, default=0) + 2, LONGEST)
        return max(
            range(longest + 1), key=lambda length: tokens[length] / max(seconds[length], sys.float_info.min)
        )

    def tokens(self) -> list[float]:
        """The expected tokens of a cycle of each length: one, and each drafted one by its acceptance rate."""
        return list(accumulate(self.reached()))

    def reached(self) -> list[float]:
        """The probability that a row reaches each position of a draft: that all before it are accepted."""
        accepted = GUESS[0] + sum(kept for kept, _ in self._fates)
        share = PRIOR * accepted / (GUESS[1] + sum(tried for _, tried in self._fates))
        shares = ((kept + share) / (tried + PRIOR) for kept, tried in self._fates[:-1])
        return list(accumulate(shares, mul, initial=1.0))

    def seconds(self) -> list[float]:
        """The expected time of a cycle of each length (s), or the least it may be."""
        reached = self.reached()
        if self.rows > 1:  # a column is verified if any row reaches it
            reached = [1 - (1 - each) ** self.rows for each in reached]
        return self.times.expected(reached)

    @contextmanager
    def timed(self, length: int) -> Iterator[int]:
        """Time a cycle of `length` drafted tokens."""
        self._cycles[get_ident()] = cycle = Cycle(length)
        known, start = self.times.counts[length], self.clock()
        try:
            yield length
        finally:
            self._cycles.pop(get_ident(), None)
        seconds = self.clock() - start
        self.times.add(length, seconds, cycle.columns, cycle.varying)
        self._spent += seconds
        self._trying += seconds if known and self._best not in (None, length) else 0.0

    @contextmanager
    def stepping(self) -> Iterator[None]:
        """Time one step of the SLM."""
        start = self.clock()
        yield
        self.times.step(self.clock() - start)

    def verified(self, columns: int, seconds: float) -> None:
        """Of the cycle that is being timed: the columns verified, and the time of those after the first."""
        if (cycle := self._cycles.get(get_ident())) is not None:  # a first token has none
            cycle.columns, cycle.varying = columns, seconds

    def observe(self, position: int, tried: float, accepted: float) -> None:
        """Count the drafted tokens that were tried at this position, and those that were accepted."""
        if position == 0:  # which every cycle looks at
            fade = (1 - 1 / REMEMBERED) ** (tried / self.rows)
            self._fates = [(fade * kept, fade * looked) for kept, looked in self._fates]
        kept, looked = self._fates[position]
        self._fates[position] = kept + accepted, looked + tried


class DraftLengths:
    """The draft lengths learned for one pair of models, per mode and size of batch.

    `unit` and `clock` are as in DraftLength; `seeded` is the fixed length for answers drawn from a seed.
    """

    def __init__(self, unit: int = 1, seeded: int = 0, clock: CycleClock | None = None) -> None:
        self._unit, self._seeded, self._clock = unit, seeded, clock
        self._learned: dict[tuple[bool, int], DraftLength] = {}

    @classmethod
    def of_pair(cls, llm: LogitSource, slm: LogitSource) -> Self:
        """For these two models, in one vocabulary."""
        # Decided without measuring, so that a seed has one answer on every machine.
        pays = bool(llm.parameters and slm.parameters and llm.parameters >= 8 * slm.parameters)
        return cls(max(round(slm.vocabulary.per_token), 1), SEEDED if pays else 0, clock_for(llm, slm))

    def of(self, sampling: Sampling, rows: int, seeded: bool) -> DraftLength:
        """The draft length for answers with these settings, when so many rows are decoded together.

        `seeded`: some row draws from a seed.
        """
        if seeded and not sampling.greedy:
            return DraftLength(self._seeded, self._unit)
        key = (sampling.greedy, rows.bit_length())
        length = DraftLength(unit=self._unit, rows=rows, clock=self._clock)
        return self._learned.setdefault(key, length)


def clock_for(llm: LogitSource, slm: LogitSource) -> CycleClock:
    """The CPU time of this thread where it computes both models' passes, else the wall's clock.

    On a machine that others use too, only the CPU time says which draft length is the best.
    """
    return time.thread_time if llm.in_thread and slm.in_thread else time.perf_counter
