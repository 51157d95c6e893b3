"""The capped rule: as near the LLM as a ceiling over the SLM allows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._base import drawn, wide

if TYPE_CHECKING:
    from torch import Tensor

FLOOR = 60.0  # nats under the SLM: the log-probability of a token that the LLM rules out
ROUNDS = 64  # every round divides gap times slope by four; 57 exhaust float32
ENOUGH = 1e-7  # remaining mass below float32's resolution
SLM_ALONE = 1e30  # a log scale that puts every token at its ceiling, and leaves -inf alone


def fuse_capped(llm: Tensor, slm: Tensor, cap: Tensor, lower: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """log min(λ p_llm, e^cap p_slm), (rows, V), with λ ≥ 1 such that it sums to one.

    `cap` (rows,) is in nats; 0 gives the SLM's row bit for bit. Where the LLM's support cannot hold
    the mass, the rest goes to the other tokens in proportion to the SLM, under the same ceiling.
    `lower` holds the ids (n,) of some tokens and their lower caps (rows, n), from 0 to `cap`.
    """
    import torch

    from purify_plugins.decode.logits import on_cpu

    slm = wide(slm)
    llm = torch.maximum(wide(llm), slm - FLOOR)
    ceiling = slm + cap[:, None].to(slm.dtype)
    if lower is not None:
        ids, their_cap = lower
        ceiling[:, ids] = slm[:, ids] + their_cap.to(slm.dtype)
    fill = _fill if on_cpu(llm) else _fill_there
    lift = torch.where(cap > 0, fill(llm.exp(), ceiling.exp()).log(), SLM_ALONE)
    return torch.minimum(llm.add_(lift[:, None].to(llm.dtype)), ceiling)


def _fill(p: Tensor, ceiling: Tensor) -> Tensor:
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
    return torch.tensor(scales, dtype=torch.float64)


def _fill_there(p: Tensor, ceiling: Tensor) -> Tensor:
    """`_fill` by sorting, for devices where sorting is cheap and a convergence check on the CPU is not.

    Tokens reach their ceilings in the order of ceiling/p. For each prefix of that order at its ceilings, the
    other tokens' p are scaled to the remaining mass; the right λ is the largest over all prefixes.
    """
    import torch
    from torch.nn.functional import pad

    from purify_plugins.decode.random_streams import widest

    order = torch.where(p > 0, ceiling / p, torch.inf).argsort(dim=-1)
    p, ceiling = (row.gather(-1, order).to(widest(row.device)) for row in (p, ceiling))
    left = 1 - pad(ceiling.cumsum(dim=-1)[:, :-1], (1, 0))  # for this token and those after it
    free = p.flip(-1).cumsum(dim=-1).flip(-1)
    scales = torch.where((left > ENOUGH) & (free > 0), left / free, 1.0)
    return scales.amax(dim=-1).clamp(min=1.0)


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
