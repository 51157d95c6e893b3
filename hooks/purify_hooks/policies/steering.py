"""Steering by logit arithmetic: the other model is a direction, not a ceiling. None of these purifies."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from purify_plugins.policy import Context, FusionPolicy, State

from ._base import require, require_count, wide

if TYPE_CHECKING:
    from torch import Tensor

RAREST = 100.0  # nats under the SLM's likeliest token: what it rules out counts as this rare
LEAST = 1e-8  # the least probability SafeDecoding leaves a token of its short list


@dataclass(frozen=True)
class Offset(FusionPolicy):
    """Add a small model's opinion to the large one's logits.

    z = z_llm + alpha z_slm, where the SLM is an expert minus an anti-expert: give both as
    `[slm] source = "contrast"`. Guarantee "none": the LLM keeps its say in full.
    Source: DExperts (2105.03023) and proxy-tuning (2401.08565, alpha 1).
    """

    name: ClassVar[str] = "offset"
    unmeasured = "it needs an expert and an anti-expert in the SLM's place"
    shift_invariant: ClassVar[bool] = True

    alpha: float = 1.0

    def __post_init__(self) -> None:
        require(self, "alpha", lambda alpha: 0 <= alpha < math.inf, "a finite number, 0 or more")

    def fuse(self, llm: Tensor, slm: Tensor, state: State) -> Tensor:
        if self.alpha == 0:
            return wide(llm)
        return wide(llm).add(wide(slm), alpha=self.alpha)


@dataclass(frozen=True)
class Contrastive(FusionPolicy):
    """Prefer what the LLM finds likelier than the SLM does.

    log r = log p_llm - beta log p_slm on the tokens with p_llm ≥ alpha max p_llm, nothing elsewhere.
    Guarantee "none", and the opposite of purifying: here the SLM is the amateur to avoid.
    Source: 2210.15097, section 3 (alpha 0.1, beta 1).
    """

    name: ClassVar[str] = "contrastive"
    sweep = ("alpha", (0.1, 0.5))
    shift_invariant: ClassVar[bool] = True

    alpha: float = 0.1
    beta: float = 1.0

    def __post_init__(self) -> None:
        require(self, "alpha", lambda alpha: 0 < alpha <= 1, "above 0 and at most 1")
        require(self, "beta", lambda beta: 0 <= beta < math.inf, "a finite number, 0 or more")

    def fuse(self, llm: Tensor, slm: Tensor, state: State) -> Tensor:
        import torch

        llm, slm = wide(llm), wide(slm)
        likely = llm >= llm.amax(dim=-1, keepdim=True) + math.log(self.alpha)
        rarest = slm.amax(dim=-1, keepdim=True).clamp(min=torch.finfo(slm.dtype).min) - RAREST
        score = llm.sub(torch.maximum(slm, rarest), alpha=self.beta)
        return torch.where(likely & (llm > -torch.inf), score, -torch.inf)


@dataclass(frozen=True)
class SafeDecoding(FusionPolicy):
    """Let a safety-tuned expert, in the SLM's place, lead the `first` tokens; then the LLM alone.

    P = max(1e-8, p_llm + alpha (p_slm - p_llm)) on the smallest intersection of the two models' top
    lists that holds `top` tokens, nothing elsewhere. Tokens of equal probability enter together.

    Guarantee "none": after `first` tokens the LLM is on its own. Source: 2402.08983, section 4.
    """

    name: ClassVar[str] = "safe_decoding"
    sweep = ("alpha", (0.3, 1.0, 3.0))

    alpha: float = 3.0
    first: int = 2
    top: int = 5

    def __post_init__(self) -> None:
        require(self, "alpha", lambda alpha: 0 <= alpha < math.inf, "a finite number, 0 or more")
        require_count(self, "first")
        require_count(self, "top")

    def start(self, context: Context) -> State:
        """How many tokens each answer (rows,) has."""
        import torch

        return (torch.zeros_like(context.lengths, dtype=torch.int64),)

    def fuse(self, llm: Tensor, slm: Tensor, state: State) -> Tensor:
        import torch

        early = state[0] < self.first
        if not early.any():
            return wide(llm)
        return torch.where(early[:, None], self._lead(wide(llm), wide(slm)), wide(llm))

    def _lead(self, llm: Tensor, slm: Tensor) -> Tensor:
        import torch

        listed = _shared(llm, slm, min(self.top, llm.shape[-1]))
        p, expert = llm.exp(), slm.exp()
        mass = (p + self.alpha * (expert - p)).clamp(min=LEAST)
        return torch.where(listed & (torch.maximum(llm, slm) > -torch.inf), mass.log(), -torch.inf)

    def advance(self, state: State, tokens: Tensor, llm: Tensor, slm: Tensor, fused: Tensor) -> State:
        return (state[0] + 1,)


def _shared(llm: Tensor, slm: Tensor, least: int) -> Tensor:
    """The smallest intersection of both top lists with `least` tokens, (rows, V) bool."""
    import torch

    size = llm.shape[-1]
    depth = min(size, 16 * least)
    while True:
        place = torch.maximum(_places(llm, depth), _places(slm, depth))
        last = place.kthvalue(least, dim=-1, keepdim=True).values
        if depth == size or (last < depth).all():
            return place <= last
        depth = min(size, 16 * depth)


def _places(row: Tensor, depth: int) -> Tensor:
    """How many tokens are likelier than each, (rows, V); `depth` stands for that many and more."""
    import torch

    best = row.topk(depth, dim=-1).values
    return torch.searchsorted(best.neg(), row.neg())
