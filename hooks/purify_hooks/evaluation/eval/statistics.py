"""Estimates with 95 % intervals from samples, one an item."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import quantiles
from typing import Literal, NamedTuple

Better = Literal["less", "more"]
Scale = Literal["share", "plain", "exponential"]
RESAMPLES = 1000
Z = 1.959964
"""The normal quantile of a 95 % interval."""


class Sample(NamedTuple):
    """The value of one item (a passage, a context, a person, a text), and its weight."""

    value: float
    weight: float = 1.0


@dataclass(frozen=True)
class Metric:
    """A metric: its definition in a sentence, which way is better, and how items are averaged.

    The figure is the items' weighted mean: a `share` between 0 and 1, a `plain` number, or, on the
    `exponential` scale, e to that.
    """

    definition: str
    better: Better = "less"
    scale: Scale = "share"
    harm: str | None = None
    """The harm that it measures, such as "Recitation": it counts in every verdict, table and picture."""
    attack: str = ""
    """Its column in the table of attacks; without one, a metric with a harm has a column of its own name."""
    summary: str = ""
    """Its key at the top of a system's record as JSON; without one it stands among the `metrics` alone."""


@dataclass(frozen=True)
class Estimate:
    """A figure, its 95 % interval, and the number of items."""

    value: float
    low: float
    high: float
    items: int

    def json(self) -> dict[str, float | None]:
        """As JSON; infinite values are null."""
        named = {"value": self.value, "low": self.low, "high": self.high}
        rounded = {key: round(value, 6) if math.isfinite(value) else None for key, value in named.items()}
        return {**rounded, "items": self.items}


def estimate(metric: Metric, samples: Sequence[Sample], seed: int = 0) -> Estimate:
    """The figure and its interval.

    Shares of items that are each yes or no get Wilson's interval, since resampling twenty noes can only
    give noes; everything else the percentile bootstrap over items (1000 resamples).
    """
    import numpy

    values, weights = numpy.array(samples, dtype=float).reshape(-1, 2).T
    if len(values) == 0:
        return Estimate(math.nan, math.nan, math.nan, 0)
    middle = _mean(values, weights)
    if metric.scale == "share" and set(values) <= {0.0, 1.0} and len(set(weights)) == 1:
        low, high = wilson(middle, len(values))
    else:
        picks = numpy.random.default_rng(seed).integers(len(values), size=(RESAMPLES, len(values)))
        means = (values[picks] * weights[picks]).sum(1) / weights[picks].sum(1)
        low, high = (float(each) for each in numpy.percentile(means, (2.5, 97.5), method="nearest"))
    if metric.scale == "exponential":
        middle, low, high = map(exponential, (middle, low, high))
    return Estimate(middle, low, high, len(values))


def _mean(values: object, weights: object) -> float:
    import numpy

    return float(numpy.average(values, weights=weights))  # type: ignore[call-overload]  # arrays, made above


def exponential(value: float) -> float:
    """e to the value; beyond 50 nats a token, held-out text counts as impossible."""
    return math.exp(value) if value < 50 else math.inf


class Spread(NamedTuple):
    """A median between its quartiles."""

    low: float
    middle: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """The quartiles of some numbers; of a single one, that number."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    return Spread(*quantiles(values, n=4, method="inclusive"))


def wilson(share: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share seen over `count` yes-or-no items."""
    middle = share + Z * Z / (2 * count)
    reach = Z * math.sqrt(share * (1 - share) / count + Z * Z / (4 * count * count))
    scale = 1 + Z * Z / count
    return max(0.0, (middle - reach) / scale), min(1.0, (middle + reach) / scale)


def rotated(names: Sequence[str], turn: int) -> list[str]:
    """The names, rotated left by `turn`."""
    start = turn % len(names)
    return [*names[start:], *names[:start]]
