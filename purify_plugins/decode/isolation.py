"""Failure isolation: when a model, the policy or the grammar breaks for one row, only that row fails.

Not every session can drop a row, and its logits may be NaN. Until it is dropped, computations read a
healthy row's values in its place; nothing computed for it is drawn or recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from purify_plugins.decode.token_records import token_record
from purify_plugins.errors import PurifyError

if TYPE_CHECKING:
    from purify_plugins.decode.batch import Batch
    from purify_plugins.decode.fusion import Places
    from purify_plugins.types import Token

T = TypeVar("T")


def isolate(
    batch: Batch, act: Callable[[Places], T], active: Callable[[], Sequence[bool]] | None = None
) -> T:
    """Apply `act` to the whole batch; rows for which it raises are marked as failed, and the rest go on.

    `act` takes the rows to read (see `Places`) and must be pure: it may run several times, and nothing is
    drawn in it. If it raises for the batch, it is tried for each active row alone (`active`, one flag a row;
    else those that want another token), and once more with a healthy row in the place of every failed or
    inactive one. Raises the error if no active row is healthy, or if every row is healthy when tried alone:
    then the batch itself is at fault.
    """
    try:
        return act(batch.places if batch.errors else None)
    except PurifyError as error:
        flags = active() if active else batch.active
        wanted = [place for place, flag in enumerate(flags) if flag]
        broken = {place: own for place in wanted if (own := _alone(act, place)) is not None}
        batch.fail(broken)
        healthy = [place for place in wanted if place not in broken]
        if not healthy or len(healthy) == len(flags):
            raise error
        return act([place if place in healthy else healthy[0] for place in range(len(flags))])


def _alone(act: Callable[[Places], object], place: int) -> PurifyError | None:
    try:
        act([place])
    except PurifyError as error:
        return error
    return None


def records(batch: Batch, numbers: Sequence[Sequence[float]], active: Sequence[bool]) -> list[Token | None]:
    """The record of each active row's drawn token, from its numbers of `to_host`; a broken row fails here.

    On an accelerator, which is read once a cycle, this is where NaN is found; on a CPU `fuse` has found it
    before. Raises NumericError if no live row is left.
    """
    found: list[Token | None] = []
    for place, row in enumerate(numbers):
        token = None
        if active[place] and batch.rows[place] not in batch.errors:
            try:
                token = token_record(row)
            except PurifyError as error:
                batch.fail({place: error})
                if not batch.live:
                    raise
        found.append(token)
    return found
