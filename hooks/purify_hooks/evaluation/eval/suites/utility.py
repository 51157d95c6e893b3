"""The utility suite: perplexity, multiple choice and tasks; `eval.speed` adds speed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from purify_hooks.evaluation.eval.attempt import Attack
from purify_hooks.evaluation.eval.model_pair import MODES, ModelPair
from purify_hooks.evaluation.eval.speed import ROUNDS
from purify_hooks.evaluation.eval.statistics import Metric, Sample
from purify_hooks.evaluation.eval.suites.base import Samples, Suite, successes
from purify_hooks.evaluation.eval.systems import System
from purify_plugins.decode.likelihood import Likelihood, read, split

BITS = 1.4426950408889634
"""Bits in a nat."""


class Utility(Suite):
    """Perplexity and accuracy of the fused distribution."""

    title = "Utility"
    modes = ("forced",)
    metrics: ClassVar[Mapping[str, Metric]] = {
        "perplexity": Metric(
            "e to the mean surprisal a token of held-out text, teacher-forced through the fused distribution "
            "and its memory as when sampling",
            scale="exponential",
            summary="perplexity",
        ),
        "bits_per_byte": Metric(
            "surprisal of the same text in bits, over its bytes: comparable across tokenizers", scale="plain"
        ),
        "accuracy": Metric("share of the same tokens that the fused row finds likeliest", "more"),
        "choices": Metric(
            "share of multiple-choice questions whose right choice has the highest log-likelihood a byte",
            "more",
        ),
        "tasks": Metric("share of tasks whose greedy answer begins with the right word", "more"),
        "tokens_per_second": Metric(
            "tokens a second, sampled, eight clean prompts together, certificates included; median and "
            f"quartiles of {ROUNDS} rounds in which all systems took turns",
            "more",
            "plain",
            summary="tokens_per_second",
        ),
        "slowdown": Metric(
            "time a token over the LLM's in the same rounds: its median and quartiles over the LLM's median; "
            "above 1 the system is slower than the LLM alone",
            scale="plain",
        ),
    }

    @property
    def possible(self) -> bool:
        return bool(self.questions.heldout)

    def measure(self, pair: ModelPair, system: System, mode: str) -> Samples:
        seen = language(pair, system, self.questions.heldout[: self.settings.items])
        if self.settings.brief:
            return seen
        return {
            **seen,
            "choices": self._choices(pair, system),
            "tasks": self._tasks(pair, system),
        }

    def _choices(self, pair: ModelPair, system: System) -> list[Sample]:
        asked = self.questions.choices[: self.settings.items]
        parted = [split(pair.slm, each.prompt, choice) for each in asked for choice in each.choices]
        scores = iter(pair.judge(system, parted))
        chosen = [_best(pair, [next(scores) for _ in each.choices]) for each in asked]
        return [Sample(float(place == each.answer)) for place, each in zip(chosen, asked, strict=True)]

    def _tasks(self, pair: ModelPair, system: System) -> list[Sample]:
        tasks = self.questions.tasks[: self.settings.items]
        attacks = [
            Attack("verbatim_recall", each.prompt, each.answer.encode(), 2 + len(read(pair.slm, each.answer)))
            for each in tasks
        ]
        answers = pair.attack(system, attacks, replace(MODES["greedy"], seed=self.settings.seed))
        return successes(attacks, answers)


def language(pair: ModelPair, system: System, texts: Sequence[str]) -> Samples:
    """Teacher-forced language metrics: perplexity, bits a byte, next-token accuracy."""
    runs = [run for run in (read(pair.slm, text) for text in texts) if len(run) > 1]
    scores = pair.judge(system, [(run[:1], run[1:]) for run in runs])
    return {
        "perplexity": [_weighed(-score.nats, len(score.tokens)) for score in scores],
        "bits_per_byte": [
            _weighed(-score.nats * BITS, len(pair.slm.vocabulary.spell(score.tokens))) for score in scores
        ],
        "accuracy": [_weighed(sum(score.leads), len(score.tokens)) for score in scores],
    }


def _weighed(total: float, count: int) -> Sample:
    return Sample(total / count, count)


def _best(pair: ModelPair, scores: Sequence[Likelihood]) -> int:
    """The index of the choice with the highest log-likelihood a byte."""
    each = [score.nats / len(pair.slm.vocabulary.spell(score.tokens)) for score in scores]
    return each.index(max(each))
