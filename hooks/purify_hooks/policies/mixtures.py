"""Linear pools: a fixed mixture, and one whose weight was learned."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

from purify_plugins.policy import FusionPolicy, State

from ._base import require, scaled, wide

if TYPE_CHECKING:
    from torch import Tensor

RIDGE = 1e-3  # nats per squared unit: keeps a fit finite when one model is always the better


@dataclass(frozen=True)
class Linear(FusionPolicy):
    """Ask the LLM with probability `weight`, else the SLM.

    r = weight p_llm + (1-weight) p_slm. Guarantee "none": what only the LLM knows keeps `weight` of
    its mass, so this one blends styles; it does not purify. Source: the plain ensemble, 2406.12585.
    """

    name: ClassVar[str] = "linear"
    sweep = ("weight", (0.1, 0.3, 0.5, 0.7))

    weight: float = 0.5

    def __post_init__(self) -> None:
        require(self, "weight", lambda weight: 0 <= weight <= 1, "between 0 and 1")

    def tightened(self, factor: float) -> Self:
        """`weight` times this factor."""
        return scaled(self, factor, "weight")

    def fuse(self, llm: Tensor, slm: Tensor, state: State) -> Tensor:
        import torch

        if self.weight in (0, 1):
            return wide(llm if self.weight else slm)
        return torch.logaddexp(wide(llm) + math.log(self.weight), wide(slm) + math.log1p(-self.weight))


@dataclass(frozen=True)
class LearnedMix(FusionPolicy):
    """Mix both models with a weight that follows how unsure each is.

    r = w p_llm + (1-w) p_slm with w = sigmoid(bias + llm_entropy H(p_llm) + slm_entropy H(p_slm)),
    entropies H in nats. `LearnedMix.fit` finds the three numbers on a small text.

    Guarantee "none". Source: CombLM, 2305.16876, the entropy combination.
    """

    name: ClassVar[str] = "learned_mix"

    bias: float = 0.0
    llm_entropy: float = 0.0
    slm_entropy: float = 0.0

    def __post_init__(self) -> None:
        for option in ("bias", "llm_entropy", "slm_entropy"):
            require(self, option, math.isfinite, "a finite number")

    @property
    def unmeasured(self) -> str:
        fitted = self != type(self)()
        return "" if fitted else "until it is fitted it is linear; give it the numbers that fitting found"

    @classmethod
    def fit(cls, llm: Tensor, slm: Tensor, llm_entropy: Tensor, slm_entropy: Tensor) -> Self:
        """The most likely weights for n tokens of text, each argument (n,).

        `llm` and `slm` are both models' log-probabilities (nats) of the tokens that came, the
        entropies those of the rows they came from (`entropy`).
        """
        import torch

        with torch.inference_mode(False), torch.enable_grad():
            llm, slm, *entropies = (x.cpu().double().clone() for x in (llm, slm, llm_entropy, slm_entropy))
            features = torch.stack((torch.ones_like(llm), *entropies), dim=-1)
            weights = torch.zeros(3, dtype=torch.float64, requires_grad=True)
            search = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

            def surprisal() -> Tensor:
                search.zero_grad()
                loss = RIDGE * weights.square().sum() - _mix(features @ weights, llm, slm).mean()
                loss.backward()
                return loss

            search.step(surprisal)
        return cls(*weights.tolist())

    def fuse(self, llm: Tensor, slm: Tensor, state: State) -> Tensor:
        llm, slm = wide(llm), wide(slm)
        lean = self.bias + self.llm_entropy * entropy(llm) + self.slm_entropy * entropy(slm)
        return _mix(lean[:, None], llm, slm)


def entropy(row: Tensor) -> Tensor:
    """The entropy (rows,), in nats, of log-probabilities (rows, V)."""
    import torch

    surprise: Tensor = torch.special.entr(wide(row).exp())
    return surprise.sum(dim=-1)


def _mix(lean: Tensor, llm: Tensor, slm: Tensor) -> Tensor:
    import torch
    from torch.nn.functional import logsigmoid

    mixed: Tensor = torch.logaddexp(llm + logsigmoid(lean), slm + logsigmoid(-lean))
    return mixed
