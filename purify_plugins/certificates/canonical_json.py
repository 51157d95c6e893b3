"""How a certificate is written: one line of canonical JSON, its digest, its decimals and their sums."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from purify_plugins.certificates.record import Certificate as Certificate
from purify_plugins.errors import ConfigError
from purify_plugins.plugin.adapting import adapted_policy, is_policy
from purify_plugins.types import FusionPolicy, Token

if TYPE_CHECKING:
    from purify_plugins.plugin.manager import Plugins

FORMAT = "purify-certificate/2"
PLACES = Decimal("1e-9")
COLUMNS = ("id", "slm", "fused", "kl", "peak", "revealed", "slm_only", "hidden")


def options(policy: Any, plugins: Plugins) -> dict[str, Any]:
    """A policy's options as `Plugins.policy` takes them back; a policy inside it has its name too.

    Raises ConfigError when they are no JSON.
    """
    policy = adapted_policy(policy)
    try:
        found: dict[str, Any] = json.loads(canonical(jsonable(policy)))
    except (TypeError, ValueError) as error:
        kind = type(policy.original).__name__
        raise ConfigError(
            f"the policy {kind!r} has an option that no certificate can hold: {error}"
        ) from error
    for name, inner in ((name, getattr(policy.original, name)) for name in found):
        if is_policy(inner):
            inside = adapted_policy(inner)
            found[name] = {"name": plugins.name_of(inside), **options(inside, plugins)}
    return found


def fixed(number: float) -> str:
    """A number as a fixed decimal with nine places; "inf" and "-inf" are themselves."""
    return f"{number:.9f}" if math.isfinite(number) else f"{number}"


def totals(rows: Iterable[Sequence[Any]]) -> dict[str, Any]:
    """What an answer's steps add up to, exactly: the sums of their decimals."""
    table = [[Decimal(cell) for cell in row[1:6]] for row in rows]
    ratios = [fused - slm for slm, fused, *_ in table]
    return {
        "tokens": len(table),
        "log_ratio": _decimal(sum(ratios, Decimal(0))),
        "kl": _decimal(sum((row[2] for row in table), Decimal(0))),
        "largest_step": _decimal(max(ratios, default=Decimal(0))),
        "largest_peak": _decimal(max((row[3] for row in table), default=Decimal(0))),
        "surprisal": _decimal(sum((-row[0] for row in table), Decimal(0))),
        "least_revealed": _decimal(min((row[4] for row in table), default=Decimal(1))),
        "slm_only": sum(bool(row[6]) for row in rows),
        "most_hidden": _decimal(max((Decimal(row[7]) for row in rows), default=Decimal(0))),
    }


def tokens_of(rows: Iterable[Sequence[Any]]) -> list[Token]:
    """A certificate's steps as policies judge them; the LLM's own figure is not recorded."""
    return [Token._make((row[0], None, *map(float, row[1:6]), row[6], float(row[7]), ())) for row in rows]


def _decimal(number: Decimal) -> str:
    return f"{number.quantize(PLACES):f}" if number.is_finite() else f"{float(number)}"


def jsonable(value: Any) -> Any:
    """A dataclass or value as JSON; fields that a policy hides from its `repr` are derived, not options."""
    value = value.original if isinstance(value, FusionPolicy) else value
    if dataclasses.is_dataclass(value):
        shown = (field for field in dataclasses.fields(value) if field.repr)
        return {field.name: jsonable(getattr(value, field.name)) for field in shown}
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [jsonable(item) for item in value]
    return str(value) if value in (math.inf, -math.inf) else value


def canonical(body: Mapping[str, Any]) -> str:
    """The one spelling of a certificate: sorted keys, no spaces."""
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(body: Mapping[str, Any]) -> str:
    """SHA-256 of everything but the digest itself."""
    return hashlib.sha256(canonical({k: v for k, v in body.items() if k != "digest"}).encode()).hexdigest()
