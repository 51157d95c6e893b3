"""The certificate of an answer that stages made, in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from purify_plugins.certificates.explain import (
    assignments,
    calibration,
    comparisons,
    configuration,
    figures,
    model,
    replayed,
    summary,
    verdict,
)
from purify_plugins.certificates.guarantee_text import factor, meant
from purify_plugins.certificates.staged_claims import ALONE, fused
from purify_plugins.types import Certificate

Entry = Mapping[str, Any]
ROLES = {
    "released": "its text was released",
    "read": "a later call may have read it, so it counts",
    "discarded": "not released",
}


def explained(
    certificate: Certificate, off: float | None, known: Sequence[str] = (), untold: Sequence[str] = ()
) -> list[str]:
    """A verified certificate in sentences, one a line, the verdict first; arguments as `explain.summary`.

    `untold` says of which drafts the figures could not be recomputed, and why.
    """
    if not certificate.staged:
        return [*summary(certificate, off, known), *_untold(untold)]
    body = certificate.body
    return [
        verdict(body["claim"]),
        f"In plain words: {plainly(certificate)}.",
        "The certificate is intact: its drafts' totals and guarantees, their roles, the ledger and what is "
        "guaranteed follow from what it records.",
        _replayed(off, "llm" in known, untold),
        *_untold(untold),
        *comparisons(known),
        *(_stage(each) for each in body["stages"]),
        _ledger(body["ledger"]),
        *(_draft(at, each) for at, each in enumerate(body["drafts"])),
        *_policies(body["drafts"]),
        *_text(body),
        *(_check(each) for each in body["checks"]),
        *(model(side, told) for side, told in certificate.decoded["models"].items()),
        *(figures(certificate.decoded) if body["drafts"] else []),
        f"This certificate's digest: {body['digest']}.",
        f"The formula: {body['claim']['meaning']}.",
        *(f"Limit: {limit}" for limit in body["limits"]),
    ]


def plainly(certificate: Certificate) -> str:
    """The guarantee in one sentence without formulas."""
    body, level = certificate.body, certificate.guarantee
    ledger = body["ledger"]
    if not body["drafts"]:
        return "no model wrote any of this answer"
    if body["claim"]["reason"] == ALONE:
        return "the LLM had no part in what was released or read"
    if level == "none":
        return "nothing limits how far the LLM moved this answer; the ledger says how far it did"
    if level == "path":
        return (
            "whatever these stages can release to this prompt is at most "
            f"{factor(float(ledger['bound']))} times as likely as from the SLM alone, whatever the LLM does"
        )
    times = factor(float(ledger["added"]))
    return f"{meant(certificate.decoded['method'])}; all that times {times}, for what it was chosen from"


def _stage(stage: Entry) -> str:
    who = f"{stage['distribution']} {stage['version']}".strip() or "the program itself"
    most = "as many answers as there may be calls" if stage["choices"] is None else stage["choices"]
    options = assignments(stage["parameters"]) or "no options"
    return f"Stage {stage['name']} ({options}), from {who}; picks one of {most}."


def _ledger(ledger: Entry) -> str:
    total = "" if ledger["bound"] is None else f" In all at most {float(ledger['bound']):.3f} nats."
    without = f", {ledger['failed']} without a draft here" if ledger["failed"] else ""
    calls = f"{ledger['calls']} calls of at most {ledger['most_calls']}{without}"
    spent = f"What was released and read took {float(ledger['spent']):.3f} nats from the LLM."
    return f"Ledger: {calls}; {ledger['reason']}.{total} {spent}"


def _draft(at: int, draft: Entry) -> str:
    told, totals = draft["certificate"], draft["certificate"]["totals"]
    method = told["method"]
    who = f"{method['policy']}, {method['guarantee']}" if fused(draft) else "the SLM alone"
    masked = [
        f"{each.get('kind', 'a constraint')} ({assignments(_but(each, 'kind'))})"
        for each in method.get("constraints", [])
    ]
    parts = [
        f"Draft {at} ({who}): {totals['tokens']} tokens, {float(totals['log_ratio']):.3f} nats",
        ROLES[draft["role"]],
        *([f"masked by {', '.join(masked)}"] if masked else []),
        *([_shown(draft["shown"])] if draft["shown"] else []),
        *([f"{draft['redone']} of at most {draft['redo']} redos"] if draft["redo"] else []),
    ]
    return f"{'; '.join(parts)}."


def _policies(drafts: Sequence[Entry]) -> list[str]:
    """The policies of the drafts and what their options were set by; what several drafts share, once."""
    told = [each["certificate"] for each in drafts if fused(each)]
    made = [
        f"Policy: {each['method']['policy']} ({assignments(each['method']['parameters']) or 'no fields'})."
        for each in told
    ]
    records = (line for each in told for line in (*calibration(each), *configuration(each)))
    return list(dict.fromkeys([*made, *records]))


def _shown(digest: str) -> str:
    return (
        f"the LLM read another prompt than the SLM (keyed digest {digest}); what it alone read is bounded as "
        "what it knows"
    )


def _but(told: Entry, key: str) -> Entry:
    return {name: value for name, value in told.items() if name != key}


def _text(body: Entry) -> list[str]:
    """The answer and its segments."""
    answer, kinds = body["answer"], [each["kind"] for each in body["segments"]]
    found = [
        f"Answer: {answer['bytes']} bytes, SHA-256 {answer['sha256']}, ended by {answer['finish_reason']}.",
    ]
    if restored := [each["name"] for each in body["segments"] if each["kind"] == "restored"]:
        found.append(
            f"True values were put back for {', '.join(restored)}; length and digest are those of the text "
            "with surrogates."
        )
    if "operator" in kinds:
        found.append(f"It ends in the operator's text {body['segments'][-1]['name']!r}.")
    return found


def _check(check: Entry) -> str:
    judged = assignments(check["judged"])
    return (
        f"Checked by {check['name']}, window {check['window']} characters{f': {judged}' if judged else ''}."
    )


def _replayed(off: float | None, both: bool, untold: Sequence[str]) -> str:
    if not untold:
        return replayed(off, both)
    return (
        f"Replayed: every draft's tokens spell its text, and its figures are right to within {off:.1e} "
        "nats, but for what is named next."
    )


def _untold(untold: Sequence[str]) -> list[str]:
    return [f"Not recomputed, so its issuer's word: {each}." for each in untold]
