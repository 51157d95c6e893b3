"""Shape both rows before they are fused: penalties, masks, temperature and what is cut off."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from purify_plugins.decode.logits import argmax, near, normalise
from purify_plugins.decode.truncation import Cut

if TYPE_CHECKING:
    from purify_plugins.sampling import Sampling
    from purify_plugins.types import Vocabulary

History = Sequence[tuple[Sequence[int], Sequence[int]]]
"""Per row: the prompt's tokens and the answer's tokens so far."""

UNDER_SETTINGS = "a model, under these sampling settings,"


class Shaper:
    """What `Sampling` does to a row of log-probabilities before fusion; the same for both models.

    `raw` says that no token is to be weighed anew, at most banned, and that the policy only shifts
    when its rows do: it may be given logits. Rows are `loose`, logits as yet, where they will be
    narrowed first too. `cut`, unless `whole`, finds the few tokens that top-k,
    top-p and min-p leave without sorting the row; on an accelerator, where sorting is cheap, the row
    stays whole.
    """

    def __init__(
        self, sampling: Sampling, vocabulary: Vocabulary, raw: bool = False, whole: bool = True
    ) -> None:
        cut = _cuts(sampling)
        # what is typical is not always what is likeliest, which is all that Cut looks at
        self.cut = None if whole or not cut or sampling.typical_p < 1 else Cut(sampling)
        penalties, masks = _penalties(sampling), _masks(sampling, vocabulary)
        bans, warpers = _bans(sampling, vocabulary.eos), _warpers(sampling, bool(self.cut))
        self.steps = [*penalties, *masks, *bans, *warpers]
        self.masked, self.followed = bool(masks or bans), bool(masks)
        self.looks_back = bool(penalties or masks)
        self.raw = raw and not (penalties or warpers or cut)
        self.loose = self.raw or bool(self.cut and not penalties and not warpers)

    def __call__(self, rows: Tensor, history: History) -> Tensor:
        """Log-probabilities (rows, V) -> log-probabilities (rows, V), normalised again."""
        if not self.steps:
            return rows
        for step in self.steps:
            rows = step(rows, history)
        return normalise(rows, UNDER_SETTINGS)

    def likeliest(self, logits: Tensor, history: History) -> Tensor:
        """The arg-max (rows,) of one model's shaped row, which is only normalised if that could change it."""
        return argmax(self.weigh(logits, history, "a model")[0] if self.steps else logits.float())

    def weigh(self, logits: Tensor, history: History, who: str) -> tuple[Tensor, Tensor | None]:
        """Logits (rows, V) of any dtype -> float32 log-weights (rows, V), normalised unless `loose`.

        Beside them, (rows,) bool: rows in which the model rules out every token that the grammar, or
        `ignore_eos`, allows. All their weights are equal and mean nothing. None: there are no such rows.
        """
        rows = logits.float() if self.loose else normalise(logits, who)
        for step in self.steps:
            rows = step(rows, history)
        barred = torch.isneginf(rows.amax(dim=-1)) if self.masked else None
        # what a grammar allows is worked out on the host; what is banned is not, and nobody waits for it
        if barred is not None and ((not near(barred) and not self.followed) or bool(barred.any())):
            rows = torch.where(barred[:, None], 0.0, rows)
        else:
            barred = None
        return rows if self.loose or not self.steps else normalise(rows, UNDER_SETTINGS), barred


def _cuts(sampling: Sampling) -> bool:
    used = sampling.top_k > 0 or sampling.top_p < 1 or sampling.min_p > 0 or sampling.typical_p < 1
    return not sampling.greedy and used


Shaping = Callable[[Tensor, History], Tensor]


def _penalties(sampling: Sampling) -> list[Shaping]:
    found: list[Shaping] = []
    if sampling.repetition_penalty != 1.0:
        found.append(lambda rows, history: _discourage(rows, history, sampling.repetition_penalty))
    if sampling.frequency_penalty:
        found.append(lambda rows, history: _punish(rows, history, sampling.frequency_penalty))
    return found


def _masks(sampling: Sampling, vocabulary: Vocabulary) -> list[Shaping]:
    if not sampling.grammar:
        return []
    from purify_plugins.decode.grammar_mask import Mask

    return [Mask(sampling.grammar, vocabulary)]


def _bans(sampling: Sampling, eos: Collection[int]) -> list[Shaping]:
    if not sampling.ignore_eos:
        return []
    banned = torch.tensor(sorted(eos))
    return [lambda rows, history: rows.index_fill(-1, banned.to(rows.device), -torch.inf)]


def _warpers(sampling: Sampling, cut: bool) -> list[Shaping]:
    """Temperature, top-k, top-p, min-p and typical-p, in transformers' order; none when greedy.

    With `cut` top-k, top-p and min-p are left to Cut.
    """
    if sampling.greedy:
        return []
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
    if cut:
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


def _warping(warper: Callable[[Tensor, Tensor], Tensor]) -> Shaping:
    unused = torch.empty(0, dtype=torch.long)
    return lambda rows, history: warper(unused, rows)


def _discourage(rows: Tensor, history: History, penalty: float) -> Tensor:
    """Multiply the log-probability of every token in the prompt or the answer, whatever its count."""
    rows = rows.clone()
    for row, (prompt, answer) in zip(rows, history, strict=True):
        seen = {token for token in (*prompt, *answer) if token >= 0}  # below: the models do not share it
        row[torch.tensor(sorted(seen), dtype=torch.long, device=row.device)] *= penalty
    return rows


def _punish(rows: Tensor, history: History, penalty: float) -> Tensor:
    """Take `penalty` nats from a token for each time the answer has used it."""
    rows = rows.clone()
    for row, (_, answer) in zip(rows, history, strict=True):
        used = torch.tensor(answer, dtype=torch.long, device=row.device)
        row.index_add_(0, used, torch.full(used.shape, -penalty, device=row.device))
    return rows
