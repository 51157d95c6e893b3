"""The claim of a certificate and its wording."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from purify_plugins.policy import FusionPolicy
from purify_plugins.sampling import Sampling
from purify_plugins.threat import Claim, Engine, Facts, claim, draws
from purify_plugins.types import Guarantee, Token

MEANING: Mapping[Guarantee, str] = {
    "none": "no bound is claimed; the figures are what this answer spent",
    "mean": "the average of log fused/slm over all answers to this prompt is within the policy's budget; "
    "a single answer may exceed it",
    "window": "in every run of `window` tokens, log fused/slm adds up to at most `budget` nats, so a passage "
    "of n tokens is at most exp(budget * ceil(n / window)) times as likely as from the SLM",
    "passage": "in every run of n tokens, (1 + doubt) * log fused - log slm adds up to at most budget + g * "
    "n nats, where g is the larger of `gap` and `gap_limit` (without them 0); so one run that "
    "spells a passage, to which the SLM gives probability q, has at most (exp(budget + g * n) * "
    "q) ** (1 / (1 + doubt)); N runs that spell one text, q in all, have together at most N ** "
    "(doubt / (1 + doubt)) times as much",
    "path": "log fused/slm adds up to at most `total` nats over the whole answer, so anything this model can "
    "say is at most exp(total) times as likely as from the SLM",
}
LIMITS = (
    "It bounds how far the untrusted model could move this answer from the benign one; it does not say that "
    "the text is free of copyrighted or private material.",
    "Text copied from the prompt or from retrieved context is not covered: both models read it.",
    "It is worth as much as the benign model: what that model knows by heart, the answer may contain.",
    "Probabilities of the benign model are those under the same sampling settings.",
    "It covers this one answer; budgets of several answers, retries and choices among them add up.",
    "It says nothing of truth, safety or bias, and is no legal advice.",
)


def mode_of(sampling: Sampling, steps: Sequence[Token]) -> str:
    """How the answer was drawn: "sampled", "greedy" or "slm-only"."""
    if steps and all(token.slm_only for token in steps):
        return "slm-only"
    return "greedy" if sampling.greedy else "sampled"


def claimed(
    policy: FusionPolicy,
    sampling: Sampling,
    walk: str,
    engines: tuple[Engine, Engine],
    steps: Sequence[Token],
    edits: Sequence[str] = (),
    llm_asked: bool = True,
    marked: bool = False,
) -> Claim:
    """The guarantee of an answer with these steps, the adversary it holds against, and the reason.

    `engines` ran the LLM and the SLM; `edits` are plugins' changes to the steps; `marked`: a watermark drew
    some of them. A guarantee needs the policy's own check (`holds`) that the steps satisfy its budget.
    """
    mode, source = mode_of(sampling, steps), draws(sampling, marked)
    kept = policy.holds(steps)
    return claim(Facts(policy.guarantee, mode, walk, source, *engines, tuple(edits), kept, llm_asked))
