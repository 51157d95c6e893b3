"""Every draw of the decoder branched over, so that an answer's probability is exact."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from torch import Tensor, tensor

from purify_plugins.decode.fusion import FusedLogits

NEVER = 1e-10
"""The chance of a draw whose branch is not taken: all of them together are less than rounding."""


@dataclass
class Branches:
    """Stands in for the random numbers: every run takes another way through the draws that there can be."""

    way: list[int] = field(default_factory=list)
    chances: list[list[tuple[int, float]]] = field(default_factory=list)

    def draw(self, rows: FusedLogits, _: Tensor | None) -> Tensor:
        return rows.ids(tensor([self.taken(row) for row in rows.mass]))

    def taken(self, mass: Tensor) -> int:
        likely = (mass.double() / mass.double().sum()).tolist()
        self.chances.append([(token, p) for token, p in enumerate(likely) if p > NEVER])
        if len(self.way) < len(self.chances):
            self.way.append(0)
        return self.chances[-1][self.way[len(self.chances) - 1]][0]

    def runs(self, run: Callable[[], Any]) -> Iterator[tuple[float, Any]]:
        """What each way comes to, and its probability."""
        while True:
            self.chances = []
            found = run()
            assert len(self.way) == len(self.chances)
            yield math.prod(chances[at][1] for chances, at in zip(self.chances, self.way, strict=True)), found
            while self.way and self.way[-1] == len(self.chances[len(self.way) - 1]) - 1:
                self.way.pop()
            if not self.way:
                return
            self.way[-1] += 1

    @contextmanager
    def taking_over(self) -> Iterator[None]:
        """Every draw in this block is a branch."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(FusedLogits, "draw", lambda rows, uniforms: self.draw(rows, uniforms))
            yield
