"""A purifier that counts its cycles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from purify_plugins.decode.pace import LONGEST, Pace
from purify_plugins.purifier import Purifier

if TYPE_CHECKING:
    from purify_plugins.types import Sampling


class Counts(Pace):
    """A pace that also knows how often the LLM was asked and what became of the drafts."""

    def __init__(self, fixed: int | None = None) -> None:
        super().__init__(fixed)
        self.reset()

    def reset(self) -> None:
        """Count from here; what was learned stays learned."""
        self.cycles = self.looked = self.accepted = 0

    def timed(self, length: int) -> Any:
        self.cycles += 1
        return super().timed(length)

    def length(self, room: int = LONGEST) -> int:
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
        self.counts = {greedy: Counts(fixed) for greedy in (True, False)}

    def pace(self, sampling: Sampling, rows: int) -> Pace:
        return self.counts[sampling.greedy]
