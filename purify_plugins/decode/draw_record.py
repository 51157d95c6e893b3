"""How an answer was drawn, as the decoder recorded it: what its certificate is made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from purify_plugins.decode.watermark import Watermark
    from purify_plugins.policy import FusionPolicy
    from purify_plugins.protocols import LogitSource
    from purify_plugins.sampling import Sampling

LimitedBy = Literal["max_tokens", "context", "plugin", "engine"]
CUT = ("plugin", "engine")
"""Who may end an answer at any token."""
DROPPED = "dropped steps"
RETUNED = "changed the policy's options"


@dataclass(frozen=True)
class Limit:
    """The maximum number of tokens of an answer, and what sets it."""

    tokens: int
    by: LimitedBy


@dataclass(frozen=True)
class Drawn:
    """How one answer was drawn, for its certificate.

    `walk` is the decoding strategy, `parameters` are the policy's options when decoding started, `sampling`
    the settings in force. `edits` are changes that plugins made to the steps; each voids the guarantee.
    `llm_asked`: whether the LLM had a part in it; `constraints` are what certificates say of each.
    `watermark` is the decoder's; which tokens it drew is recorded with each.
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
    llm_asked: bool = True
    constraints: Sequence[Mapping[str, Any]] = ()
    watermark: Watermark | None = None
