"""An open batch on an LLM whose rows named works are taken out of."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from purify_hooks.takedown.anchor import Anchor, Change, kept_mass
from purify_hooks.takedown.trail import Trail
from purify_plugins.protocols import Session
from purify_plugins.sources.wrapper import SessionWrapper
from purify_plugins.types import ScoredPrompt

if TYPE_CHECKING:
    from purify_plugins.protocols import LogitSource


class TakedownSession(SessionWrapper):
    """A session of `source`, an LLM, with a trail for each row.

    Rows (…, V), or (…, V + 1) of a server that shows a row's top: what is taken off a token is taken off the
    LLM's logit where it is known. The mass of tokens that were not shown stays as it is, though some of it
    might be taken off: it is overstated, and the SLM's distribution fills it.
    """

    def __init__(self, session: Session, source: LogitSource, anchor: Anchor) -> None:
        self.session, self.anchor = session, anchor
        self.trails = [Trail(anchor, each.tokens, len(each.logprobs)) for each in session.prompts]
        score = rescored if source.capabilities is None else rescored_at_most
        self.prompts: Sequence[ScoredPrompt] = [
            score(source, each, trail) if any(trail.changes) else each
            for each, trail in zip(session.prompts, self.trails, strict=True)
        ]

    def first(self, logits: Tensor) -> Tensor:
        """The rows (rows, V) after the prompts, of the LLM's."""
        return self._changed(logits, [[-1]] * len(self.trails))

    def extend(self, tokens: Tensor) -> Tensor:
        return self.extended(tokens, self.session.extend(tokens))

    def extended(self, tokens: Tensor, logits: Tensor) -> Tensor:
        """The rows (rows, n, V) after tokens (rows, n), of the LLM's."""
        return self._changed(logits, self._read(tokens))

    def _read(self, tokens: Tensor) -> list[list[int]]:
        """Append tokens (rows, n) to the trails; the columns that they are."""
        columns = []
        for trail, new in zip(self.trails, tokens.tolist(), strict=True):
            columns.append([*range(len(trail.columns), len(trail.columns) + len(new))])
            for token in new:
                trail.read(token)
        return columns

    def _changed(self, logits: Tensor, columns: Sequence[Sequence[int]]) -> Tensor:
        """Logits (rows, V) or (rows, n, V) after these columns, changed where the works are recited."""
        changes = [
            (row, at, change)
            for row, (trail, asked) in enumerate(zip(self.trails, columns, strict=True))
            for at, column in enumerate(asked)
            if (change := trail.change(column)) is not None
        ]
        if not changes:
            return logits
        logits = logits.float().clone()
        rows = logits[:, None] if logits.dim() == 2 else logits
        for row, at, change in changes:
            _take(rows[row, at], change)
        return logits

    def each(self, tokens: Tensor) -> Iterator[Tensor] | None:
        rows = self.session.each(tokens)
        return None if rows is None else self._each(rows, self._read(tokens))

    def _each(self, rows: Iterator[Tensor], columns: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        for at, logits in enumerate(rows):
            yield self._changed(logits, [[asked[at]] for asked in columns])

    def rewind(self, lengths: Tensor) -> None:
        self.session.rewind(lengths)
        for trail, length in zip(self.trails, lengths.tolist(), strict=True):
            del trail.columns[length:]

    def keep(self, rows: Sequence[int]) -> None:
        self.session.keep(rows)
        self.prompts = [self.prompts[row] for row in rows]
        self.trails = [self.trails[row] for row in rows]

    def branch(self, tokens: Tensor, seen: Tensor) -> Tensor:
        return self.branched(tokens, seen, self.session.branch(tokens, seen))

    def branched(self, tokens: Tensor, seen: Tensor, logits: Tensor) -> Tensor:
        """The rows (rows, n, V) after a tree's tokens (rows, n), of the LLM's."""
        columns = []
        for trail, new, masks in zip(self.trails, tokens.tolist(), seen.tolist(), strict=True):
            first = len(trail.columns)
            for column, (token, mask) in enumerate(zip(new, masks, strict=True), start=first):
                trail.read(token, max((at for at in range(column) if mask[at]), default=-1))
            columns.append([*range(first, first + len(new))])
        return self._changed(logits, columns)

    def select(self, columns: Tensor) -> None:
        self.session.select(columns)
        for trail, kept in zip(self.trails, columns.tolist(), strict=True):
            trail.select(kept)

    def mark(self) -> Any:
        return self.session.mark(), [[*trail.columns] for trail in self.trails]

    def undo(self, mark: Any) -> None:
        inner, columns = mark
        self.session.undo(inner)
        for trail, before in zip(self.trails, columns, strict=True):
            trail.columns = [*before]


def _take(row: Tensor, change: Change) -> None:
    """Take a change's nats off a row (V,) of logits, in place; tokens beyond the row have none."""
    tokens = torch.from_numpy(change.tokens).to(row.device)
    row[tokens] -= torch.from_numpy(change.nats).to(row)


Rescore = Callable[["LogitSource", ScoredPrompt, Trail], ScoredPrompt]


def rescored(source: LogitSource, prompt: ScoredPrompt, trail: Trail) -> ScoredPrompt:
    """The prompt as the changed rows score it; the LLM reads it once more, from the first change on."""
    scored = len(prompt.logprobs)
    begin = len(prompt.tokens) - scored
    first = next(at for at, change in enumerate(trail.changes) if change is not None)
    start, found = begin + first, [*prompt.logprobs]
    session, row = source.open([prompt.tokens[:start]])
    with session:
        rest = torch.tensor([prompt.tokens[start:]])
        rows = torch.cat([row[:, None], session.extend(rest)], dim=1)[0].float().log_softmax(-1)
    for at in range(first, scored):
        change = trail.changes[at]
        if change is not None:
            said = rows[at - first, torch.from_numpy(change.tokens).to(rows.device)].exp().tolist()
            left = kept_mass(said, change.nats.tolist())
            found[at] -= _taken(change, prompt.tokens[begin + at]) + math.log(max(left, 1e-300))
    return prompt._replace(logprobs=tuple(found))


def rescored_at_most(source: LogitSource, prompt: ScoredPrompt, trail: Trail) -> ScoredPrompt:
    """The prompt scored as the changed rows may score it at most, where a server shows no whole row.

    The mass left of a row is at least exp(-nats) of the largest change. A policy that looks back takes the
    higher score for more that the LLM has given away.
    """
    begin = len(prompt.tokens) - len(prompt.logprobs)
    found = [
        logprob
        if change is None
        else min(logprob - _taken(change, prompt.tokens[at]) + float(change.nats.max()), 0.0)
        for at, (logprob, change) in enumerate(zip(prompt.logprobs, trail.changes, strict=True), start=begin)
    ]
    return prompt._replace(logprobs=tuple(found))


def _taken(change: Change, token: int) -> float:
    """The nats that a change takes off a token."""
    return float(change.nats[change.tokens == token].sum())
