"""Many texts in one KV cache, read together: for an engine that says at each step which texts go on.

A slot's text has a row of the cache's buffers, whatever the length of the others. Tokens are right-aligned in
one batch under an explicit mask. A prompt of many tokens would pad the batch, so where that costs more than a
second reading of the weights, long runs are read apart from short ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from purify_hooks.local.onednn import onednn_linear
from purify_hooks.local.session import additive_mask, failures, to_vocabulary
from purify_plugins.protocols import Slots
from purify_plugins.sources.read_scope import for_fusion

if TYPE_CHECKING:
    from collections.abc import Iterator

    from purify_hooks.local.model import LocalModel

BLOCK = 1024
"""The most tokens of a text that one pass reads; bounds the mask in memory to rows x 1024 x columns."""
PADDED = 2
"""A pass may have so many times the columns that its tokens need; beyond, long runs are read apart."""


class SlotPass(NamedTuple):
    """One pass: each row of the cache, its kept length, and the tokens to read after it."""

    rows: Sequence[int]
    starts: Sequence[int]
    tokens: Sequence[Sequence[int]]
    wanted: Sequence[int]


class KVSlots(Slots):
    """The texts of a local model whose attention takes a mask of columns (`branches`)."""

    def __init__(self, model: LocalModel) -> None:
        self.model, self.passes = model, 0
        self._row: dict[int, int] = {}
        self._free: list[int] = []
        self._plan = _Plan()
        self._cache: Any = Cache(layer_class_to_replicate=partial(SlotLayer, self._plan))  # type: ignore[arg-type]  # called for each layer

    def read(
        self,
        slots: Sequence[int],
        starts: Sequence[int],
        tokens: Sequence[Sequence[int]],
        wanted: Sequence[int],
    ) -> Tensor:
        order = sorted(range(len(slots)), key=lambda at: self._place(slots[at]))
        found: list[Tensor] = [torch.empty(0)] * len(slots)
        with torch.inference_mode(), failures(self.model.name), for_fusion():
            for part in _parts([len(tokens[at]) for at in order]):
                chosen = [order[at] for at in part]
                reading = SlotPass(
                    [self._row[slots[at]] for at in chosen],
                    *([each[at] for at in chosen] for each in (starts, tokens, wanted)),  # type: ignore[arg-type]  # as in the tuple
                )
                logits = self._in_blocks(reading)
                ends = accumulate(reading.wanted)
                for at, end, count in zip(chosen, ends, reading.wanted, strict=True):
                    found[at] = logits[end - count : end]
            return torch.cat(found)

    def release(self, slot: int) -> None:
        row = self._row.pop(slot, None)
        if row is not None:
            self._free.append(row)

    def _place(self, slot: int) -> int:
        """The slot's row in the buffers."""
        if slot not in self._row:
            self._row[slot] = self._free.pop() if self._free else len(self._row)
        return self._row[slot]

    def _in_blocks(self, reading: SlotPass) -> Tensor:
        """Read BLOCK tokens at once, from the first; the wanted logits of the last."""
        longest = max(map(len, reading.tokens))
        while longest > BLOCK:
            head = [each[: max(len(each) - (longest - BLOCK), 0)] for each in reading.tokens]
            some = [at for at, each in enumerate(head) if each]
            rows, starts = ([each[at] for at in some] for each in reading[:2])
            self._pass(SlotPass(rows, starts, [head[at] for at in some], [0] * len(some)))
            starts = [start + len(each) for start, each in zip(reading.starts, head, strict=True)]
            tokens = [each[len(begun) :] for each, begun in zip(reading.tokens, head, strict=True)]
            reading = reading._replace(starts=starts, tokens=tokens)
            longest = max(map(len, reading.tokens))
        return self._pass(reading)

    def _pass(self, reading: SlotPass) -> Tensor:
        """The wanted logits (n, V) of one forward pass."""
        device, model = self.model.device, self.model
        news = list(map(len, reading.tokens))
        width, last = max(news), max(max(reading.wanted), 1)
        ids = torch.tensor([[0] * (width - len(each)) + list(each) for each in reading.tokens], device=device)
        ends = torch.tensor(reading.starts) + torch.tensor(news)
        positions = ends[:, None] - width + torch.arange(width)
        used = int(ends.max())
        seen = torch.arange(used) <= positions[:, :, None]
        self._plan.set(reading.rows, positions, news, used, device)
        self.passes += 1
        with onednn_linear(model):
            mask, at = additive_mask(seen.to(device), model.dtype), positions.clamp(min=0).to(device)
            read = model.forward(ids, self._cache, mask=mask, positions=at, last=last)
        logits = to_vocabulary(read.logits, model.vocabulary_size)
        if all(count == last for count in reading.wanted):
            return logits.flatten(0, 1)
        return torch.cat([row[last - n :] for row, n in zip(logits, reading.wanted, strict=True)])


class _Plan:
    """What one pass reads, for every layer."""

    def set(
        self, rows: Sequence[int], positions: Tensor, news: Sequence[int], used: int, device: torch.device
    ) -> None:
        """`positions` (rows, n) of the new tokens in their texts, of which the last `news` are real."""
        self.used, self.count = used, positions.shape[1]
        self.least = max(rows) + 1
        first, run = rows[0], list(range(rows[0], rows[0] + len(rows)))
        # Rows that stand side by side are a view; others are copied, for every layer.
        self.place: slice | Tensor = (
            slice(first, first + len(rows)) if list(rows) == run else torch.tensor(rows, device=device)
        )
        real = torch.arange(self.count) >= self.count - torch.tensor(news)[:, None]
        self.real = None if bool(real.all()) else real.to(device)
        index = torch.tensor(rows)[:, None].expand_as(positions)
        self.rows, self.columns = index[real].to(device), positions[real].to(device)


class SlotLayer(DynamicLayer):
    """One layer's keys and values of all slots: (slots, heads, columns, head size), which grow as needed."""

    def __init__(self, plan: _Plan) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # transformers gives it no types
        self.plan = plan
        self.is_initialized = True
        self.buffers: list[Tensor] = []

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write the new tokens where they stand in their texts; all columns of the rows that are read."""
        plan, found = self.plan, []
        if not self.buffers:
            self.buffers = [
                each.new_zeros((0, each.shape[1], 0, each.shape[3])) for each in (key_states, value_states)
            ]
        for at, new in enumerate((key_states, value_states)):
            buffer = self.buffers[at] = _grown(self.buffers[at], plan.least, plan.used)
            by_token = new.transpose(1, 2)
            written = by_token.flatten(0, 1) if plan.real is None else by_token[plan.real]
            buffer[plan.rows, :, plan.columns] = written
            found.append(buffer[plan.place, :, : plan.used])
        return found[0], found[1]

    def get_seq_length(self, *_: Any) -> int:
        """The number of columns before the new ones."""
        return self.plan.used - self.plan.count if self.buffers else 0


def _grown(buffer: Tensor, rows: int, columns: int) -> Tensor:
    """The buffer with room for so many rows and columns; each doubles when it is full."""
    if rows <= buffer.shape[0] and columns <= buffer.shape[2]:
        return buffer
    rows = buffer.shape[0] if rows <= buffer.shape[0] else max(rows, 2 * buffer.shape[0])
    wide = buffer.shape[2] if columns <= buffer.shape[2] else max(64, columns, 2 * buffer.shape[2])
    found = buffer.new_zeros((rows, buffer.shape[1], wide, buffer.shape[3]))
    found[: buffer.shape[0], :, : buffer.shape[2]] = buffer
    return found


def _parts(lengths: Sequence[int]) -> Iterator[list[int]]:
    """The texts of each pass, by their places: one pass, or the short runs of tokens and then the long."""
    longest, total = max(lengths), sum(lengths)
    if longest * len(lengths) <= PADDED * total:
        yield list(range(len(lengths)))
        return
    ranked = sorted(lengths)
    costs = [ranked[at] * (at + 1) + longest * (len(ranked) - at - 1) for at in range(len(ranked) - 1)]
    short = ranked[costs.index(min(costs))]
    yield [at for at, length in enumerate(lengths) if length <= short]
    if longest > short:
        yield [at for at, length in enumerate(lengths) if length > short]
