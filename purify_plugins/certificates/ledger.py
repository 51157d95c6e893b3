"""The ledger of an answer that stages made: which drafts count, and what choices among answers cost.

All costs are in nats. docs/guarantees.md has the proof ("An answer that stages made").
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import ROUND_CEILING, Decimal, localcontext
from typing import Any, Literal, NamedTuple

from purify_plugins.canonical_json import canonical
from purify_plugins.certificates.figures import PLACES

Role = Literal["released", "read", "discarded"]
"""What became of a draft: its text was released, the released one's question may hold it, or neither."""


class Asked(NamedTuple):
    """One call of a request's programs.

    `after` drafts had been given to the programs before it was made. `question` is all that the SLM's
    distribution over answers follows from; see `question`. `fused`: the LLM was to have a part in it.
    """

    after: int
    question: str
    fused: bool


def question(prompt: object, sampling: Mapping[str, Any], constraints: Sequence[Mapping[str, Any]]) -> str:
    """All that the SLM's distribution over answers follows from, as one text.

    The seed is left out: another seed asks the same question again. `sampling` and `constraints` are as
    certificates state them.
    """
    settings = {key: value for key, value in sampling.items() if key != "seed"}
    return canonical({"prompt": prompt, "sampling": settings, "constraints": list(constraints)})


def read_drafts(asked: Sequence[Asked], released: int | None) -> list[int]:
    """The fused calls whose answers the released one's question may be made from, by index.

    They are those made when fewer drafts had been given than when that question was first asked: no program
    had another one by then. A question asked again holds nothing of what was answered in between, unless it
    is one of several that could have been: which of them is asked again may follow from that.
    """
    if released is None:
        return []
    first: dict[str, int] = {}
    for each in asked:
        first[each.question] = min(each.after, first.get(each.question, each.after))
    begun = _fused_before(asked, first[asked[released].question])
    alike = [after for after in first.values() if _fused_before(asked, after) <= begun]
    return sorted(begun if len(alike) == 1 else _fused_before(asked, asked[released].after))


def _fused_before(asked: Sequence[Asked], after: int) -> set[int]:
    """The fused calls made when fewer than `after` drafts had been given, by index."""
    return {at for at, each in enumerate(asked) if each.fused and each.after < after}


def picked_from(asked: Sequence[Asked], released: int | None) -> list[int]:
    """The calls that the released answer was picked from, itself included: every fused one not read."""
    if released is None:
        return []
    read = set(read_drafts(asked, released))
    return sorted({at for at, each in enumerate(asked) if each.fused and at not in read} | {released})


def roles(asked: Sequence[Asked], released: int | None) -> list[Role]:
    """The role of each call."""
    read = read_drafts(asked, released)
    return [
        "released" if at == released else "read" if at in read else "discarded" for at in range(len(asked))
    ]


def declared(choices: Iterable[int | None], most_calls: int) -> int:
    """The most answers that a chain of stages picks one from; None: of a stage that declares nothing."""
    return math.prod(most_calls if each is None else each for each in choices)


def undeclared(found: int, allowed: int) -> str:
    """Why an answer that was picked from more than `allowed` ones must not be released; "": it may."""
    if found <= allowed:
        return ""
    return (
        f"the answer is picked from {found} that the LLM has a part in, and the stages declare {allowed}; "
        "a stage states the most it picks one from as `choices`"
    )


def redo_places(redos: int, tokens: int) -> int:
    """The number of ways in which at most `redos` redos may have begun in an answer of at most `tokens`.

    Two may begin at one token, so it is C(tokens + redos, redos): for one redo tokens + 1.
    """
    return math.comb(tokens + redos, redos)


def nats(ways: int) -> Decimal:
    """ln(ways), rounded up at the last place of a certificate's figures."""
    with localcontext() as context:
        context.prec = 40
        return Decimal(ways).ln().quantize(PLACES, ROUND_CEILING)
