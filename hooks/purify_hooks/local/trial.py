"""Which kind of session a model reads rightly in: tried, not guessed from its name or its arguments.

A cache may be ignored without a word, or hold less than the text; a model without positions may count
them from columns; a state may be continued by one token only. Two short texts of different lengths,
with a draft of which one takes a token back, show all of it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from purify_hooks.local.row_caches import RowByRowSession, TokenByTokenSession
from purify_hooks.local.session import LocalSession, MaskedSession, RecomputingSession, failures
from purify_plugins.errors import ModelError, SourceError
from purify_plugins.sources.read_scope import for_fusion

if TYPE_CHECKING:
    from purify_hooks.local.model import LocalModel

NEAR = {torch.float32: 1e-3, torch.float64: 1e-3}
"""How far off two readings may be, as a share of what one token of context changes."""
ROUGH = 0.05
"""The same for shorter numbers: rounding came to 0.025 at most, MPT read in a batch is off by 0.13."""
TOKENS = 11
FAILURES = (SourceError, ModelError, TypeError, AttributeError, NotImplementedError, KeyError)
"""What a model raises that is used as it cannot be."""


def choose_session(model: LocalModel) -> type[LocalSession]:
    """The first kind of session whose rows are those of whole texts read anew; else that which does so."""
    forward = model.forward  # raises for a model that cannot be called here
    _require_numbers(model)
    for kind in candidates(model):
        if reads_correctly(model, kind):
            return kind
    logging.getLogger(__name__).warning(
        "%r (%s) keeps no cache that can be continued: every token is a reading of its whole text",
        model.name,
        type(forward.model).__name__,
    )
    return RecomputingSession


def _require_numbers(model: LocalModel) -> None:
    """Raise ModelError for a model that returns NaN for an ordinary text, in whichever session it is read."""
    try:
        with torch.inference_mode(), failures(model.name), for_fusion():
            broken = bool(reference_logits(model, sample_tokens(model, TOKENS)).isnan().any())
    except FAILURES:
        return  # a model that cannot be read so at all; the trials report it
    if broken:
        raise ModelError(
            f"{model.name!r} returns NaN for an ordinary text; correct its config.json, use another dtype, "
            "or fetch its weights again"
        )


def candidates(model: LocalModel) -> Sequence[type[LocalSession]]:
    """What is worth a trial, the fastest first."""
    if "cache" not in model.forward.named:
        return ()
    if not model.forward.stateful:
        together = (LocalSession,) if model.windowed else (MaskedSession, LocalSession)
        return (*together, RowByRowSession, TokenByTokenSession)
    # What Jamba loses of a state when it reads several tokens is less than bfloat16's rounding.
    return (RowByRowSession, TokenByTokenSession) if model.dtype in NEAR else (TokenByTokenSession,)


def reads_correctly(model: LocalModel, kind: type[LocalSession]) -> bool:
    """Whether such a session's rows are the model's own."""
    try:
        with torch.inference_mode(), failures(model.name), for_fusion():
            texts, rows = _written(model, kind)
            return all(matches(model, text, row) for text, row in zip(texts, rows, strict=True))
    except FAILURES:
        return False


def _written(model: LocalModel, kind: type[LocalSession]) -> tuple[list[Sequence[int]], list[Tensor]]:
    """Two texts and the logits (V,) after each, as a session reads them bit by bit."""
    ids = sample_tokens(model, TOKENS)
    one, two = ids[:3], ids[3:5]
    with kind(model, [tuple(one), tuple(two)]) as session:
        session.prefill(0)
        session.extend(torch.tensor([ids[5:6], ids[6:7]]))
        session.extend(torch.tensor([[ids[7], ids[0]], ids[8:10]]))
        session.rewind(torch.tensor([2, 3]))
        rows = session.extend(torch.tensor([ids[10:11], ids[1:2]]))[:, -1]
    return [[*one, ids[5], ids[7], ids[10]], [*two, ids[6], *ids[8:10], ids[1]]], list(rows)


def sample_tokens(model: LocalModel, count: int) -> list[int]:
    """Ordinary tokens, different ones if there are so many: from the middle, where none is special."""
    size = model.vocabulary_size
    return [(size // 2 + place) % size for place in range(count)]


def matches(model: LocalModel, text: Sequence[int], row: Tensor) -> bool:
    """Whether a row (V,) is what the model says after a text, up to rounding.

    The measure is how much the row changes without the token before the last.
    """
    right, other = (reference_logits(model, each) for each in (text, [*text[:-2], text[-1]]))
    off, change = (
        float((each.log_softmax(-1) - right.log_softmax(-1)).norm()) for each in (_same(row, right), other)
    )
    return off <= NEAR.get(model.dtype, ROUGH) * change + 1e-4


def _same(row: Tensor, like: Tensor) -> Tensor:
    return row[: len(like)].float()


def reference_logits(model: LocalModel, text: Sequence[int]) -> Tensor:
    """The model's own logits (V,), in float32, after a text read in one pass without any cache."""
    tokens = torch.tensor([text], device=model.device)
    return model.forward(tokens, last=1, keeping=False).logits[0, -1].float()
