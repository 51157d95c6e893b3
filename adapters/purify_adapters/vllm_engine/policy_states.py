"""The policy's memory of every slot, in tables: before its next token, and after each drawn of a step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from purify_plugins.policy import State


class PolicyStates:
    """Tables (offsets, slots, …), one for each part of the policy's state; none for one without memory.

    Offset 0 is the memory before the step's first draw, offset n that after n draws. Slots are given as an
    index tensor (n,) on the tables' device.
    """

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.tables: list[Tensor] = []

    def put(self, index: Tensor, offset: int, state: State) -> None:
        """Set the memory of these slots at an offset; the parts are (n, …)."""
        if not self.tables:
            self.tables = [part.new_zeros((2, self.slots, *part.shape[1:])) for part in state]
        for at, part in enumerate(state):
            if offset >= len(self.tables[at]):
                more = self.tables[at].new_zeros((offset, *self.tables[at].shape[1:]))
                self.tables[at] = torch.cat([self.tables[at], more])
            self.tables[at][offset].index_copy_(0, index, part)

    def at(self, index: Tensor, offset: int) -> State:
        """The memory of these slots at an offset."""
        return tuple(table[offset].index_select(0, index) for table in self.tables)

    def commit(self, slots: Sequence[int], taken: Sequence[int]) -> None:
        """These slots' requests have taken so many of the drawn tokens: go on from there."""
        if not self.tables or not slots:
            return
        device = self.tables[0].device
        index = torch.tensor(slots, device=device)
        # Without drafts all take one: no offsets are copied to the device.
        offsets = torch.tensor(taken, device=device) if min(taken) < max(taken) else None
        for table in self.tables:
            part = table[taken[0]].index_select(0, index) if offsets is None else table[offsets, index]
            table[0].index_copy_(0, index, part)

    def kept(self, slot: int) -> list[Tensor]:
        """A copy of all of a slot's memory."""
        return [table[:, slot].clone() for table in self.tables]

    def restore(self, slot: int, kept: Sequence[Tensor]) -> None:
        """Give a slot the memory that `kept` returned, whatever the number of its offsets."""
        for table, part in zip(self.tables, kept, strict=True):
            table[: len(part), slot] = part
