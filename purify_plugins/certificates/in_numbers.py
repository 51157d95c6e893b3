"""What a certificate's guarantee comes to for its own answer, as sentences with numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from purify_plugins.certificates.figures import tokens_of
from purify_plugins.certificates.guarantee_text import factor, numbers

LONG = 40
"""The length of the passage that the second sentence is about, in tokens."""


def largest_run(ratios: Sequence[float]) -> float:
    """The largest sum of adjacent values; 0 for the empty run."""
    best = here = 0.0
    for ratio in ratios:
        here = max(0.0, here + ratio)
        best = max(best, here)
    return best


def in_numbers(body: Mapping[str, Any]) -> list[str]:
    """How far any run of its tokens was raised, and the most that an average passage of it can have."""
    steps = tokens_of(body["steps"])
    if not steps:
        return []
    unit = "symbols" if body["models"]["slm"].get("alphabet") else "tokens"
    most = largest_run([step.fused - step.slm for step in steps])
    run = (
        f"no run of {unit} in this answer is more than {factor(most)} times as likely as from the SLM alone"
        if math.isfinite(most)
        else f"the SLM alone could not have written some of the {unit} in this answer"
    )
    average = -math.fsum(step.slm for step in steps) / len(steps)
    return [f"In numbers: {run}.", f"In numbers: {_passage(body['method'], average, unit)}."]


def _passage(method: Mapping[str, Any], average: float, unit: str) -> str:
    """Of a passage of `LONG` tokens that cost the SLM `average` nats each."""
    most = bound(method, LONG, LONG * average)
    such = f"a passage of {LONG} {unit} that the SLM finds as unlikely as this text's average"
    such += f", {average:.2f} nats each"
    if most is None:
        return f"how likely {such}, was to come out, nothing says in advance"
    if most >= 0:
        return f"of {such}, the bound says nothing; it speaks of less likely ones"
    return f"{such}, would have come out with probability below 1 in {factor(-most)} in one draw"


def bound(method: Mapping[str, Any], tokens: int, surprisal: float) -> float | None:
    """The log-probability (nats) that one passage has at most here; None: its guarantee bounds none.

    `surprisal` is what it costs the SLM, in nats.
    """
    values = numbers(method["parameters"])
    if method["guarantee"] == "window":
        return values["budget"] * math.ceil(tokens / values["window"]) - surprisal
    if method["guarantee"] == "path":
        return values["total"] - surprisal
    if method["guarantee"] == "passage":
        gap = max(values.get("gap", 0.0), values.get("gap_limit", 0.0))
        return (values["budget"] + gap * tokens - surprisal) / (1 + values["doubt"])
    return None
