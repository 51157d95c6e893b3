"""An open batch on a model of n-grams: a row depends on its text's last few tokens, so nothing is cached."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from purify_plugins.protocols import Session
from purify_plugins.types import ScoredPrompt

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from purify_hooks.ngram.model import NgramModel


class NgramSession(Session):
    """The token ids of each row: its prompt and what was read since."""

    branches = True

    def __init__(self, model: NgramModel, prompts: Sequence[tuple[int, ...]], scored: int) -> None:
        self._model = model
        self._read: list[list[int]] = [[] for _ in prompts]
        self.prompts: Sequence[ScoredPrompt] = [
            ScoredPrompt(prompt, self._scores(prompt, scored)) for prompt in prompts
        ]

    def _scores(self, prompt: Sequence[int], scored: int) -> tuple[float, ...]:
        """The log-probabilities of a prompt's last `scored` tokens; its first token has none."""
        first = max(len(prompt) - scored, 1)
        chances = (
            self._model.probability(self._last(prompt[:at]), prompt[at]) for at in range(first, len(prompt))
        )
        return tuple(float(np.log(each)) for each in chances)

    def _last(self, text: Sequence[int]) -> list[int]:
        """The tokens that the row after a text depends on, BEGIN before a text that is shorter."""
        wanted = self._model.order - 1
        return [self._model.size, *text[-wanted:]][-wanted:]

    def _log_row(self, prompt: Sequence[int], read: Sequence[int]) -> NDArray[Any]:
        wanted = self._model.order - 1
        return self._model.log_row(self._last([*prompt[-wanted:], *read[-wanted:]]))

    def first(self) -> Tensor:
        """The log-probabilities (rows, V) of the token after each prompt."""
        rows = [self._log_row(prompt.tokens, ()) for prompt in self.prompts]
        return torch.from_numpy(np.stack(rows))

    def extend(self, tokens: Tensor) -> Tensor:
        """(rows, n) token ids -> (rows, n, V) float32 log-probabilities of the token after each."""
        out = np.empty((*tokens.shape, self._model.size), dtype=np.float32)
        for row, new in enumerate(tokens.tolist()):
            for column, token in enumerate(new):
                self._read[row].append(token)
                out[row, column] = self._log_row(self.prompts[row].tokens, self._read[row])
        return torch.from_numpy(out)

    def rewind(self, lengths: Tensor) -> None:
        for read, length in zip(self._read, lengths.tolist(), strict=True):
            del read[length:]

    def keep(self, rows: Sequence[int]) -> None:
        self.prompts = [self.prompts[row] for row in rows]
        self._read = [self._read[row] for row in rows]

    def branch(self, tokens: Tensor, seen: Tensor) -> Tensor:
        out = np.empty((*tokens.shape, self._model.size), dtype=np.float32)
        for row, (new, masks) in enumerate(zip(tokens.tolist(), seen.cpu().numpy(), strict=True)):
            self._read[row] += new
            for column, mask in enumerate(masks):
                path = [token for token, sees in zip(self._read[row], mask, strict=True) if sees]
                out[row, column] = self._log_row(self.prompts[row].tokens, path)
        return torch.from_numpy(out)

    def select(self, columns: Tensor) -> None:
        chosen = columns.tolist()
        self._read = [[read[at] for at in kept] for read, kept in zip(self._read, chosen, strict=True)]

    def mark(self) -> list[int]:
        return [len(read) for read in self._read]

    def undo(self, mark: Sequence[int]) -> None:
        for read, length in zip(self._read, mark, strict=True):
            del read[length:]
