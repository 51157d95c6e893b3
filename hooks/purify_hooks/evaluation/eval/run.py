"""Every system through every suite: what is known is read, the rest is measured, each cell kept at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from purify_hooks.evaluation.eval.cells import Cell, Ledger, key
from purify_hooks.evaluation.eval.questions import Questions
from purify_hooks.evaluation.eval.statistics import Estimate, estimate
from purify_hooks.evaluation.eval.suites.base import Settings
from purify_hooks.evaluation.eval.systems import System
from purify_hooks.evaluation.eval.workers import hired
from purify_plugins.errors import ConfigError

if TYPE_CHECKING:
    from purify_hooks.evaluation.eval.bench import Bench
    from purify_hooks.evaluation.eval.suites.base import Suite
    from purify_plugins.plugin.manager import Plugins

Figures = Mapping[str, Mapping[str, Mapping[str, Estimate]]]
"""Suite -> mode -> metric -> figure."""
Tell = Callable[[int, int, str], None]
"""Called with how many cells are done, how many there are, and what was just measured."""


class Models(NamedTuple):
    """What a process loads: two models, the plugins by name (None: the environment's), rows at a time."""

    llm: Any
    slm: Any
    plugins: tuple[str, ...] | None = None
    batch: int = 64

    def load(self) -> Bench:
        from purify_hooks.evaluation.eval.bench import Bench
        from purify_plugins.plugin.manager import load_plugins

        return Bench.load(self.llm, self.slm, load_plugins(self.plugins), self.batch)


@dataclass(frozen=True)
class Plan:
    """What is to be measured, of what, how hard."""

    models: Models
    questions: Questions
    systems: tuple[System, ...]
    settings: Settings = field(default_factory=Settings)
    suites: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    """What is measured, by name; empty: every suite that a plugin offers."""
    only: tuple[str, ...] = ()
    """The names of the suites that are measured; empty: all."""


class Work(NamedTuple):
    """One cell to be measured."""

    key: str
    system: System
    suite: str
    mode: str


@dataclass(frozen=True)
class Result:
    """A system and its figures, with the items they come from."""

    system: System
    figures: Figures
    cells: Mapping[tuple[str, str], Cell]

    def value(self, suite: str, mode: str, metric: str) -> float | None:
        """One figure; None where it was not measured."""
        found = self.figures.get(suite, {}).get(mode, {}).get(metric)
        return None if found is None else found.value


def suites(plugins: Plugins, plan: Plan) -> dict[str, Suite]:
    """Every suite that the questions have something for."""
    offered = plan.suites or plugins.offers("purify_suites")
    asked = plan.only or offered
    made = {
        name: factory(plan.questions, plan.settings) for name, factory in offered.items() if name in asked
    }
    return {name: suite for name, suite in made.items() if suite.possible}


def run(plan: Plan, bench: Bench, ledger: Ledger, tell: Tell, jobs: int = 0) -> list[Result]:
    """Measure what the ledger does not hold yet. Interrupted, it has kept every finished cell."""
    every = list(work(plan, bench))
    missing = [each for each in every if each.key not in ledger.cells]
    done = len(every) - len(missing)
    tell(done, len(every), "")
    with closing(measured(plan, missing, jobs, bench)) as cells:  # so that its processes end with this loop
        for cell in cells:
            ledger.add(cell)
            done += 1
            tell(done, len(every), f"{cell.system} · {cell.suite} · {cell.mode}")
    return results(plan, bench, ledger, every)


def finished(plan: Plan, bench: Bench, ledger: Ledger) -> Plan:
    """The plan, less the systems of which a cell is missing. Raises ConfigError where a model's own are."""
    missing = {each.system.key for each in work(plan, bench) if each.key not in ledger.cells}
    if missing & {system.key for system in plan.systems if system.alone}:
        raise ConfigError("nothing can be reported before both models alone are measured; leave out --so-far")
    return replace(plan, systems=tuple(each for each in plan.systems if each.key not in missing))


def work(plan: Plan, bench: Bench) -> Iterator[Work]:
    """Every cell there is, a system at a time."""
    asked = suites(bench.plugins, plan)
    for system in plan.systems:
        for name, suite in asked.items():
            for mode in suite.modes:
                yield Work(key(bench, system, name, suite, mode), system, name, mode)


def measured(plan: Plan, missing: Sequence[Work], jobs: int, bench: Bench) -> Generator[Cell, None, None]:
    """The missing cells as they are finished: here, or side by side where there are several and cores."""
    if jobs == 1 or len(missing) < 2:
        for each in missing:
            yield measure(plan, each, bench)
        return
    with hired(jobs) as pool:
        for coming in as_completed([pool.submit(measure_apart, plan, each) for each in missing]):
            yield coming.result()


def measure(plan: Plan, work: Work, bench: Bench) -> Cell:
    """One cell."""
    suite = suites(bench.plugins, plan)[work.suite]
    start = time.process_time()
    seen = suite.measure(bench, work.system, work.mode)
    seconds = round(time.process_time() - start, 2)
    return Cell(work.key, work.system.key, work.suite, work.mode, seconds, seen)


def results(plan: Plan, bench: Bench, ledger: Ledger, every: Sequence[Work]) -> list[Result]:
    """Each system's figures, from its cells."""
    asked = suites(bench.plugins, plan)
    cells: dict[str, dict[tuple[str, str], Cell]] = {system.key: {} for system in plan.systems}
    for each in every:
        cells[each.system.key][each.suite, each.mode] = ledger.cells[each.key]
    return [result(plan, asked, system, cells[system.key]) for system in plan.systems]


def result(
    plan: Plan, asked: Mapping[str, Suite], system: System, cells: Mapping[tuple[str, str], Cell]
) -> Result:
    """A system's figures, from its cells by suite and mode."""
    figures: dict[str, dict[str, dict[str, Estimate]]] = {}
    for (suite, mode), cell in cells.items():
        figures.setdefault(suite, {})[mode] = {
            name: estimate(asked[suite].metrics[name], samples, plan.settings.seed)
            for name, samples in cell.samples.items()
        }
    return Result(system, figures, cells)


@cache
def bench_of(models: Models) -> Bench:
    """The bench of a process that measures cell after cell."""
    return models.load()


def measure_apart(plan: Plan, work: Work) -> Cell:
    """One cell, in a process that keeps its models."""
    return measure(plan, work, bench_of(plan.models))
