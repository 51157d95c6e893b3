"""An open batch on a model beside a copyist for each row."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from purify_hooks.copying.copyist import Copyist
from purify_plugins.protocols import Session
from purify_plugins.types import ScoredPrompt


def rescored(prompt: ScoredPrompt, copyist: Copyist) -> ScoredPrompt:
    """The prompt as the mixture scores it; the copyist has read its tokens."""
    steps = copyist.steps[len(copyist.steps) - len(prompt.logprobs) :]
    chances = (
        (1 - step.weight) * math.exp(logprob) + step.weight * step.chance
        for step, logprob in zip(steps, prompt.logprobs, strict=True)
    )
    return prompt._replace(logprobs=tuple(math.log(each) if each else -math.inf for each in chances))


class CopyingSession(Session):
    """A model's session whose rows (rows, V) are mixed with what each row's text says of its next token."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._copyists = [Copyist(prompt.tokens) for prompt in session.prompts]
        self.prompts: Sequence[ScoredPrompt] = [
            rescored(*each) for each in zip(session.prompts, self._copyists, strict=True)
        ]

    def first(self, logits: Tensor) -> Tensor:
        """The mixture's log-probabilities after the prompts, of the model's logits (rows, V)."""
        rows = torch.log_softmax(logits.float(), dim=-1)
        for row, copyist in zip(rows, self._copyists, strict=True):
            _mix(row, copyist)
        return rows

    def extend(self, tokens: Tensor) -> Tensor:
        return self.extended(tokens, self.session.extend(tokens))

    def extended(self, tokens: Tensor, logits: Tensor) -> Tensor:
        """The mixture's log-probabilities (rows, n, V) after tokens (rows, n), of the model's logits."""
        rows = torch.log_softmax(logits.float(), dim=-1)
        for read, after, copyist in zip(tokens.tolist(), rows, self._copyists, strict=True):
            for token, row in zip(read, after, strict=True):
                copyist.read(token)
                _mix(row, copyist)
        return rows

    def rewind(self, lengths: Tensor) -> None:
        self.session.rewind(lengths)
        self._forget(lengths.tolist())

    def _forget(self, lengths: Sequence[int]) -> None:
        for prompt, copyist, length in zip(self.prompts, self._copyists, lengths, strict=True):
            copyist.forget(len(prompt.tokens) + length)

    @property
    def readings(self) -> Sequence[tuple[int, ...]]:
        return self.session.readings

    @property
    def full(self) -> Collection[int] | None:
        return self.session.full

    @property
    def keeps(self) -> bool:
        return self.session.keeps

    def keep(self, rows: Sequence[int]) -> None:
        self.session.keep(rows)
        self.prompts = [self.prompts[row] for row in rows]
        self._copyists = [self._copyists[row] for row in rows]

    def mark(self) -> Any:
        read = (len(copyist.tokens) for copyist in self._copyists)
        return self.session.mark(), [
            n - len(prompt.tokens) for n, prompt in zip(read, self.prompts, strict=True)
        ]

    def undo(self, mark: Any) -> None:
        inner, lengths = mark
        self.session.undo(inner)
        self._forget(lengths)

    def close(self) -> None:
        self.session.close()


def _mix(row: Tensor, copyist: Copyist) -> None:
    """Mix the copyist's next token, at its weight, into log-probabilities (V,), in place."""
    said = copyist.prediction()
    if not said.weight:
        return
    row += math.log1p(-said.weight)
    for chances in (dict.fromkeys(copyist.distinct, said.even), said.more):
        ids = torch.tensor(list(chances), dtype=torch.long, device=row.device)
        added = torch.tensor(list(chances.values()), dtype=torch.float64, device="cpu")
        row[ids] = torch.logaddexp(row[ids], (said.weight * added).log().to(row))
