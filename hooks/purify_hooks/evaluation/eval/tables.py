"""The figures as tables, for the terminal, the documentation and the report."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from purify_hooks.evaluation.eval import findings
from purify_hooks.evaluation.eval.findings import (
    MARGIN,
    MODES,
    Advice,
    advice,
    attacks,
    budget,
    harm,
    longest_run,
    model,
    perplexity,
    slowdown,
    stops,
)
from purify_hooks.evaluation.eval.findings import knowledge as kept
from purify_hooks.evaluation.eval.run import Result
from purify_hooks.evaluation.eval.speed import ROUNDS
from purify_hooks.evaluation.eval.statistics import Estimate, Metric
from purify_hooks.evaluation.eval.suites.base import Suite
from purify_hooks.evaluation.eval.systems import System, brief, main_parameter
from purify_hooks.evaluation.table import Table

if TYPE_CHECKING:
    from purify_plugins.plugin.manager import Plugins

PACE = ("tokens_per_second", "slowdown")
"""The metrics of time in the table of costs."""
KEPT = "knowledge kept"
KEPT_NOTE = "what is kept of the answers that only the LLM gets right"
UNBOUND = "Greedy decoding carries no guarantee: its figures are measured, not promised."


def summary(results: Sequence[Result]) -> Table:
    """The table for the terminal: each harm's worst attack, and the costs."""
    llm = model(results, "llm")
    rows = [
        (
            result.system.label,
            *_worst(result),
            _kept(result),
            number(perplexity(result) / perplexity(llm)),
            number(slowdown(result)),
        )
        for result in results
    ]
    measured = findings.harms(llm)
    head = ("system", *measured, KEPT, "perplexity × LLM", "time × LLM")
    first = "The worst attack of each harm, per cent that succeed" if measured else "Per cent of answers kept"
    note = f"{first}, greedy / sampled. {UNBOUND}"
    return Table("What is stopped and what it costs", head, tuple(rows), note, more={KEPT})


def _worst(result: Result) -> Iterator[str]:
    """Of each harm the worst attack, greedy / sampled."""
    return (
        " / ".join(percent(harm(result, name, [mode])) for mode in MODES) for name in findings.harms(result)
    )


def harms(results: Sequence[Result]) -> Table:
    """What share of every attack succeeds, greedy / sampled."""
    asked = attacks(results[0])
    rows = [
        (
            each.system.label,
            *(_both(each, at.suite, at.metric) for at in asked),
            number(longest_run(each)),
            _kept(each),
        )
        for each in results
    ]
    note = (
        "Per cent, greedy / sampled; the longest run is of a protected passage's first tokens in a greedy "
        f"answer; the last column is {KEPT_NOTE}. {UNBOUND}"
    )
    head = ("system", *(at.column for at in asked), "longest run", KEPT)
    return Table("Attacks that succeed", head, tuple(rows), note, more={KEPT})


def knowledge(results: Sequence[Result]) -> Table:
    """What is kept of the LLM's knowledge, by the form of the question and its kind."""
    names = list(results[0].metrics.get("knowledge", {}))
    llm = model(results, "llm").figures.get("knowledge", {}).get("greedy", {})
    counts = (str(llm[name].items) if name in llm else "0" for name in names)
    rows = [(each.system.label, *(_both(each, "knowledge", name) for name in names)) for each in results]
    note = (
        "Per cent, greedy / sampled: of the answers that only the LLM gets right (shared: both), those that "
        "are kept; drawn, their probability over the LLM's. The first row counts the questions."
    )
    head = ("system", *(name.replace("_", " ") for name in names))
    return Table("Knowledge that is kept", head, (("questions", *counts), *rows), note, more=head)


def _both(result: Result, suite: str, metric: str) -> str:
    return " / ".join(percent(result.value(suite, mode, metric)) for mode in MODES)


def _kept(result: Result) -> str:
    return " / ".join(percent(kept(result, mode)) for mode in MODES)


def percent(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{100 * value:.0f}"


def share(cell: str) -> float | None:
    """The larger share of a cell like “100 / 35” or “35%”, between 0 and 1; None for any other cell."""
    found = re.fullmatch(r"(\d+) / (\d+)|(\d+)%", cell)
    return max(int(each) for each in found.groups() if each) / 100 if found else None


def costs(results: Sequence[Result]) -> Table:
    """What each system costs, beside the LLM."""
    llm = model(results, "llm")
    rows = [_cost(result, llm) for result in results]
    head = (
        "system",
        "perplexity",
        "× LLM",
        "code",
        "bits a byte",
        "next token",
        "choices",
        "tasks",
        "tokens/s",
        "time × LLM",
    )
    note = (
        "In brackets 95 % intervals; of the last two columns, quartiles. ∞: the policy rules out text that "
        f"really came. Speeds are medians of {ROUNDS} rounds in which all systems took turns, by one clock "
        "and in one process; the last column is time a token over the LLM's: above 1, slower than the LLM."
    )
    return Table("What it costs", head, tuple(rows), note)


def _cost(result: Result, llm: Result) -> tuple[str, ...]:
    utility = result.figures.get("utility", {}).get("forced", {})
    names = ("perplexity", "code", "bits_per_byte", "accuracy", "choices", "tasks")
    language, *rest = (figure(utility[name]) if name in utility else "–" for name in names)
    times = [figure(utility[name]) if name in utility else "–" for name in PACE]
    return (result.system.label, language, number(perplexity(result) / perplexity(llm)), *rest, *times)


def number(value: float) -> str:
    """About three significant digits; ∞ for infinite values, – for NaN."""
    if not math.isfinite(value):
        return "∞" if value == math.inf else "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 20 else f"{value:.2f}"


def figure(found: Estimate) -> str:
    """A figure and its interval."""
    if found.items == 1:
        return number(found.value)
    return f"{number(found.value)} [{number(found.low)}, {number(found.high)}]"


def budgets(results: Sequence[Result], plugins: Plugins) -> Table:
    """Each policy's budget beside the SLM's surprisal of the protected passages."""
    slm = model(results, "slm")
    found = [
        (result.system.label, budget(result, slm, plugins)) for result in results if not result.system.alone
    ]
    rows = [
        (
            label,
            each.guarantee,
            number(each.nats),
            number(each.surprisal),
            number(each.ratio),
            each.warning or "says something of every passage",
        )
        for label, each in found
        if each
    ]
    head = ("system", "guarantee", "k, nats a token", "SLM's surprisal a token", "k / surprisal", "so it is")
    return Table("What a certificate is worth", head, tuple(rows))


def settings(results: Sequence[Result], plugins: Plugins) -> Table:
    """A sweep: harms and cost at each setting of each policy."""
    llm, slm = (model(results, key) for key in ("llm", "slm"))
    ours = [result for result in results if not result.system.alone]
    order = list(dict.fromkeys(result.system.policy for result in ours))
    ours.sort(key=lambda result: (order.index(result.system.policy), _value(result.system, plugins)))
    rows = [
        (
            result.system.policy,
            setting(result.system, plugins),
            *_worst(result),
            _kept(result),
            number(perplexity(result) / perplexity(llm)),
            "yes" if stops(result, slm) else "no",
        )
        for result in ours
    ]
    head = ("policy", "setting", *findings.harms(llm), KEPT, "perplexity × LLM", "stops every harm")
    note = f"The worst attack of each harm, per cent that succeed, greedy / sampled. {UNBOUND}"
    return Table("Every setting", head, tuple(rows), note, more={KEPT})


def setting(system: System, plugins: Plugins) -> str:
    """A system's options, or the default of its policy's main parameter."""
    if system.parameters:
        return ", ".join(f"{key} {brief(value)}" for key, value in system.parameters.items())
    found = main_parameter(plugins, system.policy)
    return f"{found[0]} {found[2]:g}, its default" if found else "its default"


def _value(system: System, plugins: Plugins) -> float:
    found = main_parameter(plugins, system.policy)
    return float(system.parameters.get(found[0], found[2])) if found else 0.0


def recommended(results: Sequence[Result], plugins: Plugins, margin: float = MARGIN) -> Table:
    """The cheapest setting of each policy that stops every harm."""
    rows = [_recommended(each, model(results, "llm"), plugins) for each in advice(results, margin)]
    uncounted = ", ".join(each.column for each in attacks(results[0]) if not each.harm)
    note = (
        f"Stops every harm: each attack of the table of harms{f' but {uncounted}' * bool(uncounted)}, greedy "
        "and sampled, "
        f"succeeds at most as often as on the SLM alone and {100 * margin:.0f} points."
    )
    return Table(
        "Recommended settings",
        ("policy", "setting", "perplexity", "× LLM", "settings tried"),
        tuple(rows),
        note,
    )


def _recommended(found: Advice, llm: Result, plugins: Plugins) -> tuple[str, ...]:
    if math.isnan(perplexity(llm)):
        return found.policy, "its cost was not measured", "–", "–", str(found.tried)
    if found.best is None:
        return found.policy, "none of those tried", "–", "–", str(found.tried)
    cost = perplexity(found.best)
    ratio = number(cost / perplexity(llm))
    return found.policy, setting(found.best.system, plugins), number(cost), ratio, str(found.tried)


def suite_tables(results: Sequence[Result], suites: Mapping[str, Suite]) -> list[tuple[Suite, str, Table]]:
    """Every metric of every suite with its interval, a table a mode."""
    return [
        (suite, mode, _suite_table(results, name, suite, mode))
        for name, suite in suites.items()
        for mode in suite.modes
    ]


def _suite_table(results: Sequence[Result], name: str, suite: Suite, mode: str) -> Table:
    metrics = [each for each in suite.metrics if any(_found(result, name, mode, each) for result in results)]
    rows = [
        (result.system.label, *(_cell(_found(result, name, mode, each)) for each in metrics))
        for result in results
    ]
    heads = (f"{each.replace('_', ' ')} {_arrow(suite.metrics[each])}" for each in metrics)
    return Table(f"{suite.title}, {mode}", ("system", *heads), tuple(rows))


def _found(result: Result, suite: str, mode: str, metric: str) -> Estimate | None:
    return result.figures.get(suite, {}).get(mode, {}).get(metric)


def _cell(found: Estimate | None) -> str:
    return "–" if found is None else figure(found)


def _arrow(metric: Metric) -> str:
    return "↓" if metric.better == "less" else "↑"
