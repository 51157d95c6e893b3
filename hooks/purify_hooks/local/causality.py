"""Check that a loaded model is causal: that no row depends on the tokens after it.

Otherwise the LLM's weights could choose which draft tokens are accepted. Configurations of bidirectional
attention are refused where files are read; here the loaded model is tested.
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
"""Lengths of the drafts in the test."""
NEAR = {torch.float32: 0.01, torch.float64: 0.01}
"""The largest change (nats) of a log-probability that counts as rounding, as of experts' batches."""
ROUGH = 0.2
"""The same for 16-bit types. A token of context moves some log-probabilities by whole nats."""


def require_causal(model: LocalModel, kind: type[LocalSession]) -> None:
    """Raise ModelError if rows, in such a session, change with later tokens or with another row's."""
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
    """The class of a submodule with `is_causal` False; "" if there is none.

    Checked besides the test, in which weights could hide a dependence on rare tokens.
    """
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else model  # transformers' own
    parts = (type(part).__name__ for part in decoder.modules() if getattr(part, "is_causal", None) is False)
    return next(parts, "")


def _moved(model: LocalModel, session: LocalSession, length: int) -> float:
    """The largest change (nats) of a log-probability when later tokens and the other row change."""
    rows = [_read(session, drafts) for drafts in _drafts(model.vocabulary_size, length)]
    shared = length // 2
    first, second = (row[0, :shared].float().log_softmax(dim=-1) for row in rows)
    return float(
        torch.where(first == second, 0.0, (first - second).abs()).amax()
    )  # -inf in both is no change


def _read(session: LocalSession, drafts: Tensor) -> Tensor:
    """The logits (rows, n, V) after each drafted token; the session is rewound."""
    logits = session.extend(drafts)
    session.rewind(torch.zeros(len(drafts), dtype=torch.long))
    return logits


def _drafts(size: int, length: int) -> Iterator[Tensor]:
    """Two batches of drafts (2, length) that share only the first half of their first row."""
    for turn in (0, 1):
        late = [(7 * at + 3 + turn * (at >= length // 2)) % size for at in range(length)]
        other = [(5 * at + 1 + 2 * turn) % size for at in range(length)]
        yield torch.tensor([late, other])


def _refused(model: LocalModel, why: str) -> ModelError:
    return ModelError(
        f"{model.name!r} reads both ways: {why}; only causal models can be fused, whose rows depend on "
        "nothing that follows"
    )
