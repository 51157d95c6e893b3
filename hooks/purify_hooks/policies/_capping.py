"""The capped rule: as near the LLM as a ceiling over the SLM allows."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ._base import drawn, wide

if TYPE_CHECKING:
    from torch import Tensor

FLOOR = 60.0  # nats under the SLM: what an LLM that rules a token out is taken to mean
ROUNDS = 64  # every round divides gap times slope by four; 57 exhaust float32
SLM_ALONE = 1e30  # a log scale that puts every token at its ceiling, and leaves -inf alone


def fuse_capped(llm: Tensor, slm: Tensor, cap: Tensor) -> Tensor:
    """log min(λ p_llm, e^cap p_slm), (rows, V), with λ ≥ 1 such that it sums to one.

    `cap` (rows,) is in nats; 0 gives the SLM's row bit for bit. Where the LLM's support cannot hold
    the mass, the rest goes to the other tokens in proportion to the SLM, under the same ceiling.
    """
    import torch

    slm = wide(slm)
    llm = torch.maximum(wide(llm), slm - FLOOR)
    ceiling = slm + cap[:, None].to(slm.dtype)
    scales = _fill(llm.exp(), ceiling.exp())
    lift = [math.log(scale) if c > 0 else SLM_ALONE for scale, c in zip(scales, cap.tolist(), strict=True)]
    return torch.minimum(llm.add_(_column(lift, llm)), ceiling)


def _fill(p: Tensor, ceiling: Tensor) -> list[float]:
    """Each row's λ with Σ min(λ p, ceiling) = 1, by Newton from below: concave, so it never overshoots."""
    import torch

    scales, slack = [1.0] * len(p), 4 * torch.finfo(p.dtype).eps
    raised = p
    for _ in range(ROUNDS):
        masses = torch.minimum(raised, ceiling).sum(dim=-1).tolist()
        if 1 - min(masses) <= slack:
            break
        free = torch.lt(raised, ceiling, out=torch.empty_like(p))  # 1.0 where λ p is under the ceiling
        slopes = torch.linalg.vecdot(free, p).tolist()
        scales = [
            scale + (1 - mass) / slope if 1 - mass > slack and slope else scale
            for scale, mass, slope in zip(scales, masses, slopes, strict=True)
        ]
        raised = p * _column(scales, p)
    return scales


def _column(values: list[float], like: Tensor) -> Tensor:
    """One number per row, (rows, 1)."""
    return like.new_tensor(values)[:, None]


def spend(tokens: Tensor, llm: Tensor, slm: Tensor, fused: Tensor, greedy: Tensor) -> Tensor:
    """What each drawn token (rows,) cost, in nats, never below 0.

    A draw costs log r/p_slm. An arg-max costs what it exploited, log p_llm/p_slm: the fused row's
    ratio is small by construction and says nothing of a token that was certain to be taken.
    """
    import torch

    claimed = torch.where(greedy, drawn(llm, tokens), drawn(fused, tokens))
    return (claimed - drawn(slm, tokens)).nan_to_num(nan=0.0).clamp(min=0.0)
