"""What the driver keeps for the ledger of a certificate, and what it must ask before it releases."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from purify_plugins.canonical_json import jsonable
from purify_plugins.certificates.ledger import Asked, declared, picked_from, question, undeclared
from purify_plugins.errors import RefusedError

if TYPE_CHECKING:
    from purify_plugins.stages.request import Request
    from purify_plugins.stages.stage import Stage


def asked(request: Request, turn: int) -> Asked:
    """A request as the ledger counts it; `turn` is the round of calls in which it is asked."""
    settings = jsonable(request.sampling)
    constraints = [jsonable(each.public()) for each in request.never]
    return Asked(turn, question(jsonable(request.prompt), settings, constraints), not request.slm_only)


def require_declared(calls: Sequence[Asked], released: int, stages: Iterable[Stage], most_calls: int) -> None:
    """Raise RefusedError where call `released` must not be released, or streamed.

    The ledger adds ln(choices) for what the stages declare to pick from; an answer that was picked from more
    would cost more than its certificate says. `calls` are all so far, those without an answer among them.
    """
    found = len(picked_from(calls, released))
    if reason := undeclared(found, declared((each.choices for each in stages), most_calls)):
        raise RefusedError(reason)
