"""Run every suite on every system: cached cells are read, the others measured and cached at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Executor, as_completed
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from purify_hooks.evaluation.eval.forced import CellWork, Measurement, drop_pieces, kept_pieces, score
from purify_hooks.evaluation.eval.questions import Questions
from purify_hooks.evaluation.eval.results_cache import Cell, ResultsCache, append, key
from purify_hooks.evaluation.eval.statistics import Estimate, Metric, estimate
from purify_hooks.evaluation.eval.suites.base import ForcedSuite, Suite, SuiteSettings
from purify_hooks.evaluation.eval.systems import System
from purify_hooks.evaluation.eval.worker_pool import worker_pool
from purify_hooks.progress import Progress
from purify_plugins.errors import ConfigError

if TYPE_CHECKING:
    from purify_hooks.evaluation.eval.chains import Chain
    from purify_hooks.evaluation.eval.model_pair import ModelPair
    from purify_plugins.plugin.manager import Plugins
    from purify_plugins.types import Alignment, Fidelity

Figures = Mapping[str, Mapping[str, Mapping[str, Estimate]]]
"""Suite -> mode -> metric -> figure."""
News = Callable[["list[Result]"], None]
"""Callback with every system's figures of the suites that are finished."""
Task = Callable[["ModelPair"], Any]
"""A step, done on a pair of models in this process or in a worker."""
Pool = Callable[[int], AbstractContextManager[Executor]]
"""An executor of so many workers, 0: as many as suit it: `worker_pool`, or `ray_pool` of a cluster."""


class ModelNames(NamedTuple):
    """What a process loads: two models, plugins by name (None: the environment's), the batch size.

    `alignment` and `fidelity` are how the two are fused, as in a configuration.
    """

    llm: Any
    slm: Any
    plugins: tuple[str, ...] | None = None
    batch: int = 64
    alignment: Alignment = "auto"
    fidelity: Fidelity = "default"

    def of_llm(self, home: Path) -> bool:
        """Whether the LLM is the model in this directory, or is made of it."""
        model = self.llm
        while isinstance(model, Mapping):
            model = model.get("model")
        return isinstance(model, str) and Path(model).resolve() == home.resolve()

    def load(self) -> ModelPair:
        from purify_hooks.evaluation.eval.model_pair import ModelPair
        from purify_plugins.plugin.manager import load_plugins

        how = self.batch, self.alignment, self.fidelity
        return ModelPair.load(self.llm, self.slm, load_plugins(self.plugins), *how)


@dataclass(frozen=True)
class Plan:
    """The plan of an evaluation."""

    models: ModelNames
    questions: Questions
    systems: tuple[System, ...]
    settings: SuiteSettings = field(default_factory=SuiteSettings)
    only: tuple[str, ...] = ()
    """Names of the suites to run; empty: all."""


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
    chains = [system.chain for system in plan.systems if system.chain]
    usual = [
        name
        for name, suite in made.items()
        if not _named_only(suite) or any(measures(suite, chain) for chain in chains)
    ]
    return {name: suite for name, suite in made.items() if name in (plan.only or usual) and suite.possible}


def _named_only(suite: Suite) -> bool:
    return isinstance(suite, Suite) and suite.asked_for


def measures(suite: Suite, chain: Chain | None) -> bool:
    """Whether a suite, of this class or not, measures systems with these request stages."""
    return chain is None or (isinstance(suite, Suite) and suite.concerns(chain))


def staged_suites(plugins: Plugins) -> list[str]:
    """The names of the suites that measure request stages."""
    kinds = plugins.offers("purify_suites").items()
    return [
        name for name, kind in kinds if isinstance(kind, type) and issubclass(kind, Suite) and kind.staged
    ]


def offered(plugins: Plugins, plan: Plan) -> dict[str, Suite]:
    """Every suite that a plugin in use offers."""
    factories = plugins.offers("purify_suites")
    return {name: factory(plan.questions, plan.settings) for name, factory in factories.items()}


def run(
    plan: Plan,
    pair: ModelPair,
    cache: ResultsCache,
    progress: Progress,
    jobs: int = 0,
    news: News = lambda found: None,
    pool: Pool | None = None,
) -> list[Result]:
    """Measure what the cache lacks; every finished cell is cached at once, and every piece of the others.

    Forced suites come first, those with fewer texts before others. `news` gets the results of all suites that
    are finished, each time another one is.
    """
    asked, every = suites(pair.plugins, plan), cached_work(plan, pair)
    missing = [each for each in every if each.key not in cache.cells]
    forced = sorted(measurements(pair, asked, missing), key=lambda each: len(each.pieces))
    pieces = list(unread(forced, pair, cache))
    rest = [each for each in missing if not isinstance(asked[each.suite], ForcedSuite)]
    tasks: list[Task] = [partial(score, each.run, [each.texts[at] for at in piece]) for each, piece in pieces]
    tasks += [partial(measure, plan, each) for each in rest]
    progress(0, len(tasks), "")
    with closing(
        executed(plan, tasks, jobs, pair, pool)
    ) as found:  # so that its processes end with this loop
        for done, (at, result) in enumerate(found, 1):
            label, cells = pieces[at][0].name if at < len(pieces) else _label(result), [result]
            if at < len(pieces):
                suite, piece = pieces[at]
                append(cache.pieces, result.line(suite.key(piece)))
                cells = suite.add(piece, result, pair)
            for cell in cells:
                cache.add(cell)
            if cells and at < len(pieces):
                drop_pieces(cache.pieces, suite)
            progress(done, len(tasks), label)
            if cells:
                news(so_far(plan, asked, every, cache))
    return results(plan, asked, every, cache.cells)


def _label(cell: Cell) -> str:
    return f"{cell.suite} · {cell.mode} · {cell.system}"


def so_far(
    plan: Plan, asked: Mapping[str, Suite], every: Sequence[CellWork], cache: ResultsCache
) -> list[Result]:
    """Every system's figures of the suites that are finished."""
    left = {each.suite for each in every if each.key not in cache.cells}
    done = {name: suite for name, suite in asked.items() if name not in left}
    return results(plan, done, [each for each in every if each.suite in done], cache.cells) if done else []


def measurements(
    pair: ModelPair, asked: Mapping[str, Suite], missing: Sequence[CellWork]
) -> Iterator[Measurement]:
    """The forced suites that lack cells, each with the systems that lack one."""
    for name, suite in asked.items():
        lacking = [each for each in missing if each.suite == name]
        if lacking and isinstance(suite, ForcedSuite):
            yield Measurement(suite, lacking, suite.asked(pair))


def unread(
    forced: Sequence[Measurement], pair: ModelPair, cache: ResultsCache
) -> Iterator[tuple[Measurement, list[int]]]:
    """The pieces that no earlier run has read; the others are added, and what needs no more is cached."""
    known = kept_pieces(cache.pieces)
    for suite in forced:
        cells = [] if suite.pieces else suite.cells(pair)
        for piece in suite.pieces:
            if found := known.get(suite.key(piece)):
                cells = suite.add(piece, found, pair)
            else:
                yield suite, piece
        for cell in cells:
            cache.add(cell)
        if cells:
            drop_pieces(cache.pieces, suite)


def finished(plan: Plan, pair: ModelPair, cache: ResultsCache) -> Plan:
    """The plan's suites that both models alone have finished, and the systems that have finished these.

    Raises ConfigError where there is no such suite.
    """
    lacking = [each for each in cached_work(plan, pair) if each.key not in cache.cells]
    unknown = {each.suite for each in lacking if each.system.alone}
    known = tuple(name for name in suites(pair.plugins, plan) if name not in unknown)
    if not known:
        raise ConfigError("nothing can be reported before both models alone are measured; leave out --so-far")
    missing = {each.system.key for each in lacking if each.suite in known}
    systems = tuple(each for each in plan.systems if each.key not in missing)
    return replace(plan, systems=systems, only=known)


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
        if measures(suite, system.chain)
    ]


def executed(
    plan: Plan, tasks: Sequence[Task], jobs: int, pair: ModelPair, pool: Pool | None = None
) -> Generator[tuple[int, Any], None, None]:
    """Each task's place and result as they come, from this process or, if there are several, from workers."""
    if pool is None and (jobs == 1 or len(tasks) < 2):
        yield from ((at, task(pair)) for at, task in enumerate(tasks))
        return
    with (pool or worker_pool)(jobs) as workers:
        coming = {workers.submit(in_worker, plan.models, task): at for at, task in enumerate(tasks)}
        yield from ((coming[each], each.result()) for each in as_completed(coming))


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
                if measures(suite, system.chain)
            }
            found.append(Result(system, figures, whole, {name: each.metrics for name, each in asked.items()}))
    return found


_PAIRS: dict[str, ModelPair] = {}


def cached_pair(models: ModelNames) -> ModelPair:
    """The loaded pair, cached in a worker process by what its tables say, which have no hash."""
    if (named := repr(models)) not in _PAIRS:
        _PAIRS[named] = models.load()
    return _PAIRS[named]


def in_worker(models: ModelNames, task: Task) -> Any:
    """Do a task in a worker process."""
    return task(cached_pair(models))


def measure_in_worker(plan: Plan, work: CellWork) -> Cell:
    """Measure one cell in a worker process."""
    return measure(plan, work, cached_pair(plan.models))
