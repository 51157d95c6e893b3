"""One broken row of a batch fails alone; a neighbour's row stands in for it until the models drop it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from purify_plugins.decode.fusing import forward, fuse, thought
from purify_plugins.errors import PurifyError

if TYPE_CHECKING:
    from torch import Tensor

    from purify_plugins.decode.batch import Batch
    from purify_plugins.decode.fusing import Rows
    from purify_plugins.decode.sampling import History, Shaper
    from purify_plugins.types import FusionPolicy, State, Token

Places = Sequence[int] | None
"""Which row is read in each row's place; None: each its own."""
Flags = Sequence[bool]
T = TypeVar("T")


def apart(batch: Batch, going: Callable[[], Flags], act: Callable[[Places], T]) -> T:
    """What `act` makes of the rows at these places; a row for which it raises fails, and no other.

    It is called with `batch.places`; where that raises, with each row that is `going` alone, and then with a
    healthy row in the place of every other. `act` is pure, so nothing is drawn twice. Raises the error where
    no row that is `going` is left, or where no row has it alone.
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
    places: Places,
) -> Rows:
    """`fuse` of the rows at these places. Raises NumericError if one that is `going` has no next token."""
    if places is not None:
        places = list(places)
        llm, slm = None if llm is None else llm[places], slm[places]
        state, history = tuple(each[places] for each in state), [history[place] for place in places]
        going = [bool(going[place]) for place in places]
    rows = fuse(policy, shape, llm, slm, state, history)
    rows.require(going)
    return rows


def forward_at(policy: FusionPolicy, state: State, tokens: Tensor, rows: Rows, places: Places) -> State:
    """`forward` of the rows at these places."""
    if places is None or not state:
        return forward(policy, state, tokens, rows)
    places = list(places)
    return forward(policy, tuple(each[places] for each in state), tokens[places], rows.at(places))


def noted(batch: Batch, numbers: Sequence[Sequence[float]], going: Flags) -> list[Token | None]:
    """What was thought of each row's token, from rows of a `table`; a row that is not sound fails.

    On a CPU such a row has failed before. Raises NumericError where no row is left.
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
