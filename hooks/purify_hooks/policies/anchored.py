"""Anchored Decoding: as near the LLM as a saved budget of KL allows."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING, ClassVar, Self

from purify_plugins.policy import Context, FusionPolicy, State
from purify_plugins.types import Guarantee, Token

from ._base import ledger, require, require_count, scaled, slack, wide
from ._path import Path, Point

if TYPE_CHECKING:
    from torch import Tensor

SLACK = 1e-5  # nats of a step's allowance that the solver may leave unused


@dataclass(frozen=True)
class Anchored(FusionPolicy):
    """Stay within `budget` nats of KL(r‖p_slm) per token on average; what is saved may be spent later.

    r ∝ p_slm^(1-θ) p_llm^θ with the largest θ whose KL(r‖p_slm) ≤ max(0, (t + 1) budget - spent -
    debt): the distribution nearest the LLM within the allowance. The debt is the mean of the `debt_tokens`
    largest log p_llm/p_slm in the prompt, each at least 0; `prefix_debt = false` starts without.

    Guarantee "mean", for draws: KL(answers‖SLM's answers) ≤ budget x tokens. It is an average, not a
    bound on one answer, and says nothing of an arg-max.
    Source: 2602.07120, the token-level algorithm.
    """

    name: ClassVar[str] = "anchored"
    sweep = ("budget", (0.05, 0.15, 0.5, 1.0, 2.0))
    guarantee: ClassVar[Guarantee] = "mean"

    budget: float = 0.15
    prefix_debt: bool = True
    debt_tokens: int = 5

    def __post_init__(self) -> None:
        require(self, "budget", lambda budget: 0 <= budget < math.inf, "a number of nats, 0 or more")
        require_count(self, "debt_tokens")

    @property
    def lookback(self) -> int:
        return sys.maxsize if self.prefix_debt else 0

    def in_symbols(self, per_token: float) -> Self:
        """The same allowance per token, shared out over its `per_token` symbols."""
        return replace(self, budget=self.budget / per_token)

    def tightened(self, factor: float) -> Self:
        """`budget` times this factor; the prompt's debt stays."""
        return scaled(self, factor, "budget")

    def allowance(self, tokens: int, surprisal: float) -> float:
        """The most nats of KL that answers of so many tokens may be from the SLM's, on average."""
        return self.budget * tokens

    def holds(self, steps: Sequence[Token]) -> bool:
        """Whether an answer's recorded steps keep this budget, after every one of them."""
        over = accumulate(step.kl - self.budget - slack([step]) for step in steps)
        return all(nats <= 0 for nats in over)

    def start(self, context: Context) -> State:
        """How many nats each answer (rows,) has saved: none yet, less its prompt's debt."""
        if not self.prefix_debt:
            return (ledger(context),)
        ratios = (context.llm - context.slm).nan_to_num(nan=0.0).clamp(min=0.0)
        top = ratios.topk(min(self.debt_tokens, ratios.shape[1]), dim=-1).values.sum(dim=-1)
        return (ledger(context) - top / context.lengths.clamp(1, self.debt_tokens),)

    def fuse(self, llm: Tensor, slm: Tensor, state: State) -> Tensor:
        import torch

        allowance = (state[0] + self.budget).clamp(min=0.0).tolist()
        if not any(allowance):
            return wide(slm)
        path = Path.between(slm, llm)
        thetas = path.largest_theta(_kl, [nats or -math.inf for nats in allowance], SLACK)  # 0: not one step
        fused = path.distribution(thetas)
        if all(thetas):
            return fused
        moved = path.slm.new_tensor(thetas)[:, None] > 0
        return torch.where(moved, fused, wide(slm))

    def advance(self, state: State, tokens: Tensor, llm: Tensor, slm: Tensor, fused: Tensor) -> State:
        fused = wide(fused)
        ratio = (fused - wide(slm)).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
        spent = (fused.exp() * ratio).sum(dim=-1)
        return (state[0] + self.budget - spent,)


def _kl(point: Point) -> tuple[float, float]:
    """KL(q_θ‖p_slm) and its slope."""
    return point.theta * point.mean - point.log_z, point.theta * point.variance
