"""Policies and settings as canonical JSON: one spelling, so that digests of it can be compared."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from purify_plugins.errors import ConfigError
from purify_plugins.foreign import adapted_policy, is_policy
from purify_plugins.policy import FusionPolicy

ADDED_LATER: Mapping[str, bool] = MappingProxyType({"added later": True})
"""Metadata of an option that its class did not always have. At its default it is not stated, so the
certificates and keyed draws of those who do not use it stay the same, byte for byte."""


def options(policy: Any, name_of: Callable[[FusionPolicy], str]) -> dict[str, Any]:
    """A policy's options as `Plugins.policy` takes them back; `name_of` names a policy inside it.

    Raises ConfigError when they are no JSON.
    """
    policy = policy if isinstance(policy, FusionPolicy) else adapted_policy(policy)
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
            found[name] = {"name": name_of(inside), **options(inside, name_of)}
    return found


def jsonable(value: Any) -> Any:
    """A dataclass or value as JSON values; fields with `repr=False` are derived and left out.

    So are those `ADDED_LATER` that are at their default.
    """
    value = value.original if isinstance(value, FusionPolicy) else value
    if dataclasses.is_dataclass(value):
        fields = [field for field in dataclasses.fields(value) if field.repr]
        shown = [field for field in fields if not (field.metadata and _unused(value, field))]
        return {field.name: jsonable(getattr(value, field.name)) for field in shown}
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [jsonable(item) for item in value]
    return str(value) if value in (math.inf, -math.inf) else value


def _unused(value: Any, field: dataclasses.Field[Any]) -> bool:
    """Whether the option was added later and is at its default."""
    later = field.metadata.keys() >= ADDED_LATER.keys()
    return later and bool(getattr(value, field.name) == field.default)


def canonical(body: Mapping[str, Any]) -> str:
    """The canonical spelling: sorted keys, no spaces."""
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(body: Mapping[str, Any]) -> str:
    """SHA-256 of everything but the digest itself."""
    return hashlib.sha256(canonical({k: v for k, v in body.items() if k != "digest"}).encode()).hexdigest()


def model_digest(files: Mapping[str, str]) -> str:
    """One SHA-256 for a model: of the canonical JSON of its files' SHA-256, by name."""
    return hashlib.sha256(canonical(files).encode()).hexdigest()


def counted(texts: Iterable[str]) -> dict[str, Any]:
    """Texts as a certificate records them: how many, and one digest of all."""
    found = sorted(texts)
    return {"count": len(found), "sha256": hashlib.sha256("\0".join(found).encode()).hexdigest()}
