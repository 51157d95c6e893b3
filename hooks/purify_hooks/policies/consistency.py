"""CoRE's token consistency: trust the LLM less where the two models disagree, then fuse."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Literal, Self, get_args

from purify_plugins.errors import ConfigError, UnknownNameError
from purify_plugins.foreign import adapted_policy, is_policy
from purify_plugins.policy import Context, FusionPolicy, State
from purify_plugins.types import Guarantee, Token, Vocabulary

from ._base import require, wide
from .mixtures import Linear

if TYPE_CHECKING:
    from torch import Tensor

Kernel = Literal["rbf", "linear", "reciprocal"]


def _log_agreement(kernel: Kernel, beta: float, distance: Tensor) -> Tensor:
    if kernel == "rbf":
        return -beta * distance
    return (-distance).log1p() if kernel == "linear" else -(beta * distance).log1p()


@dataclass(frozen=True)
class Consistency(FusionPolicy):
    """Damp the LLM's tokens on which the models disagree, and hand both rows to another policy.

    p_llm'(v) ∝ p_llm(v) s(v), with s a kernel of the distance d = |p_llm(v) - p̄(v)| to the models'
    mean p̄: "rbf" exp(-beta d), "linear" 1 - d, "reciprocal" 1 / (1 + beta d). Then `policy` fuses
    p_llm' and p_slm, and keeps its own memory. CoRE's second half, weights per model, is left out:
    two models are equally far from their mean.

    The guarantee is the inner policy's: it is about r and the SLM, whatever the LLM says.
    Source: 2510.13855 (rbf, beta 2).
    """

    name: ClassVar[str] = "consistency"
    sweep = ("beta", (0.5, 2.0, 8.0))

    policy: FusionPolicy = field(default_factory=Linear)
    kernel: Kernel = "rbf"
    beta: float = 2.0

    def __post_init__(self) -> None:
        if not is_policy(self.policy):
            raise ConfigError(f"{self.name}: policy must be a fusion policy, not {self.policy!r}")
        object.__setattr__(self, "policy", adapted_policy(self.policy))
        if self.kernel not in get_args(Kernel):
            raise UnknownNameError(f"{self.name} kernel", str(self.kernel), get_args(Kernel))
        require(self, "beta", lambda beta: 0 <= beta < math.inf, "a finite number, 0 or more")

    @property
    def guarantee(self) -> Guarantee:
        return "none" if self.policy.holds(()) is None else self.policy.guarantee

    @property
    def lookback(self) -> int:
        return self.policy.lookback

    def bind(self, vocabulary: Vocabulary) -> Self:
        return replace(self, policy=self.policy.bind(vocabulary))

    def in_symbols(self, per_token: float) -> Self:
        return replace(self, policy=self.policy.in_symbols(per_token))

    def tightened(self, factor: float) -> Self | None:
        """The inner policy tightened; None where it cannot be."""
        inner = self.policy.tightened(factor)
        return None if inner is None else replace(self, policy=inner)

    def holds(self, steps: Sequence[Token]) -> bool | None:
        """Whether an answer's recorded steps keep the inner policy's budget; None where it cannot tell."""
        return self.policy.holds(steps)

    def start(self, context: Context) -> State:
        return self.policy.start(context)

    def fuse(self, llm: Tensor, slm: Tensor, state: State) -> Tensor:
        return self.policy.fuse(self._damped(llm, slm), wide(slm), state)

    def advance(self, state: State, tokens: Tensor, llm: Tensor, slm: Tensor, fused: Tensor) -> State:
        return self.policy.advance(state, tokens, self._damped(llm, slm), wide(slm), fused)

    def _damped(self, llm: Tensor, slm: Tensor) -> Tensor:
        llm = wide(llm)
        distance = (llm.exp() - wide(slm).exp()).abs() / 2
        row = llm + _log_agreement(self.kernel, self.beta, distance)
        total = row.logsumexp(dim=-1, keepdim=True)
        return row - total.clamp(min=-1e30)  # an empty row stays empty
