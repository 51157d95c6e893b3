"""Run every suite on every system: cached cells are read, the others measured and cached at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import as_completed
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

from purify_hooks.evaluation.eval.questions import Questions
from purify_hooks.evaluation.eval.results_cache import Cell, ResultsCache, key
from purify_hooks.evaluation.eval.statistics import Estimate, Metric, estimate
from purify_hooks.evaluation.eval.suites.base import Suite, SuiteSettings
from purify_hooks.evaluation.eval.systems import System
from purify_hooks.evaluation.eval.worker_pool import worker_pool
from purify_plugins.errors import ConfigError

if TYPE_CHECKING:
    from purify_hooks.evaluation.eval.model_pair import ModelPair
    from purify_plugins.plugin.manager import Plugins

Figures = Mapping[str, Mapping[str, Mapping[str, Estimate]]]
"""Suite -> mode -> metric -> figure."""
Progress = Callable[[int, int, str], None]
"""Callback (cells done, cells in all, label of the last one)."""


class ModelNames(NamedTuple):
    """What a process loads: two models, plugins by name (None: the environment's), the batch size."""

    llm: Any
    slm: Any
    plugins: tuple[str, ...] | None = None
    batch: int = 64

    def load(self) -> ModelPair:
        from purify_hooks.evaluation.eval.model_pair import ModelPair
        from purify_plugins.plugin.manager import load_plugins

        return ModelPair.load(self.llm, self.slm, load_plugins(self.plugins), self.batch)


@dataclass(frozen=True)
class Plan:
    """The plan of an evaluation."""

    models: ModelNames
    questions: Questions
    systems: tuple[System, ...]
    settings: SuiteSettings = field(default_factory=SuiteSettings)
    only: tuple[str, ...] = ()
    """Names of the suites to run; empty: all."""


class CellWork(NamedTuple):
    """One cell to be measured."""

    key: str
    system: System
    suite: str
    mode: str


@dataclass(frozen=True)
class Result:
    """A system's figures, and the cells they are computed from."""

    system: System
    figures: Figures
    cells: Mapping[tuple[str, str], Cell]
    metrics: Mapping[str, Mapping[str, Metric]]
    """Suite -> metric -> its definition."""

    def value(self, suite: str, mode: str, metric: str) -> float | None:
        """One figure; None where it was not measured."""
        found = self.figures.get(suite, {}).get(mode, {}).get(metric)
        return None if found is None else found.value


def suites(plugins: Plugins, plan: Plan) -> dict[str, Suite]:
    """The suites of the plan that the questions have something for."""
    made = offered(plugins, plan)
    return {name: suite for name, suite in made.items() if name in (plan.only or made) and suite.possible}


def offered(plugins: Plugins, plan: Plan) -> dict[str, Suite]:
    """Every suite that a plugin in use offers."""
    factories = plugins.offers("purify_suites")
    return {name: factory(plan.questions, plan.settings) for name, factory in factories.items()}


def run(plan: Plan, pair: ModelPair, cache: ResultsCache, progress: Progress, jobs: int = 0) -> list[Result]:
    """Measure what the cache lacks. Every finished cell is cached, also when interrupted."""
    every = cached_work(plan, pair)
    missing = [each for each in every if each.key not in cache.cells]
    done = len(every) - len(missing)
    progress(done, len(every), "")
    with closing(measured(plan, missing, jobs, pair)) as cells:  # so that its processes end with this loop
        for cell in cells:
            cache.add(cell)
            done += 1
            progress(done, len(every), f"{cell.system} · {cell.suite} · {cell.mode}")
    return results(plan, suites(pair.plugins, plan), every, cache.cells)


def finished(plan: Plan, pair: ModelPair, cache: ResultsCache) -> Plan:
    """The plan without systems that lack a cell. Raises ConfigError where a model alone lacks one."""
    missing = {each.system.key for each in cached_work(plan, pair) if each.key not in cache.cells}
    if missing & {system.key for system in plan.systems if system.alone}:
        raise ConfigError("nothing can be reported before both models alone are measured; leave out --so-far")
    return replace(plan, systems=tuple(each for each in plan.systems if each.key not in missing))


def cached_work(plan: Plan, pair: ModelPair) -> list[CellWork]:
    """Every cell there is, by the digest of all that it depends on."""
    return work(plan, suites(pair.plugins, plan), partial(key, pair))


def work(
    plan: Plan, asked: Mapping[str, Suite], key: Callable[[System, str, Suite, str], str]
) -> list[CellWork]:
    """Every cell there is, a system at a time."""
    return [
        CellWork(key(system, name, suite, mode), system, name, mode)
        for system in plan.systems
        for name, suite in asked.items()
        for mode in suite.modes
    ]


def measured(
    plan: Plan, missing: Sequence[CellWork], jobs: int, pair: ModelPair
) -> Generator[Cell, None, None]:
    """The missing cells as they are finished, in this process or, if there are several, in workers."""
    if jobs == 1 or len(missing) < 2:
        for each in missing:
            yield measure(plan, each, pair)
        return
    with worker_pool(jobs) as pool:
        for coming in as_completed([pool.submit(measure_in_worker, plan, each) for each in missing]):
            yield coming.result()


def measure(plan: Plan, work: CellWork, pair: ModelPair) -> Cell:
    """Measure one cell."""
    suite = suites(pair.plugins, plan)[work.suite]
    start = time.process_time()
    seen = suite.measure(pair, work.system, work.mode)
    seconds = round(time.process_time() - start, 2)
    return Cell(work.key, work.system.key, work.suite, work.mode, seconds, seen)


def results(
    plan: Plan, asked: Mapping[str, Suite], every: Sequence[CellWork], cells: Mapping[str, Cell]
) -> list[Result]:
    """The figures of each system whose cells, by key, are all there."""
    found = []
    for system in plan.systems:
        mine = [cells.get(each.key) for each in every if each.system == system]
        whole = {(cell.suite, cell.mode): cell for cell in mine if cell}
        if len(whole) == len(mine):
            figures = {
                name: {
                    mode: {
                        metric: estimate(suite.metrics[metric], samples, plan.settings.seed)
                        for metric, samples in whole[name, mode].samples.items()
                    }
                    for mode in suite.modes
                }
                for name, suite in asked.items()
            }
            found.append(Result(system, figures, whole, {name: each.metrics for name, each in asked.items()}))
    return found


@cache
def cached_pair(models: ModelNames) -> ModelPair:
    """The loaded pair, cached in a worker process."""
    return models.load()


def measure_in_worker(plan: Plan, work: CellWork) -> Cell:
    """Measure one cell in a worker process."""
    return measure(plan, work, cached_pair(plan.models))
