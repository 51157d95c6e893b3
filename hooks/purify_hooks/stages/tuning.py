"""`purify tune --stage cascade`: fit a calibration to answers of the SLM alone, and choose `sure` by it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy

from purify_hooks.stages.confidence import FEATURES, ConfidenceCalibration, Numbers, features, fit, slm_digest
from purify_hooks.stages.wording import normalised
from purify_plugins.errors import ConfigError
from purify_plugins.stages.request import Request
from purify_plugins.stages.stage import Stage
from purify_plugins.types import Token, Unanswered
from purify_plugins.utils.files import read_text

if TYPE_CHECKING:
    from purify_plugins.purifier import Purifier

FOLDS = 5
"""The parts of the answers, each judged by a calibration that was fitted to the others."""
LEAST = 10
"""The least number of answers of each kind, good and not."""


@dataclass(frozen=True)
class SlmAlone(Stage):
    """The SLM answers every request alone."""

    @property
    def choices(self) -> int:
        return 1

    def answer(self, request: Request) -> Request:
        return request.alone()


@dataclass(frozen=True)
class Example:
    """An answer of the SLM alone: its features, whether it is good, and the digest of the SLM."""

    features: Mapping[str, float]
    good: bool
    slm: str = ""


@dataclass(frozen=True)
class Question:
    """A prompt and the answers that are right."""

    prompt: str
    right: tuple[str, ...]

    def good(self, text: str) -> bool:
        """Whether an answer holds one of the right ones, in any case and punctuation, as whole words."""
        return any(f" {normalised(each)} " in f" {normalised(text)} " for each in self.right)


def read_examples(path: Path, after: int) -> tuple[list[Question], list[Example]]:
    """The questions and the logged answers of a JSON Lines file. Raises ConfigError, naming the line.

    A line is `{"prompt": …, "answer": …}`, the answer a text or a list of right ones, or
    `{"certificate": …, "good": true}`, the certificate an object or its text.
    """
    questions, examples = list[Question](), list[Example]()
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            found: dict[str, Any] = json.loads(line)
            if "certificate" in found:
                examples.append(logged(found["certificate"], found["good"], after))
            else:
                questions.append(_question(**found))
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise ConfigError(
                f'{path}, line {number}: a line is {{"prompt": "…", "answer": "…"}}, or '
                f'{{"certificate": …, "good": true}} of an answer by the SLM alone ({error})'
            ) from error
    return questions, examples


def _question(prompt: str, answer: str | list[str]) -> Question:
    right = (answer,) if isinstance(answer, str) else tuple(answer)
    if not isinstance(prompt, str) or not right or not all(normalised(each) for each in right):
        raise ValueError("the prompt and each answer must be a text with words in it")
    return Question(prompt, right)


def logged(certificate: Any, good: Any, after: int) -> Example:
    """A logged answer of the SLM alone, from its certificate; with stages the draft that it released.

    Raises ValueError where the LLM had a part in it.
    """
    body = json.loads(certificate) if isinstance(certificate, str) else certificate
    if "drafts" in body:
        body = next(each for each in body["drafts"] if each["role"] == "released")["certificate"]
    if type(good) is not bool:
        raise ValueError('"good" must be true or false')
    place = {name: at for at, name in enumerate(body["columns"])}
    rows = body["steps"][: after or None]
    if not rows or not all(row[place["slm_only"]] for row in rows):
        raise ValueError("the LLM had a part in this answer, or it is empty")
    figures = [float(row[place["slm"]]) for row in rows]
    steps = [Token(0, None, each, each, 0.0, 0.0) for each in figures]
    return Example(features(steps), good, slm_digest(body["models"]["slm"]))


def asked(purifier: Purifier, questions: Sequence[Question], after: int) -> list[Example]:
    """The SLM's own answers to the questions; those that it cannot read are left out."""
    alone = purifier.replace(stages=[SlmAlone()])
    slm = slm_digest(purifier.slm.identity())
    outcomes = alone.generate([each.prompt for each in questions]) if questions else []
    return [
        Example(features(outcome.steps[: after or None]), question.good(outcome.text), slm)
        for question, outcome in zip(questions, outcomes, strict=True)
        if not isinstance(outcome, Unanswered) and outcome.steps
    ]


@dataclass(frozen=True)
class TunedCascade:
    """A calibration, the `sure` that has the wanted recall, and what both do to answers not fitted to.

    `recall` is the share of the answers that are not good which are asked of the fused model, `escalated`
    that of all answers. `error` is the expected calibration error, `uncalibrated` that of the geometric mean.
    """

    calibration: ConfidenceCalibration
    sure: float
    answers: int
    good: float
    recall: float
    escalated: float
    error: float
    uncalibrated: float

    @property
    def facts(self) -> dict[str, float]:
        """Its figures, for JSON."""
        names = ("sure", "answers", "good", "recall", "escalated", "error", "uncalibrated")
        return {name: round(vars(self)[name], 4) for name in names}


def tuned(examples: Sequence[Example], recall: float, after: int = 0) -> TunedCascade:
    """Fit a calibration, and the least `sure` with this recall.

    Both the recall and the errors are of answers judged by a calibration that was fitted to others. Raises
    ConfigError where there are too few good answers, or too few others.
    """
    good = numpy.array([float(each.good) for each in examples])
    if min(good.sum(), (1 - good).sum()) < LEAST:
        raise ConfigError(
            f"{int(good.sum())} of {len(good)} answers are good; a calibration needs {LEAST} that are and "
            f"{LEAST} that are not: give more questions, or others"
        )
    if len(models := {each.slm for each in examples}) > 1:
        raise ConfigError(f"the answers are of {len(models)} SLMs; a calibration is of one")
    names = [name for name in FEATURES if all(name in each.features for each in examples)]
    rows = numpy.array([[each.features[name] for name in names] for each in examples])
    chances = _held_out(names, rows, good)
    bad = numpy.sort(chances[good == 0])
    # `sure` is the least confidence that is released: just above the last answer that must be escalated.
    sure = min(math.nextafter(bad[math.ceil(recall * len(bad)) - 1], 2), 1.0)
    sure = math.ceil(sure * 1e4) / 1e4
    escalated = chances < sure
    return TunedCascade(
        *(fit(names, rows, good, after, examples[0].slm), sure, len(good), float(good.mean())),
        *(float(escalated[good == 0].mean()), float(escalated.mean())),
        *(calibration_error(chances, good), calibration_error(numpy.exp(rows[:, 0]), good)),
    )


def _held_out(names: Sequence[str], rows: Numbers, good: Numbers) -> Numbers:
    """P(good) of each answer by a calibration that was fitted without its fold."""
    fold = numpy.random.default_rng(0).permutation(len(rows)) % FOLDS
    chances = numpy.zeros(len(rows))
    for at in range(FOLDS):
        others = fold != at
        chances[~others] = fit(names, rows[others], good[others]).chances_of(rows[~others])
    return chances


def calibration_error(chances: Numbers, good: Numbers, bins: int = 10) -> float:
    """The expected calibration error: |mean chance - share that is good| of equal bins, by their sizes."""
    place = numpy.minimum((chances * bins).astype(int), bins - 1)
    gaps = [abs((chances - good)[place == at].sum()) for at in range(bins)]
    return float(sum(gaps) / len(chances))
