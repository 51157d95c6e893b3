"""The certificate of a draft as a staged answer's certificate records it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from purify_plugins.canonical_json import digest
from purify_plugins.certificates.answer_checks import claim_of, settings_of
from purify_plugins.certificates.claims import MEANING, mode_of
from purify_plugins.certificates.figures import text_facts, tokens_of, totals

if TYPE_CHECKING:
    from purify_plugins.policy import FusionPolicy
    from purify_plugins.types import Completion


def draft_body(
    completion: Completion, policy: FusionPolicy, llm_asked: bool, characters: int | None = None
) -> dict[str, Any] | None:
    """The body of a draft's certificate; with `characters`, as if it had ended with its last token in these.

    Token ids spell text, so what must not be released is in no certificate either. Of a draft that the SLM
    ended after a redo it is not said that the LLM was not asked. None: no token is left.
    """
    body = completion.certificate.body
    if llm_asked and "llm_asked" in body["method"]:
        method = {key: value for key, value in body["method"].items() if key != "llm_asked"}
        body = _claimed({**body, "method": method}, policy)
    if characters is None or characters == len(completion.text):
        return body
    text, kept = _within(completion, characters)
    if not kept:
        return None
    rows = body["steps"][:kept]
    answer = {**text_facts(text), "finish_reason": "length", "limit": kept, "limited_by": "plugin"}
    return _claimed({**body, "answer": answer, "steps": rows, "totals": totals(rows)}, policy)


def _within(completion: Completion, characters: int) -> tuple[str, int]:
    """The text of the whole tokens within so many characters, and how many tokens that are."""
    text, last = "", None
    for piece in completion.pieces:
        if len(text) + len(piece.text) > characters:
            break
        if piece.text:  # one without text begins a character of the next
            text, last = text + piece.text, piece.token
    return text, next((at + 1 for at, each in enumerate(completion.steps) if each is last), 0)


def _claimed(body: dict[str, Any], policy: FusionPolicy) -> dict[str, Any]:
    """The body with the claim of its steps, and its digest."""
    steps = tokens_of(body["steps"])
    claim = claim_of(body["method"], policy, body["models"], steps)
    follows = {"mode": mode_of(settings_of(body), steps), "meaning": MEANING[claim.guarantee]}
    found = {**body, "method": {**body["method"], **claim._asdict(), **follows}}
    return {**found, "digest": digest(found)}
