"""The length of a draft: near the best whatever cycles cost, and whatever is kept."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence

import pytest

from purify_plugins.decode import draft_length as module
from purify_plugins.decode.cycle_times import CycleTimes
from purify_plugins.decode.draft_length import LONGEST, DraftLength, DraftLengths
from purify_plugins.sampling import Sampling
from purify_plugins.sources.batching import batching
from purify_plugins.testing import ToySource, letters
from tests.toys import both

STEPS: dict[str, Callable[[int], float]] = {
    "flat": lambda n: 1.0 + 0.02 * (n - 1),
    "a step to two": lambda n: 1.0 if n < 2 else 1.55 + 0.03 * n,
    "a step to four": lambda n: 1.0 + 0.04 * n if n < 4 else 1.5 + 0.03 * n,
    "three dearer than four": lambda n: (1.0, 1.15, 1.6, 1.4, 1.5, 1.6)[min(n, 6) - 1] + 0.03 * n,
    "one dearer than four": lambda n: (1.0, 1.15, 0.95, 0.9)[min(n, 4) - 1] + 0.02 * n,
    "as dear as one by one": lambda n: float(n),
}
"""What a pass of the LLM over n tokens costs, in passes over one."""
RATIOS = (0.05, 0.15, 0.33, 0.66, 1.0)
"""What a step of the SLM costs, in passes of the LLM."""
COLUMN = 0.04
"""What one more verified column costs."""


class World:
    """A machine with a clock of its own; a drafted token is accepted with probability `share`.

    `llm` is the cost of a pass by its tokens, `slm` that of a step of the SLM.
    """

    def __init__(self, llm: Callable[[int], float], share: float, slm: float = 0.05, seed: int = 0) -> None:
        self.llm, self.share, self.slm, self.now = llm, share, slm, 0.0
        self.random = random.Random(seed)

    def cycle(self, pace: DraftLength, load: float = 1.0) -> int:
        """Let the pace choose one cycle's length; everything takes `load` times what it should."""
        with pace.timed(pace.length()) as length:
            for _ in range(max(length, 1)):
                with pace.stepping():
                    self.now += load * self.slm
            self.now += load * (self.llm(length + 1) + COLUMN)
            kept = next((n for n in range(length) if self.random.random() >= self.share), length)
            varying = load * (kept * COLUMN + self.slm * (kept == length > 0))
            self.now += varying
            pace.verified(kept + 1, varying)
        for at in range(min(kept + 1, length)):
            pace.observe(at, 1, int(at < kept))
        if kept == length:
            pace.observe(length, 1, self.share)
        return length

    def cost(self, length: int) -> float:
        """What a cycle of this length costs on average."""
        more = sum(self.share**n for n in range(1, length + 1)) * COLUMN
        bonus = self.share**length if length else 0.0
        return (max(length, 1) + bonus) * self.slm + self.llm(length + 1) + COLUMN + more

    def tokens(self, length: int) -> float:
        return sum(self.share**n for n in range(length + 1))

    def speed(self, lengths: Sequence[int]) -> float:
        """Tokens a second of cycles of these lengths, on average."""
        return sum(map(self.tokens, lengths)) / sum(map(self.cost, lengths))

    def best(self) -> float:
        """What the best fixed length reaches; 0 is lockstep."""
        return max(self.speed([length]) for length in range(LONGEST + 1))


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> Callable[[World], World]:
    """Makes a world's clock the one that cycles are timed by."""

    def use(world: World) -> World:
        monkeypatch.setattr(module.time, "perf_counter", lambda: world.now)
        return world

    return use


@pytest.mark.parametrize("slm", RATIOS)
@pytest.mark.parametrize("llm", STEPS)
@pytest.mark.parametrize("share", [0.1, 0.4, 0.6, 0.8, 0.95])
def test_the_adaptive_length_is_within_five_percent_of_the_best_fixed_one(
    llm: str, share: float, slm: float, at_once: Callable[[World], World]
) -> None:
    """From the first cycle on; length 0 is lockstep. The machine is uneven, and busy at first."""
    world, pace = at_once(World(STEPS[llm], share, slm)), DraftLength()
    lengths = [world.cycle(pace, 4.0 if at < 1 else world.random.uniform(1.0, 1.1)) for at in range(400)]
    assert world.speed(lengths) > 0.95 * world.best()


@pytest.mark.parametrize("slm", RATIOS)
def test_where_drafts_cannot_pay_hardly_any_token_is_drafted(
    slm: float, at_once: Callable[[World], World]
) -> None:
    """A pass over two tokens costs what two passes cost."""
    world, pace = at_once(World(STEPS["as dear as one by one"], 0.3, slm)), DraftLength()
    lengths = [world.cycle(pace) for _ in range(60)]
    assert sum(map(bool, lengths)) <= 4
    assert not any(lengths[:2])


def test_drafts_end_soon_after_text_that_no_draft_fits_begins(at_once: Callable[[World], World]) -> None:
    world, pace = at_once(World(STEPS["a step to two"], 0.9, 0.33)), DraftLength()
    for _ in range(100):
        world.cycle(pace)
    assert pace.best() >= 2
    world.share = 0.0
    lengths = [world.cycle(pace) for _ in range(120)]
    assert sum(map(bool, lengths[40:])) <= 8


def test_a_later_place_of_a_draft_has_a_share_of_its_own() -> None:
    pace = DraftLength()
    for _ in range(300):
        with pace.timed(2):
            pace.observe(0, 4, 4)
            pace.observe(1, 4, 0)
    assert pace.tokens()[:3] == pytest.approx([1.0, 2.0, 2.0], abs=0.1)


def test_a_fixed_length_stays() -> None:
    world, pace = World(STEPS["flat"], 0.1), DraftLength(fixed=4)
    assert {world.cycle(pace) for _ in range(50)} == {4}


def test_drafts_in_symbols_are_counted_in_tokens_too(at_once: Callable[[World], World]) -> None:
    """Four symbols to a token: the mean of the cycles' times counts, since not all need a pass of the LLM."""
    world, pace = at_once(World(lambda n: 1.0 + 0.01 * n, 0.9, 0.01)), DraftLength(unit=4)
    lengths = [world.cycle(pace) for _ in range(300)]
    assert 0 in lengths[:2]
    assert world.speed([pace.best()]) > 0.95 * world.best()
    assert DraftLength(3, unit=4).length() == 12


@pytest.mark.parametrize("slm", RATIOS)
def test_two_short_answers_are_nearly_as_fast_as_the_best_length_writes_them(
    slm: float, at_once: Callable[[World], World]
) -> None:
    """Of 48 tokens each, after another; by the lengths chosen, not by what luck accepted: 20 pairs."""
    shares = []
    for seed in range(20):
        world, pace = at_once(World(STEPS["flat"], 0.6, slm, seed)), DraftLength()
        lengths: list[list[int]] = [[], [], []]
        for answer in lengths:
            while sum(map(world.tokens, answer)) < 48:
                answer.append(world.cycle(pace))
        shares.append(world.speed([*lengths[1], *lengths[2]]) / world.best())
    assert sum(shares) / len(shares) > 0.95


def test_answers_too_short_for_a_draft_teach_nothing_and_break_nothing() -> None:
    pace = DraftLength()
    for _ in range(20):
        with pace.timed(pace.length(0)) as length:
            assert length == 0
    assert pace.length(8) > 0


def test_where_this_thread_computes_the_passes_its_own_time_counts() -> None:
    """What other processes take of the machine then teaches nothing. Another's pass is timed by the wall."""
    llm, slm = both()
    toy = ToySource(letters("ab"), 1, 2)
    clocks = {
        DraftLengths.of_pair(*pair).of(Sampling(), 1, seeded=False).clock
        for pair in ((batching(llm), slm), (llm, batching(slm)), (toy, toy))
    }
    assert clocks == {time.perf_counter}
    assert DraftLengths.of_pair(llm, slm).of(Sampling(), 1, seeded=False).clock is time.thread_time


def test_answers_of_several_threads_are_timed_apart(at_once: Callable[[World], World]) -> None:
    """One cycle ends inside another's: each has its own columns, and what they took."""
    world, pace = at_once(World(STEPS["flat"], 0.5)), DraftLength()
    with pace.timed(2):
        world.now += 1.0
        other = threading.Thread(target=world.cycle, args=(pace,))
        other.start()
        other.join()
        spent = world.now
        world.now += 0.5
        pace.verified(3, world.now - spent)
    assert pace.times._typically[2] == pytest.approx(spent)


@pytest.mark.parametrize("unit", [1, 4])
def test_a_thread_may_time_a_cycle_while_another_one_averages(unit: int) -> None:
    """`mean` of a deque that another thread appended to was a RuntimeError, and the answer's end."""
    times = CycleTimes(unit)

    class Meanwhile(float):
        """A time during whose addition another one comes in."""

        def as_integer_ratio(self) -> tuple[int, int]:
            times.step(1.0)
            return super().as_integer_ratio()

    for _ in range(3):
        times.step(Meanwhile(0.5))
    times.add(2, 3.0, 3, 1.0)
    assert times.expected([1.0, 0.5, 0.25])


def test_time_in_which_the_thread_waits_is_none() -> None:
    length = DraftLength(clock=time.thread_time)
    with length.timed(0), length.stepping():
        time.sleep(0.05)
    assert 0 < length.seconds()[0] < 0.04
