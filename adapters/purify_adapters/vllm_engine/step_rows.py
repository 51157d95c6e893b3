"""The rows that Model Runner V2 shows in a step, by the slot of their request."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from typing import Any, NamedTuple


class StepRows(NamedTuple):
    """One request's rows: the first one's `position`, where each stands in the step, and the `drafts` read.

    `places` has one more than `drafts`: the row after the last token, and one after each draft.
    """

    position: int
    places: Sequence[int]
    drafts: Sequence[int]


def rows_by_slot(ctx: Any, size: int) -> dict[int, StepRows]:
    """Each slot's rows in the order of its tokens, up to a draft that is no token (V is `size`)."""
    columns = ctx.expanded_idx_mapping, ctx.expanded_local_pos, ctx.input_ids, ctx.pos
    slots, offsets, tokens, positions = (each.tolist() for each in columns)
    if not any(offsets) and len(set(slots)) == len(slots):
        rows = map(StepRows, positions, zip(range(len(slots))), repeat(()))  # an endless repeat
        return dict(zip(slots, rows, strict=True))
    found: dict[int, list[tuple[int, int]]] = {}
    for at, (slot, offset) in enumerate(zip(slots, offsets, strict=True)):
        found.setdefault(slot, []).append((offset, at))
    return {slot: _readable(each, tokens, positions, size) for slot, each in found.items()}


def _readable(
    rows: list[tuple[int, int]], tokens: Sequence[int], positions: Sequence[int], size: int
) -> StepRows:
    """The rows before the first draft that is missing, or that the SLM has no token for."""
    places = [at for _, at in sorted(rows)]
    drafts = [tokens[at] for at in places[1:]]
    end = next((at for at, draft in enumerate(drafts) if not 0 <= draft < size), len(drafts))
    return StepRows(positions[places[0]], places[: end + 1], drafts[:end])
