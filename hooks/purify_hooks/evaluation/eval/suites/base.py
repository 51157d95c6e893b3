"""The base class of suites: one kind of measurement in one file, offered through `purify_suites`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from purify_hooks.evaluation.eval.statistics import Metric, Sample

if TYPE_CHECKING:
    from purify_hooks.evaluation.eval.attempt import Attack
    from purify_hooks.evaluation.eval.model_pair import ModelPair
    from purify_hooks.evaluation.eval.questions import Questions
    from purify_hooks.evaluation.eval.systems import System

Samples = Mapping[str, Sequence[Sample]]
"""Metric -> samples, one an item."""


@dataclass(frozen=True)
class SuiteSettings:
    """How thorough an evaluation is."""

    seed: int = 0
    draws: int = 2
    """Sampled answers to each attack."""
    tries: int = 8
    """Sampled answers to each question for personal data."""
    items: int | None = None
    """At most so many passages, contexts, people and texts; none: all."""
    brief: bool = False
    """Only each harm's main attack and the language metrics, for `purify demo`."""

    @classmethod
    def quick(cls, seed: int = 0) -> SuiteSettings:
        """Settings for a smoke test of seconds a system; the figures are no evidence."""
        return cls(seed, draws=1, tries=2, items=4)


@dataclass(frozen=True)
class Suite(ABC):
    """One kind of measurement, built from the questions and the settings.

    It returns samples, one an item, from which figures and intervals are computed. A metric that
    names a `harm` counts in every verdict, table and picture. Another class with these members works too.
    """

    questions: Questions
    settings: SuiteSettings

    title: ClassVar[str]
    metrics: ClassVar[Mapping[str, Metric]]
    modes: ClassVar[tuple[str, ...]] = ("greedy", "sampled")
    """Its parts, such as "greedy" and "sampled"; each is measured and cached separately."""

    @property
    def possible(self) -> bool:
        """Whether the questions have the part it needs."""
        return True

    @abstractmethod
    def measure(self, pair: ModelPair, system: System, mode: str) -> Samples:
        """Each metric's samples, of one system in one mode."""


def successes(attacks: Sequence[Attack], answers: Sequence[bytes]) -> list[Sample]:
    """One sample an attack: 1 where its answer has the secret, else 0."""
    return [Sample(float(one.succeeded(text))) for one, text in zip(attacks, answers, strict=True)]


def shares(items: Sequence[Sequence[float]]) -> list[Sample]:
    """One sample an item: the mean of its answers' values."""
    return [Sample(sum(values) / len(values)) for values in items]


def grouped(values: Sequence[float], count: int) -> list[list[float]]:
    """Values ordered by draw, then item, regrouped by item: `count` lists."""
    return [list(values[at::count]) for at in range(count)]
