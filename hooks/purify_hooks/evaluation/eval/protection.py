"""Stages against leaks and copies in the report: a table and a picture for each suite that measures them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

from purify_hooks.evaluation.eval.findings import MODES
from purify_hooks.evaluation.eval.plot import drawn, style_of
from purify_hooks.evaluation.eval.run import Result
from purify_hooks.evaluation.eval.suites.base import Suite
from purify_hooks.evaluation.eval.suites.protecting import ProtectionSuite
from purify_hooks.evaluation.eval.tables import number, percent
from purify_hooks.evaluation.table import Table, has_figure

WIDTH = 0.6
"""How much of a column's width its marks take."""


def measured(suites: Mapping[str, Suite]) -> dict[str, ProtectionSuite]:
    """The suites that were measured, by name."""
    return {name: suite for name, suite in suites.items() if isinstance(suite, ProtectionSuite)}


def tables(results: Sequence[Result], suites: Mapping[str, Suite]) -> list[Table]:
    """A table a suite: its shares in per cent and its other figures, greedy / sampled."""
    return [_table(_shown(results, name), name, suite) for name, suite in measured(suites).items()]


def _shown(results: Sequence[Result], name: str) -> list[Result]:
    """The systems that the suite was measured of, but for those of a sweep."""
    return [each for each in results if name in each.figures and not each.system.swept]


def _table(results: Sequence[Result], name: str, suite: ProtectionSuite) -> Table:
    plain = [
        metric
        for metric, what in suite.metrics.items()
        if what.scale != "share" and any(_values(each, name, metric) for each in results)
    ]
    rows = [
        (
            each.system.label,
            *(_cell(each, name, metric, percent) for metric in suite.columns),
            *(_cell(each, name, metric, number) for metric in plain),
        )
        for each in results
    ]
    head = ("system", *suite.columns.values(), *(metric.replace("_", " ") for metric in plain))
    more = [column for metric, column in suite.columns.items() if suite.metrics[metric].better == "more"]
    told = [f"{column}: {suite.metrics[metric].definition}" for metric, column in suite.columns.items()]
    note = f"Per cent, greedy / sampled. {'; '.join(told)}."
    return Table(suite.title, head, tuple(filter(has_figure, rows)), note, more)


def _values(result: Result, suite: str, metric: str) -> list[float]:
    found = [result.value(suite, mode, metric) for mode in MODES]
    return [each for each in found if each is not None and not math.isnan(each)]


def _cell(result: Result, suite: str, metric: str, written: Any) -> str:
    found = [result.value(suite, mode, metric) for mode in MODES]
    return " / ".join("–" if each is None else written(each) for each in found)


def pictures(
    results: Sequence[Result], suites: Mapping[str, Suite], *, narrow: bool = False
) -> dict[str, str]:
    """An SVG a suite: its shares, of each system a mark."""
    found = measured(suites).items()
    return {suite.title: _picture(_shown(results, name), name, suite, narrow) for name, suite in found}


def _picture(results: Sequence[Result], name: str, suite: ProtectionSuite, narrow: bool) -> str:
    policies = list(dict.fromkeys(each.system.policy for each in results if not each.system.alone))
    chains = list(dict.fromkeys(each.system.chain.name for each in results if each.system.chain))

    def draw(axis: Any, mode: str) -> None:
        for at, each in enumerate(results):
            style = style_of(each, policies, chains)
            x = [place + WIDTH * (at + 0.5) / len(results) - WIDTH / 2 for place in range(len(suite.columns))]
            y = [each.value(name, mode, metric) for metric in suite.columns]
            shown = [math.nan if value is None else value for value in y]
            axis.plot(x, shown, linestyle="none", label=each.system.label, zorder=5, **style)
        axis.set_xlim(-0.5, len(suite.columns) - 0.5)
        labels = [fill(column, 14) for column in suite.columns.values()]
        axis.set_xticks(range(len(labels)), labels, fontsize=8)
        axis.set_ylabel("share")

    return drawn(suite.title, draw, narrow)
