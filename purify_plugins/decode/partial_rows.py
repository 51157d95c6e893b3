"""Partial rows, of which a server shows the top only, completed before they are fused.

A partial row is V + 1 logits wide: minus infinity at the tokens that were not shown, and in the last
column the logarithm of their mass together. That mass is spread over them in proportion to the SLM's: the
tail is the benign model's, whatever the server left out.

In symbols smaller than the server's tokens a row is 2 V wide: the log-mass of each symbol that shown tokens
begin with, and of each that the SLM goes on with where a token was not shown; together 1.
"""

from __future__ import annotations

import torch
from torch import Tensor


def complete(llm: Tensor, slm: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (rows, V + 1 or 2 V) and (rows, V) -> log-weights (rows, V), shown (rows,), unseen (rows, V).

    `shown` is the LLM's mass that was shown, `unseen` the share of each token's mass that was not. Tokens
    that the SLM rules out get no mass; if it rules out all that were not shown, that mass is dropped. NaN
    stays NaN, which the loop refuses.
    """
    shown = torch.log_softmax(llm.float(), dim=-1)
    if llm.shape[-1] == 2 * slm.shape[-1]:
        return _mixed(*shown.split(slm.shape[-1], dim=-1))
    shown, rest = shown[:, :-1], shown[:, -1:]
    unseen = torch.isneginf(shown)
    tail = torch.where(unseen, torch.log_softmax(slm.float(), dim=-1), -torch.inf)
    total = torch.logsumexp(tail, dim=-1, keepdim=True)
    spread = torch.where(torch.isneginf(tail), tail, tail - total + rest)
    return torch.where(unseen, spread, shown), -torch.expm1(rest[:, 0]), unseen


def _mixed(shown: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Log-masses (rows, V) of what was shown and what was not -> what `complete` returns."""
    both = torch.logaddexp(shown, hidden)
    share = torch.where(torch.isneginf(both), 0.0, torch.exp(hidden - both))
    return both, shown.exp().sum(dim=-1), share
