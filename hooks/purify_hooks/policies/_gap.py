"""What follows the text: the gap between the two models, and which of them predicts it better."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ._base import wide

if TYPE_CHECKING:
    from torch import Tensor

CLIP = (-3.0, 5.0)
"""Nats between which a token's log p_llm/p_slm counts: one name must not raise the gap for a page."""
LEARNING = 0.5
"""How much of a token's log p_slm/p_llm is evidence in a hedge: one surprise makes no worse model."""
SLOWER = 4.0
"""Over how many times the gap's tokens the level is averaged: a recitation must not raise what limits it."""
MOST_WEIGHT = 0.5
"""What the SLM has in a hedge at most, so that what only the LLM knows can still be said."""


def gap_share(slm: Tensor, least: float) -> Tensor | float:
    """The share of the gap (rows,) that tokens have, by the SLM's log-probabilities of them (rows,).

    All of it from a surprisal of `least` nats, in proportion below; 0: always all.
    """
    return (slm / -least).clamp(0.0, 1.0) if least else 1.0


def followed_gap(
    gap: Tensor, llm: Tensor, slm: Tensor, memory: float, limit: float, share: Tensor | float = 1.0
) -> Tensor:
    """The gap (rows,) after a token of these log-probabilities (rows,): an exponential average in nats.

    It is the mean of log p_llm/p_slm over about `memory` tokens, between 0 and `limit`; a token that has a
    `share` of the gap counts by it.
    """
    ratio = (llm - slm).nan_to_num(nan=0.0, posinf=CLIP[1], neginf=CLIP[0]).clamp(*CLIP)
    return (gap + share * (ratio - gap) / memory).clamp(0.0, limit)


def slow_average(usual: Tensor, level: Tensor, memory: float) -> Tensor:
    """The level's exponential average (rows,), in nats, over `SLOWER` times `memory` tokens."""
    return usual + (level - usual) / (SLOWER * memory)


def posterior(weight: Tensor, llm: Tensor, slm: Tensor, share: float) -> Tensor:
    """The SLM's weight (rows,) after a token of these log-probabilities (rows,), by the fixed-share rule.

    Bayes' rule at half the pace, after which a share of each weight goes to the other model; from `share` to
    `MOST_WEIGHT`. Source: Herbster and Warmuth, "Tracking the best expert" (1998).
    """
    evidence = LEARNING * (slm - llm).nan_to_num(nan=0.0, posinf=math.inf, neginf=-math.inf)
    return (share + (1 - 2 * share) * (weight.logit() + evidence).sigmoid()).clamp(max=MOST_WEIGHT)


def hedged(capped: Tensor, slm: Tensor, weight: Tensor) -> Tensor:
    """log((1 - w) r + w p_slm), (rows, V), of log-probabilities (rows, V) and the SLM's weights (rows,)."""
    import torch

    slm, weight = wide(slm), weight[:, None].to(capped.dtype)
    return torch.logaddexp(capped + (1 - weight).log(), slm + weight.log())
