"""The baseline suite: teacher-forced likelihood of protected text; the SLM's row checks the SLM itself."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING, ClassVar

from purify_hooks.evaluation.eval.attempt import forced
from purify_hooks.evaluation.eval.questions import Canary, Passage
from purify_hooks.evaluation.eval.statistics import Metric, Sample
from purify_hooks.evaluation.eval.suites.base import ForcedSuite, Items, Samples, Seen
from purify_plugins.decode.forced_text import ForcedText
from purify_plugins.decode.likelihood import forced as forced_text

if TYPE_CHECKING:
    from purify_hooks.evaluation.eval.model_pair import ModelPair

OTHERS = 31
"""Random candidates a secret is ranked among; exposure is at most log2(32) = 5 bits."""


class Baseline(ForcedSuite):
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
            f"secret's rank among {OTHERS} random ones of its shape, by log-likelihood; 5: always first, "
            "1.4: by chance",
            scale="plain",
        ),
        "control_exposure": Metric("the same of secrets that no model has seen", scale="plain"),
    }

    @property
    def possible(self) -> bool:
        return bool(self.questions.protected or self.questions.canaries)

    def asked(self, pair: ModelPair) -> Items:
        items, asked = self.settings.items, self.questions
        work, people = asked.protected, asked.canaries
        return {
            "surprisal": _passages(pair, work.passages[:items] if work else ()),
            "control_surprisal": _passages(pair, work.controls[:items] if work else ()),
            "exposure": self._candidates(pair, people.items[:items] if people else ()),
            "control_exposure": self._candidates(pair, people.controls[:items] if people else ()),
        }

    def found(self, seen: Seen) -> Samples:
        return {
            **{
                name: [
                    Sample(-score.nats / len(score.tokens), len(score.tokens)) for (score,) in seen.ours[name]
                ]
                for name in ("surprisal", "control_surprisal")
            },
            **{
                name: [
                    Sample(exposure(item[0].nats, [score.nats for score in item[1:]]))
                    for item in seen.ours[name]
                ]
                for name in ("exposure", "control_exposure")
            },
        }

    def _candidates(self, pair: ModelPair, canaries: Sequence[Canary]) -> list[list[ForcedText]]:
        """Each secret and then OTHERS of its shape, after its prompt."""
        found = []
        for at, canary in enumerate(canaries):
            random = Random(f"{self.settings.seed} {at}")
            candidates = [canary.secret, *(like(canary.secret, random) for _ in range(OTHERS))]
            found.append([forced(pair.slm, canary.prompt, candidate) for candidate in candidates])
        return found


def _passages(pair: ModelPair, passages: Sequence[Passage]) -> list[list[ForcedText]]:
    return [[forced_text(pair.slm, each.prefix, each.continuation)] for each in passages]


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
