"""What may be claimed of an answer, and in which words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from purify_plugins.types import Bounded, FusionPolicy, Guarantee, Sampling, Token

MEANING: Mapping[Guarantee, str] = {
    "none": "no bound is claimed; the figures are what this answer spent",
    "mean": "the average of log fused/slm over all answers to this prompt is within the policy's budget; "
    "a single answer may exceed it",
    "window": "in every run of `window` tokens, log fused/slm adds up to at most `budget` nats, so a passage "
    "of n tokens is at most exp(budget * ceil(n / window)) times as likely as from the SLM",
    "passage": "in every run of tokens, (1 + doubt) * log fused - log slm adds up to at most `budget` nats, "
    "so a passage to which the SLM gives probability q has at most (exp(budget) * q) ** (1 / (1 + doubt))",
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


def valid_guarantee(
    policy: FusionPolicy, mode: str, steps: Sequence[Token], edits: Sequence[str] = ()
) -> tuple[Guarantee, str]:
    """What holds of an answer of these steps, drawn in this mode, and why.

    `edits` are what plugins did to the steps on their way. Nothing is claimed that the steps do not show:
    a policy must say of them that they keep its budget.
    """
    if mode == "greedy":
        return "none", "greedy decoding takes the arg-max, which no budget bounds; see totals.surprisal"
    if mode == "slm-only":
        return "none", "every token is the benign model's own; the untrusted one had no part in it"
    if policy.guarantee == "none":
        return "none", "this policy bounds nothing in advance"
    if edits:
        return "none", f"a plugin {' and '.join(edits)}, so these are not the steps that were drawn"
    if not isinstance(policy, Bounded):
        return "none", "the policy has no `holds`, so nothing shows that the steps keep its budget"
    if not policy.holds(steps):
        return "none", "the recorded steps exceed the policy's budget"
    return policy.guarantee, "every token was drawn from the fused row, and nothing was applied after it"
