"""Random numbers, and the tokens that they draw."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy
import torch
from torch import Tensor

from purify_plugins.decode.draw_keys import keyed, system
from purify_plugins.decode.logits import on_cpu

if TYPE_CHECKING:
    from purify_plugins.sampling import Sampling

BLOCK = 512
"""Tokens whose masses are summed first: the token is then searched for in one block."""


class RandomStreams:
    """One stream of uniform numbers per row, so that a batch draws what its rows would.

    `requests` are digests of what each row asks (see `keyed.request`); row i of a seed draws from the
    numbers of seed + i (of `seeds`, where these are given) and its own request, without a seed from the
    operating system's. Numbers (rows, n)
    are in [0, 1), on `device`, float64 where the device has it. They may be peeked at before it is known
    which of them will be used. When greedy there are none. `marks`: tokens are drawn by races instead, see
    `MarkedStreams`.
    """

    marks = False

    def __init__(
        self,
        sampling: Sampling,
        requests: Sequence[bytes],
        device: torch.device | str = "cpu",
        seeds: Sequence[int | None] | None = None,
    ) -> None:
        self.greedy, self.device = sampling.greedy, torch.device(device)
        if seeds is None:
            seeds = [sampling.of_row(row).seed for row in range(len(requests))]
        pairs = zip(seeds, requests, strict=True)
        self._streams = [system() if seed is None else keyed(seed, asked) for seed, asked in pairs]
        self._peeked: list[deque[float]] = [deque() for _ in requests]

    def peek(self, number: int) -> Tensor | None:
        """Each row's next numbers (rows, number); they stay to be used."""
        if self.greedy:
            return None
        return torch.tensor(self.uniforms(number), dtype=widest(self.device), device=self.device)

    def uniforms(self, number: int) -> list[list[float]]:
        """`peek`, as lists."""
        for stream, peeked in zip(self._streams, self._peeked, strict=True):
            peeked.extend(islice(stream, max(number - len(peeked), 0)))
        return [[peeked[at] for at in range(number)] for peeked in self._peeked]

    def for_draft(self, drafted: Sequence[Tensor]) -> Tensor | None:
        """What draws each row's own draft after these drafted columns (rows, 1): its next number, used up."""
        return self.next()

    def for_column(self, peeked: Tensor | None, at: int, drafted: Sequence[Tensor]) -> Tensor | None:
        """What is `peeked` (rows, n) from position `at` of a draft on, after these drafted columns."""
        return None if peeked is None else peeked[:, at:]

    def marked(self, row: int, place: int) -> bool:
        """Whether the token at this place of the row was drawn by a watermark's numbers."""
        return False

    def consume(self, counts: Sequence[int]) -> None:
        """Use up so many of each row's numbers, all of which have been peeked at."""
        for peeked, count in zip(self._peeked, counts, strict=True):
            for _ in range(count):
                peeked.popleft()

    def next(self) -> Tensor | None:
        """Each row's next number (rows,), used up."""
        if self.greedy:
            return None
        pairs = zip(self._streams, self._peeked, strict=True)
        numbers = [peeked.popleft() if peeked else next(stream) for stream, peeked in pairs]
        return torch.tensor(numbers, dtype=widest(self.device), device=self.device)

    def select_rows(self, places: Sequence[int]) -> None:
        """Go on with these rows only."""
        self._streams = [self._streams[place] for place in places]
        self._peeked = [self._peeked[place] for place in places]


def widest(device: torch.device) -> torch.dtype:
    """The widest float that a device computes with."""
    return torch.float32 if device.type == "mps" else torch.float64


def first_of_race(mass: Tensor, race: Tensor) -> Tensor:
    """The token (rows,) that arrives first: the least race/mass, of exponential numbers `race` (rows, V)."""
    return (mass.to(race.dtype) / race).argmax(dim=-1)


def inverse_cdf(mass: Tensor, uniforms: Tensor) -> Tensor:
    """The inverse of each row's cumulative distribution at `uniforms` (rows,) in [0, 1): tokens (rows,).

    Masses (rows, V) may have any sum above 0; of a row that has none the token means nothing.
    """
    if not on_cpu(mass):
        return _inverse_on_device(mass, uniforms[:, None])
    found, whole = [], mass.shape[-1] // BLOCK * BLOCK
    for row, number in zip(mass, uniforms.tolist(), strict=True):
        start, part, target = 0, row, number
        if len(row) <= 2 * BLOCK:
            target *= float(row.sum(dtype=torch.float64))
        else:  # the block of the row first, then the token in it
            sums = [*row[:whole].view(-1, BLOCK).sum(dim=-1).tolist(), float(row[whole:].sum())]
            block, target = _search(numpy.array(sums), number * math.fsum(sums))
            start, part = block * BLOCK, row[block * BLOCK :][:BLOCK]
        found.append(start + _search(part.numpy(), target)[0])
    return torch.tensor(found, dtype=torch.long)


def _inverse_on_device(mass: Tensor, uniforms: Tensor) -> Tensor:
    """As `_search`, for all rows at once and without device synchronisation."""
    running = mass.cumsum(dim=-1, dtype=widest(mass.device))
    end = running[:, -1:]
    target = torch.minimum(uniforms * end, torch.nextafter(end, torch.zeros_like(end)))
    return torch.searchsorted(running, target, right=True)[:, 0].clamp(max=mass.shape[-1] - 1)


def _search(mass: Any, target: float) -> tuple[int, float]:
    """Where the running sum first exceeds `target`, and by how much the sum before it falls short.

    Rounding may put the target at the very end: it is then the last place with any mass.
    """
    running = mass.cumsum(dtype="float64")
    at = int(running.searchsorted(min(target, numpy.nextafter(running[-1], 0.0)), side="right"))
    return at, max(target - (running[at] - mass[at]), 0.0)
