"""One row's text: each token, and how likely it is that the works are recited after it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from purify_hooks.takedown.anchor import Anchor, Change


class Column(NamedTuple):
    """A token after the prompt: the column before it (-1: the prompt), and the probability after it."""

    token: int
    before: int
    recited: float


class Trail:
    """A row's prompt and the columns read since, of which a draft's may branch."""

    def __init__(self, anchor: Anchor, prompt: Sequence[int], scored: int = 0) -> None:
        """Read the prompt, and note what would change the rows before its last `scored` tokens."""
        self.anchor, self.prompt = anchor, prompt
        self.columns: list[Column] = []
        self.changes: list[Change | None] = []  # before each of the scored tokens
        self._recited, reach = anchor.start, anchor.reach
        for at, token in enumerate(prompt):
            text = prompt[max(at - reach, 0) : at]
            if at >= len(prompt) - scored:
                self.changes.append(anchor.change(self._recited, text))
            self._recited = anchor.after(self._recited, text, token)

    def read(self, token: int, before: int | None = None) -> None:
        """Append a token, after the last column or after another one."""
        before = len(self.columns) - 1 if before is None else before
        recited = self.anchor.after(self.recited(before), self._text(before), token)
        self.columns.append(Column(token, before, recited))

    def change(self, column: int) -> Change | None:
        """What is taken off the row after a column; -1: after the prompt."""
        recited = self.recited(column)
        return self.anchor.change(recited, self._text(column))

    def recited(self, column: int) -> float:
        """The probability that the works are recited, after a column."""
        return self._recited if column < 0 else self.columns[column].recited

    def _text(self, column: int) -> list[int]:
        """The last tokens up to a column, as many as anything depends on."""
        found: list[int] = []
        while column >= 0 and len(found) < self.anchor.reach:
            found.append(self.columns[column].token)
            column = self.columns[column].before
        missing = self.anchor.reach - len(found)
        return [*(self.prompt[-missing:] if missing else ()), *reversed(found)]

    def select(self, columns: Sequence[int]) -> None:
        """Keep these columns, a path, in this order."""
        kept = [self.columns[each] for each in columns]
        self.columns = [each._replace(before=at - 1) for at, each in enumerate(kept)]
