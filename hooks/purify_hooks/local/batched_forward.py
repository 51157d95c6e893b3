"""One forward pass for several sessions, each with its own KV cache.

The sessions' columns are right-aligned in one batch, the new tokens last. The weights are read once for
all sessions; only keys and values are copied, padded to the longest session.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from purify_hooks.local.kv_cache import GrowingLayer

if TYPE_CHECKING:
    from purify_hooks.local.session import LocalSession


def extend_all(sessions: Sequence[LocalSession], tokens: Sequence[Tensor]) -> list[Tensor]:
    """Each session's logits (rows, n, V) after its tokens (rows, n)."""
    news = [each.shape[1] for each in tokens]
    for session, each in zip(sessions, tokens, strict=True):
        new = each.to(session.ids.device)
        session.append(new, torch.ones(new.shape, dtype=torch.bool))
    seen = _aligned([session.visible for session in sessions])
    ids = _aligned([session.ids[:, -n:] for session, n in zip(sessions, news, strict=True)])
    cache = _cache(sessions, news, seen.shape[1])
    logits = sessions[0].logits_after(ids, cache, seen, ids.shape[1])
    rows = logits.split([len(session.ids) for session in sessions])
    return [row[:, -n:] for row, n in zip(rows, news, strict=True)]


def branch_all(
    sessions: Sequence[LocalSession], tokens: Sequence[Tensor], seen: Sequence[Tensor]
) -> list[Tensor]:
    """Each session's logits (rows, n, V) after its tokens (rows, n), which follow what `seen` says."""
    news = [each.shape[1] for each in tokens]
    whole = _widened(
        [session.append_tree(*each) for session, *each in zip(sessions, tokens, seen, strict=True)]
    )
    ids = _aligned([session.ids[:, -n:] for session, n in zip(sessions, news, strict=True)])
    cache = _cache(sessions, news, whole.shape[2])
    logits = sessions[0].tree_logits(ids, cache, whole)
    rows = logits.split([len(session.ids) for session in sessions])
    return [row[:, -n:] for row, n in zip(rows, news, strict=True)]


def _widened(parts: Sequence[Tensor]) -> Tensor:
    """Concatenate masks (rows, n, m) of different n and m, padded at the start of both."""
    tall, wide = (max(part.shape[at] for part in parts) for at in (1, 2))
    pads = [(wide - part.shape[2], 0, tall - part.shape[1], 0) for part in parts]
    return torch.cat([torch.nn.functional.pad(part, each) for part, each in zip(parts, pads, strict=True)])


def _aligned(parts: Sequence[Tensor]) -> Tensor:
    """Concatenate tensors (rows, n) of different n, zero-padded on the left."""
    width = max(part.shape[1] for part in parts)
    return torch.cat([torch.nn.functional.pad(part, (width - part.shape[1], 0)) for part in parts])


def _cache(sessions: Sequence[LocalSession], news: Sequence[int], width: int) -> Cache:
    """A cache that concatenates the sessions' caches."""
    layers = zip(*(session.cache.layers for session in sessions), strict=True)
    rows = [len(session.ids) for session in sessions]
    return Cache(layers=[BatchedLayer(parts, rows, news, width) for parts in layers])


class BatchedLayer(DynamicLayer):
    """One layer's keys and values of several sessions; new ones are appended to each session's own layer."""

    def __init__(
        self, parts: Sequence[GrowingLayer], rows: Sequence[int], news: Sequence[int], width: int
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # transformers gives it no types
        self.parts, self.rows, self.news, self.width = parts, rows, news, width
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Append the new columns without their padding; return all (rows, heads, width, size)."""
        kept = [
            part.update(keys[:, :, -n:], values[:, :, -n:])
            for part, n, keys, values in self._split(key_states, value_states)
        ]
        return self._padded([keys for keys, _ in kept]), self._padded([values for _, values in kept])

    def _split(self, keys: Tensor, values: Tensor) -> Iterator[tuple[GrowingLayer, int, Tensor, Tensor]]:
        rows = list(self.rows)
        return zip(self.parts, self.news, keys.split(rows), values.split(rows), strict=True)

    def _padded(self, parts: Sequence[Tensor]) -> Tensor:
        _, heads, _, size = parts[0].shape
        whole = parts[0].new_zeros(sum(self.rows), heads, self.width, size)
        for rows, part in zip(whole.split(list(self.rows)), parts, strict=True):
            rows[:, :, self.width - part.shape[-2] :] = part
        return whole

    def get_seq_length(self, *_: Any) -> int:
        """The number of columns before the new ones."""
        return self.width - max(self.news)
