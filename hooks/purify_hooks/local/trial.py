"""Finds by trial which class of session reads a model correctly.

A model may ignore its cache silently, or derive positions from columns, or continue a state by one token
only. Two short texts of different lengths, with a draft that is rewound by a token, reveal all of these.
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
"""The largest difference from the reference, relative to the change by one token of context."""
ROUGH = 0.05
"""The same for 16-bit types: rounding reached 0.025, MPT read in a padded batch is off by 0.13."""
TOKENS = 11
FAILURES = (SourceError, ModelError, TypeError, AttributeError, NotImplementedError, KeyError)
"""Errors of a model that cannot be read in this way."""


def choose_session(model: LocalModel) -> type[LocalSession]:
    """The fastest class of session with correct rows; RecomputingSession if there is none."""
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
    """Raise ModelError for a model that returns NaN for an ordinary text."""
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
    """The classes of session to try, fastest first."""
    if "cache" not in model.forward.named:
        return ()
    if not model.forward.stateful:
        together = (LocalSession,) if model.windowed else (MaskedSession, LocalSession)
        return (*together, RowByRowSession, TokenByTokenSession)
    # Jamba's error when it reads several tokens after a state is below bfloat16's rounding: not testable.
    return (RowByRowSession, TokenByTokenSession) if model.dtype in NEAR else (TokenByTokenSession,)


def reads_correctly(model: LocalModel, kind: type[LocalSession]) -> bool:
    """Whether such a session's rows equal the reference."""
    try:
        with torch.inference_mode(), failures(model.name), for_fusion():
            texts, rows = _written(model, kind)
            return all(matches(model, text, row) for text, row in zip(texts, rows, strict=True))
    except FAILURES:
        return False


def _written(model: LocalModel, kind: type[LocalSession]) -> tuple[list[Sequence[int]], list[Tensor]]:
    """Two texts, and the logits (V,) after each from a session that reads them in parts."""
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
    """Token ids from the middle of the vocabulary, where none is special."""
    size = model.vocabulary_size
    return [(size // 2 + place) % size for place in range(count)]


def matches(model: LocalModel, text: Sequence[int], row: Tensor) -> bool:
    """Whether a row (V,) equals the reference after a text, up to rounding.

    Relative to how much the row changes without the token before the last.
    """
    right, other = (reference_logits(model, each) for each in (text, [*text[:-2], text[-1]]))
    off, change = (_distance(each, right) for each in (row[: len(right)].float(), other))
    return off <= NEAR.get(model.dtype, ROUGH) * change + 1e-4


def _distance(one: Tensor, other: Tensor) -> float:
    return float((one.log_softmax(-1) - other.log_softmax(-1)).norm())


def reference_logits(model: LocalModel, text: Sequence[int]) -> Tensor:
    """The reference: logits, in float32, after a text read in one pass without a cache.

    As many as the model and its tokenizer both have: a model's embedding is often wider than its tokenizer.
    """
    tokens = torch.tensor([text], device=model.device)
    row: Tensor = model.forward(tokens, last=1, keeping=False).logits[0, -1]
    return row[: model.vocabulary_size].float()
