"""Races: all systems timed in turns, in one process, by one clock; what they took is kept in the cache."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from purify_hooks.evaluation.eval.results_cache import Cell, ResultsCache, code
from purify_hooks.evaluation.eval.statistics import Sample, rotated
from purify_plugins.canonical_json import canonical

if TYPE_CHECKING:
    from purify_plugins.purifier import Purifier

Clock = Callable[[], float]
Laps = Mapping[str, Sequence[float]]
"""Seconds of every system, by its key."""


def in_turns(
    writers: Mapping[str, Purifier],
    lap: Callable[[Purifier], Sequence[float]],
    rounds: int,
    longest: float = math.inf,
) -> dict[str, list[float]]:
    """Time every system, once at least, after a round to warm up; each round starts with another system.

    `lap` returns the seconds of one turn. No round begins after `longest` seconds.
    """
    laps: dict[str, list[float]] = {key: [] for key in writers}
    start = time.monotonic()
    for turn in range(-1, rounds):
        if turn > 0 and time.monotonic() - start > longest:
            break
        for key in rotated(list(writers), max(turn, 0)):
            seconds = lap(writers[key])
            laps[key] += seconds if turn >= 0 else ()
    return laps


def race(
    cache: ResultsCache,
    about: Mapping[str, Any],
    suite: str,
    clock: str,
    run: Callable[[Clock], Laps],
    begin: Callable[[], None] | None,
) -> Laps | None:
    """The laps of the race `about` these figures of a suite: the cache's, else new ones, by this clock.

    None: there are none, and none are measured, as `begin`, which is called before a race, is None.
    """
    from purify_hooks.evaluation.bench.settings import CLOCKS
    from purify_hooks.evaluation.bench.vocabulary import threads

    body = {**about, "clock": clock, "turns": code(__name__)}
    key = hashlib.sha256(canonical(body).encode()).hexdigest()
    if key not in cache.cells:
        if begin is None:
            return None
        begin()
        start = time.process_time()
        with threads(1 if clock == "cpu" else None):  # the CPU time of several threads is no time that passes
            laps = run(CLOCKS[clock])
        seconds = round(time.process_time() - start, 2)
        samples = {name: [Sample(lap) for lap in each] for name, each in laps.items()}
        cache.add(Cell(key, "all", suite, "raced", seconds, samples))
    kept = cache.cells[key].samples
    return {name: [sample.value for sample in each] for name, each in kept.items()}
