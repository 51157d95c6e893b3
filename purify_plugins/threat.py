"""Whom a guarantee holds against, and what voids it: the one place that says what an answer may claim.

The reasons are in docs/threat-model.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

from purify_plugins.errors import ConfigError

if TYPE_CHECKING:
    from purify_plugins.sampling import Sampling
    from purify_plugins.types import Guarantee

Engine = Literal["in-process", "trusted", "untrusted"]
"""What runs a model: this process, a server the operator vouches for, or a server that may do anything."""
VOUCHED = ("in-process", "trusted")
"""The engines that may be shown a draft; whatever is not among them is not trusted."""
Adversary = Literal["none", "weights", "engine"]
"""What a guarantee holds against; each of the ladder's rungs can do all that those before it can.

"weights": a model that is out to break the bound, in an engine that shows it tokens in their order. "engine":
a server that says whatever it likes, and sees prompts, timing and all tokens drawn before.
"""
Draws = Literal["system", "keyed"]
"""Where an answer's random numbers came from: the operating system, or a secret and a seed."""
DRAFTED = "speculative"
"""The walk in which the LLM is shown tokens before it has said how likely they are."""


class Facts(NamedTuple):
    """What happened, as far as a claim follows from it.

    `claimed` is the policy's guarantee, `mode` how tokens were taken from the fused rows ("sampled",
    "greedy", "slm-only"), `llm` and `slm` what ran the two models. `edits` are what plugins did to the
    steps on their way, `kept` says whether the steps keep the policy's budget (None: it cannot tell).
    """

    claimed: Guarantee
    mode: str
    walk: str
    draws: Draws
    llm: Engine
    slm: Engine
    edits: tuple[str, ...] = ()
    kept: bool | None = True


class Claim(NamedTuple):
    """What an answer may claim, against whom, and why."""

    guarantee: Guarantee
    adversary: Adversary
    reason: str


def claim(facts: Facts) -> Claim:
    """What follows from the facts; nothing else decides what a certificate claims."""
    if reason := voided(facts):
        return Claim("none", "none", reason)
    reason = "every token was drawn from the fused row, and nothing was applied after it"
    blind = facts.walk != DRAFTED and facts.draws == "system"
    return Claim(facts.claimed, "engine" if blind else "weights", reason)


def voided(facts: Facts) -> str:
    """What leaves this answer without any guarantee; empty: nothing does."""
    if facts.mode == "greedy":
        return "greedy decoding takes the arg-max, which no budget bounds; see totals.surprisal"
    if facts.mode == "slm-only":
        return "every token is the benign model's own; the untrusted one had no part in it"
    if facts.claimed == "none":
        return "this policy bounds nothing in advance"
    if facts.edits:
        return f"a plugin {' and '.join(facts.edits)}, so these are not the steps that were drawn"
    if facts.kept is None:
        return "the policy has no `holds`, so nothing shows that the steps keep its budget"
    if not facts.kept:
        return "the recorded steps exceed the policy's budget"
    return _distrusted(facts)


def _distrusted(facts: Facts) -> str:
    """What an engine that nobody vouches for could have done; empty: nothing."""
    if facts.slm not in VOUCHED:
        return "the benign model's rows are an untrusted engine's word, and nothing is bounded by those"
    if facts.llm in VOUCHED:
        return ""
    if facts.walk == DRAFTED:
        return "an untrusted engine was shown the draft before it said how likely the tokens were"
    if facts.draws == "keyed":
        return "an untrusted engine that is asked a seed twice knows its draws the second time"
    return ""


def draws(sampling: Sampling) -> Draws:
    """Where an answer with these settings gets its random numbers."""
    return "system" if sampling.seed is None else "keyed"


def require_draftable(engine: Engine) -> None:
    """Raise ConfigError for an engine that must not see what may come next before it has said its row."""
    if engine not in VOUCHED:
        raise ConfigError(
            "walk 'speculative' shows the LLM's engine what may come next before it says how likely that is; "
            "leave it at 'auto', or vouch for the server with engine = \"trusted\" under [llm]"
        )


def weakest(*engines: Engine) -> Engine:
    """What must be supposed of a source that several engines have a part in."""
    if any(each not in VOUCHED for each in engines):
        return "untrusted"
    return "trusted" if "trusted" in engines else "in-process"


def require_known(who: str, engine: object) -> None:
    """Raise ConfigError for an engine that is none of the three words: no claim could be made of it."""
    if engine not in get_args(Engine):
        known = ", ".join(map(repr, get_args(Engine)))
        raise ConfigError(f"the engine of {who} must be one of {known}, not {engine!r}")
