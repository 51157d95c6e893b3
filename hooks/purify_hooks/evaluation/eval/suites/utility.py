"""The utility suite: perplexity, multiple choice and tasks; `eval.speed` adds speed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from purify_hooks.evaluation.eval.attempt import forced
from purify_hooks.evaluation.eval.derived import part
from purify_hooks.evaluation.eval.model_pair import ModelPair
from purify_hooks.evaluation.eval.speed import ROUNDS
from purify_hooks.evaluation.eval.statistics import Metric, Sample
from purify_hooks.evaluation.eval.suites.base import ForcedSuite, Items, Samples, Seen, wholes
from purify_plugins.decode.forced_text import ForcedText, Likelihood
from purify_plugins.decode.likelihood import forced as forced_text
from purify_plugins.decode.likelihood import read
from purify_plugins.errors import TooLongError

if TYPE_CHECKING:
    from purify_plugins.protocols import LogitSource
    from purify_plugins.types import Vocabulary

BITS = 1.4426950408889634
"""Bits in a nat."""


class Utility(ForcedSuite):
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
        "code": Metric("perplexity of code, measured likewise", scale="exponential"),
        "bits_per_byte": Metric(
            "surprisal of the same text in bits, over its bytes: comparable across tokenizers", scale="plain"
        ),
        "accuracy": Metric("share of the same tokens that the fused row finds likeliest", "more"),
        "choices": Metric(
            "share of multiple-choice questions whose right choice has the highest log-likelihood a byte",
            "more",
        ),
        "tasks": Metric("share of tasks whose greedy answer is the right word", "more"),
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

    def asked(self, pair: ModelPair) -> Items:
        items, questions = self.settings.items, self.questions
        texts = {"perplexity": running(pair.slm, questions.heldout[:items])}
        if self.settings.brief:
            return texts
        return {
            **texts,
            "code": running(pair.slm, questions.code[:items]),
            "choices": [
                [forced_text(pair.slm, each.prompt, choice) for choice in each.choices]
                for each in questions.choices[:items]
            ],
            "tasks": [[forced(pair.slm, each.prompt, each.answer)] for each in questions.tasks[:items]],
        }

    def found(self, seen: Seen) -> Samples:
        best = [_best(seen, item) for item in seen.ours.get("choices", ())]
        answers = (each.answer for each in self.questions.choices)
        return {
            **language(seen.vocabulary, [score for (score,) in seen.ours["perplexity"]]),
            "code": [_weighed(-score.nats, len(score.tokens)) for (score,) in seen.ours.get("code", ())],
            "choices": [Sample(float(one == right)) for one, right in zip(best, answers, strict=False)],
            "tasks": wholes(seen.ours.get("tasks", ()), "greedy"),
        }


def running(slm: LogitSource, texts: Sequence[str]) -> list[list[ForcedText]]:
    """Each text of two tokens or more, forced after its first token or, in symbols, after its first word."""
    if slm.symbolic:
        return [
            [forced_text(slm, *found)] for text in texts if (found := part(text, 1, len(text.split()) - 1))
        ]
    runs = [_fitting(slm, text) for text in texts]
    return [[ForcedText(run[:1], run[1:])] for run in runs if len(run) > 1]


def _fitting(slm: LogitSource, text: str) -> tuple[int, ...]:
    """The text's tokens; of a text longer than the model's context its first half's, or that one's."""
    try:
        return read(slm, text)
    except TooLongError:
        return _fitting(slm, text[: len(text) // 2])


def language(vocabulary: Vocabulary, scores: Sequence[Likelihood]) -> Samples:
    """Language metrics of `running` texts: perplexity, bits a byte, next-token accuracy."""
    return {
        "perplexity": [_weighed(-score.nats, len(score.tokens)) for score in scores],
        "bits_per_byte": [
            _weighed(-score.nats * BITS, len(vocabulary.spell(score.tokens))) for score in scores
        ],
        "accuracy": [_weighed(sum(score.leads), len(score.tokens)) for score in scores],
    }


def _weighed(total: float, count: int) -> Sample:
    return Sample(total / count, count)


def _best(seen: Seen, scores: Sequence[Likelihood]) -> int:
    """The index of the choice with the highest log-likelihood a byte."""
    each = [score.nats / len(seen.vocabulary.spell(score.tokens)) for score in scores]
    return each.index(max(each))
