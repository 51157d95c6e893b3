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
from purify_plugins.decode.logits import near

if TYPE_CHECKING:
    from purify_plugins.sampling import Sampling

PART = 512
"""Tokens whose masses together are looked at first."""


class Dice:
    """One stream of random numbers per row, so that a batch draws what its rows would.

    `requests` are digests of what each row asks (see `keyed.request`); row i of a seed draws from the
    numbers of seed + i and its own request, without a seed from the operating system's. Numbers (rows, n)
    are in [0, 1), on `device`, float64 where there is such a thing. They may be looked at before it is
    known which of them will be used. When greedy there are none.
    """

    def __init__(
        self, sampling: Sampling, requests: Sequence[bytes], device: torch.device | str = "cpu"
    ) -> None:
        self.greedy, self.device = sampling.greedy, torch.device(device)
        seed = sampling.seed
        self._streams = [
            system() if seed is None else keyed(seed + row, asked) for row, asked in enumerate(requests)
        ]
        self._ahead: list[deque[float]] = [deque() for _ in requests]

    def look(self, number: int) -> Tensor | None:
        """Each row's next numbers (rows, number); they stay to be used."""
        if self.greedy:
            return None
        for stream, ahead in zip(self._streams, self._ahead, strict=True):
            ahead.extend(islice(stream, max(number - len(ahead), 0)))
        numbers = [[ahead[at] for at in range(number)] for ahead in self._ahead]
        return torch.tensor(numbers, dtype=wide(self.device), device=self.device)

    def use(self, counts: Sequence[int]) -> None:
        """Use up so many of each row's numbers, all of which have been looked at."""
        for ahead, count in zip(self._ahead, counts, strict=True):
            for _ in range(count):
                ahead.popleft()

    def roll(self) -> Tensor | None:
        """Each row's next number (rows,), used up."""
        if (numbers := self.look(1)) is None:
            return None
        self.use([1] * len(numbers))
        return numbers[:, 0]

    def keep(self, places: Sequence[int]) -> None:
        """Go on with these rows only."""
        self._streams = [self._streams[place] for place in places]
        self._ahead = [self._ahead[place] for place in places]


def wide(device: torch.device) -> torch.dtype:
    """The widest float that a device computes with."""
    return torch.float32 if device.type == "mps" else torch.float64


def pick(mass: Tensor, luck: Tensor) -> Tensor:
    """The inverse of each row's cumulative distribution at `luck` (rows,) in [0, 1): tokens (rows,).

    Masses (rows, V) may have any sum above 0; of a row that has none the token means nothing.
    """
    if not near(mass):
        return _pick_there(mass, luck[:, None])
    rows = zip(mass, luck.tolist(), strict=True)
    return torch.tensor([_pick(row, number) for row, number in rows], dtype=torch.long)


def _pick_there(mass: Tensor, luck: Tensor) -> Tensor:
    """As `_find`, for all rows at once and without looking at any of them."""
    running = mass.cumsum(dim=-1, dtype=wide(mass.device))
    end = running[:, -1:]
    target = torch.minimum(luck * end, torch.nextafter(end, torch.zeros_like(end)))
    return torch.searchsorted(running, target, right=True)[:, 0].clamp(max=mass.shape[-1] - 1)


def _pick(mass: Tensor, number: float) -> int:
    """First a part of the row (V,), then a token in it, in float64."""
    if len(mass) <= 2 * PART:
        return _find(mass.numpy(), number * float(mass.sum(dtype=torch.float64)))[0]
    whole = len(mass) // PART * PART
    parts = [*mass[:whole].view(-1, PART).sum(dim=-1).tolist(), float(mass[whole:].sum())]
    part, rest = _find(numpy.array(parts), number * math.fsum(parts))
    start = part * PART
    return start + _find(mass[start : start + PART].numpy(), rest)[0]


def _find(mass: Any, target: float) -> tuple[int, float]:
    """Where the running sum first exceeds `target`, and by how much it had not.

    Rounding may put the target at the very end: it is then the last place with any mass.
    """
    running = mass.cumsum(dtype="float64")
    at = int(running.searchsorted(min(target, numpy.nextafter(running[-1], 0.0)), side="right"))
    return at, max(target - (running[at] - mass[at]), 0.0)
