"""Constraints as logits processors: each row's follower says which tokens may come, in both rows alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from purify_plugins.canonical_json import jsonable
from purify_plugins.errors import PluginError, ours

if TYPE_CHECKING:
    from purify_plugins.protocols import Constraint, Follower
    from purify_plugins.types import History, Vocabulary


class FollowerMask:
    """A logits processor: rules out, in each row, every token that the row's follower does not allow next.

    `begin` makes the follower of a new answer. Rows are dropped, and a follower then gets another row's
    answer: followers take any answer, and are only slower where it is not the last one gone on with.
    """

    def __init__(self, begin: Callable[[], Follower]) -> None:
        self.begin = begin
        self.rows: list[Follower] = []

    def __call__(self, rows: Tensor, history: History) -> Tensor:
        while len(self.rows) < len(history):
            self.rows.append(self.begin())
        allowed = [row.allowed(answer) for row, (_, answer) in zip(self.rows, history, strict=False)]
        return rows.masked_fill(~torch.stack(allowed).to(rows.device), -torch.inf)


class ConstraintMask(FollowerMask):
    """The mask of a constraint, which may be a plugin's. Raises PluginError where that fails."""

    def __init__(self, constraint: Constraint, vocabulary: Vocabulary) -> None:
        super().__init__(partial(constraint.follower, vocabulary))
        self.name = type(constraint).__name__

    def __call__(self, rows: Tensor, history: History) -> Tensor:
        with ours(lambda error: PluginError(f"the constraint {self.name} failed: {error!r}")):
            return super().__call__(rows, history)


def public(constraints: Iterable[Constraint]) -> list[Mapping[str, Any]]:
    """What certificates say of each constraint: its kind, and of a list a digest and a count."""
    return [jsonable(each.public()) for each in constraints]


def kinds(constraints: Iterable[Constraint]) -> list[str]:
    """The kind of each constraint, which draws are keyed by."""
    return [str(each.public().get("kind", type(each).__name__)) for each in constraints]
