"""`Row`: a prompt with what is particular to its row of a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from purify_plugins.types import Prompt


@dataclass(frozen=True)
class Row:
    """What one row of a batch asks, where it is more than a prompt.

    The SLM reads `prompt`, the LLM `shown` (None: the same). `seed` is this row's own; `label`, if there is
    one, is part of its draw key: the same seed and prompt with another label draw other numbers.
    """

    prompt: Prompt
    shown: Prompt | None = None
    seed: int | None = None
    label: str = ""
