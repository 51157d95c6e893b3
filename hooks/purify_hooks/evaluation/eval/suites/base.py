"""The base classes of suites: one kind of measurement in one file, offered through `purify_suites`."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from purify_hooks.evaluation.eval.statistics import Metric, Sample
from purify_hooks.evaluation.eval.systems import ALONE
from purify_plugins.decode.forced_text import ForcedText, Likelihood

if TYPE_CHECKING:
    from purify_hooks.evaluation.eval.chains import Chain
    from purify_hooks.evaluation.eval.model_pair import ModelPair
    from purify_hooks.evaluation.eval.questions import Questions
    from purify_hooks.evaluation.eval.systems import System
    from purify_plugins.types import Vocabulary

Samples = Mapping[str, Sequence[Sample]]
"""Metric -> samples, one an item."""
Item = Sequence[ForcedText]
"""What one question forces: one text, or several."""
Items = Mapping[str, Sequence[Item]]
"""A suite's questions, in groups that it names."""
Scores = Mapping[str, Sequence[Sequence[Likelihood]]]
"""The likelihoods of `Items`, in the same order, under one system."""


@dataclass(frozen=True)
class SuiteSettings:
    """How thorough an evaluation is."""

    seed: int = 0
    draws: int = 2
    """Sampled answers to each prompt of suite `written`."""
    items: int | None = None
    """At most so many passages, contexts, people and texts; none: all."""
    brief: bool = False
    """Only each harm's main attack and the language metrics, for `purify demo`."""

    @classmethod
    def quick(cls, seed: int = 0) -> SuiteSettings:
        """Settings for a smoke test of seconds a system; the figures are no evidence."""
        return cls(seed, draws=1, items=4)


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
    """Its parts, such as "greedy" and "sampled"; each is cached separately."""
    asked_for: ClassVar[bool] = False
    """Whether it runs only where its name is given, because it takes long."""
    staged: ClassVar[bool] = False
    """Whether it asks for answers as readers get them: only such suites measure request stages, and they run
    wherever there are some."""

    @property
    def possible(self) -> bool:
        """Whether the questions have the part it needs."""
        return True

    def concerns(self, chain: Chain | None) -> bool:
        """Whether it measures systems with these request stages, or with none."""
        return chain is None or self.staged

    @abstractmethod
    def measure(self, pair: ModelPair, system: System, mode: str) -> Samples:
        """Each metric's samples, of one system in one mode."""


class ForcedSuite(Suite):
    """A suite that forces texts: both models read these once, and every system is run over the same rows.

    In mode "greedy" a text counts where greedy decoding writes it, in mode "sampled" by its exact probability
    at temperature 1: no answer is drawn.
    """

    @abstractmethod
    def asked(self, pair: ModelPair) -> Items:
        """What it forces."""

    @abstractmethod
    def found(self, seen: Seen) -> Samples:
        """Each metric's samples from a system's scores."""

    def measure(self, pair: ModelPair, system: System, mode: str) -> Samples:
        [by_mode] = self.measure_all(pair, [system])
        return by_mode[mode]

    def measure_all(self, pair: ModelPair, systems: Sequence[System]) -> list[dict[str, Samples]]:
        """Of each system the samples of each mode, from one reading."""
        items = self.asked(pair)
        return self.judged(pair, items, pair.scores((*ALONE, *systems), texts(items)))

    def judged(
        self, pair: ModelPair, items: Items, scores: Sequence[Sequence[Likelihood]]
    ) -> list[dict[str, Samples]]:
        """Of each system the samples of each mode, from the scores of the items' texts.

        `scores` are those of both models alone and of the systems, one for each of a text's.
        """
        llm, slm, *every = (regrouped(items, each) for each in zip(*scores, strict=True))
        vocabulary = pair.slm.vocabulary
        return [
            {mode: self._measured(Seen(mode, ours, llm, slm, vocabulary)) for mode in self.modes}
            for ours in every
        ]

    def _measured(self, seen: Seen) -> Samples:
        """The samples of the metrics that have some."""
        return {name: samples for name, samples in self.found(seen).items() if samples}


class Seen(NamedTuple):
    """What a suite makes its samples of: the mode, a system's scores, and those of both models alone."""

    mode: str
    ours: Scores
    llm: Scores
    slm: Scores
    vocabulary: Vocabulary


def texts(items: Items) -> list[ForcedText]:
    """Every text of the items, in order."""
    return [text for group in items.values() for item in group for text in item]


def regrouped(items: Items, scores: Sequence[Likelihood]) -> Scores:
    """Scores of `texts(items)` in the items' own order."""
    rest = iter(scores)
    return {name: [[next(rest) for _ in item] for item in group] for name, group in items.items()}


# What a text counts


def whole(item: Sequence[Likelihood], mode: str) -> float:
    """Whether, or with which probability, an answer is this text; of several texts, all of them."""
    if mode == "greedy":
        return float(all(score.greedy for score in item))
    return math.exp(math.fsum(score.nats for score in item))


def either(item: Sequence[Likelihood], mode: str) -> float:
    """Whether, or with which probability, an answer is one of these texts, which exclude each other."""
    if mode == "greedy":
        return float(any(score.greedy for score in item))
    return min(1.0, math.fsum(math.exp(score.nats) for score in item))


def run(score: Likelihood, mode: str) -> float:
    """How many tokens of this text an answer begins with; drawn, the expected number."""
    if mode == "greedy":
        return score.run
    return math.fsum(math.exp(nats) for nats in accumulate(score.logprobs))


def begun(item: Sequence[Likelihood], mode: str) -> float:
    """The share of a text that an answer begins with; of several texts, their mean."""
    return math.fsum(run(score, mode) / len(score.tokens) for score in item) / len(item)


def wholes(items: Sequence[Sequence[Likelihood]], mode: str) -> list[Sample]:
    """One sample an item: `whole`."""
    return [Sample(whole(item, mode)) for item in items]
