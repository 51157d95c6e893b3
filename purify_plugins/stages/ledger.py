"""What the driver keeps for the ledger of a certificate, and what it must ask before it releases."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from purify_plugins.canonical_json import jsonable
from purify_plugins.certificates.ledger import Asked, declared, picked_from, question, undeclared
from purify_plugins.certificates.staged import CheckRecord, SegmentRecord
from purify_plugins.errors import RefusedError

if TYPE_CHECKING:
    from purify_plugins.stages.calls import Leaf
    from purify_plugins.stages.release import Release
    from purify_plugins.stages.stage import Stage


def asked(leaf: Leaf) -> Asked:
    """A call as the ledger counts it."""
    request = leaf.request
    constraints = [jsonable(each.public()) for each in request.never]
    asks = question(jsonable(request.prompt), jsonable(request.sampling), constraints)
    return Asked(leaf.after, asks, not request.slm_only)


def require_declared(calls: Sequence[Leaf], released: Leaf, stages: Iterable[Stage], most_calls: int) -> None:
    """Raise RefusedError where the answer to `released` must not be streamed, or released.

    The ledger adds ln(choices) for what the stages declare to pick from: an answer that was picked from more
    would cost more than its certificate says. `calls` are all so far, the one released and failed ones too.
    """
    at = next(at for at, each in enumerate(calls) if each is released)
    found = len(picked_from([asked(each) for each in calls], at))
    if reason := undeclared(found, declared((each.choices for each in stages), most_calls)):
        raise RefusedError(reason)


def segments(release: Release, said: str = "") -> tuple[SegmentRecord, ...]:
    """The segments of a released text as its certificate records them; `said` is the operator's text."""
    return tuple(
        SegmentRecord(
            each.kind, said if each.kind == "operator" else release.drawn[each.start : each.end], each.key
        )
        for each in release.segments
    )


def checks(release: Release) -> tuple[CheckRecord, ...]:
    """The checks that judged a text as its certificate records them."""
    return tuple(CheckRecord(each.name, each.window, each.redo, each.judged()) for each in release.checks)
