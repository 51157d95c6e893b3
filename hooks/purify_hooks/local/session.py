"""An open batch on a transformers model in this process: its KV cache and attention mask."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from purify_hooks.local.kv_cache import gather_columns, growing_cache, select_rows, truncate, truncate_to
from purify_hooks.local.onednn import onednn_linear
from purify_plugins.errors import SourceError
from purify_plugins.protocols import Session
from purify_plugins.sources.read_scope import for_fusion
from purify_plugins.types import ScoredPrompt

if TYPE_CHECKING:
    from purify_hooks.local.model import LocalModel

BLOCK = 256
"""Prompt tokens per forward pass; bounds the scored logits in memory to rows x 256 x V."""


class LocalSession(Session):
    """An open batch: token `ids` (rows, columns), which are `visible` to their row, and the KV `cache`.

    Rows are padded on the left. A rewind hides columns; those hidden in every row are dropped. `visible`
    stays on the CPU, where it is read, whatever the model's device.
    """

    cache_state = "on"
    """Whether the KV cache is kept from token to token, in words."""
    batches = True
    """Whether several sessions, and several continuations, can be read in one forward pass."""

    def __init__(self, model: LocalModel, prompts: Sequence[tuple[int, ...]], branches: bool = False) -> None:
        self.model = model
        self.branches: bool = branches
        self.prompts: Sequence[ScoredPrompt] = [ScoredPrompt(prompt) for prompt in prompts]
        self._width = max(map(len, prompts))
        device = model.device
        self.ids = torch.empty((len(prompts), 0), dtype=torch.long, device=device)
        self.visible = torch.empty((len(prompts), 0), dtype=torch.bool)
        self._lengths = torch.tensor([len(prompt) for prompt in prompts])
        self.cache: Any = growing_cache()
        self._forward = model.forward

    @property
    def block(self) -> int:
        """How many columns of the prompts one forward pass reads."""
        return BLOCK

    def prefill(self, scored: int) -> Tensor:
        """Read the prompts in blocks and score their last `scored` tokens; the last logits (rows, V)."""
        width = self._width
        padded = [[0] * (width - len(prompt.tokens)) + list(prompt.tokens) for prompt in self.prompts]
        ids = torch.tensor(padded, device=self.ids.device)
        visible = torch.arange(width) >= width - self._lengths[:, None]
        first, scores = max(width - 1 - scored, 0), []
        for start in range(0, width, self.block):
            end = min(start + self.block, width)
            logits = self._read_columns(
                ids[:, start:end], visible[:, start:end], min(end - start, max(end - first, 1))
            )
            if end > first and scored:
                scores.append(_scores(logits, ids[:, end - logits.shape[1] + 1 : end + 1]))
        if scored:
            self._attach(torch.cat(scores, dim=1))
        return logits[:, -1]

    def _attach(self, scores: Tensor) -> None:
        """Attach the scores (rows, n) of the prompts' last tokens; a row's first token has none."""
        self.prompts = [
            ScoredPrompt(prompt.tokens, tuple(row[max(len(row) - len(prompt.tokens) + 1, 0) :]))
            for prompt, row in zip(self.prompts, scores.tolist(), strict=True)
        ]

    def extend(self, tokens: Tensor) -> Tensor:
        """(rows, n) token ids -> (rows, n, V) logits of the token after each."""
        tokens = tokens.to(self.ids.device)
        return self._read_columns(tokens, torch.ones(tokens.shape, dtype=torch.bool), tokens.shape[1])

    def _read_columns(self, tokens: Tensor, visible: Tensor, wanted: int) -> Tensor:
        """Read new columns; the logits (rows, wanted, V) after the last `wanted` of them."""
        with self._atomic(), torch.inference_mode(), failures(self.model.name), for_fusion():
            self.append(tokens, visible)
            return to_vocabulary(self._logits(tokens.shape[1], wanted), self.model.vocabulary_size)

    @contextmanager
    def _atomic(self) -> Iterator[None]:
        """Undo what was appended if the forward pass fails."""
        mark = self.mark()
        try:
            yield
        except BaseException:
            self.undo(mark)
            raise

    def append(self, tokens: Tensor, visible: Tensor) -> None:
        """Append columns, which the next forward pass reads."""
        self.ids = torch.cat([self.ids, tokens], dim=1)
        self.visible = torch.cat([self.visible, visible], dim=1)

    def _logits(self, columns: int, wanted: int) -> Tensor:
        return self.logits_after(self.ids[:, -columns:], self.cache, self.visible, wanted)

    def logits_after(self, new: Tensor, cache: Any, seen: Tensor, wanted: int) -> Tensor:
        """The logits after the last `wanted` of the columns `new`, which end those that are `seen`."""
        padded = None if bool(seen.all()) else seen.long()
        return self._forward_pass(new, cache, padded, self._positions(seen, new.shape[1]), wanted)

    def _forward_pass(self, new: Tensor, cache: Any, seen: Tensor | None, at: Tensor, wanted: int) -> Tensor:
        # A model without position ids derives them from the mask or the columns; `trial` checks that.
        at_ = at if "positions" in self._forward.named else None
        with onednn_linear(self.model):
            return self._forward(new, cache, mask=seen, positions=at_, last=wanted).logits

    def _positions(self, seen: Tensor, columns: int) -> Tensor:
        """The last columns' position ids (rows, columns), clamped to the context for rows that have ended."""
        return self._within(torch.cumsum(seen, dim=1)[:, -columns:] - 1)

    def _within(self, places: Tensor) -> Tensor:
        length = self.model.context_length
        return places.clamp(min=0, max=None if length is None else length - 1)

    def branch(self, tokens: Tensor, seen: Tensor) -> Tensor:
        with self._atomic(), torch.inference_mode(), failures(self.model.name), for_fusion():
            whole = self.append_tree(tokens, seen)
            logits = self.tree_logits(self.ids[:, -tokens.shape[1] :], self.cache, whole)
            return to_vocabulary(logits, self.model.vocabulary_size)

    def append_tree(self, tokens: Tensor, seen: Tensor) -> Tensor:
        """Append a tree's tokens; their mask (rows, n, columns) bool, with the prompt's columns."""
        self.append(tokens.to(self.ids.device), torch.zeros(tokens.shape, dtype=torch.bool))
        prompts = self.visible[:, None, : self._width].expand(-1, tokens.shape[1], -1)
        return torch.cat([prompts, seen.cpu()], dim=-1)

    def tree_logits(self, new: Tensor, cache: Any, seen: Tensor) -> Tensor:
        """Logits (rows, n, V) after the columns `new` (rows, n), under the mask `seen`."""
        added, at = additive_mask(seen, self.model.dtype), self._within(seen.sum(dim=-1) - 1)
        return self._forward_pass(new, cache, added, at, new.shape[1])

    def select(self, columns: Tensor) -> None:
        """Keep only these columns (rows, n) of those that `branch` read, in this order."""
        columns = columns.cpu() + self._width
        self._arrange(torch.cat([torch.arange(self._width).expand(len(columns), -1), columns], dim=1))

    def rewind(self, lengths: Tensor) -> None:
        """Hide what follows the first `lengths` (rows,) tokens after each row's prompt."""
        kept = lengths.cpu() + self._lengths
        self.visible = self.visible & (torch.cumsum(self.visible, dim=1) <= kept[:, None])
        if self.model.windowed:
            self._compact()
        used = int(self.visible.any(dim=0).nonzero()[-1]) + 1
        self._drop(self.visible.shape[1] - used)
        self.visible, self.ids = self.visible[:, :used], self.ids[:, :used]

    def keep(self, rows: Sequence[int]) -> None:
        """Keep these rows only."""
        index = torch.tensor(rows)
        self.prompts = [self.prompts[row] for row in rows]
        self.visible, self._lengths = self.visible[index], self._lengths[index]
        self.ids = self.ids[index.to(self.ids.device)]
        with torch.inference_mode():
            select_rows(self.cache, index)

    def mark(self) -> tuple[Tensor, Tensor]:
        """The state for `undo`: the ids and which are visible."""
        return self.ids, self.visible

    def undo(self, mark: tuple[Tensor, Tensor]) -> None:
        """Restore the mark, even after a forward pass that failed between two layers."""
        self.ids, self.visible = mark
        truncate_to(self.cache, self.ids.shape[1])

    def _compact(self) -> None:
        """Move each row's visible columns to the right: a sliding window counts hidden columns too."""
        width = int(self.visible.sum(dim=1).max())
        self._arrange(torch.sort(self.visible.byte(), dim=1, stable=True).indices[:, -width:])

    def _arrange(self, order: Tensor) -> None:
        """Keep these columns (rows, n), in this order."""
        self.visible = self.visible.gather(1, order)
        self.ids = self.ids.gather(1, order.to(self.ids.device))
        with torch.inference_mode():
            gather_columns(self.cache, order)

    def _drop(self, columns: int) -> None:
        truncate(self.cache, columns)

    def close(self) -> None:
        self.cache = None


class MaskedSession(LocalSession):
    """For models that take a mask (rows, 1, n, columns): drafts are read with an explicit causal mask.

    The configuration's own attention settings then have no effect.
    """

    def logits_after(self, new: Tensor, cache: Any, seen: Tensor, wanted: int) -> Tensor:
        columns = new.shape[1]
        if columns == 1 or seen.shape[1] <= self._width:  # no later columns, or still the prompt
            return super().logits_after(new, cache, seen, wanted)
        added = additive_mask(causal(seen, columns), self.model.dtype)
        return self._forward_pass(new, cache, added, self._positions(seen, columns), wanted)


class RecomputingSession(LocalSession):
    """For models whose cache cannot be continued: the whole text is read for every token."""

    cache_state = "off: this model's cache cannot be continued, so every token is a reading of the whole text"
    batches = False

    def _logits(self, columns: int, wanted: int) -> Tensor:
        rows = [self._row(row[seen], wanted) for row, seen in zip(self.ids, self.visible, strict=True)]
        return torch.stack(rows)

    def _row(self, tokens: Tensor, wanted: int) -> Tensor:
        """One row's logits (wanted, V) after its last tokens; a short row repeats its first one."""
        tokens = tokens if len(tokens) else tokens.new_zeros(1)  # padding only
        logits = self._forward(tokens[None], last=wanted, keeping=False).logits[0]
        return padded_rows(logits, wanted)

    def _drop(self, columns: int) -> None:
        """Do nothing: there is no cache."""


def causal(seen: Tensor, columns: int) -> Tensor:
    """(rows, n, columns) bool: what each of the last n `columns` sees of `seen` (rows, columns)."""
    before = torch.ones(columns, seen.shape[1], dtype=torch.bool).tril(seen.shape[1] - columns)
    return seen[:, None] & before


def additive_mask(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """(rows, 1, n, columns) added to attention scores, from `seen` (rows, n, columns) bool."""
    return torch.where(seen, 0.0, torch.finfo(dtype).min).to(dtype)[:, None]


def padded_rows(logits: Tensor, wanted: int) -> Tensor:
    """Logits (n, V) as (wanted, V), the first one repeated in place of padding."""
    missing = max(wanted - len(logits), 0)
    return torch.cat([logits[:1].expand(missing, -1), logits[-wanted:]])


def to_vocabulary(logits: Tensor, size: int) -> Tensor:
    """Logits (…, size): cut for a model wider than its tokenizer, filled with -inf for a narrower one."""
    missing = size - logits.shape[-1]
    return pad(logits, (0, missing), value=float("-inf")) if missing > 0 else logits[..., :size]


def _scores(logits: Tensor, following: Tensor) -> Tensor:
    """Log-probabilities (rows, n) of the tokens that follow the first n of the logits."""
    rows = torch.log_softmax(logits[:, : following.shape[1]].float(), dim=-1)
    return rows.gather(-1, following[..., None])[..., 0]


@contextmanager
def failures(name: str) -> Iterator[None]:
    """Turn an error of torch into a SourceError."""
    try:
        yield
    except (RuntimeError, IndexError, ValueError) as error:  # what torch raises: memory, shapes, ids
        raise SourceError(f"{name!r} failed while reading: {error}") from error
