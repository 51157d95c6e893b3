"""Issue the certificate of an answer that stages made, from the record of its drafts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from purify_plugins.canonical_json import canonical, digest, jsonable
from purify_plugins.certificates.claims import LIMITS
from purify_plugins.certificates.draft_bodies import draft_body
from purify_plugins.certificates.figures import STAGED_FORMAT, fixed, private_digest, text_facts, totals
from purify_plugins.certificates.ledger import roles
from purify_plugins.certificates.staged_claims import Calls, asked_of, settle
from purify_plugins.errors import PurifyError, RefusedError
from purify_plugins.types import Certificate, Chat

if TYPE_CHECKING:
    from purify_plugins.policy import FusionPolicy
    from purify_plugins.types import Completion, Prompt

Kind = Literal["drawn", "restored", "operator"]


@dataclass(frozen=True)
class StageRecord:
    """A stage of the chain: its name, its options (`Stage.public`), who offers it, its `choices`."""

    name: str
    parameters: Mapping[str, Any]
    distribution: str
    version: str
    choices: int | None = None


@dataclass(frozen=True)
class DraftRecord:
    """One answered call, in the order of asking.

    `after` drafts had been given to the programs before it was asked. `policy` is the one it was decoded
    under, as strict as it then was. `slm_only`: nothing of it was asked of the LLM. `shown` is what the LLM
    read instead of the prompt. `redo` is the most redos that its checks allow, `redone` how many there were.
    """

    completion: Completion
    policy: FusionPolicy
    after: int
    slm_only: bool = False
    shown: Prompt | None = None
    redo: int = 0
    redone: int = 0


@dataclass(frozen=True)
class SegmentRecord:
    """A part of a released text.

    `text` is the draft's own for "drawn", the surrogate for "restored", the operator's for "operator". `name`
    is the surrogate's id, or the key of the operator's text. A true value is in no record.
    """

    kind: Kind
    text: str
    name: str = ""


@dataclass(frozen=True)
class CheckRecord:
    """A check that judged the released text: its name, its window, its `redo` and its `judged()`."""

    name: str
    window: float
    redo: int = 0
    judged: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class AnswerRecord:
    """All that a certificate says of one answer that stages made.

    `released` is the index of the draft that its text is from; None: every word is the operator's.
    `failed` counts the fused calls that had no answer; `most_calls` is the request's limit.
    """

    stages: tuple[StageRecord, ...]
    drafts: tuple[DraftRecord, ...]
    released: int | None
    segments: tuple[SegmentRecord, ...]
    finish_reason: str
    most_calls: int
    failed: int = 0
    checks: tuple[CheckRecord, ...] = ()
    scores: Mapping[str, Any] = field(default_factory=dict)


def certify_stages(record: AnswerRecord) -> Certificate:
    """The certificate of an answer that stages made.

    Its `answer` is the text with surrogates: of a true value not even a digest is written, as what is known
    but for a telephone number is found by trying them all. Of a draft that an operator's text ends only the
    tokens that were released are recorded, and of an answer in the operator's words no draft. Raises
    RefusedError where more answers were chosen from than the stages declare, PurifyError where the segments
    are not what the draft spells.
    """
    drafts, released = _drafts(record)
    text = "".join(each.text for each in record.segments)
    made = len(record.drafts) + record.failed
    calls = Calls(made, made - len(drafts), record.most_calls)
    stages = [_stage(each) for each in record.stages]
    settled = settle(stages, drafts, calls)
    if settled.excess:
        raise RefusedError(settled.excess)
    body = {
        "format": STAGED_FORMAT,
        "answer": {**text_facts(text), "finish_reason": record.finish_reason},
        "stages": stages,
        "drafts": drafts,
        "segments": _segments(record, released),
        "checks": [_check(each) for each in record.checks],
        "ledger": settled.ledger,
        "claim": settled.claim,
        "scores": jsonable(record.scores),
        "totals": totals([] if released is None else drafts[released]["certificate"]["steps"]),
        "limits": list(LIMITS),
    }
    return Certificate(canonical({**body, "digest": digest(body)}))


def prompt_digest(prompt: Prompt) -> str:
    """Digest of what the LLM was shown: of a text, or of the canonical JSON of messages or token ids.

    It is keyed by the deployment's secret: the LLM may have read what the certificate's readers must not.
    """
    if isinstance(prompt, str):
        return private_digest(prompt)
    shown = (
        {"messages": prompt.messages, "tools": prompt.tools} if isinstance(prompt, Chat) else {"ids": prompt}
    )
    return private_digest(canonical(jsonable(shown)))


def _stage(stage: StageRecord) -> dict[str, Any]:
    return {**vars(stage), "parameters": jsonable(stage.parameters)}


def _drafts(record: AnswerRecord) -> tuple[list[dict[str, Any]], int | None]:
    """The drafts with their roles, and which is the released one; none where nothing of one is released."""
    drawn = _drawn(record)
    if record.released is None or (_ended(record) and not drawn):
        return [], None
    ends = [len(drawn) if at == record.released else None for at in range(len(record.drafts))]
    entries = [_draft(draft, end) for draft, end in zip(record.drafts, ends, strict=True)]
    if entries[record.released]["certificate"] is None:
        return [], None
    found = roles([asked_of(each) for each in entries], record.released)
    return [{**entry, "role": role} for entry, role in zip(entries, found, strict=True)], record.released


def _drawn(record: AnswerRecord) -> str:
    """The text that was drawn, with its surrogates. Raises PurifyError where its draft spells another."""
    drawn = "".join(each.text for each in record.segments if each.kind != "operator")
    whole = "" if record.released is None else record.drafts[record.released].completion.text
    if not (whole.startswith(drawn) if _ended(record) else whole == drawn):
        raise PurifyError("what was released is not what its draft spells; no certificate is issued")
    return drawn


def _ended(record: AnswerRecord) -> bool:
    """Whether an operator's text ends the answer."""
    return any(each.kind == "operator" for each in record.segments)


def _draft(draft: DraftRecord, end: int | None) -> dict[str, Any]:
    body = draft_body(draft.completion, draft.policy, not draft.slm_only, end)
    return {
        "after": draft.after,
        "shown": None if draft.shown is None else prompt_digest(draft.shown),
        "redo": draft.redo,
        "redone": draft.redone,
        "allowed": allowed(draft.policy, body or draft.completion.certificate.body),
        "certificate": body,
    }


def allowed(policy: FusionPolicy, body: Mapping[str, Any]) -> str:
    """The most nats that a whole draft may have under its policy; "inf": it bounds none."""
    if not body["method"].get("llm_asked", True):
        return fixed(0.0)
    bounded = body["method"]["claimed"] == "path"
    most = policy.allowance(body["answer"]["limit"], math.inf) if bounded else None
    return fixed(math.inf if most is None else most)


def _check(check: CheckRecord) -> dict[str, Any]:
    return {**vars(check), "window": jsonable(check.window), "judged": jsonable(check.judged)}


def _segments(record: AnswerRecord, released: int | None) -> list[dict[str, Any]]:
    """The segments with their places in the released draft, in bytes of UTF-8."""
    at, found = 0, []
    for each in record.segments:
        if each.kind == "operator":
            found.append({"kind": each.kind, "name": each.name, **text_facts(each.text)})
            continue
        end = at + len(each.text.encode())
        found.append({"kind": each.kind, "name": each.name, "draft": released, "from": at, "to": end})
        at = end
    return found
