"""What a calibration found, in words: comments of purify.toml, tables and sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from purify_hooks.calibration.measure import ScoredPassage, by_kind, perplexities
from purify_hooks.evaluation.table import Table

if TYPE_CHECKING:
    from purify_hooks.policies.calibration import Calibration
    from purify_plugins.policy import FusionPolicy

LONG = 40
"""Tokens of the passage in the examples."""
COPYING = "beside a copyist of what it has read"
FIELDS: Mapping[str, str] = {
    "budget": "nats by which a run of tokens may be surer than the SLM allows, before the LLM is limited",
    "doubt": "how much the LLM's own surprise counts against its sureness",
    "drain": "nats that a token takes off the ledger at most",
    "gap": "nats a token that the SLM is worse by on this text, and which are not counted",
    "gap_limit": "the most that the gap may become where it follows the text",
    "gap_from": "nats of the SLM's surprisal from which a token has the whole gap, below in proportion",
    "memory": "tokens over which the gap follows the text",
    "hedge": "the chance, at each token, that the other model becomes the better one",
    "numbers": "nats that one number may take, digit after digit",
    "opening": "nats by which the limit may be above what the level has been on average, up to the budget",
    "opening_in_code": "the same in code, which a memorised file would begin as suddenly",
}
"""The options of `balanced`, in a line each."""


def settings_table(options: Mapping[str, Any]) -> Table:
    """The settings and what each is."""
    rows = [(name, f"{value:g}", FIELDS.get(name, "")) for name, value in options.items()]
    return Table("balanced, calibrated", ("setting", "value", "what it is"), rows)


def text_table(passages: Sequence[ScoredPassage]) -> Table:
    """Both models' perplexity on each kind of text."""
    rows = []
    for kind, some in by_kind(passages).items():
        llm, slm = perplexities(some)
        rows.append(
            (kind, f"{sum(len(each.llm) for each in some)}", f"{llm:.3g}", f"{slm:.3g}", f"{slm / llm:.2f}")
        )
    return Table("the text", ("kind", "tokens", "LLM perplexity", "SLM perplexity", "SLM / LLM"), rows)


def meaning(found: Calibration, sample: str, copying: bool) -> list[str]:
    """What the settings mean, a sentence a line."""
    policy = found.policy
    return [
        f"On {sample}, {found.tokens:,} tokens, the LLM has perplexity {math.exp(found.llm):.3g} and the SLM "
        f"{math.exp(found.slm):.3g}" + (f", {COPYING}." if copying else "."),
        _met(found),
        *_in_code(found),
        passage(policy, found.slm),
    ]


def _met(found: Calibration) -> str:
    """How many tokens never met the limit, and why not more."""
    told = f"{1 - found.limited:.1%} of these tokens never met the limit"
    if found.over_budget < found.limited:
        told += f", and {1 - found.over_budget:.1%} never would without an opening"
    short = f" That is fewer than were wanted: the budget is at its largest, {found.policy.budget:g}."
    return f"{told}.{'' if found.enough else short}"


def _in_code(found: Calibration) -> list[str]:
    """What the limit costs code, where code has an opening of its own."""
    if found.policy.opening_in_code == math.inf:
        return []
    return [
        "In code the limit comes sooner, since a memorised file begins as suddenly as any text: it makes the "
        f"{found.code:,} tokens of code at most {math.exp(found.code_cost):.3g} times as perplexing, by "
        f"{found.code_cost:.2g} nats each on average."
    ]


def passage(policy: FusionPolicy, surprisal: float) -> str:
    """What the guarantee says of a passage whose every token costs the SLM `surprisal` nats."""
    told = f"A passage of {LONG} tokens that the SLM finds as unlikely as this text"
    allowed = policy.allowance(LONG, LONG * surprisal)
    if allowed is None:
        return f"{told} has no bound under this policy."
    nats = min(allowed - LONG * surprisal, 0.0)
    if nats == 0.0:
        return f"{told} is not bounded: only what the SLM finds less likely than ordinary text is."
    return (
        f"{told} has a probability of at most {_power(nats)} here, whatever the LLM memorised "
        f"({_power(-LONG * surprisal)} from the SLM alone)."
    )


def _power(nats: float) -> str:
    """e^nats as a power of ten."""
    return f"10^{nats / math.log(10):.0f}" if nats < -5 else f"{math.exp(nats):.2g}"
