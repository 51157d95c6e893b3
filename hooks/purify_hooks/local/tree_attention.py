"""Several continuations of one text in one pass: each new token sees the columns of its own run alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from purify_plugins.errors import SourceError

if TYPE_CHECKING:
    from purify_hooks.local.source import LocalSource

NEAR = 0.05
"""How far two logits of one token may differ, for rounding, when a model is tried."""


def can_branch(source: LocalSource) -> bool:
    """Whether the model reads two continuations side by side as it reads each alone; tried once.

    Some models ignore such a mask without a word (their positions are counted from columns), some
    cannot take one, and a sliding window counts columns.
    """
    if source.windowed or len(source.vocabulary) < 4:
        return False
    try:
        return _alike(source)
    except (SourceError, TypeError, AttributeError, NotImplementedError):  # a mask it cannot take
        return False


def _alike(source: LocalSource) -> bool:
    """Token 0, then 1 and 2 side by side, then 3 after 1."""
    one, _ = source.open([(0,)])
    seen = torch.tensor([[[True, False, False], [False, True, False], [True, False, True]]])
    both = one.branch(torch.tensor([[1, 2, 3]]), seen)[0]
    for place, run in enumerate([[1], [2], [1, 3]]):
        alone, _ = source.open([(0,)])
        apart = alone.extend(torch.tensor([run]))[0, -1]
        if not torch.allclose(torch.log_softmax(both[place], -1), torch.log_softmax(apart, -1), atol=NEAR):
            return False
    return True


def mask(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """(rows, 1, n, columns) what is added to attention, for `seen` (rows, n, columns) bool."""
    return torch.where(seen, 0.0, torch.finfo(dtype).min).to(dtype)[:, None]
