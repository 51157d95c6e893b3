"""The length of a draft: near the best whatever cycles cost, and whatever is kept."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from purify_plugins.decode import draft_length as module
from purify_plugins.decode.draft_length import LONGEST, DraftLength

COSTS: dict[str, Callable[[int], float]] = {
    "flat": lambda n: 1.0 + 0.05 * n,
    "every token dear": lambda n: 1.0 + 0.7 * n,
    "dearer than lockstep": lambda n: 1.0 + 1.5 * n,
    "three dearer than four": lambda n: (1.0, 1.15, 1.6, 1.4, 1.7, 1.8)[min(n, 5)] + 0.06 * n,
    "a cliff after four": lambda n: (1.0 if n < 5 else 2.0) + 0.06 * n,
}
"""What a cycle costs, in passes of the LLM, by the length of its draft."""


class World:
    """A machine whose clock is ours, and text of which each drafted token is kept with some chance."""

    def __init__(self, cost: Callable[[int], float], share: float) -> None:
        self.cost, self.share, self.now, self.chance = cost, share, 0.0, random.Random(0)

    def cycle(self, pace: DraftLength, luck: float) -> int:
        """Let the pace choose one cycle's length, and see it take `luck` times what it should."""
        with pace.timed(pace.length()) as length:
            kept = next((n for n in range(length) if self.chance.random() >= self.share), length)
            for at in range(min(kept + 1, length)):
                pace.observe(at, 1, int(at < kept))
            self.now += luck * self.cost(length)
        return length

    def speed(self, pace: DraftLength, cycles: int = 1000) -> float:
        """Tokens a second, on average and from the first cycle on; a busy machine spoils the first three."""
        lengths = [
            self.cycle(pace, 4.0 if at < 3 else self.chance.uniform(0.95, 1.05)) for at in range(cycles)
        ]
        return sum(map(self.tokens, lengths)) / sum(map(self.cost, lengths))

    def tokens(self, length: int) -> float:
        return sum(self.share**n for n in range(length + 1))

    def best(self) -> float:
        """What the best fixed length reaches."""
        return max(self.tokens(length) / self.cost(length) for length in range(LONGEST + 1))


@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("share", [0.2, 0.6, 0.8, 0.9])
def test_the_adaptive_length_is_within_five_percent_of_the_best_fixed_one(
    cost: str, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(COSTS[cost], share)
    monkeypatch.setattr(module.time, "perf_counter", lambda: world.now)
    assert world.speed(DraftLength()) > 0.95 * world.best()


def test_a_later_place_of_a_draft_has_a_share_of_its_own() -> None:
    pace = DraftLength()
    for _ in range(300):
        with pace.timed(2):
            pace.observe(0, 4, 4)
            pace.observe(1, 4, 0)
    assert pace.tokens()[:3] == pytest.approx([1.0, 2.0, 2.0], abs=0.1)


def test_a_fixed_length_stays() -> None:
    world = World(COSTS["flat"], 0.1)
    pace = DraftLength(fixed=4)
    for _ in range(50):
        assert world.cycle(pace, 1.0) == 4


def test_drafts_in_symbols_are_whole_units_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four symbols to a token: never a shorter draft, and near the best where each costs a little."""
    world, pace = World(lambda n: 1.0 + 0.02 * n, 0.9), DraftLength(unit=4)
    monkeypatch.setattr(module.time, "perf_counter", lambda: world.now)
    lengths = [world.cycle(pace, 1.0) for _ in range(300)]
    assert all(length and length % 4 == 0 for length in lengths)
    best = max(range(4, 65, 4), key=lambda length: world.tokens(length) / world.cost(length))
    assert abs(pace.best() - best) <= 8
    assert DraftLength(3, unit=4).length() == 12


def test_answers_too_short_for_a_draft_teach_nothing_and_break_nothing() -> None:
    pace = DraftLength()
    for _ in range(20):
        with pace.timed(pace.length(0)) as length:
            assert length == 0
    assert pace.length(8) == 3
