"""`forget`: what is to be forgotten is not said, and requests near it get less of the LLM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from purify_hooks.stages.targets import SHORT, Embedder, Names, read_targets, readings, spellings
from purify_hooks.stages.wording import require
from purify_plugins.canonical_json import counted
from purify_plugins.errors import RefusedError
from purify_plugins.stages.request import Request
from purify_plugins.stages.stage import Stage
from purify_plugins.stages.texts import texts
from purify_plugins.utils.files import read_text
from purify_plugins.utils.spelling import spaced, spelling

if TYPE_CHECKING:
    from purify_hooks.stages.gate import StrengthGate
    from purify_plugins.decode.deny_list import DenyList
    from purify_plugins.protocols import LogitSource

BUNDLED = Path(__file__).parent / "neutral.txt"
"""Everyday requests, one a line."""


@dataclass(frozen=True)
class Forget(Stage):
    """Rule out the names of targets in both models' rows, and lower the strength of requests near them.

    `targets` is a file: `Name | alias | alias` a line, and below it, indented, examples of what requests
    about the target say. No answer holds a name, in any spelling. A request that names a target is answered
    by the SLM alone, or with `on_named` "refuse" refused (key "forgotten"). Any other is compared with the
    examples, by hashed character 4-grams or an `embedder` (a directory of a transformers encoder, or an
    object with `vectors(texts)`), and with those of the file `neutral`, one a line: up to the score `far` it
    has the policy's whole strength, from `near` on the share `floor`, where 0 is the SLM alone. A gate that
    fails leaves 0. (ALU, arXiv 2502.00406; O3, arXiv 2407.10223.)
    """

    targets: str
    neutral: str = ""
    floor: float = 0.0
    on_named: Literal["slm", "refuse"] = "slm"
    embedder: str | Embedder = ""
    far: float = 0.15
    near: float = 0.25
    paths: ClassVar[tuple[str, ...]] = ("targets", "neutral", "embedder")

    def __post_init__(self) -> None:
        for name in ("targets", "neutral"):
            value = vars(self)[name]
            require("forget", name, value, isinstance(value, str), "a file's path")
        require("forget", "targets", self.targets, bool(self.targets), "a file's path")
        require("forget", "floor", self.floor, _within(self.floor, 0, 1), "a number from 0 to 1")
        named = self.on_named in ("slm", "refuse")
        require("forget", "on_named", self.on_named, named, '"slm" or "refuse"')
        for name in ("far", "near"):
            require(
                "forget", name, vars(self)[name], _within(vars(self)[name], -1, 1), "a number from -1 to 1"
            )
        require("forget", "near", self.near, self.near > self.far, f"above far, {self.far}")
        _ = self._listed, self._neutral
        if self.embedder and isinstance(self.embedder, str):
            from purify_hooks.stages.classifiers.encoder import check_encoder

            check_encoder(Path(self.embedder))

    @cached_property
    def _listed(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The names, and the texts that the gate compares requests with, names included."""
        found = read_targets(Path(self.targets))
        names = [name for target in found for name in target.names]
        return tuple(names), (*names, *(text for target in found for text in target.examples))

    @cached_property
    def _neutral(self) -> tuple[str, ...]:
        lines = read_text(Path(self.neutral) if self.neutral else BUNDLED).split("\n")
        found = tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))
        require("forget", "neutral", self.neutral, bool(found), "a file with examples, one a line")
        return found

    @cached_property
    def denied(self) -> DenyList:
        """The constraint; one object, so that rows of a batch decode together."""
        from purify_plugins.decode.deny_list import DenyList

        return DenyList(tuple(sorted(self._spelled)), any_spelling=True)

    @cached_property
    def _spelled(self) -> set[str]:
        return {each for name in self._listed[0] for each in spellings(name)}

    @cached_property
    def _names(self) -> Names:
        return Names(self._spelled)

    @cached_property
    def gate(self) -> StrengthGate:
        """What says how much strength a request keeps. Raises ModelError: the embedder does not load."""
        from purify_hooks.stages.gate import GramLikeness, StrengthGate, VectorLikeness

        _, compared = self._listed
        if not self.embedder:
            likeness: Any = GramLikeness(compared, self._neutral)
        elif isinstance(self.embedder, str):
            from purify_hooks.stages.classifiers.encoder import Encoder

            likeness = VectorLikeness(Encoder.load(Path(self.embedder)), compared, self._neutral)
        else:
            likeness = VectorLikeness(self.embedder, compared, self._neutral)
        return StrengthGate(likeness, self.far, self.near, self.floor)

    def bind(self, slm: LogitSource) -> Self:
        """The stage with its lists indexed and its own model loaded."""
        _ = self.denied.follower(slm.vocabulary), self._names, self.gate
        return self

    @property
    def choices(self) -> int:
        return 1

    def answer(self, request: Request) -> Request:
        prompts = [each for each in (request.prompt, request.shown) if each is not None]
        asked = [said for each in prompts for text in texts(each) for said in readings(text)]
        request = request.forbidding(self.denied)
        if any(map(self._names.found_in, asked)):
            if self.on_named == "refuse":
                raise RefusedError("this request is about what is forgotten", key="forgotten")
            return request.alone()
        strength = self.gate.strength(asked)
        return request.weaker(strength) if strength else request.alone()

    def remarks(self) -> Sequence[str]:
        short = sum(len(each) < SHORT and spaced(each) for each in map(spelling, self._listed[0]))
        if not short:
            return ()
        return (f"{short} names have fewer than {SHORT} letters: all words that begin so are ruled out",)

    def public(self) -> Mapping[str, Any]:
        names, compared = self._listed
        found: dict[str, Any] = {
            "targets": counted(names),
            "examples": counted(compared[len(names) :]),
            "neutral": counted(self._neutral),
            **{name: vars(self)[name] for name in ("floor", "on_named", "far", "near")},
        }
        if isinstance(self.embedder, str) and self.embedder:
            from purify_hooks.stages.classifiers.sequence import public

            found["embedder"] = public(Path(self.embedder))
        elif self.embedder:
            found["embedder"] = type(self.embedder).__name__
        return found


def _within(value: object, low: float, high: float) -> bool:
    return type(value) in (int, float) and low <= value <= high  # type: ignore[operator]  # a number, by then
