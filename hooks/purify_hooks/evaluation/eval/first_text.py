"""The time to the first text of an answer: all systems in turn, in one process, by one clock."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from purify_hooks.evaluation.eval import staged
from purify_hooks.evaluation.eval.race import Clock, Laps, in_turns, race
from purify_hooks.evaluation.eval.results_cache import ResultsCache, code
from purify_hooks.evaluation.eval.statistics import Estimate, spread

if TYPE_CHECKING:
    from purify_hooks.evaluation.eval.model_pair import ModelPair
    from purify_hooks.evaluation.eval.run import Plan, Result
    from purify_hooks.progress import Progress
    from purify_plugins.purifier import Purifier

ROUNDS, PROMPTS, TOKENS = 2, 4, 32
"""Timed rounds, after one to warm up; clean prompts of each, and tokens of an answer."""
MODE = "greedy"


def with_first_texts(
    plan: Plan,
    pair: ModelPair,
    cache: ResultsCache,
    results: Sequence[Result],
    progress: Progress,
    measuring: bool = True,
    clock: str = "wall",
) -> list[Result]:
    """The results with the milliseconds to the first text, where request stages were measured.

    The cache's, else, `measuring`, new ones; see `speed.timed`.
    """
    raced = [each for each in staged.compared(results) if not each.system.swept]
    clean = plan.questions.clean
    if not staged.measured(results) or clean is None:
        return list(results)
    cells = [each.cells[staged.SUITE, MODE].key for each in raced]
    laps = race(
        cache,
        {"first text": cells, "code": code(__name__)},
        staged.SUITE,
        clock,
        lambda tick: _in_turns(clean.prompts[:PROMPTS], pair, raced, tick),
        partial(progress, len(results), len(results), f"time to first text of {len(raced)} systems, in turns")
        if measuring
        else None,
    )
    if laps is None:
        return list(results)
    return [_with(each, laps[each.system.key]) if each.system.key in laps else each for each in results]


def _with(result: Result, laps: Sequence[float]) -> Result:
    found = spread([1000 * each for each in laps])
    suite = result.figures[staged.SUITE]
    timed = {**suite[MODE], "first_text": Estimate(found.middle, found.low, found.high, len(laps))}
    return replace(result, figures={**result.figures, staged.SUITE: {**suite, MODE: timed}})


def _in_turns(prompts: Sequence[str], pair: ModelPair, raced: Sequence[Result], clock: Clock) -> Laps:
    writers = {each.system.key: pair.purifier(each.system) for each in raced}
    return in_turns(writers, lambda writer: [first_text(writer, each, clock) for each in prompts], ROUNDS)


def first_text(writer: Purifier, prompt: str, clock: Clock) -> float:
    """Seconds to an answer's first text, which may be that of a refusal; of an empty answer, to its end."""
    from purify_plugins.sampling import Sampling

    start = clock()
    with closing(writer.stream(prompt, Sampling(temperature=0, max_tokens=TOKENS))) as chunks:
        next((chunk for chunk in chunks if chunk.text), None)
    return clock() - start
