"""Ceilings over the SLM that hold on every path: a window's, an answer's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Self

from purify_plugins.policy import Context, FusionPolicy, State
from purify_plugins.types import Guarantee, Token

from ._base import below, ledger, require, require_count, scaled, slack
from ._capping import fuse_capped, spend

if TYPE_CHECKING:
    from torch import Tensor


def _spent(steps: Sequence[Token]) -> float:
    """The cost of these steps in nats, each at least 0."""
    return sum(max(step.ratio, 0.0) for step in steps)


@dataclass(frozen=True)
class Windowed(FusionPolicy):
    """Bound what any `window` tokens in a row may take from the LLM to `budget` nats.

    r = min(λ p_llm, e^c p_slm) with c = clamp(budget - spent, 0, cap), where `spent` is the sum of
    log r/p_slm, each at least 0, over the last window - 1 tokens; the prompt's tokens count as
    spent log p_llm/p_slm, at most `cap`. An arg-max token counts the same way.

    Guarantee "window", for draws: Σ log r/p_slm ≤ budget over every window of every answer, so a
    passage of n tokens is at most e^(budget ⌈n/window⌉) times likelier than under the SLM alone.
    Source: this project (docs, "the windowed cap").
    """

    name: ClassVar[str] = "windowed"
    sweep = ("budget", (2.0, 4.0, 6.0, 8.0, 10.0))
    guarantee: ClassVar[Guarantee] = "window"

    cap: float = 3.0
    window: int = 4
    budget: float = 6.0

    def __post_init__(self) -> None:
        require(self, "cap", lambda cap: 0 <= cap < math.inf, "a number of nats, 0 or more")
        require_count(self, "window")
        require(self, "budget", lambda budget: 0 <= budget < math.inf, "a number of nats, 0 or more")

    @property
    def lookback(self) -> int:
        return self.window - 1

    def in_symbols(self, per_token: float) -> Self:
        """The same strictness in symbols of which a token has `per_token`: windows half as long in text.

        What a token takes adds up to less than what its symbols take one by one, since what one of them
        gives back does not count; on the test bed, to about half.
        """
        return replace(self, window=max(self.window, round(self.window * per_token / 2)))

    def tightened(self, factor: float) -> Self:
        """The same windows with `budget` and `cap` times this factor."""
        return scaled(self, factor, "budget", "cap")

    def allowance(self, tokens: int, surprisal: float) -> float:
        """The most nats by which a passage of so many tokens may be likelier than under the SLM."""
        return self.budget * math.ceil(tokens / self.window)

    def holds(self, steps: Sequence[Token]) -> bool:
        """Whether an answer's recorded steps keep this budget."""
        windows = [steps[at : at + self.window] for at in range(len(steps))]
        kept = all(_spent(window) <= self.budget + slack(window) for window in windows)
        return kept and all(below(step, self.cap) for step in steps)

    def start(self, context: Context) -> State:
        from torch.nn.functional import pad

        ratios = (context.llm - context.slm).nan_to_num(nan=0.0).clamp(0.0, self.cap)
        missing = self.lookback - ratios.shape[1]
        return pad(ratios, (missing, 0)), context.greedy  # (rows, window - 1), oldest first

    def fuse(self, llm: Tensor, slm: Tensor, state: State) -> Tensor:
        left = self.budget - state[0].sum(dim=-1)
        return fuse_capped(llm, slm, left.clamp(0.0, self.cap))

    def advance(self, state: State, tokens: Tensor, llm: Tensor, slm: Tensor, fused: Tensor) -> State:
        import torch

        spends, greedy = state
        now = spend(tokens, llm, slm, fused, greedy).to(spends.dtype)
        return torch.cat((spends, now[:, None]), dim=-1)[:, 1:], greedy


@dataclass(frozen=True)
class Capped(FusionPolicy):
    """Bound what a token may take from the LLM to `cap` nats, and a whole answer to `total`.

    r = min(λ p_llm, e^c p_slm) with c = min(cap, what is left of total): of all distributions under
    that ceiling the one nearest the LLM (the least KL(r‖p_llm)). A draw spends max(0, log r/p_slm); once
    `total` is spent the SLM writes alone. An arg-max spends log p_llm/p_slm. Prose spends about half
    of `cap` per token, and an SLM gives foreign text 3 nats or more, so 50 is the price of about 90
    tokens and says something of every passage longer than 17.

    Guarantee "path", for draws: Σ log r/p_slm ≤ total on every answer, so any event is at most
    e^total times likelier than under the SLM. Without an end (`total` infinite): "none".
    Source: the projection onto the max-divergence ball, 2602.07120 (Anchored-∞), with a ledger.
    """

    name: ClassVar[str] = "capped"
    sweep = ("cap", (0.25, 0.5, 1.0, 2.0, 3.0))

    cap: float = 1.0
    total: float = 50.0

    def __post_init__(self) -> None:
        require(self, "cap", lambda cap: 0 <= cap < math.inf, "a number of nats, 0 or more")
        require(self, "total", lambda total: total >= 0, "a number of nats, 0 or more (inf: without end)")

    @property
    def guarantee(self) -> Guarantee:
        return "path" if self.total < math.inf else "none"

    def tightened(self, factor: float) -> Self:
        """`cap` and `total` times this factor; without a total there is none then either."""
        return scaled(self, factor, "cap", "total")

    def allowance(self, tokens: int, surprisal: float) -> float:
        """The most nats by which a passage of so many tokens may be likelier than under the SLM."""
        return min(self.total, self.cap * tokens)

    def holds(self, steps: Sequence[Token]) -> bool:
        """Whether an answer's recorded steps keep this budget."""
        kept = _spent(steps) <= self.total + slack(steps)
        return kept and all(below(step, self.cap) for step in steps)

    def start(self, context: Context) -> State:
        return ledger(context, self.total), context.greedy

    def fuse(self, llm: Tensor, slm: Tensor, state: State) -> Tensor:
        return fuse_capped(llm, slm, state[0].clamp(max=self.cap))

    def advance(self, state: State, tokens: Tensor, llm: Tensor, slm: Tensor, fused: Tensor) -> State:
        left, greedy = state
        return (left - spend(tokens, llm, slm, fused, greedy)).clamp(min=0.0), greedy
