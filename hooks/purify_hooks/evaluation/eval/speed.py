"""The speed of each system: all systems in turn, in one process, by one clock."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from purify_hooks.evaluation.eval.race import Clock, Laps, in_turns, race
from purify_hooks.evaluation.eval.results_cache import ResultsCache, code
from purify_hooks.evaluation.eval.statistics import Estimate, spread

if TYPE_CHECKING:
    from purify_hooks.evaluation.eval.model_pair import ModelPair
    from purify_hooks.evaluation.eval.run import Plan, Result
    from purify_hooks.evaluation.eval.systems import System
    from purify_hooks.progress import Progress
    from purify_plugins.purifier import Purifier

ROUNDS = 7
"""Timed rounds, after a warm-up round in which libraries load and draft lengths adapt."""
LONGEST = 60
"""Seconds after which no other round begins, so that large models are timed in one."""
PROMPTS, TOKENS = 8, 16
"""Clean prompts decoded together, and tokens of each answer."""


def time_systems(
    pair: ModelPair,
    systems: Sequence[System],
    prompts: Sequence[str],
    rounds: int = ROUNDS,
    clock: Clock = time.perf_counter,
) -> dict[str, list[float]]:
    """Time every system on the same prompts, once at least; each round starts with another system."""
    writers = {system.key: pair.purifier(system) for system in systems}
    return in_turns(writers, lambda writer: [_lap(writer, prompts[:PROMPTS], clock)], rounds, LONGEST)


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
    clean, systems = plan.questions.clean, [result.system for result in raced]
    prompts = clean.prompts if clean else plan.questions.heldout
    laps = race(
        cache,
        {"race": known, "code": code(__name__)},
        "utility",
        clock,
        lambda tick: time_systems(pair, systems, prompts, clock=tick),
        partial(progress, len(results), len(results), f"speed of {len(raced)} systems, in turns")
        if measuring
        else None,
    )
    return list(results) if laps is None else with_speeds(results, laps)
