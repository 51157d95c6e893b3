"""The figures of a certificate's steps: fixed decimals, and their exact sums."""

from __future__ import annotations

import hashlib
import hmac
import math
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

from purify_plugins.decode.draw_keys import secret
from purify_plugins.types import Token

FORMAT = "purify-certificate/2"
STAGED_FORMAT = "purify-certificate/3"
"""The format of an answer that stages made."""
PLACES = Decimal("1e-9")
COLUMNS = ("id", "slm", "fused", "kl", "peak", "revealed", "slm_only", "hidden")


def fixed(number: float) -> str:
    """A number as a fixed decimal with nine places; "inf" and "-inf" are themselves."""
    return f"{number:.9f}" if math.isfinite(number) else f"{number}"


def text_facts(text: str) -> dict[str, Any]:
    """A text's SHA-256 and length in UTF-8."""
    data = text.encode()
    return {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def private_digest(text: str) -> str:
    """HMAC-SHA-256 of a text under the deployment's secret: who lacks it can check no guess at the text."""
    return hmac.digest(secret(), b"purify-private/1\0" + text.encode(), "sha256").hex()


def totals(rows: Iterable[Sequence[Any]]) -> dict[str, Any]:
    """The exact sums of an answer's steps, from their decimals."""
    table = [[Decimal(cell) for cell in row[1:6]] for row in rows]
    ratios = [fused - slm for slm, fused, *_ in table]
    return {
        "tokens": len(table),
        "log_ratio": decimal(sum(ratios, Decimal(0))),
        "kl": decimal(sum((row[2] for row in table), Decimal(0))),
        "largest_step": decimal(max(ratios, default=Decimal(0))),
        "largest_peak": decimal(max((row[3] for row in table), default=Decimal(0))),
        "surprisal": decimal(sum((-row[0] for row in table), Decimal(0))),
        "least_revealed": decimal(min((row[4] for row in table), default=Decimal(1))),
        "slm_only": sum(bool(row[6]) for row in rows),
        "most_hidden": decimal(max((Decimal(row[7]) for row in rows), default=Decimal(0))),
    }


def tokens_of(rows: Iterable[Sequence[Any]]) -> list[Token]:
    """A certificate's steps as policies judge them; the LLM's own figure is not recorded."""
    return [
        Token._make((row[0], None, *map(float, row[1:6]), row[6], float(row[7]), (), False)) for row in rows
    ]


def decimal(number: Decimal) -> str:
    """A decimal as certificates write it."""
    return f"{number.quantize(PLACES):f}" if number.is_finite() else f"{float(number)}"
