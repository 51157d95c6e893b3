"""`guardian`: a classifier judges what is asked, and what is answered before any of it is released."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from purify_hooks.stages.wording import pattern, require, texts, whole
from purify_plugins.canonical_json import counted
from purify_plugins.errors import ConfigError, RefusedError
from purify_plugins.stages.checks import Blocked, Check
from purify_plugins.stages.matches import PatternCheck, WordCheck, WordPattern
from purify_plugins.stages.request import Request
from purify_plugins.stages.stage import Stage
from purify_plugins.stages.texts import texts as texts_of
from purify_plugins.stages.windows import Classifier, Windows, check_bound, check_grid
from purify_plugins.utils.extras import require_extra
from purify_plugins.utils.files import read_text

if TYPE_CHECKING:
    from purify_plugins.protocols import LogitSource

OPTIONS: Mapping[str, tuple[str, ...]] = {
    "words": ("words", "file"),
    "regex": ("pattern",),
    "transformers": ("model", "label"),
    "slm": ("question",),
    "http": ("url",),
}
"""Each bundled classifier, and the options that are its own."""


@dataclass(frozen=True)
class Guardian(Stage):
    """Refuse a request, and block an answer, that a classifier finds harmful.

    `classifier` names one of these, or is an object with `scores(texts)`:

    - "words": `words` or phrases, or those of a `file`, one a line; found whole, in any case and spacing.
    - "regex": the regular expression `pattern`.
    - "transformers": the probability of `label` by the sequence classifier in the directory `model`.
    - "slm": the SLM's odds of yes to `question` about the text.
    - "http": the score of a server at `url`.

    `on` says what is judged: requests ("in"), answers ("out"). Answers are judged in windows of `window`
    characters, one every `stride`, and requests likewise; infinity judges a text whole. A score `above` this
    blocks. A classifier that fails, or takes longer than `deadline` seconds, refuses. After a block the SLM
    alone writes the span again, at most `redo` times. `key` names the operator's text for a refusal.
    """

    withheld: ClassVar[tuple[str, ...]] = ("words",)
    paths: ClassVar[tuple[str, ...]] = ("file", "model")

    classifier: str | Classifier = "words"
    on: tuple[str, ...] = ("in", "out")
    words: tuple[str, ...] = field(default=(), repr=False)
    file: str = ""
    pattern: str = ""
    model: str = ""
    label: str = ""
    question: str = ""
    url: str = ""
    window: float = 400
    stride: int = 200
    above: float = 0.5
    deadline: float = 5.0
    redo: int = 0
    key: str = "guardian"

    def __post_init__(self) -> None:
        for name in ("on", "words"):
            value = vars(self)[name]
            found = texts(value)
            shown = type(value) if name == "words" else value  # an error must not quote the list
            require("guardian", name, shown, found is not None, "a list of texts, none of them blank")
            object.__setattr__(self, name, found)
        sides = self.on and set(self.on) <= {"in", "out"}
        require("guardian", "on", list(self.on), bool(sides), '"in", "out" or both')
        require("guardian", "redo", self.redo, whole(self.redo, 0), "a number of times, 0 or more")
        fine = type(self.deadline) in (int, float) and 0 < self.deadline < math.inf
        require("guardian", "deadline", self.deadline, fine, "a number of seconds above 0")
        require("guardian", "key", self.key, isinstance(self.key, str) and bool(self.key), "a name")
        check_grid(self.window, self.stride)
        check_bound(self.above)
        self._check_options()

    def _check_options(self) -> None:
        """Raise ConfigError for an option that another classifier has, or that this one lacks."""
        kind, mine = self.kind, OPTIONS.get(self.kind, ())
        if isinstance(self.classifier, str):
            require("guardian", "classifier", kind, kind in OPTIONS, f"one of {', '.join(OPTIONS)}")
        for other, names in OPTIONS.items():
            for name in names:
                if vars(self)[name] and name not in mine:
                    raise ConfigError(
                        f"stage 'guardian': {name} is for the classifier {other!r}, not {kind!r}"
                    )
        given = [name for name in mine if vars(self)[name]]
        if mine and len(given) < (2 if kind == "transformers" else 1):
            how = (" and " if kind == "transformers" else " or ").join(mine)
            raise ConfigError(f"stage 'guardian': the classifier {kind!r} needs {how}")
        if kind in ("words", "regex"):
            _ = self._check
        elif kind == "transformers":
            from purify_hooks.stages.classifiers.sequence import check_classifier

            check_classifier(Path(self.model), self.label)
        elif kind == "http":
            require_extra("tgi", "stage 'guardian': the classifier 'http'")
            _ = self._host

    @property
    def kind(self) -> str:
        """The classifier's name; an object's class."""
        return self.classifier if isinstance(self.classifier, str) else type(self.classifier).__name__

    def bind(self, slm: LogitSource) -> Self:
        """The guardian with the loaded SLM, and with its own model loaded."""
        found = self
        if self.kind == "slm":
            found = copy(self)
            vars(found).pop("_check", None)
            object.__setattr__(found, "_slm", slm)
        _ = found._check
        return found

    @cached_property
    def _check(self) -> Check:
        """What judges answers, and requests alike. Raises ConfigError, ModelError."""
        name = f"guardian {self.kind}"
        if self.kind == "words":
            return WordCheck(self._words, key=self.key, redo=self.redo, name=name)
        if self.kind == "regex":
            found = pattern("guardian", "pattern", self.pattern)
            assert found is not None  # it was given
            grid = self.window, self.stride
            return PatternCheck(found, *grid, key=self.key, redo=self.redo, name=name)
        how: dict[str, Any] = {"deadline": self.deadline, "key": self.key, "redo": self.redo, "name": name}
        return Windows(self._classifier(), self.window, self.stride, self.above, **how)

    @cached_property
    def _words(self) -> WordPattern:
        listed = read_text(Path(self.file)).split("\n") if self.file else []
        return WordPattern([*self.words, *listed])

    @cached_property
    def _host(self) -> str:
        from purify_hooks.stages.classifiers.http import host_of

        return host_of(self.url)

    def _classifier(self) -> Classifier:
        if not isinstance(self.classifier, str):
            return self.classifier
        if self.kind == "transformers":
            from purify_hooks.stages.classifiers.sequence import SequenceClassifier

            return SequenceClassifier.load(Path(self.model), self.label)
        if self.kind == "http":
            from purify_hooks.stages.classifiers.http import HttpClassifier

            return HttpClassifier(self.url, self.deadline)
        from purify_hooks.stages.classifiers.odds import SlmOdds

        slm = vars(self).get("_slm")
        if slm is None:
            raise ConfigError(
                "stage 'guardian': the classifier 'slm' needs the SLM; use it as a Purifier's stage"
            )
        return SlmOdds(slm, self.question)

    @property
    def holds_back(self) -> float:
        if "out" not in self.on:
            return 0
        return self._words.longest if self.kind == "words" else self.window

    def answer(self, request: Request) -> Request:
        if "in" in self.on:
            for text in asked(request):
                self._judge(text)
        return request.checked(self._check) if "out" in self.on else request

    def _judge(self, text: str) -> None:
        try:
            self._check.fresh().clear(text, last=True)
        except Blocked as found:
            raise RefusedError("the guardian refuses this request", key=found.key) from None

    def public(self) -> Mapping[str, Any]:
        general = ("on", "window", "stride", "above", "deadline", "redo", "key")
        found: dict[str, Any] = {"classifier": self.kind, **{name: vars(self)[name] for name in general}}
        found["on"] = list(self.on)
        if self.window == math.inf:
            found["window"] = "all"
        if self.kind == "words":
            found["words"] = counted(self._words.words)
        elif self.kind == "regex":
            found["pattern"] = counted([self.pattern])
        elif self.kind == "transformers":
            from purify_hooks.stages.classifiers.sequence import public

            found |= {"model": public(Path(self.model)), "label": self.label}
        elif self.kind == "http":
            found["host"] = self._host
        elif self.kind == "slm":
            found["question"] = self.question
        return found


def asked(request: Request) -> Iterator[str]:
    """Every text that the models are asked: of all messages and tool calls, and what the LLM reads instead.

    Raises PromptError for token ids, which have no text.
    """
    for prompt in (request.prompt, request.shown):
        if prompt is not None:
            yield from texts_of(prompt)
