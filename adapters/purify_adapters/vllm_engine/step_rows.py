"""The rows that Model Runner V2 shows in a step, by the slot of their request."""

from __future__ import annotations

from typing import Any, NamedTuple


class StepRow(NamedTuple):
    """A row of a step: where it stands, the token read there (-1: none yet), and that token's position."""

    place: int
    token: int
    position: int


def rows_by_slot(ctx: Any, size: int) -> dict[int, list[StepRow]]:
    """Each slot's rows in the order of its tokens, up to a draft that is no token (V is `size`)."""
    columns = ctx.expanded_idx_mapping, ctx.expanded_local_pos, ctx.input_ids, ctx.pos
    rows: dict[int, list[tuple[int, StepRow]]] = {}
    for at, (slot, local, *read) in enumerate(zip(*(each.tolist() for each in columns), strict=True)):
        rows.setdefault(slot, []).append((local, StepRow(at, *read)))
    return {slot: _readable([row for _, row in sorted(each)], size) for slot, each in rows.items()}


def _readable(rows: list[StepRow], size: int) -> list[StepRow]:
    """The rows before the first draft that is missing, or that the SLM has no token for."""
    return rows[: next((at for at, row in enumerate(rows) if at and not 0 <= row.token < size), len(rows))]
