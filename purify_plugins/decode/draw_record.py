"""How one answer was really drawn, as its decoder noted it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from purify_plugins.policy import FusionPolicy
    from purify_plugins.protocols import LogitSource
    from purify_plugins.sampling import Sampling

LimitedBy = Literal["max_tokens", "context", "plugin"]
DROPPED = "dropped steps"
RETUNED = "changed the policy's options"


@dataclass(frozen=True)
class Limit:
    """The most tokens an answer may have, and what sets it."""

    tokens: int
    by: LimitedBy


@dataclass(frozen=True)
class Drawn:
    """How one answer was really drawn, for its certificate.

    `walk` is the decoder that ran, `parameters` are the policy's options when it started, `sampling` the
    settings that shaped its rows. `edits` are what plugins did to its steps that no guarantee survives.
    """

    walk: str
    policy: FusionPolicy
    policy_name: str
    parameters: Mapping[str, Any]
    sampling: Sampling
    llm: LogitSource
    slm: LogitSource
    prompt: tuple[int, ...]
    limit: Limit
    edits: tuple[str, ...] = ()
