"""`grounded`: the answer's sentences are compared with the texts that the prompt cites."""

from __future__ import annotations

import re
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

from purify_hooks.stages.grounding import Sources, surprise
from purify_hooks.stages.wording import require, whole
from purify_plugins.errors import ConfigError, RefusedError
from purify_plugins.stages.checks import Blocked, Check
from purify_plugins.stages.request import Request
from purify_plugins.stages.stage import Stage
from purify_plugins.utils.sequences import leading

if TYPE_CHECKING:
    from purify_plugins.protocols import LogitSource
    from purify_plugins.types import Completion

ENDING = re.compile(r"(?:(?<!\b[A-Z])(?<!\bMr)(?<!\bMrs)(?<!\bDr)\.|[!?…])[\"'”’)\]]*\s|\n")
"""Where a sentence ends, with the white space after it; not after initials and titles."""


class Entailment(Protocol):
    """How sure it is that a sentence follows from each of some texts."""

    def entailed(self, premises: tuple[str, ...], sentence: str) -> float:
        """The largest probability over the premises, from 0 to 1."""


@dataclass(frozen=True)
class Grounded(Stage):
    """Score each sentence of an answer by the texts that its prompt cites; refuse ungrounded ones if told to.

    A sentence's score, from 0 to 1, is the share of its words that one cited passage has, times the share of
    its numbers and names; with `nli`, the directory of a transformers classifier of pairs of texts, its
    largest probability of `label` over the passages. Certificates have the scores, their mean and least, and
    the `surprise`: by how many nats a token the LLM expected the words that no cited text has more than the
    SLM did (null where its figures are not known; see `explain`). With `block` no sentence below `least` is
    released, and a request that cites nothing is refused, both by the `key`; a sentence longer than `window`
    characters is judged in parts, and after a block the SLM alone writes the span again, at most `redo`
    times.
    """

    block: bool = False
    least: float = 0.5
    nli: str = ""
    label: str = "entailment"
    window: int = 600
    redo: int = 0
    key: str = "ungrounded"
    paths: ClassVar[tuple[str, ...]] = ("nli",)

    def __post_init__(self) -> None:
        require("grounded", "block", self.block, isinstance(self.block, bool), "true or false")
        fine = type(self.least) in (int, float) and 0 <= self.least <= 1
        require("grounded", "least", self.least, fine, "a number from 0 to 1")
        require("grounded", "window", self.window, whole(self.window, 1), "a number of characters, 1 or more")
        require("grounded", "redo", self.redo, whole(self.redo, 0), "a number of times, 0 or more")
        require("grounded", "key", self.key, isinstance(self.key, str) and bool(self.key), "a name")
        require("grounded", "nli", self.nli, isinstance(self.nli, str), "a classifier's directory")
        if self.redo and not self.block:
            raise ConfigError("stage 'grounded': redo is for block = true; nothing else is written again")
        if self.nli:
            from purify_hooks.stages.classifiers.sequence import check_classifier

            check_classifier(Path(self.nli), self.label, "grounded")

    def bind(self, slm: LogitSource) -> Self:
        """The stage with its classifier loaded."""
        _ = self._entailment
        return self

    @cached_property
    def _entailment(self) -> Entailment | None:
        if not self.nli:
            return None
        from purify_hooks.stages.classifiers.pairs import PairClassifier

        return PairClassifier.load(Path(self.nli), self.label)

    @property
    def holds_back(self) -> float:
        return self.window if self.block else 0

    def answer(self, request: Request) -> Request:
        texts = tuple(text for _, text in request.sources if text.strip())
        if self.block and not texts:
            raise RefusedError("this request cites no text to ground its answer in", key=self.key)
        judge = SentenceJudge(Sources(texts), self._entailment)
        if self.block:
            return request.checked(GroundedCheck(judge, self.least, self.window, self.key, self.redo))
        return request.checked(GroundedScores(judge, self.window))

    def public(self) -> Mapping[str, Any]:
        found = dict(super().public())
        if not self.nli:
            return {name: value for name, value in found.items() if name not in ("nli", "label")}
        from purify_hooks.stages.classifiers.sequence import public

        return {**found, "nli": public(Path(self.nli))}


@dataclass(frozen=True)
class SentenceJudge:
    """Scores sentences by sources, and whole answers."""

    sources: Sources
    entailment: Entailment | None = None

    def score(self, sentence: str) -> float | None:
        """A sentence's score, from 0 to 1; None where it says nothing, or nothing is cited."""
        found = self.sources.containment(sentence)
        if not self.sources.texts or found is None or self.entailment is None:
            return found if self.sources.texts else None
        sure = self.entailment.entailed(self.sources.passages, sentence.strip())
        if not 0 <= sure <= 1:
            raise ConfigError(f"the classifier gave {sure!r}; it must be a probability")
        return sure

    def scores(self, answer: Completion, window: int) -> dict[str, Any]:
        """What a certificate says of a whole answer."""
        cut = sentences(answer.text, window, last=True)
        each = [score for sentence in cut if (score := self.score(sentence)) is not None]
        absent, gap = surprise(answer, self.sources.known) if self.sources.texts else (None, None)
        return {
            "sentences": [round(score, 4) for score in each],
            "mean": round(sum(each) / len(each), 4) if each else None,
            "least": round(min(each), 4) if each else None,
            "absent_words": absent,
            "surprise": None if gap is None else round(gap, 4),
        }


class GroundedScores(Check):
    """Scores an answer's sentences, and releases it as it is drawn."""

    name = "grounded"
    window: float = 0

    def __init__(self, judge: SentenceJudge, longest: int) -> None:
        self.judge, self.longest = judge, longest

    def clear(self, text: str, last: bool) -> int:
        return len(text)

    def scores(self, answer: Completion) -> Mapping[str, Any]:
        return {self.name: self.judge.scores(answer, self.longest)}


class GroundedCheck(GroundedScores):
    """Blocks the first sentence whose score is below `least`; holds back the one that is being written."""

    def __init__(self, judge: SentenceJudge, least: float, window: int, key: str, redo: int = 0) -> None:
        super().__init__(judge, window)
        self.least, self.window, self.key, self.redo = least, window, key, redo
        self._text, self._ends = "", [0]  # what was judged last, and where its harmless sentences end

    def fresh(self) -> Self:
        found = copy(self)
        found._text, found._ends = "", [0]
        return found

    def clear(self, text: str, last: bool) -> int:
        kept = leading(text, self._text)
        self._ends = [end for end in self._ends if end <= kept]
        self._text = text
        start = self._ends[-1]
        for sentence in sentences(text[start:], self.longest, last):
            score = self.judge.score(sentence)
            if score is not None and not score >= self.least:
                raise Blocked(start, self.key)
            start += len(sentence)
            if not last:
                self._ends.append(start)
        return start

    def judged(self) -> Mapping[str, Any]:
        return {"least": self.least}


def sentences(text: str, longest: int, last: bool) -> list[str]:
    """The sentences of a text, which join to it up to the one that may go on; with `last` to all of it.

    One longer than `longest` characters is cut at the last white space within them, or after them.
    """
    found, start = [], 0
    while start < len(text):
        end = ENDING.search(text, start, start + longest)
        if end is not None:
            stop = end.end()
        elif len(text) - start > longest:
            stop = start + _cut(text[start : start + longest])
        elif last:
            stop = len(text)
        else:
            break
        found.append(text[start:stop])
        start = stop
    return found


def _cut(text: str) -> int:
    """Where a text without an end of a sentence is cut: after its last white space, or at its end."""
    last = next((at for at in range(len(text) - 1, -1, -1) if text[at].isspace()), -1)
    return last + 1 if text[: last + 1].strip() else len(text)
