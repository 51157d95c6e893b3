"""Fixed pools: a weighted geometric mean, and the smaller of the two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

from purify_plugins.policy import FusionPolicy, State

from ._base import require, scaled, wide

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Geometric(FusionPolicy):
    """Give each token a weighted geometric mean of its two probabilities.

    r ∝ p_llm^alpha p_slm^(1-alpha); alpha 0 is the SLM alone, 1 the LLM alone. A token that either
    model rules out stays out, but at the ends the other model has no say.

    Guarantee "none": a step costs at most the Rényi divergence D_alpha(p_llm‖p_slm), in nats, but
    it has no bound in advance. Source: 2402.14845; alpha ½ is CP-Δ for KL (2302.10870).
    """

    name: ClassVar[str] = "geometric"
    sweep = ("alpha", (0.1, 0.3, 0.5, 0.7, 0.9))
    shift_invariant: ClassVar[bool] = True

    alpha: float = 0.5

    def __post_init__(self) -> None:
        require(self, "alpha", lambda alpha: 0 <= alpha <= 1, "between 0 and 1")

    def tightened(self, factor: float) -> Self:
        """`alpha` times this factor."""
        return scaled(self, factor, "alpha")

    def fuse(self, llm: Tensor, slm: Tensor, state: State) -> Tensor:
        if self.alpha in (0, 1):
            return wide(llm if self.alpha else slm)
        return (wide(slm) * (1 - self.alpha)).add_(wide(llm), alpha=self.alpha)


@dataclass(frozen=True)
class Minimum(FusionPolicy):
    """Give each token the smaller of its two probabilities.

    r = min(p_llm, p_slm) / Z. Guarantee "none": a step's log r/p_slm is at most -log(1 - TV) nats,
    where TV is the models' total variation distance there, but it has no bound in advance.
    Source: 2302.10870, CP-Δ for the max-divergence.
    """

    name: ClassVar[str] = "minimum"

    def fuse(self, llm: Tensor, slm: Tensor, state: State) -> Tensor:
        import torch

        return torch.minimum(wide(llm), wide(slm))
