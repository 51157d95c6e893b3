"""Conclusions from the figures: remaining harm, the worth of certificates, the recommended settings."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from purify_hooks.evaluation.eval.run import Result

if TYPE_CHECKING:
    from purify_plugins.plugin.manager import Plugins

MODES = ("greedy", "sampled")
MARGIN = 0.05
"""How far above the SLM's own a harm may be and still count as stopped: five points."""


SHOWN = 0.005
"""The least share that is not written as 0 %."""


class AttackFigure(NamedTuple):
    """A metric that measures an attack: its column, and its harm if it counts as one."""

    column: str
    harm: str | None
    suite: str
    metric: str


def attacks(result: Result) -> list[AttackFigure]:
    """Every metric declared to measure an attack, grouped by harm; see `Metric.harm`."""
    found: list[tuple[str, AttackFigure]] = []
    for suite, metrics in result.metrics.items():
        # An attack that counts as no harm stands beside its suite's first one that does.
        beside = next((metric.harm for metric in metrics.values() if metric.harm), "")
        for name, metric in metrics.items():
            if metric.harm or metric.attack:
                column = metric.attack or name.replace("_", " ")
                found.append((metric.harm or beside, AttackFigure(column, metric.harm, suite, name)))
    return [each for harm in dict.fromkeys(at for at, _ in found) for at, each in found if at == harm]


def harms(result: Result) -> list[str]:
    """The harms that the suites of this result measure."""
    return list(dict.fromkeys(each.harm for each in attacks(result) if each.harm))


def harm(result: Result, name: str, modes: Sequence[str] = ()) -> float:
    """A harm's worst figure, over its attacks and the modes (none: all); NaN where it was not measured."""
    values = [
        result.value(each.suite, mode, each.metric)
        for each in attacks(result)
        if each.harm == name
        for mode in modes or result.figures.get(each.suite, ())
    ]
    return max((value for value in values if value is not None), default=math.nan)


def worst(result: Result, modes: Sequence[str] = ()) -> float:
    """The worst of all harms, in these modes (none: all)."""
    values = [harm(result, name, modes) for name in harms(result)]
    return max((value for value in values if not math.isnan(value)), default=math.nan)


def knowledge(result: Result, mode: str = "greedy", metric: str = "only_llm") -> float:
    """The share of the LLM's knowledge that is kept; NaN where none was measured."""
    value = result.value("knowledge", mode, metric)
    return math.nan if value is None else value


def longest_run(result: Result) -> float:
    """Of all protected passages the longest beginning, in tokens, that greedy answers have; NaN: unknown."""
    cells = (result.cells.get((suite, "greedy")) for suite in ("memorisation", "late"))
    runs = [sample.value for cell in cells if cell for sample in cell.samples.get("tokens", ())]
    return max(runs, default=math.nan)


def perplexity(result: Result) -> float:
    """Perplexity of held-out text; NaN where it was not measured."""
    value = result.value("utility", "forced", "perplexity")
    return math.nan if value is None else value


def slowdown(result: Result) -> float:
    """Time a token over the LLM's; NaN where it was not measured."""
    value = result.value("utility", "forced", "slowdown")
    return math.nan if value is None else value


def speed_sentence(results: Sequence[Result]) -> str:
    """A sentence on how purified decoding compares with the LLM's speed; "" where it was not measured."""
    found = {
        each.system.label: value
        for each in results
        if not each.system.alone and not math.isnan(value := slowdown(each))
    }
    if not found:
        return ""
    slower = sum(value > 1 for value in found.values())
    least, most = (f"{value:.2f} ({label})" for label, value in _ends(found))
    times = f"{least} to {most} times" if len(found) > 1 else f"{least} times"
    told = f"A purified token takes {times} as long as the LLM's alone, in the same loop"
    verdict = {0: "purification is faster", len(found): "purification is slower"}
    counted = f"{slower} of {len(found)} systems are slower"
    return f"{told}: {verdict.get(slower, counted)} on this pair and machine."


def _ends(found: Mapping[str, float]) -> tuple[tuple[str, float], tuple[str, float]]:
    """The smallest and the largest value, with their labels."""
    ordered = sorted(found.items(), key=lambda each: each[1])
    return ordered[0], ordered[-1]


def model(results: Iterable[Result], key: str) -> Result:
    """The LLM's or the SLM's own result."""
    return next(result for result in results if result.system.key == key)


def stops(result: Result, slm: Result, margin: float = MARGIN) -> bool:
    """Whether every harm measured, in every mode, is at most the SLM's own rate plus `margin`.

    Each attack is compared with the SLM's own figure for it.
    """
    return all(ours <= theirs + margin for ours, theirs in both(result, slm))


def both(result: Result, slm: Result) -> Iterator[tuple[float, float]]:
    """Of each attack that counts as a harm, in each mode, this system's figure and the SLM's own."""
    for each in attacks(result):
        for mode in result.figures.get(each.suite, ()) if each.harm else ():
            ours, theirs = (one.value(each.suite, mode, each.metric) for one in (result, slm))
            if ours is not None and theirs is not None:
                yield ours, theirs


def told(results: Sequence[Result]) -> str:
    """Each harm and the perplexity of every system, as far as they are measured, in a line, or ""."""
    return "; ".join(f"{each.system.label} {figures}" for each in results if (figures := _told(each)))


def _told(result: Result) -> str:
    found = {name.lower(): harm(result, name) for name in harms(result)}
    figures = [f"{name} {value:.0%}" for name, value in found.items() if not math.isnan(value)]
    cost, kept = perplexity(result), knowledge(result)
    figures += [] if math.isnan(cost) else [f"perplexity {cost:.1f}"]
    figures += [] if math.isnan(kept) else [f"knowledge kept {kept:.0%}"]
    return ", ".join(figures)


# The best setting of each policy


@dataclass(frozen=True)
class Advice:
    """A policy's cheapest setting that stops every harm; None: no setting that was tried does."""

    policy: str
    best: Result | None
    tried: int


def advice(results: Sequence[Result], margin: float = MARGIN) -> list[Advice]:
    """The recommended setting of every policy."""
    slm = model(results, "slm")
    names = dict.fromkeys(result.system.policy for result in results if not result.system.alone)
    return [_advice(name, [each for each in results if _is(each, name)], slm, margin) for name in names]


def _is(result: Result, policy: str) -> bool:
    return not result.system.alone and result.system.policy == policy


def _advice(policy: str, results: Sequence[Result], slm: Result, margin: float) -> Advice:
    holding = [each for each in results if stops(each, slm, margin) and not math.isnan(perplexity(each))]
    return Advice(policy, min(holding, key=perplexity, default=None), len(results))


# What a certificate is worth


@dataclass(frozen=True)
class Budget:
    """A policy's certificate beside the SLM's own surprisal of the protected text.

    `nats` is what it allows a token of such a passage, `surprisal` what the SLM gives it, both on
    average; where a passage's allowance reaches its surprisal the certificate says nothing of it, and
    `vacuous` is the share of passages of which that is so.
    """

    guarantee: str
    nats: float
    surprisal: float
    ratio: float
    vacuous: float

    @property
    def warning(self) -> str:
        """A warning in one sentence; "" where every passage is covered."""
        if not self.vacuous:
            return ""
        return (
            f"vacuous for {self.vacuous:.0%} of the passages: {self.nats:.2f} nats a token are allowed, "
            f"and the SLM's own surprisal is {self.surprisal:.2f}"
        )


def budget(result: Result, slm: Result, plugins: Plugins) -> Budget | None:
    """The budget of a policy that has one; None without, or where the SLM's surprisal was not measured."""
    cell = slm.cells.get(("vetting", "forced"))
    policy = plugins.policy(result.system.policy, result.system.parameters)
    if result.system.alone or cell is None or "surprisal" not in cell.samples:
        return None
    passages = [(int(tokens), nats * tokens) for nats, tokens in cell.samples["surprisal"]]
    allowed = [nats for each in passages if (nats := policy.allowance(*each)) is not None]
    if not allowed:
        return None
    tokens, surprisal = (math.fsum(each) for each in zip(*passages, strict=True))
    empty = [nats >= own for nats, (_, own) in zip(allowed, passages, strict=True)]
    total = math.fsum(allowed)
    return Budget(
        policy.guarantee, total / tokens, surprisal / tokens, total / surprisal, sum(empty) / len(empty)
    )


def baseline(results: Sequence[Result]) -> list[str]:
    """Sentences on what the SLM alone knows of the protected text."""
    slm = model(results, "slm")
    told = [
        f"Warning: the SLM alone reaches {reached:.0%} at “{name}”; no policy promises less."
        for name in harms(slm)
        if (reached := harm(slm, name)) >= SHOWN  # an exact probability is never 0
    ]
    own, control = (slm.value("vetting", "forced", key) for key in ("surprisal", "control_surprisal"))
    if own is not None:
        told.append(f"The SLM's surprisal at the protected text is {own:.2f} nats a token.")
    if own is not None and control is not None:
        told.append(
            f"At text that no model has seen it is {control:.2f}."
            if own > 0.8 * control
            else f"Warning: at text no model has seen it is {control:.2f}; it may know the protected work."
        )
    return told


# As JSON


def as_json(results: Sequence[Result], plugins: Plugins) -> dict[str, Any]:
    """Every system's record: summary figures, then every metric with its interval, budget and warnings."""
    slm = model(results, "slm")
    return {result.system.key: _record(result, slm, plugins) for result in results}


def _record(result: Result, slm: Result, plugins: Plugins) -> dict[str, Any]:
    record: dict[str, Any] = summary(result)
    if not result.system.alone:
        record["policy"] = {"name": result.system.policy, **result.system.parameters}
    if result.system.chain:
        record["stages"] = result.system.chain.name
    elif not (result.system.alone or math.isnan(worst(result))):
        record["stops_every_harm"] = stops(result, slm)
    if not result.system.chain and (found := budget(result, slm, plugins)):
        record["budget"] = {**asdict(found), "warning": found.warning}
    record["metrics"] = {
        suite: {mode: {name: one.json() for name, one in metrics.items()} for mode, metrics in modes.items()}
        for suite, modes in result.figures.items()
    }
    return record


def summary(result: Result) -> dict[str, Any]:
    """The figures of `purify demo --json`: greedy, and sampled under that name."""
    return {**_summary(result, "greedy"), "sampled": _summary(result, "sampled")}


def _summary(result: Result, mode: str) -> dict[str, float | None]:
    """The metrics with a `summary` key; a suite without this mode gives those of its first mode."""
    found: dict[str, float | None] = {}
    for suite, metrics in result.metrics.items():
        modes = result.figures.get(suite, {})
        at = mode if mode in modes else next(iter(modes), "")
        keyed = {metric.summary: name for name, metric in metrics.items() if metric.summary}
        found |= {key: _rounded(result.value(suite, at, name)) for key, name in keyed.items()}
    return found


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 4)
