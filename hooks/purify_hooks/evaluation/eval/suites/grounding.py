"""The suite of grounding: how well the scores of sentences tell grounded ones from others."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar

from purify_hooks.evaluation.eval.model_pair import ModelPair
from purify_hooks.evaluation.eval.statistics import Metric, Sample
from purify_hooks.evaluation.eval.suites.base import Samples
from purify_hooks.evaluation.eval.suites.protecting import ProtectionSuite, auroc
from purify_hooks.evaluation.eval.systems import System
from purify_hooks.stages.grounded import Grounded, GroundedCheck, GroundedScores
from purify_plugins.stages.request import Request

KEY = re.compile(r"(?<=[a-z,;] )[A-Z][a-z]+|\d+")
"""A name inside a sentence, or a number."""
LEAST = 4
"""Words of a sentence that is judged, at least."""


class Grounding(ProtectionSuite):
    """Held-out texts are cited; their sentences are judged without every fifth word, and others are judged.

    The others are sentences of another text, and their own with each name and number taken from another.
    """

    title = "Grounding"
    stages = ("grounded",)
    modes = ("greedy",)
    metrics: ClassVar[Mapping[str, Metric]] = {
        "auroc": Metric("AUROC of the score: sentences of the cited text against another's", better="more"),
        "auroc_changed": Metric(
            "AUROC: sentences of the cited text against the same ones with other names and numbers",
            better="more",
        ),
        "grounded": Metric("mean score of the cited text's sentences", better="more"),
        "others": Metric("mean score of another text's sentences"),
    }
    columns: ClassVar[Mapping[str, str]] = {
        "auroc": "AUROC, another text",
        "auroc_changed": "AUROC, names changed",
        "grounded": "its own sentences",
        "others": "another's sentences",
    }

    @property
    def possible(self) -> bool:
        return len(self.questions.heldout) > 1

    def measure(self, pair: ModelPair, system: System, mode: str) -> Samples:
        stage = self.stage(pair, system, Grounded)
        if stage is None:
            return {}
        texts = self.questions.heldout[: self.settings.items]
        scores: dict[str, list[float]] = {"own": [], "other": [], "kept": [], "changed": []}
        for at, text in enumerate(texts):
            another = texts[at - 1]
            own = [" ".join(_shortened(each)) for each in _sentences(text)]
            keys = KEY.findall(another)
            named = [(each, changed) for each in own if (changed := _swapped(each, keys)) != each]
            for name, judged in (
                ("own", own),
                ("other", _sentences(another)),
                ("kept", [each for each, _ in named]),
                ("changed", [each for _, each in named]),
            ):
                scores[name] += _scores(stage, text, judged)
        pairs = {"auroc": ("own", "other"), "auroc_changed": ("kept", "changed")}
        found = {
            name: [Sample(auroc(scores[high], scores[low]))]
            for name, (high, low) in pairs.items()
            if scores[high] and scores[low]
        }
        means = {"grounded": "own", "others": "other"}
        return {**found, **{name: [*map(Sample, scores[key])] for name, key in means.items() if scores[key]}}


def _scores(stage: Grounded, text: str, sentences: list[str]) -> list[float]:
    """The stage's scores of sentences, where they have one, if the text is cited."""
    [check] = stage.answer(Request(text, sources=(("text", text),))).checks
    assert isinstance(check, GroundedScores | GroundedCheck)
    return [score for each in sentences if (score := check.judge.score(each)) is not None]


def _sentences(text: str) -> list[str]:
    found = re.split(r"(?<=[.!?])\s+", text)
    return [each for each in found if len(each.split()) >= LEAST]


def _shortened(sentence: str) -> list[str]:
    """A sentence's words without every fifth."""
    return [word for at, word in enumerate(sentence.split(), 1) if at % 5]


def _swapped(sentence: str, keys: list[str]) -> str:
    """A sentence with other names and numbers, where there are some."""
    if not keys:
        return sentence
    others = iter(keys * (len(sentence) // len(keys) + 1))
    return KEY.sub(lambda _: next(others), sentence)
