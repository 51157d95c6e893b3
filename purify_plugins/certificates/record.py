"""The certificate that goes with an answer, as it is read: its text, and what that says by name."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from purify_plugins.policy import Guarantee


@dataclass(frozen=True)
class Certificate:
    """The proof that goes with an answer; `text` is its canonical JSON."""

    text: str

    @cached_property
    def body(self) -> dict[str, Any]:
        """Everything it says, by name."""
        parsed: dict[str, Any] = json.loads(self.text)
        return parsed

    @property
    def digest(self) -> str:
        return str(self.body["digest"])

    @property
    def guarantee(self) -> Guarantee:
        """The guarantee that holds for this very answer, in the mode it was drawn."""
        return self.body["method"]["guarantee"]  # type: ignore[no-any-return]  # checked by the schema

    @property
    def log_ratio(self) -> float:
        """log fused/slm of the whole answer, in nats."""
        return float(self.body["totals"]["log_ratio"])
