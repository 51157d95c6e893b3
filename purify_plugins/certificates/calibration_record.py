"""What a policy's settings were calibrated on, as `purify.toml` and certificates record it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from purify_plugins.canonical_json import canonical, model_digest
from purify_plugins.errors import ConfigError

AGAIN = "run `purify calibrate` again, or remove [calibration]"
"""What to do about a record that does not fit."""
KINDS: Mapping[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "float": (float, int)}


@dataclass(frozen=True)
class CalibrationRecord:
    """The text and the models that a policy's settings were set by, and what was found on them.

    `text` is the SHA-256 of the passages that were read, `sample` their name for people. `llm` and `slm` are
    the models' digests as `purify check` prints them, "" for a model without files. The perplexities are a
    token's. `limited` is the share of the text's tokens that met the limit. `version` is that of
    purify-plugins.
    """

    sample: str
    text: str
    tokens: int
    llm: str
    slm: str
    llm_perplexity: float
    slm_perplexity: float
    limited: float
    version: str

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> CalibrationRecord:
        """The record in a table of `purify.toml`. Raises ConfigError."""
        wanted = {each.name: each.type for each in fields(cls)}
        for name, kind in wanted.items():
            value = table.get(name)
            if not isinstance(value, KINDS[str(kind)]) or isinstance(value, bool):
                raise ConfigError(f"{name} is {'missing' if value is None else f'{value!r}'}; {AGAIN}")
        return cls(**{name: table[name] for name in wanted})

    def as_json(self) -> dict[str, Any]:
        """The record as a certificate has it."""
        return asdict(self)

    def strangers(self, llm: Mapping[str, Any], slm: Mapping[str, Any]) -> list[str]:
        """Which of "LLM" and "SLM", of these identities, it was not made with."""
        both = (("LLM", self.llm, llm), ("SLM", self.slm, slm))
        return [side for side, known, identity in both if known != digest_of(identity)]


def digest_of(identity: Mapping[str, Any]) -> str:
    """The digest of a model's files; "" for a model that names none."""
    files = identity.get("files")
    return model_digest(files) if files else ""


def settings_digest(policy: Mapping[str, Any]) -> str:
    """SHA-256 of a [policy] table: whether it is still as it was calibrated."""
    from hashlib import sha256

    return sha256(canonical(dict(policy)).encode()).hexdigest()
