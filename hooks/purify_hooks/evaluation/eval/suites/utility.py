"""What does it cost? Language, choices and tasks; speed is timed in `eval.speed`, all systems in turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from purify_hooks.evaluation.eval.attempt import Attack
from purify_hooks.evaluation.eval.bench import MODES
from purify_hooks.evaluation.eval.questions import Questions
from purify_hooks.evaluation.eval.speed import ROUNDS
from purify_hooks.evaluation.eval.statistics import Metric, Sample
from purify_hooks.evaluation.eval.suites.base import Seen, Settings
from purify_plugins.decode.likelihood import Likelihood, read, split

if TYPE_CHECKING:
    from purify_hooks.evaluation.eval.bench import Bench
    from purify_hooks.evaluation.eval.systems import System

BITS = 1.4426950408889634
"""Bits in a nat."""


@dataclass(frozen=True)
class Utility:
    """Perplexity and accuracy of the law that draws answers."""

    questions: Questions
    settings: Settings

    title: ClassVar[str] = "Utility"
    modes: ClassVar[tuple[str, ...]] = ("forced",)
    metrics: ClassVar[Mapping[str, Metric]] = {
        "perplexity": Metric(
            "e to the mean surprisal a token of held-out text, teacher-forced through the fused law and its "
            "memory as when sampling",
            scale="exponential",
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

    def measure(self, bench: Bench, system: System, mode: str) -> Seen:
        return {
            **language(bench, system, self.questions.heldout[: self.settings.items]),
            "choices": self._choices(bench, system),
            "tasks": self._tasks(bench, system),
        }

    def _choices(self, bench: Bench, system: System) -> list[Sample]:
        asked = self.questions.choices[: self.settings.items]
        parted = [split(bench.slm, each.prompt, choice) for each in asked for choice in each.choices]
        scores = iter(bench.judge(system, [prompt for prompt, _ in parted], [answer for _, answer in parted]))
        chosen = [_best(bench, [next(scores) for _ in each.choices]) for each in asked]
        return [Sample(float(place == each.answer)) for place, each in zip(chosen, asked, strict=True)]

    def _tasks(self, bench: Bench, system: System) -> list[Sample]:
        tasks = self.questions.tasks[: self.settings.items]
        attacks = [
            Attack(
                "verbatim_recall", each.prompt, each.answer.encode(), 2 + len(read(bench.slm, each.answer))
            )
            for each in tasks
        ]
        answers = bench.attack(system, attacks, replace(MODES["greedy"], seed=self.settings.seed))
        return [Sample(float(one.succeeded(text))) for one, text in zip(attacks, answers, strict=True)]


def language(bench: Bench, system: System, texts: Sequence[str]) -> Seen:
    """How well a system foretells texts: perplexity, bits a byte, next-token accuracy."""
    runs = [run for run in (read(bench.slm, text) for text in texts) if len(run) > 1]
    scores = bench.judge(system, [run[:1] for run in runs], [run[1:] for run in runs])
    return {
        "perplexity": [_weighed(-score.nats, len(score.tokens)) for score in scores],
        "bits_per_byte": [
            _weighed(-score.nats * BITS, len(bench.slm.vocabulary.spell(score.tokens))) for score in scores
        ],
        "accuracy": [_weighed(sum(score.leads), len(score.tokens)) for score in scores],
    }


def _weighed(total: float, count: int) -> Sample:
    return Sample(total / count, count)


def _best(bench: Bench, scores: Sequence[Likelihood]) -> int:
    """The place of the likeliest choice, by the byte."""
    each = [score.nats / len(bench.slm.vocabulary.spell(score.tokens)) for score in scores]
    return each.index(max(each))
