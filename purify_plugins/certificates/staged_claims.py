"""What an answer that stages made may claim, from its stages and its drafts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from purify_plugins.certificates.figures import decimal
from purify_plugins.certificates.ledger import (
    Asked,
    declared,
    nats,
    picked_from,
    question,
    read_drafts,
    redo_places,
    undeclared,
)
from purify_plugins.threat import Claim
from purify_plugins.types import Guarantee

Entry = Mapping[str, Any]
"""A draft, or a stage, as a certificate states it."""
ZERO = Decimal(0)
STAGED_MEANING: Mapping[Guarantee, str] = {
    "none": "no bound is claimed; the ledger states what this answer spent",
    "mean": "the average of log fused/slm over all answers is within the policy's budget; nothing was chosen "
    "among answers",
    "window": "a passage of n tokens is at most exp(budget * ceil(n / window)) times as likely as from the "
    "SLM, and exp(`ledger.added`) times that for the answers and redos that this one was chosen from",
    "passage": "one run of n tokens, to which the SLM gives probability q, has at most (exp(budget + g * n) "
    "* q) ** (1 / (1 + doubt)), where g is the larger of `gap` and `gap_limit`, and exp(`ledger.added`) "
    "times that for the answers and redos that this one was chosen from",
    "path": "anything these stages can release is at most exp(`ledger.bound`) times as likely as if the SLM "
    "had drawn every draft and the choices among the LLM's answers had been blind",
}
"""The wording of each guarantee for an answer that stages made."""
OPERATOR = "every word is the operator's; no model wrote any of it"
ALONE = "every token is the benign model's own; the untrusted one had no part in what was released or read"
CHOSEN = "every draft that it was picked from has this guarantee, and the ledger adds what the choices cost"


class Calls(NamedTuple):
    """The calls that a request made, how many of them had no answer, and the most it might make."""

    made: int
    failed: int
    most: int


class Settled(NamedTuple):
    """A staged answer's `ledger` and `claim`, as certificates state them.

    `excess`: why it must not be released; "": it may.
    """

    ledger: Mapping[str, Any]
    claim: Mapping[str, Any]
    excess: str


def asked_of(draft: Entry) -> Asked:
    """The call that a draft answered."""
    body = draft["certificate"]
    method = body["method"]
    asks = question(body["prompt"], method["sampling"], method.get("constraints", []))
    return Asked(draft["after"], asks, fused(draft))


def fused(draft: Entry) -> bool:
    """Whether the LLM was asked for a draft."""
    return bool(draft["certificate"]["method"].get("llm_asked", True))


def released_of(drafts: Sequence[Entry]) -> int | None:
    """The index of the draft that was released; None: every word is the operator's."""
    return next((at for at, each in enumerate(drafts) if each["role"] == "released"), None)


def settle(stages: Sequence[Entry], drafts: Sequence[Entry], calls: Calls) -> Settled:
    """The ledger and the claim of an answer, from its stages and its drafts with their roles."""
    asked, released = [asked_of(each) for each in drafts], released_of(drafts)
    read = [drafts[at] for at in read_drafts(asked, released)]
    picked = [drafts[at] for at in picked_from(asked, released)]
    choices = declared((each["choices"] for each in stages), calls.most)
    added = nats(choices) + max(map(_redone, picked), default=ZERO)
    paid = sum(map(_cost, read), ZERO)
    bound = paid + nats(choices) + max(map(_cost, picked), default=ZERO)
    claim = _claimed(read, picked, added, bound)
    lineage = [*read, *([] if released is None else [drafts[released]])]
    ledger = {
        "calls": calls.made,
        "failed": calls.failed,
        "most_calls": calls.most,
        "choices": choices,
        "read": decimal(paid),
        "added": decimal(added),
        "spent": decimal(sum((Decimal(_totals(each)["log_ratio"]) for each in lineage), ZERO)),
        "bound": decimal(bound) if claim.guarantee == "path" else None,
        "reason": _reason(choices, read, picked),
    }
    found = len(picked) + (calls.failed if picked else 0)
    meaning = {"meaning": STAGED_MEANING[claim.guarantee]}
    return Settled(ledger, {**claim._asdict(), **meaning}, undeclared(found, choices))


def _totals(draft: Entry) -> Mapping[str, Any]:
    totals: Mapping[str, Any] = draft["certificate"]["totals"]
    return totals


def _redone(draft: Entry) -> Decimal:
    """What a draft's redos add (nats)."""
    return nats(redo_places(draft["redo"], draft["certificate"]["answer"]["limit"]))


def _cost(draft: Entry) -> Decimal:
    """The most nats that a draft adds to the bound; infinity: its policy bounds no whole answer."""
    return Decimal(draft["allowed"]) + _redone(draft)


def _claimed(read: Sequence[Entry], picked: Sequence[Entry], added: Decimal, bound: Decimal) -> Claim:
    """The claim of an answer that was picked from these drafts, made from those it read."""
    counted = [each for each in (*read, *picked) if fused(each)]
    if not counted:
        return Claim("none", "none", ALONE if picked else OPERATOR)
    methods = [each["certificate"]["method"] for each in counted]
    levels = {method["guarantee"] for method in methods}
    if "none" in levels:
        why = next(method["reason"] for method in methods if method["guarantee"] == "none")
        return Claim("none", "none", f"a draft that counts has no guarantee: {why}")
    if len(levels) > 1:
        return Claim("none", "none", f"its drafts have different guarantees: {', '.join(sorted(levels))}")
    [level] = levels
    if level != "path" and read:
        return Claim("none", "none", f"a later call read a draft, and {level!r} bounds no whole draft")
    if level == "mean" and added:
        return Claim("none", "none", "an average says nothing of an answer that was chosen among several")
    if level == "path" and not bound.is_finite():
        return Claim("none", "none", "the policy states no bound of a whole answer")
    return Claim(level, _weakest(method["adversary"] for method in methods), CHOSEN)


def _weakest(adversaries: Iterable[str]) -> Any:
    return "engine" if set(adversaries) == {"engine"} else "weights"


def _reason(choices: int, read: Sequence[Entry], picked: Sequence[Entry]) -> str:
    """The ledger in words."""
    redos = max(picked, key=_redone, default=None)
    parts = [
        f"one of at most {choices} answers adds {nats(choices):.3f} nats"
        if choices > 1
        else "nothing is picked among answers"
    ]
    if redos is not None and redos["redo"]:
        limit = redos["certificate"]["answer"]["limit"]
        parts.append(f"at most {redos['redo']} redos in {limit} tokens add {_redone(redos):.3f}")
    if read:
        parts.append(f"{len(read)} drafts of the LLM's that later calls read add {sum(map(_cost, read)):.3f}")
    return "; ".join(parts)
