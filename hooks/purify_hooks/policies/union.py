"""Fusion on the union of both models' likeliest tokens, for the `top_k_union` alignment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from purify_plugins.policy import State
from purify_plugins.types import Guarantee, Token

from ._base import require_count
from .consistency import Consistency

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class TopKUnion(Consistency):
    """Fuse only the tokens among either model's `top_k` likeliest, the LLM's damped as `consistency` does.

    r = policy(p_llm', p_slm) on the union of both models' `top_k`, and r = 0 beside it; p_llm' is the LLM's
    row as `consistency` damps it, with its `kernel` and `beta`.

    Guarantee "none", whatever `policy` promises: it is for an SLM with another tokenizer, whose rows
    are then no distribution over text. Source: UniTE (2410.03777), CoRE (2510.13855).
    """

    name: ClassVar[str] = "top_k_union"

    top_k: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count(self, "top_k")

    @property
    def guarantee(self) -> Guarantee:
        return "none"

    def tightened(self, factor: float) -> None:
        """None: the SLM's own tokens beside the union are left out, so it cannot become the SLM alone."""

    def holds(self, steps: Sequence[Token]) -> bool:
        """No guarantee."""
        return True

    def fuse(self, llm: Tensor, slm: Tensor, state: State) -> Tensor:
        return super().fuse(*self._likeliest(llm, slm), state)

    def advance(self, state: State, tokens: Tensor, llm: Tensor, slm: Tensor, fused: Tensor) -> State:
        return super().advance(state, tokens, *self._likeliest(llm, slm), fused)

    def _likeliest(self, llm: Tensor, slm: Tensor) -> tuple[Tensor, Tensor]:
        """Both rows (rows, V), minus infinity beside the union."""
        few = min(self.top_k, llm.shape[-1])
        least = [row.topk(few, dim=-1).values[..., -1:] for row in (llm, slm)]
        kept = (llm >= least[0]) | (slm >= least[1])
        return llm.where(kept, float("-inf")), slm.where(kept, float("-inf"))
