"""How long a draft should be: what cycles cost is measured, what they yield is counted."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

LONGEST = 16
FIRST = (3, 0, 6)
"""Lengths tried before anything is known: two that draft, one that does not."""
SEEDED = 3
"""The length for answers drawn from a seed."""
REMEMBERED = 200
"""Drafted tokens whose fate still counts."""


class Pace:
    """Chooses how many tokens the SLM drafts before the LLM reads them; 0 is lockstep.

    A length's worth is the tokens a cycle yields, 1 + a + … + a^n for a share `a` of drafted tokens
    kept, over the seconds it takes. With `fixed` the length never changes: answers drawn from a
    seed must not depend on how busy a machine is. Choosing a length never looks at a token.
    """

    def __init__(self, fixed: int | None = None) -> None:
        self.fixed = fixed
        self.kept, self.tried = 7.0, 10.0
        self._seconds: dict[int, deque[float]] = {}

    @property
    def acceptance(self) -> float:
        """The share of drafted tokens that were kept, of those that were looked at."""
        return self.kept / self.tried

    def length(self, room: int = LONGEST) -> int:
        """How many tokens to draft next; a fixed length also draws what there is no room for."""
        if self.fixed is not None:
            return self.fixed
        untried = next((length for length in FIRST if length not in self._seconds), None)
        return min(room, max(range(LONGEST + 1), key=self.worth) if untried is None else untried)

    def worth(self, length: int) -> float:
        """Tokens a second, as far as is known."""
        tokens = sum(self.acceptance**n for n in range(length + 1))
        return tokens / self.seconds(length)

    def seconds(self, length: int) -> float:
        """What a cycle of this length takes: measured, or on the line through the nearest two measured."""
        if length in self._seconds:
            return median(self._seconds[length])
        known = sorted(sorted(self._seconds, key=lambda other: abs(other - length))[:2])
        low, high = (median(self._seconds[n]) for n in known)
        slope = max(high - low, 0.0) / (known[1] - known[0])
        return low + slope * (length - known[0])

    @contextmanager
    def timed(self, length: int) -> Iterator[int]:
        """Time a cycle of `length` drafted tokens."""
        start = time.perf_counter()
        yield length
        self._seconds.setdefault(length, deque(maxlen=9)).append(time.perf_counter() - start)

    def saw(self, tried: int, kept: int) -> None:
        """Count drafted tokens that were looked at, and those of them that were kept."""
        fade = (1 - 1 / REMEMBERED) ** tried
        self.tried, self.kept = fade * self.tried + tried, fade * self.kept + kept
