"""How likely a secret is if the LLM wants to tell it, from the SLM's figures for its tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from purify_plugins.plugin.manager import load_plugins
from purify_plugins.policy import FusionPolicy
from purify_plugins.testing import no_context

SURE = (1.0, 0.9, 0.7, 0.5, 0.35, 0.2, 0.1)
"""How sure the LLM says to be of each token, all along; the best for it counts."""
POLICIES = ("balanced", "windowed", "capped")


def told(policy: str, nats: Sequence[float]) -> float:
    """The most nats with which a text comes out whose tokens cost the SLM `nats`, each log q.

    Each row is the token and all others together: what the policies do to a row depends on no more of it. The
    prompt has spent nothing.
    """
    rule = load_plugins(()).policy(policy)
    return max(_told(rule, nats, sure) for sure in SURE)


def promised(policy: str | Mapping[str, Any], nats: Sequence[float]) -> float:
    """The most nats with which any LLM can have such a text said, at one place, by the policy's guarantee."""
    rule = load_plugins(()).policy(policy)
    most = rule.allowance(len(nats), -sum(nats))
    assert most is not None
    return min(most + sum(nats), 0.0)


def _told(rule: FusionPolicy, nats: Sequence[float], sure: float) -> float:
    state, token, total = rule.start(no_context(1, False)), torch.tensor([0]), 0.0
    for each in nats:
        slm, llm = (_row(chance) for chance in (math.exp(each), sure))
        fused = torch.log_softmax(rule.fuse(llm, slm, state), -1)
        state = rule.advance(state, token, llm, slm, fused)
        total += float(fused[0, 0])
    return total


def _row(chance: float) -> torch.Tensor:
    return torch.tensor([[chance, 1 - chance]]).clamp(min=1e-30).log()
