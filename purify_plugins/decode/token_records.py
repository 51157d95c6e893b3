"""What the host reads of a fused column: each drawn token, and the figures that its certificate records."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from purify_plugins.decode.logits import MULTIPLIED, argmax, on_cpu
from purify_plugins.errors import NumericError
from purify_plugins.types import Token

if TYPE_CHECKING:
    from purify_plugins.decode.fusion import FusedLogits


def to_host(rows: FusedLogits, tokens: Tensor, greedy: bool, top: int = 0) -> Tensor:
    """All that the host reads of a column, (rows, 10 + 2 top) float32, for `token_record`.

    A row is the token, what `Token` records of it, whether the row is finite, then the `top` likeliest
    tokens, likeliest first, and their log-probabilities.
    """
    logprobs = rows.logprobs(tokens)
    # A greedy row has one token of probability 1: KL and largest log-ratio are the SLM's surprisal.
    spent = -logprobs[:, 1:2].expand(-1, 2) if greedy else _divergences(rows)
    shown = spent.new_tensor([1.0, 0.0]).expand_as(spent) if rows.shown is None else rows.shown
    finite = torch.ones_like(rows.slm_only) if rows.finite is None else rows.finite
    numbers = [tokens[:, None], logprobs, spent, shown, rows.slm_only[:, None], finite[:, None]]
    if top:
        weights, places = rows.fused.topk(min(top, rows.fused.shape[-1]), dim=-1)
        numbers += [rows.ids(places), weights - rows.totals[:, 2:3]]
    return torch.cat(numbers, dim=-1)


def token_record(numbers: Sequence[float]) -> Token:
    """The record in one row of `to_host`. Raises NumericError unless the row is finite."""
    token, llm, slm, fused, kl, peak, revealed, hidden, slm_only, finite, *best = numbers
    if not finite:
        raise NumericError(
            "a model or the policy returned NaN, +inf or no possible token (on a CPU this says which of "
            f"them); check the models' weights and dtype, and that {MULTIPLIED}"
        )
    own = None if llm != llm else llm
    half = len(best) // 2
    top = [(int(at), logprob) for at, logprob in zip(best[:half], best[half:], strict=True)]
    possible = tuple(each for each in top if each[1] > -math.inf)
    return Token(int(token), own, slm, fused, kl, peak, revealed, bool(slm_only), hidden, possible)


def token_records(rows: FusedLogits, tokens: Tensor, greedy: bool, top: int = 0) -> list[Token]:
    """The record of each token (rows,), with the row's `top` likeliest, in one device-to-host copy."""
    return [token_record(numbers) for numbers in to_host(rows, tokens, greedy, top).tolist()]


def _divergences(rows: FusedLogits) -> Tensor:
    """(rows, 2) KL(fused || slm) and the largest log fused/slm of any token that could be drawn (nats)."""
    ratio, mass = rows.fused - rows.slm, rows.mass
    at = argmax(ratio)[:, None]
    both = torch.stack([torch.linalg.vecdot(mass, ratio), ratio.gather(-1, at)[:, 0]], dim=-1)
    # A token whose mass is 0 in float32 cannot be drawn. Its two log-weights may be hundreds of millions, and
    # their difference rounding error alone: it must count in neither figure.
    if not on_cpu(both) or not bool((torch.isfinite(both) & (mass.gather(-1, at) > 0)).all()):
        peak = torch.where(mass > 0, ratio, -torch.inf).amax(dim=-1)
        both = torch.stack([torch.where(mass > 0, mass * ratio, 0.0).sum(dim=-1), peak], dim=-1)
    both[:, 0] /= mass.sum(dim=-1)
    return both + (rows.totals[:, 1:2] - rows.totals[:, 2:3])
