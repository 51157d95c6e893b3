"""Several continuations of one text in one pass: each new token sees the columns of its own run alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from purify_hooks.cache import take
from purify_plugins.errors import SourceError

if TYPE_CHECKING:
    from purify_hooks.local import LocalSource
    from purify_hooks.session import LocalSession

NEAR = 0.05
"""How far two logits of one token may differ, for rounding, when a model is tried."""


def can_branch(source: LocalSource) -> bool:
    """Whether the model reads two continuations side by side as it reads each alone; tried once.

    Some models ignore such a mask without a word (their positions are counted from columns), some
    cannot take one, and a sliding window counts columns.
    """
    config = source.model.config.get_text_config()
    if getattr(config, "sliding_window", None) or len(source.vocabulary) < 4:
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


def mask(session: LocalSession, seen: Tensor) -> Tensor:
    """(rows, 1, n, columns) what is added to attention, for `seen` (rows, n, columns after the prompt)."""
    dtype = session.source.model.dtype
    whole = torch.cat([_prompts(session, seen.shape[1]), seen], dim=-1)
    least = torch.finfo(dtype).min
    return torch.where(whole, 0.0, least).to(dtype)[:, None]


def places(session: LocalSession, seen: Tensor) -> Tensor:
    """(rows, n) the new tokens' places in their texts."""
    found: Tensor = seen.sum(dim=-1) - 1 + session._lengths[:, None]
    length = session.source.context_length
    return found.clamp(max=None if length is None else length - 1)


def _prompts(session: LocalSession, columns: int) -> Tensor:
    """(rows, columns, width) which columns of the prompts are no padding."""
    return session._seen[:, None, : session._width].expand(-1, columns, -1)


def select(session: LocalSession, columns: Tensor) -> None:
    """Keep only these columns (rows, n) after the prompt, in this order."""
    rows, width = len(columns), session._width
    prompt = torch.arange(width).expand(rows, -1)
    order = torch.cat([prompt, columns + width], dim=1)
    session._seen = session._seen.gather(1, order)
    session._read = session._read.gather(1, order.to(session._read.device))
    with torch.inference_mode():
        take(session._cache, order)
