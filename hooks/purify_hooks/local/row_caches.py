"""Sessions that read row by row, each row with the model's own cache: for recurrent and hybrid models.

No token can be hidden in or removed from a recurrent state: rows of different lengths cannot be padded
into one batch, and a rewind needs an earlier state. So each row has its own cache, and a copy from before
the last draft, from which the accepted tokens are read again.
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
    """The cache of one row, and a copy of an earlier state to rewind to."""

    def __init__(self, forward: Forward, at_once: bool) -> None:
        self.forward, self.at_once = forward, at_once
        self.cache: Any = None
        self.length = 0
        self.saved: tuple[Any, int] = (None, 0)

    def read(self, text: Tensor, new: int, last: int, draft: bool) -> Tensor:
        """The logits (n, V) after the `last` of the `new` tokens at the text's end, n at most.

        Before a `draft` the state is saved, since some of its tokens may be rejected.
        """
        before = len(text) - new
        if self.length != before:
            self._catch_up(text[:before])
        elif draft and new > 1:
            self.save()
        return self._read_columns(text[before:], last)

    def _catch_up(self, text: Tensor) -> None:
        """Restore the copy, read the rest of the text, and save that state."""
        cache, length = self.saved if self.saved[1] <= len(text) else (None, 0)
        self.cache, self.length = deepcopy(cache), length
        if length < len(text):
            self._read_columns(text[length:], 1)
        self.save()

    def _read_columns(self, tokens: Tensor, last: int) -> Tensor:
        """Read tokens (n,), in one pass if the model can."""
        whole = self.at_once or self.cache is None
        logits = [self._forward_pass(part, last) for part in ([tokens] if whole else tokens.split(1))]
        return torch.cat(logits)[-last:]

    def _forward_pass(self, tokens: Tensor, last: int) -> Tensor:
        read = self.forward.alone(tokens, self.cache, self.length, min(last, len(tokens)))
        self.cache, self.length = read.cache, self.length + len(tokens)
        return read.logits[0]

    def save(self) -> None:
        """Save this state, to rewind to."""
        if self.saved[1] != self.length:
            self.saved = (deepcopy(self.cache), self.length)

    def forget(self) -> None:
        """Drop the cache; the text is read again from the copy on."""
        self.cache, self.length = None, -1


class RowByRowSession(LocalSession):
    """An open batch whose rows are read one by one, each with the model's own cache."""

    cache_state = "on, row by row"
    batches = False
    at_once = True
    """Whether several tokens can be read in one pass after a state."""

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
        """One row's logits (wanted, V) after its last tokens; zeros for a row that has ended."""
        length, size = self.model.context_length, self.model.vocabulary_size
        if new == 0 or (length is not None and len(text) > length):  # padding only, or the row has ended
            return torch.zeros(wanted, size, device=text.device, dtype=torch.float32)
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
        """Do nothing: no row's cache has hidden columns."""

    def close(self) -> None:
        super().close()
        self._rows = []


class TokenByTokenSession(RowByRowSession):
    """For models that continue a state by one token a pass only; a prompt is still one pass."""

    cache_state = "on, row by row, one token a pass"
    at_once = False

    @property
    def block(self) -> int:
        return self._width
