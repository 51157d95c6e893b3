"""A purifier that counts its cycles."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from purify_plugins.decode.draft_length import Pace
from purify_plugins.purifier import Purifier

if TYPE_CHECKING:
    from purify_plugins.sampling import Sampling


class Counts(Pace):
    """A pace that also knows how often the LLM was asked and what became of the drafts."""

    def __init__(self, fixed: int | None = None, unit: int = 1) -> None:
        super().__init__(fixed, unit)
        self.reset()

    def reset(self) -> None:
        """Count from here; what was learned stays learned."""
        self.cycles = self.looked = self.accepted = 0

    def timed(self, length: int) -> Any:
        self.cycles += 1
        return super().timed(length)

    def length(self, room: int = sys.maxsize) -> int:
        return min(room, super().length(room))  # a fixed length, too, drafts only what there is room for

    def saw(self, place: int, tried: int, kept: int) -> None:
        self.looked += tried
        self.accepted += kept
        super().saw(place, tried, kept)

    @property
    def share(self) -> float | None:
        """Drafted tokens kept, of those looked at; None without drafts."""
        return self.accepted / self.looked if self.looked else None


class Counting(Purifier):
    """A purifier with one pace for each mode; `fixed` pins how many tokens are drafted."""

    def __init__(self, *args: Any, fixed: int | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        unit = max(round(self.vocabulary.per_token), 1)
        self.counts = {greedy: Counts(fixed, unit) for greedy in (True, False)}

    def pace(self, sampling: Sampling, rows: int) -> Pace:
        return self.counts[sampling.greedy]
