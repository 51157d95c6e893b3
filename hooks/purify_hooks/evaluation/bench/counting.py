"""A purifier that counts draft-and-verify cycles and accepted tokens."""

from __future__ import annotations

import sys
from typing import Any

from purify_plugins.decode.draft_length import CycleClock, DraftLength, DraftLengths, clock_for
from purify_plugins.purifier import Purifier
from purify_plugins.sampling import Sampling


class DraftCounts(DraftLength):
    """A draft length that also counts passes of the LLM, drafted and accepted tokens."""

    def __init__(self, fixed: int | None, unit: int, clock: CycleClock) -> None:
        super().__init__(fixed, unit, clock=clock)
        self.reset()

    def reset(self) -> None:
        """Reset the counts; the adapted draft length stays."""
        self.cycles = self.drafted = 0
        self.looked = self.accepted = 0.0

    def timed(self, length: int) -> Any:
        self.cycles += 1
        self.drafted = length
        return super().timed(length)

    def length(self, remaining: int = sys.maxsize) -> int:
        return min(remaining, super().length(remaining))  # a fixed length, too

    def observe(self, position: int, tried: float, accepted: float) -> None:
        if position < self.drafted:  # else nothing was drafted there, and it is an estimate
            self.looked += tried
            self.accepted += accepted
        super().observe(position, tried, accepted)

    @property
    def share(self) -> float | None:
        """The acceptance rate of drafted tokens; None without drafts."""
        return self.accepted / self.looked if self.looked else None


class CountedLengths(DraftLengths):
    """One draft length for each mode."""

    def __init__(self, fixed: int | None, unit: int, clock: CycleClock) -> None:
        super().__init__(unit)
        self.counts = {greedy: DraftCounts(fixed, unit, clock) for greedy in (True, False)}

    def of(self, sampling: Sampling, rows: int, seeded: bool) -> DraftLength:
        return self.counts[sampling.greedy]


class Counting(Purifier):
    """A purifier with one draft length for each mode; `fixed` pins how many tokens are drafted."""

    draft_lengths: CountedLengths

    def __init__(self, *args: Any, fixed: int | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        unit = max(round(self.vocabulary.per_token), 1)
        lengths = CountedLengths(fixed, unit, clock_for(self.llm, self.slm))
        vars(self).update(draft_lengths=lengths)
