"""Rows read one by one, each with the cache the model makes itself: for what cannot stand in one batch.

A state-space or hybrid model's state has read all it has read: no column of it can be hidden, so rows of
different lengths cannot be padded into one batch, and a rewind cannot take tokens back. Each row has a
cache of its own, and a copy from before the last draft, from which it reads again what was kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from purify_hooks.local.onednn import onednn_linear
from purify_hooks.local.session import LocalSession, padded_rows, to_vocabulary

if TYPE_CHECKING:
    from purify_hooks.local.forward import Forward
    from purify_hooks.local.model import LocalModel


class RowCache:
    """What the model has read of one row, and a copy of an earlier state to go back to."""

    def __init__(self, forward: Forward, at_once: bool) -> None:
        self.forward, self.at_once = forward, at_once
        self.cache: Any = None
        self.length = 0
        self.saved: tuple[Any, int] = (None, 0)

    def read(self, text: Tensor, new: int, last: int, draft: bool) -> Tensor:
        """The logits (n, V) after the `last` of the `new` tokens that end the text, n at most.

        Of a draft, some may have to be taken back.
        """
        before = len(text) - new
        if self.length != before:
            self._catch_up(text[:before])
        elif draft and new > 1:
            self.save()
        return self._read_columns(text[before:], last)

    def _catch_up(self, text: Tensor) -> None:
        """Go back to the copy, and read what follows it in the text, which is kept in turn."""
        cache, length = self.saved if self.saved[1] <= len(text) else (None, 0)
        self.cache, self.length = deepcopy(cache), length
        if length < len(text):
            self._read_columns(text[length:], 1)
        self.save()

    def _read_columns(self, tokens: Tensor, last: int) -> Tensor:
        """Read tokens (n,), in one pass if the model continues a state with several as with each."""
        whole = self.at_once or self.cache is None
        logits = [self._forward_pass(part, last) for part in ([tokens] if whole else tokens.split(1))]
        return torch.cat(logits)[-last:]

    def _forward_pass(self, tokens: Tensor, last: int) -> Tensor:
        read = self.forward.alone(tokens, self.cache, self.length, min(last, len(tokens)))
        self.cache, self.length = read.cache, self.length + len(tokens)
        return read.logits[0]

    def save(self) -> None:
        """Remember this state, to go back to."""
        if self.saved[1] != self.length:
            self.saved = (deepcopy(self.cache), self.length)

    def forget(self) -> None:
        """Whatever stands in the cache is read again, from the copy on."""
        self.cache, self.length = None, -1


class RowByRowSession(LocalSession):
    """An open batch whose rows the model reads one by one, each with the model's own cache."""

    cache_state = "on, row by row"
    batches = False
    at_once = True
    """Whether several tokens after a state can be read in one pass."""

    def __init__(self, model: LocalModel, prompts: Sequence[tuple[int, ...]], branches: bool = False) -> None:
        super().__init__(model, prompts, branches)
        self._rows = [RowCache(model.forward, self.at_once) for _ in prompts]

    def prefill(self, scored: int) -> Tensor:
        logits = super().prefill(scored)
        with torch.inference_mode():
            for row in self._rows:
                row.save()
        return logits

    def _logits(self, columns: int, wanted: int) -> Tensor:
        new = self.visible[:, -columns:].sum(dim=1).tolist()
        texts = [row[seen] for row, seen in zip(self.ids, self.visible, strict=True)]
        with onednn_linear(self.model):
            read = [self._row(*each, wanted) for each in zip(self._rows, texts, new, strict=True)]
        return torch.stack(read)

    def _row(self, row: RowCache, text: Tensor, new: int, wanted: int) -> Tensor:
        """One row's logits (wanted, V) after its last tokens; zeros where nobody looks at them."""
        length, size = self.model.context_length, self.model.vocabulary_size
        if new == 0 or (length is not None and len(text) > length):  # padding so far, or it has ended
            return torch.zeros(wanted, size, device=text.device)
        draft = self.ids.shape[1] > self._width
        return to_vocabulary(padded_rows(row.read(text, new, wanted, draft), wanted), size)

    def keep(self, rows: Sequence[int]) -> None:
        super().keep(rows)
        self._rows = [self._rows[row] for row in rows]

    def undo(self, mark: tuple[Tensor, Tensor]) -> None:
        super().undo(mark)
        for row in self._rows:
            row.forget()

    def _compact(self) -> None:
        """Hidden columns are in nobody's window: no row's cache has them."""

    def close(self) -> None:
        super().close()
        self._rows = []


class TokenByTokenSession(RowByRowSession):
    """For models that, after a state, read one token a pass only: a prompt is one pass, all else is many."""

    cache_state = "on, row by row, one token a pass"
    at_once = False

    @property
    def block(self) -> int:
        return self._width
