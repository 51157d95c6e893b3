"""A draft's certificate without the tokens of what was not released of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from purify_plugins.canonical_json import digest
from purify_plugins.certificates.answer_checks import claim_of, sampling_of
from purify_plugins.certificates.claims import MEANING, mode_of
from purify_plugins.certificates.figures import text_facts, tokens_of, totals

if TYPE_CHECKING:
    from purify_plugins.policy import FusionPolicy
    from purify_plugins.types import Completion


def cut(completion: Completion, characters: int, policy: FusionPolicy) -> dict[str, Any] | None:
    """The body of an answer's certificate as if it had ended with its last token within `characters`.

    Token ids spell text, so what must not be released is in no certificate either. None: no token is left.
    """
    text, last = "", None
    for piece in completion.pieces:
        if len(text) + len(piece.text) > characters:
            break
        text, last = text + piece.text, piece.token
    kept = next((at + 1 for at, each in enumerate(completion.steps) if each is last), 0)
    return _shortened(completion.certificate.body, kept, text, policy) if kept else None


def _shortened(body: dict[str, Any], kept: int, text: str, policy: FusionPolicy) -> dict[str, Any]:
    rows = body["steps"][:kept]
    steps = tokens_of(rows)
    claim = claim_of(body["method"], policy, body["models"], steps)
    found = {
        **body,
        "answer": {**text_facts(text), "finish_reason": "length", "limit": kept, "limited_by": "plugin"},
        "method": {
            **body["method"],
            "mode": mode_of(sampling_of(body), steps),
            **claim._asdict(),
            "meaning": MEANING[claim.guarantee],
        },
        "steps": rows,
        "totals": totals(rows),
    }
    return {**found, "digest": digest(found)}
