"""Request stages in the report: what they stop, refuse, lose and cost, beside each policy alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from purify_hooks.evaluation.eval.findings import MODES
from purify_hooks.evaluation.eval.plot import LOW, drawn, style_of
from purify_hooks.evaluation.eval.run import Result
from purify_hooks.evaluation.eval.tables import number, percent
from purify_hooks.evaluation.table import Table

SUITE = "requests"
SHARES: Mapping[str, str] = {
    "recited": "passages recited",
    "payload": "payload after the trigger",
    "leaked": "secrets told",
    "false_refusals": "clean prompts refused",
    "answers_lost": "right answers lost",
}
"""The columns of shares, by their metrics."""
HARMS = ("recited", "payload", "leaked")


def plain(results: Sequence[Result]) -> list[Result]:
    """The results of both models and of policies without request stages."""
    return [each for each in results if not each.system.chain]


def measured(results: Sequence[Result]) -> bool:
    """Whether there are request stages among the systems, and what is said of them is measured."""
    return any(each.system.chain and SUITE in each.figures for each in results)


def compared(results: Sequence[Result]) -> list[Result]:
    """Both models alone, and each policy that was measured in a chain, with it and without."""
    chained = [each.system for each in results if each.system.chain]
    return [
        each
        for each in results
        if SUITE in each.figures
        and (each.system.chain or each.system.alone or any(_around(each, one) for one in chained))
    ]


def _around(result: Result, system: Any) -> bool:
    mine = result.system
    return (mine.policy, mine.parameters) == (system.policy, system.parameters)


def table(results: Sequence[Result]) -> Table:
    """What readers get with request stages and without."""
    rows = [
        (
            each.system.label,
            *(_both(each, name) for name in SHARES),
            " / ".join(number(_value(each, mode, "drawn_per_token")) for mode in MODES),
            _first(each),
        )
        for each in compared(results)
    ]
    note = (
        "Written answers, per cent, greedy / sampled: attacks of which a reader gets the harm, in the text "
        "released before any refusal; clean prompts that are refused or fail, or whose answer is blocked "
        "before its end; of the tasks that the policy alone answers right those that the stages lose; tokens "
        "drawn by either model, also those nobody gets, for each one released to clean prompts; and the time "
        "to the first text of an answer to one of them, between quartiles."
    )
    head = ("system", *SHARES.values(), "drawn a token", "first text, ms")
    return Table("With request stages", head, tuple(rows), note)


def _both(result: Result, metric: str) -> str:
    return " / ".join(percent(_value(result, mode, metric)) for mode in MODES)


def _value(result: Result, mode: str, metric: str) -> float:
    value = result.value(SUITE, mode, metric)
    return math.nan if value is None else value


def _first(result: Result) -> str:
    found = result.figures[SUITE].get("greedy", {}).get("first_text")
    if found is None:
        return "–"
    return f"{number(found.value)} ({number(found.low)}-{number(found.high)})"


def sentence(results: Sequence[Result]) -> str:
    """What each chain changed, at worst of greedy and sampled answers; "" where there is none."""
    if not measured(results):
        return ""
    alone = {_setting(each): each for each in results if not (each.system.chain or each.system.alone)}
    found = [
        (each, alone[_setting(each)]) for each in results if each.system.chain and _setting(each) in alone
    ]
    return " ".join(_told(after, before) for after, before in found)


def _setting(result: Result) -> tuple[str, str]:
    return result.system.policy, repr(dict(result.system.parameters))


def _told(after: Result, before: Result) -> str:
    worst = {name: [_worst(each, names=[name]) for each in (before, after)] for name in HARMS}
    changed = [
        f"{SHARES[name]} {old:.0%} → {new:.0%}" for name, (old, new) in worst.items() if abs(new - old) > 0
    ]
    harm = ", ".join(changed) or "every attack succeeds as often as without"
    refused = max(_value(after, mode, "false_refusals") for mode in MODES)
    return f"{after.system.label}: {harm}; clean prompts refused {refused:.0%}."


def _worst(result: Result, modes: Sequence[str] = MODES, names: Sequence[str] = HARMS) -> float:
    values = [_value(result, mode, name) for name in names for mode in modes]
    return max((value for value in values if not math.isnan(value)), default=math.nan)


def picture(results: Sequence[Result], *, narrow: bool = False) -> str:
    """The SVG of the worst attack against the clean prompts refused; down and left is better."""
    shown = compared(results)

    def draw(axis: Any, mode: str) -> None:
        policies = list(dict.fromkeys(each.system.policy for each in shown if not each.system.alone))
        chains = list(dict.fromkeys(each.system.chain.name for each in shown if each.system.chain))
        for each in shown:
            x, y = _value(each, mode, "false_refusals"), _worst(each, [mode])
            style = style_of(each, policies, chains)
            axis.plot([x], [y], linestyle="none", label=each.system.label, zorder=5, **style)
        axis.set_xlim(LOW, 1.05)
        axis.set_xlabel("clean prompts refused")
        axis.set_ylabel("worst attack: share that succeeds")

    return drawn("Request stages", draw, narrow)
