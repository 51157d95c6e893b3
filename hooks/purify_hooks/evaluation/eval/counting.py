"""A Purifier that counts the tokens it draws: drafts, refused answers and spans written again included."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from purify_plugins.purifier import Purifier

if TYPE_CHECKING:
    from purify_plugins.decode.row import Row
    from purify_plugins.sampling import Sampling
    from purify_plugins.types import Prompt, Steps


@dataclass
class Count:
    """A number of tokens."""

    tokens: int = 0


class CountingPurifier(Purifier):
    """A Purifier whose `count` goes up with every token drawn, whether a reader gets it or not."""

    count: Count

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        vars(self)["count"] = Count()  # shared by the copies that requests are answered by

    def decode(self, prompts: Sequence[Prompt | Row], sampling: Sampling) -> Steps:
        self.count.tokens -= len(self.given)  # decoded again, not drawn
        with closing(super().decode(prompts, sampling)) as steps:
            for step in steps:
                self.count.tokens += sum(token is not None for token in step.tokens)
                yield step
