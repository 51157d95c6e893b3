"""The claim of an answer, the adversary it holds against, and what voids it; nothing else decides this.

The reasons are in docs/threat-model.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

from purify_plugins.errors import ConfigError

if TYPE_CHECKING:
    from purify_plugins.sampling import Sampling
    from purify_plugins.types import Guarantee

Engine = Literal["in-process", "trusted", "untrusted"]
"""The engine of a model: this process, a server the operator trusts, or any other server."""
VOUCHED = ("in-process", "trusted")
"""The engines that may see a draft; any other is untrusted."""
Adversary = Literal["none", "weights", "engine"]
"""The adversary of a guarantee; each one can do everything that those before it can."""
ADVERSARIES: Mapping[Adversary, str] = {
    "none": "nobody: nothing is claimed",
    "weights": "an adversarial model in an honest engine, which shows it tokens in their order: its rows "
    "depend on the tokens before them and on nothing else, and it may have been trained on this code, on "
    "the SLM and on the attack",
    "engine": "a server that returns arbitrary rows, and sees prompts, timing and all tokens drawn before",
}
"""Adversary -> what it can do."""
TRUST: tuple[tuple[str, str, str], ...] = (
    (
        "the operator",
        "all of it: the configuration, the secret, which model is the SLM, which servers are vouched for",
        "",
    ),
    ("this process, its Python and its host", "the draws, the fusion, the certificate, the secret", ""),
    (
        "plugins that the configuration names",
        "as much as this process; what they do to an answer's steps is seen and recorded",
        "",
    ),
    ("the SLM", "being harmless: every bound is against it", ""),
    ("the SLM's engine", "saying what the SLM says", ""),
    ("the LLM's weights", "nothing", "they may be trained to break the bound, and know all our code"),
    (
        "the LLM's engine, in-process or trusted",
        "running the weights: rows that depend on nothing after them, no fault on purpose",
        "",
    ),
    ("the LLM's engine, untrusted", "nothing but prompts, which it reads", "rows, timing, faults"),
    ("the network to a server", "as much as that server: TLS and its certificates are the system's", ""),
    ("the reader", "nothing", "picks prompts, seeds, settings, stops; asks again"),
)
"""Who is trusted with what, and with what not."""
Draws = Literal["system", "keyed", "marked"]
"""The source of an answer's random numbers: the operating system, a secret and a seed, or a watermark's key
and the tokens before."""
DRAFTED = "speculative"
"""The decoding strategy in which the LLM sees tokens before it has returned their probabilities."""
IN_ENGINE = "in-engine"
"""No strategy of ours: the LLM's own engine decoded, and tokens were drawn inside it."""


INSIDE = "every token was drawn from the fused row inside the LLM's engine, which issued this"


class Facts(NamedTuple):
    """The facts that a claim follows from.

    `claimed` is the policy's guarantee, `mode` how tokens were taken from the fused rows ("sampled",
    "greedy", "slm-only"), `walk` the decoding strategy, `llm` and `slm` the engines of the two models.
    `edits` are plugins' changes to the steps; `kept`: whether the steps satisfy the policy's budget (None:
    unknown). `llm_asked`: whether the LLM was sent anything.
    """

    claimed: Guarantee
    mode: str
    walk: str
    draws: Draws
    llm: Engine
    slm: Engine
    edits: tuple[str, ...] = ()
    kept: bool | None = True
    llm_asked: bool = True


class Claim(NamedTuple):
    """A guarantee, the adversary it holds against, and the reason."""

    guarantee: Guarantee
    adversary: Adversary
    reason: str


def claim(facts: Facts) -> Claim:
    """The claim that follows from the facts; nothing else decides what a certificate claims."""
    if reason := voided(facts):
        return Claim("none", "none", reason)
    if facts.walk == IN_ENGINE:
        return Claim(facts.claimed, "weights", INSIDE)
    reason = "every token was drawn from the fused row, and nothing was applied after it"
    if facts.draws == "marked":
        reason += "; it holds while nothing that the models read tells of the watermark's draws"
    blind = facts.walk != DRAFTED and facts.draws == "system"
    return Claim(facts.claimed, "engine" if blind else "weights", reason)


def voided(facts: Facts) -> str:
    """Why this answer has no guarantee; empty: it has one."""
    if facts.mode == "greedy":
        return "greedy decoding takes the arg-max, which no budget bounds; see totals.surprisal"
    if not facts.llm_asked:
        return "every token is the benign model's own; the untrusted one was not asked, and was sent nothing"
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
    """The attack that an untrusted engine could have run; empty: none."""
    if facts.slm not in VOUCHED:
        return "the benign model's rows are an untrusted engine's word, and nothing is bounded by those"
    if facts.llm in VOUCHED:
        return ""
    if facts.walk == IN_ENGINE:
        return "an untrusted engine drew the tokens itself, and this is its own word"
    if facts.walk == DRAFTED:
        return "an untrusted engine was shown the draft before it said how likely the tokens were"
    if facts.draws == "keyed":
        return "an untrusted engine that is asked a seed twice knows its draws the second time"
    if facts.draws == "marked":
        return "an untrusted engine that remembers marked answers knows draws of the same watermark"
    return ""


def draws(sampling: Sampling, marked: bool = False) -> Draws:
    """The source of the random numbers of an answer with these settings; `marked`: some of its tokens are."""
    if marked:
        return "marked"
    return "system" if sampling.seed is None else "keyed"


def require_markable(engine: Engine) -> None:
    """Raise ConfigError for an LLM's engine that may remember what a watermark drew."""
    if engine not in VOUCHED:
        raise ConfigError(
            "a watermark draws alike after the same tokens, and an untrusted engine may remember what was "
            'drawn after them: no guarantee would hold; vouch for the server with engine = "trusted" under '
            "[llm], or leave [watermark] out"
        )


def require_draftable(engine: Engine) -> None:
    """Raise ConfigError for an engine that must not see a draft before it has returned its row."""
    if engine not in VOUCHED:
        raise ConfigError(
            "walk 'speculative' shows the LLM's engine what may come next before it says how likely that "
            "is; leave it at 'auto', or vouch for the server with engine = \"trusted\" under [llm]"
        )


def weakest(*engines: Engine) -> Engine:
    """The engine to assume for a source that several engines have a part in."""
    if any(each not in VOUCHED for each in engines):
        return "untrusted"
    return "trusted" if "trusted" in engines else "in-process"


def require_known(who: str, engine: object) -> None:
    """Raise ConfigError for an engine that is none of the three known ones."""
    if engine not in get_args(Engine):
        known = ", ".join(map(repr, get_args(Engine)))
        raise ConfigError(f"the engine of {who} must be one of {known}, not {engine!r}")
