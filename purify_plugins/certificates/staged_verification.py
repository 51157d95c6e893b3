"""Verify what the certificate of an answer that stages made adds to its drafts' own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from purify_plugins.certificates.answer_checks import policy_of, require
from purify_plugins.certificates.claims import LIMITS
from purify_plugins.certificates.figures import totals
from purify_plugins.certificates.ledger import roles
from purify_plugins.certificates.staged import allowed, text_facts
from purify_plugins.certificates.staged_claims import Calls, asked_of, released_of, settle

if TYPE_CHECKING:
    from purify_plugins.plugin.manager import Plugins

ONE = ("models", "vocabulary", "limits", "columns")
"""What all drafts of a request have in common."""


def check_stages(body: Mapping[str, Any], plugins: Plugins) -> None:
    """Check the roles, segments, checks, ledger and claim against the drafts. Raises ForgedError."""
    drafts = body["drafts"]
    require(body["limits"] == list(LIMITS), "the limits are not those of every certificate")
    _check_drafts(drafts, plugins)
    _check_roles(drafts)
    _check_segments(body, released_of(drafts))
    _check_redos(body)
    _check_ledger(body)


def _check_drafts(drafts: Sequence[Mapping[str, Any]], plugins: Plugins) -> None:
    """Each draft as its own certificate states it, and what all have in common."""
    given = [each["after"] for each in drafts]
    fine = given == sorted(given) and all(after <= at for at, after in enumerate(given))
    require(fine, "its drafts are not in the order they were asked")
    bodies = [each["certificate"] for each in drafts]
    for key in ONE:
        require(all(each[key] == bodies[0][key] for each in bodies), f"its drafts differ in their {key}")
    for at, (draft, told) in enumerate(zip(drafts, bodies, strict=True)):
        require(
            not draft["slm_only"] or told["method"]["mode"] == "slm-only",
            f"draft {at} is said to be the SLM's alone, and its steps are not",
        )
        require(not (draft["slm_only"] and draft["shown"]), f"draft {at} showed the LLM nothing")
        require(draft["redone"] <= draft["redo"], f"draft {at} was redone more often than allowed")
        most = allowed(policy_of(told, plugins), draft["slm_only"], told)
        require(draft["allowed"] == most, f"draft {at} is allowed {most} nats by its policy")


def _check_roles(drafts: Sequence[Mapping[str, Any]]) -> None:
    released = released_of(drafts)
    follows = roles([asked_of(each) for each in drafts], released)
    for at, (draft, role) in enumerate(zip(drafts, follows, strict=True)):
        require(draft["role"] == role, f"draft {at} is {role} by what was asked, not {draft['role']}")


def _check_segments(body: Mapping[str, Any], released: int | None) -> None:
    """The segments add up to the answer, as far as lengths and digests show."""
    at = total = 0
    for each in body["segments"]:
        if each["kind"] == "operator":
            total += each["bytes"]
            continue
        fine = each["draft"] == released and each["from"] == at <= each["to"]
        require(fine, "its segments are not, in order, the text of the draft that was released")
        total, at = total + each["to"] - at, each["to"]
    answer = body["answer"]
    require(total == answer["bytes"], f"its segments have {total} bytes, and the answer {answer['bytes']}")
    told = {"bytes": 0} if released is None else body["drafts"][released]["certificate"]["answer"]
    operators = [each for each in body["segments"] if each["kind"] == "operator"]
    require(at <= told["bytes"], "its segments go on after the draft's end")
    require(bool(operators) or at == told["bytes"], "the rest of the draft that was released is missing")
    _check_digest(answer, told if at else None, operators, whole=at == told["bytes"])


def _check_digest(
    answer: Mapping[str, Any],
    drawn: Mapping[str, Any] | None,
    operators: Sequence[Mapping[str, Any]],
    whole: bool,
) -> None:
    """The answer's digest where one text alone makes it."""
    texts = [each for each in operators if each["bytes"]]
    if drawn is not None and not texts and whole:
        require(answer["sha256"] == drawn["sha256"], "the answer is not the text of its draft")
        require(
            bool(operators) or answer["finish_reason"] == drawn["finish_reason"],
            "the answer ends for another reason than its draft",
        )
    elif drawn is None and len(texts) == 1:
        require(answer["sha256"] == texts[0]["sha256"], "the answer is not the operator's text")
    require(
        (answer["bytes"] == 0) == (answer["sha256"] == text_facts("")["sha256"]),
        "its digest is not of so many bytes",
    )


def _check_redos(body: Mapping[str, Any]) -> None:
    released = released_of(body["drafts"])
    most = sum(each["redo"] for each in body["checks"])
    if released is not None:
        draft = body["drafts"][released]
        require(
            draft["redo"] == most, f"its checks allow {most} redos, and the ledger counts {draft['redo']}"
        )


def _check_ledger(body: Mapping[str, Any]) -> None:
    ledger, drafts = body["ledger"], body["drafts"]
    released = released_of(drafts)
    calls = Calls(ledger["calls"], ledger["failed"], ledger["most_calls"])
    steps = [] if released is None else drafts[released]["certificate"]["steps"]
    require(calls.made == len(drafts) + calls.failed, "its calls are not its drafts and those that failed")
    require(calls.made <= calls.most, f"{calls.made} calls were made, and {calls.most} allowed")
    require(body["totals"] == totals(steps), "the totals are not those of the draft that was released")
    found = settle(body["stages"], drafts, calls)
    require(not found.excess, found.excess)
    for key, value in found.ledger.items():
        require(
            ledger[key] == value,
            f"the ledger's {key} is {ledger[key]}, where {value} follows from its drafts",
        )
    require(
        body["claim"] == found.claim,
        f"{found.claim['guarantee']!r} follows from its drafts, for: {found.claim['reason']}",
    )
