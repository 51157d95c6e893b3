"""Whether a model's rows depend on nothing that follows them: what a draft may be shown to.

A row that moves with the token after it lets weights choose what is accepted. Configurations that make a
model read both ways are refused by name where files are read; here what was loaded is tried.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from purify_plugins.errors import ModelError

if TYPE_CHECKING:
    from purify_hooks.local.model import LocalModel
    from purify_hooks.local.session import LocalSession

LENGTHS = (2, 5, 9)
"""Tokens of the drafts that are tried."""
NEAR = {torch.float32: 0.01, torch.float64: 0.01}
"""How far (nats) a log-probability may move with what follows: rounding, where experts' batches change."""
ROUGH = 0.2
"""The same for shorter numbers. What a token of context says to a model moves some by whole nats."""


def require_causal(model: LocalModel, kind: type[LocalSession]) -> None:
    """Raise ModelError for a model whose rows, in such a session, move with later tokens or another row's."""
    if part := _both_ways(model.module):
        raise _refused(model, f"its {part} is not causal")
    size = model.vocabulary_size
    with kind(model, [(1 % size, 2 % size, 0), (2 % size,)]) as session:
        session.prefill(0)
        _try(model, session)


def _try(model: LocalModel, session: LocalSession) -> None:
    for length in LENGTHS:
        if (moved := _moved(model, session, length)) > NEAR.get(model.dtype, ROUGH):
            raise _refused(model, f"a row moved by {moved:.2g} nats when the tokens after it changed")


def _both_ways(model: Any) -> str:
    """The part of a text model that says of itself that it reads both ways; empty: none does.

    Weights can hide from a trial: what they make of most tokens need not be what they make of one.
    """
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else model  # transformers' own
    parts = (type(part).__name__ for part in decoder.modules() if getattr(part, "is_causal", None) is False)
    return next(parts, "")


def _moved(model: LocalModel, session: LocalSession, length: int) -> float:
    """How far any log-probability moves when all that may not matter to its row is another."""
    rows = [_read(session, drafts) for drafts in _drafts(model.vocabulary_size, length)]
    shared = length // 2
    first, second = (row[0, :shared].float().log_softmax(dim=-1) for row in rows)
    return float(torch.where(first == second, 0.0, (first - second).abs()).amax())  # -inf in both is no move


def _read(session: LocalSession, drafts: Tensor) -> Tensor:
    """The logits (rows, n, V) after each drafted token; the drafts are forgotten."""
    logits = session.extend(drafts)
    session.rewind(torch.zeros(len(drafts), dtype=torch.long))
    return logits


def _drafts(size: int, length: int) -> Iterator[Tensor]:
    """Two batches of drafts (2, length): the first half of the first rows is all that they share."""
    for turn in (0, 1):
        late = [(7 * at + 3 + turn * (at >= length // 2)) % size for at in range(length)]
        other = [(5 * at + 1 + 2 * turn) % size for at in range(length)]
        yield torch.tensor([late, other])


def _refused(model: LocalModel, why: str) -> ModelError:
    return ModelError(
        f"{model.name!r} reads both ways: {why}; only causal models can be fused, whose rows depend on "
        "nothing that follows"
    )
