"""Logits processors, applied to both models' rows before fusion: penalties, masks, warpers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from purify_plugins.decode.constraint_mask import ConstraintMask
from purify_plugins.decode.logits import argmax, normalise, on_cpu
from purify_plugins.decode.truncation import Truncation

if TYPE_CHECKING:
    from purify_plugins.protocols import Constraint
    from purify_plugins.sampling import Sampling
    from purify_plugins.types import History, Vocabulary

UNDER_SETTINGS = "a model, under these sampling settings,"
Processor = Callable[[Tensor, "History"], Tensor]


class LogitsProcessors:
    """What `Sampling` and constraints do to a row before fusion: the same for both models.

    `raw`: no token's weight changes (a token may be banned) and the policy is shift-invariant, so that it may
    be given logits. Rows stay `unnormalized` logits there, and where they will be truncated first.
    `truncation`, unless `whole`, finds the few tokens that top-k, top-p and min-p leave without sorting the
    row; on an accelerator, where sorting is cheap, the row stays whole. `normalized`: rows are given as
    float32 log-probabilities, and stay as they are where nothing else is done to them.
    """

    def __init__(
        self,
        sampling: Sampling,
        vocabulary: Vocabulary,
        raw: bool = False,
        whole: bool = True,
        constraints: Sequence[Constraint] = (),
        normalized: bool = False,
    ) -> None:
        truncates = not sampling.greedy and (
            sampling.top_k > 0 or sampling.top_p < 1 or sampling.min_p > 0 or sampling.typical_p < 1
        )
        # Typical-p may keep tokens that are not the likeliest, which are all that Truncation looks at.
        narrows = truncates and not whole and sampling.typical_p == 1
        self.truncation = Truncation(sampling) if narrows else None
        penalties: list[Processor] = []
        if (factor := sampling.repetition_penalty) != 1.0:
            penalties.append(lambda rows, history: _penalise_repetition(rows, history, factor))
        if nats := sampling.frequency_penalty:
            penalties.append(lambda rows, history: _penalise_frequency(rows, history, nats))
        followed = bool(sampling.grammar or constraints)
        masks = _masks(sampling, vocabulary, constraints) if followed or sampling.ignore_eos else []
        warps = not sampling.greedy and (truncates or sampling.temperature != 1.0)
        warpers = _warpers(sampling, narrows) if warps else []
        self.steps = [*penalties, *masks, *warpers]
        self.masks, self.follows_text, self.constrained = bool(masks), followed, bool(constraints)
        self.reads_history = bool(penalties or followed)
        self.raw = raw and not (penalties or warpers or truncates)
        given = normalized and not self.steps
        self.unnormalized = self.raw or given or bool(narrows and not penalties and not warpers)

    def __call__(self, rows: Tensor, history: History) -> Tensor:
        """Log-probabilities (rows, V) -> log-probabilities (rows, V), normalised again."""
        if not self.steps:
            return rows
        for step in self.steps:
            rows = step(rows, history)
        return normalise(rows, UNDER_SETTINGS)

    def likeliest(self, logits: Tensor, history: History) -> Tensor:
        """The arg-max (rows,) of one model's processed row, normalised only if that could change it."""
        return argmax(self.process(logits, history, "a model")[0] if self.steps else logits.float())

    def process(self, logits: Tensor, history: History, who: str) -> tuple[Tensor, Tensor | None]:
        """Logits (rows, V) of any dtype -> float32 log-weights (rows, V), normalised unless `unnormalized`.

        Beside them, (rows,) bool: fully masked rows, in which the model rules out every token that the
        grammar, constraints or `ignore_eos` allow. All their weights are equal and mean nothing. None: there
        are none.
        """
        rows = logits.float() if self.unnormalized else normalise(logits, who)
        for step in self.steps:
            rows = step(rows, history)
        masked = torch.isneginf(rows.amax(dim=-1)) if self.masks else None
        # What follows the text is made on the host, which may as well read this. A ban is not: no
        # synchronisation.
        if masked is not None and ((not on_cpu(masked) and not self.follows_text) or bool(masked.any())):
            rows = torch.where(masked[:, None], 0.0, rows)
        else:
            masked = None
        return rows if self.unnormalized or not self.steps else normalise(rows, UNDER_SETTINGS), masked


def _masks(sampling: Sampling, vocabulary: Vocabulary, constraints: Sequence[Constraint]) -> list[Processor]:
    """What rules tokens out: a grammar, constraints, or end tokens."""
    found: list[Processor] = []
    if sampling.grammar:
        from purify_plugins.decode.grammar_mask import Mask

        found.append(Mask(sampling.grammar, vocabulary))
    found += [ConstraintMask(each, vocabulary) for each in constraints]
    if sampling.ignore_eos:
        banned = torch.tensor(sorted(vocabulary.eos))
        found.append(lambda rows, history: rows.index_fill(-1, banned.to(rows.device), -torch.inf))
    return found


def _warpers(sampling: Sampling, narrows: bool) -> list[Processor]:
    """Temperature, top-k, top-p, min-p and typical-p, in transformers' order.

    With `narrows` top-k, top-p and min-p are left to Truncation.
    """
    from transformers import (
        LogitsProcessor,
        MinPLogitsWarper,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
        TypicalLogitsWarper,
    )

    chosen: list[LogitsProcessor] = []
    if sampling.temperature != 1.0:
        chosen.append(TemperatureLogitsWarper(float(sampling.temperature)))
    if narrows:
        return [_warping(warper) for warper in chosen]
    if sampling.top_k:
        chosen.append(TopKLogitsWarper(top_k=sampling.top_k))
    if sampling.top_p < 1.0:
        chosen.append(TopPLogitsWarper(top_p=float(sampling.top_p)))
    if sampling.min_p:
        chosen.append(MinPLogitsWarper(min_p=float(sampling.min_p)))
    if sampling.typical_p < 1.0:
        chosen.append(TypicalLogitsWarper(mass=float(sampling.typical_p)))
    return [_warping(warper) for warper in chosen]


def _warping(warper: Callable[[Tensor, Tensor], Tensor]) -> Processor:
    unused = torch.empty(0, dtype=torch.long)
    return lambda rows, history: warper(unused, rows)


def _penalise_repetition(rows: Tensor, history: History, penalty: float) -> Tensor:
    """Multiply the log-probability of every token in the prompt or the answer, whatever its count."""
    rows = rows.clone()
    for row, (prompt, answer) in zip(rows, history, strict=True):
        seen = {token for token in (*prompt, *answer) if token >= 0}  # below: the models do not share it
        row[torch.tensor(sorted(seen), dtype=torch.long, device=row.device)] *= penalty
    return rows


def _penalise_frequency(rows: Tensor, history: History, penalty: float) -> Tensor:
    """Take `penalty` nats from a token for each time the answer has used it."""
    rows = rows.clone()
    for row, (_, answer) in zip(rows, history, strict=True):
        used = torch.tensor(answer, dtype=torch.long, device=row.device)
        row.index_add_(0, used, row.new_full(used.shape, -penalty))
    return rows
