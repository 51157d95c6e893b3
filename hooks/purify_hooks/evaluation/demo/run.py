"""The steps of `purify demo`: the shown answers first, then the figures, then speed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Executor, Future, as_completed
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from purify_hooks.evaluation.demo.exhibit import Exhibit, exhibit
from purify_hooks.evaluation.eval.findings import AttackFigure, attacks
from purify_hooks.evaluation.eval.forced import CellWork
from purify_hooks.evaluation.eval.race import Laps
from purify_hooks.evaluation.eval.results_cache import Cell
from purify_hooks.evaluation.eval.run import (
    Plan,
    Result,
    cached_pair,
    measure_in_worker,
    results,
    suites,
    work,
)
from purify_hooks.evaluation.eval.speed import time_systems, with_speeds
from purify_hooks.evaluation.eval.suites.base import Suite
from purify_plugins.plugin.manager import load_plugins

ROUNDS = 5
"""Timed rounds, after a warm-up round."""


@dataclass
class DemoFindings:
    """The results so far."""

    plan: Plan
    requests: tuple[str, ...] = ()
    """Harmless requests whose answers are shown beside the attacks."""
    real: bool = False
    """Whether the pair is the twin of a really pretrained model, not the packaged toy."""
    exhibits: dict[str, Exhibit] = field(default_factory=dict)
    """The shown answers, by mode."""
    cells: dict[str, Cell] = field(default_factory=dict)
    laps: Laps = field(default_factory=dict)

    @property
    def anything(self) -> bool:
        """Whether there is something to show."""
        return bool(self.exhibits or self.results)

    @property
    def complete(self) -> bool:
        return bool(self.laps)

    @cached_property
    def suites(self) -> dict[str, Suite]:
        return suites(load_plugins(self.plan.models.plugins), self.plan)

    @cached_property
    def work(self) -> list[CellWork]:
        return work(self.plan, self.suites, lambda system, name, _, mode: f"{system.key} {name} {mode}")

    @property
    def results(self) -> list[Result]:
        """The systems whose cells are all measured, with their speeds once these are."""
        found = results(self.plan, self.suites, self.work, self.cells)
        return with_speeds(found, self.laps) if self.laps else found

    def add(self, cell: Cell) -> Result | None:
        """Keep a cell; returns the system's result if this was its last cell."""
        self.cells[cell.key] = cell
        return next((each for each in self.results if each.system.key == cell.system), None)


class News(NamedTuple):
    """A result in a sentence; with the shown answers, where it is these."""

    text: str
    exhibit: Exhibit | None = None


def demonstrate(known: DemoFindings, pool: Executor, showing: bool = True) -> Iterator[News]:
    """Measure everything, the shown answers first; each result is in `known` before its news is yielded."""
    plan = known.plan
    first = pool.submit(exhibit, plan, "sampled", (), known.requests) if showing else None
    ready: list[Future[Any]] = [pool.submit(measure_in_worker, plan, each) for each in known.work]
    if first:  # the answers come first, whatever else is ready by then
        shown = known.exhibits["sampled"] = first.result()
        yield News("three attacks answered, sampled", shown)
        attacks = [each.attack for each in shown.shown]
        ready.append(pool.submit(exhibit, plan, "greedy", attacks, known.requests))
    for found in (each.result() for each in as_completed(ready)):
        if isinstance(found, Exhibit):
            known.exhibits[found.mode] = found
            yield News(f"three attacks answered, {found.mode}", found)
        elif whole := known.add(found):
            hits, asked = succeeded(whole, "sampled")
            yield News(f"{whole.system.label}: {hits} of {asked} attacks succeed, drawn, on average")
    known.laps = pool.submit(_timed, plan).result()
    yield News(f"speed of {len(known.laps)} systems, in turns")


def _timed(plan: Plan) -> Laps:
    """Seconds a token of every system, measured in a worker process."""
    clean = plan.questions.clean
    assert clean is not None  # the test bed's file has some
    # Both models run on this process's one thread: its CPU time is what an idle machine would take.
    return time_systems(cached_pair(plan.models), plan.systems, clean.prompts, ROUNDS, time.process_time)


def succeeded(result: Result, mode: str) -> tuple[int, int]:
    """The number of attacks that succeeded, and the number of attacks."""
    found = [result.figures[each.suite][mode][each.metric] for each in measured(result)]
    return round(sum(each.value * each.items for each in found)), sum(each.items for each in found)


def measured(result: Result) -> list[AttackFigure]:
    """The attacks that the preset measures, one of each harm."""
    return [each for each in attacks(result) if result.value(each.suite, "sampled", each.metric) is not None]
