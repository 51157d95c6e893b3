"""How an ensemble's candidates differ: approaches, personas, and the order of options."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from random import Random

from purify_hooks.stages.wording import options_at, reworded
from purify_plugins.stages.request import Request

WAYS = {
    "approaches": (
        "Name {n} different approaches to answering this, one a line. Do not answer it.",
        "Answer with this approach: {way}.",
    ),
    "personas": (
        "Name {n} different kinds of expert who could answer this well, one a line. Do not answer it.",
        "Answer as {way} would.",
    ),
}
"""What varies -> what the SLM is asked, and what a candidate is asked in addition."""


def ways_question(vary: str, n: int) -> Callable[[str], str]:
    """The question for `n` approaches or personas."""
    return lambda question: f"{question}\n\n{WAYS[vary][0].format(n=n)}"


def with_way(request: Request, vary: str, way: str) -> Request:
    """The request to be answered in one way; as it is where that is empty."""
    # A text may hold braces: it is put in by replacing, never by formatting.
    asked = WAYS[vary][1].replace("{way}", way.strip().rstrip("."))
    return reworded(request, lambda text: f"{asked}\n\n{text}") if way else request


def shuffled(request: Request, candidate: int) -> Request:
    """The request with its lettered options in another order for each candidate; candidate 0 as it is.

    An option keeps its letter, so that the answers can be compared, and released as they are. The order
    depends on the options and the candidate alone. A request without options stays as it is.
    """
    return reworded(request, lambda text: _shuffled(text, candidate)) if candidate else request


def _shuffled(text: str, candidate: int) -> str:
    lines = text.split("\n")
    places = options_at(lines)
    options = [lines[at] for at in places]
    key = hashlib.sha256("\n".join((*options, str(candidate))).encode()).digest()
    lines[places.start : places.stop] = Random(key).sample(options, len(options))
    return "\n".join(lines)
