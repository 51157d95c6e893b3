"""A guarantee in one sentence without formulas, with the policy's own values and an example."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

RARE = 1e-9
"""The SLM's probability of a passage in the examples: one in a thousand million."""
HARD = 4.0
"""What an unfamiliar passage costs the SLM in the examples, in nats a token."""
LONG = 50
"""The length of a passage in the examples, in tokens: about 35 words."""


def meant(method: Mapping[str, Any]) -> str:
    """A certificate's guarantee in one sentence, with its budget."""
    if method["mode"] == "slm-only":
        return "the LLM had no part in this answer"
    values = numbers(method["parameters"])
    try:
        return _SAID[method["guarantee"]](values)
    except KeyError:  # a third-party policy, whose options have other names
        return "the LLM could move this answer from the SLM by no more than the policy's budget"


def factor(nats: float) -> str:
    """e to the power of `nats`, rounded for reading."""
    if not math.isfinite(nats):
        return "without limit" if nats > 0 else "0"
    return f"{math.exp(nats):,.3g}" if abs(nats) < 15 else f"10^{nats / math.log(10):.1f}"


def numbers(parameters: Mapping[str, Any]) -> dict[str, float]:
    """The options that are numbers, those of a policy inside this one included."""
    found: dict[str, float] = {}
    for key, value in parameters.items():
        if isinstance(value, Mapping):
            found = {**numbers(value), **found}
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[key] = float(value)
    return found


def _none(_: Mapping[str, float]) -> str:
    return "nothing limits how far the LLM moved this answer; the figures say only how far it did"


def _mean(values: Mapping[str, float]) -> str:
    return (
        "averaged over all answers to this prompt, the LLM moves a token by at most "
        f"{values['budget']:g} nats (a factor of {factor(values['budget'])}); this one answer may have more"
    )


def _window(values: Mapping[str, float]) -> str:
    windows = math.ceil(LONG / values["window"])
    return (
        f"any {values['window']:g} tokens in a row are at most {factor(values['budget'])} times as likely as "
        f"from the SLM alone; for a passage of {LONG} tokens, which is {windows} such windows, that is "
        f"{factor(values['budget'] * windows)} times"
    )


def _passage(values: Mapping[str, float]) -> str:
    gap = max(values.get("gap", 0.0), values.get("gap_limit", 0.0))
    budget, root = values["budget"], 1 + values["doubt"]
    most = min(1.0, math.exp((budget + math.log(RARE)) / root))
    example = f"one to which the SLM gives 1 chance in {1 / RARE:,.0f} had at most 1 in {1 / most:,.0f} here"
    if gap:
        nats = max(0.0, (HARD - gap) * LONG - budget) / root
        example = (
            f"one of {LONG} tokens that cost the SLM {HARD:g} nats each had at most 1 in {factor(nats)} here"
        )
    return (
        "a passage that the SLM would hardly ever write stays unlikely, whatever the LLM memorised: "
        f"{example}, in one draw"
    )


def _path(values: Mapping[str, float]) -> str:
    return (
        "whatever this pair can say to this prompt is at most "
        f"{factor(values['total'])} times as likely as from the SLM alone"
    )


_SAID = {"none": _none, "mean": _mean, "window": _window, "passage": _passage, "path": _path}
