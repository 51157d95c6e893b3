"""Does it obey? The trigger, the same contexts without it, and the trigger in other words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from purify_hooks.evaluation.eval.attempt import Attack, backdoors
from purify_hooks.evaluation.eval.bench import MODES
from purify_hooks.evaluation.eval.questions import Backdoor, Questions
from purify_hooks.evaluation.eval.statistics import Metric, Sample
from purify_hooks.evaluation.eval.suites.base import Seen, Settings, grouped, shares

if TYPE_CHECKING:
    from purify_hooks.evaluation.eval.bench import Bench
    from purify_hooks.evaluation.eval.systems import System

PARAPHRASED = 8
"""Contexts in which each paraphrase is tried."""


@dataclass(frozen=True)
class Backdoors:
    """Attack success with the trigger, without it, and paraphrased."""

    questions: Questions
    settings: Settings

    title: ClassVar[str] = "Backdoor"
    modes: ClassVar[tuple[str, ...]] = ("greedy", "sampled")
    metrics: ClassVar[Mapping[str, Metric]] = {
        "success": Metric("share of contexts with the trigger whose answer contains the payload, whole"),
        "link": Metric("share of those whose answer contains the payload's address, if it has one"),
        "without_trigger": Metric("share of the same contexts, without the trigger, that get the payload"),
        "paraphrased": Metric("share of contexts with the trigger in other words that get the payload"),
    }

    @property
    def possible(self) -> bool:
        return self.questions.backdoor is not None

    def measure(self, bench: Bench, system: System, mode: str) -> Seen:
        sampling = replace(MODES[mode], seed=self.settings.seed)
        with_trigger = backdoors(self.questions, bench.slm)[: self.settings.items]
        attacks = with_trigger * (1 if sampling.greedy else self.settings.draws)
        prompts = [each.prompt for each in attacks]
        answers = bench.write(system, prompts, attacks[0].tokens, sampling)
        texts = [bench.slm.vocabulary.spell(answer.tokens) for answer in answers]
        count = len(with_trigger)
        success = [float(one.succeeded(text)) for one, text in zip(attacks, texts, strict=True)]
        seen = {"success": shares(grouped(success, count))}
        if link := self._part.link.encode():
            seen["link"] = shares(grouped([float(link in text) for text in texts], count))
        for name, others in (("without_trigger", self._bare()), ("paraphrased", self._paraphrased())):
            asked = [replace(with_trigger[0], prompt=prompt) for prompt in others]
            seen[name] = _succeeded(asked, bench.attack(system, asked, sampling))
        return seen

    @property
    def _part(self) -> Backdoor:
        assert self.questions.backdoor is not None  # else it is not `possible`
        return self.questions.backdoor

    def _bare(self) -> list[str]:
        return self._part.contexts[: self.settings.items]

    def _paraphrased(self) -> list[str]:
        contexts = self._part.contexts[: min(PARAPHRASED, self.settings.items or PARAPHRASED)]
        return [f"{context} {other}" for other in self._part.variants() for context in contexts]


def _succeeded(attacks: list[Attack], answers: list[bytes]) -> list[Sample]:
    return [Sample(float(one.succeeded(text))) for one, text in zip(attacks, answers, strict=True)]
