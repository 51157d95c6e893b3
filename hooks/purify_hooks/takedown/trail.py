"""One row's text: each token, and what is known of a recital after it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from purify_hooks.takedown.anchor import Anchor, Change, Recital


class Column(NamedTuple):
    """A token after the prompt, the column before it (-1: the prompt), and what is known after it."""

    token: int
    before: int
    recital: Recital


class Trail:
    """A row's prompt and the columns read since, of which a draft's may branch."""

    def __init__(self, anchor: Anchor, prompt: Sequence[int], scored: int = 0) -> None:
        """Read the prompt, and note what would change the rows before its last `scored` tokens."""
        self.anchor, self.prompt = anchor, prompt
        self.columns: list[Column] = []
        self.changes: list[Change | None] = []  # before each of the scored tokens
        self._recital, reach = anchor.start, anchor.reach
        for at, token in enumerate(prompt):
            text = prompt[max(at - reach, 0) : at]
            if at >= len(prompt) - scored:
                self.changes.append(anchor.change(self._recital, text))
            self._recital = anchor.after(self._recital, text, token)

    def read(self, token: int, before: int | None = None) -> None:
        """Append a token, after the last column or after another one."""
        before = len(self.columns) - 1 if before is None else before
        recital = self.anchor.after(self.recital(before), self._text(before), token)
        self.columns.append(Column(token, before, recital))

    def change(self, column: int) -> Change | None:
        """What is taken off the row after a column; -1: after the prompt."""
        return self.anchor.change(self.recital(column), self._text(column))

    def recital(self, column: int) -> Recital:
        """What is known of a recital after a column; -1: after the prompt."""
        return self._recital if column < 0 else self.columns[column].recital

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
