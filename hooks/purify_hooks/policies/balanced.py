"""A ledger of sureness: limits runs of tokens that only the LLM is sure of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING, ClassVar, Self

from purify_plugins.policy import Context, FusionPolicy, State
from purify_plugins.types import Guarantee, Token

from ._base import below, drawn, ledger, require, slack
from ._capping import fuse_capped

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Balanced(FusionPolicy):
    """Close on what the LLM alone is sure of, token after token; leave what it only leans to.

    r = min(λ p_llm, e^c p_slm) with c = max(0, budget - level). A token adds log p_llm/p_slm, less
    `doubt` times the LLM's own surprise -log p_llm (r for p_llm where r is larger); what it takes
    off is at most `drain`. The level runs over the prompt's last tokens too, between 0 and twice
    the budget: a text known by heart shuts the LLM out until something else has been said.

    Guarantee "passage", for draws and whatever the LLM does: over every run of tokens
    Σ (1 + doubt) log r - log p_slm ≤ budget, so a run of tokens that the SLM gives probability q has
    at most (e^budget q)^(1/(1 + doubt)); N spellings of one text, q in all, at most
    N^(doubt/(1 + doubt)) times as much together. Source: this project (docs, "the ledger of sureness").
    """

    name: ClassVar[str] = "balanced"
    guarantee: ClassVar[Guarantee] = "passage"
    lookback: ClassVar[int] = 32

    budget: float = 5.0
    doubt: float = 1.0
    drain: float = 3.0

    def __post_init__(self) -> None:
        require(self, "budget", lambda budget: 0 <= budget < math.inf, "a number of nats, 0 or more")
        require(self, "doubt", lambda doubt: 0 <= doubt < math.inf, "a finite number, 0 or more")
        require(self, "drain", lambda drain: 0 <= drain < math.inf, "a number of nats, 0 or more")

    def allowance(self, tokens: int, surprisal: float) -> float:
        """The most nats by which a passage that costs the SLM `surprisal` may be likelier than under it."""
        return (self.budget + self.doubt * surprisal) / (1 + self.doubt)

    def in_symbols(self, per_token: float) -> Self:
        """The same strictness in symbols, `per_token` of a token: the budget gains `drain`.

        A run that begins inside a token lacks what the token's first symbols took off, at most `drain`.
        """
        return replace(self, budget=self.budget + self.drain)

    def holds(self, steps: Sequence[Token]) -> bool:
        """Whether an answer's recorded steps keep this budget in every run of them."""
        taken = ((1 + self.doubt) * step.fused - step.slm for step in steps if step.fused > -math.inf)
        runs = accumulate(taken, lambda run, token: max(run, 0.0) + token, initial=0.0)
        kept = max(runs) <= self.budget + (1 + self.doubt) * slack(steps)
        return kept and all(below(step, self.budget) for step in steps)

    def start(self, context: Context) -> State:
        """Each answer's level (rows,), in nats."""
        level = ledger(context)
        for llm, slm in zip(context.llm.unbind(-1), context.slm.unbind(-1), strict=True):
            level = self._risen(level, llm, slm)
        return (level,)

    def fuse(self, llm: Tensor, slm: Tensor, state: State) -> Tensor:
        return fuse_capped(llm, slm, (self.budget - state[0]).clamp(min=0.0))

    def advance(self, state: State, tokens: Tensor, llm: Tensor, slm: Tensor, fused: Tensor) -> State:
        import torch

        sure = torch.maximum(drawn(llm, tokens), drawn(fused, tokens))
        return (self._risen(state[0], sure, drawn(slm, tokens)),)

    def _risen(self, level: Tensor, sure: Tensor, slm: Tensor) -> Tensor:
        """The level after a token of these log-probabilities, all (rows,)."""
        rise = ((1 + self.doubt) * sure - slm).nan_to_num(nan=0.0, posinf=math.inf, neginf=-math.inf)
        return (level + rise.clamp(min=-self.drain)).clamp(0.0, 2 * self.budget)
