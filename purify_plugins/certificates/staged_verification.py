"""Verify what the certificate of an answer that stages made adds to its drafts' own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from purify_plugins.certificates.answer_checks import policy_of, require
from purify_plugins.certificates.claims import LIMITS
from purify_plugins.certificates.figures import text_facts, totals
from purify_plugins.certificates.ledger import roles
from purify_plugins.certificates.staged import allowed
from purify_plugins.certificates.staged_claims import Calls, asked_of, fused, released_of, settle

if TYPE_CHECKING:
    from purify_plugins.certificates.offered import Policies

ONE = ("models", "vocabulary", "limits", "columns")
"""What all drafts of a request have in common."""
NOTHING = text_facts("")
CUT = 512
"""The most bytes of a token that was cut: a blocked span began inside it, so its id is not recorded."""


def check_stages(body: Mapping[str, Any], plugins: Policies) -> None:
    """Check the roles, segments, checks, ledger and claim against the drafts. Raises ForgedError."""
    drafts = body["drafts"]
    require(body["limits"] == list(LIMITS), "the limits are not those of every certificate")
    _check_drafts(drafts, plugins)
    _check_roles(drafts)
    _check_segments(body, released_of(drafts))
    _check_redos(body)
    _check_ledger(body)


def _check_drafts(drafts: Sequence[Mapping[str, Any]], plugins: Policies) -> None:
    """Each draft as its own certificate states it, and what all have in common."""
    given = [each["after"] for each in drafts]
    fine = given == sorted(given) and all(after <= at for at, after in enumerate(given))
    require(fine, "its drafts are not in the order they were asked")
    bodies = [each["certificate"] for each in drafts]
    for key in ONE:
        require(all(each[key] == bodies[0][key] for each in bodies), f"its drafts differ in their {key}")
    for at, (draft, told) in enumerate(zip(drafts, bodies, strict=True)):
        require(fused(draft) or not draft["shown"], f"draft {at} showed the LLM nothing")
        require(draft["redone"] <= draft["redo"], f"draft {at} was redone more often than allowed")
        most = allowed(policy_of(told, plugins), told)
        require(draft["allowed"] == most, f"draft {at} is allowed {most} nats by its policy")


def _check_roles(drafts: Sequence[Mapping[str, Any]]) -> None:
    released = released_of(drafts)
    follows = roles([asked_of(each) for each in drafts], released)
    for at, (draft, role) in enumerate(zip(drafts, follows, strict=True)):
        require(draft["role"] == role, f"draft {at} is {role} by what was asked, not {draft['role']}")


def _check_segments(body: Mapping[str, Any], released: int | None) -> None:
    """The segments add up to the answer, as far as lengths and digests show."""
    answer, at, said = body["answer"], 0, 0
    operators = [each for each in body["segments"] if each["kind"] == "operator"]
    require(operators in ([], body["segments"][-1:]), "an operator's text ends an answer, and stands once")
    for each in body["segments"][: len(body["segments"]) - len(operators)]:
        fine = each["draft"] == released and each["from"] == at <= each["to"]
        require(fine, "its segments are not, in order, the text of the draft that was released")
        at = each["to"]
    said = sum(each["bytes"] for each in operators)
    require(at + said == answer["bytes"], f"its segments have {at + said} bytes, not {answer['bytes']}")
    require(
        bool(operators) == (answer["finish_reason"] == "refused"), "an operator's text ends what is refused"
    )
    drawn = NOTHING if released is None else body["drafts"][released]["certificate"]["answer"]
    fine = drawn["bytes"] <= at <= drawn["bytes"] + CUT if operators else at == drawn["bytes"]
    require(fine, "its segments are not as long as what its draft spells")
    _check_digest(answer, drawn, operators, at)


def _check_digest(
    answer: Mapping[str, Any], drawn: Mapping[str, Any], operators: Sequence[Mapping[str, Any]], at: int
) -> None:
    """The answer's digest where one text alone makes it, and its reason to end."""
    fine = (answer["bytes"] == 0) == (answer["sha256"] == NOTHING["sha256"])
    require(fine, "its digest is not of so many bytes")
    if not operators:
        same = all(answer[key] == drawn.get(key) for key in ("sha256", "finish_reason"))
        require(same, "the answer is not the text of its draft")
    elif at == 0:
        require(answer["sha256"] == operators[0]["sha256"], "the answer is not the operator's text")


def _check_redos(body: Mapping[str, Any]) -> None:
    released = released_of(body["drafts"])
    most = max((each["redo"] for each in body["checks"]), default=0)
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
