"""The speed of each system: all systems in turn, in one process, by one clock."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from purify_hooks.evaluation.eval.results_cache import Cell, ResultsCache, code
from purify_hooks.evaluation.eval.statistics import Estimate, Sample, rotated, spread
from purify_plugins.canonical_json import canonical

if TYPE_CHECKING:
    from purify_hooks.evaluation.eval.model_pair import ModelPair
    from purify_hooks.evaluation.eval.run import Plan, Progress, Result
    from purify_hooks.evaluation.eval.systems import System
    from purify_plugins.purifier import Purifier

ROUNDS = 7
"""Timed rounds, after a warm-up round in which libraries load and draft lengths adapt."""
LONGEST = 60
"""Seconds after which no other round begins, so that large models are timed in one."""
PROMPTS, TOKENS = 8, 16
"""Clean prompts decoded together, and tokens of each answer."""
Clock = Callable[[], float]
Laps = Mapping[str, Sequence[float]]
"""Seconds a token of every system, by its key, a figure a round."""


def time_systems(
    pair: ModelPair,
    systems: Sequence[System],
    prompts: Sequence[str],
    rounds: int = ROUNDS,
    clock: Clock = time.perf_counter,
) -> dict[str, list[float]]:
    """Time every system on the same prompts, once at least; each round starts with another system."""
    writers = {system.key: pair.purifier(system) for system in systems}
    laps: dict[str, list[float]] = {key: [] for key in writers}
    start = time.monotonic()
    for turn in range(-1, rounds):
        if turn > 0 and time.monotonic() - start > LONGEST:
            break
        for key in rotated(list(writers), max(turn, 0)):
            seconds = _lap(writers[key], prompts[:PROMPTS], clock)
            if turn >= 0:
                laps[key].append(seconds)
    return laps


def _lap(writer: Purifier, prompts: Sequence[str], clock: Clock) -> float:
    """Seconds a token, certificates included; every system generates the same number of tokens."""
    from purify_plugins.sampling import Sampling

    start = clock()
    answers = writer.generate(list(prompts), Sampling(max_tokens=TOKENS, ignore_eos=True))
    return (clock() - start) / sum(len(answer.tokens) for answer in answers)


def speeds(laps: Laps) -> dict[str, dict[str, Estimate]]:
    """Each system's tokens a second, and its time a token over the LLM's: medians, between quartiles.

    Both come from the same laps, so they agree, and the LLM over itself is 1.
    """
    found = {key: (spread(seconds), len(seconds)) for key, seconds in laps.items()}
    llm = found["llm"][0].middle
    return {
        key: {
            "tokens_per_second": Estimate(1 / each.middle, 1 / each.high, 1 / each.low, count),
            "slowdown": Estimate(each.middle / llm, each.low / llm, each.high / llm, count),
        }
        for key, (each, count) in found.items()
    }


def with_speeds(results: Sequence[Result], laps: Laps) -> list[Result]:
    """The results, with speed added to the `utility` figures of each system that was timed."""
    found = speeds(laps)
    return [_with(each, found[each.system.key]) if each.system.key in found else each for each in results]


def _with(result: Result, speed: Mapping[str, Estimate]) -> Result:
    utility = result.figures.get("utility", {})
    forced = {**utility.get("forced", {}), **speed}
    return replace(result, figures={**result.figures, "utility": {**utility, "forced": forced}})


def timed(
    plan: Plan,
    pair: ModelPair,
    cache: ResultsCache,
    results: Sequence[Result],
    progress: Progress,
    measuring: bool = True,
    clock: str = "wall",
) -> list[Result]:
    """The results with their speeds, all from one timing of exactly these systems at their defaults.

    The cache's, else, `measuring`, a new one; else without speeds. `clock` is "wall" or "cpu", which is
    right for models that run on this machine's CPU while it does other work too.
    """
    # Another setting of a policy costs the same arithmetic, so a sweep does not time it.
    raced = [result for result in results if not (result.system.swept or result.system.chain)]
    cells = [result.cells.get(("utility", "forced")) for result in raced]
    known = [cell.key for cell in cells if cell]
    if len(known) < len(raced):
        return list(results)  # the suite that speed belongs to was not asked
    about = {"race": known, "clock": clock, "code": code(__name__)}
    key = hashlib.sha256(canonical(about).encode()).hexdigest()
    if key not in cache.cells:
        if not measuring:
            return list(results)
        progress(len(results), len(results), f"speed of {len(raced)} systems, in turns")
        cache.add(_timed(key, plan, pair, [result.system for result in raced], clock))
    samples = cache.cells[key].samples
    return with_speeds(results, {name: [sample.value for sample in samples[name]] for name in samples})


def _timed(key: str, plan: Plan, pair: ModelPair, systems: Sequence[System], clock: str) -> Cell:
    from purify_hooks.evaluation.bench.settings import CLOCKS
    from purify_hooks.evaluation.bench.vocabulary import threads

    clean = plan.questions.clean
    prompts = clean.prompts if clean else plan.questions.heldout
    start = time.process_time()
    with threads(1 if clock == "cpu" else None):  # the CPU time of several threads is no time that passes
        laps = time_systems(pair, systems, prompts, clock=CLOCKS[clock])
    seconds = round(time.process_time() - start, 2)
    samples = {name: [Sample(lap) for lap in each] for name, each in laps.items()}
    return Cell(key, "all", "utility", "raced", seconds, samples)
