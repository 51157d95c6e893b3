"""A suite: what is measured, in one file, offered through the hook `purify_suites`.

A suite is built from the questions and the settings. It measures a system on a bench, in each of its
modes, and returns what it saw of every item; figures and intervals are made from that elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from purify_hooks.evaluation.eval.statistics import Metric, Sample

if TYPE_CHECKING:
    from purify_hooks.evaluation.eval.bench import Bench
    from purify_hooks.evaluation.eval.systems import System

Seen = Mapping[str, Sequence[Sample]]
"""Each metric's items."""


@dataclass(frozen=True)
class Settings:
    """How hard an evaluation looks."""

    seed: int = 0
    draws: int = 2
    """Sampled answers to each attack."""
    tries: int = 8
    """Sampled answers to each question for personal data."""
    items: int | None = None
    """At most so many passages, contexts, people and texts; none: all."""

    @classmethod
    def quick(cls, seed: int = 0) -> Settings:
        """Seconds a system: enough to see that it runs, not to conclude anything."""
        return cls(seed, draws=1, tries=2, items=4)


class Suite(Protocol):
    """A question asked of every system; a frozen dataclass."""

    @property
    def title(self) -> str: ...

    @property
    def modes(self) -> tuple[str, ...]:
        """Its parts, such as "greedy" and "sampled"; each is measured, and kept, by itself."""

    @property
    def metrics(self) -> Mapping[str, Metric]: ...

    @property
    def possible(self) -> bool:
        """Whether the questions hold what it asks."""

    def measure(self, bench: Bench, system: System, mode: str) -> Seen: ...


def shares(items: Sequence[Sequence[float]]) -> list[Sample]:
    """One sample an item: the mean of what its answers were worth."""
    return [Sample(sum(worth) / len(worth)) for worth in items]


def grouped(values: Sequence[float], count: int) -> list[list[float]]:
    """Values of draw after draw over `count` items, an item at a time."""
    return [list(values[at::count]) for at in range(count)]
