"""Time every design on every batch, in turn, in one process."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

from purify_hooks.evaluation.bench.designs import Design, Stopwatch, WritingTask
from purify_hooks.evaluation.bench.models import BenchModels, Ids
from purify_hooks.evaluation.bench.settings import Clock, Progress
from purify_hooks.evaluation.eval.statistics import Spread, rotated, spread
from purify_plugins.errors import PurifyError

STEPS = 24
"""Single-token steps of each model whose median is taken."""


class DesignTime(NamedTuple):
    """Seconds of one design for one batch, and for its first token."""

    round: int
    seconds: float
    first: float | None


DesignTimes = Mapping[str, Sequence[DesignTime]]
"""Design -> times."""


def warm(designs: Mapping[str, Design], task: WritingTask) -> None:
    """Run every design once untimed: libraries load, caches fill, draft lengths adapt."""
    for design in designs.values():
        design(task, Stopwatch())


def time_rounds(
    designs: Mapping[str, Design],
    rounds: Iterable[Sequence[Sequence[Ids]]],
    tokens: int,
    temperature: float,
    progress: Progress,
    clock: Clock = perf_counter,
) -> DesignTimes:
    """Run every design on every batch; the order rotates from batch to batch."""
    laps: dict[str, list[DesignTime]] = {name: [] for name in designs}
    turn = 0
    for at, batches in enumerate(rounds):
        for batch in batches:
            for name in rotated(list(designs), turn):
                progress(f"round {at + 1}: {name}")
                task = WritingTask(batch, tokens, temperature)
                laps[name].append(lap(designs[name], name, at, task, clock))
            turn += 1
    return laps


def lap(design: Design, name: str, number: int, task: WritingTask, clock: Clock = perf_counter) -> DesignTime:
    """Time one design on one batch. Raises PurifyError unless it generated the requested number of tokens."""
    watch = Stopwatch(clock)
    answers = design(task, watch)
    seconds = watch.seconds
    lengths = {len(answer) for answer in answers}
    if lengths != {task.tokens}:
        written = f"{name} wrote {sorted(lengths)} tokens instead of {task.tokens}"
        raise PurifyError(f"{written}; designs that write unequal answers cannot be compared")
    return DesignTime(number, seconds, watch.first)


def faster(laps: DesignTimes, design: str, than: str) -> Spread | None:
    """How many times the speed of `than` a design reaches; None unless both ran.

    The ratio of their median rounds, so that it is the quotient of the two speeds that stand beside it;
    the quartiles are the design's own rounds against that median.
    """
    if not (design in laps and than in laps):
        return None
    ours, theirs = spread(by_round(laps[design])), median(by_round(laps[than]))
    return Spread(theirs / ours.high, theirs / ours.middle, theirs / ours.low)


def by_round(laps: Sequence[DesignTime]) -> list[float]:
    """Seconds a round."""
    rounds = sorted({lap.round for lap in laps})
    return [sum(lap.seconds for lap in laps if lap.round == number) for number in rounds]


def per_second(laps: Sequence[DesignTime], units: float) -> float:
    """Units a second in a design's median round, at `units` a batch."""
    rounds = by_round(laps)
    return units * len(laps) / len(rounds) / median(rounds)


def first_token(laps: Sequence[DesignTime]) -> float | None:
    """The median time to the first token in seconds; None if the design does not report it."""
    known = [lap.first for lap in laps if lap.first is not None]
    return median(known) if known else None


def cost_ratio(models: BenchModels, prompts: Sequence[Ids], clock: Clock, steps: int = STEPS) -> float:
    """The median time of a single-token step of the SLM over the LLM's, taken in turn."""
    llm, _ = models.llm.open(prompts)
    slm, _ = models.slm.open(prompts)
    with llm, slm:
        times = [(step(slm, len(prompts), clock), step(llm, len(prompts), clock)) for _ in range(steps)]
    small, large = zip(*times, strict=True)
    return float(median(small) / median(large))


def step(session: Any, rows: int, clock: Clock) -> float:
    """Seconds of one single-token step."""
    import torch

    token = torch.ones((rows, 1), dtype=torch.long)
    began = clock()
    session.extend(token)
    return clock() - began
