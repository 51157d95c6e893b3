"""A KV cache with amortised O(n) appends and O(1) truncation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer


class GrowingLayer(DynamicLayer):
    """One layer's keys and values in buffers that double when full.

    `keys` and `values` are views of the used part, (rows, heads, columns, head size). Sliding-window models
    keep every column too: their masks hide the old ones, and a rewind makes them visible again.
    """

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor | None = None) -> None:
        values = key_states if value_states is None else value_states
        self.dtype, self.device = key_states.dtype, key_states.device
        self.columns = 0
        self._keys, self._values = _room(key_states, 0), _room(values, 0)
        self.keys, self.values = self._keys, self._values
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Append the new columns; return all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start, end = self.columns, self.columns + key_states.shape[-2]
        if end > self._keys.shape[-2]:
            self._grow(max(64, 2 * end))
        self._keys[:, :, start:end] = key_states
        self._values[:, :, start:end] = value_states
        self._use(end)
        return self._keys[:, :, :end], self._values[:, :, :end]

    def _grow(self, columns: int) -> None:
        for name in ("_keys", "_values"):
            old = getattr(self, name)
            new = _room(old, columns)
            new[:, :, : self.columns] = old[:, :, : self.columns]
            setattr(self, name, new)

    def _use(self, columns: int) -> None:
        self.columns = columns
        self.keys, self.values = self._keys[:, :, :columns], self._values[:, :, :columns]

    def get_seq_length(self, *_: Any) -> int:
        return self.columns if self.is_initialized else 0

    def gather_columns(self, columns: Tensor) -> None:
        """Keep these columns (rows, n) of each row, in this order."""
        heads = self._keys.shape[1]
        for buffer in (self._keys, self._values):
            index = columns[:, None, :, None].expand(-1, heads, -1, buffer.shape[-1])
            buffer[:, :, : columns.shape[1]] = buffer.gather(2, index.to(buffer.device))
        self._use(columns.shape[1])

    def keep(self, rows: Tensor) -> None:
        """Keep these rows (n,) only."""
        index = rows.to(self._keys.device)
        self._keys, self._values = self._keys.index_select(0, index), self._values.index_select(0, index)
        self._use(self.columns)

    def truncate(self, columns: int) -> None:
        """Drop the last `columns`; nothing is copied."""
        self._use(self.columns - columns)


def _room(like: Tensor, columns: int) -> Tensor:
    rows, heads, _, size = like.shape
    return torch.empty((rows, heads, columns, size), dtype=like.dtype, device=like.device)


def growing_cache() -> Cache:
    """A cache whose every layer is a GrowingLayer."""
    return Cache(layer_class_to_replicate=GrowingLayer)


def truncate(cache: Cache, columns: int) -> None:
    """Drop the last `columns` of every layer."""
    for layer in _filled(cache):
        layer.truncate(columns)


def truncate_to(cache: Cache, columns: int) -> None:
    """Keep the first `columns` of every layer."""
    for layer in _filled(cache):
        layer.truncate(max(layer.columns - columns, 0))


def select_rows(cache: Cache, rows: Tensor) -> None:
    """Keep these rows (n,) of every layer."""
    for layer in _filled(cache):
        layer.keep(rows)


def gather_columns(cache: Cache, columns: Tensor) -> None:
    """Keep these columns (rows, n) of every layer's rows, in this order."""
    for layer in _filled(cache):
        layer.gather_columns(columns)


def _filled(cache: Cache) -> list[GrowingLayer]:
    """The layers that hold keys; one that shares another layer's never does."""
    return [layer for layer in cache.layers if isinstance(layer, GrowingLayer) and layer.is_initialized]
