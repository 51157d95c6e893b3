"""The setting of a policy's main parameter that reaches a stated protection at the least cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from purify_hooks.evaluation.eval.findings import model, perplexity, worst
from purify_hooks.evaluation.eval.run import Result
from purify_hooks.evaluation.eval.systems import ALONE, System, at, main_parameter, unfit_reason
from purify_plugins.errors import ConfigError
from purify_plugins.plugin.manager import Plugins

Measure = Callable[[Sequence[System]], list[Result]]


@dataclass(frozen=True)
class Tuned:
    """Every setting that was measured, and the cheapest of those that protect enough; None: none does."""

    parameter: str
    protection: float
    tried: tuple[Result, ...]
    best: Result | None
    llm: Result
    slm: Result


def tune(
    plugins: Plugins,
    policy: str,
    protection: float,
    measure: Measure,
    rounds: int = 3,
    parameter: str = "",
    fixed: Mapping[str, Any] = MappingProxyType({}),
) -> Tuned:
    """Measure the policy's sweep, then bisect towards the cheapest setting that protects.

    Protection is 1 less the worst harm, over every attack, greedy and sampled. Raises ConfigError for a
    policy without a number to tune. Its options that are `fixed` stay as they are.
    """
    found = main_parameter(plugins, policy, parameter, fixed)
    if found is None:
        raise ConfigError(
            f"policy {policy!r} has no number to tune; name another, or measure it with `purify eval`"
        )
    key, values, _ = found
    settings = [at(policy, key, value, fixed) for value in values]
    first = measure([*ALONE, *(each for each in settings if not unfit_reason(plugins, each))])
    llm, slm = model(first, "llm"), model(first, "slm")
    tried = [each for each in first if not each.system.alone]
    for _ in range(rounds):
        between = _between(tried, key, protection)
        if between is None:
            break
        tried += [
            each for each in measure([*ALONE, at(policy, key, between, fixed)]) if not each.system.alone
        ]
    return Tuned(key, protection, tuple(tried), _best(tried, protection), llm, slm)


def _protects(result: Result, protection: float) -> bool:
    return 1 - worst(result) >= protection - 1e-9


def _best(tried: Sequence[Result], protection: float) -> Result | None:
    return min((each for each in tried if _protects(each, protection)), key=perplexity, default=None)


def _between(tried: Sequence[Result], key: str, protection: float) -> float | None:
    """The midpoint of the best setting and the nearest cheaper one that does not protect."""
    best = _best(tried, protection)
    if best is None:
        return None
    value = best.system.parameters[key]
    cheaper = [
        each for each in tried if perplexity(each) < perplexity(best) and not _protects(each, protection)
    ]
    if not cheaper:
        return None
    nearest = min((each.system.parameters[key] for each in cheaper), key=lambda other: abs(other - value))
    return float(round((value + nearest) / 2, 4))
