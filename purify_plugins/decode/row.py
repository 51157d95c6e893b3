"""`Row`: a prompt with what is particular to its row of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from purify_plugins.sampling import Sampling
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


def rows_of(prompts: Sequence[Prompt | Row]) -> list[Row]:
    """Each prompt of a batch as a row."""
    return [each if isinstance(each, Row) else Row(each) for each in prompts]


def seeds_of(rows: Sequence[Row], sampling: Sampling) -> list[int | None]:
    """The seed that each row draws from: its own, else `sampling.seed` + its place in the batch."""
    given = sampling.seed
    return [given + at if row.seed is None and given is not None else row.seed for at, row in enumerate(rows)]
