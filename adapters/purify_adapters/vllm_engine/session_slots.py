"""The texts of an SLM that has no cache of slots: a session for each, all that go on in one `extend_all`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from purify_plugins.protocols import Slots

if TYPE_CHECKING:
    from purify_plugins.protocols import LogitSource, Session


log = logging.getLogger(__name__)


@dataclass
class OpenText:
    """A text's session: it was opened with `first` tokens, and has read `length` in all."""

    session: Session
    first: int
    length: int


class SessionSlots(Slots):
    """A session for each text. Every text that begins is read in a pass of its own."""

    def __init__(self, source: LogitSource) -> None:
        self.source = source
        self.opened: dict[int, OpenText] = {}

    def read(
        self,
        slots: Sequence[int],
        starts: Sequence[int],
        tokens: Sequence[Sequence[int]],
        wanted: Sequence[int],
    ) -> Tensor:
        rows: list[Tensor] = [torch.empty(0)] * len(slots)
        going = [at for at, slot in enumerate(slots) if self._kept(slot, starts[at])]
        for at in sorted(set(range(len(slots))) - set(going)):
            rows[at] = self._open(slots[at], tokens[at], wanted[at])
        if going:
            sessions = [self.opened[slots[at]].session for at in going]
            news = [torch.tensor([list(tokens[at])]) for at in going]
            for at, logits in zip(going, self.source.extend_all(sessions, news), strict=True):
                self.opened[slots[at]].length = starts[at] + len(tokens[at])
                rows[at] = logits[0, logits.shape[1] - wanted[at] :]
        return torch.cat(rows)

    def release(self, slot: int) -> None:
        if (found := self.opened.pop(slot, None)) is not None:
            found.session.close()

    def _kept(self, slot: int, start: int) -> bool:
        """Whether the slot's session can go on after so many tokens; it is then rewound to them."""
        found = self.opened.get(slot)
        if found is None or not found.first <= start <= found.length:
            return False
        if start < found.length:
            found.session.rewind(torch.tensor([start - found.first]))
            found.length = start
        return True

    def _open(self, slot: int, tokens: Sequence[int], wanted: int) -> Tensor:
        """Read a text from its beginning, and the tokens before the last `wanted` at once."""
        self.release(slot)
        first = len(tokens) - max(wanted - 1, 0)
        session, logits = self.source.open([tuple(tokens[:first])])
        self.opened[slot] = OpenText(session, first, len(tokens))
        if wanted < 2:
            return logits[:wanted]
        return torch.cat([logits, session.extend(torch.tensor([list(tokens[first:])]))[0]])


def without_slots(source: LogitSource) -> SessionSlots:
    """The texts of a source without a cache of slots; a warning says what that costs."""
    log.warning("the SLM has no cache of slots: each prompt is a pass of its own, and caches are copied")
    return SessionSlots(source)
