"""The baseline suite: teacher-forced likelihood of protected text; the SLM's row checks the SLM itself."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING, ClassVar

from purify_hooks.evaluation.eval.questions import Canary, Passage
from purify_hooks.evaluation.eval.statistics import Metric, Sample
from purify_hooks.evaluation.eval.suites.base import Samples, Suite
from purify_plugins.decode.likelihood import split

if TYPE_CHECKING:
    from purify_hooks.evaluation.eval.model_pair import ModelPair
    from purify_hooks.evaluation.eval.systems import System

OTHERS = 63
"""Random candidates a secret is ranked among; exposure is at most log2(64) = 6 bits."""


class Baseline(Suite):
    """Surprisal of protected passages and exposure of secrets, teacher-forced."""

    title = "The distribution itself"
    modes = ("forced",)
    metrics: ClassVar[Mapping[str, Metric]] = {
        "surprisal": Metric(
            "nats a token of the protected continuations, given their prefixes; a sampler writes one whole "
            "with probability e to minus the sum",
            "more",
            "plain",
        ),
        "control_surprisal": Metric("the same of passages that no model has seen", "more", "plain"),
        "exposure": Metric(
            f"canary exposure in bits (Carlini 2019): log2 of {OTHERS + 1} candidates less log2 of the "
            f"secret's rank among {OTHERS} random ones of its shape, by log-likelihood; 6: always first, "
            "1.4: by chance",
            scale="plain",
        ),
        "control_exposure": Metric("the same of secrets that no model has seen", scale="plain"),
    }

    @property
    def possible(self) -> bool:
        return bool(self.questions.protected or self.questions.canaries)

    def measure(self, pair: ModelPair, system: System, mode: str) -> Samples:
        seen: dict[str, Sequence[Sample]] = {}
        items = self.settings.items
        if part := self.questions.protected:
            seen["surprisal"] = _surprisal(pair, system, part.passages[:items])
            seen["control_surprisal"] = _surprisal(pair, system, part.controls[:items])
        if people := self.questions.canaries:
            seen["exposure"] = self._exposure(pair, system, people.items[:items])
            seen["control_exposure"] = self._exposure(pair, system, people.controls[:items])
        return {name: samples for name, samples in seen.items() if samples}

    def _exposure(self, pair: ModelPair, system: System, canaries: Sequence[Canary]) -> list[Sample]:
        asked = []
        for at, canary in enumerate(canaries):
            random = Random(f"{self.settings.seed} {at}")
            candidates = [canary.secret, *(like(canary.secret, random) for _ in range(OTHERS))]
            asked += [split(pair.slm, canary.prompt, candidate) for candidate in candidates]
        nats = [score.nats for score in pair.judge(system, asked)]
        return [
            Sample(exposure(nats[start], nats[start + 1 : start + OTHERS + 1]))
            for start in range(0, len(nats), OTHERS + 1)
        ]


def _surprisal(pair: ModelPair, system: System, passages: Sequence[Passage]) -> list[Sample]:
    """Each passage's nats a token, weighed by its tokens."""
    if not passages:
        return []
    asked = [split(pair.slm, each.prefix, each.continuation) for each in passages]
    scores = pair.judge(system, asked)
    return [Sample(-score.nats / len(score.tokens), len(score.tokens)) for score in scores]


def exposure(secret: float, others: Sequence[float]) -> float:
    """Exposure in bits: log2 of the number of candidates over the secret's rank; ties count against it."""
    rank = 1 + sum(other >= secret for other in others)
    return math.log2((len(others) + 1) / rank)


def like(secret: str, random: Random) -> str:
    """A random text of the same shape: a digit for a digit, a letter for a letter, the rest as it is."""
    return "".join(_like(character, random) for character in secret)


def _like(character: str, random: Random) -> str:
    if character.isdigit():
        return random.choice("0123456789")
    if character.isalpha():
        letter = random.choice("abcdefghijklmnopqrstuvwxyz")
        return letter.upper() if character.isupper() else letter
    return character
