"""The policy's memory of every slot, in tables: before its next token, and after each drawn of a step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from purify_plugins.policy import State


class PolicyStates:
    """Tables (offsets, parts, slots, …): one for the parts of the policy's state of each shape and dtype.

    Offset 0 is the memory before the step's first draw, offset n that after n draws. Slots are given as an
    index tensor (n,) on the tables' device. A policy without memory has no tables.
    """

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.tables: list[Tensor] = []
        self.places: list[list[int]] = []
        """For each table, which parts of the state it holds."""

    def put(self, index: Tensor, offset: int, state: State) -> None:
        """Set the memory of these slots at an offset; the parts are (n, …)."""
        if not self.tables:
            self._make(state)
        for at, places in enumerate(self.places):
            if offset >= len(self.tables[at]):
                more = self.tables[at].new_zeros((offset, *self.tables[at].shape[1:]))
                self.tables[at] = torch.cat([self.tables[at], more])
            # One copy for all parts: each operation costs as much as the arithmetic of many slots.
            self.tables[at][offset].index_copy_(1, index, torch.stack([state[place] for place in places]))

    def _make(self, state: State) -> None:
        """Tables for the parts of such a state."""
        kinds: dict[object, list[int]] = {}
        for place, part in enumerate(state):
            kinds.setdefault((part.dtype, part.shape[1:]), []).append(place)
        self.places = list(kinds.values())
        self.tables = [
            state[places[0]].new_zeros((2, len(places), self.slots, *state[places[0]].shape[1:]))
            for places in self.places
        ]

    def at(self, index: Tensor, offset: int) -> State:
        """The memory of these slots at an offset."""
        found: dict[int, Tensor] = {}
        for table, places in zip(self.tables, self.places, strict=True):
            found |= zip(places, table[offset].index_select(1, index).unbind(), strict=True)
        return tuple(found[place] for place in range(len(found)))

    def commit(self, index: Tensor, taken: Sequence[int]) -> None:
        """These slots' requests have taken so many of the drawn tokens: go on from there."""
        if not self.tables or not taken:
            return
        # Without drafts all take one: no offsets are copied to the device.
        offsets = torch.tensor(taken, device=index.device) if min(taken) < max(taken) else None
        for table in self.tables:
            if offsets is None:
                part = table[taken[0]].index_select(1, index)
            else:
                part = table.transpose(1, 2)[offsets, index].transpose(0, 1)
            table[0].index_copy_(1, index, part)

    def kept(self, slot: int) -> list[Tensor]:
        """A copy of all of a slot's memory."""
        return [table[:, :, slot].clone() for table in self.tables]

    def restore(self, slot: int, kept: Sequence[Tensor]) -> None:
        """Give a slot the memory that `kept` returned, whatever the number of its offsets."""
        for table, part in zip(self.tables, kept, strict=True):
            table[: len(part), :, slot] = part
