"""`RequestOptions`: how much the stages of one request may ask for, and what its reader gets on a refusal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from purify_plugins.errors import ConfigError

OnRefusal = Literal["error", "text"]
"""What a reader gets in place of a refused answer: an error, or the operator's text."""


@dataclass(frozen=True, kw_only=True)
class RequestOptions:
    """The keys of `[request]`."""

    calls: int = 8
    """The most drafts of one request; one more is refused."""
    tokens: int = 4000
    """The most tokens of all its drafts."""
    on_refusal: OnRefusal = "error"
    """"error" ends a refused answer with an error, "text" with the operator's text."""
    refusals: dict[str, str] = field(default_factory=dict)
    """The operator's texts, by the key of the refusal; `default` is for every other key."""

    def __post_init__(self) -> None:
        for name in ("calls", "tokens"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ConfigError(f"request: {name} must be a whole number, at least 1, not {value!r}")
        if self.on_refusal not in get_args(OnRefusal):
            raise ConfigError(f"request: on_refusal must be 'error' or 'text', not {self.on_refusal!r}")
        if not isinstance(self.refusals, Mapping) or not all(_text(each) for each in self.refusals.values()):
            raise ConfigError("request: refusals must be a table of texts, none of them empty")
        if self.on_refusal == "text" and "default" not in self.refusals:
            raise ConfigError(
                "request: on_refusal = 'text' needs a text for every refusal; "
                'add refusals = { default = "I cannot help with that." }'
            )

    def said(self, key: str) -> tuple[str, str]:
        """The key and the operator's text for a refusal of this key: the default's where it has none."""
        key = key if key in self.refusals else "default"
        return key, self.refusals[key]


def _text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())
