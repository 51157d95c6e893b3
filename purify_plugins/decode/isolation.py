"""Failure isolation: when a model, the policy or the grammar breaks for one row, only that row fails.

Not every session can drop a row, and its logits may be NaN. Until it is dropped, computations read a
healthy row's values in its place; nothing computed for it is drawn or recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from purify_plugins.decode.fusion import forward, fuse, thought
from purify_plugins.errors import PurifyError

if TYPE_CHECKING:
    from torch import Tensor

    from purify_plugins.decode.batch import Batch
    from purify_plugins.decode.fusion import Rows
    from purify_plugins.decode.processors import Shaper
    from purify_plugins.policy import FusionPolicy, State
    from purify_plugins.types import History, Token

Places = Sequence[int] | None
"""For each place in the batch, the row to read there; None: every row its own."""
Flags = Sequence[bool]
T = TypeVar("T")


def apart(batch: Batch, going: Callable[[], Flags], act: Callable[[Places], T]) -> T:
    """Apply `act` to the whole batch; rows for which it raises are marked as failed, and the rest go on.

    `act` takes the rows to read (see `Places`) and must be pure: it may run several times, and nothing is
    drawn in it. If it raises for the batch, it is tried for each active row alone (`going`, one flag a row),
    and once more with a healthy row in the place of every failed or inactive one. Raises the error if no
    active row is healthy, or if every row is healthy when tried alone: then the batch itself is at fault.
    """
    try:
        return act(batch.places)
    except PurifyError as error:
        flags = going()
        wanted = [place for place, goes in enumerate(flags) if goes]
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


def fuse_at(
    policy: FusionPolicy,
    shape: Shaper,
    llm: Tensor | None,
    slm: Tensor,
    state: State,
    history: History,
    going: Flags | Tensor,
    lost: Tensor,
    places: Places,
) -> Rows:
    """Fuse the rows at these places; `llm` and `slm` are (rows, V) logits, `lost` (rows,) as `fuse` takes it.

    Raises NumericError if an active row is NaN or allows no token.
    """
    if places is not None:
        places = list(places)
        llm, slm = None if llm is None else llm[places], slm[places]
        state, history = tuple(each[places] for each in state), [history[place] for place in places]
        going = [bool(going[place]) for place in places]
        lost = lost[places]
    rows = fuse(policy, shape, llm, slm, state, history, lost)
    rows.require(going)
    return rows


def forward_at(policy: FusionPolicy, state: State, tokens: Tensor, rows: Rows, places: Places) -> State:
    """Advance the policy's state by the drawn tokens (rows,), for the rows at these places."""
    if places is None or not state:
        return forward(policy, state, tokens, rows)
    places = list(places)
    return forward(policy, tuple(each[places] for each in state), tokens[places], rows.at(places))


def noted(batch: Batch, numbers: Sequence[Sequence[float]], going: Flags) -> list[Token | None]:
    """The record of each row's drawn token, from the numbers of `table`; rows marked as unsound fail here.

    This is where NaN is found on an accelerator, which is read once a cycle; on a CPU `fuse_at` has found it
    before. Raises NumericError if no live row is left.
    """
    found: list[Token | None] = []
    for place, row in enumerate(numbers):
        token = None
        if going[place] and batch.rows[place] not in batch.errors:
            try:
                token = thought(row)
            except PurifyError as error:
                batch.fail({place: error})
                if not batch.live:
                    raise
        found.append(token)
    return found
