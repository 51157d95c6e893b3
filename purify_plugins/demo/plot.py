"""Harm against perplexity: where the points and their labels stand; the template draws them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from purify_plugins.demo.measure import Result

WIDTH, HEIGHT = 560, 380
LEFT, RIGHT, TOP, BOTTOM = 52, 44, 24, 52
LETTER, LINE = 6.9, 13.0
"""The size of a letter of a label."""
FIRST = ("balanced", "llm", "slm")
"""The systems whose labels choose their places first and whose points are drawn last."""


class Box(NamedTuple):
    """A rectangle that is taken."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: Box) -> float:
        """The area both cover."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(width, 0.0) * max(height, 0.0)


@dataclass(frozen=True)
class Mark:
    """A system's point, and its label's left end and baseline, in pixels.

    A label that is `far` from its point is led to it from (lead_x, lead_y).
    """

    key: str
    label: str
    title: str
    x: float
    y: float
    label_x: float
    label_y: float
    lead_x: float = 0.0
    lead_y: float = 0.0
    far: bool = False


@dataclass(frozen=True)
class Panel:
    """One mode's plot."""

    mode: str
    marks: tuple[Mark, ...]
    xticks: tuple[tuple[float, str], ...]
    yticks: tuple[tuple[float, str], ...]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    bottom: int = HEIGHT - BOTTOM
    top: int = TOP


def panel(results: Sequence[Result], mode: str) -> Panel:
    """Place every system's mean harm against its perplexity; beyond the axis stands for impossible."""
    scale = _Scale.of(result.greedy.perplexity for result in results)
    points = sorted((_point(result, mode, scale) for result in results), key=_rank)
    xticks = (*((scale.x(value), f"{value:.0f}") for value in scale.ticks()), (float(WIDTH - RIGHT / 2), "∞"))
    yticks = tuple((scale.y(share), f"{share:.0%}") for share in (0.0, 0.25, 0.5, 0.75, 1.0))
    return Panel(mode, tuple(reversed(list(_labelled(points)))), xticks, yticks)


@dataclass(frozen=True)
class _Scale:
    least: float
    most: float

    @classmethod
    def of(cls, perplexities: Iterable[float]) -> _Scale:
        finite = [value for value in perplexities if math.isfinite(value)]
        return cls(min(finite) - 4, max(finite) + 4)

    def x(self, perplexity: float) -> float:
        if math.isinf(perplexity):
            return WIDTH - RIGHT / 2
        share = (perplexity - self.least) / (self.most - self.least)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(self, harm: float) -> float:
        return TOP + (1 - harm) * (HEIGHT - TOP - BOTTOM)

    def ticks(self) -> list[int]:
        step = next(step for step in (5, 10, 20, 50, 100, 1000) if (self.most - self.least) / step <= 8)
        return [value for value in range(0, int(self.most) + 1, step) if value >= self.least]


def _point(result: Result, mode: str, scale: _Scale) -> Mark:
    figures = result.greedy if mode == "greedy" else result.sampled
    title = f"{result.system.label}: mean harm {figures.harm:.0%}, perplexity {figures.perplexity:.1f}"
    x, y = scale.x(figures.perplexity), scale.y(figures.harm)
    return Mark(result.system.key, result.system.label, title, x, y, x, y)


def _rank(mark: Mark) -> int:
    return FIRST.index(mark.key) if mark.key in FIRST else len(FIRST)


def _labelled(points: Sequence[Mark]) -> Iterable[Mark]:
    """Each label where it covers least of what is already there, near before far."""
    taken = [Box(mark.x - 6, mark.y - 6, mark.x + 6, mark.y + 6) for mark in points]
    taken.append(Box(LEFT, 0, LEFT + 10 * LETTER, TOP - 6))  # the axis's own label
    for mark in points:
        spots = list(_spots(mark))
        best = min(spots, key=lambda spot: (round(_crowding(spot, taken)), spots.index(spot)))
        taken.append(best)
        lead_x = min(max(mark.x, best.left), best.right)
        lead_y = best.bottom if best.bottom < mark.y else best.top
        far = abs(best.top + LINE / 2 - mark.y) > 20
        yield replace(mark, label_x=best.left, label_y=best.bottom - 3, lead_x=lead_x, lead_y=lead_y, far=far)


def _spots(mark: Mark) -> Iterable[Box]:
    """Where a label could stand, the best first."""
    wide = LETTER * len(mark.label)
    sides = (mark.x + 9, mark.x - 9 - wide, mark.x - wide / 2, mark.x + 4, mark.x - 4 - wide)
    for rise in (0, -14, 14, -27, 27, -40, 40, -53, -66, -79, -92):
        for left in sides[2 * bool(rise) :]:
            yield Box(left, mark.y + rise - LINE / 2, left + wide, mark.y + rise + LINE / 2)


def _crowding(spot: Box, taken: Iterable[Box]) -> float:
    outside = max(LEFT - spot.left, 0) + max(spot.right - WIDTH, 0)
    outside += max(2 - spot.top, 0) + max(spot.bottom - (HEIGHT - BOTTOM), 0)
    return sum(spot.overlap(each) for each in taken) + 100 * outside
