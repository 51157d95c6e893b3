"""Which works of a list are recognised: in how many of their places a recital would be noticed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from purify_hooks.takedown.anchor import LIKELY, Anchor, TakedownRule

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from purify_hooks.takedown.works import TakedownList

PLACES, LONG = 16, 48
"""Places of each work that are tried, and the tokens read at each."""
USUAL = TakedownRule()


class Recognised(NamedTuple):
    """A work: the places that were tried, and those where a recital was noticed."""

    name: str
    places: int
    noticed: int

    @property
    def doubtful(self) -> bool:
        """Whether fewer than half are noticed: common text holds the work too, or it is a sentence long."""
        return 2 * self.noticed < self.places


def recognised(listed: TakedownList, rule: TakedownRule = USUAL) -> list[Recognised]:
    """Each work of a list."""
    from purify_hooks.ngram.storage import documents

    anchor = Anchor(listed.works, listed.neutral, rule)
    found = zip(listed.record.texts, documents(listed.works, listed.record), strict=True)
    return [Recognised(text.name, *_tried(anchor, ids)) for text, ids in found]


def _tried(anchor: Anchor, ids: NDArray[Any]) -> tuple[int, int]:
    import numpy as np

    last = max(len(ids) - LONG, 0)
    starts = np.unique(np.linspace(0, last, PLACES).astype(int)).tolist()
    return len(starts), sum(noticed(anchor, ids[at : at + LONG].tolist()) for at in starts)


def noticed(anchor: Anchor, tokens: Sequence[int]) -> bool:
    """Whether a recital is likely after one of the tokens."""
    recital = anchor.start
    for at, token in enumerate(tokens):
        recital = anchor.after(recital, tokens[max(0, at - anchor.reach) : at], token)
        if recital.chance >= LIKELY:
            return True
    return False
