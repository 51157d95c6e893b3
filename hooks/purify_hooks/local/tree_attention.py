"""Tree attention: whether one pass may read several continuations, each token attending to its own run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from purify_plugins.errors import SourceError

if TYPE_CHECKING:
    from purify_hooks.local.model import LocalModel
    from purify_hooks.local.session import LocalSession

NEAR = 0.05
"""The largest difference (nats) of two log-probabilities that counts as rounding."""


def can_branch(model: LocalModel, kind: type[LocalSession]) -> bool:
    """Whether two continuations read in one pass, in such a session, have the same rows as each alone.

    Some models ignore the mask (their positions are counted from columns), some raise, and a sliding
    window counts columns.
    """
    if model.windowed or model.vocabulary_size < 4:
        return False
    try:
        return _same_rows(model, kind)
    except (SourceError, TypeError, AttributeError, NotImplementedError):  # what models raise for such a mask
        return False


def _same_rows(model: LocalModel, kind: type[LocalSession]) -> bool:
    """Token 0, then 1 and 2 side by side, then 3 after 1."""
    seen = torch.tensor([[[True, False, False], [False, True, False], [True, False, True]]])
    with kind(model, [(0,)]) as tree:
        tree.prefill(0)
        rows = torch.log_softmax(tree.branch(torch.tensor([[1, 2, 3]]), seen)[0], -1)
    for row, run in zip(rows, ([1], [2], [1, 3]), strict=True):
        with kind(model, [(0,)]) as alone:
            alone.prefill(0)
            expected = torch.log_softmax(alone.extend(torch.tensor([run]))[0, -1], -1)
        if not torch.allclose(row, expected, atol=NEAR):
            return False
    return True
