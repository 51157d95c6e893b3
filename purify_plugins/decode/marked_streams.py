"""The random numbers of marked answers: one race a place, keyed by a watermark where its context is new."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from purify_plugins.decode.random_streams import RandomStreams, widest
from purify_plugins.decode.watermark import race

if TYPE_CHECKING:
    from purify_plugins.decode.watermark import Watermark
    from purify_plugins.sampling import Sampling

Context = tuple[int, ...]


class MarkedStreams(RandomStreams):
    """Exponential numbers (rows, V) for each place of each row, from the watermark or from the row's stream.

    A place is *marked* where at least `context` tokens of the answer come before it, and these stand neither
    before another place of the answer nor anywhere in the prompt: whatever the models have read, they have
    not read a draw of this race. Elsewhere the race is keyed by the row's own number of that place. A draft
    and the token that is drawn in its place take part in one race, so a drafted token is accepted if it is
    the one drawn, and an answer does not depend on the decoding strategy.
    `answers` grow as tokens are drawn; `read` are the prompts of each row, as both models read them.
    """

    marks = True

    def __init__(
        self,
        sampling: Sampling,
        requests: Sequence[bytes],
        device: torch.device | str = "cpu",
        seeds: Sequence[int | None] | None = None,
        *,
        watermark: Watermark,
        size: int,
        answers: Sequence[Sequence[int]],
        read: Sequence[Collection[Sequence[int]]],
    ) -> None:
        super().__init__(sampling, requests, device, seeds)
        self.watermark, self.size = watermark, size
        self._rows = [
            MarkedRow(watermark.context, answer, prompts)
            for answer, prompts in zip(answers, read, strict=True)
        ]
        self._races: dict[int, Tensor] = {}  # of this cycle: drafting and verifying ask for the same ones

    def next(self) -> Tensor | None:
        """Each row's race (rows, V) at its next place, whose number is used up."""
        found = self.for_draft(())
        if found is not None:
            self.consume([1] * len(self._rows))
        return found

    def for_draft(self, drafted: Sequence[Tensor]) -> Tensor | None:
        """Each row's race (rows, V) after these drafted columns (rows, 1); nothing is used up."""
        if self.greedy:
            return None
        numbers = self.uniforms(len(drafted) + 1)
        new = torch.cat(list(drafted), dim=1).tolist() if drafted else [()] * len(numbers)
        pairs = zip(self._rows, new, numbers, strict=True)
        return torch.stack([self._race(self._seed(*each[:2], each[2][-1])) for each in pairs])

    def for_column(self, peeked: Tensor | None, at: int, drafted: Sequence[Tensor]) -> Tensor | None:
        found = self.for_draft(drafted)
        return None if found is None else found[:, None]

    def marked(self, row: int, place: int) -> bool:
        """Whether the race at this place of the row, one of those left, was keyed by the watermark."""
        return self._rows[row].marked.get(place, False)

    def consume(self, counts: Sequence[int]) -> None:
        super().consume(counts)
        self._races.clear()

    def select_rows(self, places: Sequence[int]) -> None:
        super().select_rows(places)
        self._rows = [self._rows[place] for place in places]

    def _seed(self, row: MarkedRow, new: Sequence[int], number: float) -> int:
        context = row.context_after(new)
        return int(number * 2**53) if context is None else self.watermark.seed(context)

    def _race(self, seed: int) -> Tensor:
        if (found := self._races.get(seed)) is None:
            found = torch.from_numpy(race(seed, self.size)).to(widest(self.device)).to(self.device)
            self._races[seed] = found
        return found


class MarkedRow:
    """One row's answer, the contexts that it may not use again, and which of its places are marked."""

    def __init__(self, length: int, answer: Sequence[int], prompts: Collection[Sequence[int]]) -> None:
        self.length, self.answer = length, answer
        self.marked: dict[int, bool] = {}
        self._seen = {context for prompt in prompts for context in _contexts(prompt, length)}
        self._until = length  # the first place of the answer whose context is not among those seen

    def context_after(self, new: Sequence[int]) -> Context | None:
        """The context that keys the place after the answer and these drafted tokens; None: nothing does."""
        n, answer = self.length, self.answer
        while self._until < len(answer):
            self._seen.add(tuple(answer[self._until - n : self._until]))
            self._until += 1
        place, tail = len(answer) + len(new), [*answer[-(n + len(new)) :], *new]
        context = tuple(tail[-n:])
        # Those before the drafted places count as well; the last of `tail` is this place's own.
        before = [tuple(tail[at : at + n]) for at in range(len(tail) - n)] if new else []
        keyed = place >= n and context not in self._seen and context not in before
        self.marked[place] = keyed
        return context if keyed else None


def _contexts(tokens: Sequence[int], length: int) -> list[Context]:
    return [tuple(tokens[at : at + length]) for at in range(len(tokens) - length + 1)]
