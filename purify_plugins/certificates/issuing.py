"""Issue a certificate from the decoder's record, never from the purifier's configuration."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from purify_plugins._version import __version__
from purify_plugins.canonical_json import canonical, digest, jsonable
from purify_plugins.certificates.claims import LIMITS, MEANING, claimed, mode_of
from purify_plugins.certificates.figures import COLUMNS, FORMAT, fixed, tokens_of, totals
from purify_plugins.threat import draws
from purify_plugins.types import Certificate

if TYPE_CHECKING:
    from purify_plugins.certificates.calibration_record import CalibrationRecord
    from purify_plugins.certificates.citations import Cited
    from purify_plugins.decode.draw_record import Drawn
    from purify_plugins.decode.watermark import Watermark
    from purify_plugins.plugin.manager import Actor
    from purify_plugins.protocols import LogitSource
    from purify_plugins.types import Token


def certify(
    drawn: Drawn,
    steps: Sequence[Token],
    text: str,
    finish_reason: str,
    context: Cited = (),
    actors: Sequence[Actor] = (),
    calibration: CalibrationRecord | None = None,
    configuration: str | None = None,
) -> Certificate:
    """The certificate of an answer, from the decoder's record; the arguments are as in AnswerOptions."""
    rows = [_row(token) for token in steps]
    body = {
        "format": FORMAT,
        "answer": {
            "sha256": hashlib.sha256(text.encode()).hexdigest(),
            "bytes": len(text.encode()),
            "finish_reason": finish_reason,
            "limit": drawn.limit.tokens,
            "limited_by": drawn.limit.by,
        },
        "prompt": list(drawn.prompt),
        "context": [{"id": name, "sha256": sha256} for name, sha256 in context],
        "models": {"llm": _model(drawn.llm, False), "slm": _model(drawn.slm, True)},
        "vocabulary": drawn.slm.vocabulary.fingerprint,
        "method": {
            **_method(drawn, tokens_of(rows), sum(token.marked for token in steps)),
            "plugins": [asdict(actor) for actor in actors],
            **({"calibration": calibration.as_json()} if calibration else {}),
            **({"configuration": {"sha256": configuration}} if configuration else {}),
        },
        "columns": list(COLUMNS),
        "steps": rows,
        "totals": totals(rows),
        "limits": list(LIMITS),
    }
    return Certificate(canonical({**body, "digest": digest(body)}))


def _model(source: LogitSource, trusted: bool) -> Mapping[str, Any]:
    return {**source.identity(), "engine": source.engine, "trusted": trusted}


def _method(drawn: Drawn, steps: Sequence[Token], marked: int) -> dict[str, Any]:
    engines = drawn.llm.engine, drawn.slm.engine
    asked = drawn.llm_asked, marked > 0
    claim = claimed(drawn.policy, drawn.sampling, drawn.walk, engines, steps, drawn.edits, *asked)
    return {
        "policy": drawn.policy_name,
        "parameters": drawn.parameters,
        "sampling": jsonable(drawn.sampling),
        "mode": mode_of(drawn.sampling, steps),
        "walk": drawn.walk,
        **({} if drawn.llm_asked else {"llm_asked": False}),
        **({"constraints": list(drawn.constraints)} if drawn.constraints else {}),
        **({"watermark": _mark(drawn.watermark, marked)} if drawn.watermark else {}),
        "edits": list(drawn.edits),
        "draws": draws(drawn.sampling, marked > 0),
        "claimed": drawn.policy.guarantee,
        "guarantee": claim.guarantee,
        "adversary": claim.adversary,
        "reason": claim.reason,
        "meaning": MEANING[claim.guarantee],
        "version": __version__,
    }


def _mark(watermark: Watermark, tokens: int) -> dict[str, Any]:
    """Which watermark drew so many of the answer's tokens; the key itself does not follow from its id."""
    return {"key": watermark.id, "context": watermark.context, "tokens": tokens}


def _row(token: Token) -> list[Any]:
    numbers = (token.slm, token.fused, token.kl, token.peak, token.revealed)
    return [token.id, *map(fixed, numbers), token.slm_only, fixed(token.hidden)]
