"""The time to the first text of an answer: all systems in turn, in one process, by one clock."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

from purify_hooks.evaluation.eval import staged
from purify_hooks.evaluation.eval.results_cache import Cell, ResultsCache, code
from purify_hooks.evaluation.eval.statistics import Estimate, Sample, rotated, spread
from purify_plugins.canonical_json import canonical

if TYPE_CHECKING:
    from purify_hooks.evaluation.eval.model_pair import ModelPair
    from purify_hooks.evaluation.eval.run import Plan, Progress, Result
    from purify_hooks.evaluation.eval.speed import Clock
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
    if not staged.measured(results) or plan.questions.clean is None:
        return list(results)
    cells = [each.cells[staged.SUITE, MODE].key for each in raced]
    body = {"first text": cells, "clock": clock, "code": code(__name__)}
    key = hashlib.sha256(canonical(body).encode()).hexdigest()
    if key not in cache.cells:
        if not measuring:
            return list(results)
        progress(len(results), len(results), f"time to first text of {len(raced)} systems, in turns")
        cache.add(_timed(key, plan, pair, raced, clock))
    laps = cache.cells[key].samples
    return [_with(each, laps[each.system.key]) if each.system.key in laps else each for each in results]


def _with(result: Result, laps: Sequence[Sample]) -> Result:
    found = spread([1000 * each.value for each in laps])
    suite = result.figures[staged.SUITE]
    timed = {**suite[MODE], "first_text": Estimate(found.middle, found.low, found.high, len(laps))}
    return replace(result, figures={**result.figures, staged.SUITE: {**suite, MODE: timed}})


def _timed(key: str, plan: Plan, pair: ModelPair, raced: Sequence[Result], clock: str) -> Cell:
    from purify_hooks.evaluation.bench.settings import CLOCKS
    from purify_hooks.evaluation.bench.vocabulary import threads

    assert plan.questions.clean is not None
    prompts = plan.questions.clean.prompts[:PROMPTS]
    writers = {each.system.key: pair.purifier(each.system) for each in raced}
    laps: dict[str, list[Sample]] = {name: [] for name in writers}
    start = time.process_time()
    with threads(1 if clock == "cpu" else None):
        for turn in range(-1, ROUNDS):
            for name in rotated(list(writers), max(turn, 0)):
                seconds = [first_text(writers[name], each, CLOCKS[clock]) for each in prompts]
                laps[name] += [Sample(each) for each in seconds if turn >= 0]
    return Cell(key, "all", staged.SUITE, "raced", round(time.process_time() - start, 2), laps)


def first_text(writer: Purifier, prompt: str, clock: Clock) -> float:
    """Seconds to an answer's first text, which may be that of a refusal; of an empty answer, to its end."""
    from purify_plugins.sampling import Sampling

    start = clock()
    with closing(writer.stream(prompt, Sampling(temperature=0, max_tokens=TOKENS))) as chunks:
        next((chunk for chunk in chunks if chunk.text), None)
    return clock() - start
